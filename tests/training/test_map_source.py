import shutil

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner
from mapped import record_anew

import rwtool
from rwtool.cli import main
from rwtool.datasets.classes import make_classes
from rwtool.errors import RwtoolError, UsageError, VolumeError
from rwtool.io.names import file_hash
from rwtool.training.map_source import plan_map_use

AFFINE = np.diag([0.8, 1.5, 4, 1.0])
VALUES = (0, 2, 4)
CLASSES = make_classes(VALUES)
IGNORING = make_classes(VALUES, ignore=9)
KINDS = ("rrw", "boundary", "hd", "skeleton")


@pytest.fixture
def write_labels(tmp_path):
    """Write a label file of random values; `shape` is that of the file."""

    def write(name="a", *, values=VALUES, shape=(6, 9, 5), affine=AFFINE, seed=0):
        path = tmp_path / "labels" / f"{name}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        array = np.asarray(values, dtype=np.uint8)[np.random.default_rng(seed).integers(0, len(values), shape)]
        nib.save(nib.Nifti1Image(array, affine), path)
        return path

    return write


@pytest.fixture
def make(tmp_path):
    """Run ``rwtool maps`` on all label files."""

    def run(*arguments, classes=CLASSES, out="maps"):
        ignoring = [] if classes.ignore is None else ["--ignore", classes.ignore]
        listed = ["--classes", ",".join(map(str, classes.values)), *ignoring]
        arguments = ["maps", tmp_path / "labels", tmp_path / out, "-q", "-j", 1, *listed, *arguments]
        result = CliRunner().invoke(main, [str(part) for part in arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return tmp_path / out

    return run


def magnitudes(use, path, classes=CLASSES, *, sha256=None, **where):
    labels = rwtool.read_labels(path, classes=classes.values, ignore=classes.ignore, **where)
    return use.magnitudes(path.name.partition(".")[0], labels, sha256 or file_hash(path))


def truth(kind, path, classes=CLASSES, **options):
    """Magnitudes of the whole map that the public functions make; 0 where a voxel is ignored."""
    labels = rwtool.read_labels(path, classes=classes.values, ignore=classes.ignore)
    options["ignore"] = None if classes.ignore is None else 255
    if kind == "hd":
        options["alpha"] = 1
    dense = getattr(rwtool, f"{kind}_map")(labels.array, labels.spacing_mm, n_classes=3, **options)
    if kind not in ("rrw", "skeleton"):
        return np.abs(dense)
    own = np.minimum(labels.array, 2)[np.newaxis].astype(int)
    return np.abs(np.take_along_axis(dense, own, axis=0)) * (labels.array < 255)


def refusal(use, path, **options):
    with pytest.raises(VolumeError) as caught:
        magnitudes(use, path, **options)
    return str(caught.value)


# --- computed at the start ---


@pytest.mark.parametrize("classes", [CLASSES, IGNORING], ids=["plain", "ignore"])
@pytest.mark.parametrize("kind", KINDS)
def test_magnitudes_are_those_of_the_map_in_mm_and_in_the_volume(write_labels, kind, classes):
    path = write_labels(values=(*VALUES, 9) if classes.ignore else VALUES)
    found = magnitudes(plan_map_use(kind, None, classes), path, classes)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, truth(kind, path, classes))
    assert (found > 0).any()


@pytest.mark.parametrize(
    ("kind", "channels", "rectified", "scales", "exponent", "others"),
    [
        ("rrw", 1, True, False, 1, (1, 1, 1)),
        ("ac", 0, True, False, 1, (1, 1, 1)),
        ("boundary", 3, False, True, 1, ()),
        ("hd", 3, False, True, 2, ()),
        ("skeleton", 1, True, False, 1, (0, 0, 0)),
    ],
)
def test_each_kind_has_channels_of_its_own(write_labels, kind, channels, rectified, scales, exponent, others):
    use = plan_map_use(kind, None, CLASSES)
    assert (use.channels, use.rectified, use.scales) == (channels, rectified, scales)
    assert (use.exponent, use.other_values, use.n_classes) == (exponent, others, 3)
    assert use.describe() == f"{kind} maps computed now"
    found = magnitudes(use, write_labels())
    assert (0 if found is None else len(found)) == channels


def test_a_matrix_is_not_computed_but_given():
    with pytest.raises(
        UsageError, match=r"the matrix loss takes its numbers from maps; .* --matrix FILE, and give maps="
    ):
        plan_map_use("matrix", None, CLASSES)


# --- read from maps ---


@pytest.mark.parametrize("layout", ["dense", "packed"])
@pytest.mark.parametrize("kind", ["rrw", "ac", "constant", "skeleton"])
@pytest.mark.parametrize("classes", [CLASSES, IGNORING], ids=["plain", "ignore"])
def test_components_have_their_own_and_their_other_value(write_labels, make, kind, layout, classes):
    path = write_labels(values=(*VALUES, 9) if classes.ignore else VALUES)
    weights = () if kind == "skeleton" else ("--class-weight", "2=3")
    folder = make("--kind", kind, "--instances", "--layout", layout, *weights, classes=classes)
    use = plan_map_use(kind, folder, classes)
    assert (use.channels, use.instances) == (2, True)
    found = magnitudes(use, path, classes)
    labels = rwtool.read_labels(path, classes=VALUES, ignore=classes.ignore)
    where = () if kind in ("ac", "constant") else (labels.spacing_mm,)
    options = {} if kind == "skeleton" else {"class_weights": {1: 3.0}}
    options |= {"ignore": 255, "instances": True, "layout": "packed"}
    packed = getattr(rwtool, f"{kind}_map")(labels.array, *where, n_classes=3, **options)
    np.testing.assert_array_equal(found, np.nan_to_num(np.abs(packed)))


@pytest.mark.parametrize("options", [("--profile", "reversed"), ("--profile", "exp", "--sigma", 2), ("--dims", 2)])
def test_the_profile_of_the_maps_is_that_of_the_magnitudes(write_labels, make, options):
    path = write_labels()
    use = plan_map_use("rrw", make(*options), CLASSES)
    named = dict(zip(("dims" if word == "--dims" else word[2:] for word in options[::2]), options[1::2], strict=True))
    np.testing.assert_array_equal(magnitudes(use, path), truth("rrw", path, **named))
    assert use.sliced == ("--dims" in options)


def test_a_matrix_comes_from_its_sidecar(write_labels, make, tmp_path):
    write_labels()
    (tmp_path / "m.csv").write_text("0, 1, 2\n1.5, -1, 1\n3 1 0.5\n")
    use = plan_map_use("matrix", make("--kind", "matrix", "--matrix", tmp_path / "m.csv"), CLASSES)
    assert use.matrix == ((0.0, 1.0, 2.0), (1.5, -1.0, 1.0), (3.0, 1.0, 0.5))
    assert (use.channels, use.scales, use.describe()) == (0, False, f"matrix maps from {tmp_path / 'maps' / 'matrix'}")
    assert not list((tmp_path / "maps" / "matrix").glob("*.nii*"))


@pytest.mark.parametrize("classes", [CLASSES, IGNORING], ids=["plain", "ignore"])
@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        ([], 0),
        (["--format", "npy"], 0),
        (["--dtype", "int16", "--format", "nii"], 2e-5),
        (["--dtype", "float16", "--format", "npy"], 5e-4),
        (["--layout", "packed"], 0),
        (["--layout", "packed", "--format", "npy"], 0),
        (["--layout", "packed", "--dtype", "int16"], 2e-5),
        (["--layout", "packed", "--dtype", "float16", "--format", "npy"], 5e-4),
    ],
)
def test_rrw_maps_give_the_same_however_they_are_stored(write_labels, make, options, tolerance, classes):
    path = write_labels(values=(*VALUES, 9) if classes.ignore else VALUES)
    folder = make(*options, classes=classes)
    found = magnitudes(plan_map_use("rrw", folder, classes), path, classes)
    assert (found.dtype, found.shape) == (np.float32, (1, 5, 9, 6))
    np.testing.assert_allclose(found, truth("rrw", path, classes), rtol=0, atol=tolerance)


@pytest.mark.parametrize("classes", [CLASSES, IGNORING], ids=["plain", "ignore"])
@pytest.mark.parametrize("format_", ["nii.gz", "npy"])
@pytest.mark.parametrize("kind", ["boundary", "hd"])
def test_maps_of_distances_give_the_same_however_they_are_stored(write_labels, make, kind, format_, classes):
    path = write_labels(values=(*VALUES, 9) if classes.ignore else VALUES)
    folder = make("--kind", kind, "--format", format_, classes=classes)
    found = magnitudes(plan_map_use(kind, folder, classes), path, classes)
    np.testing.assert_allclose(found, truth(kind, path, classes), rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_folder_of_a_kind_and_the_one_above_it_are_the_same(write_labels, make, kind):
    path = write_labels()
    folder = make("--kind", "all", "--kind", "skeleton")
    above, itself = plan_map_use(kind, folder, CLASSES), plan_map_use(kind, folder / kind, CLASSES)
    assert above == itself
    assert above.describe() == f"{kind} maps from {folder / kind}"
    np.testing.assert_array_equal(magnitudes(above, path), magnitudes(itself, path))


def test_settings_of_the_maps_hold_rather_than_those_of_a_computation(write_labels, make):
    path = write_labels()
    folder = make("--kind", "boundary", "--dims", 2, "--units", "voxel", "--convention", "inner")
    found = magnitudes(plan_map_use("boundary", folder, CLASSES), path)
    np.testing.assert_array_equal(found, truth("boundary", path, dims=2, units="voxel", convention="inner"))
    assert not np.allclose(found, truth("boundary", path))


@pytest.mark.parametrize("alpha", [1, 2, 3.5])
def test_an_hd_map_is_its_magnitude_to_the_exponent_of_its_sidecar(write_labels, make, alpha):
    path = write_labels()
    folder = make("--kind", "hd", "--alpha", alpha)
    use = plan_map_use("hd", folder, CLASSES)
    assert use.exponent == alpha
    found = magnitudes(use, path)
    np.testing.assert_allclose(found, truth("hd", path), rtol=1e-6)
    np.testing.assert_allclose(found**alpha, rwtool.read_map(folder / "hd" / "a.nii.gz"), rtol=1e-5)


@pytest.mark.parametrize("kind", ["rrw", "ac"])
def test_class_weights_of_the_maps_are_the_other_values(write_labels, make, kind):
    path = write_labels()
    folder = make("--kind", kind, "--class-weight", "4=3", "--class-weight", "0=0.5")
    use = plan_map_use(kind, folder, CLASSES)
    assert use.other_values == (0.5, 1, 3)
    found = magnitudes(use, path)
    if kind == "rrw":
        np.testing.assert_array_equal(found, truth("rrw", path))
    else:
        assert found is None


# --- maps that do not fit ---


def test_maps_of_another_kind_are_named_and_the_folder_above_advised(write_labels, make):
    write_labels()
    folder = make("--kind", "boundary", "--kind", "rrw")
    with pytest.raises(UsageError) as caught:
        plan_map_use("rrw", folder / "boundary", CLASSES)
    assert str(caught.value) == (
        f"{folder / 'boundary'} holds boundary maps; this loss takes rrw maps: name the folder above it"
    )


@pytest.mark.parametrize(("made", "there"), [(["boundary", "ac"], "found ac, boundary"), ([], "found none")])
def test_a_folder_without_the_kind_says_what_it_has(write_labels, make, tmp_path, made, there):
    write_labels()
    folder = make(*(part for kind in made for part in ("--kind", kind))) if made else tmp_path / "labels"
    with pytest.raises(UsageError) as caught:
        plan_map_use("hd", folder, CLASSES)
    assert str(caught.value) == (
        f"{folder}: no hd maps ({there}); make them with rwtool maps LABELS {folder} --kind hd, or leave out maps to "
        "have them computed at the start"
    )


@pytest.mark.parametrize(
    ("classes", "told"),
    [
        (make_classes((0, 2)), "the labels have 0, 2"),
        (make_classes((0, 2, 5)), "the labels have 0, 2, 5"),
        (make_classes((0, 2, 4, 6)), "the labels have 0, 2, 4, 6"),
        (IGNORING, "the labels have 0, 2, 4 (ignored: 9)"),
    ],
)
@pytest.mark.parametrize("kind", ["rrw", "ac"])
def test_maps_for_other_classes_are_refused(write_labels, make, kind, classes, told):
    write_labels()
    folder = make("--kind", kind)
    with pytest.raises(UsageError) as caught:
        plan_map_use(kind, folder, classes)
    assert str(caught.value) == (
        f"{folder / kind}: these maps were made for the classes 0, 2, 4; {told}; make the maps again, or give the same "
        "classes and ignore"
    )


def test_maps_that_ignore_a_label_do_not_fit_labels_that_do_not(write_labels, make):
    write_labels(values=(*VALUES, 9))
    folder = make(classes=IGNORING)
    with pytest.raises(UsageError, match=r"made for the classes 0, 2, 4 \(ignored: 9\); the labels have 0, 2, 4; "):
        plan_map_use("rrw", folder, CLASSES)


def test_a_damaged_sidecar_is_named(write_labels, make):
    write_labels()
    folder = make()
    (folder / "rrw" / "maps.json").write_text("{")
    with pytest.raises(RwtoolError, match=r"maps\.json: not a readable sidecar"):
        plan_map_use("rrw", folder, CLASSES)


@pytest.mark.parametrize("kind", KINDS)
def test_maps_of_other_labels_are_refused_by_their_hash(write_labels, make, kind):
    path = write_labels()
    folder = make("--kind", kind)
    use = plan_map_use(kind, folder, CLASSES)
    write_labels(seed=1)
    assert refusal(use, path) == (
        f"{folder / kind / 'a.nii.gz'}: it was made from other labels (their hash differs); run rwtool maps again"
    )


def test_a_case_without_a_map_is_named(write_labels, make):
    write_labels("a")
    folder = make()
    use = plan_map_use("rrw", folder, CLASSES)
    assert refusal(use, write_labels("b")) == (
        f"{folder / 'rrw' / 'maps.json'}: it has no map of b; run rwtool maps again"
    )


def test_a_map_file_that_is_gone_or_damaged_is_named(write_labels, make):
    path = write_labels()
    folder = make()
    use, file = plan_map_use("rrw", folder, CLASSES), folder / "rrw" / "a.nii.gz"
    whole = file.read_bytes()
    for damaged in (whole[:-200], whole[:100] + bytes([whole[100] ^ 4]) + whole[101:]):
        file.write_bytes(damaged)
        assert refusal(use, path) == (
            f"{file}: it is not the map that was written (its size or CRC-32 differs); remove it and run rwtool maps "
            "again"
        )
    file.unlink()
    assert refusal(use, path) == f"{file}: no such file, though maps.json names it; run rwtool maps again"


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("kind", KINDS)
def test_a_map_that_is_not_finite_is_refused_though_ignored_voxels_may_be(write_labels, make, kind, value):
    path = write_labels(values=(*VALUES, 9))
    folder = make("--kind", kind, "--format", "npy", classes=IGNORING)
    file = folder / kind / "a.npy"

    def use():
        record_anew(file.parent)
        return plan_map_use(kind, folder, IGNORING)

    labels = np.asarray(nib.load(path).dataobj).transpose(2, 1, 0)
    array = np.load(file)
    array[:, labels == 9] = value
    np.save(file, array)
    np.testing.assert_allclose(magnitudes(use(), path, IGNORING), truth(kind, path, IGNORING), rtol=1e-6)
    z, y, x = np.argwhere(labels == 4)[0]
    array[2, z, y, x] = value
    np.save(file, array)
    with pytest.raises(VolumeError) as caught:
        magnitudes(use(), path, IGNORING)
    assert str(caught.value) == f"{file}: it holds a value that is not finite; run rwtool maps again"


@pytest.mark.parametrize("suffix", ["nii.gz", "npy"])
def test_a_map_of_another_shape_is_refused(write_labels, make, suffix):
    path = write_labels("a")
    write_labels("b", shape=(6, 8, 5))
    folder = make("--format", suffix)
    shutil.copy(folder / "rrw" / f"b.{suffix}", folder / "rrw" / f"a.{suffix}")
    record_anew(folder / "rrw")
    assert refusal(plan_map_use("rrw", folder, CLASSES), path) == (
        f"{folder / 'rrw' / f'a.{suffix}'}: its shape (z, y, x) is (5, 8, 6), that of the labels (5, 9, 6); run rwtool "
        "maps again"
    )


@pytest.mark.parametrize(
    ("kind", "layout", "other", "count"),
    [("rrw", "dense", "packed", 1), ("boundary", "dense", "four", 4), ("rrw", "packed", "dense", 3)],
)
def test_a_map_of_another_number_of_channels_is_refused(write_labels, make, kind, layout, other, count):
    path = write_labels()
    folder = make("--kind", kind, "--layout", layout)
    if other == "four":
        replacement = make("--kind", kind, classes=make_classes((0, 2, 3, 4)), out="others")
    else:
        replacement = make("--kind", kind, "--layout", other, out="others")
    shutil.copy(replacement / kind / "a.nii.gz", folder / kind / "a.nii.gz")
    record_anew(folder / kind)
    assert refusal(plan_map_use(kind, folder, CLASSES), path) == (
        f"{folder / kind / 'a.nii.gz'}: it has {count} channels in place of {1 if layout == 'packed' else 3}; run "
        "rwtool maps again"
    )


@pytest.mark.parametrize("suffix", ["nii.gz", "npy"])
def test_maps_across_another_slice_axis_are_refused_though_the_shape_is_the_same(write_labels, make, suffix):
    path = write_labels(shape=(6, 6, 6), affine=np.eye(4))
    folder = make("--slice-axis", 0, "--format", suffix)
    use = plan_map_use("rrw", folder, CLASSES)
    assert refusal(use, path) == (
        f"{folder / 'rrw' / f'a.{suffix}'}: it was made with the slice axis 0, the labels have 2; give slice_axis=0, "
        "or run rwtool maps again"
    )
    np.testing.assert_array_equal(magnitudes(use, path, slice_axis=0)[0], truth("rrw", path)[0].transpose(2, 1, 0))


def test_maps_for_another_spacing_are_refused_where_the_labels_carry_none(tmp_path, make):
    path = tmp_path / "labels" / "a.npy"
    path.parent.mkdir()
    np.save(path, np.asarray(VALUES, np.uint8)[np.random.default_rng(0).integers(0, 3, (5, 9, 6))])
    folder = make("--spacing", 5, 1, 1)
    use = plan_map_use("rrw", folder, CLASSES)
    assert refusal(use, path, spacing_mm=(4, 1, 1)) == (
        f"{folder / 'rrw' / 'a.nii.gz'}: it was made for voxels of 5 x 1 x 1 mm, the labels have 4 x 1 x 1; give "
        "spacing_mm=(5, 1, 1), or run rwtool maps again"
    )
    assert magnitudes(use, path, spacing_mm=(5, 1, 1)).max() == 1
