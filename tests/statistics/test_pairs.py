"""All pairs as one family, against the test of stacked columns, and under the null."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from handmade import row, series, structure

from rwtool.evaluation.rows import Rules
from rwtool.statistics.arms import Arm, Axes
from rwtool.statistics.comparison import compare_rows as compare
from rwtool.statistics.pairs import all_pairs, paired_tests, subject_differences
from rwtool.statistics.permutation import paired_permutation_test

RULES = Rules()


def study(n, methods="abc", seed=0, gains=(0, 0.4, 1.2)):
    """Dice and HD of one class in n cases, with an effect common to all methods of a case."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(2, n, 1)) + rng.normal(size=(2, n, len(methods))) + np.array(gains[: len(methods)])
    values = [0.5 + 0.05 * values[0], 30 - 2 * values[1]]
    return [
        row(method, f"c{i}", values[k][i, m], metric=metric)
        for k, metric in enumerate(("dice", "hd"))
        for m, method in enumerate(methods)
        for i in range(n)
    ], values


def test_the_family_is_all_pairs_classes_and_metrics():
    rows, values = study(10)
    comparison = compare(rows, RULES, all_pairs=True)
    stacked = np.column_stack([v[:, m] - v[:, o] for m, o in ((1, 0), (2, 0), (2, 1)) for v in values])
    expected = paired_permutation_test(stacked, higher_is_better=[True, False] * 3)
    assert [(t.method, t.baseline, t.metric) for t in comparison.pairs[:3]] == [
        ("b", "a", "dice"), ("b", "a", "hd"), ("c", "a", "dice"),
    ]  # fmt: skip
    assert [t.result.p_maxt for t in comparison.pairs] == [t.p_maxt for t in expected]
    assert [t.result.p_holm for t in comparison.pairs] == [t.p_holm for t in expected]
    assert [t.result.wins for t in comparison.pairs] == [t.wins for t in expected]


def test_the_flips_of_a_pair_are_those_of_its_test_alone():
    rows, _ = study(30)
    comparison = compare(rows, RULES, all_pairs=True)
    alone = {(t.method, t.baseline, t.metric): t.result.p for t in comparison.tests}
    found = {(t.method, t.baseline, t.metric): t.result.p for t in comparison.pairs}
    assert alone == {key: p for key, p in found.items() if key[1] == "a"}
    assert all(
        t.result.p_maxt >= u.result.p_maxt
        for t in comparison.pairs
        for u in comparison.tests
        if (t.method, t.baseline, t.metric) == (u.method, u.baseline, u.metric)
    )


def test_without_the_tests_against_a_baseline_there_are_all_pairs():
    rows, _ = study(7)
    comparison = compare(rows, RULES, test=False, all_pairs=True)
    assert (comparison.tests, comparison.baseline, len(comparison.pairs)) == ((), None, 6)
    assert compare(rows, RULES).pairs == ()


def test_each_pair_is_tested_without_a_rule_where_that_differs():
    rows = [r for m in "abc" for i in range(6) for r in structure(m, f"c{i}", "ok", dice=0.5, hd=10.0 + i)[1:2]]
    rows += [*structure("a", "d", "ok", dice=0.5, hd=9.0)[1:2], *structure("b", "d", "ok", dice=0.5, hd=9.0)[1:2]]
    rows += structure("c", "d", "missed")[1:2]
    pairs = compare(rows, RULES, all_pairs=True).pairs
    assert [(t.method, t.baseline) for t in pairs if t.undefined == "exclude"] == [("c", "a"), ("c", "b")]


def test_differences_are_over_subjects():
    rows = [*series("a", [0.1, 0.1, 0.1]), *series("b", [0.2, 0.4, 0.2])]
    axes = Axes("", ("c0", "c1", "c2"), (1,), ("dice",), ("s", "s", "t"), np.full(3, 100.0))
    values = np.array([r.value for r in rows]).reshape(2, 1, 3, 1, 1)
    arms = {m: Arm(values[i], np.zeros((1, 3, 1), np.int8)) for i, m in enumerate("ab")}
    found = subject_differences("diagonal", axes, arms, ("b", "a"))
    assert found.values.ravel().tolist() == pytest.approx([0.2, 0.1])
    assert found.defined.all()


def test_every_pair_is_there_once():
    assert len(all_pairs("abcde")) == 10
    assert {frozenset(pair) for pair in all_pairs("abcde")} == {
        frozenset((a, b)) for a in "abcde" for b in "abcde" if a != b
    }


def false_claims(studies, n, gains=(0.0,) * 4):
    """Share of studies of four methods, two classes and two metrics that claim a difference where there is none."""
    rng = np.random.default_rng(n)
    rules = Rules(permutations=999)
    cases = tuple(map(str, range(n)))
    axes = Axes("", cases, (1, 2), ("dice", "hd"), cases, np.full(n, 100.0))
    wrong = 0
    for seed in range(studies):
        values = rng.normal(size=(n, 1, 1, 4)) + rng.normal(size=(n, 2, 2, 4)) + np.array(gains)
        arms = {str(m): Arm(values[None, ..., m], np.zeros((1, n, 2), np.int8)) for m in range(4)}
        tests = paired_tests(axes, arms, all_pairs(list(arms)), SimpleNamespace(**{**vars(rules), "seed": seed}))
        null = [t for t in tests if gains[int(t.method)] == gains[int(t.baseline)]]
        wrong += min(t.result.p_maxt for t in null) < 0.05
    return wrong / studies


def test_a_null_study_rarely_claims_a_difference_between_any_pair():
    assert false_claims(200, 10) < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "gains"), [(12, (0.0,) * 4), (25, (0.0,) * 4), (20, (0.0, 0.0, 0.0, 3.0))])
def test_of_2000_studies_5_percent_claim_a_difference_where_there_is_none(n, gains):
    """Each of these shares has a standard error of half a percent; test_families.py has ten times as many studies."""
    assert 0.01 < false_claims(2000, n, gains) < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)
