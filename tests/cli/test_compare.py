import dataclasses
import json

import pytest
from commands import run
from handmade import row, series, structure

from rwtool.evaluation.rows import Rules
from rwtool.report.csv import read_cases_csv
from rwtool.report.write import summary, write_report
from rwtool.statistics.comparison import compare_rows as compare


def saved(folder, rows, rules=Rules()):  # noqa: B008
    write_report(folder, rows, compare(rows, rules), rules, {}, page=False)
    return folder / "cases.csv"


def two_methods():
    rows = [*series("old", [0.1 * i for i in range(8)], metric="dice")]
    rows += [*series("new", [0.1 * i + 0.01 * (i + 1) for i in range(8)], metric="dice")]
    return [*rows, *structure("old", "d", "hallucinated"), *structure("new", "d", "absent")]


def test_compare_equals_the_report_of_the_original_rows(tmp_path):
    rows, rules = two_methods(), Rules(metrics=("dice", "hd", "nsd"))
    table = saved(tmp_path / "a", rows, rules)
    content = json.loads(run("compare", table, "--format", "json").stdout)
    assert content.pop("provenance")["tables"][0]["path"] == str(table)
    expected = summary(compare(rows, rules), rules, {})
    assert content == {key: value for key, value in expected.items() if key != "provenance"}
    run("compare", table, "-o", tmp_path / "b")
    for name in ("cases.csv", "tests.csv", "summary.md", "summary.tex"):
        assert (tmp_path / "b" / name).read_bytes() == (tmp_path / "a" / name).read_bytes()


def test_tables_print_the_test(tmp_path):
    output = run("compare", saved(tmp_path, two_methods())).stdout
    assert "tests against old (9 cases)" in output
    assert "hallucinated structure is the diagonal of its volume" in output


def test_several_tables_are_one(tmp_path):
    rows = two_methods()
    tables = [saved(tmp_path / name, [r for r in rows if r.method == name]) for name in ("old", "new")]
    together = json.loads(run("compare", *tables, "--format", "json").stdout)
    assert together["tests"] == json.loads(run("compare", saved(tmp_path, rows), "--format", "json").stdout)["tests"]


def test_options_reach_the_test(tmp_path):
    rows = [*series("a", [0.1] * 20), *series("b", [0.01 * i for i in range(20)])]
    options = ["--baseline", "b", "--permutations", 99, "--seed", 4, "--alpha", 0.1, "--undefined", 50]
    content = json.loads(run("compare", saved(tmp_path, rows), *options, "--format", "json").stdout)
    (test,) = content["tests"]
    assert (test["baseline"], test["method"], test["permutations"], test["seed"]) == ("b", "a", 99, 4)
    assert (content["rules"]["alpha"], content["rules"]["undefined"]) == (0.1, 50.0)


def test_a_margin_gives_a_verdict_on_the_terminal_and_in_every_file(tmp_path):
    rows = [*series("old", [0.1 * i for i in range(8)]), *series("old", [9.0] * 8, metric="hd")]
    rows += [*series("new", [0.1 * i + 0.01 for i in range(8)]), *series("new", [8.0, 5.0] * 4, metric="hd")]
    table = saved(tmp_path / "a", rows)
    text = run("compare", table, "--margin", "dice=0.3", "--margin", "hd=2", "-o", tmp_path / "b").stdout
    lines = text[text.index("equivalence with old") :].splitlines()
    assert [line.split()[-2:] for line in lines if line.split()[2:4] == ["Dice", "new"]] == [["+0.0100]", "equivalent"]]
    assert [line.split()[-2:] for line in lines if line.split()[:1] == ["HD"]] == [["not", "worse"]]
    content = json.loads((tmp_path / "b" / "summary.json").read_text())
    assert content["rules"]["margin"] == [["dice", 0.3], ["hd", 2.0]]
    assert content["definitions"]["margin"].startswith("0.3 (dice), 2 mm (hd): equivalent where the 90 % interval")
    assert [t["equivalence"] for t in content["tests"]] == ["equivalent", "not worse"]
    assert "| equivalent |" in (tmp_path / "b" / "summary.md").read_text()
    assert ",not worse\n" in (tmp_path / "b" / "tests.csv").read_text()


def test_all_pairs_and_ranks_are_printed(tmp_path):
    rows = [r for k, m in enumerate("abc") for r in series(m, [0.1 * i + 0.01 * k * (i + 1) for i in range(8)])]
    text = run("compare", saved(tmp_path, rows), "--all-pairs", "--rank").stdout
    assert "all pairs: p max-T, the row against the column (8 cases)" in text
    assert "rank [95 % CI by 1,000 bootstrap samples] (8 cases)" in text
    assert "share of each rank, over all classes and metrics" in text
    assert "ranking: mean-then-rank ranks the means" in text


@pytest.mark.parametrize("option", ["--rank", "--all-pairs"])
def test_one_method_has_no_rank(tmp_path, option):
    error = run("compare", saved(tmp_path, series("a", [0.5, 0.6])), option, code=2).stderr
    assert f"{option} compares methods and there is one, a" in error


CHALLENGE = "task,algorithm,case,value\n" + "".join(
    f"T{task},{name},C{case},{0.5 + 0.01 * gain * case + 0.1 * task}\n"
    for task in (1, 2)
    for gain, name in enumerate(("A1", "A2"))
    for case in range(1, 9)
)


def test_the_table_of_challenger_is_read_as_it_is(tmp_path):
    (tmp_path / "challenge.csv").write_text(CHALLENGE)
    result = run("compare", tmp_path / "challenge.csv", "--rank", "--format", "json")
    assert "read as case=case, method=algorithm, metric=dice, value=value, group=task" in result.stderr
    content = json.loads(result.stdout)
    assert content["groups"] == ["T1", "T2"]
    assert [(t["baseline"], t["method"], t["n"], t["p"]) for t in content["tests"]] == [("A1", "A2", 8, 2 / 256)] * 2
    assert [t["mean_difference"] for t in content["tests"]] == pytest.approx([0.045, 0.045])
    assert content["rankings"][0]["ranks"][1]["rank"] == 1


def test_columns_name_those_of_another_tool(tmp_path):
    (tmp_path / "scores.csv").write_text(
        "patient,model,score,result,organ\n"
        + "".join(f"p{i},{m},DSC,{0.5 + 0.01 * i * (m == 'new')},liver\n" for m in ("old", "new") for i in range(1, 8))
    )
    columns = "case=patient,method=model,metric=score,value=result,class=organ"
    content = json.loads(run("compare", tmp_path / "scores.csv", "--columns", columns, "--format", "json").stdout)
    (test,) = content["tests"]
    assert (test["class"], test["metric"], test["n"], test["p"]) == ("liver", "dice", 7, 2 / 128)
    assert content["provenance"]["tables"][0]["read_as"] == (
        "case=patient, method=model, metric=score, value=result, class=organ"
    )
    run("compare", tmp_path / "scores.csv", "--columns", columns, "-o", tmp_path / "out")
    again = json.loads(run("compare", tmp_path / "out" / "cases.csv", "--format", "json").stdout)
    assert again["tests"] == content["tests"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("case", "it is NAME=COLUMN with commas, each once"),
        ("case=a,case=b", "each once"),
        ("organ=a", "--columns names organ; give some of case, method, metric, value, class, group, subject, run"),
        ("case=patient", "no column 'patient' for the case; its columns are task, algorithm, case, value: give"),
        ("metric=sharpness", "no column 'sharpness' for the metric"),
    ],
)
def test_wrong_columns_are_one_readable_line(tmp_path, columns, message):
    (tmp_path / "challenge.csv").write_text(CHALLENGE)
    error = run("compare", tmp_path / "challenge.csv", "--columns", columns, code=2).stderr
    assert message in error
    assert "Traceback" not in error


def test_subject_groups_the_scans_again(tmp_path):
    rows = [row(m, f"p{i // 2}_{i % 2}", 0.1 * i * (m == "b")) for m in "ab" for i in range(8)]
    table = saved(tmp_path / "a", rows)
    content = json.loads(run("compare", table, "--subject", r"(p\d)", "--format", "json", "-o", tmp_path / "b").stdout)
    assert content["tests"][0]["n"] == 4
    assert content["suggested_subject"] is None
    assert {r.subject for r in read_cases_csv(tmp_path / "b" / "cases.csv")} == {"p0", "p1", "p2", "p3"}
    again = json.loads(run("compare", tmp_path / "b" / "cases.csv", "--format", "json").stdout)
    assert again["tests"] == content["tests"]
    assert again["rules"]["subject"] == r"(p\d)"


def test_a_duplicate_names_both_tables(tmp_path):
    rows = two_methods()
    first, second = saved(tmp_path / "a", rows), saved(tmp_path / "b", rows)
    message = run("compare", first, second, code=2).stderr
    assert f"{first}, line 2 and {second}, line 2 both give dice of class 1 in c0 for old" in message


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--baseline", "x"], 2, "found --baseline x, and no such method; give one of old, new"),
        (["--subject", "(q)"], 2, "the subject regex '(q)' finds no subject in"),
        (["--subject", "("], 2, "is not a regular expression"),
        (["--undefined", "-3"], 2, "it is diagonal, exclude or a number of mm, not '-3'"),
        (["--undefined", "nan"], 2, "it is diagonal, exclude or a number of mm, not 'nan'"),
        (["--alpha", "1"], 2, "not in the range"),
        (["--margin", "dice"], 2, "it is METRIC=VALUE, such as dice=0.01; found 'dice'"),
        (["--margin", "dice=1", "--margin", "dice=2"], 2, "it names dice twice"),
        (["--margin", "assd=1"], 2, "--margin names 'assd', which is not measured"),
        (["--margin", "dice=-1"], 2, "--margin of dice is a size above 0"),
        (["--margin", "dice=1", "--alpha", "0.5"], 2, "alpha is below 0.5"),
    ],
)
def test_a_wrong_option_is_one_readable_line(tmp_path, options, code, message):
    error = run("compare", saved(tmp_path, two_methods()), *options, code=code).stderr
    assert message in error


def test_a_corrupt_table_is_one_readable_line(tmp_path):
    table = saved(tmp_path, two_methods())
    table.write_text(table.read_text().replace("0.1,,ok", "0.1x,,ok"))
    assert f"Error: {table}, line 3: value is a number" in run("compare", table, code=1).stderr


def test_out_never_replaces_a_table_that_is_read(tmp_path):
    table = saved(tmp_path, two_methods())
    before = table.read_bytes()
    assert "choose another folder" in run("compare", table, "-o", tmp_path, "--subject", "(.)", code=2).stderr
    assert table.read_bytes() == before


def test_without_a_summary_the_hd95_rule_is_said_to_be_unknown(tmp_path):
    rows = [dataclasses.replace(r, metric="hd95") for r in series("a", [1.0, 2.0], metric="hd")]
    table = saved(tmp_path, rows)
    assert "hd95: directed" in run("compare", table).stdout
    (tmp_path / "summary.json").unlink()
    assert "hd95: rule not recorded" in run("compare", table).stdout
