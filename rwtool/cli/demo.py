"""``rwtool demo``."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from rwtool.cli import options
from rwtool.cli.output import count


@click.command()
@click.argument("out", type=click.Path(file_okay=False, path_type=Path), default=Path("rwtool-demo"))
@click.option("--subjects", type=click.IntRange(min=2), default=8, show_default=True, help="Phantom hearts to make.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the cohort.")
@options.jobs
@click.pass_context
def demo(ctx: click.Context, out: Path, subjects: int, seed: int, jobs: int | None) -> None:
    """Try everything on a small cohort of phantom hearts, made on the spot in OUT (default ./rwtool-demo)."""
    from rwtool.demo import make_cohort

    make_cohort(out, subjects=subjects, seed=seed)
    click.echo(f"Made {count(subjects, 'phantom heart')}: {out / 'images'}, {out / 'labels'}")
    parallel = [] if jobs is None else ["--jobs", str(jobs)]
    _run(ctx, ["maps", str(out / "labels"), str(out / "maps"), "--kind", "rrw", "--kind", "boundary", *parallel])
    _run(ctx, ["check", str(out / "maps" / "rrw"), *parallel])
    _run(ctx, ["check", str(out / "maps" / "boundary"), *parallel])
    methods = [str(out / "predictions" / method) for method in ("hasty", "careful")]
    _run(ctx, ["evaluate", str(out / "labels"), *methods, "--permutation-test", "-o", str(out / "results"), *parallel])
    click.echo(
        f"\nDone: {out} holds {count(subjects, 'heart')} and their maps, stable everywhere (rrw) or not (boundary).\n"
        f"{out / 'results'} has two segmentations of them compared, as text, CSV, JSON and LaTeX.\n"
        "Next, try your own: rwtool maps LABELS MAPS --dry-run, rwtool evaluate REFERENCE PREDICTIONS..."
    )


def _run(ctx: click.Context, arguments: list[str]) -> None:
    """Run another command of the program, as its user would."""
    click.echo(f"\n$ {shlex.join(['rwtool', *arguments])}")
    group = ctx.find_root().command
    group.main(args=arguments, prog_name="rwtool", standalone_mode=False)
