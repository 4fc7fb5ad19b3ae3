"""Does a loss get anywhere, whatever the seed? Runs that differ in their seed alone, and how many of them collapse."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rwtool.datasets.curves import TrainingCurve
from rwtool.errors import UsageError
from rwtool.statistics.families import holm_adjust

Floats = NDArray[np.float64]
_COLLAPSED_BELOW = 0.5  # of the best median


@dataclass(frozen=True)
class SeedResult:
    """What one run came to.

    Attributes
    ----------
    run : str
        Its folder.
    seed : int
    dice : float
        Mean over foreground classes of the mean over validation cases, after the last epoch; 0 where it diverged.
    class_dice : dict of int to float
        By label; NaN where the class is in no validation case.
    share_at_most : float
        CDF(d) of Eq. 8 at its Dice: the share of the method's runs whose Dice is no larger.
    diverged : int or None
        Epoch in which its loss was not finite.
    collapsed_in : tuple of int
        Labels in which it has collapsed.
    """

    run: str
    seed: int
    dice: float
    class_dice: dict[int, float]
    share_at_most: float
    diverged: int | None
    collapsed_in: tuple[int, ...]

    @property
    def collapsed(self) -> bool:
        """Whether it has collapsed in some class, or diverged."""
        return self.diverged is not None or bool(self.collapsed_in)


@dataclass(frozen=True)
class EpochSpread:
    """One measure after one epoch, over the runs of a method.

    Attributes
    ----------
    measure : str
        ``loss``, ``dice``, or ``dice_`` and a label; where runs have measured them, ``hd_mm`` and ``hd95_mm`` too.
    epoch : int
        From 1 on.
    n : int
        Runs that have a value.
    mean, sd, least, most : float
        The SD is that of n - 1, NaN for one run.
    """

    measure: str
    epoch: int
    n: int
    mean: float
    sd: float
    least: float
    most: float


@dataclass(frozen=True)
class MethodConvergence:
    """The runs of one method.

    Attributes
    ----------
    method : str
    seeds : tuple of SeedResult
        Of the runs that have come to their end, by seed.
    unfinished : dict of str to str
        Run folder to how far it is; these are not counted.
    epochs : int
        That each run was to have.
    collapsed : int
        How many have.
    share, low, high : float
        Of those that have collapsed, with Wilson's interval.
    mean, sd, median, least, most : float
        Of their Dice; the SD is that of n - 1, NaN for one run.
    curves : tuple of EpochSpread
    """

    method: str
    seeds: tuple[SeedResult, ...]
    unfinished: dict[str, str]
    epochs: int
    collapsed: int
    share: float
    low: float
    high: float
    mean: float
    sd: float
    median: float
    least: float
    most: float
    curves: tuple[EpochSpread, ...]


@dataclass(frozen=True)
class CollapseTest:
    """The shares of collapsed runs of two methods.

    Attributes
    ----------
    baseline, method : str
    difference, low, high : float
        Share of the method - share of the baseline, with Newcombe's interval.
    p, p_holm : float
        Fisher's exact test, two-sided; adjusted by Holm over the methods.
    """

    baseline: str
    method: str
    difference: float
    low: float
    high: float
    p: float
    p_holm: float


@dataclass(frozen=True)
class Convergence:
    """Methods by what becomes of their runs.

    Attributes
    ----------
    methods : tuple of MethodConvergence
    thresholds : dict of int to float
        Label to the Dice below which a run has collapsed in the class: half of the best median of a method.
    tests : tuple of CollapseTest
        Each method against the first, or `baseline`.
    alpha : float
        1 - alpha is the level of the intervals.
    class_names : dict of int to str
    """

    methods: tuple[MethodConvergence, ...]
    thresholds: dict[int, float]
    tests: tuple[CollapseTest, ...]
    alpha: float
    class_names: dict[int, str] = field(default_factory=dict)


def share_interval(count: int, n: int, *, alpha: float = 0.05) -> tuple[float, float]:
    """Give the interval of a share, by Wilson's score.

    Parameters
    ----------
    count, n : int
        So many of n, n at least 1.
    alpha : float
        1 - alpha is the confidence level.

    Returns
    -------
    low, high : float

    References
    ----------
    Wilson, J. Am. Stat. Assoc. 22, 1927; without correction for continuity.

    Examples
    --------
    No collapse in 50 runs still leaves room for a share of 7 %.

    >>> [round(end, 3) for end in share_interval(0, 50)]
    [0.0, 0.071]
    """
    from scipy.stats import binomtest

    found = binomtest(count, n).proportion_ci(1 - alpha, method="wilson")
    return float(found.low), float(found.high)


def difference_interval(
    count: int, n: int, base_count: int, base_n: int, *, alpha: float = 0.05
) -> tuple[float, float]:
    """Give the interval of the difference of two shares, ``count / n - base_count / base_n``, from Wilson's of each.

    Parameters
    ----------
    count, n, base_count, base_n : int
    alpha : float

    Returns
    -------
    low, high : float

    References
    ----------
    Newcombe, Stat. Med. 17, 1998, method 10.

    Examples
    --------
    >>> [round(end, 4) for end in difference_interval(56, 70, 48, 80)]
    [0.0524, 0.3339]
    """
    share, base = count / n, base_count / base_n
    low, high = share_interval(count, n, alpha=alpha)
    base_low, base_high = share_interval(base_count, base_n, alpha=alpha)
    difference = share - base
    return (
        difference - math.hypot(share - low, base_high - base),
        difference + math.hypot(high - share, base - base_low),
    )


def distribution(values: ArrayLike, at: ArrayLike) -> Floats:
    """CDF(d) of Eq. 8: the share of values that are at most d.

    Parameters
    ----------
    values : (n,) float array
    at : (m,) float array

    Returns
    -------
    (m,) float array

    Examples
    --------
    >>> distribution([0.2, 0.9, 0.9], [0.1, 0.2, 0.5, 0.9]).round(3).tolist()
    [0.0, 0.333, 0.333, 1.0]
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    return np.searchsorted(ordered, np.asarray(at, dtype=np.float64), side="right") / len(ordered)


def compare_convergence(
    methods: Mapping[str, Sequence[TrainingCurve]],
    *,
    unfinished: Mapping[str, Mapping[str, str]] | None = None,
    baseline: str | None = None,
    alpha: float = 0.05,
) -> Convergence:
    """Count the runs of each method that have collapsed, and describe all of them.

    Parameters
    ----------
    methods : dict of str to sequence of TrainingCurve
        Runs that have come to their end, at least one each.
    unfinished : dict of str to dict of str to str, optional
        Those that have not, to be named.
    baseline : str, optional
        The method that the others are compared with; by default the first.
    alpha : float

    Returns
    -------
    Convergence

    Raises
    ------
    UsageError
        There is no such baseline, or `alpha` is not between 0 and 1.

    Notes
    -----
    A run has collapsed when its Dice in some foreground class is below half of the median over the runs of the method
    whose median in that class is best, or when its loss was not finite. Its Dice is then 0 in every class.
    """
    if not 0 < alpha < 1:
        raise UsageError(f"found alpha={alpha:g}; give a number between 0 and 1, such as 0.05")
    against = next(iter(methods)) if baseline is None else baseline
    if against not in methods:
        raise UsageError(f"baseline={against}: there is no such method; the methods are {', '.join(methods)}")
    labels = sorted({label for curves in methods.values() for curve in curves for label in curve.class_dice})
    final = {method: [_final(curve, labels) for curve in curves] for method, curves in methods.items()}
    thresholds = {}
    for label in labels:
        medians = [median for runs in final.values() if (median := _median([run[label] for run in runs])) is not None]
        if medians:
            thresholds[label] = _COLLAPSED_BELOW * max(medians)
    found = tuple(
        _describe(method, curves, final[method], thresholds, dict((unfinished or {}).get(method, {})), alpha)
        for method, curves in methods.items()
    )
    base = next(method for method in found if method.method == against)
    return Convergence(found, thresholds, _tests(base, [one for one in found if one is not base], alpha), alpha)


def _final(curve: TrainingCurve, labels: Sequence[int]) -> dict[int, float]:
    """Dice by label after the last epoch; 0 where the loss was not finite."""
    if curve.diverged is not None:
        return dict.fromkeys(labels, 0.0)
    return {label: float(curve.class_dice[label][-1]) for label in labels}


def _median(values: Sequence[float]) -> float | None:
    known = [value for value in values if not math.isnan(value)]
    return float(np.median(known)) if known else None


def _describe(
    method: str,
    curves: Sequence[TrainingCurve],
    final: Sequence[dict[int, float]],
    thresholds: Mapping[int, float],
    unfinished: dict[str, str],
    alpha: float,
) -> MethodConvergence:
    dice = np.array([0.0 if curve.diverged is not None else float(curve.dice[-1]) for curve in curves])
    seeds = sorted(
        (
            SeedResult(
                str(curve.folder),
                curve.seed,
                float(value),
                by_class,
                float(share),
                curve.diverged,
                tuple(label for label, least in thresholds.items() if by_class[label] < least),
            )
            for curve, value, by_class, share in zip(curves, dice, final, distribution(dice, dice), strict=True)
        ),
        key=lambda result: result.seed,
    )
    collapsed = sum(result.collapsed for result in seeds)
    low, high = share_interval(collapsed, len(seeds), alpha=alpha)
    mean, sd = _mean_and_sd(dice)
    return MethodConvergence(
        method, tuple(seeds), unfinished, curves[0].planned, collapsed, collapsed / len(seeds), low, high, mean, sd,
        float(np.median(dice)), float(dice.min()), float(dice.max()), tuple(epoch_spreads(curves)),
    )  # fmt: skip


def epoch_spreads(curves: Sequence[TrainingCurve]) -> list[EpochSpread]:
    """Each measure by epoch, over runs of a method; once a run has diverged it has Dice 0, no loss and no distance."""
    epochs = curves[0].planned
    labels = sorted({label for curve in curves for label in curve.class_dice})
    tables = {"loss": _table([curve.loss for curve in curves], epochs)}
    for name in ("dice", *(f"dice_{label}" for label in labels)):
        table = _table(
            [curve.dice if name == "dice" else curve.class_dice.get(int(name[5:]), np.empty(0)) for curve in curves],
            epochs,
        )
        seen: NDArray[np.bool_] = np.asarray(~np.isnan(table).all(axis=0))
        seen[-1] = True  # where all have diverged before they were validated
        for row, curve in enumerate(curves):
            if curve.diverged is not None:
                table[row, curve.diverged - 1 :][seen[curve.diverged - 1 :]] = 0.0
        tables[name] = table
    for name in dict.fromkeys(name for curve in curves for name in curve.distances):
        tables[name] = _table([curve.distances.get(name, np.empty(0)) for curve in curves], epochs)
    found = []
    for name, table in tables.items():
        for epoch, column in enumerate(table.T, 1):
            known = column[~np.isnan(column)]
            if len(known):
                mean, sd = _mean_and_sd(known)
                found.append(EpochSpread(name, epoch, len(known), mean, sd, float(known.min()), float(known.max())))
    return found


def _table(rows: Sequence[Floats], epochs: int) -> Floats:
    """Values by run and epoch, (n, epochs), NaN where a run has none."""
    table = np.full((len(rows), epochs), np.nan)
    for row, values in zip(table, rows, strict=True):
        row[: len(values)] = values[:epochs]
    return table


def _mean_and_sd(values: Floats) -> tuple[float, float]:
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else math.nan


def _tests(base: MethodConvergence, others: Sequence[MethodConvergence], alpha: float) -> tuple[CollapseTest, ...]:
    from scipy.stats import fisher_exact

    p = []
    for other in others:
        table = [[one.collapsed, len(one.seeds) - one.collapsed] for one in (other, base)]
        p.append(float(fisher_exact(table).pvalue))
    return tuple(
        CollapseTest(
            base.method,
            other.method,
            other.share - base.share,
            *difference_interval(other.collapsed, len(other.seeds), base.collapsed, len(base.seeds), alpha=alpha),
            raw,
            float(adjusted),
        )
        for other, raw, adjusted in zip(others, p, holm_adjust(p), strict=True)
    )
