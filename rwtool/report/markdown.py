"""Tables in Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, text_columns: int = 1) -> str:
    """Write a table in Markdown; the first columns are text, the others are numbers."""
    rule = ["---" if index < text_columns else "---:" for index in range(len(columns))]
    lines = [[escape_markdown(cell) for cell in columns], rule, *([escape_markdown(cell) for cell in r] for r in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def escape_markdown(text: str) -> str:
    r"""Escape what Markdown would take for markup.

    >>> print(escape_markdown("a|b*"))
    a\|b\*
    """
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", " ".join(text.split()))
