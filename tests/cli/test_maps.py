import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from click.testing import CliRunner

import rwtool
from rwtool.cli import main
from rwtool.io.formats import read_channels
from rwtool.io.names import file_hash

SHAPE = (6, 9, 5)  # file axes
AFFINE = np.array([[0, -1.5, 0, 10], [0.8, 0, 0, -20], [0, 0, 4, 30], [0, 0, 0, 1.0]])


def write_labels(path, seed=0, values=(0, 1, 2), shape=SHAPE):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.asarray(values, dtype=np.uint8)[np.random.default_rng(seed).integers(0, len(values), shape)]
    image = nib.Nifti1Image(array, AFFINE)
    image.header.set_sform(AFFINE, 2)
    nib.save(image, path)
    return array


@pytest.fixture
def labels(tmp_path):
    folder = tmp_path / "labels"
    for index in range(3):
        write_labels(folder / f"case_{index}.nii.gz", index)
    return folder


def run(*arguments, code=0):
    result = CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def sidecar(folder):
    return json.loads((folder / "maps.json").read_text())


def expected(path, kind="rrw", **options):
    volume = rwtool.read_labels(path, classes=(0, 1, 2))
    return getattr(rwtool, f"{kind}_map")(volume.array, volume.spacing_mm, n_classes=3, **options)


def test_maps_open_in_nibabel_and_simpleitk_with_the_affine_of_their_labels(labels, tmp_path):
    run("maps", labels, tmp_path / "maps", "-j", 1)
    path, source = tmp_path / "maps" / "rrw" / "case_0.nii.gz", labels / "case_0.nii.gz"
    truth = expected(source)
    image = nib.load(path)
    np.testing.assert_array_equal(image.affine, nib.load(source).affine)
    assert (int(image.header["sform_code"]), image.shape) == (2, (*SHAPE, 3))
    np.testing.assert_array_equal(np.asarray(image.dataobj).transpose(3, 2, 1, 0), truth)
    other, reference = sitk.ReadImage(str(path)), sitk.ReadImage(str(source))
    assert other.GetSpacing()[:3] == reference.GetSpacing()
    assert other.GetOrigin()[:3] == reference.GetOrigin()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(other), truth)


@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        (["--format", "nii"], 0),
        (["--format", "npy"], 0),
        (["--format", "npy", "--dtype", "float16"], 5e-4),
        (["--dtype", "int16"], 2e-5),
        (["--layout", "packed"], 0),
        (["--layout", "packed", "--dtype", "int16", "--format", "nii"], 2e-5),
        (["--layout", "packed", "--format", "npy", "--dtype", "float16"], 5e-4),
    ],
)
def test_read_map_gives_the_dense_map_whatever_is_on_disk(labels, tmp_path, options, tolerance):
    run("maps", labels, tmp_path / "maps", "-j", 1, *options)
    (path,) = (tmp_path / "maps" / "rrw").glob("case_1.*")
    np.testing.assert_allclose(rwtool.read_map(path), expected(labels / "case_1.nii.gz"), rtol=0, atol=tolerance)


def test_npy_is_k_z_y_x_and_int16_carries_its_slope(labels, tmp_path):
    run("maps", labels, tmp_path / "a", "-j", 1, "--format", "npy")
    assert np.load(tmp_path / "a" / "rrw" / "case_0.npy").shape == (3, 5, 9, 6)
    run("maps", labels, tmp_path / "b", "-j", 1, "--dtype", "int16")
    image = nib.load(tmp_path / "b" / "rrw" / "case_0.nii.gz")
    assert image.get_data_dtype() == np.int16
    assert image.dataobj.slope == pytest.approx(1 / 32767)


@pytest.mark.parametrize("format_", ["npy", "nii.gz"])
def test_ignored_voxels_are_marked_in_packed_maps_and_0_in_dense_ones(tmp_path, format_):
    array = write_labels(tmp_path / "labels" / "a.nii.gz", values=(0, 1, 255))
    for layout in ("packed", "dense"):
        arguments = ["--ignore", 255, "--layout", layout, "--format", format_, "-j", 1, "-q"]
        run("maps", tmp_path / "labels", tmp_path / layout, *arguments)
    ignored = (array == 255).transpose(2, 1, 0)
    packed = next(
        iter(
            read_channels(
                tmp_path / "packed" / "rrw" / f"a.{format_}", **({"spacing_mm": (1, 1, 1)} if format_ == "npy" else {})
            )
        )
    ).array
    np.testing.assert_array_equal(np.isnan(packed), ignored)
    dense = rwtool.read_map(tmp_path / "dense" / "rrw" / f"a.{format_}")
    assert (dense[:, ignored] == 0).all()
    np.testing.assert_array_equal(rwtool.read_map(tmp_path / "packed" / "rrw" / f"a.{format_}"), dense)


def test_the_sidecar_says_what_each_number_means(labels, tmp_path):
    run("maps", labels, tmp_path / "maps", "-j", 1, "--class-weight", "2=3", "--units", "voxel")
    content = sidecar(tmp_path / "maps" / "rrw")
    assert content["rwtool"] == rwtool.__version__
    assert content["parameters"] == {
        "kind": "rrw", "convention": "across", "units": "voxel", "dims": 3, "class_weights": {"2": 3.0},
    }  # fmt: skip
    assert content["unit"] == "voxel"
    assert content["other_values"] == [1, 1, 3]
    assert [entry["value"] for entry in content["classes"]] == [0, 1, 2]
    record = content["cases"]["case_0"]
    source = labels / "case_0.nii.gz"
    assert (tmp_path / "maps" / "rrw" / record["source"]).resolve() == source.resolve()
    assert record["source_sha256"] == file_hash(source)
    assert record["source_bytes"] == source.stat().st_size
    assert record["shape"] == [5, 9, 6]
    assert record["spacing_mm"] == pytest.approx([4, 1.5, 0.8])
    assert record["slice_axis"] == 2
    assert (record["absent"], record["filling"]) == ([], [])
    assert set(record["largest_distance"]) == {"0", "1", "2"}
    assert record["seconds"] >= 0


def test_all_kinds_come_from_one_command(labels, tmp_path):
    run("maps", labels, tmp_path / "maps", "--kind", "all", "-j", 1)
    for kind in ("boundary", "hd", "rrw"):
        np.testing.assert_array_equal(
            rwtool.read_map(tmp_path / "maps" / kind / "case_2.nii.gz"), expected(labels / "case_2.nii.gz", kind)
        )
    assert {p.name for p in (tmp_path / "maps").iterdir()} == {"ac", "boundary", "constant", "hd", "rrw"}


def test_non_contiguous_values_are_mapped_and_recorded(tmp_path):
    array = write_labels(tmp_path / "labels" / "a.nii.gz", values=(0, 2, 4))
    run("maps", tmp_path / "labels", tmp_path / "maps", "--kind", "ac", "-j", 1)
    found = rwtool.read_map(tmp_path / "maps" / "ac" / "a.nii.gz")
    np.testing.assert_array_equal(found[2] == 0, array.transpose(2, 1, 0) == 4)
    assert [entry["value"] for entry in sidecar(tmp_path / "maps" / "ac")["classes"]] == [0, 2, 4]


def test_every_case_has_the_channels_of_the_whole_data_set(tmp_path):
    write_labels(tmp_path / "labels" / "a.nii.gz", values=(0, 1))
    write_labels(tmp_path / "labels" / "b.nii.gz", values=(0, 3))
    result = run("maps", tmp_path / "labels", tmp_path / "maps", "--kind", "boundary", "-j", 1)
    assert "boundary: label 1 is absent in 1 case" in result.output
    assert "warning: 2 boundary maps with an absent class" in result.output
    assert rwtool.read_map(tmp_path / "maps" / "boundary" / "a.nii.gz").shape == (3, 5, 9, 6)
    assert sidecar(tmp_path / "maps" / "boundary")["cases"]["a"]["absent"] == [3]


def test_a_rerun_makes_only_what_changed(labels, tmp_path):
    out = tmp_path / "maps"
    run("maps", labels, out, "-j", 1)
    before = {path.name: path.stat().st_mtime_ns for path in (out / "rrw").glob("*.nii.gz")}
    write_labels(labels / "case_1.nii.gz", seed=77)
    (out / "rrw" / "case_2.nii.gz").unlink()
    result = run("maps", labels, out, "-j", 1)
    assert "2 cases to do, 1 at once; 1 case unchanged since the last run" in result.output
    after = {path.name: path.stat().st_mtime_ns for path in (out / "rrw").glob("*.nii.gz")}
    assert before["case_0.nii.gz"] == after["case_0.nii.gz"]
    assert before["case_1.nii.gz"] != after["case_1.nii.gz"]
    np.testing.assert_array_equal(rwtool.read_map(out / "rrw" / "case_1.nii.gz"), expected(labels / "case_1.nii.gz"))


def test_other_parameters_in_one_folder_need_overwrite(labels, tmp_path):
    out = tmp_path / "maps"
    run("maps", labels, out, "-j", 1)
    content = (out / "rrw" / "case_0.nii.gz").read_bytes()
    result = run("maps", labels, out, "--units", "voxel", "-j", 1, code=2)
    assert "maps of other settings (parameters.units: 'mm' and 'voxel'; unit: 'mm' and 'voxel')" in result.output
    assert "overwrite" in result.output
    assert (out / "rrw" / "case_0.nii.gz").read_bytes() == content
    (labels / "case_2.nii.gz").unlink()
    run("maps", labels, out, "--units", "voxel", "-j", 1, "--overwrite")
    assert set(sidecar(out / "rrw")["cases"]) == {"case_0", "case_1"}
    assert not (out / "rrw" / "case_2.nii.gz").exists()
    np.testing.assert_array_equal(
        rwtool.read_map(out / "rrw" / "case_0.nii.gz"), expected(labels / "case_0.nii.gz", units="voxel")
    )


def test_one_bad_case_never_costs_the_others(labels, tmp_path):
    (labels / "broken.nii.gz").write_bytes((labels / "case_0.nii.gz").read_bytes()[:150])
    result = run("maps", labels, tmp_path / "maps", "-j", 2, code=1)
    assert "1 case failed:" in result.output
    assert f"broken: {labels / 'broken.nii.gz'}: " in result.output
    assert set(sidecar(tmp_path / "maps" / "rrw")["cases"]) == {"case_0", "case_1", "case_2"}
    assert sorted(p.name for p in (tmp_path / "maps" / "rrw").iterdir()) == [
        "case_0.nii.gz", "case_1.nii.gz", "case_2.nii.gz", "maps.json",
    ]  # fmt: skip


def test_a_label_outside_the_class_list_fails_its_case_alone(labels, tmp_path):
    write_labels(labels / "odd.nii.gz", values=(0, 1, 7))
    result = run("maps", labels, tmp_path / "maps", "--classes", "0,1,2", "-j", 1, code=1)
    assert "label 7 (" in result.output
    assert "is not in the class list 0, 1, 2" in result.output
    assert len(sidecar(tmp_path / "maps" / "rrw")["cases"]) == 3


def test_dry_run_writes_nothing(labels, tmp_path):
    result = run("maps", labels, tmp_path / "maps", "--dry-run", "-j", 1)
    assert "nothing was written" in result.output
    assert "5 x 9 x 6" in result.output
    assert not (tmp_path / "maps").exists()


def test_dataset_json_beside_or_above_the_labels_names_the_classes(tmp_path):
    root = tmp_path / "Dataset001_Heart"
    write_labels(root / "labelsTr" / "a.nii.gz", values=(0, 1))
    content = {"labels": {"background": 0, "cavity": 1, "wall": 2, "ignore": 3}}
    (root / "dataset.json").write_text(json.dumps(content))
    result = run("maps", root, tmp_path / "maps", "-j", 1)
    assert "3 classes: 0 background, 1 cavity, 2 wall" in result.output
    assert "ignored label: 3" in result.output
    content = {"labels": {"background": 0, "whole": [1, 2], "core": [2]}}
    (root / "dataset.json").write_text(json.dumps(content))
    result = run("maps", root, tmp_path / "maps", "-j", 1, code=2)
    assert "label 'whole' is a region" in result.output
    run("maps", root, tmp_path / "maps2", "--classes", "0,1", "-j", 1)


def test_npy_labels_need_a_spacing(tmp_path):
    (tmp_path / "labels").mkdir()
    array = np.random.default_rng(0).integers(0, 2, (4, 5, 6)).astype(np.uint8)
    np.save(tmp_path / "labels" / "a.npy", array)
    result = run("maps", tmp_path / "labels", tmp_path / "maps", "-j", 1, code=2)
    assert "an .npy file carries no spacing; give " in result.output
    run("maps", tmp_path / "labels", tmp_path / "maps", "-j", 1, "--spacing", 3, 2, 1)
    truth = rwtool.rrw_map(array, (3, 2, 1), n_classes=2)
    np.testing.assert_array_equal(rwtool.read_map(tmp_path / "maps" / "rrw" / "a.nii.gz"), truth)


@pytest.mark.parametrize("shape", [(8, 9), (8, 9, 1), (1, 8, 9)])
def test_2d_files_become_one_slice(tmp_path, shape):
    array = np.random.default_rng(0).integers(0, 2, shape).astype(np.uint8)
    (tmp_path / "labels").mkdir()
    nib.save(nib.Nifti1Image(array, np.diag([2.0, 3.0, 1.0, 1.0])), tmp_path / "labels" / "a.nii.gz")
    run("maps", tmp_path / "labels", tmp_path / "maps", "-j", 1)
    assert rwtool.read_map(tmp_path / "maps" / "rrw" / "a.nii.gz").shape[:2] == (2, 1)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["missing", "OUT"], 2, "missing: no such file or folder"),
        (["missing/*.nii", "OUT"], 2, "no file matches this glob"),
        (["LABELS", "OUT", "--kind", "boundary", "--dtype", "int16"], 2, "boundary maps are stored as float32"),
        (["LABELS", "OUT", "--kind", "hd", "--layout", "packed"], 2, "hd maps cannot be packed"),
        (["LABELS", "OUT", "--dtype", "float16"], 2, "float16 is for --format npy"),
        (["LABELS", "OUT", "--dtype", "int16", "--format", "npy"], 2, "int16 needs the scaling of a NIfTI"),
        (["LABELS", "OUT", "--convention", "kervadec"], 2, "give --units voxel"),
        (["LABELS", "OUT", "--classes", "0,a"], 2, "it is numbers with commas, such as 0,1,2"),
        (["LABELS", "OUT", "--classes", "1,2"], 2, "holds 0 (the background, "),
        (["LABELS", "OUT", "--class-weight", "1"], 2, "--class-weight takes LABEL=NUMBER"),
        (["LABELS", "OUT", "--class-weight", "9=2"], 2, "--class-weight names label 9, which is no class"),
        (["LABELS", "OUT", "--class-weight", "1=2", "--kind", "all"], 2, "--class-weight belongs to"),
        (["LABELS", "OUT", "--alpha", "2"], 2, "--alpha belongs to"),
        (["LABELS", "OUT", "--beta", "2"], 2, "--beta belongs to"),
        (["LABELS", "OUT", "--kind", "ac", "--units", "mm"], 2, "--units belongs to boundary and hd and rrw maps"),
        (
            ["LABELS", "OUT", "--kind", "hd", "--convention", "inner"],
            2,
            "--convention belongs to boundary and rrw maps",
        ),
        (["LABELS", "OUT", "--class-weight", "1=2", "--class-weight", "1=3"], 2, "names label 1 twice"),
        (["LABELS", "OUT", "--ignore", "0"], 2, "the background, which cannot be ignored"),
        (["LABELS", "OUT", "-q", "-v"], 2, "exclude each other"),
        (["LABELS", "OUT", "--slice-axis", "3"], 2, "0<=x<=2"),
        (["LABELS", "OUT", "--spacing", "1", "1", "1"], 2, "carries its own spacing"),
        (["LABELS", "OUT/../labels"], 0, "3 cases to do"),
    ],
)
def test_wrong_use_is_one_readable_message(labels, tmp_path, arguments, code, message):
    words = [word.replace("LABELS", str(labels)).replace("OUT", str(tmp_path / "maps")) for word in arguments]
    (tmp_path / "maps").mkdir()
    result = run("maps", *words, "-j", 1, code=code)
    assert message in result.output
    assert "Traceback" not in result.output


def test_maps_never_go_where_the_labels_are(tmp_path):
    write_labels(tmp_path / "rrw" / "a.nii.gz")
    result = run("maps", tmp_path / "rrw", tmp_path, "-j", 1, code=2)
    assert "where the label files are" in result.output


def test_quiet_prints_nothing(labels, tmp_path):
    assert run("maps", labels, tmp_path / "maps", "-q", "-j", 1).output == ""


def test_a_damaged_sidecar_is_named(labels, tmp_path):
    run("maps", labels, tmp_path / "maps", "-q", "-j", 1)
    (tmp_path / "maps" / "rrw" / "maps.json").write_text("{")
    result = run("maps", labels, tmp_path / "maps", "-q", "-j", 1, code=1)
    assert "maps.json: not a readable sidecar" in result.output


def test_a_moved_project_still_finds_its_labels(labels, tmp_path):
    run("maps", labels, tmp_path / "maps", "-q", "-j", 1, "--layout", "packed")
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    truth = expected(labels / "case_0.nii.gz")
    labels.rename(moved / "labels")
    (tmp_path / "maps").rename(moved / "maps")
    path = moved / "maps" / "rrw" / "case_0.nii.gz"
    np.testing.assert_array_equal(rwtool.read_map(path), truth)
    (moved / "labels").rename(tmp_path / "labels2")
    with pytest.raises(rwtool.VolumeError, match="name it with labels="):
        rwtool.read_map(path)
    np.testing.assert_array_equal(rwtool.read_map(path, labels=tmp_path / "labels2" / "case_0.nii.gz"), truth)
    with pytest.raises(rwtool.VolumeError, match="not the label file"):
        rwtool.read_map(path, labels=tmp_path / "labels2" / "case_1.nii.gz")


def test_real_kits19_slices_are_file_axis_0(tmp_path, test_data):
    source = test_data / "kits19" / "labels" / "case_00030.nii.gz"
    run("maps", source, tmp_path / "maps", "-j", 1)
    assert sidecar(tmp_path / "maps" / "rrw")["cases"]["case_00030"]["slice_axis"] == 0
    run("check", tmp_path / "maps" / "rrw", "--labels", source)


def test_real_spine_with_14_labels_up_to_100(tmp_path, test_data):
    run("maps", test_data / "spine" / "reference", tmp_path / "maps", "-j", 1, "--kind", "rrw", "--kind", "hd")
    values = [entry["value"] for entry in sidecar(tmp_path / "maps" / "rrw")["classes"]]
    assert (len(values), values[-1]) == (15, 100)


def test_paths_are_quoted_for_people(tmp_path):
    (tmp_path / "my labels").mkdir()
    result = run("maps", tmp_path / "my labels", Path(tmp_path) / "maps", code=2)
    assert "no volumes found in this folder" in result.output


def test_a_rerun_with_another_spacing_or_slice_axis_makes_the_maps_anew(labels, tmp_path):
    run("maps", labels, tmp_path / "maps", "-q", "-j", 1, "--dims", 2, "--slice-axis", 0)
    assert "3 cases to do" in run("maps", labels, tmp_path / "maps", "-j", 1, "--dims", 2, "--slice-axis", 2).output
    (tmp_path / "bare").mkdir()
    np.save(tmp_path / "bare" / "a.npy", np.random.default_rng(0).integers(0, 2, (4, 5, 6)).astype(np.uint8))
    for z in (1, 5):
        assert "1 case to do" in run("maps", tmp_path / "bare", tmp_path / "b", "-j", 1, "--spacing", z, 1, 1).output
    assert sidecar(tmp_path / "b" / "rrw")["cases"]["a"]["spacing_mm"] == [5, 1, 1]


def test_overwrite_keeps_the_old_maps_where_nothing_new_can_be_made(labels, tmp_path):
    source = labels / "case_0.nii.gz"
    run("maps", source, tmp_path / "maps", "-q", "-j", 1)
    source.write_bytes(b"damaged")
    run("maps", source, tmp_path / "maps", "-q", "-j", 1, "--units", "voxel", "--overwrite", "--classes", "0,1", code=1)
    assert (tmp_path / "maps" / "rrw" / "case_0.nii.gz").is_file()
    assert sidecar(tmp_path / "maps" / "rrw")["unit"] == "mm"


def test_two_runs_into_one_folder_lose_no_record(labels, tmp_path):
    for name in ("a", "b", "c"):
        write_labels(tmp_path / f"set_{name}" / f"{name}.nii.gz")

    def make(rest):
        """Each run looks before the ones after it have written."""
        name, *others = rest
        rwtool.make_maps(
            tmp_path / f"set_{name}", tmp_path / "maps", jobs=1, on_plan=lambda plan: make(others) if others else None
        )

    make(["a", "b", "c"])
    assert set(sidecar(tmp_path / "maps" / "rrw")["cases"]) == {"a", "b", "c"}
    assert not list((tmp_path / "maps" / "rrw").glob(".*"))


def test_hd_beyond_float32_is_refused(labels, tmp_path):
    result = run("maps", labels, tmp_path / "maps", "--kind", "hd", "--alpha", 600, "-j", 1, code=1)
    assert "to the power 600 is too large for float32; choose a smaller alpha" in result.output
    assert not list((tmp_path / "maps" / "hd").glob("case*"))


def test_an_out_that_cannot_be_made_is_named(labels, tmp_path):
    (tmp_path / "file").write_text("")
    result = run("maps", labels, tmp_path / "file" / "maps", "-j", 1, code=1)
    assert f"{tmp_path / 'file' / 'maps' / 'rrw'}: cannot be written: " in result.output


def test_spacing_is_for_the_files_that_need_it(labels, tmp_path):
    np.save(labels / "bare.npy", np.random.default_rng(0).integers(0, 3, (4, 5, 6)).astype(np.uint8))
    run("maps", labels, tmp_path / "maps", "-q", "-j", 1, "--spacing", 3, 2, 1)
    cases = sidecar(tmp_path / "maps" / "rrw")["cases"]
    assert cases["bare"]["spacing_mm"] == [3, 2, 1]
    assert cases["case_0"]["spacing_mm"] == pytest.approx([4, 1.5, 0.8])
