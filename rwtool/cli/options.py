"""Options that several commands share, defined once."""

from __future__ import annotations

import math
from pathlib import Path

import click

from rwtool.errors import UsageError


def parse_pairs(pairs: tuple[str, ...], what: str) -> dict[int, float]:
    """Parse ``LABEL=NUMBER`` options."""
    found: dict[int, float] = {}
    for pair in pairs:
        label, _, number = pair.partition("=")
        if label.strip().isdigit() and int(label) in found:
            raise UsageError(f"{what} names label {int(label)} twice")
        try:
            found[int(label)] = float(number)
        except ValueError:
            raise UsageError(f"{what} takes LABEL=NUMBER, such as 2=3.5; found {pair!r}") from None
    return found


def parse_undefined(ctx: click.Context, parameter: click.Parameter, value: str) -> str | float:
    """Parse ``diagonal``, ``exclude`` or a number of mm."""
    if value in ("diagonal", "exclude"):
        return value
    try:
        mm = float(value)
    except ValueError:
        mm = math.nan
    if not 0 <= mm < math.inf:
        raise click.BadParameter(f"it is diagonal, exclude or a number of mm, not {value!r}", ctx, parameter)
    return mm


spacing = click.option(
    "--spacing",
    "spacing_mm",
    nargs=3,
    type=float,
    metavar="Z Y X",
    help="Voxel spacing in mm, for files that carry none: .npy, .png, .tif, ...",
)
file_spacing = click.option(
    "--file-spacing",
    "file_spacing_mm",
    nargs=3,
    type=float,
    metavar="Z Y X",
    help="Voxel spacing in mm of files that carry none: .npy, .png, .tif, ...",
)
slice_axis = click.option(
    "--slice-axis",
    type=click.IntRange(0, 2),
    help="File axis (0, 1 or 2) that is the slice axis.  [default: the one left when exactly two share a spacing "
    "within 1 %, else the last]",
)
classes = click.option(
    "--classes",
    metavar="0,1,...",
    help="Label values of all classes, background first.  [default: dataset.json beside or above the labels, else "
    "the values found in all of them]",
)
ignore = click.option("--ignore", type=int, metavar="VALUE", help="Label value of voxels that have no class.")
jobs = click.option(
    "-j",
    "--jobs",
    type=click.IntRange(min=1),
    help="Cases at once.  [default: what cores and free memory allow]",
)
baseline = click.option(
    "--baseline", metavar="NAME", help="Method that the others are tested against.  [default: the first]"
)
permutations = click.option(
    "--permutations",
    type=click.IntRange(min=1),
    default=10_000,
    show_default=True,
    help="Sign flips drawn for a test; up to 16 subjects all of them are enumerated instead.",
)
seed = click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the draws.")
alpha = click.option(
    "--alpha",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.05,
    show_default=True,
    help="Level of the stars and of the intervals.",
)
subject = click.option(
    "--subject",
    metavar="REGEX",
    help="Takes the scans of a subject together: matched from the start of a case's name, its first group (or all of "
    "the match) is the subject.  [default: each case is one]",
)
undefined = click.option(
    "--undefined",
    metavar="diagonal|exclude|MM",
    default="diagonal",
    show_default=True,
    callback=parse_undefined,
    help="Distance of a missed or hallucinated structure: the diagonal of its volume, none (the case is left out and "
    "counted), or this many mm. Results under exclude stand beside the others in any case.",
)
format_ = click.option(
    "--format",
    "format_",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="Print tables for people, or the content of summary.json for scripts.",
)
out = click.option(
    "-o",
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for cases.csv, tests.csv, summary.json, summary.md and summary.tex.",
)
quiet = click.option("-q", "--quiet", is_flag=True, help="Print nothing but failures.")
verbose = click.option("-v", "--verbose", is_flag=True, help="Print a line for every case.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts, instead of a table.")


def verbosity(quiet: bool, verbose: bool) -> int:
    """-1 quiet, 0, 1 verbose."""
    if quiet and verbose:
        raise UsageError("--quiet and --verbose exclude each other")
    return verbose - quiet
