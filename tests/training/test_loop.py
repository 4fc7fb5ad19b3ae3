import json
import math
import os
import shutil
import signal
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from cohorts import (
    FILES,
    QUICK,
    THOROUGH,
    dice,
    discs,
    leftover,
    metrics,
    names_in,
    places,
    save,
    start,
    train,
    voxels,
    weights,
    words,
    write_cohort,
)

import rwtool
from rwtool.network.checkpoint import Checkpoint, load_checkpoint
from rwtool.network.config import MAP_OF_LOSS, TrainConfig, read_config
from rwtool.training.cohort import Source, plan_cohort, read_cohort
from rwtool.training.distributed import Processes
from rwtool.training.loop import learning_rate, settle
from rwtool.training.objective import Objective
from rwtool.training.slices import SliceSet
from rwtool.training.validation import ClassResult, Validation

torch.set_num_threads(1)

MIXED = [
    *({"loss": loss, "mixed_with": "dice", "mix": "gradual"} for loss in MAP_OF_LOSS),
    *({"loss": loss, "mixed_with": "ce", "mix": "equal"} for loss in MAP_OF_LOSS),
    {"loss": "rrw", "mixed_with": "dice", "mix": "equal"},
    {"loss": "rrw", "mixed_with": "ce", "mix": "gradual"},
]
LOSSES = [
    *({"loss": loss} for loss in (*MAP_OF_LOSS, "dice", "focal", "ce")),
    *MIXED,
    {"loss": "rrw", "mixed_with": "ce", "mix": "gradual", "schedule": "authors"},
    {"loss": "ac", "ac_lambda": 1.0},
]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="module")
def quick(cohort, tmp_path_factory):
    return train(cohort, tmp_path_factory.mktemp("runs") / "quick")


# Learning rate and settings


def test_the_learning_rate_is_lr_at_first_and_falls_with_the_power_0_9_towards_0():
    assert learning_rate(0, 10, 1e-3) == 1e-3
    assert learning_rate(5, 10, 2.0) == pytest.approx(2 * 0.5**0.9)
    assert learning_rate(999, 1000, 1.0) == pytest.approx(0.001**0.9)
    rates = [learning_rate(step, 50, 1e-2) for step in range(50)]
    assert rates == sorted(rates, reverse=True)


def test_the_rate_falls_over_the_steps_of_all_epochs(quick):
    last = load_checkpoint(quick.folder / "last.pt")
    expected = [1e-3 * (1 - 2 / 6) ** 0.9, 1e-3 * (1 - 5 / 6) ** 0.9]  # the last of three steps of two epochs
    assert [row["lr"] for row in last.history] == pytest.approx(expected)
    assert last.optimizer["param_groups"][0]["lr"] == pytest.approx(expected[1])


@pytest.fixture(scope="module")
def read(cohort):
    config = TrainConfig()
    return read_cohort(plan_cohort(Source(str(cohort / "images"), str(cohort / "labels")), config), config)


@pytest.mark.parametrize(
    ("given", "processes", "expected"),
    [
        ({}, 1, ((20, 24), 3, 12)),  # fewer slices than a batch of 32
        ({}, 5, ((20, 24), 3, 10)),
        ({"depth": 4}, 1, ((24, 24), 4, 12)),
        ({"patch": (9, 17)}, 1, ((10, 18), 2, 12)),
        ({"patch": (9, 17), "depth": 3, "batch_size": 6}, 3, ((12, 20), 3, 6)),
    ],
)
def test_what_is_not_given_follows_from_the_data(read, given, processes, expected):
    config = settle(TrainConfig(**given), read, Processes(0, processes))
    assert (config.patch, config.depth, config.batch_size) == expected
    assert config.amp in ("bf16", "off")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"batch_size": 5}, "--batch-size 5 cannot be shared by 2 processes; give a multiple"),
        ({"norm": "batch"}, "--norm batch over several processes is for CUDA devices; use --norm instance"),
        ({"depth": 6}, "--depth 6 leaves a single pixel of a patch of 32 x 32 at the last stage; give a smaller"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(read, given, message):
    with pytest.raises(rwtool.UsageError, match=message):
        settle(TrainConfig(device="cpu", **given), read, Processes(0, 2))


def test_the_deepest_network_that_fits_trains(cohort, tmp_path):
    train(cohort, tmp_path / "run", depth=5, patch=(16, 32), epochs=1)
    with pytest.raises(rwtool.UsageError, match="--depth 5 leaves a single pixel of a patch of 16 x 16"):
        train(cohort, tmp_path / "other", depth=5, patch=(16, 16))


# What a run leaves


def test_a_run_writes_its_files_and_nothing_else(quick):
    assert names_in(quick.folder) == FILES
    assert quick.trained
    split = json.loads((quick.folder / "split.json").read_text())
    assert sorted(split["train"] + split["val"]) == [f"case_{index}" for index in range(6)]
    assert (len(split["train"]), len(split["val"])) == (3, 3)
    assert names_in(quick.folder / "predictions") == {f"{name}.nii.gz" for name in split["val"]}


def test_metrics_csv_has_one_row_an_epoch_and_dice_where_there_was_a_validation(cohort, tmp_path):
    train(cohort, tmp_path, epochs=5, val_every=2)
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert lines[0] == "epoch,loss,lr,dice,dice_1,dice_2,seconds,slices_per_second"
    rows = metrics(tmp_path)
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert [bool(row["dice"]) for row in rows] == [False, True, False, True, True]
    assert all(float(row["slices_per_second"]) > 0 for row in rows)
    assert float(rows[4]["dice"]) == pytest.approx((float(rows[4]["dice_1"]) + float(rows[4]["dice_2"])) / 2, abs=1e-5)


def test_config_toml_is_the_settled_configuration_in_force(quick):
    config = TrainConfig(**read_config(quick.folder / "config.toml"))
    assert config == TrainConfig(**QUICK, patch=(20, 24))
    assert load_checkpoint(quick.folder / "last.pt").config == config
    assert load_checkpoint(quick.folder / "best.pt").config == config


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


ROTATION = np.array([[0.6, -0.8, 0], [0.8, 0.6, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]])
OBLIQUE, SLICE_FIRST = np.eye(4), np.diag([4, 1.2, 1.2, 1.0])
OBLIQUE[:3, :3], OBLIQUE[:3, 3] = ROTATION * [0.8, 1.5, 4], [7, -30, 11]


@pytest.mark.parametrize(
    ("grid", "more", "least"),
    [
        ({"affine": OBLIQUE}, {}, 0.9),
        ({"affine": SLICE_FIRST, "turn": (0, 1, 2)}, {}, 0.9),
        ({}, {"target_spacing": (1.1, 1.0)}, 0.9),
        ({}, {"loss": "dice", "patch": (16, 16)}, 0.8),
    ],
    ids=["oblique", "slice first", "resampled", "crops"],
)
def test_it_learns_the_discs_and_writes_them_on_the_grid_of_the_files(tmp_path, grid, more, least):
    cohort = write_cohort(tmp_path, **grid)
    done = train(cohort, tmp_path / "run", THOROUGH, **more)
    losses = [float(row["loss"]) for row in metrics(done.folder)]
    assert max(losses[-3:]) < min(losses[:3])
    predictions = list((done.folder / "predictions").iterdir())
    assert len(predictions) == 3
    for path in predictions:
        image, labels = nib.load(path), nib.load(cohort / "labels" / path.name)
        assert image.get_data_dtype() == np.uint8
        assert image.header.get_xyzt_units()[0] == labels.header.get_xyzt_units()[0]
        np.testing.assert_array_equal(image.affine, labels.affine)
        for label in (1, 2):
            assert dice(voxels(path) == label, np.asarray(labels.dataobj) == label) > least


# Losses and maps


@pytest.fixture(scope="module")
def runs_of_losses(cohort, tmp_path_factory):
    folder = tmp_path_factory.mktemp("losses")
    for index, settings in enumerate(LOSSES):
        train(cohort, folder / str(index), loss_free(settings), **settings)
    return folder


def loss_free(settings):
    """Two epochs only where a second one differs from the first: the weight of a gradual mixture is 1 there."""
    return QUICK if settings.get("mix") == "gradual" else {**QUICK, "epochs": 1}


@pytest.mark.parametrize("index", range(len(LOSSES)), ids=lambda index: "-".join(map(str, LOSSES[index].values())))
def test_every_loss_runs_to_the_end(runs_of_losses, index):
    run = runs_of_losses / str(index)
    assert names_in(run) == FILES
    assert all(math.isfinite(float(row["loss"])) for row in metrics(run))
    config = load_checkpoint(run / "last.pt").config
    assert {name: getattr(config, name) for name in LOSSES[index]} == LOSSES[index]


def test_no_two_losses_train_the_same_network(cohort, runs_of_losses, tmp_path):
    found = {json.dumps(weights(runs_of_losses / str(index))) for index in range(len(LOSSES))}
    # with two epochs the schedules of the paper and the authors differ: 0.01 and 0.99
    assert len(found) == len(LOSSES)
    train(cohort, tmp_path, epochs=1, loss="hd", mixed_with="ce", mix="gradual")
    train(cohort, tmp_path / "ce", epochs=1, loss="ce")
    assert weights(tmp_path) == weights(tmp_path / "ce")  # the first epoch of a gradual mixture


@pytest.fixture(scope="module")
def maps(cohort, tmp_path_factory):
    return made_maps(cohort, tmp_path_factory.mktemp("maps"))


def made_maps(cohort, folder, kinds=("rrw", "boundary", "hd", "ac"), **parameters):
    rwtool.make_maps(cohort / "labels", folder, kinds=kinds, jobs=1, **parameters)
    return folder


@pytest.mark.parametrize("loss", MAP_OF_LOSS)
def test_maps_from_files_give_the_run_of_maps_computed_at_the_start_to_the_bit(cohort, maps, tmp_path, loss):
    train(cohort, tmp_path / "computed", loss=loss)
    train(cohort, tmp_path / "read", loss=loss, maps=maps)
    computed, found = (torch.load(tmp_path / run / "last.pt", weights_only=True) for run in ("computed", "read"))
    assert places(found) == places(computed)
    content = json.loads((tmp_path / "read" / "run.json").read_text())
    assert content["maps"]["folder"] == str(maps / MAP_OF_LOSS[loss])


def test_maps_of_other_parameters_give_another_run(cohort, tmp_path):
    train(cohort, tmp_path / "computed", loss="boundary")
    maps = made_maps(cohort, tmp_path / "maps", ["boundary"], units="voxel")
    train(cohort, tmp_path / "read", loss="boundary", maps=maps / "boundary")  # the folder of the kind itself
    assert weights(tmp_path / "read") != weights(tmp_path / "computed")


def test_maps_that_do_not_fit_are_refused(cohort, maps, tmp_path):
    with pytest.raises(rwtool.UsageError, match="holds rrw maps; this loss takes boundary maps"):
        train(cohort, tmp_path / "run", loss="boundary", maps=maps / "rrw")
    other = write_cohort(tmp_path)
    save(other / "labels" / "case_3.nii.gz", discs(33)[1])
    with pytest.raises(rwtool.RwtoolError, match=r"case_3.nii.gz: it was made from other labels"):
        train(other, tmp_path / "run", maps=maps, val=0)
    assert not (tmp_path / "run").exists()


# Stopped and resumed


def train_and_stop(cohort, run, settings=QUICK, **more):
    """A training that is stopped once the checkpoint of its first epoch is there."""
    saved = Checkpoint.save

    def save_and_stop(self, path):
        saved(self, path)
        if path.name == "last.pt":
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoint, "save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            train(cohort, run, settings, **more)


@pytest.fixture(scope="module")
def stopped_once(cohort, tmp_path_factory):
    run = tmp_path_factory.mktemp("stopped") / "run"
    train_and_stop(cohort, run)
    return run


@pytest.fixture
def stopped(stopped_once, tmp_path):
    """A run that was stopped after the first of its two epochs."""
    return shutil.copytree(stopped_once, tmp_path / "stopped")


@pytest.fixture
def finished(quick, tmp_path):
    """A run that is done."""
    return shutil.copytree(quick.folder, tmp_path / "finished")


def all_of(run):
    """All that a run holds, times and places apart, exactly."""
    content = json.loads((run / "run.json").read_text())
    rows = [[value for name, value in row.items() if not name.startswith(("sec", "slices"))] for row in metrics(run)]
    return {
        "last": places(torch.load(run / "last.pt", weights_only=True)),
        "best": places(torch.load(run / "best.pt", weights_only=True)),
        "metrics": rows,
        "run": {name: value for name, value in content.items() if name != "seconds"},
        "config": (run / "config.toml").read_text(),
        "split": (run / "split.json").read_text(),
        "predictions": {path.name: path.read_bytes() for path in (run / "predictions").iterdir()},
    }


# dies in the middle of writing the last checkpoint of epoch 3
KILLED = """
import os, signal
import torch
from rwtool.cli import main

whole = torch.save

def save(content, path):
    whole(content, path)
    if path.name == "last.pt" and content["epoch"] == 3:
        os.truncate(path, 1000)
        os.kill(os.getpid(), signal.SIGKILL)

torch.save = save
main()
"""


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_a_run_that_is_killed_and_resumed_is_the_one_of_one_go_to_the_bit(cohort, tmp_path):
    settings = {**QUICK, "epochs": 4, "loss": "boundary", "mixed_with": "dice", "mix": "gradual", "val_every": 1}
    run, in_one_go = tmp_path / "run", tmp_path / "in one go"
    killed = start("-c", KILLED, "train", cohort / "images", cohort / "labels", run, *words(settings))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert load_checkpoint(run / "last.pt").epoch == 2
    assert len(list(run.glob(".last.pt.*"))) == 1
    assert train(cohort, run, settings, resume=True).trained
    train(cohort, in_one_go, settings)
    assert all_of(run) == all_of(in_one_go)
    assert names_in(run) == FILES


@pytest.mark.parametrize(
    "more",
    [
        {"amp": "fp16"},
        {"amp": "bf16"},
        {"norm": "batch"},
        {"patch": (16, 16), "loss": "ce", "val_every": 1},
        {"normalize": "ct", "target_spacing": (1.0, 1.0)},
    ],
    ids=lambda more: next(iter(more)),
)
def test_a_stopped_run_goes_on_to_the_bit(cohort, tmp_path, more):
    train_and_stop(cohort, tmp_path / "stopped", **more)
    assert load_checkpoint(tmp_path / "stopped" / "last.pt").epoch == 1
    train(cohort, tmp_path / "stopped", resume=True, **more)
    train(cohort, tmp_path / "whole", **more)
    assert all_of(tmp_path / "stopped") == all_of(tmp_path / "whole")


def test_resume_keeps_the_settings_that_are_left_out(cohort, tmp_path):
    settings = {**QUICK, "loss": "hd", "mixed_with": "ce", "lr": 0.01, "seed": 5, "split_seed": 3}
    train_and_stop(cohort, tmp_path / "stopped", settings)
    train(cohort, tmp_path / "stopped", {}, resume=True)
    train(cohort, tmp_path / "whole", settings)
    assert all_of(tmp_path / "stopped") == all_of(tmp_path / "whole")


def test_resume_starts_a_run_where_there_is_none(cohort, quick, tmp_path):
    assert train(cohort, tmp_path / "run", resume=True).trained
    assert weights(tmp_path / "run") == weights(quick.folder)


def test_what_comes_before_the_last_checkpoint_is_done_again_after_a_kill(cohort, tmp_path, monkeypatch):
    def stop(path, history, cohort):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("rwtool.training.loop.write_metrics", stop)
        with pytest.raises(KeyboardInterrupt):
            train(cohort, tmp_path, epochs=1)
    assert train(cohort, tmp_path, epochs=1, resume=True).trained
    assert len(metrics(tmp_path)) == 1


def test_what_a_killed_process_left_is_removed_and_no_other_file(cohort, tmp_path):
    left = [leftover(folder) for folder in (tmp_path, tmp_path / "predictions")]
    others = [tmp_path / ".last.pt.1@elsewhere.rwtool-tmp", tmp_path / ".git"]
    for folder in others:
        folder.mkdir()
    train(cohort, tmp_path)
    assert not any(folder.exists() for folder in left)
    assert all(folder.exists() for folder in others)


def test_a_run_goes_on_on_another_device(cohort, quick, stopped):
    assert load_checkpoint(stopped / "last.pt").config.device == "auto"
    assert train(cohort, stopped, device="cpu", resume=True).trained
    assert weights(stopped) == weights(quick.folder)


def test_a_finished_run_is_not_trained_again(cohort, finished):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    done = train(cohort, finished, resume=True)
    assert (done.trained, done.validation) == (False, None)
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"lr": 0.5}, "these differ: lr=0.5 (it was 0.001); leave them out, or start another RUN"),
        ({"loss": "dice", "epochs": 5}, "loss=dice (it was rrw)"),
        ({"mixed_with": "ce"}, "mixed_with=ce (it was None)"),
        ({"seed": 1}, "seed=1 (it was 0)"),
        ({"val": 0.3}, "val=0.3 (it was 0.5)"),
    ],
)
def test_resume_refuses_other_settings(cohort, stopped, changed, message):
    before = weights(stopped)
    with pytest.raises(rwtool.UsageError) as caught:
        train(cohort, stopped, {**QUICK, **changed}, resume=True)
    assert all(part in str(caught.value) for part in message.split("; "))
    assert weights(stopped) == before


def test_resume_refuses_other_files_and_another_split(tmp_path):
    cohort = write_cohort(tmp_path)
    run = tmp_path / "run"
    train_and_stop(cohort, run)
    split = json.loads((run / "split.json").read_text())
    others = tmp_path / "others.json"
    others.write_text(json.dumps({"train": split["val"], "val": split["train"]}))
    with pytest.raises(rwtool.UsageError, match="run: changed since the run began: the split; put them back"):
        train(cohort, run, split=str(others), resume=True)
    others.write_text(json.dumps({"train": split["train"], "val": split["val"][1:]}))
    with pytest.raises(rwtool.UsageError, match=f"the files of {split['val'][0]}, the split"):
        train(cohort, run, split=str(others), resume=True)
    for path in (cohort / "labels" / f"{split['val'][0]}.nii.gz", cohort / "images" / f"{split['train'][0]}.nii.gz"):
        before = path.read_bytes()
        save(path, discs(9)["images" not in str(path)])
        with pytest.raises(rwtool.UsageError, match=f"changed since the run began: the files of {path.name[:6]};"):
            train(cohort, run, resume=True)
        path.write_bytes(before)
    assert train(cohort, run, split=str(run / "split.json"), resume=True).trained


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"classes": (0, 1, 2, 3)}, "the classes"),
        ({"ignore": 2}, "the classes, the ignored label"),
        ({"slice_axis": 1}, "the slice axis"),
        ({"maps": "voxel"}, "the maps"),
    ],
)
def test_resume_refuses_another_reading_of_the_same_files(cohort, stopped, tmp_path, changed, message):
    if "maps" in changed:
        changed = {"maps": made_maps(cohort, tmp_path / "maps", ["rrw"], units="voxel")}
    with pytest.raises(rwtool.UsageError, match=f"changed since the run began: {message}; put them back"):
        train(cohort, stopped, resume=True, **changed)


def test_a_run_in_the_way_is_refused_unless_it_is_resumed_or_overwritten(cohort, finished):
    before = all_of(finished)
    with pytest.raises(rwtool.UsageError, match=f"{finished} holds a run; resume=True goes on with it, overwrite=True"):
        train(cohort, finished, seed=1)
    assert all_of(finished) == before


def test_overwrite_starts_anew_and_leaves_what_is_not_the_runs(cohort, quick, tmp_path):
    train(cohort, tmp_path, seed=1, epochs=3, val=0.7)
    (tmp_path / "notes.txt").write_text("mine")
    assert weights(tmp_path) != weights(quick.folder)
    train(cohort, tmp_path, overwrite=True)
    assert all_of(tmp_path) == all_of(quick.folder)
    assert names_in(tmp_path) == {*FILES, "notes.txt"}


@pytest.mark.parametrize(
    "wrong",
    [{"loss": "boundary", "maps": "nowhere"}, {"device": "cuda:99"}, {"split": "nowhere"}, {"depth": 6}],
    ids=lambda wrong: list(wrong)[-1],
)
def test_overwrite_costs_nothing_where_the_new_run_cannot_start(cohort, finished, wrong):
    before = all_of(finished)
    with pytest.raises(rwtool.UsageError):
        train(cohort, finished, overwrite=True, **wrong)
    assert all_of(finished) == before


# Best, seeds, threads


@pytest.fixture
def scored(monkeypatch):
    """Validations that find these mean Dice, one after another."""

    def arrange(*scores):
        left = iter(scores)

        def scripted(*arguments, **options):
            return Validation((ClassResult(1, "1", next(left), math.nan, math.nan, {}),))

        monkeypatch.setattr("rwtool.training.loop.validate", scripted)

    return arrange


def test_best_pt_is_of_the_first_largest_mean_dice(cohort, tmp_path, scored):
    scored(math.nan, 0.3, 0.6, 0.6, 0.5)
    train(cohort, tmp_path, epochs=5, val_every=1)
    best, last = load_checkpoint(tmp_path / "best.pt"), load_checkpoint(tmp_path / "last.pt")
    assert (best.epoch, best.best, best.optimizer) == (3, 0.6, None)
    assert (last.epoch, last.best) == (5, 0.6)
    assert weights(tmp_path, "best") != weights(tmp_path)
    assert [row["dice"] for row in metrics(tmp_path)] == ["", "0.3", "0.6", "0.6", "0.5"]
    assert [len(found.history) for found in (best, last)] == [3, 5]


@pytest.mark.parametrize(("scores", "epoch"), [((0.6, 0.5), 1), ((0.5, 0.6), 2)])
def test_a_resumed_run_knows_its_best_epoch(cohort, tmp_path, scored, scores, epoch):
    scored(*scores)
    train_and_stop(cohort, tmp_path, val_every=1)
    train(cohort, tmp_path, val_every=1, resume=True)
    best, last = load_checkpoint(tmp_path / "best.pt"), load_checkpoint(tmp_path / "last.pt")
    assert (best.epoch, last.epoch) == (epoch, 2)
    assert (best.optimizer, best.scaler) == (None, None)


def test_the_same_seed_gives_the_same_run_and_another_seed_another(cohort, quick, tmp_path):
    first, second = rwtool.train(cohort / "images", cohort / "labels", tmp_path, seeds=[0, 1], **QUICK)
    assert [first.folder, second.folder] == [tmp_path / "seed-0", tmp_path / "seed-1"]
    assert weights(first.folder) == weights(quick.folder)
    assert weights(second.folder) != weights(quick.folder)
    assert load_checkpoint(second.folder / "last.pt").config.seed == 1
    assert (first.folder / "split.json").read_text() == (second.folder / "split.json").read_text()
    alone = train(cohort, tmp_path / "alone", seed=1)
    assert weights(alone.folder) == weights(second.folder)


def test_resume_of_seeds_trains_those_that_are_not_done(cohort, tmp_path):
    train(cohort, tmp_path / "seed-0", seed=0)
    train_and_stop(cohort, tmp_path / "seed-1", seed=1)
    for seeds, trained in (([0, 1], [False, True]), ([0, 1, 2], [False, False, True])):
        done = rwtool.train(cohort / "images", cohort / "labels", tmp_path, seeds=seeds, resume=True, **QUICK)
        assert [run.trained for run in done] == trained
    train(cohort, tmp_path / "alone", seed=1)
    assert all_of(tmp_path / "alone")["last"] == all_of(tmp_path / "seed-1")["last"]
    assert load_checkpoint(tmp_path / "seed-2" / "last.pt").config.seed == 2


def test_val_0_trains_on_all_cases_without_a_validation(cohort, tmp_path):
    done = train(cohort, tmp_path, val=0)
    assert done.validation is None
    assert names_in(tmp_path) == FILES - {"best.pt", "predictions"}
    content = json.loads((tmp_path / "run.json").read_text())
    assert (content["cases"], content["validation"]) == ({"train": 6, "val": 0}, None)
    assert [row["dice"] for row in metrics(tmp_path)] == ["", ""]


def test_the_display_is_told_of_each_step_and_the_loss_of_an_epoch_is_their_mean(cohort, tmp_path, monkeypatch):
    class Display:
        def step(self, epoch, step, steps, loss, slices):
            told.append((epoch, step, steps, slices, loss))

        def epoch(self, row):
            rows.append(row)

    told, rows = [], []
    monkeypatch.setattr("rwtool.training.study.show_training", lambda *arguments, **options: nullcontext(Display()))
    train(cohort, tmp_path)
    assert [entry[:4] for entry in told] == [(epoch, step, 3, 4) for epoch in (0, 1) for step in (1, 2, 3)]
    losses = np.array([loss for *_, loss in told]).reshape(2, 3)
    assert [row["loss"] for row in rows] == pytest.approx(losses.mean(axis=1))
    assert losses.std(axis=1).min() > 1e-4
    assert [float(row["loss"]) for row in metrics(tmp_path)] == pytest.approx(losses.mean(axis=1), abs=1e-5)


def test_compile_compiles_the_network_that_is_trained(cohort, quick, tmp_path, monkeypatch):
    compiled = []

    def compile_(model):
        compiled.append(model)
        return model

    monkeypatch.setattr(torch, "compile", compile_)
    train(cohort, tmp_path, compile=True)
    assert [type(model) for model in compiled] == [rwtool.UNet2d]
    assert weights(tmp_path) == weights(quick.folder)


def test_mixed_precision_trains_another_network_with_float32_weights(cohort, quick, tmp_path):
    train(cohort, tmp_path, amp="bf16")
    assert weights(tmp_path) != weights(quick.folder)
    assert {dtype for dtype, *_ in weights(tmp_path).values()} == {"torch.float32"}


# NaN


def test_a_loss_that_turns_nan_stops_at_its_step_and_leaves_the_epochs_before(cohort, tmp_path):
    with pytest.raises(rwtool.RwtoolError) as caught:
        train(cohort, tmp_path, lr=1e30, batch_size=12)  # a step an epoch: the first breaks the weights
    names = json.loads((tmp_path / "split.json").read_text())["train"]
    assert str(caught.value) == (
        f"the loss became nan in step 1 of epoch 2, with slices of {', '.join(names)}; the checkpoints are of the "
        "epochs before; look at these images, or try a lower --lr, --amp off, or --normalize zscore"
    )
    assert not isinstance(caught.value, rwtool.UsageError)
    last = load_checkpoint(tmp_path / "last.pt")
    assert last.epoch == 1
    assert all(value.isfinite().all() for value in last.model.values())
    assert [row["epoch"] for row in metrics(tmp_path)] == ["1"]
    assert names_in(tmp_path) == {"config.toml", "last.pt", "metrics.csv", "split.json"}


def test_nan_of_one_step_names_the_cases_of_that_step_alone(cohort, tmp_path, monkeypatch):
    seen = []

    class Broken(Objective):
        def __call__(self, logits, batch, epoch):
            seen.append(batch)
            return super().__call__(logits, batch, epoch) * (math.inf if len(seen) == 2 else 1)

    class Watched(SliceSet):
        def plan_epoch(self, *arguments):
            plans.append((plan := super().plan_epoch(*arguments), self.names))
            return plan

    plans = []
    monkeypatch.setattr("rwtool.training.loop.Objective", Broken)
    monkeypatch.setattr("rwtool.training.loop.SliceSet", Watched)
    with pytest.raises(rwtool.RwtoolError, match="became inf in step 2 of epoch 1, with slices of ") as caught:
        train(cohort, tmp_path, batch_size=2)
    ((plan, names),) = plans
    expected = sorted({names[row] for row in plan.rows[1].tolist()})
    assert f"with slices of {', '.join(expected)};" in str(caught.value)
    assert not (tmp_path / "last.pt").exists()
    assert len(seen) == 2


def test_an_image_of_inf_is_refused_at_reading(tmp_path):
    cohort = write_cohort(tmp_path)
    image = discs(2)[0].astype(np.float32)
    image[1, 2, 3] = np.inf
    save(cohort / "images" / "case_2.nii.gz", image)
    with pytest.raises(rwtool.RwtoolError, match="1 of 6 cases cannot be read") as caught:
        train(cohort, tmp_path / "run")
    assert "case_2.nii.gz: expected finite intensities; found inf at (z, y, x) = (1, 2, 3); mend" in str(caught.value)
    assert not (tmp_path / "run").exists()


# TensorBoard and several processes


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


def test_two_processes_train_the_network_of_one(cohort, tmp_path):
    settings = {**QUICK, "loss": "rrw", "mixed_with": "dice", "device": "cpu"}
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2, "-m", "rwtool"]
    done = start(*launch, "train", cohort / "images", cohort / "labels", tmp_path / "two", *words(settings))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("validation in 3D, 3 cases") == 1
    assert done.stderr.count("epoch 1/2") == 1
    train(cohort, tmp_path / "one", settings)
    one, two = (load_checkpoint(tmp_path / run / "last.pt") for run in ("one", "two"))
    assert one.model.keys() == two.model.keys()
    for name, value in one.model.items():
        torch.testing.assert_close(two.model[name], value, rtol=1e-4, atol=1e-5)
    assert [row["loss"] for row in two.history] == pytest.approx([row["loss"] for row in one.history], rel=1e-5)
    assert two.history[1]["dice"] == pytest.approx(one.history[1]["dice"], abs=0.02)
    assert names_in(tmp_path / "two") == FILES
    assert names_in(tmp_path / "two" / "predictions") == names_in(tmp_path / "one" / "predictions")
    assert len(metrics(tmp_path / "two")) == 2
