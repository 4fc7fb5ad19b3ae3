"""Processes that call functions for this one, and end with it.

Not those of multiprocessing, which either run the main script again (one without ``if __name__ == "__main__"`` would
start itself without end) or fork a process whose threads hold locks, and whose pools break as a whole where one process
is killed. Here each process has a pipe of its own: its end, and whose call it was, is seen at once; and the end of this
process, however it comes, is the end of their input.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import IO, Any, TypeVar

from rwtool.errors import RwtoolError
from rwtool.machine import available_cores

Argument = TypeVar("Argument")
Result = TypeVar("Result")

_SERVE = "import sys; sys.path[:] = {path!r}; from rwtool.workers import serve; serve()"
_THREADS = (  # variables that bound the threads of the libraries that cases call
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)
_PR_SET_PDEATHSIG = 1  # the kernel sends a signal when the thread ends that has started this process
_STOP = ("SIGINT", "SIGTERM", "SIGHUP")


class WorkerEndedError(Exception):
    """A process ended in the middle of a call."""


class WorkersLostError(RwtoolError):
    """Those that are called are not to be reached any more, or not to be used, and no call is to blame."""


class Workers:
    """Some processes, started when they are needed; a context manager, at whose end they are gone.

    Parameters
    ----------
    count : int
        At most so many; they share the cores.

    Examples
    --------
    >>> with Workers(2) as workers:
    ...     sorted(workers.map(abs, [-3, 2]))
    [(-3, 3), (2, 2)]
    """

    def __init__(self, count: int) -> None:
        threads = str(max(1, available_cores() // count))
        self._environment = {**dict.fromkeys(_THREADS, threads), **os.environ}
        self._askers = ThreadPoolExecutor(count, thread_name_prefix="rwtool-worker")
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        self._started: set[subprocess.Popen[bytes]] = set()
        self._changing = threading.Lock()
        self._closed = False

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        with self._changing:
            self._closed = True
            for process in self._started:
                process.kill()
        self._askers.shutdown(cancel_futures=True)
        for process in list(self._started):
            self._reap(process)

    def map(
        self, function: Callable[[Argument], Result], arguments: Iterable[Argument]
    ) -> Iterator[tuple[Argument, Result | WorkerEndedError]]:
        """Call a function with each argument; give each with its result, as they come.

        Parameters
        ----------
        function : callable
            Must be importable by name, and must not raise.
        arguments : iterable
            Begun in this order.

        Yields
        ------
        argument, result
            A `WorkerEndedError` where a process ended in the call; another takes its place.
        """
        asked: dict[Future[Any], Argument] = {
            self._askers.submit(self._ask, function, each): each for each in arguments
        }
        for future in as_completed(list(asked)):
            yield asked.pop(future), future.result()

    def _ask(self, function: Callable[[Argument], Result], argument: Argument) -> Result | WorkerEndedError:
        task = pickle.dumps((function, argument))
        try:
            process = self._idle.get_nowait()
        except queue.Empty:
            process = self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            pickle.dump(task, process.stdin)
            process.stdin.flush()
            result: Result = pickle.load(process.stdout)
        except (EOFError, OSError, pickle.UnpicklingError):
            process.kill()
            return WorkerEndedError(_reason(self._reap(process)))
        self._idle.put(process)
        return result

    def _start(self) -> subprocess.Popen[bytes]:
        """Start a process that neither Ctrl-C nor SIGTERM reach: it ends when this one says so, or ends itself."""
        masked = None
        if os.name == "posix":
            masked = signal.pthread_sigmask(signal.SIG_BLOCK, [getattr(signal, name) for name in _STOP])
        try:
            with self._changing:
                if self._closed:
                    raise WorkerEndedError("no process is started any more")
                process = subprocess.Popen(
                    [sys.executable, "-c", _SERVE.format(path=sys.path)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env=self._environment,
                    creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
                )
                self._started.add(process)
        finally:
            if masked is not None:
                signal.pthread_sigmask(signal.SIG_SETMASK, masked)
        return process

    def _reap(self, process: subprocess.Popen[bytes]) -> int:
        """Wait for a process that ends, and close its pipes; returns its exit code."""
        code = process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):  # what was not read any more
                    stream.close()
        with self._changing:
            self._started.discard(process)
        return code


def _reason(code: int) -> str:
    """Why a process ended, for people."""
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    if how == "SIGKILL":
        return "its process was killed, most often for want of memory; free some and run again"
    return f"its process crashed ({how}), most often in a library that a damaged file breaks; copy the file again"


def serve() -> None:
    """What a process does: calls come by standard input, results go to standard output."""
    tasks, results = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # what a library prints is no result
    with contextlib.suppress(AttributeError, OSError, TypeError):  # Linux alone
        # A call that keeps Python's lock, as edt's do, would keep the other thread from seeing that input ends.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    waiting: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(tasks, waiting), daemon=True).start()
    while True:
        function, argument = pickle.loads(waiting.get())
        result = pickle.dumps(function(argument))
        try:
            results.write(result)
            results.flush()
        except OSError:
            os._exit(0)


def _receive(tasks: IO[bytes], waiting: queue.SimpleQueue[bytes]) -> None:
    """Take in calls while another is under way, so as to see at once that there are no more to come."""
    while True:
        try:
            waiting.put(pickle.load(tasks))
        except (EOFError, OSError, pickle.UnpicklingError):
            os._exit(0)  # whatever the other thread does
