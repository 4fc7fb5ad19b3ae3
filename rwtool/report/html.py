"""A comparison as one page: its tables, charts, worst cases and definitions in a file that needs nothing else.

The page may load nothing, by its Content-Security-Policy. Its script only sorts tables.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import importlib.resources
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from rwtool.console import count, printable
from rwtool.evaluation.evaluate import Evaluation
from rwtool.evaluation.rows import Row, Rules
from rwtool.metrics.measures import METRICS
from rwtool.report.cases import group_values, worst_cases
from rwtool.report.figures import can_draw, drawing
from rwtool.report.sections import Source, in_group, sections_of, worst_section
from rwtool.report.text import class_title, definitions, metric_title, notes, rule_title, share_text
from rwtool.report.thumbnails import draw_worst
from rwtool.statistics.comparison import Comparison

if TYPE_CHECKING:
    from jinja2 import Template

_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{}'; base-uri 'none'; "
    "form-action 'none'"
)


def report_page(
    rows: Sequence[Row],
    comparison: Comparison,
    rules: Rules,
    facts: dict[str, Any],
    evaluation: Evaluation | None = None,
) -> str:
    """Write the page of a report.

    Parameters
    ----------
    rows : sequence of Row
    comparison : Comparison
        Of these rows.
    rules : Rules
    facts : dict
        The content of summary.json: versions, and where the rows come from.
    evaluation : Evaluation, optional
        What was measured: its files are read again for pictures of the worst cases.

    Returns
    -------
    str
        HTML in UTF-8. The same rows and files give the same page.
    """
    groups = {group: group_values(rows, comparison, rules, group) for group in comparison.groups}
    source = Source(comparison, rules, groups, can_draw())
    worst = worst_cases(list(groups.values()), comparison, rules)
    shown = [item for found in worst.values() for item in found]
    pictures = {} if evaluation is None else draw_worst(evaluation, shown)
    style, script = (_resource(name) for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    with drawing() if any(map(source.drawn, groups)) else contextlib.nullcontext():
        sections = [*sections_of(source), *worst_section(source, worst, pictures, evaluation)]
    return _template().render(
        title=_title(comparison),
        facts=facts,
        facts_shown=list(_facts(comparison, rules)),
        remarks=list(_remarks(source)),
        sections=sections,
        definitions=list(definitions(comparison, rules).items()),
        notes=notes(comparison),
        made=list(_made(facts, rules)),
        policy=Markup(_POLICY.format(digest)),
        style=Markup(style),
        script=Markup(script),
    )


def _title(comparison: Comparison) -> str:
    n = sum({summary.group: summary.cases for summary in comparison.classes}.values())
    return f"{', '.join(comparison.methods)}: segmentations of {count(n, 'case')}"


def _facts(comparison: Comparison, rules: Rules) -> Iterator[tuple[str, list[str]]]:
    """What a reader needs before any number."""
    yield "Methods", [
        method + (f" ({count(len(comparison.runs[method]), 'run')})" if len(comparison.runs[method]) > 1 else "")
        + " - baseline" * (method == comparison.baseline)
        for method in comparison.methods
    ]  # fmt: skip
    sizes = {summary.group: (summary.cases, summary.subjects) for summary in comparison.classes}
    yield (
        "Cases",
        [
            f"{group + ': ' if group else ''}{count(cases, 'case')}"
            + (f" of {count(subjects, 'subject')}" if subjects != cases else "")
            for group, (cases, subjects) in sizes.items()
        ],
    )
    shares = [
        f"{class_title(summary)}{in_group(summary.group)}"
        + ("" if summary.share is None else f": {share_text(summary.share)} of the reference's voxels")
        for summary in comparison.classes
    ]
    yield "Classes", shares
    yield (
        "Metrics",
        [
            metric_title(metric) + (f", {rules.hd95}" if metric == "hd95" and rules.hd95 else "")
            for metric in comparison.metrics
        ],
    )
    if any(METRICS[metric].unit == "mm" for metric in comparison.metrics):
        yield "Undefined distances", [rule_title(rules.undefined)]


def _remarks(source: Source) -> Iterator[str]:
    if not source.draws:
        yield "Charts are left out: matplotlib is not installed; pip install 'rwtool[plot]' adds them."


def _made(facts: dict[str, Any], rules: Rules) -> Iterator[tuple[str, list[str]]]:
    """Versions, command line and inputs."""
    made = facts["provenance"]
    versions = {"rwtool": facts["rwtool"], **facts["versions"], **(made.get("versions") or {})}
    if made.get("command_line"):
        yield "command line", [made["command_line"]]
    elif made.get("command"):
        yield "function", [f"rwtool.{made['command']}, from Python"]
    yield "versions", [", ".join(f"{name} {number}" for name, number in versions.items())]
    yield "seed", [str(rules.seed)]
    if made.get("reference"):
        yield "reference", [str(made["reference"])]
    if made.get("runs"):
        yield (
            "predictions",
            [" ".join(filter(None, (run["method"], run["run"]))) + f": {run['source']}" for run in made["runs"]],
        )
    if made.get("split"):
        yield "split", [*made["split"]["files"]]
    if made.get("tables"):
        yield "tables", [f"{table['path']} (SHA-256 {table['sha256']})" for table in made["tables"]]
    if made.get("failed"):
        yield "failed", [f"{name}: {reason}" for name, reason in made["failed"].items()]


@functools.cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined  # only who writes a page waits for it

    environment = Environment(autoescape=True, undefined=StrictUndefined, finalize=_shown)
    return environment.from_string(_resource("page.html"))


def _shown(value: Any) -> Any:
    """What is put into the page: text with nothing that does other than appear."""
    return value if isinstance(value, Markup) or not isinstance(value, str) else printable(value)


def _resource(name: str) -> str:
    return importlib.resources.files("rwtool.report").joinpath(name).read_text(encoding="utf-8")
