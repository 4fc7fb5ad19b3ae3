"""What a run folder holds, and which predictions a source stands for.

It imports no torch, since what evaluates a run folder needs none.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from rwtool.datasets.splits import read_case_names
from rwtool.errors import UsageError, shorten
from rwtool.io.names import case_name
from rwtool.records import check_format, read_json, to_record

LAST, BEST = "last.pt", "best.pt"
CONFIG, SPLIT, METRICS, RESULTS = "config.toml", "split.json", "metrics.csv", "run.json"
DIVERGED, CURVES = "diverged.json", "curves.png"
PREDICTIONS, TENSORBOARD = "predictions", "tensorboard"


def seed_folder(run: Path, seed: int) -> Path:
    """Folder of one seed among several."""
    return run / f"seed-{seed}"


_SEED = re.compile(r"seed-([0-9]+)")  # folder of one seed among several


def find_seeds(run: Path) -> list[Path]:
    """The folders of the seeds in a folder, by number."""
    numbers = {path: int(found[1]) for path in run.iterdir() if (found := _SEED.fullmatch(path.name))}
    return sorted((path for path in numbers if path.is_dir()), key=lambda path: (numbers[path], path.name))


class Divergence(msgspec.Struct, frozen=True):
    """The content of ``diverged.json``: where the loss of a run was not finite.

    Attributes
    ----------
    epoch, step : int
        From 1 on.
    message : str
        For people.
    format : int
    """

    epoch: int
    step: int
    message: str
    format: int = 1


def read_divergence(run: Path) -> Divergence | None:
    """Read where the loss of a run was not finite; None where it always was.

    Raises
    ------
    RwtoolError
        The file cannot be read.
    """
    path = run / DIVERGED
    if not path.exists():
        return None
    refusal, mend = "cannot be read as what a diverged run left", "remove it and go on with resume=True"
    content = read_json(path, refusal=refusal, mend=mend)
    check_format(path, content, 1, refusal=refusal, mend=mend)
    return to_record(content, Divergence, path, refusal=refusal, mend=mend)


@dataclass(frozen=True)
class PredictionSource:
    """Where the predictions of one run are: `folder` (or file, or glob), which is `given` or one of its seeds."""

    given: Path
    folder: Path

    @property
    def predictions(self) -> Path:
        """Folder of the label files."""
        return self.folder / PREDICTIONS if (self.folder / PREDICTIONS).is_dir() else self.folder

    @property
    def split(self) -> Path | None:
        """Its ``split.json``, where it is a run folder."""
        path = self.folder / SPLIT
        return path if self.predictions != self.folder and path.exists() else None


@dataclass(frozen=True)
class SharedValidation:
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


def find_sources(predictions: Sequence[str]) -> dict[str, list[PredictionSource]]:
    """The sources of each method, one per run."""
    methods: dict[str, list[PredictionSource]] = {}
    for text in predictions:
        method, given = parse_source(text)
        sources = [PredictionSource(path, folder) for path in given for folder in _run_folders(path)]
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
    seeds = find_seeds(source)
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
            f"resume=True, or name {others}"
        )
    return done


def common_validation(sources: Sequence[PredictionSource], total: int) -> SharedValidation | None:
    """The validation cases of the run folders among the sources, which must agree; None if there are none."""
    runs = [(source, path) for source in sources if (path := source.split) is not None]
    lists: dict[frozenset[str], list[Path]] = {}
    for source, path in runs:
        try:
            names = read_case_names(str(path), empty=True)
        except UsageError as error:
            raise UsageError(f"{error}; mend this split of the run, or give cases=FILE to name the cases") from error
        lists.setdefault(frozenset(names), []).append(source.folder)
    if len(lists) > 1:
        differ = sorted(frozenset.union(*lists) - frozenset.intersection(*lists))
        listed = "; ".join(f"{len(names)} in {shorten(list(map(str, folders)))}" for names, folders in lists.items())
        raise UsageError(
            f"the runs have different validation cases: {listed}; {len(differ)} not in all of them: {shorten(differ)}; "
            "give cases=FILE to name the cases, or train all on one split"
        )
    if not any(lists):
        return None
    given = dict.fromkeys(source.given for source, _ in runs)
    return SharedValidation(names, total, tuple(given), tuple(path for _, path in runs))


def parse_source(text: str, what: str = "predictions") -> tuple[str, list[Path]]:
    """Method name and sources of ``NAME=DIR1,DIR2`` or ``DIR``; an existing path may hold ``=`` and commas."""
    name, equals, sources = text.partition("=")
    if Path(text).exists() or not equals:
        return case_name(os.path.abspath(text)), [Path(text)]
    if not name or not sources or not all(sources.split(",")):
        raise UsageError(f"{what} are DIR, NAME=DIR or NAME=DIR1,DIR2 for several runs; found {text!r}")
    return name, [Path(sources)] if Path(sources).exists() else [Path(part) for part in sources.split(",")]


def run_names(sources: Sequence[Path]) -> list[str]:
    """Names of the runs of a method: their folders', where they differ, else numbers; empty for one run."""
    if len(sources) == 1:
        return [""]
    names = [case_name(os.path.abspath(source)) for source in sources]
    return names if len(set(names)) == len(names) else [str(number) for number in range(1, len(names) + 1)]
