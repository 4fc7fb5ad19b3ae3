from pathlib import Path

import numpy as np
import pytest

import rwtool
from rwtool.maps.folder import read_map_set
from rwtool.network.predict import predict_softmax
from rwtool.views import signs
from rwtool.views.signs import draw_signs


@pytest.fixture
def maps(cohort, tmp_path):
    """Function that makes the maps of a kind."""

    def make(kind, **options):
        rwtool.make_maps(cohort / "labels", tmp_path / "maps", kinds=(kind,), jobs=1, **options)
        return read_map_set(tmp_path / "maps" / kind)

    return make


@pytest.fixture
def figures(monkeypatch):
    kept = []
    monkeypatch.setattr(signs, "save_figure", lambda figure, path: kept.append(figure))
    return kept


def draw(maps, cohort, **more):
    options = {"seed": 0, "z": None, "run": None, "images": None, **more}
    return draw_signs(maps, "case_1", cohort / "labels" / "case_1.nii.gz", Path("x.png"), **options)


def unstable(z, y, kind):
    """Voxels with two or more negative components, one at a time."""
    found = np.zeros(z.shape[1:], dtype=bool)
    for at in np.ndindex(found.shape):
        zi, yi = (array[(slice(None), *at)].astype(float) for array in (z, y))
        gradient = 2 * yi * (zi * yi - (zi * yi**2).sum()) if kind == "hd" else yi * (zi - (zi * yi).sum())
        found[at] = (gradient < -1e-6 * yi * np.abs(zi).max()).sum() >= 2
    return found


@pytest.mark.parametrize("kind", ["boundary", "hd"])
def test_the_slice_with_most_wrong_signs_is_shown_and_counted(maps, cohort, figures, kind, monkeypatch):
    made = maps(kind)
    drawn = draw(made, cohort)
    z = rwtool.read_map(made.path("case_1"))
    wrong = unstable(z, np.full(z.shape, 1 / 3), kind)
    assert list(drawn.counts) == ["uniform", "random"]
    uniform, random = drawn.counts.values()
    assert uniform.unstable == wrong[drawn.slice].sum() > 0
    assert uniform.voxels == z[0, 0].size
    monkeypatch.setattr(signs, "_figure", lambda *given: None)  # the counts alone
    again = [draw(made, cohort, z=n).counts for n in range(4)]
    assert sum(one["uniform"].unstable for one in again) == wrong.sum()
    checked = rwtool.check_maps(made.folder, jobs=1)
    (case,) = (one for one in checked.cases if one.name == "case_1")
    assert sum(one["random"].unstable for one in again) == case.random.unstable
    sums = [one["uniform"].unstable + one["random"].unstable for one in again]
    assert drawn.slice == sums.index(max(sums))
    assert random == again[drawn.slice]["random"]
    texts = [text.get_text() for text in figures[0].texts]
    assert f"two or more negative:\n{uniform.unstable_share:.1%} of the slice" in texts[2]
    assert f"{case.uniform.unstable_share:.1%} of the volume" in texts[2]


def test_a_class_is_marked_where_it_is_raised_wrongly(maps, cohort, figures):
    made = maps("boundary")
    drawn = draw(made, cohort)
    z = rwtool.read_map(made.path("case_1"))[:, drawn.slice]
    labels = rwtool.read_labels(cohort / "labels" / "case_1.nii.gz").array[drawn.slice]
    panels = [axes for axes in figures[0].axes if axes.images]
    assert [axes.get_title() for axes in panels[1:5]] == ["negative components", "background", "1", "2"]
    plane = signs.plane_of(rwtool.read_labels(cohort / "labels" / "case_1.nii.gz").geometry)
    for k in range(3):
        raised = (z[k] - z.mean(axis=0) < -1e-6 * np.abs(z).max(axis=0)) & (labels != k)
        red = np.isclose(panels[2 + k].images[0].get_array(), signs._painted((1, 1), [(np.s_[:], signs._RAISED)]))
        np.testing.assert_array_equal(red.all(axis=2), plane.cut(raised[np.newaxis], 0))


def test_sound_maps_show_the_slice_with_most_foreground_and_nothing_wrong(maps, cohort, figures):
    drawn = draw(maps("rrw", layout="packed"), cohort, images=cohort / "images")
    assert [count.unstable for count in drawn.counts.values()] == [0, 0]
    labels = rwtool.read_labels(cohort / "labels" / "case_1.nii.gz").array
    sizes = [np.count_nonzero(part) for part in labels]
    assert drawn.slice == sizes.index(max(sizes))
    (legend,) = figures[0].legends
    assert [text.get_text() for text in legend.get_texts()] == ["voxels of the class"]


def test_a_run_shows_the_signs_at_its_own_softmax(maps, cohort, quick, figures):
    made = maps("boundary")
    drawn = draw(made, cohort, run=quick.folder, images=cohort / "images")
    assert list(drawn.counts) == ["uniform", "random", quick.folder.name]
    softmax = predict_softmax(quick.folder, cohort / "images", "case_1").softmax
    wrong = unstable(rwtool.read_map(made.path("case_1")), softmax, "boundary")
    assert drawn.counts[quick.folder.name].unstable == wrong[drawn.slice].sum()
    (legend,) = figures[0].legends
    assert "class is raised where it is not" in [text.get_text() for text in legend.get_texts()]


def test_a_run_of_other_classes_is_refused(maps, cohort, quick):
    made = maps("boundary", classes=(0, 1, 2, 3))
    with pytest.raises(rwtool.UsageError, match="segments the classes 0 background, 1, 2, and the maps are of"):
        draw(made, cohort, run=quick.folder, images=cohort / "images")


def test_labels_that_are_gone_are_named(maps, cohort):
    with pytest.raises(rwtool.RwtoolError, match=r"no such file.*give labels=FOLDER"):
        draw_signs(
            maps("boundary"), "case_1", Path("nowhere.nii"), Path("x.png"), seed=0, z=None, run=None, images=None
        )
