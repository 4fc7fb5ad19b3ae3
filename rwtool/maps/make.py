"""From a folder of label files to folders of maps: plan, resume, make."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rwtool.console import count
from rwtool.datasets.plan import DataSet, LabelFile, plan_dataset
from rwtool.datasets.preprocessed import preprocessed_root
from rwtool.engines import Engine, EngineName, choose_engine
from rwtool.errors import UsageError
from rwtool.io.blosc import check_blosc
from rwtool.io.geometry import Geometry
from rwtool.io.labels import label_dtype
from rwtool.io.names import file_hash
from rwtool.io.volume import Volume
from rwtool.io.write import write
from rwtool.maps.core import chosen_core, core_version
from rwtool.maps.folder import MapSet, open_map_set
from rwtool.maps.parameters import (
    FILED,
    WEIGHTED,
    Absent,
    Convention,
    DType,
    Format,
    Kind,
    Layout,
    MapParameters,
    Profile,
    Storage,
    Units,
    check_classes,
    choose_parameters,
)
from rwtool.maps.settings import SIDECAR, MapRecord, make_settings
from rwtool.maps.write import MapJob, write_maps
from rwtool.parallel import GOES_ON, WITHOUT_OVERWRITE, Outcome, Work, run_cases, schedule
from rwtool.shards import Share, Standing, end_shard, parse_shard, warn_of_others

_PROCESS_BYTES = 100_000_000  # interpreter and libraries
_TRIAL_SIDE = 96

Records = dict[str, MapRecord]
"""What the sidecars say of a case, by kind."""


@dataclass(frozen=True)
class MapPlan:
    """What is to be made.

    Attributes
    ----------
    dataset : DataSet
    sets : dict of str to MapSet
        By kind.
    work : list of Work
        Cases to be done.
    skipped : list of str
        Cases whose maps are there already.
    failed : list of Outcome
        Cases that cannot be done, with their reasons.
    jobs, threads : int
    task : str
        What is made, in one line.
    engine : Engine or None
        Whose workers do the cases, if not this machine.
    """

    dataset: DataSet
    sets: dict[str, MapSet]
    work: list[Work[MapJob]]
    skipped: list[str]
    failed: list[Outcome[Any]]
    jobs: int
    threads: int
    task: str = ""
    engine: Engine | None = None

    @property
    def share(self) -> Share | None:
        """The cases of a shard; None where all cases are meant."""
        return self.dataset.share

    def uncompressed_bytes(self) -> int:
        """Size of all maps before compression."""
        return sum(item.voxels * item.argument.bytes_per_voxel for item in self.work)

    def estimate_seconds(self) -> float:
        """Time that it would take, from a trial of the same maps on a small phantom in a temporary folder.

        With an engine, that of one core.
        """
        return _estimate_seconds(self)


@dataclass(frozen=True)
class MadeMaps:
    """What became of the maps of a data set.

    Attributes
    ----------
    plan : MapPlan
    outcomes : list of Outcome
        Of each case that was tried or could not be; the result is what its sidecars say of it, by kind.
    seconds : float
    standing : Standing or None
        Of a shard: which of them have ended.
    """

    plan: MapPlan
    outcomes: list[Outcome[Records]]
    seconds: float = 0.0
    standing: Standing | None = None

    @property
    def sets(self) -> dict[str, MapSet]:
        """The folders of maps, by kind."""
        return self.plan.sets

    @property
    def failed(self) -> list[Outcome[Records]]:
        """The cases without maps, with their reasons."""
        return [outcome for outcome in self.outcomes if outcome.error is not None]


def make_maps(
    labels: str | Path,
    out: str | Path,
    *,
    kinds: Sequence[Kind] = ("rrw",),
    convention: Convention | None = None,
    units: Units | None = None,
    dims: int | None = None,
    alpha: float | None = None,
    beta: float | None = None,
    profile: Profile | None = None,
    sigma: float | None = None,
    instances: bool = False,
    matrix: Sequence[Sequence[float]] | None = None,
    class_weights: Mapping[int, float] | None = None,
    absent: Absent | None = None,
    format: Format = Storage.format,  # noqa: A002  # the option's name
    dtype: DType = Storage.dtype,
    layout: Layout = Storage.layout,
    classes: Sequence[int] | None = None,
    ignore: int | None = None,
    spacing_mm: Sequence[float] | None = None,
    slice_axis: int | None = None,
    name: str | None = None,
    shard: str | None = None,
    jobs: int | None = None,
    engine: EngineName | None = None,
    scheduler: str | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    verbosity: int = -1,
    on_plan: Callable[[MapPlan], None] | None = None,
) -> MadeMaps:
    """Make region-wise maps of label files: what ``rwtool maps`` does.

    Parameters
    ----------
    labels : path
        Folder, file or glob of label files.
    out : path
        Each kind gets a folder in it. A rerun makes only what is missing or has changed.
    kinds : sequence of {"ac", "boundary", "constant", "hd", "matrix", "rrw", "skeleton"}
        A matrix is the same for all cases: it has no file for each, and stands in its ``maps.json``.
    convention, units, dims, alpha, beta, profile, sigma, instances, matrix, absent
        As the attributes of :class:`rwtool.MapParameters`; one that means nothing to any of the kinds is refused.
    class_weights : dict of int to float, optional
        Label value to the factor on the other-class value at its voxels (ac, constant, rrw).
    format, dtype, layout
        As the attributes of :class:`rwtool.Storage`.
    classes : sequence of int, optional
        Label values of all classes, the background first; by default those of ``dataset.json``, or those that occur.
    ignore : int, optional
        Label value of voxels without a class.
    spacing_mm : (3,) float, optional
        Along ``(z, y, x)``, of files that carry none.
    slice_axis : int, optional
        The file axis that is z.
    name : str, optional
        Which part of a path is the name of the case, such as ``"{case}_gt"``; see `rwtool help files`.
    shard : str, optional
        Make the maps of one share of the cases, such as ``"2/8"``, or ``"slurm"``: see `rwtool help cluster`.
    jobs : int, optional
        Cases at once; by default what cores and free memory allow, or all workers of an engine.
    engine : {"dask"}, optional
        Do the cases on the workers of a Dask scheduler; by default in processes of this machine.
    scheduler : str, optional
        Address of the engine's scheduler, such as ``"tls://host:8786"``, or its scheduler file; by default the one that
        Dask's configuration names.
    overwrite : bool
        Make all maps anew, also where maps of other settings are.
    dry_run : bool
        Plan, and write nothing.
    verbosity : int
        -1 shows no progress.
    on_plan : callable, optional
        Called with the plan before anything is made.

    Returns
    -------
    MadeMaps
        One bad case does not cost the others: see its `failed`.

    Raises
    ------
    UsageError
        There are no cases, the options do not fit, or a map folder holds maps of other settings.

    Examples
    --------
    ``rwtool.make_maps("labels", "maps", kinds=("rrw", "boundary"), jobs=4)``
    """
    given = {
        "convention": convention,
        "units": units,
        "dims": dims,
        "alpha": alpha,
        "beta": beta,
        "profile": profile,
        "sigma": sigma,
        "instances": instances or None,
        "matrix": matrix,
        "absent": absent,
    }
    parameters = choose_parameters(kinds, {name: value for name, value in given.items() if value is not None})
    storage = Storage(format, dtype, layout)
    for one in parameters:
        if one.kind in FILED:
            storage.check(one)
    if format == "b2nd":
        check_blosc(UsageError)
    chosen_core()  # refuses a wrong one once, not for each case
    part = parse_shard(shard)
    chosen = choose_engine(engine, scheduler, alike=core_version)
    dataset = plan_dataset(
        labels,
        classes=classes,
        ignore=ignore,
        spacing_mm=spacing_mm,
        slice_axis=slice_axis,
        name=name,
        shard=part,
        jobs=jobs,
        verbosity=verbosity,
    )
    for one in parameters:
        check_classes(one, len(dataset.classes))
    weighted = _weighted(parameters, class_weights or {}, dataset)
    plan = _plan(dataset, Path(out), weighted, storage, jobs=jobs, engine=chosen, overwrite=overwrite)
    if on_plan is not None:
        on_plan(plan)
    if dry_run:
        return MadeMaps(plan, plan.failed)
    start = time.perf_counter()
    outcomes = plan.failed + _make(plan, overwrite=overwrite, verbosity=verbosity)
    standing = None
    if plan.share is not None:
        failed = {outcome.name: outcome.error for outcome in outcomes if outcome.error is not None}
        standing = end_shard(Path(out), plan.share, plan.task, failed)
    return MadeMaps(plan, outcomes, time.perf_counter() - start, standing)


def _plan(
    dataset: DataSet,
    out: Path,
    parameters: Sequence[MapParameters],
    storage: Storage,
    *,
    jobs: int | None,
    engine: Engine | None,
    overwrite: bool,
) -> MapPlan:
    """Settle what is to be done; nothing is written."""
    sets = {str(p.kind): _open_set(out, p, storage, dataset, overwrite=overwrite) for p in parameters}
    for kind, maps in sets.items():
        if maps.folder.resolve() in dataset.folders:
            raise UsageError(
                f"the {kind} maps would go to {maps.folder}, where the label files are; choose another out="
            )
        for root in filter(None, map(preprocessed_root, dataset.paths.values())):
            if maps.folder.resolve().is_relative_to(root.resolve()):
                raise UsageError(
                    f"the {kind} maps would go to {maps.folder}, within nnU-Net's data set {root}; choose an out= "
                    "outside of it"
                )
    if not overwrite:
        for maps in sets.values():
            _refuse_strangers(maps, [f"{name}.{storage.format}" for name in dataset.files])
    work, skipped = [], []
    filed = [p for p in parameters if p.kind in FILED]
    for name, file in dataset.files.items() if filed else ():
        outputs = tuple((p, sets[p.kind].folder) for p in filed if overwrite or not sets[p.kind].is_done(name, file))
        if not outputs:
            skipped.append(name)
            continue
        job = MapJob(name, file, outputs, storage)
        work.append(Work(name, job, file.voxels, peak_bytes(job)))
    failed: list[Outcome[Any]] = list(dataset.failed)
    settled = schedule(work, jobs, engine=engine)
    failed += settled.refused
    work = [replace(item, argument=replace(item.argument, threads=settled.threads)) for item in settled.work]
    task = "; ".join(["maps", *(maps.settings.describe() for maps in sets.values())])
    if dataset.share is not None and (note := warn_of_others(out, dataset.share, task)):
        dataset = replace(dataset, notes=(*dataset.notes, note))
    return MapPlan(dataset, sets, work, skipped, failed, settled.jobs, settled.threads, task, engine)


def _make(plan: MapPlan, *, overwrite: bool, verbosity: int) -> list[Outcome[Records]]:
    """Do what was planned; every case is noted as it is done, so that a killed run loses none."""
    if not plan.work and all(kind in FILED and not maps.has_journal for kind, maps in plan.sets.items()):
        return []

    def note(outcome: Outcome[Records]) -> None:
        for kind, record in (outcome.result or {}).items():
            plan.sets[kind].add(outcome.name, record)

    with contextlib.ExitStack() as stack:
        for maps in plan.sets.values():
            stack.enter_context(maps.writing(overwrite=overwrite))
        return run_cases(
            write_maps,
            plan.work,
            jobs=plan.jobs,
            label="maps",
            verbosity=verbosity,
            on_done=note,
            folders=[maps.folder for maps in plan.sets.values()],
            rerun=WITHOUT_OVERWRITE if overwrite else GOES_ON,
            engine=plan.engine,
        )


def peak_bytes(job: MapJob) -> int:
    """Memory that a process takes at most for a case; measured, see tests/benchmarks/bench_large.py.

    Reading takes the file's type and two label arrays; making the labels, and what stands beside them.
    """
    classes = job.labels.classes
    label = label_dtype(len(classes) - 1, with_ignore=True).itemsize
    beside = [_bytes_beside(parameters, label, classes.ignore is not None) for parameters, _ in job.outputs]
    return job.labels.voxels * max(job.labels.itemsize + 2 * label, label + max(beside, default=0)) + _PROCESS_BYTES


def _bytes_beside(parameters: MapParameters, label: int, ignored: bool) -> int:
    """Bytes per voxel beside the labels while a map is made; distances take 4, masks 1."""
    if not parameters.uses_distance:
        return 4 + 6 * parameters.instances
    inner, boundary = parameters.convention == "inner", parameters.kind == "boundary"
    bytes_beside = 4 + boundary
    if inner:
        bytes_beside = 4 + 4 + 1 if boundary else 4 + 1
    if ignored and parameters.kind != "hd":  # class by class: all distances, those of one, three masks
        bytes_beside = 4 + 4 + 3
    if parameters.kind == "skeleton":
        bytes_beside = 9
    if parameters.absent == "farthest":
        bytes_beside += 4
    bytes_beside += 6 * parameters.instances  # numbers of the components, and their other values
    return bytes_beside + (0 if chosen_core() == "native" else label)  # edt wants its labels from 1 on


def _estimate_seconds(plan: MapPlan) -> float:
    if not plan.work:
        return 0.0
    side, classes = _TRIAL_SIDE, plan.dataset.classes
    grid = np.indices((side, side, side)) - side / 2
    radius = np.sqrt((grid**2).sum(axis=0))
    labels = np.searchsorted(np.linspace(8, 40, len(classes) - 1), radius).astype(np.uint8)
    values = np.asarray(classes.values)[::-1][np.minimum(labels, len(classes) - 1)]
    geometry = Geometry(np.eye(4), (side, side, side), (2, 1, 0), (side, side, side))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels" / "trial.nii.gz"
        write(path, Volume(values.astype(np.uint16), (1.0, 1.0, 1.0), geometry))
        file = LabelFile(path, classes, file_hash(path), (side, side, side), (1.0, 1.0, 1.0), 2, 2)
        kinds = {p.kind: p for item in plan.work for p, _ in item.argument.outputs}
        outputs = tuple((p, Path(folder) / p.kind) for p in kinds.values())
        trial = replace(plan.work[0].argument, labels=file, outputs=outputs, threads=1)
        start = time.perf_counter()
        write_maps(trial)
        seconds = time.perf_counter() - start
    voxels = sum(item.voxels for item in plan.work)
    at_once = plan.jobs * plan.threads if plan.engine is None else 1  # its workers are not known yet
    return voxels / side**3 * seconds / at_once


def _weighted(
    parameters: Sequence[MapParameters], class_weights: Mapping[int, float], dataset: DataSet
) -> list[MapParameters]:
    """The parameters with class weights by class index."""
    if not class_weights:
        return list(parameters)
    classes = dataset.classes
    unknown = sorted(set(class_weights) - set(classes.values))
    if unknown:
        raise UsageError(
            f"class_weights= names label {', '.join(map(str, unknown))}, which is no class; "
            f"the classes are {classes.describe()}"
        )
    plain = [p.kind for p in parameters if p.kind not in WEIGHTED]
    if plain:
        raise UsageError(
            f"class_weights= belongs to {', '.join(WEIGHTED)} maps; make {' and '.join(plain)} maps apart from them"
        )
    weights = {classes.values.index(value): weight for value, weight in class_weights.items()}
    return [replace(p, class_weights=weights) for p in parameters]


def _refuse_strangers(maps: MapSet, files: Sequence[str]) -> None:
    """Refuse to replace files of a folder that no run of ours has begun: it would have left a sidecar."""
    if (maps.folder / SIDECAR).exists():
        return
    there = [file for file in files if os.path.lexists(maps.folder / file)]
    if there:
        raise UsageError(
            f"{maps.folder} holds {count(len(there), 'file')} that maps would replace, first {there[0]}, and no "
            f"{SIDECAR}, so rwtool did not make them; give overwrite=True to replace them, or another out="
        )


def _open_set(out: Path, parameters: MapParameters, storage: Storage, dataset: DataSet, *, overwrite: bool) -> MapSet:
    """The folder of a kind as it is, or as it is to be; settings that differ from those of its maps are refused."""
    new = MapSet(out / parameters.kind, make_settings(parameters, storage, dataset.classes))
    old = open_map_set(new, overwrite=overwrite)
    return new if old is None or old.settings != new.settings else old
