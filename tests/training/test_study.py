import csv
import shutil

import pytest
import torch
from cohorts import FILES, QUICK, all_of, names_in, train, train_and_stop, weights

import rwtool
from rwtool.datasets.curves import row_checksum
from rwtool.network.checkpoint import load_checkpoint
from rwtool.training import seeds as training_seeds

torch.set_num_threads(1)


@pytest.fixture
def finished(quick, tmp_path):
    """A run that is done."""
    return shutil.copytree(quick.folder, tmp_path / "finished")


def test_the_same_seed_gives_the_same_run_and_another_seed_another(cohort, quick, tmp_path):
    first, second = rwtool.train(cohort / "images", cohort / "labels", tmp_path, seeds=[0, 1], **QUICK)
    assert [first.folder, second.folder] == [tmp_path / "seed-0", tmp_path / "seed-1"]
    assert weights(first.folder) == weights(quick.folder)
    assert weights(second.folder) != weights(quick.folder)
    assert load_checkpoint(second.folder / "last.pt").config.seed == 1
    assert (first.folder / "split.json").read_text() == (second.folder / "split.json").read_text()
    alone = train(cohort, tmp_path / "alone", seed=1)
    assert weights(alone.folder) == weights(second.folder)


def test_resume_of_seeds_trains_those_that_are_not_done(cohort, tmp_path):
    train(cohort, tmp_path / "seed-0", seed=0)
    train_and_stop(cohort, tmp_path / "seed-1", seed=1)
    for seeds, trained in (([0, 1], [False, True]), ([0, 1, 2], [False, False, True])):
        done = rwtool.train(cohort / "images", cohort / "labels", tmp_path, seeds=seeds, resume=True, **QUICK)
        assert [run.trained for run in done] == trained
    train(cohort, tmp_path / "alone", seed=1)
    assert all_of(tmp_path / "alone")["last"] == all_of(tmp_path / "seed-1")["last"]
    assert load_checkpoint(tmp_path / "seed-2" / "last.pt").config.seed == 2


def test_a_run_in_the_way_is_refused_unless_it_is_resumed_or_overwritten(cohort, finished):
    before = all_of(finished)
    with pytest.raises(rwtool.UsageError, match=f"{finished} holds a run; resume=True goes on with it, overwrite=True"):
        train(cohort, finished, seed=1)
    assert all_of(finished) == before


def test_overwrite_starts_anew_and_leaves_what_is_not_the_runs(cohort, quick, tmp_path):
    train(cohort, tmp_path, seed=1, epochs=3, val=0.7)
    (tmp_path / "notes.txt").write_text("mine")
    assert weights(tmp_path) != weights(quick.folder)
    train(cohort, tmp_path, overwrite=True)
    assert all_of(tmp_path) == all_of(quick.folder)
    assert names_in(tmp_path) == {*FILES, "notes.txt"}


@pytest.mark.parametrize(
    "wrong",
    [{"loss": "boundary", "maps": "nowhere"}, {"device": "cuda:99"}, {"split": "nowhere"}, {"depth": 6}],
    ids=lambda wrong: list(wrong)[-1],
)
def test_overwrite_costs_nothing_where_the_new_run_cannot_start(cohort, finished, wrong):
    before = all_of(finished)
    with pytest.raises(rwtool.UsageError):
        train(cohort, finished, overwrite=True, **wrong)
    assert all_of(finished) == before


@pytest.mark.parametrize("folder", ["images", "labels"])
def test_a_run_is_not_put_among_the_files_that_it_is_trained_on(cohort, folder):
    before = names_in(cohort / folder)
    with pytest.raises(
        rwtool.UsageError, match=f"the run would go to {cohort / folder}, among the files that it is tr"
    ):
        train(cohort, cohort / folder)
    assert names_in(cohort / folder) == before


# Again in place of what has collapsed


@pytest.fixture
def collapsing(monkeypatch):
    """Trainings whose seeds 1 and 3 find nothing, and the seeds that were trained."""

    def train_run(run, checkpoint, *arguments, **options):
        validation = train_run_as_it_is(run, checkpoint, *arguments, **options)
        seed = checkpoint.config.seed
        trained.append(seed)
        if seed in (1, 3):
            (names, *_, last), path = csv.reader((run / "metrics.csv").read_text().splitlines()), run / "metrics.csv"
            row = {**dict(zip(names, last, strict=True)), "dice": "0", "dice_1": "0", "dice_2": "0"}
            row["crc32"] = row_checksum(row)
            path.write_text("\n".join([*path.read_text().splitlines()[:-1], ",".join(row.values())]) + "\n")
        return validation

    trained, train_run_as_it_is = [], training_seeds.train_run
    monkeypatch.setattr(training_seeds, "train_run", train_run)
    return trained


def several(cohort, run, **more):
    return rwtool.train(cohort / "images", cohort / "labels", run, jobs=1, **{**QUICK, "epochs": 1, **more})


def test_runs_of_further_seeds_are_trained_in_place_of_collapsed_ones_which_stay(cohort, tmp_path, collapsing):
    done = several(cohort, tmp_path, seeds=[0, 1, 2], again=5)
    assert collapsing == [0, 1, 2, 3, 4]  # 3 stands for 1 and has collapsed too, so 4 stands for 3
    assert [(run.folder.name, run.collapsed) for run in done] == [
        ("seed-0", False), ("seed-1", True), ("seed-2", False), ("seed-3", True), ("seed-4", False),
    ]  # fmt: skip
    again = several(cohort, tmp_path, seeds=[0, 1, 2], again=5, resume=True)
    assert collapsing == [0, 1, 2, 3, 4]
    assert [(run.folder.name, run.collapsed, run.trained) for run in again][3:] == [
        ("seed-3", True, False), ("seed-4", False, False),
    ]  # fmt: skip


def test_no_more_than_so_many_are_trained_again(cohort, tmp_path, collapsing):
    done = several(cohort, tmp_path, seeds=[0, 1, 2], again=1)
    assert [run.folder.name for run in done] == ["seed-0", "seed-1", "seed-2", "seed-3"]
    shutil.rmtree(tmp_path / "seed-3")
    # the settings of the runs hold, though they are not given again
    rwtool.train(cohort / "images", cohort / "labels", tmp_path, seeds=[0, 1, 2], again=1, resume=True)
    assert load_checkpoint(tmp_path / "seed-3" / "last.pt").config.features == QUICK["features"]
    assert collapsing == [0, 1, 2, 3, 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"again": 1}, "again=1 is how many runs to train in place of collapsed ones of seeds="),
        ({"again": -1, "seeds": [0]}, "again=-1 is how many"),
        ({"again": 1, "seeds": [0], "val": 0}, "again=1 goes by the validation Dice of the runs, and there are no suc"),
        ({"again": 3, "seeds": [0, 1]}, "seed-4 holds a run; resume=True goes on with it"),
    ],
)
def test_what_does_not_go_with_again_is_refused_before_anything_is_trained(cohort, quick, tmp_path, options, message):
    shutil.copytree(quick.folder, tmp_path / "seed-4")
    with pytest.raises(rwtool.UsageError, match=message):
        several(cohort, tmp_path, **options)
    assert names_in(tmp_path) == {"seed-4"}


def test_several_runs_have_a_picture_of_their_mean(cohort, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("rwtool.training.study.draw_runs", lambda *arguments: drawn.append(arguments))
    several(cohort, tmp_path, seeds=[4, 2])
    assert drawn == [(tmp_path, [tmp_path / "seed-4", tmp_path / "seed-2"], {1: "1", 2: "2"})]
    several(cohort, tmp_path / "one")
    several(cohort, tmp_path, seeds=[4, 2], resume=True)
    assert len(drawn) == 1
