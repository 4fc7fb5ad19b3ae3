import pytest
from handmade import tiny

from rwtool.evaluation.rows import Rules
from rwtool.report.write import write_report
from rwtool.statistics.comparison import compare_rows


@pytest.fixture
def report(tmp_path):
    """Folder of the report on `handmade.tiny`."""
    rows, rules = tiny(), Rules(metrics=("dice", "hd"))
    comparison = compare_rows(rows, rules)
    write_report(tmp_path, rows, comparison, rules, {"command": "evaluate", "seconds": float("nan")})
    return tmp_path
