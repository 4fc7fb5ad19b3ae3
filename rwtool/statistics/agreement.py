"""Do the volumes agree with those of the reference? Bland and Altman's limits, and ICC(3,1)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rwtool.evaluation.rows import Label

_WIDTH = 1.96  # of the limits of agreement, in SD


@dataclass(frozen=True)
class Agreement:
    """Volumes of one class by one method beside those of the reference, over cases.

    Attributes
    ----------
    method, group : str
    label : int or str
    n : int
        Cases; the runs of a method are averaged, and an empty structure has 0 ml.
    bias_ml : float
        Mean of prediction - reference.
    sd_ml, low_ml, high_ml : float or None
        SD (n - 1) of these differences, and the limits of agreement, bias -+ 1.96 SD; None for one case.
    icc : float or None
        ICC(3,1), see :func:`icc_3_1`.
    """

    method: str
    group: str
    label: Label
    n: int
    bias_ml: float
    sd_ml: float | None
    low_ml: float | None
    high_ml: float | None
    icc: float | None


def volume_agreement(
    measured_ml: ArrayLike, reference_ml: ArrayLike, *, method: str, group: str, label: Label
) -> Agreement | None:
    """Compare volumes with those of the reference.

    Parameters
    ----------
    measured_ml, reference_ml : (n_cases,) float array
        NaN where unknown: the case is left out.
    method, group, label
        For the record.

    Returns
    -------
    Agreement or None
        None without a case.

    References
    ----------
    Bland & Altman, Lancet 327, 1986.
    """
    both = np.column_stack([np.asarray(measured_ml, np.float64), np.asarray(reference_ml, np.float64)])
    both = both[~np.isnan(both).any(axis=1)]
    if len(both) == 0:
        return None
    d = both[:, 0] - both[:, 1]
    bias = float(d.mean())
    if len(d) == 1:
        return Agreement(method, group, label, 1, bias, None, None, None, None)
    sd = float(d.std(ddof=1))
    return Agreement(
        method, group, label, len(d), bias, sd, bias - _WIDTH * sd, bias + _WIDTH * sd, icc_3_1(both)
    )  # fmt: skip


def icc_3_1(ratings: ArrayLike) -> float | None:
    """Intraclass correlation for fixed raters, of a single one, for consistency: a constant bias does not lower it.

    Parameters
    ----------
    ratings : (n_cases, n_raters) float array
        Two of each at least.

    Returns
    -------
    float or None
        None where nothing varies.

    References
    ----------
    Shrout & Fleiss, Psychol. Bull. 86, 1979: (BMS - EMS) / (BMS + (k - 1) EMS).

    Examples
    --------
    >>> icc_3_1([[1, 2], [2, 3], [5, 6]])
    1.0
    """
    x = np.asarray(ratings, dtype=np.float64)
    n, k = x.shape
    cases, raters = x.mean(axis=1, keepdims=True), x.mean(axis=0, keepdims=True)
    between = k * float(((cases - x.mean()) ** 2).sum()) / (n - 1)
    error = float(((x - cases - raters + x.mean()) ** 2).sum()) / ((n - 1) * (k - 1))
    total = between + (k - 1) * error
    largest = float(np.abs(x).max())
    return None if math.sqrt(total) <= 1e-12 * largest else (between - error) / total
