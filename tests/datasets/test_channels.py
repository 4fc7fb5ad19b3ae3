import nibabel as nib
import numpy as np
import pytest

from rwtool.datasets.channels import find_images, read_channels_of
from rwtool.errors import GeometryError, UsageError, VolumeError
from rwtool.network.normalization import Normalization, ct_normalization

AFFINE = np.diag([0.8, 1.5, 4, 1.0])


@pytest.fixture
def folder(tmp_path):
    def touch(*names):
        for name in names:
            path = tmp_path / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
        return tmp_path / "images"

    return touch


def found(source, **options):
    images, numbered = find_images(source, **options)
    return {name: [path.name for path in paths] for name, paths in images.items()}, numbered


def refusal(source, **options):
    with pytest.raises(UsageError) as caught:
        find_images(source, **options)
    return str(caught.value)


# --- which files make a case, beside labels ---


def test_a_file_named_as_its_labels_is_a_case_and_others_are_passed_over(folder):
    source = folder("b.nii.gz", "a.mha", "other.nii.gz", "other_0000.nii.gz")
    assert found(source, names=["a", "b"]) == ({"a": ["a.mha"], "b": ["b.nii.gz"]}, False)
    assert list(find_images(source, names=["b", "a"])[0]) == ["a", "b"]


def test_numbered_files_are_the_channels_of_a_case_in_their_order(folder):
    source = folder("a_0001.nii.gz", "a_0000.mha", "b_0000.nii.gz", "b_0001.nii.gz", "c_0000.nii.gz")
    assert found(source, names=["a", "b"]) == (
        {"a": ["a_0000.mha", "a_0001.nii.gz"], "b": ["b_0000.nii.gz", "b_0001.nii.gz"]},
        True,
    )


def test_an_nnunet_data_set_stands_for_its_images(folder):
    folder("imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")
    source = folder("imagesTs/b_0000.nii.gz")
    images, numbered = find_images(source, names=["a"])
    assert (images, numbered) == ({"a": (source / "imagesTr" / "a_0000.nii.gz",)}, True)


def test_a_glob_and_a_single_file_are_sources_too(folder):
    source = folder("a_t1.nii.gz", "b_t1.nii.gz", "a_t2.nii.gz")
    assert found(f"{source}/*_t1.nii.gz", names=["a_t1"]) == ({"a_t1": ["a_t1.nii.gz"]}, False)
    assert found(source / "a_t2.nii.gz", names=["a_t2"]) == ({"a_t2": ["a_t2.nii.gz"]}, False)


def test_a_case_whose_own_name_ends_in_4_digits_is_no_channel(folder):
    source = folder("heart_0000.nii.gz", "heart_0007.nii.gz")
    assert found(source, names=["heart_0000", "heart_0007"]) == (
        {"heart_0000": ["heart_0000.nii.gz"], "heart_0007": ["heart_0007.nii.gz"]},
        False,
    )


def test_a_case_is_no_channel_of_another_case(folder):
    source = folder("heart.nii.gz", "heart_0007.nii.gz")
    assert found(source, names=["heart", "heart_0007"]) == (
        {"heart": ["heart.nii.gz"], "heart_0007": ["heart_0007.nii.gz"]},
        False,
    )


def test_a_case_whose_own_name_ends_in_4_digits_has_channels_after_them(folder):
    source = folder("heart_0007_0000.nii.gz", "heart_0007_0001.nii.gz", "heart_0008_0000.nii.gz")
    assert found(source, names=["heart_0007"]) == (
        {"heart_0007": ["heart_0007_0000.nii.gz", "heart_0007_0001.nii.gz"]},
        True,
    )


@pytest.mark.parametrize("name", ["a_000.nii.gz", "a_00000.nii.gz", "a0000.nii.gz", "a_000x.nii.gz"])
def test_a_channel_is_4_digits_after_an_underscore(folder, name):
    message = refusal(folder(name), names=["a"])
    assert "no image for a; " in message


def test_a_case_without_an_image_is_named(folder):
    source = folder("a.nii.gz", "x.nii.gz")
    assert refusal(source, names=["a", "c", "b"]) == (
        f"{source}: no image for b, c; expected files named as their labels, or with _0000, _0001, ... for channels; "
        "found a, x"
    )


def test_an_image_beside_channels_of_the_same_case_is_refused(folder):
    source = folder("a.nii.gz", "a_0000.nii.gz")
    assert refusal(source, names=["a"]) == f"{source}: a has an image a.nii.gz and channels beside it; keep one"


def test_a_missing_channel_is_named(folder):
    source = folder("a_0000.nii.gz", "a_0001.nii.gz", "b_0000.nii.gz", "b_0002.nii.gz")
    assert refusal(source, names=["a", "b"]) == (
        f"{source}: b lacks channel 0001: found b_0000.nii.gz, b_0002.nii.gz; expected b_0000 to b_0001"
    )
    source = folder("c_0000.nii.gz")
    assert refusal(source, names=["c"], channels=3) == (
        f"{source}: c lacks channel 0001: found c_0000.nii.gz; expected c_0000 to c_0002"
    )


def test_another_number_of_channels_than_the_first_case_is_refused(folder):
    source = folder("a_0000.nii.gz", "a_0001.nii.gz", "b_0000.nii.gz", "c.nii.gz")
    assert refusal(source, names=["a", "b"]) == f"{source}: b has 1 channel (b_0000.nii.gz); expected 2, as a"
    assert refusal(source, names=["a", "c"]) == f"{source}: c has 1 channel (c.nii.gz); expected 2, as a"


# --- which files make a case, to be predicted ---


def test_a_run_on_plain_images_takes_every_file_for_a_case(folder):
    source = folder("b.nii.gz", "heart_0007.nii.gz")
    assert found(source, channels=1) == ({"b": ["b.nii.gz"], "heart_0007": ["heart_0007.nii.gz"]}, False)


def test_a_run_on_numbered_images_takes_the_number_for_a_channel(folder):
    source = folder("heart_0007_0001.nii.gz", "heart_0007_0000.nii.gz", "b_0000.nii.gz", "b_0001.nii.gz")
    assert found(source, channels=2, numbered=True) == (
        {"b": ["b_0000.nii.gz", "b_0001.nii.gz"], "heart_0007": ["heart_0007_0000.nii.gz", "heart_0007_0001.nii.gz"]},
        True,
    )


def test_a_run_on_numbered_images_of_one_channel_takes_plain_ones_but_no_mixture(folder):
    source = folder("a.nii.gz", "b.nii.gz")
    assert found(source, channels=1, numbered=True)[0] == {"a": ["a.nii.gz"], "b": ["b.nii.gz"]}
    source = folder("c_0000.nii.gz")
    assert refusal(source, channels=1, numbered=True) == (
        f"{source}: some images have a channel in their name, such as c_0000, and some, such as a.nii.gz, have none"
    )


def test_surplus_and_missing_channels_are_named_against_those_of_the_training(folder):
    source = folder("a_0000.nii.gz", "a_0001.nii.gz")
    assert refusal(source, channels=1, numbered=True) == (
        f"{source}: a has 2 channels (a_0000.nii.gz, a_0001.nii.gz); expected 1, as in training"
    )
    assert refusal(source, channels=3, numbered=True) == (
        f"{source}: a lacks channel 0002: found a_0000.nii.gz, a_0001.nii.gz; expected a_0000 to a_0002"
    )
    assert refusal(source, channels=2, numbered=False) == (
        f"{source}: a_0000 has 1 channel (a_0000.nii.gz); expected 2, as in training"
    )


# --- reading ---


def test_channels_are_stacked_z_y_x_as_float32(write_nifti):
    rng = np.random.default_rng(0)
    one, two = rng.integers(-99, 99, (3, 4, 5)).astype(np.int16), rng.normal(size=(3, 4, 5)).astype(np.float32)
    paths = [write_nifti(one, AFFINE, "a_0000.nii.gz"), write_nifti(two, AFFINE, "a_0001.nii")]
    image, geometry, notes = read_channels_of(paths)
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image, np.stack([one, two]).transpose(0, 3, 2, 1))
    assert (geometry.spacing_mm, notes) == (pytest.approx((4, 1.5, 0.8)), ())
    image, geometry, _ = read_channels_of(paths, slice_axis=0)
    np.testing.assert_array_equal(image, np.stack([one, two]))
    assert geometry.spacing_mm == pytest.approx((0.8, 1.5, 4))


def test_npy_channels_take_the_spacing_given_and_no_slice_axis(tmp_path, write_nifti):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    for name in ("a_0000.npy", "a_0001.npy"):
        np.save(tmp_path / name, array)
    paths = [tmp_path / "a_0000.npy", tmp_path / "a_0001.npy"]
    image, geometry, _ = read_channels_of(paths, spacing_mm=(4, 1.5, 0.8), slice_axis=0)
    np.testing.assert_array_equal(image, [array, array])
    assert geometry.spacing_mm == (4, 1.5, 0.8)
    beside = write_nifti(array.transpose(2, 1, 0), AFFINE, "a_0001.nii")
    image, _, _ = read_channels_of([paths[0], beside], spacing_mm=(4, 1.5, 0.8))
    np.testing.assert_array_equal(image, [array, array])


def test_what_headers_are_odd_about_is_noted_once(write_nifti):
    odd = AFFINE.copy()
    odd[0, 1] = 0.004
    paths = [write_nifti(np.zeros((3, 4, 5), np.uint8), odd, f"a_000{n}.nii") for n in (0, 1)]
    (note,) = read_channels_of(paths)[2]
    assert "slightly sheared" in note


def test_channels_on_other_grids_are_refused(write_nifti):
    shifted = AFFINE.copy()
    shifted[2, 3] = 2
    array = np.zeros((3, 4, 5), np.uint8)
    paths = [write_nifti(array, AFFINE, "a_0000.nii"), write_nifti(array, shifted, "a_0001.nii")]
    with pytest.raises(GeometryError) as caught:
        read_channels_of(paths)
    assert str(caught.value) == (
        f"{paths[1]}: it lies on another grid than a_0000.nii: the origins differ by (0, 0, 2) mm (right, anterior, "
        "superior); corners differ by up to 0.5 voxels; resample it"
    )
    paths[1] = write_nifti(array[:2], AFFINE, "a_0001.nii")
    with pytest.raises(GeometryError, match=r"the shapes differ: \(3, 4, 5\) and \(2, 4, 5\); resample it"):
        read_channels_of(paths)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused_with_its_place(write_nifti, value):
    array = np.zeros((3, 4, 5), np.float32)
    array[2, 1, 4] = value
    paths = [write_nifti(np.zeros((3, 4, 5), np.float32), AFFINE, "a_0000.nii"), write_nifti(array, AFFINE, "b.nii")]
    with pytest.raises(VolumeError) as caught:
        read_channels_of(paths)
    assert str(caught.value) == (
        f"{paths[1]}: expected finite intensities; found {value} at (z, y, x) = (4, 1, 2); mend the file"
    )


# --- normalisation ---


@pytest.fixture
def image():
    return np.random.default_rng(1).normal([[[[300]]], [[[-5]]]], [[[[40]]], [[[3]]]], (2, 4, 6, 5)).astype(np.float32)


def test_zscore_gives_each_channel_mean_0_and_sd_1(image):
    truth = [(channel - channel.mean()) / channel.std() for channel in image.astype(np.float64)]
    result = Normalization("zscore").apply(image)
    assert result is image
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, truth, rtol=0, atol=1e-5)


def test_zscore_of_a_constant_channel_is_0():
    np.testing.assert_array_equal(Normalization().apply(np.full((1, 2, 3, 4), 7.3, np.float32)), 0)


def test_none_leaves_the_image_as_it_is(image):
    np.testing.assert_array_equal(Normalization("none").apply(image.copy()), image)


def test_ct_clips_to_percentiles_of_all_foregrounds_together(image):
    samples = [image[:, 0, :4].reshape(2, -1), image[:, 1].reshape(2, -1), np.empty((2, 0), np.float32)]
    pooled = np.concatenate(samples[:2], axis=1).astype(np.float64)
    normalization = ct_normalization(samples)
    truth = []
    for channel, values in zip(image.astype(np.float64), pooled, strict=True):
        low, high = np.percentile(values, 0.5), np.percentile(values, 99.5)
        inside = np.clip(values, low, high)
        truth.append((np.clip(channel, low, high) - inside.mean()) / inside.std())
    assert (image < pooled.min(axis=1).reshape(2, 1, 1, 1)).any()  # there is something to clip
    assert (image > pooled.max(axis=1).reshape(2, 1, 1, 1)).any()
    result = normalization.apply(image)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, truth, rtol=0, atol=1e-5)


def test_ct_of_known_numbers():
    normalization = ct_normalization([np.arange(1001, dtype=np.float32).reshape(1, -1)])
    ((low, high, mean, sd),) = normalization.channels
    assert (low, high, mean) == pytest.approx((5, 995, 500))
    assert sd == pytest.approx(np.clip(np.arange(1001), 5, 995).std())


def test_ct_without_any_foreground_is_refused():
    with pytest.raises(UsageError) as caught:
        ct_normalization([np.empty((2, 0), np.float32)])
    assert str(caught.value) == (
        "normalize=ct takes its statistics from the foreground of the training images; it is empty"
    )


def test_a_file_on_disk_is_not_changed_by_normalising_its_image(tmp_path):
    path = tmp_path / "a.nii"
    nib.save(nib.Nifti1Image(np.arange(60, dtype=np.float32).reshape(3, 4, 5), AFFINE), path)
    content = path.read_bytes()
    Normalization().apply(read_channels_of([path])[0])
    assert path.read_bytes() == content


# --- 4D images, pictures and published layouts ---


def four_d(path, channels=2):
    image = np.arange(6 * 5 * 4 * channels, dtype=np.int16).reshape(6, 5, 4, channels)
    image[0, 0, 0, 0] = np.iinfo(np.int16).min  # a value like any other
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(image, AFFINE), path)
    return image


def test_a_4d_file_is_a_volume_of_several_channels_the_last_axis(tmp_path):
    image = four_d(tmp_path / "a.nii.gz")
    found, geometry, _ = read_channels_of([tmp_path / "a.nii.gz"])
    assert found.shape == (2, 4, 5, 6)
    assert np.array_equal(found, image.transpose(3, 2, 1, 0))
    assert geometry.spacing_mm == pytest.approx((4, 1.5, 0.8))
    np.save(tmp_path / "b.npy", image.transpose(3, 2, 1, 0))
    assert np.array_equal(read_channels_of([tmp_path / "b.npy"], spacing_mm=(4, 1.5, 0.8))[0], found)


def test_channels_in_one_file_count_and_mixtures_are_refused(tmp_path):
    four_d(tmp_path / "imagesTr" / "a.nii.gz")
    four_d(tmp_path / "imagesTr" / "b.nii.gz")
    assert found(tmp_path, names=["a", "b"])[0] == {"a": ["a.nii.gz"], "b": ["b.nii.gz"]}
    assert found(tmp_path, channels=2)[0] == {"a": ["a.nii.gz"], "b": ["b.nii.gz"]}
    nib.save(nib.Nifti1Image(np.zeros((6, 5, 4), np.int16), AFFINE), tmp_path / "imagesTr" / "b.nii.gz")
    message = f"{tmp_path}: b has 1 channel (b.nii.gz); expected 2, as a"
    assert refusal(tmp_path, names=["a", "b"]) == message


def test_modalities_of_brats_are_channels_in_one_order(folder):
    parts = ("t2f", "t1n", "seg", "t2w", "t1c")
    source = folder(*(f"BraTS-{k}/BraTS-{k}-{part}.nii.gz" for k in (1, 2) for part in parts))
    channels = {f"BraTS-{k}": [f"BraTS-{k}-{part}.nii.gz" for part in ("t1n", "t1c", "t2w", "t2f")] for k in (1, 2)}
    assert found(source, names=["BraTS-1", "BraTS-2"]) == (channels, True)
    assert found(source, channels=4, numbered=True) == (channels, True)


def test_images_of_kits_acdc_and_bids_pair_with_their_labels(folder):
    source = folder(
        "case_1/imaging.nii.gz", "case_1/segmentation.nii.gz", "p/patient001_frame01.nii.gz",
        "p/patient001_frame01_gt.nii.gz", "sub-1/anat/sub-1_T1w.nii.gz", "sub-1/anat/sub-1_dseg.nii.gz",
    )  # fmt: skip
    assert found(source, names=["case_1", "patient001_frame01", "sub-1"]) == (
        {
            "case_1": ["imaging.nii.gz"],
            "patient001_frame01": ["patient001_frame01.nii.gz"],
            "sub-1": ["sub-1_T1w.nii.gz"],
        },
        False,
    )  # fmt: skip


def test_two_images_of_one_case_are_both_named(folder):
    assert "two images have the case name 'a'" in refusal(folder("a.nii.gz", "a.mha"), names=["a"])


def test_a_pattern_names_case_and_channel(folder):
    source = folder("a/a_ct.nii", "a/a_pet.nii", "b/b_ct.nii", "b/b_pet.nii", "b/c.nii")
    assert found(source, name="{case}/{case}_{channel}") == (
        {"a": ["a_ct.nii", "a_pet.nii"], "b": ["b_ct.nii", "b_pet.nii"]},
        True,
    )
