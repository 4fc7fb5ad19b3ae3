import numpy as np
import pytest
import torch

import rwtool
from rwtool.network.config import MAP_OF_LOSS, TrainConfig
from rwtool.training import objective
from rwtool.training.map_source import MapUse
from rwtool.training.objective import NO_CLASS, Objective
from rwtool.training.slices import Batch

torch.set_num_threads(1)

CPU = torch.device("cpu")
K = 3
SPACING = (1.0, 0.8, 1.5)
WEIGHTS = (1.0, 2.5, 0.5)
IGNORE = 255
EXPONENT = 1.5
MATRIX = ((0.0, 1.0, 2.0), (1.5, -1.0, 1.0), (3.0, 1.0, 0.5))
LOSSES = (
    "rrw", "boundary", "ac", "hd", "skeleton", "matrix", "dice", "focal", "ce", "wce-rrw", "generalized-surface",
    "boundary-dou",
)  # fmt: skip


def labels_of(*, size=(8, 12), ignored=True, seed=0):
    """Labels of two slices: blocks of 2 x 2 pixels of one class, and some pixels without any."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, K, (2, size[0] // 2, size[1] // 2)).repeat(2, 1).repeat(2, 2)
    labels[:, 0, :K] = np.arange(K)
    if ignored:
        labels[rng.random(labels.shape) < 0.15] = IGNORE
    return labels


def map_of(kind, labels):
    """A map of each slice, (B, K, H, W)."""
    options = {"n_classes": K, "ignore": IGNORE}
    weights = dict(enumerate(WEIGHTS))
    make = {
        "ac": lambda part: rwtool.ac_map(part, class_weights=weights, **options),
        "boundary": lambda part: rwtool.boundary_map(part, SPACING, **options),
        "hd": lambda part: rwtool.hd_map(part, SPACING, alpha=EXPONENT, **options),
        "matrix": lambda part: rwtool.matrix_map(part, matrix=MATRIX, ignore=IGNORE),
        "rrw": lambda part: rwtool.rrw_map(part, SPACING, class_weights=weights, **options),
        "skeleton": lambda part: rwtool.skeleton_map(part, SPACING, **options),
    }[kind]
    return torch.from_numpy(np.stack([make(part[np.newaxis])[:, 0] for part in labels]))


def use_of(loss):
    """How the loss takes its map."""
    kind = MAP_OF_LOSS.get(loss)
    others = {"rrw": WEIGHTS, "ac": WEIGHTS, "skeleton": (0.0,) * K}.get(kind, ())
    matrix = MATRIX if kind == "matrix" else None
    return None if kind is None else MapUse(kind, K, others, EXPONENT if kind == "hd" else 1.0, matrix=matrix)


def batch_of(loss, labels):
    """What the data set gives: labels, and magnitudes; own distances in those of hd too, which must not matter."""
    kind = MAP_OF_LOSS.get(loss)
    magnitudes = None
    if kind in ("rrw", "skeleton"):
        own = np.take_along_axis(map_of(kind, labels).numpy(), np.where(labels == IGNORE, 0, labels)[:, None], axis=1)
        magnitudes = torch.from_numpy(np.abs(own))
    elif kind in ("boundary", "hd"):
        magnitudes = map_of("boundary", labels).abs()
    if magnitudes is not None:
        magnitudes = torch.where(torch.from_numpy(labels == IGNORE)[:, None], 0, magnitudes)
    indices = torch.from_numpy(np.where(labels == IGNORE, NO_CLASS, labels))
    return Batch(torch.zeros(2, 1, *labels.shape[1:]), indices, magnitudes)


def logits_of(size, *, seed=0, levels=1):
    generator = torch.Generator().manual_seed(seed)
    return [2 * torch.randn(2, K, size[0] >> n, size[1] >> n, generator=generator) for n in range(levels)]


def value(loss, logits, batch, *, epoch=0, **options):
    return Objective(TrainConfig(loss, **options), use_of(loss), CPU)(logits, batch, epoch)


def by_hand(loss, x, labels, stride=1):
    """The loss of one level on dense maps; strided maps, not maps of strided labels, with distances in their pixels."""
    y = torch.from_numpy(np.where(labels == IGNORE, -1, labels))[:, ::stride, ::stride]
    if loss in MAP_OF_LOSS:
        z = map_of(MAP_OF_LOSS[loss], labels)[..., ::stride, ::stride]
    if loss in ("rrw", "ac", "skeleton", "matrix"):
        return rwtool.region_wise_loss(x, z, y, ignore=-1)
    if loss == "wce-rrw":
        return rwtool.weighted_cross_entropy_loss(x, z, y, ignore=-1)
    if loss == "boundary":
        return rwtool.region_wise_loss(x, z / stride, y, ignore=-1)
    if loss == "hd":
        return rwtool.hausdorff_loss(x, z / stride**EXPONENT, y, ignore=-1)
    if loss == "generalized-surface":
        return rwtool.generalized_surface_loss(x, z, y, ignore=-1)
    common = {
        "dice": rwtool.dice_loss, "focal": rwtool.focal_loss, "ce": rwtool.cross_entropy_loss,
        "boundary-dou": rwtool.boundary_dou_loss,
    }[loss]  # fmt: skip
    return common(x, y, ignore=-1)


# One level


@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_is_that_of_the_dense_map_in_value_and_gradient(loss, ignored):
    labels = labels_of(ignored=ignored)
    assert (labels == IGNORE).any() == ignored
    x = logits_of(labels.shape[1:])[0].requires_grad_()
    found, expected = value(loss, [x], batch_of(loss, labels)), by_hand(loss, x, labels)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    gradients = [torch.autograd.grad(part, x)[0] for part in (found, expected)]
    assert gradients[1].abs().max() > 1e-4
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-8)


def test_the_losses_are_all_different():
    labels = labels_of()
    x = logits_of(labels.shape[1:])
    values = [value(loss, x, batch_of(loss, labels)).item() for loss in LOSSES]
    assert len({round(v, 4) for v in values}) == len(LOSSES)


@pytest.mark.parametrize("loss", LOSSES)
def test_what_stands_at_pixels_without_a_class_changes_nothing_and_gets_no_gradient(loss):
    labels = labels_of()
    batch = batch_of(loss, labels)
    (x,) = logits_of(labels.shape[1:])
    none = (batch.labels == NO_CLASS).unsqueeze(1)
    before = value(loss, [x], batch)
    moved = torch.where(none, x.flip(1) + 9 * torch.arange(K).view(1, -1, 1, 1), x).requires_grad_()
    magnitudes = None if batch.magnitudes is None else torch.where(none, 7.0, batch.magnitudes)
    after = value(loss, [moved], Batch(batch.images, batch.labels, magnitudes))
    assert after.item() == pytest.approx(before.item(), rel=1e-6)
    (gradient,) = torch.autograd.grad(after, moved)
    gradient = gradient.abs().amax(1, keepdim=True)
    assert gradient[none].max() == 0
    assert gradient[~none].min() > 0 or (loss == "skeleton" and gradient.max() > 0)  # which is 0 beside the skeleton


@pytest.mark.parametrize("loss", ["rrw", "ac", "skeleton", "wce-rrw"])
def test_components_bring_an_other_value_for_each_pixel(loss):
    labels = labels_of()
    make = {"ac": rwtool.ac_map, "skeleton": rwtool.skeleton_map}.get(loss, rwtool.rrw_map)
    options = {"n_classes": K, "ignore": IGNORE, "instances": True}
    if loss != "skeleton":
        options["class_weights"] = dict(enumerate(WEIGHTS))
    if loss != "ac":
        options["spacing_mm"] = SPACING
    dense = torch.from_numpy(np.stack([make(part[np.newaxis], **options)[:, 0] for part in labels]))
    packed = np.stack([make(part[np.newaxis], layout="packed", **options)[:, 0] for part in labels])
    magnitudes = torch.from_numpy(np.abs(np.nan_to_num(packed)))
    batch = Batch(torch.zeros(2, 1, 8, 12), torch.from_numpy(np.where(labels == IGNORE, NO_CLASS, labels)), magnitudes)
    (x,) = logits_of((8, 12))
    use = MapUse(MAP_OF_LOSS[loss], K, WEIGHTS, instances=True)
    found = Objective(TrainConfig(loss), use, CPU)([x], batch, 0)
    made = rwtool.weighted_cross_entropy_loss if loss == "wce-rrw" else rwtool.region_wise_loss
    assert found.item() == pytest.approx(made(x, dense, batch.labels, ignore=NO_CLASS).item(), rel=1e-5)


def test_ac_lambda_adds_the_length_to_lambda_times_the_region():
    labels = labels_of()
    batch, (x,) = batch_of("ac", labels), logits_of(labels.shape[1:])
    region = by_hand("ac", x, labels).item()
    length = rwtool.contour_length(x, batch.labels, ignore=NO_CLASS).item()
    assert length > 0.1
    for lam in (0.0, 0.3, 5.0):
        assert value("ac", [x], batch, ac_lambda=lam).item() == pytest.approx(length + lam * region, rel=1e-6)
    assert value("ac", [x], batch).item() == pytest.approx(region, rel=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_half_logits_give_a_single_precision_loss(loss):
    labels = labels_of()
    x = logits_of(labels.shape[1:])[0].bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = value(loss, [x], batch_of(loss, labels))
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(by_hand(loss, x.float(), labels).item(), rel=1e-5)


# Mixtures


@pytest.mark.parametrize("common", ["dice", "ce"])
@pytest.mark.parametrize("loss", MAP_OF_LOSS)
def test_an_equal_mixture_is_the_sum(loss, common):
    labels = labels_of()
    (x,) = logits_of(labels.shape[1:])
    expected = (by_hand(loss, x, labels) + by_hand(common, x, labels)).item()
    for epoch in (0, 7):
        found = value(loss, [x], batch_of(loss, labels), mixed_with=common, epoch=epoch)
        assert found.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("common", ["dice", "ce"])
@pytest.mark.parametrize("loss", MAP_OF_LOSS)
@pytest.mark.parametrize(
    ("schedule", "weights"),
    [("paper", {0: 1, 1: 0.7525, 2: 0.505, 4: 0.01}), ("authors", {0: 1, 1: 0.99, 2: 0.98, 4: 0.96})],
)
def test_a_gradual_mixture_goes_from_the_common_loss_over_to_the_map_loss(loss, common, schedule, weights):
    labels = labels_of()
    (x,) = logits_of(labels.shape[1:])
    a, b = by_hand(common, x, labels).item(), by_hand(loss, x, labels).item()
    for epoch, weight in weights.items():
        found = value(
            loss,
            [x],
            batch_of(loss, labels),
            epoch=epoch,
            epochs=5,
            mixed_with=common,
            mix="gradual",
            schedule=schedule,
        )
        assert found.item() == pytest.approx(weight * a + (1 - weight) * b, rel=1e-5)


def test_only_gradual_mixtures_have_a_weight():
    def weight(epoch, **options):
        return Objective(TrainConfig("boundary", epochs=200, **options), use_of("boundary"), CPU).common_weight(epoch)

    assert weight(3) is None
    assert weight(3, mixed_with="ce") is None
    assert weight(199, mixed_with="ce", mix="gradual") == pytest.approx(0.01)
    assert weight(100, mixed_with="ce", mix="gradual", schedule="authors") == 0.01
    assert weight(100, mixed_with="ce", mix="gradual") == pytest.approx(1 - 0.99 * 100 / 199)


# Deep supervision


FINE = labels_of(size=(16, 24), seed=3)


@pytest.mark.parametrize("loss", LOSSES)
def test_coarse_levels_see_every_2nd_and_4th_pixel_weigh_half_and_a_quarter_and_divide_distances_alone(loss):
    logits = logits_of(FINE.shape[1:], levels=3)
    found = value(loss, logits, batch_of(loss, FINE))
    parts = [by_hand(loss, x, FINE, stride=1 << level).item() for level, x in enumerate(logits)]
    assert found.item() == pytest.approx((4 * parts[0] + 2 * parts[1] + parts[2]) / 7, rel=1e-5)


@pytest.mark.parametrize(("levels", "shares"), [(1, [1]), (2, [2 / 3, 1 / 3]), (4, [8 / 15, 4 / 15, 2 / 15, 1 / 15])])
def test_the_weights_of_the_levels_sum_to_1(levels, shares, monkeypatch):
    seen = []

    def loss(logits, labels, **options):
        seen.append(tuple(labels.shape[1:]))
        return torch.tensor(10.0 ** len(seen))

    monkeypatch.setitem(objective._WITHOUT_MAP, "ce", loss)
    found = value("ce", logits_of((16, 24), levels=levels), batch_of("ce", FINE))
    assert seen == [(16 >> n, 24 >> n) for n in range(levels)]
    assert found.item() == pytest.approx(sum(share * 10.0 ** (n + 1) for n, share in enumerate(shares)))


def test_mixtures_are_mixed_at_every_level():
    logits = logits_of(FINE.shape[1:], levels=3)
    batch = batch_of("boundary", FINE)
    a, b = value("dice", logits, batch).item(), value("boundary", logits, batch).item()
    found = value("boundary", logits, batch, mixed_with="dice", mix="gradual", epochs=3, epoch=1)
    assert found.item() == pytest.approx(0.505 * a + 0.495 * b, rel=1e-5)


def test_every_level_gets_a_gradient():
    logits = [x.requires_grad_() for x in logits_of(FINE.shape[1:], levels=3)]
    value("rrw", logits, batch_of("rrw", FINE)).backward()
    assert all(x.grad.abs().max() > 0 for x in logits)
