"""Images of one or several channels: which files make a case, and how they are read."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rwtool.datasets.cases import list_volumes
from rwtool.datasets.layouts import NamePattern, Role, known_roles
from rwtool.errors import GeometryError, RwtoolError, UsageError, VolumeError, shorten
from rwtool.io.formats import count_channels, read_image_channels, suited
from rwtool.io.geometry import Geometry
from rwtool.io.grids import Match, Turn, match_turned
from rwtool.io.names import case_name, companion
from rwtool.io.volume import Volume

_CHANNEL = re.compile(r"(.+)_(\d{4})")


ImageFiles = dict[str, tuple[Path, ...]]


def find_images(
    source: str | Path,
    *,
    names: Collection[str] | None = None,
    channels: int | None = None,
    numbered: bool = False,
    name: str | None = None,
) -> tuple[ImageFiles, bool]:
    """Find the images of a folder, a file or a glob: one file a case, or one per channel.

    Parameters
    ----------
    source : path or glob
        A folder that holds ``imagesTr`` (an nnU-Net data set) stands for that folder.
    names : collection of str, optional
        Names of the cases wanted: a file named so is a case; ``<name>_0000``, ``<name>_0001``, ... are its channels,
        and so are the modalities of BraTS and BIDS. Other images are passed over. Without it, `numbered` tells whether
        names end in a channel.
    channels : int, optional
        How many each case must have, in files of their own or in one 4D, vector or colour image; by default as many as
        the first.
    numbered : bool
    name : str, optional
        Which part of the path is the name of the case and, if wanted, of the channel, such as
        ``{case}/{case}_{channel}.nii.gz``.

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
    files, _, nested = list_volumes(source, "imagesTr", deep=name is not None)
    single, grouped = _sorted_out(source, files, names, numbered or nested, NamePattern(name) if name else None)
    both = sorted(set(single) & set(grouped))
    if both:
        raise UsageError(f"{source}: {both[0]} has an image {single[both[0]].name} and channels beside it; keep one")
    if numbered and single and grouped:
        raise UsageError(
            f"{source}: some images have a channel in their name, such as {next(iter(grouped))}_0000, and some, such "
            f"as {next(iter(single.values())).name}, have none"
        )
    images: ImageFiles = {name: (path,) for name, path in single.items()}
    for case, parts in grouped.items():
        images[case] = _in_order(source, case, parts, channels)
    if names is not None and (missing := sorted(set(names) - set(images))):
        raise UsageError(
            f"{source}: no image for {shorten(missing)}; expected files named as their labels, or with _0000, "
            f"_0001, ... for channels; found {shorten(list(map(case_name, files)))}"
        )
    images = dict(sorted(images.items()))
    _check_counts(source, images, channels)
    return images, bool(grouped)


def _sorted_out(
    source: str | Path,
    files: list[Path],
    names: Collection[str] | None,
    numbered: bool,
    pattern: NamePattern | None,
) -> tuple[dict[str, Path], dict[str, dict[str, Path]]]:
    """Images that are a case each, and those that are its channels."""
    single: dict[str, Path] = {}
    grouped: dict[str, dict[str, Path]] = {}
    roles = known_roles(files)
    for path in files:
        if pattern is not None:
            found = pattern.match(path)
        else:
            found = _case_and_channel(path, roles.get(path), names, numbered)
        if found is None or (names is not None and found[0] not in names):
            continue
        case, channel = found
        there = grouped.get(case, {}).get(channel) if channel else single.get(case)
        if there is not None and companion(there) != path:
            raise UsageError(
                f"{source}: two images have the case name {case!r}: {there} and {path}; rename or move one of them"
            )
        if there is None and channel:
            grouped.setdefault(case, {})[channel] = path
        elif there is None:
            single[case] = path
    if all(len(parts) == 1 and not next(iter(parts)).isdecimal() for parts in grouped.values()):  # one contrast
        single.update({case: next(iter(parts.values())) for case, parts in grouped.items() if case not in single})
        grouped = {case: parts for case, parts in grouped.items() if single[case] not in parts.values()}
    return single, grouped


def _case_and_channel(
    path: Path, role: Role | None, names: Collection[str] | None, numbered: bool
) -> tuple[str, str] | None:
    """Case of an image and its channel, empty where it has none; None for what is no image."""
    own = case_name(path)
    if names is not None and own in names:
        return own, ""
    if ending := _CHANNEL.fullmatch(own):
        if ending[1] in names if names is not None else numbered:
            return ending[1], ending[2]
    elif role is not None:
        if role.labels:
            return None
        if role.case in names if names is not None else numbered or not role.channel:
            return role.case, role.channel
    return own, ""


def _in_order(source: str | Path, case: str, parts: dict[str, Path], channels: int | None) -> tuple[Path, ...]:
    """The files of a case in the order of their channels; numbered ones must be all there."""
    if all(channel.isdecimal() and len(channel) == 4 for channel in parts):
        count = max(len(parts), channels or 1)
        lacking = [number for number in range(count) if f"{number:04d}" not in parts]
        if lacking:
            raise UsageError(
                f"{source}: {case} lacks channel {lacking[0]:04d}: found {', '.join(p.name for p in parts.values())}; "
                f"expected {case}_0000 to {case}_{count - 1:04d}"
            )
    return tuple(path for _, path in sorted(parts.items()))


def _check_counts(source: str | Path, images: ImageFiles, channels: int | None) -> None:
    """Refuse cases of differing numbers of channels; a case of one file may hold them all in it."""
    counts = {case: len(paths) if len(paths) > 1 else _channels_in(paths[0]) for case, paths in images.items()}
    wanted = next(iter(counts.values())) if channels is None else channels
    for case, paths in images.items():
        if counts[case] != wanted:
            raise UsageError(
                f"{source}: {case} has {counts[case]} channel{'s' * (counts[case] != 1)} "
                f"({', '.join(path.name for path in paths)}); expected {wanted}"
                + (f", as {next(iter(images))}" if channels is None else ", as in training")
            )


def _channels_in(path: Path) -> int:
    """Channels of one file; 1 where it cannot be read, which its reader will say."""
    try:
        return count_channels(path)
    except RwtoolError:
        return 1


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
        for volume in read_image_channels(path, **suited(path, spacing_mm=spacing_mm, slice_axis=slice_axis)):
            _refuse_not_finite(path, volume.array)
            turn, match = match_turned(volumes[0].geometry, volume.geometry) if volumes else (Turn(), Match())
            if not match.same:
                raise GeometryError(
                    f"{path}: it lies on another grid than {paths[0].name}: {match.difference}; resample it"
                )
            notes = volume.notes if match.note is None else (*volume.notes, match.note)
            volumes.append(replace(volume, array=turn.apply(volume.array), notes=notes))
    image = np.stack([volume.array for volume in volumes])
    return image, volumes[0].geometry, tuple(dict.fromkeys(note for v in volumes for note in v.notes))


def _refuse_not_finite(path: Path, array: NDArray[np.float32]) -> None:
    finite = np.isfinite(array)
    if not finite.all():
        where = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise VolumeError(
            f"{path}: expected finite intensities; found {array[where]} at (z, y, x) = {where}; mend the file"
        )
