"""The charts of a report: records in, a figure out, within :func:`rwtool.report.figures.drawing`.

A chart has a panel for each class, below one another, so that it is read on a narrow screen; methods are rows with
their names, and never told by colour alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rwtool.console import printable
from rwtool.evaluation.rows import Label
from rwtool.metrics.measures import METRICS
from rwtool.report.cases import GroupValues
from rwtool.report.figures import COLOURS, INK, new_figure
from rwtool.report.text import metric_title, p_text
from rwtool.statistics.agreement import Agreement
from rwtool.statistics.arms import Floats
from rwtool.statistics.pairs import ComparisonTest
from rwtool.statistics.ranking import RANK_RULES, Ranking

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Titles = dict[Label, str]
"""Of the classes, by label."""

VECTOR_POINTS = 300
"""More points than these in a figure are pixels in it: a file of thousands of vectors is slow to open."""

_WIDTH = 4.0  # of every figure, in inches
_RIGHT, _TOP, _BOTTOM, _GAP = 0.15, 0.28, 0.45, 0.55  # margins, and what lies between two panels
_ROW = 0.27  # of a method
_CHARACTER, _LONGEST, _SLANTED = 0.075, 20, 12  # of a name: inches, and characters beyond which it is cut
_MARKERS = "osD^vPX*"
_GOLDEN = 0.6180339887498949


def values_chart(group: GroupValues, titles: Titles, metric: str) -> Figure:
    """Every case: a dot, or a cross where a method missed or hallucinated the class; with the box of the quartiles."""
    m, methods = group.axes.metrics.index(metric), list(group.values)
    figure, panels = _panels(len(group.axes.labels), methods)
    pixels = len(group.axes.cases) * len(methods) * len(group.axes.labels) > VECTOR_POINTS
    for c, (label, axes) in enumerate(zip(group.axes.labels, panels, strict=True)):
        columns = [(group.values[method][:, c, m], group.one_sided[method][:, c]) for method in methods]
        low, high = _limits(columns, metric)
        for row, (values, crossed) in enumerate(columns):
            colour = COLOURS[row % len(COLOURS)]
            _draw_box(axes, values, row, low, high)
            _draw_points(axes, values, crossed, row, (low, high), colour, pixels=pixels)
        _finish(axes, titles[label], low, high)
    panels[-1].set_xlabel(metric_title(metric))
    return figure


def differences_chart(
    group: GroupValues, tests: Sequence[ComparisonTest], titles: Titles, metric: str, *, baseline: str
) -> Figure:
    """Every subject's difference from the baseline, with the mean, its interval and p max-T."""
    m, methods = group.axes.metrics.index(metric), list(group.differences)
    found = {(test.label, test.method): test.result for test in tests}
    figure, panels = _panels(len(group.axes.labels), methods, right=0.85)
    pixels = sum(len(d.values) for d in group.differences.values()) * len(group.axes.labels) > VECTOR_POINTS
    for c, (label, axes) in enumerate(zip(group.axes.labels, panels, strict=True)):
        columns = [(d.values[:, c, m], d.one_sided[:, c]) for d in group.differences.values()]
        results = [found[label, method] for method in methods]
        known = [x for r in results for x in (r.mean_difference, r.ci_low, r.ci_high) if x is not None]
        low, high = _limits(columns, metric, (0.0, *known))
        axes.axvline(0, color=INK, linewidth=0.8, linestyle=":")
        for row, ((values, crossed), result, method) in enumerate(zip(columns, results, methods, strict=True)):
            colour = COLOURS[list(group.values).index(method) % len(COLOURS)]
            _draw_points(axes, values, crossed, row, (low, high), colour, pixels=pixels)
            if result.mean_difference is not None:
                if result.ci_low is not None and result.ci_high is not None:
                    axes.plot([result.ci_low, result.ci_high], [row, row], color=INK, linewidth=2.2, zorder=3)
                axes.plot(result.mean_difference, row, "D", color=INK, markersize=5, zorder=3)
            p = f"p {p_text(result.p_maxt)}"
            axes.text(1.03, row, p, transform=axes.get_yaxis_transform(), fontsize=8, va="center")
        _finish(axes, titles[label], low, high)
    panels[-1].set_xlabel(f"{metric_title(metric)}: method - {_short(baseline)}")
    return figure


def significance_chart(tests: Sequence[ComparisonTest], methods: Sequence[str], *, alpha: float) -> Figure:
    """Adjusted p of the row's method against the column's, with an arrow where it is better or worse."""
    n = len(methods)
    names = [_short(method, _SLANTED) for method in methods]
    left = 0.2 + _CHARACTER * max(map(len, names))
    top, right = 0.2 + 0.75 * left, max(_RIGHT, 0.75 * left - 0.3)  # for names aslant above the columns
    size = 7.5 if n < 5 else 6.0
    height = n * 0.34
    figure = new_figure(_WIDTH, top + height + 0.1, fitted=False)
    axes = _place(figure, left, 0.1, _WIDTH - left - right, height)
    for test in tests:
        for turn, pair in ((1, (test.method, test.baseline)), (-1, (test.baseline, test.method))):
            row, column = (methods.index(name) for name in pair)
            p, side = test.result.p_maxt, turn * test.direction
            clear = p is not None and p < alpha and side != 0
            if clear:
                corners = [column, column + 1, column + 1, column], [row, row, row + 1, row + 1]
                axes.fill(*corners, facecolor=COLOURS[side < 0], alpha=0.45)
            text = p_text(p) + (" ↑" if side > 0 else " ↓") * clear
            axes.text(
                column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=size, weight="bold" if clear else None
            )
    for i in range(n):
        axes.text(i + 0.5, i + 0.5, "-", ha="center", va="center")
    for at in range(n + 1):
        axes.plot([0, n], [at, at], color=INK, linewidth=0.4)
        axes.plot([at, at], [0, n], color=INK, linewidth=0.4)
    axes.set(xlim=(0, n), ylim=(n, 0))
    axes.set_yticks(np.arange(n) + 0.5, names)
    axes.set_xticks(np.arange(n) + 0.5, names, rotation=35, ha="left")
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)
    return figure


def share_chart(ranking: Ranking) -> Figure:
    """How often each method has each rank in the bootstrap samples: the area of a blob; a cross is the data's rank."""
    methods = [found.method for found in ranking.ranks]
    figure, (axes,) = _panels(1, methods, row_in=0.42)
    for row, found in enumerate(ranking.ranks):
        colour = COLOURS[row % len(COLOURS)]
        for r, share in enumerate(found.shares):
            if share > 0:
                axes.scatter(r + 1, row, s=420 * share, color=colour, alpha=0.65, linewidth=0)
            if share >= 0.1:
                axes.text(r + 1, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=7)
        if found.low is not None and found.high is not None:
            axes.plot([found.low, found.high], [row + 0.36, row + 0.36], color=INK, linewidth=1.6)
        axes.plot(found.rank, row + 0.36, "x", color=INK, markersize=6)
    _finish(axes, ranking.rule, 0.5, len(methods) + 0.5)
    axes.set_xticks(range(1, len(methods) + 1))
    axes.set_xlabel("rank")
    return figure


def rule_chart(rankings: Sequence[Ranking]) -> Figure:
    """The rank of each method by each rule, a line a method."""
    methods = [found.method for found in rankings[0].ranks]
    right = _name_width(methods)
    figure = new_figure(_WIDTH, _BOTTOM + 0.4 * len(methods) + 0.35, fitted=False)
    axes = _place(figure, 0.45, _BOTTOM, _WIDTH - 0.45 - right, 0.4 * len(methods) + 0.1)
    taken: dict[float, int] = {}
    for m, method in enumerate(methods):
        ranks = [ranking.ranks[m].rank + 0.06 * (m - (len(methods) - 1) / 2) for ranking in rankings]
        colour, marker = COLOURS[m % len(COLOURS)], _MARKERS[m % len(_MARKERS)]
        axes.plot(range(len(rankings)), ranks, marker=marker, color=colour, linewidth=1.6, clip_on=False)
        last = rankings[-1].ranks[m].rank
        level = last + 0.32 * taken.setdefault(last, 0)  # those that tie are named below one another
        taken[last] += 1
        axes.annotate(
            _short(method), (len(rankings) - 1, level), (8, 0), textcoords="offset points", va="center",
            annotation_clip=False,
        )  # fmt: skip
    axes.set(ylim=(len(methods) + 0.5, 0.5), yticks=range(1, len(methods) + 1), ylabel="rank")
    axes.set_xticks(range(len(rankings)), [ranking.rule.replace("-then-", "-\nthen-") for ranking in rankings])
    return figure


def alike_chart(ranking: Ranking, tests: Sequence[ComparisonTest], *, alpha: float) -> Figure:
    """Mean ranks within subjects, best first; a bar at the right joins methods that no test tells apart."""
    found = sorted(ranking.ranks, key=lambda rank: rank.score)
    methods = [rank.method for rank in found]
    cliques = alike_sets(methods, tests, alpha=alpha)
    room = 0.16 * len(cliques) + 0.1
    figure, (axes,) = _panels(1, methods, right=_RIGHT + room)
    for row, rank in enumerate(found):
        axes.plot([1, len(methods)], [row, row], color=INK, linewidth=0.3)
        axes.plot(rank.score, row, "o", color=COLOURS[0], markersize=6)
        above = rank.score > (1 + len(methods)) / 2
        axes.annotate(f"{rank.score:.2f}", (rank.score, row), (-6 if above else 6, 5), textcoords="offset points",
                      ha="right" if above else "left", va="center", fontsize=7)  # fmt: skip
    panel_in = _WIDTH - _name_width(methods) - _RIGHT - room
    for i, clique in enumerate(cliques):
        x = 1 + (0.12 + 0.16 * i) / panel_in
        axes.plot([x, x], [clique[0], clique[-1]], color=INK, linewidth=2.4, clip_on=False,
                  transform=axes.get_yaxis_transform(), solid_capstyle="round")  # fmt: skip
        axes.plot([x] * len(clique), clique, "o", color=INK, markersize=4.5, clip_on=False,
                  transform=axes.get_yaxis_transform())  # fmt: skip
    _finish(axes, "", 1 - 0.03 * len(methods), 1.03 * len(methods))
    axes.set_xticks(range(1, len(methods) + 1))
    axes.set_xlabel("mean rank within a subject")
    return figure


def alike_sets(methods: Sequence[str], tests: Sequence[ComparisonTest], *, alpha: float) -> list[list[int]]:
    """The largest sets of two methods or more, by their places, of which no pair differs with p max-T below alpha."""
    n = len(methods)
    alike = [set(range(n)) - {i} for i in range(n)]
    for test in tests:
        if test.result.p_maxt is not None and test.result.p_maxt < alpha:
            i, j = methods.index(test.method), methods.index(test.baseline)
            alike[i].discard(j)
            alike[j].discard(i)

    def grow(clique: set[int], open_: set[int], closed: set[int]) -> Iterator[set[int]]:  # Bron and Kerbosch
        if not open_ and not closed:
            yield clique
        for i in sorted(open_):
            yield from grow(clique | {i}, open_ & alike[i], closed & alike[i])
            open_ = open_ - {i}
            closed = closed | {i}

    return sorted(sorted(clique) for clique in grow(set(), set(range(n)), set()) if len(clique) > 1)


def agreement_chart(group: GroupValues, label: Label, agreements: Sequence[Agreement]) -> Figure:
    """Bland and Altman's plot of the volumes of one class: a panel a method, bias and limits as lines."""
    c, m = group.axes.labels.index(label), group.axes.metrics.index("volume_ml")
    assert group.reference_ml is not None
    reference = group.reference_ml[:, c]
    methods = [found.method for found in agreements]
    figure, panels = _panels(len(methods), [], row_in=1.35, left=0.6)
    both = [np.column_stack([group.values[method][:, c, m], reference]) for method in methods]
    both = [pair[~np.isnan(pair).any(axis=1)] for pair in both]
    means, gaps = [pair.mean(axis=1) for pair in both], [pair[:, 0] - pair[:, 1] for pair in both]
    ends = [end for a in agreements for end in (a.low_ml, a.high_ml) if end is not None]
    spread = np.concatenate([*gaps, ends, [0.0]])
    margin = 0.08 * (np.ptp(spread) or 1.0)
    width = np.concatenate(means)
    aside = 0.05 * (np.ptp(width) or 1.0)
    pixels = len(width) > VECTOR_POINTS
    for axes, found, mean, gap in zip(panels, agreements, means, gaps, strict=True):
        colour = COLOURS[list(group.values).index(found.method) % len(COLOURS)]
        axes.scatter(mean, gap, s=9, color=colour, alpha=0.8, linewidth=0, rasterized=pixels)
        axes.axhline(0, color=INK, linewidth=0.6, linestyle=":")
        axes.axhline(found.bias_ml, color=INK, linewidth=1.3)
        for end in (found.low_ml, found.high_ml):
            if end is not None:
                axes.axhline(end, color=INK, linewidth=0.9, linestyle="--")
        axes.set(xlim=(width.min() - aside, width.max() + aside), ylim=(spread.min() - margin, spread.max() + margin))
        axes.set_title(_short(found.method, 40), loc="left")
        axes.set_ylabel("difference (ml)")
    panels[-1].set_xlabel("mean of prediction and reference (ml)")
    return figure


def rankings_over_all(rankings: Sequence[Ranking], group: str) -> list[Ranking]:
    """The rankings of a group over all classes and metrics, in the order of the rules."""
    found = {r.rule: r for r in rankings if r.group == group and r.label is None}
    return [found[rule] for rule in RANK_RULES if rule in found]


def _place(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes at a place in inches."""
    w, h = figure.get_size_inches()
    return figure.add_axes((left / w, bottom / h, width / w, height / h))


def _panels(
    n: int, methods: Sequence[str], *, row_in: float = _ROW, left: float | None = None, right: float = _RIGHT
) -> tuple[Figure, list[Axes]]:
    """Panels below one another, with a row for each method, the first on top."""
    names = [_short(method) for method in methods]
    rows = max(len(names), 1)
    height = rows * row_in + 0.12
    left = _name_width(methods) if left is None else left
    figure = new_figure(_WIDTH, _TOP + n * height + (n - 1) * _GAP + _BOTTOM, fitted=False)
    panels = []
    for i in range(n):
        axes = _place(figure, left, _BOTTOM + (n - 1 - i) * (height + _GAP), _WIDTH - left - right, height)
        if names:
            axes.set(ylim=(rows - 0.4, -0.65))
            axes.set_yticks(range(rows), names)
        panels.append(axes)
    return figure, panels


def _finish(axes: Axes, title: str, low: float, high: float) -> None:
    axes.set_xlim(low, high)
    axes.set_title(_short(title, 50), loc="left", pad=4)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _short(name: str, longest: int = _LONGEST) -> str:
    """A name as a chart has room for it; tables have all of it."""
    name = printable(name)
    return name if len(name) <= longest else name[: longest - 1] + "…"


def _name_width(methods: Sequence[str]) -> float:
    return 0.2 + _CHARACTER * max((len(_short(method)) for method in methods), default=1)


def _limits(columns: Sequence[tuple[Floats, Any]], metric: str, include: Sequence[float] = ()) -> tuple[float, float]:
    """The range of a panel: distances that a rule gave to missed structures do not stretch it."""
    in_mm = METRICS[metric].unit == "mm"
    kept = [values[~np.isnan(values) & ~(in_mm & np.asarray(crossed, dtype=bool))] for values, crossed in columns]
    every = np.concatenate([*kept, np.asarray(include, dtype=float)])
    if not np.concatenate(kept).size:
        every = np.concatenate([every, *(values[~np.isnan(values)] for values, _ in columns)])
    if not every.size:
        return 0.0, 1.0
    margin = 0.04 * (float(np.ptp(every)) or max(abs(float(every[0])), 1.0))
    return float(every.min()) - margin, float(every.max()) + margin


def _draw_box(axes: Axes, values: Floats, row: int, low: float, high: float) -> None:
    """The quartiles, and the median within them."""
    known = values[~np.isnan(values)]
    if known.size < 2:
        return
    q1, median, q3 = np.clip(np.percentile(known, (25, 50, 75)), low, high)
    axes.plot(
        [q1, q3, q3, q1, q1],
        [row - 0.3, row - 0.3, row + 0.3, row + 0.3, row - 0.3],
        color=INK,
        linewidth=0.9,
        zorder=3,
    )
    axes.plot([median, median], [row - 0.3, row + 0.3], color=INK, linewidth=2.2, zorder=3)


def _draw_points(
    axes: Axes, values: Floats, crossed: Any, row: int, limits: tuple[float, float], colour: str, *, pixels: bool
) -> None:
    """Dots, spread over the height of a row; crosses for what is one-sided, at the edge where it is beyond."""
    known = np.flatnonzero(~np.isnan(values))
    known = known[np.argsort(values[known], kind="stable")]
    height = row + 0.5 * ((np.arange(1, len(known) + 1) * _GOLDEN) % 1 - 0.5)
    at, marked = np.clip(values[known], *limits), np.asarray(crossed, dtype=bool)[known]
    style: dict[str, Any] = {"color": colour, "rasterized": pixels, "clip_on": False, "zorder": 2.5}
    size = min(9.0, max(2.5, 1800 / max(len(known), 1)))
    axes.scatter(at[~marked], height[~marked], s=size, alpha=0.8, linewidth=0, **style)
    if marked.any():
        axes.scatter(at[marked], height[marked], s=22, marker="x", linewidth=1.2, **style)
