import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from cohorts import QUICK, discs, names_in, save, voxels
from commands import run, said

import rwtool
from rwtool.network.checkpoint import load_checkpoint

torch.set_num_threads(1)


@pytest.fixture
def trained(quick):
    return quick.folder


def predict(*arguments, code=0):
    return run("predict", *arguments, "--amp", "off", code=code)


def test_it_says_what_is_predicted_by_what_and_where_the_files_are(cohort, trained, tmp_path):
    lines = predict(trained, cohort / "images", tmp_path / "out").stdout.splitlines()
    assert lines[0] == "6 cases of 1 channel; classes 0 background, 1, 2; after 2 epochs of 2"
    assert lines[-1] == f"6 label files in {tmp_path / 'out'}"
    assert names_in(tmp_path / "out") == {f"case_{index}.nii.gz" for index in range(6)}


def test_the_options_are_those_of_the_function(cohort, trained, tmp_path):
    checkpoint = load_checkpoint(trained / "last.pt")
    model = {name: -value for name, value in checkpoint.model.items()}
    config = replace(checkpoint.config, augment=True, flip="x")
    for name, weights in (("last", checkpoint.model), ("best", model)):
        replace(checkpoint, config=config, model=weights).save(tmp_path / "run" / f"{name}.pt")
    image = np.asarray(voxels(cohort / "images" / "case_0.nii.gz"))
    np.save(tmp_path / "case_0.npy", image)
    options = ["--checkpoint", "best", "--tta", "--probabilities", "--device", "cpu", "-j", 1]
    predict(tmp_path / "run", tmp_path / "case_0.npy", tmp_path / "a", *options, "--spacing", 4, 1.5, 0.8)
    rwtool.predict(
        tmp_path / "run", tmp_path / "case_0.npy", tmp_path / "b", checkpoint="best", tta=True, probabilities=True,
        spacing_mm=(4, 1.5, 0.8), amp="off",
    )  # fmt: skip
    for name in ("case_0.npy", "probabilities/case_0.npy"):
        np.testing.assert_array_equal(np.load(tmp_path / "a" / name), np.load(tmp_path / "b" / name))
    predict(tmp_path / "run", tmp_path / "case_0.npy", tmp_path / "c", "--spacing", 4, 1.5, 0.8)
    assert names_in(tmp_path / "c") == {"case_0.npy"}
    assert (np.load(tmp_path / "c" / "case_0.npy") != np.load(tmp_path / "a" / "case_0.npy")).any()


def test_quiet_prints_nothing(cohort, trained, tmp_path):
    assert predict(trained, cohort / "images", tmp_path, "-q").output == ""


def test_label_files_that_are_there_are_never_replaced_unasked(cohort, trained, tmp_path):
    shutil.copytree(cohort / "labels", tmp_path / "labels")
    truth = {path.name: path.read_bytes() for path in (tmp_path / "labels").iterdir()}
    result = predict(trained, cohort / "images", tmp_path / "labels", code=2)
    assert "holds label files of 6 of these cases, first case_0.nii.gz; --overwrite replaces them" in result.output
    assert {path.name: path.read_bytes() for path in (tmp_path / "labels").iterdir()} == truth
    predict(trained, cohort / "images", tmp_path / "labels", "--overwrite")
    assert all(path.read_bytes() != truth[path.name] for path in (tmp_path / "labels").iterdir())


def test_one_damaged_image_costs_only_itself(cohort, trained, tmp_path):
    images = tmp_path / "images"
    shutil.copytree(cohort / "images", images)
    (images / "case_1.nii.gz").write_bytes((images / "case_1.nii.gz").read_bytes()[:200])
    image = discs(5)[0].astype(np.float32)
    image[0, 0, 0] = np.nan
    save(images / "case_5.nii.gz", image)
    result = predict(trained, images, tmp_path / "out", "-j", 3, code=1)
    assert "2 cases failed:" in result.output
    assert f"case_1: {images / 'case_1.nii.gz'}: cannot be read" in result.output
    assert f"case_5: {images / 'case_5.nii.gz'}: expected finite intensities; found nan" in result.output
    assert "4 label files in" in result.output
    assert names_in(tmp_path / "out") == {f"case_{index}.nii.gz" for index in (0, 2, 3, 4)}


def test_a_folder_that_is_no_run_is_refused(cohort, trained, tmp_path):
    (tmp_path / "empty").mkdir()
    result = predict(tmp_path / "empty", cohort / "images", tmp_path / "out", code=2)
    assert "no last.pt here; name the folder of a run of rwtool train" in result.output
    assert "does not exist" in predict(tmp_path / "missing", cohort / "images", tmp_path / "out", code=2).output
    (tmp_path / "last.pt").write_bytes((trained / "last.pt").read_bytes()[:3000])
    result = predict(tmp_path, cohort / "images", tmp_path / "out", code=1)
    assert "last.pt: cannot be read as a checkpoint; train again, or use another one" in result.output
    result = predict(cohort / "images" / "case_0.nii.gz", cohort / "images", tmp_path / "out", code=1)
    assert "case_0.nii.gz: cannot be read as a checkpoint" in result.output
    assert not (tmp_path / "out").exists()


def test_runs_of_several_seeds_are_named(cohort, tmp_path):
    rwtool.train(cohort / "images", cohort / "labels", tmp_path, seeds=[3, 4], **QUICK)
    result = predict(tmp_path, cohort / "images", tmp_path / "out", code=2)
    assert f"holds 2 runs; name one of them: {tmp_path / 'seed-3'}, {tmp_path / 'seed-4'}" in said(result)
    predict(tmp_path / "seed-4", cohort / "images", tmp_path / "out")


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("nonsense", "--device nonsense is not auto, cpu, cuda or cuda:i"),
        ("mps", "--device mps is not auto, cpu, cuda or cuda:i"),
        (f"cuda:{torch.cuda.device_count()}", "CUDA devices; give --device cpu"),
    ],
)
def test_a_device_that_is_not_there_is_refused(cohort, trained, tmp_path, device, message):
    result = predict(trained, cohort / "images", tmp_path / "out", "--device", device, code=2)
    assert message in said(result)
