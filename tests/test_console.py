import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rwtool.console import (
    count,
    duration,
    json_text,
    print_lines,
    print_table,
    printable,
    printable_lines,
    say,
    show_progress,
    size,
)

DANGEROUS = "a\x1b[31m\x07\x00\r\n\x9b\u202e\u2066\u200b\udcff\ue000\U000e0001b"
WRITTEN_OUT = r"a\x1b[31m\x07\x00\r\n\x9b\u202e\u2066\u200b\udcff\ue000\U000e0001b"


def test_what_does_something_is_written_out():
    assert printable(DANGEROUS) == WRITTEN_OUT


@pytest.mark.parametrize(
    "name", ["unet", "L\u00e4sion \u4e2d \U0001f600", "[bold]x[/bold] :smile:", "C:\\x1b", "", " "]
)
def test_what_appears_stays(name):
    assert printable(name) == name


@given(st.text(st.characters()))
def test_every_text_becomes_printable_and_stays_so(text):
    shown = printable(text)
    assert shown.isprintable()
    assert printable(shown) == shown
    shown.encode("utf-8")


def test_a_name_cannot_pass_for_a_line_of_the_programs():
    assert printable_lines("x\nall is well\r\n    table") == "x\n    all is well\\r\n    table"


@given(
    st.recursive(
        st.one_of(st.none(), st.integers(), st.text(st.characters())),
        lambda c: st.lists(c) | st.dictionaries(st.text(st.characters()), c),
    )
)
def test_json_holds_what_was_given_and_nothing_unprintable(content):
    text = json_text(content)
    assert json.loads(text) == content
    assert all(c.isprintable() or c == "\n" for c in text)


def test_json_to_the_letter():
    assert json_text({"L\u00e4sion\x7f": "\x1b\u202e\n"}) == '{\n "L\u00e4sion\\u007f": "\\u001b\\u202e\\n"\n}'
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_text(float("nan"))


def test_say_goes_to_the_stream_that_is_meant(capsys):
    say("out\x07")
    say("err\x07", err=True)
    assert capsys.readouterr() == ("out\\x07\n", "err\\x07\n")


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [("utf-8", "\u00e4 \u00b1 \u4e2d"), ("latin-1", "\u00e4 +- \\u4e2d"), ("ascii", "\\xe4 +- \\u4e2d")],
)
def test_a_stream_gets_what_it_can_hold(monkeypatch, encoding, shown):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
    monkeypatch.setattr("sys.stdout", stream)
    say("\u00e4 \u00b1 \u4e2d")
    assert raw.getvalue().decode(encoding).rstrip() == shown
    print_table("\u00e4", ("\u4e2d",), [("\u00b1",)])
    print_lines(["\u4e2d"])


def test_a_table_writes_names_out_and_takes_no_markup(capsys):
    print_table(DANGEROUS, ("[red]case\nor not", "n"), [(DANGEROUS, "1"), ("[bold]x[/bold]", ":smile:")])
    text = capsys.readouterr().out
    assert {c for c in text if not c.isprintable()} == {"\n"}
    assert text.count(WRITTEN_OUT) == 2
    for kept in ("[red]case", "or not", "[bold]x[/bold]", ":smile:"):
        assert kept in text


def test_lines_are_written_out(capsys):
    print_lines([DANGEROUS, "[x] plain"])
    assert capsys.readouterr().out == f"{WRITTEN_OUT}\n[x] plain\n"


def test_a_line_without_an_end_is_cut(capsys):
    print_lines(["first", "a" * 9000])
    say("b" * 9000)
    first, cut, said = capsys.readouterr().out.splitlines()
    assert (first, len(cut), len(said)) == ("first", 4520, 4520)
    assert "a [4,500 characters] a" in cut


def test_progress_names_are_written_out(capsys):
    with show_progress("maps", {DANGEROUS: 1, "b": 1}) as advance:
        advance(DANGEROUS, 0.25, False)
        advance("b", 0.0, True)
    assert capsys.readouterr().err == f"[1/2] maps {WRITTEN_OUT}: 0.2 s\n[2/2] maps b: FAILED\n"


def test_quiet_shows_no_progress(capsys):
    with show_progress("maps", {"a": 1}, quiet=True) as advance:
        advance("a", 1.0, False)
    with show_progress("hash", {"a": 1}, bar_only=True) as advance:
        advance("a", 1.0, False)
    assert capsys.readouterr() == ("", "")


def test_counts_sizes_and_times_in_words():
    assert [count(n, "case") for n in (0, 1, 1295)] == ["0 cases", "1 case", "1,295 cases"]
    assert count(2, "class") == "2 classes"
    assert [size(n) for n in (999, 1000, 2.5e6, 3e9, 4e12)] == ["999 B", "1.0 kB", "2.5 MB", "3.0 GB", "4.0 TB"]
    assert [duration(s) for s in (0.25, 59.94, 61, 3599.6, 7260)] == [
        "0.2 s",
        "59.9 s",
        "1 min 01 s",
        "1 h 00 min",
        "2 h 01 min",
    ]
