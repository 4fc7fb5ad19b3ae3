import numpy as np
import pytest

from rwtool.errors import VolumeError
from rwtool.metrics.measures import evaluate_labels
from rwtool.metrics.overlap import joint_counts


def test_overlaps_and_boxes_hold_over_many_blocks():
    rng = np.random.default_rng(0)
    reference, prediction = rng.integers(0, 5, (2, 20, 70, 90))
    for result in evaluate_labels(reference, prediction, (1, 1, 1), n_classes=5, classes=range(5), distances=False):
        a, b = reference == result.label, prediction == result.label
        assert result.overlap_voxels == (a & b).sum()
        assert (result.reference_voxels, result.prediction_voxels) == (a.sum(), b.sum())


def test_uint8_label_255_is_a_class_and_does_not_wrap_around():
    a, b = np.zeros((2, 4, 4, 8), np.uint8)
    a[1, 1, 2] = b[1, 1, 5] = 255
    (result,) = evaluate_labels(a, b, (1, 1, 1), n_classes=256, classes=[255])
    assert (result.status, result.overlap_voxels, result.hd_mm) == ("ok", 0, 3)


def test_more_classes_than_a_byte_do_not_wrap_around():
    a = np.arange(2 * 10 * 15, dtype=np.int16).reshape(2, 10, 15)
    results = evaluate_labels(a, a, (1, 1, 1), n_classes=300, distances=False)
    assert [r.overlap_voxels for r in results] == [1] * 299


@pytest.mark.parametrize("which", ["reference", "prediction"])
def test_a_label_outside_of_the_classes_is_refused_with_its_value_and_count(which):
    arrays = {"reference": np.zeros((3, 4, 5), np.uint8), "prediction": np.zeros((3, 4, 5), np.uint8)}
    arrays[which][0, 0, :2] = arrays[which][2, 3, 4] = 7
    with pytest.raises(VolumeError, match=rf"the {which} .* 7 in 3 voxels; classes are 0\.\.2"):
        evaluate_labels(**arrays, spacing_mm=(1, 1, 1), n_classes=3)


def test_a_negative_label_is_refused():
    a = np.zeros((3, 4, 5), np.int16)
    a[1, 1, 1] = -1
    with pytest.raises(VolumeError, match="-1 in 1 voxels"):
        evaluate_labels(np.zeros_like(a), a, (1, 1, 1), n_classes=2)


def test_the_ignored_value_is_no_prediction():
    a, b = np.zeros((2, 3, 4, 5), np.uint8)
    a[0, 0, 0] = 255
    b[1, 1, 1] = 255
    with pytest.raises(VolumeError, match=r"prediction .* 255 in 1 voxels"):
        evaluate_labels(a, b, (1, 1, 1), n_classes=2, ignore=255)


def test_joint_counts_and_boxes_by_hand():
    reference, prediction = np.zeros((2, 3, 4, 5), np.uint8)
    reference[1, 1:3, 1:4] = 1
    prediction[1, 1:3, 2:5] = 1
    prediction[2, 3, 0] = 2
    joint, boxes = joint_counts(reference, prediction, 3, None)
    assert joint.tolist() == [[60 - 6 - 2 - 1, 2, 1], [2, 4, 0], [0, 0, 0]]
    assert boxes[1] == np.s_[1:2, 1:3, 1:5]
    assert boxes[2] == np.s_[2:3, 3:4, 0:1]
    assert boxes[0] == np.s_[0:3, 0:4, 0:5]


@pytest.mark.parametrize("types", [("u8", "u8"), ("u8", "u1"), ("u1", "u8"), ("u8", "i8"), ("i8", "u8"), ("u4", "i1")])
def test_every_whole_type_counts_alike(types):
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 3, (2, 6, 7, 8))
    want = evaluate_labels(a, b, (1, 1, 2), n_classes=3)
    assert evaluate_labels(a.astype(types[0]), b.astype(types[1]), (1, 1, 2), n_classes=3) == want


def test_an_ignored_value_beyond_63_bits():
    a = np.ones((3, 4, 5), np.uint64)
    a[0] = 2**64 - 1
    (found,) = evaluate_labels(a, np.ones_like(a), (1, 1, 1), n_classes=2, ignore=2**64 - 1)
    assert (found.reference_voxels, found.prediction_voxels) == (40, 40)
