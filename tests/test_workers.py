import os
import signal
import subprocess
import sys
import time

import pytest

from rwtool import workers
from rwtool.workers import Workers

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def called(function, *arguments):
    with Workers(2) as two:
        return dict(two.map(function, arguments))


def where(number):
    time.sleep(0.05)
    return os.getpid()


def test_as_many_processes_as_wanted_share_the_calls_and_are_gone_at_the_end():
    found = called(where, *range(8))
    assert sorted(found) == list(range(8))
    assert len(set(found.values())) == 2
    assert os.getpid() not in found.values()
    for process in found.values():
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_no_process_is_started_without_a_call(monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", None)
    assert called(where) == {}


def test_large_arguments_and_results_pass():
    large = os.urandom(5_000_000)
    assert called(bytes, large) == {large: large}


def test_a_process_that_crashes_is_told_from_one_that_is_killed():
    found = called(crash, signal.SIGSEGV, signal.SIGKILL, None)
    assert found[None] == "well"
    assert str(found[signal.SIGKILL]).startswith("its process was killed, most often for want of memory")
    assert str(found[signal.SIGSEGV]) == (
        "its process crashed (SIGSEGV), most often in a library that a damaged file breaks; copy the file again"
    )


def crash(number):
    if number is not None:
        os.kill(os.getpid(), number)
    return "well"


def test_threads_of_the_libraries_share_the_cores_unless_the_user_has_bound_them(monkeypatch):
    monkeypatch.setattr(workers, "available_cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "5")
    names = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"]
    assert called(os.getenv, *names) == dict(zip(names, ("4", "5", "4"), strict=True))


def speak(text):
    print(text)
    os.write(1, text.encode())
    return text


def test_what_a_library_prints_is_no_result(capfd):
    assert called(speak, "a", "b") == {"a": "a", "b": "b"}
    assert capfd.readouterr().out == ""


def test_processes_leave_ctrl_c_to_the_one_that_has_started_them():
    assert called(kill_softly, *STOPPING) == dict.fromkeys(STOPPING, "still here")


def kill_softly(number):
    os.kill(os.getpid(), number)
    return "still here"


def test_a_process_ends_with_the_one_that_has_started_it_whatever_either_does(tmp_path):
    """Killed in the middle of a call that keeps Python's lock for minutes."""
    script = (
        "import sys; sys.path[:0] = [sys.argv[1]]\n"
        "from rwtool.workers import Workers\n"
        "from test_workers import hold_the_lock\n"
        "with Workers(1) as one: list(one.map(hold_the_lock, [sys.argv[2]]))\n"
    )
    note = tmp_path / "process"
    parent = subprocess.Popen([sys.executable, "-c", script, os.path.dirname(__file__), note])
    end = time.monotonic() + 60
    while not (note.exists() and note.read_text()):
        assert time.monotonic() < end
        time.sleep(0.01)
    process = int(note.read_text())
    parent.kill()
    parent.wait()
    end = time.monotonic() + 10
    while alive(process):
        assert time.monotonic() < end
        time.sleep(0.01)


def hold_the_lock(note):
    with open(note, "w") as stream:
        stream.write(str(os.getpid()))
    pow(3, 50_000_000)  # one step of the interpreter


def alive(process):
    try:
        with open(f"/proc/{process}/stat") as stream:
            return stream.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_call_that_cannot_be_sent_is_an_error_here():
    with Workers(1) as one, pytest.raises(AttributeError, match="lambda"):
        list(one.map(lambda number: number, [1]))


def test_the_door_is_closed_at_the_end():
    with Workers(1) as one:
        pass
    with pytest.raises(RuntimeError):
        list(one.map(where, [1]))
