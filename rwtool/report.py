"""Rows and their comparison as files and on the terminal."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import numpy as np

from rwtool import __version__
from rwtool.arms import STATUSES
from rwtool.comparison import Comparison
from rwtool.errors import RwtoolError, UsageError
from rwtool.files import atomic
from rwtool.latex import latex_table
from rwtool.layout import Table, definitions, notes, result_tables, statements, test_table
from rwtool.metrics import METRICS
from rwtool.rows import Row, Rules
from rwtool.subjects import find_subjects
from rwtool.tables import escape_markdown, markdown_table, print_lines, print_table

CASE_COLUMNS = (
    "method", "run", "case", "subject", "group", "class", "metric", "value", "unit", "status", "class_name",
    "diagonal_mm", "share",
)  # fmt: skip
_TEXTS = ("method", "run", "case", "subject", "group", "class_name", "metric", "unit")
_NUMBERS = ("value", "diagonal_mm", "share")
TEST_COLUMNS = (
    "baseline", "method", "group", "class", "metric", "n", "p", "p_maxt", "p_holm", "exact", "permutations", "seed",
    "p_min", "mean_difference", "ci_low", "ci_high", "median_difference", "wins", "ties", "losses", "undefined_pairs",
    "undefined", "class_name", "ci_reason", "note",
)  # fmt: skip


def write_report(
    out: Path, rows: Sequence[Row], comparison: Comparison, rules: Rules, provenance: dict[str, Any]
) -> None:
    """Write cases.csv, tests.csv, summary.json, summary.md and summary.tex.

    Parameters
    ----------
    out : Path
        Folder; it is made. Each file appears whole or not at all.
    rows : sequence of Row
    comparison : Comparison
        Of these rows.
    rules : Rules
    provenance : dict
        Where the rows come from: inputs and their hashes, the command.
    """
    content = json.dumps(summary(comparison, rules, provenance), indent=1, allow_nan=False, ensure_ascii=False)
    cases = ({**vars(row), "class": row.label} for row in rows)
    _write_csv(out / "cases.csv", CASE_COLUMNS, cases)
    _write_csv(out / "tests.csv", TEST_COLUMNS, _test_records(comparison))
    _write(out / "summary.json", content + "\n")
    _write(out / "summary.md", _markdown(comparison, rules))
    _write(out / "summary.tex", latex_table(comparison, rules))


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
        "tests": list(_test_records(comparison)),
        "no_results": [dataclasses.asdict(lack) for lack in comparison.no_results],
        "suggested_subject": comparison.suggested_subject,
        "provenance": provenance,
    }
    strict: dict[str, Any] = _strict(content)
    return strict


def read_cases_csv(path: str | Path) -> list[Row]:
    """Read the rows of a cases.csv.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    list of Row

    Raises
    ------
    RwtoolError
        It cannot be read or is no such table; the message names the line.
    """
    return [row for _, row in _read_rows(Path(path))]


def read_tables(paths: Sequence[str | Path], *, subject: str | None = None) -> tuple[list[Row], Rules]:
    """Read several cases.csv as one table.

    Parameters
    ----------
    paths : sequence of str or Path
    subject : str, optional
        Regex that names the subject of a case, in place of the subjects in the tables.

    Returns
    -------
    rows : list of Row
    rules : Rules
        What the values mean, from the summary.json beside each table: `metrics`, `hd95`, `nsd_tolerance_mm`, `ignore`
        and `subject`. The others are the defaults. Without a summary the HD95 rule is unknown, None.

    Raises
    ------
    RwtoolError
        As `read_cases_csv`.
    UsageError
        Two lines give the same value, or two tables were made under different definitions.
    """
    rows: list[Row] = []
    seen: dict[tuple[str, str, str, int, str], str] = {}
    for path in map(Path, paths):
        for line, row in _read_rows(path):
            place = f"{path}, line {line}"
            first = seen.setdefault((row.method, row.run, row.case, row.label, row.metric), place)
            if first is not place:
                run = f" run {row.run}" if row.run else ""
                raise UsageError(
                    f"{first} and {place} both give {row.metric} of class {row.label} in {row.case} for "
                    f"{row.method}{run}; give each method once, or rename one of them"
                )
            rows.append(row)
    rules = _common_rules({Path(path): _read_rules(Path(path)) for path in paths})
    if subject is not None:
        subjects = find_subjects({row.case for row in rows}, subject)
        rows = [dataclasses.replace(row, subject=subjects[row.case]) for row in rows]
        rules = dataclasses.replace(rules, subject=subject)
    return rows, dataclasses.replace(rules, metrics=tuple(dict.fromkeys(row.metric for row in rows)))


def _read_rules(path: Path) -> Rules | None:
    """Read the rules from the summary.json beside a cases.csv; None where there is none."""
    beside = path.parent / "summary.json"
    if not beside.is_file():
        return None
    try:
        found = json.loads(beside.read_text(encoding="utf-8"))["rules"]
        return Rules(
            hd95=found["hd95"],
            nsd_tolerance_mm=tuple((int(label), float(mm)) for label, mm in found["nsd_tolerance_mm"]),
            ignore=found["ignore"],
            subject=found["subject"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RwtoolError(
            f"{beside}: expected the summary that was written with {path.name}; it cannot be read "
            f"({type(error).__name__}: {error}); restore it, or move it away to go without"
        ) from error


def _common_rules(found: dict[Path, Rules | None]) -> Rules:
    """Rules under which all tables were made."""
    known = {path: rules for path, rules in found.items() if rules is not None}
    if not known:
        return Rules(hd95=None)
    first, rules = next(iter(known.items()))
    for path, other in known.items():
        for name in ("hd95", "nsd_tolerance_mm", "ignore"):
            ours, theirs = getattr(rules, name), getattr(other, name)
            if ours != theirs:
                raise UsageError(
                    f"{first} and {path} were made with different definitions and cannot be compared: {name} is "
                    f"{ours} and {theirs}; evaluate both with the same"
                )
    if len(known) < len(found):
        rules = dataclasses.replace(rules, hd95=None)
    if len({other.subject for other in known.values()}) > 1:
        rules = dataclasses.replace(rules, subject=None)
    return rules


def _read_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Yield the line number and the row of each line."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.DictReader(file, strict=True)
            lacking = [name for name in CASE_COLUMNS if name not in (lines.fieldnames or ())]
            if lacking:
                raise RwtoolError(
                    f"{path}, line 1: the columns {', '.join(lacking)} are missing; expected a cases.csv of rwtool "
                    f"evaluate, with {', '.join(CASE_COLUMNS)}"
                )
            for record in lines:
                try:
                    yield lines.line_num, _row(record)
                except ValueError as error:
                    raise RwtoolError(f"{path}, line {lines.line_num}: {error}") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise RwtoolError(f"{path}: cannot be read as a table: {reason}") from error


def _row(record: dict[str, Any]) -> Row:
    """Make a row; what a field should have been is said in the ValueError."""
    extra = record.pop(None, [])  # type: ignore[call-overload]  # where csv puts fields without a column
    found = sum(value is not None for value in record.values()) + len(extra)
    if found != len(record):
        raise ValueError(f"expected {len(record)} fields, found {found}")
    try:
        label = int(record["class"])
    except ValueError:
        raise ValueError(f"class is a label of the files, a whole number; found {record['class']!r}") from None
    for name, known in (("metric", tuple(METRICS)), ("status", STATUSES)):
        if record[name] not in known:
            raise ValueError(f"{name} is one of {', '.join(known)}; found {record[name]!r}")
    for name in ("method", "case", "subject"):
        if not record[name]:
            raise ValueError(f"{name} is empty")
    fields: dict[str, Any] = {name: record[name] for name in _TEXTS}
    fields |= {name: _number(name, record[name]) for name in _NUMBERS}
    return Row(**fields, label=label, status=record["status"])


def _number(name: str, text: str) -> float:
    try:
        number = float(text or "nan")
    except ValueError:
        number = math.inf
    if math.isinf(number) or (text and math.isnan(number)):
        raise ValueError(f"{name} is a number, or empty where undefined; found {text!r}")
    return number


def _tables(comparison: Comparison, rules: Rules, group: str) -> Iterator[Table]:
    yield from result_tables(comparison, rules, group)
    tests = test_table(comparison, rules, group)
    if tests is not None:
        yield tests


def _markdown(comparison: Comparison, rules: Rules) -> str:
    parts = []
    for group in comparison.groups:
        for table in _tables(comparison, rules, group):
            text = markdown_table(table.columns, table.rows, text_columns=table.text_columns)
            parts.append(f"**{escape_markdown(table.title)}**\n\n{text}")
    parts.append("".join(f"- {escape_markdown(line)}\n" for line in statements(comparison, rules)))
    return "\n".join(parts)


def _test_records(comparison: Comparison) -> Iterator[dict[str, Any]]:
    """Yield each test with the names of TEST_COLUMNS."""
    names = {(c.group, c.label): c.name for c in comparison.classes}
    for test in comparison.tests:
        record = {**_record(test), **dataclasses.asdict(test.result)}
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


def _write_csv(path: Path, columns: Sequence[str], records: Iterable[Mapping[str, Any]]) -> None:
    with atomic(path) as temporary, _open(temporary) as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(columns)
        lines.writerows([_field(record[name]) for name in columns] for record in records)


def _field(value: Any) -> str:
    """One field: empty where undefined, a float with all its digits."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return repr(float(value)) if isinstance(value, float) else str(value)


def _write(path: Path, text: str) -> None:
    with atomic(path) as temporary, _open(temporary) as file:
        file.write(text)


def _open(path: Path) -> IO[str]:
    """Open for writing; file names that are no UTF-8 must not stop a report."""
    return path.open("w", encoding="utf-8", errors="backslashreplace", newline="")
