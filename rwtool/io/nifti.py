"""NIfTI through nibabel, its gzip stream through ISA-L."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import nibabel as nib
import numpy as np
from isal import igzip
from nibabel.quaternions import quat2mat
from nibabel.spatialimages import HeaderDataError
from nibabel.volumeutils import native_code, shape_zoom_affine
from numpy.typing import NDArray

from rwtool.errors import GeometryError, VolumeError
from rwtool.io.geometry import NOT_PLACED, Geometry, axes_for, check_affine, column_norms, settle_spacing, unplaced
from rwtool.io.names import PAIR_SUFFIXES, check_size, drain, first_bytes, gzipped, parts, split_name
from rwtool.io.volume import Header, Stored, one_volume

_UNITS = {0: ("mm", 1.0), 1: ("metres", 1000.0), 2: ("mm", 1.0), 3: ("microns", 0.001)}  # NIfTI xyzt_units
_LAST_CODE = 5  # of the sform and qform codes that NIfTI defines
_QUATERNION_SLACK = 1e-3
_FLAT = 1e-6  # volume of the box of three unit axes
_NUMBERS = {2, 4, 8, 16, 64, 256, 512, 768, 1024, 1280}  # NIfTI datatypes: integers, and floats of 32 and 64 bits
_NO_NUMBERS = {
    1: "single bits", 32: "complex numbers", 128: "colours (RGB)", 1536: "floats of 128 bits", 1792: "complex numbers",
    2048: "complex numbers", 2304: "colours (RGBA)",
}  # fmt: skip
_LARGEST = float(np.finfo(np.float32).max)  # of a scaling
CHUNK = 1 << 22
_GZIP_MAGIC = b"\x1f\x8b"
_QUIET = logging.Logger("rwtool.io.nifti")  # of its own: what nibabel mends in a header is not printed
_QUIET.addHandler(logging.NullHandler())


@dataclass(frozen=True, eq=False)
class _Nifti:
    """What a NIfTI header says, and how to read the next of its channels."""

    path: Path
    header: Header
    channels: int
    offset: int
    slope: float
    inter: float
    unsure: bool = False  # whether the offset was taken for granted, so that the voxels must end where the file does

    def read(self, stream: IO[bytes], channel: int = 0, *, last: bool) -> tuple[NDArray[Any], int]:
        """The voxels of a channel as stored, with axes (i, j, k), and how many bytes follow the last; read in order."""
        shape, dtype = self.header.geometry.shape, self.header.dtype
        size = math.prod(shape) * dtype.itemsize
        stored: NDArray[Any]
        after = 0
        if gzipped(self.path):
            if channel == 0:
                stream.seek(self.offset)
            stored = _read_exactly(stream, size).view(dtype).reshape(shape, order="F")
            if last:  # gzip compares its checksum at the end of the stream
                after = drain(stream)
        else:
            stored = np.memmap(self.path, dtype, "r", self.offset + channel * size, shape, order="F")
            after = self.path.stat().st_size - self.offset - self.channels * size
        if self.unsure and after:
            raise VolumeError(
                f"its vox_offset is 0, which stands for byte {self.offset} in a single file; but the voxels would then "
                f"end {after:,} bytes before the file does, so where they begin is unknown; mend the header"
            )
        return stored, after


def is_nifti_pair(path: Path) -> bool:
    """Whether a ``.hdr`` or ``.img`` file is one of a NIfTI pair, and not of another format of that name."""
    if split_name(path)[1] not in PAIR_SUFFIXES:
        return False
    files = parts(path)
    if len(files) < 2:
        return False
    with nifti_stream(files[0]) as stream:
        block = stream.read(nib.Nifti1Header.sizeof_hdr)
    return block[344:347] == b"ni1" or block[4:7] == b"ni2"


def open_nifti(
    path: Path, slice_axis: int | None, voxels: bool = True, spacing_mm: Sequence[float] | None = None
) -> Stored:
    """Read a NIfTI file, or a pair of them; without `voxels`, its header alone."""
    files = parts(path)
    with nifti_stream(files[0]) as stream:
        found = describe_nifti(path, stream, slice_axis, spacing_mm=spacing_mm)
        if not voxels:
            return Stored(found.header, np.empty(0))
        if len(files) == 1:
            array, after = found.read(stream, last=True)
    if len(files) > 1:
        with nifti_stream(files[-1]) as stream:
            array, after = found.read(stream, last=True)
    notes = found.header.notes
    if after:
        notes += (f"the file holds {after:,} bytes more than its header says; they are left out",)
    return Stored(replace(found.header, notes=notes), array, found.slope, found.inter)


def nifti_stream(path: Path) -> Any:
    """Open the bytes of a NIfTI file, unzipped."""
    compressed = first_bytes(path)[:2] == _GZIP_MAGIC
    if compressed != gzipped(path):
        found, suffix = ("gzip-compressed", ".nii.gz") if compressed else ("not gzip-compressed", ".nii")
        raise VolumeError(
            f"the file is {found}, which its name does not say; if it is a NIfTI file, rename it to end in {suffix}, "
            "else copy it again from its source"
        )
    return igzip.open(path, "rb") if compressed else path.open("rb")


def describe_nifti(
    path: Path,
    stream: IO[bytes],
    slice_axis: int | None,
    *,
    many: bool = False,
    spacing_mm: Sequence[float] | None = None,
) -> _Nifti:
    """Read and check a NIfTI header; with `many`, a fourth axis is taken for channels."""
    header = read_nifti_header(stream)
    raw = header.copy()  # before nibabel makes 1 of 0 and calls undefined codes 0
    files = parts(path)
    offset, unsure = _voxel_offset(raw, pair=len(files) > 1)
    dtype = _voxel_type(raw)
    header.check_fix(_QUIET)
    if not 0 <= raw["dim"][0] <= 7:
        raise VolumeError(f"its header claims {raw['dim'][0]} axes; a NIfTI has 1 to 7; mend the header")
    file_shape = tuple(int(n) for n in header.get_data_shape())
    if not many and len(file_shape) == 4 and file_shape[0] == 1 != file_shape[3]:
        raise VolumeError(
            f"its shape is {file_shape}: a NIfTI says how its first three axes lie, so nothing is known of the fourth; "
            "save it without the first axis, which has one voxel"
        )
    channels = file_shape[3] if many and len(file_shape) == 4 else 1
    shape = one_volume(file_shape[:3] if many and len(file_shape) == 4 else file_shape)
    claimed = channels * math.prod(shape) * dtype.itemsize + offset
    check_size(files[-1].stat().st_size, claimed, packed=gzipped(files[-1]))
    with np.errstate(over="ignore", invalid="ignore"):  # what is beyond numbers is refused as such
        geometry, notes = _geometry(raw, header, shape, file_shape, slice_axis, spacing_mm)
    slope, inter = _scaling(raw)
    return _Nifti(files[-1], Header(geometry, dtype, notes), channels, offset, slope, inter, unsure)


def _voxel_offset(header: Any, *, pair: bool) -> tuple[int, bool]:
    """Byte at which the voxels begin, and whether that had to be assumed."""
    if not pair and bytes(header["magic"]).startswith(b"ni"):
        raise VolumeError("this is the header of a .hdr/.img pair under a .nii name; convert it to a single file")
    stated = float(header["vox_offset"])
    least = 0 if pair else header.single_vox_offset
    if not pair and stated == 0:
        return least, True
    if not math.isfinite(stated) or stated != int(stated) or stated < least:
        raise VolumeError(
            f"its vox_offset is {stated:g}; the voxels begin at a whole byte from {least} on; mend the header"
        )
    return int(stated), False


def _voxel_type(header: Any) -> np.dtype[Any]:
    """The type of the voxels, which must be one number each."""
    code = int(header["datatype"])
    if code not in _NUMBERS:
        raise VolumeError(
            f"expected one number per voxel; found {_NO_NUMBERS.get(code, 'no type that NIfTI defines')}, the NIfTI "
            f"datatype {code}; save one number of 8 to 64 bits per voxel and try again"
        )
    dtype: np.dtype[Any] = header.get_data_dtype()
    return dtype


def _scaling(header: Any) -> tuple[float, float]:
    """Slope and intercept; a slope of 0, or of NaN as nibabel writes it, means that there is no scaling."""
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or math.isnan(slope):
        return 1.0, 0.0
    if not all(abs(value) <= _LARGEST for value in (slope, inter)):
        raise VolumeError(
            f"its scaling is no number: scl_slope is {slope:g}, scl_inter {inter:g}; mend the header, where a "
            "scl_slope of 0 means none"
        )
    return slope, inter


def _geometry(
    raw: Any,
    header: Any,
    shape: tuple[int, int, int],
    file_shape: tuple[int, ...],
    slice_axis: int | None,
    spacing_mm: Sequence[float] | None,
) -> tuple[Geometry, tuple[str, ...]]:
    """Grid by the sform, else the qform, else the voxel sizes alone, and what is odd about it."""
    unit, mm_per_unit = _unit(raw)
    steps = np.abs(raw["pixdim"][1:4].astype(float))
    notes = []
    affine = None
    for form, made in (("sform", _sform), ("qform", _qform)):
        code = int(raw[f"{form}_code"])
        if code <= 0 or affine is not None:
            continue
        found = made(raw, shape)
        if found is None:
            notes.append(f"the {form} is stated, and is no grid (not finite, or flat); it is left out")
            continue
        affine = found
        if code > _LAST_CODE:
            notes.append(f"{form}_code is {code}, which NIfTI does not define; the {form} is used")
            header[f"{form}_code"] = 1
    placed, there = affine is not None, np.array(shape) > 1
    stated = steps if affine is None else column_norms(affine)
    given = settle_spacing(stated.tolist(), spacing_mm, shape, what="pixdim")
    if affine is None:
        notes.append(NOT_PLACED)
        if given is not None:
            axes = axes_for(shape, given, 2 if slice_axis is None else slice_axis)
            return unplaced(given, shape, axes, file_shape), tuple(notes)
        affine = shape_zoom_affine(shape, np.where(there, steps, 1)).astype(np.float64)
    notes += check_affine(affine)
    sizes = column_norms(affine)
    if not np.allclose(sizes[there], steps[there], rtol=0.01, atol=0):
        notes.append(
            f"pixdim says {_triple(steps)}, the affine {_triple(sizes)} along the file's axes; the affine is used"
        )
    if mm_per_unit != 1.0:
        notes.append(f"lengths are in {unit} and were converted to mm")
    affine[:3] *= mm_per_unit
    axes = axes_for(shape, sizes.tolist(), slice_axis)
    return Geometry(affine, shape, axes, file_shape, header, placed=placed), tuple(notes)


def _unit(header: Any) -> tuple[str, float]:
    code = int(header["xyzt_units"]) & 7
    if code not in _UNITS:
        raise GeometryError(
            f"xyzt_units gives lengths the code {code}, which NIfTI does not define (1 metres, 2 mm, 3 microns, 0 "
            "unknown, taken for mm); mend the header"
        )
    return _UNITS[code]


def _sform(header: Any, _: tuple[int, int, int]) -> NDArray[np.float64] | None:
    affine = header.get_sform().astype(np.float64)
    return affine if _is_grid(affine) else None


def _qform(header: Any, shape: tuple[int, int, int]) -> NDArray[np.float64] | None:
    """The affine of a qform; its quaternion may be longer than 1 by the rounding of its float32."""
    steps = np.abs(header["pixdim"][1:4].astype(float))
    steps[(np.array(shape) == 1) & ~((steps > 0) & (steps < np.inf))] = 1
    vector = np.array([header[f"quatern_{name}"] for name in "bcd"], dtype=float)
    length = float(np.linalg.norm(vector))
    if not (length <= 1 + _QUATERNION_SLACK and np.isfinite(steps).all()):
        return None
    vector /= max(length, 1)
    affine = np.eye(4)
    affine[:3, :3] = quat2mat([math.sqrt(max(0, 1 - float(vector @ vector))), *vector]) * steps
    if header["pixdim"][0] < 0:
        affine[:3, 2] *= -1
    affine[:3, 3] = [float(header[f"qoffset_{name}"]) for name in "xyz"]
    return affine if _is_grid(affine) else None


def _is_grid(affine: NDArray[np.float64]) -> bool:
    """Whether an affine is finite and its axes span the space."""
    steps = column_norms(affine)
    if not np.isfinite(affine).all() or not (steps > 0).all():
        return False
    return bool(abs(np.linalg.det(affine[:3, :3] / steps)) > _FLAT)


def _read_exactly(stream: IO[bytes], size: int) -> NDArray[np.uint8]:
    buffer = np.empty(size, dtype=np.uint8)
    filled = 0
    while filled < size:
        got = stream.readinto(buffer[filled : filled + CHUNK].data)  # type: ignore[attr-defined]
        if not got:
            raise VolumeError(f"the header claims {size:,} bytes of voxels; the file ends after {filled:,}")
        filled += got
    return buffer


def read_nifti_header(stream: IO[bytes]) -> Any:
    """Read the first bytes of a stream as a NIfTI-1 or NIfTI-2 header, as they are."""
    size = stream.read(4)
    sizes = {int.from_bytes(size, "little"), int.from_bytes(size, "big")}
    if not sizes & {348, 540}:
        raise VolumeError("this is not a NIfTI file: its first bytes are not a NIfTI header")
    kind: Any = nib.Nifti2Header if 540 in sizes else nib.Nifti1Header
    block: bytes = size + stream.read(kind.sizeof_hdr - 4)
    if len(block) < kind.sizeof_hdr:
        raise VolumeError(f"the file ends within its header, after {len(block)} bytes; copy it again from its source")
    order = "<" if int.from_bytes(size, "little") in (348, 540) else ">"
    return kind(block, endianness=order, check=False)


def nifti_header(path: Path, geometry: Geometry, dtype: np.dtype[Any], channels: int | None, slope: float) -> Any:
    """Header of a file to be written: that of the input where it was a NIfTI, else one made of the grid."""
    header = nib.Nifti1Header() if geometry.header is None else geometry.header.copy()
    if header.endianness != native_code:
        header = header.as_byteswapped(native_code)
    pixdim = header["pixdim"].copy()
    try:
        header.set_data_dtype(dtype)
        header.set_data_shape((*geometry.shape, channels) if channels else geometry.file_shape)
    except HeaderDataError as error:
        raise VolumeError(
            f"{path}: NIfTI cannot hold {dtype} of shape {geometry.file_shape}: {error}; choose another type or format"
        ) from error
    if geometry.header is None:
        header.set_xyzt_units("mm")
        code = int(geometry.placed)  # a grid that no file stated is not stated here either
        header.set_sform(geometry.affine_mm, code=code)
        header.set_qform(geometry.affine_mm, code=code)
        pixdim = header["pixdim"].copy()
    for name in ("intent_code", "intent_p1", "intent_p2", "intent_p3", "cal_max", "cal_min"):
        header[name] = 0
    header["intent_name"] = b""
    pixdim[4:] = np.where(pixdim[4:] > 0, pixdim[4:], 1)
    pixdim[1:4] = np.where((pixdim[1:4] > 0) & np.isfinite(pixdim[1:4]), pixdim[1:4], 1)
    header["pixdim"] = pixdim
    header.set_slope_inter(slope, 0.0)
    header["vox_offset"] = 0  # nibabel sets it as it writes
    return header


def _triple(values: NDArray[np.float64]) -> str:
    return " x ".join(f"{value:.6g}" for value in values)
