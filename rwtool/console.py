"""What a terminal shows: names made printable, tables, counts and sizes in words, and the progress of long work.

Names of cases, methods, classes and files come from users and from files of others. They reach a terminal, a table or a
file for people through :func:`printable` alone.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from rwtool.errors import cut_lines

COMMAND_LINE: ContextVar[str | None] = ContextVar("COMMAND_LINE", default=None)
"""The command line that runs, for what a report says of itself; None where rwtool is used from Python."""

_PLAIN_WIDTH = 120
_ASCII = str.maketrans({"±": "+-", "↑": "^", "↓": "v"})


def printable(text: str) -> str:
    r"""Write out the characters that do something other than appear: as ``\x1b``, ``\u202e``, ``\U000e0001``.

    They are those that `str.isprintable` denies: control characters and line ends, marks that turn the direction of
    writing, spaces other than the common one, halves of surrogate pairs (bytes of a file name that are no UTF-8),
    private and unassigned ones.

    >>> print(printable("tumour\x1b[31m\n"))
    tumour\x1b[31m\n
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def printable_lines(text: str) -> str:
    r"""Make a message printable that may have lines of its own; those after the first are set in.

    So no name can pass for a line of the program's.

    >>> print(printable_lines("a.nii: two grids\nreference  1 x 1\x07"))
    a.nii: two grids
        reference  1 x 1\x07
    """
    first, *others = cut_lines(text).split("\n")
    indented = (line if line.startswith("    ") else f"    {line}" for line in others)
    return "\n".join(printable(line) for line in (first, *indented))


def json_text(content: Any, *, ascii_only: bool = False) -> str:
    r"""Write strict JSON: letters of every language as they are, what `printable` writes out as ``\u001b``.

    Parameters
    ----------
    content : Any
        What JSON can hold.
    ascii_only : bool
        Write out every character beyond ASCII, for a stream whose encoding is unknown.
    """

    def escaped(found: re.Match[str]) -> str:
        character = found.group()
        if character.isprintable() and not ascii_only:
            return character
        return json.dumps(character)[1:-1].replace("\x7f", "\\u007f")

    text = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False)
    return "\n".join(re.sub(r"[^ -~]", escaped, line) for line in text.split("\n"))


def say(text: str, *, err: bool = False) -> None:
    """Print a line, or a message with lines of its own, to standard output or standard error."""
    stream = sys.stderr if err else sys.stdout
    # in one piece: `print` writes the line's end on its own, and a signal may come between
    stream.write(_fitted(printable_lines(text), stream.encoding) + "\n")
    stream.flush()


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, text_columns: int = 1) -> None:
    """Print a table to standard output; the first columns are text, the others are numbers.

    A title of a column may have several lines.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    # Names come from users: [x] in them is no markup and :x: no emoji.
    console = Console(highlight=False, markup=False, emoji=False)

    def shown(text: str) -> str:
        return _fitted(printable(text), console.encoding)

    table = Table(box=SIMPLE_HEAD)
    for index, column in enumerate(columns):
        head = "\n".join(map(shown, column.split("\n")))
        table.add_column(head, justify="left" if index < text_columns else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(shown, row))
    if not console.is_terminal:
        console.width = _PLAIN_WIDTH
    console.print(shown(title), style="italic", soft_wrap=not console.is_terminal)
    console.print(table)


def print_lines(lines: Iterable[str]) -> None:
    """Print lines to standard output, wrapped only on a terminal."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    for line in lines:
        console.print(_fitted(printable(cut_lines(line)), console.encoding), soft_wrap=not console.is_terminal)


def _fitted(text: str, encoding: str | None) -> str:
    """Replace what a stream cannot hold."""
    encoding = encoding or "ascii"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(_ASCII).encode(encoding, "backslashreplace").decode(encoding)
    return text


def count(number: int, noun: str) -> str:
    """``1 case``, ``2 cases``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "es" if noun.endswith("s") else "s")


def size(number: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def duration(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


Advance = Callable[[str, float, bool], None]
"""Takes what is done: the name of a case, its seconds, and whether it failed."""


@contextlib.contextmanager
def show_progress(
    label: str, voxels: Mapping[str, int], *, quiet: bool = False, bar_only: bool = False
) -> Iterator[Advance]:
    """How far the cases are: a bar on a terminal, a line per case elsewhere; all of it on standard error.

    Parameters
    ----------
    label : str
        What is being done.
    voxels : dict of str to int
        Share of each case in the work.
    quiet : bool
        Show nothing.
    bar_only : bool
        No lines where there is no terminal, for work that is not the command's own, such as hashing.

    Yields
    ------
    callable
        See `Advance`.
    """
    if quiet or (bar_only and not sys.stderr.isatty()):
        yield lambda name, seconds, failed: None
        return
    done = 0
    if not sys.stderr.isatty():

        def line(name: str, seconds: float, failed: bool) -> None:
            nonlocal done
            done += 1
            what = "FAILED" if failed else f"{seconds:.1f} s"
            say(f"[{done}/{len(voxels)}] {label} {printable(name)}: {what}", err=True)

        yield line
        return

    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class VoxelRate(ProgressColumn):
        """Voxels per second."""

        def render(self, task: Task) -> Text:
            rate = task.finished_speed or task.speed
            return Text("" if rate is None else f"{rate / 1e6:.1f} Mvoxel/s", style="progress.data.speed")

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[cases]}", markup=False),
        VoxelRate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=bar_only) as bar:
        task = bar.add_task(printable(label), total=sum(voxels.values()), cases=f"0/{len(voxels)} cases")

        def advance(name: str, seconds: float, failed: bool) -> None:
            nonlocal done
            done += 1
            bar.update(task, advance=voxels[name], cases=f"{done}/{len(voxels)} cases")

        yield advance
