import json
import math

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from nibabel.orientations import axcodes2ornt, inv_ornt_aff

import rwtool
from rwtool.evaluation import case as measure
from rwtool.evaluation.evaluate import Request, plan_evaluation
from rwtool.evaluation.rows import Rules
from rwtool.io.names import file_hash

SPACING = (0.8, 1.5, 4.0)  # file axes
AFFINE = np.array([[0.8, 0, 0, 10], [0, 1.5, 0, -20], [0, 0, 4, 30], [0, 0, 0, 1.0]])
SHAPE = (12, 10, 8)


def box(*corners, values=(1,), shape=SHAPE):
    """Labels with boxes: each of corners is (start, stop) along the file axes."""
    array = np.zeros(shape, np.uint8)
    for (start, stop), value in zip(corners, values, strict=True):
        array[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = value
    return array


BOX = box(((2, 2, 2), (6, 6, 6)))
SHIFTED = box(((5, 2, 2), (9, 6, 6)))  # by 3 voxels of 0.8 mm


def save(path, array, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def evaluate(reference, *predictions, **options):
    names = ("metrics", "hd95", "undefined", "permutations", "seed", "alpha", "subject")
    rules = options.pop("rules", Rules())
    options |= {name: getattr(rules, name) for name in names}
    return rwtool.evaluate(reference, predictions, **{"jobs": 1, **options}).evaluation


def values(evaluation, **where):
    """Numbers by metric, of rows that are unique otherwise."""
    rows = [row for row in evaluation.rows if all(getattr(row, key) == value for key, value in where.items())]
    found = {row.metric: row.value for row in rows}
    assert len(found) == len(rows)
    return found


@pytest.fixture
def project(tmp_path):
    """Two cases; method `a` shifts the box of the first by 2.4 mm, method `b` copies both."""
    for case, array in (("x", BOX), ("y", SHIFTED)):
        save(tmp_path / "labels" / f"{case}.nii.gz", array)
        save(tmp_path / "b" / f"{case}.nii.gz", array)
        save(tmp_path / "a" / f"{case}.nii.gz", SHIFTED)
    return tmp_path


# --- pairing ---


def test_cases_pair_by_name_and_a_shift_of_3_voxels_is_2_4_mm(project):
    found = evaluate(project / "labels", project / "a", project / "b")
    assert values(found, method="a", case="x") == pytest.approx({"dice": 0.25, "hd95": 2.4, "hd": 2.4})
    assert values(found, method="a", case="y") == {"dice": 1, "hd95": 0, "hd": 0}
    assert values(found, method="b", case="x") == {"dice": 1, "hd95": 0, "hd": 0}
    row = found.rows[1]
    assert (row.run, row.subject, row.group, row.label, row.class_name, row.unit, row.status) == (
        "", "x", "", 1, "1", "mm", "ok",
    )  # fmt: skip
    assert row.diagonal_mm == pytest.approx(math.hypot(12 * 0.8, 10 * 1.5, 8 * 4))
    assert row.share == 64 / 960
    assert [row.method for row in found.rows] == ["a"] * 6 + ["b"] * 6


def test_names_and_runs(project):
    found = evaluate(project / "labels", f"mine={project / 'a'},{project / 'b'}", f"theirs={project / 'b'}")
    assert {(row.method, row.run) for row in found.rows} == {("mine", "a"), ("mine", "b"), ("theirs", "")}


def test_a_single_file_pairs_with_a_single_file_of_any_name(project):
    found = evaluate(project / "labels" / "x.nii.gz", project / "a" / "y.nii.gz")
    assert {(row.case, row.method) for row in found.rows} == {("x", "y")}
    assert values(found)["dice"] == 0.25
    with pytest.raises(rwtool.UsageError, match=r"no prediction in .* has the name of a reference"):
        evaluate(project / "labels" / "x.nii.gz", save(project / "c" / "z.nii.gz", BOX).parent)


def test_allow_missing_counts_the_structures_of_the_reference_as_missed(project):
    (project / "a" / "x.nii.gz").unlink()
    rules = Rules(metrics=("dice", "hd", "nsd", "volume_ml", "volume_error"))
    found = evaluate(
        project / "labels", project / "a", project / "b", allow_missing=True, background=True, classes=(0, 1, 2),
        rules=rules, nsd_tolerance_mm={None: 1.0},
    )  # fmt: skip
    missing = {row.label: row.status for row in found.rows if (row.method, row.case) == ("a", "x")}
    assert missing == {0: "missed", 1: "missed"}  # of class 2, in neither, a file that is not there says nothing
    numbers = values(found, method="a", case="x", label=1)
    assert math.isnan(numbers.pop("hd"))
    assert numbers == {"dice": 0, "nsd": 0, "volume_ml": 0, "volume_error": -1}
    assert found.provenance()["runs"][0]["missing"] == ["x"]
    assert not found.failed


# --- cases, subjects, groups ---


def write(path, text):
    path.write_text(text)
    return str(path)


def test_cases_limits_the_cases_and_must_know_them(project):
    cases = write(project / "cases.txt", "y")
    assert {row.case for row in evaluate(project / "labels", project / "a", cases=cases).rows} == {"y"}
    cases = write(project / "cases.txt", "y\nz")
    with pytest.raises(rwtool.UsageError, match="names cases without a reference: z; the references are x, y"):
        evaluate(project / "labels", project / "a", cases=cases)


def scans(folder, *names):
    for name in names:
        save(folder / "labels" / f"{name}.nii.gz", BOX)
        save(folder / "a" / f"{name}.nii.gz", BOX)
    return folder


def test_the_subject_is_group_1_or_the_whole_match(tmp_path):
    scans(tmp_path, "patient001_frame01", "patient001_frame12")
    for regex, subject in ((r"patient(\d+)", "001"), (r"patient\d+", "patient001")):
        found = evaluate(tmp_path / "labels", tmp_path / "a", rules=Rules(subject=regex))
        assert {row.subject for row in found.rows} == {subject}
    for regex, message in ((r"sub-\d+", "finds no subject in 'patient001_frame01'"), ("(", "not a regular expression")):
        with pytest.raises(rwtool.UsageError, match=message):
            evaluate(tmp_path / "labels", tmp_path / "a", rules=Rules(subject=regex))


def test_names_that_share_a_stem_suggest_a_regex(tmp_path):
    scans(tmp_path, "patient001_frame01", "patient001_frame12")
    request = Request(str(tmp_path / "labels"), (str(tmp_path / "a"),))
    assert plan_evaluation(request).subject_regex == "^(patient[0-9]+)"
    request = Request(str(tmp_path / "labels"), (str(tmp_path / "a"),), rules=Rules(subject="patient001"))
    assert plan_evaluation(request).subject_regex is None


def test_groups_come_from_a_csv_file(project):
    write(project / "groups.csv", "Case,Group\nx,ED\ny.nii.gz,ES\nz,ES\n")
    found = evaluate(project / "labels", project / "a", group=project / "groups.csv")
    assert {(row.case, row.group) for row in found.rows} == {("x", "ED"), ("y", "ES")}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x,ED\n", "no group for y"),
        ("x,ED\nx,ES\ny,ED\n", "the case 'x' is in the groups 'ED' and 'ES'"),
        ("x;ED\n", "expected two columns, case,group; found 'x;ED'"),
        (None, "cannot be read as CSV"),
    ],
)
def test_broken_groups_are_refused(project, text, message):
    if text is not None:
        write(project / "groups.csv", text)
    with pytest.raises(rwtool.UsageError, match=message):
        evaluate(project / "labels", project / "a", group=project / "groups.csv")


# --- classes, statuses, settings ---


def test_every_status(tmp_path):
    corners = [((0, 0, 0), (2, 2, 2)), ((3, 3, 3), (5, 5, 5)), ((6, 6, 4), (8, 8, 6))]
    save(tmp_path / "labels" / "x.nii.gz", box(*corners[:2], values=(1, 2)))
    save(tmp_path / "a" / "x.nii.gz", box(corners[0], corners[2], values=(1, 3)))
    found = evaluate(tmp_path / "labels", tmp_path / "a", classes=(0, 1, 2, 3, 4))
    assert {row.label: row.status for row in found.rows} == {1: "ok", 2: "missed", 3: "hallucinated", 4: "absent"}
    dice = {row.label: row.value for row in found.rows if row.metric == "dice"}
    assert (dice[1], dice[2], dice[3]) == (1, 0, 0)
    assert math.isnan(dice[4])
    assert all(math.isnan(row.value) for row in found.rows if row.metric == "hd" and row.label > 1)


def test_the_volume_of_a_class_in_neither_file_is_0_and_has_no_error(tmp_path):
    corners = [((0, 0, 0), (2, 2, 2)), ((3, 3, 3), (5, 5, 5)), ((6, 6, 4), (8, 8, 6))]
    save(tmp_path / "labels" / "x.nii.gz", box(*corners[:2], values=(1, 2)))
    save(tmp_path / "a" / "x.nii.gz", box(corners[0], corners[2], values=(1, 3)))
    rules = Rules(metrics=("volume_ml", "volume_error"))
    found = evaluate(tmp_path / "labels", tmp_path / "a", classes=(0, 1, 2, 3, 4), rules=rules)
    ml = 8 * math.prod(SPACING) / 1000
    volumes = {row.label: row.value for row in found.rows if row.metric == "volume_ml"}
    assert volumes == pytest.approx({1: ml, 2: 0.0, 3: ml, 4: 0.0})
    references = {row.label: row.reference_ml for row in found.rows if row.metric == "volume_ml"}
    assert references == pytest.approx({1: ml, 2: ml, 3: 0.0, 4: 0.0})
    assert all(math.isnan(row.reference_ml) for row in found.rows if row.metric == "volume_error")
    errors = {row.label: row.value for row in found.rows if row.metric == "volume_error"}
    assert (errors[1], errors[2]) == (0.0, -1.0)
    assert math.isnan(errors[3])
    assert math.isnan(errors[4])


@pytest.mark.parametrize("mm", [math.nan, math.inf, -1.0])
def test_a_tolerance_that_is_no_distance_is_refused_before_anything_is_measured(project, mm):
    with pytest.raises(rwtool.UsageError, match=r"found a tolerance of .* mm for nsd; give a finite number of mm"):
        evaluate(project / "labels", project / "a", rules=Rules(metrics=("nsd",)), nsd_tolerance_mm={None: mm})


def test_rows_carry_the_files_labels_and_names(tmp_path):
    save(tmp_path / "labels" / "x.nii.gz", BOX * 4)
    save(tmp_path / "a" / "x.nii.gz", BOX * 4)
    write(tmp_path / "dataset.json", json.dumps({"labels": {"background": 0, "core": 2, "enhancing": 4}}))
    found = evaluate(tmp_path / "labels", tmp_path / "a", class_names={2: "necrosis"})
    assert {(row.label, row.class_name) for row in found.rows} == {(2, "necrosis"), (4, "enhancing")}
    assert values(found, label=4)["dice"] == 1
    with pytest.raises(rwtool.UsageError, match="class_names= names label 3, which is no class"):
        evaluate(tmp_path / "labels", tmp_path / "a", class_names={3: "x"})


def test_a_predicted_label_outside_the_class_list_fails_its_case_alone(project):
    save(project / "a" / "x.nii.gz", BOX * 7 + SHIFTED * (BOX == 0))
    found = evaluate(project / "labels", project / "a")
    assert {row.case for row in found.rows} == {"y"}
    (failed,) = found.failed
    assert failed.name == "x"
    assert "label 7 (64 voxels) is not in the class list 0, 1; add it to classes=" in failed.error


def test_ignored_voxels_count_for_neither_mask(tmp_path):
    reference = BOX.copy()
    reference[6:] = 255
    save(tmp_path / "labels" / "x.nii.gz", reference)
    save(tmp_path / "a" / "x.nii.gz", box(((2, 2, 2), (12, 6, 6))))
    found = evaluate(tmp_path / "labels", tmp_path / "a", ignore=255)
    assert values(found) == {"dice": 1, "hd95": 0, "hd": 0}
    assert found.rows[0].share == 64 / 480
    save(tmp_path / "a" / "x.nii.gz", reference[::-1])
    (failed,) = evaluate(tmp_path / "labels", tmp_path / "a", ignore=255).failed
    assert "voxels hold the ignored label 255 where the reference has a class" in failed.error


def test_a_mask_without_boundary_has_no_distance_but_a_status(tmp_path):
    save(tmp_path / "labels" / "x.nii.gz", np.full((1, 1, 1), 1, np.uint8))
    save(tmp_path / "a" / "x.nii.gz", np.full((1, 1, 1), 1, np.uint8))
    found = evaluate(tmp_path / "labels", tmp_path / "a")
    assert {row.status for row in found.rows} == {"ok"}
    assert math.isnan(values(found)["hd"])


def test_all_metrics_and_both_rules_of_hd95(project):
    island = SHIFTED.copy()
    island[11, 9, 7] = 1
    save(project / "a" / "y.nii.gz", island)
    metrics = ("dice", "hd95", "hd", "assd", "masd", "nsd", "volume_ml", "volume_error")
    cases = write(project / "cases.txt", "y")
    for rule in ("directed", "pooled"):
        rules = Rules(metrics=metrics, hd95=rule)
        found = evaluate(project / "labels", project / "a", rules=rules, cases=cases, nsd_tolerance_mm={None: 2, 1: 1})
        truth = rwtool.evaluate_labels(
            SHIFTED.T, island.T, SPACING[::-1], n_classes=2, hd95=rule, nsd_tolerance_mm=1.0
        )[0]
        expected = {name: getattr(truth, rwtool.metrics.measures.METRICS[name].field) for name in metrics}
        assert values(found) == pytest.approx(expected)
        assert found.rules.nsd_tolerance_mm == ((1, 1),)


@pytest.mark.parametrize(
    ("metrics", "tolerances", "message"),
    [
        (("dice", "nsd"), {}, "nsd needs a tolerance for label 1"),
        (("dice",), {None: 1.0}, "nsd_tolerance_mm= belongs to nsd"),
        (("nsd",), {5: 1.0}, "nsd_tolerance_mm= names label 5, which is not measured"),
        (("nsd",), {None: -1.0}, "found a tolerance of -1.0 mm for nsd; give a finite number"),
        (("dice", "iou"), {}, "metrics= are names, each once, of dice"),
        (("dice", "dice"), {}, "each once"),
    ],
)
def test_settings_that_do_not_fit_are_refused(project, metrics, tolerances, message):
    with pytest.raises(rwtool.UsageError, match=message):
        evaluate(project / "labels", project / "a", rules=Rules(metrics=metrics), nsd_tolerance_mm=tolerances)


# --- geometry ---


@pytest.mark.parametrize("codes", ["LPS", "ASR", "SLA", "IRP"])
def test_the_same_grid_in_another_orientation_gives_identical_numbers(tmp_path, codes):
    rng = np.random.default_rng(0)
    reference, prediction = (rng.integers(0, 3, SHAPE).astype(np.uint8) for _ in range(2))
    save(tmp_path / "labels" / "x.nii.gz", reference)
    save(tmp_path / "plain" / "x.nii.gz", prediction)
    turn = axcodes2ornt(codes)
    turned = nib.apply_orientation(prediction, nib.orientations.ornt_transform(axcodes2ornt("RAS"), turn))
    affine = AFFINE @ inv_ornt_aff(nib.orientations.ornt_transform(axcodes2ornt("RAS"), turn), SHAPE)
    save(tmp_path / "turned" / "x.nii.gz", turned, affine)
    assert "".join(nib.aff2axcodes(affine)) == codes
    found = evaluate(tmp_path / "labels", tmp_path / "plain", tmp_path / "turned")
    for label in (1, 2):
        assert values(found, method="turned", label=label) == values(found, method="plain", label=label)
    assert [result.alignment for result in found.measured["x"]] == ["same", "reoriented"]


def test_another_grid_is_refused_with_both_side_by_side(project):
    affine = AFFINE.copy()
    affine[0, 3] += 5
    save(project / "a" / "x.nii.gz", BOX, affine)
    (failed,) = evaluate(project / "labels", project / "a").failed
    lines = failed.error.splitlines()
    assert lines[0] == (
        f"{project / 'a' / 'x.nii.gz'}: the origins differ by (5, 0, 0) mm (right, anterior, superior); "
        "corners differ by up to 6.25 voxels"
    )
    assert [line.strip() for line in lines[1:-1]] == [
        "reference      prediction",
        "file           x.nii.gz       x.nii.gz",
        "shape          12 x 10 x 8    12 x 10 x 8",
        "spacing in mm  0.8 x 1.5 x 4  0.8 x 1.5 x 4",
        "origin in mm   10, -20, 30    15, -20, 30",
        "orientation    RAS            RAS",
    ]
    assert "all corners within 0.1 voxel" in lines[-1]
    assert "resample=True" in lines[-1]


def test_another_shape_is_refused(project):
    save(project / "a" / "x.nii.gz", BOX[:-1])
    (failed,) = evaluate(project / "labels", project / "a").failed
    assert "the shapes differ: (12, 10, 8) and (11, 10, 8)" in failed.error


@pytest.mark.parametrize(("offset", "fine"), [(0.07, True), (0.09, False)])
def test_corners_may_be_a_tenth_of_a_voxel_apart(project, offset, fine):
    affine = AFFINE.copy()
    affine[0, 3] += offset  # of a voxel of 0.8 mm
    save(project / "a" / "x.nii.gz", BOX, affine)
    assert (not evaluate(project / "labels", project / "a").failed) is fine


def test_resample_brings_a_prediction_onto_the_reference_grid(project):
    fine = BOX.repeat(2, axis=0).repeat(2, axis=2)
    affine = AFFINE @ np.diag([0.5, 1, 0.5, 1])
    affine[:3, 3] -= [0.2, 0, 1]  # a quarter of a voxel: where the halves of the first voxel begin
    turn = np.array([[1, -1], [0, 1], [2, 1]])
    save(project / "a" / "x.nii.gz", nib.apply_orientation(fine, turn), affine @ inv_ornt_aff(turn, fine.shape))
    found = evaluate(project / "labels", project / "a", resample=True)
    assert values(found, case="x") == {"dice": 1, "hd95": 0, "hd": 0}
    assert found.measured["x"][0].alignment == "resampled"


def test_resample_leaves_background_where_the_prediction_ends(project):
    save(project / "a" / "x.nii.gz", BOX[:4])
    found = evaluate(project / "labels", project / "a", resample=True)
    assert values(found, case="x")["dice"] == 2 * 32 / (32 + 64)


@pytest.mark.parametrize("spacing", [(0.8, 1.5, 1.5), (1.5, 0.8, 1.5), (1.5, 1.5, 0.8)])
def test_any_slice_axis_gives_the_distance_of_its_axis(tmp_path, spacing):
    affine = np.diag([*spacing, 1])
    save(tmp_path / "labels" / "x.nii.gz", BOX, affine)
    save(tmp_path / "a" / "x.nii.gz", SHIFTED, affine)
    assert values(evaluate(tmp_path / "labels", tmp_path / "a"))["hd"] == pytest.approx(3 * spacing[0])


def test_formats_mix(project):
    image = sitk.ReadImage(str(project / "a" / "x.nii.gz"))
    sitk.WriteImage(image, str(project / "a" / "x.nrrd"))
    (project / "a" / "x.nii.gz").unlink()
    assert values(evaluate(project / "labels", project / "a"), case="x")["hd"] == pytest.approx(2.4)


def test_npy_files_have_a_shape_and_the_spacing_given(tmp_path):
    for name, array in (("labels", BOX), ("a", SHIFTED)):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "x.npy", array.transpose(2, 1, 0))
    found = evaluate(tmp_path / "labels", tmp_path / "a", spacing_mm=(4, 1.5, 0.8))
    assert values(found)["hd"] == pytest.approx(2.4)
    with pytest.raises(rwtool.UsageError, match=r"give spacing_mm=\(z, y, x\)"):
        evaluate(tmp_path / "labels", tmp_path / "a")
    np.save(tmp_path / "a" / "x.npy", SHIFTED)
    (failed,) = evaluate(tmp_path / "labels", tmp_path / "a", spacing_mm=(4, 1.5, 0.8), resample=True).failed
    assert "its shape (z, y, x) is (12, 10, 8)" in failed.error


def test_images_without_a_spacing_are_compared_like_npy_files(tmp_path):
    for name, array in (("labels", BOX), ("a", SHIFTED)):
        (tmp_path / name).mkdir()
        sitk.WriteImage(sitk.GetImageFromArray(array[:, :, 3].T), str(tmp_path / name / "x.png"))
    found = evaluate(tmp_path / "labels", tmp_path / "a", spacing_mm=(4, 1.5, 0.8))
    assert values(found)["hd"] == pytest.approx(2.4)
    sitk.WriteImage(sitk.GetImageFromArray(SHIFTED[:, :, 3]), str(tmp_path / "a" / "x.png"))
    (failed,) = evaluate(tmp_path / "labels", tmp_path / "a", spacing_mm=(4, 1.5, 0.8)).failed
    assert "its shape (z, y, x) is (1, 12, 10)" in failed.error
    assert "x.png has no grid" in failed.error


def test_npy_predictions_take_the_spacing_of_a_nifti_reference(project):
    np.save(project / "a" / "x.npy", SHIFTED.transpose(2, 1, 0))
    (project / "a" / "x.nii.gz").unlink()
    assert values(evaluate(project / "labels", project / "a"), case="x")["hd"] == pytest.approx(2.4)


# --- failures and the cache ---


def test_a_corrupt_file_costs_only_its_own_numbers(project):
    bad = project / "a" / "x.nii.gz"
    bad.write_bytes(bad.read_bytes()[:100])
    found = evaluate(project / "labels", project / "a", project / "b")
    assert {(row.method, row.case) for row in found.rows} == {("a", "y"), ("b", "x"), ("b", "y")}
    assert [outcome.name for outcome in found.failed] == ["x (a)"]
    assert str(bad) in found.failed[0].error
    assert found.provenance()["failed"]["x (a)"] == found.failed[0].error


def test_a_corrupt_reference_costs_only_its_case(project):
    (project / "labels" / "x.nii.gz").write_bytes(b"nothing")
    found = evaluate(project / "labels", project / "a", classes=(0, 1), jobs=2)
    assert {row.case for row in found.rows} == {"y"}
    assert [outcome.name for outcome in found.failed] == ["x"]


@pytest.fixture
def measured(monkeypatch):
    """Paths that were measured, not taken from the cache."""
    seen = []
    original = measure._measure

    def spy(job, reference, path):
        seen.append(path and path.parent.name + "/" + path.name.partition(".")[0])
        return original(job, reference, path)

    monkeypatch.setattr(measure, "_measure", spy)
    return seen


def test_a_rerun_measures_only_what_has_changed(project, measured):
    out = project / "out"

    def again(*names, **options):
        measured.clear()
        found = evaluate(project / "labels", *(project / name for name in names), out=out, **options)
        return found.rows, sorted(measured)

    first, done = again("a")
    assert done == ["a/x", "a/y"]
    assert again("a") == (first, [])
    assert again("a", "b")[1] == ["b/x"]  # b/y holds the same bytes as a/y
    save(project / "a" / "x.nii.gz", np.maximum(BOX, SHIFTED))
    rows, done = again("a", "b")
    assert done == ["a/x"]
    assert [row.value for row in rows if row.case == "x" and row.metric == "dice"] == [2 * 64 / (64 + 112), 1]
    save(project / "labels" / "x.nii.gz", SHIFTED)
    assert again("a", "b")[1] == ["a/x", "b/x"]
    assert again("a", "b", rules=Rules(metrics=("dice", "assd"), subject="."))[1] == []  # all metrics are kept
    assert len(again("a", "b", rules=Rules(hd95="pooled"))[1]) == 4
    assert len(again("a", "b", classes=(0, 1, 2), rules=Rules(hd95="pooled"))[1]) == 4


def test_a_case_of_the_longest_name_is_kept_in_the_cache_too(tmp_path, measured):
    save(tmp_path / "labels" / f"{'a' * 251}.nii", BOX)  # a name of 255 bytes
    for times in (1, 1):
        evaluate(tmp_path / "labels", tmp_path / "labels", out=tmp_path / "out", jobs=1)
        assert len(measured) == times
    (cached,) = (tmp_path / "out" / "cache").iterdir()
    assert cached.name.startswith("aaa")


def test_undefined_numbers_survive_the_cache_and_a_damaged_cache_is_made_anew(project, measured):
    save(project / "a" / "x.nii.gz", np.zeros_like(BOX))
    first = evaluate(project / "labels", project / "a", out=project / "out")
    second = evaluate(project / "labels", project / "a", out=project / "out")
    assert str(first.rows) == str(second.rows)  # NaN is not equal to itself
    assert [results[0].reused for results in second.measured.values()] == [True, True]
    json.loads((project / "out" / "cache" / "x.json").read_text(), parse_constant=pytest.fail)
    (project / "out" / "cache" / "x.json").write_text('{"format": 1, "results": [')
    measured.clear()
    assert str(evaluate(project / "labels", project / "a", out=project / "out").rows) == str(first.rows)
    assert measured == ["a/x"]


def test_a_failed_prediction_is_tried_again(project, measured):
    good = (project / "a" / "x.nii.gz").read_bytes()
    (project / "a" / "x.nii.gz").write_bytes(good[:100])
    assert evaluate(project / "labels", project / "a", out=project / "out").failed
    measured.clear()
    assert evaluate(project / "labels", project / "a", out=project / "out").failed
    assert measured == ["a/x"]
    (project / "a" / "x.nii.gz").write_bytes(good)
    assert not evaluate(project / "labels", project / "a", out=project / "out").failed


def test_without_out_nothing_is_written(project, monkeypatch):
    monkeypatch.chdir(project)
    before = sorted(project.rglob("*"))
    evaluate("labels", "a")
    assert sorted(project.rglob("*")) == before


def test_processes_give_the_same_rows(project):
    assert evaluate(project / "labels", project / "a", jobs=2).rows == evaluate(project / "labels", project / "a").rows


def test_the_provenance_is_strict_json_with_the_hash_of_every_input(project):
    found = evaluate(project / "labels", project / "a", project / "b")
    content = json.loads(json.dumps(found.provenance(), allow_nan=False))
    x = content["inputs"]["x"]
    assert x["reference"]["sha256"] == file_hash(project / "labels" / "x.nii.gz")
    assert [entry["sha256"] for entry in x["predictions"]] == [
        file_hash(project / name / "x.nii.gz") for name in ("a", "b")
    ]
    assert set(content["versions"]) == {"edt", "nibabel", "SimpleITK"}
    assert content["classes"]["labels"] == [0, 1]


def test_memory_is_at_most_10_bytes_a_voxel_for_two_uint8_files(project):
    plan = plan_evaluation(Request(str(project / "labels"), (str(project / "a"),)))
    assert plan.work[0].peak_bytes == 960 * 10 + 100_000_000
    save(project / "a" / "x.nii.gz", BOX.repeat(3, axis=0).astype(float))
    plan = plan_evaluation(Request(str(project / "labels"), (str(project / "a"),), resample=True))
    assert plan.work[0].peak_bytes == 960 + 3 * 960 * (2 + 8) + 100_000_000


def test_real_spine_has_the_numbers_of_monai_and_medpy(test_data):
    rules = Rules(metrics=("dice", "hd95", "hd", "assd"))
    found = evaluate(test_data / "spine" / "reference", test_data / "spine" / "prediction", rules=rules)
    pooled = evaluate(
        test_data / "spine" / "reference", test_data / "spine" / "prediction", rules=Rules(("hd95",), hd95="pooled")
    )
    for label, dice, directed, medpy_hd95, hd, assd in (  # MONAI 1.6.1; hd95 pooled and assd from MedPy 0.5.2
        (26, 0.969823946, 1.17188001, 0.8286443, 3.35161534, 0.190981809),
        (43, 0.866396761, 0.610204518, 0.585940003, 26.2040336, 0.517679879),
        (60, 0.0201563408, 62.9824181, 57.9510349, 86.4727532, 10.344664),
    ):
        numbers = {"dice": dice, "hd95": directed, "hd": hd, "assd": assd}
        assert values(found, label=label) == pytest.approx(numbers, rel=2e-5)
        assert values(pooled, label=label)["hd95"] == pytest.approx(medpy_hd95, rel=1e-6)


# --- regions ---


@pytest.fixture
def tumours(tmp_path):
    """Core 2 inside oedema 1, and a prediction that gives a slab of the core to the oedema."""
    truth = box(((1, 1, 1), (9, 9, 7)), ((3, 3, 2), (7, 7, 6)), values=(1, 2))
    truth[truth == 3] = 2
    found = truth.copy()
    found[3:4][found[3:4] == 2] = 1
    save(tmp_path / "labels" / "x.nii.gz", truth)
    save(tmp_path / "a" / "x.nii.gz", found)
    return tmp_path


def by_label(found, metric):
    return {row.label: row.value for row in found.rows if row.metric == metric}


def test_a_region_is_measured_as_one_mask_beside_the_classes(tumours):
    found = evaluate(tumours / "labels", tumours / "a", regions={"whole": (1, 2), "core": (2,)})
    dice = by_label(found, "dice")
    assert list(dice) == [1, 2, "whole", "core"]
    assert (dice["whole"], dice["core"]) == (1.0, dice[2])
    assert dice[2] < 1
    assert by_label(found, "hd")["whole"] == 0
    assert {row.class_name for row in found.rows} == {"1", "2", "whole", "core"}


def test_regions_of_dataset_json_take_the_place_of_classes_without_a_name(tumours):
    content = {"background": 0, "whole": [1, 2], "core": 2}
    (tumours / "labels" / "dataset.json").write_text(json.dumps({"labels": content}))
    found = evaluate(tumours / "labels", tumours / "a")
    assert list(by_label(found, "dice")) == [2, "whole"]
    assert found.plan.dataset.describe()[:2] == [
        f"3 classes: 0 background, 1, 2 core (from {tumours / 'labels' / 'dataset.json'})",
        "1 region: whole 1+2",
    ]
    with pytest.raises(rwtool.UsageError, match=r"label 'whole' is a region, the values 1, 2; .*give the plain values"):
        rwtool.make_maps(tumours / "labels", tumours / "maps")


def test_ignored_voxels_are_of_no_region(tumours):
    ignored = np.asarray(nib.load(tumours / "labels" / "x.nii.gz").dataobj).copy()
    ignored[3:4] = 9
    save(tumours / "labels" / "x.nii.gz", ignored)
    found = evaluate(tumours / "labels", tumours / "a", regions={"core": (2,)}, ignore=9)
    assert by_label(found, "dice") == {1: 1.0, 2: 1.0, "core": 1.0}


def test_a_region_has_its_own_tolerance(tumours):
    found = evaluate(
        tumours / "labels", tumours / "a", regions={"core": (2,)}, rules=Rules(metrics=("nsd",)),
        nsd_tolerance_mm={None: 0, "core": 50},
    )  # fmt: skip
    nsd = by_label(found, "nsd")
    assert nsd["core"] == 1
    assert nsd[2] < 1


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        ({"core": (2, 7)}, r"region 'core' is a union of label values, each once; found 2, 7; the classes are 0, 1, 2"),
        ({"core": ()}, "found none"),
        ({"core": (1, 1)}, "each once; found 1, 1"),
        ({"2": (1, 2)}, "a region has a name that is no number; found '2'"),
    ],
)
def test_a_region_that_is_none_is_refused(tumours, regions, message):
    with pytest.raises(rwtool.UsageError, match=message):
        evaluate(tumours / "labels", tumours / "a", regions=regions, classes=(0, 1, 2))


def test_regions_come_back_from_the_table_of_cases(tumours):
    options = {"regions": {"=whole": (1, 2)}, "jobs": 1, "out": tumours / "out"}
    first = rwtool.evaluate(tumours / "labels", tumours / "a", **options)
    again = rwtool.compare(tumours / "out" / "cases.csv")
    assert again.rows == first.rows
    assert [summary.label for summary in again.comparison.classes] == [1, 2, "=whole"]


# --- names and values of files ---


def test_masks_of_other_values_are_explained_and_mapped(tmp_path):
    save(tmp_path / "labels" / "x.nii.gz", BOX * 255)
    save(tmp_path / "a" / "x.nii.gz", SHIFTED)
    (failed,) = evaluate(tmp_path / "labels", tmp_path / "a").failed
    assert failed.error == (
        f"{tmp_path / 'a' / 'x.nii.gz'}: the reference holds 255 alone besides 0 and the prediction 1: masks of the "
        "same structure under other values, it seems; give map_values={255: 1} to take 255 for 1"
    )
    found = evaluate(tmp_path / "labels", tmp_path / "a", map_values={255: 1})
    assert not found.failed
    assert values(found)["dice"] == pytest.approx(0.25)
    assert {row.label for row in found.rows} == {1}
    with pytest.raises(rwtool.UsageError, match="map_values= takes label values to those of classes; found 5 to 7"):
        evaluate(tmp_path / "labels", tmp_path / "a", map_values={255: 1, 5: 7})


def test_a_mapped_value_is_another_measurement(tmp_path):
    two = box(((1, 1, 1), (4, 4, 4)), ((5, 5, 5), (8, 8, 8)), values=(1, 2))
    save(tmp_path / "labels" / "x.nii.gz", two)
    save(tmp_path / "a" / "x.nii.gz", np.where(two == 2, 1, two))
    first = evaluate(tmp_path / "labels", tmp_path / "a", out=tmp_path / "out")
    second = evaluate(tmp_path / "labels", tmp_path / "a", out=tmp_path / "out", map_values={2: 1})
    assert [row.value < 1 for row in first.rows if row.metric == "dice"] == [True, True]
    assert [row.value for row in second.rows if row.metric == "dice"] == [1.0]


def test_a_pattern_names_the_cases_of_the_folders_that_hold_such_files(tmp_path):
    save(tmp_path / "labels" / "x.nii.gz", BOX)
    save(tmp_path / "a" / "x" / "x_mask.nii.gz", BOX)
    save(tmp_path / "a" / "x" / "note.nii.gz", BOX)
    found = evaluate(tmp_path / "labels", tmp_path / "a", name="{case}/{case}_mask")
    assert values(found)["dice"] == 1.0
    assert (
        "1 file passed over: note.nii.gz (its path is not of the form {case}/{case}_mask)"
        in (found.plan.pairing.notes[0])
    )
    with pytest.raises(rwtool.UsageError, match=r"give name=PATTERN to say which part of a path is the name"):
        evaluate(tmp_path / "labels", tmp_path / "a" / "x")
