import json
import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from cohorts import QUICK, metrics, train, train_and_stop, voxels, write_cohort

import rwtool
from rwtool.network.config import TrainConfig
from rwtool.training.validation import ClassResult, Validation

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="module")
def quick(cohort, tmp_path_factory):
    return train(cohort, tmp_path_factory.mktemp("runs") / "quick")


def test_metrics_csv_has_one_row_an_epoch_and_dice_where_there_was_a_validation(cohort, tmp_path):
    train(cohort, tmp_path, epochs=5, val_every=2)
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert lines[0] == "epoch,loss,lr,dice,dice_1,dice_2,seconds,slices_per_second"
    rows = metrics(tmp_path)
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert [bool(row["dice"]) for row in rows] == [False, True, False, True, True]
    assert all(float(row["slices_per_second"]) > 0 for row in rows)
    assert float(rows[4]["dice"]) == pytest.approx((float(rows[4]["dice_1"]) + float(rows[4]["dice_2"])) / 2, abs=1e-5)


def test_run_json_is_strict_json_and_says_what_the_run_came_to(cohort, quick):
    def refuse(constant):
        raise AssertionError(constant)

    content = json.loads((quick.folder / "run.json").read_text(), parse_constant=refuse)
    assert content["rwtool"] == rwtool.__version__
    assert content["config"] == TrainConfig(**QUICK, patch=(20, 24)).as_dict()
    assert (content["device"], content["maps"]) == ("cpu", None)
    assert content["labels"] == str(cohort / "labels")
    assert content["cases"] == {"train": 3, "val": 3}
    assert [entry["value"] for entry in content["classes"]] == [0, 1, 2]
    assert content["validation"] == quick.validation.as_dict()


class Background:
    """Stands for a segmenter that finds nothing."""

    def __init__(self, *arguments, **options):
        pass

    def labels(self, image, size):
        return np.zeros((image.shape[1], *size), dtype=np.uint8)


def test_what_has_no_value_is_null_in_json_and_empty_in_csv(cohort, tmp_path, monkeypatch):
    monkeypatch.setattr("rwtool.training.loop.Segmenter", Background)
    train(cohort, tmp_path, classes=[0, 1, 2, 7])
    missed, absent = ({"ok": 0, "hallucinated": 0, "hd95_mm": None, "hd_mm": None, **more} for more in (
        {"dice": 0.0, "missed": 3, "absent": 0}, {"dice": None, "missed": 0, "absent": 3},
    ))  # fmt: skip
    assert json.loads((tmp_path / "run.json").read_text())["validation"] == [
        {"label": label, "name": str(label), **rest} for label, rest in ((1, missed), (2, missed), (7, absent))
    ]
    row = metrics(tmp_path)[-1]
    assert [row[name] for name in ("dice", "dice_1", "dice_2", "dice_7")] == ["0", "0", "0", ""]
    assert not any(voxels(path).any() for path in (tmp_path / "predictions").iterdir())


@pytest.fixture
def stopped(cohort, tmp_path):
    """A run that was stopped after the first of its two epochs."""
    train_and_stop(cohort, tmp_path / "stopped")
    return tmp_path / "stopped"


def test_tensorboard_is_told_all_but_nan_and_forgets_what_is_done_again(cohort, stopped, tmp_path, monkeypatch):
    class Writer:
        def __init__(self, folder, purge_step):
            told.append((folder, purge_step))

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def add_scalar(self, name, value, epoch):
            assert not math.isnan(value)
            told.append((name, epoch))

        def flush(self):
            pass

    told = []
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    results = (ClassResult(1, "1", 0.5, 1, 1, {}), ClassResult(2, "2", math.nan, 1, 1, {}))
    monkeypatch.setattr("rwtool.training.loop.validate", lambda *arguments, **options: Validation(results))
    train(cohort, tmp_path / "run", tensorboard=True)
    always = {("loss", 1), ("lr", 1), ("seconds", 1), ("slices_per_second", 1)}
    assert told[0] == (tmp_path / "run" / "tensorboard", 1)
    assert set(told[1:]) == {*always, *((name, 2) for name, _ in always), ("dice", 2), ("dice_1", 2)}
    told.clear()
    train(cohort, stopped, tensorboard=True, resume=True)
    assert told[0] == (stopped / "tensorboard", 2)
    assert {epoch for _, epoch in told[1:]} == {2}


def test_tensorboard_that_is_not_installed_is_said_before_anything_is_done(cohort, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(rwtool.UsageError, match=r"pip install 'rwtool\[tensorboard\]'"):
        rwtool.train("nowhere", "nowhere", tmp_path / "run", tensorboard=True)
