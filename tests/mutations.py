"""Edits of files: of their fields, with the values at which readers break, and of their bytes.

Each takes a `random.Random` and a content and gives another content. One that leaves the meaning as it was says so: see
`Edit`.
"""

import gzip
import io
import json
import math
import struct
import warnings
import zipfile
import zlib
from typing import NamedTuple

WHOLE = (
    0, 1, -1, 2, 3, 7, 8, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31, -(2**31), 2**32 - 1,
    2**53, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), 2**64 - 1, 2**64, 10**30,
)  # fmt: skip
BROKEN = (
    0.0, -0.0, 0.5, 1.0, -1.0, 1e-45, 5e-324, 1e-12, 1e-6, 1e9, 1e12, 1e19, 3.4e38, -3.4e38, 1e300, 1.7e308,
    math.nan, math.inf, -math.inf,
)  # fmt: skip
TEXTS = (
    "", " ", "\0", "a\0b", "..", ".", "/", "../../etc/passwd", "/etc/passwd", "C:\\x", "CON", "aux.txt", "a.", "a ",
    "é", "e\u0301", "\u202ea", "\ufeff", "\x1b[31mred", "a\nb", "a\r", "\t", "[red]a[/red]", "=1+1", "@a", "-1", "nan",
    "inf", "1e999", "0x10", "1_0", "٣", "true", "null", "None", "a" * 255, "a" * 256, "a" * 200_000, "{}", "%s%n",
    "%d", "LIST", "LOCAL",
)  # fmt: skip
TOKENS = ("NaN", "Infinity", "-Infinity", "1e999", "1" * 30, "1" * 5000, "-0", "01", "'a'", "undefined", "\\u0000")


class Edit(NamedTuple):
    """What an edit comes to.

    Attributes
    ----------
    data : bytes
    what : str
    same : bool
        Whether the file means what it meant before: a reader may refuse it, but not read something else.
    """

    data: bytes
    what: str
    same: bool = False


# Bytes


def edit_bytes(rng, data):
    """Flip, replace, delete, insert, repeat, move or cut some bytes anywhere."""
    kind = rng.choice(("flip", "set", "delete", "insert", "repeat", "move", "cut", "append", "zeros"))
    size = len(data)
    at = rng.randrange(size + 1)
    many = min(rng.choice((1, 1, 2, 4, 16, 100)), size - at)
    part = data[at : at + many]
    if kind in ("flip", "set") and at < size:
        new = bytes([data[at] ^ (1 << rng.randrange(8)) if kind == "flip" else rng.randrange(256)])
        data = data[:at] + new + data[at + 1 :]
    elif kind == "delete":
        data = data[:at] + data[at + many :]
    elif kind == "insert":
        data = data[:at] + rng.randbytes(rng.choice((1, 2, 4, 16, 100))) + data[at:]
    elif kind == "repeat":
        data = data[: at + many] + part * rng.choice((1, 2, 50)) + data[at + many :]
    elif kind == "move":
        rest = data[:at] + data[at + many :]
        to = rng.randrange(len(rest) + 1)
        data = rest[:to] + part + rest[to:]
    elif kind == "cut":
        data = data[:at]
    elif kind == "append":
        data += rng.randbytes(rng.choice((1, 4, 100, 5000)))
    else:
        data = data[:at] + bytes(many) + data[at + many :]
    return Edit(data, f"bytes: {kind} at {at}")


# Fields of a binary header


def edit_fields(rng, data, fields):
    """Put an odd value into one of the fields: (name, offset, code of `struct` with its byte order)."""
    name, at, code = rng.choice(fields)
    kind = code[-1]
    if kind == "s":
        value = rng.choice(TEXTS)[:200].encode("utf-8", "surrogatepass") if rng.random() < 0.5 else rng.randbytes(4)
    elif kind in "fd":
        value = rng.choice(BROKEN)
    else:
        value = rng.choice(WHOLE)
        bits = 8 * struct.calcsize(code)
        value %= 1 << bits
        value -= (1 << bits) * (kind.islower() and value >> (bits - 1))
    try:
        new = struct.pack(code, value)
    except (OverflowError, struct.error):
        new = struct.pack(code, math.inf)
    return Edit(data[:at] + new + data[at + len(new) :], f"{name} = {value!r}")


# Streams of gzip


def edit_gzip(rng, data):
    """Write the content of a gzip stream in another way, sound or not."""
    whole = gzip.decompress(data)
    cut = rng.randrange(len(whole) + 1)
    one, two = gzip.compress(whole[:cut], mtime=0), gzip.compress(whole[cut:], mtime=0)
    crc = struct.pack("<I", zlib.crc32(whole) ^ (1 << rng.randrange(32)))
    packed = gzip.compress(whole, rng.choice((0, 1, 6, 9)), mtime=0)
    named = b"\x1f\x8b\x08\x1c" + packed[4:10] + struct.pack("<H", 5) + b"extra" + b"name\0" + b"remark\0" + packed[10:]
    choices = (
        Edit(packed, "packed again", True),
        Edit(named, "a member with extra field, name and comment", True),
        Edit(one + two, f"two members, cut at {cut}", True),
        Edit(gzip.compress(b"", mtime=0) + packed, "an empty member first", True),
        Edit(packed + gzip.compress(b"", mtime=0), "an empty member last", True),
        Edit(packed + bytes(rng.choice((1, 512))), "zeros after the stream", True),
        Edit(packed + b"trailing", "bytes after the stream", True),
        Edit(packed[:-8] + crc + packed[-4:], "a wrong CRC"),
        Edit(packed[:-4] + struct.pack("<I", len(whole) + 1), "a wrong length"),
        Edit(packed[:-8], "no checksum"),
        Edit(packed[: rng.randrange(len(packed))], "cut"),
        Edit(one, f"the first member alone, cut at {cut}"),
        Edit(packed + packed, "the stream twice"),
        Edit(one + edit_bytes(rng, two).data, "damage in the second member"),
        Edit(packed[:3] + bytes([0xE0]) + packed[4:], "reserved flags"),
        Edit(b"\x1f\x8b\x07" + packed[3:], "another method"),
        Edit(gzip.compress(packed, mtime=0), "packed twice"),
        Edit(whole, "not packed"),
        Edit(gzip.compress(whole + bytes(40_000_000), 1, mtime=0), "40 MB more"),
    )
    return rng.choice(choices)


# JSON


class _Pairs(list):
    """An object of JSON, its keys as often as they stand there."""


class _Token(str):
    """What is written as it is."""

    __slots__ = ()


def _dump(value):
    if isinstance(value, _Token):
        return str(value)
    if isinstance(value, _Pairs):
        return "{" + ", ".join(f"{json.dumps(key)}: {_dump(part)}" for key, part in value) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_dump, value)) + "]"
    return json.dumps(value)


def _places(value, place=()):
    """All places in a tree that hold a value: container and index."""
    parts = [part for _, part in value] if isinstance(value, _Pairs) else value if isinstance(value, list) else ()
    for index, part in enumerate(parts):
        yield value, index
        yield from _places(part)


def _odd_value(rng, value):
    depth = rng.choice((50, 3000, 100_000))
    kinds = {
        "a number": lambda: rng.choice((*WHOLE, *(number for number in BROKEN if math.isfinite(number)))),
        "a token": lambda: _Token(rng.choice(TOKENS)),
        "a text": lambda: rng.choice(TEXTS),
        "a literal": lambda: rng.choice((None, True, False, [], _Pairs(), [[]], [None])),
        "itself in a list": lambda: [value],
        "itself as text": lambda: _dump(value),
        "itself less one": lambda: value[:-1] if isinstance(value, (list, str)) else not value,
        "itself twice": lambda: value * 2 if isinstance(value, (list, str)) else value,
        "a surrogate": lambda: _Token('"\\ud800"'),
        "something deep": lambda: _Token("[" * depth + "]" * depth),
    }
    name = rng.choice(list(kinds))
    return name, kinds[name]()


def edit_json(rng, data):
    """Change a value, a key or the order of a JSON text, or the text as such."""
    tree = json.loads(data, object_pairs_hook=_Pairs)
    places = list(_places(tree))
    kind = rng.choice(("value", "value", "value", "delete", "twice", "key", "swap", "order", "indent", "text", "bytes"))
    if kind == "bytes" or not places:
        return edit_bytes(rng, data)
    if kind == "indent":
        return Edit(json.dumps(json.loads(data), indent=rng.choice((None, 1, 7))).encode(), "other spaces", True)
    if kind == "text":
        return _edit_text(rng, data)
    holder, index = rng.choice(places)
    pairs = isinstance(holder, _Pairs)
    old = holder[index]
    name, what = (old if pairs else (index, old))  # fmt: skip
    if kind == "value":
        how, new = _odd_value(rng, what)
        holder[index] = (name, new) if pairs else new
        kind = f"{name!r} = {how} {str(new)[:30]!r}"
    elif kind == "delete":
        del holder[index]
    elif kind == "twice":
        holder.insert(rng.randrange(len(holder) + 1), old)
    elif kind == "key" and pairs:
        holder[index] = (rng.choice((*TEXTS, name.upper(), name + " ", f"{name}x")), what)
    elif kind == "swap":
        other, to = rng.choice(places)
        mine, theirs = what, other[to][1] if isinstance(other, _Pairs) else other[to]
        if not _holds(mine, other) and not _holds(theirs, holder):
            _put(holder, index, theirs)
            _put(other, to, mine)
    elif kind == "order" and pairs:
        holder.reverse()
        return Edit(_dump(tree).encode("utf-8", "surrogatepass"), "keys in another order", True)
    return Edit(_dump(tree).encode("utf-8", "surrogatepass"), f"{kind} {name!r}")


def _put(holder, index, value):
    holder[index] = (holder[index][0], value) if isinstance(holder, _Pairs) else value


def _holds(value, holder):
    """Whether a tree is a holder or holds it, so that a swap would close a ring."""
    if value is holder:
        return True
    parts = [part for _, part in value] if isinstance(value, _Pairs) else value if isinstance(value, list) else ()
    return any(_holds(part, holder) for part in parts)


def _edit_text(rng, data):
    """Change how a text is encoded, or what stands around it."""
    text = data.decode("utf-8", "replace")
    choices = (
        Edit(b"\xef\xbb\xbf" + data, "a byte order mark", True),
        Edit(text.encode("utf-16"), "UTF-16"),
        Edit(text.encode("utf-32"), "UTF-32"),
        Edit(data.replace(b"\n", b"\r\n"), "CRLF", True),
        Edit(data.replace(b"\n", b"\r"), "CR"),
        Edit(data + data, "the text twice"),
        Edit(data + b"\0", "a NUL at its end"),
        Edit(data + b"\n\n", "empty lines at its end", True),
        Edit(data + b" x", "more at its end"),
        Edit(b"", "nothing"),
        Edit(b" ", "a space"),
        Edit(data.replace(b"a", b"\xff"), "no UTF-8"),
        Edit(data.replace(b"e", b"\x00"), "NULs"),
        Edit(data[: rng.randrange(len(data) + 1)], "cut"),
    )
    return rng.choice(choices)


# Lines and cells


def edit_table(rng, data, separator=","):
    """Change a cell, a line or a column of a table, or the text as such."""
    lines = [line.split(separator) for line in data.decode("utf-8", "replace").splitlines()]
    kind = rng.choice(("cell", "cell", "cell", "line", "column", "quote", "long", "text", "bytes"))
    if kind == "bytes" or not lines:
        return edit_bytes(rng, data)
    if kind == "text":
        return _edit_text(rng, data)
    row = rng.randrange(len(lines))
    column = rng.randrange(len(lines[row]))
    cell = lines[row][column]
    if kind == "line":
        kind = _edit_line(rng, lines, row)
    elif kind == "column":
        for line in lines:
            if column < len(line):
                line.extend([line.pop(column)] * rng.choice((0, 1, 2)))
    else:
        quoted = ('"', f'"{cell}', f'"{cell}"x', '""', "'", "'\\q")
        odd = (*TEXTS, *map(str, WHOLE), *map(str, BROKEN), lines[rng.randrange(len(lines))][0])
        new = {"cell": odd, "quote": quoted, "long": ["7" * many for many in (200, 5000, 131_073, 1_000_000)]}[kind]
        lines[row][column] = rng.choice(new)
        kind = f"{kind} {lines[row][column][:30]!r}"
    text = "\n".join(separator.join(line) for line in lines) + "\n"
    return Edit(text.encode("utf-8", "surrogatepass"), f"{row}:{column}: {kind}")


def _edit_line(rng, lines, row):
    how = rng.choice(("delete", "repeat", "move", "more", "fewer", "empty"))
    if how == "delete":
        del lines[row]
    elif how == "repeat":
        lines.insert(row, list(lines[row]))
    elif how == "move":
        lines.insert(rng.randrange(len(lines)), lines.pop(row))
    elif how == "more":
        lines[row].append("1")
    elif how == "fewer":
        lines[row].pop()
    else:
        lines.insert(row, [""])
    return f"line: {how}"


def edit_lines(rng, data, separators, *, until=None):
    """Change the value or the key of a line such as ``key: value``, or the lines; what follows `until` stays."""
    head, mark, tail = (data, b"", b"") if until is None else data.partition(until)
    lines = head.decode("utf-8").split("\n")
    index = rng.randrange(len(lines))
    line = lines[index]
    separator = next((each for each in separators if each in line), None)
    kind = rng.choice(("value", "value", "value", "value", "key", "delete", "repeat", "move", "text", "bytes"))
    if kind == "bytes":
        return edit_bytes(rng, data)
    if kind == "text":
        return _edit_text(rng, data)
    if separator is None and kind in ("value", "key"):
        kind = "repeat"
    what = f"{kind} {line[:30]!r}"
    if kind == "value":
        key, _, value = line.partition(separator)
        new = _odd_words(rng, value)
        lines[index] = key + separator + new
        what += f" to {new[:40]!r}"
    elif kind == "key":
        key, _, value = line.partition(separator)
        lines[index] = rng.choice((key.upper(), key.lower(), f"{key}x", "", " " + key)) + separator + value
    elif kind == "delete":
        del lines[index]
    elif kind == "repeat":
        lines.insert(rng.randrange(len(lines) + 1), line)
    else:
        lines.insert(rng.randrange(len(lines)), lines.pop(index))
    return Edit("\n".join(lines).encode("utf-8", "surrogatepass") + mark + tail, what)


def _odd_words(rng, value):
    """Words of which one is odd, missing or there twice."""
    words = value.split(" ")
    index = rng.randrange(len(words))
    kind = rng.choice(("whole", "broken", "text", "delete", "repeat", "all", "commas"))
    if kind == "whole":
        words[index] = str(rng.choice(WHOLE))
    elif kind == "broken":
        words[index] = str(rng.choice(BROKEN))
    elif kind == "text":
        words[index] = rng.choice(TEXTS)
    elif kind == "delete":
        del words[index]
    elif kind == "repeat":
        words.insert(index, words[index])
    elif kind == "all":
        return rng.choice(TEXTS)
    return ("," if kind == "commas" else " ").join(words)


# Archives


def edit_zip(rng, data):
    """Change an entry of a zip archive and write it again, or the bytes of the archive."""
    if rng.random() < 0.3:
        return edit_bytes(rng, data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = [(info.filename, archive.read(info)) for info in archive.infolist()]
    index = rng.randrange(len(entries))
    if rng.random() < 0.5:  # what is unpickled, of which there is one
        index = next(k for k, (name, _) in enumerate(entries) if name.endswith("data.pkl"))
    name, content = entries[index]
    kind = rng.choice(("bytes", "bytes", "bytes", "delete", "repeat", "name", "packed", "order", "empty"))
    what = f"entry {name}: {kind}"
    if kind == "bytes":
        edit = edit_bytes(rng, content)
        entries[index] = (name, edit.data)
        what = f"entry {name}: {edit.what}"
    elif kind == "delete":
        del entries[index]
    elif kind == "repeat":
        entries.append((name, edit_bytes(rng, content).data))
    elif kind == "name":
        entries[index] = (rng.choice(("../../x", "/etc/passwd", name.upper(), "a" * 300, f"{name}/", "é")), content)
    elif kind == "order":
        rng.shuffle(entries)
    elif kind == "empty":
        entries[index] = (name, b"")
    made = io.BytesIO()
    how = zipfile.ZIP_DEFLATED if kind == "packed" else zipfile.ZIP_STORED
    with warnings.catch_warnings(), zipfile.ZipFile(made, "w", how) as archive:
        warnings.simplefilter("ignore")  # of a name that stands there twice
        for entry, part in entries:
            archive.writestr(zipfile.ZipInfo(entry), part)
    return Edit(made.getvalue(), what)
