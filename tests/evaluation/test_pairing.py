import json
import shutil

import pytest
from nnunetfolders import DATASET, MODEL, make_collected, make_predicted, put
from nnunetfolders import make_project as make_nnunet
from runfolders import SPLIT, make_project, make_run, touch

import rwtool
from rwtool.evaluation.pairing import pair_files


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return make_project(tmp_path)


def pair(*predictions, **options):
    return pair_files("labels", predictions, **options)


def refused(*predictions, **options):
    with pytest.raises(rwtool.UsageError) as found:
        pair(*predictions, **options)
    return str(found.value)


# --- methods and runs ---


def test_the_runs_of_a_method_stand_together(project):
    make_run(project / "more" / "seed-0")
    pairing = pair("runs/dice", "runs/rrw", "mine=runs/rrw,more")
    assert pairing.methods == ("dice", "rrw", "mine")
    assert [(run.method, run.name, run.label, str(run.source)) for run in pairing.runs] == [
        ("dice", "", "dice", "runs/dice/predictions"),
        ("rrw", "seed-0", "rrw, run seed-0", "runs/rrw/seed-0/predictions"),
        ("rrw", "seed-2", "rrw, run seed-2", "runs/rrw/seed-2/predictions"),
        ("rrw", "seed-10", "rrw, run seed-10", "runs/rrw/seed-10/predictions"),
        ("mine", "1", "mine, run 1", "runs/rrw/seed-0/predictions"),
        ("mine", "2", "mine, run 2", "runs/rrw/seed-2/predictions"),
        ("mine", "3", "mine, run 3", "runs/rrw/seed-10/predictions"),
        ("mine", "4", "mine, run 4", "more/seed-0/predictions"),
    ]
    assert all(list(run.files) == ["c", "d"] for run in pairing.runs)


def test_without_predictions_there_is_nothing_to_pair():
    assert refused() == "no predictions to evaluate; name a folder of them"


def test_an_unfinished_run_is_refused_whatever_is_allowed():
    shutil.rmtree("runs/dice/predictions")
    for options in ({"allow_missing": True}, {"cases": "runs/rrw/seed-0/split.json"}):
        assert refused("runs/dice", **options).startswith("runs/dice: no predictions/ in it, so unfinished")


# --- missing and extra predictions ---


def test_a_prediction_that_a_run_lacks_is_missing(project):
    (project / "runs" / "rrw" / "seed-2" / "predictions" / "d.nii.gz").unlink()
    assert refused("runs/rrw") == (
        "predictions are missing: rrw, run seed-2 (runs/rrw/seed-2/predictions) lacks d; give allow_missing=True to "
        "count their structures as missed, or cases=FILE to leave these cases out"
    )
    assert [run.missing for run in pair("runs/rrw", allow_missing=True).runs] == [(), ("d",), ()]


def test_predictions_of_training_cases_are_neither_errors_nor_extra(project):
    touch(project / "runs" / "dice" / "predictions", "ab")
    (run,) = pair("runs/dice").runs
    assert (list(run.files), run.extra, run.missing) == (["c", "d"], (), ())
    touch(project / "runs" / "dice" / "predictions", ["stranger"])
    assert pair("runs/dice").runs[0].extra == ("stranger",)


def test_a_folder_of_other_names_is_refused_with_both_lists(project):
    touch(project / "training", "ab")
    assert refused("training", "runs/dice") == (
        "no prediction in training has the name of a reference: it holds a, b, and the cases to evaluate are c, d; "
        "give name=PATTERN to say which part of a path is the name"
    )


def test_a_single_file_pairs_with_a_single_file_of_any_name(project):
    touch(project / "plain", "xy")
    (run,) = pair_files("labels/a.nii.gz", ["plain/x.nii.gz"]).runs
    assert (run.method, list(run.files), str(run.files["a"])) == ("x", ["a"], "plain/x.nii.gz")
    with pytest.raises(rwtool.UsageError, match=r"^no prediction in plain has the name of a reference"):
        pair_files("labels/a.nii.gz", ["plain"])


# --- which cases count ---


def test_run_folders_limit_the_cases_of_all_to_their_validation_cases(project):
    touch(project / "plain", "abcdef")
    make_run(project / "foreign", split=None, predictions="bcd")
    pairing = pair("plain", "runs/dice", "foreign")
    assert list(pairing.references) == ["c", "d"]
    assert [list(run.files) for run in pairing.runs] == [["c", "d"]] * 3
    assert (pairing.validation.names, pairing.validation.total) == (("c", "d"), 6)
    touch(project / "other", "abc")
    assert "other (other) lacks d; give" in refused("other", "runs/dice")


def test_without_run_folders_all_references_count(project):
    touch(project / "plain", "abcdef")
    make_run(project / "foreign", split=None, predictions="abcdef")
    (project / "split.json").write_text(json.dumps(SPLIT))  # beside plain, but that is not a run's predictions
    pairing = pair("plain", "foreign")
    assert list(pairing.references) == list("abcdef")
    assert pairing.validation is None


def test_cases_wins_and_no_split_is_read(project):
    (project / "cases.txt").write_text("d\n")
    (project / "runs" / "dice" / "split.json").write_text("damaged")
    make_run(project / "fold", split={"val": ["d", "e"]}, predictions="de")
    pairing = pair("runs/dice", "runs/rrw", "fold", cases="cases.txt")
    assert list(pairing.references) == ["d"]
    assert pairing.validation is None
    assert all(run.extra == () for run in pairing.runs)  # the other cases are no strangers


def test_a_case_without_a_reference_is_an_error(project):
    make_run(project / "other", split={"val": ["c", "x"]}, predictions="cx")
    assert refused("other") == (
        "other/split.json names cases without a reference: x; the references are a, b, c, d, e and 1 more; "
        "give cases=FILE to name the cases"
    )
    (project / "cases.txt").write_text("c\nx\n")
    assert refused("runs/dice", cases="cases.txt") == (
        "cases.txt names cases without a reference: x; the references are a, b, c, d, e and 1 more"
    )


def test_one_reference_file_is_its_own_choice_of_cases():
    pairing = pair_files("labels/c.nii.gz", ["runs/dice"])
    assert list(pairing.references) == ["c"]
    assert pairing.validation is None


# --- nnU-Net's results ---


@pytest.fixture
def results(project, monkeypatch):
    """Two models that were validated on a to d, of a data set of a to f."""
    monkeypatch.setenv("nnUNet_raw", "raw")
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    make_nnunet(project)
    return f"results/{DATASET}"


def test_a_reference_that_is_not_given_is_found_and_said(results):
    pairing = pair_files(None, [f"{results}/{MODEL}", f"{results}/nnUNetTrainerRRW__nnUNetPlans__3d_fullres"])
    assert pairing.methods == ("nnUNetTrainer", "nnUNetTrainerRRW")
    assert pairing.reference == f"raw/{DATASET}/labelsTr"
    assert pairing.notes == (f"no reference was given, so it is nnU-Net's: raw/{DATASET}/labelsTr",)
    assert (list(pairing.references), pairing.validation.total) == (["a", "b", "c", "d"], 6)
    assert [(run.missing, run.extra) for run in pairing.runs] == [((), ())] * 2
    assert str(pairing.dataset_json).endswith(f"{MODEL}/dataset.json")


def test_a_reference_that_is_given_is_taken_and_limited_to_the_validation(results):
    pairing = pair(f"{results}/{MODEL}")
    assert (pairing.reference, pairing.notes) == ("labels", ())
    assert list(pairing.references) == ["a", "b", "c", "d"]


def test_predictions_of_nnunet_limit_the_cases_only_where_no_reference_is_given(results, project):
    make_predicted(project / "predicted", "ab")
    assert list(pair_files(None, ["predicted"]).references) == ["a", "b"]
    assert "predicted (predicted) lacks c, d, e, f; give" in refused("predicted")
    make_predicted(project / "other", "abc")
    with pytest.raises(rwtool.UsageError, match="the runs have different validation cases: 2 in predicted; 3 in other"):
        pair_files(None, ["predicted", "other"])


def test_cases_limits_results_of_nnunet_too(results, project):
    (project / "cases.txt").write_text("a\ne\n")
    with pytest.raises(rwtool.UsageError, match="lacks e; give allow_missing=True"):
        pair_files(None, [f"{results}/{MODEL}"], cases="cases.txt")
    pairing = pair_files(None, [f"{results}/{MODEL}"], cases="cases.txt", allow_missing=True)
    assert (list(pairing.references), pairing.runs[0].missing) == (["a", "e"], ("e",))


def test_predictions_as_the_reference_are_noted(results, project):
    make_predicted(project / "predicted", "ab")
    put(project / "plain", "ab")
    assert pair_files("predicted", ["plain"]).notes == (
        "predicted: these predictions of nnU-Net are taken for the reference; to measure them, name their reference "
        "before them, or give them a name, NAME=DIR, for nnU-Net's own",
    )


def test_folders_of_others_have_no_reference_to_be_found(results):
    with pytest.raises(rwtool.UsageError, match="there are predictions alone; give reference= before them"):
        pair_files(None, ["runs/dice"])


def test_other_folders_stand_beside_those_of_nnunet(results, project):
    put(project / "plain", "abcdef")
    pairing = pair_files(None, [f"{results}/{MODEL}", "plain"])
    assert pairing.methods == (MODEL, "plain")
    assert [list(run.files) for run in pairing.runs] == [["a", "b", "c", "d"]] * 2


def test_a_case_of_a_cross_validation_without_a_reference_is_named(results, project):
    folder = str(make_collected(project / results / MODEL, "abxy"))
    assert refused(folder) == (
        f"{folder} names cases without a reference: x, y; the references are a, b, c, d, e and 1 more; give cases=FILE "
        "to name the cases"
    )
