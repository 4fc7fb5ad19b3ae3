"""The loss of a run, as its configuration says: one function of logits, labels and map magnitudes at every level."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rwtool.losses.functional import (
    active_contour_loss,
    boundary_dou_loss,
    cross_entropy_loss,
    dice_loss,
    focal_loss,
    generalized_surface_loss,
    hausdorff_loss,
    matrix_loss,
    packed_region_wise_loss,
    region_wise_loss,
    weighted_cross_entropy_loss,
)
from rwtool.losses.mixing import authors_weight, gradual_weight, mix_losses
from rwtool.network.config import TrainConfig
from rwtool.training.map_source import MapUse
from rwtool.training.slices import Batch

_WITHOUT_MAP: dict[str, Callable[..., Tensor]] = {
    "boundary-dou": boundary_dou_loss,
    "ce": cross_entropy_loss,
    "dice": dice_loss,
    "focal": focal_loss,
}

NO_CLASS = -1
"""Label of pixels that the losses leave out. All labels are settled when they are read: the losses need no check."""


class Objective:
    """The loss of a run, over all levels of deep supervision.

    Parameters
    ----------
    config : TrainConfig
    map_use : MapUse or None
    device : torch.device
    """

    def __init__(self, config: TrainConfig, map_use: MapUse | None, device: torch.device) -> None:
        self.config, self.map_use = config, map_use
        others = () if map_use is None else map_use.other_values
        self.other_values = torch.tensor(others, dtype=torch.float32, device=device)
        matrix = () if map_use is None or map_use.matrix is None else map_use.matrix
        self.matrix = torch.tensor(matrix, dtype=torch.float32, device=device)

    def common_weight(self, epoch: int) -> float | None:
        """Weight of the common loss in an epoch of a gradual mixture; None for a sum."""
        if self.config.mixed_with is None or self.config.mix == "equal":
            return None
        if self.config.schedule == "authors":
            return authors_weight(epoch)
        return gradual_weight(epoch, self.config.epochs)

    def __call__(self, logits: Sequence[Tensor], batch: Batch, epoch: int) -> Tensor:
        """Weigh the levels 1, 1/2, 1/4, ... (Lee et al. 2015), normalised; coarse ones see every 2nd, 4th, ... pixel.

        Parameters
        ----------
        logits : sequence of (B, K, H, W), (B, K, H/2, W/2), ... tensors
        batch : Batch
        epoch : int

        Returns
        -------
        scalar tensor
        """
        weight = self.common_weight(epoch)
        total = logits[0].new_zeros((), dtype=torch.float32)
        for level, part in enumerate(logits):
            stride = 1 << level
            labels = batch.labels[:, ::stride, ::stride]
            magnitudes = None if batch.magnitudes is None else batch.magnitudes[:, :, ::stride, ::stride]
            total = total + self._level(part, labels, magnitudes, stride, weight) / stride
        return total / sum(1 / (1 << level) for level in range(len(logits)))

    def _level(
        self, logits: Tensor, labels: Tensor, magnitudes: Tensor | None, stride: int, weight: float | None
    ) -> Tensor:
        loss = self._main(logits, labels, magnitudes, stride)
        if self.config.mixed_with is None:
            return loss
        common = _WITHOUT_MAP[self.config.mixed_with](logits, labels, ignore=NO_CLASS, check=False)
        return mix_losses(common, loss, weight)

    def _main(self, logits: Tensor, labels: Tensor, magnitudes: Tensor | None, stride: int) -> Tensor:
        name = self.config.loss
        if name in _WITHOUT_MAP:
            return _WITHOUT_MAP[name](logits, labels, ignore=NO_CLASS, check=False)
        if name == "ac":
            lam = self.config.ac_lambda
            return active_contour_loss(
                logits,
                labels,
                region_weight=1.0 if lam is None else lam,
                length=lam is not None,
                other_values=self.other_values if magnitudes is None else magnitudes[:, 1],
                ignore=NO_CLASS,
                check=False,
            )
        if name == "matrix":
            return matrix_loss(logits, labels, self.matrix, ignore=NO_CLASS, check=False)
        assert magnitudes is not None
        assert self.map_use is not None
        if name == "wce-rrw":
            return weighted_cross_entropy_loss(logits, magnitudes[:, 0], labels, ignore=NO_CLASS, check=False)
        if self.map_use.rectified:
            return self._rectified(logits, labels, magnitudes)
        # Distances of coarse levels are in their own, larger pixels. Those in mm do not shrink with the picture, so a
        # mixture has less of the map loss there, and that is what helps: boundary with Dice, gradual, on 24 scans of
        # ACDC at 2 mm (8 features, 16 epochs) came to a mean Dice of 0.499 with the division and 0.498 without for one
        # seed, and for another to 0.729 and 0.501, where the right ventricle was lost without it.
        return self._distances(logits, labels, magnitudes / stride, self.map_use.exponent)

    def _rectified(self, logits: Tensor, labels: Tensor, magnitudes: Tensor) -> Tensor:
        """Loss of a packed map."""
        own = -magnitudes[:, 0]
        values = own if magnitudes.shape[1] == 1 else torch.stack((own, magnitudes[:, 1]), dim=1)
        return packed_region_wise_loss(logits, values, labels, self.other_values, ignore=NO_CLASS, check=False)

    def _distances(self, logits: Tensor, labels: Tensor, distances: Tensor, exponent: float) -> Tensor:
        """Loss of a map of distances."""
        classes = torch.arange(distances.shape[1], device=distances.device).view(1, -1, 1, 1)
        own = labels.unsqueeze(1) == classes
        if self.config.loss == "hd":
            z = torch.where(own, 0, distances**exponent)
            return hausdorff_loss(logits, z, labels, ignore=NO_CLASS, check=False)
        z = torch.where(own, -distances, distances)
        if self.config.loss == "generalized-surface":  # whatever the unit of the distances
            return generalized_surface_loss(logits, z, labels, ignore=NO_CLASS, check=False)
        return region_wise_loss(logits, z, labels, ignore=NO_CLASS, check=False)
