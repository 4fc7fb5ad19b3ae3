"""Volumes too large for this machine, and what rwtool says that one takes against what it does take."""

import shutil
from pathlib import Path

import pytest
from benchmarks import bench_large
from commands import run
from mapped import write_three

import rwtool
from rwtool import parallel

MVOXELS = 24

linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory from /proc")


@pytest.fixture
def little_memory(monkeypatch):
    """Function that leaves so many bytes free."""
    return lambda number: monkeypatch.setattr(parallel, "available_memory", lambda: number)


def test_a_case_that_does_not_fit_is_refused_with_the_figure_before_anything_is_done(tmp_path, little_memory):
    labels = write_three(tmp_path / "labels")
    rwtool.make_maps(labels, tmp_path / "there", jobs=1)
    little_memory(50_000_000)
    refusal = "it needs about 0.1 GB of memory and 0.1 GB are free; free some, or give"
    for words in (
        ("maps", labels, tmp_path / "maps"),
        ("check", tmp_path / "there" / "rrw"),
        ("evaluate", labels, labels),
    ):
        assert f"{refusal} --jobs 1 to try all the same" in run(*words, code=1).output
    assert not list(tmp_path.glob("maps/*/*.nii.gz"))
    run("maps", labels, tmp_path / "maps", "-j", 1)


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    """A volume and a shifted copy of it."""
    root = tmp_path_factory.mktemp("large")
    shape = bench_large.shape_of(MVOXELS)
    bench_large.write_volume(root / "labels" / "case.nii.gz", shape, 0)
    bench_large.write_volume(root / "predictions" / "case.nii.gz", shape, bench_large.SHIFT)
    return root


@linux
@pytest.mark.slow
@pytest.mark.parametrize("core", ["native", "edt"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"kind": "ac"},
        {"kind": "boundary"},
        {"kind": "boundary", "convention": "inner"},
        {"kind": "boundary", "absent": "farthest", "classes": "0,1,2,3"},
        {"kind": "hd", "absent": "farthest", "classes": "0,1,2,3"},
        {"kind": "boundary", "ignore": 2},
        {"convention": "inner"},
        {"convention": "inner", "ignore": 2},
        {"dims": 2},
        {"layout": "packed"},
        {"ignore": 2, "layout": "packed"},
        {"format": "npy"},
    ],
)
def test_maps_and_check_take_what_they_say_and_at_most_half_as_much_more_is_said(volume, monkeypatch, core, options):
    monkeypatch.setenv("RWTOOL_CORE", core)
    if core == "native":
        pytest.importorskip("rwtool.maps._native")
    kind = options.get("kind", "rrw")
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    took = bench_large.run("maps", volume / "labels", volume / "maps", *words, "-q", "--overwrite", core=core)
    checked = bench_large.run("check", volume / "maps" / kind, "-q", core=core)
    given = {name: value for name, value in options.items() if name != "kind"}
    if "classes" in given:
        given["classes"] = (0, 1, 2, 3)
    said = bench_large.foretold(volume / "labels", volume / "predictions", volume / "maps", kind, **given)
    shutil.rmtree(volume / "maps")
    assert took.peak <= said["maps"] <= 1.5 * took.peak
    assert checked.peak <= said["check"] <= 1.5 * checked.peak


@linux
@pytest.mark.slow
@pytest.mark.parametrize("core", ["native", "edt"])
def test_evaluate_takes_at_most_what_it_says(volume, core):
    took = bench_large.run("evaluate", volume / "labels", volume / "predictions", "-q", core=core)
    assert took.peak <= bench_large.foretold(volume / "labels", volume / "predictions", volume, "rrw")["evaluate"]


@pytest.mark.slow
def test_values_of_a_map_are_those_worked_out_by_hand_at_its_corners_too(volume, capsys):
    rwtool.make_maps(volume / "labels", volume / "by hand", kinds=("boundary",), jobs=1)
    bench_large.compare_by_hand(volume / "by hand", rwtool.read_labels(volume / "labels" / "case.nii.gz").array)
    assert "0.8 mm at the far corner" in capsys.readouterr().out
