import io
import math
import time

import pytest
from rich.console import Console

from rwtool.training.display import TrainingDisplay, show_training

LABELS = {1: "RV", 3: "LV"}
ROW = {"loss": 0.25, "slices_per_second": 120.4}
VALIDATED = {**ROW, "dice": 0.5, "dice_1": 0.5, "dice_3": math.nan}


def test_elsewhere_than_on_a_terminal_there_is_a_line_an_epoch(capsys, monkeypatch):
    now = iter([100.0, 110.0, 110.0, 130.0, 130.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    with show_training(2, 0, LABELS, quiet=False) as display:
        display.epoch({**ROW, "epoch": 1})
        display.epoch({**VALIDATED, "epoch": 2})
    assert capsys.readouterr().err.splitlines() == [
        "epoch 1/2  loss 0.2500  120 slices/s  left 0 min 10 s",
        "epoch 2/2  loss 0.2500  Dice 0.500 (RV 0.500, LV -)  120 slices/s",
    ]


@pytest.mark.parametrize(
    ("done", "epoch", "seconds", "expected"),
    [
        (0, 1, 10, "left 0 min 30 s"),
        (2, 3, 10, "left 0 min 10 s"),  # resumed after two: one epoch took ten seconds
        (0, 1, 1800, "left 1 h 30 min"),
        (0, 4, 10, ""),
    ],
)
def test_the_time_left_follows_from_the_pace_of_this_session(monkeypatch, done, epoch, seconds, expected):
    now = [50.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    text = io.StringIO()
    display = TrainingDisplay(4, done, LABELS, None, Console(file=text))
    now[0] += seconds
    display.epoch({**ROW, "epoch": epoch})
    assert text.getvalue().strip().partition("slices/s")[2].strip() == expected


def test_several_runs_are_told_apart_and_notes_are_lines(capsys):
    with show_training(1, 0, LABELS, quiet=False, prefix="seed-3  ", lines=True) as display:
        display.epoch({**ROW, "epoch": 1})
        display.note("curves.png is not drawn\x1b")
    assert capsys.readouterr().err.splitlines() == [
        "seed-3  epoch 1/1  loss 0.2500  120 slices/s",
        r"seed-3  note: curves.png is not drawn\x1b",
    ]


def test_lines_are_wanted_where_others_write_to_the_terminal_too(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with show_training(1, 0, LABELS, quiet=False, lines=True) as display:
        assert display._bar is None


def test_quiet_shows_nothing(capsys):
    with show_training(2, 0, LABELS, quiet=True) as display:
        assert display is None
    assert capsys.readouterr().err.splitlines() == []
