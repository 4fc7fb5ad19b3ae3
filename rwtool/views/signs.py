"""Where gradient components have the wrong sign (Figures 2 and 3 of the paper): a row a softmax, a panel a class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rwtool.datasets.runs import Which
from rwtool.errors import RwtoolError, UsageError
from rwtool.io.grids import match_turned
from rwtool.io.names import may_be_volume
from rwtool.io.volume import Volume
from rwtool.maps.check import SignFigure, find_map_signs
from rwtool.maps.folder import MapSet, iterate_map, read_source
from rwtool.maps.signs import Draw, SignCount, given_draw, negative_components, random_draw, whole_draw
from rwtool.report.figures import drawing, save_figure
from rwtool.report.slices import Mask, draw_contour, draw_ignored, prepare, show_pixels
from rwtool.views.layout import PanelLayout, draw_main, make_layout
from rwtool.views.planes import Plane, choose_slice, foreground_by_slice, plane_of
from rwtool.views.source import image_of, read_shown_image, split_ignored

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TEXT = 1.5  # inches right of the panels
_OF_ANY = ("uniform", "random")  # softmax values that are no network's
_SOUND, _NO_GRADIENT, _LOST = "#ffffff", "#d9d9d9", "#000000"
_OWN = "#e5e5e5"
_WRONG = ("#fdc27a", "#e66101", "#7f3b08")  # two negative components, three, and more
_RAISED = "#b2182b"


_Slices = tuple[NDArray[Any], Mask | None, Mask]  # labels, ignored voxels, those without a gradient


@dataclass(frozen=True, eq=False)
class _Row:
    """One softmax: the signs of a slice, (K, rows, columns), and what was counted."""

    name: str
    negative: Mask
    here: SignCount
    whole: SignCount


@dataclass(frozen=True, eq=False)
class _Case:
    """What a figure is made of."""

    maps: MapSet
    name: str
    source: Path
    labels: Volume
    image: NDArray[Any] | None
    draws: dict[str, Draw | None]


def draw_signs(
    maps: MapSet,
    case: str,
    source: Path,
    path: Path,
    *,
    seed: int,
    z: int | None,
    run: Path | None,
    images: str | Path | None,
    checkpoint: Which = "last",
) -> SignFigure:
    """Draw the signs of a map's gradient at uniform softmax, at random softmax and at that of a run.

    Parameters
    ----------
    maps : MapSet
    case : str
    source : Path
        The label file of the case.
    path : Path
        Of the figure.
    seed : int
        Of the random softmax, which is the one that the check counts at.
    z : int, optional
        The slice; by default the first of those with most voxels of two or more negative components, over all softmax.
    run : Path, optional
    images : path, optional
        A file, or the folder that holds the image of the case.
    checkpoint : {"last", "best"} or int
        Of the run; a number is that of an epoch.

    Raises
    ------
    UsageError
        The run is of other classes, or there is no such slice or image.
    VolumeError
        The map, its labels or the image cannot be read.
    """
    found = _read(maps, case, source, seed, run, images, checkpoint)
    signs = find_map_signs(maps, case, source, list(found.draws.values()))
    wrong = [(negative >= 2) & signs.kept for negative in signs.negative]
    by_slice = np.sum([np.count_nonzero(one, axis=(1, 2)) for one in wrong], axis=0)
    if not by_slice.any():  # sound maps
        by_slice = foreground_by_slice(found.labels.array, found.labels.ignored)
    z = choose_slice(by_slice, z, what=f"the map of {case}")
    plane = plane_of(found.labels.geometry)
    components = _components(found, plane, z)
    kept, zero = signs.kept[z], signs.zero[z] & signs.kept[z]
    rows = [
        _Row(
            name,
            components[name],
            SignCount(int(np.count_nonzero(kept)), int(np.count_nonzero(one[z])), int(np.count_nonzero(zero))),
            whole,
        )
        for name, one, whole in zip(found.draws, wrong, signs.counts(), strict=True)
    ]
    with drawing():
        save_figure(_figure(found, plane, z, rows, plane.cut(signs.zero, z)), path)
    return SignFigure(path, case, z, {row.name: row.here for row in rows})


def _read(
    maps: MapSet,
    case: str,
    source: Path,
    seed: int,
    run: Path | None,
    images: str | Path | None,
    checkpoint: Which,
) -> _Case:
    if not may_be_volume(source):
        raise RwtoolError(f"{source}: no such file, and the figure shows the classes of {case}; give labels=FOLDER")
    labels = read_source(maps, case, source)
    draws: dict[str, Draw | None] = dict(zip(_OF_ANY, (None, random_draw(seed, case)), strict=True))
    image = None
    if run is not None:
        assert images is not None
        name = f"run {run.name}" if run.name in draws else run.name.removesuffix(".pt")
        if checkpoint != "last":
            name += f" {checkpoint}" if checkpoint == "best" else f" epoch {checkpoint}"
        draws[name], paths = _draw_of(maps, case, source, labels, run, images, checkpoint)
        image = read_shown_image(paths, labels, **_grid(labels))
    elif images is not None:
        image = read_shown_image(image_of(images, case), labels, **_grid(labels))
    return _Case(maps, case, source, labels, image, draws)


def _grid(labels: Volume) -> dict[str, Any]:
    """How files beside the labels are read that do not say how they lie."""
    return {"spacing_mm": labels.spacing_mm, "slice_axis": labels.geometry.slice_axis}


def _draw_of(
    maps: MapSet, case: str, source: Path, labels: Volume, run: Path, images: str | Path, checkpoint: Which
) -> tuple[Draw, tuple[Path, ...]]:
    """The softmax of a run, on the grid of the map, and the files of the image."""
    from rwtool.network.predict import predict_softmax  # which imports torch

    predicted = predict_softmax(run, images, case, checkpoint=checkpoint)
    if predicted.classes.values != maps.class_values:
        raise UsageError(
            f"{run} segments the classes {predicted.classes.describe()}, and the maps are of "
            f"{maps.settings.classes.describe()}; name a run of the same"
        )
    turn, match = match_turned(labels.geometry, predicted.geometry)
    if not match.same:
        raise RwtoolError(f"{predicted.paths[0]}: it lies on another grid than {source}: {match.difference}")
    like = next(iterate_map(maps.path(case), labels=source if maps.packed else None))
    return given_draw(turn.apply(predicted.softmax), like), predicted.paths


def _components(case: _Case, plane: Plane, z: int) -> dict[str, Mask]:
    """Which components are negative in one slice, at each softmax."""
    maps, path = case.maps, case.maps.path(case.name)
    labels = case.source if maps.packed else None
    values: list[NDArray[Any]] = []
    weights: dict[str, list[NDArray[Any]]] = {name: [] for name in case.draws}
    for channel in iterate_map(path, labels=labels):
        for name, draw in case.draws.items():
            weights[name].append(plane.cut(whole_draw(draw, len(values), channel), z).copy())
        values.append(plane.cut(channel, z).copy())
        del channel  # before the next one is read
    stacked = np.stack(values)
    squared = maps.kind == "hd"
    return {name: negative_components(stacked, np.stack(some), squared=squared) for name, some in weights.items()}


def _figure(case: _Case, plane: Plane, z: int, rows: list[_Row], zero: Mask) -> Figure:
    classes = case.maps.settings.classes
    labels, ignored = split_ignored(plane.cut(case.labels.array, z), case.labels.ignored)
    image = None if case.image is None else plane.cut(case.image, z)
    height, width = (n * mm for n, mm in zip(labels.shape, plane.pixel_mm, strict=True))
    legend = len(classes) - 1 + (ignored is not None)
    layout = make_layout((width, height), kinds=len(rows), panels=len(classes) + 1, legend=legend + 6, beside=_TEXT)
    figure = layout.figure()
    layout.title(figure, case.name, f"{case.maps.kind} map, slice {z} (0 to {plane.slices - 1})")
    draw_main(figure, layout, plane, classes, image, labels, ignored)
    for index, row in enumerate(rows):
        _draw_row(figure, layout, index, row, plane, (labels, ignored, zero), classes.names)
    _explain(figure, layout, legend, rows, (labels, ignored, zero))
    return figure


def _draw_row(
    figure: Figure,
    layout: PanelLayout,
    index: int,
    row: _Row,
    plane: Plane,
    slices: _Slices,
    names: tuple[str, ...],
) -> None:
    """Draw how many components are negative, and where each class has the wrong sign."""
    labels, ignored, zero = slices
    axes = layout.panel_axes(figure, index, 0, "negative components")
    prepare(axes, plane.pixel_mm)
    number = row.negative.sum(axis=0)
    show_pixels(axes, _painted(number.shape, [(zero, _NO_GRADIENT), *_shades(number)]), interpolation="nearest")
    draw_ignored(axes, ignored)
    for k in range(1, len(names)):
        draw_contour(axes, labels == k)
    for k, name in enumerate(names):
        axes = layout.panel_axes(figure, index, k + 1, name)
        prepare(axes, plane.pixel_mm)
        own, raised, lost = _signs_of(row, k, slices)
        areas = [(own, _OWN), (raised, _RAISED), (lost, _LOST)]
        show_pixels(axes, _painted(own.shape, areas), interpolation="nearest")
        draw_ignored(axes, ignored)
        draw_contour(axes, own & (k > 0))
    layout.name_kind(figure, index, f"{row.name} softmax" if row.name in _OF_ANY else row.name)
    here, whole = row.here, row.whole
    layout.write_beside(
        figure,
        index,
        f"two or more negative:\n{_share(here)} of the slice\n({here.unstable:,} of {here.voxels:,})\n"
        f"{_share(whole)} of the volume",
    )


def _shades(number: NDArray[np.int64]) -> list[tuple[Mask, str]]:
    """Areas of two negative components, three, and more."""
    last = len(_WRONG) - 1
    return [((number == n + 2) if n < last else (number >= n + 2), colour) for n, colour in enumerate(_WRONG)]


def _painted(shape: tuple[int, ...], areas: list[tuple[Mask, str]]) -> NDArray[np.float32]:
    """Areas in their colours, the later over the earlier, (rows, columns, 3)."""
    from matplotlib.colors import to_rgb

    painted = np.empty((*shape, 3), dtype=np.float32)
    painted[...] = to_rgb(_SOUND)
    for where, colour in areas:
        painted[where] = to_rgb(colour)
    return painted


def _share(count: SignCount) -> str:
    return f"{count.unstable_share:.1%}"


def _signs_of(row: _Row, k: int, slices: _Slices) -> tuple[Mask, Mask, Mask]:
    """Where the voxels of a class are, where others raise it, and where its own lower it."""
    labels, ignored, zero = slices
    kept = np.ones(labels.shape, dtype=bool) if ignored is None else ~ignored
    own = (labels == k) & kept
    return own, row.negative[k] & ~own & kept, ~row.negative[k] & own & ~zero


def _explain(figure: Figure, layout: PanelLayout, above: int, rows: list[_Row], slices: _Slices) -> None:
    """The legend of the small panels, below that of the classes: what there is to be seen."""
    from matplotlib.patches import Patch

    labels, ignored, zero = slices
    kept = np.ones(labels.shape, dtype=bool) if ignored is None else ~ignored
    numbers = np.stack([row.negative.sum(axis=0)[kept & ~zero] for row in rows])
    found = [_signs_of(row, k, slices) for row in rows for k in range(len(row.negative))]
    entries = [
        ("2 negative components", _WRONG[0], bool((numbers == 2).any())),
        ("3 negative", _WRONG[1], bool((numbers == 3).any())),
        ("4 or more", _WRONG[2], bool((numbers > 3).any())),
        ("no gradient", _NO_GRADIENT, bool((zero & kept).any())),
        ("voxels of the class", _OWN, True),
        ("class is raised where it is not", _RAISED, any(raised.any() for _, raised, _ in found)),
        ("class is lowered where it is", _LOST, any(lost.any() for _, _, lost in found)),
    ]
    shown = [
        (name, Patch(facecolor=colour, edgecolor="#808080", linewidth=0.5)) for name, colour, is_ in entries if is_
    ]
    figure.legend(
        [handle for _, handle in shown],
        [name for name, _ in shown],
        loc="upper left",
        bbox_to_anchor=layout.below_main(above),
        fontsize=8,
        handlelength=1.6,
        borderaxespad=0,
    )
