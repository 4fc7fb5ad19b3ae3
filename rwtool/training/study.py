"""One or several training runs of one study: what ``rwtool train`` does."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rwtool.datasets.runs import DIVERGED, read_divergence, seed_folder
from rwtool.errors import UsageError
from rwtool.network.checkpoint import CHECKPOINTS, Checkpoint, load_checkpoint
from rwtool.network.config import TrainConfig, read_config, refuse_changes
from rwtool.training.cohort import Cohort, Source, plan_cohort, read_cohort
from rwtool.training.distributed import device_of, join_processes
from rwtool.training.loop import HOLDS_A_RUN, prepare_slices, settle
from rwtool.training.record import clear, holding, summary_writer
from rwtool.training.seeds import (
    Study,
    TrainedRun,
    choose_jobs,
    tidy,
    told_again,
    train_alone,
    train_one_after_another,
    train_side_by_side,
)


@dataclass(frozen=True)
class TrainPlan:
    """What is about to be trained.

    Attributes
    ----------
    cohort : Cohort
    config : TrainConfig
        With everything settled that it left to the data and the device.
    slices : int
        That are trained on.
    """

    cohort: Cohort
    config: TrainConfig
    slices: int


def train(
    images: str | Path,
    labels: str | Path,
    run: str | Path,
    *,
    maps: str | Path | None = None,
    split: str | Path | None = None,
    seeds: Sequence[int] = (),
    config: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    tensorboard: bool = False,
    classes: Sequence[int] | None = None,
    ignore: int | None = None,
    spacing_mm: Sequence[float] | None = None,
    slice_axis: int | None = None,
    name: str | None = None,
    jobs: int | None = None,
    verbosity: int = -1,
    on_plan: Callable[[TrainPlan], None] | None = None,
    **settings: Any,
) -> list[TrainedRun]:
    """Train a 2D U-Net on image and label files: what ``rwtool train`` does.

    Parameters
    ----------
    images, labels : path
        Folder or glob each.
    run : path
        The folder that everything goes to.
    maps : path, optional
        Of ``rwtool maps``: the folder of the loss's kind, or the one above it; without it maps are computed at the
        start.
    split : path, optional
        File of a split, see :func:`rwtool.datasets.splits.read_split`.
    seeds : sequence of int
        More than one run: each in ``run/seed-N``, such as ``range(50)``. One that fails does not cost the others.
    config : path, optional
        TOML file of settings, such as the ``config.toml`` of a run; `settings` win over it.
    resume, overwrite : bool
        Go on with a run that is there, or start anew.
    tensorboard : bool
        Write ``run/tensorboard`` too.
    classes, ignore, spacing_mm, slice_axis, name
        As for :func:`rwtool.make_maps`.
    jobs : int, optional
        Cases that are read at once, and on a CPU runs of `seeds` that are trained side by side, each in a process of
        one thread; by default what pays, free memory allows and changes no result.
    verbosity : int
        -1 shows nothing.
    on_plan : callable, optional
        Called with the plan before anything is trained.
    **settings
        As the attributes of :class:`rwtool.TrainConfig`, such as ``loss="boundary", mixed_with="dice", epochs=50``.

    Returns
    -------
    list of TrainedRun
        Empty but in the first of several processes.

    Raises
    ------
    RwtoolError
        Something does not fit or cannot be read, or a loss became NaN or infinite; of several runs, that one then has
        an `error`.
    """
    if resume and overwrite:
        raise UsageError("resume=True goes on with a run and overwrite=True starts anew; give one of them")
    if seeds and "seed" in settings:
        raise UsageError("seed= and seeds= exclude each other; give one of them")
    if split is not None:
        _refuse_with_split(settings)
    given = settings if config is None else read_config(Path(config)) | settings
    spacing = None if spacing_mm is None else (float(spacing_mm[0]), float(spacing_mm[1]), float(spacing_mm[2]))
    request = _Request(
        Source(
            str(images),
            str(labels),
            None if maps is None else Path(maps),
            None if split is None else str(split),
            None if classes is None else tuple(classes),
            ignore,
            spacing,
            slice_axis,
            name,
        ),
        Path(run),
        TrainConfig(**given),
        given,
        tuple(seeds),
        resume,
        overwrite,
        tensorboard,
        jobs,
        quiet=verbosity < 0,
    )
    return _train(request, on_plan)


@dataclass(frozen=True)
class _Request:
    """What to train on, how, and where to; `given` are the settings that were named, among those of `config`."""

    source: Source
    run: Path
    config: TrainConfig
    given: Mapping[str, Any]
    seeds: tuple[int, ...]
    resume: bool
    overwrite: bool
    tensorboard: bool
    jobs: int | None
    quiet: bool


def _train(request: _Request, on_plan: Callable[[TrainPlan], None] | None) -> list[TrainedRun]:
    """Read the cohort once, and train a run for each seed."""
    if request.tensorboard:
        summary_writer()
    with join_processes(request.config.device) as processes:
        device = device_of(request.config.device, processes)
        folders = _folders(request)
        begun = {} if request.overwrite else _begun(request, folders)
        ended = {} if request.overwrite else _ended(request, folders, begun)
        if len(ended) == len(folders):
            return list(ended.values()) if processes.first else []
        config = next((found.config for found in begun.values()), request.config)
        quiet = request.quiet or not processes.first
        verbosity = 0 if sys.stderr.isatty() and not quiet else -1
        cohort = plan_cohort(request.source, config, jobs=request.jobs, verbosity=verbosity)
        _refuse_inputs(folders, cohort)
        cohort = read_cohort(cohort, config, jobs=request.jobs, verbosity=verbosity)
        config = settle(config, cohort, processes)
        data = prepare_slices(cohort, config, device, processes)
        cohort = cohort.without_training_arrays()
        if on_plan is not None and processes.first:
            on_plan(TrainPlan(cohort, config, len(data)))
        if request.overwrite:  # not before all that can be wrong has been looked at
            if processes.first:
                for folder in filter(Path.exists, folders):
                    with holding(folder):
                        clear(folder)
            processes.wait()
        study = Study(cohort, data, request.resume, request.tensorboard, quiet)
        if not request.seeds:
            runs = [train_alone(study, request.run, config, processes=processes)]
            return runs if processes.first else []
        wanted = {folder: replace(config, seed=seed) for folder, seed in folders.items() if folder not in ended}
        jobs = 1 if processes.count > 1 else choose_jobs(study, list(wanted.values()), request.jobs)
        if jobs > 1:
            trained = train_side_by_side(study, wanted, jobs)
        else:
            trained = train_one_after_another(study, wanted, processes)
        every = {run.folder: run for run in (*ended.values(), *trained)}
        return [every[folder] for folder in folders] if processes.first else []


def _refuse_with_split(settings: Mapping[str, Any]) -> None:
    for name in ("val", "split_seed", "subject"):
        if name in settings:
            raise UsageError(f"split= names the cases of each part, so {name}= has no meaning; drop one")


def _folders(request: _Request) -> dict[Path, int]:
    """The folder of each run, with its seed."""
    if not request.seeds:
        return {request.run: request.config.seed}
    return {seed_folder(request.run, seed): seed for seed in request.seeds}


def _refuse_inputs(folders: Iterable[Path], cohort: Cohort) -> None:
    """Refuse to put a run among the images or labels that it is trained on."""
    taken = cohort.dataset.folders | {path.resolve().parent for paths in cohort.images.values() for path in paths}
    for folder in folders:
        if folder.resolve() in taken:
            raise UsageError(
                f"the run would go to {folder}, among the files that it is trained on; choose another run="
            )


def _begun(request: _Request, folders: Iterable[Path]) -> dict[Path, Checkpoint]:
    """The runs that were begun and are to be resumed; one in the way is refused before anything is read."""
    begun = [folder for folder in folders if (folder / CHECKPOINTS["last"]).exists()]
    there = [folder for folder in folders if folder in begun or (folder / DIVERGED).exists()]
    if there and not request.resume:
        raise UsageError(HOLDS_A_RUN.format(there[0]))
    found = {folder: load_checkpoint(folder / CHECKPOINTS["last"]) for folder in begun}
    given = {name: value for name, value in request.given.items() if not (name == "seed" and request.seeds)}
    for checkpoint in found.values():
        refuse_changes(checkpoint.config, given)
    return found


def _ended(request: _Request, folders: Iterable[Path], begun: Mapping[Path, Checkpoint]) -> dict[Path, TrainedRun]:
    """The runs that have come to their end before: with all their epochs, or with a loss that was not finite."""
    ended = {}
    for folder in folders:
        if (found := read_divergence(folder)) is not None:
            if not request.seeds:
                raise told_again(found)
            ended[folder] = TrainedRun(folder, None, trained=False, error=str(told_again(found)))
        elif folder in begun and begun[folder].epoch >= begun[folder].config.epochs:
            ended[folder] = TrainedRun(folder, None, trained=False)
        if folder in ended:
            tidy(folder)
    return ended
