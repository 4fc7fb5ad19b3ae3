"""Two grids: whether they are one, how the axes of one are turned onto the other, and what they differ in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from nibabel.orientations import inv_ornt_aff, io_orientation

from rwtool.io.geometry import Geometry, column_norms

if TYPE_CHECKING:
    from numpy.typing import NDArray

SAME_GRID_VOXELS = 0.1
SAME_SPACING = 1e-3  # relative
SAME_DIRECTION = 2e-3  # of a direction cosine

_OPPOSITE = {"R": "L", "L": "R", "A": "P", "P": "A", "S": "I", "I": "S"}


@dataclass(frozen=True)
class Match:
    """What comes of comparing two grids.

    Attributes
    ----------
    difference : str or None
        What they differ in; None where they are one.
    note : str or None
        What a user should know of grids that are taken for one.
    """

    difference: str | None = None
    note: str | None = None

    @property
    def same(self) -> bool:
        """Whether the grids are one."""
        return self.difference is None


@dataclass(frozen=True)
class Turn:
    """How the axes of a ``(z, y, x)`` array are permuted and flipped to lie as another one does.

    Attributes
    ----------
    axes : (3,) int
        Where z, y and x of the result come from.
    flips : (3,) bool
        Which of z, y and x of the result run the other way.
    """

    axes: tuple[int, int, int] = (0, 1, 2)
    flips: tuple[bool, bool, bool] = (False, False, False)

    @property
    def none(self) -> bool:
        """Whether everything stays as it is."""
        return self == Turn()

    def order(self, values: Sequence[Any]) -> tuple[Any, Any, Any]:
        """What is said of z, y and x before, such as a shape or spacing, as it is after."""
        return values[self.axes[0]], values[self.axes[1]], values[self.axes[2]]

    def apply(self, array: NDArray[Any]) -> NDArray[Any]:
        """View an array whose last axes are ``(z, y, x)`` turned."""
        first = array.ndim - 3
        turned = array.transpose(*range(first), *(first + axis for axis in self.axes))
        return turned[(..., *(slice(None, None, -1 if flip else 1) for flip in self.flips))]

    def undo(self, array: NDArray[Any]) -> NDArray[Any]:
        """View a turned array as it was."""
        first = array.ndim - 3
        flipped = array[(..., *(slice(None, None, -1 if flip else 1) for flip in self.flips))]
        return flipped.transpose(*range(first), *(first + int(axis) for axis in np.argsort(self.axes)))


def compare_grids(a: Geometry, b: Geometry) -> Match:
    """Tell whether two files lie on one grid.

    They do when their shapes are equal and all eight corners agree within 0.1 voxel. They also do, with a note, when

    - shapes are equal, spacings agree within 0.1 %, the first corner within 0.1 voxel and every direction cosine within
      2e-3: a NIfTI quaternion is stored in float32, and near a half turn its fourth component comes back wrong by up to
      6e-4, a direction cosine by 1.2e-3;
    - one of them does not say where it lies, and shapes and spacings agree;
    - one of them does not even state a spacing, and the shapes of the ``(z, y, x)`` arrays are equal.

    Parameters
    ----------
    a, b : Geometry

    Returns
    -------
    Match
    """
    if not (a.spaced and b.spaced):
        if a.array_shape != b.array_shape:
            return Match(f"the shapes (z, y, x) differ: {a.array_shape} and {b.array_shape}")
        if not (a.spaced or b.spaced):
            return Match()
        return Match(note="a file without spacing has no grid: it is taken as (z, y, x) on the grid of the other file")
    if a.shape != b.shape:
        return Match(f"the shapes differ: {a.shape} and {b.shape}")
    there = np.array(a.shape) > 1  # the direction and the size of an axis of one voxel do not matter
    steps_a, steps_b = column_norms(a.affine_mm), column_norms(b.affine_mm)
    stretch = np.where(there, np.abs(steps_b / steps_a - 1), 0)
    if not (a.placed and b.placed):
        if stretch.max() > SAME_SPACING:
            return Match(_spacings(steps_a, steps_b, stretch))
        if not (a.placed or b.placed):  # which each file's own note says
            return Match()
        return Match(
            note="one of two files states no position or orientation; with equal shapes and spacings they are taken to "
            "lie alike"
        )
    offset = _corner_offset(a, b)
    if offset <= SAME_GRID_VOXELS:
        return Match()
    cosines_a, cosines_b = a.affine_mm[:3, :3] / steps_a, b.affine_mm[:3, :3] / steps_b
    shift = b.affine_mm[:3, 3] - a.affine_mm[:3, 3]
    turned = float(np.abs(cosines_b - cosines_a)[:, there].max(initial=0))
    shifted = float(np.abs(np.linalg.solve(a.affine_mm[:3, :3], shift)).max())
    if stretch.max() <= SAME_SPACING and shifted <= SAME_GRID_VOXELS and turned <= SAME_DIRECTION:
        return Match(
            note=f"direction cosines differ by up to {turned:.2g} and corners by up to {offset:.2g} voxels, as a "
            "quaternion in float32 comes out; shapes, spacings and origins are equal, and the grids are taken for one"
        )
    extent = np.array(a.shape) - 1
    sines = np.linalg.norm(cosines_b - cosines_a, axis=0) / 2
    found = {  # the largest offset that each accounts for, in voxels
        _spacings(steps_a, steps_b, stretch): float((stretch * extent).max()),
        f"the origins differ by {_numbers(shift)} mm (right, anterior, superior)": shifted,
        f"the directions of the axes differ by up to {np.degrees(2 * np.arcsin(np.minimum(sines, 1)).max()):.3g} "
        "degrees": float((2 * sines * extent).max()),
    }
    return Match(f"{max(found, key=lambda name: found[name])}; corners differ by up to {offset:.3g} voxels")


def find_turn(onto: Geometry, grid: Geometry) -> tuple[Turn, Match] | None:
    """Find how the array of a file is to be turned to lie on another grid without loss.

    Parameters
    ----------
    onto, grid : Geometry

    Returns
    -------
    Turn and Match, or None
        From the ``(z, y, x)`` array of `grid` to that of `onto`, and how well the grids agree then; None where no turn
        makes them one, or a file does not say how it lies.
    """
    if not (onto.placed and grid.placed):
        return None
    found = io_orientation(np.linalg.inv(onto.affine_mm) @ grid.affine_mm)
    if np.isnan(found).any():
        return None
    source = [int(axis) for axis in np.argsort(found[:, 0])]  # the axis of the one file for each of the other
    i, j, k = (grid.shape[axis] for axis in source)
    turned = replace(grid, affine_mm=grid.affine_mm @ inv_ornt_aff(found, grid.shape), shape=(i, j, k), axes=onto.axes)
    match = compare_grids(onto, turned)
    if not match.same:
        return None
    z, y, x = (grid.axes.index(source[axis]) for axis in onto.axes)
    flip_z, flip_y, flip_x = (bool(found[source[axis], 1] < 0) for axis in onto.axes)
    return Turn((z, y, x), (flip_z, flip_y, flip_x)), match


def turn_to(orientation: str | None, geometry: Geometry) -> Turn:
    """How an array is turned to an anatomical order.

    Parameters
    ----------
    orientation : str or None
        Where z, y and x point after the turn, such as ``"SPL"``: see `Geometry.orientation`.
    geometry : Geometry

    Returns
    -------
    Turn
        None at all where no order is wanted, or the file does not say how it lies.
    """
    own = geometry.orientation
    if orientation is None or own is None:
        return Turn()
    z, y, x = (own.index(code) if code in own else own.index(_OPPOSITE[code]) for code in orientation)
    return Turn((z, y, x), (own[z] != orientation[0], own[y] != orientation[1], own[x] != orientation[2]))


def common_orientation(orientations: Iterable[str | None]) -> str | None:
    """The order of ``(z, y, x)`` that most files have, of those in the plane that most are sliced in.

    >>> common_orientation(["SPL", "SAR", "IPL", "RSP", "RSP", None])
    'IPL'
    >>> common_orientation([None])
    """
    counts = Counter(found for found in orientations if found is not None)
    planes: Counter[str] = Counter()
    for found, times in counts.items():
        planes[_plane(found)] += times
    return min(counts, key=lambda found: (-planes[_plane(found)], -counts[found], found)) if counts else None


def _plane(orientation: str) -> str:
    """The anatomical axis across the slices, whichever way it points."""
    return min(orientation[0], _OPPOSITE[orientation[0]])


def _corner_offset(a: Geometry, b: Geometry) -> float:
    """How far the corners of two grids of one shape lie apart, in voxels of the first along its axes."""
    corners = np.array([(*corner, 1) for corner in product(*((0, n - 1) for n in a.shape))], dtype=float).T
    return float(np.abs(np.linalg.solve(a.affine_mm, b.affine_mm @ corners)[:3] - corners[:3]).max())


def _spacings(a: NDArray[np.float64], b: NDArray[np.float64], stretch: NDArray[np.float64]) -> str:
    return f"the spacings differ: {_numbers(a)} and {_numbers(b)} mm, by up to {100 * stretch.max():.3g} %"


def _numbers(values: NDArray[np.float64]) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in values) + ")"
