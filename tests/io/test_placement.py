import math

import numpy as np
import pytest

from rwtool.errors import UsageError
from rwtool.io.placement import lps_to_ras, of_space, place


@pytest.mark.parametrize(
    ("shape", "space"),
    [((1, 6, 5, 4), (6, 5, 4)), ((6, 5, 4, 1), (6, 5, 4)), ((1, 6, 5), (1, 6, 5)), ((6, 5, 4, 2), (6, 5, 4, 2))],
)
def test_a_single_voxel_first_or_last_is_no_axis_of_four(shape, space):
    assert of_space(shape) == space


def test_ras_is_lps_turned_about_the_body_axis():
    affine = np.arange(16.0).reshape(4, 4)
    assert np.array_equal(lps_to_ras(affine), np.diag([-1, -1, 1, 1]) @ affine)


def test_a_given_spacing_stands_alone():
    affine = np.diag([math.nan, 2, 3, 1])
    geometry, notes = place(affine, (6, 5, 4), (6, 5, 4), None, (3, 2, 1), placed=True)
    assert (geometry.spacing_mm, geometry.placed, geometry.spaced) == ((3, 2, 1), False, False)
    assert notes == ()
    with pytest.raises(UsageError, match="carries no spacing"):
        place(affine, (6, 5, 4), (6, 5, 4), None, None, placed=True)


@pytest.mark.parametrize("unknown", [0, math.nan, math.inf])
def test_the_step_of_an_axis_of_one_voxel_is_made_up_at_right_angles(unknown):
    affine = np.array([[0, 2, unknown, 5.0], [1, 0, unknown, 6], [0, 0, unknown, 7], [0, 0, 0, 1]])
    geometry, _ = place(affine, (6, 5, 1), (6, 5, 1), None, None, placed=True)
    assert np.abs(geometry.affine_mm[:3, 2]) == pytest.approx((0, 0, 1))
    assert geometry.affine_mm[:3, 3].tolist() == [5, 6, 7]
