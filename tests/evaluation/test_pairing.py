"""Run folders of `rwtool train` as predictions. Files are empty: pairing goes by their names."""

import json
import re
import shutil

import pytest

import rwtool
from rwtool.evaluation.pairing import pair_files

SPLIT = {"train": ["a", "b"], "val": ["c", "d"]}


def touch(folder, names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / f"{name}.nii.gz").touch()


def make_run(folder, split=SPLIT, predictions="cd"):
    """A run folder; without predictions an unfinished one, without a split one of another program."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "last.pt").touch()
    if split is not None:
        (folder / "split.json").write_text(json.dumps(split))
    if predictions is not None:
        touch(folder / "predictions", predictions)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Six references; runs/dice is one run and runs/rrw has three seeds, all validated on c and d."""
    monkeypatch.chdir(tmp_path)
    touch(tmp_path / "labels", "abcdef")
    make_run(tmp_path / "runs" / "dice")
    for seed in (0, 2, 10):
        make_run(tmp_path / "runs" / "rrw" / f"seed-{seed}")
    return tmp_path


def pair(*predictions, **options):
    return pair_files("labels", predictions, **options)


def runs_of(pairing):
    return [(run.method, run.name, str(run.source)) for run in pairing.runs]


def refused(*predictions, **options):
    with pytest.raises(rwtool.UsageError) as found:
        pair(*predictions, **options)
    return str(found.value)


# --- seeds ---


def test_seeds_are_runs_of_one_method_in_numeric_order(project):
    assert runs_of(pair("runs/dice", "runs/rrw/")) == [
        ("dice", "", "runs/dice/predictions"),
        ("rrw", "seed-0", "runs/rrw/seed-0/predictions"),
        ("rrw", "seed-2", "runs/rrw/seed-2/predictions"),
        ("rrw", "seed-10", "runs/rrw/seed-10/predictions"),
    ]


def test_a_single_seed_is_one_run(project):
    shutil.rmtree("runs/rrw/seed-2")
    shutil.rmtree("runs/rrw/seed-10")
    assert runs_of(pair("runs/rrw")) == [("rrw", "", "runs/rrw/seed-0/predictions")]


def test_seeds_of_a_named_folder(project):
    assert [run[:2] for run in runs_of(pair("mine=runs/rrw"))] == [("mine", f"seed-{seed}") for seed in (0, 2, 10)]


def test_seeds_beside_another_folder_of_the_same_method(project):
    found = runs_of(pair("mine=runs/rrw,runs/dice"))
    assert [run[1] for run in found] == ["seed-0", "seed-2", "seed-10", "dice"]


def test_seeds_of_two_folders_are_numbered_where_their_names_are_equal(project):
    make_run(project / "more" / "seed-0")
    assert [run[1] for run in runs_of(pair("mine=runs/rrw,more"))] == ["1", "2", "3", "4"]


def test_a_seed_cannot_be_two_runs(project):
    assert "one folder cannot be two runs" in refused("mine=runs/rrw,runs/rrw/seed-2")
    assert "one folder cannot be two runs" in refused("mine=runs/dice,runs/dice/predictions")


def test_predictions_of_the_folder_itself_come_before_seeds(project):
    touch(project / "runs" / "rrw" / "predictions", "abcdef")
    pairing = pair("runs/rrw")
    assert runs_of(pairing) == [("rrw", "", "runs/rrw/predictions")]
    assert list(pairing.references) == list("abcdef")  # seed-0/split.json says nothing about them


def test_what_is_no_seed_is_passed_over(project):
    (project / "runs" / "rrw" / "seed-best").mkdir()
    (project / "runs" / "rrw" / "seed-1").touch()
    assert [run[1] for run in runs_of(pair("runs/rrw"))] == ["seed-0", "seed-2", "seed-10"]


def test_the_method_of_seeds_must_have_a_name_of_its_own(project):
    message = refused("runs/rrw", "rrw=runs/dice")
    assert message.startswith("two predictions are called 'rrw': runs/rrw and runs/dice; name them with NAME=DIR")


# --- unfinished runs ---


def test_a_seed_without_predictions_is_an_error(project):
    shutil.rmtree("runs/rrw/seed-2/predictions")
    assert refused("runs/rrw", allow_missing=True) == (
        "runs/rrw/seed-2: no predictions/ in it, so unfinished, or trained without validation cases; finish it with "
        "resume=True, or name the finished seeds, NAME=runs/rrw/seed-0,runs/rrw/seed-10"
    )
    assert len(pair("rrw=runs/rrw/seed-0,runs/rrw/seed-10").runs) == 2


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
    assert refused("runs/dice", "runs/new").startswith(
        "runs/new: no predictions/ in it, so unfinished, or trained without validation cases; finish it with "
    )
    assert refused("runs/dice", "runs/new", cases="runs/dice/split.json").startswith(
        "runs/new: no predictions/ in it, so unfinished"
    )


def test_seed_folders_without_runs_leave_a_folder_of_predictions_as_it_is(project):
    touch(project / "plain", "abcdef")
    (project / "plain" / "seed-0").mkdir()
    assert runs_of(pair("plain")) == [("plain", "", "plain")]


def test_a_prediction_that_a_seed_lacks_is_missing(project):
    (project / "runs" / "rrw" / "seed-2" / "predictions" / "d.nii.gz").unlink()
    assert "rrw, run seed-2 (runs/rrw/seed-2/predictions) lacks d; give --allow-missing" in refused("runs/rrw")
    assert pair("runs/rrw", allow_missing=True).runs[1].missing == ("d",)


# --- the validation cases ---


def test_run_folders_limit_the_cases_to_their_validation_cases(project):
    pairing = pair("runs/dice", "runs/rrw")
    assert list(pairing.references) == ["c", "d"]
    assert all(list(run.files) == ["c", "d"] and not run.missing for run in pairing.runs)
    assert pairing.validation.names == ("c", "d")
    assert pairing.validation.total == 6
    assert list(map(str, pairing.validation.sources)) == ["runs/dice", "runs/rrw"]
    assert list(map(str, pairing.validation.files)) == [
        f"runs/{run}/split.json" for run in ("dice", "rrw/seed-0", "rrw/seed-2", "rrw/seed-10")
    ]


def test_the_order_and_the_suffixes_of_the_validation_cases_do_not_matter(project):
    make_run(project / "other", split={"val": ["d.nii.gz", "c", "c"]})
    assert list(pair("runs/dice", "other").references) == ["c", "d"]


def test_plain_folders_are_limited_to_the_same_cases(project):
    touch(project / "plain", "abcdef")
    make_run(project / "foreign", split=None, predictions="bcd")
    pairing = pair("plain", "runs/dice", "foreign")
    assert [list(run.files) for run in pairing.runs] == [["c", "d"]] * 3
    assert list(map(str, pairing.validation.sources)) == ["runs/dice"]
    touch(project / "other", "abc")
    assert "other (other) lacks d; give" in refused("other", "runs/dice")
    touch(project / "training", "ab")
    assert refused("training", "runs/dice") == (
        "no prediction in training has the name of a reference: it holds a, b, and the cases to evaluate are c, d"
    )


def test_without_run_folders_all_references_count(project):
    touch(project / "plain", "abcdef")
    make_run(project / "foreign", split=None, predictions="abcdef")
    (project / "split.json").write_text(json.dumps(SPLIT))  # beside plain, but that is not a run's predictions
    pairing = pair("plain", "foreign")
    assert list(pairing.references) == list("abcdef")
    assert pairing.validation is None


def test_predictions_of_training_cases_are_neither_errors_nor_extra(project):
    touch(project / "runs" / "dice" / "predictions", "ab")
    (run,) = pair("runs/dice").runs
    assert (list(run.files), run.extra, run.missing) == (["c", "d"], (), ())
    touch(project / "runs" / "dice" / "predictions", ["stranger"])
    assert pair("runs/dice").runs[0].extra == ("stranger",)


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


def test_cases_wins_and_no_split_is_read(project):
    (project / "cases.txt").write_text("d\n")
    (project / "runs" / "dice" / "split.json").write_text("damaged")
    make_run(project / "fold", split={"val": ["d", "e"]}, predictions="de")
    pairing = pair("runs/dice", "runs/rrw", "fold", cases="cases.txt")
    assert list(pairing.references) == ["d"]
    assert pairing.validation is None


def test_a_validation_case_without_a_reference_is_an_error(project):
    make_run(project / "other", split={"val": ["c", "x"]}, predictions="cx")
    assert refused("other") == (
        "other/split.json names cases without a reference: x; the references are a, b, c, d, e and 1 more; "
        "give --cases FILE to name the cases"
    )


def test_a_run_without_validation_cases_limits_nothing_but_does_not_go_with_one_that_has_them(project):
    make_run(project / "all", split={"train": list("abcdef"), "val": []}, predictions="abcdef")
    pairing = pair("all")
    assert list(pairing.references) == list("abcdef")
    assert pairing.validation is None
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


def test_one_reference_file_is_its_own_choice_of_cases(project):
    pairing = pair_files("labels/c.nii.gz", ["runs/dice"])
    assert list(pairing.references) == ["c"]
    assert pairing.validation is None
