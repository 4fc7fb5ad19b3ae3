import json

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

import rwtool
from rwtool.cli import main
from rwtool.datasets.classes import make_classes
from rwtool.datasets.plan import plan_dataset
from rwtool.errors import GeometryError, RwtoolError, UsageError, VolumeError
from rwtool.io.grids import NO_TURN, describe_directions
from rwtool.io.names import file_hash
from rwtool.network.config import TrainConfig
from rwtool.network.normalization import Normalization
from rwtool.network.resample import resample_slices
from rwtool.training import cohort as module
from rwtool.training.cohort import CaseJob, Source, plan_cohort, read_case, read_cohort, sample_foreground

AFFINE = np.diag([0.8, 1.5, 4, 1.0])
SHAPE = (6, 9, 5)
CLASSES = make_classes((0, 2, 4))
RAW = TrainConfig(loss="ce", normalize="none")


def random_labels(seed=0, values=(0, 2, 4), shape=SHAPE):
    return np.asarray(values, dtype=np.int16)[np.random.default_rng(seed).integers(0, len(values), shape)]


def random_image(seed=0, shape=SHAPE):
    return np.random.default_rng(100 + seed).integers(-50, 50, shape).astype(np.int16)


def save(path, array, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        nib.save(nib.Nifti1Image(array, affine), path)
    return path


@pytest.fixture
def study(tmp_path):
    """Four cases, a to d, of two channels; the first two are trained on."""
    for seed, name in enumerate("abcd"):
        save(tmp_path / "labels" / f"{name}.nii.gz", random_labels(seed))
        for channel in (0, 1):
            save(tmp_path / "images" / f"{name}_000{channel}.nii.gz", random_image(10 * channel + seed))
    (tmp_path / "split.json").write_text(json.dumps({"train": ["a", "b"], "val": ["c", "d"]}))
    return tmp_path


@pytest.fixture
def job(tmp_path):
    """One case to be read, of arrays in file order."""

    def make(labels, *images, affine=AFFINE, suffix="nii.gz", classes=CLASSES, normalization="none", **options):
        paths = [save(tmp_path / f"image_{n}.{suffix}", image, affine) for n, image in enumerate(images)]
        path = save(tmp_path / f"labels.{suffix}", labels, affine)
        where = {"spacing_mm": options.pop("spacing_mm", None), "slice_axis": options.pop("slice_axis", 2)}
        where = {**where, "slice_axis": None} if suffix == "npy" else where
        found = plan_dataset({"case": path}, classes=classes.values, ignore=classes.ignore, verbosity=-1, **where)
        return CaseJob("case", tuple(paths), found.files["case"], Normalization(normalization), **options)

    return make


def source(folder, **options):
    return Source(str(folder / "images"), str(folder / "labels"), **options)


def read(where, config=RAW, **options):
    return read_cohort(plan_cohort(where, config), config, verbosity=-1, **options)


def refusal(where, config=RAW):
    with pytest.raises(RwtoolError) as caught:
        read(where, config)
    return str(caught.value)


def turned(array):
    return array.transpose(2, 1, 0)


# --- what is planned ---


def test_a_plan_pairs_and_splits_the_cases_and_finds_the_classes(study):
    plan = plan_cohort(source(study, split=str(study / "split.json")), TrainConfig())
    assert (plan.classes.values, plan.classes.ignore) == ((0, 2, 4), None)
    assert (plan.split.train, plan.split.val) == (("a", "b"), ("c", "d"))
    assert (plan.n_channels, plan.numbered, plan.cases) == (2, True, {})
    assert [path.name for path in plan.images["b"]] == ["b_0000.nii.gz", "b_0001.nii.gz"]
    assert plan.dataset.paths["b"] == study / "labels" / "b.nii.gz"
    assert plan.dataset.files["b"].shape == (5, 9, 6)
    assert plan.map_use.describe() == "rrw maps computed now"


def test_classes_and_the_ignored_label_can_be_named(study):
    named = source(study, classes=(0, 2, 4, 6))
    assert plan_cohort(named, RAW).classes.values == (0, 2, 4, 6)
    found = read(source(study, ignore=4, split=str(study / "split.json")))
    assert (found.classes.values, found.classes.ignore) == ((0, 2), 4)
    codes = np.array([1, 2, 0])[random_labels(0) // 2]
    np.testing.assert_array_equal(found.cases["a"].codes, turned(codes))
    assert (found.cases["c"].reference.array.max(), (random_labels(2) == 4).any()) == (255, True)


def test_the_configuration_draws_the_split_where_no_file_does(study):
    drawn = [plan_cohort(source(study), TrainConfig(loss="ce", val=0.25, split_seed=seed)).split for seed in range(5)]
    assert {len(split.val) for split in drawn} == {1}
    assert len(set(drawn)) > 1
    with pytest.raises(UsageError, match="finds no subject in 'd'"):
        plan_cohort(source(study), TrainConfig(loss="ce", subject="[abc]"))
    assert plan_cohort(source(study), TrainConfig(loss="ce", val=0)).split.train == ("a", "b", "c", "d")


def test_a_split_file_limits_the_cases_so_that_others_may_be_damaged(study):
    (study / "labels" / "d.nii.gz").write_bytes(b"damaged")
    (study / "images" / "d_0000.nii.gz").unlink()
    (study / "split.json").write_text(json.dumps([{"train": ["a"], "val": ["b"]}, {"train": ["b"], "val": ["c"]}]))
    found = read(source(study, split=f"{study / 'split.json'}:1"))
    assert sorted(found.cases) == ["b", "c"]


def test_a_loss_without_maps_takes_none(study):
    assert plan_cohort(source(study), TrainConfig(loss="dice")).map_use is None


def test_all_label_files_that_cannot_be_read_are_listed(study):
    for name in "bd":
        (study / "labels" / f"{name}.nii.gz").write_bytes(b"damaged")
    first, *lines = refusal(source(study)).splitlines()
    assert first == (
        "2 of 4 cases cannot be read, and a study without them would be another one; mend them, or leave them out with "
        "split='FILE':"
    )
    assert [line.partition(" the file is not gzip")[0] for line in lines] == [
        f"  {name}: {study / 'labels' / f'{name}.nii.gz'}:" for name in "bd"
    ]


def test_bare_labels_need_the_spacing_of_the_option_that_train_has(tmp_path):
    save(tmp_path / "images" / "a.npy", turned(random_image()))
    path = save(tmp_path / "labels" / "a.npy", turned(random_labels()))
    assert refusal(source(tmp_path)) == f"{path}: an .npy file carries no spacing; give spacing_mm=(z, y, x)"


def test_a_file_spacing_that_no_label_file_needs_is_refused(study):
    assert refusal(source(study, spacing_mm=(4, 1, 1))) == (
        f"spacing_mm= is for files without one, such as .npy; {study / 'labels' / 'a.nii.gz'} carries its own spacing"
    )


# --- what is read ---


def test_training_cases_carry_codes_and_validation_cases_their_reference(study):
    found = read(source(study, split=str(study / "split.json")))
    a, c = found.cases["a"], found.cases["c"]
    np.testing.assert_array_equal(a.image, [turned(random_image(0)), turned(random_image(10))])
    np.testing.assert_array_equal(a.codes, turned(random_labels(0)) // 2 + 1)
    assert (a.image.dtype, a.codes.dtype, a.reference, a.magnitudes) == (np.float16, np.uint8, None, None)
    np.testing.assert_array_equal(c.image, [turned(random_image(2)), turned(random_image(12))])
    np.testing.assert_array_equal(c.reference.array, turned(random_labels(2)) // 2)
    assert (c.codes, c.magnitudes) == (None, None)
    assert c.reference.spacing_mm == pytest.approx((4, 1.5, 0.8))
    assert a.pixel_mm == c.pixel_mm == pytest.approx((1.5, 0.8))


def test_hashes_are_those_of_the_labels_and_of_each_channel(study):
    hashes = read(source(study)).hashes()
    assert sorted(hashes) == ["a", "b", "c", "d"]
    files = [study / "labels" / "b.nii.gz", study / "images" / "b_0000.nii.gz", study / "images" / "b_0001.nii.gz"]
    assert hashes["b"] == [file_hash(path) for path in files]


def test_without_training_arrays_the_validation_cases_stay_whole(study):
    full = read(source(study, split=str(study / "split.json")), TrainConfig(normalize="none"))
    light = full.without_training_arrays()
    assert (light.cases["a"].image.size, light.cases["a"].codes, light.cases["a"].magnitudes) == (0, None, None)
    assert light.cases["c"] is full.cases["c"]
    assert light.hashes() == full.hashes()
    assert full.cases["a"].magnitudes is not None


def test_ignored_voxels_have_code_0_and_classes_count_from_1(job):
    labels = random_labels(values=(0, 2, 4, -1))
    case = read_case(job(labels, random_image(), classes=make_classes((0, 2, 4), ignore=-1)))
    np.testing.assert_array_equal(case.codes, turned(np.where(labels < 0, 0, labels // 2 + 1)))


@pytest.mark.parametrize(
    ("n_classes", "ignore", "dtype"),
    [(254, None, np.uint8), (254, 999, np.uint8), (255, None, np.int16), (255, 999, np.int16), (300, 999, np.int16)],
)
def test_many_classes_take_a_wider_type(job, n_classes, ignore, dtype):
    labels = random_labels(values=(0, 1, n_classes - 1, *([] if ignore is None else [ignore])))
    case = read_case(job(labels, random_image(), classes=make_classes(range(n_classes), ignore=ignore)))
    assert case.codes.dtype == dtype
    np.testing.assert_array_equal(case.codes, turned(np.where(labels == 999, 0, labels + 1)))


def test_each_image_and_channel_has_mean_0_and_sd_1_by_default(study):
    found = read(source(study), TrainConfig(loss="ce"))
    for case in found.cases.values():
        image = case.image.astype(np.float64)
        np.testing.assert_allclose(image.mean(axis=(1, 2, 3)), 0, atol=2e-3)
        np.testing.assert_allclose(image.std(axis=(1, 2, 3)), 1, atol=2e-3)


def test_several_processes_read_what_one_reads(study):
    config = TrainConfig(loss="boundary")
    one, two = (read(source(study), config, jobs=workers).cases for workers in (1, 2))
    assert list(one) == list(two)
    for name, case in one.items():
        np.testing.assert_array_equal(case.image, two[name].image)
        np.testing.assert_array_equal(case.magnitudes, two[name].magnitudes)
        assert case.hashes == two[name].hashes


def test_what_the_headers_of_a_case_are_odd_about_is_noted_once(job):
    sheared = AFFINE.copy()
    sheared[0, 1] = 0.004
    (note,) = read_case(job(random_labels(), random_image(), random_image(1), affine=sheared)).notes
    assert "slightly sheared" in note
    assert read_case(job(random_labels(), random_image())).notes == ()


# --- grids ---


def test_all_cases_whose_image_is_on_another_grid_are_listed(study):
    shifted = AFFINE.copy()
    shifted[0, 3] = 3
    for channel in (0, 1):
        save(study / "images" / f"b_000{channel}.nii.gz", random_image(), shifted)
        save(study / "images" / f"d_000{channel}.nii.gz", random_image(shape=(6, 8, 5)))
    save(study / "images" / "c_0001.nii.gz", random_image(), shifted)
    images, labels = study / "images", study / "labels"
    split = str(study / "split.json")
    assert refusal(source(study, split=split)).splitlines() == [
        "3 of 4 cases cannot be read, and a study without them would be another one; mend them, or leave them out with "
        "split='FILE':",
        f"  b: {images / 'b_0000.nii.gz'}: it lies on another grid than its labels {labels / 'b.nii.gz'}: the origins "
        "differ by (3, 0, 0) mm (right, anterior, superior); corners differ by up to 3.75 voxels; resample one of them",
        f"  c: {images / 'c_0001.nii.gz'}: it lies on another grid than c_0000.nii.gz: the origins differ by (3, 0, 0) "
        "mm (right, anterior, superior); corners differ by up to 3.75 voxels; resample it",
        f"  d: {images / 'd_0000.nii.gz'}: it lies on another grid than its labels {labels / 'd.nii.gz'}: the shapes "
        "differ: (6, 9, 5) and (6, 8, 5); resample one of them",
    ]


@pytest.mark.parametrize(("image", "labels"), [("npy", "nii.gz"), ("nii.gz", "npy"), ("npy", "npy")])
def test_a_file_without_a_grid_fits_one_of_its_shape(tmp_path, image, labels):
    for folder, suffix, array in (("images", image, random_image()), ("labels", labels, random_labels())):
        save(tmp_path / folder / f"a.{suffix}", turned(array) if suffix == "npy" else array)
    where = source(tmp_path, spacing_mm=(4, 3, 2) if labels == "npy" else None)
    case = read(where, TrainConfig(loss="ce", normalize="none", val=0)).cases["a"]
    np.testing.assert_array_equal(case.image[0], turned(random_image()))
    np.testing.assert_array_equal(case.codes, turned(random_labels()) // 2 + 1)
    assert case.pixel_mm == pytest.approx((3, 2) if labels == "npy" else (1.5, 0.8))


def test_a_file_without_a_grid_does_not_fit_another_shape(job):
    with pytest.raises(GeometryError) as caught:
        read_case(
            job(turned(random_labels()), turned(random_image(shape=(6, 8, 5))), suffix="npy", spacing_mm=(4, 1, 1))
        )
    assert "the shapes (z, y, x) differ: (5, 9, 6) and (5, 8, 6); resample one of them" in str(caught.value)


@pytest.mark.parametrize(("given", "axis"), [(None, 0), (2, 2), (1, 1)])
def test_images_are_sliced_as_their_labels(tmp_path, given, axis):
    affine = np.diag([4.0, 1.5, 1.5, 1])
    save(tmp_path / "images" / "a.nii.gz", random_image(), affine)
    save(tmp_path / "labels" / "a.nii.gz", random_labels(), affine)
    config = TrainConfig(loss="ce", normalize="none", val=0)
    found = read(source(tmp_path, slice_axis=given), config)
    order = {0: (0, 1, 2), 1: (1, 2, 0), 2: (2, 1, 0)}[axis]
    assert found.dataset.files["a"].slice_axis == axis
    np.testing.assert_array_equal(found.cases["a"].image[0], random_image().transpose(order))
    np.testing.assert_array_equal(found.cases["a"].codes, random_labels().transpose(order) // 2 + 1)
    assert found.cases["a"].pixel_mm == pytest.approx(tuple(np.array([4, 1.5, 1.5])[list(order[1:])]))


# --- orientation ---


def stored(array, affine, codes):
    """An array and its affine, its file axes turned."""
    turn = ornt_transform(io_orientation(affine), axcodes2ornt(codes))
    return nib.apply_orientation(array, turn), affine @ inv_ornt_aff(turn, array.shape)


def save_turned(folder, name, seed, *, labels="RAS", image="RAS"):
    for kind, array, codes in (("labels", random_labels(seed), labels), ("images", random_image(seed), image)):
        save(folder / kind / f"{name}.nii.gz", *stored(array, AFFINE, codes))


@pytest.mark.parametrize("codes", ["LPS", "ASR", "SLA", "IRP"])
def test_an_image_with_other_axes_than_its_labels_is_turned_onto_them(tmp_path, codes):
    save_turned(tmp_path, "a", 0, image=codes)
    case = read(source(tmp_path), TrainConfig(loss="ce", normalize="none", val=0)).cases["a"]
    np.testing.assert_array_equal(case.image[0], turned(random_image()))
    np.testing.assert_array_equal(case.codes, turned(random_labels()) // 2 + 1)
    assert case.notes == ()


@pytest.mark.parametrize("codes", ["LPS", "RPI", "ARS", "SLA", "IRP"])
@pytest.mark.parametrize("loss", ["ce", "rrw", "boundary"])
def test_all_cases_are_turned_to_the_order_of_most(tmp_path, codes, loss):
    for seed, name in enumerate("abc"):
        save_turned(tmp_path, name, seed)
    save_turned(tmp_path, "d", 3, labels=codes, image=codes)
    config = TrainConfig(loss=loss, normalize="none", val=0)
    found = read(source(tmp_path), config)
    assert describe_directions(found.directions) == "SAR"
    case = found.cases["d"]
    np.testing.assert_array_equal(case.image[0], turned(random_image(3)))
    np.testing.assert_array_equal(case.codes, turned(random_labels(3)) // 2 + 1)
    assert case.pixel_mm == pytest.approx((1.5, 0.8))
    (note,) = case.notes
    assert note.startswith("warning: its axes (z, y, x) point ")
    assert note.endswith(", those of most training cases SAR; it is turned")
    assert {case.notes for name, case in found.cases.items() if name != "d"} == {()}
    if loss != "ce":
        save_turned(tmp_path, "d", 3)
        straight = read(source(tmp_path), config).cases["d"]
        np.testing.assert_array_equal(case.magnitudes, straight.magnitudes)


def test_a_plane_that_one_case_alone_is_sliced_in_is_left(tmp_path):
    affine = np.diag([3.0, 1.0, 1.0, 1])
    for name in "abcd":
        mine = affine if name != "d" else np.eye(4)  # isotropic: nothing says that its slices lie across R
        for kind, array in (("labels", random_labels()), ("images", random_image())):
            save(tmp_path / kind / f"{name}.nii.gz", array, mine)
    found = read(source(tmp_path), TrainConfig(loss="ce", normalize="none", val=0))
    assert describe_directions(found.directions) == "RAS"
    np.testing.assert_array_equal(found.cases["d"].image, found.cases["a"].image)
    assert found.cases["d"].notes == (
        "warning: its axes (z, y, x) point SAR, those of most training cases RAS; it is turned",
    )


def test_maps_made_slice_by_slice_hold_in_their_own_plane_alone(tmp_path):
    for seed, name in enumerate("abc"):
        save_turned(tmp_path, name, seed)
    save_turned(tmp_path, "c", 2, labels="SAR", image="SAR")  # its slice axis, the last, is R then
    make_maps(tmp_path, "--dims", 2)
    where = source(tmp_path, maps=tmp_path / "maps")
    assert "c.nii.gz: its maps were made slice by slice across its own slice axis" in refusal(where, TrainConfig(val=0))
    make_maps(tmp_path, "--dims", 3, "--overwrite")
    assert sorted(read(where, TrainConfig(val=0)).cases) == ["a", "b", "c"]


def test_a_case_that_was_acquired_in_another_plane_keeps_its_slices(tmp_path):
    for name in "abc":
        affine = np.diag([4.0, 0.8, 0.8, 1] if name == "c" else [0.8, 0.8, 4.0, 1])
        for kind, array in (("labels", random_labels()), ("images", random_image())):
            save(tmp_path / kind / f"{name}.nii.gz", array, affine)
    case = read(source(tmp_path), TrainConfig(loss="ce", normalize="none", val=0)).cases["c"]
    np.testing.assert_array_equal(case.codes, random_labels() // 2 + 1)  # (R, A, S) as stored
    assert case.pixel_mm == pytest.approx((0.8, 0.8))
    assert case.notes == (
        "warning: its axes (z, y, x) point RAS, those of most training cases SAR; its slices stay as acquired",
    )


def test_oblique_cases_are_not_turned_for_lying_on_either_side_of_a_half_right_angle(tmp_path):
    for seed, name in enumerate("abcd"):
        angle = np.radians(43 + seed)
        affine = np.eye(4)
        affine[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        for kind, array in (("labels", random_labels(seed)), ("images", random_image(seed))):
            save(tmp_path / kind / f"{name}.nii.gz", array, affine @ np.diag([1.5, 1.5, 8.0, 1]))
    for case in read(source(tmp_path), TrainConfig(loss="ce", normalize="none", val=0)).cases.values():
        assert (case.turn, case.notes) == (NO_TURN, ())


def test_validation_cases_keep_their_reference_as_stored(tmp_path):
    save_turned(tmp_path, "a", 0)
    save_turned(tmp_path, "b", 1, labels="ASL", image="ASL")
    (tmp_path / "split.json").write_text(json.dumps({"train": ["a"], "val": ["b"]}))
    case = read(source(tmp_path, split=str(tmp_path / "split.json"))).cases["b"]
    np.testing.assert_array_equal(case.image[0], turned(random_image(1)))
    np.testing.assert_array_equal(case.turn.apply(case.reference.array), turned(random_labels(1)) // 2)
    assert case.reference.array.shape == case.reference.geometry.array_shape


def test_what_does_not_say_how_it_lies_is_named_where_others_do(tmp_path):
    for name in "abc":
        save_turned(tmp_path, name, 0)
    for kind, array in (("labels", random_labels()), ("images", random_image())):
        image = nib.Nifti1Image(array, None)
        image.header.set_zooms((0.8, 1.5, 4))
        nib.save(image, tmp_path / kind / "c.nii.gz")
    case = read(source(tmp_path), TrainConfig(loss="ce", normalize="none", val=0)).cases["c"]
    np.testing.assert_array_equal(case.image[0], turned(random_image()))
    assert case.notes == (
        "warning: it does not say how it lies, and is taken as stored; other cases are turned to SAR",
        "the header states no position or orientation",
    )


def test_planes_of_files_that_do_not_say_how_they_lie_are_compared_by_their_axis(tmp_path):
    for name in "abc":
        zooms = (4, 1.5, 1.5) if name == "c" else (1.5, 1.5, 4)
        for kind, array in (("labels", random_labels()), ("images", random_image())):
            image = nib.Nifti1Image(array, None)
            image.header.set_zooms(zooms)
            (tmp_path / kind).mkdir(exist_ok=True)
            nib.save(image, tmp_path / kind / f"{name}.nii.gz")
    found = read(source(tmp_path), TrainConfig(loss="ce", normalize="none", val=0))
    assert found.directions is None
    assert found.cases["c"].notes[0] == (
        "warning: its slices lie across file axis 0, those of most training cases across 2"
    )
    assert found.cases["a"].notes == ("the header states no position or orientation",)


# --- maps ---


def truth(kind, labels):
    if kind == "rrw":
        return -rwtool.rrw_map(labels.array, labels.spacing_mm, n_classes=3, layout="packed")[np.newaxis]
    if kind == "boundary":
        return np.abs(rwtool.boundary_map(labels.array, labels.spacing_mm, n_classes=3))
    return np.sqrt(rwtool.hd_map(labels.array, labels.spacing_mm, n_classes=3))


def make_maps(folder, *options):
    run = ["maps", folder / "labels", folder / "maps", *options, "-q", "-j", 1]
    result = CliRunner().invoke(main, [str(part) for part in run], catch_exceptions=False)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("loss", ["rrw", "wce-rrw", "boundary", "hd"])
def test_maps_of_a_folder_and_maps_computed_now_train_alike(study, loss):
    kind = TrainConfig(loss=loss).map_kind
    make_maps(study, "--kind", kind)
    (study / "maps" / kind / "c.nii.gz").unlink()  # of a validation case, which needs none
    config, split = TrainConfig(loss=loss), str(study / "split.json")
    computed, found = (read(source(study, split=split, maps=maps), config) for maps in (None, study / "maps"))
    for name in "ab":
        labels = rwtool.read_labels(study / "labels" / f"{name}.nii.gz", classes=(0, 2, 4))
        for case in (found.cases[name], computed.cases[name]):
            assert case.magnitudes.dtype == np.float16
            np.testing.assert_allclose(case.magnitudes, truth(kind, labels), rtol=1e-3)
    assert {found.cases[name].magnitudes for name in "cd"} == {None}


def test_all_training_cases_whose_map_does_not_fit_are_listed(study):
    make_maps(study)
    save(study / "labels" / "a.nii.gz", random_labels(77))
    save(study / "labels" / "c.nii.gz", random_labels(78))  # validated on: no map is read
    maps = study / "maps" / "rrw"
    (maps / "b.nii.gz").unlink()
    message = refusal(source(study, split=str(study / "split.json"), maps=study / "maps"), TrainConfig())
    assert message.splitlines()[1:] == [
        f"  a: {maps / 'a.nii.gz'}: it was made from other labels (their hash differs); run rwtool maps again",
        f"  b: {maps / 'b.nii.gz'}: no such file, though maps.json names it; run rwtool maps again",
    ]


# --- spacing in the plane ---


def test_a_case_is_resampled_in_the_plane_and_validated_on_its_own_grid(study):
    where = source(study, split=str(study / "split.json"))
    native, found = (
        read(where, TrainConfig(loss="boundary", normalize="none", target_spacing=spacing))
        for spacing in (None, (3.0, 0.4))
    )
    for name in "abcd":
        case = found.cases[name]
        assert case.image.shape == (2, 5, 4, 12)
        assert case.pixel_mm == pytest.approx((9 * 1.5 / 4, 0.4))  # so that the extent stays
        image = resample_slices(native.cases[name].image.astype(np.float32), (4, 12), order=1)
        np.testing.assert_allclose(case.image, image, rtol=0, atol=0.02)
    a, b = native.cases["a"], found.cases["a"]
    np.testing.assert_array_equal(b.codes, resample_slices(a.codes, (4, 12), order=0))
    magnitudes = resample_slices(a.magnitudes.astype(np.float32), (4, 12), order=1)
    np.testing.assert_allclose(b.magnitudes, magnitudes, rtol=0, atol=0.02)
    assert b.magnitudes.shape == (3, 5, 4, 12)
    np.testing.assert_array_equal(found.cases["c"].reference.array, native.cases["c"].reference.array)


def test_a_case_is_resampled_to_so_many_pixels_whatever_its_spacing_and_distances_stay_in_mm(study):
    where = source(study, split=str(study / "split.json"))
    native, found = (
        read(where, TrainConfig(loss="boundary", normalize="none", pixels=pixels)) for pixels in (None, (18, 3))
    )
    case, own = found.cases["a"], native.cases["a"]
    height, width = own.image.shape[2:]
    assert case.image.shape == (2, 5, 18, 3)
    assert case.pixel_mm == pytest.approx((own.pixel_mm[0] * height / 18, own.pixel_mm[1] * width / 3))
    np.testing.assert_array_equal(case.codes, resample_slices(own.codes, (18, 3), order=0))
    magnitudes = resample_slices(own.magnitudes.astype(np.float32), (18, 3), order=1)
    np.testing.assert_allclose(case.magnitudes, magnitudes, rtol=0, atol=0.02)
    assert case.magnitudes.max() > 1
    np.testing.assert_array_equal(found.cases["c"].reference.array, native.cases["c"].reference.array)


# --- half precision ---


def test_each_case_has_the_precision_that_its_own_values_need(job):
    image = random_image().astype(np.float32)
    assert read_case(job(random_labels(), image)).image.dtype == np.float16
    loud = read_case(job(random_labels(), image * 1e4))
    assert loud.image.dtype == np.float32
    np.testing.assert_array_equal(loud.image[0], turned(image * np.float32(1e4)))
    assert read_case(job(random_labels(), image * 1e4, normalization="zscore")).image.dtype == np.float16


# --- statistics of the foreground, for ct ---


def test_foreground_is_what_is_neither_background_nor_ignored(job):
    labels = random_labels(values=(0, 2, 4, 9))
    sampled = sample_foreground(job(labels, random_image(), random_image(1), classes=make_classes((0, 2, 4), ignore=9)))
    inside = turned((labels == 2) | (labels == 4))
    np.testing.assert_array_equal(sampled, [turned(random_image())[inside], turned(random_image(1))[inside]])


@pytest.mark.parametrize(("limit", "step"), [(270, 1), (269, 2), (135, 2), (100, 3), (1, 270)])
def test_a_large_foreground_is_sampled_evenly(job, monkeypatch, limit, step):
    monkeypatch.setattr(module, "_SAMPLES", limit)
    sampled = sample_foreground(job(np.full(SHAPE, 2, np.uint8), random_image()))
    np.testing.assert_array_equal(sampled[0], turned(random_image()).ravel()[::step])
    assert sampled.shape[1] <= limit


def test_ct_takes_its_statistics_from_the_training_cases_alone(study):
    config = TrainConfig(loss="ce", normalize="ct")
    save(study / "images" / "c_0000.nii.gz", 30 * random_image(2))
    found = read(source(study, split=str(study / "split.json")), config)
    assert (found.normalization.kind, len(found.normalization.channels)) == ("ct", 2)
    for channel in (0, 1):
        pooled = np.concatenate(
            [random_image(10 * channel + seed)[random_labels(seed) > 0].astype(float) for seed in (0, 1)]
        )
        low, high = np.percentile(pooled, [0.5, 99.5])
        inside = np.clip(pooled, low, high)
        assert found.normalization.channels[channel] == pytest.approx((low, high, inside.mean(), inside.std()))
    low, high, mean, sd = found.normalization.channels[0]
    expected = (np.clip(turned(30 * random_image(2)), low, high) - mean) / sd
    np.testing.assert_allclose(found.cases["c"].image[0], expected, rtol=0, atol=2e-3)


def test_ct_needs_a_foreground(study):
    for name in "ab":
        save(study / "labels" / f"{name}.nii.gz", np.zeros(SHAPE, np.uint8))
    with pytest.raises(UsageError, match="the foreground of the training images; it is empty"):
        read(source(study, split=str(study / "split.json")), TrainConfig(loss="ce", normalize="ct"))


def test_an_image_that_changes_while_it_is_read_is_refused(job, monkeypatch):
    array = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    one = job(array % 2 * 2, array)
    plain = module.read_channels_of

    def read_and_change(paths, **where):
        found = plain(paths, **where)
        paths[0].write_bytes(b"other")
        return found

    monkeypatch.setattr(module, "read_channels_of", read_and_change)
    with pytest.raises(VolumeError, match=r"image_0\.nii\.gz: it was changed while it was read"):
        read_case(one)
