import itertools
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from cohorts import FILES, QUICK, discs, metrics, names_in, save, weights, words, write_cohort
from commands import run, said

from rwtool.metrics.measures import evaluate_labels
from rwtool.network.checkpoint import load_checkpoint
from rwtool.network.config import TrainConfig, read_config
from rwtool.training import seeds
from rwtool.training.loop import DivergedError

torch.set_num_threads(1)

BARE = {**QUICK, "epochs": 1}


def train(cohort, folder, *options, code=0, settings=QUICK):
    return run("train", cohort / "images", cohort / "labels", folder, *words(settings), *options, code=code)


def split_of(folder):
    content = json.loads((folder / "split.json").read_text())
    assert content.pop("format") == 1
    assert content.pop("crc32")
    return content


# What it prints


def test_it_says_what_is_trained_how_far_it_is_and_what_it_came_to(cohort, tmp_path):
    result = train(cohort, tmp_path / "run", "--val-every", 1)
    lines = result.output.splitlines()
    assert lines[:4] == [
        "3 classes: 0 background, 1, 2 (from the values in the label files)",
        "slice axis: file axis 2",
        "3 cases to train on (12 slices), 3 to validate on; 1 channel",
        "loss rrw on rrw maps computed now; U-Net of 2 stages from 4 features, patches of 20 x 24, 4 a step, amp off",
    ]
    first, second = [line for line in lines if line.startswith("epoch ")]
    form = r"epoch {}/2  loss 0\.\d{{4}}  Dice (0\.\d{{3}}) \(1 (0\.\d{{3}}), 2 (0\.\d{{3}})\)  \d+ slices/s{}"
    assert re.fullmatch(form.format(1, r"  left \d+ min \d\d s"), first)
    shown = re.fullmatch(form.format(2, ""), second).groups()
    found = {name: float(value) for name, value in metrics(tmp_path / "run")[1].items()}
    assert shown == tuple(f"{found[name]:.3f}" for name in ("dice", "dice_1", "dice_2"))
    assert f"{tmp_path / 'run'}: validation in 3D, 3 cases, mean (distances over the ok cases)" in said(result)
    validation = json.loads((tmp_path / "run" / "run.json").read_text())["validation"]
    for entry in validation:
        row = [f"{entry['dice']:.3f}", f"{entry['hd95_mm']:.2f}", f"{entry['hd_mm']:.2f}", "3", "0", "0", "0"]
        assert [str(entry["label"]), *row] in [line.split() for line in lines]
    assert lines[-1] == f"next: rwtool evaluate {cohort / 'labels'} {tmp_path / 'run'}"


def test_a_terminal_gets_a_live_line(cohort, tmp_path, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    seconds = itertools.count()  # one passes with each look at the clock
    monkeypatch.setattr("rwtool.training.display.time", SimpleNamespace(perf_counter=lambda: next(seconds)))
    output = train(cohort, tmp_path / "run", "--val-every", 2, settings={**QUICK, "epochs": 4}).output
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output)
    scores = r"Dice 0\.\d{3} \(1 0\.\d{3}, 2 0\.\d{3}\)"
    assert re.findall(rf"epoch (\d)/4  loss 0\.\d{{4}}  {scores}", plain) == ["2", "4"]
    # which steps are drawn is up to the refreshing thread, but the last one always is; the clock is looked at twice in
    # a step of four slices
    assert re.search(r"epoch 4/4  loss 0\.\d{4}  Dice 0\.\d{3}  2 slices/s", plain)


def test_quiet_prints_nothing(cohort, tmp_path):
    assert train(cohort, tmp_path / "run", "-q", settings=BARE).output == ""
    assert names_in(tmp_path / "run") == FILES


# Without arguments


def test_a_whole_study_without_arguments(tmp_path, monkeypatch):
    write_cohort(tmp_path)
    monkeypatch.chdir(tmp_path)
    run("maps", "labels", "maps", "-j", 1, "-q")
    result = run("train", *words(QUICK))
    assert "loss rrw on rrw maps from maps/rrw;" in result.output
    assert result.output.endswith("next: rwtool evaluate labels runs/rrw\n")
    assert "loss dice; U-Net" in run("train", "--loss", "dice", *words(QUICK)).output
    result = run("train", "--loss", "boundary", "--with", "ce", "--mix", "gradual", *words(QUICK))
    assert "loss boundary-ce-gradual on boundary maps computed now;" in result.output
    assert names_in(tmp_path / "runs") == {"boundary-ce-gradual", "dice", "rrw"}
    result = run("evaluate", "--permutation-test", "-j", 1)
    assert "3 cases, 3 methods" in result.output
    assert "boundary-ce-gradual" in result.output
    assert "the 3 validation cases" in said(result)
    result = run("train", *words(QUICK), code=2)
    assert "runs/rrw holds a run; --resume goes on with it" in said(result)


def test_folders_that_are_not_there_are_named(cohort, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "no IMAGES given, and there is no folder ./images; name the folder" in run("train", code=2).output
    (tmp_path / "images").mkdir()
    assert "no LABELS given, and there is no folder ./labels; name the folder" in run("train", code=2).output
    result = run("train", cohort / "images", cohort / "labels", code=2)
    assert "name the folders LABELS and RUN too: rwtool train IMAGES LABELS RUN" in result.output
    assert "no such file or folder" in run("train", "nowhere", cohort / "labels", "run", code=2).output
    assert "images: no volumes found in this folder" in run("train", "images", cohort / "labels", "run", code=2).output


# Several seeds


def test_seeds_are_runs_of_one_method_that_evaluate_averages(cohort, tmp_path):
    result = train(cohort, tmp_path / "unet", "--seeds", "0,1")
    assert names_in(tmp_path / "unet") == {"seed-0", "seed-1"}
    folders = [tmp_path / "unet" / f"seed-{seed}" for seed in (0, 1)]
    assert all(f"{folder}: validation in 3D, 3 cases" in said(result) for folder in folders)
    assert split_of(folders[0]) == split_of(folders[1])
    assert weights(folders[0]) != weights(folders[1])
    result = run("evaluate", cohort / "labels", tmp_path / "unet", "--format", "json", "-j", 1, "-q")
    content = json.loads(result.stdout)
    assert content["methods"] == {"unet": {"runs": ["seed-0", "seed-1"]}}
    found = {entry["class"]: entry["spread"]["mean"] for entry in content["means"] if entry["metric"] == "dice"}
    runs = [json.loads((folder / "run.json").read_text())["validation"] for folder in folders]
    for k, label in enumerate((1, 2)):
        assert found[label] == pytest.approx(np.mean([validation[k]["dice"] for validation in runs]))


def test_more_than_three_runs_are_one_table_and_a_failed_one_is_named(cohort, tmp_path, monkeypatch):
    trained = seeds.train_run

    def train_run(run, checkpoint, *arguments, **options):
        if checkpoint.config.seed == 2:
            raise DivergedError("the loss became nan in step 1 of epoch 1; try a lower lr=", 1, 1)
        return trained(run, checkpoint, *arguments, **options)

    monkeypatch.setattr(seeds, "train_run", train_run)
    result = train(cohort, tmp_path, "--seeds", "0:5", "-j", 1, code=1, settings=BARE)
    lines = result.stdout.splitlines()
    assert "validation in 3D: mean Dice by run" in lines
    rows = [line.split() for line in lines if line.split()[:1] and line.split()[0].startswith(str(tmp_path / "seed"))]
    assert [row[0] for row in rows] == [str(tmp_path / f"seed-{seed}") for seed in (0, 1, 3, 4)]
    for folder, *shown in rows:
        (found,) = metrics(Path(folder))
        assert shown == [f"{float(found[name]):.3f}" for name in ("dice", "dice_1", "dice_2")]
    assert "1 of 5 runs failed:" in result.stderr
    assert f"{tmp_path / 'seed-2'}: the loss became nan in step 1 of epoch 1; try a lower --lr" in said(result)
    assert lines[-2:] == [
        f"next: rwtool evaluate {cohort / 'labels'} {tmp_path}",
        f"next: rwtool convergence {tmp_path}",
    ]
    assert "seed-4  epoch 1/1" in result.stderr
    result = train(cohort, tmp_path, "--seeds", "0:5", "--resume", code=1, settings=BARE)
    assert "(it was so before; --overwrite starts anew)" in said(result)


def test_runs_that_collapsed_are_named_with_what_evaluates_the_others(cohort, tmp_path, monkeypatch):
    collapsed = {tmp_path / "unet" / f"seed-{seed}" for seed in (1, 2)}
    monkeypatch.setattr("rwtool.training.study.find_collapsed", lambda folders: collapsed & set(folders))
    result = train(cohort, tmp_path / "unet", "--seeds", "0,1", "--again", 2, "-j", 1, settings=BARE)
    assert names_in(tmp_path / "unet") == {"seed-0", "seed-1", "seed-2", "seed-3"}
    one, two, zero, three = (tmp_path / "unet" / f"seed-{seed}" for seed in (1, 2, 0, 3))
    assert (
        f"note: 2 of 4 runs collapsed: {one}, {two}; without them: rwtool evaluate {cohort / 'labels'} "
        f"unet={zero},{three}"
    ) in said(result)


@pytest.mark.parametrize(
    ("mixture", "helps"),
    [
        ((), "a longer training, or --with dice --mix gradual for the loss of a map"),
        (("--with", "dice"), "a longer training"),
    ],
)
def test_a_class_that_is_never_found_is_named(cohort, tmp_path, monkeypatch, mixture, helps):
    real = evaluate_labels

    def without_class_2(reference, prediction, *arguments, **keywords):
        return real(reference, np.where(prediction == 2, 0, prediction), *arguments, **keywords)

    monkeypatch.setattr("rwtool.training.validation.evaluate_labels", without_class_2)
    result = train(cohort, tmp_path / "run", *mixture, settings=BARE)
    expected = (
        f"note: class 2 is found in no validation case that has it, by {tmp_path / 'run'}; what may help is {helps} "
        "(rwtool help paper)"
    )
    assert expected in said(result)
    assert "class 1 is found in no" not in said(result)
    quiet = train(cohort, tmp_path / "quiet", "--quiet", *mixture, settings=BARE)
    assert quiet.output == ""


def test_what_is_asked_for_beside_reaches_the_run(cohort, tmp_path):
    options = ["--steps-per-epoch", 2, "--pixels", 16, 20, "--ema", 0.9, "--checkpoint-every", 1, "--validate-hd"]
    train(cohort, tmp_path / "run", *options, "--lr-schedule", "cosine", "-q", settings=BARE)
    assert load_checkpoint(tmp_path / "run" / "last.pt").config == TrainConfig(
        **BARE, patch=(16, 20), steps_per_epoch=2, pixels=(16, 20), ema=0.9, checkpoint_every=1, validate_hd=True,
        lr_schedule="cosine",
    )  # fmt: skip
    result = train(cohort, tmp_path / "run", "--ema", 0.5, "--resume", code=2, settings=BARE)
    assert "these differ: --ema 0.5 (it was 0.9); leave them out" in said(result)


# Settings from a file


def test_a_run_repeats_from_its_own_config(cohort, tmp_path):
    train(
        cohort,
        tmp_path / "a",
        "--seed",
        3,
        "--target-spacing",
        1.2,
        1.2,
        "--loss",
        "ac",
        "--ac-lambda",
        2,
        "--no-augment",
    )
    config = tmp_path / "a" / "config.toml"
    run("train", cohort / "images", cohort / "labels", tmp_path / "b", "--config", config)
    assert weights(tmp_path / "a") == weights(tmp_path / "b")
    assert config.read_text() == (tmp_path / "b" / "config.toml").read_text()


def test_the_command_line_wins_over_the_file(cohort, tmp_path):
    path = tmp_path / "settings.toml"
    path.write_text('loss = "hd"\nwith = "ce"\nepochs = 50\nbatch-size = 4\nfeatures = 4\ndepth = 2\naugment = true\n')
    options = ["--config", path, "--epochs", 1, "--loss", "boundary", "--no-augment", "--amp", "off"]
    run("train", cohort / "images", cohort / "labels", tmp_path / "run", *options)
    assert TrainConfig(**read_config(tmp_path / "run" / "config.toml")) == TrainConfig(
        loss="boundary", mixed_with="ce", epochs=1, batch_size=4, features=4, depth=2, amp="off", augment=False,
        patch=(20, 24),
    )  # fmt: skip


def test_seeds_and_split_win_over_the_config_of_a_run(cohort, tmp_path):
    train(cohort, tmp_path / "a", "--seed", 5, "--split-seed", 3, settings=BARE)
    again = ["train", cohort / "images", cohort / "labels", tmp_path / "b", "--config", tmp_path / "a" / "config.toml"]
    run(*again, "--seeds", "5,6", "--split", tmp_path / "a" / "split.json")
    assert weights(tmp_path / "b" / "seed-5") == weights(tmp_path / "a")
    assert load_checkpoint(tmp_path / "b" / "seed-6" / "last.pt").config.seed == 6
    run(*again, "--seeds", "5,6", "--split", tmp_path / "a" / "split.json", "--resume")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lr = ", "cannot be read as TOML"),
        ("rate = 1", "'rate' is no setting; the settings are ac_lambda, amp, "),
        ('epochs = "5"', "a setting is wrong: $.epochs: expected int, found '5'; mend it"),
        ("val = 1.5", "--val 1.5 is not a share of the subjects, at least 0 and less than 1"),
    ],
)
def test_a_file_of_wrong_settings_is_refused(cohort, tmp_path, text, expected):
    path = tmp_path / "settings.toml"
    path.write_text(text)
    assert expected in said(train(cohort, tmp_path / "run", "--config", path, code=2))
    assert not (tmp_path / "run").exists()


# Split


def test_a_split_file_and_the_folds_of_nnunet(cohort, tmp_path):
    folds = [
        {"train": ["case_0", "case_1"], "val": ["case_2"]},
        {"train": ["case_5", "case_4", "case_3"], "val": ["case_1"]},
    ]
    path = tmp_path / "splits_final.json"
    path.write_text(json.dumps(folds))
    for number, name in enumerate((path, f"{path}:1")):
        folder = tmp_path / str(number)
        result = train(cohort, folder, "--split", name, settings=BARE)
        assert split_of(folder) == {part: sorted(names) for part, names in folds[number].items()}
        assert names_in(folder / "predictions") == {f"{folds[number]['val'][0]}.nii.gz"}
    assert "3 cases to train on (12 slices), 1 to validate on" in result.output
    assert "there is no fold 2; it holds 2" in train(cohort, tmp_path / "2", "--split", f"{path}:2", code=2).output
    result = train(cohort, tmp_path / "2", "--split", path, "--val", 0.2, code=2)
    assert "--split names the cases of each part, so --val has no meaning; drop one" in said(result)


def test_val_and_split_seed_draw_the_split_and_seed_does_not(cohort, tmp_path):
    options = {"plain": [], "seed": ["--seed", 9], "val": ["--val", 0.2], "split": ["--split-seed", 1]}
    for name, option in options.items():
        train(cohort, tmp_path / name, *option, "-q", settings=BARE)
    assert split_of(tmp_path / "seed") == split_of(tmp_path / "plain")
    assert split_of(tmp_path / "split") != split_of(tmp_path / "plain")
    assert len(split_of(tmp_path / "val")["val"]) == 1


def test_val_0_says_that_nothing_was_validated(cohort, tmp_path):
    result = train(cohort, tmp_path / "run", "--val", 0, settings=BARE)
    assert f"{tmp_path / 'run'}: trained on all cases, without validation" in result.output
    assert "6 cases to train on (24 slices), 0 to validate on" in result.output
    assert "next:" not in result.output


def test_a_split_that_may_part_the_scans_of_a_subject_is_warned_of(cohort, tmp_path):
    scans = write_cohort(tmp_path, names=[f"p{subject}_T{visit}" for subject in (1, 2, 3) for visit in (1, 2)])
    plain = train(scans, tmp_path / "a", settings=BARE)
    assert "the cases look like several scans of some subjects" in said(plain)
    assert "use --subject '^(p[0-9]+)'" in said(plain)
    grouped = train(scans, tmp_path / "b", "--subject", "^(p[0-9]+)", settings=BARE)
    assert "several scans" not in grouped.output
    assert "several scans" not in train(cohort, tmp_path / "c", settings=BARE).output


def test_scans_of_a_subject_stay_together(tmp_path):
    cohort = write_cohort(tmp_path, names=["p1_a", "p1_b", "p2_a", "p2_b", "p3_a", "p3_b"])
    for seed in range(3):
        train(cohort, tmp_path / str(seed), "--subject", "p[0-9]", "--split-seed", seed, "-q", settings=BARE)
        split = split_of(tmp_path / str(seed))
        train_on, val = ({name[:2] for name in split[part]} for part in ("train", "val"))
        assert not train_on & val
        assert len(split["train"]) + len(split["val"]) == 6
    result = train(cohort, tmp_path / "other", "--subject", "case_", code=2)
    assert "the subject regex 'case_' finds no subject in 'p1_a'" in said(result)


# A run that is there


def test_a_run_is_refused_then_resumed_then_overwritten(cohort, tmp_path):
    folder = tmp_path / "run"
    train(cohort, folder, "--loss", "dice", "-q")
    before = weights(folder)
    refused = f"{folder} holds a run; --resume goes on with it, --overwrite starts anew, or name another RUN"
    assert refused in said(train(cohort, folder, code=2))
    result = train(cohort, folder, "--resume")  # the loss is that of the run
    assert result.output == f"{folder}: finished already\nnext: rwtool evaluate {cohort / 'labels'} {folder}\n"
    result = train(cohort, folder, "--resume", "--loss", "rrw", code=2)
    assert "these differ: --loss rrw (it was dice); leave them out, or start another RUN" in said(result)
    assert weights(folder) == before
    train(cohort, folder, "--overwrite", "-q")
    assert load_checkpoint(folder / "last.pt").config.loss == "rrw"


# Wrong use, and what goes wrong


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--device", "cuda:99"], "--device cuda:99: PyTorch finds"),
        (["--device", "nonsense"], "--device nonsense is not auto, cpu, cuda or cuda:i"),
        (["--resume", "--overwrite"], "--resume goes on with a run and --overwrite starts anew; give one of them"),
        (["--seed", 1, "--seeds", "1,2"], "--seed and --seeds exclude each other"),
        (["--seeds", "1,0:2"], "each seed stands once; found 1 twice in '1,0:2'"),
        (
            ["--seeds", "1;2"],
            "'--seeds': it is different numbers with commas, such as 0,1,2, and 0:50 for 0 to 49; found",
        ),
        (
            ["--loss", "dise"],
            "'dise' is not one of 'rrw', 'boundary', 'ac', 'hd', 'skeleton', 'matrix', 'dice', 'focal', 'ce', ",
        ),
        (["--loss", "dice", "--with", "ce"], "--with ce mixes a map loss (rrw, boundary, ac, hd, skeleton, "),
        (["--mix", "gradual"], "--mix gradual belongs to a mixture; give --with dice or --with ce too"),
        (["--with", "ce", "--schedule", "authors"], "--schedule authors belongs to --mix gradual; give that too"),
        (["--ac-lambda", 1], "--ac-lambda 1 belongs to --loss ac; found --loss rrw"),
        (["--epochs", 0], "--epochs 0 is not at least 1"),
        (["--lr", 0], "--lr 0 is not a positive number"),
        (["--lr", "nan"], "--lr nan is not a positive number"),
        (["--val", 1], "--val 1 is not a share of the subjects, at least 0 and less than 1"),
        (["--patch", 0, 4], "--patch 0 4 is not two positive numbers, (y, x)"),
        (["--depth", 6], "--depth 6 leaves a single pixel of a patch of 32 x 32 at the last stage"),
        (["--classes", "1,2"], "holds 0 (the background"),
        (["--maps", "LABELS"], "no rrw maps (found none); make them with rwtool maps LABELS"),
        (["--split", "LABELS"], "cannot be read as a split"),
        (["--spacing", 1, 1, 1], "carries its own"),
    ],
)
def test_wrong_use_is_one_readable_said(cohort, tmp_path, options, expected):
    options = [str(cohort / "labels") if word == "LABELS" else word for word in options]
    result = train(cohort, tmp_path / "run", *options, code=2)
    assert expected in said(result)
    assert not (tmp_path / "run").exists()


def test_nan_and_inf_are_errors_of_one_line(tmp_path):
    cohort = write_cohort(tmp_path)
    result = train(cohort, tmp_path / "run", "--lr", 1e30, code=1)
    assert "Error: the loss became nan in step 2 of epoch 1, with slices of case_" in said(result)
    assert "try a lower --lr, --amp off, or --normalize zscore" in said(result)
    image = discs(1)[0].astype(np.float32)
    image[3, 19, 23] = -np.inf
    save(cohort / "images" / "case_1.nii.gz", image)
    result = train(cohort, tmp_path / "other", code=1)
    assert "case_1.nii.gz: expected finite intensities; found -inf at (z, y, x) = (3, 19, 23)" in said(result)


def test_an_image_on_another_grid_than_its_labels_is_refused(tmp_path):
    cohort = write_cohort(tmp_path)
    affine = np.diag([0.8, 1.5, 4, 1.0])
    save(cohort / "images" / "case_1.nii.gz", discs(1)[0], affine=affine)
    result = train(cohort, tmp_path / "run", code=1)
    assert "case_1.nii.gz: it lies on another grid than its labels" in said(result)
    (cohort / "images" / "case_1.nii.gz").unlink()
    result = train(cohort, tmp_path / "run", code=2)
    assert "no image for case_1; expected files named as their labels, or with _0000, _0001" in said(result)


def test_classes_and_an_ignored_label_are_those_of_the_options(cohort, tmp_path):
    result = train(cohort, tmp_path / "run", "--classes", "0,1,5", "--ignore", 2, settings=BARE)
    assert "3 classes: 0 background, 1, 5 (from --classes)" in result.output
    assert load_checkpoint(tmp_path / "run" / "last.pt").task.classes.ignore == 2
    assert [entry["label"] for entry in json.loads((tmp_path / "run" / "run.json").read_text())["validation"]] == [1, 5]
    result = train(cohort, tmp_path / "other", "--classes", "0,1", code=1)
    assert "is not in the class list 0, 1" in said(result)


def test_what_is_read_from_disk_is_said_in_one_line(cohort, tmp_path):
    run_of = tmp_path / "run"
    words = ("train", cohort / "images", cohort / "labels", run_of, "--features", 4, "--depth", 2, "--epochs", 1)
    result = run(*words, "--cache-budget", "10kB")
    (line,) = [line for line in result.output.splitlines() if "cache" in line]
    expected = f"36.5 kB of the cases' 46.1 kB are read from a cache file in {run_of}, which goes at the end"
    assert line == f"{expected}; the others are in memory"
    assert "cache" not in run(*words, "--overwrite").output
    assert "'--cache-budget': it is a size" in run(*words, "--cache-budget", "much", code=2).output


def test_npy_files_take_their_spacing_from_the_option(tmp_path):
    for index in range(4):
        for folder, array in zip(("images", "labels"), discs(index), strict=True):
            (tmp_path / folder).mkdir(exist_ok=True)
            np.save(tmp_path / folder / f"case_{index}.npy", array)
    result = train(tmp_path, tmp_path / "run", code=2)
    assert "an .npy file carries no spacing; give " in said(result)
    train(tmp_path, tmp_path / "run", "--spacing", 4, 1.5, 0.8)
    nifti = write_cohort(tmp_path / "nifti", names=[f"case_{index}" for index in range(4)])
    train(nifti, tmp_path / "other")
    assert weights(tmp_path / "run") == weights(tmp_path / "other")
    for path in (tmp_path / "run" / "predictions").iterdir():
        assert np.load(path).shape == discs(0)[1].shape
