"""``rwtool predict``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rwtool.cli import options
from rwtool.cli.output import own_folder, print_failures, print_notes
from rwtool.console import count

if TYPE_CHECKING:
    from rwtool.network.predict import PredictPlan


@click.command(short_help="Segment images with a trained network.")
@click.argument("run", type=click.Path(exists=True, path_type=Path))
@click.argument("images")
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@options.checkpoint
@click.option("--tta", is_flag=True, help="Average over the flips that the run was trained with.")
@click.option(
    "--keep-largest",
    is_flag=True,
    help="Keep the largest piece of each class in 3D alone; voxels that touch by a face, an edge or a corner are one "
    "piece.",
)
@click.option("--probabilities", is_flag=True, help="Write the softmax too, as float32, to OUT/probabilities.")
@click.option("--overwrite", is_flag=True, help="Replace label files that are in OUT already.")
@click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="auto|cpu|cuda[:i]",
    help="Where to compute; auto is a CUDA device if there is one.",
)
@click.option(
    "--amp",
    type=click.Choice(["auto", "bf16", "fp16", "off"]),
    default="auto",
    show_default=True,
    help="Mixed precision; auto is that of the run where the hardware has it.",
)
@options.spacing
@options.slice_axis
@options.shard
@click.option(
    "-j",
    "--jobs",
    type=click.IntRange(min=1),
    help="Cases that are read at once, ahead of the network [default: 2, and a case that free memory does not hold is "
    "refused]; with --engine, cases at once.",
)
@options.engine
@options.quiet
def predict(run: Path, images: str, out: Path, quiet: bool, **given: Any) -> None:
    """Segment IMAGES (a folder, a file or a quoted glob) with a trained RUN; label files go to the folder OUT.

    Each label file has the name of its case, the label values of the training data, and the grid and orientation of
    its image. RUN is the folder of rwtool train, or a checkpoint file.

    \b
    Examples:
      rwtool predict runs/rrw images predictions
      rwtool predict runs/rrw/seed-0 'new/*.nii.gz' predictions --tta --probabilities
    """  # noqa: D301
    from rwtool.network.predict import predict as predict_files

    found = predict_files(
        run, images, out, verbosity=-1 if quiet else 0, on_plan=None if quiet else _print_plan, **given
    )
    if not quiet:
        print_notes(found.notes)
    print_failures(found.outcomes, own_folder(out, found.plan.share))
    if not quiet:
        options.say(f"{count(len(found.files), 'label file')} in {out}")
        if found.standing is not None:
            options.say(found.standing.describe())
    if found.failed:
        raise SystemExit(1)


def _print_plan(plan: PredictPlan) -> None:
    task = plan.checkpoint.task
    for note in plan.notes:
        options.say(f"note: {note}", err=True)
    if plan.share is not None:
        options.say(plan.share.describe())
    options.say(
        f"{count(len(plan.images), 'case')} of {count(task.n_channels, 'channel')}; classes "
        f"{task.classes.describe()}; after {count(plan.checkpoint.epoch, 'epoch')} of {plan.checkpoint.config.epochs}"
    )
