"""``rwtool compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rwtool.cli import options
from rwtool.console import json_text


@click.command(short_help="Repeat the tests from saved tables.")
@click.argument(
    "tables",
    nargs=-1,
    required=True,
    metavar="CASES.csv...",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@options.baseline
@options.permutations
@options.seed
@options.subject
@options.alpha
@options.interval
@options.margin
@options.all_pairs
@options.rank
@options.undefined
@click.option(
    "--columns",
    metavar="NAME=COLUMN,...",
    callback=options.parse_columns,
    help="Columns of a table of another tool: case=...,method=...,metric=...,value=..., and class, group, subject or "
    "run. For a metric that no column names: metric=hd95.  [default: those of rwtool evaluate, or of challengeR]",
)
@click.option(
    "--allow-missing",
    is_flag=True,
    help="Go on where the tables are those of shards of rwtool evaluate and some shards are missing.",
)
@options.out
@options.report
@options.printed
def compare(tables: tuple[Path, ...], printed: str, **given: Any) -> None:
    """Compare methods again from the per-case tables of rwtool evaluate, without touching a volume.

    Several tables are taken together, such as one per method, or those of all shards of rwtool evaluate --shard. What
    the numbers mean (the HD95 rule, the tolerance of NSD) is read from the summary.json beside each table. Tables of
    other tools have a value a line; those of challengeR are read as they are.

    \b
    Examples:
      rwtool compare results/cases.csv --baseline ce
      rwtool compare scores.csv --columns case=patient,method=model,metric=score,value=result
      rwtool compare a/cases.csv b/cases.csv --subject '(patient[0-9]+)' -o both
      rwtool compare results/shards/*/cases.csv -o whole
    """  # noqa: D301
    from rwtool.report.results import compare as compare_tables

    results = compare_tables(tables, **given)
    for table in results.provenance["tables"]:
        if table["read_as"] is not None:
            options.say(f"note: {table['path']}: read as {table['read_as']}", err=True)
    for warning in results.warnings:
        options.say(f"warning: {warning}", err=True)
    if len({row.method for row in results.rows}) < 2:
        options.say(f"warning: no test, for {results.rows[0].method} is the only method", err=True)
    if printed == "json":
        click.echo(json_text(results.summary(), ascii_only=True))
    else:
        results.print()
