import sys
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from mapped import expected, sidecar, write_labels, write_three

import rwtool
from rwtool.errors import UsageError
from rwtool.io.formats import read_channels
from rwtool.io.names import file_hash
from rwtool.maps.folder import MapSet
from rwtool.maps.make import peak_bytes
from rwtool.maps.parameters import KINDS, MapParameters

SPACED = {"npy": {"spacing_mm": (4.0, 1.5, 0.8)}}


@pytest.fixture
def labels(tmp_path):
    return write_three(tmp_path / "labels")


def make(labels, out="maps", **options):
    """Maps beside the folder of labels, all of which can be made."""
    made = rwtool.make_maps(labels, labels.parent / out, **{"jobs": 1, **options})
    assert not made.failed
    return made


def done(made):
    return [item.name for item in made.plan.work]


def refused(labels, out="maps", **options):
    with pytest.raises(UsageError) as caught:
        rwtool.make_maps(labels, labels.parent / out, jobs=1, **options)
    assert not list(labels.parent.glob(f"{out}/*/maps.json"))
    return str(caught.value)


# --- what is returned ---


def test_the_record_says_what_was_planned_and_what_became_of_it(labels):
    (labels / "broken.nii.gz").write_bytes((labels / "case_0.nii.gz").read_bytes()[:150])
    made = rwtool.make_maps(labels, labels.parent / "maps", kinds=("rrw", "hd"), jobs=1)
    assert done(made) == [f"case_{index}" for index in range(3)]
    assert (made.plan.skipped, made.plan.jobs) == ([], 1)
    assert made.plan.dataset.classes.values == (0, 1, 2)
    assert made.plan.uncompressed_bytes() == 3 * 6 * 9 * 5 * 3 * 4 * 2  # cases, voxels, channels, bytes, kinds
    assert [(outcome.name, outcome.result) for outcome in made.failed] == [("broken", None)]
    assert made.failed[0].error.startswith(f"{labels / 'broken.nii.gz'}: ")
    assert made.seconds > 0
    assert {kind: maps.folder for kind, maps in made.sets.items()} == {
        "hd": labels.parent / "maps" / "hd",
        "rrw": labels.parent / "maps" / "rrw",
    }
    for outcome in made.outcomes[1:]:
        for kind, record in outcome.result.items():
            assert sidecar(made.sets[kind].folder)["cases"][outcome.name]["crc32"] == record.crc32
            assert made.sets[kind].is_done(outcome.name, made.plan.dataset.files[outcome.name])
            path = made.sets[kind].folder / record.file
            np.testing.assert_array_equal(rwtool.read_map(path), expected(labels / f"{outcome.name}.nii.gz", kind))
    assert {path.name for path in made.sets["rrw"].folder.iterdir()} == {
        "case_0.nii.gz", "case_1.nii.gz", "case_2.nii.gz", "maps.json",
    }  # fmt: skip


def test_the_plan_is_told_before_anything_is_written_and_a_dry_run_ends_there(labels):
    def look(plan):
        plans.append(plan)
        assert not (labels.parent / "maps").exists()

    plans = []
    planned = make(labels, on_plan=look, dry_run=True)
    assert planned.plan is plans[0]
    assert (done(planned), planned.outcomes, planned.seconds) == (["case_0", "case_1", "case_2"], [], 0.0)
    assert not (labels.parent / "maps").exists()
    made = make(labels, on_plan=look)
    assert made.plan is plans[1]
    assert done(made) == done(planned)


def test_a_dry_run_names_what_cannot_be_done(labels):
    (labels / "broken.nii.gz").write_bytes(b"")
    planned = rwtool.make_maps(labels, labels.parent / "maps", dry_run=True)
    assert [outcome.name for outcome in planned.failed] == ["broken"]


def test_the_estimate_is_a_time_and_leaves_nothing(labels):
    planned = make(labels, dry_run=True)
    before = set(labels.parent.rglob("*"))
    assert 0 < planned.plan.estimate_seconds() < 60
    assert set(labels.parent.rglob("*")) == before
    assert replace(planned.plan, work=[]).estimate_seconds() == 0


@pytest.mark.parametrize(("core", "more"), [("native", 0), ("edt", 1)])
def test_a_process_needs_more_memory_for_more_to_hold(labels, monkeypatch, core, more):
    if core == "native":
        pytest.importorskip("rwtool.maps._native")
    monkeypatch.setenv("RWTOOL_CORE", core)
    (job, *_) = (item.argument for item in make(labels, dry_run=True, kinds=("ac",)).plan.work)

    def need(**parameters):
        one = MapParameters(**{"kind": "rrw", **parameters})
        return peak_bytes(replace(job, outputs=((one, job.outputs[0][1]),))) - peak_bytes(replace(job, outputs=()))

    def ignoring(**parameters):
        classes = replace(job.labels.classes, ignore=9)
        one = replace(job, labels=replace(job.labels, classes=classes, itemsize=1))
        outputs = ((MapParameters(**{"kind": "rrw", **parameters}), None),)
        return peak_bytes(replace(one, outputs=outputs)) - peak_bytes(replace(one, outputs=()))

    voxels = 6 * 9 * 5
    reading = job.labels.itemsize + 2
    assert need(kind="ac") == (5 - reading) * voxels  # labels and own values
    assert need() == (5 + more - reading) * voxels
    assert need(convention="inner") == (6 + more - reading) * voxels
    assert need(kind="boundary") == (6 + more - reading) * voxels
    assert need(kind="boundary", convention="inner") == (10 + more - reading) * voxels
    assert need(kind="hd", absent="farthest") == (9 + more - reading) * voxels
    assert ignoring() == ignoring(kind="boundary") == (12 + more - 3) * voxels
    assert ignoring(kind="hd") == (5 + more - 3) * voxels
    assert need(kind="skeleton") == (10 + more - reading) * voxels
    assert need(profile="exp") == need()
    assert need(kind="ac", instances=True) == need(kind="ac") + 6 * voxels
    assert need(kind="skeleton", instances=True) == need(kind="skeleton") + 6 * voxels


# --- more kinds ---


MATRIX = ((0.0, 1.0, 2.0), (1.5, -1.0, 1.0), (3.0, 1.0, 0.5))


@pytest.mark.parametrize("layout", ["dense", "packed"])
@pytest.mark.parametrize("suffix", ["nii.gz", "npy"])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("rrw", {"profile": "reversed"}),
        ("rrw", {"profile": "exp", "sigma": 2.5, "dims": 2}),
        ("rrw", {"instances": True, "class_weights": {1: 3.0}}),
        ("ac", {"instances": True}),
        ("constant", {"instances": True, "beta": 2.0}),
        ("skeleton", {"units": "voxel"}),
        ("skeleton", {"dims": 2, "instances": True}),
    ],
)
def test_every_kind_is_read_as_it_was_made(labels, kind, options, suffix, layout):
    made = make(labels, kinds=(kind,), format=suffix, layout=layout, **options)
    path = labels / "case_1.nii.gz"
    np.testing.assert_array_equal(rwtool.read_map(made.sets[kind].path("case_1")), expected(path, kind, **options))
    channels = [channel.array for channel in read_channels(made.sets[kind].path("case_1"), **SPACED.get(suffix, {}))]
    assert len(channels) == (3 if layout == "dense" else 1 + ("instances" in options))


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ({}, {"profile": "reversed"}, "parameters.profile: 'linear' and 'reversed'"),
        ({"profile": "exp"}, {"profile": "exp", "sigma": 4.0}, "parameters.sigma: 5.0 and 4.0"),
        ({}, {"instances": True}, "parameters.instances: False and True"),
        ({"kinds": ("skeleton",)}, {"kinds": ("skeleton",), "units": "voxel"}, "parameters.units: 'mm' and 'voxel'"),
    ],
)
def test_maps_of_another_profile_are_refused_and_those_of_the_same_kept(labels, first, second, said):
    make(labels, **first)
    assert done(make(labels, **first)) == []
    with pytest.raises(UsageError, match="holds maps of other settings") as caught:
        rwtool.make_maps(labels, labels.parent / "maps", jobs=1, **second)
    assert said in str(caught.value)
    assert len(done(make(labels, overwrite=True, **second))) == 3
    assert done(make(labels, **second)) == []


def test_a_matrix_has_no_file_per_case_and_stands_in_the_parameters(labels):
    made = make(labels, kinds=("matrix", "rrw"), matrix=MATRIX)
    folder = made.sets["matrix"].folder
    assert [path.name for path in folder.iterdir()] == ["maps.json"]
    assert sidecar(folder)["parameters"] == {"kind": "matrix", "matrix": [list(row) for row in MATRIX]}
    assert (sidecar(folder)["cases"], sidecar(folder)["unit"]) == ({}, None)
    assert len(made.sets["rrw"].cases) == 3
    again = make(labels, kinds=("matrix",), matrix=MATRIX)
    assert (done(again), again.plan.skipped) == ([], [])
    assert again.sets["matrix"].settings.parameters == MapParameters("matrix", matrix=MATRIX)
    assert make(labels, "dry", kinds=("matrix",), matrix=MATRIX, dry_run=True).sets
    assert not (labels.parent / "dry").exists()


def test_a_matrix_of_other_numbers_is_refused_and_replaces_the_one_that_is_there_on_request(labels):
    make(labels, kinds=("matrix",), matrix=MATRIX)
    other = np.where(np.eye(3), 0, 1)
    with pytest.raises(UsageError, match=r"holds maps of other settings \(parameters.matrix: \[\[0.0, 1.0, 2.0\]"):
        make(labels, kinds=("matrix",), matrix=other)
    made = make(labels, kinds=("matrix",), matrix=other, overwrite=True)
    assert sidecar(made.sets["matrix"].folder)["parameters"]["matrix"] == other.tolist()


# --- parameters ---


def test_each_kind_takes_the_parameters_that_mean_something_to_it(labels):
    options = {"units": "voxel", "convention": "inner", "alpha": 3.0}
    (job, *_) = (item.argument for item in make(labels, kinds=("hd", "rrw", "ac"), dry_run=True, **options).plan.work)
    assert [parameters for parameters, _ in job.outputs] == [
        MapParameters("ac"),
        MapParameters("hd", units="voxel", alpha=3.0),
        MapParameters("rrw", units="voxel", convention="inner"),
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kinds": ()}, f"kinds= are some of {', '.join(KINDS)}; found none"),
        ({"kinds": ("rrw", "sdf")}, f"kinds= are some of {', '.join(KINDS)}; found rrw, sdf"),
        ({"alpha": 2.0}, "alpha= belongs to constant and hd maps; it has no meaning for rrw"),
        ({"beta": 2.0}, "beta= belongs to constant maps; it has no meaning for rrw"),
        (
            {"kinds": ("ac", "constant"), "units": "mm"},
            "units= belongs to boundary and hd and rrw and skeleton maps; it has no meaning for ac, constant",
        ),
        ({"kinds": ("hd",), "convention": "inner"}, "convention= belongs to boundary and rrw maps; it has no meaning"),
        ({"absent": "farthest"}, "absent= belongs to boundary and hd maps; it has no meaning for rrw"),
        ({"kinds": ("hd", "constant"), "alpha": 2.0}, "alpha= means different things to hd and constant maps; make"),
        (
            {"convention": "kervadec"},
            "the kervadec convention subtracts one voxel, whatever its size, so it has no meaning in mm",
        ),
        ({"kinds": ("boundary",), "dtype": "int16"}, "boundary maps are stored as float32"),
        ({"kinds": ("rrw", "hd"), "layout": "packed"}, "hd maps cannot be packed"),
        ({"dtype": "float16"}, "float16 is for format=npy"),
        ({"dtype": "int16", "format": "npy"}, "int16 needs the scaling of a NIfTI"),
        ({"class_weights": {9: 2.0}}, "class_weights= names label 9, which is no class; the classes are 0 background,"),
        (
            {"kinds": ("rrw", "boundary", "hd"), "class_weights": {1: 2.0}},
            "class_weights= belongs to ac, constant, rrw maps; make boundary and hd maps apart from them",
        ),
        ({"class_weights": {1: 0.0}}, "class weights are "),
        (
            {"kinds": ("skeleton",), "class_weights": {1: 2.0}},
            "class_weights= belongs to ac, constant, rrw maps; make sk",
        ),
        (
            {"kinds": ("boundary",), "instances": True},
            "instances= belongs to ac and constant and rrw and skeleton maps;",
        ),
        ({"kinds": ("ac", "hd"), "profile": "exp"}, "profile= belongs to rrw maps; it has no meaning for ac, hd"),
        ({"sigma": 2.0}, "sigma belongs to profile=exp; found profile=linear"),
        ({"kinds": ("matrix",)}, "a matrix map is its K x K numbers; give matrix="),
        ({"kinds": ("matrix",), "matrix": [[0, 1], [1, 0]]}, "matrix= is of 2 classes; found 3: give a row for each"),
        ({"matrix": [[0, 1], [1, 0]]}, "matrix= belongs to matrix maps; it has no meaning for rrw"),
        (
            {"kinds": ("skeleton",), "dtype": "float16", "format": "npy"},
            "skeleton maps are stored as float32: their values grow with the size of a class",
        ),
        ({"instances": True, "dtype": "int16"}, "rrw maps with instances are stored as float32: their values grow"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(labels, options, message):
    assert refused(labels, **options).startswith(message)


def test_class_weights_go_by_label_value(labels):
    write_labels(labels / "case_0.nii.gz", values=(0, 2, 4))
    made = make(labels / "case_0.nii.gz", "../maps", kinds=("ac",), class_weights={4: 3.0})
    assert sidecar(made.sets["ac"].folder)["other_values"] == [1, 1, 3]


def test_maps_never_go_where_the_labels_are(tmp_path):
    write_labels(tmp_path / "rrw" / "a.nii.gz")
    assert refused(tmp_path / "rrw", ".") == (
        f"the rrw maps would go to {tmp_path / 'rrw'}, where the label files are; choose another out="
    )


# --- what is made again ---


def test_a_rerun_makes_only_what_changed(labels):
    folder = make(labels).sets["rrw"].folder
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.nii.gz")}
    write_labels(labels / "case_1.nii.gz", seed=77)
    (folder / "case_2.nii.gz").unlink()
    again = make(labels)
    assert (done(again), again.plan.skipped) == (["case_1", "case_2"], ["case_0"])
    after = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.nii.gz")}
    assert before["case_0.nii.gz"] == after["case_0.nii.gz"]
    assert before["case_1.nii.gz"] != after["case_1.nii.gz"]
    np.testing.assert_array_equal(rwtool.read_map(folder / "case_1.nii.gz"), expected(labels / "case_1.nii.gz"))
    last = make(labels)
    assert (done(last), last.outcomes) == ([], [])


def test_a_rerun_with_another_spacing_or_slice_axis_makes_the_maps_anew(labels, tmp_path):
    make(labels, dims=2, slice_axis=0)
    assert len(done(make(labels, dims=2, slice_axis=2))) == 3
    (tmp_path / "bare").mkdir()
    np.save(tmp_path / "bare" / "a.npy", np.random.default_rng(0).integers(0, 2, (4, 5, 6)).astype(np.uint8))
    for z in (1, 5):
        assert done(make(tmp_path / "bare", "b", spacing_mm=(z, 1, 1))) == ["a"]
    assert sidecar(tmp_path / "b" / "rrw")["cases"]["a"]["spacing_mm"] == [5, 1, 1]


def test_maps_of_other_settings_are_made_only_to_replace_those_that_are_there(labels):
    folder = make(labels).sets["rrw"].folder
    content = (folder / "case_0.nii.gz").read_bytes()
    other = r"maps of other settings \(parameters\.units: 'mm' and 'voxel'\)"
    with pytest.raises(UsageError, match=other):
        make(labels, units="voxel")
    assert (folder / "case_0.nii.gz").read_bytes() == content
    (labels / "case_2.nii.gz").unlink()
    make(labels, units="voxel", overwrite=True)
    assert set(sidecar(folder)["cases"]) == {"case_0", "case_1"}
    assert not (folder / "case_2.nii.gz").exists()
    np.testing.assert_array_equal(
        rwtool.read_map(folder / "case_0.nii.gz"), expected(labels / "case_0.nii.gz", units="voxel")
    )


def test_overwrite_keeps_the_old_maps_where_nothing_new_can_be_made(labels):
    source = labels / "case_0.nii.gz"
    folder = make(source, "../maps").sets["rrw"].folder
    source.write_bytes(b"damaged")
    made = rwtool.make_maps(source, labels.parent / "maps", units="voxel", overwrite=True, classes=(0, 1), jobs=1)
    assert [outcome.name for outcome in made.failed] == ["case_0"]
    assert (folder / "case_0.nii.gz").is_file()
    assert sidecar(folder)["unit"] == "mm"


def test_two_runs_into_one_folder_lose_no_record(tmp_path):
    for name in ("a", "b", "c"):
        write_labels(tmp_path / f"set_{name}" / f"{name}.nii.gz")

    def make_those(rest):
        """Each run looks before the ones after it have written."""
        name, *others = rest
        make(tmp_path / f"set_{name}", on_plan=lambda plan: make_those(others) if others else None)

    make_those(["a", "b", "c"])
    assert set(sidecar(tmp_path / "maps" / "rrw")["cases"]) == {"a", "b", "c"}
    assert not list((tmp_path / "maps" / "rrw").glob(".*"))


# --- classes, spacing and shapes of the files ---


def test_a_label_outside_the_class_list_fails_its_case_alone(labels):
    write_labels(labels / "odd.nii.gz", values=(0, 1, 7))
    made = rwtool.make_maps(labels, labels.parent / "maps", classes=(0, 1, 2), jobs=1)
    (failed,) = made.failed
    assert failed.name == "odd"
    assert "is not in the class list 0, 1, 2" in failed.error
    assert set(sidecar(made.sets["rrw"].folder)["cases"]) == {"case_0", "case_1", "case_2"}


def test_non_contiguous_values_are_mapped_and_recorded(tmp_path):
    array = write_labels(tmp_path / "labels" / "a.nii.gz", values=(0, 2, 4))
    folder = make(tmp_path / "labels", kinds=("ac",)).sets["ac"].folder
    found = rwtool.read_map(folder / "a.nii.gz")
    np.testing.assert_array_equal(found[2] == 0, array.transpose(2, 1, 0) == 4)
    assert [entry["value"] for entry in sidecar(folder)["classes"]] == [0, 2, 4]


def test_every_case_has_the_channels_of_the_whole_data_set(tmp_path):
    write_labels(tmp_path / "labels" / "a.nii.gz", values=(0, 1))
    write_labels(tmp_path / "labels" / "b.nii.gz", values=(0, 3))
    folder = make(tmp_path / "labels", kinds=("boundary",)).sets["boundary"].folder
    assert rwtool.read_map(folder / "a.nii.gz").shape == (3, 5, 9, 6)
    assert {name: case["absent"] for name, case in sidecar(folder)["cases"].items()} == {"a": [3], "b": [1]}


def test_the_spacing_is_for_the_files_that_carry_none(labels):
    np.save(labels / "bare.npy", np.random.default_rng(0).integers(0, 3, (4, 5, 6)).astype(np.uint8))
    assert "bare.npy: an .npy file carries no spacing; give spacing_mm=(z, y, x)" in refused(labels)
    folder = make(labels, spacing_mm=(3, 2, 1)).sets["rrw"].folder
    cases = sidecar(folder)["cases"]
    assert cases["bare"]["spacing_mm"] == [3, 2, 1]
    assert cases["case_0"]["spacing_mm"] == pytest.approx([4, 1.5, 0.8])
    truth = rwtool.rrw_map(np.load(labels / "bare.npy"), (3, 2, 1), n_classes=3)
    np.testing.assert_array_equal(rwtool.read_map(folder / "bare.nii.gz"), truth)


@pytest.mark.parametrize("shape", [(8, 9), (8, 9, 1), (1, 8, 9)])
def test_2d_files_become_one_slice(tmp_path, shape):
    write_labels(tmp_path / "labels" / "a.nii.gz", values=(0, 1), shape=shape)
    folder = make(tmp_path / "labels").sets["rrw"].folder
    assert rwtool.read_map(folder / "a.nii.gz").shape[:2] == (2, 1)


# --- what is stored ---


@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        ({"format": "nii"}, 0),
        ({"format": "npy"}, 0),
        ({"format": "npy", "dtype": "float16"}, 5e-4),
        ({"dtype": "int16"}, 2e-5),
        ({"layout": "packed"}, 0),
        ({"layout": "packed", "dtype": "int16", "format": "nii"}, 2e-5),
        ({"layout": "packed", "format": "npy", "dtype": "float16"}, 5e-4),
    ],
)
def test_read_map_gives_the_dense_map_whatever_is_on_disk(labels, options, tolerance):
    (path,) = make(labels, **options).sets["rrw"].folder.glob("case_1.*")
    np.testing.assert_allclose(rwtool.read_map(path), expected(labels / "case_1.nii.gz"), rtol=0, atol=tolerance)


@pytest.mark.nnunet
@pytest.mark.parametrize("more", [{}, {"layout": "packed", "dtype": "float16"}])
def test_arrays_of_blosc2_are_read_back_and_checked(labels, more):
    pytest.importorskip("blosc2", reason="blosc2 is not installed")
    made = make(labels, format="b2nd", **more)
    folder = made.sets["rrw"].folder
    tolerance = 5e-4 if more else 0
    found = rwtool.read_map(folder / "case_1.b2nd")
    np.testing.assert_allclose(found, expected(labels / "case_1.nii.gz"), rtol=0, atol=tolerance)
    assert not rwtool.check_maps(folder, jobs=1).bad
    assert len(make(labels, format="b2nd", **more).plan.skipped) == 3


def test_without_blosc2_no_map_is_begun(labels, monkeypatch):
    monkeypatch.setitem(sys.modules, "blosc2", None)
    with pytest.raises(UsageError, match=r"pip install 'rwtool\[nnunet\]'"):
        make(labels, format="b2nd")
    assert not (labels.parent / "maps").exists()


def test_npy_is_k_z_y_x_and_int16_carries_its_slope(labels):
    folder = make(labels, "a", format="npy").sets["rrw"].folder
    assert np.load(folder / "case_0.npy").shape == (3, 5, 9, 6)
    image = nib.load(make(labels, "b", dtype="int16").sets["rrw"].folder / "case_0.nii.gz")
    assert image.get_data_dtype() == np.int16
    assert image.dataobj.slope == pytest.approx(1 / 32767)


@pytest.mark.parametrize("format_", ["npy", "nii.gz"])
def test_ignored_voxels_are_marked_in_packed_maps_and_0_in_dense_ones(tmp_path, format_):
    array = write_labels(tmp_path / "labels" / "a.nii.gz", values=(0, 1, 255))
    packed, dense = (
        make(tmp_path / "labels", layout, ignore=255, layout=layout, format=format_).sets["rrw"].folder / f"a.{format_}"
        for layout in ("packed", "dense")
    )
    ignored = (array == 255).transpose(2, 1, 0)
    (stored,) = read_channels(packed, **({"spacing_mm": (1, 1, 1)} if format_ == "npy" else {}))
    np.testing.assert_array_equal(np.isnan(stored.array), ignored)
    assert (rwtool.read_map(dense)[:, ignored] == 0).all()
    np.testing.assert_array_equal(rwtool.read_map(packed), rwtool.read_map(dense))


def test_the_sidecar_says_what_each_number_means(labels):
    folder = make(labels, class_weights={2: 3.0}, units="voxel").sets["rrw"].folder
    content = sidecar(folder)
    assert content["rwtool"] == rwtool.__version__
    assert content["parameters"] == {
        "kind": "rrw", "convention": "across", "units": "voxel", "dims": 3, "profile": "linear", "sigma": None,
        "instances": False, "class_weights": {"2": 3.0},
    }  # fmt: skip
    assert content["unit"] == "voxel"
    assert content["other_values"] == [1, 1, 3]
    assert [entry["value"] for entry in content["classes"]] == [0, 1, 2]
    record = content["cases"]["case_0"]
    source = labels / "case_0.nii.gz"
    assert (folder / record["source"]).resolve() == source.resolve()
    assert record["source_sha256"] == file_hash(source)
    assert record["source_bytes"] == source.stat().st_size
    assert record["shape"] == [5, 9, 6]
    assert record["spacing_mm"] == pytest.approx([4, 1.5, 0.8])
    assert record["slice_axis"] == 2
    assert (record["absent"], record["filling"]) == ([], [])
    assert set(record["largest_distance"]) == {"0", "1", "2"}
    assert record["seconds"] >= 0


def test_a_rerun_with_nothing_to_make_folds_in_the_journal_of_a_killed_one(labels, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(MapSet, "_fold", lambda maps: None)
        make(labels)
    folder = labels.parent / "maps" / "rrw"
    assert len(list(folder.glob("maps.json.journal.*"))) == 1
    assert sidecar(folder)["cases"] == {}
    make(labels)
    assert not list(folder.glob("maps.json.journal*"))
    assert len(sidecar(folder)["cases"]) == 3
