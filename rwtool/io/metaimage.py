"""MetaImage (``.mha``, ``.mhd``): what its header says, in the sense in which SimpleITK takes it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rwtool.errors import GeometryError, VolumeError
from rwtool.io.headers import TextHeader, read_meta_header, stated_files
from rwtool.io.raster import Encoding, Raster

_TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "long": "i4", "ulong": "u4",
    "long_long": "i8", "ulong_long": "u8", "float": "f4", "double": "f8",
}  # fmt: skip
_UNITS = {"mm": 1.0, "cm": 10.0, "m": 1000.0, "um": 0.001, "micrometer": 0.001, "?": 1.0, "": 1.0}
_MATRIX = ("transformmatrix", "rotation", "orientation")
_ORIGIN = ("offset", "position", "origin")
_SPACING = ("elementspacing", "elementsize")


def describe_meta(path: Path) -> Raster:
    """What the header of a MetaImage says.

    Raises
    ------
    VolumeError
        It lacks a field, or has a value that is none.
    """
    header = read_meta_header(path)
    fields = header.fields
    size = [_whole(fields, "dimsize", word) for word in _needed(fields, "dimsize").replace(",", " ").split()]
    n = _whole(fields, "ndims", fields.get("ndims", str(len(size))))
    if n != len(size) or not 2 <= n <= 4 or min(size) < 1:
        raise VolumeError(
            f"its header states DimSize = {fields['dimsize']} and NDims = {n}; expected 2, 3 or 4 axes of one voxel or "
            "more"
        )
    channels = _whole(fields, "elementnumberofchannels", fields.get("elementnumberofchannels", "1"))
    if channels < 1:
        raise VolumeError(f"its header states ElementNumberOfChannels = {channels}; expected 1 or more")
    name = _needed(fields, "elementtype").lower().removeprefix("met_").removesuffix("_array")
    if name not in _TYPES:
        raise VolumeError(
            f"its header states ElementType = {fields['elementtype']}; expected MET_UCHAR, MET_SHORT, ..."
        )
    most = next((fields[key] for key in ("binarydatabyteordermsb", "elementbyteordermsb") if key in fields), "False")
    dtype = np.dtype((">" if _true(most) else "<") + _TYPES[name])
    channel_axis = 0 if channels > 1 else 3 if n == 4 and 1 not in (size[0], size[-1]) else None
    affine, placed, notes = _grid(fields, n, 1 if n == 4 and size[0] == 1 != size[-1] else 0)
    files, offset = _files(path, header)
    encoding: Encoding = "raw"
    if not _true(fields.get("binarydata", "True")):
        encoding = "text"
    elif _true(fields.get("compresseddata", "False")):
        encoding = "zlib"
    shape = (channels, *size) if channels > 1 else tuple(size)
    return Raster(files, dtype, shape, channel_axis, encoding, affine, placed, offset, notes=tuple(notes))


def _files(path: Path, header: TextHeader) -> tuple[list[Path], int]:
    """Files with the voxels, and the byte at which they begin in each."""
    skip = _whole(header.fields, "headersize", header.fields.get("headersize", "0"))
    if skip < -1:
        raise VolumeError(f"its header states HeaderSize = {skip}; expected -1, 0 or more")
    name = header.fields["elementdatafile"]
    if name.upper() == "LOCAL":
        if 0 < skip < header.end:
            raise VolumeError(
                f"its header states HeaderSize = {skip}, which is within the header; the voxels begin at byte "
                f"{header.end}; leave that field out"
            )
        return [path], skip or header.end
    return stated_files(path, name, header), skip


def _grid(fields: Mapping[str, str], n: int, first: int) -> tuple[NDArray[np.float64], bool, list[str]]:
    """Affine to LPS mm of three axes from `first`, whether the header states a place, and notes."""
    steps = np.full(n, math.nan)
    for key in _SPACING:
        if key in fields:
            steps = _numbers(fields, key, n, unknown=True)
            break
    origin, placed = np.zeros(n), False
    turn = np.eye(n)
    for key in _ORIGIN:
        if key in fields:
            origin, placed = _numbers(fields, key, n), True
            break
    for key in _MATRIX:
        if key in fields:  # a row is the direction of an axis
            turn, placed = _numbers(fields, key, n * n).reshape(n, n).T, True
            break
    unit = fields.get("distanceunits", "mm")
    if unit.lower() not in _UNITS:
        raise GeometryError(
            f"its header states DistanceUnits = {unit}, which rwtool does not know; expected mm, cm or um"
        )
    scale = _UNITS[unit.lower()]
    axes = slice(first, first + min(n, 3))
    affine = np.eye(4)
    m = min(n, 3)
    affine[:m, :m] = turn[axes, axes] * np.where(np.isfinite(steps), steps, math.nan)[axes] * scale
    affine[:m, 3] = origin[axes] * scale
    notes = [f"lengths are in {unit} and were converted to mm"] if scale != 1 else []
    return affine, placed, notes


def _needed(fields: Mapping[str, str], key: str) -> str:
    if key not in fields:
        raise VolumeError(f"its header lacks the field {key} (MetaImage); write it again")
    return fields[key]


def _whole(fields: Mapping[str, str], key: str, text: str) -> int:
    try:
        value = float(text)
        if value == int(value) and abs(value) < 2**53:
            return int(value)
    except (ValueError, OverflowError):
        pass
    raise VolumeError(f"its header states {key} = {fields.get(key, text)!a}; expected whole numbers")


def _numbers(fields: Mapping[str, str], key: str, n: int, *, unknown: bool = False) -> NDArray[np.float64]:
    """So many finite numbers of a field; with `unknown`, what is no number is NaN."""
    words = fields[key].replace(",", " ").split()
    values: list[Any] = []
    for word in words:
        try:
            values.append(float(word))
        except ValueError:
            values.append(math.nan)
    if unknown and not any(map(math.isfinite, values)):
        return np.full(n, math.nan)
    if len(values) != n or (not unknown and not all(map(math.isfinite, values))):
        raise GeometryError(f"its header states {key} = {fields[key]!a}; expected {n} numbers; mend it")
    return np.array(values)


def _true(text: str) -> bool:
    return text[:1].lower() in ("t", "1", "y")
