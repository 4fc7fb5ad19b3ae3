# ruff: noqa: E501  (what is written is as long as it is)
import csv
import io
import json

import pytest
from handmade import row
from hypothesis import example, given
from hypothesis import strategies as st

from rwtool.errors import RwtoolError, UsageError
from rwtool.evaluation.rows import Rules
from rwtool.report.csv import CASE_COLUMNS, quote_text, read_cases_csv, read_tables, unquote_text, write_csv
from rwtool.report.write import write_report
from rwtool.statistics.comparison import compare_rows as compare


def test_cases_csv_to_the_letter_and_back(tmp_path):
    rows = [
        row("a, b", "c0", 0.1 + 0.2, run="1", subject="s", group="ED"),
        row("a, b", "c1", None, metric="hd", status="missed", share=1e-7, class_name='the "RV"', diagonal_mm=373.13),
    ]
    write_report(tmp_path, rows, compare(rows, Rules()), Rules(), {}, page=False)
    assert (tmp_path / "cases.csv").read_text() == (
        "method,run,case,subject,group,class,metric,value,unit,status,class_name,diagonal_mm,share\n"
        '"a, b",1,c0,s,ED,1,dice,0.30000000000000004,,ok,RV,100.0,0.1\n'
        '"a, b",,c1,c1,,1,hd,,mm,missed,"the ""RV""",373.13,1e-07\n'
    )
    assert list(map(repr, read_cases_csv(tmp_path / "cases.csv"))) == list(map(repr, rows))  # repr: NaN is not NaN


def test_tests_csv_to_the_letter(report):
    assert (report / "tests.csv").read_text() == TESTS_CSV


TESTS_CSV = """\
baseline,method,group,class,metric,n,p,p_maxt,p_holm,exact,permutations,seed,p_min,mean_difference,ci_low,ci_high,median_difference,skewness,wins,ties,losses,undefined_pairs,undefined,class_name,ci_reason,note,d_z,win_share,subjects_for_power,chance_not_better,margin,margin_low,margin_high,equivalence
old,new,,1,dice,6,0.125,0.125,0.25,true,64,0,0.03125,0.2708333333333333,-0.25,0.625,0.3125,-0.635861295,5,0,1,0,diagonal,RV,,,0.872502871778,0.8333333333333334,13,0.0428108026399,,,,
old,new,,1,hd,6,1.0,1.0,1.0,true,64,0,0.03125,13.333333333333334,-2.0,90.0,-2.0,1.788854382,5,0,1,0,diagonal,RV,,,0.354998513447,0.8333333333333334,65,0.78784661273,,,,
old,new,,1,hd,5,0.0625,0.0625,0.125,true,32,0,0.0625,-2.0,,,-2.0,,5,0,0,1,exclude,RV,unbounded: with 5 subjects and 32 permutations no mean difference has p < 0.05,p < 0.05 is out of reach: with 5 non-zero differences the smallest p is 0.0625,,1.0,,,,,,
"""


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
        (f"{HEAD}\n{LINE.replace('0.5', '-3e38')}\n", "line 2: value is a number, or .*; found '-3e38'"),
        (f"{HEAD}\n{LINE.replace('0.5', 'nan')}\n", "line 2: value is a number, or empty where undefined; found 'nan'"),
        (f"{HEAD}\n{LINE.replace('0.5', 'inf')}\n", "found 'inf'"),
        (
            f"{HEAD}\n{LINE.replace(',1,', ',MYO,')}\n",
            "line 2: class is a label of .*, or the name of a region; found 'MYO'",
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
    write_report(tmp_path, rows, compare(rows, rules), rules, {}, page=False)
    found = read_tables([tmp_path / "cases.csv"])[1]
    assert found == Rules(("dice",), "pooled", "diagonal", ((1, 2.0), (2, 0.5)), 255, subject="(c)")
    (tmp_path / "summary.json").unlink()
    assert read_tables([tmp_path / "cases.csv"])[1] == Rules(("dice",), hd95=None)


def test_tables_of_different_definitions_are_refused(tmp_path):
    for method, rule in (("a", "directed"), ("b", "pooled")):
        rows, rules = [row(method, "c0", 0.5)], Rules(hd95=rule)
        write_report(tmp_path / method, rows, compare(rows, rules), rules, {}, page=False)
    tables = [tmp_path / method / "cases.csv" for method in "ab"]
    with pytest.raises(UsageError, match=r"a/cases.csv and .*b/cases.csv were made .* hd95 is directed and pooled"):
        read_tables(tables)
    (tmp_path / "b" / "summary.json").unlink()
    assert read_tables(tables)[1].hd95 is None
    (tmp_path / "b" / "summary.json").write_text("{}")
    with pytest.raises(RwtoolError, match=r"b/summary.json: expected the summary that was written with cases.csv"):
        read_tables(tables)


# --- names ---

names = st.text(
    st.one_of(st.sampled_from("=+-@'\"\\\r\n\t\0,;\x1b\u202e \N{FULLWIDTH EQUALS SIGN}xU0"), st.characters()),
    max_size=8,
)


@given(names)
@example("\\x41")
@example("'\\x41")
@example("=\\U00110000")
@example("a\udcffb")
def test_any_text_is_a_printable_cell_that_is_no_formula_and_comes_back(text):
    cell = quote_text(text)
    assert cell.isprintable()
    assert cell.lstrip()[:1] not in tuple("=+-@")
    assert unquote_text(cell) == text
    assert cell == text or cell.startswith("'")


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("unet", "unet"),
        ("a=b-1", "a=b-1"),
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\\t=1"),
        (" =1", "' =1"),
        ("\N{FULLWIDTH EQUALS SIGN}1", "'\N{FULLWIDTH EQUALS SIGN}1"),
        ("\N{FULLWIDTH COMMERCIAL AT}x", "'\N{FULLWIDTH COMMERCIAL AT}x"),
        ("'quoted'", "''quoted'"),
        ("C:\\new", "C:\\new"),
        ("C:\\new\x1b[2J", "'C:\\\\new\\x1b[2J"),
        ("a\rb", "'a\\rb"),
        ("a\udcffb", "'a\\udcffb"),
        ("L\u00e4sion", "L\u00e4sion"),
        ("", ""),
    ],
)
def test_cells_to_the_letter(text, cell):
    assert quote_text(text) == cell


@given(st.lists(names.filter(bool), min_size=4, max_size=4))
def test_a_table_of_any_names_comes_back_from_its_file(tmp_path_factory, found):
    method, case, group, class_name = found
    rows = [row(method, case, -0.5, group=group, class_name=class_name, run="-1", metric="volume_error")]
    path = tmp_path_factory.mktemp("any") / "cases.csv"
    write_csv(path, CASE_COLUMNS, [{**vars(item), "class": item.label} for item in rows])
    assert read_cases_csv(path) == rows
    text = path.read_bytes().decode("utf-8")
    assert text.count("\n") == 2
    assert all(c.isprintable() or c == "\n" for c in text)


def test_negative_numbers_stay_numbers(tmp_path):
    write_csv(tmp_path / "t.csv", ("a", "b", "c"), [{"a": -1.5, "b": -2, "c": "-2"}])
    assert (tmp_path / "t.csv").read_text() == "a,b,c\n-1.5,-2,'-2\n"


@pytest.mark.parametrize("cell", ["'a\\q", "'a\\", "'\\U00110000", "'\\x1"])
def test_a_backslash_that_stands_for_nothing_is_refused_with_its_mend(tmp_path, cell):
    line = io.StringIO()
    csv.writer(line).writerow([cell, *LINE.split(",")[1:]])
    (tmp_path / "cases.csv").write_text(f"{HEAD}\n{line.getvalue()}")
    with pytest.raises(RwtoolError, match=r"line 2: found .*, in which a backslash stands for no character; write "):
        read_cases_csv(tmp_path / "cases.csv")


def test_a_name_that_is_empty_behind_its_apostrophe_is_refused(tmp_path):
    (tmp_path / "cases.csv").write_text(f"{HEAD}\n{LINE.replace('a,,', chr(39) + ',,')}\n")
    with pytest.raises(RwtoolError, match="line 2: method is empty"):
        read_cases_csv(tmp_path / "cases.csv")


# --- the summary beside a table ---

RULES = {"hd95": "directed", "nsd_tolerance_mm": [[1, 2.0]], "ignore": None, "subject": None}


@pytest.fixture
def table(tmp_path):
    row = "a,,c0,c0,,1,dice,0.5,,ok,RV,10.0,0.1"
    (tmp_path / "cases.csv").write_text(f"{','.join(CASE_COLUMNS)}\n{row}\n")
    (tmp_path / "summary.json").write_text(json.dumps({"format": 1, "rules": RULES}))
    return tmp_path / "cases.csv"


def test_the_rules_are_those_of_the_summary_beside_the_table(table):
    rules = read_tables([table])[1]
    assert (rules.hd95, rules.nsd_tolerance_mm, rules.ignore, rules.subject) == ("directed", ((1, 2.0),), None, None)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{}", "$.format is missing, expected 1; "),
        ("[]", "expected an object at $; found []; "),
        ('{"format": 9, "rwtool": "3.0"}', "its format is 9 (of rwtool 3.0), this rwtool reads 1; "),
        ('{"format": 1}', "$: missing required field rules; "),
        ({"hd95": "mean"}, "$.rules.hd95: expected one of directed, pooled, found 'mean'; "),
        ({"nsd_tolerance_mm": [[1]]}, "$.rules.nsd_tolerance_mm[0]: expected array of length 2, found [1]; "),
        ({"nsd_tolerance_mm": [[1, -1]]}, "$.rules.nsd_tolerance_mm[0][1]: expected float >= 0.0, found -1; "),
        ({"nsd_tolerance_mm": [[None, 1]]}, "$.rules.nsd_tolerance_mm[0][0]: expected int | str, found None; "),
        ({"ignore": 2.5}, "$.rules.ignore: expected int | null, found 2.5; "),
        ({"subject": ["p"]}, "$.rules.subject: expected str | null, found ['p']; "),
        ('{"format": 1, "rules": NaN}', "NaN is no number of JSON; "),
        ("[" * 100_000, "it is nested too deeply; "),
    ],
)
def test_a_wrong_summary_is_one_line_that_names_the_field(table, content, reason):
    text = content if isinstance(content, str) else json.dumps({"format": 1, "rules": {**RULES, **content}})
    path = table.parent / "summary.json"
    path.write_text(text)
    with pytest.raises(RwtoolError) as caught:
        read_tables([table])
    message = str(caught.value)
    assert message.startswith(f"{path}: expected the summary that was written with cases.csv: {reason}")
    assert "restore it, or move it away to go without" in message
    assert "\n" not in message
