"""Options that several commands share, defined once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from rwtool.errors import UsageError

Command = Callable[..., Any]


def parse_pairs(pairs: tuple[str, ...], what: str) -> dict[int, float]:
    """Parse ``LABEL=NUMBER`` options."""
    found: dict[int, float] = {}
    for pair in pairs:
        label, _, number = pair.partition("=")
        try:
            found[int(label)] = float(number)
        except ValueError:
            raise UsageError(f"{what} takes LABEL=NUMBER, such as 2=3.5; found {pair!r}") from None
    return found


spacing = click.option(
    "--spacing",
    "spacing_mm",
    nargs=3,
    type=float,
    metavar="Z Y X",
    help="Voxel spacing in mm, for files that carry none: .npy, .png, .tif, ...",
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
quiet = click.option("-q", "--quiet", is_flag=True, help="Print nothing but failures.")
verbose = click.option("-v", "--verbose", is_flag=True, help="Print a line for every case, and tracebacks of bugs.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts, instead of a table.")


def verbosity(quiet: bool, verbose: bool) -> int:
    """-1 quiet, 0, 1 verbose."""
    if quiet and verbose:
        raise UsageError("--quiet and --verbose exclude each other")
    return verbose - quiet
