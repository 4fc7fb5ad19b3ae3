import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from rwtool.cli import main
from rwtool.errors import UsageError
from rwtool.maps import core
from rwtool.maps.core import chosen_core, core_version
from rwtool.maps.distances import distance_to_class


@pytest.fixture
def unbuilt(monkeypatch):
    """As if there had been no compiler."""
    monkeypatch.setitem(sys.modules, "rwtool.maps._native", None)
    monkeypatch.delattr("rwtool.maps._native", raising=False)


def test_edt_can_be_asked_for(monkeypatch):
    monkeypatch.setenv("RWTOOL_CORE", "edt")
    assert chosen_core() == "edt"
    assert core_version() == {"distance core": "edt"}


@pytest.mark.parametrize("asked", [None, ""])
def test_the_native_core_is_used_where_it_was_built(monkeypatch, asked):
    pytest.importorskip("rwtool.maps._native")
    monkeypatch.delenv("RWTOOL_CORE", raising=False)
    if asked is not None:
        monkeypatch.setenv("RWTOOL_CORE", asked)
    assert chosen_core() == "native"


def test_edt_stands_in_for_a_core_that_was_not_built(monkeypatch, unbuilt):
    monkeypatch.delenv("RWTOOL_CORE", raising=False)
    assert chosen_core() == "edt"
    found = distance_to_class(np.array([[[0, 1, 1]]], np.uint8), 0, (1, 1, 2.5))
    np.testing.assert_array_equal(found, [[[0, 2.5, 5]]])


def test_a_core_that_was_not_built_is_refused_when_asked_for(monkeypatch, unbuilt):
    monkeypatch.setenv("RWTOOL_CORE", "native")
    with pytest.raises(UsageError, match=r"RWTOOL_CORE asks for the native core, which was not built; install .*edt"):
        chosen_core()


@pytest.mark.parametrize("arguments", [["--version"], ["maps", "{labels}", "{out}"]], ids=["version", "maps"])
def test_an_unknown_core_is_refused_once_and_in_words(monkeypatch, tmp_path, arguments):
    monkeypatch.setenv("RWTOOL_CORE", "numba")
    np.save(tmp_path / "a.npy", np.zeros((1, 2, 2), np.uint8))
    names = {"labels": str(tmp_path / "a.npy"), "out": str(tmp_path / "maps")}
    result = CliRunner().invoke(main, [argument.format(**names) for argument in arguments])
    assert result.exit_code == 2
    assert "Error: the environment variable RWTOOL_CORE is native or edt, or not set; found 'numba'" in result.stderr
    assert not (tmp_path / "maps").exists()


@pytest.mark.parametrize("name", ["native", "edt"])
def test_the_version_names_the_core(monkeypatch, name):
    if name == "native":
        pytest.importorskip("rwtool.maps._native")
    monkeypatch.setenv("RWTOOL_CORE", name)
    result = CliRunner().invoke(main, ["--version"])
    assert result.exit_code == 0
    assert result.stdout.endswith(f" ({name} core)\n")


def test_to_tell_the_core_imports_no_numeric_library():
    code = "import sys; from rwtool.maps.core import chosen_core; chosen_core(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not set(loaded) & {"numpy", "edt"}


def test_an_axis_too_long_for_the_native_core_is_measured_all_the_same():
    labels = np.zeros((1, 1, core.LONGEST + 1), np.uint8)
    labels[..., 0] = 1
    found = distance_to_class(labels, 1, (1.0, 1.0, 0.5))
    assert found[0, 0, -1] == core.LONGEST / 2
    assert core.core_for(labels.shape) == "edt"


def test_what_an_axis_may_have_is_measured_by_the_core_that_was_chosen():
    assert core.core_for((2, core.LONGEST, 3)) == chosen_core()
