"""The paired permutation test against hand counts, textbook loops, scipy, and simulation under the null."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rwtool.errors import UsageError
from rwtool.statistics import permutation as stats
from rwtool.statistics.permutation import paired_permutation_test

NAN = float("nan")


def only(d, **options):
    """Test one column."""
    (test,) = paired_permutation_test(np.reshape(d, (-1, 1)), **{"higher_is_better": True, **options})
    return test


def columns(*values):
    return np.column_stack(values).astype(float)


# The slow truth: plain loops over all flips.


def textbook_p(d):
    least = abs(math.fsum(d)) - 1e-12 * math.fsum(map(abs, d))
    flips = list(itertools.product((1, -1), repeat=len(d)))
    return sum(abs(math.fsum(s * x for s, x in zip(f, d, strict=True))) >= least for f in flips) / len(flips)


def textbook_step_down(d):
    """Westfall & Young's step-down max-T, one flip, one column and one step at a time; NaN is left out."""

    def statistic(signs, c):
        kept = [(s, x) for s, x in zip(signs, d[:, c], strict=True) if not math.isnan(x)]
        return abs(math.fsum(s * x for s, x in kept)) / math.sqrt(math.fsum(x * x for _, x in kept))

    flips = list(itertools.product((1, -1), repeat=len(d)))
    observed = [statistic(flips[0], c) for c in range(d.shape[1])]
    order = sorted(range(d.shape[1]), key=lambda c: -observed[c])
    adjusted, floor = {}, 0.0
    for step, c in enumerate(order):
        hits = sum(max(statistic(f, other) for other in order[step:]) >= observed[c] - 1e-11 for f in flips)
        adjusted[c] = floor = max(floor, hits / len(flips))
    return [adjusted[c] for c in range(d.shape[1])]


# p by hand


@pytest.mark.parametrize(
    ("d", "p"),
    [
        ([7], 1),  # 7 and -7
        ([1, 2], 2 / 4),  # 3 1 1 3
        ([1, 2, 3], 2 / 8),  # 6 4 2 0, each twice
        ([3, 2, -1], 4 / 8),  # the same sums, 4 observed
        ([1, 2, -3], 1),  # 0 observed
        ([5, 4, 3, 2, 1], 2 / 32),
        ([5, 4, 3, 2, -1], 4 / 32),  # 13 observed, and 15
        ([2, 2, 2, 2, 2, -2], 14 / 64),  # 8 observed: no minus, or one of six, and their mirror images
        ([0, 0, 1, 2], 2 / 4),  # zeros flip without effect
        ([0, 0, 0, 0, 0, 0], 1),
    ],
)
def test_p_is_the_share_of_flips_as_extreme_counted_by_hand(d, p):
    assert only(d).p == p
    assert only(np.negative(d)).p == p


@pytest.mark.parametrize("tenths", [[3, 2, -2, -1, -5, -4, -5, -3], [2, -4, -1, 1], [-4, -2, 4, 2], [5, 2, 0, -5, -4]])
def test_rounding_does_not_break_ties_so_p_is_that_of_integers(tenths):
    assert only(np.multiply(tenths, 0.1)).p == only(tenths).p == textbook_p(tenths)


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_the_unit_of_the_differences_does_not_matter(scale):
    assert only(np.multiply([3, 2, -1, 0.5], scale)).p == only([3, 2, -1, 0.5]).p == 6 / 16


def test_one_nan_is_left_out_so_p_is_that_of_the_others():
    test = only([5, NAN, 4, 3, 2, -1])
    assert (test.p, test.n, test.undefined_pairs, test.mean_difference) == (4 / 32, 5, 1, 13 / 5)
    assert test.permutations == 32


def test_a_column_of_nan_only_has_no_numbers():
    first, second = paired_permutation_test(columns([1, 2, 3], [NAN] * 3), higher_is_better=True)
    assert (first.p, first.p_maxt, first.p_holm) == (1 / 4, 1 / 4, 1 / 4)  # and is none of the family
    assert (second.n, second.undefined_pairs) == (0, 3)
    numbers = ("p", "p_maxt", "p_holm", "p_min", "mean_difference", "median_difference", "ci_low", "ci_high")
    assert all(getattr(second, name) is None for name in (*numbers, "wins", "ties", "losses"))
    assert second.note == second.ci_reason == "no pair is defined"
    assert only([NAN, NAN]).p is None


def test_all_zeros_give_p_1_everywhere_and_the_others_their_own():
    zero, other = paired_permutation_test(columns([0] * 6, [1, 2, 3, 4, 5, 6]), higher_is_better=True)
    assert (zero.p, zero.p_maxt, zero.p_holm, zero.p_min, zero.ties) == (1, 1, 1, 1, 6)
    assert (other.p, other.p_maxt, other.p_holm) == (2 / 64, 2 / 64, 4 / 64)


def test_17_equal_gains_are_1_of_m_plus_1():
    assert only([1] * 17, permutations=400).p == 1 / 401
    assert not only([1] * 17, permutations=400).exact


def test_16_subjects_are_enumerated_and_17_are_drawn():
    sixteen, seventeen = only(np.arange(16.0)), only(np.arange(17.0))
    assert (sixteen.exact, sixteen.permutations) == (True, 65536)
    assert (seventeen.exact, seventeen.permutations) == (False, 10000)


# p against scipy


def absolute_mean(x, axis):
    return np.abs(np.mean(x, axis=axis))


@pytest.mark.parametrize("n", [2, 3, 5, 9, 12])
def test_exact_p_equals_scipy(n):
    d = np.random.default_rng(n).normal(0.4, 1, n)
    truth = scipy.stats.permutation_test(
        (d,),
        absolute_mean,
        permutation_type="samples",
        n_resamples=np.inf,
        alternative="greater",
        vectorized=True,
    )
    assert only(d).p == pytest.approx(truth.pvalue, abs=1e-15)


def test_monte_carlo_p_scatters_about_scipys_exact_p_as_a_binomial_share_does():
    d = np.random.default_rng(3).normal(0.4, 1, 17)
    truth = scipy.stats.permutation_test(
        (d,),
        absolute_mean,
        permutation_type="samples",
        n_resamples=np.inf,
        alternative="greater",
        vectorized=True,
    ).pvalue
    draws, seeds = 1000, 60
    error = np.array([only(d, permutations=draws, seed=s).p for s in range(seeds)]) - truth
    sigma = math.sqrt(truth * (1 - truth) / draws)
    assert abs(error.mean()) < 4 * sigma / math.sqrt(seeds)
    assert 0.7 * sigma < error.std(ddof=1) < 1.4 * sigma


def test_same_seed_same_result_other_seed_other_p():
    d = np.random.default_rng(0).normal(0.2, 1, (30, 2))
    first, again = (paired_permutation_test(d, higher_is_better=True, seed=5) for _ in range(2))
    assert first == again
    assert [t.seed for t in first] == [5, 5]
    assert first[0].p != paired_permutation_test(d, higher_is_better=True, seed=6)[0].p


@pytest.mark.parametrize("n", [10, 21])
def test_memory_blocks_do_not_change_the_result(monkeypatch, n):
    d = np.random.default_rng(0).integers(-9, 9, (n, 2))
    whole = paired_permutation_test(d, higher_is_better=True, permutations=501)
    monkeypatch.setattr(stats, "BLOCK_ELEMENTS", 100)
    assert paired_permutation_test(d, higher_is_better=True, permutations=501) == whole


# columns of different n


def test_in_a_drawn_comparison_a_column_of_5_is_enumerated_as_if_alone():
    d = np.random.default_rng(1).normal(0.5, 1, (30, 2))
    d[5:, 1] = NAN
    long, short = paired_permutation_test(d, higher_is_better=True)
    alone = only(d[:5, 1])
    assert (long.exact, long.n) == (False, 30)
    assert (short.n, short.exact, short.permutations, short.p, short.p_min) == (5, True, 32, alone.p, 1 / 16)
    assert short.p_maxt >= short.p
    assert short.undefined_pairs == 25


def test_undefined_subjects_leave_the_interval_of_the_others_as_it_is():
    d = np.random.default_rng(1).normal(0.5, 1, (12, 3))
    d[[2, 7, 9], 1] = NAN
    d[1, 2] = NAN
    for column, test in zip(d.T, paired_permutation_test(d, higher_is_better=True), strict=True):
        alone = only(column[~np.isnan(column)])
        assert (test.ci_low, test.ci_high) == pytest.approx((alone.ci_low, alone.ci_high), rel=1e-12)
        assert test.p == alone.p


def test_a_subject_undefined_everywhere_is_no_subject():
    d = np.random.default_rng(1).normal(0.5, 1, (17, 2))
    d[3] = NAN
    tests = paired_permutation_test(d, higher_is_better=True, undefined_pairs=[0, 0])
    assert tests == paired_permutation_test(np.delete(d, 3, axis=0), higher_is_better=True)


def test_drawn_intervals_with_undefined_subjects_are_close_to_those_of_the_others_alone():
    d = np.random.default_rng(4).normal(0.5, 1, (60, 2))
    d[:25, 1] = NAN
    test, alone = paired_permutation_test(d, higher_is_better=True)[1], only(d[25:, 1], seed=1)
    assert not test.exact
    assert test.n == 35
    assert (test.ci_low, test.ci_high) == pytest.approx((alone.ci_low, alone.ci_high), abs=0.03)
    assert test.p == pytest.approx(alone.p, abs=0.02)


# adjusted p


@pytest.mark.parametrize("seed", range(8))
def test_maxt_equals_the_textbook_loop_with_undefined_subjects_too(seed):
    rng = np.random.default_rng(seed)
    n = 4 + seed % 4
    d = rng.normal(0.6, 1, (n, 1)) + rng.normal(0, 0.7, (n, 4))
    d[:, 1] *= 60  # mm next to Dice
    d[rng.random(d.shape) < 0.15] = NAN
    d[0] = 1
    tests = paired_permutation_test(d, higher_is_better=True)
    assert [t.p_maxt for t in tests] == pytest.approx(textbook_step_down(d), abs=1e-15)
    assert [t.p for t in tests] == pytest.approx([textbook_p(c[~np.isnan(c)]) for c in d.T], abs=1e-15)


def test_maxt_of_proportional_columns_is_their_common_p_where_holm_doubles_it():
    d = np.array([0.1, 0.25, 0.3, -0.05, 0.4, 0.35])
    a, b = paired_permutation_test(columns(d, -37.7 * d), higher_is_better=[True, False])
    assert a.p == a.p_maxt == b.p == b.p_maxt == 4 / 64
    assert a.p_holm == b.p_holm == 8 / 64


@pytest.mark.parametrize(
    "d",
    [
        [0.02, 0.9, -1.21, 0.76, -0.45, 1.55, 0.53],
        [0.07, -1.01, -0.42, 0.65, -0.64, 0.74, 0.36],
        [0.19, -0.72, -0.86, 1.3, 0.78, -0.17, -0.41],
    ],
)
def test_rounding_does_not_break_ties_between_columns(d):
    tests = paired_permutation_test(np.outer(d, [1, -37.7, 0.013, 3]), higher_is_better=True)
    assert {t.p_maxt for t in tests} == {textbook_p(d)}


@pytest.mark.parametrize("n", [3, 5, 7])
@pytest.mark.parametrize("unit", [1, 0.3, 1 / 3, 37.7])
def test_maxt_by_hand_is_4_and_then_2_plus_2n_flips(n, unit):
    # The statistic of the first is n / sqrt(n) for the data; the second has it where its minus is flipped:
    # two flips and their mirror images. Alone, the second's (n - 2) / sqrt(n) needs at most one minus.
    d = columns([0.1] * n, [unit] * (n - 1) + [-unit])
    first, second = paired_permutation_test(d, higher_is_better=True)
    assert (first.p, second.p) == (2 / 2**n, (2 + 2 * n) / 2**n)
    assert (first.p_maxt, second.p_maxt) == (4 / 2**n, (2 + 2 * n) / 2**n)


def test_columns_outside_the_family_are_tested_but_not_adjusted():
    d = np.random.default_rng(2).normal(0.5, 1, (8, 3))
    a, b, c = paired_permutation_test(d, higher_is_better=True, family=[True, False, True])
    alone = paired_permutation_test(d[:, [0, 2]], higher_is_better=True)
    assert (a, c) == alone
    assert b.p == only(d[:, 1]).p
    assert b.p_maxt is None
    assert b.p_holm is None
    assert all(t.p_maxt is None for t in paired_permutation_test(d, higher_is_better=True, family=[False] * 3))


# interval


@pytest.mark.parametrize(("alpha", "low", "high"), [(0.05, 1, 6), (0.1, 2, 5)])
def test_interval_of_1_to_6_by_hand(alpha, low, high):
    # The lower ends are -inf (none or all), 1 ({1}), 1.5 ({1, 2}), 2 ({2}), 2 ({1, 3}) ..., each twice.
    # k = ceil(0.05 * 64) = 4 is 1, k = ceil(0.1 * 64) = 7 is 2; the upper ends mirror them.
    test = only([1, 2, 3, 4, 5, 6], alpha=alpha)
    assert (test.ci_low, test.ci_high, test.ci_reason) == (low, high, None)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_up_to_5_subjects_have_no_bounded_interval_and_that_is_said(n):
    test = only(np.arange(1, n + 1))
    assert (test.ci_low, test.ci_high) == (None, None)
    why = f"with {n} subjects and {2**n} permutations no mean difference has p < 0.05"
    assert test.ci_reason == f"unbounded: {why}"


def test_too_few_draws_have_no_bounded_interval():
    d = np.arange(1, 30)
    assert only(d, permutations=18).ci_low is None
    assert only(d, permutations=18).note == ("p < 0.05 is out of reach: with 18 permutations the smallest p is 0.0526")
    assert only(d, permutations=20).ci_low is not None
    assert only(d, permutations=20).note is None
    assert only(d, alpha=1e-15).ci_low is None


@pytest.mark.parametrize("seed", range(3))
def test_interval_holds_exactly_the_shifts_of_a_grid_that_the_textbook_test_does_not_reject(seed):
    d = np.random.default_rng(seed).gamma(1, 1, 6 + seed % 2)
    test = only(d, alpha=0.1)
    grid = np.linspace(d.min() - 0.1, d.max() + 0.1, 101)
    accepted = [shift for shift in grid if textbook_p(d - shift) >= 0.1]
    assert accepted == [shift for shift in grid if test.ci_low <= shift <= test.ci_high]
    assert len(grid) > len(accepted) > 10


def test_drawn_interval_ends_where_the_same_draws_begin_to_reject():
    d = np.random.default_rng(5).normal(1, 1, 20)
    for permutations, alpha in ((99, 0.05), (99, 0.07), (499, 0.05), (998, 0.05)):  # 0.07 * 100 > 7
        options = {"permutations": permutations, "alpha": alpha, "seed": 3}
        test = only(d, **options)
        for end, outwards in ((test.ci_low, -1e-6), (test.ci_high, 1e-6)):
            assert only(d - end + outwards, **options).p >= alpha
            assert only(d - end - outwards, **options).p < alpha


def test_drawn_interval_is_close_to_the_enumerated_one(monkeypatch):
    d = np.random.default_rng(5).normal(1, 1, 17)
    drawn = only(d, permutations=20000)
    monkeypatch.setattr(stats, "EXACT_SUBJECTS", 17)
    enumerated = only(d)
    assert enumerated.exact
    assert (drawn.ci_low, drawn.ci_high) == pytest.approx((enumerated.ci_low, enumerated.ci_high), abs=0.03)


@pytest.mark.parametrize(
    ("tenths", "alpha"),
    [
        ([3, 4, 4, 7, -4], 0.25),
        ([6, -4, 5, 8, -3, 4], 0.25),
        ([-1, -5, -2, -5, 0, 2], 0.25),
        ([-4, -2, 4, 2], 0.9),  # here the mean is the only shift left
        ([3, 4, -1, 8, 3, 3, 6, -2], 0.9),
    ],
)
def test_rounding_moves_neither_0_nor_the_mean_out_of_the_interval(tenths, alpha):
    test = only(np.multiply(tenths, 0.1), alpha=alpha)
    assert (test.ci_low <= 0 <= test.ci_high) == (textbook_p(tenths) >= alpha)
    assert test.ci_low <= test.mean_difference <= test.ci_high


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(-4, 8), min_size=1, max_size=9),
    st.sampled_from([1, 0.1, 1 / 3]),
    st.sampled_from([0.05, 0.0625, 0.1, 0.25, 0.5]),
)
def test_0_is_in_the_interval_exactly_where_p_is_at_least_alpha(d, unit, alpha):
    test = only(np.array(d) * unit, alpha=alpha)
    inside = test.ci_low is None or test.ci_low <= 0 <= test.ci_high
    assert inside == (test.p >= alpha)
    if test.ci_low is not None:
        assert test.ci_low <= test.mean_difference <= test.ci_high


# what stands beside p


@pytest.mark.parametrize(
    ("higher_is_better", "counts"), [(True, (3, 1, 2)), (False, (2, 1, 3)), (None, (None, 1, None))]
)
def test_wins_are_counted_in_the_metrics_own_direction(higher_is_better, counts):
    test = only([1, 2, 3, 0, -1, -2], higher_is_better=higher_is_better)
    assert (test.wins, test.ties, test.losses) == counts


def test_directions_per_column():
    a, b, c = paired_permutation_test(np.ones((3, 3)), higher_is_better=[True, False, None])
    assert (a.wins, b.wins, c.wins) == (3, 0, None)
    assert (a.losses, b.losses, c.losses) == (0, 3, None)


def test_mean_and_median_by_hand():
    test = only([1, 2, 9])
    assert (test.mean_difference, test.median_difference) == (4, 2)


@pytest.mark.parametrize(
    ("d", "p_min"),
    [
        ([1, 2, 3, 4, 5], 1 / 16),
        ([0, 1, 0, 2, 3, 4, 5], 1 / 16),  # zeros do not help
        ([1e-17, 1, 2, 3, 4, 5], 1 / 16),  # nor does rounding
        ([1, 2, 3, 4, 5, 6], 1 / 32),
        ([0, 0], 1),
        ([1] * 3 + [0] * 27, 1 / 4),  # drawn
        ([1] * 30, 1 / 10001),
    ],
)
def test_p_min_is_2_to_the_1_minus_nonzero_differences_or_1_of_m_plus_1(d, p_min):
    test = only(d)
    assert test.p_min == p_min
    assert test.p >= p_min
    assert (test.note is None) == (p_min < 0.05)


def test_draws_do_not_undercut_p_min():
    d = [1] * 4 + [0] * 26
    assert min(only(d, permutations=40, seed=s).p for s in range(30)) == 1 / 8


def test_note_says_that_5_differences_are_too_few():
    assert only([1, 2, 3, 4, 5, 0]).note == (
        "p < 0.05 is out of reach: with 5 non-zero differences the smallest p is 0.0625"
    )


@pytest.mark.parametrize("n", [3, 6, 17, 40])
def test_the_skewness_is_scipys(n):
    d = np.random.default_rng(n).exponential(size=n)
    assert only(d).skewness == pytest.approx(scipy.stats.skew(d), abs=1e-9)


@pytest.mark.parametrize("d", [[1.0], [1.0, 2.0], [0.3] * 9, [0.0] * 5, [0.1 + 0.2, 0.3, 0.3], [NAN]])
def test_there_is_no_skewness_of_two_or_of_equal_differences(d):
    test = only(d)
    assert test.skewness is None
    assert not test.skewed


@pytest.mark.parametrize(
    ("d", "skewed"), [([0, 0, 0, 0, 0, 0, 5], True), ([0, 0, 0, 0, 0, 0, -5], True), (range(9), False)]
)
def test_beyond_1_in_size_the_differences_are_skewed(d, skewed):
    assert only(list(map(float, d))).skewed == skewed


def test_given_counts_of_undefined_pairs_are_reported():
    tests = paired_permutation_test(np.ones((3, 2)), higher_is_better=True, undefined_pairs=[4, 0])
    assert [t.undefined_pairs for t in tests] == [4, 0]


@settings(max_examples=100, deadline=None)
@given(
    hnp.arrays(
        float,
        st.tuples(st.integers(1, 20), st.integers(1, 4)),
        elements=st.one_of(st.just(NAN), st.just(0.0), st.floats(-100, 100, allow_subnormal=False)),
    )
)
def test_numbers_are_finite_and_ordered_whatever_is_undefined(d):
    for test in paired_permutation_test(d, higher_is_better=False, permutations=60):
        numbers = [x for x in vars(test).values() if isinstance(x, float)]
        assert np.isfinite(numbers).all()
        assert test.n + test.undefined_pairs == len(d)
        if test.n:
            assert test.p_min <= test.p <= test.p_maxt <= 1
            assert test.p <= test.p_holm <= 1
            assert test.wins + test.ties + test.losses == test.n
            assert (test.ci_low is None) == (test.ci_high is None) == (test.ci_reason is not None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"differences": [1, 2, 3]}, r"shape \(3,\); expected \(n_subjects, n_columns\), .*; give one row a subject"),
        ({"differences": np.empty((0, 2))}, r"shape \(0, 2\)"),
        ({"differences": [[1, 2], [3, np.inf]]}, r"differences\[1, 1\] is infinite: write NaN"),
        ({"family": [True]}, r"family has shape \(1,\), expected \(\) or \(2,\); give one for all columns"),
        ({"higher_is_better": [True] * 3}, r"higher_is_better has shape \(3,\)"),
        ({"undefined_pairs": [0] * 3}, r"undefined_pairs has shape \(3,\)"),
        ({"permutations": 0}, "found permutations=0; give a whole number, 1 or more"),
        ({"seed": -1}, "found seed=-1; give a whole number, 0 or more"),
        ({"alpha": 1}, "found alpha=1; give a number between 0 and 1"),
        ({"alpha": NAN}, "found alpha=nan"),
    ],
)
def test_what_cannot_be_tested_is_refused_in_words(arguments, message):
    with pytest.raises(UsageError, match=message):
        paired_permutation_test(**{"differences": np.ones((3, 2)), "higher_is_better": True, **arguments})


# simulation


def test_exact_p_is_uniform_under_the_null():
    d = np.random.default_rng(11).laplace(size=(12, 500))
    p = [t.p for t in paired_permutation_test(d, higher_is_better=True, family=[False] * 500)]
    assert scipy.stats.kstest(p, "uniform").pvalue > 0.01


def test_drawn_p_is_uniform_under_the_null():
    rng = np.random.default_rng(12)
    p = [only(rng.normal(size=20), permutations=199, seed=s).p for s in range(400)]
    assert scipy.stats.kstest(p, "uniform").pvalue > 0.01


def families(rng, count, n, effects):
    """Simulate comparisons: correlated columns of mixed scale, some subjects undefined."""
    for _ in range(count):
        noise = rng.normal(size=(n, 1)) + rng.normal(size=(n, len(effects)))
        d = (noise + effects) * np.logspace(-2, 2, len(effects))
        d[rng.random(d.shape) < 0.1] = NAN
        yield d


def false_positive_rates(comparisons, effects, **options):
    """Share of comparisons with a true null at p < 0.05: unadjusted, max-T, Holm."""
    null = np.flatnonzero(np.equal(effects, 0))
    hits = []
    for d in comparisons:
        tests = paired_permutation_test(d, higher_is_better=True, **options)
        found = [(t.p, t.p_maxt, t.p_holm) for c, t in enumerate(tests) if c in null and t.n]
        hits.append([min(values) < 0.05 for values in zip(*found, strict=True)])
    return np.mean(hits, axis=0)


def test_maxt_and_holm_hold_the_familywise_error_at_5_percent_where_raw_p_does_not():
    effects = np.zeros(6)
    raw, maxt, holm = false_positive_rates(families(np.random.default_rng(21), 400, 9, effects), effects)
    limit = 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)
    assert raw > 0.12
    assert 0.015 < maxt < limit
    assert holm < limit


@pytest.mark.slow
@pytest.mark.parametrize("n", [8, 14, 24])
@pytest.mark.parametrize("effects", [(0,) * 6, (3, 3, 0, 0, 0, 0), (0, 1, 0, 0, 3, 0)])
def test_maxt_holds_the_familywise_error_when_some_nulls_are_false(n, effects):
    count = 2000
    comparisons = families(np.random.default_rng(n), count, n, np.array(effects))
    raw, maxt, holm = false_positive_rates(comparisons, effects, permutations=999)
    limit = 0.05 + 3 * math.sqrt(0.05 * 0.95 / count)
    assert holm < limit
    assert maxt < limit
    assert raw > 0.1


def coverage(d, mean, **options):
    tests = paired_permutation_test(d, higher_is_better=True, family=[False] * d.shape[1], **options)
    return np.mean([t.ci_low is None or t.ci_low <= mean <= t.ci_high for t in tests])


@pytest.mark.parametrize("n", [3, 5, 6, 8])
def test_interval_covers_the_mean_as_often_as_the_flips_allow(n):
    check_coverage(n, 1000)


@pytest.mark.slow
@pytest.mark.parametrize("n", range(3, 13))
def test_interval_covers_the_mean_as_often_as_the_flips_allow_from_3_to_12_subjects(n):
    check_coverage(n, 20000)


def check_coverage(n, repeats):
    """Compare with 1 - P(p < 0.05) where p is uniform on the multiples of 2 / 2**n: never below 95 %."""
    rng = np.random.default_rng(100 + n)
    rejected = (math.ceil(0.05 * 2**n / 2) - 1) * 2 / 2**n
    error = 4 * math.sqrt(max(rejected, 1e-9) * (1 - rejected) / repeats)
    for draw in (rng.normal, rng.laplace, lambda *_, size: rng.standard_t(2, size)):
        covered = np.mean([coverage(draw(0, 1, size=(n, 500)) + 3, 3) for _ in range(repeats // 500)])
        assert covered == pytest.approx(1 - rejected, abs=error)
    assert rejected < 0.05


@pytest.mark.slow
def test_drawn_interval_covers_the_mean_in_95_percent():
    rng = np.random.default_rng(9)
    hits = [coverage(rng.laplace(2, 1, (20, 1)), 2, permutations=399, seed=s) for s in range(4000)]
    assert np.mean(hits) == pytest.approx(0.95, abs=4 * math.sqrt(0.05 * 0.95 / 4000))


# equivalence within a margin

FORTY = [
    -0.702, -1.224, -0.148, 0.52, 1.236, 0.21, -0.453, -0.685, 0.849, 1.735, 0.373, -1.133, -0.858, 1.7, 0.303, -1.632,
    0.016, -1.063, -0.529, -0.388, -0.613, 0.653, 0.037, -0.489, 0.51, 0.93, -1.543, -0.157, -0.881, -0.073, -1.189,
    0.121, 0.062, -0.204, -0.948, -0.296, -0.991, -1.255, 0.325, -1.009,
]  # fmt: skip
"""Normal; mean -0.222."""


@pytest.mark.parametrize(
    ("margin", "p"),  # statsmodels.stats.weightstats.ttost_paired(FORTY, 0, -margin, margin)[0]
    [(0.2, 0.56602), (0.3, 0.27906), (0.4, 0.09260), (0.5, 0.02081), (0.6, None)],
)
def test_equivalence_of_normal_differences_is_that_of_statsmodels_two_one_sided_tests(margin, p):
    test = only(FORTY, margin=margin)
    assert test.equivalence == ("undecided" if p is not None and p >= 0.05 else "equivalent")
    assert (test.margin_low, test.margin_high) == pytest.approx((-0.44434, 0.00019), abs=0.015)  # DescrStatsW at 90 %


@pytest.mark.parametrize(
    ("margin", "better", "verdict"),
    [
        (6.0, True, "equivalent"),
        (6.0, None, "equivalent"),
        (3.0, True, "not worse"),
        (3.0, False, "undecided"),
        (3.0, None, "undecided"),
        (0.5, True, "not worse"),
    ],
)
def test_the_verdict_is_by_the_end_that_is_worse(margin, better, verdict):
    test = only([1, 2, 3, 4, 5, 6], higher_is_better=better, margin=margin)  # all gain: 0 lies below the interval
    assert test.equivalence == verdict
    turned = only([-1, -2, -3, -4, -5, -6], higher_is_better=None if better is None else not better, margin=margin)
    assert turned.equivalence == verdict
    assert (turned.margin_low, turned.margin_high) == (-test.margin_high, -test.margin_low)


def test_the_interval_of_a_margin_is_that_at_twice_alpha():
    d = np.random.default_rng(4).normal(size=25)
    test, wide = only(d, margin=1.0, alpha=0.05), only(d, alpha=0.1)
    assert (test.margin_low, test.margin_high) == (wide.ci_low, wide.ci_high)
    assert test.ci_low < test.margin_low < test.margin_high < test.ci_high


def test_where_the_interval_is_unbounded_nothing_is_decided():
    for d in ([0.0, 0.001, 0.0], [NAN]):
        test = only(d, margin=10.0)
        assert (test.margin_low, test.margin_high, test.equivalence) == (None, None, "undecided")


def test_a_column_without_a_margin_is_not_asked():
    two = paired_permutation_test(columns(range(8), range(8)), higher_is_better=True, margin=[None, 100.0])
    assert [test.equivalence for test in two] == [None, "equivalent"]


@pytest.mark.parametrize(("margin", "alpha"), [(0, 0.05), (-1, 0.05), (NAN, 0.05), (math.inf, 0.05), (1, 0.5)])
def test_a_margin_that_has_no_meaning_is_refused(margin, alpha):
    with pytest.raises(UsageError, match=r"give a margin above 0 and an alpha below 0\.5"):
        only([1, 2], margin=margin, alpha=alpha)


def test_equivalence_is_claimed_wrongly_in_at_most_5_percent():
    """Differences that lie exactly on the margin: two one-sided tests at 5 %."""
    rng = np.random.default_rng(3)
    found = paired_permutation_test(rng.normal(0.8, 1, (24, 2000)), higher_is_better=True, margin=0.8, permutations=999)
    wrong = np.mean([test.equivalence == "equivalent" for test in found])
    assert 0.03 < wrong < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)
