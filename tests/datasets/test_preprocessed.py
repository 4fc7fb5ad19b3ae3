import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from rwtool.datasets.cases import search_cases
from rwtool.datasets.preprocessed import preprocessed_root, preprocessed_spacing
from rwtool.errors import RwtoolError, UsageError


def plans(reader="SimpleITKIO", transpose=(0, 1, 2), **configurations):
    return {
        "plans_name": "nnUNetPlans",
        "image_reader_writer": reader,
        "transpose_forward": list(transpose),
        "configurations": configurations,
        "something": None,
    }


PLANS = plans(
    **{
        "2d": {"data_identifier": "nnUNetPlans_2d", "spacing": [0.7, 0.8], "batch_size": 2},
        "3d_fullres": {"data_identifier": "nnUNetPlans_3d_fullres", "spacing": [2.5, 0.7, 0.8]},
        "2d_large": {"inherits_from": "2d", "batch_size": 8},
        "3d_lowres": {"inherits_from": "3d_fullres", "data_identifier": "nnUNetPlans_3d_lowres", "spacing": [3, 2, 1]},
    }
)


@pytest.fixture
def dataset(tmp_path):
    """Function that lays out a data set by its plans; returns the cases of a configuration."""

    def lay(configuration, content=PLANS, *, headers=True, affine=None, suffix=".nii.gz"):
        base = tmp_path / "Dataset001_X"
        folder = base / f"nnUNetPlans_{configuration}"
        (base / "gt_segmentations").mkdir(parents=True)
        folder.mkdir()
        for case in ("a", "b"):
            for name in (f"{case}.b2nd", f"{case}_seg.b2nd", f"{case}.pkl"):
                (folder / name).touch()
            if headers:
                where = np.diag([0.5, 0.6, 4.0, 1]) if affine is None else affine
                image = nib.Nifti1Image(np.zeros((3, 4, 5), np.uint8), where)
                nib.save(image, base / "gt_segmentations" / f"{case}{suffix}")
        (base / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "x": 1}}))
        (base / "dataset_fingerprint.json").write_text("{ no JSON")  # not looked at
        if content is not None:
            (base / "nnUNetPlans.json").write_text(json.dumps(content))
        return {case: folder / f"{case}_seg.b2nd" for case in ("a", "b")}

    return lay


def test_the_label_files_are_the_cases_and_their_images_are_not(dataset):
    cases = dataset("2d")
    found = search_cases(next(iter(cases.values())).parent)
    assert found.cases == cases
    assert found.passed_over == {}


@pytest.mark.parametrize(
    ("configuration", "expected"), [("3d_fullres", (2.5, 0.7, 0.8)), ("3d_lowres", (3, 2, 1)), ("2d", (4.0, 0.7, 0.8))]
)
def test_the_spacing_is_that_of_the_plans_and_between_slices_that_of_the_file(dataset, configuration, expected):
    assert preprocessed_spacing(dataset(configuration)) == {
        "a": pytest.approx(expected),
        "b": pytest.approx(expected),
    }


def test_axes_that_nnu_net_has_turned_are_turned_here(dataset):
    content = plans(transpose=(2, 0, 1), **{"2d": {"data_identifier": "nnUNetPlans_2d", "spacing": [1, 1]}})
    # nnU-Net reads (z, y, x) = (4, 0.6, 0.5), and puts the last axis first
    assert preprocessed_spacing(dataset("2d", content))["a"] == pytest.approx((0.5, 1, 1))


def test_a_reader_that_reorients_is_followed(dataset):
    affine = np.array([[0, 0, 4.0, 0], [0.5, 0, 0, 0], [0, 0.6, 0, 0], [0, 0, 0, 1]])  # file axes are A, S, R
    content = plans("NibabelIOWithReorient", **{"2d": {"data_identifier": "nnUNetPlans_2d", "spacing": [1, 1]}})
    # as R, A, S it has 4, 0.5 and 0.6 mm, and nnU-Net's first axis is the last of these
    assert preprocessed_spacing(dataset("2d", content, affine=affine))["a"] == pytest.approx((0.6, 1, 1))


def test_pictures_have_one_slice(dataset):
    content = plans("NaturalImage2DIO", **{"2d": {"data_identifier": "nnUNetPlans_2d", "spacing": [1, 1]}})
    assert preprocessed_spacing(dataset("2d", content, headers=False))["a"] == (999, 1, 1)


def test_other_files_have_none_of_it(tmp_path):
    assert preprocessed_spacing({"a": tmp_path / "a.nii.gz", "b": tmp_path / "b.npy"}) == {}
    assert preprocessed_root(tmp_path / "a.npy") is None


def test_the_root_is_two_folders_up():
    assert preprocessed_root(Path("/p/D/c/x_seg.b2nd")) == Path("/p/D")


def test_two_plans_with_one_spacing_are_one(dataset):
    cases = dataset("3d_fullres")
    base = cases["a"].parent.parent
    (base / "other.json").write_text(json.dumps(PLANS))
    assert preprocessed_spacing(cases)["a"] == (2.5, 0.7, 0.8)
    other = plans(**{"x": {"data_identifier": "nnUNetPlans_3d_fullres", "spacing": [1, 1, 1]}})
    (base / "other.json").write_text(json.dumps(other))
    with pytest.raises(
        UsageError, match=r"expected one spacing in the plans; found nnUNetPlans.json: .*, other.json: "
    ):
        preprocessed_spacing(cases)


@pytest.mark.parametrize(
    ("configuration", "content", "headers", "what"),
    [
        ("2d", None, True, "no plans in .* are of this folder"),
        ("2d", {"configurations": {}, "transpose_forward": [0, 1, 2]}, True, "no plans in .* are of this folder"),
        ("2d", PLANS, False, "no label file of case a, whose header has the distance between its slices"),
        (
            "2d",
            plans("Tiff3DIO", **{"2d": {"data_identifier": "nnUNetPlans_2d", "spacing": [1, 1]}}),
            True,
            "does not know how Tiff3DIO reads",
        ),
        ("2d", plans(**{"2d": {"inherits_from": "3d"}}), True, "'2d' inherits from '3d', which leads nowhere"),
        (
            "2d",
            plans(**{"2d": {"inherits_from": "3d"}, "3d": {"inherits_from": "2d"}}),
            True,
            "inherits from '2d', which leads nowhere",
        ),
    ],
)
def test_where_it_cannot_be_known_the_message_says_why(dataset, configuration, content, headers, what):
    with pytest.raises(UsageError, match=what):
        preprocessed_spacing(dataset(configuration, content, headers=headers))


def test_damaged_plans_are_refused(dataset):
    wrong = plans(**{"2d": {"data_identifier": "nnUNetPlans_2d", "spacing": "wide"}})
    with pytest.raises(RwtoolError, match=r"nnUNetPlans.json: its plans cannot be read: \$\.configurations"):
        preprocessed_spacing(dataset("2d", wrong))


@pytest.mark.nnunet
def test_maps_of_a_preprocessed_data_set_have_its_spacing_and_lie_outside_of_it(dataset, tmp_path):
    blosc2 = pytest.importorskip("blosc2", reason="blosc2 is not installed")
    import rwtool

    cases = dataset("2d")
    labels = np.zeros((1, 3, 4, 5), dtype=np.int16)
    labels[0, :, 1:3, 1:3] = 1
    labels[0, 0, 0] = -1
    for path in cases.values():
        path.unlink()
        blosc2.asarray(labels, urlpath=str(path))
    folder = cases["a"].parent
    made = rwtool.make_maps(folder, tmp_path / "maps", format="npy", jobs=1)
    assert not made.failed
    assert made.sets["rrw"].cases["a"].spacing_mm == pytest.approx((4.0, 0.7, 0.8))
    expected = rwtool.rrw_map(labels[0].clip(0), (4.0, 0.7, 0.8), n_classes=2)
    np.testing.assert_array_equal(np.load(tmp_path / "maps" / "rrw" / "a.npy"), expected)
    np.testing.assert_array_equal(rwtool.read_map(tmp_path / "maps" / "rrw" / "a.npy"), expected)
    given = rwtool.make_maps(folder, tmp_path / "given", spacing_mm=(1, 1, 1), jobs=1)
    assert given.sets["rrw"].cases["a"].spacing_mm == (1, 1, 1)
    for out in (folder, folder / "maps", folder.parent / "maps"):
        with pytest.raises(UsageError, match="within nnU-Net's data set"):
            rwtool.make_maps(folder, out, format="npy", jobs=1)


@pytest.mark.parametrize("order", [[], [7, 0, 1], [0, 1], [0, 0, 1], [-1, 0, 1]])
def test_axes_that_are_no_order_are_refused(dataset, order):
    cases = dataset("2d", plans(transpose=order, **PLANS["configurations"]))
    with pytest.raises(UsageError, match="expected 0, 1 and 2 in some order"):
        preprocessed_spacing(cases)
