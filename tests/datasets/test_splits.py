import json

import pytest

from rwtool.datasets.splits import Split, make_split, read_case_names, read_split
from rwtool.errors import UsageError

NAMES = [f"patient{subject:03d}_frame{frame:02d}" for subject in range(1, 11) for frame in (1, 12)]
FOLDS = [{"train": ["a", "b"], "val": ["c"]}, {"train": ["b", "c"], "val": ["a"]}, {"train": ["c"], "val": ["b"]}]


@pytest.fixture
def write(tmp_path):
    def write_json(content, name="split.json"):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return str(path)

    return write_json


def subjects(names):
    return {name.split("_")[0] for name in names}


# --- drawn ---


def test_every_case_is_in_one_part_and_the_parts_are_sorted():
    found = make_split(NAMES, val=0.25)
    assert sorted(found.train + found.val) == NAMES
    assert len(found.val) == 5
    assert (list(found.train), list(found.val)) == (sorted(found.train), sorted(found.val))


def test_scans_of_a_subject_stay_together():
    found = make_split(NAMES, val=0.5, subject="patient[0-9]+")
    assert subjects(found.train).isdisjoint(subjects(found.val))
    assert (len(found.train), len(found.val)) == (10, 10)
    alone = make_split(NAMES, val=0.5)
    assert not subjects(alone.train).isdisjoint(subjects(alone.val))


def test_subjects_with_more_scans_count_once():
    found = make_split(["a_1", "a_2", "a_3", "a_4", "b_1", "c_1", "d_1"], val=0.5, subject="([a-d])_")
    assert (len(subjects(found.train)), len(subjects(found.val))) == (2, 2)


def test_the_seed_decides_and_the_order_of_the_names_does_not():
    found = make_split(NAMES, val=0.5, seed=3, subject="patient[0-9]+")
    assert make_split(NAMES[::-1], val=0.5, seed=3, subject="patient[0-9]+") == found
    assert len({make_split(NAMES, val=0.5, seed=seed, subject="patient[0-9]+") for seed in range(6)}) > 3


@pytest.mark.parametrize(
    ("subjects", "val", "count"),
    [(2, 0.01, 1), (2, 0.99, 1), (10, 0.01, 1), (10, 0.99, 9), (10, 0.26, 3), (10, 0.24, 2), (4, 0.5, 2), (3, 0.5, 2)],
)
def test_a_share_is_rounded_to_whole_subjects_and_leaves_one_on_each_side(subjects, val, count):
    assert len(make_split([str(n) for n in range(subjects)], val=val).val) == count


def test_a_share_of_0_trains_on_all_even_on_one_subject():
    assert make_split(["b", "a"], val=0) == Split(("a", "b"), ())
    assert make_split(["a"], val=0) == Split(("a",), ())


@pytest.mark.parametrize(("names", "subject"), [(["a"], None), (["a_1", "a_2"], "a")])
def test_one_subject_cannot_be_split(names, subject):
    with pytest.raises(UsageError) as caught:
        make_split(names, val=0.5, subject=subject)
    assert str(caught.value) == (
        "there is 1 subject, which cannot be split; give val=0 to train on all without validation"
    )


def test_a_subject_regex_that_does_not_fit_is_refused():
    with pytest.raises(UsageError, match="finds no subject in 'patient001_frame01'"):
        make_split(NAMES, val=0.5, subject="sub-[0-9]+")
    with pytest.raises(UsageError, match="is not a regular expression"):
        make_split(NAMES, val=0.5, subject="(")


# --- read ---


def test_a_split_that_was_written_is_read_again_by_train_and_by_evaluate(tmp_path):
    found = make_split(NAMES, val=0.25, seed=4)
    path = tmp_path / "run" / "split.json"
    found.write(path)
    assert read_split(str(path), NAMES) == found
    assert read_case_names(str(path)) == found.val


@pytest.mark.parametrize(("fold", "expected"), [("", 0), (":0", 0), (":1", 1), (":2", 2)])
def test_a_fold_of_nnunet_is_named_after_a_colon_and_is_0_without(write, fold, expected):
    part = FOLDS[expected]
    assert read_split(write(FOLDS) + fold, ["a", "b", "c"]) == Split(tuple(part["train"]), tuple(part["val"]))


def test_a_file_whose_name_ends_in_a_colon_and_a_number_is_itself(write):
    write(FOLDS[1], "split")
    assert read_split(write(FOLDS[0], "split:2"), ["a", "b", "c"]).val == ("c",)


def test_names_are_sorted_and_lose_suffixes_spaces_and_repeats(write):
    path = write({"train": ["b.nii.gz", " a ", "b", "v1.2"], "val": ["c.npy"], "note": "mine"})
    assert read_split(path, ["a", "b", "c", "v1.2"]) == Split(("a", "b", "v1.2"), ("c",))


def test_cases_that_the_split_does_not_name_are_left_out_and_val_may_be_empty(write):
    assert read_split(write({"train": ["a"], "val": []}), ["a", "b", "c"]) == Split(("a",), ())


@pytest.mark.parametrize(
    ("content", "fold", "message"),
    [
        (FOLDS, ":3", "there is no fold 3; it holds 3, counted from 0"),
        (FOLDS[0], ":1", "there is no fold 1; it holds 1, counted from 0"),
        ([], "", "there is no fold 0; it holds 0, counted from 0"),
        (
            {"train": ["a", "b"], "val": ["b", "c.nii", "a.nii"]},
            "",
            "cases in both train and val: a, b; each belongs to one",
        ),
        (
            {"train": ["a", "x"], "val": ["y"]},
            "",
            "cases without a label file: x, y; the cases are a, b, c",
        ),
        ({"train": [], "val": ["a"]}, "", "it names no case to train on"),
    ],
)
def test_a_wrong_split_is_one_readable_message(write, content, fold, message):
    path = write(content)
    with pytest.raises(UsageError) as caught:
        read_split(path + fold, ["a", "b", "c"])
    assert str(caught.value) == f"{path}: {message}"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"train": ["a"]}, "$: missing required field val"),
        ({"val": ["a"]}, "$: missing required field train"),
        ({"train": "a", "val": []}, "$.train: expected array, found 'a'"),
        ({"train": ["a", 3], "val": []}, "$.train[1]: expected str, found 3"),
        (["a", "b"], "$[0]: expected object, found 'a'"),
        ([["a"], ["b"]], "$[0]: expected object, found ['a']"),
        ("3", "$: expected object, found 3"),
        ({"format": 7, "train": ["a"], "val": []}, "$.format: expected one of 1, found 7"),
        ({"format": "1", "train": ["a"], "val": []}, "$.format: expected int, found '1'"),
    ],
)
def test_a_split_of_another_form_is_named_with_the_field(write, content, reason):
    path = write(content)
    with pytest.raises(UsageError) as caught:
        read_split(path, ["a", "b", "c"])
    assert str(caught.value) == (
        f'{path}: not a split: {reason}; expected {{"train": [names], "val": [names]}}, or a list of such objects '
        "(nnU-Net's splits_final.json)"
    )


@pytest.mark.parametrize("content", ["", "a\nb\n", '{"train": ["a"]', '{"train": ["a"], "val": [], "val": ["b"]}'])
def test_a_file_that_is_no_json_is_named(write, content):
    path = write(content)
    with pytest.raises(UsageError) as caught:
        read_split(path, ["a"])
    assert str(caught.value).startswith(f"{path}: cannot be read as a split: ")


@pytest.mark.parametrize("source", ["/dev/zero", "/dev/zero:1"])
def test_a_device_is_not_read_for_ever(source):
    for read in (lambda: read_split(source, ["a"]), lambda: read_case_names(source)):
        with pytest.raises(UsageError, match=r"cannot be read as a .*: it is no regular file; expected"):
            read()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"val": [1]}, "$.val[0]: expected str, found 1"),
        ([{"val": ["a"]}, {"train": ["a"]}], "$[1]: missing required field val"),
        ([{"val": ["a"]}, "b"], "$[1]: expected object, found 'b'"),
        (["a", 2], "$[1]: expected str, found 2"),
        ("3", "$: expected array, found 3"),
        ({"val": ["a"], "format": 2}, "$.format: expected one of 1, found 2"),
    ],
)
def test_a_list_of_cases_of_another_form_is_named_with_the_field(write, content, reason):
    path = write(content)
    with pytest.raises(UsageError) as caught:
        read_case_names(path)
    assert str(caught.value).startswith(f"{path}: not a list of cases: {reason}; expected one case name a line, or")


@pytest.mark.parametrize("source", ["gone.json", "gone.json:1"])
def test_a_missing_file_is_named(tmp_path, source):
    with pytest.raises(UsageError, match=r"gone\.json: cannot be read as a split: .*No such file"):
        read_split(str(tmp_path / source), ["a"])


# --- lists of cases ---


@pytest.mark.parametrize(
    ("name", "text", "names"),
    [
        ("cases.txt", "a\n b.nii.gz \n\na\n", ("a", "b")),
        ("list.json", '["a", "b"]', ("a", "b")),
        ("split.json", '{"train": ["c"], "val": ["a"]}', ("a",)),
        ("splits_final.json", json.dumps(FOLDS), ("c", "a", "b")),
        ("splits_final.json:1", json.dumps(FOLDS), ("a",)),
    ],
)
def test_case_lists(write, tmp_path, name, text, names):
    write(text, name.partition(":")[0])
    assert read_case_names(str(tmp_path / name)) == names


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("missing.txt", None, "cannot be read as a list of cases"),
        ("broken.json", "{", "cannot be read as a list of cases"),
        ("empty.txt", "\n", "names no case"),
        ("other.json", '{"train": ["a"]}', "expected one case name a line"),
        ("numbers.json", "[1, 2]", "expected one case name a line"),
        ("splits.json:3", json.dumps(FOLDS), "there is no fold 3; it holds folds 0 to 2"),
        ("list.json:0", '["a"]', "holds no folds"),
    ],
)
def test_what_is_no_case_list_is_refused(write, tmp_path, name, text, message):
    if text is not None:
        write(text, name.partition(":")[0])
    with pytest.raises(UsageError, match=message):
        read_case_names(str(tmp_path / name))


@pytest.mark.parametrize("name", ["/", "..//", "."])
def test_a_path_that_names_no_file_is_no_case(tmp_path, name):
    path = tmp_path / "split.json"
    for text, read in (
        (json.dumps({"train": ["a"], "val": [name]}), lambda: read_split(str(path), ["a"])),
        (json.dumps([name]), lambda: read_case_names(str(path))),
    ):
        path.write_text(text)
        with pytest.raises(UsageError, match="is no name of a case; mend it"):
            read()
