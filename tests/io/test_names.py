import gzip
import io
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from byhand import metaimage
from volumes import some_labels, volume_of

from rwtool.errors import VolumeError
from rwtool.io.formats import read_labels
from rwtool.io.names import (
    SUFFIXES,
    case_name,
    channels_name,
    companion,
    drain,
    file_hash,
    gzipped,
    is_bare_array,
    is_nifti,
    label_name,
    may_be_volume,
    parts,
    split_name,
    unchanged,
)
from rwtool.io.write import write


@pytest.mark.parametrize(
    ("name", "case", "suffix"),
    [
        ("a/heart_1.nii.gz", "heart_1", ".nii.gz"), ("A.NII.GZ", "A", ".nii.gz"), ("a.1.nii", "a.1", ".nii"),
        ("a.seg.nrrd", "a", ".seg.nrrd"), ("a.nrrd", "a", ".nrrd"), ("seg.nrrd", "seg", ".nrrd"),
        ("a.IMG.gz", "a", ".img.gz"), ("aparc+aseg.mgz", "aparc+aseg", ".mgz"), ("a", "a", ""), (".nii", ".nii", ""),
        ("a.foo", "a.foo", ""), ("a+orig.HEAD", "a+orig", ".head"), ("a.gz", "a.gz", ""),
        (".nii.gz", ".nii.gz", ""), ("folder.nii/notes.txt", "notes.txt", ""),
    ],
)  # fmt: skip
def test_names_split_into_case_and_suffix(name, case, suffix):
    assert split_name(name) == (case, suffix)
    assert case_name(name) == case


def test_case_names_are_composed(tmp_path):
    assert case_name(unicodedata.normalize("NFD", "h\u00e9.nii")) == "h\u00e9"


@pytest.mark.parametrize(
    ("like", "labels", "channels"),
    [
        ("x.nii.gz", "a.nii.gz", "a.nii.gz"), ("x.npy", "a.npy", "a.npy"), ("x.jpg", "a.png", "a.nii.gz"),
        ("x.dcm", "a.nii.gz", "a.nii.gz"), ("x.img.gz", "a.nii.gz", "a.nii.gz"), ("x.seg.nrrd", "a.nrrd", "a.nii.gz"),
        ("x.mgz", "a.nii.gz", "a.nii.gz"), ("folder", "a.nii.gz", "a.nii.gz"), ("x.mha", "a.mha", "a.nii.gz"),
    ],
)  # fmt: skip
def test_new_files_are_in_a_format_that_holds_them(tmp_path, like, labels, channels):
    assert label_name("a", tmp_path / like) == labels
    assert channels_name("a", tmp_path / like) == channels


def test_what_a_name_says(tmp_path):
    assert [is_bare_array(name) for name in ("a.npy", "a.nii")] == [True, False]
    assert [is_nifti(name) for name in ("a.NII.gz", "a.img")] == [True, False]
    assert [gzipped(tmp_path / name) for name in ("a.mgz", "a.nii.gz", "a.nii")] == [True, True, False]
    assert len(set(SUFFIXES)) == len(SUFFIXES)
    assert all(suffix == suffix.lower() for suffix in SUFFIXES)


@pytest.mark.parametrize(("header", "voxels"), [("a.hdr", "a.img"), ("a.HDR", "a.IMG"), ("a.HEAD", "a.BRIK")])
def test_header_and_voxels_of_one_stem_belong_together(tmp_path, header, voxels):
    for name in (header, voxels):
        (tmp_path / name).write_bytes(name.encode())
    assert companion(tmp_path / header) == tmp_path / voxels
    assert parts(tmp_path / voxels) == parts(tmp_path / header) == [tmp_path / header, tmp_path / voxels]
    assert file_hash(tmp_path / voxels) == file_hash(tmp_path / header)


def test_the_hash_of_a_header_covers_its_voxels(tmp_path):
    labels = some_labels((6, 5, 4))
    path = metaimage(tmp_path / "a.mhd", labels, ElementDataFile="v.raw")
    (tmp_path / "v.raw").write_bytes(labels.tobytes())
    before = file_hash(path)
    assert parts(path) == [path, tmp_path / "v.raw"]
    (tmp_path / "v.raw").write_bytes(bytes(120))
    assert file_hash(path) != before


def test_a_folder_may_be_a_series_and_a_device_is_nothing(tmp_path):
    assert may_be_volume(tmp_path)
    assert not may_be_volume(tmp_path / "none")


def test_upper_case_suffixes_are_read(tmp_path, write_nifti):
    path = write_nifti(some_labels())
    (tmp_path / "A.NII").write_bytes(path.read_bytes())
    (tmp_path / "B.NII.GZ").write_bytes(gzip.compress(path.read_bytes()))
    for name in ("A.NII", "B.NII.GZ"):
        assert np.array_equal(read_labels(tmp_path / name).array, some_labels().transpose(2, 1, 0))


def test_hash_covers_both_files_of_a_pair(tmp_path):
    write(tmp_path / "a.hdr", volume_of(some_labels()))
    before = file_hash(tmp_path / "a.hdr")
    assert file_hash(tmp_path / "a.img") == before
    (tmp_path / "a.img").write_bytes(bytes(120))
    assert file_hash(tmp_path / "a.hdr") != before


def test_a_stream_is_drained_to_its_end_unless_it_has_none(monkeypatch):
    assert drain(io.BytesIO(bytes(3 << 20))) == 3 << 20
    monkeypatch.setattr("rwtool.io.names._MOST_AFTER", 1 << 20)
    assert drain(io.BytesIO(bytes(3 << 20)), claimed=2 << 20) == 3 << 20
    with (
        Path("/dev/zero").open("rb") as endless,
        pytest.raises(VolumeError, match="more than 1,048,576 bytes beyond what its header claims"),
    ):
        drain(endless)


@pytest.mark.parametrize("known", [False, True])
def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, known):
    path = tmp_path / "a.npy"
    path.write_bytes(b"before")
    sha256 = file_hash(path)
    with unchanged(path, sha256 if known else None) as found:
        assert found == sha256
    with pytest.raises(VolumeError) as caught, unchanged(path, sha256 if known else None):
        path.write_bytes(b"after.")
    assert str(caught.value) == (
        f"{path}: it was changed while it was read; run again when nothing writes to it any more"
    )
    with pytest.raises(VolumeError, match=r"a\.npy: cannot be read: No such file"), unchanged(path):
        path.unlink()


def test_a_file_that_was_changed_before_it_is_read_is_refused(tmp_path):
    path = tmp_path / "a.npy"
    path.write_bytes(b"before")
    sha256 = file_hash(path)
    path.write_bytes(b"after.")
    with pytest.raises(VolumeError, match="it was changed"), unchanged(path, sha256):
        path.read_bytes()
