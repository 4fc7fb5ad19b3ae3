"""What an edited file must not come to, and what commands may say of it."""

import contextlib
import ctypes
import re
from dataclasses import dataclass, field

from click.testing import CliRunner

from rwtool.cli import main

LONGEST_MESSAGE = 6000  # characters
_NO_MEMORY = re.compile("not enough memory|bad_alloc|allocat", re.IGNORECASE)


class FindingError(AssertionError):
    """What must not be."""


@dataclass(frozen=True)
class Verdict:
    """What a case came to: ``read``, ``refused``, or one of the findings; with the reason."""

    kind: str
    reason: str = ""
    edit: str = ""
    seconds: float = 0.0

    @property
    def is_finding(self):
        return self.kind not in ("read", "refused")


@dataclass
class Files:
    """Contents by name, and what a sound reader makes of them."""

    content: dict
    truth: object = None
    same: bool = True
    edits: list = field(default_factory=list)

    def edit(self, name, edit):
        self.content[name] = edit.data
        self.same &= edit.same
        self.edits.append(f"{name}: {edit.what}")


def run(*words):
    """Exit code and output of a command, which must end as commands do."""
    result = CliRunner().invoke(main, list(map(str, words)))
    said = result.output
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    if "Traceback" in said or "bug in rwtool" in said:
        raise FindingError(said[-3000:])
    if result.exit_code not in (0, 1, 2):
        raise FindingError(f"exit code {result.exit_code}: {said}")
    if result.exit_code and not said.strip():
        raise FindingError(f"{words[0]}: exit code {result.exit_code} without a word")
    check_said(said)
    return result.exit_code, said


def check_said(said):
    """What is said is said in so many characters, all of which appear."""
    wrong = {c for c in said if not c.isprintable()} - {"\n"}
    if wrong:
        raise FindingError(f"it prints {wrong!a}: {said[-2000:]!a}")
    longest = max(said.split("\n"), key=len)
    if len(longest) > LONGEST_MESSAGE:
        raise FindingError(f"it says a line of {len(longest):,} characters: {longest[:300]!a}")
    if _NO_MEMORY.search(said):
        raise FindingError(f"it runs out of memory: {said[-1000:]}")


def check_error(error, folder):
    """An error is for people: short, and without a line of C++."""
    text = str(error).replace(str(folder), "")
    if len(text) > LONGEST_MESSAGE:
        raise FindingError(f"an error of {len(text):,} characters: {text[:300]!a}")
    if _NO_MEMORY.search(text):
        raise FindingError(f"it runs out of memory: {text[:1000]}")


def fill_memory(byte):
    """Have the C library fill what it allocates, so that what nobody wrote there is not twice the same."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(-6, byte)  # M_PERTURB
