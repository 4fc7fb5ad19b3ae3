import shutil

import pytest
import torch
from cohorts import FILES, QUICK, all_of, names_in, train, train_and_stop, weights

import rwtool
from rwtool.network.checkpoint import load_checkpoint

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
