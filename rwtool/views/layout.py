"""Where the panels of a picture stand: one large panel, and beside it a row of small ones for each kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from rwtool.datasets.classes import Classes
from rwtool.report.figures import new_figure
from rwtool.report.slices import Mask, add_legend, draw_slice, short_name
from rwtool.views.planes import Plane

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# in inches
BAR, BAR_LABELS = 0.1, 0.48
_MARGIN, _GAP = 0.12, 0.08
_TITLE, _HEAD, _NAME = 0.36, 0.2, 0.24  # height of the title and of a panel's name, width of a kind's
_LEGEND_ROW = 0.18
_SHORTEST = 0.75  # side of the room for a panel, where a slice is very long
_NARROWEST = 4.0  # figure
_LEGEND = 2.1  # width that a legend has at least

_FEW, _MOST = 5, 8  # panels side by side in large, and at all
_LARGE, _SMALL, _MAIN = 1.75, 1.3, 3.3  # longest side of a panel


@dataclass(frozen=True)
class PanelLayout:
    """Sizes of a picture, in inches; made by :func:`make_layout`.

    Attributes
    ----------
    columns, rows : int
        Panels of a kind: side by side, and in how many rows.
    panel, main : (2,) float
        Width and height of a panel, and of the large one.
    kinds : int
    legend : float
        Height below the large panel.
    beside : float
        Width right of the panels.
    """

    columns: int
    rows: int
    panel: tuple[float, float]
    main: tuple[float, float]
    kinds: int
    legend: float
    beside: float

    @property
    def left(self) -> float:
        """Width of the large panel and of the legend below it."""
        return max(self.main[0], _LEGEND)

    @property
    def width(self) -> float:
        """Of the picture."""
        maps = _NAME + self.columns * (self.panel[0] + _GAP) + self.beside if self.kinds else 0
        return max(_MARGIN + self.left + 2 * _GAP + maps + _MARGIN, _NARROWEST)

    @property
    def height(self) -> float:
        """Of the picture."""
        left = _HEAD + self.main[1] + 2 * _GAP + self.legend
        return _TITLE + max(self.kinds * self._block, left) + _MARGIN

    @property
    def _block(self) -> float:
        """Height of a kind."""
        return self.rows * (_HEAD + self.panel[1] + _GAP)

    def figure(self) -> Figure:
        """An empty figure of this size."""
        figure = new_figure(self.width, self.height)
        figure.set_layout_engine("none")
        return figure

    def title(self, figure: Figure, name: str, rest: str) -> None:
        """Write a name and what is to be said of it on top; the name is cut where there is no room."""
        room = self.width - 2 * _MARGIN - len(rest) * 0.6 * 9 / 72
        text = f"{short_name(name, max(room, 1.0), 10)}   {rest}"
        x, y = _MARGIN / self.width, 1 - _MARGIN / self.height
        figure.text(x, y, text, va="top", fontsize=10)

    def main_axes(self, figure: Figure) -> Axes:
        """The large panel."""
        return self._axes(figure, (_MARGIN, _TITLE + _HEAD), self.main)

    def panel_axes(self, figure: Figure, kind: int, index: int, name: str) -> Axes:
        """A panel of a kind, with its name on top."""
        axes = self._axes(figure, self._corner(kind, index), self.panel)
        axes.set_title(short_name(name, self.panel[0], 8), fontsize=8, pad=3)
        return axes

    def bar_axes(self, figure: Figure, kind: int) -> Axes:
        """Room for the bar of a kind, right of its panels."""
        _, top = self._corner(kind, 0)
        return self._axes(figure, (self._right, top), (BAR, self.panel[1]))

    def name_kind(self, figure: Figure, kind: int, name: str) -> None:
        """Write the name of a kind left of its first row, upwards."""
        left, top = self._corner(kind, 0)
        x, y = (left - _NAME / 2) / self.width, 1 - (top + self.panel[1] / 2) / self.height
        figure.text(x, y, short_name(name, self.panel[1], 9), rotation=90, ha="center", va="center", fontsize=9)

    def write_beside(self, figure: Figure, kind: int, text: str) -> None:
        """Write a few lines right of the panels of a kind."""
        _, top = self._corner(kind, 0)
        figure.text(self._right / self.width, 1 - top / self.height, text, va="top", fontsize=8, linespacing=1.5)

    def below_main(self, lines: int) -> tuple[float, float]:
        """Where the room below so many lines of legend under the large panel begins, as shares of the figure."""
        down = _TITLE + _HEAD + self.main[1] + 2 * _GAP + lines * _LEGEND_ROW
        return _MARGIN / self.width, 1 - down / self.height

    @property
    def _right(self) -> float:
        """Where the panels end."""
        return self._corner(0, 0)[0] + self.columns * (self.panel[0] + _GAP)

    def _corner(self, kind: int, index: int) -> tuple[float, float]:
        """Left and upper edge of a panel."""
        row, column = divmod(index, self.columns)
        left = _MARGIN + self.left + 2 * _GAP + _NAME + column * (self.panel[0] + _GAP)
        return left, _TITLE + kind * self._block + row * (_HEAD + self.panel[1] + _GAP) + _HEAD

    def _axes(self, figure: Figure, corner: tuple[float, float], size: tuple[float, float]) -> Axes:
        (left, top), (width, height) = corner, size
        place = (left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height)
        return figure.add_axes(place)


def make_layout(extent_mm: tuple[float, float], *, kinds: int, panels: int, legend: int, beside: float) -> PanelLayout:
    """Settle the sizes of a picture.

    Parameters
    ----------
    extent_mm : (2,) float
        Width and height of the slice.
    kinds : int
    panels : int
        Of a kind; many of them are smaller, and in rows of about equal length.
    legend : int
        Lines below the large panel.
    beside : float
        Inches to be left right of the panels.
    """
    columns = panels if panels <= _FEW else -(-panels // -(-panels // _MOST))
    return PanelLayout(
        columns,
        -(-panels // columns),
        _fit(extent_mm, _LARGE if panels <= _FEW else _SMALL),
        _fit(extent_mm, _MAIN),
        kinds,
        legend * _LEGEND_ROW,
        beside,
    )


def _fit(extent_mm: tuple[float, float], longest: float) -> tuple[float, float]:
    """Width and height of a panel."""
    width, height = (side * longest / max(extent_mm) for side in extent_mm)
    return max(width, _SHORTEST), max(height, _SHORTEST)


def draw_main(
    figure: Figure,
    layout: PanelLayout,
    plane: Plane,
    classes: Classes,
    image: NDArray[Any] | None,
    labels: NDArray[Any],
    ignored: Mask | None,
) -> None:
    """Draw the large panel: the slice with its classes, where its edges lie, and the legend below."""
    axes = layout.main_axes(figure)
    draw_slice(axes, image, labels, pixel_mm=plane.pixel_mm, ignored=ignored, line_width=1.4)
    axes.set_title("classes" if image is None else "image and classes", fontsize=9, pad=3)
    draw_edges(axes, plane, colour="#404040" if image is None else "#ffffff")
    names = [_called(classes, k, labels, layout.left - 0.4) for k in range(len(classes))]
    add_legend(
        axes,
        names,
        range(1, len(classes)),
        ignored=ignored is not None,
        areas=image is None,
        loc="upper left",
        bbox_to_anchor=(0.0, -_GAP / layout.main[1]),
    )


def _called(classes: Classes, k: int, labels: NDArray[Any], width_in: float) -> str:
    """A class in the legend: its label value and its name, which is cut where there is no room."""
    value, name = classes.values[k], classes.names[k]
    absent = "" if (labels == k).any() else " (not in this slice)"
    text = name if name == str(value) else f"{value} {name}"
    return short_name(text, width_in - len(absent) * 0.6 * 8 / 72, 8) + absent


def draw_edges(axes: Axes, plane: Plane, *, colour: str) -> None:
    """Write what lies on the left, right, top and bottom into a panel."""
    from matplotlib.patheffects import withStroke

    places = ((0.02, 0.5, plane.left), (0.98, 0.5, plane.right), (0.5, 0.98, plane.top), (0.5, 0.02, plane.bottom))
    for x, y, letter in places:
        axes.text(
            x,
            y,
            letter,
            transform=axes.transAxes,
            ha={0.02: "left", 0.98: "right"}.get(x, "center"),
            va={0.98: "top", 0.02: "bottom"}.get(y, "center"),
            fontsize=8,
            color=colour,
            path_effects=[withStroke(linewidth=1.5, foreground="#00000080")] if colour == "#ffffff" else None,
        )
