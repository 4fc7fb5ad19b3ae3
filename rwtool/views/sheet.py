"""The contact sheet of a data set: a strip of slices for each case, over as many pages as it takes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rwtool.console import count
from rwtool.datasets.classes import Classes
from rwtool.datasets.plan import DataSet, LabelFile
from rwtool.errors import RwtoolError, shorten
from rwtool.parallel import WITHOUT_OVERWRITE, Outcome, Work, attempt, run_cases, schedule
from rwtool.report.figures import COLOURS, INK, drawing, new_figure, save_figure
from rwtool.report.slices import add_legend, class_areas, short_name, window_of
from rwtool.views.planes import foreground_by_slice, plane_of, spread_slices
from rwtool.views.source import read_shown_image, split_ignored

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 8
"""Slices side by side on a page."""
ROWS = 10

# in inches
_CELL, _GAP, _MARGIN, _NAME = 1.15, 0.06, 0.12, 0.2
_TITLE, _LEGEND_ROW = 0.34, 0.2
_FLAG = COLOURS[1]
_SHARE = 0.45  # of a class's colour over the image
_DPI = 110  # a page of images has 1.5 MB
_PROCESS_BYTES = 350_000_000  # interpreter, libraries and a page


@dataclass(frozen=True)
class SheetCase:
    """A case of a sheet: its label file and image, or the reason why it cannot be read."""

    name: str
    file: LabelFile | None
    image: tuple[Path, ...] | None = None
    error: str | None = None


@dataclass(frozen=True)
class Flags:
    """What is to be looked at in a case.

    Attributes
    ----------
    absent : tuple of str
        Names of the classes that are not there.
    notes : tuple of str
        What its file is odd about.
    """

    absent: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.absent or self.notes)

    def describe(self) -> str:
        """In a few words."""
        absent = [f"no {shorten(list(self.absent))}"] if self.absent else []
        return "; ".join([*absent, *self.notes])


@dataclass(frozen=True)
class Page:
    """One page: what stands on it and where it goes."""

    path: Path
    title: str
    cases: tuple[SheetCase, ...]
    classes: Classes
    slices: int  # cells of each case
    grid: Mapping[str, Any] = field(default_factory=dict)  # to read images with


@dataclass(frozen=True)
class Sheet:
    """A contact sheet.

    Attributes
    ----------
    pages : list of Path
    outcomes : list of Outcome
        By case: what is to be looked at, or the reason why it was not read.
    """

    pages: list[Path]
    outcomes: list[Outcome[Flags]]


def page_paths(path: Path, cases: int, slices: int) -> list[Path]:
    """The files of the pages: one of the given name, or FILE-1.png, FILE-2.png, ...

    >>> [page.name for page in page_paths(Path("a.png"), 11, 8)]
    ['a-1.png', 'a-2.png']
    """
    pages = math.ceil(cases / _cases_on_a_page(slices))
    return [path] if pages == 1 else [path.with_name(f"{path.stem}-{n}{path.suffix}") for n in range(1, pages + 1)]


def _cases_on_a_page(slices: int) -> int:
    return ROWS * max(1, COLUMNS // slices)


def strip_length(dataset: DataSet, slices: int) -> int:
    """Cells of each case: as many as asked for, where any case has so many slices."""
    return min(slices, max((file.shape[0] for file in dataset.files.values()), default=1))


def draw_sheet(
    dataset: DataSet,
    images: Mapping[str, tuple[Path, ...]] | None,
    paths: Sequence[Path],
    *,
    slices: int,
    grid: Mapping[str, Any],
    jobs: int | None,
    verbosity: int,
) -> Sheet:
    """Draw a data set; each process holds one volume at a time.

    Parameters
    ----------
    dataset : DataSet
    images : dict of str to tuple of Path, optional
    paths : sequence of Path
        Of the pages, see :func:`page_paths`.
    slices : int
        Cells of each case, see :func:`strip_length`.
    grid : dict
        ``spacing_mm`` and ``slice_axis`` of the images, where they apply.
    jobs : int, optional
        Pages at once; by default what cores and memory allow.
    verbosity : int
        -1 shows no progress.
    """
    reasons = {outcome.name: outcome.error for outcome in dataset.failed}
    cases = [
        SheetCase(name, dataset.files.get(name), None if images is None else images.get(name), reasons.get(name))
        for name in dataset.paths
    ]
    folders = {path.parent.name or path.resolve().parent.name for path in dataset.paths.values()}
    name = folders.pop() if len(folders) == 1 else f"{count(len(folders), 'folder')}"
    most, work = _cases_on_a_page(slices), []
    for number, path in enumerate(paths):
        on_it = tuple(cases[number * most : (number + 1) * most])
        which = f", page {number + 1} of {len(paths)}" if len(paths) > 1 else ""
        page = Page(path, f"{name}: {count(len(cases), 'case')}{which}", on_it, dataset.classes, slices, grid)
        files = [case.file for case in on_it if case.file is not None]
        voxels = [file.voxels * (file.itemsize + (10 if images else 2)) for file in files]
        work.append(
            Work(f"page {number + 1}", page, sum(f.voxels for f in files) or 1, max(voxels, default=0) + _PROCESS_BYTES)
        )
    settled = schedule(work, jobs)
    outcomes = settled.refused + run_cases(
        _draw_page,
        settled.work,
        jobs=settled.jobs,
        label="draw",
        verbosity=verbosity,
        folders=[paths[0].parent] if paths[0].parent.is_dir() else [],
        rerun=WITHOUT_OVERWRITE,
    )
    return _gather({item.name: item.argument for item in work}, outcomes)


def _gather(pages: Mapping[str, Page], outcomes: Iterable[Outcome[list[Outcome[Flags]]]]) -> Sheet:
    """All cases in order; those of a page that could not be drawn share its reason."""
    found = {outcome.name: outcome for outcome in outcomes}
    drawn, cases = [], []
    for name, page in pages.items():
        outcome = found[name]
        if outcome.result is not None:
            drawn.append(page.path)
            cases += outcome.result
        else:
            cases += [Outcome[Flags](case.name, None, outcome.error, outcome.details) for case in page.cases]
    return Sheet(drawn, cases)


@dataclass(frozen=True, eq=False)
class _Strip:
    """The slices of a case as pictures, (rows, columns, 3), with the size in mm of each."""

    pictures: list[NDArray[np.float32]]
    extent_mm: tuple[float, float]
    slices: list[int]
    flags: Flags


def _draw_page(page: Page) -> list[Outcome[Flags]]:
    """Read the cases of a page one after another, and draw it."""
    side_by_side = max(1, COLUMNS // page.slices)
    rows = -(-len(page.cases) // side_by_side)
    legend = -(-(len(page.classes) - 1) // COLUMNS)
    strip = page.slices * _CELL + (page.slices - 1) * _GAP
    columns = side_by_side * page.slices if rows > 1 else min(len(page.cases), side_by_side) * page.slices
    width = 2 * _MARGIN + max(columns, 4) * (_CELL + _GAP) - _GAP
    top = _MARGIN + _TITLE + legend * _LEGEND_ROW
    height = top + rows * (_NAME + _CELL + _GAP) + _MARGIN
    done: list[Outcome[Flags]] = []
    with drawing():
        figure = new_figure(width, height)
        figure.set_layout_engine("none")
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        for index, case in enumerate(page.cases):
            row, column = divmod(index, side_by_side)
            corner = (_MARGIN + column * (strip + _GAP), top + row * (_NAME + _CELL + _GAP))
            outcome = attempt(_read_strip, Work(case.name, (case, page)))
            found = outcome.result
            _draw_strip(axes, corner, strip, case.name, found, outcome.error, page.slices)
            flags = None if found is None else found.flags
            done.append(Outcome(case.name, flags, outcome.error, outcome.details, outcome.seconds))
        axes.set(xlim=(0, width), ylim=(height, 0), aspect="auto")
        bad = sum(outcome.error is not None or bool(outcome.result) for outcome in done)
        rest = f", {bad} outlined" if bad else ""
        head = short_name(page.title, width - 2 * _MARGIN - len(rest) * 0.6 * 10 / 72, 10) + rest
        axes.text(_MARGIN, _MARGIN, head, va="top", fontsize=10)
        _draw_legend(axes, page.classes, (_MARGIN / width, 1 - (_MARGIN + _TITLE - 0.06) / height))
        save_figure(figure, page.path, dpi=_DPI)
    return done


def _read_strip(argument: tuple[SheetCase, Page]) -> _Strip:
    case, page = argument
    if case.file is None:
        raise RwtoolError(case.error or "it cannot be read")
    volume = case.file.read()
    plane = plane_of(volume.geometry)
    there = np.unique(volume.array)
    names = page.classes.names
    absent = tuple(name for k, name in enumerate(names) if k and k not in there)
    if len(absent) == len(names) - 1:
        absent = ("foreground",)
    chosen = spread_slices(foreground_by_slice(volume.array, volume.ignored), page.slices)
    grey = None
    if case.image is not None:
        image = read_shown_image(case.image, volume, **page.grid)
        grey = _grey(np.stack([plane.cut(image, z) for z in chosen]))
        del image
    pictures = []
    for index, z in enumerate(chosen):
        labels, ignored = split_ignored(plane.cut(volume.array, z), volume.ignored)
        areas = class_areas(labels, ignored)
        if grey is not None:
            coloured = labels > 0 if ignored is None else (labels > 0) | ignored
            share = np.where(coloured, _SHARE, 0.0)[..., np.newaxis].astype(np.float32)
            areas = share * areas + (1 - share) * grey[index][..., np.newaxis]
        pictures.append(areas)
    height, width = (n * mm for n, mm in zip(pictures[0].shape, plane.pixel_mm, strict=False))
    return _Strip(pictures, (width, height), chosen, Flags(absent, volume.notes))


def _grey(slices: NDArray[np.float32]) -> NDArray[np.float32]:
    """Intensities as 0..1, by one window for all slices."""
    low, high = window_of(slices)
    scaled: NDArray[np.float32] = np.clip((np.nan_to_num(slices, nan=low) - low) / (high - low), 0, 1)
    return scaled.astype(np.float32)


def _draw_strip(
    axes: Axes,
    corner: tuple[float, float],
    width: float,
    name: str,
    strip: _Strip | None,
    error: str | None,
    cells: int,
) -> None:
    """Draw a case: its name, what is to be looked at, and its slices; its outline where there is something."""
    from matplotlib.patches import Rectangle

    left, top = corner
    said = error if strip is None else strip.flags.describe()
    room = width if not said else max(width * 0.5, 0.6)
    shown = short_name(name, room, 7)
    axes.text(left, top + _NAME - 0.04, shown, fontsize=7, va="bottom")
    if said:
        beside = left + (len(shown) + 2) * 0.6 * 7 / 72
        rest = left + width - beside
        if rest > 0.4:
            axes.text(beside, top + _NAME - 0.04, short_name(said, rest, 7), fontsize=7, va="bottom", color=_FLAG)
    for cell in range(cells if strip is not None else 0):
        assert strip is not None
        if cell < len(strip.pictures):
            _draw_cell(axes, left + cell * (_CELL + _GAP), top + _NAME, strip, cell)
    if said or strip is None:
        place = (left - _GAP / 3, top + _NAME - _GAP / 3)
        box = (width + 2 * _GAP / 3, _CELL + 2 * _GAP / 3)
        axes.add_patch(Rectangle(place, *box, fill=False, edgecolor=_FLAG, linewidth=1.5))


def _draw_cell(axes: Axes, left: float, top: float, strip: _Strip, index: int) -> None:
    """Draw a slice into its cell, in true proportions, with its number."""
    from matplotlib.patheffects import withStroke

    scale = _CELL / max(strip.extent_mm)
    width, height = (max(side * scale, 0.02) for side in strip.extent_mm)
    x, y = left + (_CELL - width) / 2, top + (_CELL - height) / 2
    axes.imshow(strip.pictures[index], extent=(x, x + width, y + height, y), interpolation="auto")
    if len(strip.slices) > 1:
        axes.text(
            x + 0.03,
            y + height - 0.03,
            str(strip.slices[index]),
            fontsize=6,
            color="#ffffff",
            path_effects=[withStroke(linewidth=1.5, foreground="#000000b0")],
        )


def _draw_legend(axes: Axes, classes: Classes, place: tuple[float, float]) -> None:
    names = [
        short_name(name if name == str(value) else f"{value} {name}", _CELL - 0.35, 7)
        for value, name in zip(classes.values, classes.names, strict=True)
    ]
    add_legend(
        axes,
        names,
        range(1, len(classes)),
        ignored=classes.ignore is not None,
        areas=True,
        loc="upper left",
        bbox_to_anchor=place,
        ncols=COLUMNS,
        fontsize=7,
        labelcolor=INK,
        borderpad=0,
        columnspacing=1.0,
    )
