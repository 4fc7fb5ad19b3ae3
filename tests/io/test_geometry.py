import numpy as np
import pytest

from rwtool.errors import GeometryError, UsageError
from rwtool.io.geometry import (
    Geometry,
    NoSpacingError,
    axes_for,
    check_affine,
    check_spacing,
    column_norms,
    find_slice_axis,
    settle_spacing,
    unplaced,
)


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


# --- spacing that is stated, and that is not ---


@pytest.mark.parametrize(
    ("stated", "named"),
    [
        ((), "the header carries no spacing; give spacing_mm=(z, y, x)"),
        ((1, 2, np.nan), "the header carries no spacing (found 1 x 2 x nan); give"),
        ((0, 2, 3), "(found 0 x 2 x 3)"),
        ((1, np.inf, 3), "(found 1 x inf x 3)"),
        ((1, -2, 3), "(found 1 x -2 x 3)"),
    ],
)
def test_a_spacing_that_is_not_stated_is_asked_for_and_taken(stated, named):
    with pytest.raises(NoSpacingError) as caught:
        settle_spacing(stated, None, (4, 5, 6))
    assert named in str(caught.value)
    assert settle_spacing(stated, (4, 1, 2), (4, 5, 6)) == (4, 1, 2)


def test_a_spacing_that_is_stated_holds():
    assert settle_spacing((1, 2, 3), None, (4, 5, 6)) is None
    assert settle_spacing((1, 2, np.nan), None, (4, 5, 1)) is None  # of one slice it does not matter
    with pytest.raises(UsageError, match="this file carries its own spacing"):
        settle_spacing((1, 2, 3), (1, 2, 3), (4, 5, 6))


@pytest.mark.parametrize("given", [(1, 1), (1, 1, 0), (1, 1, -1), (1, 1, np.nan), (1, 1, np.inf), ()])
def test_what_is_no_spacing_is_refused(given):
    with pytest.raises(UsageError, match="a spacing is three positive numbers"):
        settle_spacing((), given, (4, 5, 6))


@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 2, 0), (2, 1, 0)])
def test_a_given_spacing_is_along_z_y_x(axes):
    geometry = unplaced((4, 2, 1), (5, 6, 7), axes, (5, 6, 7))
    assert geometry.spacing_mm == (4, 2, 1)
    assert (geometry.placed, geometry.spaced, geometry.directions) == (False, False, None)


@pytest.mark.parametrize("size", [1e-30, 1e30, np.inf, np.nan])
def test_voxels_of_a_size_that_no_distance_can_be_told_in_are_refused(size):
    with np.errstate(all="raise"), pytest.raises(GeometryError, match="its voxels measure 1 x 2 x "):
        Geometry(np.diag([1, 2, size, 1]), (2, 2, 2), (2, 1, 0), (2, 2, 2))


@pytest.mark.parametrize("size", [1e-300, 1e300])
def test_a_given_spacing_has_the_same_bounds(size):
    with pytest.raises(UsageError, match=r"in mm, 1e-09 to 1e\+09; found \(1.0, 1.0, 1e"):
        check_spacing((1, 1, size))


@pytest.mark.parametrize("origin", [1e300, -2e9, np.inf, np.nan])
def test_a_place_that_no_scanner_reaches_is_refused(origin):
    affine = np.eye(4)
    affine[1, 3] = origin
    with pytest.raises(GeometryError, match="its first voxel lies at"):
        Geometry(affine, (2, 2, 2), (2, 1, 0), (2, 2, 2))
