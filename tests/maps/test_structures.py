import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from volumes import IGNORED, label_arrays

from rwtool import blocks
from rwtool.maps.structures import instance_factors, skeleton_weights

SPACING = (3.0, 1.25, 0.8)


@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_both_equal_a_search_voxel_by_voxel(data):
    ignore = IGNORED if data.draw(st.booleans()) else None
    labels = data.draw(label_arrays(ignore=ignore is not None))
    absent = -1 if ignore is None else ignore
    found = skeleton_weights(labels, SPACING, ignore=ignore)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, oracle.skeleton_weight(labels, SPACING, absent), rtol=1e-6)
    found = instance_factors(labels, ignore=ignore)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, oracle.instance_factor(labels, absent), rtol=1e-6)


@pytest.mark.parametrize("measure", [instance_factors, lambda *a, **k: skeleton_weights(*a, SPACING, **k)])
def test_slices_are_volumes_of_their_own_and_slabs_and_memory_change_nothing(measure, monkeypatch):
    labels = np.random.default_rng(0).integers(0, 3, (4, 6, 7)).astype(np.uint8).repeat(2, axis=2)
    whole, sliced = measure(labels), measure(labels, dims=2)
    assert (whole != sliced).any()
    for z in range(4):
        np.testing.assert_array_equal(sliced[z : z + 1], measure(labels[z : z + 1]))
    monkeypatch.setattr(blocks, "SLAB_VOXELS", 1)
    np.testing.assert_array_equal(measure(np.asfortranarray(labels)), whole)


def test_components_of_one_size_have_factor_1():
    labels = np.zeros((1, 3, 9), np.uint16)
    labels[0, 1, [0, 1, 3, 4, 6, 7]] = 300
    assert (instance_factors(labels) == 1).all()


def test_ten_lesions_weigh_as_much_each():
    labels = np.zeros((1, 2, 65), np.uint8)
    for n in range(1, 11):
        start = n * (n + 1) // 2
        labels[0, 0, start : start + n] = labels[0, 0, start - 1] == 0
    factors, parts = instance_factors(labels), oracle.components(labels, 1)
    assert len(parts) == 10
    for part in parts:
        assert sum(factors[voxel] for voxel in part) == pytest.approx((labels == 1).sum() / 10)


def test_a_skeleton_is_stored_and_counted_where_a_class_is_one_voxel():
    labels = np.zeros((3, 3, 3), np.uint8)
    labels[1, 1, 1] = 1
    assert skeleton_weights(labels, SPACING)[1, 1, 1] == 1


def test_ignored_voxels_have_no_skeleton_and_make_no_border():
    labels = np.array([[[0, 0, IGNORED, IGNORED, 1]]], np.uint8)
    found = skeleton_weights(labels, (1, 1, 1), ignore=IGNORED)  # at distances 4, 3 and 4
    assert found.ravel().tolist() == [1, 1, 0, 0, 1]
