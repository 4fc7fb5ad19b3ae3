"""From scans to subjects."""

import re

import numpy as np
import pytest

from rwtool.datasets.subjects import average_runs, average_subjects, find_subjects, suggest_subject_regex
from rwtool.errors import UsageError

NAN = float("nan")


def test_runs_are_averaged_case_by_case():
    assert average_runs([[1, 10], [3, 30]]).tolist() == [2, 20]
    assert average_runs([[[1, 5]], [[3, 5]], [[5, 8]]]).tolist() == [[3, 6]]


def test_a_case_undefined_in_any_run_is_undefined():
    np.testing.assert_equal(average_runs([[1, NAN, NAN], [3, 4, NAN]]), [2, NAN, NAN])


def test_equal_runs_average_to_exactly_their_value_where_a_plain_mean_does_not():
    value = 0.1
    assert np.mean([[value]] * 3, axis=0)[0] != value
    assert average_runs([[value]] * 3)[0] == value


def test_the_order_of_runs_does_not_change_a_bit_of_their_mean():
    runs = np.random.default_rng(0).random((3, 200))
    assert (average_runs(runs) == average_runs(runs[::-1])).all()
    assert average_runs(runs) == pytest.approx(runs.mean(axis=0))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.1, 0.2], r"shape \(2,\), expected \(n_runs, n_cases, ...\)"),
        (np.empty((0, 3)), r"shape \(0, 3\)"),
        ([[np.inf]], "infinities: write NaN"),
    ],
)
def test_runs_that_cannot_be_averaged_are_refused(values, message):
    with pytest.raises(UsageError, match=message):
        average_runs(values)


def test_scans_are_averaged_per_subject_sorted_by_name():
    means = average_subjects([[1, 0], [5, 5], [3, 8]], ["b", "a", "b"])
    assert means.subjects == ("a", "b")
    assert means.values.tolist() == [[5, 5], [2, 4]]
    assert means.undefined.tolist() == [0, 0]


def test_an_undefined_scan_is_left_out_of_its_subject_and_counted():
    means = average_subjects([[1, NAN], [3, NAN], [NAN, 7]], ["a", "a", "b"])
    np.testing.assert_equal(means.values, [[2, NAN], [NAN, 7]])
    assert means.undefined.tolist() == [1, 2]


def test_scans_without_a_subject_are_refused():
    with pytest.raises(UsageError, match=r"shape \(3,\), expected 2 rows"):
        average_subjects([1, 2, 3], ["a", "b"])


@pytest.mark.parametrize(
    ("names", "subjects"),
    [
        ("patient001_frame01 patient001_frame12", "patient001 patient001"),
        ("patient001_frame01 patient002_frame12 patient001_frame12", "patient001 patient002 patient001"),
        ("sub-01_ses-1 sub-01_ses-2 sub-02", "sub-01 sub-01 sub-02"),
        ("sub-01_ses-1 sub-01_ses-2 sub-01_ses-3 sub-02", "sub-01 sub-01 sub-01 sub-02"),
        ("sub-01_ses-1_run-1 sub-01_ses-1_run-2 sub-02_ses-1_run-1", "sub-01 sub-01 sub-02"),
        ("case_00-t1 case_00-flair case_01-t1", "case_00 case_00 case_01"),
        ("BraTS-GLI-00-000 BraTS-GLI-00-001 BraTS-GLI-02-000", "BraTS-GLI-00 BraTS-GLI-00 BraTS-GLI-02"),
        ("A0S9V9_ED A0S9V9_ES B1Z3X_ED", "A0S9V9 A0S9V9 B1Z3X"),
        ("c++1_t1 c++1_t2 c++22_t1", "c++1 c++1 c++22"),
        ("p1_v1 p1_v2 p10_v1", "p1 p1 p10"),
    ],
)
def test_repeated_scans_suggest_a_regex_that_finds_their_subjects(names, subjects):
    regex = suggest_subject_regex(names.split())
    assert regex is not None
    assert [re.match(regex, name)[1] for name in names.split()] == subjects.split()


def test_the_regexes_of_acdc_and_bids_are_readable():
    names = [f"patient{p:03d}_frame{f:02d}" for p in range(1, 101) for f in (1, 12)]
    assert suggest_subject_regex(names) == "^(patient[0-9]+)"
    assert suggest_subject_regex(["sub-01_ses-1", "sub-01_ses-2"]) == "^(sub-[0-9]+)"


@pytest.mark.parametrize(
    "names",
    [
        [f"case_{i:05d}" for i in range(211)],
        [f"hippocampus_{i:03d}" for i in range(1, 395)],
        [f"BraTS2021_{i:05d}" for i in range(50)],
        [f"BraTS20{y}_{i:03d}" for y in (20, 21) for i in range(50)],
        [f"BraTS20_{s}_{i:03d}" for s in ("Training", "Validation") for i in range(50)],
        ["Brats18_2013_10_1", "Brats18_CBICA_AAB_1", "Brats18_TCIA01_131_1"],
        [f"patient{p:03d}_frame01" for p in range(1, 101)],
        [f"FLARE22_Tr_{i:04d}" for i in range(50)],
        [f"s{i:04d}" for i in range(50)],
        [f"{i:03d}" for i in range(50)],
        ["liver_001", "liver_002", "spleen_001", "spleen_002"],
        ["A1_t1", "A1_001", "A1_002"],
        ["_a1_t1", "_a1_t2"],
        ["case_1", "case_1"],
        ["one"],
        [""],
        [],
    ],
)
def test_one_scan_per_subject_suggests_nothing(names):
    assert suggest_subject_regex(names) is None


@pytest.mark.parametrize("regex", [r"p\d+", r"(p\d+)_", r"(p\d+)_(\w)"])
def test_the_subject_is_the_first_group_or_the_whole_match(regex):
    assert find_subjects(["p1_a", "p12_b"], regex) == {"p1_a": "p1", "p12_b": "p12"}


@pytest.mark.parametrize("regex", ["a", "(x)?p", "(x)?"])
def test_a_name_without_a_subject_is_refused(regex):
    with pytest.raises(UsageError, match="finds no subject in 'p1_a'; it is matched from the start"):
        find_subjects(["p1_a"], regex)


def test_a_regex_that_is_none_is_refused():
    with pytest.raises(UsageError, match=r"'\(' is not a regular expression: missing \)"):
        find_subjects([], "(")
