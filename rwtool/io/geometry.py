"""Where the voxels of a file lie, and which of its axes are z, y and x.

Inside rwtool every array is indexed ``(z, y, x)`` and every spacing is ``(z, y, x)`` in mm. A file has
axes ``(i, j, k)`` of its own, in NIfTI's order, and an affine that takes ``(i, j, k)`` to RAS mm. z is the
file's slice axis; the file stays what it was, and only :mod:`rwtool.io` turns axes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from rwtool.errors import GeometryError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray


# The file axes of (z, y, x), by slice axis: a file stored slice first is already (z, y, x); one stored slice
# last, which is NIfTI's habit, is read backwards. Memory order is kept wherever it can be.
_AXES_BY_SLICE_AXIS = {0: (0, 1, 2), 1: (1, 2, 0), 2: (2, 1, 0)}

SHEAR_REFUSED = 0.01
SHEAR_REPORTED = 0.001
SAME_SPACING = 0.01  # relative
_SMALLEST, _LARGEST = 1e-9, 1e9  # of a voxel in mm: a picometre, and what float32 squares without overflow
NOT_PLACED = "the header states no position or orientation"


Directions = tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]


class NoSpacingError(UsageError):
    """A file that states no spacing was to be read without one."""


@dataclass(frozen=True, eq=False)
class Geometry:
    """The grid of a file, enough to write another file on the same grid.

    Attributes
    ----------
    affine_mm : (4, 4) float64 array
        From file index ``(i, j, k, 1)`` to RAS mm.
    shape : (3,) int
        Voxels along the file's axes ``(i, j, k)``.
    axes : (3,) int
        The file axis of z, of y and of x; ``axes[0]`` is the slice axis.
    file_shape : tuple of int
        The shape as stored: ``(X, Y)`` for a 2D file, ``(X, Y, Z, 1)`` for a trailing 1.
    header : nibabel NIfTI header or None
        The header of a NIfTI file, so that its codes and units survive a round trip.
    placed : bool
        Whether the file says where it lies and which way its axes point. The affine of one that does not is made up
        but for the spacing.
    spaced : bool
        Whether the file says how large its voxels are; else the spacing was given by who reads it.
    """

    affine_mm: NDArray[np.float64]
    shape: tuple[int, int, int]
    axes: tuple[int, int, int]
    file_shape: tuple[int, ...]
    header: Any = field(default=None, repr=False)
    placed: bool = True
    spaced: bool = True

    def __post_init__(self) -> None:
        sizes = column_norms(self.affine_mm)
        if not ((sizes >= _SMALLEST) & (sizes <= _LARGEST)).all():
            raise GeometryError(
                f"its voxels measure {' x '.join(f'{size:.6g}' for size in sizes)} mm along the file's axes; expected "
                f"{_SMALLEST:g} to {_LARGEST:g} mm; mend the header, or the unit that it states"
            )
        if not (np.abs(self.affine_mm[:3, 3]) <= _LARGEST).all():
            origin = ", ".join(f"{value:.6g}" for value in self.affine_mm[:3, 3])
            raise GeometryError(
                f"its first voxel lies at ({origin}) mm; expected at most {_LARGEST:g} mm from the origin; mend it"
            )

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between voxel centres along ``(z, y, x)``, in mm."""
        spacing = column_norms(self.affine_mm)
        return tuple(float(spacing[axis]) for axis in self.axes)  # type: ignore[return-value]

    @property
    def array_shape(self) -> tuple[int, int, int]:
        """Voxels along ``(z, y, x)``."""
        return tuple(self.shape[axis] for axis in self.axes)  # type: ignore[return-value]

    @property
    def slice_axis(self) -> int:
        """The file axis that is z."""
        return self.axes[0]

    @property
    def directions(self) -> Directions | None:
        """Unit vectors along z, y and x, each to the right, anterior and superior; None where the file does not say."""
        if not self.placed:
            return None
        cosines = (self.affine_mm[:3, :3] / column_norms(self.affine_mm)).T
        return tuple(tuple(float(part) for part in cosines[axis]) for axis in self.axes)  # type: ignore[return-value]

    @property
    def sliced(self) -> bool:
        """Whether shape and spacing tell that the slices lie across z."""
        return _sliced_across(self.shape, column_norms(self.affine_mm).tolist()) == self.slice_axis

    def to_array(self, stored: NDArray[Any]) -> NDArray[Any]:
        """View an array with the file's axes ``(i, j, k)`` as ``(z, y, x)``."""
        return stored.transpose(self.axes)

    def to_file(self, array: NDArray[Any]) -> NDArray[Any]:
        """View a ``(z, y, x)`` array with the file's axes ``(i, j, k)``."""
        return array.transpose(np.argsort(self.axes))


def column_norms(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Voxel sizes along the three file axes.

    >>> column_norms(np.diag([2.0, 3.0, 4.0, 1.0])).tolist()
    [2.0, 3.0, 4.0]
    """
    with np.errstate(over="ignore"):
        return np.sqrt((affine[:3, :3] ** 2).sum(axis=0))


def check_affine(affine: NDArray[np.float64]) -> list[str]:
    """Refuse an affine that cannot carry distances, and say what is odd about one that can.

    Parameters
    ----------
    affine : (4, 4) float array
        File index to mm.

    Returns
    -------
    list of str
        Notes for the user: a shear above 0.001.

    Raises
    ------
    GeometryError
        If it is not finite, has a voxel size of 0, or is sheared (the cosine between two axes above 0.01): the distance
        between voxels would not be that of their spacing.
    """
    norms = column_norms(affine)
    if not np.isfinite(affine).all() or not (norms > 0).all():
        raise GeometryError(
            "the affine has a voxel size of 0 or a value that is not finite; expected three finite axes; "
            f"found {np.array2string(affine, precision=4, separator=', ')}; mend the header"
        )
    unit = affine[:3, :3] / norms
    cosines = np.abs(unit.T @ unit - np.eye(3))
    shear = float(cosines.max())
    if shear > SHEAR_REFUSED:
        a, b = np.unravel_index(int(cosines.argmax()), (3, 3))
        raise GeometryError(
            f"the affine is sheared: file axes {a} and {b} have |cos| = {shear:.4f}, expected at most "
            f"{SHEAR_REFUSED}; distances in mm would be wrong; resample it onto a grid with right angles"
        )
    return [f"the affine is slightly sheared (|cos| = {shear:.4f})"] if shear > SHEAR_REPORTED else []


def find_slice_axis(shape: Sequence[int], spacing: Sequence[float]) -> int:
    """Slice axis of a file.

    A file with exactly one axis of one voxel is one slice across that axis. Else it is the axis left when exactly two
    axes share a spacing within 1 %; else the last.

    Parameters
    ----------
    shape, spacing : (3,)
        Of the file's axes ``(i, j, k)``.

    Returns
    -------
    int
        0, 1 or 2.

    Examples
    --------
    >>> find_slice_axis((157, 512, 512), (0.5, 0.9, 0.9))
    0
    >>> find_slice_axis((40, 50, 30), (1, 1, 1))
    2
    """
    found = _sliced_across(shape, spacing)
    return 2 if found is None else found


def _sliced_across(shape: Sequence[int], spacing: Sequence[float]) -> int | None:
    singletons = [axis for axis in range(3) if shape[axis] == 1]
    if len(singletons) == 1:
        return singletons[0]
    left_over = []
    for axis in range(3):
        a, b = (spacing[other] for other in range(3) if other != axis)
        if abs(a - b) <= SAME_SPACING * max(a, b):
            left_over.append(axis)
    return left_over[0] if len(left_over) == 1 else None


def axes_for(shape: Sequence[int], spacing: Sequence[float], slice_axis: int | None = None) -> tuple[int, int, int]:
    """File axes of ``(z, y, x)``: z is `slice_axis`, or the one that :func:`find_slice_axis` finds."""
    if slice_axis is None:
        slice_axis = find_slice_axis(shape, spacing)
    if slice_axis not in _AXES_BY_SLICE_AXIS:
        raise UsageError(f"the slice axis is the index of a file axis, 0, 1 or 2; found {slice_axis}")
    return _AXES_BY_SLICE_AXIS[slice_axis]


def settle_spacing(
    stated: Sequence[float], spacing_mm: Sequence[float] | None, shape: Sequence[int], *, what: str = "the header"
) -> tuple[float, float, float] | None:
    """Say whether a file's own spacing holds, or the one that its reader gives.

    Parameters
    ----------
    stated : sequence of float
        Along the file's axes, in any unit; what is unknown is NaN, and empty where nothing is stated.
    spacing_mm : (3,) float, optional
        Given by the reader, along ``(z, y, x)``.
    shape : (3,) int
        Of the file's axes: what is stated of an axis of one voxel does not matter.
    what : str
        What should have stated it, for the message.

    Returns
    -------
    (3,) float or None
        The given one where the file has none of its own; None where the file's own holds.

    Raises
    ------
    NoSpacingError
        There is neither.
    UsageError
        There are both, or what is given is no spacing.
    """
    known = [0 < step < math.inf for step in stated]
    missing = not known or not all(found for found, n in zip(known, shape, strict=False) if n > 1)
    if missing and spacing_mm is None:
        found = f" (found {' x '.join(f'{step:.6g}' for step in stated)})" if len(stated) else ""
        raise NoSpacingError(f"{what} carries no spacing{found}; give spacing_mm=(z, y, x)")
    if not missing:
        if spacing_mm is not None:
            raise UsageError("spacing_mm= is for files without one, such as .npy; this file carries its own spacing")
        return None
    return check_spacing(spacing_mm)


def check_spacing(spacing_mm: Sequence[float] | None) -> tuple[float, float, float]:
    """Refuse what is no spacing: three positive numbers."""
    spacing = tuple(float(value) for value in spacing_mm or ())
    if len(spacing) != 3 or not all(_SMALLEST <= value <= _LARGEST for value in spacing):
        raise UsageError(
            f"a spacing is three positive numbers (z, y, x) in mm, {_SMALLEST:g} to {_LARGEST:g}; found {spacing}"
        )
    return spacing


def unplaced(
    spacing_mm: Sequence[float], shape: tuple[int, int, int], axes: tuple[int, int, int], file_shape: tuple[int, ...]
) -> Geometry:
    """Grid of a file that states nothing of it but its shape; its spacing, along ``(z, y, x)``, is given."""
    affine = np.diag([*(float(spacing_mm[axes.index(axis)]) for axis in range(3)), 1.0])
    return Geometry(affine, shape, axes, file_shape, placed=False, spaced=False)
