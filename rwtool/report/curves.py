"""The picture of a run as it goes: ``curves.png``, drawn so rarely that the training hardly notices."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rwtool.console import printable
from rwtool.report.figures import COLOURS, INK, can_draw, drawing, new_figure, save_figure

_SHARE = 0.02  # of the time of a training that its pictures may take, the last one apart
_EVERY_SECONDS = 20.0  # at most


class CurvePicture:
    """Draws a run from time to time, and once more at its end; nothing where matplotlib is not installed.

    Parameters
    ----------
    path : Path
    names : dict of int to str
        Of the foreground classes by label.
    """

    def __init__(self, path: Path, names: Mapping[int, str]) -> None:
        self._path, self._names = path, names
        self._due = time.perf_counter() + _EVERY_SECONDS if can_draw() else math.inf

    def update(self, history: Sequence[Mapping[str, Any]], *, last: bool) -> str | None:
        """Draw the epochs that are done, if it is time for that.

        Parameters
        ----------
        history : sequence of dict
            Rows of ``metrics.csv``.
        last : bool
            The run is at its end: draw in any case.

        Returns
        -------
        str or None
            Why the picture could not be drawn, which is no reason to stop a training; it is not tried again.
        """
        start = time.perf_counter()
        if math.isinf(self._due) or (start < self._due and not last):
            return None
        try:
            draw_curves(self._path, history, self._names)
        except Exception as error:  # whatever it is, the training is worth more than its picture
            self._due = math.inf
            return f"{self._path.name} is not drawn: {error or type(error).__name__}"
        now = time.perf_counter()
        self._due = now + max(_EVERY_SECONDS, (now - start) / _SHARE)
        return None


def draw_curves(path: Path, history: Sequence[Mapping[str, Any]], names: Mapping[int, str]) -> None:
    """Draw loss, Dice and learning rate by epoch.

    Parameters
    ----------
    path : Path
        Of a .png, .pdf or .svg file.
    history : sequence of dict
        Rows of ``metrics.csv``, at least one.
    names : dict of int to str
        Of the foreground classes by label.

    Raises
    ------
    UsageError
        matplotlib is not installed, or the suffix is of no format that is written.
    VolumeError
        The file cannot be written.
    """
    validated = [row for row in history if "dice" in row]
    with drawing():
        figure = new_figure(9.0, 2.8)
        for axes, (title, key) in zip(
            figure.subplots(1, 3),
            (("Training loss", "loss"), ("Validation Dice", "dice"), ("Learning rate", "lr")),
            strict=True,
        ):
            axes.set_title(title, loc="left")
            axes.set_xlabel("epoch")
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.set_xlim(0, history[-1]["epoch"] * 1.02)
            if key != "dice":
                values = [row[key] for row in history]
                axes.plot([row["epoch"] for row in history], values, color=INK, marker=_mark(values), markersize=3)
                continue
            axes.set_ylim(0, 1)
            series = {label: f"dice_{label}" for label in names}
            for index, (label, column) in enumerate(series.items()):
                values = [row.get(column, math.nan) for row in validated]
                style = "-" if index < len(COLOURS) else "--"
                axes.plot(
                    [row["epoch"] for row in validated], values, style, color=COLOURS[index % len(COLOURS)],
                    marker=_mark(values), markersize=3, label=printable(_shown(label, names[label])),
                )  # fmt: skip
            if validated:
                axes.legend(fontsize=8, ncols=1 + len(names) // 6)
        figure.axes[2].set_ylim(bottom=0)
        save_figure(figure, path)


def _shown(label: int, name: str) -> str:
    return name if name == str(label) else f"{label} {name}"


def _mark(values: Sequence[float]) -> str:
    """A dot where a line would have too few points to be seen as such."""
    return "o" if len(values) <= 20 else ""
