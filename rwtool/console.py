"""What a terminal shows: tables, counts and sizes in words, and the progress of long work."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

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
            print(f"[{done}/{len(voxels)}] {label} {name}: {what}", file=sys.stderr, flush=True)

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
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[cases]}"),
        VoxelRate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=bar_only) as bar:
        task = bar.add_task(label, total=sum(voxels.values()), cases=f"0/{len(voxels)} cases")

        def advance(name: str, seconds: float, failed: bool) -> None:
            nonlocal done
            done += 1
            bar.update(task, advance=voxels[name], cases=f"{done}/{len(voxels)} cases")

        yield advance
