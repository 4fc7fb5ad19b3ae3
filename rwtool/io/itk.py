"""GIPL, VTK and MINC 2 through SimpleITK, and all writing through it.

What SimpleITK would read without an error though the file is damaged is refused here.
"""

from __future__ import annotations

import locale
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from isal import igzip
from numpy.typing import NDArray

from rwtool.errors import VolumeError
from rwtool.io.geometry import Geometry, column_norms
from rwtool.io.names import check_size, drain, gzipped, split_name
from rwtool.io.placement import lps_to_ras, place
from rwtool.io.volume import Header, Stored, numpy_type, one_volume

_GIPL_HEADER = 256  # bytes
_GIPL_MAGIC = (b"\xef\xff\xe9\xb0", b"\x2a\xe3\x89\xb8", b"\xae\xcf\x7f\xb7")
_VTK_MOST = 1 << 16  # bytes of a header


@contextmanager
def kept_locale() -> Iterator[None]:
    """Keep the process's locale: ITK reads a legacy VTK file in that of C, and stays there if the file is damaged."""
    before = locale.setlocale(locale.LC_ALL)
    try:
        yield
    finally:
        if locale.setlocale(locale.LC_ALL) != before:
            locale.setlocale(locale.LC_ALL, before)


@kept_locale()
def open_sitk(
    path: Path, slice_axis: int | None, voxels: bool = True, spacing_mm: Sequence[float] | None = None
) -> Stored:
    """Read a file through SimpleITK, channels last; without `voxels`, its header alone.

    Raises
    ------
    VolumeError
        It is damaged, or holds no volume.
    """
    import SimpleITK as sitk

    head = _first(path)
    suffix = split_name(path)[1]
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise VolumeError(_reason(error)) from error
    file_shape = tuple(int(n) for n in reader.GetSize())
    shape = one_volume(file_shape)
    channels = int(reader.GetNumberOfComponents())
    dtype = numpy_type(reader)
    _check_file(path, head, math.prod(shape) * channels, dtype.itemsize)
    n = min(reader.GetDimension(), 3)
    affine = np.eye(4)
    direction = np.array(reader.GetDirection()).reshape(reader.GetDimension(), -1)[:n, :n]
    affine[:n, :n] = direction * np.array(reader.GetSpacing())[:n]
    affine[:n, 3] = reader.GetOrigin()[:n]
    if suffix == ".vtk" and not re.search(rb"\n\s*(SPACING|ASPECT_RATIO)\s", head, re.IGNORECASE):
        affine[:3, :3] *= math.nan
    geometry, notes = place(lps_to_ras(affine), shape, file_shape, slice_axis, spacing_mm, placed=suffix == ".mnc")
    header = Header(geometry, dtype, notes, channels)
    if not voxels:
        return Stored(header, np.empty(0))
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise VolumeError(_reason(error)) from error
    array = sitk.GetArrayFromImage(image).reshape((*shape[::-1], channels)).transpose(2, 1, 0, 3)
    return Stored(header, array[..., 0] if channels == 1 else array)


def _first(path: Path) -> bytes:
    """The first bytes of a file, unpacked, after a check that they are those of its format."""
    with igzip.open(path, "rb") if gzipped(path) else path.open("rb") as stream:
        head: bytes = stream.read(_VTK_MOST)
    suffix = split_name(path)[1]
    if suffix in (".gipl", ".gipl.gz") and head[252:256] not in _GIPL_MAGIC:
        raise VolumeError("this is not a GIPL file: its header has none of GIPL's marks")
    if suffix == ".vtk":
        if not re.search(rb"DATASET\s+STRUCTURED_POINTS", head[:_VTK_MOST], re.IGNORECASE):
            raise VolumeError("this VTK file holds no volume; expected a legacy file with DATASET STRUCTURED_POINTS")
        sizes = re.search(rb"\n\s*DIMENSIONS\s+(\d+)\s+(\d+)\s+(\d+)\s", head, re.IGNORECASE)
        if not sizes or not all(0 < int(size) < 1 << 31 for size in sizes.groups()):
            raise VolumeError("its header states no DIMENSIONS of three axes; copy it again from its source")
    return head


def _check_file(path: Path, head: bytes, numbers: int, itemsize: int) -> None:
    """Refuse a truncated file that SimpleITK would read without an error, making up what is missing."""
    there = path.stat().st_size
    suffix = split_name(path)[1]
    offset, packed = 0, True  # or of an encoding of its own
    if suffix in (".gipl", ".gipl.gz"):
        offset, packed = _GIPL_HEADER, gzipped(path)
    elif suffix == ".vtk":
        offset, packed = head.find(b"\n", head.find(b"\nLOOKUP_TABLE") + 1) + 1, b"\nASCII" in head
        if packed:
            found = len(path.read_bytes()[offset:].split())
            if found < numbers:
                raise VolumeError(
                    f"the header claims {numbers:,} numbers; the file ends after {found:,}; copy it again from its "
                    "source"
                )
    check_size(there, numbers * itemsize + offset, packed=packed)
    if not gzipped(path):
        return
    with igzip.open(path, "rb") as stream:
        found = drain(stream, claimed=numbers * itemsize + offset)
    if found < numbers * itemsize + offset:
        raise VolumeError(
            f"the header claims {numbers * itemsize:,} bytes of voxels; the file ends after {found - offset:,}; "
            "copy it again from its source"
        )


def to_sitk(array: NDArray[Any], geometry: Geometry) -> Any:
    """Make a SimpleITK image of a ``(z, y, x)`` array, with the axes of its file."""
    import SimpleITK as sitk

    stored = np.ascontiguousarray(geometry.to_file(array).transpose(2, 1, 0))
    affine = lps_to_ras(geometry.affine_mm)
    spacing = column_norms(affine)
    image = sitk.GetImageFromArray(stored)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    return image


@kept_locale()
def write_sitk(path: Path, array: NDArray[Any], geometry: Geometry) -> None:
    """Write a ``(z, y, x)`` array through SimpleITK, compressed where the format can."""
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    image = to_sitk(array, geometry)
    if len(geometry.file_shape) == 2:
        image = image[:, :, 0]
    try:
        sitk.WriteImage(image, str(path), useCompression=True)
    except RuntimeError as error:
        raise VolumeError(_reason(error, "write")) from error


def _reason(error: RuntimeError, doing: str = "read") -> str:
    """Last line of SimpleITK's message: the reason, without the C++ file names."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"SimpleITK cannot {doing} it: {lines[-1] if lines else 'no reason given'}"
