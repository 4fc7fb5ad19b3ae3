"""One number of an evaluation, and the rules it was made by: what evaluate writes and reports read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from rwtool.metrics.measures import HD95Rule, Status

Undefined = Literal["diagonal", "exclude"] | float
Interval = Literal["t", "bca"]
Label = int | str
"""Value of a class in the files, or the name of a region."""


def label_order(label: Label) -> tuple[bool, Label]:
    """A key to sort labels by: classes by their value, then regions by their name."""
    return isinstance(label, str), label


@dataclass(frozen=True)
class Row:
    """One metric of one class in one case of one run of a method.

    Attributes
    ----------
    method, run, case : str
        `run` is empty where the method has one run.
    subject : str
        The unit of the tests; the case itself unless cases were grouped.
    group : str
        Separate tables, such as ED and ES; empty where there is one.
    label : int or str
        Value of the class in the files; the name of a region.
    class_name : str
    metric : str
        A key of `rwtool.metrics.measures.METRICS`.
    value : float
        NaN where undefined: no policy has been applied.
    unit : str
    status : {"ok", "missed", "hallucinated", "absent"}
    diagonal_mm : float
        Physical diagonal of the volume, for the rule 'diagonal'.
    share : float
        Share of the reference's voxels that the class takes.
    reference_ml : float
        Of a volume: that of the reference. NaN otherwise, or where unknown.
    """

    method: str
    run: str
    case: str
    subject: str
    group: str
    label: Label
    class_name: str
    metric: str
    value: float
    unit: str
    status: Status
    diagonal_mm: float
    share: float
    reference_ml: float = math.nan


@dataclass(frozen=True)
class Rules:
    """The definitions in force, as every output states them.

    Attributes
    ----------
    metrics : tuple of str
    hd95 : {"directed", "pooled"} or None
        None where rows were read from a table that does not say.
    undefined : {"diagonal", "exclude"} or float
        What distances of missed and hallucinated classes count as; a number is mm.
    nsd_tolerance_mm : tuple of (int or str, float)
        Label and tolerance; empty without NSD.
    ignore : int or None
        Label value of voxels without a class.
    permutations, seed : int
    alpha : float
        Level of the intervals and of the stars.
    subject : str or None
        The regex that names the subject of a case.
    interval : {"t", "bca"}
        Of each mean over subjects: Student's t, or the BCa bootstrap.
    margin : tuple of (str, float)
        Metric, and the size of a mean difference that does not matter in its unit.
    """

    metrics: tuple[str, ...] = ("dice", "hd95", "hd")
    hd95: HD95Rule | None = "directed"
    undefined: Undefined = "diagonal"
    nsd_tolerance_mm: tuple[tuple[Label, float], ...] = ()
    ignore: int | None = None
    permutations: int = 10_000
    seed: int = 0
    alpha: float = 0.05
    subject: str | None = None
    interval: Interval = "t"
    margin: tuple[tuple[str, float], ...] = ()
