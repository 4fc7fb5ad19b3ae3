import pytest

from rwtool.datasets.classes import make_classes, read_dataset_json
from rwtool.errors import RwtoolError, UsageError


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"labels": {"background": 0, "core": 1, "core": 2}}', r"the key 'core' stands twice in \$\.labels; mend it"),
        ('{"labels": {"background": 0}, "labels": {"a": 1}}', "the key 'labels' stands twice; mend it"),
        ('{"labels": {"background": 0, "a": 9223372036854775808}}', r"\$\.labels\.a: .*found 9223372036854775808"),
        ('{"labels": {"background": 0, "a": "99999999999999999999"}}', r"\$\.labels\.a: expected int, found '9999"),
        ('{"labels": ' + "[" * 100_000, "cannot be read as JSON: it is nested too deeply"),
    ],
)
def test_a_key_twice_and_numbers_beyond_64_bits_are_named(tmp_path, content, message):
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(RwtoolError, match=message):
        read_dataset_json(tmp_path / "dataset.json")


def test_what_does_not_concern_the_labels_may_be_as_it_likes(tmp_path):
    (tmp_path / "dataset.json").write_text(
        '{"mean": NaN, "x": 1, "x": 2, "n": 1e999, "labels": {"background": 0, "a": 1}}'
    )
    assert read_dataset_json(tmp_path / "dataset.json").values == (0, 1)


@pytest.mark.parametrize("value", [1 << 63, -(1 << 64)])
def test_a_class_beyond_64_bits_is_refused(value):
    with pytest.raises(UsageError, match=f"a label value is a whole number of 64 bits; found {value}"):
        make_classes([0, value])
    with pytest.raises(UsageError, match="64 bits"):
        make_classes([0, 1], ignore=value)
