import itertools

import numpy as np
import pytest

from rwtool.network.components import keep_largest


def pieces_of(mask):
    """The pieces of a mask by a slow walk over neighbours, in the order of their first voxels."""
    left, pieces = {tuple(place) for place in np.argwhere(mask)}, []
    steps = [step for step in itertools.product((-1, 0, 1), repeat=3) if any(step)]
    while left:
        piece, border = set(), [min(left)]
        left.discard(border[0])
        while border:
            place = border.pop()
            piece.add(place)
            near = {tuple(map(sum, zip(place, step, strict=True))) for step in steps} & left
            left -= near
            border += near
        pieces.append(piece)
    return pieces


@pytest.mark.parametrize("seed", range(4))
def test_what_is_kept_is_what_a_slow_walk_finds(seed):
    rng = np.random.default_rng(seed)
    labels = rng.choice(4, size=(4, 9, 8), p=[0.7, 0.15, 0.1, 0.05]).astype(np.uint8)
    expected = np.zeros_like(labels)
    for k in (1, 2, 3):
        for place in max(pieces_of(labels == k), key=len):  # the first of those of one size
            expected[place] = k
    before = labels.copy()
    found = keep_largest(labels)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(labels, before)
    assert found.dtype == np.uint8
    assert (found != labels).any()


def test_voxels_that_share_a_corner_or_lie_in_other_slices_are_one_piece():
    labels = np.zeros((3, 3, 3), dtype=np.uint8)
    labels[0, 0, 0] = labels[1, 1, 1] = labels[2, 2, 2] = 1
    np.testing.assert_array_equal(keep_largest(labels), labels)
    labels[1, 1, 1] = 2
    assert np.argwhere(keep_largest(labels) == 1).tolist() == [[0, 0, 0]]


def test_what_encloses_a_piece_of_another_class_does_not_take_it():
    labels = np.ones((1, 5, 5), dtype=np.uint16)
    labels[0, 2, 2] = 300
    labels[0, 0, 0] = 0
    np.testing.assert_array_equal(keep_largest(labels), labels)


def test_background_alone_stays():
    labels = np.zeros((2, 3, 4), dtype=np.uint8)
    np.testing.assert_array_equal(keep_largest(labels), labels)
