"""Intervals of means against tables of Student's t, SciPy's bootstrap, and simulation."""

import math

import numpy as np
import pytest
import scipy.stats

from rwtool.errors import UsageError
from rwtool.statistics.intervals import BOOTSTRAP_DRAWS, bootstrap_counts, mean_intervals

NAN = float("nan")


def column(values, **options):
    ((low, high),) = mean_intervals(np.reshape(values, (-1, 1)), **options)
    return low, high


@pytest.mark.parametrize(
    ("values", "alpha", "t"),
    [([1, 2, 3], 0.05, 4.302653), ([1, 2, 3], 0.1, 2.919986), ([1, 3], 0.05, 12.706205), (range(21), 0.05, 2.085963)],
)
def test_students_interval_is_that_of_the_printed_tables(values, alpha, t):
    half = t * np.std(values, ddof=1) / math.sqrt(len(values))
    assert column(values, alpha=alpha) == pytest.approx((np.mean(values) - half, np.mean(values) + half), rel=1e-6)


@pytest.mark.parametrize("method", ["t", "bca"])
def test_what_is_undefined_is_left_out_and_one_value_has_no_interval(method):
    values = np.array([[0.5, 0.1, NAN, 1.0], [0.7, NAN, NAN, NAN], [0.6, 0.3, NAN, NAN], [0.1, 0.2, NAN, NAN]])
    found = mean_intervals(values, method=method)
    assert found[1] == pytest.approx(column([0.1, 0.3, 0.2], method=method), rel=1e-12)
    assert found[0] == pytest.approx(column(values[:, 0], method=method), rel=1e-12)
    assert np.isnan(found[2:]).all()


def test_the_ends_are_cut_to_the_range_of_the_metric():
    values = np.array([[1.0, 0.0], [0.9, 90.0]])
    assert mean_intervals(values, limits=[(0, 1), (0, math.inf)])[:, 0].tolist() == [pytest.approx(0.3147, abs=1e-4), 0]
    assert mean_intervals(values, limits=[(0, 1), (0, math.inf)])[0, 1] == 1


@pytest.mark.parametrize("method", ["t", "bca"])
def test_equal_values_have_an_interval_of_no_width(method):
    assert column([0.3] * 5, method=method) == pytest.approx((0.3, 0.3), abs=1e-15)


@pytest.mark.parametrize("n", [2, 5, 20, 60])
@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_bca_is_scipys_on_the_same_draws(n, alpha):
    values = np.round(64 * np.random.default_rng(n).exponential(size=n)) / 64  # sums without rounding: ties stay ties
    theirs = scipy.stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=BOOTSTRAP_DRAWS,
        confidence_level=1 - alpha,
        method="BCa",
        random_state=np.random.default_rng(7),
    ).confidence_interval
    assert column(values, method="bca", alpha=alpha, seed=7) == pytest.approx((theirs.low, theirs.high), rel=1e-9)


def test_bca_leans_to_the_long_tail():
    low, high = column(np.random.default_rng(0).exponential(size=30), method="bca")
    mean = np.random.default_rng(0).exponential(size=30).mean()
    assert high - mean > 1.2 * (mean - low)


def test_a_bootstrap_sample_has_as_many_subjects_and_takes_each_as_often():
    counts = np.concatenate(list(bootstrap_counts(7, 3000, 1)))
    assert counts.shape == (3000, 7)
    assert set(counts.sum(axis=1)) == {7}
    assert counts.mean(axis=0) == pytest.approx(np.ones(7), abs=4 * math.sqrt(6 / 7 / 3000))


def test_the_seed_decides_the_draws():
    values = np.random.default_rng(0).normal(size=12)
    assert column(values, method="bca", seed=1) == column(values, method="bca", seed=1)
    assert column(values, method="bca", seed=1) != column(values, method="bca", seed=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"method": "percentile"}, "found interval='percentile'; give one of t, bca"), ({"alpha": 1.0}, "found alpha=1")],
)
def test_what_has_no_meaning_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        column([1, 2], **options)


def test_values_are_a_table():
    with pytest.raises(UsageError, match=r"values have shape \(3,\)"):
        mean_intervals([1, 2, 3])


def coverage(method, n, repeats, draw):
    values = draw(size=(n, repeats))
    low, high = mean_intervals(values, method=method).T
    return np.mean((low <= 0) & (high >= 0))


@pytest.mark.parametrize("n", [3, 20])
def test_students_interval_covers_a_normal_mean_in_95_percent(n):
    found = coverage("t", n, 20_000, np.random.default_rng(n).normal)
    assert found == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 20_000))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "n", "least", "most"),
    [("t", 20, 0.90, 0.94), ("t", 100, 0.93, 0.955), ("bca", 20, 0.90, 0.94), ("bca", 100, 0.93, 0.955)],
)
def test_both_cover_the_mean_of_skewed_values_nearly_as_often_as_they_say(method, n, least, most):
    generator = np.random.default_rng(n)
    found = coverage(method, n, 4000, lambda size: generator.exponential(size=size) - 1)
    assert least < found < most


@pytest.mark.slow
@pytest.mark.parametrize(("n", "least"), [(20, 0.91), (50, 0.93)])
def test_bca_covers_a_normal_mean(n, least):
    assert least < coverage("bca", n, 4000, np.random.default_rng(n).normal) < 0.955
