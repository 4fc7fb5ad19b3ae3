import pytest

from rwtool.errors import GeometryError, RwtoolError, UsageError, VolumeError, shorten


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
