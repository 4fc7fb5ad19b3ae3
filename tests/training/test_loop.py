import json
import math
import os
import shutil
import signal
from contextlib import nullcontext

import nibabel as nib
import numpy as np
import pytest
import torch
from cohorts import (
    FILES,
    QUICK,
    THOROUGH,
    all_of,
    dice,
    discs,
    leftover,
    made_maps,
    metrics,
    names_in,
    places,
    save,
    start,
    train,
    train_and_stop,
    voxels,
    weights,
    words,
    write_cohort,
)

import rwtool
from rwtool.network.checkpoint import build_network, load_checkpoint
from rwtool.network.config import MAP_OF_LOSS, TrainConfig, read_config
from rwtool.training.averaging import move_average
from rwtool.training.cohort import Source, plan_cohort, read_cohort
from rwtool.training.distributed import Processes
from rwtool.training.loop import learning_rate, settle
from rwtool.training.objective import Objective
from rwtool.training.slices import SliceSet
from rwtool.training.validation import ClassResult, Validation

torch.set_num_threads(1)

COMPUTED = [loss for loss in MAP_OF_LOSS if loss != "matrix"]  # whose numbers are given by maps
MATRIX = ((0.0, 1.0, 2.0), (1.5, -1.0, 1.0), (3.0, 1.0, 0.5))
MIXED = [
    *({"loss": loss, "mixed_with": "dice", "mix": "gradual"} for loss in COMPUTED),
    *({"loss": loss, "mixed_with": "ce", "mix": "equal"} for loss in ("boundary", "ac", "hd", "wce-rrw")),
    {"loss": "rrw", "mixed_with": "ce", "mix": "equal"},
    {"loss": "rrw", "mixed_with": "dice", "mix": "equal"},
    {"loss": "rrw", "mixed_with": "ce", "mix": "gradual"},
]
LOSSES = [
    *({"loss": loss} for loss in (*COMPUTED, "dice", "focal", "ce", "boundary-dou")),
    *MIXED,
    {"loss": "rrw", "mixed_with": "ce", "mix": "gradual", "schedule": "authors"},
    {"loss": "ac", "ac_lambda": 1.0},
]


# Learning rate and settings


def test_the_learning_rate_is_lr_at_first_and_falls_with_the_power_0_9_towards_0():
    assert learning_rate(0, 10, 1e-3) == 1e-3
    assert learning_rate(5, 10, 2.0) == pytest.approx(2 * 0.5**0.9)
    assert learning_rate(999, 1000, 1.0) == pytest.approx(0.001**0.9)
    rates = [learning_rate(step, 50, 1e-2) for step in range(50)]
    assert rates == sorted(rates, reverse=True)


def test_the_learning_rate_may_fall_as_half_a_cosine_or_not_at_all():
    assert [learning_rate(step, 4, 2.0, "constant") for step in range(4)] == [2.0] * 4
    assert [learning_rate(step, 3, 2.0, "cosine") for step in range(3)] == pytest.approx([2, 1.5, 0.5])


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
    config = settle(TrainConfig(norm="instance", **given), read, Processes(0, processes))
    assert (config.patch, config.depth, config.batch_size) == expected
    assert config.amp in ("bf16", "off")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"batch_size": 5, "norm": "instance"}, "batch_size=5 cannot be shared by 2 processes; give a multiple"),
        ({"norm": "batch"}, "norm=batch over several processes is for CUDA devices; give norm=instance"),
        (
            {"depth": 6, "norm": "instance"},
            "depth=6 leaves a single pixel of a patch of 32 x 32 at the last stage; give a smaller",
        ),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(read, given, message):
    with pytest.raises(rwtool.UsageError, match=message):
        settle(TrainConfig(device="cpu", **given), read, Processes(0, 2))


def test_the_deepest_network_that_fits_trains(cohort, tmp_path):
    train(cohort, tmp_path / "run", depth=5, patch=(16, 32), epochs=1)
    with pytest.raises(rwtool.UsageError, match="depth=5 leaves a single pixel of a patch of 16 x 16"):
        train(cohort, tmp_path / "other", depth=5, patch=(16, 16))


# What a run leaves


def test_a_run_writes_its_files_and_nothing_else(quick):
    assert names_in(quick.folder) == FILES
    assert quick.trained
    split = json.loads((quick.folder / "split.json").read_text())
    assert sorted(split["train"] + split["val"]) == [f"case_{index}" for index in range(6)]
    assert (len(split["train"]), len(split["val"])) == (3, 3)
    assert names_in(quick.folder / "predictions") == {f"{name}.nii.gz" for name in split["val"]}


def test_config_toml_is_the_settled_configuration_in_force(quick):
    config = TrainConfig(**read_config(quick.folder / "config.toml"))
    assert config == TrainConfig(**QUICK, patch=(20, 24))
    assert load_checkpoint(quick.folder / "last.pt").config == config
    assert load_checkpoint(quick.folder / "best.pt").config == config


ROTATION = np.array([[0.6, -0.8, 0], [0.8, 0.6, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]])
OBLIQUE, SLICE_FIRST = np.eye(4), np.diag([4, 1.2, 1.2, 1.0])
OBLIQUE[:3, :3], OBLIQUE[:3, 3] = ROTATION * [0.8, 1.5, 4], [7, -30, 11]


@pytest.mark.parametrize(
    ("grid", "more", "least"),
    [
        ({"affine": OBLIQUE}, {}, 0.9),
        ({"affine": SLICE_FIRST, "turn": (0, 1, 2)}, {}, 0.9),
        ({}, {"target_spacing": (1.1, 1.0)}, 0.9),
        ({}, {"pixels": (32, 16), "loss": "boundary"}, 0.8),
        ({}, {"loss": "dice", "patch": (16, 16)}, 0.8),
        ({}, {"ema": 0.9}, 0.9),
    ],
    ids=["oblique", "slice first", "resampled", "pixels", "crops", "averaged"],
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
    return made_maps(cohort, tmp_path_factory.mktemp("maps"), ("rrw", "boundary", "hd", "ac", "skeleton"))


@pytest.mark.parametrize("loss", COMPUTED)
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


@pytest.mark.parametrize(
    ("loss", "parameters"),
    [
        ("rrw", {"profile": "exp", "sigma": 3.0}),
        ("rrw", {"instances": True, "layout": "packed", "format": "npy"}),
        ("skeleton", {"dims": 2, "instances": True}),
        ("matrix", {"matrix": MATRIX}),
    ],
)
def test_a_profile_components_and_a_matrix_train_as_the_maps_say_and_a_run_keeps_to_them(
    cohort, tmp_path, loss, parameters
):
    maps = made_maps(cohort, tmp_path / "maps", [loss], **parameters)
    settings = {"loss": loss, "mixed_with": "dice", "mix": "equal", "maps": maps}
    train_and_stop(cohort, tmp_path / "run", **settings)
    resumed = train(cohort, tmp_path / "run", {"resume": True, "maps": maps})
    train(cohort, tmp_path / "whole", **settings)
    assert all_of(resumed.folder) == all_of(tmp_path / "whole")
    assert all(math.isfinite(float(row["loss"])) for row in metrics(resumed.folder))
    stated = json.loads((resumed.folder / "run.json").read_text())["maps"]["parameters"]
    assert {name: stated.get(name) for name in parameters} == {
        **{name: None for name in ("layout", "format") if name in parameters},
        **{name: value for name, value in parameters.items() if name not in ("layout", "format")},
        **({"matrix": [list(row) for row in MATRIX]} if loss == "matrix" else {}),
    }
    train_and_stop(cohort, tmp_path / "other", **settings)
    other = (
        {"matrix": np.where(np.eye(3), 0, 1)} if loss == "matrix" else {"instances": not parameters.get("instances")}
    )
    changed = made_maps(cohort, tmp_path / "changed", [loss], **other)
    with pytest.raises(rwtool.UsageError, match="changed since the run began: the maps"):
        train(cohort, tmp_path / "other", {"resume": True, "maps": changed})


def test_a_matrix_is_asked_for(cohort, tmp_path, maps):
    with pytest.raises(rwtool.UsageError, match=r"takes its numbers from maps; .* --kind matrix --matrix FILE"):
        train(cohort, tmp_path / "run", loss="matrix")
    with pytest.raises(rwtool.UsageError, match=r"no matrix maps \(found ac, boundary, hd, rrw, skeleton\)"):
        train(cohort, tmp_path / "run", loss="matrix", maps=maps)


def test_maps_that_do_not_fit_are_refused(cohort, maps, tmp_path):
    with pytest.raises(rwtool.UsageError, match="holds rrw maps; this loss takes boundary maps"):
        train(cohort, tmp_path / "run", loss="boundary", maps=maps / "rrw")
    other = write_cohort(tmp_path)
    save(other / "labels" / "case_3.nii.gz", discs(33)[1])
    with pytest.raises(rwtool.RwtoolError, match=r"case_3.nii.gz: it was made from other labels"):
        train(other, tmp_path / "run", maps=maps, val=0)
    assert not (tmp_path / "run").exists()


# Stopped and resumed


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


# dies in the middle of writing the last checkpoint of epoch 3
KILLED = """
import os, signal
import torch
from rwtool.cli import main

whole = torch.save

def save(content, path):
    whole(content, path)
    if os.path.basename(path) == "last.pt" and content["epoch"] == 3:
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
    assert [path.name for path in run.glob(".*.rwtool-tmp/*")] == ["last.pt"]
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
        {"ema": 0.8, "norm": "batch", "val_every": 1},
        {"steps_per_epoch": 5, "lr_schedule": "cosine"},
        {"pixels": (16, 30), "validate_hd": True, "val_every": 1},
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
        ({"slice_axis": 1}, "the slice axis, the orientation"),
        ({"maps": "voxel"}, "the maps"),
    ],
)
def test_resume_refuses_another_reading_of_the_same_files(cohort, stopped, tmp_path, changed, message):
    if "maps" in changed:
        changed = {"maps": made_maps(cohort, tmp_path / "maps", ["rrw"], units="voxel")}
    with pytest.raises(rwtool.UsageError, match=f"changed since the run began: {message}; put them back"):
        train(cohort, stopped, resume=True, **changed)


# Best, display, precision


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


def test_val_0_trains_on_all_cases_without_a_validation(cohort, tmp_path):
    done = train(cohort, tmp_path, val=0)
    assert done.validation is None
    assert names_in(tmp_path) == FILES - {"best.pt", "predictions"}
    content = json.loads((tmp_path / "run.json").read_text())
    assert (content["cases"], content["validation"]) == ({"train": 6, "val": 0}, None)
    assert [row["dice"] for row in metrics(tmp_path)] == ["", ""]


class Silent:
    """A display that shows nothing."""

    def step(self, epoch, step, steps, loss, slices):
        pass

    def epoch(self, row):
        pass

    def note(self, text):
        pass


def test_a_run_is_drawn_at_its_end(cohort, tmp_path, monkeypatch):
    monkeypatch.setattr("rwtool.report.curves.can_draw", lambda: True)
    train(cohort, tmp_path)
    assert names_in(tmp_path) == {*FILES, "curves.png"}
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_that_cannot_be_drawn_is_told_and_stops_nothing(cohort, quick, tmp_path, monkeypatch):
    class Display(Silent):
        def note(self, text):
            told.append(text)

    def fail(*arguments):
        raise OSError("no space left")

    told = []
    monkeypatch.setattr("rwtool.report.curves.can_draw", lambda: True)
    monkeypatch.setattr("rwtool.report.curves.draw_curves", fail)
    monkeypatch.setattr("rwtool.training.seeds.show_training", lambda *arguments, **options: nullcontext(Display()))
    train(cohort, tmp_path)
    assert told == ["curves.png is not drawn: no space left"]
    assert all_of(tmp_path) == all_of(quick.folder)


def test_the_display_is_told_of_each_step_and_the_loss_of_an_epoch_is_their_mean(cohort, tmp_path, monkeypatch):
    class Display(Silent):
        def step(self, epoch, step, steps, loss, slices):
            told.append((epoch, step, steps, slices, loss))

        def epoch(self, row):
            rows.append(row)

    told, rows = [], []
    monkeypatch.setattr("rwtool.training.seeds.show_training", lambda *arguments, **options: nullcontext(Display()))
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
    learned = {name: value for name, value in weights(tmp_path).items() if "num_batches" not in name}
    assert {dtype for dtype, *_ in learned.values()} == {"torch.float32"}


# What is added to a run on request


def test_an_epoch_may_have_any_number_of_steps(cohort, tmp_path):
    train(cohort, tmp_path, steps_per_epoch=7, lr_schedule="constant")
    last = load_checkpoint(tmp_path / "last.pt")
    assert int(last.model["encoder.0.1.num_batches_tracked"]) == 14
    assert [row["lr"] for row in last.history] == [1e-3, 1e-3]


def test_the_average_is_what_is_validated_and_kept_and_the_training_does_not_see_it(
    cohort, quick, tmp_path, monkeypatch
):
    def watch(averaged, network, decay, step):
        move_average(averaged, network, decay, step)
        states.append({name: value.double() for name, value in network.state_dict().items()})

    states = []
    monkeypatch.setattr("rwtool.training.loop.move_average", watch)
    run = train(cohort, tmp_path / "run", ema=0.3, checkpoint_every=1).folder
    last, plain = load_checkpoint(run / "last.pt"), load_checkpoint(quick.folder / "last.pt")
    assert places(last.trained) == places(plain.model)
    assert places(last.optimizer) == places(plain.optimizer)
    assert [row["loss"] for row in last.history] == [row["loss"] for row in plain.history]
    torch.manual_seed(0)
    expected = {name: value.double() for name, value in build_network(last.config, last.task).state_dict().items()}
    for decay, state in zip([0.1, 2 / 11, 0.25, 0.3, 0.3, 0.3], states, strict=True):
        expected = {name: decay * value + (1 - decay) * state[name] for name, value in expected.items()}
    for name, value in last.model.items():
        if value.is_floating_point():
            torch.testing.assert_close(value.double(), expected[name], rtol=1e-4, atol=1e-6)
    kept = load_checkpoint(run / "checkpoints" / "epoch-2.pt")
    assert (places(kept.model), kept.trained, kept.optimizer) == (places(last.model), None, None)
    best = load_checkpoint(run / "best.pt")
    assert (places(best.model), best.trained) == (places(last.model), None)


def test_checkpoints_are_kept_by_epoch_and_cleared_with_the_run(cohort, tmp_path):
    run = train(cohort, tmp_path / "run", epochs=5, checkpoint_every=2).folder
    assert names_in(run) == {*FILES, "checkpoints"}
    assert names_in(run / "checkpoints") == {"epoch-2.pt", "epoch-4.pt"}
    assert load_checkpoint(run / "checkpoints" / "epoch-2.pt").epoch == 2
    (run / "checkpoints" / "mine.pt").touch()
    train(cohort, run, epochs=1, overwrite=True)
    assert names_in(run / "checkpoints") == {"mine.pt"}


def test_distances_of_each_validation_stand_in_metrics_csv_where_they_are_asked_for(cohort, tmp_path):
    done = train(cohort, tmp_path, epochs=3, val_every=2, validate_hd=True)
    rows = metrics(tmp_path)
    columns = [f"{name}{label}" for name in ("dice", "hd_mm", "hd95_mm") for label in ("", "_1", "_2")]
    assert list(rows[0]) == ["epoch", "loss", "lr", *columns, "seconds", "slices_per_second", "crc32"]
    assert [bool(row["hd95_mm_2"]) for row in rows] == [False, True, True]
    found = {found.label: found for found in done.validation.classes}
    for label in (1, 2):  # found in every case
        assert float(rows[2][f"hd_mm_{label}"]) == pytest.approx(found[label].hd_mm, rel=1e-5)
        assert float(rows[2][f"hd95_mm_{label}"]) == pytest.approx(found[label].hd95_mm, rel=1e-5)
    means = (float(rows[1]["hd_mm_1"]) + float(rows[1]["hd_mm_2"])) / 2
    assert float(rows[1]["hd_mm"]) == pytest.approx(means, rel=1e-5)


# NaN


def test_a_loss_that_turns_nan_stops_at_its_step_and_leaves_the_epochs_before(cohort, tmp_path):
    with pytest.raises(rwtool.RwtoolError) as caught:
        train(cohort, tmp_path, lr=1e30, batch_size=12)  # a step an epoch: the first breaks the weights
    names = json.loads((tmp_path / "split.json").read_text())["train"]
    assert str(caught.value) == (
        f"the loss became nan in step 1 of epoch 2, with slices of {', '.join(names)}; the checkpoints are of the "
        "epochs before; look at these images, or try a lower lr=, amp=off, or normalize=zscore"
    )
    assert not isinstance(caught.value, rwtool.UsageError)
    last = load_checkpoint(tmp_path / "last.pt")
    assert last.epoch == 1
    assert all(value.isfinite().all() for value in last.model.values())
    assert [row["epoch"] for row in metrics(tmp_path)] == ["1"]
    assert names_in(tmp_path) == {"config.toml", "diverged.json", "last.pt", "metrics.csv", "split.json"}
    assert (caught.value.epoch, caught.value.step) == (2, 1)
    left = json.loads((tmp_path / "diverged.json").read_text())
    assert left.pop("crc32")
    assert left == {"epoch": 2, "step": 1, "message": str(caught.value), "format": 1}


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
