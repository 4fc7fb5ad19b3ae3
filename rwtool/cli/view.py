"""``rwtool view``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rwtool.cli import options
from rwtool.cli.output import print_failures, print_notes
from rwtool.console import count
from rwtool.errors import shorten
from rwtool.maps.parameters import FILED

if TYPE_CHECKING:
    from rwtool.datasets.plan import DataSet
    from rwtool.views.view import View


@click.command(short_help="Draw a case with its maps, or a whole data set.")
@click.argument("labels")
@click.option(
    "-o",
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The picture: .png, .pdf or .svg.  [default: NAME.png here, by the name of the case or the folder]",
)
@click.option("--image", help="The image of the case, or the folder (or quoted glob) that holds it under its name.")
@click.option(
    "--maps",
    "maps",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="A map of the case, the folder of a kind, or the folder above it; repeat it for several.",
)
@click.option(
    "--kind",
    "kinds",
    type=click.Choice(FILED),
    multiple=True,
    help="Kind of map to make for the picture; repeat it for several.  [default: ac, boundary, hd and rrw, or none "
    "beside --maps]",
)
@click.option("--slice", type=click.IntRange(min=0), help="Which slice.  [default: the one with most foreground]")
@click.option("--slices", type=click.IntRange(1, 8), help="Of a data set: slices of each case.  [default: 8]")
@options.classes
@options.ignore
@options.spacing
@options.slice_axis
@options.name
@options.jobs
@click.option("--overwrite", is_flag=True, help="Replace pictures that are there.")
@options.quiet
def view(labels: str, kinds: tuple[Any, ...], quiet: bool, **given: Any) -> None:
    """Draw the label file LABELS with its maps; or, of a folder or a quoted glob, a contact sheet.

    A case is its slice with most foreground: the image with the contours of the classes, and each kind of map beside
    it, a panel a class. A contact sheet has a strip of slices for each case; cases with notes or absent classes are
    outlined.

    \b
    Examples:
      rwtool view labels/heart_00.nii.gz --image images
      rwtool view labels/heart_00.nii.gz --image images --maps maps -o heart.png
      rwtool view labels --image images -o sheet.png
    """  # noqa: D301
    from rwtool.views.view import view as draw

    drawn = draw(
        labels,
        kinds=kinds or None,
        verbosity=-1 if quiet else 0,
        on_plan=None if quiet else _print_plan,
        **given,
    )
    if not quiet:
        _print_summary(drawn)
    print_failures(drawn.outcomes, remedy="each has an empty cell in the picture")
    if drawn.failed:
        raise SystemExit(1)


def _print_plan(dataset: DataSet) -> None:
    classes = dataset.classes
    options.say(f"{count(len(classes), 'class')}: {classes.describe()} (from {classes.source})")
    for note in dataset.notes:
        options.say(f"note: {note}", err=True)


def _print_summary(drawn: View) -> None:
    print_notes({case: flags.notes for case, flags in drawn.flagged.items()})
    lacking: dict[str, list[str]] = {}
    for case, flags in drawn.flagged.items():
        for name in flags.absent:
            lacking.setdefault(name, []).append(case)
    for name, cases in lacking.items():
        options.say(f"{name} is absent in {count(len(cases), 'case')}: {shorten(cases)}")
    if len(drawn.files) > 1:
        options.say(f"{count(len(drawn.files), 'page')}: {drawn.files[0]} to {drawn.files[-1].name}")
    elif drawn.files:
        what = "" if drawn.slice is None else f" (slice {drawn.slice})"
        options.say(f"picture: {drawn.files[0]}{what}")
