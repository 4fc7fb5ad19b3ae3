"""The sections of a report's page: which tables, charts and pictures stand in it, and what is said of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from markupsafe import Markup

from rwtool.console import printable
from rwtool.evaluation.evaluate import Evaluation
from rwtool.evaluation.rows import Rules
from rwtool.metrics.measures import METRICS
from rwtool.report import charts
from rwtool.report.cases import GroupValues, WorstCase, count_table, worst_metric, worst_table
from rwtool.report.decisions import (
    agreement_table,
    effect_table,
    equivalence_table,
    rank_table,
    share_table,
    significance_map,
)
from rwtool.report.figures import svg_text
from rwtool.report.text import (
    Table,
    class_title,
    level_title,
    metric_title,
    number_text,
    result_tables,
    test_table,
)
from rwtool.report.thumbnails import CasePair, Thumbnail, class_colour
from rwtool.statistics.comparison import Comparison
from rwtool.statistics.pairs import ComparisonTest
from rwtool.statistics.ranking import SAMPLES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEAST_CASES = 2
"""Cases of a group that charts are drawn for: one has its numbers in the tables, and need not wait for matplotlib."""

_REPEATED = ("class", "metric", "rule", "share of\nvoxels")  # columns whose blank cells mean what stands above


class Head(NamedTuple):
    """The title of a column, and whether its cells are text."""

    text: str
    left: bool


class Cell(NamedTuple):
    """A cell of a table; `heads` where it names its row."""

    text: str
    heads: bool
    classes: str


class Line(NamedTuple):
    """A row of a table; `opens` where a class or a metric begins."""

    cells: tuple[Cell, ...]
    opens: bool


class PageTable(NamedTuple):
    """A table whose every row says all about itself, so that rows can be sorted."""

    title: str
    heads: tuple[Head, ...]
    rows: tuple[Line, ...]


class Figured(NamedTuple):
    """A picture and its caption; no picture where `svg` is empty."""

    svg: Markup
    caption: str


class Key(NamedTuple):
    """What a colour stands for."""

    colour: str
    name: str


class Part(NamedTuple):
    """Part of a section: of a group, or of a method."""

    name: str
    tables: tuple[PageTable, ...] = ()
    figures: tuple[Figured, ...] = ()
    keys: tuple[Key, ...] = ()
    pictures: tuple[Figured, ...] = ()


class Section(NamedTuple):
    """A section of the page."""

    key: str
    title: str
    lead: tuple[str, ...]
    parts: tuple[Part, ...]


class Source(NamedTuple):
    """All that the sections are made from; `draws` where there is matplotlib."""

    comparison: Comparison
    rules: Rules
    groups: dict[str, GroupValues]
    draws: bool

    def of_group(self, tests: Sequence[ComparisonTest], group: str) -> list[ComparisonTest]:
        """The tests of a group under the rule in force."""
        return [test for test in tests if test.group == group and test.undefined == self.rules.undefined]

    def drawn(self, group: str) -> bool:
        """Whether a group has charts."""
        return self.draws and len(self.groups[group].axes.cases) >= LEAST_CASES

    def titles(self, group: str) -> charts.Titles:
        """Of the classes of a group."""
        return {summary.label: class_title(summary) for summary in self.comparison.classes if summary.group == group}


def page_table(table: Table) -> PageTable:
    """Fill in what a table leaves out because it stands above."""
    heads = tuple(Head(column.replace("\n", " "), i < table.text_columns) for i, column in enumerate(table.columns))
    named = table.columns.index("method") if "method" in table.columns else 0
    rows: list[Line] = []
    above = [""] * len(table.columns)
    method = ""
    for row in table.rows:
        cells = []
        for i, (column, text) in enumerate(zip(table.columns, row, strict=True)):
            shown, again = re.sub(" +", " ", text).strip(" "), False
            if column in _REPEATED:
                again = not shown
                shown = above[i] = shown or above[i]
            elif column == "method" and shown == "(exclude)":
                shown, again = f"{method} (exclude)", True
            elif column == "method":
                method = shown
            classes = " ".join(["left"] * heads[i].left + ["again"] * again)
            cells.append(Cell(shown, i == named, classes))
        rows.append(Line(tuple(cells), bool(rows) and table.columns[0] in _REPEATED and bool(row[0])))
    return PageTable(table.title, heads, tuple(rows))


def sections_of(source: Source) -> Iterator[Section]:
    """Every section that there is something for, but the worst cases."""
    makers: tuple[Callable[[Source], Section], ...] = (
        _result_section, _case_section, _test_section, _count_section, _pair_section, _rank_section, _agreement_section,
    )  # fmt: skip
    for make in makers:
        section = make(source)
        if section.parts:
            yield section


def _parts(
    source: Source,
    tables: Callable[[str], Iterator[Table | None]],
    figures: Callable[[str], Iterator[Figured]] | None = None,
) -> tuple[Part, ...]:
    """A part for each group that has a table or a figure."""
    found = []
    for group in source.comparison.groups:
        held = tuple(page_table(table) for table in tables(group) if table is not None)
        drawn = tuple(figures(group)) if figures is not None and source.drawn(group) else ()
        if held or drawn:
            found.append(Part(group, held, drawn))
    return tuple(found)


def _figured(figure: Figure, caption: str) -> Figured:
    label = str(Markup.escape(printable(caption)))
    svg = svg_text(figure).replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
    return Figured(Markup(svg), caption)


def _result_section(source: Source) -> Section:
    lead = f"Mean ± SD over cases and the {level_title(source.rules)} of the mean over subjects, by class and method."
    parts = _parts(source, lambda group: iter(list(result_tables(source.comparison, source.rules, group))))
    return Section("results", "Results", (lead,), parts)


def _case_section(source: Source) -> Section:
    def figures(group: str) -> Iterator[Figured]:
        for metric in source.comparison.metrics:
            figure = charts.values_chart(source.groups[group], source.titles(group), metric)
            yield _figured(figure, f"{metric_title(metric)} of every case, by class and method{in_group(group)}.")

    lead = (
        "A dot is a case, after the mean over runs. The box spans the quartiles, its thick line is the median. A cross "
        "is a missed or hallucinated structure; where its distance lies beyond the axis, it stands at the edge."
    )
    return Section("cases", "Every case", (lead,), _parts(source, lambda group: iter(()), figures))


def _test_section(source: Source) -> Section:
    comparison, rules = source.comparison, source.rules

    def figures(group: str) -> Iterator[Figured]:
        assert comparison.baseline is not None
        for metric in comparison.metrics:
            tests = [test for test in source.of_group(comparison.tests, group) if test.metric == metric]
            figure = charts.differences_chart(
                source.groups[group], tests, source.titles(group), metric, baseline=comparison.baseline
            )
            yield _figured(
                figure,
                f"{metric_title(metric)}: difference from {comparison.baseline} of every subject{in_group(group)}.",
            )

    def tables(group: str) -> Iterator[Table | None]:
        for make in (test_table, effect_table, equivalence_table):
            yield make(comparison, rules, group)

    if comparison.baseline is None:
        return Section("tests", "", (), ())
    lead = (
        f"Paired permutation tests of every method against {comparison.baseline}: p as it is, and adjusted by max-T "
        "and by Holm over the foreground classes and metrics of a method.",
        f"In the charts a dot is a subject, the diamond the mean difference, its bar the {level_title(rules)} by "
        "inverting the test, left out where it is unbounded; p is that of max-T. A cross has a missed or "
        "hallucinated structure.",
    )
    return Section("tests", f"Differences from {comparison.baseline}", lead, _parts(source, tables, figures))


def _count_section(source: Source) -> Section:
    lead = (
        "Missed: in the reference alone. Hallucinated: in the prediction alone. Absent: in neither. Counted over cases "
        "and runs."
    )
    parts = _parts(source, lambda group: iter([count_table(source.comparison, group)]))
    return Section("counts", "Missed and hallucinated structures", (lead,), parts)


def _pair_section(source: Source) -> Section:
    comparison, rules = source.comparison, source.rules
    parts = _parts(
        source,
        lambda group: iter([significance_map(comparison, rules, group)]),
        lambda group: _significance(source, comparison.pairs, group),
    )
    lead = "Every method against every other, adjusted by max-T over all pairs, foreground classes and metrics."
    return Section("pairs", "All pairs", (lead,), parts if comparison.pairs else ())


def _significance(source: Source, tests: Sequence[ComparisonTest], group: str) -> Iterator[Figured]:
    """A map for each class and metric with a better direction."""
    comparison, alpha = source.comparison, source.rules.alpha
    for title, metric, found in _places(source, tests, group):
        figure = charts.significance_chart(found, comparison.methods, alpha=alpha)
        yield _figured(
            figure,
            f"{title}, {metric_title(metric)}{in_group(group)}: p max-T of the row's method against the column's; "
            f"below {alpha:g} in bold and shaded, ↑ the row's is better, ↓ worse.",
        )


def _places(
    source: Source, tests: Sequence[ComparisonTest], group: str
) -> Iterator[tuple[str, str, list[ComparisonTest]]]:
    """Title of the class, metric and tests, for each foreground class and each metric with a better direction."""
    of_group, titles = source.of_group(tests, group), source.titles(group)
    ranked = dict.fromkeys((test.label, test.metric) for test in of_group)
    for label, metric in ranked:
        found = [test for test in of_group if (test.label, test.metric) == (label, metric)]
        if METRICS[metric].better:
            yield titles[label], metric, found


def _rank_section(source: Source) -> Section:
    comparison, rules = source.comparison, source.rules

    def figures(group: str) -> Iterator[Figured]:
        over_all = charts.rankings_over_all(comparison.rankings, group)
        if not over_all:
            return
        for ranking in over_all:
            yield _figured(
                charts.share_chart(ranking),
                f"{ranking.rule} over all classes and metrics{in_group(group)}: the share of {SAMPLES:,} bootstrap "
                f"samples (area, and %) in which a method has a rank; the cross is its rank in the data, the line its "
                f"{level_title(rules)}.",
            )
        yield _figured(
            charts.rule_chart(over_all),
            f"The rank of each method by each rule, over all classes and metrics{in_group(group)}.",
        )
        ranked = {
            (r.label, r.metric): r for r in comparison.rankings if r.group == group and r.rule == "rank-then-mean"
        }
        if not comparison.pairs:
            yield from _significance(source, comparison.rank_tests, group)
        for title, metric, found in _places(source, comparison.rank_tests, group):
            there = ranked.get((found[0].label, metric))
            if there is not None:
                yield _figured(
                    charts.alike_chart(there, found, alpha=rules.alpha),
                    f"{title}, {metric_title(metric)}{in_group(group)}: mean rank within a subject, the best on top. A "
                    f"bar joins methods of which no pair differs with p max-T below {rules.alpha:g}.",
                )

    def tables(group: str) -> Iterator[Table | None]:
        yield rank_table(comparison, rules, group)
        yield share_table(comparison, rules, group)

    return Section("rankings", "Rankings", (), _parts(source, tables, figures) if comparison.rankings else ())


def _agreement_section(source: Source) -> Section:
    comparison = source.comparison

    def figures(group: str) -> Iterator[Figured]:
        for label, title in source.titles(group).items():
            found = [a for a in comparison.agreement if a.group == group and a.label == label]
            if found and source.groups[group].reference_ml is not None:
                figure = charts.agreement_chart(source.groups[group], label, found)
                yield _figured(
                    figure,
                    f"{title}{in_group(group)}: prediction - reference against their mean, a dot a case. The thick "
                    "line is the bias, the dashed ones its limits, bias ± 1.96 SD (Bland and Altman).",
                )

    parts = _parts(source, lambda g: iter([agreement_table(comparison, source.rules, g)]), figures)
    return Section("agreement", "Agreement of volumes", (), parts if comparison.agreement else ())


def worst_section(
    source: Source,
    worst: dict[str, list[WorstCase]],
    pictures: dict[CasePair, Thumbnail],
    evaluation: Evaluation | None,
) -> Iterator[Section]:
    """The worst cases of each method, with pictures where their files are known."""
    comparison, metric = source.comparison, worst_metric(source.comparison)
    if metric is None:
        return
    lead = [
        f"By the mean {metric_title(metric)} over the foreground classes of a case. The other columns are of the class "
        "that is worst."
    ]
    if pictures:
        lead.append(
            "Each picture is the slice with the most wrong voxels, cropped to its structures. Slices lie as in "
            "radiology, with the patient's right on the left, where the files say how they lie."
        )
    parts = []
    for method, found in worst.items():
        table = worst_table(found, comparison)
        if table is None:
            continue
        shown = [pictures[item.method, item.run, item.case] for item in found] if pictures else []
        captions = [
            f"{place}. {item.case}{f', run {item.run}' * bool(item.run)}: mean {metric_title(metric)} "
            f"{number_text(item.score, metric)}. {picture.text}"
            for place, (item, picture) in enumerate(zip(found, shown, strict=bool(shown)), start=1)
        ]
        keys = []
        if evaluation is not None:
            classes = evaluation.plan.dataset.classes
            seen = sorted({k for picture in shown for k in picture.labels})
            keys = [Key(class_colour(k), _class_name(classes.values[k], classes.names[k])) for k in seen]
        thumbs = tuple(Figured(Markup(p.svg), text) for p, text in zip(shown, captions, strict=True))
        parts.append(Part(method, (page_table(table),), (), tuple(keys), thumbs))
    if parts:
        yield Section("worst", "Worst cases", tuple(lead), tuple(parts))


def _class_name(value: int, name: str) -> str:
    return str(value) if name in ("", str(value)) else f"{value} {name}"


def in_group(group: str) -> str:
    """The group in brackets, where there are several."""
    return f" ({group})" if group else ""
