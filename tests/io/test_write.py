import gzip
import os
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from volumes import SPACED, oblique, some_labels, volume_of

from rwtool.errors import UsageError, VolumeError
from rwtool.io.formats import read_channels, read_labels
from rwtool.io.geometry import Geometry
from rwtool.io.grids import compare_grids
from rwtool.io.write import create, storage_axes, write


@pytest.mark.parametrize("slice_axis", [0, 1, 2])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mha", ".nrrd"])
def test_written_file_keeps_its_axes_whichever_is_z(tmp_path, slice_axis, suffix):
    write(tmp_path / "a.nii", volume_of(some_labels(), oblique()))
    write(tmp_path / f"b{suffix}", read_labels(tmp_path / "a.nii", slice_axis=slice_axis))
    after = read_labels(tmp_path / f"b{suffix}", slice_axis=2)
    assert np.array_equal(after.array, some_labels().transpose(2, 1, 0))
    assert after.spacing_mm == pytest.approx((3, 0.9, 0.5), rel=1e-6)


@pytest.mark.parametrize(("source", "target"), [(".nii", ".mha"), (".nrrd", ".nii.gz"), (".mha", ".npy")])
def test_conversion_between_formats_keeps_the_grid(tmp_path, source, target):
    write(tmp_path / f"a{source}", volume_of(some_labels(), oblique()))
    first = read_labels(tmp_path / f"a{source}")
    write(tmp_path / f"b{target}", first)
    given_spacing = first.spacing_mm if target == ".npy" else None
    second = read_labels(tmp_path / f"b{target}", spacing_mm=given_spacing)
    assert np.array_equal(second.array, first.array)
    if target != ".npy":
        assert compare_grids(first.geometry, second.geometry).same


def test_boolean_masks_are_written_as_bytes(tmp_path):
    for suffix in (".nii.gz", ".nrrd", ".npy"):
        path = tmp_path / f"a{suffix}"
        write(path, volume_of(some_labels() > 2))
        found = read_labels(path, spacing_mm=(1, 1, 1) if suffix == ".npy" else None)
        assert np.array_equal(found.array, (some_labels() > 2).transpose(2, 1, 0))


def channels_of(geometry, count):
    rng = np.random.default_rng(1)
    return [rng.normal(size=geometry.array_shape).astype(np.float32) for _ in range(count)]


@pytest.mark.parametrize("value", [1.01, -1.01, np.inf])
def test_value_beyond_int16_is_refused_not_wrapped(tmp_path, value):
    geometry = Geometry(SPACED, (1, 1, 1), (2, 1, 0), (1, 1, 1))
    with pytest.raises(VolumeError, match=r"a.nii: the value .* does not fit int16 with scl_slope .*; use float32"):
        write_array(tmp_path / "a.nii", geometry, np.int16, np.full((1, 1, 1), value, dtype="f4"), slope=1 / 32767)
    assert os.listdir(tmp_path) == []


def test_too_few_voxels_make_no_file(tmp_path):
    geometry = Geometry(SPACED, (4, 5, 6), (2, 1, 0), (4, 5, 6))
    with pytest.raises(RuntimeError, match="20 of 120 voxels were written"):
        write_array(tmp_path / "a.nii", geometry, np.float32, np.zeros((1, 5, 4)))
    assert os.listdir(tmp_path) == []


def write_array(path, geometry, dtype, array, **options):
    with create(path, geometry, dtype, **options) as put:
        put(array)


def put_in_slabs(put, array, geometry, suffix):
    axis = storage_axes(geometry, suffix)[0]
    for start in range(0, array.shape[axis], 2):
        put(array[tuple(slice(start, start + 2) if a == axis else slice(None) for a in range(3))])


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".npy"])
@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 2, 0), (2, 1, 0)])
def test_channels_are_streamed_to_the_fourth_axis(tmp_path, suffix, axes):
    geometry = Geometry(oblique(), (4, 5, 6), axes, (4, 5, 6))
    channels = channels_of(geometry, 3)
    path = tmp_path / f"a{suffix}"
    with create(path, geometry, np.float32, channels=3) as put:
        for channel in channels:
            put_in_slabs(put, channel, geometry, suffix)
    spacing = {"spacing_mm": geometry.spacing_mm} if suffix == ".npy" else {"slice_axis": axes[0]}
    found = list(read_channels(path, **spacing))
    assert [np.array_equal(volume.array, channel) for volume, channel in zip(found, channels, strict=True)] == [
        True
    ] * 3
    assert found[0].spacing_mm == pytest.approx(geometry.spacing_mm)
    if suffix == ".npy":
        assert np.array_equal(np.load(path), np.stack(channels))
        return
    stored = np.stack([geometry.to_file(channel) for channel in channels], axis=3)
    image = nib.load(path)
    assert np.array_equal(np.asarray(image.dataobj), stored)
    assert image.affine == pytest.approx(oblique(), abs=1e-6)
    other = sitk.ReadImage(str(path))
    assert other.GetSize() == (4, 5, 6, 3)
    assert np.array_equal(sitk.GetArrayFromImage(other).T, stored)
    assert other.GetSpacing()[:3] == pytest.approx((0.5, 0.9, 3), rel=1e-6)
    lps = np.diag([-1, -1, 1]) @ oblique()[:3]
    assert np.array(other.GetDirection()).reshape(4, 4)[:3, :3] * (0.5, 0.9, 3) == pytest.approx(lps[:, :3], abs=1e-5)
    assert other.GetOrigin()[:3] == pytest.approx(lps[:, 3], abs=1e-5)


@pytest.mark.parametrize("file_shape", [(4, 5), (4, 5, 1), (4, 5, 1, 1)])
def test_channels_of_one_slice_are_still_the_fourth_axis(write_nifti, tmp_path, file_shape):
    labels = read_labels(write_nifti(some_labels(file_shape)))
    with create(tmp_path / "a.nii", labels.geometry, np.float32, channels=2) as put:
        put(np.zeros((1, 5, 4), dtype=np.float32))
        put(np.ones((1, 5, 4), dtype=np.float32))
    assert nib.load(tmp_path / "a.nii").shape == (4, 5, 1, 2)
    assert [float(volume.array.max()) for volume in read_channels(tmp_path / "a.nii")] == [0, 1]


def test_int16_with_a_slope_and_nan(tmp_path):
    geometry = Geometry(SPACED, (4, 5, 6), (2, 1, 0), (4, 5, 6))
    values = channels_of(geometry, 1)[0].clip(-1, 1)
    values[0, 0, :3] = np.nan, 1, -1
    with create(tmp_path / "a.nii.gz", geometry, np.int16, slope=1 / 32767) as put:
        put(values)
    found = next(read_channels(tmp_path / "a.nii.gz")).array
    assert np.isnan(found[0, 0, 0])
    assert found[0, 0, 1:3].tolist() == pytest.approx([1, -1])
    assert np.nanmax(np.abs(found - values)) <= 0.5 / 32767 + 1e-7
    image = nib.load(tmp_path / "a.nii.gz")
    assert image.get_data_dtype() == np.int16
    assert image.dataobj.slope == pytest.approx(1 / 32767)
    assert np.asarray(image.dataobj.get_unscaled())[0, 0, 0] == -32768


def test_float16_npy_and_its_overflow(tmp_path):
    geometry = Geometry(SPACED, (4, 5, 6), (2, 1, 0), (4, 5, 6))
    values = channels_of(geometry, 1)[0]
    with create(tmp_path / "a.npy", geometry, np.float16) as put:
        put(values)
    assert np.array_equal(np.load(tmp_path / "a.npy"), values.astype(np.float16))
    with pytest.raises(VolumeError, match="the value 70000 does not fit float16"):
        write_array(tmp_path / "b.npy", geometry, np.float16, np.full((6, 5, 4), 70000, dtype="f4"))


def test_gzip_of_python_reads_what_is_written(tmp_path):
    write(tmp_path / "a.nii.gz", volume_of(some_labels()))
    write(tmp_path / "a.nii", volume_of(some_labels()))
    assert gzip.decompress((tmp_path / "a.nii.gz").read_bytes()) == (tmp_path / "a.nii").read_bytes()


def test_same_volume_gives_the_same_bytes(tmp_path):
    for name in ("a.nii.gz", "b.nii.gz"):
        write(tmp_path / name, volume_of(some_labels()))
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    assert (tmp_path / "a.nii.gz").read_bytes()[4:8] == bytes(4)  # no time of writing


@pytest.mark.parametrize(
    ("shape", "dtype", "reason"), [((4, 5, 6), np.float16, "float16"), ((40000, 2, 1), np.uint8, r"\(40000, 2, 1\)")]
)
def test_what_nifti_cannot_hold_is_refused(tmp_path, shape, dtype, reason):
    with pytest.raises(VolumeError, match=f"NIfTI cannot hold .*{reason}.*choose another type or format"):
        write(tmp_path / "a.nii", volume_of(np.zeros(shape, dtype=dtype)))


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".npy"])
def test_error_inside_create_leaves_nothing(tmp_path, suffix):
    geometry = Geometry(SPACED, (4, 5, 6), (2, 1, 0), (4, 5, 6))

    def write_a_part():
        with create(tmp_path / f"a{suffix}", geometry, np.float32) as put:
            put(np.zeros((1, 5, 4), dtype=np.float32))
            raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        write_a_part()
    assert os.listdir(tmp_path) == []


def test_error_inside_create_leaves_the_file_that_was_there(tmp_path):
    write(tmp_path / "a.nii", volume_of(some_labels()))
    before = (tmp_path / "a.nii").read_bytes()
    with pytest.raises(KeyError), create(tmp_path / "a.nii", volume_of(some_labels()).geometry, np.float32):
        raise KeyError
    assert (tmp_path / "a.nii").read_bytes() == before


def test_name_that_is_taken_by_a_folder_is_reported(tmp_path):
    (tmp_path / "a.nii").mkdir()
    with pytest.raises(VolumeError, match=r"a\.nii: cannot be written: Is a directory"):
        write(tmp_path / "a.nii", volume_of(some_labels()))
    (tmp_path / "file").write_text("")
    with pytest.raises(VolumeError, match=r"file: there is no folder of this name"):
        write(tmp_path / "file" / "b.nii", volume_of(some_labels()))


@pytest.mark.parametrize("name", ["a.foo", "a", "a.gz"])
def test_unknown_suffix_is_refused(tmp_path, name):
    with pytest.raises(UsageError, match=r"no format has this suffix; expected one of \.nii, \.nii\.gz, \.mha"):
        write(tmp_path / name, volume_of(some_labels()))


@pytest.mark.parametrize("suffix", [".nii", ".mha", ".npy"])
def test_array_off_its_grid_is_refused(tmp_path, suffix):
    volume = volume_of(some_labels())
    with pytest.raises(VolumeError, match=r"the array's shape is \(3, 5, 4\), its grid's \(6, 5, 4\)"):
        write(tmp_path / f"a{suffix}", replace(volume, array=volume.array[:3]))


def test_picture_of_many_slices_is_refused(tmp_path):
    with pytest.raises(VolumeError, match=r"\.png holds one slice, this volume has 6"):
        write(tmp_path / "a.png", volume_of(some_labels()))
    assert os.listdir(tmp_path) == []


def test_type_that_a_format_cannot_hold_is_refused(tmp_path):
    with pytest.raises(VolumeError, match=r"a\.mha: cannot be written: .*float16"):
        write(tmp_path / "a.mha", volume_of(some_labels(dtype=np.float16)))


def test_a_large_gzip_file_has_the_same_bytes_for_any_number_of_threads(tmp_path):
    array = np.random.default_rng(0).random((18, 512, 512), dtype=np.float32)  # above 16 MiB threads compress
    geometry = Geometry(np.eye(4), array.shape[::-1], (2, 1, 0), array.shape[::-1])
    for threads in (1, 3):
        with create(tmp_path / f"{threads}.nii.gz", geometry, np.float32, threads=threads) as put:
            for start in range(0, len(array), 4):
                put(array[start : start + 4])
    assert (tmp_path / "1.nii.gz").read_bytes() == (tmp_path / "3.nii.gz").read_bytes()
    with gzip.open(tmp_path / "3.nii.gz") as stream:
        assert stream.read()[352:] == array.tobytes()
