"""``.b2nd`` files: what nnU-Net's preprocessing writes, in its own array order, with no spacing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rwtool.errors import VolumeError
from rwtool.io.arrays import npy_geometry
from rwtool.io.volume import Header, Stored

OUTSIDE = -1
"""What nnU-Net writes where image and label are 0; it trains on it as background."""


def open_array(path: Path) -> Any:
    """The array of a file, whose pieces are read when they are asked for; it has a shape and a dtype.

    Raises
    ------
    VolumeError
        blosc2 is not installed, or the file is none of its arrays.
    """
    try:
        import blosc2
    except ModuleNotFoundError as error:
        raise VolumeError(
            "an .b2nd file of nnU-Net is read by blosc2, which is not installed; run pip install 'rwtool[nnunet]'"
        ) from error
    try:
        array = blosc2.open(urlpath=str(path), mode="r")
    except Exception as error:  # of a damaged file: RuntimeError, ValueError, and others
        raise VolumeError(f"it cannot be read as an array of blosc2: {error}; preprocess the data set again") from error
    if not isinstance(array, blosc2.NDArray):
        raise VolumeError(f"it holds a {type(array).__name__}; expected an array, as nnU-Net's preprocessing writes it")
    return array


def map_b2nd(path: Path) -> NDArray[Any]:
    """All of an array."""
    return np.asarray(open_array(path)[...])


def open_b2nd(path: Path, slice_axis: int | None, voxels: bool, spacing_mm: Sequence[float] | None) -> Stored:
    """Read an ``.b2nd`` file; -1 is background, as in nnU-Net's training."""
    array = open_array(path)
    shape = tuple(int(n) for n in array.shape)
    if len(shape) == 4 and shape[0] != 1:
        raise VolumeError(f"expected labels, one number per voxel; found the {shape[0]} channels of an image")
    geometry = npy_geometry(shape[1:] if len(shape) == 4 else shape, spacing_mm, slice_axis)
    found: NDArray[Any] = np.zeros((1, 1, 1), array.dtype)
    if voxels:
        found = np.asarray(array[...]).reshape(geometry.array_shape)
        if found.dtype.kind == "i":
            found[found == OUTSIDE] = 0
        found = found.transpose(2, 1, 0)
    return Stored(Header(geometry, np.dtype(array.dtype)), found)
