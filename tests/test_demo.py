import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import rwtool
from rwtool.cli import main
from rwtool.demo import make_cohort, make_subject


def test_a_phantom_is_the_same_for_the_same_seed_and_differs_for_another():
    a, again, b = make_subject("a", 1), make_subject("a", 1), make_subject("b", 2)
    np.testing.assert_array_equal(a.image.array, again.image.array)
    np.testing.assert_array_equal(a.labels.array, again.labels.array)
    assert a.labels.array.shape != b.labels.array.shape or (a.labels.array != b.labels.array).any()


@pytest.mark.parametrize("seed", range(12))
def test_every_heart_has_all_classes_inside_the_field_of_view(seed):
    subject = make_subject("a", seed)
    labels = subject.labels.array
    assert set(np.unique(labels)) == {0, 1, 2, 3}
    assert subject.labels.spacing_mm == pytest.approx((10, 1.5, 1.5))
    edge = np.concatenate(
        [labels[:, 0].ravel(), labels[:, -1].ravel(), labels[:, :, 0].ravel(), labels[:, :, -1].ravel()]
    )
    assert (edge == 0).all()


@pytest.mark.parametrize("seed", range(12))
def test_the_cavity_lies_inside_its_wall(seed):
    labels = make_subject("a", seed).labels.array
    for axis in (1, 2):
        for step in (-1, 1):
            beside = np.roll(labels, step, axis)
            assert not ((labels == 3) & (beside == 0)).any()


def test_tissues_have_their_contrast():
    subject = make_subject("a", 5)
    image, labels = subject.image.array, subject.labels.array
    assert image[labels == 3].mean() > 1.5 * image[labels == 2].mean()


def run_demo(out, *options):
    arguments = ["demo", str(out), "--epochs", "1", "-j", "1", *options]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_demo_tells_the_whole_story(tmp_path):
    out = tmp_path / "demo"
    output = run_demo(out, "--subjects", "4")
    for command in ("maps", "check", "train", "predict", "evaluate"):
        assert f"$ rwtool {command}" in output
    image = rwtool.read_image(out / "images" / "heart_00.nii.gz")
    assert image.array.shape == rwtool.read_map(out / "maps" / "rrw" / "heart_00.nii.gz").shape[1:]
    assert json.loads((out / "maps" / "rrw" / "maps.json").read_text())["classes"][2]["name"] == "MYO"
    for loss in ("dice", "rrw"):
        validated = json.loads((out / "runs" / loss / "split.json").read_text())["val"]
        assert sorted(path.name for path in (out / "runs" / loss / "predictions").iterdir()) == [
            f"{name}.nii.gz" for name in validated
        ]
        assert len(validated) == 2
    new = {path.name for path in (out / "new").iterdir()}
    assert {path.name for path in (out / "predictions").iterdir()} == new == {"heart_04.nii.gz", "heart_05.nii.gz"}
    tests = (out / "results" / "tests.csv").read_text().splitlines()
    assert {line.split(",")[0] for line in tests[1:]} == {"dice"}
    assert "n = 2 subjects" in output
    again = run_demo(out, "--subjects", "4")
    assert "4 cases unchanged since the last run" in again
    assert again.count("finished already") == 2


def test_demo_leaves_other_folders_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    result = CliRunner().invoke(main, ["demo", str(tmp_path)])
    assert result.exit_code == 2
    assert "holds something that is not a demo" in result.output


def test_a_seed_makes_another_cohort(tmp_path):
    make_cohort(tmp_path / "a", subjects=1, seed=0)
    make_cohort(tmp_path / "b", subjects=1, seed=1)
    a, b = (rwtool.read_image(tmp_path / n / "images" / "heart_00.nii.gz").array for n in "ab")
    assert a.shape != b.shape or (a != b).any()


def test_another_cohort_replaces_the_one_before(tmp_path):
    run_demo(tmp_path / "d", "--subjects", "3")
    output = run_demo(tmp_path / "d", "--subjects", "2")
    assert len(list((tmp_path / "d" / "labels").iterdir())) == 2
    assert "n = 1 subjects" in output
    assert len(json.loads((tmp_path / "d" / "maps" / "rrw" / "maps.json").read_text())["cases"]) == 2


def test_the_shares_that_the_readme_states_are_those_of_the_demo(tmp_path):
    make_cohort(tmp_path)
    maps = ["maps", str(tmp_path / "labels"), str(tmp_path / "maps"), "--kind", "boundary", "-q", "-j", "1"]
    CliRunner().invoke(main, maps, catch_exceptions=False)
    checked = rwtool.check_maps(tmp_path / "maps" / "boundary", jobs=1)
    uniform, random = checked.uniform, checked.random
    readme = " ".join((Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8").split())
    assert (
        f"{uniform.unstable_share:.0%} of the voxels of Boundary maps have at uniform softmax, and "
        f"{random.unstable_share:.0%}"
    ).replace("%", " %") in readme
