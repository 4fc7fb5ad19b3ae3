"""Tables in Markdown, as CommonMark and GitHub read it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from rwtool.console import printable

_ANYWHERE = re.compile(
    r"""[\\`*_~\[\]<>|&$^@#!]   # emphasis, code, links, cells, HTML, entities, mathematics, superscripts, mentions
    | :(?=\S)                   # an address or an emoji
    | (?<=www)\.                # an address
    """,
    re.VERBOSE | re.IGNORECASE,
)
_AT_THE_START = re.compile(r"^( *|\d+)([-+=]|(?<=\d)[.)])")  # a list, a rule or a heading


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, text_columns: int = 1) -> str:
    """Write a table in Markdown; the first columns are text, the others are numbers.

    A title of a column may have several lines, which are joined; spaces that only align numbers are left out.
    """

    def cell(text: str) -> str:
        return _escape_inside(re.sub(" +", " ", text).strip(" "))

    rule = ["---" if index < text_columns else "---:" for index in range(len(columns))]
    heads = [cell(column.replace("\n", " ")) for column in columns]
    lines = [heads, rule, *([cell(text) for text in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def escape_markdown(text: str) -> str:
    r"""Write text so that Markdown shows it as it is; what cannot be printed is written out.

    >>> print(escape_markdown("a|b* ~~c~~ &lt; $x$"))
    a\|b\* \~\~c\~\~ \&lt; \$x\$
    >>> print(escape_markdown("1. https://x.org"))
    1\. https\://x.org
    """
    return _AT_THE_START.sub(r"\1\\\2", _escape_inside(text))


def _escape_inside(text: str) -> str:
    """Escape what is markup anywhere in a line."""
    return _ANYWHERE.sub(lambda found: "\\" + found.group(), printable(text))
