import ast
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner

import rwtool
from rwtool.cli import main
from rwtool.maps.core import chosen_core

ROOT = Path(__file__).parents[1]


def loaded_modules(code):
    """Modules that a fresh interpreter has imported after running some code."""
    script = f"import sys\n{code}\nprint(' '.join(sys.modules))"
    return set(
        subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, encoding="utf-8").stdout.split()
    )


def test_the_public_door_is_complete_and_sorted():
    stub = ast.parse((Path(rwtool.__file__).parent / "__init__.pyi").read_text(encoding="utf-8"))
    listed = next(node.value for node in stub.body if isinstance(node, ast.Assign))
    names = ast.literal_eval(listed)
    given = {
        alias.asname or alias.name for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert names == sorted(names)
    assert set(names) == given | {"__version__"}
    assert set(names) == {*rwtool.__all__, "__version__"}
    for name in names:
        assert getattr(rwtool, name) is not None


def definitions():
    """Every class and function of rwtool by name: where it is defined."""
    found = {}
    for path in Path(rwtool.__file__).parent.rglob("*.py"):
        if "cli" not in path.parts:
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                    found.setdefault(node.name, node)
    return found


def types_of(function, classes):
    """Classes of rwtool that the parameters and the result of a function name."""
    parts = [function.returns, *(a.annotation for a in (*function.args.args, *function.args.kwonlyargs))]
    for part in filter(None, parts):
        for node in ast.walk(part):
            if isinstance(node, ast.Name) and isinstance(classes.get(node.id), ast.ClassDef):
                yield node.id


def test_no_type_that_a_public_function_takes_or_returns_is_missing():
    known = definitions()
    missing = set()
    for name in rwtool.__all__:
        node = known[name]
        inside = [part for part in getattr(node, "body", []) if isinstance(part, ast.FunctionDef)]
        public = [part for part in inside if not part.name.startswith("_")]
        for function in [node] if isinstance(node, ast.FunctionDef) else public:
            missing |= set(types_of(function, known)) - set(rwtool.__all__)
    assert not missing


def test_every_public_function_is_documented():
    for name in rwtool.__all__:
        if name != "__version__":
            assert getattr(rwtool, name).__doc__, name


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nonsense"):
        rwtool.nonsense  # noqa: B018


def test_importing_rwtool_imports_nothing_heavy():
    assert not loaded_modules("import rwtool") & {"numpy", "scipy", "nibabel", "SimpleITK", "torch", "rich", "edt"}


def test_help_imports_no_numeric_library():
    code = "from rwtool.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass"
    assert not loaded_modules(code) & {"numpy", "scipy", "nibabel", "SimpleITK", "torch", "rich", "edt", "joblib"}


HEAVY = {"edt", "jinja2", "joblib", "matplotlib", "nibabel", "numpy", "rich", "scipy.ndimage", "scipy.spatial",
         "scipy.special", "SimpleITK", "torch"}  # fmt: skip

IMPORTS = {  # of HEAVY, by each command for one small case; those of a core aside
    ("--help",): set(),
    ("maps", "labels", "more", "-j", "1"): {"nibabel", "numpy", "rich"},
    ("check", "maps/rrw", "-j", "1"): {"nibabel", "numpy", "rich"},
    ("evaluate", "labels", "labels", "-j", "1"): {"nibabel", "numpy", "rich"},
    ("compare", "results/cases.csv"): {"nibabel", "numpy", "rich"},
    ("doctor",): set(),
}


@pytest.fixture(scope="module")
def small_case(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    labels = np.eye(6, dtype=np.uint8)[None].repeat(3, 0)
    (folder / "labels").mkdir()
    nib.save(nib.Nifti1Image(labels, np.eye(4)), folder / "labels" / "a.nii.gz")
    rwtool.make_maps(folder / "labels", folder / "maps", jobs=1)
    rwtool.evaluate(folder / "labels", folder / "labels", out=folder / "results", jobs=1)
    return folder


@pytest.mark.parametrize("arguments", IMPORTS, ids=lambda words: words[0])
def test_a_command_imports_only_what_it_needs(small_case, arguments):
    code = (
        f"import os; os.chdir({str(small_case)!r})\n"
        "from rwtool.cli import main\n"
        "with open(os.devnull, 'w') as sys.stdout, open(os.devnull, 'w') as sys.stderr:\n"
        f"    try: main({list(arguments)})\n"
        "    except SystemExit as end: assert not end.code\n"
        "sys.stdout = sys.__stdout__"
    )
    modules = loaded_modules(code) & HEAVY
    assert modules - {"edt"} == IMPORTS[arguments]
    assert chosen_core() == "edt" or "edt" not in modules


def test_python_dash_m_and_version(tmp_path):
    command = [sys.executable, "-m", "rwtool", "--version"]
    # not from here, where a source tree may lie that was not built
    result = subprocess.run(command, check=True, capture_output=True, encoding="utf-8", cwd=tmp_path)
    assert result.stdout == f"rwtool, version {rwtool.__version__} ({chosen_core()} core)\n"
    assert metadata.version("rwtool") == rwtool.__version__
    assert (
        f"## [{rwtool.__version__}]" in (ROOT / "CHANGELOG.md").read_text()
        or "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()
    )


def test_a_bug_keeps_its_traceback(monkeypatch, tmp_path):
    def broken(*arguments, **options):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("rwtool.views.check.check_maps", broken)
    result = CliRunner().invoke(main, ["check", str(tmp_path)])
    assert isinstance(result.exception, ZeroDivisionError)


def test_the_command_offers_every_kind():
    from rwtool.cli.maps import maps as command
    from rwtool.maps.parameters import KINDS

    (option,) = (parameter for parameter in command.params if parameter.name == "kinds")
    assert tuple(option.type.choices) == (*KINDS, "all")
