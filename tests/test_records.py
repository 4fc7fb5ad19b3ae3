from pathlib import Path
from typing import Literal

import msgspec
import pytest

from rwtool.errors import RwtoolError, UsageError
from rwtool.records import check_format, field_path, read_json, read_toml, sealed, to_record, write_json


class Inner(msgspec.Struct, frozen=True):
    size: int
    shape: tuple[int, int]
    kind: Literal["a", "b"] | None = None
    weights: dict[int, float] = {}
    names: list[str] = []


class Outer(msgspec.Struct, frozen=True):
    format: int
    cases: dict[str, Inner]
    inner: Inner | None = None


GOOD = {"size": 1, "shape": [2, 3]}


def refusal(content, kind=Outer):
    with pytest.raises(RwtoolError) as caught:
        to_record(content, kind, Path("f.json"), refusal="not a good file", mend="write it again")
    message = str(caught.value)
    assert message.startswith("f.json: not a good file: ")
    assert message.endswith("; write it again")
    assert "\n" not in message
    return message.removeprefix("f.json: not a good file: ").removesuffix("; write it again")


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"size": "x"}, ".size: expected int, found 'x'"),
        ({"size": True}, ".size: expected int, found True"),
        ({"size": 1.5}, ".size: expected int, found 1.5"),
        ({"shape": [1]}, ".shape: expected array of length 2, found [1]"),
        ({"shape": [1, None]}, ".shape[1]: expected int, found None"),
        ({"kind": "c"}, ".kind: expected one of a, b, found 'c'"),
        ({"weights": {"7": "x"}}, ".weights.7: expected float, found 'x'"),
        ({"names": ["a", "b", 3]}, ".names[2]: expected str, found 3"),
    ],
)
@pytest.mark.parametrize(("case", "place"), [("c1", "$.cases.c1"), ("a b\udce9", "$.cases['a b\\udce9']")])
def test_a_wrong_field_is_named_with_what_stood_there_and_what_was_expected(case, place, bad, reason):
    assert refusal({"format": 1, "cases": {"c0": GOOD, case: {**GOOD, **bad}, "c2": GOOD}}) == place + reason
    assert refusal({"format": 1, "cases": {}, "inner": {**GOOD, **bad}}) == "$.inner" + reason


def test_what_is_missing_and_a_wrong_key_are_named():
    assert (
        refusal({"format": 1, "cases": {"c0": GOOD, "c1": {"size": 1}}}) == "$.cases.c1: missing required field shape"
    )
    assert refusal({"format": 1}) == "$: missing required field cases"
    assert refusal([1]) == "$: expected object, found [1]"
    assert refusal({"format": 1, "cases": {"c1": {**GOOD, "weights": {"x": 1}}}}) == (
        "a key of $.cases.c1.weights: expected int, got str"
    )


@pytest.mark.parametrize("field", ["size", "kind"])
def test_a_half_surrogate_in_place_of_a_number_or_a_choice_is_one_line(field):
    content = {"format": 1, "cases": {"c1": {**GOOD, field: "\ud800"}}}
    assert refusal(content) == "'\\ud800' stands where no such text is expected"


def test_a_long_value_is_shortened():
    assert len(refusal({"format": 1, "cases": {"c1": {**GOOD, "size": "x" * 10_000}}})) < 120
    assert len(refusal({"format": 1, "cases": {"c1": {**GOOD, "size": list(range(10_000))}}})) < 120


def test_a_place_is_written_as_people_do():
    assert field_path([]) == "$"
    assert field_path(["cases", "p01_ed.v2", "shape", 2]) == "$.cases.p01_ed.v2.shape[2]"
    assert field_path(["\x1b[31m"]) == "$['\\x1b[31m']"


BAD_JSON = [
    (b'{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' stands twice in one object"),
    (b"[NaN]", "NaN is no number of JSON"),
    (b"[-Infinity]", "-Infinity is no number of JSON"),
    (b"[1e999]", "the number 1e999 is beyond float64"),
    (b"[9223372036854775808]", "the whole number 9223372036854775808 is beyond 64 bits"),
    (b"[-9223372036854775809]", "the whole number -9223372036854775809 is beyond 64 bits"),
    (b"[" + b"1" * 10_000 + b"]", "the whole number 111111111111111111111111 is beyond 64 bits"),
    (b"[" * 200_000, "it is nested too deeply"),
    (b'{"a":' * 200_000, "it is nested too deeply"),
    (b'{"a": "\xff"}', "it is no UTF-8 text (byte 0xff at 7)"),
    (b"", "Expecting value: line 1 column 1 (char 0)"),
    (b"{", "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
    (b'{"a": "b\0"}', "Invalid control character at: line 1 column 9 (char 8)"),
]


@pytest.mark.parametrize(("content", "reason"), BAD_JSON, ids=range(len(BAD_JSON)))
def test_json_that_is_none_or_not_strict_is_one_line(tmp_path, content, reason):
    (tmp_path / "f.json").write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_json(tmp_path / "f.json", refusal="cannot be read", mend="mend it", error=UsageError)
    assert str(caught.value) == f"{tmp_path / 'f.json'}: cannot be read: {reason}; mend it"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/dev/zero", "it is no regular file"),
        ("/", "it is no regular file"),
        ("/gone.json", "No such file or directory"),
    ],
)
def test_what_is_no_file_is_one_line(path, reason):
    for read in (read_json, read_toml):
        with pytest.raises(RwtoolError) as caught:
            read(Path(path), refusal="cannot be read", mend="mend it")
        assert str(caught.value) == f"{path}: cannot be read: {reason}; mend it"


@pytest.mark.parametrize("content", [b"a = ", b"a = 1\na = 2", b"a = \xff", b"a = " + b"[" * 100_000])
def test_toml_that_is_none_is_one_line(tmp_path, content):
    (tmp_path / "f.toml").write_bytes(content)
    with pytest.raises(RwtoolError, match=r"f.toml: cannot be read: .*; mend it$"):
        read_toml(tmp_path / "f.toml", refusal="cannot be read", mend="mend it")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([], "expected an object at $; found []"),
        ({}, "$.format is missing, expected 3"),
        ({"format": 2}, "its format is 2, this rwtool reads 3"),
        ({"format": "3"}, "its format is '3', this rwtool reads 3"),
        ({"format": True}, "its format is True, this rwtool reads 3"),
        ({"format": 4, "rwtool": "9.1"}, "its format is 4 (of rwtool 9.1), this rwtool reads 3"),
    ],
)
def test_another_format_is_refused_with_its_mend(content, reason):
    with pytest.raises(RwtoolError) as caught:
        check_format(Path("f"), content, 3, refusal="not a good file", mend="write it again")
    assert str(caught.value).startswith(f"f: not a good file: {reason}; write it again")
    check_format(Path("f"), {"format": 3}, 3, refusal="", mend="")


def test_what_is_written_is_read_again_whatever_the_names_are(tmp_path):
    name = "caf\udce9\x1b\0é\U0001fac0"
    record = Outer(3, {name: Inner(1 << 62, (2, 3), "a", {7: 0.1 + 0.2}, [name])})
    write_json(tmp_path / "new" / "f.json", record)
    text = (tmp_path / "new" / "f.json").read_bytes()
    assert (text.isascii(), text[-2:], b"\x1b" in text) == (True, b"}\n", False)
    content = read_json(tmp_path / "new" / "f.json", refusal="", mend="")
    assert to_record(content, Outer, tmp_path, refusal="", mend="") == record


class Sealed(msgspec.Struct):
    number: float
    names: list[str]
    by_label: dict[int, float]
    format: int = 1


def test_what_was_sealed_is_read_and_refused_when_it_was_changed_unless_its_checksum_is_taken_out(tmp_path):
    path = tmp_path / "a.json"
    record = Sealed(0.1 + 0.2, ["caf\udce9", "\u00e9"], {3: 1e-300})
    write_json(path, sealed(record))
    content = read_json(path, refusal="wrong", mend="mend it")
    assert to_record(content, Sealed, path, refusal="wrong", mend="mend it") == record
    changed = {**content, "number": 0.3}
    with pytest.raises(UsageError) as caught:
        to_record(changed, Sealed, path, refusal="wrong", mend="mend it", error=UsageError)
    assert str(caught.value) == (
        f"{path}: wrong: it holds something else than was written (its CRC-32 differs); mend it, or take out its crc32 "
        "where it was changed on purpose"
    )
    del changed["crc32"]
    assert to_record(changed, Sealed, path, refusal="wrong", mend="mend it").number == 0.3


def test_a_checksum_of_another_program_is_its_own_affair(tmp_path):
    content = {"number": 1.0, "names": [], "by_label": {}, "crc32": "00000000"}
    assert to_record(content, Sealed, tmp_path / "dataset.json", refusal="wrong", mend="mend it").number == 1
