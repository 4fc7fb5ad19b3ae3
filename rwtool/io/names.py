"""What the name of a file says: its case, its format, and which other files belong to it."""

from __future__ import annotations

import hashlib
import re
import unicodedata
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, cast

from isal import isal_zlib
from nibabel.spatialimages import HeaderDataError

from rwtool.errors import VolumeError
from rwtool.files import naming
from rwtool.io.headers import read_meta_header, read_nrrd_header, stated_files

NIFTI_SUFFIXES = (".nii", ".nii.gz")


PAIR_SUFFIXES = (".hdr", ".hdr.gz", ".img", ".img.gz")  # of NIfTI, where the header says so, else of Analyze


META_SUFFIXES = (".mha", ".mhd")


NRRD_SUFFIXES = (".nrrd", ".nhdr", ".seg.nrrd", ".seg.nhdr")  # of 3D Slicer's segmentations the latter


MGH_SUFFIXES = (".mgz", ".mgh", ".mgh.gz")


NEURO_SUFFIXES = (*MGH_SUFFIXES, ".head", ".brik", ".brik.gz", ".par", ".rec")


TIFF_SUFFIXES = (".tif", ".tiff")


PICTURE_SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".jpg", ".jpeg")


DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")


OTHER_SUFFIXES = (".gipl", ".gipl.gz", ".vtk", ".mnc")


BARE_SUFFIXES = (".npy", ".b2nd")  # of arrays; the latter is nnU-Net's


NO_SPACING = (*BARE_SUFFIXES, *PICTURE_SUFFIXES)  # or none in mm for all axes


SUFFIXES = (
    *NIFTI_SUFFIXES, *META_SUFFIXES, *NRRD_SUFFIXES, *BARE_SUFFIXES, *PAIR_SUFFIXES, *NEURO_SUFFIXES, *DICOM_SUFFIXES,
    *OTHER_SUFFIXES, *PICTURE_SUFFIXES,
)  # fmt: skip


_LONGEST_FIRST = sorted(SUFFIXES, key=len, reverse=True)


_BESIDE = {  # where header and voxels are files of one stem: of the header, its voxels; and the other way
    ".hdr": (".img", ".img.gz"), ".hdr.gz": (".img.gz", ".img"), ".img": (".hdr", ".hdr.gz"),
    ".img.gz": (".hdr.gz", ".hdr"), ".head": (".brik", ".brik.gz"), ".brik": (".head",), ".brik.gz": (".head",),
    ".par": (".rec",), ".rec": (".par",),
}  # fmt: skip


_HEADERS = (".hdr", ".hdr.gz", ".head", ".par")


_INSTEAD = {  # of formats that are lossy, that rwtool does not write, or that would need a file more
    ".jpg": ".png", ".jpeg": ".png", ".seg.nrrd": ".nrrd", ".seg.nhdr": ".nhdr", "": ".nii.gz",
    ".b2nd": ".npy",
    **dict.fromkeys((*DICOM_SUFFIXES, *PAIR_SUFFIXES, *NEURO_SUFFIXES, ".mnc"), ".nii.gz"),
}  # fmt: skip


DEFLATE_MOST, BZIP2_MOST = 1032, 1 << 21  # no stream of these expands further


_MOST_AFTER = 1 << 28  # bytes of a packed stream beyond what its header claims: whoever packed more meant no good


_BLOCK = 1 << 20


READ_ERRORS: tuple[type[Exception], ...] = (
    OSError, EOFError, ValueError, OverflowError, KeyError, RuntimeError, MemoryError,
    HeaderDataError, zlib.error, cast("type[Exception]", isal_zlib.IsalError),
)  # fmt: skip


def split_name(path: str | Path) -> tuple[str, str]:
    """Split a file name into case name and suffix: ``a/heart_1.nii.gz`` gives ``("heart_1", ".nii.gz")``.

    The suffix is lower case; a name without a suffix that rwtool reads gives ``""`` for it. The name is in Unicode's
    composed form (NFC), so that those of two file systems are equal.
    """
    return _split(path.name if isinstance(path, Path) else Path(path).name)


@lru_cache(maxsize=1 << 14)
def _split(name: str) -> tuple[str, str]:
    for suffix in _LONGEST_FIRST:
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return unicodedata.normalize("NFC", name[: -len(suffix)]), suffix
    return unicodedata.normalize("NFC", name), ""


def case_name(path: str | Path) -> str:
    """Name of the case that a file holds: its own name less the suffix of its format."""
    return split_name(path)[0]


def label_name(case: str, like: Path) -> str:
    """Name of a new label file of a case: in the format of another file, where that format holds labels well."""
    suffix = split_name(like)[1]
    return f"{case}{_INSTEAD.get(suffix, suffix)}"


def channels_name(case: str, like: Path) -> str:
    """Name of a new file of several channels of a case: ``.npy`` beside an ``.npy``, else NIfTI."""
    return case + (".npy" if is_bare_array(like) else ".nii.gz")


def is_bare_array(path: str | Path) -> bool:
    """Whether a file holds an array that is ``(z, y, x)`` already, so that it has no slice axis of its own."""
    return split_name(path)[1] in BARE_SUFFIXES


def is_preprocessed(path: str | Path) -> bool:
    """Whether a file is one of nnU-Net's preprocessing by its name."""
    return split_name(path)[1] == ".b2nd"


def may_be_volume(path: Path) -> bool:
    """Whether a path is a regular file, or a folder, which may be that of a DICOM series; no device and no pipe."""
    return path.is_file() or path.is_dir()


def is_nifti(path: str | Path) -> bool:
    """Whether a file is NIfTI by its name."""
    return split_name(path)[1] in NIFTI_SUFFIXES


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file; of all its parts where header and voxels are separate files."""
    digest = hashlib.sha256()
    for part in parts(Path(path)):
        with part.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


@contextmanager
def unchanged(path: Path, sha256: str | None = None) -> Iterator[str]:
    """Make sure that what is read in the block is the file of a hash, which it gives.

    Parameters
    ----------
    path : Path
    sha256 : str, optional
        What :func:`file_hash` gave before; by default it is looked at now.

    Raises
    ------
    VolumeError
        The file has another one at the end of the block.
    """
    with naming(path, OSError):
        before = sha256 or file_hash(path)
    yield before
    with naming(path, OSError):
        after = file_hash(path)
    if after != before:
        raise VolumeError(f"{path}: it was changed while it was read; run again when nothing writes to it any more")


def parts(path: Path) -> list[Path]:
    """All files of a volume: header and voxels may be separate ones, and a DICOM series has a file per slice.

    Raises
    ------
    VolumeError
        A header names files that are not there, or that are outside its folder or no regular files.
    """
    suffix = split_name(path)[1]
    if path.is_dir():
        return sorted(part for part in path.iterdir() if part.is_file() and not part.name.startswith("."))
    if suffix in META_SUFFIXES:
        meta = read_meta_header(path)
        name = meta.fields["elementdatafile"]
        return [path] if name.upper() == "LOCAL" else [path, *stated_files(path, name, meta)]
    if suffix in NRRD_SUFFIXES:
        nrrd = read_nrrd_header(path)
        return [path, *stated_files(path, nrrd.fields["datafile"], nrrd)] if "datafile" in nrrd.fields else [path]
    if suffix in TIFF_SUFFIXES:
        return [path, *filter(None, [spacing_file(path)])]
    beside = companion(path)
    if beside is None:
        return [path]
    return [path, beside] if suffix in _HEADERS else [beside, path]


def companion(path: Path) -> Path | None:
    """The other file of a volume whose header and voxels are files of one stem."""
    stem = path.name[: -len(suffix)] if (suffix := split_name(path)[1]) else path.name
    for other in _BESIDE.get(suffix, ()):
        for each in (other, other.upper()):
            if (part := path.with_name(stem + each)).is_file():
                return part
    return None


def spacing_file(path: Path) -> Path | None:
    """The JSON file in which nnU-Net keeps the spacing of a TIFF: ``a.json`` of ``a.tif`` and of ``a_0000.tif``."""
    stem = path.name[: -len(suffix)] if (suffix := split_name(path)[1]) else path.name
    for name in dict.fromkeys((stem, re.sub(r"_[0-9]{4}$", "", stem))):
        if name and (beside := path.with_name(f"{name}.json")).is_file():
            return beside
    return None


def gzipped(path: Path) -> bool:
    """Whether the name says gzip."""
    return path.name.lower().endswith((".gz", ".mgz"))


def first_bytes(path: Path) -> bytes:
    """First four bytes of a file that has any."""
    with path.open("rb") as stream:
        found = stream.read(4)
    if not found:
        raise VolumeError("the file is empty; copy it again from its source")
    return found


def check_size(there: int, claimed: int, *, packed: bool, expands: int = DEFLATE_MOST) -> None:
    """Refuse a header that claims more than its file can hold, before memory is taken for it."""
    most = there * expands if packed else there
    if claimed > most:
        raise VolumeError(
            f"the header claims {claimed:,} bytes of voxels; the file's {there:,} bytes can hold at most {most:,}; "
            "it is truncated or its header is damaged; copy it again from its source"
        )


def drain(stream: IO[bytes], *, claimed: int = 0) -> int:
    """Read a stream to its end, where a packed one has its checksum.

    Parameters
    ----------
    stream : binary stream
    claimed : int
        Bytes that are known to be left.

    Returns
    -------
    int
        How many bytes were left.

    Raises
    ------
    VolumeError
        They are so many more that the file is made to keep its reader busy.
    """
    found = 0
    while block := stream.read(_BLOCK):
        found += len(block)
        check_after(found - claimed)
    return found


def check_after(more: int) -> None:
    """Refuse a packed file that has no end to it after its voxels."""
    if more > _MOST_AFTER:
        raise VolumeError(
            f"the file holds more than {_MOST_AFTER:,} bytes beyond what its header claims; it is damaged; copy it "
            "again from its source"
        )
