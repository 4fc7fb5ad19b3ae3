"""MetaImage and NRRD headers as text: their fields, where they end, and the files that hold the voxels."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from rwtool.errors import VolumeError

_USUAL, _MOST = 1 << 16, 1 << 22  # bytes of a header; 3D Slicer writes long ones
_META_END = re.compile(rb"(?i)elementdatafile(?!\s*[=:]\s*list)[^\n]*\n")
_NRRD_END = re.compile(rb"\n\r?\n")
_PATTERN = re.compile(r"(.*)%(0?\d{0,2})d(\S*)((?:\s+[+-]?\d{1,18})*)")
_MOST_FILES = 100_000


@dataclass(frozen=True)
class TextHeader:
    """Fields of a header, their names in lower case and without spaces.

    Attributes
    ----------
    fields : dict of str to str
    end : int
        The byte after the header, where the voxels of a file that holds both begin.
    listed : tuple of str
        The lines after a field that announces a list of files.
    """

    fields: dict[str, str]
    end: int
    listed: tuple[str, ...] = ()


def read_meta_header(path: Path) -> TextHeader:
    """Read the header of a MetaImage (``.mha``, ``.mhd``), which ends with ``ElementDataFile``.

    Keys are told apart without regard to case, as no two differ in it; SimpleITK passes over those in another case
    than its own.

    Raises
    ------
    VolumeError
        The header is none, or states a field twice.
    """
    fields: dict[str, str] = {}
    block = _first(path, _META_END)
    end = 0
    while end < len(block):
        stop = block.find(b"\n", end)
        stop = len(block) if stop < 0 else stop
        found = re.match(r"\s*([^=:]*?)\s*[=:](.*)", block[end:stop].decode("latin-1"), re.DOTALL)
        end = stop + 1
        if not found:
            if block[:end].strip():
                raise VolumeError(
                    "this is no MetaImage: its header has a line without '='; copy it again from its source"
                )
            continue
        key = found[1].lower()
        _put(fields, key, found[2].strip())
        if key == "elementdatafile":
            listed = block[end:].decode("latin-1").split("\n") if fields[key].upper().startswith("LIST") else []
            return TextHeader(fields, min(end, len(block)), tuple(line.strip() for line in listed if line.strip()))
    raise VolumeError("its header has no ElementDataFile, so where its voxels are is not said; write it again")


def read_nrrd_header(path: Path) -> TextHeader:
    """Read the header of an NRRD file (``.nrrd``, ``.nhdr``), which ends with an empty line.

    Raises
    ------
    VolumeError
        The header is none, or states a field twice.
    """
    block = _first(path, _NRRD_END)
    if not re.match(rb"NRRD\d{4}", block):
        raise VolumeError("this is no NRRD file: it does not begin with NRRD; copy it again from its source")
    fields: dict[str, str] = {}
    end = block.find(b"\n") + 1 or len(block)
    while end < len(block):
        stop = block.find(b"\n", end)
        stop = len(block) if stop < 0 else stop
        line = block[end:stop].decode("utf-8", "replace").rstrip("\r")
        end = stop + 1
        if not line.strip():
            break
        key_value = re.match(r"([^:]+):=(.*)", line)
        found = re.match(r"([^:]+):\s*(.*)", line)
        if line.startswith("#"):
            continue
        if key_value:
            fields.setdefault(":" + key_value[1].strip().lower(), key_value[2].strip())
        elif found:
            key = found[1].replace(" ", "").lower()
            _put(fields, key, found[2].strip())
            if key == "datafile" and fields[key].upper().startswith("LIST"):
                listed = block[end:].decode("utf-8", "replace").split("\n")
                return TextHeader(fields, end, tuple(name.strip() for name in listed if name.strip()))
        else:
            raise VolumeError("its header has a line without ':'; copy it again from its source")
    return TextHeader(fields, min(end, len(block)))


def stated_files(path: Path, name: str, header: TextHeader) -> list[Path]:
    """Files that a header names for its voxels, each a regular one inside the header's own folder.

    Parameters
    ----------
    path : Path
        Of the header.
    name : str
        As it says: a name, a pattern with ``%d`` and its first, last and step, or ``LIST``.
    header : TextHeader

    Raises
    ------
    VolumeError
        A name leads out of the folder, or to something that is no regular file or is not there.
    """
    if name.upper().startswith("LIST"):
        names = list(header.listed)
    elif found := _PATTERN.fullmatch(name):
        numbers = [int(number) for number in found[4].split()]
        sizes = header.fields.get("dimsize", header.fields.get("sizes", "")).split()
        count = int(sizes[-1]) if sizes and re.fullmatch(r"\d{1,18}", sizes[-1]) else 0
        first, last, step = (*numbers, *(1, count, 1)[len(numbers) :])[:3]
        if step == 0 or len(range(first, last + (1 if step > 0 else -1), step)) > _MOST_FILES:
            raise VolumeError(f"the header names its voxels' files by {name!r}, which is no sensible range; mend it")
        counted = range(first, last + (1 if step > 0 else -1), step)
        names = [f"{found[1]}{number:{found[2]}d}{found[3]}" for number in counted]
    else:
        names = [name]
    if not names:
        raise VolumeError("the header announces a list of the files with its voxels, and names none; mend it")
    return [_inside(path, each) for each in names]


def _inside(path: Path, name: str) -> Path:
    folder = path.parent
    shown = ascii(name)[1:-1]
    if not name or not name.isprintable():
        raise VolumeError(f"its header says that the voxels are in '{shown}', which is no name of a file; mend it")
    part = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise VolumeError(
            f"its header says that the voxels are in {name}, outside its folder, where rwtool does not follow; put the "
            "two files into one folder and name the file alone"
        )
    if not os.path.exists(part):  # nor can it be, where its name is too long
        raise VolumeError(f"its voxels are in {name}, which is not there; put it where the header says")
    if not part.is_file():
        raise VolumeError(f"its header says that the voxels are in {name}, which is no regular file")
    if not part.resolve().is_relative_to(folder.resolve()):
        raise VolumeError(
            f"its header says that the voxels are in {name}, a link out of its folder, where rwtool does not follow; "
            "copy the file into the folder"
        )
    return part


def _first(path: Path, end: re.Pattern[bytes]) -> bytes:
    """So many bytes that the header is among them."""
    with path.open("rb") as stream:
        block = stream.read(_USUAL)
        return block if end.search(block) else block + stream.read(_MOST - _USUAL)


def _put(fields: dict[str, str], key: str, value: str) -> None:
    if fields.setdefault(key, value) != value:
        raise VolumeError(f"its header states {key!a} twice, as {fields[key]!a} and {value!a}; keep one")
