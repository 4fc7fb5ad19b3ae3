"""What of a study is held in memory, and what is read from a file on disk as it is needed.

The file belongs to one training: it is written anew, in a hidden folder within that of the run, and goes when the
training ends. One that a killed process has left is not read again; the next run of the folder removes it.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rwtool.console import size
from rwtool.errors import UsageError
from rwtool.files import make_folder, naming, remove_leftovers, scratch
from rwtool.machine import available_memory

_FREE_SHARE = 0.8  # of free memory that data may take for a while, and
_HELD_SHARE = 0.5  # that it may take for good: the network and the page cache of the file need the rest
_ALIGNED = 64


@dataclass(frozen=True)
class Stored:
    """An array in a cache file.

    Attributes
    ----------
    path : Path
    offset : int
    dtype : str
    shape : tuple of int
        ``(Z, Y, X)``, or ``(C, Z, Y, X)``; in the file the channels of a slice lie together.
    """

    path: Path
    offset: int
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Its size."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def open(self) -> NDArray[Any]:
        """The array, mapped."""
        found = np.frombuffer(_mapping(self.path), self.dtype, math.prod(self.shape), self.offset)
        if len(self.shape) == 3:
            return found.reshape(self.shape)
        channels, depth, *sides = self.shape
        return found.reshape(depth, channels, *sides).swapaxes(0, 1)

    def fetch(self, z: int) -> None:
        """Have a slice brought from the disk, and do not wait for it."""
        mapped = _mapping(self.path)
        if hasattr(mmap, "MADV_WILLNEED"):
            each = self.nbytes // self.shape[-3]
            first = (self.offset + z * each) // mmap.PAGESIZE * mmap.PAGESIZE
            mapped.madvise(mmap.MADV_WILLNEED, first, self.offset + (z + 1) * each - first)


Held = NDArray[Any] | Stored
"""An array in memory, or in a cache file."""


Frame = tuple[tuple[int, int], np.dtype[Any]]
"""Sides, and a type."""


def as_array(held: Held) -> NDArray[Any]:
    """The array itself."""
    return held.open() if isinstance(held, Stored) else held


@cache
def _mapping(path: Path) -> mmap.mmap:
    with path.open("rb") as stream:
        # copied where it is written to, which nothing does: PyTorch warns of arrays that cannot be
        return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)


def store(folder: Path, array: NDArray[Any]) -> Stored:
    """Write an array into the cache file of this process.

    Raises
    ------
    VolumeError
        It cannot be written.
    """
    path = folder / f"{os.getpid()}.cache"
    slices = array.swapaxes(0, 1) if array.ndim == 4 else array
    with naming(path, OSError, doing="written"), path.open("ab") as stream:
        stream.write(b"\0" * (-stream.tell() % _ALIGNED))
        offset = stream.tell()
        for part in slices:
            stream.write(np.ascontiguousarray(part).data)
    return Stored(path, offset, array.dtype.str, array.shape)


@dataclass(frozen=True)
class Room:
    """Where the arrays of a study are.

    Attributes
    ----------
    stored : frozenset of str
        Cases in a cache file; the others are in memory.
    held_bytes, stored_bytes : int
        In memory and in the file, about.
    stacked : bool
        Whether the slices of all training cases are put together in one array, which takes their memory once more for a
        while and makes the fastest batches.
    folder : Path, optional
        Of the cache file.
    """

    stored: frozenset[str] = frozenset()
    held_bytes: int = 0
    stored_bytes: int = 0
    stacked: bool = True
    folder: Path | None = None

    def describe(self) -> str | None:
        """Say what is read from disk; None where nothing is."""
        if self.folder is None:
            return None
        return (
            f"{size(self.stored_bytes)} of the cases' {size(self.held_bytes + self.stored_bytes)} are read from a "
            f"cache file in {self.folder.parent}, which goes at the end; the others are in memory"
        )


def plan_room(
    train: Mapping[str, int], val: Mapping[str, int], budget_bytes: int | None = None, *, processes: int = 1
) -> Room:
    """Settle which cases are held in memory: those that are trained on come first.

    Parameters
    ----------
    train, val : dict of str to int
        Bytes of each case.
    budget_bytes : int, optional
        What the cases may take; by default all are held if free memory allows, else as many as fill half of it.
    processes : int
        That share this machine, each with cases of its own.
    """
    if budget_bytes is not None and budget_bytes < 0:
        raise UsageError(f"found cache_budget_bytes={budget_bytes}; give the bytes that cases may take in memory")
    memory = available_memory()
    whole = sum(train.values()) + sum(val.values())
    while_stacked = whole + sum(train.values())
    if budget_bytes is None:
        free = math.inf if memory is None else memory / processes
        if while_stacked <= _FREE_SHARE * free:
            return Room(held_bytes=whole)
        budget_bytes = int(_HELD_SHARE * free)
    elif while_stacked <= budget_bytes:
        return Room(held_bytes=whole)
    held = 0
    stored = set()
    for name, needed in (*train.items(), *val.items()):
        if held + needed <= budget_bytes:
            held += needed
        else:
            stored.add(name)
    return Room(frozenset(stored), held, whole - held, stacked=False)


@contextlib.contextmanager
def open_cache(run: Path, room: Room) -> Iterator[Room]:
    """Make the folder of a cache file, if there is to be one; it goes when the block ends.

    Parameters
    ----------
    run : Path
        The folder to make it in.
    room : Room

    Raises
    ------
    UsageError
        There is not enough space.
    VolumeError
        The folder cannot be made.
    """
    if not room.stored:
        yield room
        return
    made = not run.exists()
    make_folder(run)
    try:
        remove_leftovers(run)
        free = shutil.disk_usage(run).free
        if free < room.stored_bytes:
            raise UsageError(
                f"{run}: {size(room.stored_bytes)} of the cases do not fit in memory and go to a cache file here, "
                f"where {size(free)} are free; free some, name another run=, or give a larger cache_budget_bytes="
            )
        with scratch(run) as folder:
            try:
                yield Room(room.stored, room.held_bytes, room.stored_bytes, room.stacked, folder)
            finally:
                _mapping.cache_clear()  # a file that is mapped keeps its space
    finally:
        if made:
            with contextlib.suppress(OSError):  # it holds more
                run.rmdir()


def frame_of(arrays: Sequence[Held]) -> Frame:
    """The sides of the largest slice of some arrays, and the type that holds all of them."""
    height, width = (max(array.shape[axis] for array in arrays) for axis in (-2, -1))
    return (height, width), np.result_type(*{np.dtype(array.dtype) for array in arrays})
