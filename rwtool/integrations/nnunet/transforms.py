"""Maps in nnU-Net's augmentation: they ride as its `regression_target`, and reach the loss behind the labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform
from torch import Tensor
from torch.nn.functional import interpolate

from rwtool.integrations.channels import channel_first_map
from rwtool.maps.parameters import MapParameters

Sample = dict[str, Any]


class MakeMap(BasicTransform):
    """Make the map of a patch from its labels, as they are now.

    Parameters
    ----------
    parameters : MapParameters
    spacing_mm : (D,) float
        Along the axes of the patch.
    n_classes : int
    ignore : int, optional
        Label value of voxels without a class.
    """

    def __init__(
        self, parameters: MapParameters, spacing_mm: Sequence[float], n_classes: int, ignore: int | None
    ) -> None:
        super().__init__()
        self.parameters, self.spacing_mm, self.n_classes, self.ignore = parameters, spacing_mm, n_classes, ignore

    def apply(self, data_dict: Sample, **params: Any) -> Sample:
        """Put the map beside the labels."""
        data_dict["regression_target"] = torch.from_numpy(
            channel_first_map(
                data_dict["segmentation"].numpy(),
                self.spacing_mm,
                self.n_classes,
                self.parameters,
                ignore=self.ignore,
                layout="packed" if self.parameters.rectified else "dense",
            )
        )
        return data_dict


class TakeMap(BasicTransform):
    """Take the magnitudes of a stored map, which the loader has handed over as last channels, out of the image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def apply(self, data_dict: Sample, **params: Any) -> Sample:
        """Part the channels."""
        image = data_dict["image"]
        data_dict["image"], data_dict["regression_target"] = image[: -self.channels], image[-self.channels :]
        return data_dict


class SignMap(BasicTransform):
    """Make a map of the magnitudes, wherever they have been moved to: the labels tell which class is a voxel's own.

    Parameters
    ----------
    parameters : MapParameters
        One magnitude per voxel is the own value of a rectified kind, a second its other value where components are
        told apart; else there is one for each class.
    """

    def __init__(self, parameters: MapParameters) -> None:
        super().__init__()
        self.parameters = parameters

    def apply(self, data_dict: Sample, **params: Any) -> Sample:
        """Give values their signs."""
        magnitudes, labels = data_dict["regression_target"], data_dict["segmentation"]
        if self.parameters.rectified:
            values = torch.cat((-magnitudes[:1], magnitudes[1:]))
        else:
            classes = torch.arange(len(magnitudes)).view(-1, *[1] * (labels.ndim - 1))
            own = torch.zeros_like(magnitudes) if self.parameters.kind == "hd" else -magnitudes
            values = torch.where(labels == classes, own, magnitudes)
        data_dict["regression_target"] = values
        return data_dict


class ZoomDistances(BasicTransform):
    """nnU-Net's spatial transform, with distances that grow and shrink with the picture.

    Parameters
    ----------
    spatial : SpatialTransform
        Its zoom is the same along all axes. Where it turns and zooms slices, distances follow the zoom in the slices.
    power : float
        Of the distance that a value is.
    """

    def __init__(self, spatial: SpatialTransform, power: float) -> None:
        super().__init__()
        self.spatial, self.power = spatial, power

    def get_parameters(self, **data_dict: Any) -> Sample:
        """Those of the spatial transform."""
        return dict(self.spatial.get_parameters(**data_dict))

    def apply(self, data_dict: Sample, **params: Any) -> Sample:
        """Move everything, and scale the distances."""
        data_dict = self.spatial.apply(data_dict, **params)
        affine = params["affine"]
        if affine is not None:  # it leads from the patch to where its voxels come from
            steps = torch.from_numpy(affine).double()
            shrunk = float(torch.linalg.det(steps).abs()) ** (1 / len(steps))
            data_dict["regression_target"] = data_dict["regression_target"] / shrunk**self.power
        return data_dict


class JoinMap(BasicTransform):
    """Put the map behind the labels, the one thing that the loader hands on; at each level of deep supervision."""

    def apply(self, data_dict: Sample, **params: Any) -> Sample:
        """Join them in float32, the map sampled at the voxels that the labels of a level are of."""
        values, labels = data_dict.pop("regression_target"), data_dict["segmentation"]
        joined = [_join(level, values) for level in (labels if isinstance(labels, list) else [labels])]
        data_dict["segmentation"] = joined if isinstance(labels, list) else joined[0]
        return data_dict


def _join(labels: Tensor, values: Tensor) -> Tensor:
    size = labels.shape[1:]
    if values.shape[1:] != size:
        values = interpolate(values[None], size, mode="nearest-exact")[0]
    return torch.cat((labels.float(), values.float()))


def with_made_maps(pipeline: ComposeTransforms, make: MakeMap) -> ComposeTransforms:
    """nnU-Net's transforms, and at their end the map of the patch as it has come out of them."""
    steps, last = _parted(pipeline)
    return ComposeTransforms([*steps, make, *last, JoinMap()])


def with_stored_maps(pipeline: ComposeTransforms, parameters: MapParameters, channels: int) -> ComposeTransforms:
    """nnU-Net's transforms, through which a stored map is taken along."""
    steps, last = _parted(pipeline)
    if not parameters.rectified:
        power = parameters.alpha if parameters.kind == "hd" else 1.0
        assert power is not None
        steps = [ZoomDistances(step, power) if isinstance(step, SpatialTransform) else step for step in steps]
    return ComposeTransforms([TakeMap(channels), *steps, SignMap(parameters), *last, JoinMap()])


def _parted(pipeline: ComposeTransforms) -> tuple[list[BasicTransform], list[BasicTransform]]:
    """What comes before the coarser labels of deep supervision, and what makes these."""
    steps = list(pipeline.transforms)
    first = next((k for k, step in enumerate(steps) if isinstance(step, DownsampleSegForDSTransform)), len(steps))
    return steps[:first], steps[first:]
