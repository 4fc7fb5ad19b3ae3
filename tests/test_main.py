import errno
import signal
import subprocess
import sys
import time

import click
import pytest
from click.testing import CliRunner

from rwtool.cli import main

pytestmark = pytest.mark.usefixtures("ctrl_c")


@pytest.fixture
def interrupted(monkeypatch, tmp_path):
    """Run a command of the program that meets something where it calls the library."""

    hangup = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which nohup ignores

    def run(meet):
        monkeypatch.setattr("rwtool.views.check.check_maps", lambda *arguments, **options: meet())
        return CliRunner().invoke(main, ["check", str(tmp_path)])

    yield run
    signal.signal(signal.SIGHUP, hangup)


def raising(error):
    def meet():
        raise error

    return meet


@pytest.mark.parametrize(
    ("meet", "code", "errors"),
    [
        (raising(KeyboardInterrupt("2 of 3 cases done; go on")), 130, "interrupted: 2 of 3 cases done; go on\n"),
        (raising(KeyboardInterrupt), 130, "interrupted\n"),
        (lambda: signal.raise_signal(signal.SIGINT), 130, "interrupted\n"),
        (lambda: signal.raise_signal(signal.SIGTERM), 143, "interrupted\n"),
        (lambda: signal.raise_signal(signal.SIGHUP), 129, "interrupted\n"),
    ],
)
def test_an_interrupted_command_says_so_in_one_line_and_by_its_exit_code(interrupted, meet, code, errors):
    result = interrupted(meet)
    assert (result.exit_code, result.stdout, result.stderr) == (code, "", errors)


def test_only_a_command_under_way_listens_to_sigterm(interrupted):
    during = []
    interrupted(lambda: during.append(signal.getsignal(signal.SIGTERM)))
    assert callable(during[0])
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_signal_that_is_ignored_stays_so(interrupted):
    during = []
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        interrupted(lambda: during.append(signal.getsignal(signal.SIGHUP)))
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    assert during == [signal.SIG_IGN]


def test_the_program_and_the_module_are_one():
    module = [sys.executable, "-m", "rwtool"]
    program = [sys.executable, "-c", "import sys; from rwtool.__main__ import main; sys.exit(main())"]
    for arguments, code in (["--version"], 0), (["maps"], 2), (["check", "nowhere"], 2):
        results = [
            subprocess.run([*command, *arguments], capture_output=True, encoding="utf-8", check=False)
            for command in (module, program)
        ]
        assert {result.returncode for result in results} == {code}
        assert results[0].stdout == results[1].stdout
        assert results[0].stderr == results[1].stderr
        assert ("Usage: rwtool " in results[0].stderr) == (code == 2)


def test_an_interrupt_while_it_starts_is_one_line_too():
    code = (
        "import sys, signal\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'click': signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from rwtool.__main__ import main\n"
        "main()\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=False)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "interrupted\n")


def test_a_thread_can_run_a_command():
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as threads, pytest.raises(click.UsageError):
        threads.submit(main, ["check", "nowhere"], standalone_mode=False).result()


def test_an_error_of_the_system_is_one_line_wherever_it_comes_up(interrupted):
    result = interrupted(raising(PermissionError(errno.EACCES, "Permission denied", "a/b")))
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", "Error: a/b: Permission denied\n")


def test_a_lack_of_memory_is_one_line(interrupted):
    for error, reason in ((MemoryError(), "no more is free"), (MemoryError("Unable to allocate 8 GiB"), "Unable to")):
        result = interrupted(raising(error))
        assert (result.exit_code, result.output.count("\n")) == (1, 1)
        assert result.output.startswith(f"Error: not enough memory: {reason}")


@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_a_closed_stream_is_no_error(closed):
    command = f'"$0" -m rwtool help maps {closed}'
    done = subprocess.run(["sh", "-c", command, sys.executable], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_an_interrupt_before_a_command_is_at_work_has_its_exit_code_too(monkeypatch):
    def meet(*arguments, **options):
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(type(main), "make_context", meet)
    assert CliRunner().invoke(main, ["maps"]).exit_code == 143


class Deleted:
    """Meets a signal where Python drops what is raised."""

    def __del__(self):
        signal.raise_signal(signal.SIGTERM)


def test_an_interrupt_that_python_drops_comes_again(interrupted):
    ended = []

    def meet():
        Deleted()
        time.sleep(60)
        ended.append(True)

    assert interrupted(meet).exit_code == 143
    assert not ended


def test_an_interrupt_of_which_a_library_makes_another_error_stays_one(interrupted):
    def meet():
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt as error:
            raise TypeError("incompatible function arguments") from error

    result = interrupted(meet)
    assert (result.exit_code, result.stderr) == (143, "interrupted\n")


LATE = """
import signal, rwtool.cli, rwtool.__main__
command = rwtool.cli.main
def late(**given):
    try:
        command(["--version"], **given)
    finally:
        signal.raise_signal(signal.SIGINT)
rwtool.cli.main = late
rwtool.__main__.main()
"""


def test_an_interrupt_after_a_command_is_one_line():
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, encoding="utf-8", check=False)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")
