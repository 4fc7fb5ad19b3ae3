import numpy as np
import pytest

import rwtool
from rwtool.network.normalization import Normalization, ct_normalization


def image_of(seed=0):
    return np.random.default_rng(seed).normal(50, 20, (2, 3, 8, 9)).astype(np.float32)


def test_zscore_gives_each_channel_mean_0_and_sd_1():
    image = image_of()
    image[1] *= 1000
    found = Normalization("zscore").apply(image)
    assert found is image
    np.testing.assert_allclose(found.mean(axis=(1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(found.std(axis=(1, 2, 3)), 1, rtol=1e-5)


def test_a_constant_channel_becomes_0():
    np.testing.assert_array_equal(Normalization("zscore").apply(np.full((1, 2, 3, 4), 7, np.float32)), 0)


def test_none_leaves_intensities_as_they_are():
    np.testing.assert_array_equal(Normalization("none").apply(image_of()), image_of())


def test_ct_clips_to_the_percentiles_of_the_foreground_of_all_images_then_scales_by_what_is_left():
    samples = [np.arange(0, 600, dtype=np.float32)[None], np.arange(600, 1001, dtype=np.float32)[None]]
    found = ct_normalization(samples)  # 0, 1, ... 1000: the 0.5 percentile is 5, the 99.5 percentile 995
    clipped = np.clip(np.arange(1001.0), 5, 995)
    assert found.kind == "ct"
    assert found.channels == (pytest.approx((5.0, 995.0, clipped.mean(), clipped.std())),)
    image = np.array([[[[-50, 5, 500, 2000]]]], dtype=np.float32)
    expected = (np.array([5, 5, 500, 995]) - clipped.mean()) / clipped.std()
    np.testing.assert_allclose(found.apply(image)[0, 0, 0], expected, rtol=1e-5)


def test_ct_has_statistics_of_its_own_for_each_channel():
    found = ct_normalization([np.stack([np.zeros(100), np.full(100, 9.0)]).astype(np.float32)])
    assert found.channels == ((0.0, 0.0, 0.0, 0.0), (9.0, 9.0, 9.0, 0.0))
    np.testing.assert_array_equal(found.apply(np.full((2, 1, 1, 1), 9, np.float32)), 0)


def test_ct_without_any_foreground_is_refused():
    with pytest.raises(rwtool.UsageError, match="takes its statistics from the foreground of the training images"):
        ct_normalization([np.zeros((1, 0), dtype=np.float32)])
