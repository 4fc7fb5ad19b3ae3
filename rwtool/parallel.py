"""Cases in parallel: as many at once as cores and memory allow, with progress, and none at another's cost."""

from __future__ import annotations

import contextlib
import os
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import joblib
from joblib.externals.loky.process_executor import TerminatedWorkerError

from rwtool.console import show_progress
from rwtool.errors import RwtoolError

Argument = TypeVar("Argument")
Result = TypeVar("Result")

_MEMORY_INFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


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


def available_memory() -> int | None:
    """Bytes that can be taken without swapping, a container's limit included; None where nothing tells."""
    free = None
    with contextlib.suppress(OSError, ValueError):
        for line in _MEMORY_INFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
    if free is None:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    with contextlib.suppress(OSError, ValueError):
        limit = int((_CGROUP / "memory.max").read_text())
        used = int((_CGROUP / "memory.current").read_text())
        for line in (_CGROUP / "memory.stat").read_text().splitlines():
            if line.startswith("inactive_file "):  # cached files, given back when memory is wanted
                used -= int(line.split()[1])
        free = limit - used if free is None else min(free, limit - used)
    return free


def plan_jobs(work: Sequence[Work[Any]], *, cores: int | None = None, memory: int | None = None) -> tuple[int, int]:
    """How many cases to do at once, and with how many threads each.

    Parameters
    ----------
    work : sequence of Work
    cores, memory : int, optional
        What there is; found out if not given. Memory in bytes.

    Returns
    -------
    jobs, threads : int
        The `jobs` largest cases together fit in memory; at least 1.
    """
    cores = cores or joblib.cpu_count()
    memory = available_memory() if memory is None else memory
    jobs = max(1, min(cores, len(work)))
    if memory is not None:
        peaks = sorted((item.peak_bytes for item in work), reverse=True)
        while jobs > 1 and sum(peaks[:jobs]) > memory:
            jobs -= 1
    return jobs, max(1, cores // jobs)


def refuse_too_large(work: Sequence[Work[Argument]]) -> tuple[list[Work[Argument]], list[Outcome[Any]]]:
    """Split off the cases that alone would take more memory than is free."""
    memory = available_memory()
    if memory is None:
        return list(work), []
    fitting = [item for item in work if item.peak_bytes <= memory]
    refused: list[Outcome[Any]] = [
        Outcome(
            item.name,
            None,
            f"it needs about {item.peak_bytes / 1e9:.1f} GB of memory and {memory / 1e9:.1f} GB are free; free some, "
            "or give --jobs 1 to try all the same",
        )
        for item in work
        if item.peak_bytes > memory
    ]
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
) -> list[Outcome[Result]]:
    """Call a function on every case, in parallel, and gather what became of each.

    An error in a case, its worker's death included, becomes the outcome of that case; the others go on.

    Parameters
    ----------
    function : callable
        Takes a ``Work.argument``; must be importable by name.
    work : sequence of Work
    jobs : int
        Processes; 1 stays in this one.
    label : str
        What is being done, for the progress bar.
    verbosity : int
        -1 shows no progress.
    bar_only : bool
        A bar on a terminal, and nothing elsewhere: for work that is not the command's own, such as hashing.
    on_done : callable, optional
        Called with each outcome as it comes.

    Returns
    -------
    list of Outcome
        In the order of `work`.
    """
    outcomes: dict[str, Outcome[Result]] = {}
    largest_first = sorted(work, key=lambda item: -item.voxels)
    voxels = {item.name: item.voxels for item in work}
    with show_progress(label, voxels, quiet=verbosity < 0, bar_only=bar_only) as advance:
        for outcome in _outcomes(function, largest_first, jobs):
            outcomes[outcome.name] = outcome
            if on_done is not None:
                on_done(outcome)
            advance(outcome.name, outcome.seconds, outcome.error is not None)
    return [outcomes[item.name] for item in work]


def _outcomes(
    function: Callable[[Argument], Result], work: Sequence[Work[Argument]], jobs: int
) -> Iterator[Outcome[Result]]:
    if jobs == 1:
        yield from (attempt(function, item) for item in work)
        return
    left = {item.name: item for item in work}
    try:
        parallel = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=1, pre_dispatch="2*n_jobs")
        for outcome in parallel(joblib.delayed(attempt)(function, item) for item in work):
            del left[outcome.name]
            yield outcome
    except TerminatedWorkerError:
        # A killed worker takes its pool with it: what is left is done in pools of one, so that only the case that
        # kills its worker is lost.
        for item in left.values():
            yield _attempt_alone(function, item)


def _attempt_alone(function: Callable[[Argument], Result], item: Work[Argument]) -> Outcome[Result]:
    try:
        # two jobs, since one would run in this process
        return joblib.Parallel(n_jobs=2)([joblib.delayed(attempt)(function, item)])[0]
    except TerminatedWorkerError:
        reason = "its process was killed, most often for want of memory; free some and run again"
        return Outcome(item.name, None, reason)


def attempt(function: Callable[[Argument], Result], item: Work[Argument]) -> Outcome[Result]:
    """Call a function on a case; an error becomes the outcome of the case."""
    start = time.perf_counter()
    error = details = result = None
    try:
        result = function(item.argument)
    except RwtoolError as caught:
        error = str(caught)
    except MemoryError:
        error = "not enough memory; free some, or lower --jobs"
    except Exception as caught:  # a bug in one case must not cost the others
        error = f"unexpected {type(caught).__name__}: {caught} (this is a bug in rwtool)"
        details = traceback.format_exc()
    return Outcome(item.name, result, error, details, time.perf_counter() - start)
