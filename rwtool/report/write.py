"""Rows and their comparison as files and on the terminal."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from rwtool import __version__
from rwtool.console import json_text, print_lines, print_table
from rwtool.errors import RwtoolError, UsageError
from rwtool.evaluation.evaluate import Evaluation
from rwtool.evaluation.rows import Label, Row, Rules
from rwtool.files import atomic, file_crc32, locked, make_folder, naming, remove_leftovers
from rwtool.metrics.measures import METRICS
from rwtool.records import read_json, sealed
from rwtool.report.csv import (
    AGREEMENT_COLUMNS,
    CASE_COLUMNS,
    MEAN_COLUMNS,
    RANK_COLUMNS,
    REFERENCE_COLUMN,
    SUMMARY_FORMAT,
    TEST_COLUMNS,
    open_text,
    write_csv,
)
from rwtool.report.decisions import decision_tables
from rwtool.report.html import report_page
from rwtool.report.latex import latex_table
from rwtool.report.markdown import escape_markdown, markdown_table
from rwtool.report.text import Table, definitions, notes, result_tables, statements, test_table
from rwtool.statistics.comparison import Comparison
from rwtool.statistics.pairs import ComparisonTest

_LINE = 1 << 12  # characters of a first line
_FILES = (
    "cases.csv", "means.csv", "tests.csv", "pairs.csv", "rankings.csv", "summary.json", "summary.md", "summary.tex",
    "report.html",
)  # fmt: skip


def refuse_strangers(out: Path) -> None:
    """Refuse a folder with files of these names that no report was.

    Raises
    ------
    UsageError
        There are such, and neither ``cases.csv`` nor ``summary.json`` is that of a report.
    """
    there = [name for name in _FILES if os.path.lexists(out / name)]
    if there and not _is_report(out):
        raise UsageError(
            f"{out} holds {', '.join(there)}, and neither cases.csv nor summary.json is that of rwtool evaluate; move "
            "them away, or name another out="
        )


def _is_report(out: Path) -> bool:
    for name, columns in (("cases.csv", CASE_COLUMNS[:8]), ("means.csv", MEAN_COLUMNS), ("tests.csv", TEST_COLUMNS)):
        with contextlib.suppress(OSError, ValueError):
            table = out / name
            if table.is_file():
                with table.open(encoding="utf-8-sig") as lines:
                    if set(columns) <= set(lines.readline(_LINE).strip().split(",")):
                        return True
    with contextlib.suppress(RwtoolError):
        content = read_json(out / "summary.json", refusal="", mend="")
        return isinstance(content, dict) and {"rwtool", "rules"} <= set(content)
    return False


def write_report(
    out: Path,
    rows: Sequence[Row],
    comparison: Comparison,
    rules: Rules,
    provenance: dict[str, Any],
    *,
    evaluation: Evaluation | None = None,
    page: bool = True,
) -> None:
    """Write cases.csv, means.csv, tests.csv, summary.json, summary.md, summary.tex and report.html, all of one report.

    Where there are such, pairs.csv, rankings.csv and agreement.csv too; else those of an earlier report go.

    Parameters
    ----------
    out : Path
        Folder; it is made. Each file appears whole or not at all, and two processes write one after the other.
    rows : sequence of Row
    comparison : Comparison
        Of these rows.
    rules : Rules
    provenance : dict
        Where the rows come from: inputs and their hashes, the command.
    evaluation : Evaluation, optional
        What the rows were measured in: its files give the pictures of report.html.
    page : bool
        Write report.html; else one of an earlier report goes.
    """
    facts = summary(comparison, rules, provenance)
    html = report_page(rows, comparison, rules, facts, evaluation) if page else None
    names = {(c.group, c.label): c.name for c in comparison.classes}
    shares = tuple(f"share_of_rank_{r + 1}" for r in range(len(comparison.methods)))
    make_folder(out)
    with locked(out / "report", named=out):
        remove_leftovers(out)
        _write_cases(out / "cases.csv", rows)
        write_csv(out / "means.csv", MEAN_COLUMNS, _mean_records(comparison, rules))
        write_csv(out / "tests.csv", TEST_COLUMNS, _test_records(comparison, comparison.tests))
        _write_if_any(out / "pairs.csv", TEST_COLUMNS, list(_test_records(comparison, comparison.pairs)))
        _write_if_any(out / "rankings.csv", RANK_COLUMNS + shares, list(_rank_records(comparison, shares)))
        agreement = [_record(found) | {"class_name": names[found.group, found.label]} for found in comparison.agreement]
        _write_if_any(out / "agreement.csv", AGREEMENT_COLUMNS, agreement)
        with naming(out / "cases.csv", OSError):
            tables = {"cases.csv": file_crc32(out / "cases.csv")}
        _write(out / "summary.json", json_text(sealed({**facts, "tables": tables})) + "\n")
        _write(out / "summary.md", _markdown(comparison, rules))
        _write(out / "summary.tex", latex_table(comparison, rules))
        if html is None:
            (out / "report.html").unlink(missing_ok=True)
        else:
            _write(out / "report.html", html)


def write_share(out: Path, rows: Sequence[Row], rules: Rules, provenance: dict[str, Any]) -> None:
    """Write the cases.csv of a shard, and a summary.json that says what its numbers mean, and no result.

    Parameters are those of :func:`write_report`.
    """
    facts = {
        "format": SUMMARY_FORMAT,
        "rwtool": __version__,
        "rules": dataclasses.asdict(rules),
        "provenance": provenance,
    }
    make_folder(out)
    with locked(out / "report", named=out):
        _write_cases(out / "cases.csv", rows)
        _write(out / "summary.json", json_text(_strict(facts)) + "\n")


def print_report(comparison: Comparison, rules: Rules) -> None:
    """Print the tables of each group, the definitions in force and what else a reader must know."""
    for group in comparison.groups:
        for table in _tables(comparison, rules, group):
            print_table(table.title, table.columns, table.rows, text_columns=table.text_columns)
    print_lines(statements(comparison, rules))


def summary(comparison: Comparison, rules: Rules, provenance: dict[str, Any]) -> dict[str, Any]:
    """Content of summary.json: only what strict JSON can hold, with None for what is undefined."""
    names = {(c.group, c.label): c.name for c in comparison.classes}
    packages = {name: metadata.version(name) for name in ("numpy", "scipy")}
    content = {
        "format": SUMMARY_FORMAT,
        "rwtool": __version__,
        "versions": {"python": platform.python_version(), **packages},
        "rules": dataclasses.asdict(rules),
        "definitions": definitions(comparison, rules),
        "notes": notes(comparison),
        "baseline": comparison.baseline,
        "methods": {method: {"runs": comparison.runs[method]} for method in comparison.methods},
        "groups": comparison.groups,
        "metrics": {
            metric: {"unit": METRICS[metric].unit, "better": METRICS[metric].better} for metric in comparison.metrics
        },
        "classes": [_record(c) for c in comparison.classes],
        "means": [{**_record(c), "class_name": names[c.group, c.label]} for c in comparison.cells],
        "counts": [_record(c) for c in comparison.counts],
        "tests": list(_test_records(comparison, comparison.tests)),
        "pairs": list(_test_records(comparison, comparison.pairs)),
        "agreement": [_record(found) for found in comparison.agreement],
        "rankings": [_record(ranking) for ranking in comparison.rankings],
        "no_results": [dataclasses.asdict(lack) for lack in comparison.no_results],
        "suggested_subject": comparison.suggested_subject,
        "provenance": provenance,
    }
    strict: dict[str, Any] = _strict(content)
    return strict


def _tables(comparison: Comparison, rules: Rules, group: str) -> Iterator[Table]:
    yield from result_tables(comparison, rules, group)
    tests = test_table(comparison, rules, group)
    if tests is not None:
        yield tests
    yield from decision_tables(comparison, rules, group)


def _markdown(comparison: Comparison, rules: Rules) -> str:
    parts = []
    for group in comparison.groups:
        for table in _tables(comparison, rules, group):
            text = markdown_table(table.columns, table.rows, text_columns=table.text_columns)
            parts.append(f"**{escape_markdown(table.title)}**\n\n{text}")
    parts.append("".join(f"- {escape_markdown(line)}\n" for line in statements(comparison, rules)))
    return "\n".join(parts)


def _mean_records(comparison: Comparison, rules: Rules) -> Iterator[dict[str, Any]]:
    """Yield each mean with the names of MEAN_COLUMNS, and that of distances without a rule where it differs."""
    names = {(c.group, c.label): c.name for c in comparison.classes}
    for cell in comparison.cells:
        for rule, spread in ((rules.undefined, cell.spread), ("exclude", cell.exclude)):
            if spread is not None:
                record = {**_record(cell), **dataclasses.asdict(spread), "undefined": rule}
                record["left_out"] = cell.spread.n + cell.undefined - spread.n
                record |= {"class_name": names[cell.group, cell.label], "unit": METRICS[cell.metric].unit}
                yield {name: record[name] for name in MEAN_COLUMNS}


def _rank_records(comparison: Comparison, shares: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the place of each method in each ranking; class and metric are empty over all of them."""
    names: dict[tuple[str, Label | None], str] = {(c.group, c.label): c.name for c in comparison.classes}
    for ranking in comparison.rankings:
        for found in ranking.ranks:
            record = {**_record(ranking), **dataclasses.asdict(found)}
            record |= {"rank_low": found.low, "rank_high": found.high}
            record["class_name"] = names.get((ranking.group, ranking.label), "")
            record |= dict(zip(shares, found.shares, strict=True))
            yield {name: record[name] for name in (*RANK_COLUMNS, *shares)}


def _test_records(comparison: Comparison, tests: Sequence[ComparisonTest]) -> Iterator[dict[str, Any]]:
    """Yield each test with the names of TEST_COLUMNS."""
    names = {(c.group, c.label): c.name for c in comparison.classes}
    for test in tests:
        record = {**_record(test), **dataclasses.asdict(test.result), **dataclasses.asdict(test.effect)}
        record["class_name"] = names[test.group, test.label]
        yield {name: record[name] for name in TEST_COLUMNS}


def _record(item: Any) -> dict[str, Any]:
    """Fields of a dataclass, with the label under the name that it has in the files."""
    record = dataclasses.asdict(item)
    record["class"] = record.pop("label")
    return record


def _strict(value: Any) -> Any:
    """Turn a value into what strict JSON holds."""
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_strict(item) for item in value]
    if isinstance(value, np.generic):
        return _strict(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _write_cases(path: Path, rows: Sequence[Row]) -> None:
    columns = CASE_COLUMNS + (REFERENCE_COLUMN,) * any(row.reference_ml >= 0 for row in rows)
    write_csv(path, columns, ({**vars(row), "class": row.label} for row in rows))


def _write_if_any(path: Path, columns: Sequence[str], records: Sequence[Mapping[str, Any]]) -> None:
    """Write a table that has rows; one of an earlier report would contradict this one."""
    if records:
        write_csv(path, columns, records)
    else:
        path.unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    with atomic(path) as temporary, open_text(temporary) as file:
        file.write(text)
