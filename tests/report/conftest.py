import shutil

import pytest
from handmade import tiny

from rwtool.evaluation.rows import Rules
from rwtool.report.write import write_report
from rwtool.statistics.comparison import compare_rows


@pytest.fixture(scope="session")
def _written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    rows, rules = tiny(), Rules(metrics=("dice", "hd"))
    write_report(folder, rows, compare_rows(rows, rules), rules, {"command": "evaluate", "seconds": float("nan")})
    return folder


@pytest.fixture
def report(_written, tmp_path):
    """Folder of the report on `handmade.tiny`, to do with as a test likes."""
    shutil.copytree(_written, tmp_path, dirs_exist_ok=True)
    return tmp_path
