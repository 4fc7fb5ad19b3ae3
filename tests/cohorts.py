"""Small cohorts of discs, and runs trained on them."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Mapping

import nibabel as nib
import numpy as np
import pytest
import torch

import rwtool
from rwtool.network.checkpoint import Checkpoint

SHAPE = (4, 20, 24)  # (z, y, x)
AFFINE = np.array([[0, -1.5, 0, 10], [0.8, 0, 0, -20], [0, 0, 4, 30], [0, 0, 0, 1.0]])
QUICK = {"features": 4, "depth": 2, "epochs": 2, "batch_size": 4, "lr": 1e-3, "amp": "off"}
THOROUGH = {**QUICK, "epochs": 20, "lr": 0.02, "augment": False}
FILES = {"best.pt", "config.toml", "last.pt", "metrics.csv", "predictions", "run.json", "split.json"}


def discs(seed, values=(0, 1, 2)):
    """An image (z, y, x) of two bright discs on noise, and their labels."""
    rng = np.random.default_rng(seed)
    _, y, x = np.indices(SHAPE)
    labels = np.zeros(SHAPE, dtype=int)
    labels[(y - rng.uniform(6, 8)) ** 2 + (x - rng.uniform(6, 8)) ** 2 < 16] = 1
    labels[(y - rng.uniform(11, 14)) ** 2 + (x - rng.uniform(14, 18)) ** 2 < 20] = 2
    image = 100 + 100 * labels + 10 * rng.normal(size=SHAPE)
    return image.astype(np.int16), np.asarray(values, dtype=np.uint8)[labels]


def save(path, array, affine=AFFINE, turn=(2, 1, 0)):
    """Write a (z, y, x) array as NIfTI, its axes in the file's order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array.transpose(turn), affine), path)


def write_cohort(folder, *, names=None, values=(0, 1, 2), **grid):
    """Folders of six images and their labels."""
    for seed, name in enumerate(names or [f"case_{index}" for index in range(6)]):
        image, labels = discs(seed, values)
        save(folder / "images" / f"{name}.nii.gz", image, **grid)
        save(folder / "labels" / f"{name}.nii.gz", labels, **grid)
    return folder


def voxels(path):
    """Array of a NIfTI file, in its own order."""
    return np.asarray(nib.load(path).dataobj)


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def places(value, place=""):
    """All that a checkpoint holds by its place, exactly: tensors by their bytes; times and checksum are left out."""
    if isinstance(value, Mapping):
        items = [(key, part) for key, part in value.items() if key not in ("seconds", "slices_per_second", "crc32")]
    elif isinstance(value, (list, tuple)):
        items = list(enumerate(value))
    elif isinstance(value, torch.Tensor):
        return {place: (str(value.dtype), tuple(value.shape), value.detach().numpy().tobytes().hex())}
    else:
        return {place: repr(value)}
    return {key: found for name, part in items for key, found in places(part, f"{place}/{name}").items()}


def words(settings):
    """Settings as options of the command line."""
    for name, value in settings.items():
        yield "--with" if name == "mixed_with" else "--" + name.replace("_", "-")
        yield str(value)


def start(*arguments):
    """Python in a process of its own, with as many threads as these tests."""
    command = [sys.executable, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", check=False)


_KILLED = """
import os, pathlib, sys
from rwtool.files import atomic
with atomic(pathlib.Path(sys.argv[1]) / "last.pt") as path:
    path.touch()
    os._exit(7)
"""


def leftover(folder):
    """What a process leaves in a folder that is killed while it writes."""
    done = start("-c", _KILLED, folder)
    assert done.returncode == 7, done.stderr
    (left,) = folder.glob(".*.rwtool-tmp")
    return left


def weights(run, which="last"):
    return places(torch.load(run / f"{which}.pt", weights_only=True)["model"])


def metrics(run):
    with (run / "metrics.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def train(cohort, run, settings=QUICK, **more):
    (done,) = rwtool.train(cohort / "images", cohort / "labels", run, **{**settings, **more})
    return done


def train_and_stop(cohort, run, settings=QUICK, **more):
    """A training that is stopped once the checkpoint of its first epoch is there."""
    saved = Checkpoint.save

    def save_and_stop(self, path):
        saved(self, path)
        if path.name == "last.pt":
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoint, "save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            train(cohort, run, settings, **more)


def all_of(run):
    """All that a run holds, times and places apart, exactly."""
    content = json.loads((run / "run.json").read_text())
    timed = ("seconds", "slices_per_second", "crc32")  # the checksum is of the times too
    rows = [[value for name, value in row.items() if name not in timed] for row in metrics(run)]
    return {
        "last": places(torch.load(run / "last.pt", weights_only=True)),
        "best": places(torch.load(run / "best.pt", weights_only=True)),
        "metrics": rows,
        "run": {name: value for name, value in content.items() if name not in timed},
        "config": (run / "config.toml").read_text(),
        "split": (run / "split.json").read_text(),
        "predictions": {path.name: path.read_bytes() for path in (run / "predictions").iterdir()},
    }


def made_maps(cohort, folder, kinds=("rrw", "boundary", "hd", "ac"), **parameters):
    rwtool.make_maps(cohort / "labels", folder, kinds=kinds, jobs=1, **parameters)
    return folder
