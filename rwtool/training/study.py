"""One or several training runs of one study: what ``rwtool train`` does once its options are parsed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rwtool.datasets.runs import seed_folder
from rwtool.errors import UsageError
from rwtool.network.checkpoint import CHECKPOINTS, Checkpoint, load_checkpoint
from rwtool.network.config import TrainConfig, refuse_changes
from rwtool.training.cohort import Cohort, Source, plan_cohort, read_cohort
from rwtool.training.display import show_training
from rwtool.training.distributed import Processes, device_of, join_processes
from rwtool.training.loop import HOLDS_A_RUN, prepare_slices, settle, start_run, train
from rwtool.training.record import clear, summary_writer
from rwtool.training.slices import SliceSet
from rwtool.training.validation import Validation


@dataclass(frozen=True)
class StudyRequest:
    """What to train on, how, and where to.

    Attributes
    ----------
    source : Source
    run : Path
    config : TrainConfig
    given : dict
        The settings among those of `config` that were named, in a file or on the command line.
    seeds : tuple of int
        More than one run: each in ``run/seed-N``. Empty for one, of the seed of `config`.
    resume, overwrite : bool
    tensorboard : bool
    workers : int, optional
    quiet : bool
    """

    source: Source
    run: Path
    config: TrainConfig
    given: Mapping[str, Any]
    seeds: tuple[int, ...] = ()
    resume: bool = False
    overwrite: bool = False
    tensorboard: bool = False
    workers: int | None = None
    quiet: bool = False


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


def train_files(
    images: str | Path,
    labels: str | Path,
    run: str | Path,
    *,
    maps: str | Path | None = None,
    split: str | None = None,
    seeds: Sequence[int] = (),
    resume: bool = False,
    overwrite: bool = False,
    **settings: Any,
) -> list[TrainedRun]:
    """Train on image and label files: what ``rwtool train`` does, without its output.

    Parameters
    ----------
    images, labels : path
        Folder or glob each.
    run : path
        The folder that everything goes to.
    maps : path, optional
        Of ``rwtool maps``; without it maps are computed at the start.
    split : str, optional
        File of a split, see :func:`rwtool.datasets.splits.read_split`.
    seeds : sequence of int
        More than one run: each in ``run/seed-N``.
    resume, overwrite : bool
        Go on with a run that is there, or start anew.
    **settings
        As the attributes of `rwtool.TrainConfig`, such as ``loss="boundary", mixed_with="dice", epochs=50``.

    Returns
    -------
    list of TrainedRun

    Raises
    ------
    RwtoolError
        Something does not fit or cannot be read, or a loss became NaN or infinite.
    """
    source = Source(str(images), str(labels), None if maps is None else Path(maps), split)
    config = TrainConfig(**settings)
    return run_study(
        StudyRequest(source, Path(run), config, settings, tuple(seeds), resume=resume, overwrite=overwrite, quiet=True)
    )


def run_study(
    request: StudyRequest, *, tell: Callable[[Cohort, TrainConfig, int], None] | None = None
) -> list[TrainedRun]:
    """Read the cohort once, and train a run for each seed.

    Parameters
    ----------
    request : StudyRequest
    tell : callable, optional
        Called before training with the cohort, the settled configuration and the number of training slices.

    Returns
    -------
    list of TrainedRun
        Empty but in the first of several processes.

    Raises
    ------
    RwtoolError
        Something does not fit or cannot be read, or a loss became NaN or infinite.
    """
    if request.tensorboard:
        summary_writer()
    with join_processes(request.config.device) as processes:
        device = device_of(request.config.device, processes)
        folders = _folders(request)
        begun = {} if request.overwrite else _begun(request, folders)
        if len(begun) == len(folders) and all(found.epoch >= found.config.epochs for found in begun.values()):
            return [TrainedRun(folder, None, trained=False) for folder in folders] if processes.first else []
        config = next((found.config for found in begun.values()), request.config)
        cohort = plan_cohort(request.source, config)
        quiet = request.quiet or not processes.first
        verbosity = 0 if sys.stderr.isatty() and not quiet else -1
        cohort = read_cohort(cohort, config, workers=request.workers, verbosity=verbosity)
        config = settle(config, cohort, processes)
        data = prepare_slices(cohort, config, device, processes)
        cohort = cohort.without_training_arrays()
        if tell is not None and processes.first:
            tell(cohort, config, len(data))
        if request.overwrite:  # not before all that can be wrong has been looked at
            if processes.first:
                for folder in folders:
                    clear(folder)
            processes.wait()
        runs = []
        for folder, seed in folders.items():
            mine = config if seed is None else replace(config, seed=seed)
            checkpoint = start_run(folder, mine, cohort, resume=request.resume)
            runs.append(_run(request, folder, checkpoint, cohort, data, processes))
        return runs if processes.first else []


def _folders(request: StudyRequest) -> dict[Path, int | None]:
    """The folder of each run, with its seed where that is not for the configuration to say."""
    if not request.seeds:
        return {request.run: None}
    return {seed_folder(request.run, seed): seed for seed in request.seeds}


def _begun(request: StudyRequest, folders: Iterable[Path]) -> dict[Path, Checkpoint]:
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
    request: StudyRequest,
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
        validation = train(
            folder,
            checkpoint,
            cohort,
            data,
            processes=processes,
            display=display,
            tensorboard=request.tensorboard,
        )
    return TrainedRun(folder, validation, trained=True)
