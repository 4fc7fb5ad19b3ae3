import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rwtool import blocks as module
from rwtool.blocks import blocks, slabs

SHAPES = st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple)


@given(shape=SHAPES, voxels=st.integers(1, 200), data=st.data())
def test_blocks_cover_a_box_once_whatever_axis_and_start(shape, voxels, data):
    axis = data.draw(st.none() | st.integers(0, len(shape) - 1))
    start = data.draw(st.none() | st.tuples(*[st.integers(0, 5)] * len(shape)))
    first = start or (0,) * len(shape)
    around = tuple(low + n + 2 for low, n in zip(first, shape, strict=True))
    times = np.zeros(around, dtype=int)
    for where in blocks(shape, voxels, axis=axis, start=start):
        times[where] += 1
    box = tuple(slice(low, low + n) for low, n in zip(first, shape, strict=True))
    assert (times[box] == 1).all()
    assert times.sum() == times[box].size


@given(shape=SHAPES, voxels=st.integers(1, 200))
def test_a_block_is_small_enough_and_lies_in_one_piece(shape, voxels):
    array = np.arange(np.prod(shape)).reshape(shape)
    together = []
    for where in blocks(shape, voxels):
        piece = array[where]
        assert 1 <= piece.size <= voxels
        assert (np.diff(piece.ravel()) == 1).all()
        together.append(piece.ravel())
    np.testing.assert_array_equal(np.concatenate(together), array.ravel())


@given(shape=SHAPES, voxels=st.integers(1, 200), data=st.data())
def test_along_one_axis_a_block_is_a_slab_at_least_one_voxel_thick(shape, voxels, data):
    axis = data.draw(st.integers(0, len(shape) - 1))
    row = np.prod(shape) // shape[axis]
    for where in blocks(shape, voxels, axis=axis):
        sides = [part.stop - part.start for part in where]
        assert all(side == n for k, (side, n) in enumerate(zip(sides, shape, strict=True)) if k != axis)
        assert row * sides[axis] <= max(voxels, row)


def test_a_box_that_fits_is_one_block_and_an_empty_one_none():
    assert list(blocks((2, 3), 6)) == [(slice(0, 2), slice(0, 3))]
    assert list(blocks((2, 3), 6, start=(4, 1))) == [(slice(4, 6), slice(1, 4))]
    assert list(blocks((0, 3), 6)) == []


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_slabs_are_cut_along_the_slowest_axis_in_memory(monkeypatch, order):
    monkeypatch.setattr(module, "SLAB_VOXELS", 30)
    array = np.zeros((4, 5, 6)).transpose(order)
    axis = order.index(0)
    found = list(slabs(array))
    assert [where[axis] for where in found] == [slice(0, 1), slice(1, 2), slice(2, 3), slice(3, 4)]
    assert all(array[where].size == 30 for where in found)
    assert [where[0].stop - where[0].start for where in slabs(array, 0)] == [1] * array.shape[0]


def test_an_axis_of_one_is_never_the_slowest(monkeypatch):
    monkeypatch.setattr(module, "SLAB_VOXELS", 10)
    assert len(list(slabs(np.zeros((1, 4, 10))))) == 4
