"""One data set in shares, for as many machines: which cases are whose, and which shares have ended."""

from __future__ import annotations

import heapq
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
from isal import isal_zlib
from msgspec import Meta

from rwtool import __version__
from rwtool.console import count
from rwtool.errors import RwtoolError, UsageError, shorten
from rwtool.files import make_folder, naming
from rwtool.records import check_format, read_json, to_json, to_record, write_json

FOLDER = "shards"
"""In a folder of output, with a folder for each shard: ``shards/2-of-8``."""
RECORD = "shard.json"
"""In the folder of a shard, once it has ended."""

_FORMAT = 1
_REFUSAL = "cannot be read as the record of a shard"
_MEND = "run this shard again"
_EXPECTED = "expected I/N with I from 1 to N, such as shard='2/8', or shard='slurm' in a job array"
_SLURM = "SLURM_ARRAY_TASK_"

Places = Annotated[int, Meta(ge=1)]


@dataclass(frozen=True)
class Shard:
    """The `index`-th of `of` shares, counted from 1."""

    index: int
    of: int

    def __str__(self) -> str:
        return f"shard {self.index} of {self.of}"

    def folder(self, out: Path) -> Path:
        """Where what belongs to this shard alone goes: ``OUT/shards/2-of-8``."""
        return out / FOLDER / f"{self.index}-of-{self.of}"


def parse_shard(text: str | None, environment: Mapping[str, str] = os.environ) -> Shard | None:
    """Read a shard as a user names it.

    Parameters
    ----------
    text : str or None
        ``"2/8"``; or ``"slurm"``, the task of a Slurm job array that this process runs in.
    environment : mapping
        Where the variables of Slurm are.

    Raises
    ------
    UsageError
        It is no such share, or the place of the task in its array cannot be told.

    Examples
    --------
    >>> parse_shard("2/8")
    Shard(index=2, of=8)
    >>> array = {"ID": "6", "COUNT": "4", "MIN": "0", "MAX": "6", "STEP": "2"}
    >>> parse_shard("slurm", {f"SLURM_ARRAY_TASK_{name}": value for name, value in array.items()})
    Shard(index=4, of=4)
    """
    if text is None:
        return None
    if text.strip().lower() == "slurm":
        return _of_slurm(environment)
    found = re.fullmatch(r"\s*([0-9]{1,9})\s*/\s*([0-9]{1,9})\s*", text)
    if found is None:
        raise UsageError(f"shard={text!r}: {_EXPECTED}")
    index, of = int(found[1]), int(found[2])
    if not 1 <= index <= of:
        hint = "; add 1 to an index that counts from 0" if index == 0 else ""
        raise UsageError(f"shard={text!r}: {_EXPECTED}{hint}")
    return Shard(index, of)


def _of_slurm(environment: Mapping[str, str]) -> Shard:
    """The place of this task in its job array, whatever the array counts from and by."""
    by_hand = "or say which share it is, such as shard='2/8'"
    found: dict[str, int] = {}
    for name in ("ID", "COUNT", "MIN", "MAX", "STEP"):
        text = environment.get(_SLURM + name)
        if text is None and name == "STEP":  # which the others tell
            continue
        if text is None:
            what = "this is no task of a job array" if name == "ID" else "so the place of this task cannot be told"
            raise UsageError(
                f"shard='slurm' reads {_SLURM}{name}, which is not set: {what}; submit with sbatch --array=1-8, "
                f"{by_hand}"
            )
        if not re.fullmatch(r"[0-9]{1,18}", text):
            raise UsageError(f"shard='slurm': {_SLURM}{name} is {text!r}, and no number; {by_hand}")
        found[name] = int(text)
    task, tasks, first, last = (found[name] for name in ("ID", "COUNT", "MIN", "MAX"))
    step = (last - first) // (tasks - 1) if tasks > 1 else max(1, found.get("STEP", 1))
    array = range(first, first + step * tasks, step) if step > 0 else range(0)
    if task not in array or array[-1] != last or found.get("STEP", step) != step:
        raise UsageError(
            f"shard='slurm': this is task {task} of {tasks} from {first} to {last}, which are not evenly spaced, so "
            f"its place among them cannot be told; submit with sbatch --array=1-{max(tasks, 1)}, {by_hand}"
        )
    return Shard(array.index(task) + 1, tasks)


@dataclass(frozen=True)
class Share:
    """The cases of a shard.

    Attributes
    ----------
    shard : Shard
    names : tuple of str
    total : int
        Cases of all shards.
    cases_crc32 : str
        Of the names and sizes of all cases: shards with the same are of one and the same division.
    """

    shard: Shard
    names: tuple[str, ...]
    total: int
    cases_crc32: str

    def describe(self) -> str:
        """For people, with what tells whether another shard is of the same cases."""
        return f"{self.shard}: {len(self.names):,} of {count(self.total, 'case')} (list {self.cases_crc32})"


def take_share(sizes: Mapping[str, int], shard: Shard) -> Share:
    """Find the cases of a shard: the largest first, each to the shard that has least to do.

    Whoever calls it with the same names and sizes comes to the same shares, in whatever order they are.

    Parameters
    ----------
    sizes : mapping of str to int
        By case; bytes, say.
    shard : Shard

    Examples
    --------
    >>> sizes = {"a": 1, "b": 5, "c": 3, "d": 1}
    >>> take_share(sizes, Shard(1, 2)).names, take_share(sizes, Shard(2, 2)).names
    (('b',), ('a', 'c', 'd'))
    """
    shares = [(0, 0, index) for index in range(1, shard.of + 1)]  # size, cases, which
    mine = set()
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        size, cases, index = heapq.heappop(shares)
        heapq.heappush(shares, (size + sizes[name], cases + 1, index))
        if index == shard.index:
            mine.add(name)
    whole = to_json(sorted(sizes.items())).encode()
    return Share(shard, tuple(name for name in sizes if name in mine), len(sizes), f"{isal_zlib.crc32(whole):08x}")


def size_of(paths: Iterable[Path]) -> int:
    """Bytes of the files of a case, a folder's being those in it; 0 for one that cannot be seen, as its reader says."""
    size = 0
    for path in paths:
        try:
            if path.is_dir():
                size += size_of(inner for inner in path.iterdir() if inner.is_file())
            else:
                size += path.stat().st_size
        except OSError:
            continue
    return size


class ShardRecord(msgspec.Struct, frozen=True):
    """What a shard that has ended leaves.

    Attributes
    ----------
    format : int
    rwtool : str
    task : str
        What was done, with which settings: the same for all shards of one division.
    shard, of : int
    cases : int
        Of all shards.
    cases_crc32 : str
    done : int
        Cases of this shard that are done, in this run or before.
    failed : dict of str to str
        What could not be done, with the reasons: cases, or single predictions of them.
    runs : tuple of (str, str)
        Of an evaluation: method and run, in their order.
    """

    format: int
    rwtool: str
    task: str
    shard: Places
    of: Places
    cases: Annotated[int, Meta(ge=0)]
    cases_crc32: Annotated[str, Meta(pattern="^[0-9a-f]{8}$")]
    done: Annotated[int, Meta(ge=0)]
    failed: dict[str, str]
    runs: tuple[tuple[str, str], ...] = ()

    @property
    def division(self) -> tuple[str, int, str]:
        """What shards that belong together have in common."""
        return self.task, self.of, self.cases_crc32


def read_record(folder: Path) -> ShardRecord | None:
    """What stands in the folder of a shard; None where the folder is not that of one.

    Raises
    ------
    RwtoolError
        It is damaged.
    UsageError
        The shard has not ended.
    """
    path = folder / RECORD
    if not path.is_file():
        if folder.parent.name == FOLDER and re.fullmatch(r"[0-9]+-of-[0-9]+", folder.name):
            raise UsageError(f"{folder}: this shard has not ended, so what it holds is not whole; {_MEND}")
        return None
    content = read_json(path, refusal=_REFUSAL, mend=_MEND)
    check_format(path, content, _FORMAT, refusal=_REFUSAL, mend=_MEND)
    return to_record(content, ShardRecord, path, refusal=_REFUSAL, mend=_MEND)


def read_records(out: Path) -> list[ShardRecord]:
    """Of all shards that have ended in a folder of output; one that is damaged has not."""
    found = []
    for path in sorted((out / FOLDER).glob(f"*-of-*/{RECORD}")):
        try:
            record = read_record(path.parent)
        except RwtoolError:
            continue
        if record is not None:
            found.append(record)
    return found


def warn_of_others(out: Path, share: Share, task: str, *, again: str = "what is done is kept") -> str | None:
    """What to say before a shard begins where shards of another division have been; None where there are none.

    A case may have moved from one shard to another, so that none of these has done it. `again` says what becomes of
    those that are done.
    """
    others = [
        r for r in read_records(out) if r.task == task and r.division != (task, share.shard.of, share.cases_crc32)
    ]
    if not others:
        return None
    ran, last = shorten([f"{other.shard} of {other.of}" for other in others]), others[-1]
    then, now = f"{last.of} shards", f"{share.shard.of}"
    if last.of == share.shard.of:
        same = " of other sizes" if last.cases == share.total else ""
        then, now = f"{count(last.cases, 'case')}{same}", f"{share.total:,}"
    return (
        f"{out / FOLDER}: shard {ran} ran when there were {then}, and now there are {now}, so cases have moved from "
        f"shard to shard; run all {share.shard.of} of them, also those that have ended: {again}"
    )


@dataclass(frozen=True)
class Standing:
    """Which shards of a division have ended, as far as their folder of output tells.

    Attributes
    ----------
    of : int
    ended, missing : tuple of int
    failed : dict of int to int
        Shard to the number of its cases that failed, where some did.
    """

    of: int
    ended: tuple[int, ...]
    missing: tuple[int, ...]
    failed: dict[int, int]

    def describe(self) -> str:
        """For people: ``4 of 8 shards have ended; not yet 2, 5 to 7``."""
        said = f"all {self.of} shards have ended" if not self.missing else (
            f"{len(self.ended)} of {count(self.of, 'shard')} ended so far; not yet {ranges(self.missing)}"
        )  # fmt: skip
        if self.failed:
            said += f"; {count(sum(self.failed.values()), 'case')} failed in {ranges(sorted(self.failed))}"
        return said


def find_standing(records: Iterable[ShardRecord], division: tuple[str, int, str]) -> Standing:
    """Count the shards of a division."""
    alike = {record.shard: record for record in records if record.division == division}
    of = division[1]
    failed = {index: len(record.failed) for index, record in sorted(alike.items()) if record.failed}
    return Standing(of, tuple(sorted(alike)), tuple(k for k in range(1, of + 1) if k not in alike), failed)


def begin_shard(out: Path, share: Share) -> None:
    """Take back that a shard has ended, before what it has left is replaced."""
    with naming(share.shard.folder(out), OSError, doing="written"):
        (share.shard.folder(out) / RECORD).unlink(missing_ok=True)


def end_shard(
    out: Path, share: Share, task: str, failed: Mapping[str, str], *, runs: Sequence[tuple[str, str]] = ()
) -> Standing:
    """Note in the folder of output that a shard has ended; returns which others have.

    Parameters
    ----------
    out : Path
    share : Share
    task : str
    failed : mapping of str to str
        Reason by case, of those that are not done.
    runs : sequence of (str, str)
        As in the record.

    Raises
    ------
    VolumeError
        It cannot be written.
    """
    shard = share.shard
    record = ShardRecord(
        _FORMAT, __version__, task, shard.index, shard.of, share.total, share.cases_crc32,
        len(set(share.names) - set(failed)), dict(failed), tuple(runs),
    )  # fmt: skip
    folder = shard.folder(out)
    make_folder(folder)
    write_json(folder / RECORD, record)
    return find_standing(read_records(out), record.division)


def ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers in words.

    >>> ranges([1, 2, 3, 5, 7, 8])
    '1 to 3, 5, 7, 8'
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return shorten([f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs])
