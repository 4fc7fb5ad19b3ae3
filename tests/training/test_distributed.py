import pytest
import torch
from cohorts import FILES, QUICK, metrics, names_in, start, train, words

from rwtool.network.checkpoint import load_checkpoint
from rwtool.training.distributed import ALONE, Processes, device_of, join_processes, mean_over

torch.set_num_threads(1)


def test_two_processes_train_the_network_of_one(cohort, tmp_path):
    settings = {**QUICK, "loss": "rrw", "mixed_with": "dice", "norm": "instance", "device": "cpu"}
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2, "-m", "rwtool"]
    done = start(*launch, "train", cohort / "images", cohort / "labels", tmp_path / "two", *words(settings))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("validation in 3D, 3 cases") == 1
    assert done.stderr.count("epoch 1/2") == 1
    train(cohort, tmp_path / "one", settings)
    one, two = (load_checkpoint(tmp_path / run / "last.pt") for run in ("one", "two"))
    assert one.model.keys() == two.model.keys()
    for name, value in one.model.items():
        torch.testing.assert_close(two.model[name], value, rtol=1e-4, atol=1e-5)
    assert [row["loss"] for row in two.history] == pytest.approx([row["loss"] for row in one.history], rel=1e-5)
    assert two.history[1]["dice"] == pytest.approx(one.history[1]["dice"], abs=0.02)
    assert names_in(tmp_path / "two") == {*FILES, "curves.png"}
    assert names_in(tmp_path / "two" / "predictions") == names_in(tmp_path / "one" / "predictions")
    assert len(metrics(tmp_path / "two")) == 2


def test_without_torchrun_this_process_is_alone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with join_processes("cpu") as processes:
        assert processes is ALONE
    assert (ALONE.first, ALONE.count) == (True, 1)
    ALONE.wait()
    assert mean_over(torch.tensor(2.5), ALONE) == 2.5


def test_one_process_of_torchrun_joins_and_leaves(monkeypatch):
    for name, value in {"WORLD_SIZE": "1", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}.items():
        monkeypatch.setenv(name, value)
    with join_processes("cpu") as processes:
        assert processes == Processes(0, 1, 0)
        assert torch.distributed.is_initialized()
    assert not torch.distributed.is_initialized()


def test_only_the_first_process_writes():
    assert [Processes(rank, 3, rank).first for rank in range(3)] == [True, False, False]


def test_each_process_has_the_cuda_device_of_its_number_unless_one_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert device_of("cuda", Processes(5, 8, 1)) == torch.device("cuda", 1)
    assert device_of("cuda:3", Processes(5, 8, 1)) == torch.device("cuda", 3)
    assert device_of("cpu", Processes(5, 8, 1)) == torch.device("cpu")
