# ruff: noqa: E501  (what is printed is as long as it is)
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from handmade import row, series, structure

import rwtool
from rwtool.errors import RwtoolError, UsageError
from rwtool.evaluation.rows import Rules
from rwtool.report.csv import CASE_COLUMNS, read_cases_csv, read_tables
from rwtool.report.latex import escape_latex, latex_table
from rwtool.report.text import definitions, notes
from rwtool.report.write import print_report, summary, write_report
from rwtool.statistics.comparison import compare_rows as compare

NASTY = r"a_b & 50 % #1 {x} $y$ \z ~ ^ <q> | [r] *"


def tiny():
    """Two methods, six cases: the new one gains 1/8 to 5/8 in Dice and 2 mm, and misses c5."""
    rows = []
    for i in range(6):
        rows += structure("old", f"c{i}", "ok", dice=0.25, hd=10.0)[:2]
        missed = i == 5
        rows += structure(
            "new", f"c{i}", "missed" if missed else "ok", dice=0.375 + 0.125 * i, hd=None if missed else 8.0
        )[:2]
    return rows


@pytest.fixture
def report(tmp_path):
    rows, rules = tiny(), Rules(metrics=("dice", "hd"))
    comparison = compare(rows, rules)
    write_report(tmp_path, rows, comparison, rules, {"command": "evaluate", "seconds": float("nan")})
    return tmp_path


def strict(text):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def printed(rows, rules, capsys, **options):
    print_report(compare(rows, rules, **options), rules)
    return "\n".join(line.rstrip() for line in capsys.readouterr().out.splitlines())


# --- the terminal ---


def test_the_terminal_report_to_the_letter(capsys):
    text = printed(tiny(), Rules(), capsys)
    assert text == TERMINAL


TERMINAL = """\
mean ± SD (6 cases)

                                                             missed/
                                                            halluc./   share of
  class   method        Dice            HD (mm)         n     absent     voxels
 ───────────────────────────────────────────────────────────────────────────────
  1 RV    old           0.250 ± 0.000   10.00 ±  0.00   6      0/0/0     10.0 %
            (exclude)                   10.00 ±  0.00   5
          new           0.521 ± 0.310   23.33 ± 37.56   6      1/0/0
            (exclude)                    8.00 ±  0.00   5

tests against old (6 cases)

                                                                                                     better/
                                      left              mean difference                 p        p     tied/
  class   metric    method        n    out                    [95 % CI]        p    max-T     Holm     worse
 ────────────────────────────────────────────────────────────────────────────────────────────────────────────
  1 RV    Dice      new           6      0   +0.2708 [-0.2500, +0.6250]   0.1250   0.1250   0.2500     5/0/1
          HD (mm)   new           6      0    +13.333 [-2.000, +90.000]   1.0000   1.0000   1.0000     5/0/1
                      (exclude)   5      1           -2.000 [unbounded]   0.0625   0.0625   0.1250     5/0/0

spread: mean and SD (n - 1) over cases, after the mean over the runs of a method
dice: 2|A.B| / (|A| + |B|); 0 where missed or hallucinated, left out where absent
undefined: diagonal; the distance of a missed or hallucinated structure is the diagonal of its volume; (exclude): distances over the cases where every method has one (in a test: both methods)
test: paired permutation test of the absolute mean difference, two-sided; n = 5 to 6 subjects; exact (32 to 64 sign flips)
empty: in a pair, where the reference lacks a class that only one method hallucinates, the empty one scores Dice 1, NSD 1 and distance 0; a case empty in both is left out
star: * p < 0.05 (not adjusted) against old, ↑ better or ↓ worse; p max-T and p Holm are adjusted over the foreground classes and metrics of one method
note: new/1/hd (exclude): n = 5: p < 0.05 is out of reach: with 5 non-zero differences the smallest p is 0.0625"""


def test_without_tests_there_are_means_and_no_stars(capsys):
    text = printed(series("one", [0.5, 0.7]), Rules(), capsys)
    assert "0.600 ± 0.141" in text
    assert "*" not in text
    assert "test" not in text


def test_each_group_has_its_tables(capsys):
    rows = [
        row(method, f"{group}{i}", 0.5 + gain * (i + 1) * (method == "new"), group=group)
        for group, gain in (("ES", 0.05), ("ED", -0.05))
        for method in ("old", "new")
        for i in range(6)
    ]
    text = printed(rows, Rules(), capsys)
    assert text.index("ED: mean ± SD") < text.index("ED: tests") < text.index("ES: mean ± SD") < text.index("ES: tests")
    assert re.search(r"new +0\.325 ± 0\.094 \*↓", text)
    assert re.search(r"new +0\.675 ± 0\.094 \*↑", text)


def test_a_report_is_at_most_120_columns_wide_with_all_metrics(capsys):
    rows = [
        row(method, f"c{i}", 100.0 + i, metric=metric, label=label)
        for method in ("baseline", "region-wise")
        for metric in ("dice", "hd95", "hd", "assd", "masd", "nsd", "volume_ml", "volume_error")
        for label in (1, 2)
        for i in range(3)
    ]
    tables = printed(rows, Rules(), capsys).split("spread:")[0]
    assert max(map(len, tables.splitlines())) <= 120
    assert all(title in tables for title in ("HD95 (mm)", "MASD (mm)", "NSD", "Volume (ml)", "Volume error"))


def test_names_are_printed_as_they_are(capsys):
    assert "[bold]x[/bold] :smile:" in printed(series("[bold]x[/bold] :smile:", [0.5]), Rules(), capsys)


def test_runs_subjects_and_missing_results_are_named(capsys):
    rows = [*series("a", [0.2, 0.4], run="1"), row("a", "c0", 0.6, run="2"), *series("b", [0.5, 0.5])]
    rows = [dataclasses.replace(r, subject="s") for r in rows]
    text = printed(rows, Rules(subject="(s)"), capsys)
    assert "mean ± SD (2 cases; 1 subject; runs averaged per case: a 2, b 1)" in text
    assert "a run 2 has no result for 1 case, which is left out and counted: c1" in text
    assert "n = 1 subjects by '(s)'" in text


def test_a_method_that_hallucinates_nothing_shows_both_rules_too(capsys):
    rows = [r for i in range(6) for r in structure("old", f"c{i}", "ok", dice=0.5, hd=10.0 + i)]
    rows += [r for i in range(6) for r in structure("new", f"c{i}", "ok", dice=0.5, hd=12.0 + i)]
    rows += [*structure("old", "d", "hallucinated"), *structure("new", "d", "absent")]
    lines = printed([r for r in rows if r.metric == "hd"], Rules(), capsys).splitlines()
    first = next(i for i, line in enumerate(lines) if line.split()[:1] == ["new"])
    assert re.fullmatch(r" +new +14\.50 ± +1\.87 +6 +0/0/1", lines[first])  # six times 2 mm worse, once 100 better
    assert re.fullmatch(r" +\(exclude\) +14\.50 ± +1\.87 \*↓ +6", lines[first + 1])


def test_a_cell_with_another_n_than_its_row_says_so(capsys):
    rows = [*structure("a", "c0", "ok", dice=0.5, hd=1.0, nsd=1.0), *structure("a", "c1", "absent")]
    rows += [row("a", "c0", 1.0, metric="volume_ml"), row("a", "c1", 2.0, metric="volume_ml", status="absent")]
    rows = [r for r in rows if r.metric in ("dice", "volume_ml")]
    text = printed(rows, Rules(), capsys)
    assert re.search(r"a +0\.500 \(n 1\) +1\.50 ± 0\.71 +2 +0/0/1", text)


def test_without_unicode_the_report_is_ascii(tmp_path):
    rows = tiny()
    write_report(tmp_path, rows, compare(rows, Rules()), Rules(), {})
    command = [sys.executable, "-m", "rwtool", "compare", str(tmp_path / "cases.csv"), "--alpha", "0.2"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    text = subprocess.run(command, check=True, capture_output=True, env=environment).stdout.decode("ascii")
    assert "0.521 +- 0.310 *^" in text
    assert "^ better or v worse" in text


# --- words ---


def test_the_rules_in_force_are_named():
    rows = [row(m, f"c{i}", 0.1 * i * (m == "b"), metric=k) for m in "ab" for i in range(3) for k in ("hd95", "nsd")]
    rules = Rules(hd95="pooled", undefined=50.0, nsd_tolerance_mm=((1, 2.0),), ignore=255)
    found = definitions(compare(rows, rules), rules)
    assert found["hd95"] == "pooled, 95th percentile of both directions together (as MedPy and nnU-Net v1)"
    assert found["undefined"].startswith(
        "50 mm; the distance of a missed or hallucinated structure is 50 mm; (exclude)"
    )
    assert found["nsd"] == "tolerance 2 mm (class 1)"
    assert found["ignore"] == "voxels of label 255 in the reference belong to no class"
    assert "n = 3 subjects; exact (8 sign flips)" in found["test"]
    unknown = Rules(hd95=None, undefined="exclude")
    assert "not recorded" in definitions(compare(rows, unknown), unknown)["hd95"]


def test_drawn_flips_are_named():
    rows = [*series("a", [0.1] * 20), *series("b", [0.1 * i for i in range(20)])]
    rules = Rules(permutations=1234, seed=7)
    assert "n = 20 subjects; Monte Carlo (m = 1,234, seed 7)" in definitions(compare(rows, rules), rules)["test"]


def test_five_subjects_are_said_to_be_too_few():
    rows = [*series("a", [0.1] * 5), *series("b", [0.2, 0.3, 0.4, 0.5, 0.6])]
    (note,) = notes(compare(rows, Rules()))
    assert note == ("all tests: n = 5: p < 0.05 is out of reach: with 5 non-zero differences the smallest p is 0.0625")


def test_a_note_names_the_tests_that_it_is_about():
    rows = [row(m, f"c{i}", 0.1 * (i + 1) * (m == "b"), label=k) for m in "ab" for k in (1, 2) for i in range(6)]
    assert notes(compare(rows, Rules())) == []
    rows = [r for r in rows if r.label == 1 or r.case < "c4"]
    (note,) = notes(compare(rows, Rules()))
    assert note.startswith("b/2/dice: n = 4: p < 0.05 is out of reach")


# --- files ---


def test_cases_csv_to_the_letter_and_back(tmp_path):
    rows = [
        row("a, b", "c0", 0.1 + 0.2, run="1", subject="s", group="ED"),
        row("a, b", "c1", None, metric="hd", status="missed", share=1e-7, class_name='the "RV"', diagonal_mm=373.13),
    ]
    write_report(tmp_path, rows, compare(rows, Rules()), Rules(), {})
    assert (tmp_path / "cases.csv").read_text() == (
        "method,run,case,subject,group,class,metric,value,unit,status,class_name,diagonal_mm,share\n"
        '"a, b",1,c0,s,ED,1,dice,0.30000000000000004,,ok,RV,100.0,0.1\n'
        '"a, b",,c1,c1,,1,hd,,mm,missed,"the ""RV""",373.13,1e-07\n'
    )
    assert list(map(repr, read_cases_csv(tmp_path / "cases.csv"))) == list(map(repr, rows))  # repr: NaN is not NaN


def test_tests_csv_to_the_letter(report):
    assert (report / "tests.csv").read_text() == TESTS_CSV


TESTS_CSV = """\
baseline,method,group,class,metric,n,p,p_maxt,p_holm,exact,permutations,seed,p_min,mean_difference,ci_low,ci_high,median_difference,wins,ties,losses,undefined_pairs,undefined,class_name,ci_reason,note
old,new,,1,dice,6,0.125,0.125,0.25,true,64,0,0.03125,0.2708333333333333,-0.25,0.625,0.3125,5,0,1,0,diagonal,RV,,
old,new,,1,hd,6,1.0,1.0,1.0,true,64,0,0.03125,13.333333333333334,-2.0,90.0,-2.0,5,0,1,0,diagonal,RV,,
old,new,,1,hd,5,0.0625,0.0625,0.125,true,32,0,0.0625,-2.0,,,-2.0,5,0,0,1,exclude,RV,unbounded: with 5 subjects and 32 permutations no mean difference has p < 0.05,p < 0.05 is out of reach: with 5 non-zero differences the smallest p is 0.0625
"""


def test_summary_json_is_strict_and_complete(report):
    text = (report / "summary.json").read_text(encoding="utf-8")
    content = strict(text)
    assert content["rwtool"] == rwtool.__version__
    assert set(content["versions"]) == {"python", "numpy", "scipy"}
    assert content["provenance"] == {"command": "evaluate", "seconds": None}
    assert content["rules"]["undefined"] == "diagonal"
    assert content["definitions"]["undefined"].startswith("diagonal; ")
    assert content["methods"] == {"old": {"runs": [""]}, "new": {"runs": [""]}}
    assert content["counts"][1] == {
        "method": "new", "group": "", "ok": 5, "missed": 1, "hallucinated": 0, "absent": 0, "no_result": 0, "class": 1,
    }  # fmt: skip
    mean = content["means"][3]
    assert (mean["method"], mean["class"], mean["metric"], mean["undefined"]) == ("new", 1, "hd", 0)
    assert (mean["spread"]["n"], mean["spread"]["mean"]) == (6, 140 / 6)
    assert mean["exclude"] == {"n": 5, "mean": 8.0, "sd": 0.0, "median": 8.0}
    assert content["tests"][2]["undefined"] == "exclude"
    assert content["tests"][2]["p"] == 2 / 32
    assert content["tests"][2]["ci_low"] is None
    assert "unbounded" in content["tests"][2]["ci_reason"]


def test_summary_is_what_is_written(report):
    rows, rules = tiny(), Rules(metrics=("dice", "hd"))
    content = summary(compare(rows, rules), rules, {"command": "evaluate", "seconds": None})
    assert strict((report / "summary.json").read_text(encoding="utf-8")) == content


def test_no_file_says_nan(tmp_path):
    rows = [
        *structure("a", "c0", "absent"),
        *structure("b", "c0", "hallucinated"),
        *structure("c", "c1", "missed", share=float("nan"), diagonal_mm=float("nan")),
    ]
    write_report(tmp_path, rows, compare(rows, Rules()), Rules(), {"x": [float("inf")], "path": Path("p")})
    for path in tmp_path.iterdir():
        assert not re.search(r"\bnan\b|\binf\b|None", path.read_text(encoding="utf-8"), re.IGNORECASE), path
    assert strict((tmp_path / "summary.json").read_text(encoding="utf-8"))["provenance"] == {"x": [None], "path": "p"}


def test_summary_md_to_the_letter(report):
    assert (report / "summary.md").read_text(encoding="utf-8").startswith(MARKDOWN)


MARKDOWN = r"""**mean ± SD (6 cases)**

| class | method | Dice | HD (mm) | n | missed/ halluc./ absent | share of voxels |
| --- | --- | --- | --- | ---: | ---: | ---: |
| 1 RV | old | 0.250 ± 0.000 | 10.00 ± 0.00 | 6 | 0/0/0 | 10.0 % |
|  | (exclude) |  | 10.00 ± 0.00 | 5 |  |  |
|  | new | 0.521 ± 0.310 | 23.33 ± 37.56 | 6 | 1/0/0 |  |
|  | (exclude) |  | 8.00 ± 0.00 | 5 |  |  |

**tests against old (6 cases)**

| class | metric | method | n | left out | mean difference \[95 % CI\] | p | p max-T | p Holm | better/ tied/ worse |
| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| 1 RV | Dice | new | 6 | 0 | +0.2708 \[-0.2500, +0.6250\] | 0.1250 | 0.1250 | 0.2500 | 5/0/1 |
|  | HD (mm) | new | 6 | 0 | +13.333 \[-2.000, +90.000\] | 1.0000 | 1.0000 | 1.0000 | 5/0/1 |
|  |  | (exclude) | 5 | 1 | -2.000 \[unbounded\] | 0.0625 | 0.0625 | 0.1250 | 5/0/0 |

"""


def test_markdown_keeps_its_columns_whatever_the_names(tmp_path):
    rows = series(NASTY, [0.5, 0.6])
    write_report(tmp_path, rows, compare(rows, Rules()), Rules(), {})
    lines = [line for line in (tmp_path / "summary.md").read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {7}


def test_a_report_leaves_nothing_but_its_files(report):
    names = ["cases.csv", "summary.json", "summary.md", "summary.tex", "tests.csv"]
    assert sorted(path.name for path in report.iterdir()) == names


# --- LaTeX ---


def test_summary_tex_to_the_letter(report):
    lines = (report / "summary.tex").read_text(encoding="utf-8").splitlines(keepends=True)
    assert "".join(line for line in lines if not line.startswith("%")) == LATEX
    assert lines[0].startswith("% spread: ")


LATEX = r"""\begin{tabular}{lcc}
\hline
 & \multicolumn{2}{c}{RV} \\
Method & Dice & HD (mm) \\
\hline
old & $0.250 \pm 0.000$ & $10.00 \pm 0.00$ \\
\quad (exclude) &  & $10.00 \pm 0.00$ \\
new & $0.521 \pm 0.310$ & $23.33 \pm 37.56$ \\
\quad (exclude) &  & $8.00 \pm 0.00$ \\
\hline
\end{tabular}
"""


def latex_rows(text):
    """Cells of each line that ends a row."""
    rows = []
    for line in text.splitlines():
        if line.endswith(r"\\") and not line.startswith("%"):
            cells = re.split(r"(?<!\\)&", line)
            spans = [re.search(r"\\multicolumn\{(\d+)\}", cell) for cell in cells]
            rows.append(sum(int(span[1]) if span else 1 for span in spans))
    return rows


def nasty_rows():
    return [
        row(method, f"{group}{i}", 0.5 + 0.1 * (i + 1) * (method != NASTY), label=label, group=group, class_name=name)
        for group in ("E_D", "E&S")
        for method in (NASTY, "[2pt] --- *x", "")
        for label, name in ((1, "R_V [%]"), (2, ""))
        for i in range(6)
        if method
    ]


def test_latex_has_balanced_braces_equal_rows_and_no_bare_specials():
    text = latex_table(compare(nasty_rows(), Rules()), Rules())
    code = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    plain = re.sub(r"\\[&%$#_{}~^]", "", code)
    assert plain.count("{") == plain.count("}")
    assert set(latex_rows(text)) == {3}
    assert len(latex_rows(text)) == 2 + 2 * 3
    assert not re.search(r"[#%~]", plain)
    assert plain.count("$") % 2 == 0
    outside_math = re.sub(r"\$[^$]*\$", "", plain)
    assert not re.search(r"[_^<>|]", outside_math)
    assert not re.search(r"^\s*[\[*]", code, flags=re.MULTILINE)  # \\ would take it for its argument
    assert "class 2" in code


def test_escaping_to_the_letter():
    assert escape_latex("a_b & 50 % #1") == r"a\_b \& 50 \% \#1"
    assert escape_latex("\\~^\n{}") == r"$\backslash$\~{}\^{} \{\}"
    assert escape_latex("[x] a---b") == "{[}x{]} a-{}-{}-b"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_compiles_in_a_plain_table(tmp_path, report):
    (tmp_path / "nasty.tex").write_text(latex_table(compare(nasty_rows(), Rules()), Rules()), encoding="utf-8")
    tables = "".join(f"\\begin{{table}}\\input{{{name}}}\\end{{table}}" for name in ("nasty", "summary"))
    document = f"\\documentclass{{article}}\\begin{{document}}{tables}\\end{{document}}"
    (tmp_path / "document.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "document.tex"]
    done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stdout.decode(errors="replace")


# --- reading ---

HEAD = ",".join(CASE_COLUMNS)
LINE = "a,,c0,c0,,1,dice,0.5,,ok,RV,100,0.1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: the columns method, run, .* are missing; expected a cases.csv of rwtool evaluate"),
        ("method,value\n", "line 1: the columns run, case"),
        (f"{HEAD}\n{LINE}\na,,c1,c1,,1\n", "line 3: expected 13 fields, found 6"),
        (f"{HEAD}\n{LINE},x\n", "line 2: expected 13 fields, found 14"),
        (
            f"{HEAD}\n{LINE.replace('0.5', 'half')}\n",
            "line 2: value is a number, or empty .*; found 'half'",
        ),
        (f"{HEAD}\n{LINE.replace('0.5', 'nan')}\n", "line 2: value is a number, or empty where undefined; found 'nan'"),
        (f"{HEAD}\n{LINE.replace('0.5', 'inf')}\n", "found 'inf'"),
        (
            f"{HEAD}\n{LINE.replace(',1,', ',RV,')}\n",
            "line 2: class is a label of .*; found 'RV'",
        ),
        (f"{HEAD}\n{LINE.replace('dice', 'DSC')}\n", "line 2: metric is one of dice, hd95, .*; found 'DSC'"),
        (f"{HEAD}\n{LINE.replace('ok', 'fine')}\n", "line 2: status is one of ok, missed, .*; found 'fine'"),
        (f"{HEAD}\n{LINE.replace('a,,', ',,')}\n", "line 2: method is empty"),
        (f'{HEAD}\n"a', "cannot be read as a table"),
        (b"\xff\xfe\x00", "cannot be read as a table"),
    ],
)
def test_a_corrupt_table_is_refused_with_its_line(tmp_path, text, message):
    path = tmp_path / "cases.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RwtoolError, match=message) as error:
        read_cases_csv(path)
    assert str(error.value).startswith(str(path))


def test_a_table_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(RwtoolError, match="No such file"):
        read_cases_csv(tmp_path / "cases.csv")


def test_a_table_from_a_spreadsheet_reads(tmp_path):
    (tmp_path / "cases.csv").write_bytes(b"\xef\xbb\xbf" + f"{HEAD}\r\n{LINE}\r\n".encode())
    assert read_cases_csv(tmp_path / "cases.csv") == [row("a", "c0", 0.5)]


def test_rules_of_a_table_are_those_of_the_summary_beside_it(tmp_path):
    rules = Rules(("dice",), "pooled", 7.0, ((1, 2.0), (2, 0.5)), 255, 99, 3, 0.1, "(c)")
    rows = [row("a", "c0", 0.5)]
    write_report(tmp_path, rows, compare(rows, rules), rules, {})
    found = read_tables([tmp_path / "cases.csv"])[1]
    assert found == Rules(("dice",), "pooled", "diagonal", ((1, 2.0), (2, 0.5)), 255, subject="(c)")
    (tmp_path / "summary.json").unlink()
    assert read_tables([tmp_path / "cases.csv"])[1] == Rules(("dice",), hd95=None)


def test_tables_of_different_definitions_are_refused(tmp_path):
    for method, rule in (("a", "directed"), ("b", "pooled")):
        rows, rules = [row(method, "c0", 0.5)], Rules(hd95=rule)
        write_report(tmp_path / method, rows, compare(rows, rules), rules, {})
    tables = [tmp_path / method / "cases.csv" for method in "ab"]
    with pytest.raises(UsageError, match=r"a/cases.csv and .*b/cases.csv were made .* hd95 is directed and pooled"):
        read_tables(tables)
    (tmp_path / "b" / "summary.json").unlink()
    assert read_tables(tables)[1].hd95 is None
    (tmp_path / "b" / "summary.json").write_text("{}")
    with pytest.raises(RwtoolError, match=r"b/summary.json: expected the summary that was written with cases.csv"):
        read_tables(tables)
