"""Maps, evaluate, predict and train stopped at random moments: whole files, and a rerun that ends in the same bytes."""

import csv
import io
import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from cohorts import QUICK, places, words, write_cohort
from launcher import Launcher, stop

from rwtool.maps.folder import read_map_set
from rwtool.network.checkpoint import load_checkpoint

NAMES = [f"case_{number}" for number in range(6)]
KINDS = ("boundary", "rrw")
EPOCHS = 6
TRAINING = (*words({**QUICK, "epochs": EPOCHS, "val_every": 2}), "--val", "0.34")
COMMANDS = {
    "maps": ("maps", "../labels", "out", "--kind", "boundary", "--kind", "rrw"),
    "evaluate": ("evaluate", "../labels", "a=../guesses", "b=../others", "-o", "out", "--permutation-test"),
    "predict": ("predict", "../run", "../images", "out"),
    "train": ("train", "../images", "../labels", "out", *TRAINING),
}
AGAIN = {"predict": ("--overwrite",), "train": ("--resume",)}
EXIT = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}
TIMED = ("seconds", "slices_per_second", "times_ns")
JOURNAL = "maps.json.journal"

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="it looks for processes in /proc")


@pytest.fixture(scope="module")
def launcher():
    with Launcher() as launched:
        yield launched


@pytest.fixture(scope="module")
def place(tmp_path_factory, launcher):
    """Images, labels, a trained run and two folders of predictions."""
    folder = write_cohort(tmp_path_factory.mktemp("kills"), names=NAMES)
    for name, epochs in (("guesses", 2), ("others", 1)):
        settings = {**QUICK, "epochs": epochs}
        code, said, _ = launcher.run(folder, "train", "images", "labels", f"run_{name}", *words(settings), "--val", "0")
        assert code == 0, said
        code, said, _ = launcher.run(folder, "predict", f"run_{name}", "images", name)
        assert code == 0, said
    (folder / "run_guesses").rename(folder / "run")
    return folder


class Whole:
    """A command that nobody stopped: what it left, how long it took, and how often its folder changed."""

    def __init__(self, place, launcher, command):
        folder = place / f"whole_{command}"
        folder.mkdir()
        launcher.run(folder, *COMMANDS[command], *jobs_of(command, 1))  # what is loaded late is loaded
        for path in sorted((folder / "out").rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        started = time.monotonic()
        process = launcher.start(folder, *COMMANDS[command], *jobs_of(command, 1))
        self.changes = changes(folder / "out", process, None)
        code, said = launcher.wait()
        self.seconds = time.monotonic() - started
        assert code == 0, said
        self.content = content(folder / "out")


@pytest.fixture(scope="module")
def wholes():
    return {}


def jobs_of(command, jobs):
    return ("-j", jobs) if command in ("maps", "evaluate") else ()


def ended(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def session_of(process):
    """Living processes of the session that a run began."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:  # it has ended meanwhile
            continue
        if int(session) == process and state != "Z":
            found.append(int(stat.parent.name))
    return found


def changes(folder, process, wanted):
    """Look at a folder until it has changed so many times, or the process has ended; how often it had."""
    seen, number = None, 0
    while not ended(process):
        now = frozenset(entries(folder))
        if now != seen:
            seen, number = now, number + 1
            if number == wanted:
                break
        time.sleep(0.0002)
    return number


def entries(folder):
    try:
        for entry in os.scandir(folder):
            if entry.is_dir():
                yield from entries(entry.path)
            yield entry.path, entry.inode()
    except OSError:  # it is not there yet, or no longer
        return


def content(folder):
    """What stands under final names, times left out."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    seen = (path for path in paths if not any(part.startswith(".") for part in path.relative_to(folder).parts))
    return {
        path.relative_to(folder).as_posix(): told(path) for path in seen if path.name not in ("curves.png", JOURNAL)
    }


def told(path):
    if path.suffix == ".pt":
        load_checkpoint(path)
        return places(torch.load(path, weights_only=True))
    if path.suffix == ".json":
        return untimed(json.loads(path.read_text().replace(" -j 2", " -j 1")))
    if path.name == "metrics.csv":
        return [untimed(row) for row in csv.DictReader(io.StringIO(path.read_text()))]
    return path.read_bytes().replace(b" -j 2", b" -j 1")  # in the command line, which a report tells


def untimed(value):
    if isinstance(value, dict):
        return {name: untimed(part) for name, part in value.items() if name not in (*TIMED, "crc32")}
    return [untimed(part) for part in value] if isinstance(value, list) else value


def check_part(name, found, whole):
    """What a stopped run left under a final name is part of what it would have come to."""
    if name.endswith("maps.json"):
        assert found["cases"].items() <= whole["cases"].items(), name
    elif name == "metrics.csv":
        assert found == whole[: len(found)], name
    elif not name.endswith(".pt"):  # a checkpoint of an epoch before; it was loaded
        assert found == whole, name


def hidden(folder):
    return [str(path) for path in folder.rglob(".*")]


def stamps(folder, names):
    return {name: ((folder / name).stat().st_mtime_ns, (folder / name).stat().st_ino) for name in names}


def done_files(command, folder):
    """Files of cases that a rerun has not to make again."""
    if command == "maps" and all((folder / kind / "maps.json").exists() for kind in KINDS):
        return [f"{kind}/{name}.nii.gz" for kind in KINDS for name in read_map_set(folder / kind).cases]
    if command == "evaluate":
        return [f"cache/{path.name}" for path in (folder / "cache").glob("*.json")]
    return []


def stop_and_go_on(place, launcher, whole, command, number, moment):
    """Stop a run at a moment; check what it leaves, and that the same command comes to the same."""
    folder = place / f"{command}_{number:d}_{moment}"
    folder.mkdir()
    out, rng = folder / "out", random.Random(f"{command} {number} {moment}")
    jobs = jobs_of(command, 2 if rng.random() < 0.2 else 1)
    process = launcher.start(folder, *COMMANDS[command], *jobs)
    if moment % 2:  # when a file has just got its name, or is about to
        changes(out, process, rng.randint(1, whole.changes))
    else:
        time.sleep(rng.uniform(0, whole.seconds))
    stop(process, number)
    code, said = launcher.wait()
    assert code in (EXIT[number], 0, -number), (code, said)  # the last as it ends, when all is done
    limit = time.monotonic() + 10
    while session_of(process):
        assert time.monotonic() < limit, session_of(process)
    assert "Traceback" not in said, said
    assert "Error" not in said, said
    if number != signal.SIGKILL:
        assert hidden(folder) == [], hidden(folder)
        assert code != EXIT[number] or said.splitlines()[-1].startswith(("interrupted", "Aborted!")), said
    left = content(out)
    assert code != -number or number == signal.SIGKILL or left in ({}, whole.content)
    assert set(left) <= set(whole.content)
    for name, found in left.items():
        check_part(name, found, whole.content[name])
    done = done_files(command, out)
    before = stamps(out, done)
    epochs = len(left.get("last.pt", {})) and load_checkpoint(out / "last.pt").epoch

    code, said, _ = launcher.run(folder, *COMMANDS[command], *jobs, *AGAIN.get(command, ()))
    assert code == 0, said
    found = content(out)
    assert set(found) == set(whole.content)
    assert {name: (found[name], whole.content[name]) for name in found if found[name] != whole.content[name]} == {}
    assert hidden(folder) == [], hidden(folder)
    assert not list(out.rglob(JOURNAL))
    assert stamps(out, done) == before
    if command == "train" and epochs < EPOCHS:
        assert said.startswith(f"epoch {epochs + 1}/{EPOCHS} "), said
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()
    return code


def whole_of(command, wholes, place, launcher):
    if command not in wholes:
        wholes[command] = Whole(place, launcher, command)
    return wholes[command]


@pytest.mark.parametrize(
    ("command", "number"),
    [
        ("maps", signal.SIGINT),
        ("maps", signal.SIGKILL),
        ("evaluate", signal.SIGTERM),
        ("predict", signal.SIGINT),
        ("train", signal.SIGTERM),
        ("train", signal.SIGKILL),
    ],
)
def test_a_run_that_is_stopped_leaves_whole_files_and_its_rerun_ends_in_the_same(
    command, number, wholes, place, launcher
):
    whole = whole_of(command, wholes, place, launcher)
    stop_and_go_on(place, launcher, whole, command, number, list(EXIT).index(number))


@pytest.mark.slow
@pytest.mark.parametrize("number", EXIT)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_run_that_is_stopped_at_100_moments_ends_in_the_same_each_time(command, number, wholes, place, launcher):
    whole = whole_of(command, wholes, place, launcher)
    for moment in range(100):
        stop_and_go_on(place, launcher, whole, command, number, 100 + moment)
