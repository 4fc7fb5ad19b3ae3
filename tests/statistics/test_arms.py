import math

import numpy as np
import pytest
from handmade import row, structure

from rwtool.errors import UsageError
from rwtool.statistics.arms import NO_ROW, STATUSES, arrays, check_rows, differences, under, without_rounding

RUNS = {"old": ("",), "new": ("",)}


def of(rows, metrics=("dice", "hd")):
    return arrays(rows, "", metrics, RUNS)


def two_cases():
    """Case a is segmented by both; case b is missed by the new method."""
    return [
        *structure("old", "b", "ok", dice=0.8, hd=4.0)[:2],
        *structure("new", "b", "missed")[:2],
        *structure("old", "a", "ok", dice=0.5, hd=2.0)[:2],
        *structure("new", "a", "ok", dice=0.7, hd=1.0)[:2],
    ]


def test_rows_become_arrays_over_sorted_cases():
    axes, arms = of(two_cases())
    assert (axes.cases, axes.labels, axes.subjects) == (("a", "b"), (1,), ("a", "b"))
    assert axes.columns() == [(1, "dice"), (1, "hd")]
    assert axes.is_distance.tolist() == [False, True]
    assert arms["old"].values.tolist() == [[[[0.5, 2.0]], [[0.8, 4.0]]]]
    assert arms["new"].status.tolist() == [[[STATUSES.index("ok")], [STATUSES.index("missed")]]]


def test_a_case_without_a_row_has_no_status_and_no_value():
    arms = of([r for r in two_cases() if (r.method, r.case) != ("new", "b")])[1]
    assert arms["new"].status.tolist() == [[[STATUSES.index("ok")], [NO_ROW]]]
    assert np.isnan(arms["new"].values[0, 1]).all()


@pytest.mark.parametrize(("rule", "mm"), [("diagonal", 100.0), (7.0, 7.0), ("exclude", math.nan)])
def test_the_rule_fills_distances_alone(rule, mm):
    axes, arms = of(two_cases())
    np.testing.assert_equal(under(rule, axes, arms["new"])[0, 1, 0], [0.0, mm])


def test_differences_are_of_the_method_less_the_baseline_with_the_size_they_come_from():
    axes, arms = of(two_cases())
    found = differences("diagonal", axes, arms["new"], arms["old"])
    np.testing.assert_allclose(found.values, [[0.2, -1.0], [-0.8, 96.0]])
    assert found.largest.tolist() == [0.8, 100.0]


def test_a_column_that_is_undefined_everywhere_has_size_0():
    axes, arms = of([*structure("old", "a", "absent")[:2], *structure("new", "a", "absent")[:2]])
    found = differences("diagonal", axes, arms["new"], arms["old"])
    assert np.isnan(found.values).all()
    assert found.largest.tolist() == [0.0, 0.0]
    assert np.isnan(without_rounding(found.values, found.largest)).all()


@pytest.mark.parametrize("size", [1e-6, 0.9, 1.0, 373.13, 1e5])
def test_rounding_goes_and_all_else_stays(size):
    noise = size * np.array([[0.0], [1e-16], [-3e-15], [1e-12], [0.25]])
    found = without_rounding(noise, np.array([size]))
    assert found[:3].ravel().tolist() == [0.0] * 3
    np.testing.assert_allclose(found[3:], noise[3:], rtol=0.2)
    assert not np.signbit(found).any()


def test_an_infinite_value_is_refused_with_its_mend():
    with pytest.raises(UsageError, match="old, a, class 1: hd is infinite; give NaN where it is undefined"):
        check_rows([row("old", "a", math.inf, metric="hd")])
