import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from masks import SPACINGS, ball, box, scattered, use_transform, use_tree
from scipy.ndimage import distance_transform_edt

from rwtool.errors import GeometryError, UsageError, VolumeError
from rwtool.metrics.measures import (
    METRICS,
    assd_mm,
    diagonal_mm,
    dice,
    directed_distances_mm,
    evaluate_labels,
    hd95_mm,
    hd_mm,
    masd_mm,
    nsd,
    undefined_mm,
)

DISTANCES = ("hd_mm", "hd95_mm", "assd_mm", "masd_mm")


# The oracle: the definitions, voxel by voxel and pair by pair.


def slow_boundary(mask, ignored):
    found = []
    for voxel in map(tuple, np.argwhere(mask & ~ignored)):
        for axis, step in itertools.product(range(3), (-1, 1)):
            if mask.shape[axis] == 1:
                continue
            other = list(voxel)
            other[axis] += step
            outside = not 0 <= other[axis] < mask.shape[axis]
            if outside or not (mask[tuple(other)] or ignored[tuple(other)]):
                found.append(voxel)
                break
    return found


def slow_directed(one, other, spacing_mm):
    return [min(math.dist(np.multiply(a, spacing_mm), np.multiply(b, spacing_mm)) for b in other) for a in one]


def slow_metrics(reference, prediction, label, spacing_mm, *, tolerance_mm, ignore=None):
    ignored = reference == ignore if ignore is not None else np.zeros(reference.shape, bool)
    a, b = (reference == label) & ~ignored, (prediction == label) & ~ignored
    one, other = (slow_boundary(mask, ignored) for mask in (a, b))
    answer = {"dice": 2 * (a & b).sum() / (a.sum() + b.sum()) if (a | b).any() else math.nan}
    if not one or not other:
        lone = a.any() != b.any()
        return answer | dict.fromkeys((*DISTANCES, "pooled"), math.nan) | {"nsd": 0.0 if lone else math.nan}
    forth, back = slow_directed(one, other, spacing_mm), slow_directed(other, one, spacing_mm)
    both = np.array(forth + back)
    return answer | {
        "hd_mm": both.max(),
        "hd95_mm": max(np.percentile(forth, 95), np.percentile(back, 95)),
        "pooled": np.percentile(both, 95),
        "assd_mm": both.mean(),
        "masd_mm": (np.mean(forth) + np.mean(back)) / 2,
        "nsd": np.mean(both <= tolerance_mm * (1 + 1e-6)),
    }


@st.composite
def label_pairs(draw, classes=3):
    shape = draw(st.tuples(*[st.integers(1, 6)] * 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    share = draw(st.sampled_from([0.02, 0.3, 0.9]))

    def labels():
        return np.where(rng.random(shape) < share, rng.integers(1, classes, shape), 0).astype(np.uint8)

    return labels(), labels()


@pytest.mark.parametrize("way", [use_tree, use_transform])
@pytest.mark.parametrize("spacing_mm", SPACINGS)
@pytest.mark.parametrize("ignore", [None, 2])
@given(pair=label_pairs(), data=st.data())
@settings(max_examples=25, deadline=None)
def test_every_metric_equals_the_oracle(way, spacing_mm, ignore, pair, data):
    tolerance_mm = data.draw(st.sampled_from([0.8, 1.0, spacing_mm[0], 2 * spacing_mm[2], 2.7]))
    arguments = {"n_classes": 3, "nsd_tolerance_mm": tolerance_mm, "ignore": ignore}
    with pytest.MonkeyPatch.context() as patch:
        way(patch)
        directed = evaluate_labels(*pair, spacing_mm, **arguments)
        pooled = evaluate_labels(*pair, spacing_mm, hd95="pooled", **arguments)
    assert [result.label for result in directed] == ([1, 2] if ignore is None else [1])
    for result, other in zip(directed, pooled, strict=True):
        truth = slow_metrics(*pair, result.label, spacing_mm, tolerance_mm=tolerance_mm, ignore=ignore)
        assert other.hd95_mm == pytest.approx(truth.pop("pooled"), rel=5e-7, nan_ok=True)
        for name, value in truth.items():
            assert getattr(result, name) == pytest.approx(value, rel=5e-7, nan_ok=True), name


@given(pair=label_pairs(classes=4))
@settings(max_examples=25, deadline=None)
def test_the_background_is_a_class_like_any_other(pair):
    (result,) = evaluate_labels(*pair, SPACINGS[1], n_classes=4, classes=[0], nsd_tolerance_mm=1)
    for name, value in slow_metrics(*pair, 0, SPACINGS[1], tolerance_mm=1).items():
        if name != "pooled":
            assert getattr(result, name) == pytest.approx(value, rel=5e-7, nan_ok=True), name


# Closed forms.


def test_a_box_and_itself_agree_in_everything():
    a = box((9, 9, 9), (2, 6), (3, 7), (1, 8))
    (result,) = evaluate_labels(a.view(np.uint8), a.view(np.uint8), (2, 1, 1), n_classes=2, nsd_tolerance_mm=0)
    assert (result.status, result.dice, result.nsd, result.volume_error) == ("ok", 1.0, 1.0, 0.0)
    assert [getattr(result, name) for name in DISTANCES] == [0.0] * 4
    assert result.volume_ml == result.reference_volume_ml == pytest.approx(4 * 4 * 7 * 2 / 1000)


def test_one_voxel_two_slices_of_5_mm_away_is_10_mm_in_every_metric():
    a, b = box((5, 4, 4), (1, 2), (2, 3), (2, 3)), box((5, 4, 4), (3, 4), (2, 3), (2, 3))
    for metric in (hd_mm, hd95_mm, assd_mm, masd_mm):
        assert metric(a, b, (5, 0.8, 0.8)) == pytest.approx(10)


def test_one_voxel_three_four_twelve_away_is_13():
    a, b = np.zeros((2, 20, 20, 20), bool)
    a[1, 2, 3] = b[4, 6, 15] = True
    assert hd_mm(a, b, (1, 1, 1)) == pytest.approx(13)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_box_moved_along_an_axis_has_that_hd(axis, step):
    spacing_mm = (3.0, 0.8, 1.7)
    a = box((14, 14, 14), (3, 8), (3, 8), (3, 8))
    assert hd_mm(a, np.roll(a, step, axis), spacing_mm) == pytest.approx(step * spacing_mm[axis])


def test_nested_cubes_of_9_and_5_are_2_root_3_apart_at_the_corners():
    outer, inner = box((11, 11, 11), *[(1, 10)] * 3), box((11, 11, 11), *[(3, 8)] * 3)
    assert hd_mm(outer, inner, (1, 1, 1)) == pytest.approx(2 * math.sqrt(3))
    forth, back = directed_distances_mm(outer, inner, (1, 1, 1))
    assert (len(forth), len(back)) == (9**3 - 7**3, 5**3 - 3**3)
    assert (back == 2).all()
    # from outside: 6 faces of 5 x 5 at 2 mm, the edges and corners farther
    assert np.count_nonzero(forth == 2) == 6 * 25
    assert np.count_nonzero(np.isclose(forth, math.sqrt(12))) == 8
    assert nsd(outer, inner, (1, 1, 1), 2) == pytest.approx((150 + 98) / (386 + 98))
    assert dice(outer, inner) == pytest.approx(2 * 125 / (729 + 125))


def test_a_cavity_of_5_voxels_in_a_cube_of_39_is_16_where_the_set_distance_is_3():
    full = np.ones((39, 39, 39), bool)
    hollow = full.copy()
    hollow[17:22, 17:22, 17:22] = False
    assert hd_mm(full, hollow, (1, 1, 1)) == 16  # from the cavity's wall to the surface
    assert distance_transform_edt(~hollow)[full].max() == 3


def test_a_volume_of_one_voxel_has_no_boundary_and_no_distance():
    voxel = np.ones((1, 1, 1), np.uint8)
    (result,) = evaluate_labels(voxel, voxel, (1, 1, 1), n_classes=2, nsd_tolerance_mm=1)
    assert (result.status, result.dice) == ("ok", 1)
    assert math.isnan(result.hd_mm)
    assert math.isnan(result.nsd)


def test_concentric_spheres_3_mm_apart_are_5_mm_apart_on_5_mm_slices():
    shape, spacing_mm = (25, 101, 101), (5.0, 0.8, 0.8)
    outer, inner = ball(shape, 30, spacing_mm), ball(shape, 27, spacing_mm)
    assert hd_mm(outer, inner, spacing_mm) == pytest.approx(5.0)


# Invariances.


def numbers(reference, prediction, spacing_mm, hd95="directed"):
    labels = reference.view(np.uint8), prediction.view(np.uint8)
    (result,) = evaluate_labels(*labels, spacing_mm, n_classes=2, hd95=hd95, nsd_tolerance_mm=1.0)
    return [getattr(result, name) for name in ("dice", *DISTANCES, "nsd")]


@pytest.mark.parametrize("hd95", ["directed", "pooled"])
@pytest.mark.parametrize("spacing_mm", SPACINGS)
def test_swapping_the_masks_changes_nothing(hd95, spacing_mm):
    a, b = scattered(5, (12, 20, 24))
    assert numbers(a, b, spacing_mm, hd95) == pytest.approx(numbers(b, a, spacing_mm, hd95))


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("copy", [False, True])
def test_turning_the_axes_with_their_spacing_changes_nothing(order, copy):
    a, b = scattered(6, (12, 20, 24))
    turned = [mask.transpose(order) for mask in (a, b)]
    turned = [np.ascontiguousarray(mask) for mask in turned] if copy else turned
    spacing_mm = (5.0, 0.8, 1.3)
    answer = numbers(*turned, tuple(spacing_mm[axis] for axis in order))
    assert answer == pytest.approx(numbers(a, b, spacing_mm))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_flipping_changes_nothing(axis):
    a, b = scattered(7, (12, 20, 24))
    answer = numbers(np.flip(a, axis), np.flip(b, axis), SPACINGS[1])
    assert answer == pytest.approx(numbers(a, b, SPACINGS[1]))


@pytest.mark.parametrize("dtype", ["u8", ">u8", ">i8", ">u2", "i1"])
@pytest.mark.parametrize("other", [None, "u1"])
def test_labels_of_any_integer_type_give_the_same_numbers(dtype, other):
    rng = np.random.default_rng(0)
    reference, prediction = rng.integers(0, 3, (2, 4, 6, 5))
    top = int(np.iinfo(dtype).max)
    reference[0] = 127  # ignored: the largest value of each type in its turn
    expected = evaluate_labels(reference, prediction, (2, 1, 1), n_classes=3, ignore=127)
    typed = np.where(reference == 127, 0, reference).astype(dtype)
    typed[0] = top
    found = evaluate_labels(typed, prediction.astype(other or dtype), (2, 1, 1), n_classes=3, ignore=top)
    assert found == expected


def test_arrays_in_different_memory_orders_agree():
    a, b = scattered(8, (12, 20, 24))
    assert numbers(a, np.asfortranarray(b), SPACINGS[2]) == numbers(a, b, SPACINGS[2])
    assert numbers(np.asfortranarray(a), b, SPACINGS[2]) == pytest.approx(numbers(a, b, SPACINGS[2]))


def test_a_crop_with_a_margin_gives_what_the_full_volume_gives():
    a, b = np.zeros((2, 40, 50, 60), bool)
    part = scattered(9, (12, 20, 24))
    a[10:22, 5:25, 30:54], b[10:22, 5:25, 30:54] = part
    crop = np.s_[9:23, 4:26, 29:55]
    assert numbers(a, b, SPACINGS[1]) == numbers(a[crop], b[crop], SPACINGS[1])


def test_the_other_classes_make_no_difference():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 4, (2, 10, 12, 14), dtype=np.uint8)
    alone = evaluate_labels((a == 2).view(np.uint8), (b == 2).view(np.uint8), SPACINGS[1], n_classes=2)[0]
    among = evaluate_labels(a, b, SPACINGS[1], n_classes=4)[1]
    assert [getattr(among, name) for name in DISTANCES] == [getattr(alone, name) for name in DISTANCES]


# Statuses and rules.


def four_statuses():
    """Class 1 is in both, 2 in the reference only, 3 in the prediction only, 4 in neither."""
    reference, prediction = np.zeros((2, 4, 5, 6), np.uint8)
    reference[1, 1, 1:3] = prediction[1, 1, 2:4] = 1
    reference[3, 3, 3:5] = 2
    prediction[2, 4, 4] = 3
    return reference, prediction


def test_each_status_has_its_numbers():
    ok, missed, hallucinated, absent = evaluate_labels(*four_statuses(), (10, 10, 10), n_classes=5, nsd_tolerance_mm=1)
    assert [r.status for r in (ok, missed, hallucinated, absent)] == [
        "ok",
        "missed",
        "hallucinated",
        "absent",
    ]
    assert (ok.dice, ok.hd_mm, ok.nsd) == (0.5, 10, 0.5)
    assert [missed.dice, hallucinated.dice, missed.nsd, hallucinated.nsd] == [0, 0, 0, 0]
    for result in (missed, hallucinated, absent):
        assert all(math.isnan(getattr(result, name)) for name in DISTANCES)
    assert math.isnan(absent.dice)
    assert math.isnan(absent.nsd)
    assert (missed.volume_ml, missed.reference_volume_ml, missed.volume_error) == (0, 2, -1)
    assert (hallucinated.volume_ml, hallucinated.reference_volume_ml) == (1, 0)
    assert math.isnan(hallucinated.volume_error)


@pytest.mark.parametrize(("rule", "mm"), [("diagonal", 87.7), ("exclude", math.nan), (250, 250), (0.0, 0)])
def test_the_rule_for_undefined_distances_in_mm(rule, mm):
    assert undefined_mm(rule, 87.7) == pytest.approx(mm, nan_ok=True)


@pytest.mark.parametrize("rule", ["worst", -1, math.nan, math.inf])
def test_no_other_undefined_rule_is_taken(rule):
    with pytest.raises(UsageError, match=r"found undefined=.* give "):
        undefined_mm(rule, 1)


@pytest.mark.parametrize("mm", [math.nan, math.inf, -math.inf, -1.0, -1e-9, np.float32("nan")])
def test_a_tolerance_that_is_no_distance_is_refused_everywhere(mm):
    a, b = box((1, 9, 9), (0, 1), (1, 3), (1, 3)), box((1, 9, 9), (0, 1), (6, 8), (6, 8))
    labels = a.view(np.uint8), b.view(np.uint8)
    calls = [
        lambda: nsd(a, b, (1, 1, 1), mm),
        lambda: evaluate_labels(*labels, (1, 1, 1), n_classes=2, nsd_tolerance_mm=mm),
        lambda: evaluate_labels(*labels, (1, 1, 1), n_classes=2, nsd_tolerance_mm={1: mm}),
        lambda: evaluate_labels(*labels, (1, 1, 1), n_classes=2, nsd_tolerance_mm={1: 1.0, 5: mm}, distances=False),
    ]
    for call in calls:
        with pytest.raises(UsageError, match=r"found a tolerance of .* mm for nsd; give a finite number of mm"):
            call()


def test_the_diagonal_of_brats_is_373_mm():
    assert diagonal_mm((155, 240, 240), (1, 1, 1)) == pytest.approx(373.13, abs=0.005)


def test_a_missed_distant_lesion_has_hd_56_and_hd95_54_directed_but_0_pooled():
    prediction = box((16, 14, 80), (2, 14), (2, 12), (2, 14))  # 640 boundary voxels, the last at x = 13
    reference = prediction | box((16, 14, 80), (4, 8), (4, 8), (66, 70))  # 56 more: 8 % of 696, 4 % of 1336
    assert hd_mm(reference, prediction, (1, 1, 1)) == 56
    # rank 0.95 * 695 = 660.25 is the lesion's 21st nearest voxel, in its second layer (16 in the first)
    assert hd95_mm(reference, prediction, (1, 1, 1)) == 54
    assert hd95_mm(reference, prediction, (1, 1, 1), rule="pooled") == 0


def test_volumes_are_signed_and_in_ml():
    reference, prediction = box((9, 9, 9), (0, 4), (0, 5), (0, 5)), box((9, 9, 9), (0, 3), (0, 5), (0, 5))
    (result,) = evaluate_labels(
        reference.view(np.uint8), prediction.view(np.uint8), (5, 0.8, 0.8), n_classes=2, distances=False
    )
    assert result.reference_volume_ml == pytest.approx(100 * 3.2 / 1000)
    assert result.volume_ml == pytest.approx(75 * 3.2 / 1000)
    assert result.volume_error == -0.25
    assert math.isnan(result.hd_mm)


def test_a_tolerance_of_exactly_the_distance_is_within():
    a, b = box((3, 3, 9), (1, 2), (1, 2), (1, 2)), box((3, 3, 9), (1, 2), (1, 2), (4, 5))
    spacing_mm = tuple(np.float32([5, 0.8, 0.8]))  # 0.8 is 0.80000001
    assert nsd(a, b, spacing_mm, 2.4) == 1
    assert nsd(a, b, spacing_mm, 2.3999) == 0


def test_each_class_has_its_own_tolerance():
    a, b = np.zeros((2, 5, 5, 12), np.uint8)
    a[2, 1, 2] = b[2, 1, 4] = 1
    a[2, 3, 2] = b[2, 3, 4] = 2
    a[4, 3, 2] = b[4, 3, 4] = 3
    results = evaluate_labels(a, b, (1, 1, 1), n_classes=4, nsd_tolerance_mm={1: 1.0, 2: 2.0})
    assert [r.nsd for r in results] == pytest.approx([0, 1, math.nan], nan_ok=True)


# Ignored voxels.


def test_what_is_predicted_under_ignored_voxels_does_not_matter():
    rng = np.random.default_rng(0)
    reference, prediction = rng.integers(0, 3, (2, 8, 9, 10), dtype=np.int16)
    reference[3:5] = -1
    other = prediction.copy()
    other[3:5] = 77
    answers = [
        evaluate_labels(reference, guess, (2, 1, 1), n_classes=3, ignore=-1, nsd_tolerance_mm=1)
        for guess in (prediction, other)
    ]
    assert answers[0] == answers[1]
    assert answers[0][0].status == "ok"


def test_an_ignored_background_leaves_the_labelled_slices():
    reference = np.zeros((4, 6, 6), np.uint8)
    reference[1] = 1
    reference[1, 2:4, 2:4] = 2
    prediction = np.full_like(reference, 1)
    one, two = evaluate_labels(reference, prediction, (1, 1, 1), n_classes=3, ignore=0)
    assert (one.reference_voxels, one.prediction_voxels) == (32, 36)
    assert two.status == "missed"


# Traps that others fell into.


@pytest.mark.parametrize("order", ["C", "F"])
def test_spacing_is_z_y_x_so_two_slices_of_5_mm_are_10_mm(order):
    a, b = np.zeros((2, 8, 8, 8), np.uint8)
    a[2, 4, 4] = b[4, 4, 4] = 1
    a, b = np.asarray(a, order=order), np.asarray(b, order=order)
    assert evaluate_labels(a, b, (5, 0.7, 0.7), n_classes=2)[0].hd_mm == pytest.approx(10)


def test_shapes_that_differ_are_refused_with_both():
    with pytest.raises(GeometryError, match=r"\(3, 4, 5\).*\(3, 5, 4\)"):
        evaluate_labels(np.zeros((3, 4, 5), int), np.zeros((3, 5, 4), int), (1, 1, 1), n_classes=2)


@pytest.mark.parametrize("spacing_mm", [(1, 1), (1, 1, 0), (1, -1, 1), (1, 1, math.nan), (1, math.inf, 1)])
def test_a_spacing_that_carries_no_distances_is_refused(spacing_mm):
    with pytest.raises(GeometryError):
        hd_mm(np.ones((3, 3, 3), bool), np.ones((3, 3, 3), bool), spacing_mm)


@pytest.mark.parametrize("array", [np.zeros((3, 3, 3)), np.zeros((3, 3), int), np.zeros((0, 3, 3), int)])
def test_what_is_no_label_volume_is_refused(array):
    with pytest.raises(VolumeError):
        evaluate_labels(array, array, (1, 1, 1), n_classes=2)


@pytest.mark.parametrize(
    "settings", [{"classes": [2]}, {"classes": [-1]}, {"hd95": "both"}, {"threads": 0}, {"ignore": 1}]
)
def test_arguments_out_of_range_are_refused(settings):
    a = np.zeros((3, 3, 3), np.uint8)
    with pytest.raises(UsageError):
        evaluate_labels(a, a, (1, 1, 1), n_classes=2, **({"classes": [1]} | settings))


def test_every_metric_has_its_field():
    (result,) = evaluate_labels(np.ones((3, 3, 3), int), np.ones((3, 3, 3), int), (1, 1, 1), n_classes=2)
    assert {metric.field for metric in METRICS.values()} < set(vars(result))


def test_importing_metrics_does_not_import_torch():
    code = "import sys, rwtool.metrics.measures; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
