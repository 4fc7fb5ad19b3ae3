import re
import shutil
from pathlib import Path

import pytest
from nnunetfolders import MODEL, make_collected, make_fold, make_model, make_predicted
from runfolders import SPLIT, make_project, make_run, touch

import rwtool
from rwtool.datasets.runs import (
    PredictionSource,
    begins_with_predictions,
    common_validation,
    find_kept,
    find_sources,
    kept_checkpoint,
    run_names,
    seed_folder,
)


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return make_project(tmp_path)


def folders(*predictions):
    """The folders of label files that each method stands for."""
    return {
        method: [str(source.predictions) for source in sources] for method, sources in find_sources(predictions).items()
    }


def validation(*predictions):
    sources = [source for sources in find_sources(predictions).values() for source in sources]
    return common_validation(sources, 6)


def refused(*predictions):
    with pytest.raises(rwtool.UsageError) as found:
        validation(*predictions)
    return str(found.value)


# --- names ---


@pytest.mark.parametrize(
    ("text", "method", "sources"),
    [
        ("plain", "plain", ["plain"]),
        ("plain/", "plain", ["plain"]),
        ("mine=plain", "mine", ["plain"]),
        ("mine=plain,other", "mine", ["plain", "other"]),
        ("lr=0.1", "lr=0.1", ["lr=0.1"]),
        ("mine=lr=0.1", "mine", ["lr=0.1"]),
        ("mine=a,b", "mine", ["a,b"]),
        ("plain/a.nii.gz", "a", ["plain/a.nii.gz"]),
        ("none", "none", ["none"]),
        ("runs/dice", "dice", ["runs/dice/predictions"]),
    ],
)
def test_a_source_has_the_name_that_is_given_or_that_of_its_folder(project, text, method, sources):
    for name in ("plain", "other", "lr=0.1", "a,b"):
        touch(project / name, "abcdef")
    assert folders(text) == {method: sources}


@pytest.mark.parametrize("text", ["=a", "a=", "a=b,,c"])
def test_a_broken_name_is_refused(text):
    assert refused(text) == f"predictions are DIR, NAME=DIR or NAME=DIR1,DIR2 for several runs; found {text!r}"


def test_methods_of_one_name_are_refused():
    assert refused("runs/rrw", "rrw=runs/dice") == (
        "two predictions are called 'rrw': runs/rrw and runs/dice; name them with NAME=DIR, or NAME=DIR1,DIR2 for two "
        "runs of one method"
    )


@pytest.mark.parametrize(
    ("sources", "names"),
    [
        (["runs/dice"], [""]),
        (["a/fold_0", "a/fold_1"], ["fold_0", "fold_1"]),
        (["a/fold", "b/fold"], ["1", "2"]),
        (["a/fold/", "b/other/../fold"], ["1", "2"]),
        (["x.nii.gz", "y.nii.gz"], ["x", "y"]),
    ],
)
def test_runs_are_called_after_their_folders_or_numbered_where_these_are_equal(sources, names):
    assert run_names([Path(source) for source in sources]) == names


# --- seeds ---


def test_seeds_are_runs_of_one_method_in_numeric_order():
    assert folders("runs/dice", "runs/rrw/") == {
        "dice": ["runs/dice/predictions"],
        "rrw": [f"runs/rrw/seed-{seed}/predictions" for seed in (0, 2, 10)],
    }
    assert seed_folder(Path("runs/rrw"), 10) == Path("runs/rrw/seed-10")


def test_a_single_seed_is_one_run():
    shutil.rmtree("runs/rrw/seed-2")
    shutil.rmtree("runs/rrw/seed-10")
    assert folders("mine=runs/rrw") == {"mine": ["runs/rrw/seed-0/predictions"]}


def test_seeds_beside_another_folder_of_the_same_method():
    found = folders("mine=runs/rrw,runs/dice")["mine"]
    assert found == [*(f"runs/rrw/seed-{seed}/predictions" for seed in (0, 2, 10)), "runs/dice/predictions"]


def test_a_folder_cannot_be_two_runs():
    for text in ("mine=runs/rrw,runs/rrw/seed-2", "mine=runs/dice,runs/dice/predictions", "mine=runs/dice,runs/dice"):
        assert refused(text) == f"{text}: one folder cannot be two runs; name each run's own"


def test_predictions_of_the_folder_itself_come_before_seeds(project):
    touch(project / "runs" / "rrw" / "predictions", "abcdef")
    assert folders("runs/rrw") == {"rrw": ["runs/rrw/predictions"]}
    assert validation("runs/rrw") is None  # seed-0/split.json says nothing about them


def test_what_is_no_seed_is_passed_over(project):
    (project / "runs" / "rrw" / "seed-best").mkdir()
    (project / "runs" / "rrw" / "seed-1").touch()
    assert len(folders("runs/rrw")["rrw"]) == 3


# --- unfinished runs ---


def test_a_seed_without_predictions_is_an_error():
    shutil.rmtree("runs/rrw/seed-2/predictions")
    assert refused("runs/rrw") == (
        "runs/rrw/seed-2: no predictions/ in it, so unfinished, or trained without validation cases; finish it with "
        "resume=True, or name the finished seeds, NAME=runs/rrw/seed-0,runs/rrw/seed-10"
    )
    assert len(folders("rrw=runs/rrw/seed-0,runs/rrw/seed-10")["rrw"]) == 2


def test_an_empty_seed_folder_is_an_error_too(project):
    (project / "runs" / "rrw" / "seed-1").mkdir()
    assert refused("runs/rrw").startswith("runs/rrw/seed-1: no predictions/ in it, so unfinished")


def test_seeds_of_which_none_is_finished(project):
    for seed in (0, 1):
        make_run(project / "runs" / "new" / f"seed-{seed}", predictions=None)
    assert refused("runs/new") == (
        "runs/new/seed-0, runs/new/seed-1: no predictions/ in it, so unfinished, or trained without validation cases; "
        "finish it with resume=True, or name only the folders to evaluate"
    )


@pytest.mark.parametrize("mark", ["split.json", "last.pt"])
def test_an_unfinished_run_is_an_error(project, mark):
    (project / "runs" / "new").mkdir()
    (project / "runs" / "new" / mark).touch()
    assert refused("runs/dice", "runs/new") == (
        "runs/new: no predictions/ in it, so unfinished, or trained without validation cases; finish it with "
        "resume=True, or name only the folders to evaluate"
    )


def test_seed_folders_without_runs_leave_a_folder_of_predictions_as_it_is(project):
    touch(project / "plain", "abcdef")
    (project / "plain" / "seed-0").mkdir()
    assert folders("plain") == {"plain": ["plain"]}


# --- the validation cases ---


def test_the_split_of_a_run_folder_is_beside_its_predictions(project):
    touch(project / "plain", "abcdef")
    (project / "plain" / "split.json").write_text("{}")  # in the folder itself, which is no run folder
    make_run(project / "foreign", split=None)
    run, plain, foreign = (Path(name) for name in ("runs/dice", "plain", "foreign"))
    assert PredictionSource(run, run).split == run / "split.json"
    assert PredictionSource(plain, plain).split is None
    assert PredictionSource(foreign, foreign).split is None


def test_runs_share_their_validation_cases_and_other_folders_have_none(project):
    touch(project / "plain", "abcdef")
    found = validation("plain", "runs/dice", "runs/rrw")
    assert (found.names, found.total) == (("c", "d"), 6)
    assert list(map(str, found.sources)) == ["runs/dice", "runs/rrw"]
    assert list(map(str, found.files)) == [
        f"runs/{run}/split.json" for run in ("dice", "rrw/seed-0", "rrw/seed-2", "rrw/seed-10")
    ]
    assert validation("plain") is None


def test_the_order_and_the_suffixes_of_the_validation_cases_do_not_matter(project):
    make_run(project / "other", split={"val": ["d.nii.gz", "c", "c"]})
    assert set(validation("runs/dice", "other").names) == {"c", "d"}


def test_different_validation_cases_are_refused(project):
    for name in ("fold", "fold2"):
        make_run(project / "runs" / name, split={"val": ["b", "c", "e"]}, predictions="bce")
    assert refused("runs/dice", "runs/fold", "runs/fold2") == (
        "the runs have different validation cases: 2 in runs/dice; 3 in runs/fold, runs/fold2; 3 not in all of them: "
        "b, d, e; give cases=FILE to name the cases, or train all on one split"
    )


def test_different_validation_cases_of_seeds_are_refused(project):
    (project / "runs" / "rrw" / "seed-2" / "split.json").write_text('{"val": ["c"]}')
    assert "2 in runs/rrw/seed-0, runs/rrw/seed-10; 1 in runs/rrw/seed-2; 1 not in all of them: d; " in refused(
        "runs/rrw"
    )


def test_a_run_without_validation_cases_has_none_and_does_not_go_with_one_that_has_them(project):
    make_run(project / "all", split={**SPLIT, "val": []}, predictions="abcdef")
    assert validation("all") is None
    assert "different validation cases: 0 in all; 2 in runs/dice; 2 not in all of them: c, d" in refused(
        "all", "runs/dice"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as a list of cases: "),
        ('{"train": ["a"]}', "not a list of cases: $: missing required field val; expected one case name a line"),
        ('{"val": [1]}', "not a list of cases: $.val[0]: expected str, found 1; expected one case name a line"),
        (None, "cannot be read as a list of cases: "),
    ],
)
def test_a_damaged_split_is_an_error_that_names_it(project, text, message):
    path = project / "runs" / "rrw" / "seed-2" / "split.json"
    path.unlink()
    if text is None:
        path.mkdir()
    else:
        path.write_text(text)
    found = refused("runs/dice", "runs/rrw")
    assert re.match(rf"runs/rrw/seed-2/split\.json: {re.escape(message)}", found)
    assert found.endswith("; mend this split of the run, or give cases=FILE to name the cases")


# --- nnU-Net's results ---


OTHER = "nnUNetTrainerRRW__nnUNetPlans__3d_fullres"


@pytest.fixture
def models(project):
    for name in (MODEL, OTHER):
        make_model(project / "results", name)
        make_fold(project / "results" / name, 2, "ef")
    return project / "results"


@pytest.mark.parametrize(
    ("predictions", "methods"),
    [
        ([f"results/{MODEL}"], {MODEL: ["abcdef"]}),
        ([f"results/{MODEL}", f"results/{OTHER}"], {"nnUNetTrainer": ["abcdef"], "nnUNetTrainerRRW": ["abcdef"]}),
        ([f"results/{MODEL}", "runs/dice"], {MODEL: ["abcdef"], "dice": ["cd"]}),
        ([f"mine=results/{MODEL}", f"results/{OTHER}"], {"mine": ["abcdef"], OTHER: ["abcdef"]}),
        ([f"mine=results/{MODEL},results/{OTHER}"], {"mine": ["abcdef", "abcdef"]}),
        ([f"mine=results/{MODEL}/fold_0,results/{MODEL}/fold_2/validation"], {"mine": ["abef"]}),
        ([f"mine=results/{MODEL}/fold_0,results/{OTHER}/fold_0"], {"mine": ["ab", "ab"]}),
    ],
)
def test_results_of_nnunet_are_methods_and_folds_of_one_model_are_one_run(models, predictions, methods):
    found = find_sources(predictions)
    assert {name: ["".join(source.search().cases) for source in of] for name, of in found.items()} == methods


def test_the_cases_of_nnunets_validation_limit_as_those_of_run_folders_do(models):
    def common(*predictions):
        sources = [source for sources in find_sources(predictions).values() for source in sources]
        return common_validation(sources, 6, {s: s.search().cases for s in sources if s.nnunet is not None})

    found = common(f"results/{MODEL}", f"results/{OTHER}")
    assert (sorted(found.names), found.total) == (list("abcdef"), 6)
    assert [str(path) for path in found.sources] == [f"results/{MODEL}", f"results/{OTHER}"]
    assert sorted(common(f"results/{MODEL}/fold_1", "runs/dice").names) == ["c", "d"]
    with pytest.raises(rwtool.UsageError, match=r"the runs have different validation cases: 2 in .*; 6 in results"):
        common(f"results/{MODEL}/fold_1", f"results/{OTHER}")


@pytest.mark.parametrize(
    ("text", "alone", "found"),
    [
        (f"results/{MODEL}", False, True),
        (f"results/{MODEL}/fold_0", False, True),
        (f"results/{MODEL}/crossval_results_folds_0_1", False, True),
        ("results/predicted", False, False),
        ("results/predicted", True, True),
        ("mine=results/predicted", False, True),
        (f"mine=results/{MODEL},results/{OTHER}", False, True),
        (f"mine=results/{MODEL},labels", False, False),
        ("labels", True, False),
        ("runs/dice", True, False),
        ("dice=runs/dice", True, False),
        ("labels/*.nii.gz", True, False),
        ("=x", True, False),
        ("none", True, False),
    ],
)
def test_what_may_stand_first_without_a_reference(models, text, alone, found):
    make_collected(models / MODEL)
    make_predicted(models / "predicted")
    assert begins_with_predictions(text, alone=alone) is found


def test_checkpoints_that_were_kept_are_found_by_epoch(tmp_path):
    assert find_kept(tmp_path) == {}
    for name in ("epoch-10.pt", "epoch-2.pt", "epoch-x.pt", "epoch-07.pt", "epoch-3.pt.txt", "mine"):
        (tmp_path / "checkpoints").mkdir(exist_ok=True)
        (tmp_path / "checkpoints" / name).touch()
    assert list(find_kept(tmp_path)) == [2, 10]
    assert find_kept(tmp_path)[10] == kept_checkpoint(tmp_path, 10) == tmp_path / "checkpoints" / "epoch-10.pt"
