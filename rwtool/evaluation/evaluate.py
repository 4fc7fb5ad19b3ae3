"""From folders of label files to rows: pair them, settle the class list, measure, and tell what it was made from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

from rwtool.datasets.bids import warn_of_names
from rwtool.datasets.channels import ImageFiles, find_images
from rwtool.datasets.classes import Classes
from rwtool.datasets.plan import DataSet, plan_dataset
from rwtool.datasets.subjects import find_subjects, read_groups, suggest_subject_regex
from rwtool.datasets.values import warn_of_absent
from rwtool.engines import Engine, EngineName, choose_engine
from rwtool.errors import UsageError
from rwtool.evaluation.case import CaseJob, Measured, Settings, measure_case, peak_bytes
from rwtool.evaluation.pairing import Pairing, Run, pair_files
from rwtool.evaluation.rows import Label, Row, Rules
from rwtool.files import fitting_name, make_folder
from rwtool.io.grids import SAME_GRID
from rwtool.maps.core import core_version
from rwtool.metrics.measures import METRICS, HD95Rule, check_tolerance, diagonal_mm
from rwtool.parallel import GOES_ON, STARTS_ANEW, Outcome, Work, run_cases, schedule
from rwtool.shards import Shard, Share

_CACHE = "cache"


@dataclass(frozen=True)
class Request:
    """What to evaluate, and how.

    Attributes
    ----------
    reference : str, optional
        Folder, file or glob of label files; by default the one that nnU-Net's folders hold.
    predictions : tuple of str
        As for :func:`rwtool.evaluation.pairing.pair_files`.
    rules : Rules
        Their `ignore` and `nsd_tolerance_mm` are settled by the plan.
    out : Path, optional
        Folder whose ``cache`` keeps what is done for the next time.
    classes : tuple of int, optional
        Label values of all classes, the background first.
    regions : dict of str to tuple of int
        Named unions of label values, measured beside the classes.
    map_values : dict of int to int
        Values of the files that stand for others.
    class_names : dict of int to str
        By label value; they win over those of ``dataset.json``.
    ignore : int, optional
    background : bool
        Measure the background too.
    nsd_tolerance_mm : dict of (int, str or None) to float
        By label value or name of a region; None is for all others.
    spacing_mm : (3,) float, optional
        Of references without one, such as ``.npy``.
    resample : bool
    allow_missing : bool
    name : str, optional
        Which part of a path is the name of the case.
    cases : str, optional
        File that limits the cases; without it run folders of ``rwtool train``, and results of nnU-Net, limit them to
        their validation cases.
    group : Path, optional
        CSV file, case to group.
    images : str, optional
        Folder, file or glob of the images of the cases, for pictures.
    shard : Shard, optional
        Measure its cases alone.
    jobs : int, optional
    engine, scheduler : str, optional
        As for :func:`rwtool.make_maps`.
    verbosity : int
    """

    reference: str | None
    predictions: tuple[str, ...]
    rules: Rules = field(default_factory=Rules)
    out: Path | None = None
    classes: tuple[int, ...] | None = None
    regions: dict[str, tuple[int, ...]] = field(default_factory=dict)
    map_values: dict[int, int] = field(default_factory=dict)
    class_names: dict[int, str] = field(default_factory=dict)
    ignore: int | None = None
    background: bool = False
    nsd_tolerance_mm: dict[Label | None, float] = field(default_factory=dict)
    spacing_mm: tuple[float, float, float] | None = None
    resample: bool = False
    allow_missing: bool = False
    name: str | None = None
    cases: str | None = None
    group: Path | None = None
    images: str | None = None
    shard: Shard | None = None
    jobs: int | None = None
    engine: EngineName | None = None
    scheduler: str | None = None
    verbosity: int = 0


@dataclass(frozen=True)
class EvaluationPlan:
    """What a request comes to.

    Attributes
    ----------
    request : Request
    pairing : Pairing
    dataset : DataSet
        The references.
    rules : Rules
    subjects, groups : dict of str to str
        By case.
    work : list of Work
    failed : list of Outcome
        Cases that cannot be done, with their reasons.
    jobs, threads : int
    images : dict of str to tuple of Path
        By case, where images were named.
    engine : Engine or None
        Whose workers do the cases, if not this machine.
    """

    request: Request
    pairing: Pairing
    dataset: DataSet
    rules: Rules
    subjects: dict[str, str]
    groups: dict[str, str]
    work: list[Work[CaseJob]]
    failed: list[Outcome[Any]]
    jobs: int
    threads: int
    images: ImageFiles = field(default_factory=dict)
    engine: Engine | None = None

    @property
    def share(self) -> Share | None:
        """The cases of a shard; None where all cases are meant."""
        return self.dataset.share

    @property
    def subject_regex(self) -> str | None:
        """A regex to try as subject, where names look like several scans of some subjects."""
        return suggest_subject_regex(self.pairing.references) if self.rules.subject is None else None


@dataclass(frozen=True)
class Evaluation:
    """The rows, and what stands beside them.

    Attributes
    ----------
    plan : EvaluationPlan
    rows : list of Row
        By method, run, case, class and metric; failed predictions have none.
    failed : list of Outcome
        Predictions without rows, with their reasons.
    measured : dict of str to list of Measured
        By case, in the order of the runs.
    """

    plan: EvaluationPlan
    rows: list[Row]
    failed: list[Outcome[Any]]
    measured: dict[str, list[Measured]]

    @property
    def rules(self) -> Rules:
        """The definitions in force."""
        return self.plan.rules

    @property
    def failed_runs(self) -> list[Run]:
        """Runs without any row: means over runs would hide them."""
        there = {(row.method, row.run) for row in self.rows}
        return [run for run in self.plan.pairing.runs if (run.method, run.name) not in there]

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of labels that were asked for and are in no file; nothing unless all were read."""
        if self.failed or self.plan.share is not None:
            return ()
        request, values = self.plan.request, self.plan.dataset.classes.values
        results = [result for found in self.measured.values() for result in found]
        labels = {found.label for result in results for found in result.metrics if found.status != "absent"}
        there = {values[label] for label in labels if label < len(values)}
        mapped = {value for result in results for value in result.mapped}
        return tuple(warn_of_absent(request.regions, request.map_values, there=there, mapped=mapped))

    def provenance(self) -> dict[str, Any]:
        """Where the rows come from, for JSON: classes, inputs with their hashes, versions of what measures them."""
        return _provenance(self)


def plan_evaluation(request: Request) -> EvaluationPlan:
    """Pair the files, look at every reference and settle what is to be done; nothing is written.

    Raises
    ------
    UsageError
        Files do not pair, or an option does not fit.
    """
    _check_metrics(request.rules.metrics)
    if request.rules.hd95 not in (None, *get_args(HD95Rule)):
        raise UsageError(f"found hd95={request.rules.hd95!r}; give 'directed' or 'pooled'")
    engine = choose_engine(request.engine, request.scheduler, alike=core_version)
    pairing = pair_files(
        request.reference,
        request.predictions,
        cases=request.cases,
        allow_missing=request.allow_missing,
        name=request.name,
    )
    names = list(pairing.references)
    folders = {path.resolve().parent for run in pairing.runs for path in run.files.values()}
    folders |= {path.resolve().parent for path in pairing.references.values()}
    if request.out is not None and request.out.resolve() in folders:
        raise UsageError(f"the results would go to {request.out}, among the label files; choose another out=")
    images = {} if request.images is None else find_images(request.images, names=names)[0]
    regex = request.rules.subject
    subjects = {name: name for name in names} if regex is None else find_subjects(names, regex)
    groups = read_groups(request.group, names)
    dataset = plan_dataset(
        pairing.references,
        classes=request.classes,
        ignore=request.ignore,
        spacing_mm=request.spacing_mm,
        regions=request.regions,
        map_values=request.map_values,
        described=pairing.dataset_json,
        shard=request.shard,
        jobs=request.jobs,
        verbosity=request.verbosity,
    ).named(request.class_names)
    others = (warn_of_names(dataset.classes, run.files.values()) for run in pairing.runs)
    dataset = replace(dataset, notes=(*dataset.notes, *filter(None, others)))
    classes = dataset.classes
    measured = _measured(classes, request)
    labels: dict[Label, int] = {classes.values[k]: k for k in measured}
    labels |= {name: len(classes) + r for r, name in enumerate(classes.regions)}
    tolerances = _tolerances(request, list(labels))
    rules = replace(request.rules, ignore=classes.ignore, nsd_tolerance_mm=tuple(tolerances.items()))
    settings = Settings(
        classes,
        measured,
        tuple(tuple(map(classes.values.index, parts)) for parts in classes.regions.values()),
        distances=any(METRICS[name].unit == "mm" or name == "nsd" for name in rules.metrics),
        hd95=rules.hd95 or "directed",
        nsd_tolerance_mm={labels[label]: mm for label, mm in tolerances.items()},
        spacing_mm=request.spacing_mm,
        resample=request.resample,
    )
    work = []
    for name, reference in dataset.files.items():
        predictions = tuple(run.files.get(name) for run in pairing.runs)
        cache = None if request.out is None else request.out / _CACHE / fitting_name(name, ".json")
        job = CaseJob(reference, predictions, settings, cache)
        work.append(Work(name, job, reference.voxels * len(pairing.runs), peak_bytes(job)))
    failed: list[Outcome[Any]] = list(dataset.failed)
    settled = schedule(work, request.jobs, engine=engine)
    failed += settled.refused
    work = [replace(item, argument=replace(item.argument, threads=settled.threads)) for item in settled.work]
    return EvaluationPlan(
        request, pairing, dataset, rules, subjects, groups, work, failed, settled.jobs, settled.threads, images, engine
    )


def run_evaluation(plan: EvaluationPlan) -> Evaluation:
    """Do what was planned; with ``out``, each case is kept in the cache as soon as it is done."""
    caches = [] if plan.request.out is None else [plan.request.out / _CACHE]
    for cache in caches:
        make_folder(cache)
    outcomes = run_cases(
        measure_case,
        plan.work,
        jobs=plan.jobs,
        label="evaluate",
        verbosity=plan.request.verbosity,
        folders=caches,
        rerun=GOES_ON if caches else STARTS_ANEW,
        engine=plan.engine,
    )
    measured = {outcome.name: outcome.result for outcome in outcomes if outcome.result is not None}
    runs = plan.pairing.runs
    failed = plan.failed + [outcome for outcome in outcomes if outcome.result is None]
    failed += [
        Outcome(f"{case} ({run.label})" if len(runs) > 1 else case, None, result.error)
        for case, results in measured.items()
        for run, result in zip(runs, results, strict=True)
        if result.error is not None
    ]
    rows = [
        row
        for index, run in enumerate(runs)
        for case, results in measured.items()
        for row in _rows(plan, run, case, results[index])
    ]
    return Evaluation(plan, rows, failed, measured)


def _rows(plan: EvaluationPlan, run: Run, case: str, result: Measured) -> list[Row]:
    reference, classes = plan.dataset.files[case], plan.dataset.classes
    diagonal = diagonal_mm(reference.shape, reference.spacing_mm)
    labels: list[Label] = [*classes.values, *classes.regions]
    names = [*classes.names, *classes.regions]
    return [
        Row(
            method=run.method,
            run=run.name,
            case=case,
            subject=plan.subjects[case],
            group=plan.groups[case],
            label=labels[found.label],
            class_name=names[found.label],
            metric=metric,
            value=float(getattr(found, METRICS[metric].field)),
            unit=METRICS[metric].unit,
            status=found.status,
            diagonal_mm=diagonal,
            share=found.reference_voxels / result.voxels if result.voxels else 0.0,
            reference_ml=found.reference_volume_ml if metric == "volume_ml" else math.nan,
        )
        for found in result.metrics
        # a class that is not there is not rightly empty where there is no prediction at all: the pair is undefined
        if not (found.status == "absent" and case not in run.files)
        for metric in plan.rules.metrics
    ]


def _check_metrics(metrics: Sequence[str]) -> None:
    unknown = [name for name in metrics if name not in METRICS]
    if unknown or not metrics or len(set(metrics)) != len(metrics):
        raise UsageError(f"metrics= are names, each once, of {', '.join(METRICS)}; found {','.join(metrics)!r}")


def _measured(classes: Classes, request: Request) -> tuple[int, ...]:
    """Indices of the classes to measure: a class that has no name but in the regions of ``dataset.json`` is none."""
    parts = {part for name, parts in classes.regions.items() if name not in request.regions for part in parts}
    return tuple(
        k
        for k, (value, name) in enumerate(zip(classes.values, classes.names, strict=True))
        if (k > 0 or request.background) and not (value in parts and name == str(value))
    )


def _tolerances(request: Request, labels: Sequence[Label]) -> dict[Label, float]:
    """NSD tolerance of each measured label."""
    given = request.nsd_tolerance_mm
    if "nsd" not in request.rules.metrics:
        if given:
            raise UsageError(
                "nsd_tolerance_mm= belongs to nsd; add it to the metrics, such as metrics=(dice, hd95, nsd)"
            )
        return {}
    unknown = [label for label in given if label is not None and label not in labels]
    if unknown:
        raise UsageError(
            f"nsd_tolerance_mm= names label {', '.join(map(str, unknown))}, which is not measured; the labels are "
            f"{', '.join(map(str, labels))}"
        )
    lacking = [] if None in given else [label for label in labels if label not in given]
    if lacking:
        what = f"label{'s' if len(lacking) > 1 else ''} {', '.join(map(str, lacking))}"
        raise UsageError(f"nsd needs a tolerance for {what}: give nsd_tolerance_mm= for all labels, or for each")
    for mm in given.values():
        check_tolerance(mm)
    return {label: given[label] if label in given else given[None] for label in labels}


def _provenance(evaluation: Evaluation) -> dict[str, Any]:
    plan, measured = evaluation.plan, evaluation.measured
    request, classes = plan.request, plan.dataset.classes
    runs, validation = plan.pairing.runs, plan.pairing.validation
    mine = set(plan.pairing.references if plan.share is None else plan.share.names)
    return {
        "command": "evaluate",
        "versions": {name: version(name) for name in ("edt", "nibabel", "SimpleITK")},
        "reference": plan.pairing.reference,
        "runs": [
            {
                "method": run.method,
                "run": run.name,
                "source": str(run.source),
                "missing": list(run.missing),
                "extra": list(run.extra),
            }
            for run in runs
        ],
        "split": None
        if validation is None
        else {
            "files": list(map(str, validation.files)),
            "cases": len(validation.names),
            "references": validation.total,
        },
        "classes": {
            "labels": list(classes.values),
            "names": list(classes.names),
            "source": classes.source,
            "map": {str(old): new for old, new in classes.map_values.items()},
            "regions": {name: list(parts) for name, parts in classes.regions.items()},
        },
        "same_grid": SAME_GRID,
        "options": {
            "background": request.background,
            "resample": request.resample,
            "allow_missing": request.allow_missing,
            "cases": request.cases,
            "group": None if request.group is None else str(request.group),
        },
        "inputs": {
            case: {
                "reference": {
                    "file": str(path),
                    "sha256": plan.dataset.files[case].sha256 if case in plan.dataset.files else None,
                },
                "predictions": [
                    _input(run.files[case], measured[case][index] if case in measured else None)
                    if case in run.files
                    else None
                    for index, run in enumerate(runs)
                ],
            }
            for case, path in plan.pairing.references.items()
            if case in mine
        },
        "failed": {outcome.name: outcome.error for outcome in evaluation.failed},
    }


def _input(path: Path, result: Measured | None) -> dict[str, Any]:
    return {
        "file": str(path),
        "sha256": None if result is None else result.sha256,
        "alignment": None if result is None else result.alignment,
    }
