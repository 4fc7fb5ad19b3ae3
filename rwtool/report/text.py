"""A comparison in words and in cells of text: what the terminal, Markdown and LaTeX show alike."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rwtool.errors import shorten
from rwtool.evaluation.rows import Label, Rules, Undefined, label_order
from rwtool.metrics.measures import METRICS
from rwtool.statistics.comparison import Comparison, GroupClass, Spread
from rwtool.statistics.intervals import BOOTSTRAP_DRAWS
from rwtool.statistics.pairs import ComparisonTest
from rwtool.statistics.ranking import FLIPS_OF_A_SAMPLE, SAMPLES

_TITLES = {
    "dice": "Dice", "hd95": "HD95", "hd": "HD", "assd": "ASSD", "masd": "MASD", "nsd": "NSD",
    "volume_ml": "Volume", "volume_error": "Volume error",
}  # fmt: skip
_DECIMALS = {"": 3, "mm": 2, "ml": 2}
_HD95 = {
    "directed": "the larger of the two directed 95th percentiles (as MONAI and Metrics Reloaded)",
    "pooled": "95th percentile of both directions together (as MedPy and nnU-Net v1)",
    None: "rule not recorded: no summary.json beside the table of cases",
}
METRICS_ABREAST = 2  # in a table of 100 to 120 columns


class Entry(NamedTuple):
    """One cell: mean, SD ('' where there is none), star with arrow, interval, and n where it is not the row's."""

    mean: str
    sd: str
    mark: str
    interval: str
    n: str


class ResultRow(NamedTuple):
    """The metrics of one class and method; a None is a cell with nothing to say.

    With `exclude`, distances of the cases where every method has one, as in the row above with a rule for the others.
    """

    label: Label
    method: str
    exclude: bool
    n: int
    entries: tuple[Entry | None, ...]


class Table(NamedTuple):
    """Text, the first `text_columns` of it to the left."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    text_columns: int


def metric_title(metric: str) -> str:
    """``HD95 (mm)``."""
    unit = METRICS[metric].unit
    return _TITLES[metric] + (f" ({unit})" if unit else "")


def class_title(summary: GroupClass) -> str:
    """``1 RV``: the label of the files and the name, where there is one."""
    label = str(summary.label)
    return label if summary.name in ("", label) else f"{label} {summary.name}"


def label_title(label: Label) -> str:
    """``class 1``, or the name of a region."""
    return label if isinstance(label, str) else f"class {label}"


def rule_title(rule: Undefined) -> str:
    """``diagonal``, ``exclude`` or ``50 mm``."""
    return rule if isinstance(rule, str) else f"{rule:g} mm"


def level_title(rules: Rules) -> str:
    """``95 % CI``."""
    return f"{round(100 * (1 - rules.alpha), 9):g} % CI"


def result_rows(comparison: Comparison, rules: Rules, group: str) -> Iterator[ResultRow]:
    """Each class and method of a group, with a second row where distances differ without a rule."""
    cells = {(c.label, c.method, c.metric): c for c in comparison.cells if c.group == group}
    tests = {(t.label, t.method, t.metric, t.undefined): t for t in comparison.tests if t.group == group}
    for summary in comparison.classes:
        if summary.group != group:
            continue
        label = summary.label
        for method in comparison.methods:
            row = [cells[label, method, metric] for metric in comparison.metrics]
            ruled = [tests.get((label, method, metric, rules.undefined)) for metric in comparison.metrics]
            n = max(cell.spread.n for cell in row)
            yield ResultRow(
                label, method, False, n,
                tuple(_entry(c.spread, c.metric, n, _mark(t, rules)) for c, t in zip(row, ruled, strict=True)),
            )  # fmt: skip
            if rules.undefined == "exclude":
                continue
            strict = [tests.get((label, method, metric, "exclude")) for metric in comparison.metrics]
            n = max(cell.exclude.n if cell.exclude else 0 for cell in row) or n
            entries = tuple(
                None
                if cell.exclude is None and excluded is None
                else _entry(cell.exclude or cell.spread, cell.metric, n, _mark(excluded or test, rules))
                for cell, excluded, test in zip(row, strict, ruled, strict=True)
            )
            if any(entries):
                yield ResultRow(label, method, True, n, entries)


def _entry(spread: Spread, metric: str, n: int, mark: str) -> Entry:
    decimals = _DECIMALS[METRICS[metric].unit]
    mean, sd = ("" if value is None else f"{value:.{decimals}f}" for value in (spread.mean, spread.sd))
    interval = "" if spread.ci_low is None else f"[{spread.ci_low:.{decimals}f}, {spread.ci_high:.{decimals}f}]"
    return Entry(mean or "-", sd, mark, interval, "" if spread.n == n else str(spread.n))


def _mark(test: ComparisonTest | None, rules: Rules) -> str:
    if test is None or test.result.p is None or test.result.p >= rules.alpha:
        return ""
    return "*" + {1: "↑", -1: "↓", 0: ""}[test.direction]


def result_tables(comparison: Comparison, rules: Rules, group: str) -> Iterator[Table]:
    """Mean ± SD and interval of a group, a few metrics abreast, with the counts of each status."""
    summaries = {summary.label: summary for summary in comparison.classes if summary.group == group}
    counts = {(c.label, c.method): c for c in comparison.counts if c.group == group}
    rows = list(result_rows(comparison, rules, group))
    for first in range(0, len(comparison.metrics), METRICS_ABREAST):
        metrics = comparison.metrics[first : first + METRICS_ABREAST]
        entries = [row.entries[first : first + METRICS_ABREAST] for row in rows]
        columns = [_aligned(column) for column in zip(*entries, strict=True)]
        lines = []
        for i, row in enumerate(rows):
            if row.exclude and not any(entries[i]):
                continue
            opens = row.method == comparison.methods[0] and not row.exclude
            summary, count = summaries[row.label], counts[row.label, row.method]
            lines.append(
                (
                    class_title(summary) if opens else "",
                    "  (exclude)" if row.exclude else row.method,
                    *(column[i] for column in columns),
                    str(row.n),
                    "" if row.exclude else f"{count.missed}/{count.hallucinated}/{count.absent}",
                    share_text(summary.share) if opens else "",
                )
            )
        titles = tuple(metric_title(metric) for metric in metrics)
        heads = ("class", "method", *titles, "n", "missed/\nhalluc./\nabsent", "share of\nvoxels")
        yield Table(table_title(comparison, group, f"mean ± SD [{level_title(rules)}]"), heads, lines, 2 + len(metrics))


def _aligned(entries: Sequence[Entry | None]) -> list[str]:
    """Write the cells of a column so that their numbers stand below one another."""
    there = [entry for entry in entries if entry]
    left, right, star = (max((len(getattr(e, name)) for e in there), default=0) for name in ("mean", "sd", "mark"))
    texts = []
    for entry in entries:
        if entry is None:
            texts.append("")
            continue
        number = f"{entry.mean:>{left}}" + (f" ± {entry.sd:>{right}}" if entry.sd else "")
        mark = f"{entry.mark:<{star}}" if entry.interval else entry.mark
        texts.append(" ".join(part for part in (number, mark, entry.interval, entry.n and f"(n {entry.n})") if part))
    return texts


def share_text(share: float | None) -> str:
    """``10.0 %``, or ``-``."""
    return "-" if share is None else f"{100 * share:.2g} %" if share < 0.0995 else f"{100 * share:.1f} %"


def table_title(comparison: Comparison, group: str, what: str) -> str:
    """What a table shows, of how many cases and subjects."""
    summary = next(summary for summary in comparison.classes if summary.group == group)
    runs = {len(runs) for runs in comparison.runs.values()}
    parts = [f"{summary.cases} case{'s' * (summary.cases != 1)}"]
    if summary.subjects != summary.cases:
        parts.append(f"{summary.subjects} subject{'s' * (summary.subjects != 1)}")
    if runs != {1}:
        parts.append("runs averaged per case: " + ", ".join(f"{m} {len(r)}" for m, r in comparison.runs.items()))
    return f"{group + ': ' if group else ''}{what} ({'; '.join(parts)})"


class TestLine(NamedTuple):
    """A test, and how its line opens: class, metric and method, empty where they stand above."""

    test: ComparisonTest
    opening: tuple[str, str, str]


def test_lines(comparison: Comparison, rules: Rules, group: str) -> Iterator[TestLine]:
    """The tests of a group by class, metric and method, those without a rule below those with one."""
    titles = {summary.label: class_title(summary) for summary in comparison.classes if summary.group == group}
    tests = [test for test in comparison.tests if test.group == group]
    order = {metric: i for i, metric in enumerate(comparison.metrics)}
    # a stable sort: "exclude" stays last
    tests.sort(key=lambda t: (label_order(t.label), order[t.metric], comparison.methods.index(t.method)))
    above: tuple[Label, str] | None = None
    for test in tests:
        place = (test.label, test.metric)
        yield TestLine(
            test,
            (
                "" if above and above[0] == test.label else titles[test.label],
                "" if above == place else metric_title(test.metric),
                "  (exclude)" if test.undefined != rules.undefined else test.method,
            ),
        )
        above = place


def test_table(comparison: Comparison, rules: Rules, group: str) -> Table | None:
    """Every test of a group; None without tests."""
    lines = [
        (
            *opening,
            str(test.result.n),
            str(test.result.undefined_pairs),
            _difference(test),
            *(p_text(p) for p in (test.result.p, test.result.p_maxt, test.result.p_holm)),
            "-" if test.result.wins is None else f"{test.result.wins}/{test.result.ties}/{test.result.losses}",
        )
        for test, opening in test_lines(comparison, rules, group)
    ]
    if not lines:
        return None
    heads = (
        "class", "metric", "method", "n", "left\nout", f"mean difference\n[{level_title(rules)}]", "p", "p\nmax-T",
        "p\nHolm", "better/\ntied/\nworse",
    )  # fmt: skip
    return Table(table_title(comparison, group, f"tests against {comparison.baseline}"), heads, lines, 3)


def _difference(test: ComparisonTest) -> str:
    result = test.result
    if result.mean_difference is None:
        return "-"
    return f"{result.mean_difference:+.{_decimals(test)}f} {limits_text(test, result.ci_low, result.ci_high)}"


def _decimals(test: ComparisonTest) -> int:
    return _DECIMALS[METRICS[test.metric].unit] + 1


def limits_text(test: ComparisonTest, low: float | None, high: float | None) -> str:
    """``[-0.0100, +0.0200]`` with the decimals of a difference, or ``[unbounded]``."""
    decimals = _decimals(test)
    return "[unbounded]" if low is None else f"[{low:+.{decimals}f}, {high:+.{decimals}f}]"


def number_text(value: float | None, metric: str) -> str:
    """A value with the decimals of its metric, or ``-``."""
    return "-" if value is None or math.isnan(value) else f"{value:.{_DECIMALS[METRICS[metric].unit]}f}"


def p_text(p: float | None) -> str:
    """``0.0312``, ``2e-05`` or ``-``."""
    return "-" if p is None else f"{p:.4f}" if p >= 0.001 else f"{p:.2g}"


def definitions(comparison: Comparison, rules: Rules) -> dict[str, str]:
    """Every definition in force, in words."""
    found = {"spread": "mean and SD (n - 1) over cases, after the mean over the runs of a method"}
    how = "Student's t" if rules.interval == "t" else f"{BOOTSTRAP_DRAWS:,} BCa bootstrap draws (seed {rules.seed})"
    found["interval"] = f"{level_title(rules)} of the mean over subjects by {how}; it holds from about 20 subjects"
    if "dice" in comparison.metrics:
        found["dice"] = "2|A.B| / (|A| + |B|); 0 where missed or hallucinated, left out where absent"
    if "hd95" in comparison.metrics:
        found["hd95"] = (f"{rules.hd95}, " if rules.hd95 else "") + _HD95[rules.hd95]
    if "nsd" in comparison.metrics and rules.nsd_tolerance_mm:
        found["nsd"] = "tolerance " + ", ".join(
            f"{mm:g} mm ({label_title(label)})" for label, mm in rules.nsd_tolerance_mm
        )
    if any(METRICS[metric].unit == "mm" for metric in comparison.metrics):
        found["undefined"] = f"{rule_title(rules.undefined)}; " + _undefined(rules.undefined)
    if rules.ignore is not None:
        found["ignore"] = f"voxels of label {rules.ignore} in the reference belong to no class"
    if comparison.baseline is not None or comparison.pairs:
        found["test"] = _test(comparison, rules)
        found["empty"] = (
            "in a pair, where the reference lacks a class that only one method hallucinates, the empty one scores "
            "Dice 1, NSD 1 and distance 0; a case empty in both is left out"
        )
    if comparison.baseline is not None:
        found["effect"] = (
            "approximate, by Student's t: d_z = mean / SD of the differences; subjects for 80 % power at the observed "
            f"d_z, alpha {rules.alpha:g}; the chance that the method is not better, given the data"
        )
        if rules.margin:
            found["margin"] = _margin(rules)
        found["star"] = (
            f"* p < {rules.alpha:g} (not adjusted) against {comparison.baseline}, ↑ better or ↓ worse; p max-T and p "
            "Holm are adjusted over the foreground classes and metrics of one method"
        )
    if comparison.pairs:
        found["pairs"] = (
            f"every method against every other; * p < {rules.alpha:g} by max-T over all pairs, foreground classes and "
            "metrics, ↑ the row's method better or ↓ worse (+ or - larger or smaller, where neither is better)"
        )
    if comparison.rankings:
        found["ranking"] = _ranking(rules)
    if comparison.agreement:
        found["agreement"] = (
            "prediction - reference over cases: bias and its limits, bias +- 1.96 SD (Bland and Altman); ICC(3,1) is "
            "for consistency, which a constant bias does not lower"
        )
    return found


def statements(comparison: Comparison, rules: Rules) -> list[str]:
    """Definitions and notes as lines."""
    lines = [f"{term}: {text}" for term, text in definitions(comparison, rules).items()]
    return lines + [f"note: {note}" for note in notes(comparison)]


def _undefined(rule: Undefined) -> str:
    strict = "distances over the cases where every method has one (in a test: both methods)"
    if rule == "exclude":
        return strict
    mm = "the diagonal of its volume" if rule == "diagonal" else rule_title(rule)
    return f"the distance of a missed or hallucinated structure is {mm}; (exclude): {strict}"


def _test(comparison: Comparison, rules: Rules) -> str:
    results = [test.result for test in comparison.tests or comparison.pairs]
    n = sorted({result.n for result in results})
    how = []
    exact = sorted({result.permutations for result in results if result.exact})
    drawn = any(not result.exact for result in results)
    if exact:
        how.append(f"exact ({_range(exact)} sign flips)")
    if drawn:
        how.append(f"Monte Carlo (m = {rules.permutations:,}, seed {rules.seed})")
    subjects = f"subjects by '{rules.subject}'" if rules.subject else "subjects"
    return (
        f"paired permutation test of the absolute mean difference, two-sided; n = {_range(n)} {subjects}; "
        + " and ".join(how)
    )


def _margin(rules: Rules) -> str:
    of_metrics = ", ".join(f"{value:g} {METRICS[name].unit}".strip() + f" ({name})" for name, value in rules.margin)
    return (
        f"{of_metrics}: equivalent where the {round(100 * (1 - 2 * rules.alpha), 9):g} % interval of the mean "
        "difference, by inverting the test, lies within it on both sides; not worse where its worse end does"
    )


def _ranking(rules: Rules) -> str:
    return (
        "mean-then-rank ranks the means; rank-then-mean ranks within each subject and averages; test-then-rank counts "
        f"the methods beaten with p max-T < {rules.alpha:g} over all pairs; over all, the mean rank; ties share the "
        f"best rank; {SAMPLES:,} bootstrap samples of subjects (seed {rules.seed}), tested with {FLIPS_OF_A_SAMPLE} "
        "flips; tau-b is Kendall's, between the ranking of a sample and this one"
    )


def _range(values: Sequence[int]) -> str:
    return f"{values[0]:,}" if values[0] == values[-1] else f"{values[0]:,} to {values[-1]:,}"


def notes(comparison: Comparison) -> list[str]:
    """What a reader must know besides: tests that cannot reach significance, runs without results, repeated scans."""
    found = [f"incomplete: {what}" for what in comparison.incomplete]
    out_of_reach: dict[tuple[str, int, str], list[ComparisonTest]] = {}
    every = comparison.tests or comparison.pairs
    for test in every:
        if test.result.note is not None:
            out_of_reach.setdefault((test.group, test.result.n, test.result.note), []).append(test)
    for (_, n, note), tests in out_of_reach.items():
        found.append(f"{_tests_named(comparison, tests)}: n = {n}: {note}")
    for group in comparison.groups:
        tests = [test for test in every if test.group == group and test.result.skewed]
        if tests:
            sizes = sorted(abs(test.result.skewness or 0.0) for test in tests)
            size = f"{sizes[0]:.1f}" if len(tests) == 1 else f"{sizes[0]:.1f} to {sizes[-1]:.1f}"
            found.append(
                f"{_tests_named(comparison, tests)}: the differences are skewed (skewness {size} in size) and the test "
                "presumes symmetric ones, so p may be too small (by simulation up to 9 % of tests and 24 % of families "
                "had p < 0.05 by chance) and the interval too short; look at the subjects that stand out, weigh "
                "better/tied/worse, which presume no symmetry, and ask for a smaller p, such as 0.01"
            )
    for lack in comparison.no_results:
        who = f"{lack.method} run {lack.run}" if lack.run else lack.method
        where = f" of {lack.group}" if lack.group else ""
        found.append(
            f"{who} has no result for {len(lack.cases)} case{'s' * (len(lack.cases) != 1)}{where}, which "
            f"{'is' if len(lack.cases) == 1 else 'are'} left out and counted: {shorten(lack.cases)}"
        )
    if any(len(runs) > 1 for runs in comparison.runs.values()):
        found.append("missed, hallucinated and absent are counted over cases and runs")
    if comparison.suggested_subject:
        found.append(
            "the cases look like several scans of some subjects, which makes p too small; if they are, give "
            f"subject='{comparison.suggested_subject}'"
        )
    return found


def _tests_named(comparison: Comparison, tests: Sequence[ComparisonTest]) -> str:
    """Name tests of one group; all of them by the group."""
    group, every = tests[0].group, comparison.tests or comparison.pairs
    if len(tests) == sum(test.group == group for test in every):
        return group or "all tests"
    names = []
    for test in tests:
        method = test.method if comparison.tests else f"{test.method} - {test.baseline}"
        name = "/".join(part for part in (group, method, str(test.label), test.metric) if part)
        names.append(name + " (exclude)" * (test.undefined != every[0].undefined))
    return shorten(names)
