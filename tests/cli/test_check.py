import json

import pytest
from commands import run
from mapped import write_labels, write_three

import rwtool


@pytest.fixture
def labels(tmp_path):
    return write_three(tmp_path / "labels")


@pytest.fixture
def make(labels, tmp_path):
    """Make maps of the labels; gives the folder of a kind."""

    def make_kind(kind="rrw", **options):
        return rwtool.make_maps(labels, tmp_path / "maps", kinds=(kind,), jobs=1, **options).sets[kind].folder

    return make_kind


def check(folder, *options, code=0):
    return run("check", folder, "-j", 1, *options, code=code)


def lines_of(result):
    """Each line of what was printed, its words one space apart."""
    return [" ".join(line.split()) for line in result.stdout.splitlines()]


def test_the_table_has_a_line_a_case_and_one_for_all(make):
    folder = make()
    result = check(folder)
    assert f"rrw maps in {folder}: voxels with two or more negative gradient components" in result.stdout
    lines = lines_of(result)
    assert f"case_1 {6 * 9 * 5} 0 0 0 yes yes" in lines
    assert f"all {3 * 6 * 9 * 5} 0 0 0" in lines
    assert lines[-2:] == ["stable: at no voxel does a class other than the true one rise", "3 maps verified"]


def test_the_table_of_boundary_maps_shows_a_share_and_a_count(make):
    folder = make("boundary")
    random = rwtool.check_maps(folder, jobs=1).random
    (line,) = (line for line in lines_of(check(folder)) if line.startswith("all"))
    assert line.endswith(f"{random.unstable_share:.2%} ({random.unstable}) 0")
    assert random.unstable > 0
    said = (
        f"not stable: at {random.unstable_share:.2%} of the voxels, at random softmax, a class other than the true one"
    )
    assert said in " ".join(lines_of(check(folder)))


def test_the_table_of_a_matrix_has_a_line_a_class(make):
    folder = make("matrix", matrix=[[-3, 1, 2], [4, 0, 2], [12, 1, 0]])
    lines = lines_of(check(folder))
    assert "label 1 100,000 0 0 0 yes yes" in lines
    assert lines[-1] == "3 classes verified"
    result = check(folder, "--figure", folder / "signs.png", code=2)
    assert "a matrix has no map of a case that a figure could show; leave out --figure" in result.output


def test_json_is_what_check_maps_found(make):
    folder = make("boundary")
    content = json.loads(check(folder, "--format", "json", "--seed", 3).output)
    found = rwtool.check_maps(folder, seed=3, jobs=1)
    assert (content["folder"], content["kind"], content["seed"], content["verified"]) == (
        str(folder), "boundary", 3, True,
    )  # fmt: skip
    assert content["random"] == {
        "voxels": found.random.voxels, "two_or_more_negative": found.random.unstable,
        "share": found.random.unstable_share, "zero_gradient": found.random.zero,
    }  # fmt: skip
    assert {name: case["random"]["two_or_more_negative"] for name, case in content["cases"].items()} == {
        case.name: case.random.unstable for case in found.cases
    }
    assert all(
        case["verified"] and case["labels_checked"] and not case["problems"] for case in content["cases"].values()
    )


def test_json_names_the_problems_and_the_exit_code_is_1(make):
    folder = make()
    (folder / "case_1.nii.gz").unlink()
    result = run("check", folder, "-j", 1, "--format", "json", code=1)
    content = json.loads(result.stdout)
    assert content["verified"] is False
    assert [name for name, case in content["cases"].items() if not case["verified"]] == ["case_1"]
    assert "case_1.nii.gz is missing" in content["cases"]["case_1"]["problems"][0]


def test_a_case_that_does_not_verify_is_named_on_standard_error(make):
    folder = make()
    (folder / "case_1.nii.gz").unlink()
    for options in ([], ["-q"]):
        result = check(folder, *options, code=1)
        assert "case_1: " in result.stderr
        assert "is missing" in result.stderr
    assert result.stdout == ""
    assert "case_1 NO" in lines_of(check(folder, code=1))


def test_quiet_prints_nothing(make):
    assert check(make(), "-q").output == ""


def test_absent_classes_are_warned_of_where_0_is_not_neutral(make):
    assert "warning: 3 cases with an absent class, first case_0" in check(make("hd", classes=(0, 1, 2, 3))).output
    assert "warning" not in check(make("ac", classes=(0, 1, 2, 3))).output


def test_dense_maps_are_checked_without_their_labels_and_say_so(make, labels, tmp_path):
    folder = make()
    labels.rename(tmp_path / "away")
    result = check(folder)
    assert "note: some label files were not found, so those maps were checked against the sidecar" in result.output
    assert "case_0 270 0 0 0 not found yes" in lines_of(result)
    assert "checked against" not in check(folder, "--labels", tmp_path / "away").output


def test_labels_of_other_names_are_found_by_a_pattern(make, tmp_path):
    folder = make()
    for index in range(3):
        write_labels(tmp_path / "away" / f"case_{index}_gt.nii.gz", index)
        (tmp_path / "labels" / f"case_{index}.nii.gz").unlink()
    result = check(folder, "--labels", tmp_path / "away", "--name", "{case}_gt")
    assert lines_of(result)[-1] == "3 maps verified"
    assert "not found" not in result.output


def test_a_folder_without_a_sidecar_says_what_to_check_instead(make):
    assert "it holds rrw: check one of these" in check(make().parent, code=2).output


def test_maps_with_ignored_voxels_need_their_labels(make, labels, tmp_path):
    folder = make(ignore=2)
    labels.rename(tmp_path / "away")
    assert "it tells which voxels are ignored; give --labels" in check(folder, code=1).output
    check(folder, "--labels", tmp_path / "away")


def test_a_figure_is_named_with_its_case_and_slice_and_counted_in_json(make, tmp_path):
    folder, path = make("boundary"), tmp_path / "signs.png"
    result = check(folder, "--figure", path, "--case", "case_1", "--slice", 2)
    assert f"figure: {path} (case_1, slice 2)" in lines_of(result)
    content = json.loads(check(folder, "--figure", path, "--case", "case_1", "--overwrite", "--format", "json").output)
    drawn = rwtool.check_maps(folder, figure=path, case="case_1", overwrite=True, jobs=1).figure
    assert (content["figure"]["path"], content["figure"]["case"], content["figure"]["slice"]) == (
        str(path), "case_1", drawn.slice,
    )  # fmt: skip
    assert content["figure"]["counts"]["uniform"]["two_or_more_negative"] == drawn.counts["uniform"].unstable
    assert "--case belongs to a figure; give --figure FILE.png too" in " ".join(
        check(folder, "--case", "case_1", code=2).output.split()
    )


def test_a_checkpoint_belongs_to_a_run(make):
    result = check(make("boundary"), "--checkpoint", 3, code=2)
    assert "--checkpoint 3 is that of a run; give --run FOLDER too" in " ".join(result.output.split())
