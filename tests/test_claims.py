import errno
import os
import pathlib
import subprocess
import sys

import pytest

from rwtool.claims import claimed, writers
from rwtool.errors import UsageError, VolumeError

HOLD = (
    "import sys, pathlib; from rwtool.claims import claimed\n"
    "with claimed(pathlib.Path(sys.argv[1]), sys.argv[2], shared=True, mend='wait'):\n"
    "    print('held', flush=True); sys.stdin.readline()"
)


@pytest.fixture
def other(tmp_path):
    """Another process that writes with the settings "red"; it ends on a line of input."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path), "red"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def take(folder, settings, *, shared=True):
    with claimed(folder, settings, shared=shared, mend="wait"):
        pass


def test_a_claim_leaves_nothing(tmp_path):
    take(tmp_path, "red")
    assert list(tmp_path.iterdir()) == []


def test_the_last_writer_is_told_so_before_anyone_else_can_begin(tmp_path, other):
    told = []

    def last():
        told.append(sorted(path.suffix for path in tmp_path.iterdir()))

    with claimed(tmp_path, "red", shared=True, mend="wait", at_last=last) as first:
        pass
    assert told == []  # the other is there
    other.kill()
    other.wait()
    with claimed(tmp_path, "red", shared=True, mend="wait", at_last=last) as second:
        assert writers(tmp_path) == {second}
    assert first != second
    assert told == [[".lock", ".lock", ".rwtool-writer"]]  # that of the folder, and this writer
    assert list(tmp_path.iterdir()) == []


def test_a_claim_goes_also_where_what_the_last_does_fails(tmp_path):
    def fail():
        raise VolumeError("no space")

    with pytest.raises(VolumeError), claimed(tmp_path, "red", shared=True, mend="wait", at_last=fail):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_same_settings_write_together(tmp_path, other):
    take(tmp_path, "red")
    with pytest.raises(UsageError, match="has been writing"):
        take(tmp_path, "blue")  # the first is still there


@pytest.mark.parametrize(("settings", "shared"), [("blue", True), ("red", False)])
def test_others_are_told_who_writes_since_when_and_what(tmp_path, other, settings, shared):
    with pytest.raises(UsageError) as caught:
        take(tmp_path, settings, shared=shared)
    message = str(caught.value)
    assert message.startswith(
        f"{tmp_path}: process {other.pid} on {os.uname().nodename} has been writing into it since 2"
    )
    assert message.endswith(" (red); wait")


@pytest.mark.parametrize("end", ["ended", "killed"])
def test_a_process_that_has_ended_holds_no_one_up(tmp_path, other, end):
    if end == "ended":
        other.communicate("\n")
    else:
        other.kill()
        other.wait()
    take(tmp_path, "blue")
    assert list(tmp_path.iterdir()) == []


def test_a_claim_that_cannot_be_read_is_still_one(tmp_path, other):
    (path,) = tmp_path.glob("*.rwtool-writer")
    path.write_text("{")
    with pytest.raises(UsageError, match="another process is writing into it; wait"):
        take(tmp_path, "red")


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(VolumeError, match="cannot be written: "):
        take(tmp_path / "file" / "out", "red")


def test_a_claim_that_the_disk_does_not_take_leaves_nothing_and_no_lock(tmp_path, monkeypatch):
    def full(self, *_, **__):
        self.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pathlib.Path, "write_text", full)
    with pytest.raises(VolumeError, match="cannot be written: No space left on device"):
        take(tmp_path, "red")
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []
    take(tmp_path, "blue")  # which the lock of the first would hold up
