"""``rwtool doctor``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rwtool.cli import options
from rwtool.console import json_text, size

if TYPE_CHECKING:
    from rwtool.diagnosis import Diagnosis, FolderState


@click.command(short_help="Tell what this machine gives, and what will be slow.")
@click.argument("folder", default=".", type=click.Path(exists=True, file_okay=False, path_type=Path))
@options.printed
def doctor(folder: Path, printed: str) -> None:
    """Tell what this machine and this installation give rwtool, and what will be slow here and how to mend it.

    FOLDER is where maps and results are to go [default: this one]: whether it can be written to, what is free, and
    whether locks hold there. PyTorch is imported only where there may be a GPU. The exit code is 0, whatever is found.
    """
    from rwtool.diagnosis import doctor as diagnose

    found = diagnose(folder)
    if printed == "json":
        click.echo(json_text(asdict(found), ascii_only=True))
        return
    for what, told in _lines(found):
        options.say(f"{what:20} {told}")
    options.say("")
    for advice in found.advice:
        options.say(f"- {advice.what}: {advice.mend}")
    if not found.advice:
        options.say("nothing that would be slow here was found")


def _lines(found: Diagnosis) -> Iterator[tuple[str, str]]:
    versions = dict(found.versions)
    yield "rwtool", f"{versions.pop('rwtool')}, distances by the {found.core} core"
    yield "Python", f"{versions.pop('Python')} on {versions.pop('system')}"
    yield "libraries", ", ".join(f"{name} {version}" for name, version in versions.items())
    load = "" if found.load is None else f", {found.load:.1f} processes want one"
    yield "cores", f"{found.cores} of {found.machine_cores} may be used{load}"
    if found.memory_bytes is not None:
        of = "" if found.machine_memory_bytes is None else f" of {size(found.machine_memory_bytes)}"
        yield "memory", f"{size(found.memory_bytes)}{of} can be taken"
    yield "limits", ", ".join(f"{name} {limit:,}" for name, limit in found.limits.items()) or "none"
    if found.variables:
        yield "variables", ", ".join(f"{name}={value}" for name, value in found.variables.items())
    gpus, asked = found.gpus, f" (PyTorch took {found.gpus.seconds:.1f} s to say so)" * bool(found.gpus.seconds)
    names = (f"{name}, {size(memory)}" for name, memory in zip(gpus.names, gpus.memory_bytes, strict=True))
    yield "GPU", (f"none: {gpus.reason}" if gpus.reason else "; ".join(names)) + asked
    yield "codecs", ", ".join(f"{name} {version}" for name, version in found.codecs.items())
    for extra, missing in found.extras.items():
        yield f"rwtool[{extra}]", f"lacks {' and '.join(missing)}" if missing else "there"
    yield "encodings", ", ".join(f"{what} {name}" for what, name in found.encodings.items())
    yield "folder", _state(found.folder)
    yield "temporary files", _state(found.temporary)


def _state(folder: FolderState) -> str:
    if not folder.writable:
        return f"{folder.path}: cannot be written to"
    free = "" if folder.free_bytes is None else f"{size(folder.free_bytes)} free, "
    return f"{folder.path}: {free}{'locks hold' if folder.locks else 'LOCKS DO NOT HOLD'}"
