"""Cases on the workers of a Dask scheduler, which run elsewhere, and what they must have in common with this machine.

By futures of distributed, not by joblib's backend for it, which waits for ever where a worker dies, and does cases in
this process where there is one worker.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import math
import os
import pickle
import socket
import time
import uuid
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib import metadata
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar
from urllib.parse import urlsplit

from rwtool import __version__
from rwtool.console import say, size
from rwtool.errors import RwtoolError, UsageError
from rwtool.files import remove_leftovers, scratch
from rwtool.records import read_json
from rwtool.workers import WorkerEndedError, WorkersLostError

EngineName = Literal["dask"]

MEMORY = "MEMORY"
"""The resource by which a worker says how many bytes its cases may take together."""

_ALIKE = ("numpy", "edt", "isal", "blosc2", "distributed")  # of distributed, each talks to its own version
_LOOK_SECONDS = 2.0  # between looks at which workers there are
_WAIT_SECONDS = 10.0  # without a worker, until that is said
_POLL_SECONDS = 0.01
_PROCESS = uuid.uuid4().hex
_LOGGERS = ("distributed", "distributed.client", "tornado", "tornado.application", "asyncio")

Versions = Callable[[], Mapping[str, str]]


class Item(Protocol):
    """A case: see `rwtool.parallel.Work`."""

    @property
    def name(self) -> str:
        """Its own among those of the run."""

    @property
    def argument(self) -> Any:
        """What it is done with."""

    @property
    def peak_bytes(self) -> int:
        """Memory that it takes at most."""


AnItem = TypeVar("AnItem", bound=Item)
Result = TypeVar("Result")


@dataclass(frozen=True)
class Engine:
    """Where cases are done, if not on this machine.

    Attributes
    ----------
    scheduler : str
        Its address.
    alike : callable
        Gives the versions of all that decides what the cases come to, beside `_ALIKE`; importable by name.
    """

    scheduler: str
    alike: Versions


@dataclass(frozen=True)
class _Site:
    """What the workers must have in common with this machine."""

    alike: Versions
    versions: tuple[tuple[str, str], ...]
    paths: tuple[tuple[str, int | None], ...]  # the bytes of files; None of folders
    process: str = _PROCESS


def choose_engine(engine: str | None, scheduler: str | None, *, alike: Versions) -> Engine | None:
    """The engine that a call names, whose scheduler answers; None where cases are done on this machine.

    Parameters
    ----------
    engine : {"dask"}, optional
    scheduler : str, optional
        An address, or the file that the scheduler has written it to; by default that of Dask's own configuration.
    alike : callable
        See `Engine`.

    Raises
    ------
    UsageError
        One without the other, or Dask is not installed.
    RwtoolError
        No scheduler answers.
    """
    if engine is None:
        if scheduler is not None:
            raise UsageError("scheduler= belongs to an engine; give engine='dask' too")
        return None
    if engine != "dask":
        raise UsageError(f"found engine={engine!r}; give engine='dask', or none for this machine")
    try:
        import dask
        import distributed  # noqa: F401
    except ImportError as error:
        raise UsageError("engine='dask' needs a package more: pip install 'rwtool[dask]'") from error
    address = scheduler or dask.config.get("scheduler-address", None)
    if address is None:
        raise UsageError("engine='dask' needs the address of its scheduler; give scheduler='tls://HOST:8786'")
    chosen = Engine(_address(address), alike)
    with _connected(chosen):
        pass
    if _is_open(chosen.scheduler):
        say(
            f"warning: {chosen.scheduler}: this is no TLS, so whoever reaches the scheduler or a worker runs code as "
            "you; use tls://, or a network that you trust (see rwtool help cluster)",
            err=True,
        )
    return chosen


def _address(text: str) -> str:
    """An address with its protocol."""
    if Path(text).is_file():
        content = read_json(Path(text), refusal="cannot be read as a scheduler file", mend="name the address itself")
        text = str(content.get("address")) if isinstance(content, dict) else ""
    address = text if "://" in text else f"tcp://{text}"
    try:
        parts = urlsplit(address)
        fits = parts.scheme in ("tcp", "tls") and parts.hostname and parts.port
    except ValueError:  # a port that is no number
        fits = None
    if not fits:
        raise UsageError(
            f"scheduler= is an address such as 'tls://host:8786', or the scheduler's own file; found {text!r}"
        )
    return address


def _is_open(address: str) -> bool:
    """Whether others than this machine may reach an address, and what goes there is not encrypted."""
    parts = urlsplit(address)
    if parts.scheme == "tls":
        return False
    with contextlib.suppress(OSError):
        found = socket.getaddrinfo(parts.hostname, parts.port, type=socket.SOCK_STREAM)
        return not all(ipaddress.ip_address(str(where[0]).partition("%")[0]).is_loopback for *_, where in found)
    return True


@contextlib.contextmanager
def _connected(engine: Engine) -> Iterator[Any]:
    """A client of the scheduler, which says nothing on its own."""
    from distributed import Client

    address = engine.scheduler
    _check_security(address)
    with _quiet():
        try:
            client = Client(address, set_as_default=False, name="rwtool")
        except (OSError, ValueError, TypeError, RuntimeError, ImportError) as error:
            raise RwtoolError(
                f"{address}: no Dask scheduler that takes this client: {_reason(error)}; start one, or name another "
                "scheduler="
            ) from error
        try:
            yield client
        finally:
            client.close()


def _check_security(address: str) -> None:
    """Refuse what Dask's configuration does not allow, of which Dask itself says little."""
    from distributed import Security

    security = Security()
    if address.startswith("tcp:"):
        if security.require_encryption:
            raise UsageError(f"{address} is no TLS, which Dask's configuration requires; name a tls:// scheduler=")
        return
    files = (security.tls_ca_file, security.tls_client_cert, security.tls_client_key)
    if not (files[0] and files[1]):
        raise UsageError(
            f"{address} needs certificates, which Dask's configuration names: set "
            "DASK_DISTRIBUTED__COMM__TLS__CA_FILE, DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT and "
            "DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY (see rwtool help cluster)"
        )
    for file in filter(None, files):
        if "\n" not in file and not Path(file).is_file():  # else it is the certificate itself
            raise UsageError(f"{file}: no such file, which Dask's configuration names for {address}")


def _reason(error: BaseException) -> str:
    """What an error of Dask's is about: the first that caused it, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split()) or type(error).__name__


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what distributed says of its connections from the terminal; what it comes to is said here."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="distributed")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def connect(engine: Engine, sample: Any, folders: Sequence[Path]) -> Iterator[Cluster]:
    """Connect to the workers, once they are known to have what it takes.

    Parameters
    ----------
    engine : Engine
    sample : Any
        What a case is done with: the paths in it that are here must be there.
    folders : sequence of Path
        Where cases are written to; they must be the same there. What killed workers left there is removed, before and
        after.

    Yields
    ------
    Cluster

    Raises
    ------
    RwtoolError
        The scheduler does not answer, or a worker has other versions or other files.
    """
    with contextlib.ExitStack() as stack:
        # a hidden folder in each, which is theirs as long as this run is under way
        probes = [stack.enter_context(scratch(folder)) for folder in folders]
        client = stack.enter_context(_connected(engine))
        _, paths = _packed(sample)
        sizes = {str(path.absolute()): path.stat().st_size if path.is_file() else None for path in (*paths, *probes)
                 if path.exists()}  # fmt: skip
        site = _Site(engine.alike, tuple(_versions(engine.alike).items()), tuple(sizes.items()))
        cluster = Cluster(client, engine, site)
        cluster.wait()
        sweep = partial(client.run, _sweep, tuple(str(folder.absolute()) for folder in folders), on_error="ignore")
        with cluster.reached():
            _refuse_others(client, site)
            sweep()
        yield cluster
        with contextlib.suppress(OSError):  # all is done
            sweep()  # not where the run was stopped, for a worker that is busy may answer late; the next run does it


def _versions(alike: Versions) -> dict[str, str]:
    """Of what must be alike, as it is in this process."""
    found = {"rwtool": __version__, **alike()}
    for name in _ALIKE:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "none"
    return found


@lru_cache(maxsize=16)
def _problem(site: _Site) -> str | None:
    """What this process has not in common with the one that asks."""
    if site.process == _PROCESS:
        return "it runs in the process that asks, which a case might take along; start it with dask worker"
    there, here = dict(site.versions), _versions(site.alike)
    other = [f"{name} {here.get(name, 'none')} there and {there[name]} here" for name in there
             if here.get(name, "none") != there[name]]  # fmt: skip
    if other:
        return f"{', '.join(other)}, which may give other numbers; install the same there"
    for path, number in site.paths:
        try:
            found = os.stat(path).st_size if number is not None else number if os.path.isdir(path) else -1
        except OSError:
            found = -1
        if found != number:
            how = "it is not there" if found == -1 else f"it has {found:,} bytes there and {number:,} here"
            return f"{path}: {how}; workers need the same files under the same paths, as on a shared file system"
    return None


def _sweep(folders: Sequence[str]) -> None:
    for folder in folders:
        remove_leftovers(Path(folder))


def _refuse_others(client: Any, site: _Site) -> None:
    """Ask each worker whether it has what it takes."""
    problems: dict[str, list[str]] = {}
    for worker, found in client.run(_problem, site, on_error="return").items():
        if isinstance(found, OSError):
            continue  # it has gone; one that comes is asked before its first case
        if isinstance(found, BaseException):
            found = f"it cannot run rwtool {__version__} ({_reason(found)}); install the same there"  # noqa: PLW2901
        if found is not None:
            problems.setdefault(found, []).append(worker)
    if problems:
        raise RwtoolError("; ".join(_of_worker(problem, workers) for problem, workers in problems.items()))


def _of_worker(problem: str, workers: Sequence[str]) -> str:
    more = f" and {len(workers) - 1:,} more" if len(workers) > 1 else ""
    return f"worker {workers[0]}{more}: {problem}"


class _Packer(pickle.Pickler):
    """Sends each path as the absolute one it is here, since workers run in folders of their own."""

    def __init__(self, stream: BytesIO) -> None:
        super().__init__(stream, pickle.HIGHEST_PROTOCOL)
        self.paths: dict[Path, None] = {}

    def reducer_override(self, value: Any) -> Any:
        if not isinstance(value, Path):
            return NotImplemented
        self.paths[value] = None
        return Path, (str(value.absolute()),)


def _packed(value: Any) -> tuple[bytes, list[Path]]:
    """A value as it is sent, and the paths in it."""
    stream = BytesIO()
    packer = _Packer(stream)
    packer.dump(value)
    return stream.getvalue(), list(packer.paths)


def _call(site: _Site, task: bytes) -> Any:
    """What a worker does."""
    problem = _problem(site)
    if problem is not None:
        from distributed import get_worker

        raise RwtoolError(_of_worker(problem, [get_worker().address]))
    function, item = pickle.loads(task)
    return function(item)


class Cluster:
    """The workers of a scheduler.

    Parameters
    ----------
    client : distributed.Client
    engine : Engine
    site : _Site
    """

    def __init__(self, client: Any, engine: Engine, site: _Site) -> None:
        self.client, self.site, self.name = client, site, engine.scheduler
        self._looked = self._able = time.monotonic() - _LOOK_SECONDS
        self._told = False
        self.threads = 0
        self.rooms: list[float] = []
        self.declared = False

    def look(self, pending: Iterable[Item] = ()) -> None:
        """See which workers there are, now and then; say so once where none can hold a pending case."""
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        with self.reached():
            workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
        self.threads = sum(worker["nthreads"] for worker in workers)
        self.declared |= any(MEMORY in worker["resources"] for worker in workers)
        if self.declared:
            self.rooms = [worker["resources"].get(MEMORY, 0) for worker in workers]
        else:
            self.rooms = [worker["memory_limit"] or math.inf for worker in workers]
        need = min((item.peak_bytes for item in pending), default=0)
        if max(self.rooms, default=-1) >= need:
            self._able, self._told = now, False
        elif now - self._able > _WAIT_SECONDS and not self._told:
            what = f"a worker that holds {size(need)}" if self.rooms else "a worker"
            say(f"note: {self.name}: waiting for {what}, for there is none now; Ctrl-C ends that", err=True)
            self._told = True

    def wait(self) -> None:
        """Wait for the first worker, which a queue may give at any time."""
        while not self.rooms:
            self.look()
            time.sleep(_POLL_SECONDS)

    def refusal(self, item: Item) -> str | None:
        """Why no worker takes a case; None where one does."""
        room = max(self.rooms, default=math.inf)
        if item.peak_bytes <= room:
            return None
        return (
            f"it needs about {size(item.peak_bytes)} of memory and no worker of {self.name} has more than "
            f"{size(room)}; start one with more"
        )

    @contextlib.contextmanager
    def reached(self) -> Iterator[None]:
        """What is asked of the scheduler, which may have gone."""
        try:
            if self.client.status != "running":
                raise OSError
            yield
        except OSError as error:
            raise self.lost() from error

    def lost(self) -> WorkersLostError:
        """What to say where the scheduler does not answer any more."""
        return WorkersLostError(f"{self.name}: the scheduler has gone, or the way to it")

    def start(self, count: int) -> Cases:
        """A context for so many cases at once, as `rwtool.workers.Workers` is."""
        return Cases(self, count)


class Cases:
    """Cases on the workers; a context manager.

    Parameters
    ----------
    cluster : Cluster
    count : int
        At most so many at once.
    """

    def __init__(self, cluster: Cluster, count: int) -> None:
        self._cluster, self._count = cluster, count

    def __enter__(self) -> Cases:
        return self

    def __exit__(self, *_: object) -> None:
        """What has not begun is dropped when the client goes."""

    def map(
        self, function: Callable[[AnItem], Result], items: Iterable[AnItem]
    ) -> Iterator[tuple[AnItem, Result | WorkerEndedError]]:
        """Do a function of each case; give each with its result, as they come.

        Parameters
        ----------
        function : callable
            Must be importable by name, and must not raise.
        items : iterable
            Begun in this order.

        Yields
        ------
        item, result
            A `WorkerEndedError` where workers died with it, or with one beside it: Dask cannot tell.

        Raises
        ------
        WorkersLostError
            The scheduler has gone, or a worker that came later has other versions or other files.
        """
        from distributed import as_completed

        client = self._cluster.client
        run = f"rwtool-{uuid.uuid4().hex}"  # the scheduler is shared, and so are its keys
        waiting = deque(items)
        under_way: dict[Any, AnItem] = {}
        coming = as_completed(loop=client.loop, with_results=True, raise_errors=False)
        while waiting or under_way:
            self._cluster.look(chain(under_way.values(), waiting))
            # a few in advance, so that no worker waits, and workers that are added by need see it
            while waiting and len(under_way) < min(self._count, max(2, 2 * self._cluster.threads)):
                item = waiting.popleft()
                future = self._submit(run, function, item)
                under_way[future] = item
                coming.add(future)
            if not coming.has_ready():
                time.sleep(_POLL_SECONDS)
            for future, result in coming.next_batch(block=False):
                yield under_way.pop(future), self._result(future, result)

    def _submit(self, run: str, function: Callable[[AnItem], Result], item: AnItem) -> Any:
        cluster = self._cluster
        needs = {MEMORY: item.peak_bytes} if cluster.declared else None
        task, _ = _packed((function, item))
        with cluster.reached():
            return cluster.client.submit(_call, cluster.site, task, key=(run, item.name), pure=False, resources=needs)

    def _result(self, future: Any, result: Any) -> Any:
        from distributed.scheduler import KilledWorker

        if future.status == "finished":
            return result
        if future.status != "error":
            raise self._cluster.lost()
        _, error, _ = result
        if isinstance(error, KilledWorker):
            return WorkerEndedError(
                f"its worker died each time that it was tried, also alone (the last was {error.last_worker.address}), "
                "most often for want of memory; give the workers more and run again"
            )
        if isinstance(error, RwtoolError):
            raise WorkersLostError(str(error))
        raise WorkersLostError(f"{self._cluster.name}: {_reason(error)}")
