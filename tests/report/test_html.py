import base64
import hashlib
import html.parser
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from handmade import row, series, structure, tiny

from rwtool.console import printable
from rwtool.evaluation.rows import Rules
from rwtool.report import html as report_html
from rwtool.report.html import report_page
from rwtool.report.write import summary
from rwtool.statistics.comparison import compare_rows as compare

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
HOSTILE = "<script>alert(1)</script>\"'&</title></style>{{ 7*7 }}\u202e\x1b\n--><img src=http://x.test/y>"
VOID = {"meta", "link", "br", "img", "path", "use", "image", "stop", "rect", "circle"}


def page_of(rows, rules=None, provenance=None, **options):
    rules = rules or Rules()
    comparison = compare(rows, rules, **options)
    return report_page(rows, comparison, rules, summary(comparison, rules, provenance or {}))


@pytest.fixture(scope="session")
def whole():
    """A page with every table and chart but that of volumes, and a method of a long name."""
    long = "a_method_with_a_name_" * 4
    rows = [*tiny(), *series(long, [0.5 + 0.01 * i for i in range(6)])]
    rows += series(long, [20.0 + i for i in range(6)], metric="hd")
    return page_of(rows, all_pairs=True, rank=True)


@pytest.fixture
def undrawn(monkeypatch):
    """No matplotlib, for what does not ask for charts, which take longest."""
    monkeypatch.setattr(report_html, "can_draw", lambda: False)


class Parsed(html.parser.HTMLParser):
    """The tags of a page, its attributes, and the text that a reader sees."""

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attributes]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.text += data


# --- the file ---


def test_every_tag_is_closed_and_the_page_is_marked_up_by_meaning(whole):
    page = Parsed(whole)
    assert page.open == []
    assert {"header", "nav", "main", "section", "figure", "figcaption", "caption", "thead", "footer"} <= set(page.tags)
    assert page.tags.count("h1") == 1
    assert {value for tag, name, value in page.attributes if (tag, name) == ("th", "scope")} == {"row", "col"}
    assert page.tags.count("th") == sum((tag, name) == ("th", "scope") for tag, name, _ in page.attributes)
    ids = [value for _, name, value in page.attributes if name == "id"]
    links = {value[1:] for tag, name, value in page.attributes if (tag, name) == ("a", "href")}
    assert links <= set(ids)


def test_nothing_refers_to_another_place(whole):
    page = Parsed(whole)
    for _, name, value in page.attributes:
        if name in ("href", "src", "xlink:href", "action", "srcset"):
            assert value.startswith(("#", "data:")), value
        assert name.startswith("xmlns") or "//" not in value, (name, value)
        assert not name.startswith("on"), name
    assert "iframe" not in page.tags


def test_the_policy_allows_the_one_script_and_no_load(whole):
    (script,) = re.findall(r"<script>(.*?)</script>", whole, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(v for _, name, v in Parsed(whole).attributes if name == "content" and "default-src" in v)
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'; "
        "form-action 'none'"
    )


def test_the_same_rows_give_the_same_page():
    assert page_of(tiny()) == page_of(tiny())


# --- what a reader finds ---


def test_the_numbers_are_those_of_the_other_tables(undrawn):
    text = " ".join(Parsed(page_of(tiny(), provenance={"command": "evaluate"})).text.split())
    assert "old, new: segmentations of 6 cases" in text
    for said in ("0.521 ± 0.310 [0.195, 0.847]", "+0.2708 [-0.2500, +0.6250]", "-2.000 [unbounded]", "5/0/1", "+0.87"):
        assert said in text
    assert "two-sided; n = 5 to 6 subjects; exact (32 to 64 sign flips)" in text
    assert "new/1/hd (exclude): n = 5: p < 0.05 is out of reach" in text
    assert "1 RV: 10.0 % of the reference's voxels" in text
    assert "old - baseline" in text
    assert "rwtool.evaluate, from Python" in text


def test_where_it_comes_from_is_said(undrawn):
    provenance = {
        "command": "evaluate",
        "command_line": "rwtool evaluate labels a=b -o out",
        "versions": {"edt": "2.4"},
        "reference": "labels",
        "runs": [{"method": "new", "run": "1", "source": "x/1"}, {"method": "old", "run": "", "source": "y"}],
        "split": {"files": ["x/split.json"]},
        "failed": {"c9": "c9.nii: broken"},
    }
    text = Parsed(page_of(tiny(), Rules(seed=42), provenance)).text
    for said in (
        "rwtool evaluate labels a=b -o out",
        "edt 2.4",
        "numpy ",
        "42",
        "new 1: x/1",
        "old: y",
        "x/split.json",
    ):
        assert said in text
    assert "c9: c9.nii: broken" in text
    compared = {"command": "compare", "tables": [{"path": "a/cases.csv", "sha256": "abc", "read_as": None}]}
    assert "a/cases.csv (SHA-256 abc)" in Parsed(page_of(tiny(), Rules(), compared)).text


def test_without_matplotlib_the_page_says_what_adds_the_charts(undrawn):
    page = page_of(tiny(), rank=True)
    assert (
        "Charts are left out: matplotlib is not installed; pip install 'rwtool[plot]' adds them." in Parsed(page).text
    )
    assert "<svg" not in page
    assert "0.521 ± 0.310" in page


def test_a_single_pair_does_not_wait_for_matplotlib():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_html import page_of, row\n"
        "page_of([row('a', 'c', 0.5), row('b', 'c', 0.5)])\n"
        "print('matplotlib' in sys.modules)"
    )
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*folders, *sys.path])}
    command = [sys.executable, "-c", code, folders[0]]
    assert subprocess.run(command, check=True, capture_output=True, env=environment).stdout == b"False\n"


def test_undefined_numbers_are_dashes(undrawn):
    rows = [*structure("a", "c0", "absent"), *structure("b", "c0", "hallucinated"), *structure("b", "c1", "missed")]
    assert not re.search(r"\bnan\b|\binf\b|\bNone\b", Parsed(page_of(rows)).text, re.IGNORECASE)


# --- names ---


def test_no_name_becomes_markup_or_does_other_than_appear(whole):
    rows = [
        row(method, f"{HOSTILE}{i}", 0.1 * i * gain, group=HOSTILE, class_name=HOSTILE, run=HOSTILE)
        for method, gain in (("old", 1), (HOSTILE, 2))
        for i in range(6)
    ]
    provenance = {"command_line": HOSTILE, "reference": HOSTILE, "failed": {HOSTILE: HOSTILE}}
    text = page_of(rows, Rules(), provenance, all_pairs=True, rank=True)
    page = Parsed(text)
    assert page.open == []
    assert page.tags.count("script") == Parsed(whole).tags.count("script") == 1
    assert "img" not in page.tags
    assert {c for c in text if not c.isprintable()} == {"\n"}
    assert printable(HOSTILE) in page.text
    assert "49" not in re.findall(r"\{\{[^}]*\}\}|49", page.text)


def test_letters_of_every_language_stay():
    page = page_of(series("دماغ", [0.1, 0.2]) + series("心臓", [0.3, 0.4]))
    assert "دماغ" in Parsed(page).text
    assert "心臓" in Parsed(page).text


# --- size ---


@pytest.mark.slow
def test_a_thousand_cases_of_five_methods_stay_small():
    rng = np.random.default_rng(0)
    rows = []
    for m in range(5):
        for label in range(3):
            values = rng.beta(8, 2, 1000), rng.gamma(2, 3, 1000)
            for metric, of_cases in zip(("dice", "hd95"), values, strict=True):
                rows += series(f"m{m}", of_cases.tolist(), metric=metric, label=label)
    page = page_of(rows, Rules(permutations=99))
    assert len(page.encode()) < 1_000_000  # and fifty pictures of 120 kB at most


# --- in a browser ---

PROBE = """
window.found = [];
addEventListener("error", (event) => found.push("error: " + event.message));
addEventListener("securitypolicyviolation", (event) => found.push("refused: " + event.blockedURI));
addEventListener("load", () => {
  const table = document.querySelector("#tests table");
  const column = (name) => [...table.tHead.rows[0].cells].findIndex((head) => head.textContent.trim() === name);
  const read = (name) => [...table.tBodies[0].rows].map((row) => row.cells[column(name)].textContent);
  const before = read("p");
  table.tHead.rows[0].cells[column("p")].querySelector("button").click();
  const up = read("p");
  table.tHead.rows[0].cells[column("p")].querySelector("button").click();
  const result = {
    found, before, up, down: read("p"), sorted: table.tHead.rows[0].cells[column("p")].getAttribute("aria-sort"),
    width: innerWidth, scroll: document.documentElement.scrollWidth,
    requests: performance.getEntriesByType("resource").map((entry) => entry.name),
    images: [...document.images].length, ground: getComputedStyle(document.body).backgroundColor,
    dark: matchMedia("(prefers-color-scheme: dark)").matches,
  };
  parent.postMessage(encodeURIComponent(JSON.stringify(result)), "*");
});
"""
FRAME = """<!doctype html><meta charset="utf-8"><title>a frame: a window is never as narrow as a phone</title>
<script>addEventListener("message", (event) => { document.title = event.data; });</script>
<iframe src="page.html" style="border: 0; width: %dpx; height: 2000px"></iframe>"""


def browse(page, width, *, dark=False):
    """What a headless Chromium finds in a page, and what it says on its console."""
    digest = base64.b64encode(hashlib.sha256(PROBE.encode()).digest()).decode()
    probed = page.replace("script-src ", f"script-src 'sha256-{digest}' ").replace(
        "<title>", f"<script>{PROBE}</script><title>", 1
    )
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "frame.html"
        path.write_text(FRAME % width, encoding="utf-8")
        path.with_name("page.html").write_text(probed, encoding="utf-8")
        command = [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--disable-dev-shm-usage", f"--user-data-dir={folder}/profile", "--host-resolver-rules=MAP * ~NOTFOUND",
            "--enable-logging=stderr", "--window-size=1500,2000", "--virtual-time-budget=2000", "--dump-dom",
            *(["--blink-settings=preferredColorScheme=0"] if dark else []), path.as_uri(),
        ]  # fmt: skip
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", start_new_session=True
        ) as browser:
            try:
                out, err = browser.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                os.killpg(browser.pid, signal.SIGKILL)
                pytest.skip("Chromium did not answer within a minute")
    note = re.search(r"<title>(%7B[^<]+)", out)
    if note is None:
        pytest.skip(f"Chromium does not run here: {err[-300:]}")
    return json.loads(unquote(note[1])), [line for line in err.splitlines() if "CONSOLE" in line]


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize(("width", "dark"), [(390, True), (1400, False)])
def test_a_browser_shows_it_without_error_request_or_overflow_and_sorts_its_tables(whole, width, dark):
    found, console = browse(whole, width, dark=dark)
    assert found["found"] == []
    assert console == []
    assert found["requests"] == []
    assert found["width"] == width
    assert found["scroll"] <= width
    assert found["dark"] == dark
    assert found["ground"] == ("rgb(20, 23, 26)" if dark else "rgb(255, 255, 255)")
    numbers = [float(text) for text in found["up"]]
    assert numbers == sorted(numbers) != [float(text) for text in found["before"]]
    assert [float(text) for text in found["down"]] == numbers[::-1]
    assert found["sorted"] == "descending"


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_the_browser_test_sees_errors_requests_and_overflow(whole):
    wrong = '<img src="http://x.test/y.png"><div style="width: 900px">x</div>'
    found, console = browse(whole.replace("<main>", f"<main>{wrong}", 1), 390)
    assert any(said.startswith("refused: ") for said in found["found"])
    assert console
    assert found["scroll"] > 390
