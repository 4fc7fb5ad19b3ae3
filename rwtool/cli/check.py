"""``rwtool check``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rwtool.cli import options
from rwtool.console import count, json_text, print_table

if TYPE_CHECKING:
    from rwtool.maps.check import CaseCheck, CheckedMaps, SignFigure
    from rwtool.maps.signs import SignCount
    from rwtool.shards import Share


@click.command(short_help="Verify maps, and count unstable gradients.")
@click.argument("maps", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--labels", help="Label files (a folder, a file or a quoted glob).  [default: where maps.json says]")
@options.name
@options.seed
@click.option(
    "--figure",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw where gradient components have the wrong sign into this .png, .pdf or .svg.",
)
@click.option("--case", help="Case of the figure.  [default: the one with most such voxels]")
@click.option(
    "--slice", type=click.IntRange(min=0), help="Slice of the figure.  [default: the one with most such voxels]"
)
@click.option(
    "--run",
    type=click.Path(exists=True, path_type=Path),
    help="A run of rwtool train, at whose softmax the figure shows the signs too.",
)
@options.checkpoint
@click.option(
    "--images",
    help="Images for the figure (a folder, a file or a quoted glob).  [default: those that RUN was trained from]",
)
@click.option("--overwrite", is_flag=True, help="Replace a figure that is there.")
@options.shard
@options.jobs
@options.engine
@options.printed
@options.quiet
def check(maps: Path, labels: str | None, seed: int, printed: str, quiet: bool, **given: Any) -> None:
    """Check the maps of one kind, MAPS (such as maps/rrw): files, sidecar, labels and the gradient's sign.

    A region-wise map is sound where its gradient has exactly one negative component. The table gives the share of
    voxels with two or more: at uniform softmax, and at one random softmax per voxel. Maps without any are stable, as
    those of ac, constant, rrw and skeleton are. Of a matrix it gives the share at random softmax for each class.
    """
    from rwtool.views.check import check_maps

    as_json = printed == "json"
    checked = check_maps(maps, labels=labels, seed=seed, verbosity=-1 if quiet or as_json else 0, **given)
    if as_json:
        click.echo(json_text(_content(checked, maps, seed), ascii_only=True))
    elif not quiet:
        _print_table(checked, maps)
    for case in checked.bad:
        for problem in case.problems:
            options.say(f"{case.name}: {problem}", err=True)
    if checked.figure is not None and not quiet and not as_json:
        options.say(f"figure: {checked.figure.path} ({checked.figure.case}, slice {checked.figure.slice})")
    if checked.bad:
        raise SystemExit(1)
    if not quiet and not as_json:
        options.say(f"{count(len(checked.cases), 'class' if checked.maps.kind == 'matrix' else 'map')} verified")
        if checked.share is not None:
            options.say(_whole(checked.share))


def _whole(share: Share) -> str:
    """How the verdicts of all shards make that of the folder."""
    return (
        f"{share.describe()}; the folder is verified when all {share.shard.of} shards of this list have ended with "
        "exit code 0"
    )


def _print_table(checked: CheckedMaps, folder: Path) -> None:
    uniform, random = checked.uniform, checked.random
    print_table(
        f"{checked.maps.kind} maps in {folder}: voxels with two or more negative gradient components",
        (
            "class" if checked.maps.kind == "matrix" else "case",
            "voxels",
            "uniform softmax",
            "random softmax",
            "zero gradient",
            "labels",
            "verified",
        ),
        [_row(case) for case in checked.cases]
        + [
            (
                "all" if checked.share is None else str(checked.share.shard),
                f"{random.voxels:,}",
                _share(uniform),
                _share(random),
                f"{uniform.zero:,}",
                "",
                "",
            )
        ],
    )
    absent = [case.name for case in checked.cases if case.absent]
    if absent:
        options.say(
            f"warning: {count(len(absent), 'case')} with an absent class, first {absent[0]}: a channel of 0 is not "
            "neutral in this kind of map"
        )
    if not all(case.labels_checked for case in checked.cases if not case.problems):
        options.say("note: some label files were not found, so those maps were checked against the sidecar alone")
    if checked.stable and random.voxels:
        options.say("stable: at no voxel does a class other than the true one rise")
    elif random.voxels:
        options.say(
            f"not stable: at {random.unstable_share:.2%} of the voxels, at random softmax, a class other than the true "
            "one rises too"
        )


def _row(case: CaseCheck) -> tuple[str, ...]:
    if case.problems:
        return (case.name, "", "", "", "", "", "NO")
    shares = (_share(case.uniform), _share(case.random), f"{case.uniform.zero:,}")
    return (case.name, f"{case.random.voxels:,}", *shares, "yes" if case.labels_checked else "not found", "yes")


def _share(signs: SignCount) -> str:
    return "0" if signs.unstable == 0 else f"{signs.unstable_share:.2%} ({signs.unstable:,})"


def _content(checked: CheckedMaps, folder: Path, seed: int) -> dict[str, Any]:
    return {
        "folder": str(folder),
        "kind": checked.maps.kind,
        "seed": seed,
        "verified": not checked.bad,
        **({} if checked.share is None else {"shard": _shard(checked.share)}),
        "stable": checked.stable,
        "uniform": _signs(checked.uniform),
        "random": _signs(checked.random),
        **({} if checked.figure is None else {"figure": _figure(checked.figure)}),
        "cases": {
            case.name: {
                "verified": not case.problems,
                "problems": list(case.problems),
                "absent": list(case.absent),
                "labels_checked": case.labels_checked,
                "uniform": _signs(case.uniform),
                "random": _signs(case.random),
            }
            for case in checked.cases
        },
    }


def _shard(share: Share) -> dict[str, Any]:
    """What tells that this is not all, and which shards belong together."""
    return {"shard": share.shard.index, "of": share.shard.of, "cases": share.total, "list": share.cases_crc32}


def _figure(figure: SignFigure) -> dict[str, Any]:
    return {
        "path": str(figure.path),
        "case": figure.case,
        "slice": figure.slice,
        "counts": {name: _signs(signs) for name, signs in figure.counts.items()},
    }


def _signs(signs: SignCount) -> dict[str, Any]:
    return {
        "voxels": signs.voxels,
        "two_or_more_negative": signs.unstable,
        "share": signs.unstable_share,
        "zero_gradient": signs.zero,
    }
