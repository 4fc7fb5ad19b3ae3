"""Is a map sound: its files against their sidecar, and the sign of the gradient that it gives (Section 3.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rwtool.cases import find_cases
from rwtool.errors import RwtoolError, UsageError
from rwtool.geometry import grid_difference
from rwtool.io import file_hash, read_channels, read_header
from rwtool.maps import KINDS, RECTIFIED
from rwtool.mapset import MapSet, grid_of, iterate_map, read_map_set, read_source
from rwtool.runner import Work, plan_jobs, run_cases

SIGN_TOLERANCE = 1e-6  # of a voxel's largest |z|: equal components otherwise give spurious signs

Channels = Callable[[], Iterator[NDArray[Any]]]
Weights = Callable[[int, int], NDArray[np.float64]]


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
    weights: Weights = _uniform
    if softmax is not None:
        given = np.asarray(softmax, dtype=np.float64).reshape(flat.shape)

        def weights(k: int, size: int) -> NDArray[np.float64]:
            return given[k]

    return _count_signs(lambda: iter(flat), weights, squared=kind == "hd", ignored=None)


def check_maps(
    folder: str | Path,
    *,
    labels: str | None = None,
    seed: int = 0,
    jobs: int | None = None,
    verbosity: int = 0,
) -> tuple[MapSet, list[CaseCheck]]:
    """Check a folder of maps.

    Parameters
    ----------
    folder : path
        The folder of one kind, with its ``maps.json``.
    labels : str, optional
        Folder, file or glob of the label files; by default they are where the sidecar says they were.
    seed : int
        Of the random softmax.
    jobs : int, optional
    verbosity : int

    Returns
    -------
    maps : MapSet
    checks : list of CaseCheck
        One per case of the sidecar, and one per label file without a map.

    Raises
    ------
    UsageError
        If the folder holds no sidecar.
    """
    maps = read_map_set(folder)
    if maps is None:
        inside = [kind for kind in KINDS if (Path(folder) / kind / "maps.json").is_file()]
        hint = f"; it holds {', '.join(inside)}: check one of these" if inside else ""
        raise UsageError(f"{folder}: no maps.json here, so this is not the folder of one kind of maps{hint}")
    files = find_cases(labels) if labels is not None else {}
    work = []
    for name, record in maps.cases.items():
        source = files.get(name) if labels is not None else maps.source(name)
        item = (maps, name, source, labels is not None, seed)
        voxels = int(np.prod(record["shape"]))
        work.append(Work(name, item, voxels, 40 * voxels + 200_000_000))
    planned, _ = plan_jobs(work) if work else (1, 1)
    outcomes = run_cases(_check_case, work, jobs=jobs or planned, label="check", verbosity=verbosity)
    checks = [outcome.result or CaseCheck(outcome.name, (outcome.error or "",)) for outcome in outcomes]
    missing = [
        CaseCheck(name, (f"no map of {path}; run rwtool maps again",))
        for name, path in files.items()
        if name not in maps.cases
    ]
    if not maps.cases:
        raise UsageError(f"{folder}: its maps.json lists no case; run rwtool maps again")
    return maps, [*checks, *missing]


def _check_case(argument: tuple[MapSet, str, Path | None, bool, int]) -> CaseCheck:
    maps, name, source, labels_given, seed = argument
    path, record = maps.path(name), maps.cases[name]
    absent = tuple(record["absent"]) if maps.kind not in RECTIFIED else ()
    problems = []
    if labels_given and source is None:
        problems.append("it has no label file among the given ones")
    if not path.is_file():
        return CaseCheck(name, (*problems, f"{path} is missing"), absent)
    if path.stat().st_size != record["bytes"]:
        problems.append(f"{path} has {path.stat().st_size:,} bytes, the sidecar says {record['bytes']:,}")
    there = source is not None and source.is_file()
    if source is not None and not there and maps.packed:
        problems.append(f"{source} is missing, and a packed map is read together with it; give --labels")
    try:
        if source is not None and there:
            problems += _against_labels(path, record, source)
        problems = problems or _against_sidecar(maps, name)
        if problems:
            return CaseCheck(name, tuple(problems), absent, there)
        uniform, random = (_signs(maps, name, source, weights) for weights in (_uniform, _dirichlet(seed)))
    except RwtoolError as error:
        return CaseCheck(name, (*problems, str(error)), absent, there)
    return CaseCheck(name, (), absent, there, uniform, random)


def _against_labels(path: Path, record: dict[str, Any], source: Path) -> list[str]:
    """What differs between a map, its record and its label file."""
    if file_hash(source) != record["source_sha256"]:
        return [f"{source} is not the label file that it was made from (SHA-256 differs); run rwtool maps again"]
    header = read_header(source, **grid_of(source, record)).geometry
    found = []
    if list(header.array_shape) != record["shape"]:
        found.append(f"{source} has shape {header.array_shape}, the sidecar {tuple(record['shape'])}")
    if not np.allclose(header.spacing_mm, record["spacing_mm"], rtol=1e-4):
        found.append(f"{source} has spacing {header.spacing_mm}, the sidecar {tuple(record['spacing_mm'])}")
    if path.suffix != ".npy":
        grid = next(read_channels(path, slice_axis=record["slice_axis"])).geometry
        difference = grid_difference(header, grid)
        if difference:
            found.append(f"{path} and {source} are not on one grid: {difference}")
    return found


def _against_sidecar(maps: MapSet, name: str) -> list[str]:
    """What differs between a map file and its record: shape, channels, values that are not finite."""
    path, record = maps.path(name), maps.cases[name]
    expected = 1 if maps.packed else maps.n_classes
    channels = 0
    for volume in read_channels(path, **grid_of(path, record)):
        channels += 1
        if list(volume.array.shape) != record["shape"]:
            return [f"{path} has shape {volume.array.shape}, the sidecar says {tuple(record['shape'])}"]
        finite = np.isfinite(volume.array)
        if not finite.all() and not (maps.packed and maps.ignore is not None):
            return [f"{path} holds {int((~finite).sum()):,} values that are not finite"]
    if channels != expected:
        return [f"{path} has {channels} channels, the sidecar says {expected}"]
    return []


def _signs(maps: MapSet, name: str, source: Path | None, weights: Weights) -> SignCount:
    ignored = None
    if maps.ignore is not None and source is not None and source.is_file():
        index = read_source(maps, name, source)
        ignored = (index == np.iinfo(index.dtype).max).ravel()
    path = maps.path(name)

    def channels() -> Iterator[NDArray[Any]]:
        return (channel.ravel() for channel in iterate_map(path, labels=source if maps.packed else None))

    return _count_signs(channels, weights, squared=maps.kind == "hd", ignored=ignored)


def _count_signs(
    channels: Channels, weights: Weights, *, squared: bool, ignored: NDArray[np.bool_] | None
) -> SignCount:
    """Two passes over the channels, one at a time: first the sum over all, then the sign of each."""
    total: Any = 0.0
    norm: Any = 0.0
    low: Any = np.inf
    high: Any = -np.inf
    for k, channel in enumerate(channels()):
        weight = weights(k, channel.size)
        total = total + channel * (weight**2 if squared else weight)
        norm = norm + weight
        low, high = np.minimum(low, channel), np.maximum(high, channel)
    mean = total / (norm**2 if squared else norm)
    bound = SIGN_TOLERANCE * np.maximum(np.abs(low), np.abs(high)) * (0.5 if squared else 1.0)
    negative = np.zeros(np.shape(mean), dtype=np.uint16)
    for k, channel in enumerate(channels()):
        value = channel * (weights(k, channel.size) / norm) if squared else channel
        negative += value - mean < -bound
    equal = low == high
    if ignored is not None:
        negative[ignored] = 0
        equal &= ~ignored
    voxels = negative.size - (0 if ignored is None else int(ignored.sum()))
    return SignCount(voxels, int((negative >= 2).sum()), int(equal.sum()))


def _uniform(k: int, size: int) -> NDArray[np.float64]:
    return np.ones(1)


def _dirichlet(seed: int) -> Weights:
    """Weights that, normalised, are Dirichlet(1): exponentials, the same each time a channel is asked for."""

    def weights(k: int, size: int) -> NDArray[np.float64]:
        return np.random.default_rng((seed, k)).standard_exponential(size)

    return weights


def total_signs(checks: Sequence[CaseCheck]) -> tuple[SignCount, SignCount]:
    """Counts over all cases, at uniform and at random softmax."""
    return sum((c.uniform for c in checks), SignCount()), sum((c.random for c in checks), SignCount())
