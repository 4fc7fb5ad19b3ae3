"""What a picture is made of: the image, the labels and the maps of one case, on one grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rwtool.datasets.channels import find_images
from rwtool.datasets.classes import Classes
from rwtool.datasets.plan import LabelFile
from rwtool.errors import GeometryError, UsageError, VolumeError
from rwtool.io.formats import read_channels, read_image_channels, suited
from rwtool.io.grids import match_turned
from rwtool.io.volume import Volume
from rwtool.maps.folder import MapSet, check_written, grid_of, iterate_map, read_map_set
from rwtool.maps.parameters import FILED, RECTIFIED, Kind, MapParameters, MapSummary
from rwtool.maps.settings import SIDECAR
from rwtool.maps.streaming import map_blocks
from rwtool.views.planes import Plane


def read_shown_image(
    paths: Sequence[Path], onto: Volume, *, spacing_mm: Sequence[float] | None = None, slice_axis: int | None = None
) -> NDArray[np.float32]:
    """Read the first channel of an image onto the grid of its labels.

    Parameters
    ----------
    paths : sequence of Path
        One file, or one per channel.
    onto : Volume
        The labels.
    spacing_mm, slice_axis
        As for :func:`rwtool.read_image`, where they apply.

    Returns
    -------
    (Z, Y, X) float32 array

    Raises
    ------
    GeometryError
        Image and labels lie on different grids.
    VolumeError
        It cannot be read.
    """
    path = paths[0]
    volume = next(iter(read_image_channels(path, **suited(path, spacing_mm=spacing_mm, slice_axis=slice_axis))))
    turn, match = match_turned(onto.geometry, volume.geometry)
    if not match.same:
        raise GeometryError(f"{path}: it lies on another grid than the labels: {match.difference}; resample it")
    return turn.apply(volume.array)


def image_of(source: str | Path, case: str) -> tuple[Path, ...]:
    """The files of a case's image: the file that is given, or those of the case's name in a folder or glob."""
    path = Path(source)
    if path.is_file():
        return (path,)
    return find_images(source, names=[case])[0][case]


# Maps


@dataclass(frozen=True)
class MapFile:
    """A map on disk, its folder's settings, and the case that it is of."""

    path: Path
    maps: MapSet
    case: str


@dataclass(frozen=True, eq=False)
class MapSlice:
    """One slice of a map: its kind, the unit of its numbers, and its channels, (K, rows, columns)."""

    kind: str
    unit: str
    z: NDArray[np.float32]


def find_maps(source: str | Path, case: str) -> list[MapFile]:
    """The maps of a case that a map file, the folder of a kind, or the folder above it stands for.

    Raises
    ------
    UsageError
        There is none of this case.
    """
    path = Path(source)
    if path.is_file():
        maps = read_map_set(path.parent)
        name = next((name for name, record in (maps.cases if maps else {}).items() if record.file == path.name), None)
        if maps is None or name is None:
            raise UsageError(f"{path}: the {SIDECAR} beside it does not tell of this map; name one of rwtool maps")
        return [MapFile(path, maps, name)]
    folders = [path] if (path / SIDECAR).is_file() else [path / kind for kind in FILED if (path / kind).is_dir()]
    found = [maps for folder in folders if (maps := read_map_set(folder)) is not None]
    if not found:
        raise UsageError(f"{path}: no map and no folder of maps; name one that rwtool maps has made")
    lacking = [maps for maps in found if case not in maps.cases]
    if lacking:
        raise UsageError(f"{lacking[0].folder}: no map of {case} in its {SIDECAR}; name the map's file, or make it")
    return [MapFile(maps.path(case), maps, case) for maps in found]


def classes_of(maps: Sequence[MapFile], given: Sequence[int] | None) -> Classes | None:
    """The class list that maps share; None without maps.

    Raises
    ------
    UsageError
        They have several, or another one than is given.
    """
    if not maps:
        return None
    classes = maps[0].maps.settings.classes
    for other in maps[1:]:
        if other.maps.settings.classes.values != classes.values:
            raise UsageError(
                f"{maps[0].path} and {other.path} are of different classes: {classes.describe()} and "
                f"{other.maps.settings.classes.describe()}; show one of them"
            )
    if given is not None and tuple(sorted(given)) != classes.values:
        raise UsageError(
            f"{maps[0].path} is of the classes {classes.describe()}; found classes=({', '.join(map(str, given))})"
        )
    return classes


def read_map_slice(file: MapFile, labels: LabelFile, volume: Volume, plane: Plane, z: int) -> MapSlice:
    """Read a slice of a map, a channel at a time.

    Raises
    ------
    VolumeError
        It was made from another label file, or does not lie on the grid of its own.
    """
    record = file.maps.cases[file.case]
    if record.source_sha256 != labels.sha256:
        raise VolumeError(
            f"{file.path}: it was made from another label file than {labels.path} (SHA-256 differs); name its own, or "
            "make the maps again"
        )
    parameters = file.maps.settings.parameters
    if file.maps.packed:
        if record.slice_axis != volume.geometry.slice_axis:
            raise UsageError(f"{file.path}: it was made with slice_axis={record.slice_axis}; show it with the same")
        channels = [plane.cut(channel, z).copy() for channel in iterate_map(file.path, labels=labels.path)]
        return MapSlice(parameters.kind, unit_of(parameters), np.stack(channels))
    check_written(file.path, record)
    channels = []
    for channel in read_channels(file.path, **grid_of(file.path, record)):
        turn, match = match_turned(volume.geometry, channel.geometry)
        if not match.same:
            raise VolumeError(f"{file.path}: it lies on another grid than its labels: {match.difference}")
        channels.append(plane.cut(turn.apply(channel.array), z).copy())
        del channel  # before the next one is read
    if len(channels) != len(labels.classes):
        raise VolumeError(
            f"{file.path} has {len(channels)} channels, {SIDECAR} says {len(labels.classes)}; make the maps again"
        )
    return MapSlice(parameters.kind, unit_of(parameters), np.stack(channels))


def make_map_slice(kind: Kind, volume: Volume, n_classes: int, plane: Plane, z: int) -> MapSlice:
    """Make one slice of the map of a whole volume, in mm and 3D; no more than one channel is in memory at once."""
    parameters = MapParameters(kind)
    found = np.zeros((n_classes, *volume.array.shape[1:]), dtype=np.float32)
    blocks = map_blocks(volume.array, volume.spacing_mm, n_classes, parameters, MapSummary(), ignore=volume.ignored)
    for k, (slab, rows, columns), block in blocks:
        if slab.start <= z < slab.stop:
            found[k, rows, columns] = block[z - slab.start]
        del block  # before the next channel is made
    return MapSlice(kind, unit_of(parameters), plane.cut(found[:, np.newaxis], 0))


def unit_of(parameters: MapParameters) -> str:
    """Of the numbers of a map.

    >>> unit_of(MapParameters("hd")), unit_of(MapParameters("rrw"))
    ('mm²', 'no unit')
    """
    if parameters.kind in RECTIFIED:
        return "no unit"
    unit = parameters.units if parameters.units == "mm" else "voxels"
    power = parameters.alpha if parameters.kind == "hd" else 1.0
    return unit if power == 1 else f"{unit}²" if power == 2 else f"{unit}^{power:g}"


def split_ignored(labels: NDArray[Any], ignored: int | None) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Class indices, 0 where a voxel has no class, and where that is; None where every voxel has one."""
    if ignored is None or not (there := labels == ignored).any():
        return labels, None
    return np.where(there, 0, labels), there
