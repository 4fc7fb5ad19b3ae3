"""Is a map sound: its files against their sidecar, and the sign of the gradient that it gives (Section 3.4)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rwtool.datasets.cases import find_cases
from rwtool.errors import RwtoolError, UsageError, VolumeError
from rwtool.files import file_crc32
from rwtool.io.formats import read_channels, read_header
from rwtool.io.grids import compare_grids
from rwtool.io.names import file_hash, is_bare_array, may_be_volume
from rwtool.maps.folder import MapSet, grid_of, iterate_map, read_map_set, read_source
from rwtool.maps.parameters import KINDS, RECTIFIED
from rwtool.maps.settings import MapRecord
from rwtool.maps.signs import Draw, NotFiniteError, SignCount, Signs, find_signs, gradient_signs, random_draw
from rwtool.parallel import Outcome, Work, run_cases, schedule

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
    """

    maps: MapSet
    cases: tuple[CaseCheck, ...]
    figure: SignFigure | None = None

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
    jobs: int | None = None,
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
    jobs : int, optional
        Cases at once; by default what cores and free memory allow.
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
    files = find_cases(labels, name=name) if labels is not None else {}
    work = []
    for case, record in found.cases.items():
        source = files.get(case) if labels is not None else found.source(case)
        item = (found, case, source, labels is not None, seed)
        voxels = int(np.prod(record.shape))
        work.append(Work(case, item, voxels, 40 * voxels + 200_000_000))
    settled = schedule(work, jobs)
    outcomes: list[Outcome[CaseCheck]] = settled.refused + run_cases(
        _check_case, settled.work, jobs=settled.jobs, label="check", verbosity=verbosity
    )
    checks = [
        outcome.result or CaseCheck(outcome.name, (outcome.details or outcome.error or "",)) for outcome in outcomes
    ]
    missing = [
        CaseCheck(case, (f"no map of {path}; run rwtool maps again",))
        for case, path in files.items()
        if case not in found.cases
    ]
    return CheckedMaps(found, (*checks, *missing))


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
        uniform, random = find_map_signs(maps, name, source, [None, random_draw(seed, name)]).counts()
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
        grid = next(read_channels(path, slice_axis=record.slice_axis)).geometry
        difference = compare_grids(header, grid).difference
        if difference:
            found.append(f"{path} and {source} are not on one grid: {difference}")
    return found


def find_map_signs(maps: MapSet, name: str, source: Path | None, draws: Sequence[Draw | None]) -> Signs:
    """The signs of a map file's gradient; its shape, channels and values are checked on the way.

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
    path, record = maps.path(name), maps.cases[name]
    ignored = None
    if maps.ignore is not None and source is not None and may_be_volume(source):
        labels = read_source(maps, name, source)
        ignored = labels.array == labels.ignored
    expected, shape = maps.n_classes, record.shape

    def channels() -> Iterator[NDArray[Any]]:
        found = 0
        for channel in iterate_map(path, labels=source if maps.packed else None):
            if channel.shape != shape:
                raise VolumeError(f"{path} has shape {channel.shape}, the sidecar says {shape}")
            found += 1
            yield channel
            del channel  # before the next one is read
        if found != expected:
            raise VolumeError(f"{path} has {found} channels, the sidecar says {expected}")

    try:
        return find_signs(channels, draws, n_classes=expected, squared=maps.kind == "hd", ignored=ignored)
    except NotFiniteError as error:
        raise VolumeError(f"{path} holds {error} values that are not finite; run rwtool maps again") from error
