import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rwtool.errors import UsageError, VolumeError
from rwtool.io import labels as labels_module
from rwtool.io.labels import (
    check_class_values,
    ignored_value,
    label_counts,
    label_dtype,
    map_labels,
    round_labels,
    to_classes,
)


def box(*values, dtype=float):
    return np.array(values, dtype=dtype).reshape(1, 1, -1)


@pytest.mark.parametrize(
    ("stored", "rounded"),
    [
        (7014.9999, 7015),
        (7015.0001, 7015),
        (0.9991, 1),
        (1.0009, 1),
        (-0.0009, 0),
        (2**53, 2**53),
    ],
)
def test_float_within_a_thousandth_is_rounded_never_cut(stored, rounded):
    assert round_labels(box(stored)).tolist() == [[[rounded]]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, ">f4", ">f8"])
def test_7014_9999_is_7015_in_every_float_type(dtype):
    result = round_labels(box(7014.9999, dtype=dtype))
    assert result.tolist() == [[[7015]]]
    assert result.dtype == np.uint16


@pytest.mark.parametrize(
    ("dtype", "largest"), [(np.float16, 2**11), (np.float32, 2**24), (">f4", 2**24), (np.float64, 2**53)]
)
def test_a_float_above_which_integers_are_skipped_is_no_label(dtype, largest):
    assert round_labels(box(largest, dtype=dtype)).tolist() == [[[largest]]]
    above = np.nextafter(np.dtype(dtype).newbyteorder("=").type(largest), np.inf)
    with pytest.raises(VolumeError) as caught:
        round_labels(box(above, dtype=dtype))
    assert f"found {largest + 2} at file voxel (0, 0, 0), and above {largest:,} the type " in str(caught.value)
    assert "does not hold every whole number; save the labels as integers" in str(caught.value)


def test_a_scaled_float_is_as_exact_as_its_type():
    assert round_labels(box(0.5, dtype=np.float32), slope=2.0**25).tolist() == [[[2**24]]]
    with pytest.raises(VolumeError, match="found 33554432 at"):
        round_labels(box(1, dtype=np.float32), slope=2.0**25)
    assert round_labels(box(1, dtype=np.int16), slope=2.0**25).tolist() == [[[2**25]]]


@pytest.mark.parametrize("dtype", ["<u8", ">u8", "<i8", ">i8"])
@pytest.mark.parametrize("ignore", [None, 7, -1])
def test_integers_of_64_bits_keep_every_digit(dtype, ignore):
    values = [0, 2**53 + 1, 2**63 - 1]
    result = round_labels(box(*values, dtype=object).astype(dtype), ignore=ignore)
    assert result.tolist() == [[values]]
    assert result.dtype == np.uint64
    assert to_classes(result, values, ignored=ignore is not None).tolist() == [[[0, 1, 2]]]


def test_the_largest_label_of_all_leaves_no_room_for_ignored_voxels():
    top = np.full((1, 1, 2), 2**64 - 1, dtype=np.uint64)
    assert round_labels(top).tolist() == [[[2**64 - 1] * 2]]
    assert (round_labels(top, ignore=2**64 - 1) == ignored_value(np.uint8)).all()
    with pytest.raises(VolumeError, match="leaves no value free in 64 bits for ignored voxels"):
        round_labels(top, ignore=3)


def test_a_class_list_may_hold_more_than_the_type_of_one_file():
    assert to_classes(box(0, 3, dtype=np.uint8), (0, 3, 2**64 - 1)).tolist() == [[[0, 1]]]


def test_bytes_of_bool_are_read_as_numpy_reads_them():
    stored = np.array([0, 1, 2, 255], dtype=np.uint8).view(bool).reshape(1, 1, 4)
    assert round_labels(stored).tolist() == [[[0, 1, 1, 1]]]


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (0.5, "found 0.5 at"),
        (1.0011, "found 1.0011 at"),
        (-0.5, "found -0.5 at"),
        (np.nan, "found nan at"),
        (np.inf, "found inf at"),
        (-np.inf, "found -inf at"),
        (-1, "found -1 at"),
        (-1024, "found -1024 at"),
        (1e20, "found 1e+20 at"),
    ],
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_what_is_no_label_is_refused_by_value_and_voxel(value, named, order):
    stored = np.zeros((4, 5, 6), order=order)
    stored[1, 2, 3] = value
    with pytest.raises(VolumeError) as caught:
        round_labels(stored)
    assert f"{named} file voxel (1, 2, 3)" in str(caught.value)


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a.transpose(1, 0, 2),
        lambda a: a.transpose(2, 0, 1),
        lambda a: a[::-1, :, ::-1],
        lambda a: a[::2, 1:, ::3],
        lambda a: a[:, :1, :],
    ],
)
def test_refused_voxel_is_right_in_every_memory_order(view):
    shape = view(np.zeros((4, 5, 6))).shape
    for voxel in np.ndindex(shape):
        stored = view(np.zeros((4, 5, 6)))
        stored[voxel] = -1
        with pytest.raises(VolumeError) as caught:
            round_labels(stored)
        assert f"file voxel {voxel};" in str(caught.value)


def test_refused_voxel_is_right_beyond_the_first_block(monkeypatch):
    monkeypatch.setattr(labels_module, "_BLOCK", 7)
    stored = np.zeros((4, 5, 6), dtype=np.int16, order="F")
    stored[3, 4, 5] = -3
    with pytest.raises(VolumeError, match=r"found -3 at file voxel \(3, 4, 5\)"):
        round_labels(stored)


def test_messages_tell_how_to_mend():
    with pytest.raises(VolumeError, match=r"give ignore=-1 if it marks voxels without a class, or mend the file"):
        round_labels(box(-1, dtype=np.int8))
    with pytest.raises(VolumeError, match=r"is this a label file\? If it was resampled, .* nearest neighbour"):
        round_labels(box(0.25))


def test_ignore_is_applied_before_negatives_are_refused():
    result = round_labels(box(-1, 0, 3, dtype=np.int16), ignore=-1)
    assert result.tolist() == [[[255, 0, 3]]]
    with pytest.raises(VolumeError, match="found -2"):
        round_labels(box(-1, -2, dtype=np.int16), ignore=-1)


@pytest.mark.parametrize("value", [254.7, 255.4, -0.6])
def test_a_fraction_near_the_ignore_label_is_still_a_fraction(value):
    with pytest.raises(VolumeError, match=f"found {value} at"):
        round_labels(box(value, 1), ignore=round(value))


def test_nan_cannot_hide_behind_the_ignore_label():
    with pytest.raises(VolumeError, match="found nan"):
        round_labels(box(np.nan), ignore=0)


def test_float_ignore_label_is_rounded_first():
    assert round_labels(box(-1.0002, 254.9999, 2), ignore=-1).tolist() == [[[65535, 255, 2]]]


def test_255_is_a_label_like_any_other():
    assert round_labels(box(0, 255, dtype=np.uint8)).tolist() == [[[0, 255]]]
    assert to_classes(box(0, 255, dtype=np.uint8), (0, 255)).tolist() == [[[0, 1]]]


def test_255_as_a_label_beside_another_ignored_one_gets_a_wider_type():
    result = round_labels(box(0, 255, 4, dtype=np.uint8), ignore=4)
    assert result.dtype == np.uint16
    assert result.tolist() == [[[0, 255, 65535]]]


def test_255_as_the_ignore_label_stays_255():
    result = round_labels(box(0, 255, 4, dtype=np.uint8), ignore=255)
    assert result.dtype == np.uint8
    assert result.tolist() == [[[0, 255, 4]]]


def test_scaling_of_the_file_is_part_of_the_label():
    assert round_labels(box(0, 10, 20, dtype=np.int16), slope=0.1, inter=1).tolist() == [[[1, 2, 3]]]


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16, ">u2", np.int16, ">i4", np.int64, np.float32, ">f8"])
def test_result_is_unsigned_and_native(dtype):
    result = round_labels(box(0, 1, dtype=dtype))
    assert result.tolist() == [[[0, 1]]]
    assert result.dtype.kind == "u"
    assert result.dtype.isnative


def test_unsigned_labels_are_not_copied():
    stored = box(0, 3, dtype=np.uint8)
    assert round_labels(stored) is stored


@pytest.mark.parametrize("dtype", [complex, [("R", "u1"), ("G", "u1"), ("B", "u1")], "S1"])
def test_what_is_not_a_number_is_refused(dtype):
    with pytest.raises(VolumeError, match="labels are integers; found the type"):
        round_labels(np.zeros((1, 1, 1), dtype=dtype))


@given(
    hnp.arrays(np.int32, hnp.array_shapes(min_dims=3, max_dims=3, max_side=4), elements=st.integers(0, 300)),
    st.permutations(range(3)),
    st.tuples(*[st.sampled_from([1, -1])] * 3),
    st.booleans(),
)
def test_rounding_keeps_every_voxel_in_its_place(stored, order, steps, as_float):
    view = stored.transpose(order)[tuple(slice(None, None, step) for step in steps)]
    view = view + 0.0005 if as_float else view
    assert np.array_equal(round_labels(view), np.rint(view))
    assert (
        np.array_equal(round_labels(view, ignore=7) == ignored_value(np.uint8), np.rint(view) == 7) or view.max() > 254
    )


@pytest.mark.parametrize(
    ("largest", "with_ignore", "dtype"),
    [
        (254, True, np.uint8),
        (255, True, np.uint16),
        (255, False, np.uint8),
        (256, False, np.uint16),
        (65535, True, np.uint32),
    ],
)
def test_label_type_leaves_its_top_value_to_the_ignored(largest, with_ignore, dtype):
    assert label_dtype(largest, with_ignore=with_ignore) == dtype


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
def test_counts_leave_out_ignored_voxels_only_when_asked(dtype):
    top = ignored_value(dtype)
    labels = box(0, 0, 4, top, dtype=dtype)
    assert label_counts(labels) == {0: 2, 4: 1, top: 1}
    assert label_counts(labels, ignored=True) == {0: 2, 4: 1}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.uint64])
def test_values_with_gaps_become_classes_without(dtype):
    labels = box(0, 1, 2, 4, ignored_value(dtype), dtype=dtype)
    assert to_classes(labels, (0, 1, 2, 4), ignored=True).tolist() == [[[0, 1, 2, 3, 255]]]


def test_classes_beyond_the_type_of_the_file_are_just_absent():
    assert to_classes(box(0, 3, dtype=np.uint8), (0, 3, 1000)).tolist() == [[[0, 1]]]


def test_256_classes_leave_room_for_ignored_voxels():
    labels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    result = to_classes(labels, range(256))
    assert result.dtype == np.uint16
    assert np.array_equal(result, labels)


def test_unknown_values_are_named_with_their_voxels():
    with pytest.raises(
        VolumeError, match=r"label 3 \(2 voxels\), 7 \(1 voxels\) is not in the class list 0, 1; add it to classes="
    ):
        to_classes(box(0, 3, 3, 7, dtype=np.uint8), (0, 1))


def test_ignored_top_value_is_unknown_unless_ignored():
    with pytest.raises(VolumeError, match="label 255"):
        to_classes(box(0, 255, dtype=np.uint8), (0, 1))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0, 1, 1], "names a value twice: 0, 1, 1"),
        ([1, 2], "holds 0 .the background.*at least one other value.*found 1, 2"),
        ([0], "found 0;"),
        ([-1, 0, 1], "found -1, 0, 1"),
        ([], "found nothing"),
    ],
)
def test_class_lists_that_cannot_be_are_refused(values, message):
    with pytest.raises(UsageError, match=message):
        check_class_values(values)


def test_class_list_is_sorted():
    assert check_class_values([4, 0, 2]) == (0, 2, 4)


def test_values_are_exchanged_at_once_and_ignored_voxels_stay():
    labels = np.array([0, 1, 2, 255], np.uint8)
    assert map_labels(labels, {1: 2, 2: 1}).tolist() == [0, 2, 1, 255]
    kept = map_labels(labels, {1: 300}, ignored=True)
    assert kept.tolist() == [0, 300, 2, ignored_value(kept.dtype)]
