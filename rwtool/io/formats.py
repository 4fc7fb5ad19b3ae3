"""Volumes out of files: each by the module of its format."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rwtool.errors import RwtoolError, UsageError, VolumeError
from rwtool.files import naming
from rwtool.io.arrays import map_npy, npy_geometry, open_npy
from rwtool.io.blosc import open_array, open_b2nd
from rwtool.io.dicom import is_dicom, open_dicom
from rwtool.io.geometry import NoSpacingError, settle_spacing
from rwtool.io.itk import open_sitk
from rwtool.io.labels import ignored_value, label_counts, map_labels, round_labels, to_classes
from rwtool.io.metaimage import describe_meta
from rwtool.io.names import (
    BARE_SUFFIXES,
    DICOM_SUFFIXES,
    META_SUFFIXES,
    NIFTI_SUFFIXES,
    NO_SPACING,
    NRRD_SUFFIXES,
    OTHER_SUFFIXES,
    PICTURE_SUFFIXES,
    READ_ERRORS,
    SUFFIXES,
    first_bytes,
    is_bare_array,
    is_nifti,
    may_be_volume,
    parts,
    split_name,
)
from rwtool.io.neuro import open_neuro
from rwtool.io.nifti import describe_nifti, is_nifti_pair, nifti_stream, open_nifti, read_nifti_header
from rwtool.io.nrrd import describe_nrrd
from rwtool.io.pictures import open_picture, stated_spacing
from rwtool.io.placement import of_space
from rwtool.io.raster import open_raster
from rwtool.io.volume import Header, Stored, Volume, to_volume

_MINC_1 = b"CDF"


def read_header(
    path: str | Path, *, spacing_mm: Sequence[float] | None = None, slice_axis: int | None = None
) -> Header:
    """Read what a file says of itself, without its voxels.

    Parameters, and errors raised, are those of :func:`read_image`.
    """
    given = None if spacing_mm is None else tuple(spacing_mm)
    state = _state(path)
    if state is None:
        return _open(Path(path), given, slice_axis, voxels=False).header
    return _known_header(os.fspath(path), given, slice_axis, state)


def _state(path: str | Path) -> tuple[tuple[int, ...], ...] | None:
    """Numbers that change when a file does, of each that belongs to it; None where there are none to go by."""
    try:
        found = [os.stat(part) for part in parts(Path(path))]
    except (OSError, ValueError, RwtoolError):
        return None
    if not all(stat.S_ISREG(each.st_mode) for each in found):
        return None
    return tuple((each.st_ino, each.st_size, each.st_mtime_ns, each.st_ctime_ns) for each in found)


@lru_cache(maxsize=1 << 14)
def _known_header(
    path: str, spacing_mm: tuple[float, ...] | None, slice_axis: int | None, _: tuple[tuple[int, ...], ...]
) -> Header:
    """Look once into a file that stays as it is."""
    return _open(Path(path), spacing_mm, slice_axis, voxels=False).header


def read_image(path: str | Path, *, spacing_mm: Sequence[float] | None = None, slice_axis: int | None = None) -> Volume:
    """Read an image.

    Parameters
    ----------
    path : path
        NIfTI, ``.npy`` or any file that SimpleITK reads.
    spacing_mm : (3,) float, optional
        Along ``(z, y, x)``; needed for files that state none, such as ``.npy`` and pictures (``.png``, ``.tif``), and
        refused for others.
    slice_axis : int, optional
        The file axis (0, 1 or 2) that is z. By default :func:`rwtool.io.geometry.find_slice_axis` finds it. Refused for
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
    return to_volume(stored.header, _scaled(stored.array, stored.slope, stored.inter))


def read_labels(
    path: str | Path,
    *,
    classes: Sequence[int] | None = None,
    ignore: int | None = None,
    map_values: Mapping[int, int] | None = None,
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
        The file's value for voxels without a class; they become the largest value of the array's type, which
        ``Volume.ignored`` names.
    map_values : dict of int to int, optional
        Values of the file that stand for others, such as ``{255: 1}``; `classes` are the values after that.
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
    # a bare array's own axes are (z, y, x): a refused voxel is named so that its author finds it
    turn = (2, 1, 0) if is_bare_array(path) else (0, 1, 2)
    with naming(path):
        array = round_labels(
            stored.array.transpose(turn), slope=stored.slope, inter=stored.inter, ignore=ignore
        ).transpose(turn)
        mapped = tuple(old for old in map_values or () if (array == old).any())
        if map_values:
            array = map_labels(array, map_values, ignored=ignore is not None)
        if classes is not None:
            array = to_classes(array, classes, ignored=ignore is not None)
    volume = replace(to_volume(stored.header, array), mapped=mapped)
    return volume if ignore is None else replace(volume, ignored=ignored_value(array.dtype))


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
    for header, stored, slope, inter in _streamed(path, spacing_mm, slice_axis):
        values = _scaled(stored, slope, inter)
        if stored.dtype.kind == "i" and not is_bare_array(path):
            values[stored == np.iinfo(stored.dtype).min] = np.nan
        yield to_volume(header, values)
        del stored, values  # before the next ones are read


def count_channels(path: str | Path) -> int:
    """How many numbers an image holds per voxel: 1, or the channels of a 4D, vector or colour image.

    Raises
    ------
    VolumeError, GeometryError
        The file cannot be read.
    """
    path = Path(path)
    if not is_bare_array(path) and not is_nifti(path):
        where = suited(path, spacing_mm=(1, 1, 1))
        return _open(path, where["spacing_mm"], None, voxels=False, many=True, indices=False).header.channels
    if not path.is_file():
        raise VolumeError(f"{path}: no such file")
    with naming(path, *READ_ERRORS):
        if is_bare_array(path):
            shape = map_array(path).shape
            return shape[0] if len(of_space(shape)) == 4 else 1
        with nifti_stream(path) as stream:
            shape = tuple(int(n) for n in read_nifti_header(stream).get_data_shape())
        return shape[3] if len(shape) == len(of_space(shape)) == 4 else 1


def read_image_channels(
    path: str | Path, *, spacing_mm: Sequence[float] | None = None, slice_axis: int | None = None
) -> Iterator[Volume]:
    """Read the channels of an image one after another: of a 4D, vector or colour image, or the only one of another.

    Parameters
    ----------
    path : path
        As for :func:`read_image`. A 4D file has its channels last, an ``.npy`` first; a colour picture has three, and
        how transparent its pixels are is left out.
    spacing_mm, slice_axis
        As for :func:`read_image`.

    Yields
    ------
    Volume
        ``array`` is ``(Z, Y, X)`` float32, with the file's scaling applied.

    Raises
    ------
    VolumeError, GeometryError, UsageError
        As for :func:`read_image`.
    """
    path = Path(path)
    if (is_bare_array(path) or is_nifti(path)) and count_channels(path) > 1:
        for header, part, slope, inter in _streamed(path, spacing_mm, slice_axis):
            yield to_volume(header, _scaled(part, slope, inter))
        return
    stored = _open(path, spacing_mm, slice_axis, many=True, indices=False)
    channels = stored.header.channels
    for k in range(channels):
        part = stored.array[..., k] if channels > 1 else stored.array
        if part.dtype.kind not in "buif":
            raise VolumeError(f"{path}: expected one number per voxel; found the type {part.dtype}")
        yield to_volume(stored.header, _scaled(part, stored.slope, stored.inter))


def _streamed(
    path: Path, spacing_mm: Sequence[float] | None, slice_axis: int | None
) -> Iterator[tuple[Header, NDArray[Any], float, float]]:
    """Header, voxels as stored, slope and intercept of each channel of a NIfTI or ``.npy`` file."""
    if not path.is_file():
        raise VolumeError(f"{path}: no such file")
    with naming(path, *READ_ERRORS):
        if is_bare_array(path):
            array = map_array(path)
            for k in range(len(array)) if array.ndim == 4 else (...,):
                channel = np.asanyarray(array[k])
                geometry = npy_geometry(channel.shape, spacing_mm, slice_axis)
                stored = geometry.to_file(channel.reshape(geometry.array_shape))
                yield Header(geometry, channel.dtype), stored, 1.0, 0.0
            return
        with nifti_stream(path) as stream:
            found = describe_nifti(path, stream, slice_axis, many=True, spacing_mm=spacing_mm)
            for k in range(found.channels):
                stored, _ = found.read(stream, k, last=k == found.channels - 1)
                yield found.header, stored, found.slope, found.inter
                del stored


def _scaled(stored: NDArray[Any], slope: float, inter: float) -> NDArray[np.float32]:
    """Values as the file means them; what is beyond float32 is infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        values: NDArray[np.float32] = stored.astype(np.float32)
        if (slope, inter) != (1.0, 0.0):
            values *= np.float32(slope)
            values += np.float32(inter)
    return values


def carries_spacing(path: str | Path) -> bool:
    """Whether a file says how far apart its voxels are; one that does not is read with a ``spacing_mm``.

    Its header is looked at. A file that cannot be read passes: reading it says why.
    """
    try:
        if split_name(path)[1] in NO_SPACING:
            return stated_spacing(Path(path)) is not None
        read_header(path)
    except NoSpacingError:
        return False
    except (OSError, ValueError, RwtoolError):
        pass
    return True


def suited(
    path: str | Path, *, spacing_mm: Sequence[float] | None = None, slice_axis: int | None = None
) -> dict[str, Any]:
    """Arguments to read one file of a data set with: the spacing and slice axis of the set, where they apply to it.

    Parameters
    ----------
    path : path
    spacing_mm : (3,) float, optional
        Along ``(z, y, x)``, of the files that carry none.
    slice_axis : int, optional
        Of the files that have axes of their own.

    Returns
    -------
    dict
        ``spacing_mm`` and ``slice_axis`` as :func:`read_header`, :func:`read_labels` and their sisters take them.
    """
    return {
        "spacing_mm": None if spacing_mm is None or carries_spacing(path) else spacing_mm,
        "slice_axis": None if is_bare_array(path) else slice_axis,
    }


def check_suited(
    paths: Iterable[Path],
    *,
    spacing_mm: Sequence[float] | None = None,
    slice_axis: int | None = None,
) -> None:
    """Refuse, before anything is read, what no file of a data set takes, and the lack of a spacing that one needs.

    Parameters
    ----------
    paths : iterable of Path
    spacing_mm, slice_axis
        As for :func:`suited`.

    Raises
    ------
    UsageError
    """
    paths = list(paths)
    bare = next((path for path in paths if not carries_spacing(path)), None)
    if bare is not None:
        with naming(bare):
            settle_spacing((), spacing_mm, (), what=_carrier(bare))
    elif spacing_mm is not None and paths:
        raise UsageError(f"spacing_mm= is for files without one, such as .npy; {paths[0]} carries its own spacing")
    if slice_axis is not None and paths and all(map(is_bare_array, paths)):
        raise UsageError(f"{paths[0]}: slice_axis= is not for .npy files, whose arrays are (z, y, x) already")


def _open(
    path: Path,
    spacing_mm: Sequence[float] | None,
    slice_axis: int | None,
    *,
    voxels: bool = True,
    many: bool = False,
    indices: bool = True,
) -> Stored:
    """Read a file; with `many`, its voxels may have channels, with `indices`, a palette is no colour."""
    if not path.exists():
        raise VolumeError(f"{path}: no such file")
    if not may_be_volume(path):
        raise VolumeError(f"{path}: it is no regular file; expected a file, or the folder of a DICOM series")
    with naming(path, *READ_ERRORS), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        if path.is_file():
            first_bytes(path)
        stored = _open_as(path, slice_axis, voxels, spacing_mm, indices)
        if stored.header.channels > 1 and not many:
            raise VolumeError(_several(stored.header))
    return stored


def _open_as(
    path: Path, slice_axis: int | None, voxels: bool, spacing_mm: Sequence[float] | None, indices: bool
) -> Stored:
    """Read a file through the module of its format."""
    suffix = split_name(path)[1]
    where = (path, slice_axis, voxels, spacing_mm)
    if path.is_dir() or suffix in DICOM_SUFFIXES or (not suffix and is_dicom(path)):  # a folder whatever its name
        return open_dicom(*where)
    if suffix in BARE_SUFFIXES:
        return open_npy(path, spacing_mm, slice_axis) if suffix == ".npy" else open_b2nd(*where)
    if suffix in NIFTI_SUFFIXES or is_nifti_pair(path):
        return open_nifti(*where)
    if suffix in PICTURE_SUFFIXES:
        return open_picture(*where, indices=indices)
    if suffix in (*META_SUFFIXES, *NRRD_SUFFIXES):
        raster = describe_meta(path) if suffix in META_SUFFIXES else describe_nrrd(path)
        return open_raster(raster, slice_axis, voxels, spacing_mm)
    if not suffix:
        raise VolumeError(f"rwtool knows no format of this name; expected one of {', '.join(SUFFIXES)}")
    through_itk = suffix in OTHER_SUFFIXES and not first_bytes(path).startswith(_MINC_1)
    return open_sitk(*where) if through_itk else open_neuro(*where)


def map_array(path: Path) -> Any:
    """The array of a ``.npy`` or ``.b2nd`` file, whose parts are read when they are taken."""
    return map_npy(path) if split_name(path)[1] == ".npy" else open_array(path)


def _several(header: Header) -> str:
    """What is said of a file with several numbers per voxel where one is expected."""
    return (
        f"expected one 3D volume of one number per voxel; found {header.channels} per voxel (a colour, vector or 4D "
        "image); write one file per channel and try again"
    )


def _carrier(path: Path) -> str:
    """What lacks a spacing."""
    suffix = split_name(path)[1]
    return f"an {suffix} file" if suffix in NO_SPACING else "the header"
