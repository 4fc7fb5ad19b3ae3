"""What a study is decided by, as tables: effects, equivalence, all pairs, rankings and agreement."""

from __future__ import annotations

from collections.abc import Iterator

from rwtool.evaluation.rows import Label, Rules, label_order
from rwtool.metrics.measures import METRICS
from rwtool.report.text import (
    Table,
    class_title,
    level_title,
    limits_text,
    metric_title,
    p_text,
    table_title,
    test_lines,
)
from rwtool.statistics.comparison import Comparison
from rwtool.statistics.pairs import ComparisonTest
from rwtool.statistics.ranking import RANK_RULES, SAMPLES, MethodRank, Ranking


def decision_tables(comparison: Comparison, rules: Rules, group: str) -> Iterator[Table]:
    """All of them that a comparison has something for."""
    makers = (effect_table, equivalence_table, significance_map, rank_table, share_table, agreement_table)
    yield from (table for make in makers if (table := make(comparison, rules, group)) is not None)


def effect_table(comparison: Comparison, rules: Rules, group: str) -> Table | None:
    """Effect and planning of every test of a group; None without tests."""
    lines = []
    for test, opening in test_lines(comparison, rules, group):
        effect = test.effect
        subjects = "-" if effect.subjects_for_power is None else f"{effect.subjects_for_power:,}"
        lines.append(
            (
                *opening,
                str(test.result.n),
                "-" if effect.d_z is None else f"{effect.d_z:+.2f}",
                "-" if effect.win_share is None else f"{100 * effect.win_share:.0f} %",
                subjects,
                p_text(effect.chance_not_better),
            )
        )
    if not lines:
        return None
    heads = (
        "class", "metric", "method", "n", "d_z", "subjects\nbetter", "subjects for\n80 % power",
        "chance of\nnot better",
    )  # fmt: skip
    title = table_title(comparison, group, f"effect against {comparison.baseline}, approximate")
    return Table(title, heads, lines, 3)


def equivalence_table(comparison: Comparison, rules: Rules, group: str) -> Table | None:
    """Whether the difference of each test of a group lies within the margin; None without a margin."""
    lines = []
    metric = ""
    for test, (class_cell, metric_cell, method) in test_lines(comparison, rules, group):
        metric = metric_cell or metric
        result = test.result
        if result.equivalence is not None:
            limits = limits_text(test, result.margin_low, result.margin_high)
            lines.append((class_cell, metric, method, f"{result.margin:g}", limits, result.equivalence))
    if not lines:
        return None
    level = f"{round(100 * (1 - 2 * rules.alpha), 9):g} % CI"
    heads = ("class", "metric", "method", "margin", f"mean difference\n[{level}]", "verdict")
    return Table(table_title(comparison, group, f"equivalence with {comparison.baseline}"), heads, lines, 3)


def significance_map(comparison: Comparison, rules: Rules, group: str) -> Table | None:
    """Adjusted p of every method (a row) against every other (a column); None unless all pairs were tested."""
    found: dict[tuple[Label, str, bool], dict[tuple[str, str], str]] = {}
    for test in comparison.pairs:
        if test.group == group:
            cells = found.setdefault((test.label, test.metric, test.undefined != rules.undefined), {})
            cells[test.method, test.baseline] = _map_cell(test, 1, rules)
            cells[test.baseline, test.method] = _map_cell(test, -1, rules)
    if not found:
        return None
    titles = {summary.label: class_title(summary) for summary in comparison.classes if summary.group == group}
    order = {metric: i for i, metric in enumerate(comparison.metrics)}
    places = sorted({(label, metric) for label, metric, _ in found}, key=lambda p: (label_order(p[0]), order[p[1]]))
    lines = []
    for i, (label, metric) in enumerate(places):
        for method in comparison.methods:
            opens = method == comparison.methods[0]
            class_cell = titles[label] if opens and (i == 0 or places[i - 1][0] != label) else ""
            for beside in (False, True):
                cells = found.get((label, metric, beside), {})
                row = [cells.get((method, other), "") for other in comparison.methods]
                if any(row):
                    name = "  (exclude)" if beside else method
                    lines.append((class_cell, metric_title(metric) if opens else "", name, *row))
                    class_cell, opens = "", False
    title = table_title(comparison, group, "all pairs: p max-T, the row against the column")
    return Table(title, ("class", "metric", "method", *comparison.methods), lines, 3)


def _map_cell(test: ComparisonTest, turn: int, rules: Rules) -> str:
    """``0.0120 *↑``: p, a star below alpha, and whether the first of the two is better, or larger where none is."""
    result = test.result
    mean = turn * (result.mean_difference or 0.0)
    sign = ("↓-", "↑+")[mean * (METRICS[test.metric].better or 1) > 0][METRICS[test.metric].better == 0]
    star = "*" * (result.p_maxt is not None and result.p_maxt < rules.alpha)
    return p_text(result.p_maxt) + f" {star}{sign}" * (mean != 0)


def rank_table(comparison: Comparison, rules: Rules, group: str) -> Table | None:
    """Rank and its interval by each rule, over all and by class and metric; None without rankings."""
    titles = {summary.label: class_title(summary) for summary in comparison.classes if summary.group == group}
    of_place: dict[tuple[Label | None, str | None], list[Ranking]] = {}
    for ranking in comparison.rankings:
        if ranking.group == group:
            of_place.setdefault((ranking.label, ranking.metric), []).append(ranking)
    lines: list[tuple[str, ...]] = []
    above: Label | None = None
    for (label, metric), rankings in of_place.items():
        opening = (
            "all" if label is None else "" if label == above else titles[label],
            metric_title(metric) if metric else "all",
        )
        above = label
        for m, method in enumerate(comparison.methods):
            lines.append((*(opening if m == 0 else ("", "")), method, *(_rank_cell(r.ranks[m]) for r in rankings)))
        lines.append(("", "", "  (tau-b)", *(map(_tau_cell, rankings))))
    if not lines:
        return None
    title = table_title(comparison, group, f"rank [{level_title(rules)} by {SAMPLES:,} bootstrap samples]")
    return Table(title, ("class", "metric", "method", *RANK_RULES), lines, 3)


def _rank_cell(found: MethodRank) -> str:
    return str(found.rank) + ("" if found.low is None else f" [{found.low:g}, {found.high:g}]")


def _tau_cell(ranking: Ranking) -> str:
    if ranking.tau_mean is None:
        return "-"
    return f"{ranking.tau_mean:.2f} [{ranking.tau_low:.2f}, {ranking.tau_high:.2f}]"


def share_table(comparison: Comparison, rules: Rules, group: str) -> Table | None:
    """Share of the bootstrap samples in which a method has each rank, over all classes and metrics."""
    lines = [
        (ranking.rule if m == 0 else "", found.method, *(f"{100 * share:.0f} %" for share in found.shares))
        for ranking in comparison.rankings
        if ranking.group == group and ranking.label is None
        for m, found in enumerate(ranking.ranks)
    ]
    if not lines:
        return None
    heads = ("rule", "method", *(f"rank {r + 1}" for r in range(len(comparison.methods))))
    return Table(table_title(comparison, group, "share of each rank, over all classes and metrics"), heads, lines, 2)


def agreement_table(comparison: Comparison, rules: Rules, group: str) -> Table | None:
    """Volumes beside those of the reference; None where they were not measured."""
    titles = {summary.label: class_title(summary) for summary in comparison.classes if summary.group == group}
    lines = []
    above: Label | None = None
    for found in comparison.agreement:
        if found.group == group:
            limits = "-" if found.low_ml is None else f"[{found.low_ml:+.2f}, {found.high_ml:+.2f}]"
            icc = "-" if found.icc is None else f"{found.icc:.3f}"
            opening = "" if found.label == above else titles[found.label]
            lines.append((opening, found.method, str(found.n), f"{found.bias_ml:+.2f}", limits, icc))
            above = found.label
    if not lines:
        return None
    heads = ("class", "method", "n", "bias\n(ml)", "limits of\nagreement (ml)", "ICC(3,1)")
    return Table(table_title(comparison, group, "volumes against the reference"), heads, lines, 2)
