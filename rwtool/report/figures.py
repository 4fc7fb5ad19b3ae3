"""Figures: drawn by matplotlib without a window, in one style, written whole and the same each time.

matplotlib belongs to the extra ``rwtool[plot]`` and is imported only where something is drawn.
"""

from __future__ import annotations

import importlib.util
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rwtool.errors import UsageError
from rwtool.files import atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".pdf", ".svg")
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442", "#8c8c8c")
"""For methods or classes, one after another: Okabe and Ito's, which colour-blind readers tell apart."""
INK = "#010203"
"""Of text and axes; in a page the colour of the page's own text."""

_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.constrained_layout.use": True,
    "legend.frameon": False,
    "savefig.dpi": 150,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "rwtool",  # the same figure gives the same bytes
    "text.parse_math": False,  # names come from users
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def check_can_draw() -> None:
    """Refuse to begin with what ends in a figure where there can be none.

    Raises
    ------
    UsageError
        matplotlib is not installed.
    """
    if not can_draw():
        raise UsageError("a figure needs matplotlib, which is not installed; pip install 'rwtool[plot]'")


@contextmanager
def drawing() -> Iterator[None]:
    """Set the style of all that is drawn and saved within.

    Raises
    ------
    UsageError
        matplotlib is not installed.
    """
    check_can_draw()
    import matplotlib as mpl

    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        # names come from users; a letter that the font lacks shows as a box, and in a page by the page's own font
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        yield


def new_figure(width_in: float, height_in: float, *, fitted: bool = True) -> Figure:
    """Make an empty figure that no window knows; within :func:`drawing`.

    Where it is not `fitted`, axes stand where they are placed and it is drawn once: to fit them, it is drawn twice.
    """
    from matplotlib.figure import Figure

    layout: Any = None if fitted else "none"  # which matplotlib's stub lacks
    return Figure(figsize=(width_in, height_in), layout=layout)


def check_figure_path(path: Path) -> Path:
    """Refuse a name whose suffix is of no format that is written.

    Raises
    ------
    UsageError
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{path}: a figure ends in {', '.join(SUFFIXES)}; found {path.suffix or 'no suffix'}")
    return path


def save_figure(figure: Figure, path: Path, *, dpi: float | None = None) -> None:
    """Write a figure in the format of its suffix; within :func:`drawing`.

    Parameters
    ----------
    figure : Figure
    path : Path
    dpi : float, optional
        Of a ``.png``, and of pictures within the others; by default that of the style.

    Raises
    ------
    UsageError
        The suffix is of no format that is written.
    VolumeError
        The file cannot be written.
    """
    kind = check_figure_path(path).suffix.lower()[1:]
    undated = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}[kind]
    with atomic(path) as target:
        figure.savefig(target, format=kind, metadata=undated, dpi=dpi)


def svg_text(figure: Figure) -> str:
    """A figure as an ``<svg>`` element for a page, in the colour of the page's text; within :func:`drawing`.

    It has no ids but those that it refers to, so that several stand in one page, and no title: say in the page what it
    shows.
    """
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    used = set(re.findall(r"""(?:href="|url\()#([^")]+)""", svg))
    svg = re.sub(r' id="([^"]+)"', lambda found: found.group() if found[1] in used else "", svg)
    return svg.replace(INK, "currentColor").strip()
