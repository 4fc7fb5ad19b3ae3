"""What a format states of its grid, settled: in mm, to RAS, with a spacing that was given where it states none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rwtool.io.geometry import NOT_PLACED, Geometry, axes_for, check_affine, column_norms, settle_spacing, unplaced

_SIGNS = np.array([[-1.0], [-1.0], [1.0], [1.0]])


def lps_to_ras(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """An affine to RAS mm of one to LPS mm, or the other way."""
    return affine * _SIGNS


def of_space(shape: Sequence[int]) -> tuple[int, ...]:
    """Shape of a file less what is no axis of space: a single voxel first or last, where there are four axes or more.

    >>> of_space((1, 20, 30, 5))
    (20, 30, 5)
    """
    spatial = tuple(shape)
    while len(spatial) > 3 and 1 in (spatial[0], spatial[-1]):
        spatial = spatial[:-1] if spatial[-1] == 1 else spatial[1:]
    return spatial


def place(
    affine: NDArray[np.float64],
    shape: tuple[int, int, int],
    file_shape: tuple[int, ...],
    slice_axis: int | None,
    spacing_mm: Sequence[float] | None,
    *,
    placed: bool,
    notes: Sequence[str] = (),
) -> tuple[Geometry, tuple[str, ...]]:
    """Make the grid of a file.

    Parameters
    ----------
    affine : (4, 4) float array
        From the file's index to RAS mm; a column that the file does not state is NaN or 0.
    shape : (3,) int
        Voxels along the file's axes.
    file_shape : tuple of int
        As stored.
    slice_axis : int, optional
        The file axis that is z.
    spacing_mm : (3,) float, optional
        Along ``(z, y, x)``, given by who reads the file.
    placed : bool
        Whether the file states its position and orientation.
    notes : sequence of str
        What is odd about the file already.

    Returns
    -------
    Geometry, and the notes

    Raises
    ------
    UsageError
        The file states no spacing and none is given, or both do.
    GeometryError
        Its axes are sheared.
    """
    if np.isinf(affine).any():
        affine = np.where(np.isinf(affine), np.nan, affine)
    said = list(notes) if placed else [*notes, NOT_PLACED]
    given = settle_spacing(column_norms(affine).tolist(), spacing_mm, shape)
    if given is not None:
        axes = axes_for(shape, given, 2 if slice_axis is None else slice_axis)
        return unplaced(given, shape, axes, file_shape), tuple(said)
    affine = _completed(affine)
    said += check_affine(affine)
    axes = axes_for(shape, column_norms(affine).tolist(), slice_axis)
    return Geometry(affine, shape, axes, file_shape, placed=placed), tuple(said)


def _completed(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """An affine with a step of 1 mm where an axis of one voxel states none, at right angles to those that do."""
    affine = affine.copy()
    steps = column_norms(affine)
    unknown = ~((steps > 0) & np.isfinite(steps))
    if unknown.any():
        affine[:3, :3][:, unknown] = 0
        u, _, vt = np.linalg.svd(affine[:3, :3])
        affine[:3, :3][:, unknown] = (u @ vt)[:, unknown]
    return affine
