"""Which cases a run trains on, and which it is validated on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rwtool.errors import UsageError
from rwtool.files import atomic, split_name
from rwtool.pairing import shorten, split_fold
from rwtool.subjects import find_subjects


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
        with atomic(path) as temporary:
            content = {"train": list(self.train), "val": list(self.val)}
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


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
        Regex, see :func:`rwtool.subjects.find_subjects`; by default each case is a subject.

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
            f"there is {len(subjects)} subject, which cannot be split; give --val 0 to train on all without validation"
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
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read as a split: {error}") from error
    folds = content if isinstance(content, list) else [content]
    if fold >= len(folds):
        raise UsageError(f"{path}: there is no fold {fold}; it holds {len(folds)}, counted from 0")
    lists = [folds[fold].get(part) if isinstance(folds[fold], dict) else None for part in ("train", "val")]
    if not all(isinstance(part, list) and all(isinstance(name, str) for name in part) for part in lists):
        raise UsageError(
            f'{path}: expected {{"train": [names], "val": [names]}}, or a list of such objects (nnU-Net\'s '
            "splits_final.json)"
        )
    train, val = (tuple(sorted({split_name(name.strip())[0] for name in part or []})) for part in lists)
    both = sorted(set(train) & set(val))
    if both:
        raise UsageError(f"{path}: cases in both train and val: {shorten(both)}; each belongs to one")
    unknown = sorted({*train, *val} - set(names))
    if unknown:
        raise UsageError(f"{path}: cases without a label file: {shorten(unknown)}; the cases are {shorten(names)}")
    if not train:
        raise UsageError(f"{path}: it names no case to train on")
    return Split(train, val)
