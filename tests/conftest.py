import os
from pathlib import Path

import pytest


@pytest.fixture
def test_data():
    """Folder of real volumes."""
    folder = os.environ.get("RWTOOL_TEST_DATA")
    if not folder:
        pytest.skip("RWTOOL_TEST_DATA does not name a folder of real volumes")
    return Path(folder)
