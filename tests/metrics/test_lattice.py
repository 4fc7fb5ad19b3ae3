import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rwtool.maps.core import RELATIVE_ERROR
from rwtool.metrics.lattice import Candidates, Lattice, find_lattice


@pytest.mark.parametrize(
    ("spacing_mm", "steps", "unit_mm"),
    [
        ((1.0, 1.0, 1.0), (1, 1, 1), 1.0),
        ((5.0, 0.8, 0.8), (25, 4, 4), 0.2),
        ((3.0, 0.6000000238, 0.6000000238), (5, 1, 1), 0.6),
        ((0.62500006, 0.62499994, 5.0), (1, 1, 8), 0.625),
        ((0.7421875, 3.0, 1.1), (475, 1920, 704), 0.0015625),
    ],
)
def test_spacings_are_whole_multiples_of_one_unit(spacing_mm, steps, unit_mm):
    assert find_lattice(spacing_mm) == Lattice(steps, pytest.approx(unit_mm, rel=1e-12))


@example((1.0, 1.0, 1.00001))  # nearly, not quite, multiples
@example((1.0, 1.0000007, 7.9))
@given(st.tuples(*[st.floats(0.5, 4)] * 3))
def test_the_spacing_stays_close_and_the_largest_exact(spacing_mm):
    lattice = find_lattice(spacing_mm)
    assert lattice.spacing_mm == pytest.approx(spacing_mm, rel=2e-5)
    assert max(lattice.spacing_mm) == pytest.approx(max(spacing_mm), rel=1e-15)
    assert sum((1900 * step) ** 2 for step in lattice.steps) < 2**63  # squares of distances fit in 64 bits


def test_lengths_by_hand():
    lattice = Lattice((25, 7, 7), 0.1)
    offsets = np.array([[0, 3, 4], [0, 0, 5], [1, 0, 0], [-2, 0, 0]]) * lattice.steps
    assert lattice.length_mm(offsets).tolist() == pytest.approx([3.5, 3.5, 2.5, 5.0])
    assert lattice.length_mm(offsets)[0] == lattice.length_mm(offsets)[1]


def every_length(shape, lattice):
    offsets = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1).reshape(-1, 3)
    return np.unique(lattice.length_mm(offsets * np.asarray(lattice.steps)))[1:]


@pytest.mark.parametrize("error", RELATIVE_ERROR.values())
@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (2.5, 0.7, 0.7), (math.pi, math.e, math.sqrt(2))])
def test_a_float32_distance_stands_for_those_within_its_error(spacing_mm, error):
    lattice, shape = find_lattice(spacing_mm), (9, 30, 30)
    truth = every_length(shape, lattice)
    rough = np.unique(truth.astype(np.float32)).astype(np.float64)
    candidates = Candidates(rough, shape, lattice, error)
    for value, least in zip(rough, candidates.mm, strict=True):
        near = truth[np.abs(truth / value - 1) <= error]
        assert least == near[0]
        assert (value in candidates.unsure) == (len(near) > 1)


def test_which_of_two_near_lengths_it_is_is_seen_at_the_targets():
    lattice = Lattice((1000, 1, 1), 1.0)  # 1000 and 0 voxels away: 1000 mm; 999, 45: 1000.0130 mm; 1, 1: 1000.0005 mm
    near = lattice.length_mm(np.array([[1000, 0, 0], [1000, 1, 0]]))
    error = RELATIVE_ERROR["edt"]
    assert near[1] / near[0] - 1 < error
    candidates = Candidates(near[:1], (2, 3, 3), lattice, error)
    assert candidates.unsure.tolist() == [1000.0]
    starts = np.array([[0, 0, 0], [0, 2, 2]])
    distances = np.ones((2, 3, 3), np.float32)
    distances[1, 0, 0] = distances[1, 1, 2] = 0
    assert candidates.settle(1000.0, starts, distances).tolist() == near.tolist()


def test_no_distance_has_no_candidates():
    candidates = Candidates(np.empty(0), (4, 4, 4), Lattice((1, 1, 1), 1.0), 1e-7)
    assert candidates.mm.size == candidates.unsure.size == 0


def test_long_distances_are_told_apart_at_once_where_float32_is_all_that_is_lost():
    lattice = find_lattice((10.0, 1.5625, 1.5625))  # as of short-axis slices of the heart
    truth = every_length((12, 150, 150), lattice)
    rough = np.unique(truth.astype(np.float32)).astype(np.float64)
    assert truth[-1] > 340
    assert lattice.settle(rough, RELATIVE_ERROR["native"]).tolist() == truth.tolist()
    assert lattice.settle(rough, RELATIVE_ERROR["edt"]) is None  # one of several: looked for at the targets
