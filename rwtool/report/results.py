"""From label files, or from saved tables of cases, to results: rows, their comparison, and the report of both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from isal import isal_zlib

from rwtool.console import COMMAND_LINE, count
from rwtool.engines import EngineName
from rwtool.errors import UsageError, shorten
from rwtool.evaluation.evaluate import Evaluation, EvaluationPlan, Request, plan_evaluation, run_evaluation
from rwtool.evaluation.rows import Interval, Label, Row, Rules, Undefined
from rwtool.io.names import file_hash
from rwtool.metrics.measures import HD95Rule
from rwtool.records import to_json
from rwtool.report.csv import read_tables
from rwtool.report.write import print_report, refuse_strangers, summary, write_report, write_share
from rwtool.shards import Share, Standing, begin_shard, end_shard, parse_shard, ranges, warn_of_others
from rwtool.statistics.comparison import Comparison, check_margins, compare_rows


@dataclass(frozen=True)
class Results:
    """Rows, and what they come to.

    Attributes
    ----------
    rows : list of Row
        One per method, run, case, class and metric.
    rules : Rules
        The definitions in force.
    comparison : Comparison or None
        None where every prediction failed.
    provenance : dict
        Where the rows come from, for JSON.
    evaluation : Evaluation or None
        What was measured, and what failed; None where the rows were read from tables.
    standing : Standing or None
        Of a shard: which of them have ended. There is no comparison, for the rows are not all.
    warnings : tuple of str
        What is incomplete.
    """

    rows: list[Row]
    rules: Rules
    comparison: Comparison | None
    provenance: dict[str, Any]
    evaluation: Evaluation | None = None
    standing: Standing | None = None
    warnings: tuple[str, ...] = ()

    @property
    def share(self) -> Share | None:
        """The cases of a shard, which the rows are of; None where they are of all."""
        return None if self.evaluation is None else self.evaluation.plan.share

    def summary(self) -> dict[str, Any]:
        """What ``summary.json`` holds: all results and definitions, as plain values for JSON.

        Raises
        ------
        UsageError
            There are no rows.
        """
        return summary(self._compared(), self.rules, self.provenance)

    def print(self) -> None:
        """Print the tables and the definitions in force."""
        print_report(self._compared(), self.rules)

    def write(self, out: str | Path, *, report: bool = True) -> None:
        """Write ``cases.csv``, ``means.csv``, ``tests.csv``, ``summary.json``, ``summary.md`` and ``summary.tex``.

        And ``pairs.csv``, ``rankings.csv`` and ``agreement.csv``, where there are such; and ``report.html`` with all of
        it, unless `report` is False.
        """
        compared = self._compared()
        write_report(
            Path(out), self.rows, compared, self.rules, self.provenance, evaluation=self.evaluation, page=report
        )

    def _compared(self) -> Comparison:
        if self.share is not None:
            raise UsageError(
                f"these are the rows of {self.share.shard} alone, from which no result is computed; join the tables of "
                "all shards by rwtool compare"
            )
        if self.comparison is None:
            raise UsageError("there are no results: every prediction failed; mend them and evaluate again")
        return self.comparison


def evaluate(
    reference: str | Path | None,
    predictions: str | Path | Sequence[str | Path],
    *,
    out: str | Path | None = None,
    metrics: Sequence[str] = Rules.metrics,
    hd95: HD95Rule | None = Rules.hd95,
    nsd_tolerance_mm: float | Mapping[Label | None, float] | None = None,
    undefined: Undefined = Rules.undefined,
    classes: Sequence[int] | None = None,
    regions: Mapping[str, Sequence[int]] | None = None,
    map_values: Mapping[int, int] | None = None,
    class_names: Mapping[int, str] | None = None,
    background: bool = False,
    ignore: int | None = None,
    spacing_mm: Sequence[float] | None = None,
    resample: bool = False,
    allow_missing: bool = False,
    name: str | None = None,
    cases: str | Path | None = None,
    group: str | Path | None = None,
    images: str | Path | None = None,
    report: bool = True,
    subject: str | None = None,
    permutation_test: bool = False,
    baseline: str | None = None,
    permutations: int = Rules.permutations,
    seed: int = Rules.seed,
    alpha: float = Rules.alpha,
    interval: Interval = Rules.interval,
    margin: Mapping[str, float] | None = None,
    all_pairs: bool = False,
    rank: bool = False,
    shard: str | None = None,
    jobs: int | None = None,
    engine: EngineName | None = None,
    scheduler: str | None = None,
    verbosity: int = -1,
    on_plan: Callable[[EvaluationPlan], None] | None = None,
) -> Results:
    """Compare predicted label files with reference label files, and methods with one another: ``rwtool evaluate``.

    Parameters
    ----------
    reference : path, optional
        Folder, file or glob; None for predictions of nnU-Net whose references lie in its own folders, as the variables
        ``nnUNet_raw`` and ``nnUNet_preprocessed`` name them.
    predictions : path or sequence of path
        Each a folder or file, ``NAME=DIR``, or ``NAME=DIR1,DIR2`` for several runs of one method. A run folder of
        :func:`rwtool.train` stands for its predictions, and so does a folder of nnU-Net's results: a model (of all its
        folds), a fold, a cross-validation, an output of ``nnUNetv2_predict``.
    out : path, optional
        Folder for the files of :meth:`Results.write`; a second evaluation there measures only what has changed.
    metrics : sequence of str
        Of dice, hd95, hd, assd, masd, nsd, volume_ml, volume_error.
    hd95 : {"directed", "pooled"}
    nsd_tolerance_mm : float, or dict of int to float, optional
        Of nsd, for all labels, or by label value or name of a region; None is for all others.
    undefined : {"diagonal", "exclude"} or float
        What the distance of a missed or hallucinated structure counts as; a number is mm.
    classes, ignore, spacing_mm
        As for :func:`rwtool.make_maps`.
    regions : dict of str to sequence of int, optional
        Named unions of label values, such as ``{"whole_tumor": (1, 2, 3)}``, each measured as one mask beside the
        classes; those of ``dataset.json`` are measured too.
    map_values : dict of int to int, optional
        Values of all label files that stand for others, such as ``{255: 1}``.
    class_names : dict of int to str, optional
        By label value.
    background : bool
        Measure the background too.
    resample : bool
        Bring predictions on another grid onto the reference's with nearest neighbour.
    allow_missing : bool
        Count the structures of a missing prediction as missed.
    name : str, optional
        Which part of a path is the name of the case, such as ``"{case}_gt"``, in each folder that holds such files.
    cases : path, optional
        File that limits the cases, see :func:`rwtool.datasets.splits.read_case_names`; by default the validation cases
        of run folders and of nnU-Net's results, if there are any, else all.
    group : path, optional
        CSV file, case to group: separate tables.
    images : path, optional
        Folder or glob of the images of the cases, to show under the outlines of the worst cases in ``report.html``.
    report : bool
        Write ``report.html`` beside the tables.
    subject : str, optional
        Regex that takes the scans of a subject together.
    permutation_test : bool
        Test each method against the baseline.
    baseline : str, optional
        By default the first method.
    permutations, seed, alpha, interval
        As the attributes of :class:`rwtool.Rules`.
    margin : dict of str to float, optional
        By metric, the size of a mean difference that does not matter: is a method equivalent to the baseline, or at
        least not worse?
    all_pairs : bool
        Test every method against every other, as one family.
    rank : bool
        Rank the methods by three rules, with the ranks in 1000 bootstrap samples of the subjects.
    shard : str, optional
        Measure one share of the cases, such as ``"2/8"``, or ``"slurm"``, into a table in `out`, and compute no result:
        :func:`rwtool.compare` joins the tables of all shards. See `rwtool help cluster`.
    jobs : int, optional
        Cases at once; by default what pays, and free memory allows, or all workers of an engine.
    engine, scheduler
        As for :func:`rwtool.make_maps`.
    verbosity : int
        -1 shows no progress.
    on_plan : callable, optional
        Called with the plan before anything is measured.

    Returns
    -------
    Results
        One bad prediction does not cost the others: see ``evaluation.failed``.

    Raises
    ------
    UsageError
        Files do not pair, or an option does not fit.

    Examples
    --------
    ``rwtool.evaluate("labels", ["dice=runs/dice", "rrw=runs/rrw"], permutation_test=True).print()``
    """
    several = [predictions] if isinstance(predictions, (str, Path)) else predictions
    tolerances = nsd_tolerance_mm if isinstance(nsd_tolerance_mm, Mapping) else {None: nsd_tolerance_mm}
    request = Request(
        None if reference is None else str(reference),
        tuple(map(str, several)),
        Rules(
            (metrics,) if isinstance(metrics, str) else tuple(metrics),
            hd95,
            undefined,
            permutations=permutations,
            seed=seed,
            alpha=alpha,
            subject=subject,
            interval=interval,
            margin=tuple((margin or {}).items()),
        ),
        out=None if out is None else Path(out),
        classes=None if classes is None else tuple(classes),
        regions={name: tuple(parts) for name, parts in (regions or {}).items()},
        map_values=dict(map_values or {}),
        class_names=dict(class_names or {}),
        ignore=ignore,
        background=background,
        nsd_tolerance_mm={label: mm for label, mm in tolerances.items() if mm is not None},
        spacing_mm=None if spacing_mm is None else (float(spacing_mm[0]), float(spacing_mm[1]), float(spacing_mm[2])),
        resample=resample,
        allow_missing=allow_missing,
        name=name,
        cases=None if cases is None else str(cases),
        group=None if group is None else Path(group),
        images=None if images is None else str(images),
        shard=parse_shard(shard),
        jobs=jobs,
        engine=engine,
        scheduler=scheduler,
        verbosity=verbosity,
    )
    if images is not None and (out is None or not report):
        raise UsageError("images= belongs to report.html; give out=DIR, and no report=False")
    if margin and not permutation_test:
        raise UsageError("margin= belongs to permutation_test=True; add that")
    check_margins(request.rules, request.rules.metrics)
    if request.shard is not None:
        of_all = {"permutation_test": permutation_test, "all_pairs": all_pairs, "rank": rank, "images": images}
        _check_shard(request, [name for name, wanted in of_all.items() if wanted])
    if request.out is not None:
        refuse_strangers(request.out if request.shard is None else request.shard.folder(request.out))
    plan = plan_evaluation(request)
    against = _baseline(plan.pairing.methods, permutation_test, baseline)
    for wanted, option in ((all_pairs, "all_pairs=True"), (rank, "rank=True")):
        if wanted and len(plan.pairing.methods) < 2:
            raise UsageError(_one_method(option, plan.pairing.methods[0]))
    if plan.share is not None and (note := warn_of_others(request.out or Path(), plan.share, _task(plan))):
        plan = replace(plan, dataset=replace(plan.dataset, notes=(*plan.dataset.notes, note)))
    if on_plan is not None:
        on_plan(plan)
    evaluation = run_evaluation(plan)
    provenance = {**evaluation.provenance(), "command_line": COMMAND_LINE.get()}
    if plan.share is not None:
        return _end(plan.share, evaluation, provenance)
    comparison = None
    if evaluation.rows:
        there = {row.method for row in evaluation.rows}
        against = against if against in there and len(there) > 1 else None
        comparison = compare_rows(
            evaluation.rows,
            plan.rules,
            baseline=against,
            test=against is not None,
            all_pairs=all_pairs and len(there) > 1,
            rank=rank and len(there) > 1,
        )
    results = Results(evaluation.rows, plan.rules, comparison, provenance, evaluation)
    if out is not None and comparison is not None:
        results.write(out, report=report)
    return results


def _check_shard(request: Request, wanted: Sequence[str]) -> None:
    """Refuse what a part of the cases cannot give."""
    if request.out is None:
        raise UsageError("shard= writes a table for rwtool compare to join with those of the others; give out=DIR")
    if wanted:
        raise UsageError(
            f"{wanted[0]}= is of all cases, and a shard has some; leave it out here, and join the tables of all shards "
            "by rwtool compare, or evaluate once more without shard=, which measures nothing anew"
        )


def _task(plan: EvaluationPlan) -> str:
    """What is evaluated and how, whatever the shard, by its checksum."""
    rules, classes, request = plan.rules, plan.dataset.classes, plan.request
    content = [
        [rules.metrics, rules.hd95, rules.nsd_tolerance_mm, rules.ignore, rules.subject],
        [classes.values, classes.names, dict(classes.regions), dict(classes.map_values)],
        [request.background, request.resample, request.allow_missing, request.spacing_mm],
        [(run.method, run.name, str(run.source)) for run in plan.pairing.runs],
        plan.groups,
    ]
    return f"evaluate {isal_zlib.crc32(to_json(content).encode()):08x}"


def _end(share: Share, evaluation: Evaluation, provenance: dict[str, Any]) -> Results:
    """Write what a shard has measured, and nothing that is of all cases."""
    plan = evaluation.plan
    assert plan.request.out is not None
    begin_shard(plan.request.out, share)
    write_share(share.shard.folder(plan.request.out), evaluation.rows, plan.rules, provenance)
    failed = {outcome.name: outcome.error or "" for outcome in evaluation.failed}
    runs = [(run.method, run.name) for run in plan.pairing.runs]
    standing = end_shard(plan.request.out, share, _task(plan), failed, runs=runs)
    return Results(evaluation.rows, plan.rules, None, provenance, evaluation, standing)


def compare(
    tables: str | Path | Sequence[str | Path],
    *,
    out: str | Path | None = None,
    undefined: Undefined = Rules.undefined,
    subject: str | None = None,
    baseline: str | None = None,
    permutations: int = Rules.permutations,
    seed: int = Rules.seed,
    alpha: float = Rules.alpha,
    interval: Interval = Rules.interval,
    margin: Mapping[str, float] | None = None,
    all_pairs: bool = False,
    rank: bool = False,
    columns: Mapping[str, str] | None = None,
    allow_missing: bool = False,
    report: bool = True,
) -> Results:
    """Compare methods again from saved tables of cases, without touching a volume: ``rwtool compare``.

    Parameters
    ----------
    tables : path or sequence of path
        Each a ``cases.csv``, or a table of another tool; what the numbers of a ``cases.csv`` mean is read from the
        ``summary.json`` beside it.
    out, undefined, subject, baseline, permutations, seed, alpha, interval, margin, all_pairs, rank, report
        As for :func:`rwtool.evaluate`.
    columns : dict of str to str, optional
        For tables of other tools with a value a line: which column is the case, method, metric, value, class, group,
        subject or run, such as ``{"case": "patient", "method": "model"}``. For the metric also the name of one, which
        all values then are. The columns of challengeR are known.
    allow_missing : bool
        Go on where the tables are those of shards of an evaluation and some shards are missing; the results say so.

    Returns
    -------
    Results

    Raises
    ------
    RwtoolError
        A table cannot be read, or is none; the message names the line.
    UsageError
        Two tables give the same value, were made under different definitions, or would be replaced by `out`; or shards
        of an evaluation are missing.
    """
    paths = [Path(table) for table in ([tables] if isinstance(tables, (str, Path)) else tables)]
    if not paths:
        raise UsageError("there are no tables to compare; name one or more cases.csv")
    if out is not None and any((Path(out) / "cases.csv").resolve() == path.resolve() for path in paths):
        raise UsageError(f"out={str(out)!r} would replace a table that is read; choose another folder")
    if out is not None:
        refuse_strangers(Path(out))
    read = read_tables(paths, subject=subject, columns=columns, allow_missing=allow_missing)
    rows, rules = read.rows, read.rules
    if not rows:
        raise UsageError(f"{paths[0]} holds no value; give a table that does")
    rules = replace(
        rules,
        undefined=undefined,
        permutations=permutations,
        seed=seed,
        alpha=alpha,
        interval=interval,
        margin=tuple((margin or {}).items()),
    )
    comparison = compare_rows(rows, rules, baseline=baseline, all_pairs=all_pairs, rank=rank)
    there = len({row.case for row in rows})
    incomplete = tuple(
        f"shards {ranges(found.missing)} of {found.of} are missing: these are {there:,} of {count(found.cases, 'case')}"
        for found in read.joined
        if found.missing
    )
    comparison = replace(comparison, incomplete=incomplete)
    failed = {name: reason for found in read.joined for name, reason in found.failed.items()}
    warnings = incomplete + (
        (f"{count(len(failed), 'prediction')} of the shards failed and stand in no table: {shorten(list(failed))}",)
        if failed
        else ()
    )
    inputs = [{"path": str(p), "sha256": file_hash(p), "read_as": read.readings.get(str(p))} for p in paths]
    provenance = {"command": "compare", "tables": inputs, "command_line": COMMAND_LINE.get()}
    if read.joined:
        provenance["shards"] = [found._asdict() for found in read.joined]
    results = Results(rows, rules, comparison, provenance, warnings=warnings)
    if out is not None:
        results.write(out, report=report)
    return results


def _baseline(methods: Sequence[str], wanted: bool, name: str | None) -> str | None:
    """The method to test against, or None without a test."""
    if not wanted:
        if name is not None:
            raise UsageError("baseline= belongs to permutation_test=True; add that")
        return None
    if len(methods) < 2:
        raise UsageError(_one_method("permutation_test=True", methods[0]))
    if name is not None and name not in methods:
        raise UsageError(f"baseline={name}: there is no such method; the methods are {', '.join(methods)}")
    return name or methods[0]


def _one_method(option: str, method: str) -> str:
    return f"{option} compares methods and there is one, {method}; name another folder of predictions"
