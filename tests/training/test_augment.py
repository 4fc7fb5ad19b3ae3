import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

import rwtool
from rwtool.network.config import TrainConfig
from rwtool.training import augment, objective
from rwtool.training.augment import DRAWS, Sample, Warp, intensities, placement, warp
from rwtool.training.map_source import MapUse
from rwtool.training.objective import Objective
from rwtool.training.slices import Batch

torch.set_num_threads(1)

OUTSIDE = 255
YES, NO = 0.0, 0.9  # draws under which something happens, and does not


@pytest.fixture(autouse=True)
def _even_odds(monkeypatch):
    for name in ("ROTATION", "SCALE", "NOISE", "BRIGHTNESS", "CONTRAST", "GAMMA"):
        monkeypatch.setattr(augment, f"_P_{name}", 0.5)


def drawn(*, rotation=None, scale=None, shift=(0.5, 0.5), flips="", batch=1):
    """Draws of a placement, the same for a whole batch; numbers are where in its range a value lies, from 0 to 1."""
    row = torch.full((DRAWS,), NO)
    for at, value in ((0, rotation), (2, scale)):
        if value is not None:
            row[at], row[at + 1] = YES, value
    row[4:6] = torch.tensor(shift)
    row[6], row[7] = (YES if axis in flips else NO for axis in "yx")
    return row.expand(batch, DRAWS)


def placed(draws, *, size, patch, pixel_mm=(1.0, 1.0), corner=None, on=True, flip="both"):
    """The warp of slices of one size, by default in the middle of their patch."""
    batch = len(draws)
    corner = [math.floor((s - p) / 2) for s, p in zip(size, patch, strict=True)] if corner is None else corner
    rows = (torch.tensor(row, dtype=torch.float32).expand(batch, 2) for row in (corner, size, pixel_mm))
    return placement(draws, *rows, patch, augment=on, flip=flip)


def by_hand(matrix, centre, batch=1, magnification=1.0):
    return Warp(
        torch.tensor(centre, dtype=torch.float32).expand(batch, 2),
        torch.tensor(matrix, dtype=torch.float32).expand(batch, 2, 2),
        torch.full((batch,), magnification),
    )


def middle(shape):
    return [(side - 1) / 2 for side in shape]


def slices(shape, batch=2, n_classes=4, channels=2, seed=0):
    """Random images, codes and magnitudes of that many slices, in the types that they are kept in."""
    rng = np.random.default_rng(seed)
    return Sample(
        torch.from_numpy(rng.normal(size=(batch, channels, *shape)).astype(np.float16)),
        torch.from_numpy(rng.integers(0, n_classes + 1, (batch, *shape)).astype(np.uint8)),
        torch.from_numpy(rng.uniform(0.1, 9, (batch, n_classes, *shape)).astype(np.float16)),
    )


def assert_equals(found, images, codes, magnitudes):
    """Codes to the bit, the rest to the rounding of pixel positions in float32."""
    np.testing.assert_array_equal(found.codes, codes)
    np.testing.assert_allclose(found.images, images, rtol=0, atol=1e-4)
    np.testing.assert_allclose(found.magnitudes, magnitudes, rtol=0, atol=1e-4)


# The warp of what is known


@pytest.mark.parametrize(
    ("corner", "patch"), [((0, 0), (16, 32)), ((0, 0), (8, 8)), ((5, 17), (8, 4)), ((15, 31), (1, 1))]
)
def test_without_augmentation_a_patch_is_cut_out_to_the_bit(corner, patch):
    sample = slices((16, 32))  # powers of 2: positions are exact in float32
    where = placed(drawn(batch=2), size=(16, 32), patch=patch, corner=corner, on=False)
    found = warp(sample, where, patch, scale_magnitudes=True)
    cut = np.s_[..., corner[0] : corner[0] + patch[0], corner[1] : corner[1] + patch[1]]
    for part, whole in zip(
        (found.images, found.codes, found.magnitudes), (sample.images, sample.codes, sample.magnitudes), strict=True
    ):
        assert part.dtype == torch.float32
        np.testing.assert_array_equal(part, whole[cut].float())


@pytest.mark.parametrize("shape", [(7, 11), (50, 36), (243, 181)])
def test_when_nothing_is_drawn_a_slice_stays_as_it_is(shape):
    sample = slices(shape)
    found = warp(sample, placed(drawn(batch=2), size=shape, patch=shape), shape, scale_magnitudes=True)
    assert_equals(found, sample.images, sample.codes, sample.magnitudes)


@pytest.mark.parametrize("shape", [(6, 9), (7, 7), (12, 10)])
@pytest.mark.parametrize(
    ("matrix", "truth"),
    [
        ([[-1, 0], [0, 1]], lambda a: np.flip(a, -2)),
        ([[1, 0], [0, -1]], lambda a: np.flip(a, -1)),
        ([[-1, 0], [0, -1]], lambda a: np.flip(a, (-2, -1))),
        ([[0, 1], [-1, 0]], lambda a: np.rot90(a, 1, (-2, -1))),
        ([[0, -1], [1, 0]], lambda a: np.rot90(a, 3, (-2, -1))),
        ([[0, 1], [1, 0]], lambda a: a.swapaxes(-2, -1)),
    ],
    ids=["flip_y", "flip_x", "half_turn", "quarter_turn", "quarter_turn_back", "transpose"],
)
def test_flips_and_quarter_turns_are_those_of_numpy_for_image_codes_and_magnitudes(shape, matrix, truth):
    sample = slices(shape)
    parts = [truth(part.numpy()) for part in (sample.images, sample.codes, sample.magnitudes)]
    patch = parts[1].shape[-2:]
    assert_equals(warp(sample, by_hand(matrix, middle(shape), 2), patch, scale_magnitudes=False), *parts)


def test_each_slice_of_a_batch_has_its_own_warp():
    sample = slices((8, 8))
    both = Warp(
        torch.tensor([[3.5, 3.5], [4.5, 3.5]]),
        torch.tensor([[[1.0, 0.0], [0.0, -1.0]], [[1.0, 0.0], [0.0, 1.0]]]),
        torch.tensor([1.0, 3.0]),
    )
    found = warp(sample, both, (8, 8), scale_magnitudes=True)
    np.testing.assert_allclose(found.images[0], sample.images[0].flip(-1), atol=1e-4)
    np.testing.assert_array_equal(found.codes[1, :7], sample.codes[1, 1:])
    np.testing.assert_allclose(found.magnitudes[0], sample.magnitudes[0].flip(-1), atol=1e-4)
    np.testing.assert_allclose(found.magnitudes[1, :, :7], 3 * sample.magnitudes[1, :, 1:].float(), atol=1e-4)


def test_between_pixels_images_and_magnitudes_are_bilinear_and_codes_those_of_the_nearest():
    sample = slices((8, 8))
    found = warp(sample, by_hand(np.eye(2), (3.75, 3.1), 2), (8, 8), scale_magnitudes=False)  # 0.25 down, 0.4 back

    def between(part):
        part = part.double().numpy()
        low = 0.75 * part[..., :-1, :] + 0.25 * part[..., 1:, :]
        return 0.6 * low[..., 1:] + 0.4 * low[..., :-1]

    inside = np.s_[..., :7, 1:]
    np.testing.assert_array_equal(found.codes[inside], sample.codes[inside])
    np.testing.assert_allclose(found.images[inside], between(sample.images), atol=1e-4)
    np.testing.assert_allclose(found.magnitudes[inside], between(sample.magnitudes), atol=1e-4)


def test_outside_the_slice_there_is_no_class_and_nothing_else():
    sample = slices((5, 6))
    sample = Sample(sample.images + 10, sample.codes.clamp(min=1), sample.magnitudes)
    found = warp(sample, placed(drawn(batch=2), size=(5, 6), patch=(9, 8), on=False), (9, 8), scale_magnitudes=True)
    parts = (sample.images, sample.codes, sample.magnitudes)
    assert_equals(found, *(np.pad(p, [(0, 0)] * (p.ndim - 2) + [(2, 2), (1, 1)]) for p in parts))
    turned = warp(
        sample,
        placed(drawn(rotation=1, scale=0, flips="y", batch=2), size=(5, 6), patch=(16, 16)),
        (16, 16),
        scale_magnitudes=True,
    )
    far = np.ones((16, 16), dtype=bool)
    far[3:13, 3:13] = False
    assert turned.codes.max() > 0
    for part in (turned.images, turned.codes, turned.magnitudes):
        assert part.numpy()[..., far].max() == part.numpy()[..., far].min() == 0


def test_codes_beyond_255_survive_the_warp():
    codes = torch.arange(36, dtype=torch.int16).view(1, 6, 6) + 2010
    sample = Sample(torch.zeros(1, 1, 6, 6), codes, None)
    found = warp(sample, by_hand([[0, 1], [-1, 0]], (2.5, 2.5)), (6, 6), scale_magnitudes=False)
    np.testing.assert_array_equal(found.codes, np.rot90(codes.numpy(), 1, (1, 2)))
    assert found.magnitudes is None


@pytest.mark.parametrize("scale_magnitudes", [True, False])
def test_the_magnification_multiplies_magnitudes_that_are_distances_and_no_others(scale_magnitudes):
    sample = slices((6, 6))
    found = warp(sample, by_hand(np.eye(2), (2.5, 2.5), 2, 1.25), (6, 6), scale_magnitudes=scale_magnitudes)
    factor = 1.25 if scale_magnitudes else 1
    assert_equals(found, sample.images, sample.codes, factor * sample.magnitudes.float())


# What is drawn


def test_placements_are_a_turn_a_scaling_and_flips_in_mm_within_their_ranges():
    n, pixel_mm = 4000, torch.tensor([0.7, 1.9])
    draws = torch.rand((n, DRAWS), generator=torch.Generator().manual_seed(0))
    where = placed(draws, size=(40, 60), patch=(40, 60), pixel_mm=pixel_mm.tolist())
    in_mm = pixel_mm.view(1, 2, 1) * where.matrix / pixel_mm.view(1, 1, 2)
    scale = where.magnification
    products = in_mm.mT @ in_mm * scale.square().view(-1, 1, 1)
    torch.testing.assert_close(products, torch.eye(2).expand(n, 2, 2), rtol=0, atol=1e-5)  # lengths over the scale
    signs = torch.where(draws[:, 6:8] < 0.5, -1.0, 1.0)
    turn = in_mm * signs.unsqueeze(1) * scale.view(-1, 1, 1)
    angle = torch.atan2(turn[:, 1, 0], turn[:, 0, 0])
    torch.testing.assert_close(turn[:, 0, 0], turn[:, 1, 1])
    torch.testing.assert_close(turn[:, 1, 0], -turn[:, 0, 1])
    for value, most in ((angle, augment._ROTATION), (scale.log(), augment._SCALE)):
        assert value.abs().max() <= most * (1 + 1e-5)
        assert value.max() > 0.95 * most
        assert value.min() < -0.95 * most
        assert (value.abs() > 1e-5).float().mean() == pytest.approx(0.5, abs=0.03)
    shift = where.centre - torch.tensor(middle((40, 60)))
    assert torch.equal(shift, shift.round())
    for axis, side in enumerate((40, 60)):
        most = round(augment._TRANSLATION * side)
        assert set(shift[:, axis].tolist()) == set(range(-most, most + 1))
    assert abs(torch.corrcoef(torch.stack((angle, scale.log(), *shift.T, *signs.T))) - torch.eye(6)).max() < 0.06


@pytest.mark.parametrize(("flip", "signs"), [("both", [-1, -1]), ("y", [-1, 1]), ("x", [1, -1]), ("none", [1, 1])])
def test_only_the_axes_of_the_flip_option_are_mirrored(flip, signs):
    where = placed(drawn(flips="yx"), size=(8, 8), patch=(8, 8), flip=flip)
    assert where.matrix.tolist() == [[[signs[0], 0], [0, signs[1]]]]


def test_whole_slices_are_shifted_by_whole_pixels_and_crops_stay_where_they_were_placed(monkeypatch):
    monkeypatch.setattr(augment, "_TRANSLATION", 0.11)
    draws = drawn(shift=(1.0, 0.0))
    whole = placed(draws, size=(20, 30), patch=(20, 40), corner=(0, -5))
    assert whole.centre.tolist() == [[9.5 + 2, 14.5 - 3]]
    crop = placed(draws, size=(50, 30), patch=(20, 40), corner=(12, -5))
    assert crop.centre.tolist() == [[21.5, 14.5 - 3]]


def test_without_augmentation_the_draws_change_nothing():
    where = placed(torch.zeros(3, DRAWS), size=(50, 30), patch=(20, 40), corner=(12, -5), on=False)
    assert where.centre.tolist() == 3 * [[21.5, 14.5]]
    assert where.matrix.tolist() == 3 * [[[1, 0], [0, 1]]]
    assert where.magnification.tolist() == [1, 1, 1]


# Warp a label, make its map anew, and compare


SHAPE = (5, 40, 46)
SPACINGS = [(2.5, 1.0, 1.0), (3.0, 0.8, 1.4), (2.0, 1.5, 0.75)]
WARPS = {
    "turned": {"rotation": 0.95},
    "turned_back": {"rotation": 0.1},
    "larger": {"scale": 1.0},
    "smaller": {"scale": 0.0},
    "all": {"rotation": 0.15, "scale": 0.93, "shift": (0.2, 0.85), "flips": "x"},
}


@pytest.fixture
def ranges(monkeypatch):
    """Ranges that keep the slices within a patch of 110 x 110, whatever training is tuned to."""
    monkeypatch.setattr(augment, "_ROTATION", math.radians(30))
    monkeypatch.setattr(augment, "_SCALE", math.log(1.25))
    monkeypatch.setattr(augment, "_TRANSLATION", 0.1)


def balls(spacing_mm):
    """Background, a ball of radius 10.5 mm and one of 6.5 mm that bites into it; every slice cuts all of them."""
    z, y, x = (np.ogrid[-(n - 1) / 2 : n / 2] * mm for n, mm in zip(SHAPE, spacing_mm, strict=True))
    z, y = z[:, None, None], y[:, None]
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[z**2 + (y + 1) ** 2 + (x + 3) ** 2 < 10.5**2] = 1
    labels[(z - 1) ** 2 + (y - 2) ** 2 + (x - 6) ** 2 < 6.5**2] = 2
    return labels


def map_of(kind, labels, spacing_mm, **options):
    """Own values (Z, Y, X) for rrw, all (K, Z, Y, X) for boundary."""
    if kind == "rrw":
        return rwtool.rrw_map(labels, spacing_mm, n_classes=3, layout="packed", **options)
    return rwtool.boundary_map(labels, spacing_mm, n_classes=3, **options)


def warp_and_remake(kind, labels, spacing_mm, draws, monkeypatch, patch=(110, 110)):
    """Warped labels, the map that the loss is given with them, that made anew of them, and shares of each class."""
    use = MapUse(kind, 3, (1.0, 1.0, 1.0) if kind == "rrw" else ())
    one_hot = np.stack([labels == k for k in range(3)], axis=1)
    magnitudes = np.abs(map_of(kind, labels, spacing_mm)).reshape(use.channels, *labels.shape)
    sample = Sample(
        torch.from_numpy(one_hot), torch.from_numpy(labels + np.uint8(1)), torch.from_numpy(magnitudes.swapaxes(0, 1))
    )
    where = placed(draws, size=labels.shape[1:], patch=patch, pixel_mm=spacing_mm[1:])
    found = warp(sample, where, patch, scale_magnitudes=use.scales)
    warped = found.codes.long() - 1
    seen = []

    def loss(logits, z, *arguments, **options):
        seen.append(z.numpy())
        return logits.sum()

    monkeypatch.setattr(objective, "packed_region_wise_loss" if kind == "rrw" else "region_wise_loss", loss)
    batch = Batch(found.images, warped, found.magnitudes)
    Objective(TrainConfig(kind), use, torch.device("cpu"))([torch.zeros(len(labels), 3, *patch)], batch, 0)
    # what is magnified in the plane is magnified across it, so that distances grow by one factor
    magnification = float(where.magnification[0])
    anew = np.where(warped < 0, OUTSIDE, warped).astype(np.uint8)
    truth = map_of(kind, anew, (spacing_mm[0] * magnification, *spacing_mm[1:]), ignore=OUTSIDE)
    shares = found.images.numpy().swapaxes(0, 1)  # of each class in the four pixels that a position lies between
    return SimpleNamespace(
        z=seen[0] if kind == "rrw" else seen[0].swapaxes(0, 1),
        truth=truth, labels=anew, shares=shares, magnification=magnification,
    )  # fmt: skip


@pytest.mark.parametrize("spacing_mm", SPACINGS, ids=str)
@pytest.mark.parametrize("name", WARPS)
@pytest.mark.usefixtures("ranges")
def test_the_boundary_map_of_a_warped_label_is_the_warped_map_to_a_pixel(name, spacing_mm, monkeypatch):
    labels = balls(spacing_mm)
    got = warp_and_remake("boundary", labels, spacing_mm, drawn(**WARPS[name], batch=len(labels)), monkeypatch)
    inside = got.shares.sum(axis=0) > 0.999
    assert inside.sum() > 0.9 * got.magnification**2 * (labels.size - 2 * labels[:, 0].size - 2 * labels[:, :, 0].size)
    pixel_mm = math.hypot(*spacing_mm[1:])
    for k in range(3):
        wrong_mm = np.abs(got.z - got.truth)[k][inside]
        assert wrong_mm.max() < pixel_mm
        assert wrong_mm.mean() < 0.3 * pixel_mm
    far = np.abs(got.truth[0][inside]).max()
    assert np.abs(got.z[0][inside]).max() == pytest.approx(far, rel=0.05)
    assert far == pytest.approx(got.magnification * np.abs(map_of("boundary", labels, spacing_mm)[0]).max(), rel=0.1)


@pytest.mark.parametrize("spacing_mm", SPACINGS, ids=str)
@pytest.mark.parametrize("name", WARPS)
@pytest.mark.usefixtures("ranges")
def test_the_rrw_map_of_a_warped_label_is_the_warped_map_to_a_pixel(name, spacing_mm, monkeypatch):
    labels = balls(spacing_mm)
    got = warp_and_remake("rrw", labels, spacing_mm, drawn(**WARPS[name], batch=len(labels)), monkeypatch)
    own_mm = np.abs(map_of("boundary", labels, spacing_mm))
    largest_mm = [got.magnification * own_mm[k][labels == k].max() for k in range(3)]
    assert largest_mm[2] < largest_mm[1] < largest_mm[0] / 3
    pixel_mm = math.hypot(*spacing_mm[1:])
    wrong = np.abs(got.z - got.truth)
    for k in range(3):
        within = got.shares[k] > 0.999
        assert within.sum() > 100
        assert (got.labels[within] == k).all()
        assert wrong[within].max() < pixel_mm / largest_mm[k]
        assert wrong[within].mean() < 0.35 * pixel_mm / largest_mm[k]
        # where classes meet, so do shares of two largest distances: a pixel is most in shares of the smallest
        inside = (got.labels == k) & (got.shares.sum(axis=0) > 0.999)
        assert inside.sum() > within.sum()
        assert wrong[inside].max() < pixel_mm / largest_mm[2]


@pytest.mark.parametrize("kind", ["boundary", "rrw"])
@pytest.mark.parametrize("name", WARPS)
@pytest.mark.usefixtures("ranges")
def test_the_sign_of_a_warped_map_is_that_of_the_warped_label_at_every_pixel_that_has_one(name, kind, monkeypatch):
    labels = balls(SPACINGS[1])
    got = warp_and_remake(kind, labels, SPACINGS[1], drawn(**WARPS[name], batch=len(labels)), monkeypatch)
    labelled = got.labels != OUTSIDE
    mixed = labelled & (got.shares.max(axis=0) < 0.999)  # where classes meet, or slice and edge
    assert 0.02 < mixed.sum() / labelled.sum() < 0.2
    if kind == "rrw":
        assert (got.z[labelled] < 0).all()
        assert (got.truth[labelled] < 0).all()
    else:
        for k in range(3):
            sign = np.where(got.labels == k, -1, 1)[labelled]
            np.testing.assert_array_equal(np.sign(got.z[k][labelled]), sign)
            np.testing.assert_array_equal(np.sign(got.truth[k][labelled]), sign)


@pytest.mark.parametrize("kind", ["boundary", "rrw"])
@pytest.mark.parametrize(
    ("warped", "truth"),
    [
        ({"flips": "y"}, lambda a: np.flip(a, 1)),
        ({"flips": "x"}, lambda a: np.flip(a, 2)),
        ({"flips": "yx"}, lambda a: np.flip(a, (1, 2))),
        ({"shift": (0.9, 0.07)}, lambda a: np.roll(a, (-3, 4), (1, 2))),
    ],
    ids=["flip_y", "flip_x", "flip_both", "shift"],
)
@pytest.mark.usefixtures("ranges")
def test_flips_and_shifts_leave_the_map_of_the_label_exact(kind, warped, truth, monkeypatch):
    labels = balls(SPACINGS[1])
    got = warp_and_remake(kind, labels, SPACINGS[1], drawn(**warped, batch=len(labels)), monkeypatch, patch=(54, 64))
    whole = np.pad(labels, [(0, 0), (7, 7), (9, 9)], constant_values=OUTSIDE)
    np.testing.assert_array_equal(got.labels, truth(whole))
    labelled = np.broadcast_to(got.labels != OUTSIDE, got.z.shape)
    np.testing.assert_allclose(got.z[labelled], got.truth[labelled], rtol=0, atol=1e-3)
    assert np.abs(got.z[~labelled]).max() < 1e-3


# Intensities


WHERE = {"noise": 8, "brightness": 10, "contrast": 12, "gamma": 14}


def intensity_draws(batch=4, **values):
    """Draws under which the named ones happen, each with one number per image; NaN leaves an image out."""
    draws = torch.full((batch, DRAWS), NO)
    for name, numbers in values.items():
        for image, number in enumerate(numbers):
            if not math.isnan(number):
                draws[image, WHERE[name]], draws[image, WHERE[name] + 1] = YES, number
    return draws


def normal(*, batch=4, channels=2, size=(9, 7), seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(batch, channels, *size)).astype(np.float32))


def np_intensity(name, x, number, noise):
    """One variation of one channel, in plain NumPy."""
    low, high = augment._FACTOR
    factor = low + (high - low) * number
    if name == "noise":
        return x + math.sqrt(augment._NOISE_VARIANCE * number) * noise
    if name == "brightness":
        return x * factor
    if name == "contrast":
        return np.clip((x - x.mean()) * factor + x.mean(), x.min(), x.max())
    low, high = augment._GAMMA
    bent = ((x - x.min()) / (x.max() - x.min())) ** (low + (high - low) * number)
    return (bent - bent.mean()) / bent.std() * x.std() + x.mean()


def test_images_stay_as_they_are_when_nothing_is_drawn():
    images = normal()
    found = intensities(images, intensity_draws(), normal(seed=1))
    torch.testing.assert_close(found, images, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", WHERE)
def test_each_variation_is_that_of_numpy_on_each_channel_of_the_images_that_draw_it(name):
    images, noise = normal(), normal(seed=1)
    before = images.clone()
    numbers = [0.0, math.nan, 0.6, 0.999]
    found = intensities(images, intensity_draws(**{name: numbers}), noise)
    assert torch.equal(images, before)
    for b, number in enumerate(numbers):
        for c in range(2):
            x = images[b, c].double().numpy()
            truth = x if math.isnan(number) else np_intensity(name, x, number, noise[b, c].double().numpy())
            np.testing.assert_allclose(found[b, c], truth, rtol=0, atol=2e-5)
    changed = (found - images).abs().amax((1, 2, 3)) > 1e-2
    assert changed.tolist() == [name != "noise", False, True, True]  # of variance 0 at first


@pytest.mark.parametrize("pair", [("noise", "brightness"), ("brightness", "contrast"), ("brightness", "gamma")])
def test_variations_that_are_drawn_together_follow_each_other_in_this_order(pair):
    images, noise = normal(batch=1, channels=1), normal(batch=1, channels=1, seed=1)
    found = intensities(images, intensity_draws(batch=1, **{name: [0.8] for name in pair}), noise)
    x = images[0, 0].double().numpy()
    for name in pair:
        x = np_intensity(name, x, 0.8, noise[0, 0].double().numpy())
    np.testing.assert_allclose(found[0, 0], x, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", WHERE)
def test_each_variation_has_odds_of_its_own(name, monkeypatch):
    for other in WHERE:
        monkeypatch.setattr(augment, f"_P_{other.upper()}", 0.5 if other == name else 0.3)
    images, noise, draws = normal(batch=1, channels=1), normal(batch=1, channels=1, seed=1), torch.full((1, DRAWS), 0.4)
    x = images[0, 0].double().numpy()
    expected = np_intensity(name, x, 0.4, noise[0, 0].double().numpy())
    np.testing.assert_allclose(intensities(images, draws, noise)[0, 0], expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize(("name", "turned", "scaled"), [("ROTATION", True, False), ("SCALE", False, True)])
def test_turns_and_scalings_have_odds_of_their_own(name, turned, scaled, monkeypatch):
    for other in ("ROTATION", "SCALE"):
        monkeypatch.setattr(augment, f"_P_{other}", 0.5 if other == name else 0.3)
    where = placed(torch.full((1, DRAWS), 0.4), size=(8, 8), patch=(8, 8), flip="none")
    assert (where.matrix[0, 0, 1].item() != 0, where.magnification.item() != 1) == (turned, scaled)


def test_all_variations_of_an_empty_image_are_finite():
    images, everything = torch.zeros(2, 1, 6, 6), torch.zeros(2, DRAWS)
    assert intensities(images, everything, torch.zeros_like(images)).abs().max() == 0
    all_drawn = intensity_draws(batch=2, **{name: [0.9, 0.1] for name in WHERE})
    assert torch.isfinite(intensities(images + 7, all_drawn, torch.zeros_like(images))).all()
    assert torch.isfinite(intensities(images, all_drawn, torch.randn(2, 1, 6, 6))).all()


def test_no_number_is_brought_from_the_host_or_read_there():
    class Refuse(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            refused = ("new_tensor", "tensor", "as_tensor", "item", "tolist", "cpu", "__bool__", "__float__", "__int__")
            assert getattr(function, "__name__", "") not in refused
            return function(*args, **(kwargs or {}))

    sample, draws = slices((8, 8)), torch.zeros(2, DRAWS)
    corner, sizes, pixel_mm = torch.zeros(2, 2), torch.full((2, 2), 8.0), torch.ones(2, 2)
    with Refuse():
        where = placement(draws, corner, sizes, pixel_mm, (8, 8), augment=True, flip="both")
        found = warp(sample, where, (8, 8), scale_magnitudes=True)
        intensities(found.images, draws, torch.zeros_like(found.images))
