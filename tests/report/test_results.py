import json

import pytest
from handmade import series, tiny
from masks import box
from volumes import volume_of

import rwtool
from rwtool.evaluation.rows import Rules
from rwtool.io.write import write
from rwtool.report.csv import read_cases_csv
from rwtool.report.results import Results
from rwtool.statistics.comparison import compare_rows

SHAPE = (12, 10, 8)  # file axes


def save(path, start, value=1):
    """A box of 4 x 4 x 4 voxels of 0.5 x 0.9 x 3 mm, which begins at `start` along x."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, volume_of(box(SHAPE, (start, start + 4), (2, 6), (2, 6)).astype("uint8") * value))


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Seven cases; `near` is one voxel off along x, which is 0.5 mm, and `far` three of them."""
    for case in range(7):
        for folder, start in (("labels", 2), ("near", 3), ("far", 5)):
            save(tmp_path / folder / f"c{case}.nii.gz", start)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def results(rows, **provenance):
    rules = Rules(metrics=("dice", "hd"))
    return Results(rows, rules, compare_rows(rows, rules), provenance)


# --- the record ---


def written(out):
    """What summary.json holds, its checksums apart."""
    content = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    return {name: part for name, part in content.items() if name not in ("tables", "crc32")}


def test_results_print_write_and_sum_up_one_comparison(tmp_path, capsys):
    found = results(tiny(), command="evaluate")
    found.print()
    printed = capsys.readouterr().out
    assert "tests against old (6 cases)\n" in printed
    assert (
        "undefined: diagonal; the distance of a missed or hallucinated structure is the diagonal of its vol" in printed
    )
    found.write(str(tmp_path / "out"), report=False)
    assert written(tmp_path / "out") == found.summary()
    assert str(read_cases_csv(tmp_path / "out" / "cases.csv")) == str(found.rows)  # nan is not nan
    assert found.summary()["provenance"] == {"command": "evaluate"}


@pytest.mark.parametrize("ask", [Results.summary, Results.print, lambda found: found.write("out")])
def test_without_any_row_there_are_no_results(project, ask):
    found = Results([], Rules(), None, {})
    with pytest.raises(rwtool.UsageError, match=r"^there are no results: every prediction failed; mend them and eval"):
        ask(found)
    assert not (project / "out").exists()


# --- evaluate ---


def test_evaluate_measures_compares_and_writes(project):
    plans = []
    found = rwtool.evaluate(
        "labels",
        ["near", "far"],
        out="out",
        report=False,
        permutation_test=True,
        baseline="far",
        jobs=1,
        on_plan=plans.append,
    )
    numbers = {(row.method, row.metric): row.value for row in found.rows if row.case == "c3"}
    assert numbers == pytest.approx({
        ("near", "dice"): 0.75, ("near", "hd"): 0.5, ("near", "hd95"): 0.5,
        ("far", "dice"): 0.25, ("far", "hd"): 1.5, ("far", "hd95"): 1.5,
    })  # fmt: skip
    assert plans == [found.evaluation.plan]
    assert found.comparison.baseline == "far"
    assert [(test.method, test.metric, test.result.p) for test in found.comparison.tests] == [
        ("near", metric, pytest.approx(2 / 2**7)) for metric in ("dice", "hd95", "hd")
    ]
    assert written(project / "out") == found.summary()
    again = rwtool.compare("out/cases.csv", baseline="far")
    assert again.comparison == found.comparison


def test_the_page_shows_the_worst_cases_over_their_images(project):
    found = rwtool.evaluate("labels", ["near", "far"], out="out", images="labels", jobs=1)
    assert set(found.evaluation.plan.images) == {f"c{case}" for case in range(7)}
    page = (project / "out" / "report.html").read_text(encoding="utf-8")
    assert page.count("<image ") == 14
    assert "1. c0: mean Dice 0.250. Slice 3 of 8, 24 wrong voxels of 96 in all" in page
    found.write("plain", report=False)
    assert not (project / "plain" / "report.html").exists()


def test_tables_have_a_page_without_pictures(project):
    rwtool.evaluate("labels", ["near", "far"], out="out", jobs=1, report=False)
    rwtool.compare("out/cases.csv", out="again")
    page = (project / "again" / "report.html").read_text(encoding="utf-8")
    assert "far: the 7 worst by mean Dice" in page
    assert "<image " not in page
    assert "wrong voxel" not in page
    rwtool.compare("out/cases.csv", out="again", report=False)
    assert not (project / "again" / "report.html").exists()


def test_one_folder_needs_no_list_and_without_out_nothing_is_written(project):
    before = set(project.rglob("*"))
    found = rwtool.evaluate("labels", "near", jobs=1)
    assert {row.method for row in found.rows} == {"near"}
    assert found.comparison.tests == ()
    assert set(project.rglob("*")) == before


def test_methods_that_all_fail_leave_no_comparison_and_no_files(project):
    for path in (project / "near").iterdir():
        path.write_bytes(b"damaged")
    found = rwtool.evaluate("labels", "near", out="out", jobs=1)
    assert (found.rows, found.comparison) == ([], None)
    assert [outcome.name for outcome in found.evaluation.failed] == [f"c{case}" for case in range(7)]
    assert not (project / "out" / "cases.csv").exists()


@pytest.mark.parametrize("failing", ["near", "far"])
def test_there_is_no_test_without_the_baseline_or_a_method_to_test(project, failing):
    for path in (project / failing).iterdir():
        path.write_bytes(b"damaged")
    found = rwtool.evaluate("labels", ["near", "far"], permutation_test=True, jobs=1)
    assert (found.comparison.baseline, found.comparison.tests) == (None, ())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"baseline": "near"}, "baseline= belongs to permutation_test=True; add that"),
        (
            {"permutation_test": True, "predictions": "near"},
            "permutation_test=True compares methods and there is one, near; name another folder of predictions",
        ),
        (
            {"permutation_test": True, "baseline": "x"},
            "baseline=x: there is no such method; the methods are near, far",
        ),
        ({"out": "labels"}, "the results would go to labels, among the label files; choose another out="),
        ({"images": "near"}, "images= belongs to report.html; give out=DIR, and no report=False"),
        ({"images": "near", "out": "out", "report": False}, "images= belongs to report.html; give out=DIR, and no re"),
        ({"images": "none", "out": "out"}, "none: no such file or folder"),
        ({"out": "far"}, "the results would go to far, among the label files; choose another out="),
        ({"metrics": ()}, "metrics= are names, each once, of dice, hd95, hd, assd, masd, nsd, volume_ml, volume_error"),
        ({"metrics": ("dice", "dice")}, "metrics= are names, each once, of "),
        ({"metrics": ("dice", "iou")}, "metrics= are names, each once, of "),
        ({"nsd_tolerance_mm": 1.0}, "nsd_tolerance_mm= belongs to nsd; add it to the metrics, such as "),
        ({"metrics": ("nsd",)}, "nsd needs a tolerance for label 1: give nsd_tolerance_mm= for all labels, or for"),
        ({"metrics": ("nsd",), "nsd_tolerance_mm": {9: 1.0}}, "nsd_tolerance_mm= names label 9, which is not measured"),
        ({"hd95": "max"}, "found hd95='max'; give 'directed' or 'pooled'"),
        ({"predictions": []}, "no predictions to evaluate; name a folder of them"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_measured(project, monkeypatch, options, message):
    monkeypatch.setattr("rwtool.report.results.run_evaluation", lambda plan: pytest.fail("it was measured"))
    with pytest.raises(rwtool.UsageError) as caught:
        rwtool.evaluate("labels", **{"predictions": ["near", "far"], "jobs": 1, **options})
    assert str(caught.value).startswith(message)
    assert not (project / "out").exists()


# --- compare ---


def test_compare_reads_what_was_written(tmp_path):
    found = results(tiny())
    found.write(tmp_path / "a", report=False)
    again = rwtool.compare(tmp_path / "a" / "cases.csv", out=tmp_path / "b", report=False)
    assert again.comparison == found.comparison
    assert again.rules == found.rules
    assert again.evaluation is None
    assert again.provenance["tables"][0]["path"] == str(tmp_path / "a" / "cases.csv")
    assert (tmp_path / "b" / "tests.csv").read_bytes() == (tmp_path / "a" / "tests.csv").read_bytes()


def test_compare_takes_what_undefined_distances_count_as_anew(tmp_path):
    found = results(tiny())
    found.write(tmp_path, report=False)

    def mean(**options):
        comparison = rwtool.compare(tmp_path / "cases.csv", **options).comparison
        return next(cell.spread.mean for cell in comparison.cells if (cell.method, cell.metric) == ("new", "hd"))

    assert mean() == pytest.approx((5 * 8 + 100) / 6)
    assert mean(undefined=50) == pytest.approx((5 * 8 + 50) / 6)
    assert mean(undefined="exclude") == 8


def test_tables_of_several_methods_are_compared_together(tmp_path):
    for name, values in (("old", [0.1 * i for i in range(6)]), ("new", [0.1 * i + 0.05 for i in range(6)])):
        results(series(name, values)).write(tmp_path / name, report=False)
    found = rwtool.compare([tmp_path / name / "cases.csv" for name in ("new", "old")], baseline="old", alpha=0.1)
    (test,) = found.comparison.tests
    assert (test.baseline, test.method, test.result.n) == ("old", "new", 6)
    assert found.rules.alpha == 0.1


@pytest.mark.parametrize(
    ("tables", "options", "message"),
    [
        ([], {}, "there are no tables to compare; name one or more cases.csv"),
        (["a/cases.csv"], {"out": "a"}, "out='a' would replace a table that is read; choose another folder"),
        (["a/cases.csv"], {"out": "b/../a"}, "out='b/../a' would replace a table that is read; choose another folder"),
        (["a/cases.csv", "b/cases.csv"], {}, "a/cases.csv, line 2 and b/cases.csv, line 2 both give dice of class 1 "),
        (["a/cases.csv"], {"baseline": "x"}, "found baseline='x', and no such method; give one of old, new"),
    ],
)
def test_tables_that_do_not_go_together_are_refused(tmp_path, monkeypatch, tables, options, message):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        results(tiny()).write(name, report=False)
    before = (tmp_path / "a" / "cases.csv").read_bytes()
    with pytest.raises(rwtool.UsageError) as caught:
        rwtool.compare(tables, **options)
    assert str(caught.value).startswith(message)
    assert (tmp_path / "a" / "cases.csv").read_bytes() == before


def test_a_table_that_is_not_there_is_named(tmp_path):
    with pytest.raises(rwtool.RwtoolError, match=r"none\.csv: "):
        rwtool.compare(tmp_path / "none.csv")
