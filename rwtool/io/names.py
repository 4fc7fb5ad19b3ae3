"""What the name of a file says: its case, its format, and which other files belong to it."""

from __future__ import annotations

import hashlib
import re
import zlib
from pathlib import Path
from typing import cast

from isal import isal_zlib
from nibabel.spatialimages import HeaderDataError

from rwtool.errors import VolumeError

NIFTI_SUFFIXES = (".nii", ".nii.gz")


PAIR_SUFFIXES = (".hdr", ".img", ".img.gz")  # of NIfTI, where the header says so, else of Analyze


SITK_SUFFIXES = (
    ".mha", ".mhd", ".nrrd", ".nhdr", ".img", ".hdr", ".img.gz", ".gipl", ".gipl.gz", ".vtk",
    ".mnc", ".tif", ".tiff", ".png", ".bmp", ".jpg", ".jpeg", ".dcm",
)  # fmt: skip


NO_SPACING = (".npy", ".tif", ".tiff", ".png", ".bmp", ".jpg", ".jpeg")  # or none in mm for all axes


TEXT_HEADERS = (".mha", ".mhd", ".nrrd", ".nhdr")


TEXT_MOST = 1 << 16


SUFFIXES = (*NIFTI_SUFFIXES, *SITK_SUFFIXES, ".npy")


_INSTEAD = {  # of formats that are lossy, or would need a file more
    ".jpg": ".png", ".jpeg": ".png", ".dcm": ".nii.gz", ".hdr": ".nii.gz", ".img": ".nii.gz", ".img.gz": ".nii.gz",
}  # fmt: skip


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
    return split_name(path)[1] == ".npy"


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file; of all its parts where header and voxels are separate files."""
    digest = hashlib.sha256()
    for part in parts(Path(path)):
        with part.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


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
