"""``curves.png``: of a run as it goes, drawn so rarely that the training hardly notices, and of several runs."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rwtool.console import printable
from rwtool.datasets.curves import read_curve
from rwtool.datasets.runs import CURVES
from rwtool.report.figures import COLOURS, INK, can_draw, drawing, new_figure, save_figure
from rwtool.statistics.convergence import EpochSpread, epoch_spreads

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SHARE = 0.02  # of the time of a training that its pictures may take, the last one apart
_EVERY_SECONDS = 20.0  # at most
_BY_CLASS = {"dice": "Validation Dice", "hd_mm": "Validation HD (mm)", "hd95_mm": "Validation HD95 (mm)"}


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
    """Draw loss, Dice, distances where there are such, and learning rate by epoch.

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
    measures = [name for name in _BY_CLASS if name == "dice" or any(name in row for row in history)]
    with drawing():
        figure = new_figure(3.0 * (2 + len(measures)), 2.8)
        loss, *rest = figure.subplots(1, 2 + len(measures))
        _prepare(loss, "Training loss", history[-1]["epoch"])
        _prepare(rest[-1], "Learning rate", history[-1]["epoch"])
        for axes, key in ((loss, "loss"), (rest[-1], "lr")):
            values = [row[key] for row in history]
            axes.plot([row["epoch"] for row in history], values, color=INK, marker=_mark(values), markersize=3)
        rest[-1].set_ylim(bottom=0)
        for axes, measure in zip(rest, measures, strict=False):
            _prepare(axes, _BY_CLASS[measure], history[-1]["epoch"])
            validated = [row for row in history if measure in row]
            for index, label in enumerate(names):
                values = [row.get(f"{measure}_{label}", math.nan) for row in validated]
                axes.plot(
                    [row["epoch"] for row in validated], values, _style(index), color=COLOURS[index % len(COLOURS)],
                    marker=_mark(values), markersize=3, label=printable(_shown(label, names[label])),
                )  # fmt: skip
            _finish(axes, measure, names if validated else {})
        save_figure(figure, path)


def draw_runs(folder: Path, runs: Sequence[Path], names: Mapping[int, str]) -> str | None:
    """Draw the mean over several runs into the folder that holds them; nothing where matplotlib is not installed.

    Parameters
    ----------
    folder : Path
    runs : sequence of Path
        Those that have not begun are passed over.
    names : dict of int to str
        Of the foreground classes by label.

    Returns
    -------
    str or None
        Why the picture could not be drawn, which is no reason to fail.
    """
    if not can_draw():
        return None
    try:
        curves = [curve for run in runs if (curve := read_curve(run)) is not None and len(curve.loss)]
        if len(curves) > 1:
            draw_mean_curves(folder / CURVES, epoch_spreads(curves), names)
    except Exception as error:  # whatever it is, the runs are worth more than their picture
        return f"{CURVES} is not drawn: {error or type(error).__name__}"
    return None


def draw_mean_curves(path: Path, spreads: Sequence[EpochSpread], names: Mapping[int, str]) -> None:
    """Draw the mean over runs by epoch of loss, Dice, and distances where there are such, in a band of one SD.

    Parameters
    ----------
    path : Path
        Of a .png, .pdf or .svg file.
    spreads : sequence of EpochSpread
        Of :func:`rwtool.statistics.convergence.epoch_spreads`.
    names : dict of int to str
        Of the foreground classes by label.

    Raises
    ------
    UsageError
        matplotlib is not installed, or the suffix is of no format that is written.
    VolumeError
        The file cannot be written.
    """
    found: dict[str, list[EpochSpread]] = {}
    for spread in spreads:
        found.setdefault(spread.measure, []).append(spread)
    measures = [name for name in _BY_CLASS if name == "dice" or name in found]
    last, runs = max(spread.epoch for spread in spreads), max(spread.n for spread in spreads)
    with drawing():
        figure = new_figure(3.0 * (1 + len(measures)), 2.8)
        loss, *rest = figure.subplots(1, 1 + len(measures))
        _prepare(loss, f"Training loss: mean ± SD of {runs} runs", last)
        draw_band(loss, found.get("loss", []), INK, (-math.inf, math.inf))
        for axes, measure in zip(rest, measures, strict=True):
            _prepare(axes, _BY_CLASS[measure], last)
            limits = (0, 1) if measure == "dice" else (0, math.inf)
            for index, label in enumerate(names):
                draw_band(
                    axes, found.get(f"{measure}_{label}", []), COLOURS[index % len(COLOURS)], limits, _style(index),
                    printable(_shown(label, names[label])),
                )  # fmt: skip
            _finish(axes, measure, names)
        save_figure(figure, path)


def _prepare(axes: Axes, title: str, last: int) -> None:
    axes.set_title(title, loc="left")
    along_epochs(axes)
    axes.set_xlim(0, last * 1.02)


def along_epochs(axes: Axes) -> None:
    """Name the x axis, with ticks at whole epochs."""
    axes.set_xlabel("epoch")
    locator: Any = axes.xaxis.get_major_locator()
    locator.set_params(integer=True)


def _finish(axes: Axes, measure: str, names: Mapping[int, str]) -> None:
    """Set the limits of a panel with a line for each class, and name them in that of Dice."""
    if measure != "dice":
        axes.set_ylim(bottom=0)
        return
    axes.set_ylim(0, 1)
    if names:
        axes.legend(fontsize=8, ncols=1 + len(names) // 6)


def draw_band(
    axes: Axes,
    spreads: Sequence[EpochSpread],
    colour: str,
    limits: tuple[float, float],
    style: str = "-",
    label: str | None = None,
) -> None:
    """Draw a mean by epoch in a band of one SD, cut where there can be no values."""
    epochs, means = [s.epoch for s in spreads], [s.mean for s in spreads]
    axes.plot(epochs, means, style, color=colour, marker=_mark(means), markersize=3, label=label)
    band = [0.0 if math.isnan(s.sd) else s.sd for s in spreads]
    low = [max(limits[0], mean - sd) for mean, sd in zip(means, band, strict=True)]
    high = [min(limits[1], mean + sd) for mean, sd in zip(means, band, strict=True)]
    axes.fill_between(epochs, low, high, color=colour, alpha=0.2, lw=0)


def _style(index: int) -> str:
    return "-" if index < len(COLOURS) else "--"


def _shown(label: int, name: str) -> str:
    return name if name == str(label) else f"{label} {name}"


def _mark(values: Sequence[float]) -> str:
    """A dot where a line would have too few points to be seen as such."""
    return "o" if len(values) <= 20 else ""
