"""How well is a mean known? Intervals of means over subjects: Student's t, or the BCa bootstrap.

No interval of a median is offered: the bootstrap intervals of medians in use do not hold what they promise (Andre et
al. 2025).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rwtool.errors import UsageError
from rwtool.evaluation.rows import Interval

BOOTSTRAP_DRAWS = 10_000
_BLOCK_ELEMENTS = 2**21  # draws in memory at once: 16 MiB of float64
_TIE_TOLERANCE = 1e-12  # of the largest deviation: rounding must not put a draw below the mean that it equals

Floats = NDArray[np.float64]


def mean_intervals(
    values: ArrayLike,
    *,
    method: Interval = "t",
    alpha: float = 0.05,
    limits: Sequence[tuple[float, float]] | None = None,
    seed: int = 0,
) -> Floats:
    """Give an interval of the mean of every column.

    Parameters
    ----------
    values : (n_subjects, n_columns) float array
        NaN where undefined: it is left out of its column. Rows must be independent, one per subject.
    method : {"t", "bca"}
        Student's t, or 10,000 bias-corrected and accelerated bootstrap draws over the subjects.
    alpha : float
        1 - alpha is the confidence level.
    limits : sequence of (low, high), optional
        Range of each column's values, which the interval is cut to: a Dice beyond 1 means nothing.
    seed : int
        Of the draws.

    Returns
    -------
    (n_columns, 2) float array
        Lower and upper end; NaN with fewer than two values.

    Raises
    ------
    UsageError
        `method` is none, or `alpha` is not between 0 and 1.

    Notes
    -----
    Both presume enough subjects: they hold from about n = 20, and are too short below for skewed values.

    References
    ----------
    Efron, J. Am. Stat. Assoc. 82, 1987 (BCa); El Jurdi, Varoquaux & Colliot, arXiv 2307.10926 (both agree for means).

    Examples
    --------
    1, 2 and 3 have mean 2, SD 1 and t = 4.30 for two degrees of freedom: 2 +- 4.30 / sqrt(3).

    >>> mean_intervals([[1.0], [2.0], [3.0]]).round(2).tolist()
    [[-0.48, 4.48]]
    """
    if method not in get_args(Interval):
        raise UsageError(f"found interval={method!r}; give one of {', '.join(get_args(Interval))}")
    if not 0 < alpha < 1:
        raise UsageError(f"found alpha={alpha:g}; give a number between 0 and 1, such as 0.05")
    columns = np.asarray(values, dtype=np.float64)
    if columns.ndim != 2:
        raise UsageError(f"values have shape {columns.shape}, expected (n_subjects, n_columns)")
    defined = ~np.isnan(columns)
    found = np.full((columns.shape[1], 2), np.nan)
    patterns, which = np.unique(defined, axis=1, return_inverse=True)
    for index, known in enumerate(patterns.T):
        chosen = which.ravel() == index
        if known.sum() > 1:
            part = columns[known][:, chosen]
            found[chosen] = _student(part, alpha) if method == "t" else _bca(part, alpha, seed)
    if limits is not None:
        low, high = np.asarray(limits, dtype=np.float64).T
        found = np.clip(found, low[:, None], high[:, None])
    return found


def bootstrap_counts(n: int, draws: int, seed: int) -> Iterator[Floats]:
    """How often each of `n` subjects is in each bootstrap sample, in (rows, n) blocks that make `draws` rows."""
    rng = np.random.default_rng(seed)
    step = 4 * max(1, _BLOCK_ELEMENTS // (4 * n))
    for start in range(0, draws, step):
        rows = min(step, draws - start)
        drawn = rng.integers(0, n, size=(rows, n)) + n * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float64)


def _student(values: Floats, alpha: float) -> Floats:
    """(n_columns, 2) of (n, n_columns), n > 1."""
    from scipy.special import stdtrit

    n = len(values)
    half = stdtrit(n - 1, 1 - alpha / 2) * values.std(axis=0, ddof=1) / np.sqrt(n)
    mean = values.mean(axis=0)
    return np.column_stack([mean - half, mean + half])


def _bca(values: Floats, alpha: float, seed: int) -> Floats:
    """(n_columns, 2) of (n, n_columns), n > 1; the same draws for all columns."""
    from scipy.special import ndtr, ndtri

    n = len(values)
    mean = values.mean(axis=0)
    deviations = values - mean
    drawn = np.concatenate([counts @ deviations for counts in bootstrap_counts(n, BOOTSTRAP_DRAWS, seed)]) / n
    slack = _TIE_TOLERANCE * np.abs(deviations).max(axis=0)
    below = ((drawn < -slack).mean(axis=0) + (drawn <= slack).mean(axis=0)) / 2
    bias = ndtri(below)
    squares = (deviations**2).sum(axis=0)
    squares[squares == 0] = 1.0
    acceleration = (deviations**3).sum(axis=0) / (6 * squares**1.5)  # that of the jackknife, for a mean
    ends = []
    for tail in (alpha / 2, 1 - alpha / 2):
        shifted = bias + ndtri(tail)
        levels = ndtr(bias + shifted / (1 - acceleration * shifted))
        ends.append(mean + [np.quantile(column, level) for column, level in zip(drawn.T, levels, strict=True)])
    return np.column_stack(ends)
