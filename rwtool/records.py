"""Records in files: JSON and TOML, parsed strictly and made into types, so that a wrong file is one readable line."""

from __future__ import annotations

import csv
import json
import math
import re
import reprlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import msgspec
from isal import isal_zlib

from rwtool.errors import RwtoolError
from rwtool.files import atomic

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")


def read_parsed(
    path: Path, parse: Callable[[str], T], *, refusal: str, mend: str, error: type[RwtoolError] = RwtoolError
) -> T:
    """Read a text file and parse it.

    Parameters
    ----------
    path : Path
    parse : callable
        Takes the text; a ValueError of it, or one of `csv`, says what is wrong.
    refusal : str
        What to say before the reason: ``"cannot be read as a split"``.
    mend : str
        What to say after it.
    error : type
        Of what is raised.

    Raises
    ------
    RwtoolError
        As `error`, one line: it is not there, no regular file, no UTF-8, or does not parse.
    """
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is no regular file")
        return parse(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError, csv.Error) as caught:
        reason = str(caught)
        if isinstance(caught, OSError):
            reason = caught.strerror or reason
        elif isinstance(caught, UnicodeDecodeError):
            reason = f"it is no UTF-8 text (byte 0x{caught.object[caught.start]:02x} at {caught.start})"
        elif isinstance(caught, RecursionError):
            reason = "it is nested too deeply"
        raise error(f"{path}: {refusal}: {reason}; {mend}") from caught


def read_json(path: Path, *, refusal: str, mend: str, error: type[RwtoolError] = RwtoolError) -> Any:
    """Parse a JSON file strictly: no key twice, no NaN or infinity, no whole number beyond 64 bits.

    Parameters and errors are those of :func:`read_parsed`.
    """
    return read_parsed(path, parse_json, refusal=refusal, mend=mend, error=error)


def read_toml(path: Path, *, refusal: str, mend: str, error: type[RwtoolError] = RwtoolError) -> dict[str, Any]:
    """Parse a TOML file; parameters and errors are those of :func:`read_parsed`."""
    return read_parsed(path, tomllib.loads, refusal=refusal, mend=mend, error=error)


def parse_json(text: str | bytes) -> Any:
    """Parse strict JSON; a ValueError says what is wrong, a RecursionError that it is nested too deeply."""
    return json.loads(
        text, object_pairs_hook=_once, parse_constant=_no_number, parse_float=_finite, parse_int=_of_64_bits
    )


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return found


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:24]} is beyond float64")
    return number


def _of_64_bits(text: str) -> int:
    if len(text) > 20 or not -(1 << 63) <= int(text) < 1 << 63:
        raise ValueError(f"the whole number {text[:24]} is beyond 64 bits")
    return int(text)


def check_format(path: Path, content: Any, form: int, *, refusal: str, mend: str) -> None:
    """Refuse what is no object, or is of another format number than this rwtool reads.

    Raises
    ------
    RwtoolError
    """
    if not isinstance(content, dict):
        raise RwtoolError(f"{path}: {refusal}: expected an object at $; found {reprlib.repr(content)}; {mend}")
    if "format" not in content:
        raise RwtoolError(f"{path}: {refusal}: $.format is missing, expected {form}; {mend}")
    found = content["format"]
    if type(found) is not int or found != form:
        by = f" (of rwtool {content['rwtool']})" if isinstance(content.get("rwtool"), str) else ""
        raise RwtoolError(
            f"{path}: {refusal}: its format is {reprlib.repr(found)}{by}, this rwtool reads {form}; {mend}, or use the "
            "rwtool that wrote it"
        )


def to_record(
    content: Any, kind: type[T], path: Path, *, refusal: str, mend: str, error: type[RwtoolError] = RwtoolError
) -> T:
    """Make a typed record of parsed JSON or TOML; of one that is sealed, the checksum is compared.

    Parameters are those of :func:`read_parsed`; `path` is for the message, which names the field, what stood there and
    what was expected.
    """
    try:
        found = msgspec.convert(content, kind, str_keys=True)
    except msgspec.ValidationError as caught:
        raise error(f"{path}: {refusal}: {explain(caught, content, kind)}; {mend}") from caught
    except UnicodeEncodeError as caught:  # msgspec reads a number or a choice from UTF-8 alone
        reason = f"{caught.object!r} stands where no such text is expected"
        raise error(f"{path}: {refusal}: {reason}; {mend}") from caught
    except RwtoolError as caught:  # of a type that checks itself
        raise error(f"{path}: {refusal}: {caught}; {mend}") from caught
    check_seal(content, path, refusal=refusal, mend=mend, error=error)
    return found


def sealed(record: Any) -> dict[str, Any]:
    """A record as plain values, with the CRC-32 of them all as ``crc32``; :func:`to_record` compares it."""
    content: dict[str, Any] = msgspec.to_builtins(record, str_keys=True)
    return {**content, "crc32": checksum(content)}


def checksum(content: Any) -> str:
    """CRC-32 of a record, in hex: of its values, not of how a file writes them."""
    return f"{isal_zlib.crc32(to_json(content).encode()):08x}"


def check_seal(content: Any, path: Path, *, refusal: str, mend: str, error: type[RwtoolError] = RwtoolError) -> None:
    """Refuse what :func:`sealed` has sealed and is no longer what it was; other content passes.

    Parameters are those of :func:`to_record`.
    """
    if not isinstance(content, dict) or not isinstance(content.get("crc32"), str) or "format" not in content:
        return
    plain = {name: value for name, value in content.items() if name != "crc32"}
    if checksum(plain) != content["crc32"]:
        raise error(
            f"{path}: {refusal}: it holds something else than was written (its CRC-32 differs); {mend}, or take out "
            "its crc32 where it was changed on purpose"
        )


def write_json(path: Path, record: Any) -> None:
    """Write a record as JSON, whole or not at all; what is no UTF-8 in a name is escaped.

    Raises
    ------
    VolumeError
        It cannot be written.
    """
    with atomic(path) as temporary:
        temporary.write_text(to_json(record, indent=1) + "\n", encoding="utf-8")


def to_json(record: Any, *, indent: int | None = None) -> str:
    """A record as strict JSON of ASCII alone: a name that is no UTF-8 comes back as it was."""
    return json.dumps(msgspec.to_builtins(record, str_keys=True), indent=indent, allow_nan=False)


def explain(caught: msgspec.ValidationError, content: Any, kind: Any) -> str:
    """Say which field is wrong, what stood there and what was expected: ``$.cases.c1.bytes: expected int, ...``."""
    reason, _, where = str(caught).partition(" - at ")
    steps = _steps(where, content, kind)
    place = field_path(steps)
    value = content
    for step in steps:
        value = value[step]
    reason = reason.replace("`", "")
    if where.startswith("`key`"):
        return f"a key of {place}: {reason[:1].lower()}{reason[1:]}"
    if reason.startswith("Object"):
        return f"{place}: {reason.removeprefix('Object ')}"
    if reason.startswith("Invalid enum"):
        reason = f"expected one of {', '.join(map(str, _choices(kind, steps)))}"
    reason = reason.partition(", got ")[0]
    return f"{place}: {reason[:1].lower()}{reason[1:]}, found {' '.join(reprlib.repr(value).split())}"


def field_path(steps: Sequence[str | int]) -> str:
    """A field by the way to it: ``$.cases.c1.shape[2]``; names with odd characters are quoted."""
    return "$" + "".join(
        f"[{step}]" if isinstance(step, int) else f".{step}" if re.fullmatch(r"[\w.-]+", step) else f"[{step!r}]"
        for step in steps
    )


def _steps(where: str, content: Any, kind: Any) -> list[str | int]:
    """The way to a field; msgspec writes ``[...]`` for whichever key of a dict."""
    steps: list[str | int] = []
    value = content
    for name, index, some in re.findall(r"\.([^.\[\]`]+)|\[(\d+)\]|(\[\.\.\.\])", where):
        if some:
            step: str | int = next(key for key in value if not _fits(_only(content, steps, key), kind))
        else:
            step = name or int(index)
        steps.append(step)
        value = value[step]
    return steps


def _only(content: Any, steps: Sequence[str | int], key: str) -> Any:
    """The content with this key alone in the dict that the steps lead to."""
    if not steps:
        return {key: content[key]}
    copy = content.copy()
    copy[steps[0]] = _only(content[steps[0]], steps[1:], key)
    return copy


def _fits(content: Any, kind: Any) -> bool:
    try:
        msgspec.convert(content, kind, str_keys=True)
    except (msgspec.ValidationError, UnicodeEncodeError):
        return False
    return True


def _choices(kind: Any, steps: Sequence[str | int]) -> Sequence[Any]:
    """The values that a field may have."""
    info: Any = msgspec.inspect.type_info(kind)
    for step in [*steps, None]:
        if isinstance(info, msgspec.inspect.UnionType):
            info = next(part for part in info.types if not isinstance(part, msgspec.inspect.NoneType))
        if step is None:
            break
        if isinstance(info, msgspec.inspect.DictType):
            info = info.value_type
        elif isinstance(info, msgspec.inspect.TupleType):
            info = info.item_types[int(step)]
        elif isinstance(info, (msgspec.inspect.ListType, msgspec.inspect.VarTupleType)):
            info = info.item_type
        else:
            info = next(field.type for field in info.fields if field.encode_name == step)
    return tuple(info.values)
