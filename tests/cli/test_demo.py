import json
import os
import shlex
import signal
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import run

import rwtool
from rwtool.cli.demo import _train_side_by_side


def demo(out, *options, code=0):
    return run("demo", out, "--epochs", 1, "-j", 2, *options, code=code).output


def test_demo_leaves_other_folders_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    assert "holds something that is not a demo" in demo(tmp_path, code=2)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


# The whole story


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    out = tmp_path_factory.mktemp("story") / "demo"
    return out, demo(out, "--subjects", "4")


def test_demo_tells_the_whole_story(story):
    out, output = story
    for command in ("maps", "check", "view", "train", "predict", "evaluate"):
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
    assert len(named) == 10
    assert all(Path(name).exists() for name in named)


def test_a_second_demo_goes_on_where_the_first_was_stopped_and_without_matplotlib_names_the_extra(story, monkeypatch):
    out, output = story
    assert "matplotlib" not in output
    pictures = {path: path.stat().st_mtime_ns for path in out.glob("pictures/*.png")}
    assert {path.name for path in pictures} == {"heart.png", "hearts.png", "signs.png"}
    for name in ("figures", "html"):
        monkeypatch.setattr(f"rwtool.report.{name}.can_draw", lambda: False)
    trained = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/last.pt")}
    again = demo(out, "--subjects", "4")
    assert "4 cases unchanged since the last run" in again
    assert {path: path.stat().st_mtime_ns for path in out.glob("runs/*/last.pt")} == trained
    assert "epoch 1/1" not in again
    assert [line for line in again.splitlines() if "matplotlib" in line] == [
        "Pictures need matplotlib: pip install 'rwtool[plot]'"
    ]
    assert {path: path.stat().st_mtime_ns for path in out.glob("pictures/*.png")} == pictures


def test_a_demo_of_another_length_is_refused_in_the_words_of_the_demo(story):
    out, _ = story
    output = demo(out, "--subjects", "4", "--epochs", "2", code=2)
    assert f"{out} holds a demo of 1 epochs; go on with --epochs 1, or name another OUT" in " ".join(output.split())


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


@pytest.mark.usefixtures("ctrl_c")
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
