"""Files as such: names and suffixes, the parts of a volume, sizes, hashes, and whole files under final names."""

from __future__ import annotations

import contextlib
import glob
import os
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from isal import isal_zlib

from rwtool.errors import UsageError, VolumeError

_LOCK_SECONDS = 20


def file_crc32(path: str | Path) -> str:
    """CRC-32 of a file, in hex: against damage, and several times faster than SHA-256."""
    checksum = 0
    with Path(path).open("rb") as stream:
        while block := stream.read(1 << 20):
            checksum = isal_zlib.crc32(block, checksum)
    return f"{checksum:08x}"


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Give a name to write to; what was written there gets its final name when the block ends well.

    Parameters
    ----------
    path : Path
        The final name. Its folder is made.

    Yields
    ------
    Path
        The same file name inside a hidden folder beside it, so that parts which name each other stay right.
    """
    workshop = path.parent / f".{path.name}.{os.getpid()}{_workshop_suffix()}"
    with naming(path, OSError, doing="written"):
        workshop.mkdir(parents=True, exist_ok=True)
    try:
        yield workshop / path.name
        with naming(path, OSError, doing="written"):
            made = sorted(workshop.iterdir(), key=lambda part: part.name == path.name)  # the named file last
            for part in made:
                os.replace(part, path.parent / part.name)
    finally:
        shutil.rmtree(workshop, ignore_errors=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes from replacing a file that is being read, changed and written, for a moment each."""
    lock = path.with_name(f".{path.name}.lock")
    while True:
        try:
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL))
            break
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):
                if time.time() - lock.stat().st_mtime > _LOCK_SECONDS:  # left by a killed process
                    lock.unlink()
            time.sleep(0.02)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """Make a folder for output, and the folders above it.

    Raises
    ------
    VolumeError
        If it cannot be made.
    """
    with naming(path, OSError, doing="written"):
        path.mkdir(parents=True, exist_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed run of :func:`atomic` on this machine left in a folder."""
    tail = _workshop_suffix()
    for workshop in folder.glob(f".*{glob.escape(tail)}"):
        process = workshop.name.removesuffix(tail).rpartition(".")[2]
        if process.isdigit() and not _alive(int(process)):
            shutil.rmtree(workshop, ignore_errors=True)


def _workshop_suffix() -> str:
    """End of the name of a hidden folder that is ours; a process number means nothing on another machine."""
    return f"@{platform.node()}.rwtool-tmp"


def _alive(process: int) -> bool:
    if os.name == "nt":  # where signal 0 would end the process
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


@contextmanager
def naming(path: Path, *also: type[Exception], doing: str = "read") -> Iterator[None]:
    """Put the file's name before the message of an error, once; a library's error becomes ours."""
    try:
        yield
    except (VolumeError, UsageError) as error:
        if str(error).startswith(f"{path}:"):
            raise
        raise type(error)(f"{path}: {error}") from error
    except also as error:
        reason = "not enough memory" if isinstance(error, MemoryError) else str(error) or type(error).__name__
        if isinstance(error, OSError) and error.strerror:
            reason = error.strerror
        elif doing == "read" and not isinstance(error, MemoryError):
            reason += "; it is truncated or damaged; copy it again from its source"
        raise VolumeError(f"{path}: cannot be {doing}: {reason}") from error
