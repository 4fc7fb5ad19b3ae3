"""Rows written by hand."""

import math

from rwtool.evaluation.rows import Row
from rwtool.metrics.measures import METRICS


def row(method, case, value, *, metric="dice", status="ok", label=1, run="", subject=None, group="", **changes):
    """One row; a share of 0.1 where the reference has the class, a diagonal of 100 mm."""
    fields = {
        "method": method, "run": run, "case": case, "subject": subject or case, "group": group, "label": label,
        "class_name": {0: "background", 1: "RV", 2: "MYO"}[label], "metric": metric,
        "value": math.nan if value is None else value, "unit": METRICS[metric].unit, "status": status,
        "diagonal_mm": 100.0, "share": 0.1 if status in ("ok", "missed") else 0.0,
    }  # fmt: skip
    return Row(**{**fields, **changes})


def structure(method, case, status, *, dice=None, hd=None, nsd=None, **fields):
    """Dice, HD and NSD of one class as `evaluate_labels` gives them for that status."""
    one_sided = status in ("missed", "hallucinated")
    values = {"dice": 0.0 if one_sided else dice, "hd": hd, "nsd": 0.0 if one_sided else nsd}
    return [row(method, case, value, metric=metric, status=status, **fields) for metric, value in values.items()]


def series(method, values, **fields):
    """One value per case c0, c1, ..."""
    return [row(method, f"c{i}", value, **fields) for i, value in enumerate(values)]


NASTY = r"a_b & 50 % #1 {x} $y$ \z ~ ^ <q> | [r] *"
"""A method that no format takes as it is."""


def tiny():
    """Two methods, six cases: the new one gains 1/8 to 5/8 in Dice and 2 mm, and misses c5."""
    rows = []
    for i in range(6):
        rows += structure("old", f"c{i}", "ok", dice=0.25, hd=10.0)[:2]
        missed = i == 5
        rows += structure(
            "new", f"c{i}", "missed" if missed else "ok", dice=0.375 + 0.125 * i, hd=None if missed else 8.0
        )[:2]
    return rows
