import numpy as np
import pytest
from handmade import row, series, tiny
from matplotlib.collections import PathCollection

from rwtool.evaluation.rows import Rules
from rwtool.report import charts
from rwtool.report.cases import group_values
from rwtool.report.figures import drawing, svg_text
from rwtool.statistics.comparison import compare_rows as compare

TITLES = {1: "1 RV", 2: "2 MYO"}


@pytest.fixture(autouse=True)
def _drawing():
    with drawing():
        yield


def dots(axes, marker="o"):
    """Places of the points of a panel, a set a method, that have a marker."""
    crosses = marker == "x"
    found = [c for c in axes.collections if isinstance(c, PathCollection)]
    return [np.asarray(c.get_offsets()) for c in found if (len(c.get_paths()[0].vertices) < 10) == crosses]


def lines(axes):
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines]


def texts(axes):
    return [text.get_text() for text in axes.texts]


def names(axes):
    return [label.get_text() for label in axes.get_yticklabels()]


def grouped(rows, rules=None, **options):
    rules = rules or Rules()
    comparison = compare(rows, rules, **options)
    return group_values(rows, comparison, rules, ""), comparison


# --- every case ---


def test_every_case_is_a_dot_at_its_value_in_the_row_of_its_method():
    group, _ = grouped(tiny())
    (axes,) = charts.values_chart(group, TITLES, "dice").axes
    old, new = dots(axes)
    assert sorted(new[:, 0]) == [0.375, 0.5, 0.625, 0.75, 0.875]
    assert old[:, 0].tolist() == [0.25] * 6
    assert np.all(np.abs(old[:, 1]) <= 0.25)
    assert np.all(np.abs(new[:, 1] - 1) <= 0.25)
    assert [places[:, 0].tolist() for places in dots(axes, "x")] == [[0.0]]  # c5, which is missed
    assert names(axes) == ["old", "new"]
    assert axes.get_title(loc="left") == "1 RV"
    assert axes.get_xlabel() == "Dice"


def test_the_box_spans_the_quartiles_of_all_cases():
    group, _ = grouped(series("a", [1.0, 2.0, 3.0, 4.0, 9.0], metric="hd"))
    (axes,) = charts.values_chart(group, TITLES, "hd").axes
    box, median = lines(axes)
    assert (min(box[0]), max(box[0]), median[0]) == (2.0, 4.0, [3.0, 3.0])


def test_the_distance_of_a_missed_structure_does_not_stretch_the_axis_and_stands_at_its_edge():
    group, _ = grouped(tiny())
    (axes,) = charts.values_chart(group, TITLES, "hd").axes
    low, high = axes.get_xlim()
    assert (low, high) == pytest.approx((8 - 0.08, 10 + 0.08))
    assert [places[:, 0].tolist() for places in dots(axes, "x")] == [[high]]


def test_where_every_structure_is_missed_the_axis_holds_them():
    group, _ = grouped([row("a", f"c{i}", None, metric="hd", status="missed") for i in range(2)])
    (axes,) = charts.values_chart(group, TITLES, "hd").axes
    assert axes.get_xlim()[0] < 100 < axes.get_xlim()[1]


def test_a_panel_a_class_with_an_axis_of_its_own():
    rows = [row("a", f"c{i}", 10.0**label + i, label=label, metric="hd") for label in (1, 2) for i in range(2)]
    first, second = charts.values_chart(grouped(rows)[0], TITLES, "hd").axes
    assert first.get_xlim()[1] < 12
    assert second.get_xlim()[0] > 99
    assert first.get_position().y0 > second.get_position().y1


def test_many_points_are_pixels_and_few_are_vectors():
    for n, pixels in ((10, 0), (charts.VECTOR_POINTS + 1, 1)):
        group, _ = grouped(series("a", np.linspace(0, 1, n)))
        assert svg_text(charts.values_chart(group, TITLES, "dice")).count("data:image/png") == pixels


# --- differences ---


def test_differences_with_their_mean_interval_and_p():
    group, comparison = grouped(tiny())
    tests = [test for test in comparison.tests if test.metric == "dice"]
    (axes,) = charts.differences_chart(group, tests, TITLES, "dice", baseline="old").axes
    assert sorted(dots(axes)[0][:, 0]) == [0.125, 0.25, 0.375, 0.5, 0.625]
    assert dots(axes, "x")[0][:, 0].tolist() == [-0.25]
    (result,) = (test.result for test in tests)
    zero, interval, mean = lines(axes)
    assert zero[0] == [0, 0]
    assert interval[0] == [result.ci_low, result.ci_high] == [-0.25, 0.625]
    assert mean == ([result.mean_difference], [0])
    assert texts(axes) == ["p 0.1250"]
    assert names(axes) == ["new"]
    assert axes.get_xlabel() == "Dice: method - old"


def test_an_interval_without_bounds_is_not_drawn():
    rows = series("a", [0.1, 0.2]) + series("b", [0.2, 0.4])
    group, comparison = grouped(rows)
    assert comparison.tests[0].result.ci_low is None
    (axes,) = charts.differences_chart(group, comparison.tests, TITLES, "dice", baseline="a").axes
    assert len(lines(axes)) == 2  # zero and the mean


# --- all pairs and rankings ---


def three():
    """`c` is better than `a` and `b` in all of eight cases, which do not differ.

    Of 256 flips, 2 give as large a mean of c - a, and 2 others align all of b - a, which then is as clear: 4 / 256.
    """
    rows = []
    for i in range(8):
        sign = (-1) ** i
        rows += [row("a", f"k{i}", 0.5), row("b", f"k{i}", 0.5 + 0.01 * sign), row("c", f"k{i}", 0.9 + 0.001 * i)]
    return compare(rows, Rules(), all_pairs=True, rank=True)


def test_the_map_says_p_and_which_is_better():
    comparison = three()
    (axes,) = charts.significance_chart(comparison.pairs, comparison.methods, alpha=0.05).axes
    cells = {(round(t.get_position()[1] - 0.5), round(t.get_position()[0] - 0.5)): t.get_text() for t in axes.texts}
    assert cells == {
        (0, 0): "-", (0, 1): "1.0000", (0, 2): "0.0156 ↓",
        (1, 0): "1.0000", (1, 1): "-", (1, 2): "0.0156 ↓",
        (2, 0): "0.0156 ↑", (2, 1): "0.0156 ↑", (2, 2): "-",
    }  # fmt: skip
    assert len(axes.patches) == 4
    assert names(axes) == ["a", "b", "c"]


def test_the_area_of_a_blob_is_the_share_of_its_rank():
    ranking = charts.rankings_over_all(three().rankings, "")[0]
    (axes,) = charts.share_chart(ranking).axes
    shares = [(r + 1, row, s) for row, found in enumerate(ranking.ranks) for r, s in enumerate(found.shares) if s > 0]
    blobs = [(*c.get_offsets()[0].tolist(), c.get_sizes()[0]) for c in axes.collections]
    assert [blob[:2] for blob in blobs] == [share[:2] for share in shares]
    np.testing.assert_allclose([blob[2] / blobs[-1][2] for blob in blobs], [s[2] / shares[-1][2] for s in shares])
    assert "100" in texts(axes)  # c is always the first
    crosses = [line for line in axes.lines if line.get_marker() == "x"]
    assert [line.get_xdata()[0] for line in crosses] == [found.rank for found in ranking.ranks]


def test_a_line_a_method_through_its_ranks_by_each_rule():
    over_all = charts.rankings_over_all(three().rankings, "")
    assert [ranking.rule for ranking in over_all] == ["mean-then-rank", "rank-then-mean", "test-then-rank"]
    (axes,) = charts.rule_chart(over_all).axes
    found = [[round(y) for y in line.get_ydata()] for line in axes.lines]
    assert found == [[ranking.ranks[m].rank for ranking in over_all] for m in range(3)]
    assert texts(axes) == ["a", "b", "c"]
    assert len({line.get_marker() for line in axes.lines}) == 3


def test_bars_join_methods_that_no_test_tells_apart():
    comparison = three()
    assert comparison.rank_tests == comparison.pairs
    assert charts.alike_sets(["c", "a", "b"], comparison.pairs, alpha=0.05) == [[1, 2]]
    assert charts.alike_sets(["c", "a", "b"], comparison.pairs, alpha=0.001) == [[0, 1, 2]]
    ranking = next(r for r in comparison.rankings if r.label == 1 and r.rule == "rank-then-mean")
    (axes,) = charts.alike_chart(ranking, comparison.rank_tests, alpha=0.05).axes
    assert names(axes)[0] == "c"
    bars = [line for line in axes.lines if line.get_linewidth() == 2.4]
    assert [line.get_ydata().tolist() for line in bars] == [[1, 2]]


def test_a_bar_does_not_join_what_lies_between_and_differs():
    """a - b differ, b - c and a - c do not: two sets, and one leaves b out."""
    comparison = three()
    test = next(t for t in comparison.pairs if t.result.p_maxt < 0.05)
    pair = {test.method, test.baseline}
    (third,) = {"a", "b", "c"} - pair
    order = [*sorted(pair), third]
    assert charts.alike_sets(order, [test], alpha=0.05) == [[0, 2], [1, 2]]


# --- agreement ---


def test_bland_and_altman_with_the_lines_of_the_table():
    rows = [
        row("a", f"c{i}", 5.0 + gap, metric="volume_ml", reference_ml=5.0)
        for i, gap in enumerate([-1.0, 0.0, 1.0, 2.0])
    ]
    group, comparison = grouped(rows)
    (found,) = comparison.agreement
    (axes,) = charts.agreement_chart(group, 1, comparison.agreement).axes
    np.testing.assert_allclose(dots(axes)[0], [[4.5, -1], [5, 0], [5.5, 1], [6, 2]])
    assert [line[1][0] for line in lines(axes)] == [0, found.bias_ml, found.low_ml, found.high_ml]
    assert axes.get_title(loc="left") == "a"


# --- names ---


@pytest.mark.parametrize("name", ["$x^2$", "心臓 <b>&", "\u202eevil\x1b", "x" * 200])
def test_any_name_is_drawn_as_it_is_or_cut(name):
    group, comparison = grouped(series(name, [0.1, 0.3]) + series("b", [0.2, 0.5]))
    figure = charts.values_chart(group, {1: name}, "dice")
    svg = svg_text(figure)
    assert all(character.isprintable() or character in "\n\t" for character in svg)
    shown = names(figure.axes[0])[0]
    assert len(shown) <= 20
    assert svg_text(charts.differences_chart(group, comparison.tests, {1: name}, "dice", baseline=name))
