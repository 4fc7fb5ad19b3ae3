import gzip
import struct

import nibabel as nib
import numpy as np
import pytest
from volumes import oblique, some_labels

from rwtool.errors import GeometryError, UsageError, VolumeError
from rwtool.io.formats import read_header, read_image_channels, read_labels

LABELS = some_labels((6, 5, 4), np.int16)


def mgh(path, array=LABELS, affine=None):
    nib.save(nib.MGHImage(array, oblique() if affine is None else affine), path)
    return path


def analyze(folder, *, unit=b"mm", packed=False):
    image = nib.AnalyzeImage(LABELS, np.diag([0.5, 0.9, 3, 1]))
    image.header["vox_units"] = unit
    nib.save(image, folder / "a.hdr")
    if packed:
        (folder / "a.img.gz").write_bytes(gzip.compress((folder / "a.img").read_bytes()))
        (folder / "a.img").unlink()
    return folder / ("a.img.gz" if packed else "a.img")


@pytest.mark.parametrize("name", ["a.mgh", "a.mgz", "A.MGZ"])
def test_mgh_is_read_with_its_grid(tmp_path, name):
    path = mgh(tmp_path / name.lower()).rename(tmp_path / name)
    volume = read_labels(path)
    assert (volume.geometry.to_file(volume.array) == LABELS).all()
    assert volume.spacing_mm == pytest.approx((3, 0.9, 0.5))
    assert volume.geometry.affine_mm == pytest.approx(oblique(), abs=1e-4)
    assert volume.geometry.placed


def test_mgh_that_states_no_orientation_is_not_placed(tmp_path):
    path = mgh(tmp_path / "a.mgh")
    content = bytearray(path.read_bytes())
    content[28:30] = b"\0\0"  # goodRASFlag
    path.write_bytes(content)
    with pytest.raises(UsageError, match="the header carries no spacing"):
        read_header(path)
    header = read_header(path, spacing_mm=(3, 2, 1))
    assert (header.geometry.placed, header.notes) == (False, ("the header states no position or orientation",))


@pytest.mark.parametrize("name", ["a.mgh", "a.mgz"])
@pytest.mark.parametrize("cut", [1, 8, 100, 500])
def test_mgh_that_ends_early_is_refused(tmp_path, name, cut):
    path = mgh(tmp_path / name, some_labels((20, 20, 20), np.int16))
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[: size - cut - (0 if name == "a.mgz" else 1024)])
    with pytest.raises(VolumeError):
        read_labels(path)


def test_a_header_of_mgh_without_sense_is_refused(tmp_path):
    path = mgh(tmp_path / "a.mgh")
    whole = path.read_bytes()
    for at in range(0, 24, 4):  # version, four sizes, type
        path.write_bytes(whole[:at] + b"\xff\xff\xff\xfe" + whole[at + 4 :])
        with pytest.raises(VolumeError):
            read_labels(path)


def test_4d_mgh_is_an_image_of_channels_and_no_labels(tmp_path):
    image = np.stack([LABELS, LABELS * 2], -1)
    path = mgh(tmp_path / "a.mgz", image)
    found = [volume.geometry.to_file(volume.array) for volume in read_image_channels(path)]
    assert np.array_equal(np.stack(found, -1), image)
    with pytest.raises(VolumeError, match="found 2 per voxel"):
        read_labels(path)


@pytest.mark.parametrize("packed", [False, True])
def test_analyze_has_a_spacing_and_no_place(tmp_path, packed):
    path = analyze(tmp_path, packed=packed)
    for part in (path, tmp_path / "a.hdr"):
        volume = read_labels(part)
        assert (volume.geometry.to_file(volume.array) == LABELS).all()
        assert volume.spacing_mm == pytest.approx((3, 0.9, 0.5))
        assert not volume.geometry.placed


def test_units_of_analyze_are_converted_or_refused(tmp_path):
    assert read_labels(analyze(tmp_path, unit=b"cm")).spacing_mm == pytest.approx((30, 9, 5))
    with pytest.raises(GeometryError, match="lengths in 'ell'"):
        read_labels(analyze(tmp_path, unit=b"ell"))


def test_half_of_an_analyze_pair_is_named(tmp_path):
    path = analyze(tmp_path)
    (tmp_path / "a.hdr").unlink()
    with pytest.raises(VolumeError, match="its header or its voxels are missing"):
        read_labels(path)


def test_a_voxel_size_of_0_is_asked_for(tmp_path):
    path = analyze(tmp_path)
    content = bytearray((tmp_path / "a.hdr").read_bytes())
    content[80:84] = bytes(4)  # pixdim[1]
    (tmp_path / "a.hdr").write_bytes(content)
    with pytest.raises(UsageError, match="the header carries no spacing"):
        read_labels(path)
    assert read_labels(path, spacing_mm=(3, 2, 1)).spacing_mm == (3, 2, 1)


@pytest.mark.parametrize("suffix", [".head", ".par", ".mnc", ".mgz", ".brik"])
def test_what_is_none_of_these_is_refused(tmp_path, suffix):
    for content in (b"x", b"CDF\1" + bytes(40), bytes(400)):
        (tmp_path / f"a{suffix}").write_bytes(content)
        with pytest.raises(VolumeError):
            read_labels(tmp_path / f"a{suffix}")


@pytest.mark.parametrize(("factor", "expected"), [(0, 1), (np.nan, 1), (1, 1), (2, 2), (0.5, 0.5)])
def test_analyze_is_scaled_as_spm_says(tmp_path, factor, expected):
    path = analyze(tmp_path)
    header = bytearray((tmp_path / "a.hdr").read_bytes())
    header[112:116] = np.float32(factor).tobytes()  # of no use in Analyze 7.5
    (tmp_path / "a.hdr").write_bytes(header)
    (volume,) = read_image_channels(path)
    assert volume.geometry.to_file(volume.array) == pytest.approx(LABELS * expected)
    assert volume.array == pytest.approx(nib.load(path).get_fdata().transpose(2, 1, 0))
    assert (f"its voxels are scaled by {expected:g}, as SPM's Analyze files are" in volume.notes) == (expected != 1)


@pytest.mark.parametrize("length", [0.5, 1.01, 1e9])
def test_directions_of_mgh_that_are_no_unit_vectors_are_refused(tmp_path, length):
    path = mgh(tmp_path / "a.mgh", affine=np.diag([0.5, 0.9, 3, 1]))
    content = bytearray(path.read_bytes())
    struct.pack_into(">f", content, 42, length)  # of the first axis along x
    path.write_bytes(content)
    with pytest.raises(GeometryError, match="directions of another length"):
        read_labels(path)


def brik(folder):
    """Write a pair of AFNI's by hand."""
    attributes = {
        "DATASET_RANK": ("integer", [3, 1, 0, 0, 0, 0, 0, 0]), "DATASET_DIMENSIONS": ("integer", [*LABELS.shape, 0, 0]),
        "BRICK_TYPES": ("integer", [1]), "BRICK_FLOAT_FACS": ("float", [0]), "DELTA": ("float", [0.5, 0.9, 3]),
        "ORIENT_SPECIFIC": ("integer", [0, 3, 4]), "ORIGIN": ("float", [0, 0, 0]), "SCENE_DATA": ("integer", [0, 2, 0]),
        "IJK_TO_DICOM_REAL": ("float", [0.5, 0, 0, 0, 0, 0.9, 0, 0, 0, 0, 3, 0]),
    }  # fmt: skip
    text = "type = string-attribute\nname = BYTEORDER_STRING\ncount = 10\n'LSB_FIRST~\n\n"
    for name, (kind, values) in attributes.items():
        text += f"type = {kind}-attribute\nname = {name}\ncount = {len(values)}\n{' '.join(map(str, values))}\n\n"
    (folder / "a+orig.HEAD").write_text(f"\n{text.strip()}\n")
    (folder / "a+orig.BRIK").write_bytes(LABELS.tobytes(order="F"))
    return folder / "a+orig.HEAD"


@pytest.mark.parametrize("write", [mgh, brik, lambda path: analyze(path.parent)])
def test_files_that_are_larger_than_what_may_follow_their_voxels_are_read(tmp_path, monkeypatch, write):
    monkeypatch.setattr("rwtool.io.names._MOST_AFTER", 1)
    path = write(tmp_path / "a.mgz" if write is mgh else tmp_path if write is brik else tmp_path / "a")
    volume = read_labels(path)
    assert (volume.geometry.to_file(volume.array) == LABELS).all()
