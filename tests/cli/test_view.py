import shutil

import pytest
from commands import run, said


@pytest.fixture
def cohort(cohort, tmp_path, monkeypatch):
    """A copy of the cohort, which is the current folder."""
    shutil.copytree(cohort, tmp_path / "cohort")
    monkeypatch.chdir(tmp_path / "cohort")
    return tmp_path / "cohort"


@pytest.mark.usefixtures("cohort")
def test_a_case_says_its_classes_and_where_its_picture_is():
    result = run("view", "labels/case_0.nii.gz", "--image", "images", "--kind", "rrw", "--slice", 1, "-o", "a.svg")
    assert (
        result.stdout
        == "3 classes: 0 background, 1, 2 (from the values in the label files)\npicture: a.svg (slice 1)\n"
    )


def test_a_sheet_tells_what_is_absent_and_what_failed_and_ends_with_1(cohort):
    (cohort / "dataset.json").write_text('{"labels": {"background": 0, "one": 1, "two": 2, "three": 3}}')
    (cohort / "labels" / "case_1.nii.gz").write_bytes(b"no volume")
    result = run("view", "labels", "-j", 1, "--slices", 1, code=1)
    assert result.stdout.splitlines()[1:] == [
        "three is absent in 5 cases: case_0, case_2, case_3, case_4, case_5",
        "picture: labels.png",
    ]
    assert "1 case failed:\n  case_1: labels/case_1.nii.gz: the file is not gzip" in result.stderr


@pytest.mark.usefixtures("cohort")
def test_errors_are_in_the_words_of_the_command():
    run("view", "labels/case_0.nii.gz", "--kind", "rrw", "-q")
    result = run("view", "labels/case_0.nii.gz", "--kind", "rrw", "-q", code=2)
    assert "case_0.png is there already; --overwrite replaces it, or choose another --out" in said(result)
    assert "--maps belongs to one label file" in said(run("view", "labels", "--maps", "labels", code=2))
    assert run("view", "labels/case_0.nii.gz", "--kind", "rrw", "-q", "--overwrite").output == ""
