import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from clusters import wait_for
from cohorts import FILES, QUICK, metrics, names_in, start, train, weights, words

from rwtool.errors import UsageError
from rwtool.network.checkpoint import load_checkpoint
from rwtool.training.distributed import ALONE, Processes, device_of, join_processes, mean_over, refuse_others

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


def test_a_process_with_something_else_is_named_with_what_it_is():
    mine = {"the files": "1", "the split": "2"}
    refuse_others([mine, mine], ["one", "two"], "all need the same")
    with pytest.raises(
        UsageError,
        match=r"^process 2, on three, has not the files and the split of process 0, on one; all need the same$",
    ):
        refuse_others(
            [mine, mine, {"the files": "3"} | {"the split": "4"}], ["one", "two", "three"], "all need the same"
        )


# Over two machines, which are both this one


SETTINGS = {**QUICK, "loss": "rrw", "mixed_with": "dice", "norm": "instance", "device": "cpu"}
NOTING = """
import os, runpy, sys

run, note = sys.argv.pop(1), sys.argv.pop(1) + "-" + os.environ["RANK"]
with open(note + ".pid", "w") as stream:
    stream.write(str(os.getpid()))
notes = os.open(note, os.O_CREAT | os.O_WRONLY | os.O_APPEND)


def write(event, values):
    writes = event == "open" and set(values[1] or "") & set("wxa+")
    path = values[1] if event == "os.rename" else values[0] if writes else None
    if isinstance(path, (str, os.PathLike)) and os.fspath(path).startswith(run):
        os.write(notes, os.fspath(path).encode() + b"\\n")


sys.addaudithook(write)
runpy.run_module("rwtool", run_name="__main__", alter_sys=True)
"""


class Machines:
    """torchrun on two machines; what each is called with, and says."""

    def __init__(self, folder, port):
        self.folder, self.port = folder, port
        folder.mkdir()
        (folder / "noting.py").write_text(NOTING)
        self.processes = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for rank, process in enumerate(self.processes):
            self.kill(rank)
            process.wait()

    def kill(self, rank):
        """Kill all that runs on a machine: what torchrun has started, and itself."""
        with contextlib.suppress(OSError, ValueError):
            os.kill(int((self.folder / f"writes-{rank}.pid").read_text()), signal.SIGKILL)
        self.processes[rank].kill()

    def start(self, cohort, run, settings=SETTINGS):
        rank = len(self.processes)
        command = [
            sys.executable, "-m", "torch.distributed.run", "--nnodes", 2, "--node-rank", rank, "--nproc-per-node", 1,
            "--master-addr", "127.0.0.1", "--master-port", self.port, self.folder / "noting.py", run,
            self.folder / "writes", "train", cohort / "images", cohort / "labels", run, *words(settings),
        ]  # fmt: skip
        with (self.folder / f"said-{rank}").open("w") as said:
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
            self.processes.append(subprocess.Popen(list(map(str, command)), env=environment, stdout=said, stderr=said))

    def ends(self):
        return [process.wait(300) for process in self.processes]

    def said(self, rank):
        return (self.folder / f"said-{rank}").read_text()

    def wrote(self, rank, run):
        """Final names that a process has written to in the run folder."""
        written = (self.folder / f"writes-{rank}").read_text().splitlines()
        names = [Path(path).relative_to(run) for path in written if path != str(run)]
        return {name.as_posix() for name in names if not any(part.startswith(".") for part in name.parts)}


@pytest.fixture
def machines(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with Machines(tmp_path / "machines", port) as found:
        yield found


@pytest.mark.slow
def test_two_machines_train_the_weights_of_one_with_two_processes(cohort, tmp_path, machines):
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2, "-m", "rwtool"]
    done = start(*launch, "train", cohort / "images", cohort / "labels", tmp_path / "one", *words(SETTINGS))
    assert done.returncode == 0, done.stderr
    run = tmp_path / "two"
    for _ in range(2):
        machines.start(cohort, run)
    assert machines.ends() == [0, 0], machines.said(0) + machines.said(1)
    assert machines.said(0).count("validation in 3D, 3 cases") == 1
    assert "epoch" not in machines.said(1)
    for which in ("last", "best"):
        assert weights(run, which) == weights(tmp_path / "one", which)
    assert names_in(run) == names_in(tmp_path / "one")
    for path in (tmp_path / "one" / "predictions").iterdir():
        assert (run / "predictions" / path.name).read_bytes() == path.read_bytes()
    val = json.loads((run / "split.json").read_text())["val"]
    assert machines.wrote(1, run) == {f"predictions/{val[1]}.nii.gz"}  # its share of the cases
    assert machines.wrote(0, run) >= {"last.pt", "best.pt", "metrics.csv", "run.json", "split.json", "config.toml"}


@pytest.mark.slow
def test_machines_with_other_files_or_another_folder_are_refused(cohort, tmp_path, machines):
    shutil.copytree(cohort, tmp_path / "other")
    shutil.copy(cohort / "labels" / "case_1.nii.gz", tmp_path / "other" / "labels" / "case_0.nii.gz")
    machines.start(cohort, tmp_path / "run")
    machines.start(tmp_path / "other", tmp_path / "run")
    assert 0 not in machines.ends()
    problem = (
        r"Error: process 1, on \S+, has not the files of process 0, on \S+; all processes of a training need the "
        r"same\n"
    )
    assert re.search(problem, machines.said(0))
    assert re.search(problem, machines.said(1))
    assert not (tmp_path / "run" / "last.pt").exists()


@pytest.mark.slow
def test_machines_that_share_no_folder_are_refused(cohort, tmp_path, machines):
    machines.start(cohort, tmp_path / "run")
    machines.start(cohort, tmp_path / "elsewhere")
    assert 0 not in machines.ends()
    assert re.search(
        rf"Error: process 1, on \S+, has not the folder {tmp_path / 'run'} of process 0, on \S+; all machines need the "
        r"same folders under the same paths, as on a shared file system\n",
        machines.said(0),
    )
    assert not list((tmp_path / "run").iterdir())


@pytest.mark.slow
def test_a_machine_that_goes_is_one_line_and_the_run_goes_on(cohort, tmp_path, machines):
    run = tmp_path / "run"
    for _ in range(2):
        machines.start(cohort, run, {**SETTINGS, "epochs": 200})
    wait_for((run / "last.pt").exists)
    machines.kill(1)
    assert machines.ends()[0] == 1
    assert re.search(
        r"Error: process 0, on \S+: another process of this training has gone, or does not answer; see what it said, "
        r"mend that, and go on with --resume\n",
        machines.said(0),
    )
    assert load_checkpoint(run / "last.pt").epoch >= 1
