"""``rwtool maps``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rwtool.cli import options
from rwtool.cli.output import own_folder, print_failures, print_notes
from rwtool.console import count, duration, print_table, size
from rwtool.maps.parameters import KINDS, PAPER_KINDS, SIGMA, MapParameters, Storage

if TYPE_CHECKING:
    from rwtool.maps.make import MadeMaps, MapPlan
    from rwtool.maps.settings import MapRecord
    from rwtool.parallel import Outcome


@click.command(short_help="Make region-wise maps of label files.")
@click.argument("labels")
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--kind",
    "kinds",
    type=click.Choice([*KINDS, "all"]),
    multiple=True,
    default=("rrw",),
    show_default=True,
    help="Kind of map; repeat it for several. all: those of the paper, so neither matrix, which needs --matrix, nor "
    "skeleton.",
)
@options.of_record(Storage, "format", "NIfTI with channels as the fourth axis, or an array (K, Z, Y, X).")
@options.of_record(
    Storage, "dtype", "int16: NIfTI with scl_slope; float16: arrays. For ac, constant and rrw, without --instances."
)
@options.of_record(
    Storage,
    "layout",
    "packed: one channel, the own value, for ac, constant, rrw and skeleton; with --instances two, own and other. It "
    "is read together with its label file.",
)
@options.of_record(MapParameters, "units", "Unit of distances; the paper's are in voxels.")
@options.of_record(
    MapParameters,
    "dims",
    "Distances, skeletons and components in the volume, or slice by slice.",
    type=click.Choice(["3", "2"]),
)
@options.of_record(
    MapParameters,
    "convention",
    "Distances inside a class: to the nearest voxel of another class (the paper's code), to the nearest boundary "
    "voxel of its own (Eq. 3 to the letter), or the first less one voxel (Kervadec's code; needs --units voxel).",
)
@click.option(
    "--alpha", type=float, help="hd: exponent of the distance [default: 2]; constant: other value [default: 1]."
)
@click.option("--beta", type=float, help="constant: minus the own value [default: 1].")
@options.of_record(
    MapParameters,
    "profile",
    "rrw: how the own value runs with the distance d inside: -d over its largest; reversed, so that the boundary "
    "matters most; or -exp(-d / sigma).",
)
@click.option("--sigma", type=float, help=f"rrw of --profile exp: in the unit of the distance.  [default: {SIGMA:g}]")
@click.option(
    "--instances",
    is_flag=True,
    help="Let each component of a foreground class weigh the same, whatever its size (ac, constant, rrw, skeleton).",
)
@click.option(
    "--matrix",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    callback=options.parse_matrix,
    metavar="FILE.csv",
    help="matrix: class distances, a row of numbers for each predicted class, a column for each true one.",
)
@click.option(
    "--class-weight",
    "class_weights",
    multiple=True,
    metavar="LABEL=W",
    help="Factor on the other-class value at voxels of a class (ac, constant, rrw); repeat it for several.",
)
@options.of_record(MapParameters, "absent", "boundary, hd: channel of a class that is not in the volume.")
@options.classes
@options.ignore
@options.spacing
@options.slice_axis
@options.name
@options.shard
@options.jobs
@options.engine
@click.option("--overwrite", is_flag=True, help="Make all maps anew, also where maps of other settings are.")
@click.option("--dry-run", is_flag=True, help="Say what would be made, how large and how long; write nothing.")
@options.quiet
@options.verbose
def maps(
    labels: str,
    out: Path,
    kinds: tuple[Any, ...],
    dims: str | None,
    class_weights: tuple[str, ...],
    dry_run: bool,
    quiet: bool,
    verbose: bool,
    **given: Any,
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
    from rwtool.maps.make import make_maps

    made = make_maps(
        labels,
        out,
        kinds=[kind for kind in KINDS if kind in kinds or ("all" in kinds and kind in PAPER_KINDS)],
        dims=None if dims is None else int(dims),
        class_weights=options.parse_pairs(class_weights, "--class-weight"),
        dry_run=dry_run,
        verbosity=options.verbosity(quiet, verbose),
        on_plan=None if quiet else _print_plan,
        **{name: value for name, value in given.items() if value is not None},
    )
    if "matrix" in kinds and not quiet:
        options.say(f"the matrix has no file per case: {out / 'matrix' / 'maps.json'} holds its numbers")
    if dry_run:
        _print_dry_run(made.plan)
    elif not quiet:
        _print_summary(made, verbose=verbose)
    if made.standing is not None and not quiet:
        options.say(made.standing.describe())
    print_failures(made.outcomes, None if dry_run else own_folder(out, made.plan.share), every=verbose)
    if made.failed:
        raise SystemExit(1)


def _print_plan(plan: MapPlan) -> None:
    for line in plan.dataset.describe():
        options.say(line)
    for note in plan.dataset.notes:
        options.say(f"note: {note}", err=True)
    if plan.share is not None:
        options.say(plan.share.describe())
    options.say(
        f"{count(len(plan.work), 'case')} to do, "
        + (f"{plan.jobs} at once" if plan.engine is None else f"on the workers of {plan.engine.scheduler}")
        + (f"; {count(len(plan.skipped), 'case')} unchanged since the last run" if plan.skipped else "")
    )


def _print_dry_run(plan: MapPlan) -> None:
    print_table(
        "Cases to do",
        ("case", "shape (z, y, x)", "spacing in mm", "memory", "kinds"),
        (
            (
                item.name,
                " x ".join(map(str, item.argument.labels.shape)),
                " x ".join(f"{mm:.4g}" for mm in item.argument.labels.spacing_mm),
                size(item.peak_bytes),
                " ".join(parameters.kind for parameters, _ in item.argument.outputs),
            )
            for item in plan.work
        ),
    )
    time = duration(plan.estimate_seconds()) + ("" if plan.engine is None else " of one core")
    options.say(
        f"it would take about {time} (from a trial on this machine just now) and write up to "
        f"{size(plan.uncompressed_bytes())} before compression; nothing was written"
    )


def _print_summary(made: MadeMaps, *, verbose: bool) -> None:
    rows, told = [], _told(made)
    for kind, maps in made.sets.items():
        records = [outcome.result[kind] for outcome in made.outcomes if outcome.result and kind in outcome.result]
        largest: dict[int, float] = {}
        for record in records:
            for value, distance in record.largest_distance.items():
                largest[value] = max(distance, largest.get(value, 0.0))
        rows.append(
            (
                kind,
                str(len(records)),
                str(len(told[kind]) - len(records)),
                str(len(made.failed)),
                size(sum(record.bytes for record in told[kind])),
                ", ".join(f"{value}: {distance:.1f}" for value, distance in largest.items())
                + (f" {maps.settings.unit}" if largest else "-"),
            )
        )
    of_shard = "M" if made.plan.share is None else f"{made.plan.share.shard}: m"
    print_table(
        f"{of_shard}aps in {next(iter(made.sets.values())).folder.parent}, {duration(made.seconds)}",
        ("kind", "made", "kept", "failed", "size", "largest distance by label"),
        rows,
    )
    if verbose:
        _print_cases(made.outcomes)
    _print_edge_cases(made)
    print_notes(
        {o.name: [note for record in (o.result or {}).values() for note in record.notes] for o in made.outcomes}
    )


def _told(made: MadeMaps) -> dict[str, list[MapRecord]]:
    """What the sidecars say, by kind: of all cases, or of those of a shard, lest it speak for the others."""
    share = made.plan.share
    mine = None if share is None else set(share.names)
    return {
        kind: [record for case, record in maps.cases.items() if mine is None or case in mine]
        for kind, maps in made.sets.items()
    }


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


def _print_edge_cases(made: MadeMaps) -> None:
    """Count each edge case; it is the same labels for every kind."""
    told = _told(made)
    for kind, maps in made.sets.items():
        records = told[kind]
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
                options.say(f"{kind}: label {value} {what} in {count(cases, 'case')}")
        absent = sum(bool(record.absent) for record in records)
        if kind in ("boundary", "hd") and absent and maps.settings.parameters.absent == "zero":
            options.say(
                f"warning: {count(absent, f'{kind} map')} with an absent class: its channel is 0, which is not neutral "
                "(softmax raises the absent class where other channels are positive); try --absent farthest or rrw",
                err=True,
            )
