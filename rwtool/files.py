"""Files as such: whole files under final names, locks, checksums, leftovers, and names that lead nowhere else."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import re
import shutil
import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from isal import isal_zlib

from rwtool.errors import UsageError, VolumeError

_NAME_MOST = 255  # bytes, on all usual file systems
_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9\u00b9\u00b2\u00b3]|lpt[0-9\u00b9\u00b2\u00b3]) *(\..*)?", re.IGNORECASE)
_LOCK_SECONDS = 60  # what a lock is held for takes milliseconds
_LOOK_SECONDS = 0.02  # between looks at one that another holds


def file_crc32(path: str | Path) -> str:
    """CRC-32 of a file, in hex: against damage, and several times faster than SHA-256."""
    checksum = 0
    with Path(path).open("rb") as stream:
        while block := stream.read(1 << 20):
            checksum = isal_zlib.crc32(block, checksum)
    return f"{checksum:08x}"


def is_file_name(name: str, *, windows: bool = os.name == "nt") -> bool:
    """Whether a text names a file of a folder: no path, and nothing that no name can hold.

    On Windows also no device such as ``CON`` or ``aux.txt``, and none that would be another file's, for dots and spaces
    at the end do not count there and a colon names a part of a file.
    """
    if windows and (_DEVICE.fullmatch(name) or re.search(r'[<>:"/\\|?*\x00-\x1f]|[. ]$', name)):
        return False
    plain = name == os.path.basename(name) and not os.path.splitdrive(name)[0]
    return plain and name not in ("", ".", "..") and "\0" not in name


def fitting_name(name: str, suffix: str) -> str:
    """Name of a file that is called after another: of one that leaves no room for the suffix, a hash is the end.

    >>> fitting_name("case_1", ".json")
    'case_1.json'
    >>> len(fitting_name("a" * 251, ".json"))
    245
    """
    if len(os.fsencode(name + suffix)) <= _NAME_MOST:
        return name + suffix
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()
    kept = os.fsencode(name)[: _NAME_MOST - len(digest) - len(suffix) - 10].decode(errors="ignore")
    return f"{kept}{digest}{suffix}"


def file_in(folder: Path, name: str) -> Path:
    """The file of a folder that another file names.

    Raises
    ------
    VolumeError
        The name leads out of the folder: it is a path, or the file is a link to elsewhere.
    """
    if not is_file_name(name):
        raise VolumeError(f"{folder}: {name!r} is no name of a file in this folder; nothing outside of it is touched")
    path = folder / name
    if path.is_symlink() and os.path.dirname(os.path.realpath(path)) != os.path.realpath(folder):
        raise VolumeError(f"{path}: a link that leads out of its folder is not followed; put the file itself there")
    return path


@contextmanager
def atomic(path: Path, *, parts: bool = False) -> Iterator[Path]:
    """Give a name to write to; what was written there gets its final name when the block ends well.

    The first time that this process writes into a folder, it removes what killed ones have left there.

    Parameters
    ----------
    path : Path
        The final name. Its folder is made.
    parts : bool
        Whether what is written goes by its name, or becomes several files that name each other.

    Yields
    ------
    Path
        A hidden file beside it; with `parts`, the same file name inside a hidden folder, which some file systems take
        milliseconds to make and to remove.

    Raises
    ------
    VolumeError
        It cannot be written: no space, no permission, or the folder has gone.
    """
    temporary = path.parent / f".{uuid.uuid4().hex}{_TAIL}"  # not of the file's name, which may be as long as can be
    with passing(temporary) as lock:
        try:
            make_folder(path.parent)
            if path.parent not in _SWEPT:
                _SWEPT.add(path.parent)
                remove_leftovers(path.parent)
            lock.acquire()
            if not parts:
                yield temporary
                os.replace(temporary, path)
                return
            temporary.mkdir()
            yield temporary / path.name
            made = sorted(temporary.iterdir(), key=lambda part: part.name == path.name)  # the named file last
            for part in made:
                os.replace(part, path.parent / part.name)
        except OSError as error:
            raise VolumeError(f"{path}: cannot be written: {error.strerror or error}") from error


@contextmanager
def passing(path: Path) -> Iterator[FileLock]:
    """See to it that a hidden file or folder of this process, and its lock, do not outlast the block.

    An interrupt may come while they are being removed: then they go when the process ends. What a killed process leaves
    is known by its lock, which the operating system has let go.

    Yields
    ------
    FileLock
        To be acquired before there is anything of this name, so that what has a free lock is of no living process.
    """
    lock = FileLock(lock_of(path), timeout=0)
    try:
        _PASSING[path] = os.getpid()
        yield lock
    finally:
        remove_passing(path)
        lock.release()
        _PASSING.pop(path, None)


def lock_of(path: Path) -> Path:
    """The lock of a hidden file or folder, beside it."""
    return path.with_name(path.name + _LOCK)


def remove_passing(path: Path) -> None:
    """Remove a hidden file or folder, and its lock; only while that is held."""
    shutil.rmtree(path, ignore_errors=True)
    for file in (path, lock_of(path)):
        with contextlib.suppress(OSError):
            file.unlink()


_PASSING: dict[Path, int] = {}  # with its process, for a forked one has them too
_LOCKS: dict[FileLock, int] = {}
_SWEPT: set[Path] = set()


@atexit.register
def _remove_all_passing() -> None:
    for lock, process in list(_LOCKS.items()):
        if process == os.getpid() and os.path.exists(lock.lock_file):
            with contextlib.suppress(Timeout, OSError):
                lock.acquire(timeout=0)
            _let_go(lock)
    for path, process in list(_PASSING.items()):
        if process == os.getpid():
            remove_passing(path)


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """Give a hidden folder within another, which is made, and goes with all that is in it when the block ends.

    That of a killed process goes by :func:`remove_leftovers`.

    Raises
    ------
    VolumeError
        It cannot be made.
    """
    hidden = folder / f".{uuid.uuid4().hex}{_TAIL}"
    make_folder(folder)
    with passing(hidden) as lock:
        with naming(folder, OSError, doing="written"):
            lock.acquire()
            hidden.mkdir()
        yield hidden


@contextmanager
def locked(path: Path, *, named: Path | None = None) -> Iterator[None]:
    """Keep other processes from replacing a file that is being read, changed and written, for a moment each.

    The lock is the operating system's, so that of a process that has ended holds no one up.

    Parameters
    ----------
    path : Path
        The file; the lock is a hidden one beside it.
    named : Path, optional
        What an error is said of, in place of the file.

    Raises
    ------
    VolumeError
        Its folder cannot be written to, another process does not let go, or the folder has gone at the end.
    """
    file = path.with_name(f".{path.name}.lock")
    lock = FileLock(file, timeout=_LOCK_SECONDS)
    try:
        _LOCKS[lock] = os.getpid()
        try:
            _acquire(lock)
        except Timeout as error:
            raise VolumeError(
                f"{named or path}: {file} has been held by another process for {_LOCK_SECONDS} s; end it"
            ) from error
        except OSError as error:
            raise VolumeError(f"{named or path}: cannot be written: {error.strerror or error}") from error
        yield
        check_there(file, named or path)
    finally:
        _let_go(lock)
        _LOCKS.pop(lock, None)


def _acquire(lock: FileLock) -> None:
    """Wait for a lock; an interrupt comes before or after, so that it is known whether it is held."""
    limit = time.monotonic() + _LOCK_SECONDS
    while True:
        with _uninterrupted():
            try:
                lock.acquire(timeout=0)
                return
            except Timeout:
                if time.monotonic() > limit:
                    raise
        time.sleep(_LOOK_SECONDS)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Keep signals waiting for a moment, where that can be done."""
    if os.name != "posix":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _let_go(lock: FileLock) -> None:
    """Remove the file of a lock while it is held, so that who waits for it finds out and makes another; release it."""
    if lock.is_locked:
        with contextlib.suppress(OSError):
            os.unlink(lock.lock_file)
        lock.release(force=True)


def check_there(mine: Path, named: Path) -> None:
    """Refuse to end well where a file that marks a folder as being written into has gone, and with it what was written.

    Raises
    ------
    VolumeError
    """
    if not mine.exists():
        raise VolumeError(f"{named}: its folder was removed or replaced while it was written; run the same again")


def make_folder(path: Path) -> None:
    """Make a folder for output, and the folders above it.

    Raises
    ------
    VolumeError
        If it cannot be made.
    """
    if path.is_symlink() or path.exists():
        if not path.is_dir():
            raise VolumeError(
                f"{path}: there is no folder of this name, but a file or a broken link; name another folder"
            )
        return
    with naming(path, OSError, doing="written"):
        path.mkdir(parents=True, exist_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed runs of :func:`atomic` and :func:`scratch` left in a folder: what is hidden, held by none."""
    for path in folder.glob(f".*{_TAIL}*"):
        if not _TEMPORARY.fullmatch(path.name):
            continue
        temporary = path.with_name(path.name.removesuffix(_LOCK))
        with contextlib.suppress(Timeout, OSError), FileLock(lock_of(temporary), timeout=0):
            remove_passing(temporary)


_TAIL, _LOCK = ".rwtool-tmp", ".lock"
_TEMPORARY = re.compile(rf"\.[0-9a-f]{{32}}{re.escape(_TAIL)}({re.escape(_LOCK)})?")


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
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]  # of C++, whose last is the reason
        reason = "not enough memory" if isinstance(error, MemoryError) else (lines or [type(error).__name__])[-1]
        if isinstance(error, OSError) and error.strerror:
            reason = error.strerror
        elif doing == "read" and not isinstance(error, MemoryError):
            reason += "; it is truncated or damaged; copy it again from its source"
        raise VolumeError(f"{path}: cannot be {doing}: {reason}") from error
