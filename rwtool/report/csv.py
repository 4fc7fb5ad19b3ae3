r"""Tables of cases and of tests as CSV, written and read.

A spreadsheet takes a cell that begins with ``=``, ``+``, ``-`` or ``@`` for a formula, and a control character does
what it does wherever a cell is shown. A text that holds such, or begins with an apostrophe, is written after an
apostrophe, with its backslashes doubled and what cannot be printed as ``\x1b``; reading undoes it exactly. Numbers are
never touched.
"""

from __future__ import annotations

import csv
import dataclasses
import math
import re
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from rwtool.console import count, printable
from rwtool.datasets.subjects import find_subjects
from rwtool.errors import RwtoolError, UsageError
from rwtool.evaluation.rows import Label, Row, Rules
from rwtool.files import atomic, file_crc32
from rwtool.metrics.measures import METRICS, HD95Rule
from rwtool.records import check_format, read_json, to_record
from rwtool.report.foreign import LARGEST, Reading, read_foreign
from rwtool.shards import ShardRecord, find_standing, ranges, read_record
from rwtool.statistics.arms import STATUSES

CASE_COLUMNS = (
    "method", "run", "case", "subject", "group", "class", "metric", "value", "unit", "status", "class_name",
    "diagonal_mm", "share",
)  # fmt: skip


REFERENCE_COLUMN = "reference_ml"
"""In a cases.csv with volumes, after the others."""


_TEXTS = ("method", "run", "case", "subject", "group", "class_name", "metric", "unit")


_NUMBERS = ("value", "diagonal_mm", "share")


MEAN_COLUMNS = (
    "method", "group", "class", "metric", "undefined", "n", "mean", "sd", "median", "subjects", "ci_low", "ci_high",
    "left_out", "class_name", "unit",
)  # fmt: skip


TEST_COLUMNS = (
    "baseline", "method", "group", "class", "metric", "n", "p", "p_maxt", "p_holm", "exact", "permutations", "seed",
    "p_min", "mean_difference", "ci_low", "ci_high", "median_difference", "skewness", "wins", "ties", "losses",
    "undefined_pairs", "undefined", "class_name", "ci_reason", "note", "d_z", "win_share", "subjects_for_power",
    "chance_not_better", "margin", "margin_low", "margin_high", "equivalence",
)  # fmt: skip


RANK_COLUMNS = (
    "group", "class", "metric", "rule", "method", "score", "rank", "rank_low", "rank_high", "subjects", "tau_mean",
    "tau_low", "tau_high", "class_name",
)  # fmt: skip


AGREEMENT_COLUMNS = (
    "method", "group", "class", "n", "bias_ml", "sd_ml", "low_ml", "high_ml", "icc", "class_name",
)  # fmt: skip


SUMMARY_FORMAT = 1
"""Of summary.json."""

_MEND = "restore it, or move it away to go without"


class _SummaryRules(msgspec.Struct, frozen=True):
    hd95: HD95Rule | None
    nsd_tolerance_mm: tuple[tuple[int | str, Annotated[float, Meta(ge=0)]], ...]
    ignore: int | None
    subject: str | None


class _Summary(msgspec.Struct, frozen=True):
    rules: _SummaryRules
    tables: dict[str, str] = {}  # a field, which msgspec copies; CRC-32 by name


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
    return [row for _, row in _read_table(Path(path))[0]]


class Joined(NamedTuple):
    """Shards of one evaluation whose tables were joined.

    Attributes
    ----------
    of : int
    missing : tuple of int
    cases : int
        Of all shards.
    failed : dict of str to str
        Predictions that could not be measured, with their reasons.
    """

    of: int
    missing: tuple[int, ...]
    cases: int
    failed: dict[str, str]


class Tables(NamedTuple):
    """What several tables hold.

    Attributes
    ----------
    rows : list of Row
    rules : Rules
        What the values mean, from the summary.json beside each table: `metrics`, `hd95`, `nsd_tolerance_mm`, `ignore`
        and `subject`. The others are the defaults. Without a summary the HD95 rule is unknown, None.
    readings : dict of str to str
        How tables of other tools were read, by path.
    joined : tuple of Joined
        Where tables were those of shards.
    """

    rows: list[Row]
    rules: Rules
    readings: dict[str, str]
    joined: tuple[Joined, ...] = ()


def read_tables(
    paths: Sequence[str | Path],
    *,
    subject: str | None = None,
    columns: Mapping[str, str] | None = None,
    allow_missing: bool = False,
) -> Tables:
    """Read several cases.csv, or tables of other tools, as one table.

    Parameters
    ----------
    paths : sequence of str or Path
    subject : str, optional
        Regex that names the subject of a case, in place of the subjects in the tables.
    columns : dict of str to str, optional
        Which column of another tool's table is case, method, metric, value, class, group, subject or run.
    allow_missing : bool
        Go on where tables are those of shards of an evaluation, and some shards are missing.

    Returns
    -------
    Tables
        The rows of shards stand as they would had there been none.

    Raises
    ------
    RwtoolError
        As `read_cases_csv`.
    UsageError
        Two lines give the same value, two tables were made under different definitions, a column is not there, or
        shards are missing.
    """
    shards = {path: record for path in map(Path, paths) if (record := read_record(path.parent)) is not None}
    joined = _join(shards, allow_missing)
    groups: dict[str, list[Row]] = {}  # tables; those of the shards of one evaluation are one
    seen: dict[tuple[str, str, str, Label, str], str] = {}
    readings: dict[str, str] = {}
    for path in map(Path, paths):
        rows = groups.setdefault(shards[path].task if path in shards else str(path), [])
        lines, reading = _read_table(path, columns or {})
        if reading is not None:
            readings[str(path)] = reading.describe()
        for line, row in lines:
            place = f"{path}, line {line}"
            first = seen.setdefault((row.method, row.run, row.case, row.label, row.metric), place)
            if first is not place:
                run = f" run {row.run}" if row.run else ""
                raise UsageError(
                    f"{first} and {place} both give {row.metric} of class {row.label} in {row.case} for "
                    f"{row.method}{run}; give each method once, or rename one of them"
                )
            rows.append(row)
    for record in shards.values():
        groups[record.task] = _in_order(groups[record.task], record)
    rows = [row for table in groups.values() for row in table]
    rules = _common_rules({Path(path): _read_rules(Path(path)) for path in paths})
    if subject is not None:
        subjects = find_subjects({row.case for row in rows}, subject)
        rows = [dataclasses.replace(row, subject=subjects[row.case]) for row in rows]
        rules = dataclasses.replace(rules, subject=subject)
    metrics = tuple(dict.fromkeys(row.metric for row in rows))
    return Tables(rows, dataclasses.replace(rules, metrics=metrics), readings, joined)


def _join(shards: Mapping[Path, ShardRecord], allow_missing: bool) -> tuple[Joined, ...]:
    """What the tables of shards make together; refused where that is not all of it."""
    found = []
    for task in dict.fromkeys(record.task for record in shards.values()):
        alike = {path: record for path, record in shards.items() if record.task == task}
        path, first = next(iter(alike.items()))
        for other, record in alike.items():
            if record.division != first.division:
                told = [
                    f"{p} shard {r.shard} of {r.of} of {count(r.cases, 'case')}"
                    for p, r in ((path, first), (other, record))
                ]
                raise UsageError(
                    f"{told[0]}, and {told[1]}: these divide different lists of cases, or in another way, so that a "
                    "case may stand in none of them; run all shards again, or name the tables of one division, such as "
                    f"*-of-{record.of}/cases.csv"
                )
        standing = find_standing(alike.values(), first.division)
        if standing.missing and not allow_missing:
            raise UsageError(
                f"{path.parent.parent}: these are not all of {count(first.cases, 'case')}, but the tables of shards "
                f"{ranges(standing.ended)} of {first.of}; missing: {ranges(standing.missing)}; run them and name their "
                "tables too, or give allow_missing=True to go on without"
            )
        failed = {case: reason for record in alike.values() for case, reason in record.failed.items()}
        found.append(Joined(first.of, standing.missing, first.cases, failed))
    return tuple(found)


def _in_order(rows: Sequence[Row], shard: ShardRecord) -> list[Row]:
    """Rows of shards by run and case, as an evaluation of all cases has them."""
    places = {run: place for place, run in enumerate(shard.runs)}
    return sorted(rows, key=lambda row: (places.get((row.method, row.run), len(places)), row.case))


def _read_rules(path: Path) -> Rules | None:
    """Read the rules from the summary.json beside a cases.csv; None where there is none.

    Raises
    ------
    RwtoolError
        It cannot be read, or the table is not the one that was written with it.
    """
    beside = path.parent / "summary.json"
    if not beside.is_file():
        return None
    refusal = f"expected the summary that was written with {path.name}"
    content = read_json(beside, refusal=refusal, mend=_MEND)
    check_format(beside, content, SUMMARY_FORMAT, refusal=refusal, mend=_MEND)
    summary = to_record(content, _Summary, beside, refusal=refusal, mend=_MEND)
    if summary.tables.get(path.name, found := file_crc32(path)) != found:
        raise RwtoolError(
            f"{path}: it is not the table that was written with {beside} (its CRC-32 differs); evaluate again, or move "
            f"{beside.name} away to read it all the same"
        )
    rules = summary.rules
    return Rules(hd95=rules.hd95, nsd_tolerance_mm=rules.nsd_tolerance_mm, ignore=rules.ignore, subject=rules.subject)


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


def _read_table(path: Path, columns: Mapping[str, str] | None = None) -> tuple[list[tuple[int, Row]], Reading | None]:
    """Read the line number and the row of each line; a table of another tool is read as the second item says."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.DictReader(file, strict=True)
            lacking = [name for name in CASE_COLUMNS if name not in (lines.fieldnames or ())]
            if lacking and columns is not None:
                foreign = read_foreign(
                    path, lines.fieldnames or (), ((lines.line_num, line) for line in lines), columns
                )
                if foreign is not None:
                    return foreign
            if lacking:
                raise RwtoolError(
                    f"{path}, line 1: the columns {', '.join(lacking)} are missing; expected a cases.csv of rwtool "
                    f"evaluate, with {', '.join(CASE_COLUMNS)}; give that, or evaluate again"
                )
            rows = []
            for record in lines:
                try:
                    rows.append((lines.line_num, _row(record)))
                except ValueError as error:
                    raise RwtoolError(f"{path}, line {lines.line_num}: {error}") from error
            return rows, None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise RwtoolError(
            f"{path}: cannot be read as a table: {reason}; give a cases.csv, or evaluate again"
        ) from error


def _row(record: dict[str, Any]) -> Row:
    """Make a row; what a field should have been is said in the ValueError."""
    extra = record.pop(None, [])  # type: ignore[call-overload]  # where csv puts fields without a column
    found = sum(value is not None for value in record.values()) + len(extra)
    if found != len(record):
        raise ValueError(f"expected {len(record)} fields, found {found}; restore the line")
    for name, known in (("metric", tuple(METRICS)), ("status", STATUSES)):
        if record[name] not in known:
            raise ValueError(f"{name} is one of {', '.join(known)}; found {record[name]!r}")
    fields: dict[str, Any] = {name: unquote_text(record[name]) for name in _TEXTS}
    for name in ("method", "case", "subject"):
        if not fields[name]:
            raise ValueError(f"{name} is empty; give each line one")
    fields |= {name: _number(name, record[name]) for name in _NUMBERS}
    if REFERENCE_COLUMN in record:
        fields[REFERENCE_COLUMN] = _number(REFERENCE_COLUMN, record[REFERENCE_COLUMN])
    return Row(**fields, label=_label(record["class"], fields["class_name"]), status=record["status"])


def _label(text: str, name: str) -> Label:
    """A class by its value, or a region by its name, which stands in both columns."""
    if re.fullmatch(r"[0-9]{1,18}", text):
        return int(text)
    if unquote_text(text) == name:
        return name
    raise ValueError(f"class is a label of the files, a whole number, or the name of a region; found {text!r}")


def _number(name: str, text: str) -> float:
    try:
        number = float(text or "nan")
    except ValueError:
        number = math.inf
    if abs(number) > LARGEST or (text and math.isnan(number)):
        raise ValueError(f"{name} is a number, or empty where undefined; found {text!r}")
    return number


def write_csv(path: Path, columns: Sequence[str], records: Iterable[Mapping[str, Any]]) -> None:
    """Write a table whole or not at all."""
    with atomic(path) as temporary, open_text(temporary) as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(columns)
        lines.writerows([_field(record[name]) for name in columns] for record in records)


def _field(value: Any) -> str:
    """One field: empty where undefined, a float with all its digits, a text quoted."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(float(value))
    return str(value) if isinstance(value, int) else quote_text(str(value))


def quote_text(text: str) -> str:
    r"""Make a text a cell that is no formula and holds no control character.

    >>> print(quote_text("=1+1"), quote_text("a=b"), quote_text("unet\x1b"))
    '=1+1 a=b 'unet\x1b
    """
    # full-width and small forms of the four count too
    formula = unicodedata.normalize("NFKC", text.lstrip()[:1])[:1] in tuple("=+-@")
    if not (formula or text.startswith("'") or not text.isprintable()):
        return text
    return "'" + printable(text.replace("\\", "\\\\"))


def unquote_text(cell: str) -> str:
    """Give the text of a cell back: what `quote_text` undoes.

    Raises
    ------
    ValueError
        It begins with an apostrophe and holds a backslash that writes out no character.
    """
    if not cell.startswith("'"):
        return cell

    def character(found: re.Match[str]) -> str:
        short, digits = found["short"], found["x"] or found["u"] or found["U"]
        if short is None and (digits is None or int(digits, 16) > sys.maxunicode):
            raise ValueError(
                f"found {cell!r}, in which a backslash stands for no character; write \\\\ for one, or leave the "
                "apostrophe before it out"
            )
        return _SHORT[short] if digits is None else chr(int(digits, 16))

    return _ESCAPE.sub(character, cell[1:])


_SHORT = {"\\": "\\", "n": "\n", "r": "\r", "t": "\t"}
_ESCAPE = re.compile(
    r"\\(?:(?P<short>[\\nrt])|x(?P<x>[\da-fA-F]{2})|u(?P<u>[\da-fA-F]{4})|U(?P<U>[\da-fA-F]{8})|)", re.ASCII
)


def open_text(path: Path) -> IO[str]:
    """Open for writing, with line ends as they are given."""
    return path.open("w", encoding="utf-8", newline="")
