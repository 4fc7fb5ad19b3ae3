import pickle
import re

import numpy as np
import pytest
import torch

import rwtool

pytestmark = [pytest.mark.torchio, pytest.mark.filterwarnings("ignore")]
tio = pytest.importorskip("torchio", reason="TorchIO is not installed")

from rwtool.integrations.torchio import RegionWiseMap  # noqa: E402

SHAPE = (12, 10, 8)
SPACING = (0.8, 1.0, 2.5)


def subject(labels=None):
    rng = np.random.default_rng(0)
    if labels is None:
        grid = np.indices(SHAPE) - np.reshape(SHAPE, (3, 1, 1, 1)) / 2
        labels = 2 - np.searchsorted([2, 4], np.sqrt((grid**2).sum(axis=0)))
    affine = np.diag([*SPACING, 1.0])
    image = torch.from_numpy(rng.random((1, *SHAPE))).float()
    return tio.Subject(
        image=tio.ScalarImage(tensor=image, affine=affine),
        label=tio.LabelMap(tensor=torch.as_tensor(labels, dtype=torch.int16)[None], affine=affine),
    )


@pytest.mark.parametrize("kind", ["rrw", "boundary", "hd", "ac", "constant"])
def test_the_map_is_that_of_the_label_with_its_affine(kind):
    found = RegionWiseMap(n_classes=3, parameters=kind)(subject())
    labels = found["label"].numpy()[0]
    spacing = () if kind in ("ac", "constant") else (SPACING,)
    expected = getattr(rwtool, f"{kind}_map")(labels, *spacing, n_classes=3)
    np.testing.assert_array_equal(found["map"].numpy(), expected)
    np.testing.assert_array_equal(found["map"].affine, found["label"].affine)


def test_after_random_transforms_it_is_the_map_of_the_augmented_label():
    torch.manual_seed(0)
    steps = tio.Compose(
        [
            tio.RandomFlip(axes=(0,), flip_probability=1),
            tio.RandomAffine(degrees=20),
            tio.Resample(1.5),
            tio.RandomNoise(),
            RegionWiseMap(n_classes=3, parameters="boundary"),
        ]
    )
    found = steps(subject())
    labels = found["label"].numpy()[0].astype(np.uint8)
    assert set(np.unique(labels)) == {0, 1, 2}
    assert found["label"].spacing == pytest.approx((1.5, 1.5, 1.5))
    expected = rwtool.boundary_map(labels, found["label"].spacing, n_classes=3)
    np.testing.assert_array_equal(found["map"].numpy(), expected)


def test_a_queue_crops_label_and_map_alike():
    data = tio.SubjectsDataset([subject()], transform=RegionWiseMap(n_classes=3, layout="packed"))
    whole = data[0]
    queue = tio.Queue(data, 4, 4, tio.UniformSampler(6), num_workers=0)
    for batch in tio.SubjectsLoader(queue, batch_size=2):
        assert batch["map"]["data"].shape == (2, 1, 6, 6, 6)
        for n, (x, y, z, *_) in enumerate(batch["location"].tolist()):
            part = (slice(None), slice(x, x + 6), slice(y, y + 6), slice(z, z + 6))
            assert torch.equal(batch["map"]["data"][n], whole["map"].data[part])
            assert torch.equal(batch["label"]["data"][n], whole["label"].data[part])


@pytest.mark.parametrize("labels", [np.zeros(SHAPE), np.full(SHAPE, 2)])
@pytest.mark.parametrize("parameters", ["rrw", "boundary", "hd", rwtool.MapParameters("rrw", "inner")])
def test_a_class_that_fills_the_volume_raises_no_floating_point_error(labels, parameters):
    found = RegionWiseMap(n_classes=3, parameters=parameters)(subject(labels))
    assert torch.isfinite(found["map"].data).all()


def test_slices_lie_across_the_last_axis():
    slices = rwtool.MapParameters("boundary", dims=2)
    found = RegionWiseMap(n_classes=3, parameters=slices)(subject())
    labels = found["label"].numpy()[0]
    for z in range(SHAPE[2]):
        expected = rwtool.boundary_map(labels[..., z], (1.0, *SPACING[:2]), n_classes=3)
        np.testing.assert_array_equal(found["map"].numpy()[..., z], expected)


def test_the_history_of_a_subject_makes_the_map_again():
    made = RegionWiseMap(map_name="z", n_classes=3, layout="packed", ignore=1)(subject())
    again = made.get_composed_history()(subject())
    assert torch.equal(again["z"].data, made["z"].data)
    assert not made["z"].data[made["label"].data == 1].any()
    assert pickle.loads(pickle.dumps(RegionWiseMap(n_classes=3)))(subject())["map"].shape == (3, *SHAPE)


def test_intensity_transforms_leave_the_map_alone():
    made = RegionWiseMap(n_classes=3)(subject())
    torch.manual_seed(0)
    noisy = tio.RandomNoise()(made)
    assert torch.equal(noisy["map"].data, made["map"].data)
    assert not torch.equal(noisy["image"].data, made["image"].data)


def test_what_cannot_be_mapped_is_refused():
    with pytest.raises(rwtool.UsageError, match=re.escape("has no image 'seg'; found image, label")):
        RegionWiseMap("seg", n_classes=3)(subject())
    with pytest.raises(rwtool.VolumeError, match=re.escape("labels are class indices 0..1; found 2")):
        RegionWiseMap(n_classes=2)(subject())
    with pytest.raises(rwtool.UsageError, match="hd maps are dense"):
        RegionWiseMap(n_classes=3, parameters="hd", layout="packed")
