import bz2

import numpy as np
import pytest
from byhand import nrrd
from volumes import some_labels

from rwtool.errors import RwtoolError, UsageError, VolumeError
from rwtool.io.formats import read_header, read_image_channels, read_labels

LABELS = some_labels((6, 5, 4))
LPS = {"space": "left-posterior-superior", "space_directions": "(0.5,0,0) (0,0.9,0) (0,0,3)", "space_origin": "(1,2,3)"}


def voxels(path, **more):
    volume = read_labels(path, **more)
    return volume.geometry.to_file(volume.array)


@pytest.mark.parametrize("encoding", ["raw", "gzip", "hex"])
def test_voxels_in_each_encoding(tmp_path, encoding):
    assert (voxels(nrrd(tmp_path / "a.nrrd", LABELS, encoding=encoding, **LPS)) == LABELS).all()


def test_voxels_as_text_and_bzip2(tmp_path):
    words = "\n".join(map(str, LABELS.ravel(order="F"))).encode()
    text = nrrd(tmp_path / "a.nrrd", LABELS, **{**LPS, "encoding": "ascii"}, data=words)
    assert (voxels(text) == LABELS).all()
    packed = nrrd(tmp_path / "b.nrrd", LABELS, **{**LPS, "encoding": "bz2"}, data=bz2.compress(LABELS.tobytes("F")))
    assert (voxels(packed) == LABELS).all()


@pytest.mark.parametrize(
    ("space", "signs"),
    [("left-posterior-superior", (-1, -1, 1)), ("RAS", (1, 1, 1)), ("left-anterior-superior", (-1, 1, 1))],
)
def test_spaces_are_turned_to_ras(tmp_path, space, signs):
    geometry = read_header(nrrd(tmp_path / "a.nrrd", LABELS, **{**LPS, "space": space})).geometry
    assert geometry.affine_mm[:3].tolist() == [
        [0.5 * signs[0], 0, 0, signs[0]],
        [0, 0.9 * signs[1], 0, 2 * signs[1]],
        [0, 0, 3 * signs[2], 3 * signs[2]],
    ]
    assert geometry.placed


def test_spacings_alone_state_no_place(tmp_path):
    header = read_header(nrrd(tmp_path / "a.nrrd", LABELS, spacings="0.5 0.9 3"))
    assert header.geometry.spacing_mm == (3, 0.9, 0.5)
    assert not header.geometry.placed


@pytest.mark.parametrize(
    ("unit", "factor"),
    [("mm", 1), ("cm", 10), ("m", 1000), ("microns", 0.001), ("um", 0.001), ("\u00b5m", 0.001), ("nm", 1e-6)],
)
@pytest.mark.parametrize("key", ["space units", "units"])
def test_units_are_converted_to_mm(tmp_path, key, unit, factor):
    stated = {"spacings": "0.5 0.9 3"} if key == "units" else LPS
    path = nrrd(tmp_path / "a.nrrd", LABELS, f'{key}: "{unit}" "{unit}" "{unit}"', **stated)
    volume = read_labels(path)
    assert volume.spacing_mm == pytest.approx((3 * factor, 0.9 * factor, 0.5 * factor))
    assert any("were converted to mm" in note for note in volume.notes) == (factor != 1)


@pytest.mark.parametrize("unit", ["pixel", "furlong"])
def test_units_that_are_no_lengths_are_refused(tmp_path, unit):
    with pytest.raises(VolumeError, match=f"lengths in '{unit}', which rwtool does not know"):
        read_labels(nrrd(tmp_path / "a.nrrd", LABELS, f'space units: "{unit}" "{unit}" "{unit}"', **LPS))


@pytest.mark.parametrize(
    "stated",
    [
        {}, {"spacings": "nan nan nan"}, {"spacings": "1 1 nan"}, {"spacings": "0 0 0"},
        {**LPS, "space_directions": "(1,0,0) (0,1,0) none"}, {**LPS, "space_directions": "none none none"},
        {**LPS, "space_directions": "(1,0,0) (0,1,0) (nan,nan,nan)"},
    ],
)  # fmt: skip
def test_a_spacing_that_is_unknown_or_absent_is_asked_for(tmp_path, stated):
    path = nrrd(tmp_path / "a.nrrd", LABELS, **stated)
    with pytest.raises(UsageError, match=r"the header carries no spacing .*; give spacing_mm=\(z, y, x\)"):
        read_labels(path)
    assert read_labels(path, spacing_mm=(4, 2, 1)).spacing_mm == (4, 2, 1)


def test_an_axis_of_one_voxel_needs_no_spacing(tmp_path):
    path = nrrd(tmp_path / "a.nrrd", LABELS[:, :, :1], **{**LPS, "space_directions": "(0.5,0,0) (0,0.9,0) none"})
    assert read_labels(path).spacing_mm == (1, 0.9, 0.5)


def test_lines_and_bytes_are_skipped(tmp_path):
    (tmp_path / "v.raw").write_bytes(b"one\ntwo\n12345" + LABELS.tobytes(order="F"))
    for skip in ("line skip: 2\nbyte skip: 5", "byte skip: -1"):
        path = nrrd(tmp_path / "a.nhdr", LABELS, skip, "data file: v.raw", data=b"", **LPS)
        assert (voxels(path) == LABELS).all()


@pytest.mark.parametrize("said", ["data file: LIST\ns0\ns1\ns2\ns3", "data file: s%d 0 3 1"])
def test_slices_in_files_of_their_own(tmp_path, said):
    for k in range(4):
        (tmp_path / f"s{k}").write_bytes(LABELS[:, :, k].tobytes(order="F"))
    path = tmp_path / "a.nhdr"
    fields = nrrd(path, LABELS, data=b"", **LPS).read_bytes().rstrip(b"\n")
    path.write_bytes(fields + b"\n" + said.encode() + b"\n")
    assert (voxels(path) == LABELS).all()


def test_segmentation_of_one_layer_and_of_several(tmp_path):
    lines = ["Segment0_ID:=a", "Segment0_Layer:=0", "Segment1_ID:=b", "Segment1_Layer:=1"]
    fields = {**LPS, "kinds": "list domain domain domain", "space_directions": f"none {LPS['space_directions']}"}
    one = nrrd(tmp_path / "a.seg.nrrd", LABELS[None], *lines, **fields)
    assert (voxels(one) == LABELS).all()
    two = nrrd(tmp_path / "b.seg.nrrd", np.stack([LABELS, LABELS]), *lines, **fields)
    with pytest.raises(VolumeError, match="it is a 3D Slicer segmentation of 2 layers, whose segments may overlap"):
        read_labels(two)


@pytest.mark.parametrize("axis", [0, 3])
def test_channels_of_a_4d_image_stand_first_or_last(tmp_path, axis):
    image = np.arange(2 * 6 * 5 * 4, dtype=np.int16).reshape(2, 6, 5, 4)
    kinds = ["domain"] * 3
    kinds.insert(axis, "list")
    directions = LPS["space_directions"].split()
    directions.insert(axis, "none")
    fields = {**LPS, "kinds": " ".join(kinds), "space_directions": " ".join(directions)}
    path = nrrd(tmp_path / "a.nrrd", np.moveaxis(image, 0, axis), **fields)
    found = list(read_image_channels(path))
    assert np.array_equal([volume.geometry.to_file(volume.array) for volume in found], image)
    assert found[0].spacing_mm == (3, 0.9, 0.5)
    with pytest.raises(VolumeError, match="found 2 per voxel"):
        read_labels(path)


@pytest.mark.parametrize(
    "fields",
    [
        {"sizes": "6 5"}, {"sizes": "6 5 0"}, {"sizes": "6 5 x"}, {"sizes": "6 5 99999999999999999999"},
        {"dimension": "9"}, {"dimension": "-3"}, {"type": "block"}, {"encoding": "zip"}, {"byte_skip": "-2"},
        {"space_directions": "(1,0,0)"}, {"type": "uint16"}, {"line_skip": "x"},
    ],
)  # fmt: skip
def test_a_header_that_makes_no_sense_is_refused(tmp_path, fields):
    path = tmp_path / "a.nrrd"
    nrrd(path, LABELS, **LPS)
    lines = path.read_bytes().partition(b"\n\n")[0].decode().split("\n")
    names = [key.replace("_", " ") for key in fields]
    kept = [line for line in lines if line.split(":")[0] not in names]
    added = [f"{name}: {value}" for name, value in zip(names, fields.values(), strict=True)]
    path.write_bytes("\n".join([*kept, *added]).encode() + b"\n\n" + LABELS.tobytes(order="F"))
    with pytest.raises(RwtoolError):
        read_labels(path)


@pytest.mark.parametrize("cut", [1, 8, 20])
def test_a_gzip_stream_is_checked_to_its_end(tmp_path, cut):
    path = nrrd(tmp_path / "a.nrrd", LABELS, encoding="gzip", **LPS)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(VolumeError, match="cannot be read"):
        read_labels(path)
