"""How far the cases are: a bar on a terminal, a line per case elsewhere."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from rwtool.runner import Outcome, Work


class _VoxelRate(ProgressColumn):
    """Voxels per second."""

    def render(self, task: Task) -> Text:
        rate = task.finished_speed or task.speed
        return Text("" if rate is None else f"{rate / 1e6:.1f} Mvoxel/s", style="progress.data.speed")


@contextlib.contextmanager
def show_progress(label: str, work: Sequence[Work[Any]], verbosity: int) -> Iterator[Callable[[Outcome[Any]], None]]:
    """A bar on a terminal, a line per case elsewhere, nothing when quiet; all of it on standard error."""
    console = Console(stderr=True)
    voxels = {item.name: item.voxels for item in work}
    done = 0
    if verbosity < 0:
        yield lambda outcome: None
        return
    if not console.is_terminal:

        def line(outcome: Outcome[Any]) -> None:
            nonlocal done
            done += 1
            what = "FAILED" if outcome.error else f"{outcome.seconds:.1f} s"
            print(f"[{done}/{len(work)}] {label} {outcome.name}: {what}", file=console.file, flush=True)

        yield line
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[cases]}"),
        _VoxelRate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(label, total=sum(voxels.values()), cases=f"0/{len(work)} cases")

        def advance(outcome: Outcome[Any]) -> None:
            nonlocal done
            done += 1
            bar.update(task, advance=voxels[outcome.name], cases=f"{done}/{len(work)} cases")

        yield advance
