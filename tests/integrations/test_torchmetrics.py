import math
import pickle
import re

import numpy as np
import pytest
import torch

import rwtool

pytestmark = [pytest.mark.torchmetrics, pytest.mark.filterwarnings("ignore")]
pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")

from torchmetrics import MetricCollection  # noqa: E402

from rwtool.integrations.torchmetrics import SegmentationMetrics  # noqa: E402

torch.set_num_threads(1)
SPACING = (2.5, 1.0, 0.8)


def pair(seed, shape=(3, 5, 8, 7)):
    """Labels of three cases and predictions that differ in a tenth of the voxels."""
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 3, shape)
    preds = np.where(rng.random(shape) < 0.1, rng.integers(0, 3, shape), target)
    return torch.from_numpy(preds), torch.from_numpy(target)


def test_a_row_by_hand():
    """Reference pixels 0 and 1, prediction pixel 3 alone, of 2 mm: distances 6 and 4, and 4."""
    target, preds = torch.tensor([[[1, 1, 0, 0, 0]]]), torch.tensor([[[0, 0, 0, 1, 0]]])
    metric = SegmentationMetrics(2, spacing_mm=(1.0, 2.0), tolerance_mm=4.0)
    metric.update(preds, target)
    found = metric.compute()
    assert found["dice_1"] == 0
    assert found["hd_mm_1"] == 6
    assert found["hd95_mm_1"] == pytest.approx(4 + 0.95 * 2)
    assert found["nsd_1"] == pytest.approx(2 / 3)
    assert found["ok_1"] == 1


@pytest.mark.parametrize("shape", [(3, 5, 8, 7), (3, 8, 7)])
def test_means_are_those_of_evaluate_labels(shape):
    metric = SegmentationMetrics(3, spacing_mm=SPACING[-len(shape) + 1 :], tolerance_mm={1: 1.0, 2: 0.5})
    rows = []
    for seed in range(2):
        preds, target = pair(seed, shape)
        metric.update(preds, target)
        for one, other in zip(target.numpy(), preds.numpy(), strict=True):
            volumes = (one[None], other[None]) if one.ndim == 2 else (one, other)
            mm = (1.0, *SPACING[1:]) if one.ndim == 2 else SPACING
            rows.append(rwtool.evaluate_labels(*volumes, mm, n_classes=3, nsd_tolerance_mm={1: 1.0, 2: 0.5}))
    found = metric.compute()
    for name in ("dice", "hd95_mm", "hd_mm", "nsd"):
        means = [np.mean([getattr(row[c], name) for row in rows]) for c in range(2)]
        assert [found[f"{name}_1"].item(), found[f"{name}_2"].item()] == pytest.approx(means)
        assert found[name].item() == pytest.approx(np.mean(means))
    assert found["ok_1"] == 6


def edge_cases():
    """Class 1 is in both, in the reference, in the prediction and in neither; 4 x 3 pixels of 1 x 2 mm."""
    target, preds = torch.zeros(4, 4, 3, dtype=torch.int64), torch.zeros(4, 4, 3, dtype=torch.int64)
    target[0, 1, 1] = preds[0, 1, 2] = target[1, 1, 1] = preds[2, 1, 1] = 1
    return preds, target


@pytest.mark.parametrize(
    ("undefined", "mean"),
    [("exclude", 2), ("diagonal", (2 + 2 * math.hypot(4, 6)) / 3), (100.0, 202 / 3)],
)
def test_undefined_cases_are_counted_and_their_distance_is_as_said(undefined, mean):
    metric = SegmentationMetrics(2, spacing_mm=(1.0, 2.0), tolerance_mm=2.0, undefined=undefined)
    metric.update(*edge_cases())
    found = metric.compute()
    assert [found[f"{status}_1"].item() for status in ("ok", "missed", "hallucinated", "absent")] == [1, 1, 1, 1]
    assert found["hd_mm_1"].item() == pytest.approx(mean)
    assert found["dice_1"] == 0
    assert found["nsd_1"].item() == pytest.approx(1 / 3)


def test_a_class_of_no_case_is_nan_and_left_out_of_the_mean():
    metric = SegmentationMetrics(3, spacing_mm=(1.0, 2.0))
    metric.update(*edge_cases())
    found = metric.compute()
    assert found["dice_2"].isnan()
    assert found["hd_mm"] == found["hd_mm_1"]
    assert found["absent_2"] == 4
    assert "nsd" not in found


def test_logits_channels_and_floats():
    preds, target = pair(0)
    expected = SegmentationMetrics(3, spacing_mm=SPACING)
    expected.update(preds, target)
    logits = torch.nn.functional.one_hot(preds, 3).movedim(-1, 1).float()
    for given in ((logits, target), (preds[:, None], target[:, None].float()), (logits.half(), target.byte()[:, None])):
        metric = SegmentationMetrics(3, spacing_mm=None)
        metric.update(*given, spacing_mm=[SPACING] * 3)
        assert str(metric.compute()) == str(expected.compute())


def test_ignored_voxels_count_for_nothing():
    preds, target = edge_cases()
    metric = SegmentationMetrics(2, spacing_mm=(1.0, 2.0), ignore=255)
    metric.update(preds, torch.where(target == preds, target, 255))
    found = metric.compute()
    assert found["absent_1"] == 4


def test_it_is_a_metric_like_any_other():
    preds, target = pair(1)
    metric = SegmentationMetrics(3, spacing_mm=SPACING)
    collection = MetricCollection([metric.clone()])
    first = metric(preds, target)
    assert str(first) == str(metric.compute())
    collection.update(preds, target)
    assert collection.compute()["dice_1"] == first["dice_1"]
    again = pickle.loads(pickle.dumps(metric))
    assert again.compute()["hd_mm_2"] == first["hd_mm_2"]
    metric.reset()
    assert metric.statuses.sum() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (lambda p, t: (p[..., 1:], t), "preds and target are of the same images"),
        (lambda p, t: (p[0], t[0]), "preds are (B, *spatial) or (B, 1, *spatial) with 3 spatial axes"),
        (lambda p, t: (p.float(), t), "preds as floats are (B, K, *spatial), K = 3"),
        (lambda p, t: (p, t + 0.5), "target hold values that are no whole numbers"),
        (lambda p, t: (p, t, (1, 1, -1)), "spacing_mm= is a positive number"),
        (lambda p, t: (p, t, [SPACING] * 2), "such a row for each image, (3, 3); found shape (2, 3)"),
        (lambda p, t: (p.numpy(), t), "preds are a tensor; found ndarray"),
    ],
)
def test_what_does_not_belong_together_is_refused(arguments, message):
    with pytest.raises(rwtool.UsageError, match=re.escape(message)):
        SegmentationMetrics(3, spacing_mm=SPACING).update(*arguments(*pair(0)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_classes": 1}, "found n_classes=1"),
        ({"hd95": "both"}, "found hd95='both'"),
        ({"undefined": "nothing"}, "found undefined='nothing'"),
        ({"spacing_mm": (1, 0)}, "spacing_mm= is a positive number"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(rwtool.UsageError, match=re.escape(message)):
        SegmentationMetrics(**{"n_classes": 2, "spacing_mm": SPACING, **options})
    metric = SegmentationMetrics(2, spacing_mm=None)
    with pytest.raises(rwtool.UsageError, match="give spacing_mm= to this update"):
        metric.update(*pair(0))


def one_of_two(rank, folder):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    metric = SegmentationMetrics(3, spacing_mm=SPACING)
    if rank == 0:  # the other has had no case
        for seed in range(2):
            metric.update(*pair(seed))
    found = metric.compute()
    torch.save(found, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_processes_add_up_though_one_has_had_no_case(tmp_path):
    torch.multiprocessing.spawn(one_of_two, (str(tmp_path),), nprocs=2)
    alone = SegmentationMetrics(3, spacing_mm=SPACING)
    for seed in range(2):
        alone.update(*pair(seed))
    for rank in range(2):
        assert str(torch.load(tmp_path / f"{rank}.pt")) == str(alone.compute())


# --- Lightning ---


def trained(processes, epochs=3, kind="rrw"):
    """A model that Lightning trained and validated, and what it logged."""
    lightning = pytest.importorskip("lightning", reason="Lightning is not installed")
    from lightningmodule import Segmenter

    model = Segmenter(kind)
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=processes,
        strategy="auto" if processes == 1 else "ddp_spawn",
        max_epochs=epochs,
        num_sanity_val_steps=1,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model)
    return model, {name: value.item() for name, value in trainer.callback_metrics.items()}


def measured(model):
    """The same means by `rwtool.evaluate_labels`, case by case."""
    from lightningmodule import SPACING as MM
    from lightningmodule import make_cases

    images, labels = make_cases()
    with torch.no_grad():
        classes = model(images).argmax(1)
    rows = [
        rwtool.evaluate_labels(one, other, MM, n_classes=3, nsd_tolerance_mm=1.0)
        for one, other in zip(labels.numpy(), classes.numpy(), strict=True)
    ]
    assert {row.status for of_case in rows for row in of_case} == {"ok"}
    names = ("dice", "hd95_mm", "hd_mm", "nsd")
    return {f"{name}_{c + 1}": np.mean([getattr(row[c], name) for row in rows]) for name in names for c in range(2)}


@pytest.mark.lightning
@pytest.mark.parametrize("processes", [1, 2])
def test_a_lightning_trainer_learns_and_logs_what_evaluate_measures(processes):
    """In two processes one has three cases and the other two; before the fit, one batch was validated for a trial."""
    model, logged = trained(processes, epochs=12 * processes)
    assert logged["loss"] < 0.6 * trained(1, epochs=1)[1]["loss"]
    expected = measured(model)
    assert {name: logged[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    assert (logged["ok_1"], logged["missed_1"]) == (5, 0)


@pytest.mark.lightning
@pytest.mark.parametrize("kind", ["boundary", "hd"])
def test_every_loss_trains_in_lightning(kind):
    _, logged = trained(1, kind=kind)
    assert math.isfinite(logged["loss"])
