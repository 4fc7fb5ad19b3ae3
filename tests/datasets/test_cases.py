import json

import pytest

from rwtool.datasets.cases import find_cases
from rwtool.datasets.classes import Classes, find_dataset_json, make_classes, parse_values
from rwtool.datasets.classes import read_dataset_json as read_classes
from rwtool.datasets.plan import plan_dataset
from rwtool.errors import RwtoolError, UsageError


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
        f"two files have the case name 'a': {tmp_path / one} and {tmp_path / two}; rename or move one of them"
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
