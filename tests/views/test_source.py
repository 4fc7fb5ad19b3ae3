import numpy as np
import pytest
from mapped import write_labels

import rwtool
from rwtool.datasets.plan import plan_dataset
from rwtool.maps.parameters import PAPER_KINDS, MapParameters
from rwtool.views.planes import plane_of
from rwtool.views.source import (
    classes_of,
    find_maps,
    image_of,
    make_map_slice,
    read_map_slice,
    read_shown_image,
    split_ignored,
    unit_of,
)


@pytest.fixture
def labels(tmp_path):
    for seed, case in enumerate(("a", "b")):
        write_labels(tmp_path / "labels" / f"{case}.nii.gz", seed)
    return tmp_path / "labels"


@pytest.fixture
def case(labels):
    """Label file, volume and plane of the first case."""
    file = plan_dataset(labels).files["a"]
    volume = file.read()
    return file, volume, plane_of(volume.geometry)


@pytest.mark.parametrize("kind", PAPER_KINDS)
def test_a_slice_that_is_made_is_that_of_the_whole_map(case, kind):
    _, volume, plane = case
    where = () if kind in ("ac", "constant") else (volume.spacing_mm,)
    whole = getattr(rwtool, f"{kind}_map")(volume.array, *where, n_classes=3)
    made = make_map_slice(kind, volume, 3, plane, 2)
    np.testing.assert_array_equal(made.z, plane.cut(whole, 2))


def test_a_slice_of_a_skeleton_and_of_components_is_that_of_the_whole_map(labels, case, tmp_path):
    file, volume, plane = case
    whole = rwtool.skeleton_map(volume.array, volume.spacing_mm, n_classes=3)
    np.testing.assert_array_equal(make_map_slice("skeleton", volume, 3, plane, 2).z, plane.cut(whole, 2))
    whole = rwtool.rrw_map(volume.array, volume.spacing_mm, n_classes=3, instances=True)
    for layout in ("dense", "packed"):
        rwtool.make_maps(labels, tmp_path / layout, instances=True, layout=layout, jobs=1)
        (found,) = find_maps(tmp_path / layout, "a")
        shown = read_map_slice(found, file, volume, plane, 2)
        np.testing.assert_array_equal(shown.z, plane.cut(whole, 2))
        assert shown.unit == "no unit"


def test_a_matrix_is_no_map_of_a_case(labels, tmp_path):
    rwtool.make_maps(labels, tmp_path / "maps", kinds=("ac", "matrix"), matrix=1 - np.eye(3), jobs=1)
    assert [found.maps.kind for found in find_maps(tmp_path / "maps", "a")] == ["ac"]


@pytest.mark.parametrize(
    "storage", [{}, {"format": "npy"}, {"layout": "packed"}, {"layout": "packed", "format": "npy"}, {"dtype": "int16"}]
)
def test_a_slice_that_is_read_is_the_one_that_would_be_made(labels, case, tmp_path, storage):
    file, volume, plane = case
    rwtool.make_maps(labels, tmp_path / "maps", jobs=1, **storage)
    (found,) = find_maps(tmp_path / "maps", "a")
    read = read_map_slice(found, file, volume, plane, 3)
    np.testing.assert_allclose(read.z, make_map_slice("rrw", volume, 3, plane, 3).z, atol=2e-5)
    assert (read.kind, read.unit) == ("rrw", "no unit")


def test_maps_are_a_file_the_folder_of_a_kind_or_the_one_above(labels, tmp_path):
    maps = tmp_path / "maps"
    rwtool.make_maps(labels, maps, kinds=("rrw", "boundary"), jobs=1)
    assert [one.path for one in find_maps(maps, "a")] == [maps / kind / "a.nii.gz" for kind in ("boundary", "rrw")]
    assert [one.path for one in find_maps(maps / "rrw", "b")] == [maps / "rrw" / "b.nii.gz"]
    (one,) = find_maps(maps / "rrw" / "b.nii.gz", "other")
    assert (one.path, one.case) == (maps / "rrw" / "b.nii.gz", "b")
    assert classes_of(find_maps(maps, "a"), None).values == (0, 1, 2)
    assert classes_of([], None) is None


def test_maps_that_are_not_those_of_the_case_are_refused(labels, case, tmp_path):
    file, volume, plane = case
    maps = tmp_path / "maps"
    rwtool.make_maps(labels, maps, jobs=1)
    rwtool.make_maps(labels, tmp_path / "more", kinds=("boundary",), classes=(0, 1, 2, 3), jobs=1)
    with pytest.raises(rwtool.UsageError, match=r"no map of c in its maps\.json"):
        find_maps(maps, "c")
    with pytest.raises(rwtool.UsageError, match="no map and no folder of maps"):
        find_maps(labels, "a")
    with pytest.raises(rwtool.UsageError, match="does not tell of this map"):
        find_maps(labels / "a.nii.gz", "a")
    with pytest.raises(rwtool.UsageError, match="are of different classes"):
        classes_of([*find_maps(maps, "a"), *find_maps(tmp_path / "more", "a")], None)
    with pytest.raises(rwtool.UsageError, match=r"found classes=\(0, 1\)"):
        classes_of(find_maps(maps, "a"), (0, 1))
    (other,) = find_maps(maps, "b")
    with pytest.raises(rwtool.VolumeError, match="made from another label file than"):
        read_map_slice(other, file, volume, plane, 0)


def test_units_are_those_of_the_numbers():
    assert unit_of(MapParameters("boundary")) == "mm"
    assert unit_of(MapParameters("boundary", units="voxel")) == "voxels"
    assert unit_of(MapParameters("hd", units="voxel")) == "voxels²"
    assert unit_of(MapParameters("hd", alpha=1)) == "mm"
    assert unit_of(MapParameters("hd", alpha=1.5)) == "mm^1.5"
    assert unit_of(MapParameters("ac")) == "no unit"


def test_an_image_is_turned_onto_its_labels_and_another_grid_is_refused(cohort, tmp_path):
    labels = rwtool.read_labels(cohort / "labels" / "case_0.nii.gz")
    image = rwtool.read_image(cohort / "images" / "case_0.nii.gz")
    (path,) = image_of(cohort / "images", "case_0")
    np.testing.assert_array_equal(read_shown_image([path], labels), image.array)
    assert image_of(path, "another name") == (path,)
    write_labels(tmp_path / "b.nii.gz")
    with pytest.raises(rwtool.GeometryError, match="another grid than the labels"):
        read_shown_image([tmp_path / "b.nii.gz"], labels)


def test_ignored_voxels_become_background_and_a_mask():
    labels = np.array([[0, 2], [255, 1]], dtype=np.uint8)
    kept, ignored = split_ignored(labels, 255)
    assert kept.tolist() == [[0, 2], [0, 1]]
    assert ignored.tolist() == [[False, False], [True, False]]
    assert split_ignored(labels, None) == (labels, None)
    assert split_ignored(labels[:1], 255)[1] is None
