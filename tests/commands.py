"""The program, run as its user runs it."""

from click.testing import CliRunner

from rwtool.cli import main


def run(*arguments, code=0):
    """Result of `rwtool` with these words, which ends with `code`, or with any for None; a bug passes through."""
    result = CliRunner().invoke(main, [str(word) for word in arguments], catch_exceptions=False)
    assert code is None or result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def said(result):
    """All that was printed, in one line: a long message is broken where the terminal ends."""
    return " ".join(result.output.split())
