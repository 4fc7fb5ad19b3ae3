import math

import numpy as np
import pytest
from handmade import row, series, structure, tiny

from rwtool.evaluation.rows import Rules
from rwtool.report.cases import WORST, count_table, group_values, worst_cases, worst_metric, worst_table
from rwtool.statistics.comparison import compare_rows as compare


def values_of(rows, rules=None, group="", **options):
    rules = rules or Rules()
    return group_values(rows, compare(rows, rules, **options), rules, group)


def worst_of(rows, rules=None):
    rules = rules or Rules()
    comparison = compare(rows, rules)
    groups = [group_values(rows, comparison, rules, group) for group in comparison.groups]
    return worst_cases(groups, comparison, rules)


# --- what charts show is what tables and tests count ---


def test_values_are_those_of_the_tables_and_a_missed_structure_is_marked():
    found = values_of(tiny())
    assert found.axes.metrics == ("dice", "hd")
    np.testing.assert_array_equal(found.values["new"][:, 0, 0], [0.375, 0.5, 0.625, 0.75, 0.875, 0.0])
    np.testing.assert_array_equal(found.values["new"][:, 0, 1], [8, 8, 8, 8, 8, 100])  # the diagonal
    assert found.one_sided["new"][:, 0].tolist() == [False] * 5 + [True]
    assert not found.one_sided["old"].any()
    assert found.reference_ml is None


@pytest.mark.parametrize("undefined", ["diagonal", "exclude", 50.0])
def test_means_of_the_values_and_of_the_differences_are_those_of_the_comparison(undefined):
    rules = Rules(undefined=undefined)
    comparison = compare(tiny(), rules)
    found = group_values(tiny(), comparison, rules, "")
    for cell in comparison.cells:
        if undefined != "exclude":  # there, means are over the cases that every method has
            m = found.axes.metrics.index(cell.metric)
            assert np.nanmean(found.values[cell.method][:, 0, m]) == pytest.approx(cell.spread.mean, abs=1e-15)
    for test in comparison.tests:
        if test.undefined == undefined:
            of_metric = found.differences["new"].values[:, 0, found.axes.metrics.index(test.metric)]
            assert np.nanmean(of_metric) == pytest.approx(test.result.mean_difference, abs=1e-15)
            assert np.count_nonzero(~np.isnan(of_metric)) == test.result.n


def test_runs_are_averaged_and_one_that_misses_marks_the_case():
    rows = [row("a", "c", 0.8, run="1"), row("a", "c", 0.0, run="2", status="missed")]
    found = values_of(rows)
    assert found.values["a"][0, 0, 0] == 0.4
    assert found.one_sided["a"].tolist() == [[True]]


def test_the_cases_of_a_subject_are_one_difference_marked_where_any_of_them_is():
    rows = [
        *(row("a", f"c{i}", value, subject=s) for i, (value, s) in enumerate([(0.5, "q"), (0.7, "p"), (0.9, "p")])),
        *(row("b", f"c{i}", value, subject=s) for i, (value, s) in enumerate([(0.75, "q"), (0.7, "p")])),
        row("b", "c2", 0.0, subject="p", status="missed"),
    ]
    found = values_of(rows).differences["b"]
    np.testing.assert_allclose(found.values[:, 0, 0], [-0.45, 0.25])  # p, then q
    assert found.one_sided[:, 0].tolist() == [True, False]


def test_volumes_of_the_reference_stand_beside_those_measured():
    rows = [row("a", f"c{i}", 5.0 + i, metric="volume_ml", reference_ml=4.0 + i) for i in range(2)]
    assert values_of([*rows, row("a", "c2", 1.0, metric="volume_ml")]).reference_ml[:2, 0].tolist() == [4.0, 5.0]


# --- the worst ---


def test_the_worst_are_the_lowest_means_over_the_foreground_classes():
    rows = [
        row("a", "c0", 0.9, label=1), row("a", "c0", 0.3, label=2), row("a", "c0", 0.0, label=0),
        row("a", "c1", 0.5, label=1), row("a", "c1", 0.6, label=2), row("a", "c1", 0.99, label=0),
        row("a", "c2", 0.7, label=1), row("a", "c2", None, label=2, status="absent"),
    ]  # fmt: skip
    found = worst_of(rows)["a"]
    assert [(w.case, w.label) for w in found] == [("c1", 1), ("c0", 2), ("c2", 1)]
    assert [w.score for w in found] == pytest.approx([0.55, 0.6, 0.7])


def test_of_a_distance_the_largest_are_the_worst_and_a_missed_structure_is_worse_than_any_also_under_exclude():
    rows = [
        row("a", "c0", 3.0, metric="hd95"), row("a", "c1", 30.0, metric="hd95"),
        row("a", "c2", None, metric="hd95", status="missed"), row("a", "c3", None, metric="hd95", status="absent"),
    ]  # fmt: skip
    for undefined in ("diagonal", "exclude"):
        found = worst_of(rows, Rules(undefined=undefined))["a"]
        assert [w.case for w in found] == ["c2", "c1", "c0"]
        assert found[0].status == "missed"
        assert found[0].values == (100.0,) if undefined == "diagonal" else math.isnan(found[0].values[0])


def test_the_worst_run_is_the_one_that_is_shown():
    rows = [
        row("a", "c0", 0.8, run="1"), row("a", "c0", 0.6, run="2"),
        row("a", "c1", 0.1, run="1"), row("a", "c1", 0.9, run="2"),
    ]  # fmt: skip
    found = worst_of(rows)["a"]
    assert [(w.case, w.run) for w in found] == [("c1", "1"), ("c0", "2")]
    assert [w.score for w in found] == pytest.approx([0.5, 0.7])


def test_ten_of_each_method_over_all_groups_and_the_first_of_those_that_tie():
    values = [0.5 + 0.01 * i for i in range(12)]
    rows = [*series("a", values, group="ED"), row("a", "d", 0.4, group="ES"), row("a", "e", 0.4, group="ES")]
    found = worst_of(rows)["a"]
    assert len(found) == WORST == 10
    assert [(w.case, w.group) for w in found[:3]] == [("d", "ES"), ("e", "ES"), ("c0", "ED")]


def test_without_a_better_direction_none_is_the_worst():
    rows = [row("a", "c", 5.0, metric="volume_ml")]
    assert worst_metric(compare(rows, Rules())) is None
    assert worst_of(rows) == {"a": []}


def test_the_table_of_the_worst_to_the_letter():
    rows, rules = tiny(), Rules()
    comparison = compare(rows, rules)
    table = worst_table(worst_of(rows)["new"][:2], comparison)
    assert table.title == "new: the 2 worst by mean Dice"
    assert table.columns == ("place", "case", "worst class", "status", "mean Dice", "Dice", "HD (mm)")
    assert list(table.rows) == [
        ("1", "c5", "1 RV", "missed", "0.000", "0.000", "100.00"),
        ("2", "c0", "1 RV", "ok", "0.375", "0.375", "8.00"),
    ]
    assert table.text_columns == 4
    assert worst_table([], comparison) is None


def test_the_table_of_the_worst_names_groups_and_runs_where_there_are_some():
    rows = [row("a", "c", 0.5, run=run, group="ED") for run in ("1", "2")]
    table = worst_table(worst_of(rows)["a"], compare(rows, Rules()))
    assert table.columns[:5] == ("place", "case", "group", "worst run", "worst class")
    assert table.rows[0][:5] == ("1", "c", "ED", "1", "1 RV")
    assert table.text_columns == 6


def test_the_table_of_counts_to_the_letter():
    rows = tiny() + structure("new", "c6", "hallucinated")[:2] + structure("old", "c6", "absent")[:2]
    table = count_table(compare(rows, Rules()), "")
    assert table.columns == ("class", "method", "in both", "missed", "hallucinated", "absent", "no result")
    assert list(table.rows) == [("1 RV", "old", "6", "0", "0", "1", "0"), ("", "new", "5", "1", "1", "0", "0")]
