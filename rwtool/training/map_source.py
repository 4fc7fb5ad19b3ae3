"""What a loss takes from the maps of a data set: magnitudes per voxel, and how they become a map again.

Everything that a loss needs of a map fits into magnitudes and labels: the sign of a value says whether its class is the
voxel's own, so it comes from the labels. That holds after a warp too, where the labels have moved with the magnitudes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rwtool.datasets.classes import Classes
from rwtool.errors import UsageError, VolumeError
from rwtool.io.formats import read_channels
from rwtool.io.grids import compare_grids
from rwtool.io.volume import Volume
from rwtool.maps.folder import MapSet, check_written, grid_of, read_map_set
from rwtool.maps.parameters import RECTIFIED, MapParameters, MapSummary
from rwtool.maps.settings import SIDECAR, MapRecord
from rwtool.maps.streaming import map_blocks


@dataclass(frozen=True)
class MapUse:
    """How the map of a case is found or made, and what its magnitudes mean.

    Attributes
    ----------
    kind : {"rrw", "boundary", "ac", "hd", "skeleton", "matrix"}
    n_classes : int
    other_values : (K,) float
        Of a rectified kind; its own magnitude alone is kept (none for ac, where it is 0), and with `instances` the
        other value of each voxel.
    exponent : float
        The map is a magnitude to this power (hd).
    maps : MapSet, optional
        The folder to read from; without it maps are computed.
    instances : bool
        Whether components of a class are told apart.
    matrix : (K, K) float, optional
        Class distances.
    """

    kind: str
    n_classes: int
    other_values: tuple[float, ...] = ()
    exponent: float = 1.0
    maps: MapSet | None = None
    instances: bool = False
    matrix: tuple[tuple[float, ...], ...] | None = None

    @property
    def rectified(self) -> bool:
        """Whether one magnitude per voxel, that of the own class, says all."""
        return self.kind in RECTIFIED

    @property
    def channels(self) -> int:
        """Magnitudes per voxel."""
        if self.instances:
            return 2
        return 0 if self.kind in ("ac", "matrix") else 1 if self.rectified else self.n_classes

    @property
    def scales(self) -> bool:
        """Whether magnitudes are distances, which grow with the picture; those of rrw are shares of the largest."""
        return self.kind in ("boundary", "hd")

    @property
    def sliced(self) -> bool:
        """Whether distances were measured slice by slice, so that they hold in the plane of the label file alone."""
        return self.maps is not None and self.maps.settings.parameters.sliced

    def magnitudes(self, case: str, labels: Volume, sha256: str) -> NDArray[np.float32] | None:
        """Give the magnitudes of a case.

        Parameters
        ----------
        case : str
        labels : Volume
            Class indices.
        sha256 : str
            Of the label file, which must be the one that the map was made from.

        Returns
        -------
        (channels, Z, Y, X) float32 array, or None without channels
            0 where ignored.

        Raises
        ------
        VolumeError
            The map is missing, damaged, or was made from other labels, or of the same read in another way.
        """
        if not self.channels:
            return None
        maps = self.maps
        result = self._compute(labels) if maps is None else self._read(maps, case, labels, sha256)
        np.abs(result, out=result)
        if labels.ignored is not None:
            result[:, labels.array == labels.ignored] = 0
        if maps is not None and not np.isfinite(result).all():
            raise VolumeError(f"{maps.path(case)}: it holds a value that is not finite; run rwtool maps again")
        return result

    def _compute(self, labels: Volume) -> NDArray[np.float32]:
        # the exponent of hd is left to the loss
        parameters = MapParameters(self.kind, alpha=1.0 if self.kind == "hd" else None)  # type: ignore[arg-type]
        result = np.zeros((self.channels, *labels.array.shape), dtype=np.float32)
        blocks = map_blocks(
            labels.array,
            labels.spacing_mm,
            self.n_classes,
            parameters,
            MapSummary(),
            ignore=labels.ignored,
            layout="packed" if self.rectified else "dense",
        )
        for k, where, block in blocks:
            result[k][where] = block
        return result

    def _read(self, maps: MapSet, case: str, labels: Volume, sha256: str) -> NDArray[np.float32]:
        record = maps.cases.get(case)
        if record is None:
            raise VolumeError(f"{maps.folder / SIDECAR}: it has no map of {case}; run rwtool maps again")
        path = maps.path(case)
        if record.source_sha256 != sha256:
            raise VolumeError(f"{path}: it was made from other labels (their hash differs); run rwtool maps again")
        _check_grid(path, record, labels)
        if not path.is_file():
            raise VolumeError(f"{path}: no such file, though {SIDECAR} names it; run rwtool maps again")
        check_written(path, record)
        result = np.zeros((self.channels, *labels.array.shape), dtype=np.float32)
        found, wanted = 0, self.channels if maps.packed else self.n_classes
        for k, channel in enumerate(read_channels(path, **grid_of(path, record))):
            if channel.array.shape != labels.array.shape:
                raise VolumeError(
                    f"{path}: its shape (z, y, x) is {channel.array.shape}, that of the labels {labels.array.shape}; "
                    "run rwtool maps again"
                )
            match = compare_grids(labels.geometry, channel.geometry)
            if not match.same:
                raise VolumeError(
                    f"{path}: it lies on another grid than the labels: {match.difference}; run rwtool maps again"
                )
            found += 1
            if maps.packed and k < wanted:
                result[k] = channel.array
            elif self.rectified:
                own = labels.array == k
                np.copyto(result[0], channel.array, where=own)
                if self.instances:
                    np.copyto(result[1], channel.array, where=~own)
            elif k < self.channels:
                result[k] = np.abs(channel.array) ** np.float32(1 / self.exponent)
        if found != wanted:
            raise VolumeError(f"{path}: it has {found} channels in place of {wanted}; run rwtool maps again")
        return result

    def describe(self) -> str:
        """Say where the maps come from."""
        return f"{self.kind} maps " + ("computed now" if self.maps is None else f"from {self.maps.folder}")


def plan_map_use(kind: str, folder: Path | None, classes: Classes) -> MapUse:
    """Settle how the maps of a data set are come by.

    Parameters
    ----------
    kind : {"rrw", "boundary", "ac", "hd", "skeleton", "matrix"}
    folder : Path, optional
        Of the maps of this kind, or the folder above it; without it they are computed, in mm and in the volume.
    classes : Classes
        Of the labels.

    Raises
    ------
    UsageError
        There are no such maps, or they were made for other classes; or class distances are not given.
    """
    if folder is None:
        if kind == "matrix":
            raise UsageError(
                "the matrix loss takes its numbers from maps; write them by rwtool maps LABELS MAPS --kind matrix "
                "--matrix FILE, and give maps="
            )
        plain = MapParameters(kind)  # type: ignore[arg-type]
        others = plain.other_values(len(classes)) if plain.rectified else ()
        return MapUse(kind, len(classes), tuple(map(float, others)), float(plain.alpha or 1) if kind == "hd" else 1.0)
    maps = _find_maps(kind, folder)
    if maps.class_values != classes.values or maps.ignore != classes.ignore:
        raise UsageError(
            f"{maps.folder}: these maps were made for the classes {_list(maps.class_values)}"
            f"{_ignore(maps.ignore)}; the labels have {_list(classes.values)}{_ignore(classes.ignore)}; make the maps "
            "again, or give the same classes and ignore"
        )
    others = maps.other_values() if kind in RECTIFIED else ()
    parameters = maps.settings.parameters
    exponent = float(parameters.alpha or 1) if kind == "hd" else 1.0
    matrix = None if parameters.matrix is None else tuple(map(tuple, parameters.matrix))
    return MapUse(kind, len(classes), tuple(map(float, others)), exponent, maps, parameters.instances, matrix)


def _find_maps(kind: str, folder: Path) -> MapSet:
    for place in (folder, folder / kind):
        maps = read_map_set(place)
        if maps is None:
            continue
        if maps.kind != kind:
            raise UsageError(f"{place} holds {maps.kind} maps; this loss takes {kind} maps: name the folder above it")
        return maps
    there = sorted(path.parent.name for path in folder.glob(f"*/{SIDECAR}"))
    found = f"found {', '.join(there)}" if there else "found none"
    raise UsageError(
        f"{folder}: no {kind} maps ({found}); make them with rwtool maps LABELS {folder} --kind {kind}, or leave out "
        "maps to have them computed at the start"
    )


def _check_grid(path: Path, record: MapRecord, labels: Volume) -> None:
    """Refuse a map whose axes were turned in another way than those of the labels, or that has other distances."""
    axis = labels.geometry.slice_axis
    if record.slice_axis != axis:
        raise VolumeError(
            f"{path}: it was made with the slice axis {record.slice_axis}, the labels have {axis}; give "
            f"slice_axis={record.slice_axis}, or run rwtool maps again"
        )
    if not np.allclose(record.spacing_mm, labels.spacing_mm, rtol=1e-3):  # labels may carry none
        made = [f"{mm:g}" for mm in record.spacing_mm]
        raise VolumeError(
            f"{path}: it was made for voxels of {' x '.join(made)} mm, the labels have "
            f"{' x '.join(f'{mm:g}' for mm in labels.spacing_mm)}; give spacing_mm=({', '.join(made)}), or run "
            "rwtool maps again"
        )


def _list(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values))


def _ignore(value: int | None) -> str:
    return "" if value is None else f" (ignored: {value})"
