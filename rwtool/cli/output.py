"""What several commands print: failures and notes, each cause once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rwtool.cli.options import say
from rwtool.console import count, printable
from rwtool.errors import shorten

if TYPE_CHECKING:
    from rwtool.parallel import Outcome
    from rwtool.shards import Share

FAILURES_FILE = "failures.csv"
_COLUMNS = ("case", "reason", "details")
_CAUSES = 10  # shown on a terminal
_NAMES = 5  # of the cases of a cause, as `shorten` shows
_PATH = re.compile(r"\S*[/\\]\S*")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*(?:e[-+]?\d+)?")


def print_failures(
    outcomes: Sequence[Outcome[Any]],
    out: Path | None = None,
    *,
    every: bool = False,
    remedy: str = "give out=DIR for a file of all of them, or verbose=True to print them",
) -> None:
    """Say on standard error which cases failed, and why: each cause once, with its number of cases and the first names.

    Parameters
    ----------
    outcomes : sequence of Outcome
        Those without an error are passed over. The traceback of a bug is printed with the first case that it met.
    out : Path, optional
        Folder of the command's output. What the terminal leaves out stands in its ``failures.csv``, which is there only
        where the last run needed it.
    every : bool
        Print each case.
    remedy : str
        How to see all where there is no folder.
    """
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    causes: dict[str, list[Outcome[Any]]] = {}
    for outcome in failed:
        causes.setdefault(outcome.name if every else cause(outcome.name, outcome.error or ""), []).append(outcome)
    shown = list(causes.values())[: None if every else _CAUSES]
    whole = every or (len(shown) == len(causes) and all(len(alike) <= _NAMES for alike in shown))
    path = None if out is None else out / FAILURES_FILE
    if path is not None and whole:
        _remove_failures(path)
    if not failed:
        return
    say(f"{count(len(failed), 'case')} failed:", err=True)
    for alike in shown:
        names, reason = shorten([printable(outcome.name) for outcome in alike]), alike[0].error or ""
        if len(alike) > 1:
            names, reason = f"{count(len(alike), 'case')} ({names})", _without_file(alike[0].name, reason)
        say(f"  {names}: {reason}", err=True)
        for line in (alike[0].details or "").splitlines():
            say(f"    {line}", err=True)
    if len(causes) > len(shown):
        say(f"  and {count(len(causes) - len(shown), 'other reason')}", err=True)
    if path is not None and not whole:
        _write_failures(path, failed)
        say(f"each of them with its reason: {path}", err=True)
    elif not whole:
        say(remedy, err=True)


def own_folder(out: Path | None, share: Share | None) -> Path | None:
    """Where the list of failures goes: that of a shard among what is its own, since others write beside it."""
    return out if out is None or share is None else share.shard.folder(out)


def print_notes(notes: Mapping[str, Iterable[str]]) -> None:
    """Say on standard error what files were odd about, each note once for all cases that have it.

    Notes that differ in numbers and paths alone are one, told as the first case has it.
    """
    alike: dict[str, list[tuple[str, str]]] = {}
    for case, found in notes.items():
        told: set[str] = set()
        for note in found:
            kind = cause(case, note)
            if kind not in told:
                alike.setdefault(kind, []).append((case, note))
            told.add(kind)
    for cases in list(alike.values())[:_CAUSES]:
        case, note = cases[0]
        who = printable(case) if len(cases) == 1 else f"{count(len(cases), 'case')}, first {printable(case)}"
        say(f"note: {who}: {note}", err=True)
    if len(alike) > _CAUSES:
        say(f"note: and {count(len(alike) - _CAUSES, 'other note')}", err=True)


def cause(case: str, message: str) -> str:
    """What a message says without what is the case's own: its name, paths and numbers.

    >>> cause("a1", "/x/a1.nii: it has 3 values") == cause("b2 (unet, run 1)", "/x/b2.nii: it has 12 values")
    True
    """
    message = _PATH.sub("/", message)
    if len(_bare(case)) > 1:  # a letter may be a word
        message = re.sub(rf"(?<!\w){re.escape(_bare(case))}(?!\w)", "case", message)
    return _NUMBER.sub("0", message)


def _bare(name: str) -> str:
    """The case of an outcome, which may name the method too: ``case (unet, run 1)``."""
    return name.partition(" (")[0] or name


def _without_file(name: str, reason: str) -> str:
    """A reason without the path of the case's own file before it."""
    file, colon, rest = reason.partition(": ")
    return rest if colon and _bare(name) in file else reason


def _write_failures(path: Path, failed: Sequence[Outcome[Any]]) -> None:
    """List every failed case."""
    from rwtool.report.csv import write_csv

    records = ({"case": item.name, "reason": item.error, "details": item.details} for item in failed)
    write_csv(path, _COLUMNS, records)


def _remove_failures(path: Path) -> None:
    """Remove the list of an earlier run, and nothing else of that name."""
    head = (",".join(_COLUMNS) + "\n").encode()
    if path.is_file():
        with path.open("rb") as file:
            ours = file.read(len(head)) == head
        if ours:
            path.unlink()
