"""DICOM through SimpleITK: one file, or the folder of a series; what is no volume is named for what it is."""

from __future__ import annotations

import math
import mmap
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rwtool.errors import GeometryError, VolumeError, shorten
from rwtool.io.placement import lps_to_ras, place
from rwtool.io.volume import Header, Stored, numpy_type, one_volume

_SAME_STEP = 0.01  # relative: between the slices of a series
_SAME_DIRECTION = 1e-3  # of the cosines of its slices
_ON_LINE = 0.01  # of a step: how far off the line of the others a slice may lie
_SERIES = "0020|000e"
_META_MOST = 1 << 16  # bytes
_SYNTAX = 0x10  # tag of the transfer syntax
_IMPLICIT, _EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"  # little-endian, not packed
_OTHERWISE = ("1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99")  # big-endian, and packed as a whole
_PIXELS, _FRAMES, _COLOURS = b"\xe0\x7f\x10\0", b"\x28\0\x08\0", b"\x28\0\x04\0"
_NUMBERS = tuple(
    b"\x28\0" + bytes(pair) for pair in ((0x10, 0), (0x11, 0), (2, 0), (0, 1))
)  # rows, columns, samples, bits
_BITS = _NUMBERS[-1]
_SAID = (_FRAMES, _COLOURS, *_NUMBERS)
_UNTOLD = 0xFFFFFFFF  # size of what has an end marked
_LONG_KINDS = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
_KINDS = _LONG_KINDS | set(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_DAMAGED = "its element {} is damaged; copy it again from its source"
_META_KINDS = (b"UL", b"OB", b"UI", b"SH", b"AE", b"UR", b"UN", b"UT", b"LO", b"ST")
_STORAGE = "1.2.840.10008.5.1.4.1.1."
_NO_VOLUMES = {  # by the class of the object
    "66.4": (
        "a DICOM segmentation (SEG): its frames are the slices of one segment after another, not one volume; convert "
        "it to a label file first, for instance with dcmqi's segimage2itkimage or with highdicom"
    ),
    "66.7": (
        "a DICOM label map segmentation, whose frames state their places one by one; convert it to a label file first, "
        "for instance with highdicom"
    ),
    "66.5": "a DICOM surface segmentation; convert it to a label file first, for instance with 3D Slicer",
    "481.3": (
        "a set of DICOM contours (RTSTRUCT); convert it to label files first, for instance with dcmrtstruct2nii or "
        "plastimatch"
    ),
    "481.5": "a DICOM treatment plan (RTPLAN), which holds no voxels",
    "66": "a DICOM registration or raw data object, which holds no voxels",
    "66.1": "a DICOM registration, which holds no voxels",
    "66.3": "a DICOM registration, which holds no voxels that are a volume",
    "104.1": "a document (PDF) in DICOM, which holds no voxels",
}
_REPORTS = ("88.", "11.", "9.", "104.", "481.4", "481.6", "481.7", "481.8", "481.9")
_ENHANCED = ("2.1", "2.2", "4.1", "4.3", "4.4", "130", "128.1", "6.2", "13.1.1", "13.1.2", "13.1.3", "12.1.1", "12.2.1")


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM files do."""
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def dicom_files(folder: Path) -> list[Path]:
    """DICOM files of a folder by name, hidden ones left out."""
    return sorted(
        part for part in folder.iterdir() if not part.name.startswith(".") and part.is_file() and is_dicom(part)
    )


def series_of(files: Sequence[Path]) -> dict[str, list[Path]]:
    """Group DICOM files by the series that they belong to (SeriesInstanceUID)."""
    groups: dict[str, list[Path]] = {}
    for path in files:
        reader = _reader(path)
        groups.setdefault(reader.GetMetaData(_SERIES) if _has(reader, _SERIES) else "", []).append(path)
    return groups


def open_dicom(
    path: Path, slice_axis: int | None, voxels: bool = True, spacing_mm: Sequence[float] | None = None
) -> Stored:
    """Read a DICOM file, or the series that is a folder; without `voxels`, its header alone.

    Raises
    ------
    VolumeError
        It is no volume, or damaged.
    GeometryError
        The slices of the series are not one grid: gaps, slices at one place, slices turned against each other.
    """
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    if path.is_dir():
        return _open_series(path, slice_axis, voxels, spacing_mm)
    if (what := no_volume(path)) is not None:
        raise VolumeError(f"it is {what}")
    reader = _reader(path)
    file_shape = tuple(int(n) for n in reader.GetSize())
    shape = one_volume(file_shape)
    frames = shape[2] if len(file_shape) > 2 else 1
    affine = np.eye(4)
    n = min(reader.GetDimension(), 3)
    direction = np.array(reader.GetDirection()).reshape(n, n)
    affine[:n, :n] = direction * np.array(reader.GetSpacing())[:n]
    affine[:n, 3] = reader.GetOrigin()[:n]
    if not _has(reader, "0028|0030", "0018|1164", "0018|2010"):
        affine[:3, :2] = np.nan
    if frames > 1 and not _has(reader, "0018|0088", "3004|000c"):
        affine[:3, 2] = np.nan
    placed = _has(reader, "0020|0037")
    return _finish(reader, file_shape, affine, placed, slice_axis, voxels, spacing_mm, reader)


def _open_series(folder: Path, slice_axis: int | None, voxels: bool, spacing_mm: Sequence[float] | None) -> Stored:
    import SimpleITK as sitk

    every = dicom_files(folder)
    if not every:
        raise VolumeError("it is a folder without DICOM files; name a file, or the folder of a DICOM series")
    files = [path for path in every if no_volume(path) is None]
    if not files:
        raise VolumeError(f"its file {every[0].name} is {no_volume(every[0])}")
    groups = series_of(files)
    if len(groups) > 1:
        raise VolumeError(
            f"it holds {len(groups)} DICOM series, of {shorten([paths[0].name for paths in groups.values()])}; "
            "expected one; put each into a folder of its own, named as the case"
        )
    if len(files) == 1:
        return open_dicom(files[0], slice_axis, voxels, spacing_mm)
    readers = [_reader(path) for path in files]
    order, affine = _stack(readers, files)
    reader = readers[order[0]]
    shape = (*(int(n) for n in reader.GetSize()[:2]), len(files))
    stacked = sitk.ImageSeriesReader()
    stacked.SetFileNames([str(files[k]) for k in order])
    return _finish(reader, shape, affine, True, slice_axis, voxels, spacing_mm, stacked)


def _stack(readers: Sequence[Any], files: Sequence[Path]) -> tuple[list[int], NDArray[np.float64]]:
    """Order of the slices of a series along their normal, and the affine to LPS mm of the stack."""
    first = readers[0]
    for reader, path in zip(readers, files, strict=True):
        if not (_has(reader, "0020|0032") and _has(reader, "0020|0037") and _has(reader, "0028|0030")):
            raise GeometryError(
                f"its slice {path.name} states no position, orientation or pixel spacing, so its place is unknown"
            )
        if reader.GetSize()[2:] not in ((), (1,)):
            raise VolumeError(f"{path.name} holds several frames; expected a slice in each file of a series")
        if (
            reader.GetSize()[:2] != first.GetSize()[:2]
            or reader.GetNumberOfComponents() != first.GetNumberOfComponents()
        ):
            raise VolumeError(f"its slices differ in size: {files[0].name} and {path.name}; keep those of one volume")
    turns = np.array([_numbers(reader, "0020|0037", 6) for reader in readers]).reshape(-1, 2, 3)
    pixels = np.array([_numbers(reader, "0028|0030", 2) for reader in readers])
    off = int(np.abs(turns - turns[0]).max(axis=(1, 2)).argmax())
    if (
        np.abs(turns[off] - turns[0]).max() > _SAME_DIRECTION
        or np.abs(pixels - pixels[0]).max() > 1e-3 * pixels[0].min()
    ):
        worst = (
            off
            if np.abs(turns[off] - turns[0]).max() > _SAME_DIRECTION
            else int(np.abs(pixels - pixels[0]).argmax() // 2)
        )
        raise GeometryError(
            f"its slices are turned against each other, or have other pixels: {files[0].name} and {files[worst].name}; "
            "keep those of one stack"
        )
    row, column = turns[0]
    normal = np.cross(row, column)
    places = np.array([_numbers(reader, "0020|0032", 3) for reader in readers])
    depth = places @ normal
    order = [int(k) for k in np.argsort(depth, kind="stable")]
    steps = np.diff(depth[order])
    step = float(np.median(steps))
    if not steps.min() > _SAME_STEP * step:
        k = int(steps.argmin())
        raise GeometryError(
            f"its slices {files[order[k]].name} and {files[order[k + 1]].name} lie at one place: a series of several "
            "time points or echoes; keep one of them in the folder"
        )
    if np.abs(steps - step).max() > _SAME_STEP * step:
        k = int(np.abs(steps - step).argmax())
        raise GeometryError(
            f"its slices {files[order[k]].name} and {files[order[k + 1]].name} are {steps[k]:.4g} mm apart, the others "
            f"{step:.4g} mm: slices are missing, or their distances differ; complete the series or resample it"
        )
    along = (places[order[-1]] - places[order[0]]) / (len(order) - 1)
    line = places[order[0]] + np.outer(np.arange(len(order)), along)
    if np.abs(places[order] - line).max() > _ON_LINE * max(step, float(pixels[0].min())):
        raise GeometryError("its slices are shifted against each other, so they are no grid; resample the series")
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = row * pixels[0][1], column * pixels[0][0], along
    affine[:3, 3] = places[order[0]]
    return order, affine


def _finish(
    reader: Any,
    file_shape: tuple[int, ...],
    affine: NDArray[np.float64],
    placed: bool,
    slice_axis: int | None,
    voxels: bool,
    spacing_mm: Sequence[float] | None,
    voxel_reader: Any,
) -> Stored:
    import SimpleITK as sitk

    shape = one_volume(file_shape)
    geometry, notes = place(lps_to_ras(affine), shape, file_shape, slice_axis, spacing_mm, placed=placed)
    channels = int(reader.GetNumberOfComponents())
    dtype = numpy_type(reader)
    header = Header(geometry, dtype, notes, channels)
    if not voxels:
        return Stored(header, np.empty(0))
    array = sitk.GetArrayFromImage(voxel_reader.Execute()).reshape((*shape[::-1], channels)).transpose(2, 1, 0, 3)
    return Stored(header, array[..., 0] if channels == 1 else array)


def _reader(path: Path) -> Any:
    import SimpleITK as sitk

    _check_elements(path)
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise VolumeError(f"SimpleITK cannot read {path.name} as a DICOM image; it is damaged or holds none") from error
    return reader


def _check_elements(path: Path) -> None:
    """Refuse a dataset whose elements claim more than the file holds, for which GDCM takes memory, gigabytes of it.

    And an image of plain pixels that holds fewer than it states: GDCM makes up what is missing.
    """
    header, at = _file_header(path)
    syntax = header.get(_SYNTAX, "")
    if syntax in _OTHERWISE or not syntax.startswith(_IMPLICIT):
        return
    pixels, shared = 0, False
    numbers: dict[bytes, int] = {}
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as block:
        for tag, start, size in _elements(block, at, explicit=syntax != _IMPLICIT):
            value = block[start : start + size] if tag in _SAID else b""
            if tag == _PIXELS:
                pixels = max(pixels, size)
            elif tag == _FRAMES:
                if not re.fullmatch(rb" *\d{1,9}[ \0]*", value):
                    raise VolumeError(_DAMAGED.format(_named(tag)))
                numbers.setdefault(tag, int(value.strip(b" \0")))
            elif tag in _NUMBERS:
                if size != 2:
                    raise VolumeError(_DAMAGED.format(_named(tag)))
                numbers.setdefault(tag, int.from_bytes(value, "little"))  # a smaller picture may follow
            elif tag == _COLOURS:
                shared |= b"YBR" in value  # between neighbours
    if not pixels or shared or syntax not in (_IMPLICIT, _EXPLICIT):
        return
    if lacking := next((tag for tag in _NUMBERS if tag not in numbers), None):
        raise VolumeError(f"{path.name} lacks the element {_named(lacking)}; copy it again from its source")
    if numbers[_BITS] not in (8, 16, 32, 64):
        raise VolumeError(f"{path.name} states pixels of {numbers[_BITS]} bits; expected 8, 16, 32 or 64")
    claimed = math.prod(numbers.values()) // 8
    if pixels < claimed:
        raise VolumeError(f"{path.name} holds {pixels:,} bytes of pixels, its header claims {claimed:,}; copy it again")


def _elements(block: mmap.mmap, at: int, *, explicit: bool) -> Iterator[tuple[bytes, int, int]]:
    """Tag, first byte and size of each element of a dataset, of those in sequences too; a size is checked first."""
    seen = False
    while at + 8 <= len(block):
        tag, kind = block[at : at + 4], block[at + 4 : at + 6]
        if tag[:2] == b"\xfe\xff":  # an item of a sequence, or the end of one
            at += 8
            continue
        start = at + 8
        size = int.from_bytes(block[at + 4 : start], "little")
        if explicit:
            if kind not in _KINDS:
                if seen:  # whatever follows the pixels
                    return
                raise VolumeError(_DAMAGED.format(_named(tag)))
            start = at + (12 if kind in _LONG_KINDS else 8)
            size = int.from_bytes(block[at + 8 : start] if start - at == 12 else block[at + 6 : start], "little")
        seen |= tag == _PIXELS
        if size == _UNTOLD:
            if tag == _PIXELS:  # packed, in pieces
                at = _behind_pieces(block, start)
                continue
            if kind == b"UN" and explicit:  # a sequence of another encoding
                return
        elif start + size > len(block):
            raise VolumeError(_DAMAGED.format(_named(tag)))
        else:
            yield tag, start, size
        at = start if size == _UNTOLD or (explicit and kind == b"SQ") else start + size


def _behind_pieces(block: mmap.mmap, at: int) -> int:
    """Where the pieces of packed pixels end."""
    while block[at : at + 4] == b"\xfe\xff\0\xe0":
        size = int.from_bytes(block[at + 4 : at + 8], "little")
        if at + 8 + size > len(block):
            raise VolumeError(_DAMAGED.format(_named(_PIXELS)))
        at += 8 + size
    return at


def _named(tag: bytes) -> str:
    return f"({tag[1]:02x}{tag[0]:02x},{tag[3]:02x}{tag[2]:02x})"


def _has(reader: Any, *keys: str) -> bool:
    return any(reader.HasMetaDataKey(key) and reader.GetMetaData(key).strip() for key in keys)


def _numbers(reader: Any, key: str, n: int) -> list[float]:
    try:
        values = [float(word) for word in reader.GetMetaData(key).split("\\")]
    except ValueError:
        values = []
    if len(values) != n or not np.isfinite(values).all():
        raise GeometryError(f"its tag ({key.replace('|', ',')}) is {reader.GetMetaData(key)!a}; expected {n} numbers")
    return values


def no_volume(path: Path) -> str | None:
    """What a DICOM object is that holds no volume, and what to do with it; None for an image."""
    uid = _storage_class(path)
    kind = uid.removeprefix(_STORAGE)
    if uid == "1.2.840.10008.1.3.10":
        return "a DICOMDIR, the list of the files of a disc; name the folder of one series"
    if kind == uid:
        return None
    if kind in _ENHANCED:
        return (
            "an enhanced multi-frame DICOM image, whose frames state their places one by one; convert it first, for "
            "instance with dcm2niix"
        )
    report = "a DICOM object that holds no volume, such as a report or a presentation state"
    return _NO_VOLUMES.get(kind, report if kind.startswith(_REPORTS) else None)


def _storage_class(path: Path) -> str:
    """Class of a DICOM object."""
    return _file_header(path)[0].get(2, "")


def _file_header(path: Path) -> tuple[dict[int, str], int]:
    """The tags before the dataset of a DICOM object, and where it begins.

    They are little-endian with explicit types always. They are checked: GDCM crashes or hangs on damaged ones.
    """
    with path.open("rb") as stream:
        block = stream.read(_META_MOST)
    if block[128:132] != b"DICM":
        raise VolumeError("this is no DICOM file: it lacks the mark DICM; copy it again from its source")
    found: dict[int, bytes] = {}
    at, last = 132, -1
    while block[at : at + 2] == b"\2\0":
        tag, kind = int.from_bytes(block[at + 2 : at + 4], "little"), block[at + 4 : at + 6]
        long = kind in (b"OB", b"UN", b"UT")
        start = at + (12 if long else 8)
        size = int.from_bytes(block[start - 4 : start] if long else block[start - 2 : start], "little")
        if tag <= last or kind not in _META_KINDS or start + size > len(block):
            raise VolumeError("its DICOM file header is damaged; copy it again from its source")
        found[tag], last = block[start : start + size], tag
        at = start + size
    stated = found.get(0)
    if (
        stated is not None and (len(stated) != 4 or int.from_bytes(stated, "little") != at - 144)
    ) or _SYNTAX not in found:
        raise VolumeError("its DICOM file header is damaged; copy it again from its source")
    return {tag: value.decode("latin-1").strip("\0 ") for tag, value in found.items()}, at
