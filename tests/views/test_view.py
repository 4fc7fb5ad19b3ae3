import shutil

import numpy as np
import pytest
from PIL import Image

import rwtool
from rwtool.report import figures
from rwtool.views.sheet import Flags


@pytest.fixture
def cohort(cohort, tmp_path, monkeypatch):
    """A copy of the cohort, which is the current folder."""
    shutil.copytree(cohort, tmp_path / "cohort")
    monkeypatch.chdir(tmp_path / "cohort")
    return tmp_path / "cohort"


def is_png(path):
    return path.read_bytes().startswith(b"\x89PNG")


def test_a_case_is_drawn_under_its_name_in_the_current_folder(cohort):
    drawn = rwtool.view("labels/case_0.nii.gz", image="images", kinds=("rrw",), slice=2)
    assert (str(drawn.files[0]), drawn.slice) == ("case_0.png", 2)
    assert is_png(cohort / "case_0.png")
    assert (drawn.failed, drawn.flagged) == ((), {})


def test_maps_bring_their_classes_and_their_names(cohort):
    (cohort / "dataset.json").write_text('{"labels": {"background": 0, "disc": 1, "other": 2, "third": 3}}')
    rwtool.make_maps("labels", "maps", jobs=1)
    (cohort / "dataset.json").unlink()
    planned = []
    rwtool.view("labels/case_0.nii.gz", "a.svg", maps=["maps"], on_plan=planned.append)
    assert planned[0].classes.describe() == "0 background, 1 disc, 2 other, 3 third"
    assert planned[0].classes.source.endswith("maps.json")
    text = (cohort / "a.svg").read_text(encoding="utf-8")
    assert "3 third (not in this slice)" in text
    assert "boundary" not in text


def test_a_folder_becomes_a_sheet_of_its_name_and_a_bad_case_costs_no_other(cohort):
    (cohort / "labels" / "case_3.nii.gz").write_bytes(b"no volume")
    drawn = rwtool.view("labels", image="images", slices=1, jobs=1)
    assert [str(path) for path in drawn.files] == ["labels.png"]
    assert [outcome.name for outcome in drawn.failed] == ["case_3"]
    assert len(drawn.outcomes) == 6
    rwtool.view("labels/case_[01].nii.gz", jobs=1)
    assert is_png(cohort / "sheet.png")


def test_labels_without_any_class_are_drawn(cohort):
    volume = rwtool.read_labels("labels/case_0.nii.gz")
    volume.array[...] = 0
    (cohort / "empty").mkdir()
    rwtool.write(cohort / "empty" / "a.nii.gz", volume)
    rwtool.view("empty/a.nii.gz", kinds=("rrw",))
    assert is_png(cohort / "a.png")
    assert rwtool.view("empty").flagged == {"a": Flags(("foreground",))}


def test_pictures_are_drawn_with_the_spacing_that_is_given(cohort):
    (cohort / "masks").mkdir()
    Image.fromarray(np.eye(9, 7, dtype=np.uint8)).save("masks/a.png")
    Image.fromarray(np.arange(9 * 7 * 3, dtype=np.uint8).reshape(9, 7, 3)).save("photo.png")
    rwtool.view("masks/a.png", image="photo.png", spacing_mm=(1, 2, 1), kinds=("boundary",))
    assert is_png(cohort / "a.png")
    with pytest.raises(rwtool.UsageError, match="carries no spacing"):
        rwtool.view("masks/a.png", "b.png")


def test_nothing_is_replaced_unless_it_is_said(cohort):
    (cohort / "case_0.png").write_bytes(b"mine")
    with pytest.raises(rwtool.UsageError, match=r"case_0\.png is there already; overwrite=True replaces it"):
        rwtool.view("labels/case_0.nii.gz")
    assert (cohort / "case_0.png").read_bytes() == b"mine"
    rwtool.view("labels/case_0.nii.gz", kinds=("rrw",), overwrite=True)
    assert is_png(cohort / "case_0.png")


def test_no_picture_replaces_what_it_is_made_of_or_joins_the_label_files(cohort):
    with pytest.raises(rwtool.UsageError, match="among the label files would be taken for one of them"):
        rwtool.view("labels/case_0.nii.gz", "labels/view.png")
    Image.fromarray(np.eye(9, 7, dtype=np.uint8)).save("a.png")
    with pytest.raises(rwtool.UsageError, match=r"would replace a\.png, which it is made of"):
        rwtool.view("a.png", spacing_mm=(1, 1, 1), overwrite=True)


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ("labels", {"slice": 1}, "slice= belongs to one label file, and a data set was given"),
        ("labels", {"maps": ["maps"]}, "maps= belongs to one label file"),
        ("labels", {"kinds": ("rrw",)}, "kinds= belongs to one label file"),
        ("labels", {"slices": 9}, "slices= is a number from 1 to 8; found slices=9"),
        ("labels/case_0.nii.gz", {"slices": 3}, "slices= belongs to a data set, and one label file was given"),
        ("labels/case_0.nii.gz", {"slice": 4}, r"case_0\.nii\.gz has the slices 0 to 3; found slice=4"),
        (
            "labels/case_0.nii.gz",
            {"kinds": ("x",)},
            "kinds= are some of ac, boundary, constant, hd, rrw, skeleton; found x",
        ),
        ("labels/case_0.nii.gz", {"out": "a.jpg"}, r"a figure ends in \.png, \.pdf, \.svg; found \.jpg"),
        ("labels/case_0.nii.gz", {"image": "labels/case_1.nii"}, "no such|nothing|no image|not"),
    ],
)
def test_what_does_not_fit_is_refused(cohort, labels, options, message):
    with pytest.raises(rwtool.UsageError, match=message):
        rwtool.view(labels, **options)
    assert not list(cohort.glob("*.png"))


def test_a_case_that_cannot_be_read_says_why(cohort):
    (cohort / "labels" / "case_3.nii.gz").write_bytes(b"no volume")
    with pytest.raises(rwtool.RwtoolError, match=r"case_3\.nii\.gz: the file is not gzip"):
        rwtool.view("labels/case_3.nii.gz")


@pytest.mark.usefixtures("cohort")
def test_without_matplotlib_the_extra_is_named_before_anything_is_read(monkeypatch):
    monkeypatch.setattr(figures, "can_draw", lambda: False)
    with pytest.raises(rwtool.UsageError, match=r"pip install 'rwtool\[plot\]'"):
        rwtool.view("nowhere")


def test_real_hearts_are_drawn(test_data, tmp_path):
    acdc = test_data / "acdc"
    case = "patient001_frame01.nii.gz"
    drawn = rwtool.view(acdc / "labels" / case, tmp_path / "a.png", image=acdc / "images")
    assert drawn.dataset.classes.names == ("background", "RV", "MYO", "LV")
    assert is_png(tmp_path / "a.png")
