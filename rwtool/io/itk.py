"""All other formats, through SimpleITK: what it would read without an error though it is damaged is refused here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from isal import igzip, isal_zlib
from numpy.typing import NDArray

from rwtool.errors import VolumeError
from rwtool.io.geometry import Geometry, axes_for, check_affine, column_norms, unplaced
from rwtool.io.names import TEXT_HEADERS, TEXT_MOST, check_size, gzipped, parts, split_name, text_header
from rwtool.io.nifti import CHUNK, nifti_stream, read_nifti_header
from rwtool.io.volume import Header, Stored, one_volume

_TEXT_SPACING = {"elementspacing", "elementsize", "spacings", "space directions"}
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def open_sitk(
    path: Path, slice_axis: int | None, voxels: bool = True, spacing_mm: Sequence[float] | None = None
) -> Stored:
    """Read a file through SimpleITK; without `voxels`, its header alone."""
    import SimpleITK as sitk

    missing = [part.name for part in parts(path) if not part.is_file()]
    if missing:
        raise VolumeError(f"its voxels are in {missing[0]}, which is not there; put it where the header says")
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise VolumeError(_reason(error)) from error
    file_shape = tuple(int(n) for n in reader.GetSize())
    shape = one_volume(file_shape)
    if reader.GetNumberOfComponents() != 1:
        raise VolumeError(
            f"expected one number per voxel; found {reader.GetNumberOfComponents()} (a colour or vector image)"
        )
    dtype = _dtype_of(reader.GetPixelID())
    if split_name(path)[1] in TEXT_HEADERS and not _TEXT_SPACING & text_header(path)[0].keys():
        raise VolumeError("the header carries no spacing, and 1 mm would be a guess; add it")
    _check_file(path, math.prod(shape), dtype.itemsize)
    dimension = reader.GetDimension()
    affine = np.eye(4)
    n = min(dimension, 3)
    direction = np.array(reader.GetDirection()).reshape(dimension, dimension)[:n, :n]
    affine[:n, :n] = direction * np.array(reader.GetSpacing())[:n]
    affine[:n, 3] = reader.GetOrigin()[:n]
    affine = _LPS_TO_RAS @ affine
    notes: list[str] = []
    if spacing_mm is not None:  # given as (z, y, x), so the slice axis cannot follow from it
        axes = axes_for(shape, (), 2 if slice_axis is None else slice_axis)
        geometry = unplaced(spacing_mm, shape, axes, file_shape)
    else:
        notes = check_affine(affine)
        geometry = Geometry(affine, shape, axes_for(shape, column_norms(affine).tolist(), slice_axis), file_shape)
    described = Header(geometry, dtype, tuple(notes))
    if not voxels:
        return Stored(described, np.empty(0))
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise VolumeError(_reason(error)) from error
    array = sitk.GetArrayFromImage(image).transpose().reshape(shape, order="F")
    return Stored(described, array)


def _dtype_of(pixel_id: int) -> np.dtype[Any]:
    import SimpleITK as sitk

    return sitk.GetArrayViewFromImage(sitk.Image(1, 1, pixel_id)).dtype


def _check_file(path: Path, voxels: int, itemsize: int) -> None:
    """Refuse a truncated or damaged file that SimpleITK would read without an error, making up what is missing."""
    files = parts(path)
    there = sum(part.stat().st_size for part in files[1:] or files)
    suffix = split_name(path)[1]
    offset = 0  # of the voxels in the last part
    encoding = "its own"
    if suffix in TEXT_HEADERS:
        fields, end = text_header(path)
        offset = end if len(files) == 1 else 0
        if fields.get("encoding", "").lower() == "raw":
            encoding = "raw"
        elif suffix in (".mha", ".mhd") and fields.get("binarydata", "true").lower() == "true":
            encoding = "zlib" if fields.get("compresseddata", "").lower() == "true" else "raw"
    elif suffix in (".hdr", ".img", ".img.gz"):
        with nifti_stream(files[0]) as stream:
            header = read_nifti_header(stream)
        itemsize, offset = header.get_data_dtype().itemsize, int(header["vox_offset"])
        encoding = "gzip" if gzipped(files[-1]) else "raw"
    elif suffix in (".gipl", ".gipl.gz"):
        offset, encoding = 256, "gzip" if gzipped(path) else "raw"
    elif suffix == ".vtk":
        with path.open("rb") as stream:
            head = stream.read(TEXT_MOST)
        offset, encoding = (
            head.find(b"\n", head.find(b"\nLOOKUP_TABLE") + 1) + 1,
            "text" if b"\nASCII" in head else "raw",
        )
    check_size(there, voxels * itemsize + (0 if encoding == "zlib" else offset), packed=encoding != "raw")
    if encoding == "gzip":
        with igzip.open(files[-1], "rb") as stream:
            found = sum(map(len, iter(lambda: stream.read(CHUNK), b"")))
    elif encoding == "zlib" and len(files) <= 2:
        unpack = isal_zlib.decompressobj()
        with files[-1].open("rb") as stream:
            stream.seek(offset)
            found = sum(len(unpack.decompress(block)) for block in iter(lambda: stream.read(1 << 16), b""))
        offset = 0
        if not unpack.eof:
            raise EOFError("its compressed voxels end too early")
    else:
        return
    if found < voxels * itemsize + offset:
        raise VolumeError(
            f"the header claims {voxels * itemsize:,} bytes of voxels; the file ends after {found - offset:,}; "
            "copy it again from its source"
        )


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
