"""Which prediction belongs to which reference, of which run of which method; and which cases count, in which group."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rwtool.cases import find_cases
from rwtool.errors import UsageError
from rwtool.files import split_name

_SHOWN = 5  # names in a message


@dataclass(frozen=True)
class Run:
    """The predictions of one run of a method.

    Attributes
    ----------
    method : str
    name : str
        Empty where the method has one run.
    source : Path
        Folder, file or glob of the predictions.
    files : dict of str to Path
        Case to prediction, of the cases that have one.
    extra : tuple of str
        Predictions without a reference.
    missing : tuple of str
        Cases without a prediction.
    """

    method: str
    name: str
    source: Path
    files: dict[str, Path]
    extra: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """For people: the method, and the run where there are several."""
        return f"{self.method}, run {self.name}" if self.name else self.method


@dataclass(frozen=True)
class Pairing:
    """References, and the runs to compare with them.

    Attributes
    ----------
    references : dict of str to Path
        By case.
    runs : tuple of Run
        All runs of a method stand together.
    """

    references: dict[str, Path]
    runs: tuple[Run, ...]

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the methods, in the order given."""
        return tuple(dict.fromkeys(run.method for run in self.runs))


def pair_files(
    reference: str, predictions: Sequence[str], *, cases: str | None = None, allow_missing: bool = False
) -> Pairing:
    """Pair predictions with references by case name.

    Parameters
    ----------
    reference : str
        Folder, file or glob.
    predictions : sequence of str
        Each ``DIR``, ``FILE``, ``NAME=DIR``, or ``NAME=DIR1,DIR2,DIR3`` for several runs of one method. A folder that
        holds ``predictions`` stands for that folder. Without a name the method is called after its folder or file.
    cases : str, optional
        Limits the cases, see :func:`read_case_names`.
    allow_missing : bool
        Go on where a run lacks a case.

    Returns
    -------
    Pairing
        A single file and a single reference file pair whatever their names.

    Raises
    ------
    UsageError
        Nothing is found, two methods have one name, a prediction is missing and may not be, or a run has none.
    """
    every = references = find_cases(reference)
    if cases is not None:
        references = _limited(every, read_case_names(cases), cases)
    if not predictions:
        raise UsageError("no predictions to evaluate; name a folder of them")
    runs: list[Run] = []
    for text in predictions:
        method, sources = _parse(text)
        if len({Path(source).resolve() for source in sources}) < len(sources):
            raise UsageError(f"{text}: one folder cannot be two runs; name each run's own")
        for run in runs:
            if run.method == method:
                raise UsageError(
                    f"two predictions are called {method!r}: {run.source} and {sources[0]}; name them with NAME=DIR, "
                    "or NAME=DIR1,DIR2 for two runs of one method"
                )
        for name, source in zip(_run_names(sources), sources, strict=True):
            run = _make_run(method, name, source, references, single=Path(reference).is_file())
            runs.append(replace(run, extra=tuple(case for case in run.extra if case not in every)))
    missing = [run for run in runs if run.missing]
    if missing and not allow_missing:
        listed = "; ".join(f"{run.label} ({run.source}) lacks {shorten(run.missing)}" for run in missing)
        raise UsageError(
            f"predictions are missing: {listed}; give --allow-missing to count their structures as missed, or "
            "--cases FILE to leave these cases out"
        )
    return Pairing(references, tuple(runs))


def read_case_names(source: str) -> tuple[str, ...]:
    """Read the names of the cases to evaluate.

    Parameters
    ----------
    source : str
        A text file of one name a line, or a JSON file: a list of names; an object with a list ``"val"``; or a list of
        such objects, one per fold (nnU-Net's ``splits_final.json``): the ``"val"`` of all folds together, or that of
        fold 2 alone with ``FILE:2``.

    Returns
    -------
    tuple of str
        Each once, without file extensions.

    Raises
    ------
    UsageError
        The file cannot be read, or holds none of these.
    """
    path, fold = Path(source), None
    if not path.is_file() and (parts := re.fullmatch(r"(.+):(\d+)", source)):
        path, fold = Path(parts[1]), int(parts[2])
    try:
        text = path.read_text(encoding="utf-8")
        content: Any = json.loads(text) if path.suffix.lower() == ".json" else text.splitlines()
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read as a list of cases: {error}") from error
    folds = content if isinstance(content, list) else [content]
    if any(isinstance(entry, dict) for entry in folds):
        if fold is not None:
            if fold >= len(folds):
                raise UsageError(f"{path}: there is no fold {fold}; it holds folds 0 to {len(folds) - 1}")
            folds = [folds[fold]]
        lists = [entry.get("val") if isinstance(entry, dict) else None for entry in folds]
        content = [name for names in lists for name in (names if isinstance(names, list) else [None])]
    elif fold is not None:
        raise UsageError(f"{path}: it holds no folds, so leave out the :{fold}")
    if not isinstance(content, list) or not all(isinstance(name, str) for name in content):
        raise UsageError(
            f"{path}: expected one case name a line, or JSON: a list of names, an object with such a list under "
            '"val", or a list of such objects (nnU-Net\'s splits_final.json)'
        )
    names = [split_name(name.strip())[0] for name in content if name.strip()]
    if not names:
        raise UsageError(f"{path}: it names no case")
    return tuple(dict.fromkeys(names))


def read_groups(path: Path | None, names: Iterable[str]) -> dict[str, str]:
    """Read the group of each case from a CSV file of two columns, case and group; all are in "" without a file.

    Raises
    ------
    UsageError
        The file cannot be read, lacks a case, or puts one into two groups.
    """
    if path is None:
        return dict.fromkeys(names, "")
    groups: dict[str, str] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            lines = [[cell.strip() for cell in line] for line in csv.reader(stream) if any(map(str.strip, line))]
    except (OSError, ValueError, csv.Error) as error:
        raise UsageError(f"{path}: cannot be read as CSV: {error}") from error
    for number, line in enumerate(lines):
        if len(line) != 2:
            raise UsageError(f"{path}: expected two columns, case,group; found {','.join(line)!r}")
        if number == 0 and [cell.lower() for cell in line] == ["case", "group"]:
            continue
        case = split_name(line[0])[0]
        if groups.setdefault(case, line[1]) != line[1]:
            raise UsageError(f"{path}: the case {case!r} is in the groups {groups[case]!r} and {line[1]!r}")
    lacking = [name for name in names if name not in groups]
    if lacking:
        raise UsageError(f"{path}: no group for {shorten(lacking)}; add a line case,group for each")
    return {name: groups[name] for name in names}


def shorten(names: Sequence[str]) -> str:
    """List names for people: the first few, and how many more."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _limited(references: dict[str, Path], names: Sequence[str], source: str) -> dict[str, Path]:
    unknown = [name for name in names if name not in references]
    if unknown:
        raise UsageError(
            f"{source} names cases without a reference: {shorten(unknown)}; the references are "
            f"{shorten(list(references))}"
        )
    return {name: references[name] for name in references if name in set(names)}


def _parse(text: str) -> tuple[str, list[Path]]:
    """Method name and sources of one of the predictions; an existing path may hold ``=`` and commas."""
    name, equals, sources = text.partition("=")
    if Path(text).exists() or not equals:
        return split_name(os.path.abspath(text))[0], [Path(text)]
    if not name or not sources or not all(sources.split(",")):
        raise UsageError(f"predictions are DIR, NAME=DIR or NAME=DIR1,DIR2 for several runs; found {text!r}")
    return name, [Path(sources)] if Path(sources).exists() else [Path(part) for part in sources.split(",")]


def _run_names(sources: Sequence[Path]) -> list[str]:
    """Names of the runs of a method: their folders', where they differ, else numbers; empty for one run."""
    if len(sources) == 1:
        return [""]
    names = [split_name(os.path.abspath(source))[0] for source in sources]
    return names if len(set(names)) == len(names) else [str(number) for number in range(1, len(names) + 1)]


def _make_run(method: str, name: str, source: Path, references: dict[str, Path], *, single: bool) -> Run:
    if (source / "predictions").is_dir():
        source = source / "predictions"
    found = find_cases(source)
    if single and source.is_file():
        found = dict(zip(references, found.values(), strict=True))
    files = {case: found[case] for case in references if case in found}
    if not files:
        raise UsageError(
            f"no prediction in {source} has the name of a reference: it holds {shorten(list(found))}, and the "
            f"references are {shorten(list(references))}"
        )
    return Run(
        method,
        name,
        source,
        files,
        extra=tuple(case for case in found if case not in references),
        missing=tuple(case for case in references if case not in files),
    )
