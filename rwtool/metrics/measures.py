"""Overlap and boundary metrics of two label arrays, per class, in 3D and in mm.

Arrays are indexed (z, y, x) and hold class values 0..K-1; 2D is a volume of one slice. What a boundary voxel
is stands in `rwtool.metrics.surface`. Undefined values are NaN; `undefined_mm` is what a report puts for a distance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rwtool.errors import GeometryError, UsageError, VolumeError
from rwtool.metrics.overlap import joint_counts
from rwtool.metrics.surface import DirectedDistances, Labels, Pair, Spacing, surface_distances

Status = Literal["ok", "missed", "hallucinated", "absent"]
HD95Rule = Literal["directed", "pooled"]
Tolerance = float | Mapping[int, float]


class Metric(NamedTuple):
    """Where `ClassMetrics` holds a metric, its unit, whether more (1) or less (-1) of it is better, and its range."""

    field: str
    unit: str
    better: int
    limits: tuple[float, float]


METRICS = {
    "dice": Metric("dice", "", 1, (0, 1)),
    "hd95": Metric("hd95_mm", "mm", -1, (0, math.inf)),
    "hd": Metric("hd_mm", "mm", -1, (0, math.inf)),
    "assd": Metric("assd_mm", "mm", -1, (0, math.inf)),
    "masd": Metric("masd_mm", "mm", -1, (0, math.inf)),
    "nsd": Metric("nsd", "", 1, (0, 1)),
    "volume_ml": Metric("volume_ml", "ml", 0, (0, math.inf)),
    "volume_error": Metric("volume_error", "", 0, (-1, math.inf)),
}


@dataclass(frozen=True)
class ClassMetrics:
    """Metrics of one class in one case; NaN where undefined.

    Attributes
    ----------
    label : int
        The class.
    status : 'ok', 'missed', 'hallucinated' or 'absent'
        In both, in the reference only, in the prediction only, in neither.
    reference_voxels, prediction_voxels, overlap_voxels : int
        Sizes of A, B and of their intersection, without ignored voxels.
    dice : float
        2|A.B| / (|A| + |B|).
    hd95_mm, hd_mm, assd_mm, masd_mm : float
        Distances in mm; NaN unless both masks have a boundary.
    nsd : float
        Share of both boundaries within the tolerance; NaN without one. 0 for a missed or hallucinated class.
    volume_ml, reference_volume_ml : float
        Volume of the prediction and of the reference.
    volume_error : float
        (prediction - reference) / reference, signed; NaN where the reference lacks the class.
    """

    label: int
    status: Status
    reference_voxels: int
    prediction_voxels: int
    overlap_voxels: int
    dice: float
    hd95_mm: float
    hd_mm: float
    assd_mm: float
    masd_mm: float
    nsd: float
    volume_ml: float
    reference_volume_ml: float
    volume_error: float


def evaluate_labels(
    reference: Labels,
    prediction: Labels,
    spacing_mm: Sequence[float],
    *,
    n_classes: int,
    classes: Sequence[int] | None = None,
    distances: bool = True,
    hd95: HD95Rule = "directed",
    nsd_tolerance_mm: Tolerance | None = None,
    ignore: int | None = None,
    threads: int = 1,
) -> list[ClassMetrics]:
    """Compare two label arrays, class by class.

    Parameters
    ----------
    reference, prediction : (Z, Y, X) integer array
        Class values 0..n_classes-1. Memory on top of them is at most 8 bytes per voxel.
    spacing_mm : (z, y, x) float
        Voxel size in mm.
    n_classes : int
        K, the background included.
    classes : sequence of int, optional
        Classes to measure; all but the background (and `ignore`) by default.
    distances : bool
        False leaves the boundary metrics out (NaN), which is much faster.
    hd95 : 'directed' or 'pooled'
        Maximum of the two directed 95th percentiles, or the percentile of both directions together.
    nsd_tolerance_mm : float or mapping of class to float, optional
        Tolerance of the normalised surface distance, finite and at least 0; a class without one has NaN.
    ignore : int, optional
        Voxels with this value in the reference count for neither mask and make no boundary.
    threads : int
        Threads for the distances.

    Returns
    -------
    list of ClassMetrics
        In the order of `classes`.

    Raises
    ------
    GeometryError
        The shapes differ or the spacing is no spacing.
    VolumeError
        An array is not a 3D integer array, or holds a value outside 0..n_classes-1.
    UsageError
        An argument is out of its range.

    References
    ----------
    Valverde & Tohka, Region-wise Loss for Biomedical Image Segmentation, Eq. 6 (Dice) and Eq. 7 (HD).
    """
    reference, prediction, spacing = _checked(reference, prediction, spacing_mm)
    if n_classes < 1:
        raise UsageError(f"found n_classes={n_classes}; give the number of classes, the background included")
    if classes is None:
        classes = [c for c in range(1, n_classes) if c != ignore]
    for c in classes:
        if not 0 <= c < n_classes or c == ignore:
            raise UsageError(
                f"class {c} cannot be measured; give classes within 0..{n_classes - 1}, without the ignored {ignore}"
            )
    if hd95 not in ("directed", "pooled"):
        raise UsageError(f"found hd95={hd95!r}; give 'directed' or 'pooled'")
    if threads < 1:
        raise UsageError(f"found threads={threads}; give 1 or more")
    for mm in nsd_tolerance_mm.values() if isinstance(nsd_tolerance_mm, Mapping) else (nsd_tolerance_mm,):
        check_tolerance(mm)
    joint, boxes = joint_counts(reference, prediction, n_classes, ignore)
    results = []
    for c in classes:
        tolerance = nsd_tolerance_mm.get(c) if isinstance(nsd_tolerance_mm, Mapping) else nsd_tolerance_mm
        result = _class_overlap(c, joint, math.prod(spacing), tolerance)
        if distances and result.status == "ok":
            surfaces = surface_distances(Pair(reference, prediction, c, boxes[c], spacing, ignore), threads)
            if surfaces is not None:
                result = _with_distances(result, *surfaces, hd95, tolerance)
        results.append(result)
    return results


def undefined_mm(rule: str | float, diagonal: float) -> float:
    """Give the distance of a missed or hallucinated class in mm.

    Parameters
    ----------
    rule : 'diagonal', 'exclude' or float
        The volume's diagonal; nothing (NaN, to be left out and counted); or this many mm.
    diagonal : float
        `diagonal_mm` of the volume.

    Raises
    ------
    UsageError
        The rule is none of the three.
    """
    if isinstance(rule, str) and rule not in ("diagonal", "exclude"):
        raise UsageError(f"found undefined={rule!r}; give 'diagonal', 'exclude' or a number of mm")
    if not isinstance(rule, str) and not 0 <= rule < math.inf:
        raise UsageError(
            f"found undefined={rule}; give a distance of 0 mm or more that is finite, 'diagonal' or 'exclude'"
        )
    if rule == "exclude":
        return math.nan
    return diagonal if rule == "diagonal" else float(rule)


def check_tolerance(mm: float | None) -> None:
    """Refuse a tolerance of NSD that is no distance.

    Raises
    ------
    UsageError
        It is negative, infinite or NaN.
    """
    if mm is not None and not 0 <= mm < math.inf:
        raise UsageError(f"found a tolerance of {mm} mm for nsd; give a finite number of mm, 0 or more")


def diagonal_mm(shape: Sequence[int], spacing_mm: Sequence[float]) -> float:
    """Physical diagonal of a volume: the norm of shape times spacing, in mm.

    >>> round(diagonal_mm((155, 240, 240), (1, 1, 1)), 2)  # BraTS
    373.13
    """
    return math.hypot(*(n * mm for n, mm in zip(shape, spacing_mm, strict=True)))


def dice(reference: ArrayLike, prediction: ArrayLike, *, ignore: int | None = None) -> float:
    """Dice coefficient 2|A.B| / (|A| + |B|) of two (Z, Y, X) masks; NaN where both are empty."""
    return _mask_metrics(reference, prediction, (1.0, 1.0, 1.0), ignore, distances=False).dice


def hd_mm(
    reference: ArrayLike, prediction: ArrayLike, spacing_mm: Sequence[float], *, ignore: int | None = None
) -> float:
    """Hausdorff distance (Eq. 7) of the boundaries of two (Z, Y, X) masks in mm; NaN where one is empty."""
    return _mask_metrics(reference, prediction, spacing_mm, ignore).hd_mm


def hd95_mm(
    reference: ArrayLike,
    prediction: ArrayLike,
    spacing_mm: Sequence[float],
    *,
    rule: HD95Rule = "directed",
    ignore: int | None = None,
) -> float:
    """95th percentile Hausdorff distance of two (Z, Y, X) masks in mm; NaN where one is empty.

    `rule` is 'directed' (the larger of both directed percentiles: MONAI, Metrics Reloaded) or 'pooled' (the
    percentile of both directions together: MedPy). They can differ by tens of mm.
    """
    return _mask_metrics(reference, prediction, spacing_mm, ignore, hd95=rule).hd95_mm


def assd_mm(
    reference: ArrayLike, prediction: ArrayLike, spacing_mm: Sequence[float], *, ignore: int | None = None
) -> float:
    """Mean boundary distance of two (Z, Y, X) masks in mm, both directions pooled; NaN where one is empty."""
    return _mask_metrics(reference, prediction, spacing_mm, ignore).assd_mm


def masd_mm(
    reference: ArrayLike, prediction: ArrayLike, spacing_mm: Sequence[float], *, ignore: int | None = None
) -> float:
    """Mean of the two directed mean boundary distances of (Z, Y, X) masks in mm; NaN where one is empty."""
    return _mask_metrics(reference, prediction, spacing_mm, ignore).masd_mm


def nsd(
    reference: ArrayLike,
    prediction: ArrayLike,
    spacing_mm: Sequence[float],
    tolerance_mm: float,
    *,
    ignore: int | None = None,
) -> float:
    """Share of the boundary voxels of both (Z, Y, X) masks within `tolerance_mm`; 0 where one mask is empty.

    The limit is `tolerance_mm` plus 1e-6 of it, since a float32 spacing of 0.8 is 0.80000001.
    """
    return _mask_metrics(reference, prediction, spacing_mm, ignore, nsd_tolerance_mm=tolerance_mm).nsd


def directed_distances_mm(
    reference: ArrayLike, prediction: ArrayLike, spacing_mm: Sequence[float], *, ignore: int | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """List the distances between the boundaries of two masks.

    Parameters
    ----------
    reference, prediction : (Z, Y, X) array of bool or of 0 and 1
        The masks.
    spacing_mm : (z, y, x) float
        Voxel size in mm.
    ignore : int, optional
        As in `evaluate_labels`.

    Returns
    -------
    tuple of 2 float64 arrays
        From each boundary voxel of the reference to the prediction's boundary, and the other way round; each
        sorted. Both are empty where either mask has no boundary.
    """
    labels, other, spacing = _checked(_as_labels(reference), _as_labels(prediction), spacing_mm)
    _, boxes = joint_counts(labels, other, 2, ignore)
    found = surface_distances(Pair(labels, other, 1, boxes[1], spacing, ignore)) if 1 in boxes else None
    if found is None:
        return np.empty(0), np.empty(0)
    forth, back = (np.repeat(way.values_mm, way.counts) for way in found)
    return forth, back


def _mask_metrics(
    reference: ArrayLike,
    prediction: ArrayLike,
    spacing_mm: Sequence[float],
    ignore: int | None,
    **settings: Any,
) -> ClassMetrics:
    """Measure class 1 of two masks."""
    labels, other = _as_labels(reference), _as_labels(prediction)
    return evaluate_labels(labels, other, spacing_mm, n_classes=2, classes=[1], ignore=ignore, **settings)[0]


def _as_labels(mask: ArrayLike) -> Labels:
    """View a mask as labels 0 and 1."""
    array = np.asarray(mask)
    return array.view(np.uint8) if array.dtype == np.bool_ else array


def _checked(reference: Labels, prediction: Labels, spacing_mm: Sequence[float]) -> tuple[Labels, Labels, Spacing]:
    """Refuse what is no pair of volumes; turn the axes so that the reference is read in memory order."""
    for name, labels in (("reference", reference), ("prediction", prediction)):
        if labels.ndim != 3 or not labels.size or not np.issubdtype(labels.dtype, np.integer):
            raise VolumeError(
                f"the {name} is {labels.dtype} of shape {labels.shape}; expected integers of shape (Z, Y, X), none of "
                "them 0; give a 2D array as array[None]"
            )
    if reference.shape != prediction.shape:
        raise GeometryError(
            f"the reference has shape {reference.shape} and the prediction {prediction.shape}; expected one grid; "
            "resample one of them"
        )
    spacing = tuple(float(mm) for mm in spacing_mm)
    if len(spacing) != 3 or not all(0 < mm < math.inf for mm in spacing):
        raise GeometryError(f"found spacing_mm={spacing}; give three positive numbers of mm, (z, y, x)")
    order = np.argsort([-abs(stride) for stride in reference.strides], kind="stable")
    z, y, x = (spacing[axis] for axis in order)
    return reference.transpose(order), prediction.transpose(order), (z, y, x)


def _class_overlap(c: int, joint: NDArray[np.int64], voxel_mm3: float, tolerance_mm: float | None) -> ClassMetrics:
    """Take what the joint counts tell about a class; its distances stay undefined."""
    n_reference, n_prediction = int(joint[c].sum()), int(joint[:, c].sum())
    overlap = int(joint[c, c])
    if n_reference and n_prediction:
        status: Status = "ok"
    elif n_reference:
        status = "missed"
    elif n_prediction:
        status = "hallucinated"
    else:
        status = "absent"
    total = n_reference + n_prediction
    return ClassMetrics(
        label=c,
        status=status,
        reference_voxels=n_reference,
        prediction_voxels=n_prediction,
        overlap_voxels=overlap,
        dice=2 * overlap / total if total else math.nan,
        hd95_mm=math.nan,
        hd_mm=math.nan,
        assd_mm=math.nan,
        masd_mm=math.nan,
        nsd=0.0 if status in ("missed", "hallucinated") and tolerance_mm is not None else math.nan,
        volume_ml=n_prediction * voxel_mm3 / 1000,
        reference_volume_ml=n_reference * voxel_mm3 / 1000,
        volume_error=(n_prediction - n_reference) / n_reference if n_reference else math.nan,
    )


def _with_distances(
    result: ClassMetrics,
    forth: DirectedDistances,
    back: DirectedDistances,
    hd95: HD95Rule,
    tolerance_mm: float | None,
) -> ClassMetrics:
    """Reduce the distances of both directions to every boundary metric."""
    both = forth.pooled(back)
    within = math.nan if tolerance_mm is None else both.within(tolerance_mm) / both.size
    return replace(
        result,
        hd95_mm=both.percentile_mm(95) if hd95 == "pooled" else max(forth.percentile_mm(95), back.percentile_mm(95)),
        hd_mm=both.max_mm(),
        assd_mm=both.mean_mm(),
        masd_mm=(forth.mean_mm() + back.mean_mm()) / 2,
        nsd=within,
    )
