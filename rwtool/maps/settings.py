"""What ``maps.json`` says: the settings that all maps of a folder share, and a record of each case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import UNSET, Meta, UnsetType
from numpy.typing import NDArray

from rwtool.datasets.classes import Classes
from rwtool.errors import RwtoolError, UsageError
from rwtool.files import is_file_name
from rwtool.io.labels import check_class_values
from rwtool.maps.parameters import (
    USED_BY_KIND,
    Absent,
    Convention,
    Kind,
    MapParameters,
    Profile,
    Storage,
    Units,
    check_classes,
)
from rwtool.records import check_format, check_seal, field_path, read_json, to_record

SIDECAR = "maps.json"
SIDECAR_FORMAT = 3
SIDECAR_REFUSAL = "not a readable sidecar"
_FOLLOWS = ("unit", "other_values")  # from the other settings
SIDECAR_MEND = "make the maps again with overwrite=True"

Count = Annotated[int, Meta(ge=0)]
Millimetres = Annotated[float, Meta(gt=0)]
Voxels = Annotated[int, Meta(ge=1)]
Text = Annotated[str, Meta(pattern=r"^[^\0]+$")]


class MapRecord(msgspec.Struct, frozen=True):
    """The map of one case.

    Attributes
    ----------
    file : str
        In the folder of ``maps.json``.
    bytes : int
    crc32 : str
    times_ns : (2,) int
        Of the last change of its content and of its entry; see :meth:`rwtool.maps.folder.MapSet.is_done`.
    source : str
        The label file that it was made from, as seen from the folder. It is only ever read, and used only where its
        SHA-256 is that of this record.
    source_bytes : int
    source_sha256 : str
    shape : (3,) int
        ``(Z, Y, X)``.
    spacing_mm : (3,) float
    slice_axis : int
    absent, filling, zero_distance : tuple of int
        Label values of the classes that the edge cases of :class:`rwtool.maps.parameters.MapSummary` concern.
    absent_slices, filling_slices : dict of int to int
        Label value to slices.
    largest_distance : dict of int to float
        By label value.
    notes : tuple of str
    seconds : float
    """

    file: Text
    bytes: Count
    crc32: Annotated[str, Meta(pattern="^[0-9a-f]{8}$")]
    times_ns: tuple[int, int]
    source: Text
    source_bytes: Count
    source_sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    shape: tuple[Voxels, Voxels, Voxels]
    spacing_mm: tuple[Millimetres, Millimetres, Millimetres]
    slice_axis: Annotated[int, Meta(ge=0, le=2)]
    absent: tuple[Count, ...]
    filling: tuple[Count, ...]
    zero_distance: tuple[Count, ...]
    absent_slices: dict[Count, Count]
    filling_slices: dict[Count, Count]
    largest_distance: dict[Count, float]
    notes: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class MapSettings:
    """All that must be the same for the maps of one folder; made by :func:`make_settings`.

    Attributes
    ----------
    parameters : MapParameters
    storage : Storage
    classes : Classes
        With the ignored label; where the list came from, and regions, do not matter.
    """

    parameters: MapParameters
    storage: Storage
    classes: Classes

    @property
    def unit(self) -> Units | None:
        """Of the distances, where there are any."""
        return self.parameters.units if self.parameters.uses_distance else None

    @property
    def ignore(self) -> int | None:
        """The label file's value of voxels without a class."""
        return self.classes.ignore

    def other_values(self) -> NDArray[np.float32]:
        """The "other" value of a rectified kind by true class, shape (K,)."""
        return self.parameters.other_values(len(self.classes))

    def as_dict(self) -> dict[str, Any]:
        """As ``maps.json`` states them: plain values, label values in place of class indices."""
        parameters, values = self.parameters.as_dict(), self.classes.values
        if "class_weights" in parameters:
            weights = sorted(self.parameters.class_weights.items())
            parameters["class_weights"] = {str(values[k]): float(weight) for k, weight in weights}
        if "matrix" in parameters:
            parameters["matrix"] = [list(row) for row in parameters["matrix"]]
        content: dict[str, Any] = {
            "kind": self.parameters.kind,
            "parameters": parameters,
            "unit": self.unit,
            "storage": {field.name: getattr(self.storage, field.name) for field in fields(self.storage)},
            "classes": [
                {"index": k, "value": value, "name": name}
                for k, (value, name) in enumerate(zip(values, self.classes.names, strict=True))
            ],
            "ignore": self.ignore,
        }
        if self.parameters.rectified:
            content["other_values"] = [float(value) for value in self.other_values()]
        return content

    def describe(self) -> str:
        """All of it in one line, for people: ``kind rrw, units mm, ..., classes 0 background, 1 core``."""
        content = self.as_dict()
        parts = {**content["parameters"], **content["storage"], "ignore": self.ignore}
        listed = [f"{name} {value}" for name, value in parts.items() if value is not False and value not in (None, {})]
        return ", ".join([*listed, f"classes {self.classes.describe()}"])


def make_settings(parameters: MapParameters, storage: Storage, classes: Classes) -> MapSettings:
    """What all maps of a folder have in common; what means nothing to the kind is left out."""
    used = {name: getattr(parameters, name) for name in USED_BY_KIND[parameters.kind]}
    return MapSettings(MapParameters(parameters.kind, **used), storage, replace(classes, source="", regions={}))


def difference(old: MapSettings, new: MapSettings) -> list[str]:
    """Name what differs between two settings: ``parameters.units: 'mm' and 'voxel'``."""
    first, second = (
        {key: value for key, value in settings.as_dict().items() if key not in _FOLLOWS} for settings in (old, new)
    )
    return _difference(first, second)


def _difference(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key in sorted({*old, *new}):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += _difference(a, b, f"{prefix}{key}.")
        elif a != b and key == "classes":
            values = [", ".join(_named(entry["value"], entry["name"]) for entry in part or []) for part in (a, b)]
            found.append(f"classes: {values[0]} and {values[1]}")
        elif a != b:
            found.append(f"{prefix}{key}: {a!r} and {b!r}")
    return found


def _named(value: int, name: str) -> str:
    return str(value) if name == str(value) else f"{value} {name}"


# The file


class _Parameters(msgspec.Struct, frozen=True):
    kind: Kind
    convention: Convention | UnsetType = UNSET
    units: Units | UnsetType = UNSET
    dims: Literal[2, 3] | UnsetType = UNSET
    alpha: float | UnsetType = UNSET
    beta: float | UnsetType = UNSET
    class_weights: dict[int, float] | UnsetType = UNSET
    absent: Absent | UnsetType = UNSET
    profile: Profile | UnsetType = UNSET
    sigma: float | UnsetType | None = UNSET
    instances: bool | UnsetType = UNSET
    matrix: list[list[float]] | UnsetType = UNSET


class _Class(msgspec.Struct, frozen=True):
    index: Count
    value: Count
    name: str


class _Sidecar(msgspec.Struct, frozen=True):
    format: int
    rwtool: str
    kind: Kind
    parameters: _Parameters
    unit: Units | None
    storage: Storage
    classes: list[_Class]
    ignore: int | None
    cases: dict[str, MapRecord]
    other_values: list[float] | UnsetType = UNSET


def read_sidecar(path: Path) -> tuple[MapSettings, dict[str, MapRecord]]:
    """Read a ``maps.json``: its settings, and its records by case.

    Raises
    ------
    RwtoolError
        It is damaged, of another format, says two things that exclude each other, or names a file that is not that
        of a case.
    """
    content = read_json(path, refusal=SIDECAR_REFUSAL, mend=SIDECAR_MEND)
    check_format(path, content, SIDECAR_FORMAT, refusal=SIDECAR_REFUSAL, mend=SIDECAR_MEND)
    plain = {key: value for key, value in content.items() if key != "crc32"}
    sidecar = to_record(plain, _Sidecar, path, refusal=SIDECAR_REFUSAL, mend=SIDECAR_MEND)
    try:
        settings = _settings_of(sidecar)
        for case, record in sidecar.cases.items():
            check_file_name(case, record, settings.storage)
        stated = {key: value for key, value in plain.items() if key not in ("format", "rwtool", "cases")}
        if wrong := _difference(stated, settings.as_dict()):
            raise UsageError(f"it contradicts itself in {'; '.join(wrong)}")
    except UsageError as error:
        raise RwtoolError(f"{path}: {SIDECAR_REFUSAL}: {error}; {SIDECAR_MEND}") from error
    check_seal(content, path, refusal=SIDECAR_REFUSAL, mend=SIDECAR_MEND)  # last, for a wrong field says more
    return settings, sidecar.cases


def _settings_of(sidecar: _Sidecar) -> MapSettings:
    values = check_class_values([entry.value for entry in sidecar.classes])
    names = tuple(entry.name for entry in sidecar.classes)
    stated = {name: getattr(sidecar.parameters, name) for name in _Parameters.__struct_fields__}
    used = {name: value for name, value in stated.items() if value is not UNSET}
    if "class_weights" in used:
        weights = used["class_weights"]
        if unknown := sorted(set(weights) - set(values)):
            raise UsageError(f"$.parameters.class_weights names label {unknown[0]}, which is no class")
        used["class_weights"] = {values.index(value): weight for value, weight in weights.items()}
    parameters = MapParameters(**used)
    sidecar.storage.check(parameters)
    check_classes(parameters, len(values))
    return make_settings(parameters, sidecar.storage, Classes(values, names, sidecar.ignore))


def check_file_name(case: str, record: MapRecord, storage: Storage) -> None:
    """Refuse a record whose file is not the one, in the folder itself, that a map of this case goes to."""
    expected = f"{case}.{storage.format}"
    if not is_file_name(expected):
        raise UsageError(f"{field_path(['cases', case])}: {case!r} is no name of a case, but leads out of the folder")
    if record.file != expected:
        raise UsageError(f"{field_path(['cases', case, 'file'])}: expected {expected!r}, found {record.file!r}")
