import pickle

import numpy as np
import pytest
from volumes import SPACED, some_labels, volume_of

from rwtool.errors import UsageError, VolumeError
from rwtool.io.formats import read_channels, read_image, read_labels
from rwtool.io.write import write


def test_npy_round_trip_is_z_y_x(tmp_path):
    before = volume_of(some_labels(), SPACED)
    write(tmp_path / "a.npy", before)
    assert np.array_equal(np.load(tmp_path / "a.npy"), some_labels().transpose(2, 1, 0))
    after = read_labels(tmp_path / "a.npy", spacing_mm=(3, 0.9, 0.5))
    assert np.array_equal(after.array, before.array)
    assert after.spacing_mm == (3, 0.9, 0.5)
    assert after.geometry.affine_mm.tolist() == SPACED.tolist()


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", ">i4", "<i8", ">f4", "<f8"])
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_npy_in_either_order_of_memory_and_bytes_is_z_y_x(tmp_path, order, dtype, version):
    array = np.asarray(some_labels(), dtype=dtype, order=order)
    with (tmp_path / "a.npy").open("wb") as stream:
        np.lib.format.write_array(stream, array, version=version)
    found = read_labels(tmp_path / "a.npy", spacing_mm=(1, 2, 3))
    assert np.array_equal(found.array, some_labels())
    assert found.array.dtype.isnative
    assert np.array_equal(read_image(tmp_path / "a.npy", spacing_mm=(1, 2, 3)).array, some_labels())


def test_npy_of_bool_is_read_as_numpy_reads_it(tmp_path):
    bytes_ = np.array([0, 1, 2, 255], dtype=np.uint8).reshape(1, 2, 2)
    np.save(tmp_path / "a.npy", bytes_.view(bool))
    for read in (read_labels, read_image):
        assert read(tmp_path / "a.npy", spacing_mm=(1, 1, 1)).array.tolist() == [[[0, 1], [1, 1]]]


@pytest.mark.parametrize(
    ("shape", "array_shape"),
    [
        ((5, 6), (1, 5, 6)),
        ((1, 5, 6), (1, 5, 6)),
        ((5, 6, 1), (5, 6, 1)),
        ((1, 4, 5, 6), (4, 5, 6)),
        ((4, 5, 6, 1), (4, 5, 6)),
        ((1, 4, 5, 6, 1), (4, 5, 6)),
        ((1, 1, 4, 5, 6), (4, 5, 6)),
        ((1, 1, 5, 6), (1, 5, 6)),
    ],
)
def test_a_singleton_axis_first_or_last_is_no_axis(tmp_path, shape, array_shape):
    np.save(tmp_path / "a.npy", some_labels(shape))
    found = read_labels(tmp_path / "a.npy", spacing_mm=(3, 2, 1))
    assert np.array_equal(found.array, some_labels(shape).reshape(array_shape))
    assert found.geometry.array_shape == array_shape
    assert found.spacing_mm == (3, 2, 1)


@pytest.mark.parametrize("shape", [(2, 4, 5, 6), (4, 5, 6, 2), (2, 1, 4, 5, 6)])
def test_several_volumes_are_refused(tmp_path, shape):
    np.save(tmp_path / "a.npy", some_labels(shape))
    with pytest.raises(VolumeError, match="expected one 3D volume; found"):
        read_labels(tmp_path / "a.npy", spacing_mm=(1, 1, 1))


@pytest.mark.parametrize("shape", [(0, 5, 6), (4, 0, 6), (), (0,)])
def test_an_array_without_voxels_is_refused(tmp_path, shape):
    np.save(tmp_path / "a.npy", np.zeros(shape, dtype=np.uint8))
    with pytest.raises(VolumeError, match="the file holds no voxels"):
        read_labels(tmp_path / "a.npy", spacing_mm=(1, 1, 1))


@pytest.mark.parametrize("dtype", [[("label", "u1"), ("score", "f4")], "M8[s]", "c8", "U1", "V2"])
def test_what_is_no_number_is_refused(tmp_path, dtype):
    np.save(tmp_path / "a.npy", np.zeros((2, 2, 2), dtype=dtype))
    with pytest.raises(VolumeError, match="found the type"):
        read_labels(tmp_path / "a.npy", spacing_mm=(1, 1, 1))
    with pytest.raises(VolumeError, match="expected one number per voxel; found the type"):
        read_image(tmp_path / "a.npy", spacing_mm=(1, 1, 1))


def test_bytes_beyond_the_array_are_noted(tmp_path):
    np.save(tmp_path / "a.npy", some_labels())
    with (tmp_path / "a.npy").open("ab") as stream:
        stream.write(bytes(7))
    found = read_labels(tmp_path / "a.npy", spacing_mm=(1, 1, 1))
    assert found.notes == ("the file holds 7 bytes more than its header says; they are left out",)
    assert np.array_equal(found.array, some_labels())


def test_an_npy_says_neither_where_it_lies_nor_how_large_its_voxels_are(tmp_path):
    np.save(tmp_path / "a.npy", some_labels())
    with pytest.raises(UsageError, match=r"a\.npy: an \.npy file carries no spacing; give spacing_mm=\(z, y, x\)"):
        read_labels(tmp_path / "a.npy")
    geometry = read_labels(tmp_path / "a.npy", spacing_mm=(1, 2, 3)).geometry
    assert (geometry.placed, geometry.spaced) == (False, False)


def test_npy_with_objects_or_a_pickle_is_refused(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([[[None]]], dtype=object), allow_pickle=True)
    with pytest.raises(VolumeError, match="it holds Python objects; expected numbers"):
        read_labels(tmp_path / "objects.npy", spacing_mm=(1, 1, 1))
    (tmp_path / "pickle.npy").write_bytes(pickle.dumps([1, 2]))
    np.savez(tmp_path / "zip.npz", some_labels())
    (tmp_path / "zip.npz").rename(tmp_path / "zip.npy")
    for name in ("pickle.npy", "zip.npy"):
        for read in (read_labels, lambda *args, **kwargs: next(read_channels(*args, **kwargs))):
            with pytest.raises(VolumeError, match=r"this is not an \.npy file.*save it with numpy\.save"):
                read(tmp_path / name, spacing_mm=(1, 1, 1))


def test_truncated_npy_is_refused(tmp_path):
    write(tmp_path / "a.npy", volume_of(some_labels()))
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-1])
    with pytest.raises(VolumeError, match="its header claims more than the file holds; it is truncated"):
        read_labels(tmp_path / "a.npy", spacing_mm=(1, 1, 1))
