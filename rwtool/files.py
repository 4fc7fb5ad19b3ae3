"""Files as such: whole files under final names, locks, checksums, leftovers, and names that lead nowhere else."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import platform
import re
import shutil
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

    Raises
    ------
    VolumeError
        It cannot be written: no space, no permission, or the folder has gone.
    """
    workshop = _workshop(path.parent)
    with naming(path, OSError, doing="written"):
        workshop.mkdir(parents=True, exist_ok=True)
    try:
        yield workshop / path.name
        made = sorted(workshop.iterdir(), key=lambda part: part.name == path.name)  # the named file last
        for part in made:
            os.replace(part, path.parent / part.name)
    except OSError as error:
        raise VolumeError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(workshop, ignore_errors=True)


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """Give a hidden folder within another, which goes with all that is in it when the block ends.

    That of a killed process goes by :func:`remove_leftovers`.

    Raises
    ------
    VolumeError
        It cannot be made.
    """
    workshop = _workshop(folder)
    with naming(folder, OSError, doing="written"):
        workshop.mkdir()
    try:
        yield workshop
    finally:
        shutil.rmtree(workshop, ignore_errors=True)


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
        Its folder cannot be written to, or another process does not let go.
    """
    file = path.with_name(f".{path.name}.lock")
    lock = FileLock(file, timeout=_LOCK_SECONDS)
    try:
        lock.acquire()
    except Timeout as error:
        raise VolumeError(
            f"{named or path}: {file} has been held by another process for {_LOCK_SECONDS} s; end it"
        ) from error
    except OSError as error:
        raise VolumeError(f"{named or path}: cannot be written: {error.strerror or error}") from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            file.unlink()  # while it is held: who waits for it finds out, and makes another
        lock.release()


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
    """Remove what a killed run of :func:`atomic` or :func:`scratch` on this machine left in a folder."""
    tail = _workshop_suffix()
    for workshop in folder.glob(f".*{glob.escape(tail)}"):
        process = workshop.name.removesuffix(tail).rpartition(".")[2]
        if process.isdigit() and not _alive(int(process)):
            shutil.rmtree(workshop, ignore_errors=True)


def _workshop(folder: Path) -> Path:
    """A new name in a folder; not of the file's name, which may be as long as names can be."""
    return folder / f".{uuid.uuid4().hex}.{os.getpid()}{_workshop_suffix()}"


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
    except (OSError, OverflowError):
        return True
    try:
        state = Path(f"/proc/{process}/stat").read_text(encoding="latin-1").rpartition(")")[2].split()[0]
    except (OSError, IndexError):  # no such folder, as on macOS
        return True
    return state not in ("Z", "X")  # ended, but its parent has not asked how


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
