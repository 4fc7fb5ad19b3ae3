"""Race rwtool's evaluation against surface-distance, MONAI, MedPy and SimpleITK, from files to numbers.

    pip install '.[bench]'
    python tests/benchmarks/bench_evaluate.py REFERENCE [CASE...] [--jobs 2] [--repeats 3] [--skip medpy]

REFERENCE is a folder of label files, such as KiTS19's; CASE limits it. Predictions are damaged copies, written to a
temporary folder: boundaries warped by about two voxels, every second case shifted by a voxel, islands, and in the last
case the last class missed. Each program gets the same files and as many processes, started and warm before its clock
runs. Peers read with nibabel and measure each class as their documentation does: surface-distance and MONAI crop
inside, MedPy and SimpleITK do not. All give Dice and HD; HD95 all but SimpleITK. A program that takes minutes runs
once.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import joblib
import numpy as np
from peers import PEERS, measure
from scipy.ndimage import find_objects, gaussian_filter, map_coordinates

import rwtool
from rwtool.datasets.cases import find_cases
from rwtool.io.names import split_name

LONG_SECONDS = 60


def damaged(labels, seed, *, miss_last):
    """Copy labels with the errors that networks make."""
    rng = np.random.default_rng(seed)
    (found,) = find_objects((labels > 0).astype(np.uint8))
    box = tuple(slice(max(s.start - 8, 0), s.stop + 8) for s in found)
    part = labels[box]
    fields = [gaussian_filter(rng.normal(size=part.shape), 6) for _ in range(3)]
    shift = [0, seed % 2, seed % 2]
    moved = [i + 2 * f / f.std() + by for i, f, by in zip(np.indices(part.shape), fields, shift, strict=True)]
    copy = np.zeros_like(labels)
    copy[box] = map_coordinates(part, moved, order=0, mode="nearest")
    if miss_last:
        copy[copy == labels.max()] = 0
    for _ in range(3):  # islands of 5 x 5 x 5 voxels anywhere in the volume
        z, y, x = (int(rng.integers(0, max(n - 5, 1))) for n in labels.shape)
        copy[z : z + 5, y : y + 5, x : x + 5] = 1
    return copy


def prepare(folder, references):
    (folder / "labels").mkdir()
    (folder / "prediction").mkdir()
    pairs = []
    for seed, path in enumerate(references):
        volume = rwtool.read_labels(path)
        array = damaged(volume.array, seed, miss_last=seed > 0 and seed == len(references) - 1)
        prediction = folder / "prediction" / path.name
        rwtool.write(prediction, rwtool.Volume(array, volume.spacing_mm, volume.geometry))
        (folder / "labels" / path.name).symlink_to(path.resolve())
        classes = tuple(np.unique(volume.array)[1:].tolist())
        print(f"  {path.name}: {' x '.join(map(str, volume.array.shape))}, classes {classes}")
        pairs.append((folder / "labels" / path.name, prediction))
    return pairs


def race(name, pairs, labels, jobs):
    """Every pair by one program; numbers by case and label."""
    cases = [split_name(path)[0] for path, _ in pairs]
    if name in PEERS:
        found = joblib.Parallel(n_jobs=jobs)(joblib.delayed(measure)(PEERS[name], pair, labels) for pair in pairs)
        return {
            (case, label): values for case, each in zip(cases, found, strict=True) for label, values in each.items()
        }
    references, predictions = (path.parent for path in pairs[0])
    evaluation = rwtool.evaluate(references, [predictions], jobs=jobs)
    numbers = {}
    for row in evaluation.rows:
        numbers.setdefault((row.case, row.label), []).append(None if np.isnan(row.value) else row.value)
    return numbers


def warm_up(name, folder, jobs):
    """Start the processes and let them import all they need, on as many small cases as there are processes."""
    array = np.zeros((12, 12, 12), np.uint8)
    array[4:8, 4:8, 4:8] = 1
    for part in ("labels", "prediction"):
        (folder / name / part).mkdir(parents=True)
        for i in range(2 * jobs):
            np.save(folder / name / part / "x.npy", array)
            volume = rwtool.read_labels(folder / name / part / "x.npy", spacing_mm=(1, 1, 1))
            rwtool.write(folder / name / part / f"{i}.nii.gz", volume)
        (folder / name / part / "x.npy").unlink()
    names = [f"{i}.nii.gz" for i in range(2 * jobs)]
    race(name, [(folder / name / "labels" / n, folder / name / "prediction" / n) for n in names], [1], jobs)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reference")
    parser.add_argument("cases", nargs="*", help="case names; all if none is given")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--skip", action="append", default=[], help="a program to leave out")
    arguments = parser.parse_args()
    references = find_cases(arguments.reference)
    chosen = [references[name] for name in arguments.cases or references]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        print("damaging:")
        pairs = prepare(folder, chosen)
        labels = sorted({int(v) for path, _ in pairs for v in np.unique(rwtool.read_labels(path).array)} - {0})
        numbers, seconds = {}, {}
        names = [n for n in ("rwtool", *PEERS) if n not in arguments.skip]
        for name in names:
            warm_up(name, folder / "warm", arguments.jobs)
            times = []
            while len(times) < arguments.repeats and sum(times) < LONG_SECONDS:
                start = time.perf_counter()
                numbers[name] = race(name, pairs, labels, arguments.jobs)
                times.append(time.perf_counter() - start)
            seconds[name] = statistics.median(times)
    print(f"{len(pairs)} cases, {arguments.jobs} processes, median seconds of up to {arguments.repeats} runs")
    for name in names:
        print(f"  {name:17} {seconds[name]:8.2f} s  {seconds[name] / seconds['rwtool']:6.1f} times rwtool's")
    print("largest difference from rwtool's numbers (Dice; HD95 and HD in mm)")
    for name in names[1:]:
        for index, metric in enumerate(("Dice", "HD95", "HD")):
            apart = [
                abs(values[index] - numbers["rwtool"][key][index])
                for key, values in numbers[name].items()
                if values[index] is not None and numbers["rwtool"][key][index] is not None
            ]
            print(f"  {name:17} {metric:5} {max(apart):.2g}" if apart else f"  {name:17} {metric:5} not offered")
    print(
        "medpy pools both directions in HD95; simpleitk's HD is between sets; surface-distance's boundary lies between"
    )
    print("voxels and is weighted by area, and its HD95 does not interpolate. MONAI's definitions are rwtool's.")


if __name__ == "__main__":
    main()
