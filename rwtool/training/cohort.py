"""The cases of a study in memory: images, labels and what the loss takes from maps, paired, checked and split."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rwtool.datasets.cases import search_cases
from rwtool.datasets.channels import ImageFiles, find_images, read_channels_of
from rwtool.datasets.classes import Classes
from rwtool.datasets.plan import DataSet, LabelFile, plan_dataset, search_notes
from rwtool.datasets.splits import Split, make_split, read_split
from rwtool.datasets.subjects import suggest_subject_regex
from rwtool.errors import GeometryError, RwtoolError
from rwtool.io.geometry import Directions
from rwtool.io.grids import NO_TURN, Turn, common_directions, describe_directions, match_turned, turn_to
from rwtool.io.names import unchanged
from rwtool.io.volume import Volume
from rwtool.network.config import TrainConfig
from rwtool.network.normalization import Normalization, ct_normalization
from rwtool.network.resample import as_half, resample_slices, size_for
from rwtool.parallel import Outcome, Work, run_cases, schedule
from rwtool.training.cache import Held, Room, Stored, plan_room, store
from rwtool.training.map_source import MapUse, plan_map_use

_SAMPLES = 10_000  # foreground voxels of a case, for normalize="ct"
_PROCESS_BYTES = 200_000_000
_VOXEL_NS = 20.0  # to read a voxel of an image and its label

Result = TypeVar("Result")


@dataclass(frozen=True)
class CaseJob:
    """One case to be read.

    Attributes
    ----------
    name : str
    images : tuple of Path
        One per channel.
    labels : LabelFile
    normalization : Normalization
    map_use : MapUse, optional
    target_spacing : (2,) float, optional
        In-plane spacing in mm to resample to.
    pixels : (2,) int, optional
        Pixels along ``(y, x)`` to resample to.
    directions : Directions, optional
        Where z, y and x are to point, as near as a turn of the axes comes to it, if the files say how they lie.
    keep : bool
        Keep what is needed to validate on the case, rather than what is needed to train on it.
    cache : Path, optional
        Folder of the cache file that its arrays go to.
    """

    name: str
    images: tuple[Path, ...]
    labels: LabelFile
    normalization: Normalization
    map_use: MapUse | None = None
    target_spacing: tuple[float, float] | None = None
    directions: Directions | None = None
    keep: bool = False
    pixels: tuple[int, int] | None = None
    cache: Path | None = None

    @property
    def turn(self) -> Turn:
        """From the axes of the files to those that slices are taken along."""
        return turn_to(self.directions, self.labels.directions, sliced=self.labels.sliced)

    @property
    def slices(self) -> tuple[int, int, int]:
        """Shape of the image as it is kept: slices, and their sides."""
        depth, *sides = self.turn.order(self.labels.shape)
        pixel_mm = self.turn.order(self.labels.spacing_mm)[1:]
        height, width = size_for(tuple(sides), pixel_mm, self.target_spacing, self.pixels)
        return depth, height, width

    def kept_bytes(self, channels: int) -> int:
        """Size of what is kept of an image of so many channels, where half precision holds its values."""
        pixels, codes = math.prod(self.slices), _codes_dtype(len(self.labels.classes)).itemsize
        if self.keep:
            return pixels * 2 * channels + self.labels.voxels * codes
        return pixels * (2 * channels + codes + 2 * (0 if self.map_use is None else self.map_use.channels))


@dataclass(frozen=True, eq=False)
class Case:
    """One case, ready for the network.

    Attributes
    ----------
    name : str
    image : (C, Z, Y, X) float16 or float32 array, in memory or in a cache file
        Normalised, and resampled where that was asked for.
    codes : (Z, Y, X) uint8 or int16 array or None, likewise
        For training: 1 + class index; 0 is a voxel without a class.
    magnitudes : (M, Z, Y, X) float16 or float32 array or None, likewise
        For training: see :class:`rwtool.training.map_source.MapUse`.
    pixel_mm : (2,) float
        Of the image, along ``(y, x)``.
    reference : Volume or None
        For validation: class indices on the grid of the files; see :meth:`whole_reference`.
    hashes : tuple of str
        SHA-256 of the labels, and of each channel.
    notes : tuple of str
    turn : Turn
        From the axes of the files, which `reference` has, to those of `image`.
    reference_array : Stored or None
        The array of `reference`, where it is in a cache file.
    """

    name: str
    image: Held
    codes: Held | None
    magnitudes: Held | None
    pixel_mm: tuple[float, float]
    reference: Volume | None
    hashes: tuple[str, ...]
    notes: tuple[str, ...] = ()
    turn: Turn = NO_TURN
    reference_array: Stored | None = None

    def whole_reference(self) -> Volume:
        """The reference with its array."""
        assert self.reference is not None
        if self.reference_array is None:
            return self.reference
        return replace(self.reference, array=self.reference_array.open())


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
    classes : tuple of int, optional
    ignore : int, optional
    spacing_mm : (3,) float, optional
        Of files that carry none.
    slice_axis : int, optional
    name : str, optional
        Which part of a path is the name of the case, of images and labels alike.
    """

    images: str
    labels: str
    maps: Path | None = None
    split: str | None = None
    classes: tuple[int, ...] | None = None
    ignore: int | None = None
    spacing_mm: tuple[float, float, float] | None = None
    slice_axis: int | None = None
    name: str | None = None


@dataclass(frozen=True)
class Cohort:
    """A study as it is to be trained on.

    Attributes
    ----------
    source : Source
    dataset : DataSet
        Its label files.
    split : Split
    images : dict of str to tuple of Path
    numbered : bool
        Whether image names end in a channel.
    normalization : Normalization
    map_use : MapUse or None
    directions : Directions or None
        Where z, y and x point in most training cases; all are turned to lie so. None where no file says so.
    cases : dict of str to Case
        Empty until :func:`read_cohort`.
    room : Room
        Which of them are in memory.
    """

    source: Source
    dataset: DataSet
    split: Split
    images: ImageFiles
    numbered: bool
    normalization: Normalization
    map_use: MapUse | None
    directions: Directions | None = None
    cases: dict[str, Case] = field(default_factory=dict)
    room: Room = field(default_factory=Room)

    @property
    def classes(self) -> Classes:
        """The class list."""
        return self.dataset.classes

    @property
    def n_channels(self) -> int:
        """Channels of an image."""
        return len(next(iter(self.images.values())))

    def suggest_subject(self, config: TrainConfig) -> str | None:
        """A regex to try, where a drawn split may have put scans of one subject on both sides."""
        if config.subject is not None or self.source.split is not None or not self.split.val:
            return None
        return suggest_subject_regex(self.dataset.paths)

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


def plan_cohort(source: Source, config: TrainConfig, *, jobs: int | None = None, verbosity: int = -1) -> Cohort:
    """Find the files of a study, pair and split them; no image is read.

    Parameters
    ----------
    source : Source
    config : TrainConfig
    jobs : int, optional
        Label files that are looked at at once; by default what pays.
    verbosity : int

    Raises
    ------
    UsageError
        Something does not fit: names, channels, classes, maps, split.
    RwtoolError
        A label file cannot be read; the message names all that cannot.
    """
    searched = search_cases(source.labels, name=source.name, strict=False)
    found = searched.cases
    split = None
    if source.split is not None:
        split = read_split(source.split, list(found))
        found = {name: found[name] for name in found if name in {*split.train, *split.val}}
    images, numbered = find_images(source.images, names=list(found), name=source.name)
    dataset = plan_dataset(
        found,
        classes=source.classes,
        ignore=source.ignore,
        spacing_mm=source.spacing_mm,
        slice_axis=source.slice_axis,
        jobs=jobs,
        verbosity=verbosity,
    )
    dataset = replace(dataset, notes=(*search_notes(searched), *dataset.notes))
    _refuse_failures(dataset.failed, len(found))
    if split is None:
        split = make_split(list(found), val=config.val, seed=config.split_seed, subject=config.subject)
    map_use = None if config.map_kind is None else plan_map_use(config.map_kind, source.maps, dataset.classes)
    directions = common_directions(dataset.files[name].directions for name in split.train)
    return Cohort(source, dataset, split, images, numbered, Normalization(config.normalize), map_use, directions)


def plan_cohort_room(
    cohort: Cohort, config: TrainConfig, budget_bytes: int | None = None, *, processes: int = 1
) -> Room:
    """Settle which cases are held in memory; parameters are those of :func:`read_cohort` and :func:`plan_room`."""
    sizes = {job.name: job.kept_bytes(cohort.n_channels) for job in _jobs(cohort, config)}
    train, val = ({name: sizes[name] for name in part} for part in (cohort.split.train, cohort.split.val))
    return plan_room(train, val, budget_bytes, processes=processes)


def _jobs(cohort: Cohort, config: TrainConfig) -> list[CaseJob]:
    train, room = set(cohort.split.train), cohort.room
    return [
        CaseJob(
            name,
            cohort.images[name],
            cohort.dataset.files[name],
            cohort.normalization,
            cohort.map_use if name in train else None,
            config.target_spacing,
            cohort.directions,
            keep=name not in train,
            pixels=config.pixels,
            cache=room.folder if name in room.stored else None,
        )
        for name in (*cohort.split.train, *cohort.split.val)
    ]


def read_cohort(cohort: Cohort, config: TrainConfig, *, jobs: int | None = None, verbosity: int = -1) -> Cohort:
    """Read all cases, several at once, into memory or into a cache file, as the cohort's room says.

    Parameters
    ----------
    cohort : Cohort
        As planned.
    config : TrainConfig
    jobs : int, optional
        Processes; by default what pays, and free memory allows.
    verbosity : int

    Raises
    ------
    RwtoolError
        A case cannot be read: a study without it would be another one. The message names all of them.
    """
    normalization = cohort.normalization
    train = set(cohort.split.train)
    work = [_work(job) for job in _jobs(cohort, config)]
    if normalization.kind == "ct":
        sampled = [item for item in work if item.name in train]
        samples = _run_all(sample_foreground, sampled, "sample", jobs, verbosity)
        normalization = ct_normalization(list(samples.values()))
        work = [replace(item, argument=replace(item.argument, normalization=normalization)) for item in work]
    found, odd = _run_all(read_case, work, "read", jobs, verbosity), _odd_orientations(cohort)
    cases = {name: replace(case, notes=(*odd.get(name, ()), *case.notes)) for name, case in found.items()}
    return replace(cohort, normalization=normalization, cases=cases)


def read_case(job: CaseJob) -> Case:
    """Read one case."""
    with ExitStack() as stack:
        hashes = [stack.enter_context(unchanged(path)) for path in job.images]
        image, labels, notes = _read_pair(job)
    codes = magnitudes = None
    if not job.keep:
        codes = _codes(labels, len(job.labels.classes))
        if job.map_use is not None:
            magnitudes = job.map_use.magnitudes(job.name, labels, job.labels.sha256)
    turn = job.turn
    if turn.axes[0] != 0 and job.map_use is not None and job.map_use.sliced:
        raise GeometryError(
            f"{job.labels.path}: its maps were made slice by slice across its own slice axis, and most training cases "
            "are sliced in another plane; make the maps with dims=3, or store the cases alike"
        )
    image = np.ascontiguousarray(turn.apply(job.normalization.apply(image)))
    codes, magnitudes = (
        None if array is None else np.ascontiguousarray(turn.apply(array)) for array in (codes, magnitudes)
    )
    pixel_mm, shape = turn.order(labels.spacing_mm)[1:], turn.order(labels.array.shape)[1:]
    size = size_for(shape, pixel_mm, job.target_spacing, job.pixels)
    if size != shape:
        pixel_mm = tuple(mm * n / m for mm, n, m in zip(pixel_mm, shape, size, strict=True))
        image = resample_slices(image, size, order=1)
        codes = None if codes is None else resample_slices(codes, size, order=0)
        magnitudes = None if magnitudes is None else resample_slices(magnitudes, size, order=1)
    image = as_half(image)
    magnitudes = None if magnitudes is None else as_half(magnitudes)
    held: list[Held | None] = [image, codes, magnitudes]
    reference, reference_array = labels if job.keep else None, None
    if job.cache is not None:
        held = [None if array is None else store(job.cache, array) for array in (image, codes, magnitudes)]
        if reference is not None:
            reference_array = store(job.cache, reference.array)
            reference = replace(reference, array=np.empty(0, reference.array.dtype))
    assert held[0] is not None
    return Case(
        job.name,
        held[0],
        held[1],
        held[2],
        (float(pixel_mm[0]), float(pixel_mm[1])),
        reference,
        (job.labels.sha256, *hashes),
        notes,
        turn,
        reference_array,
    )


def sample_foreground(job: CaseJob) -> NDArray[np.float32]:
    """Intensities of foreground voxels of a case, evenly spread: (C, n), at most 10,000 of them."""
    image, labels, _ = _read_pair(job)
    inside = labels.array > 0
    if labels.ignored is not None:
        inside &= labels.array != labels.ignored
    values = image[:, inside]
    return values[:, :: max(1, math.ceil(values.shape[1] / _SAMPLES))]


def _read_pair(job: CaseJob) -> tuple[NDArray[np.float32], Volume, tuple[str, ...]]:
    labels = job.labels.read()
    image, geometry, notes = read_channels_of(
        job.images, spacing_mm=job.labels.spacing_mm, slice_axis=job.labels.slice_axis
    )
    turn, match = match_turned(labels.geometry, geometry)
    if not match.same:
        raise GeometryError(
            f"{job.images[0]}: it lies on another grid than its labels {job.labels.path}: {match.difference}; resample "
            "one of them"
        )
    if match.note is not None:
        notes = (*notes, match.note)
    return turn.apply(image), labels, tuple(dict.fromkeys((*notes, *labels.notes)))


def _odd_orientations(cohort: Cohort) -> dict[str, tuple[str]]:
    """What to say of cases that are not stored as most: those that say how they lie are turned, others cannot be."""
    files, wanted = cohort.dataset.files, cohort.directions
    bare = [files[name].slice_axis for name in cohort.split.train if files[name].directions is None]
    usual = max(sorted(set(bare)), key=bare.count) if bare else None
    found = {}
    for name in (*cohort.split.train, *cohort.split.val):
        own, axis = files[name].directions, files[name].slice_axis
        if own is None and wanted is not None:
            most = describe_directions(wanted)
            found[name] = f"it does not say how it lies, and is taken as stored; other cases are turned to {most}"
        elif own is None and axis != usual:
            found[name] = f"its slices lie across file axis {axis}, those of most training cases across {usual}"
        elif own is not None and wanted is not None and (turn := turn_to(wanted, own)) != NO_TURN:
            kept = turn_to(wanted, own, sliced=files[name].sliced) != turn
            found[name] = (
                f"its axes (z, y, x) point {describe_directions(own)}, those of most training cases "
                f"{describe_directions(wanted)}; {'its slices stay as acquired' if kept else 'it is turned'}"
            )
    return {name: (f"warning: {said}",) for name, said in found.items()}


def _codes(labels: Volume, n_classes: int) -> NDArray[Any]:
    dtype = _codes_dtype(n_classes)
    codes = labels.array.astype(dtype) + dtype.type(1)
    if labels.ignored is not None:
        codes[labels.array == labels.ignored] = 0
    return codes


def _codes_dtype(n_classes: int) -> np.dtype[Any]:
    return np.dtype(np.uint8 if n_classes < 255 else np.int16)


def _work(job: CaseJob) -> Work[CaseJob]:
    per_voxel = 14 * len(job.images) + 8 + (0 if job.map_use is None else 8 * job.map_use.channels + 8)
    return Work(job.name, job, job.labels.voxels, job.labels.voxels * per_voxel + _PROCESS_BYTES)


def _run_all(
    function: Callable[[CaseJob], Result], work: Sequence[Work[CaseJob]], label: str, jobs: int | None, verbosity: int
) -> dict[str, Result]:
    """Results of a function of the cases, by name; it must do for all of them."""
    settled = schedule(work, jobs, voxel_ns=_VOXEL_NS)
    outcomes = settled.refused + run_cases(function, settled.work, jobs=settled.jobs, label=label, verbosity=verbosity)
    _refuse_failures(outcomes, len(outcomes))
    return {outcome.name: outcome.result for outcome in outcomes if outcome.result is not None}


def _refuse_failures(outcomes: Sequence[Outcome[Any]], number: int) -> None:
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    if failed:
        lines = "".join(f"\n  {outcome.name}: {outcome.error}\n{outcome.details or ''}".rstrip() for outcome in failed)
        raise RwtoolError(
            f"{len(failed)} of {number} cases cannot be read, and a study without them would be another one; "
            f"mend them, or leave them out with split='FILE':{lines}"
        )
