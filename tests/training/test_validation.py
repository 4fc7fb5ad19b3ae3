import math

import numpy as np
import pytest
import torch
from cohorts import dice, metrics, train, voxels

import rwtool
from rwtool.network.config import TrainConfig
from rwtool.network.segmenter import Segmenter
from rwtool.training.cohort import Source, plan_cohort, read_cohort
from rwtool.training.distributed import ALONE
from rwtool.training.validation import ClassResult, Validation, validate

torch.set_num_threads(1)


def test_the_validation_is_that_of_the_predictions_on_disk(cohort, quick):
    for found in quick.validation.classes:
        pairs = [
            (voxels(cohort / "labels" / path.name) == found.label, voxels(path) == found.label)
            for path in (quick.folder / "predictions").iterdir()
        ]
        spacing = (0.8, 1.5, 4)  # of the file's axes
        assert found.dice == pytest.approx(np.mean([dice(a, b) for a, b in pairs]))
        assert found.hd_mm == pytest.approx(np.mean([rwtool.hd_mm(a, b, spacing) for a, b in pairs]))
        assert found.hd95_mm == pytest.approx(np.mean([rwtool.hd95_mm(a, b, spacing) for a, b in pairs]))
        assert found.counts == {"ok": 3, "missed": 0, "hallucinated": 0, "absent": 0}
    assert float(metrics(quick.folder)[-1]["dice"]) == pytest.approx(quick.validation.mean_dice, abs=1e-6)


def test_validation_segments_slices_larger_than_the_patch_by_windows(cohort, tmp_path, monkeypatch):
    seen = []
    windows = Segmenter._windows

    def watch(self, x, window):
        seen.append((tuple(x.shape[2:]), window))
        return windows(self, x, window)

    monkeypatch.setattr(Segmenter, "_windows", watch)
    train(cohort, tmp_path / "whole", epochs=1)
    assert seen == []
    train(cohort, tmp_path / "crops", epochs=1, patch=(16, 16))
    assert seen == [((20, 24), (16, 16))] * 3  # three validation cases


class Blind:
    """Stands for a segmenter that finds class 1 in its place, class 2 nowhere, and 3 where it is not."""

    def __init__(self, truth):
        self.truth = iter(truth)

    def labels(self, image, size):
        labels = next(self.truth).copy()
        labels[labels == 2] = 0
        labels[0, 0, 0] = 3
        return labels


def test_a_missed_or_invented_class_counts_the_diagonal_of_its_volume_by_epoch(cohort):
    config = TrainConfig()
    source = Source(str(cohort / "images"), str(cohort / "labels"), classes=(0, 1, 2, 3, 4))
    read = read_cohort(plan_cohort(source, config), config)
    truth = [read.cases[name].reference.array for name in read.split.val]
    found = validate(Blind(truth), read, ALONE, distances=True)
    diagonal = math.hypot(4 * 4, 20 * 1.5, 24 * 0.8)
    columns = found.distance_columns()
    for name in ("hd_mm", "hd95_mm"):
        assert columns[f"{name}_1"] == 0
        assert [columns[f"{name}_{label}"] for label in (2, 3)] == [pytest.approx(diagonal)] * 2
        assert math.isnan(columns[f"{name}_4"])  # in no case
        assert columns[name] == pytest.approx(2 * diagonal / 3)
    assert [math.isnan(one.hd_mm) for one in found.classes] == [False, True, True, True]
    without = validate(Blind(truth), read, ALONE)
    assert all(math.isnan(value) for value in without.distance_columns().values())


def result(label, dice):
    return ClassResult(label, str(label), dice, math.nan, math.nan, {"ok": 1})


def test_the_mean_dice_is_that_of_the_classes_that_occur():
    found = Validation((result(1, 0.5), result(2, math.nan), result(7, 0.8)))
    assert found.mean_dice == pytest.approx(0.65)
    assert found.dice_columns().keys() == {"dice_1", "dice_2", "dice_7"}
    assert [row["dice"] for row in found.as_dict()] == [0.5, None, 0.8]
    assert [row["hd_mm"] for row in found.as_dict()] == [None, None, None]
    assert math.isnan(Validation((result(1, math.nan),)).mean_dice)
