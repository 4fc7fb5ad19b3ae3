"""Formats of neuroimaging through nibabel: FreeSurfer's MGH, AFNI's BRIK, Philips' PAR and REC, MINC 1, Analyze 7.5."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from io import BytesIO, IOBase
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from isal import igzip
from numpy.typing import NDArray

from rwtool.errors import GeometryError, VolumeError
from rwtool.io.geometry import column_norms
from rwtool.io.names import MGH_SUFFIXES, PAIR_SUFFIXES, check_size, drain, gzipped, parts, split_name
from rwtool.io.placement import of_space, place
from rwtool.io.volume import Header, Stored, one_volume

_DIRECTION = 1e-3  # relative: how far a direction may be from length 1
_MGH_FLAG = 28  # byte that says whether voxel sizes and orientation are stated
_ANALYZE_UNITS = {"": 1.0, "mm": 1.0, "cm": 10.0, "m": 1000.0, "um": 0.001}


def open_neuro(
    path: Path, slice_axis: int | None, voxels: bool = True, spacing_mm: Sequence[float] | None = None
) -> Stored:
    """Read a file through nibabel, channels last; without `voxels`, its header alone.

    Raises
    ------
    VolumeError
        It is damaged, or holds no volume.
    """
    files = parts(path)
    with ExitStack() as opened:
        streams = [opened.enter_context(igzip.open(part) if gzipped(part) else part.open("rb")) for part in files]
        stored = _read(path, files, streams, slice_axis, voxels, spacing_mm)
        if voxels:
            for stream in streams:
                drain(stream, claimed=8 * stored.array.size)  # nibabel may have read it through another one
    return stored


def _read(
    path: Path,
    files: Sequence[Path],
    streams: Sequence[IOBase],
    slice_axis: int | None,
    voxels: bool,
    spacing_mm: Sequence[float] | None,
) -> Stored:
    image = _load(path, streams)
    file_shape = tuple(int(n) for n in image.shape)
    spatial, channels = of_space(file_shape), 1
    if len(spatial) == 4:
        spatial, channels = spatial[:3], file_shape[-1]
    shape = one_volume(spatial)
    dtype = np.dtype(image.get_data_dtype())
    if dtype.kind not in "buif":
        raise VolumeError(f"expected one number per voxel; found the type {dtype}")
    there = sum(part.stat().st_size for part in files)
    check_size(there, math.prod(file_shape) * dtype.itemsize, packed=any(map(gzipped, files)))
    affine, placed, notes = _grid(path, image, streams[0])
    kept = spatial if channels > 1 else file_shape
    geometry, notes = place(affine, shape, kept, slice_axis, spacing_mm, placed=placed, notes=notes)
    header = Header(geometry, dtype.newbyteorder("="), notes, channels)
    if not voxels:
        return Stored(header, np.empty(0))
    try:
        array = np.asanyarray(image.dataobj)
    except TypeError as error:  # of a buffer that is too small
        raise VolumeError(f"it is truncated: {error}; copy it again from its source") from error
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    return Stored(header, array.reshape(shape if channels == 1 else (*shape, channels), order="F"))


def _load(path: Path, streams: Sequence[IOBase]) -> Any:
    """The image of nibabel that a file is; its voxels are not read yet."""
    suffix = split_name(path)[1]
    if suffix in PAIR_SUFFIXES and len(streams) < 2:
        raise VolumeError("its header or its voxels are missing: .hdr and .img belong beside each other")
    try:
        if suffix in MGH_SUFFIXES:
            return nib.MGHImage.from_file_map({"image": nib.FileHolder(fileobj=streams[0])})
        if suffix in PAIR_SUFFIXES:
            named = zip(("header", "image", "mat"), (*streams, BytesIO()), strict=True)
            return nib.Spm99AnalyzeImage.from_file_map({name: nib.FileHolder(fileobj=stream) for name, stream in named})
        return nib.load(path)
    except Exception as error:  # nibabel's formats raise errors of their own at a damaged header
        raise VolumeError(f"nibabel cannot read it: {error}") from error


def _grid(path: Path, image: Any, stream: Any) -> tuple[NDArray[np.float64], bool, tuple[str, ...]]:
    """Affine to RAS mm, whether the file states it, and notes; nibabel puts 1 mm where nothing is stated."""
    suffix = split_name(path)[1]
    affine = np.array(image.affine, dtype=np.float64)
    stream.seek(0)
    if suffix in PAIR_SUFFIXES:  # Analyze 7.5 has voxel sizes alone
        header = nib.Spm99AnalyzeHeader(stream.read(nib.Spm99AnalyzeHeader.sizeof_hdr), check=False)
        unit = bytes(header["vox_units"]).split(b"\0")[0].decode("latin-1").strip().lower()
        if unit not in _ANALYZE_UNITS:
            raise GeometryError(f"its header states lengths in {unit!a} (vox_units); expected mm, cm, m or um")
        scale = _ANALYZE_UNITS[unit]
        steps = np.array([float(step) for step in header["pixdim"][1:4]])
        notes = (f"lengths are in {unit} and were converted to mm",) if scale != 1 else ()
        factor = header.get_slope_inter()[0]  # which SPM put where Analyze 7.5 has a field of no use
        if factor not in (None, 1):
            notes = (*notes, f"its voxels are scaled by {factor:.6g}, as SPM's Analyze files are")
        return np.diag([*(steps * scale), 1.0]), False, notes
    if suffix in MGH_SUFFIXES:
        raw = stream.read(_MGH_FLAG + 14)
        stated = int.from_bytes(raw[_MGH_FLAG : _MGH_FLAG + 2], "big", signed=True) > 0
        steps = np.frombuffer(raw, ">f4", 3, _MGH_FLAG + 2).astype(float) if stated else np.full(3, math.nan)
        sizes = column_norms(affine)
        if stated and not np.allclose(sizes, steps, rtol=_DIRECTION, atol=0):
            raise GeometryError(
                f"its header states voxels of {steps} mm, and directions of another length, which make {sizes} of them"
            )
        affine[:3, :3][:, ~(steps > 0)] = math.nan
        return affine, stated, ()
    return affine, True, ()
