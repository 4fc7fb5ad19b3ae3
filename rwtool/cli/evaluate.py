"""``rwtool evaluate``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rwtool.cli import options
from rwtool.cli.output import own_folder, print_failures, print_notes
from rwtool.console import count, json_text, print_table
from rwtool.errors import UsageError, shorten

if TYPE_CHECKING:
    from rwtool.evaluation.evaluate import Evaluation, EvaluationPlan
    from rwtool.report.results import Results

_LABELS, _RUNS = Path("labels"), Path("runs")


@click.command(short_help="Measure segmentations in 3D, and test them.")
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
    "nsd_tolerance_mm",
    multiple=True,
    metavar="MM|LABEL=MM",
    help="Tolerance of nsd in mm, for all labels or for one; repeat it for several.",
)
@options.undefined
@options.classes
@click.option(
    "--region",
    "regions",
    multiple=True,
    metavar="NAME=1,2,...",
    help="A union of labels that is measured as one mask, beside the classes; repeat it for several.  [default: the "
    "lists in dataset.json]",
)
@click.option(
    "--map",
    "map_values",
    multiple=True,
    metavar="VALUE=VALUE",
    help="Take a label value of the files for another one, such as 255=1; repeat it for several.",
)
@click.option("--class-names", metavar="LABEL=NAME,...", help="Names for the tables, such as 1=RV,2=MYO.")
@click.option("--background", is_flag=True, help="Measure the background too.")
@options.ignore
@options.name
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
    "2 of nnU-Net's splits_final.json).  [default: the validation cases of run folders and of nnU-Net's results, if "
    "there are any, else all]",
)
@click.option(
    "--group",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.csv",
    help="Columns case,group: separate tables, such as ED and ES.",
)
@click.option(
    "--images",
    metavar="PATH",
    help="Folder or quoted glob of the images, to show under the outlines of the worst cases in report.html.",
)
@options.report
@options.subject
@click.option("--permutation-test", is_flag=True, help="Test each method against the baseline.")
@options.baseline
@options.permutations
@options.seed
@options.alpha
@options.interval
@options.margin
@options.all_pairs
@options.rank
@options.printed
@options.shard
@options.jobs
@options.engine
@options.quiet
@options.verbose
def evaluate(
    reference: str | None,
    predictions: tuple[str, ...],
    metrics: str,
    nsd_tolerance_mm: tuple[str, ...],
    regions: tuple[str, ...],
    map_values: tuple[str, ...],
    class_names: str | None,
    printed: str,
    quiet: bool,
    verbose: bool,
    **given: Any,
) -> None:
    """Compare label files PREDICTIONS with those of REFERENCE: 3D Dice, HD95 and HD in mm, and a paired test.

    REFERENCE is a folder, a file or a quoted glob [default: ./labels]. Each of PREDICTIONS is one too, or NAME=DIR, or
    NAME=DIR1,DIR2,DIR3 for runs of one method, averaged per case [default: every folder in ./runs]. A folder that holds
    predictions/ stands for that folder, and one that holds seed-0/predictions/, seed-1/predictions/, ... for these as
    runs of one method; where a run folder of rwtool train has its split.json, only the validation cases count, unless
    --cases names others. Cases pair by file name. A rerun with the same --out measures only what has changed.

    Folders of nnU-Net's results are taken as they are: a model, a fold, a cross-validation, and what nnUNetv2_predict
    wrote. REFERENCE may be left out before them: it is looked for in nnUNet_raw and nnUNet_preprocessed.

    \b
    Examples:
      rwtool evaluate labels predictions
      rwtool evaluate labels runs/dice runs/rrw
      rwtool evaluate nnUNet_results/Dataset001_Heart/nnUNetTrainer__nnUNetPlans__2d
      rwtool evaluate labels unet=runs/a,runs/b rrw=runs/c,runs/d --permutation-test -o results
    """  # noqa: D301
    from rwtool.report.results import evaluate as evaluate_files

    as_json = printed == "json"
    reference, predictions = _settle(reference, predictions)
    results = evaluate_files(
        reference,
        predictions,
        metrics=tuple(part.strip() for part in metrics.split(",")),
        nsd_tolerance_mm=_parse_tolerances(nsd_tolerance_mm),
        regions=_parse_regions(regions),
        map_values=_parse_mapping(map_values),
        class_names=_parse_names(class_names),
        verbosity=options.verbosity(quiet or as_json, verbose and not as_json),
        on_plan=None if quiet else _print_json_plan if as_json else _print_plan,
        **given,
    )
    evaluation = results.evaluation
    assert evaluation is not None
    if not quiet:
        _print_notes(evaluation)
    if results.standing is not None:
        _print_shard(results, given["out"], as_json=as_json, quiet=quiet, verbose=verbose)
    elif results.comparison is None:
        out = given["out"]
        if out is not None and (out / "summary.json").exists():
            options.say(f"warning: every prediction failed; what {out} holds is from an earlier run", err=True)
    else:
        _print_results(results, as_json=as_json, quiet=quiet, verbose=verbose)
        if given["permutation_test"] and results.comparison.baseline is None:
            methods = " and ".join(sorted(results.comparison.methods))
            options.say(f"warning: no test, for {methods} alone has results", err=True)
        for run in evaluation.failed_runs:
            options.say(f"warning: {run.label}: every prediction failed, so no table holds it", err=True)
    print_failures(evaluation.failed, own_folder(given["out"], results.share), every=verbose)
    if evaluation.failed:
        raise SystemExit(1)


def _print_results(results: Results, *, as_json: bool, quiet: bool, verbose: bool) -> None:
    if as_json:
        click.echo(json_text(results.summary(), ascii_only=True))
        return
    if verbose:
        _print_cases(results)
    if not quiet:
        results.print()


def _print_shard(results: Results, out: Path, *, as_json: bool, quiet: bool, verbose: bool) -> None:
    """What a shard has done and how the whole is seen; no mean, for it would be one of some cases."""
    share, standing = results.share, results.standing
    assert share is not None
    assert standing is not None
    table = share.shard.folder(out) / "cases.csv"
    if as_json:
        told = {"shard": share.shard.index, "of": share.shard.of, "cases": share.total, "list": share.cases_crc32}
        told |= {"table": str(table), "ended": list(standing.ended), "missing": list(standing.missing)}
        click.echo(json_text(told, ascii_only=True))
        return
    if verbose:
        _print_cases(results)
    if not quiet:
        options.say(f"{count(len({row.case for row in results.rows}), 'case')} in {table}; {standing.describe()}")
        options.say(
            "the tables of all shards make the results: rwtool compare "
            f"{table.parent.parent}/*-of-{standing.of}/cases.csv; for a report with pictures evaluate once more "
            "without shard=, which measures nothing anew"
        )


def _settle(reference: str | None, predictions: tuple[str, ...]) -> tuple[str | None, tuple[str, ...]]:
    """Reference and predictions; None for the reference where the first path is predictions of nnU-Net."""
    from rwtool.datasets.runs import begins_with_predictions

    if reference is not None and begins_with_predictions(reference, alone=not predictions):
        return None, (reference, *predictions)
    return reference or _default_reference(), predictions or _default_predictions()


def _default_reference() -> str:
    if not _LABELS.is_dir():
        raise UsageError("no REFERENCE given, and there is no folder ./labels; name the folder of reference labels")
    return str(_LABELS)


def _default_predictions() -> tuple[str, ...]:
    folders = sorted(path for path in _RUNS.glob("*") if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise UsageError("no PREDICTIONS given, and there is no folder in ./runs; name one or more folders of them")
    return tuple(map(str, folders))


def _parse_mapping(texts: tuple[str, ...]) -> dict[int, int]:
    mapping: dict[int, int] = {}
    for text in texts:
        old, _, new = text.partition("=")
        if not old.strip().isdigit() or not new.strip().isdigit():
            raise UsageError(f"--map takes VALUE=VALUE, such as 255=1; found {text!r}")
        if int(old) in mapping:
            raise UsageError(f"--map names the value {int(old)} twice")
        mapping[int(old)] = int(new)
    return mapping


def _parse_regions(texts: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    regions: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, _, parts = text.partition("=")
        numbers = [part.strip() for part in parts.split(",")]
        if not name.strip() or not all(number.isdigit() for number in numbers):
            raise UsageError(f"--region takes NAME=LABEL,LABEL,..., such as whole_tumor=1,2,3; found {text!r}")
        if name.strip() in regions:
            raise UsageError(f"--region names {name.strip()!r} twice")
        regions[name.strip()] = tuple(map(int, numbers))
    return regions


def _parse_names(text: str | None) -> dict[int, str]:
    names: dict[int, str] = {}
    for part in [] if text is None else text.split(","):
        label, _, name = part.partition("=")
        if not label.strip().isdigit() or not name.strip():
            raise UsageError(f"--class-names takes LABEL=NAME with commas, such as 1=RV,2=MYO; found {part!r}")
        names[int(label)] = name.strip()
    return names


def _parse_tolerances(texts: tuple[str, ...]) -> dict[int | str | None, float]:
    """By label or region; None is for all others."""
    found: dict[int | str | None, float] = {}
    for text in texts:
        name, equals, number = text.rpartition("=")
        label = None if not equals else int(name) if name.strip().isdigit() else name.strip()
        if label in found:
            raise UsageError(f"--nsd-tolerance is given twice for {name or 'all labels'}")
        try:
            found[label] = float(number)
        except ValueError:
            raise UsageError(f"--nsd-tolerance takes MM or LABEL=MM; found {text!r}") from None
    return found


def _print_plan(plan: EvaluationPlan) -> None:
    """What is about to be done."""
    for line in plan.dataset.describe():
        options.say(line)
    if (validation := plan.pairing.validation) is not None:
        options.say(
            f"cases: the {count(len(validation.names), 'validation case')} of "
            f"{shorten(list(map(str, validation.sources)))} (of {count(validation.total, 'reference')})"
        )
    options.say(f"{count(len(plan.pairing.references), 'case')}, {count(len(plan.pairing.methods), 'method')}")
    if plan.share is not None:
        options.say(plan.share.describe())
    _print_json_plan(plan)


def _print_json_plan(plan: EvaluationPlan) -> None:
    """Warnings alone, where standard output is for JSON."""
    for note in (*plan.pairing.notes, *plan.dataset.notes):
        options.say(f"note: {note}", err=True)
    for run in plan.pairing.runs:
        if run.extra:
            options.say(
                f"note: {run.source}: {count(len(run.extra), 'prediction')} without a reference: {shorten(run.extra)}",
                err=True,
            )
        if run.missing:
            options.say(
                f"warning: {run.label}: {count(len(run.missing), 'prediction')} missing, whose structures count as "
                f"missed: {shorten(run.missing)}",
                err=True,
            )
    if plan.subject_regex is not None:
        options.say(
            "warning: these names look like several scans of some subjects, which are not independent; try --subject "
            f"'{plan.subject_regex}'",
            err=True,
        )


def _print_notes(evaluation: Evaluation) -> None:
    """What became of the grids and of the cache, and what files were odd about; to standard error."""
    results = [result for results in evaluation.measured.values() for result in results]
    reused = sum(result.reused for result in results)
    if reused:
        options.say(f"note: {count(reused, 'prediction')} unchanged since the last run", err=True)
    for note in evaluation.notes:
        options.say(f"note: {note}", err=True)
    done = Counter(result.alignment for result in results if result.error is None)
    if done["reoriented"]:
        options.say(f"note: {count(done['reoriented'], 'prediction')} with other axes turned without loss", err=True)
    if done["resampled"]:
        options.say(f"note: {count(done['resampled'], 'prediction')} resampled with nearest neighbour", err=True)
    print_notes({case: [n for result in found for n in result.notes] for case, found in evaluation.measured.items()})


def _print_cases(results: Results) -> None:
    metrics = results.rules.metrics
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    for row in results.rows:
        method = f"{row.method}, run {row.run}" if row.run else row.method
        line = cells.setdefault((row.case, method, row.class_name, row.status), {})
        line[row.metric] = "-" if row.value != row.value else f"{row.value:.4g}"
    print_table(
        "Cases, as measured",
        ("case", "method", "class", "status", *metrics),
        ((*line, *(values[metric] for metric in metrics)) for line, values in cells.items()),
    )
