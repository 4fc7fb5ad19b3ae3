"""2D slices of a cohort on the device, and batches of patches of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rwtool.network.config import Flip
from rwtool.training.augment import DRAWS, Sample, Warp, intensities, placement, warp
from rwtool.training.cache import Frame, Held, Stored, as_array, frame_of
from rwtool.training.cohort import Case

_FREE_SHARE = 0.5  # of the device's free memory that the data may take; the network needs the rest
_POINTS = 64  # foreground pixels remembered of each slice
_LARGEST_PATCH = 512
_BATCH = 32
_BATCH_PIXELS = 3_100_000  # of a whole batch: about that of nnU-Net's plans


@dataclass(frozen=True, eq=False)
class Batch:
    """What one step sees.

    Attributes
    ----------
    images : (B, C, H, W) float32 tensor
    labels : (B, H, W) int64 tensor
        Class indices, -1 where a pixel has no class or lies outside its slice.
    magnitudes : (B, M, H, W) float32 tensor or None
    """

    images: Tensor
    labels: Tensor
    magnitudes: Tensor | None


@dataclass(frozen=True, eq=False)
class EpochPlan:
    """Everything that is drawn for an epoch but noise, so that it is moved to the device at once.

    Attributes
    ----------
    rows : (steps, B) int64 tensor
        Slices of each batch, on the host.
    corners : (steps, B, 2) tensor
    draws : (steps, B, DRAWS) tensor
    noise : torch.Generator
    """

    rows: Tensor
    corners: Tensor
    draws: Tensor
    noise: torch.Generator

    def __len__(self) -> int:
        return len(self.rows)


class SliceSet:
    """All training slices, in compact types, on the device if they fit there, else on the host or in a cache file.

    Parameters
    ----------
    cases : sequence of Case
        With codes.
    device : torch.device
    patch : (2,) int
    scale_magnitudes : bool
        Magnitudes are distances.
    augment : bool
    flip : {"both", "y", "x", "none"}
    share : (int, int)
        ``(rank, processes)``: which part of each batch this process computes. All draw the same numbers.
    stacked : bool
        Put the slices of all cases together. Without it they stay where the cases are, in memory or in a cache file,
        and a thread reads those of the next batch while a step is under way. The batches are the same to the last bit.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        device: torch.device,
        patch: tuple[int, int],
        *,
        scale_magnitudes: bool = False,
        augment: bool = True,
        flip: Flip = "both",
        share: tuple[int, int] = (0, 1),
        stacked: bool = True,
    ) -> None:
        self.device, self.patch, self.share = device, patch, share
        self.scale_magnitudes, self.augment, self.flip = scale_magnitudes, augment, flip
        self.names = [case.name for case in cases for _ in range(case.image.shape[1])]
        sizes = [case.image.shape[2:] for case in cases for _ in range(case.image.shape[1])]
        self._sizes = torch.tensor(sizes)
        self._pixel_mm = torch.tensor([case.pixel_mm for case in cases for _ in range(case.image.shape[1])])
        self._crops = bool((self._sizes > torch.tensor(patch)).any())
        self._foreground = _foreground(cases, len(sizes)) if self._crops else None
        self._apart: _Apart | None = None
        self.images, self.codes = Tensor(), Tensor()
        self.magnitudes: Tensor | None = None
        self.on_device = False
        if stacked:
            self._stack(cases)
        else:
            self._apart = _Apart(cases)
        self._sizes_there = self._sizes.to(device, torch.float32)
        self._pixel_mm_there = self._pixel_mm.to(device, torch.float32)

    def __len__(self) -> int:
        return len(self.names)

    def _stack(self, cases: Sequence[Case]) -> None:
        images, codes, magnitudes = (_stack(part) for part in _parts(cases))
        assert images is not None
        assert codes is not None
        self.images, self.codes, self.magnitudes = images, codes, magnitudes
        self.on_device = self.device.type == "cpu"
        if self.device.type == "cuda" and self.nbytes < _FREE_SHARE * torch.cuda.mem_get_info(self.device)[0]:
            self.on_device = True
            self.images, self.codes = images.to(self.device), codes.to(self.device)
            self.magnitudes = None if magnitudes is None else magnitudes.to(self.device)

    @property
    def stacked(self) -> bool:
        """Whether the slices of all cases are put together."""
        return self._apart is None

    @property
    def nbytes(self) -> int:
        """Bytes of all slices."""
        if self._apart is not None:
            return self._apart.nbytes
        parts = (self.images, self.codes, self.magnitudes)
        return sum(part.numel() * part.element_size() for part in parts if part is not None)

    def plan_epoch(self, batch_size: int, seed: int, epoch: int, steps: int | None = None) -> EpochPlan:
        """Draw an epoch: each slice once in random order, as many whole batches as there are (at least one).

        With `steps`, so many batches: the first of one pass, or of several passes, each in an order of its own.

        Where slices are larger than the patch, the last third of each batch is drawn anew from the slices with
        foreground, and its patches hold some.

        Parameters
        ----------
        batch_size : int
            Over all processes.
        seed, epoch : int
            Nothing else decides what is drawn, so a resumed run draws what an uninterrupted one would.
        steps : int, optional
        """
        host, there = (np.random.SeedSequence([seed, epoch, use]).generate_state(1)[0] for use in (0, 1))
        generator = torch.Generator().manual_seed(int(host))
        steps = steps or max(1, len(self) // batch_size)
        passes = -(-steps * batch_size // len(self))
        order = torch.cat([torch.randperm(len(self), generator=generator) for _ in range(passes)])
        rows = order[: steps * batch_size].view(steps, batch_size)
        draws = torch.rand((steps, batch_size, DRAWS), generator=generator)
        room = self._sizes[rows] - torch.tensor(self.patch)
        anywhere = (torch.rand(room.shape, generator=generator) * (room + 1)).floor()
        corners = torch.where(room > 0, anywhere, (room / 2).floor())
        forced = batch_size // 3
        if self._foreground is not None and forced and bool(self._foreground[1].any()):
            rows[:, -forced:], corners[:, -forced:] = self._draw_foreground(steps, forced, generator)
        noise = torch.Generator(self.device).manual_seed(int(there))
        return EpochPlan(rows, corners.to(self.device), draws.to(self.device), noise)

    def _draw_foreground(self, steps: int, number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Slices with foreground, and corners of patches that hold a pixel of it: (steps, number) and with 2 more."""
        assert self._foreground is not None
        points, counts = self._foreground
        draws = torch.rand((steps, number, 4), generator=generator)
        chosen = counts.nonzero().squeeze(1)
        rows = chosen[(draws[..., 0] * len(chosen)).long()]
        point = points[rows, (draws[..., 1] * counts[rows]).long()]
        # the pixel lies anywhere in the middle half of the patch, as far as the slice goes
        patch = torch.tensor(self.patch)
        room = self._sizes[rows] - patch
        wanted = (point - patch * (0.25 + 0.5 * draws[..., 2:])).round().clamp(min=0)
        return rows, torch.where(room > 0, torch.minimum(wanted, room), (room / 2).floor())

    def batches(self, plan: EpochPlan) -> Iterator[Batch]:
        """Give the batches of an epoch, this process's share of each."""
        rank, processes = self.share
        size = plan.rows.shape[1] // processes
        mine = slice(rank * size, (rank + 1) * size)
        rows_there = plan.rows.to(self.device)
        with contextlib.nullcontext() if self._apart is None else ThreadPoolExecutor(1) as reader:
            coming = self._gather(plan, 0, mine, rows_there, reader)
            for step in range(len(plan)):
                where = rows_there[step, mine]
                draws = plan.draws[step, mine]
                placed = placement(
                    draws,
                    plan.corners[step, mine],
                    self._sizes_there[where],
                    self._pixel_mm_there[where],
                    self.patch,
                    augment=self.augment,
                    flip=self.flip,
                )
                slices = coming()
                if reader is not None and step + 1 < len(plan):
                    coming = self._gather(plan, step + 1, mine, rows_there, reader)
                batch = self._batch(slices, placed, draws, plan, mine)
                if reader is None and step + 1 < len(plan):
                    # from the host, the next slices travel while the device is busy with these
                    coming = self._gather(plan, step + 1, mine, rows_there, reader)
                yield batch

    def _gather(
        self, plan: EpochPlan, step: int, mine: slice, rows_there: Tensor, reader: ThreadPoolExecutor | None
    ) -> Callable[[], Sample]:
        """Begin to bring the slices of a step to the device; what is returned gives them."""
        if self._apart is not None and reader is not None:
            pinned = self.device.type == "cuda"
            read = reader.submit(self._apart.read, plan.rows[step, mine].tolist(), pinned=pinned)
            return lambda: _on(read.result(), self.device)
        parts = (self.images, self.codes, self.magnitudes)
        if self.on_device:
            found = [None if part is None else part.index_select(0, rows_there[step, mine]) for part in parts]
        else:
            found = [None if part is None else self._travel(part, plan.rows[step, mine]) for part in parts]
        images, codes, magnitudes = found
        assert images is not None
        assert codes is not None
        sample = Sample(images, codes, magnitudes)
        return lambda: sample

    def _travel(self, part: Tensor, rows: Tensor) -> Tensor:
        pinned = torch.empty((len(rows), *part.shape[1:]), dtype=part.dtype, pin_memory=True)
        return torch.index_select(part, 0, rows, out=pinned).to(self.device, non_blocking=True)

    def _batch(self, slices: Sample, placed: Warp, draws: Tensor, plan: EpochPlan, mine: slice) -> Batch:
        patch = warp(slices, placed, self.patch, scale_magnitudes=self.scale_magnitudes)
        images = patch.images
        if self.augment:
            shape = (plan.rows.shape[1], *images.shape[1:])  # of all processes
            noise = torch.randn(shape, generator=plan.noise, device=self.device)[mine]
            images = intensities(images, draws, noise)
        return Batch(images, patch.codes.long() - 1, patch.magnitudes)


def choose_patch(cases: Sequence[Case]) -> tuple[int, int]:
    """The largest slice, up to 512 x 512 pixels."""
    height, width = (min(_LARGEST_PATCH, max(case.image.shape[axis] for case in cases)) for axis in (2, 3))
    return height, width


def round_patch(patch: tuple[int, int], stride: int) -> tuple[int, int]:
    """The next multiple of the network's stride on each side.

    >>> round_patch((50, 36), 8)
    (56, 40)
    """
    return tuple(-(-side // stride) * stride for side in patch)  # type: ignore[return-value]


def choose_batch_size(patch: tuple[int, int], slices: int, processes: int = 1) -> int:
    """32 slices, fewer where they are larger than 311 x 311 pixels or where there are not so many."""
    size = max(2, min(_BATCH, _BATCH_PIXELS // (patch[0] * patch[1]), slices))
    return max(processes, size - size % processes)


class _Apart:
    """Slices that stay where their cases are."""

    def __init__(self, cases: Sequence[Case]) -> None:
        self._places = [(index, z) for index, case in enumerate(cases) for z in range(case.image.shape[1])]
        self._parts = _parts(cases)
        self._frames = [None if part is None else frame_of(part) for part in self._parts]
        self.nbytes = sum(held.nbytes for part in self._parts if part is not None for held in part)

    def read(self, rows: Sequence[int], *, pinned: bool) -> Sample:
        """Some slices, each in the corner of a frame of 0."""
        for row in rows:  # of all at once, for a disk is the faster the more it is asked for
            index, z = self._places[row]
            for part in self._parts:
                if part is not None and isinstance(held := part[index], Stored):
                    held.fetch(z)
        images, codes, magnitudes = (
            None if part is None or frame is None else self._read(part, frame, rows, pinned)
            for part, frame in zip(self._parts, self._frames, strict=True)
        )
        assert images is not None
        assert codes is not None
        return Sample(images, codes, magnitudes)

    def _read(self, part: Sequence[Held], frame: Frame, rows: Sequence[int], pinned: bool) -> Tensor:
        size, dtype = frame
        like = torch.from_numpy(np.empty(0, dtype)).dtype
        result = torch.zeros((len(rows), *part[0].shape[:-3], *size), dtype=like, pin_memory=pinned)
        for target, row in zip(result.numpy(), rows, strict=True):
            index, z = self._places[row]
            plane = as_array(part[index])[..., z, :, :]
            target[..., : plane.shape[-2], : plane.shape[-1]] = plane
        return result


def _on(sample: Sample, device: torch.device) -> Sample:
    if device.type == "cpu":
        return sample
    magnitudes = sample.magnitudes
    return Sample(
        sample.images.to(device, non_blocking=True),
        sample.codes.to(device, non_blocking=True),
        None if magnitudes is None else magnitudes.to(device, non_blocking=True),
    )


def _parts(cases: Sequence[Case]) -> tuple[list[Held], list[Held], list[Held] | None]:
    """Images, codes and magnitudes of all cases."""
    codes = [case.codes for case in cases if case.codes is not None]
    magnitudes = [case.magnitudes for case in cases if case.magnitudes is not None]
    return [case.image for case in cases], codes, magnitudes or None


def _stack(part: Sequence[Held] | None) -> Tensor | None:
    """Slices of all cases in one array, each in the corner of a frame of 0."""
    if part is None:
        return None
    size, dtype = frame_of(part)
    result = np.zeros((sum(held.shape[-3] for held in part), *part[0].shape[:-3], *size), dtype=dtype)
    start = 0
    for held in part:
        array = as_array(held)
        slices = array.swapaxes(0, 1) if array.ndim == 4 else array
        result[start : start + len(slices), ..., : slices.shape[-2], : slices.shape[-1]] = slices
        start += len(slices)
    return torch.from_numpy(result)


def _foreground(cases: Sequence[Case], slices: int) -> tuple[Tensor, Tensor]:
    """Up to 64 foreground pixels of each slice, (N, 64, 2), evenly over its classes; and how many there are, (N,)."""
    points = torch.zeros((slices, _POINTS, 2), dtype=torch.int64)
    counts = torch.zeros(slices, dtype=torch.int64)
    planes = (plane for case in cases if case.codes is not None for plane in as_array(case.codes))
    for index, plane in enumerate(planes):
        present = [k for k in np.unique(plane) if k > 1][:_POINTS]
        found = []
        for k in present:
            pixels = np.argwhere(plane == k)
            most = _POINTS // len(present)
            found.append(pixels[np.linspace(0, len(pixels) - 1, most).round().astype(int)])  # a rare class repeats
        if found:
            pixels = np.concatenate(found)
            points[index, : len(pixels)] = torch.from_numpy(pixels)
            counts[index] = len(pixels)
    return points, counts
