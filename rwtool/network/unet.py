"""A 2D U-Net in the manner of nnU-Net."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from rwtool.errors import UsageError

Norm = Literal["instance", "batch"]

MOST_FEATURES = 512
_SLOPE = 0.01  # of LeakyReLU
_SMALLEST_SIDE = 4  # pixels of the last stage
_MOST_STAGES = 8


def stages_for(patch: Sequence[int]) -> int:
    """Stages of the U-Net for a patch: as many halvings as leave at least 4 pixels along its shorter side.

    Examples
    --------
    >>> stages_for((56, 40)), stages_for((256, 224))
    (4, 6)
    """
    stages = 1
    while stages < _MOST_STAGES and min(patch) >> stages >= _SMALLEST_SIDE:
        stages += 1
    return stages


class UNet2d(nn.Module):
    """U-Net on slices: two convolutions, each with norm and LeakyReLU, a stage; strided down, transposed up.

    Parameters
    ----------
    channels : int
        Of the images.
    n_classes : int
        K.
    features : int
        Of the first stage; they double with each stage, up to 512.
    stages : int
        The last one sees the image at ``1 / 2^(stages - 1)`` of its size, so sides must be multiples of that.
    norm : {"instance", "batch"}
    deep_supervision : bool

    Notes
    -----
    The forward pass takes ``(B, channels, H, W)`` and returns logits from fine to coarse, ``(B, K, H, W)``, ``(B, K,
    H/2, W/2)``, ..., one per stage of the decoder, in training with deep supervision; else the first alone. Weights
    are initialised as He et al. (2015) do, biases are 0.
    """

    def __init__(
        self,
        channels: int,
        n_classes: int,
        *,
        features: int = 32,
        stages: int = 4,
        norm: Norm = "instance",
        deep_supervision: bool = True,
    ) -> None:
        super().__init__()
        if stages < 2 or features < 1:
            raise UsageError(f"a U-Net has at least 2 stages and 1 feature; found depth {stages}, features {features}")
        widths = [min(features << stage, MOST_FEATURES) for stage in range(stages)]
        self.n_classes, self.stride = n_classes, 1 << (stages - 1)
        self.encoder = nn.ModuleList(
            _stage(channels if stage == 0 else widths[stage - 1], width, norm, stride=1 if stage == 0 else 2)
            for stage, width in enumerate(widths)
        )
        up = list(reversed(widths))
        self.up = nn.ModuleList(nn.ConvTranspose2d(below, above, 2, stride=2) for below, above in pairwise(up))
        self.decoder = nn.ModuleList(_stage(2 * width, width, norm) for width in up[1:])
        supervised = up[1:] if deep_supervision else up[-1:]
        self.heads = nn.ModuleList(nn.Conv2d(width, n_classes, 1) for width in supervised)
        self.apply(_initialise)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Give the logits from fine to coarse."""
        if images.shape[-2] % self.stride or images.shape[-1] % self.stride:
            raise UsageError(
                f"this U-Net takes images whose sides are multiples of {self.stride}; found {tuple(images.shape[-2:])}"
            )
        skips = []
        x = images
        for stage in self.encoder:
            x = stage(x)
            skips.append(x)
        skips.pop()
        outputs = []
        for up, stage in zip(self.up, self.decoder, strict=True):
            x = stage(torch.cat((up(x), skips.pop()), dim=1))
            outputs.append(x)
        if not self.training:
            return [self.heads[-1](x)]
        supervised = outputs[-len(self.heads) :]
        return [head(output) for head, output in zip(self.heads, supervised, strict=True)][::-1]


def _stage(inputs: int, outputs: int, norm: Norm, *, stride: int = 1) -> nn.Sequential:
    """Two convolutions with norm and LeakyReLU; the first may be strided."""
    return nn.Sequential(*_block(inputs, outputs, norm, stride), *_block(outputs, outputs, norm, 1))


def _block(inputs: int, outputs: int, norm: Norm, stride: int) -> list[nn.Module]:
    # the norm takes away any constant, so the convolution has no bias
    normalise: nn.Module = nn.InstanceNorm2d(outputs, affine=True) if norm == "instance" else nn.BatchNorm2d(outputs)
    return [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), normalise, nn.LeakyReLU(_SLOPE, inplace=True)]


def _initialise(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.kaiming_normal_(module.weight, a=_SLOPE)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
