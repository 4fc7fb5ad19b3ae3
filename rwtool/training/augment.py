"""Augmentation as tensor algebra on a batch: image, labels and map magnitudes move together, under one affine grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from rwtool.network.config import Flip

DRAWS = 16
"""Uniform numbers that one sample takes; which of them means what is written in :func:`placement` and `intensities`."""

_ROTATION = math.radians(20)
_SCALE = math.log(1.25)
_TRANSLATION = 0.1  # of the slice
_P_ROTATION = _P_SCALE = 0.5
_P_NOISE = _P_BRIGHTNESS = _P_CONTRAST = 0.3
_P_GAMMA = 0.3
_NOISE_VARIANCE = 0.1
_FACTOR = (0.75, 1.25)  # of brightness and contrast
_GAMMA = (0.7, 1.5)
_TINY = 1e-6


@dataclass(frozen=True, eq=False)
class Warp:
    """Where each pixel of a patch comes from: ``centre + matrix @ (pixel - middle of the patch)``, in slice pixels.

    Attributes
    ----------
    centre : (B, 2) tensor
        Along ``(y, x)``.
    matrix : (B, 2, 2) tensor
    magnification : (B,) tensor
        By which all lengths in mm grow.
    """

    centre: Tensor
    matrix: Tensor
    magnification: Tensor


@dataclass(frozen=True, eq=False)
class Sample:
    """A batch of slices, or of patches of them.

    Attributes
    ----------
    images : (B, C, H, W) float tensor
    codes : (B, H, W) tensor
        1 + class index, 0 where a pixel has no class or lies outside its slice.
    magnitudes : (B, M, H, W) float tensor or None
        See :class:`rwtool.training.map_source.MapUse`.
    """

    images: Tensor
    codes: Tensor
    magnitudes: Tensor | None


def placement(
    draws: Tensor, corner: Tensor, sizes: Tensor, pixel_mm: Tensor, patch: tuple[int, int], *, augment: bool, flip: Flip
) -> Warp:
    """Draw the affine map of each patch: rotation by up to 20 degrees and scaling by up to 1.25, in mm; flips; a shift.

    Parameters
    ----------
    draws : (B, DRAWS) tensor
        Uniform in [0, 1).
    corner : (B, 2) tensor
        Pixel of the slice that the first pixel of the patch would be without augmentation.
    sizes : (B, 2) tensor
        Of the slices, along ``(y, x)``.
    pixel_mm : (B, 2) tensor
    patch : (2,) int
    augment : bool
        Without it, the patch is cut out as it is.
    flip : {"both", "y", "x", "none"}

    Returns
    -------
    Warp
        A rotation in mm keeps distances, and a magnification multiplies them, whatever the shape of a pixel.
    """
    centre = corner + _pair([(side - 1) / 2 for side in patch], draws)
    one = torch.ones_like(draws[:, 0])
    if not augment:
        return Warp(centre, torch.diag_embed(torch.stack((one, one), dim=1)), one)
    angle = torch.where(draws[:, 0] < _P_ROTATION, (2 * draws[:, 1] - 1) * _ROTATION, 0)
    scale = torch.where(draws[:, 2] < _P_SCALE, ((2 * draws[:, 3] - 1) * _SCALE).exp(), 1)
    # Whole slices are shifted, by whole pixels: those neither turned nor scaled stay as sharp as in prediction. A crop
    # of a larger one has been placed at random already.
    room = torch.where(sizes > _pair(patch, sizes), 0, sizes)
    centre = centre + ((2 * draws[:, 4:6] - 1) * _TRANSLATION * room).round()
    signs = torch.stack(
        [
            torch.where(draws[:, 6 + axis] < 0.5, -one, one) if flip in ("both", name) else one
            for axis, name in enumerate("yx")
        ],
        dim=1,
    )
    cos, sin = angle.cos(), angle.sin()
    turn = torch.stack((torch.stack((cos, -sin), dim=1), torch.stack((sin, cos), dim=1)), dim=1)
    # from patch pixels to mm, turned and shrunk there, to slice pixels
    matrix = turn * pixel_mm.unsqueeze(1) / pixel_mm.unsqueeze(2) * signs.unsqueeze(1) / scale.view(-1, 1, 1)
    return Warp(centre, matrix, scale)


def warp(sample: Sample, where: Warp, patch: tuple[int, int], *, scale_magnitudes: bool) -> Sample:
    """Take patches out of slices: images and magnitudes bilinearly, codes by nearest neighbour.

    Parameters
    ----------
    sample : Sample
        Of any types; beyond its edges images and magnitudes are 0 and codes "no class".
    where : Warp
    patch : (2,) int
    scale_magnitudes : bool
        Multiply magnitudes by the magnification, as distances in mm want.

    Returns
    -------
    Sample
        float32, codes too.
    """
    height, width = sample.codes.shape[-2:]
    device = sample.codes.device
    y, x = (torch.arange(side, device=device, dtype=torch.float32) - (side - 1) / 2 for side in patch)
    relative = torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1)
    source = where.centre.view(-1, 1, 1, 2) + torch.einsum("bij,hwj->bhwi", where.matrix, relative)
    # grid_sample counts from -1 to 1, edge to edge, x before y
    grid = ((2 * source + 1) / _pair((height, width), source) - 1).flip(-1)
    smooth = sample.images.float()
    channels = smooth.shape[1]
    if sample.magnitudes is not None:
        smooth = torch.cat((smooth, sample.magnitudes.float()), dim=1)
    smooth = grid_sample(smooth, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    codes = grid_sample(sample.codes.unsqueeze(1).float(), grid, mode="nearest", align_corners=False).squeeze(1)
    magnitudes = None
    if sample.magnitudes is not None:
        magnitudes = smooth[:, channels:]
        if scale_magnitudes:
            magnitudes = magnitudes * where.magnification.view(-1, 1, 1, 1)
    return Sample(smooth[:, :channels], codes, magnitudes)


def intensities(images: Tensor, draws: Tensor, noise: Tensor) -> Tensor:
    """Vary the intensities of normalised images: noise, brightness, contrast and gamma, each in some of them.

    Parameters
    ----------
    images : (B, C, H, W) float32 tensor
    draws : (B, DRAWS) tensor
        Uniform in [0, 1).
    noise : (B, C, H, W) tensor
        Standard normal.
    """
    low, high = _FACTOR

    def some(index: int, share: float, value: Tensor, otherwise: float) -> Tensor:
        return torch.where(draws[:, index] < share, value, otherwise).view(-1, 1, 1, 1)

    images = images + some(8, _P_NOISE, (draws[:, 9] * _NOISE_VARIANCE).sqrt(), 0) * noise
    images = images * some(10, _P_BRIGHTNESS, low + (high - low) * draws[:, 11], 1)
    least, most = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    mean = images.mean((2, 3), keepdim=True)
    contrast = some(12, _P_CONTRAST, low + (high - low) * draws[:, 13], 1)
    images = torch.minimum(torch.maximum((images - mean) * contrast + mean, least), most)
    # gamma on the range of each image, whose mean and SD it keeps
    gamma = some(14, _P_GAMMA, _GAMMA[0] + (_GAMMA[1] - _GAMMA[0]) * draws[:, 15], 1)
    sd, mean = torch.std_mean(images, (2, 3), keepdim=True)
    bent = ((images - least) / (most - least).clamp(min=_TINY)).clamp(0, 1).pow(gamma)
    bent_sd, bent_mean = torch.std_mean(bent, (2, 3), keepdim=True)
    return torch.where(gamma == 1, images, (bent - bent_mean) * (sd / bent_sd.clamp(min=_TINY)) + mean)


def _pair(values: Sequence[float], like: Tensor) -> Tensor:
    """Two numbers on the device of a tensor, filled in there: a copy from the host would wait for the device."""
    return torch.stack([like.new_full((), value) for value in values])
