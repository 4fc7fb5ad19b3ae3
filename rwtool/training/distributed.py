"""The processes that train together: this one alone, or those that ``torchrun`` started."""

from __future__ import annotations

import contextlib
import gc
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from rwtool.errors import RwtoolError, UsageError
from rwtool.files import scratch
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

    def refuse_other_folder(self, folder: Path) -> None:
        """Make sure that all processes, of other machines too, see the same folder; it is made.

        Raises
        ------
        UsageError
            In all processes: one sees another folder, where its part of the predictions would be lost.
        """
        if self.count == 1:
            return
        with scratch(folder) if self.first else contextlib.nullcontext() as path:
            probe = [None if path is None else path.name]
            dist.broadcast_object_list(probe)
            there = self._gathered((folder / str(probe[0])).is_dir())
        refuse_others(
            [{f"the folder {folder}": "" if sees else "another"} for _, sees in there],
            [host for host, _ in there],
            "all machines need the same folders under the same paths, as on a shared file system",
        )

    def refuse_other_inputs(self, inputs: Mapping[str, str]) -> None:
        """Make sure that all processes train on the same, in the same way.

        Parameters
        ----------
        inputs : dict of str to str
            What must be the same, and a text that tells one from another.

        Raises
        ------
        UsageError
            In all processes: one has something else, of which weights would be made that no data set stands for.
        """
        if self.count > 1:
            there = self._gathered(dict(inputs))
            refuse_others(
                [found for _, found in there],
                [host for host, _ in there],
                "all processes of a training need the same",
            )

    def _gathered(self, mine: Any) -> list[tuple[str, Any]]:
        """What each process has, with the name of its machine."""
        found: list[Any] = [None] * self.count
        dist.all_gather_object(found, (platform.node(), mine))
        return found


ALONE = Processes()
"""What there is without ``torchrun``."""


def refuse_others(found: Sequence[Mapping[str, str]], hosts: Sequence[str], need: str) -> None:
    """Refuse processes that have something else than the first.

    Raises
    ------
    UsageError
    """
    for rank, mine in enumerate(found):
        other = [name for name, value in mine.items() if value != found[0].get(name)]
        if other:
            raise UsageError(
                f"process {rank}, on {hosts[rank]}, has not {' and '.join(other)} of process 0, on {hosts[0]}; {need}"
            )


@contextlib.contextmanager
def join_processes(device: str) -> Iterator[Processes]:
    """Join the processes that ``torchrun`` started; without it there is this one.

    Raises
    ------
    RwtoolError
        Another process has gone, or its machine.
    """
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
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo/transport" not in str(error):
            raise
        raise RwtoolError(
            f"process {processes.rank}, on {platform.node()}: another process of this training has gone, or does not "
            "answer; see what it said, mend that, and go on with resume=True"
        ) from error
    finally:
        gc.collect()  # a network under DDP refers to itself: gloo's threads would outlast it, and crash as Python ends
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
