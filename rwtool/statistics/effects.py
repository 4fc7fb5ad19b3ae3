"""How large is a difference, and how many subjects would show it? Effect sizes and planning by Student's t.

What is here presumes differences that are nearly normal, and is approximate; the tests of
`rwtool.statistics.permutation` presume symmetry alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

POWER = 0.8
_MOST_SUBJECTS = 1_000_000
_TIE_TOLERANCE = 1e-12  # times the mean of |d|, as in the test


@dataclass(frozen=True)
class Effect:
    """The size of the differences of one metric and class, method - baseline, over subjects.

    Attributes
    ----------
    d_z : float or None
        Cohen's d_z, mean / SD (n - 1) of the differences; None below 2 subjects, or where all differences are equal.
    win_share : float or None
        Share of the subjects where the method is better; None without a subject or a better direction.
    subjects_for_power : int or None
        Subjects that give a t test at alpha 80 % power if the effect is as observed; None where `d_z` is None or 0, or
        where they would be more than a million.
    chance_not_better : float or None
        The chance that the method is not better, given the data; None where `d_z` is, or without a better direction.
    """

    d_z: float | None
    win_share: float | None
    subjects_for_power: int | None
    chance_not_better: float | None


def effect_of(differences: ArrayLike, *, better: int, alpha: float = 0.05) -> Effect:
    """Give the effect of paired differences.

    Parameters
    ----------
    differences : (n_subjects,) float array
        Method - baseline; NaN where undefined.
    better : int
        1 where more is better, -1 where less is, 0 for neither.
    alpha : float
        Level of the test that is planned, two-sided.

    Returns
    -------
    Effect

    References
    ----------
    Christodoulou et al., arXiv 2505.04720, 2025: the chance is t_{n-1}(-mean d sqrt(n) / SD d), d where more is better.

    Examples
    --------
    Differences of 1, 2 and 3 have d_z = 2 / 1, and five subjects show so large an effect.

    >>> effect = effect_of([1.0, 2.0, 3.0], better=1)
    >>> effect.d_z, effect.win_share, effect.subjects_for_power, round(effect.chance_not_better, 4)
    (2.0, 1.0, 5, 0.0371)
    """
    d = np.asarray(differences, dtype=np.float64)
    d = d[~np.isnan(d)]
    n = len(d)
    if n == 0:
        return Effect(None, None, None, None)
    slack = _TIE_TOLERANCE * float(np.abs(d).mean())
    wins = float(np.mean(better * d > slack)) if better else None
    sd = float(d.std(ddof=1)) if n > 1 else 0.0
    if sd <= slack:
        return Effect(None, wins, None, None)
    from scipy.special import stdtr

    d_z = float(d.mean()) / sd
    chance = _twelve_digits(float(stdtr(n - 1, -better * d_z * math.sqrt(n)))) if better else None
    return Effect(_twelve_digits(d_z), wins, subjects_for_power(d_z, alpha=alpha), chance)


def _twelve_digits(value: float) -> float:
    """Leave out the digits that are not the same on every machine."""
    return float(f"{value:.12g}")


def subjects_for_power(d_z: float, *, alpha: float = 0.05, power: float = POWER) -> int | None:
    """Fewest subjects with which a two-sided paired t test finds an effect; None beyond a million.

    Parameters
    ----------
    d_z : float
    alpha, power : float

    Returns
    -------
    int or None

    Examples
    --------
    >>> subjects_for_power(0.5)
    34
    """
    if _power(d_z, _MOST_SUBJECTS, alpha) < power:
        return None
    low, high = 1, 2  # too few, and enough
    while _power(d_z, high, alpha) < power:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if _power(d_z, middle, alpha) < power:
            low = middle
        else:
            high = middle
    return high


def _power(d_z: float, n: int, alpha: float) -> float:
    """Chance that a t test of n subjects finds the effect, by the non-central t; that of the wrong sign left in."""
    from scipy.special import nctdtr, stdtrit

    limit = float(stdtrit(n - 1, 1 - alpha / 2))
    shift = abs(d_z) * math.sqrt(n)
    if n > 100 and shift - limit > 30:  # beyond what the non-central t is computed for
        return 1.0
    return float(1 - nctdtr(n - 1, shift, limit) + nctdtr(n - 1, shift, -limit))
