"""Slices at the spacing, and in the type, in which a network takes them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_HALF_LEAST, _HALF_MOST = 1e-4, 6e4  # below, half precision has few digits left; above, it overflows


def resampled_size(
    shape: tuple[int, ...], pixel_mm: tuple[float, ...], target_mm: tuple[float, ...]
) -> tuple[int, ...]:
    """Pixels along ``(y, x)`` that a slice has at another spacing; its edges stay where they are."""
    return tuple(max(1, round(n * mm / to)) for n, mm, to in zip(shape, pixel_mm, target_mm, strict=True))


def size_for(
    shape: tuple[int, ...],
    pixel_mm: tuple[float, ...],
    target_mm: tuple[float, ...] | None,
    pixels: tuple[int, ...] | None,
) -> tuple[int, ...]:
    """Pixels along ``(y, x)`` that a slice has for the network: so many, those of a spacing, or its own.

    >>> size_for((9, 6), (1.5, 0.8), None, (16, 16)), size_for((9, 6), (1.5, 0.8), None, None)
    ((16, 16), (9, 6))
    """
    if pixels is not None:
        return pixels
    return shape if target_mm is None else resampled_size(shape, pixel_mm, target_mm)


def resample_slices(array: NDArray[Any], size: tuple[int, ...], *, order: int) -> NDArray[Any]:
    """Resample ``(..., Y, X)`` to another size, edges kept: order 0 nearest, 1 linear."""
    if array.shape[-2:] == tuple(size):
        return array
    zoom = (*(1.0,) * (array.ndim - 2), *(m / n for m, n in zip(size, array.shape[-2:], strict=True)))
    result: NDArray[Any] = ndimage.zoom(array, zoom, order=order, mode="nearest", grid_mode=True)
    return result


def as_half(array: NDArray[np.float32]) -> NDArray[Any]:
    """Half precision, where it holds the values."""
    largest = max(float(array.max()), -float(array.min()))
    return array.astype(np.float16) if largest == 0 or _HALF_LEAST < largest < _HALF_MOST else array
