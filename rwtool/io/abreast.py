"""The channels of a 4D file abreast: the same piece of all of them, one piece after the other.

A NIfTI file holds channel after channel, so all values of a voxel are together only for one who reads in as many places
as there are channels. In a gzip stream nobody can jump; but the state of a decompressor can be copied at the start of
each channel, on a first way through the file. Pieces are read, not mapped: mapped pages count as memory in use.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rwtool.blocks import Block, blocks
from rwtool.errors import VolumeError
from rwtool.files import naming
from rwtool.io.arrays import map_npy, npy_geometry
from rwtool.io.blosc import open_array
from rwtool.io.geometry import Geometry
from rwtool.io.names import READ_ERRORS, gzipped, is_bare_array, split_name
from rwtool.io.nifti import describe_nifti, nifti_stream

_VALUES = 1 << 17  # of all channels, that are looked at together: they stay in the cache
_LEAST = 1 << 14  # voxels of a piece
_CHUNK = 1 << 18  # compressed bytes

Piece = tuple[Block, list[NDArray[np.float32]]]


class Abreast:
    """A 4D file whose channels are read side by side.

    Parameters
    ----------
    path : path
        NIfTI with channels as the fourth axis, or ``.npy`` and ``.b2nd`` of shape ``(K, Z, Y, X)``; a 3D file is one
        channel.
    spacing_mm, slice_axis
        As for :func:`rwtool.io.formats.read_channels`.

    Attributes
    ----------
    geometry : Geometry
    channels : int
    axes : (3,) int
        Of ``(z, y, x)``, from the slowest in the file to the fastest.

    Raises
    ------
    VolumeError, GeometryError, UsageError
        As for :func:`rwtool.io.formats.read_channels`; of the voxels, as they are read.
    """

    def __init__(
        self, path: str | Path, *, spacing_mm: Sequence[float] | None = None, slice_axis: int | None = None
    ) -> None:
        self._path = path = Path(path)
        self.geometry: Geometry
        if not path.is_file():
            raise VolumeError(f"{path}: no such file")
        with naming(path, *READ_ERRORS):
            self._slope, self._inter = 1.0, 0.0
            if is_bare_array(path):
                array = map_npy(path) if split_name(path)[1] == ".npy" else open_array(path)
                self.channels = array.shape[0] if array.ndim == 4 else 1
                self.geometry = npy_geometry(tuple(array.shape[array.ndim == 4 :]), spacing_mm, slice_axis)
                self.axes: tuple[int, ...] = (0, 1, 2)
                self._dtype, self._lowest_is_nan = np.dtype(array.dtype), False
                self._array = array
                self._offset = array.offset if isinstance(array, np.memmap) and array.flags.c_contiguous else None
                return
            with nifti_stream(path) as stream:
                found = describe_nifti(path, stream, slice_axis, many=True, spacing_mm=spacing_mm)
            self.channels, self.geometry, self._offset = found.channels, found.header.geometry, found.offset
            self.axes = tuple(self.geometry.axes.index(axis) for axis in (2, 1, 0))
            self._dtype, self._slope, self._inter = found.header.dtype, found.slope, found.inter
            self._lowest_is_nan = self._dtype.kind == "i"

    def pieces(self, width: int | None = None) -> Iterator[Piece]:
        """Give piece after piece, in the order of the file: where, along `axes`, and all channels there, as float32.

        Parameters
        ----------
        width : int, optional
            How many arrays of the size of a piece will be made of each; by default as many as there are channels.

        Yields
        ------
        where : tuple of slices
        channels : list of float32 arrays
            The lowest value of a signed integer type is NaN, as in :func:`rwtool.io.formats.read_channels`.
        """
        shape = tuple(self.geometry.array_shape[axis] for axis in self.axes)
        with naming(self._path, *READ_ERRORS), ExitStack() as stack:
            reader = self._open(stack, shape)
            first = 0
            for where in blocks(shape, max(_LEAST, _VALUES // (width or self.channels))):
                sides = tuple(side.stop - side.start for side in where)
                size = math.prod(sides)
                stored = (reader.read(k, where, first, size) for k in range(self.channels))
                yield where, [self._values(one).reshape(sides) for one in stored]
                first += size

    def _open(self, stack: ExitStack, shape: tuple[int, ...]) -> _Reader:
        if self._offset is None:
            return _Array(self._array)
        if not is_bare_array(self._path) and gzipped(self._path):
            file = stack.enter_context(self._path.open("rb"))
            return _Gzip(file, self._dtype, self._offset, self.channels, math.prod(shape))
        return _Plain(stack.enter_context(self._path.open("rb")), self._dtype, self._offset, math.prod(shape))

    def _values(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        values = stored.astype(np.float32)
        if self._lowest_is_nan:
            values[stored == np.iinfo(stored.dtype).min] = np.nan
        if (self._slope, self._inter) != (1.0, 0.0):
            values *= np.float32(self._slope)
            values += np.float32(self._inter)
        return values


class _Reader(Protocol):
    """Gives the stored values of a piece of a channel; pieces are asked for in their order."""

    def read(self, channel: int, where: Block, first: int, size: int) -> NDArray[Any]: ...


class _Array:
    """An array that is read by its indices."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def read(self, channel: int, where: Block, first: int, size: int) -> NDArray[Any]:
        return np.asarray(self._array[(channel, *where)[-self._array.ndim :]])


class _Plain:
    """A file that holds the values as they are."""

    def __init__(self, file: IO[bytes], dtype: np.dtype[Any], offset: int, voxels: int) -> None:
        self._file, self._dtype, self._offset, self._voxels = file, dtype, offset, voxels

    def read(self, channel: int, where: Block, first: int, size: int) -> NDArray[Any]:
        at = (channel * self._voxels + first) * self._dtype.itemsize
        self._file.seek(self._offset + at)
        found = self._file.read(size * self._dtype.itemsize)
        if len(found) < size * self._dtype.itemsize:
            raise VolumeError(f"its voxels end after {at + len(found):,} bytes, before its header says")
        return np.frombuffer(found, self._dtype)


class _Gzip:
    """A compressed file, read in as many places as it has channels."""

    def __init__(self, file: IO[bytes], dtype: np.dtype[Any], offset: int, channels: int, voxels: int) -> None:
        self._dtype, self._read, self._claimed = dtype, 0, channels * voxels * dtype.itemsize
        self._voxels = voxels
        stream = _Inflation(file)
        stream.skip(offset)
        self._streams = []
        for _ in range(channels - 1):
            self._streams.append(stream.copy())
            self._read += stream.skip(voxels * dtype.itemsize)
        self._streams.append(stream)

    def read(self, channel: int, where: Block, first: int, size: int) -> NDArray[Any]:
        stream = self._streams[channel]
        found = stream.read(size * self._dtype.itemsize)
        last = channel == len(self._streams) - 1
        self._read += len(found) if last else 0
        if len(found) < size * self._dtype.itemsize:
            raise VolumeError(
                f"the header claims {self._claimed:,} bytes of voxels; the file ends after {self._read:,}"
            )
        if last and first + size == self._voxels:  # gzip compares its checksum at the end of the stream
            stream.skip(None)
        return np.frombuffer(found, self._dtype)


class _Inflation:
    """A gzip stream that can be copied where it stands."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._at, self._pending = file, 0, b""
        self._engine = zlib.decompressobj(wbits=31)

    def copy(self) -> _Inflation:
        other = _Inflation(self._file)
        other._at, other._pending, other._engine = self._at, self._pending, self._engine.copy()
        return other

    def read(self, size: int) -> bytearray:
        """So many bytes; fewer where the stream ends."""
        found = bytearray()
        while len(found) < size and (part := self._some(size - len(found))):
            found += part
        return found

    def skip(self, size: int | None) -> int:
        """Pass over so many bytes, or all; how many there were."""
        passed = 0
        while (size is None or passed < size) and (
            part := self._some(_CHUNK if size is None else min(size - passed, _CHUNK))
        ):
            passed += len(part)
        return passed

    def _some(self, most: int) -> bytes:
        """Some bytes, none only at the end."""
        while True:
            if self._engine.eof:
                self._pending = self._engine.unused_data.lstrip(b"\0") or self._next().lstrip(b"\0")
                if not self._pending:
                    return b""
                self._engine = zlib.decompressobj(wbits=31)  # a file may be several streams, one after the other
            data = self._pending or self._next()
            if not data:
                raise EOFError("the compressed file ends before its end-of-stream marker")
            found = self._engine.decompress(data, most)
            self._pending = self._engine.unconsumed_tail
            if found:
                return found

    def _next(self) -> bytes:
        self._file.seek(self._at)
        data = self._file.read(_CHUNK)
        self._at += len(data)
        return data
