from pathlib import Path

import pytest

from rwtool.datasets.layouts import NamePattern, known_roles, role_of
from rwtool.errors import UsageError


@pytest.mark.parametrize(
    ("path", "role"),
    [
        ("k/case_00001/segmentation.nii.gz", ("case_00001", True, "")),
        ("k/case_00001/imaging.nii.gz", ("case_00001", False, "")),
        ("patient001/patient001_frame12_gt.nii.gz", ("patient001_frame12", True, "")),
        ("sub-01/anat/sub-01_dseg.nii.gz", ("sub-01", True, "")),
        ("sub-01_ses-2_run-1_space-MNI_desc-x_dseg.nii.gz", ("sub-01_ses-2_run-1", True, "")),
        ("sub-01_ses-2_T1w.nii.gz", ("sub-01_ses-2", False, "T1w")),
        ("B/BraTS-GLI-00000-000-seg.nii.gz", ("BraTS-GLI-00000-000", True, "")),
        ("B/BraTS20_Training_001_t1ce.nii.gz", ("BraTS20_Training_001", False, "4 t1ce")),
        ("spleen_2/spleen_2_trans.nii.gz", ("spleen_2", True, "")),
        ("patient001_frame12.nii.gz", None), ("sub-01_events.nii", None), ("a_0000.nii.gz", None),
    ],
)  # fmt: skip
def test_roles_by_the_names_of_published_data(path, role):
    assert role_of(Path(path)) == role


def test_a_name_that_is_like_brats_counts_beside_others_of_its_case_alone():
    alone = [Path("a_t1.nii"), Path("b_seg.nii")]
    assert known_roles(alone) == {}
    together = [Path("a_t1.nii"), Path("a_seg.nii")]
    assert {path.name: role.case for path, role in known_roles(together).items()} == {"a_t1.nii": "a", "a_seg.nii": "a"}


@pytest.mark.parametrize(
    ("pattern", "path", "found"),
    [
        ("{case}_gt", "d/a_gt.nii.gz", ("a", "")),
        ("{case}_gt.nii.gz", "d/a_gt.nii.gz", ("a", "")),
        ("{case}/seg.nii", "d/a/seg.nii", ("a", "")),
        ("{case}/*/seg*", "d/a/x/seg_1.nii.gz", ("a", "")),
        ("{case}/{case}_trans", "d/a/a_trans.nii.gz", ("a", "")),
        ("{case}_{channel}", "d/a_b_t1.nii", ("a_b", "t1")),
        ("sub-{case}_?", "sub-7_x.nii", ("7", "")),
        ("{case}_gt", "d/a.nii.gz", None),
        ("{case}/{case}_trans", "d/a/b_trans.nii.gz", None),
        ("{case}/seg", "d/a/x/seg.nii", ("x", "")),
        ("a.{case}", "axb.nii", None),
    ],
)
def test_a_pattern_says_which_part_of_the_path_is_the_name(pattern, path, found):
    assert NamePattern(pattern).match(Path(path)) == found


@pytest.mark.parametrize("pattern", ["", "a", "{kase}", "{case}{x}", "{case", "{}"])
def test_a_pattern_without_a_case_is_refused(pattern):
    with pytest.raises(UsageError, match=r"expected a pattern with {case}"):
        NamePattern(pattern)
