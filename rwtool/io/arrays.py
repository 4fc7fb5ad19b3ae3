"""``.npy`` files: arrays that are ``(z, y, x)`` already and carry no spacing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rwtool.errors import UsageError, VolumeError
from rwtool.io.geometry import Geometry, settle_spacing, unplaced
from rwtool.io.names import first_bytes
from rwtool.io.volume import Header, Stored, one_volume


def map_npy(path: Path) -> np.memmap[Any, Any]:
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
    geometry = npy_geometry(array.shape, spacing_mm, slice_axis)
    after = path.stat().st_size - array.offset - array.nbytes
    notes = (f"the file holds {after:,} bytes more than its header says; they are left out",) if after else ()
    return Stored(Header(geometry, array.dtype, notes), array.reshape(geometry.array_shape).transpose(2, 1, 0))


def npy_geometry(array_shape: tuple[int, ...], spacing_mm: Sequence[float] | None, slice_axis: int | None) -> Geometry:
    """Grid of an array that is (z, y, x), or (y, x), already; as a file, x is its fastest axis i."""
    spacing = settle_spacing((), spacing_mm, (), what="an .npy file")
    assert spacing is not None
    if slice_axis is not None:
        raise UsageError("slice_axis= is not for .npy files, whose arrays are (z, y, x) already")
    shape = array_shape if len(array_shape) != 2 else (1, *array_shape)
    while len(shape) > 3 and 1 in (shape[0], shape[-1]):  # a singleton axis first or last is no axis
        shape = shape[:-1] if shape[-1] == 1 else shape[1:]
    z, y, x = one_volume(shape)
    return unplaced(spacing, (x, y, z), (2, 1, 0), (x, y, z))
