"""BIDS derivatives: what their ``dseg.tsv`` calls the values of their label files."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable
from pathlib import Path

from rwtool.datasets.classes import Classes
from rwtool.datasets.layouts import role_of
from rwtool.errors import RwtoolError, shorten
from rwtool.io.names import case_name
from rwtool.records import read_parsed

_SUFFIX, _TABLE = "dseg", "dseg.tsv"
_REFUSAL, _MEND = "cannot be read as a table of labels", "mend it, move it away, or give classes=(0, 1, ...)"
_INDEX = re.compile(r"-?[0-9]{1,18}")
_DEPTH = 4  # of folders: sub-*/ses-*/anat, and the data set's


def find_tables(paths: Iterable[Path]) -> tuple[Path, ...]:
    """Find the tables that hold for label files of BIDS, by its inheritance principle.

    Of a ``sub-01_ses-1_desc-aseg_dseg.nii.gz`` it is the nearest file, beside it or above it up to the folder that
    holds ``sub-01``, whose name ends with ``dseg.tsv`` and has no entity that the label file lacks; of several in one
    folder that with most entities. Other label files have none.

    Returns
    -------
    tuple of Path
        Each once.
    """
    listed: dict[Path, list[Path]] = {}
    found: dict[Path, None] = {}
    for path in paths:
        role = role_of(path)
        if role is None or not role.labels or not case_name(path).endswith(f"_{_SUFFIX}"):
            continue
        entities = _entities(case_name(path))
        for folder in _upwards(Path(os.path.abspath(path)).parent):
            if folder not in listed:
                listed[folder] = sorted(folder.glob(f"*{_TABLE}")) if os.access(folder, os.R_OK | os.X_OK) else []
            fitting = [table for table in listed[folder] if _entities(table.stem) <= entities and table.is_file()]
            if fitting:
                found[max(fitting, key=lambda table: len(_entities(table.stem)))] = None
                break
    return tuple(found)


def read_names(paths: Iterable[Path]) -> tuple[dict[int, str], tuple[Path, ...]]:
    """Read what the tables of label files call their values.

    Parameters
    ----------
    paths : iterable of Path
        Label files.

    Returns
    -------
    names : dict of int to str
    tables : tuple of Path

    Raises
    ------
    RwtoolError
        A table cannot be read, or two give a value two names.
    """
    names: dict[int, str] = {}
    of: dict[int, Path] = {}
    tables = find_tables(paths)
    for table in tables:
        for value, name in read_table(table).items():
            if names.setdefault(value, name) != name:
                raise RwtoolError(
                    f"{table}: it calls the label {value} {name!r}, and {of[value]} calls it {names[value]!r}; "
                    f"expected one name; {_MEND}"
                )
            of.setdefault(value, table)
    return names, tables


def read_table(path: Path) -> dict[int, str]:
    """Read a ``dseg.tsv``: its columns ``index`` and ``name``.

    Raises
    ------
    RwtoolError
        It lacks one of them, or an index is no whole number or stands twice.
    """
    return read_parsed(path, _parse, refusal=_REFUSAL, mend=_MEND)


def warn_of_names(classes: Classes, paths: Iterable[Path]) -> str | None:
    """Warn of label files whose tables call a value something else than it is called among the classes.

    Parameters
    ----------
    classes : Classes
    paths : iterable of Path
        Other label files of the same cases: predictions.
    """
    names, tables = read_names(paths)
    for value, ours in zip(classes.values[1:], classes.names[1:], strict=True):
        theirs = names.get(value, ours)
        if ours != str(value) and theirs.lower() != ours.lower():
            return (
                f"{shorten(list(map(str, tables)))} calls label {value} {theirs!r}, which is {ours!r} in the "
                "reference; if these are two structures, the numbers are of different ones"
            )
    return None


def _parse(text: str) -> dict[int, str]:
    rows = list(csv.reader(text.splitlines(), delimiter="\t"))
    header = rows[0] if rows else []
    lacking = [column for column in ("index", "name") if column not in header]
    if lacking:
        raise ValueError(f"it has no column {' and '.join(lacking)}; found {', '.join(header) or 'nothing'}")
    at, called = header.index("index"), header.index("name")
    names: dict[int, str] = {}
    for number, row in enumerate(rows[1:], start=2):
        if not row:
            continue
        if len(row) <= max(at, called) or not _INDEX.fullmatch(row[at].strip()):
            raise ValueError(f"line {number}: expected a whole number as index, and a name; found {' '.join(row)!r}")
        value = int(row[at])
        if value in names:
            raise ValueError(f"line {number}: the index {value} stands twice")
        names[value] = row[called].strip() or str(value)
    return names


def _entities(stem: str) -> frozenset[str]:
    """``sub-01`` and ``desc-aseg`` of ``sub-01_desc-aseg_dseg``."""
    return frozenset(stem.split("_")[:-1])


def _upwards(folder: Path) -> Iterable[Path]:
    """A folder and those above it, up to the one that holds the subject's; two of them where there is no such."""
    within = [folder, *folder.parents][:_DEPTH]
    subject = next((k for k, each in enumerate(within) if each.name.startswith("sub-")), 0)
    return within[: subject + 2]
