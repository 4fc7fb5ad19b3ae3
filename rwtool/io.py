"""Volumes in and out of files: the only place where axes turn, units are settled and bytes are checked.

NIfTI (``.nii``, ``.nii.gz``) is read and written through nibabel, its gzip stream through ISA-L; ``.npy``
through numpy with a spacing that the caller names; everything else through SimpleITK.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import nibabel as nib
import numpy as np
from isal import igzip, isal_zlib
from nibabel.imageglobals import LoggingOutputSuppressor
from nibabel.spatialimages import HeaderDataError
from nibabel.volumeutils import native_code

from rwtool.errors import UsageError, VolumeError
from rwtool.geometry import Geometry, axes_for, check_affine, column_norms
from rwtool.labels import label_counts, round_labels, to_classes

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

NIFTI_SUFFIXES = (".nii", ".nii.gz")
SITK_SUFFIXES = (
    ".mha", ".mhd", ".nrrd", ".nhdr", ".img", ".hdr", ".img.gz", ".gipl", ".gipl.gz", ".vtk",
    ".mnc", ".tif", ".tiff", ".png", ".bmp", ".jpg", ".jpeg", ".dcm",
)  # fmt: skip
SUFFIXES = (*NIFTI_SUFFIXES, *SITK_SUFFIXES, ".npy")

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_UNITS = {1: ("metres", 1000.0), 3: ("microns", 0.001)}  # NIfTI xyzt_units that are not mm
_CHUNK = 1 << 22
_DEFLATE_MOST = 1032  # no deflate stream expands further
_GZIP_LEVEL = 1
_READ_ERRORS: tuple[type[Exception], ...] = (
    OSError, EOFError, ValueError, OverflowError, KeyError, RuntimeError, MemoryError,
    HeaderDataError, zlib.error, cast("type[Exception]", isal_zlib.IsalError),
)  # fmt: skip


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
    """

    array: NDArray[Any]
    spacing_mm: tuple[float, float, float]
    geometry: Geometry
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Header:
    """What a file says of itself before its voxels are read.

    Attributes
    ----------
    geometry : Geometry
    dtype : numpy dtype
        Of the voxels as stored.
    notes : tuple of str
    """

    geometry: Geometry
    dtype: np.dtype[Any]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Stored:
    """A header, the voxels with the file's axes ``(i, j, k, ...)``, and their scaling."""

    header: Header
    array: NDArray[Any]
    slope: float = 1.0
    inter: float = 0.0


def read_header(
    path: str | Path, *, spacing_mm: Sequence[float] | None = None, slice_axis: int | None = None
) -> Header:
    """Read what a file says of itself, without its voxels.

    Parameters, and errors raised, are those of :func:`read_image`.
    """
    return _open(Path(path), spacing_mm, slice_axis, voxels=False).header


def read_image(path: str | Path, *, spacing_mm: Sequence[float] | None = None, slice_axis: int | None = None) -> Volume:
    """Read an image.

    Parameters
    ----------
    path : path
        NIfTI, ``.npy`` or any file that SimpleITK reads.
    spacing_mm : (3,) float, optional
        Along ``(z, y, x)``; needed for ``.npy``, which carries none, and refused for other files.
    slice_axis : int, optional
        The file axis (0, 1 or 2) that is z. By default :func:`rwtool.geometry.find_slice_axis` finds it. Refused for
        ``.npy``, which is ``(z, y, x)`` already.

    Returns
    -------
    Volume
        ``array`` is ``(Z, Y, X)`` float32, with the file's scaling applied.

    Raises
    ------
    VolumeError
        If the file cannot be read, is truncated or is not one 3D volume.
    GeometryError
        If its axes are sheared or have no size.
    UsageError
        If a spacing is missing or out of place.
    """
    path = Path(path)
    stored = _open(path, spacing_mm, slice_axis)
    if stored.array.dtype.kind not in "buif":
        raise VolumeError(f"{path}: expected one number per voxel; found the type {stored.array.dtype}")
    array = stored.array.astype(np.float32)
    if (stored.slope, stored.inter) != (1.0, 0.0):
        array *= np.float32(stored.slope)
        array += np.float32(stored.inter)
    return _volume(stored.header, array)


def read_labels(
    path: str | Path,
    *,
    classes: Sequence[int] | None = None,
    ignore: int | None = None,
    spacing_mm: Sequence[float] | None = None,
    slice_axis: int | None = None,
) -> Volume:
    """Read a label file.

    Parameters
    ----------
    path : path
        As for :func:`read_image`.
    classes : sequence of K int, optional
        The file's value of each class, ascending, 0 first. Given, the array holds class indices 0..K-1; without, it
        holds the file's own values.
    ignore : int, optional
        The file's value for voxels without a class; they become the largest value of the array's type
        (:func:`rwtool.labels.ignored_value`).
    spacing_mm, slice_axis
        As for :func:`read_image`.

    Returns
    -------
    Volume
        ``array`` is ``(Z, Y, X)`` of an unsigned integer type.

    Raises
    ------
    VolumeError
        Also at a fraction, NaN or negative value, and at a value outside `classes`; the message says where.
    GeometryError, UsageError
        As for :func:`read_image`.
    """
    path = Path(path)
    stored = _open(path, spacing_mm, slice_axis)
    with _naming(path):
        array = round_labels(stored.array, slope=stored.slope, inter=stored.inter, ignore=ignore)
        if classes is not None:
            array = to_classes(array, classes, ignored=ignore is not None)
    return _volume(stored.header, array)


def read_label_values(path: str | Path, *, ignore: int | None = None, **where: Any) -> dict[int, int]:
    """Count the voxels of each value of a label file, `ignore` left out.

    Parameters are those of :func:`read_labels`; returns value to voxels, ascending.
    """
    return label_counts(read_labels(path, ignore=ignore, **where).array, ignored=ignore is not None)


def read_channels(
    path: str | Path, *, spacing_mm: Sequence[float] | None = None, slice_axis: int | None = None
) -> Iterator[Volume]:
    """Read a 4D file channel by channel, one at a time in memory.

    Parameters
    ----------
    path : path
        NIfTI with channels as the fourth axis, or ``.npy`` of shape ``(K, Z, Y, X)``; a 3D file is one channel.
    spacing_mm, slice_axis
        As for :func:`read_image`.

    Yields
    ------
    Volume
        ``array`` is ``(Z, Y, X)`` float32, scaled as the file says; the lowest value of an integer type is NaN.

    Raises
    ------
    VolumeError, GeometryError, UsageError
        As for :func:`read_image`.
    """
    path = Path(path)
    if not path.is_file():
        raise VolumeError(f"{path}: no such file")
    with _naming(path, *_READ_ERRORS):
        if split_name(path)[1] == ".npy":
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            for channel in array if array.ndim == 4 else array[np.newaxis]:
                shape = _one_volume(channel.shape)
                geometry = _npy_geometry(path, shape, spacing_mm, slice_axis)
                yield Volume(channel.astype(np.float32), geometry.spacing_mm, geometry)
            return
        with _nifti_stream(path) as stream:
            found = _describe_nifti(path, stream, slice_axis, many=True)
            for k in range(found.channels):
                stored = found.read(stream, k, last=k == found.channels - 1)
                values = stored.astype(np.float32)
                if stored.dtype.kind == "i":
                    values[stored == np.iinfo(stored.dtype).min] = np.nan
                if (found.slope, found.inter) != (1.0, 0.0):
                    values = values * np.float32(found.slope) + np.float32(found.inter)
                yield _volume(found.header, values)


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
        If the format cannot hold the volume.
    """
    path = Path(path)
    suffix = split_name(path)[1]
    array = volume.array.view(np.uint8) if volume.array.dtype == bool else volume.array
    if suffix in NIFTI_SUFFIXES or suffix == ".npy":
        with create(path, volume.geometry, array.dtype) as put:
            put(array)
        return
    with atomic(path) as temporary, _naming(path, *_READ_ERRORS):
        _write_sitk(temporary, array, volume.geometry)


def split_name(path: str | Path) -> tuple[str, str]:
    """Split a file name into case name and suffix: ``a/heart_1.nii.gz`` gives ``("heart_1", ".nii.gz")``.

    The suffix is lower case; a name without a suffix that rwtool reads gives ``""`` for it.
    """
    name = Path(path).name
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)], suffix
    return name, ""


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file; of all its parts where header and voxels are separate files."""
    digest = hashlib.sha256()
    for part in _parts(Path(path)):
        with part.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


# --- writing ---


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Give a name to write to; what was written there gets its final name when the block ends well.

    Parameters
    ----------
    path : Path
        The final name. Its folder is made.

    Yields
    ------
    Path
        The same file name inside a hidden folder beside it, so that parts which name each other stay right.
    """
    workshop = path.parent / f".{path.name}.{os.getpid()}.tmp"
    workshop.mkdir(parents=True, exist_ok=True)
    try:
        yield workshop / path.name
        made = sorted(workshop.iterdir(), key=lambda part: part.name == path.name)  # the named file last
        for part in made:
            os.replace(part, path.parent / part.name)
    finally:
        shutil.rmtree(workshop, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed run of :func:`atomic` left in a folder."""
    for workshop in folder.glob(".*.tmp"):
        process = workshop.name.split(".")[-2]
        if process.isdigit() and not _alive(int(process)):
            shutil.rmtree(workshop, ignore_errors=True)


def storage_axes(geometry: Geometry, suffix: str) -> tuple[int, ...]:
    """Axes of a ``(z, y, x)`` array from slowest to fastest in a file of that format.

    An array in this memory order is written without being turned.
    """
    if suffix == ".npy":
        return (0, 1, 2)
    return tuple(geometry.axes.index(axis) for axis in (2, 1, 0))


@contextmanager
def create(
    path: Path, geometry: Geometry, dtype: DTypeLike, *, channels: int | None = None, slope: float = 1.0
) -> Iterator[Callable[[NDArray[Any]], None]]:
    """Open a NIfTI or ``.npy`` file to be written piece by piece.

    Parameters
    ----------
    path : Path
        ``.nii.gz``, ``.nii`` or ``.npy``; it gets its name when the block ends well.
    geometry : Geometry
        The grid.
    dtype : dtype
        Stored type. Floats in an integer type are stored as ``round(value / slope)``, NaN as its lowest value.
    channels : int, optional
        Makes a 4D file: the fourth axis of a NIfTI, the first of an ``.npy``.
    slope : float
        The ``scl_slope`` of a NIfTI.

    Yields
    ------
    callable
        Takes the next ``(z, y, x)`` block, a slab along the first of :func:`storage_axes`, channel after channel.
    """
    suffix = split_name(path)[1]
    dtype = np.dtype(dtype)
    order = storage_axes(geometry, suffix)
    expected = math.prod(geometry.array_shape) * (channels or 1)
    written = 0

    with atomic(path) as temporary, temporary.open("wb") as raw:
        stream: Any = raw
        if suffix == ".nii.gz":
            stream = igzip.IGzipFile("", "wb", _GZIP_LEVEL, raw, mtime=0)
        if suffix == ".npy":
            shape = (channels, *geometry.array_shape) if channels else geometry.array_shape
            description = {"descr": dtype.str, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(stream, description)
        else:
            header = _nifti_header(path, geometry, dtype, channels, slope)
            header.write_to(stream)

        def put(block: NDArray[Any]) -> None:
            nonlocal written
            stored = block.transpose(order)
            if dtype.kind == "i" and block.dtype.kind == "f":
                stored = np.nan_to_num(np.rint(stored / np.float32(slope)), nan=np.iinfo(dtype).min)
            stream.write(np.ascontiguousarray(stored, dtype=dtype).data.cast("B"))
            written += block.size

        yield put
        if written != expected:
            raise RuntimeError(f"{path}: {written} of {expected} voxels were written")
        if stream is not raw:
            stream.close()


def _nifti_header(path: Path, geometry: Geometry, dtype: np.dtype[Any], channels: int | None, slope: float) -> Any:
    if geometry.header is not None:
        header = geometry.header.copy()
        if header.endianness != native_code:
            header = header.as_byteswapped(native_code)
        for name in ("intent_code", "intent_p1", "intent_p2", "intent_p3", "cal_max", "cal_min"):
            header[name] = 0
        header["intent_name"] = b""
    else:
        header = nib.Nifti1Header()
        header.set_data_shape(geometry.shape)
        header.set_xyzt_units("mm")
        header.set_sform(geometry.affine_mm, code=1)
        header.set_qform(geometry.affine_mm, code=1)
    pixdim = header["pixdim"].copy()
    try:
        header.set_data_dtype(dtype)
        header.set_data_shape((*geometry.shape, channels) if channels else geometry.file_shape)
    except HeaderDataError as error:
        raise VolumeError(f"{path}: NIfTI cannot hold {dtype}: {error}; choose another type or format") from error
    pixdim[4:] = np.where(pixdim[4:] > 0, pixdim[4:], 1)
    pixdim[1:4] = np.where(pixdim[1:4] > 0, pixdim[1:4], 1)
    header["pixdim"] = pixdim
    header.set_slope_inter(slope, 0.0)
    header.extensions.clear()
    header["vox_offset"] = 0  # nibabel sets it as it writes
    return header


def to_sitk(array: NDArray[Any], geometry: Geometry) -> Any:
    """Make a SimpleITK image of a ``(z, y, x)`` array, with the axes of its file."""
    import SimpleITK as sitk

    stored = np.ascontiguousarray(geometry.to_file(array).transpose(2, 1, 0))
    affine = _LPS_TO_RAS @ geometry.affine_mm
    spacing = column_norms(affine)
    image = sitk.GetImageFromArray(stored)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    return image


def _write_sitk(path: Path, array: NDArray[Any], geometry: Geometry) -> None:
    import SimpleITK as sitk

    image = to_sitk(array, geometry)
    if len(geometry.file_shape) == 2:
        image = image[:, :, 0]
    sitk.WriteImage(image, str(path), useCompression=True)


# --- reading ---


def _open(path: Path, spacing_mm: Sequence[float] | None, slice_axis: int | None, *, voxels: bool = True) -> _Stored:
    if not path.is_file():
        raise VolumeError(f"{path}: no such file")
    suffix = split_name(path)[1]
    if suffix == ".npy":
        with _naming(path, *_READ_ERRORS):
            return _open_npy(path, spacing_mm, slice_axis)
    if spacing_mm is not None:
        raise UsageError(f"{path}: --spacing is for .npy files; this file carries its own spacing")
    with _naming(path, *_READ_ERRORS):
        if suffix in NIFTI_SUFFIXES:
            return _open_nifti(path, slice_axis, voxels)
        return _open_sitk(path, slice_axis, voxels)


def _open_npy(path: Path, spacing_mm: Sequence[float] | None, slice_axis: int | None) -> _Stored:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    shape = _one_volume(array.shape if array.ndim != 2 else (1, *array.shape))
    geometry = _npy_geometry(path, shape, spacing_mm, slice_axis)
    return _Stored(Header(geometry, array.dtype), array.reshape(shape).transpose(2, 1, 0))


def _npy_geometry(
    path: Path, shape: tuple[int, int, int], spacing_mm: Sequence[float] | None, slice_axis: int | None
) -> Geometry:
    """Grid of an array that is (z, y, x) already; as a file, x is its fastest axis i."""
    if spacing_mm is None:
        raise UsageError(f"{path}: an .npy file carries no spacing; give --spacing Z Y X in mm")
    spacing = [float(value) for value in spacing_mm]
    if len(spacing) != 3 or not all(0 < value < math.inf for value in spacing):
        raise UsageError(f"a spacing is three positive numbers (z, y, x) in mm; found {tuple(spacing_mm)}")
    if slice_axis is not None:
        raise UsageError(f"{path}: --slice-axis is not for .npy files, whose arrays are (z, y, x) already")
    return Geometry(np.diag([*spacing[::-1], 1.0]), shape[::-1], (2, 1, 0), shape[::-1])


def _open_nifti(path: Path, slice_axis: int | None, voxels: bool) -> _Stored:
    with _nifti_stream(path) as stream:
        found = _describe_nifti(path, stream, slice_axis)
        if not voxels:
            return _Stored(found.header, np.empty(0))
        return _Stored(found.header, found.read(stream, last=True), found.slope, found.inter)


@dataclass(frozen=True, eq=False)
class _Nifti:
    """What a NIfTI header says, and how to read the next of its channels."""

    path: Path
    header: Header
    channels: int
    offset: int
    slope: float
    inter: float

    def read(self, stream: IO[bytes], channel: int = 0, *, last: bool) -> NDArray[Any]:
        """The voxels of a channel as stored, with axes (i, j, k); channels are read in order."""
        shape, dtype = self.header.geometry.shape, self.header.dtype
        size = math.prod(shape) * dtype.itemsize
        if not _gzipped(self.path):
            return np.memmap(self.path, dtype, "r", self.offset + channel * size, shape, order="F")
        if channel == 0:
            stream.seek(self.offset)
        stored = _read_exactly(stream, size)
        while last and stream.read(_CHUNK):  # gzip compares its checksum at the end of the stream
            pass
        return stored.view(dtype).reshape(shape, order="F")


def _gzipped(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


def _nifti_stream(path: Path) -> Any:
    return igzip.open(path, "rb") if _gzipped(path) else path.open("rb")


def _describe_nifti(path: Path, stream: IO[bytes], slice_axis: int | None, *, many: bool = False) -> _Nifti:
    header = _read_nifti_header(stream)
    dtype = header.get_data_dtype()
    file_shape = tuple(int(n) for n in header.get_data_shape())
    channels = file_shape[3] if many and len(file_shape) == 4 else 1
    shape = _one_volume(file_shape[:3] if many and len(file_shape) == 4 else file_shape)
    offset = int(header.get_data_offset())
    _check_size(path, channels * math.prod(shape) * dtype.itemsize + offset, packed=_gzipped(path))
    unit, mm_per_unit = _UNITS.get(int(header["xyzt_units"]) & 7, ("mm", 1.0))
    affine = header.get_best_affine().astype(np.float64)
    notes = check_affine(affine)
    sizes, stated = column_norms(affine), np.abs(header["pixdim"][1:4].astype(float))
    there = np.array(shape) > 1
    if not np.allclose(sizes[there], stated[there], rtol=0.01, atol=0):
        notes.append(
            f"pixdim says {_triple(stated)}, the affine {_triple(sizes)} along the file's axes; the affine is used"
        )
    if mm_per_unit != 1.0:
        notes.append(f"lengths are in {unit} and were converted to mm")
    affine[:3] *= mm_per_unit
    geometry = Geometry(affine, shape, axes_for(shape, sizes.tolist(), slice_axis), file_shape, header)
    slope, inter = (
        default if value is None else value for value, default in zip(header.get_slope_inter(), (1.0, 0.0), strict=True)
    )
    return _Nifti(path, Header(geometry, dtype, tuple(notes)), channels, offset, slope, inter)


def _read_exactly(stream: IO[bytes], size: int) -> NDArray[np.uint8]:
    buffer = np.empty(size, dtype=np.uint8)
    filled = 0
    while filled < size:
        got = stream.readinto(buffer[filled : filled + _CHUNK].data)  # type: ignore[attr-defined]
        if not got:
            raise VolumeError(f"the header claims {size:,} bytes of voxels; the file ends after {filled:,}")
        filled += got
    return buffer


def _read_nifti_header(stream: IO[bytes]) -> Any:
    size = stream.read(4)
    stream.seek(0)
    sizes = {int.from_bytes(size, "little"), int.from_bytes(size, "big")}
    if not sizes & {348, 540}:
        raise VolumeError("this is not a NIfTI file: its first bytes are not a NIfTI header")
    kind = nib.Nifti2Header if 540 in sizes else nib.Nifti1Header
    with LoggingOutputSuppressor():
        header = kind.from_fileobj(stream)
    magic = bytes(header["magic"]).rstrip(b"\0")
    if magic.startswith(b"ni"):
        raise VolumeError("this is the header of a .hdr/.img pair under a .nii name; convert it to a single file")
    return header


def _open_sitk(path: Path, slice_axis: int | None, voxels: bool) -> _Stored:
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise VolumeError(_sitk_reason(error)) from error
    file_shape = tuple(int(n) for n in reader.GetSize())
    shape = _one_volume(file_shape)
    if reader.GetNumberOfComponents() != 1:
        raise VolumeError(
            f"expected one number per voxel; found {reader.GetNumberOfComponents()} (a colour or vector image)"
        )
    dtype = _sitk_dtype(reader.GetPixelID())
    packed = sum(part.stat().st_size for part in _parts(path)) < math.prod(shape) * dtype.itemsize
    _check_size(path, math.prod(shape) * dtype.itemsize, packed=packed)
    dimension = reader.GetDimension()
    affine = np.eye(4)
    n = min(dimension, 3)
    direction = np.array(reader.GetDirection()).reshape(dimension, dimension)[:n, :n]
    affine[:n, :n] = direction * np.array(reader.GetSpacing())[:n]
    affine[:n, 3] = reader.GetOrigin()[:n]
    affine = _LPS_TO_RAS @ affine
    notes = check_affine(affine)
    geometry = Geometry(affine, shape, axes_for(shape, column_norms(affine).tolist(), slice_axis), file_shape)
    described = Header(geometry, dtype, tuple(notes))
    if not voxels:
        return _Stored(described, np.empty(0))
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise VolumeError(_sitk_reason(error)) from error
    array = sitk.GetArrayFromImage(image).transpose().reshape(shape, order="F")
    return _Stored(described, array)


def _sitk_dtype(pixel_id: int) -> np.dtype[Any]:
    import SimpleITK as sitk

    return sitk.GetArrayViewFromImage(sitk.Image(1, 1, pixel_id)).dtype


def _sitk_reason(error: RuntimeError) -> str:
    """Last line of SimpleITK's message: the reason, without the C++ file names."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"SimpleITK cannot read it: {lines[-1] if lines else 'no reason given'}"


def _one_volume(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Shape as three axes; a trailing 1 is no axis, and a 2D image is one slice."""
    if not shape or 0 in shape:
        raise VolumeError(f"the file holds no voxels: its shape is {shape}")
    if any(n != 1 for n in shape[3:]):
        raise VolumeError(
            f"expected one 3D volume; found {len(shape)} dimensions, shape {shape}; "
            "write one file per volume (channels or time points) and try again"
        )
    return tuple((*shape, 1, 1)[:3]) if len(shape) < 3 else shape[:3]  # type: ignore[return-value]


def _check_size(path: Path, claimed: int, *, packed: bool) -> None:
    """Refuse a header that claims more than its file can hold, before memory is taken for it."""
    there = sum(part.stat().st_size for part in _parts(path))
    most = there * _DEFLATE_MOST if packed else there
    if claimed > most:
        raise VolumeError(
            f"the header claims {claimed:,} bytes of voxels; the file's {there:,} bytes can hold at most {most:,}; "
            "it is truncated or its header is damaged; copy it again from its source"
        )


def _parts(path: Path) -> list[Path]:
    """All files of a volume: header and voxels may be separate ones with the same stem."""
    stem, suffix = split_name(path)
    beside = {
        ".mhd": (".raw", ".zraw"), ".nhdr": (".raw", ".raw.gz"), ".hdr": (".img", ".img.gz"),
        ".img": (".hdr",), ".img.gz": (".hdr",),
    }.get(suffix, ())  # fmt: skip
    return [path, *(part for tail in beside if (part := path.with_name(stem + tail)).is_file())]


def _volume(header: Header, stored: NDArray[Any]) -> Volume:
    geometry = header.geometry
    return Volume(geometry.to_array(stored), geometry.spacing_mm, geometry, header.notes)


@contextmanager
def _naming(path: Path, *also: type[Exception]) -> Iterator[None]:
    """Put the file's name before the message of an error, once; a library's error becomes ours."""
    try:
        yield
    except (VolumeError, UsageError) as error:
        if str(path) in str(error):
            raise
        raise type(error)(f"{path}: {error}") from error
    except also as error:
        reason = "not enough memory" if isinstance(error, MemoryError) else str(error) or type(error).__name__
        raise VolumeError(f"{path}: cannot be read or written: {reason}") from error


def _triple(values: NDArray[np.float64]) -> str:
    return " x ".join(f"{value:.6g}" for value in values)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
