"""nnU-Net's preprocessed data sets: the spacing of their label files, which stands elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
from nibabel.orientations import io_orientation

from rwtool.errors import UsageError
from rwtool.io.formats import read_header
from rwtool.io.geometry import column_norms
from rwtool.io.names import SUFFIXES, is_preprocessed
from rwtool.records import read_json, to_record

_REFUSAL = "its plans cannot be read"
_MEND = "plan the experiment again, or give spacing_mm=(z, y, x)"
_NO_PLANS = ("dataset.json", "dataset_fingerprint.json", "splits_final.json")
_FLAT = 999.0  # what nnU-Net takes for the third axis of a picture

Spacing = tuple[float, float, float]


class _Configuration(msgspec.Struct, frozen=True):
    data_identifier: str | None = None
    spacing: list[float] | None = None
    inherits_from: str | None = None


class _Plans(msgspec.Struct, frozen=True):
    configurations: dict[str, _Configuration]
    transpose_forward: list[int]
    image_reader_writer: str = "SimpleITKIO"


def preprocessed_spacing(paths: Mapping[str, Path]) -> dict[str, Spacing]:
    """Spacing in mm of the label files that nnU-Net has preprocessed, in the order of their axes.

    That of a 3D configuration stands in its plans. A 2D configuration keeps the distance between slices, which is read
    from the header of the case's file in ``gt_segmentations``; nnU-Net's own record of it, a pickle, is never opened.

    Parameters
    ----------
    paths : dict of str to Path
        Case to label file; those that are no ``.b2nd`` have no entry in the result.

    Raises
    ------
    UsageError
        There are no plans of the configuration, or two with different spacings, or no file to read it from.
    RwtoolError
        The plans are damaged.
    """
    folders: dict[Path, tuple[list[float], _Plans]] = {}
    found: dict[str, Spacing] = {}
    for case, path in paths.items():
        if not is_preprocessed(path):
            continue
        folder = path.absolute().parent
        if folder not in folders:
            folders[folder] = _spacing_of(folder)
        steps, plans = folders[folder]
        if len(steps) == 2:
            steps = [_between_slices(folder.parent / "gt_segmentations", case, plans), *steps]
        found[case] = (float(steps[0]), float(steps[1]), float(steps[2]))
    return found


def preprocessed_root(path: Path) -> Path | None:
    """The folder of the preprocessed data set that a label file belongs to; None where it is of no such."""
    return path.absolute().parent.parent if is_preprocessed(path) else None


def _spacing_of(folder: Path) -> tuple[list[float], _Plans]:
    """Spacing of a configuration, and the plans that it stands in."""
    found: dict[Path, tuple[list[float], _Plans]] = {}
    for path in sorted(folder.parent.glob("*.json")):
        if path.name in _NO_PLANS:
            continue
        content = read_json(path, refusal=_REFUSAL, mend=_MEND)
        if not isinstance(content, dict) or "configurations" not in content:
            continue
        plans = to_record(content, _Plans, path, refusal=_REFUSAL, mend=_MEND)
        for name in plans.configurations:
            whole = _inherited(plans, name, path)
            if whole.data_identifier == folder.name and whole.spacing is not None:
                found[path] = whole.spacing, plans
    if not found:
        raise UsageError(
            f"{folder}: no plans in {folder.parent} are of this folder, so the spacing of its labels is not known; "
            "give spacing_mm=(z, y, x)"
        )
    spacings = {tuple(spacing) for spacing, _ in found.values()}
    if len(spacings) > 1 or len(next(iter(spacings))) not in (2, 3):
        named = ", ".join(f"{path.name}: {spacing}" for path, (spacing, _) in found.items())
        raise UsageError(f"{folder}: expected one spacing in the plans; found {named}; give spacing_mm=(z, y, x)")
    return next(iter(found.values()))


def _inherited(plans: _Plans, name: str, path: Path) -> _Configuration:
    """A configuration with what it takes from the one that it inherits from."""
    whole, seen = plans.configurations[name], {name}
    while whole.inherits_from is not None and (whole.data_identifier is None or whole.spacing is None):
        parent = plans.configurations.get(whole.inherits_from)
        if parent is None or whole.inherits_from in seen:
            raise UsageError(
                f"{path}: configuration {name!r} inherits from {whole.inherits_from!r}, which leads nowhere"
            )
        seen.add(whole.inherits_from)
        whole = _Configuration(
            whole.data_identifier or parent.data_identifier, whole.spacing or parent.spacing, parent.inherits_from
        )
    return whole


def _between_slices(folder: Path, case: str, plans: _Plans) -> float:
    """Spacing along the first axis of nnU-Net's arrays, as it reads the case's label file."""
    reader = plans.image_reader_writer
    if sorted(plans.transpose_forward) != [0, 1, 2]:
        raise UsageError(
            f"{folder.parent}: its plans state transpose_forward: {plans.transpose_forward}; expected 0, 1 and 2 in "
            f"some order; {_MEND}"
        )
    if reader == "NaturalImage2DIO":
        return _FLAT
    if reader not in ("SimpleITKIO", "NibabelIO", "NibabelIOWithReorient"):
        raise UsageError(
            f"{folder}: rwtool does not know how {reader} reads the distance of slices; give spacing_mm=(z, y, x)"
        )
    path = next((folder / f"{case}{suffix}" for suffix in SUFFIXES if (folder / f"{case}{suffix}").is_file()), None)
    if path is None:
        raise UsageError(
            f"{folder}: no label file of case {case}, whose header has the distance between its slices; preprocess the "
            "data set again, or give spacing_mm=(z, y, x)"
        )
    affine = read_header(path).geometry.affine_mm
    steps = column_norms(affine)
    if reader == "NibabelIOWithReorient":
        steps = steps[io_orientation(affine)[:, 0].argsort()]
    return float(steps[::-1][plans.transpose_forward[0]])
