from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, ornt_transform

import rwtool
from rwtool.io.geometry import unplaced
from rwtool.views.planes import choose_slice, foreground_by_slice, plane_of

RAS = np.random.default_rng(0).permutation(3 * 4 * 5).reshape(3, 4, 5).astype(np.int16)  # every voxel is told apart
CODES = ["".join(pair) for axes in permutations(("RL", "AP", "SI")) for pair in product(*axes)]
EXPECTED = {  # by the spacing that is the odd one: the slices of the RAS array as they are to be seen, and the letters
    2: (lambda n: RAS[::-1, ::-1, n].T, "RLAP"),
    1: (lambda n: RAS[::-1, n, ::-1].T, "RLSI"),
    0: (lambda n: RAS[n, ::-1, ::-1].T, "APSI"),
}


def stored(codes, spacing, tilt=0.0):
    """The RAS array with its axes stored in the order and directions of `codes`."""
    affine = np.diag([*spacing, 1.0])
    cosine, sine = np.cos(tilt), np.sin(tilt)
    affine[:3, :3] = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]]) @ affine[:3, :3]
    return nib.Nifti1Image(RAS, affine).as_reoriented(ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes)))


@pytest.mark.parametrize(("n", "codes"), list(enumerate(CODES)))
def test_slices_are_shown_as_radiologists_do_however_they_are_stored(n, codes, tmp_path):
    spacing, across = [1.0, 1.0, 1.0], n % 3
    spacing[across] = 3.0
    image = stored(codes, spacing, tilt=0.2)
    assert "".join(nib.aff2axcodes(image.affine)) == codes
    image.header.set_sform(image.affine, 1)
    nib.save(image, tmp_path / "a.nii")
    volume = rwtool.read_image(tmp_path / "a.nii")
    plane = plane_of(volume.geometry)
    picture, letters = EXPECTED[across]
    found = [plane.cut(volume.array, z) for z in range(plane.slices)]
    wanted = [picture(index) for index in range(RAS.shape[across])]
    upwards = np.array_equal(found[0], wanted[0])
    np.testing.assert_array_equal(found if upwards else found[::-1], wanted)
    assert plane.left + plane.right + plane.top + plane.bottom == letters
    assert plane.pixel_mm == pytest.approx((1, 1))


def test_pixels_turn_with_their_slice(tmp_path):
    affine = np.array([[0, 2, 0, 0], [-1, 0, 0, 0], [0, 0, 5, 0], [0, 0, 0, 1.0]])  # i to the back, j to the right
    nib.save(nib.Nifti1Image(RAS, affine), tmp_path / "a.nii")
    plane = plane_of(rwtool.read_image(tmp_path / "a.nii", slice_axis=2).geometry)
    assert plane.pixel_mm == (1, 2)
    assert plane.cut(np.zeros((5, 4, 3)), 0).shape == (3, 4)


def test_a_file_that_does_not_say_how_it_lies_is_shown_as_its_array():
    array = RAS.transpose(2, 0, 1)
    plane = plane_of(unplaced((5, 1, 2), (3, 4, 5), (2, 0, 1), (3, 4, 5)))
    np.testing.assert_array_equal(plane.cut(array, 3), array[3])
    assert (plane.left, plane.right, plane.top, plane.bottom, plane.pixel_mm) == ("", "", "", "", (1, 2))


def test_the_slice_with_most_foreground_is_the_first_of_them_or_the_middle_one():
    assert choose_slice(np.array([0, 3, 5, 5]), None, what="a") == 2
    assert choose_slice(np.array([0, 0, 0, 0, 0]), None, what="a") == 2
    assert choose_slice(np.array([0, 3]), 0, what="a") == 0
    with pytest.raises(rwtool.UsageError, match=r"a\.nii has the slices 0 to 1; found slice=2"):
        choose_slice(np.array([0, 3]), 2, what="a.nii")


def test_ignored_voxels_are_no_foreground():
    labels = np.array([[[0, 1, 2]], [[255, 255, 1]], [[0, 0, 0]]], dtype=np.uint8)
    assert foreground_by_slice(labels, 255).tolist() == [2, 1, 0]
    assert foreground_by_slice(labels, None).tolist() == [2, 3, 0]
