import re

import pytest
from handmade import NASTY, series
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from rwtool.console import printable
from rwtool.evaluation.rows import Rules
from rwtool.report.markdown import escape_markdown, markdown_table
from rwtool.report.write import write_report
from rwtool.statistics.comparison import compare_rows as compare

PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def parsed(text):
    """The text of each cell or paragraph, which must hold nothing but text."""
    found = []
    for token in PARSER.parse(text):
        if token.type == "inline":
            assert {child.type for child in token.children} <= {"text"}
            found.append("".join(child.content for child in token.children))
    return found


anything = st.text(
    st.one_of(st.sampled_from("\\`*_~[]<>|&$^@#!-+=.():/w1 ab;lt'\"{}\x1b\r\n\t\u202e"), st.characters()), max_size=12
)


@given(anything)
@example("~~a~~ $b$ &lt; &#35; <b>c</b> ![d](e) `f` \\*")
@example("1. a")
@example("12) a")
@example("- a")
@example("+ a")
@example("# a")
@example("===")
@example("www.a.org http://a.org a@b.org :x:")
def test_what_is_parsed_is_the_name(name):
    shown = re.sub(" +", " ", printable(name)).strip(" ")
    assert parsed(markdown_table(("h", "k"), [(name, "x")], text_columns=2)) == ["h", "k", shown, "x"]
    if shown:
        for before in ("", "- ", "**", "a: "):
            after = "**" if before == "**" else ""
            tokens = PARSER.parse(f"{before}{escape_markdown(shown)}{after}\n")
            (inline,) = (token for token in tokens if token.type == "inline")
            assert {child.type for child in inline.children} <= {"text", "strong_open", "strong_close"}
            text = "".join(child.content for child in inline.children)
            assert text in (before.lstrip("-* ") + shown, f"**{shown}**")  # bold or not: the name is there


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("unet_2.1 (small)", r"unet\_2.1 (small)"),
        ("~~a~~", r"\~\~a\~\~"),
        ("$x$ &lt;", r"\$x\$ \&lt;"),
        ("1. a", r"1\. a"),
        ("-a", r"\-a"),
        ("+0.5", r"\+0.5"),
        ("https://x.org", r"https\://x.org"),
        ("www.x.org", r"www\.x.org"),
        (":x:", r"\:x:"),
        ("a\x1b\u202e", r"a\\x1b\\u202e"),
        ("a\nb", r"a\\nb"),
    ],
)
def test_escaping_to_the_letter(name, text):
    assert escape_markdown(name) == text


def test_numbers_of_a_table_stay_as_they_are():
    assert (
        markdown_table(("a", "n\nm"), [("x", "  -0.5"), ("", "+1")])
        == "| a | n m |\n| --- | ---: |\n| x | -0.5 |\n|  | +1 |\n"
    )


def test_summary_md_to_the_letter(report):
    assert (report / "summary.md").read_text(encoding="utf-8").startswith(MARKDOWN)


MARKDOWN = r"""**mean ± SD \[95 % CI\] (6 cases)**

| class | method | Dice | HD (mm) | n | missed/ halluc./ absent | share of voxels |
| --- | --- | --- | --- | ---: | ---: | ---: |
| 1 RV | old | 0.250 ± 0.000 \[0.250, 0.250\] | 10.00 ± 0.00 \[10.00, 10.00\] | 6 | 0/0/0 | 10.0 % |
|  | (exclude) |  | 10.00 ± 0.00 \[10.00, 10.00\] | 5 |  |  |
|  | new | 0.521 ± 0.310 \[0.195, 0.847\] | 23.33 ± 37.56 \[0.00, 62.75\] | 6 | 1/0/0 |  |
|  | (exclude) |  | 8.00 ± 0.00 \[8.00, 8.00\] | 5 |  |  |

**tests against old (6 cases)**

| class | metric | method | n | left out | mean difference \[95 % CI\] | p | p max-T | p Holm | better/ tied/ worse |
| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| 1 RV | Dice | new | 6 | 0 | +0.2708 \[-0.2500, +0.6250\] | 0.1250 | 0.1250 | 0.2500 | 5/0/1 |
|  | HD (mm) | new | 6 | 0 | +13.333 \[-2.000, +90.000\] | 1.0000 | 1.0000 | 1.0000 | 5/0/1 |
|  |  | (exclude) | 5 | 1 | -2.000 \[unbounded\] | 0.0625 | 0.0625 | 0.1250 | 5/0/0 |

"""


def test_markdown_keeps_its_columns_whatever_the_names(tmp_path):
    rows = series(NASTY, [0.5, 0.6])
    write_report(tmp_path, rows, compare(rows, Rules()), Rules(), {}, page=False)
    lines = [line for line in (tmp_path / "summary.md").read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {7}
