"""``rwtool convergence``."""

from __future__ import annotations

from pathlib import Path

import click

from rwtool.cli import options
from rwtool.console import json_text


@click.command(short_help="Compare how surely losses converge, over seeds.")
@click.argument("runs", nargs=-1, required=True, metavar="RUNS...")
@click.option(
    "--baseline", metavar="NAME", help="Method that the shares of the others are compared with.  [default: the first]"
)
@options.alpha
@click.option(
    "-o",
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for convergence.csv, seeds.csv, epochs.csv, convergence.json, and the picture convergence.png and "
    ".pdf (pip install 'rwtool[plot]').",
)
@options.printed
def convergence(runs: tuple[str, ...], baseline: str | None, alpha: float, out: Path | None, printed: str) -> None:
    """Compare what became of runs that differ in their seed alone: how high their Dice is, and how many collapsed.

    RUNS are folders of rwtool train with a run for each seed: DIR, NAME=DIR, or NAME=DIR1,DIR2 for single runs. A run
    has collapsed when its Dice in some class is below half of the best median of a method, or when its loss was not
    finite. Unfinished runs are named and not counted.

    \b
    Examples:
      rwtool train images labels runs/rrw --seeds 0:50
      rwtool train images labels runs/boundary --loss boundary --seeds 0:50
      rwtool convergence runs/rrw runs/boundary -o convergence
    """  # noqa: D301
    from rwtool.report.convergence import PICTURES
    from rwtool.report.convergence import convergence as compare_runs
    from rwtool.report.figures import can_draw

    results = compare_runs(runs, out=out, baseline=baseline, alpha=alpha)
    if printed == "json":
        click.echo(json_text(results.summary(), ascii_only=True))
    else:
        results.print()
    if out is not None and not can_draw():
        options.say(f"note: no {PICTURES[0]}, for matplotlib is not installed; pip install 'rwtool[plot]'", err=True)
