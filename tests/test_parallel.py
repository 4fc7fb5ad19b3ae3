import os
import re
import signal
import time

import pytest

from rwtool import parallel as runner
from rwtool.errors import VolumeError
from rwtool.parallel import Work, available_memory, plan_jobs, refuse_too_large, run_cases


def double(number):
    return 2 * number


def misbehave(how):
    if how == "mistake":
        raise VolumeError("case.nii: mend it")
    if how == "bug":
        raise ZeroDivisionError("a bug")
    if how == "memory":
        raise MemoryError
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "slow":
        time.sleep(0.3)
    return how


def work_of(*arguments):
    return [Work(f"case {number}", argument, voxels=number + 1) for number, argument in enumerate(arguments)]


@pytest.mark.parametrize("jobs", [1, 2])
def test_outcomes_come_in_the_order_of_the_cases(jobs):
    outcomes = run_cases(double, work_of(3, 1, 2, 5), jobs=jobs, label="double", verbosity=-1)
    assert [(outcome.name, outcome.result) for outcome in outcomes] == [
        ("case 0", 6), ("case 1", 2), ("case 2", 4), ("case 3", 10),
    ]  # fmt: skip
    assert all(outcome.error is None and outcome.seconds >= 0 for outcome in outcomes)


def test_no_cases_are_no_outcomes():
    for jobs in (1, 2):
        assert run_cases(double, [], jobs=jobs, label="double", verbosity=-1) == []


def test_largest_cases_are_done_first():
    seen = []
    run_cases(
        double, work_of(0, 1, 2), jobs=1, label="", verbosity=-1, on_done=lambda outcome: seen.append(outcome.name)
    )
    assert seen == ["case 2", "case 1", "case 0"]


@pytest.mark.parametrize("jobs", [1, 2])
def test_failing_case_costs_no_other(jobs):
    outcomes = run_cases(misbehave, work_of("mistake", "fine", "bug", "memory"), jobs=jobs, label="", verbosity=-1)
    mistake, fine, bug, memory = outcomes
    assert (fine.result, fine.error) == ("fine", None)
    assert (mistake.result, mistake.error, mistake.details) == (None, "case.nii: mend it", None)
    assert bug.error == "unexpected ZeroDivisionError: a bug (this is a bug in rwtool)"
    assert bug.details.startswith("Traceback")
    assert 'raise ZeroDivisionError("a bug")' in bug.details
    assert memory.error == "not enough memory; free some, or lower --jobs"


def test_killed_worker_costs_its_own_case_alone():
    done = []
    work = work_of("fine", "slow", "killed", "slow", "fine")
    outcomes = run_cases(misbehave, work, jobs=2, label="", verbosity=-1, on_done=lambda o: done.append(o.name))
    assert [outcome.result for outcome in outcomes] == ["fine", "slow", None, "slow", "fine"]
    assert outcomes[2].error == "its process was killed, most often for want of memory; free some and run again"
    assert sorted(done) == [item.name for item in work]


@pytest.mark.parametrize(
    ("peaks", "cores", "memory", "plan"),
    [
        ([10, 10, 10, 10], 4, 1000, (4, 1)),
        ([10, 10, 10, 10], 4, 25, (2, 2)),
        ([10, 10, 10, 10], 4, 9, (1, 4)),
        ([10, 10], 8, 1000, (2, 4)),
        ([30, 1, 1, 1], 4, 32, (3, 1)),
        ([10, 10, 10], 1, 1000, (1, 1)),
        ([10, 10], 2, 20, (2, 1)),
        ([], 4, 100, (1, 4)),
    ],
)
def test_jobs_fit_cores_and_the_largest_cases_together_memory(peaks, cores, memory, plan):
    work = [Work(str(peak), None, peak_bytes=peak) for peak in peaks]
    assert plan_jobs(work, cores=cores, memory=memory) == plan


def test_case_larger_than_memory_is_refused_with_its_need(monkeypatch):
    monkeypatch.setattr(runner, "available_memory", lambda: 2_000_000_000)
    small, large = Work("small", None, peak_bytes=2_000_000_000), Work("large", None, peak_bytes=3_000_000_000)
    fitting, (refused,) = refuse_too_large([small, large])
    assert fitting == [small]
    assert refused.name == "large"
    assert refused.error.startswith("it needs about 3.0 GB of memory and 2.0 GB are free; free some, or give --jobs 1")


def test_container_limit_counts_but_its_cached_files_do_not(monkeypatch, tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    8000 kB\n")
    monkeypatch.setattr(runner, "_MEMORY_INFO", tmp_path / "meminfo")
    monkeypatch.setattr(runner, "_CGROUP", tmp_path)
    assert available_memory() == 8000 * 1024
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("900000\n")
    (tmp_path / "memory.stat").write_text("anon 100000\ninactive_file 300000\nactive_file 500000\n")
    assert available_memory() == 400_000
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory() == 8000 * 1024


def test_progress_is_plain_lines_on_standard_error_where_there_is_no_terminal(capsys):
    run_cases(misbehave, work_of("mistake", "fine"), jobs=1, label="maps", verbosity=0)
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"\[1/2\] maps case 1: \d+\.\d s\n\[2/2\] maps case 0: FAILED\n", err)


def test_quiet_is_silent(capsys):
    run_cases(misbehave, work_of("mistake", "fine"), jobs=1, label="maps", verbosity=-1)
    assert capsys.readouterr() == ("", "")
