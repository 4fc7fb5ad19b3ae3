"""Tables of other tools as rows."""

import math

import pytest

from rwtool.errors import RwtoolError, UsageError
from rwtool.report.csv import read_tables
from rwtool.report.foreign import find_metric


def read(tmp_path, text, columns=None, **options):
    path = tmp_path / "table.csv"
    path.write_text(text, encoding="utf-8")
    return read_tables([path], columns=columns, **options)


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("dice", "dice"),
        ("DSC", "dice"),
        ("Dice Score", "dice"),
        ("HD95", "hd95"),
        ("hd95_mm", "hd95"),
        ("Hausdorff distance (mm)", "hd"),
        ("Hausdorff_Distance_95", "hd95"),
        ("Surface Dice", "nsd"),
        ("volume_ml", "volume_ml"),
        ("sensitivity", None),
        ("", None),
    ],
)
def test_metrics_are_known_by_their_usual_names(name, metric):
    assert find_metric(name) == metric


def test_a_table_of_challenger_with_row_names_and_missing_values(tmp_path):
    text = '"","task","algorithm","case","value"\n"1","t","A1","C1",0.9\n"2","t","A2","C1",NA\n"3","t","A2","C2",0.8\n'
    tables = read(tmp_path, text)
    assert [(r.group, r.method, r.case, r.metric, r.value) for r in tables.rows] == [
        ("t", "A1", "C1", "dice", 0.9), ("t", "A2", "C2", "dice", 0.8),
    ]  # fmt: skip
    (row, _) = tables.rows
    assert (row.label, row.class_name, row.status, row.subject) == ("structure", "structure", "ok", "C1")
    assert math.isnan(row.diagonal_mm)
    assert tables.rules.metrics == ("dice",)
    assert tables.rules.hd95 is None


def test_a_case_of_several_tasks_is_one_in_each(tmp_path):
    text = "task,algorithm,case,value\nt,A,C1,0.9\nu,A,C1,0.8\nu,A,C2,0.7\n"
    assert [(r.case, r.subject) for r in read(tmp_path, text).rows] == [
        ("C1 (t)", "C1"), ("C1 (u)", "C1"), ("C2", "C2"),
    ]  # fmt: skip


def test_without_tasks_there_is_one_group(tmp_path):
    assert read(tmp_path, "algorithm,case,value\nA,C1,0.9\n").rows[0].group == ""


def test_the_metric_of_all_lines_can_be_given(tmp_path):
    tables = read(tmp_path, "algorithm,case,value\nA,C1,12.5\n", {"metric": "HD95"})
    assert (tables.rows[0].metric, tables.rows[0].unit) == ("hd95", "mm")
    assert list(tables.readings.values()) == ["case=case, method=algorithm, metric=hd95, value=value"]


def test_every_column_can_be_named(tmp_path):
    text = "p,m,k,v,o,g,s,r\np1_ED,unet,dice,0.5,3,ED,p1,1\np1_ED,unet,dice,0.6,liver,ED,p1,1\n"
    columns = {
        "case": "p",
        "method": "m",
        "metric": "k",
        "value": "v",
        "class": "o",
        "group": "g",
        "subject": "s",
        "run": "r",
    }
    one, other = read(tmp_path, text, columns).rows
    assert (one.case, one.method, one.metric, one.value) == ("p1_ED", "unet", "dice", 0.5)
    assert (one.label, one.group, one.subject, one.run) == (3, "ED", "p1", "1")
    assert other.label == "liver"


def test_a_subject_regex_goes_over_cases(tmp_path):
    tables = read(tmp_path, "algorithm,case,value\nA,p1_a,0.9\nA,p1_b,0.8\n", subject="(p[0-9])")
    assert {r.subject for r in tables.rows} == {"p1"}


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        ("a,b\n1,2\n", None, r"line 1: the columns method, run, .* are missing"),
        (
            "a,b\n1,2\n",
            {"case": "a"},
            r"no column for the method, no column for the value; its columns are a, b: give ",
        ),
        (
            "algorithm,case,value\nA,c,12\n",
            None,
            r"no column says which metric the values are; give it, such as columns=",
        ),
        ("algorithm,case,value\nA,c,\n", None, "no column says which metric the values are"),
        ("algorithm,case,value\nA,c,high\n", {"metric": "dice"}, "line 2: value is a number, or .*; found 'high'"),
        ("algorithm,case,value\nA,c,1e31\n", {"metric": "hd"}, "line 2: value is a number, or .*; found '1e31'"),
        ("algorithm,case,value\nA,c,inf\n", {"metric": "hd"}, "line 2: value is a number, or .*; found 'inf'"),
        ("algorithm,case,value\nA,c,0.5\n,d,0.5\n", None, "line 3: method is empty; give each line one"),
        ("algorithm,case,value,metric\nA,c,0.5,IoU\n", None, "line 2: metric is one of dice, .*; found 'IoU'"),
        (
            "algorithm,case,value\nA,c,0.5\nA,c,0.6\n",
            None,
            "line 2 and .*, line 3 both give dice of class structure in c",
        ),
    ],
)
def test_what_cannot_be_read_is_one_line_with_its_place(tmp_path, text, columns, message):
    with pytest.raises(RwtoolError, match=message) as error:
        read(tmp_path, text, columns)
    assert str(error.value).startswith(str(tmp_path / "table.csv"))
    assert "\n" not in str(error.value)


def test_a_name_that_is_no_column_of_ours_is_refused(tmp_path):
    with pytest.raises(UsageError, match="columns= names organ; give some of case, method"):
        read(tmp_path, "a,b\n1,2\n", {"organ": "a"})
