"""A phantom cohort: short-axis hearts that differ from subject to subject, for trying rwtool without a download.

Slices 10 mm apart with pixels of 2.25 mm, in the manner of cine MRI of the heart: a left ventricle in its myocardium,
a right ventricle beside it, a chest around them. Shapes, pose, contrast, noise and bias field are drawn from a seed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from rwtool.console import count
from rwtool.errors import UsageError
from rwtool.evaluation.rows import Row
from rwtool.files import atomic
from rwtool.io.geometry import Geometry
from rwtool.io.volume import Volume
from rwtool.io.write import write

SPACING_MM = (10.0, 2.25, 2.25)
CLASS_NAMES = {0: "background", 1: "RV", 2: "MYO", 3: "LV"}
_SIZE = 64  # pixels: a network learns them in half a minute on one core
_MARK = "rwtool demo phantoms"
_EVEN, _EVEN_MM = 0.01, 0.05  # of Dice and of mm: less is called as good
_NOTHING = "rrw found no class in any heart: its training has not got going; try more epochs."


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
        Image int16, labels uint8 with the values of `CLASS_NAMES`; about ``(9, 64, 64)`` voxels of 10 x 2.25 x
        2.25 mm.
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
        A new folder, or one of the same cohort, of which only the files that are not there are made.
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
        If the folder holds something else, or another cohort.
    """
    marker = out / "dataset.json"
    description = f"{_MARK}: {count(subjects, 'subject')} of {_SIZE} x {_SIZE} pixels, seed {seed}"
    content = {"description": description, "labels": {name: value for value, name in CLASS_NAMES.items()}}
    text = json.dumps(content, indent=1) + "\n"
    found = marker.read_text(encoding="utf-8", errors="replace") if marker.is_file() else ""
    if out.exists() and found != text and (not out.is_dir() or any(out.iterdir())):
        what = "another demo" if _MARK in found else "something that is not a demo"
        raise UsageError(f"{out} holds {what}; name another folder")
    with atomic(marker) as temporary:  # first, so that a demo that is stopped is known as one
        temporary.write_text(text, encoding="utf-8")
    for index in range(subjects + new):
        file = f"heart_{index:02d}.nii.gz"
        image = out / ("images" if index < subjects else "new") / file
        labels = out / "labels" / file if index < subjects else None
        if image.exists() and (labels is None or labels.exists()):
            continue
        subject = make_subject(file.removesuffix(".nii.gz"), seed * 1000 + index)
        write(image, subject.image)
        if labels is not None:
            write(labels, subject.labels)
    return out


@dataclass(frozen=True)
class _Found:
    """What became of one class, or of all, under one method."""

    dice: float
    hd_mm: float
    ok: int
    missed: int

    @property
    def cases(self) -> int:
        return self.ok + self.missed


def tell_results(rows: Sequence[Row]) -> list[str]:
    """Say in words what the rows of an evaluation show of the methods dice, rrw and boundary.

    Parameters
    ----------
    rows : sequence of Row
        Of `rwtool.evaluation`, with the metrics dice and hd.

    Returns
    -------
    list of str
        A sentence each. Every one follows from the rows; none is there whatever they say.
    """
    classes = list(dict.fromkeys(row.class_name for row in rows))
    found = {(method, name): _find(rows, method, [name]) for method in ("dice", "rrw", "boundary") for name in classes}
    dice, rrw = (_find(rows, method, classes) for method in ("dice", "rrw"))
    gap = rrw.dice - dice.dice
    level = (
        "is as good as Dice loss in Dice"
        if abs(gap) < _EVEN
        else f"is {'above' if gap > 0 else 'below'} Dice loss in Dice"
    )
    lines = [f"rrw {level}: {rrw.dice:.3f} and {dice.dice:.3f}, mean over {_list(classes)}."]
    lines.append(_tell_distances(found, classes) if rrw.ok else _NOTHING)
    lost = [name for name in classes if found["boundary", name].missed]
    if lost:
        parts = [
            f"{name} in {found['boundary', name].missed} of {found['boundary', name].cases} hearts" for name in lost
        ]
        lines.append(
            f"Boundary loss alone misses {_list(parts)}. Its maps can push two classes up at one voxel, as the check "
            "above has counted; rrw maps never do."
        )
    elif (boundary := _find(rows, "boundary", classes)).dice < max(rrw.dice, dice.dice) - _EVEN:
        lines.append(f"Boundary loss alone finds every class, less well: Dice {boundary.dice:.3f}.")
    else:
        lines.append("Boundary loss alone keeps up here; the paper reports trainings in which it does not.")
    return lines


def _tell_distances(found: Mapping[tuple[str, str], _Found], classes: Sequence[str]) -> str:
    """How the mean Hausdorff distances of rrw compare with those of Dice loss."""
    by_distance: dict[str, list[str]] = {"smaller": [], "larger": [], "equal": []}
    for name in classes:
        mine, other = found["rrw", name].hd_mm, found["dice", name].hd_mm
        even = mine == other or abs(mine - other) < _EVEN_MM
        by_distance["equal" if even else "smaller" if mine < other else "larger"].append(name)
    parts = [f"{word} in {_list(names)}" for word, names in by_distance.items() if names]
    line = f"Its mean Hausdorff distance (HD) is {_list(parts)}"
    if not by_distance["smaller"]:
        return (
            f"{line}: here it does not win. It finds thin structures later than Dice loss, for its gradient is small "
            "where the network is sure and wrong: try more epochs."
        )
    if by_distance["larger"]:
        return f"{line}: no clear win. HD hangs on the worst voxel of each heart, so look at the intervals and p above."
    return f"{line}: fewer voxels far from where they belong."


def _find(rows: Sequence[Row], method: str, classes: Sequence[str]) -> _Found:
    """Mean Dice over the cases that have the class, mean HD over those where it was found."""
    mine = [row for row in rows if row.method == method and row.class_name in classes]
    dice = [row.value for row in mine if row.metric == "dice" and row.status != "absent"]
    hd = [row.value for row in mine if row.metric == "hd" and row.status == "ok"]
    missed = sum(row.metric == "dice" and row.status == "missed" for row in mine)
    ok = sum(row.metric == "dice" and row.status == "ok" for row in mine)
    return _Found(float(np.mean(dice)), float(np.mean(hd)) if hd else np.inf, ok, missed)


def _list(words: Sequence[str]) -> str:
    return " and ".join((", ".join(words[:-1]), words[-1])) if len(words) > 1 else words[0]


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
    affine[:3, :3] = turns * np.array(SPACING_MM[::-1]) * (-1, -1, 1)  # x to the left, y to the back and down
    size = (shape[2], shape[1], shape[0])
    affine[:3, 3] = -affine[:3, :3] @ (np.array(size) - 1) / 2
    return Geometry(affine, size, (2, 1, 0), size)
