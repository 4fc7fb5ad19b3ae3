"""Volumes into files, whole or piece by piece: NIfTI and arrays by hand, other formats through SimpleITK."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import numpy as np
from isal import igzip
from numpy.typing import DTypeLike, NDArray

from rwtool.errors import UsageError, VolumeError
from rwtool.files import atomic, naming
from rwtool.io.blosc import new_array
from rwtool.io.geometry import Geometry
from rwtool.io.itk import write_sitk
from rwtool.io.names import BARE_SUFFIXES, NIFTI_SUFFIXES, SUFFIXES, split_name
from rwtool.io.nifti import nifti_header
from rwtool.io.volume import Volume

_FLAT_SUFFIXES = (".png", ".bmp", ".jpg", ".jpeg")
_GZIP_LEVEL = 1
_THREADED = 1 << 24  # bytes from which threads write a gzip file; its bytes are the same for any number of them


def write(path: str | Path, volume: Volume) -> None:
    """Write a volume on its own grid, in the format that the suffix names.

    The file appears under its name only when it is whole. A NIfTI header that the volume came with is kept:
    affine, sform and qform codes, units.

    Parameters
    ----------
    path : path
        ``.nii.gz``, ``.nii``, ``.npy`` (the array alone, without its grid) or any suffix that SimpleITK writes.
    volume : Volume

    Raises
    ------
    VolumeError
        If the format cannot hold the volume, or the file cannot be written.
    UsageError
        If no format has that suffix.
    """
    path = Path(path)
    suffix = split_name(path)[1]
    if not suffix:
        raise UsageError(f"{path}: no format has this suffix; expected one of {', '.join(SUFFIXES)}")
    array = volume.array.view(np.uint8) if volume.array.dtype == bool else volume.array
    if array.shape != volume.geometry.array_shape:
        raise VolumeError(
            f"{path}: the array's shape is {array.shape}, its grid's {volume.geometry.array_shape}; expected the same"
        )
    if suffix in NIFTI_SUFFIXES or suffix == ".npy":
        with create(path, volume.geometry, array.dtype) as put:
            put(array)
        return
    if suffix in _FLAT_SUFFIXES and volume.geometry.shape[2] != 1:
        raise VolumeError(
            f"{path}: {suffix} holds one slice, this volume has {volume.geometry.shape[2]} along its last file axis; "
            "choose .nii.gz, .mha or .nrrd"
        )
    with atomic(path, parts=True) as temporary, naming(path, OSError, RuntimeError, TypeError, doing="written"):
        write_sitk(temporary, array, volume.geometry)


def storage_axes(geometry: Geometry, suffix: str) -> tuple[int, ...]:
    """Axes of a ``(z, y, x)`` array from slowest to fastest in a file of that format.

    An array in this memory order is written without being turned.
    """
    if suffix in BARE_SUFFIXES:
        return (0, 1, 2)
    return tuple(geometry.axes.index(axis) for axis in (2, 1, 0))


@contextmanager
def create(
    path: Path,
    geometry: Geometry,
    dtype: DTypeLike,
    *,
    channels: int | None = None,
    slope: float = 1.0,
    threads: int = 1,
) -> Iterator[Callable[[NDArray[Any]], None]]:
    """Open a NIfTI, ``.npy`` or ``.b2nd`` file to be written piece by piece.

    Parameters
    ----------
    path : Path
        ``.nii.gz``, ``.nii``, ``.npy`` or ``.b2nd``; it gets its name when the block ends well.
    geometry : Geometry
        The grid.
    dtype : dtype
        Stored type. Floats in a signed integer type are stored as ``round(value / slope)``, NaN as its lowest value.
    channels : int, optional
        Makes a 4D file: the fourth axis of a NIfTI, the first of an array.
    slope : float
        The ``scl_slope`` of a NIfTI.
    threads : int
        To compress with.

    Yields
    ------
    callable
        Takes the next ``(z, y, x)`` block, a slab along the first of :func:`storage_axes`, channel after channel.

    Raises
    ------
    VolumeError
        If the file cannot be written, or a value does not fit its type.
    """
    suffix = split_name(path)[1]
    dtype = np.dtype(dtype)
    order = storage_axes(geometry, suffix)
    shape = (channels, *geometry.array_shape) if channels else geometry.array_shape
    written = 0

    with atomic(path, parts=suffix == ".b2nd") as temporary, _opened(temporary, path, shape, dtype, threads) as store:
        if suffix in NIFTI_SUFFIXES:
            nifti_header(path, geometry, dtype, channels, slope).write_to(store)

        def put(block: NDArray[Any]) -> None:
            nonlocal written
            with naming(path, OSError, RuntimeError, doing="written"):
                store.write(_in_type(block.transpose(order), dtype, slope).data.cast("B"))
            written += block.size

        yield put
        if written != math.prod(shape):
            raise RuntimeError(f"{path}: {written} of {math.prod(shape)} voxels were written")


@contextmanager
def _opened(path: Path, final: Path, shape: tuple[int, ...], dtype: np.dtype[Any], threads: int) -> Iterator[Any]:
    """A new file, to which the bytes of its voxels are written slab by slab."""
    suffix = split_name(final)[1]
    if suffix == ".b2nd":
        yield _Slabs(new_array(path, shape, dtype))
        return
    with path.open("wb") as raw:
        stream: Any = raw
        if suffix == ".nii.gz" and math.prod(shape) * dtype.itemsize < _THREADED:
            stream = igzip.IGzipFile("", "wb", _GZIP_LEVEL, raw, mtime=0)
        elif suffix == ".nii.gz":
            stream = _ThreadedGzip(raw, threads)
        elif suffix == ".npy":
            description = {"descr": dtype.str, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(stream, description)
        try:
            yield stream
        finally:
            with naming(final, OSError, doing="written"):
                if stream is not raw:
                    stream.close()
                raw.flush()


class _Slabs:
    """An array on disk, which slabs along z fill one after another."""

    def __init__(self, array: Any) -> None:
        self._array = array
        self._planes = 0

    def write(self, data: Any) -> None:
        """Put the next slab."""
        *channels, depth, height, width = self._array.shape
        slab = np.frombuffer(data, self._array.dtype).reshape(-1, height, width)
        k, z = divmod(self._planes, depth)
        where = slice(z, z + len(slab))
        self._array[(k, where) if channels else where] = slab
        self._planes += len(slab)


class _ThreadedGzip:
    """A gzip file that threads of ISA-L write.

    A failure to write is raised where :meth:`write` is called: in its threads, isal before 1.9 would wait for ever.
    """

    def __init__(self, raw: IO[bytes], threads: int) -> None:
        from isal import igzip_threaded

        self._raw = raw
        self._error: OSError | None = None
        to = SimpleNamespace(write=self._put, flush=lambda: None)
        self._stream = igzip_threaded.open(to, "wb", _GZIP_LEVEL, threads=threads)

    def _put(self, packed: bytes) -> None:
        try:
            if self._error is None:
                self._raw.write(packed)
        except OSError as error:
            self._error = error

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def write(self, data: Any) -> None:
        """Give bytes to the threads."""
        self._check()
        self._stream.write(data)

    def close(self) -> None:
        """Wait for the threads."""
        self._stream.close()
        self._check()


def _in_type(block: NDArray[Any], dtype: np.dtype[Any], slope: float) -> NDArray[Any]:
    """A block as it is stored, in C order."""
    if dtype.kind == "i" and block.dtype.kind == "f":
        numbers = np.rint(block / np.float32(slope))
        missing = np.isnan(numbers)
        numbers[missing] = 0
        largest = float(max(numbers.max(initial=0), -numbers.min(initial=0)))
        if largest > np.iinfo(dtype).max:
            raise VolumeError(
                f"the value {largest * slope:g} does not fit {dtype} with scl_slope {slope:g}; use float32"
            )
        stored = np.ascontiguousarray(numbers, dtype=dtype)
        stored[missing] = np.iinfo(dtype).min
        return stored
    try:
        with np.errstate(over="raise"):
            return np.ascontiguousarray(block, dtype=dtype)
    except FloatingPointError:
        raise VolumeError(f"the value {np.abs(block).max():g} does not fit {dtype}; use float32") from None
