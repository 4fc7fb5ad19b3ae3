"""A prediction on the grid of its reference: as it lies, turned, resampled, or refused with both grids side by side."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from rwtool.datasets.classes import Classes
from rwtool.errors import GeometryError, VolumeError
from rwtool.io.formats import read_header, read_labels, suited
from rwtool.io.geometry import Geometry, column_norms
from rwtool.io.grids import SAME_GRID_VOXELS, Match, compare_grids, match_turned
from rwtool.io.itk import to_sitk
from rwtool.io.volume import Volume

Alignment = Literal["same", "reoriented", "resampled"]

_FEW = 0.5  # share of the foreground on the reference, below which something is likely wrong


@dataclass(frozen=True, eq=False)
class Aligned:
    """A prediction on the grid of its reference.

    Attributes
    ----------
    array : (Z, Y, X) array
        Class indices; often a view with turned axes.
    alignment : {"same", "reoriented", "resampled"}
        What was done.
    notes : tuple of str
        What a user should know of the file.
    mapped : tuple of int
        The values of the file for which others were taken.
    """

    array: NDArray[Any]
    alignment: Alignment
    notes: tuple[str, ...]
    mapped: tuple[int, ...] = ()


def read_aligned(
    path: Path, reference: Volume, reference_path: Path, *, classes: Classes, resample: bool = False
) -> Aligned:
    """Read a prediction onto the grid of its reference.

    Parameters
    ----------
    path : Path
        The prediction. One without spacing, such as ``.npy``, has no grid: it is ``(z, y, x)`` like the reference's
        array.
    reference : Volume
        Class indices.
    reference_path : Path
    classes : Classes
    resample : bool
        Bring a prediction on another grid onto the reference's with nearest neighbour; what it does not cover
        is background. Never where a file does not say where it lies.

    Returns
    -------
    Aligned
        On the same grid (see :func:`rwtool.io.grids.compare_grids`), nothing is lost: axes in another order or
        direction are turned.

    Raises
    ------
    GeometryError
        The grids differ; the message shows both. Or no part of a resampled prediction lies on the reference.
    VolumeError
        The file cannot be read, holds a label outside the class list, or the ignored one where the reference is not
        ignored.
    """
    where = suited(path, spacing_mm=reference.spacing_mm)
    read = partial(
        read_labels, path, classes=classes.values, ignore=classes.ignore, map_values=classes.map_values, **where
    )
    grid, onto = read_header(path, **where).geometry, reference.geometry
    turn, match = match_turned(onto, grid)
    alignment: Alignment
    if match.same:
        volume, alignment = read(), "same" if compare_grids(onto, grid).same else "reoriented"
        array = turn.apply(volume.array)
    elif resample and onto.placed and grid.placed:
        volume, alignment = read(), "resampled"
        match = Match(note=_coverage(path, volume, reference_path, onto))
        array = _resampled(volume, reference)
    else:
        raise GeometryError(_refusal(path, grid, reference_path, onto, match))
    if classes.ignore is not None:
        _refuse_ignored(path, array, reference, classes.ignore)
    return Aligned(array, alignment, (*volume.notes, *([match.note] if match.note else ())), volume.mapped)


def _coverage(path: Path, volume: Volume, reference_path: Path, onto: Geometry) -> str:
    """Say how much of a prediction's foreground lies on the grid of its reference; none is an error."""
    marked = (volume.array != 0) & (volume.array != (0 if volume.ignored is None else volume.ignored))
    what = "foreground"
    if not marked.any():
        marked, what = np.ones(volume.array.shape, dtype=bool), "grid"
    to_reference = np.linalg.inv(onto.affine_mm) @ volume.geometry.affine_mm
    inside = 0
    for z, plane in enumerate(marked):
        at = np.insert(np.argwhere(plane), 0, z, axis=1)[:, np.argsort(volume.geometry.axes)]  # along the file's axes
        there = at @ to_reference[:3, :3].T + to_reference[:3, 3]
        inside += np.count_nonzero(((there > -0.5) & (there < np.array(onto.shape) - 0.5)).all(axis=1))
    share = inside / np.count_nonzero(marked)
    if not inside:
        raise GeometryError(
            f"{path}: no part of its {what} lies on the reference {reference_path}, so there is nothing to resample; "
            "do the two belong together, and are both headers right?"
        )
    said = f"resampled; {100 * share:.4g} % of its {what} lies on the reference"
    return said if share >= _FEW else f"warning: {said}, and the rest is outside; do the two belong together?"


def _refusal(path: Path, grid: Geometry, reference_path: Path, onto: Geometry, match: Match) -> str:
    """Say why a prediction cannot be brought onto its reference."""
    if not (grid.spaced and onto.spaced):
        bare = reference_path if grid.spaced else path
        return (
            f"{path}: its shape (z, y, x) is {grid.array_shape}, that of the reference {reference_path} "
            f"{onto.array_shape}; {bare.name} has no grid by which to turn or resample; save both alike"
        )
    first = f"{path}: {match.difference}\n{_side_by_side(reference_path, onto, path, grid)}\n"
    if not (grid.placed and onto.placed):
        bare = reference_path if grid.placed else path
        return (
            f"{first}{bare} states no position or orientation by which to turn or resample; expected the same shape "
            "and spacing; save both with their orientation"
        )
    return (
        f"{first}expected the same grid, all corners within {SAME_GRID_VOXELS} voxel, in any orientation; mend the "
        "header, or give resample=True to bring the prediction onto the reference's grid (nearest neighbour)"
    )


def _resampled(volume: Volume, reference: Volume) -> NDArray[Any]:
    """Bring labels onto the grid of a reference with nearest neighbour; 0, the background, outside."""
    import SimpleITK as sitk

    moving, fixed = (to_sitk(each.array, each.geometry) for each in (volume, reference))
    image = sitk.Resample(moving, fixed, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    return reference.geometry.to_array(sitk.GetArrayFromImage(image).transpose())


def _refuse_ignored(path: Path, prediction: NDArray[Any], reference: Volume, ignore: int) -> None:
    """The ignored label is no class: a prediction may hold it only where the reference does."""
    stray = np.count_nonzero((prediction == reference.ignored) & (reference.array != reference.ignored))
    if stray:
        raise VolumeError(
            f"{path}: {stray:,} voxels hold the ignored label {ignore} where the reference has a class; a prediction "
            "needs a class there; mend the file"
        )


def _side_by_side(reference_path: Path, reference: Geometry, path: Path, grid: Geometry) -> str:
    columns = [
        ("", "file", "shape", "spacing in mm", "origin in mm", "orientation"),
        ("reference", *_described(reference_path, reference)),
        ("prediction", *_described(path, grid)),
    ]
    widths = [max(map(len, column)) for column in columns]
    lines = zip(*columns, strict=True)
    return "\n".join(
        "    " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _described(path: Path, geometry: Geometry) -> tuple[str, str, str, str, str]:
    """File, shape, spacing, origin and orientation codes, along the file's axes."""
    return (
        path.name,
        " x ".join(map(str, geometry.shape)),
        " x ".join(f"{mm:.6g}" for mm in column_norms(geometry.affine_mm)),
        ", ".join(f"{mm:.6g}" for mm in geometry.affine_mm[:3, 3]) if geometry.placed else "none",
        "".join(str(code) for code in nib.aff2axcodes(geometry.affine_mm)) if geometry.placed else "none",
    )
