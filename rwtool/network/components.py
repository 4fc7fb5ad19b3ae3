"""Pieces of a segmentation that do not touch: of each class the largest is kept."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_TOUCHING = np.ones((3, 3, 3), dtype=bool)  # voxels that share a face, an edge or a corner: 26 neighbours


def keep_largest(labels: NDArray[Any]) -> NDArray[Any]:
    """Make background of all but the largest piece of each class, in 3D.

    Parameters
    ----------
    labels : (Z, Y, X) integer array
        Class indices, 0 the background.

    Returns
    -------
    (Z, Y, X) integer array
        Of the same type. Voxels that share a face, an edge or a corner belong together, whatever their spacing; the
        size is their number. Of pieces of one size the one that comes first in the order of z, y and x is kept.

    Examples
    --------
    >>> keep_largest(np.array([[[1, 0, 1, 1, 0, 2, 0, 2]]])).tolist()
    [[[0, 0, 1, 1, 0, 2, 0, 0]]]
    """
    kept = labels.copy()
    for k, box in enumerate(ndimage.find_objects(labels), 1):
        if box is None:  # the class is absent
            continue
        pieces, number = ndimage.label(labels[box] == k, structure=_TOUCHING)
        if number > 1:
            sizes = np.bincount(pieces.ravel())
            largest = 1 + int(np.argmax(sizes[1:]))  # pieces are numbered as they come
            inside = kept[box]
            inside[(pieces != 0) & (pieces != largest)] = 0
    return kept
