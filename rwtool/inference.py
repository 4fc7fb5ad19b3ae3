"""From the image of a case to its labels: slices through the network in batches, and back onto the native grid."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate, pad

from rwtool.config import Amp, Flip
from rwtool.errors import UsageError
from rwtool.model import UNet2d

Network = TypeVar("Network", bound=torch.nn.Module)

_FLIPS: dict[Flip, tuple[tuple[int, ...], ...]] = {
    "none": ((),), "y": ((), (2,)), "x": ((), (3,)), "both": ((), (2,), (3,), (2, 3)),
}  # fmt: skip
_PIXELS = 6_000_000  # of a batch of slices


def resolve_device(name: str) -> torch.device:
    """Turn "auto", "cpu", "cuda" or "cuda:i" into a device that is there.

    Raises
    ------
    UsageError
        There is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"--device is auto, cpu, cuda or cuda:i; found {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"--device {name}: PyTorch finds {torch.cuda.device_count()} CUDA devices; give --device cpu")
    return device


def resolve_amp(amp: Amp, device: torch.device) -> Amp:
    """Settle "auto": bf16 where the device computes it in hardware, fp16 on older CUDA devices, else off."""
    if amp != "auto":
        return amp
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
    return "bf16" if _cpu_has_bf16() else "off"


def autocast(amp: Amp, device: torch.device) -> AbstractContextManager[None]:
    """The autocast context of a run."""
    dtype = torch.float16 if amp == "fp16" else torch.bfloat16
    context: AbstractContextManager[None] = torch.autocast(device.type, dtype, enabled=amp in ("bf16", "fp16"))
    return context


def to_device(model: Network, device: torch.device) -> Network:
    """Move a network to a device, in the memory layout that suits it."""
    layout = torch.channels_last if device.type == "cuda" else torch.contiguous_format
    return model.to(device).to(memory_format=layout)  # type: ignore[call-overload]


class Segmenter:
    """A network and how images are put to it.

    Parameters
    ----------
    model : UNet2d
    device : torch.device
    amp : {"bf16", "fp16", "off"}
    patch : (2,) int
        Slices are padded to at least this, as they were in training, so that norms see the same surroundings.
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
        found = [softmax.argmax(dim=1) for softmax in self._softmax(image, size)]
        labels: NDArray[np.int64] = torch.cat(found).cpu().numpy()
        return labels.astype(np.min_scalar_type(self.model.n_classes - 1))

    def probabilities(self, image: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
        """Softmax of an image, (K, Z, *size) float32; parameters are those of :meth:`labels`."""
        result: NDArray[np.float32] = torch.cat([part.cpu() for part in self._softmax(image, size)]).numpy()
        return result.swapaxes(0, 1)

    @torch.inference_mode()
    def _softmax(self, image: NDArray[np.float32], size: tuple[int, int]) -> Iterator[Tensor]:
        """Softmax of some slices after others: (B, K, *size)."""
        was_training = self.model.training
        self.model.eval()
        try:
            height, width = image.shape[2:]
            stride = self.model.stride
            frame = [
                -(-max(side, least) // stride) * stride for side, least in zip((height, width), self.patch, strict=True)
            ]
            # the odd pixel before the slice, as in training
            top, left = (frame[0] - height + 1) // 2, (frame[1] - width + 1) // 2
            margins = (left, frame[1] - width - left, top, frame[0] - height - top)
            slices = torch.from_numpy(np.ascontiguousarray(image.swapaxes(0, 1)))
            for part in torch.split(slices, max(1, _PIXELS // (frame[0] * frame[1]))):
                x = pad(part.to(self.device).float(), margins)
                if self.device.type == "cuda":
                    x = x.contiguous(memory_format=torch.channels_last)
                softmax = self._flipped(x)[..., top : top + height, left : left + width]
                if (height, width) != tuple(size):
                    softmax = interpolate(softmax, size=tuple(size), mode="bilinear", align_corners=False)
                yield softmax
        finally:
            self.model.train(was_training)

    def _flipped(self, x: Tensor) -> Tensor:
        total = None
        for axes in self._flips:
            with autocast(self.amp, self.device):
                logits = self.model(x.flip(axes))[0]
            softmax = logits.float().softmax(dim=1).flip(axes)
            total = softmax if total is None else total + softmax
        assert total is not None
        return total / len(self._flips)


def _cpu_has_bf16() -> bool:
    """Whether this processor multiplies bf16 in hardware; elsewhere emulation makes it slow."""
    found = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(supported is not None and supported() for supported in found)
