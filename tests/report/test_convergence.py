import csv
import json

import pytest
from runfolders import write_curve

import rwtool
from rwtool.report import convergence as module
from rwtool.report.convergence import convergence, draw_convergence

FILES = {
    "convergence.csv", "seeds.csv", "epochs.csv", "convergence.json", "convergence.png", "convergence.pdf",
}  # fmt: skip


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Runs of two losses: four good ones; one good, one without class 2, one diverged, and two on the way."""
    monkeypatch.chdir(tmp_path)
    for seed in range(4):
        folder = write_curve(
            tmp_path / "rrw" / f"seed-{seed}", [0.5, 0.25], {1: [0.5, 0.9], 2: [0.25, 0.7 + seed / 100]}, seed=seed
        )
    classes = [{"value": value, "name": name} for value, name in enumerate(("background", "RV", "LV"))]
    (folder / "run.json").write_text(json.dumps({"classes": classes, "more": 1}))
    settings = {"loss": "boundary", "epochs": 2}
    write_curve(tmp_path / "boundary" / "seed-0", [3, 2], {1: [0.5, 0.8], 2: [0.5, 0.6]}, seed=0, **settings)
    write_curve(tmp_path / "boundary" / "seed-1", [3, 2], {1: [0.5, 0.8], 2: [0.0, 0.0]}, seed=1, **settings)
    write_curve(tmp_path / "boundary" / "seed-2", [3], {1: [0.5], 2: [0.5]}, seed=2, diverged=2, **settings)
    write_curve(tmp_path / "boundary" / "seed-3", [3], {1: [0.5], 2: [0.5]}, seed=3, **settings)
    (tmp_path / "boundary" / "seed-4").mkdir()
    return tmp_path


def rows(path):
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_the_tables_say_what_became_of_each_run(study):
    results = convergence(["rrw", "boundary"], out="out")
    assert {path.name for path in (study / "out").iterdir()} == FILES
    rrw, boundary = rows(study / "out" / "convergence.csv")
    assert (rrw["method"], rrw["runs"], rrw["unfinished"], rrw["collapsed"], rrw["collapsed_share"]) == (
        "rrw", "4", "0", "0", "0.0",
    )  # fmt: skip
    assert (boundary["runs"], boundary["unfinished"], boundary["collapsed"]) == ("3", "2", "2")
    assert rrw["p"] == rrw["baseline"] == ""
    assert float(boundary["p"]) == pytest.approx(1 / 7)  # all 3 of the 21 pairs that lie within boundary's three
    assert float(boundary["difference"]) == pytest.approx(2 / 3)
    seeds = rows(study / "out" / "seeds.csv")
    assert [(row["method"], row["seed"], row["status"], row["collapsed_in"]) for row in seeds] == [
        *(("rrw", str(seed), "ok", "") for seed in range(4)),
        ("boundary", "0", "ok", ""),
        ("boundary", "1", "collapsed", "2"),
        ("boundary", "2", "diverged", "1 2"),
        ("boundary", "", "unfinished", ""),
        ("boundary", "", "unfinished", ""),
    ]
    assert [row["share_at_most"] for row in seeds[:4]] == ["0.25", "0.5", "0.75", "1.0"]
    assert [float(row["dice"]) for row in seeds[:7]] == pytest.approx([0.8, 0.805, 0.81, 0.815, 0.7, 0.4, 0])
    assert [row["diverged_in_epoch"] for row in seeds] == ["", "", "", "", "", "", "2", "", ""]
    (last,) = (
        row
        for row in rows(study / "out" / "epochs.csv")
        if (row["method"], row["measure"], row["epoch"]) == ("boundary", "dice_2", "2")
    )
    assert (last["n"], float(last["mean"]), last["least"], last["most"]) == ("3", pytest.approx(0.2), "0.0", "0.6")
    assert json.loads((study / "out" / "convergence.json").read_text()) == json.loads(json.dumps(results.summary()))


def test_what_is_printed(study, capsys):
    convergence(["rrw", "boundary"]).print()
    said = " ".join(capsys.readouterr().out.split())
    assert "rrw 4 0.807 ± 0.006 0.807 0.800 0.815 0 of 4 0 % to 49 %" in said
    assert "boundary 3 0.367 ± 0.351 0.400 0.000 0.700 2 of 3 21 % to 94 %" in said
    assert "Collapsed runs by class" in said
    assert "< 0.450 < 0.357 diverged" in said
    assert "rrw 0 0 0" in said
    assert "boundary 1 2 1" in said
    assert "Share of collapsed runs, against rrw" in said
    assert (
        "not counted: 2 unfinished runs of boundary: boundary/seed-3 (1 of 2 epochs), boundary/seed-4 (not begun)"
    ) in said


def test_a_method_without_a_finished_run_is_refused(study):
    with pytest.raises(rwtool.UsageError, match=r"x: no run has come to its end \(boundary/seed-3\); finish them"):
        convergence("x=boundary/seed-3")
    with pytest.raises(rwtool.UsageError, match="there are no runs to compare"):
        convergence([])


def test_notes_tell_of_other_lengths_and_of_what_no_method_finds(study):
    write_curve(study / "long" / "seed-0", [1, 1, 1], {1: [0.1, 0.2, 0.3], 2: [0, 0, 0]}, loss="ce")
    write_curve(study / "short" / "seed-0", [1], {1: [0.1], 2: [0]})
    lines = module.notes(convergence(["long", "short"]).comparison)
    assert lines == [
        "note: the methods were trained for different numbers of epochs: long 3, short 1",
        "note: no method finds 2 in half of its runs, so nothing counts as collapsed there; train for longer",
    ]


def test_a_folder_of_other_files_is_left_alone(study):
    (study / "out").mkdir()
    (study / "out" / "seeds.csv").write_text("mine")
    with pytest.raises(rwtool.UsageError, match=r"out holds seeds.csv, and its convergence.csv is not that of rwtool"):
        convergence("rrw", out="out")
    assert (study / "out" / "seeds.csv").read_text() == "mine"
    convergence("rrw", out="other")
    convergence("rrw", out="other")


def test_the_picture_shows_steps_curves_and_thresholds(study, monkeypatch):
    kept = []
    monkeypatch.setattr(module, "save_figure", lambda figure, path: kept.append(figure))
    draw_convergence(convergence(["rrw", "boundary"]).comparison, study / "x.png")
    mean, rv, lv, mean_curve, _, lv_curve = kept[0].axes
    assert [axes.get_title("left") for axes in (mean, rv, lv)] == ["mean over classes", "1 RV", "2 LV"]
    assert all(float(tick).is_integer() for tick in mean_curve.get_xticks())  # there is no epoch 1.5
    names = ["rrw: 0 of 4 collapsed", "boundary: 2 of 3 collapsed"]
    assert [line.get_label() for line in mean.lines] == names
    steps = mean.lines[1]
    assert steps.get_drawstyle() == "steps-post"
    assert steps.get_xdata().tolist() == pytest.approx([0, 0, 0.4, 0.7, 1])
    assert steps.get_ydata().tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1, 1])
    assert rv.lines[2].get_xdata() == [0.45, 0.45]
    assert lv_curve.lines[1].get_xydata().tolist() == [[1, pytest.approx(1 / 3)], [2, pytest.approx(0.2)]]
    band = mean_curve.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == pytest.approx((0.375, 0.8075 + 0.00645497))


def test_many_classes_are_one_panel(tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(module, "save_figure", lambda figure, path: kept.append(figure))
    write_curve(tmp_path / "run", [1], {label: [0.5] for label in range(1, 6)})
    draw_convergence(convergence(tmp_path / "run").comparison, tmp_path / "x.png")
    assert len(kept[0].axes) == 2


def test_without_matplotlib_the_tables_are_written(study, monkeypatch):
    monkeypatch.setattr(module, "can_draw", lambda: False)
    convergence("rrw", out="out")
    assert {path.name for path in (study / "out").iterdir()} == FILES - {"convergence.png", "convergence.pdf"}


def test_distances_have_rows_of_their_own_where_a_method_has_measured_them(study, monkeypatch):
    kept = []
    monkeypatch.setattr(module, "save_figure", lambda figure, path: kept.append(figure))
    for seed, hd in enumerate((10.0, 14.0)):
        write_curve(
            study / "dice" / f"seed-{seed}", [1, 1], {1: [0.5, 0.8], 2: [0.5, 0.8]}, seed=seed, loss="dice",
            hd={1: [40.0, hd], 2: [None, 20.0]},
        )  # fmt: skip
    draw_convergence(convergence(["rrw", "dice"], out="out").comparison, study / "x.png")
    axes = kept[-1].axes
    assert len(axes) == 4 * 3
    assert [row.get_ylabel() for row in axes[::3]] == [
        "share of runs with Dice ≤ d", *(f"{name}: mean ± SD over runs" for name in ("Dice", "HD (mm)", "HD95 (mm)")),
    ]  # fmt: skip
    hd_of_rv = axes[7]
    assert hd_of_rv.lines[0].get_xydata().tolist() == []  # rrw has measured none
    assert hd_of_rv.lines[1].get_xydata().tolist() == [[1, 40], [2, 12]]
    assert axes[11].lines[1].get_xydata().tolist() == [[2, 10]]
    found = [row for row in rows(study / "out" / "epochs.csv") if row["measure"] == "hd_mm_1"]
    assert [(row["method"], row["epoch"], row["n"], row["mean"]) for row in found] == [
        ("dice", "1", "2", "40.0"), ("dice", "2", "2", "12.0"),
    ]  # fmt: skip
