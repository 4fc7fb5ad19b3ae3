import os
import pty
import re
import subprocess
import sys

import pytest
from click.testing import CliRunner

from rwtool.cli import main
from rwtool.docs import TOPICS, read_page, read_title


def run(*arguments):
    return CliRunner().invoke(main, ["help", *arguments])


def on_a_terminal(*arguments, columns):
    """What a terminal of some columns is sent."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm-256color", "PAGER": "cat"}
    for name in ("NO_COLOR", "FORCE_COLOR", "LESS"):
        environment.pop(name, None)
    command = [sys.executable, "-m", "rwtool", "help", *arguments]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        while part := _read(ours):
            shown += part
    os.close(ours)
    assert process.returncode == 0, shown
    return shown.decode("utf-8")


def _read(terminal):
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # Linux says so when the other end is closed
        return b""


def test_without_a_topic_it_lists_them_all():
    result = run()
    assert result.exit_code == 0
    for topic in TOPICS:
        assert re.search(rf"^  {topic} +{re.escape(read_title(topic))}$", result.output, flags=re.MULTILINE)


@pytest.mark.parametrize("topic", sorted({*TOPICS} - {*main.commands}))
def test_a_topic_is_its_page_as_it_is_where_there_is_no_terminal(topic):
    result = run(topic)
    assert result.exit_code == 0
    assert result.output.rstrip("\n") == read_page(topic).rstrip("\n")


@pytest.mark.parametrize("command", main.commands)
def test_a_command_is_its_help(command):
    result = run(command)
    shown = CliRunner().invoke(main, [command, "--help"]).output
    assert result.exit_code == 0
    assert result.output.startswith(shown)


def test_a_name_of_both_is_both():
    output = run("maps").output
    assert output.index("Usage: ") < output.index("--kind") < output.index(read_page("maps").rstrip())


@pytest.mark.parametrize(
    ("topic", "meant"),
    [
        ("statistic", "did you mean statistics?"),
        ("evalution", "did you mean evaluation or evaluate?"),
        ("Loss", "did you mean losses?"),
        ("xyzzy", f"the topics are {', '.join(TOPICS)}"),
    ],
)
def test_an_unknown_topic_names_the_close_ones(topic, meant):
    result = run(topic)
    assert result.exit_code == 2
    assert result.output.endswith(f"Error: '{topic}' is no topic and no command; {meant}\n")


@pytest.mark.parametrize("columns", [60, 100])
@pytest.mark.parametrize("topic", TOPICS)
def test_a_terminal_is_shown_no_markdown_and_no_line_too_long(topic, columns):
    plain = on_a_terminal(topic, columns=columns).replace("\r", "")
    assert "\x1b" not in plain  # cat, which is the pager here, is not known to show colours
    assert not re.search(r"^(#+ |```|\| ?-)", plain, flags=re.MULTILINE)
    assert "…" not in plain  # words that a table has cut off
    page = plain[plain.index(read_title(topic)[:20]) :]
    assert max(map(len, page.split("\n"))) <= columns
