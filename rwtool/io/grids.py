"""Two grids: whether they are one, how the axes of one are turned onto the other, and what they differ in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import permutations, product
from typing import TYPE_CHECKING, Any

import numpy as np
from nibabel.orientations import aff2axcodes, inv_ornt_aff, io_orientation

from rwtool.io.geometry import Directions, Geometry, column_norms

if TYPE_CHECKING:
    from numpy.typing import NDArray

SAME_GRID_VOXELS = 0.1
SAME_SPACING = 1e-3  # relative
SAME_DIRECTION = 2e-3  # of a direction cosine
_RIGHT_ANGLE = 1e-6  # a cosine below is that of neither direction

SAME_GRID = (
    f"all corners within {SAME_GRID_VOXELS} voxel, or, with a note, equal shapes, spacings within {SAME_SPACING:.1%}, "
    f"the first corner within {SAME_GRID_VOXELS} voxel and direction cosines within {SAME_DIRECTION:g}"
)

_WITHOUT_SPACING = "a file without spacing has no grid: it is taken as (z, y, x) on the grid of the other file"
_WITHOUT_PLACE = (
    "one of two files states no position or orientation; with equal shapes and spacings they are taken to lie alike"
)
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

    def order(self, values: Sequence[Any]) -> tuple[Any, Any, Any]:
        """What is said of z, y and x before, such as a shape or spacing, as it is after."""
        return values[self.axes[0]], values[self.axes[1]], values[self.axes[2]]

    def apply(self, array: NDArray[Any]) -> NDArray[Any]:
        """View an array whose last axes are ``(z, y, x)`` turned."""
        return self._flipped(np.moveaxis(array, [axis - 3 for axis in self.axes], [-3, -2, -1]))

    def undo(self, array: NDArray[Any]) -> NDArray[Any]:
        """View a turned array as it was."""
        return np.moveaxis(self._flipped(array), [-3, -2, -1], [axis - 3 for axis in self.axes])

    def _flipped(self, array: NDArray[Any]) -> NDArray[Any]:
        z, y, x = (slice(None, None, -1 if flip else 1) for flip in self.flips)
        return array[..., z, y, x]


NO_TURN = Turn()


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
        return Match(note=_WITHOUT_SPACING if a.spaced or b.spaced else None)
    if a.shape != b.shape:
        return Match(f"the shapes differ: {a.shape} and {b.shape}")
    return _compare_stated(a, b) if a.placed and b.placed else _compare_unplaced(a, b)


def _compare_unplaced(a: Geometry, b: Geometry) -> Match:
    """Compare the spacings of two files of one shape, not both of which say where they lie."""
    difference = _spacings(a, b) if _stretch(a, b).max() > SAME_SPACING else None
    # where neither says it, each file's own note does
    return Match(difference, _WITHOUT_PLACE if difference is None and (a.placed or b.placed) else None)


def _compare_stated(a: Geometry, b: Geometry) -> Match:
    """Compare two grids of one shape."""
    offset = _corner_offset(a, b)
    if offset <= SAME_GRID_VOXELS:
        return Match()
    stretch, shift = _stretch(a, b), b.affine_mm[:3, 3] - a.affine_mm[:3, 3]
    cosines_a, cosines_b = (each.affine_mm[:3, :3] / column_norms(each.affine_mm) for each in (a, b))
    turned = float(np.abs(cosines_b - cosines_a)[:, np.array(a.shape) > 1].max(initial=0))
    shifted = float(np.abs(np.linalg.solve(a.affine_mm[:3, :3], shift)).max())
    if stretch.max() <= SAME_SPACING and shifted <= SAME_GRID_VOXELS and turned <= SAME_DIRECTION:
        return Match(
            note=f"direction cosines differ by up to {turned:.2g} and corners by up to {offset:.2g} voxels, as a "
            "quaternion in float32 comes out; shapes, spacings and origins are equal, and the grids are taken for one"
        )
    extent = np.array(a.shape) - 1
    sines = np.linalg.norm(cosines_b - cosines_a, axis=0) / 2
    found = {  # the largest offset that each accounts for, in voxels
        _spacings(a, b): float((stretch * extent).max()),
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


def match_turned(onto: Geometry, grid: Geometry) -> tuple[Turn, Match]:
    """Compare two grids, and turn the second where that makes them one.

    Parameters
    ----------
    onto, grid : Geometry

    Returns
    -------
    Turn and Match
        How the ``(z, y, x)`` array of `grid` is turned onto that of `onto`, and what is left to say of the two then.
    """
    match = compare_grids(onto, grid)
    if not match.same:
        return find_turn(onto, grid) or (NO_TURN, match)
    if not (onto.spaced and grid.spaced):
        return NO_TURN, match
    z, y, x = (grid.axes.index(axis) for axis in onto.axes)  # another slice axis may have been chosen
    return Turn((z, y, x)), match


def turn_to(reference: Directions | None, own: Directions | None, *, sliced: bool = False) -> Turn:
    """How an array is turned to lie as others do, as near as permutations and flips of its axes come to it.

    An oblique file is not turned for lying a few degrees off: only where another order of its axes is nearer.

    Parameters
    ----------
    reference : Directions or None
        Where z, y and x of the others point: see `Geometry.directions`.
    own : Directions or None
        Where those of the array point.
    sliced : bool
        Whether z is known to be the axis across the slices, and stays it: see `Geometry.sliced`.

    Returns
    -------
    Turn
        None at all where a file does not say how it lies.
    """
    if reference is None or own is None:
        return NO_TURN
    cosines = np.array(reference) @ np.array(own).T
    orders = [axes for axes in permutations(range(3)) if axes[0] == 0 or not sliced]
    z, y, x = max(orders, key=lambda axes: round(sum(abs(cosines[to, axis]) for to, axis in enumerate(axes)), 6))
    flip_z, flip_y, flip_x = (bool(cosines[to, axis] < -_RIGHT_ANGLE) for to, axis in enumerate((z, y, x)))
    return Turn((z, y, x), (flip_z, flip_y, flip_x))


def common_directions(found: Iterable[Directions | None]) -> Directions | None:
    """Where z, y and x of most files point, of those in the plane that most are sliced in.

    Parameters
    ----------
    found : iterable of Directions or None
        Those of files.

    Returns
    -------
    Directions or None
        Those of one of the files; None where no file says.
    """
    groups: dict[str, list[Directions]] = {}
    for directions in found:
        if directions is not None:
            groups.setdefault(describe_directions(directions), []).append(directions)
    planes: Counter[str] = Counter()
    for codes, group in groups.items():
        planes[_plane(codes)] += len(group)
    if not groups:
        return None
    return min(groups[min(groups, key=lambda codes: (-planes[_plane(codes)], -len(groups[codes]), codes))])


def describe_directions(directions: Directions) -> str:
    """Name the anatomical directions nearest to those of z, y and x.

    >>> describe_directions(((0.0, 0.1, 1.0), (0.0, -1.0, 0.1), (-1.0, 0.0, 0.0)))
    'SPL'
    """
    affine = np.eye(4)
    affine[:3, :3] = np.array(directions).T
    return "".join(str(code) for code in aff2axcodes(affine))


def _plane(codes: str) -> str:
    """The anatomical axis across the slices, whichever way it points."""
    return min(codes[0], _OPPOSITE[codes[0]])


def _corner_offset(a: Geometry, b: Geometry) -> float:
    """How far the corners of two grids of one shape lie apart, in voxels of the first along its axes."""
    corners = np.array([(*corner, 1) for corner in product(*((0, n - 1) for n in a.shape))], dtype=float).T
    return float(np.abs(np.linalg.solve(a.affine_mm, b.affine_mm @ corners)[:3] - corners[:3]).max())


def _stretch(a: Geometry, b: Geometry) -> NDArray[np.float64]:
    """How much the spacings along the file's axes differ, relative; that of an axis of one voxel does not matter."""
    return np.where(np.array(a.shape) > 1, np.abs(column_norms(b.affine_mm) / column_norms(a.affine_mm) - 1), 0)


def _spacings(a: Geometry, b: Geometry) -> str:
    steps = [_numbers(column_norms(each.affine_mm)) for each in (a, b)]
    return f"the spacings differ: {' and '.join(steps)} mm, by up to {100 * _stretch(a, b).max():.3g} %"


def _numbers(values: NDArray[np.float64]) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in values) + ")"
