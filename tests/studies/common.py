"""What the studies share: the paper's split of ACDC17, a method and how it is trained, and a record of all commands.

Every step is a command of rwtool, printed before it runs, and can be stopped: the same line goes on. Trainings have one
thread each, so that their bits depend neither on the number of cores nor on how many runs are trained side by side.
"""

import argparse
import csv
import datetime
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

SUBJECT = "patient[0-9]+"
NAMES = "1=RV,2=MYO,3=LV"


@dataclass(frozen=True)
class Method:
    """Options of `rwtool train`, and of `rwtool maps` where its maps are not those that training makes by itself."""

    train: str
    maps: str | None = None


def parser(description, *, epochs, seeds="0:3", mm=4.0, batch_size=16):
    """The command line of a study, without what is its own."""
    found = argparse.ArgumentParser(description=description.splitlines()[0])
    found.add_argument("data", type=Path, help="folder of images, labels and phases.csv")
    found.add_argument("out", type=Path)
    found.add_argument("--mm", type=float, default=mm, help="pixels in the plane; 224 mm are trained on")
    found.add_argument("--grid", help="options of rwtool train in place of --mm and of the split, for other data")
    found.add_argument("--features", type=int, default=8)
    found.add_argument("--lr", default="8e-3")
    found.add_argument("--epochs", type=int, default=epochs)
    found.add_argument("--batch-size", type=int, default=batch_size)
    found.add_argument("--seeds", default=seeds)
    found.add_argument("--methods", help="some of them, with commas")
    found.add_argument("--more", default="", help="further options of rwtool train, for every method")
    found.add_argument("--jobs", type=int, default=os.cpu_count())
    found.add_argument("--train-only", action="store_true", help="leave the tables to another call")
    found.add_argument("--dry-run", action="store_true", help="print the commands alone")
    return found


def parse(found, methods, words=None):
    """Settings, with the methods that are asked for."""
    settings = found.parse_args(words)
    names = list(methods) if settings.methods is None else settings.methods.split(",")
    if unknown := [name for name in names if name not in methods]:
        found.error(f"--methods: {unknown[0]!r} is not one of {', '.join(methods)}")
    settings.methods = {name: methods[name] for name in names}
    return settings


class Study:
    """Commands on one data set, and their record in `study.json`."""

    def __init__(self, settings, *, subjects=50):
        self.settings, self.subjects = settings, subjects
        self.data, self.out = settings.data, settings.out
        self.commands, self.begun = [], now()

    def rwtool(self, *words, allowed=(0,), quiet=False):
        """Run a command, and keep it; `quiet` drops what it prints."""
        line = ["rwtool", *map(str, words)]
        self.commands.append(shlex.join(line))
        print(f"$ {self.commands[-1]}", flush=True)
        if not self.settings.dry_run:
            one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
            shown = subprocess.DEVNULL if quiet else None
            code = subprocess.run([sys.executable, "-m", *line], check=False, env=one_thread, stdout=shown).returncode
            if code not in allowed:
                sys.exit(code)

    def split(self):
        """Write the paper's split: patients of even numbers are trained on, the first of odd ones evaluated."""
        cases = sorted(path.name.removesuffix(".nii.gz") for path in (self.data / "labels").glob("patient*.nii.gz"))
        number = {case: int(re.search("patient([0-9]+)", case)[1]) for case in cases}
        odd = sorted({n for n in number.values() if n % 2})[: self.subjects]
        content = {
            "train": [case for case in cases if number[case] % 2 == 0],
            "val": [case for case in cases if number[case] in odd],
        }
        path = self.out / "split.json"
        if not self.settings.dry_run:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content), encoding="utf-8")
        return path

    def runs(self, name):
        """The folder of a method's runs."""
        return self.out / "runs" / name

    def train(self, name, method, more=""):
        """Train all seeds of a method, or go on. Exit code 1 is a run that failed, which costs no other."""
        options = self.settings
        side, mm = round(224 / options.mm), f"{options.mm:g}"
        grid = ["--split", self.split(), "--target-spacing", mm, mm, "--patch", side, side]
        if options.grid is not None:
            grid = shlex.split(options.grid)
        words = [*shlex.split(method.train), *shlex.split(options.more), *shlex.split(more)]
        if method.maps is not None:
            folder = self.out / "maps" / name
            self.rwtool("maps", self.data / "labels", folder, *shlex.split(method.maps), "--quiet")
            words += ["--maps", folder]
        self.rwtool(
            "train", self.data / "images", self.data / "labels", self.runs(name), *words, *grid,
            "--features", options.features, "--batch-size", options.batch_size, "--epochs", options.epochs,
            "--lr", options.lr, "--seeds", options.seeds, "--jobs", options.jobs, "--resume", "--quiet", allowed=(0, 1),
        )  # fmt: skip

    def finished(self, name):
        """The folders of a method's runs that have predictions, and those that have none."""
        folders = sorted(self.runs(name).glob("seed-*"), key=lambda folder: int(folder.name[5:]))
        done = [folder for folder in folders if (folder / "predictions").is_dir()]
        return done, [folder for folder in folders if folder not in done]

    def evaluate(self, sources, out, *more):
        """Compare the folders of each method with those of the first, over patients."""
        arguments = [f"{name}={','.join(map(str, folders))}" for name, folders in sources.items() if folders]
        self.rwtool(
            "evaluate", self.data / "labels", *arguments, "-o", out, "--permutation-test", "--subject", SUBJECT,
            "--class-names", NAMES, "--cases", self.split(), "--format", "json", *more, quiet=True,
        )  # fmt: skip

    def convergence(self):
        """Which runs have collapsed."""
        self.rwtool("convergence", *(self.runs(name) for name in self.settings.methods), "-o", self.out / "convergence")

    def write(self):
        """Say where the numbers come from."""
        line = [sys.executable, "-m", "rwtool", "--version"]
        version = subprocess.run(line, capture_output=True, text=True, check=True).stdout.strip()
        left_out = [str(folder) for name in self.settings.methods for folder in self.finished(name)[1]]
        content = {
            "commands": self.commands,
            "without_predictions": left_out,
            "rwtool": version,
            "python": platform.python_version(),
            "machine": f"{platform.machine()}, {platform.system()}, {os.cpu_count()} cores",
            "begun": self.begun,
            "ended": now(),
        }
        (self.out / "study.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def rows_of(path):
    """The rows of a CSV file."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_rows(path, rows):
    """Write rows of the same keys as CSV."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def now():
    """The time, to the second."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
