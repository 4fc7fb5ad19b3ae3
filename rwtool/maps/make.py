"""From a folder of label files to folders of maps: plan, resume, make, and tell."""

from __future__ import annotations

import contextlib
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from rwtool.datasets.cases import find_cases
from rwtool.datasets.classes import Classes
from rwtool.datasets.plan import Inspection, inspect_cases
from rwtool.errors import UsageError
from rwtool.io.formats import write
from rwtool.io.geometry import Geometry
from rwtool.io.names import NO_SPACING, file_hash, split_name
from rwtool.io.volume import Volume
from rwtool.maps.folder import MapSet, open_map_set
from rwtool.maps.parameters import MapParameters
from rwtool.maps.settings import MapRecord, Storage, make_settings
from rwtool.maps.write import MapJob, write_maps
from rwtool.parallel import Outcome, Work, plan_jobs, refuse_too_large, run_cases

_PROCESS_BYTES = 200_000_000  # interpreter and libraries
_TRIAL_SIDE = 96


@dataclass(frozen=True)
class Request:
    """What to make, of what, and how.

    Attributes
    ----------
    source : str
        Folder, file or glob of label files.
    out : Path
        Each kind gets a folder in it.
    parameters : tuple of MapParameters
        One per kind.
    storage : Storage
    classes : Classes, optional
    class_weights : dict of int to float
        File value to weight; it joins the parameters once the classes are known.
    ignore : int, optional
    spacing_mm : (3,) float, optional
    slice_axis : int, optional
    jobs : int, optional
    overwrite : bool
    verbosity : int
    """

    source: str
    out: Path
    parameters: tuple[MapParameters, ...]
    storage: Storage = field(default_factory=Storage)
    classes: Classes | None = None
    class_weights: dict[int, float] = field(default_factory=dict)
    ignore: int | None = None
    spacing_mm: tuple[float, float, float] | None = None
    slice_axis: int | None = None
    jobs: int | None = None
    overwrite: bool = False
    verbosity: int = 0


@dataclass
class Plan:
    """What a request comes to.

    Attributes
    ----------
    classes : Classes
    sets : dict of str to MapSet
        By kind.
    work : list of Work
        Cases to be done.
    skipped : list of str
        Cases whose maps are there already.
    inspections : dict of str to Inspection
        Of all readable cases.
    failed : list of Outcome
        Cases that cannot be done, with their reasons.
    jobs, threads : int
    """

    classes: Classes
    sets: dict[str, MapSet]
    work: list[Work[MapJob]]
    skipped: list[str]
    inspections: dict[str, Inspection]
    failed: list[Outcome[Any]]
    jobs: int
    threads: int


def plan_maps(request: Request) -> Plan:
    """Look at every label file and settle what is to be done; nothing is written.

    Raises
    ------
    UsageError
        If there are no cases, the options do not fit, or a map folder holds maps of other settings.
    """
    cases = find_cases(request.source)
    for parameters in request.parameters:
        request.storage.check(parameters.kind, parameters.rectified)
    readers = request.jobs or plan_jobs([Work(name, None) for name in cases])[0]
    classes, inspections = inspect_cases(
        cases,
        classes=request.classes,
        ignore=request.ignore,
        spacing_mm=request.spacing_mm,
        slice_axis=request.slice_axis,
        jobs=readers if len(cases) >= 4 else 1,
        verbosity=request.verbosity,
    )
    every = _weighted(request, classes)
    sets = {str(parameters.kind): _open_set(request, parameters, classes) for parameters in every}
    for kind, maps in sets.items():
        if any(path.resolve().parent == maps.folder.resolve() for path in cases.values()):
            raise UsageError(
                f"the {kind} maps would go to {maps.folder}, where the label files are; choose another OUT"
            )

    found = {outcome.name: outcome.result for outcome in inspections if outcome.result is not None}
    failed: list[Outcome[Any]] = [outcome for outcome in inspections if outcome.result is None]
    work, skipped = [], []
    for name, inspection in found.items():
        outputs = tuple(
            (parameters, sets[parameters.kind].folder)
            for parameters in every
            if request.overwrite or not sets[parameters.kind].is_done(name, inspection)
        )
        if not outputs:
            skipped.append(name)
            continue
        job = MapJob(
            name,
            cases[name],
            inspection.sha256,
            classes,
            outputs,
            request.storage,
            request.spacing_mm if split_name(cases[name])[1] in NO_SPACING else None,
            request.slice_axis,
        )
        voxels = int(np.prod(inspection.shape))
        work.append(Work(name, job, voxels, peak_bytes(inspection, job)))
    if request.jobs is None:
        work, too_large = refuse_too_large(work)
        failed += too_large
    jobs, threads = plan_jobs(work)
    if request.jobs is not None:
        jobs, threads = request.jobs, 1
    work = [replace(item, argument=replace(item.argument, threads=threads)) for item in work]
    return Plan(classes, sets, work, skipped, found, failed, jobs, threads)


def make_maps(request: Request, plan: Plan) -> list[Outcome[dict[str, MapRecord]]]:
    """Do what was planned; every case is noted as it is done, so that a killed run loses none.

    Returns
    -------
    list of Outcome
        Of each case that was tried; the result is its record by kind.

    Raises
    ------
    UsageError
        Another process is making maps of other settings in one of the folders, or has made some since the plan.
    """
    if not plan.work:
        return []

    def note(outcome: Outcome[dict[str, MapRecord]]) -> None:
        for kind, record in (outcome.result or {}).items():
            plan.sets[kind].add(outcome.name, record)

    with contextlib.ExitStack() as stack:
        for maps in plan.sets.values():
            stack.enter_context(maps.writing(overwrite=request.overwrite))
        return run_cases(write_maps, plan.work, jobs=plan.jobs, label="maps", verbosity=request.verbosity, on_done=note)


def peak_bytes(inspection: Inspection, job: MapJob) -> int:
    """Memory that a process takes at most for a case; measured, and rounded up.

    Reading takes the file's type and two label arrays; a transform the labels, a mask, and one or more float arrays.
    """
    reading = inspection.itemsize + 2
    making = 0
    for parameters, _ in job.outputs:
        extra = 0
        if parameters.convention == "inner" or job.classes.ignore is not None:
            extra += 5
        if parameters.absent == "farthest":
            extra += 5
        making = max(making, extra + (10 if parameters.uses_distance else 7))
    return int(np.prod(inspection.shape)) * max(reading, making) + _PROCESS_BYTES


def estimate_seconds(plan: Plan) -> float:
    """Time that a plan would take, from a trial of the same maps on a small phantom in a temporary folder."""
    if not plan.work:
        return 0.0
    side = _TRIAL_SIDE
    grid = np.indices((side, side, side)) - side / 2
    radius = np.sqrt((grid**2).sum(axis=0))
    labels = np.searchsorted(np.linspace(8, 40, len(plan.classes) - 1), radius).astype(np.uint8)
    values = np.asarray(plan.classes.values)[::-1][np.minimum(labels, len(plan.classes) - 1)]
    geometry = Geometry(np.eye(4), (side, side, side), (2, 1, 0), (side, side, side))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels" / "trial.nii.gz"
        write(path, Volume(values.astype(np.uint16), (1.0, 1.0, 1.0), geometry))
        job = plan.work[0].argument
        kinds = {p.kind: p for item in plan.work for p, _ in item.argument.outputs}
        outputs = tuple((p, Path(folder) / p.kind) for p in kinds.values())
        trial = replace(
            job, labels=path, sha256=file_hash(path), outputs=outputs, spacing_mm=None, slice_axis=None, threads=1
        )
        start = time.perf_counter()
        write_maps(trial)
        seconds = time.perf_counter() - start
    voxels = sum(item.voxels for item in plan.work)
    return voxels / side**3 * seconds / (plan.jobs * plan.threads)


def _weighted(request: Request, classes: Classes) -> list[MapParameters]:
    """The parameters with class weights by class index."""
    unknown = sorted(set(request.class_weights) - set(classes.values))
    if unknown:
        raise UsageError(
            f"--class-weight names label {', '.join(map(str, unknown))}, which is no class; "
            f"the classes are {classes.describe()}"
        )
    weights = {classes.values.index(value): weight for value, weight in request.class_weights.items()}
    return [replace(p, class_weights=weights) for p in request.parameters] if weights else list(request.parameters)


def _open_set(request: Request, parameters: MapParameters, classes: Classes) -> MapSet:
    """The folder of a kind as it is, or as it is to be; settings that differ from those of its maps are refused."""
    new = MapSet(request.out / parameters.kind, make_settings(parameters, request.storage, classes))
    old = open_map_set(new, overwrite=request.overwrite)
    return new if old is None or old.settings != new.settings else old
