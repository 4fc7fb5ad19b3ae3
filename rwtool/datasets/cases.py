"""Which files of a folder are cases, and under which names."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath

from rwtool.datasets.layouts import NamePattern, is_other, known_roles
from rwtool.errors import UsageError, VolumeError, shorten
from rwtool.io.dicom import is_dicom, no_volume, series_of
from rwtool.io.names import DICOM_SUFFIXES, SUFFIXES, case_name, companion, split_name

_DEPTH = 4  # of folders: BIDS has sub-*/ses-*/anat
_NO_VOLUMES = {  # suffixes of what lies beside volumes
    ".json", ".txt", ".csv", ".tsv", ".md", ".rst", ".pdf", ".xml", ".yaml", ".yml", ".toml", ".log", ".py",
    ".sh", ".html", ".xls", ".xlsx", ".doc", ".docx", ".pkl", ".bval", ".bvec", ".zip", ".tar", ".tgz",
    ".lock", ".ini", ".cfg",
}  # fmt: skip
_VOXELS = (".raw", ".zraw", ".raw.gz", ".bin")  # beside a header that names them
_NAMES = ("license", "readme", "changes", "makefile", "dicomdir", "citation")


@dataclass(frozen=True)
class Found:
    """What a folder, file or glob holds.

    Attributes
    ----------
    cases : dict of str to Path
        Case name to file, or to the folder of a DICOM series, in the order of the names.
    passed_over : dict of Path to str
        Files that are no case, and why; files that are known to be no volumes are not among them.
    notes : tuple of str
        What a user should know of the names.
    """

    cases: dict[str, Path]
    passed_over: dict[Path, str]
    notes: tuple[str, ...] = ()


def find_cases(source: str | Path, *, name: str | None = None) -> dict[str, Path]:
    """Find the cases of a folder, one file, or a glob.

    Parameters, and errors raised, are those of :func:`search_cases`.

    Returns
    -------
    dict of str to Path
        Case name to file, in the order of the names.
    """
    return search_cases(source, name=name).cases


def search_cases(source: str | Path, *, name: str | None = None, strict: bool = True) -> Found:
    """Find the cases of a folder, one file, or a glob, and what is passed over.

    The name of a case is its file name less the extension. The label files of ACDC, KiTS, BraTS, BIDS and the Medical
    Segmentation Decathlon are found in the folders that these are published in, under the names that their images have.
    The slices of a DICOM series are one case, named as their folder.

    Parameters
    ----------
    source : path or glob
        A folder that holds ``labelsTr`` (an nnU-Net data set) stands for that folder.
    name : str, optional
        Which part of the path is the name of the case, such as ``{case}_gt`` or ``{case}/segmentation.nii.gz``
        (:class:`rwtool.datasets.layouts.NamePattern`); files of other names are passed over.
    strict : bool
        Refuse a source none of whose files has such a path, rather than name its cases by their files.

    Returns
    -------
    Found

    Raises
    ------
    UsageError
        If nothing is found, two files have one case name, or a folder holds several DICOM series.
    """
    pattern = None if name is None else NamePattern(name)
    files, passed_over, nested = list_volumes(
        source, "labelsTr", deep=pattern is not None and pattern.looks_into_folders
    )
    named: list[tuple[str, Path]] = []
    if pattern is not None and not strict and not any(map(pattern.match, files)):
        return search_cases(source)
    if pattern is not None:
        for path in files:
            match = pattern.match(path)
            if match is None:
                passed_over[path] = f"its path is not of the form {pattern.text}"
            else:
                named.append((match[0], path))
        if not named:
            raise UsageError(f"{source}: none of {len(files)} files, such as {files[0]}, is of the form {pattern.text}")
    else:
        named = _by_layout(source, _published(source, files, passed_over) if nested else files)
    cases: dict[str, Path] = {}
    for case, path in named:
        if case in cases and companion(cases[case]) != path:
            raise UsageError(
                f"two files have the case name {case!r}: {cases[case]} and {path}; rename or move one of them, or give "
                "name=PATTERN to say which part of the path is the name"
            )
        cases.setdefault(case, path)
    return Found(dict(sorted(cases.items())), passed_over, tuple(_alike(cases)))


def _published(source: str | Path, files: list[Path], passed_over: dict[Path, str]) -> list[Path]:
    """Of the files of a folder's folders, those that a published layout has there, and the series of DICOM."""
    roles = known_roles(files)
    kept = [path for path in files if path.is_dir() or path in roles]
    if not kept:
        raise UsageError(
            f"{source}: no volumes found in this folder, but in its folders, such as {files[0]}; name one of them, or "
            "a glob, or give name=PATTERN to say which part of the path is the name of the case"
        )
    cases = {role.case for role in roles.values() if role.labels}
    passed_over.update(
        {
            path: "it is no file of the layout that the others have"
            for path in files
            if path not in kept and not is_other(path) and case_name(path) not in cases
        }
    )
    return kept


def _by_layout(source: str | Path, files: list[Path]) -> list[tuple[str, Path]]:
    """Case names of label files: by a published layout, by the varying part of a glob, or by the file."""
    roles = known_roles(files)
    labels = {path: role.case for path, role in roles.items() if role.labels}
    if labels:
        images = {path for path in files if (path in roles and path not in labels) or is_other(path)}
        images |= {path for path in files if case_name(path) in set(labels.values())}  # ACDC's
        return [(labels.get(path, case_name(path)), path) for path in files if path in labels or path not in images]
    varying = _varying_part(source)
    if varying is not None and len(files) > 1 and len({path.name for path in files}) == 1:
        return [(path.parts[varying], path) for path in files]
    return [(case_name(path), path) for path in files]


def _varying_part(source: str | Path) -> int | None:
    """Which part, from the end, of a glob with a fixed file name varies, as an index; None where none does."""
    parts = PurePath(source).parts
    magic = [k - len(parts) for k, part in enumerate(parts) if glob.has_magic(part)]
    if not magic or magic[-1] == -1 or "**" in parts:
        return None
    return magic[-1]


def _alike(cases: Iterable[str]) -> Iterable[str]:
    """Notes on names that differ in upper and lower case alone, which some file systems take for one."""
    folded: dict[str, str] = {}
    for case in cases:
        other = folded.setdefault(case.casefold(), case)
        if other != case:
            yield f"the cases {other} and {case} differ in upper and lower case alone; are they one?"


def list_volumes(source: str | Path, inner: str, *, deep: bool = False) -> tuple[list[Path], dict[Path, str], bool]:
    """Files that are volumes, and folders of a DICOM series, of a folder, a file or a glob.

    Parameters
    ----------
    source : path or glob
    inner : str
        The folder of an nnU-Net data set that `source` stands for where it holds one.
    deep : bool
        Whether files in folders of the folder are meant too; they also are where it holds none itself.

    Returns
    -------
    files : list of Path
    passed_over : dict of Path to str
    nested : bool
        Whether the folder itself holds none, so that those of its folders were taken.

    Raises
    ------
    UsageError
        Nothing is found.
    VolumeError
        A folder cannot be read.
    """
    text = str(source)
    if "\0" in text:
        raise UsageError(f"{text!a}: no file has a NUL in its name")
    try:
        return _list_volumes(text, Path(source), inner, deep)
    except OSError as error:
        raise VolumeError(f"{error.filename or text}: cannot be read: {error.strerror or error}") from error


def _list_volumes(text: str, path: Path, inner: str, deep: bool) -> tuple[list[Path], dict[Path, str], bool]:
    passed_over: dict[Path, str] = {}
    nested = False
    if path.is_dir():
        folder = path / inner if (path / inner).is_dir() else path
        files = _in_folder(folder, passed_over)
        nested = not files
        if deep or nested:
            files += _in_folders(folder, passed_over)
        else:
            passed_over.update(_in_unread_folders(folder))
    elif path.is_file():
        return [path], {}, False
    else:
        matching = [Path(found) for found in sorted(glob.glob(text, recursive=True))]
        if not matching:
            kind = "no file matches this glob" if glob.has_magic(text) else "no such file or folder"
            raise UsageError(f"{text}: {kind}")
        files = _volumes(matching, passed_over)
        if not files:
            folders = [found for found in matching if found.is_dir() and not found.name.startswith(".")]
            files = [volume for found in folders for volume in _in_folder(found, passed_over)]
    if not files:
        where = "in this folder" if path.is_dir() else "that match this glob"
        others = f"; passed over: {shorten([other.name for other in passed_over])}" if passed_over else ""
        raise UsageError(f"{text}: no volumes found {where}; expected files such as {', '.join(SUFFIXES[:5])}{others}")
    return files, passed_over, nested


def _in_folder(folder: Path, passed_over: dict[Path, str]) -> list[Path]:
    """Volumes of a folder; where it is that of one DICOM series, the folder itself."""
    return _volumes(sorted(folder.iterdir()), passed_over)


def _in_unread_folders(folder: Path) -> dict[Path, str]:
    """What looks like cases in the folders of a folder that holds some itself, so that nobody looks into those."""
    unread: dict[Path, str] = {}
    for inner in sorted(folder.iterdir()):
        if inner.name.startswith(".") or not inner.is_dir():
            continue
        if split_name(inner)[1]:
            unread[inner] = "it is a folder; give a glob, such as '*/*.nii', to take what it holds"
        elif os.access(inner, os.R_OK | os.X_OK):
            roles = known_roles([path for path in sorted(inner.iterdir()) if split_name(path)[1]])
            unread |= {
                path: "it lies in a folder beside files; move those away, or give name=PATTERN with that folder"
                for path, role in roles.items()
                if role.labels
            }
    return unread


def _in_folders(folder: Path, passed_over: dict[Path, str], depth: int = 1) -> list[Path]:
    """Volumes of the folders of a folder, hidden ones left out."""
    files: list[Path] = []
    for inner in sorted(folder.iterdir()):
        if inner.is_dir() and not inner.name.startswith(".") and not inner.is_symlink():
            files += _in_folder(inner, passed_over)
            if depth < _DEPTH:
                files += _in_folders(inner, passed_over, depth + 1)
    return files


def _volumes(paths: list[Path], passed_over: dict[Path, str]) -> list[Path]:
    """Those that are volumes by their names; a broken link is one, lest its case be left out unseen."""
    files, dicom = [], []
    for path in paths:
        if path.name.startswith(".") or path.is_dir():
            continue
        suffix = split_name(path)[1]
        if suffix in DICOM_SUFFIXES or (not suffix and is_dicom(path)):
            dicom.append(path)
        elif suffix:
            files.append(path)
        elif not _is_known(path, paths):
            passed_over[path] = "no format that rwtool reads has this name"
    return sorted(files + _of_dicom(dicom, passed_over))


def _is_known(path: Path, beside: list[Path]) -> bool:
    """Whether a file is known to be no volume, or to belong to one."""
    name = path.name.lower()
    if path.suffix.lower() in _NO_VOLUMES or name.split(".")[0] in _NAMES:
        return True
    for tail in _VOXELS:
        if name.endswith(tail):
            stem = name[: -len(tail)]
            return any(other.name.lower() in (f"{stem}.mhd", f"{stem}.nhdr") for other in beside)
    return False


def _of_dicom(paths: list[Path], passed_over: dict[Path, str]) -> list[Path]:
    """DICOM files that are cases, and the folders that are: a series of several files is one case."""
    cases: list[Path] = []
    for folder in dict.fromkeys(path.parent for path in paths):
        here = [path for path in paths if path.parent == folder]
        if len(here) < 2:
            cases += here
            continue
        said: dict[Path, str | None] = {}
        for path in here:
            try:
                said[path] = no_volume(path)
            except VolumeError:
                said[path] = None
        images = [path for path in here if said[path] is None]
        passed_over.update({path: f"it is {what}" for path, what in said.items() if what is not None and images})
        groups = series_of(images) if len(images) > 1 else {}
        several = {uid: group for uid, group in groups.items() if uid and len(group) > 1}
        if len(several) == len(groups) == 1:
            cases.append(folder if folder.name else folder.resolve())
        elif several:
            first = [group[0].name for group in groups.values()]
            raise UsageError(
                f"{folder}: it holds the slices of {len(groups)} DICOM series, beginning with {shorten(first)}; put "
                "each series into a folder of its own, named as the case"
            )
        else:
            cases += images or here
    return cases
