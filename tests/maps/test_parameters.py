import numpy as np
import pytest

from rwtool.errors import UsageError
from rwtool.maps.parameters import MapParameters, Storage, choose_parameters

HELD = "whose size is 1.18e-38 to 3.4e+38, which is what float32 holds; found "


@pytest.mark.parametrize(
    ("kind", "more", "message"),
    [
        ("ac", {"class_weights": {1: 1e39}}, f"a class weight is 0 or a number {HELD}1e+39"),
        ("rrw", {"class_weights": {1: 1e-46}}, f"a class weight is 0 or a number {HELD}1e-46"),
        ("rrw", {"class_weights": {1: float("inf")}}, f"a class weight is 0 or a number {HELD}inf"),
        ("rrw", {"class_weights": {1: float("nan")}}, "class weights are positive numbers; found nan"),
        ("rrw", {"class_weights": {1: -1.5}}, "class weights are positive numbers; found -1.5"),
        ("constant", {"alpha": 1e39}, f"alpha of constant maps is 0 or a number {HELD}1e+39"),
        ("constant", {"beta": 1e300}, f"beta of constant maps is 0 or a number {HELD}1e+300"),
        ("constant", {"beta": float("nan")}, f"beta of constant maps is 0 or a number {HELD}nan"),
        ("constant", {"alpha": 1e-50}, f"alpha of constant maps is 0 or a number {HELD}1e-50"),
        (
            "constant",
            {"alpha": 1e30, "class_weights": {2: 1e30}},
            f"alpha times a class weight is 0 or a number {HELD}1e+60",
        ),
        ("hd", {"alpha": 1e39}, f"alpha of hd maps is 0 or a number {HELD}1e+39"),
        ("hd", {"alpha": float("nan")}, f"alpha of hd maps is 0 or a number {HELD}nan"),
        ("hd", {"alpha": -2}, "the exponent alpha of an hd map is positive; found -2"),
    ],
)
def test_a_number_that_float32_does_not_hold_is_refused(kind, more, message):
    with pytest.raises(UsageError) as caught:
        MapParameters(kind, **more)
    assert str(caught.value) == message


def test_the_largest_and_the_smallest_numbers_of_float32_are_taken():
    most, least = float(np.finfo(np.float32).max), float(np.finfo(np.float32).tiny)
    values = MapParameters("constant", alpha=1, beta=0, class_weights={0: most, 1: least}).other_values(3)
    assert values.tolist() == [most, least, 1.0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"format": "mha"}, "format is one of nii.gz, nii, npy, b2nd; found 'mha'"),
        ({"dtype": "int8"}, "dtype is one of float32, float16, int16; found 'int8'"),
        ({"layout": "thin"}, "layout is one of dense, packed; found 'thin'"),
    ],
)
def test_maps_are_stored_in_no_other_way(given, message):
    with pytest.raises(UsageError) as caught:
        Storage(**given)
    assert str(caught.value) == message


def test_one_kind_may_be_named_alone():
    assert choose_parameters("hd", {}) == [MapParameters("hd")]
