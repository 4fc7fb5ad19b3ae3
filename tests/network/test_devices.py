import doctest

import pytest
import torch
from cohorts import names_in, start, words, write_cohort

import rwtool
from rwtool.network import devices
from rwtool.network.config import TrainConfig
from rwtool.network.unet import UNet2d

torch.set_num_threads(1)
CPU = torch.device("cpu")


# Devices


def test_auto_is_a_cuda_device_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices.resolve_device("auto") == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert devices.resolve_device("auto") == torch.device("cuda")


def test_a_device_is_named_as_by_pytorch_and_must_be_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices.resolve_device("cpu") == CPU
    assert devices.resolve_device("cuda:1") == torch.device("cuda", 1)
    for name in ("cuda:2", "mps", "meta", "nonsense", ""):
        with pytest.raises(rwtool.UsageError, match="cpu"):
            devices.resolve_device(name)


def test_a_network_on_a_cpu_keeps_its_memory_layout():
    network = UNet2d(1, 2, features=4, stages=2)
    assert devices.to_device(network, CPU) is network
    assert all(value.is_contiguous() for value in network.parameters())


# Precision


@pytest.mark.parametrize(
    ("device", "capability", "cpu_bf16", "found"),
    [
        ("cuda", (8, 0), False, "bf16"),
        ("cuda", (9, 0), False, "bf16"),
        ("cuda", (7, 5), True, "fp16"),
        ("cpu", None, True, "bf16"),
        ("cpu", None, False, "off"),
    ],
)
def test_auto_is_the_precision_that_the_device_computes_in_hardware(monkeypatch, device, capability, cpu_bf16, found):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(devices, "_cpu_has_bf16", lambda: cpu_bf16)
    assert devices.resolve_amp("auto", torch.device(device)) == found
    for named in ("bf16", "fp16", "off"):
        assert devices.resolve_amp(named, torch.device(device)) == named


@pytest.mark.parametrize(("amp", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16), ("off", torch.float32)])
def test_autocast_computes_in_the_precision_named(amp, dtype):
    x = torch.ones(4, 4)
    with devices.autocast(amp, CPU):
        assert (x @ x).dtype == dtype


# Threads


@pytest.mark.parametrize(
    ("patch", "batch_size", "features", "most", "threads"),
    [
        ((48, 48), 16, 16, 2, 1),  # 0.6 million
        ((64, 64), 4, 8, 64, 1),
        ((112, 112), 16, 16, 2, 2),  # 3.2 million
        ((112, 112), 16, 16, 64, 2),
        ((256, 256), 8, 32, 64, 11),
        ((256, 256), 8, 32, 4, 4),
        ((8, 8), 1, 1, 1, 1),
    ],
)
def test_a_thread_has_a_million_and_a_half_of_a_step_to_do(patch, batch_size, features, most, threads):
    config = TrainConfig(patch=patch, batch_size=batch_size, features=features)
    assert devices.threads_for(config, most) == threads


SMALL = TrainConfig(patch=(48, 48), batch_size=16, features=16, device="cpu")


@pytest.fixture
def threads(monkeypatch):
    """Four threads, and those that are set in their place."""
    given = []
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(torch, "set_num_threads", given.append)
    return given


def test_small_steps_get_one_thread_of_those_that_there_are(threads):
    devices.limit_threads(SMALL)
    assert threads == [1]


def test_threads_that_the_environment_names_and_those_beside_a_cuda_device_stay(threads, monkeypatch):
    monkeypatch.setattr(devices, "resolve_device", lambda name: torch.device("cuda"))
    devices.limit_threads(SMALL)
    monkeypatch.undo()
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    devices.limit_threads(SMALL)
    assert threads == []


def test_the_command_chooses_threads_and_the_library_leaves_them(tmp_path):
    write_cohort(tmp_path)
    settings = {"features": 2, "depth": 2, "epochs": 1, "batch_size": 4, "device": "cpu"}
    # as many as there are, without OMP_NUM_THREADS, which would have the last word
    images, labels, library, command = (str(tmp_path / name) for name in ("images", "labels", "library", "command"))
    script = (
        "import os; del os.environ['OMP_NUM_THREADS']; import torch; torch.set_num_threads(2);"
        "import rwtool; from rwtool.cli import main;"
        f"rwtool.train({images!r}, {labels!r}, {library!r}, **{settings});"
        "assert torch.get_num_threads() == 2, torch.get_num_threads();"
        f"main(['train', {images!r}, {labels!r}, {command!r}, '-q', *{list(words(settings))}], standalone_mode=False);"
        "assert torch.get_num_threads() == 1, torch.get_num_threads()"
    )
    done = start("-c", script)
    assert done.returncode == 0, done.stderr
    assert names_in(tmp_path / "command") == names_in(tmp_path / "library")


def test_the_examples_hold():
    assert doctest.testmod(devices) == doctest.TestResults(failed=0, attempted=2)
