"""Distances in mm between the boundaries of two masks: what the Hausdorff distance is made of.

A boundary voxel is a voxel of the mask with at least one face neighbour that is not of the mask. Outside the
volume counts as not of the mask; an axis of one voxel has no neighbours; an ignored voxel is never such a
neighbour. Distances run from voxel centre to voxel centre, and are the same to the last bit whether a k-d tree
or a distance transform finds them (`rwtool.metrics.lattice`): otherwise rounding would break ties of methods.

Nothing here holds a whole mask: boundaries are found block by block, as often as they are needed. That is
much cheaper than the distances and keeps the memory small.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rwtool.blocks import blocks
from rwtool.maps.core import RELATIVE_ERROR, chosen_core, core_for
from rwtool.maps.distances import distance_to_class
from rwtool.metrics.lattice import Candidates, Lattice, find_lattice

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

Labels = NDArray[np.integer[Any]]
Box = tuple[slice, ...]
Spacing = tuple[float, float, float]
_Chosen = tuple[Box, NDArray[np.bool_]]  # a block, and which of its voxels are meant
_Codes = Callable[[Box], Iterator[tuple[Box, NDArray[np.uint8]]]]  # of a box: its blocks, and the codes in each

REFERENCE, PREDICTION = 1, 2  # bits of a boundary code: of which boundary (1 | 2 is of both) a voxel is

TOLERANCE_SLACK = 1e-6  # a float32 spacing of 0.8 is 0.80000001 mm, and must count as within 0.8 mm
_TREE_STARTS = 2**16  # lookups whose offsets are in memory at once
_BLOCK = 2**16, 2**18  # voxels: what a block may have in any volume, and at most


@dataclass(frozen=True)
class Pair:
    """One class of two label arrays on one grid, and where it lies.

    Attributes
    ----------
    reference, prediction : (Z, Y, X) integer array
        Fastest in C order.
    label : int
        The value of the class in both.
    box : tuple of 3 slices
        Holds every voxel of the class in either array that is not ignored.
    spacing_mm : (z, y, x) float
        Voxel size in mm.
    ignore : int, optional
        Voxels of this value in the reference belong to neither mask.
    """

    reference: Labels
    prediction: Labels
    label: int
    box: Box
    spacing_mm: Spacing
    ignore: int | None = None


@dataclass(frozen=True)
class DirectedDistances:
    """Distances from each boundary voxel of one mask to the nearest of the other, as a sorted tally.

    Attributes
    ----------
    values_mm : (n,) float64 array
        The distances that occur, ascending.
    counts : (n,) int64 array
        How many boundary voxels have each.
    """

    values_mm: NDArray[np.float64]
    counts: NDArray[np.int64]

    @classmethod
    def tally(cls, values_mm: NDArray[Any], counts: NDArray[np.int64] | None = None) -> DirectedDistances:
        """Sort distances in any order, each occurring once or `counts` times."""
        values, place, times = np.unique(values_mm, return_inverse=True, return_counts=True)
        if counts is not None:
            times = np.zeros(values.size, np.int64)
            np.add.at(times, place, counts)
        return cls(values.astype(np.float64), times.astype(np.int64))

    @property
    def size(self) -> int:
        """Number of boundary voxels."""
        return int(self.counts.sum())

    def max_mm(self) -> float:
        """Largest distance."""
        return float(self.values_mm[-1])

    def mean_mm(self) -> float:
        """Mean distance."""
        return float(self.values_mm @ self.counts) / self.size

    def percentile_mm(self, percent: float) -> float:
        """Percentile with linear interpolation, as `numpy.percentile` of the distances one by one."""
        rank = (self.size - 1) * percent / 100
        last = np.cumsum(self.counts) - 1  # the rank of the last voxel with each value
        low, high = self.values_mm[np.searchsorted(last, [int(rank), min(int(rank) + 1, self.size - 1)])]
        return float(low + (high - low) * (rank - int(rank)))

    def within(self, tolerance_mm: float) -> int:
        """Count the boundary voxels no farther than `tolerance_mm`, plus 1e-6 of it."""
        limit = tolerance_mm * (1 + TOLERANCE_SLACK)
        return int(self.counts[: np.searchsorted(self.values_mm, limit, side="right")].sum())

    def pooled(self, other: DirectedDistances) -> DirectedDistances:
        """Both directions together."""
        return DirectedDistances.tally(
            np.concatenate([self.values_mm, other.values_mm]), np.concatenate([self.counts, other.counts])
        )


def surface_distances(pair: Pair, threads: int = 1) -> tuple[DirectedDistances, DirectedDistances] | None:
    """Measure from the reference's boundary to the prediction's and back.

    Parameters
    ----------
    pair : Pair
        The two masks.
    threads : int
        Threads for the distances of this pair.

    Returns
    -------
    tuple of 2 DirectedDistances, or None
        None where either mask has no boundary voxel, so that no distance is defined.
    """
    boundary = None
    if not _is_small(pair.box) or chosen_core() != "native":
        boundary = _boundary_voxels(pair, most=tree_limit(_voxels(pair.box), pair.reference.size))

    found: list[DirectedDistances | None] = [None, None]
    ways = (REFERENCE, PREDICTION), (PREDICTION, REFERENCE)
    far = boundary is not None  # where the tree was tried and left, distances are long
    if boundary is not None:
        if not all(np.any(boundary.codes & bit) for bit in (REFERENCE, PREDICTION)):
            return None
        found = [_by_tree(pair, boundary, way, threads) for way in ways]
        del boundary  # its memory is wanted for the transform
    codes = _held_codes(pair) if None in found and _is_small(pair.box) else _found_codes(pair)
    forth, back = (
        _by_transform(pair, codes, way, threads, far) if tally is None else tally
        for tally, way in zip(found, ways, strict=True)
    )
    return None if forth is None or back is None else (forth, back)


def _is_small(box: Box) -> bool:
    """Whether a box is measured in one piece; in C, that takes no longer than a tree, which is to be imported too."""
    return _voxels(box) <= _BLOCK[1]


def tree_limit(n_box: int, n_volume: int) -> int:
    """Most boundary voxels, of both masks together, for which to try the k-d tree before `edt` of their box.

    The tree takes 1 to 2 microseconds per boundary voxel, `edt` about 0.15 per voxel of the box and direction
    (0.6 in small boxes). Box voxels per boundary voxel, and time of the tree over that of `edt`:

    ======================================  ====  ============
    kidney, warped by 2 voxels (KiTS19)       19          0.30
    kidney, shifted by 5 voxels               15          0.65
    ball of 2 million voxels, warped          24          0.27
    ball of 0.3 million voxels, warped        12          0.29
    vertebrae, real prediction             10-31  0.07 to 0.14
    hippocampus, warped, 3 to 12 thousand    4-9  0.13 to 0.33
    random blobs, 0.4 million voxels           5           1.1
    random blobs, 3 million voxels             5           2.2
    random voxels, 3 million                 1.3             6
    ======================================  ====  ============

    The tree takes about 60 bytes per boundary voxel: the share of the volume bounds its memory.
    """
    return max(min(n_box // 6, n_volume // 16), 3000)


def tree_is_slow(tree: cKDTree, starts: NDArray[np.float64], spacing: Sequence[float], n_box: int) -> bool:
    """Tell whether lookups in a tree would take longer than `edt`: too many points are nearly nearest.

    From the middle of a ball every voxel of its surface is about as far, and a lookup visits them all: 0.5 ms
    each in a ball of 64,000 boundary voxels, 500 times the usual. With m the number of points less than two
    voxels farther than the nearest, 1 + (m / 100)**2 microseconds fits the measured lookups within a factor
    of 5, from m = 30 (a warped boundary) to m = 5000.
    """
    sample = starts[:: max(1, len(starts) // 32)]
    reach = tree.query(sample)[0] + 2 * np.mean(spacing)
    crowd = np.mean(tree.query_ball_point(sample, reach, return_length=True))
    return bool(len(starts) * (1 + (crowd / 100) ** 2) > max(0.2 * n_box, 3000))


def cached_blocks(box: Box, n_volume: int) -> Iterator[Box]:
    """Cut a box into blocks small enough for the cache and for the memory bound.

    Temporary arrays of a block take about 20 bytes per voxel of it, hence at most 1/32 of a large volume.
    """
    limit = min(_BLOCK[1], max(_BLOCK[0], n_volume // 32))
    return blocks([s.stop - s.start for s in box], limit, start=[s.start for s in box])


def _boundary_codes(pair: Pair) -> Iterator[tuple[Box, NDArray[np.uint8]]]:
    """Yield blocks of the box and in each, per voxel, on which of the two boundaries it is."""
    shape = pair.reference.shape
    for block in cached_blocks(pair.box, pair.reference.size):
        halo = tuple(slice(max(s.start - 1, 0), min(s.stop + 1, n)) for s, n in zip(block, shape, strict=True))
        inside = tuple(slice(s.start - h.start, s.stop - h.start) for s, h in zip(block, halo, strict=True))
        reference = pair.reference[halo]
        ignored = None if pair.ignore is None else reference == pair.ignore
        masks = reference == pair.label, pair.prediction[halo] == pair.label
        codes = np.zeros([s.stop - s.start for s in block], np.uint8)
        for mask, bit in zip(masks, (REFERENCE, PREDICTION), strict=True):
            if mask.any():
                codes += _boundary(mask, ignored, shape)[inside].view(np.uint8) * np.uint8(bit)
        yield block, codes


def _found_codes(pair: Pair) -> _Codes:
    """Boundary codes of any box within the pair's, found as often as they are asked for."""
    return lambda box: _boundary_codes(replace(pair, box=box))


def _held_codes(pair: Pair) -> _Codes:
    """Boundary codes of any box within the pair's, found once: a byte per voxel."""
    held = np.empty([s.stop - s.start for s in pair.box], np.uint8)
    for block, codes in _boundary_codes(pair):
        held[_within(pair.box, block)] = codes
    return lambda box: iter([(box, held[_within(pair.box, box)])])


def _within(box: Box, block: Box) -> Box:
    """Place of a block in a box."""
    return tuple(slice(s.start - b.start, s.stop - b.start) for s, b in zip(block, box, strict=True))


def _boundary(mask: NDArray[np.bool_], ignored: NDArray[np.bool_] | None, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Find the boundary voxels of a part of a volume of `shape`, taking its ends for the volume's edges."""
    if ignored is None:
        solid = mask
    else:
        solid = mask | ignored
        mask = mask & ~ignored
    interior = solid.copy()
    for axis, n in enumerate(shape):
        if n > 1:
            inner, outer = np.moveaxis(interior, axis, 0), np.moveaxis(solid, axis, 0)
            inner[1:] &= outer[:-1]
            inner[:-1] &= outer[1:]
            inner[0] = inner[-1] = False
    boundary: NDArray[np.bool_] = mask & ~interior
    return boundary


class _Boundary(NamedTuple):
    """Boundary voxels of both masks: (n, 3) positions in the box and (n,) codes."""

    places: NDArray[np.int32]
    codes: NDArray[np.uint8]


def _boundary_voxels(pair: Pair, most: int) -> _Boundary | None:
    """List the boundary voxels; None if there are more than `most`."""
    shape = [s.stop - s.start for s in pair.box]
    flat, codes_there, n = [], [], 0
    for block, codes in _boundary_codes(pair):
        found = np.flatnonzero(codes != 0)  # of bool, several times faster than of uint8
        n += found.size
        if n > most:
            return None
        z, y = (s.start - b.start for s, b in zip(block[:2], pair.box[:2], strict=True))
        flat.append(found + (z * shape[1] + y) * shape[2])  # a block is contiguous in the box
        codes_there.append(codes.ravel()[found])
    places = np.stack(np.unravel_index(np.concatenate(flat), shape), axis=1, dtype=np.int32, casting="same_kind")
    return _Boundary(places, np.concatenate(codes_there))


def _by_tree(pair: Pair, boundary: _Boundary, way: tuple[int, int], threads: int) -> DirectedDistances | None:
    """Measure with a k-d tree of the target's boundary, unless that is slow: then None.

    A voxel on both boundaries is at 0 and is not looked up.
    """
    (source, target), (places, codes), lattice = way, boundary, find_lattice(pair.spacing_mm)
    distances = np.zeros(np.count_nonzero(codes & source), np.float64)
    starts = places[codes == source] * np.asarray(lattice.steps, np.float64)  # in units of the lattice: whole numbers
    if len(starts):
        ends = places[codes & target > 0] * np.asarray(lattice.steps, np.float64)
        from scipy.spatial import cKDTree

        tree = cKDTree(ends, leafsize=32, compact_nodes=False, balanced_tree=False)
        if tree_is_slow(tree, starts, lattice.steps, _voxels(pair.box)):
            return None
        for first in range(0, len(starts), _TREE_STARTS):
            some = starts[first : first + _TREE_STARTS]
            nearest = tree.query(some, workers=threads)[1]
            distances[first : first + len(some)] = lattice.length_mm(ends[nearest] - some)
    return DirectedDistances.tally(distances)


def _by_transform(pair: Pair, codes: _Codes, way: tuple[int, int], threads: int, far: bool) -> DirectedDistances | None:
    """Measure with distance transforms of the box; None without a boundary to measure to.

    A transform takes 5 bytes per voxel. Unless distances are known to be `far`, a box of more than half the
    volume is measured in two parts, each with a margin that grows until no distance found is longer than it:
    all that lies beyond is farther.
    """
    sides = [s.stop - s.start for s in pair.box]
    axis = int(np.argmax(sides))
    whole, n = pair.box[axis], sides[axis]
    parts = [whole]
    if not far and not _is_small(pair.box) and 2 * _voxels(pair.box) > pair.reference.size:
        middle = whole.start + n // 2
        parts = [slice(whole.start, middle), slice(middle, whole.stop)]
    tallies = []
    for part in parts:
        margin, found = n // 8 + 1, None
        while found is None:
            window = slice(max(part.start - margin, whole.start), min(part.stop + margin, whole.stop))
            found = _transform_part(pair, codes, way, threads, (axis, part, window))
            if window == whole:
                break
            if (
                found is not None
                and found.size
                and found.max_mm() > margin * find_lattice(pair.spacing_mm).spacing_mm[axis]
            ):
                found = None
            margin *= 4
        if found is None:
            return None
        tallies.append(found)
    return tallies[0] if len(tallies) == 1 else tallies[0].pooled(tallies[1])


def _transform_part(
    pair: Pair, codes: _Codes, way: tuple[int, int], threads: int, cut: tuple[int, slice, slice]
) -> DirectedDistances | None:
    """Measure from the boundary within a part of an axis to the boundary within a wider window of it."""
    (source, target), (axis, part, window) = way, cut
    box, narrow = ((*pair.box[:axis], to, *pair.box[axis + 1 :]) for to in (window, part))
    free = np.empty([s.stop - s.start for s in box], np.bool_)
    for block, found in codes(box):
        free[_within(box, block)] = found & target == 0
    if free.all():  # there is nothing to measure to
        return None
    lattice = find_lattice(pair.spacing_mm)
    distances = distance_to_class(free.view(np.uint8), 0, lattice.spacing_mm, threads=threads)
    del free

    def sources() -> Iterator[_Chosen]:
        return ((_within(box, block), found & source > 0) for block, found in codes(narrow))

    tallies = [np.unique(distances[block][chosen], return_counts=True) for block, chosen in sources()]
    rough = DirectedDistances.tally(*(np.concatenate(each) for each in zip(*tallies, strict=True)))
    return _settled(rough, distances, sources, lattice)


def _settled(
    rough: DirectedDistances,
    distances: NDArray[np.float32],
    sources: Callable[[], Iterator[_Chosen]],
    lattice: Lattice,
) -> DirectedDistances:
    """Turn the float32 distances of voxels into those that they stand for.

    Parameters
    ----------
    rough : DirectedDistances
        Of the voxels.
    distances : (Z, Y, X) float32 array
        As a transform gives them: 0 at the targets.
    sources : callable
        Gives the blocks of `distances`, and which voxels of each are meant.
    lattice : Lattice
    """
    error = RELATIVE_ERROR[core_for(distances.shape)]
    exact = lattice.settle(rough.values_mm, error)
    if exact is not None:
        return DirectedDistances.tally(exact, rough.counts)
    values, far = rough.values_mm.copy(), rough.values_mm > 0
    candidates = Candidates(values[far], distances.shape, lattice, error)
    values[far] = candidates.mm
    sure = ~np.isin(rough.values_mm, candidates.unsure)
    found, counts = [values[sure]], [rough.counts[sure]]
    for block, chosen in sources() if candidates.unsure.size else ():
        here = distances[block][chosen].astype(np.float64)
        unsure = np.isin(here, candidates.unsure)
        places = np.argwhere(chosen)[unsure] + [s.start for s in block]
        here = here[unsure]
        for one in np.unique(here):
            found.append(candidates.settle(float(one), places[here == one], distances))
            counts.append(np.ones(len(found[-1]), np.int64))
    return DirectedDistances.tally(np.concatenate(found), np.concatenate(counts))


def _voxels(box: Box) -> int:
    """Count the voxels of a box."""
    return math.prod(s.stop - s.start for s in box)
