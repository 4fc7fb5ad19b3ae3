import re

import numpy as np
import pytest

import rwtool
from rwtool.integrations.channels import channel_first_map, settle_parameters

LABELS = np.random.default_rng(0).integers(0, 3, (1, 5, 4, 3))
SPACING = (1.0, 1.5, 2.0)
RRW = rwtool.MapParameters("rrw")


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.float32, np.float16])
def test_the_map_is_that_of_the_one_channel(dtype):
    found = channel_first_map(LABELS.astype(dtype), SPACING, 3, RRW)
    np.testing.assert_array_equal(found, rwtool.rrw_map(LABELS[0], SPACING, n_classes=3))
    packed = channel_first_map(LABELS.astype(dtype), SPACING, 3, RRW, layout="packed")
    np.testing.assert_array_equal(packed[0], rwtool.rrw_map(LABELS[0], SPACING, n_classes=3, layout="packed"))


def test_slices_lie_across_the_axis_that_is_named():
    boundary = rwtool.MapParameters("boundary", dims=2)
    found = channel_first_map(LABELS, SPACING, 3, boundary, slice_axis=2)
    for z in range(3):
        plane = channel_first_map(LABELS[..., z], SPACING[:2], 3, rwtool.MapParameters("boundary"))
        np.testing.assert_array_equal(found[..., z], plane)


@pytest.mark.parametrize("ignore", [-1, 255])
def test_ignored_voxels_are_0_in_packed_maps_too(ignore):
    labels = LABELS.astype(np.float32)
    labels[0, 1, 2] = ignore
    for layout in ("dense", "packed"):
        found = channel_first_map(labels, SPACING, 3, RRW, ignore=ignore, layout=layout)
        assert not found[:, 1, 2].any()
        assert np.isfinite(found).all()


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (np.repeat(LABELS, 2, axis=0), rwtool.UsageError, "found shape (2, 5, 4, 3); give one channel"),
        (LABELS[0, 0], rwtool.UsageError, "found shape (4, 3)"),
        (LABELS + 0.5, rwtool.VolumeError, "labels are integers from 0 up"),
        (LABELS + 1, rwtool.VolumeError, "labels are class indices 0..2; found 3"),
        (LABELS[..., 0], rwtool.UsageError, "give a number of mm for each axis"),
    ],
)
def test_what_is_no_label_is_refused(labels, error, message):
    with pytest.raises(error, match=re.escape(message)):
        channel_first_map(labels, SPACING, 3, RRW)


def test_a_layout_that_is_not_for_the_kind_is_refused():
    assert settle_parameters("boundary", "dense") == rwtool.MapParameters("boundary")
    assert settle_parameters(RRW, "packed") is RRW
    with pytest.raises(rwtool.UsageError, match="hd maps are dense"):
        settle_parameters("hd", "packed")
    with pytest.raises(rwtool.UsageError, match="found layout='flat'"):
        settle_parameters("hd", "flat")
