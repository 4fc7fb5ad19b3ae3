import os
import shutil
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from cohorts import (
    AFFINE,
    QUICK,
    THOROUGH,
    dice,
    discs,
    leftover,
    names_in,
    save,
    train,
    voxels,
    weights,
    write_cohort,
)
from commands import run, said
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

import rwtool
import rwtool.network.predict as predict_module
from rwtool.claims import claimed
from rwtool.datasets.classes import make_classes
from rwtool.network.checkpoint import load_checkpoint
from rwtool.network.components import keep_largest
from rwtool.network.segmenter import Segmenter

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def trained(cohort, tmp_path_factory):
    return train(cohort, tmp_path_factory.mktemp("runs") / "thorough", THOROUGH).folder


def predict(*arguments, code=0):
    return run("predict", *arguments, "--amp", "off", code=code)


# What is predicted


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"target_spacing": (1.1, 1.0)},
        {"pixels": (32, 16), "ema": 0.9},
        {"normalize": "ct", "norm": "batch"},
        {"patch": (16, 16), "depth": 3},
        {"amp": "bf16", "normalize": "none"},
    ],
    ids=lambda more: "-".join(more) or "plain",
)
def test_validation_cases_are_predicted_as_at_the_end_of_the_run_to_the_bit(cohort, tmp_path, more):
    run = train(cohort, tmp_path / "run", QUICK, **more).folder
    rwtool.predict(run, cohort / "images", tmp_path / "out", amp=more.get("amp", "auto"))
    assert names_in(tmp_path / "out") == names_in(cohort / "images")
    for path in (run / "predictions").iterdir():
        expected = nib.load(path)
        found = nib.load(tmp_path / "out" / path.name)
        assert len(np.unique(np.asarray(expected.dataobj))) > 1
        np.testing.assert_array_equal(np.asarray(found.dataobj), np.asarray(expected.dataobj))
        np.testing.assert_array_equal(found.affine, expected.affine)
        assert found.get_data_dtype() == expected.get_data_dtype() == np.uint8


@pytest.mark.parametrize(
    ("trained", "device", "found"), [("off", "cpu", "off"), ("fp16", "cuda", "fp16"), ("bf16", "cpu", "off")]
)
def test_the_precision_is_that_of_the_run_where_the_device_has_it(monkeypatch, trained, device, found):
    monkeypatch.setattr("rwtool.network.devices._cpu_has_bf16", lambda: False)
    assert predict_module._amp("auto", trained, torch.device(device)) == found
    assert predict_module._amp("bf16", trained, torch.device(device)) == "bf16"


def test_the_values_are_those_of_the_label_files(tmp_path):
    cohort = write_cohort(tmp_path, values=(0, 1, 4))
    run = train(cohort, tmp_path / "run", THOROUGH).folder
    predict(run, cohort / "images", tmp_path / "out")
    for folder in (tmp_path / "out", run / "predictions"):
        for path in folder.iterdir():
            found, truth = voxels(path), voxels(cohort / "labels" / path.name)
            assert set(np.unique(found)) == {0, 1, 4}
            assert dice(found == 4, truth == 4) > 0.9


def test_two_channels_named_as_by_nnunet(tmp_path):
    cohort = write_cohort(tmp_path)
    for path in list((cohort / "images").iterdir()):
        noise = np.random.default_rng(int(path.name[5])).normal(size=discs(0)[0].shape).astype(np.float32)
        name = path.name.removesuffix(".nii.gz")
        path.rename(path.with_name(f"{name}_0001.nii.gz"))
        save(path.with_name(f"{name}_0000.nii.gz"), noise)
    run = train(cohort, tmp_path / "run", THOROUGH).folder
    result = predict(run, cohort / "images", tmp_path / "out")
    assert "6 cases of 2 channels; classes 0 background, 1, 2; after 20 epochs of 20" in result.output
    assert names_in(tmp_path / "out") == names_in(cohort / "labels")
    for path in (run / "predictions").iterdir():
        np.testing.assert_array_equal(voxels(tmp_path / "out" / path.name), voxels(path))
        assert dice(voxels(path) == 2, voxels(cohort / "labels" / path.name) == 2) > 0.9
    (cohort / "images" / "case_2_0001.nii.gz").unlink()
    result = predict(run, cohort / "images", tmp_path / "out", code=2)
    assert "case_2 lacks channel 0001: found case_2_0000.nii.gz" in result.output
    for index in range(6):
        (cohort / "images" / f"case_{index}_0001.nii.gz").unlink(missing_ok=True)
    assert "case_0 lacks channel 0001" in predict(run, cohort / "images", tmp_path / "out", code=2).output


def test_another_number_of_channels_than_in_training_is_refused(cohort, trained, tmp_path):
    for channel in range(2):
        shutil.copy(cohort / "images" / "case_0.nii.gz", tmp_path / f"case_0_000{channel}.nii.gz")
    numbered = tmp_path / "numbered"
    for source in (cohort / "images").iterdir():
        numbered.mkdir(exist_ok=True)
        shutil.copy(source, numbered / source.name.replace(".nii", "_0000.nii"))
    run = rwtool.train(numbered, cohort / "labels", tmp_path / "run", **QUICK)[0].folder
    result = predict(run, tmp_path, tmp_path / "out", code=2)
    assert "case_0 has 2 channels (case_0_0000.nii.gz, case_0_0001.nii.gz); expected 1, as in training" in result.output
    assert not (tmp_path / "out").exists()


def by_hand(run, image, flips, which="last"):
    """Softmax of a whole image whose sides suit the network: the mean over flips."""
    network = load_checkpoint(run / f"{which}.pt").network().eval()
    image = (image - image.mean()) / image.std()
    x = torch.tensor(image.astype(np.float32).astype(np.float16)).float().unsqueeze(1)
    with torch.inference_mode():
        found = [network(x.flip(axes))[0].softmax(dim=1).flip(axes) for axes in flips]
    return torch.stack(found).mean(dim=0).numpy()


FLIPS = {"none": [()], "y": [(), (2,)], "x": [(), (3,)], "both": [(), (2,), (3,), (2, 3)]}


@pytest.mark.parametrize(("option", "flip"), [([], "both"), (["--tta"], "both"), (["--tta"], "y"), (["--tta"], "x")])
def test_probabilities_are_the_mean_softmax_over_the_flips_of_the_training(cohort, trained, tmp_path, option, flip):
    checkpoint = load_checkpoint(trained / "last.pt")
    replace(checkpoint, config=replace(checkpoint.config, augment=True, flip=flip)).save(tmp_path / "last.pt")
    predict(tmp_path, cohort / "images" / "case_3.nii.gz", tmp_path / "out", "--probabilities", *option)
    assert names_in(tmp_path / "out") == {"case_3.nii.gz", "probabilities"}
    found = nib.load(tmp_path / "out" / "probabilities" / "case_3.nii.gz")
    assert found.get_data_dtype() == np.float32
    np.testing.assert_array_equal(found.affine, nib.load(cohort / "images" / "case_3.nii.gz").affine)
    softmax = np.asarray(found.dataobj).transpose(2, 3, 1, 0)  # (z, K, y, x)
    image = voxels(cohort / "images" / "case_3.nii.gz").T.astype(float)
    np.testing.assert_allclose(softmax, by_hand(trained, image, FLIPS[flip if option else "none"]), atol=1e-5)
    np.testing.assert_allclose(softmax.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(voxels(tmp_path / "out" / "case_3.nii.gz").T, softmax.argmax(axis=1))
    if option:
        assert np.abs(softmax - by_hand(trained, image, FLIPS["none"])).max() > 0.01


@pytest.mark.parametrize("untrained", [{"augment": False, "flip": "both"}, {"augment": True, "flip": "none"}])
def test_flips_that_were_not_trained_are_refused(cohort, trained, tmp_path, untrained):
    checkpoint = load_checkpoint(trained / "last.pt")
    replace(checkpoint, config=replace(checkpoint.config, **untrained)).save(tmp_path / "last.pt")
    result = predict(tmp_path, cohort / "images", tmp_path / "out", "--tta", code=2)
    assert "it was trained without flips, so --tta would harm; leave it out" in said(result)


def test_probabilities_of_resampled_slices_sum_to_1_on_the_grid_of_the_image(cohort, tmp_path):
    run = train(cohort, tmp_path / "run", target_spacing=(1.1, 1.0)).folder
    predict(run, cohort / "images", tmp_path / "out", "--probabilities")
    for path in (tmp_path / "out" / "probabilities").iterdir():
        softmax, labels = nib.load(path), nib.load(tmp_path / "out" / path.name)
        assert softmax.shape == (*labels.shape, 3)
        np.testing.assert_allclose(np.asarray(softmax.dataobj).sum(axis=3), 1, atol=1e-5)
        np.testing.assert_array_equal(np.asarray(softmax.dataobj).argmax(axis=3), np.asarray(labels.dataobj))
        assert softmax.affine == pytest.approx(AFFINE)


def test_best_and_last_are_the_checkpoints_of_their_names(cohort, trained, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    last = load_checkpoint(trained / "last.pt")
    last.save(run / "last.pt")
    worse = {name: -value for name, value in last.model.items()}
    replace(last, model=worse, epoch=7).save(run / "best.pt")
    image = cohort / "images" / "case_1.nii.gz"
    predict(run, image, tmp_path / "last")
    predict(run, image, tmp_path / "named", "--checkpoint", "last")
    result = predict(run, image, tmp_path / "best", "--checkpoint", "best")
    predict(run / "best.pt", image, tmp_path / "file")
    found = {name: voxels(tmp_path / name / "case_1.nii.gz") for name in ("last", "named", "best", "file")}
    np.testing.assert_array_equal(found["last"], found["named"])
    np.testing.assert_array_equal(found["best"], found["file"])
    assert "after 7 epochs of 20" in result.output
    for which in ("last", "best"):
        expected = by_hand(run, voxels(image).T.astype(float), [()], which).argmax(axis=1)
        np.testing.assert_array_equal(found[which].T, expected)
    assert (found["last"] != found["best"]).any()


# Files


@pytest.mark.parametrize("suffix", [".nii", ".mha", ".nrrd", ".npy"])
def test_other_formats_give_the_labels_of_the_nifti_in_their_own_format(cohort, trained, tmp_path, suffix):
    image = nib.load(cohort / "images" / "case_4.nii.gz")
    path = tmp_path / "images" / f"case_4{suffix}"
    path.parent.mkdir()
    array = np.asarray(image.dataobj).T
    if suffix == ".npy":
        np.save(path, array)
        result = predict(trained, path.parent, tmp_path / "out", code=2)
        assert "case_4.npy: an .npy file carries no spacing; give --spacing Z Y X" in result.output
    elif suffix == ".nii":
        nib.save(image, path)
    else:
        sitk.WriteImage(sitk.ReadImage(str(cohort / "images" / "case_4.nii.gz")), str(path))
    more = ["--spacing", 4, 1.5, 0.8, "--probabilities"] if suffix == ".npy" else []
    predict(trained, path.parent, tmp_path / "out", *more)
    predict(trained, cohort / "images" / "case_4.nii.gz", tmp_path / "nifti")
    expected = voxels(tmp_path / "nifti" / "case_4.nii.gz").T
    out = tmp_path / "out" / f"case_4{suffix}"
    if suffix == ".npy":
        found = np.load(out)
        assert np.load(tmp_path / "out" / "probabilities" / "case_4.npy").shape == (3, *found.shape)
    else:
        found = sitk.GetArrayFromImage(sitk.ReadImage(str(out)))
        assert sitk.ReadImage(str(out)).GetSpacing() == sitk.ReadImage(str(path)).GetSpacing()
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("suffix", "written"), [(".png", ".png"), (".jpg", ".png")])
def test_pictures_give_pictures_without_loss(cohort, trained, tmp_path, suffix, written):
    path = tmp_path / f"case_0{suffix}"
    picture = (voxels(cohort / "images" / "case_0.nii.gz").T[0] // 2).clip(0, 255).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(picture), str(path))
    predict(trained, path, tmp_path / "out", "--spacing", 1, 1.5, 0.8)
    found = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / f"case_0{written}")))
    assert found.shape == picture.shape
    assert set(np.unique(found)) == {0, 1, 2}


def test_a_slice_axis_named_in_training_holds_in_prediction(tmp_path):
    # equal spacings, so that nothing but the option says that these files are slice first
    grid = {"affine": np.diag([2.0, 2.0, 2.0, 1.0]), "turn": (0, 1, 2)}
    cohort = write_cohort(tmp_path, **grid)
    train(cohort, tmp_path / "run", slice_axis=0)
    predict(tmp_path / "run", cohort / "images", tmp_path / "out")
    for path in (tmp_path / "run" / "predictions").iterdir():
        np.testing.assert_array_equal(voxels(tmp_path / "out" / path.name), voxels(path))
    predict(tmp_path / "run", cohort / "images" / path.name, tmp_path / "other", "--slice-axis", 2)
    assert (voxels(tmp_path / "other" / path.name) != voxels(path)).any()


@pytest.mark.parametrize("codes", ["LPS", "ASR", "SLA"])
def test_an_image_with_other_axes_is_turned_as_in_training_and_its_labels_back(cohort, trained, tmp_path, codes):
    straight = nib.load(cohort / "images" / "case_1.nii.gz")
    turn = ornt_transform(io_orientation(straight.affine), axcodes2ornt(codes))
    (tmp_path / "images").mkdir()
    nib.save(straight.as_reoriented(turn), tmp_path / "images" / "case_1.nii.gz")
    predict(trained, cohort / "images" / "case_1.nii.gz", tmp_path / "straight", "--probabilities")
    predict(trained, tmp_path / "images", tmp_path / "turned", "--probabilities")
    for place in ("case_1.nii.gz", "probabilities/case_1.nii.gz"):
        expected = nib.load(tmp_path / "straight" / place).as_reoriented(turn)
        found = nib.load(tmp_path / "turned" / place)
        assert len(np.unique(np.asarray(found.dataobj))) > 1
        np.testing.assert_array_equal(np.asarray(found.dataobj), np.asarray(expected.dataobj))
        np.testing.assert_allclose(found.affine, expected.affine, atol=1e-5)


def test_a_run_of_cases_in_several_orientations_validates_as_one_of_a_single_one(cohort, trained, tmp_path):
    shutil.copytree(cohort / "images", tmp_path / "images")
    shutil.copytree(cohort / "labels", tmp_path / "labels")
    for index, codes in ((0, "LPS"), (2, "SLA"), (5, "ASR")):
        for kind in ("images", "labels"):
            path = tmp_path / kind / f"case_{index}.nii.gz"
            image = nib.load(path)
            turned = image.as_reoriented(ornt_transform(io_orientation(image.affine), axcodes2ornt(codes)))
            nib.save(nib.Nifti1Image(np.asarray(turned.dataobj), turned.affine), path)
    run = train(tmp_path, tmp_path / "run", THOROUGH).folder
    assert weights(run) == weights(trained)
    for path in (run / "predictions").iterdir():
        found, expected = nib.load(path), nib.load(trained / "predictions" / path.name)
        turn = ornt_transform(io_orientation(expected.affine), io_orientation(found.affine))
        np.testing.assert_array_equal(np.asarray(found.dataobj), np.asarray(expected.as_reoriented(turn).dataobj))


def test_files_are_never_written_where_the_images_are(cohort, trained, tmp_path):
    before = {path: path.read_bytes() for path in (cohort / "images").iterdir()}
    os.symlink(cohort / "images", tmp_path / "link")
    for out in (cohort / "images", cohort / "images" / ".." / "images", tmp_path / "link"):
        result = predict(trained, cohort / "images", out, code=2)
        assert "where the images are; choose another OUT" in result.output
    assert {path: path.read_bytes() for path in (cohort / "images").iterdir()} == before


def test_a_glob_is_predicted_and_what_a_killed_process_left_is_removed(cohort, trained, tmp_path):
    leftover(tmp_path / "out")
    predict(trained, cohort / "images" / "case_[12].nii.gz", tmp_path / "out")
    assert names_in(tmp_path / "out") == {"case_1.nii.gz", "case_2.nii.gz"}
    result = predict(trained, cohort / "nothing*.nii.gz", tmp_path / "out", code=2)
    assert "no file matches this glob" in result.output


# Runs


def test_a_run_without_a_validation_has_no_best_checkpoint(cohort, tmp_path):
    train(cohort, tmp_path / "run", val=0)
    predict(tmp_path / "run", cohort / "images", tmp_path / "out")
    result = predict(tmp_path / "run", cohort / "images", tmp_path / "out", "--checkpoint", "best", code=2)
    assert "there is no best.pt (no validation has been done yet); found last.pt" in result.output


def test_python_gives_the_files_and_the_reasons(cohort, trained, tmp_path):
    found = rwtool.predict(trained, cohort / "images", tmp_path, amp="off")
    assert found.files == {f"case_{index}": tmp_path / f"case_{index}.nii.gz" for index in range(6)}
    outcomes = found.outcomes
    assert [outcome.name for outcome in outcomes] == [f"case_{index}" for index in range(6)]
    assert [outcome.result for outcome in outcomes] == [tmp_path / f"case_{index}.nii.gz" for index in range(6)]
    assert {outcome.error for outcome in outcomes} == {None}


def test_more_than_255_labels_are_written_as_uint16(tmp_path):
    cohort = write_cohort(tmp_path)
    for path in (cohort / "labels").iterdir():
        save(path, (voxels(path).T.astype(np.uint16) * 300))
    run = train(cohort, tmp_path / "run").folder
    for path in (run / "predictions").iterdir():
        assert nib.load(path).get_data_dtype() == np.uint16
        assert set(np.unique(voxels(path))) == {0, 300, 600}


def test_what_an_image_is_odd_about_is_said_once(cohort, trained, tmp_path):
    for name in ("case_0", "case_1"):
        image = nib.load(cohort / "images" / f"{name}.nii.gz")
        voxels_m = nib.Nifti1Image(np.asarray(image.dataobj), np.diag([0.001, 0.001, 0.001, 1]) @ image.affine)
        voxels_m.header.set_xyzt_units("meter")
        (tmp_path / "images").mkdir(exist_ok=True)
        nib.save(voxels_m, tmp_path / "images" / f"{name}.nii.gz")
    note = "note: 2 cases, first case_0: lengths are in metres and were converted to mm"
    result = predict(trained, tmp_path / "images", tmp_path / "out")
    assert note in " ".join(result.stderr.split())
    assert "note" not in predict(trained, tmp_path / "images", tmp_path / "out", "--overwrite", "--quiet").output


def test_ignored_voxels_are_predicted_as_others(tmp_path):
    cohort = write_cohort(tmp_path)
    for path in (cohort / "labels").iterdir():
        labels = voxels(path).T.copy()
        labels[:, 1::3, 1::3] = 9
        save(path, labels)
    done = train(cohort, tmp_path / "run", THOROUGH, ignore=9)
    assert done.validation.mean_dice > 0.9
    classes = load_checkpoint(tmp_path / "run" / "last.pt").task.classes
    assert classes == make_classes([0, 1, 2], ignore=9, source="the values in the label files")
    for path in (tmp_path / "run" / "predictions").iterdir():
        found, truth = voxels(path), voxels(cohort / "labels" / path.name)
        assert set(np.unique(found)) == {0, 1, 2}
        whole = discs(int(path.name[5]))[1].T
        assert dice((found == 2) & (truth == 9), (whole == 2) & (truth == 9)) > 0.8


def test_the_softmax_of_one_case_is_the_one_that_is_written(trained, cohort, tmp_path):
    rwtool.predict(trained, cohort / "images", tmp_path / "out", probabilities=True, amp="off")
    written = nib.load(tmp_path / "out" / "probabilities" / "case_3.nii.gz")
    for images in (cohort / "images", cohort / "images" / "case_3.nii.gz"):
        found = predict_module.predict_softmax(trained, images, "case_3")
        np.testing.assert_array_equal(found.softmax.transpose(3, 2, 1, 0), np.asarray(written.dataobj))
        np.testing.assert_allclose(found.geometry.affine_mm, written.affine)
        assert (found.classes.values, found.paths) == ((0, 1, 2), (cohort / "images" / "case_3.nii.gz",))
    with pytest.raises(rwtool.UsageError, match="no image for nobody"):
        predict_module.predict_softmax(trained, cohort / "images", "nobody")


# On request


def spotted(labels):
    """Labels with a lone voxel of each class in the corners, as a poor network finds them."""
    spotted = labels.copy()
    spotted[0, 0, 0] = spotted[-1, 0, -1] = 1
    spotted[-1, -1, 0] = 2
    return spotted


@pytest.mark.parametrize("probabilities", [False, True])
def test_the_largest_piece_of_each_class_is_kept_on_the_grid_of_the_image(
    cohort, trained, tmp_path, monkeypatch, probabilities
):
    labels = Segmenter.labels
    softmax = Segmenter.probabilities

    def poor_softmax(self, image, size):
        found = softmax(self, image, size)
        wanted = spotted(found.argmax(axis=0))
        for k in range(3):
            found[k][wanted == k] += 2
        return found

    monkeypatch.setattr(Segmenter, "labels", lambda *arguments: spotted(labels(*arguments)))
    monkeypatch.setattr(Segmenter, "probabilities", poor_softmax)
    more = ["--probabilities"] if probabilities else []
    predict(trained, cohort / "images", tmp_path / "all", *more)
    predict(trained, cohort / "images", tmp_path / "kept", "--keep-largest", *more)
    for path in (tmp_path / "all").glob("*.nii.gz"):
        every, kept = voxels(path), voxels(tmp_path / "kept" / path.name)
        np.testing.assert_array_equal(kept, keep_largest(every))
        assert (every != kept).sum() >= 3
    if probabilities:
        files = [tmp_path / name / "probabilities" / "case_0.nii.gz" for name in ("all", "kept")]
        np.testing.assert_array_equal(voxels(files[0]), voxels(files[1]))


def test_the_checkpoint_of_an_epoch_predicts(cohort, tmp_path):
    run = train(cohort, tmp_path / "run", checkpoint_every=1).folder
    image = cohort / "images" / "case_0.nii.gz"
    result = predict(run, image, tmp_path / "first", "--checkpoint", 1)
    assert "after 1 epoch of 2" in result.output
    predict(run / "checkpoints" / "epoch-1.pt", image, tmp_path / "file")
    predict(run, image, tmp_path / "second", "--checkpoint", 2)
    predict(run, image, tmp_path / "last")
    first, file, second, last = (
        voxels(tmp_path / name / "case_0.nii.gz") for name in ("first", "file", "second", "last")
    )
    np.testing.assert_array_equal(first, file)
    np.testing.assert_array_equal(second, last)
    assert (first != second).any()
    result = predict(run, image, tmp_path / "out", "--checkpoint", 7, code=2)
    assert "no checkpoint of epoch 7 was kept (found those of 1, 2); give --checkpoint last, or train with" in said(
        result
    )


def test_a_case_that_memory_does_not_hold_is_refused_unless_jobs_are_given(cohort, trained, tmp_path, monkeypatch):
    big = np.zeros((40, 200, 24), dtype=np.int16)
    shutil.copytree(cohort / "images", tmp_path / "images")
    save(tmp_path / "images" / "big.nii.gz", big)
    monkeypatch.setattr("rwtool.parallel.available_memory", lambda: 502_000_000)
    result = predict(trained, tmp_path / "images", tmp_path / "out", code=1)
    assert "big: it needs about 0.6 GB of memory and 0.5 GB are free; free some, or give --jobs 1 to try" in said(
        result
    )
    assert names_in(tmp_path / "out") == names_in(cohort / "images")
    predict(trained, tmp_path / "images", tmp_path / "all", "--jobs", 1)
    assert names_in(tmp_path / "all") == names_in(tmp_path / "images")


# In shards


def test_shards_segment_what_one_run_does_to_the_bit(cohort, quick, tmp_path):
    predict(quick.folder, cohort / "images", tmp_path / "whole", "-q")
    first = predict(quick.folder, cohort / "images", tmp_path / "out", "--shard", "1/2")
    assert "3 of 6 cases (list " in said(first)
    assert "3 label files" in said(first)
    assert "1 of 2 shards ended so far; not yet 2" in said(first)
    second = rwtool.predict(quick.folder, cohort / "images", tmp_path / "out", shard="2/2")
    assert second.standing.missing == ()
    assert names_in(tmp_path / "out") == names_in(tmp_path / "whole") | {"shards"}
    for path in (tmp_path / "whole").iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
    # the records are no predictions
    assert rwtool.evaluate(cohort / "labels", tmp_path / "out").evaluation.failed == []


def test_a_shard_refuses_label_files_of_its_own_cases_alone(cohort, quick, tmp_path):
    rwtool.predict(quick.folder, cohort / "images", tmp_path, shard="1/2")
    rwtool.predict(quick.folder, cohort / "images", tmp_path, shard="2/2")
    printed = said(predict(quick.folder, cohort / "images", tmp_path, "--shard", "1/2", code=2))
    assert "holds label files of 3 of these cases" in printed
    # in another division there are others, which is said
    printed = said(predict(quick.folder, cohort / "images", tmp_path, "--shard", "1/3", "--overwrite"))
    assert "shard 1 of 2, 2 of 2 ran when there were 2 shards, and now there are 3, so cases have moved" in printed
    assert "also those that have ended: --overwrite does what is there anew" in printed


def test_a_folder_that_another_run_predicts_into_is_refused(cohort, trained, tmp_path):
    (tmp_path / "out").mkdir()
    with claimed(tmp_path / "out", "predictions of another run", shared=True, mend="wait"):
        result = predict(trained, cohort / "images", tmp_path / "out", code=2)
    assert f"process {os.getpid()} on " in result.output
    told = " ".join(result.output.split())
    assert "(predictions of another run); wait until it has ended, or name another OUT" in told
    assert names_in(tmp_path / "out") == set()
