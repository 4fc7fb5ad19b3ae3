"""p-values of several tests that are read together: Westfall and Young's step-down max-T, and Holm's."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

TIE_TOLERANCE = 1e-12  # times the mean of |d|: rounding must not break a tie
_BLOCK_ELEMENTS = 2**21  # statistics in memory at once: 16 MiB of float64

Floats = NDArray[np.float64]


def holm_adjust(p: ArrayLike) -> Floats:
    """Adjust p-values by Holm's step-down method.

    Parameters
    ----------
    p : (n_tests,) float array

    Returns
    -------
    (n_tests,) float array
        In the order given; at most 1, and never smaller for a larger p.

    Examples
    --------
    >>> holm_adjust([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    raw = np.asarray(p, dtype=np.float64)
    order = np.argsort(raw, kind="stable")
    adjusted = np.empty_like(raw)
    adjusted[order] = np.maximum.accumulate(raw[order] * np.arange(len(raw), 0, -1))
    return np.minimum(adjusted, 1.0)


def step_down_maxt(d: Floats, sums: Floats, p: Floats) -> Floats:
    """Westfall-Young step-down max-T p-values of a family.

    The statistic abs(sum(d)) / sqrt(sum(d**2)) has no unit and orders flips as Student's t does.

    Parameters
    ----------
    d : (n_subjects, n_members) float array
        Undefined differences are 0, and so do not count.
    sums : (n_flips, n_members) float array
        Sum of each column of `d` under each flip of signs, row 0 the identity.
    p : (n_members,) float array
        Unadjusted. An adjusted p is never smaller, even where only the unadjusted one is exact.

    Returns
    -------
    (n_members,) float array
    """
    norm = np.sqrt((d**2).sum(axis=0))
    norm[norm == 0] = 1.0  # all differences 0: the statistic is 0 under every flip, and p is 1
    observed = np.abs(sums[0]) / norm
    order = np.argsort(-observed, kind="stable")
    least = (observed - TIE_TOLERANCE * np.abs(d).sum(axis=0) / norm)[order]
    hits = np.zeros(len(order))
    step = max(1, _BLOCK_ELEMENTS // max(1, len(order)))
    for start in range(0, len(sums), step):
        statistic = np.ascontiguousarray(sums[start : start + step].T)[order]  # a column a row: its flips lie together
        np.abs(statistic, out=statistic)
        statistic /= norm[order, None]
        for j in range(len(order) - 1, -1, -1):
            # Step j compares with the largest statistic of the columns from the j-th on.
            if j + 1 < len(order):
                np.maximum(statistic[j], statistic[j + 1], out=statistic[j])
            hits[j] += np.count_nonzero(statistic[j] >= least[j])
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(np.maximum(hits / len(sums), p[order]))
    return adjusted
