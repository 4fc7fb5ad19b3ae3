import json
import math
import os
import shlex
import signal
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

import rwtool
from rwtool.cli import main
from rwtool.cli.demo import _train_side_by_side
from rwtool.demo import make_cohort, make_subject, tell_results
from rwtool.evaluation.rows import Row
from rwtool.io.formats import read_header
from rwtool.io.grids import Turn, turn_to


def test_a_phantom_is_the_same_for_the_same_seed_and_differs_for_another():
    a, again, b = make_subject("a", 1), make_subject("a", 1), make_subject("b", 2)
    np.testing.assert_array_equal(a.image.array, again.image.array)
    np.testing.assert_array_equal(a.labels.array, again.labels.array)
    assert a.labels.array.shape != b.labels.array.shape or (a.labels.array != b.labels.array).any()


@pytest.mark.parametrize("seed", range(12))
def test_every_heart_has_all_classes_inside_the_field_of_view(seed):
    subject = make_subject("a", seed)
    labels = subject.labels.array
    assert set(np.unique(labels)) == {0, 1, 2, 3}
    assert subject.labels.spacing_mm == pytest.approx((10, 2.25, 2.25))
    edge = np.concatenate(
        [labels[:, 0].ravel(), labels[:, -1].ravel(), labels[:, :, 0].ravel(), labels[:, :, -1].ravel()]
    )
    assert (edge == 0).all()


@pytest.mark.parametrize("seed", range(12))
def test_the_cavity_lies_inside_its_wall(seed):
    labels = make_subject("a", seed).labels.array
    for axis in (1, 2):
        for step in (-1, 1):
            beside = np.roll(labels, step, axis)
            assert not ((labels == 3) & (beside == 0)).any()


def test_tissues_have_their_contrast():
    subject = make_subject("a", 5)
    image, labels = subject.image.array, subject.labels.array
    assert image[labels == 3].mean() > 1.5 * image[labels == 2].mean()


def test_a_seed_makes_another_cohort(tmp_path):
    make_cohort(tmp_path / "a", subjects=1, seed=0)
    make_cohort(tmp_path / "b", subjects=1, seed=1)
    a, b = (rwtool.read_image(tmp_path / n / "images" / "heart_00.nii.gz").array for n in "ab")
    assert a.shape != b.shape or (a != b).any()


def test_a_cohort_that_was_stopped_is_completed_and_what_is_there_stays(tmp_path):
    make_cohort(tmp_path / "whole", subjects=2, new=1)
    make_cohort(tmp_path / "cohort", subjects=2, new=1)
    kept = tmp_path / "cohort" / "images" / "heart_00.nii.gz"
    kept.write_bytes(b"mine now")
    (tmp_path / "cohort" / "labels" / "heart_01.nii.gz").unlink()
    make_cohort(tmp_path / "cohort", subjects=2, new=1)
    assert kept.read_bytes() == b"mine now"
    for name in ("images/heart_01", "labels/heart_01", "new/heart_02"):
        a, b = (rwtool.read_image(tmp_path / folder / f"{name}.nii.gz").array for folder in ("whole", "cohort"))
        np.testing.assert_array_equal(a, b)


def test_another_cohort_in_the_folder_is_refused_and_nothing_is_deleted(tmp_path):
    make_cohort(tmp_path / "d", subjects=2)
    (tmp_path / "d" / "runs" / "mine").mkdir(parents=True)
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
    for other in ({"subjects": 3}, {"subjects": 2, "seed": 1}):
        with pytest.raises(rwtool.UsageError, match="d holds another demo; name another folder"):
            make_cohort(tmp_path / "d", **other)
    assert {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")} == before


def test_demo_leaves_other_folders_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    result = CliRunner().invoke(main, ["demo", str(tmp_path)])
    assert result.exit_code == 2
    assert "holds something that is not a demo" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


# The whole story


def run_demo(out, *options, code=0):
    arguments = ["demo", str(out), "--epochs", "1", "-j", "1", *options]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    out = tmp_path_factory.mktemp("story") / "demo"
    return out, run_demo(out, "--subjects", "4")


def test_demo_tells_the_whole_story(story):
    out, output = story
    for command in ("maps", "check", "train", "predict", "evaluate"):
        assert f"$ rwtool {command}" in output
    image = rwtool.read_image(out / "images" / "heart_00.nii.gz")
    assert image.array.shape == rwtool.read_map(out / "maps" / "rrw" / "heart_00.nii.gz").shape[1:]
    assert json.loads((out / "maps" / "rrw" / "maps.json").read_text())["classes"][2]["name"] == "MYO"
    for loss in ("dice", "rrw", "boundary"):
        assert f"{loss:<8}  epoch 1/1  loss" in output
        validated = json.loads((out / "runs" / loss / "split.json").read_text())["val"]
        assert sorted(path.name for path in (out / "runs" / loss / "predictions").iterdir()) == [
            f"{name}.nii.gz" for name in validated
        ]
        assert len(validated) == 2
        assert json.loads((out / "runs" / loss / "run.json").read_text())["threads"] == 1
    new = {path.name for path in (out / "new").iterdir()}
    assert {path.name for path in (out / "predictions").iterdir()} == new == {"heart_04.nii.gz", "heart_05.nii.gz"}
    tests = (out / "results" / "tests.csv").read_text().splitlines()
    assert {line.split(",")[0] for line in tests[1:]} == {"dice"}
    assert "n = 2 subjects" in output


def test_the_commands_that_the_demo_prints_are_the_ones_that_it_runs(story):
    out, output = story
    (line,) = (line for line in output.splitlines() if line.startswith("$ rwtool train") and "--loss rrw" in line)
    config = (out / "runs" / "rrw" / "config.toml").read_text()
    for option, value in zip(words := shlex.split(line), words[1:], strict=False):
        if option in ("--features", "--lr", "--batch-size", "--epochs", "--val-every"):
            assert f"{option[2:].replace('-', '_')} = {value}\n" in config
    assert f"--maps {out / 'maps'}" in line


def test_the_demo_ends_with_what_the_tables_show_and_files_that_are_there(story):
    _, output = story
    told, places = output.split("What the tables show, of one cohort and one seed:\n")[1].split("\nDone in ")
    assert all(line.startswith("- ") for line in told.strip().splitlines())
    named = [line.split(":")[0].strip() for line in places.splitlines()[1:-1]]
    assert len(named) == 7
    assert all(Path(name).exists() for name in named)


def test_a_second_demo_goes_on_where_the_first_was_stopped(story):
    out, _ = story
    trained = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/last.pt")}
    again = run_demo(out, "--subjects", "4")
    assert "4 cases unchanged since the last run" in again
    assert {path: path.stat().st_mtime_ns for path in out.glob("runs/*/last.pt")} == trained
    assert "epoch 1/1" not in again


def test_a_demo_of_another_length_is_refused_in_the_words_of_the_demo(story):
    out, _ = story
    output = run_demo(out, "--subjects", "4", "--epochs", "2", code=2)
    assert f"{out} holds a demo of 1 epochs; go on with --epochs 1, or name another OUT" in " ".join(output.split())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_heart_is_turned_for_training(tmp_path, seed):
    make_cohort(tmp_path, subjects=14, seed=seed)
    found = [read_header(path).geometry for path in sorted((tmp_path / "labels").glob("*.nii.gz"))]
    assert {turn_to(found[0].directions, each.directions) for each in found} == {Turn()}


# Trainings side by side


PROGRAM = """#!/bin/sh
echo $$ > "$3.pid"
echo "epoch 1/2  loss 1.0  Dice 0.5 ($OMP_NUM_THREADS)"
echo other
case "$4" in
  fail) until [ -s "${3%/*}/a.pid" ]; do sleep 0.01; done; echo "Error: no room" >&2; exit 1;;
  sleep) exec sleep 300;;
esac
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Stands for Python: writes down its process and does what the last word says."""
    script = tmp_path / "python"
    script.write_text(PROGRAM)
    script.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(script))

    def pid(name):
        path = tmp_path / f"{name}.pid"
        until = time.monotonic() + 60
        while not path.is_file() or not path.read_text().strip():
            assert time.monotonic() < until, f"{name} has not begun"
            time.sleep(0.01)
        return int(path.read_text())

    return SimpleNamespace(
        pid=pid, train=lambda **last: {name: [str(tmp_path / name), word] for name, word in last.items()}
    )


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a shell script")
def test_trainings_run_on_a_thread_each_and_show_their_validations_alone(program, capsys):
    _train_side_by_side(program.train(a="end", long="end"), 2)
    lines = capsys.readouterr().out.splitlines()
    shown = [line for line in lines if "epoch" in line or "other" in line]
    assert sorted(shown) == ["a     epoch 1/2  loss 1.0  Dice 0.5 (1)", "long  epoch 1/2  loss 1.0  Dice 0.5 (1)"]


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a shell script")
def test_one_training_that_fails_says_why_and_ends_the_others(program):
    with pytest.raises(rwtool.RwtoolError, match=r"^the training of b failed: Error: no room$"):
        _train_side_by_side(program.train(a="sleep", b="fail"), 2)
    assert not is_running(program.pid("a"))


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a shell script")
def test_an_interrupt_ends_the_trainings_and_starts_none_of_those_that_wait(program, tmp_path, request):
    # a shell has its jobs in the background ignore it
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))

    def interrupt():
        program.pid("a")
        program.pid("b")
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        _train_side_by_side(program.train(a="sleep", b="sleep", c="sleep"), 2)
    thread.join()
    assert not is_running(program.pid("a"))
    assert not is_running(program.pid("b"))
    assert not (tmp_path / "c.pid").exists()


# What it says in the end


def rows_of(**methods):
    """Rows of two classes in two hearts: (Dice, HD in mm) by method and class; None is a missed class."""
    rows = []
    for method, classes in methods.items():
        for label, (name, found) in enumerate(classes.items(), start=1):
            status = "missed" if found is None else "ok"
            values = (0.0, math.nan) if found is None else found
            for case in "xy":
                for metric, value in zip(("dice", "hd"), values, strict=True):
                    rows.append(Row(method, "", case, case, "", label, name, metric, value, "", status, 100.0, 0.1))
    return rows


GOOD, FAR, POOR = (0.95, 4.0), (0.952, 9.0), (0.8, 9.0)


@pytest.mark.parametrize(
    ("dice", "rrw", "boundary", "expected"),
    [
        (
            {"RV": FAR, "LV": FAR},
            {"RV": GOOD, "LV": GOOD},
            {"RV": None, "LV": GOOD},
            (
                "rrw is as good as Dice loss in Dice: 0.950 and 0.952, mean over RV and LV.",
                "Its mean Hausdorff distance (HD) is smaller in RV and LV: fewer voxels",
                "Boundary loss alone misses RV in 2 of 2 hearts. Its maps can push two classes up",
            ),
        ),
        (
            {"RV": GOOD, "LV": FAR},
            {"RV": POOR, "LV": GOOD},
            {"RV": None, "LV": None},
            (
                "rrw is below Dice loss in Dice: 0.875 and 0.951, mean over RV and LV.",
                "(HD) is smaller in LV and larger in RV: no clear win. HD hangs on the worst voxel",
                "misses RV in 2 of 2 hearts and LV in 2 of 2 hearts.",
            ),
        ),
        (
            {"RV": POOR, "LV": GOOD},
            {"RV": (0.9, 12.0), "LV": GOOD},
            {"RV": POOR, "LV": POOR},
            (
                "rrw is above Dice loss in Dice: 0.925 and 0.875, mean over RV and LV.",
                "(HD) is larger in RV and equal in LV: here it does not win. It finds thin",
                "Boundary loss alone finds every class, less well: Dice 0.800.",
            ),
        ),
        (
            {"RV": GOOD, "LV": GOOD},
            {"RV": None, "LV": GOOD},
            {"RV": GOOD, "LV": GOOD},
            (
                "rrw is below Dice loss in Dice: 0.475 and 0.950",
                "(HD) is larger in RV and equal in LV: here it does not win.",
                "Boundary loss alone keeps up here",
            ),
        ),
    ],
)
def test_the_words_follow_from_the_numbers(dice, rrw, boundary, expected):
    told = tell_results(rows_of(dice=dice, rrw=rrw, boundary=boundary))
    assert len(told) == len(expected)
    for line, part in zip(told, expected, strict=True):
        assert part in line


def test_the_shares_that_the_page_of_maps_states_are_those_of_the_demo(tmp_path):
    make_cohort(tmp_path)
    maps = ["maps", str(tmp_path / "labels"), str(tmp_path / "maps"), "--kind", "boundary", "-q", "-j", "1"]
    CliRunner().invoke(main, maps, catch_exceptions=False)
    checked = rwtool.check_maps(tmp_path / "maps" / "boundary", jobs=1)
    uniform, random = checked.uniform, checked.random
    page = " ".join((Path(rwtool.__file__).parent / "docs" / "maps.md").read_text(encoding="utf-8").split())
    assert (
        f"{uniform.unstable_share:.0%} of the voxels of Boundary maps have at uniform softmax, and "
        f"{random.unstable_share:.0%}"
    ).replace("%", " %") in page
