"""Runs of one study that differ in their seed: one after another, or side by side on the cores of a CPU.

Side by side each has a process and a thread of its own, and comes to the same bits as one after another on one thread.
"""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from rwtool.console import count
from rwtool.datasets.curves import read_curve
from rwtool.datasets.runs import CONFIG, KEPT, PREDICTIONS, Divergence, read_divergence
from rwtool.errors import RwtoolError, UsageError, told_when_interrupted
from rwtool.files import remove_leftovers
from rwtool.machine import available_cores, available_memory
from rwtool.network.config import TrainConfig
from rwtool.parallel import Outcome, Work, attempt
from rwtool.statistics.convergence import compare_convergence
from rwtool.training.cohort import Cohort
from rwtool.training.display import show_training
from rwtool.training.distributed import ALONE, Processes
from rwtool.training.loop import DivergedError, start_run, train_run
from rwtool.training.record import holding, write_divergence
from rwtool.training.slices import SliceSet
from rwtool.training.validation import Validation
from rwtool.workers import WorkerEndedError, Workers

_STEP_RATE = 6_000_000  # pixels of slices times features that a core trains on in a second, at most
_START_SECONDS = 10.0  # of training that side by side must save: processes start, and import what they need
_PROCESS_BYTES = 1_000_000_000  # beside the data: PyTorch, a small network and its activations


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
    error : str or None
        Of several runs, why this one failed, such as a loss that became NaN; a run by itself raises.
    details : str or None
        The traceback of a bug.
    collapsed : bool
        Of runs that may be trained again (`again`): it has collapsed, as :func:`rwtool.convergence` counts it.
    """

    folder: Path
    validation: Validation | None
    trained: bool
    error: str | None = None
    details: str | None = None
    collapsed: bool = False


@dataclass(frozen=True, eq=False)
class Study:
    """What all runs of a call share.

    Attributes
    ----------
    cohort : Cohort
        Without the arrays of the training cases.
    data : SliceSet
    resume, tensorboard, quiet : bool
    """

    cohort: Cohort
    data: SliceSet
    resume: bool
    tensorboard: bool
    quiet: bool


def told_again(found: Divergence) -> DivergedError:
    """What to say of a run that has diverged before: it is a result, and would be again."""
    return DivergedError(f"{found.message} (it was so before; overwrite=True starts anew)", found.epoch, found.step)


def train_alone(
    study: Study,
    folder: Path,
    config: TrainConfig,
    *,
    processes: Processes = ALONE,
    prefix: str = "",
    lines: bool = False,
) -> TrainedRun:
    """Train one run to its end.

    Parameters
    ----------
    study : Study
    folder : Path
    config : TrainConfig
        Settled.
    processes : Processes
    prefix : str
        Of each line that is shown.
    lines : bool
        Show no bar, for others are shown beside.

    Raises
    ------
    DivergedError
        The loss became NaN or infinite, now or before; the folder says so.
    """
    with holding(folder) if processes.first else contextlib.nullcontext():
        if study.resume and (before := read_divergence(folder)) is not None:
            raise told_again(before)
        checkpoint = start_run(folder, config, study.cohort, resume=study.resume)
        config = checkpoint.config
        if checkpoint.epoch >= config.epochs:
            return TrainedRun(folder, None, trained=False)
        classes = study.cohort.classes
        labels = dict(zip(classes.values[1:], classes.names[1:], strict=True))
        quiet = study.quiet or not processes.first
        with show_training(config.epochs, checkpoint.epoch, labels, quiet=quiet, prefix=prefix, lines=lines) as display:
            try:
                validation = train_run(
                    folder,
                    checkpoint,
                    study.cohort,
                    study.data,
                    processes=processes,
                    display=display,
                    tensorboard=study.tensorboard,
                )
            except DivergedError as error:
                if processes.first:
                    write_divergence(folder, error.epoch, error.step, str(error))
                raise
    return TrainedRun(folder, validation, trained=True)


def train_one_after_another(
    study: Study, runs: Mapping[Path, TrainConfig], processes: Processes = ALONE
) -> list[TrainedRun]:
    """Train several runs in this process; one that fails does not cost the others.

    Raises
    ------
    UsageError
        What is wrong with one is wrong with all, or another process trains it.
    """
    done: list[TrainedRun] = []
    with told_when_interrupted(lambda: _told(len(done), len(runs))):
        for folder, config in runs.items():
            try:
                done.append(train_alone(study, folder, config, processes=processes, prefix=f"{folder.name}  "))
            except UsageError:
                raise
            except RwtoolError as error:
                if processes.count > 1 and not isinstance(error, DivergedError):
                    raise  # the other processes have not met it
                done.append(TrainedRun(folder, None, trained=True, error=str(error)))
    return done


def train_side_by_side(study: Study, runs: Mapping[Path, TrainConfig], jobs: int) -> list[TrainedRun]:
    """Train several runs in processes of one thread each, which end with this one; one that fails costs no other.

    Raises
    ------
    UsageError
        A run that was begun is one of other settings or data.
    """
    for folder, config in runs.items():
        if study.resume and (folder / CONFIG).exists() and read_divergence(folder) is None:
            start_run(folder, config, study.cohort, resume=True)
    done: dict[Path, TrainedRun] = {}
    try:
        with (
            told_when_interrupted(lambda: _told(len(done), len(runs))),
            Workers(min(jobs, len(runs))) as workers,
        ):
            tasks = [_Task(study, folder, config) for folder, config in runs.items()]
            for task, outcome in workers.map(_train_in_process, tasks):
                done[task.folder] = _result(task.folder, outcome)
    finally:
        for folder in runs:
            if folder not in done or done[folder].error is not None:
                tidy(folder)
    return [done[folder] for folder in runs]


def _result(folder: Path, outcome: Outcome[TrainedRun] | WorkerEndedError) -> TrainedRun:
    if isinstance(outcome, WorkerEndedError):
        return TrainedRun(folder, None, trained=True, error=f"{outcome}; resume=True goes on")
    if outcome.result is None:
        return TrainedRun(folder, None, trained=True, error=outcome.error, details=outcome.details)
    return outcome.result


@dataclass(frozen=True, eq=False)
class _Task:
    study: Study
    folder: Path
    config: TrainConfig


def _train_in_process(task: _Task) -> Outcome[TrainedRun]:
    torch.set_num_threads(1)
    return attempt(_train_task, Work(task.folder.name, task))


def _train_task(task: _Task) -> TrainedRun:
    return train_alone(task.study, task.folder, task.config, prefix=f"{task.folder.name}  ", lines=True)


def choose_jobs(study: Study, configs: Sequence[TrainConfig], jobs: int | None) -> int:
    """How many runs to train side by side.

    Parameters
    ----------
    study : Study
    configs : sequence of TrainConfig
        Of the runs that are to be trained, settled.
    jobs : int, optional
        As the user says it.

    Returns
    -------
    int
        1 where not on a CPU. Without `jobs`: as many as there are cores, if a run has one thread in any case, memory
        holds them and it saves more than their start takes, so that nothing but time depends on it. 1 also where the
        data barely fit in memory, or do not.
    """
    if study.data.device.type != "cpu" or len(configs) < 2:
        return 1
    if jobs is not None:
        return min(jobs, len(configs))
    if torch.get_num_threads() > 1 or not study.data.stacked:
        return 1
    jobs = min(available_cores(), len(configs))
    config = configs[0]
    assert config.patch is not None
    slices = (config.steps_per_epoch or 0) * (config.batch_size or 0) or len(study.data)
    step = slices * config.patch[0] * config.patch[1] * config.features
    seconds = sum(one.epochs for one in configs) * step / _STEP_RATE
    if jobs < 2 or seconds * (1 - 1 / jobs) < _START_SECONDS:
        return 1
    memory = available_memory()
    if memory is not None:
        need = _PROCESS_BYTES + 3 * len(pickle.dumps(study))  # as sent, as received, and in use
        jobs = max(1, min(jobs, memory // need))
    return jobs


def find_collapsed(folders: Sequence[Path]) -> set[Path]:
    """Which of the runs that have come to their end have collapsed, by the rule of :func:`compare_convergence`."""
    curves = [curve for folder in folders if (curve := read_curve(folder)) is not None and curve.finished]
    if not curves:
        return set()
    (method,) = compare_convergence({"runs": curves}).methods
    return {Path(seed.run) for seed in method.seeds if seed.collapsed}


def _told(done: int, runs: int) -> str:
    return f"{done} of {count(runs, 'run')} done; resume=True goes on"


def tidy(folder: Path) -> None:
    """Remove what a killed process has left in the folder of its run, and the folder if that was all."""
    if folder.is_dir():
        with contextlib.suppress(RwtoolError), holding(folder):
            remove_leftovers(folder)
            remove_leftovers(folder / PREDICTIONS)
            remove_leftovers(folder / KEPT)
        with contextlib.suppress(OSError):
            folder.rmdir()
