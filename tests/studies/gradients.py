"""Figure 3 of the paper on ACDC17: gradient components of the wrong sign while rrw and Boundary maps are trained on.

    python tests/studies/gradients.py DATA OUT [--epochs 8] [--seeds 0] [--case patient001_frame01] [--at 1,2,4,8]

Runs of rrw and Boundary maps, alone and with Dice, each with a checkpoint after every epoch; OUT may be that of another
study. At the softmax of each checkpoint of `--at`, over five evaluated volumes, OUT/gradients.csv says

    two_negative   share of voxels with two or more negative gradient components (Section 3.4)
    wrong_raise    of all that the gradient raises, the share that goes to classes that the voxel is not of
    wrong_most     share of voxels where the class that is raised most is not the voxel's
    foreground_... the same over the voxels of foreground classes
    own_1, ...     median softmax of its own class over the voxels of each foreground class: where it is near 0, so is
                   the gradient of any region-wise loss

and OUT/signs/<method>-epoch-<n>.png shows where, as `rwtool check --figure` draws it.
"""

import nibabel as nib
import numpy as np
from common import Method, Study, parse, parser, write_rows

import rwtool

METHODS = {
    "rrw": Method("--loss rrw"),
    "boundary": Method("--loss boundary"),
    "boundary-dice": Method("--loss boundary --with dice --mix gradual"),
    "rrw-dice-gradual": Method("--loss rrw --with dice --mix gradual"),
}
CASES = "patient00[13579]_frame01"  # of odd numbers: evaluated, not trained on


def wrong_signs(z, softmax, labels):
    """What the gradient of the region-wise loss (Eq. 2) does at each voxel: three arrays of its shape.

    z and softmax are (K, ...), labels (...) class indices. Two or more negative components; the size of all negative
    ones; and that of those that raise another class than the voxel's.
    """
    gradient = softmax * (z - (softmax * z).sum(axis=0))
    negative = gradient < -1e-6 * softmax * np.abs(z).max(axis=0)
    raised = np.where(negative, -gradient, 0.0)
    own = np.take_along_axis(raised, labels[None], axis=0)[0]
    return negative.sum(axis=0) >= 2, raised.sum(axis=0), raised.sum(axis=0) - own, raised.argmax(axis=0) != labels


def shares(parts, chosen):
    """The three shares over the chosen voxels of several volumes."""
    kept = [[array[keep] for array in part] for part, keep in zip(parts, chosen, strict=True)]
    two, total, wrong, most = (np.concatenate(arrays) for arrays in zip(*kept, strict=True))
    moved = total > 0
    return {
        "two_negative": round(float(two.mean()), 4),
        "wrong_raise": round(float(wrong.sum() / total.sum()), 4),
        "wrong_most": round(float(most[moved].mean()), 4),
    }


def measure(study, run, kind, epoch):
    """The shares at the softmax of a checkpoint."""
    out = study.out / "softmax" / f"{run.parent.name}-{epoch}"
    images = study.data / "images" / f"{CASES}.nii.gz"
    study.rwtool("predict", run, images, out, "--checkpoint", epoch, "--probabilities", "--overwrite", "--quiet")
    parts, foreground = [], []
    own = {k: [] for k in (1, 2, 3)}
    for path in sorted(out.glob("*.nii.gz")):
        reference = rwtool.read_labels(study.data / "labels" / path.name, classes=range(4))
        softmax = np.asarray(nib.load(out / "probabilities" / path.name).dataobj, dtype=np.float64).T  # (K, z, y, x)
        assert (softmax.argmax(axis=0) == rwtool.read_labels(path, classes=range(4)).array).all()
        make = {"rrw": rwtool.rrw_map, "boundary": rwtool.boundary_map}[kind]
        z = make(reference.array, reference.spacing_mm, n_classes=4).astype(np.float64)
        labels = reference.array.astype(np.int64)
        parts.append(wrong_signs(z, softmax, labels))
        foreground.append(labels > 0)
        for k, values in own.items():
            values.append(softmax[k][labels == k])
    everywhere = [np.ones_like(keep) for keep in foreground]
    inside = {f"foreground_{name}": value for name, value in shares(parts, foreground).items()}
    median = {f"own_{k}": float(f"{np.median(np.concatenate(values)):.2g}") for k, values in own.items()}
    return shares(parts, everywhere) | inside | median


def main():
    """Train what is missing, measure and draw."""
    found = parser(__doc__, epochs=8, seeds="0")
    found.add_argument("--case", default="patient001_frame01", help="of the pictures")
    found.add_argument("--slice", default="1", help="of that case")
    found.add_argument("--at", default="1,2,4,8")
    settings = parse(found, METHODS)
    study, lines = Study(settings), []
    for name, method in settings.methods.items():
        study.train(name, method, "--val-every 4 --checkpoint-every 1")
        kind = name.partition("-")[0]
        reference = settings.data / "labels" / f"{settings.case}.nii.gz"
        study.rwtool("maps", reference, settings.out / "signs-maps", "--kind", kind, "--quiet")
        run = study.runs(name) / f"seed-{settings.seeds}"
        for epoch in settings.at.split(","):
            figure = settings.out / "signs" / f"{name}-epoch-{epoch}.png"
            study.rwtool(
                "check", settings.out / "signs-maps" / kind, "--figure", figure, "--case", settings.case,
                "--slice", settings.slice, "--run", run, "--checkpoint", epoch, "--images", settings.data / "images",
                "--overwrite", quiet=True,
            )  # fmt: skip
            if not settings.dry_run:
                lines.append({"method": name, "epoch": epoch, **measure(study, run, kind, epoch)})
    if lines:
        write_rows(settings.out / "gradients.csv", lines)
        study.write()


if __name__ == "__main__":
    main()
