import json

from commands import run, said
from runfolders import write_curve


def make(folder):
    for name, dice in (("rrw", 0.9), ("ce", 0.2)):
        for seed in (0, 1):
            write_curve(folder / name / f"seed-{seed}", [1], {1: [dice]}, seed=seed, loss=name)


def test_methods_are_compared_on_the_terminal_and_in_files(tmp_path, monkeypatch):
    make(tmp_path)
    monkeypatch.chdir(tmp_path)
    result = run("convergence", "rrw", "B=ce", "-o", "out", "--baseline", "B", "--alpha", 0.1)
    assert "Share of collapsed runs, against B" in said(result)
    assert "90 % interval" in said(result)
    assert "rrw -100 %" in said(result)
    assert "note" not in result.stderr
    assert (tmp_path / "out" / "convergence.png").is_file()


def test_json_is_for_scripts(tmp_path, monkeypatch):
    make(tmp_path)
    monkeypatch.chdir(tmp_path)
    content = json.loads(run("convergence", "rrw", "ce", "--format", "json").stdout)
    assert [(m["method"], m["collapsed"], len(m["seeds"])) for m in content["methods"]] == [("rrw", 0, 2), ("ce", 2, 2)]
    assert content["methods"][0]["curves"][0] == {
        "measure": "loss", "epoch": 1, "n": 2, "mean": 1.0, "sd": 0.0, "least": 1.0, "most": 1.0,
    }  # fmt: skip


def test_wrong_use_is_one_line_in_the_words_of_the_command(tmp_path, monkeypatch):
    make(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert "neither a run of rwtool train nor seed-0" in said(run("convergence", "empty", code=2))
    assert "--baseline x: there is no such method" in said(run("convergence", "rrw", "--baseline", "x", code=2))
    run("convergence", code=2)


def test_a_missing_matplotlib_is_told(tmp_path, monkeypatch):
    make(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rwtool.report.figures.can_draw", lambda: False)
    monkeypatch.setattr("rwtool.report.convergence.can_draw", lambda: False)
    result = run("convergence", "rrw", "-o", "out")
    assert "note: no convergence.png, for matplotlib is not installed" in said(result)
