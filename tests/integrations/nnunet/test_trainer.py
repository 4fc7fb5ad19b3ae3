import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import run

pytestmark = [pytest.mark.nnunet, pytest.mark.filterwarnings("ignore")]
pytest.importorskip("nnunetv2", reason="nnU-Net is not installed")

import blosc2  # noqa: E402
import torch  # noqa: E402
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2  # noqa: E402

import rwtool  # noqa: E402
from rwtool.errors import UsageError  # noqa: E402
from rwtool.io.formats import read_label_values  # noqa: E402

CPU = torch.device("cpu")


def train(name, configuration="2d", **options):
    from nnunetv2.run.run_training import run_training

    run_training("4", configuration, 0, name, device=CPU, **options)


def run_folder(nnunet, name, configuration="2d"):
    return nnunet / "results" / "Dataset004_Hippocampus" / f"{name}__nnUNetPlans__{configuration}" / "fold_0"


def checkpoint(nnunet, name, configuration="2d", file="checkpoint_final.pth"):
    return torch.load(run_folder(nnunet, name, configuration) / file, weights_only=False)


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
@pytest.mark.parametrize(
    "name",
    ["nnUNetTrainerRRW_2epochs", "nnUNetTrainerRRWStored_2epochs", "nnUNetTrainerBoundaryStoredDiceGradual_2epochs"],
)
def test_it_trains_with_made_and_with_stored_maps(nnunet, preprocessed, at_maps, short, configuration, name):
    train(name, configuration)
    found = checkpoint(nnunet, name, configuration)
    assert (found["trainer_name"], found["current_epoch"]) == (name, 2)
    losses = found["logging"]["train_losses"] + found["logging"]["val_losses"]
    assert len(losses) == 4
    assert np.isfinite(losses).all()


@pytest.mark.parametrize(
    "name",
    [
        "nnUNetTrainerHDStoredCE_1epochs",
        "nnUNetTrainerHD_1epochs",
        "nnUNetTrainerACDice_1epochs",
        "nnUNetTrainerRRWReversedInstances_1epochs",
        "nnUNetTrainerSkeletonStoredDice_1epochs",
        "nnUNetTrainerGeneralizedSurfaceStoredDiceGradual_1epochs",
        "nnUNetTrainerBoundaryDoU_1epochs",
    ],
)
def test_the_other_kinds_train(nnunet, preprocessed, at_maps, short, name):
    train(name)
    assert np.isfinite(checkpoint(nnunet, name)["logging"]["train_losses"]).all()


def whole_case(trainer, shape=None):
    """Batch of a whole case, or of its first voxels, out of the transforms of validation, which change nothing."""
    trainer.dataset_class = nnUNetDatasetBlosc2
    dataset, _ = trainer.get_tr_and_val_datasets()
    case = dataset.identifiers[0]
    image, labels, _, _ = dataset.load_case(case)
    where = (slice(None), *(slice(0, n) for n in shape or image.shape[1:]))
    steps = trainer.get_validation_transforms(
        trainer._get_deep_supervision_scales(), foreground_labels=trainer.label_manager.foreground_labels
    )
    made = steps(
        image=torch.from_numpy(np.ascontiguousarray(image[where])).float(),
        segmentation=torch.from_numpy(labels[where]).to(torch.int16),
    )
    assert made["image"].shape[0] == 1
    return {"data": made["image"][None], "target": [level[None] for level in made["segmentation"]]}


@pytest.mark.parametrize("kind", ["RRW", "Boundary", "HD", "Skeleton", "GeneralizedSurface"])
def test_made_and_stored_maps_give_one_loss_on_one_batch(trainer, at_maps, kind):
    torch.manual_seed(0)
    losses = []
    for name in (f"nnUNetTrainer{kind}", f"nnUNetTrainer{kind}Stored"):
        one = trainer(name, "3d_fullres")
        batch = one._parted(whole_case(one))
        assert [level.shape[1] for level in batch["target"]] == [1] * 3
        torch.manual_seed(1)
        outputs = [torch.randn(1, 3, *level.shape[2:]) for level in batch["target"]]
        losses.append(float(one.loss(outputs, batch["target"])))
    # own values of rrw are stored as float16
    assert losses[0] == pytest.approx(losses[1], rel=2e-4)


def test_the_loss_is_that_of_the_paper_at_each_level_with_nnu_nets_weights(trainer, at_maps):
    one = trainer("nnUNetTrainerRRW", "3d_fullres")
    batch = one._parted(whole_case(one))
    torch.manual_seed(1)
    outputs = [torch.randn(1, 3, *level.shape[2:]) for level in batch["target"]]
    labels = batch["target"][0][0, 0].numpy().astype(np.int16)
    z = torch.from_numpy(rwtool.rrw_map(labels, one.configuration_manager.spacing, n_classes=3))
    expected = 0.0
    for output, weight in zip(outputs, one.loss.whole.weight_factors, strict=True):
        step = labels.shape[0] / output.shape[2]
        picked = [
            ((np.arange(n) + 0.5) * full / n).astype(int)
            for n, full in zip(output.shape[2:], labels.shape, strict=True)
        ]
        level = z[:, picked[0]][:, :, picked[1]][..., picked[2]][None]
        assert step >= 1
        expected += weight * float((output.softmax(1) * level).mean())
    assert sum(one.loss.whole.weight_factors) == pytest.approx(1)
    assert float(one.loss(outputs, batch["target"])) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "part"), [("nnUNetTrainerRRWDice", "weight_ce"), ("nnUNetTrainerRRWCE", "weight_dice")]
)
def test_a_mixture_is_the_map_loss_and_one_half_of_nnu_nets_own(trainer, name, part):
    whole, one, alone = trainer("nnUNetTrainer"), trainer(name), trainer("nnUNetTrainerRRW")
    batch = next(loader(one))
    labels = [level[:, :1] for level in batch["target"]]
    torch.manual_seed(1)
    outputs = [torch.randn(len(level), 3, *level.shape[2:]) for level in labels]
    setattr(whole.loss.loss, part, 0)
    expected = whole.loss(outputs, labels) + alone.loss(outputs, alone._parted(batch)["target"])
    torch.testing.assert_close(one.loss(outputs, one._parted(batch)["target"]), expected)


def loader(trainer):
    return trainer.get_dataloaders()[0]


def test_a_gradual_mixture_follows_the_epochs_and_goes_on_where_it_was(nnunet, trainer):
    name = "nnUNetTrainerRRWDiceGradual_3epochs"
    one = trainer(name)
    weights = []
    for epoch in range(3):
        one.current_epoch = epoch
        one.on_train_epoch_start()
        weights.append(one.loss.loss.common_weight)
    assert weights == pytest.approx([1, 0.505, 0.01])


def test_a_training_is_gone_on_with(nnunet, preprocessed, short, monkeypatch):
    from rwtool.integrations.nnunet.trainer import trainer_class

    name = "nnUNetTrainerBoundaryCEGradual_3epochs"
    cls = trainer_class(name)
    whole = cls.on_epoch_end

    def stop(self):
        whole(self)
        self.save_checkpoint(self.output_folder + "/checkpoint_latest.pth")
        if self.current_epoch == 2:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cls, "on_epoch_end", stop)
        with pytest.raises(KeyboardInterrupt):
            train(name)
    half = checkpoint(nnunet, name, file="checkpoint_latest.pth")
    assert half["current_epoch"] == 3  # nnU-Net's counter at the end of an epoch is one more
    half["current_epoch"] = 2
    torch.save(half, run_folder(nnunet, name) / "checkpoint_latest.pth")
    seen = []
    begin = cls.on_train_epoch_start
    monkeypatch.setattr(
        cls, "on_train_epoch_start", lambda self: (begin(self), seen.append(self.loss.loss.common_weight))
    )
    train(name, continue_training=True)
    assert seen == pytest.approx([0.01])
    assert len(checkpoint(nnunet, name)["logging"]["train_losses"]) == 3


def test_the_dice_of_validation_is_nnu_nets_own(trainer):
    one, plain = trainer("nnUNetTrainerRRW"), trainer("nnUNetTrainer")
    plain.network.load_state_dict(one.network.state_dict())
    batch = next(one.get_dataloaders()[1])
    labels = {**batch, "target": [level[:, :1].to(torch.int16) for level in batch["target"]]}
    for network in (one.network, plain.network):
        network.eval()
    with torch.no_grad():
        found, expected = one.validation_step(batch), plain.validation_step(labels)
    for key in ("tp_hard", "fp_hard", "fn_hard"):
        np.testing.assert_array_equal(found[key], expected[key])


def test_the_optimiser_is_the_trainers_own(trainer):
    one = trainer("nnUNetTrainerRRW_5epochs")
    assert isinstance(one.optimizer, torch.optim.AdamW)
    assert [group["lr"] for group in one.optimizer.param_groups] == [1e-3]
    assert one.num_epochs == 5
    assert trainer("nnUNetTrainerRRW", initialize=False).num_epochs == 1000


def test_ignored_voxels_do_not_matter(trainer):
    labels = {"background": 0, "anterior": 1, "ignore": 2}
    for name in ("nnUNetTrainerRRW", "nnUNetTrainerBoundaryDice", "nnUNetTrainerACCE"):
        one = trainer(name, "3d_fullres", labels=labels)
        assert (one.label_manager.num_segmentation_heads, one.label_manager.ignore_label) == (2, 2)
        batch = whole_case(one, (24, 40, 24))
        parted = one._parted(batch)
        torch.manual_seed(1)
        outputs = [torch.randn(len(level), 2, *level.shape[2:]) for level in parted["target"]]
        before = one.loss(outputs, parted["target"])
        ignored = [level == 2 for level in parted["target"]]
        assert ignored[0].any()
        others = [torch.where(where, torch.randn_like(out), out) for out, where in zip(outputs, ignored, strict=True)]
        assert torch.isfinite(before)
        torch.testing.assert_close(one.loss(others, parted["target"]), before)
        found = one.validation_step(batch)
        assert found["tp_hard"].shape == (1,)


def test_regions_are_refused_in_a_sentence(trainer):
    dataset = {"labels": {"background": 0, "whole": [1, 2], "posterior": 2}, "regions_class_order": [1, 2]}
    with pytest.raises(
        NotImplementedError, match=r"nnUNetTrainerRRW gives each voxel one class by softmax; .* regions"
    ):
        trainer("nnUNetTrainerRRW", **dataset)


def test_slices_of_slices_are_refused(trainer):
    with pytest.raises(UsageError, match="train nnUNetTrainerRRWDice, which is the same"):
        trainer("nnUNetTrainerRRWSlicesDice")
    assert trainer("nnUNetTrainerRRWSlicesDice", "3d_fullres", initialize=False).settings.dims == 2


def test_a_second_stage_has_the_first_ones_labels_in_its_image(nnunet, preprocessed, at_maps, short, trainer):
    for name in ("nnUNetTrainerRRW_1epochs", "nnUNetTrainerBoundaryStored_1epochs"):
        stage = run_folder(nnunet, name, "3d_fullres").parent / "predicted_next_stage" / "3d_cascade_fullres"
        stage.mkdir(parents=True)
        for path in (preprocessed / "nnUNetPlans_3d_fullres").glob("*_seg.b2nd"):
            labels = blosc2.open(str(path), mode="r")[0]
            nnUNetDatasetBlosc2.save_seg(labels, str(stage / path.name.removesuffix("_seg.b2nd")))
        one = trainer(name, "3d_cascade_fullres")
        batch = next(loader(one))
        assert batch["data"].shape[1] == 1 + 2  # the image, and a channel for each label
        assert batch["target"][0].shape[1] == (2 if "RRW" in name else 4)
        train(name, "3d_cascade_fullres")
        assert np.isfinite(checkpoint(nnunet, name, "3d_cascade_fullres")["logging"]["train_losses"]).all()


def test_the_weights_of_levels_are_those_of_ddp_where_it_runs(trainer):
    one = trainer("nnUNetTrainerRRW")
    assert one.loss.whole.weight_factors[-1] == 0
    one.is_ddp = True
    assert 0 < one._build_loss().whole.weight_factors[-1] < 1e-5  # else it complains of unused parameters


def test_without_deep_supervision_there_is_one_level(trainer):
    one = trainer("nnUNetTrainerRRWDice", initialize=False)
    one.enable_deep_supervision = False
    one.initialize()
    one.dataset_class = nnUNetDatasetBlosc2
    batch = next(loader(one))
    assert batch["target"].shape[1] == 2
    assert np.isfinite(one.train_step(batch)["loss"])
    assert one.validation_step(batch)["tp_hard"].shape == (2,)


def test_it_validates_and_predicts_as_nnu_net_does(nnunet, preprocessed, short, tmp_path, monkeypatch):
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    name = "nnUNetTrainerRRW_4epochs"
    folder = run_folder(nnunet, name)
    train(name)
    monkeypatch.undo()  # the whole validation
    train(name, only_run_validation=True)
    summary = json.loads((folder / "validation" / "summary.json").read_text())
    assert len(summary["metric_per_case"]) == 2
    found = run(
        "evaluate",
        preprocessed / "gt_segmentations",
        f"rrw={folder / 'validation'}",
        "--cases",
        f"{preprocessed / 'splits_final.json'}:0",
        "-o",
        tmp_path / "results",
        "-j",
        1,
    )
    assert found.exit_code == 0
    with (tmp_path / "results" / "cases.csv").open(encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["metric"] == "dice"]
    theirs = {Path(one["prediction_file"]).name: one["metrics"] for one in summary["metric_per_case"]}
    assert len(rows) == 4
    for row in rows:
        dice = theirs[f"{row['case']}.nii.gz"][row["class"]]["Dice"]
        assert float(row["value"]) == pytest.approx(0 if np.isnan(dice) else dice, abs=1e-9)
    images = tmp_path / "images"
    images.mkdir()
    first = sorted((nnunet / "raw" / "Dataset004_Hippocampus" / "imagesTr").glob("*.nii.gz"))[0]
    shutil.copy(first, images)
    predictor = nnUNetPredictor(device=CPU, perform_everything_on_device=False, use_mirroring=False, allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(folder.parent), (0,))
    predictor.predict_from_files_sequential([[str(first)]], [str(tmp_path / "found")], save_probabilities=False)
    assert set(read_label_values(tmp_path / "found.nii.gz")) <= {0, 1, 2}
    monkeypatch.delenv("nnUNet_extTrainer")
    with pytest.raises(RuntimeError, match="nnUNet_extTrainer"):  # which the page says to set
        nnUNetPredictor(device=CPU).initialize_from_trained_model_folder(str(folder.parent), (0,))
