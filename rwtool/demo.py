"""A phantom cohort: short-axis hearts that differ from subject to subject, for trying rwtool without a download.

Slices 10 mm apart with pixels of 1.5 mm, as in cine MRI of the heart: a left ventricle in its myocardium, a right
ventricle beside it, a chest around them. Shapes, pose, contrast, noise and bias field are drawn from a seed.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from rwtool.errors import UsageError
from rwtool.files import atomic
from rwtool.io.formats import write
from rwtool.io.geometry import Geometry
from rwtool.io.volume import Volume

SPACING_MM = (10.0, 1.5, 1.5)
CLASS_NAMES = {0: "background", 1: "RV", 2: "MYO", 3: "LV"}
_SIZE = 96  # pixels
_MARK = "rwtool demo phantoms"


@dataclass(frozen=True)
class Subject:
    """A phantom: image and labels, ``(Z, Y, X)``, on one oblique grid."""

    name: str
    image: Volume
    labels: Volume


def make_subject(name: str, seed: int) -> Subject:
    """Make one phantom heart.

    Parameters
    ----------
    name : str
    seed : int

    Returns
    -------
    Subject
        Image int16, labels uint8 with the values of `CLASS_NAMES`; about ``(9, 96, 96)`` voxels of 10 x 1.5 x 1.5 mm.
    """
    rng = np.random.default_rng(seed)
    depth = int(rng.integers(8, 11))
    labels = _labels(rng, depth)
    image = _image(rng, labels)
    geometry = _oblique_geometry(rng, labels.shape)
    spacing_mm = geometry.spacing_mm
    return Subject(name, Volume(image, spacing_mm, geometry), Volume(labels, spacing_mm, geometry))


def make_cohort(out: Path, *, subjects: int = 14, new: int = 2, seed: int = 0) -> Path:
    """Write a phantom cohort: ``images/``, ``labels/``, the classes' ``dataset.json``, and images alone in ``new/``.

    Parameters
    ----------
    out : Path
        A new folder, or one that an earlier demo made.
    subjects : int
    new : int
        Hearts without labels.
    seed : int

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    UsageError
        If the folder holds something else.
    """
    marker = out / "dataset.json"
    if out.exists() and (not out.is_dir() or any(out.iterdir())) and _MARK not in _text(marker):
        raise UsageError(f"{out} holds something that is not a demo; name another folder: rwtool demo FOLDER")
    content = {
        "description": f"{_MARK}: {subjects} subjects, seed {seed}",
        "labels": {name: value for value, name in CLASS_NAMES.items()},
    }
    text = json.dumps(content, indent=1) + "\n"
    if _text(marker) != text:  # another cohort, none of which must stand among these
        for folder in ("images", "labels", "new", "maps", "runs", "predictions", "results"):
            shutil.rmtree(out / folder, ignore_errors=True)
    for index in range(subjects + new):
        subject = make_subject(f"heart_{index:02d}", seed * 1000 + index)
        file = f"{subject.name}.nii.gz"
        write(out / ("images" if index < subjects else "new") / file, subject.image)
        if index < subjects:
            write(out / "labels" / file, subject.labels)
    with atomic(marker) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return out


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _labels(rng: np.random.Generator, depth: int) -> NDArray[np.uint8]:
    """Hearts from base to apex: a tapering ring (MYO) around a disc (LV), and a crescent (RV) on its septal side."""
    y, x = (np.indices((_SIZE, _SIZE)) - _SIZE / 2) * SPACING_MM[1]
    centre = rng.uniform(-9, 9, 2)
    drift = rng.uniform(-6, 6, 2)
    cavity, wall = rng.uniform(16, 22), rng.uniform(6.5, 10)
    stretch, turn = rng.uniform(0.88, 1.12), rng.uniform(-0.5, 0.5)
    reach, lift = rng.uniform(0.8, 1.0), rng.uniform(-0.25, 0.25)
    waves = rng.normal(0, 0.03, (2, 4))
    first, last = int(rng.integers(0, 2)), depth - int(rng.integers(0, 2))

    labels = np.zeros((depth, _SIZE, _SIZE), dtype=np.uint8)
    for z in range(first, last):
        t = (z - first + 0.5) / (last - first)  # 0 at the base, 1 at the apex
        taper = np.sqrt(1 - (0.92 * t) ** 2)
        dy, dx = y - centre[0] - drift[0] * t, x - centre[1] - drift[1] * t
        angle = np.arctan2(dy, dx) - turn
        bumps = sum(
            waves[0, m] * np.cos((m + 2) * angle) + waves[1, m] * np.sin((m + 2) * angle) for m in range(waves.shape[1])
        )
        radius = np.hypot(dy * stretch, dx / stretch) / (1 + bumps)
        inner, outer = cavity * taper, cavity * taper + wall * (1 - 0.35 * t)
        side = np.pi + turn + lift  # the right ventricle lies to the patient's right
        ry, rx = dy - 0.8 * outer * np.sin(side), dx - 0.8 * outer * np.cos(side)
        along = ry * np.cos(side) - rx * np.sin(side)
        across = ry * np.sin(side) + rx * np.cos(side)
        right = np.hypot(along / 1.25, across) < reach * outer * (1 - 0.75 * t)
        labels[z][right] = 1
        labels[z][radius < outer] = 2
        labels[z][radius < inner] = 3
    return labels


def _image(rng: np.random.Generator, labels: NDArray[np.uint8]) -> NDArray[np.int16]:
    """Tissue contrasts, blurred as the scanner does, under a smooth bias field and Rician noise."""
    y, x = np.indices((_SIZE, _SIZE)) / _SIZE * 2 - 1
    blood, muscle, lung, chest = rng.normal((220, 95, 45, 130), (18, 10, 8, 14))
    inside = np.hypot(x / rng.uniform(0.9, 1.02), y / rng.uniform(0.78, 0.9)) < 1
    thorax = np.hypot((x - rng.uniform(0.3, 0.45)) / 0.5, y / 0.62) < 1
    backdrop = np.where(thorax, lung, np.where(inside, chest, 8.0))
    backdrop = np.where(inside & (y > rng.uniform(0.45, 0.6)), chest * 1.25, backdrop)  # liver and spine side
    image = np.broadcast_to(backdrop, labels.shape).astype(np.float64)
    texture = ndimage.gaussian_filter(rng.normal(0, 1, labels.shape), (0.5, 2.5, 2.5)) * 60
    image += np.where(backdrop > 20, texture, 0)
    fat = ndimage.binary_dilation(labels > 0, iterations=2, structure=np.ones((1, 3, 3), dtype=bool)) & (labels == 0)
    image[fat] = chest * 1.1
    for label, level in ((1, blood * rng.uniform(0.9, 1.0)), (2, muscle), (3, blood)):
        image[labels == label] = level + texture[labels == label] * 0.5
    image = ndimage.gaussian_filter(image, (0, 0.8, 0.8))
    slope = rng.uniform(-0.25, 0.25, 3)
    image *= 1 + slope[0] * x + slope[1] * y + slope[2] * x * y
    noise = rng.uniform(7, 14)
    noisy = np.hypot(image + rng.normal(0, noise, image.shape), rng.normal(0, noise, image.shape))
    return np.clip(noisy, 0, 1000).astype(np.int16)


def _oblique_geometry(rng: np.random.Generator, shape: tuple[int, ...]) -> Geometry:
    """A short-axis grid lies oblique to the body, a little different in everyone."""
    tilt = np.deg2rad(rng.normal((40, -35, 10), 5))
    turns = np.eye(3)
    for axis, angle in enumerate(tilt):
        a, b = (n for n in range(3) if n != axis)
        turn = np.eye(3)
        turn[[a, a, b, b], [a, b, a, b]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        turns = turns @ turn
    affine = np.eye(4)
    affine[:3, :3] = turns * np.array(SPACING_MM[::-1])
    size = (shape[2], shape[1], shape[0])
    affine[:3, 3] = -affine[:3, :3] @ (np.array(size) - 1) / 2
    return Geometry(affine, size, (2, 1, 0), size)
