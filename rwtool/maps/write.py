"""From a label file to its maps."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rwtool.datasets.plan import LabelFile
from rwtool.files import file_crc32, naming
from rwtool.io.volume import Volume
from rwtool.io.write import create, storage_axes
from rwtool.maps.folder import file_times, relative
from rwtool.maps.parameters import MapParameters, MapSummary, Storage
from rwtool.maps.settings import MapRecord
from rwtool.maps.streaming import map_blocks


@dataclass(frozen=True)
class MapJob:
    """One case: its label file and the maps to make of it.

    Attributes
    ----------
    name : str
    labels : LabelFile
    outputs : tuple of (MapParameters, Path)
        The folder that each map goes to.
    storage : Storage
    threads : int
    """

    name: str
    labels: LabelFile
    outputs: tuple[tuple[MapParameters, Path], ...]
    storage: Storage
    threads: int = 1

    @property
    def bytes_per_voxel(self) -> int:
        """Of all maps together, before compression."""
        packed = self.storage.layout == "packed"
        channels = sum(p.packed_channels if packed else len(self.labels.classes) for p, _ in self.outputs)
        return channels * np.dtype(self.storage.dtype).itemsize


def write_maps(job: MapJob) -> dict[str, MapRecord]:
    """Make all maps of a case; returns the record of each by kind."""
    volume = job.labels.read()
    return {parameters.kind: _write_map(job, parameters, folder, volume) for parameters, folder in job.outputs}


def _write_map(job: MapJob, parameters: MapParameters, folder: Path, volume: Volume) -> MapRecord:
    start = time.perf_counter()
    classes, storage, summary = job.labels.classes, job.storage, MapSummary()
    path = folder / f"{job.name}.{storage.format}"
    blocks = map_blocks(
        volume.array,
        volume.spacing_mm,
        len(classes),
        parameters,
        summary,
        ignore=volume.ignored,
        layout=storage.layout,
        axis=storage_axes(volume.geometry, f".{storage.format}")[0],
        threads=job.threads,
    )
    channels: int | None = parameters.packed_channels if storage.layout == "packed" else len(classes)
    if storage.layout == "packed" and channels == 1:
        channels = None
    slope, threads = storage.slope(parameters, len(classes)), job.threads
    with create(path, volume.geometry, storage.dtype, channels=channels, slope=slope, threads=threads) as put:
        for _, _, block in blocks:
            put(block)
            del block  # the next channel is made while a loop still holds its last block
    values = classes.values
    with naming(path, OSError):
        size, crc32, times_ns = path.stat().st_size, file_crc32(path), file_times(path)
    return MapRecord(
        file=path.name,
        bytes=size,
        crc32=crc32,
        times_ns=times_ns,
        source=relative(job.labels.path, folder),
        source_bytes=job.labels.path.stat().st_size,
        source_sha256=job.labels.sha256,
        shape=volume.array.shape,
        spacing_mm=volume.spacing_mm,
        slice_axis=volume.geometry.slice_axis,
        absent=tuple(values[k] for k in summary.absent),
        filling=tuple(values[k] for k in summary.filling),
        zero_distance=tuple(values[k] for k in summary.zero_distance),
        absent_slices={values[k]: n for k, n in summary.absent_slices.items()},
        filling_slices={values[k]: n for k, n in summary.filling_slices.items()},
        largest_distance={values[k]: round(d, 6) for k, d in sorted(summary.largest_distance.items())},
        notes=tuple(volume.notes),
        seconds=round(time.perf_counter() - start, 3),
    )
