import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from volumes import IGNORED, label_arrays

import rwtool
from rwtool.errors import UsageError, VolumeError
from rwtool.maps.kinds import make_map
from rwtool.maps.parameters import MapParameters

SPACING = (3.0, 1.25, 0.8)


MATRIX = ((-0.5, 1.0, 2.0), (1.0, 0.25, 1.0), (3.0, 1.5, -1.0))


def make(labels, spacing, kind, *, n_classes=3, **options):
    if kind == "matrix":
        return rwtool.matrix_map(labels, **options)
    where = () if kind in ("ac", "constant") else (spacing,)
    return getattr(rwtool, f"{kind}_map")(labels, *where, n_classes=n_classes, **options)


INSIDE = [
    {"convention": convention, "units": units, "dims": dims}
    for convention in ("across", "inner", "kervadec")
    for units in ("mm", "voxel")
    for dims in (3, 2)
    if (convention, units) != ("kervadec", "mm")
]
CASES = [
    *(("rrw", options) for options in INSIDE),
    *(("boundary", options) for options in INSIDE),
    *(("hd", {"units": units, "dims": dims}) for units in ("mm", "voxel") for dims in (3, 2)),
    *((kind, {"absent": "farthest", "dims": dims}) for kind in ("boundary", "hd") for dims in (3, 2)),
    ("hd", {"alpha": 1.0}),
    ("ac", {}),
    ("constant", {}),
    ("constant", {"alpha": 2.5, "beta": 0.5}),
    *(("rrw", {"profile": "reversed", **options}) for options in INSIDE),
    *(("rrw", {"profile": "exp", "sigma": 1.5, **options}) for options in INSIDE),
    ("rrw", {"profile": "exp"}),
    *(("rrw", {"profile": p, "instances": True, "dims": d}) for p in ("linear", "reversed") for d in (3, 2)),
    ("ac", {"instances": True}),
    ("constant", {"alpha": 2.5, "beta": 0.5, "instances": True}),
    *(("skeleton", {"dims": d, "units": u, "instances": d == 2}) for d in (3, 2) for u in ("mm", "voxel")),
    ("matrix", {"matrix": MATRIX}),
]


@pytest.mark.parametrize(("kind", "options"), CASES, ids=str)
@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_every_kind_equals_pairwise_distances(kind, options, data):
    ignore = data.draw(st.booleans())
    labels = data.draw(label_arrays(ignore=ignore))
    spacing = data.draw(st.sampled_from([SPACING, (1.0, 1.0, 1.0), (0.5, 2.0, 7.0)]))
    given_ignore = {"ignore": IGNORED} if ignore else {}
    found = make(labels, spacing, kind, **options, **given_ignore)
    truth = oracle.region_wise_map(labels, spacing, n_classes=3, kind=kind, **options, **given_ignore)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, truth, rtol=1e-5, atol=1e-6)


def test_a_row_of_four_voxels_by_hand():
    labels = np.array([[[0, 0, 1, 2]]])
    rrw = make(labels, (9, 9, 2.0), "rrw")
    np.testing.assert_array_equal(rrw[:, 0, 0], [[-1, -0.5, 1, 1], [1, 1, -1, 1], [1, 1, 1, -1]])
    boundary = make(labels, (9, 9, 2.0), "boundary")
    np.testing.assert_array_equal(boundary[:, 0, 0], [[-4, -2, 2, 4], [4, 2, -2, 2], [6, 4, 2, -2]])
    hd = make(labels, (9, 9, 2.0), "hd")
    np.testing.assert_array_equal(hd[:, 0, 0], [[0, 0, 4, 16], [16, 4, 0, 4], [36, 16, 4, 0]])


def test_a_box_5x5_has_own_values_of_minus_one_third_two_thirds_and_one():
    labels = np.zeros((1, 9, 9), dtype=int)
    labels[0, 2:7, 2:7] = 1
    own = make(labels, (1, 1, 1), "rrw", n_classes=2)[1, 0]
    np.testing.assert_allclose(own[4, 2:7], np.array([-1, -2, -3, -2, -1]) / 3, rtol=1e-6)
    inner = make(labels, (1, 1, 1), "boundary", n_classes=2, convention="inner")[1, 0]
    np.testing.assert_array_equal(inner[4], [2, 1, 0, -1, -2, -1, 0, 1, 2])
    kervadec = make(labels, (1, 1, 1), "boundary", n_classes=2, convention="kervadec", units="voxel")[1, 0]
    np.testing.assert_array_equal(kervadec[4], [2, 1, 0, -1, -2, -1, 0, 1, 2])


def test_inner_is_a_transform_of_its_own_and_not_across_less_one():
    labels = np.zeros((1, 7, 7), dtype=int)
    labels[0, 1:6, 1:6] = 1
    labels[0, 3, 3] = 0
    across = make(labels, (1, 1, 1), "boundary", n_classes=2)
    inner = make(labels, (1, 1, 1), "boundary", n_classes=2, convention="inner")
    outer_corner = (0, 2, 2)
    assert across[(1, *outer_corner)] == pytest.approx(-np.sqrt(2))
    assert inner[(1, *outer_corner)] == pytest.approx(-1.0)


@pytest.mark.parametrize("kind", ["rrw", "boundary", "hd"])
def test_boundary_of_each_class_equals_scipy_to_1e_4(kind):
    rng = np.random.default_rng(3)
    labels = np.argmax(ndimage.gaussian_filter(rng.normal(size=(3, 24, 40, 33)), (0, 3, 4, 4)), axis=0)
    found = make(labels, SPACING, kind)
    for k in range(3):
        own = labels == k
        outside = ndimage.distance_transform_edt(~own, SPACING)
        inside = ndimage.distance_transform_edt(own, SPACING)
        truth = {
            "rrw": np.where(own, -inside / inside.max(), 1),
            "boundary": outside - inside,
            "hd": outside**2,
        }[kind]
        np.testing.assert_allclose(found[k], truth, rtol=1e-4, atol=1e-6)


def authors_rrw(one_hot):
    """The paper's published recipe for RRW maps, in its own words: voxel units, distance over its maximum."""
    result = np.zeros(one_hot.shape)
    for c in range(len(one_hot)):
        distance = ndimage.distance_transform_edt(one_hot[c])
        result[c] = -distance / (distance.max() + 1e-15)
    result[result == 0] = 1
    return result


def authors_boundary(one_hot):
    """The same for Boundary maps."""
    result = np.zeros(one_hot.shape)
    for c in range(len(one_hot)):
        own = one_hot[c].astype(bool)
        result[c] = ndimage.distance_transform_edt(~own) * ~own - ndimage.distance_transform_edt(own) * own
    return result


@pytest.mark.parametrize(("kind", "recipe"), [("rrw", authors_rrw), ("boundary", authors_boundary)])
def test_across_in_voxels_equals_the_authors_recipe(kind, recipe):
    rng = np.random.default_rng(8)
    labels = np.argmax(ndimage.gaussian_filter(rng.normal(size=(4, 12, 30, 30)), (0, 2, 4, 4)), axis=0)
    one_hot = np.stack([labels == k for k in range(4)]).astype(np.float64)
    found = make(labels, SPACING, kind, n_classes=4, units="voxel")
    np.testing.assert_allclose(found, recipe(one_hot), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "options"), [("rrw", {}), ("rrw", {"convention": "inner"}), ("boundary", {}), ("hd", {})]
)
@pytest.mark.parametrize("order", [(1, 0, 2), (2, 1, 0), (1, 2, 0)])
def test_permuting_axes_with_their_spacing_commutes(kind, options, order):
    labels = np.random.default_rng(1).integers(0, 3, (4, 6, 5)).repeat(2, axis=1)
    turned = make(labels.transpose(order), [SPACING[axis] for axis in order], kind, **options)
    np.testing.assert_array_equal(turned, make(labels, SPACING, kind, **options).transpose(0, *(o + 1 for o in order)))


@pytest.mark.parametrize("kind", ["rrw", "boundary", "hd", "skeleton"])
@pytest.mark.parametrize("dims", [2, 3])
def test_flipping_commutes(kind, dims):
    labels = np.random.default_rng(2).integers(0, 3, (4, 6, 5)).repeat(2, axis=1)
    straight = make(labels, SPACING, kind, dims=dims)
    for axis in range(3):
        flipped = make(np.flip(labels, axis), SPACING, kind, dims=dims)
        np.testing.assert_array_equal(flipped, np.flip(straight, axis + 1))


@pytest.mark.parametrize(
    "arrange", [np.ascontiguousarray, np.asfortranarray, lambda a: np.repeat(a, 2, axis=2)[:, :, ::2]]
)
@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.int16])
def test_memory_order_and_integer_type_do_not_matter(arrange, dtype):
    labels = np.random.default_rng(5).integers(0, 3, (5, 6, 7))
    expected = make(labels, SPACING, "rrw")
    np.testing.assert_array_equal(make(arrange(labels.astype(dtype)), SPACING, "rrw"), expected)


def test_a_2d_image_is_one_slice():
    labels = np.random.default_rng(5).integers(0, 2, (6, 7))
    flat = make(labels, SPACING, "boundary", n_classes=2)
    assert flat.shape == (2, 6, 7)
    np.testing.assert_array_equal(flat, make(labels[None], SPACING, "boundary", n_classes=2)[:, 0])


def test_no_distance_crosses_a_slice_with_dims_2():
    labels = np.zeros((2, 1, 9), dtype=int)
    labels[0, 0, 0] = 1
    labels[1, 0, 8] = 1
    found = make(labels, (0.001, 1, 1), "boundary", n_classes=2, dims=2)
    assert found[1, 0, 0].tolist() == [-1, 1, 2, 3, 4, 5, 6, 7, 8]


def test_255_classes_do_not_wrap():
    labels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    found = make(labels, (1, 1, 1), "rrw", n_classes=256)
    assert (np.take_along_axis(found, labels[None].astype(int), 0) == -1).all()
    assert (found.max(axis=0) == 1).all()


# --- edge cases of the table ---


def test_absent_class_is_the_other_value_everywhere_in_rectified_maps():
    labels = np.array([[[0, 0, 2, 2]]])
    for kind in ("rrw", "ac", "constant"):
        assert (make(labels, (1, 1, 1), kind)[1] == 1).all()


def test_absent_class_is_0_in_boundary_and_hd_maps_and_farthest_on_request():
    labels = np.array([[[0, 0, 2, 2]]])
    assert (make(labels, (1, 1, 1), "boundary")[1] == 0).all()
    assert (make(labels, (1, 1, 1), "hd")[1] == 0).all()
    assert make(labels, (1, 1, 1), "boundary", absent="farthest")[1, 0, 0].tolist() == [2, 1, 1, 2]
    assert make(labels, (1, 1, 1), "hd", absent="farthest")[1, 0, 0].tolist() == [4, 1, 1, 4]


@pytest.mark.parametrize("convention", ["across", "inner"])
def test_class_that_fills_the_volume_is_minus_1_in_rrw_and_0_in_distance_maps(convention):
    labels = np.ones((2, 3, 4), dtype=int)
    assert (make(labels, SPACING, "rrw", convention=convention)[1] == -1).all()
    assert (make(labels, SPACING, "boundary", convention=convention) == 0).all()
    assert (make(labels, SPACING, "hd") == 0).all()
    assert (make(labels, SPACING, "boundary", absent="farthest") == 0).all()


def test_class_that_fills_a_slice_is_minus_1_there_with_dims_2():
    labels = np.zeros((2, 2, 3), dtype=int)
    labels[1, 0, 0] = 1
    found = make(labels, (1, 1, 1), "rrw", n_classes=2, dims=2)
    assert (found[0, 0] == -1).all()
    assert found[1, 1, 0, 0] == -1
    assert (make(labels, (1, 1, 1), "boundary", n_classes=2, dims=2)[:, 0] == 0).all()


@pytest.mark.parametrize("convention", ["inner", "kervadec"])
def test_largest_distance_of_0_gives_0(convention):
    labels = np.array([[[0, 1, 0]]])
    found = make(labels, (1, 1, 1), "rrw", n_classes=2, convention=convention, units="voxel")
    assert (found[np.array([[0, 1, 0]]), 0, 0, np.arange(3)] == 0).all()
    boundary = make(labels, (1, 1, 1), "boundary", n_classes=2, convention=convention, units="voxel")
    assert boundary[1, 0, 0].tolist() == [1, 0, 1]


def test_ignored_voxels_are_0_and_no_target():
    labels = np.array([[[0, 0, IGNORED, 1]]])
    found = make(labels, (1, 1, 1), "boundary", n_classes=2, ignore=IGNORED)
    assert found[0, 0, 0].tolist() == [-3, -2, 0, 2]
    assert found[1, 0, 0].tolist() == [3, 2, 0, -2]
    packed = rwtool.rrw_map(labels, (1, 1, 1), n_classes=2, ignore=IGNORED, layout="packed")
    np.testing.assert_allclose(packed[0, 0], [-1, -2 / 3, np.nan, -1], rtol=1e-6)


def test_a_negative_ignore_value_is_taken():
    labels = np.array([[[0, -1, 1]]])
    assert make(labels, (1, 1, 1), "ac", n_classes=2, ignore=-1)[:, 0, 0].tolist() == [[0, 0, 1], [1, 0, 0]]


def test_class_weight_scales_the_other_value_at_voxels_of_its_class():
    labels = np.array([[[0, 1, 2]]])
    found = make(labels, (1, 1, 1), "ac", class_weights={1: 3.0})
    assert found[:, 0, 0].tolist() == [[0, 3, 1], [1, 0, 1], [1, 3, 0]]


# --- profiles, skeletons, matrices and components ---


def box_5x5():
    """A box in the middle of a slice of 9 x 9 pixels."""
    labels = np.zeros((1, 9, 9), dtype=int)
    labels[0, 2:7, 2:7] = 1
    return labels


def test_the_profiles_of_a_box_by_hand():
    labels = box_5x5()  # distances 1, 2, 3, 2, 1 through its middle
    reversed_own = make(labels, (1, 1, 1), "rrw", n_classes=2, profile="reversed")[1, 0]
    np.testing.assert_allclose(reversed_own[4, 2:7], -np.array([1, 2 / 3, 1 / 3, 2 / 3, 1]), rtol=1e-6)
    falling = make(labels, (1, 2, 2), "rrw", n_classes=2, profile="exp", sigma=4)[1, 0]
    np.testing.assert_allclose(falling[4, 2:7], -np.exp([-0.5, -1, -1.5, -1, -0.5]), rtol=1e-6)
    in_voxels = make(labels, (1, 2, 2), "rrw", n_classes=2, profile="exp", sigma=2, units="voxel")[1, 0]
    np.testing.assert_allclose(in_voxels[4, 2:7], falling[4, 2:7], rtol=1e-6)
    assert (reversed_own[:2] == 1).all()
    assert (falling[:2] == 1).all()


def test_the_reversed_profile_is_minus_1_on_the_boundary_in_the_thinnest_class_too():
    labels = np.array([[[0, 1, 0]]])
    for convention in ("across", "inner"):
        found = make(labels, (1, 1, 1), "rrw", n_classes=2, profile="reversed", convention=convention)
        assert found[1, 0, 0].tolist() == [1, -1, 1]


def test_the_smallest_distance_of_anisotropic_voxels_is_the_one_that_counts():
    labels = np.zeros((3, 1, 5), dtype=int)
    labels[1, 0, 1:4] = 1  # 1, 2 and 1 mm along x; 4 mm along z
    found = make(labels, (4, 9, 1), "rrw", n_classes=2, profile="reversed")
    assert found[1, 1, 0].tolist() == [1, -1, -0.5, -1, 1]


@pytest.mark.parametrize("profile", ["linear", "reversed", "exp"])
def test_a_class_that_fills_the_volume_is_minus_1_in_every_profile(profile):
    assert (make(np.ones((2, 3, 4), int), SPACING, "rrw", profile=profile)[1] == -1).all()


def test_every_profile_is_stable():
    labels = np.random.default_rng(0).integers(0, 3, (4, 6, 6)).repeat(2, axis=2)
    softmax = np.random.default_rng(1).dirichlet(np.ones(3), labels.shape).transpose(3, 0, 1, 2)
    for options in ({"profile": "reversed"}, {"profile": "exp"}, {"instances": True}):
        z = make(labels, SPACING, "rrw", **options)
        assert (np.take_along_axis(z, labels[None], 0) < 0).all()
        found = rwtool.gradient_signs(z, softmax)
        assert (found.unstable, found.zero) == (0, 0)


def test_components_by_hand():
    labels = np.array([[[1, 1, 1, 0, 1, 0, 2, 2]]])  # class 1: 3 and 1 voxels, so 4/(2 3) and 4/(2 1)
    found = rwtool.ac_map(labels, n_classes=3, instances=True)
    np.testing.assert_allclose(found[0, 0, 0], [2 / 3, 2 / 3, 2 / 3, 0, 2, 0, 1, 1], rtol=1e-6)
    own = make(labels, (1, 1, 1), "rrw", instances=True)[1, 0, 0]
    np.testing.assert_allclose(own, [-2 / 3, -4 / 9, -2 / 9, 1, -2 / 3, 1, 1, 1], rtol=1e-6)  # -1, -2/3, -1/3 and -1/3


def test_components_that_touch_at_a_corner_are_one_and_those_of_two_slices_are_two_with_dims_2():
    labels = np.zeros((2, 2, 3), dtype=int)
    labels[0, 0, 0] = labels[1, 1, 1] = 1
    labels[1, 1, 2] = 1
    assert rwtool.ac_map(labels, n_classes=2, instances=True)[0].max() == 1
    sliced = make(labels, (1, 1, 1), "rrw", n_classes=2, dims=2, instances=True)
    np.testing.assert_array_equal(sliced[0][labels == 1], 1)  # one component in either slice


def test_components_of_a_kind_without_distances_are_those_of_the_volume():
    labels = np.zeros((2, 1, 3), dtype=int)
    labels[:, 0, 0] = 1
    labels[0, 0, 2] = 1
    found = make_map(labels, SPACING, 2, MapParameters("ac", dims=2, instances=True), None, "dense", 1)
    np.testing.assert_array_equal(found, rwtool.ac_map(labels, n_classes=2, instances=True))


@pytest.mark.parametrize("kind", ["ac", "constant", "rrw"])
def test_components_keep_the_mean_other_value_of_their_class_and_leave_the_background_alone(kind):
    rng = np.random.default_rng(0)
    labels = np.where(rng.random((6, 12, 12)) < 0.08, rng.integers(1, 3, (6, 12, 12)), 0)
    weights = {0: 2.0, 1: 3.0, 2: 0.5}
    plain, divided = (
        make(labels, SPACING, kind, class_weights=weights, instances=instances) for instances in (False, True)
    )
    np.testing.assert_array_equal(divided[:, labels == 0], plain[:, labels == 0])
    for k in (1, 2):
        other = divided[3 - k][labels == k]
        assert other.mean() == pytest.approx(weights[k], rel=1e-5)
        assert len(set(other.tolist())) > 1


def test_a_skeleton_by_hand():
    labels = np.zeros((1, 7, 9), dtype=int)
    labels[0, 1:6, 1:8] = 1  # distances 1 2 3 3 3 2 1 along its middle row; 1 2 2 2 2 2 1 along those beside it
    own = make(labels, (1, 1, 1), "skeleton", n_classes=2)[1, 0, 1:6, 1:8]
    near = np.array(
        [[0, 0, 0, 0, 0, 0, 0], [0, 0, 1, 1, 1, 0, 0], [0, 1, 1, 1, 1, 1, 0], [0, 0, 1, 1, 1, 0, 0], [0] * 7]
    )
    np.testing.assert_allclose(own, -35 / 11 * near, rtol=1e-6)


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 8])
def test_a_skeleton_runs_through_a_bar_of_any_width(width):
    labels = np.zeros((width + 2, width + 2, 30), dtype=int)
    labels[1:-1, 1:-1, 3:27] = 1
    own = make(labels, (1, 1, 1), "skeleton", n_classes=2)[1]
    middle = slice((width + 1) // 2, (width + 3) // 2)
    assert (own[middle, middle, 3 + width // 2 : 27 - width // 2] < 0).all()
    assert np.count_nonzero(own < 0) <= 24 * min(12, width**2)


def test_a_skeleton_follows_the_spacing():
    labels = np.zeros((3, 9, 30), dtype=int)
    labels[:, 1:8, 3:27] = 1
    flat, deep = (make(labels, (mm, 1, 1), "skeleton", n_classes=2)[1] < 0 for mm in (0.1, 9))
    assert flat[1, 4, 15]
    assert deep[1, 4, 15]
    np.testing.assert_array_equal(make(labels, (9, 1, 1), "skeleton", n_classes=2, units="voxel")[1] < 0, flat)


def test_a_skeleton_rewards_each_component_of_a_class_and_penalises_nothing():
    labels = np.argmax(ndimage.gaussian_filter(np.random.default_rng(3).normal(size=(3, 12, 24, 20)), (0, 1, 2, 2)), 0)
    z = make(labels, SPACING, "skeleton")
    assert z.max() == 0
    for k in range(3):
        assert z[k][labels != k].min() == 0
        assert z[k][labels == k].mean() == pytest.approx(-1, rel=1e-4)
        parts = oracle.components(labels, k)
        assert all(min(z[k][voxel] for voxel in part) < 0 for part in parts)
    softmax = np.random.default_rng(1).dirichlet(np.ones(3), labels.shape).transpose(3, 0, 1, 2)
    found = rwtool.gradient_signs(z, softmax)
    assert found.unstable == 0
    assert found.zero == (z == 0).all(0).sum()


def test_a_matrix_gives_each_voxel_the_column_of_its_class():
    labels = np.array([[[2, 0, IGNORED, 1]]])
    found = rwtool.matrix_map(labels, matrix=MATRIX, ignore=IGNORED)[:, 0, 0]
    assert found.tolist() == [[2.0, -0.5, 0.0, 1.0], [1.0, 1.0, 0.0, 0.25], [-1.0, 3.0, 0.0, 1.5]]


def test_a_matrix_of_ones_off_its_diagonal_is_the_ac_map():
    labels = np.random.default_rng(0).integers(0, 3, (2, 4, 5))
    found = rwtool.matrix_map(labels, matrix=1 - np.eye(3))
    np.testing.assert_array_equal(found, rwtool.ac_map(labels, n_classes=3))


# --- layouts and rectify ---


def test_rectify_keeps_the_own_component_and_averages_the_others():
    z = np.array([12.0, 4.0, -3.0]).reshape(3, 1, 1, 1)
    labels = np.array([[[2]]])
    assert rwtool.rectify(z, labels).ravel().tolist() == [8, 8, -3]
    assert rwtool.rectify(z, labels, other=1).ravel().tolist() == [1, 1, -3]


def test_rectified_boundary_map_is_stable():
    labels = np.random.default_rng(0).integers(0, 3, (4, 6, 6))
    z = make(labels, SPACING, "boundary")
    softmax = np.random.default_rng(1).dirichlet(np.ones(3), labels.shape).transpose(3, 0, 1, 2)
    assert rwtool.gradient_signs(z, softmax).unstable > 0
    assert rwtool.gradient_signs(rwtool.rectify(z, labels), softmax).unstable == 0


def test_rectify_refuses_hd():
    with pytest.raises(UsageError, match="squares the softmax"):
        rwtool.rectify(np.zeros((2, 1, 1, 1)), np.zeros((1, 1, 1), int), kind="hd")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: rwtool.rrw_map([[[0, 3]]], (1, 1, 1), n_classes=3), VolumeError, r"found 3 at .* = \(0, 0, 1\)"),
        (lambda: rwtool.rrw_map([[[0, -1]]], (1, 1, 1), n_classes=3), VolumeError, "found -1"),
        (lambda: rwtool.rrw_map([[[0.0]]], (1, 1, 1), n_classes=3), VolumeError, "type float64"),
        (lambda: rwtool.rrw_map([0, 1], (1, 1, 1), n_classes=3), VolumeError, r"shape \(2,\)"),
        (lambda: rwtool.rrw_map([[[0, 1]]], (1, 1, 1), n_classes=1), UsageError, "at least 2 classes"),
        (lambda: rwtool.rrw_map([[[0, 1]]], (1, 0, 1), n_classes=2), UsageError, "three positive numbers"),
        (lambda: rwtool.rrw_map([[[0, 1]]], (1, 1), n_classes=2), UsageError, "three positive numbers"),
        (lambda: rwtool.rrw_map([[[0, 1]]], (1, 1, 1), n_classes=2, dims=4), UsageError, "dims is one of 2, 3"),
        (lambda: rwtool.rrw_map([[[0]]], (1, 1, 1), n_classes=2, convention="kervadec"), UsageError, "units=voxel"),
        (lambda: rwtool.rrw_map([[[0]]], (1, 1, 1), n_classes=2, convention="x"), UsageError, "convention is one of"),
        (lambda: rwtool.constant_map([[[0]]], n_classes=2, alpha=1, beta=-1), UsageError, "alpha \\+ beta > 0"),
        (lambda: rwtool.hd_map([[[0]]], (1, 1, 1), n_classes=2, alpha=0), UsageError, "exponent alpha"),
        (lambda: rwtool.ac_map([[[0]]], n_classes=2, class_weights={1: 0}), UsageError, "positive numbers"),
        (lambda: MapParameters("boundary", class_weights={1: 2}), UsageError, "for the rectified kinds"),
        (lambda: MapParameters("ac", alpha=2), UsageError, "alpha has no meaning for ac"),
        (lambda: MapParameters("boundary", profile="exp"), UsageError, "profile has no meaning for boundary"),
        (lambda: MapParameters("boundary", instances=True), UsageError, "instances has no meaning for boundary"),
        (lambda: MapParameters("rrw", matrix=MATRIX), UsageError, "matrix has no meaning for rrw"),
        (lambda: MapParameters("skeleton", class_weights={1: 2}), UsageError, "ac, constant, rrw; found skeleton"),
        (lambda: MapParameters("rrw", profile="sine"), UsageError, "profile is one of linear, reversed, exp; found 's"),
        (lambda: MapParameters("rrw", sigma=3), UsageError, "sigma belongs to profile=exp; found profile=linear"),
        (lambda: MapParameters("rrw", profile="exp", sigma=0), UsageError, "sigma .* is a positive distance; found 0"),
        (lambda: MapParameters("matrix"), UsageError, "its K x K numbers; give matrix="),
        (lambda: MapParameters("matrix", matrix=[[0]]), UsageError, "K >= 2; found rows of 1 numbers"),
        (lambda: MapParameters("matrix", matrix=[[0, 1], [1]]), UsageError, "found rows of 2, 1 numbers"),
        (lambda: MapParameters("matrix", matrix=[["a", 1], [1, 0]]), UsageError, "found rows of none numbers"),
        (lambda: MapParameters("matrix", matrix=[[0, 1], [0, 1]]), UsageError, "has 1 in row 0 of column 1, and 1 for"),
        (lambda: MapParameters("matrix", matrix=[[0, 1], [1e39, 0]]), UsageError, "a number of matrix= is 0 or"),
        (lambda: rwtool.matrix_map([[[0, 3]]], matrix=MATRIX), VolumeError, "found 3"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_refused_with_what_was_found(call, error, message):
    with pytest.raises(error, match=message):
        call()
