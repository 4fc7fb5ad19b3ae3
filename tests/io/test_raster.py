import bz2
import gzip
import math

import numpy as np
import pytest
import SimpleITK as sitk
from byhand import nrrd
from volumes import some_labels

from rwtool.errors import UsageError, VolumeError
from rwtool.io.formats import count_channels, read_image_channels, read_labels
from rwtool.io.names import file_hash
from rwtool.io.raster import Raster, open_raster


def raster(path, shape=(6, 5, 4), **more):
    return Raster([path], np.dtype("u1"), shape, None, "raw", np.eye(4), True, **more)


def test_voxels_that_end_early_are_refused_with_both_sizes(tmp_path):
    path = tmp_path / "v"
    path.write_bytes(bytes(100))
    with pytest.raises(VolumeError, match="the header claims 120 bytes of voxels; the file's 100 bytes"):
        open_raster(raster(path), None)
    with pytest.raises(VolumeError, match="the file ends after 90"):
        open_raster(raster(path, (1, 1, 99), skip_bytes=10), None)


def test_a_bomb_takes_no_memory_before_it_is_refused(tmp_path):
    path = tmp_path / "v"
    path.write_bytes(b"x" * 10)
    for encoding in ("raw", "gzip", "zlib", "text", "bzip2"):
        with pytest.raises(VolumeError, match="can hold at most"):
            open_raster(Raster([path], np.dtype("u1"), (1 << 15,) * 3, None, encoding, np.eye(4), True), None)


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("bzip2", bz2.compress)])
def test_a_bomb_behind_the_voxels_is_not_unpacked_to_its_end(tmp_path, monkeypatch, encoding, pack):
    monkeypatch.setattr("rwtool.io.names._MOST_AFTER", 1 << 21)
    path = tmp_path / "v"
    for more, refused in ((1 << 20, False), (1 << 22, True)):
        path.write_bytes(pack(bytes(120 + more)))
        packed = Raster([path], np.dtype("u1"), (6, 5, 4), None, encoding, np.eye(4), True)
        if refused:
            with pytest.raises(VolumeError, match="more than 2,097,152 bytes beyond what its header claims"):
                open_raster(packed, None)
        else:
            assert "1,048,576 bytes more than its header says" in open_raster(packed, None).header.notes[-1]


def test_files_that_do_not_part_evenly_are_refused(tmp_path):
    path = tmp_path / "v"
    path.write_bytes(bytes(200))
    parts = Raster([path] * 7, np.dtype("u1"), (6, 5, 4), None, "raw", np.eye(4), True)
    with pytest.raises(VolumeError, match="the header names 7 files for 120 bytes"):
        open_raster(parts, None)


def test_a_step_that_is_not_stated_is_none(tmp_path):
    path = tmp_path / "v"
    path.write_bytes(bytes(120))
    affine = np.diag([1.0, 2, math.nan, 1])
    stored = open_raster(Raster([path], np.dtype("u1"), (12, 10, 1), None, "raw", affine, True), None)
    assert stored.header.geometry.spacing_mm == (1, 2, 1)


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_colour_images_are_refused(tmp_path, suffix):
    sitk.WriteImage(sitk.GetImageFromArray(some_labels((4, 5, 6, 3)), isVector=True), str(tmp_path / f"a{suffix}"))
    with pytest.raises(VolumeError, match=r"found 3 per voxel .a colour, vector or 4D image."):
        read_labels(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("channels", [1, 3])
def test_channels_of_a_flat_image_are_slices(tmp_path, axis, channels):
    flat = some_labels((3, 2, channels))
    kinds = ["domain", "domain"]
    kinds.insert(axis, "vector")
    directions = ["(0.5,0)", "(0,2)"]
    directions.insert(axis, "none")
    path = nrrd(
        tmp_path / "a.nrrd",
        np.moveaxis(flat, -1, axis),
        kinds=" ".join(kinds),
        space_dimension="2",
        space_directions=" ".join(directions),
    )
    assert count_channels(path) == channels
    for k, volume in enumerate(read_image_channels(path)):
        assert (volume.geometry.to_file(volume.array) == flat[:, :, k : k + 1]).all()
    if channels == 1:
        assert (flat[:, :, 0] == read_labels(path).array[0].T).all()


@pytest.mark.parametrize(("suffix", "field"), [(".mhd", "ElementDataFile = "), (".nhdr", "data file: ")])
def test_voxels_in_a_file_of_another_name(tmp_path, suffix, field):
    labels = np.zeros((100, 100, 100), dtype=np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(labels), str(tmp_path / f"a{suffix}"))
    (tmp_path / "a.raw").rename(tmp_path / "other.bin")
    header = tmp_path / f"a{suffix}"
    if suffix == ".nhdr":
        header.write_text(header.read_text().replace("encoding: gzip", "encoding: raw"))
    header.write_text(header.read_text().replace(f"{field}a.raw", f"{field}other.bin"))
    before = file_hash(header)
    assert read_labels(header).array.shape == (100, 100, 100)
    (tmp_path / "other.bin").write_bytes(bytes(999_999) + b"\1")
    assert file_hash(header) != before
    (tmp_path / "other.bin").unlink()
    with pytest.raises(VolumeError, match=r"its voxels are in other\.bin, which is not there; put it where the header"):
        read_labels(header)


@pytest.mark.parametrize(("suffix", "line"), [(".mha", b"ElementSpacing"), (".nrrd", b"space directions")])
def test_header_without_spacing_is_refused(tmp_path, suffix, line):
    path = tmp_path / f"a{suffix}"
    sitk.WriteImage(sitk.GetImageFromArray(some_labels()), str(path))
    kept = [part for part in path.read_bytes().split(b"\n") if not part.startswith((line, b"space", b"measurement"))]
    path.write_bytes(b"\n".join(kept))
    with pytest.raises(UsageError, match=r"the header carries no spacing .*; give spacing_mm=\(z, y, x\)"):
        read_labels(path)
    assert read_labels(path, spacing_mm=(3, 2, 1)).spacing_mm == (3, 2, 1)
