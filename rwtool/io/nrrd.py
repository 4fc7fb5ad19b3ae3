"""NRRD (``.nrrd``, ``.nhdr``): what its header says, in the sense in which SimpleITK takes it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rwtool.errors import GeometryError, VolumeError
from rwtool.io.headers import TextHeader, read_nrrd_header, stated_files
from rwtool.io.raster import Encoding, Raster

_TYPES = {
    "i1": "signedchar int8 int8_t", "u1": "uchar unsignedchar uint8 uint8_t",
    "i2": "short shortint signedshort signedshortint int16 int16_t",
    "u2": "ushort unsignedshort unsignedshortint uint16 uint16_t",
    "i4": "int signedint int32 int32_t", "u4": "uint unsignedint uint32 uint32_t",
    "i8": "longlong longlongint signedlonglong signedlonglongint int64 int64_t",
    "u8": "ulonglong unsignedlonglong unsignedlonglongint uint64 uint64_t",
    "f4": "float", "f8": "double",
}  # fmt: skip
_TYPE_OF = {name: code for code, names in _TYPES.items() for name in names.split()}
_ENCODINGS: dict[str, Encoding] = {
    "raw": "raw", "txt": "text", "text": "text", "ascii": "text", "hex": "hex", "gz": "gzip", "gzip": "gzip",
    "bz2": "bzip2", "bzip2": "bzip2",
}  # fmt: skip
_SPACES = {  # signs that turn each to left, posterior, superior
    "right-anterior-superior": (-1, -1, 1), "ras": (-1, -1, 1), "left-anterior-superior": (1, -1, 1), "las": (1, -1, 1),
    "left-posterior-superior": (1, 1, 1), "lps": (1, 1, 1),
}  # fmt: skip
_UNITS = {
    "mm": 1.0, "millimeter": 1.0, "millimeters": 1.0, "millimetre": 1.0, "millimetres": 1.0, "cm": 10.0, "m": 1000.0,
    "meter": 1000.0, "metre": 1000.0, "um": 0.001, "\u00b5m": 0.001, "\u03bcm": 0.001, "micron": 0.001,
    "microns": 0.001, "micrometer": 0.001, "micrometre": 0.001, "nm": 1e-6, "in": 25.4, "inch": 25.4, "": 1.0,
    "???": 1.0,
}  # fmt: skip
_OF_SPACE = ("domain", "space", "???", "none", "")


def describe_nrrd(path: Path) -> Raster:
    """What the header of an NRRD file says.

    Raises
    ------
    VolumeError
        It lacks a field, or has a value that is none.
    """
    header = read_nrrd_header(path)
    fields = header.fields
    n = _whole(fields, "dimension")
    sizes = [_whole(fields, "sizes", word) for word in _needed(fields, "sizes").split()]
    if len(sizes) != n or min(sizes, default=0) < 1:
        raise VolumeError(f"its header states dimension: {n} and sizes: {fields['sizes']}; expected as many, above 0")
    code = _TYPE_OF.get(_needed(fields, "type").lower().replace(" ", ""))
    if code is None:
        raise VolumeError(f"its header states type: {fields['type']}; expected one number per voxel, such as uint8")
    encoding = _ENCODINGS.get(_needed(fields, "encoding").lower())
    if encoding is None:
        raise VolumeError(f"its header states encoding: {fields['encoding']}; expected raw, gzip, bzip2, text or hex")
    dtype = np.dtype(code)
    if dtype.itemsize > 1 and encoding != "text":
        order = _needed(fields, "endian").lower()
        if order not in ("little", "big"):
            raise VolumeError(f"its header states endian: {fields['endian']}; expected little or big")
        dtype = dtype.newbyteorder("<" if order == "little" else ">")
    space = [axis for axis in range(n) if _is_of_space(fields, n, axis)]
    channel = [axis for axis in range(n) if axis not in space]
    if len(channel) > 1 or not 1 <= len(space) <= 4:
        raise VolumeError(
            f"expected one volume of at most three axes, and one of channels; found {n} axes, sizes: "
            f"{fields['sizes']}, kinds: {fields.get('kinds', 'not stated')}"
        )
    if len(space) == 4 and 1 not in (sizes[space[0]], sizes[space[-1]]):  # no kind tells which axis is none of space
        steps = _steps(fields, n)
        vectors = _vectors(fields["spacedirections"]) if "spacedirections" in fields else []
        first = vectors[0] is None if vectors else math.isnan(steps[0]) and not math.isnan(steps[3])
        channel = [space.pop(0 if first else 3)]
    _refuse_layers(fields, sizes, channel)
    kept = space[1:] if len(space) == 4 and sizes[space[0]] == 1 != sizes[space[-1]] else space[:3]
    affine, placed, notes = _grid(fields, n, kept)
    files, offset = _files(path, header)
    skip_bytes = _whole(fields, "byteskip", fields.get("byteskip", "0"))
    skip_lines = _whole(fields, "lineskip", fields.get("lineskip", "0"))
    if skip_bytes < -1 or skip_lines < 0 or (skip_bytes == -1 and encoding not in ("raw", "gzip", "bzip2")):
        raise VolumeError(f"its header states line skip: {skip_lines}, byte skip: {skip_bytes}; expected 0 or more")
    return Raster(
        files, dtype, tuple(sizes), channel[0] if channel else None, encoding, affine, placed, offset,
        skip_lines, skip_bytes, tuple(notes),
    )  # fmt: skip


def _is_of_space(fields: Mapping[str, str], n: int, axis: int) -> bool:
    kinds = fields.get("kinds", "").lower().split()
    if len(kinds) == n and kinds[axis] not in _OF_SPACE:
        return False
    directions = _vectors(fields["spacedirections"]) if "spacedirections" in fields else []
    none = len(directions) == n and directions[axis] is None
    return not (none and n - sum(vector is None for vector in directions) >= 3)


def _refuse_layers(fields: Mapping[str, str], sizes: list[int], channel: list[int]) -> None:
    """Say what a 3D Slicer segmentation of several layers is."""
    if channel and sizes[channel[0]] > 1 and any(re.fullmatch(r":segment\d+_layer", key) for key in fields):
        raise VolumeError(
            f"it is a 3D Slicer segmentation of {sizes[channel[0]]} layers, whose segments may overlap; expected one "
            "label per voxel; in Slicer, export it to a label map (Segmentations, Export to files) and name that file"
        )


def _files(path: Path, header: TextHeader) -> tuple[list[Path], int]:
    """Files with the voxels, and the byte at which they begin in each."""
    name = header.fields.get("datafile")
    if name is None:
        return [path], header.end
    return stated_files(path, name, header), 0


def _grid(fields: Mapping[str, str], n: int, space: list[int]) -> tuple[NDArray[np.float64], bool, list[str]]:
    """Affine to LPS mm of the axes of space, whether the header states a place, and notes."""
    affine = np.eye(4)
    signs, placed = np.ones(3), False
    if "space" in fields:
        known = _SPACES.get(
            re.sub("-time$|t$", "", fields["space"].lower()) if "scanner" not in fields["space"] else ""
        )
        signs, placed = (np.ones(3), False) if known is None else (np.array(known), True)
    m = len(space)
    if "spacedirections" in fields:
        directions = _vectors(fields["spacedirections"])
        if len(directions) != n:
            raise GeometryError(
                f"its header states space directions: {fields['spacedirections']}; expected {n} vectors"
            )
        for column, axis in enumerate(space):
            vector = directions[axis]
            affine[:3, column] = 0
            if vector is None:
                affine[:3, column] = math.nan
            else:
                affine[: min(len(vector), 3), column] = vector[:3]
        scales = _units(fields, "spaceunits")
        scale = (*scales, 1.0, 1.0, 1.0)[:3] if scales else (1.0, 1.0, 1.0)
        origin = (_vectors(fields["spaceorigin"]) or [None])[0] if "spaceorigin" in fields else None
        if origin is not None:
            affine[: min(len(origin), 3), 3] = origin[:3]
        placed &= "spaceorigin" in fields
        affine[:3] *= np.array(scale)[:, None]
    else:
        steps = _steps(fields, n)[space]
        scales = _units(fields, "units") or [1.0] * n
        if len(scales) != n:
            raise GeometryError(f"its header states units: {fields['units']}; expected {n} of them")
        scale = tuple(scales[axis] for axis in space)
        affine[range(m), range(m)] = steps * scale
        placed = False
    if m < 3:
        affine[:3, m:3] = np.eye(3)[:, m:]
    notes = []
    if any(value != 1 for value in scale):
        stated = fields.get("spaceunits" if "spacedirections" in fields else "units")
        notes.append(f"lengths are in {stated} and were converted to mm")
    affine[:3] *= signs[:, None]
    return affine, placed, notes


def _steps(fields: Mapping[str, str], n: int) -> NDArray[np.float64]:
    """Spacings of all axes, NaN where unknown."""
    words = fields.get("spacings", "").split()
    if words and len(words) != n:
        raise GeometryError(f"its header states spacings: {fields['spacings']}; expected {n} of them")
    values = []
    for word in words or ["nan"] * n:
        try:
            values.append(float(word))
        except ValueError:
            values.append(math.nan)
    return np.array(values)


def _vectors(text: str) -> list[list[float] | None]:
    """The vectors of a field; one that is ``none`` or not of finite numbers is None."""
    found: list[list[float] | None] = []
    for match in re.finditer(r"\(([^)]*)\)|[^\s()]+", text):
        try:
            vector = [float(word) for word in (match[1] or "").split(",")]
        except ValueError:
            vector = [math.nan]
        found.append(vector if all(map(math.isfinite, vector)) else None)
    return found


def _units(fields: Mapping[str, str], key: str) -> list[float]:
    """Millimetres in each unit of a field."""
    names = re.findall(r'"([^"]*)"', fields.get(key, "")) or fields.get(key, "").split()
    scales = []
    for name in names:
        if name.strip().lower() not in _UNITS:
            raise GeometryError(
                f"its header states lengths in {name!a}, which rwtool does not know; expected mm, cm, m, um or nm"
            )
        scales.append(_UNITS[name.strip().lower()])
    return scales


def _needed(fields: Mapping[str, str], key: str) -> str:
    if key not in fields:
        raise VolumeError(f"its header lacks the field {key} (NRRD); write it again")
    return fields[key]


def _whole(fields: Mapping[str, str], key: str, text: str | None = None) -> int:
    text = _needed(fields, key) if text is None else text
    try:
        value = int(text)
        if abs(value) < 2**53:
            return value
    except ValueError:
        pass
    raise VolumeError(f"its header states {key}: {text!a}; expected whole numbers")
