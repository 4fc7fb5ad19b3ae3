"""``rwtool maps``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rwtool.cli import options
from rwtool.cli.output import print_failures, print_notes
from rwtool.console import count, duration, print_table, size
from rwtool.errors import UsageError

if TYPE_CHECKING:
    from rwtool.maps.make import Plan
    from rwtool.parallel import Outcome

_KINDS = ("ac", "boundary", "constant", "hd", "rrw")


@click.command()
@click.argument("labels")
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--kind",
    "kinds",
    type=click.Choice([*_KINDS, "all"]),
    multiple=True,
    default=("rrw",),
    show_default=True,
    help="Kind of map; repeat it for several.",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["nii.gz", "nii", "npy"]),
    default="nii.gz",
    show_default=True,
    help="NIfTI with channels as the fourth axis, or .npy of shape (K, Z, Y, X).",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "int16"]),
    default="float32",
    show_default=True,
    help="int16: NIfTI with scl_slope; float16: .npy. Both for ac, constant and rrw only.",
)
@click.option(
    "--layout",
    type=click.Choice(["dense", "packed"]),
    default="dense",
    show_default=True,
    help="packed: one channel, the own value, for ac, constant and rrw; it is read together with its label file.",
)
@click.option(
    "--units",
    type=click.Choice(["mm", "voxel"]),
    default="mm",
    show_default=True,
    help="Unit of distances; the paper's are in voxels.",
)
@click.option(
    "--dims",
    type=click.Choice(["3", "2"]),
    default="3",
    show_default=True,
    help="Distances in the volume, or slice by slice.",
)
@click.option(
    "--convention",
    type=click.Choice(["across", "inner", "kervadec"]),
    default="across",
    show_default=True,
    help="Distances inside a class: to the nearest voxel of another class (the paper's code), to the nearest boundary "
    "voxel of its own (Eq. 3 to the letter), or the first less one voxel (Kervadec's code; needs --units voxel).",
)
@click.option(
    "--alpha", type=float, help="hd: exponent of the distance [default: 2]; constant: other value [default: 1]."
)
@click.option("--beta", type=float, help="constant: minus the own value [default: 1].")
@click.option(
    "--class-weight",
    "class_weights",
    multiple=True,
    metavar="LABEL=W",
    help="Factor on the other-class value at voxels of a class (ac, constant, rrw); repeat it for several.",
)
@click.option(
    "--absent",
    type=click.Choice(["zero", "farthest"]),
    default="zero",
    show_default=True,
    help="boundary, hd: channel of a class that is not in the volume.",
)
@options.classes
@options.ignore
@options.spacing
@options.slice_axis
@options.jobs
@click.option("--overwrite", is_flag=True, help="Make all maps anew, also where maps of other settings are.")
@click.option("--dry-run", is_flag=True, help="Say what would be made, how large and how long; write nothing.")
@options.quiet
@options.verbose
def maps(
    labels: str,
    out: Path,
    kinds: tuple[str, ...],
    format_: Any,
    dtype: Any,
    layout: Any,
    units: Any,
    dims: str,
    convention: Any,
    alpha: float | None,
    beta: float | None,
    class_weights: tuple[str, ...],
    absent: Any,
    classes: str | None,
    ignore: int | None,
    spacing_mm: tuple[float, float, float] | None,
    slice_axis: int | None,
    jobs: int | None,
    overwrite: bool,
    dry_run: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Make region-wise maps of the label files LABELS (a folder, a file or a quoted glob) in OUT/<kind>.

    Each case becomes OUT/<kind>/<case>.nii.gz; OUT/<kind>/maps.json says what its numbers mean. A rerun makes only what
    is missing or whose label file has changed.

    \b
    Examples:
      rwtool maps labels maps
      rwtool maps labels maps --kind rrw --kind boundary -j 4
      rwtool maps labels maps --format npy --layout packed --dtype float16
    """  # noqa: D301
    from rwtool.datasets.classes import make_classes, parse_values
    from rwtool.maps.make import Request, make_maps, plan_maps
    from rwtool.maps.parameters import MapParameters
    from rwtool.maps.settings import Storage

    chosen = [kind for kind in _KINDS if kind in kinds or "all" in kinds]
    weights = options.parse_pairs(class_weights, "--class-weight")
    _refuse_ambiguous(chosen, alpha, bool(weights))
    _refuse_useless(chosen)
    parameters = tuple(
        MapParameters(
            kind,  # type: ignore[arg-type]
            convention=convention,
            units=units,
            dims=int(dims),
            alpha=alpha if kind in ("constant", "hd") else None,
            beta=beta if kind == "constant" else None,
            absent=absent,
        )
        for kind in chosen
    )
    request = Request(
        source=labels,
        out=out,
        parameters=parameters,
        storage=Storage(format_, dtype, layout),
        classes=None if classes is None else make_classes(parse_values(classes), ignore=ignore, source="--classes"),
        class_weights=weights,
        ignore=ignore,
        spacing_mm=spacing_mm,
        slice_axis=slice_axis,
        jobs=jobs,
        overwrite=overwrite,
        verbosity=options.verbosity(quiet, verbose),
    )
    plan = plan_maps(request)
    if not quiet:
        _print_plan(plan)
    if dry_run:
        _print_dry_run(plan)
        outcomes: list[Outcome[Any]] = plan.failed
    else:
        start = time.perf_counter()
        outcomes = plan.failed + make_maps(request, plan)
        if not quiet:
            _print_summary(plan, outcomes, time.perf_counter() - start, verbose=verbose)
    print_failures(outcomes)
    if any(outcome.error for outcome in outcomes):
        raise SystemExit(1)


def _refuse_useless(kinds: list[str]) -> None:
    """Refuse an option that was given and means nothing to any of the kinds."""
    from rwtool.maps.parameters import USED_BY_KIND

    context = click.get_current_context()
    used = {name for kind in kinds for name in USED_BY_KIND[kind]}  # type: ignore[index]
    for name in ("units", "dims", "convention", "absent", "beta"):
        given = context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if given and name not in used:
            owners = " and ".join(kind for kind, names in USED_BY_KIND.items() if name in names)
            raise UsageError(f"--{name} belongs to {owners} maps; it has no meaning for {', '.join(kinds)}")


def _refuse_ambiguous(kinds: list[str], alpha: float | None, weighted: bool) -> None:
    if alpha is not None and len({"constant", "hd"} & set(kinds)) != 1:
        raise UsageError(
            "--alpha belongs to hd or to constant maps; make exactly one of the two kinds at a time with it"
        )
    if weighted and set(kinds) & {"boundary", "hd"}:
        raise UsageError(
            "--class-weight belongs to ac, constant and rrw maps; make boundary and hd maps apart from them"
        )


def _print_plan(plan: Plan) -> None:
    inspections = plan.inspections.values()
    click.echo(f"{count(len(plan.classes), 'class')}: {plan.classes.describe()} (from {plan.classes.source})")
    if plan.classes.ignore is not None:
        click.echo(f"ignored label: {plan.classes.ignore}")
    axes = sorted({inspection.slice_axis for inspection in inspections})
    if axes:
        click.echo(f"slice axis: file axis {' or '.join(map(str, axes))}")
    click.echo(
        f"{count(len(plan.work), 'case')} to do, {plan.jobs} at once"
        + (f"; {count(len(plan.skipped), 'case')} unchanged since the last run" if plan.skipped else "")
    )


def _print_dry_run(plan: Plan) -> None:
    from rwtool.maps.make import estimate_seconds

    print_table(
        "Cases to do",
        ("case", "shape (z, y, x)", "spacing in mm", "memory", "kinds"),
        (
            (
                item.name,
                " x ".join(map(str, plan.inspections[item.name].shape)),
                " x ".join(f"{s:.4g}" for s in plan.inspections[item.name].spacing_mm),
                size(item.peak_bytes),
                " ".join(parameters.kind for parameters, _ in item.argument.outputs),
            )
            for item in plan.work
        ),
    )
    click.echo(
        f"it would take about {duration(estimate_seconds(plan))} (from a trial on this machine just now) and write up "
        f"to {size(sum(_uncompressed(item) for item in plan.work))} before compression; nothing was written"
    )


def _uncompressed(item: Any) -> int:
    storage, classes = item.argument.storage, item.argument.classes
    channels = 1 if storage.layout == "packed" else len(classes)
    width = 4 if storage.dtype == "float32" else 2
    return int(item.voxels * channels * width * len(item.argument.outputs))


def _print_summary(plan: Plan, outcomes: list[Outcome[Any]], seconds: float, *, verbose: bool) -> None:
    rows = []
    for kind, maps in plan.sets.items():
        made = [outcome.result[kind] for outcome in outcomes if outcome.result and kind in outcome.result]
        largest: dict[int, float] = {}
        for record in made:
            for value, distance in record.largest_distance.items():
                largest[value] = max(distance, largest.get(value, 0.0))
        rows.append(
            (
                kind,
                str(len(made)),
                str(len(maps.cases) - len(made)),
                str(sum(outcome.error is not None for outcome in outcomes)),
                size(sum(record.bytes for record in maps.cases.values())),
                ", ".join(f"{value}: {distance:.1f}" for value, distance in largest.items())
                + (f" {maps.settings.unit}" if largest else "-"),
            )
        )
    print_table(
        f"Maps in {next(iter(plan.sets.values())).folder.parent}, {duration(seconds)}",
        ("kind", "made", "kept", "failed", "size", "largest distance by label"),
        rows,
    )
    if verbose:
        _print_cases(outcomes)
    _print_edge_cases(plan)
    print_notes({o.name: [note for record in (o.result or {}).values() for note in record.notes] for o in outcomes})


def _print_cases(outcomes: list[Outcome[Any]]) -> None:
    print_table(
        "Cases",
        ("case", "kind", "shape (z, y, x)", "size", "seconds"),
        (
            (outcome.name, kind, " x ".join(map(str, r.shape)), size(r.bytes), f"{r.seconds:.2f}")
            for outcome in outcomes
            for kind, r in (outcome.result or {}).items()
        ),
    )


def _print_edge_cases(plan: Plan) -> None:
    """Count each edge case; it is the same labels for every kind."""
    for kind, maps in plan.sets.items():
        records = list(maps.cases.values())
        for key, what in (
            ("absent", "is absent"),
            ("filling", "fills the whole volume"),
            ("zero_distance", "has a largest inside distance of 0"),
            ("absent_slices", "is absent from some slices"),
            ("filling_slices", "fills some slices"),
        ):
            values = sorted({value for record in records for value in getattr(record, key)})
            for value in values:
                cases = sum(value in getattr(record, key) for record in records)
                click.echo(f"{kind}: label {value} {what} in {count(cases, 'case')}")
        absent = sum(bool(record.absent) for record in records)
        if kind in ("boundary", "hd") and absent and maps.settings.parameters.absent == "zero":
            click.echo(
                f"warning: {count(absent, f'{kind} map')} with an absent class: its channel is 0, which is not neutral "
                "(softmax raises the absent class where other channels are positive); try --absent farthest or rrw",
                err=True,
            )
