"""Whole commands against what does the same, start included, in turn: the table of `rwtool help speed`.

    pip install '.[bench]'
    python tests/benchmarks/bench_table.py SMALL LARGE [--jobs 2] [--repeat 3] [--rows 1,2,...]

SMALL is a folder of many small label files (.nii.gz), such as those of the Decathlon's hippocampus, LARGE one of large
ones, such as those of KiTS19. `rwtool` runs as a user types it, with its default number of processes and all its
reports; `peers.py` with as many processes as there are cores. Predictions are damaged copies of the labels, see
`bench_evaluate.py`. Stops if the two sides do not come to the same numbers. A peer that takes minutes runs once.
"""

import argparse
import csv
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import nibabel as nib
import numpy as np
from bench_edt import processor_name
from bench_evaluate import damaged

import rwtool
from rwtool.maps.core import chosen_core

HERE = Path(__file__).parent
LONG_SECONDS = 100
AGREE = {"surface-distance": {"dice": 1e-6}, "monai": {"dice": 1e-6, "hd95": 1e-3, "hd": 1e-3}}


@dataclass
class Row:
    """A command of ours, and one of theirs."""

    what: str
    ours: list
    peer: str
    theirs: list
    check: object = None


def rwtool_command(*arguments):
    return [sys.executable, "-m", "rwtool", *map(str, arguments), "-q"]


def peer_command(*arguments):
    return [sys.executable, str(HERE / "peers.py"), *map(str, arguments)]


def prepare(folder, sources, copies=1):
    """Links to label files, and damaged predictions of them; each source stands for as many cases as `copies`."""
    (folder / "labels").mkdir(parents=True)
    (folder / "predictions").mkdir()
    for index, source in enumerate(sources):
        volume = rwtool.read_labels(source)
        for copy in range(copies):
            name = source.name if copies == 1 else f"{copy}_{source.name}"
            (folder / "labels" / name).symlink_to(source.resolve())
            array = damaged(volume.array, 1000 * copy + index, miss_last=False)
            rwtool.write(folder / "predictions" / name, rwtool.Volume(array, volume.spacing_mm, volume.geometry))
    return folder


def tiny(folder):
    labels = np.zeros((12, 12, 12), np.uint8)
    labels[4:8, 4:8, 4:8] = 1
    for part, shift in (("labels", 0), ("predictions", 1)):
        (folder / part).mkdir(parents=True)
        nib.save(nib.Nifti1Image(np.roll(labels, shift, 0), np.eye(4)), folder / part / "a.nii.gz")
    return folder


def same_maps(_, theirs, ours):
    def check(printed):
        for path in theirs.iterdir():
            a, b = (np.asarray(nib.load(each).dataobj) for each in (path, ours / "rrw" / path.name))
            np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6)

    return check


def same_packed_maps(labels, theirs, ours):
    def check(printed):
        for path in theirs.iterdir():
            own = np.asarray(nib.load(path).dataobj).min(axis=-1)
            packed = np.load(ours / "rrw" / path.name.replace(".nii.gz", ".npy"), mmap_mode="r")
            geometry = rwtool.read_labels(labels / path.name).geometry
            np.testing.assert_allclose(packed, geometry.to_array(own), rtol=1e-5, atol=1e-6)

    return check


def same_metrics(peer, out):
    """Those that both define alike: of surface-distance, whose boundary lies between voxels, Dice alone."""

    def check(printed):
        with (out / "cases.csv").open(newline="") as stream:
            ours = {(row["case"], row["class"], row["metric"]): row["value"] for row in csv.DictReader(stream)}
        for line in printed.splitlines():
            case, label, *values = line.split()
            for metric, value in zip(("dice", "hd95", "hd"), values, strict=True):
                within = AGREE[peer].get(metric)
                if within is not None and value != "None":
                    np.testing.assert_allclose(float(ours[case, label, metric]), float(value), atol=within)

    return check


def evaluation(what, folder, peer, out, jobs, labels):
    """A row that evaluates a folder made by `prepare`."""
    return Row(
        what,
        rwtool_command("evaluate", folder / "labels", folder / "predictions", "-o", out),
        f"{peer} {version(peer)}",
        peer_command(peer, folder / "labels", folder / "predictions", labels, jobs),
        same_metrics(peer, out),
    )


def maps(what, labels, root, jobs, *options, check):
    out, theirs = root / "maps", root / "recipe"
    return Row(
        what,
        rwtool_command("maps", labels, out, "--units", "voxel", "--classes", "0,1,2", *options),
        f"recipe (SciPy {version('scipy')}, nibabel {version('nibabel')})",
        peer_command("recipe", labels, theirs, 3, "rrw", jobs),
        check(labels, theirs, out),
    )


def rows(root, small, large, jobs):
    """Each row as a function, so that only what is asked for is prepared."""
    files = {each: sorted(each.glob("*.nii.gz")) for each in (small, large)}
    out = root / "out"
    packed = ("--layout", "packed", "--format", "npy")

    def linked(count):
        folder = root / f"{count}-labels"
        folder.mkdir()
        for path in files[large][:count]:
            (folder / path.name).symlink_to(path.resolve())
        return folder

    def start():
        folder = tiny(root / "tiny")
        ours = rwtool_command("evaluate", folder / "labels", folder / "predictions")
        return Row(
            "evaluate, one tiny pair", ours, "import click, numpy", [sys.executable, "-c", "import click, numpy"]
        )

    def pairs(sources, copies, peer, name):
        folder = prepare(root / name, sources, copies)
        return evaluation(f"evaluate, {len(sources) * copies} pairs of {name}", folder, peer, out, jobs, "1,2")

    n_small, n_large = len(files[small]), len(files[large])
    return {
        "1": start,
        "2": lambda: pairs(files[small], 1, "surface-distance", "small"),
        "3": lambda: pairs(files[small], 1, "monai", "small"),
        "4": lambda: maps(f"maps, {n_small} small, dense .nii.gz", small, root, jobs, check=same_maps),
        "5": lambda: pairs(files[large][:6], 1, "surface-distance", "large"),
        "6": lambda: pairs(files[large], -(-24 // n_large), "surface-distance", "large"),
        "7": lambda: maps("maps, 4 large, dense .nii.gz", linked(4), root, jobs, check=same_maps),
        "8": lambda: maps("maps, 8 large, dense .nii.gz", linked(8), root, jobs, check=same_maps),
        "9": lambda: maps("maps, 8 large, packed .npy", linked(8), root, jobs, *packed, check=same_packed_maps),
    }


def clean(root):
    for name in ("out", "maps", "recipe"):
        shutil.rmtree(root / name, ignore_errors=True)
    (root / "recipe").mkdir()


def timed(command):
    start = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return time.perf_counter() - start, done.stdout


def race(row, root, repeat):
    """Seconds of both, in turn."""
    seconds = [], []
    for _ in range(repeat):
        clean(root)
        ours, _ = timed(row.ours)
        seconds[0].append(ours)
        if sum(seconds[1]) < LONG_SECONDS:
            theirs, printed = timed(row.theirs)
            seconds[1].append(theirs)
            if row.check is not None:
                row.check(printed)
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("small", type=Path)
    parser.add_argument("large", type=Path)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--rows", default="1,2,3,4,5,6,7,8,9")
    options = parser.parse_args()
    print(f"{processor_name()}, {options.jobs} cores; rwtool {rwtool.__version__} ({chosen_core()} core)\n")
    print("| work | rwtool, s | against | s | ratio |\n|---|---|---|---|---|")
    for number in options.rows.split(","):
        with tempfile.TemporaryDirectory() as name:
            root = Path(name)
            row = rows(root, options.small, options.large, options.jobs)[number]()
            timed(row.ours)  # the first start compiles
            ours, theirs = race(row, root, options.repeat)
        middle, other = statistics.median(ours), statistics.median(theirs)
        cells = (row.what, f"{middle:.2f} ({min(ours):.2f} to {max(ours):.2f})", row.peer, f"{other:.2f}")
        print(f"| {' | '.join(cells)} | {other / middle:.1f} |", flush=True)


if __name__ == "__main__":
    main()
