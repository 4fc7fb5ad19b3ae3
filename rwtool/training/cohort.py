"""The cases of a study in memory: images, labels and what the loss takes from maps, paired, checked and split."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rwtool.datasets.cases import find_cases
from rwtool.datasets.channels import ImageFiles, find_images, read_channels_of
from rwtool.datasets.classes import Classes
from rwtool.datasets.plan import Inspection, inspect_cases
from rwtool.datasets.splits import Split, make_split, read_split
from rwtool.errors import GeometryError, RwtoolError
from rwtool.io.formats import carries_spacing, check_suited, read_labels, suited
from rwtool.io.geometry import Geometry, grid_difference
from rwtool.io.labels import ignored_value
from rwtool.io.names import file_hash
from rwtool.io.volume import Volume
from rwtool.network.config import TrainConfig
from rwtool.network.normalization import Normalization, ct_normalization
from rwtool.network.resample import as_half, resample_slices, resampled_size
from rwtool.parallel import Outcome, Work, plan_jobs, run_cases
from rwtool.training.map_source import MapUse, plan_map_use

_SAMPLES = 10_000  # foreground voxels of a case, for --normalize ct
_PROCESS_BYTES = 200_000_000


@dataclass(frozen=True)
class CaseJob:
    """One case to be read.

    Attributes
    ----------
    name : str
    images : tuple of Path
        One per channel.
    labels : Path
    sha256 : str
        Of the label file.
    classes : Classes
    normalization : Normalization
    map_use : MapUse, optional
    spacing : (2,) float, optional
        In-plane spacing in mm to resample to.
    file_spacing_mm : (3,) float, optional
        Of files that carry none.
    slice_axis : int
        That of the labels.
    keep : bool
        Keep what is needed to validate on the case, rather than what is needed to train on it.
    """

    name: str
    images: tuple[Path, ...]
    labels: Path
    sha256: str
    classes: Classes
    normalization: Normalization
    map_use: MapUse | None = None
    spacing: tuple[float, float] | None = None
    file_spacing_mm: tuple[float, float, float] | None = None
    slice_axis: int = 2
    keep: bool = False


@dataclass(frozen=True, eq=False)
class Case:
    """One case, ready for the network.

    Attributes
    ----------
    name : str
    image : (C, Z, Y, X) float16 or float32 array
        Normalised, and resampled where that was asked for.
    codes : (Z, Y, X) uint8 or int16 array or None
        For training: 1 + class index; 0 is a voxel without a class.
    magnitudes : (M, Z, Y, X) float16 or float32 array or None
        For training: see :class:`rwtool.training.map_source.MapUse`.
    pixel_mm : (2,) float
        Of the image, along ``(y, x)``.
    reference : Volume or None
        For validation: class indices on the grid of the files.
    hashes : tuple of str
        SHA-256 of the labels, and of each channel.
    notes : tuple of str
    """

    name: str
    image: NDArray[Any]
    codes: NDArray[Any] | None
    magnitudes: NDArray[Any] | None
    pixel_mm: tuple[float, float]
    reference: Volume | None
    hashes: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """Where a study is.

    Attributes
    ----------
    images, labels : str
        Folder or glob each.
    maps : Path, optional
    split : str, optional
        File of a split; by default one is drawn.
    classes : Classes, optional
    ignore : int, optional
    file_spacing_mm : (3,) float, optional
        Of files that carry none.
    slice_axis : int, optional
    """

    images: str
    labels: str
    maps: Path | None = None
    split: str | None = None
    classes: Classes | None = None
    ignore: int | None = None
    file_spacing_mm: tuple[float, float, float] | None = None
    slice_axis: int | None = None


@dataclass(frozen=True)
class Cohort:
    """A study as it is to be trained on.

    Attributes
    ----------
    classes : Classes
    split : Split
    images : dict of str to tuple of Path
    numbered : bool
        Whether image names end in a channel.
    normalization : Normalization
    map_use : MapUse or None
    inspections : dict of str to Inspection
    source : Source
    cases : dict of str to Case
        Empty until :func:`read_cohort`.
    """

    classes: Classes
    split: Split
    images: ImageFiles
    labels: Mapping[str, Path]
    numbered: bool
    normalization: Normalization
    map_use: MapUse | None
    inspections: dict[str, Inspection]
    source: Source
    cases: dict[str, Case] = field(default_factory=dict)

    @property
    def n_channels(self) -> int:
        """Channels of an image."""
        return len(next(iter(self.images.values())))

    def without_training_arrays(self) -> Cohort:
        """The same, without the arrays of the training cases, once they are elsewhere."""
        nothing = np.empty((0, 0, 0, 0), dtype=np.float16)
        train = {
            name: replace(self.cases[name], image=nothing, codes=None, magnitudes=None) for name in self.split.train
        }
        return replace(self, cases={**self.cases, **train})

    def hashes(self) -> dict[str, list[str]]:
        """SHA-256 of the labels and the channels of each case."""
        return {name: list(case.hashes) for name, case in self.cases.items()}


def plan_cohort(source: Source, config: TrainConfig) -> Cohort:
    """Find the files of a study, pair and split them; no image is read.

    Raises
    ------
    UsageError
        Something does not fit: names, channels, classes, maps, split.
    RwtoolError
        A label file cannot be read; the message names all that cannot.
    """
    found = find_cases(source.labels)
    split = None
    if source.split is not None:
        split = read_split(source.split, list(found))
        found = {name: found[name] for name in found if name in {*split.train, *split.val}}
    images, numbered = find_images(source.images, names=list(found))
    check_suited(found.values(), spacing_mm=source.file_spacing_mm)
    readers = plan_jobs([Work(name, None) for name in found])[0]
    classes, outcomes = inspect_cases(
        found,
        classes=source.classes,
        ignore=source.ignore,
        spacing_mm=source.file_spacing_mm,
        slice_axis=source.slice_axis,
        jobs=readers if len(found) >= 8 else 1,
    )
    _refuse_failures(outcomes)
    if split is None:
        split = make_split(list(found), val=config.val, seed=config.split_seed, subject=config.subject)
    map_use = None if config.map_kind is None else plan_map_use(config.map_kind, source.maps, classes)
    inspections = {outcome.name: outcome.result for outcome in outcomes if outcome.result is not None}
    return Cohort(
        classes, split, images, found, numbered, Normalization(config.normalize), map_use, inspections, source
    )


def read_cohort(cohort: Cohort, config: TrainConfig, *, workers: int | None = None, verbosity: int = 0) -> Cohort:
    """Read all cases, several at once.

    Parameters
    ----------
    cohort : Cohort
        As planned.
    config : TrainConfig
    workers : int, optional
        Processes; by default what cores and free memory allow.
    verbosity : int

    Raises
    ------
    RwtoolError
        A case cannot be read: a study without it would be another one. The message names all of them.
    """
    normalization = cohort.normalization
    train = set(cohort.split.train)
    jobs = [
        CaseJob(
            name,
            cohort.images[name],
            cohort.labels[name],
            cohort.inspections[name].sha256,
            cohort.classes,
            normalization,
            cohort.map_use if name in train else None,
            config.spacing,
            cohort.source.file_spacing_mm,
            cohort.inspections[name].slice_axis,
            keep=name not in train,
        )
        for name in (*cohort.split.train, *cohort.split.val)
    ]
    if normalization.kind == "ct":
        work = [_work(cohort, job) for job in jobs if job.name in train]
        samples = run_cases(
            sample_foreground, work, jobs=workers or _processes(work), label="sample", verbosity=verbosity
        )
        _refuse_failures(samples)
        normalization = ct_normalization([outcome.result for outcome in samples if outcome.result is not None])
        jobs = [replace(job, normalization=normalization) for job in jobs]
    work = [_work(cohort, job) for job in jobs]
    outcomes = run_cases(read_case, work, jobs=workers or _processes(work), label="read", verbosity=verbosity)
    _refuse_failures(outcomes)
    cases = {outcome.name: outcome.result for outcome in outcomes if outcome.result is not None}
    return replace(cohort, normalization=normalization, cases=cases)


def read_case(job: CaseJob) -> Case:
    """Read one case."""
    image, labels, notes = _read_pair(job)
    ignored = job.classes.ignore is not None
    codes = magnitudes = None
    if not job.keep:
        codes = _codes(labels.array, len(job.classes), ignored=ignored)
        if job.map_use is not None:
            magnitudes = job.map_use.magnitudes(job.name, labels, job.sha256, ignored=ignored)
    image = job.normalization.apply(image)
    pixel_mm = labels.spacing_mm[1:]
    if job.spacing is not None:
        size = resampled_size(labels.array.shape[1:], pixel_mm, job.spacing)
        pixel_mm = tuple(mm * n / m for mm, n, m in zip(pixel_mm, labels.array.shape[1:], size, strict=True))
        image = resample_slices(image, size, order=1)
        codes = None if codes is None else resample_slices(codes, size, order=0)
        magnitudes = None if magnitudes is None else resample_slices(magnitudes, size, order=1)
    return Case(
        job.name,
        as_half(image),
        codes,
        None if magnitudes is None else as_half(magnitudes),
        (float(pixel_mm[0]), float(pixel_mm[1])),
        labels if job.keep else None,
        (job.sha256, *(file_hash(path) for path in job.images)),
        notes,
    )


def sample_foreground(job: CaseJob) -> NDArray[np.float32]:
    """Intensities of foreground voxels of a case, evenly spread: (C, n), at most 10,000 of them."""
    image, labels, _ = _read_pair(job)
    inside = labels.array > 0
    if job.classes.ignore is not None:
        inside &= labels.array != ignored_value(labels.array.dtype)
    values = image[:, inside]
    return values[:, :: max(1, math.ceil(values.shape[1] / _SAMPLES))]


def _read_pair(job: CaseJob) -> tuple[NDArray[np.float32], Volume, tuple[str, ...]]:
    labels = read_labels(
        job.labels,
        classes=job.classes.values,
        ignore=job.classes.ignore,
        **suited(job.labels, spacing_mm=job.file_spacing_mm, slice_axis=job.slice_axis),
    )
    image, geometry, notes = read_channels_of(
        job.images, spacing_mm=job.file_spacing_mm or labels.spacing_mm, slice_axis=job.slice_axis
    )
    _check_grids(job, geometry, labels.geometry)
    return image, labels, tuple(dict.fromkeys((*notes, *labels.notes)))


def _check_grids(job: CaseJob, image: Geometry, labels: Geometry) -> None:
    bare = not all(carries_spacing(path) for path in (job.images[0], job.labels))
    if bare and image.array_shape == labels.array_shape:
        return
    difference = (
        f"the shapes (z, y, x) differ: {image.array_shape} and {labels.array_shape}"
        if bare
        else grid_difference(image, labels)
    )
    if difference is not None:
        raise GeometryError(
            f"{job.images[0]}: it lies on another grid than its labels {job.labels}: {difference}; resample one of them"
        )


def _codes(labels: NDArray[Any], n_classes: int, *, ignored: bool) -> NDArray[Any]:
    dtype = np.uint8 if n_classes < 255 else np.int16
    codes = labels.astype(dtype) + dtype(1)
    if ignored:
        codes[labels == ignored_value(labels.dtype)] = 0
    return codes


def _work(cohort: Cohort, job: CaseJob) -> Work[CaseJob]:
    voxels = math.prod(cohort.inspections[job.name].shape)
    per_voxel = 14 * len(job.images) + 8 + (0 if job.map_use is None else 8 * job.map_use.channels + 8)
    return Work(job.name, job, voxels, voxels * per_voxel + _PROCESS_BYTES)


def _processes(work: list[Work[CaseJob]]) -> int:
    """One for few voxels: processes take a second to start."""
    return plan_jobs(work)[0] if sum(item.voxels for item in work) > 1 << 26 else 1


def _refuse_failures(outcomes: list[Outcome[Any]]) -> None:
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    if failed:
        lines = "".join(f"\n  {outcome.name}: {outcome.error}\n{outcome.details or ''}".rstrip() for outcome in failed)
        raise RwtoolError(
            f"{len(failed)} of {len(outcomes)} cases cannot be read, and a study without them would be another one; "
            f"mend them, or leave them out with --split FILE:{lines}"
        )
