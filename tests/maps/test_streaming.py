import tracemalloc

import numpy as np
import pytest
from volumes import IGNORED

import rwtool
from rwtool import blocks
from rwtool.errors import UsageError, VolumeError
from rwtool.maps.kinds import make_map
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
    MapParameters("boundary", dims=2), MapParameters("boundary", convention="inner"), MapParameters("skeleton"),
    MapParameters("rrw", profile="reversed"), MapParameters("rrw", profile="exp"), MapParameters("rrw", instances=True),
    MapParameters("matrix", matrix=((0, 1, 2), (1, 0, 1), (2, 1, 0))),
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


@pytest.mark.parametrize("instances", [False, True])
@pytest.mark.parametrize("kind", ["rrw", "ac", "constant", "skeleton"])
def test_a_packed_map_is_one_channel_or_two_with_ignored_voxels_marked(kind, instances):
    labels = some_classes()
    labels[0, 0] = IGNORED
    parameters = MapParameters(kind, instances=instances)
    volume, summary = np.asfortranarray(labels), MapSummary()
    pieces = list(map_blocks(volume, SPACING, 3, parameters, summary, ignore=IGNORED, layout="packed"))
    assert [k for k, _, _ in pieces] == list(range(parameters.packed_channels)) == ([0, 1] if instances else [0])
    for _, where, block in pieces:
        np.testing.assert_array_equal(np.isnan(block), labels[where] == IGNORED)


@pytest.mark.parametrize("kind", ["boundary", "hd", "matrix"])
def test_a_map_that_is_not_rectified_cannot_be_packed(kind):
    if kind == "matrix":
        with pytest.raises(UsageError, match=r"found matrix$"):
            streamed(some_classes(), PARAMETERS[-1], layout="packed")
        return
    with pytest.raises(UsageError, match=f"^only ac, constant, rrw, skeleton maps can be packed; found {kind}$"):
        streamed(some_classes(), MapParameters(kind), layout="packed")


def test_a_distance_whose_power_is_too_large_for_float32_is_refused():
    with pytest.raises(VolumeError, match=r"to the power 600 is too large for float32; choose a smaller alpha$"):
        streamed(some_classes(), MapParameters("hd", alpha=600.0))


def test_a_value_that_is_too_large_for_float32_by_its_component_is_refused():
    labels = np.zeros((1, 1, 40), np.uint8)
    labels[0, 0, [2, *range(5, 40)]] = 1
    with pytest.raises(
        VolumeError, match=r"^3e\+38 times 18, for the smallest component, is too large for float32; choose"
    ):
        list(map_blocks(labels, SPACING, 2, MapParameters("constant", alpha=3e38, instances=True), MapSummary()))


def test_a_sigma_far_below_and_far_above_every_distance_gives_0_and_minus_1():
    for sigma, own in ((1e-37, 0), (1e37, -1)):
        _, whole = streamed(some_classes(), MapParameters("rrw", profile="exp", sigma=sigma))
        assert set(np.unique(whole)) == {own, 1}


@pytest.mark.parametrize(
    ("kind", "options", "most"),
    [
        ("rrw", {}, 10), ("boundary", {}, 10), ("hd", {}, 10), ("skeleton", {}, 10),
        ("rrw", {"profile": "reversed"}, 10), ("rrw", {"profile": "exp"}, 10), ("rrw", {"instances": True}, 16),
        ("ac", {"instances": True}, 13), ("skeleton", {"instances": True}, 16),
    ],
)  # fmt: skip
@pytest.mark.parametrize("layout", ["dense", "packed"])
def test_no_more_than_the_measured_bytes_a_voxel_are_held(monkeypatch, kind, options, most, layout):
    parameters = MapParameters(kind, **options)
    if layout == "packed" and not parameters.rectified:
        return
    monkeypatch.setattr(blocks, "SLAB_VOXELS", 1 << 12)  # of a volume of many slabs
    labels = np.arange(3, dtype=np.uint8).repeat(43)[:128] * np.ones((32, 128, 1), np.uint8)
    labels[:, ::9] = 0
    tracemalloc.start()
    for _, _, block in map_blocks(labels, SPACING, 3, parameters, MapSummary(), layout=layout):
        del block
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= most * labels.size  # as maps.make plans


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


def test_what_is_absent_or_alone_is_recorded_of_a_skeleton_too():
    assert summary_of([[[0, 0, 2]]], kind="skeleton").absent == [1]
    assert summary_of([[[2, 2, 2]]], kind="skeleton").filling == [2]
    sliced = summary_of([[[0, 0]], [[0, 2]]], kind="skeleton", dims=2)
    assert (sliced.filling_slices, sliced.absent_slices) == ({0: 1}, {2: 1})


def test_a_matrix_of_other_classes_is_refused():
    with pytest.raises(UsageError, match=r"^matrix= is of 2 classes; found 3: give a row for each$"):
        streamed(some_classes(), MapParameters("matrix", matrix=((0, 1), (1, 0))))


# --- packed to dense ---


@pytest.mark.parametrize("kind", ["ac", "constant", "rrw", "skeleton"])
@pytest.mark.parametrize("weights", [{}, {2: 4.0}])
@pytest.mark.parametrize("instances", [False, True])
def test_packed_expands_to_dense_channel_by_channel(kind, weights, instances):
    labels = np.random.default_rng(0).integers(0, 4, (4, 5, 6)).astype(np.uint8)
    labels[labels == 3] = IGNORED
    parameters = MapParameters(kind, class_weights={} if kind == "skeleton" else weights, instances=instances)
    _, dense = streamed(labels, parameters, ignore=IGNORED)
    packed = make_map(labels, SPACING, 3, parameters, IGNORED, "packed", 1)
    assert packed.shape == ((2, *labels.shape) if instances else labels.shape)
    others = parameters.other_values(3)
    np.testing.assert_array_equal(rwtool.expand_packed(packed, labels, others, ignore=IGNORED), dense)
    for k in range(3):
        np.testing.assert_array_equal(expand_channel(packed, labels, others, k, ignore=IGNORED), dense[k])
