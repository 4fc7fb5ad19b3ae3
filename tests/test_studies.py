"""The studies call commands that exist, with options that these have; no study runs here, for they take hours."""

import importlib
import json
import re
import shlex
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from rwtool import boundary_map, gradient_signs, packed_region_wise_loss, rrw_map
from rwtool.cli import main

STUDIES = Path(__file__).parent / "studies"
NAMES = ["convergence", "dims", "gradients", "rates", "table2"]
IN_PROCESS = "temperature"  # what no option can say


@pytest.fixture(params=NAMES)
def study(request, monkeypatch):
    return imported(request.param, monkeypatch)


def imported(name, monkeypatch):
    monkeypatch.syspath_prepend(str(STUDIES))
    return importlib.import_module(name)


def cohort(folder):
    """Data whose files are empty: nothing here reads them."""
    (folder / "labels").mkdir(parents=True)
    for number in (1, 2, 3, 4, 5):
        for frame in ("01", "10"):
            (folder / "labels" / f"patient{number:03}_frame{frame}.nii.gz").touch()
    (folder / "phases.csv").touch()
    return folder


def dry(study, monkeypatch, capsys, *words):
    """The commands that a study would run, parsed as the program parses them."""
    monkeypatch.setattr("sys.argv", ["study", *map(str, words), "--dry-run"])
    study.main()
    lines = [shlex.split(line[2:]) for line in capsys.readouterr().out.splitlines()]
    assert all(line[0] == "rwtool" for line in lines)
    for word in {word for line in lines for word in line if word.startswith(str(words[1])) and "." not in word[-5:]}:
        Path(word).mkdir(parents=True, exist_ok=True)  # what commands before would have left
    return [(name, main.commands[name].make_context(name, words).params) for _, name, *words in lines]


def test_these_are_the_studies_and_each_says_how_it_is_run():
    assert sorted(path.stem for path in STUDIES.glob("*.py")) == sorted([*NAMES, IN_PROCESS, "common"])
    for name in [*NAMES, IN_PROCESS]:
        assert f"python tests/studies/{name}.py DATA OUT" in (STUDIES / f"{name}.py").read_text(encoding="utf-8")


def test_every_command_is_one_of_rwtool_and_every_method_another_training(study, tmp_path, monkeypatch, capsys):
    data = cohort(tmp_path / "data")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "matrix.csv").touch()
    words = ("--epochs", "5", "--seeds", "0", "--mm", "4", "--more", "--ema 0.9")
    found = dry(study, monkeypatch, capsys, data, tmp_path / "out", *words)
    trained = [options for name, options in found if name == "train"]
    assert len({str(options["run"]) for options in trained}) == len(trained) >= len(study.METHODS)
    for options in trained:
        assert (options["epochs"], options["seeds"], options["ema"]) == (5, (0,), 0.9)
        assert (options["features"], options["target_spacing"], options["patch"]) == (8, (4, 4), (56, 56))
        assert options["resume"]
        assert options["split"] == str(tmp_path / "out" / "split.json")
    same = ("run", "maps", "lr", "lr_schedule", "loss", "mixed_with", "mix")
    others = [{k: v for k, v in options.items() if k not in same} for options in trained]
    assert all(one == others[0] for one in others)
    losses = [tuple(str(options[name]) for name in same[1:]) for options in trained]
    assert len(set(losses)) == len(losses)
    for (name, options), (after, next_options) in pairwise(found):
        if name == "maps" and after == "train":
            assert next_options["maps"] == options["out"]
    assert [path.name for path in (tmp_path / "out").rglob("*.*")] == ["matrix.csv"]  # nothing ran


def test_table_2_has_the_losses_of_the_paper_and_the_later_maps(monkeypatch):
    table2 = imported("table2", monkeypatch)
    assert list(table2.PAPER) == ["dice", "ce", "focal", "wce-rrw", "boundary-dice", "ac", "hd", "rrw"]
    assert {"rrw-reversed", "rrw-exp", "rrw-instances", "skeleton-dice", "matrix"} <= set(table2.MORE)
    matrix = table2.with_files(table2.METHODS["matrix"], Path("out"))
    assert matrix.maps == "--kind matrix --matrix out/matrix.csv"
    assert table2.with_files(table2.METHODS["rrw"], Path("out")) is table2.METHODS["rrw"]


def test_the_table_says_what_is_better_in_both_phases(monkeypatch, tmp_path):
    table2 = imported("table2", monkeypatch)
    means, tests = (
        ["method,group,class_name,metric,undefined,mean"],
        ["method,group,class_name,metric,undefined,p_maxt,mean_difference"],
    )
    for phase, dice, hd in (("ED", 0.8, 10.0), ("ES", 0.6, 21.0)):
        means += [
            f"dice,{phase},RV,{metric},diagonal,{value}" for metric, value in (("dice", dice), ("hd95", 4), ("hd", hd))
        ]
        means += [
            f"rrw,{phase},RV,{metric},{rule},7" for metric in ("dice", "hd95", "hd") for rule in ("diagonal", "exclude")
        ]
        late = 0.04 if phase == "ES" else 0.06
        for metric, p, difference in (("dice", 0.01, -0.1), ("hd95", late, -3), ("hd", 0.049, -2)):
            tests.append(f"rrw,{phase},RV,{metric},diagonal,{p},{difference}")
            tests.append(f"rrw,{phase},RV,{metric},exclude,1,0")
    (tmp_path / "means.csv").write_text("\n".join(means) + "\n", encoding="utf-8")
    (tmp_path / "tests.csv").write_text("\n".join(tests) + "\n", encoding="utf-8")
    assert table2.table(tmp_path) == [
        {"method": "dice", "class": "RV", "dice": 0.7, "hd95": 4.0, "hd": 15.5, "better": "", "worse": ""},
        {"method": "rrw", "class": "RV", "dice": 7.0, "hd95": 7.0, "hd": 7.0, "better": "hd", "worse": "dice"},
    ]


def test_a_softer_softmax_is_that_of_smaller_logits(monkeypatch):
    temperature = imported("temperature", monkeypatch)
    rng = torch.Generator().manual_seed(0)
    logits, labels = torch.randn((1, 3, 4, 4), generator=rng), torch.randint(3, (1, 4, 4), generator=rng)
    own = -torch.rand((1, 4, 4), generator=rng)
    softer = temperature.softer(logits, own, labels, [1.0, 1.0, 1.0], temperature=2.0)
    assert softer == packed_region_wise_loss(logits / 2, own, labels, [1.0, 1.0, 1.0])
    assert softer != packed_region_wise_loss(logits, own, labels, [1.0, 1.0, 1.0])


def test_the_split_is_that_of_the_papers_code(monkeypatch, tmp_path):
    common = imported("common", monkeypatch)
    found = common.parser("A study.", epochs=3)
    settings = common.parse(found, {"rrw": common.Method("")}, [str(cohort(tmp_path / "data")), str(tmp_path / "out")])
    split = json.loads(common.Study(settings, subjects=2).split().read_text(encoding="utf-8"))
    assert split["train"] == [f"patient{n:03}_frame{f}" for n in (2, 4) for f in ("01", "10")]
    assert split["val"] == [f"patient{n:03}_frame{f}" for n in (1, 3) for f in ("01", "10")]


def test_runs_without_predictions_are_told_apart(monkeypatch, tmp_path):
    common = imported("common", monkeypatch)
    found = common.parser("A study.", epochs=3)
    study = common.Study(common.parse(found, {"rrw": common.Method("")}, ["data", str(tmp_path)]))
    for seed in (0, 10, 2):
        folder = tmp_path / "runs" / "rrw" / f"seed-{seed}"
        (folder if seed == 2 else folder / "predictions").mkdir(parents=True)
    done, left = study.finished("rrw")
    assert ([folder.name for folder in done], [folder.name for folder in left]) == (["seed-0", "seed-10"], ["seed-2"])


def test_an_unknown_method_is_refused(monkeypatch, tmp_path, capsys):
    table2 = imported("table2", monkeypatch)
    monkeypatch.setattr("sys.argv", ["table2", str(tmp_path), "out", "--methods", "dice,dise"])
    with pytest.raises(SystemExit):
        table2.main()
    assert re.search(r"--methods: 'dise' is not one of dice, ce, focal, wce-rrw", capsys.readouterr().err)


def test_wrong_signs_of_a_voxel_by_hand(monkeypatch):
    gradients = imported("gradients", monkeypatch)
    z = np.array([12.0, 4.0, -3.0]).reshape(3, 1)  # Section 3.4; the mean is 4 1/3, so class 1 is raised too
    two, raised, wrong, most = gradients.wrong_signs(z, np.full((3, 1), 1 / 3), np.array([2]))
    assert two.tolist() == [True]
    assert raised.tolist() == pytest.approx([(1 / 3 + 22 / 3) / 3])
    assert wrong.tolist() == pytest.approx([1 / 9])
    assert most.tolist() == [False]


@pytest.mark.parametrize("make", [rrw_map, boundary_map])
def test_wrong_signs_are_counted_as_the_check_does(monkeypatch, make):
    gradients = imported("gradients", monkeypatch)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, (3, 9, 9))
    z = make(labels, (4.0, 1.0, 1.0), n_classes=4).astype(np.float64)
    softmax = rng.dirichlet(np.ones(4), labels.shape).transpose(3, 0, 1, 2)
    two, raised, wrong, _ = gradients.wrong_signs(z, softmax, labels)
    assert two.sum() == gradient_signs(z, softmax).unstable
    assert (wrong > 0).sum() == (two.sum() if make is boundary_map else 0)
    assert (raised > 0).all()
