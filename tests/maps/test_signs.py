import zlib

import numpy as np
import pytest

from rwtool.blocks import blocks
from rwtool.maps.signs import (
    NotFiniteError,
    Piece,
    SignCount,
    count_signs,
    given_draw,
    memory_order,
    negative_components,
    random_draw,
    whole_draw,
    whole_signs,
)

SHAPE = (3, 4, 5)
RNG = np.random.default_rng(0)
Z = RNG.normal(size=(4, *SHAPE)) * 10
SOFTMAX = np.moveaxis(RNG.dirichlet(np.ones(4), SHAPE), -1, 0)


def laid_out(array, axes):
    """The same channels, with another order in memory."""
    return [np.ascontiguousarray(channel.transpose(axes)).transpose(np.argsort(axes)) for channel in array]


def pieces(channels, size=7, ignored=None):
    """A map in pieces, in the order of its memory."""
    order = memory_order(channels[0])
    turned = [np.asarray(channel).transpose(order) for channel in channels]
    for where in blocks(turned[0].shape, size):
        there = None if ignored is None else ignored.transpose(order)[where]
        yield Piece(where, [channel[where] for channel in turned], there)


def find_signs(channels, draws, *, squared, ignored=None):
    order = memory_order(channels[0])
    return whole_signs(pieces(channels, ignored=ignored), draws, squared=squared, shape=channels[0].shape, order=order)


def by_definition(z, y, squared):
    """Negative components voxel by voxel."""
    found = np.zeros(z.shape, dtype=bool)
    for at in np.ndindex(z.shape[1:]):
        zi, yi = z[(slice(None), *at)], y[(slice(None), *at)]
        gradient = 2 * yi * (zi * yi - (zi * yi**2).sum()) if squared else yi * (zi - (zi * yi).sum())
        found[(slice(None), *at)] = gradient < -1e-6 * yi * np.abs(zi).max()
    return found


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_the_negative_components_are_found_voxel_by_voxel_however_the_map_lies_in_memory(axes, squared):
    channels = laid_out(Z, axes)
    draws = [None, given_draw(SOFTMAX, channels[0])]
    signs = find_signs(channels, draws, squared=squared)
    for found, y in zip(signs.negative, (np.full_like(Z, 0.25), SOFTMAX), strict=True):
        expected = by_definition(Z, y, squared)
        np.testing.assert_array_equal(found, expected.sum(axis=0))
        np.testing.assert_array_equal(negative_components(Z, 7 * y, squared=squared), expected)


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 1, 0)])
def test_random_weights_of_a_whole_channel_are_those_that_the_count_draws(axes):
    channels = laid_out(Z, axes)
    draw = random_draw(5, "case")
    weights = np.stack([whole_draw(draw, k, channels[k]) for k in range(4)])
    flat = np.random.default_rng((5, zlib.crc32(b"case"), 1)).standard_exponential(60)
    np.testing.assert_array_equal(weights[1].transpose(axes).ravel(), flat)
    (found,) = find_signs(channels, [draw], squared=False).negative
    np.testing.assert_array_equal(found, negative_components(Z, weights, squared=False).sum(axis=0))


def test_ignored_voxels_and_those_without_a_gradient_are_counted_apart():
    z = Z.copy()
    z[:, 0, 0, :2] = 3.0
    ignored = np.zeros(SHAPE, dtype=bool)
    ignored[0, 0, 1], ignored[2] = True, True
    signs = find_signs(z, [None], squared=False, ignored=ignored)
    (count,) = signs.counts()
    assert (count.voxels, count.zero) == (60 - 21, 1)
    kept = by_definition(z, np.full_like(z, 0.25), False).sum(axis=0)[~ignored]
    assert count.unstable == int((kept >= 2).sum())


def test_a_softmax_of_0_is_the_smallest_one_and_its_sign_that_of_the_limit():
    z = np.array([12.0, 4.0, -3.0]).reshape(3, 1)
    softmax = np.array([1.0, 0.0, 0.0]).reshape(3, 1)
    (found,) = find_signs(z, [given_draw(softmax, z[0])], squared=False).negative
    assert found.tolist() == [2]


def test_memory_order_is_from_the_slowest_axis_to_the_fastest():
    assert memory_order(np.zeros((2, 3, 4))).tolist() == [0, 1, 2]
    assert memory_order(np.zeros((2, 3, 4), order="F")).tolist() == [2, 1, 0]


def test_values_that_are_not_finite_are_refused():
    z = Z.copy()
    z[2, 0, 0, 0], z[2, 0, 0, 1], z[1, 2, 3, 4] = np.nan, np.inf, -np.inf
    with pytest.raises(NotFiniteError, match=r"\A3\Z"):
        find_signs(z, [None], squared=False)


@pytest.mark.parametrize("squared", [False, True])
def test_the_pieces_that_a_map_comes_in_change_no_count(squared):
    draws = [None, random_draw(1, "case"), given_draw(SOFTMAX, Z[0])]
    ignored = np.random.default_rng(2).random(SHAPE) < 0.2
    whole = count_signs(pieces(Z, 1000, ignored), draws, squared=squared)
    assert whole == find_signs(Z, draws, squared=squared, ignored=ignored).counts()
    for size in (1, 5, 20):
        assert count_signs(pieces(Z, size, ignored), draws, squared=squared) == whole
    assert whole[0].voxels == np.count_nonzero(~ignored)
    assert sum(whole, SignCount()).unstable > 0
