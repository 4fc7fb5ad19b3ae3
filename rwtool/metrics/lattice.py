"""Distances between voxel centres of one grid: the same number, to the last bit, by whatever way they are found.

The spacings of a grid are taken for whole multiples of one unit, as they are for people: 3.0 and 0.6 mm are 5 and 1
times 0.6 mm, also where a float32 header says 0.60000002. The square of a distance is then a whole number of squared
units, and two distances that are equal in truth are equal as numbers: 3, 4, 0 voxels away and 5, 0, 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rwtool.blocks import blocks

SAME_SPACING = 2e-7  # relative: what rounding to float32 leaves of equal spacings, and of the columns of an affine
_TOLD = 0.25  # of the way from one whole square to the next: what is nearer to it stands for no other
_MOST_STEPS = 2**20  # of one voxel: squares of distances then fit in 64 bits for 2,000 voxels an axis
_MOST_PARTS = 2**12, 2**16  # of the smallest spacing: tried first, and at most
_BLOCK = 2**15  # offsets looked at together: 1 MB
_SIGNS = np.array(list(product((1, -1), repeat=3)))

Floats = NDArray[np.float64]


class Lattice(NamedTuple):
    """A grid of voxels: its spacing is `steps` times `unit_mm`, along (z, y, x)."""

    steps: tuple[int, int, int]
    unit_mm: float

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size in mm: what was given, to the precision that `find_lattice` names."""
        z, y, x = self.steps
        return z * self.unit_mm, y * self.unit_mm, x * self.unit_mm

    def length_mm(self, offsets: NDArray[Any]) -> Floats:
        """Length of (..., 3) offsets that are counted in units: each squared sum is a whole number."""
        whole = offsets.astype(np.int64)
        whole *= whole
        length: Floats = np.sqrt(whole.sum(axis=-1).astype(np.float64)) * self.unit_mm
        return length

    def settle(self, rough_mm: Floats, error: float) -> Floats | None:
        """Find the distances that ascending float32 ones stand for, where whole squares are far enough apart to tell.

        `error` is the relative one of the float32 distances, at most.

        Examples
        --------
        >>> Lattice((2, 1, 1), 0.5).settle(np.array([0.0, 1.118034, 2.5]), 1e-6)
        array([0.        , 1.11803399, 2.5       ])
        """
        squares = (rough_mm / self.unit_mm) ** 2
        if rough_mm.size and squares[-1] * 2 * error > _TOLD:
            return None
        exact: Floats = np.sqrt(np.rint(squares)) * self.unit_mm
        return exact


@lru_cache(maxsize=128)
def find_lattice(spacing_mm: tuple[float, float, float]) -> Lattice:
    """Find the unit of which the spacings are whole multiples.

    The smallest spacing is cut into the fewest parts that make all of them so within 2e-7; where none of up to 65,536
    (fewer where the largest would have over 2**20) does, into those that come closest, within 2e-5 where the largest
    is no more than eight times the smallest. The largest keeps its value.

    Parameters
    ----------
    spacing_mm : (z, y, x) float

    Returns
    -------
    Lattice

    Examples
    --------
    >>> find_lattice((2.5, 0.699999988079071, 0.699999988079071))
    Lattice(steps=(25, 7, 7), unit_mm=0.1)
    """
    ratios = np.asarray(spacing_mm) / min(spacing_mm)
    for most in _MOST_PARTS:
        exact = ratios * np.arange(1, int(np.clip(_MOST_STEPS / ratios.max(), 1, most)) + 1)[:, None]
        off = np.abs(np.rint(exact) / exact - 1).max(axis=1)
        if off.min() <= SAME_SPACING:
            break
    parts = int(np.argmax(off <= SAME_SPACING)) if off.min() <= SAME_SPACING else int(np.argmin(off))
    z, y, x = (int(step) for step in np.rint(exact[parts]))
    return Lattice((z, y, x), max(spacing_mm) / max(z, y, x))


class Candidates:
    """Which distances of a grid a float32 distance may stand for.

    Parameters
    ----------
    rough_mm : (n,) float64 array
        Float32 distances, ascending, none of them 0.
    shape : 3 int
        No offset reaches as far as this many voxels.
    lattice : Lattice
    error : float
        Relative, of the float32 distances, at most.
    """

    def __init__(self, rough_mm: Floats, shape: tuple[int, ...], lattice: Lattice, error: float) -> None:
        self._lattice, self._error = lattice, error
        self._rough = rough_mm
        steps = lattice.spacing_mm
        reach = 0.0 if not rough_mm.size else rough_mm[-1] * (1 + error)
        self._shape = [min(n, int(reach / mm) + 2) for n, mm in zip(shape, steps, strict=True)]
        found = [np.unique(mm) for _, mm in self._near(rough_mm)]
        possible = np.unique(np.concatenate([*found, np.empty(0)]))
        first = np.searchsorted(possible, rough_mm * (1 - error))
        last = np.searchsorted(possible, rough_mm * (1 + error), side="right")
        self.mm: Floats = possible[first] if rough_mm.size else possible
        """(n,): the least distance that each may stand for."""
        self.unsure = rough_mm[last - first > 1]
        """Those that may stand for several."""
        offsets = [near for near, _ in self._near(self.unsure)]
        self._offsets = np.concatenate([*offsets, np.empty((0, 3), np.int32)])
        self._lengths = lattice.length_mm(self._offsets * np.asarray(lattice.steps))

    def _near(self, rough_mm: Floats) -> Iterator[tuple[NDArray[np.int32], Floats]]:
        """Yield the offsets, none negative, that are as long as some of these distances, and their lengths."""
        if not rough_mm.size:
            return
        for block in blocks(self._shape, _BLOCK):
            axes = [np.arange(s.start, s.stop, dtype=np.int64) for s in block]
            squares = [(axis * step) ** 2 for axis, step in zip(axes, self._lattice.steps, strict=True)]
            whole = squares[0][:, None, None] + squares[1][:, None] + squares[2]
            mm = np.sqrt(whole.astype(np.float64)) * self._lattice.unit_mm
            above = np.searchsorted(rough_mm, mm)
            near = mm >= rough_mm[np.minimum(above, len(rough_mm) - 1)] * (1 - self._error)
            near &= above < len(rough_mm)
            near |= (above > 0) & (mm <= rough_mm[above - 1] * (1 + self._error))
            places = np.stack(np.nonzero(near), axis=1).astype(np.int32)
            yield places + np.array([s.start for s in block], np.int32), mm[near]

    def settle(self, rough_mm: float, starts: NDArray[np.intp], distances: NDArray[np.float32]) -> Floats:
        """Find which distance it is, by looking where the targets lie.

        Parameters
        ----------
        rough_mm : float
            One of `unsure`.
        starts : (m, 3) int array
            Voxels with this distance.
        distances : (Z, Y, X) float32 array
            0 at the targets.

        Returns
        -------
        (m,) float64 array
        """
        low, high = rough_mm * (1 - self._error), rough_mm * (1 + self._error)
        near = np.flatnonzero((self._lengths >= low) & (self._lengths <= high))
        near = near[np.argsort(self._lengths[near], kind="stable")]
        ways = (self._offsets[near, None] * _SIGNS).reshape(-1, 3)  # the shortest first
        lengths = np.repeat(self._lengths[near], len(_SIGNS))
        answer = np.empty(len(starts))
        step = max(1, _BLOCK // (4 * len(ways)))
        for first in range(0, len(starts), step):
            ends = starts[first : first + step, None] + ways
            hit = ((ends >= 0) & (ends < distances.shape)).all(axis=-1)
            hit[hit] = distances[tuple(ends[hit].T)] == 0
            hit[:, -1] |= ~hit.any(axis=1)  # what fits none of the others has the longest
            answer[first : first + step] = lengths[hit.argmax(axis=1)]
        return answer
