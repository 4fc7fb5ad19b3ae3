"""A folder of maps: one file per case, a sidecar, ``maps.json``, that says what each number means, and its journals.

While maps are made, the record of each case is a line added to a journal of the process that makes them,
``maps.json.journal.*``, so that none waits for another; it is folded into ``maps.json`` when the run ends, or when the
next one begins. A killed run loses nothing but a line that it was just writing.
"""

from __future__ import annotations

import contextlib
import os
import stat
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from rwtool import __version__
from rwtool.claims import claimed, writers
from rwtool.datasets.plan import LabelFile
from rwtool.errors import RwtoolError, UsageError, VolumeError
from rwtool.files import file_crc32, file_in, locked, make_folder, naming, remove_leftovers
from rwtool.io.formats import read_channels, read_labels, suited
from rwtool.io.geometry import Geometry
from rwtool.io.grids import compare_grids
from rwtool.io.names import case_name, file_hash, may_be_volume, unchanged
from rwtool.io.volume import Volume
from rwtool.maps.parameters import FILED
from rwtool.maps.settings import (
    SIDECAR,
    SIDECAR_FORMAT,
    MapRecord,
    MapSettings,
    check_file_name,
    difference,
    read_sidecar,
)
from rwtool.maps.streaming import expand_channel
from rwtool.records import checksum, parse_json, sealed, to_json, write_json

JOURNAL = f"{SIDECAR}.journal"
"""How the names of journals begin; after it stands the name of the writer."""


class _Line(msgspec.Struct, frozen=True):
    """One case in the journal, bound to the settings that its map was made with."""

    format: int
    settings: str
    case: str
    record: MapRecord
    crc32: str = ""

    def checksum(self) -> str:
        """CRC-32 of the rest."""
        return checksum(msgspec.structs.replace(self, crc32=""))


@dataclass
class MapSet:
    """A folder of maps of one kind, as its sidecar tells it.

    Attributes
    ----------
    folder : Path
    settings : MapSettings
        Everything that is the same for all cases.
    cases : dict of str to MapRecord
        By case name.
    """

    folder: Path
    settings: MapSettings
    cases: dict[str, MapRecord] = field(default_factory=dict)
    _writer: str = field(default_factory=lambda: uuid.uuid4().hex, repr=False, compare=False)

    @property
    def kind(self) -> str:
        """Kind of the maps."""
        return self.settings.parameters.kind

    @property
    def n_classes(self) -> int:
        """Number of classes, K."""
        return len(self.settings.classes)

    @property
    def class_values(self) -> tuple[int, ...]:
        """The label file's value of each class."""
        return self.settings.classes.values

    @property
    def ignore(self) -> int | None:
        """The label file's value of voxels without a class."""
        return self.settings.ignore

    @property
    def packed(self) -> bool:
        """Whether the files hold the own value, and the other value if it varies in a class, instead of K channels."""
        return self.settings.storage.layout == "packed"

    def other_values(self) -> NDArray[np.float32]:
        """The "other" value of a rectified kind by true class, shape (K,)."""
        return self.settings.other_values()

    def path(self, case: str) -> Path:
        """The map file of a case.

        Raises
        ------
        VolumeError
            It is a link that leads out of the folder.
        """
        return file_in(self.folder, self.cases[case].file)

    def source(self, case: str) -> Path:
        """The label file that the map of a case was made from, as far as the sidecar knows."""
        return Path(os.path.normpath(self.folder / self.cases[case].source))

    def is_done(self, case: str, labels: LabelFile) -> bool:
        """Whether the map of a case is there, whole, and made from this label file read in this way.

        A file is the one that its record, and with it the settings of the folder, speaks of if it has the record's
        size and was not touched since (the times of its content and of its entry are the record's); one that was
        copied, moved or written to has its CRC-32 compared.
        """
        record = self.cases.get(case)
        if record is None or (record.source_sha256, record.shape, record.spacing_mm, record.slice_axis) != (
            labels.sha256,
            labels.shape,
            labels.spacing_mm,
            labels.slice_axis,
        ):
            return False
        return _is_written(self.folder, record)

    @contextmanager
    def writing(self, *, overwrite: bool = False) -> Iterator[None]:
        """Hold the folder for maps of these settings, together with other runs of the same settings.

        Parameters
        ----------
        overwrite : bool
            Replace maps of other settings, and what is no readable sidecar: their files are removed where size and
            CRC-32 say that they are the ones that were written.

        Raises
        ------
        UsageError
            Another process writes maps of other settings there, or it holds such maps.
        VolumeError
            The folder cannot be written to.
        """
        make_folder(self.folder)
        mend = "wait until it has ended, or name another out="
        told = self.settings.describe()
        with claimed(self.folder, told, shared=True, mend=mend, at_last=self._end) as self._writer:
            remove_leftovers(self.folder)
            # what is large is read by many at once, and written by one
            if not self._is_begun():
                with locked(self.folder / SIDECAR):
                    self._begin(overwrite)
            elif self._orphans():
                with locked(self.folder / SIDECAR):
                    if self._orphans():
                        self._fold()
            yield

    def _end(self) -> None:
        """Tidy up, where nobody else writes any more: whoever reads takes the journals into account anyway."""
        with locked(self.folder / SIDECAR):
            self._fold()

    def add(self, case: str, record: MapRecord) -> None:
        """Note the map of a case in the journal; only within :meth:`writing`."""
        self.cases[case] = record
        entry = _Line(SIDECAR_FORMAT, self.settings.describe(), case, record)
        line = to_json(msgspec.structs.replace(entry, crc32=entry.checksum()))
        path = self.folder / f"{JOURNAL}.{self._writer}"
        with naming(path, OSError, doing="written"), path.open("ab+") as stream:
            torn = stream.tell() > 0 and (stream.seek(-1, os.SEEK_END), stream.read(1))[1] != b"\n"
            stream.write((b"\n" if torn else b"") + line.encode() + b"\n")

    @property
    def has_journal(self) -> bool:
        """Whether a run that was killed, or goes on, has left lines that the sidecar does not hold yet."""
        return any(True for _ in _journals(self.folder))

    def _is_begun(self) -> bool:
        """Whether the sidecar is there and says these settings; its cases are taken over."""
        with contextlib.suppress(RwtoolError):
            there = read_map_set(self.folder)
            if there is not None and there.settings == self.settings:
                self.cases = there.cases
                return True
        return False

    def _orphans(self) -> list[Path]:
        """Journals that nobody adds to any more, and that of this writer."""
        others = writers(self.folder) - {self._writer}
        return [path for path in _journals(self.folder) if path.name.rpartition(".")[2] not in others]

    def _begin(self, overwrite: bool) -> None:
        """Make the sidecar say these settings; maps of others are refused, or removed."""
        ended = self._orphans()  # before they are read: one whose writer ends meanwhile may have lines that were not
        old = open_map_set(self, overwrite=overwrite)
        same = old is not None and old.settings == self.settings
        self.cases = old.cases if old is not None and same else {}
        self._write(ended)
        for record in [] if old is None or same else old.cases.values():
            if _is_written(self.folder, record):
                with naming(self.folder / record.file, OSError, doing="removed"):
                    (self.folder / record.file).unlink()

    def _fold(self) -> None:
        """Bring the journals, of this run and of others, into the sidecar."""
        ended = self._orphans()
        self._is_begun()
        self._write(ended)

    def _write(self, folded: Sequence[Path]) -> None:
        """Write the sidecar, and remove the journals that it then holds."""
        content = {
            "format": SIDECAR_FORMAT,
            "rwtool": __version__,
            **self.settings.as_dict(),
            "cases": dict(sorted(self.cases.items())),
        }
        write_json(self.folder / SIDECAR, sealed(content))
        for path in folded:
            path.unlink(missing_ok=True)


def open_map_set(new: MapSet, *, overwrite: bool) -> MapSet | None:
    """What the folder of maps that are to be made holds; None where it holds no maps.

    Raises
    ------
    UsageError
        Maps of other settings, which are not to be overwritten.
    RwtoolError
        A damaged sidecar, which is not to be overwritten.
    """
    try:
        old = read_map_set(new.folder)
    except RwtoolError:
        if not overwrite:
            raise
        return None
    kept = old is not None and (old.cases or old.kind not in FILED)  # a matrix stands in the settings
    if old is not None and kept and not overwrite and (changed := difference(old.settings, new.settings)):
        raise UsageError(
            f"{new.folder} holds maps of other settings ({'; '.join(changed)}); give overwrite=True to make them anew, "
            "or another out="
        )
    return old


def _is_written(folder: Path, record: MapRecord) -> bool:
    """Whether a file is the one that was written when its record was; a link never is."""
    path = folder / record.file
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_size != record.bytes:
            return False
        return file_times(path) == record.times_ns or file_crc32(path) == record.crc32
    except OSError:
        return False


def check_written(path: Path, record: MapRecord) -> None:
    """Refuse a map file that is not the one that was written, before a number of it is used.

    Raises
    ------
    VolumeError
        It is not there, or its size or CRC-32 is not that of its record.
    """
    with naming(path, OSError):
        same = path.stat().st_size == record.bytes and file_crc32(path) == record.crc32
    if not same:
        raise VolumeError(
            f"{path}: it is not the map that was written (its size or CRC-32 differs); remove it and run rwtool maps "
            "again"
        )


def file_times(path: Path) -> tuple[int, int]:
    """When the content of a file was changed, and when its entry was, in ns; no copy of it has the same."""
    found = path.lstat()
    return found.st_mtime_ns, found.st_ctime_ns


def read_map_set(folder: str | Path) -> MapSet | None:
    """Read the sidecar of a map folder, and its journals; None where there is none.

    Raises
    ------
    RwtoolError
        If the sidecar is damaged, or written by another rwtool in another format.
    """
    folder = Path(folder)
    # first, since they may be folded in meanwhile
    journal = [line for path in _journals(folder) for line in _read_journal(path)]
    if not (folder / SIDECAR).is_file():
        return None
    settings, cases = read_sidecar(folder / SIDECAR)
    stamp = settings.describe()
    for line in journal:
        with contextlib.suppress(UsageError):
            check_file_name(line.case, line.record, settings.storage)
            if (line.format, line.settings) == (SIDECAR_FORMAT, stamp):
                cases[line.case] = line.record
    return MapSet(folder, settings, cases)


def _journals(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{JOURNAL}*"))


def _read_journal(path: Path) -> list[_Line]:
    """Its lines; those that are not whole are left out, so that their cases are made again."""
    found = []
    try:
        text = path.read_bytes() if path.is_file() else b""
    except FileNotFoundError:  # folded in just now
        return []
    except OSError as error:
        raise RwtoolError(f"{path}: cannot be read: {error.strerror or error}") from error
    for line in text.split(b"\n"):
        with contextlib.suppress(ValueError, RecursionError):  # of msgspec too
            entry = msgspec.convert(parse_json(line), _Line, str_keys=True)
            if entry.crc32 in ("", entry.checksum()):
                found.append(entry)
    return found


def iterate_map(
    path: str | Path, *, labels: str | Path | None = None, maps: MapSet | None = None
) -> Iterator[NDArray[np.float32]]:
    """Give the dense channels of a map file one after another, ``(Z, Y, X)`` each.

    Parameters are those of :func:`read_map`; and `maps`, what the sidecar beside the file says, where it has been read:
    that of a large folder takes longer to read than a map.
    """
    path = Path(path)
    maps = maps or read_map_set(path.parent)
    case = case_name(path)
    record = maps.cases.get(case) if maps else None
    where = {}
    if record is not None:
        check_written(path, record)
        where = grid_of(path, record)
    if maps is None or record is None or not maps.packed:
        for volume in read_channels(path, **where):
            yield volume.array
        return
    channels = list(read_channels(path, **where))
    source = read_source(maps, case, labels)
    refuse_other_grid(path, source.geometry, channels[0].geometry)
    wanted = maps.settings.parameters.packed_channels
    if len(channels) != wanted:
        raise VolumeError(f"{path}: it has {len(channels)} channels in place of {wanted}; make the maps again")
    packed = channels[0].array if wanted == 1 else np.stack([channel.array for channel in channels])
    del channels
    others = maps.other_values()
    for k in range(maps.n_classes):
        yield expand_channel(packed, source.array, others, k, ignore=source.ignored)


def refuse_other_grid(path: Path, labels: Geometry, grid: Geometry) -> None:
    """Refuse a packed map that does not lie where its labels do.

    Raises
    ------
    VolumeError
    """
    match = compare_grids(labels, grid)
    if not match.same:
        raise VolumeError(f"{path}: it lies on another grid than its labels: {match.difference}; make the maps again")


def read_map(path: str | Path, *, labels: str | Path | None = None) -> NDArray[np.float32]:
    """Read a map as a dense array, whatever its format, type and layout on disk.

    Parameters
    ----------
    path : path
        A file of a map folder. Its sidecar, ``maps.json`` beside it, tells how it was stored; a dense NIfTI can
        do without.
    labels : path, optional
        The case's label file. A packed map is read together with it; by default it is where the sidecar says it was.

    Returns
    -------
    (K, Z, Y, X) float32 array

    Raises
    ------
    VolumeError
        If a file is missing or damaged, or the label file is not the one that the map was made from.
    """
    return np.stack(list(iterate_map(path, labels=labels)))


def read_source(maps: MapSet, case: str, labels: str | Path | None = None) -> Volume:
    """Read the label file that a map was made from, as class indices, and make sure that it is the same one.

    Parameters
    ----------
    maps : MapSet
    case : str
    labels : path, optional
        Where the file is now.

    Returns
    -------
    Volume

    Raises
    ------
    VolumeError
        If it is not there, or its SHA-256 is another.
    """
    source = Path(labels) if labels is not None else maps.source(case)
    record = maps.cases[case]
    if not may_be_volume(source):  # nor a device or a pipe, which a damaged sidecar may name
        raise VolumeError(
            f"{source}: no such file, but the map {maps.path(case)} was made from it; name it with labels="
        )
    if file_hash(source) != record.source_sha256:
        raise VolumeError(
            f"{source}: this is not the label file that the map {maps.path(case)} was made from; its hash differs"
        )
    with unchanged(source, record.source_sha256):
        return read_labels(source, classes=maps.class_values, ignore=maps.ignore, **grid_of(source, record))


def grid_of(path: Path, record: MapRecord) -> dict[str, Any]:
    """What a record knows of the grid that the file itself does not say, as arguments to read it with."""
    return suited(path, spacing_mm=record.spacing_mm, slice_axis=record.slice_axis)


def relative(path: Path, folder: Path) -> str:
    """Path as seen from a folder, so that a project can be moved as a whole; absolute across drives."""
    try:
        return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    except ValueError:
        return path.resolve().as_posix()
