"""Names that mean harm, through every command: in no output do they do other than appear, and none is lost."""

import ast
import csv
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner
from cohorts import SHAPE, save
from commands import run
from markdown_it import MarkdownIt

import rwtool
from rwtool.cli import main
from rwtool.console import printable

PACKAGE = Path(__file__).parents[1] / "rwtool"
CASES = (  # what a file name can hold
    "=cmd|' C calc'!A0", '"><img src=x onerror=alert(1)>', "\x1b[31m[red]x[bold]\x07\u202e", "\\input{x}%$&#_^~`*a*|b",
    "{{7*7}}\n# heading\n- [l](http:x) ![i](x)", "@SUM(1,2)\t=1\udcff",
)  # fmt: skip
CLASS = "</script><script>alert(1)</script><!-- =1+1 \x1b[31m [red] \\input{/etc/passwd} | `c` {{7*7}}"
METHODS = ("-2+3 <b onclick>|a*b*\x1b", "+cmd [i] \\write18{x} & <svg onload>\n")
GROUP = "@g <i>\x9b \\x & | {{7*7}} ~~s~~"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Images, labels and predictions of two methods under hostile names, and all that the commands make of them."""
    from cohorts import discs

    folder = tmp_path_factory.mktemp("study")
    for seed, name in enumerate(CASES):
        image, labels = discs(seed)
        save(folder / "images" / f"{name}.nii.gz", image)
        save(folder / "labels" / f"{name}.nii.gz", labels)
        for gain in range(len(METHODS)):
            moved = labels.copy()
            moved[0, : 5 + gain] = 0
            save(folder / "predictions" / str(gain) / f"{name}.nii.gz", moved)
    assert SHAPE[0] > 1
    content = {"labels": {"background": 0, CLASS: 1, "plain": 2}}
    (folder / "dataset.json").write_text(json.dumps(content))
    with (folder / "groups.csv").open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        csv.writer(file).writerows([(name, GROUP if seed % 2 else "b") for seed, name in enumerate(CASES)])
    return folder


@pytest.fixture(scope="module")
def said(study):
    """What the commands print, by command."""
    labels, maps = study / "labels", study / "maps"
    methods = [f"{method}={study / 'predictions' / str(k)}" for k, method in enumerate(METHODS)]
    train = ("--epochs", 1, "--features", 2, "--depth", 2, "--loss", "ce", "--device", "cpu", "--patch", 16, 16)
    found = {}
    for name, words in {
        "maps": ("maps", labels, maps, "-j", 1),
        "check": ("check", maps / "rrw", "-j", 1),
        "check json": ("check", maps / "rrw", "-j", 1, "--format", "json"),
        "evaluate": (
            "evaluate", "--permutation-test", "--permutations", 50, "-o", study / "out", "-j", 1, "--", labels,
            *methods,
        ),
        "compare": ("compare", study / "out" / "cases.csv", "-o", study / "again", "--all-pairs", "--rank"),
        "train": ("train", study / "images", labels, study / "runs" / "seed-0", *train, "-j", 1),
        "predict": ("predict", study / "runs" / "seed-0", study / "images", study / "predicted", "--device", "cpu"),
        "convergence": ("convergence", "-o", study / "curves", "--", f"{METHODS[0]}={study / 'runs'}"),
        "convergence json": ("convergence", "--format", "json", "--", f"{METHODS[0]}={study / 'runs'}"),
    }.items():  # fmt: skip
        found[name] = run(*words).output
    (study / "labels" / f"{CASES[1]}.nii.gz").write_bytes(b"no volume")
    for name, words in {
        "failing maps": ("maps", labels, study / "more", "-j", 1),
        "failing check": ("check", maps / "rrw", "-j", 1),
        "failing evaluate": ("evaluate", "-o", study / "failing", "-j", 1, "-q", "--", labels, methods[0]),
    }.items():
        found[name] = run(*words, code=1).output
    found["refusal"] = run("evaluate", labels, f"{METHODS[1]}={study / 'none'}", code=2).output
    return found


def texts(study, *suffixes):
    """The text of every file that the commands have written, by path."""
    inputs = ("images", "labels", "predictions", "groups.csv", "dataset.json")
    made = [path for path in study.rglob("*") if path.relative_to(study).parts[0] not in inputs]
    return {path: path.read_text(encoding="utf-8") for path in made if path.suffix in suffixes and path.is_file()}


def test_a_terminal_shows_names_and_does_nothing_else(said):
    for command, text in said.items():
        assert {c for c in text if not c.isprintable()} <= {"\n"}, command
        assert "\n# heading" not in text
    for name in ("maps", "evaluate", "train"):
        assert "[red]" in said[name], name  # no markup of rich
    for command in ("check json", "convergence json"):
        assert said[command].isascii()
    assert set(json.loads(said["check json"])["cases"]) == set(CASES)


def test_every_text_file_is_printable_and_json_has_the_names(study, said):
    found = texts(study, ".json", ".csv", ".md", ".tex", ".html", ".toml", ".svg")
    assert {path.suffix for path in found} >= {".json", ".csv", ".md", ".tex", ".html", ".toml"}
    for path, text in found.items():
        assert {c for c in text if not c.isprintable()} <= {"\n"}, path
    summary = json.loads((study / "out" / "summary.json").read_text())
    assert (set(summary["methods"]), set(summary["provenance"]["inputs"])) == (set(METHODS), set(CASES))


def test_no_cell_of_a_table_is_a_formula_and_the_names_come_back(study, said):
    for path, text in texts(study, ".csv").items():
        for line in csv.reader(text.splitlines()):
            for cell in line:
                number = re.fullmatch(r"-?[0-9.]+(e[-+]?[0-9]+)?", cell)
                assert number or not cell.lstrip().startswith(tuple("=+-@\t\r\uff1d\uff0b\uff0d\uff20")), (path, cell)
    rows = rwtool.read_cases_csv(study / "out" / "cases.csv")
    assert {row.case for row in rows} == set(CASES)
    assert {row.method for row in rows} == set(METHODS)
    assert {row.class_name for row in rows} == {CLASS, "plain"}


class Page(HTMLParser):
    """Tags and attributes of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes


def test_a_page_holds_no_tag_and_no_address_of_a_name(study, said):
    pages = texts(study, ".html")
    assert pages
    for path, text in pages.items():
        page = Page(text)
        assert page.tags.count("script") == 1, path
        assert not {"b", "i", "iframe", "object", "form"} & set(page.tags)
        for name, value in page.attributes:
            assert not name.startswith("on"), (path, name)
            assert name not in ("src", "href", "xlink:href", "action") or re.fullmatch(
                r"#.*|data:,|data:image/png;.*", value
            ), value
        assert "{{" not in re.sub(r"\{\{7\*7\}\}", "", text)
        assert "&lt;/script&gt;" in text


def test_markdown_and_latex_show_names_as_they_are(study, said):
    for path, text in texts(study, ".md").items():
        tokens = [
            token
            for block in MarkdownIt("commonmark").enable("table").parse(text)
            for token in block.children or [block]
        ]
        kinds = {token.type for token in tokens}
        assert not kinds & {"html_inline", "html_block", "link_open", "image", "code_inline", "fence", "em_open"}, path
    for path, text in texts(study, ".tex").items():
        for line in text.splitlines():
            if not line.startswith("%"):
                assert not re.search(r"\\(input|write)|(?<!\\)[%~#]", line), (path, line)


def test_a_picture_of_a_sheet_holds_names_as_text(study, said, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    shutil.copytree(study / "predictions" / "0", tmp_path / "labels")
    shutil.copy(study / "dataset.json", tmp_path)
    text = run("view", tmp_path / "labels", "-o", tmp_path / "sheet.svg", "--slices", 1, "-j", 1).output
    assert {c for c in text if not c.isprintable()} <= {"\n"}
    drawn = (tmp_path / "sheet.svg").read_text(encoding="utf-8")
    page = Page(drawn)
    assert not {"script", "img", "b", "foreignobject"} & set(page.tags)
    for name, value in page.attributes:
        assert not name.startswith("on")
        assert name not in ("href", "xlink:href") or re.match(r"#|data:image/png", value)


def test_groups_of_a_table_are_escaped_too(study, said, tmp_path):
    table = (study / "out" / "cases.csv").read_text(encoding="utf-8")
    rows = [{**row, "group": GROUP} for row in csv.DictReader(table.splitlines())]
    with (tmp_path / "cases.csv").open("w", newline="", encoding="utf-8") as file:
        lines = csv.DictWriter(file, rows[0])
        lines.writeheader()
        lines.writerows(rows)
    text = run("compare", tmp_path / "cases.csv", "-o", tmp_path / "out").output
    assert {c for c in text if not c.isprintable()} <= {"\n"}
    assert printable(GROUP) in text
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "<i>" not in page
    assert {row.group for row in rwtool.read_cases_csv(tmp_path / "out" / "cases.csv")} == {GROUP}


# --- no path leaves its folder ---


@pytest.mark.parametrize(
    "names",
    [
        ("maps/rrw/maps.json.journal", "maps/rrw/case_0.nii.gz", "out/cache/case_0.json", "pictures/sheet.png"),
        ("maps/rrw/maps.json", "out/.report.lock", "out/cases.csv"),
        ("maps/rrw/.maps.json.lock",),
    ],
)
def test_a_link_where_output_goes_is_replaced_or_refused_and_never_written_through(cohort, tmp_path, names):
    shutil.copytree(cohort / "labels", tmp_path / "labels")
    (tmp_path / "precious").write_text("precious")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to(tmp_path / "precious")
    labels = tmp_path / "labels"
    for words in (
        ("maps", labels, tmp_path / "maps", "--overwrite", "-q", "-j", 1),
        ("evaluate", labels, labels, "-o", tmp_path / "out", "-q", "-j", 1, "--no-report"),
        ("view", labels, "-o", tmp_path / "pictures" / "sheet.png", "--overwrite", "--slices", 1, "-q", "-j", 1),
    ):
        result = CliRunner().invoke(main, list(map(str, words)))
        assert isinstance(result.exception, (SystemExit, type(None)))
        assert (tmp_path / "precious").read_text() == "precious"


# --- no code from data ---

_PIPES = {"workers.py", "engines.py"}  # from processes of this run alone
_NEVER = {"eval", "exec", "compile", "__import__"}
_MODULES = {"marshal", "shelve", "dill", "cloudpickle", "yaml", "joblib", "pandas", "runpy"}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_no_file_is_read_by_what_runs_code(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = {alias.name.split(".")[0] for alias in node.names} | {getattr(node, "module", None) or ""}
            assert not names & _MODULES
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        given = {word.arg: ast.unparse(word.value) for word in node.keywords}
        assert called not in _NEVER
        assert given.get("allow_pickle", "False") == "False"
        assert "shell" not in given
        if called in ("torch.load", "torch.jit.load", "load_state_dict_from_url"):
            assert (called, given.get("weights_only")) == ("torch.load", "True")
        if re.fullmatch(r"(pickle|_pickle)\.(load|loads|Unpickler)", called):
            assert path.name in _PIPES
        assert not re.fullmatch(r"(np|numpy)\.(load|fromregex|genfromtxt|loadtxt)", called)
