"""Region-wise maps piece by piece: channel after channel, in the memory order of the labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rwtool.blocks import slabs
from rwtool.errors import UsageError, VolumeError
from rwtool.io.labels import label_counts
from rwtool.maps.distances import (
    distance_to_class,
    distance_to_inner_boundary,
    distance_to_other_class,
    signed_distance,
)
from rwtool.maps.parameters import RECTIFIED, MapParameters, MapSummary, check_classes
from rwtool.maps.structures import instance_factors, skeleton_weights

Block = tuple[int, tuple[slice, ...], NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class _Case:
    """The labels of a case and how they are measured."""

    labels: NDArray[Any]
    spacing: tuple[float, ...]
    parameters: MapParameters
    summary: MapSummary
    ignore: int | None
    threads: int

    def distance_to(self, k: int) -> NDArray[np.float32]:
        return distance_to_class(self.labels, k, self.spacing, dims=self.parameters.dims, threads=self.threads)


def map_blocks(
    labels: NDArray[Any],
    spacing_mm: Sequence[float],
    n_classes: int,
    parameters: MapParameters,
    summary: MapSummary,
    *,
    ignore: int | None = None,
    layout: Literal["dense", "packed"] = "dense",
    axis: int | None = None,
    threads: int = 1,
) -> Iterator[Block]:
    """Give a map piece by piece: channel after channel, each slab by slab.

    Parameters
    ----------
    labels : (Z, Y, X) unsigned integer array
        Class indices 0..K-1, and `ignore`.
    spacing_mm : (3,) float
    n_classes : int
    parameters : MapParameters
    summary : MapSummary
        Filled in on the way.
    axis : int, optional
        Along which the slabs are cut; by default the slowest of `labels` in memory.
    ignore, layout, threads
        As for :func:`rrw_map`.

    Yields
    ------
    channel : int
    where : tuple of slices
        The slab of ``(z, y, x)`` that the block fills.
    block : float32 array
    """
    if layout == "packed" and not parameters.rectified:
        raise UsageError(f"only {', '.join(RECTIFIED)} maps can be packed; found {parameters.kind}")
    check_classes(parameters, n_classes)
    spacing = parameters.distance_spacing(spacing_mm)
    case = _Case(labels, spacing, parameters, summary, ignore, threads)
    present = _note_presence(case, n_classes)
    if parameters.rectified:
        own = _own_values(case)
        others = parameters.other_values(n_classes)
        factors = _factors(case, others) if parameters.instances else None
        if factors is not None:
            np.multiply(own, factors, out=own)
        for k in range(parameters.packed_channels if layout == "packed" else n_classes):
            for where in slabs(labels, axis):
                other: Any = others if factors is None else _at_voxels(others, labels[where]) * factors[where]
                if layout == "dense":
                    yield k, where, _rectified_block(own[where], labels[where], other, k, ignore)
                else:
                    values = own[where] if k == 0 else other
                    yield k, where, values if ignore is None else _marked(values, labels[where], ignore)
        return
    make = {"boundary": _boundary_channel, "hd": _hd_channel, "matrix": _matrix_channel}[parameters.kind]
    channel_of = make(case, present)
    for k in range(n_classes):
        channel = channel_of(k)
        for where in slabs(labels, axis):
            if ignore is not None:
                channel[where][labels[where] == ignore] = 0
            yield k, where, channel[where]
        del channel  # before the next one is made


def expand_packed(
    own: NDArray[Any], labels: NDArray[Any], other_values: ArrayLike, *, ignore: int | None = None
) -> NDArray[np.float32]:
    """Dense map of a packed one.

    Parameters
    ----------
    own : (Z, Y, X) or (2, Z, Y, X) array
        The own value of each voxel; with `instances` its other value too.
    labels : (Z, Y, X) integer array
        Class indices 0..K-1.
    other_values : (K,) float
        The other value, by the true class of the voxel, where `own` does not hold it.
    ignore : int, optional
        Value of voxels without a class; they become 0.

    Returns
    -------
    (K, Z, Y, X) float32 array
    """
    classes = range(len(np.asarray(other_values)))
    return np.stack([expand_channel(own, labels, other_values, k, ignore=ignore) for k in classes])


def expand_channel(
    own: NDArray[Any], labels: NDArray[Any], other_values: ArrayLike, k: int, *, ignore: int | None = None
) -> NDArray[np.float32]:
    """One channel, (Z, Y, X), of the dense map of a packed one; parameters are those of :func:`expand_packed`."""
    both = own.ndim == labels.ndim + 1
    values, others = (own[0], own[1]) if both else (own, np.asarray(other_values, dtype=np.float32))
    channel = np.empty_like(values, dtype=np.float32)
    for where in slabs(values):
        other = others[where] if both else others
        channel[where] = _rectified_block(values[where], labels[where], other, k, ignore)
    return channel


def _note_presence(case: _Case, n_classes: int) -> NDArray[np.bool_]:
    """Which class stands in which slice, (Z, K), or in the volume, (1, K); edge cases go into the summary."""
    parameters, summary = case.parameters, case.summary
    sliced = parameters.sliced
    parts = list(case.labels) if sliced else [case.labels]
    depth = len(parts)
    present = np.zeros((depth, n_classes), dtype=bool)
    for z, part in enumerate(parts):
        found = [k for k in label_counts(part) if k != case.ignore]
        present[z, found] = True
    somewhere: NDArray[np.bool_] = np.logical_or.reduce(present, axis=0)
    summary.absent = [int(k) for k in np.flatnonzero(~somewhere)]
    if somewhere.sum() == 1:
        summary.filling = [int(k) for k in np.flatnonzero(somewhere)]
    if sliced:
        per_slice = np.count_nonzero(present, axis=1)
        alone = present[per_slice == 1]
        missing = depth - present.sum(axis=0)
        summary.absent_slices = {k: int(n) for k, n in enumerate(missing) if n and somewhere[k]}
        summary.filling_slices = {k: int(n) for k, n in enumerate(alone.sum(axis=0)) if n}
    return present


def _own_values(case: _Case) -> NDArray[np.float32]:
    """Own value of every voxel of a rectified map."""
    labels, parameters = case.labels, case.parameters
    if parameters.kind == "skeleton":
        weights = skeleton_weights(labels, case.spacing, dims=parameters.dims, ignore=case.ignore, threads=case.threads)
        return np.subtract(0, weights, out=weights)  # no -0
    if parameters.kind != "rrw":
        own = 0.0 if parameters.kind == "ac" else -float(parameters.beta or 0.0)
        return np.full_like(labels, own, dtype=np.float32)
    distance = _inside_distance(case)
    if parameters.dims == 2:
        for z in range(labels.shape[0]):
            _normalise(distance[z : z + 1], labels[z : z + 1], case)
    else:
        _normalise(distance, labels, case)
    return distance


def _factors(case: _Case, others: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the values of each component are multiplied by."""
    parameters = case.parameters
    factors = instance_factors(case.labels, dims=2 if parameters.sliced else 3, ignore=case.ignore)
    largest = max(float(np.abs(others).max()), abs(parameters.beta or 0.0))
    most = float(factors.max())
    if most * largest > float(np.finfo(np.float32).max):
        raise VolumeError(
            f"{largest:g} times {most:g}, for the smallest component, is too large for float32; choose a smaller "
            "alpha, beta or class weight"
        )
    return factors


def _inside_distance(case: _Case) -> NDArray[np.float32]:
    """Distance of every voxel inside its own class, by the convention; inf where it has nothing to measure to."""
    convention = case.parameters.convention
    measure = distance_to_inner_boundary if convention == "inner" else distance_to_other_class
    distance = measure(case.labels, case.spacing, dims=case.parameters.dims, ignore=case.ignore, threads=case.threads)
    if convention == "kervadec":
        distance -= 1
    return distance


def _normalise(distance: NDArray[np.float32], labels: NDArray[Any], case: _Case) -> None:
    """Make own values of the distances inside, in place, as the profile says; a class that is all there is has -1."""
    parameters = case.parameters
    largest = _by_class(distance, labels, np.maximum, 0)
    for k, value in largest.items():
        if k != case.ignore:
            _note_distance(case.summary, k, value)
    if parameters.profile == "exp":
        _decay(distance, np.float32(parameters.sigma or 1.0))
        return
    divisor = np.full(max(largest) + 1, -1, dtype=np.float32)
    for k, value in largest.items():
        if 0 < value < np.inf:
            divisor[k] = -value
    if parameters.profile == "reversed":
        _reverse(distance, labels, divisor)
        return
    for where in slabs(labels):
        np.divide(distance[where], divisor[labels[where]], out=distance[where])
    if np.inf in largest.values():  # a class with nothing to measure to
        np.maximum(distance, -1, out=distance)


def _reverse(distance: NDArray[np.float32], labels: NDArray[Any], divisor: NDArray[np.float32]) -> None:
    """``-(1 - (d - d0) / D)`` in place, d0 the smallest distance of the class; -1 where there is none to measure."""
    least = np.zeros_like(divisor)
    for k, value in _by_class(distance, labels, np.minimum, np.inf).items():
        least[k] = value if value < np.inf else 0
    for where in slabs(labels):
        block, piece = labels[where], distance[where]
        np.copyto(piece, 0, where=np.isinf(piece))
        np.subtract(piece, least[block], out=piece)
        np.divide(piece, divisor[block], out=piece)
        np.subtract(-1, piece, out=piece)


def _decay(distance: NDArray[np.float32], sigma: np.float32) -> None:
    """``-exp(-d / sigma)`` in place; -1 where there is nothing to measure to."""
    for where in slabs(distance):
        piece = distance[where]
        np.copyto(piece, 0, where=np.isinf(piece))
        with np.errstate(over="ignore", under="ignore"):  # to 0
            np.divide(piece, -sigma, out=piece)
            np.exp(piece, out=piece)
        np.negative(piece, out=piece)


def _note_distance(summary: MapSummary, k: int, value: float) -> None:
    if np.isfinite(value):
        summary.largest_distance[k] = max(value, summary.largest_distance.get(k, 0.0))
    if value == 0 and k not in summary.zero_distance:
        summary.zero_distance.append(k)


def _by_class(distance: NDArray[np.float32], labels: NDArray[Any], extreme: np.ufunc, start: float) -> dict[int, float]:
    """The largest distance in each class from `start` on, or the smallest."""
    found: dict[int, float] = {}
    for where in slabs(labels):
        block, piece = labels[where], distance[where]
        for k in label_counts(block):
            value = extreme.reduce(piece, axis=None, where=block == k, initial=start)
            found[k] = float(extreme(value, found.get(k, start)))
    return found


def _rectified_block(
    own: NDArray[Any], labels: NDArray[Any], other_values: NDArray[np.float32], k: int, ignore: int | None
) -> NDArray[np.float32]:
    """Channel k of a rectified map where its own values are `own`; other values by class, or of each voxel."""
    other: Any = other_values
    if other_values.ndim == 1:
        same = (other_values == other_values[0]).all()
        other = other_values[0] if same else _at_voxels(other_values, labels)
    values = np.where(labels == k, own, other).astype(np.float32, copy=False)
    if ignore is not None:
        values[labels == ignore] = 0
    return values


def _at_voxels(by_class: NDArray[np.float32], labels: NDArray[Any]) -> NDArray[np.float32]:
    """What a voxel has by its class; 0 where it has none."""
    return np.append(by_class, np.float32(0))[np.minimum(labels, len(by_class))]


def _marked(own: NDArray[np.float32], labels: NDArray[Any], ignore: int) -> NDArray[np.float32]:
    return np.where(labels == ignore, np.float32(np.nan), own)


def _boundary_channel(case: _Case, present: NDArray[np.bool_]) -> Callable[[int], NDArray[np.float32]]:
    labels, summary, dims = case.labels, case.summary, case.parameters.dims
    convention = case.parameters.convention
    farthest = _farthest(case, present)
    # One pass over class and rest together gives inside and outside; where the two do not measure to the same voxels
    # (inner boundary, ignored voxels), the inside of all classes comes from one pass of its own.
    together = convention != "inner" and case.ignore is None
    inside = None if together else _inside_distance(case)

    def channel_of(k: int) -> NDArray[np.float32]:
        if k in summary.absent or k in summary.filling:
            channel = np.zeros_like(labels, dtype=np.float32)
        elif inside is None:
            channel = signed_distance(labels, k, case.spacing, dims=dims, threads=case.threads)
            if convention == "kervadec":
                np.add(channel, 1, out=channel, where=labels == k)
        else:
            channel = case.distance_to(k)
            np.negative(inside, out=channel, where=labels == k)
        _settle(channel, present[:, k], farthest, dims)
        if k not in summary.absent and k not in summary.filling:
            _note_distance(summary, k, -float(channel.min(where=labels == k, initial=0)))
        return channel

    return channel_of


def _hd_channel(case: _Case, present: NDArray[np.bool_]) -> Callable[[int], NDArray[np.float32]]:
    # ignored voxels are no class, so they are no target of d_k
    summary, parameters = case.summary, case.parameters
    farthest = _farthest(case, present)

    def channel_of(k: int) -> NDArray[np.float32]:
        if k in summary.absent or k in summary.filling:
            channel = np.zeros_like(case.labels, dtype=np.float32)
        else:
            channel = case.distance_to(k)
        _settle(channel, present[:, k], farthest, parameters.dims)
        if k not in summary.absent and k not in summary.filling:
            summary.largest_distance[k] = float(channel.max())
        if parameters.alpha != 1:
            with np.errstate(over="ignore"):
                np.power(channel, np.float32(parameters.alpha), out=channel)
            if not np.isfinite(channel.max()):
                raise VolumeError(
                    f"{summary.largest_distance.get(k, 0):.1f} to the power {parameters.alpha:g} is too large for "
                    "float32; choose a smaller alpha"
                )
        return channel

    return channel_of


def _matrix_channel(case: _Case, present: NDArray[np.bool_]) -> Callable[[int], NDArray[np.float32]]:
    del present  # each class has its distances, whether it is there or not
    columns = np.asarray(case.parameters.matrix, dtype=np.float32)

    def channel_of(k: int) -> NDArray[np.float32]:
        channel = np.empty_like(case.labels, dtype=np.float32)
        for where in slabs(channel):
            channel[where] = _at_voxels(columns[k], case.labels[where])
        return channel

    return channel_of


def _settle(
    channel: NDArray[np.float32],
    present: NDArray[np.bool_],
    farthest: NDArray[np.float32] | None,
    dims: int,
) -> None:
    """Give voxels that measure to nothing their value: 0, or where their class is absent, `farthest`."""
    for where in slabs(channel):
        np.copyto(channel[where], 0, where=np.isinf(channel[where]))
    if farthest is not None and dims == 2:
        channel[~present] = farthest[~present]
    elif farthest is not None and not present.any():
        channel[...] = farthest


def _farthest(case: _Case, present: NDArray[np.bool_]) -> NDArray[np.float32] | None:
    """Largest distance from each voxel to another class that is there; None where it is not asked for or needed."""
    if case.parameters.absent == "zero" or present.all():
        return None
    largest = np.zeros_like(case.labels, dtype=np.float32)
    for k in np.flatnonzero(present.any(axis=0)):
        distance = case.distance_to(int(k))
        for where in slabs(largest):
            np.copyto(distance[where], 0, where=np.isinf(distance[where]))
        np.maximum(largest, distance, out=largest)
        del distance  # before the next one is made
    return largest
