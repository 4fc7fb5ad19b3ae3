"""What commands print: tables and failures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from rwtool.tables import print_table

if TYPE_CHECKING:
    from rwtool.runner import Outcome

__all__ = ["count", "duration", "print_failures", "print_table", "size"]


def print_failures(outcomes: Sequence[Outcome[Any]]) -> None:
    """Say on standard error which cases failed, and why; a bug keeps its traceback."""
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    if not failed:
        return
    click.echo(f"{count(len(failed), 'case')} failed:", err=True)
    for outcome in failed:
        click.echo(f"  {outcome.name}: {outcome.error}", err=True)
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


def count(number: int, noun: str) -> str:
    """``1 case``, ``2 cases``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "es" if noun.endswith("s") else "s")


def size(number: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def duration(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
