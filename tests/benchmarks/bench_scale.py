"""What a case costs besides its work: thousands of tiny cases through maps, check and evaluate, first run and rerun.

    python tests/benchmarks/bench_scale.py [--cases 1000 3000 10000] [--jobs 1] [--profile STEP]

It makes cases of 12 x 12 x 8 voxels and three classes, whose own work is short, and runs each command in a process of
its own. Prints, by command and number of cases, the milliseconds a case: by the clock; and of processor time, which
other processes of the machine do not lengthen, all of it, the part that looks at files before there is anything to do,
the work itself (labels to map, map to signs, pair to numbers), and the rest, which must neither grow with the number of
cases nor pass 2 ms. The parts are known for one job alone, in whose process all is done.
"""

import argparse
import contextlib
import cProfile
import json
import os
import platform
import pstats
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path

import nibabel as nib
import numpy as np

import rwtool
from rwtool import parallel
from rwtool.cli import main as command
from rwtool.maps.core import chosen_core

SHAPE = (12, 12, 8)
STEPS = {
    "maps": ("maps", "labels", "maps"),
    "maps again": ("maps", "labels", "maps"),
    "check": ("check", "maps/rrw"),
    "evaluate": ("evaluate", "labels", "predictions", "-o", "results"),
    "evaluate again": ("evaluate", "labels", "predictions", "-o", "results"),
    "evaluate, no page": ("evaluate", "labels", "predictions", "-o", "unread", "--no-report"),
    "compare": ("compare", "results/cases.csv", "-o", "compared"),
}
LOOKS = ("_look",)


def make_cases(folder, n):
    """Label files and predictions of them: a box in a box somewhere; a prediction is off by a voxel."""
    rng = np.random.default_rng(0)
    for name in ("labels", "predictions"):
        (folder / name).mkdir()
    for case in range(n):
        labels = np.zeros(SHAPE, dtype=np.uint8)
        x, y, z = rng.integers(1, 5, 3)
        labels[x : x + 6, y : y + 6, z : z + 3] = 1
        labels[x + 1 : x + 4, y + 2 : y + 5, z + 1 : z + 2] = 2
        for name, array in (("labels", labels), ("predictions", np.roll(labels, 1, axis=case % 3))):
            nib.save(nib.Nifti1Image(array, np.diag([0.8, 0.8, 2.5, 1])), folder / name / f"case_{case:06}.nii.gz")


def timed(step, jobs, profile):
    """Seconds of a command, start and imports apart: by the clock, of the processor, and of each function of cases."""
    spent = defaultdict(float)
    attempt = parallel.attempt

    def measured(function, item):
        start = time.process_time()
        outcome = attempt(function, item)
        spent[function.__name__] += time.process_time() - start
        return outcome

    if jobs == 1:
        parallel.attempt = measured
    words = [*STEPS[step], *(["-j", str(jobs)] if step != "compare" else [])]
    profiler = cProfile.Profile()
    clock, processor = time.perf_counter(), time.process_time()
    if profile:
        profiler.enable()
    with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing):
        command(words, standalone_mode=False)
    profiler.disable()
    found = {"clock": time.perf_counter() - clock, "processor": time.process_time() - processor, "spent": spent}
    if profile:
        pstats.Stats(profiler, stream=sys.stderr).sort_stats("tottime").print_stats(30)
        pstats.Stats(profiler, stream=sys.stderr).sort_stats("cumulative").print_stats(60)
    found["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(found))


def size_of(path):
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) if path.is_dir() else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, nargs="+", default=[1000, 3000, 10_000])
    parser.add_argument("--jobs", type=int, nargs="+", default=[1])
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--profile", choices=STEPS, help="where the time of this one goes, to standard error")
    parser.add_argument("--folder", help="where to make the cases; by default a temporary folder")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        timed(options.step, options.jobs[0], options.profile == options.step)
        return
    print(
        f"rwtool {rwtool.__version__} ({chosen_core()} core), Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in ("numpy", "nibabel", "msgspec", "filelock"))
        + f"; {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}"
    )
    heads = ("clock", "processor", "looking", "work", "rest")
    print(f"{'ms a case':18} {'cases':>6} jobs {'{:>7} {:>9} {:>8} {:>6} {:>6}'.format(*heads)}")
    for n in options.cases:
        for jobs in options.jobs:
            with tempfile.TemporaryDirectory(dir=options.folder) as name:
                folder = Path(name)
                make_cases(folder, n)
                for step in options.steps:
                    measure(step, n, jobs, folder, options.profile)
                print_sizes(folder, n)


def measure(step, n, jobs, folder, profiled):
    """Run a step in a process of its own, and print a line of it."""
    words = [sys.executable, str(Path(__file__).resolve()), "--step", step, "--jobs", str(jobs)]
    words += ["--profile", profiled] if profiled else []
    done = subprocess.run(words, cwd=folder, stdout=subprocess.PIPE, encoding="utf-8", check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    clock, processor = (1000 * found[name] / n for name in ("clock", "processor"))
    looking = 1000 * sum(s for name, s in found["spent"].items() if name in LOOKS) / n
    work = 1000 * sum(s for name, s in found["spent"].items() if name not in LOOKS) / n
    parts = f"{processor:9.2f} {looking:8.2f} {work:6.2f} {processor - looking - work:6.2f}" if jobs == 1 else " " * 32
    print(f"{step:18} {n:6} {jobs:4} {clock:7.2f} {parts}  peak {found['peak'] / 1e6:.0f} MB", flush=True)


def print_sizes(folder, n):
    """What lies on the disk afterwards."""
    places = ("maps", "maps/rrw/maps.json", "results/cache", "results/cases.csv", "results/summary.json",
              "results/report.html")  # fmt: skip
    found = []
    for place in places:
        path = folder / place
        files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
        found.append(f"{place} {sum(file.stat().st_size for file in files if file.exists()) / n:.0f}")
    print("  bytes a case: " + ", ".join(found))


if __name__ == "__main__":
    main()
