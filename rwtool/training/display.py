"""How far a training run is: a live line on a terminal, a line per epoch elsewhere; on standard error."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from rwtool.console import printable


class TrainingDisplay:
    """Shows loss, Dice, slices per second and the time left.

    Parameters
    ----------
    epochs, done : int
        Of the run, and those that it had when it was resumed.
    labels : dict of int to str
        Names of the foreground classes by label.
    bar : rich.progress.Progress or None
        None prints lines.
    prefix : str
        Of each line, where several runs are shown.
    """

    def __init__(
        self,
        epochs: int,
        done: int,
        labels: Mapping[int, str],
        bar: Progress | None,
        console: Console,
        prefix: str = "",
    ) -> None:
        self._prefix = prefix
        self._epochs, self._first, self._labels, self._console = epochs, done, labels, console
        self._start = self._shown = time.perf_counter()
        self._rate, self._slices, self._dice = 0.0, 0, ""
        self._bar = bar
        self._task = None if bar is None else bar.add_task("", total=epochs, completed=done, text="")

    def step(self, epoch: int, step: int, steps: int, loss: float, slices: int) -> None:
        """Some steps of an epoch are done."""
        self._slices += slices
        now = time.perf_counter()
        if self._bar is None or self._task is None or now - self._shown < 0.2:
            return
        self._rate = self._slices / (now - self._shown)
        self._shown, self._slices = now, 0
        done = epoch + step / steps
        text = f"{self._prefix}epoch {epoch + 1}/{self._epochs}  loss {loss:.4f}{self._dice}  {self._rate:.0f} slices/s"
        self._bar.update(self._task, completed=done, text=f"{text}  {self._left(done)}")

    def epoch(self, row: Mapping[str, Any]) -> None:
        """An epoch is done."""
        done = row["epoch"]
        validated = "dice" in row
        if validated:
            parts = ", ".join(f"{name} {_dice(row[f'dice_{label}'])}" for label, name in self._labels.items())
            self._dice = f"  Dice {_dice(row['dice'])}"
        self._slices, self._shown = 0, time.perf_counter()
        line = f"{self._prefix}epoch {done}/{self._epochs}  loss {row['loss']:.4f}"
        line += f"{self._dice} ({parts})" if validated else ""
        if self._bar is None:
            line += f"  {row['slices_per_second']:.0f} slices/s  {self._left(done)}"
        if self._bar is None or validated:
            self._print(line)

    def note(self, text: str) -> None:
        """Something of the run is not as it should be."""
        self._print(f"{self._prefix}note: {text}")

    def _print(self, line: str) -> None:
        if self._bar is not None:
            self._bar.console.print(printable(line), highlight=False, markup=False)
            return
        self._console.file.write(printable(line.rstrip()) + "\n")  # in one piece: other processes write there too
        self._console.file.flush()

    def _left(self, done: float) -> str:
        """Time left, from the pace of this session."""
        past = done - self._first
        if past <= 0 or done >= self._epochs:
            return ""
        left = (time.perf_counter() - self._start) / past * (self._epochs - done)
        hours, minutes, seconds = int(left // 3600), int(left % 3600 // 60), int(left % 60)
        return "left " + (f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s")


@contextlib.contextmanager
def show_training(
    epochs: int, done: int, labels: Mapping[int, str], *, quiet: bool, prefix: str = "", lines: bool = False
) -> Iterator[TrainingDisplay | None]:
    """Show a run from its epoch `done` on, by lines alone if so wanted; nothing when quiet."""
    console = Console(stderr=True)
    if quiet:
        yield None
    elif lines or not console.is_terminal:
        yield TrainingDisplay(epochs, done, labels, None, console, prefix)
    else:
        with Progress(BarColumn(24), TextColumn("{task.fields[text]}", markup=False), console=console) as bar:
            yield TrainingDisplay(epochs, done, labels, bar, console, prefix)


def _dice(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"
