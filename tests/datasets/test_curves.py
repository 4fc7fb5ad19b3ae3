import json
import re
import shutil

import numpy as np
import pytest
from runfolders import SPLIT, write_curve

import rwtool
from rwtool.datasets.curves import find_runs, read_class_names, read_curve, refuse_mixtures
from rwtool.errors import RwtoolError

DICE = {1: [None, 0.5, 0.75], 3: [None, 0.25, 0.5]}
LOSS = [0.5, -0.25, -0.5]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_is_read_epoch_by_epoch(here):
    curve = read_curve(write_curve(here / "run", LOSS, DICE, seed=7))
    assert curve.loss.tolist() == LOSS
    np.testing.assert_array_equal(curve.dice, [np.nan, 0.375, 0.625])
    assert list(curve.class_dice) == [1, 3]
    np.testing.assert_array_equal(curve.class_dice[3], [np.nan, 0.25, 0.5])
    assert (curve.seed, curve.planned, curve.finished, curve.diverged) == (7, 3, True, None)
    assert curve.cases == {"train": ("a", "b"), "val": ("c", "d")}


def test_what_rwtool_train_writes_is_read(quick):
    curve = read_curve(quick.folder)
    assert (len(curve.loss), curve.finished, sorted(curve.class_dice)) == (2, True, [1, 2])
    assert curve.dice[-1] == pytest.approx(quick.validation.mean_dice, rel=1e-5)
    assert read_class_names(quick.folder) == {0: "background", 1: "1", 2: "2"}


def test_a_run_is_finished_with_its_last_epoch_or_when_it_has_diverged(here):
    assert not read_curve(write_curve(here / "stopped", LOSS, DICE, epochs=4)).finished
    diverged = read_curve(write_curve(here / "diverged", LOSS, DICE, epochs=9, diverged=4))
    assert (diverged.finished, diverged.diverged) == (True, 4)
    at_once = read_curve(write_curve(here / "at_once", [], {}, epochs=9, diverged=1))
    assert (at_once.finished, len(at_once.loss), at_once.class_dice) == (True, 0, {})
    (here / "empty").mkdir()
    assert read_curve(here / "empty") is None
    assert read_class_names(here / "empty") == {}


def test_folders_are_runs_or_hold_the_runs_of_seeds(here):
    for seed in (10, 2):
        write_curve(here / "rrw" / f"seed-{seed}", LOSS, DICE)
    (here / "rrw" / "seed-3").mkdir()
    for name in ("one", "two"):
        write_curve(here / name, LOSS, DICE)
    found = find_runs(["rrw", "mine=one,two"])
    assert {method: [str(folder) for folder in folders] for method, folders in found.items()} == {
        "rrw": ["rrw/seed-2", "rrw/seed-3", "rrw/seed-10"],
        "mine": ["one", "two"],
    }


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        (["nowhere"], "nowhere: there is no such folder"),
        (
            ["empty"],
            "empty: neither a run of rwtool train nor seed-0, seed-1, ... in it; train with several seeds,",
        ),
        (["one", "x=one"], "one is given twice, and one run cannot count as two"),
        (["x=one,one"], "one is given twice"),
        (["x=one", "x=two"], "two methods are called 'x'"),
        (["=one"], "runs are DIR, NAME=DIR or NAME=DIR1,DIR2"),
    ],
)
def test_what_is_no_folder_of_runs_is_refused(here, runs, message):
    (here / "empty").mkdir()
    for name in ("one", "two"):
        write_curve(here / name, LOSS, DICE)
    with pytest.raises(rwtool.UsageError, match=re.escape(message)):
        find_runs(runs)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metrics.csv", "epoch,loss\n1,2\n", "metrics.csv, line 1: expected the columns epoch, loss and dice"),
        ("metrics.csv", "epoch,loss,dice\n2,1,\n", "metrics.csv, line 2: expected epoch 1, found '2'"),
        ("metrics.csv", "epoch,loss,dice\n1,one,\n", "metrics.csv, line 2: could not convert"),
        ("metrics.csv", "epoch,loss,dice\n1\n", "metrics.csv, line 2: expected 3 fields"),
        ("metrics.csv", "epoch,loss,dice\n\xff", "metrics.csv: cannot be read as a table"),
        (
            "config.toml",
            "seed = 'x'\nepochs = 3",
            "config.toml: these are not the settings of a run: $.seed: expected",
        ),
        ("split.json", "[", "split.json: cannot be read as a split"),
        (
            "diverged.json",
            '{"format": 2}',
            "diverged.json: cannot be read as what a diverged run left: its",
        ),
    ],
)
def test_a_damaged_file_is_named(here, name, content, message):
    run = write_curve(here / "run", LOSS, DICE)
    (run / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(rwtool.RwtoolError, match=re.escape(message)):
        read_curve(run)


def curves(*folders):
    return [read_curve(folder) for folder in folders]


def test_runs_of_one_method_differ_in_seed_and_device_alone(here):
    first = write_curve(here / "a", LOSS, DICE, seed=0, device="cpu")
    fine = write_curve(here / "b", LOSS, DICE, seed=1, device="cuda")
    refuse_mixtures({"m": curves(first, fine)})
    other = write_curve(here / "c", LOSS, DICE, seed=2, lr=0.1)
    with pytest.raises(rwtool.UsageError) as caught:
        refuse_mixtures({"m": curves(first, other)})
    assert str(caught.value) == (
        f"{first} and {other} differ in more than their seed: lr is not given and 0.1; give them as two methods, or "
        "leave one out"
    )
    refuse_mixtures({"m": curves(first), "n": curves(other)})
    twice = write_curve(here / "d", LOSS, DICE, seed=0)
    with pytest.raises(rwtool.UsageError, match="have the same seed, 0, so they are one run twice"):
        refuse_mixtures({"m": curves(first, twice)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": {**SPLIT, "val": ["c", "e"]}}, "were validated on other cases: d, e"),
        ({"split": {**SPLIT, "train": ["a"]}}, "were trained on other cases: b"),
        ({"dice": {1: DICE[1]}}, "have other classes: [1, 3] and [1]"),
    ],
)
def test_methods_of_other_cases_or_classes_are_refused(here, change, message):
    first = write_curve(here / "a", LOSS, DICE)
    other = write_curve(here / "b", LOSS, **{"dice": DICE, **change})
    with pytest.raises(rwtool.UsageError, match=re.escape(message)):
        refuse_mixtures({"m": curves(first), "n": curves(other)})


def test_without_validation_there_is_nothing_to_compare(here):
    none = write_curve(here / "a", LOSS, {}, split={"train": ["a"], "val": []})
    with pytest.raises(rwtool.UsageError, match=r"has no validation cases, so it has no Dice"):
        refuse_mixtures({"m": curves(none)})
    absent = write_curve(here / "b", LOSS, {1: [None] * 3})
    with pytest.raises(rwtool.UsageError, match=r"b: no foreground in its validation cases, so it has no Dice"):
        refuse_mixtures({"m": curves(absent)})


def test_damaged_results_are_named(here):
    run = write_curve(here / "run", LOSS, DICE)
    (run / "run.json").write_text(json.dumps({"classes": [{"value": "x", "name": "RV"}]}))
    with pytest.raises(rwtool.RwtoolError, match=r"run.json: these are not the results of a run: \$.classes"):
        read_class_names(run)


def test_distances_are_read_where_they_were_measured(here):
    hd = {1: [None, 20.0, 10.0], 3: [None, 40.0, 30.0]}
    curve = read_curve(write_curve(here / "run", LOSS, DICE, hd=hd))
    assert list(curve.distances) == ["hd_mm", "hd_mm_1", "hd_mm_3", "hd95_mm", "hd95_mm_1", "hd95_mm_3"]
    np.testing.assert_array_equal(curve.distances["hd_mm"], [np.nan, 30, 20])
    np.testing.assert_array_equal(curve.distances["hd95_mm_3"], [np.nan, 20, 15])
    assert list(curve.class_dice) == [1, 3]
    assert read_curve(write_curve(here / "without", LOSS, DICE)).distances == {}


def test_what_is_measured_and_kept_beside_may_differ_between_the_runs_of_a_method(here):
    runs = [
        read_curve(write_curve(here / str(seed), LOSS, DICE, seed=seed, **more))
        for seed, more in enumerate(({}, {"validate_hd": True}, {"checkpoint_every": 5}))
    ]
    refuse_mixtures({"m": runs})
    with pytest.raises(rwtool.UsageError, match=r"differ in more than their seed: ema is not given and 0\.9"):
        refuse_mixtures({"m": [*runs, read_curve(write_curve(here / "other", LOSS, DICE, seed=9, ema=0.9))]})


@pytest.mark.parametrize("text", ["7" * 200, "inf", "-1e39"])
def test_a_loss_that_no_training_has_is_refused(here, text):
    run = write_curve(here / "run", LOSS, DICE)
    table = (run / "metrics.csv").read_text()
    (run / "metrics.csv").write_text(table.replace("\n2,-0.25,", f"\n2,{text},"))
    with pytest.raises(rwtool.RwtoolError, match=rf"metrics\.csv, line 3: expected a finite loss, found '{text}'"):
        read_curve(run)


@pytest.mark.parametrize("text", ["1.5", "-0.1", "inf"])
def test_a_dice_is_between_0_and_1(here, text):
    run = write_curve(here / "run", LOSS, DICE)
    table = (run / "metrics.csv").read_text()
    (run / "metrics.csv").write_text(table.replace(",0.25,1.5,", f",{text},1.5,"))
    with pytest.raises(rwtool.RwtoolError, match=rf"line 3: dice_3 is between 0 and 1; found '{text}'"):
        read_curve(run)


def test_a_digit_of_a_row_that_changed_is_found(here, quick):
    shutil.copytree(quick.folder, here / "run")
    path = here / "run" / "metrics.csv"
    lines = path.read_text().splitlines()
    cells = lines[2].split(",")
    cells[1] = cells[1][:-1] + ("1" if cells[1][-1] != "1" else "2")
    path.write_text("\n".join([*lines[:2], ",".join(cells)]) + "\n")
    with pytest.raises(RwtoolError, match=r"metrics\.csv, line 3: it holds something else than was written"):
        read_curve(here / "run")
