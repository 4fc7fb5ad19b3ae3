import math

import numpy as np
import pytest

import rwtool
from rwtool.demo import make_cohort, make_subject, tell_results
from rwtool.docs import read_page
from rwtool.evaluation.rows import Row
from rwtool.io.formats import read_header
from rwtool.io.grids import Turn, turn_to


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
    assert subject.labels.spacing_mm == pytest.approx((10, 2.25, 2.25))
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


def test_a_seed_makes_another_cohort(tmp_path):
    make_cohort(tmp_path / "a", subjects=1, seed=0)
    make_cohort(tmp_path / "b", subjects=1, seed=1)
    a, b = (rwtool.read_image(tmp_path / n / "images" / "heart_00.nii.gz").array for n in "ab")
    assert a.shape != b.shape or (a != b).any()


def test_a_cohort_that_was_stopped_is_completed_and_what_is_there_stays(tmp_path):
    make_cohort(tmp_path / "whole", subjects=2, new=1)
    make_cohort(tmp_path / "cohort", subjects=2, new=1)
    kept = tmp_path / "cohort" / "images" / "heart_00.nii.gz"
    kept.write_bytes(b"mine now")
    (tmp_path / "cohort" / "labels" / "heart_01.nii.gz").unlink()
    make_cohort(tmp_path / "cohort", subjects=2, new=1)
    assert kept.read_bytes() == b"mine now"
    for name in ("images/heart_01", "labels/heart_01", "new/heart_02"):
        a, b = (rwtool.read_image(tmp_path / folder / f"{name}.nii.gz").array for folder in ("whole", "cohort"))
        np.testing.assert_array_equal(a, b)


def test_another_cohort_in_the_folder_is_refused_and_nothing_is_deleted(tmp_path):
    make_cohort(tmp_path / "d", subjects=2)
    (tmp_path / "d" / "runs" / "mine").mkdir(parents=True)
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
    for other in ({"subjects": 3}, {"subjects": 2, "seed": 1}):
        with pytest.raises(rwtool.UsageError, match="d holds another demo; name another folder"):
            make_cohort(tmp_path / "d", **other)
    assert {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_heart_is_turned_for_training(tmp_path, seed):
    make_cohort(tmp_path, subjects=14, seed=seed)
    found = [read_header(path).geometry for path in sorted((tmp_path / "labels").glob("*.nii.gz"))]
    assert {turn_to(found[0].directions, each.directions) for each in found} == {Turn()}


# What it says in the end


def rows_of(**methods):
    """Rows of two classes in two hearts: (Dice, HD in mm) by method and class; None is a missed class."""
    rows = []
    for method, classes in methods.items():
        for label, (name, found) in enumerate(classes.items(), start=1):
            status = "missed" if found is None else "ok"
            values = (0.0, math.nan) if found is None else found
            for case in "xy":
                for metric, value in zip(("dice", "hd"), values, strict=True):
                    rows.append(Row(method, "", case, case, "", label, name, metric, value, "", status, 100.0, 0.1))
    return rows


GOOD, FAR, POOR = (0.95, 4.0), (0.952, 9.0), (0.8, 9.0)


@pytest.mark.parametrize(
    ("dice", "rrw", "boundary", "expected"),
    [
        (
            {"RV": FAR, "LV": FAR},
            {"RV": GOOD, "LV": GOOD},
            {"RV": None, "LV": GOOD},
            (
                "rrw is as good as Dice loss in Dice: 0.950 and 0.952, mean over RV and LV.",
                "Its mean Hausdorff distance (HD) is smaller in RV and LV: fewer voxels",
                "Boundary loss alone misses RV in 2 of 2 hearts. Its maps can push two classes up",
            ),
        ),
        (
            {"RV": GOOD, "LV": FAR},
            {"RV": POOR, "LV": GOOD},
            {"RV": None, "LV": None},
            (
                "rrw is below Dice loss in Dice: 0.875 and 0.951, mean over RV and LV.",
                "(HD) is smaller in LV and larger in RV: no clear win. HD hangs on the worst voxel",
                "misses RV in 2 of 2 hearts and LV in 2 of 2 hearts.",
            ),
        ),
        (
            {"RV": POOR, "LV": GOOD},
            {"RV": (0.9, 12.0), "LV": GOOD},
            {"RV": POOR, "LV": POOR},
            (
                "rrw is above Dice loss in Dice: 0.925 and 0.875, mean over RV and LV.",
                "(HD) is larger in RV and equal in LV: here it does not win. It finds thin",
                "Boundary loss alone finds every class, less well: Dice 0.800.",
            ),
        ),
        (
            {"RV": GOOD, "LV": GOOD},
            {"RV": None, "LV": GOOD},
            {"RV": GOOD, "LV": GOOD},
            (
                "rrw is below Dice loss in Dice: 0.475 and 0.950",
                "(HD) is larger in RV and equal in LV: here it does not win.",
                "Boundary loss alone keeps up here",
            ),
        ),
        (
            {"RV": GOOD, "LV": GOOD},
            {"RV": None, "LV": None},
            {"RV": GOOD, "LV": GOOD},
            (
                "rrw is below Dice loss in Dice: 0.000 and 0.950",
                "rrw found no class in any heart: its training has not got going; try more epochs.",
                "Boundary loss alone keeps up here",
            ),
        ),
    ],
)
def test_the_words_follow_from_the_numbers(dice, rrw, boundary, expected):
    told = tell_results(rows_of(dice=dice, rrw=rrw, boundary=boundary))
    assert len(told) == len(expected)
    for line, part in zip(told, expected, strict=True):
        assert part in line


def test_the_shares_that_the_page_of_maps_states_are_those_of_the_demo(tmp_path):
    make_cohort(tmp_path)
    rwtool.make_maps(tmp_path / "labels", tmp_path / "maps", kinds=("boundary",), jobs=1)
    checked = rwtool.check_maps(tmp_path / "maps" / "boundary", jobs=1)
    uniform, random = f"{checked.uniform.unstable_share:.0%}", f"{checked.random.unstable_share:.0%}"
    page = " ".join(read_page("maps").split())
    assert f"At uniform softmax {uniform} of the voxels of the hearts' Boundary maps".replace("%", " %") in page
    assert f"| `boundary` | no | {random}".replace("%", " %") in page
