"""From the image of a case to its labels: slices through the network in batches, and back onto the native grid."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate, pad

from rwtool.datasets.classes import Classes
from rwtool.io.geometry import Geometry
from rwtool.io.names import label_name
from rwtool.io.volume import Volume
from rwtool.io.write import write
from rwtool.network.config import Amp, Flip
from rwtool.network.devices import autocast
from rwtool.network.unet import UNet2d

_FLIPS: dict[Flip, tuple[tuple[int, ...], ...]] = {
    "none": ((),), "y": ((), (2,)), "x": ((), (3,)), "both": ((), (2,), (3,), (2, 3)),
}  # fmt: skip
_PIXELS = 6_000_000  # of a batch of slices


class Segmenter:
    """A network and how images are put to it.

    Parameters
    ----------
    model : UNet2d
    device : torch.device
    amp : {"bf16", "fp16", "off"}
    patch : (2,) int
        Of the training. Slices that fit in are padded to it; larger ones are segmented by overlapping windows of this
        size. So norms see as much at once as they did in training: with instance norm, slices larger than the patch
        seen whole lose what the training has won.
    flip : {"both", "y", "x", "none"}
        Mean softmax over the image and its flips along these axes.
    """

    def __init__(
        self, model: UNet2d, device: torch.device, *, amp: Amp, patch: tuple[int, int], flip: Flip = "none"
    ) -> None:
        self.model, self.device, self.amp, self.patch = model, device, amp, patch
        self._flips = _FLIPS[flip]

    def labels(self, image: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.uint8]:
        """Segment an image.

        Parameters
        ----------
        image : (C, Z, Y, X) array
            Normalised, at the spacing of the network.
        size : (2,) int
            Native pixels along ``(y, x)``, onto which the softmax is brought back.

        Returns
        -------
        (Z, *size) array of uint8, or uint16 for more than 256 classes
            Class indices.
        """
        labels = np.empty((image.shape[1], *size), dtype=np.min_scalar_type(self.model.n_classes - 1))
        for where, softmax in self._softmax(image, size):
            labels[where] = softmax.argmax(dim=1).cpu().numpy()
        return labels

    def probabilities(self, image: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
        """Softmax of an image, (K, Z, *size) float32; parameters are those of :meth:`labels`."""
        result = np.empty((self.model.n_classes, image.shape[1], *size), dtype=np.float32)
        for where, softmax in self._softmax(image, size):
            result[:, where] = softmax.swapaxes(0, 1).cpu().numpy()
        return result

    @torch.inference_mode()
    def _softmax(self, image: NDArray[np.float32], size: tuple[int, int]) -> Iterator[tuple[slice, Tensor]]:
        """Some slices after others, and their softmax: (B, K, *size)."""
        was_training = self.model.training
        self.model.eval()
        try:
            height, width = image.shape[2:]
            stride = self.model.stride
            window: tuple[int, int] = tuple(-(-side // stride) * stride for side in self.patch)  # type: ignore[assignment]
            frame = (max(height, window[0]), max(width, window[1]))
            # the odd pixel before the slice, as in training
            top, left = (frame[0] - height + 1) // 2, (frame[1] - width + 1) // 2
            margins = (left, frame[1] - width - left, top, frame[0] - height - top)
            slices = torch.from_numpy(np.ascontiguousarray(image.swapaxes(0, 1)))
            most = max(1, _PIXELS // (frame[0] * frame[1]))
            for first, part in zip(range(0, len(slices), most), torch.split(slices, most), strict=True):
                x = pad(part.to(self.device).float(), margins)
                if self.device.type == "cuda":
                    x = x.contiguous(memory_format=torch.channels_last)
                softmax = self._flipped(x) if frame == window else self._windows(x, window)
                softmax = softmax[..., top : top + height, left : left + width]
                if (height, width) != tuple(size):
                    softmax = interpolate(softmax, size=tuple(size), mode="bilinear", align_corners=False)
                yield slice(first, first + len(part)), softmax
        finally:
            self.model.train(was_training)

    def _windows(self, x: Tensor, window: tuple[int, int]) -> Tensor:
        """Mean softmax of overlapping windows over slices that are larger, (B, C, H, W) to (B, K, H, W)."""
        height, width = window
        corners = [(y, x0) for y in window_starts(x.shape[2], height) for x0 in window_starts(x.shape[3], width)]
        weight = window_weight(window).to(self.device)
        total = x.new_zeros((len(x), self.model.n_classes, *x.shape[2:]))
        weights = x.new_zeros(x.shape[2:])
        for top, left in corners:
            weights[top : top + height, left : left + width] += weight
        places = [(index, top, left) for index in range(len(x)) for top, left in corners]
        most = max(1, _PIXELS // (height * width))
        for first in range(0, len(places), most):
            some = places[first : first + most]
            parts = torch.stack([x[index, :, top : top + height, left : left + width] for index, top, left in some])
            if self.device.type == "cuda":
                parts = parts.contiguous(memory_format=torch.channels_last)
            # one after another: where windows overlap, the order of a sum decides its last bits
            for (index, top, left), softmax in zip(some, self._flipped(parts) * weight, strict=True):
                total[index, :, top : top + height, left : left + width] += softmax
        return total / weights

    def _flipped(self, x: Tensor) -> Tensor:
        total = None
        for axes in self._flips:
            with autocast(self.amp, self.device):
                logits = self.model(x.flip(axes))[0]
            softmax = logits.float().softmax(dim=1).flip(axes)
            total = softmax if total is None else total + softmax
        assert total is not None
        return total / len(self._flips)


def network_bytes(features: int, n_classes: int, pixels: int) -> int:
    """Memory that slices of so many pixels take at most on their way through the network, a batch of them at once.

    Measured on one thread, 256 x 256 pixels: 216 bytes a pixel with 4 features, 397 with 16; this gives 244 and 532.
    """
    return min(pixels, _PIXELS) * (24 * features + 16 * n_classes + 100)


def window_starts(size: int, window: int) -> list[int]:
    """Where windows along an axis begin: evenly spread from edge to edge, half a window apart or less.

    >>> window_starts(100, 48), window_starts(48, 48)
    ([0, 17, 35, 52], [0])
    """
    room = size - window
    steps = min(room, -(-2 * room // window))
    return [round(index * room / steps) for index in range(steps + 1)] if steps else [0]


def window_weight(window: tuple[int, int]) -> Tensor:
    """Weight of each pixel of a window, `window` float32: a Gaussian around its middle of SD 1/8 of its sides.

    The edges of a window count little, since there the network sees less of the surroundings (as nnU-Net and MONAI do).
    """
    y, x = (torch.exp(-32 * ((torch.arange(side) - (side - 1) / 2) / side) ** 2) for side in window)
    return y.unsqueeze(1) * x


def write_labels(
    folder: Path, name: str, labels: NDArray[Any], geometry: Geometry, like: Path, classes: Classes
) -> Path:
    """Write class indices as the file values of their classes, in the format and on the grid of another file."""
    values = np.asarray(classes.values, dtype=np.min_scalar_type(max(classes.values)))
    path = folder / label_name(name, like)
    write(path, Volume(values[labels], geometry.spacing_mm, geometry))
    return path
