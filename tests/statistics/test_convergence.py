import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import rwtool
from rwtool.datasets.curves import TrainingCurve
from rwtool.statistics.convergence import compare_convergence, difference_interval, distribution, share_interval


def curve(seed, dice, *, diverged=None, epochs=None, loss=None):
    """A run by its Dice of each epoch, by label."""
    class_dice = {label: np.array(values, dtype=float) for label, values in dice.items()}
    table = np.array(list(class_dice.values()))
    known = ~np.isnan(table)
    mean = np.where(known.any(axis=0), np.where(known, table, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1), np.nan)
    done = table.shape[1]
    settings = {"seed": seed, "epochs": epochs or done}
    losses = np.linspace(1, 0, done) if loss is None else np.array(loss, dtype=float)
    return TrainingCurve(Path(f"seed-{seed}"), settings, {}, losses, mean, class_dice, diverged)


STUDY = {
    "a": [
        curve(2, {1: [0.1, 0.75], 2: [0.2, 0.6]}),
        curve(0, {1: [0.3, 0.7], 2: [0.2, 0.7]}),
        curve(1, {1: [0.5, 0.39], 2: [0.2, 0.3]}),
    ],
    "b": [
        curve(0, {1: [0.2, 0.8], 2: [0.0, 0.5]}),
        curve(1, {1: [0.2, 0.9], 2: [0.0, 0.29]}),
        curve(2, {1: [0.2], 2: [0.0]}, diverged=2, epochs=2),
        curve(3, {1: [0.2, 0.85], 2: [0.0, 0.0]}),
    ],
}


@pytest.fixture(scope="module")
def found():
    return compare_convergence(STUDY)


def test_a_run_has_collapsed_below_half_of_the_best_median_of_a_class(found):
    # medians of class 1: 0.7 and (0, 0.8, 0.85, 0.9) 0.825; of class 2: 0.6 and (0, 0, 0.29, 0.5) 0.145
    assert found.thresholds == pytest.approx({1: 0.4125, 2: 0.3})
    a, b = found.methods
    assert {seed.seed: seed.collapsed_in for seed in a.seeds} == {0: (), 1: (1,), 2: ()}  # 0.3 is not below 0.3
    assert {seed.seed: seed.collapsed_in for seed in b.seeds} == {0: (), 1: (2,), 2: (1, 2), 3: (2,)}
    assert [seed.diverged for seed in b.seeds] == [None, None, 2, None]
    assert (a.collapsed, len(a.seeds), b.collapsed, len(b.seeds)) == (1, 3, 3, 4)
    assert (a.share, b.share) == (1 / 3, 0.75)
    assert (b.low, b.high) == share_interval(3, 4)


def test_dice_of_a_run_is_that_of_its_last_epoch_and_0_where_it_has_diverged(found):
    b = found.methods[1]
    assert [seed.dice for seed in b.seeds] == pytest.approx([0.65, 0.595, 0, 0.425])
    assert [seed.share_at_most for seed in b.seeds] == [1, 0.75, 0.25, 0.5]
    assert (b.least, b.most, b.median) == pytest.approx((0, 0.65, 0.51))
    assert (b.mean, b.sd) == pytest.approx((0.4175, np.std([0.65, 0.595, 0, 0.425], ddof=1)))


def test_curves_are_means_over_runs_with_dice_0_and_no_loss_once_a_run_has_diverged(found):
    spreads = {(s.measure, s.epoch): s for s in found.methods[1].curves}
    assert set(spreads) == {(name, epoch) for name in ("loss", "dice", "dice_1", "dice_2") for epoch in (1, 2)}
    last = spreads["dice_1", 2]
    assert (last.n, last.mean, last.least, last.most) == (4, pytest.approx(2.55 / 4), 0, 0.9)
    assert last.sd == pytest.approx(np.std([0.8, 0.9, 0, 0.85], ddof=1))
    assert spreads["loss", 2].n == 3
    assert spreads["dice", 1].n == 4


def test_epochs_without_a_validation_have_no_point_and_one_run_has_no_sd():
    nan = math.nan
    (method,) = compare_convergence({"m": [curve(0, {1: [nan, 0.5, nan, 0.6]})]}).methods
    assert [(s.epoch, s.mean) for s in method.curves if s.measure == "dice"] == [(2, 0.5), (4, 0.6)]
    assert all(math.isnan(s.sd) for s in method.curves)
    assert math.isnan(method.sd)


def test_a_run_that_diverges_between_validations_is_0_at_the_next():
    nan = math.nan
    runs = [curve(0, {1: [nan, 0.5, nan, 0.6]}), curve(1, {1: [nan, 0.5]}, diverged=3, epochs=4)]
    (method,) = compare_convergence({"m": runs}).methods
    assert [(s.epoch, s.n, s.mean) for s in method.curves if s.measure == "dice"] == [(2, 2, 0.5), (4, 2, 0.3)]


def test_where_all_have_diverged_before_a_validation_the_last_epoch_says_so():
    runs = [curve(seed, {1: []}, diverged=1, epochs=3) for seed in (0, 1)]
    (method,) = compare_convergence({"m": runs}).methods
    assert (method.collapsed, method.share, method.most) == (2, 1, 0)
    assert [(s.measure, s.epoch, s.n, s.mean) for s in method.curves] == [("dice", 3, 2, 0), ("dice_1", 3, 2, 0)]


def test_a_class_that_is_in_no_case_collapses_nothing():
    runs = [curve(seed, {1: [0.5], 2: [math.nan]}) for seed in (0, 1)]
    found = compare_convergence({"m": runs})
    assert found.thresholds == {1: 0.25}
    assert found.methods[0].collapsed == 0


def test_methods_are_tested_against_the_baseline_by_fishers_exact_test():
    good, bad = ([curve(seed, {1: [value]}) for seed in range(6)] for value in (0.9, 0.1))
    found = compare_convergence({"good": good, "bad": bad, "too": good})
    assert [(test.baseline, test.method) for test in found.tests] == [("good", "bad"), ("good", "too")]
    test = found.tests[0]
    assert test.p == pytest.approx(2 / math.comb(12, 6))  # of the 924 ways to choose 6, two are as extreme
    assert test.p_holm == pytest.approx(4 / math.comb(12, 6))
    assert (test.difference, found.tests[1].difference, found.tests[1].p) == (1, 0, 1)
    assert (test.low, test.high) == difference_interval(6, 6, 0, 6)
    other = compare_convergence({"good": good, "bad": bad}, baseline="bad")
    assert [(test.baseline, test.method, test.difference) for test in other.tests] == [("bad", "good", -1)]


@pytest.mark.parametrize(
    ("more", "message"),
    [({"baseline": "c"}, "baseline=c: there is no such method; the methods are a, b"), ({"alpha": 1}, "found alpha=1")],
)
def test_wrong_use_is_refused(more, message):
    with pytest.raises(rwtool.UsageError, match=message):
        compare_convergence(STUDY, **more)


@pytest.mark.parametrize(("count", "n", "alpha"), [(0, 6, 0.05), (3, 6, 0.05), (6, 6, 0.05), (2, 50, 0.1)])
def test_wilsons_interval_holds_the_shares_whose_score_test_does_not_refuse(count, n, alpha):
    z = stats.norm.ppf(1 - alpha / 2)
    for share, end in zip(share_interval(count, n, alpha=alpha), (0, 1), strict=True):
        if share not in (0, 1):
            assert abs(count / n - share) == pytest.approx(z * math.sqrt(share * (1 - share) / n))
        else:
            assert share == end


def test_newcombes_interval_by_his_table():
    # Stat. Med. 17, 1998, Table II: 9/10 - 3/10, and 0/10 - 0/20
    assert difference_interval(9, 10, 3, 10) == pytest.approx((0.1705, 0.8090), abs=5e-5)
    assert difference_interval(0, 10, 0, 20) == pytest.approx((-0.1611, 0.2775), abs=5e-5)


def test_the_distribution_is_a_step_up_at_each_value():
    values = [0.5, 0.2, 0.9, 0.9]
    assert distribution(values, [0, 0.2, 0.3, 0.5, 0.9, 1]).tolist() == [0, 0.25, 0.25, 0.5, 1, 1]


def test_distances_are_averaged_over_the_runs_that_have_measured_them():
    runs = [curve(seed, {1: [0.5, 0.6]}) for seed in range(3)]
    runs[0].distances["hd_mm"] = np.array([np.nan, 8.0])
    runs[1].distances["hd_mm"] = np.array([30.0, 4.0])
    (method,) = compare_convergence({"m": runs}).methods
    found = [(s.epoch, s.n, s.mean, s.least) for s in method.curves if s.measure == "hd_mm"]
    assert found == [(1, 1, 30, 30), (2, 2, 6, 4)]


def test_a_run_that_diverges_has_no_distance_any_more():
    runs = [curve(0, {1: [0.5, 0.6]}), curve(1, {1: [0.5]}, diverged=2, epochs=2)]
    for run in runs:
        run.distances["hd_mm"] = np.array([20.0, 10.0][: len(run.loss)])
    (method,) = compare_convergence({"m": runs}).methods
    assert [(s.epoch, s.n, s.mean) for s in method.curves if s.measure == "hd_mm"] == [(1, 2, 20), (2, 1, 10)]
