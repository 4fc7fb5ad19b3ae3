import errno
import os
import pickle
import random

import pytest
import torch
from cohorts import QUICK, names_in, places, start, train, write_cohort

import rwtool
from rwtool.datasets.classes import Classes
from rwtool.io.names import file_hash
from rwtool.network.checkpoint import Checkpoint, Task, build_network, find_checkpoint, load_checkpoint
from rwtool.network.config import TrainConfig
from rwtool.network.normalization import Normalization

torch.set_num_threads(1)

CONFIG = TrainConfig(
    features=2, depth=2, patch=(8, 12), batch_size=4, amp="off", target_spacing=(0.5, 1.5), subject="(p.)"
)
TASK = Task(
    Classes((0, 1, 4), ("background", "RV", "Ödem"), 255, "dataset.json"),
    2,
    True,
    Normalization("ct", ((-1.5, 2.5, 0.1, 0.7), (0.0, 1e-3, 3.0, 1e9))),
)


def made(**more):
    torch.manual_seed(0)
    network = build_network(CONFIG, TASK)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1, fused=True)
    network(torch.rand(3, 2, 8, 12))[0].square().sum().backward()
    optimizer.step()
    content = {
        "history": [{"epoch": 1, "loss": 0.1, "dice": float("nan")}],
        "optimizer": optimizer.state_dict(),
        "scaler": {"scale": 65536.0},
        "hashes": {"p1": ["a", "b", "c"]},
        "split": {"train": ["p1"], "val": []},
        "inputs": {"classes": [0, 1, 4], "maps": None},
        "best": 0.1 + 0.2,
        "trained": {name: -value for name, value in network.state_dict().items()},
    }
    return Checkpoint(CONFIG, TASK, network.state_dict(), 1, **{**content, **more})


@pytest.fixture
def path(tmp_path):
    made().save(tmp_path / "last.pt")
    return tmp_path / "last.pt"


def test_what_is_saved_is_loaded(path):
    saved, loaded = made(), load_checkpoint(path)
    assert loaded.config == CONFIG
    assert loaded.task == TASK
    for name in ("model", "epoch", "history", "optimizer", "scaler", "hashes", "split", "inputs", "best", "trained"):
        assert places(getattr(loaded, name)) == places(getattr(saved, name)), name


def test_the_network_of_a_checkpoint_gives_what_the_saved_one_gave(path):
    network = build_network(CONFIG, TASK)
    network.load_state_dict(made().model)
    x = torch.rand(1, 2, 8, 12)
    with torch.inference_mode():
        torch.testing.assert_close(load_checkpoint(path).network().eval()(x), network.eval()(x), rtol=0, atol=0)


def test_the_settings_make_the_network():
    network = build_network(CONFIG, TASK)
    assert (network.n_classes, network.stride) == (3, 2)
    assert network.encoder[0][0].weight.shape == (2, 2, 3, 3)
    deep = build_network(TrainConfig(features=2, depth=4, norm="batch", deep_supervision=False), TASK)
    assert (deep.stride, len(deep.heads)) == (8, 1)
    assert any(isinstance(part, torch.nn.BatchNorm2d) for part in deep.modules())


def test_last_and_best_of_a_run_hold_plain_values_alone(tmp_path):
    run = train(write_cohort(tmp_path), tmp_path / "run").folder
    last, best = (torch.load(run / name, weights_only=True) for name in ("last.pt", "best.pt"))
    assert (last["format"], last["rwtool"], last["epoch"]) == (2, rwtool.__version__, 2)
    assert last["config"] == {**TrainConfig(**QUICK).as_dict(), "patch": [20, 24]}
    assert last["task"] == {
        "classes": {
            "values": [0, 1, 2], "names": ["background", "1", "2"], "ignore": None,
            "source": "the values in the label files",
        },
        "n_channels": 1, "numbered": False, "normalization": {"kind": "zscore", "channels": []},
    }  # fmt: skip
    assert places(best["model"]) == places(last["model"])
    assert (best["optimizer"], best["scaler"]) == (None, None)
    learned = [name for name in last["model"] if "running" not in name and "tracked" not in name]  # not what norms saw
    assert len(last["optimizer"]["state"]) == len(learned)
    assert sorted(last["hashes"]) == [f"case_{index}" for index in range(6)]
    assert last["hashes"]["case_4"] == [
        file_hash(tmp_path / folder / "case_4.nii.gz") for folder in ("labels", "images")
    ]


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (pytest.fail, ("code of a checkpoint was run",))

    path = tmp_path / "last.pt"
    for write in (
        lambda: torch.save({"format": 1, "model": Evil()}, path),
        lambda: path.write_bytes(pickle.dumps(Evil(), protocol=2)),
    ):
        write()
        with pytest.raises(rwtool.RwtoolError, match=f"{path}: cannot be read as a checkpoint; train again, or use"):
            load_checkpoint(path)


def test_a_truncated_checkpoint_is_a_readable_error(path):
    content = path.read_bytes()
    for length in (0, 1, 100, len(content) // 2, len(content) - 30, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(rwtool.RwtoolError, match=f"{path}: cannot be read as a checkpoint; train again, or use"):
            load_checkpoint(path)


def test_a_file_of_anything_else_is_a_readable_error(path):
    rng = random.Random(0)
    for _ in range(100):
        path.write_bytes(rng.randbytes(rng.randrange(1, 200)))
        with pytest.raises(rwtool.RwtoolError, match=r"last\.pt: "):
            load_checkpoint(path)
    for content in ([1, 2], {"model": {}}, torch.zeros(2)):
        torch.save(content, path)
        with pytest.raises(rwtool.RwtoolError, match=f"{path}: this is not a checkpoint of rwtool train"):
            load_checkpoint(path)
    torch.save({"format": 99, "rwtool": "7.0"}, path)
    with pytest.raises(rwtool.RwtoolError, match=r"its format is 99 \(of rwtool 7.0\), this rwtool reads 2; train"):
        load_checkpoint(path)
    with pytest.raises(rwtool.RwtoolError, match="elsewhere: no such checkpoint"):
        load_checkpoint(path.with_name("elsewhere"))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (
            RuntimeError("[enforce fail] . unexpected pos 576 vs 534\nframe #0"),
            "the disk takes no more ([enforce fail] . unexpected pos 576 vs 534)",
        ),
    ],
)
def test_a_save_that_fails_leaves_the_checkpoint_before_and_nothing_else(path, monkeypatch, error, reason):
    def fail(content, file):
        file.write_bytes(b"half")
        raise error

    before = path.read_bytes()
    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(rwtool.VolumeError) as caught:
        made().save(path)
    assert str(caught.value) == f"{path}: cannot be written: {reason}"
    assert path.read_bytes() == before
    assert names_in(path.parent) == {"last.pt"}


@pytest.mark.skipif(os.name == "nt", reason="limits are of POSIX")
def test_a_disk_that_is_full_in_the_middle_is_one_line(path):
    code = (
        "import resource, sys; from pathlib import Path; from rwtool.network.checkpoint import load_checkpoint\n"
        "found = load_checkpoint(Path(sys.argv[1])); resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))\n"
        "try: found.save(Path(sys.argv[1]))\n"
        "except __import__('rwtool').VolumeError as error: print(error)"
    )
    result = start("-c", code, path)
    assert result.stderr == ""
    assert result.stdout.startswith(f"{path}: cannot be written: ")
    assert names_in(path.parent) == {"last.pt"}


# What a checkpoint must hold


def spoil(path, change):
    """Change what a checkpoint holds, as someone does who knows of no checksum."""
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)


def refusal(path):
    with pytest.raises(rwtool.RwtoolError) as caught:
        load_checkpoint(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: not a readable checkpoint: ")
    assert message.endswith("; train again, or use another one")
    assert "\n" not in message
    return message.removeprefix(f"{path}: not a readable checkpoint: ").removesuffix(
        "; train again, or use another one"
    )


def at(*way, value):
    def change(content):
        for step in way[:-1]:
            content = content[step]
        content[way[-1]] = value

    return change


FIRST = "encoder.0.0.weight"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda content: content["model"].pop(FIRST),
            f"$.model['{FIRST}']: expected 2 x 2 x 3 x 3 of float32, which is missing",
        ),
        (at("model", FIRST, value="x"), f"$.model['{FIRST}']: expected 2 x 2 x 3 x 3 of float32, found a str"),
        (
            at("model", FIRST, value=torch.zeros(2, 2, 3)),
            f"$.model['{FIRST}']: expected 2 x 2 x 3 x 3 of float32, found 2 x 2 x 3 of float32",
        ),
        (
            at("model", FIRST, value=torch.zeros(2, 2, 3, 3, dtype=torch.float64)),
            f"$.model['{FIRST}']: expected 2 x 2 x 3 x 3 of float32, found 2 x 2 x 3 x 3 of float64",
        ),
        (at("model", "more", value=torch.zeros(1)), "$.model['more']: the network has no such weight"),
        (at("model", 3, value=torch.zeros(1)), "a key of $.model: expected str, got int"),
        (at("model", value=[]), "$.model: expected object, found []"),
        (at("config", "epochs", value="three"), "$.config.epochs: expected int, found 'three'"),
        (at("config", "epochs", value=0), "epochs=0 is not at least 1"),
        (at("config", "loss", value="mse"), "$.config.loss: expected one of "),
        (at("config", "patch", value=None), "$.config.patch: expected a value, found None"),
        (at("config", "depth", value=1 << 40), "depth=1099511627776 is not at most 16"),
        (at("config", "features", value=1 << 30), "features=1073741824 is not at most 65536"),
        (at("config", "features", value=3), f"$.model['{FIRST}']: expected 3 x 2 x 3 x 3 of float32, found 2 x 2"),
        (at("config", value=7), "$.config: expected object, found 7"),
        (at("task", "n_channels", value=0), "$.task.n_channels: expected int >= 1, found 0"),
        (at("task", "numbered", value="yes"), "$.task.numbered: expected bool, found 'yes'"),
        (at("task", "classes", "values", value=[0, 4, 1]), "$.task.classes.values: expected ascending values"),
        (at("task", "classes", "values", value=[1, 2, 4]), "a class list holds 0 (the background"),
        (at("task", "classes", "names", value=["a"]), "$.task.classes.names: expected 3 names, found 1"),
        (at("task", "normalization", "kind", value="log"), "$.task.normalization.kind: expected one of"),
        (at("task", "normalization", "channels", value=[]), "$.task.normalization.channels: expected 2, found 0"),
        (lambda content: content.pop("task"), "$: missing required field task"),
        (lambda content: content.pop("crc32"), "$: missing required field crc32"),
        (at("epoch", value=-1), "$.epoch: expected int >= 0, found -1"),
        (at("epoch", value=torch.zeros(1)), "$.epoch: expected int, found tensor([0.])"),
        (at("history", value=[{"loss": "low"}]), "$.history[0].loss: expected float, found 'low'"),
        (at("split", value={"train": "p1"}), "$.split.train: expected array, found 'p1'"),
        (at("hashes", value={"p1": [1]}), "$.hashes.p1[0]: expected str, found 1"),
        (at("optimizer", value=[1]), "$.optimizer: expected object | null, found [1]"),
        (at("best", value="high"), "$.best: expected float | null, found 'high'"),
        (at("best", value=0.25), "it holds something else than was written (its CRC-32 differs)"),
        (at("optimizer", "state", 0, "exp_avg", value=torch.zeros(2)), "it holds something else than was written"),
        (at("inputs", "slice axis", value=3), "$.inputs['slice axis']: expected int <= 2, found 3"),
        (at("inputs", "orientation", value="1e999"), "$.inputs.orientation: expected array | null, found '1e999'"),
        (at("inputs", "orientation", value=[[1.0, 0.0]] * 3), "$.inputs.orientation[0]: expected array of length 3"),
        (at("inputs", "classes", value=[0, 1, 5]), "it holds something else than was written"),
    ],
)  # fmt: skip
def test_a_field_that_is_missing_or_wrong_is_one_readable_line(path, change, reason):
    spoil(path, change)
    assert refusal(path).startswith(reason)


def test_a_weight_of_one_bit_more_is_found(path):
    def flip(content):
        content["model"][FIRST].view(torch.int32).view(-1)[7] ^= 1

    spoil(path, flip)
    assert refusal(path) == "it holds something else than was written (its CRC-32 differs)"


def test_any_byte_that_flips_is_found_or_changes_nothing(path):
    rng, content, truth = random.Random(0), path.read_bytes(), places(load_checkpoint(path).model)
    refused = 0
    for _ in range(60):
        spoiled = bytearray(content)
        spoiled[rng.randrange(len(spoiled))] ^= 1 << rng.randrange(8)
        path.write_bytes(spoiled)
        try:
            found = load_checkpoint(path)
        except rwtool.RwtoolError:
            refused += 1
        else:
            assert places(found.model) == truth
    assert refused > 20


# Which checkpoint of a folder


def test_the_checkpoint_asked_for_is_found(path):
    made().save(path.with_name("best.pt"))
    assert find_checkpoint(path.parent) == path
    assert find_checkpoint(path.parent, "best") == path.with_name("best.pt")
    assert find_checkpoint(path.with_name("best.pt"), "last") == path.with_name("best.pt")  # a file is that file


def test_a_folder_without_the_checkpoint_is_refused_with_what_it_holds(path):
    run = path.parent
    with pytest.raises(rwtool.UsageError, match=r"no best.pt \(no validation has been done yet\); found last.pt"):
        find_checkpoint(run, "best")
    path.rename(run / "best.pt")
    with pytest.raises(rwtool.UsageError, match=r"there is no last.pt \(it was never saved\); found best.pt"):
        find_checkpoint(run)
    (run / "empty").mkdir()
    with pytest.raises(rwtool.UsageError, match=r"empty: no last.pt here; name the folder of a run of rwtool train"):
        find_checkpoint(run / "empty")


def test_a_folder_of_several_runs_is_refused_with_their_names(tmp_path):
    for seed in (3, 1, 0, 2):
        made().save(tmp_path / f"seed-{seed}" / "last.pt")
    with pytest.raises(rwtool.UsageError, match="holds 4 runs; name one of them: ") as caught:
        find_checkpoint(tmp_path)
    assert str(caught.value).endswith(", ".join(str(tmp_path / f"seed-{seed}") for seed in range(4)))


def test_the_checkpoint_of_an_epoch_is_found_or_the_message_says_which_were_kept(path):
    run = path.parent
    with pytest.raises(
        rwtool.UsageError, match=r"no checkpoint of epoch 3 was kept \(found none\); give checkpoint=last"
    ):
        find_checkpoint(run, 3)
    for epoch in (20, 3, 100):
        made().save(run / "checkpoints" / f"epoch-{epoch}.pt")
    assert find_checkpoint(run, 3) == run / "checkpoints" / "epoch-3.pt"
    with pytest.raises(rwtool.UsageError, match=r"no checkpoint of epoch 4 was kept \(found those of 3, 20, 100\)"):
        find_checkpoint(run, 4)
    one = run / "study" / "seed-0"
    made().save(one / "checkpoints" / "epoch-3.pt")
    with pytest.raises(rwtool.UsageError, match=f"holds 1 runs; name one of them: {one}$"):
        find_checkpoint(run / "study", 3)
