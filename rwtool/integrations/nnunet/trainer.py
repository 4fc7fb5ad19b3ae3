"""nnU-Net's trainer with a region-wise loss, and nothing else changed but the optimiser."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from rwtool.errors import UsageError
from rwtool.integrations.nnunet.names import TrainerSettings, is_like_trainer_name, parse_trainer_name
from rwtool.losses.functional import boundary_dou_loss, generalized_surface_loss
from rwtool.losses.mixing import gradual_weight, mix_losses
from rwtool.losses.module import RegionWiseLoss

try:
    from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
    from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("rwtool.integrations.nnunet needs nnU-Net: pip install 'rwtool[nnunet]'") from error

from rwtool.integrations.nnunet.stored import MappedDataset, stored_maps
from rwtool.integrations.nnunet.transforms import MakeMap, with_made_maps, with_stored_maps


class RegionWiseTrainer(nnUNetTrainer):
    """nnU-Net's trainer with the loss that the name of its class says.

    The optimiser is AdamW, since the gradient of Eq. 1, which divides by the number of classes, is small beside that of
    Dice and cross entropy; the learning rate falls as nnU-Net's does.
    """

    settings: ClassVar[TrainerSettings]

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008  # nnU-Net's own signature, which it reads
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        if self.label_manager.has_regions:
            raise NotImplementedError(
                f"{type(self).__name__} gives each voxel one class by softmax; dataset.json has regions, which overlap "
                "and are trained by sigmoid; train them with nnUNetTrainer, or give plain labels"
            )
        self.initial_lr = 1e-3
        self.weight_decay = 3e-5
        if self.settings.epochs:
            self.num_epochs = self.settings.epochs
        in_slices = len(self.configuration_manager.patch_size) == 2
        if in_slices and self.settings.dims == 2 and not self.settings.stored:
            plain = replace(self.settings, dims=3).name
            raise UsageError(f"maps that are made of 2D patches are of slices anyway; train {plain}, which is the same")

    @property
    def _takes_maps(self) -> bool:
        """Whether a batch brings maps; those of the other kinds follow from the labels."""
        return self.settings.takes_maps

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        """AdamW, with nnU-Net's schedule."""
        optimizer = torch.optim.AdamW(self.network.parameters(), self.initial_lr, weight_decay=self.weight_decay)
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs)

    def _build_loss(self) -> nn.Module:
        plain = super()._build_loss()
        deep = isinstance(plain, DeepSupervisionWrapper)
        loss = MapLoss(self.settings, plain.loss if deep else plain, self.label_manager.ignore_label)
        return WithMaps(loss, DeepSupervisionWrapper(loss, plain.weight_factors) if deep else loss)

    def get_training_transforms(self, *args: Any, **kwargs: Any) -> Any:
        """nnU-Net's own, with maps."""
        return self._with_maps(super().get_training_transforms(*args, **kwargs))

    def get_validation_transforms(self, *args: Any, **kwargs: Any) -> Any:
        """nnU-Net's own, with maps."""
        return self._with_maps(super().get_validation_transforms(*args, **kwargs))

    def _with_maps(self, pipeline: Any) -> Any:
        parameters = self.settings.map_parameters
        n_classes = self.label_manager.num_segmentation_heads
        if parameters is None or not self._takes_maps:
            return pipeline
        if self.settings.stored:
            channels = parameters.packed_channels if parameters.rectified else n_classes
            return with_stored_maps(pipeline, parameters, channels)
        return with_made_maps(
            pipeline,
            MakeMap(parameters, self.configuration_manager.spacing, n_classes, self.label_manager.ignore_label),
        )

    def get_tr_and_val_datasets(self) -> Any:
        """nnU-Net's own; with stored maps, their images have them as last channels."""
        datasets = super().get_tr_and_val_datasets()
        if not self.settings.stored:
            return datasets
        cases = [case for dataset in datasets for case in dataset.identifiers]
        maps = stored_maps(self.preprocessed_dataset_folder, self.settings, cases)
        self.print_to_log_file(f"Maps from {maps.folder}: {maps.settings.describe()}")
        return tuple(MappedDataset(dataset, maps) for dataset in datasets)

    def on_train_epoch_start(self) -> None:
        """Tell a gradual mixture which epoch it is."""
        if self.settings.gradual:
            self.loss.loss.common_weight = gradual_weight(self.current_epoch, self.num_epochs)
        super().on_train_epoch_start()

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """nnU-Net's own."""
        return super().train_step(self._parted(batch))

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """nnU-Net's own."""
        return super().validation_step(self._parted(batch))

    def _parted(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch with labels alone as its target; the maps that stand behind them go to the loss."""
        if not self._takes_maps:
            return batch
        target = batch["target"]
        levels = target if isinstance(target, list) else [target]
        maps = [level[:, 1:].to(self.device, non_blocking=True) for level in levels]
        labels = [level[:, :1] for level in levels]
        several = isinstance(target, list)
        self.loss.maps = maps if several else maps[0]
        return {**batch, "target": labels if several else labels[0]}


class MapLoss(nn.Module):
    """Region-wise loss of logits, labels and a map; with nnU-Net's own Dice or cross entropy if the settings say so."""

    def __init__(self, settings: TrainerSettings, common: nn.Module, ignore: int | None) -> None:
        super().__init__()
        self.map_loss = _loss_of(settings, ignore)
        self.common = common if settings.mixed_with else None
        if settings.mixed_with:
            # nnU-Net's sum of both, of which one is left out
            setattr(common, "weight_ce" if settings.mixed_with == "dice" else "weight_dice", 0)
        self.common_weight = 1.0 if settings.gradual else None

    def forward(self, logits: Tensor, labels: Tensor, maps: Tensor | None = None) -> Tensor:
        """Loss of a batch, of one level of deep supervision."""
        loss: Tensor = self.map_loss(logits, labels, maps)
        return loss if self.common is None else mix_losses(self.common(logits, labels), loss, self.common_weight)


def _loss_of(settings: TrainerSettings, ignore: int | None) -> Callable[..., Tensor]:
    """The loss of a kind, of logits, labels as nnU-Net hands them over, and a map."""
    parameters = settings.map_parameters
    if parameters is None:
        return lambda logits, labels, _: boundary_dou_loss(logits, labels[:, 0].long(), ignore=ignore, check=False)
    if settings.kind == "generalized-surface":
        return lambda logits, labels, z: generalized_surface_loss(
            logits, z, labels[:, 0].long(), ignore=ignore, check=False
        )
    return RegionWiseLoss(
        parameters.kind,
        spacing_mm=None,
        instances=parameters.instances,
        layout="packed" if parameters.rectified else "dense",
        ignore=ignore,
        check=False,
    )


class WithMaps(nn.Module):
    """Loss of what nnU-Net hands it, the network's output and the labels, with the maps that were laid ready."""

    def __init__(self, loss: MapLoss, whole: nn.Module) -> None:
        super().__init__()
        self.loss, self.whole = loss, whole
        self.maps: Any = None

    def forward(self, outputs: Any, labels: Any) -> Tensor:
        """Loss of a batch."""
        loss: Tensor = self.whole(outputs, labels) if self.maps is None else self.whole(outputs, labels, self.maps)
        return loss


@cache
def trainer_class(name: str) -> type[RegionWiseTrainer]:
    """The trainer of a name; one class for each, which can be pickled.

    Raises
    ------
    UsageError
        It is no name of a trainer.
    """
    settings = parse_trainer_name(name)
    return type(name, (RegionWiseTrainer,), {"settings": settings, "__module__": __name__})


def __getattr__(name: str) -> Any:
    try:
        return trainer_class(name)
    except UsageError as error:
        if is_like_trainer_name(name):  # nnU-Net itself only says that there is none
            warnings.warn(str(error), stacklevel=2)
        raise AttributeError(str(error)) from error
