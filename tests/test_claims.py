import errno
import json
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


def test_the_claim_of_a_dead_process_goes_though_a_living_one_has_its_number(tmp_path, other):
    (claim,) = tmp_path.glob("*.rwtool-writer")
    text = claim.read_text().replace(str(other.pid), str(os.getpid()))
    other.kill()
    other.wait()
    claim.write_text(text)
    take(tmp_path, "blue")
    assert list(tmp_path.iterdir()) == []


def test_the_claim_of_a_host_that_is_gone_goes(tmp_path):
    claim = {"process": 1, "host": "elsewhere", "since": "2020-01-01", "settings": "red"}
    (tmp_path / f".{'0' * 32}.rwtool-writer").write_text(json.dumps(claim))
    take(tmp_path, "blue")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_replaced_meanwhile_is_told(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()

    def write():
        with claimed(folder, "red", shared=True, mend="wait"):
            folder.rename(tmp_path / "elsewhere")
            folder.mkdir()

    with pytest.raises(VolumeError, match="out: its folder was removed or replaced while it was written; run the same"):
        write()
    assert list(folder.iterdir()) == []


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
