"""One case and its predictions, measured once: what is unchanged since the last time comes from a cache."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from rwtool import __version__
from rwtool.datasets.classes import Classes
from rwtool.datasets.plan import LabelFile
from rwtool.datasets.values import explain_masks
from rwtool.errors import RwtoolError
from rwtool.evaluation.regrid import Alignment, read_aligned
from rwtool.io.formats import read_header, read_label_values, suited
from rwtool.io.labels import label_dtype
from rwtool.io.names import file_hash, unchanged
from rwtool.io.volume import Volume
from rwtool.metrics.measures import ClassMetrics, HD95Rule, evaluate_labels
from rwtool.records import check_format, checksum, read_json, to_record, write_json

_CACHE_FORMAT = 3
_IGNORED = 2  # in the mask of a region
_PROCESS_BYTES = 100_000_000  # interpreter and libraries


@dataclass(frozen=True)
class Settings:
    """All that the numbers of a case depend on, beside its files.

    Attributes
    ----------
    classes : Classes
    measured : tuple of int
        Class indices.
    regions : tuple of tuple of int
        Unions of class indices, each measured as one mask.
    distances : bool
    hd95 : {"directed", "pooled"}
    nsd_tolerance_mm : dict of int to float
        By class index; region r has the index K + r.
    spacing_mm : (3,) float, optional
        Of references without one.
    resample : bool
    """

    classes: Classes
    measured: tuple[int, ...]
    regions: tuple[tuple[int, ...], ...]
    distances: bool
    hd95: HD95Rule
    nsd_tolerance_mm: dict[int, float]
    spacing_mm: tuple[float, float, float] | None
    resample: bool

    def key(self, reference_sha256: str, prediction_sha256: str | None) -> str:
        """Name a measurement by all that it depends on."""
        content = {"rwtool": __version__, "files": [reference_sha256, prediction_sha256], **asdict(self)}
        content["classes"] = [self.classes.values, self.classes.ignore, sorted(self.classes.map_values.items())]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class CaseJob:
    """One case with the predictions of all runs.

    Attributes
    ----------
    reference : LabelFile
    predictions : tuple of (Path or None)
        None where a run lacks the case.
    settings : Settings
    cache : Path, optional
        JSON file of the case.
    threads : int
    """

    reference: LabelFile
    predictions: tuple[Path | None, ...]
    settings: Settings
    cache: Path | None = None
    threads: int = 1


@dataclass(frozen=True)
class Measured:
    """What became of one prediction.

    Attributes
    ----------
    metrics : tuple of ClassMetrics
        Labels are class indices 0..K-1, and K + r for region r.
    sha256 : str or None
        Of the prediction.
    voxels : int
        Voxels of the reference without the ignored ones.
    alignment : {"same", "reoriented", "resampled"}
    notes : tuple of str
    mapped : tuple of int
        Values, of the reference or the prediction, for which others were taken.
    reused : bool
        Taken from the cache.
    error : str or None
        Why there are no metrics.
    """

    metrics: tuple[ClassMetrics, ...] = ()
    sha256: str | None = None
    voxels: int = 0
    alignment: Alignment = "same"
    notes: tuple[str, ...] = ()
    mapped: tuple[int, ...] = ()
    reused: bool = False
    error: str | None = None


def measure_case(job: CaseJob) -> list[Measured]:
    """Measure all predictions of a case, as far as the cache does not know them.

    Returns
    -------
    list of Measured
        One per prediction, in their order; one that cannot be measured has its reason.

    Raises
    ------
    RwtoolError
        The reference cannot be read.
    """
    known = _read_cache(job.cache)
    hashes = [None if path is None else _hash(path) for path in job.predictions]
    keys = [job.settings.key(job.reference.sha256, sha256) for sha256 in hashes]
    if all(key in known for key in keys):
        return [replace(known[key], reused=True) for key in keys]
    reference = job.reference.read()
    voxels = reference.array.size
    if reference.ignored is not None:
        voxels -= int(np.count_nonzero(reference.array == reference.ignored))
    results = []
    for path, sha256, key in zip(job.predictions, hashes, keys, strict=True):
        if key in known:
            results.append(replace(known[key], reused=True))
            continue
        try:
            with unchanged(path, sha256) if path is not None and sha256 else contextlib.nullcontext():
                result = _measure(job, reference, path)
        except RwtoolError as error:
            result = Measured(error=_masks(job, path) or str(error))
        results.append(replace(result, sha256=sha256, voxels=voxels))
    _write_cache(job.cache, {key: result for key, result in zip(keys, results, strict=True) if result.error is None})
    return results


def peak_bytes(job: CaseJob) -> int:
    """Memory that a process takes at most for a case.

    Two label arrays and 8 bytes per voxel to compare them, which masks of noise that lie far apart take; or while a
    file is read, its own type and two label arrays beside the one that is there. A prediction to be resampled may be
    larger than its reference.
    """
    label = label_dtype(len(job.settings.classes), with_ignore=True).itemsize
    voxels = job.reference.voxels
    masks = 2 if job.settings.regions else 0
    peak = voxels * max(2 * label + masks + 8, 2 * label + job.reference.itemsize)
    for path in filter(None, job.predictions):
        try:
            header = read_header(path, **suited(path, spacing_mm=job.reference.spacing_mm))
        except RwtoolError:
            continue  # the case will say so
        predicted = math.prod(header.geometry.shape)
        peak = max(peak, voxels * label + predicted * (2 * label + header.dtype.itemsize))
        if job.settings.resample:
            peak = max(peak, (3 * voxels + 2 * predicted) * label)
    return peak + _PROCESS_BYTES


def _hash(path: Path) -> str:
    """SHA-256 of a file; empty where it cannot be read, which reading it will explain."""
    try:
        return file_hash(path)
    except OSError:
        return ""


def _measure(job: CaseJob, reference: Volume, path: Path | None) -> Measured:
    """Compare one prediction with the reference; a missing one is compared as one that holds no class at all."""
    settings, labels = job.settings, reference.array
    n_classes = len(settings.classes)
    notes = [f"reference: {note}" for note in reference.notes]
    alignment: Alignment = "same"
    mapped = {*reference.mapped}
    if path is None:
        prediction = np.broadcast_to(np.uint16(n_classes), labels.shape)
        n_classes += 1
    else:
        aligned = read_aligned(
            path, reference, job.reference.path, classes=settings.classes, resample=settings.resample
        )
        prediction, alignment = aligned.array, aligned.alignment
        notes += [f"prediction: {note}" for note in aligned.notes]
        mapped |= {*aligned.mapped}
    measure = partial(
        evaluate_labels,
        spacing_mm=reference.spacing_mm,
        distances=settings.distances and path is not None,
        hd95=settings.hd95,
        threads=job.threads,
    )
    metrics = measure(
        labels,
        prediction,
        n_classes=n_classes,
        classes=settings.measured,
        nsd_tolerance_mm=settings.nsd_tolerance_mm,
        ignore=reference.ignored,
    )
    for r, parts in enumerate(settings.regions):
        index = len(settings.classes) + r
        masks = [_union(array, parts, reference.ignored) for array in (labels, prediction)]
        (found,) = measure(*masks, n_classes=2, nsd_tolerance_mm=settings.nsd_tolerance_mm.get(index), ignore=_IGNORED)
        metrics.append(replace(found, label=index))
    return Measured(tuple(metrics), alignment=alignment, notes=tuple(notes), mapped=tuple(sorted(mapped)))


class _Result(msgspec.Struct, frozen=True):
    """What the cache keeps of one prediction; ``crc32`` is of the rest, so that no digit changes unseen."""

    metrics: tuple[dict[str, int | float | str | None], ...]
    sha256: str | None
    voxels: Annotated[int, Meta(ge=0)]
    alignment: Alignment
    notes: tuple[str, ...]
    mapped: tuple[int, ...]
    crc32: str = ""

    def checksum(self, key: str) -> str:
        """CRC-32 of the result, and of what it is kept under."""
        return checksum([key, msgspec.structs.replace(self, crc32="")])


class _Cache(msgspec.Struct, frozen=True):
    format: int
    rwtool: str
    results: dict[str, _Result]


def _masks(job: CaseJob, path: Path | None) -> str | None:
    """The reason of a failure where reference and prediction are masks of other values."""
    ignore = job.settings.classes.ignore
    if path is None:
        return None
    try:
        where: dict[str, Any] = {"ignore": ignore, "map_values": job.settings.classes.map_values}
        found = [
            read_label_values(each, **where, **suited(each, spacing_mm=job.reference.spacing_mm))
            for each in (job.reference.path, path)
        ]
    except RwtoolError:
        return None
    reason = explain_masks(*found, ignore=ignore)
    return None if reason is None else f"{path}: {reason}"


def _union(labels: NDArray[Any], parts: tuple[int, ...], ignored: int | None) -> NDArray[np.uint8]:
    """A region as labels: 1 in any of its classes, 0 elsewhere, and the ignored voxels."""
    table = np.zeros(np.iinfo(labels.dtype).max + 1 if labels.dtype.itemsize <= 2 else int(labels.max()) + 1, np.uint8)
    table[list(parts)] = 1
    if ignored is not None and ignored < len(table):
        table[ignored] = _IGNORED
    return table[labels]


def _read_cache(path: Path | None) -> dict[str, Measured]:
    """Results by key, as far as they are what was written; what is not will be measured again."""
    known: dict[str, Measured] = {}
    if path is None or not path.is_file():
        return known
    with contextlib.suppress(RwtoolError, TypeError):  # of fields that ClassMetrics does not have
        content = read_json(path, refusal="", mend="")
        check_format(path, content, _CACHE_FORMAT, refusal="", mend="")
        cache = to_record(content, _Cache, path, refusal="", mend="")
        for key, result in cache.results.items():
            if result.crc32 == result.checksum(key):
                known[key] = _from_result(result)
    return known


def _write_cache(path: Path | None, results: dict[str, Measured]) -> None:
    if path is None:
        return
    kept = {}
    for key, measured in results.items():
        result = _to_result(measured)
        kept[key] = msgspec.structs.replace(result, crc32=result.checksum(key))
    write_json(path, _Cache(_CACHE_FORMAT, __version__, kept))


def _to_result(measured: Measured) -> _Result:
    """A result for JSON, which has no NaN: None."""
    metrics = []
    for entry in measured.metrics:
        values = asdict(entry).items()
        metrics.append({name: None if isinstance(x, float) and math.isnan(x) else x for name, x in values})
    return _Result(
        tuple(metrics), measured.sha256, measured.voxels, measured.alignment, measured.notes, measured.mapped
    )


def _from_result(result: _Result) -> Measured:
    metrics = []
    for entry in result.metrics:
        values: dict[str, Any] = {name: math.nan if value is None else value for name, value in entry.items()}
        metrics.append(ClassMetrics(**values))
    return Measured(tuple(metrics), result.sha256, result.voxels, result.alignment, result.notes, result.mapped)
