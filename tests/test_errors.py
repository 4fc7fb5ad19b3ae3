import pytest

from rwtool.errors import GeometryError, RwtoolError, UsageError, VolumeError, lacks_memory, shorten


def test_one_family_catches_all_that_a_user_can_mend():
    assert issubclass(GeometryError, VolumeError)
    for kind in (UsageError, VolumeError, GeometryError):
        assert issubclass(kind, RwtoolError)
    assert not issubclass(RwtoolError, (ValueError, OSError))  # what rwtool did not foresee is never caught with it


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([], ""),
        (["a"], "a"),
        (list("abcde"), "a, b, c, d, e"),
        (list("abcdef"), "a, b, c, d, e and 1 more"),
        ([str(n) for n in range(1295)], "0, 1, 2, 3, 4 and 1,290 more"),
    ],
)
def test_names_in_a_message_are_at_most_five(names, text):
    assert shorten(names) == text


def test_a_line_without_an_end_is_cut_in_its_middle():
    text = str(UsageError(f"/data/a.json: found {'7' * 200_000}; mend it\nsecond"))
    first, second = text.split("\n")
    assert len(first) < 5000
    assert first.startswith("/data/a.json: found 777")
    assert "7 [195,529 characters] 7" in first
    assert first.endswith("777; mend it")
    assert second == "second"
    assert str(UsageError("a" * 5000)) == "a" * 5000


@pytest.mark.parametrize(
    ("error", "lacks"),
    [
        (MemoryError(), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to"), True),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory."), True),
        (RuntimeError("shapes differ"), False),
        (ValueError("can't allocate memory"), False),
    ],
)
def test_what_says_that_there_is_no_memory(error, lacks):
    assert lacks_memory(error) is lacks
