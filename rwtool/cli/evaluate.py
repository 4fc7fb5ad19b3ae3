"""``rwtool evaluate``."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rwtool.cli import options
from rwtool.cli.output import print_failures, print_notes
from rwtool.console import count, print_table
from rwtool.errors import UsageError

if TYPE_CHECKING:
    from rwtool.evaluation.evaluate import Evaluation, Plan

_LABELS, _RUNS = Path("labels"), Path("runs")


@click.command()
@click.argument("reference", required=False)
@click.argument("predictions", nargs=-1)
@options.out
@click.option(
    "--metrics",
    default="dice,hd95,hd",
    show_default=True,
    metavar="NAME,...",
    help="Of dice, hd95, hd, assd, masd, nsd, volume_ml, volume_error.",
)
@click.option(
    "--hd95",
    type=click.Choice(["directed", "pooled"]),
    default="directed",
    show_default=True,
    help="The larger of both directed 95th percentiles (MONAI, Metrics Reloaded), or that of both directions together "
    "(MedPy, nnU-Net v1).",
)
@click.option(
    "--nsd-tolerance",
    "tolerances",
    multiple=True,
    metavar="MM|LABEL=MM",
    help="Tolerance of nsd in mm, for all labels or for one; repeat it for several.",
)
@options.undefined
@options.classes
@click.option("--class-names", metavar="LABEL=NAME,...", help="Names for the tables, such as 1=RV,2=MYO.")
@click.option("--background", is_flag=True, help="Measure the background too.")
@options.ignore
@options.spacing
@click.option(
    "--resample",
    is_flag=True,
    help="Bring predictions on another grid onto the reference's with nearest neighbour.  [default: refuse corners "
    "that differ by more than 0.1 voxel]",
)
@click.option("--allow-missing", is_flag=True, help="Count the structures of a missing prediction as missed.")
@click.option(
    "--cases",
    metavar="FILE",
    help="Evaluate these cases only: one name a line, a JSON list, or a split file's validation cases (FILE:2 for fold "
    "2 of nnU-Net's splits_final.json).  [default: the validation cases of the run folders, if there are any, else "
    "all]",
)
@click.option(
    "--group",
    "groups",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.csv",
    help="Columns case,group: separate tables, such as ED and ES.",
)
@options.subject
@click.option("--permutation-test", is_flag=True, help="Test each method against the baseline.")
@options.baseline
@options.permutations
@options.seed
@options.alpha
@options.format_
@options.jobs
@options.quiet
@options.verbose
def evaluate(
    reference: str | None,
    predictions: tuple[str, ...],
    out: Path | None,
    metrics: str,
    hd95: Any,
    tolerances: tuple[str, ...],
    undefined: Any,
    classes: str | None,
    class_names: str | None,
    background: bool,
    ignore: int | None,
    spacing_mm: tuple[float, float, float] | None,
    resample: bool,
    allow_missing: bool,
    cases: str | None,
    groups: Path | None,
    subject: str | None,
    permutation_test: bool,
    baseline: str | None,
    permutations: int,
    seed: int,
    alpha: float,
    format_: str,
    jobs: int | None,
    quiet: bool,
    verbose: bool,
) -> None:
    """Compare label files PREDICTIONS with those of REFERENCE: 3D Dice, HD95 and HD in mm, and a paired test.

    REFERENCE is a folder, a file or a quoted glob [default: ./labels]. Each of PREDICTIONS is one too, or NAME=DIR, or
    NAME=DIR1,DIR2,DIR3 for runs of one method, averaged per case [default: every folder in ./runs]. A folder that holds
    predictions/ stands for that folder, and one that holds seed-0/predictions/, seed-1/predictions/, ... for these as
    runs of one method; where a run folder of rwtool train has its split.json, only the validation cases count, unless
    --cases names others. Cases pair by file name. A rerun with the same --out measures only what has changed.

    \b
    Examples:
      rwtool evaluate labels predictions
      rwtool evaluate labels runs/dice runs/rrw
      rwtool evaluate labels unet=runs/a,runs/b rrw=runs/c,runs/d --permutation-test -o results
    """  # noqa: D301
    from rwtool.datasets.classes import parse_values
    from rwtool.evaluation.evaluate import Request, plan_evaluation, run_evaluation
    from rwtool.evaluation.rows import Rules

    as_json = format_ == "json"
    plan = plan_evaluation(
        Request(
            reference=reference or _default_reference(),
            predictions=predictions or _default_predictions(),
            rules=Rules(
                metrics=tuple(part.strip() for part in metrics.split(",")),
                hd95=hd95,
                undefined=undefined,
                permutations=permutations,
                seed=seed,
                alpha=alpha,
                subject=subject,
            ),
            out=out,
            classes=None if classes is None else parse_values(classes),
            class_names=_parse_names(class_names),
            ignore=ignore,
            background=background,
            nsd_tolerance_mm=_parse_tolerances(tolerances),
            spacing_mm=spacing_mm,
            resample=resample,
            allow_missing=allow_missing,
            cases=cases,
            groups=groups,
            jobs=jobs,
            verbosity=options.verbosity(quiet or as_json, verbose and not as_json),
        )
    )
    tested = _baseline(plan, permutation_test, baseline)
    if not quiet:
        _print_plan(plan, as_json=as_json)
    evaluation = run_evaluation(plan)
    if not quiet:
        _print_notes(plan, evaluation)
    if evaluation.rows:
        if verbose and not as_json:
            _print_cases(evaluation)
        _report(evaluation, _testable(tested, evaluation), out, as_json=as_json, quiet=quiet)
        _print_failed_runs(plan, evaluation)
    elif out is not None and (out / "summary.json").exists():
        click.echo(f"warning: every prediction failed; what {out} holds is from an earlier run", err=True)
    print_failures(evaluation.failed)
    if evaluation.failed:
        raise SystemExit(1)


def _report(evaluation: Evaluation, baseline: str | None, out: Path | None, *, as_json: bool, quiet: bool) -> None:
    """Write and print what the rows come to."""
    from rwtool.report.write import print_report, summary, write_report
    from rwtool.statistics.comparison import compare

    comparison = compare(evaluation.rows, evaluation.rules, baseline=baseline)
    if out is not None:
        write_report(out, evaluation.rows, comparison, evaluation.rules, evaluation.provenance)
    if as_json:
        content = summary(comparison, evaluation.rules, evaluation.provenance)
        click.echo(json.dumps(content, indent=1, allow_nan=False))
    elif not quiet:
        print_report(comparison, evaluation.rules)


def _baseline(plan: Plan, wanted: bool, name: str | None) -> str | None:
    """The method to test against, or None without a test."""
    methods = plan.pairing.methods
    if not wanted:
        if name is not None:
            raise UsageError("--baseline belongs to --permutation-test; add that")
        return None
    if len(methods) < 2:
        raise UsageError(f"--permutation-test compares methods and there is one, {methods[0]}; name another folder")
    if name is not None and name not in methods:
        raise UsageError(f"--baseline {name}: there is no such method; the methods are {', '.join(methods)}")
    return name or methods[0]


def _testable(baseline: str | None, evaluation: Evaluation) -> str | None:
    """The baseline, unless failures left nothing to test."""
    methods = {row.method for row in evaluation.rows}
    if baseline is None or (baseline in methods and len(methods) > 1):
        return baseline
    click.echo(f"warning: no test, for {' and '.join(sorted(methods))} alone has results", err=True)
    return None


def _default_reference() -> str:
    if not _LABELS.is_dir():
        raise UsageError("no REFERENCE given, and there is no folder ./labels; name the folder of reference labels")
    return str(_LABELS)


def _default_predictions() -> tuple[str, ...]:
    folders = sorted(path for path in _RUNS.glob("*") if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise UsageError("no PREDICTIONS given, and there is no folder in ./runs; name one or more folders of them")
    return tuple(map(str, folders))


def _parse_names(text: str | None) -> dict[int, str]:
    names: dict[int, str] = {}
    for part in [] if text is None else text.split(","):
        label, _, name = part.partition("=")
        if not label.strip().isdigit() or not name.strip():
            raise UsageError(f"--class-names takes LABEL=NAME with commas, such as 1=RV,2=MYO; found {part!r}")
        names[int(label)] = name.strip()
    return names


def _parse_tolerances(texts: tuple[str, ...]) -> dict[int | None, float]:
    """By label; None is for all others."""
    pairs = options.parse_pairs(tuple(text for text in texts if "=" in text), "--nsd-tolerance")
    found: dict[int | None, float] = dict(pairs.items())
    for text in texts:
        if "=" not in text:
            try:
                found[None] = float(text)
            except ValueError:
                raise UsageError(f"--nsd-tolerance takes MM or LABEL=MM; found {text!r}") from None
    return found


def _print_plan(plan: Plan, *, as_json: bool) -> None:
    """What is about to be done; warnings alone where standard output is for JSON."""
    from rwtool.errors import shorten

    if not as_json:
        click.echo(f"{count(len(plan.classes), 'class')}: {plan.classes.describe()} (from {plan.classes.source})")
        if plan.classes.ignore is not None:
            click.echo(f"ignored label: {plan.classes.ignore}")
        if (validation := plan.pairing.validation) is not None:
            click.echo(
                f"cases: the {count(len(validation.names), 'validation case')} of "
                f"{shorten(list(map(str, validation.sources)))} (of {count(validation.total, 'reference')})"
            )
        click.echo(f"{count(len(plan.pairing.references), 'case')}, {count(len(plan.pairing.methods), 'method')}")
    for run in plan.pairing.runs:
        if run.extra:
            click.echo(
                f"note: {run.source}: {count(len(run.extra), 'prediction')} without a reference: {shorten(run.extra)}",
                err=True,
            )
        if run.missing:
            click.echo(
                f"warning: {run.label}: {count(len(run.missing), 'prediction')} missing, whose structures count as "
                f"missed: {shorten(run.missing)}",
                err=True,
            )
    if plan.subject_regex is not None:
        click.echo(
            "warning: these names look like several scans of some subjects, which are not independent; try --subject "
            f"'{plan.subject_regex}'",
            err=True,
        )


def _print_notes(plan: Plan, evaluation: Evaluation) -> None:
    """What became of the grids and of the cache, and what files were odd about; to standard error."""
    results = [result for results in evaluation.measured.values() for result in results]
    reused = sum(result.reused for result in results)
    if reused:
        click.echo(f"note: {count(reused, 'prediction')} unchanged since the last run", err=True)
    done = Counter(result.alignment for result in results if result.error is None)
    if done["reoriented"]:
        click.echo(f"note: {count(done['reoriented'], 'prediction')} with other axes turned without loss", err=True)
    if done["resampled"]:
        click.echo(f"note: {count(done['resampled'], 'prediction')} resampled with nearest neighbour", err=True)
    print_notes({case: [n for result in found for n in result.notes] for case, found in evaluation.measured.items()})


def _print_failed_runs(plan: Plan, evaluation: Evaluation) -> None:
    """Name the runs that the tables lack altogether, since means over runs would hide it."""
    there = {(row.method, row.run) for row in evaluation.rows}
    for run in plan.pairing.runs:
        if (run.method, run.name) not in there:
            click.echo(f"warning: {run.label}: every prediction failed, so no table holds it", err=True)


def _print_cases(evaluation: Evaluation) -> None:
    metrics = evaluation.rules.metrics
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    for row in evaluation.rows:
        method = f"{row.method}, run {row.run}" if row.run else row.method
        line = cells.setdefault((row.case, method, row.class_name, row.status), {})
        line[row.metric] = "-" if row.value != row.value else f"{row.value:.4g}"
    print_table(
        "Cases, as measured",
        ("case", "method", "class", "status", *metrics),
        ((*line, *(values[metric] for metric in metrics)) for line, values in cells.items()),
    )
