"""Which files of a folder are cases, and under which names."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from rwtool.errors import UsageError
from rwtool.io.names import SUFFIXES, split_name


def find_cases(source: str | Path) -> dict[str, Path]:
    """Find the cases of a folder, one file, or a glob.

    The name of a case is its file name less the extension. Hidden files, and files that are not volumes, are
    passed over. A folder that holds ``labelsTr`` (an nnU-Net data set) stands for that folder.

    Parameters
    ----------
    source : path or glob

    Returns
    -------
    dict of str to Path
        Case name to file, in the order of the names.

    Raises
    ------
    UsageError
        If nothing is found, or two files have one case name.
    """
    text = str(source)
    path = Path(source)
    if path.is_dir():
        folder = path / "labelsTr" if (path / "labelsTr").is_dir() else path
        files = _volumes(sorted(folder.iterdir()))
    elif path.is_file():
        files = [path]
    else:
        found = sorted(glob.glob(text, recursive=True))
        if not found:
            kind = "no file matches this glob" if glob.has_magic(text) else "no such file or folder"
            raise UsageError(f"{text}: {kind}")
        files = _volumes([Path(p) for p in found])
    if not files:
        where = "in this folder" if path.is_dir() else "that match this glob"
        raise UsageError(f"{text}: no volumes found {where}; expected files such as {', '.join(SUFFIXES[:5])}")
    cases: dict[str, Path] = {}
    for file in files:
        name = split_name(file)[0]
        if name in cases and not _one_volume_in_two_files(cases[name], file):
            raise UsageError(
                f"two files have the case name {name!r}: {cases[name]} and {file}; rename or move one of them"
            )
        cases.setdefault(name, file)
    return dict(sorted(cases.items()))


def _volumes(paths: Sequence[Path]) -> list[Path]:
    """Files that are volumes by their names; a broken link is one, lest its case be left out unseen."""
    return [p for p in paths if not p.name.startswith(".") and split_name(p)[1] and not p.is_dir()]


def _one_volume_in_two_files(a: Path, b: Path) -> bool:
    """Header and voxels of one volume: ``x.hdr`` with ``x.img``."""
    return {split_name(a)[1], split_name(b)[1]} in ({".hdr", ".img"}, {".hdr", ".img.gz"})
