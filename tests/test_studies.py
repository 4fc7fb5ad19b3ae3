"""The studies call commands that exist, with options that these have; no study runs here, for they take hours."""

import importlib
from pathlib import Path

import pytest

from rwtool.cli import main

STUDIES = sorted(path.stem for path in (Path(__file__).parent / "studies").glob("*.py"))


@pytest.fixture
def table2(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "studies"))
    return importlib.import_module("table2")


def parsed(command):
    """The parameters of a command line of rwtool, checked as the program checks them."""
    name, *words = map(str, command)
    return main.commands[name].make_context(name, words).params


def test_these_are_the_studies():
    assert STUDIES == ["table2"]


def test_table_2_trains_each_loss_on_one_split_and_compares_with_dice(table2, tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    (data / "labels").mkdir(parents=True)
    (data / "phases.csv").touch()
    settings = table2.parse([str(data), str(out), "--epochs", "5", "--steps-per-epoch", "9", "--more", "--lr 0.01"])
    found = [parsed(table2.train_command(method, settings)) for method in settings.losses]
    assert len(found) == 8
    assert len({(one["loss"], one["mixed_with"], one["mix"]) for one in found}) == 8
    for one in found:
        assert (one["epochs"], one["steps_per_epoch"], one["lr"], one["seeds"]) == (5, 9, 0.01, (0, 1, 2))
        assert (one["subject"], one["resume"], one["target_spacing"]) == ("patient[0-9]+", True, (2, 2))
        assert one["split_seed"] is None
    for method in ("dice", "rrw"):
        for seed in (0, 10, 2):
            folder = out / "runs" / method / f"seed-{seed}"
            (folder if (method, seed) == ("rrw", 2) else folder / "predictions").mkdir(parents=True)
    runs, left_out = table2.finished_runs(["dice", "rrw"], out)
    assert [folder.name for folder in runs["dice"]] == ["seed-0", "seed-2", "seed-10"]
    assert left_out == [str(out / "runs" / "rrw" / "seed-2")]
    evaluate, convergence = map(parsed, table2.compare_commands(runs, settings))
    assert [source.partition("=")[0] for source in evaluate["predictions"]] == ["dice", "rrw"]
    assert evaluate["permutation_test"]
    assert (evaluate["subject"], evaluate["group"]) == ("patient[0-9]+", data / "phases.csv")
    assert convergence["out"] == out / "convergence"


def test_an_unknown_loss_is_refused(table2, tmp_path, capsys):
    with pytest.raises(SystemExit):
        table2.parse([str(tmp_path), "out", "--losses", "dice,dise"])
    assert "--losses: 'dise' is not one of dice, ce, focal, wce-rrw, boundary-dice-gradual" in capsys.readouterr().err
