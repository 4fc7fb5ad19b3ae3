"""What every command asks of a data set: which label files, of which classes, on which grids, and how many at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rwtool.datasets.classes import Classes, find_dataset_json, make_classes, read_dataset_json
from rwtool.errors import UsageError
from rwtool.io.formats import check_suited, read_header, read_label_values, suited
from rwtool.io.names import file_hash
from rwtool.parallel import Outcome, Work, run_cases


@dataclass(frozen=True)
class LabelFile:
    """A label file as it is to be read.

    Attributes
    ----------
    path : Path
    spacing_mm : (3,) float, optional
        For ``.npy``.
    slice_axis : int, optional
    ignore : int, optional
    scan : bool
        Whether to look which values it holds.
    """

    path: Path
    spacing_mm: tuple[float, float, float] | None = None
    slice_axis: int | None = None
    ignore: int | None = None
    scan: bool = False


@dataclass(frozen=True)
class Inspection:
    """What a label file says before anything is made of it.

    Attributes
    ----------
    shape : (3,) int
        ``(Z, Y, X)``.
    spacing_mm : (3,) float
    slice_axis : int
    itemsize : int
        Bytes per voxel as stored.
    sha256 : str
    values : tuple of int
        Label values that occur, where they were looked for.
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    slice_axis: int
    itemsize: int
    sha256: str
    values: tuple[int, ...] = ()


def inspect(file: LabelFile) -> Inspection:
    """Read the header, the hash and, if asked for, the values of a label file."""
    header = read_header(file.path, spacing_mm=file.spacing_mm, slice_axis=file.slice_axis)
    values: tuple[int, ...] = ()
    if file.scan:
        counts = read_label_values(
            file.path, ignore=file.ignore, spacing_mm=file.spacing_mm, slice_axis=file.slice_axis
        )
        values = tuple(counts)
    geometry = header.geometry
    return Inspection(
        geometry.array_shape,
        geometry.spacing_mm,
        geometry.slice_axis,
        header.dtype.itemsize,
        file_hash(file.path),
        values,
    )


def inspect_cases(
    cases: dict[str, Path],
    *,
    classes: Classes | None,
    ignore: int | None = None,
    spacing_mm: tuple[float, float, float] | None = None,
    slice_axis: int | None = None,
    jobs: int = 1,
    verbosity: int = 0,
) -> tuple[Classes, list[Outcome[Inspection]]]:
    """Inspect all label files of a data set, and settle its class list.

    Parameters
    ----------
    cases : dict of str to Path
    classes : Classes or None
        The list, if known; else it is read from ``dataset.json`` beside or above the files, else the values that
        occur in the whole data set make it.
    ignore : int, optional
        The value of voxels without a class; wins over the one of ``dataset.json``.
    spacing_mm, slice_axis
        As for :func:`rwtool.read_labels`.
    jobs, verbosity : int

    Returns
    -------
    classes : Classes
    inspections : list of Outcome
        In the order of the cases; a file that cannot be read has its reason.

    Raises
    ------
    UsageError
        If no list of two classes or more comes about, or `spacing_mm` does not fit the files.
    """
    check_suited(cases.values(), spacing_mm=spacing_mm, slice_axis=slice_axis)
    if classes is None and (path := find_dataset_json(cases)) is not None:
        classes = read_dataset_json(path)
    if classes is not None and ignore is not None:
        classes = make_classes(
            classes.values,
            names=dict(zip(classes.values, classes.names, strict=True)),
            ignore=ignore,
            source=classes.source,
        )
    if classes is not None:
        ignore = classes.ignore
    work = []
    for name, path in cases.items():
        where = suited(path, spacing_mm=spacing_mm, slice_axis=slice_axis)
        work.append(Work(name, LabelFile(path, **where, ignore=ignore, scan=classes is None)))
    inspections = run_cases(inspect, work, jobs=jobs, label="read", verbosity=min(verbosity, -1))
    if classes is None:
        found = sorted({0, *(value for outcome in inspections if outcome.result for value in outcome.result.values)})
        readable = any(outcome.result for outcome in inspections)
        if len(found) < 2 and readable:
            raise UsageError(
                "no label but 0 in any case, so there is nothing to segment; name the classes with --classes 0,1,..."
            )
        if not readable:
            found = [0, 1]  # nothing will be made of it
        classes = make_classes(found, ignore=ignore, source="the values in the label files")
    return classes, inspections
