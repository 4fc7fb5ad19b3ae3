from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from cohorts import QUICK, all_of, names_in
from runfolders import write_curve

import rwtool
from rwtool.network.config import TrainConfig
from rwtool.parallel import Outcome
from rwtool.training import seeds
from rwtool.training.cohort import Source, plan_cohort, read_cohort
from rwtool.training.distributed import ALONE
from rwtool.training.loop import DivergedError, prepare_slices, settle
from rwtool.training.seeds import (
    Study,
    TrainedRun,
    choose_jobs,
    find_collapsed,
    train_alone,
    train_one_after_another,
    train_side_by_side,
)
from rwtool.workers import WorkerEndedError

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def study(cohort):
    config = TrainConfig(**QUICK)
    source = Source(str(cohort / "images"), str(cohort / "labels"))
    read = read_cohort(plan_cohort(source, config), config)
    data = prepare_slices(read, config := settle(config, read), torch.device("cpu"), ALONE)
    return Study(read.without_training_arrays(), data, resume=False, tensorboard=False, quiet=True), config


def broken(config):
    """Settings with which the loss is not finite from the second step on."""
    return replace(config, lr=1e30)


def test_side_by_side_comes_to_the_same_bits_as_one_after_another(study, tmp_path, capfd):
    shared, config = study
    shared = replace(shared, quiet=False)
    configs = {f"seed-{seed}": replace(config, seed=seed) for seed in (0, 1)} | {"bad": broken(config)}
    first = train_one_after_another(shared, {tmp_path / "a" / name: one for name, one in configs.items()})
    one_by_one = [line.partition("  loss ")[0] for line in capfd.readouterr().err.splitlines()]
    second = train_side_by_side(shared, {tmp_path / "b" / name: one for name, one in configs.items()}, jobs=2)
    beside = [line.partition("  loss ")[0] for line in capfd.readouterr().err.splitlines()]
    assert one_by_one == ["seed-0  epoch 1/2", "seed-0  epoch 2/2", "seed-1  epoch 1/2", "seed-1  epoch 2/2"]
    assert sorted(beside) == one_by_one
    for name in ("seed-0", "seed-1"):
        assert all_of(tmp_path / "a" / name) == all_of(tmp_path / "b" / name)
    assert [(run.folder.name, run.trained, run.validation) for run in second] == [
        (run.folder.name, run.trained, run.validation) for run in first
    ]
    for runs in (first, second):
        assert [run.error is None for run in runs] == [True, True, False]
        assert runs[2].error.startswith("the loss became nan in step 2 of epoch 1")
    assert names_in(tmp_path / "a" / "bad") == names_in(tmp_path / "b" / "bad")
    assert names_in(tmp_path / "b" / "bad") == {"config.toml", "diverged.json", "split.json"}


def test_a_diverged_run_is_a_result_that_resume_leaves_as_it_is(study, tmp_path):
    shared, config = study
    with pytest.raises(DivergedError, match="the loss became nan in step 2 of epoch 1"):
        train_alone(shared, tmp_path / "run", broken(config))
    before = (tmp_path / "run" / "diverged.json").read_bytes()
    with pytest.raises(DivergedError, match=r"\(it was so before; overwrite=True starts anew\)") as caught:
        train_alone(replace(shared, resume=True), tmp_path / "run", broken(config))
    assert (caught.value.epoch, caught.value.step) == (1, 2)
    assert (tmp_path / "run" / "diverged.json").read_bytes() == before


def test_a_diverged_run_is_refused_left_and_overwritten(cohort, tmp_path):
    places = cohort / "images", cohort / "labels", tmp_path
    wrong = {**QUICK, "lr": 1e30}
    (run,) = rwtool.train(*places, seeds=[4], **wrong)
    assert run.error.startswith("the loss became nan")
    with pytest.raises(rwtool.UsageError, match="seed-4 holds a run; resume=True goes on with it"):
        rwtool.train(*places, seeds=[4], **wrong)
    run, fine = rwtool.train(*places, seeds=[4, 5], resume=True, **QUICK)
    assert (run.trained, fine.error, fine.trained) == (False, None, True)
    assert "it was so before" in run.error
    with pytest.raises(rwtool.RwtoolError, match="it was so before"):
        rwtool.train(cohort / "images", cohort / "labels", tmp_path / "seed-4", resume=True, **wrong)
    (run,) = rwtool.train(*places, seeds=[4], overwrite=True, **QUICK)
    assert run.error is None
    assert "diverged.json" not in names_in(tmp_path / "seed-4")


def test_a_run_of_other_settings_is_refused_before_any_process_starts(study, tmp_path, monkeypatch):
    shared, config = study
    train_alone(shared, tmp_path / "seed-0", config)
    monkeypatch.setattr(seeds, "Workers", None)
    runs = {tmp_path / "seed-0": replace(config, lr=0.5), tmp_path / "seed-1": config}
    with pytest.raises(rwtool.UsageError, match=r"these differ: lr=0\.5"):
        train_side_by_side(replace(shared, resume=True), runs, jobs=2)


def test_what_is_wrong_with_all_is_an_error_and_what_fails_one_is_its_own(study, tmp_path, monkeypatch):
    shared, config = study

    def fail(*arguments, **options):
        raise errors.pop(0)

    monkeypatch.setattr(seeds, "train_run", fail)
    errors = [rwtool.VolumeError("the disk is full"), rwtool.RwtoolError("b")]
    runs = {tmp_path / name: config for name in "ab"}
    assert [run.error for run in train_one_after_another(shared, runs)] == ["the disk is full", "b"]
    errors = [rwtool.UsageError("wrong use")]
    with pytest.raises(rwtool.UsageError, match="wrong use"):
        train_one_after_another(shared, {tmp_path / name: config for name in "cd"})
    errors = [ZeroDivisionError("a bug")]
    with pytest.raises(ZeroDivisionError):
        train_one_after_another(shared, {tmp_path / name: config for name in "ef"})


def test_what_became_of_a_process_is_said_of_its_run(tmp_path):
    killed = seeds._result(tmp_path, WorkerEndedError("its process was killed"))
    assert killed == TrainedRun(tmp_path, None, trained=True, error="its process was killed; resume=True goes on")
    bug = seeds._result(tmp_path, Outcome("seed-0", None, "unexpected", "Traceback"))
    assert (bug.error, bug.details) == ("unexpected", "Traceback")


def test_an_interrupt_says_how_many_runs_are_done(study, tmp_path, monkeypatch):
    shared, config = study

    def train_run(run, *arguments, **options):
        if run.name == "b":
            raise KeyboardInterrupt

    monkeypatch.setattr(seeds, "train_run", train_run)
    with pytest.raises(KeyboardInterrupt, match="1 of 3 runs done; resume=True goes on"):
        train_one_after_another(shared, {tmp_path / name: config for name in "abc"})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 4),
        ({"runs": 3}, 3),
        ({"runs": 1}, 1),
        ({"cores": 1}, 1),
        ({"device": "cuda"}, 1),
        ({"device": "cuda", "jobs": 3}, 1),
        ({"threads": 2}, 1),  # with one thread each the last bits would be others
        ({"threads": 2, "jobs": 2}, 2),
        ({"jobs": 1}, 1),
        ({"jobs": 9}, 6),
        ({"jobs": 2, "slices": 1}, 2),
        ({"slices": 4}, 1),  # 12 s of one core, of which four would save 9
        ({"memory": 2_500_000_000}, 2),
        ({"memory": 100}, 1),
        ({"stacked": False}, 1),  # each would have the data in its memory
        ({"stacked": False, "jobs": 2}, 2),
    ],
)
def test_runs_are_side_by_side_where_that_changes_nothing_but_time(monkeypatch, changes, expected):
    given = {
        "runs": 6,
        "cores": 4,
        "device": "cpu",
        "threads": 1,
        "jobs": None,
        "slices": 100,
        "memory": None,
        "stacked": True,
        **changes,
    }

    class Data:
        device = SimpleNamespace(type=given["device"])
        stacked = given["stacked"]

        def __len__(self):
            return given["slices"]

    monkeypatch.setattr(seeds, "available_cores", lambda: given["cores"])
    monkeypatch.setattr(seeds, "available_memory", lambda: given["memory"])
    monkeypatch.setattr(torch, "get_num_threads", lambda: given["threads"])
    monkeypatch.setattr(seeds.pickle, "dumps", lambda study: b"0" * 1000)
    config = TrainConfig(patch=(100, 100), features=30, epochs=10)
    study = SimpleNamespace(data=Data())
    assert choose_jobs(study, [config] * given["runs"], given["jobs"]) == expected


def test_what_has_collapsed_goes_by_the_rule_of_convergence(tmp_path):
    folders = [tmp_path / f"seed-{seed}" for seed in range(6)]
    for seed, dice in enumerate((0.9, 0.8, 0.39)):
        write_curve(folders[seed], [1], {1: [dice], 2: [0.5]}, seed=seed)
    write_curve(folders[3], [1], {1: [0.9], 2: [0.5]}, seed=3, epochs=5, diverged=2)
    write_curve(folders[4], [1], {1: [0.0], 2: [0.0]}, seed=4, epochs=5)  # on its way
    assert find_collapsed(folders) == {folders[3]}
    assert find_collapsed([*folders[:3], tmp_path / "seed-9"]) == {folders[2]}
    assert find_collapsed(folders[4:]) == set()
