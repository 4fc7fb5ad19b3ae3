"""Images of one or several channels: which files make a case, and how they are read."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rwtool.datasets.cases import find_cases
from rwtool.errors import GeometryError, UsageError, VolumeError, shorten
from rwtool.io.formats import read_image, suited
from rwtool.io.geometry import Geometry
from rwtool.io.grids import Match, Turn, match_turned
from rwtool.io.volume import Volume

_CHANNEL = re.compile(r"(.+)_(\d{4})")


ImageFiles = dict[str, tuple[Path, ...]]


def find_images(
    source: str | Path, *, names: Collection[str] | None = None, channels: int | None = None, numbered: bool = False
) -> tuple[ImageFiles, bool]:
    """Find the images of a folder, a file or a glob: one file a case, or one per channel.

    Parameters
    ----------
    source : path or glob
        A folder that holds ``imagesTr`` (an nnU-Net data set) stands for that folder.
    names : collection of str, optional
        Names of the cases wanted: a file named so is a case; ``<name>_0000``, ``<name>_0001``, ... are its channels.
        Other images are passed over. Without it, `numbered` tells whether names end in a channel.
    channels : int, optional
        How many each case must have; by default as many as the first.
    numbered : bool

    Returns
    -------
    images : dict of str to tuple of Path
        Case to its channels' files.
    numbered : bool

    Raises
    ------
    UsageError
        A case has no image, or another number of channels.
    """
    folder = Path(source)
    files = find_cases(folder / "imagesTr" if (folder / "imagesTr").is_dir() else source)
    single: dict[str, Path] = {}
    grouped: dict[str, dict[int, Path]] = {}
    for name, path in files.items():
        match = _CHANNEL.fullmatch(name)
        if match and (match[1] in names if names is not None else numbered) and name not in (names or ()):
            grouped.setdefault(match[1], {})[int(match[2])] = path
        elif names is None or name in names:
            single[name] = path
    both = sorted(set(single) & set(grouped))
    if both:
        raise UsageError(f"{source}: {both[0]} has an image {single[both[0]].name} and channels beside it; keep one")
    if numbered and single and grouped:
        raise UsageError(
            f"{source}: some images have a channel in their name, such as {next(iter(grouped))}_0000, and some, such "
            f"as {next(iter(single.values())).name}, have none"
        )
    images: ImageFiles = {name: (path,) for name, path in single.items()}
    for name, parts in grouped.items():
        lacking = [number for number in range(max(len(parts), channels or 1)) if number not in parts]
        if lacking:
            raise UsageError(
                f"{source}: {name} lacks channel {lacking[0]:04d}: found {', '.join(p.name for p in parts.values())}; "
                f"expected {name}_0000 to {name}_{max(len(parts), channels or 1) - 1:04d}"
            )
        images[name] = tuple(path for _, path in sorted(parts.items()))
    if names is not None and (missing := sorted(set(names) - set(images))):
        raise UsageError(
            f"{source}: no image for {shorten(missing)}; expected files named as their labels, or with _0000, "
            f"_0001, ... for channels; found {shorten(list(files))}"
        )
    images = dict(sorted(images.items()))
    wanted = len(next(iter(images.values()))) if channels is None else channels
    for name, paths in images.items():
        if len(paths) != wanted:
            raise UsageError(
                f"{source}: {name} has {len(paths)} channel{'s' * (len(paths) != 1)} "
                f"({', '.join(path.name for path in paths)}); expected {wanted}"
                + (f", as {next(iter(images))}" if channels is None else ", as in training")
            )
    return images, bool(grouped)


def read_channels_of(
    paths: Sequence[Path], *, spacing_mm: Sequence[float] | None = None, slice_axis: int | None = None
) -> tuple[NDArray[np.float32], Geometry, tuple[str, ...]]:
    """Read the channels of a case.

    Parameters
    ----------
    paths : sequence of C paths
    spacing_mm : (3,) float, optional
        Of files without one, such as ``.npy``; of no meaning to others.
    slice_axis : int, optional
        Of no meaning to ``.npy``.

    Returns
    -------
    image : (C, Z, Y, X) float32 array
    geometry : Geometry
        Of the first channel.
    notes : tuple of str

    Raises
    ------
    VolumeError
        A file cannot be read, or holds a value that is not finite.
    GeometryError
        The channels lie on different grids.
    """
    volumes: list[Volume] = []
    for path in paths:
        volume = read_image(path, **suited(path, spacing_mm=spacing_mm, slice_axis=slice_axis))
        if not np.isfinite(volume.array).all():
            where = tuple(int(i) for i in np.argwhere(~np.isfinite(volume.array))[0])
            raise VolumeError(
                f"{path}: expected finite intensities; found {volume.array[where]} at (z, y, x) = {where}; mend the "
                "file"
            )
        turn, match = match_turned(volumes[0].geometry, volume.geometry) if volumes else (Turn(), Match())
        if not match.same:
            raise GeometryError(
                f"{path}: it lies on another grid than {paths[0].name}: {match.difference}; resample it"
            )
        notes = volume.notes if match.note is None else (*volume.notes, match.note)
        volumes.append(replace(volume, array=turn.apply(volume.array), notes=notes))
    image = np.stack([volume.array for volume in volumes])
    return image, volumes[0].geometry, tuple(dict.fromkeys(note for v in volumes for note in v.notes))
