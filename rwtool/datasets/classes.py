"""What the label values of a data set mean: its class list, and where that comes from."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rwtool.errors import RwtoolError, UsageError
from rwtool.io.labels import check_class_values

_INTEGER = re.compile(r"-?[0-9]+")


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
    """

    values: tuple[int, ...]
    names: tuple[str, ...]
    ignore: int | None = None
    source: str = ""

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
    values: Sequence[int], *, names: dict[int, str] | None = None, ignore: int | None = None, source: str = ""
) -> Classes:
    """Make a class list from file values: sorted, checked, `ignore` left out, names filled in."""
    kept = check_class_values([value for value in values if value != ignore])
    known = {0: "background", **(names or {})}
    return Classes(kept, tuple(known.get(value, str(value)) for value in kept), ignore, source)


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
        If it is not JSON, or its labels are regions (lists of values), which have no single class per voxel.
    """
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise RwtoolError(f"{path}: cannot be read as JSON: {error}") from error
    labels = content.get("labels") if isinstance(content, dict) else None
    if not isinstance(labels, dict) or not labels:
        return None
    names: dict[int, str] = {}
    ignore = None
    for key, value in labels.items():
        if isinstance(value, (list, tuple)):
            raise RwtoolError(
                f"{path}: label {key!r} is a region, the values {value}; regions overlap, and a region-wise map needs "
                "one class per voxel; give the plain values with --classes, such as --classes 0,1,2,3"
            )
        # nnU-Net v2 maps names to integers, the Decathlon maps integers, as text, to names
        name, number = (value, key) if isinstance(value, str) and _INTEGER.fullmatch(key) else (key, value)
        if isinstance(number, bool) or not _INTEGER.fullmatch(str(number)):
            raise RwtoolError(
                f"{path}: label {key!r} has the value {value!r}; expected an integer; mend it, or give --classes"
            )
        number = int(number)
        if number in names or number == ignore:
            raise RwtoolError(f"{path}: two labels have the value {number}; expected one each; mend it")
        if name.lower() == "ignore":
            ignore = number
        else:
            names[number] = name
    try:
        return make_classes(sorted({0, *names}), names=names, ignore=ignore, source=str(path))
    except UsageError as error:
        raise RwtoolError(f"{path}: {error}") from error
