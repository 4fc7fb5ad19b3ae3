import errno
import json
import os
import re
import unicodedata
from pathlib import Path

import pytest

from rwtool.datasets.cases import find_cases, search_cases
from rwtool.datasets.classes import Classes, find_dataset_json, make_classes, parse_values
from rwtool.datasets.classes import read_dataset_json as read_classes
from rwtool.datasets.plan import plan_dataset
from rwtool.errors import RwtoolError, UsageError, VolumeError


def touch(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")


def dataset(folder, labels, **others):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "dataset.json"
    path.write_text(json.dumps({"labels": labels, **others}))
    return path


# --- files ---


def test_folder_gives_its_volumes_by_name(tmp_path):
    touch(tmp_path, "b.nii.gz", "a.1.nii", "C.NII.GZ", "d.npy", "e.mha")
    touch(tmp_path, ".hidden.nii", "._b.nii.gz", "dataset.json", "notes.txt")
    (tmp_path / "folder.nii").mkdir()
    assert {name: path.name for name, path in find_cases(tmp_path).items()} == {
        "C": "C.NII.GZ", "a.1": "a.1.nii", "b": "b.nii.gz", "d": "d.npy", "e": "e.mha",
    }  # fmt: skip
    assert list(find_cases(tmp_path)) == sorted(find_cases(tmp_path))


def test_one_file_is_one_case(tmp_path):
    touch(tmp_path, "a.nii.gz", "b.nii.gz")
    assert find_cases(tmp_path / "a.nii.gz") == {"a": tmp_path / "a.nii.gz"}


@pytest.mark.parametrize("pattern", ["*", "*.nii.gz", "[ab].nii.gz"])
def test_glob_gives_what_a_folder_gives(tmp_path, pattern):
    touch(tmp_path, "a.nii.gz", "b.nii.gz", "dataset.json", ".c.nii.gz")
    assert list(find_cases(str(tmp_path / pattern))) == ["a", "b"]


def test_glob_over_folders(tmp_path):
    touch(tmp_path / "one", "a.nii")
    touch(tmp_path / "two" / "deep", "b.nii")
    assert list(find_cases(f"{tmp_path}/**/*.nii")) == ["a", "b"]


def test_nnunet_dataset_stands_for_its_labels(tmp_path):
    touch(tmp_path / "labelsTr", "a.nii.gz")
    touch(tmp_path / "imagesTr", "a_0000.nii.gz")
    assert find_cases(tmp_path) == {"a": tmp_path / "labelsTr" / "a.nii.gz"}


@pytest.mark.parametrize(("one", "two"), [("a.nii", "a.nii.gz"), ("a.mha", "a.npy"), ("a.hdr", "a.nii")])
def test_two_files_of_one_name_are_both_named(tmp_path, one, two):
    touch(tmp_path, one, two)
    with pytest.raises(UsageError) as caught:
        find_cases(tmp_path)
    assert str(caught.value) == (
        f"two files have the case name 'a': {tmp_path / one} and {tmp_path / two}; rename or move one of them, or give "
        "name=PATTERN to say which part of the path is the name"
    )


def test_two_files_of_one_name_in_two_folders_are_both_named(tmp_path):
    touch(tmp_path / "x", "a.nii")
    touch(tmp_path / "y", "a.nii")
    with pytest.raises(UsageError, match=r"x/a\.nii and .*y/a\.nii"):
        find_cases(f"{tmp_path}/*/*.nii")


@pytest.mark.parametrize(
    ("names", "first"), [(("a.hdr", "a.img"), "a.hdr"), (("a.mhd", "a.raw"), "a.mhd"), (("a.mhd", "a.zraw"), "a.mhd")]
)
def test_header_and_voxels_are_one_case(tmp_path, names, first):
    touch(tmp_path, *names)
    assert find_cases(tmp_path) == {"a": tmp_path / first}


def test_broken_link_is_a_case_that_fails_not_one_left_out(tmp_path):
    (tmp_path / "a.nii").symlink_to(tmp_path / "gone")
    assert list(find_cases(tmp_path)) == ["a"]
    (outcome,) = plan_dataset(tmp_path, classes=[0, 1], verbosity=-1).failed
    assert outcome.error == f"{tmp_path / 'a.nii'}: no such file"


def test_what_holds_no_volumes_is_an_error(tmp_path):
    touch(tmp_path, "notes.txt")
    with pytest.raises(UsageError, match=r"no volumes found in this folder; expected files such as \.nii, \.nii\.gz"):
        find_cases(tmp_path)
    with pytest.raises(UsageError, match=r"nothere: no such file or folder"):
        find_cases(tmp_path / "nothere")
    with pytest.raises(UsageError, match=r"\*\.nii: no file matches this glob"):
        find_cases(str(tmp_path / "*.nii"))
    with pytest.raises(UsageError, match=r"\*: no volumes found that match this glob"):
        find_cases(str(tmp_path / "*"))


# --- class lists ---


@pytest.mark.parametrize("text", ["0,1,2,4", " 0, 1,2 ,4", "4,2,1,0,"])
def test_class_list_is_parsed_and_sorted(text):
    assert parse_values(text) == (0, 1, 2, 4)


@pytest.mark.parametrize("text", ["0,a", "0;1", "0,1.5"])
def test_class_list_that_is_no_numbers_is_refused(text):
    with pytest.raises(UsageError, match="a class list is numbers with commas, such as 0,1,2; found"):
        parse_values(text)


def test_ignore_label_is_no_class():
    classes = make_classes([0, 1, 255], names={1: "kidney"}, ignore=255)
    assert classes.values == (0, 1)
    assert classes.describe() == "0 background, 1 kidney"
    assert len(classes) == 2


def test_class_without_a_name_is_described_by_its_value():
    assert make_classes([0, 4]).describe() == "0 background, 4"


# --- dataset.json ---


@pytest.mark.parametrize(
    "labels",
    [
        {"background": 0, "kidney": 1, "tumour": 2},
        {"0": "background", "1": "kidney", "2": "tumour"},
        {"tumour": 2, "kidney": 1, "background": 0},
        {"kidney": 1, "tumour": 2},
        {"background": 0, "kidney": "1", "tumour": "2"},
    ],
)
def test_nnunet_and_decathlon_lists_are_read(tmp_path, labels):
    path = dataset(tmp_path, labels)
    assert read_classes(path) == Classes((0, 1, 2), ("background", "kidney", "tumour"), None, str(path))


@pytest.mark.parametrize("labels", [{"background": 0, "a": 1, "ignore": 2}, {"0": "bg", "1": "a", "2": "Ignore"}])
def test_ignore_label_of_nnunet_is_honoured(tmp_path, labels):
    classes = read_classes(dataset(tmp_path, labels))
    assert classes.values == (0, 1)
    assert classes.ignore == 2


def test_name_that_is_a_number_is_a_name(tmp_path):
    assert read_classes(dataset(tmp_path, {"background": 0, "3": 1})).names == ("background", "3")


def test_a_list_of_values_is_a_region_and_its_values_are_classes(tmp_path):
    found = read_classes(dataset(tmp_path, {"background": 0, "whole": [1, 2, 3], "core": 3}))
    assert (found.values, found.names) == ((0, 1, 2, 3), ("background", "1", "2", "core"))
    assert found.regions == {"whole": (1, 2, 3)}


@pytest.mark.parametrize("value", [1.5, "one", None, True, float("inf"), float("nan"), {}])
def test_value_that_is_no_integer_is_refused(tmp_path, value):
    with pytest.raises(
        RwtoolError, match=r"dataset\.json: .*\$\.labels\.a: expected int.*, found .*; mend it, or give"
    ):
        read_classes(dataset(tmp_path, {"background": 0, "a": value}))


@pytest.mark.parametrize("labels", [{"a": 1, "b": 1}, {"a": 1, "ignore": 1}, {"ignore": 1, "a": 1}])
def test_two_labels_of_one_value_are_refused(tmp_path, labels):
    with pytest.raises(RwtoolError, match=r"two labels have the value 1; expected one each"):
        read_classes(dataset(tmp_path, labels))


@pytest.mark.parametrize("labels", [{"background": 0}, {"background": 0, "a": -3}])
def test_list_without_two_classes_names_the_file(tmp_path, labels):
    path = dataset(tmp_path, labels)
    with pytest.raises(RwtoolError) as caught:
        read_classes(path)
    assert str(caught.value).startswith(f"{path}: a class list holds 0")


@pytest.mark.parametrize("content", ['{"labels": []}', '{"labels": ["a.nii"]}', "{}", "[]", "3", '{"labels": {}}'])
def test_some_other_dataset_json_is_none(tmp_path, content):
    (tmp_path / "dataset.json").write_text(content)
    assert read_classes(tmp_path / "dataset.json") is None


def test_broken_json_is_named_and_a_byte_order_mark_is_fine(tmp_path):
    path = tmp_path / "dataset.json"
    path.write_text("{")
    with pytest.raises(RwtoolError, match=r"dataset\.json: cannot be read as JSON"):
        read_classes(path)
    path.write_text('\ufeff{"labels": {"background": 0, "a": 1}}', encoding="utf-8")
    assert read_classes(path).values == (0, 1)


def test_dataset_json_beside_wins_over_above(tmp_path):
    touch(tmp_path / "labelsTr", "a.nii")
    cases = find_cases(tmp_path)
    assert find_dataset_json(cases) is None
    above = dataset(tmp_path, {})
    assert find_dataset_json(cases) == above
    beside = dataset(tmp_path / "labelsTr", {})
    assert find_dataset_json(cases) == beside


def test_dataset_json_is_found_beside_a_link_and_from_a_relative_path(tmp_path, monkeypatch):
    touch(tmp_path / "store", "a.nii")
    path = dataset(tmp_path / "set", {})
    (tmp_path / "set" / "labels").mkdir()
    (tmp_path / "set" / "labels" / "a.nii").symlink_to(tmp_path / "store" / "a.nii")
    assert find_dataset_json(find_cases(tmp_path / "set" / "labels")) == path
    monkeypatch.chdir(tmp_path / "set" / "labels")
    assert find_dataset_json(find_cases("a.nii")) == path


# --- published layouts, names, and what is passed over ---


def names_of(source, root, **more):
    return {case: path.relative_to(root).as_posix() for case, path in find_cases(source, **more).items()}


def test_layouts_are_found_in_the_folders_that_they_are_published_in(tmp_path):
    acdc = [f"patient00{k}/patient00{k}_frame0{k}{end}.nii.gz" for k in (1, 2) for end in ("", "_gt")]
    kits = [f"case_0000{k}/{name}.nii.gz" for k in (1, 2) for name in ("segmentation", "imaging")]
    brats = [f"BraTS-{k}/BraTS-{k}-{part}.nii.gz" for k in (1, 2) for part in ("seg", "t1n", "t1c", "t2w", "t2f")]
    bids = ["sub-1/anat/sub-1_dseg.nii.gz", "sub-1/anat/sub-1_T1w.nii.gz", "sub-2/ses-a/anat/sub-2_ses-a_dseg.nii.gz"]
    for name, files, cases in (
        ("acdc", [*acdc, "patient001/patient001_4d.nii.gz"], ["patient001_frame01", "patient002_frame02"]),
        ("kits", [*kits, "LICENSE"], ["case_00001", "case_00002"]),
        ("brats", brats, ["BraTS-1", "BraTS-2"]),
        ("bids", [*bids, "participants.tsv"], ["sub-1", "sub-2_ses-a"]),
    ):  # fmt: skip
        for file in files:
            touch((tmp_path / name / file).parent, Path(file).name)
        found = search_cases(tmp_path / name)
        assert list(found.cases) == cases
        assert found.passed_over == {}
        assert all(re.search("_gt|segmentation|seg", path.name) for path in found.cases.values())


def test_acdc_labels_beside_their_images_in_one_folder(tmp_path):
    touch(tmp_path, "patient001_frame01.nii.gz", "patient001_frame01_gt.nii.gz", "patient001_4d.nii.gz")
    assert names_of(tmp_path, tmp_path) == {"patient001_frame01": "patient001_frame01_gt.nii.gz"}


def test_predictions_in_folders_of_their_own_take_the_varying_part_of_the_glob(tmp_path):
    for case in ("a", "b"):
        touch(tmp_path / case / "out", "labels.nii.gz")
    assert names_of(str(tmp_path / "*" / "out" / "labels.nii.gz"), tmp_path) == {
        "a": "a/out/labels.nii.gz", "b": "b/out/labels.nii.gz",
    }  # fmt: skip


def test_files_in_folders_of_no_layout_are_named_in_the_refusal(tmp_path):
    touch(tmp_path / "inner", "a.nii.gz")
    with pytest.raises(
        UsageError, match=r"but in its folders, such as .*inner/a\.nii\.gz; name one of them.*name=PATTERN"
    ):
        find_cases(tmp_path)


def test_a_name_pattern_wins_over_all_else(tmp_path):
    touch(tmp_path, "a_gt.nii.gz", "b_gt.nii.gz", "c.nii.gz")
    found = search_cases(tmp_path, name="{case}_gt")
    assert list(found.cases) == ["a", "b"]
    assert found.passed_over == {tmp_path / "c.nii.gz": "its path is not of the form {case}_gt"}
    with pytest.raises(UsageError, match=r"none of 3 files, such as .*, is of the form {case}_x"):
        find_cases(tmp_path, name="{case}_x")


def test_a_pattern_with_a_folder_looks_into_all_of_them(tmp_path):
    touch(tmp_path / "p1" / "seg", "lab.nii.gz")
    touch(tmp_path / "p2" / "seg", "lab.nii.gz", "other.nii.gz")
    assert list(find_cases(tmp_path, name="{case}/seg/lab")) == ["p1", "p2"]


def test_files_of_no_known_format_are_named_and_those_that_are_no_volumes_are_not(tmp_path):
    touch(tmp_path, "a.nii.gz", "b.nii.zst", "c.npz", "notes.txt", "d.json", "README", ".hidden.foo", "e.mhd", "e.raw")
    found = search_cases(tmp_path)
    assert list(found.cases) == ["a", "e"]
    assert {path.name for path in found.passed_over} == {"b.nii.zst", "c.npz"}
    touch(tmp_path / "only", "x.foo")
    with pytest.raises(UsageError, match=r"no volumes found in this folder; .*; passed over: x\.foo"):
        find_cases(tmp_path / "only")


def test_whatever_is_a_volume_is_a_case(tmp_path):
    touch(tmp_path, "a.mgz", "b.NII.GZ", "c.img.gz", "d.seg.nrrd", "e.HEAD", "f.par", "g.mnc")
    assert list(find_cases(tmp_path)) == list("abcdefg")


def test_composed_and_decomposed_names_are_one(tmp_path):
    touch(tmp_path, unicodedata.normalize("NFD", "h\u00e9.nii"))
    assert list(find_cases(tmp_path)) == ["h\u00e9"]


def test_names_that_differ_in_case_alone_are_noted(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "y").mkdir()
    touch(tmp_path / "x", "A.nii")
    touch(tmp_path / "y", "a.nii")
    (note,) = search_cases(f"{tmp_path}/*/*.nii").notes
    assert note == "the cases A and a differ in upper and lower case alone; are they one?"


def test_a_name_that_is_no_utf_8_is_a_name_and_a_nul_is_refused(tmp_path):
    (tmp_path / os.fsdecode(b"a\xffb.nii")).write_bytes(b"")
    assert list(find_cases(tmp_path)) == [os.fsdecode(b"a\xffb")]
    with pytest.raises(UsageError, match="no file has a NUL in its name"):
        find_cases("a\0b")


def test_files_of_a_published_layout_that_are_no_labels_are_named(tmp_path):
    touch(tmp_path / "case_00000", "segmentation.nii.gz", "imaging.nii.gz", "aggregated_MAJ_seg.nii.gz")
    touch(tmp_path / "maps", "case_00000.nii.gz")
    found = search_cases(tmp_path)
    assert list(found.cases) == ["case_00000"]
    assert [path.name for path in found.passed_over] == ["aggregated_MAJ_seg.nii.gz"]


@pytest.mark.parametrize("inner", ["case_1.nii/case_1.nii", "case_1/segmentation.nii.gz"])
def test_a_file_beside_the_folders_of_cases_hides_none_of_them_unsaid(tmp_path, inner):
    touch(tmp_path, "stray.nii.gz")
    touch((tmp_path / inner).parent, (tmp_path / inner).name)
    found = search_cases(tmp_path)
    assert list(found.cases) == ["stray"]
    assert [path.relative_to(tmp_path).parts[0] for path in found.passed_over] == [inner.split("/")[0]]


def test_a_folder_that_cannot_be_read_is_one_line(tmp_path, monkeypatch):
    def denied(self):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "iterdir", denied)
    with pytest.raises(VolumeError, match=f"^{re.escape(str(tmp_path))}: cannot be read: Permission denied$"):
        search_cases(tmp_path)
