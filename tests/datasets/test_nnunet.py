import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nnunetfolders import (
    DATASET,
    MODEL,
    describe,
    make_collected,
    make_fold,
    make_model,
    make_predicted,
    make_project,
    put,
)

import rwtool
from rwtool.datasets.nnunet import find_reference, find_results, name_results, search_results, unite_folds
from rwtool.errors import UsageError


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Folder of the models of a data set, as the working folder."""
    found = make_project(tmp_path)
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(variable, str(tmp_path / variable.removeprefix("nnUNet_")))
    monkeypatch.chdir(found)
    return found


def cases(*folders):
    return ["".join(search_results(find_results(Path(folder))).cases) for folder in folders]


def refused(call, *arguments):
    with pytest.raises(UsageError) as found:
        call(*arguments)
    return str(found.value)


# --- what a folder is ---


def test_a_model_is_the_union_of_its_folds(results):
    found = find_results(Path(MODEL))
    assert found.predictions == (Path(MODEL, "fold_0", "validation"), Path(MODEL, "fold_1", "validation"))
    assert (found.validated, found.fold, found.notes) == (True, False, ())
    searched = search_results(found)
    assert {case: str(path) for case, path in searched.cases.items()} == {
        case: f"{MODEL}/fold_{'abcd'.index(case) // 2}/validation/{case}.nii.gz" for case in "abcd"
    }
    assert searched.passed_over == {}  # neither .npz nor .pkl is spoken of


def test_folds_are_in_numeric_order(results):
    for fold in (10, 2):
        make_fold(results / MODEL, fold, f"case{fold}")
    folds = [place.parent.name for place in find_results(Path(MODEL)).predictions]
    assert folds == ["fold_0", "fold_1", "fold_2", "fold_10"]


def test_a_fold_is_its_validation(results):
    assert cases(f"{MODEL}/fold_1", f"{MODEL}/fold_1/", f"{MODEL}/fold_1/validation") == ["cd"] * 3
    assert find_results(Path(MODEL, "fold_1")).fold


@pytest.mark.parametrize("where", [f"{MODEL}/fold_0", MODEL])
def test_the_working_folder_may_be_one(results, where, monkeypatch):
    monkeypatch.chdir(where)
    found = find_results(Path())
    assert found.identity[:4] == (DATASET, "nnUNetTrainer", "nnUNetPlans", "3d_fullres")
    assert all(path.is_file() for path in search_results(found).cases.values())


def test_a_cross_validation_its_postprocessing_an_ensemble_and_predictions(results):
    crossval = make_collected(results / MODEL)
    put(crossval / "postprocessed", "abcd")
    make_collected(results / "ensembles", name=f"ensemble___{MODEL}___{MODEL}___0_1")
    make_predicted(results / "predicted")
    folders = [crossval, crossval / "postprocessed", *(results / "ensembles").iterdir(), results / "predicted"]
    assert cases(*folders) == ["abcd", "abcd", "abcd", "ab"]
    folders.append(make_predicted(results / MODEL / "of_test_cases"))  # beside the folds, and yet no validation
    assert [find_results(folder).validated for folder in folders] == [True, True, True, False, False]


def test_the_folders_of_others_are_none_of_nnunets(results, tmp_path):
    plain = tmp_path / "mine" / "fold_0"
    put(plain, "ab")
    put(tmp_path / "mine" / "fold_0" / "validation", "ab")
    folders = [plain, plain / "validation", plain.parent, tmp_path / "none", tmp_path / "raw" / DATASET]
    folders += [tmp_path / "raw" / DATASET / "labelsTr", tmp_path / "preprocessed" / DATASET, results]
    assert [find_results(folder) for folder in folders] == [None] * len(folders)


def test_a_copy_of_a_fold_is_known_by_what_lies_in_it(results, tmp_path):
    shutil.copytree(results / MODEL / "fold_0", tmp_path / "copy" / "fold_0")
    assert cases(tmp_path / "copy" / "fold_0") == ["ab"]
    assert find_results(tmp_path / "copy" / "fold_0").dataset_json is None


def test_a_folder_that_cannot_be_read_is_named(results, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", refuse)
    with pytest.raises(rwtool.VolumeError, match=r"plans\.json: cannot be read: Permission denied$"):
        find_results(Path(MODEL, "fold_0"))


def test_fold_all_is_refused_and_left_out_beside_others(results):
    make_fold(results / MODEL, "all", "abcdef")
    message = "fold_all is validated on the cases that it was trained on, so its numbers say nothing of new ones"
    for name in (f"{MODEL}/fold_all", f"{MODEL}/fold_all/validation"):
        assert refused(find_results, Path(name)).startswith(f"{name}: {message}; name a numbered fold")
    assert cases(MODEL) == ["abcd"]
    assert find_results(Path(MODEL)).notes == (
        f"{MODEL}: fold_all is left out, since it is validated on the cases that it was trained on",
    )
    for fold in (0, 1):
        shutil.rmtree(results / MODEL / f"fold_{fold}")
    assert message in refused(find_results, Path(MODEL))


def test_a_fold_that_was_not_validated_is_refused(results):
    (results / MODEL / "fold_2").mkdir()
    assert refused(find_results, Path(MODEL)) == (
        f"{MODEL}: no validation/ in fold_2, so unfinished; finish it with nnUNetv2_train, or name the finished folds, "
        f"NAME={MODEL}/fold_0,{MODEL}/fold_1"
    )
    assert refused(find_results, Path(MODEL, "fold_2")) == (
        f"{MODEL}/fold_2: no validation/ in fold_2, so unfinished; finish it with nnUNetv2_train"
    )


def test_a_validation_without_its_summary_is_noted(results):
    (results / MODEL / "fold_1" / "validation" / "summary.json").unlink()
    assert find_results(Path(MODEL)).notes == (
        f"{MODEL}: no summary.json in validation/ of fold_1, so its validation may not be through",
    )


def test_two_folds_with_one_case_are_an_error(results):
    make_fold(results / MODEL, 5, "bd")
    assert refused(search_results, find_results(Path(MODEL))) == (
        f"two folds predicted the same case: b, d ({MODEL}/fold_0/validation/b.nii.gz, "
        f"{MODEL}/fold_5/validation/b.nii.gz); a case is validated once (for a fold that splits_final.json does not "
        "have, such as fold_5, nnU-Net splits at random); name one of them, or NAME=DIR1,DIR2 for folds that share none"
    )


def test_the_files_are_those_of_the_ending_of_the_data_set(results):
    model = make_model(results, "a__b__c", [["x"]], ending=".tif")
    put(model / "fold_0" / "validation", ["x_overlay"], ".png")
    assert cases(model) == ["x"]
    describe(model, ending=".mha")
    assert refused(cases, model) == (
        f"{model}/fold_0/validation: no file ends with .mha, as those of this data set do by {model}/dataset.json; is "
        "it the folder of another one?"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"file_ending": 3}', "$.file_ending: expected str; found 3; mend it, or copy it again from its model"),
        ('{"file_ending": "../x"}', "$.file_ending: expected an ending such as .nii.gz; found '../x'; mend it"),
        ("{", "cannot be read as JSON: "),
    ],
)
def test_a_damaged_dataset_json_is_named(results, text, message):
    (results / MODEL / "dataset.json").write_text(text)
    assert refused(cases, MODEL).partition("dataset.json: ")[2].startswith(message)


# --- names ---


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["T__P__2d"], ["T__P__2d"]),
        (["T__P__2d", "U__P__2d"], ["T", "U"]),
        (["T__P__2d", "T__P__3d_fullres"], ["2d", "3d_fullres"]),
        (["T__P__2d", "U__P__3d_fullres"], ["T__2d", "U__3d_fullres"]),
        (["T__P__2d", "T__Q__2d"], ["P", "Q"]),
        (["T__P__2d/fold_0", "U__P__2d/fold_0"], ["T", "U"]),
        (["T__P__2d/fold_0", "T__P__2d/fold_1"], ["fold_0", "fold_1"]),
        (["T__P__2d", "T__P__2d/fold_1"], ["T__P__2d", "fold_1"]),
        (["T__P__2d", "../Dataset002_Liver/T__P__2d"], [DATASET, "Dataset002_Liver"]),
        (["T__P__2d", "U__P__2d", "predicted"], ["T", "U", "predicted"]),
        (["T__P__2d/crossval_results_folds_0_1", "U__P__2d"], ["T__crossval_results_folds_0_1", "U"]),
        (["renamed", "T__P__2d"], ["renamed", "T__P__2d"]),
    ],
)
def test_methods_are_named_by_what_differs(results, folders, names):
    for name in ("T__P__2d", "U__P__2d", "T__P__3d_fullres", "U__P__3d_fullres", "T__Q__2d", "renamed"):
        make_model(results, name)
    make_model(results.parent / "Dataset002_Liver", "T__P__2d")
    make_collected(results / "T__P__2d")
    make_predicted(results / "predicted")
    assert name_results([find_results(Path(folder)) for folder in folders]) == names


def test_folds_of_one_model_are_united(results):
    make_fold(results / MODEL, 2, "ef")
    found = unite_folds([find_results(Path(MODEL, f"fold_{fold}")) for fold in (0, 2)])
    assert "".join(search_results(found).cases) == "abef"
    assert found.notes == (f"{results / MODEL}: fold_0, fold_2 alone",)


# --- references ---


def reference(wanted, *folders):
    return find_reference([find_results(Path(folder)) for folder in folders], wanted)


def test_references_are_those_of_raw_else_of_preprocessed(results, tmp_path, monkeypatch):
    assert reference("abcd", MODEL) == tmp_path / "raw" / DATASET / "labelsTr"
    (tmp_path / "raw" / DATASET / "labelsTr" / "d.nii.gz").unlink()
    assert reference("abc", MODEL) == tmp_path / "raw" / DATASET / "labelsTr"
    assert reference("abcd", MODEL) == tmp_path / "preprocessed" / DATASET / "gt_segmentations"
    monkeypatch.delenv("nnUNet_raw")
    assert reference("abc", MODEL) == tmp_path / "preprocessed" / DATASET / "gt_segmentations"
    monkeypatch.setenv("nnUNet_preprocessed", "elsewhere")
    assert refused(reference, "abc", MODEL) == (
        "no reference was given, and nnU-Net's folders hold none of every case: the variable nnUNet_raw is not "
        f"set; there is no elsewhere/{DATASET}/gt_segmentations; give reference= before the predictions, or set the "
        "variables"
    )


def test_predictions_of_test_cases_have_theirs(results, tmp_path):
    raw = tmp_path / "raw" / DATASET
    make_predicted(results / "predicted", "xy")
    assert f"{raw}/labelsTr lacks x, y; " in refused(reference, "xy", "predicted")
    put(raw / "labelsTs", "xyz")
    assert reference("xy", "predicted") == raw / "labelsTs"
    assert f"{raw}/labelsTr lacks x, y; " in refused(reference, "xy", MODEL)  # a validation is of training cases
    put(raw / "labelsTr", "xy")
    assert refused(reference, "xy", "predicted").startswith(
        f"{raw}/labelsTr and {raw}/labelsTs have references of these names; give reference="
    )


def test_the_plans_say_the_data_set_else_the_folders_do(results, tmp_path):
    copy = tmp_path / "elsewhere" / "T__P__2d"
    shutil.copytree(results / MODEL, copy)
    assert reference("ab", copy) == tmp_path / "raw" / DATASET / "labelsTr"
    for model in (copy, results / MODEL):
        (model / "plans.json").unlink()
    assert reference("ab", MODEL) == tmp_path / "raw" / DATASET / "labelsTr"
    assert refused(reference, "ab", copy) == (
        f"{copy}: nothing says which data set of nnU-Net it is of; give reference="
    )


@pytest.mark.parametrize("name", ["..", "../../etc", "/etc", "a/b"])
def test_no_path_of_the_plans_is_followed(results, name):
    (results / MODEL / "plans.json").write_text(json.dumps({"dataset_name": name}))
    assert f"plans.json: $.dataset_name: expected the name of a folder; found {name!r}" in refused(
        reference, "ab", MODEL
    )


def test_results_of_two_data_sets_need_a_reference(results):
    other = make_model(results.parent / "Dataset002_Liver")
    (other / "plans.json").write_text('{"dataset_name": "Dataset002_Liver"}')
    assert refused(reference, "ab", MODEL, other) == (
        f"the results are of several data sets: {DATASET} ({MODEL}), Dataset002_Liver ({other}); give reference= to "
        "say where to look"
    )


# --- the numbers of nnU-Net itself ---


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array.astype(np.uint8), np.diag([0.8, 1.0, 2.5, 1.0])), path)


@pytest.mark.nnunet
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("ending", "labels", "asked"),
    [
        (".nii.gz", {"background": 0, "a": 1, "b": 2, "c": 3}, [1, 2, 3]),
        (".nii.gz", {"background": 0, "whole_tumor": [1, 2, 3], "core": [2, 3], "ignore": 4}, [(1, 2, 3), (2, 3)]),
        (".tif", {"background": 0, "whole_tumor": [1, 2, 3], "core": [2, 3], "enhancing": 3}, [(1, 2, 3), (2, 3), 3]),
    ],
)
def test_dice_is_that_of_nnunets_summary(tmp_path, monkeypatch, ending, labels, asked):
    """Every case and class of a cross-validation that nnU-Net itself collected and measured."""
    evaluation = pytest.importorskip("nnunetv2.evaluation.evaluate_predictions", reason="nnU-Net is not installed")
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
    from nnunetv2.imageio.tif_reader_writer import Tiff3DIO

    io = SimpleITKIO() if ending == ".nii.gz" else Tiff3DIO()
    raw, model = tmp_path / "raw" / DATASET, tmp_path / "results" / DATASET / MODEL
    describe(raw, ending=ending, labels=labels, plans=False)
    describe(model, ending=ending, labels=labels)
    (raw / "labelsTr").mkdir()
    rng = np.random.default_rng(0)
    ignored = labels.get("ignore")

    def write(folder, case, array):
        folder.mkdir(parents=True, exist_ok=True)
        if ending == ".nii.gz":
            save(folder / f"{case}{ending}", array)
        else:
            io.write_seg(array, str(folder / f"{case}{ending}"), {"spacing": (2.5, 1.0, 0.8)})

    for k in range(6):
        reference = rng.integers(0, 3 if k == 0 else 4, (9, 8, 7)) * (rng.random((9, 8, 7)) < 0.4)
        if k == 1:
            reference[:] = 0
        prediction = np.where(rng.random(reference.shape) < 0.2, rng.integers(0, 4, reference.shape), reference)
        prediction[:] = 0 if k == 1 else prediction
        if ignored is not None:
            reference = np.where(rng.random(reference.shape) < 0.1, ignored, reference)
        write(raw / "labelsTr", f"case_{k}", reference)
        if k < 5:
            write(model / f"fold_{k % 2}" / "validation", f"case_{k}", prediction)
    theirs = {}
    for fold in (0, 1):
        place = model / f"fold_{fold}" / "validation"
        summary = place / "summary.json"
        evaluation.compute_metrics_on_folder(
            str(raw / "labelsTr"), str(place), str(summary), io, ending, asked, ignored, num_processes=1
        )
        for entry in json.loads(summary.read_text())["metric_per_case"]:
            case = Path(entry["prediction_file"]).name.removesuffix(ending)
            theirs |= {(case, label): found["Dice"] for label, found in entry["metrics"].items()}
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    ours = {
        (row.case, str(row.label)): row.value for row in rwtool.evaluate(None, model, metrics=["dice"], jobs=1).rows
    }
    names = {str(tuple(parts)): name for name, parts in labels.items() if isinstance(parts, list)}
    assert len(theirs) == 5 * len(asked)
    assert {(case, names.get(label, label)) for case, label in theirs} == set(ours)
    for (case, label), dice in theirs.items():
        assert ours[case, names.get(label, label)] == pytest.approx(dice, abs=1e-9, nan_ok=True), (case, label)
    assert any(np.isnan(dice) for dice in theirs.values())
