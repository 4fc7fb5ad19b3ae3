"""``rwtool check``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rwtool.cli import options
from rwtool.console import count, print_table

if TYPE_CHECKING:
    from rwtool.maps.check import CaseCheck, SignCount


@click.command()
@click.argument("maps", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--labels", help="Label files (a folder, a file or a quoted glob).  [default: where maps.json says]")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the random softmax.")
@options.jobs
@options.as_json
@options.quiet
def check(maps: Path, labels: str | None, seed: int, jobs: int | None, as_json: bool, quiet: bool) -> None:
    """Check the maps of one kind, MAPS (such as maps/rrw): files, sidecar, labels and the gradient's sign.

    A region-wise map is sound where its gradient has exactly one negative component. The table gives the share of
    voxels with two or more: at uniform softmax, and at one random softmax per voxel. rrw and ac maps have none.
    """
    from rwtool.maps.check import check_maps, total_signs

    found, checks = check_maps(maps, labels=labels, seed=seed, jobs=jobs, verbosity=-1 if quiet or as_json else 0)
    uniform, random = total_signs(checks)
    bad = [case for case in checks if case.problems]
    if as_json:
        content = {
            "folder": str(maps),
            "kind": found.kind,
            "seed": seed,
            "verified": not bad,
            "uniform": _signs(uniform),
            "random": _signs(random),
            "cases": {case.name: _case(case) for case in checks},
        }
        click.echo(json.dumps(content, indent=1, allow_nan=False))
    elif not quiet:
        print_table(
            f"{found.kind} maps in {maps}: voxels with two or more negative gradient components",
            ("case", "voxels", "uniform softmax", "random softmax", "zero gradient", "labels", "verified"),
            [_row(case) for case in checks]
            + [("all", f"{uniform.voxels:,}", _share(uniform), _share(random), f"{uniform.zero:,}", "", "")],
        )
        absent = [case.name for case in checks if case.absent]
        if absent:
            click.echo(
                f"warning: {count(len(absent), 'case')} with an absent class, first {absent[0]}: a channel of 0 is not "
                "neutral in this kind of map"
            )
        if not all(case.labels_checked for case in checks if not case.problems):
            click.echo("note: some label files were not found, so those maps were checked against the sidecar alone")
    for case in bad:
        for problem in case.problems:
            click.echo(f"{case.name}: {problem}", err=True)
    if bad:
        raise SystemExit(1)
    if not quiet and not as_json:
        click.echo(f"{count(len(checks), 'map')} verified")


def _row(case: CaseCheck) -> tuple[str, ...]:
    if case.problems:
        return (case.name, "", "", "", "", "", "NO")
    shares = (_share(case.uniform), _share(case.random), f"{case.uniform.zero:,}")
    return (case.name, f"{case.uniform.voxels:,}", *shares, "yes" if case.labels_checked else "not found", "yes")


def _share(signs: SignCount) -> str:
    return "0" if signs.unstable == 0 else f"{signs.unstable_share:.2%} ({signs.unstable:,})"


def _signs(signs: SignCount) -> dict[str, Any]:
    return {
        "voxels": signs.voxels,
        "two_or_more_negative": signs.unstable,
        "share": signs.unstable_share,
        "zero_gradient": signs.zero,
    }


def _case(case: CaseCheck) -> dict[str, Any]:
    return {
        "verified": not case.problems,
        "problems": list(case.problems),
        "absent": list(case.absent),
        "labels_checked": case.labels_checked,
        "uniform": _signs(case.uniform),
        "random": _signs(case.random),
    }
