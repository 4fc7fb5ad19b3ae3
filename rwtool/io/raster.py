"""Voxels as MetaImage and NRRD store them: plain numbers, raw, packed or as text, in one file or several."""

from __future__ import annotations

import bz2
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from isal import igzip, isal_zlib
from numpy.typing import NDArray

from rwtool.errors import VolumeError
from rwtool.io.names import BZIP2_MOST, DEFLATE_MOST, check_after, check_size
from rwtool.io.placement import lps_to_ras, of_space, place
from rwtool.io.volume import Header, Stored, one_volume

Encoding = Literal["raw", "zlib", "gzip", "bzip2", "text", "hex"]
_CHUNK = 1 << 20


@dataclass(frozen=True, eq=False)
class Raster:
    """What a header says of its voxels.

    Attributes
    ----------
    files : list of Path
        That hold them, one after another.
    dtype : numpy dtype
        As stored, byte order included.
    file_shape : tuple of int
        From the fastest axis to the slowest, channels included.
    channel_axis : int or None
        The axis of `file_shape` that is none of space.
    encoding : str
    offset : int
        Bytes before the voxels of each file; -1: they end where the file ends.
    skip_lines, skip_bytes : int
        What else comes before them: lines of the file, and bytes of what was unpacked.
    affine : (4, 4) float array
        From the index along the axes of space to LPS mm; a step that the header does not know is NaN.
    placed : bool
        Whether the header states position and orientation.
    notes : tuple of str
    """

    files: list[Path]
    dtype: np.dtype[Any]
    file_shape: tuple[int, ...]
    channel_axis: int | None
    encoding: Encoding
    affine: NDArray[np.float64]
    placed: bool
    offset: int = 0
    skip_lines: int = 0
    skip_bytes: int = 0
    notes: tuple[str, ...] = ()

    @property
    def claimed(self) -> int:
        """Bytes of the voxels, unpacked."""
        return math.prod(self.file_shape) * self.dtype.itemsize


def open_raster(
    raster: Raster, slice_axis: int | None, voxels: bool = True, spacing_mm: Sequence[float] | None = None
) -> Stored:
    """Read a raster, channels last where there are any; without `voxels`, its header alone."""
    channel = raster.channel_axis
    spatial = tuple(n for axis, n in enumerate(raster.file_shape) if axis != channel)
    shape = one_volume(of_space(spatial))
    geometry, notes = place(
        lps_to_ras(raster.affine),
        shape,
        spatial if channel is not None else raster.file_shape,
        slice_axis,
        spacing_mm,
        placed=raster.placed,
        notes=raster.notes,
    )
    there = sum(part.stat().st_size for part in raster.files)
    least = math.prod(raster.file_shape) if raster.encoding == "text" else raster.claimed
    packed = raster.encoding in ("zlib", "gzip", "bzip2")
    expands = BZIP2_MOST if raster.encoding == "bzip2" else DEFLATE_MOST
    check_size(there - max(raster.offset, 0), least, packed=packed, expands=expands)
    channels = 1 if channel is None else raster.file_shape[channel]
    header = Header(geometry, raster.dtype.newbyteorder("="), notes, channels)
    if not voxels:
        return Stored(header, np.empty(0))
    array, after = _numbers(raster)
    if after > 0:
        notes += (f"the file holds {after:,} bytes more than its header says; they are left out",)
    array = array.astype(header.dtype, copy=False).reshape(raster.file_shape, order="F")
    array = array if channel is None else np.moveaxis(array, channel, -1)
    array = array.reshape(shape if channel is None else (*shape, channels), order="F")
    return Stored(replace(header, notes=notes), array if channels > 1 or channel is None else array[..., 0])


def _numbers(raster: Raster) -> tuple[NDArray[Any], int]:
    """All numbers of a raster, from the fastest axis to the slowest, and how many bytes follow the last."""
    n = math.prod(raster.file_shape)
    if raster.encoding == "text":
        words = b" ".join(b"".join(_blocks(raster, part)) for part in raster.files).split()
        if len(words) < n:
            _refuse(n, len(words), "numbers")
        kind = np.float64 if raster.dtype.kind == "f" else raster.dtype
        return np.array(words[:n]).astype(kind), 0
    if raster.encoding == "raw" and len(raster.files) == 1 and not raster.skip_lines:
        size = raster.files[0].stat().st_size
        from_end = raster.offset < 0 or raster.skip_bytes < 0
        start = size - raster.claimed if from_end else raster.offset + raster.skip_bytes
        if start < 0 or start + raster.claimed > size:
            _refuse(raster.claimed, size - max(start, 0))
        return np.memmap(raster.files[0], raster.dtype, "r", start, (n,)), size - start - raster.claimed
    found, after = bytearray(), 0
    each, rest = divmod(raster.claimed, len(raster.files))
    if rest:
        raise VolumeError(
            f"the header names {len(raster.files)} files for {raster.claimed:,} bytes of voxels, not as many for each"
        )
    for part in raster.files:
        here, more = _slab(raster, part, each)
        found += here
        after += more
    if len(found) < raster.claimed:
        _refuse(raster.claimed, len(found))
    return np.frombuffer(found, raster.dtype), after


def _slab(raster: Raster, part: Path, size: int) -> tuple[bytearray, int]:
    """The bytes of voxels of one file, and how many follow them."""
    here, total = bytearray(), 0
    from_end = raster.skip_bytes < 0 or (raster.offset < 0 and raster.encoding == "raw")
    skip = 0 if from_end else raster.skip_bytes
    for block in _blocks(raster, part):  # to its end, where a packed stream has its checksum
        total += len(block)
        check_after(total - skip - size)
        here += block if from_end else block[: max(skip + size - len(here), 0)]
        if from_end and len(here) > size:
            del here[: len(here) - size]
    return here[skip:], 0 if from_end else max(total - skip - size, 0)


def _blocks(raster: Raster, part: Path) -> Iterator[bytes]:
    """The bytes of a file's voxels, unpacked, with what is to be skipped of them."""
    with part.open("rb") as stream:
        stream.seek(max(raster.offset, 0))
        for _ in range(raster.skip_lines):
            stream.readline(_CHUNK)
        if raster.encoding == "gzip":
            with igzip.IGzipFile(fileobj=stream, mode="rb") as unpacked:
                yield from iter(lambda: unpacked.read(_CHUNK), b"")
        elif raster.encoding == "bzip2":
            with bz2.BZ2File(stream) as unpacked:
                yield from iter(lambda: unpacked.read(_CHUNK), b"")
        elif raster.encoding == "zlib":
            yield from _inflated(stream)
        elif raster.encoding == "hex":
            yield bytes.fromhex("".join(stream.read().decode("ascii").split()))
        else:
            yield from iter(lambda: stream.read(_CHUNK), b"")


def _inflated(stream: IO[bytes]) -> Iterator[bytes]:
    """A zlib or gzip stream, to its end and checksum, however long the header says that it is."""
    block = stream.read(1 << 16)
    unpack = isal_zlib.decompressobj(31 if block[:2] == b"\x1f\x8b" else 15)
    while block and not unpack.eof:
        yield unpack.decompress(block)
        block = stream.read(1 << 16)
    if not unpack.eof:
        raise EOFError("its compressed voxels end too early; copy it again from its source")


def _refuse(claimed: int, found: int, what: str = "bytes") -> None:
    raise VolumeError(
        f"the header claims {claimed:,} {what} of voxels; the file ends after {found:,}; copy it again from its source"
    )
