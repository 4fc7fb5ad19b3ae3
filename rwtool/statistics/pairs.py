"""Tests of pairs of methods: under the rule for undefined distances that is in force, and without one beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rwtool.datasets.subjects import average_subjects
from rwtool.evaluation.rows import Label, Rules, Undefined
from rwtool.metrics.measures import METRICS
from rwtool.statistics.arms import Arm, Axes, Floats, differences, without_rounding
from rwtool.statistics.effects import Effect, effect_of
from rwtool.statistics.permutation import PairedTest, paired_permutation_test

Pair = tuple[str, str]
"""A method, and the method that it is compared with."""


@dataclass(frozen=True)
class ComparisonTest:
    """The test of one method against another, the baseline, in one metric of one class.

    `undefined` is the rule for distances: the one in force, or 'exclude' beside it where the two differ.
    """

    baseline: str
    method: str
    group: str
    label: Label
    metric: str
    undefined: Undefined
    result: PairedTest
    effect: Effect

    @property
    def direction(self) -> int:
        """1 where the method is better on average, -1 where it is worse, else 0."""
        mean = self.result.mean_difference or 0.0
        return METRICS[self.metric].better * ((mean > 0) - (mean < 0))


@dataclass(frozen=True)
class SubjectDifferences:
    """Differences of one pair over subjects, method - baseline.

    Attributes
    ----------
    values : (n_subjects, n_classes * n_metrics) float array
        NaN where undefined.
    undefined : (n_classes * n_metrics,) int array
        Cases left out.
    defined : (n_cases, n_classes * n_metrics) bool array
    """

    values: Floats
    undefined: NDArray[np.int64]
    defined: NDArray[np.bool_]


def all_pairs(methods: Sequence[str]) -> list[Pair]:
    """Every method against every other, once.

    >>> all_pairs(["a", "b", "c"])
    [('b', 'a'), ('c', 'a'), ('c', 'b')]
    """
    return [(method, other) for i, method in enumerate(methods) for other in methods[:i]]


def subject_differences(rule: Undefined, axes: Axes, arms: dict[str, Arm], pair: Pair) -> SubjectDifferences:
    """Take one method of a pair from the other, case by case, and average over the cases of a subject."""
    of_cases = differences(rule, axes, arms[pair[0]], arms[pair[1]])
    of_subjects = average_subjects(of_cases.values, axes.subjects)
    values = without_rounding(of_subjects.values, of_cases.largest)
    return SubjectDifferences(values, of_subjects.undefined, ~np.isnan(of_cases.values))


def paired_tests(axes: Axes, arms: dict[str, Arm], pairs: Sequence[Pair], rules: Rules) -> list[ComparisonTest]:
    """Test pairs as one family: the same flips for all of them, and max-T over pairs, classes and metrics."""
    ruled = [subject_differences(rules.undefined, axes, arms, pair) for pair in pairs]
    strict = [subject_differences("exclude", axes, arms, pair) for pair in pairs]
    differs = [(a.defined != b.defined).any(axis=0) for a, b in zip(ruled, strict, strict=True)]
    tests = _tests(axes, pairs, ruled, rules.undefined, rules)
    if np.any(differs):
        beside = _tests(axes, pairs, strict, "exclude", rules)
        tests += [test for test, keep in zip(beside, np.concatenate(differs), strict=True) if keep]
    return tests


def _tests(
    axes: Axes, pairs: Sequence[Pair], found: Sequence[SubjectDifferences], rule: Undefined, rules: Rules
) -> list[ComparisonTest]:
    """Every column of every pair under one rule."""
    columns = [(pair, label, metric) for pair in pairs for label, metric in axes.columns()]
    better = [METRICS[metric].better for *_, metric in columns]
    margin = dict(rules.margin)
    d = np.hstack([of_pair.values for of_pair in found])
    results = paired_permutation_test(
        d,
        higher_is_better=[None if sign == 0 else sign > 0 for sign in better],
        family=[label != 0 for _, label, _ in columns],
        permutations=rules.permutations,
        seed=rules.seed,
        alpha=rules.alpha,
        undefined_pairs=np.concatenate([of_pair.undefined for of_pair in found]),
        margin=[margin.get(metric) for *_, metric in columns],
    )
    return [
        ComparisonTest(
            pair[1],
            pair[0],
            axes.group,
            label,
            metric,
            rule,
            results[c],
            effect_of(d[:, c], better=better[c], alpha=rules.alpha),
        )
        for c, (pair, label, metric) in enumerate(columns)
    ]
