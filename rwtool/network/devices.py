"""Where a network runs, and in which precision."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from typing import TypeVar

import torch

from rwtool.errors import UsageError
from rwtool.network.config import Amp, TrainConfig

Network = TypeVar("Network", bound=torch.nn.Module)

_STEP_OF_A_THREAD = 1_500_000  # pixels of a batch times features: a quarter of a second on one core


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
        raise UsageError(f"device={name!r} is not auto, cpu, cuda or cuda:i")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"device={name}: PyTorch finds {torch.cuda.device_count()} CUDA devices; give device=cpu")
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


def threads_for(config: TrainConfig, most: int) -> int:
    """Threads that the steps of a run on a CPU keep busy.

    OpenMP's threads spin while they wait for each other, at every layer. Measured on 2 cores, U-Net of 16 features, 16
    slices of 48 x 48 a step: 105 ms on one thread; on two 75 ms at a load of about 2, and 860 ms beside one other
    process, for then one thread spins away the time of the other. Slices of 112 x 112 took 530 and 360 ms. So a
    second thread must have enough to do to be worth that.

    Parameters
    ----------
    config : TrainConfig
        Settled.
    most : int
        Threads that there may be.

    Examples
    --------
    >>> small = TrainConfig(patch=(48, 48), batch_size=16, features=16)
    >>> threads_for(small, 8), threads_for(TrainConfig(patch=(256, 256), batch_size=8, features=32), 8)
    (1, 8)
    """
    assert config.patch is not None
    assert config.batch_size is not None
    step = config.batch_size * config.patch[0] * config.patch[1] * config.features
    return max(1, min(most, step // _STEP_OF_A_THREAD))


def limit_threads(config: TrainConfig) -> None:
    """Give PyTorch in this process no more threads than the steps of a run keep busy.

    For a process that does nothing but this run: the number holds for all that PyTorch computes here. Where
    OMP_NUM_THREADS says how many there are to be, they stay.
    """
    if "OMP_NUM_THREADS" not in os.environ and resolve_device(config.device).type == "cpu":
        torch.set_num_threads(threads_for(config, torch.get_num_threads()))


def _cpu_has_bf16() -> bool:
    """Whether this processor multiplies bf16 in hardware; elsewhere emulation makes it slow."""
    found = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(supported is not None and supported() for supported in found)
