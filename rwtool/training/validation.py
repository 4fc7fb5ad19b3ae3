"""Validation in 3D, per case, on the native grid."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch.distributed as dist

from rwtool.datasets.classes import Classes
from rwtool.files import make_folder, remove_leftovers
from rwtool.metrics.measures import ClassMetrics, Status, evaluate_labels
from rwtool.network.segmenter import Segmenter, write_labels
from rwtool.training.cache import as_array
from rwtool.training.cohort import Cohort
from rwtool.training.distributed import Processes


@dataclass(frozen=True)
class ClassResult:
    """One foreground class over the validation cases.

    Attributes
    ----------
    label : int
        Its value in the files.
    name : str
    dice : float
        Mean over the cases where the class is in reference or prediction; NaN without any.
    hd_mm, hd95_mm : float
        Means over the cases where it is in both; NaN unless measured.
    counts : dict of str to int
        Cases by status: ok, missed, hallucinated, absent.
    """

    label: int
    name: str
    dice: float
    hd_mm: float
    hd95_mm: float
    counts: dict[str, int]


@dataclass(frozen=True)
class Validation:
    """The validation cases, class by class."""

    classes: tuple[ClassResult, ...]

    @property
    def mean_dice(self) -> float:
        """Mean over the foreground classes that occur."""
        values = [found.dice for found in self.classes if not math.isnan(found.dice)]
        return float(np.mean(values)) if values else math.nan

    def dice_columns(self) -> dict[str, float]:
        """Mean Dice by column of ``metrics.csv``."""
        return {f"dice_{found.label}": found.dice for found in self.classes}

    def as_dict(self) -> list[dict[str, Any]]:
        """Plain values for JSON, None for NaN."""
        return [
            {
                "label": found.label,
                "name": found.name,
                **{
                    key: None if math.isnan(value) else value
                    for key, value in (("dice", found.dice), ("hd95_mm", found.hd95_mm), ("hd_mm", found.hd_mm))
                },
                **found.counts,
            }
            for found in self.classes
        ]


def validate(
    segmenter: Segmenter,
    cohort: Cohort,
    processes: Processes,
    *,
    distances: bool = False,
    predictions: Path | None = None,
) -> Validation:
    """Segment the validation cases, each process its share, and measure them through `rwtool.metrics.measures`.

    Parameters
    ----------
    segmenter : Segmenter
    cohort : Cohort
    processes : Processes
    distances : bool
        Measure HD and HD95 too.
    predictions : Path, optional
        Folder to write the label files to.
    """
    if predictions is not None:
        make_folder(predictions)
        remove_leftovers(predictions)
    found: list[list[ClassMetrics]] = []
    for name in cohort.split.val[processes.rank :: processes.count]:
        case = cohort.cases[name]
        reference = case.whole_reference()
        size = case.turn.order(reference.array.shape)[1:]
        labels = case.turn.undo(segmenter.labels(as_array(case.image), size))
        found.append(
            evaluate_labels(
                reference.array,
                labels,
                reference.spacing_mm,
                n_classes=len(cohort.classes),
                distances=distances,
                ignore=reference.ignored,
            )
        )
        if predictions is not None:
            write_labels(predictions, name, labels, reference.geometry, cohort.dataset.paths[name], cohort.classes)
    if processes.count > 1:
        shares: list[Any] = [None] * processes.count
        dist.all_gather_object(shares, found)
        found = [case for share in shares for case in share]
    return Validation(tuple(_over_cases(cohort.classes, k, found) for k in range(1, len(cohort.classes))))


def _over_cases(classes: Classes, k: int, cases: list[list[ClassMetrics]]) -> ClassResult:
    mine = [metrics for case in cases for metrics in case if metrics.label == k]
    return ClassResult(
        classes.values[k],
        classes.names[k],
        _mean([metrics.dice for metrics in mine if metrics.status != "absent"]),
        _mean([metrics.hd_mm for metrics in mine if metrics.status == "ok"]),
        _mean([metrics.hd95_mm for metrics in mine if metrics.status == "ok"]),
        {status: sum(metrics.status == status for metrics in mine) for status in get_args(Status)},
    )


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else math.nan
