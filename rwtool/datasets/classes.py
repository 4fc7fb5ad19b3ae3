"""What the label values of a data set mean: its class list, and where that comes from."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from rwtool.errors import RwtoolError, UsageError
from rwtool.io.labels import check_class_values
from rwtool.records import field_path, read_parsed, to_record

_INTEGER = re.compile(r"-?[0-9]{1,18}")
_REFUSAL = "its labels cannot be read"
_MEND = "mend it, or give classes=(0, 1, ...)"

Value = Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]


@dataclass(frozen=True)
class Classes:
    """The class list of a data set: class k has the file value ``values[k]``.

    Attributes
    ----------
    values : (K,) int
        Ascending; the first is 0, the background.
    names : (K,) str
        The value itself where no name is known.
    ignore : int or None
        The file's value for voxels without a class.
    source : str
        Where the list comes from, for people.
    regions : dict of str to tuple of int
        Named unions of label values, which may overlap.
    map_values : dict of int to int
        Values of the files that stand for one of `values`.
    """

    values: tuple[int, ...]
    names: tuple[str, ...]
    ignore: int | None = None
    source: str = ""
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    map_values: Mapping[int, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.values)

    def describe(self) -> str:
        """The classes in one line: ``0 background, 1 kidney, 2 tumour``."""
        return ", ".join(
            str(value) if name == str(value) else f"{value} {name}"
            for value, name in zip(self.values, self.names, strict=True)
        )


def parse_values(text: str) -> tuple[int, ...]:
    """Parse a class list such as ``0,1,2,4``."""
    try:
        return check_class_values([int(part) for part in text.replace(" ", "").split(",") if part])
    except ValueError:
        raise UsageError(f"a class list is numbers with commas, such as 0,1,2; found {text!r}") from None


def make_classes(
    values: Sequence[int],
    *,
    names: Mapping[int, str] | None = None,
    ignore: int | None = None,
    source: str = "",
    regions: Mapping[str, Sequence[int]] | None = None,
) -> Classes:
    """Make a class list from file values: sorted, checked, `ignore` left out, names filled in."""
    if wrong := [value for value in (*values, ignore or 0) if not -(1 << 63) <= value < 1 << 63]:
        raise UsageError(f"a label value is a whole number of 64 bits; found {wrong[0]}")
    if ignore == 0:
        raise UsageError("ignore=0 is the background, a class like any other; name the value of voxels without a class")
    kept = check_class_values([value for value in values if value != ignore])
    known = {0: "background", **(names or {})}
    named = tuple(known.get(value, str(value)) for value in kept)
    return Classes(kept, named, ignore, source, check_regions(regions or {}, kept))


def check_regions(regions: Mapping[str, Sequence[int]], values: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Check that regions are unions of the values of classes, under names that are no numbers.

    Raises
    ------
    UsageError
        One is not.
    """
    for name, parts in regions.items():
        if not name.strip() or _INTEGER.fullmatch(name):
            raise UsageError(f"a region has a name that is no number; found {name!r}; such as regions={{core: (2, 3)}}")
        unknown = [part for part in parts if part not in values]
        if unknown or not parts or len(set(parts)) < len(parts):
            raise UsageError(
                f"region {name!r} is a union of label values, each once; found {', '.join(map(str, parts)) or 'none'}; "
                f"the classes are {', '.join(map(str, values))}"
            )
    return {name: tuple(sorted(parts)) for name, parts in regions.items()}


def find_dataset_json(cases: dict[str, Path]) -> Path | None:
    """Find nnU-Net's ``dataset.json`` beside the label files or in the folder above them."""
    folder = Path(os.path.abspath(next(iter(cases.values())))).parent  # a link stands where it is, not where it leads
    for place in (folder, folder.parent):
        if (place / "dataset.json").is_file():
            return place / "dataset.json"
    return None


def read_dataset_json(path: Path) -> Classes | None:
    """Read the class list of an nnU-Net data set.

    Parameters
    ----------
    path : Path
        A ``dataset.json`` of nnU-Net v2 (name to value) or of the Medical Segmentation Decathlon (value to name).

    Returns
    -------
    Classes or None
        None where the file holds no ``labels``, so it is some other ``dataset.json``.

    Raises
    ------
    RwtoolError
        If it is not JSON, or names a label twice.

    Notes
    -----
    A label that is a list of values is a region: their union. A value that no label but a region names is a class
    called by its value.
    """
    content = read_parsed(path, _parse_pairs, refusal="cannot be read as JSON", mend=_MEND)
    found = [value for key, value in content if key == "labels"] if isinstance(content, _Pairs) else []
    if len(found) > 1:
        raise RwtoolError(f"{path}: {_REFUSAL}: the key 'labels' stands twice; {_MEND}")
    if not found or not isinstance(found[0], _Pairs) or not found[0]:
        return None
    keys = [key for key, _ in found[0]]
    if twice := sorted({key for key in keys if keys.count(key) > 1}):
        raise RwtoolError(f"{path}: {_REFUSAL}: the key {twice[0]!r} stands twice in $.labels; {_MEND}")
    plain = {key: dict(value) if isinstance(value, _Pairs) else value for key, value in found[0]}
    labels = to_record({"labels": plain}, _Dataset, path, refusal=_REFUSAL, mend=_MEND).labels
    names: dict[int, str] = {}
    regions: dict[str, list[int]] = {}
    ignore = None
    for key, value in labels.items():
        if isinstance(value, list):
            regions[str(key)] = value
            continue
        # nnU-Net v2 maps names to integers, the Decathlon maps integers, as text, to names
        name, number = (value, key) if isinstance(value, str) and _INTEGER.fullmatch(key) else (key, value)
        if not _INTEGER.fullmatch(str(number)):
            raise RwtoolError(
                f"{path}: {_REFUSAL}: {field_path(['labels', key])}: expected int, found {value!r}; {_MEND}"
            )
        number = int(number)
        if number in names or number == ignore:
            raise RwtoolError(f"{path}: two labels have the value {number}; expected one each; mend it")
        if str(name).lower() == "ignore":
            ignore = number
        else:
            names[number] = str(name)
    try:
        values = sorted({0, *names, *(part for parts in regions.values() for part in parts)})
        return make_classes(values, names=names, ignore=ignore, source=str(path), regions=regions)
    except UsageError as error:
        raise RwtoolError(f"{path}: {error}") from error


class _Pairs(list[tuple[str, Any]]):
    """An object of JSON, its keys as often as they stand there."""


def _parse_pairs(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_Pairs)


class _Dataset(msgspec.Struct, frozen=True):
    labels: dict[str, Value | str | list[Value]]
