"""One volume in memory, and what its file said of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rwtool.errors import VolumeError
from rwtool.io.geometry import Geometry


@dataclass(frozen=True, eq=False)
class Volume:
    """One 3D array, where it lies, and what its file was odd about.

    Attributes
    ----------
    array : (Z, Y, X) array
    spacing_mm : (3,) float
        Between voxel centres, along ``(z, y, x)``.
    geometry : Geometry
        The grid of the file.
    notes : tuple of str
        What a user should know of the file, such as a header that disagrees with itself.
    ignored : int or None
        The value of `array` that marks voxels without a class; None where there can be none.
    mapped : tuple of int
        Of labels: the values of the file for which others were taken.
    """

    array: NDArray[Any]
    spacing_mm: tuple[float, float, float]
    geometry: Geometry
    notes: tuple[str, ...] = ()
    ignored: int | None = None
    mapped: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Header:
    """What a file says of itself before its voxels are read.

    Attributes
    ----------
    geometry : Geometry
    dtype : numpy dtype
        Of the voxels as stored.
    notes : tuple of str
    channels : int
        Numbers per voxel: more than one in colour pictures, vector images and 4D files.
    """

    geometry: Geometry
    dtype: np.dtype[Any]
    notes: tuple[str, ...] = ()
    channels: int = 1


@dataclass(frozen=True, eq=False)
class Stored:
    """A header, the voxels with the file's axes ``(i, j, k, ...)``, and their scaling."""

    header: Header
    array: NDArray[Any]
    slope: float = 1.0
    inter: float = 0.0


def one_volume(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Shape as three axes; a trailing 1 is no axis, and a 2D image is one slice."""
    if not shape or min(shape) < 1:
        raise VolumeError(f"the file holds no voxels: its shape is {shape}")
    if any(n != 1 for n in shape[3:]):
        raise VolumeError(
            f"expected one 3D volume; found {len(shape)} dimensions, shape {shape}; "
            "write one file per volume (channels or time points) and try again"
        )
    return tuple((*shape, 1, 1)[:3]) if len(shape) < 3 else shape[:3]  # type: ignore[return-value]


def numpy_type(reader: Any) -> np.dtype[Any]:
    """Type of the numbers of an image that a reader of SimpleITK has looked at, however many channels it states."""
    import SimpleITK as sitk

    vector = "vector" in sitk.GetPixelIDValueAsString(reader.GetPixelID())
    dtype: np.dtype[Any] = sitk.GetArrayViewFromImage(sitk.Image([1, 1], reader.GetPixelID(), 2 * vector)).dtype
    return dtype


def to_volume(header: Header, stored: NDArray[Any]) -> Volume:
    """A volume of stored voxels, their axes turned."""
    geometry = header.geometry
    return Volume(geometry.to_array(stored), geometry.spacing_mm, geometry, header.notes)
