"""Agreement of volumes against published and pingouin's numbers."""

import math

import pytest
from handmade import row

from rwtool.evaluation.rows import Rules
from rwtool.statistics.agreement import icc_3_1, volume_agreement
from rwtool.statistics.comparison import compare_rows as compare

NAN = float("nan")
REFERENCE = [19.4, 21.4, 49.8, 10.1, 38.0, 45.1, 15.3, 8.0, 20.1, 41.2]
MEASURED = [24.8, 21.7, 50.0, 8.4, 41.3, 46.2, 19.0, 7.1, 22.1, 39.1]


def test_the_published_example_of_shrout_and_fleiss_is_071():
    judges = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    assert icc_3_1(judges) == pytest.approx(0.7148, abs=5e-5)


def test_the_icc_is_that_of_pingouin():
    assert icc_3_1(list(zip(REFERENCE, MEASURED, strict=True))) == pytest.approx(0.987018, abs=1e-6)  # ICC(C,1)


def test_a_constant_bias_does_not_lower_it_and_chance_makes_it_0():
    assert icc_3_1([[1, 11], [2, 12], [4, 14]]) == pytest.approx(1)
    assert icc_3_1([[1, 2], [2, 1]]) == pytest.approx(-1)
    assert icc_3_1([[3.3, 3.3], [3.3, 3.3]]) is None


def test_bias_and_limits_by_hand():
    found = volume_agreement(MEASURED, REFERENCE, method="a", group="", label=1)
    assert (found.n, found.bias_ml, found.sd_ml) == (10, pytest.approx(1.13), pytest.approx(2.459019678200599))
    assert (found.low_ml, found.high_ml) == pytest.approx((-3.6896785692731737, 5.949678569273175))
    assert found.icc == pytest.approx(0.987018, abs=1e-6)


def test_unknown_volumes_are_left_out():
    found = volume_agreement([1.0, NAN, 3.0], [2.0, 5.0, NAN], method="a", group="", label=1)
    assert (found.n, found.bias_ml, found.sd_ml, found.low_ml, found.icc) == (1, -1, None, None, None)
    assert volume_agreement([NAN], [1.0], method="a", group="", label=1) is None


def test_runs_are_averaged_and_empty_structures_have_no_volume():
    rows = [
        row("a", case, value, metric="volume_ml", run=run, status=status, reference_ml=reference)
        for run, shift in (("1", 1.0), ("2", 3.0))
        for case, value, reference, status in (
            ("c0", 5.0 + shift, 5.0, "ok"), ("c1", 0.0, 4.0, "missed"), ("c2", 0.0, 0.0, "absent"),
        )
    ]  # fmt: skip
    (found,) = compare(rows, Rules()).agreement
    assert (found.method, found.n, found.bias_ml) == ("a", 3, pytest.approx((2 - 4 + 0) / 3))
    assert found.sd_ml == pytest.approx(math.sqrt(sum((d + 2 / 3) ** 2 for d in (2, -4, 0)) / 2))
