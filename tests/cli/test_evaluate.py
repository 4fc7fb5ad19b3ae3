import csv
import json
import re
import shutil

import nibabel as nib
import numpy as np
import pytest
from commands import run
from nnunetfolders import DATASET, describe

import rwtool

pytest.importorskip("rwtool.report.write")

AFFINE = np.diag([0.8, 1.5, 4.0, 1.0])


def save(path, start, stop, value=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.zeros((12, 10, 8), np.uint8)
    array[start:stop, 2:6, 2:6] = value
    nib.save(nib.Nifti1Image(array, AFFINE), path)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Six cases; runs/far is off by 2.4 mm in each, runs/near by 0.8 mm in all but one."""
    for case in range(6):
        save(tmp_path / "labels" / f"case_{case}.nii.gz", 2, 6)
        save(tmp_path / "runs" / "far" / f"case_{case}.nii.gz", 5, 9)
        save(tmp_path / "runs" / "near" / "predictions" / f"case_{case}.nii.gz", 3 if case else 2, 7 if case else 6)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def evaluate(*arguments, code=0, page=False):
    """Run the command; report.html, which takes longer than all the rest, only where a test looks at it."""
    return run("evaluate", *arguments, "-j", 1, *([] if page else ["--no-report"]), code=code)


def test_without_arguments_the_folders_of_a_project_are_compared(project):
    result = evaluate()
    assert "2 classes: 0 background, 1 (from the values in the label files)" in result.output
    assert "6 cases, 2 methods" in result.output
    assert "far" in result.output
    assert "near" in result.output
    assert not list(project.glob("**/cache"))


def test_the_decisions_are_asked_for_as_in_compare(project):
    options = ["--permutation-test", "--all-pairs", "--rank", "--margin", "dice=0.9", "--interval", "bca", "-o", "out"]
    output = evaluate(*options).output
    for title in ("equivalence with far", "all pairs: p max-T", "rank [95 % CI", "share of each rank", "BCa bootstrap"):
        assert title in output
    assert {"pairs.csv", "rankings.csv"} <= {path.name for path in (project / "out").iterdir()}
    names = ("means.csv", "tests.csv", "pairs.csv", "rankings.csv")
    again = ["--all-pairs", "--rank", "--margin", "dice=0.9", "--interval", "bca", "-o", "again"]
    run("compare", "out/cases.csv", *again)
    for name in names:
        assert (project / "again" / name).read_text() == (project / "out" / name).read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--margin", "dice=0.1"], "--margin belongs to --permutation-test; add that"),
        (["--permutation-test", "--margin", "nsd=0.1"], "--margin names 'nsd', which is not measured"),
        (["labels", "runs/far", "--rank"], "--rank compares methods and there is one, far; name another folder"),
        (["labels", "runs/far", "--all-pairs"], "--all-pairs compares methods and there is one, far"),
    ],
)
def test_a_decision_that_cannot_be_is_refused_before_anything_is_measured(project, options, message):
    assert message in evaluate(*options, "-o", "out", code=2).output
    assert not (project / "out").exists()


@pytest.mark.parametrize(
    ("remove", "message"),
    [("labels", "there is no folder ./labels; name the folder"), ("runs", "there is no folder in ./runs; name one")],
)
def test_without_arguments_and_folders_the_message_says_what_to_name(project, remove, message):
    shutil.rmtree(project / remove)
    assert message in evaluate(code=2).output


@pytest.fixture
def trained(project):
    """Beside them runs/near with a split, and runs/seeds of two seeds that were validated on the same two cases."""
    shutil.rmtree(project / "runs" / "far")
    for seed, start in ((0, 4), (1, 5)):
        for case in (1, 2):
            file = project / "runs" / "seeds" / f"seed-{seed}" / "predictions" / f"case_{case}.nii.gz"
            save(file, start, start + 4)
    for folder in ("near", "seeds/seed-0", "seeds/seed-1"):
        (project / "runs" / folder / "split.json").write_text('{"train": ["case_0"], "val": ["case_1", "case_2"]}')
    return project


@pytest.mark.parametrize("arguments", [(), ("labels", "runs/near", "runs/seeds")])
def test_run_folders_are_compared_on_their_validation_cases(trained, arguments):
    result = evaluate(*arguments, "-o", "out")
    lines = result.output.splitlines()
    assert lines[2] == "cases: the 2 validation cases of runs/near, runs/seeds (of 6 references)"
    assert lines[3] == "2 cases, 2 methods"
    assert "without a reference" not in result.output
    with (trained / "out" / "cases.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["metric"] == "hd"]
    assert [(row["method"], row["run"], row["case"]) for row in rows] == [
        (method, name, case)
        for method, name in (("near", ""), ("seeds", "seed-0"), ("seeds", "seed-1"))
        for case in ("case_1", "case_2")
    ]
    assert [float(row["value"]) for row in rows] == pytest.approx([0.8, 0.8, 1.6, 1.6, 2.4, 2.4])
    provenance = json.loads((trained / "out" / "summary.json").read_text())["provenance"]
    assert provenance["split"] == {
        "files": [f"runs/{name}/split.json" for name in ("near", "seeds/seed-0", "seeds/seed-1")],
        "cases": 2,
        "references": 6,
    }
    assert list(provenance["inputs"]) == ["case_1", "case_2"]


def test_seeds_are_averaged_per_case(trained):
    output = evaluate("labels", "runs/near", "runs/seeds", "--metrics", "hd").output
    assert re.search(r"near +0\.80 ± 0\.00 ", output)
    assert re.search(r"seeds +2\.00 ± 0\.00 ", output)  # of 1.6 and 2.4


def test_one_validation_case(trained):
    (trained / "runs" / "near" / "split.json").write_text('{"val": ["case_1"]}')
    assert "cases: the 1 validation case of runs/near (of 6 references)\n" in evaluate("labels", "runs/near").output


def test_cases_wins_over_the_validation_cases(trained):
    (trained / "cases.txt").write_text("case_2\n")
    result = evaluate("--cases", "cases.txt", "-o", "out")
    assert "cases: " not in result.output
    assert "1 case, 2 methods" in result.output
    provenance = json.loads((trained / "out" / "summary.json").read_text())["provenance"]
    assert (provenance["split"], provenance["options"]["cases"]) == (None, "cases.txt")


def test_json_alone_says_what_limited_the_cases(trained):
    content = json.loads(evaluate("labels", "runs/near", "--format", "json").stdout)
    assert content["provenance"]["split"] == {"files": ["runs/near/split.json"], "cases": 2, "references": 6}


def test_an_unfinished_run_among_the_folders_of_a_project_is_named(trained):
    (trained / "runs" / "new").mkdir()
    (trained / "runs" / "new" / "last.pt").touch()
    output = evaluate(code=2).output
    assert "runs/new: no predictions/ in it, so unfinished, or trained without validation cases; finish it" in output
    shutil.rmtree(trained / "runs" / "new")
    shutil.rmtree(trained / "runs" / "seeds" / "seed-1" / "predictions")
    output = evaluate(code=2).output
    assert "runs/seeds/seed-1: no predictions/ in it, so unfinished" in output
    assert "or name the finished seeds, NAME=runs/seeds/seed-0" in output


def test_runs_with_different_validation_cases_are_refused(trained):
    (trained / "runs" / "near" / "split.json").write_text('{"val": ["case_2", "case_3", "case_4"]}')
    assert (
        "the runs have different validation cases: 3 in runs/near; 2 in runs/seeds/seed-0, runs/seeds/seed-1; 3 not in "
        "all of them: case_1, case_3, case_4; give --cases FILE to name the cases, or train all on one split"
    ) in evaluate(code=2).output


def test_out_holds_the_rows_the_tests_and_the_summary(project):
    evaluate("labels", "runs/far", "runs/near", "-o", "out", "--permutation-test")
    names = {path.name for path in (project / "out").iterdir()}
    assert names >= {"cases.csv", "summary.json", "summary.md", "summary.tex", "tests.csv", "cache"}
    with (project / "out" / "cases.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 2 * 6 * 3
    columns = ["method", "run", "case", "subject", "group", "class", "metric", "value", "unit", "status"]
    assert set(columns) <= set(rows[0])
    hd = [float(row["value"]) for row in rows if (row["method"], row["metric"]) == ("far", "hd")]
    assert hd == pytest.approx([2.4] * 6)
    with (project / "out" / "tests.csv").open(newline="") as stream:
        tests = list(csv.DictReader(stream))
    assert {(test["baseline"], test["method"]) for test in tests} == {("far", "near")}
    assert {float(test["p"]) for test in tests} == {2 / 2**6}  # every case is better


def test_the_baseline_can_be_named(project):
    evaluate("labels", "runs/far", "runs/near", "-o", "out", "--permutation-test", "--baseline", "near", "-q")
    with (project / "out" / "tests.csv").open(newline="") as stream:
        assert {(test["baseline"], test["method"]) for test in csv.DictReader(stream)} == {("near", "far")}


def test_json_on_standard_output_is_strict_and_alone(project):
    (project / "runs" / "far" / "case_0.nii.gz").unlink()
    result = evaluate("--format", "json", "--allow-missing")
    content = json.loads(result.stdout, parse_constant=pytest.fail)
    assert isinstance(content, dict)
    assert "warning: far: 1 prediction missing, whose structures count as missed: case_0" in result.stderr


def test_a_rerun_says_what_it_reused(project):
    evaluate("-o", "out", "-q")
    assert "note: 12 predictions unchanged since the last run" in evaluate("-o", "out").output


def test_a_corrupt_case_is_reported_and_the_exit_code_is_1(project):
    bad = project / "runs" / "far" / "case_2.nii.gz"
    bad.write_bytes(bad.read_bytes()[:80])
    result = evaluate("-o", "out", code=1)
    assert "1 case failed:" in result.stderr
    assert "case_2 (far)" in result.stderr
    with (project / "out" / "cases.csv").open(newline="") as stream:
        assert len(list(csv.DictReader(stream))) == 11 * 3


def test_a_method_that_fails_altogether_is_named_and_leaves_the_others(project):
    for path in (project / "runs" / "far").iterdir():
        path.write_bytes(b"")
    result = evaluate("--permutation-test", "-o", "out", code=1)
    assert "warning: no test, for near alone has results" in result.stderr
    assert "warning: far: every prediction failed, so no table holds it" in result.stderr
    assert "6 cases failed:" in result.stderr
    with (project / "out" / "cases.csv").open(newline="") as stream:
        assert {row["method"] for row in csv.DictReader(stream)} == {"near"}


def test_all_cases_failing_leaves_the_reasons_alone(project):
    for path in (project / "labels").iterdir():
        path.write_bytes(b"")
    result = evaluate("labels", "runs/far", code=1)
    assert "6 cases failed:" in result.stderr


def test_quiet_prints_nothing(project):
    assert evaluate("-q").output == ""


def test_verbose_lists_the_cases(project):
    output = evaluate("labels", "runs/far", "-v", "--metrics", "dice,hd").output
    assert "Cases, as measured" in output
    assert "case_5" in output


def test_extra_predictions_are_listed(project):
    for case in range(7):
        save(project / "runs" / "far" / f"other_{case}.nii.gz", 2, 6)
    result = evaluate("labels", "runs/far")
    assert "7 predictions without a reference: other_0, other_1, other_2, other_3, other_4 and 2 more" in result.stderr


def test_scans_of_one_subject_raise_a_warning_with_a_regex(project):
    for case in range(4):
        save(project / "scans" / f"patient{case // 2:03}_frame{case:02}.nii.gz", 2, 6)
    result = evaluate("scans", "scans")
    assert "try --subject '^(patient[0-9]+)'" in result.stderr
    assert "try --subject" not in evaluate("scans", "scans", "--subject", "^(patient[0-9]+)").stderr


def test_every_option_reaches_the_engine(project):
    (project / "cases.txt").write_text("case_1\ncase_2\n")
    (project / "groups.csv").write_text("case_1,ED\ncase_2,ES\n")
    result = evaluate(
        "labels", "new=runs/far,runs/near", "-o", "out", "--metrics", "dice,nsd,volume_ml", "--nsd-tolerance", "5",
        "--nsd-tolerance", "1=1", "--hd95", "pooled", "--undefined", "50", "--classes", "0,1,2", "--class-names",
        "1=RV,2=MYO", "--background", "--ignore", "9", "--resample", "--cases", "cases.txt", "--group", "groups.csv",
        "--subject", r"case_(\d)", "--permutations", "100", "--seed", "3", "--alpha", "0.1",
    )  # fmt: skip
    assert "3 classes: 0 background, 1 RV, 2 MYO (from --classes)" in result.output
    assert "ignored label: 9" in result.output
    with (project / "out" / "cases.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["metric"] for row in rows} == {"dice", "nsd", "volume_ml"}
    assert {(row["case"], row["group"], row["subject"]) for row in rows} == {
        ("case_1", "ED", "1"),
        ("case_2", "ES", "2"),
    }
    assert {row["run"] for row in rows} == {"far", "near"}
    assert len(rows) == 2 * 2 * 3 * 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["labels", "missing"], "missing: no such file or folder"),
        (["labels"], None),
        (["labels", "runs/far", "--permutation-test"], "compares methods and there is one, far"),
        (["labels", "runs/far", "--baseline", "far"], "--baseline belongs to --permutation-test"),
        (["--permutation-test", "--baseline", "x"], "no such method; the methods are far, near"),
        (["--undefined", "none"], "diagonal, exclude or a number of mm, not 'none'"),
        (["--undefined", "-1"], "diagonal, exclude or a number of mm, not '-1'"),
        (["--metrics", "iou"], "--metrics are names, each once, of dice, hd95"),
        (["--metrics", "dice,nsd"], "nsd needs a tolerance for label 1"),
        (["--nsd-tolerance", "1"], "--nsd-tolerance belongs to nsd"),
        (["--nsd-tolerance", "x"], "--nsd-tolerance takes MM or LABEL=MM"),
        (["--nsd-tolerance", "x=y"], "--nsd-tolerance takes MM or LABEL=MM"),
        (["--class-names", "RV"], "--class-names takes LABEL=NAME"),
        (["--classes", "1,2"], "holds 0 (the background, "),
        (["--spacing", "1", "1", "1"], "carries its own spacing"),
        (["--alpha", "1"], "alpha"),
        (["-q", "-v"], "exclude each other"),
    ],
)
def test_wrong_use_is_one_readable_message(project, arguments, message):
    if message is None:
        assert "2 methods" in evaluate(*arguments).output  # PREDICTIONS are still those of ./runs
        return
    result = evaluate(*arguments, code=2)
    assert message in result.output


def test_the_page_says_the_command_line_that_made_it(project):
    evaluate("labels", "runs/near", "-o", "out dir", "--images", "labels", page=True)
    page = (project / "out dir" / "report.html").read_text(encoding="utf-8")
    line = "rwtool evaluate labels runs/near -o 'out dir' --images labels -j 1"
    assert line.replace("'", "&#39;") in page
    content = json.loads((project / "out dir" / "summary.json").read_text())
    assert content["provenance"]["command_line"] == line
    assert rwtool.evaluate("labels", "runs/near", jobs=1).provenance["command_line"] is None
    evaluate("labels", "runs/near", "-o", "out dir")
    assert not (project / "out dir" / "report.html").exists()
    result = evaluate("labels", "runs/near", "--images", "labels", code=2, page=True)
    assert "--images belongs to report.html; give --out DIR, and no --no-report" in result.output


def test_public_names_are_those_of_the_command():
    assert {"evaluate", "evaluate_labels", "hd95_mm", "paired_permutation_test"} <= set(rwtool.__all__)


def test_real_spine(test_data, tmp_path):
    folder = test_data / "spine"
    evaluate(folder / "reference", folder / "prediction", "-o", tmp_path / "out")
    with (tmp_path / "out" / "cases.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    dice = {row["class"]: float(row["value"]) for row in rows if row["metric"] == "dice"}
    assert len(dice) == 14
    assert min(dice.values()) == pytest.approx(0.0201563408)


def test_failures_of_one_cause_are_one_line_and_a_file(tmp_path):
    for i in range(8):
        save(tmp_path / "labels" / f"c{i}.nii.gz", 1, 4)
        save(tmp_path / "a" / f"c{i}.nii.gz", 1, 4, 1 if i < 2 else 7)
    result = evaluate(tmp_path / "labels", tmp_path / "a", "-o", tmp_path / "out", "-q", code=1)
    lines = result.stderr.splitlines()
    assert lines[0] == "6 cases failed:"
    assert lines[1].startswith(
        "  6 cases (c2, c3, c4, c5, c6 and 1 more): the reference holds 1 alone besides 0 and the prediction 7: "
    )
    assert lines[2:] == [f"each of them with its reason: {tmp_path / 'out' / 'failures.csv'}"]


@pytest.fixture
def nnunet(tmp_path, monkeypatch):
    """Four references and two models of two folds, one off by 0.8 mm and one by 1.6 mm."""
    raw = tmp_path / "raw" / DATASET
    describe(raw, plans=False)
    for case in range(4):
        save(raw / "labelsTr" / f"case_{case}.nii.gz", 2, 6)
    save(raw / "labelsTr" / "other.nii.gz", 2, 6)
    for shift, trainer in ((1, "A"), (2, "B")):
        model = tmp_path / "results" / DATASET / f"nnUNetTrainer{trainer}__nnUNetPlans__2d"
        describe(model)
        for case in range(4):
            save(model / f"fold_{case % 2}" / "validation" / f"case_{case}.nii.gz", 2 + shift, 6 + shift)
            (model / f"fold_{case % 2}" / "validation" / "summary.json").touch()
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    monkeypatch.chdir(tmp_path / "results" / DATASET)
    return tmp_path


def test_results_of_nnunet_need_no_reference(nnunet):
    names = [f"nnUNetTrainer{trainer}__nnUNetPlans__2d" for trainer in "AB"]
    result = evaluate(*names, "--metrics", "hd", "-o", "out")
    labels = nnunet / "raw" / DATASET / "labelsTr"
    assert f"note: no reference was given, so it is nnU-Net's: {labels}\n" in result.stderr
    assert f"cases: the 4 validation cases of {names[0]}, {names[1]} (of 5 references)\n" in result.stdout
    assert re.search(r"nnUNetTrainerA +0\.80 ± 0\.00 ", result.stdout)
    assert re.search(r"nnUNetTrainerB +1\.60 ± 0\.00 ", result.stdout)
    provenance = json.loads((nnunet / "results" / DATASET / "out" / "summary.json").read_text())["provenance"]
    assert provenance["reference"] == str(labels)
    assert provenance["split"] == {"files": names, "cases": 4, "references": 5}
    assert evaluate(str(labels), *names, "--metrics", "hd").stdout == result.stdout


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "=", "a=", "a=b"])
def test_a_first_path_that_is_none_is_an_error_of_the_reference(project, name):
    output = evaluate(name, "runs/far", code=2 if len(name) < 5000 else 1).output
    assert output.startswith("Error: ")
    assert re.search("no such file or folder|has a NUL in its name|File name too long", output)


def test_without_nnunets_variables_the_message_says_what_to_give(nnunet, monkeypatch):
    monkeypatch.delenv("nnUNet_raw")
    output = evaluate("nnUNetTrainerA__nnUNetPlans__2d", code=2).output
    assert "the variable nnUNet_raw is not set; the variable nnUNet_preprocessed is not set; give REFERENCE" in output


def test_labels_that_are_asked_for_and_are_in_no_file_are_noted(project):
    notes = ["region 'heart': no file holds the label 3, 7", "no file holds the label 255 that --map takes for 1"]
    arguments = ("labels", "runs/near", "--region", "heart=1,3,7", "--map", "255=1", "-o", "out")
    for _ in range(2):  # from the files, and from the cache
        lines = evaluate(*arguments).stderr.splitlines()
        assert [line for line in lines if "no file" in line] == [f"note: {note}" for note in notes]
    save(project / "runs" / "near" / "predictions" / "case_3.nii.gz", 2, 6, 255)  # one file is enough
    save(project / "labels" / "case_4.nii.gz", 2, 6, 7)
    lines = evaluate(*arguments).stderr.splitlines()
    assert [line for line in lines if "no file" in line] == ["note: region 'heart': no file holds the label 3"]
