"""Rows of an evaluation -> means, counts and paired tests of methods.

A value goes this way: raw (NaN where undefined) -> the rule for missed and hallucinated structures -> mean over the
runs of a method -> mean and SD over cases. Tests take the difference of two methods per case after the same steps,
then its mean per subject. Under "exclude" nothing is filled in, and only cases count that both arms define.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from rwtool.datasets.subjects import average_runs, average_subjects, suggest_subject_regex
from rwtool.errors import UsageError
from rwtool.evaluation.rows import Label, Row, Rules
from rwtool.metrics.measures import METRICS
from rwtool.statistics.agreement import Agreement, volume_agreement
from rwtool.statistics.arms import NO_ROW, STATUSES, Arm, Axes, Floats, arrays, check_rows, under
from rwtool.statistics.intervals import mean_intervals
from rwtool.statistics.pairs import ComparisonTest, paired_tests
from rwtool.statistics.pairs import all_pairs as every_pair
from rwtool.statistics.ranking import Ranking, rank_methods


@dataclass(frozen=True)
class Spread:
    """Mean, SD (n - 1) and median over `n` cases, and an interval; None where there are too few.

    `ci_low` and `ci_high` are the 1 - alpha interval of the mean over `subjects` subjects, each the mean of its cases:
    repeated scans of a subject say less about others than as many subjects would.
    """

    n: int
    mean: float | None
    sd: float | None
    median: float | None
    subjects: int
    ci_low: float | None
    ci_high: float | None


@dataclass(frozen=True)
class Cell:
    """One metric of one class for one method.

    Attributes
    ----------
    method, group, metric : str
    label : int or str
    spread : Spread
        Over the cases that are defined under the rule in force.
    exclude : Spread or None
        For a distance: over the cases where every method has one without a rule; None where it is the same.
    undefined : int
        Cases that are not in `spread`.
    """

    method: str
    group: str
    label: Label
    metric: str
    spread: Spread
    exclude: Spread | None
    undefined: int


@dataclass(frozen=True)
class Counts:
    """How often each status occurs for one method and class, over cases and runs; `no_result` had no row."""

    method: str
    group: str
    label: Label
    ok: int
    missed: int
    hallucinated: int
    absent: int
    no_result: int


@dataclass(frozen=True)
class GroupClass:
    """One class in one group: its name, the mean share of the reference's voxels, and how many cases and subjects."""

    group: str
    label: Label
    name: str
    share: float | None
    cases: int
    subjects: int


@dataclass(frozen=True)
class NoResult:
    """Cases of a group that a run of a method has no row for."""

    method: str
    run: str
    group: str
    cases: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """What the rows say.

    Attributes
    ----------
    methods : tuple of str
        In order of first appearance.
    runs : dict of str to tuple of str
        Of each method.
    baseline : str or None
        None without tests.
    groups : tuple of str
        Sorted; ('',) where there is one.
    metrics : tuple of str
        In order of first appearance.
    classes : tuple of GroupClass
        By group and label.
    cells : tuple of Cell
        By group, label, method, metric.
    counts : tuple of Counts
        By group, label, method.
    tests : tuple of ComparisonTest
        By group, method, rule, label, metric.
    no_results : tuple of NoResult
    suggested_subject : str or None
        A regex for `subject` where cases look like repeated scans of a subject and were not grouped.
    pairs : tuple of ComparisonTest
        Every method against every other, if that was asked for: one family a group and rule.
    rankings : tuple of Ranking
        If they were asked for.
    agreement : tuple of Agreement
        By group, label, method, where volumes were measured.
    rank_tests : tuple of ComparisonTest
        The tests of all pairs that `test-then-rank` counts, if rankings were asked for.
    incomplete : tuple of str
        What of the cases is known to be missing.
    """

    methods: tuple[str, ...]
    runs: dict[str, tuple[str, ...]]
    baseline: str | None
    groups: tuple[str, ...]
    metrics: tuple[str, ...]
    classes: tuple[GroupClass, ...]
    cells: tuple[Cell, ...]
    counts: tuple[Counts, ...]
    tests: tuple[ComparisonTest, ...]
    no_results: tuple[NoResult, ...]
    suggested_subject: str | None
    pairs: tuple[ComparisonTest, ...] = ()
    rankings: tuple[Ranking, ...] = ()
    agreement: tuple[Agreement, ...] = ()
    rank_tests: tuple[ComparisonTest, ...] = ()
    incomplete: tuple[str, ...] = ()


def compare_rows(
    rows: Sequence[Row],
    rules: Rules,
    *,
    baseline: str | None = None,
    test: bool = True,
    all_pairs: bool = False,
    rank: bool = False,
) -> Comparison:
    """Describe the methods and test each against the baseline.

    Parameters
    ----------
    rows : sequence of Row
        Raw values: `rules.undefined` is applied here. A case without a row in some run is undefined for the method.
    rules : Rules
    baseline : str, optional
        Method that the others are tested against; default the first.
    test : bool
        False leaves the tests against the baseline out.
    all_pairs : bool
        Test every method against every other too.
    rank : bool
        Rank the methods, and see how firm the ranks are.

    Returns
    -------
    Comparison

    Raises
    ------
    UsageError
        The baseline is no method, a margin is of no metric, or rows contradict one another.

    Notes
    -----
    A reference that lacks a class, in a pair: where some run of either method hallucinates it, every run that leaves
    it empty is right (Dice 1, NSD 1, distance 0); where none does, the pair is left out and counted. With one run per
    method that is: exactly one arm hallucinates, and the empty one scores full marks.

    max-T and Holm adjust over the foreground classes and metrics of one method, group and rule for distances; class 0
    is the background. Those of all pairs adjust over the pairs too.
    """
    if not rows:
        raise UsageError("there are no rows to compare; give those of an evaluation, or a cases.csv that holds some")
    check_rows(rows)
    methods = _unique(row.method for row in rows)
    if baseline is not None and baseline not in methods:
        raise UsageError(f"found baseline={baseline!r}, and no such method; give one of {', '.join(methods)}")
    runs = {method: tuple(sorted({row.run for row in rows if row.method == method})) for method in methods}
    groups = tuple(sorted({row.group for row in rows}))
    metrics = _unique(row.metric for row in rows)
    check_margins(rules, metrics)
    if (all_pairs or rank) and len(methods) < 2:
        what = "all_pairs=True" if all_pairs else "rank=True"
        raise UsageError(f"{what} compares methods and there is one, {methods[0]}; give rows of another one too")
    tested = (baseline or methods[0]) if test and len(methods) > 1 else None

    classes: list[GroupClass] = []
    cells: list[Cell] = []
    counts: list[Counts] = []
    tests: list[ComparisonTest] = []
    pairs: list[ComparisonTest] = []
    rankings: list[Ranking] = []
    rank_tests: list[ComparisonTest] = []
    agreement: list[Agreement] = []
    no_results: list[NoResult] = []
    for group in groups:
        members = [row for row in rows if row.group == group]
        axes, arms = arrays(members, group, metrics, runs)
        classes += _classes(members, axes)
        cells += _cells(axes, arms, rules)
        counts += _counts(axes, arms)
        no_results += _no_results(axes, arms, runs)
        agreement += _agreement(members, axes, arms)
        if tested is not None:
            for method in methods:
                if method != tested:
                    tests += paired_tests(axes, arms, [(method, tested)], rules)
        if all_pairs or rank:
            of_group = paired_tests(axes, arms, every_pair(methods), rules)
            pairs += of_group if all_pairs else []
            if rank:
                rankings += rank_methods(axes, arms, of_group, rules)
                rank_tests += [test for test in of_group if test.undefined == rules.undefined]

    ungrouped = all(row.subject == row.case for row in rows)
    suggestion = suggest_subject_regex({row.case for row in rows}) if ungrouped and not rules.subject else None
    return Comparison(
        methods, runs, tested, groups, metrics, tuple(classes), tuple(cells), tuple(counts), tuple(tests),
        tuple(no_results), suggestion, tuple(pairs), tuple(rankings), tuple(agreement),
        tuple(rank_tests),
    )  # fmt: skip


def check_margins(rules: Rules, metrics: Sequence[str]) -> None:
    """Refuse margins of metrics that are not compared, and sizes that are none."""
    for metric, size in rules.margin:
        if metric not in metrics:
            raise UsageError(f"margin= names {metric!r}, which is not measured; the metrics are {', '.join(metrics)}")
        if not 0 < size < math.inf:
            raise UsageError(f"margin= of {metric} is a size above 0, in its unit, such as 0.01; found {size:g}")
    if rules.margin and rules.alpha >= 0.5:
        raise UsageError(f"margin= takes an interval at 1 - 2 alpha, so alpha is below 0.5; found {rules.alpha:g}")


def _unique(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))


def _classes(rows: Sequence[Row], axes: Axes) -> list[GroupClass]:
    shares = {(row.label, row.case): row.share for row in rows}
    names = {row.label: row.class_name for row in reversed(rows)}
    found = []
    for label in axes.labels:
        known = [shares[label, case] for case in axes.cases if not math.isnan(shares.get((label, case), math.nan))]
        share = float(np.mean(known)) if known else None
        found.append(GroupClass(axes.group, label, names[label], share, len(axes.cases), len(set(axes.subjects))))
    return found


def _spreads(values: Floats, axes: Axes, rules: Rules) -> dict[tuple[Label, str], Spread]:
    """Describe the (n_cases, n_classes, n_metrics) values of one method, column by column."""
    columns = values.reshape(len(values), -1)
    of_subjects = average_subjects(columns, axes.subjects).values
    limits = [METRICS[metric].limits for _, metric in axes.columns()]
    intervals = mean_intervals(of_subjects, method=rules.interval, alpha=rules.alpha, limits=limits, seed=rules.seed)
    found = {}
    for c, place in enumerate(axes.columns()):
        known = columns[~np.isnan(columns[:, c]), c]
        n = len(known)
        low, high = (None if math.isnan(end) else float(end) for end in intervals[c])
        found[place] = Spread(
            n,
            float(known.mean()) if n else None,
            float(known.std(ddof=1)) if n > 1 else None,
            float(np.median(known)) if n else None,
            int((~np.isnan(of_subjects[:, c])).sum()),
            low,
            high,
        )
    return found


def _cells(axes: Axes, arms: dict[str, Arm], rules: Rules) -> list[Cell]:
    """Describe each method under the rule in force, and distances without one too."""
    strict = {method: average_runs(arm.values) for method, arm in arms.items()}
    # "exclude" compares methods over the same cases; one that has no value at all does not count.
    defined = [~np.isnan(values) for values in strict.values()]
    shared = np.all([known | ~known.any(axis=0) for known in defined], axis=0)
    strict = {m: np.where(shared | ~axes.is_distance, values, np.nan) for m, values in strict.items()}
    ruled = strict
    if rules.undefined != "exclude":
        ruled = {method: average_runs(under(rules.undefined, axes, arm)) for method, arm in arms.items()}
    spreads = {method: _spreads(values, axes, rules) for method, values in ruled.items()}
    excludes = {method: _spreads(values, axes, rules) for method, values in strict.items()}
    cells = []
    for c, label in enumerate(axes.labels):
        for method in arms:
            for m, metric in enumerate(axes.metrics):
                spread = spreads[method][label, metric]
                same = np.array_equal(ruled[method][:, c, m], strict[method][:, c, m], equal_nan=True)
                other = None if same else excludes[method][label, metric]
                cells.append(Cell(method, axes.group, label, metric, spread, other, len(axes.cases) - spread.n))
    return cells


def _counts(axes: Axes, arms: dict[str, Arm]) -> list[Counts]:
    found = []
    for c, label in enumerate(axes.labels):
        for method, arm in arms.items():
            ok, missed, hallucinated, absent, no_result = (
                int((arm.status[:, :, c] == status).sum()) for status in (*range(len(STATUSES)), NO_ROW)
            )
            found.append(Counts(method, axes.group, label, ok, missed, hallucinated, absent, no_result))
    return found


def _no_results(axes: Axes, arms: dict[str, Arm], runs: dict[str, tuple[str, ...]]) -> list[NoResult]:
    found = []
    for method, arm in arms.items():
        lacking = (arm.status == NO_ROW).all(axis=2)
        for run, cases in zip(runs[method], lacking, strict=True):
            if cases.any():
                names = tuple(case for case, lacks in zip(axes.cases, cases, strict=True) if lacks)
                found.append(NoResult(method, run, axes.group, names))
    return found


def _agreement(rows: Sequence[Row], axes: Axes, arms: dict[str, Arm]) -> list[Agreement]:
    """Volumes beside those of the reference, where both are known."""
    known = {(r.case, r.label): r.reference_ml for r in rows if r.metric == "volume_ml" and r.reference_ml >= 0}
    if not known:
        return []
    m = axes.metrics.index("volume_ml")
    found = []
    for c, label in enumerate(axes.labels):
        reference = [known.get((case, label), math.nan) for case in axes.cases]
        for method, arm in arms.items():
            measured = average_runs(arm.values[:, :, c, m])
            found.append(volume_agreement(measured, reference, method=method, group=axes.group, label=label))
    return [agreement for agreement in found if agreement is not None]
