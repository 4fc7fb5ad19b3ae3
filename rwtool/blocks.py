"""An array in pieces, small enough for the cache."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

Block = tuple[slice, ...]

SLAB_VOXELS = 1 << 20


def blocks(
    shape: Sequence[int], voxels: int, *, axis: int | None = None, start: Sequence[int] | None = None
) -> Iterator[Block]:
    """Cut a box into pieces of at most `voxels`, each contiguous in the C order of the box.

    Parameters
    ----------
    shape : sequence of int
        Of the box.
    voxels : int
        A piece holds more only where one row of the axes that are left whole does.
    axis : int, optional
        The only axis to cut; by default the first ones, until a piece is small enough.
    start : sequence of int, optional
        First corner of the box; by default 0.

    Yields
    ------
    tuple of slices

    Examples
    --------
    >>> [(rows.start, rows.stop) for rows, _ in blocks((5, 2), 4)]
    [(0, 2), (2, 4), (4, 5)]
    >>> [(z.start, y.start) for z, y, _ in blocks((2, 2, 3), 3)]
    [(0, 0), (0, 1), (1, 0), (1, 1)]
    """
    steps = [max(1, n) for n in shape]
    for cut in range(len(steps)) if axis is None else (axis,):
        row = math.prod(steps) // steps[cut]
        steps[cut] = max(1, min(steps[cut], voxels // row))
        if math.prod(steps) <= voxels:
            break
    first = start or (0,) * len(steps)
    for corner in product(*(range(0, n, step) for n, step in zip(shape, steps, strict=True))):
        yield tuple(
            slice(at + low, min(at + step, n) + low)
            for at, step, n, low in zip(corner, steps, shape, first, strict=True)
        )


def slabs(array: NDArray[Any], axis: int | None = None) -> Iterator[Block]:
    """Cut an array into slabs of about a million voxels along one axis: by default its slowest, so in memory order."""
    slowest = max(range(array.ndim), key=lambda n: array.strides[n] * (array.shape[n] > 1))
    return blocks(array.shape, SLAB_VOXELS, axis=slowest if axis is None else axis)
