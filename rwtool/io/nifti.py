"""NIfTI through nibabel, its gzip stream through ISA-L."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import nibabel as nib
import numpy as np
from isal import igzip
from nibabel.spatialimages import HeaderDataError
from nibabel.volumeutils import native_code
from numpy.typing import NDArray

from rwtool.errors import GeometryError, VolumeError
from rwtool.io.geometry import Geometry, axes_for, check_affine, column_norms
from rwtool.io.names import check_size, first_bytes, gzipped
from rwtool.io.volume import Header, Stored, one_volume

_UNITS = {1: ("metres", 1000.0), 3: ("microns", 0.001)}  # NIfTI xyzt_units that are not mm
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

    def read(self, stream: IO[bytes], channel: int = 0, *, last: bool) -> NDArray[Any]:
        """The voxels of a channel as stored, with axes (i, j, k); channels are read in order."""
        shape, dtype = self.header.geometry.shape, self.header.dtype
        size = math.prod(shape) * dtype.itemsize
        if not gzipped(self.path):
            return np.memmap(self.path, dtype, "r", self.offset + channel * size, shape, order="F")
        if channel == 0:
            stream.seek(self.offset)
        stored = _read_exactly(stream, size)
        while last and stream.read(CHUNK):  # gzip compares its checksum at the end of the stream
            pass
        return stored.view(dtype).reshape(shape, order="F")


def open_nifti(path: Path, slice_axis: int | None, voxels: bool = True) -> Stored:
    """Read a NIfTI file; without `voxels`, its header alone."""
    with nifti_stream(path) as stream:
        found = describe_nifti(path, stream, slice_axis)
        if not voxels:
            return Stored(found.header, np.empty(0))
        return Stored(found.header, found.read(stream, last=True), found.slope, found.inter)


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


def describe_nifti(path: Path, stream: IO[bytes], slice_axis: int | None, *, many: bool = False) -> _Nifti:
    """Read and check a NIfTI header; with `many`, a fourth axis is taken for channels."""
    header = read_nifti_header(stream)
    if bytes(header["magic"]).startswith(b"ni"):
        raise VolumeError("this is the header of a .hdr/.img pair under a .nii name; convert it to a single file")
    stated = np.abs(header["pixdim"][1:4].astype(float))  # before nibabel makes 1 of 0
    header.check_fix(_QUIET)
    dtype = header.get_data_dtype()
    file_shape = tuple(int(n) for n in header.get_data_shape())
    channels = file_shape[3] if many and len(file_shape) == 4 else 1
    shape = one_volume(file_shape[:3] if many and len(file_shape) == 4 else file_shape)
    offset = int(header.get_data_offset())
    claimed = channels * math.prod(shape) * dtype.itemsize + offset
    check_size(path.stat().st_size, claimed, packed=gzipped(path))
    unit, mm_per_unit = _UNITS.get(int(header["xyzt_units"]) & 7, ("mm", 1.0))
    there = np.array(shape) > 1
    if header["sform_code"] == 0 and not (stated[there] > 0).all():
        raise GeometryError(f"the header gives no voxel size: pixdim says {_triple(stated)} mm; mend the header")
    affine = header.get_best_affine().astype(np.float64)
    notes = check_affine(affine)
    sizes = column_norms(affine)
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
    block = size + stream.read(kind.sizeof_hdr - 4)
    if len(block) < kind.sizeof_hdr:
        raise VolumeError(f"the file ends within its header, after {len(block)} bytes; copy it again from its source")
    return kind(block, check=False)


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
        header.set_sform(geometry.affine_mm, code=1)
        header.set_qform(geometry.affine_mm, code=1)
        pixdim = header["pixdim"].copy()
    for name in ("intent_code", "intent_p1", "intent_p2", "intent_p3", "cal_max", "cal_min"):
        header[name] = 0
    header["intent_name"] = b""
    pixdim[4:] = np.where(pixdim[4:] > 0, pixdim[4:], 1)
    pixdim[1:4] = np.where(pixdim[1:4] > 0, pixdim[1:4], 1)
    header["pixdim"] = pixdim
    header.set_slope_inter(slope, 0.0)
    header["vox_offset"] = 0  # nibabel sets it as it writes
    return header


def _triple(values: NDArray[np.float64]) -> str:
    return " x ".join(f"{value:.6g}" for value in values)
