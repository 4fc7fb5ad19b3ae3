import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import nibabel as nib
import numpy as np
import pytest
from mapped import expected, write_three

import rwtool
from rwtool.claims import claimed
from rwtool.errors import RwtoolError, UsageError, VolumeError
from rwtool.maps.folder import JOURNAL, MapSet, read_map_set

CASES = ("c0", "c1", "c2")


@pytest.fixture
def labels(tmp_path):
    array = np.zeros((9, 8, 6), np.uint8)
    array[2:6, 2:6, 1:5] = 1
    (tmp_path / "labels").mkdir()
    for n, name in enumerate(CASES):
        nib.save(nib.Nifti1Image(np.roll(array, n, 0), np.diag([1.5, 1.5, 3, 1])), tmp_path / f"labels/{name}.nii.gz")
    return tmp_path / "labels"


def make(labels, units="mm", out="maps", **more):
    more = {"format": "npy", "jobs": 1, **more}
    made = rwtool.make_maps(labels, labels.parent / out, kinds=["boundary"], units=units, **more)
    return [item.name for item in made.plan.work]


def folder_of(labels, out="maps"):
    return labels.parent / out / "boundary"


def spoil(folder, change):
    content = json.loads((folder / "maps.json").read_text())
    content.pop("crc32", None)  # as one does who changes it on purpose
    change(content)
    (folder / "maps.json").write_text(json.dumps(content))


# --- the journal ---


def test_a_run_leaves_maps_and_one_sidecar(labels):
    make(labels)
    assert sorted(path.name for path in folder_of(labels).iterdir()) == ["c0.npy", "c1.npy", "c2.npy", "maps.json"]
    assert json.loads((folder_of(labels) / "maps.json").read_text())["format"] == 3


def killed_after(monkeypatch, labels, cases):
    """Make maps, and end as a process that is killed does: the journal is not folded in."""
    done = []

    def add(self, case, record, plain=MapSet.add):
        plain(self, case, record)
        done.append(case)
        if len(done) == cases:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MapSet, "add", add)
        patch.setattr(MapSet, "_fold", lambda self: None)
        with pytest.raises(KeyboardInterrupt):
            make(labels)
    return done


def journal_of(folder):
    (found,) = folder.glob(f"{JOURNAL}.*")
    return found


def test_a_killed_run_loses_nothing_and_the_next_folds_the_journal_in(labels, monkeypatch):
    done = killed_after(monkeypatch, labels, 2)
    folder = folder_of(labels)
    assert json.loads((folder / "maps.json").read_text())["cases"] == {}
    assert len(journal_of(folder).read_text().splitlines()) == 2
    assert sorted(read_map_set(folder).cases) == sorted(done)
    assert make(labels) == sorted(set(CASES) - set(done))
    assert list(folder.glob(f"{JOURNAL}*")) == []
    assert sorted(json.loads((folder / "maps.json").read_text())["cases"]) == sorted(CASES)


def test_a_torn_last_line_is_ignored_and_the_next_writer_has_a_journal_of_its_own(labels, monkeypatch):
    done = killed_after(monkeypatch, labels, 2)
    journal = journal_of(folder_of(labels))
    journal.write_bytes(journal.read_bytes()[:-30])
    maps = read_map_set(folder_of(labels))
    assert list(maps.cases) == done[:1]
    maps.add("c9", replace_record(maps, done[0], "c9"))
    assert sorted(read_map_set(folder_of(labels)).cases) == sorted([done[0], "c9"])


def replace_record(maps, case, other):
    return msgspec.structs.replace(maps.cases[case], file=f"{other}.npy")


@pytest.mark.parametrize(
    "line", [b"{", b"[" * 100_000, b"\xff", b'{"format": 3, "settings": "x", "case": "c0", "record": {}}']
)
def test_a_damaged_line_costs_its_case_alone(labels, monkeypatch, line):
    done = killed_after(monkeypatch, labels, 2)
    journal = journal_of(folder_of(labels))
    journal.write_bytes(line + b"\n" + journal.read_bytes())
    assert list(read_map_set(folder_of(labels)).cases) == done


@pytest.mark.parametrize(
    ("key", "value"), [("settings", "kind boundary, units voxel"), ("format", 4), ("case", "../c0")]
)
def test_a_line_of_other_settings_or_of_a_file_elsewhere_is_not_taken(labels, monkeypatch, key, value):
    done = killed_after(monkeypatch, labels, 2)
    journal = journal_of(folder_of(labels))
    first, second = journal.read_text().splitlines()
    journal.write_text(json.dumps({**json.loads(first), key: value}) + "\n" + second + "\n")
    assert list(read_map_set(folder_of(labels)).cases) == done[1:]


def noted(folder):
    """Cases in the sidecar itself, and the cases of each journal."""
    journals = [path.read_text().splitlines() for path in sorted(folder.glob(f"{JOURNAL}*"))]
    in_journals = sorted([json.loads(line)["case"] for line in lines] for lines in journals)
    return sorted(json.loads((folder / "maps.json").read_text())["cases"]), in_journals


def test_the_last_of_several_runs_folds_all_of_them_in(labels):
    make(labels)
    folder = folder_of(labels)
    first, second = read_map_set(folder), read_map_set(folder)
    record = first.cases["c0"]
    with first.writing():
        first.add("c7", msgspec.structs.replace(record, file="c7.npy"))
        with second.writing():
            second.add("c8", msgspec.structs.replace(record, file="c8.npy"))
        assert noted(folder) == ([*CASES], [["c7"], ["c8"]])
        assert sorted(read_map_set(folder).cases) == [*CASES, "c7", "c8"]
        first.add("c9", msgspec.structs.replace(record, file="c9.npy"))
    assert noted(folder) == ([*CASES, "c7", "c8", "c9"], [])
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def test_a_run_folds_in_what_killed_ones_have_left_and_not_what_is_still_added_to(labels):
    make(labels)
    folder = folder_of(labels)
    running, killed, late = (read_map_set(folder) for _ in range(3))
    record = running.cases["c0"]
    with running.writing():
        running.add("c7", msgspec.structs.replace(record, file="c7.npy"))
        killed.add("c8", msgspec.structs.replace(record, file="c8.npy"))  # no writer has the name of its journal
        with late.writing():
            assert noted(folder) == ([*CASES, "c7", "c8"], [["c7"]])
            running.add("c9", msgspec.structs.replace(record, file="c9.npy"))
        assert noted(folder)[1] == [["c7", "c9"]]
    assert noted(folder) == ([*CASES, "c7", "c8", "c9"], [])


def test_a_journal_whose_writer_ends_while_it_is_folded_in_loses_no_line(labels, monkeypatch):
    make(labels)
    folder = folder_of(labels)
    ending, killed, late = (read_map_set(folder) for _ in range(3))
    record = ending.cases["c0"]
    writing = ending.writing()
    writing.__enter__()
    ending.add("c7", msgspec.structs.replace(record, file="c7.npy"))
    killed.add("c8", msgspec.structs.replace(record, file="c8.npy"))
    is_begun, calls = MapSet._is_begun, []

    def read_and_end(self):
        """While the second reading is made, which is that of the fold, the other run does one more and ends."""
        found = is_begun(self)
        calls.append(self)
        if len(calls) == 2:
            ending.add("c9", msgspec.structs.replace(record, file="c9.npy"))
            writing.__exit__(None, None, None)
        return found

    monkeypatch.setattr(MapSet, "_is_begun", read_and_end)
    with late.writing():
        assert noted(folder) == ([*CASES, "c7", "c8"], [["c7", "c9"]])
        assert "c9" in read_map_set(folder).cases
    assert noted(folder) == ([*CASES, "c7", "c8", "c9"], [])


# --- one writer of one setting ---


def test_a_run_of_other_settings_that_planned_at_the_same_time_is_refused_before_it_writes(labels):
    with pytest.raises(UsageError, match=r"holds maps of other settings \(parameters.units: 'mm' and 'voxel'"):
        make(labels, "voxel", on_plan=lambda plan: make(labels))  # planned before the other has written
    make(labels, out="alone")
    for case in CASES:
        assert (folder_of(labels) / f"{case}.npy").read_bytes() == (
            folder_of(labels, "alone") / f"{case}.npy"
        ).read_bytes()


def test_settings_that_made_no_map_stand_in_nobodys_way(labels):
    make(labels, classes=(0, 5))  # no file has that class
    assert read_map_set(folder_of(labels)).cases == {}
    make(labels)
    assert sorted(read_map_set(folder_of(labels)).cases) == list(CASES)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_run_of_other_settings_is_told_who_holds_the_folder(labels, overwrite):
    first = rwtool.make_maps(labels, labels.parent / "maps", kinds=["boundary"], format="npy", dry_run=True)
    holding = first.sets["boundary"].writing()
    with contextlib.ExitStack() as stack, pytest.raises(UsageError) as caught:
        make(labels, "voxel", overwrite=overwrite, on_plan=lambda plan: stack.enter_context(holding))
    message = str(caught.value)
    assert message.startswith(f"{folder_of(labels)}: process {os.getpid()} on {os.uname().nodename} has been writing")
    assert "(kind boundary, convention across, units mm, dims 3, absent zero, format npy, dtype float32" in message
    assert message.endswith("; wait until it has ended, or name another out=")
    assert "\n" not in message


FILL = "import sys, rwtool; rwtool.make_maps(*sys.argv[1:], kinds=['boundary'], format='npy', jobs=1)"


def test_runs_of_one_setting_fill_a_folder_together(labels):
    for name in CASES:
        (labels / name).mkdir()
        shutil.move(labels / f"{name}.nii.gz", labels / name)
    out = labels.parent / "together"
    running = [subprocess.Popen([sys.executable, "-c", FILL, labels / name, out]) for name in CASES]
    assert [process.wait() for process in running] == [0, 0, 0]
    folder = out / "boundary"
    assert sorted(path.name for path in folder.iterdir()) == ["c0.npy", "c1.npy", "c2.npy", "maps.json"]
    assert sorted(read_map_set(folder).cases) == sorted(CASES)


# --- what a rerun takes for done ---


def test_a_file_of_other_settings_and_the_same_size_is_made_again(labels):
    make(labels)
    make(labels, "voxel", out="other")
    for case in CASES[:2]:  # by other means than rwtool, its times kept
        shutil.copy2(folder_of(labels, "other") / f"{case}.npy", folder_of(labels) / f"{case}.npy")
    assert make(labels) == ["c0", "c1"]
    assert make(labels) == []


@pytest.mark.parametrize("times", ["new", "kept"])
def test_a_byte_that_was_changed_in_place_is_found_whatever_the_times_say(labels, times):
    make(labels)
    path = folder_of(labels) / "c1.npy"
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    if times == "kept":
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert make(labels) == ["c1"]


def test_a_copy_of_the_folder_is_done(labels):
    make(labels)
    shutil.copytree(labels.parent / "maps", labels.parent / "copy")
    assert make(labels, out="copy") == []


# --- nothing outside of the folder ---


@pytest.mark.parametrize(
    "where", ["../../precious.txt", "{}/precious.txt", "maps.json", "..", "", "c1.npy\0", "c0.npy"]
)
def test_a_file_that_a_sidecar_names_elsewhere_is_neither_read_nor_removed(labels, where):
    make(labels)
    precious = labels.parent / "precious.txt"
    precious.write_text("precious")
    spoil(folder_of(labels), lambda content: content["cases"]["c1"].update(file=where.format(labels.parent)))
    with pytest.raises(RwtoolError, match=r"maps.json: not a readable sidecar: \$.cases.c1.file: "):
        read_map_set(folder_of(labels))
    assert make(labels, "voxel", overwrite=True) == list(CASES)
    assert precious.read_text() == "precious"


def test_a_case_that_is_a_path_is_refused(labels):
    make(labels)

    def rename(content):
        content["cases"]["../c9"] = {**content["cases"]["c1"], "file": "../c9.npy"}

    spoil(folder_of(labels), rename)
    with pytest.raises(RwtoolError, match=r"\$.cases\['../c9'\]: '../c9' is no name of a case, but leads out"):
        read_map_set(folder_of(labels))


def test_a_link_out_of_the_folder_is_neither_read_nor_written_nor_removed(labels):
    make(labels)
    path, outside = folder_of(labels) / "c1.npy", labels.parent / "c1.npy"
    path.rename(outside)
    path.symlink_to(outside)
    content = outside.read_bytes()
    with pytest.raises(VolumeError, match="a link that leads out of its folder is not followed"):
        read_map_set(folder_of(labels)).path("c1")
    assert make(labels) == ["c1"]  # the link gives way to a file
    assert not path.is_symlink()
    path.unlink()
    path.symlink_to(outside)
    make(labels, "voxel", overwrite=True)
    assert outside.read_bytes() == content


def test_overwrite_removes_the_maps_that_were_written_and_no_file_that_was_changed_since(labels):
    make(labels)
    folder = folder_of(labels)
    (folder / "c2.npy").write_bytes(b"mine")
    (folder / "notes.txt").write_text("mine too")
    for name in ("c1", "c2"):
        (labels / f"{name}.nii.gz").unlink()
    make(labels, "voxel", overwrite=True)
    assert sorted(path.name for path in folder.iterdir()) == ["c0.npy", "c2.npy", "maps.json", "notes.txt"]
    assert (folder / "c2.npy").read_bytes() == b"mine"


def test_labels_that_a_sidecar_names_are_read_only_if_they_are_a_file_of_the_right_hash(labels):
    rwtool.make_maps(labels, labels.parent / "maps", format="npy", layout="packed", jobs=1)
    path = labels.parent / "maps" / "rrw" / "c0.npy"
    for source, message in (("/dev/zero", "no such file"), ("../../labels/c1.nii.gz", "not the label file")):
        spoil(path.parent, lambda content, source=source: content["cases"]["c0"].update(source=source))
        with pytest.raises(VolumeError, match=message):
            rwtool.read_map(path)


# --- a disk that refuses ---


def test_a_folder_that_cannot_be_written_to_is_one_line(labels, monkeypatch):
    make(labels)

    def refuse(self, *arguments, **more):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    assert make(labels) == []
    nib.save(nib.Nifti1Image(np.eye(9, dtype=np.uint8)[..., None], np.eye(4)), labels / "d.nii.gz")
    with pytest.raises(VolumeError, match=r"boundary.*: cannot be written: Read-only file system$"):
        make(labels)


def test_a_full_disk_ends_a_run_in_one_line_and_keeps_what_is_done(labels, monkeypatch):
    def full(self, *arguments, **more):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda self, mode="r", *more, plain=Path.open, **others: (
            full(self) if self.name.startswith(JOURNAL) else plain(self, mode, *more, **others)
        ))  # fmt: skip
        with pytest.raises(VolumeError, match=r"maps.json.journal.\w+: cannot be written: No space left on device$"):
            make(labels)
    assert make(labels) != []


# --- names ---


@pytest.mark.skipif(os.name == "nt", reason="names are bytes on POSIX alone")
def test_a_case_whose_name_is_no_utf8_is_made_read_and_checked(labels):
    os.rename(labels / "c0.nii.gz", os.fsencode(labels) + b"/caf\xe9.nii.gz")
    make(labels)
    assert make(labels) == []
    checks = rwtool.check_maps(folder_of(labels), jobs=1).cases
    assert [check.problems for check in checks] == [(), (), ()]
    assert os.fsencode(checks[-1].name) == b"caf\xe9"


def test_a_claim_that_shares_with_none_is_refused_too(labels):
    maps = rwtool.make_maps(labels, labels.parent / "maps", kinds=["boundary"], dry_run=True).sets["boundary"]
    with (
        maps.writing(),
        pytest.raises(UsageError, match="has been writing"),
        claimed(maps.folder, maps.settings.describe(), shared=False, mend="wait"),
    ):
        pass


def test_a_moved_project_still_finds_its_labels(tmp_path):
    labels = write_three(tmp_path / "labels")
    rwtool.make_maps(labels, tmp_path / "maps", jobs=1, layout="packed")
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    truth = expected(labels / "case_0.nii.gz")
    labels.rename(moved / "labels")
    (tmp_path / "maps").rename(moved / "maps")
    path = moved / "maps" / "rrw" / "case_0.nii.gz"
    np.testing.assert_array_equal(rwtool.read_map(path), truth)
    (moved / "labels").rename(tmp_path / "labels2")
    with pytest.raises(rwtool.VolumeError, match="name it with labels="):
        rwtool.read_map(path)
    np.testing.assert_array_equal(rwtool.read_map(path, labels=tmp_path / "labels2" / "case_0.nii.gz"), truth)
    with pytest.raises(rwtool.VolumeError, match="not the label file"):
        rwtool.read_map(path, labels=tmp_path / "labels2" / "case_1.nii.gz")


def test_files_of_another_tool_are_not_replaced_unasked(labels):
    theirs = folder_of(labels) / "c1.npy"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("precious")
    with pytest.raises(
        UsageError, match=r"holds 1 file that maps would replace, first c1.npy, and no maps.json, so rw"
    ):
        make(labels)
    assert [path.name for path in theirs.parent.iterdir()] == ["c1.npy"]
    assert theirs.read_text() == "precious"
    assert make(labels, overwrite=True) == list(CASES)
    assert theirs.read_bytes()[:6] == b"\x93NUMPY"
