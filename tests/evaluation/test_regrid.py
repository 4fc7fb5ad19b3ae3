import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform

from rwtool.datasets.classes import make_classes
from rwtool.errors import GeometryError, VolumeError
from rwtool.evaluation.regrid import read_aligned
from rwtool.io.formats import read_labels

AFFINE = np.array([[-0.8, 0, 0, 10], [0, -1.5, 0, -20], [0, 0, 4, 30], [0, 0, 0, 1.0]])
SHAPE = (12, 10, 8)
CLASSES = make_classes((0, 1, 2))
BOX = np.zeros(SHAPE, np.uint8)
BOX[2:6, 3:7, 2:6] = 1
BOX[3:5, 4:6, 3:5] = 2


def moved(*shift):
    affine = AFFINE.copy()
    affine[:3, 3] += shift
    return affine


def save(path, array, affine=AFFINE, **codes):
    """Write a NIfTI file; an affine of None states no orientation."""
    image = nib.Nifti1Image(array, affine)
    if affine is None:
        image.header.set_zooms((0.8, 1.5, 4))
    for name, code in codes.items():
        image.header[name] = code
    nib.save(image, path)
    return path


@pytest.fixture
def align(tmp_path):
    """Bring one array onto another, each saved in its own way."""

    def run(prediction, affine=AFFINE, *, onto=AFFINE, reference=BOX, classes=CLASSES, **options):
        first, second = save(tmp_path / "ref.nii", reference, onto), save(tmp_path / "pred.nii", prediction, affine)
        volume = read_labels(first, classes=classes.values, ignore=classes.ignore)
        return read_aligned(second, volume, first, classes=classes, **options), volume

    return run


def test_what_lies_alike_is_taken_as_it_is(align):
    found, reference = align(BOX, moved(0.07, 0, 0))
    assert np.array_equal(found.array, reference.array)
    assert (found.alignment, found.notes) == ("same", ())


@pytest.mark.parametrize("resample", [False, True])
@pytest.mark.parametrize("codes", ["RAS", "ASR", "SLA", "IRP"])
def test_other_axes_are_turned(align, codes, resample):
    turn = ornt_transform(axcodes2ornt("LPS"), axcodes2ornt(codes))
    turned = nib.apply_orientation(BOX, turn)
    found, reference = align(turned, AFFINE @ inv_ornt_aff(turn, SHAPE), resample=resample)
    assert np.array_equal(found.array, reference.array)
    assert (found.alignment, found.notes) == ("reoriented", ())


def test_another_slice_axis_on_the_same_grid_is_no_other_orientation(tmp_path):
    affine = np.diag([1.0, 1.0, 1.005, 1])  # within 1 %, so that the file alone is sliced across its last axis
    first, second = save(tmp_path / "ref.nii", BOX, affine), save(tmp_path / "pred.nii", BOX, affine)
    reference = read_labels(first, classes=(0, 1, 2), slice_axis=0)
    found = read_aligned(second, reference, first, classes=CLASSES)
    assert np.array_equal(found.array, reference.array)
    assert found.alignment == "same"


def test_the_rounding_of_a_quaternion_is_noted(align):
    turned = AFFINE.copy()
    c, s = np.cos(1.5e-3), np.sin(1.5e-3)
    turned[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ AFFINE[:3, :3]
    shape = (300, 4, 2)
    labels = np.zeros(shape, np.uint8)
    labels[100:200] = 1
    found, reference = align(labels, turned, reference=labels)
    assert np.array_equal(found.array, reference.array)
    (note,) = found.notes
    assert "quaternion in float32" in note


# --- files that do not say where they lie ---


@pytest.mark.parametrize("resample", [False, True])
@pytest.mark.parametrize(("affine", "onto"), [(None, AFFINE), (AFFINE, None), (None, None)])
def test_a_file_without_orientation_pairs_by_shape_and_spacing(align, affine, onto, resample):
    found, reference = align(BOX, affine, onto=onto, resample=resample)
    assert np.array_equal(found.array, reference.array)
    assert found.alignment == "same"
    assert any("taken to lie alike" in note for note in found.notes) is ((affine is None) != (onto is None))
    assert ("the header states no position or orientation" in found.notes) is (affine is None)


@pytest.mark.parametrize("resample", [False, True])
@pytest.mark.parametrize(("affine", "onto", "bare"), [(None, AFFINE, "pred"), (AFFINE, None, "ref")])
def test_a_position_that_is_not_stated_is_never_resampled_by(align, affine, onto, bare, resample):
    with pytest.raises(GeometryError) as caught:
        align(BOX[:-1], affine, onto=onto, resample=resample)
    message = str(caught.value)
    assert "pred.nii: the shapes differ: (12, 10, 8) and (11, 10, 8)\n" in message
    assert f"{bare}.nii states no position or orientation by which to turn or resample" in message
    stated = ["orientation", "none", "LPS"] if bare == "ref" else ["orientation", "LPS", "none"]
    assert stated in [line.split() for line in message.splitlines()]


# --- resampling ---


def test_without_being_asked_another_place_is_refused(align):
    with pytest.raises(
        GeometryError, match=r"the origins differ by \(5, 0, 0\) mm .*corners differ by up to 6.25 voxels"
    ):
        align(BOX, moved(5, 0, 0))


@pytest.mark.parametrize(
    ("voxels", "note"),
    [
        (1, "resampled; 100 % of its foreground lies on the reference"),
        (3, "resampled; 75 % of its foreground lies on the reference"),
        (4, "resampled; 50 % of its foreground lies on the reference"),
        (
            5,
            "warning: resampled; 25 % of its foreground lies on the reference, and the rest is outside; do the two "
            "belong together?",
        ),
    ],
)
def test_the_share_of_the_foreground_on_the_reference_is_said(align, voxels, note):
    found, reference = align(BOX, moved(0.8 * voxels, 0, 0), resample=True)
    assert found.alignment == "resampled"
    assert found.notes == (note,)
    expected = np.roll(BOX, -voxels, axis=0)
    expected[12 - voxels :] = 0
    assert np.array_equal(found.array, reference.geometry.to_array(expected))


@pytest.mark.parametrize("affine", [moved(500, 0, 0), moved(0, 0, -60), np.eye(4)])
def test_a_prediction_wholly_outside_is_refused(align, affine):
    with pytest.raises(GeometryError, match=r"pred.nii: no part of its foreground lies on the reference .*ref.nii"):
        align(BOX, affine, resample=True)


def test_a_prediction_without_foreground_is_judged_by_its_grid(align):
    nothing = np.zeros(SHAPE, np.uint8)
    found, _ = align(nothing, moved(0.8 * 6, 0, 0), resample=True)
    assert found.notes == ("resampled; 50 % of its grid lies on the reference",)
    with pytest.raises(GeometryError, match="no part of its grid lies on the reference"):
        align(nothing, moved(500, 0, 0), resample=True)


def test_ignored_voxels_are_no_foreground(align):
    ignoring = make_classes((0, 1), ignore=2)
    ring = np.where(BOX == 2, 2, 0).astype(np.uint8)
    ring[2, 3, 2] = 1
    found, _ = align(ring, moved(0.8 * 2, 0, 0), reference=np.full(SHAPE, 2, np.uint8), classes=ignoring, resample=True)
    assert found.notes == ("resampled; 100 % of its foreground lies on the reference",)


def test_the_ignored_label_where_the_reference_has_a_class_is_refused(align):
    with pytest.raises(VolumeError, match="8 voxels hold the ignored label 2 where the reference has a class"):
        align(BOX, reference=np.ones(SHAPE, np.uint8), classes=make_classes((0, 1), ignore=2))
