"""Which method is first, and would other subjects say so too? Rankings by three rules, and how firm they are.

Ties share a rank, the best of those that they take: 1, 1, 3. Cases count that every method has a value for: where a
reference lacks a class that some method hallucinates, those that leave it empty are right, as in the tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from rwtool.datasets.subjects import average_subjects
from rwtool.evaluation.rows import Label, Rules
from rwtool.metrics.measures import METRICS
from rwtool.statistics.arms import Arm, Axes, Floats, case_means, without_rounding
from rwtool.statistics.families import step_down_maxt
from rwtool.statistics.intervals import bootstrap_counts
from rwtool.statistics.pairs import ComparisonTest, all_pairs, subject_differences
from rwtool.statistics.permutation import sign_flips

RankRule = Literal["mean-then-rank", "rank-then-mean", "test-then-rank"]
RANK_RULES: tuple[RankRule, ...] = get_args(RankRule)
SAMPLES = 1000
FLIPS_OF_A_SAMPLE = 999  # of the tests in a bootstrap sample; those of the data have `Rules.permutations`
_DIGITS = 10  # of scores, relative to the largest: means that differ by rounding tie


@dataclass(frozen=True)
class MethodRank:
    """The place of one method.

    Attributes
    ----------
    method : str
    score : float
        What is ranked: the mean, the mean rank within a subject, the number of methods beaten; over all classes and
        metrics the mean of their ranks.
    rank : int
    low, high : float or None
        The 1 - alpha interval of the rank over bootstrap samples.
    shares : (n_methods,) tuple of float
        Share of the samples in which the method has each rank.
    """

    method: str
    score: float
    rank: int
    low: float | None
    high: float | None
    shares: tuple[float, ...]


@dataclass(frozen=True)
class Ranking:
    """The methods in one metric of one class, or over all of them (both None), by one rule.

    `subjects` have a value for every method, in at least one metric. `tau_mean`, `tau_low` and `tau_high` are Kendall's
    tau-b between the ranking of a bootstrap sample and this one: mean and 1 - alpha interval; None where all methods
    tie.
    """

    group: str
    label: Label | None
    metric: str | None
    rule: RankRule
    subjects: int
    ranks: tuple[MethodRank, ...]
    tau_mean: float | None
    tau_low: float | None
    tau_high: float | None


def rank_methods(
    axes: Axes, arms: dict[str, Arm], tests: Sequence[ComparisonTest], rules: Rules, *, samples: int = SAMPLES
) -> list[Ranking]:
    """Rank the methods of a group in every foreground class and metric with a better direction, and over all.

    Parameters
    ----------
    axes : Axes
    arms : dict of str to Arm
        Two methods or more.
    tests : sequence of ComparisonTest
        Of all pairs of the group.
    rules : Rules
    samples : int
        Bootstrap samples of the subjects.

    Returns
    -------
    list of Ranking
        Over all, then by class and metric; each by the three rules. None where no subject has a value for every method.
    """
    values, defined, columns = _values(axes, arms, rules)
    if not columns:
        return []
    counts = np.concatenate(list(bootstrap_counts(len(values), samples, rules.seed)))
    chosen = [axes.columns().index(column) for column in columns]
    scores = {
        "mean-then-rank": _means(values, defined, counts),
        "rank-then-mean": _means(_ranks_within(values, defined), defined, counts),
        "test-then-rank": np.concatenate(
            [
                _beaten(axes, list(arms), tests, rules)[None, :, chosen],
                _beaten_in(axes, arms, rules, counts)[..., chosen],
            ]
        ),
    }
    subjects = [int(known.sum()) for known in defined.T]
    over_all, by_column = [], []
    for rule in RANK_RULES:
        found = scores[rule]  # (1 + samples, n_methods, n_columns), the data first, more is better
        ranks = _rank(found, "average")
        known = ~np.isnan(ranks)
        mean = np.where(known, ranks, 0).sum(axis=2) / np.maximum(known.sum(axis=2), 1)
        place = (axes.group, None, None, rule, int(defined.any(axis=1).sum()))
        over_all.append(_ranking(place, list(arms), -mean, mean[0], rules.alpha))
        for c, (label, metric) in enumerate(columns):
            better = METRICS[metric].better if rule == "mean-then-rank" else -1 if rule == "rank-then-mean" else 1
            named = (axes.group, label, metric, rule, subjects[c])
            by_column.append((c, _ranking(named, list(arms), found[:, :, c], better * found[0, :, c], rules.alpha)))
    return over_all + [ranking for _, ranking in sorted(by_column, key=lambda item: item[0])]


def _values(
    axes: Axes, arms: dict[str, Arm], rules: Rules
) -> tuple[Floats, NDArray[np.bool_], list[tuple[Label, str]]]:
    """(n_subjects, n_methods, n_columns) means of subjects, more being better, where they are defined, and columns."""
    of_cases = np.stack(case_means(rules.undefined, axes, list(arms.values())), axis=1)
    complete = ~np.isnan(of_cases).any(axis=1, keepdims=True)
    largest = np.fmax.reduce(np.abs(of_cases), axis=(0, 1), initial=0.0)
    of_subjects = average_subjects(np.where(complete, of_cases, np.nan), axes.subjects).values
    rounded = [without_rounding(of_subjects[:, m], largest) for m in range(len(arms))]
    better = np.array([METRICS[metric].better for _, metric in axes.columns()])
    foreground = np.array([label != 0 for label, _ in axes.columns()])
    values = np.stack(rounded, axis=1) * better
    defined = ~np.isnan(values).any(axis=1)
    used = foreground & (better != 0) & defined.any(axis=0)
    columns = [column for column, use in zip(axes.columns(), used, strict=True) if use]
    return values[..., used], defined[:, used], columns


def _ranks_within(values: Floats, defined: NDArray[np.bool_]) -> Floats:
    """Minus the ranks of the methods within each subject, ties averaged."""
    return -_rank(np.where(defined[:, None], values, 0.0), "average")


def _means(values: Floats, defined: NDArray[np.bool_], counts: Floats) -> Floats:
    """Mean over subjects of (n, n_methods, n_columns) values: of the data, then of each sample; NaN for no subject."""
    n = len(values)
    weights = np.vstack([np.ones(n), counts])
    filled = np.where(defined[:, None], values, 0.0).reshape(n, -1)
    sums = (weights @ filled).reshape(len(weights), *values.shape[1:])
    number = (weights @ defined.astype(np.float64))[:, None]
    return np.divide(sums, number, out=np.full_like(sums, np.nan), where=number > 0)


def _beaten(axes: Axes, methods: list[str], tests: Sequence[ComparisonTest], rules: Rules) -> Floats:
    """(n_methods, n_columns): how many methods each beats in the tests of the data, adjusted p below alpha."""
    beaten = np.zeros((len(methods), len(axes.columns())))
    at = {column: c for c, column in enumerate(axes.columns())}
    for test in tests:
        p = test.result.p_maxt
        if test.undefined == rules.undefined and p is not None and p < rules.alpha and test.direction:
            winner = test.method if test.direction > 0 else test.baseline
            beaten[methods.index(winner), at[test.label, test.metric]] += 1
    return beaten


def _beaten_in(axes: Axes, arms: dict[str, Arm], rules: Rules, counts: Floats) -> Floats:
    """(n_samples, n_methods, n_columns): the same in each bootstrap sample, whose subjects flip one by one."""
    methods, columns = list(arms), axes.columns()
    pairs = all_pairs(methods)
    d = np.hstack([subject_differences(rules.undefined, axes, arms, pair).values for pair in pairs])
    members = [k for k in range(d.shape[1]) if columns[k % len(columns)][0] != 0 and not np.isnan(d[:, k]).all()]
    filled = np.nan_to_num(d[:, members])
    better = np.array([METRICS[columns[k % len(columns)][1]].better for k in members])
    n = len(d)
    signs = sign_flips(n, None if 2**n <= FLIPS_OF_A_SAMPLE + 1 else FLIPS_OF_A_SAMPLE, rules.seed)
    beaten = np.zeros((len(counts), len(methods), len(columns)))
    for sample, count in enumerate(counts):
        drawn = np.repeat(filled, count.astype(int), axis=0)
        sums = signs @ drawn
        p = step_down_maxt(drawn, sums, np.zeros(len(members)))
        direction = better * np.sign(sums[0])
        for m in np.flatnonzero((p < rules.alpha) & (direction != 0)):
            pair, column = divmod(members[m], len(columns))
            winner = pairs[pair][0] if direction[m] > 0 else pairs[pair][1]
            beaten[sample, methods.index(winner), column] += 1
    return beaten


def _rank(scores: Floats, ties: Literal["average", "min"]) -> Floats:
    """Ranks along axis 1, 1 for the largest score; NaN where a score is."""
    from scipy.stats import rankdata  # heavy, and needed here alone

    largest = np.nanmax(np.abs(scores), axis=1, keepdims=True, initial=0.0)
    relative = np.round(np.divide(scores, largest, out=np.zeros_like(scores), where=largest > 0), _DIGITS)
    ranks: Floats = np.asarray(rankdata(-relative, method=ties, axis=1), dtype=np.float64)
    return np.where(np.isnan(scores), np.nan, ranks)


def _ranking(
    place: tuple[str, Label | None, str | None, RankRule, int],
    methods: list[str],
    scores: Floats,
    shown: Floats,
    alpha: float,
) -> Ranking:
    """Rank the (1 + n_samples, n_methods) scores, the data first, and describe the samples."""
    ranks = _rank(scores, "min")
    full, samples = ranks[0], ranks[1:]
    samples = samples[~np.isnan(samples).any(axis=1)]
    tails = (alpha / 2, 1 - alpha / 2)
    ends = np.quantile(samples, tails, axis=0, method="inverted_cdf") if len(samples) else None  # ranks that occur
    found = tuple(
        MethodRank(
            method,
            float(shown[m]),
            int(full[m]),
            None if ends is None else float(ends[0, m]),
            None if ends is None else float(ends[1, m]),
            tuple(float(np.mean(samples[:, m] == r + 1)) if len(samples) else 0.0 for r in range(len(methods))),
        )
        for m, method in enumerate(methods)
    )
    tau = _tau(full, samples)
    low, high = (float(end) for end in np.quantile(tau, tails)) if len(tau) else (None, None)
    return Ranking(*place, found, float(tau.mean()) if len(tau) else None, low, high)


def _tau(full: Floats, samples: Floats) -> Floats:
    """Kendall's tau-b of each sample's ranking with the full one, without those where all methods tie."""
    from scipy.stats import kendalltau

    kinds, which = np.unique(samples, axis=0, return_inverse=True)  # few: each is computed once
    tau = np.array([kendalltau(kind, full).statistic for kind in kinds], dtype=np.float64)
    of_samples: Floats = tau[which.ravel()] if len(kinds) else tau
    return of_samples[~np.isnan(of_samples)]
