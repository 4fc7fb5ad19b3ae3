"""Structures of a class in a label array: its skeleton, and the components that it falls into."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rwtool.blocks import slabs
from rwtool.maps.distances import distance_to_other_class

Labels = NDArray[Any]

_STEEP = 0.5 * (1 + 1e-5)  # of a step: a rise by just half of it is none, whatever the last bit


def skeleton_weights(
    labels: Labels, spacing_mm: Sequence[float], *, dims: int = 3, ignore: int | None = None, threads: int = 1
) -> NDArray[np.float32]:
    """Weights on the skeleton of each class, whose mean over the class is 1.

    The skeleton is the ridge of the distance inside: the voxels from which it rises to none of the 26 around, in the
    class, by more than half of the way there. So it holds the middle of what is thick, all of what is thin, and some
    of every component. S is the skeleton and the face neighbours of its voxels in the class. Each class has its own,
    the background too.

    Parameters
    ----------
    labels : (Z, Y, X) unsigned integer array
    spacing_mm : (3,) float
        Along ``(z, y, x)``.
    dims : {3, 2}
        2 takes each slice across z as a volume of its own.
    ignore : int, optional
        Value of voxels without a class.
    threads : int

    Returns
    -------
    (Z, Y, X) float32 array
        On S the voxels of the class over those of S; 0 elsewhere. A class that fills the volume (or slice) is all S.

    Examples
    --------
    >>> labels = np.zeros((1, 5, 7), np.uint8)
    >>> labels[0, 1:4, 1:6] = 1
    >>> skeleton_weights(labels, (1, 1, 1))[0, 1:4, 1:6].astype(float).round(2)  # 15/11 on it
    array([[0.  , 1.36, 1.36, 1.36, 0.  ],
           [1.36, 1.36, 1.36, 1.36, 1.36],
           [0.  , 1.36, 1.36, 1.36, 0.  ]])
    """
    weights = distance_to_other_class(labels, spacing_mm, dims=dims, ignore=ignore, threads=threads)
    for part, found in _volumes(labels, weights, dims):
        for where in slabs(found):
            np.copyto(found[where], 0, where=np.isinf(found[where]))
        chosen = _with_neighbours(~_slopes(found, part, spacing_mm), part)
        if ignore is not None:
            chosen &= part != ignore
        share = _count(part) / np.maximum(_count(part, chosen), 1)
        for where in slabs(found):
            np.multiply(chosen[where], share.astype(np.float32)[part[where]], out=found[where])
    return weights


def _slopes(distance: NDArray[np.float32], labels: Labels, spacing: Sequence[float]) -> NDArray[np.bool_]:
    """Voxels from which the distance inside rises to a neighbour of the class by more than half of the step."""
    rises = np.zeros_like(labels, dtype=bool)
    for step in product((-1, 0, 1), repeat=3):
        if step <= (0, 0, 0):
            continue
        bound = _STEEP * float(np.linalg.norm(np.multiply(step, spacing)))
        here, there = _pair(step, labels.shape)
        for where in slabs(labels[here]):
            same = labels[here][where] == labels[there][where]
            rise = distance[there][where] - distance[here][where]
            rises[here][where] |= same & (rise > bound)
            rises[there][where] |= same & (rise < -bound)
    return rises


def _with_neighbours(chosen: NDArray[np.bool_], labels: Labels) -> NDArray[np.bool_]:
    """Chosen voxels, and those of their class that share a face with one."""
    found = chosen.copy(order="K")
    for axis in range(3):
        here, there = _pair([int(axis == a) for a in range(3)], labels.shape)
        for where in slabs(labels[here]):
            same = labels[here][where] == labels[there][where]
            found[here][where] |= same & chosen[there][where]
            found[there][where] |= same & chosen[here][where]
    return found


def _pair(step: Sequence[int], shape: Sequence[int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where voxels have one beyond a step, and where that one is."""
    ends = list(zip(step, shape, strict=True))
    here = tuple(slice(max(0, -by), max(0, n - max(0, by))) for by, n in ends)
    return here, tuple(slice(max(0, by), max(0, n - max(0, -by))) for by, n in ends)


def instance_factors(labels: Labels, *, dims: int = 3, ignore: int | None = None) -> NDArray[np.float32]:
    """What makes the components of a foreground class weigh the same, whatever their size.

    Parameters
    ----------
    labels : (Z, Y, X) unsigned integer array
        0 is the background.
    dims : {3, 2}
        2 takes each slice across z as a volume of its own.
    ignore : int, optional
        Value of voxels without a class.

    Returns
    -------
    (Z, Y, X) float32 array
        In a component (26-connected) of n of its class, ``1 / (share of the class x n)``: their mean over the class is
        1. 1 in the background and where ignored.

    Examples
    --------
    >>> instance_factors(np.array([[[1, 1, 1, 0, 1]]], np.uint8)).ravel().astype(float).round(3).tolist()
    [0.667, 0.667, 0.667, 1.0, 2.0]
    """
    from scipy.ndimage import find_objects

    factors = np.ones_like(labels, dtype=np.float32)
    for part, found in _volumes(labels, factors, dims):
        for k, box in enumerate(find_objects(part), start=1):
            if box is not None and k != ignore:
                _fill_factors(part[box] == k, found[box])
    return factors


def _fill_factors(inside: NDArray[np.bool_], factors: NDArray[np.float32]) -> None:
    from scipy.ndimage import label

    number, n = label(inside, structure=np.ones((3, 3, 3), dtype=bool))
    if n == 1:
        return
    voxels = _count(number)
    voxels[0] = 0  # of no component
    by_component = (voxels.sum() / (n * np.maximum(voxels, 1))).astype(np.float32)
    for where in slabs(number):
        np.copyto(factors[where], by_component[number[where]], where=inside[where])


def _count(numbers: NDArray[Any], chosen: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
    """How often each number occurs, in all or in the chosen voxels."""
    length = int(numbers.max()) + 1
    total = np.zeros(length, dtype=np.int64)
    for where in slabs(numbers):
        some = numbers[where] if chosen is None else numbers[where][chosen[where]]
        total += np.bincount(some.ravel(), minlength=length)
    return total


def _volumes(labels: Labels, result: NDArray[np.float32], dims: int) -> Iterator[tuple[Labels, NDArray[np.float32]]]:
    """Labels and result of each volume: the whole, or slice by slice."""
    if dims == 3:
        yield labels, result
        return
    for z in range(len(labels)):
        yield labels[z : z + 1], result[z : z + 1]
