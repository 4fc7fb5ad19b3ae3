import math

import numpy as np
import pytest
import torch
from cohorts import dice, metrics, train, voxels

import rwtool
from rwtool.network.segmenter import Segmenter
from rwtool.training.validation import ClassResult, Validation

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


def result(label, dice):
    return ClassResult(label, str(label), dice, math.nan, math.nan, {"ok": 1})


def test_the_mean_dice_is_that_of_the_classes_that_occur():
    found = Validation((result(1, 0.5), result(2, math.nan), result(7, 0.8)))
    assert found.mean_dice == pytest.approx(0.65)
    assert found.dice_columns().keys() == {"dice_1", "dice_2", "dice_7"}
    assert [row["dice"] for row in found.as_dict()] == [0.5, None, 0.8]
    assert [row["hd_mm"] for row in found.as_dict()] == [None, None, None]
    assert math.isnan(Validation((result(1, math.nan),)).mean_dice)
