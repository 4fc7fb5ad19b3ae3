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
