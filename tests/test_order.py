"""The rooms and their order: each module imports only from those above it."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "rwtool"

ORDER = """
errors
files
records
claims
console
machine
workers
engines
parallel
blocks
shards
io: headers names geometry grids volume labels placement raster metaimage nrrd nifti pictures neuro dicom itk arrays blosc abreast formats write
datasets: values classes layouts bids cases channels subjects splits nnunet runs preprocessed curves plan
maps: core parameters distances structures streaming kinds settings folder write make signs check
losses: inputs functional mixing module
metrics: lattice surface overlap measures
evaluation: pairing regrid case rows evaluate
statistics: families permutation intervals effects arms pairs ranking agreement comparison convergence
report: text figures slices curves decisions markdown foreign csv latex cases charts thumbnails sections html write results convergence
network: config unet devices normalization resample checkpoint components segmenter predict
training: display distributed map_source cache cohort augment slices objective averaging validation record loop seeds study
views: planes source layout case sheet view signs check
integrations: channels monai torchmetrics torchio nnunet nnunet.names nnunet.transforms nnunet.stored nnunet.trainer nnunet.ext.rwnnunet
diagnosis
demo
docs
cli: options output maps check view train predict evaluate compare convergence demo doctor nnunet_path help
__main__
"""  # noqa: E501


def modules():
    """Names of the modules from top to bottom, as in `rwtool/docs/contributing.md`."""
    names = []
    for line in ORDER.split("\n"):
        package, colon, inside = line.partition(":")
        if colon:
            names += [package, *(f"{package}.{module}" for module in inside.split())]
        elif package:
            names.append(package)
    return names


RANK = {f"rwtool.{name}": rank for rank, name in enumerate(modules())}


def imports_of(path):
    """Modules of rwtool that a file imports anywhere, inside functions and under TYPE_CHECKING too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("rwtool"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "rwtool":
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in RANK else str(node.module)


def name_of(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def test_every_module_has_its_place():
    assert {name_of(path) for path in FILES} == set(RANK)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_import_runs_up(path):
    mine = name_of(path)
    inside = {f"{mine}.{other.stem}" for other in path.parent.glob("*.py")} if path.stem == "__init__" else set()
    for found in imports_of(path):
        if found == "rwtool":
            continue  # __version__ alone, see below
        assert found in inside or RANK[found] < RANK[mine], f"{mine} imports {found}, which stands below it"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_the_package_itself_gives_its_version_alone(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "rwtool":
            assert {alias.name for alias in node.names} <= {"__version__"}


def test_every_module_has_a_test_of_its_own_name_and_every_test_its_module():
    modules = {path.relative_to(PACKAGE) for path in FILES if not path.stem.startswith("_") and path.suffix == ".py"}
    in_c = {path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.c")}
    modules |= {path.with_name(path.stem.removeprefix("_") + ".py") for path in in_c}
    folders = {module.parent for module in modules} - {Path()}
    here = Path(__file__).parent
    tests = {path.relative_to(here) for path in here.rglob("test_*.py")}
    assert {module.with_name(f"test_{module.name}") for module in modules} - tests == set()
    assert {test.with_name(test.name.removeprefix("test_")) for test in tests if test.parent in folders} <= modules
