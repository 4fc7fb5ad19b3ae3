"""Compare rwtool's metrics with MONAI, MedPy, surface-distance and SimpleITK: numbers first, then seconds.

    pip install '.[bench]'
    python tests/benchmarks/peers_metrics.py

Random anisotropic volumes always; real ones too where RWTOOL_TEST_DATA names the folder that holds `spine`
and `kits19`. Exits with 1 if a number that should agree does not.
"""

import os
import statistics
import sys
import time
from pathlib import Path

import medpy.metric.binary as medpy
import numpy as np
import SimpleITK
import surface_distance
import torch
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from scipy.ndimage import find_objects, gaussian_filter, map_coordinates

from rwtool.metrics.measures import evaluate_labels

TOLERANCE_MM = 1.0
REPEATS = 3


def monai_hd(a, b, spacing_mm, percentile=None):
    pair = [torch.from_numpy(mask)[None, None] for mask in (b, a)]
    return float(compute_hausdorff_distance(*pair, include_background=True, percentile=percentile, spacing=spacing_mm))


def monai_nsd(a, b, spacing_mm):
    pair = [torch.from_numpy(mask)[None, None] for mask in (b, a)]
    return float(compute_surface_dice(*pair, [TOLERANCE_MM], include_background=True, spacing=spacing_mm))


def deepmind_hd(a, b, spacing_mm, percentile=100):
    distances = surface_distance.compute_surface_distances(a, b, spacing_mm)
    return float(surface_distance.compute_robust_hausdorff(distances, percentile))


def itk_hd(a, b, spacing_mm):
    images = [SimpleITK.GetImageFromArray(mask.view(np.uint8)) for mask in (a, b)]
    for image in images:
        image.SetSpacing(spacing_mm[::-1])
    measure = SimpleITK.HausdorffDistanceImageFilter()
    measure.Execute(*images)
    return measure.GetHausdorffDistance()


SAME = [  # metric, HD95 rule, peer, its function
    ("hd_mm", "directed", "MONAI", monai_hd),
    ("hd95_mm", "directed", "MONAI", lambda a, b, mm: monai_hd(a, b, mm, 95)),
    ("nsd", "directed", "MONAI", monai_nsd),
    ("hd_mm", "directed", "MedPy", medpy.hd),
    ("hd95_mm", "pooled", "MedPy", medpy.hd95),
    ("assd_mm", "directed", "MedPy", medpy.assd),
]
OTHER = [
    ("hd_mm", "surface-distance", deepmind_hd, "its boundary lies on voxel corners, weighted by area"),
    ("hd95_mm", "surface-distance", lambda a, b, mm: deepmind_hd(a, b, mm, 95), "the same, no interpolation"),
    ("hd_mm", "SimpleITK", itk_hd, "it compares sets: what lies inside of the other mask is at 0"),
]


def crop(a, b, margin=3):
    """Both masks within one box with a margin, which no metric here depends on."""
    (found,) = find_objects((a | b).astype(np.uint8))
    box = tuple(slice(max(s.start - margin, 0), s.stop + margin) for s in found)
    return np.ascontiguousarray(a[box]), np.ascontiguousarray(b[box])


def random_pairs():
    rng = np.random.default_rng(0)
    for _ in range(20):
        shape = rng.integers(8, 40, 3)
        spacing_mm = tuple(float(mm) for mm in rng.uniform(0.4, 5, 3))
        field = gaussian_filter(rng.normal(size=shape), 2)
        other = field + 0.5 * gaussian_filter(rng.normal(size=shape), 2)
        yield "random", field > 0.03, other > 0.03, spacing_mm


def read(path):
    image = SimpleITK.ReadImage(path)
    return SimpleITK.GetArrayFromImage(image), image.GetSpacing()[::-1]


def real_pairs(folder):
    reference, spacing_mm = read(folder / "spine" / "reference" / "spine.nii.gz")
    prediction, _ = read(folder / "spine" / "prediction" / "spine.nii.gz")
    for label in np.intersect1d(reference, prediction)[1:]:
        yield f"spine {label}", reference == label, prediction == label, spacing_mm
    reference, prediction, spacing_mm = kidneys(folder)
    for label in (1, 2):
        yield f"KiTS19 {label}", reference == label, prediction == label, spacing_mm


def kidneys(folder):
    """Real labels with the slice axis first, and a copy with smoothly warped boundaries."""
    labels, spacing_xyz = read(folder / "kits19" / "labels" / "case_00006.nii.gz")
    labels, spacing_mm = labels.transpose(2, 1, 0), spacing_xyz[::-1]
    return labels, warped(labels), spacing_mm


def phantom():
    """Two ellipsoids, one with a lesion, on a KiTS19-size grid."""
    spacing_mm = (3.0, 0.7421875, 0.7421875)
    z, y, x = np.ogrid[:157, :512, :512]
    labels = np.zeros((157, 512, 512), np.uint8)
    for centre in ((80, 280, 150), (85, 290, 360)):
        parts = zip((z, y, x), centre, (18, 50, 40), strict=True)
        labels[sum(((i - c) / r) ** 2 for i, c, r in parts) < 1] = 1
    labels[((z - 80) / 5) ** 2 + ((y - 240) / 15) ** 2 + ((x - 150) / 15) ** 2 < 1] = 2
    return labels, warped(labels), spacing_mm


def warped(labels, voxels=2.0):
    """Move every boundary by a smooth random field of about so many voxels."""
    rng = np.random.default_rng(0)
    found = find_objects((labels > 0).astype(np.uint8))[0]
    box = tuple(slice(max(s.start - 8, 0), s.stop + 8) for s in found)
    part = labels[box]
    fields = [gaussian_filter(rng.normal(size=part.shape), 6) for _ in range(3)]
    moved = [i + voxels * f / f.std() for i, f in zip(np.indices(part.shape), fields, strict=True)]
    copy = np.zeros_like(labels, order="C")
    copy[box] = map_coordinates(part, moved, order=0, mode="nearest")
    return copy


def agreement(pairs):
    worst = {(metric, rule, peer): 0.0 for metric, rule, peer, _ in SAME}
    apart = {(metric, peer): [] for metric, peer, _, _ in OTHER}
    n = 0
    for _, full_a, full_b, spacing_mm in pairs:
        n += 1
        a, b = crop(full_a, full_b)
        mine = {}
        for rule in ("directed", "pooled"):
            labels = a.view(np.uint8), b.view(np.uint8)
            (mine[rule],) = evaluate_labels(*labels, spacing_mm, n_classes=2, hd95=rule, nsd_tolerance_mm=TOLERANCE_MM)
        for metric, rule, peer, function in SAME:
            value = getattr(mine[rule], metric)
            difference = abs(value - function(a, b, spacing_mm)) / max(value, 1e-9)
            worst[metric, rule, peer] = max(worst[metric, rule, peer], difference)
        for metric, peer, function, _ in OTHER:
            apart[metric, peer].append(function(a, b, spacing_mm) - getattr(mine["directed"], metric))
    print(f"{n} pairs of masks")
    for (metric, rule, peer), difference in worst.items():
        print(f"  {metric:8} {rule:9} = {peer:17} largest relative difference {difference:.1e}")
    for metric, peer, _, why in OTHER:
        low, high = min(apart[metric, peer]), max(apart[metric, peer])
        print(f"  {metric:8} differs by {low:+.2f} to {high:+.2f} mm from {peer}: {why}")
    return all(difference < 1e-4 for difference in worst.values())


def seconds(function):
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def timing(reference, prediction, spacing_mm):
    reference, prediction = np.ascontiguousarray(reference), np.ascontiguousarray(prediction)

    def each_class(function):
        return lambda: [function(reference == c, prediction == c, spacing_mm) for c in (1, 2)]

    def deepmind(a, b, mm):
        distances = surface_distance.compute_surface_distances(a, b, mm)
        surface_distance.compute_dice_coefficient(a, b)
        for percentile in (95, 100):
            surface_distance.compute_robust_hausdorff(distances, percentile)

    peers = {
        "surface-distance: Dice, HD95, HD": each_class(deepmind),
        "MONAI: HD": each_class(monai_hd),
        "SimpleITK: HD": each_class(itk_hd),
    }
    rwtool = seconds(lambda: evaluate_labels(reference, prediction, spacing_mm, n_classes=3))
    print(f"{reference.shape} voxels, 2 classes, in memory, median of {REPEATS}")
    print(f"  {'rwtool: Dice, HD95, HD, ASSD, MASD':36} {rwtool:7.2f} s")
    for name, function in peers.items():
        peer = seconds(function)
        print(f"  {name:36} {peer:7.2f} s  {peer / rwtool:5.1f} times")


def main():
    print("No class is missed in what follows: surface-distance 0.1 needs np.Inf then, which numpy 2 lacks.")
    fine = agreement(random_pairs())
    folder = os.environ.get("RWTOOL_TEST_DATA")
    if folder:
        fine &= agreement(real_pairs(Path(folder)))
        timing(*kidneys(Path(folder)))
    else:
        timing(*phantom())
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
