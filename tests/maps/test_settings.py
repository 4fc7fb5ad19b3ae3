import json
from dataclasses import replace

import msgspec
import pytest

from rwtool.datasets.classes import Classes
from rwtool.errors import RwtoolError, UsageError
from rwtool.maps.folder import MapSet, read_map_set
from rwtool.maps.parameters import MapParameters, Storage
from rwtool.maps.settings import MapRecord, difference, make_settings

CLASSES = Classes((0, 2, 7), ("background", "a", "b"), 255, "somewhere")
RECORD = MapRecord(
    file="c1.nii.gz",
    bytes=12,
    crc32="0123abcd",
    times_ns=(5, 6),
    source="../../labels/c1.nii.gz",
    source_bytes=10,
    source_sha256="0" * 64,
    shape=(2, 3, 4),
    spacing_mm=(3.0, 0.5, 0.1 + 0.2),
    slice_axis=2,
    absent=(7,),
    filling=(),
    zero_distance=(),
    absent_slices={2: 1},
    filling_slices={},
    largest_distance={0: 1.5, 2: 3.0},
    notes=("a note",),
    seconds=0.25,
)
EVERY = [
    (MapParameters("rrw", class_weights={2: 3.5}), Storage("nii.gz", "int16", "packed")),
    (MapParameters("hd", alpha=1.5, dims=2, absent="farthest"), Storage()),
    (MapParameters("constant", alpha=0.1, beta=2), Storage("npy", "float16")),
    (MapParameters("boundary", units="voxel", convention="kervadec"), Storage()),
    (MapParameters("ac"), Storage()),
]


@pytest.fixture
def path(tmp_path):
    maps = MapSet(tmp_path, make_settings(MapParameters("rrw", class_weights={1: 2}), Storage(), CLASSES))
    with maps.writing():
        maps.add("c1", RECORD)
    return tmp_path / "maps.json"


@pytest.mark.parametrize(("parameters", "storage"), EVERY)
def test_settings_and_records_survive_the_file(tmp_path, parameters, storage):
    maps = MapSet(tmp_path, make_settings(parameters, storage, CLASSES))
    with maps.writing():
        maps.add("c1", msgspec.structs.replace(RECORD, file=f"c1.{storage.format}"))
    found = read_map_set(tmp_path)
    assert found == maps
    assert found.settings.parameters == parameters
    assert found.settings.classes == replace(CLASSES, source="")


def test_a_record_comes_back_as_it_was(path):
    assert read_map_set(path.parent).cases == {"c1": RECORD}


def test_what_means_nothing_to_a_kind_makes_no_difference():
    one, two = (make_settings(MapParameters("ac", units=units), Storage(), CLASSES) for units in ("mm", "voxel"))
    assert one == two
    assert difference(one, two) == []


def test_a_rerun_with_regions_keeps_the_maps_that_are_there(path):
    whole = replace(CLASSES, regions={"whole": (2, 7)})
    maps = MapSet(path.parent, make_settings(MapParameters("rrw", class_weights={1: 2}), Storage(), whole))
    with maps.writing(overwrite=True):
        pass
    assert read_map_set(path.parent).cases == {"c1": RECORD}


def test_what_differs_is_named():
    old = make_settings(MapParameters("hd"), Storage(), CLASSES)
    new = make_settings(MapParameters("hd", units="voxel", alpha=1), Storage("npy"), replace(CLASSES, ignore=None))
    assert difference(old, new) == [
        "ignore: 255 and None", "parameters.alpha: 2.0 and 1.0", "parameters.units: 'mm' and 'voxel'",
        "storage.format: 'nii.gz' and 'npy'",
    ]  # fmt: skip
    assert difference(old, replace(old, classes=replace(old.classes, names=("background", "2", "c")))) == [
        "classes: 0 background, 2 a, 7 b and 0 background, 2, 7 c"
    ]


def test_one_line_says_all_settings():
    settings = make_settings(MapParameters("rrw", class_weights={1: 2}), Storage(), CLASSES)
    assert settings.describe() == (
        "kind rrw, convention across, units mm, dims 3, profile linear, class_weights {'2': 2.0}, format nii.gz, "
        "dtype float32, layout dense, ignore 255, classes 0 background, 2 a, 7 b"
    )


@pytest.mark.parametrize(
    ("way", "value", "reason"),
    [
        (("cases", "c1", "bytes"), "x", "$.cases.c1.bytes: expected int, found 'x'"),
        (("cases", "c1", "bytes"), -1, "$.cases.c1.bytes: expected int >= 0, found -1"),
        (("cases", "c1", "bytes"), 1.5, "$.cases.c1.bytes: expected int, found 1.5"),
        (("cases", "c1", "shape"), [1, 2], "$.cases.c1.shape: expected array of length 3, found [1, 2]"),
        (("cases", "c1", "shape"), [1, 2, 0], "$.cases.c1.shape[2]: expected int >= 1, found 0"),
        (("cases", "c1", "spacing_mm"), [1, 2, 0], "$.cases.c1.spacing_mm[2]: expected float > 0.0, found 0"),
        (("cases", "c1", "slice_axis"), 3, "$.cases.c1.slice_axis: expected int <= 2, found 3"),
        (("cases", "c1", "absent_slices"), {"a": 1}, "a key of $.cases.c1.absent_slices: expected int, got str"),
        (("cases", "c1", "source"), "a\0b", "$.cases.c1.source: expected str matching regex"),
        (("cases", "c1"), {}, "$.cases.c1: missing required field file"),
        (("cases",), [], "$.cases: expected object, found []"),
        (("kind",), "distance", "$.kind: expected one of ac, boundary, constant, hd, matrix, rrw, skeleton, found"),
        (("parameters", "dims"), 4, "$.parameters.dims: expected one of 2, 3, found 4"),
        (("parameters", "units"), "inch", "$.parameters.units: expected one of mm, voxel, found 'inch'"),
        (("parameters", "class_weights"), {"3": 2}, "$.parameters.class_weights names label 3, which is no class"),
        (("parameters", "class_weights"), {"2": -2}, "class weights are positive numbers"),
        (("parameters", "alpha"), 2, "alpha has no meaning for rrw maps"),
        (("storage", "dtype"), "float16", "float16 is for format=npy"),
        (("storage", "layout"), None, "$.storage.layout: expected str, found None"),
        (("other_values",), [1, 1, 1], "it contradicts itself in other_values: [1, 1, 1] and [1.0, 2.0, 1.0]"),
        (("unit",), None, "it contradicts itself in unit: None and 'mm'"),
        (("ignore",), "none", "$.ignore: expected int | null, found 'none'"),
        (("classes",), [], "a class list holds 0 (the background"),
        (("classes", 2, "value"), 1, "it contradicts itself in classes: "),
        (("classes", 1, "value"), 1 << 63, "the whole number 9223372036854775808 is beyond 64 bits"),
        (("format",), 1, "its format is 1 (of rwtool"),
        (("format",), True, "its format is True (of rwtool"),
    ],
)
def test_a_wrong_field_is_named_with_what_stood_there_and_the_mend(path, way, value, reason):
    content = json.loads(path.read_text())
    part = content
    for step in way[:-1]:
        part = part[step]
    part[way[-1]] = value
    path.write_text(json.dumps(content))
    with pytest.raises(RwtoolError) as caught:
        read_map_set(path.parent)
    message = str(caught.value)
    assert message.startswith(f"{path}: not a readable sidecar: {reason}")
    assert "; make the maps again with overwrite=True" in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["format", "kind", "parameters", "unit", "storage", "classes", "ignore", "cases"])
def test_a_field_that_is_missing_is_named(path, name):
    content = json.loads(path.read_text())
    del content[name]
    path.write_text(json.dumps(content))
    with pytest.raises(RwtoolError, match=rf"(\$.{name} is missing|missing required field {name}).*overwrite=True$"):
        read_map_set(path.parent)


def test_a_parameter_that_is_missing_is_not_taken_for_the_default(path):
    content = json.loads(path.read_text())
    del content["parameters"]["units"]
    path.write_text(json.dumps(content))
    with pytest.raises(RwtoolError, match=r"it contradicts itself in parameters\.units: None and 'mm'"):
        read_map_set(path.parent)


@pytest.mark.parametrize(
    ("storage", "kind", "message"),
    [
        (Storage("nii.gz", "float16"), "ac", "float16 is for format=npy"),
        (Storage("npy", "int16"), "ac", "int16 needs the scaling of a NIfTI"),
        (Storage("npy", "float16"), "hd", "hd maps are stored as float32"),
        (Storage("npy", layout="packed"), "boundary", "boundary maps cannot be packed"),
    ],
)
def test_what_a_kind_or_a_format_cannot_hold_is_refused(storage, kind, message):
    with pytest.raises(UsageError, match=message):
        storage.check(MapParameters(kind))
