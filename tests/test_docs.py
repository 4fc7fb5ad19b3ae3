"""README and pages against the program: options, file names, shell lines and Python blocks."""

import glob
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import click
import pytest
from click.testing import CliRunner
from test_order import ORDER

import rwtool
from rwtool.cli import main
from rwtool.demo import make_cohort
from rwtool.docs import TOPICS, read_page, read_title

ROOT = Path(__file__).parents[1]
PAGES = {"README": (ROOT / "README.md").read_text(encoding="utf-8"), **{topic: read_page(topic) for topic in TOPICS}}

COMMAND_PAGE = {
    "maps": "maps",
    "check": "maps",
    "view": "view",
    "train": "training",
    "predict": "training",
    "evaluate": "evaluation",
    "compare": "statistics",
    "convergence": "convergence",
    "demo": "training",
    "doctor": "speed",
    "nnunet-path": "nnunet",
    "help": "README",
}
"""Where the options of a command are explained."""

NOT_RUN = {
    "pip install": "installs from a registry",
    "pytest": "is what runs this test",
    "ruff check": "is run by the continuous integration",
    "torchrun": "needs several devices",
    "parallel": "needs GNU parallel",
    "rwtool maps labels maps --shard slurm": "is of a task of an array, see below",
    "rwtool evaluate labels predictions -o results --shard slurm": "is of a task of an array, see below",
    "dask ": "goes on until it is stopped",
    'python -c "from dask_jobqueue': "asks a queue for workers",
    "rwtool maps labels maps --engine": "needs a scheduler",
    "rwtool evaluate labels predictions -o results --engine": "needs a scheduler",
    "openssl": "is another program, which need not be there",
    "chmod 600 key.pem": "is of the key that openssl makes",
    "python tests/benchmarks": "takes minutes",
    "nnUNetv2_": "trains by nnU-Net, for hours",
    "cd $nnUNet": "is a folder of nnU-Net",
    "rwtool evaluate --permutation-test   nnUNetTrainer": "compares trainings of nnU-Net",
    "rwtool maps $nnUNet_preprocessed": "is of a data set of nnU-Net",
    "eval": "changes the user's shell",
    "_RWTOOL_COMPLETE": "needs the fish shell",
}
"""Shell lines by how they begin, and why no test runs them."""

OTHERS_OPTIONS = {
    "--nproc-per-node": "torchrun",
    "--nnodes": "torchrun",
    "--node-rank": "torchrun",
    "--master-addr": "torchrun",
    "--master-port": "torchrun",
    "--scheduler-file": "dask scheduler, dask worker",
    "--nworkers": "dask worker",
    "--nthreads": "dask worker",
    "--memory-limit": "dask worker",
    "--resources": "dask worker",
    "--protocol": "dask scheduler, dask worker",
    "--port": "dask scheduler",
    "--no-dashboard": "dask scheduler",
    "--check": "ruff format",
    "--val_best": "nnUNetv2_train",
    "--c": "nnUNetv2_train",
    "--val": "nnUNetv2_train",
    "--job-name": "sbatch",
    "--array": "sbatch",
    "--cpus-per-task": "sbatch",
    "--mem": "sbatch",
    "--time": "sbatch",
    "--nnunet": "tests/benchmarks/bench_train.py",
    "--cov": "pytest-cov",
}

CHEAP = {"epochs": 1, "features": 2, "depth": 2}
"""Settings that every training of these tests ends with, so that it takes a second."""

START = {
    "cluster": ("predictions",),
    "evaluation": ("runs", "predictions", "nnUNet_raw", "nnUNet_results"),
    "statistics": ("runs",),
}
"""What a page presumes beside `images`, `labels` and `new`."""

TABLES = {
    "challenge.csv": "task,algorithm,case,value\nt,a,c1,0.5\nt,b,c1,0.6\nt,a,c2,0.5\nt,b,c2,0.7\n",
    "scores.csv": "patient,model,score,result\np1,a,DSC,0.5\np1,b,DSC,0.6\n",
}
"""Tables of other tools, for the page of statistics."""

EXAMPLES = {
    "BraTS-GLI-00000-000-seg.nii.gz": "of BraTS",
    "imaging.nii.gz": "of KiTS",
    "segmentation.nii.gz": "of KiTS",
    "patient001_frame01.nii.gz": "of ACDC",
    "patient001_frame01_gt.nii.gz": "of ACDC",
    "heart.json": "of nnU-Net",
    "sub-01_T1w.nii.gz": "of BIDS",
    "sub-01_dseg.nii.gz": "of BIDS",
    "phases.csv": "of ACDC, for the studies",
    "CASES.csv": "a placeholder",
    "FILE.csv": "a placeholder",
}
"""File names that nothing needs to be called."""


class Block(NamedTuple):
    page: str
    language: str
    text: str


def blocks(language):
    for page, text in PAGES.items():
        for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE):
            if found[1] == language:
                yield Block(page, language, found[2])


def lacks_a_framework(text):
    """Whether a block is for a framework that is not installed."""
    named = re.findall(
        r"^(?:from|import) (monai|torchmetrics|torchio|lightning)\b",
        text.replace("from rwtool.integrations.", "import "),
        re.M,
    )
    return any(importlib.util.find_spec(name) is None for name in named)


def pages_with(language):
    """Page, and all its blocks of a language one after another."""
    found = [(page, [block.text for block in some]) for page, some in groupby(blocks(language), lambda b: b.page)]
    return [pytest.param(page, texts, id=page) for page, texts in found]


def prose(page):
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", PAGES[page], flags=re.DOTALL | re.MULTILINE)


def inline_code(page):
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", prose(page))


def lines_of(text):
    """Commands of a shell block, without comments; a shebang is one."""
    for line in text.replace("\\\n", "").splitlines():
        words = re.sub(r"(^|\s)#.*", "", line).strip()
        if words:
            yield words


def options_of(command):
    options = [found for found in command.params if isinstance(found, click.Option)]
    return {name for option in options for name in (*option.opts, *option.secondary_opts)}


def all_options():
    return {"--version", "--help"}.union(*map(options_of, main.commands.values()))


@pytest.fixture(scope="session")
def cohort(tmp_path_factory):
    """Six phantom hearts, two without labels, two short runs, the predictions of one of them, and nnU-Net's folders."""
    folder = make_cohort(tmp_path_factory.mktemp("docs"), subjects=6)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_line("rwtool train images labels runs/dice --loss dice")
        run_line("rwtool train images labels runs/rrw")
        run_line("rwtool predict runs/rrw images predictions")
        make_nnunet(folder)
    return folder


def make_nnunet(folder):
    """The labels as a data set of nnU-Net, and predictions as two models of two folds."""
    data = folder / "nnUNet_raw" / "Dataset001_Heart"
    shutil.copytree(folder / "labels", data / "labelsTr")
    shutil.copy(folder / "dataset.json", data)
    cases = sorted((folder / "labels").iterdir())
    for configuration in ("2d", "3d_fullres"):
        model = folder / "nnUNet_results" / "Dataset001_Heart" / f"nnUNetTrainer__nnUNetPlans__{configuration}"
        for fold in range(2):
            validation = model / f"fold_{fold}" / "validation"
            validation.mkdir(parents=True)
            for case in cases[fold::2]:
                shutil.copy(folder / "predictions" / case.name, validation)
        shutil.copy(folder / "dataset.json", model)
        (model / "plans.json").write_text('{"dataset_name": "Dataset001_Heart"}')


@pytest.fixture
def at_work(cohort, tmp_path, monkeypatch):
    """Function that enters a new copy of the cohort with what a page presumes."""

    def enter(page):
        folder = tmp_path / f"copy-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        for name in ("images", "labels", "new", "dataset.json", *START.get(page, ())):
            source = cohort / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
        for name, text in TABLES.items() if page == "statistics" else ():
            (folder / name).write_text(text)
        monkeypatch.chdir(folder)
        monkeypatch.setenv("nnUNet_raw", "nnUNet_raw")
        return folder

    program = tmp_path / "bin" / "rwtool"  # for the lines that a shell runs
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m rwtool "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    return enter


def run_line(line):
    """Run a line of a page as a shell would; trainings are cut short by settings after their own."""
    words = shlex.split(line)
    for word in [word for word in words if "*" in word and f"'{word}'" not in line]:  # the shell expands it
        at = words.index(word)
        words[at : at + 1] = sorted(glob.glob(word))
    if words[:1] != ["rwtool"]:
        subprocess.run(["sh", "-ec", line], check=True, capture_output=True)
        return
    if words[1] == "train":
        words += [word for name, value in CHEAP.items() for word in (f"--{name}", str(value))]
    if words[1] in ("maps", "check", "view", "evaluate"):
        words += ["--jobs", "1"]
    result = CliRunner().invoke(main, words[1:])
    assert result.exit_code == 0, f"{line}\n{result.output}"


def reason_not_to_run(line):
    return next((reason for start, reason in NOT_RUN.items() if line.startswith(start)), None)


@pytest.mark.parametrize(("page", "texts"), pages_with("sh"))
def test_every_shell_line_runs(page, texts, at_work, monkeypatch):
    folder = at_work(page)
    for text in texts:
        if text.startswith("#!"):  # a script is a study of its own
            at_work(page)
        for line in lines_of(text):
            if not reason_not_to_run(line):
                run_line(line)
        monkeypatch.chdir(folder)


def test_the_job_script_does_all_as_the_tasks_of_an_array(at_work, monkeypatch, tmp_path):
    (script,) = (block.text for block in blocks("sh") if block.page == "cluster" and block.text.startswith("#!"))
    folder = at_work("cluster")
    first, last = map(int, re.search(r"^#SBATCH --array=(\d+)-(\d+)$", script, flags=re.MULTILINE).groups())
    for task in (first, last):
        for name, value in (("ID", task), ("MIN", first), ("MAX", last), ("COUNT", last - first + 1), ("STEP", 1)):
            monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
        subprocess.run(["bash", "-ec", script], check=True, capture_output=True)
    for out in ("maps", "results"):
        ended = {path.name for path in (folder / out / "shards").iterdir()}
        assert ended == {f"{place}-of-{last - first + 1}" for place in (1, last - first + 1)}


def test_no_line_is_left_out_in_vain():
    lines = [line for block in blocks("sh") for line in lines_of(block.text)]
    for start in NOT_RUN:
        assert any(line.startswith(start) for line in lines), start


@pytest.mark.parametrize(("page", "texts"), pages_with("python"))
@pytest.mark.filterwarnings("ignore::Warning:monai", "ignore::Warning:torchio")
def test_every_python_block_runs(page, texts, at_work, monkeypatch):
    texts = [text for text in texts if not lacks_a_framework(text)]
    if not texts:
        pytest.skip("no framework of this page is installed")
    at_work(page)
    if hasattr(rwtool, "train"):
        train = rwtool.train
        monkeypatch.setattr(rwtool, "train", lambda *places, **settings: train(*places, **{**settings, **CHEAP}))
    names = {}
    for text in texts:
        exec(compile(text, f"{page}.md", "exec"), names)


def test_readme_python_type_checks(tmp_path):
    pytest.importorskip("mypy", reason="mypy belongs to the dev extra")
    for page in ("README", "losses", "python"):
        (tmp_path / f"{page}_blocks.py").write_text("\n".join(b.text for b in blocks("python") if b.page == page))
    # torch's backward is untyped; the package itself is checked without these two
    config = ["--config-file", str(ROOT / "pyproject.toml"), "--allow-untyped-calls", "--no-warn-unused-ignores"]
    command = [sys.executable, "-m", "mypy", *config, *tmp_path.glob("*.py")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("language", ["sh", "python"])
def test_lines_of_code_fit_a_terminal(language):
    for block in blocks(language):
        assert max(map(len, block.text.splitlines())) <= 96, block.text


def test_every_block_says_its_language():
    fences = [line for text in PAGES.values() for line in text.splitlines() if line.startswith("```")]
    assert {fence[3:] for fence in fences[::2]} <= {"sh", "python", "bibtex", "text"}
    assert set(fences[1::2]) == {"```"}


@pytest.mark.parametrize("page", PAGES)
def test_every_option_of_a_page_exists(page):
    known = all_options() | set(OTHERS_OPTIONS)
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", PAGES[page])) <= known


@pytest.mark.parametrize("name", main.commands)
def test_every_command_and_option_stands_in_its_page(name):
    page = PAGES[COMMAND_PAGE[name]]
    assert f"rwtool {name}" in page
    for option in options_of(main.commands[name]):
        assert re.search(rf"(?<![\w-]){option}(?![\w-])", page), option


@pytest.mark.parametrize("name", main.commands)
def test_every_option_has_a_help_text(name):
    for parameter in main.commands[name].params:
        assert isinstance(parameter, click.Argument) or parameter.help, parameter.name


@pytest.mark.parametrize(
    ("name", "page"), [found for found in COMMAND_PAGE.items() if found[0] not in ("demo", "help")]
)
def test_a_table_of_options_holds_those_of_its_command(name, page):
    table = PAGES[page].split(f"\n## Options of `rwtool {name}`\n")[1].split("\n## ")[0]
    cells = re.findall(r"^\| ([^|]+) \|", table, flags=re.MULTILINE)
    assert set(re.findall(r"`(--?[a-z][a-z0-9-]*)`", " ".join(cells))) == options_of(main.commands[name])


def file_names(page):
    """Names of files and folders in a page: with a known ending, or a slash at the end."""
    endings = ["csv", "json", "md", "tex", "toml", "pt", "py", "nii", "gz", "npy", "sh", "yaml"]
    for text in inline_code(page):
        for word in text.split():
            path = word.strip("'\"(),:;").removeprefix("./")
            if not re.search(r"[*<]|^\.", path) and re.search(rf"\w\.({'|'.join(endings)})$|\w/$", path):
                yield path


def test_every_file_name_in_the_pages_exists(cohort, tmp_path, monkeypatch):
    shutil.copytree(cohort, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    run_line("rwtool maps labels maps")
    run_line("rwtool evaluate labels runs/dice runs/rrw --permutation-test -o results")
    run_line("rwtool predict runs/rrw new OUT --probabilities")
    made = {path.name for path in tmp_path.rglob("*")}
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "rwtool").rglob("*.py"))
    in_source = set(re.findall(r"[\w.-]+", source))
    for page in PAGES:
        for path in file_names(page):
            name = Path(path).name
            here = any((ROOT / place / path).exists() for place in ("", "rwtool", "tests/benchmarks", "tests/studies"))
            assert here or name in made | in_source | EXAMPLES.keys(), f"{page}: {path}"


@pytest.mark.parametrize("page", PAGES)
def test_every_public_name_of_a_page_exists(page):
    named = set(re.findall(r"\brwtool\.(?!integrations\b)(\w+)\b(?!/)", PAGES[page]))
    if page in ("losses", "python"):
        rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", PAGES[page], flags=re.MULTILINE)
        named |= set(re.findall(r"\w+", " ".join(rows)))
    assert named <= set(rwtool.__all__)


def test_every_public_name_stands_in_a_page():
    text = " ".join(PAGES.values())
    assert [name for name in rwtool.__all__ if not re.search(rf"\b{name}\b", text)] == []


@pytest.mark.parametrize("page", PAGES)
def test_the_topics_that_a_page_refers_to_exist(page):
    for topic in re.findall(r"rwtool help ([a-z]+)", PAGES[page]):
        assert topic in {*TOPICS, *main.commands}
    for link in re.findall(r"\]\(([^)#]+)", PAGES[page]):
        beside = ROOT if page == "README" else ROOT / "rwtool" / "docs"
        assert link.startswith("https://") or (beside / link).is_file(), link


def test_every_page_is_a_topic_and_the_readme_lists_them():
    assert {path.stem for path in (ROOT / "rwtool" / "docs").glob("*.md")} == set(TOPICS)
    assert re.findall(r"\(rwtool/docs/(\w+)\.md\)", PAGES["README"]) == list(TOPICS)
    for topic in TOPICS:
        assert PAGES[topic].startswith("# ")
        assert len(read_title(topic)) < 70


def test_the_readme_opens_with_the_two_commands_and_is_short():
    first, second, *_ = (block.text for block in blocks("sh") if block.page == "README")
    assert first == "pip install . && rwtool demo\n"
    assert second == "pip install '.[test]' && pytest\n"
    assert len(PAGES["README"].splitlines()) <= 200


def test_the_layout_of_the_page_is_the_order_that_is_tested():
    rows = re.findall(r"^\| `(\w+)(/?)` \| [^|]+ \| ?([^|]*)\|$", PAGES["contributing"], flags=re.MULTILINE)
    layout = [f"{place}: {modules.replace('`', '').strip()}" if slash else place for place, slash, modules in rows]
    assert layout == ORDER.split("\n")[1:-1]


def test_the_citation_names_this_version():
    assert f"version = {{{rwtool.__version__}}}" in PAGES["README"]
