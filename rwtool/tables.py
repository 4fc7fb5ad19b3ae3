"""Tables of text: on the terminal and in Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_PLAIN_WIDTH = 120
_ASCII = str.maketrans({"±": "+-", "↑": "^", "↓": "v"})


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, text_columns: int = 1) -> None:
    """Print a table to standard output; the first columns are text, the others are numbers."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    # Names come from users: [x] in them is no markup and :x: no emoji.
    console = Console(highlight=False, markup=False, emoji=False)
    plain = _ASCII if console.options.ascii_only else {}
    table = Table(box=SIMPLE_HEAD)
    for index, column in enumerate(columns):
        table.add_column(column.translate(plain), justify="left" if index < text_columns else "right", overflow="fold")
    for row in rows:
        table.add_row(*(cell.translate(plain) for cell in row))
    if not console.is_terminal:
        console.width = _PLAIN_WIDTH
    console.print(title.translate(plain), style="italic", soft_wrap=not console.is_terminal)
    console.print(table)


def print_lines(lines: Iterable[str]) -> None:
    """Print lines to standard output, wrapped only on a terminal."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    for line in lines:
        console.print(line.translate(_ASCII) if console.options.ascii_only else line, soft_wrap=not console.is_terminal)


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
