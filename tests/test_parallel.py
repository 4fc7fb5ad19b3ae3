import os
import re
import signal
import time

import pytest

from rwtool import parallel as runner
from rwtool.engines import Engine
from rwtool.errors import VolumeError
from rwtool.files import atomic
from rwtool.parallel import Schedule, Work, run_cases, schedule


def double(number):
    return 2 * number


def misbehave(how):
    if how == "mistake":
        raise VolumeError("case.nii: mend it")
    if how == "bug":
        raise ZeroDivisionError("a bug")
    if how == "memory":
        raise MemoryError
    if how == "memory of PyTorch":
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "slow":
        time.sleep(0.3)
    return how


LACKS = ("memory", "memory of PyTorch")


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
    outcomes = run_cases(misbehave, work_of("mistake", "fine", "bug", *LACKS), jobs=jobs, label="", verbosity=-1)
    mistake, fine, bug, *memory = outcomes
    assert (fine.result, fine.error) == ("fine", None)
    assert (mistake.result, mistake.error, mistake.details) == (None, "case.nii: mend it", None)
    assert bug.error == "unexpected ZeroDivisionError: a bug (this is a bug in rwtool)"
    assert bug.details.startswith("Traceback")
    assert 'raise ZeroDivisionError("a bug")' in bug.details
    assert {lack.error for lack in memory} == {"not enough memory; free some, or give fewer jobs, such as jobs=1"}


def test_killed_worker_costs_its_own_case_alone():
    done = []
    work = work_of("fine", "slow", "killed", "slow", "fine")
    outcomes = run_cases(misbehave, work, jobs=2, label="", verbosity=-1, on_done=lambda o: done.append(o.name))
    assert [outcome.result for outcome in outcomes] == ["fine", "slow", None, "slow", "fine"]
    assert outcomes[2].error == "its process was killed, most often for want of memory; free some and run again"
    assert sorted(done) == [item.name for item in work]


@pytest.fixture
def machine(monkeypatch):
    """A machine of so many cores and so much free memory."""

    def choose(cores, memory=None):
        monkeypatch.setattr(runner, "available_cores", lambda: cores)
        monkeypatch.setattr(runner, "available_memory", lambda: memory)

    return choose


def cases(*peaks, voxels=10**9):
    return [Work(str(number), None, voxels, peak) for number, peak in enumerate(peaks)]


@pytest.mark.parametrize(
    ("peaks", "cores", "memory", "plan"),
    [
        ([10, 10, 10, 10], 4, 1000, (4, 1)),
        ([10, 10, 10, 10], 4, None, (4, 1)),
        ([10, 10, 10, 10], 4, 25, (2, 2)),
        ([10, 10, 10, 10], 4, 11, (1, 4)),
        ([10, 10], 8, 1000, (2, 4)),
        ([30, 1, 1, 1], 4, 32, (3, 1)),
        ([10, 10, 10], 1, 1000, (1, 1)),
        ([10, 10], 2, 20, (2, 1)),
        ([10], 4, 20, (1, 4)),
        ([], 4, 100, (1, 4)),
    ],
)
def test_jobs_fit_cores_and_the_largest_cases_together_memory(machine, peaks, cores, memory, plan):
    machine(cores, memory)
    found = schedule(cases(*peaks))
    assert (found.jobs, found.threads) == plan
    assert (found.work, found.refused) == (cases(*peaks), [])


@pytest.mark.parametrize(
    ("number", "voxels", "voxel_ns", "jobs"),
    [
        (130, 60_000, 100, 1),  # 1.0 s, half of which two processes would save: less than they take to start
        (130, 100_000, 100, 2),  # 1.6 s
        (130, 100_000, 10, 1),
        (1000, 1, 100, 2),  # many files take time however small they are
        (2, 8_000_000, 100, 2),
    ],
)
def test_small_work_stays_in_this_process_which_is_done_before_others_have_started(
    machine, number, voxels, voxel_ns, jobs
):
    machine(2)
    found = schedule(cases(*[1] * number, voxels=voxels), voxel_ns=voxel_ns)
    assert (found.jobs, found.threads) == (jobs, 1)


def test_jobs_that_are_given_are_taken_as_they_are(machine):
    machine(8, 15)
    assert schedule(cases(10, 20, voxels=1), 3) == Schedule(cases(10, 20, voxels=1), [], 3, 1)


def test_workers_of_an_engine_have_memory_and_cores_of_their_own(machine):
    machine(8, 15)
    engine = Engine("tls://host:8786", dict)
    assert schedule(cases(10, 20, voxels=1), engine=engine) == Schedule(cases(10, 20, voxels=1), [], 2, 1)
    assert schedule(cases(10, 20, voxels=1), 1, engine=engine).jobs == 1


def test_case_larger_than_memory_is_refused_with_its_need(machine):
    machine(2, 2_000_000_000)
    small, large = Work("small", None, peak_bytes=2_000_000_000), Work("large", None, peak_bytes=3_000_000_000)
    found = schedule([small, large])
    assert found.work == [small]
    assert [(refused.name, refused.result, refused.error) for refused in found.refused] == [
        (
            "large",
            None,
            "it needs about 3.0 GB of memory and 2.0 GB are free; free some, or give jobs=1 to try all the same",
        )
    ]


def test_progress_is_plain_lines_on_standard_error_where_there_is_no_terminal(capsys):
    run_cases(misbehave, work_of("mistake", "fine"), jobs=1, label="maps", verbosity=0)
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"\[1/2\] maps case 1: \d+\.\d s\n\[2/2\] maps case 0: FAILED\n", err)


def test_quiet_is_silent(capsys):
    run_cases(misbehave, work_of("mistake", "fine"), jobs=1, label="maps", verbosity=-1)
    assert capsys.readouterr() == ("", "")


def interrupt(how):
    if how == "interrupt":
        raise KeyboardInterrupt
    return how


def test_an_interrupt_stays_one_and_says_what_is_done():
    work = work_of("last", "interrupt", "fine", "fine")
    with pytest.raises(KeyboardInterrupt) as found:
        run_cases(interrupt, work, jobs=1, label="", verbosity=-1, rerun=runner.GOES_ON)
    assert str(found.value) == "2 of 4 cases done; run the same command again to go on"


def test_a_case_that_failed_is_not_done():
    with pytest.raises(
        KeyboardInterrupt, match=r"^1 of 3 cases done; nothing is kept, so the same command starts anew$"
    ):
        run_cases(interrupt_or_misbehave, work_of("interrupt", "mistake", "fine"), jobs=1, label="", verbosity=-1)


def interrupt_or_misbehave(how):
    return interrupt(misbehave(how))


def test_an_interrupt_takes_the_processes_and_what_they_have_half_written_with_it(tmp_path):
    started = time.monotonic()

    def stop(outcome):
        raise KeyboardInterrupt

    work = [Work("short", (tmp_path, 0.0), voxels=2), Work("long", (tmp_path, 600.0))]
    with pytest.raises(KeyboardInterrupt):
        run_cases(write_slowly, work, jobs=2, label="", verbosity=-1, on_done=stop, folders=[tmp_path])
    assert time.monotonic() - started < 60
    assert [path.name for path in tmp_path.iterdir()] in ([], ["0.0"])


def write_slowly(argument):
    folder, seconds = argument
    with atomic(folder / str(seconds)) as path:
        path.touch()
        time.sleep(seconds)
        until_there = time.monotonic() + 30
        while len(list(folder.iterdir())) < 2 and time.monotonic() < until_there:  # the other one
            time.sleep(0.01)


def test_leftovers_of_a_killed_run_are_swept(tmp_path):
    from cohorts import leftover  # it imports torch, which the processes of the other tests need not

    left = leftover(tmp_path)
    run_cases(double, work_of(1), jobs=1, label="", verbosity=-1, folders=[tmp_path])
    assert not left.exists()


def test_a_killed_process_does_not_slow_down_what_is_left():
    started = []
    work = [Work("killed", "killed", voxels=100), *work_of(*["slow"] * 6)]
    outcomes = run_cases(note_process, work, jobs=2, label="", verbosity=-1, on_done=lambda o: started.append(o.result))
    assert [outcome.error is None for outcome in outcomes] == [False] + [True] * 6
    assert len(set(started[:-1])) == 2
    assert os.getpid() not in started


def note_process(how):
    misbehave(how)
    return os.getpid()
