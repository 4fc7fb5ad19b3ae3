"""What rwtool is measured against, as programs of their own that import nothing of it.

    python tests/benchmarks/peers.py recipe LABELS OUT N_CLASSES {rrw,boundary} JOBS
    python tests/benchmarks/peers.py PEER REFERENCE PREDICTIONS LABEL,... JOBS

The recipe is that of the paper's code, in 3D and to files. The peers of evaluation read with nibabel and measure each
class as their documentation does: surface-distance and MONAI crop inside, MedPy and SimpleITK do not. All give Dice and
HD; HD95 all but SimpleITK. They write their numbers to standard output, a line per case and label.
"""

import sys
from pathlib import Path

import joblib
import nibabel as nib
import numpy as np


def recipe(source, target, n_classes, kind="rrw"):
    """One case as the paper's code does it, but in 3D and to a file."""
    from scipy.ndimage import distance_transform_edt

    image = nib.load(source)
    labels = np.asarray(image.dataobj)
    result = np.zeros((*labels.shape, n_classes), dtype=np.float32)
    for c in range(n_classes):
        own = labels == c
        if kind == "rrw":
            distance = distance_transform_edt(own)
            result[..., c] = -distance / (distance.max() + 1e-15)
        elif own.any():
            result[..., c] = distance_transform_edt(~own) * ~own - distance_transform_edt(own) * own
    if kind == "rrw":
        result[result == 0] = 1
    nib.save(nib.Nifti1Image(result, image.affine), target)


def read(path):
    image = nib.load(path)
    return np.asarray(image.dataobj).astype(np.uint8), [float(mm) for mm in image.header.get_zooms()[:3]]


def measure(by, pair, labels):
    """Dice, HD95 and HD of each class, without distances where one of both lacks it: most peers would fail."""
    (reference, spacing), (prediction, _) = (read(path) for path in pair)
    found = {}
    for label in labels:
        a, b = reference == label, prediction == label
        found[label] = by(a, b, spacing, both=bool(a.any() and b.any()))
    return found


def by_surface_distance(a, b, spacing, *, both):
    import surface_distance

    dice = surface_distance.compute_dice_coefficient(a, b)
    if not both:
        return dice, None, None
    distances = surface_distance.compute_surface_distances(a, b, spacing)
    return dice, *(surface_distance.compute_robust_hausdorff(distances, percent) for percent in (95, 100))


def by_monai(a, b, spacing, *, both):
    import torch
    from monai.metrics import compute_dice, compute_hausdorff_distance

    y, y_pred = (torch.from_numpy(mask)[None, None] for mask in (a, b))
    dice = float(compute_dice(y_pred, y))
    if not both:
        return dice, None, None
    options = {"include_background": True, "spacing": spacing}
    hd95, hd = (float(compute_hausdorff_distance(y_pred, y, percentile=p, **options)) for p in (95, None))
    return dice, hd95, hd


def by_medpy(a, b, spacing, *, both):
    from medpy.metric import binary

    dice = binary.dc(b, a)
    return (dice, binary.hd95(b, a, spacing), binary.hd(b, a, spacing)) if both else (dice, None, None)


def by_simpleitk(a, b, spacing, *, both):
    import SimpleITK as sitk

    images = [sitk.GetImageFromArray(mask.transpose().view(np.uint8)) for mask in (a, b)]
    for image in images:
        image.SetSpacing(spacing)
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(*images)
    if not both:
        return overlap.GetDiceCoefficient(), None, None
    distance = sitk.HausdorffDistanceImageFilter()
    distance.Execute(*images)
    return overlap.GetDiceCoefficient(), None, distance.GetHausdorffDistance()


PEERS = {"surface-distance": by_surface_distance, "monai": by_monai, "simpleitk": by_simpleitk, "medpy": by_medpy}


def main():
    name, source, target, listed, *_, jobs = sys.argv[1:]
    files = sorted(path for path in Path(source).iterdir() if path.name.endswith(".nii.gz"))
    parallel = joblib.Parallel(n_jobs=int(jobs))
    if name == "recipe":
        kind = sys.argv[5]
        parallel(joblib.delayed(recipe)(path, Path(target) / path.name, int(listed), kind) for path in files)
        return
    labels = [int(label) for label in listed.split(",")]
    pairs = [(path, Path(target) / path.name) for path in files]
    found = parallel(joblib.delayed(measure)(PEERS[name], pair, labels) for pair in pairs)
    for (path, _), numbers in zip(pairs, found, strict=True):
        for label, values in numbers.items():
            print(path.name.removesuffix(".nii.gz"), label, *values)


if __name__ == "__main__":
    main()
