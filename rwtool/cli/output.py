"""What several commands print: failures and notes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from rwtool.cli.options import say
from rwtool.console import count

if TYPE_CHECKING:
    from rwtool.parallel import Outcome


def print_failures(outcomes: Sequence[Outcome[Any]]) -> None:
    """Say on standard error which cases failed, and why; a bug keeps its traceback."""
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    if not failed:
        return
    click.echo(f"{count(len(failed), 'case')} failed:", err=True)
    for outcome in failed:
        say(f"  {outcome.name}: {outcome.error}", err=True)
        if outcome.details:
            click.echo(outcome.details, err=True)


def print_notes(notes: Mapping[str, Iterable[str]]) -> None:
    """Say on standard error what files were odd about, each note once for all cases that have it."""
    cases: dict[str, list[str]] = {}
    for case, found in notes.items():
        for note in dict.fromkeys(found):
            cases.setdefault(note, []).append(case)
    for note, names in cases.items():
        who = names[0] if len(names) == 1 else f"{count(len(names), 'case')}, first {names[0]}"
        click.echo(f"note: {who}: {note}", err=True)
