"""``.npy`` files: arrays that are ``(z, y, x)`` already and carry no spacing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rwtool.errors import UsageError, VolumeError
from rwtool.io.geometry import Geometry
from rwtool.io.names import first_bytes, split_name
from rwtool.io.volume import Header, Stored, one_volume


def map_npy(path: Path) -> NDArray[Any]:
    """The array of an .npy file, in place; unlike np.load it never unpickles and never unzips."""
    if first_bytes(path) != np.lib.format.MAGIC_PREFIX[:4]:
        raise VolumeError("this is not an .npy file: its first bytes are not those of one; save it with numpy.save")
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # of numpy's header parser: ValueError, SyntaxError, TokenError, ...
        if "Python objects" in str(error):
            raise VolumeError("it holds Python objects; expected numbers; save it as an array of integers") from error
        reason = "its header claims more than the file holds" if "mmap length" in str(error) else str(error)
        raise VolumeError(f"{reason}; it is truncated or damaged; save it again") from error


def open_npy(path: Path, spacing_mm: Sequence[float] | None, slice_axis: int | None) -> Stored:
    """Read an ``.npy`` file."""
    array = map_npy(path)
    geometry = npy_geometry(path, array.shape, spacing_mm, slice_axis)
    return Stored(Header(geometry, array.dtype), array.reshape(geometry.array_shape).transpose(2, 1, 0))


def npy_geometry(
    path: Path, array_shape: tuple[int, ...], spacing_mm: Sequence[float] | None, slice_axis: int | None
) -> Geometry:
    """Grid of an array that is (z, y, x), or (y, x), already; as a file, x is its fastest axis i."""
    spacing = given_spacing(path, spacing_mm)
    if slice_axis is not None:
        raise UsageError(f"{path}: slice_axis is not for .npy files, whose arrays are (z, y, x) already")
    shape = one_volume(array_shape if len(array_shape) != 2 else (1, *array_shape))
    return Geometry(np.diag([*spacing[::-1], 1.0]), shape[::-1], (2, 1, 0), shape[::-1])


def given_spacing(path: Path, spacing_mm: Sequence[float] | None) -> list[float]:
    """The spacing of a file that carries none: three positive numbers, or an error."""
    if spacing_mm is None:
        raise UsageError(f"{path}: an {split_name(path)[1]} file carries no spacing; give spacing_mm=(z, y, x)")
    spacing = [float(value) for value in spacing_mm]
    if len(spacing) != 3 or not all(0 < value < math.inf for value in spacing):
        raise UsageError(f"a spacing is three positive numbers (z, y, x) in mm; found {tuple(spacing_mm)}")
    return spacing
