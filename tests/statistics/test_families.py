"""Adjusted p-values by hand; max-T against a textbook loop stands in test_permutation.py."""

import itertools

import numpy as np
import pytest

from rwtool.statistics import families
from rwtool.statistics.families import holm_adjust, step_down_maxt


def test_holm_by_hand():
    # sorted .01 .02 .03 .9, times 4 3 2 1: .04 .06 .06 .9
    assert holm_adjust([0.03, 0.9, 0.01, 0.02]) == pytest.approx([0.06, 0.9, 0.04, 0.06])
    assert holm_adjust([0.5, 0.6, 0.7]).tolist() == [1, 1, 1]
    assert holm_adjust([]).tolist() == []


def all_sums(d):
    return np.array([np.dot(signs, d) for signs in itertools.product((1.0, -1.0), repeat=len(d))])


def test_maxt_of_two_columns_by_hand():
    d = np.array([[1.0, 1.0], [1.0, -1.0]])  # |sums| 2 0 under the identity, and 0 2 where one sign is flipped
    assert step_down_maxt(d, all_sums(d), np.array([0.5, 1.0])).tolist() == [1, 1]
    d = np.array([[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]])
    assert step_down_maxt(d, all_sums(d), np.array([0.25, 0.25])).tolist() == [0.25, 0.25]


def test_flips_in_blocks_are_counted_as_those_at_once(monkeypatch):
    d = np.random.default_rng(0).normal(0.3, 1, (8, 5))
    sums = all_sums(d)
    at_once = step_down_maxt(d, sums, np.zeros(5))
    monkeypatch.setattr(families, "_BLOCK_ELEMENTS", 35)
    assert step_down_maxt(d, sums, np.zeros(5)).tolist() == at_once.tolist()
    assert len(set(at_once)) > 1


def test_an_adjusted_p_is_never_below_the_unadjusted():
    d = np.array([[1.0, 0.1], [1.0, -0.2], [1.0, 0.3]])
    assert step_down_maxt(d, all_sums(d), np.array([0.9, 0.2]))[0] == 0.9


@pytest.mark.slow
def test_at_most_5_and_a_half_percent_of_null_studies_of_four_methods_claim_a_difference():
    """20,000 studies of ten subjects and four columns, so of 24 tests each: 4.74 %."""
    rng = np.random.default_rng(77)
    signs = np.array(list(itertools.product((1.0, -1.0), repeat=10)))
    wrong = 0
    for _ in range(20_000):
        values = rng.normal(size=(10, 4, 4))
        d = np.hstack([values[:, one] - values[:, other] for one, other in itertools.combinations(range(4), 2)])
        wrong += step_down_maxt(d, signs @ d, np.zeros(24)).min() < 0.05
    assert 0.045 < wrong / 20_000 <= 0.055
