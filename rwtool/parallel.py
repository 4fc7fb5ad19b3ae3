"""Cases in parallel: as many at once as cores and memory allow, with progress, and none at another's cost."""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from rwtool.console import show_progress
from rwtool.errors import RwtoolError, lacks_memory, told_when_interrupted
from rwtool.files import remove_leftovers
from rwtool.machine import available_cores, available_memory
from rwtool.workers import WorkerEndedError, Workers, WorkersLostError

if TYPE_CHECKING:
    from rwtool.engines import Engine

Argument = TypeVar("Argument")
Result = TypeVar("Result")

VOXEL_NS = 25.0
"""Time that maps, check and evaluate take for a voxel, in nanoseconds of one core: 10 to 40."""

_CASE_SECONDS = 0.003  # besides its voxels: opening, hashing, writing, telling
_POOL_SECONDS = 0.7  # until processes have started and imported what they need, on all cores

GOES_ON = "run the same command again to go on"
WITHOUT_OVERWRITE = "run it again without overwrite=True to go on"
STARTS_ANEW = "nothing is kept, so the same command starts anew"


@dataclass(frozen=True)
class Work(Generic[Argument]):
    """One case to be done.

    Attributes
    ----------
    name : str
    argument : Any
        What the function is called with.
    voxels : int
        Its share of the progress.
    peak_bytes : int
        Memory that a process takes at most for it.
    """

    name: str
    argument: Argument
    voxels: int = 1
    peak_bytes: int = 0


@dataclass(frozen=True)
class Outcome(Generic[Result]):
    """What became of a case: its result, or the reason why there is none.

    Attributes
    ----------
    name : str
    result : Any or None
    error : str or None
        For people; the traceback of a bug is in `details`.
    details : str or None
    seconds : float
    """

    name: str
    result: Result | None
    error: str | None = None
    details: str | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Schedule(Generic[Argument]):
    """How work is to be done.

    Attributes
    ----------
    work : list of Work
        What fits in memory.
    refused : list of Outcome
        What does not, with the reason.
    jobs : int
        Cases at once: processes, or this one alone where it is 1.
    threads : int
        For each case.
    """

    work: list[Work[Argument]]
    refused: list[Outcome[Any]]
    jobs: int
    threads: int


class Pool(Protocol):
    """Who does cases elsewhere: processes of this machine, or workers of an engine."""

    def map(
        self, function: Callable[[Work[Argument]], Outcome[Result]], cases: Iterable[Work[Argument]], /
    ) -> Iterator[tuple[Work[Argument], Outcome[Result] | WorkerEndedError]]:
        """Give each case with what became of it, as they come."""


def schedule(
    work: Sequence[Work[Argument]],
    jobs: int | None = None,
    *,
    voxel_ns: float = VOXEL_NS,
    engine: Engine | None = None,
) -> Schedule[Argument]:
    """Settle which cases can be done, how many at once, and with how many threads each.

    Parameters
    ----------
    work : sequence of Work
        With its `voxels` and `peak_bytes`.
    jobs : int, optional
        As the user says it; then nothing is refused for want of memory, and a case has one thread.
    voxel_ns : float
        What a voxel takes, in nanoseconds of one core. Where `voxels` counts something else, such as the bytes of a
        file, what one of that takes.
    engine : Engine, optional
        Where cases are done, if not on this machine: by its workers, whose memory is seen when they are asked.

    Returns
    -------
    Schedule
        Without `jobs`: as many at once as there are cores and as memory holds of the largest cases together; one, in
        this process, where processes take longer to start than they save.
    """
    if jobs is not None or engine is not None:
        return Schedule(list(work), [], jobs or max(1, len(work)), 1)
    cores, memory = available_cores(), available_memory()
    fitting, refused = _refuse_too_large(work, memory)
    jobs = max(1, min(cores, len(fitting)))
    if memory is not None:
        peaks = sorted((item.peak_bytes for item in fitting), reverse=True)
        while jobs > 1 and sum(peaks[:jobs]) > memory:
            jobs -= 1
    seconds = sum(item.voxels for item in fitting) * voxel_ns * 1e-9 + len(fitting) * _CASE_SECONDS
    if jobs > 1 and seconds * (1 - 1 / jobs) < _POOL_SECONDS:
        return Schedule(fitting, refused, 1, 1)
    return Schedule(fitting, refused, jobs, max(1, cores // jobs))


def _refuse_too_large(
    work: Sequence[Work[Argument]], memory: int | None
) -> tuple[list[Work[Argument]], list[Outcome[Any]]]:
    """Split off the cases that alone would take more memory than is free."""
    fitting, refused = [], []
    for item in work:
        if memory is None or item.peak_bytes <= memory:
            fitting.append(item)
            continue
        need = f"it needs about {item.peak_bytes / 1e9:.1f} GB of memory and {memory / 1e9:.1f} GB are free"
        refused.append(Outcome[Any](item.name, None, f"{need}; free some, or give jobs=1 to try all the same"))
    return fitting, refused


def run_cases(
    function: Callable[[Argument], Result],
    work: Sequence[Work[Argument]],
    *,
    jobs: int,
    label: str,
    verbosity: int = 0,
    bar_only: bool = False,
    on_done: Callable[[Outcome[Result]], None] | None = None,
    folders: Sequence[Path] = (),
    rerun: str = STARTS_ANEW,
    engine: Engine | None = None,
) -> list[Outcome[Result]]:
    """Call a function on every case, in parallel, and gather what became of each.

    An error in a case, its process's death included, becomes the outcome of that case; the others go on.

    Parameters
    ----------
    function : callable
        Takes a ``Work.argument``; must be importable by name.
    work : sequence of Work
    jobs : int
        Processes; 1, or a single case, stays in this one.
    label : str
        What is being done, for the progress bar.
    verbosity : int
        -1 shows no progress.
    bar_only : bool
        A bar on a terminal, and nothing elsewhere: for work that is not the command's own, such as hashing.
    on_done : callable, optional
        Called with each outcome as it comes.
    folders : sequence of Path
        Where the function writes: what killed processes have left there is removed, before and after.
    rerun : str
        What an interrupted run says of running it again, such as `GOES_ON`.
    engine : Engine, optional
        Whose workers do the cases; none is done in this process then.

    Returns
    -------
    list of Outcome
        In the order of `work`.

    Raises
    ------
    KeyboardInterrupt
        With how many cases are done, and `rerun`.
    RwtoolError
        The workers of an engine do not fit; or the engine has gone, with how many cases are done, and `rerun`.
    """
    outcomes: dict[str, Outcome[Result]] = {}
    largest_first = sorted(work, key=lambda item: -item.voxels)
    voxels = {item.name: item.voxels for item in work}

    def told() -> str:
        done = sum(outcome.error is None for outcome in outcomes.values())
        return f"{done} of {len(work)} {'case' if len(work) == 1 else 'cases'} done; {rerun}"

    for folder in folders:
        remove_leftovers(folder)
    try:
        with (
            told_when_interrupted(told),
            show_progress(label, voxels, quiet=verbosity < 0, bar_only=bar_only) as advance,
            contextlib.closing(_outcomes(function, largest_first, jobs, engine, folders)) as coming,
        ):
            for outcome in coming:
                if on_done is not None:
                    on_done(outcome)
                outcomes[outcome.name] = outcome
                advance(outcome.name, outcome.seconds, outcome.error is not None)
    except WorkersLostError as error:
        raise RwtoolError(f"{error}; {told()}") from error
    finally:
        for folder in folders:
            remove_leftovers(folder)
    return [outcomes[item.name] for item in work]


def _outcomes(
    function: Callable[[Argument], Result],
    work: Sequence[Work[Argument]],
    jobs: int,
    engine: Engine | None,
    folders: Sequence[Path],
) -> Generator[Outcome[Result], None, None]:
    """Each case's outcome as it comes."""
    call = partial(attempt, function)
    jobs = min(jobs, len(work))
    if engine is None and jobs <= 1:
        yield from map(call, work)
    elif engine is None:
        yield from _elsewhere(call, work, jobs, Workers)
    elif work:
        from rwtool.engines import connect

        with connect(engine, work[0], folders) as cluster:
            refused = {item.name: reason for item in work if (reason := cluster.refusal(item)) is not None}
            yield from (Outcome(name, None, reason) for name, reason in refused.items())
            yield from _elsewhere(call, [item for item in work if item.name not in refused], jobs, cluster.start)


def _elsewhere(
    call: Callable[[Work[Argument]], Outcome[Result]],
    work: Sequence[Work[Argument]],
    jobs: int,
    start: Callable[[int], AbstractContextManager[Pool]],
) -> Generator[Outcome[Result], None, None]:
    """Each case's outcome as it comes; a case whose process ends is tried once more when all others are done, alone."""
    again = []
    with start(jobs) as workers:
        for item, outcome in workers.map(call, work):
            if isinstance(outcome, WorkerEndedError):
                again.append(item)
            else:
                yield outcome
    for item in again:
        with start(1) as workers:
            for _, outcome in workers.map(call, [item]):
                yield Outcome(item.name, None, str(outcome)) if isinstance(outcome, WorkerEndedError) else outcome


def attempt(function: Callable[[Argument], Result], item: Work[Argument]) -> Outcome[Result]:
    """Call a function on a case; an error becomes the outcome of the case."""
    start = time.perf_counter()
    error = details = result = None
    try:
        result = function(item.argument)
    except RwtoolError as caught:
        error = str(caught)
    except Exception as caught:  # a bug in one case must not cost the others
        if lacks_memory(caught):
            error = "not enough memory; free some, or give fewer jobs, such as jobs=1"
        else:
            error = f"unexpected {type(caught).__name__}: {caught} (this is a bug in rwtool)"
            details = traceback.format_exc()
    return Outcome(item.name, result, error, details, time.perf_counter() - start)
