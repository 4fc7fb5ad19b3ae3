"""Euclidean distances between voxel centres, from a label array to its classes.

Every distance is to the centre of a voxel that exists: the edge of the volume is no boundary, and where there
is nothing to measure to, the distance is ``inf``. All functions take a required spacing: in mm for mm, ``(1, 1,
1)`` for voxels. `dims` 2 measures slice by slice across z. Voxels of the value `ignore` belong to no class: they
are no target, and their own distance is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rwtool.errors import UsageError
from rwtool.maps.core import core_for

Labels = NDArray[Any]
Distances = NDArray[np.float32]
Regions = Literal["all", "both", "to"]
"""What distances lead to: from each label to any other, from a label to all others and back, or to a label."""


def distance_to_other_class(
    labels: Labels,
    spacing_mm: Sequence[float],
    *,
    dims: int = 3,
    ignore: int | None = None,
    threads: int = 1,
) -> Distances:
    """Distance from every voxel to the nearest voxel of any other class, ``d_out``.

    One multi-label pass serves all classes; where there are ignored voxels, one pass per class.

    Parameters
    ----------
    labels : (Z, Y, X) unsigned integer array
    spacing_mm : (3,) float
        Along ``(z, y, x)``.
    dims : {3, 2}
    ignore : int, optional
    threads : int

    Returns
    -------
    (Z, Y, X) float32 array
        In mm; ``inf`` where the volume (or slice) holds no other class; never 0 but at ignored voxels.
    """
    if ignore is None or not (labels == ignore).any():
        return _transform(labels, spacing_mm, dims, threads)
    ignored = labels == ignore
    result = np.zeros_like(labels, dtype=np.float32)
    for k in _classes_of(labels, ignore):
        inside = labels == k
        solid = (inside | ignored).view(np.uint8)
        np.copyto(result, _transform(solid, spacing_mm, dims, threads, "to", 0), where=inside)
    return result


def distance_to_inner_boundary(
    labels: Labels,
    spacing_mm: Sequence[float],
    *,
    dims: int = 3,
    ignore: int | None = None,
    threads: int = 1,
) -> Distances:
    """Distance from every voxel to the nearest boundary voxel of its own class: Eq. 3, taken literally.

    Parameters, and what is returned, are those of :func:`distance_to_other_class`, but that boundary voxels are 0,
    and a class without a boundary is ``inf``.
    """
    edges = boundary_voxels(labels, dims=dims, ignore=ignore)
    if ignore is None or not (labels == ignore).any():
        # The nearest boundary voxel of all is always one of the voxel's own class: on the way from a voxel to one of
        # another class, face by face and ever farther, the last of its own comes first.
        return _transform(edges.view(np.uint8), spacing_mm, dims, threads, "to", 1)
    result = np.zeros_like(labels, dtype=np.float32)
    for k in _classes_of(labels, ignore):
        inside = labels == k
        own = (edges & inside).view(np.uint8)
        np.copyto(result, _transform(own, spacing_mm, dims, threads, "to", 1), where=inside)
    return result


def distance_to_class(
    labels: Labels, k: int, spacing_mm: Sequence[float], *, dims: int = 3, threads: int = 1
) -> Distances:
    """Distance from every voxel to the nearest voxel of class `k`, ``d_k``.

    Parameters are those of :func:`distance_to_other_class`.

    Returns
    -------
    (Z, Y, X) float32 array
        In mm; 0 inside the class; ``inf`` where the volume (or slice) does not hold it.
    """
    return _transform(labels, spacing_mm, dims, threads, "to", k)


def signed_distance(
    labels: Labels, k: int, spacing_mm: Sequence[float], *, dims: int = 3, threads: int = 1
) -> Distances:
    """``d_k`` outside class `k` and ``-d_out`` inside, from one pass over the two regions together.

    Parameters are those of :func:`distance_to_other_class`; there must be no ignored voxels.

    Returns
    -------
    (Z, Y, X) float32 array
        In mm; ``inf`` or ``-inf`` where the volume (or slice) does not hold the class, or holds nothing else.
    """
    distance = _transform(labels, spacing_mm, dims, threads, "both", k)
    return np.negative(distance, out=distance, where=labels == k)


def boundary_voxels(labels: Labels, *, dims: int = 3, ignore: int | None = None) -> NDArray[np.bool_]:
    """Mark the voxels with a face neighbour, inside the volume, of another class.

    Parameters
    ----------
    labels : (Z, Y, X) integer array
    dims : {3, 2}
        2 looks at neighbours in the slice only.
    ignore : int, optional
        Ignored voxels are no boundary and make none.

    Returns
    -------
    (Z, Y, X) bool array
    """
    edges = np.zeros_like(labels, dtype=bool)
    for axis in range(3 - dims, 3):
        turned, marked = np.moveaxis(labels, axis, 0), np.moveaxis(edges, axis, 0)
        differ = turned[1:] != turned[:-1]
        if ignore is not None:
            differ &= (turned[1:] != ignore) & (turned[:-1] != ignore)
        marked[1:] |= differ
        marked[:-1] |= differ
    return edges


def _transform(
    labels: Labels, spacing: Sequence[float], dims: int, threads: int, regions: Regions = "all", value: int = 0
) -> Distances:
    """Distance from each voxel to the nearest of another region, or to label `value`, in the memory order of labels."""
    if dims not in (2, 3):
        raise UsageError(f"dims is 3 (in the volume) or 2 (slice by slice); found {dims}")
    if len(spacing) != 3 or not all(0 < step < np.inf for step in spacing):
        raise UsageError(f"a spacing is three positive numbers (z, y, x); found {tuple(spacing)}")
    limits = np.iinfo(labels.dtype)
    if not limits.min <= value <= limits.max:  # no voxel has it
        return np.full_like(labels, np.inf, dtype=np.float32)
    measure = _by_native if core_for(labels.shape) == "native" else _by_edt
    if dims == 2:
        distance = np.empty_like(labels, dtype=np.float32)
        for z in range(labels.shape[0]):
            plane = _stored(labels[z : z + 1])
            distance[z] = measure(plane, spacing, threads, regions, value)[0]
        return distance
    order = np.argsort(labels.strides, kind="stable")[::-1]
    along = [float(spacing[axis]) for axis in order]
    result = measure(_stored(labels.transpose(order)), along, threads, regions, value)
    return result.transpose(np.argsort(order))


def _stored(labels: Labels) -> Labels:
    """Labels as both cores read them; no copy unless the array has gaps or a foreign byte order."""
    return np.require(labels, labels.dtype.newbyteorder("="), ["C", "A"])


def _by_native(labels: Labels, spacing: Sequence[float], threads: int, regions: Regions, value: int) -> Distances:
    from rwtool.maps import _native

    distance = np.empty(labels.shape, np.float32)
    kind = ("all", "both", "to").index(regions)
    bits = value & (1 << 8 * labels.itemsize) - 1  # of a negative value too
    _native.transform(labels, distance, tuple(spacing), kind, bits, threads)
    return distance


def _by_edt(labels: Labels, spacing: Sequence[float], threads: int, regions: Regions, value: int) -> Distances:
    import edt

    if regions == "to":  # its 0 is at distance 0
        mask = value == 0 and labels.dtype == np.uint8 and labels.max(initial=0) <= 1
        numbered = labels if mask else (labels != value).view(np.uint8)
    else:
        numbered = _plus_one(labels if regions == "all" else (labels == value).view(np.uint8))
    if numbered.dtype == np.uint8:
        numbered = numbered.view(_Uncopied)
    return edt.edt(numbered, anisotropy=tuple(spacing), black_border=False, parallel=threads)


class _Uncopied(np.ndarray[Any, np.dtype[np.uint8]]):
    """Bytes that `edt` reads in place. It asks for a copy it does not need: one byte per voxel too many."""

    def astype(self, *_: Any, **__: Any) -> _Uncopied:  # type: ignore[override]
        return self


def _plus_one(labels: Labels) -> Labels:
    """Labels from 1 up: `edt` takes 0 for a background without distances, and 255 must not wrap to 0."""
    top = int(np.iinfo(labels.dtype).max)
    wide = labels if labels.dtype.kind == "u" and int(labels.max(initial=0)) < top else None
    return labels + np.ones(1, labels.dtype) if wide is not None else labels.astype(np.uint32) + np.uint32(1)


def _classes_of(labels: Labels, ignore: int) -> list[int]:
    return [int(k) for k in np.unique(labels) if k != ignore]
