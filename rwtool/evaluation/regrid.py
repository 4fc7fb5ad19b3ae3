"""A prediction on the grid of its reference: as it lies, turned, resampled, or refused with both grids side by side."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from numpy.typing import NDArray

from rwtool.datasets.classes import Classes
from rwtool.errors import GeometryError, VolumeError
from rwtool.io.formats import carries_spacing, read_header, read_labels, suited
from rwtool.io.geometry import SAME_GRID_VOXELS, Geometry, column_norms, grid_difference
from rwtool.io.itk import to_sitk
from rwtool.io.volume import Volume

Alignment = Literal["same", "reoriented", "resampled"]


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
    """

    array: NDArray[Any]
    alignment: Alignment
    notes: tuple[str, ...]


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
        is background.

    Returns
    -------
    Aligned
        On the same grid (all corners within 0.1 voxel), nothing is lost: axes in another order or direction are
        turned.

    Raises
    ------
    GeometryError
        The grids differ; the message shows both.
    VolumeError
        The file cannot be read, holds a label outside the class list, or the ignored one where the reference is not
        ignored.
    """
    bare = [file for file in (path, reference_path) if not carries_spacing(file)]
    where = suited(path, spacing_mm=reference.spacing_mm)
    read = partial(read_labels, path, classes=classes.values, ignore=classes.ignore)
    grid, onto = read_header(path, **where).geometry, reference.geometry
    alignment: Alignment = "same"
    if bare:
        if grid.array_shape != onto.array_shape:
            raise GeometryError(
                f"{path}: its shape (z, y, x) is {grid.array_shape}, that of the reference {reference_path} "
                f"{onto.array_shape}; {bare[0].name} has no grid by which to turn or resample; save both alike"
            )
        volume = read(**where)
        array = volume.array
        if len(bare) == 1:
            unsure = f"{bare[0].name} has no grid: its array is taken as (z, y, x) on the grid of the other file"
            volume = replace(volume, notes=(*volume.notes, unsure))
    elif (difference := grid_difference(onto, grid)) is None:
        volume = read(**{**where, "slice_axis": onto.slice_axis})
        array = volume.array
    elif (turn := find_turn(onto, grid)) is not None:
        volume, alignment = read(**where), "reoriented"
        array = onto.to_array(apply_orientation(volume.geometry.to_file(volume.array), turn))
    elif resample:
        volume, alignment = read(**where), "resampled"
        array = _resampled(volume, reference)
    else:
        raise GeometryError(
            f"{path}: {difference}\n{_side_by_side(reference_path, onto, path, grid)}\n"
            f"expected the same grid, all corners within {SAME_GRID_VOXELS} voxel, in any orientation; mend the "
            "header, or give --resample to bring the prediction onto the reference's grid (nearest neighbour)"
        )
    if classes.ignore is not None:
        _refuse_ignored(path, array, reference, classes.ignore)
    return Aligned(array, alignment, volume.notes)


def find_turn(onto: Geometry, grid: Geometry) -> NDArray[np.float64] | None:
    """Find how the axes of a file are to be permuted and flipped to lie on another grid without loss.

    Parameters
    ----------
    onto, grid : Geometry

    Returns
    -------
    (3, 2) array or None
        For `nibabel.orientations.apply_orientation` on an array with the file's axes ``(i, j, k)``; None where no turn
        makes the grids the same.
    """
    turn = io_orientation(np.linalg.inv(onto.affine_mm) @ grid.affine_mm)
    if np.isnan(turn).any():
        return None
    shape = tuple(grid.shape[axis] for axis in np.argsort(turn[:, 0]))
    turned = Geometry(grid.affine_mm @ inv_ornt_aff(turn, grid.shape), shape, onto.axes, shape)  # type: ignore[arg-type]
    return None if grid_difference(onto, turned) else turn


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
        ", ".join(f"{mm:.6g}" for mm in geometry.affine_mm[:3, 3]),
        "".join(str(code) for code in nib.aff2axcodes(geometry.affine_mm)),
    )
