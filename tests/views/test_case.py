import dataclasses

import nibabel as nib
import numpy as np
import pytest

import rwtool
from rwtool.datasets.plan import plan_dataset
from rwtool.report.figures import drawing
from rwtool.views.case import _figure, draw_case, show_case


def save(path, array, affine=None):
    path.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(array.astype(np.uint8), np.diag([1.0, 2.0, 5.0, 1.0]) if affine is None else affine), path)
    return path


def labels_of(values, shape=(8, 6, 3)):
    array = np.zeros(shape)
    flat = array.reshape(-1)
    flat[: len(values)] = values
    return array


def show(path, kinds=("boundary", "rrw"), **more):
    options = {"image": None, "maps": (), "z": None, "spacing_mm": None, "slice_axis": None, **more}
    classes = options.pop("classes", None)
    (case,) = (dataset := plan_dataset(path, classes=classes, ignore=options.pop("ignore", None))).files
    return show_case(case, dataset.files[case], kinds=kinds, **options)


def panels(figure):
    """Axes by their titles, in order."""
    return [(axes.get_title(), axes) for axes in figure.axes if axes.images]


def test_each_kind_has_a_panel_a_class_a_bar_and_its_own_scale(cohort):
    path = cohort / "labels" / "case_0.nii.gz"
    shown = show(path, image=(cohort / "images" / "case_0.nii.gz",))
    volume = rwtool.read_labels(path)
    counts = [np.count_nonzero(part) for part in volume.array]
    assert shown.z == counts.index(max(counts))
    with drawing():
        figure = _figure(shown)
    titles = [title for title, _ in panels(figure)]
    assert titles == ["image and classes", *["background", "1", "2"] * 2]
    z = rwtool.boundary_map(volume.array, volume.spacing_mm, n_classes=3)
    for k in range(3):
        image = panels(figure)[1 + k][1].images[0]
        np.testing.assert_array_equal(image.get_array(), shown.plane.cut(z[k], shown.z))
        assert (image.norm.vmin, image.norm.vmax) == (z[:, shown.z].min(), z[:, shown.z].max())
    assert [axes.get_title(loc="left") for axes in figure.axes if not axes.images] == ["mm", "no unit"]
    assert {text.get_text() for text in figure.texts} == {
        f"case_0   slice {shown.z} (0 to 3), pixels of 0.8 x 1.5 mm", "boundary", "rrw",
    }  # fmt: skip
    aspects = {round(axes.get_aspect(), 6) for _, axes in panels(figure)}
    assert aspects == {round(0.8 / 1.5, 6)}


@pytest.mark.parametrize("values", [[1], list(range(1, 15))])
def test_two_classes_and_fifteen_have_a_panel_each(tmp_path, values):
    shown = show(save(tmp_path / "l" / "a.nii", labels_of(values)), kinds=("rrw",))
    with drawing():
        assert len(panels(_figure(shown))) == 1 + 1 + len(values)


@pytest.mark.parametrize("shape", [(8, 1, 1), (1, 1, 1), (64, 2, 1)])
def test_one_slice_and_one_line_and_one_voxel_are_drawn(tmp_path, shape):
    path = save(tmp_path / "l" / "a.nii", labels_of([1], shape))
    shown = show(path, kinds=("boundary",))
    draw_case(shown, tmp_path / "a.png")
    assert shown.z == 0
    assert (tmp_path / "a.png").stat().st_size > 0


def test_without_foreground_the_middle_slice_is_drawn(tmp_path):
    shown = show(save(tmp_path / "l" / "a.nii", labels_of([])), classes=(0, 1))
    assert shown.z == 1
    draw_case(shown, tmp_path / "a.svg")
    assert "1 (not in this slice)" in (tmp_path / "a.svg").read_text(encoding="utf-8")


def test_ignored_voxels_are_grey_in_every_panel(tmp_path):
    path = save(tmp_path / "l" / "a.nii", labels_of([1, 1, 1, 9, 9, 9]))
    shown = show(path, ignore=9)
    assert shown.ignored.sum() == 1
    with drawing():
        figure = _figure(shown)
    for _, axes in panels(figure)[1:]:
        np.testing.assert_array_equal(axes.images[1].get_array()[..., 3] > 0, shown.ignored)


def test_names_of_every_kind_are_drawn_as_they_are(tmp_path):
    shown = show(save(tmp_path / "l" / "a.nii", labels_of([1, 2])))
    names = ("_b_", "$x_1$ \u05e9\u05dc\x1b[31m", "n" * 200)
    odd = dataclasses.replace(
        shown, case="\u202e$^" + "y" * 250, classes=dataclasses.replace(shown.classes, names=names)
    )
    draw_case(odd, tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert "1 $x_1$ \u05e9\u05dc\\x1b[31m" in text
    assert "_b_" in text
    assert "\\u202e$^y" in text
    assert "\u202e" not in text
