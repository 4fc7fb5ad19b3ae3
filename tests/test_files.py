import errno
import os
import subprocess
import sys
import threading
import time

import pytest

from rwtool.errors import VolumeError
from rwtool.files import (
    atomic,
    file_crc32,
    file_in,
    fitting_name,
    is_file_name,
    locked,
    make_folder,
    naming,
    remove_leftovers,
    scratch,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_crc32_is_that_of_the_standard(tmp_path):
    (tmp_path / "a").write_bytes(b"123456789")
    assert file_crc32(tmp_path / "a") == "cbf43926"


# --- whole files ---


def test_a_file_appears_whole(tmp_path):
    with atomic(tmp_path / "new" / "a") as temporary:
        temporary.write_text("text")
        assert names(tmp_path / "new") == [temporary.name, f"{temporary.name}.lock"]
    assert names(tmp_path / "new") == ["a"]


def test_a_file_appears_whole_with_the_parts_that_it_names(tmp_path):
    with atomic(tmp_path / "new" / "a.mhd", parts=True) as temporary:
        temporary.write_text("header")
        temporary.with_suffix(".raw").write_text("voxels")
        assert names(tmp_path / "new") == [temporary.parent.name, f"{temporary.parent.name}.lock"]
    assert names(tmp_path / "new") == ["a.mhd", "a.raw"]


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "a"
    path.write_text("before")
    with pytest.raises(ZeroDivisionError), atomic(path) as temporary:
        temporary.write_text(f"half{1 / 0}")
    assert (path.read_text(), names(tmp_path)) == ("before", ["a"])


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EFBIG, errno.EIO])
def test_a_disk_that_refuses_in_the_middle_is_one_line(tmp_path, code):
    with pytest.raises(VolumeError) as caught, atomic(tmp_path / "a"):
        raise OSError(code, os.strerror(code))
    assert str(caught.value) == f"{tmp_path / 'a'}: cannot be written: {os.strerror(code)}"
    assert names(tmp_path) == []


def test_a_folder_that_vanishes_meanwhile_is_one_line(tmp_path):
    folder = tmp_path / "gone"
    with pytest.raises(VolumeError, match=r"gone/a: cannot be written: No such file"), atomic(folder / "a"):
        folder.rename(tmp_path / "elsewhere")


def test_a_folder_where_a_file_stands_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(VolumeError, match="cannot be written: Not a directory"):
        make_folder(tmp_path / "file" / "out")
    with pytest.raises(VolumeError, match="file: there is no folder of this name"), atomic(tmp_path / "file" / "a"):
        pass


HOLD = """
import pathlib, sys
from rwtool.files import atomic
with atomic(pathlib.Path(sys.argv[1])) as path:
    path.touch()
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def writing(tmp_path):
    """Another process that is writing `tmp_path / "b"`."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "b"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield process


def test_leftovers_of_a_dead_process_go_and_those_of_a_living_one_stay(tmp_path, writing):
    with atomic(tmp_path / "a") as temporary:
        remove_leftovers(tmp_path)
        temporary.write_text("")
        assert len(names(tmp_path)) == 4
    writing.kill()
    writing.wait()
    assert len(names(tmp_path)) == 3  # a file with its lock, and a
    remove_leftovers(tmp_path)
    assert names(tmp_path) == ["a"]


def test_the_first_write_into_a_folder_sweeps_it(tmp_path, writing):
    writing.kill()
    writing.wait()
    assert len(names(tmp_path)) == 2
    subprocess.run([sys.executable, "-c", HOLD, tmp_path / "a"], input="\n", text=True, capture_output=True, check=True)
    assert names(tmp_path) == ["a"]


def test_a_lock_that_was_made_for_no_folder_any_more_goes_too(tmp_path):
    (tmp_path / f".{'0' * 32}.rwtool-tmp.lock").touch()
    remove_leftovers(tmp_path)
    assert names(tmp_path) == []


INTERRUPTED = """
import pathlib, shutil, sys
import rwtool.files
def interrupt(*_, **__):
    shutil.rmtree = remove
    raise KeyboardInterrupt
remove, shutil.rmtree = shutil.rmtree, interrupt
with rwtool.files.atomic(pathlib.Path(sys.argv[1])) as path:
    path.touch()
"""


def test_an_interrupt_while_a_hidden_folder_is_removed_leaves_none_at_the_end(tmp_path):
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, tmp_path / "a"], capture_output=True, check=False)
    assert b"KeyboardInterrupt" in done.stderr
    assert names(tmp_path) == ["a"]


# --- names ---


@pytest.mark.parametrize("name", ["a.nii.gz", "..a", "a b", "-", "caf\udce9"])
def test_a_plain_name_is_a_file_of_the_folder(tmp_path, name):
    assert is_file_name(name)
    assert file_in(tmp_path, name) == tmp_path / name


@pytest.mark.parametrize("name", ["", ".", "..", "../a", "a/b", "/etc/passwd", "a/", "a\0b", "./a"])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path, name):
    assert not is_file_name(name)
    with pytest.raises(VolumeError, match="is no name of a file in this folder; nothing outside of it is touched"):
        file_in(tmp_path, name)


@pytest.mark.parametrize(
    "name",
    [
        "CON",
        "nul",
        "aux.txt",
        "Com1.nii.gz",
        "lpt\u00b9",
        "prn .npy",
        "a.",
        "a ",
        "a:b",
        "C:a",
        "a\\b",
        "a|b",
        "a\nb",
        "a?",
    ],
)
def test_a_name_that_windows_takes_for_something_else_is_none_there(name):
    assert not is_file_name(name, windows=True)
    assert is_file_name(name, windows=False)


@pytest.mark.parametrize("name", ["a.nii.gz", "console", "com10", "auxiliary.npy", ".con", "caf\u00e9 1"])
def test_other_names_are_names_on_windows_too(name):
    assert is_file_name(name, windows=True)


def test_a_link_is_followed_within_the_folder_alone(tmp_path):
    folder = tmp_path / "maps"
    folder.mkdir()
    (folder / "a").write_text("")
    (folder / "inside").symlink_to("a")
    assert file_in(folder, "inside") == folder / "inside"
    for target in (tmp_path / "b", "../b", "circle", "/dev/zero"):
        (folder / "circle").unlink(missing_ok=True)
        (folder / "circle").symlink_to(target)
        if target != "circle":  # leads nowhere at all
            with pytest.raises(VolumeError, match="a link that leads out of its folder is not followed"):
                file_in(folder, "circle")
    (tmp_path / "door").symlink_to(folder)  # the folder itself may be reached by a link
    assert file_in(tmp_path / "door", "inside") == tmp_path / "door" / "inside"


# --- locks ---


def test_a_lock_is_held_by_one_at_a_time_and_leaves_nothing(tmp_path):
    path, inside, most = tmp_path / "maps.json", [], []

    def work():
        for _ in range(30):
            with locked(path):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.0005)
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (set(most), len(most), names(tmp_path)) == ({1}, 120, [])


def test_the_lock_of_a_killed_process_holds_no_one_up(tmp_path):
    code = (
        "import sys, os, pathlib; from rwtool.files import locked\n"
        "with locked(pathlib.Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "maps.json"], check=False)
    assert names(tmp_path) == [".maps.json.lock"]
    start = time.monotonic()
    with locked(tmp_path / "maps.json"):
        pass
    assert time.monotonic() - start < 5


def test_a_lock_that_is_not_let_go_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("rwtool.files._LOCK_SECONDS", 0.1)
    with locked(tmp_path / "a"):
        found = []

        def wait():
            with pytest.raises(VolumeError) as caught, locked(tmp_path / "a"):
                pass
            found.append(str(caught.value))

        thread = threading.Thread(target=wait)
        thread.start()
        thread.join()
    assert found == [f"{tmp_path / 'a'}: {tmp_path / '.a.lock'} has been held by another process for 0.1 s; end it"]


def test_a_lock_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(VolumeError, match=r"file/a: cannot be written: "), locked(tmp_path / "file" / "a"):
        pass


def test_a_scratch_folder_goes_with_all_in_it_also_after_an_error(tmp_path):
    with scratch(tmp_path) as folder:
        assert (folder.parent, folder.name[0]) == (tmp_path, ".")
        (folder / "deep").mkdir()
        (folder / "deep" / "file").touch()
        remove_leftovers(tmp_path)  # of a living process: it stays
        assert folder.is_dir()
    with pytest.raises(KeyError), scratch(tmp_path):
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    with scratch(tmp_path / "new") as folder:
        assert folder.parent == tmp_path / "new"
    (tmp_path / "file").touch()
    with pytest.raises(VolumeError, match="file: there is no folder of this name"), scratch(tmp_path / "file"):
        pass


def test_remove_leftovers_keeps_what_is_not_ours(tmp_path):
    foreign = [".notes.1.tmp", ".a.nii.999999999@elsewhere.rwtool-tmp", "a.999999999.tmp", ".rwtool-tmp"]
    foreign.append(f".{'0' * 31}.rwtool-tmp")
    for name in foreign:
        (tmp_path / name).mkdir()
    remove_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(foreign)


def test_a_name_as_long_as_names_can_be_is_written(tmp_path):
    path = tmp_path / ("a" * 248 + ".nii.gz")
    with atomic(path) as temporary:
        temporary.write_text("whole")
    assert (path.read_text(), names(tmp_path)) == ("whole", [path.name])


@pytest.mark.parametrize("what", ["file", "broken link"])
def test_a_folder_that_cannot_be_for_its_name_is_taken_is_told_so(tmp_path, what):
    path = tmp_path / "out"
    if what == "file":
        path.write_text("mine")
    else:
        path.symlink_to("nowhere")
    with pytest.raises(VolumeError, match="out: there is no folder of this name, but a file or a broken link; name an"):
        make_folder(path)


def test_of_an_error_of_several_lines_the_last_is_the_reason(tmp_path):
    with pytest.raises(VolumeError) as caught, naming(tmp_path / "a", RuntimeError):
        raise RuntimeError("Exception thrown in Reader: reader.cxx:249:\nITK ERROR: the row is missing\n\n")
    assert str(caught.value) == (
        f"{tmp_path / 'a'}: cannot be read: ITK ERROR: the row is missing; it is truncated or damaged; copy it again "
        "from its source"
    )


@pytest.mark.skipif(not hasattr(os, "waitid"), reason="no waitid")
def test_a_process_that_has_ended_is_gone_whether_its_parent_has_asked_or_not(tmp_path, writing):
    writing.kill()
    os.waitid(os.P_PID, writing.pid, os.WEXITED | os.WNOWAIT)  # ended, and not asked
    remove_leftovers(tmp_path)
    assert names(tmp_path) == []


INTERRUPTED_LOCK = """
import pathlib, sys
from filelock import FileLock
from rwtool.files import locked
acquire = FileLock.acquire
def interrupted(*given, **more):
    acquire(*given, **more)
    raise KeyboardInterrupt
FileLock.acquire = interrupted
with locked(pathlib.Path(sys.argv[1])):
    pass
"""


@pytest.mark.parametrize("letter", ["a", "ä", "\U0001f600", "\udcff"])
def test_a_name_that_is_long_already_leaves_room_for_a_suffix(tmp_path, letter):
    names = [letter * (250 // len(os.fsencode(letter))) + end for end in ("", "b", "c")]
    made = {fitting_name(name, ".json") for name in names}
    assert len(made) == 3
    for name in made:
        (tmp_path / name).write_text("x")
        assert name.endswith(".json")
    assert fitting_name("case", ".json") == "case.json"


def test_an_interrupt_as_a_lock_is_taken_leaves_none(tmp_path):
    done = subprocess.run([sys.executable, "-c", INTERRUPTED_LOCK, tmp_path / "a"], capture_output=True, check=False)
    assert b"KeyboardInterrupt" in done.stderr
    assert names(tmp_path) == []
