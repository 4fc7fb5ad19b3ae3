import json

import pytest

from rwtool.errors import RwtoolError
from rwtool.report.csv import CASE_COLUMNS, read_tables

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
        ({"nsd_tolerance_mm": [["1", 1]]}, "$.rules.nsd_tolerance_mm[0][0]: expected int, found '1'; "),
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
