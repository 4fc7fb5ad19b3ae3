import numpy as np
import pytest

from rwtool.network.resample import as_half, resample_slices, resampled_size, size_for


def test_a_slice_keeps_its_extent_to_half_a_pixel():
    assert resampled_size((9, 6), (1.5, 0.8), (3, 0.8)) == (4, 6)
    assert resampled_size((9, 6), (1.5, 0.8), (2.9, 0.7)) == (5, 7)
    assert resampled_size((9, 6), (1.5, 0.8), (0.5, 0.4)) == (27, 12)
    assert resampled_size((3, 3), (1, 1), (100, 100)) == (1, 1)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (4, [1, 3, 5, 7]),
        (2, [2, 6]),
        (8, [0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5]),
        (16, [0.5, 0.75, 1.25, 1.75, 2.25, 2.75, 3.25, 3.75, 4.25, 4.75, 5.25, 5.75, 6.25, 6.75, 7.25, 7.5]),
    ],
)
def test_edges_stay_where_they_are(size, expected):
    mm = (np.arange(8, dtype=np.float32) + 0.5) * np.ones((2, 3, 8), np.float32)  # of the centre of each pixel
    result = resample_slices(mm, (3, size), order=1)
    assert (result.shape, result.dtype) == ((2, 3, size), np.float32)
    np.testing.assert_allclose(result, np.broadcast_to(expected, result.shape), rtol=1e-6)
    np.testing.assert_array_equal(resample_slices(mm.swapaxes(1, 2), (size, 3), order=1), result.swapaxes(1, 2))


@pytest.mark.parametrize("size", [4, 16, 24])
def test_labels_keep_their_values_and_their_edges(size):
    codes = np.array([[1, 1, 3, 3, 3, 3, 200, 200]], dtype=np.uint8)
    result = resample_slices(codes, (1, size), order=0)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result[0], np.repeat([1, 3, 3, 200], size // 4))


def test_what_has_the_size_already_is_left_alone():
    array = np.zeros((2, 3, 4), np.float32)
    assert resample_slices(array, (3, 4), order=1) is array


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([0, 1, -3], np.float16),
        ([0, 59_000], np.float16),
        ([0, 66_000], np.float32),
        ([-66_000, 0], np.float32),
        ([0, 1e-3], np.float16),
        ([0, 1e-6], np.float32),
        ([0, -1e-6], np.float32),
        ([0, 0], np.float16),
    ],
)
def test_half_precision_is_taken_where_it_holds_the_values(values, dtype):
    array = np.array(values, dtype=np.float32)
    result = as_half(array)
    assert result.dtype == dtype
    np.testing.assert_allclose(result, array, rtol=1e-3)


def test_the_size_for_the_network_is_that_of_pixels_or_of_a_spacing_or_its_own():
    assert size_for((9, 6), (1.5, 0.8), (3, 0.8), None) == (4, 6)
    assert size_for((9, 6), (1.5, 0.8), None, (256, 128)) == (256, 128)
    assert size_for((9, 6), (1.5, 0.8), None, None) == (9, 6)
