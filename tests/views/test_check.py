import shutil

import pytest
from cohorts import train

import rwtool


@pytest.fixture
def maps(cohort, tmp_path):
    made = rwtool.make_maps(cohort / "labels", tmp_path / "maps", kinds=("boundary",), jobs=1)
    return made.sets["boundary"].folder


def test_the_figure_is_of_the_case_with_most_wrong_signs_or_of_the_one_that_is_named(maps, tmp_path):
    checked = rwtool.check_maps(maps, figure=tmp_path / "a.png", jobs=1)
    most = max(checked.cases, key=lambda case: case.uniform.unstable + case.random.unstable)
    assert (checked.figure.case, checked.figure.path) == (most.name, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    named = rwtool.check_maps(maps, figure=tmp_path / "b.svg", case="case_4", slice=3, jobs=1).figure
    assert (named.case, named.slice) == ("case_4", 3)
    assert "boundary map, slice 3 (0 to 3)" in (tmp_path / "b.svg").read_text(encoding="utf-8")


def test_the_images_of_a_run_are_those_that_it_was_trained_from(maps, quick, tmp_path, monkeypatch):
    checked = rwtool.check_maps(maps, figure=tmp_path / "a.png", run=quick.folder, jobs=1)
    assert quick.folder.name in checked.figure.counts
    shutil.copytree(quick.folder, tmp_path / "run")
    (tmp_path / "run" / "run.json").unlink()
    with pytest.raises(rwtool.UsageError, match="where its images are is not known here; give images=FOLDER"):
        rwtool.check_maps(maps, figure=tmp_path / "b.png", run=tmp_path / "run", jobs=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"case": "case_0"}, r"case= belongs to a figure; give figure=FILE\.png too"),
        ({"slice": 0}, "slice= belongs to a figure"),
        ({"overwrite": True}, "overwrite= belongs to a figure"),
        ({"figure": "a.jpg"}, r"a figure ends in \.png"),
        ({"figure": "there.png"}, r"there\.png is there already; overwrite=True replaces it"),
        ({"figure": "a.png", "case": "x"}, "case=x: the maps are of case_0, case_1, case_2, case_3, case_4; name one"),
        ({"figure": "a.png", "slice": 4}, "has the slices 0 to 3; found slice=4"),
    ],
)
def test_what_does_not_fit_is_refused(maps, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.png").write_bytes(b"mine")
    with pytest.raises(rwtool.UsageError, match=message):
        rwtool.check_maps(maps, jobs=1, **options)
    assert not (tmp_path / "a.png").exists()
    assert (tmp_path / "there.png").read_bytes() == b"mine"


def test_a_map_that_does_not_verify_has_no_figure(maps, tmp_path):
    for path in maps.glob("case_[0-4].nii.gz"):
        path.unlink()
    assert rwtool.check_maps(maps, figure=tmp_path / "a.png", jobs=1).figure.case == "case_5"
    with pytest.raises(rwtool.RwtoolError, match=r"case_0 does not verify.*case_0\.nii\.gz is missing"):
        rwtool.check_maps(maps, figure=tmp_path / "b.png", case="case_0", jobs=1)
    (maps / "case_5.nii.gz").unlink()
    with pytest.raises(rwtool.RwtoolError, match="no map verifies, so there is no figure"):
        rwtool.check_maps(maps, figure=tmp_path / "b.png", jobs=1)


def test_the_figure_is_drawn_at_the_softmax_of_the_checkpoint_that_is_named(maps, cohort, tmp_path):
    run = train(cohort, tmp_path / "run", checkpoint_every=1, lr=0.05).folder
    found = {}
    for name, more in {
        "first": {"run": run, "checkpoint": 1},
        "file": {"run": run / "checkpoints" / "epoch-1.pt"},
        "best": {"run": run, "checkpoint": "best"},
    }.items():
        counts = rwtool.check_maps(maps, figure=tmp_path / f"{name}.png", case="case_0", slice=2, jobs=1, **more)
        found[name] = dict(list(counts.figure.counts.items())[2:])
    assert [list(counts) for counts in found.values()] == [["run epoch 1"], ["epoch-1"], ["run best"]]
    assert found["first"]["run epoch 1"] == found["file"]["epoch-1"]
    assert found["best"]["run best"] != found["first"]["run epoch 1"]
    with pytest.raises(rwtool.UsageError, match="checkpoint=1 is that of a run; give run=FOLDER too"):
        rwtool.check_maps(maps, figure=tmp_path / "x.png", checkpoint=1, jobs=1)
