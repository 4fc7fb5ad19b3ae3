"""Is a map sound: its files against their sidecar, and the sign of the gradient that it gives (Section 3.4)."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rwtool.blocks import blocks
from rwtool.datasets.cases import find_cases
from rwtool.errors import RwtoolError, UsageError, VolumeError
from rwtool.files import file_crc32
from rwtool.io.formats import read_channels, read_header
from rwtool.io.grids import compare_grids
from rwtool.io.names import file_hash, is_bare_array, may_be_volume
from rwtool.maps.folder import MapSet, grid_of, iterate_map, read_map_set, read_source
from rwtool.maps.parameters import KINDS, RECTIFIED
from rwtool.maps.settings import MapRecord
from rwtool.parallel import Outcome, Work, run_cases, schedule

SIGN_TOLERANCE = 1e-6  # of a voxel's largest |z|: equal components otherwise give spurious signs

_BLOCK = 1 << 18

Channels = Callable[[], Iterator[NDArray[Any]]]
Weights = Callable[[slice], NDArray[np.float64]]  # of the next block of voxels, not yet normalised
Draw = Callable[[int], Weights]  # by channel


@dataclass(frozen=True)
class SignCount:
    """How many voxels have a gradient of which kind.

    Attributes
    ----------
    voxels : int
        All but ignored ones.
    unstable : int
        Voxels with two or more negative gradient components; a sound map has none.
    zero : int
        Voxels whose components are all equal: no gradient at all.
    """

    voxels: int = 0
    unstable: int = 0
    zero: int = 0

    @property
    def unstable_share(self) -> float:
        """Share of unstable voxels."""
        return self.unstable / self.voxels if self.voxels else 0.0

    def __add__(self, other: SignCount) -> SignCount:
        return SignCount(self.voxels + other.voxels, self.unstable + other.unstable, self.zero + other.zero)


@dataclass(frozen=True)
class CaseCheck:
    """What was found of one case.

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


def gradient_signs(z: NDArray[Any], softmax: NDArray[Any] | None = None, *, kind: str | None = None) -> SignCount:
    """Count voxels by the sign of their gradient components (Section 3.4 of the paper).

    Component k of the gradient of the loss is ``y_k (z_k - sum_l z_l y_l)``; for an hd map, whose softmax is squared,
    ``2 y_k (z_k y_k - sum_l z_l y_l^2)``. It counts as negative below -1e-6 times y_k times the largest absolute z of
    the voxel.

    Parameters
    ----------
    z : (K, ...) array
        Region-wise map.
    softmax : (K, ...) array, optional
        Positive weights, normalised here; uniform if not given.
    kind : str, optional
        ``"hd"`` takes the squared softmax.

    Returns
    -------
    SignCount

    Examples
    --------
    >>> gradient_signs(np.array([12.0, 4.0, -3.0])).unstable
    1
    """
    flat = np.asarray(z).reshape(len(z), -1)
    given = None if softmax is None else np.asarray(softmax, dtype=np.float64).reshape(flat.shape)
    draw = None if given is None else _weights_of(given)
    return _count_signs(lambda: iter(flat), [draw], n_classes=len(flat), squared=kind == "hd")[0]


@dataclass(frozen=True)
class CheckedMaps:
    """What was found of a folder of maps.

    Attributes
    ----------
    maps : MapSet
    cases : tuple of CaseCheck
        One per case of the sidecar, and one per label file without a map.
    """

    maps: MapSet
    cases: tuple[CaseCheck, ...]

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


def check_maps(
    maps: str | Path,
    *,
    labels: str | Path | None = None,
    name: str | None = None,
    seed: int = 0,
    jobs: int | None = None,
    verbosity: int = -1,
) -> CheckedMaps:
    """Check a folder of maps: what ``rwtool check`` does.

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
        uniform, random = _signs(maps, name, source, seed)
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


def _signs(maps: MapSet, name: str, source: Path | None, seed: int) -> list[SignCount]:
    """Count the signs of a map file's gradient; its shape, channels and values are checked on the way."""
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
        draws = [None, _dirichlet(seed, name)]
        return _count_signs(channels, draws, n_classes=expected, squared=maps.kind == "hd", ignored=ignored)
    except _NotFiniteError as error:
        raise VolumeError(f"{path} holds {error} values that are not finite; run rwtool maps again") from error


class _NotFiniteError(ValueError):
    """A map with NaN or infinity."""


class _Tally:
    """Sums over the channels at one softmax per voxel, block by block; without a draw it is uniform."""

    def __init__(self, draw: Draw | None, voxels: int, channels: int, squared: bool) -> None:
        self.draw, self.squared = draw or _ones, squared
        self.total = np.zeros(voxels)  # of weight x z
        self.norm = np.zeros(voxels) if draw else np.broadcast_to(float(channels), voxels)  # of the weights
        self.negative = np.zeros(voxels, dtype=np.uint16)

    def add(self, z: NDArray[Any], where: slice, weights: NDArray[np.float64]) -> None:
        self.total[where] += z * (weights**2 if self.squared else weights)
        if self.norm.flags.writeable:
            self.norm[where] += weights

    def compare(self, z: NDArray[Any], where: slice, weights: NDArray[np.float64], bound: NDArray[np.float64]) -> None:
        norm = self.norm[where]
        if self.squared:
            self.negative[where] += z * (weights / norm) - self.total[where] / norm**2 < -0.5 * bound
        else:
            self.negative[where] += z - self.total[where] / norm < -bound


def _count_signs(
    channels: Channels,
    draws: Sequence[Draw | None],
    *,
    n_classes: int,
    squared: bool,
    ignored: NDArray[np.bool_] | None = None,
) -> list[SignCount]:
    """Two passes over the channels, one at a time: first the sums over all, then the sign of each."""
    tallies: list[_Tally] = []
    low = high = np.empty(0)
    order: Any = None  # axes from slowest to fastest in memory
    k = 0
    for channel in channels():
        if not tallies:
            order = np.argsort(channel.strides, kind="stable")[::-1]
            low = channel.transpose(order).flatten()
            high = low.copy()
            tallies = [_Tally(draw, channel.size, n_classes, squared) for draw in draws]
        weights = [tally.draw(k) for tally in tallies]
        flat = channel.transpose(order).ravel()
        for (where,) in blocks(flat.shape, _BLOCK):
            z = flat[where].astype(np.float64)
            if not np.isfinite(z).all():
                raise _NotFiniteError(f"{np.count_nonzero(~np.isfinite(z)):,}")
            np.minimum(low[where], flat[where], out=low[where])
            np.maximum(high[where], flat[where], out=high[where])
            for tally, weight in zip(tallies, weights, strict=True):
                tally.add(z, where, weight(where))
        del channel, flat  # before the next one is read
        k += 1  # noqa: SIM113 - enumerate would hold on to the channel
    k = 0
    for channel in channels():
        weights = [tally.draw(k) for tally in tallies]
        flat = channel.transpose(order).ravel()
        for (where,) in blocks(flat.shape, _BLOCK):
            z = flat[where].astype(np.float64)
            bound = SIGN_TOLERANCE * np.maximum(np.abs(low[where]), np.abs(high[where])).astype(np.float64)
            for tally, weight in zip(tallies, weights, strict=True):
                tally.compare(z, where, weight(where), bound)
        del channel, flat
        k += 1  # noqa: SIM113 - enumerate would hold on to the channel
    kept = np.ones(low.size, dtype=bool) if ignored is None else ~ignored.transpose(order).ravel()
    zero = int(np.count_nonzero((low == high) & kept))
    voxels = int(np.count_nonzero(kept))
    return [SignCount(voxels, int(np.count_nonzero((tally.negative >= 2) & kept)), zero) for tally in tallies]


def _ones(k: int) -> Weights:
    return lambda where: np.ones(where.stop - where.start)


def _weights_of(softmax: NDArray[np.float64]) -> Draw:
    return lambda k: lambda where: softmax[k][where]


def _dirichlet(seed: int, case: str) -> Draw:
    """Weights that, normalised, are Dirichlet(1): exponentials, the same each time a channel is asked for."""

    def draw(k: int) -> Weights:
        rng = np.random.default_rng((seed, zlib.crc32(os.fsencode(case)), k))
        return lambda where: rng.standard_exponential(where.stop - where.start)

    return draw
