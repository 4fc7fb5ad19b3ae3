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
from rwtool.metrics.measures import ClassMetrics, Status, diagonal_mm, evaluate_labels
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
    hd_diagonal_mm, hd95_diagonal_mm : float
        Means over the cases where it is in either, as in ``rwtool evaluate``: the diagonal of the volume stands for a
        missed or hallucinated one, so that no network gains by missing it.
    """

    label: int
    name: str
    dice: float
    hd_mm: float
    hd95_mm: float
    counts: dict[str, int]
    hd_diagonal_mm: float = math.nan
    hd95_diagonal_mm: float = math.nan


@dataclass(frozen=True)
class Validation:
    """The validation cases, class by class."""

    classes: tuple[ClassResult, ...]

    @property
    def mean_dice(self) -> float:
        """Mean over the foreground classes that occur."""
        return _mean_known([found.dice for found in self.classes])

    def dice_columns(self) -> dict[str, float]:
        """Mean Dice by column of ``metrics.csv``."""
        return {f"dice_{found.label}": found.dice for found in self.classes}

    def distance_columns(self) -> dict[str, float]:
        """Mean HD and HD95 by column of ``metrics.csv``, over the classes and of each, with the diagonal."""
        columns = {}
        for name, field in (("hd_mm", "hd_diagonal_mm"), ("hd95_mm", "hd95_diagonal_mm")):
            values = {found.label: getattr(found, field) for found in self.classes}
            columns[name] = _mean_known(list(values.values()))
            columns |= {f"{name}_{label}": value for label, value in values.items()}
        return columns

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
    found: list[_Measured] = []
    for name in cohort.split.val[processes.rank :: processes.count]:
        case = cohort.cases[name]
        reference = case.whole_reference()
        size = case.turn.order(reference.array.shape)[1:]
        labels = case.turn.undo(segmenter.labels(as_array(case.image), size))
        metrics = evaluate_labels(
            reference.array,
            labels,
            reference.spacing_mm,
            n_classes=len(cohort.classes),
            distances=distances,
            ignore=reference.ignored,
        )
        diagonal = diagonal_mm(reference.array.shape, reference.spacing_mm) if distances else math.nan
        found.append(_Measured(metrics, diagonal))
        if predictions is not None:
            write_labels(predictions, name, labels, reference.geometry, cohort.dataset.paths[name], cohort.classes)
    if processes.count > 1:
        shares: list[Any] = [None] * processes.count
        dist.all_gather_object(shares, found)
        found = [case for share in shares for case in share]
    return Validation(tuple(_over_cases(cohort.classes, k, found) for k in range(1, len(cohort.classes))))


@dataclass(frozen=True)
class _Measured:
    """The classes of a case, and the diagonal of its volume in mm; NaN where no distance is measured."""

    classes: list[ClassMetrics]
    diagonal_mm: float

    def with_diagonal(self, metrics: ClassMetrics, name: str) -> float:
        """A distance of a class, or what stands for it; NaN where the class is in neither."""
        if metrics.status in ("missed", "hallucinated"):
            return self.diagonal_mm
        return float(getattr(metrics, name))


def _over_cases(classes: Classes, k: int, cases: list[_Measured]) -> ClassResult:
    pairs = [(case, metrics) for case in cases for metrics in case.classes if metrics.label == k]
    mine = [metrics for _, metrics in pairs]
    hd, hd95 = (
        _mean_known([case.with_diagonal(metrics, name) for case, metrics in pairs]) for name in ("hd_mm", "hd95_mm")
    )
    return ClassResult(
        classes.values[k],
        classes.names[k],
        _mean([metrics.dice for metrics in mine if metrics.status != "absent"]),
        _mean([metrics.hd_mm for metrics in mine if metrics.status == "ok"]),
        _mean([metrics.hd95_mm for metrics in mine if metrics.status == "ok"]),
        {status: sum(metrics.status == status for metrics in mine) for status in get_args(Status)},
        hd,
        hd95,
    )


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else math.nan


def _mean_known(values: list[float]) -> float:
    return _mean([value for value in values if not math.isnan(value)])
