"""Tables of other tools: a value a line, under names of their own."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rwtool.errors import RwtoolError, UsageError
from rwtool.evaluation.rows import Row
from rwtool.metrics.measures import METRICS

LARGEST = 1e30
"""Of values in a table: no metric has larger ones, and the squares of these are numbers too."""

COLUMNS = ("case", "method", "metric", "value", "class", "group", "subject", "run")
"""What a column can be."""

_CHALLENGER = {"case": "case", "method": "algorithm", "value": "value", "group": "task"}
_MISSING = ("", "na", "nan", "n/a", "null", "none")
_LABEL = "structure"
"""The class where a table names none."""

_ALIASES = {
    "dice": "dice|dsc|dicescore|dicecoefficient|dicesimilaritycoefficient|f1",
    "hd95": "hd95|95hd|hausdorff95|hausdorffdistance95|95hausdorffdistance",
    "hd": "hd|hausdorff|hausdorffdistance",
    "assd": "assd|averagesymmetricsurfacedistance",
    "masd": "masd|meanaveragesurfacedistance",
    "nsd": "nsd|normalizedsurfacedice|normalisedsurfacedice|surfacedice",
    "volume_ml": "volumeml",
    "volume_error": "volumeerror|relativevolumeerror",
}


class Reading(NamedTuple):
    """How a table is read: our name to its column, and the metric of all lines where no column says it."""

    columns: dict[str, str]
    metric: str | None

    def describe(self) -> str:
        """``case=case, method=algorithm, metric=dice, value=value``."""
        parts = {**self.columns, **({} if self.metric is None else {"metric": self.metric})}
        return ", ".join(f"{name}={parts[name]}" for name in COLUMNS if name in parts)


def find_metric(name: str) -> str | None:
    """Our name of a metric that other tools call otherwise: ``DSC``, ``Hausdorff distance (mm)``."""
    plain = re.sub(r"\(.*\)|[^a-z0-9]|mm$", "", name.lower())
    return next((metric for metric, names in _ALIASES.items() if plain in names.split("|") or name == metric), None)


def read_foreign(
    path: Path, header: Sequence[str], lines: Iterable[tuple[int, dict[str, Any]]], columns: Mapping[str, str]
) -> tuple[list[tuple[int, Row]], Reading] | None:
    """Read the lines of a table of another tool.

    Parameters
    ----------
    path : Path
        For messages.
    header : sequence of str
        Columns of the table.
    lines : iterable of (int, dict)
        Number and fields of each line.
    columns : dict of str to str
        Our name to its column; for the metric also the name of one, which then holds for every line.

    Returns
    -------
    rows : list of (int, Row)
        Of each line that has a value, with its number. A case that is in several groups, as challengeR's are in several
        tasks, is one case in each of them.
    reading : Reading
        None in place of both where no columns are given and the table is not challengeR's: it is none that is known.

    Raises
    ------
    UsageError
        A column is not there, or nothing says what the metric is.
    RwtoolError
        A field is not what it should be; the message names the line.
    """
    columns_found = _find_columns(path, header, columns)
    if columns_found is None:
        return None
    kept = list(lines)
    reading = _settle_metric(path, columns_found, [_text(record, columns_found.columns["value"]) for _, record in kept])
    groups: dict[str, set[str]] = {}
    for _, record in kept:
        case, group = (_text(record, reading.columns.get(name)) for name in ("case", "group"))
        groups.setdefault(case, set()).add(group)
    repeated = {case for case, found in groups.items() if len(found) > 1}
    rows = []
    for number, record in kept:
        try:
            row = _row(reading, record, repeated)
        except ValueError as error:
            raise RwtoolError(f"{path}, line {number}: {error}") from error
        if row is not None:
            rows.append((number, row))
    return rows, reading


def _find_columns(path: Path, header: Sequence[str], wanted: Mapping[str, str]) -> Reading | None:
    """Settle which column is what; None where nothing says so."""
    challenger = {name: column for name, column in _CHALLENGER.items() if column in header}
    if not wanted and not {"case", "method", "value"} <= set(challenger):
        return None
    unknown = [name for name in wanted if name not in COLUMNS]
    if unknown:
        raise UsageError(f"columns= names {', '.join(unknown)}; give some of {', '.join(COLUMNS)}")
    columns = {name: name for name in COLUMNS if name in header} | challenger | dict(wanted)
    metric = None
    if columns.get("metric", "") not in ("", *header):
        metric = find_metric(columns["metric"])
        if metric is not None:
            del columns["metric"]
    lacking = [f"no column for the {name}" for name in ("case", "method", "value") if name not in columns]
    lacking += [f"no column {column!r} for the {name}" for name, column in columns.items() if column not in header]
    if lacking:
        raise UsageError(
            f"{path}: {', '.join(lacking)}; its columns are {', '.join(header)}: give their names, such as "
            "columns={'case': 'patient', 'method': 'model', 'metric': 'score', 'value': 'result'}"
        )
    return Reading(columns, metric)


def _settle_metric(path: Path, reading: Reading, values: Sequence[str]) -> Reading:
    """Take values that all lie between 0 and 1 for Dice, where neither a column nor the user says what they are."""
    if "metric" in reading.columns or reading.metric is not None:
        return reading
    known = [number for number in map(_parsed, values) if number is not None and not math.isnan(number)]
    if not known or min(known) < 0 or max(known) > 1:
        raise UsageError(
            f"{path}: no column says which metric the values are; give it, such as columns={{'metric': 'hd95'}}"
        )
    return reading._replace(metric="dice")


def _row(reading: Reading, record: dict[str, Any], repeated: set[str]) -> Row | None:
    """Make a row, or none where a value is missing; what a field should have been is said in the ValueError."""
    fields = {name: _text(record, reading.columns.get(name)) for name in COLUMNS}
    for name in ("case", "method"):
        if not fields[name]:
            raise ValueError(f"{name} is empty; give each line one")
    metric = reading.metric or find_metric(fields["metric"])
    if metric is None:
        raise ValueError(f"metric is one of {', '.join(METRICS)}, or a usual name of one; found {fields['metric']!r}")
    value = _parsed(fields["value"])
    if value is None or abs(value) > LARGEST:
        raise ValueError(f"value is a number, or empty where undefined; found {fields['value']!r}")
    if math.isnan(value):
        return None
    case, group, label = fields["case"], fields["group"], fields["class"] or _LABEL
    return Row(
        method=fields["method"],
        run=fields["run"],
        case=f"{case} ({group})" if case in repeated else case,
        subject=fields["subject"] or case,
        group=group,
        label=int(label) if re.fullmatch(r"[0-9]{1,18}", label) else label,
        class_name=label,
        metric=metric,
        value=value,
        unit=METRICS[metric].unit,
        status="ok",
        diagonal_mm=math.nan,
        share=math.nan,
    )


def _text(record: dict[str, Any], column: str | None) -> str:
    return "" if column is None else str(record.get(column) or "").strip()


def _parsed(text: str) -> float | None:
    """A number, NaN where it is missing, None where it is none."""
    if text.strip().lower() in _MISSING:
        return math.nan
    try:
        return float(text)
    except ValueError:
        return None
