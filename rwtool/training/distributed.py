"""The processes that train together: this one alone, or those that ``torchrun`` started."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from rwtool.network.devices import resolve_device


@dataclass(frozen=True)
class Processes:
    """Which of the processes of ``torchrun`` this one is.

    Attributes
    ----------
    rank, count, local_rank : int
    local_count : int
        Of those on this machine.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1

    @property
    def first(self) -> bool:
        """Whether this one prints and writes."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.count > 1:
            dist.barrier()


ALONE = Processes()
"""What there is without ``torchrun``."""


@contextlib.contextmanager
def join_processes(device: str) -> Iterator[Processes]:
    """Join the processes that ``torchrun`` started; without it there is this one."""
    if "WORLD_SIZE" not in os.environ or "RANK" not in os.environ:
        yield ALONE
        return
    rank, count = os.environ["RANK"], os.environ["WORLD_SIZE"]
    local_rank, local_count = os.environ.get("LOCAL_RANK", rank), os.environ.get("LOCAL_WORLD_SIZE", count)
    processes = Processes(int(rank), int(count), int(local_rank), int(local_count))
    there = device_of(device, processes)
    if there.type == "cuda":
        torch.cuda.set_device(there)
    dist.init_process_group("nccl" if there.type == "cuda" else "gloo")
    try:
        yield processes
    finally:
        dist.destroy_process_group()


def device_of(name: str, processes: Processes) -> torch.device:
    """The device that this process computes on."""
    device = resolve_device(name)
    if str(device) == "cuda":  # no index: the one of this process
        return torch.device("cuda", processes.local_rank)
    return device


def mean_over(value: Tensor, processes: Processes) -> float:
    """The mean of a number over all processes, on the host."""
    if processes.count > 1:
        value = value.clone()
        dist.all_reduce(value)
        value = value / processes.count
    return float(value)
