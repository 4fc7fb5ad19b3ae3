import json
import math
import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from cohorts import FILES, QUICK, metrics, names_in, train, train_and_stop, voxels, write_cohort

import rwtool
from rwtool.datasets.splits import Split
from rwtool.network.config import TrainConfig
from rwtool.training.record import clear, holding
from rwtool.training.validation import ClassResult, Validation


@pytest.fixture
def run(tmp_path):
    """A folder as a run leaves it."""
    folder = tmp_path / "run"
    for name in ("predictions", "tensorboard"):
        (folder / name).mkdir(parents=True)
    (folder / "config.toml").write_text(TrainConfig().to_toml())
    Split(("a",), ("b", "c.v2")).write(folder / "split.json")
    for name in ("last.pt", "best.pt", "metrics.csv", "run.json", "predictions/b.mhd", "predictions/b.raw",
                 "predictions/c.v2.nii.gz", "tensorboard/events.out.tfevents.1.host"):  # fmt: skip
        (folder / name).write_text("")
    return folder


def test_what_a_run_left_goes(run):
    with holding(run):
        clear(run)
    assert names_in(run) == set()


def test_what_no_run_wrote_stays(run, tmp_path):
    mine = ["notes.txt", "predictions/notes.txt", "predictions/b.txt", "predictions/z.nii.gz", "tensorboard/mine"]
    for name in mine:
        (run / name).write_text("mine")
    (tmp_path / "b.nii.gz").write_text("mine")
    (run / "predictions" / "b.nii.gz").symlink_to(tmp_path / "b.nii.gz")
    with holding(run):
        clear(run)
    left = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file() or path.is_symlink()}
    assert left == {*mine, "predictions/b.nii.gz"}
    assert (tmp_path / "b.nii.gz").read_text() == "mine"


@pytest.mark.parametrize("name", ["predictions", "tensorboard"])
def test_a_link_to_a_folder_elsewhere_is_not_followed(run, tmp_path, name):
    (run / name).rename(tmp_path / "elsewhere")
    (run / name).symlink_to(tmp_path / "elsewhere")
    before = names_in(tmp_path / "elsewhere")
    with holding(run):
        clear(run)
    assert names_in(tmp_path / "elsewhere") == before


@pytest.mark.parametrize("case", ["../../precious", "/precious", "..", "b\0"])
def test_a_case_of_the_split_that_is_a_path_leads_nowhere(run, case):
    precious = run.parent / "precious.nii.gz"
    precious.write_text("precious")
    (run / "split.json").write_text(
        json.dumps({"format": 1, "train": [], "val": [case.replace("/p", f"{run.parent}/p")]})
    )
    with holding(run):
        clear(run)
    assert precious.read_text() == "precious"


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"config.toml": "[tool]\nname = 'mine'\n"}, "config.toml"),
        ({"config.toml": 'loss = "ce"\n', "run.json": "{}"}, "run.json, config.toml"),
        ({"split.json": '{"train": [], "val": []}'}, "split.json"),
        ({"best.pt": "of another program"}, "best.pt"),
    ],
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_files_of_these_names_that_no_run_wrote_are_neither_replaced_nor_removed(tmp_path, files, found, overwrite):
    cohort = write_cohort(tmp_path)
    run = tmp_path / "run"
    (run / "predictions").mkdir(parents=True)
    files = {**files, "predictions/mine.nii.gz": "mine"}
    for name, text in files.items():
        (run / name).write_text(text)
    with pytest.raises(rwtool.UsageError) as caught:
        train(cohort, run, overwrite=overwrite)
    assert str(caught.value) == (
        f"{run} holds {found}, and neither config.toml nor split.json is that of a run of this rwtool; move them away, "
        "or name another run="
    )
    assert {name: (run / name).read_text() for name in files} == files
    assert names_in(run) == {name.split("/")[0] for name in files}


@pytest.mark.parametrize("more", [{}, {"overwrite": True}, {"resume": True}])
def test_a_second_training_into_a_folder_is_told_who_holds_it(tmp_path, more):
    cohort = write_cohort(tmp_path)
    run = tmp_path / "run"
    with holding(run), pytest.raises(rwtool.UsageError) as caught:
        train(cohort, run, **more)
    message = str(caught.value)
    assert message.startswith(f"{run}: process {os.getpid()} on {os.uname().nodename} has been writing into it since ")
    assert message.endswith(" (training); wait until it has ended, or name another run=")
    assert names_in(run) == set()


def test_a_run_leaves_its_files_alone_each_with_its_format(tmp_path):
    folder = train(write_cohort(tmp_path), tmp_path / "run", {**QUICK, "epochs": 1}).folder
    assert names_in(folder) == FILES
    assert json.loads((folder / "run.json").read_text())["format"] == 1
    assert json.loads((folder / "split.json").read_text())["format"] == 1
    assert (folder / "config.toml").read_text().startswith("format = 1\n")


torch.set_num_threads(1)


def test_metrics_csv_has_one_row_an_epoch_and_dice_where_there_was_a_validation(cohort, tmp_path):
    train(cohort, tmp_path, epochs=5, val_every=2)
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert lines[0] == "epoch,loss,lr,dice,dice_1,dice_2,seconds,slices_per_second,crc32"
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


def test_tensorboard_is_told_all_but_nan_and_forgets_what_is_done_again(cohort, tmp_path, monkeypatch):
    stopped = tmp_path / "stopped"
    train_and_stop(cohort, stopped)

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
