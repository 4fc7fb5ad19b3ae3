"""From a label file to its maps."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from rwtool.datasets.classes import Classes
from rwtool.files import file_crc32
from rwtool.io.formats import create, read_labels, storage_axes
from rwtool.io.labels import ignored_value
from rwtool.io.volume import Volume
from rwtool.maps.folder import file_times, relative
from rwtool.maps.parameters import MapParameters, MapSummary
from rwtool.maps.settings import MapRecord, Storage
from rwtool.maps.streaming import map_blocks


@dataclass(frozen=True)
class MapJob:
    """One case: its label file and the maps to make of it.

    Attributes
    ----------
    name : str
    labels : Path
    sha256 : str
        Of the label file.
    classes : Classes
    outputs : dict of MapParameters to Path
        The folder that each map goes to.
    storage : Storage
    spacing_mm : (3,) float, optional
        For ``.npy`` labels.
    slice_axis : int, optional
    threads : int
    """

    name: str
    labels: Path
    sha256: str
    classes: Classes
    outputs: tuple[tuple[MapParameters, Path], ...]
    storage: Storage
    spacing_mm: tuple[float, float, float] | None = None
    slice_axis: int | None = None
    threads: int = 1


def write_maps(job: MapJob) -> dict[str, MapRecord]:
    """Make all maps of a case; returns the record of each by kind."""
    volume = read_labels(
        job.labels,
        classes=job.classes.values,
        ignore=job.classes.ignore,
        spacing_mm=job.spacing_mm,
        slice_axis=job.slice_axis,
    )
    return {parameters.kind: _write_map(job, parameters, folder, volume) for parameters, folder in job.outputs}


def _write_map(job: MapJob, parameters: MapParameters, folder: Path, volume: Volume) -> MapRecord:
    start = time.perf_counter()
    classes, storage, summary = job.classes, job.storage, MapSummary()
    path = folder / f"{job.name}.{storage.format}"
    blocks = map_blocks(
        volume.array,
        volume.spacing_mm,
        len(classes),
        parameters,
        summary,
        ignore=None if classes.ignore is None else ignored_value(volume.array.dtype),
        layout=storage.layout,
        axis=storage_axes(volume.geometry, f".{storage.format}")[0],
        threads=job.threads,
    )
    channels = None if storage.layout == "packed" else len(classes)
    slope = storage.slope(parameters, len(classes))
    with create(path, volume.geometry, storage.dtype, channels=channels, slope=slope) as put:
        for _, _, block in blocks:
            put(block)
            del block  # the next channel is made while a loop still holds its last block
    values = classes.values
    return MapRecord(
        file=path.name,
        bytes=path.stat().st_size,
        crc32=file_crc32(path),
        times_ns=file_times(path),
        source=relative(job.labels, folder),
        source_bytes=job.labels.stat().st_size,
        source_sha256=job.sha256,
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
