"""Rankings by hand, and their bootstrap against exact counts and plain loops."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from handmade import row, series, structure

from rwtool.errors import UsageError
from rwtool.evaluation.rows import Rules
from rwtool.statistics import ranking
from rwtool.statistics.comparison import compare_rows as compare
from rwtool.statistics.intervals import bootstrap_counts
from rwtool.statistics.permutation import paired_permutation_test

RULES = Rules()
SURE = 4 * math.sqrt(0.25 / 1000)
"""Four standard errors of a share of 1000 samples."""


def ranked(rows, rule, label=1, metric="dice", rules=RULES):
    rankings = compare(rows, rules, rank=True).rankings
    (found,) = (r for r in rankings if (r.rule, r.label, r.metric) == (rule, label, metric))
    return found


def places(found):
    return [place.rank for place in found.ranks]


def scores(found):
    return [place.score for place in found.ranks]


def table(values, **fields):
    """Methods a, b, ... from rows of a (n_subjects, n_methods) table."""
    return [r for m, column in zip("abcd", np.transpose(values), strict=False) for r in series(m, column, **fields)]


OUTLIER = [[0.8, 0.7, 0.6], [0.8, 0.7, 0.6], [0.8, 0.7, 0.6], [0.1, 0.9, 0.6]]
"""a is first in three subjects of four, and b has the highest mean."""


def test_the_means_rank_b_first_and_the_subjects_a():
    means = ranked(table(OUTLIER), "mean-then-rank")
    assert (places(means), scores(means)) == ([2, 1, 3], pytest.approx([0.625, 0.75, 0.6]))
    subjects = ranked(table(OUTLIER), "rank-then-mean")
    assert (places(subjects), scores(subjects)) == ([1, 2, 3], pytest.approx([6 / 4, 7 / 4, 11 / 4]))


def test_a_smaller_distance_is_better():
    found = ranked(table([[5.0, 3.0, 9.0]] * 4, metric="hd"), "mean-then-rank", metric="hd")
    assert (places(found), scores(found)) == ([2, 1, 3], [5.0, 3.0, 9.0])
    assert places(ranked(table([[5.0, 3.0, 9.0]] * 4, metric="hd"), "rank-then-mean", metric="hd")) == [2, 1, 3]


def test_ties_are_averaged_within_a_subject_and_share_the_best_place():
    found = ranked(table([[0.5, 0.5, 0.2], [0.7, 0.7, 0.1]]), "rank-then-mean")
    assert (places(found), scores(found)) == ([1, 1, 3], [1.5, 1.5, 3.0])


def test_means_that_differ_by_rounding_tie():
    found = ranked(table([[0.1, 0.3], [0.2, 0.2], [0.3, 0.1]]), "mean-then-rank")
    assert places(found) == [1, 1]
    assert found.tau_mean is None


def test_tests_count_the_methods_that_are_beaten():
    values = [[0.5 + 0.01 * i, 0.5 + 0.011 * i, 0.9 + 0.01 * i, 0.1] for i in range(12)]
    found = ranked(table(values), "test-then-rank")
    beaten = [1, 1, 3, 0]  # a and b are not told apart: b gains in every subject but one, the first
    pairs = compare(table(values), RULES, all_pairs=True).pairs
    told = {(t.method, t.baseline): t.result.p_maxt < 0.05 for t in pairs}
    if told["b", "a"]:
        beaten[1] += 1
    assert scores(found) == beaten
    assert places(found)[2:] == [1, 4]


def test_five_subjects_beat_nobody():
    found = ranked(table([[0.1, 0.9]] * 5), "test-then-rank")
    assert (places(found), scores(found), found.tau_mean) == ([1, 1], [0, 0], None)


def test_over_all_is_the_mean_of_the_ranks_of_the_foreground_with_a_better_direction():
    rows = table([[0.9, 0.8, 0.7]] * 3) + table([[9.0, 3.0, 6.0]] * 3, metric="hd")
    rows += table([[0.1, 0.2, 0.3]] * 3, label=0) + table([[1.0, 2.0, 3.0]] * 3, metric="volume_ml")
    rankings = compare(rows, RULES, rank=True).rankings
    assert {(r.label, r.metric) for r in rankings} == {(None, None), (1, "dice"), (1, "hd")}
    assert [r.rule for r in rankings[:4]] == [*ranking.RANK_RULES, "mean-then-rank"]
    found = ranked(rows, "mean-then-rank", None, None)
    assert (scores(found), places(found)) == ([2.0, 1.5, 2.5], [2, 1, 3])


def test_a_method_that_is_always_first_is_so_in_every_sample():
    values = [[0.9, 0.5, 0.1], [0.8, 0.4, 0.2], [0.95, 0.5, 0.3]]
    for rule in ranking.RANK_RULES[:2]:
        found = ranked(table(values), rule)
        assert [place.shares for place in found.ranks] == [(1, 0, 0), (0, 1, 0), (0, 0, 1)]
        assert [(place.low, place.high) for place in found.ranks] == [(1, 1), (2, 2), (3, 3)]
        assert (found.tau_mean, found.tau_low, found.tau_high) == pytest.approx((1, 1, 1))


def test_the_shares_are_those_of_all_bootstrap_samples():
    """Gains of 1, -2 and 4: enumerate the 27 samples of three subjects."""
    gains = [1.0, -2.0, 4.0]
    found = ranked(table([[10.0, 10.0 - gain] for gain in gains], metric="hd"), "mean-then-rank", metric="hd")
    sums = [sum(sample) for sample in itertools.product(gains, repeat=3)]
    first = np.mean(np.array(sums) > 0) + np.mean(np.array(sums) == 0)
    assert found.ranks[1].shares[0] == pytest.approx(first, abs=SURE)
    assert found.ranks[0].shares[0] == pytest.approx(np.mean(np.array(sums) <= 0), abs=SURE)
    assert found.tau_mean == pytest.approx(np.mean(np.sign([s for s in sums if s])), abs=2 * SURE)


def test_kendalls_tau_and_the_intervals_are_those_of_plain_loops():
    rng = np.random.default_rng(3)
    values = rng.normal(size=(15, 4)) + np.array([0, 0.2, 0.4, 0.8])
    found = ranked(table(0.5 + 0.01 * values), "mean-then-rank")
    values = values[sorted(range(15), key=str)]  # subjects are sorted by name
    counts = np.concatenate(list(bootstrap_counts(15, ranking.SAMPLES, 0)))
    samples = [scipy.stats.rankdata(-(count @ values), method="min") for count in counts]
    full = scipy.stats.rankdata(-values.mean(axis=0), method="min")
    tau = [scipy.stats.kendalltau(sample, full).statistic for sample in samples]
    assert (found.tau_mean, found.tau_low, found.tau_high) == pytest.approx(
        (np.mean(tau), *np.quantile(tau, (0.025, 0.975))), rel=1e-12
    )
    for m, place in enumerate(found.ranks):
        mine = sorted(sample[m] for sample in samples)
        assert (place.low, place.high) == (mine[24], mine[974])
        assert place.shares == pytest.approx([np.mean(np.array(mine) == r) for r in (1, 2, 3, 4)])


def test_the_tests_of_a_sample_are_those_of_its_subjects():
    rng = np.random.default_rng(8)
    values = np.round(rng.normal(size=(8, 3)) + np.array([0, 0.8, 1.6]), 3)
    found = ranked(table(values / 100 + 0.5), "test-then-rank")
    counts = np.concatenate(list(bootstrap_counts(8, ranking.SAMPLES, 0)))[:200]
    beaten = np.zeros((200, 3))
    for sample, count in enumerate(counts):
        drawn = np.repeat(values, count.astype(int), axis=0)
        d = np.column_stack([drawn[:, m] - drawn[:, o] for m, o in ((1, 0), (2, 0), (2, 1))])
        for (m, o), test in zip(
            ((1, 0), (2, 0), (2, 1)), paired_permutation_test(d, higher_is_better=True), strict=True
        ):
            if test.p_maxt < 0.05:
                beaten[sample, m if test.mean_difference > 0 else o] += 1
    first = np.mean(scipy.stats.rankdata(-beaten, method="min", axis=1) == 1, axis=0)
    assert 0.05 < first[1] < 0.95
    assert [place.shares[0] for place in found.ranks] == pytest.approx(first, abs=4 * math.sqrt(0.25 / 200))


def test_the_interval_is_at_alpha():
    rng = np.random.default_rng(1)
    rows = table(0.5 + 0.01 * rng.normal(size=(10, 4)))
    wide, narrow = (ranked(rows, "mean-then-rank", rules=Rules(alpha=alpha)) for alpha in (0.05, 0.6))
    assert all(w.low <= n.low <= n.high <= w.high for w, n in zip(wide.ranks, narrow.ranks, strict=True))
    assert wide != narrow


def test_undefined_distances_enter_by_the_rule():
    rows = [*series("a", [1.0, 1.0, 1.0], metric="hd"), *series("b", [2.0, 2.0, 2.0], metric="hd")]
    rows += [row("a", "d", None, metric="hd", status="missed"), row("b", "d", 2.0, metric="hd")]
    assert places(ranked(rows, "mean-then-rank", metric="hd")) == [2, 1]
    strict = ranked(rows, "mean-then-rank", metric="hd", rules=Rules(undefined="exclude"))
    assert (places(strict), strict.subjects) == ([1, 2], 3)


def test_where_the_reference_lacks_a_class_those_that_leave_it_empty_are_right():
    rows = [*structure("a", "c0", "hallucinated"), *structure("b", "c0", "absent"), *structure("c", "c0", "absent")]
    rows += [r for m in "abc" for r in structure(m, "c1", "ok", dice=0.5, hd=1.0, nsd=0.5)]
    found = ranked(rows, "mean-then-rank")
    assert (places(found), scores(found), found.subjects) == ([3, 1, 1], [0.25, 0.75, 0.75], 2)


def test_cases_count_that_every_method_has_a_value_for():
    rows = [*series("a", [0.9, 0.1, 0.1]), *series("b", [0.5])]
    found = ranked(rows, "mean-then-rank")
    assert (places(found), scores(found), found.subjects) == ([1, 2], [0.9, 0.5], 1)
    rows = [*series("a", [0.9]), row("b", "d", 0.5)]
    assert compare(rows, RULES, rank=True).rankings == ()


def test_scans_count_as_their_subject():
    rows = [
        row(m, f"s{i}", v, subject="s")
        for m, values in (("a", [1.0, 0.0]), ("b", [0.4, 0.4]))
        for i, v in enumerate(values)
    ]
    rows += [row("a", "t", 0.5, subject="t"), row("b", "t", 0.8, subject="t")]
    found = ranked(rows, "mean-then-rank")
    assert (scores(found), found.subjects) == (pytest.approx([0.5, 0.6]), 2)


def test_a_sample_without_any_subject_of_a_column_is_left_out_of_its_shares():
    rows = table([[0.5, 0.4]] * 6) + table([[3.0, 4.0]], metric="hd")
    found = ranked(rows, "mean-then-rank", metric="hd")
    assert found.ranks[0].shares == (1, 0)
    assert ranked(rows, "mean-then-rank", None, None).ranks[0].shares == (1, 0)


def test_groups_are_ranked_apart():
    rows = [
        *table([[0.5, 0.4]] * 3, group="ES"),
        *(r for m, v in (("a", 0.1), ("b", 0.3)) for r in [row(m, "d", v, group="ED")]),
    ]
    rankings = [r for r in compare(rows, RULES, rank=True).rankings if r.rule == "mean-then-rank" and r.label == 1]
    assert [(r.group, places(r)) for r in rankings] == [("ED", [2, 1]), ("ES", [1, 2])]


@pytest.mark.parametrize("option", ["rank", "all_pairs"])
def test_one_method_is_not_compared(option):
    with pytest.raises(UsageError, match=f"{option}=True compares methods and there is one, a"):
        compare(series("a", [0.5]), RULES, **{option: True})
