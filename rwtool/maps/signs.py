"""The sign of the gradient that a map gives at each voxel (Section 3.4 of the paper)."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rwtool.blocks import Block, blocks

SIGN_TOLERANCE = 1e-6  # of a voxel's largest |z|: equal components otherwise give spurious signs

Weights = Callable[[slice], NDArray[np.float64]]  # of the next block of voxels, not yet normalised
Draw = Callable[[int], Weights]  # by channel

_BLOCK = 1 << 18


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
    pieces = (Piece(where, list(flat[:, where[0]])) for where in blocks(flat.shape[1:], _BLOCK))
    return count_signs(pieces, [draw], squared=kind == "hd")[0]


class NotFiniteError(ValueError):
    """A map with NaN or infinity; the message is how many."""


class Piece(NamedTuple):
    """A piece of a map, all channels of it.

    Attributes
    ----------
    where : tuple of slices
        Along the axes of the map from the slowest to the fastest in memory.
    channels : sequence of arrays
        Of one shape.
    ignored : bool array, optional
    """

    where: Block
    channels: Sequence[NDArray[Any]]
    ignored: NDArray[np.bool_] | None = None


@dataclass(frozen=True, eq=False)
class Signs:
    """The signs of the gradient at each voxel; arrays of the shape of a channel, or of a piece of it.

    Attributes
    ----------
    negative : list of uint16 array
        How many components are negative, at each softmax.
    zero : bool array
        Where all components are equal, so that there is no gradient.
    kept : bool array
        Where voxels are not ignored.
    """

    negative: list[NDArray[np.uint16]]
    zero: NDArray[np.bool_]
    kept: NDArray[np.bool_]

    def counts(self) -> list[SignCount]:
        """The voxels of each kind, at each softmax."""
        voxels, zero = int(np.count_nonzero(self.kept)), int(np.count_nonzero(self.zero & self.kept))
        return [SignCount(voxels, int(np.count_nonzero((n >= 2) & self.kept)), zero) for n in self.negative]


def count_signs(pieces: Iterable[Piece], draws: Sequence[Draw | None], *, squared: bool) -> list[SignCount]:
    """Count the voxels of each kind, at each softmax; parameters are those of :func:`find_signs`."""
    counts = [SignCount()] * len(draws)
    for _, signs in find_signs(pieces, draws, squared=squared):
        counts = [count + more for count, more in zip(counts, signs.counts(), strict=True)]
    return counts


def whole_signs(
    pieces: Iterable[Piece],
    draws: Sequence[Draw | None],
    *,
    squared: bool,
    shape: Sequence[int],
    order: Sequence[int],
) -> Signs:
    """The signs of a whole map.

    Parameters
    ----------
    pieces, draws, squared
        As for :func:`find_signs`.
    shape : sequence of int
        Of a channel.
    order : sequence of int
        Its axes, from the slowest in memory to the fastest.
    """
    sides = [shape[axis] for axis in order]
    whole = Signs([np.zeros(sides, np.uint16) for _ in draws], np.zeros(sides, bool), np.ones(sides, bool))
    for where, signs in find_signs(pieces, draws, squared=squared):
        for all_of_it, part in zip(whole.negative, signs.negative, strict=True):
            all_of_it[where] = part
        whole.zero[where], whole.kept[where] = signs.zero, signs.kept
    back = np.argsort(order)
    return Signs([n.transpose(back) for n in whole.negative], whole.zero.transpose(back), whole.kept.transpose(back))


def find_signs(
    pieces: Iterable[Piece], draws: Sequence[Draw | None], *, squared: bool
) -> Iterator[tuple[Block, Signs]]:
    """Find the signs at each voxel, piece by piece.

    Parameters
    ----------
    pieces : iterable of Piece
        Of all of a map, in the order of memory.
    draws : sequence of callable or None
        Softmax by channel and voxel, in the order of memory (:func:`random_draw`, :func:`given_draw`); None is uniform.
    squared : bool
        Whether the softmax of the loss is squared, as in hd.

    Raises
    ------
    NotFiniteError
        When all has been looked at.
    """
    begun: list[list[Weights]] = []
    first = not_finite = 0
    for where, channels, ignored in pieces:
        begun = begun or [[(draw or _ones)(k) for k in range(len(channels))] for draw in draws]
        size = channels[0].size
        place = slice(first, first + size)
        first += size
        z = [channel.ravel().astype(np.float64) for channel in channels]
        bad = sum(size - int(np.count_nonzero(np.isfinite(one))) for one in z)
        not_finite += bad
        if not_finite:
            continue
        low, high = z[0].copy(), z[0].copy()
        for one in z[1:]:
            np.minimum(low, one, out=low)
            np.maximum(high, one, out=high)
        bound = SIGN_TOLERANCE * np.maximum(np.abs(low), np.abs(high))
        shape = channels[0].shape
        negative = [_negative(z, [weight(place) for weight in weights], bound, squared) for weights in begun]
        kept = np.ones(shape, dtype=bool) if ignored is None else ~ignored
        yield where, Signs([n.reshape(shape) for n in negative], (low == high).reshape(shape), kept)
    if not_finite:
        raise NotFiniteError(f"{not_finite:,}")


def _negative(
    z: Sequence[NDArray[np.float64]],
    weights: Sequence[NDArray[np.float64]],
    bound: NDArray[np.float64],
    squared: bool,
) -> NDArray[np.uint16]:
    """How many components are negative at each voxel, at weights that are not yet normalised."""
    total, norm = np.zeros(bound.shape), np.zeros(bound.shape)
    for one, weight in zip(z, weights, strict=True):
        total += one * (weight**2 if squared else weight)
        norm += weight
    negative = np.zeros(bound.shape, dtype=np.uint16)
    if squared:
        mean = total / norm**2
        for one, weight in zip(z, weights, strict=True):
            negative += one * (weight / norm) - mean < -0.5 * bound
    else:
        mean = total / norm
        for one in z:
            negative += one - mean < -bound
    return negative


def negative_components(z: NDArray[Any], weights: NDArray[Any], *, squared: bool) -> NDArray[np.bool_]:
    """Which components of the gradient are negative, by the same rule, of few voxels at once.

    Parameters
    ----------
    z : (K, ...) array
    weights : (K, ...) array
        Positive softmax, normalised here.
    squared : bool

    Returns
    -------
    (K, ...) bool array

    Examples
    --------
    >>> negative_components(np.array([12.0, 4.0, -3.0]), np.ones(3), squared=False).tolist()
    [False, True, True]
    """
    z, y = z.astype(np.float64), weights / weights.sum(axis=0)
    bound = SIGN_TOLERANCE * np.abs(z).max(axis=0)
    if squared:
        return z * y - (z * y**2).sum(axis=0) < -0.5 * bound
    return z - (z * y).sum(axis=0) < -bound


# Softmax, channel by channel


def random_draw(seed: int, case: str) -> Draw:
    """Weights that, normalised, are Dirichlet(1): exponentials, the same each time a channel is asked for."""

    def draw(k: int) -> Weights:
        rng = np.random.default_rng((seed, zlib.crc32(os.fsencode(case)), k))
        return lambda where: rng.standard_exponential(where.stop - where.start)

    return draw


def given_draw(softmax: NDArray[Any], like: NDArray[Any]) -> Draw:
    """A given softmax, (K, *shape), for channels that lie in memory as `like` does; 0 counts as the smallest number."""
    order = memory_order(like)

    def draw(k: int) -> Weights:
        flat = np.maximum(softmax[k].transpose(order).ravel(), np.finfo(np.float32).tiny).astype(np.float64)
        return lambda where: flat[where]

    return draw


def whole_draw(draw: Draw | None, k: int, like: NDArray[Any]) -> NDArray[np.float64]:
    """All weights of a channel, in the shape of `like`."""
    if draw is None:
        return np.ones(like.shape)
    return _from_memory(draw(k)(slice(0, like.size)), memory_order(like), like.shape)


def memory_order(array: NDArray[Any]) -> NDArray[np.intp]:
    """The axes of an array from the slowest to the fastest in memory."""
    return np.argsort(array.strides, kind="stable")[::-1]


def _from_memory(flat: NDArray[Any], order: NDArray[np.intp], shape: tuple[int, ...]) -> NDArray[Any]:
    return flat.reshape([shape[axis] for axis in order]).transpose(np.argsort(order))


def _ones(k: int) -> Weights:
    return lambda where: np.ones(where.stop - where.start)


def _weights_of(softmax: NDArray[np.float64]) -> Draw:
    return lambda k: lambda where: softmax[k][where]
