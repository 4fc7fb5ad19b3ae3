"""Which slice of a volume is shown, and which way up.

Where a file says how it lies, a slice is shown as radiologists do: axial with anterior on top and the patient's right
on the left, coronal with superior on top and the patient's right on the left, sagittal with superior on top and
anterior on the left. An oblique slice is turned to the nearest of these. Another file is shown as its array lies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rwtool.errors import UsageError
from rwtool.io.geometry import Directions, Geometry
from rwtool.io.grids import NO_TURN, Turn, describe_directions, turn_to

_OPPOSITE = {"R": "L", "L": "R", "A": "P", "P": "A", "S": "I", "I": "S"}
_SHOWN = {  # by the anatomical axis across the slices: where rows (downwards) and columns (rightwards) lead
    0: ((0.0, 0.0, -1.0), (0.0, -1.0, 0.0)),
    1: ((0.0, 0.0, -1.0), (-1.0, 0.0, 0.0)),
    2: ((0.0, -1.0, 0.0), (-1.0, 0.0, 0.0)),
}


@dataclass(frozen=True)
class Plane:
    """How the slices of a grid are shown.

    Attributes
    ----------
    turn : Turn
        From ``(z, y, x)`` to slices, rows and columns.
    pixel_mm : (2,) float
        Height and width of a pixel.
    slices : int
        How many there are.
    left, right, top, bottom : str
        What lies there: R, L, A, P, S or I; empty where the file does not say.
    """

    turn: Turn
    pixel_mm: tuple[float, float]
    slices: int
    left: str = ""
    right: str = ""
    top: str = ""
    bottom: str = ""

    def cut(self, array: NDArray[Any], z: int) -> NDArray[Any]:
        """Slice z of an array whose last axes are ``(z, y, x)``, its rows and columns turned."""
        return self.turn.apply(array)[..., z, :, :]


def plane_of(geometry: Geometry) -> Plane:
    """How the slices of a file are shown."""
    own = geometry.directions
    slices, spacing_mm = geometry.array_shape[0], geometry.spacing_mm
    if own is None:
        return Plane(NO_TURN, (spacing_mm[1], spacing_mm[2]), slices)
    across = int(np.argmax(np.round(np.abs(own[0]), 6)))
    rows, columns = _SHOWN[across]
    turn = turn_to((own[0], rows, columns), own, sliced=True)
    _, height, width = turn.order(spacing_mm)
    bottom, right = _ends(own, turn)
    return Plane(turn, (height, width), slices, _OPPOSITE[right], right, _OPPOSITE[bottom], bottom)


def _ends(own: Directions, turn: Turn) -> tuple[str, str]:
    """Letters of where rows and columns lead."""
    codes = turn.order(describe_directions(own))
    rows, columns = (_OPPOSITE[code] if flip else code for code, flip in zip(codes[1:], turn.flips[1:], strict=True))
    return rows, columns


def choose_slice(foreground: NDArray[np.int64], given: int | None, *, what: str) -> int:
    """The slice that is given, or the first of those with the most foreground, or the middle one where there is none.

    Parameters
    ----------
    foreground : (Z,) int array
        Voxels of each slice that count.
    given : int, optional
    what : str
        What has the slices, for the message.

    Raises
    ------
    UsageError
        There is no such slice.
    """
    slices = len(foreground)
    if given is None:
        return int(foreground.argmax()) if foreground.any() else slices // 2
    if not 0 <= given < slices:
        raise UsageError(f"{what} has the slices 0 to {slices - 1}; found slice={given}")
    return given


def foreground_by_slice(labels: NDArray[Any], ignored: int | None) -> NDArray[np.int64]:
    """Voxels of each slice that have a class other than the background, (Z,) int.

    >>> foreground_by_slice(np.array([[[0, 1]], [[2, 255]]], dtype=np.uint8), 255).tolist()
    [1, 1]
    """
    counts = [np.count_nonzero(part) - (0 if ignored is None else np.count_nonzero(part == ignored)) for part in labels]
    return np.array(counts, dtype=np.int64)


def spread_slices(foreground: NDArray[np.int64], most: int) -> list[int]:
    """At most so many slices, evenly spread over those from the first with foreground to the last, or over all.

    >>> spread_slices(np.array([0, 0, 3, 0, 5, 2, 0]), 3)
    [2, 4, 5]
    >>> spread_slices(np.zeros(4, dtype=int), 2)
    [0, 3]
    """
    there = np.flatnonzero(foreground) if foreground.any() else np.arange(len(foreground))
    first, last = int(there[0]), int(there[-1])
    number = min(most, last - first + 1)
    if number == 1:
        return [(first + last) // 2]
    return [int(z) for z in np.rint(np.linspace(first, last, number))]
