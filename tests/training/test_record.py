import json
import os

import pytest
from cohorts import FILES, QUICK, names_in, train, write_cohort

import rwtool
from rwtool.datasets.splits import Split
from rwtool.network.config import TrainConfig
from rwtool.training.record import clear, holding


@pytest.fixture
def run(tmp_path):
    """A folder as a run leaves it."""
    folder = tmp_path / "run"
    for name in ("predictions", "tensorboard"):
        (folder / name).mkdir(parents=True)
    (folder / "config.toml").write_text(TrainConfig().to_toml())
    Split(("a",), ("b", "c.v2")).write(folder / "split.json")
    for name in ("last.pt", "best.pt", "metrics.csv", "run.json", "predictions/b.mhd", "predictions/b.raw",
                 "predictions/c.v2.nii.gz", "tensorboard/events.out.tfevents.1.host"):  # fmt: skip
        (folder / name).write_text("")
    return folder


def test_what_a_run_left_goes(run):
    with holding(run):
        clear(run)
    assert names_in(run) == set()


def test_what_no_run_wrote_stays(run, tmp_path):
    mine = ["notes.txt", "predictions/notes.txt", "predictions/b.txt", "predictions/z.nii.gz", "tensorboard/mine"]
    for name in mine:
        (run / name).write_text("mine")
    (tmp_path / "b.nii.gz").write_text("mine")
    (run / "predictions" / "b.nii.gz").symlink_to(tmp_path / "b.nii.gz")
    with holding(run):
        clear(run)
    left = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file() or path.is_symlink()}
    assert left == {*mine, "predictions/b.nii.gz"}
    assert (tmp_path / "b.nii.gz").read_text() == "mine"


@pytest.mark.parametrize("name", ["predictions", "tensorboard"])
def test_a_link_to_a_folder_elsewhere_is_not_followed(run, tmp_path, name):
    (run / name).rename(tmp_path / "elsewhere")
    (run / name).symlink_to(tmp_path / "elsewhere")
    before = names_in(tmp_path / "elsewhere")
    with holding(run):
        clear(run)
    assert names_in(tmp_path / "elsewhere") == before


@pytest.mark.parametrize("case", ["../../precious", "/precious", "..", "b\0"])
def test_a_case_of_the_split_that_is_a_path_leads_nowhere(run, case):
    precious = run.parent / "precious.nii.gz"
    precious.write_text("precious")
    (run / "split.json").write_text(
        json.dumps({"format": 1, "train": [], "val": [case.replace("/p", f"{run.parent}/p")]})
    )
    with holding(run):
        clear(run)
    assert precious.read_text() == "precious"


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"config.toml": "[tool]\nname = 'mine'\n"}, "config.toml"),
        ({"config.toml": 'loss = "ce"\n', "run.json": "{}"}, "run.json, config.toml"),
        ({"split.json": '{"train": [], "val": []}'}, "split.json"),
        ({"best.pt": "of another program"}, "best.pt"),
    ],
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_files_of_these_names_that_no_run_wrote_are_neither_replaced_nor_removed(tmp_path, files, found, overwrite):
    cohort = write_cohort(tmp_path)
    run = tmp_path / "run"
    (run / "predictions").mkdir(parents=True)
    files = {**files, "predictions/mine.nii.gz": "mine"}
    for name, text in files.items():
        (run / name).write_text(text)
    with pytest.raises(rwtool.UsageError) as caught:
        train(cohort, run, overwrite=overwrite)
    assert str(caught.value) == (
        f"{run} holds {found}, and neither config.toml nor split.json is that of a run of this rwtool; move them away, "
        "or name another run="
    )
    assert {name: (run / name).read_text() for name in files} == files
    assert names_in(run) == {name.split("/")[0] for name in files}


@pytest.mark.parametrize("more", [{}, {"overwrite": True}, {"resume": True}])
def test_a_second_training_into_a_folder_is_told_who_holds_it(tmp_path, more):
    cohort = write_cohort(tmp_path)
    run = tmp_path / "run"
    with holding(run), pytest.raises(rwtool.UsageError) as caught:
        train(cohort, run, **more)
    message = str(caught.value)
    assert message.startswith(f"{run}: process {os.getpid()} on {os.uname().nodename} has been writing into it since ")
    assert message.endswith(" (training); wait until it has ended, or name another run=")
    assert names_in(run) == set()


def test_a_run_leaves_its_files_alone_each_with_its_format(tmp_path):
    folder = train(write_cohort(tmp_path), tmp_path / "run", {**QUICK, "epochs": 1}).folder
    assert names_in(folder) == FILES
    assert json.loads((folder / "run.json").read_text())["format"] == 1
    assert json.loads((folder / "split.json").read_text())["format"] == 1
    assert (folder / "config.toml").read_text().startswith("format = 1\n")
