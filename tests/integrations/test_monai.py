import pickle
import re

import numpy as np
import pytest
import torch

import rwtool
from rwtool import MapParameters, RegionWiseLoss
from rwtool.docs import read_page

pytestmark = [pytest.mark.monai, pytest.mark.filterwarnings("ignore")]
monai = pytest.importorskip("monai", reason="MONAI is not installed")

from monai.bundle import ConfigParser  # noqa: E402
from monai.data import CacheDataset, DataLoader, MetaTensor, PersistentDataset  # noqa: E402
from monai.engines import SupervisedTrainer  # noqa: E402
from monai.losses import DeepSupervisionLoss  # noqa: E402
from monai.networks.nets import SegResNetDS, UNet  # noqa: E402
from monai.transforms import (  # noqa: E402
    Compose,
    ConcatItemsd,
    EnsureChannelFirstd,
    LoadImaged,
    RandAffined,
    RandFlipd,
    RandSpatialCropd,
)
from monai.utils import IgniteInfo, optional_import, set_determinism  # noqa: E402

from rwtool.integrations.monai import RegionWiseMapd  # noqa: E402

Events, _ = optional_import("ignite.engine", IgniteInfo.OPT_IMPORT_VERSION, name="Events")

SPACING = (0.8, 1.0, 2.5)
SHAPE = (16, 12, 8)


def ball(shift=0.0):
    """Two nested ellipsoids, class indices."""
    grid = np.indices(SHAPE) - np.reshape(SHAPE, (3, 1, 1, 1)) / 2 - shift
    radius = np.sqrt((grid**2 / np.reshape(SHAPE, (3, 1, 1, 1)) ** 2).sum(axis=0))
    return (2 - np.searchsorted([0.15, 0.3], radius)).astype(np.float32)


def meta(label, spacing=SPACING):
    return MetaTensor(torch.from_numpy(label)[None], affine=torch.diag(torch.tensor([*spacing, 1.0])))


def test_the_spacing_is_that_of_the_affine_in_the_order_of_the_axes():
    label = ball()
    found = RegionWiseMapd("label", n_classes=3, parameters="boundary")({"label": meta(label)})
    expected = rwtool.boundary_map(label.astype(np.uint8), SPACING, n_classes=3)
    np.testing.assert_array_equal(found["map"].numpy(), expected)
    assert isinstance(found["map"], MetaTensor)
    assert torch.equal(found["map"].affine, found["label"].affine)
    assert found["map"].dtype == torch.float32


def test_a_turned_grid_and_a_slice_have_the_spacing_of_their_own_axes():
    label = ball()
    affine = torch.tensor([[0, -2.0, 0, 5], [0.5, 0, 0, 1], [0, 0, -3.0, 2], [0, 0, 0, 1]])
    found = RegionWiseMapd("label", n_classes=3, parameters="boundary")(
        {"label": MetaTensor(torch.from_numpy(label)[None], affine=affine)}
    )
    expected = rwtool.boundary_map(label.astype(np.uint8), (0.5, 2.0, 3.0), n_classes=3)
    np.testing.assert_array_equal(found["map"].numpy(), expected)
    plane = MetaTensor(torch.from_numpy(label[..., 4])[None], affine=affine)
    found = RegionWiseMapd("label", n_classes=3, parameters="boundary")({"label": plane})
    expected = rwtool.boundary_map(label[..., 4].astype(np.uint8), (1, 0.5, 2.0), n_classes=3)
    np.testing.assert_array_equal(found["map"].numpy(), expected)


def test_plain_arrays_need_a_spacing_and_give_arrays():
    label = ball().astype(np.int16)[None]
    found = RegionWiseMapd("label", "own", n_classes=3, layout="packed", spacing_mm=SPACING)({"label": label})
    assert isinstance(found["own"], np.ndarray)
    expected = rwtool.rrw_map(label[0], SPACING, n_classes=3, layout="packed")
    np.testing.assert_array_equal(found["own"][0], expected)
    with pytest.raises(rwtool.UsageError, match="'label' is no MetaTensor"):
        RegionWiseMapd("label", n_classes=3)({"label": label})


def test_several_labels_and_missing_ones():
    one = RegionWiseMapd(["a", "b"], ["za", "zb"], n_classes=3, allow_missing_keys=True)({"b": meta(ball())})
    assert set(one) == {"b", "zb"}
    with pytest.raises(rwtool.UsageError, match="one map for each of 2 keys"):
        RegionWiseMapd(["a", "b"], n_classes=3)


@pytest.mark.parametrize(
    ("label", "options", "error", "message"),
    [
        (meta(ball()), {"spacing_mm": (1, 1, 1)}, rwtool.UsageError, "which is for labels without one; leave it out"),
        (meta(ball() + 1), {}, rwtool.VolumeError, "labels are class indices 0..2; found 3"),
        (meta(ball()).repeat(2, 1, 1, 1), {}, rwtool.UsageError, "give one channel of class indices"),
        (
            MetaTensor(torch.zeros(1, *SHAPE), affine=torch.eye(4) + 0.2 * torch.eye(4).roll(1, 0)),
            {},
            rwtool.GeometryError,
            "sheared",
        ),
    ],
)
def test_what_cannot_be_mapped_is_refused(label, options, error, message):
    with pytest.raises(error, match=re.escape(message)):
        RegionWiseMapd("label", n_classes=3, **options)({"label": label})


@pytest.fixture
def files(write_nifti):
    """Dictionaries of three cases with image and label files."""
    found = []
    for n in range(3):
        label = ball(shift=n)
        affine = np.diag([*SPACING, 1.0])
        noisy = label + np.random.default_rng(n).normal(size=SHAPE).astype(np.float32) / 5
        image = write_nifti(noisy, affine, f"image{n}.nii")
        found.append({"image": str(image), "label": str(write_nifti(label.astype(np.uint8), affine, f"label{n}.nii"))})
    return found


def steps(*more):
    keys = ["image", "label"]
    return Compose(
        [
            LoadImaged(keys),
            EnsureChannelFirstd(keys),
            RegionWiseMapd("label", n_classes=3, layout="packed"),
            *more,
            ConcatItemsd(["label", "map"], "target"),
        ]
    )


def test_data_sets_that_cache_keep_the_map(files, tmp_path, monkeypatch):
    crop = RandSpatialCropd(["image", "label", "map"], (8, 8, 8), random_size=False)
    transform = steps(crop)
    assert pickle.loads(pickle.dumps(transform))(files[0])["map"].shape == (1, 8, 8, 8)
    cached = CacheDataset(files, transform, progress=False)
    persistent = PersistentDataset(files, steps(crop), cache_dir=tmp_path)
    first = [item["map"].shape for item in persistent]
    monkeypatch.setattr("rwtool.integrations.monai.channel_first_map", None)  # another call would fail
    for data in (cached, persistent):
        assert [item["map"].shape for item in data] == first == [(1, 8, 8, 8)] * 3


def test_a_flip_of_label_and_map_is_the_map_of_the_flipped_label(files):
    flipped = steps(RandFlipd(["image", "label", "map"], prob=1, spatial_axis=0))(files[1])
    again = RegionWiseMapd("label", n_classes=3, layout="packed")({"label": flipped["label"]})
    torch.testing.assert_close(flipped["map"].as_tensor(), again["map"].as_tensor())


def test_own_values_keep_their_sign_under_a_rotation(files):
    set_determinism(0)
    turn = RandAffined(
        ["image", "label", "map"],
        prob=1,
        rotate_range=(0, 0, 0.5),
        mode=("bilinear", "nearest", "bilinear"),
        padding_mode="border",
    )
    found = steps(turn)(files[0])
    assert -1 <= found["map"].min() < found["map"].max() <= 0
    assert set(found["label"].unique().tolist()) == {0, 1, 2}


def trained(data, key, loss, epochs):
    """The loss of each epoch of MONAI's own trainer, whose batch is the whole data set."""
    torch.manual_seed(0)
    net = UNet(3, in_channels=1, out_channels=3, channels=(4, 8), strides=(2,))
    losses = []
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=DataLoader(data, batch_size=3),
        network=net,
        optimizer=torch.optim.Adam(net.parameters(), 1e-2),
        loss_function=loss,
        prepare_batch=lambda batch, device, _, **__: (batch["image"].to(device), batch[key].to(device)),
    )
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: losses.append(engine.state.output[0]["loss"]))
    trainer.run()
    return losses


def test_supervised_trainer_trains_with_stored_and_with_fresh_maps(files, tmp_path):
    set_determinism(0)
    stored = RegionWiseLoss(spacing_mm=None, layout="packed", map_in_labels=True, mixed_with="ce")
    fresh = RegionWiseLoss(spacing_mm=SPACING, mixed_with="ce")
    cached = trained(CacheDataset(files, steps(), progress=False), "target", stored, 20)
    assert cached[-1] < 0.5 * cached[0]
    persistent = PersistentDataset(files, steps(), cache_dir=tmp_path / "kept")
    for again in (trained(persistent, "target", stored, 3), trained(persistent, "label", fresh, 3)):
        assert again == pytest.approx(cached[:3], rel=1e-5)
    assert len(list((tmp_path / "kept").iterdir())) == 3


@pytest.mark.parametrize("kind", ["rrw", "boundary", "hd"])
def test_deep_supervision_takes_each_level_with_its_own_spacing(kind):
    torch.manual_seed(0)
    net = SegResNetDS(spatial_dims=3, init_filters=4, in_channels=1, out_channels=3, blocks_down=(1, 1, 1), dsdepth=2)
    target = meta(ball()).unsqueeze(0)
    levels = net(torch.rand(1, 1, *SHAPE))
    assert [tuple(level.shape[2:]) for level in levels] == [(16, 12, 8), (8, 6, 4)]
    full = RegionWiseLoss(kind, spacing_mm=SPACING, shape=SHAPE)
    found = DeepSupervisionLoss(full)(levels, target)
    coarse = torch.nn.functional.interpolate(target.as_tensor(), size=(8, 6, 4), mode="nearest-exact")
    half = RegionWiseLoss(kind, spacing_mm=tuple(2 * mm for mm in SPACING))
    expected = full(levels[0], target) + half(levels[1], coarse) / 2
    torch.testing.assert_close(torch.as_tensor(found), expected.detach(), check_stride=False)
    found.backward()


def test_auto3dseg_builds_the_loss_from_its_configuration():
    config = {
        "_target_": "rwtool.RegionWiseLoss",
        "kind": "boundary",
        "spacing_mm": [0.8, 1.0, 2.5],
        "shape": [16, 12, 8],
        "mixed_with": "dice",
    }
    loss = DeepSupervisionLoss(ConfigParser(config).get_parsed_content(instantiate=True))
    target = meta(ball()).unsqueeze(0)
    levels = [torch.zeros(1, 3, *SHAPE), torch.zeros(1, 3, 8, 6, 4)]
    assert torch.isfinite(loss(levels, target))
    transform = ConfigParser(
        {
            "_target_": "rwtool.integrations.monai.RegionWiseMapd",
            "keys": "label",
            "n_classes": 3,
            "parameters": {"_target_": "rwtool.MapParameters", "kind": "rrw", "convention": "inner"},
        }
    ).get_parsed_content(instantiate=True)
    assert transform.parameters == MapParameters("rrw", "inner")


@pytest.mark.parametrize("amp", [False, True])
def test_auto3dseg_trains_with_the_loss_of_the_page(files, tmp_path, amp):
    """As its segresnet does: the configuration as a file, then deep supervision, prediction and label alone."""
    pytest.importorskip("yaml", reason="MONAI reads YAML with PyYAML")
    (text,) = re.findall(r"```text\n(loss:\n.*?)```", read_page("integrations"), flags=re.DOTALL)
    config = tmp_path / "hyper_parameters.yaml"
    config.write_text(text.replace("[96, 96, 48]", str(list(SHAPE))))
    parser = ConfigParser()
    parser.read_config(config)
    loss = DeepSupervisionLoss(ConfigParser(parser["loss"]).get_parsed_content(instantiate=True))
    assert isinstance(loss.loss, RegionWiseLoss)
    torch.manual_seed(0)
    net = SegResNetDS(spatial_dims=3, init_filters=4, in_channels=1, out_channels=3, blocks_down=(1, 1, 1), dsdepth=2)
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3)
    keys = ["image", "label"]
    data = CacheDataset(files, Compose([LoadImaged(keys), EnsureChannelFirstd(keys)]), progress=False)
    losses = []
    for _ in range(15):
        for batch in DataLoader(data, batch_size=3):
            with torch.autocast("cpu", enabled=amp):
                found = loss(net(batch["image"].as_subclass(torch.Tensor)), batch["label"].as_subclass(torch.Tensor))
            optimizer.zero_grad()
            found.backward()
            optimizer.step()
            losses.append(found.item())
    assert losses[-1] < losses[0] - 0.3
