"""Random label files, and the maps that belong to them."""

import json

import nibabel as nib
import numpy as np

import rwtool
from rwtool.files import file_crc32

SHAPE = (6, 9, 5)  # file axes
AFFINE = np.array([[0, -1.5, 0, 10], [0.8, 0, 0, -20], [0, 0, 4, 30], [0, 0, 0, 1.0]])


def write_labels(path, seed=0, values=(0, 1, 2), shape=SHAPE):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.asarray(values, dtype=np.uint8)[np.random.default_rng(seed).integers(0, len(values), shape)]
    image = nib.Nifti1Image(array, AFFINE)
    image.header.set_sform(AFFINE, 2)
    nib.save(image, path)
    return array


def write_three(folder):
    """Folder of three cases."""
    for index in range(3):
        write_labels(folder / f"case_{index}.nii.gz", index)
    return folder


def record_anew(folder):
    """Make the sidecar speak of the files as they are, as if they had been written so."""
    content = sidecar(folder)
    content.pop("crc32", None)
    for record in content["cases"].values():
        path = folder / record["file"]
        record |= {"bytes": path.stat().st_size, "crc32": file_crc32(path)}
    (folder / "maps.json").write_text(json.dumps(content))


def sidecar(folder):
    return json.loads((folder / "maps.json").read_text())


def expected(path, kind="rrw", **options):
    """The whole map of a label file, by the function of its kind; class values are class indices in it."""
    volume = rwtool.read_labels(path, classes=(0, 1, 2))
    where = () if kind in ("ac", "constant") else (volume.spacing_mm,)
    return getattr(rwtool, f"{kind}_map")(volume.array, *where, n_classes=3, **options)
