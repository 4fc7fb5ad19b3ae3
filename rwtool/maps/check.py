"""Is a map sound: its files against their sidecar, and the sign of the gradient that it gives (Section 3.4)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from rwtool.datasets.cases import find_cases
from rwtool.engines import EngineName, choose_engine
from rwtool.errors import RwtoolError, UsageError, VolumeError
from rwtool.files import file_crc32
from rwtool.io.abreast import Abreast
from rwtool.io.formats import read_header
from rwtool.io.grids import compare_grids
from rwtool.io.labels import label_dtype
from rwtool.io.names import file_hash, is_bare_array, may_be_volume
from rwtool.maps.core import core_version
from rwtool.maps.folder import MapSet, grid_of, read_map_set, read_source, refuse_other_grid
from rwtool.maps.parameters import KINDS, RECTIFIED
from rwtool.maps.settings import MapRecord
from rwtool.maps.signs import (
    Draw,
    NotFiniteError,
    Piece,
    SignCount,
    Signs,
    count_signs,
    gradient_signs,
    random_draw,
    whole_signs,
)
from rwtool.maps.streaming import expand_channel
from rwtool.parallel import Outcome, Work, run_cases, schedule
from rwtool.shards import Share, parse_shard, size_of, take_share

_PROCESS_BYTES = 80_000_000  # interpreter and libraries, and a piece of a map
_CHANNEL_BYTES = 1_000_000  # of each channel more: the state of its decompressor, and the least of a piece

_DRAWS = 100_000  # of the random softmax, for each class of a matrix


@dataclass(frozen=True)
class CaseCheck:
    """What was found of one case, or of one class of a matrix.

    Attributes
    ----------
    name : str
    problems : tuple of str
        What does not verify.
    absent : tuple of int
        Label values whose channel is 0 though the class is not there (boundary, hd): not neutral.
    labels_checked : bool
    uniform, random : SignCount
        At uniform softmax, and at one random softmax per voxel.
    """

    name: str
    problems: tuple[str, ...] = ()
    absent: tuple[int, ...] = ()
    labels_checked: bool = False
    uniform: SignCount = field(default_factory=SignCount)
    random: SignCount = field(default_factory=SignCount)


@dataclass(frozen=True)
class SignFigure:
    """A picture of where gradient components have the wrong sign.

    Attributes
    ----------
    path : Path
    case : str
    slice : int
    counts : dict of str to SignCount
        Over the slice, by softmax: uniform, random and the name of a run.
    """

    path: Path
    case: str
    slice: int
    counts: dict[str, SignCount]


@dataclass(frozen=True)
class CheckedMaps:
    """What was found of a folder of maps.

    Attributes
    ----------
    maps : MapSet
    cases : tuple of CaseCheck
        One per case of the sidecar, and one per label file without a map; of a matrix, one per class.
    figure : SignFigure or None
        Where one was asked for.
    share : Share or None
        The cases of a shard, where one was asked for; `cases` are these, and say nothing of the others.
    """

    maps: MapSet
    cases: tuple[CaseCheck, ...]
    figure: SignFigure | None = None
    share: Share | None = None

    @property
    def bad(self) -> tuple[CaseCheck, ...]:
        """The cases that do not verify."""
        return tuple(case for case in self.cases if case.problems)

    @property
    def uniform(self) -> SignCount:
        """Over all cases, at uniform softmax."""
        return sum((case.uniform for case in self.cases), SignCount())

    @property
    def random(self) -> SignCount:
        """Over all cases, at one random softmax per voxel."""
        return sum((case.random for case in self.cases), SignCount())

    @property
    def stable(self) -> bool:
        """Whether no voxel has two or more negative components, at either softmax."""
        return self.uniform.unstable == self.random.unstable == 0


def verify_maps(
    maps: str | Path,
    *,
    labels: str | Path | None = None,
    name: str | None = None,
    seed: int = 0,
    shard: str | None = None,
    jobs: int | None = None,
    engine: EngineName | None = None,
    scheduler: str | None = None,
    verbosity: int = -1,
) -> CheckedMaps:
    """Verify a folder of maps, and count the signs of their gradients.

    Parameters
    ----------
    maps : path
        The folder of one kind, with its ``maps.json``.
    labels : path, optional
        Folder, file or glob of the label files; by default they are where the sidecar says they were.
    name : str, optional
        Which part of the path of a label file is the name of the case.
    seed : int
        Of the random softmax.
    shard : str, optional
        Verify one share of the cases, by the sizes in the sidecar; see :func:`rwtool.shards.parse_shard`.
    jobs : int, optional
        Cases at once; by default what cores and free memory allow, or all workers of an engine.
    engine, scheduler
        As for :func:`rwtool.make_maps`.
    verbosity : int
        -1 shows no progress.

    Returns
    -------
    CheckedMaps

    Raises
    ------
    UsageError
        If the folder holds no sidecar.
    """
    chosen = choose_engine(engine, scheduler, alike=core_version)
    folder = Path(maps)
    found = read_map_set(folder)
    if found is None:
        inside = [kind for kind in KINDS if (folder / kind / "maps.json").is_file()]
        hint = f"; it holds {', '.join(inside)}: check one of these" if inside else "; make maps with rwtool maps"
        raise UsageError(f"{folder}: no maps.json here, so this is not the folder of one kind of maps{hint}")
    if found.kind == "matrix":
        if labels is not None:
            raise UsageError(f"{folder}: a matrix belongs to no label file; leave out labels=")
        return CheckedMaps(found, tuple(_check_columns(found, seed)))
    if not found.cases:
        raise UsageError(f"{folder}: its maps.json lists no case; run rwtool maps again")
    part = parse_shard(shard)
    files = find_cases(labels, name=name) if labels is not None else {}
    lacking = {case: path for case, path in files.items() if case not in found.cases}
    share = None
    if part is not None:
        sizes = {case: record.bytes for case, record in found.cases.items()}
        share = take_share({**sizes, **{case: size_of([path]) for case, path in lacking.items()}}, part)
    mine = {*found.cases, *lacking} if share is None else set(share.names)
    work = []
    for case, record in found.cases.items():
        if case not in mine:
            continue
        source = files.get(case) if labels is not None else found.source(case)
        item = (replace(found, cases={case: record}), case, source, labels is not None, seed)  # not all to each
        work.append(Work(case, item, math.prod(record.shape), peak_bytes(found, case, source)))
    settled = schedule(work, jobs, engine=chosen)
    outcomes: list[Outcome[CaseCheck]] = settled.refused + run_cases(
        _check_case, settled.work, jobs=settled.jobs, label="check", verbosity=verbosity, engine=chosen
    )
    checks = [
        outcome.result or CaseCheck(outcome.name, (outcome.details or outcome.error or "",)) for outcome in outcomes
    ]
    missing = [
        CaseCheck(case, (f"no map of {path}; run rwtool maps again",)) for case, path in lacking.items() if case in mine
    ]
    return CheckedMaps(found, (*checks, *missing), share=share)


def peak_bytes(maps: MapSet, name: str, source: Path | None) -> int:
    """Memory that a process takes at most to check a map; measured, and rounded up.

    The map is read in pieces. Labels are held where they are needed, and while they are read, in the file's type too.
    """
    reading = maps.n_classes * _CHANNEL_BYTES + _PROCESS_BYTES
    if source is None or (not maps.packed and maps.ignore is None):
        return reading
    record = maps.cases[name]
    try:
        stored = read_header(source, **grid_of(source, record)).dtype.itemsize
    except RwtoolError:
        return reading  # the case will say so
    label = label_dtype(maps.n_classes - 1, with_ignore=True).itemsize
    return math.prod(record.shape) * (stored + 2 * label) + reading


def _check_columns(maps: MapSet, seed: int) -> Iterator[CaseCheck]:
    """Each class of a matrix as a voxel of it would be: once at uniform softmax, and at many random ones."""
    columns = np.asarray(maps.settings.parameters.matrix, dtype=np.float64).T
    classes = maps.settings.classes
    for value, name, column in zip(classes.values, classes.names, columns, strict=True):
        draw = random_draw(seed, name)
        softmax = np.stack([draw(k)(slice(0, _DRAWS)) for k in range(len(column))])
        many = np.broadcast_to(column[:, np.newaxis], softmax.shape)
        label = f"label {value}" + ("" if name == str(value) else f" {name}")
        yield CaseCheck(
            label, labels_checked=True, uniform=gradient_signs(column), random=gradient_signs(many, softmax)
        )


def _check_case(argument: tuple[MapSet, str, Path | None, bool, int]) -> CaseCheck:
    maps, name, source, labels_given, seed = argument
    path, record = maps.path(name), maps.cases[name]
    absent = record.absent if maps.kind not in RECTIFIED else ()
    problems = []
    if labels_given and source is None:
        problems.append("it has no label file among the given ones")
    if not path.is_file():
        return CaseCheck(name, (*problems, f"{path} is missing"), absent)
    if path.stat().st_size != record.bytes:
        problems.append(f"{path} has {path.stat().st_size:,} bytes, the sidecar says {record.bytes:,}")
    elif file_crc32(path) != record.crc32:
        problems.append(f"{path} is not the file that was written (CRC-32 differs); run rwtool maps again")
    there = source is not None and may_be_volume(source)
    if source is not None and not there and (maps.packed or maps.ignore is not None):
        need = "a packed map is read together with it" if maps.packed else "it tells which voxels are ignored"
        problems.append(f"{source} is missing, and {need}; give labels=FOLDER")
    try:
        if source is not None and there:
            problems += _against_labels(path, record, source)
        if problems:
            return CaseCheck(name, tuple(problems), absent, there)
        uniform, random = _count_map_signs(maps, name, source, [None, random_draw(seed, name)])
        if maps.kind in RECTIFIED and max(uniform.unstable, random.unstable) > 0:
            problems.append(f"{path} is a {maps.kind} map, and yet not stable; run rwtool maps again")
    except RwtoolError as error:
        return CaseCheck(name, (*problems, str(error)), absent, there)
    return CaseCheck(name, tuple(problems), absent, there, uniform, random)


def _against_labels(path: Path, record: MapRecord, source: Path) -> list[str]:
    """What differs between a map, its record and its label file."""
    if file_hash(source) != record.source_sha256:
        return [f"{source} is not the label file that it was made from (SHA-256 differs); run rwtool maps again"]
    header = read_header(source, **grid_of(source, record)).geometry
    found = []
    if header.array_shape != record.shape:
        found.append(f"{source} has shape {header.array_shape}, the sidecar {record.shape}")
    if not np.allclose(header.spacing_mm, record.spacing_mm, rtol=1e-4):
        found.append(f"{source} has spacing {header.spacing_mm}, the sidecar {record.spacing_mm}")
    if not is_bare_array(path):
        grid = Abreast(path, slice_axis=record.slice_axis).geometry
        difference = compare_grids(header, grid).difference
        if difference:
            found.append(f"{path} and {source} are not on one grid: {difference}")
    return found


def find_map_signs(maps: MapSet, name: str, source: Path | None, draws: Sequence[Draw | None]) -> Signs:
    """The signs of a map file's gradient at every voxel; its shape, channels and values are checked on the way.

    Parameters
    ----------
    maps : MapSet
    name : str
        Of the case.
    source : Path or None
        Its label file.
    draws : sequence of callable or None
        As for :func:`rwtool.maps.signs.find_signs`.

    Raises
    ------
    VolumeError
    """
    file = _open(maps, name)
    pieces, squared = _pieces(maps, name, source, file), maps.kind == "hd"
    with _refusing_not_finite(maps.path(name)):
        return whole_signs(pieces, draws, squared=squared, shape=file.geometry.array_shape, order=file.axes)


def _count_map_signs(maps: MapSet, name: str, source: Path | None, draws: Sequence[Draw | None]) -> list[SignCount]:
    """The same, counted: nothing of the map is held but a piece of it."""
    pieces = _pieces(maps, name, source, _open(maps, name))
    with _refusing_not_finite(maps.path(name)):
        return count_signs(pieces, draws, squared=maps.kind == "hd")


@contextmanager
def _refusing_not_finite(path: Path) -> Iterator[None]:
    try:
        yield
    except NotFiniteError as error:
        raise VolumeError(f"{path} holds {error} values that are not finite; run rwtool maps again") from error


def _open(maps: MapSet, name: str) -> Abreast:
    """A map file, if its shape and its channels are those of the sidecar."""
    path, record = maps.path(name), maps.cases[name]
    file = Abreast(path, **grid_of(path, record))
    if file.geometry.array_shape != record.shape:
        raise VolumeError(f"{path} has shape {file.geometry.array_shape}, the sidecar says {record.shape}")
    expected = maps.settings.parameters.packed_channels if maps.packed else maps.n_classes
    if file.channels != expected:
        raise VolumeError(f"{path} has {file.channels} channels, the sidecar says {expected}")
    return file


def _pieces(maps: MapSet, name: str, source: Path | None, file: Abreast) -> Iterator[Piece]:
    """A map file piece by piece, a packed one expanded, with the voxels that its label file says are ignored."""
    labels = ignored = None
    if maps.packed or (maps.ignore is not None and source is not None and may_be_volume(source)):
        volume = read_source(maps, name, source)
        if maps.packed:
            refuse_other_grid(maps.path(name), volume.geometry, file.geometry)
        labels, ignored = volume.array.transpose(file.axes), volume.ignored
    others = maps.other_values() if maps.packed else np.empty(0)
    for where, stored in file.pieces(maps.n_classes):
        there, channels = None if labels is None else labels[where], stored
        if maps.packed and there is not None:
            packed = stored[0] if len(stored) == 1 else np.stack(stored)
            channels = [expand_channel(packed, there, others, k, ignore=ignored) for k in range(maps.n_classes)]
        yield Piece(where, channels, None if there is None or ignored is None else there == ignored)
