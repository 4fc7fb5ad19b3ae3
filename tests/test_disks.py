"""Disks that are full, cannot be written to or go away, and files that change: each test really does it."""

import shutil
import subprocess
import time

import numpy as np
import pytest
from cohorts import QUICK, discs, places, save, words, write_cohort
from launcher import Launcher

KINDS = ("boundary", "rrw")
COMMANDS = {
    "maps": ("maps", "../labels", "out", "--kind", "boundary", "--kind", "rrw", "-j", "1"),
    "evaluate": ("evaluate", "../labels", "a=../others", "-o", "out", "-j", "1", "--no-report"),
    "predict": ("predict", "../run", "../images", "out", "--probabilities"),
    "train": ("train", "../images", "../labels", "out", *words({**QUICK, "epochs": 3}), "--val", "0.34"),
}
AGAIN = {"predict": ("--overwrite",), "train": ("--resume",)}
SIZES = {"maps": 16_000, "evaluate": 20_000, "predict": 40_000, "train": 60_000}  # of a disk, too little for all
LIMITS = {"maps": 1_000, "evaluate": 1_500, "predict": 4_000, "train": 20_000}  # of a file
ALL = [*("maps", "evaluate"), *(pytest.param(name, marks=pytest.mark.slow) for name in ("predict", "train"))]


@pytest.fixture(scope="module")
def launcher():
    if (
        not shutil.which("unshare")
        or subprocess.run(
            ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("nothing can be mounted here")
    with Launcher(networks=False, mounts=True) as launched:
        yield launched


@pytest.fixture(scope="module")
def place(tmp_path_factory, launcher):
    return write_cohort(tmp_path_factory.mktemp("disks"))


@pytest.fixture(scope="module")
def wholes(place, launcher):
    """What each command leaves where nothing goes wrong."""
    shutil.copytree(place / "labels", place / "others")
    for index in (0, 1):
        save(place / "others" / f"case_{index}.nii.gz", discs(index + 1)[1].astype(np.uint8))
    found = {}

    def whole(command):
        if command == "predict" and "train" not in found:
            whole("train")
            (place / "whole_train" / "out").rename(place / "run")
        if command not in found:
            folder = place / f"whole_{command}"
            folder.mkdir()
            code, said, _ = launcher.run(folder, *COMMANDS[command])
            assert code == 0, said
            found[command] = content(folder / "out")
        return found[command]

    return whole


@pytest.fixture
def folder(place, request):
    folder = place / request.node.name.replace("/", " ")
    (folder / "out").mkdir(parents=True)
    return folder


def content(folder):
    """The files that hold results, exactly."""
    found = {}
    for path in folder.rglob("*"):
        visible = not any(part.startswith(".") for part in path.relative_to(folder).parts)
        if visible and path.is_file() and path.name.endswith((".nii.gz", "cases.csv", "means.csv", ".pt")):
            if path.suffix == ".pt":
                import torch

                found[path.relative_to(folder).as_posix()] = places(torch.load(path, weights_only=True))
            else:
                found[path.relative_to(folder).as_posix()] = path.read_bytes()
    return found


def check_refusal(code, said, reason):
    """A run that ends in lines for people, which name the reason; of a checkpoint, torch does not know it."""
    assert code == 1, said
    assert reason in said or "cannot be written: the disk takes no more" in said
    assert "Traceback" not in said
    assert "bug" not in said


def check_what_is_left(out, whole):
    assert list(out.rglob(".*")) == []
    left = {name: found for name, found in content(out).items() if not name.endswith(".pt")}
    assert left.items() <= whole.items()


@pytest.mark.parametrize("command", ALL)
def test_a_full_disk_ends_in_a_line_and_whole_files_and_a_rerun_with_more_room_ends_in_the_same(
    command, launcher, wholes, folder
):
    whole = wholes(command)
    launcher.mount("-t", "tmpfs", "-o", f"size={SIZES[command]}", "none", folder / "out")
    out = launcher.seen(folder / "out")
    check_refusal(*launcher.run(folder, *COMMANDS[command])[:2], "No space left on device")
    check_what_is_left(out, whole)
    launcher.mount("-o", "remount,size=64m", folder / "out")
    code, said, _ = launcher.run(folder, *COMMANDS[command], *AGAIN.get(command, ()))
    assert code == 0, said
    assert content(out) == whole
    assert list(out.rglob(".*")) == []


@pytest.mark.parametrize("command", ALL)
def test_a_limit_of_the_size_of_files_ends_in_a_line_and_whole_files(command, launcher, wholes, folder):
    whole = wholes(command)
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({LIMITS[command]}, {LIMITS[command]}))"
    check_refusal(*launcher.run(folder, *COMMANDS[command], first=limit)[:2], "File too large")
    check_what_is_left(folder / "out", whole)
    code, said, _ = launcher.run(folder, *COMMANDS[command], *AGAIN.get(command, ()))
    assert code == 0, said
    assert content(folder / "out") == whole


@pytest.mark.parametrize("command", ALL)
def test_a_folder_that_cannot_be_written_to_ends_in_a_line(command, launcher, wholes, folder):
    wholes(command)
    launcher.mount("-t", "tmpfs", "-o", "ro", "none", folder / "out")
    code, said, _ = launcher.run(folder, *COMMANDS[command])
    check_refusal(code, said, "Read-only file system")


@pytest.mark.parametrize("command", ALL)
def test_a_folder_that_goes_away_is_told_and_a_rerun_ends_in_the_same(command, launcher, wholes, folder):
    whole = wholes(command)
    out = folder / "out"
    launcher.start(folder, *COMMANDS[command])
    limit = time.monotonic() + 60
    while not content(out) and time.monotonic() < limit:
        time.sleep(0.0005)
    out.rename(folder / "elsewhere")
    code, said = launcher.wait()
    assert code == 1 or content(out) == whole, said
    assert "Traceback" not in said
    code, said, _ = launcher.run(folder, *COMMANDS[command], *AGAIN.get(command, ()))
    assert code == 0, said
    assert content(out) == whole
