"""Options that several commands share, defined once; and what the library says of a parameter, said of its option."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import click

from rwtool.console import say as say_plainly
from rwtool.errors import UsageError

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

_PARAMETER = re.compile(
    r"(?<![\w.-])(?P<name>[a-z][a-z0-9_]*)="
    r"(?P<value>\([^()]*\)|\{[^{}]*\}|\"[^\"]*\"|'[^']*'|[\w.+-]*\w)?(?!=)"
)
_SEEDS = re.compile(r"(?P<first>[0-9]{1,18})(:(?P<end>[0-9]{1,18}))?")
_MOST_SEEDS = 100_000
_SIZE = re.compile(r"(?P<number>[0-9]{1,18}(\.[0-9]{1,9})?) ?((?P<prefix>[kmgt])(?P<binary>i)?)?b?", re.IGNORECASE)
_EPOCH = re.compile(r"[1-9][0-9]{0,9}")


def of_record(record: type[Any], name: str, help: str, *, option: str | None = None, **more: Any) -> Decorator:  # noqa: A002
    """An option for the field of a record, whose default stands there alone: None where it is not given.

    Parameters
    ----------
    record : type
        A dataclass.
    name : str
        Of its field.
    help : str
        The default is added to it.
    option : str, optional
        By default ``--`` and the name.
    **more
        As for ``click.option``; choices come from the type of the field.
    """
    default = next(field.default for field in fields(record) if field.name == name)
    kind = get_type_hints(record)[name]
    choices = [str(choice) for choice in get_args(kind) if isinstance(choice, (str, int))]
    flag = option or "--" + name.replace("_", "-")
    if kind is bool:
        flag = f"{flag}/--no-{flag[2:]}"
        default = "on" if default else "off"
    elif choices and "type" not in more:
        more["type"] = click.Choice(choices)
    if default is not None and "[default" not in help:
        help = f"{help}  [default: {default}]"  # noqa: A001
    return click.option(flag, name, default=None, help=help, **more)


def for_shell(text: str, command: click.Command) -> str:
    """Say what the library says of its parameters, ``overwrite=True``, of the options of a command: ``--overwrite``.

    >>> resample = click.Option(["--resample"], is_flag=True)
    >>> for_shell("give resample=True", click.Command("evaluate", params=[resample]))
    'give --resample'
    """
    known = {parameter.name: parameter for parameter in command.params if parameter.name}

    def said(match: re.Match[str]) -> str:
        parameter = known.get(match["name"])
        if parameter is None:
            return match[0]
        value = (match["value"] or "").strip("\"'")
        if isinstance(parameter, click.Argument):
            return parameter.make_metavar(click.Context(command)).strip("[].") if not value else match[0]
        option = max(parameter.opts, key=len)
        if value == "True" and getattr(parameter, "is_flag", False):
            return option
        if value == "False" and parameter.secondary_opts:
            return parameter.secondary_opts[0]
        if not value:
            return option
        if value.startswith("("):
            parts = [part.strip() for part in value.strip("()").split(",") if part.strip()]
            value = (" " if parameter.nargs > 1 else ",").join(parts)
            if parameter.metavar and not any(letter.isdigit() for letter in value):
                value = parameter.metavar
        elif re.match(r"\{[^{}:]+:", value):
            value = re.sub(r"[{}()\"' ]", "", value).replace(":", "=")
        return f"{option} {value}"

    return _PARAMETER.sub(said, text)


def say(text: str, *, err: bool = False) -> None:
    """Print a line of the library's in the words of the command that runs."""
    say_plainly(for_shell(text, click.get_current_context().command), err=err)


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


def parse_values(ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Parse a list of label values such as ``0,1,2,4``."""
    if value is None:
        return None
    try:
        return tuple(int(part) for part in value.replace(" ", "").split(",") if part)
    except ValueError:
        raise click.BadParameter(f"it is numbers with commas, such as 0,1,2; found {value!r}", ctx, parameter) from None


def parse_matrix(
    ctx: click.Context, parameter: click.Parameter, path: Path | None
) -> tuple[tuple[float, ...], ...] | None:
    """Read the rows of numbers of a text file, parted by commas or blanks."""
    if path is None:
        return None
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return tuple(tuple(map(float, line.replace(",", " ").split())) for line in lines if line.strip())
    except (OSError, ValueError) as error:
        raise click.BadParameter(
            f"{path} is to hold a row of numbers for each class, with commas; {error}", ctx, parameter
        ) from None


def parse_checkpoint(ctx: click.Context, parameter: click.Parameter, value: str) -> str | int:
    """Parse ``last``, ``best`` or the number of an epoch."""
    if value in ("last", "best"):
        return value
    if not _EPOCH.fullmatch(value):
        raise click.BadParameter(f"it is last, best or the number of an epoch; found {value!r}", ctx, parameter)
    return int(value)


def parse_seeds(ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, ...]:
    """Parse seeds such as ``3``, ``0,2,5``, ``0:50`` (0 to 49) and mixtures of these."""
    found: list[int] = []
    for part in [] if value is None else value.split(","):
        match = _SEEDS.fullmatch(part.strip())
        first = int(match["first"]) if match else 0
        end = first + 1 if match is None or match["end"] is None else int(match["end"])
        if match is None or not first < end <= first + _MOST_SEEDS:
            raise click.BadParameter(
                f"it is different numbers with commas, such as 0,1,2, and 0:50 for 0 to 49; found {value!r}",
                ctx,
                parameter,
            )
        found += range(first, end)
    if len(set(found)) < len(found):
        twice = next(seed for seed in found if found.count(seed) > 1)
        raise click.BadParameter(f"each seed stands once; found {twice} twice in {value!r}", ctx, parameter)
    return tuple(found)


def parse_size(ctx: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """Parse a number of bytes such as ``2GB``, ``1.5 GiB`` or ``500000``."""
    if value is None:
        return None
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise click.BadParameter(f"it is a size such as 2GB, 500MB or 1.5GiB; found {value!r}", ctx, parameter)
    power = "kmgt".index(match["prefix"].lower()) + 1 if match["prefix"] else 0
    return int(float(match["number"]) * (1024 if match["binary"] else 1000) ** power)


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


def parse_margins(ctx: click.Context, parameter: click.Parameter, pairs: tuple[str, ...]) -> dict[str, float]:
    """Parse ``METRIC=VALUE`` options."""
    found: dict[str, float] = {}
    for pair in pairs:
        metric, _, number = pair.partition("=")
        try:
            value = float(number)
        except ValueError:
            raise click.BadParameter(f"it is METRIC=VALUE, such as dice=0.01; found {pair!r}", ctx, parameter) from None
        if metric.strip() in found:
            raise click.BadParameter(f"it names {metric.strip()} twice", ctx, parameter)
        found[metric.strip()] = value
    return found


def parse_columns(ctx: click.Context, parameter: click.Parameter, text: str | None) -> dict[str, str]:
    """Parse ``NAME=COLUMN,...``."""
    found: dict[str, str] = {}
    for pair in [] if text is None else text.split(","):
        name, _, column = (part.strip() for part in pair.partition("="))
        if not name or not column or name in found:
            raise click.BadParameter(
                f"it is NAME=COLUMN with commas, each once, such as case=patient,method=model; found {text!r}",
                ctx,
                parameter,
            )
        found[name] = column
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
name = click.option(
    "--name",
    metavar="PATTERN",
    help="Which part of a path is the name of the case, such as '{case}_gt' or '{case}/segmentation.nii.gz'.  "
    "[default: the file's name; published layouts are known]",
)
classes = click.option(
    "--classes",
    metavar="0,1,...",
    callback=parse_values,
    help="Label values of all classes, background first.  [default: dataset.json beside or above the labels, else "
    "the values found in all of them]",
)
ignore = click.option("--ignore", type=int, metavar="VALUE", help="Label value of voxels that have no class.")
shard = click.option(
    "--shard",
    metavar="I/N|slurm",
    help="Do the I-th of N shares of the cases, such as 2/8, beside others that do theirs; slurm: that of this task of "
    "a job array (rwtool help cluster).",
)
checkpoint = click.option(
    "--checkpoint",
    metavar="last|best|EPOCH",
    default="last",
    show_default=True,
    callback=parse_checkpoint,
    help="Which network of RUN: the last; best, that of the largest mean validation Dice; or that of an epoch, kept by "
    "rwtool train --checkpoint-every.",
)
jobs = click.option(
    "-j",
    "--jobs",
    type=click.IntRange(min=1),
    help="Cases at once.  [default: what cores and free memory allow]",
)


def engine(command: Callable[..., Any]) -> Callable[..., Any]:
    """Where cases are done: ``--engine`` and ``--scheduler``."""
    for option in (
        click.option(
            "--scheduler",
            metavar="tls://HOST:PORT",
            help="The engine's scheduler, or its scheduler file.  [default: as Dask is configured]",
        ),
        click.option(
            "--engine",
            type=click.Choice(["dask"]),
            help="Do the cases on the workers of a Dask scheduler; --jobs is then how many at once at most (see "
            "rwtool help cluster).  [default: this machine]",
        ),
    ):
        command = option(command)
    return command


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
interval = click.option(
    "--interval",
    type=click.Choice(["t", "bca"]),
    default="t",
    show_default=True,
    help="Interval of each mean: Student's t over subjects, or 10,000 BCa bootstrap draws of them.",
)
margin = click.option(
    "--margin",
    metavar="METRIC=VALUE",
    multiple=True,
    callback=parse_margins,
    help="Size of a mean difference that does not matter, such as dice=0.01: is each method equivalent to the "
    "baseline, or not worse? Repeat it for several metrics.",
)
all_pairs = click.option(
    "--all-pairs", is_flag=True, help="Test every method against every other, adjusted over all of them."
)
rank = click.option(
    "--rank", is_flag=True, help="Rank the methods by three rules, and see how firm the ranks are by a bootstrap."
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
printed = click.option(
    "--format",
    "printed",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="Print tables for people, or JSON for scripts.",
)
out = click.option(
    "-o",
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for report.html, cases.csv, means.csv, tests.csv, summary.json, summary.md and summary.tex; "
    "pairs.csv, rankings.csv and agreement.csv where there are such.",
)
report = click.option(
    "--report/--no-report", default=True, show_default=True, help="Write report.html, with charts of everything."
)
quiet = click.option("-q", "--quiet", is_flag=True, help="Print nothing but failures.")
verbose = click.option("-v", "--verbose", is_flag=True, help="Print a line for every case.")


def verbosity(quiet: bool, verbose: bool) -> int:
    """-1 quiet, 0, 1 verbose."""
    if quiet and verbose:
        raise UsageError("--quiet and --verbose exclude each other")
    return verbose - quiet
