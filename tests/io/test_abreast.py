import gzip
import zlib

import nibabel as nib
import numpy as np
import pytest

from rwtool.errors import GeometryError, UsageError, VolumeError
from rwtool.io import abreast
from rwtool.io.abreast import Abreast
from rwtool.io.formats import read_channels

SHAPE = (5, 6, 7)  # file axes
AFFINE = np.array([[0, -1.5, 0, 10], [0.8, 0, 0, -20], [0, 0, 4, 30], [0, 0, 0, 1.0]])


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(abreast, "_LEAST", 8)
    monkeypatch.setattr(abreast, "_VALUES", 33)
    monkeypatch.setattr(abreast, "_CHUNK", 50)


def noise(channels, dtype=np.float32):
    values = np.random.default_rng(0).normal(size=(*SHAPE, channels)) * 100
    return values.astype(dtype)


def save(path, array, affine=AFFINE):
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def whole(file, width=None):
    """All channels, put together, as (z, y, x)."""
    sides = [file.geometry.array_shape[axis] for axis in file.axes]
    found = np.full((file.channels, *sides), np.nan, np.float32)
    for where, channels in file.pieces(width):
        for k, channel in enumerate(channels):
            found[k][where] = channel
    return [channel.transpose(np.argsort(file.axes)) for channel in found]


def same(path, **where):
    file = Abreast(path, **where)
    expected = list(read_channels(path, **where))
    assert file.geometry.array_shape == expected[0].array.shape
    for found, volume in zip(whole(file), expected, strict=True):
        np.testing.assert_array_equal(found, volume.array)
    return file


@pytest.mark.parametrize("channels", [1, 2, 3, 9])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.uint8])
def test_the_channels_of_a_nifti_are_those_read_one_by_one(tmp_path, channels, suffix, dtype):
    path = save(tmp_path / f"a{suffix}", noise(channels, dtype))
    for axis in range(3):
        file = same(path, slice_axis=axis)
        assert [file.geometry.array_shape[side] for side in file.axes] == [7, 6, 5]
        assert file.channels == channels


def test_scaling_and_the_lowest_integer_are_those_of_the_format(tmp_path):
    array = noise(3, np.int16)
    array[1, 2, 3, 1] = np.iinfo(np.int16).min
    path = tmp_path / "a.nii.gz"
    image = nib.Nifti1Image(array, AFFINE)
    image.header.set_slope_inter(0.5, 3)
    with gzip.open(path, "wb") as stream:
        image.header["vox_offset"] = 352
        stream.write(image.header.binaryblock + b"\0\0\0\0" + array.tobytes(order="F"))
    file = same(path)
    assert sum(int(np.isnan(channel).sum()) for channel in whole(file)) == 1


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(3, 4, 5, 6), (4, 5, 6), (5, 6)])
def test_a_bare_array_is_read_in_either_order_of_memory(tmp_path, order, shape):
    np.save(tmp_path / "a.npy", np.asarray(np.random.default_rng(0).normal(size=shape), order=order))
    same(tmp_path / "a.npy", spacing_mm=(1, 2, 3))


@pytest.mark.nnunet
def test_a_blosc2_array_is_read_by_its_indices(tmp_path):
    blosc2 = pytest.importorskip("blosc2", reason="blosc2 is not installed")
    array = np.random.default_rng(0).normal(size=(3, 4, 5, 6)).astype(np.float32)
    blosc2.asarray(array, urlpath=str(tmp_path / "a.b2nd"))
    same(tmp_path / "a.b2nd", spacing_mm=(1, 2, 3))


def test_the_pieces_are_in_the_order_of_the_file_and_as_small_as_is_asked_for(tmp_path):
    file = Abreast(save(tmp_path / "a.nii.gz", noise(3)))
    sizes = [channels[0].size for _, channels in file.pieces()]
    assert max(sizes) <= 33 // 3 < 33
    assert max(channels[0].size for _, channels in file.pieces(1)) > 11
    np.testing.assert_array_equal(np.concatenate([c[1].ravel() for _, c in file.pieces()]), noise(3)[..., 1].ravel("F"))


def test_a_file_of_several_gzip_streams_and_zeros_between_them_is_one(tmp_path):
    raw = gzip.decompress(save(tmp_path / "a.nii.gz", noise(3)).read_bytes())
    cuts = [raw[at : at + 321] for at in range(0, len(raw), 321)]
    (tmp_path / "b.nii.gz").write_bytes(b"".join(gzip.compress(part) + bytes(3) for part in cuts))
    same(tmp_path / "b.nii.gz")


def test_a_file_that_ends_early_or_is_damaged_is_refused(tmp_path):
    path = save(tmp_path / "a.nii.gz", noise(3))
    content = path.read_bytes()
    raw = gzip.decompress(content)

    def read(name, data):
        (tmp_path / name).write_bytes(data)
        return list(Abreast(tmp_path / name).pieces())

    with pytest.raises(VolumeError, match=r"b\.nii\.gz: cannot be read: .*truncated or damaged"):
        read("b.nii.gz", content[:-1000])
    with pytest.raises(VolumeError, match=r"c\.nii\.gz: the header claims 2,520 bytes .* ends after 2,51\d"):
        read("c.nii.gz", gzip.compress(raw[:-4]))
    with pytest.raises(VolumeError, match=r"the header claims 2,520 bytes of voxels; the file ends after 99\d"):
        read("d.nii.gz", gzip.compress(raw[:1348]))
    with pytest.raises(VolumeError, match=r"e\.nii\.gz: cannot be read"):  # its checksum
        read("e.nii.gz", content[:-8] + bytes([content[-8] ^ 1]) + content[-7:])
    with pytest.raises(VolumeError, match=r"f\.nii: "):
        read("f.nii", raw[:-4])
    assert zlib.crc32(raw) == int.from_bytes(content[-8:-4], "little")


def test_what_is_no_file_or_lacks_a_spacing_is_refused(tmp_path):
    with pytest.raises(VolumeError, match="no such file"):
        Abreast(tmp_path / "a.nii.gz")
    np.save(tmp_path / "a.npy", np.zeros((2, 3, 4, 5)))
    with pytest.raises(UsageError, match="spacing_mm="):
        Abreast(tmp_path / "a.npy")
    sheared = AFFINE.copy()
    sheared[0, 2] = 3
    with pytest.raises(GeometryError, match="shear"):
        Abreast(save(tmp_path / "b.nii.gz", noise(2), sheared))
