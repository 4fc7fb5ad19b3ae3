import json
import zlib

import nibabel as nib
import numpy as np
import pytest
from commands import run
from mapped import record_anew

import rwtool


@pytest.fixture
def labels(tmp_path):
    folder = tmp_path / "labels"
    folder.mkdir()
    for index in range(2):
        array = np.random.default_rng(index).integers(0, 3, (9, 8, 4)).astype(np.uint8).repeat(2, axis=1)
        nib.save(nib.Nifti1Image(array, np.diag([1.0, 1.5, 4.0, 1.0])), folder / f"case_{index}.nii.gz")
    return folder


def brute_force(z, softmax, kind):
    """Negative components by the definition, one voxel at a time in float64."""
    unstable = 0
    for voxel in range(z.shape[1]):
        zi, yi = z[:, voxel].astype(float), softmax[:, voxel].astype(float)
        gradient = yi * (zi - (zi * yi).sum())
        if kind == "hd":
            gradient = 2 * yi * (zi * yi - (zi * yi**2).sum())
        unstable += (gradient < -1e-6 * yi * np.abs(zi).max()).sum() >= 2
    return unstable


@pytest.mark.parametrize("kind", ["boundary", "hd"])
def test_counts_equal_the_gradient_voxel_by_voxel(kind):
    rng = np.random.default_rng(0)
    z = rng.normal(size=(4, 500)) * 10
    softmax = rng.dirichlet(np.ones(4), 500).T
    assert rwtool.gradient_signs(z, softmax, kind=kind).unstable == brute_force(z, softmax, kind)
    assert rwtool.gradient_signs(z, kind=kind).unstable == brute_force(z, np.full_like(z, 0.25), kind)


def test_z_12_4_minus_3_has_two_negative_components_in_8_of_15_of_the_simplex():
    softmax = np.random.default_rng(0).dirichlet(np.ones(3), 400_000).T
    z = np.repeat([[12.0], [4.0], [-3.0]], softmax.shape[1], axis=1)
    assert rwtool.gradient_signs(z, softmax).unstable_share == pytest.approx(8 / 15, abs=0.004)


def test_an_absent_class_of_0_is_raised_in_80_percent_of_the_simplex():
    softmax = np.random.default_rng(0).dirichlet(np.ones(3), 400_000).T
    z = np.array([-3.0, 12.0, 0.0])
    raised = (z @ softmax) > 0
    assert raised.mean() == pytest.approx(0.8, abs=0.004)
    found = rwtool.gradient_signs(np.repeat(z[:, None], softmax.shape[1], axis=1), softmax)
    assert found.unstable_share == pytest.approx(0.8, abs=0.004)


def test_two_classes_are_stable_whatever_the_map():
    rng = np.random.default_rng(0)
    assert rwtool.gradient_signs(rng.normal(size=(2, 1000)), rng.dirichlet([1, 1], 1000).T).unstable == 0


def test_equal_components_are_counted_apart_as_no_gradient():
    z = np.full((3, 10), 0.1, dtype=np.float32)
    found = rwtool.gradient_signs(z, np.random.default_rng(0).dirichlet(np.ones(3), 10).T)
    assert (found.unstable, found.zero, found.voxels) == (0, 10, 10)


@pytest.mark.parametrize("options", [[], ["--layout", "packed"], ["--dtype", "int16"], ["--format", "npy"]])
@pytest.mark.parametrize("more", [[], ["--instances"]])
@pytest.mark.parametrize("kind", ["rrw", "ac", "constant", "skeleton"])
def test_rectified_maps_verify_and_are_stable_at_every_voxel(labels, tmp_path, kind, options, more):
    if "int16" in options and (more or kind == "skeleton"):
        return  # values without a bound
    run("maps", labels, tmp_path / "maps", "--kind", kind, "-q", "-j", 1, *options, *more)
    content = json.loads(run("check", tmp_path / "maps" / kind, "--labels", labels, "--format", "json", "-j", 1).output)
    assert content["verified"] is content["stable"] is True
    assert content["uniform"]["two_or_more_negative"] == content["random"]["two_or_more_negative"] == 0
    assert content["uniform"]["voxels"] == 2 * 9 * 16 * 4


@pytest.mark.parametrize("profile", ["reversed", "exp"])
def test_every_profile_is_stable(labels, tmp_path, profile):
    rwtool.make_maps(labels, tmp_path / "maps", profile=profile, jobs=1)
    found = rwtool.check_maps(tmp_path / "maps" / "rrw", jobs=1)
    assert found.stable
    assert (found.bad, found.random.zero) == ((), 0)


def test_a_skeleton_has_no_gradient_beside_it(labels, tmp_path):
    rwtool.make_maps(labels, tmp_path / "maps", kinds=("skeleton",), jobs=1)
    found = rwtool.check_maps(tmp_path / "maps" / "skeleton", jobs=1)
    z = rwtool.read_map(tmp_path / "maps" / "skeleton" / "case_0.nii.gz")
    assert (found.stable, found.cases[0].random.zero) == (True, (z == 0).all(0).sum())


def test_a_matrix_is_stable_where_its_columns_are_constant_off_the_diagonal(labels, tmp_path):
    def checked(matrix):
        rwtool.make_maps(labels, tmp_path / "maps", kinds=("matrix",), matrix=matrix, jobs=1, overwrite=True)
        return rwtool.check_maps(tmp_path / "maps" / "matrix")

    found = checked([[-3, 5, 2], [4, 1, 2], [12, 5, 0]])  # columns 1 and 2 are, and 0 is that of Section 3.4
    assert [case.name for case in found.cases] == ["label 0 background", "label 1", "label 2"]
    assert found.cases[0].random.unstable_share == pytest.approx(8 / 15, abs=0.006)
    assert found.cases[0].uniform.unstable == 1
    assert [case.random.unstable for case in found.cases[1:]] == [0, 0]
    assert not found.stable
    assert checked([[0, 1, 2], [3, 0, 2], [3, 1, 0]]).stable
    with pytest.raises(rwtool.UsageError, match="a matrix belongs to no label file; leave out labels="):
        rwtool.check_maps(tmp_path / "maps" / "matrix", labels=labels)


def test_boundary_maps_of_three_classes_show_a_clear_share(labels, tmp_path):
    run("maps", labels, tmp_path / "maps", "--kind", "boundary", "-q", "-j", 1)
    checks = rwtool.check_maps(tmp_path / "maps" / "boundary", seed=3, jobs=1).cases
    assert all(check.random.unstable_share > 0.1 for check in checks)
    again = rwtool.check_maps(tmp_path / "maps" / "boundary", seed=3, jobs=1).cases
    assert checks == again
    other = rwtool.check_maps(tmp_path / "maps" / "boundary", seed=4, jobs=1).cases
    assert checks[0].random != other[0].random
    assert "two or more negative" in run("check", tmp_path / "maps" / "boundary", "-j", 1).output


def test_the_streamed_counts_equal_those_of_the_whole_array(labels, tmp_path):
    run("maps", labels, tmp_path / "maps", "--kind", "boundary", "--kind", "hd", "-q", "-j", 1)
    for kind in ("boundary", "hd"):
        checks = rwtool.check_maps(tmp_path / "maps" / kind, jobs=1).cases
        z = rwtool.read_map(tmp_path / "maps" / kind / "case_0.nii.gz").reshape(3, -1)
        draws = np.stack(
            [np.random.default_rng((0, zlib.crc32(b"case_0"), k)).standard_exponential(z.shape[1]) for k in range(3)]
        )
        assert checks[0].random.unstable == brute_force(z, draws / draws.sum(axis=0), kind)


def test_ignored_voxels_are_not_counted(tmp_path):
    array = np.random.default_rng(0).integers(0, 4, (5, 6, 7)).astype(np.uint8)
    (tmp_path / "labels").mkdir()
    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "labels" / "a.nii.gz")
    for layout in ("dense", "packed"):
        run("maps", tmp_path / "labels", tmp_path / layout, "--ignore", 3, "--layout", layout, "-q", "-j", 1)
        (check,) = rwtool.check_maps(tmp_path / layout / "rrw", jobs=1).cases
        assert (check.uniform.voxels, check.uniform.zero) == (int((array != 3).sum()), 0)


def spoil_size(maps, labels):
    with (maps / "case_0.nii.gz").open("ab") as stream:
        stream.write(b"x")


def spoil_bytes(maps, labels):
    path = maps / "case_0.nii.gz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))


def spoil_stable(maps, labels):
    path = maps / "case_0.nii.gz"
    image = nib.load(path)
    array = np.asarray(image.dataobj).copy()
    array[0, 0, 0] = [12, 4, -3]
    nib.save(nib.Nifti1Image(array, image.affine), path)
    record_anew(maps)


def spoil_missing(maps, labels):
    (maps / "case_0.nii.gz").unlink()


def spoil_labels(maps, labels):
    (labels / "case_0.nii.gz").write_bytes((labels / "case_1.nii.gz").read_bytes())


def spoil_affine(maps, labels):
    path = maps / "case_0.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine + np.diag([0, 0, 1, 0])), path)
    record_anew(maps)


def spoil_channels(maps, labels):
    path = maps / "case_0.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[..., :2], image.affine), path)
    record_anew(maps)


def spoil_values(maps, labels):
    path = maps / "case_0.nii.gz"
    image = nib.load(path)
    array = np.asarray(image.dataobj).copy()
    array[0, 0, 0, 0] = np.nan
    nib.save(nib.Nifti1Image(array, image.affine), path)
    record_anew(maps)


def spoil_extra(maps, labels):
    (labels / "case_9.nii.gz").write_bytes((labels / "case_1.nii.gz").read_bytes())


def spoil_gone(maps, labels):
    (labels / "case_0.nii.gz").unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_size, "bytes, the sidecar says"),
        (spoil_bytes, "is not the file that was written"),
        (spoil_stable, "is a rrw map, and yet not stable"),
        (spoil_missing, "case_0.nii.gz is missing"),
        (spoil_labels, "SHA-256 differs"),
        (spoil_affine, "not on one grid"),
        (spoil_channels, "has 2 channels, the sidecar says 3"),
        (spoil_values, "1 values that are not finite"),
        (spoil_extra, "case_9: no map of"),
        (spoil_gone, "no label file among the given ones"),
    ],
)
def test_what_does_not_verify_is_named_and_the_exit_code_is_1(labels, tmp_path, spoil, message):
    run("maps", labels, tmp_path / "maps", "-q", "-j", 1)
    spoil(tmp_path / "maps" / "rrw", labels)
    result = run("check", tmp_path / "maps" / "rrw", "--labels", labels, "-j", 1, code=1)
    assert message in result.output


@pytest.mark.parametrize("content", ['{"cases": []}', '{"format": 1, "rwtool": "0", "cases": {"a": {}}}', "[]", "{}"])
def test_a_damaged_sidecar_is_one_readable_line(labels, tmp_path, content):
    run("maps", labels, tmp_path / "maps", "-q", "-j", 1)
    (tmp_path / "maps" / "rrw" / "maps.json").write_text(content)
    result = run("check", tmp_path / "maps" / "rrw", "-j", 1, code=1)
    assert "maps.json: not a readable sidecar" in result.output
    run("maps", labels, tmp_path / "maps", "-q", "-j", 1, "--overwrite")
    run("check", tmp_path / "maps" / "rrw", "-j", 1)
