"""How the classes of two label arrays overlap, and where each class lies."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rwtool.errors import VolumeError
from rwtool.metrics.surface import Box, Labels, cached_blocks


def joint_counts(
    reference: Labels, prediction: Labels, n_classes: int, ignore: int | None
) -> tuple[NDArray[np.int64], dict[int, Box]]:
    """Count the voxels of each pair of classes and find the box of each class, in one pass.

    Parameters
    ----------
    reference, prediction : (Z, Y, X) integer array
        Class values 0..n_classes-1; fastest in C order.
    n_classes : int
        K.
    ignore : int or None
        Voxels with this value in the reference are left out.

    Returns
    -------
    joint : (K, K) int64 array
        Voxels of each reference class (row) and predicted class (column), without ignored ones. An ignored
        background is not left out of its own count, which nothing reads then.
    boxes : dict of class to box
        Around the voxels of the class in both arrays that are not ignored; the whole volume for the background.

    Raises
    ------
    VolumeError
        A value that is no class.
    """
    joint = np.zeros((n_classes, n_classes), np.int64)
    boxes: dict[int, Box] = {0: tuple(slice(0, n) for n in reference.shape)}
    for block in cached_blocks(boxes[0], reference.size):
        a, b = reference[block], prediction[block]
        crop = _extent((a != 0) | (b != 0))
        joint[0, 0] += a.size - (0 if crop is None else a[crop].size)  # elsewhere both are background
        if crop is None:
            continue
        a, b = a[crop], b[crop]
        known = np.s_[:] if ignore is None else a != ignore
        rows, columns = a[known].ravel(), b[known].ravel()
        if rows.size and (min(rows.min(), columns.min()) < 0 or max(rows.max(), columns.max()) >= n_classes):
            _refuse_unknown(reference, prediction, n_classes, ignore)
        pairs = rows.astype(np.intp)
        pairs *= n_classes
        pairs += columns.astype(np.intp, copy=False)  # uint64 and int64 would meet in float64
        found = np.bincount(pairs, minlength=n_classes**2).reshape(joint.shape)
        joint += found
        for c in (np.flatnonzero(found.sum(axis=0) + found.sum(axis=1))).tolist():
            extent = _extent((a == c) | (b == c)) if c else None
            if extent is not None:
                parts = zip(extent, block, crop, strict=True)
                placed = tuple(slice(e.start + s.start + k.start, e.stop + s.start + k.start) for e, s, k in parts)
                boxes[c] = _union(boxes[c], placed) if c in boxes else placed
    return joint, boxes


def _extent(mask: NDArray[np.bool_]) -> Box | None:
    """Find the smallest box around a mask."""
    box = []
    for axis in range(mask.ndim):
        seen = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        if not seen.size:
            return None
        box.append(slice(int(seen[0]), int(seen[-1]) + 1))
    return tuple(box)


def _union(one: Box, other: Box) -> Box:
    """Find the smallest box around two boxes."""
    return tuple(slice(min(s.start, t.start), max(s.stop, t.stop)) for s, t in zip(one, other, strict=True))


def _refuse_unknown(reference: Labels, prediction: Labels, n_classes: int, ignore: int | None) -> None:
    """Name the first value that is no class, and how many voxels hold it."""
    for name, labels in (("reference", reference), ("prediction", prediction)):
        counts: dict[int, int] = {}
        for z, part in enumerate(labels):
            known = part if ignore is None else part[reference[z] != ignore]
            for value, times in zip(*np.unique(known, return_counts=True), strict=True):
                if not 0 <= value < n_classes:
                    counts[int(value)] = counts.get(int(value), 0) + int(times)
        if counts:
            found = ", ".join(f"{value} in {times} voxels" for value, times in sorted(counts.items())[:5])
            raise VolumeError(
                f"the {name} holds values that are no class: {found}; classes are 0..{n_classes - 1}; map the "
                "values to them, or give a larger n_classes"
            )
