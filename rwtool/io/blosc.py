"""``.b2nd`` files: arrays in compressed pieces, as nnU-Net writes them; in its order of axes, with no spacing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rwtool.blocks import SLAB_VOXELS, blocks
from rwtool.errors import RwtoolError, VolumeError
from rwtool.io.arrays import npy_geometry
from rwtool.io.volume import Header, Stored

_BLOCK_SIDE = 64  # voxels along y and x that are unpacked together

OUTSIDE = -1
"""What nnU-Net writes where image and label are 0; it trains on it as background."""

_MARK = b"\x9e\xa8b2frame\0"  # with which the header of a frame begins
_LAYERS = 92  # byte of the header at which the number of its layers stands, and then their names


def check_blosc(error: type[RwtoolError] = VolumeError) -> None:
    """Refuse to go on without blosc2, by this error."""
    try:
        import blosc2  # noqa: F401
    except ModuleNotFoundError as missing:
        raise error("an .b2nd file needs blosc2, which is not installed; run pip install 'rwtool[nnunet]'") from missing


def open_array(path: Path) -> Any:
    """The array of a file, whose pieces are read when they are asked for; it has a shape and a dtype.

    Raises
    ------
    VolumeError
        blosc2 is not installed, or the file is none of its arrays: neither an expression nor a function, which blosc2
        would compute, nor a link to other files, which it would follow.
    """
    check_blosc()
    import blosc2

    if (layers := _layers(path)) != [b"b2nd"]:
        named = ", ".join(ascii(layer)[2:-1] for layer in layers) or "no array"
        raise VolumeError(f"it holds {named}; expected an array (b2nd) alone, as nnU-Net's preprocessing writes it")
    try:
        array = blosc2.open(urlpath=str(path), mode="r")
    except Exception as error:  # of a damaged file: RuntimeError, ValueError, and others
        raise VolumeError(f"it cannot be read as an array of blosc2: {error}; make it again") from error
    if not isinstance(array, blosc2.NDArray):
        raise VolumeError(f"it holds a {type(array).__name__}; expected an array, as nnU-Net's preprocessing writes it")
    if not _is_whole(array):
        raise VolumeError(
            f"its shape {tuple(array.shape)} is not that of the {array.schunk.nbytes:,} bytes that it holds; it is "
            "damaged; make it again"
        )
    return array


def new_array(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    """Make a file to be filled slab by slab along z, channel after channel; what is put in is there at once.

    LZ4 with shuffled bytes, in one thread: with more, the file would have other bytes.

    Parameters
    ----------
    path : Path
    shape : (Z, Y, X) or (K, Z, Y, X)
    dtype : numpy dtype
    """
    check_blosc()
    import blosc2

    slab = next(blocks(shape[-3:], SLAB_VOXELS, axis=0))  # in one piece, that it is compressed once
    chunk = tuple(part.stop for part in slab)
    block = (chunk[0], *(min(n, _BLOCK_SIDE) for n in chunk[1:]))
    ones = (1,) * (len(shape) - 3)
    packing = blosc2.CParams(
        codec=blosc2.Codec.LZ4, clevel=5, nthreads=1, filters=[blosc2.Filter.SHUFFLE], filters_meta=[0]
    )
    return blosc2.empty(
        shape, dtype=dtype, urlpath=str(path), mode="w", chunks=ones + chunk, blocks=ones + block, cparams=packing
    )


def _is_whole(array: Any) -> bool:
    """Whether the pieces of an array are those that its shape asks for: blosc2 makes up what is missing."""
    held, itemsize = array.schunk, np.dtype(array.dtype).itemsize
    if min((*array.chunks, *array.blocks), default=1) < 1:
        return False
    padded = (-(-chunk // block) * block for chunk, block in zip(array.chunks, array.blocks, strict=True))
    pieces = (-(-size // chunk) for size, chunk in zip(array.shape, array.chunks, strict=True))
    found = (held.blocksize, held.chunksize, held.nchunks)
    return found == (math.prod(array.blocks) * itemsize, math.prod(padded) * itemsize, math.prod(pieces))


def _layers(path: Path) -> list[bytes]:
    """Names of what the header of a frame says that it is; empty where it is no frame."""
    with path.open("rb") as stream:
        head = stream.read(1 << 12)
    names: list[bytes] = []
    if not head.startswith(_MARK):
        return names
    at = _LAYERS + 2
    for _ in range(int.from_bytes(head[_LAYERS:at], "big")):
        size = head[at] & 31 if at < len(head) else 0
        names.append(head[at + 1 : at + 1 + size])
        at += size + 6
    return names


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
