"""What a label is: rounding, refusal, compact types, and the mapping of file values to classes 0..K-1."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from rwtool.blocks import blocks
from rwtool.errors import UsageError, VolumeError

ROUNDING = 1e-3  # a float label may be this far from its integer
_LARGEST = 1 << 53  # in float64, in which labels are rounded
_BLOCK = 1 << 21
_FEW = 16  # values


def ignored_value(dtype: DTypeLike) -> int:
    """Value that ignored voxels hold in a label array of an unsigned type: the largest of the type."""
    return int(np.iinfo(np.dtype(dtype)).max)


def label_dtype(largest: int, *, with_ignore: bool) -> np.dtype[Any]:
    """Smallest unsigned type for labels up to `largest`, with its top value left free for ignored voxels."""
    return np.min_scalar_type(largest + 1 if with_ignore else largest)


def round_labels(
    stored: NDArray[Any], *, slope: float = 1.0, inter: float = 0.0, ignore: int | None = None
) -> NDArray[Any]:
    """Turn the numbers of a label file into unsigned integers.

    Parameters
    ----------
    stored : (X, Y, Z) array
        Integers, or floats within 1e-3 of an integer.
    slope, inter : float
        The file's scaling: the label is ``round(slope * stored + inter)``.
    ignore : int, optional
        A value without a class; it may be negative. Its voxels, those within 1e-3 of it, become
        :func:`ignored_value` of the result's type.

    Returns
    -------
    (X, Y, Z) array of uint8, uint16, uint32 or uint64
        In the memory order of `stored`; `stored` itself if it is already so.

    Raises
    ------
    VolumeError
        At a fraction, NaN, infinity or negative value, and at one that the type of the file cannot tell from its
        neighbours (above 2^24 in float32, 2^53 in float64): the message names it and its voxel.
    """
    if stored.dtype == bool:
        stored = stored.astype(np.uint8)  # as NumPy, for which a byte of 2 is True, that is 1
    if stored.dtype.kind not in "uif":
        raise VolumeError(f"labels are integers; found the type {stored.dtype}; convert the file")
    plain = slope == 1.0 and inter == 0.0
    if plain and ignore is None and stored.dtype.kind == "u":
        return stored.astype(stored.dtype.newbyteorder("="), copy=False)
    flat = stored.ravel(order="K")
    exact = math.inf if plain and stored.dtype.kind in "ui" else largest_exact(stored.dtype)
    largest = 0
    for where in blocks(flat.shape, _BLOCK):
        block = flat[where]
        labels, sound, kept = _round_block(block, slope, inter, ignore, plain)
        wrong = ~sound | (kept & ((labels < 0) | (labels > exact)))
        if wrong.any():
            bad = int(wrong.argmax())
            value = labels[bad].item() if plain and block.dtype.kind in "ui" else float(block[bad]) * slope + inter
            raise VolumeError(_refusal(stored, where[0].start + bad, value, exact, scaling=(slope, inter)))
        largest = max(largest, int(labels.max(initial=0, where=kept)))
    if ignore is not None and largest == np.iinfo(np.uint64).max:
        raise VolumeError(f"the label {largest} leaves no value free in 64 bits for ignored voxels; use smaller labels")
    dtype = label_dtype(largest, with_ignore=ignore is not None)
    result = np.empty_like(stored, dtype=dtype)  # keeps the memory order
    target = result.ravel(order="K")
    for where in blocks(flat.shape, _BLOCK):
        labels, _, kept = _round_block(flat[where], slope, inter, ignore, plain)
        part = target[where]
        part[...] = np.where(kept, labels, 0)
        part[~kept] = ignored_value(dtype)
    return result


def largest_exact(dtype: DTypeLike) -> int:
    """Largest label that a type of file holds without a doubt: above it a float skips integers."""
    dtype = np.dtype(dtype)
    return min(1 << (np.finfo(dtype).nmant + 1), _LARGEST) if dtype.kind == "f" else _LARGEST


def label_counts(labels: NDArray[Any], *, ignored: bool = False) -> dict[int, int]:
    """Count the voxels of each value.

    Parameters
    ----------
    labels : array of an unsigned type
    ignored : bool
        Leave out the voxels that hold :func:`ignored_value`.

    Returns
    -------
    dict
        Value to voxels, in the order of the values; only values that occur.
    """
    flat = labels.ravel(order="K")
    if labels.dtype.itemsize <= 2:
        counts = np.zeros(ignored_value(labels.dtype) + 1, dtype=np.int64)
        for where in blocks(flat.shape, _BLOCK):
            block = flat[where]
            largest = int(block.max())
            if largest < _FEW:  # a comparison per value is several times faster than bincount
                counts[: largest + 1] += [np.count_nonzero(block == value) for value in range(largest + 1)]
            else:
                counts += np.bincount(block, minlength=counts.size)
        found = {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
    else:
        values, numbers = np.unique(flat, return_counts=True)
        found = dict(zip(values.tolist(), numbers.tolist(), strict=True))
    if ignored:
        found.pop(ignored_value(labels.dtype), None)
    return found


def to_classes(labels: NDArray[Any], values: Sequence[int], *, ignored: bool = False) -> NDArray[Any]:
    """Map the values of a label file to class indices 0..K-1.

    Parameters
    ----------
    labels : array of an unsigned type
    values : sequence of K int
        The file's value of each class, ascending.
    ignored : bool
        Whether voxels of :func:`ignored_value` are ignored ones; they stay so.

    Returns
    -------
    array of uint8 or uint16
        Class indices, in the same memory order. `labels` itself where nothing changes.

    Raises
    ------
    VolumeError
        At a value that is not in `values`.
    """
    dtype = label_dtype(max(len(values) - 1, 1), with_ignore=True)
    plain = list(values) == list(range(len(values))) and labels.dtype == dtype
    if plain and not ignored and labels.max() < len(values):  # no need to count: the common case, several times faster
        return labels
    counts = label_counts(labels, ignored=ignored)
    unknown = sorted(set(counts) - set(values))
    if unknown:
        named = ", ".join(f"{value} ({counts[value]:,} voxels)" for value in unknown[:5])
        raise VolumeError(
            f"label {named}{' and others' if len(unknown) > 5 else ''} is not in the class list "
            f"{', '.join(map(str, values))}; add it to classes=, or mend the file"
        )
    if plain:
        return labels
    flat = labels.ravel(order="K")
    result = np.empty_like(labels, dtype=dtype)
    target = result.ravel(order="K")
    known = np.asarray(values, dtype=labels.dtype if max(values) <= ignored_value(labels.dtype) else np.uint64)
    for where in blocks(flat.shape, _BLOCK):
        block = flat[where]
        index = np.searchsorted(known, block).astype(dtype)
        if ignored:
            index[block == ignored_value(labels.dtype)] = ignored_value(dtype)
        target[where] = index
    return result


def map_labels(labels: NDArray[Any], values: Mapping[int, int], *, ignored: bool = False) -> NDArray[Any]:
    """Give the voxels of some values another one, all at once: ``{1: 2, 2: 1}`` swaps two.

    Parameters
    ----------
    labels : array of an unsigned type
    values : dict of int to int
        Old value to new.
    ignored : bool
        Whether voxels of :func:`ignored_value` are ignored ones; they stay so.

    Returns
    -------
    array of an unsigned type
        In the same memory order.
    """
    largest = max([*values.values(), int(labels.max(initial=0, where=_kept(labels, ignored)))])
    dtype = label_dtype(largest, with_ignore=ignored)
    result = labels.astype(dtype)
    if ignored:
        result[~_kept(labels, ignored)] = ignored_value(dtype)
    for old, new in values.items():
        result[(labels == old) & _kept(labels, ignored)] = new
    return result


def _kept(labels: NDArray[Any], ignored: bool) -> Any:
    return labels != ignored_value(labels.dtype) if ignored else np.True_


def check_class_values(values: Sequence[int]) -> tuple[int, ...]:
    """Sort a class list and refuse one that cannot be: it needs 0, the background, and at least two classes."""
    found = tuple(sorted(set(values)))
    if len(found) != len(values):
        raise UsageError(f"the class list names a value twice: {', '.join(map(str, values))}")
    if not found or found[0] != 0 or len(found) < 2:
        raise UsageError(
            "a class list holds 0 (the background, which cannot be ignored) and at least one other value, none of them "
            f"negative; found {', '.join(map(str, values)) or 'nothing'}; for example classes=(0, 1, 2)"
        )
    return found


def _round_block(
    block: NDArray[Any], slope: float, inter: float, ignore: int | None, plain: bool
) -> tuple[NDArray[Any], NDArray[np.bool_], NDArray[np.bool_]]:
    """Rounded labels of a block, which of its voxels are integers, and which are not ignored ones."""
    labels: NDArray[Any]
    if block.dtype.kind in "ui" and plain:
        labels = block.astype(np.uint64 if block.dtype.kind == "u" else np.int64)
        sound = np.ones(block.size, dtype=bool)
    else:
        values = block.astype(np.float64) * slope + inter
        labels = np.rint(values)
        with np.errstate(invalid="ignore"):  # infinity less infinity
            sound = np.abs(labels - values) <= ROUNDING
    kept = np.ones(block.size, dtype=bool) if ignore is None else labels != ignore
    return labels, sound, kept


def _refusal(stored: NDArray[Any], flat_index: int, value: float, exact: float, *, scaling: tuple[float, float]) -> str:
    # ravel(order="K") runs over the axes in the order of their strides
    axes = sorted(range(stored.ndim), key=lambda axis: -abs(stored.strides[axis]))
    found = np.unravel_index(flat_index, [stored.shape[axis] for axis in axes])
    voxel = tuple(int(found[axes.index(axis)]) for axis in range(stored.ndim))
    expected = f"labels are integers from 0 up (floats within {ROUNDING} of one are rounded)"
    if not np.isfinite(value):
        return f"{expected}; found {value} at file voxel {voxel}; mend the file"
    if value < 0 and abs(value - round(value)) <= ROUNDING:
        return (
            f"{expected}; found {value:g} at file voxel {voxel}; give ignore={round(value)} if it marks "
            "voxels without a class, or mend the file"
        )
    if value > exact:
        return (
            f"{expected}; found {value:.16g} at file voxel {voxel}, and above {exact:,} the type {stored.dtype} does "
            "not hold every whole number; save the labels as integers"
        )
    if scaling != (1.0, 0.0):
        return (
            f"{expected}; found {value:.9g} at file voxel {voxel}, where {stored[voxel]} is stored: the header's "
            f"scaling (scl_slope {scaling[0]:.9g}, scl_inter {scaling[1]:.9g}) is too coarse for whole numbers; save "
            "the labels as integers without a scaling"
        )
    return (
        f"{expected}; found {value:.9g} at file voxel {voxel}; is this a label file? If it was resampled, do so "
        "again with nearest neighbour"
    )
