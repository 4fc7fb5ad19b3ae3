import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from masks import SPACINGS, ball, box, scattered, use_transform, use_tree

from rwtool.metrics import surface
from rwtool.metrics.measures import METRICS, directed_distances_mm, evaluate_labels, hd_mm, nsd


@pytest.mark.parametrize("spacing_mm", [*SPACINGS, (3.3, 0.5859375, 0.5859375), (1.25, 0.1, 0.3)])
@pytest.mark.parametrize("seed", [0, 1])
def test_tree_and_transform_give_the_same_numbers(monkeypatch, spacing_mm, seed):
    a, b = scattered(seed)
    answers = []
    tolerances = [1.0, 2.0, *(k * mm for k in (1, 2, 3) for mm in spacing_mm), math.hypot(*spacing_mm)]
    for way in (use_tree, use_transform):
        with monkeypatch.context() as patch:
            way(patch)
            answers.append(directed_distances_mm(a, b, spacing_mm))
            shares = [nsd(a, b, spacing_mm, t) for t in tolerances]
            answers[-1] = (*answers[-1], shares)
    for one, other in zip(answers[0][:2], answers[1][:2], strict=True):
        np.testing.assert_array_equal(one, other)  # to the last bit
    assert answers[0][2] == answers[1][2]


AWKWARD = [
    *SPACINGS,
    (2.5, float(np.float32(0.7)), float(np.float32(0.7))),
    (3.0, float(np.float32(0.6)), float(np.float32(0.6))),
    (math.pi, math.e, math.sqrt(2)),
    (10.0, 0.0123, 0.0456),
    (0.001, 0.001, 0.0023),
]


@given(
    shape=st.tuples(*[st.integers(1, 40)] * 3),
    spacing_mm=st.sampled_from(AWKWARD),
    share=st.sampled_from([0.0003, 0.003, 0.03, 0.3]),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=150, deadline=None)
def test_tree_and_transform_agree_to_the_last_bit_on_random_masks(shape, spacing_mm, share, seed):
    a, b = np.random.default_rng(seed).random((2, *shape)) < share
    answers = []
    for way in (use_tree, use_transform):
        with pytest.MonkeyPatch.context() as patch:
            way(patch)
            answers.append(directed_distances_mm(a, b, spacing_mm))
    for one, other in zip(*answers, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("spacing_mm", [(math.pi, math.e, math.sqrt(2)), (1.17, 1.03, 0.92), (3.0, 0.8, 0.8)])
def test_tree_and_transform_agree_far_from_the_boundary_too(monkeypatch, spacing_mm):
    """A transform's answer may there stand for several distances of the grid."""
    whole, core = ball((40, 60, 60), 27 * min(spacing_mm), spacing_mm), ball((40, 60, 60), 5, spacing_mm)
    answers = []
    for way in (use_tree, use_transform):
        with monkeypatch.context() as patch:
            way(patch)
            answers.append(directed_distances_mm(whole, core, spacing_mm))
    for one, other in zip(*answers, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("way", [use_tree, use_transform])
@pytest.mark.parametrize(
    ("spacing_mm", "one", "other"),
    [
        ((0.7, 0.7, 0.7), (0, 3, 4), (0, 0, 5)),
        ((0.1, 0.1, 0.1), (2, 3, 6), (0, 0, 7)),
        ((3.0, float(np.float32(0.6)), float(np.float32(0.6))), (1, 0, 0), (0, 5, 0)),
        ((5.0, 0.62500006, 0.62499994), (0, 7, 0), (0, 0, 7)),  # columns of an oblique affine
        ((1.4, 0.7, 0.7), (3, 0, 1), (0, 6, 1)),
    ],
)
def test_distances_that_are_equal_in_truth_are_equal_as_numbers(monkeypatch, way, spacing_mm, one, other):
    way(monkeypatch)
    found = []
    for offset in (one, other):
        a, b = np.zeros((2, 12, 12, 12), bool)
        a[2, 2, 2] = True
        b[tuple(2 + n for n in offset)] = True
        found.append(hd_mm(a, b, spacing_mm))
    assert found[0] == found[1]
    assert found[0] == pytest.approx(math.dist((0, 0, 0), np.multiply(one, spacing_mm)), rel=2e-7)


@pytest.mark.parametrize("shape", [(40, 3, 3), (3, 40, 3), (1, 3, 40)])
@pytest.mark.parametrize("places", [(0, 39), (18, 21), (0, 1), (5, 30)])
@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (0.1, 5.0, 2.0)])
def test_a_box_transformed_in_two_parts_finds_what_lies_in_the_other(monkeypatch, shape, places, spacing_mm):
    use_transform(monkeypatch)
    axis = int(np.argmax(shape))
    a, b = np.zeros((2, *shape), bool)
    np.moveaxis(a, axis, 0)[list(places)] = True
    np.moveaxis(b, axis, 0)[places[0]] = True
    mm = (places[1] - places[0]) * spacing_mm[axis]
    assert hd_mm(a, b, spacing_mm) == hd_mm(b, a, spacing_mm) == pytest.approx(mm)


@pytest.mark.parametrize("way", [use_tree, use_transform])
def test_boundaries_do_not_depend_on_the_blocks(monkeypatch, way):
    a, b = scattered(3)
    way(monkeypatch)
    whole = directed_distances_mm(a, b, SPACINGS[1])

    def thin(box, n_volume):
        for z in range(box[0].start, box[0].stop):
            for y in range(box[1].start, box[1].stop, 3):
                yield slice(z, z + 1), slice(y, min(y + 3, box[1].stop)), box[2]

    monkeypatch.setattr(surface, "cached_blocks", thin)
    for one, other in zip(whole, directed_distances_mm(a, b, SPACINGS[1]), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("volume", [(3, 4, 5), (1, 700, 900), (2000, 3, 3), (1, 1, 300_000), (64, 64, 64)])
def test_blocks_cover_the_box_once(volume):
    seen = np.zeros(volume, np.uint8)
    for block in surface.cached_blocks(tuple(slice(0, n) for n in volume), seen.size):
        assert seen[block].size <= max(2**16, seen.size // 32, volume[2])
        seen[block] += 1
    assert seen.all()
    assert seen.max() == 1


def test_the_volumes_edge_is_outside_of_the_mask():
    full, half = np.ones((6, 6, 6), bool), box((6, 6, 6), (0, 3), (0, 6), (0, 6))
    assert len(directed_distances_mm(full, half, (1, 1, 1))[0]) == 6**3 - 4**3
    assert hd_mm(full, half, (2, 1, 1)) == pytest.approx(6)


def test_every_voxel_of_a_thin_plate_is_boundary():
    plate = box((5, 6, 7), (2, 3), (1, 5), (1, 6))
    assert len(directed_distances_mm(plate, plate, (1, 1, 1))[0]) == 20


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_singleton_axis_has_no_neighbours_so_a_square_of_5_has_16_boundary_voxels(axis):
    a = np.expand_dims(box((9, 9), (2, 7), (2, 7)), axis)
    b = np.expand_dims(box((9, 9), (4, 5), (4, 5)), axis)
    forth, back = directed_distances_mm(a, b, (1, 1, 1))
    assert (len(forth), len(back)) == (16, 1)
    assert back[0] == 2
    assert forth.max() == pytest.approx(2 * math.sqrt(2))


def test_percentiles_interpolate_as_numpy_does():
    rng = np.random.default_rng(0)
    for n in (1, 2, 3, 19, 20, 21, 400):
        values = rng.integers(0, 9, n) * 0.8
        tally = surface.DirectedDistances.tally(values)
        for percent in (0, 5, 50, 95, 100):
            assert tally.percentile_mm(percent) == pytest.approx(np.percentile(values, percent), rel=1e-12)
        assert tally.mean_mm() == pytest.approx(values.mean())


def test_an_ignored_neighbour_makes_no_boundary_and_an_ignored_voxel_does_not_count():
    reference = np.zeros((1, 7, 7), np.uint8)
    reference[0, 1:6, 1:6] = 255
    reference[0, 2:5, 2:5] = 1
    (result,) = evaluate_labels(
        reference, np.ones_like(reference), (1, 1, 1), n_classes=2, ignore=255, nsd_tolerance_mm=1
    )
    assert (result.reference_voxels, result.prediction_voxels) == (9, 9 + 24)
    assert math.isnan(result.hd_mm)  # the reference meets nothing but ignored voxels: it has no boundary
    reference[0, 2:5, 5] = 0  # now it meets the background, on one side
    forth, back = directed_distances_mm(
        reference, np.where(reference == 1, 1, 0).astype(np.uint8), (1, 1, 1), ignore=255
    )
    assert (forth.tolist(), back.tolist()) == ([0, 0, 0], [0, 0, 0])


@pytest.mark.parametrize("way", [use_tree, use_transform])
def test_a_missed_class_is_never_at_distance_0(monkeypatch, way):
    way(monkeypatch)
    full, empty = np.ones((5, 5, 5), bool), np.zeros((5, 5, 5), bool)
    for pair in ((full, empty), (empty, full), (empty, empty)):
        assert math.isnan(hd_mm(*pair, (1, 1, 1)))
        assert [d.size for d in directed_distances_mm(*pair, (1, 1, 1))] == [0, 0]


def test_the_middle_of_a_ball_is_measured_by_transform():
    spacing_mm = (3.0, 0.8, 0.8)
    whole = ball((40, 100, 100), 38, spacing_mm)
    back = surface.PREDICTION, surface.REFERENCE

    def tree_answers(prediction):
        volume = tuple(slice(0, n) for n in whole.shape)
        pair = surface.Pair(whole.view(np.uint8), prediction.view(np.uint8), 1, volume, spacing_mm)
        return surface._by_tree(pair, surface._boundary_voxels(pair, 10**9), back, 1) is not None

    assert tree_answers(np.roll(whole, 1, 2))
    assert not tree_answers(ball(whole.shape, 12, spacing_mm))


MEMORY = """
import sys
from pathlib import Path
import numpy as np
import scipy.spatial  # loaded where a tree is wanted
from rwtool.metrics.measures import evaluate_labels

def peak_bytes():  # not ru_maxrss, which starts at the peak of the process that started this one
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])

kind, n_classes = sys.argv[1], int(sys.argv[2])
shape = (64, 256, 256)
rng = np.random.default_rng(0)
reference, prediction = np.zeros((2, *shape), np.uint8)
y, x = np.arange(256)[:, None] // 16, np.arange(256) // 16
y_mm = (np.arange(256) - 127.5) * 0.75
for labels in (reference, prediction):
    for part in labels:
        tiles = (y * 16 + x + rng.integers(2)) % n_classes
        part[:] = rng.integers(0, n_classes, shape[1:]) if kind in ("noise", "far") else tiles
if kind == "ball":  # fills the volume; the prediction is far from its surface
    for z in range(shape[0]):
        square = ((z - 31.5) * 3) ** 2 + ((y_mm**2)[:, None] + y_mm**2)
        reference[z], prediction[z] = square < 95**2, square < 25**2
if kind == "far":  # noise at either end
    reference[4:], prediction[:-4] = 0, 0
small = rng.integers(0, 2, (40, 40, 40), dtype=np.uint8)
evaluate_labels(small, small[::-1].copy(), (1, 1, 1), n_classes=2)  # loads what is loaded on first use
before = peak_bytes()
evaluate_labels(reference, prediction, (3, 0.75, 0.75), n_classes=n_classes, classes=range(min(n_classes, 3)))
print((peak_bytes() - before) / reference.size)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory from /proc")
@pytest.mark.parametrize(
    ("kind", "n_classes", "most"),
    [("noise", 2, 6), ("noise", 60, 6), ("tiles", 60, 6), ("ball", 2, 6), ("far", 3, 8)],
)
def test_memory_stays_below_6_bytes_per_voxel_and_8_between_noise_far_apart(kind, n_classes, most):
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, kind, str(n_classes)], capture_output=True, text=True, check=True
    )
    assert 0 < float(done.stdout) < most


real = pytest.mark.skipif("RWTOOL_TEST_DATA" not in os.environ, reason="RWTOOL_TEST_DATA is not set")


@real
def test_a_real_spine_agrees_between_tree_and_transform(monkeypatch):
    nibabel = pytest.importorskip("nibabel")
    folder = Path(os.environ["RWTOOL_TEST_DATA"]) / "spine"
    files = [nibabel.load(folder / name / "spine.nii.gz") for name in ("reference", "prediction")]
    arrays = [np.asarray(file.dataobj).astype(np.uint8).T for file in files]
    spacing_mm = files[0].header.get_zooms()[::-1]
    classes = [int(c) for c in np.unique(arrays[0])[1:]]
    answers = []
    for way in (use_tree, use_transform):
        with monkeypatch.context() as patch:
            way(patch)
            answers.append(evaluate_labels(*arrays, spacing_mm, n_classes=101, classes=classes))
    for one, other in zip(*answers, strict=True):
        for metric in METRICS.values():
            np.testing.assert_equal(getattr(one, metric.field), getattr(other, metric.field))
