"""For torchmetrics and Lightning: Dice, HD95, HD and NSD by class, in mm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from rwtool.errors import UsageError
from rwtool.losses.inputs import WHOLE, plain_tensor, positive_numbers, spacing_of_images
from rwtool.metrics.measures import diagonal_mm, evaluate_labels, undefined_mm

try:
    from torchmetrics import Metric
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "rwtool.integrations.torchmetrics needs torchmetrics: pip install 'rwtool[torchmetrics]'"
    ) from error

_DISTANCES = ("hd95_mm", "hd_mm")
_STATUSES = ("ok", "missed", "hallucinated", "absent")


class SegmentationMetrics(Metric):
    """Dice, HD95, HD and NSD of segmentations in 3D or 2D, by class, as ``rwtool evaluate`` measures them.

    A class in one of the two alone has Dice and NSD 0, and the distance that `undefined` says; one in neither is left
    out. Each is counted. What is kept are sums, so that processes add theirs, whatever number of cases each has had.

    Parameters
    ----------
    n_classes : int
        K, the background included, which is not measured.
    spacing_mm : (D,) or (B, D) float, or None
        Size of a voxel along each spatial axis; None where each update gives it.
    tolerance_mm : float or mapping of class to float, optional
        Of NSD, which is left out without it.
    hd95 : {"directed", "pooled"}
        The larger of the two directed 95th percentiles, or that of both directions together.
    undefined : {"diagonal", "exclude"} or float
        Distance of a class in one of the two alone: the diagonal of the volume, none, or so many mm.
    ignore : int, optional
        Label value of voxels without a class.
    threads : int, optional
        Of the distances; by default those of torch.
    **kwargs
        Of every torchmetrics Metric.

    Examples
    --------
    ``metric.update(logits, labels)`` for each batch, then ``metric.compute()["hd95_mm_1"]``.
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = None

    totals: Tensor
    numbers: Tensor
    statuses: Tensor

    def __init__(
        self,
        n_classes: int,
        *,
        spacing_mm: ArrayLike | Tensor | None,
        tolerance_mm: float | Mapping[int, float] | None = None,
        hd95: Literal["directed", "pooled"] = "directed",
        undefined: Literal["diagonal", "exclude"] | float = "diagonal",
        ignore: int | None = None,
        threads: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if n_classes < 2:
            raise UsageError(f"found n_classes={n_classes}; give the background and at least another class")
        if hd95 not in ("directed", "pooled"):
            raise UsageError(f"found hd95={hd95!r}; give 'directed' or 'pooled'")
        undefined_mm(undefined, 0.0)
        self.n_classes, self.tolerance_mm, self.hd95 = n_classes, tolerance_mm, hd95
        self.undefined, self.ignore, self.threads = undefined, ignore, threads
        self.spacing_mm = None if spacing_mm is None else positive_numbers("spacing_mm", spacing_mm)
        self.classes = [k for k in range(1, n_classes) if k != ignore]
        self.metrics = ("dice", *_DISTANCES, *(("nsd",) if tolerance_mm is not None else ()))
        shape = (len(self.classes), len(self.metrics))
        self.add_state("totals", torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("numbers", torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum")
        statuses = torch.zeros((len(self.classes), len(_STATUSES)), dtype=torch.int64)
        self.add_state("statuses", statuses, dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor, spacing_mm: ArrayLike | Tensor | None = None) -> None:
        """Measure a batch.

        Parameters
        ----------
        preds : (B, K, *spatial) float tensor, or (B, *spatial) or (B, 1, *spatial) integer tensor
            Logits or probabilities, whose largest channel is the class, or classes.
        target : (B, *spatial) or (B, 1, *spatial) tensor
            Classes: integers, or floats that are whole numbers.
        spacing_mm : (D,) or (B, D) float, optional
            In place of that of the metric.
        """
        steps = self.spacing_mm if spacing_mm is None else positive_numbers("spacing_mm", spacing_mm)
        if steps is None:
            raise UsageError("the metric was made with spacing_mm=None; give spacing_mm= to this update")
        axes = steps.shape[-1]
        preds, target = plain_tensor("preds", preds), plain_tensor("target", target)
        if preds.is_floating_point():
            if preds.ndim != axes + 2 or preds.shape[1] != self.n_classes:
                raise UsageError(
                    f"preds as floats are (B, K, *spatial), K = {self.n_classes}, with {axes} spatial axes, as "
                    f"spacing_mm= has; found {tuple(preds.shape)}; give classes as integers"
                )
            preds = preds.argmax(dim=1)
        predicted, reference = _classes("preds", preds, axes), _classes("target", target, axes)
        if predicted.shape != reference.shape:
            raise UsageError(
                f"preds and target are of the same images; found the shapes {predicted.shape} and {reference.shape}"
            )
        for one, other, mm in zip(reference, predicted, spacing_of_images(steps, reference.shape), strict=True):
            self._add(one, other, mm)

    def compute(self) -> dict[str, Tensor]:
        """Means over cases by class, such as ``hd95_mm_1``; their mean over classes; and counts, such as ``missed_1``.

        A mean of no case is NaN, and left out of that over classes.
        """
        means = self.totals / self.numbers
        found = {}
        for m, metric in enumerate(self.metrics):
            found[metric] = means[:, m].nanmean()
            found |= {f"{metric}_{k}": means[c, m] for c, k in enumerate(self.classes)}
        for s, status in enumerate(_STATUSES):
            found |= {f"{status}_{k}": self.statuses[c, s] for c, k in enumerate(self.classes)}
        return found

    def _add(self, reference: NDArray[Any], prediction: NDArray[Any], mm: NDArray[np.float64]) -> None:
        penalty = undefined_mm(self.undefined, diagonal_mm(reference.shape, mm.tolist()))
        if reference.ndim == 2:  # a slice is a volume of one
            reference, prediction, mm = reference[np.newaxis], prediction[np.newaxis], np.append(1.0, mm)
        threads = torch.get_num_threads() if self.threads is None else self.threads
        results = evaluate_labels(
            reference,
            prediction,
            mm.tolist(),
            n_classes=self.n_classes,
            classes=self.classes,
            hd95=self.hd95,
            nsd_tolerance_mm=self.tolerance_mm,
            ignore=self.ignore,
            threads=threads,
        )
        values = np.array([[getattr(result, metric) for metric in self.metrics] for result in results])
        for c, result in enumerate(results):
            if result.status in ("missed", "hallucinated"):
                values[c, 1 : 1 + len(_DISTANCES)] = penalty
            self.statuses[c, _STATUSES.index(result.status)] += 1
        defined = ~np.isnan(values)
        self.totals += torch.from_numpy(np.where(defined, values, 0.0)).to(self.totals.device)
        self.numbers += torch.from_numpy(defined).to(self.numbers.device)


def _classes(name: str, labels: Tensor, axes: int) -> NDArray[Any]:
    """(B, *spatial) integers on the host."""
    if labels.ndim == axes + 2 and labels.shape[1] == 1:
        labels = labels.squeeze(1)
    if labels.ndim != axes + 1:
        raise UsageError(
            f"{name} are (B, *spatial) or (B, 1, *spatial) with {axes} spatial axes, as spacing_mm= has; found "
            f"{tuple(labels.shape)}"
        )
    whole = labels.round() if labels.is_floating_point() else labels
    if labels.is_floating_point() and not bool(((labels - whole).abs() <= WHOLE).all()):
        raise UsageError(f"{name} hold values that are no whole numbers; give the index of a class at each voxel")
    return whole.detach().long().cpu().numpy()
