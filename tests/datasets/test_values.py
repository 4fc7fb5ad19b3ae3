import pytest

from rwtool.datasets.values import explain_masks, warn_of_images


@pytest.mark.parametrize(
    ("reference", "prediction", "mend"),
    [
        ([0, 255], [0, 1], "map_values={255: 1}"),
        ([0, 1], [0, 255], "map_values={255: 1}"),
        ([255], [1], "map_values={255: 1}"),  # without any background
        ([0, 2], [0, 7], "map_values={7: 2}"),
    ],
)
def test_two_masks_of_one_value_each_are_mapped_onto_the_smaller(reference, prediction, mend):
    text = explain_masks(reference, prediction)
    assert "same structure under other values" in text
    assert mend in text


@pytest.mark.parametrize(
    ("reference", "prediction", "ignore"),
    [
        ([0, 1], [0, 1], None),
        ([0, 1, 2], [0, 255], None),
        ([0, 1], [0, 2, 3], None),
        ([0], [0, 1], None),
        ([0, 255], [0], None),
        ([0, 255], [0, 1], 255),  # nothing but ignored voxels: no mask
        ([], [], None),
    ],
)
def test_other_values_are_no_masks_of_one_structure(reference, prediction, ignore):
    assert explain_masks(reference, prediction, ignore=ignore) is None


def test_an_ignored_value_beside_the_mask_does_not_count():
    assert "{255: 1}" in explain_masks([0, 7, 255], [0, 1], ignore=7)


def test_more_than_a_hundred_values_in_one_file_look_like_an_image():
    assert warn_of_images({"a": range(100), "b": [0, 1]}) is None
    assert warn_of_images({"a": range(101), "b": [0, 1]}).startswith("a holds 101 values, which looks like an image")


def test_many_images_are_told_in_one_line_with_the_first_names():
    text = warn_of_images({f"ct_{i}": range(200 + i) for i in range(9)})
    assert text.startswith("ct_0, ct_1, ct_2, ct_3, ct_4 and 4 more hold up to 208 values each")
    assert "\n" not in text
