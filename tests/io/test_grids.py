from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform

from rwtool.io.geometry import Geometry, unplaced
from rwtool.io.grids import (
    Turn,
    common_directions,
    compare_grids,
    describe_directions,
    find_turn,
    match_turned,
    turn_to,
)


def grid(affine=None, shape=(4, 5, 6), axes=(2, 1, 0), **stated):
    return Geometry(np.eye(4) if affine is None else affine, shape, axes, shape, **stated)


def rotated(degrees, spacing=(1.0, 1.0, 1.0)):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    affine = np.eye(4)
    affine[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) * spacing
    return affine


def moved(affine, *shift):
    result = affine.copy()
    result[:3, 3] += shift
    return result


# --- one grid or two ---


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (grid(shape=(4, 5, 7)), "the shapes differ: (4, 5, 6) and (4, 5, 7)"),
        (
            grid(moved(np.eye(4), 0.11, 0, 0)),
            "the origins differ by (0.11, 0, 0) mm (right, anterior, superior); corners differ by up to 0.11 voxels",
        ),
        (
            grid(np.diag([1.0, 1, 1.1, 1])),
            "the spacings differ: (1, 1, 1) and (1, 1, 1.1) mm, by up to 10 %; corners differ by up to 0.5 voxels",
        ),
        (grid(rotated(5)), "the directions of the axes differ by up to 5 degrees; corners differ by up to 0.36 voxels"),
        (
            grid(moved(rotated(5), 0.2, 0, 0)),
            "the directions of the axes differ by up to 5 degrees; corners differ by up to 0.261 voxels",
        ),
        (
            grid(moved(rotated(5), 0, 0, 2)),
            "the origins differ by (0, 0, 2) mm (right, anterior, superior); corners differ by up to 2 voxels",
        ),
        (
            grid(np.diag([-1.0, 1, 1, 1])),
            "the directions of the axes differ by up to 180 degrees; corners differ by up to 6 voxels",
        ),
    ],
)
def test_what_differs_most_is_named_with_its_size(other, difference):
    match = compare_grids(grid(), other)
    assert not match.same
    assert match.difference == difference


@pytest.mark.parametrize("affine", [np.eye(4), moved(np.eye(4), 0.099, 0, -0.099), rotated(0.5)])
def test_corners_within_a_tenth_of_a_voxel_are_the_same_grid(affine):
    match = compare_grids(grid(), grid(affine))
    assert match.same
    assert match.note is None


def test_a_tenth_of_a_voxel_is_measured_in_voxels_not_mm():
    coarse = np.diag([5.0, 5, 5, 1])
    assert compare_grids(grid(coarse), grid(moved(coarse, 0.45, 0, 0))).same
    assert not compare_grids(grid(coarse), grid(moved(coarse, 0.55, 0, 0))).same


def test_a_small_error_of_spacing_counts_at_the_far_corner():
    stretched = np.diag([1.01, 1, 1, 1])
    assert compare_grids(grid(shape=(10, 5, 5)), grid(stretched, (10, 5, 5))).same
    assert not compare_grids(grid(shape=(30, 5, 5)), grid(stretched, (30, 5, 5))).same


PROSTATE = (640, 640, 21)  # voxels of a real pair whose corners lie up to 0.7 voxels apart


@pytest.mark.parametrize(
    ("affine", "same"),
    [
        (rotated(np.degrees(1.2e-3)), True),  # what a float32 quaternion loses
        (rotated(np.degrees(1.99e-3)), True),
        (rotated(np.degrees(2.01e-3)), False),
        (moved(rotated(np.degrees(1.2e-3)), 0.09, -0.09, 0.09), True),
        (moved(rotated(np.degrees(1.2e-3)), 0.11, 0, 0), False),
        (rotated(np.degrees(1.2e-3), (1.0009, 1, 1)), True),
        (rotated(np.degrees(1.2e-3), (1.0011, 1, 1)), False),
    ],
)
def test_the_rounding_of_a_quaternion_is_the_same_grid_with_a_note(affine, same):
    match = compare_grids(grid(shape=PROSTATE), grid(affine, PROSTATE))
    assert match.same is same
    if same:
        assert "quaternion in float32" in match.note
        assert "corners by up to" in match.note


def test_a_quaternion_near_a_half_turn_loses_as_much_as_is_allowed():
    exact = np.diag([-0.5, -0.5, 3.0, 1.0])
    exact[:3, :3] = nib.eulerangles.euler2mat(np.pi - 2e-4, 1e-4, 3e-4) * (0.5, 0.5, 3)
    header = nib.Nifti1Header()
    header.set_data_shape(PROSTATE)
    header.set_qform(exact, 1)
    stored = header.get_qform()
    assert not np.allclose(stored, exact, atol=1e-6)
    assert compare_grids(grid(exact, PROSTATE), grid(stored, PROSTATE)).same


def test_an_axis_of_one_voxel_may_point_anywhere():
    flat = (4, 5, 1)
    tilted = np.diag([1.0, 1, -7, 1])
    assert compare_grids(grid(shape=flat), grid(tilted, flat)).note is None


# --- files that do not say where they lie ---


def test_a_file_that_is_not_placed_pairs_by_shape_and_spacing():
    here = grid(np.diag([1.0, 2, 3, 1]))
    nowhere = grid(np.diag([-1.0, 2.001, 3, 1]), placed=False)
    for pair in ((here, nowhere), (nowhere, here)):
        match = compare_grids(*pair)
        assert match.same
        assert match.note.startswith(
            "one of two files states no position or orientation; with equal shapes and spacings"
        )
    assert compare_grids(nowhere, nowhere).note is None
    assert compare_grids(here, grid(np.diag([1.0, 2, 3.01, 1]), placed=False)).difference == (
        "the spacings differ: (1, 2, 3) and (1, 2, 3.01) mm, by up to 0.333 %"
    )
    assert compare_grids(here, grid(shape=(4, 6, 5), placed=False)).difference == (
        "the shapes differ: (4, 5, 6) and (4, 6, 5)"
    )


def test_a_file_without_spacing_pairs_by_the_shape_of_its_array():
    array = unplaced((9, 9, 9), (6, 5, 4), (2, 1, 0), (6, 5, 4))  # (4, 5, 6) as z, y, x
    sliced_first = grid(axes=(0, 1, 2))
    assert compare_grids(sliced_first, array).note.startswith("a file without spacing has no grid")
    assert compare_grids(array, array).note is None
    assert compare_grids(grid(), array).difference == "the shapes (z, y, x) differ: (6, 5, 4) and (4, 5, 6)"


def test_what_is_not_placed_is_never_turned():
    flipped = grid(np.diag([-1.0, 1, 1, 1]), placed=False)
    assert find_turn(grid(), flipped) is None
    assert find_turn(flipped, grid()) is None


# --- turns ---

CODES = ["RAS", "LPS", "ASR", "SLA", "IRP"]


@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 2, 0), (2, 1, 0)])
@pytest.mark.parametrize("onto_axes", [(0, 1, 2), (1, 2, 0), (2, 1, 0)])
@pytest.mark.parametrize("codes", CODES)
def test_a_file_in_another_orientation_is_turned_onto_the_grid(codes, axes, onto_axes):
    stored = np.arange(120).reshape(4, 5, 6)
    affine = moved(rotated(20, (1.0, 2.0, 3.0)), 10, -20, 30)
    change = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))
    turned = nib.apply_orientation(stored, change)
    onto = grid(affine, axes=onto_axes)
    other = grid(affine @ inv_ornt_aff(change, stored.shape), turned.shape, axes)
    turn, match = match_turned(onto, other)
    assert match.same
    array = other.to_array(turned)
    assert np.array_equal(turn.apply(array), onto.to_array(stored))
    assert np.array_equal(turn.undo(turn.apply(array)), array)
    assert np.array_equal(turn.apply(np.stack([array, -array]))[1], -onto.to_array(stored))
    assert turn.order(array.shape) == onto.array_shape
    assert turn.order(other.spacing_mm) == pytest.approx(onto.spacing_mm)


def test_no_turn_makes_two_places_one():
    assert find_turn(grid(), grid(moved(np.diag([-1.0, 1, 1, 1]), 5, 0, 0))) is None
    turn, match = match_turned(grid(), grid(moved(np.eye(4), 5, 0, 0)))
    assert turn == Turn()
    assert match.difference.startswith("the origins differ by (5, 0, 0) mm")


AXES = {"R": (1, 0, 0), "A": (0, 1, 0), "S": (0, 0, 1), "L": (-1, 0, 0), "P": (0, -1, 0), "I": (0, 0, -1)}


def pointing(codes):
    return tuple(tuple(map(float, AXES[code])) for code in codes)


def test_directions_are_where_z_y_and_x_point():
    assert grid(np.diag([-1.0, -2, 3, 1])).directions == pointing("SPL")
    assert grid(axes=(0, 1, 2)).directions == pointing("RAS")
    np.testing.assert_allclose(grid(rotated(30)).directions, rotated(30)[:3, :3].T[::-1])
    assert grid(placed=False).directions is None
    assert describe_directions(grid(rotated(30)).directions) == "SAR"


@pytest.mark.parametrize("wanted", ["SPL", "SAR", "RAS", "AIL", "PRI"])
@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 2, 0), (2, 1, 0)])
def test_an_array_is_turned_to_an_anatomical_order(wanted, axes):
    there = grid(rotated(10, (1.0, 2.0, 3.0)), axes=axes)
    turn = turn_to(pointing(wanted), there.directions)
    place = np.stack(np.meshgrid(*map(np.arange, there.shape), indexing="ij"))  # (i, j, k), which is (R, A, S)
    array = turn.apply(np.stack([there.to_array(part) for part in place]))
    for axis, code in enumerate(wanted):
        steps = np.diff(array, axis=1 + axis)["RLAPSI".index(code) // 2]
        assert set(np.unique(steps)) == {1 if code in "RAS" else -1}
    assert turn.undo(array)[0].tolist() == there.to_array(place[0]).tolist()


def test_an_oblique_file_is_not_turned_for_lying_a_few_degrees_off():
    for degrees in (30, 44, 46, 60):
        assert turn_to(grid(rotated(45)).directions, grid(rotated(degrees)).directions) == Turn()
    assert turn_to(grid(rotated(45)).directions, grid(rotated(136)).directions) != Turn()


def test_what_is_sliced_across_z_stays_so():
    coronal, axial = pointing("PSL"), pointing("SPL")
    assert turn_to(axial, coronal) == Turn((1, 0, 2))
    assert turn_to(axial, coronal, sliced=True) == Turn()  # at a right angle either way is as near
    assert turn_to(axial, pointing("IRP"), sliced=True) == Turn((0, 2, 1), (True, False, True))


@pytest.mark.parametrize(
    ("shape", "spacing", "axes", "sliced"),
    [
        ((40, 50, 30), (1, 1, 5), (2, 1, 0), True),
        ((40, 50, 30), (1, 1, 5), (0, 1, 2), False),
        ((40, 50, 30), (5, 1, 1), (0, 1, 2), True),
        ((40, 50, 30), (1, 1, 1), (2, 1, 0), False),
        ((40, 50, 30), (1, 2, 3), (2, 1, 0), False),
        ((40, 50, 1), (1, 1, 1), (2, 1, 0), True),
    ],
)
def test_shape_and_spacing_may_tell_what_is_sliced(shape, spacing, axes, sliced):
    assert Geometry(np.diag([*spacing, 1.0]), shape, axes, shape).sliced is sliced


def test_what_does_not_say_how_it_lies_stays_as_it_is():
    assert turn_to(pointing("SPL"), None) == Turn()
    assert turn_to(None, pointing("SAR")) == Turn()
    assert turn_to(pointing("SAR"), pointing("SAR")) == Turn()


def test_the_common_order_is_that_of_most_in_the_plane_of_most():
    def common(*found):
        directions = common_directions(None if codes is None else pointing(codes) for codes in found)
        return None if directions is None else describe_directions(directions)

    assert common("SPL", "SAR", "SPL", None) == "SPL"
    assert common("SAR", "SPL") == common("SPL", "SAR") == "SAR"
    assert common("RSP", "RSP", "SAR", "IPL", "SPL") == "IPL"
    assert common(None, None) is None


def test_a_grid_that_is_turned_keeps_what_it_is_called_by():
    assert replace(grid(), axes=(0, 1, 2)).array_shape == (4, 5, 6)
