import gzip
import struct

import nibabel as nib
import numpy as np
import pytest
from volumes import SPACED, oblique, some_labels, volume_of

from rwtool.errors import GeometryError, VolumeError
from rwtool.io.formats import carries_spacing, read_channels, read_header, read_image, read_labels
from rwtool.io.geometry import NoSpacingError
from rwtool.io.write import write


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(("sform", "qform"), [(1, 0), (0, 1), (2, 1), (4, 4), (1, 3)])
@pytest.mark.parametrize("kind", [nib.Nifti1Header, nib.Nifti2Header])
def test_nifti_round_trip_keeps_codes_and_version(write_nifti, tmp_path, suffix, sform, qform, kind):
    path = write_nifti(some_labels(), oblique(), kind=kind, sform_code=sform, qform_code=qform)
    image = nib.load(path, mmap=False)
    image.get_fdata()
    image.set_qform(oblique(), qform)
    image.set_sform(oblique(), sform)
    nib.save(image, path)
    write(tmp_path / f"out{suffix}", read_labels(path))
    before, after = nib.load(path), nib.load(tmp_path / f"out{suffix}")
    for name in ("sform_code", "qform_code", "xyzt_units", "sizeof_hdr", "dim"):
        assert np.array_equal(after.header[name], before.header[name]), name
    assert np.array_equal(after.affine, before.affine)
    assert np.array_equal(after.header["pixdim"], before.header["pixdim"])
    assert np.array_equal(np.asarray(after.dataobj), some_labels())


def test_round_trip_drops_extensions_and_keeps_the_time_step(tmp_path):
    image = nib.Nifti1Image(some_labels((4, 5, 6, 1)), SPACED)
    image.header["pixdim"][4] = 2.5
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"x" * 100))
    nib.save(image, tmp_path / "a.nii")
    assert nib.load(tmp_path / "a.nii").dataobj.offset > 352
    write(tmp_path / "b.nii", read_labels(tmp_path / "a.nii"))
    after = nib.load(tmp_path / "b.nii")
    assert np.array_equal(np.asarray(after.dataobj), some_labels((4, 5, 6, 1)))
    assert after.header["pixdim"][4] == 2.5
    assert after.header.extensions == []


@pytest.mark.parametrize(("unit", "factor", "name"), [(1, 1000, "metres"), (3, 0.001, "microns")])
def test_units_become_mm_and_survive_a_round_trip(write_nifti, tmp_path, unit, factor, name):
    affine = np.diag([*(np.array([0.5, 0.9, 3.0]) / factor), 1])
    affine[:3, 3] = np.array([7, 8, 9]) / factor
    path = write_nifti(some_labels(), affine, xyzt_units=unit)
    found = read_labels(path)
    assert found.spacing_mm == pytest.approx((3, 0.9, 0.5), rel=1e-6)
    assert found.geometry.affine_mm[:3, 3] == pytest.approx((7, 8, 9), rel=1e-6)
    assert found.notes == (f"lengths are in {name} and were converted to mm",)
    write(tmp_path / "out.nii", found)
    assert nib.load(tmp_path / "out.nii").header["xyzt_units"] == unit
    assert read_labels(tmp_path / "out.nii").spacing_mm == found.spacing_mm


@pytest.mark.parametrize("unit", [0, 2, 8 | 2])
def test_mm_and_unknown_units_are_mm(write_nifti, unit):
    assert read_labels(write_nifti(some_labels(), SPACED, xyzt_units=unit)).notes == ()


def test_pixdim_that_disagrees_is_noted_and_the_affine_wins(write_nifti):
    found = read_labels(write_nifti(some_labels(), SPACED, sform_code=1, pixdim=[1, 0.5, 0.9, 3.04, 0, 0, 0, 0]))
    assert found.spacing_mm == pytest.approx((3, 0.9, 0.5))
    assert found.notes == (
        "pixdim says 0.5 x 0.9 x 3.04, the affine 0.5 x 0.9 x 3 along the file's axes; the affine is used",
    )


def test_pixdim_within_a_percent_is_not_noted(write_nifti):
    assert read_labels(write_nifti(some_labels(), SPACED, pixdim=[1, 0.5, 0.9, 3.02, 0, 0, 0, 0])).notes == ()


def test_pixdim_of_a_singleton_axis_says_nothing(write_nifti, capfd):
    found = read_labels(write_nifti(some_labels((4, 5, 1)), SPACED, pixdim=[1, 0.5, 0.9, 0, 0, 0, 0, 0]))
    assert found.notes == ()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("qform", [0, 1])
@pytest.mark.parametrize("bad", [0, np.nan, np.inf])
def test_pixdim_without_a_size_is_not_taken_for_1_mm(write_nifti, tmp_path, qform, bad, capfd):
    path = write_nifti(some_labels(), sform_code=0, qform_code=qform, pixdim=[1, 0.5, bad, 3, 0, 0, 0, 0])
    with pytest.raises(NoSpacingError, match=rf"pixdim carries no spacing \(found 0.5 x {bad} x 3\); give spacing_mm="):
        read_labels(path)
    assert not carries_spacing(path)
    found = read_labels(path, spacing_mm=(3, 2, 1))
    assert found.spacing_mm == (3, 2, 1)
    assert (found.geometry.placed, found.geometry.spaced) == (False, False)
    write(tmp_path / "out.nii", found)
    assert nib.load(tmp_path / "out.nii").header.get_zooms() == (1, 2, 3)
    assert read_labels(tmp_path / "out.nii").spacing_mm == (3, 2, 1)
    assert capfd.readouterr().err == ""


def test_a_negative_pixdim_is_a_size_all_the_same(write_nifti):
    path = write_nifti(some_labels(), sform_code=0, qform_code=0, pixdim=[1, -0.5, 0.9, 3, 0, 0, 0, 0])
    assert read_labels(path).spacing_mm == pytest.approx((3, 0.9, 0.5))


@pytest.mark.parametrize("code", [4, 5, 7])
def test_a_unit_that_nifti_does_not_define_is_refused(write_nifti, code):
    with pytest.raises(GeometryError, match=f"xyzt_units gives lengths the code {code}, which NIfTI does not define"):
        read_labels(write_nifti(some_labels(), SPACED, xyzt_units=code))


# --- which form holds ---


def test_header_without_codes_has_the_spacing_of_pixdim_and_no_place(write_nifti, tmp_path):
    path = write_nifti(some_labels(), sform_code=0, qform_code=0, pixdim=[1, 0.5, 0.9, 3, 0, 0, 0, 0])
    found = read_labels(path)
    assert found.spacing_mm == pytest.approx((3, 0.9, 0.5))
    assert (found.geometry.placed, found.geometry.spaced) == (False, True)
    assert found.notes == ("the header states no position or orientation",)
    write(tmp_path / "out.nii", found)
    assert not read_labels(tmp_path / "out.nii").geometry.placed


def shifted(affine):
    result = affine.copy()
    result[:3, 3] += 5
    return result


def with_forms(tmp_path, sform, qform, **fields):
    """A file whose two forms say different things."""
    image = nib.Nifti1Image(some_labels(), None)
    image.header.set_qform(qform, 1)
    image.header.set_sform(sform, 1)
    for name, value in fields.items():
        image.header[name] = value
    header = image.header
    header["vox_offset"] = 352
    (tmp_path / "a.nii").write_bytes(header.binaryblock + bytes(4) + some_labels().tobytes(order="F"))
    return tmp_path / "a.nii"


@pytest.mark.parametrize(
    ("fields", "form", "note"),
    [
        ({}, "sform", ()),
        ({"sform_code": 0}, "qform", ()),
        ({"sform_code": -1}, "qform", ()),
        ({"srow_x": [np.nan, 0, 0, 0]}, "qform", ("the sform is stated, and is no grid",)),
        ({"srow_x": [np.inf, 0, 0, 0]}, "qform", ("the sform is stated, and is no grid",)),
        ({"srow_x": [0, 0, 0, 0], "srow_y": [0, 0, 0, 0], "srow_z": [0, 0, 0, 0]}, "qform", ("the sform is stated",)),
        ({"srow_x": [1, 1, 0, 0], "srow_y": [1, 1, 0, 0]}, "qform", ("the sform is stated",)),
        ({"quatern_b": np.nan}, "sform", ()),
        ({"sform_code": 9}, "sform", ("sform_code is 9, which NIfTI does not define; the sform is used",)),
        ({"sform_code": 0, "quatern_b": np.nan}, None, ("the qform is stated, and", "the header states no position")),
        ({"sform_code": 0, "quatern_b": 2}, None, ("the qform is stated, and", "the header states no position")),
        ({"sform_code": 0, "qoffset_x": np.inf}, None, ("the qform is stated, and", "the header states no position")),
    ],
)
def test_the_sform_holds_else_the_qform_and_a_damaged_one_gives_way(tmp_path, fields, form, note):
    found = read_labels(with_forms(tmp_path, oblique(), shifted(oblique()), **fields))
    assert found.geometry.placed is (form is not None)
    assert found.spacing_mm == pytest.approx((3, 0.9, 0.5), rel=1e-6)
    if form is not None:
        expected = {"sform": oblique(), "qform": shifted(oblique())}[form]
        assert found.geometry.affine_mm == pytest.approx(expected, abs=1e-5)
    assert len(found.notes) == len(note)
    assert all(said.startswith(start) for said, start in zip(found.notes, note, strict=True))


@pytest.mark.parametrize("qfac", [1, -1, 0, -2.5])
def test_the_qform_is_that_of_nibabel(tmp_path, qfac):
    path = with_forms(tmp_path, oblique(), shifted(oblique()), sform_code=0)
    header = nib.load(path).header
    header["pixdim"][0] = qfac
    path.write_bytes(header.binaryblock + path.read_bytes()[348:])
    header["pixdim"][0] = -1 if qfac < 0 else 1
    assert read_labels(path).geometry.affine_mm == pytest.approx(header.get_qform(), abs=1e-12)


def test_a_quaternion_longer_than_1_by_rounding_is_one(tmp_path):
    half_turn = {"quatern_b": 0.70710684, "quatern_c": 0.70710684, "quatern_d": 0}
    path = with_forms(tmp_path, SPACED, SPACED, sform_code=0, **half_turn)
    found = read_labels(path)
    assert found.notes == ()
    expected = np.array([[0, 0.9, 0], [0.5, 0, 0], [0, 0, -3]])
    assert found.geometry.affine_mm[:3, :3] == pytest.approx(expected, abs=1e-6)


# --- pairs of files ---


@pytest.mark.parametrize("suffix", [".hdr", ".img"])
@pytest.mark.parametrize("kind", [nib.Nifti1Pair, nib.Nifti2Pair])
def test_a_pair_is_read_by_the_form_that_a_single_file_is_read_by(tmp_path, kind, suffix):
    single, pair = nib.Nifti1Image(some_labels(), SPACED), kind(some_labels(), SPACED)
    for image in (single, pair):
        image.header.set_qform(oblique(), 1)
        image.header.set_sform(shifted(oblique()), 2)
    nib.save(single, tmp_path / "one.nii")
    nib.save(pair, tmp_path / "two.img")
    a, b = read_labels(tmp_path / "one.nii"), read_labels(tmp_path / f"two{suffix}")
    assert np.array_equal(a.array, b.array)
    assert b.geometry.affine_mm == pytest.approx(a.geometry.affine_mm, abs=1e-6)
    assert a.notes == b.notes


def test_voxels_of_a_pair_may_begin_later(tmp_path):
    nib.save(nib.Nifti1Pair(some_labels(), SPACED), tmp_path / "a.img")
    header = nib.nifti1.Nifti1PairHeader(bytes((tmp_path / "a.hdr").read_bytes()[:348]))
    header["vox_offset"] = 3
    (tmp_path / "a.hdr").write_bytes(header.binaryblock)
    (tmp_path / "a.img").write_bytes(b"xyz" + (tmp_path / "a.img").read_bytes())
    assert np.array_equal(read_labels(tmp_path / "a.img").array, some_labels().transpose(2, 1, 0))
    (tmp_path / "a.img").write_bytes((tmp_path / "a.img").read_bytes()[:-1])
    with pytest.raises(VolumeError, match="truncated"):
        read_labels(tmp_path / "a.img")


# --- where the voxels are ---


def at_offset(path, offset, packed, extra=b""):
    """Rewrite a NIfTI file with another vox_offset; its voxels stay where they are."""
    raw = bytearray(path.read_bytes())
    two = int.from_bytes(raw[:4], "little") == 540
    struct.pack_into(*(("<q", raw, 168, int(offset)) if two else ("<f", raw, 108, offset)))
    target = path.with_name("moved.nii.gz" if packed else "moved.nii")
    target.write_bytes(gzip.compress(bytes(raw) + extra) if packed else bytes(raw) + extra)
    return target


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", [nib.Nifti1Header, nib.Nifti2Header])
def test_an_offset_of_0_stands_for_the_least_of_a_single_file(write_nifti, kind, packed):
    path = at_offset(write_nifti(some_labels(), SPACED, kind=kind), 0, packed)
    found = read_labels(path)
    assert np.array_equal(found.array, some_labels().transpose(2, 1, 0))
    assert found.notes == ()


@pytest.mark.parametrize("packed", [False, True])
def test_an_offset_of_0_is_refused_where_the_voxels_may_be_elsewhere(write_nifti, packed):
    path = at_offset(write_nifti(some_labels(), SPACED), 0, packed, extra=bytes(16))
    with pytest.raises(VolumeError, match=r"vox_offset is 0, which stands for byte 352 .*16 bytes before"):
        read_labels(path)


@pytest.mark.parametrize("packed", [False, True])
def test_an_offset_of_0_holds_for_channels_too(write_nifti, packed):
    stored = some_labels((4, 5, 6, 2))
    path = at_offset(write_nifti(stored, SPACED), 0, packed)
    channels = [volume.array for volume in read_channels(path)]
    assert np.array_equal(channels, stored.transpose(3, 2, 1, 0))
    with pytest.raises(VolumeError, match="vox_offset is 0"):
        list(read_channels(at_offset(path.with_name("case.nii"), 0, packed, extra=bytes(4))))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("offset", [1, 348, 351, -352, 352.5, np.nan, np.inf, -np.inf])
def test_an_offset_within_the_header_or_of_no_byte_is_refused(write_nifti, offset, packed):
    path = at_offset(write_nifti(some_labels(), SPACED), offset, packed)
    with pytest.raises(VolumeError, match=r"its vox_offset is .*; the voxels begin at a whole byte from 352 on"):
        read_labels(path)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("offset", [353, 1e9, 1e30])
def test_an_offset_beyond_the_end_is_refused(write_nifti, offset, packed):
    path = at_offset(write_nifti(some_labels(), SPACED), offset, packed)
    with pytest.raises(VolumeError, match=r"(truncated|ends after|ends too early|damaged)"):
        read_labels(path)


@pytest.mark.parametrize("offset", [0, 543, -1])
def test_the_least_offset_of_nifti_2_is_544(write_nifti, offset):
    path = at_offset(write_nifti(some_labels(), SPACED, kind=nib.Nifti2Header), offset, False)
    if offset:
        with pytest.raises(VolumeError, match="from 544 on"):
            read_labels(path)
    else:
        assert np.array_equal(read_labels(path).array, some_labels().transpose(2, 1, 0))


@pytest.mark.parametrize("packed", [False, True])
def test_more_voxels_than_the_header_says_are_noted(write_nifti, packed):
    path = at_offset(write_nifti(some_labels(), SPACED), 352, packed, extra=bytes(20))
    found = read_labels(path)
    assert np.array_equal(found.array, some_labels().transpose(2, 1, 0))
    assert found.notes == ("the file holds 20 bytes more than its header says; they are left out",)


def test_extensions_are_passed_over(tmp_path):
    image = nib.Nifti1Image(some_labels(), SPACED)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"x" * 1000))
    for name in ("a.nii", "a.nii.gz"):
        nib.save(image, tmp_path / name)
        found = read_labels(tmp_path / name)
        assert np.array_equal(found.array, some_labels().transpose(2, 1, 0))
        assert found.notes == ()


def with_shear(cosine):
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    affine[:3, 1] = 3 * np.array([cosine, np.sqrt(1 - cosine**2), 0])
    return affine


def test_shear_is_refused_with_the_file_named(write_nifti):
    path = write_nifti(some_labels(), with_shear(0.02), sform_code=2)
    with pytest.raises(GeometryError) as caught:
        read_labels(path)
    assert str(caught.value).startswith(f"{path}: the affine is sheared: file axes 0 and 1 have |cos| = 0.0200")


def test_slight_shear_is_a_note_and_oblique_is_none(write_nifti):
    sheared = write_nifti(some_labels(), with_shear(0.005), sform_code=2)
    assert read_labels(sheared).notes == ("the affine is slightly sheared (|cos| = 0.0050)",)
    assert read_labels(write_nifti(some_labels(), oblique())).notes == ()


@pytest.mark.parametrize("endianness", ["<", ">"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32, np.float64])
@pytest.mark.parametrize("kind", [nib.Nifti1Header, nib.Nifti2Header])
def test_either_byte_order_gives_native_labels(write_nifti, tmp_path, endianness, dtype, kind):
    path = write_nifti(some_labels(dtype=dtype), SPACED, kind=kind, endianness=endianness)
    found = read_labels(path)
    assert np.array_equal(found.array, some_labels().transpose(2, 1, 0))
    assert found.array.dtype.isnative
    assert found.spacing_mm == pytest.approx((3, 0.9, 0.5))
    assert np.array_equal(read_image(path).array, found.array)
    write(tmp_path / "out.nii", found)
    assert np.array_equal(np.asarray(nib.load(tmp_path / "out.nii").dataobj), some_labels())


def test_scaling_is_applied_to_labels_and_images_and_not_written_again(write_nifti, tmp_path):
    path = write_nifti(some_labels(dtype=np.int16), scl_slope=2, scl_inter=1)
    assert np.array_equal(read_labels(path).array, 2 * some_labels().transpose(2, 1, 0) + 1)
    image = read_image(path)
    assert np.array_equal(image.array, 2 * some_labels().transpose(2, 1, 0) + 1)
    write(tmp_path / "out.nii", image)
    assert np.array_equal(read_image(tmp_path / "out.nii").array, image.array)


@pytest.mark.parametrize("slope", [0, np.nan])
def test_slope_that_means_none_is_1(write_nifti, slope):
    path = write_nifti(some_labels(dtype=np.int16), scl_slope=slope, scl_inter=3)
    assert np.array_equal(read_labels(path).array, some_labels().transpose(2, 1, 0))


@pytest.mark.parametrize(("slope", "inter"), [(np.inf, 0), (-np.inf, 0), (2, np.nan), (2, np.inf)])
def test_a_scaling_that_is_no_number_is_refused(write_nifti, slope, inter):
    path = write_nifti(some_labels(dtype=np.int16), scl_slope=slope, scl_inter=inter)
    with pytest.raises(VolumeError, match=f"its scaling is no number: scl_slope is {slope}, scl_inter {inter}"):
        read_labels(path)


def test_a_scaling_beyond_float32_is_refused(write_nifti):
    path = write_nifti(some_labels(dtype=np.int16), kind=nib.Nifti2Header, scl_slope=1e300, scl_inter=0)
    with pytest.raises(VolumeError, match=r"its scaling is no number: scl_slope is 1e\+300"):
        read_image(path)


def test_a_scaling_too_coarse_for_whole_numbers_is_named(write_nifti):
    truth = np.arange(120).reshape((4, 5, 6), order="F") % 8
    path = write_nifti(np.rint(truth / (7 / 255)).astype(np.uint8), scl_slope=7 / 255, scl_inter=0)
    with pytest.raises(VolumeError) as caught:
        read_labels(path)
    assert "found 0.988235302 at file voxel (1, 0, 0), where 36 is stored: the header's scaling (scl_slope " in str(
        caught.value
    )
    assert "is too coarse for whole numbers; save the labels as integers without a scaling" in str(caught.value)


def test_scaled_fractions_are_refused(write_nifti):
    path = write_nifti(some_labels(dtype=np.int16), scl_slope=0.3, scl_inter=0)
    with pytest.raises(VolumeError, match=r"case.nii: labels are integers from 0 up .*; found (0.3|0.6|0.9|1.2)"):
        read_labels(path)


def test_colour_and_complex_nifti_is_refused(tmp_path):
    colour = np.zeros((4, 5, 6), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    for name, array, words in (
        ("colour.nii", colour, r"colours \(RGB\)"),
        ("complex.nii", np.zeros((4, 5, 6), dtype=np.complex64), "complex numbers"),
    ):
        nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / name)
        for read in (read_labels, read_image, read_header):
            with pytest.raises(VolumeError, match=f"expected one number per voxel; found {words}, the NIfTI datatype"):
                read(tmp_path / name)


@pytest.mark.parametrize("size", [1, 4, 347, 348, 351, 352, -1])
def test_truncated_nii_is_refused(write_nifti, size):
    path = write_nifti(some_labels())
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(VolumeError, match=rf"^{path}: .*(not a NIfTI file|ends within its header|truncated)"):
        read_labels(path)


def test_header_of_a_pair_under_a_nii_name_is_named(write_nifti):
    path = write_nifti(some_labels(), magic=b"ni1")
    with pytest.raises(VolumeError, match=r"header of a \.hdr/\.img pair under a \.nii name"):
        read_labels(path)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (1, "single bits"),
        (1536, "floats of 128 bits"),
        (1792, "complex numbers"),
        (2304, r"colours \(RGBA\)"),
        (0, "no type that NIfTI defines"),
        (999, "no type that NIfTI defines"),
    ],
)
def test_a_type_that_is_no_number_is_named(write_nifti, code, words):
    path = write_nifti(some_labels(), SPACED, datatype=code)
    with pytest.raises(VolumeError, match=f"found {words}, the NIfTI datatype {code}; save one number"):
        read_header(path)


@pytest.mark.parametrize("endianness", ["<", ">"])
@pytest.mark.parametrize("axes", [8, -1, 300])
def test_a_number_of_axes_that_nifti_cannot_have_is_refused(write_nifti, axes, endianness):
    path = write_nifti(some_labels(), SPACED, endianness=endianness, dim=[axes, 4, 5, 6, 1, 1, 1, 1])
    with pytest.raises(VolumeError, match=f"its header claims {axes} axes; a NIfTI has 1 to 7"):
        read_labels(path)


def test_a_first_axis_of_one_voxel_leaves_the_last_without_a_place(write_nifti):
    path = write_nifti(some_labels((1, 4, 5, 6)))
    with pytest.raises(VolumeError, match=r"its shape is \(1, 4, 5, 6\): .*save it without the first axis"):
        read_labels(path)


# --- compressed files ---


def gz_of(tmp_path, labels=None):
    write(tmp_path / "whole.nii.gz", volume_of(some_labels((20, 20, 20)) if labels is None else labels))
    return (tmp_path / "whole.nii.gz").read_bytes()


@pytest.mark.parametrize("cut", [5, 30, 0.3, 0.9, -9, -8, -4, -1])
def test_truncated_gz_is_refused(tmp_path, cut):
    whole = gz_of(tmp_path)
    path = tmp_path / "a.nii.gz"
    path.write_bytes(whole[: int(cut * len(whole)) if isinstance(cut, float) else cut])
    with pytest.raises(VolumeError, match=rf"^{path}: .*(truncated|ends after).*copy it again from its source"):
        read_labels(path)


@pytest.mark.parametrize("at", [-6, -1], ids=["checksum", "length"])
@pytest.mark.parametrize("side", [20, 128, 161], ids=["small", "whole chunks less the header", "chunks"])
def test_gz_with_a_wrong_checksum_or_length_is_refused(tmp_path, at, side):
    broken = bytearray(gz_of(tmp_path, some_labels((side,) * 3)))
    broken[at] ^= 1
    (tmp_path / "a.nii.gz").write_bytes(broken)
    with pytest.raises(VolumeError, match="it is truncated or damaged; copy it again from its source"):
        read_labels(tmp_path / "a.nii.gz")


def test_gz_is_checked_to_its_end_beyond_the_voxels(tmp_path):
    broken = bytearray(gzip.compress(gzip.decompress(gz_of(tmp_path)) + bytes(3_000_000)))
    (tmp_path / "a.nii.gz").write_bytes(broken)
    assert np.array_equal(read_labels(tmp_path / "a.nii.gz").array, read_labels(tmp_path / "whole.nii.gz").array)
    broken[-6] ^= 1
    (tmp_path / "a.nii.gz").write_bytes(broken)
    with pytest.raises(VolumeError, match="it is truncated or damaged"):
        read_labels(tmp_path / "a.nii.gz")


def test_gz_in_several_members_is_fine(tmp_path):
    raw = gzip.decompress(gz_of(tmp_path))
    parts = [raw[start : start + 1000] for start in range(0, len(raw), 1000)]
    (tmp_path / "a.nii.gz").write_bytes(b"".join(map(gzip.compress, parts)))
    assert np.array_equal(read_labels(tmp_path / "a.nii.gz").array, read_labels(tmp_path / "whole.nii.gz").array)


def test_suffix_that_lies_about_gzip_is_named(tmp_path):
    packed = gz_of(tmp_path)
    (tmp_path / "a.nii").write_bytes(packed)
    with pytest.raises(VolumeError, match=r"the file is gzip-compressed.*rename it to end in \.nii\.gz"):
        read_labels(tmp_path / "a.nii")
    (tmp_path / "a.nii.gz").write_bytes(gzip.decompress(packed))
    with pytest.raises(
        VolumeError, match=r"not gzip-compressed.*if it is a NIfTI file, rename it to end in \.nii, else copy"
    ):
        read_labels(tmp_path / "a.nii.gz")
