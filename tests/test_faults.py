"""What a run leaves when it is stopped, or one of its processes is: each test really does it."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from cohorts import QUICK, weights, words, write_cohort

from rwtool.maps.folder import read_map_set

CASES = 8
MAPS = ("--kind", "rrw", "--kind", "boundary")
EXIT = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}
PROGRESS = re.compile(r"\[\d+/\d+\] \w+ case_\d: (\d+\.\d s|FAILED)\n")

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="it looks for processes in /proc"),
    pytest.mark.usefixtures("ctrl_c"),
]


def write_labels(folder):
    rng = np.random.default_rng(0)
    (folder / "labels").mkdir(parents=True)
    for number in range(CASES):
        labels = np.zeros((70, 80, 100), dtype=np.uint8)
        for label in (1, 2, 3):
            z, y, x = rng.integers(0, 40, 3)
            labels[z : z + 30, y : y + 40, x : x + 50] = label
        nib.save(nib.Nifti1Image(labels, np.diag([1, 1.5, 2, 1])), folder / "labels" / f"case_{number}.nii")


class Running:
    """The program in a process of its own, with what it says in a file."""

    def __init__(self, folder, *arguments):
        self.errors = folder / "errors"
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "rwtool", *map(str, arguments)],
                cwd=folder,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )

    def said(self):
        return self.errors.read_text()

    def ended(self):
        return self.process.poll() is not None

    def listens(self):
        """Whether it has got as far as to listen to SIGTERM."""
        caught = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{self.process.pid}/status").read_text())
        return bool(int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)

    def workers(self):
        """Its processes that are not zombies."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            except OSError:  # it has ended meanwhile
                continue
            if int(parent) == self.process.pid and state != "Z":
                found.append(int(stat.parent.name))
        return found

    def stop(self, number):
        """Send a signal as it comes: Ctrl-C to the processes of the terminal, others to the one that is known."""
        if number == signal.SIGINT:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)
        return self.process.wait(60)


def until(what, seconds=60):
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, what
        time.sleep(0.01)
    return found


def alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def files(folder):
    """Content of the files under final names."""
    found = (path for path in folder.rglob("case_*") if path.is_file() and not path.parent.name.startswith("."))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def hidden(folder):
    return [path.name for path in folder.rglob(".*") if path.is_dir()]


def finish(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "rwtool", *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    write_labels(folder)
    done = finish(folder, "maps", "labels", "maps", *MAPS, "-j", "1")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def cohort(undisturbed, tmp_path):
    """The same label files, without maps."""
    (tmp_path / "labels").symlink_to(undisturbed / "labels")
    return tmp_path


@pytest.mark.parametrize(
    ("number", "jobs"), [(signal.SIGINT, 2), (signal.SIGTERM, 2), (signal.SIGKILL, 2), (signal.SIGTERM, 1)]
)
def test_a_stopped_run_leaves_whole_files_and_no_process_and_a_rerun_does_the_rest(undisturbed, cohort, number, jobs):
    run = Running(cohort, "maps", "labels", "maps", *MAPS, "-j", jobs)
    until(lambda: run.said().count("\n") >= 1 or run.ended())
    workers = run.workers()
    assert len(workers) == (2 if jobs == 2 else 0)
    assert run.stop(number) == EXIT[number]
    until(lambda: not any(map(alive, workers)), seconds=5)  # milliseconds, on an idle machine

    *lines, last = run.said().splitlines(keepends=True)
    if number == signal.SIGKILL:
        lines.append(last)
    else:
        told = re.fullmatch(rf"interrupted: (\d) of {CASES} cases done; run the same command again to go on\n", last)
        assert told, run.said()
        assert int(told[1]) - len(lines) in (0, 1)  # the signal may have come before a case that was done had its line
        assert hidden(cohort) == []
    assert all(map(PROGRESS.fullmatch, lines)), run.said()
    whole, left = files(undisturbed / "maps"), files(cohort / "maps")
    assert left.items() <= whole.items()
    done = set.intersection(*(set(read_map_set(cohort / "maps" / kind).cases) for kind in ("rrw", "boundary")))
    assert len(lines) - 1 <= len(done) <= len(lines) + 1

    rerun = finish(cohort, "maps", "labels", "maps", *MAPS, "-j", "1")
    assert rerun.returncode == 0, rerun.stderr
    assert rerun.stderr.count("\n") == CASES - len(done)
    assert files(cohort / "maps") == whole
    assert hidden(cohort) == []


def test_a_killed_process_costs_nothing_but_time(undisturbed, cohort):
    run = Running(cohort, "maps", "labels", "maps", *MAPS, "-j", "2")
    until(lambda: run.said().count("\n") >= 1 or run.ended())
    os.kill(run.workers()[0], signal.SIGKILL)
    assert run.process.wait(120) == 0
    assert run.said().count("\n") == CASES
    assert all(map(PROGRESS.fullmatch, run.said().splitlines(keepends=True)))
    assert files(cohort / "maps") == files(undisturbed / "maps")
    assert hidden(cohort) == []


@pytest.fixture
def memory_group():
    """A control group of 500 MB, as a container or a job scheduler makes one; its folder."""
    groups = [Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")]
    folder = next((root for root in groups if (root / "cgroup.procs").exists()), groups[0]) / f"rwtool-{os.getpid()}"
    limit = folder / ("memory.limit_in_bytes" if folder.parent == groups[0] else "memory.max")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("no control group can be made here")
    try:
        if not limit.exists() or limit.write_text("500000000") == 0:
            pytest.skip("control groups have no memory limit here")
        yield folder
    finally:
        until(lambda: not (folder / "cgroup.procs").read_text())
        folder.rmdir()


def within(group, folder, *arguments):
    enter = f'echo $$ > {group}/cgroup.procs && exec "$@"'
    command = ["sh", "-c", enter, "sh", sys.executable, "-m", "rwtool", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=folder, capture_output=True, encoding="utf-8", check=False, env=environment, timeout=300
    )


@pytest.mark.slow
def test_a_case_that_the_memory_of_a_container_does_not_hold_costs_no_other(memory_group, tmp_path):
    (tmp_path / "labels").mkdir()
    for name, side in (("a", 20), ("b", 20), ("large", 460)):
        labels = np.zeros((side, side, side), dtype=np.uint8)
        labels[5:10, 5:10, 5:10] = 1
        nib.save(nib.Nifti1Image(labels, np.eye(4)), tmp_path / "labels" / f"{name}.nii.gz")
    planned = within(memory_group, tmp_path, "maps", "labels", "planned")
    assert planned.returncode == 1, planned.stderr
    assert re.search(r"large: it needs about \d\.\d GB of memory and 0\.\d GB are free", planned.stderr), planned.stderr
    forced = within(memory_group, tmp_path, "maps", "labels", "forced", "-j", "2")
    assert forced.returncode == 1, forced.stderr
    assert "large: its process was killed, most often for want of memory; free some and run again" in forced.stderr
    for out in ("planned", "forced"):
        assert sorted(read_map_set(tmp_path / out / "rrw").cases) == ["a", "b"]
        assert sorted(path.name for path in (tmp_path / out / "rrw").iterdir()) == ["a.nii.gz", "b.nii.gz", "maps.json"]


def test_two_runs_of_one_command_fill_a_folder_together_and_one_of_other_settings_is_refused(undisturbed, cohort):
    command = ("maps", "labels", "maps", *MAPS, "-j", "1")
    first = Running(cohort, *command)
    until(lambda: first.said() or first.ended())
    first.process.send_signal(signal.SIGSTOP)  # so that it is there as long as the others are
    other = finish(cohort, *command, "--units", "voxel", "--overwrite")
    second = finish(cohort, *command)
    first.process.send_signal(signal.SIGCONT)
    assert other.returncode == 2
    assert re.search(
        r"process \d+ on .* has been writing into it since .* \(kind \w+, .*units mm.*\); wait until it has ended, or",
        " ".join(other.stderr.split()),
    ), other.stderr
    assert (second.returncode, first.process.wait(120)) == (0, 0)
    assert files(cohort / "maps") == files(undisturbed / "maps")
    assert hidden(cohort) == []


def test_a_label_file_that_changes_before_it_is_read_gives_no_map_under_the_hash_of_what_it_was(undisturbed, cohort):
    (cohort / "labels").unlink()
    shutil.copytree(undisturbed / "labels", cohort / "labels")
    last = cohort / "labels" / "case_7.nii"
    with Running(cohort, "maps", "labels", "maps", *MAPS, "-j", "1").process as process:
        until(lambda: list((cohort / "maps").glob("boundary/case_*")))
        shutil.copy(cohort / "labels" / "case_0.nii", last)
        assert process.wait(120) == 1
    said = (cohort / "errors").read_text()
    assert "case_7: labels/case_7.nii: it was changed while it was read; run again when nothing writes to it" in said
    assert not list(cohort.rglob("case_7.nii.gz"))
    again = finish(cohort, "maps", "labels", "maps", *MAPS, "-j", "1")
    assert (again.returncode, again.stderr.count("\n")) == (0, 1)
    for kind in ("boundary", "rrw"):
        first, changed = (cohort / "maps" / kind / f"case_{number}.nii.gz" for number in (0, 7))
        assert first.read_bytes() == changed.read_bytes()


def test_a_script_without_a_guard_runs_once_and_ends_by_itself_on_sigterm(undisturbed):
    script = undisturbed / "plain.py"
    script.write_text(
        "import signal, rwtool\n"
        "rwtool.check_maps('maps/rrw', jobs=2, verbosity=-1)\n"
        "print('once', signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)\n"
    )
    done = subprocess.run([sys.executable, script], cwd=undisturbed, capture_output=True, encoding="utf-8", check=False)
    assert (done.stdout, done.stderr) == ("once True\n", "")


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        (("-m", "rwtool"), ("check", "maps/rrw", "-j", "1")),
        (("-m", "rwtool"), ("--help",)),
        (("-c", "from rwtool.cli import main; main(prog_name='rwtool')"), ("--help",)),
    ],
)
def test_a_reader_that_has_seen_enough_ends_the_program_quietly(undisturbed, program, arguments):
    process = subprocess.Popen(
        [sys.executable, *program, *arguments],
        cwd=undisturbed,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 1
    assert [line for line in errors.splitlines(keepends=True) if not PROGRESS.fullmatch(line)] == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_training_goes_on_to_the_same_weights(tmp_path, number):
    write_cohort(tmp_path)
    settings = [*words(QUICK | {"epochs": 40}), "--val", "0.34", "--val-every", "10"]
    whole = finish(tmp_path, "train", "images", "labels", "whole", *settings)
    assert whole.returncode == 0, whole.stderr
    run = Running(tmp_path, "train", "images", "labels", "run", *settings)
    until(lambda: "epoch 3/40" in run.said() or run.ended())
    assert run.stop(number) == EXIT[number]
    last = run.said().splitlines()[-1]
    assert re.fullmatch(r"interrupted: \d+ of 40 epochs are saved in run; --resume goes on", last)
    assert hidden(tmp_path) == []
    rest = finish(tmp_path, "train", "images", "labels", "run", *settings, "--resume")
    assert rest.returncode == 0, rest.stderr
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_run_that_is_stopped_at_any_moment_leaves_nothing_broken(undisturbed, cohort, seed):
    rng = random.Random(seed)
    whole = files(undisturbed / "maps")
    command = ("maps", "labels", "maps", *MAPS, "-j", rng.choice("123"))
    for _ in range(25):
        before = set(hidden(cohort))  # of a run that was killed, which one that gets to writing sweeps
        run = Running(cohort, *command)
        until(lambda run=run: run.listens() or run.ended())
        time.sleep(rng.uniform(0, 1.5))
        if run.ended():
            break
        number, workers = rng.choice(list(EXIT)), run.workers()
        assert run.stop(number) in (EXIT[number], 0)
        until(lambda workers=workers: not any(map(alive, workers)), seconds=5)
        lines = run.said().splitlines(keepends=True)
        rest = [line for line in lines if not PROGRESS.fullmatch(line)]
        assert len(rest) <= 1
        assert all(line.startswith("interrupted") for line in rest), run.said()
        if number != signal.SIGKILL:
            assert set(hidden(cohort)) <= before
        assert files(cohort / "maps").items() <= whole.items()
    done = finish(cohort, *command)
    assert done.returncode == 0, done.stderr
    assert files(cohort / "maps") == whole
    assert hidden(cohort) == []


SEEDS = ("--seeds", "0:3", "-j", 2)
LONG = (*words({**QUICK, "epochs": 60, "val_every": 60}),)


def stop_side_by_side(folder, number):
    """Three runs, two at a time, stopped when both of these have an epoch."""
    write_cohort(folder)
    run = Running(folder, "train", "images", "labels", "runs", *LONG, *SEEDS)
    until(lambda: all(f"seed-{seed}  epoch " in run.said() for seed in (0, 1)) or run.ended(), seconds=120)
    workers = run.workers()
    assert len(workers) == 2
    assert run.stop(number) == EXIT[number]
    until(lambda: not any(map(alive, workers)), seconds=5)
    return run


def test_runs_side_by_side_end_together(tmp_path):
    run = stop_side_by_side(tmp_path, signal.SIGINT)
    assert run.said().splitlines()[-1] == "interrupted: 0 of 3 runs done; --resume goes on"
    assert hidden(tmp_path) == []
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["seed-0", "seed-1"]
    for seed in (0, 1):
        assert sorted(path.name for path in (tmp_path / "runs" / f"seed-{seed}").iterdir()) == [
            "config.toml", "last.pt", "metrics.csv", "split.json",
        ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_runs_that_were_stopped_side_by_side_come_to_what_they_would_have_come_to(tmp_path, number):
    stop_side_by_side(tmp_path, number)
    done = finish(tmp_path, "train", "images", "labels", "runs", *LONG, *SEEDS, "--resume")
    assert done.returncode == 0, done.stderr
    assert "seed-0  epoch 1/60" not in done.stderr
    alone = finish(tmp_path, "train", "images", "labels", "alone", *LONG)
    assert alone.returncode == 0, alone.stderr
    assert weights(tmp_path / "runs" / "seed-0") == weights(tmp_path / "alone")
    assert hidden(tmp_path) == []
