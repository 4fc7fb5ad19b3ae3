"""Files as such: names and suffixes, the parts of a volume, sizes, hashes, and whole files under final names."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import platform
import re
import shutil
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from isal import isal_zlib
from nibabel.spatialimages import HeaderDataError

from rwtool.errors import UsageError, VolumeError

NIFTI_SUFFIXES = (".nii", ".nii.gz")
SITK_SUFFIXES = (
    ".mha", ".mhd", ".nrrd", ".nhdr", ".img", ".hdr", ".img.gz", ".gipl", ".gipl.gz", ".vtk",
    ".mnc", ".tif", ".tiff", ".png", ".bmp", ".jpg", ".jpeg", ".dcm",
)  # fmt: skip
NO_SPACING = (".npy", ".tif", ".tiff", ".png", ".bmp", ".jpg", ".jpeg")  # or none in mm for all axes
TEXT_HEADERS = (".mha", ".mhd", ".nrrd", ".nhdr")
TEXT_MOST = 1 << 16
SUFFIXES = (*NIFTI_SUFFIXES, *SITK_SUFFIXES, ".npy")

_LOCK_SECONDS = 20
_DEFLATE_MOST = 1032  # no deflate stream expands further
READ_ERRORS: tuple[type[Exception], ...] = (
    OSError, EOFError, ValueError, OverflowError, KeyError, RuntimeError, MemoryError,
    HeaderDataError, zlib.error, cast("type[Exception]", isal_zlib.IsalError),
)  # fmt: skip


def split_name(path: str | Path) -> tuple[str, str]:
    """Split a file name into case name and suffix: ``a/heart_1.nii.gz`` gives ``("heart_1", ".nii.gz")``.

    The suffix is lower case; a name without a suffix that rwtool reads gives ``""`` for it.
    """
    name = Path(path).name
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)], suffix
    return name, ""


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file; of all its parts where header and voxels are separate files."""
    digest = hashlib.sha256()
    for part in parts(Path(path)):
        with part.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def file_crc32(path: str | Path) -> str:
    """CRC-32 of a file, in hex: against damage, and several times faster than SHA-256."""
    checksum = 0
    with Path(path).open("rb") as stream:
        while block := stream.read(1 << 20):
            checksum = isal_zlib.crc32(block, checksum)
    return f"{checksum:08x}"


def parts(path: Path) -> list[Path]:
    """All files of a volume, there or not: header and voxels may be separate ones."""
    stem, suffix = split_name(path)
    if suffix in TEXT_HEADERS:
        fields, end = text_header(path)
        name = next((fields[key] for key in ("elementdatafile", "data file", "datafile") if key in fields), "LOCAL")
        if name.upper() == "LOCAL":
            return [path]
        if name.upper().startswith("LIST"):
            names = path.read_bytes()[end:].decode("latin-1").split("\n")
            return [path, *(path.parent / listed.strip() for listed in names if listed.strip())]
        if "%" in name:
            return [path, *sorted(path.parent.glob(re.sub(r"%\d*d", "*", name.split()[0])))]
        return [path, path.parent / name]
    other = {".hdr": (".img", ".img.gz"), ".img": (".hdr",), ".img.gz": (".hdr.gz", ".hdr")}.get(suffix, ())
    beside = [part for tail in other if (part := path.with_name(stem + tail)).is_file()][:1]
    return [path, *beside] if suffix == ".hdr" else [*beside, path]


def text_header(path: Path) -> tuple[dict[str, str], int]:
    """Fields of a MetaImage or NRRD header, their names in lower case, and the byte at which it ends."""
    separator = "=" if split_name(path)[1] in (".mha", ".mhd") else ":"
    fields: dict[str, str] = {}
    end = 0
    with path.open("rb") as stream:
        for line in stream.read(TEXT_MOST).splitlines(keepends=True):
            end += len(line)
            name, found, value = line.decode("latin-1").partition(separator)
            name = name.strip().lower()
            if found and not name.startswith("#"):
                fields[name] = value.strip()
            if name == "elementdatafile" or not line.strip():
                break
    return fields, end


def gzipped(path: Path) -> bool:
    """Whether the name says gzip."""
    return path.name.lower().endswith(".gz")


def first_bytes(path: Path) -> bytes:
    """First four bytes of a file that has any."""
    with path.open("rb") as stream:
        found = stream.read(4)
    if not found:
        raise VolumeError("the file is empty; copy it again from its source")
    return found


def check_size(there: int, claimed: int, *, packed: bool) -> None:
    """Refuse a header that claims more than its file can hold, before memory is taken for it."""
    most = there * _DEFLATE_MOST if packed else there
    if claimed > most:
        raise VolumeError(
            f"the header claims {claimed:,} bytes of voxels; the file's {there:,} bytes can hold at most {most:,}; "
            "it is truncated or its header is damaged; copy it again from its source"
        )


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
