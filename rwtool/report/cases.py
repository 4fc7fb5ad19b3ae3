"""Every case of a comparison: its values as the tables take them, the worst of them, and how often what was wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rwtool.datasets.subjects import average_runs
from rwtool.evaluation.rows import Label, Row, Rules
from rwtool.metrics.measures import METRICS
from rwtool.report.text import Table, class_title, metric_title, number_text, table_title
from rwtool.statistics.arms import STATUSES, Arm, Axes, Floats, arrays, under
from rwtool.statistics.comparison import Comparison
from rwtool.statistics.pairs import subject_differences

WORST = 10
"""Cases of each method that are shown."""

_ONE_SIDED = tuple(STATUSES.index(status) for status in ("missed", "hallucinated"))


@dataclass(frozen=True, eq=False)
class Differences:
    """Method - baseline, over the subjects of a group.

    Attributes
    ----------
    values : (n_subjects, n_classes, n_metrics) float array
        NaN where undefined.
    one_sided : (n_subjects, n_classes) bool array
        Either method missed or hallucinated the class in a case of the subject.
    """

    values: Floats
    one_sided: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class GroupValues:
    """All cases of a group.

    Attributes
    ----------
    axes : Axes
    arms : dict of str to Arm
        What was measured, by method.
    values : dict of str to (n_cases, n_classes, n_metrics) float array
        Under the rule in force, after the mean over runs; NaN where undefined.
    one_sided : dict of str to (n_cases, n_classes) bool array
        Where some run of the method missed or hallucinated the class.
    differences : dict of str to Differences
        By method, where there is a baseline.
    reference_ml : (n_cases, n_classes) float array, or None
        Volumes of the reference, where volumes were measured; NaN where unknown.
    """

    axes: Axes
    arms: dict[str, Arm]
    values: dict[str, Floats]
    one_sided: dict[str, NDArray[np.bool_]]
    differences: dict[str, Differences]
    reference_ml: Floats | None


@dataclass(frozen=True)
class WorstCase:
    """One of the worst cases of a method.

    Attributes
    ----------
    method, case, group : str
    run : str
        The worst run of the method; empty where it has one.
    score : float
        Mean of the metric of :func:`worst_metric` over the classes, and over the runs.
    label : int or str
        The worst class.
    values : (n_metrics,) tuple of float
        Of that class, as in the tables.
    status : str
        Of that class in that run.
    """

    method: str
    case: str
    group: str
    run: str
    score: float
    label: Label
    values: tuple[float, ...]
    status: str


def group_values(rows: Sequence[Row], comparison: Comparison, rules: Rules, group: str) -> GroupValues:
    """Take the rows of a group together, by the same steps as the tables and the tests."""
    members = [row for row in rows if row.group == group]
    axes, arms = arrays(members, group, comparison.metrics, comparison.runs)
    values = {method: average_runs(under(rules.undefined, axes, arm)) for method, arm in arms.items()}
    one_sided: dict[str, NDArray[np.bool_]] = {
        method: np.asarray(np.isin(arm.status, _ONE_SIDED).any(axis=0)) for method, arm in arms.items()
    }
    differences = {}
    if comparison.baseline is not None:
        names, subject = np.unique(np.asarray(axes.subjects, dtype=str), return_inverse=True)  # as average_subjects
        for method in comparison.methods:
            if method != comparison.baseline:
                pair = (method, comparison.baseline)
                found = subject_differences(rules.undefined, axes, arms, pair).values
                either = one_sided[method] | one_sided[comparison.baseline]
                of_subjects = np.zeros((len(names), len(axes.labels)), dtype=bool)
                np.logical_or.at(of_subjects, subject, either)
                shape = (len(names), len(axes.labels), len(axes.metrics))
                differences[method] = Differences(found.reshape(shape), of_subjects)
    known = {(r.case, r.label): r.reference_ml for r in members if r.metric == "volume_ml" and r.reference_ml >= 0}
    reference = np.array([[known.get((case, label), math.nan) for label in axes.labels] for case in axes.cases])
    return GroupValues(axes, arms, values, one_sided, differences, reference if known else None)


def worst_metric(comparison: Comparison) -> str | None:
    """The first metric with a better direction: cases are worst by it."""
    return next((metric for metric in comparison.metrics if METRICS[metric].better), None)


def worst_cases(groups: Sequence[GroupValues], comparison: Comparison, rules: Rules) -> dict[str, list[WorstCase]]:
    """Find the worst cases of each method, over all groups, the worst first.

    A case is as bad as the mean over its foreground classes, in the metric of :func:`worst_metric`. The distance of a
    missed or hallucinated structure counts as the rule in force has it; under `exclude` as the diagonal.
    """
    metric = worst_metric(comparison)
    found: dict[str, list[WorstCase]] = {method: [] for method in comparison.methods}
    if metric is None:
        return found
    rule = "diagonal" if rules.undefined == "exclude" else rules.undefined
    for group in groups:
        axes, m = group.axes, group.axes.metrics.index(metric)
        foreground = [c for c, label in enumerate(axes.labels) if label != 0] or list(range(len(axes.labels)))
        for method, arm in group.arms.items():
            badness = -METRICS[metric].better * under(rule, axes, arm)[..., m]
            badness = badness[:, :, foreground]  # (n_runs, n_cases, n_classes)
            for i, case in enumerate(axes.cases):
                known = ~np.isnan(badness[:, i])
                if not known.any():
                    continue
                of_runs = [
                    float(b[k].mean()) if k.any() else -math.inf for b, k in zip(badness[:, i], known, strict=True)
                ]
                run = int(np.argmax(of_runs))
                c = foreground[int(np.nanargmax(badness[run, i]))]
                found[method].append(
                    WorstCase(
                        method,
                        case,
                        axes.group,
                        comparison.runs[method][run],
                        -METRICS[metric].better * float(np.mean([mean for mean in of_runs if mean > -math.inf])) + 0.0,
                        axes.labels[c],
                        tuple(float(value) for value in group.values[method][i, c]),
                        STATUSES[arm.status[run, i, c]],
                    )
                )
    better = METRICS[metric].better
    return {method: sorted(cases, key=lambda w: better * w.score)[:WORST] for method, cases in found.items()}


def worst_table(worst: Sequence[WorstCase], comparison: Comparison) -> Table | None:
    """The worst cases of one method; None without any."""
    metric = worst_metric(comparison)
    if not worst or metric is None:
        return None
    titles = {(c.group, c.label): class_title(c) for c in comparison.classes}
    grouped, several = comparison.groups != ("",), len(comparison.runs[worst[0].method]) > 1
    heads = (
        "place", "case", *["group"] * grouped, *["worst run"] * several, "worst class", "status",
        f"mean {metric_title(metric)}", *(metric_title(name) for name in comparison.metrics),
    )  # fmt: skip
    lines = []
    for place, case in enumerate(worst, start=1):
        numbers = (number_text(value, name) for value, name in zip(case.values, comparison.metrics, strict=True))
        lines.append(
            (
                str(place), case.case, *[case.group] * grouped, *[case.run] * several,
                titles[case.group, case.label], case.status, number_text(case.score, metric), *numbers,
            )
        )  # fmt: skip
    return Table(
        f"{worst[0].method}: the {len(lines)} worst by mean {metric_title(metric)}", heads, lines, 4 + grouped + several
    )


def count_table(comparison: Comparison, group: str) -> Table:
    """How often each status occurs, for every class and method."""
    titles = {summary.label: class_title(summary) for summary in comparison.classes if summary.group == group}
    lines = []
    above: Label | None = None
    for count in comparison.counts:
        if count.group == group:
            numbers = (count.ok, count.missed, count.hallucinated, count.absent, count.no_result)
            opening = "" if count.label == above else titles[count.label]
            lines.append((opening, count.method, *map(str, numbers)))
            above = count.label
    heads = ("class", "method", "in both", "missed", "hallucinated", "absent", "no result")
    return Table(table_title(comparison, group, "structures"), heads, lines, 2)
