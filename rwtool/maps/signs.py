"""The sign of the gradient that a map gives at each voxel (Section 3.4 of the paper)."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rwtool.blocks import blocks

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
    return find_signs(lambda: iter(flat), [draw], n_classes=len(flat), squared=kind == "hd").counts()[0]


class NotFiniteError(ValueError):
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


@dataclass(frozen=True, eq=False)
class Signs:
    """The signs of the gradient at each voxel; arrays of the shape of a channel.

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


def find_signs(
    channels: Channels,
    draws: Sequence[Draw | None],
    *,
    n_classes: int,
    squared: bool,
    ignored: NDArray[np.bool_] | None = None,
) -> Signs:
    """Find the signs at each voxel: two passes over the channels, first the sums over all, then the sign of each.

    Parameters
    ----------
    channels : callable
        Gives the channels of a map one after another, arrays of one shape; called twice.
    draws : sequence of callable or None
        Softmax by channel and voxel, in the order of memory (:func:`random_draw`, :func:`given_draw`); None is uniform.
    n_classes : int
    squared : bool
        Whether the softmax of the loss is squared, as in hd.
    ignored : bool array, optional

    Raises
    ------
    NotFiniteError
    """
    tallies: list[_Tally] = []
    low = high = np.empty(0)
    order: Any = None
    shape: tuple[int, ...] = ()
    k = 0
    for channel in channels():
        if not tallies:
            order, shape = memory_order(channel), channel.shape
            low = channel.transpose(order).flatten()
            high = low.copy()
            tallies = [_Tally(draw, channel.size, n_classes, squared) for draw in draws]
        weights = [tally.draw(k) for tally in tallies]
        flat = channel.transpose(order).ravel()
        for (where,) in blocks(flat.shape, _BLOCK):
            z = flat[where].astype(np.float64)
            if not np.isfinite(z).all():
                raise NotFiniteError(f"{np.count_nonzero(~np.isfinite(z)):,}")
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
    kept = np.ones(shape, dtype=bool) if ignored is None else ~ignored
    return Signs(
        [_from_memory(tally.negative, order, shape) for tally in tallies],
        _from_memory(low == high, order, shape),
        kept,
    )


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
