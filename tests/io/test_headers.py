import os

import pytest
from byhand import metaimage, nrrd
from volumes import some_labels

from rwtool.errors import VolumeError
from rwtool.io.formats import read_labels
from rwtool.io.headers import read_meta_header, read_nrrd_header
from rwtool.io.names import file_hash

LABELS = some_labels((6, 5, 4))


def detached(kind, folder, name):
    if kind == "meta":
        return metaimage(folder / "a.mhd", LABELS, ElementDataFile=name)
    return nrrd(folder / "a.nhdr", LABELS, spacings="1 1 1", data_file=name, data=b"")


every_kind = pytest.mark.parametrize("kind", ["meta", "nrrd"])


@every_kind
@pytest.mark.parametrize("name", ["/dev/zero", "../out.raw", "in/../../out.raw", "/tmp/out.raw"])
@pytest.mark.parametrize("do", [read_labels, file_hash])
def test_a_path_out_of_the_folder_is_not_followed(tmp_path, kind, name, do):
    folder = tmp_path / "folder"
    (folder / "in").mkdir(parents=True)
    (tmp_path / "out.raw").write_bytes(LABELS.tobytes(order="F"))
    with pytest.raises(VolumeError, match="outside its folder, where rwtool does not follow"):
        do(detached(kind, folder, name))


@every_kind
def test_a_link_out_of_the_folder_is_not_followed(tmp_path, kind):
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "out.raw").write_bytes(LABELS.tobytes(order="F"))
    (folder / "v.raw").symlink_to(tmp_path / "out.raw")
    with pytest.raises(VolumeError, match="a link out of its folder"):
        read_labels(detached(kind, folder, "v.raw"))


@every_kind
def test_a_pipe_and_a_folder_are_no_voxels(tmp_path, kind):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(VolumeError, match=f"the voxels are in {name}, which is no regular file"):
            read_labels(detached(kind, tmp_path, name))


@every_kind
def test_a_file_that_is_not_there_is_named(tmp_path, kind):
    with pytest.raises(VolumeError, match=r"its voxels are in v\.raw, which is not there"):
        read_labels(detached(kind, tmp_path, "v.raw"))


@every_kind
def test_a_name_with_control_characters_is_none(tmp_path, kind):
    with pytest.raises(VolumeError, match=r"'v\\x00.raw', which is no name of a file"):
        read_labels(detached(kind, tmp_path, "v\0.raw"))


@every_kind
def test_a_file_in_a_folder_below_is_read(tmp_path, kind):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "v.raw").write_bytes(LABELS.tobytes(order="F"))
    volume = read_labels(detached(kind, tmp_path, "in/v.raw"))
    assert (volume.geometry.to_file(volume.array) == LABELS).all()


def test_a_pipe_in_place_of_a_volume_is_refused(tmp_path):
    os.mkfifo(tmp_path / "a.nii")
    with pytest.raises(VolumeError, match=r"a\.nii: it is no regular file"):
        read_labels(tmp_path / "a.nii")


def test_long_headers_are_read_to_their_end(tmp_path):
    lines = [f"Segment{k}_Name:={'x' * 500}" for k in range(1000)]
    path = nrrd(tmp_path / "a.nrrd", LABELS, *lines, spacings="1 1 1")
    header = read_nrrd_header(path)
    assert path.read_bytes()[header.end :] == LABELS.tobytes(order="F")
    assert (header.fields[":segment999_name"], header.fields["sizes"]) == ("x" * 500, "6 5 4")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_end_either_way(tmp_path, end):
    path = tmp_path / "a.mha"
    path.write_bytes(f"NDims = 3{end}DimSize = 1 1 1{end}ElementDataFile = LOCAL{end}".encode() + b"\1")
    assert read_meta_header(path).fields == {"ndims": "3", "dimsize": "1 1 1", "elementdatafile": "LOCAL"}
    assert path.read_bytes()[read_meta_header(path).end :] == b"\1"


@pytest.mark.parametrize(
    ("pattern", "first"), [("%d%%s%02d", "%d%%s01"), ("a%s%n%3d.raw", "a%s%n  1.raw"), ("%d%d", "%d1")]
)
def test_only_the_last_number_of_a_pattern_is_one(tmp_path, pattern, first):
    path = metaimage(tmp_path / "a.mhd", LABELS[:, :, :1], ElementDataFile=f"{pattern} 1 1 1")
    (tmp_path / first).write_bytes(LABELS[:, :, :1].tobytes(order="F"))
    volume = read_labels(path)
    assert (volume.geometry.to_file(volume.array) == LABELS[:, :, :1]).all()


@pytest.mark.parametrize("size", ["9" * 30, "9" * 6000])
def test_numbers_without_an_end_are_no_range(tmp_path, size):
    for name in (f"a%d.raw 1 {size} 1", f"a%d.raw 1 {size[:18]} 1", "a%d.raw 1"):
        with pytest.raises(VolumeError):
            file_hash(metaimage(tmp_path / "a.mhd", LABELS, ElementDataFile=name, DimSize=f"6 5 {size}"))
