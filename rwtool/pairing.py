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
from rwtool.runfolder import LAST, PREDICTIONS, SPLIT

_SEED = re.compile(r"seed-([0-9]+)")  # folder of one seed among several
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
class Validation:
    """The validation cases that run folders of ``rwtool train`` have in common.

    Attributes
    ----------
    names : tuple of str
        The cases.
    total : int
        How many references there are, of which these are some.
    sources : tuple of Path
        Where they come from, as it was given: a run folder, or one with a run folder for each seed.
    files : tuple of Path
        The ``split.json`` of every run.
    """

    names: tuple[str, ...]
    total: int
    sources: tuple[Path, ...]
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Pairing:
    """References, and the runs to compare with them.

    Attributes
    ----------
    references : dict of str to Path
        By case.
    runs : tuple of Run
        All runs of a method stand together.
    validation : Validation, optional
        What limited the references, where run folders did.
    """

    references: dict[str, Path]
    runs: tuple[Run, ...]
    validation: Validation | None = None

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the methods, in the order given."""
        return tuple(dict.fromkeys(run.method for run in self.runs))


@dataclass(frozen=True)
class _Source:
    """Where the predictions of one run are: `folder` (or file, or glob), which is `given` or one of its seeds."""

    given: Path
    folder: Path

    @property
    def predictions(self) -> Path:
        return self.folder / PREDICTIONS if (self.folder / PREDICTIONS).is_dir() else self.folder

    @property
    def split(self) -> Path | None:
        """Its ``split.json``, where it is a run folder."""
        path = self.folder / SPLIT
        return path if self.predictions != self.folder and path.exists() else None


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
        holds ``predictions`` stands for that folder, and one that holds ``seed-0/predictions``,
        ``seed-1/predictions``, ... for these as runs of one method. Without a name the method is called after its
        folder or file.
    cases : str, optional
        Limits the cases, see :func:`read_case_names`. Without it, a ``split.json`` beside ``predictions`` limits them
        to its validation cases, unless it has none or the reference is a single file.
    allow_missing : bool
        Go on where a run lacks a case.

    Returns
    -------
    Pairing
        A single file and a single reference file pair whatever their names.

    Raises
    ------
    UsageError
        Nothing is found, two methods have one name, a run is unfinished, runs were validated on different cases, a
        prediction is missing and may not be, or a run has none.
    """
    every = references = find_cases(reference)
    single = Path(reference).is_file()
    validation = None
    if cases is not None:
        references = _limited(every, read_case_names(cases), cases)
    if not predictions:
        raise UsageError("no predictions to evaluate; name a folder of them")
    methods = _find_sources(predictions)
    if cases is None and not single:
        validation = _common_validation([source for sources in methods.values() for source in sources], len(every))
    if validation is not None:
        remedy = "; give --cases FILE to name the cases"
        references = _limited(every, validation.names, str(validation.files[0]), remedy)
    runs: list[Run] = []
    for method, sources in methods.items():
        for name, source in zip(_run_names([source.folder for source in sources]), sources, strict=True):
            run = _make_run(method, name, source.predictions, references, single=single)
            runs.append(replace(run, extra=tuple(case for case in run.extra if case not in every)))
    missing = [run for run in runs if run.missing]
    if missing and not allow_missing:
        listed = "; ".join(f"{run.label} ({run.source}) lacks {shorten(run.missing)}" for run in missing)
        raise UsageError(
            f"predictions are missing: {listed}; give --allow-missing to count their structures as missed, or "
            "--cases FILE to leave these cases out"
        )
    return Pairing(references, tuple(runs), validation)


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
    names = _read_names(source)
    if not names:
        raise UsageError(f"{source}: it names no case")
    return names


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


def split_fold(source: str) -> tuple[Path, int | None]:
    """Path and number of ``FILE:2``; of a file without a number, None."""
    path = Path(source)
    if not path.is_file() and (parts := re.fullmatch(r"(.+):(\d+)", source)):
        return Path(parts[1]), int(parts[2])
    return path, None


def _read_names(source: str) -> tuple[str, ...]:
    """The case names of a file as for :func:`read_case_names`; there may be none."""
    path, fold = split_fold(source)
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
    return tuple(dict.fromkeys(names))


def _limited(references: dict[str, Path], names: Sequence[str], source: str, remedy: str = "") -> dict[str, Path]:
    unknown = [name for name in names if name not in references]
    if unknown:
        raise UsageError(
            f"{source} names cases without a reference: {shorten(unknown)}; the references are "
            f"{shorten(list(references))}{remedy}"
        )
    return {name: references[name] for name in references if name in set(names)}


def _find_sources(predictions: Sequence[str]) -> dict[str, list[_Source]]:
    """The sources of each method, one per run."""
    methods: dict[str, list[_Source]] = {}
    for text in predictions:
        method, given = _parse(text)
        sources = [_Source(path, folder) for path in given for folder in _run_folders(path)]
        if len({source.predictions.resolve() for source in sources}) < len(sources):
            raise UsageError(f"{text}: one folder cannot be two runs; name each run's own")
        if method in methods:
            raise UsageError(
                f"two predictions are called {method!r}: {methods[method][0].given} and {given[0]}; name them with "
                "NAME=DIR, or NAME=DIR1,DIR2 for two runs of one method"
            )
        methods[method] = sources
    return methods


def _run_folders(source: Path) -> list[Path]:
    """What a source stands for: the folders of its seeds, or itself; a run without predictions is refused."""
    if not source.is_dir() or (source / PREDICTIONS).is_dir():
        return [source]
    numbers = {path: int(found[1]) for path in source.iterdir() if (found := _SEED.fullmatch(path.name))}
    seeds = sorted((path for path in numbers if path.is_dir()), key=lambda path: (numbers[path], path.name))
    done = [seed for seed in seeds if (seed / PREDICTIONS).is_dir()]
    begun = any((folder / name).exists() for folder in (source, *seeds) for name in (SPLIT, LAST))
    if not done and not begun:
        return [source]  # a folder of predictions as such
    unfinished = [seed for seed in seeds if seed not in done] or ([] if done else [source])
    if unfinished:
        listed = shorten([str(folder) for folder in unfinished])
        others = f"the finished seeds, NAME={','.join(map(str, done))}" if done else "only the folders to evaluate"
        raise UsageError(
            f"{listed}: no {PREDICTIONS}/ in it, so unfinished, or trained without validation cases; finish it with "
            f"rwtool train ... --resume, or name {others}"
        )
    return done


def _common_validation(sources: Sequence[_Source], total: int) -> Validation | None:
    """The validation cases of the run folders among the sources, which must agree; None if there are none."""
    runs = [(source, path) for source in sources if (path := source.split) is not None]
    lists: dict[frozenset[str], list[Path]] = {}
    for source, path in runs:
        try:
            names = _read_names(str(path))
        except UsageError as error:
            raise UsageError(f"{error}; mend this split of the run, or give --cases FILE to name the cases") from error
        lists.setdefault(frozenset(names), []).append(source.folder)
    if len(lists) > 1:
        differ = sorted(frozenset.union(*lists) - frozenset.intersection(*lists))
        listed = "; ".join(f"{len(names)} in {shorten(list(map(str, folders)))}" for names, folders in lists.items())
        raise UsageError(
            f"the runs have different validation cases: {listed}; {len(differ)} not in all of them: {shorten(differ)}; "
            "give --cases FILE to name the cases, or train all on one split"
        )
    if not any(lists):
        return None
    given = dict.fromkeys(source.given for source, _ in runs)
    return Validation(names, total, tuple(given), tuple(path for _, path in runs))


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
    found = find_cases(source)
    if single and source.is_file():
        found = dict(zip(references, found.values(), strict=True))
    files = {case: found[case] for case in references if case in found}
    if not files:
        raise UsageError(
            f"no prediction in {source} has the name of a reference: it holds {shorten(list(found))}, and the "
            f"cases to evaluate are {shorten(list(references))}"
        )
    return Run(
        method,
        name,
        source,
        files,
        extra=tuple(case for case in found if case not in references),
        missing=tuple(case for case in references if case not in files),
    )
