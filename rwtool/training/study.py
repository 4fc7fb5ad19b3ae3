"""One or several training runs of one study: what ``rwtool train`` does."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rwtool import __version__
from rwtool.console import say
from rwtool.datasets.runs import DIVERGED, read_divergence, seed_folder
from rwtool.errors import UsageError
from rwtool.network.checkpoint import CHECKPOINTS, Checkpoint, load_checkpoint
from rwtool.network.config import TrainConfig, read_config, refuse_changes
from rwtool.report.curves import draw_runs
from rwtool.training.cache import open_cache
from rwtool.training.cohort import Cohort, Source, plan_cohort, plan_cohort_room, read_cohort
from rwtool.training.distributed import Processes, device_of, join_processes
from rwtool.training.loop import HOLDS_A_RUN, prepare_slices, settle, study_inputs
from rwtool.training.record import clear, holding, summary_writer
from rwtool.training.seeds import (
    Study,
    TrainedRun,
    choose_jobs,
    find_collapsed,
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
    again: int = 0,
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
    cache_budget_bytes: int | None = None,
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
    again : int
        For each of `seeds` that has collapsed, as :func:`rwtool.convergence` counts it, train one of a further seed, at
        most so many in all. Collapsed runs stay where they are, and their :class:`TrainedRun` says so.
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
    cache_budget_bytes : int, optional
        Memory that the cases may take; those that do not fit are read from a cache file in `run`, which goes at the
        end, and the result is the same to the last bit. By default all are in memory if it is free, else they take half
        of what is. Each process of several has its own.
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
    if again < 0 or (again and not seeds):
        raise UsageError(
            f"again={again} is how many runs to train in place of collapsed ones of seeds=; give 0 or more, and seeds="
        )
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
        again,
        resume,
        overwrite,
        tensorboard,
        jobs,
        cache_budget_bytes,
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
    again: int
    resume: bool
    overwrite: bool
    tensorboard: bool
    jobs: int | None
    cache_budget_bytes: int | None
    quiet: bool


def _train(request: _Request, on_plan: Callable[[TrainPlan], None] | None) -> list[TrainedRun]:
    """Train a run for each seed on one cohort, and then, if so wanted, runs in place of those that have collapsed."""
    if request.tensorboard:
        summary_writer()
    with join_processes(request.config.device) as processes, ExitStack() as stack:
        processes.refuse_other_folder(request.run)
        if not request.overwrite:
            _begun(request, _further_folders(request, 0, request.again))  # those in the way are refused now
        folders, done = _folders(request), dict[Path, TrainedRun]()
        begun: dict[Path, Checkpoint] = {}
        study: Study | None = None
        while folders:
            begun |= {} if request.overwrite else _begun(request, folders)
            ended = {} if request.overwrite else _ended(request, folders, begun)
            done |= ended
            wanted = {folder: seed for folder, seed in folders.items() if folder not in ended}
            if wanted:
                if study is None:
                    config = next((found.config for found in begun.values()), request.config)
                    study, config = _prepare(request, config, folders, processes, on_plan, stack)
                if request.overwrite:  # not before all that can be wrong has been looked at
                    if processes.first:
                        for folder in filter(Path.exists, folders):
                            with holding(folder):
                                clear(folder)
                    processes.wait()
                done |= _train_runs(request, study, config, wanted, processes)
            folders = _in_place_of_collapsed(request, done, processes)
        if request.again:
            collapsed = find_collapsed(list(done))
            done = {folder: replace(run, collapsed=folder in collapsed) for folder, run in done.items()}
        if request.seeds and study is not None and processes.first:
            classes = study.cohort.classes
            names = dict(zip(classes.values[1:], classes.names[1:], strict=True))
            failed = draw_runs(request.run, list(done), names)
            if failed is not None and not request.quiet:
                say(f"note: {failed}", err=True)
        order = [*_folders(request), *_further_folders(request, 0, request.again)]
        return [done[folder] for folder in order if folder in done] if processes.first else []


def _prepare(
    request: _Request,
    config: TrainConfig,
    folders: Iterable[Path],
    processes: Processes,
    on_plan: Callable[[TrainPlan], None] | None,
    stack: ExitStack,
) -> tuple[Study, TrainConfig]:
    """Read the cohort, settle the configuration, and bring the slices to the device; the stack holds their cache."""
    device = device_of(request.config.device, processes)
    quiet = request.quiet or not processes.first
    verbosity = 0 if sys.stderr.isatty() and not quiet else -1
    cohort = plan_cohort(request.source, config, jobs=request.jobs, verbosity=verbosity)
    if request.again and not cohort.split.val:
        raise UsageError(f"again={request.again} goes by the validation Dice of the runs, and there are no such cases")
    _refuse_inputs(folders, cohort)
    room = plan_cohort_room(cohort, config, request.cache_budget_bytes, processes=processes.local_count)
    room = stack.enter_context(open_cache(request.run, room))
    cohort = read_cohort(replace(cohort, room=room), config, jobs=request.jobs, verbosity=verbosity)
    config = settle(config, cohort, processes)
    processes.refuse_other_inputs(_inputs(cohort, config))
    data = prepare_slices(cohort, config, device, processes)
    cohort = cohort.without_training_arrays()
    if on_plan is not None and processes.first:
        on_plan(TrainPlan(cohort, config, len(data)))
    return Study(cohort, data, request.resume, request.tensorboard, quiet), config


def _train_runs(
    request: _Request, study: Study, config: TrainConfig, folders: Mapping[Path, int], processes: Processes
) -> dict[Path, TrainedRun]:
    """Train the runs of some seeds, or the only one, which raises what goes wrong."""
    if not request.seeds:
        return {request.run: train_alone(study, request.run, config, processes=processes)}
    wanted = {folder: replace(config, seed=seed) for folder, seed in folders.items()}
    jobs = 1 if processes.count > 1 else choose_jobs(study, list(wanted.values()), request.jobs)
    if jobs > 1:
        return {run.folder: run for run in train_side_by_side(study, wanted, jobs)}
    return {run.folder: run for run in train_one_after_another(study, wanted, processes)}


def _in_place_of_collapsed(request: _Request, done: Mapping[Path, TrainedRun], processes: Processes) -> dict[Path, int]:
    """The folders and seeds of the next round: one more for each run that has collapsed, as far as `again` goes."""
    if not request.again:
        return {}
    processes.wait()  # until what the first one writes is there for all
    further = len(done) - len(request.seeds)
    return _further_folders(request, further, min(len(find_collapsed(list(done))), request.again))


def _further_folders(request: _Request, first: int, end: int) -> dict[Path, int]:
    """The folders of some seeds beyond the largest of those asked for, each with its seed."""
    seeds = [max(request.seeds) + 1 + index for index in range(first, end)]
    return {seed_folder(request.run, seed): seed for seed in seeds}


def _refuse_with_split(settings: Mapping[str, Any]) -> None:
    for name in ("val", "split_seed", "subject"):
        if name in settings:
            raise UsageError(f"split= names the cases of each part, so {name}= has no meaning; drop one")


def _folders(request: _Request) -> dict[Path, int]:
    """The folder of each run, with its seed."""
    if not request.seeds:
        return {request.run: request.config.seed}
    return {seed_folder(request.run, seed): seed for seed in request.seeds}


def _inputs(cohort: Cohort, config: TrainConfig) -> dict[str, str]:
    """What decides the weights, in short: other machines may have something else."""
    split = {"train": list(cohort.split.train), "val": list(cohort.split.val)}
    settings = {name: value for name, value in config.as_dict().items() if name != "device"}
    return {
        "the version of rwtool": __version__,
        "the version of torch": version("torch").partition("+")[0],
        "the files": _digest(cohort.hashes()),
        "the split": _digest(split),
        "the settings": _digest(settings),
        **{f"the {name}": _digest(value) for name, value in study_inputs(cohort).items()},
    }


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


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
