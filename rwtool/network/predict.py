"""From a trained run and images to label files, each on the grid of its image."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rwtool.claims import claimed
from rwtool.console import show_progress
from rwtool.datasets.channels import ImageFiles, find_images, read_channels_of
from rwtool.datasets.classes import Classes
from rwtool.datasets.runs import Which
from rwtool.engines import Engine, EngineName, choose_engine
from rwtool.errors import RwtoolError, UsageError, VolumeError, told_when_interrupted
from rwtool.files import file_crc32, make_folder, remove_leftovers
from rwtool.io.formats import check_suited, read_header, suited
from rwtool.io.geometry import Geometry
from rwtool.io.grids import Turn, turn_to
from rwtool.io.names import channels_name, label_name
from rwtool.io.write import create
from rwtool.network.checkpoint import Checkpoint, find_checkpoint, load_checkpoint
from rwtool.network.components import keep_largest as keep_largest_pieces
from rwtool.network.config import Amp
from rwtool.network.devices import resolve_amp, resolve_device, to_device
from rwtool.network.resample import as_half, resample_slices, size_for
from rwtool.network.segmenter import Segmenter, network_bytes, write_labels
from rwtool.parallel import Outcome, Work, attempt, run_cases, schedule
from rwtool.shards import Shard, Share, Standing, end_shard, parse_shard, size_of, take_share, warn_of_others

_PROBABILITIES = "probabilities"
_READERS = 2  # cases that are read ahead
_STARTS_ANEW = "overwrite=True does them all again"
_PROCESS_BYTES = 500_000_000


@dataclass(frozen=True)
class _Request:
    """What to predict, with what, and where to; see :func:`predict`."""

    run: Path
    images: str
    out: Path
    checkpoint: Which
    device: str
    amp: Amp
    tta: bool
    keep_largest: bool
    probabilities: bool
    overwrite: bool
    spacing_mm: tuple[float, float, float] | None
    slice_axis: int | None
    jobs: int | None = None
    shard: Shard | None = None

    @property
    def task(self) -> str:
        """What is done, in one line, whatever the shard."""
        said = f"predict {self.run.absolute()} {self.checkpoint}"
        return said + ", tta" * self.tta + ", largest" * self.keep_largest + ", probabilities" * self.probabilities


@dataclass(frozen=True)
class PredictPlan:
    """What a request comes to.

    Attributes
    ----------
    checkpoint : Checkpoint
    images : dict of str to tuple of Path
        Those of the shard, where one was asked for.
    share : Share or None
    notes : tuple of str
        What a user should know of the folders.
    engine : Engine or None
        Whose workers do the cases, if not this process.
    """

    request: _Request
    checkpoint: Checkpoint
    images: ImageFiles
    share: Share | None = None
    notes: tuple[str, ...] = ()
    engine: Engine | None = None


@dataclass(frozen=True, eq=False)
class _Read:
    image: NDArray[Any]
    size: tuple[int, int]
    geometry: Geometry
    turn: Turn  # from the axes of the file to those of the image
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Job:
    """A case for the worker of an engine."""

    request: _Request
    checkpoint: Path
    crc32: str  # of the checkpoint
    name: str
    paths: tuple[Path, ...]


@dataclass(frozen=True)
class Predictions:
    """What became of the images.

    Attributes
    ----------
    plan : PredictPlan
    outcomes : tuple of Outcome
        By case: its label file, or the reason why there is none.
    notes : dict of str to tuple of str
        What the images of a case were odd about.
    standing : Standing or None
        Of a shard: which of them have ended.
    """

    plan: PredictPlan
    outcomes: tuple[Outcome[Path], ...]
    notes: dict[str, tuple[str, ...]]
    standing: Standing | None = None

    @property
    def files(self) -> dict[str, Path]:
        """The label files, by case."""
        return {outcome.name: outcome.result for outcome in self.outcomes if outcome.result is not None}

    @property
    def failed(self) -> tuple[Outcome[Path], ...]:
        """The cases without a label file, with their reasons."""
        return tuple(outcome for outcome in self.outcomes if outcome.error is not None)


def predict(
    run: str | Path,
    images: str | Path,
    out: str | Path,
    *,
    checkpoint: Which = "last",
    device: str = "auto",
    amp: Amp = "auto",
    tta: bool = False,
    keep_largest: bool = False,
    probabilities: bool = False,
    overwrite: bool = False,
    spacing_mm: Sequence[float] | None = None,
    slice_axis: int | None = None,
    shard: str | None = None,
    jobs: int | None = None,
    engine: EngineName | None = None,
    scheduler: str | None = None,
    verbosity: int = -1,
    on_plan: Callable[[PredictPlan], None] | None = None,
) -> Predictions:
    """Segment images with a trained run: what ``rwtool predict`` does.

    Parameters
    ----------
    run : path
        Folder of a run of :func:`rwtool.train`, or a checkpoint file.
    images : path
        Folder, file or glob.
    out : path
        Folder for the label files, each on the grid of its image.
    checkpoint : {"last", "best"} or int
        best: that of the largest mean validation Dice. A number: that of this epoch, which the run has kept
        (``checkpoint_every``).
    device : str
        "auto", "cpu", "cuda" or "cuda:i".
    amp : {"auto", "bf16", "fp16", "off"}
        Auto is that of the run where the device has it.
    tta : bool
        Mean softmax over the flips that the run was trained with.
    keep_largest : bool
        Keep the largest piece of each class in the volume alone, and make background of its others; voxels that share a
        face, an edge or a corner belong together.
    probabilities : bool
        Write the softmax too, as float32 and in the format and place of the image, its classes last (first in
        ``.npy``); `keep_largest` leaves it as it is.
    overwrite : bool
        Replace label files that are in `out` already.
    spacing_mm : (3,) float, optional
        Along ``(z, y, x)``, of images that carry none.
    slice_axis : int, optional
        By default the one that was named in training, if any.
    shard : str, optional
        Segment one share of the cases, such as ``"2/8"``, or ``"slurm"``: see `rwtool help cluster`.
    jobs : int, optional
        Cases that are read at once, ahead of the network; by default 2, and a case that free
        memory does not hold is refused. With an engine, cases at once; by default all
        of its workers.
    engine, scheduler
        As for :func:`rwtool.make_maps`. Each worker loads the run, and `device` is then of its machine.
    verbosity : int
        -1 shows no progress.
    on_plan : callable, optional
        Called with the plan before anything is segmented.

    Returns
    -------
    Predictions
        One bad case does not cost the others: see its `failed`.

    Raises
    ------
    UsageError
        The run or the images do not fit.
    """
    spacing = None if spacing_mm is None else (float(spacing_mm[0]), float(spacing_mm[1]), float(spacing_mm[2]))
    request = _Request(
        Path(run), str(images), Path(out), checkpoint, device, amp, tta, keep_largest, probabilities, overwrite,
        spacing, slice_axis, jobs, parse_shard(shard),
    )  # fmt: skip
    plan = _plan(request, choose_engine(engine, scheduler, alike=_network_version))
    if on_plan is not None:
        on_plan(plan)
    return _predict(plan, verbosity)


@dataclass(frozen=True, eq=False)
class CaseSoftmax:
    """What a run makes of one case.

    Attributes
    ----------
    softmax : (K, Z, Y, X) float32 array
    geometry : Geometry
        Of the image.
    classes : Classes
    paths : tuple of Path
        The image, a file per channel.
    """

    softmax: NDArray[np.float32]
    geometry: Geometry
    classes: Classes
    paths: tuple[Path, ...]


def predict_softmax(
    run: str | Path,
    images: str | Path,
    case: str,
    *,
    checkpoint: Which = "last",
    device: str = "auto",
    spacing_mm: Sequence[float] | None = None,
    slice_axis: int | None = None,
) -> CaseSoftmax:
    """Softmax of one case, on the grid of its image; nothing is written.

    Parameters
    ----------
    run, checkpoint, device, spacing_mm, slice_axis
        As for :func:`predict`.
    images : path
        Folder, file or glob.
    case : str
        The name of its image; a file has any name.

    Raises
    ------
    UsageError
        The run or the images do not fit, or the case has no image.
    VolumeError
        The image cannot be read.
    """
    loaded = load_checkpoint(find_checkpoint(Path(run), checkpoint))
    task = loaded.task
    single = Path(images).is_file()
    found, _ = find_images(
        images, names=None if single else [case], channels=task.n_channels, numbered=task.numbered and not single
    )
    paths = next(iter(found.values()))
    spacing = None if spacing_mm is None else (float(spacing_mm[0]), float(spacing_mm[1]), float(spacing_mm[2]))
    check_suited(paths, spacing_mm=spacing)
    request = _Request(
        Path(run), str(images), Path(), checkpoint, device, "auto", False, False, False, False, spacing, slice_axis, 1
    )
    plan = PredictPlan(request, loaded, {case: paths})
    read = _read(plan, paths)
    softmax = _segmenter(plan).probabilities(read.image, read.size)
    return CaseSoftmax(read.turn.undo(softmax), read.geometry, task.classes, paths)


def _network_version() -> dict[str, str]:
    """What applies a network in this process, whatever devices it was built for."""
    return {"torch": version("torch").partition("+")[0]}


def _plan(request: _Request, engine: Engine | None) -> PredictPlan:
    """Load the run and find the images; nothing is written."""
    checkpoint = load_checkpoint(find_checkpoint(request.run, request.checkpoint))
    task = checkpoint.task
    if request.tta and (checkpoint.config.flip == "none" or not checkpoint.config.augment):
        raise UsageError(f"{request.run}: it was trained without flips, so tta=True would harm; leave it out")
    images, _ = find_images(request.images, channels=task.n_channels, numbered=task.numbered)
    folders = {path.resolve().parent for paths in images.values() for path in paths}
    if request.out.resolve() in folders:
        raise UsageError(f"the label files would go to {request.out}, where the images are; choose another out=")
    check_suited([path for paths in images.values() for path in paths], spacing_mm=request.spacing_mm)
    share, notes = None, []
    if request.shard is not None:
        share = take_share({name: size_of(paths) for name, paths in images.items()}, request.shard)
        images = {name: images[name] for name in share.names}
        again = "overwrite=True does what is there anew"
        notes = [*filter(None, [warn_of_others(request.out, share, request.task, again=again)])]
    there = sorted(
        path for name, paths in images.items() if (path := request.out / label_name(name, paths[0])).exists()
    )
    if there and not request.overwrite:
        raise UsageError(
            f"{request.out} holds label files of {len(there)} of these cases, first {there[0].name}; "
            "overwrite=True replaces them, or choose another out="
        )
    return PredictPlan(request, checkpoint, images, share, tuple(notes), engine)


def _predict(plan: PredictPlan, verbosity: int) -> Predictions:
    """Do what was planned."""
    out, engine = plan.request.out, plan.engine
    make_folder(out)
    with claimed(out, _told(plan), shared=True, mend="wait until it has ended, or name another out="):
        made = _predict_here(plan, verbosity) if engine is None else _predict_on_workers(plan, engine, verbosity)
        if plan.share is None:
            return made
        failed = {outcome.name: outcome.error for outcome in made.failed if outcome.error is not None}
        return replace(made, standing=end_shard(out, plan.share, plan.request.task, failed))


def _told(plan: PredictPlan) -> str:
    """What is written, for people, and whether it is what another process writes."""
    request, checkpoint = plan.request, plan.checkpoint
    weights = file_crc32(find_checkpoint(request.run, request.checkpoint))
    parts = [f"predictions of {request.run}, epoch {checkpoint.epoch}, CRC-32 {weights}"]
    ways = ("tta", "keep_largest", "probabilities")
    return ", ".join([*parts, *(name for name in ways if getattr(request, name))])


def _predict_on_workers(plan: PredictPlan, engine: Engine, verbosity: int) -> Predictions:
    """Each worker of an engine has the network, reads and writes."""
    request = plan.request
    path = find_checkpoint(request.run, request.checkpoint)
    crc32 = file_crc32(path)
    work = [
        Work(name, _Job(request, path, crc32, name, paths), _voxels(plan, paths)) for name, paths in plan.images.items()
    ]
    outcomes = run_cases(
        _predict_case,
        work,
        jobs=schedule(work, request.jobs, engine=engine).jobs,
        label="predict",
        verbosity=verbosity,
        folders=[request.out],
        rerun=_STARTS_ANEW,
        engine=engine,
    )
    found = {outcome.name: outcome.result for outcome in outcomes if outcome.result is not None}
    files = {name: request.out / file for name, (file, _) in found.items()}
    predicted = tuple(Outcome(o.name, files.get(o.name), o.error, o.details, o.seconds) for o in outcomes)
    return Predictions(plan, predicted, {name: notes for name, (_, notes) in found.items()})


def _predict_case(job: _Job) -> tuple[str, tuple[str, ...]]:
    """The name of the label file of a case, and what its images were odd about."""
    plan, segmenter = _loaded(job.request, job.checkpoint, job.crc32)
    plan = replace(plan, images={job.name: job.paths})
    reading: Future[_Read] = Future()
    reading.set_result(_read(plan, job.paths))
    return _segment_and_write(plan, segmenter, job.name, reading).name, reading.result().notes


@lru_cache(maxsize=1)
def _loaded(request: _Request, checkpoint: Path, crc32: str) -> tuple[PredictPlan, Segmenter]:
    """A run, loaded for the cases that this worker does of it."""
    if file_crc32(checkpoint) != crc32:
        raise VolumeError(f"{checkpoint}: it is not the checkpoint that this prediction began with; begin anew")
    plan = PredictPlan(request, load_checkpoint(checkpoint), {})
    return plan, _segmenter(plan)


def _predict_here(plan: PredictPlan, verbosity: int) -> Predictions:
    """Threads read the next cases while the network is busy."""
    request = plan.request
    remove_leftovers(request.out)
    segmenter = _segmenter(plan)
    work = [_work(plan, segmenter.device, name, paths) for name, paths in plan.images.items()]
    settled = schedule(work, request.jobs)
    outcomes: list[Outcome[Path]] = list(settled.refused)
    notes: dict[str, tuple[str, ...]] = {}
    voxels = {item.name: item.voxels for item in settled.work}
    with (
        told_when_interrupted(lambda: f"{len(outcomes)} of {len(work)} cases done; {_STARTS_ANEW}"),
        show_progress("predict", voxels, quiet=verbosity < 0) as advance,
        ThreadPoolExecutor(request.jobs or _READERS) as readers,
    ):
        for item, future in _read_ahead(plan, settled.work, readers):
            reading = Work(item.name, future, item.voxels)
            outcome = attempt(partial(_segment_and_write, plan, segmenter, item.name), reading)
            outcomes.append(outcome)
            if future.exception() is None:
                notes[item.name] = future.result().notes
            advance(outcome.name, outcome.seconds, outcome.error is not None)
    return Predictions(plan, tuple(outcomes), notes)


def _segmenter(plan: PredictPlan) -> Segmenter:
    request, config = plan.request, plan.checkpoint.config
    assert config.patch is not None
    device = resolve_device(request.device)
    network = to_device(plan.checkpoint.network(), device).eval()  # threads of a worker may share it
    flip = config.flip if request.tta else "none"
    return Segmenter(network, device, amp=_amp(request.amp, config.amp, device), patch=config.patch, flip=flip)


def _amp(wanted: Amp, trained: Amp, device: torch.device) -> Amp:
    """The precision of the run, so that predictions are those of its validation, unless the device lacks it."""
    if wanted == "auto" and (trained == "off" or (trained == "fp16" and device.type == "cuda")):
        return trained
    return resolve_amp(wanted, device)


def _read_ahead(
    plan: PredictPlan, work: Sequence[Work[tuple[Path, ...]]], readers: Executor
) -> Iterator[tuple[Work[tuple[Path, ...]], Future[_Read]]]:
    """Each case with what its reader gives, a few of them in memory at once."""
    waiting: deque[tuple[Work[tuple[Path, ...]], Future[_Read]]] = deque()
    for item in work:
        waiting.append((item, readers.submit(_read, plan, item.argument)))
        if len(waiting) > (plan.request.jobs or _READERS):
            yield waiting.popleft()
    while waiting:
        yield waiting.popleft()


def _read(plan: PredictPlan, paths: tuple[Path, ...]) -> _Read:
    request, config = plan.request, plan.checkpoint.config
    inputs, axis, directions = plan.checkpoint.inputs, request.slice_axis, None
    if axis is None:
        axis, directions = inputs.get("slice axis"), inputs.get("orientation")
    image, geometry, notes = read_channels_of(paths, spacing_mm=request.spacing_mm, slice_axis=axis)
    turn = turn_to(directions, geometry.directions, sliced=geometry.sliced)
    image = np.ascontiguousarray(turn.apply(plan.checkpoint.task.normalization.apply(image)))
    size = (image.shape[2], image.shape[3])
    pixel_mm = turn.order(geometry.spacing_mm)[1:]
    image = resample_slices(image, size_for(size, pixel_mm, config.target_spacing, config.pixels), order=1)
    return _Read(as_half(image), size, geometry, turn, notes)  # as in training, to the bit


def _segment_and_write(plan: PredictPlan, segmenter: Segmenter, name: str, reading: Future[_Read]) -> Path:
    read, request = reading.result(), plan.request
    like = plan.images[name][0]
    if request.probabilities:
        softmax = segmenter.probabilities(read.image, read.size)
        path = request.out / _PROBABILITIES / channels_name(name, like)
        with create(path, read.geometry, np.float32, channels=len(softmax)) as put:
            for channel in softmax:
                put(read.turn.undo(channel))
        labels = softmax.argmax(axis=0)
    else:
        labels = segmenter.labels(read.image, read.size)
    labels = read.turn.undo(labels)
    if request.keep_largest:
        labels = keep_largest_pieces(labels)
    return write_labels(request.out, name, labels, read.geometry, like, plan.checkpoint.task.classes)


def _voxels(plan: PredictPlan, paths: tuple[Path, ...]) -> int:
    """Size of a case; 1 where its file cannot be read, which its reader will say."""
    try:
        header = read_header(paths[0], **suited(paths[0], spacing_mm=plan.request.spacing_mm))
    except RwtoolError:
        return 1
    return math.prod(header.geometry.shape)


def _work(plan: PredictPlan, device: torch.device, name: str, paths: tuple[Path, ...]) -> Work[tuple[Path, ...]]:
    """A case with its size, and the memory that it takes at most with those that are read ahead of it."""
    voxels = _voxels(plan, paths)
    task, config, request = plan.checkpoint.task, plan.checkpoint.config, plan.request
    reading = 14 * task.n_channels + 8
    waiting = (request.jobs or _READERS) * 4 * task.n_channels
    segmented = 12 + (9 if request.keep_largest else 0)
    softmax = 4 * len(task.classes) + 8 if request.probabilities else 0
    network = 0 if device.type == "cuda" else network_bytes(config.features, len(task.classes), voxels)
    peak = voxels * (max(reading, segmented + softmax) + waiting) + network + _PROCESS_BYTES
    return Work(name, paths, voxels, peak)
