"""Effects and planning against numbers of statsmodels 0.15 (power) and pingouin 0.7 (effect)."""

import math

import pytest
import scipy.stats

from rwtool.statistics.effects import Effect, effect_of, subjects_for_power

NAN = float("nan")
TWELVE = [-0.702, -1.224, -0.148, 0.52, 1.236, 0.21, -0.453, -0.685, 0.849, 1.735, 0.373, -1.133]


@pytest.mark.parametrize(
    ("d_z", "alpha", "solved"),  # statsmodels.stats.power.TTestPower().solve_power(d_z, alpha=alpha, power=0.8)
    [
        (0.05, 0.05, 3141.4654741036425),
        (0.2, 0.05, 198.150820955562),
        (0.2, 0.01, 295.29727289151305),
        (0.5, 0.05, 33.36713118431779),
        (0.5, 0.01, 50.06469365936795),
        (0.8, 0.05, 14.30276455812943),
        (0.8, 0.01, 21.63104376232891),
        (1.5, 0.05, 5.686142097745736),
        (3.0, 0.01, 4.555636055981827),
    ],
)
def test_the_subjects_for_80_percent_power_are_those_of_statsmodels(d_z, alpha, solved):
    assert subjects_for_power(d_z, alpha=alpha) == subjects_for_power(-d_z, alpha=alpha) == math.ceil(solved)


@pytest.mark.parametrize("d_z", [0.3, 0.7, 2.0])
def test_one_subject_less_has_less_than_80_percent(d_z):
    def power(n):
        limit = scipy.stats.t.ppf(0.975, n - 1)
        far = scipy.stats.nct(n - 1, d_z * math.sqrt(n))
        return far.sf(limit) + far.cdf(-limit)

    n = subjects_for_power(d_z)
    assert power(n) >= 0.8 > power(n - 1)


@pytest.mark.parametrize(("d_z", "n"), [(0.0, None), (1e-9, None), (0.0028, None), (0.003, 872098), (1e6, 2)])
def test_more_than_a_million_subjects_are_not_asked_for(d_z, n):
    assert subjects_for_power(d_z) == n


def test_the_effect_is_that_of_pingouin():
    effect = effect_of(TWELVE, better=1)  # pingouin.ttest(TWELVE, 0, alternative="less")
    assert effect.d_z == pytest.approx(0.051411, abs=1e-6)
    assert effect.chance_not_better == pytest.approx(1 - 0.569056, abs=1e-6)
    assert effect.win_share == 0.5
    less = effect_of(TWELVE, better=-1)
    assert (less.d_z, less.win_share) == (effect.d_z, 0.5)
    assert less.chance_not_better == pytest.approx(0.569056, abs=1e-6)


def test_undefined_pairs_do_not_count_and_ties_are_no_wins():
    assert effect_of([1.0, NAN, 2.0, 3.0, NAN], better=1) == effect_of([1.0, 2.0, 3.0], better=1)
    assert effect_of([0.1, 0.0, -0.1, 0.2], better=1).win_share == 0.5
    assert effect_of([0.1, 0.0, -0.1, 0.2], better=-1).win_share == 0.25


@pytest.mark.parametrize(
    ("d", "effect"),
    [
        ([NAN], Effect(None, None, None, None)),
        ([0.2], Effect(None, 1.0, None, None)),
        ([0.1, 0.1, 0.1], Effect(None, 1.0, None, None)),
        ([0.0, 0.0], Effect(None, 0.0, None, None)),
        ([-1.0, 1.0], Effect(0.0, 0.5, None, 0.5)),
    ],
)
def test_where_nothing_varies_there_is_no_effect_to_plan_with(d, effect):
    assert effect_of(d, better=1) == effect


def test_a_metric_without_a_direction_has_no_chance_of_being_worse():
    effect = effect_of(TWELVE, better=0)
    assert (effect.win_share, effect.chance_not_better) == (None, None)
    assert effect.d_z == effect_of(TWELVE, better=1).d_z
