"""One very large volume through maps, check and evaluate: seconds, and bytes of memory a voxel beside those foretold.

    python tests/benchmarks/bench_large.py [--mvoxels 50] [--core native|edt|both] [--kinds rrw,boundary]

Writes ellipsoids of three classes, uint8, as .nii.gz (1024 x 1024 in the plane from 500 million voxels on), and a copy
that is shifted by three voxels along each axis; each command then runs in a process of its own, on the command line.
The peak is the largest resident memory of that process (`VmHWM`, of Linux). Beside it stands what rwtool says that a
case takes, by which it refuses one that does not fit. Some voxels of the boundary map, those at the corners of the
volume among them, are compared with distances that are worked out from the labels voxel by voxel. 1,000 million voxels
take 7 GB of memory and 10 GB of disk.
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from isal import igzip

import rwtool
from rwtool.evaluation import case as evaluation_case
from rwtool.maps import check, make
from rwtool.maps.folder import read_map_set

SPACING = (1.5, 0.8, 0.8)  # (z, y, x)
SHIFT = 3
CLASSES = (0, 1, 2)
REACH = 40  # voxels around one that is looked at, at most


def shape_of(mvoxels):
    side = 1024 if mvoxels >= 500 else 500
    return max(1, round(mvoxels * 1e6 / side / side)), side, side


def slices(shape, shift):
    """Slices of two nested ellipsoids; the last voxel of all is of class 2, so that the far corner has a truth."""
    Z, Y, X = shape
    y = np.arange(Y, dtype=np.float32)[:, None] - Y / 2 - shift
    x = np.arange(X, dtype=np.float32)[None] - X / 2 - shift
    for z in range(Z):
        above = ((z - Z / 2 - shift) / (0.45 * Z)) ** 2
        labels = ((y / (0.45 * Y)) ** 2 + (x / (0.4 * X)) ** 2 + above < 1).astype(np.uint8)
        labels[(y / (0.2 * Y)) ** 2 + ((x - 0.1 * X) / (0.15 * X)) ** 2 + 4 * above < 1] = 2
        if z == Z - 1:
            labels[-1, -1] = 2
        yield labels


def write_volume(path, shape, shift):
    path.parent.mkdir(parents=True)
    header = nib.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape(shape[::-1])
    header.set_xyzt_units("mm")
    affine = np.diag([*SPACING[::-1], 1.0])
    header.set_sform(affine, 1)
    header.set_qform(affine, 1)
    with igzip.open(path, "wb", 1) as stream:
        header.write_to(stream)
        for labels in slices(shape, shift):
            stream.write(labels.tobytes())


@dataclass(frozen=True)
class Took:
    """What a command took."""

    seconds: float
    peak: int


COMMAND = """
import re, sys, pathlib
from rwtool.__main__ import main
peak_file = sys.argv.pop(1)
try:
    main()
finally:
    peak = re.search(r"VmHWM:\\s*(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1]
    pathlib.Path(peak_file).write_text(peak)
"""


def run(*words, core="native"):
    """A command, in a process of its own; what `wait4` says of it would count this process in, which starts it."""
    with tempfile.NamedTemporaryFile("r") as peak:
        command = [sys.executable, "-c", COMMAND, peak.name, *map(str, words)]
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "RWTOOL_CORE": core})
        return Took(time.perf_counter() - start, int(peak.read()) * 1024)


def foretold(labels, predictions, maps, kind, **options):
    """Bytes that each command says it takes: of maps, of check, and of evaluate."""
    plan = rwtool.make_maps(labels, maps / "not made", kinds=(kind,), dry_run=True, jobs=1, **options).plan
    (work,) = plan.work
    found = {"maps": make.peak_bytes(work.argument)}
    made = read_map_set(maps / kind)
    if made is not None:
        found["check"] = check.peak_bytes(made, "case", made.source("case"))
    settings = evaluation_case.Settings(plan.dataset.classes, (1, 2), (), True, "directed", {}, None, False)
    job = evaluation_case.CaseJob(work.argument.labels, (Path(predictions) / "case.nii.gz",), settings)
    found["evaluate"] = evaluation_case.peak_bytes(job)
    return found


def show(what, took, said, voxels):
    print(
        f"  {what:<18} {took.seconds:7.1f} s {took.peak / 1e9:7.2f} GB {took.peak / voxels:6.2f} bytes a voxel; "
        f"foretold {said / 1e9:.2f} GB, {said / took.peak:.2f} of it",
        flush=True,
    )


def by_hand(labels, at, k):
    """Distance in mm from a voxel to the nearest of class `k`, if it is within the reach; voxel by voxel."""
    box = tuple(slice(max(0, i - REACH), i + REACH + 1) for i in at)
    there = np.argwhere(labels[box] == k)
    if not len(there):
        return np.inf
    off = (there + [side.start for side in box] - np.array(at)) * SPACING
    distance = float(np.sqrt((off**2).sum(axis=1)).min())
    return distance if distance < REACH * min(SPACING) else np.inf


def compare_by_hand(maps, labels, voxels=40):
    """A boundary map against distances worked out from the labels, at the corners and at places near boundaries."""
    path = maps / "boundary" / "case.nii.gz"
    shape = labels.shape
    rng = np.random.default_rng(0)
    places = {(z, y, x) for z in (0, shape[0] - 1) for y in (0, shape[1] - 1) for x in (0, shape[2] - 1)}
    places |= {(shape[0] - 1, shape[1] - 1, shape[2] - 3)}
    while len(places) < voxels:
        z, y, x = (int(rng.integers(2, n - 2)) for n in shape)
        if labels[z, y - 2 : y + 3, x - 2 : x + 3].min() < labels[z, y - 2 : y + 3, x - 2 : x + 3].max():
            places.add((z, y, x))
    wanted = sorted(places)
    order = np.ravel_multi_index(np.array(wanted).T, shape)
    compared = 0
    with igzip.open(path) as stream:
        stream.read(352)
        for k in CLASSES:
            at = 0
            for place, index in zip(wanted, order, strict=True):
                skip(stream, 4 * (int(index) - at))
                (found,) = np.frombuffer(stream.read(4), np.float32)
                at = int(index) + 1
                own = labels[place] == k
                truth = min(by_hand(labels, place, c) for c in CLASSES if (c != k) == own) if own else None
                truth = -truth if own else by_hand(labels, place, k)
                if np.isfinite(truth):
                    assert np.isclose(found, truth, rtol=1e-5, atol=0), (k, place, found, truth)
                    compared += 1
            skip(stream, 4 * (labels.size - at))
    corner = by_hand(labels, tuple(n - 1 for n in shape), 0)
    print(f"  {compared} values of the boundary map are those worked out by hand, {corner:g} mm at the far corner")


def skip(stream, size):
    while size > 0:
        size -= len(stream.read(min(size, 1 << 24)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mvoxels", type=float, default=50)
    parser.add_argument("--core", choices=["native", "edt", "both"], default="native")
    parser.add_argument("--kinds", default="rrw,boundary")
    parser.add_argument("--keep", type=Path, help="Work in this folder, and leave everything there.")
    options = parser.parse_args()
    shape = shape_of(options.mvoxels)
    voxels = int(np.prod(shape, dtype=np.int64))
    print(
        f"{shape[2]} x {shape[1]} x {shape[0]} = {voxels / 1e6:.0f} million voxels, {len(CLASSES)} classes; rwtool "
        f"{rwtool.__version__}, numpy {np.__version__}, Python {platform.python_version()}, {os.cpu_count()} cores"
    )
    root = options.keep or Path(tempfile.mkdtemp())
    try:
        labels, predictions, maps = root / "labels", root / "predictions", root / "maps"
        if not labels.exists():
            write_volume(labels / "case.nii.gz", shape, 0)
            write_volume(predictions / "case.nii.gz", shape, SHIFT)
        for core in ["native", "edt"] if options.core == "both" else [options.core]:
            os.environ["RWTOOL_CORE"] = core
            for kind in options.kinds.split(","):
                took = run("maps", labels, maps, "--kind", kind, "-q", "--overwrite", core=core)
                said = foretold(labels, predictions, maps, kind)
                show(f"maps {kind}, {core}", took, said["maps"], voxels)
                took = run("check", maps / kind, "-q", core=core)
                show(f"check {kind}", took, said["check"], voxels)
                if kind == "boundary":
                    compare_by_hand(maps, rwtool.read_labels(labels / "case.nii.gz").array)
                shutil.rmtree(maps)
            took = run("evaluate", labels, predictions, "-q", core=core)
            show(f"evaluate, {core}", took, said["evaluate"], voxels)
    finally:
        if options.keep is None:
            shutil.rmtree(root)


if __name__ == "__main__":
    main()
