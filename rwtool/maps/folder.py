"""A folder of maps: one file per case and a sidecar, ``maps.json``, that says what each number means."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rwtool import __version__
from rwtool.datasets.classes import Classes
from rwtool.datasets.plan import LabelFile
from rwtool.errors import RwtoolError, UsageError, VolumeError
from rwtool.files import atomic, file_crc32, locked
from rwtool.io.formats import create, read_channels, read_labels, storage_axes, suited
from rwtool.io.grids import compare_grids
from rwtool.io.names import case_name, file_hash
from rwtool.io.volume import Volume
from rwtool.maps.parameters import MapParameters, MapSummary
from rwtool.maps.streaming import expand_channel, map_blocks

Layout = Literal["dense", "packed"]
Format = Literal["nii.gz", "nii", "npy"]
DType = Literal["float32", "float16", "int16"]

SIDECAR = "maps.json"
_SIDECAR_FORMAT = 1
_SETTINGS = ("parameters", "storage", "classes", "ignore")
_RECORD = ("file", "bytes", "crc32", "source", "source_sha256", "shape", "spacing_mm", "slice_axis", "absent")


@dataclass(frozen=True)
class Storage:
    """How maps are stored.

    Attributes
    ----------
    format : {"nii.gz", "nii", "npy"}
    dtype : {"float32", "float16", "int16"}
        int16 is NIfTI with an explicit ``scl_slope``; float16 is for ``.npy``. Both are for rectified kinds.
    layout : {"dense", "packed"}
        Packed stores the own value alone, for rectified kinds.
    """

    format: Format = "nii.gz"
    dtype: DType = "float32"
    layout: Layout = "dense"

    def check(self, kind: str, rectified: bool) -> None:
        """Refuse what a kind, or a format, cannot hold."""
        if self.dtype == "float16" and self.format != "npy":
            raise UsageError("float16 is for --format npy (NIfTI has no such type); int16 is as small, for NIfTI")
        if self.dtype == "int16" and self.format == "npy":
            raise UsageError("int16 needs the scaling of a NIfTI; with --format npy choose float16 or float32")
        if not rectified and self.dtype != "float32":
            raise UsageError(f"{kind} maps are stored as float32 (their distances overflow {self.dtype} or lose mm)")
        if not rectified and self.layout == "packed":
            raise UsageError(f"{kind} maps cannot be packed: each of their channels holds distances of its own")

    def slope(self, parameters: MapParameters, n_classes: int) -> float:
        """The ``scl_slope`` that spreads the values of a rectified kind over the integers of its type."""
        if self.dtype != "int16":
            return 1.0
        own = {"ac": 0.0, "rrw": 1.0}.get(parameters.kind, abs(parameters.beta or 0.0))
        largest = max(own, float(np.abs(parameters.other_values(n_classes)).max()))
        return float(np.float32(largest / np.iinfo(np.int16).max)) if largest else 1.0


@dataclass(frozen=True)
class MapJob:
    """One case: its label file and the maps to make of it.

    Attributes
    ----------
    name : str
    labels : LabelFile
    outputs : tuple of (MapParameters, Path)
        The folder that each map goes to.
    storage : Storage
    threads : int
    """

    name: str
    labels: LabelFile
    outputs: tuple[tuple[MapParameters, Path], ...]
    storage: Storage
    threads: int = 1

    @property
    def bytes_per_voxel(self) -> int:
        """Of all maps together, before compression."""
        channels = 1 if self.storage.layout == "packed" else len(self.labels.classes)
        return channels * np.dtype(self.storage.dtype).itemsize * len(self.outputs)


def write_maps(job: MapJob) -> dict[str, dict[str, Any]]:
    """Make all maps of a case; returns the sidecar's record of the case by kind."""
    volume = job.labels.read()
    return {parameters.kind: _write_map(job, parameters, folder, volume) for parameters, folder in job.outputs}


def _write_map(job: MapJob, parameters: MapParameters, folder: Path, volume: Volume) -> dict[str, Any]:
    start = time.perf_counter()
    classes, storage, summary = job.labels.classes, job.storage, MapSummary()
    path = folder / f"{job.name}.{storage.format}"
    blocks = map_blocks(
        volume.array,
        volume.spacing_mm,
        len(classes),
        parameters,
        summary,
        ignore=volume.ignored,
        layout=storage.layout,
        axis=storage_axes(volume.geometry, f".{storage.format}")[0],
        threads=job.threads,
    )
    channels = None if storage.layout == "packed" else len(classes)
    slope = storage.slope(parameters, len(classes))
    with create(path, volume.geometry, storage.dtype, channels=channels, slope=slope) as put:
        for _, _, block in blocks:
            put(block)
            del block  # the next channel is made while a loop still holds its last block
    values = classes.values
    return {
        "file": path.name,
        "bytes": path.stat().st_size,
        "crc32": file_crc32(path),
        "source": relative(job.labels.path, folder),
        "source_bytes": job.labels.path.stat().st_size,
        "source_sha256": job.labels.sha256,
        "shape": list(volume.array.shape),
        "spacing_mm": list(volume.spacing_mm),
        "slice_axis": volume.geometry.slice_axis,
        "absent": [values[k] for k in summary.absent],
        "filling": [values[k] for k in summary.filling],
        "zero_distance": [values[k] for k in summary.zero_distance],
        "absent_slices": {str(values[k]): n for k, n in summary.absent_slices.items()},
        "filling_slices": {str(values[k]): n for k, n in summary.filling_slices.items()},
        "largest_distance": {str(values[k]): round(d, 6) for k, d in sorted(summary.largest_distance.items())},
        "notes": list(volume.notes),
        "seconds": round(time.perf_counter() - start, 3),
    }


@dataclass
class MapSet:
    """A folder of maps of one kind, as its sidecar tells it.

    Attributes
    ----------
    folder : Path
    settings : dict
        Everything that must be the same for all cases: parameters, storage, classes, ignore label.
    cases : dict of str to dict
        Case name to record, as written by :func:`write_maps`.
    """

    folder: Path
    settings: dict[str, Any]
    cases: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """Kind of the maps."""
        return str(self.settings["parameters"]["kind"])

    @property
    def n_classes(self) -> int:
        """Number of classes, K."""
        return len(self.settings["classes"])

    @property
    def class_values(self) -> tuple[int, ...]:
        """The label file's value of each class."""
        return tuple(int(entry["value"]) for entry in self.settings["classes"])

    @property
    def ignore(self) -> int | None:
        """The label file's value of voxels without a class."""
        value = self.settings["ignore"]
        return None if value is None else int(value)

    @property
    def packed(self) -> bool:
        """Whether the files hold the own value alone."""
        return bool(self.settings["storage"]["layout"] == "packed")

    def other_values(self) -> NDArray[np.float32]:
        """The "other" value of a rectified kind by true class, shape (K,)."""
        return np.asarray(self.settings["other_values"], dtype=np.float32)

    def path(self, case: str) -> Path:
        """The map file of a case."""
        return self.folder / str(self.cases[case]["file"])

    def source(self, case: str) -> Path:
        """The label file that the map of a case was made from, as far as the sidecar knows."""
        return Path(os.path.normpath(self.folder / str(self.cases[case]["source"])))

    def is_done(self, case: str, labels: LabelFile) -> bool:
        """Whether the map of a case is there, whole, and made from this label file read in this way."""
        record = self.cases.get(case)
        if record is None or any(
            record[key] != value
            for key, value in (
                ("source_sha256", labels.sha256),
                ("shape", list(labels.shape)),
                ("spacing_mm", list(labels.spacing_mm)),
                ("slice_axis", labels.slice_axis),
            )
        ):
            return False
        path = self.path(case)
        return path.is_file() and path.stat().st_size == record["bytes"]

    def save(self) -> None:
        """Write the sidecar; what another run with these settings has added meanwhile stays in it."""
        path = self.folder / SIDECAR
        with locked(path):
            with contextlib.suppress(RwtoolError):
                there = read_map_set(self.folder)
                if there is not None and there.settings == self.settings:
                    self.cases = {**there.cases, **self.cases}
            content = {
                "rwtool": __version__,
                "format": _SIDECAR_FORMAT,
                **self.settings,
                "cases": dict(sorted(self.cases.items())),
            }
            with atomic(path) as temporary:
                temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def make_settings(parameters: MapParameters, storage: Storage, classes: Classes) -> dict[str, Any]:
    """What a sidecar says of all its cases together."""
    settings: dict[str, Any] = {
        "kind": parameters.kind,
        "parameters": {
            **parameters.as_dict(),
            **(
                {"class_weights": {str(classes.values[k]): w for k, w in sorted(parameters.class_weights.items())}}
                if parameters.rectified
                else {}
            ),
        },
        "unit": ("mm" if parameters.units == "mm" else "voxel") if parameters.uses_distance else None,
        "storage": {"format": storage.format, "dtype": storage.dtype, "layout": storage.layout},
        "classes": [
            {"index": k, "value": value, "name": name}
            for k, (value, name) in enumerate(zip(classes.values, classes.names, strict=True))
        ],
        "ignore": classes.ignore,
    }
    if parameters.rectified:
        settings["other_values"] = [float(value) for value in parameters.other_values(len(classes))]
    return settings


def read_map_set(folder: str | Path) -> MapSet | None:
    """Read the sidecar of a map folder; None where there is none.

    Raises
    ------
    RwtoolError
        If the sidecar is damaged, or written by a later rwtool in another form.
    """
    path = Path(folder) / SIDECAR
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        form, cases = content.pop("format"), content.pop("cases")
        content.pop("rwtool")
        if form == _SIDECAR_FORMAT:
            for part, keys in ((content, _SETTINGS), *((record, _RECORD) for record in cases.values())):
                missing = [key for key in keys if key not in part]
                if missing:
                    raise ValueError(f"it lacks {missing[0]!r}")
            return MapSet(Path(folder), content, cases)
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise RwtoolError(f"{path}: not a readable sidecar ({error}); make the maps again with --overwrite") from error
    raise RwtoolError(f"{path}: written in form {form} by another rwtool; this one reads form {_SIDECAR_FORMAT}")


def difference(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Name what differs between two settings: ``parameters.units: 'mm' and 'voxel'``."""
    found = []
    for key in sorted({*old, *new}):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += difference(a, b, f"{prefix}{key}.")
        elif a != b and key == "classes":
            values = [", ".join(str(entry["value"]) for entry in part or []) for part in (a, b)]
            found.append(f"classes: {values[0]} and {values[1]}")
        elif a != b:
            found.append(f"{prefix}{key}: {a!r} and {b!r}")
    return found


def iterate_map(path: str | Path, *, labels: str | Path | None = None) -> Iterator[NDArray[np.float32]]:
    """Give the dense channels of a map file one after another, ``(Z, Y, X)`` each.

    Parameters are those of :func:`read_map`.
    """
    path = Path(path)
    maps = read_map_set(path.parent)
    case = case_name(path)
    record = maps.cases.get(case) if maps else None
    where = {} if record is None else grid_of(path, record)
    if maps is None or record is None or not maps.packed:
        for volume in read_channels(path, **where):
            yield volume.array
        return
    own = next(iter(read_channels(path, **where)))
    source = read_source(maps, case, labels)
    match = compare_grids(source.geometry, own.geometry)
    if not match.same:
        raise VolumeError(f"{path}: it lies on another grid than its labels: {match.difference}; make the maps again")
    others = maps.other_values()
    for k in range(maps.n_classes):
        yield expand_channel(own.array, source.array, others, k, ignore=source.ignored)


def read_map(path: str | Path, *, labels: str | Path | None = None) -> NDArray[np.float32]:
    """Read a map as a dense array, whatever its format, type and layout on disk.

    Parameters
    ----------
    path : path
        A file of a map folder. Its sidecar, ``maps.json`` beside it, tells how it was stored; a dense NIfTI can
        do without.
    labels : path, optional
        The case's label file. A packed map is read together with it; by default it is where the sidecar says it was.

    Returns
    -------
    (K, Z, Y, X) float32 array

    Raises
    ------
    VolumeError
        If a file is missing or damaged, or the label file is not the one that the map was made from.
    """
    return np.stack(list(iterate_map(path, labels=labels)))


def read_source(maps: MapSet, case: str, labels: str | Path | None = None) -> Volume:
    """Read the label file that a map was made from, as class indices, and make sure that it is the same one.

    Parameters
    ----------
    maps : MapSet
    case : str
    labels : path, optional
        Where the file is now.

    Returns
    -------
    Volume

    Raises
    ------
    VolumeError
        If it is not there, or its SHA-256 is another.
    """
    source = Path(labels) if labels is not None else maps.source(case)
    record = maps.cases[case]
    if not source.is_file():
        raise VolumeError(
            f"{source}: no such file, but the map {maps.path(case)} was made from it; name it with labels="
        )
    if file_hash(source) != record["source_sha256"]:
        raise VolumeError(
            f"{source}: this is not the label file that the map {maps.path(case)} was made from; its hash differs"
        )
    return read_labels(source, classes=maps.class_values, ignore=maps.ignore, **grid_of(source, record))


def grid_of(path: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """What a record knows of the grid that the file itself does not say, as arguments to read it with."""
    return suited(path, spacing_mm=record["spacing_mm"], slice_axis=record["slice_axis"])


def relative(path: Path, folder: Path) -> str:
    """Path as seen from a folder, so that a project can be moved as a whole; absolute across drives."""
    try:
        return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    except ValueError:
        return path.resolve().as_posix()
