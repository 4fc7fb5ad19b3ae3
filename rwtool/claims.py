"""Who is writing into a folder: one writer, or several that do the same."""

from __future__ import annotations

import datetime
import os
import platform
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from filelock import FileLock, Timeout

from rwtool.errors import RwtoolError, UsageError
from rwtool.files import check_there, lock_of, locked, naming, passing, remove_passing
from rwtool.records import read_json, to_json, to_record

_TAIL = ".rwtool-writer"


class Claim(msgspec.Struct, frozen=True):
    """Who writes into a folder."""

    process: int
    host: str
    since: str
    settings: str


@contextmanager
def claimed(
    folder: Path, settings: str, *, shared: bool, mend: str, at_last: Callable[[], None] | None = None
) -> Iterator[str]:
    """Be a writer of a folder as long as the block lasts.

    A claim is a file that says who writes, and a lock of the operating system beside it, which ends with its process:
    a claim whose lock is free is that of a killed one, and goes.

    Parameters
    ----------
    folder : Path
    settings : str
        What is written, for people.
    shared : bool
        Whether others may write with the same settings at the same time.
    mend : str
        What to do where the folder is taken.
    at_last : callable, optional
        Called at the end where no other writer is left, before anyone else can begin.

    Yields
    ------
    str
        A name for this writer, that no other has.

    Raises
    ------
    UsageError
        Another process writes there; the message says which, since when and what.
    VolumeError
        The folder cannot be written to, or has gone at the end.
    """
    mine = folder / f".{uuid.uuid4().hex}{_TAIL}"
    claim = Claim(
        os.getpid(), platform.node(), datetime.datetime.now().astimezone().isoformat(" ", "seconds"), settings
    )
    with passing(mine) as lock:
        with locked(folder / "rwtool", named=folder):
            for other in _writers(folder):
                if not shared or other is None or other.settings != settings:
                    raise UsageError(f"{folder}: {_describe(other)}; {mend}")
            with naming(folder, OSError, doing="written"):
                lock.acquire()
                mine.write_text(to_json(claim) + "\n", encoding="utf-8")
        try:
            yield _name_of(mine)
            check_there(mine, folder)
        finally:
            if at_last is not None:
                with locked(folder / "rwtool", named=folder):
                    if not any(True for _ in _writers(folder, besides=mine)):
                        at_last()
                    remove_passing(mine)


def writers(folder: Path) -> set[str]:
    """Names of the writers of a folder: of those that live, and of those killed since :func:`claimed` looked last."""
    return {_name_of(claim) for claim in folder.glob(f".*{_TAIL}")}


def _name_of(claim: Path) -> str:
    return claim.name.removeprefix(".").removesuffix(_TAIL)


def _writers(folder: Path, *, besides: Path | None = None) -> Iterator[Claim | None]:
    """The claims of living processes, None for one that cannot be read; those of dead ones are removed."""
    for path in sorted(set(folder.glob(f".*{_TAIL}")) - {besides}):
        try:
            with FileLock(lock_of(path), timeout=0):
                remove_passing(path)
        except Timeout:
            try:
                content = read_json(path, refusal="cannot be read", mend="")
                yield to_record(content, Claim, path, refusal="cannot be read", mend="")
            except RwtoolError:
                if path.exists():  # it has not just ended
                    yield None


def _describe(claim: Claim | None) -> str:
    if claim is None:
        return "another process is writing into it"
    return f"process {claim.process} on {claim.host} has been writing into it since {claim.since} ({claim.settings})"
