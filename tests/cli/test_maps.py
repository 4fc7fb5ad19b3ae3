import json

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from commands import run
from mapped import SHAPE, expected, sidecar, write_labels, write_three

import rwtool


@pytest.fixture
def labels(tmp_path):
    return write_three(tmp_path / "labels")


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


def test_all_kinds_come_from_one_command(labels, tmp_path):
    run("maps", labels, tmp_path / "maps", "--kind", "all", "-j", 1)
    for kind in ("boundary", "hd", "rrw"):
        np.testing.assert_array_equal(
            rwtool.read_map(tmp_path / "maps" / kind / "case_2.nii.gz"), expected(labels / "case_2.nii.gz", kind)
        )
    assert {p.name for p in (tmp_path / "maps").iterdir()} == {"ac", "boundary", "constant", "hd", "rrw"}


def test_the_options_of_a_kind_are_those_of_its_function(labels, tmp_path):
    run("maps", labels, tmp_path / "maps", "--profile", "exp", "--sigma", 3, "--instances", "-j", 1)
    found = rwtool.read_map(tmp_path / "maps" / "rrw" / "case_2.nii.gz")
    np.testing.assert_array_equal(found, expected(labels / "case_2.nii.gz", profile="exp", sigma=3.0, instances=True))


def test_a_matrix_is_read_from_a_file_of_rows(labels, tmp_path):
    (tmp_path / "m.csv").write_text("0,1,2\n1.5 , -1, 1\n\n3 1 0.5\n")
    result = run("maps", labels, tmp_path / "maps", "--kind", "matrix", "--matrix", tmp_path / "m.csv", "-j", 1)
    assert f"the matrix has no file per case: {tmp_path / 'maps' / 'matrix' / 'maps.json'} holds its" in result.output
    assert sidecar(tmp_path / "maps" / "matrix")["parameters"]["matrix"] == [[0, 1, 2], [1.5, -1, 1], [3, 1, 0.5]]
    (tmp_path / "m.csv").write_text("0,1,x\n")
    result = run("maps", labels, tmp_path / "maps", "--kind", "matrix", "--matrix", tmp_path / "m.csv", code=2)
    assert "m.csv is to hold a row of numbers for each class, with commas; could not convert" in result.output


def test_absent_classes_are_warned_of_where_0_is_not_neutral(tmp_path):
    write_labels(tmp_path / "labels" / "a.nii.gz", values=(0, 1))
    write_labels(tmp_path / "labels" / "b.nii.gz", values=(0, 3))
    result = run("maps", tmp_path / "labels", tmp_path / "maps", "--kind", "boundary", "-j", 1)
    assert "boundary: label 1 is absent in 1 case" in result.output
    assert "warning: 2 boundary maps with an absent class" in result.output


def test_a_rerun_says_what_is_left_to_do(labels, tmp_path):
    run("maps", labels, tmp_path / "maps", "-j", 1)
    write_labels(labels / "case_1.nii.gz", seed=77)
    (tmp_path / "maps" / "rrw" / "case_2.nii.gz").unlink()
    result = run("maps", labels, tmp_path / "maps", "-j", 1)
    assert "2 cases to do, 1 at once; 1 case unchanged since the last run" in result.output
    result = run("maps", labels, tmp_path / "maps", "--units", "voxel", "-j", 1, code=2)
    assert "maps of other settings (parameters.units: 'mm' and 'voxel')" in result.output
    assert "--overwrite" in result.output
    run("maps", labels, tmp_path / "maps", "--units", "voxel", "-j", 1, "--overwrite")
    assert sidecar(tmp_path / "maps" / "rrw")["unit"] == "voxel"


def test_one_bad_case_never_costs_the_others(labels, tmp_path):
    (labels / "broken.nii.gz").write_bytes((labels / "case_0.nii.gz").read_bytes()[:150])
    result = run("maps", labels, tmp_path / "maps", "-j", 2, code=1)
    assert "1 case failed:" in result.output
    assert f"broken: {labels / 'broken.nii.gz'}: " in result.output
    assert set(sidecar(tmp_path / "maps" / "rrw")["cases"]) == {"case_0", "case_1", "case_2"}


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
        (["LABELS", "OUT", "--kind", "ac", "--units", "mm"], 2, "--units belongs to boundary and hd and rrw and skel"),
        (
            ["LABELS", "OUT", "--kind", "hd", "--convention", "inner"],
            2,
            "--convention belongs to boundary and rrw maps",
        ),
        (["LABELS", "OUT", "--class-weight", "1=2", "--class-weight", "1=3"], 2, "names label 1 twice"),
        (["LABELS", "OUT", "--ignore", "0"], 2, "--ignore 0 is the background, a class like any other"),
        (["LABELS", "OUT", "-q", "-v"], 2, "exclude each other"),
        (["LABELS", "OUT", "--kind", "matrix"], 2, "a matrix map is its K x K numbers; give --matrix"),
        (["LABELS", "OUT", "--kind", "matrix", "--matrix", "LABELS"], 2, "is a directory"),
        (["LABELS", "OUT", "--sigma", "2"], 2, "sigma belongs to --profile exp; found --profile linear"),
        (["LABELS", "OUT", "--kind", "hd", "--instances"], 2, "--instances belongs to ac and constant and rrw"),
        (["LABELS", "OUT", "--profile", "exp", "--kind", "ac"], 2, "--profile belongs to rrw maps"),
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


def test_quiet_prints_nothing(labels, tmp_path):
    assert run("maps", labels, tmp_path / "maps", "-q", "-j", 1).output == ""


def test_a_damaged_sidecar_is_named(labels, tmp_path):
    run("maps", labels, tmp_path / "maps", "-q", "-j", 1)
    (tmp_path / "maps" / "rrw" / "maps.json").write_text("{")
    result = run("maps", labels, tmp_path / "maps", "-q", "-j", 1, code=1)
    assert "maps.json: not a readable sidecar" in result.output


def test_real_kits19_slices_are_file_axis_0(tmp_path, test_data):
    source = test_data / "kits19" / "labels" / "case_00030.nii.gz"
    run("maps", source, tmp_path / "maps", "-j", 1)
    assert sidecar(tmp_path / "maps" / "rrw")["cases"]["case_00030"]["slice_axis"] == 0
    run("check", tmp_path / "maps" / "rrw", "--labels", source)


def test_real_spine_with_14_labels_up_to_100(tmp_path, test_data):
    run("maps", test_data / "spine" / "reference", tmp_path / "maps", "-j", 1, "--kind", "rrw", "--kind", "hd")
    values = [entry["value"] for entry in sidecar(tmp_path / "maps" / "rrw")["classes"]]
    assert (len(values), values[-1]) == (15, 100)


def test_a_folder_without_volumes_is_named(tmp_path):
    (tmp_path / "my labels").mkdir()
    result = run("maps", tmp_path / "my labels", tmp_path / "maps", code=2)
    assert "no volumes found in this folder" in result.output


def test_hd_beyond_float32_is_refused(labels, tmp_path):
    result = run("maps", labels, tmp_path / "maps", "--kind", "hd", "--alpha", 600, "-j", 1, code=1)
    assert "to the power 600 is too large for float32; choose a smaller alpha" in result.output
    assert not list((tmp_path / "maps" / "hd").glob("case*"))


def test_an_out_that_cannot_be_made_is_named(labels, tmp_path):
    (tmp_path / "file").write_text("")
    result = run("maps", labels, tmp_path / "file" / "maps", "-j", 1, code=1)
    assert f"{tmp_path / 'file' / 'maps' / 'rrw'}: cannot be written: " in result.output
