"""Which cases a run trains on, and which it is validated on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from rwtool.datasets.subjects import find_subjects
from rwtool.errors import UsageError, shorten
from rwtool.files import is_file_name
from rwtool.io.names import case_name
from rwtool.records import read_json, read_parsed, sealed, to_record, write_json

_FORMAT = 1
_SPLIT_FORM = 'expected {"train": [names], "val": [names]}, or a list of such objects (nnU-Net\'s splits_final.json)'
_LIST_FORM = (
    'expected one case name a line, or JSON: a list of names, an object with such a list under "val", or a list of '
    "such objects (nnU-Net's splits_final.json)"
)


class _Fold(msgspec.Struct, frozen=True):
    train: list[str]
    val: list[str]
    format: Literal[1] | UnsetType = UNSET  # as Split.write numbers it; other programs write none


class _Validation(msgspec.Struct, frozen=True):
    val: list[str]
    format: Literal[1] | UnsetType = UNSET


@dataclass(frozen=True)
class Split:
    """Case names, each in one part.

    Attributes
    ----------
    train, val : tuple of str
        Sorted; `val` may be empty.
    """

    train: tuple[str, ...]
    val: tuple[str, ...]

    def write(self, path: Path) -> None:
        """Write the split as JSON, in the form that :func:`read_split` and ``rwtool evaluate --cases`` read."""
        write_json(path, sealed({"format": _FORMAT, "train": self.train, "val": self.val}))


def make_split(names: Sequence[str], *, val: float, seed: int = 0, subject: str | None = None) -> Split:
    """Split cases at random; all scans of a subject go to the same part.

    Parameters
    ----------
    names : sequence of str
    val : float
        Share of the subjects that are validated on; rounded to whole subjects, at least one on each side unless `val`
        is 0.
    seed : int
    subject : str, optional
        Regex, see :func:`rwtool.datasets.subjects.find_subjects`; by default each case is a subject.

    Raises
    ------
    UsageError
        There are too few subjects to split, or the regex does not fit.

    Examples
    --------
    >>> make_split(["a", "b", "c", "d"], val=0.5, seed=1)
    Split(train=('c', 'd'), val=('a', 'b'))
    """
    of_case = {name: name for name in names} if subject is None else find_subjects(names, subject)
    subjects = sorted(set(of_case.values()))
    if val == 0:
        return Split(tuple(sorted(names)), ())
    if len(subjects) < 2:
        raise UsageError(
            f"there is {len(subjects)} subject, which cannot be split; give val=0 to train on all without validation"
        )
    count = min(max(round(val * len(subjects)), 1), len(subjects) - 1)
    drawn = np.random.default_rng(seed).permutation(len(subjects))[:count]
    chosen = {subjects[index] for index in drawn}
    return Split(
        tuple(sorted(name for name in names if of_case[name] not in chosen)),
        tuple(sorted(name for name in names if of_case[name] in chosen)),
    )


def read_split(source: str, names: Sequence[str]) -> Split:
    """Read a split from JSON: an object with lists ``train`` and ``val``, or one of nnU-Net's folds (``FILE:2``).

    Parameters
    ----------
    source : str
        ``splits_final.json`` alone is its fold 0.
    names : sequence of str
        The cases that there are; those that the split does not name are left out.

    Raises
    ------
    UsageError
        It cannot be read, names a case that is not there or is in both parts, or trains on none.
    """
    path, number = split_fold(source)
    fold = number or 0
    content = read_json(path, refusal="cannot be read as a split", mend=_SPLIT_FORM, error=UsageError)
    kind: Any = list[_Fold] if isinstance(content, list) else _Fold
    found = to_record(content, kind, path, refusal="not a split", mend=_SPLIT_FORM, error=UsageError)
    folds: list[_Fold] = found if isinstance(found, list) else [found]
    if fold >= len(folds):
        raise UsageError(f"{path}: there is no fold {fold}; it holds {len(folds)}, counted from 0")
    parts = (folds[fold].train, folds[fold].val)
    train, val = (tuple(sorted({_case(name, path) for name in part})) for part in parts)
    both = sorted(set(train) & set(val))
    if both:
        raise UsageError(f"{path}: cases in both train and val: {shorten(both)}; each belongs to one")
    unknown = sorted({*train, *val} - set(names))
    if unknown:
        raise UsageError(f"{path}: cases without a label file: {shorten(unknown)}; the cases are {shorten(names)}")
    if not train:
        raise UsageError(f"{path}: it names no case to train on")
    return Split(train, val)


def read_case_names(source: str, *, empty: bool = False) -> tuple[str, ...]:
    """Read the names of the cases to evaluate.

    Parameters
    ----------
    source : str
        A text file of one name a line, or a JSON file: a list of names; an object with a list ``"val"``; or a list of
        such objects, one per fold (nnU-Net's ``splits_final.json``): the ``"val"`` of all folds together, or that of
        fold 2 alone with ``FILE:2``.
    empty : bool
        Whether it may name none.

    Returns
    -------
    tuple of str
        Each once, without file extensions.

    Raises
    ------
    UsageError
        The file cannot be read, or holds none of these.
    """
    names = _read_names(source)
    if not names and not empty:
        raise UsageError(f"{source}: it names no case")
    return names


def _read_names(source: str) -> tuple[str, ...]:
    """The case names of a file as for :func:`read_case_names`; there may be none."""
    path, fold = split_fold(source)
    refusal = "cannot be read as a list of cases"
    content: Any
    if path.suffix.lower() == ".json":
        content = read_json(path, refusal=refusal, mend=_LIST_FORM, error=UsageError)
    else:
        content = read_parsed(path, str.splitlines, refusal=refusal, mend=_LIST_FORM, error=UsageError)
    refusal = "not a list of cases"
    if isinstance(content, dict) or (isinstance(content, list) and any(isinstance(entry, dict) for entry in content)):
        kind: Any = list[_Validation] if isinstance(content, list) else _Validation
        found = to_record(content, kind, path, refusal=refusal, mend=_LIST_FORM, error=UsageError)
        folds: list[_Validation] = found if isinstance(found, list) else [found]
        if fold is not None:
            if fold >= len(folds):
                raise UsageError(f"{path}: there is no fold {fold}; it holds folds 0 to {len(folds) - 1}")
            folds = [folds[fold]]
        content = [name for part in folds for name in part.val]
    elif fold is not None:
        raise UsageError(f"{path}: it holds no folds, so leave out the :{fold}")
    content = to_record(content, list[str], path, refusal=refusal, mend=_LIST_FORM, error=UsageError)
    names = [_case(name, path) for name in content if name.strip()]
    return tuple(dict.fromkeys(names))


def _case(name: str, path: Path) -> str:
    """The case that a line or an entry names, by its name or a file of it."""
    case = case_name(name.strip())
    if not is_file_name(case):
        raise UsageError(f"{path}: {name!r} is no name of a case; mend it")
    return case


def split_fold(source: str) -> tuple[Path, int | None]:
    """Path and number of ``FILE:2``; of a file without a number, None."""
    path = Path(source)
    if not path.is_file() and (parts := re.fullmatch(r"(.+):(\d{1,9})", source)):
        return Path(parts[1]), int(parts[2])
    return path, None
