"""Table 2 of the paper on ACDC17: eight losses on one split, three seeds each, Dice and HD in mm on the native grid.

    python tests/studies/table2.py DATA OUT [--epochs 100] [--steps-per-epoch 30] [--features 16] [--seeds 0:3]
        [--losses dice,rrw] [--more "--lr 1e-3"] [--dry-run]

DATA holds `images`, `labels` and `phases.csv` (case,group: ED or ES) of the 200 volumes of ACDC's training set. Half of
the 100 patients are trained on and half evaluated; both frames of a patient are on one side, and count as one subject
in the tests. Slices are resampled to 2 mm and cut to 112 x 112 pixels, so that a CPU trains a run in minutes to hours.
The paper trains larger networks on finer slices, so these are not its numbers with other digits.

Every step is a command of rwtool, printed before it runs, and can be stopped: the same line goes on. OUT gets

    runs/<method>/seed-N   the runs, with HD by epoch in metrics.csv
    results/               means.csv (Table 2), tests.csv, cases.csv, report.html: against Dice loss, by phase
    convergence/           which runs collapsed: convergence.csv, seeds.csv, epochs.csv, convergence.png
    study.json             the commands, machine, versions and time, and runs that have no predictions

A run whose loss was not finite has no predictions: it is left out of results/, and stands in convergence/ and
study.json.
"""

import argparse
import datetime
import json
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path

METHODS = {
    "dice": ["--loss", "dice"],
    "ce": ["--loss", "ce"],
    "focal": ["--loss", "focal"],
    "wce-rrw": ["--loss", "wce-rrw"],
    "boundary-dice-gradual": ["--loss", "boundary", "--with", "dice", "--mix", "gradual"],
    "ac": ["--loss", "ac"],
    "hd": ["--loss", "hd"],
    "rrw": ["--loss", "rrw"],
}
SUBJECT = "patient[0-9]+"
NAMES = "1=RV,2=MYO,3=LV"
GRID = ["--target-spacing", "2", "2", "--patch", "112", "112"]


def train_command(method, settings):
    """The training of all seeds of a method, begun or gone on with."""
    data, out = settings.data, settings.out
    length = ["--epochs", settings.epochs, "--seeds", settings.seeds, "--features", settings.features]
    if settings.steps_per_epoch is not None:
        length += ["--steps-per-epoch", settings.steps_per_epoch]
    return [
        "train", data / "images", data / "labels", out / "runs" / method, *METHODS[method], *GRID, *length,
        "--subject", SUBJECT, "--validate-hd", *shlex.split(settings.more), "--resume", "--quiet",
    ]  # fmt: skip


def compare_commands(runs, settings):
    """The tables over the runs of each method: those with predictions, and all of them."""
    data, out = settings.data, settings.out
    sources = [f"{method}={','.join(map(str, folders))}" for method, folders in runs.items() if folders]
    return [
        ["evaluate", data / "labels", *sources, "-o", out / "results", "--permutation-test", "--subject", SUBJECT,
         "--group", data / "phases.csv", "--class-names", NAMES],
        ["convergence", *(out / "runs" / method for method in runs), "-o", out / "convergence"],
    ]  # fmt: skip


def finished_runs(methods, out):
    """The folders of each method's runs that have predictions, and those that have none."""
    runs, left_out = {}, []
    for method in methods:
        folders = sorted((out / "runs" / method).glob("seed-*"), key=lambda folder: int(folder.name[5:]))
        runs[method] = [folder for folder in folders if (folder / "predictions").is_dir()]
        left_out += [str(folder) for folder in folders if folder not in runs[method]]
    return runs, left_out


def run(command, commands, *, dry=False, allowed=(0,)):
    """Run a command of rwtool, and keep it."""
    words = ["rwtool", *map(str, command)]
    commands.append(shlex.join(words))
    print(f"$ {commands[-1]}", flush=True)
    if not dry:
        code = subprocess.run([sys.executable, "-m", *words], check=False).returncode
        if code not in allowed:
            sys.exit(code)


def write_study(out, settings, commands, left_out, begun):
    """Where the numbers come from."""
    version = subprocess.run([sys.executable, "-m", "rwtool", "--version"], capture_output=True, text=True, check=True)
    content = {
        "commands": commands,
        "seeds": settings.seeds,
        "without_predictions": left_out,
        "rwtool": version.stdout.strip(),
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {platform.system()}, {os.cpu_count()} cores",
        "begun": begun.isoformat(timespec="seconds"),
        "ended": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
    (out / "study.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def parse(words=None):
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--steps-per-epoch", type=int)
    parser.add_argument("--features", type=int, default=16)
    parser.add_argument("--seeds", default="0:3")
    parser.add_argument("--losses", default=",".join(METHODS), help="some of the methods, with commas")
    parser.add_argument("--more", default="", help="further options of rwtool train, for every loss")
    parser.add_argument("--dry-run", action="store_true", help="print the commands alone")
    settings = parser.parse_args(words)
    settings.losses = settings.losses.split(",")
    if unknown := [name for name in settings.losses if name not in METHODS]:
        parser.error(f"--losses: {unknown[0]!r} is not one of {', '.join(METHODS)}")
    return settings


def main():
    """Train what is missing, and compare."""
    settings, commands = parse(), []
    begun = datetime.datetime.now(datetime.timezone.utc)
    for method in settings.losses:  # 1: a run failed, which costs no other
        run(train_command(method, settings), commands, dry=settings.dry_run, allowed=(0, 1))
    runs, left_out = finished_runs(settings.losses, settings.out)
    for command in compare_commands(runs, settings):
        run(command, commands, dry=settings.dry_run)
    if not settings.dry_run:
        write_study(settings.out, settings, commands, left_out, begun)


if __name__ == "__main__":
    main()
