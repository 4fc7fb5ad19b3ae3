import numpy as np
import pytest

from rwtool.errors import GeometryError, UsageError
from rwtool.io.geometry import Geometry, axes_for, check_affine, column_norms, find_slice_axis, grid_difference


def grid(affine=None, shape=(4, 5, 6), axes=(2, 1, 0)):
    return Geometry(np.eye(4) if affine is None else affine, shape, axes, shape)


def sheared(cosine):
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    affine[:3, 1] = 3 * np.array([cosine, np.sqrt(1 - cosine**2), 0])
    return affine


def rotated(degrees, spacing=(1.0, 1.0, 1.0)):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    affine = np.eye(4)
    affine[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) * spacing
    return affine


@pytest.mark.parametrize(
    ("shape", "spacing", "axis"),
    [
        ((157, 512, 512), (0.5, 0.9, 0.9), 0),  # KiTS19: the finest axis, and still the slices
        ((512, 157, 512), (0.9, 5, 0.9), 1),
        ((512, 512, 17), (0.6, 0.6, 3.3), 2),
        ((35, 50, 36), (1, 1, 1), 2),
        ((35, 50, 36), (1, 2, 3), 2),
        ((9, 9, 9), (5, 1, 1.0099), 0),  # within 1 %
        ((9, 9, 9), (5, 1, 1.011), 2),  # not within 1 %
        ((9, 9, 9), (1, 1.009, 1.018), 2),  # two pairs within 1 %, so no pair is the one
        ((1, 9, 9), (1, 1, 1), 0),
        ((9, 1, 9), (1, 1, 5), 1),
        ((9, 1, 1), (5, 1, 1), 0),
        ((1, 1, 1), (1, 1, 1), 2),
    ],
)
def test_slice_axis_is_the_one_beside_the_only_equal_pair_else_the_last(shape, spacing, axis):
    assert find_slice_axis(shape, spacing) == axis


@pytest.mark.parametrize(("slice_axis", "axes"), [(0, (0, 1, 2)), (1, (1, 2, 0)), (2, (2, 1, 0)), (None, (2, 1, 0))])
def test_given_slice_axis_wins(slice_axis, axes):
    assert axes_for((4, 5, 6), (1, 1, 1), slice_axis) == axes


@pytest.mark.parametrize("slice_axis", [3, -1])
def test_slice_axis_that_no_file_has_is_refused(slice_axis):
    with pytest.raises(UsageError, match=rf"0, 1 or 2; found {slice_axis}"):
        axes_for((4, 5, 6), (1, 1, 1), slice_axis)


@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 2, 0), (2, 1, 0)])
def test_to_file_undoes_to_array(axes):
    geometry = grid(np.diag([2.0, 3, 4, 1]), axes=axes)
    stored = np.arange(120).reshape(4, 5, 6)
    array = geometry.to_array(stored)
    assert array.shape == geometry.array_shape == tuple((4, 5, 6)[axis] for axis in axes)
    assert geometry.spacing_mm == tuple((2.0, 3.0, 4.0)[axis] for axis in axes)
    assert geometry.slice_axis == axes[0]
    assert np.array_equal(geometry.to_file(array), stored)


def test_spacing_is_the_column_norms():
    assert column_norms(rotated(30, (2, 3, 4))) == pytest.approx([2, 3, 4])


@pytest.mark.parametrize("affine", [np.eye(4), rotated(37, (0.7, 0.7, 3)), np.diag([-1.0, 1, -3, 1]), sheared(0.0009)])
def test_oblique_and_flipped_affines_are_fine(affine):
    assert check_affine(affine) == []


def test_slight_shear_is_reported():
    assert check_affine(sheared(0.0099)) == ["the affine is slightly sheared (|cos| = 0.0099)"]
    assert check_affine(sheared(-0.0011)) == ["the affine is slightly sheared (|cos| = 0.0011)"]


@pytest.mark.parametrize("cosine", [0.0101, -0.3])
def test_shear_is_refused_and_names_the_axes(cosine):
    with pytest.raises(GeometryError, match=rf"sheared: file axes 0 and 1 have \|cos\| = {abs(cosine):.4f}.*resample"):
        check_affine(sheared(cosine))


@pytest.mark.parametrize("diagonal", [(1, 0, 1, 1), (1, np.nan, 1, 1), (np.inf, 1, 1, 1)])
def test_affine_without_size_is_refused(diagonal):
    with pytest.raises(GeometryError, match="voxel size of 0 or a value that is not finite"):
        check_affine(np.diag(np.array(diagonal, dtype=float)))


def moved(affine, *shift):
    result = affine.copy()
    result[:3, 3] += shift
    return result


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (grid(shape=(4, 5, 7)), "the shapes differ: (4, 5, 6) and (4, 5, 7)"),
        (grid(moved(np.eye(4), 0.11, 0, 0)), "the origins differ by (0.11, 0, 0) mm (right, anterior, superior)"),
        (grid(np.diag([1.0, 1, 1.1, 1])), "the spacings differ: (1, 1, 1) and (1, 1, 1.1) mm"),
        (
            grid(rotated(5)),
            "the axes point elsewhere: corners differ by up to 0.36 voxels (origins differ by (0, 0, 0) mm)",
        ),
    ],
)
def test_grids_that_differ_are_described(other, difference):
    assert grid_difference(grid(), other).startswith(difference)


@pytest.mark.parametrize("affine", [np.eye(4), moved(np.eye(4), 0.099, 0, -0.099), rotated(0.5)])
def test_corners_within_a_tenth_of_a_voxel_are_the_same_grid(affine):
    assert grid_difference(grid(), grid(affine)) is None


def test_a_tenth_of_a_voxel_is_measured_in_voxels_not_mm():
    coarse = np.diag([5.0, 5, 5, 1])
    assert grid_difference(grid(coarse), grid(moved(coarse, 0.45, 0, 0))) is None
    assert grid_difference(grid(coarse), grid(moved(coarse, 0.55, 0, 0))) is not None


def test_a_small_error_of_spacing_counts_at_the_far_corner():
    stretched = np.diag([1.01, 1, 1, 1])
    assert grid_difference(grid(shape=(10, 5, 5)), grid(stretched, (10, 5, 5))) is None
    assert grid_difference(grid(shape=(30, 5, 5)), grid(stretched, (30, 5, 5))) is not None
