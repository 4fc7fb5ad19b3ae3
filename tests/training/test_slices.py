from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from rwtool.network.config import TrainConfig
from rwtool.training import augment
from rwtool.training import slices as dataset
from rwtool.training.cache import store
from rwtool.training.cohort import Case
from rwtool.training.map_source import MapUse
from rwtool.training.objective import Objective
from rwtool.training.slices import SliceSet, choose_batch_size, choose_patch, round_patch

torch.set_num_threads(1)

CPU = torch.device("cpu")
SIZES = [(2, 6, 8), (3, 9, 5), (1, 4, 4)]


def case(name, codes, *, channels=1, magnitudes=1, pixel_mm=(1.0, 1.0), first=1, half=True, seed=0):
    """A case of these codes whose slice i holds intensities from ``first + i``, and as many magnitudes as wanted."""
    rng = np.random.default_rng(seed)
    codes = np.asarray(codes, dtype=np.uint8)
    image = rng.uniform(0, 0.4, (channels, *codes.shape)) + np.arange(first, first + len(codes))[:, None, None]
    dtype = np.float16 if half else np.float32
    own = rng.uniform(0.1, 1, (magnitudes, *codes.shape)).astype(dtype) if magnitudes else None
    return Case(name, image.astype(dtype), codes, own, pixel_mm, None, ())


def small_cases(**options):
    """Six slices of three sizes, all with a class everywhere."""
    rng = np.random.default_rng(1)
    cases, first = [], 1
    for index, shape in enumerate(SIZES):
        cases.append(case(f"case_{index}", rng.integers(1, 4, shape), first=first, seed=index, **options))
        first += shape[0]
    return cases


def blob_cases(n=4, size=(40, 36), *, foreground=True, **options):
    """Slices with one small blob of foreground each, somewhere, and two without in each case."""
    cases = []
    for index in range(n):
        rng = np.random.default_rng(index)
        codes = np.ones((4, *size), dtype=np.uint8)
        for plane in codes[:2] if foreground else ():
            y, x = (rng.integers(0, side - 3) for side in size)
            plane[y : y + 3, x : x + 3] = 2 + index % 2
        cases.append(case(f"case_{index}", codes, first=1 + 4 * index, seed=index, **options))
    return cases


def slice_set(cases, patch, device=CPU, **options):
    return SliceSet(cases, device, patch, **options)


def epoch(data, batch_size, *, seed=0, number=0):
    return list(data.batches(data.plan_epoch(batch_size, seed, number)))


def joined(batches):
    return [torch.cat([getattr(batch, name) for batch in batches]) for name in ("images", "labels", "magnitudes")]


def numbers(batch):
    """Which slice is which, from its intensities without augmentation."""
    return [int(image.max()) for image in batch.images]


# Slices


def test_slices_of_every_size_come_whole_in_the_middle_of_the_patch_with_nothing_around():
    cases = small_cases(channels=2, magnitudes=3)
    data = slice_set(cases, (12, 8), augment=False)
    found = {number: row for batch in epoch(data, 6) for row, number in enumerate(numbers(batch))}
    (batch,) = epoch(data, 6)
    assert sorted(found) == [1, 2, 3, 4, 5, 6]
    assert (batch.images.dtype, batch.labels.dtype, batch.magnitudes.dtype) == (
        torch.float32, torch.int64, torch.float32,
    )  # fmt: skip
    number = 0
    for part in cases:
        for z in range(part.codes.shape[0]):
            number += 1
            row = found[number]
            height, width = part.codes.shape[1:]
            top, left = -((height - 12) // 2), -((width - 8) // 2)
            margins = [(top, 12 - height - top), (left, 8 - width - left)]
            expected = np.pad(part.codes[z].astype(int), margins) - 1
            np.testing.assert_array_equal(batch.labels[row], expected)
            assert (expected == -1).sum() == 96 - height * width
            for got, whole in ((batch.images, part.image), (batch.magnitudes, part.magnitudes)):
                np.testing.assert_allclose(got[row], np.pad(whole[:, z], [(0, 0), *margins]), rtol=0, atol=1e-4)


def test_names_and_bytes_are_those_of_all_slices():
    data = slice_set(small_cases(channels=2, magnitudes=3), (12, 8))
    assert len(data) == 6
    assert data.names == ["case_0"] * 2 + ["case_1"] * 3 + ["case_2"]
    assert data.images.shape == (6, 2, 9, 8)
    assert (data.images.dtype, data.codes.dtype, data.magnitudes.dtype) == (torch.float16, torch.uint8, torch.float16)
    assert data.nbytes == 6 * 9 * 8 * (2 * 2 + 1 + 3 * 2)
    assert data.on_device


def test_without_a_map_loss_there_are_no_magnitudes():
    data = slice_set(small_cases(magnitudes=0), (12, 8))
    assert data.magnitudes is None
    assert epoch(data, 3)[0].magnitudes is None
    assert data.nbytes == 6 * 9 * 8 * (2 + 1)


def test_one_case_that_half_precision_cannot_hold_makes_all_of_them_single():
    cases = small_cases()
    cases[1] = case("case_1", cases[1].codes, first=3, half=False, seed=1)
    cases[1].image[0, 0, 0, 0] = 1e6
    data = slice_set(cases, (12, 8), augment=False)
    assert data.images.dtype == torch.float32
    assert max(batch.images.max().item() for batch in epoch(data, 6)) == pytest.approx(1e6)


# Epochs


def test_every_slice_comes_once_an_epoch():
    data = slice_set(small_cases(), (12, 8), augment=False)
    for number in range(5):
        for size, steps in ((6, 1), (3, 2), (2, 3), (1, 6)):
            batches = epoch(data, size, number=number)
            assert [len(batch.images) for batch in batches] == [size] * steps
            assert sorted(n for batch in batches for n in numbers(batch)) == [1, 2, 3, 4, 5, 6]


def test_what_is_left_of_an_epoch_is_another_slice_each_time():
    data = slice_set(small_cases(), (12, 8), augment=False)
    left = set()
    for number in range(40):
        batches = epoch(data, 4, number=number)
        seen = [n for batch in batches for n in numbers(batch)]
        assert len(batches) == 1
        assert len(set(seen)) == 4
        left |= {1, 2, 3, 4, 5, 6} - set(seen)
    assert left == {1, 2, 3, 4, 5, 6}


def test_a_batch_larger_than_the_set_holds_each_slice_equally_often():
    data = slice_set(small_cases(), (12, 8), augment=False)
    (batch,) = epoch(data, 15)
    counts = np.bincount(numbers(batch), minlength=7)[1:]
    assert sorted(counts) == [2, 2, 2, 3, 3, 3]


@pytest.mark.parametrize(("steps", "counts"), [(1, {0, 1}), (3, {2}), (4, {2, 3})])
def test_so_many_steps_are_part_of_a_pass_or_several_passes(steps, counts):
    data = slice_set(small_cases(), (12, 8), augment=False)
    plan = data.plan_epoch(4, 0, 0, steps)
    assert plan.rows.shape == (steps, 4)
    assert set(np.bincount(plan.rows.ravel(), minlength=6).tolist()) == counts
    assert len(list(data.batches(plan))) == steps


def test_the_steps_of_one_pass_are_what_is_drawn_without_their_number():
    data = slice_set(small_cases(), (12, 8))
    plan, same = data.plan_epoch(2, 3, 7), data.plan_epoch(2, 3, 7, 3)
    assert torch.equal(plan.rows, same.rows)
    assert torch.equal(plan.draws, same.draws)


def test_the_same_seed_and_epoch_draw_the_same_and_others_something_else():
    data = slice_set(small_cases(), (12, 8))
    torch.manual_seed(5)
    first = joined(epoch(data, 2, seed=3, number=7))
    epoch(data, 2, seed=3, number=8)
    torch.manual_seed(6)
    np.random.seed(0)  # noqa: NPY002  # a global state that must not matter
    again = joined(epoch(slice_set(small_cases(), (12, 8)), 2, seed=3, number=7))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    plan = data.plan_epoch(6, 3, 7)
    for seed, number in ((3, 8), (4, 7), (7, 3)):
        others = joined(epoch(data, 2, seed=seed, number=number))
        assert not any(torch.equal(a, b) for a, b in zip(first, others, strict=True))
        other = data.plan_epoch(6, seed, number)
        assert not torch.equal(plan.rows, other.rows)
        assert not torch.isclose(plan.draws, other.draws).any()
        assert plan.noise.initial_seed() != other.noise.initial_seed()


def test_the_noise_differs_from_batch_to_batch_and_image_to_image(monkeypatch):
    for name in ("BRIGHTNESS", "CONTRAST", "GAMMA", "ROTATION", "SCALE"):
        monkeypatch.setattr(augment, f"_P_{name}", 0.0)
    monkeypatch.setattr(augment, "_P_NOISE", 1.0)
    monkeypatch.setattr(augment, "_TRANSLATION", 0.0)
    flat = case("flat", np.ones((4, 8, 8)))
    flat.image[:] = 0
    data = slice_set([flat], (8, 8), flip="none")
    images = torch.cat([batch.images for batch in epoch(data, 2)]).flatten(1)
    correlation = torch.corrcoef(images)
    assert (correlation - torch.eye(4)).abs().max() < 0.6
    assert images.std(dim=1).max() > 0.05


def test_without_augmentation_the_epoch_changes_the_order_alone():
    data = slice_set(small_cases(), (12, 8), augment=False)
    by_number = []
    for number in (0, 1):
        (batch,) = epoch(data, 6, number=number)
        order = np.argsort(numbers(batch))
        by_number.append([part[order] for part in (batch.images, batch.labels, batch.magnitudes)])
    assert all(torch.equal(a, b) for a, b in zip(*by_number, strict=True))


# Augmentation


def test_intensities_touch_images_alone(monkeypatch):
    for name in ("NOISE", "BRIGHTNESS", "CONTRAST", "GAMMA"):
        monkeypatch.setattr(augment, f"_P_{name}", 1.0)
    data = slice_set(small_cases(channels=2, magnitudes=2), (12, 8), scale_magnitudes=True)
    images, labels, magnitudes = joined(epoch(data, 2))
    monkeypatch.setattr(dataset, "intensities", lambda images, draws, noise: images)
    plain, *others = joined(epoch(data, 2))
    assert torch.equal(labels, others[0])
    assert torch.equal(magnitudes, others[1])
    assert (images - plain).abs().amax((2, 3)).min() > 1e-3


@pytest.mark.parametrize("scale_magnitudes", [True, False])
def test_only_magnitudes_that_are_distances_grow_with_the_picture(scale_magnitudes, monkeypatch):
    monkeypatch.setattr(augment, "_P_SCALE", 1.0)
    monkeypatch.setattr(augment, "_P_ROTATION", 0.0)
    monkeypatch.setattr(augment, "_TRANSLATION", 0.0)
    flat = case("flat", np.ones((64, 9, 9)))
    flat.magnitudes[:] = 2
    data = slice_set([flat], (9, 9), scale_magnitudes=scale_magnitudes)
    (batch,) = epoch(data, 64)
    factors = batch.magnitudes[:, 0, 4, 4] / 2
    if scale_magnitudes:
        assert np.exp(-augment._SCALE) <= factors.min() * (1 + 1e-5)
        assert factors.min() < 0.97
        assert 1.03 < factors.max() <= np.exp(augment._SCALE) * (1 + 1e-5)
    else:
        np.testing.assert_allclose(factors, 1, rtol=1e-6)


def test_each_slice_is_varied_by_its_own_draws_its_size_and_that_of_its_pixels(monkeypatch):
    placements, draws_of_intensities = [], []

    def place(draws, corner, sizes, pixel_mm, patch, **options):
        placements.append((draws, sizes, pixel_mm))
        return augment.placement(draws, corner, sizes, pixel_mm, patch, **options)

    def vary(images, draws, noise):
        draws_of_intensities.append(draws)
        return images

    monkeypatch.setattr(dataset, "placement", place)
    monkeypatch.setattr(dataset, "intensities", vary)
    pixels = [(0.5, 1.5), (2.0, 1.0), (0.75, 0.75)]
    data = slice_set([case("a", np.ones(n), pixel_mm=mm) for n, mm in zip(SIZES, pixels, strict=True)], (12, 8))
    plan = data.plan_epoch(3, 0, 0)
    assert len(list(data.batches(plan))) == 2
    draws, sizes, pixel_mm = (torch.stack(part) for part in zip(*placements, strict=True))
    assert torch.equal(draws, plan.draws)
    assert torch.equal(torch.stack(draws_of_intensities), plan.draws)
    assert plan.draws.unique().numel() > 0.99 * plan.draws.numel()
    of_slice = torch.tensor([0, 0, 1, 1, 1, 2])[plan.rows]
    assert torch.equal(sizes, torch.tensor([n[1:] for n in SIZES], dtype=torch.float32)[of_slice])
    assert torch.equal(pixel_mm, torch.tensor(pixels)[of_slice])


# Crops


def test_a_third_of_each_batch_of_crops_holds_foreground_and_corners_stay_inside():
    cases = blob_cases()
    cases.append(case("low", np.full((2, 10, 50), 1), first=17))
    data = slice_set(cases, (16, 12), augment=False)
    room = {**dict.fromkeys(range(1, 17), (24, 24)), 17: (-3, 38), 18: (-3, 38)}
    corners = []
    for number in range(12):
        plan = data.plan_epoch(6, 0, number)
        assert len(plan) == 3
        for step, batch in enumerate(data.batches(plan)):
            assert (batch.labels[-2:] > 0).flatten(1).any(dim=1).all()
            for row, slice_number in enumerate(plan.rows[step] + 1):
                corner = plan.corners[step, row].tolist()
                for at, most in zip(corner, room[int(slice_number)], strict=True):
                    assert at == -3 if most < 0 else 0 <= at <= most
                    assert at == int(at)
                if row < 4 and slice_number < 17:
                    corners.append(corner)
                inside = batch.labels[row] >= 0
                assert inside.sum() == (120 if slice_number > 16 else 192)
    assert len(set(map(tuple, corners))) > 100
    assert np.min(corners, axis=0).tolist() == [0, 0]
    assert np.max(corners, axis=0).tolist() == [24, 24]


def test_the_other_crops_are_of_different_slices_and_anywhere():
    data = slice_set(blob_cases(), (16, 12), augment=False)
    holding = []
    for number in range(20):
        plan = data.plan_epoch(4, 1, number)
        free = plan.rows[:, :-1].flatten().tolist()
        assert len(set(free)) == len(free) == 12
        for batch in data.batches(plan):
            holding += (batch.labels[:-1] > 0).flatten(1).any(dim=1).tolist()
    assert 0.02 < np.mean(holding) < 0.4


def test_foreground_crops_take_all_slices_that_have_some_and_see_it_at_different_places():
    data = slice_set(blob_cases(), (16, 12), augment=False)
    rows, places = [], []
    for number in range(30):
        plan = data.plan_epoch(6, 2, number)
        rows += plan.rows[:, -2:].flatten().tolist()
        for batch in data.batches(plan):
            places += [tuple(np.argwhere(labels.numpy() > 0)[0]) for labels in batch.labels[-2:]]
    assert set(rows) == {0, 1, 4, 5, 8, 9, 12, 13}
    assert len(set(places)) > 40


def test_foreground_crops_lie_all_over_a_large_class():
    data = slice_set([case("a", np.full((1, 60, 48), 2))], (8, 8), augment=False)
    corners = torch.cat([data.plan_epoch(60, 0, number).corners[0, -20:] for number in range(10)])
    counts = np.histogram2d(*corners.T.numpy(), bins=2, range=[(0, 52), (0, 40)])[0]
    assert counts.min() > 25


def test_a_rare_class_is_looked_for_as_often_as_a_large_one():
    codes = np.ones((1, 64, 64), dtype=np.uint8)
    codes[:, :40] = 2
    codes[:, 60, 60] = 3
    data = slice_set([case("a", codes)], (8, 8), augment=False)
    labels = torch.cat([batch.labels[-20:] for number in range(10) for batch in epoch(data, 60, number=number)])
    holds_one, holds_two = ((labels == k).flatten(1).any(dim=1) for k in (1, 2))
    assert (holds_one | holds_two).all()
    assert holds_two.float().mean() == pytest.approx(0.5, abs=0.1)


def test_crops_where_no_slice_has_foreground_are_anywhere():
    data = slice_set(blob_cases(foreground=False), (16, 12), augment=False)
    plan = data.plan_epoch(6, 0, 0)
    assert plan.rows.flatten().unique().shape == (12,)
    assert plan.corners.flatten(0, 1).unique(dim=0).shape == (12, 2)
    assert all((batch.labels == 0).all() for batch in data.batches(plan))


def test_a_slice_that_is_larger_along_one_axis_alone_is_cropped_along_it():
    codes = np.ones((3, 6, 30), dtype=np.uint8)
    codes[0, 2, 29] = 2
    data = slice_set([case("a", codes)], (8, 8), augment=False)
    for number in range(5):
        (batch,) = epoch(data, 3, number=number)
        assert (batch.labels[:, [0, 7]] == -1).all()
        assert (batch.labels[:, 1:7] >= 0).all()
        assert (batch.labels[2] == 1).sum() == 1


def test_batches_smaller_than_three_draw_no_foreground():
    data = slice_set(blob_cases(), (16, 12), augment=False)
    rows = data.plan_epoch(2, 0, 0).rows
    assert sorted(rows.flatten().tolist()) == list(range(16))


# Several processes


@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("crops", [False, True])
def test_the_shares_of_all_processes_make_up_the_batch_of_one_to_the_bit(processes, crops, monkeypatch):
    for name in ("NOISE", "BRIGHTNESS", "CONTRAST", "GAMMA", "ROTATION", "SCALE"):
        monkeypatch.setattr(augment, f"_P_{name}", 0.7)
    cases = blob_cases(channels=2, magnitudes=3) if crops else small_cases(channels=2, magnitudes=3)
    patch, size = ((16, 12), 12) if crops else ((12, 8), 6)
    options = {"scale_magnitudes": True, "flip": "both"}
    whole = epoch(slice_set(cases, patch, **options), size, seed=4)
    shares = [epoch(slice_set(cases, patch, share=(r, processes), **options), size, seed=4) for r in range(processes)]
    for step, batch in enumerate(whole):
        parts = [share[step] for share in shares]
        assert [len(part.images) for part in parts] == [size // processes] * processes
        together = joined(parts)
        assert torch.equal(together[0], batch.images)
        assert torch.equal(together[1], batch.labels)
        assert torch.equal(together[2], batch.magnitudes)
    assert len({len(share) for share in shares} | {len(whole)}) == 1


# The device


class NothingFromTheHost(TorchFunctionMode):
    REFUSED = (
        "new_tensor",
        "tensor",
        "as_tensor",
        "item",
        "tolist",
        "cpu",
        "nonzero",
        "__bool__",
        "__float__",
        "__int__",
    )

    def __torch_function__(self, function, types, args=(), kwargs=None):
        assert getattr(function, "__name__", "") not in self.REFUSED
        return function(*args, **(kwargs or {}))


def boundary_objective(device):
    return Objective(TrainConfig("boundary", mixed_with="dice"), MapUse("boundary", 3), device)


def logits_of(batch):
    """Some logits of each level for this batch, from its images alone."""
    fine = torch.cat((batch.images, -batch.images, batch.images.flip(-1)), dim=1)
    return [fine, fine[..., ::2, ::2]]


def test_no_number_is_brought_from_the_host_or_read_there_within_an_epoch():
    data = slice_set(blob_cases(magnitudes=3), (16, 12), scale_magnitudes=True)
    objective, plan = boundary_objective(CPU), data.plan_epoch(6, 0, 0)
    total = torch.zeros(())
    with NothingFromTheHost():
        for batch in data.batches(plan):
            total += objective(logits_of(batch), batch, 0)
    assert torch.isfinite(total)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_an_epoch_on_a_cuda_device_is_that_of_the_cpu_and_never_waits_for_it(monkeypatch):
    monkeypatch.setattr(augment, "_P_NOISE", 0.0)  # the one thing that is drawn on the device
    device = torch.device("cuda")
    data, there = (slice_set(blob_cases(magnitudes=3), (16, 12), d, scale_magnitudes=True) for d in (CPU, device))
    assert there.on_device
    objective = boundary_objective(device)
    batches = there.batches(there.plan_epoch(4, 0, 0))
    found = [next(batches)]  # the order of the epoch has come with it
    losses = [objective(logits_of(found[0]), found[0], 0)]
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in batches:
            found.append(batch)
            losses.append(objective(logits_of(batch), batch, 0))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    truth = epoch(data, 4)
    assert len(found) == len(truth) == 4
    for batch, loss, true in zip(found, losses, truth, strict=True):
        assert {part.device.type for part in (batch.images, batch.labels, batch.magnitudes, loss)} == {"cuda"}
        assert (batch.labels.cpu() != true.labels).float().mean() < 0.005  # ties between two nearest pixels
        torch.testing.assert_close(batch.images.cpu(), true.images, rtol=0, atol=1e-3)
        torch.testing.assert_close(batch.magnitudes.cpu(), true.magnitudes, rtol=0, atol=1e-3)
        expected = boundary_objective(CPU)(logits_of(true), true, 0).item()
        assert loss.item() == pytest.approx(expected, rel=0.02)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_slices_that_stay_on_the_host_give_the_batches_of_those_on_the_device(monkeypatch):
    device = torch.device("cuda")
    resident = slice_set(blob_cases(magnitudes=3), (16, 12), device, scale_magnitudes=True)
    monkeypatch.setattr(dataset, "_FREE_SHARE", 0.0)
    travelling = slice_set(blob_cases(magnitudes=3), (16, 12), device, scale_magnitudes=True)
    assert (resident.on_device, travelling.on_device) == (True, False)
    assert travelling.images.device == CPU
    for a, b in zip(epoch(resident, 6), epoch(travelling, 6), strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.labels, b.labels)
        assert torch.equal(a.magnitudes, b.magnitudes)


# Sizes


@pytest.mark.parametrize("stored", [(), (1,), (0, 1, 2, 3)])
@pytest.mark.parametrize("cases", ["small", "crops", "channels", "mixed", "no map"])
def test_slices_that_stay_apart_or_in_a_file_give_the_same_batches(tmp_path, cases, stored):
    made = {
        "small": small_cases,
        "crops": blob_cases,
        "channels": lambda: small_cases(channels=3, magnitudes=4),
        "mixed": lambda: [*small_cases(), case("x", np.full((2, 5, 5), 2), half=False, first=1e6)],
        "no map": lambda: small_cases(magnitudes=0),
    }[cases]()
    apart = [in_file(tmp_path, one) if index in stored else one for index, one in enumerate(made)]
    patch = (16, 16)
    share = (1, 2) if cases == "channels" else (0, 1)
    expected, found = slice_set(made, patch, share=share), slice_set(apart, patch, share=share, stacked=False)
    assert (len(found), found.names, found.stacked) == (len(expected), expected.names, False)
    for a, b in zip(epoch(expected, 4), epoch(found, 4), strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.labels, b.labels)
        assert (a.magnitudes is None) == (b.magnitudes is None)
        assert a.magnitudes is None or torch.equal(a.magnitudes, b.magnitudes)


def in_file(folder, one):
    """A case whose arrays are in a cache file."""
    parts = (one.image, one.codes, one.magnitudes)
    image, codes, magnitudes = (None if part is None else store(folder, part) for part in parts)
    return replace(one, image=image, codes=codes, magnitudes=magnitudes)


def test_slices_apart_are_read_while_the_step_before_is_under_way(monkeypatch):
    data = slice_set(small_cases(), (8, 8), stacked=False)
    batches = data.batches(data.plan_epoch(2, 0, 0))
    read, begun = data._apart.read, []
    monkeypatch.setattr(data._apart, "read", lambda rows, **how: (begun.append(len(begun)), read(rows, **how))[1])
    next(batches)
    batches.close()  # waits for what was begun
    assert begun == [0, 1]


def test_a_slice_that_cannot_be_read_stops_the_epoch(monkeypatch):
    data = slice_set(small_cases(), (8, 8), stacked=False)

    def fail(*_, **__):
        raise OSError("gone")

    monkeypatch.setattr(data._apart, "read", fail)
    with pytest.raises(OSError, match="gone"):
        epoch(data, 2)


def test_the_patch_is_the_largest_slice_up_to_512():
    assert choose_patch(small_cases()) == (9, 8)
    assert choose_patch([case("a", np.ones((1, 700, 30)))]) == (512, 30)


@pytest.mark.parametrize(
    ("patch", "stride", "rounded"),
    [((50, 36), 8, (56, 40)), ((56, 40), 8, (56, 40)), ((1, 33), 32, (32, 64)), ((7, 9), 1, (7, 9))],
)
def test_a_patch_is_rounded_up_to_the_stride(patch, stride, rounded):
    assert round_patch(patch, stride) == rounded


@pytest.mark.parametrize(
    ("patch", "slices", "processes", "size"),
    [
        ((56, 40), 5000, 1, 32),
        ((311, 311), 5000, 1, 32),
        ((312, 312), 5000, 1, 31),
        ((512, 512), 5000, 1, 11),
        ((512, 512), 5000, 2, 10),
        ((56, 40), 7, 1, 7),
        ((56, 40), 7, 2, 6),
        ((56, 40), 1, 1, 2),
        ((56, 40), 5000, 3, 30),
        ((4096, 4096), 5000, 1, 2),
        ((4096, 4096), 5000, 4, 4),
    ],
)
def test_batches_have_32_slices_unless_they_are_large_or_few(patch, slices, processes, size):
    assert choose_batch_size(patch, slices, processes) == size
