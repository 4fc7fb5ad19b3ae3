import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import rwtool
from rwtool.datasets.bids import find_tables, read_names, read_table, warn_of_names
from rwtool.datasets.classes import make_classes
from rwtool.datasets.plan import plan_dataset

TABLE = "index\tname\tcolor\n0\tNothing\t#000\n1\tGrey matter\t#f00\n2\tWhite matter\t#0f0\n17\tOther\t#00f\n"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(*names, text=TABLE):
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)


def save(name, *values):
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.zeros((4, 5, 6), np.uint8)
    array[1 : 1 + len(values), 1:3, 1:3] = np.reshape(values, (-1, 1, 1))
    nib.save(nib.Nifti1Image(array, np.diag([1, 1, 2, 1])), path)
    return path


@pytest.mark.parametrize(
    ("label", "tables", "found"),
    [
        ("b/sub-1/anat/sub-1_dseg.nii.gz", ["b/dseg.tsv"], "b/dseg.tsv"),
        ("b/sub-1/ses-2/anat/sub-1_ses-2_dseg.nii.gz", ["b/dseg.tsv", "dseg.tsv"], "b/dseg.tsv"),
        ("b/sub-1/ses-2/anat/sub-1_ses-2_dseg.nii.gz", ["dseg.tsv"], None),  # beyond the data set
        ("b/sub-1/anat/sub-1_dseg.nii.gz", ["b/dseg.tsv", "b/sub-1/dseg.tsv"], "b/sub-1/dseg.tsv"),
        (
            "b/sub-1/anat/sub-1_desc-aseg_dseg.nii.gz",
            ["b/dseg.tsv", "b/desc-aseg_dseg.tsv", "b/desc-aparcaseg_dseg.tsv"],
            "b/desc-aseg_dseg.tsv",
        ),
        ("b/sub-1/anat/sub-1_dseg.nii.gz", ["b/desc-aseg_dseg.tsv"], None),
        (
            "b/sub-1/anat/sub-1_dseg.nii.gz",
            ["b/dseg.tsv", "b/sub-1/anat/sub-1_dseg.tsv"],
            "b/sub-1/anat/sub-1_dseg.tsv",
        ),
        ("b/sub-1_dseg.nii.gz", ["b/dseg.tsv"], "b/dseg.tsv"),
        ("b/labels/sub-1_dseg.nii.gz", ["b/dseg.tsv"], "b/dseg.tsv"),
        ("b/heart_1.nii.gz", ["b/dseg.tsv"], None),
        ("b/sub-1_T1w.nii.gz", ["b/dseg.tsv"], None),
    ],
)
def test_the_table_is_the_nearest_that_fits(here, label, tables, found):
    put(*tables)
    assert find_tables([Path(label)]) == (() if found is None else (here / found,))


def test_every_case_has_its_table(here):
    put("b/sub-1/anat/sub-1_dseg.tsv", text="name\tindex\na\t1\n")
    put("b/sub-2/anat/sub-2_dseg.tsv", text="name\tindex\na\t1\nb\t2\n")
    files = [Path(f"b/sub-{k}/anat/sub-{k}_dseg.nii.gz") for k in (1, 2)]
    assert read_names(files)[0] == {1: "a", 2: "b"}
    put("b/sub-2/anat/sub-2_dseg.tsv", text="name\tindex\nc\t1\n")
    message = f"{here}/b/sub-2/anat/sub-2_dseg.tsv: it calls the label 1 'c', and {here}/b/sub-1/anat/sub-1_dseg.tsv"
    with pytest.raises(rwtool.RwtoolError, match=re.escape(f"{message} calls it 'a'; expected one name; mend it")):
        read_names(files)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it has no column index and name; found nothing"),
        ("index,name\n1,a\n", "it has no column index and name; found index,name"),
        ("index\tlabel\n1\ta\n", "it has no column name; found index, label"),
        ("index\tname\n1\ta\n1\tb\n", "line 3: the index 1 stands twice"),
        ("index\tname\n1.5\ta\n", "line 2: expected a whole number as index, and a name; found '1.5 a'"),
        ("index\tname\n1\n", "line 2: expected a whole number as index, and a name; found '1'"),
    ],
)
def test_a_damaged_table_is_named(text, message):
    put("dseg.tsv", text=text)
    with pytest.raises(rwtool.RwtoolError) as found:
        read_table(Path("dseg.tsv"))
    mend = "mend it, move it away, or give classes=(0, 1, ...)"
    assert str(found.value) == f"dseg.tsv: cannot be read as a table of labels: {message}; {mend}"


@pytest.mark.parametrize("source", ["b", "b/sub-*/**/*_dseg.nii.gz"])
def test_the_classes_are_those_of_the_files_named_by_the_table(here, source):
    save("b/sub-1/anat/sub-1_dseg.nii.gz", 1)
    save("b/sub-2/ses-1/anat/sub-2_ses-1_dseg.nii.gz", 2, 5)
    save("b/sub-2/ses-1/anat/sub-2_ses-1_desc-brain_mask.nii.gz", 1)
    put("b/dseg.tsv")
    found = plan_dataset(source, jobs=1, verbosity=-1)
    assert list(found.files) == ["sub-1", "sub-2_ses-1"]
    assert found.classes.values == (0, 1, 2, 5)
    assert found.classes.names == ("Nothing", "Grey matter", "White matter", "5")
    assert found.classes.source == f"the values in the label files, named by {here}/b/dseg.tsv"


def test_predictions_that_call_a_value_something_else_are_noted(here):
    put("a/dseg.tsv")
    put("b/dseg.tsv", text="index\tname\n1\tGREY MATTER\n2\tCerebellum\n")
    classes = make_classes([0, 1, 2], names={1: "Grey matter", 2: "White matter"})
    assert warn_of_names(classes, [Path("a/sub-1_dseg.nii.gz")]) is None
    assert warn_of_names(make_classes([0, 1, 2]), [Path("b/sub-1_dseg.nii.gz")]) is None
    assert warn_of_names(classes, [Path("b/sub-1_dseg.nii.gz")]) == (
        f"{here}/b/dseg.tsv calls label 2 'Cerebellum', which is 'White matter' in the reference; if these are two "
        "structures, the numbers are of different ones"
    )


def test_evaluate_takes_derivatives_by_folder_and_by_glob(here):
    for k in (1, 2):
        save(f"ref/sub-{k}/anat/sub-{k}_dseg.nii.gz", 1, 2)
        save(f"mine/sub-{k}/anat/sub-{k}_desc-mine_dseg.nii.gz", 1, 2)
    put("ref/dseg.tsv")
    put("mine/dseg.tsv", text="index\tname\n1\tCortex\n")
    for arguments in (("ref", "mine"), ("ref/sub-*/**/*_dseg.nii.gz", "mine=mine/sub-*/**/*_dseg.nii.gz")):
        found = rwtool.evaluate(*arguments, metrics=["dice"], jobs=1)
        assert {(row.case, row.class_name, row.value) for row in found.rows} == {
            (f"sub-{k}", name, 1.0) for k in (1, 2) for name in ("Grey matter", "White matter")
        }
        assert "calls label 1 'Cortex'" in found.evaluation.plan.dataset.notes[0]


def test_a_field_without_an_end_is_one_readable_line(here):
    put("dseg.tsv", text=f"index\tname\n1\t{'x' * 200_000}\n")
    with pytest.raises(rwtool.RwtoolError, match=r"dseg\.tsv: cannot be read as a table of labels: field larger than"):
        read_table(Path("dseg.tsv"))
