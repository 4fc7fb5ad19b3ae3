"""Maps, files to files: the recipe of the paper's code in 3D against `rwtool maps`.

    python tests/benchmarks/bench_maps.py LABELS [--jobs 2] [--repeat 3] [--cases N]

The recipe: nibabel, one scipy distance transform per class, a K-channel float32 .nii.gz written by nibabel, joblib with
the same number of processes. Both sides run in turn, so that a machine's mood meets both. Prints median seconds, the
ratios, and the peak of resident memory per voxel of one process; stops if the two wrote different numbers.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import joblib
import nibabel as nib
import numpy as np
from peers import recipe

from rwtool.datasets.cases import find_cases

PEAK = "; print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"


def run_recipe(cases, folder, jobs, n_classes, kind):
    joblib.Parallel(n_jobs=jobs)(
        joblib.delayed(recipe)(path, folder / f"{name}.nii.gz", n_classes, kind) for name, path in cases.items()
    )


def run_rwtool(labels, folder, jobs, classes, *options):
    command = [sys.executable, "-m", "rwtool", "maps", str(labels), str(folder), "-q", "-j", str(jobs)]
    subprocess.run([*command, "--units", "voxel", "--classes", classes, *options], check=True)


def peak_bytes(code):
    """Peak resident memory of a fresh interpreter that runs some code."""
    return int(subprocess.run([sys.executable, "-c", code + PEAK], check=True, capture_output=True).stdout) * 1024


def seconds(function, *arguments):
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def same_numbers(ours, theirs):
    a, b = (np.asarray(nib.load(path).dataobj) for path in (ours, theirs))
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--cases", type=int, help="only the first N")
    parser.add_argument("--classes", default="0,1,2")
    parser.add_argument("--kind", choices=["rrw", "boundary"], default="rrw")
    options = parser.parse_args()
    n_classes = len(options.classes.split(","))
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        labels = root / "labels"
        labels.mkdir()
        for path in list(find_cases(options.labels).values())[: options.cases]:
            shutil.copy(path, labels)
        cases = find_cases(labels)
        voxels = {case: int(np.prod(nib.load(path).shape)) for case, path in cases.items()}
        print(f"{len(cases)} cases, {sum(voxels.values()):,} voxels, {n_classes} classes, {options.jobs} processes")
        sides = {"recipe": [], "dense .nii.gz": []}
        kind = ("--kind", options.kind)
        if options.kind == "rrw":
            sides["packed .npy"] = []
        for _ in range(options.repeat):
            for side, times in sides.items():
                folder = root / side.replace(" ", "")
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                if side == "recipe":
                    times.append(seconds(run_recipe, cases, folder, options.jobs, n_classes, options.kind))
                else:
                    extra = ("--layout", "packed", "--format", "npy") if side == "packed .npy" else ()
                    times.append(seconds(run_rwtool, labels, folder, options.jobs, options.classes, *kind, *extra))
        for case in cases:
            same_numbers(root / "dense.nii.gz" / options.kind / f"{case}.nii.gz", root / "recipe" / f"{case}.nii.gz")
        print("both wrote the same numbers")
        for side, times in sides.items():
            ratios = [theirs / ours for theirs, ours in zip(sides["recipe"], times, strict=True)]
            print(
                f"{side:>14}: median {statistics.median(times):7.2f} s; the recipe takes "
                f"{statistics.median(ratios):.1f} times as long ({min(ratios):.1f} to {max(ratios):.1f})"
            )
        largest = max(voxels, key=voxels.get)
        source = cases[largest]
        here = Path(__file__).parent
        theirs = peak_bytes(
            f"import sys; sys.path.insert(0, {str(here)!r}); from peers import recipe; "
            f"recipe({str(source)!r}, {str(root / 'peak.nii.gz')!r}, {n_classes}, {options.kind!r})"
        )
        arguments = ["maps", str(source), str(root / "peak"), "-q", "-j", "1", "--classes", options.classes, *kind]
        ours = peak_bytes(f"from rwtool.cli import main; main({arguments!r}, standalone_mode=False)")
        print(
            f"peak of one process on {largest} ({voxels[largest]:,} voxels): recipe "
            f"{theirs / voxels[largest]:.1f} bytes per voxel, rwtool {ours / voxels[largest]:.1f}"
        )


if __name__ == "__main__":
    main()
