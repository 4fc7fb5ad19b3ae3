import base64
import re
import xml.etree.ElementTree as ET
from io import BytesIO

import matplotlib.image
import numpy as np
import pytest
from volumes import SPACED, volume_of

import rwtool
from rwtool.io.volume import Volume
from rwtool.io.write import write
from rwtool.report.cases import WorstCase
from rwtool.report.thumbnails import class_colour, draw_pair, draw_worst, outline


def volume(array, spacing=(3.0, 0.9, 0.5), directions="LPS", ignored=None):
    """A (Z, Y, X) array whose x, y and z axes point as the letters say."""
    places = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
    affine = np.eye(4)
    affine[:3, :3] = 0
    for column, (letter, mm) in enumerate(zip(directions, spacing[::-1], strict=True)):
        axis, sign = places[letter]
        affine[axis, column] = sign * mm
    made = volume_of(np.asarray(array).transpose(2, 1, 0), affine)
    return Volume(made.array, made.spacing_mm, made.geometry, ignored=ignored)


def labels(*boxes, shape=(4, 40, 60)):
    array = np.zeros(shape, np.uint8)
    for value, z, y, x in boxes:
        array[z, y, x] = value
    return array


def paths(svg):
    """Colour, and data of each path."""
    return [(p.get("stroke"), p.get("d")) for p in ET.fromstring(svg).iter("path")]


def extent(data):
    """Least and largest x and y of a path."""
    x, y = [], []
    for at_x, at_y, way, length in re.findall(r"M(\d+) (\d+)([hv])(\d+)", data):
        x += [int(at_x), int(at_x) + int(length) * (way == "h")]
        y += [int(at_y), int(at_y) + int(length) * (way == "v")]
    return min(x), max(x), min(y), max(y)


BOX = (slice(10, 20), slice(20, 50))


# --- outlines ---


def test_the_outline_of_an_l_of_three_pixels():
    assert outline(np.array([[True, False], [True, True]])) == "M0 0h1M1 1h1M0 2h2M0 0v2M1 0v1M2 1v1"


def test_every_edge_between_a_pixel_of_a_mask_and_another_is_drawn_once():
    mask = np.random.default_rng(0).random((9, 7)) < 0.5
    lengths = [int(n) for n in re.findall(r"[hv](\d+)", outline(mask))]
    padded = np.pad(mask, 1)
    assert sum(lengths) == np.sum(padded[1:] != padded[:-1]) + np.sum(padded[:, 1:] != padded[:, :-1])
    assert outline(np.zeros((2, 2), bool)) == ""


# --- which slice, and what of it ---


def test_the_slice_with_the_most_wrong_voxels_is_shown_with_both_outlines():
    reference = labels((1, slice(0, 4), *BOX))
    prediction = reference.copy()
    prediction[1, 10:12, 20:50] = 0
    prediction[2, 10:14, 20:50] = 0
    found = draw_pair(volume(reference), prediction)
    assert found.text == "Slice 3 of 4, 120 wrong voxels of 180 in all"
    assert found.labels == (1,)
    (white, ours), (colour, theirs) = paths(found.svg)
    assert (white, colour) == ("#fff", class_colour(1))
    x0, x1, y0, y1 = extent(ours)
    assert (x1 - x0, y1 - y0) == (30, 10)
    assert extent(theirs) == (x0, x1, y0 + 4, y1)


def test_the_ignored_voxels_are_neither_wrong_nor_shown():
    reference = labels((1, slice(0, 4), *BOX), (9, 3, slice(0, 5), slice(0, 60)))
    prediction = np.where(reference == 9, 0, reference).astype(np.uint8)
    prediction[1, 10, 20] = 0
    found = draw_pair(volume(reference, ignored=9), prediction)
    assert found.text == "Slice 2 of 4, 1 wrong voxel of 1 in all"
    assert found.labels == (1,)


def test_without_an_error_the_slice_with_most_of_the_reference_is_shown():
    reference = labels((1, 0, slice(10, 12), slice(20, 22)), (1, 2, *BOX))
    found = draw_pair(volume(reference), reference)
    assert found.text == "Slice 3 of 4, 0 wrong voxels of 0 in all"


def test_it_is_cropped_to_the_structures_in_true_proportions():
    found = draw_pair(volume(labels((1, slice(0, 4), *BOX))), labels((1, slice(0, 4), *BOX)))
    box = [float(part) for part in ET.fromstring(found.svg).get("viewBox").split()]
    assert box == [0, 0, (30 + 2 * 5) * 0.5, (10 + 2 * 4) * 0.9]  # a margin of 15 %, at least of 4 voxels
    assert 'transform="scale(0.5 0.9)"' in found.svg


def test_where_nothing_is_at_all_the_whole_slice_is_shown():
    empty = labels()
    assert 'viewBox="0 0 30 36"' in draw_pair(volume(empty), empty).svg


@pytest.mark.parametrize(
    ("directions", "corner"),
    [
        ("LPS", ("left", "top")),  # as radiologists look at it already
        ("RAS", ("right", "bottom")),
        ("RPS", ("right", "top")),
        ("PSR", ("left", "bottom")),  # sagittal, anterior on the left and superior on top
        ("LIA", ("left", "top")),  # coronal
    ],
)
def test_a_slice_lies_as_in_radiology(directions, corner):
    """The first pixels along both axes are marked: where do they come to lie?"""
    reference = labels((1, 0, slice(0, 40), slice(0, 60)), (2, 0, slice(0, 4), slice(0, 6)))
    found = draw_pair(volume(reference, directions=directions), reference)
    x0, _, y0, _ = extent(paths(found.svg)[1][1])
    assert ("left" if x0 == 0 else "right", "top" if y0 == 0 else "bottom") == corner


def test_axes_in_the_other_order_are_exchanged():
    reference = labels((1, 0, slice(10, 20), slice(10, 40)))
    svg = draw_pair(volume(reference, spacing=(3.0, 0.5, 0.9), directions="PLS"), reference).svg
    x0, x1, y0, y1 = extent(paths(svg)[0][1])
    assert (x1 - x0, y1 - y0) == (10, 30)
    assert 'transform="scale(0.5 0.9)"' in svg


# --- the image under it ---


def pixels_of(svg):
    (image,) = ET.fromstring(svg).iter("image")
    data = base64.b64decode(image.get("href").removeprefix("data:image/png;base64,"))
    return image, np.round(255 * matplotlib.image.imread(BytesIO(data), format="png")).astype(int)


def test_the_image_lies_under_the_outlines_from_black_to_white():
    reference = labels((1, 0, *BOX))
    image = np.zeros(reference.shape, np.float32)
    image[0] = np.linspace(-100, 500, 60)
    under, grey = pixels_of(draw_pair(volume(reference), reference, image).svg)
    assert grey.shape == (18, 40)
    assert (grey[0, 0], grey[0, -1]) == (0, 255)
    assert (np.diff(grey[0]) >= 0).all()
    assert (float(under.get("width")), float(under.get("height"))) == (20, 16.2)


def test_a_flat_image_is_black():
    reference = labels((1, 0, *BOX))
    _, grey = pixels_of(draw_pair(volume(reference), reference, np.full(reference.shape, 7, np.float32)).svg)
    assert not grey.any()


def test_the_noisiest_large_image_stays_small():
    reference = labels((1, 0, slice(0, 700), slice(0, 700)), shape=(1, 700, 700))
    noise = np.random.default_rng(0).random(reference.shape, dtype=np.float32)
    found = draw_pair(volume(reference), reference, noise)
    assert len(found.svg) < 120_000  # fifty of them are 6 MB
    under, grey = pixels_of(found.svg)
    assert grey.shape == (234, 234)
    assert float(under.get("width")) == 234 * 3 * 0.5


# --- files ---


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Two cases of two runs of one method, and images of both."""
    monkeypatch.chdir(tmp_path)
    for case in range(2):
        array = labels((1, slice(0, 4), *BOX)).transpose(2, 1, 0)
        for folder in ("labels", "a", "b"):
            (tmp_path / folder).mkdir(exist_ok=True)
            made = array.copy()
            if folder != "labels":
                made[20:22] = 0
            write(tmp_path / folder / f"c{case}.nii.gz", volume_of(made))
        (tmp_path / "images").mkdir(exist_ok=True)
        image = np.arange(array.size).reshape(array.shape).astype(np.int16)
        write(tmp_path / "images" / f"c{case}_0000.nii.gz", volume_of(image))
    return tmp_path


def measured(**options):
    return rwtool.evaluate("labels", ["m=a,b"], out="out", jobs=1, report=False, **options).evaluation


WANTED = [WorstCase("m", f"c{case}", "", run, 0.5, 1, (0.5,), "ok") for case in range(2) for run in ("a", "b")]


def test_each_prediction_has_its_picture(project):
    found = draw_worst(measured(), WANTED)
    assert set(found) == {("m", run, f"c{case}") for case in range(2) for run in ("a", "b")}
    assert {one.text for one in found.values()} == {"Slice 1 of 4, 20 wrong voxels of 80 in all"}
    assert not any("<image" in one.svg for one in found.values())


def test_what_has_changed_or_gone_since_has_a_sentence_and_costs_no_other(project):
    evaluation = measured()
    (project / "a" / "c0.nii.gz").write_bytes((project / "labels" / "c0.nii.gz").read_bytes())
    (project / "b" / "c0.nii.gz").unlink()
    (project / "labels" / "c1.nii.gz").write_bytes(b"")
    found = draw_worst(evaluation, WANTED)
    assert [one.svg for one in found.values()] == [""] * 4
    texts = {(run, case): one.text for (_, run, case), one in found.items()}
    assert texts["a", "c0"] == "No picture: a/c0.nii.gz has changed since it was measured"
    assert texts["b", "c0"] == "No picture: b/c0.nii.gz cannot be read any more: No such file or directory"
    assert texts["a", "c1"] == texts["b", "c1"] == "No picture: labels/c1.nii.gz has changed since it was measured"


def test_a_missing_prediction_has_a_sentence(project):
    (project / "a" / "c0.nii.gz").unlink()
    found = draw_worst(measured(allow_missing=True), WANTED)
    assert found["m", "a", "c0"].text == "No picture: there is no prediction."
    assert found["m", "b", "c0"].svg


def evaluation_with_images(project):
    rwtool.evaluate("labels", ["m=a,b"], out="out", images="images", jobs=1)
    return rwtool.evaluate("labels", ["m=a,b"], out="out", images="images", jobs=1).evaluation


def test_images_lie_under_the_pictures(project):
    found = draw_worst(evaluation_with_images(project), WANTED)
    assert all(one.svg.count("<image") == 1 for one in found.values())


def test_an_image_on_another_grid_or_that_is_none_has_a_sentence_and_the_outlines_stay(project):
    evaluation = evaluation_with_images(project)
    array = np.zeros((60, 40, 4), np.int16)
    write(project / "images" / "c0_0000.nii.gz", volume_of(array, SPACED * [2, 2, 2, 1]))
    (project / "images" / "c1_0000.nii.gz").write_bytes(b"no image")
    found = draw_worst(evaluation, WANTED)
    assert all(one.svg and "<image" not in one.svg for one in found.values())
    assert "in all. No image: images/c0_0000.nii.gz lies on another grid than its labels" in found["m", "a", "c0"].text
    assert ". No image: " in found["m", "a", "c1"].text
