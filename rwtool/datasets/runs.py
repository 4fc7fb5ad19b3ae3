"""What a run folder holds, and which predictions a source stands for.

It imports no torch, since what evaluates a run folder needs none.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from rwtool.datasets.cases import Found, search_cases
from rwtool.datasets.nnunet import NnunetResults, find_results, name_results, search_results, unite_folds
from rwtool.datasets.splits import read_case_names
from rwtool.errors import UsageError, shorten
from rwtool.io.names import case_name
from rwtool.records import check_format, read_json, to_record

Which: TypeAlias = Literal["best", "last"] | int
"""A checkpoint of a run; a number is that of an epoch, which the run has kept."""

LAST, BEST = "last.pt", "best.pt"
CONFIG, SPLIT, METRICS, RESULTS = "config.toml", "split.json", "metrics.csv", "run.json"
DIVERGED, CURVES = "diverged.json", "curves.png"
PREDICTIONS, TENSORBOARD = "predictions", "tensorboard"
KEPT = "checkpoints"  # folder of those that are kept by epoch

_KEPT = re.compile(r"epoch-([1-9][0-9]*)\.pt")


def seed_folder(run: Path, seed: int) -> Path:
    """Folder of one seed among several."""
    return run / f"seed-{seed}"


_SEED = re.compile(r"seed-([0-9]+)")  # folder of one seed among several


def find_seeds(run: Path) -> list[Path]:
    """The folders of the seeds in a folder, by number."""
    numbers = {path: int(found[1]) for path in run.iterdir() if (found := _SEED.fullmatch(path.name))}
    return sorted((path for path in numbers if path.is_dir()), key=lambda path: (numbers[path], path.name))


def kept_checkpoint(run: Path, epoch: int) -> Path:
    """The checkpoint of an epoch, from 1 on, where it was kept."""
    return run / KEPT / f"epoch-{epoch}.pt"


def find_kept(run: Path) -> dict[int, Path]:
    """The checkpoints of a run that were kept, by epoch."""
    folder = run / KEPT
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    epochs = {int(found[1]): folder / name for name in names if (found := _KEPT.fullmatch(name))}
    return dict(sorted(epochs.items()))


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
    """Where the predictions of one run are: `folder` (or file, or glob), which is `given` or one of its seeds.

    `nnunet` says what they are where they are nnU-Net's.
    """

    given: Path
    folder: Path
    nnunet: NnunetResults | None = None

    @property
    def predictions(self) -> Path:
        """Folder of the label files."""
        return self.folder / PREDICTIONS if (self.folder / PREDICTIONS).is_dir() else self.folder

    @property
    def split(self) -> Path | None:
        """Its ``split.json``, where it is a run folder."""
        path = self.folder / SPLIT
        return path if self.predictions != self.folder and path.exists() else None

    def search(self, *, name: str | None = None) -> Found:
        """Find its label files, as for :func:`rwtool.datasets.cases.search_cases`."""
        if self.nnunet is not None:
            return search_results(self.nnunet, name=name)
        return search_cases(self.predictions, name=name, strict=False)


@dataclass(frozen=True)
class SharedValidation:
    """The validation cases that run folders of ``rwtool train``, and results of nnU-Net, have in common.

    Attributes
    ----------
    names : tuple of str
        The cases.
    total : int
        How many references there are, of which these are some.
    sources : tuple of Path
        Where they come from, as it was given: a run folder, or one with a run folder for each seed.
    files : tuple of Path
        What names them: the ``split.json`` of every run, and the folders of nnU-Net's predictions.
    """

    names: tuple[str, ...]
    total: int
    sources: tuple[Path, ...]
    files: tuple[Path, ...]


def find_sources(predictions: Sequence[str]) -> dict[str, list[PredictionSource]]:
    """The sources of each method, one per run; folds of one nnU-Net are one run."""
    given = [(text, *parse_source(text)) for text in predictions]
    found = [_sources(text, paths) for text, _, paths in given]
    unnamed = [one[0].nnunet for (_, name, _), one in zip(given, found, strict=True) if name is None]
    names = iter(name_results([results for results in unnamed if results is not None]))
    methods: dict[str, list[PredictionSource]] = {}
    for (text, method, _), sources in zip(given, found, strict=True):
        if method is None:
            method = case_name(os.path.abspath(text)) if sources[0].nnunet is None else next(names)  # noqa: PLW2901
        if method in methods:
            raise UsageError(
                f"two predictions are called {method!r}: {methods[method][0].given} and {sources[0].given}; name them "
                "with NAME=DIR, or NAME=DIR1,DIR2 for two runs of one method"
            )
        methods[method] = sources
    return methods


def begins_with_predictions(text: str, *, alone: bool) -> bool:
    """Whether the first of several paths is no reference but predictions, whose references nnU-Net's folders hold.

    It is so for models, folds and cross-validations of nnU-Net, which nobody takes for references; and for a folder of
    ``nnUNetv2_predict`` that stands alone or has a name, ``NAME=DIR``.

    Parameters
    ----------
    text : str
    alone : bool
        Whether no other path follows.
    """
    try:
        name, paths = parse_source(text)
    except (UsageError, OSError):  # of a reference: its reader says what is wrong
        return False
    found = [find_results(path) for path in paths]
    if name is not None:
        return all(results is not None for results in found)
    return found[0] is not None and (found[0].validated or alone)


def _sources(text: str, paths: Sequence[Path]) -> list[PredictionSource]:
    """One per run of a method."""
    found = [find_results(path) for path in paths]
    known = [results for results in found if results is not None]
    if len(known) == len(paths) > 1 and all(results.fold for results in known):
        homes = {results.home.resolve() for results in known}
        if len(homes) == 1:
            return [PredictionSource(known[0].home, known[0].home, unite_folds(known))]
    sources = []
    for path, results in zip(paths, found, strict=True):
        folders = [path] if results is not None else _run_folders(path)
        sources += [PredictionSource(path, folder, results) for folder in folders]
    if len({source.predictions.resolve() for source in sources}) < len(sources):
        raise UsageError(f"{text}: one folder cannot be two runs; name each run's own")
    return sources


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


def common_validation(
    sources: Sequence[PredictionSource], total: int, cases: Mapping[PredictionSource, Collection[str]] | None = None
) -> SharedValidation | None:
    """The validation cases of the run folders among the sources, which must agree; None if there are none.

    Parameters
    ----------
    sources : sequence of PredictionSource
    total : int
        How many references there are.
    cases : dict of PredictionSource to collection of str, optional
        Those of sources whose predictions are of their validation cases: nnU-Net's.
    """
    known = cases or {}
    runs = [(source, place) for source in sources if (place := source.folder if source in known else source.split)]
    lists: dict[frozenset[str], list[Path]] = {}
    for source, path in runs:
        try:
            names = tuple(known[source]) if source in known else read_case_names(str(path), empty=True)
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


def parse_source(text: str, what: str = "predictions") -> tuple[str | None, list[Path]]:
    """Method name, if any, and paths of ``NAME=DIR1,DIR2`` or ``DIR``; an existing path may hold ``=`` and commas."""
    name, equals, sources = text.partition("=")
    if Path(text).exists() or not equals:
        return None, [Path(text)]
    if not name or not sources or not all(sources.split(",")):
        raise UsageError(f"{what} are DIR, NAME=DIR or NAME=DIR1,DIR2 for several runs; found {text!r}")
    return name, [Path(sources)] if Path(sources).exists() else [Path(part) for part in sources.split(",")]


def run_names(sources: Sequence[Path]) -> list[str]:
    """Names of the runs of a method: their folders', where they differ, else numbers; empty for one run."""
    if len(sources) == 1:
        return [""]
    names = [case_name(os.path.abspath(source)) for source in sources]
    return names if len(set(names)) == len(names) else [str(number) for number in range(1, len(names) + 1)]
