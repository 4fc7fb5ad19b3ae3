import csv

import click
import pytest

from rwtool.cli.options import for_shell
from rwtool.cli.output import FAILURES_FILE, cause, print_failures, print_notes
from rwtool.parallel import Outcome


@pytest.fixture(autouse=True)
def command():
    """A command that runs, as `say` asks for its options."""
    options = [click.Option(["--out", "out"]), click.Option(["--verbose"], is_flag=True)]
    with click.Context(click.Command("some", params=options)):
        yield


def truncated(number):
    return [
        Outcome(f"c{i}", None, f"/data/c{i}.nii.gz: {i + 7} bytes are missing; copy it again") for i in range(number)
    ]


def test_failures_of_one_cause_are_one_line_with_the_first_five_names(capsys, tmp_path):
    print_failures([*truncated(1295), Outcome("d", None, "/data/d.nii.gz: a label of -1; mend the file")], tmp_path)
    assert capsys.readouterr().err.splitlines() == [
        "1,296 cases failed:",
        "  1,295 cases (c0, c1, c2, c3, c4 and 1,290 more): 7 bytes are missing; copy it again",
        "  d: /data/d.nii.gz: a label of -1; mend the file",
        f"each of them with its reason: {tmp_path / FAILURES_FILE}",
    ]
    with (tmp_path / FAILURES_FILE).open(newline="") as file:
        found = list(csv.DictReader(file))
    assert len(found) == 1296
    assert found[3] == {
        "case": "c3", "reason": "/data/c3.nii.gz: 10 bytes are missing; copy it again", "details": ""
    }  # fmt: skip


def test_without_a_folder_it_is_said_how_to_see_all(capsys):
    print_failures(truncated(6))
    assert capsys.readouterr().err.splitlines()[-1] == (
        "give --out DIR for a file of all of them, or --verbose to print them"
    )


def test_every_case_on_a_line_of_its_own(capsys, tmp_path):
    print_failures(truncated(40), tmp_path, every=True)
    lines = capsys.readouterr().err.splitlines()
    assert lines[1:] == [f"  c{i}: /data/c{i}.nii.gz: {i + 7} bytes are missing; copy it again" for i in range(40)]
    assert not list(tmp_path.iterdir())


def test_few_failures_need_no_file_and_the_list_of_an_earlier_run_goes(capsys, tmp_path):
    print_failures(truncated(6), tmp_path)
    assert (tmp_path / FAILURES_FILE).exists()
    print_failures(truncated(5), tmp_path)
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "5 cases failed:",
        "  5 cases (c0, c1, c2, c3, c4): 7 bytes are missing; copy it again",
    ]
    assert not list(tmp_path.iterdir())
    print_failures([], tmp_path)
    assert capsys.readouterr().err == ""


def test_a_file_of_that_name_that_is_not_ours_stays(tmp_path):
    (tmp_path / FAILURES_FILE).write_text("my own list")
    print_failures([Outcome("a", 1)], tmp_path)
    assert (tmp_path / FAILURES_FILE).read_text() == "my own list"


def test_more_than_ten_reasons_are_counted(capsys, tmp_path):
    print_failures([Outcome(f"c{i}", None, "because of " + "x" * i) for i in range(12)], tmp_path)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 + 10 + 2
    assert lines[-2] == "  and 2 other reasons"


def test_a_bug_keeps_its_traceback_once(capsys):
    print_failures(
        [Outcome(f"c{i}", None, "unexpected KeyError: 'x'", "Traceback:\n  line\x1b[31m\n") for i in range(3)]
    )
    assert capsys.readouterr().err.splitlines()[1:] == [
        "  3 cases (c0, c1, c2): unexpected KeyError: 'x'",
        "    Traceback:",
        r"      line\x1b[31m",
    ]


def test_names_are_written_out_and_cannot_forge_lines(capsys):
    print_failures([Outcome("a\n2 cases failed:\x1b[2J", None, "/x/a\nb.nii: bad; give overwrite=True")])
    assert capsys.readouterr().err.splitlines() == [
        "1 case failed:",
        r"  a\n2 cases failed:\x1b[2J: /x/a",
        "    b.nii: bad; give overwrite=True",
    ]
    print_notes({"a\n\x07": ["odd\x07"]})
    assert capsys.readouterr().err == "note: a\\n\\x07: odd\\x07\n"


def test_the_words_are_those_of_the_command():
    assert for_shell("give out=DIR", click.get_current_context().command) == "give --out DIR"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (("a", "/d/a.nii: 3 values"), ("b", "/d/b.nii: 12.5 values"), True),
        (("a (unet, run 1)", "/p/a.nii: shape (1, 2)"), ("b (unet, run 1)", "/p/b.nii: shape (30, 4)"), True),
        (("a", "C:\\d\\a.nii: bad"), ("b", "C:\\d\\b.nii: bad"), True),
        (("a", "/my data/a.nii: bad"), ("b", "/my data/b.nii: bad"), True),
        (("kidney_1", "no file for kidney_1"), ("kidney_2", "no file for kidney_2"), True),
        (("a", "it is truncated"), ("b", "it is too large"), False),
    ],
)
def test_what_makes_two_messages_one_cause(one, other, same):
    assert (cause(*one) == cause(*other)) == same


def test_notes_alike_are_one_and_there_are_at_most_ten(capsys):
    notes = {f"c{i}": [f"the header says {i} mm", "odd"] for i in range(300)}
    notes["d"] = ["odd", "odd", *("other " + "x" * i for i in range(12))]
    print_notes(notes)
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["note: 300 cases, first c0: the header says 0 mm", "note: 301 cases, first c0: odd"]
    assert len(lines) == 11
    assert lines[-1] == "note: and 4 other notes"
