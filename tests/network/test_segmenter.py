import doctest
import math

import numpy as np
import pytest
import torch

import rwtool.network.segmenter as segmenter_module
from rwtool.network.segmenter import Segmenter, network_bytes, window_starts, window_weight
from rwtool.network.unet import UNet2d
from rwtool.training.cohort import Case
from rwtool.training.slices import SliceSet, round_patch

torch.set_num_threads(1)
CPU = torch.device("cpu")


class Pixelwise(torch.nn.Module):
    """A network that sees a pixel at a time: logits x and -x. It keeps the shapes of what it was given."""

    stride, n_classes = 4, 2

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(tuple(x.shape))
        return [torch.stack((x[:, 0], -x[:, 0]), dim=1)]


def image_of(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


# Slices that fit the patch


@pytest.mark.parametrize("size", [(20, 24), (19, 24), (20, 23), (19, 21), (3, 3)])
@pytest.mark.parametrize("depth", [2, 3])
def test_a_slice_is_put_to_the_network_where_it_lay_in_training(size, depth):
    class Watch(torch.nn.Module):
        stride, n_classes = 1 << (depth - 1), 2

        def forward(self, x):
            seen.append(x)
            return [torch.zeros(len(x), 2, *x.shape[2:])]

    seen = []
    image = np.random.default_rng(0).normal(size=(1, 1, *size)).astype(np.float16)
    codes = np.ones(image.shape[1:], dtype=np.uint8)
    patch = round_patch((20, 24), 1 << (depth - 1))
    data = SliceSet([Case("a", image, codes, None, (1.0, 1.0), None, ())], CPU, patch, augment=False)
    (batch,) = data.batches(data.plan_epoch(1, 0, 0))
    Segmenter(Watch(), CPU, amp="off", patch=patch).labels(image, size)
    assert seen[0].shape[2:] == patch
    torch.testing.assert_close(seen[0], batch.images, rtol=1e-4, atol=1e-4)


def test_the_softmax_returns_to_the_grid_of_the_image_edge_to_edge():
    class Given(torch.nn.Module):
        stride, n_classes = 1, 2

        def forward(self, x):
            return [torch.cat((x, 1 - x), dim=1).log()]

    image = np.array([[0.25, 0.75]], dtype=np.float32).reshape(1, 1, 1, 2)
    found = Segmenter(Given(), CPU, amp="off", patch=(1, 2)).probabilities(image, (1, 4))
    np.testing.assert_allclose(found[0, 0, 0], [0.25, 0.375, 0.625, 0.75], rtol=1e-6)
    np.testing.assert_allclose(found.sum(axis=0), 1, rtol=1e-6)


def test_a_model_predicts_in_eval_mode_and_goes_back_to_training():
    class Watch(torch.nn.Module):
        stride, n_classes = 1, 2

        def forward(self, x):
            seen.append((self.training, torch.is_grad_enabled()))
            return [torch.cat((x, x), dim=1)]

    seen, model = [], Watch()
    segmenter = Segmenter(model, CPU, amp="off", patch=(4, 4))
    for mode in (True, False):
        model.train(mode)
        segmenter.labels(np.zeros((1, 1, 4, 4), dtype=np.float32), (4, 4))
        assert model.training is mode
    assert seen == [(False, False)] * 2


def test_slices_that_fit_the_patch_go_through_the_network_once_in_batches(monkeypatch):
    monkeypatch.setattr(segmenter_module, "_PIXELS", 3 * 36 * 20)
    image, network = image_of(1, 7, 33, 17), Pixelwise()
    found = Segmenter(network, CPU, amp="off", patch=(36, 20)).labels(image, (33, 17))
    assert network.seen == [(3, 1, 36, 20), (3, 1, 36, 20), (1, 1, 36, 20)]
    np.testing.assert_array_equal(found, image[0] < 0)
    assert found.dtype == np.uint8


def test_the_softmax_of_a_slice_that_fits_is_that_of_the_network_to_the_bit():
    torch.manual_seed(0)
    network = UNet2d(1, 3, features=4, stages=3).eval()
    image = image_of(1, 2, 16, 24)
    with torch.inference_mode():
        expected = network(torch.from_numpy(image).swapaxes(0, 1))[0].softmax(dim=1).numpy().swapaxes(0, 1)
    found = Segmenter(network, CPU, amp="off", patch=(16, 24)).probabilities(image, (16, 24))
    np.testing.assert_array_equal(found, expected)


# Windows over larger slices


@pytest.mark.parametrize("window", [1, 8, 48, 63])
def test_windows_reach_from_edge_to_edge_half_a_window_apart_or_less(window):
    for size in (window, window + 1, window + window // 2, 2 * window, 2 * window + 1, 7 * window + 5):
        starts = window_starts(size, window)
        assert (starts[0], starts[-1]) == (0, size - window)
        steps = np.diff(starts)
        assert (steps > 0).all()
        assert (steps <= max(1, -(-window // 2))).all()
        assert len(starts) == 1 + min(size - window, math.ceil((size - window) / (window / 2)))  # no more than it takes
        if len(steps):
            assert steps.max() - steps.min() <= 1


def test_the_weight_of_a_window_is_a_gaussian_of_sd_an_eighth_of_its_sides():
    weight = window_weight((8, 17)).double()
    assert weight.shape == (8, 17)
    y, x = np.arange(8) - 3.5, np.arange(17) - 8
    expected = np.exp(-(y[:, None] ** 2) / (2 * 1**2) - x**2 / (2 * (17 / 8) ** 2))
    np.testing.assert_allclose(weight, expected, rtol=1e-5)
    assert weight.min() > 0  # the corners of a slice are seen by one window alone


class Numbered(torch.nn.Module):
    """Says at each pixel which row of its window it lies in: softmax 0.1, 0.2, ... from the top."""

    stride, n_classes = 1, 2

    def forward(self, x):
        y = torch.arange(x.shape[2]).float() / 10 + 0.1
        share = y.view(1, -1, 1).expand(len(x), *x.shape[2:])
        return [torch.stack((share, 1 - share), dim=1).log()]


def test_overlapping_windows_are_averaged_by_their_weights_by_hand():
    # windows of 4 rows at 0 and 2 of 6: rows 2 and 3 lie in both, where they are rows 2, 3 and 0, 1 of theirs
    found = Segmenter(Numbered(), CPU, amp="off", patch=(4, 1)).probabilities(image_of(1, 1, 6, 1), (6, 1))
    far, near = np.exp(-32 * (1.5 / 4) ** 2), np.exp(-32 * (0.5 / 4) ** 2)
    both = near + far
    expected = [0.1, 0.2, (near * 0.3 + far * 0.1) / both, (far * 0.4 + near * 0.2) / both, 0.3, 0.4]
    np.testing.assert_allclose(found[0, 0, :, 0], expected, rtol=1e-5)


SIZES = [(33, 17), (16, 40), (40, 9), (100, 100), (17, 16), (50, 51)]


@pytest.mark.parametrize("size", SIZES)
def test_a_network_that_sees_a_pixel_at_a_time_gives_by_windows_what_it_gives_on_the_whole(size):
    image = image_of(1, 3, *size)
    whole = Segmenter(Pixelwise(), CPU, amp="off", patch=(104, 104)).probabilities(image, size)
    windows = Pixelwise()
    found = Segmenter(windows, CPU, amp="off", patch=(16, 16)).probabilities(image, size)
    np.testing.assert_allclose(found, whole, atol=1e-6)
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-6)
    assert {shape[2:] for shape in windows.seen} == {(16, 16)}


@pytest.mark.parametrize("size", SIZES)
def test_a_constant_network_gives_a_constant_up_to_the_edges(size):
    class Constant(torch.nn.Module):
        stride, n_classes = 4, 3

        def forward(self, x):
            return [torch.tensor([0.0, 1.0, 2.0]).view(1, 3, 1, 1).expand(len(x), 3, *x.shape[2:])]

    found = Segmenter(Constant(), CPU, amp="off", patch=(16, 16)).probabilities(image_of(1, 2, *size), size)
    softmax = np.exp([0, 1, 2]) / np.exp([0, 1, 2]).sum()
    np.testing.assert_allclose(found, np.broadcast_to(softmax.reshape(3, 1, 1, 1), found.shape), rtol=1e-5)


def test_windows_of_several_slices_share_batches_that_are_bounded(monkeypatch):
    monkeypatch.setattr(segmenter_module, "_PIXELS", 5 * 16 * 16)
    image, network = image_of(1, 4, 24, 24), Pixelwise()  # two slices at a time, of four windows each
    found = Segmenter(network, CPU, amp="off", patch=(16, 16)).labels(image, (24, 24))
    assert network.seen == [(5, 1, 16, 16), (3, 1, 16, 16)] * 2
    np.testing.assert_array_equal(found, image[0] < 0)


def test_windows_do_not_depend_on_how_they_are_batched(monkeypatch):
    torch.manual_seed(0)
    network = UNet2d(1, 3, features=4, stages=3)
    image = image_of(1, 3, 30, 41)

    def find():
        return Segmenter(network, CPU, amp="off", patch=(16, 24), flip="x").probabilities(image, (30, 41))

    found = find()
    np.testing.assert_array_equal(find(), found)
    monkeypatch.setattr(segmenter_module, "_PIXELS", 1)
    np.testing.assert_allclose(find(), found, atol=1e-6)


def test_instance_norm_sees_in_a_window_what_it_saw_in_training():
    """A patch of training inside a slice that is bright elsewhere is not changed by what lies a window away."""
    torch.manual_seed(0)
    network = UNet2d(1, 2, features=4, stages=3, norm="instance")
    image = image_of(1, 1, 16, 64)
    bright = image.copy()
    bright[..., 40:] += 50
    segmenter = Segmenter(network, CPU, amp="off", patch=(16, 16))
    plain, beside = (segmenter.probabilities(each, (16, 64))[..., :16] for each in (image, bright))
    np.testing.assert_array_equal(plain, beside)
    whole = Segmenter(network, CPU, amp="off", patch=(16, 64))
    plain, beside = (whole.probabilities(each, (16, 64))[..., :16] for each in (image, bright))
    assert np.abs(plain - beside).max() > 0.01


def test_the_examples_hold():
    assert doctest.testmod(segmenter_module) == doctest.TestResults(failed=0, attempted=1)


def test_the_memory_of_a_batch_grows_with_its_pixels_up_to_those_of_a_batch():
    assert network_bytes(4, 3, 1000) == 1000 * 244
    assert network_bytes(16, 3, 1000) == 1000 * 532
    assert network_bytes(4, 3, 10**9) == network_bytes(4, 3, 10**8)
