"""Where a network runs, and in which precision."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TypeVar

import torch

from rwtool.errors import UsageError
from rwtool.network.config import Amp

Network = TypeVar("Network", bound=torch.nn.Module)


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


def _cpu_has_bf16() -> bool:
    """Whether this processor multiplies bf16 in hardware; elsewhere emulation makes it slow."""
    found = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(supported is not None and supported() for supported in found)
