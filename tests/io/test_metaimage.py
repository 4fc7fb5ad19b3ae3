import zlib

import numpy as np
import pytest
import SimpleITK as sitk
from byhand import metaimage
from volumes import some_labels

from rwtool.errors import RwtoolError, UsageError, VolumeError
from rwtool.io.formats import read_header, read_image_channels, read_labels
from rwtool.io.metaimage import describe_meta
from rwtool.io.names import file_hash

LABELS = some_labels((6, 5, 4))


def voxels(path, **more):
    volume = read_labels(path, **more)
    return volume.geometry.to_file(volume.array)


def test_the_header_is_what_it_says(tmp_path):
    path = metaimage(tmp_path / "a.mha", LABELS, Offset="10 -20 30", TransformMatrix="0 1 0 -1 0 0 0 0 1")
    raster = describe_meta(path)
    assert (raster.file_shape, raster.channel_axis, raster.placed, raster.encoding) == ((6, 5, 4), None, True, "raw")
    # a row of the matrix is the direction of an axis: i runs along y, j against x
    assert raster.affine.tolist() == [[0, -0.9, 0, 10], [0.5, 0, 0, -20], [0, 0, 3, 30], [0, 0, 0, 1]]


@pytest.mark.parametrize("spell", [str.lower, str.upper, str.swapcase, str])
def test_keys_count_in_any_case(tmp_path, spell):
    path = metaimage(tmp_path / "a.mha", LABELS)
    head, _, rest = path.read_bytes().partition(b"LOCAL\n")
    lines = [line.split(" = ") for line in (head.decode() + "LOCAL").splitlines()]
    path.write_bytes("\n".join(f"{spell(key)} = {value}" for key, value in lines).encode() + b"\n" + rest)
    assert read_labels(path).spacing_mm == (3, 0.9, 0.5)
    assert (voxels(path) == LABELS).all()


@pytest.mark.parametrize("size", [{}, {"CompressedDataSize": "3"}, {"CompressedDataSize": "99999"}])
@pytest.mark.parametrize("pack", [zlib.compress, lambda data: zlib.compress(data, 9)])
def test_packed_voxels_are_read_whatever_their_size_is_said_to_be(tmp_path, size, pack):
    path = metaimage(tmp_path / "a.mha", LABELS, data=pack(LABELS.tobytes(order="F")), CompressedData="True", **size)
    assert (voxels(path) == LABELS).all()


@pytest.mark.parametrize("cut", [1, 4, 30])
def test_packed_voxels_that_end_early_are_refused(tmp_path, cut):
    data = zlib.compress(LABELS.tobytes(order="F"))[:-cut]
    with pytest.raises(VolumeError, match="its compressed voxels end too early"):
        read_labels(metaimage(tmp_path / "a.mha", LABELS, data=data, CompressedData="True"))


def test_a_packed_stream_with_a_flipped_bit_is_refused(tmp_path):
    data = bytearray(zlib.compress(some_labels((20, 20, 20)).tobytes()))
    data[-500] ^= 0xFF
    path = metaimage(tmp_path / "a.mha", some_labels((20, 20, 20)), data=bytes(data), CompressedData="True")
    with pytest.raises(VolumeError, match=r"cannot be read|ends after"):
        read_labels(path)


@pytest.mark.parametrize("value", ["nan nan nan", "1 1 nan", "unknown", "? ? ?", "0 0 0", "", "inf 1 1"])
@pytest.mark.parametrize("key", ["ElementSpacing", "ElementSize", "ElementSpacng"])
def test_a_spacing_that_is_unknown_misspelt_or_absent_is_asked_for(tmp_path, key, value):
    path = metaimage(tmp_path / "a.mha", LABELS, without=("ElementSpacing",), **{key: value})
    with pytest.raises(UsageError, match=r"the header carries no spacing .*; give spacing_mm=\(z, y, x\)"):
        read_labels(path)
    assert read_labels(path, spacing_mm=(4, 2, 1)).spacing_mm == (4, 2, 1)


def test_a_spacing_beside_one_of_the_file_is_refused(tmp_path):
    with pytest.raises(UsageError, match="this file carries its own spacing"):
        read_labels(metaimage(tmp_path / "a.mha", LABELS), spacing_mm=(4, 2, 1))


def test_element_size_stands_in_for_the_spacing(tmp_path):
    path = metaimage(tmp_path / "a.mha", LABELS, without=("ElementSpacing",), ElementSize="1 2 3")
    assert read_labels(path).spacing_mm == (3, 2, 1)


@pytest.mark.parametrize(("unit", "factor"), [("mm", 1), ("cm", 10), ("um", 0.001)])
def test_lengths_are_converted_to_mm(tmp_path, unit, factor):
    volume = read_labels(metaimage(tmp_path / "a.mha", LABELS, DistanceUnits=unit, Offset="1 2 3"))
    assert volume.spacing_mm == pytest.approx((3 * factor, 0.9 * factor, 0.5 * factor))
    assert volume.geometry.affine_mm[:3, 3] == pytest.approx((-factor, -2 * factor, 3 * factor))
    assert (f"lengths are in {unit} and were converted to mm" in volume.notes) == (unit != "mm")


def test_a_unit_that_is_not_known_is_refused(tmp_path):
    with pytest.raises(VolumeError, match="DistanceUnits = furlong"):
        read_labels(metaimage(tmp_path / "a.mha", LABELS, DistanceUnits="furlong"))


def test_a_file_that_states_no_place_says_so(tmp_path):
    header = read_header(metaimage(tmp_path / "a.mha", LABELS, without=("Offset", "TransformMatrix")))
    assert not header.geometry.placed
    assert header.notes == ("the header states no position or orientation",)


def test_header_size_says_where_the_voxels_begin(tmp_path):
    (tmp_path / "v.raw").write_bytes(b"seven b" + LABELS.tobytes(order="F"))
    for size in ("7", "-1"):
        path = metaimage(tmp_path / "a.mhd", LABELS, ElementDataFile="v.raw", HeaderSize=size)
        assert (voxels(path) == LABELS).all()


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["s0.raw", "s1.raw", "s2.raw", "s3.raw"], "LIST"),
        (["s1.raw", "s2.raw", "s3.raw", "s4.raw"], "s%d.raw 1 4 1"),
        (["s01.raw", "s02.raw", "s03.raw", "s04.raw"], "s%02d.raw 1 4"),
    ],
)
def test_slices_in_files_of_their_own(tmp_path, names, said):
    for k, name in enumerate(names):
        (tmp_path / name).write_bytes(LABELS[:, :, k].tobytes(order="F"))
    path = metaimage(tmp_path / "a.mhd", LABELS, ElementDataFile=said)
    if said == "LIST":
        path.write_text(path.read_text() + "\n".join(names) + "\n")
    assert (voxels(path) == LABELS).all()
    before = file_hash(path)
    (tmp_path / names[-1]).write_bytes(bytes(30))
    assert file_hash(path) != before


def test_big_endian_and_text_voxels(tmp_path):
    wide = LABELS.astype(np.int16) * 300
    path = metaimage(
        tmp_path / "a.mha", wide, data=wide.astype(">i2").tobytes(order="F"), ElementType="MET_SHORT",
        BinaryDataByteOrderMSB="True",
    )  # fmt: skip
    assert (voxels(path) == wide).all()
    words = " ".join(map(str, wide.ravel(order="F"))).encode()
    text = metaimage(tmp_path / "b.mha", wide, data=words, ElementType="MET_SHORT", BinaryData="False")
    assert (voxels(text) == wide).all()
    short = metaimage(
        tmp_path / "c.mha", wide, data=words.rsplit(b" ", 1)[0], ElementType="MET_SHORT", BinaryData="False"
    )
    with pytest.raises(VolumeError, match="the header claims 120 numbers of voxels; the file ends after 119"):
        read_labels(short)


def test_channels_of_a_vector_image(tmp_path):
    image = np.arange(3 * 6 * 5 * 4, dtype=np.uint8).reshape(3, 6, 5, 4)
    path = metaimage(tmp_path / "a.mha", LABELS, data=image.tobytes(order="F"), ElementNumberOfChannels="3")
    found = [volume.geometry.to_file(volume.array) for volume in read_image_channels(path)]
    assert np.array_equal(found, image)
    with pytest.raises(VolumeError, match="found 3 per voxel"):
        read_labels(path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("DimSize", "6 5"), ("DimSize", "6 5 0"), ("DimSize", "6 5 x"), ("DimSize", "6 5 99999999999999999999"),
        ("NDims", "11"), ("NDims", "-1"), ("ElementType", "MET_WORD"), ("ElementNumberOfChannels", "0"),
        ("ElementNumberOfChannels", "-3"), ("Offset", "1 2"), ("Offset", "1 2 nan"), ("TransformMatrix", "1 0 0"),
        ("TransformMatrix", "0 0 0 0 0 0 0 0 0"), ("HeaderSize", "-2"), ("ElementSpacing", "1 1"),
        ("ElementDataFile", "LIST"), ("ElementDataFile", "%d 1 0 1"), ("ElementDataFile", "v%d.raw 1 999999999 1"),
        ("DimSize", "1 1 3000000000"),
    ],
)  # fmt: skip
def test_a_header_that_makes_no_sense_is_refused(tmp_path, field, value):
    with pytest.raises(RwtoolError):
        read_labels(metaimage(tmp_path / "a.mha", LABELS, **{field: value}))


def test_a_field_stated_twice_is_refused(tmp_path):
    with pytest.raises(VolumeError, match=r"'elementspacing' twice, as '0.5 0.9 3' and '1 1 1'"):
        read_labels(metaimage(tmp_path / "a.mha", LABELS, elementspacing="1 1 1"))


def test_surplus_bytes_are_a_note(tmp_path):
    path = metaimage(tmp_path / "a.mha", LABELS, data=LABELS.tobytes(order="F") + bytes(7))
    assert read_labels(path).notes == ("the file holds 7 bytes more than its header says; they are left out",)


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"])
@pytest.mark.parametrize("suffix", [".mha", ".mhd", ".nrrd", ".nhdr"])
@pytest.mark.parametrize("packed", [False, True])
def test_what_simpleitk_writes_is_read_as_simpleitk_reads_it(tmp_path, dtype, suffix, packed):
    image = sitk.GetImageFromArray(some_labels(dtype=dtype))
    image.SetSpacing((1.5, 2, 3.25))
    image.SetOrigin((10, -20, 30))
    image.SetDirection((0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, -1))
    path = tmp_path / f"a{suffix}"
    sitk.WriteImage(image, str(path), packed)
    volume = read_labels(path)
    assert np.array_equal(volume.geometry.to_file(volume.array).T, sitk.GetArrayFromImage(image))
    affine = volume.geometry.affine_mm
    for index in ((0, 0, 0), (5, 4, 3)):
        lps = np.array(image.TransformIndexToPhysicalPoint(index))
        assert affine[:3] @ (*index, 1) == pytest.approx(lps * (-1, -1, 1), abs=1e-4)


@pytest.mark.parametrize("size", ["1", "100"])
def test_a_header_size_within_the_header_would_read_it_as_voxels(tmp_path, size):
    with pytest.raises(
        VolumeError, match=rf"HeaderSize = {size}, which is within the header; the voxels begin at byte 3"
    ):
        read_labels(metaimage(tmp_path / "a.mha", LABELS, HeaderSize=size, Comment="x" * 40))


def test_a_header_size_that_is_right_is_taken(tmp_path):
    path = metaimage(tmp_path / "a.mha", LABELS, HeaderSize="100")
    start = path.read_bytes().index(b"LOCAL\n") + 6
    path.write_bytes(path.read_bytes().replace(b"HeaderSize = 100", f"HeaderSize = {start}".encode()))
    assert (voxels(path) == LABELS).all()
