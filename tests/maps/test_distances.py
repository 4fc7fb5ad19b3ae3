import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from volumes import IGNORED, label_arrays

from rwtool.errors import UsageError
from rwtool.maps.distances import (
    boundary_voxels,
    distance_to_class,
    distance_to_inner_boundary,
    distance_to_other_class,
    signed_distance,
)

SPACINGS = st.sampled_from([(3.0, 1.25, 0.8), (1.0, 1.0, 1.0), (0.5, 2.0, 7.0)])
ROW = np.array([[[0, 0, 0, 1, 2, 2]]], dtype=np.uint8)
LINE = (9, 9, 2.0)
INF = np.inf


def truth(labels, spacing, targets_of, dims, ignore=None):
    """Distance of each voxel to the nearest of its targets, pair by pair; 0 where it is ignored."""
    found = np.zeros(labels.shape)
    parts = [slice(None)] if dims == 3 else [slice(z, z + 1) for z in range(len(labels))]
    for part in parts:
        table = oracle.distances(labels[part].shape, spacing)
        flat = labels[part].ravel()
        for k in set(flat.tolist()) - {ignore}:
            own = flat == k
            found[part].reshape(-1)[own] = oracle.nearest(table, targets_of(labels[part], k).ravel())[own]
    return found


@pytest.mark.parametrize("dims", [3, 2])
@pytest.mark.parametrize("ignore", [None, IGNORED])
@given(data=st.data(), spacing=SPACINGS)
@settings(max_examples=30, deadline=None)
def test_every_distance_is_the_least_of_all_pairs(dims, ignore, data, spacing):
    labels = data.draw(label_arrays(ignore=ignore is not None))
    edges = {k: oracle.own_boundary(labels, k, dims, ignore) for k in range(3)}
    np.testing.assert_array_equal(
        boundary_voxels(labels, dims=dims, ignore=ignore), np.logical_or.reduce(list(edges.values()))
    )
    np.testing.assert_allclose(
        distance_to_other_class(labels, spacing, dims=dims, ignore=ignore),
        truth(labels, spacing, lambda part, k: (part != k) & (part != ignore), dims, ignore),
        rtol=1e-6,
    )
    np.testing.assert_allclose(
        distance_to_inner_boundary(labels, spacing, dims=dims, ignore=ignore),
        truth(labels, spacing, lambda part, k: oracle.own_boundary(part, k, dims, ignore), dims, ignore),
        rtol=1e-6,
    )
    for k in range(3):
        to_class = truth(labels, spacing, lambda part, _, k=k: part == k, dims)
        np.testing.assert_allclose(distance_to_class(labels, k, spacing, dims=dims), to_class, rtol=1e-6)
        inside = labels == k
        back = truth(inside, spacing, lambda part, other: part != other, dims)
        np.testing.assert_allclose(
            signed_distance(labels, k, spacing, dims=dims), np.where(inside, -back, back), rtol=1e-6
        )


def test_a_row_of_six_voxels_of_2_mm_by_hand():
    assert boundary_voxels(ROW)[0, 0].tolist() == [False, False, True, True, True, False]
    assert distance_to_other_class(ROW, LINE)[0, 0].tolist() == [6, 4, 2, 2, 2, 4]
    assert distance_to_inner_boundary(ROW, LINE)[0, 0].tolist() == [4, 2, 0, 0, 0, 2]
    assert distance_to_class(ROW, 1, LINE)[0, 0].tolist() == [6, 4, 2, 0, 2, 4]
    assert signed_distance(ROW, 2, LINE)[0, 0].tolist() == [8, 6, 4, 2, -2, -4]


def test_ignored_voxels_are_no_target_no_boundary_and_at_distance_0():
    labels = np.array([[[0, 0, IGNORED, 1, 1]]], dtype=np.uint8)
    assert not boundary_voxels(labels, ignore=IGNORED).any()
    assert distance_to_other_class(labels, LINE, ignore=IGNORED)[0, 0].tolist() == [6, 4, 0, 4, 6]
    assert distance_to_inner_boundary(labels, LINE, ignore=IGNORED)[0, 0].tolist() == [INF, INF, 0, INF, INF]


def test_where_there_is_nothing_to_measure_to_the_distance_is_infinite():
    full = np.ones((2, 3, 4), dtype=np.uint8)
    for found in (distance_to_other_class(full, LINE), distance_to_inner_boundary(full, LINE)):
        assert (found == INF).all()
    assert (distance_to_class(full, 2, LINE) == INF).all()
    assert (signed_distance(full, 1, LINE) == -INF).all()
    assert (signed_distance(full, 2, LINE) == INF).all()


def test_slice_by_slice_a_slice_of_one_class_is_infinite_whatever_is_beside_it():
    labels = np.array([[[0, 0, 0]], [[0, 1, 0]]], dtype=np.uint8)
    found = distance_to_other_class(labels, (0.001, 1, 1), dims=2)
    assert found[:, 0].tolist() == [[INF, INF, INF], [1, 1, 1]]
    assert not boundary_voxels(labels, dims=2)[0].any()
    assert boundary_voxels(labels, dims=3)[0].tolist() == [[False, True, False]]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_largest_value_of_a_type_is_a_class_like_others(dtype):
    top = np.iinfo(dtype).max
    labels = np.array([[[0, 0, top, top, top - 1]]], dtype=dtype)
    assert distance_to_other_class(labels, LINE)[0, 0].tolist() == [4, 2, 2, 2, 2]
    assert distance_to_class(labels, int(top), LINE)[0, 0].tolist() == [4, 2, 0, 0, 2]
    assert distance_to_inner_boundary(labels, LINE)[0, 0].tolist() == [2, 0, 0, 0, 0]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
@pytest.mark.parametrize("step", [1, 2, -1])
def test_the_order_in_memory_and_gaps_do_not_matter_and_the_result_has_that_order(order, step):
    stored = np.random.default_rng(0).integers(0, 3, (5, 6, 14)).astype(np.uint8)
    labels = stored.transpose(order)[..., ::step]
    spacing = (3.0, 1.25, 0.8)
    compact = np.ascontiguousarray(labels)
    found = distance_to_other_class(labels, spacing)
    np.testing.assert_array_equal(found, distance_to_other_class(compact, spacing))
    if step == 1:
        assert np.argsort(found.strides).tolist() == np.argsort(labels.strides).tolist()


@pytest.mark.parametrize("threads", [1, 3])
def test_a_larger_volume_equals_scipy_on_any_number_of_threads(threads):
    rng = np.random.default_rng(3)
    labels = np.argmax(ndimage.gaussian_filter(rng.normal(size=(3, 24, 40, 33)), (0, 3, 4, 4)), axis=0).astype(np.uint8)
    spacing = (3.0, 1.25, 0.8)
    outside = ndimage.distance_transform_edt(labels != 1, spacing)
    inside = ndimage.distance_transform_edt(labels == 1, spacing)
    np.testing.assert_allclose(
        signed_distance(labels, 1, spacing, threads=threads), outside - inside, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("spacing", [(1, 1), (1, 1, 1, 1), (1, 0, 1), (1, -1, 1), (1, INF, 1), (1, np.nan, 1)])
@pytest.mark.parametrize("measure", [distance_to_other_class, distance_to_inner_boundary])
def test_a_spacing_that_is_none_is_refused(measure, spacing):
    with pytest.raises(UsageError, match=r"^a spacing is three positive numbers \(z, y, x\); found \("):
        measure(ROW, spacing)


@pytest.mark.parametrize("dims", [1, 4])
def test_other_dims_than_2_and_3_are_refused(dims):
    with pytest.raises(UsageError, match=rf"^dims is 3 \(in the volume\) or 2 \(slice by slice\); found {dims}$"):
        distance_to_class(ROW, 1, LINE, dims=dims)
