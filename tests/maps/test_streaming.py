import tracemalloc

import numpy as np
import pytest
from volumes import IGNORED

import rwtool
from rwtool import blocks
from rwtool.errors import UsageError, VolumeError
from rwtool.maps.parameters import MapParameters, MapSummary
from rwtool.maps.streaming import expand_channel, map_blocks

SPACING = (3.0, 1.25, 0.8)


def some_classes(shape=(4, 5, 6), seed=0):
    return np.random.default_rng(seed).integers(0, 3, shape).astype(np.uint8)


def streamed(labels, parameters, **options):
    """The pieces of a map, and the map that they make."""
    summary = MapSummary()
    pieces = list(map_blocks(labels, SPACING, 3, parameters, summary, **options))
    whole = np.full((1 if options.get("layout") == "packed" else 3, *labels.shape), np.nan, np.float32)
    for k, where, block in pieces:
        assert block.dtype == np.float32
        assert np.isnan(whole[k][where]).all(), "a voxel came twice"
        whole[k][where] = block
    return [(k, where) for k, where, _ in pieces], whole


PARAMETERS = [
    MapParameters("rrw"), MapParameters("ac"), MapParameters("boundary"), MapParameters("hd"),
    MapParameters("boundary", dims=2), MapParameters("boundary", convention="inner"),
]  # fmt: skip


@pytest.mark.parametrize("parameters", PARAMETERS, ids=str)
@pytest.mark.parametrize("axis", [None, 0, 1, 2])
def test_a_map_comes_channel_after_channel_slab_by_slab_along_one_axis(monkeypatch, parameters, axis):
    labels = some_classes()
    _, expected = streamed(labels, parameters)
    monkeypatch.setattr(blocks, "SLAB_VOXELS", 1)
    places, whole = streamed(labels, parameters, axis=axis)
    np.testing.assert_array_equal(whole, expected)
    cut = axis or 0
    assert [(k, where[cut]) for k, where in places] == [
        (k, slice(n, n + 1)) for k in range(3) for n in range(labels.shape[cut])
    ]


@pytest.mark.parametrize("kind", ["rrw", "ac", "constant"])
def test_a_packed_map_is_one_channel_with_ignored_voxels_marked(kind):
    labels = some_classes()
    labels[0, 0] = IGNORED
    places, whole = streamed(np.asfortranarray(labels), MapParameters(kind), layout="packed", ignore=IGNORED)
    assert {k for k, _ in places} == {0}
    np.testing.assert_array_equal(np.isnan(whole[0]), labels == IGNORED)


@pytest.mark.parametrize("kind", ["boundary", "hd"])
def test_a_map_that_is_not_rectified_cannot_be_packed(kind):
    with pytest.raises(UsageError, match=f"^only ac, constant, rrw maps can be packed; found {kind}$"):
        streamed(some_classes(), MapParameters(kind), layout="packed")


def test_a_distance_whose_power_is_too_large_for_float32_is_refused():
    with pytest.raises(VolumeError, match=r"to the power 600 is too large for float32; choose a smaller alpha$"):
        streamed(some_classes(), MapParameters("hd", alpha=600.0))


@pytest.mark.parametrize("kind", ["rrw", "boundary", "hd"])
def test_no_more_than_the_measured_bytes_a_voxel_are_held(kind):
    labels = some_classes((32, 128, 128))
    tracemalloc.start()
    for _, _, block in map_blocks(labels, SPACING, 3, MapParameters(kind), MapSummary()):
        del block
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= 10 * labels.size  # as maps.make plans


# --- what is noted on the way ---


def summary_of(labels, kind="rrw", **options):
    summary = MapSummary()
    for _ in map_blocks(np.asarray(labels, dtype=np.uint8), (1, 1, 1), 3, MapParameters(kind, **options), summary):
        pass
    return summary


def test_edge_cases_are_recorded():
    assert summary_of([[[0, 0, 2]]]).absent == [1]
    assert summary_of([[[0, 0, 2]]]).largest_distance == {0: 2.0, 2: 1.0}
    assert summary_of([[[2, 2, 2]]]).filling == [2]
    assert summary_of([[[0, 1, 2]]], convention="inner").zero_distance == [0, 1, 2]
    sliced = summary_of([[[0, 0]], [[0, 2]]], dims=2)
    assert (sliced.filling_slices, sliced.absent_slices, sliced.absent) == ({0: 1}, {2: 1}, [1])
    assert summary_of([[[0, 1, 1, 2]]], kind="boundary").largest_distance == {0: 1.0, 1: 1.0, 2: 1.0}
    assert summary_of([[[0, 1, 1, 2]]], kind="hd").largest_distance == {0: 3.0, 1: 1.0, 2: 3.0}


# --- packed to dense ---


@pytest.mark.parametrize("kind", ["ac", "constant", "rrw"])
@pytest.mark.parametrize("weights", [{}, {2: 4.0}])
def test_packed_expands_to_dense_channel_by_channel(kind, weights):
    labels = np.random.default_rng(0).integers(0, 4, (4, 5, 6)).astype(np.uint8)
    labels[labels == 3] = IGNORED
    parameters = MapParameters(kind, class_weights=weights)
    _, dense = streamed(labels, parameters, ignore=IGNORED)
    _, (packed,) = streamed(labels, parameters, ignore=IGNORED, layout="packed")
    others = parameters.other_values(3)
    np.testing.assert_array_equal(rwtool.expand_packed(packed, labels, others, ignore=IGNORED), dense)
    for k in range(3):
        np.testing.assert_array_equal(expand_channel(packed, labels, others, k, ignore=IGNORED), dense[k])
