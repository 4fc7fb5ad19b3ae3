import json

import numpy as np
import pytest

from rwtool.datasets.cases import find_cases
from rwtool.datasets.classes import Classes
from rwtool.datasets.plan import plan_dataset
from rwtool.errors import UsageError
from rwtool.io.names import file_hash


def dataset(folder, labels):
    path = folder / "dataset.json"
    path.write_text(json.dumps({"labels": labels}))
    return path


@pytest.fixture
def three_cases(write_nifti, tmp_path):
    for name, values in (("a", (0, 1)), ("b", (0, 4)), ("c", (0, 255))):
        write_nifti(np.array(values, dtype=np.uint8).reshape(2, 1, 1), np.diag([1.0, 2, 3, 1]), f"{name}.nii")
    return find_cases(tmp_path)


def test_classes_are_those_of_the_whole_data_set(three_cases):
    found = plan_dataset(three_cases, verbosity=-1)
    assert found.classes == Classes(
        (0, 1, 4, 255), ("background", "1", "4", "255"), None, "the values in the label files"
    )
    assert list(found.files) == ["a", "b", "c"]
    first = found.files["a"]
    assert first.shape == (1, 1, 2)
    assert first.spacing_mm == (3, 2, 1)
    assert first.itemsize == 1
    assert first.sha256 == file_hash(three_cases["a"])


def test_ignore_label_is_left_out_of_the_scan(three_cases):
    classes = plan_dataset(three_cases, ignore=255, verbosity=-1).classes
    assert classes.values == (0, 1, 4)
    assert classes.ignore == 255


def test_dataset_json_wins_over_the_scan_and_given_classes_over_it(three_cases, tmp_path):
    path = dataset(tmp_path, {"background": 0, "a": 1, "b": 4, "ignore": 255})
    classes = plan_dataset(three_cases, verbosity=-1).classes
    assert classes == Classes((0, 1, 4), ("background", "a", "b"), 255, str(path))
    classes = plan_dataset(three_cases, ignore=4, verbosity=-1).classes
    assert classes == Classes((0, 1), ("background", "a"), 4, str(path))
    classes = plan_dataset(three_cases, classes=[9, 0], verbosity=-1).classes
    assert classes.values == (0, 9)


def test_unreadable_case_has_its_reason_and_the_others_their_classes(three_cases):
    three_cases["b"].write_bytes(b"")
    found = plan_dataset(three_cases, verbosity=-1)
    assert found.classes.values == (0, 1, 255)
    assert list(found.files) == ["a", "c"]
    assert found.failed[0].error == f"{three_cases['b']}: the file is empty; copy it again from its source"


def test_data_set_of_background_alone_is_an_error(write_nifti, tmp_path):
    write_nifti(np.zeros((2, 2, 2), dtype=np.uint8))
    with pytest.raises(UsageError, match=r"no label but 0 in any case, .*classes=\(0, 1"):
        plan_dataset(tmp_path, verbosity=-1)


def test_real_data_set_has_its_classes(test_data):
    cases = dict(list(find_cases(test_data / "hippocampus" / "labels").items())[:3])
    found = plan_dataset(cases, verbosity=-1)
    assert found.classes.values == (0, 1, 2)
    assert list(found.files) == list(cases)
    assert not found.failed


def test_a_label_file_is_read_as_it_was_looked_at(write_nifti, tmp_path):
    write_nifti(np.arange(6, dtype=np.uint8).reshape(1, 2, 3) % 3 * 2, np.diag([1.0, 2, 3, 1]), "a.nii")
    file = plan_dataset(tmp_path, slice_axis=2, verbosity=-1).files["a"]
    assert (file.shape, file.voxels, file.slice_axis) == ((3, 2, 1), 6, 2)
    volume = file.read()
    assert volume.array.shape == file.shape
    assert set(np.unique(volume.array)) == {0, 1, 2}


def test_names_are_given_to_classes_and_to_no_others(three_cases):
    found = plan_dataset(three_cases, verbosity=-1).named({4: "tumour"})
    assert found.classes.names == ("background", "1", "tumour", "255")
    assert found.files["a"].classes == found.classes
    with pytest.raises(UsageError, match="class_names= names label 9, which is no class; the classes are 0 background"):
        found.named({9: "x"})


def test_a_data_set_is_described_in_three_lines(three_cases):
    assert plan_dataset(three_cases, ignore=255, verbosity=-1).describe() == [
        "3 classes: 0 background, 1, 4 (from the values in the label files)",
        "ignored label: 255",
        "slice axis: file axis 2",
    ]


def test_files_that_are_passed_over_are_noted(three_cases, tmp_path):
    (tmp_path / "scan.xyz").write_text("")
    assert plan_dataset(tmp_path, verbosity=-1).notes == (
        f"{tmp_path}: 1 file passed over: scan.xyz (no format that rwtool reads has this name)",
    )


def test_an_image_given_as_labels_is_warned_of(write_nifti, tmp_path):
    write_nifti(np.arange(200, dtype=np.int16).reshape(10, 5, 4), np.eye(4), "ct.nii")
    (note,) = plan_dataset(tmp_path, verbosity=-1).notes
    assert note.startswith("ct holds 200 values, which looks like an image and not like labels; name the folder")
