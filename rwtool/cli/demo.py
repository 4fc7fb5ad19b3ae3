"""``rwtool demo``."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from rwtool.cli import options
from rwtool.console import count

_LOSSES = ("dice", "rrw")


@click.command()
@click.argument("out", type=click.Path(file_okay=False, path_type=Path), default=Path("rwtool-demo"))
@click.option("--subjects", type=click.IntRange(min=2), default=14, show_default=True, help="Phantom hearts to make.")
@click.option("--epochs", type=click.IntRange(min=1), default=60, show_default=True, help="Of each training.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the cohort.")
@options.jobs
@click.pass_context
def demo(ctx: click.Context, out: Path, subjects: int, epochs: int, seed: int, jobs: int | None) -> None:
    """Try everything on a small cohort of phantom hearts, made on the spot in OUT (default ./rwtool-demo).

    Maps of their labels, a short training with the rrw and one with the Dice loss, predictions, and a comparison of the
    two; about three minutes on 2 cores. Each command is printed before it runs. A second demo in OUT goes on where the
    first was stopped.
    """
    from rwtool.demo import make_cohort

    make_cohort(out, subjects=subjects, seed=seed)
    images, labels, maps, runs = (str(out / name) for name in ("images", "labels", "maps", "runs"))
    click.echo(f"Made {count(subjects, 'phantom heart')}: {images}, {labels}; and 2 without labels: {out / 'new'}")
    parallel = [] if jobs is None else ["--jobs", str(jobs)]
    _run(ctx, ["maps", labels, maps, "--kind", "rrw", "--kind", "boundary", *parallel])
    _run(ctx, ["check", f"{maps}/rrw", *parallel])
    _run(ctx, ["check", f"{maps}/boundary", *parallel])
    network = ["--features", "16", "--lr", "0.002", "--batch-size", "16", "--epochs", str(epochs), "--val-every", "20"]
    for loss in _LOSSES:
        chosen = ["--loss", loss, *(["--maps", maps] if loss == "rrw" else [])]
        _run(ctx, ["train", images, labels, f"{runs}/{loss}", *chosen, *network, "--resume"])
    _run(ctx, ["predict", f"{runs}/rrw", str(out / "new"), str(out / "predictions"), "--overwrite"])
    methods = [f"{runs}/{loss}" for loss in _LOSSES]
    _run(ctx, ["evaluate", labels, *methods, "--permutation-test", "-o", str(out / "results"), *parallel])
    click.echo(
        f"\nDone: {out} holds {count(subjects, 'heart')}, their maps, and two runs; {out / 'results'} has the runs "
        f"compared on the hearts that they were not trained on, as text, CSV, JSON and LaTeX; {out / 'predictions'} "
        "the new hearts segmented.\nNext, try your own: rwtool train IMAGES LABELS RUN, rwtool evaluate LABELS RUN..."
    )


def _run(ctx: click.Context, arguments: list[str]) -> None:
    """Run another command of the program, as its user would."""
    click.echo(f"\n$ {shlex.join(['rwtool', *arguments])}")
    group = ctx.find_root().command
    group.main(args=arguments, prog_name="rwtool", standalone_mode=False)
