"""What runs of ``rwtool train`` came to, epoch by epoch: their ``metrics.csv``, and which runs belong together."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from isal import isal_zlib
from msgspec import Meta
from numpy.typing import NDArray

from rwtool.datasets.runs import (
    CONFIG,
    LAST,
    METRICS,
    RESULTS,
    SPLIT,
    find_seeds,
    parse_source,
    read_divergence,
)
from rwtool.errors import RwtoolError, UsageError, shorten
from rwtool.io.names import case_name
from rwtool.records import read_json, read_toml, to_record

DISTANCES = ("hd_mm", "hd95_mm")
"""Columns of ``metrics.csv`` where distances were measured in every validation."""

_LARGEST_LOSS = float(np.finfo(np.float32).max)
_DICE = "dice_"  # before the label, in a column of metrics.csv
_MEND = "train the run again, or leave it out"
_OF_A_SEED = ("seed", "device", "format", "checkpoint_every", "validate_hd")  # may differ between runs of one method
_NAMES = {"with": "mixed_with"}  # in the TOML file: in Python

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TrainingCurve:
    """A run of ``rwtool train``, epoch by epoch.

    Attributes
    ----------
    folder : Path
    settings : dict of str to Any
        Of its ``config.toml``.
    cases : dict of str to tuple of str
        Its split: ``train`` and ``val``.
    loss, dice : (E,) float array
        Training loss and mean Dice of each epoch that is done; NaN where no validation was.
    class_dice : dict of int to (E,) float array
        By label; NaN also where the class is in no case.
    diverged : int or None
        Epoch in which the loss was not finite.
    distances : dict of str to (E,) float array
        By column of ``metrics.csv``, such as ``hd95_mm`` and ``hd95_mm_1``; empty where the run had not asked for them.
    """

    folder: Path
    settings: Mapping[str, Any]
    cases: Mapping[str, tuple[str, ...]]
    loss: Floats
    dice: Floats
    class_dice: Mapping[int, Floats]
    diverged: int | None
    distances: Mapping[str, Floats] = field(default_factory=dict)

    @property
    def seed(self) -> int:
        """Of the weights, the order and the augmentation."""
        return int(self.settings["seed"])

    @property
    def planned(self) -> int:
        """Epochs that it was to have."""
        return int(self.settings["epochs"])

    @property
    def finished(self) -> bool:
        """Whether it has come to its end: all epochs, or a loss that was not finite."""
        return self.diverged is not None or len(self.loss) >= self.planned


class _Split(msgspec.Struct, frozen=True):
    train: tuple[str, ...]
    val: tuple[str, ...]


class _Settings(msgspec.Struct, frozen=True):
    seed: Annotated[int, Meta(ge=0)]
    epochs: Annotated[int, Meta(ge=1)]


class _Class(msgspec.Struct, frozen=True):
    value: int
    name: str


class _Results(msgspec.Struct, frozen=True):
    classes: list[_Class]


def find_runs(runs: Sequence[str]) -> dict[str, list[Path]]:
    """The run folders of each method, finished or not.

    Parameters
    ----------
    runs : sequence of str
        Each ``NAME=DIR``, ``NAME=DIR1,DIR2`` or ``DIR``; a folder is a run, or holds one for each seed.

    Raises
    ------
    UsageError
        A folder holds no run, or two methods have one name or one folder.
    """
    methods: dict[str, list[Path]] = {}
    owners: dict[Path, str] = {}
    for text in runs:
        name, given = parse_source(text, "runs")
        method = name or case_name(os.path.abspath(text))
        if method in methods:
            raise UsageError(f"two methods are called {method!r}; name them with NAME=DIR")
        methods[method] = [folder for source in given for folder in _folders_of(source)]
        for folder in methods[method]:
            other = owners.setdefault(folder.resolve(), method)
            if other != method or len(set(map(Path.resolve, methods[method]))) < len(methods[method]):
                raise UsageError(f"{folder} is given twice, and one run cannot count as two; name each run once")
    return methods


def _folders_of(source: Path) -> list[Path]:
    if not source.is_dir():
        raise UsageError(f"{source}: there is no such folder; name the folder of the runs of rwtool train")
    if any((source / name).exists() for name in (CONFIG, SPLIT, LAST)):
        return [source]
    seeds = find_seeds(source)
    if not seeds:
        raise UsageError(
            f"{source}: neither a run of rwtool train nor seed-0, seed-1, ... in it; train with several seeds, or "
            "name the folders of the runs, NAME=DIR1,DIR2"
        )
    return seeds


def read_curve(run: Path) -> TrainingCurve | None:
    """Read a run, finished or not; None where it has not begun.

    Raises
    ------
    RwtoolError
        One of its files cannot be read; the message names it.
    """
    if not (run / CONFIG).exists() or not (run / SPLIT).exists():
        return None
    settings = read_toml(run / CONFIG, refusal="cannot be read as the settings of a run", mend=_MEND)
    to_record(settings, _Settings, run / CONFIG, refusal="these are not the settings of a run", mend=_MEND)
    split = read_json(run / SPLIT, refusal="cannot be read as a split", mend=_MEND)
    cases = to_record(split, _Split, run / SPLIT, refusal="cannot be read as a split", mend=_MEND)
    columns = _read_metrics(run / METRICS)
    diverged = read_divergence(run)
    return TrainingCurve(
        run,
        {name: value for name, value in settings.items() if name != CHECKSUM},
        {"train": cases.train, "val": cases.val},
        columns.pop("loss"),
        columns.pop("dice"),
        {int(name.removeprefix(_DICE)): columns.pop(name) for name in list(columns) if name.startswith(_DICE)},
        None if diverged is None else diverged.epoch,
        columns,
    )


def _read_metrics(path: Path) -> dict[str, Floats]:
    """Loss, mean Dice, Dice by label and distances, by column; empty where no epoch is done."""
    if not path.exists():
        return {"loss": np.empty(0), "dice": np.empty(0)}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = csv.DictReader(file, strict=True)
            columns = list(lines.fieldnames or ())
            wanted = ["loss", "dice", *(name for name in columns if _is_measure(name))]
            if not {"epoch", "loss", "dice"} <= set(columns):
                raise RwtoolError(
                    f"{path}, line 1: expected the columns epoch, loss and dice of rwtool train; found "
                    f"{shorten(columns)}; {_MEND}"
                )
            rows = []
            for number, line in enumerate(lines, 1):
                if line["epoch"] != str(number):
                    raise RwtoolError(
                        f"{path}, line {lines.line_num}: expected epoch {number}, found {line['epoch']!r}; {_MEND}"
                    )
                try:
                    if None in line.values() or None in line:
                        raise ValueError(f"expected {len(columns)} fields")
                    if line.get(CHECKSUM, row_checksum(line)) != row_checksum(line):
                        raise ValueError(f"it holds something else than was written ({CHECKSUM} differs)")
                    rows.append([_number(line[name], name) for name in wanted])
                except ValueError as error:
                    raise RwtoolError(f"{path}, line {lines.line_num}: {error}; {_MEND}") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise RwtoolError(f"{path}: cannot be read as a table: {reason}; {_MEND}") from error
    table = np.array(rows, dtype=np.float64).reshape(len(rows), len(wanted))
    return dict(zip(wanted, table.T, strict=True))


CHECKSUM = "crc32"
"""Last column of a metrics.csv, and a key of a config.toml."""


def row_checksum(row: Mapping[str, str]) -> str:
    """CRC-32 of the names and texts of a row's other columns, as a number, which a spreadsheet leaves as it is."""
    text = json.dumps([part for part in row.items() if part[0] != CHECKSUM])
    return str(isal_zlib.crc32(text.encode()))


def _is_measure(column: str) -> bool:
    """Whether it is the Dice of a label, or a distance of all or of one."""
    name, _, label = column.rpartition("_")
    return column in DISTANCES or (name in ("dice", *DISTANCES) and label.isdecimal())


def _number(text: str, column: str) -> float:
    """A loss, as large as float32 can be, a distance or a Dice; NaN where it is not known."""
    number = float(text or "nan")
    if column == "loss":
        if abs(number) > _LARGEST_LOSS:
            raise ValueError(f"expected a finite loss, found {text!r}")
    elif column.startswith(DISTANCES):
        if not 0 <= number < math.inf and not math.isnan(number):
            raise ValueError(f"{column} is 0 mm or more; found {text!r}")
    elif not 0 <= number <= 1 and not math.isnan(number):
        raise ValueError(f"{column} is between 0 and 1; found {text!r}")
    return number


def read_class_names(run: Path) -> dict[int, str]:
    """Names of the classes of a run by label; empty where it has no results yet.

    Raises
    ------
    RwtoolError
        Its ``run.json`` cannot be read.
    """
    path = run / RESULTS
    if not path.exists():
        return {}
    content = read_json(path, refusal="cannot be read as the results of a run", mend=_MEND)
    found = to_record(content, _Results, path, refusal="these are not the results of a run", mend=_MEND)
    return {entry.value: entry.name for entry in found.classes}


def refuse_mixtures(methods: Mapping[str, Sequence[TrainingCurve]]) -> None:
    """Refuse runs of one method that differ in more than their seed, and methods that saw other cases or classes.

    Raises
    ------
    UsageError
        Names what differs, and in which runs.
    """
    for curves in methods.values():
        first, seeds = curves[0], {curves[0].seed: curves[0]}
        for curve in curves[1:]:
            names = sorted(
                name
                for name in {*first.settings, *curve.settings}.difference(_OF_A_SEED)
                if first.settings.get(name) != curve.settings.get(name)
            )
            if names:
                parts = ", ".join(_differing(name, first, curve) for name in names)
                raise UsageError(
                    f"{first.folder} and {curve.folder} differ in more than their seed: {parts}; give them as two "
                    "methods, or leave one out"
                )
            if (other := seeds.setdefault(curve.seed, curve)) is not curve:
                raise UsageError(
                    f"{other.folder} and {curve.folder} have the same seed, {curve.seed}, so they are one run twice; "
                    "leave one out"
                )
    everyone = [curve for curves in methods.values() for curve in curves]
    first = everyone[0]
    for curve in everyone[1:]:
        for part, what in (("train", "trained"), ("val", "validated")):
            differ = sorted(set(first.cases[part]) ^ set(curve.cases[part]))
            if differ:
                raise UsageError(
                    f"{first.folder} and {curve.folder} were {what} on other cases: {shorten(differ)}; train all on "
                    "one split"
                )
        if first.class_dice and curve.class_dice and set(first.class_dice) != set(curve.class_dice):
            raise UsageError(
                f"{first.folder} and {curve.folder} have other classes: {json.dumps(sorted(first.class_dice))} and "
                f"{json.dumps(sorted(curve.class_dice))}; train all on the same"
            )
    for curve in everyone:
        if curve.cases["val"] and curve.diverged is None and len(curve.dice) and np.isnan(curve.dice[-1]):
            raise UsageError(f"{curve.folder}: no foreground in its validation cases, so it has no Dice; leave it out")
    if not first.cases["val"]:
        raise UsageError(f"{first.folder} has no validation cases, so it has no Dice; train with val=0.5 or a split=")


def _differing(name: str, first: TrainingCurve, second: TrainingCurve) -> str:
    values = (first.settings.get(name, "not given"), second.settings.get(name, "not given"))
    return f"{_NAMES.get(name, name)} is {values[0]} and {values[1]}"
