"""Rows of one group as arrays, the rules for what is undefined in them, and the differences of two methods."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from rwtool.datasets.subjects import average_runs
from rwtool.errors import UsageError
from rwtool.evaluation.rows import Label, Row, Undefined, label_order
from rwtool.metrics.measures import METRICS, Status, undefined_mm

STATUSES: tuple[Status, ...] = get_args(Status)
NO_ROW = -1
_MISSED, _HALLUCINATED, _ABSENT = (STATUSES.index(status) for status in ("missed", "hallucinated", "absent"))
_EMPTY_IS_RIGHT = {"dice": 1.0, "nsd": 1.0, "hd95": 0.0, "hd": 0.0, "assd": 0.0, "masd": 0.0}

Floats = NDArray[np.float64]


class Arm(NamedTuple):
    """One method in one group."""

    values: Floats  # (n_runs, n_cases, n_classes, n_metrics), raw: NaN where undefined or without a row
    status: NDArray[np.int8]  # (n_runs, n_cases, n_classes), index in STATUSES or NO_ROW


class Axes(NamedTuple):
    """What the axes of the arrays of a group stand for."""

    group: str
    cases: tuple[str, ...]
    labels: tuple[Label, ...]
    metrics: tuple[str, ...]
    subjects: tuple[str, ...]
    diagonals_mm: Floats

    @property
    def is_distance(self) -> NDArray[np.bool_]:
        """(n_metrics,): which metrics are in mm."""
        return np.array([METRICS[metric].unit == "mm" for metric in self.metrics])

    def columns(self) -> list[tuple[Label, str]]:
        """Label and metric of each column of `differences`."""
        return [(label, metric) for label in self.labels for metric in self.metrics]


def check_rows(rows: Sequence[Row]) -> None:
    """Refuse rows that contradict one another: they would be paired wrongly."""
    seen: set[tuple[str, str, str, Label, str]] = set()
    of_case: dict[str, Row] = {}
    of_class: dict[tuple[str, Label], Row] = {}
    for row in rows:
        if row.metric not in METRICS:
            raise UsageError(f"there is no metric {row.metric!r}; give some of {', '.join(METRICS)}")
        if math.isinf(row.value):
            raise UsageError(
                f"{row.method}, {row.case}, class {row.label}: {row.metric} is infinite; give NaN where it is undefined"
            )
        key = (row.method, row.run, row.case, row.label, row.metric)
        if key in seen:
            run = f" run {row.run}" if row.run else ""
            raise UsageError(
                f"{row.method}{run} has two values of {row.metric} for class {row.label} in {row.case}; give each once"
            )
        seen.add(key)
        first = of_case.setdefault(row.case, row)
        for what in ("group", "subject"):
            if getattr(first, what) != getattr(row, what):
                raise UsageError(
                    f"{row.case} has two {what}s: {getattr(first, what)!r} with {first.method}, "
                    f"{getattr(row, what)!r} with {row.method}; give it the same with every method"
                )
        other = of_class.setdefault((row.case, row.label), row)
        if not (_same(row.diagonal_mm, first.diagonal_mm) and _same(row.share, other.share)):
            raise UsageError(
                f"{row.method} and {other.method} were not measured against the same reference: in {row.case} class "
                f"{row.label} takes {row.share:.6g} and {other.share:.6g} of the voxels, and the diagonal is "
                f"{row.diagonal_mm:.6g} and {first.diagonal_mm:.6g} mm; evaluate both against the same files"
            )


def _same(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-6) or (math.isnan(a) and math.isnan(b))


def arrays(
    rows: Sequence[Row], group: str, metrics: tuple[str, ...], runs: dict[str, tuple[str, ...]]
) -> tuple[Axes, dict[str, Arm]]:
    """Put the rows of a group into arrays, all methods over the same cases."""
    of_case = {row.case: row for row in rows}
    cases = tuple(sorted(of_case))  # nothing depends on the order of the rows
    labels = tuple(sorted({row.label for row in rows}, key=label_order))
    subjects = tuple(of_case[case].subject for case in cases)
    diagonals = np.array([of_case[case].diagonal_mm for case in cases])
    axes = Axes(group, cases, labels, metrics, subjects, diagonals)
    arms = {
        method: Arm(
            np.full((len(names), len(cases), len(labels), len(metrics)), np.nan),
            np.full((len(names), len(cases), len(labels)), NO_ROW, dtype=np.int8),
        )
        for method, names in runs.items()
    }
    at_run = {(method, run): i for method, names in runs.items() for i, run in enumerate(names)}
    at_case, at_label, at_metric = ({name: i for i, name in enumerate(axis)} for axis in (cases, labels, metrics))
    for row in rows:
        run, case, label = at_run[row.method, row.run], at_case[row.case], at_label[row.label]
        arms[row.method].values[run, case, label, at_metric[row.metric]] = row.value
        arms[row.method].status[run, case, label] = STATUSES.index(row.status)
    return axes, arms


def under(rule: Undefined, axes: Axes, arm: Arm) -> Floats:
    """Give the distances of missed and hallucinated structures the value of the rule."""
    mm = np.array([undefined_mm(rule, diagonal) for diagonal in axes.diagonals_mm])[:, None, None]
    one_sided = np.isin(arm.status, (_MISSED, _HALLUCINATED))[..., None]
    return np.where(one_sided & axes.is_distance & np.isnan(arm.values), mm, arm.values)


class Differences(NamedTuple):
    """Differences of two methods and the size of what they come from."""

    values: Floats  # (n_cases, n_classes * n_metrics); NaN where the pair is undefined
    largest: Floats  # (n_classes * n_metrics,): the largest value of either method, whatever its sign


def case_means(rule: Undefined, axes: Axes, arms: Sequence[Arm]) -> list[Floats]:
    """Each method's (n_cases, n_classes * n_metrics) values, after the rule and the mean over runs.

    Where the reference lacks a class that some run of some method hallucinates, those that leave it empty are right.
    """
    hallucinated = np.any([(arm.status == _HALLUCINATED).any(axis=0) for arm in arms], axis=0)
    right = np.array([_EMPTY_IS_RIGHT.get(metric, math.nan) for metric in axes.metrics])
    means = []
    for arm in arms:
        values = under(rule, axes, arm)
        empty_is_right = ((arm.status == _ABSENT) & hallucinated)[..., None] & np.isnan(values)
        means.append(average_runs(np.where(empty_is_right, right, values)).reshape(len(axes.cases), -1))
    return means


def differences(rule: Undefined, axes: Axes, arm: Arm, baseline: Arm) -> Differences:
    """Take one method from the other, case by case, after the rule and the mean over runs."""
    means = case_means(rule, axes, (arm, baseline))
    largest = np.fmax.reduce(np.abs(np.concatenate(means)), axis=0, initial=0.0)
    return Differences(means[0] - means[1], largest)


def without_rounding(differences: Floats, largest: Floats) -> Floats:
    """Round differences, column by column, to 13 digits of the largest value that they come from.

    What lies below is rounding of the means over runs, cases and boundary voxels, and must neither break a tie nor make
    equal differences unequal.

    Examples
    --------
    >>> without_rounding(np.array([[0.3 - 0.2], [(0.1 + 0.7) / 2 - 0.4]]), np.array([0.4])).tolist()
    [[0.1], [0.0]]
    """
    digits = [0 if size == 0 else 12 - math.floor(math.log10(size)) for size in largest]
    rounded = [np.round(column, digit) for column, digit in zip(differences.T, digits, strict=True)]
    return np.column_stack(rounded) + 0.0  # no -0
