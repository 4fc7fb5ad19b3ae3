"""Slices as panels of a figure: an image under the contours of its classes, and maps, with true proportions.

Arrays are ``(rows, columns)``, the first row on top; a pixel has ``(height, width)`` in mm. Within
:func:`rwtool.report.figures.drawing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from rwtool.console import printable
from rwtool.report.figures import COLOURS, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Mask = NDArray[np.bool_]
LineStyle = Literal["solid", "dashed", "dotted"]

IGNORED = "#b5b5b5"
"""Of voxels without a class."""
PAPER = "#f0f0f0"
"""Of the background where there is no image."""
LINE_STYLES: tuple[LineStyle, ...] = (
    "solid",
    "dashed",
    "dotted",
)  # one after another, where there are more classes than colours

_INSIDE = 0.6  # of the way into the voxel behind: so the contours of two neighbours stand side by side
_LETTER = 0.64  # width over height of most letters
_FAINT = 0.6
_INK = "#303030"  # of contours on maps
_ENDS = (0.06, 0.94)  # of matplotlib's RdBu_r: its ends are too dark for a line to be seen on them
_SHADES = (("#ffffff", 0.0), ("#ffffff", 0.55), ("#000000", 0.45))  # mixed into the colours, one round after another


def class_colour(k: int) -> str:
    """Colour of class k > 0: one of `COLOURS`, then lighter and darker ones.

    >>> class_colour(1), class_colour(9), class_colour(17)
    ('#0072b2', '#8cc0dc', '#003f62')
    """
    turn, index = divmod(k - 1, len(COLOURS))
    other, share = _SHADES[turn % len(_SHADES)]
    own, mixed = (bytes.fromhex(colour[1:]) for colour in (COLOURS[index], other))
    return "#" + bytes(round(a + (b - a) * share) for a, b in zip(own, mixed, strict=True)).hex()


def class_line(k: int) -> LineStyle:
    """Line style of class k > 0."""
    return LINE_STYLES[(k - 1) // len(COLOURS) % len(LINE_STYLES)]


def short_name(text: str, width_in: float, size: float) -> str:
    """A name made printable, its middle left out where it is wider than `width_in` inches in letters of `size` points.

    >>> short_name("a_very_long_name_of_a_case", 1.0, 9)
    'a_very…_case'
    """
    text, most = printable(text), max(3, int(width_in * 72 / (_LETTER * size)))
    if len(text) <= most:
        return text
    return f"{text[: most // 2]}…{text[-((most - 1) // 2) :]}"


def window_of(image: NDArray[Any]) -> tuple[float, float]:
    """The intensities that are shown as black and as white: the 1st and 99.5th percentile."""
    finite = image[np.isfinite(image)]
    if finite.size == 0:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(finite, (1, 99.5)))
    return (low, high) if high > low else (low, low + 1)


def draw_slice(
    axes: Axes,
    image: NDArray[Any] | None,
    labels: NDArray[Any],
    *,
    pixel_mm: tuple[float, float],
    window: tuple[float, float] | None = None,
    ignored: Mask | None = None,
    line_width: float = 1.1,
) -> None:
    """Draw a slice with its classes: contours over the image, or areas where there is no image.

    Parameters
    ----------
    axes : Axes
    image : (rows, columns) array or None
    labels : (rows, columns) integer array
        Class indices; 0 is the background.
    pixel_mm : (2,) float
        Height and width of a pixel.
    window : (2,) float, optional
        Intensities that are shown as black and as white; by default :func:`window_of` the slice.
    ignored : (rows, columns) bool array, optional
        Voxels without a class; grey.
    line_width : float
        Of the contours, in points.
    """
    prepare(axes, pixel_mm)
    if image is None:
        show_pixels(axes, class_areas(labels, ignored), interpolation="nearest")
        return
    low, high = window or window_of(image)
    show_pixels(axes, image, cmap="gray", vmin=low, vmax=high, interpolation="auto")
    draw_ignored(axes, ignored, _FAINT)
    draw_contours(axes, labels, line_width=line_width, ignored=ignored)


def class_areas(labels: NDArray[Any], ignored: Mask | None = None) -> NDArray[np.float32]:
    """Classes as areas in their colours, (rows, columns, 3) float32 in 0..1."""
    from matplotlib.colors import to_rgb

    present = [int(k) for k in np.unique(labels)]
    table = np.array([to_rgb(class_colour(k) if k else PAPER) for k in present], dtype=np.float32)
    areas = table[np.searchsorted(present, labels)]
    if ignored is not None:
        areas[ignored] = to_rgb(IGNORED)
    return areas


def draw_contours(
    axes: Axes,
    labels: NDArray[Any],
    *,
    line_width: float = 1.1,
    line_style: LineStyle | None = None,
    ignored: Mask | None = None,
) -> None:
    """Draw the contour of each class in its colour, with a thin dark halo, onto axes that show the slice.

    A contour runs just inside its class, so that those of two neighbours are seen both.

    Parameters
    ----------
    axes, labels, ignored
        As for :func:`draw_slice`.
    line_width : float
        In points.
    line_style : str, optional
        By default that of the class, :func:`class_line`.
    """
    from matplotlib.patheffects import withStroke

    kept = labels if ignored is None else np.where(ignored, 0, labels)
    halo = [withStroke(linewidth=line_width + 1.0, foreground="#000000", alpha=0.7)]
    for k in (int(k) for k in np.unique(kept) if k):
        lines = draw_contour(axes, kept == k, class_colour(k), line_width, line_style or class_line(k))
        lines.set_path_effects(halo)


def draw_contour(
    axes: Axes, mask: Mask, colour: str = _INK, line_width: float = 0.6, line_style: LineStyle = "solid"
) -> Any:
    """Draw the contour of one area, closed at the edge of the slice too; gives matplotlib's lines, if there are any."""
    if not mask.any():
        return None
    rows, columns = (np.arange(-1, n + 1) for n in mask.shape)
    limits = axes.get_xlim(), axes.get_ylim()
    padded = np.pad(mask.astype(np.float32), 1)
    lines = axes.contour(
        columns, rows, padded, [_INSIDE], colors=[colour], linewidths=line_width, linestyles=line_style
    )
    axes.set(xlim=limits[0], ylim=limits[1])
    return lines


def draw_ignored(axes: Axes, ignored: Mask | None, alpha: float = 1.0) -> None:
    """Draw voxels without a class in grey over what the axes show."""
    if ignored is None or not ignored.any():
        return
    from matplotlib.colors import to_rgba

    layer = np.zeros((*ignored.shape, 4), dtype=np.float32)
    layer[ignored] = to_rgba(IGNORED, alpha)
    show_pixels(axes, layer, interpolation="nearest")


def show_pixels(axes: Axes, pixels: NDArray[Any], **more: Any) -> None:
    """Show an array in a panel that is prepared; ``Axes.imshow`` alone makes its pixels square."""
    axes.imshow(pixels, aspect=axes.get_aspect(), **more)


def prepare(axes: Axes, pixel_mm: tuple[float, float]) -> None:
    """Make axes a panel: pixels of true proportions, a thin frame, no ticks."""
    axes.set_aspect(pixel_mm[0] / pixel_mm[1])
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(visible=True, linewidth=0.5, color="#808080")


# Maps


@dataclass(frozen=True)
class Scale:
    """The colours of a map: white at 0, and each side as long as its values reach.

    Attributes
    ----------
    low, high : float
        The smallest and the largest value, at most and at least 0.
    unit : str
    """

    low: float
    high: float
    unit: str

    @property
    def norm(self) -> Any:
        """For matplotlib; a side without values is as long as the other one."""
        from matplotlib.colors import TwoSlopeNorm

        return TwoSlopeNorm(0.0, self.low or -(self.high or 1.0), self.high or -(self.low or -1.0))


def scale_of(z: NDArray[Any], unit: str, ignored: Mask | None = None) -> Scale:
    """The scale that all classes of a map share.

    Parameters
    ----------
    z : (K, rows, columns) array
    unit : str
    ignored : (rows, columns) bool array, optional
        Voxels without a class, which do not count.
    """
    kept = z if ignored is None else z[:, ~ignored]
    values = kept[np.isfinite(kept)]
    return Scale(float(values.min(initial=0.0)), float(values.max(initial=0.0)), unit)


def draw_map(
    axes: Axes, z: NDArray[Any], scale: Scale, *, pixel_mm: tuple[float, float], ignored: Mask | None = None
) -> None:
    """Draw one class of a map, (rows, columns)."""
    prepare(axes, pixel_mm)
    show_pixels(axes, z, cmap=_map_colours(), norm=scale.norm, interpolation="nearest")
    draw_ignored(axes, ignored)


def _map_colours() -> Any:
    """Blue below 0, white at 0, red above."""
    from matplotlib import colormaps
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("map", colormaps["RdBu_r"](np.linspace(*_ENDS, 65)))


def draw_bar(figure: Figure, axes: Axes, scale: Scale) -> None:
    """Draw the bar of a scale into axes of its own, with the ends of its values and its unit."""
    from matplotlib.cm import ScalarMappable

    bar = figure.colorbar(ScalarMappable(scale.norm, _map_colours()), cax=axes)
    ticks = [scale.low, scale.low / 2, 0.0, scale.high / 2, scale.high]
    bar.set_ticks(sorted(set(ticks)))
    bar.set_ticklabels([_number(tick) for tick in sorted(set(ticks))])
    bar.ax.tick_params(labelsize=7, length=2, pad=2)
    bar.ax.set_ylim(scale.low if scale.low or scale.high else -1, scale.high if scale.low or scale.high else 1)
    bar.outline.set_linewidth(0.5)
    bar.ax.set_title(scale.unit, fontsize=7, loc="left", pad=7)


def _number(value: float) -> str:
    """Three digits of a number, with a true minus sign.

    >>> _number(0.4162), _number(31456.0)
    ('0.416', '31,500')
    """
    text = f"{float(f'{value:.3g}'):,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return text.replace("-", "\N{MINUS SIGN}")


# Legends


def add_legend(
    axes: Axes, names: Sequence[str], shown: Sequence[int], *, ignored: bool, areas: bool, **more: Any
) -> Any:
    """Add a legend of the classes to axes.

    Parameters
    ----------
    axes : Axes
    names : (K,) str
        Of all classes.
    shown : sequence of int
        The class indices to list.
    ignored : bool
        Whether there are voxels without a class.
    areas : bool
        Classes are areas, no lines.
    **more
        As for ``Axes.legend``.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = []
    for k in shown:
        colour = class_colour(k)
        line = Line2D([], [], color=colour, linewidth=2, linestyle=class_line(k))
        handles.append(Patch(color=colour) if areas else line)
    labels = [names[k] for k in shown]
    if ignored:
        handles.append(Patch(color=IGNORED))
        labels.append("ignored")
    if not handles:
        return None
    style = {"fontsize": 8, "labelcolor": INK, "handlelength": 1.6, "borderaxespad": 0}
    return axes.legend(handles, labels, **{**style, **more})
