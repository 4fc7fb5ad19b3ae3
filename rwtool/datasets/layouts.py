"""How published data sets name and place their files: which case a file belongs to, and as what."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import NamedTuple

from rwtool.errors import UsageError
from rwtool.io.names import case_name, is_preprocessed, split_name

_ACDC = re.compile(r"(patient\d+_frame\d+)_gt")
_ACDC_OTHER = re.compile(r"patient\d+_4d")
_MODALITIES = ("flair", "t1n", "t1", "t1c", "t1ce", "t2w", "t2", "t2f")
_BRATS = re.compile(rf"(?P<case>.+)[-_](?P<part>seg|{'|'.join(_MODALITIES)})", re.IGNORECASE)
_BIDS = re.compile(r"(?P<case>sub-[A-Za-z0-9]+(?:_[A-Za-z]+-[A-Za-z0-9+]+)*)_(?P<part>[A-Za-z0-9]+)")
_DERIVED = re.compile(r"_(?:space|desc|res|den|label|seg|atlas)-[A-Za-z0-9+]+")  # BIDS entities that name no scan
_BIDS_LABELS = ("dseg",)
_BIDS_IMAGES = (
    "T1w", "T2w", "FLAIR", "PDw", "T2starw", "inplaneT1", "inplaneT2", "UNIT1", "T1map", "T2map", "PDT2", "angio",
    "SWI", "ct", "pet", "bold", "dwi",
)  # fmt: skip
_MONAI = ("trans", "seg")  # what its SaveImage appends to the name of a case, in a folder of that name


class Role(NamedTuple):
    """What a file is to its case; of images, which channel."""

    case: str
    labels: bool
    channel: str = ""


def preprocessed_role(path: Path) -> Role | None:
    """Tell what a file is that nnU-Net's preprocessing has written: labels, or the image of a case."""
    stem = case_name(path)
    return Role(stem.removesuffix("_seg"), stem.endswith("_seg")) if is_preprocessed(path) else None


def role_of(path: Path) -> Role | None:
    """Tell what a file is by the names of KiTS, ACDC, BraTS, BIDS and MONAI; None where it is none of theirs.

    A BraTS name alone says little (``x_t1``): of files not called BraTS it holds only beside others of the same case,
    which :func:`known_roles` asks.
    """
    stem, folder = case_name(path), unicodedata.normalize("NFC", path.parent.name)
    if stem in ("segmentation", "imaging") and folder:  # KiTS
        return Role(folder, stem == "segmentation")
    if match := _ACDC.fullmatch(stem):
        return Role(match[1], True)
    if (match := _BIDS.fullmatch(stem)) and match["part"] in (*_BIDS_LABELS, *_BIDS_IMAGES):
        labels = match["part"] in _BIDS_LABELS
        return Role(_DERIVED.sub("", match["case"]), labels, "" if labels else match["part"])
    if match := _BRATS.fullmatch(stem):
        part = match["part"].lower()
        return Role(match["case"], part == "seg", "" if part == "seg" else f"{_MODALITIES.index(part)} {part}")
    if folder and stem in tuple(f"{folder}_{end}" for end in _MONAI):
        return Role(folder, True)
    return None


def known_roles(files: list[Path]) -> dict[Path, Role]:
    """Roles of the files of a folder or glob that follow a published layout."""
    roles = {path: role for path in files if (role := preprocessed_role(path) or role_of(path)) is not None}
    stems = {case_name(path) for path in files}
    kept = {}
    for path, role in roles.items():
        stem = case_name(path)
        if is_preprocessed(path):
            kept[path] = role
            continue
        if _BRATS.fullmatch(stem) and not _BIDS.fullmatch(stem) and not stem.lower().startswith("brats"):
            others = (_BRATS.fullmatch(other) for other in stems if other != stem)
            if not any(other and other["case"] == role.case for other in others) and role.case != path.parent.name:
                continue
        kept[path] = role
    return kept


def is_other(path: Path) -> bool:
    """Whether a file belongs to a published layout without being labels or an image of a case: ACDC's whole cine."""
    return _ACDC_OTHER.fullmatch(case_name(path)) is not None


class NamePattern:
    """Which part of a path is the name of the case, such as ``{case}_gt`` or ``{case}/segmentation.nii.gz``.

    ``*`` stands for anything but a slash, ``?`` for one such character, ``{case}`` for the name, which may stand there
    twice, and ``{channel}`` for the channel of an image. The pattern is that of the end of the path; the suffix may be
    left out.
    """

    def __init__(self, text: str) -> None:
        if text.count("{case}") < 1 or re.sub(r"\{(case|channel)\}", "", text).strip("{}") != re.sub(
            r"\{(case|channel)\}", "", text
        ):
            raise UsageError(
                f"name={text!r}: expected a pattern with {{case}} where the name of the case stands, such as "
                "'{case}_gt' or '{case}/segmentation.nii.gz'"
            )
        self.text = unicodedata.normalize("NFC", text).strip("/")
        parts, seen = [], set()
        for token in re.split(r"(\{case\}|\{channel\}|\*|\?)", self.text):
            name = token[1:-1] if token in ("{case}", "{channel}") else ""
            if name:
                parts.append(f"(?P={name})" if name in seen else f"(?P<{name}>[^/]+)")
                seen.add(name)
            else:
                parts.append({"*": "[^/]*", "?": "[^/]"}.get(token, re.escape(token)))
        self._pattern = re.compile("(?:.*/)?" + "".join(parts), re.DOTALL)

    @property
    def looks_into_folders(self) -> bool:
        """Whether it names a folder, so that files of a folder's folders are meant."""
        return "/" in self.text

    def match(self, path: Path) -> tuple[str, str] | None:
        """Case and channel of a file; None where the pattern is not that of its path."""
        whole = unicodedata.normalize("NFC", path.as_posix())
        suffix = split_name(path)[1]
        for text in (whole[: len(whole) - len(suffix)], whole):
            if found := self._pattern.fullmatch(text):
                return found["case"], found.groupdict().get("channel") or ""
        return None
