"""``rwtool compare``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from rwtool.cli import options
from rwtool.errors import UsageError


@click.command()
@click.argument(
    "cases",
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
@options.undefined
@options.out
@options.format_
def compare(
    cases: tuple[Path, ...],
    baseline: str | None,
    permutations: int,
    seed: int,
    subject: str | None,
    alpha: float,
    undefined: Any,
    out: Path | None,
    format_: str,
) -> None:
    """Compare methods again from the per-case tables of rwtool evaluate, without touching a volume.

    Several tables are taken together, such as one per method. What the numbers mean (the HD95 rule, the tolerance of
    NSD) is read from the summary.json beside each table.

    \b
    Examples:
      rwtool compare results/cases.csv --baseline ce
      rwtool compare a/cases.csv b/cases.csv --subject '(patient[0-9]+)' -o both
    """  # noqa: D301
    from rwtool.io.names import file_hash
    from rwtool.report.csv import read_tables
    from rwtool.report.write import print_report, summary, write_report
    from rwtool.statistics.comparison import compare as compare_rows

    if out is not None and any((out / "cases.csv").resolve() == path.resolve() for path in cases):
        raise UsageError(f"--out {out} would replace a table that is read; choose another folder")
    rows, rules = read_tables(cases, subject=subject)
    rules = replace(rules, undefined=undefined, permutations=permutations, seed=seed, alpha=alpha)
    if len({row.method for row in rows}) < 2:
        click.echo(f"warning: no test, for {rows[0].method} is the only method", err=True)
    comparison = compare_rows(rows, rules, baseline=baseline)
    provenance = {"command": "compare", "tables": [{"path": str(p), "sha256": file_hash(p)} for p in cases]}
    if format_ == "json":
        click.echo(json.dumps(summary(comparison, rules, provenance), indent=1, allow_nan=False))
    else:
        print_report(comparison, rules)
    if out is not None:
        write_report(out, rows, comparison, rules, provenance)
