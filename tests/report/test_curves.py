import time
from types import SimpleNamespace

import pytest
from runfolders import write_curve

from rwtool.errors import VolumeError
from rwtool.report import curves
from rwtool.report.curves import CurvePicture, draw_curves, draw_runs

NAMES = {1: "RV <&>", 3: "3"}
HISTORY = [
    {"epoch": 1, "loss": 0.5, "lr": 0.002},
    {"epoch": 2, "loss": -0.25, "lr": 0.001, "dice": 0.6, "dice_1": 0.7, "dice_3": 0.5},
    {"epoch": 3, "loss": -0.5, "lr": 0.0005, "dice": float("nan"), "dice_1": 0.8, "dice_3": float("nan")},
]


@pytest.fixture(autouse=True)
def drawn(monkeypatch):
    """Pictures are drawn here, though the tests of training go without."""
    monkeypatch.setattr(curves, "can_draw", lambda: True)


@pytest.fixture
def kept(monkeypatch):
    """The figure as it was when it was saved."""
    figures = []
    monkeypatch.setattr(curves, "save_figure", lambda figure, path: figures.append(figure))
    return figures


def test_the_picture_has_loss_dice_of_each_class_and_learning_rate(tmp_path, kept):
    draw_curves(tmp_path / "curves.png", HISTORY, NAMES)
    loss, dice, rate = kept[0].axes
    assert [axes.get_title("left") for axes in kept[0].axes] == ["Training loss", "Validation Dice", "Learning rate"]
    assert loss.lines[0].get_xydata().tolist() == [[1, 0.5], [2, -0.25], [3, -0.5]]
    assert rate.lines[0].get_xydata().tolist() == [[1, 0.002], [2, 0.001], [3, 0.0005]]
    assert [line.get_label() for line in dice.lines] == ["1 RV <&>", "3"]
    assert dice.lines[0].get_xydata().tolist() == [[2, 0.7], [3, 0.8]]
    assert dice.lines[1].get_ydata()[0] == 0.5
    assert dice.get_ylim() == (0, 1)


@pytest.mark.parametrize("history", [HISTORY, HISTORY[:1]])
def test_the_picture_is_a_whole_file(tmp_path, history):
    draw_curves(tmp_path / "curves.png", history, NAMES)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]


class Clock:
    """A clock that the drawing itself moves on."""

    def __init__(self, monkeypatch, cost):
        self.now, self.drawings = 100.0, 0
        monkeypatch.setattr(curves, "time", SimpleNamespace(perf_counter=lambda: self.now))

        def draw(path, history, names):
            self.now += cost
            self.drawings += 1

        monkeypatch.setattr(curves, "draw_curves", draw)


@pytest.mark.parametrize(("cost", "epoch_seconds", "expected"), [(0.2, 1, 5), (2, 1, 1), (2, 30, 26), (0.2, 200, 100)])
def test_drawing_takes_no_more_than_a_fiftieth_of_the_time(tmp_path, monkeypatch, cost, epoch_seconds, expected):
    clock = Clock(monkeypatch, cost)
    picture = CurvePicture(tmp_path / "curves.png", NAMES)
    start = clock.now
    for _ in range(100):
        clock.now += epoch_seconds
        assert picture.update(HISTORY, last=False) is None
    assert clock.drawings == pytest.approx(expected, abs=1)
    assert (clock.drawings - 1) * cost <= 0.02 * (clock.now - start)
    before = clock.drawings
    picture.update(HISTORY, last=True)
    assert clock.drawings == before + 1


def test_a_short_run_is_drawn_once_at_its_end(tmp_path, monkeypatch):
    clock = Clock(monkeypatch, 0.2)
    picture = CurvePicture(tmp_path / "curves.png", NAMES)
    for last in (False, False, True):
        clock.now += 2
        picture.update(HISTORY, last=last)
    assert clock.drawings == 1


@pytest.mark.parametrize("error", [VolumeError("the disk takes no more"), ZeroDivisionError("a bug")])
def test_a_picture_that_cannot_be_drawn_is_told_once_and_stops_nothing(tmp_path, monkeypatch, error):
    def fail(*arguments):
        tried.append(time.perf_counter())
        raise error

    tried = []
    monkeypatch.setattr(curves, "draw_curves", fail)
    picture = CurvePicture(tmp_path / "curves.png", NAMES)
    assert picture.update(HISTORY, last=True) == f"curves.png is not drawn: {error}"
    assert picture.update(HISTORY, last=True) is None
    assert len(tried) == 1


def test_without_matplotlib_nothing_is_drawn_or_said(tmp_path, monkeypatch):
    monkeypatch.setattr(curves, "can_draw", lambda: False)
    assert CurvePicture(tmp_path / "curves.png", NAMES).update(HISTORY, last=True) is None
    assert list(tmp_path.iterdir()) == []


def test_distances_that_were_measured_have_panels_of_their_own(tmp_path, kept):
    history = [
        {**HISTORY[0], "dice": 0.1, "dice_1": 0.1, "dice_3": 0.1},
        {**HISTORY[1], "hd_mm": 25, "hd_mm_1": 20, "hd_mm_3": 30, "hd95_mm": 9, "hd95_mm_1": 8, "hd95_mm_3": 10},
    ]
    draw_curves(tmp_path / "curves.png", history, NAMES)
    _, dice, hd, hd95, rate = kept[0].axes
    assert [axes.get_title("left") for axes in (hd, hd95)] == ["Validation HD (mm)", "Validation HD95 (mm)"]
    assert [line.get_xydata().tolist() for line in hd.lines] == [[[2, 20]], [[2, 30]]]
    assert [line.get_xydata().tolist() for line in hd95.lines] == [[[2, 8]], [[2, 10]]]
    assert rate.get_title("left") == "Learning rate"
    assert len(dice.lines) == 2


def test_the_picture_of_several_runs_has_their_mean_in_a_band_of_one_sd(tmp_path, kept):
    for seed, (dice, hd) in enumerate(((0.6, 10.0), (0.8, 20.0))):
        write_curve(tmp_path / f"seed-{seed}", [1, 0.5 + seed], {1: [None, dice], 3: [None, 0.5]}, seed=seed,
                    hd={1: [None, hd], 3: [None, None]})  # fmt: skip
    runs = [tmp_path / f"seed-{seed}" for seed in range(3)]  # the third has not begun
    assert draw_runs(tmp_path, runs, NAMES) is None
    loss, dice, hd, _ = kept[0].axes
    assert loss.get_title("left") == "Training loss: mean ± SD of 2 runs"
    assert loss.lines[0].get_xydata().tolist() == [[1, 1], [2, 1]]
    assert [line.get_xydata().tolist() for line in dice.lines] == [[[2, pytest.approx(0.7)]], [[2, 0.5]]]
    band = dice.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == (pytest.approx(0.7 - 0.02**0.5), pytest.approx(0.7 + 0.02**0.5))
    assert hd.lines[0].get_xydata().tolist() == [[2, 15]]
    assert [text.get_text() for text in dice.get_legend().get_texts()] == ["1 RV <&>", "3"]


def test_one_run_has_no_picture_of_several_and_what_fails_is_told(tmp_path, kept, monkeypatch):
    write_curve(tmp_path / "seed-0", [1], {1: [0.5]})
    assert draw_runs(tmp_path, [tmp_path / "seed-0"], NAMES) is None
    assert kept == []
    write_curve(tmp_path / "seed-1", [1], {1: [0.5]}, seed=1)
    (tmp_path / "seed-1" / "metrics.csv").write_text("broken")
    told = draw_runs(tmp_path, [tmp_path / "seed-0", tmp_path / "seed-1"], NAMES)
    assert told.startswith(f"curves.png is not drawn: {tmp_path / 'seed-1' / 'metrics.csv'}, line 1: expected the col")
    monkeypatch.setattr(curves, "can_draw", lambda: False)
    assert draw_runs(tmp_path, [tmp_path / "seed-1"], NAMES) is None
