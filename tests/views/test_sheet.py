import dataclasses
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import rwtool
from rwtool.datasets.plan import plan_dataset
from rwtool.report.slices import class_colour
from rwtool.views import sheet
from rwtool.views.sheet import Flags, draw_sheet, page_paths, strip_length


def save(path, array):
    path.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(array.astype(np.uint8), np.diag([1.0, 2.0, 5.0, 1.0])), path)


@pytest.fixture
def labels(tmp_path):
    """Four cases: whole, without label 2, without any, and one that is no volume."""
    whole = np.zeros((8, 6, 5))
    whole[2:4, :, 1:4], whole[4:6, :, 2] = 1, 2
    save(tmp_path / "labels" / "a.nii", whole)
    save(tmp_path / "labels" / "b_lacks.nii", whole * (whole < 2))
    save(tmp_path / "labels" / "c_empty.nii", whole * 0)
    (tmp_path / "labels" / "d_broken.nii").write_bytes(b"no volume")
    return tmp_path / "labels"


@pytest.fixture
def figures(monkeypatch):
    """The figures that are saved, by the name of the file."""
    kept = {}
    save_figure = sheet.save_figure

    def keep(figure, path, **more):
        kept[path.name] = figure
        save_figure(figure, path, **more)

    monkeypatch.setattr(sheet, "save_figure", keep)
    return kept


def draw(dataset, path, slices=8, images=None):
    cells = strip_length(dataset, slices)
    pages = page_paths(path, len(dataset.paths), cells)
    return draw_sheet(dataset, images, pages, slices=cells, grid={}, jobs=1, verbosity=-1)


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def test_cases_that_lack_a_class_or_cannot_be_read_are_outlined_and_named(labels, tmp_path, figures):
    made = draw(plan_dataset(labels), tmp_path / "s.png")
    assert made.pages == [tmp_path / "s.png"]
    a, b, c, d = made.outcomes
    assert (a.result, b.result, c.result) == (Flags(), Flags(("2",)), Flags(("foreground",)))
    assert "d_broken.nii" in d.error
    (axes,) = figures["s.png"].axes
    rows = [patch.get_y() for patch in axes.patches]
    assert len(rows) == 3
    assert rows == sorted(rows)
    said = texts(figures["s.png"])
    assert "labels: 4 cases, 3 outlined" in said
    assert {"a", "b_lacks", "no 2", "c_empty", "no foreground", "d_broken"} <= set(said)
    assert len(axes.images) == 3 + 3 + 5  # the slices with foreground, or all


def test_notes_are_flagged():
    assert Flags(notes=("it is odd",)).describe() == "it is odd"
    assert Flags(("1", "2"), ("it is odd",)).describe() == "no 1, 2; it is odd"
    assert not Flags()


def test_slices_have_their_true_proportions_and_their_numbers(labels, tmp_path, figures):
    dataset = plan_dataset({"a": labels / "a.nii"})
    draw(dataset, tmp_path / "s.png", slices=2)
    (axes,) = figures["s.png"].axes
    left, right, bottom, top = axes.images[0].get_extent()
    assert (right - left) / (bottom - top) == pytest.approx(8 / 12)  # 8 x 1 mm and 6 x 2 mm
    assert [text for text in texts(figures["s.png"]) if text.isdigit()] == ["1", "3"]
    assert figures["s.png"].get_size_inches() == pytest.approx((axes.get_xlim()[1], axes.get_ylim()[0]))


def test_over_an_image_classes_are_tinted_and_the_background_is_grey(cohort, tmp_path, figures):
    dataset = plan_dataset({"case_0": cohort / "labels" / "case_0.nii.gz"})
    draw(dataset, tmp_path / "s.png", slices=1, images={"case_0": (cohort / "images" / "case_0.nii.gz",)})
    (image,) = figures["s.png"].axes[0].images
    picture = np.asarray(image.get_array())
    volume = rwtool.read_labels(cohort / "labels" / "case_0.nii.gz")
    plane = sheet.plane_of(volume.geometry)
    labels = plane.cut(volume.array, 1)
    background = picture[labels == 0]
    np.testing.assert_allclose(background, np.repeat(background[:, :1], 3, axis=1), atol=1e-6)
    tinted = picture[labels == 1].mean(axis=0)
    assert class_colour(1) == "#0072b2"
    assert tinted[0] < tinted[1] < tinted[2]


def test_a_large_set_goes_over_several_pages_and_a_page_holds_more_cases_of_few_slices():
    assert [path.name for path in page_paths(Path("s.png"), 23, 8)] == ["s-1.png", "s-2.png", "s-3.png"]
    assert page_paths(Path("s.png"), 80, 1) == [Path("s.png")]
    assert len(page_paths(Path("s.png"), 5000, 8)) == 500


def test_every_page_has_its_cases(tmp_path, figures):
    array = np.zeros((4, 4, 1))
    array[1] = 1
    for n in range(81):
        save(tmp_path / "labels" / f"case_{n:02d}.nii", array)
    made = draw(plan_dataset(tmp_path / "labels"), tmp_path / "s.png")
    assert [path.name for path in made.pages] == ["s-1.png", "s-2.png"]
    assert [outcome.name for outcome in made.outcomes] == [f"case_{n:02d}" for n in range(81)]
    assert len(figures["s-1.png"].axes[0].images) == 80
    assert "labels: 81 cases, page 2 of 2" in texts(figures["s-2.png"])
    assert "case_80" in texts(figures["s-2.png"])


def test_one_volume_at_a_time_is_in_memory(labels, tmp_path, monkeypatch):
    dataset = plan_dataset({name: labels / f"{name}.nii" for name in ("a", "b_lacks", "c_empty")})
    alive, most = set(), []
    read = sheet.LabelFile.read

    class Array(np.ndarray):
        def __del__(self):
            alive.discard(id(self))

    def counted(file):
        volume = read(file)
        array = volume.array.view(Array)
        alive.add(id(array))
        most.append(len(alive))
        return dataclasses.replace(volume, array=array)

    monkeypatch.setattr(sheet.LabelFile, "read", counted)
    draw(dataset, tmp_path / "s.png")
    assert most == [1, 1, 1]
