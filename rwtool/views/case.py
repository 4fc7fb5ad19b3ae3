"""The picture of one case: its slice with most foreground, and each kind of map beside it, a panel a class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rwtool.datasets.classes import Classes
from rwtool.datasets.plan import LabelFile
from rwtool.maps.parameters import Kind
from rwtool.report.figures import drawing, save_figure
from rwtool.report.slices import draw_bar, draw_contour, draw_map, scale_of
from rwtool.views.layout import BAR, BAR_LABELS, PanelLayout, draw_main, make_layout
from rwtool.views.planes import Plane, choose_slice, foreground_by_slice, plane_of
from rwtool.views.source import (
    MapFile,
    MapSlice,
    make_map_slice,
    read_map_slice,
    read_shown_image,
    split_ignored,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Shown:
    """What is drawn of a case: one slice, all arrays (rows, columns)."""

    case: str
    z: int
    plane: Plane
    classes: Classes
    image: NDArray[Any] | None
    labels: NDArray[Any]
    ignored: NDArray[np.bool_] | None
    maps: tuple[MapSlice, ...]
    notes: tuple[str, ...]


def show_case(
    case: str,
    file: LabelFile,
    *,
    image: Sequence[Path] | None,
    maps: Sequence[MapFile],
    kinds: Sequence[Kind],
    z: int | None,
    spacing_mm: Sequence[float] | None,
    slice_axis: int | None,
) -> Shown:
    """Read a case, and read or make the slice of its maps.

    Parameters
    ----------
    case : str
    file : LabelFile
    image : sequence of Path, optional
    maps : sequence of MapFile
        To be read.
    kinds : sequence of str
        To be made.
    z : int, optional
        The slice; by default the one with most foreground.
    spacing_mm, slice_axis
        Of the image, where they apply.
    """
    volume = file.read()
    plane = plane_of(volume.geometry)
    z = choose_slice(foreground_by_slice(volume.array, volume.ignored), z, what=str(file.path))
    pixels = None
    if image is not None:
        whole = read_shown_image(image, volume, spacing_mm=spacing_mm, slice_axis=slice_axis)
        pixels = plane.cut(whole, z).copy()
        del whole
    labels, ignored = split_ignored(plane.cut(volume.array, z), volume.ignored)
    slices = [read_map_slice(one, file, volume, plane, z) for one in maps]
    slices += [make_map_slice(kind, volume, len(file.classes), plane, z) for kind in kinds]
    return Shown(case, z, plane, file.classes, pixels, labels, ignored, tuple(slices), volume.notes)


def draw_case(shown: Shown, path: Path) -> None:
    """Draw a case into a file."""
    with drawing():
        save_figure(_figure(shown), path)


def _layout(shown: Shown) -> PanelLayout:
    height, width = (n * mm for n, mm in zip(shown.labels.shape, shown.plane.pixel_mm, strict=True))
    return make_layout(
        (width, height),
        kinds=len(shown.maps),
        panels=len(shown.classes),
        legend=len(shown.classes) - 1 + (shown.ignored is not None),
        beside=BAR + BAR_LABELS,
    )


def _figure(shown: Shown) -> Figure:
    layout = _layout(shown)
    figure = layout.figure()
    height, width = shown.plane.pixel_mm
    layout.title(
        figure,
        shown.case,
        f"slice {shown.z} (0 to {shown.plane.slices - 1}), pixels of {height:.3g} x {width:.3g} mm",
    )
    draw_main(figure, layout, shown.plane, shown.classes, shown.image, shown.labels, shown.ignored)
    for index, one in enumerate(shown.maps):
        _draw_kind(figure, layout, shown, index, one)
    return figure


def _draw_kind(figure: Figure, layout: PanelLayout, shown: Shown, index: int, one: MapSlice) -> None:
    scale = scale_of(one.z, one.unit, shown.ignored)
    for k, name in enumerate(shown.classes.names):
        axes = layout.panel_axes(figure, index, k, name)
        draw_map(axes, one.z[k], scale, pixel_mm=shown.plane.pixel_mm, ignored=shown.ignored)
        if k:
            draw_contour(axes, shown.labels == k)
    layout.name_kind(figure, index, one.kind)
    draw_bar(figure, layout.bar_axes(figure, index), scale)
