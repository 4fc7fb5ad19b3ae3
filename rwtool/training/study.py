"""One or several training runs of one study: what ``rwtool train`` does."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rwtool.datasets.runs import seed_folder
from rwtool.errors import UsageError
from rwtool.network.checkpoint import CHECKPOINTS, Checkpoint, load_checkpoint
from rwtool.network.config import TrainConfig, read_config, refuse_changes
from rwtool.training.cohort import Cohort, Source, plan_cohort, read_cohort
from rwtool.training.display import show_training
from rwtool.training.distributed import Processes, device_of, join_processes
from rwtool.training.loop import HOLDS_A_RUN, prepare_slices, settle, start_run, train_run
from rwtool.training.record import clear, holding, summary_writer
from rwtool.training.slices import SliceSet
from rwtool.training.validation import Validation


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


@dataclass(frozen=True)
class TrainedRun:
    """A run that is done.

    Attributes
    ----------
    folder : Path
    validation : Validation or None
        None without validation cases, or where nothing was left to do.
    trained : bool
        False where the run was finished already.
    """

    folder: Path
    validation: Validation | None
    trained: bool


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
        More than one run: each in ``run/seed-N``.
    config : path, optional
        TOML file of settings, such as the ``config.toml`` of a run; `settings` win over it.
    resume, overwrite : bool
        Go on with a run that is there, or start anew.
    tensorboard : bool
        Write ``run/tensorboard`` too.
    classes, ignore, spacing_mm, slice_axis, name
        As for :func:`rwtool.make_maps`.
    jobs : int, optional
        Cases that are read at once; by default what pays, and free memory allows.
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
        Something does not fit or cannot be read, or a loss became NaN or infinite.
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
        if len(begun) == len(folders) and all(found.epoch >= found.config.epochs for found in begun.values()):
            return [TrainedRun(folder, None, trained=False) for folder in folders] if processes.first else []
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
        runs = []
        for folder, seed in folders.items():
            mine = config if seed is None else replace(config, seed=seed)
            with holding(folder) if processes.first else contextlib.nullcontext():
                checkpoint = start_run(folder, mine, cohort, resume=request.resume)
                runs.append(_run(request, folder, checkpoint, cohort, data, processes))
        return runs if processes.first else []


def _refuse_with_split(settings: Mapping[str, Any]) -> None:
    for name in ("val", "split_seed", "subject"):
        if name in settings:
            raise UsageError(f"split= names the cases of each part, so {name}= has no meaning; drop one")


def _folders(request: _Request) -> dict[Path, int | None]:
    """The folder of each run, with its seed where that is not for the configuration to say."""
    if not request.seeds:
        return {request.run: None}
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
    if begun and not request.resume:
        raise UsageError(HOLDS_A_RUN.format(begun[0]))
    found = {folder: load_checkpoint(folder / CHECKPOINTS["last"]) for folder in begun}
    given = {name: value for name, value in request.given.items() if not (name == "seed" and request.seeds)}
    for checkpoint in found.values():
        refuse_changes(checkpoint.config, given)
    return found


def _run(
    request: _Request,
    folder: Path,
    checkpoint: Checkpoint,
    cohort: Cohort,
    data: SliceSet,
    processes: Processes,
) -> TrainedRun:
    if checkpoint.epoch >= checkpoint.config.epochs:
        return TrainedRun(folder, None, trained=False)
    labels = dict(zip(cohort.classes.values[1:], cohort.classes.names[1:], strict=True))
    quiet = request.quiet or not processes.first
    with show_training(checkpoint.config.epochs, checkpoint.epoch, labels, quiet=quiet) as display:
        validation = train_run(
            folder,
            checkpoint,
            cohort,
            data,
            processes=processes,
            display=display,
            tensorboard=request.tensorboard,
        )
    return TrainedRun(folder, validation, trained=True)
