"""What every command asks of a data set, looked at once: its label files, of which classes, on which grids."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rwtool.console import count
from rwtool.datasets.bids import read_names
from rwtool.datasets.cases import Found, search_cases
from rwtool.datasets.classes import Classes, check_regions, find_dataset_json, make_classes, read_dataset_json
from rwtool.datasets.preprocessed import preprocessed_spacing
from rwtool.datasets.values import warn_of_images
from rwtool.errors import UsageError, shorten
from rwtool.files import naming
from rwtool.io.formats import check_suited, read_header, read_label_values, read_labels, suited
from rwtool.io.geometry import Directions
from rwtool.io.names import file_hash, unchanged
from rwtool.io.volume import Volume
from rwtool.parallel import Outcome, Work, run_cases, schedule
from rwtool.shards import Shard, Share, size_of, take_share

_BYTE_NS = 1000.0  # to look at a byte of a label file, compressed: up to 200 voxels

Spacing = tuple[float, float, float]


class NoClassError(UsageError):
    """Label files that hold nothing but 0."""


@dataclass(frozen=True)
class LabelFile:
    """A label file that was looked at, and how it is to be read.

    Attributes
    ----------
    path : Path
    classes : Classes
    sha256 : str
    shape : (3,) int
        ``(Z, Y, X)``.
    spacing_mm : (3,) float
    slice_axis : int
    itemsize : int
        Bytes per voxel as stored.
    directions : Directions or None
        Where z, y and x point, if the file says so: see `Geometry.directions`.
    sliced : bool
        Whether shape and spacing tell that the slices lie across z.
    """

    path: Path
    classes: Classes
    sha256: str
    shape: tuple[int, int, int]
    spacing_mm: Spacing
    slice_axis: int
    itemsize: int
    directions: Directions | None = None
    sliced: bool = False

    @property
    def voxels(self) -> int:
        """How many there are."""
        return math.prod(self.shape)

    def read(self) -> Volume:
        """Read the labels as class indices 0..K-1.

        Raises
        ------
        VolumeError
            It cannot be read, holds a value that is no class, or is no longer the file that was looked at.
        """
        with unchanged(self.path, self.sha256):
            return read_labels(
                self.path,
                classes=self.classes.values,
                ignore=self.classes.ignore,
                map_values=self.classes.map_values,
                **suited(self.path, spacing_mm=self.spacing_mm, slice_axis=self.slice_axis),
            )


@dataclass(frozen=True)
class DataSet:
    """Label files with one class list.

    Attributes
    ----------
    files : dict of str to LabelFile
        By case, of those that can be read.
    paths : dict of str to Path
        Of all cases.
    classes : Classes
    failed : tuple of Outcome
        The cases that cannot be read, with their reasons.
    notes : tuple of str
        What a user should know of the folder, such as files that were passed over.
    share : Share or None
        The cases of one shard, to which `files` and `failed` are limited; all else is that of the whole data set.
    """

    files: dict[str, LabelFile]
    paths: dict[str, Path]
    classes: Classes
    failed: tuple[Outcome[None], ...] = ()
    notes: tuple[str, ...] = ()
    share: Share | None = None

    @property
    def folders(self) -> set[Path]:
        """Where the label files are; nothing may be written among them."""
        return {path.resolve().parent for path in self.paths.values()}

    def named(self, names: Mapping[int, str]) -> DataSet:
        """The same, with other names for some classes, by label value.

        Raises
        ------
        UsageError
            A value is no class.
        """
        unknown = [value for value in names if value not in self.classes.values]
        if unknown:
            raise UsageError(
                f"class_names= names label {', '.join(map(str, unknown))}, which is no class; the classes are "
                f"{self.classes.describe()}"
            )
        known = zip(self.classes.values, self.classes.names, strict=True)
        classes = replace(self.classes, names=tuple(names.get(value, name) for value, name in known))
        return replace(
            self, classes=classes, files={case: replace(file, classes=classes) for case, file in self.files.items()}
        )

    def describe(self) -> list[str]:
        """Classes, ignored label and slice axes, a line each."""
        classes = self.classes
        lines = [f"{count(len(classes), 'class')}: {classes.describe()} (from {classes.source})"]
        if classes.ignore is not None:
            lines.append(f"ignored label: {classes.ignore}")
        if classes.regions:
            named = (f"{name} {'+'.join(map(str, parts))}" for name, parts in classes.regions.items())
            lines.append(f"{count(len(classes.regions), 'region')}: {', '.join(named)}")
        axes = sorted({file.slice_axis for file in self.files.values()})
        if axes:
            lines.append(f"slice axis: file axis {' or '.join(map(str, axes))}")
        return lines


def plan_dataset(
    source: str | Path | Mapping[str, Path],
    *,
    classes: Sequence[int] | None = None,
    ignore: int | None = None,
    spacing_mm: Sequence[float] | None = None,
    slice_axis: int | None = None,
    regions: Mapping[str, Sequence[int]] | None = None,
    map_values: Mapping[int, int] | None = None,
    described: Path | None = None,
    name: str | None = None,
    shard: Shard | None = None,
    jobs: int | None = None,
    verbosity: int = 0,
) -> DataSet:
    """Look at all label files of a data set, and settle its class list.

    Parameters
    ----------
    source : path, glob, or dict of str to Path
        Label files, or the cases that :func:`find_cases` found.
    classes : sequence of int, optional
        Label values of all classes; else they are read from ``dataset.json`` beside or above the files, else the values
        that occur in the whole data set make the list, called as the ``dseg.tsv`` of BIDS says.
    ignore : int, optional
        The value of voxels without a class; wins over the one of ``dataset.json``.
    spacing_mm : (3,) float, optional
        Of files that carry none; those that nnU-Net has preprocessed have it in its plans.
    slice_axis : int, optional
        The file axis that is z.
    regions : dict of str to sequence of int, optional
        Named unions of label values, beside those of ``dataset.json``. None where the work at hand needs one class per
        voxel: then a ``dataset.json`` with regions is refused.
    map_values : dict of int to int, optional
        Values of the files that stand for others, such as ``{255: 1}``; all that is said of classes holds after it.
    described : Path, optional
        A ``dataset.json`` for files that have none beside or above them.
    name : str, optional
        Which part of a path is the name of the case, see :func:`search_cases`.
    shard : Shard, optional
        Look at the cases of this shard alone, by the sizes of the files; and at all of them where their values make the
        class list, so that it is the same for every shard.
    jobs : int, optional
        Processes; by default what pays.
    verbosity : int
        -1 shows no progress.

    Returns
    -------
    DataSet

    Raises
    ------
    UsageError
        There are no cases, no list of two classes or more comes about, or `spacing_mm` does not fit the files.
    """
    found = Found(dict(source), {}) if isinstance(source, Mapping) else search_cases(source, name=name)
    paths = found.cases
    spacing = None if spacing_mm is None else (float(spacing_mm[0]), float(spacing_mm[1]), float(spacing_mm[2]))
    own = preprocessed_spacing(paths) if spacing is None else {}
    check_suited(paths.values(), spacing_mm=next(iter(own.values()), spacing), slice_axis=slice_axis)
    known = _known_classes(paths, described, classes, ignore, regions is not None)
    ignored = ignore if known is None else known.ignore
    sizes = {name: size_of([path]) for name, path in paths.items()}
    share = None if shard is None else take_share(sizes, shard)
    mine = set(paths if share is None else share.names)
    work = [
        Work(
            name,
            _Question(
                path,
                {**suited(path, spacing_mm=own.get(name, spacing), slice_axis=slice_axis)},
                {"ignore": ignored, "map_values": map_values},
                known is None,
                name in mine,
            ),
            sizes[name] or 1,
        )
        for name, path in paths.items()
        if known is None or name in mine
    ]
    pays = schedule(work, voxel_ns=_BYTE_NS).jobs
    outcomes = run_cases(_look, work, jobs=min(pays, jobs or pays), label="look at", verbosity=verbosity, bar_only=True)
    answers = {outcome.name: outcome.result for outcome in outcomes if outcome.result is not None}
    given = regions or {}
    values = [value for answer in answers.values() for value in answer.values]
    values += [part for parts in given.values() for part in parts]
    settled = known or _found_classes(values, ignore, answers, paths)
    settled = replace(
        settled,
        regions=check_regions({**settled.regions, **given}, settled.values),
        map_values=_check_mapping(map_values or {}, settled.values),
    )
    files = {
        name: LabelFile(
            paths[name],
            settled,
            answer.sha256,
            answer.shape,
            answer.spacing_mm,
            answer.slice_axis,
            answer.itemsize,
            answer.directions,
            answer.sliced,
        )
        for name, answer in answers.items()
        if name in mine
    }
    failed: tuple[Outcome[None], ...] = tuple(
        Outcome(outcome.name, None, outcome.error, outcome.details)
        for outcome in outcomes
        if outcome.result is None and outcome.name in mine
    )
    images = warn_of_images({case: answer.values for case, answer in answers.items()})
    notes = [*search_notes(found), *([images] if images else [])]
    return DataSet(files, paths, settled, failed, tuple(notes), share)


def search_notes(found: Found) -> tuple[str, ...]:
    """What a user should know of the files of a folder: those that are no case, and why the first is none."""
    paths = list(found.passed_over)
    if not paths:
        return found.notes
    folder = paths[0].parent
    names = shorten([path.name if path.parent == folder else str(path) for path in paths])
    passed = f"{folder}: {count(len(paths), 'file')} passed over: {names} ({found.passed_over[paths[0]]})"
    return (*found.notes, passed)


@dataclass(frozen=True)
class _Question:
    """A label file to look at; with `scan`, for its values too; with `hashed`, for its hash, which its work needs."""

    path: Path
    grid: dict[str, Any]
    labels: dict[str, Any]
    scan: bool
    hashed: bool


@dataclass(frozen=True)
class _Answer:
    """What it says of itself."""

    shape: tuple[int, int, int]
    spacing_mm: Spacing
    slice_axis: int
    itemsize: int
    sha256: str
    directions: Directions | None
    sliced: bool
    values: tuple[int, ...] = ()


def _look(file: _Question) -> _Answer:
    header = read_header(file.path, **file.grid)
    with naming(file.path, OSError):
        # before the values, so that they are of this file where it is read as this one
        sha256 = file_hash(file.path) if file.hashed else ""
    values: tuple[int, ...] = ()
    if file.scan:
        values = tuple(read_label_values(file.path, **file.labels, **file.grid))
    geometry = header.geometry
    return _Answer(
        geometry.array_shape,
        geometry.spacing_mm,
        geometry.slice_axis,
        header.dtype.itemsize,
        sha256,
        geometry.directions,
        geometry.sliced,
        values,
    )


def _known_classes(
    paths: dict[str, Path],
    described: Path | None,
    listed: Sequence[int] | None,
    ignore: int | None,
    with_regions: bool,
) -> Classes | None:
    """The class list where it does not take a look into all files."""
    if listed is not None:
        return make_classes(listed, ignore=ignore, source="classes=")
    beside = find_dataset_json(paths) or described
    found = None if beside is None else read_dataset_json(beside)
    if found is not None and found.regions and not with_regions:
        name, parts = next(iter(found.regions.items()))
        raise UsageError(
            f"{beside}: label {name!r} is a region, the values {', '.join(map(str, parts))}; regions overlap, and one "
            "class per voxel is needed here; give the plain values with classes=(0, 1, ...)"
        )
    if found is None or ignore is None:
        return found
    names = dict(zip(found.values, found.names, strict=True))
    return make_classes(found.values, names=names, ignore=ignore, source=found.source, regions=found.regions)


def _check_mapping(mapping: Mapping[int, int], values: Sequence[int]) -> dict[int, int]:
    """Values that stand for classes."""
    wrong = [(old, new) for old, new in mapping.items() if new not in values or old == new]
    if wrong:
        raise UsageError(
            f"map_values= takes label values to those of classes; found {wrong[0][0]} to {wrong[0][1]}; the classes "
            f"are {', '.join(map(str, values))}"
        )
    return dict(mapping)


def _found_classes(
    values: Sequence[int], ignore: int | None, readable: Mapping[str, _Answer], paths: Mapping[str, Path]
) -> Classes:
    """The class list that the values in the files make."""
    found = sorted({0, *values})
    if len(found) < 2 and readable:
        raise NoClassError(
            "no label but 0 in any case, so there is nothing to segment; name the classes with classes=(0, 1, ...)"
        )
    names, tables = read_names(paths.values())
    source = "the values in the label files"
    if tables:
        source += f", named by {shorten(list(map(str, tables)))}"
    # where no file can be read nothing will be made of the list
    return make_classes(found if readable else (0, 1), names=names, ignore=ignore, source=source)
