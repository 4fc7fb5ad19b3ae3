"""The worst slice of a case, small: the outlines of reference and prediction, over the image where there is one."""

from __future__ import annotations

import base64
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rwtool.datasets.channels import read_channels_of
from rwtool.datasets.plan import LabelFile
from rwtool.errors import RwtoolError, VolumeError
from rwtool.evaluation.case import Settings, peak_bytes
from rwtool.evaluation.evaluate import Evaluation
from rwtool.evaluation.regrid import read_aligned
from rwtool.io.geometry import Directions
from rwtool.io.grids import match_turned, turn_to
from rwtool.io.names import file_hash
from rwtool.io.volume import Volume
from rwtool.parallel import Work, run_cases, schedule
from rwtool.report.cases import WorstCase
from rwtool.report.figures import COLOURS

CasePair = tuple[str, str, str]
"""Method, run and case."""

_MOST_PIXELS = 256  # of an image along an axis
_MARGIN, _LEAST_MARGIN = 0.15, 4  # around the structures: a share of their size, and voxels
_CONTRAST = (1.0, 99.0)  # percentiles of the image that are black and white
_VOXEL_NS = 3.0  # to read a voxel and to compare it
_DISPLAY: tuple[Directions, ...] = (  # where z, y and x of a slice point as radiologists look at it, by its plane
    ((0.0, 0.0, 1.0), (0.0, -1.0, 0.0), (-1.0, 0.0, 0.0)),
    ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0), (-1.0, 0.0, 0.0)),
    ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, -1.0, 0.0)),
)


@dataclass(frozen=True)
class Thumbnail:
    """A picture of one prediction, or the reason why there is none.

    Attributes
    ----------
    svg : str
        An ``<svg>`` element; empty where there is none.
    text : str
        Which slice it is and what is wrong in it; or the reason.
    labels : tuple of int
        Class indices that it shows.
    """

    svg: str
    text: str
    labels: tuple[int, ...] = ()


@dataclass(frozen=True)
class ThumbnailJob:
    """Pictures of one case.

    Attributes
    ----------
    reference : LabelFile
    predictions : tuple of (Path or None, str or None)
        Each file, and its hash when it was measured.
    settings : Settings
    images : tuple of Path
        Channels of the image; empty without one.
    """

    reference: LabelFile
    predictions: tuple[tuple[Path | None, str | None], ...]
    settings: Settings
    images: tuple[Path, ...] = ()


def draw_worst(evaluation: Evaluation, worst: Sequence[WorstCase]) -> dict[CasePair, Thumbnail]:
    """Draw each of some cases; each file is read once, and a case that cannot be read has its reason."""
    plan = evaluation.plan
    runs = {(run.method, run.name): i for i, run in enumerate(plan.pairing.runs)}
    wanted: dict[str, list[WorstCase]] = {}
    for item in worst:
        wanted.setdefault(item.case, []).append(item)
    jobs = {work.name: work.argument for work in plan.work}
    work = []
    for case, items in wanted.items():
        places = [runs[item.method, item.run] for item in items]
        files = tuple((jobs[case].predictions[i], evaluation.measured[case][i].sha256) for i in places)
        job = ThumbnailJob(jobs[case].reference, files, jobs[case].settings, plan.images.get(case, ()))
        memory = peak_bytes(replace(jobs[case], predictions=tuple(path for path, _ in files)))
        image = 8 * jobs[case].reference.voxels * len(job.images)
        work.append(Work(case, job, jobs[case].reference.voxels * (1 + len(files)), memory + image))
    settled = schedule(work, plan.request.jobs, voxel_ns=_VOXEL_NS)
    verbosity = plan.request.verbosity
    outcomes = settled.refused + run_cases(
        draw_case, settled.work, jobs=settled.jobs, label="report", verbosity=verbosity, bar_only=True
    )
    found = {}
    for outcome in outcomes:
        items = wanted[outcome.name]
        pictures = outcome.result or [Thumbnail("", f"No picture: {outcome.error}") for _ in items]
        found.update({(item.method, item.run, item.case): one for item, one in zip(items, pictures, strict=True)})
    return found


def draw_case(job: ThumbnailJob) -> list[Thumbnail]:
    """Draw the predictions of a case, in their order.

    Raises
    ------
    RwtoolError
        The reference cannot be read, or has changed since it was measured.
    """
    _refuse_changed(job.reference.path, job.reference.sha256)
    reference = job.reference.read()
    image, lack = _read_image(job, reference)
    pictures = []
    for path, sha256 in job.predictions:
        if path is None:
            pictures.append(Thumbnail("", "No picture: there is no prediction."))
            continue
        try:
            _refuse_changed(path, sha256)
            aligned = read_aligned(
                path, reference, job.reference.path, classes=job.settings.classes, resample=job.settings.resample
            )
        except RwtoolError as error:
            pictures.append(Thumbnail("", f"No picture: {error}"))
            continue
        picture = draw_pair(reference, aligned.array, image)
        pictures.append(replace(picture, text=picture.text + lack))
    return pictures


def draw_pair(reference: Volume, prediction: NDArray[Any], image: NDArray[Any] | None = None) -> Thumbnail:
    """Draw the slice with the most wrong voxels, the first of them; without any, the one with most of the reference.

    Parameters
    ----------
    reference : Volume
        Class indices.
    prediction : (Z, Y, X) integer array
        Class indices on its grid.
    image : (Z, Y, X) float array, optional
        On the same grid.

    Returns
    -------
    Thumbnail
        Cropped to the structures, in true proportions; turned as radiologists look at it where the file says how it
        lies.
    """
    wrong = _wrong_voxels(reference, prediction)
    z = int(np.argmax(wrong))
    if not wrong[z]:
        z = int(np.argmax([np.count_nonzero(_foreground(reference, plane)) for plane in reference.array]))
    turn = turn_to(_display(reference.geometry.directions), reference.geometry.directions, sliced=True)
    ours, theirs = (turn.apply(array[z : z + 1])[0] for array in (reference.array, prediction))
    shown = _foreground(reference, ours) | _foreground(reference, theirs)
    box = _cropped(np.asarray(shown.any(axis=1))), _cropped(np.asarray(shown.any(axis=0)))
    ours, theirs = ours[box], theirs[box]
    _, mm_y, mm_x = turn.order(reference.spacing_mm)
    height, width = ours.shape[0] * mm_y, ours.shape[1] * mm_x
    found = [int(k) for k in np.union1d(ours, theirs) if k not in (0, reference.ignored)]
    parts = []
    if image is not None:
        parts.append(_picture(turn.apply(image[z : z + 1])[0][box], mm_y, mm_x))
    parts.append(f'<g transform="scale({mm_x:.6g} {mm_y:.6g})" fill="none" stroke-linecap="square">')
    line = 'vector-effect="non-scaling-stroke"'
    for k in found:
        parts.append(f'<path {line} stroke="#fff" stroke-width="3" d="{outline(ours == k)}"/>')
    for k in found:
        colour = class_colour(k)
        parts.append(f'<path {line} stroke="{colour}" stroke-width="1.4" d="{outline(theirs == k)}"/>')
    text = f"Slice {z + 1} of {len(wrong)}, {wrong[z]:,} wrong voxel{'s' * (wrong[z] != 1)} of {sum(wrong):,} in all"
    opening = f'<svg viewBox="0 0 {width:.6g} {height:.6g}" role="img" aria-label="{text}">'
    return Thumbnail(f"{opening}{''.join(parts)}</g></svg>", text, tuple(found))


def class_colour(index: int) -> str:
    """Of the outline of a class, by its index."""
    return COLOURS[index % len(COLOURS)]


def outline(mask: NDArray[np.bool_]) -> str:
    """The edges between the pixels of a mask and the others, as the data of an SVG path.

    >>> outline(np.array([[True, True]]))
    'M0 0h2M0 1h2M0 0v1M2 0v1'
    """
    padded = np.pad(mask, 1)
    lines = []
    for step, edges in (
        ("M{0} {1}h{2}", (padded[1:] != padded[:-1])[:, 1:-1]),
        ("M{1} {0}v{2}", (padded[:, 1:] != padded[:, :-1])[1:-1].T),
    ):
        ends = np.diff(np.pad(edges, ((0, 0), (1, 1))).astype(np.int8), axis=1)
        at, starts = np.nonzero(ends == 1)
        _, stops = np.nonzero(ends == -1)
        lines += [step.format(start, row, stop - start) for row, start, stop in zip(at, starts, stops, strict=True)]
    return "".join(lines)


def _wrong_voxels(reference: Volume, prediction: NDArray[Any]) -> list[int]:
    """How many each slice has; at once, since slices may lie across the memory."""
    wrong = reference.array != prediction
    if reference.ignored is not None:
        wrong &= reference.array != reference.ignored
    found: list[int] = np.count_nonzero(wrong, axis=(1, 2)).tolist()
    return found


def _foreground(reference: Volume, plane: NDArray[Any]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = plane != 0
    return found if reference.ignored is None else found & (plane != reference.ignored)


def _display(own: Directions | None) -> Directions | None:
    """How a slice is looked at, by the direction across it: axial, coronal or sagittal."""
    if own is None:
        return None
    return _DISPLAY[2 - int(np.argmax(np.abs(own[0])))]


def _cropped(inside: NDArray[np.bool_]) -> slice:
    """Where something is, with a margin; all where nothing is."""
    found = np.flatnonzero(inside)
    if not found.size:
        return slice(0, len(inside))
    margin = max(_LEAST_MARGIN, math.ceil(_MARGIN * (found[-1] + 1 - found[0])))
    return slice(max(0, int(found[0]) - margin), min(len(inside), int(found[-1]) + 1 + margin))


def _read_image(job: ThumbnailJob, reference: Volume) -> tuple[NDArray[np.float32] | None, str]:
    """The first channel on the grid of the reference; or None, and a sentence why."""
    if not job.images:
        return None, ""
    try:
        image, geometry, _ = read_channels_of(
            job.images[:1], spacing_mm=job.reference.spacing_mm, slice_axis=job.reference.slice_axis
        )
        turn, match = match_turned(reference.geometry, geometry)
    except RwtoolError as error:
        return None, f". No image: {error}"
    if not match.same:
        return None, f". No image: {job.images[0]} lies on another grid than its labels: {match.difference}"
    return turn.apply(image[0]), ""


def _picture(pixels: NDArray[np.float32], mm_y: float, mm_x: float) -> str:
    """Pixels as a PNG within an SVG, thinned out where there are many."""
    step = math.ceil(max(pixels.shape) / _MOST_PIXELS)
    pixels = pixels[::step, ::step]
    black, white = np.percentile(pixels, _CONTRAST)
    grey = np.clip((pixels - black) / ((white - black) or 1.0), 0, 1)
    data = base64.b64encode(_png(np.round(255 * grey).astype(np.uint8))).decode("ascii")
    height, width = pixels.shape[0] * step * mm_y, pixels.shape[1] * step * mm_x
    return (
        f'<image width="{width:.6g}" height="{height:.6g}" preserveAspectRatio="none" '
        f'href="data:image/png;base64,{data}"/>'
    )


def _png(pixels: NDArray[np.uint8]) -> bytes:
    import SimpleITK as sitk  # heavy, and here already

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "slice.png"
        sitk.WriteImage(sitk.GetImageFromArray(pixels), str(path), useCompression=True)
        return path.read_bytes()


def _refuse_changed(path: Path, sha256: str | None) -> None:
    try:
        now = file_hash(path)
    except OSError as error:
        raise VolumeError(f"{path} cannot be read any more: {error.strerror}") from error
    if now != sha256:
        raise VolumeError(f"{path} has changed since it was measured")
