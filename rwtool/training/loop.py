"""The training loop: from a cohort in memory to a run on disk."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from rwtool.datasets.runs import CURVES, PREDICTIONS, kept_checkpoint
from rwtool.errors import RwtoolError, UsageError, shorten, told_when_interrupted
from rwtool.maps.parameters import MapParameters
from rwtool.network.checkpoint import CHECKPOINTS, Checkpoint, Task, build_network, load_checkpoint
from rwtool.network.config import RateSchedule, TrainConfig, refuse_changes
from rwtool.network.devices import autocast, resolve_amp, to_device
from rwtool.network.segmenter import Segmenter
from rwtool.network.unet import stages_for
from rwtool.report.curves import CurvePicture
from rwtool.training.averaging import move_average
from rwtool.training.cohort import Cohort
from rwtool.training.distributed import ALONE, Processes, device_of, mean_over
from rwtool.training.objective import Objective
from rwtool.training.record import open_tensorboard, write_metrics, write_results, write_start
from rwtool.training.slices import SliceSet, choose_batch_size, choose_patch, round_patch
from rwtool.training.validation import Validation, validate

_POWER = 0.9  # of the learning rate's fall
HOLDS_A_RUN = "{} holds a run; resume=True goes on with it, overwrite=True starts anew, or name another run="
_LOG_STEPS = 50  # between looks at the losses, for which a CUDA device must be waited for


class DivergedError(RwtoolError):
    """The loss became NaN or infinite, in a step of an epoch; both from 1 on."""

    def __init__(self, message: str, epoch: int, step: int) -> None:
        super().__init__(message)
        self.epoch, self.step = epoch, step


class Display(Protocol):
    """What shows a run while it goes on; see :mod:`rwtool.training.display`."""

    def step(self, epoch: int, step: int, steps: int, loss: float, slices: int) -> None:
        """Some steps of an epoch are done."""

    def epoch(self, row: Mapping[str, Any]) -> None:
        """An epoch is done."""

    def note(self, text: str) -> None:
        """Something of the run is not as it should be."""


def learning_rate(step: int, steps: int, lr: float, schedule: RateSchedule = "poly") -> float:
    """The rate of a step: ``lr (1 - step / steps) ** 0.9``; or by half a cosine, or always the same.

    >>> [round(learning_rate(step, 4, 1.0), 3) for step in range(4)]
    [1.0, 0.772, 0.536, 0.287]
    >>> [round(learning_rate(step, 4, 1.0, "cosine"), 3) for step in range(4)]
    [1.0, 0.854, 0.5, 0.146]
    """
    if schedule == "constant":
        return lr
    if schedule == "cosine":
        return lr * (1 + math.cos(math.pi * step / steps)) / 2
    return float(lr * (1 - step / steps) ** _POWER)


def settle(config: TrainConfig, cohort: Cohort, processes: Processes = ALONE) -> TrainConfig:
    """Fill in what a configuration leaves to the data and the device: patch, depth, batch size, amp.

    Raises
    ------
    UsageError
        The parts do not fit together.
    """
    train = [cohort.cases[name] for name in cohort.split.train]
    patch = config.patch or choose_patch(train)
    depth = config.depth or max(2, stages_for(patch))
    patch = round_patch(patch, 1 << (depth - 1))
    if all(side >> (depth - 1) == 1 for side in patch):  # nothing to normalise there
        raise UsageError(
            f"depth={depth} leaves a single pixel of a patch of {patch[0]} x {patch[1]} at the last stage; give a "
            "smaller depth= or a larger patch="
        )
    slices = sum(case.image.shape[1] for case in train)
    batch_size = config.batch_size or choose_batch_size(patch, slices, processes.count)
    if batch_size % processes.count:
        raise UsageError(f"batch_size={batch_size} cannot be shared by {processes.count} processes; give a multiple")
    device = device_of(config.device, processes)
    if config.norm == "batch" and processes.count > 1 and device.type != "cuda":
        raise UsageError("norm=batch over several processes is for CUDA devices; give norm=instance")
    return replace(config, patch=patch, depth=depth, batch_size=batch_size, amp=resolve_amp(config.amp, device))


def start_run(run: Path, config: TrainConfig, cohort: Cohort, *, resume: bool) -> Checkpoint:
    """Open the folder of a run: where it was left, or at its beginning.

    Parameters
    ----------
    run : Path
    config : TrainConfig
        Settled.
    cohort : Cohort
        Read.
    resume : bool

    Returns
    -------
    Checkpoint
        With `epoch` 0 and a freshly initialised network at the beginning.

    Raises
    ------
    UsageError
        The folder holds a run that is not to be resumed, or one of other settings or data.
    """
    hashes, split = cohort.hashes(), {"train": list(cohort.split.train), "val": list(cohort.split.val)}
    inputs = study_inputs(cohort)
    path = run / CHECKPOINTS["last"]
    if path.is_file():
        if not resume:
            raise UsageError(HOLDS_A_RUN.format(run))
        checkpoint = load_checkpoint(path)
        refuse_changes(checkpoint.config, asdict(config))
        old = checkpoint.hashes
        changed = sorted(name for name in {*hashes, *old} if hashes.get(name) != old.get(name))
        what = [f"the files of {shorten(changed)}"] if changed else []
        what += ["the split"] if split != checkpoint.split else []
        what += [f"the {name}" for name, value in inputs.items() if checkpoint.inputs.get(name, value) != value]
        if what:
            raise UsageError(
                f"{run}: changed since the run began: {', '.join(what)}; put them back, or start another RUN"
            )
        return checkpoint
    torch.manual_seed(config.seed)
    task = Task(cohort.classes, cohort.n_channels, cohort.numbered, cohort.normalization)
    model = build_network(config, task).state_dict()
    return Checkpoint(config, task, model, 0, hashes=hashes, split=split, inputs=inputs)


def study_inputs(cohort: Cohort) -> dict[str, Any]:
    """What else of a study decides what a run comes to: neither a setting nor the content of a file."""
    use, source = cohort.map_use, cohort.source
    maps = None
    if use is not None and use.maps is not None:
        maps = {**use.maps.settings.as_dict()["parameters"], "dtype": use.maps.settings.storage.dtype}
    elif use is not None:
        maps = {**MapParameters(use.kind).as_dict(), "dtype": "float32"}  # type: ignore[arg-type]
    return {
        "classes": list(cohort.classes.values),
        "ignored label": cohort.classes.ignore,
        "slice axis": source.slice_axis,
        "orientation": cohort.directions,
        "file spacing": None if source.spacing_mm is None else list(source.spacing_mm),
        "maps": maps,
    }


def prepare_slices(cohort: Cohort, config: TrainConfig, device: torch.device, processes: Processes) -> SliceSet:
    """Bring the training slices to the device, as a settled configuration wants them."""
    assert config.patch is not None
    return SliceSet(
        [cohort.cases[name] for name in cohort.split.train],
        device,
        config.patch,
        scale_magnitudes=cohort.map_use is not None and cohort.map_use.scales,
        augment=config.augment,
        flip=config.flip,
        share=(processes.rank, processes.count),
        stacked=cohort.room.stacked,
    )


def train_run(  # noqa: PLR0912, PLR0915  # one loop, to be read from top to bottom
    run: Path,
    checkpoint: Checkpoint,
    cohort: Cohort,
    data: SliceSet,
    *,
    processes: Processes = ALONE,
    display: Display | None = None,
    tensorboard: bool = False,
) -> Validation | None:
    """Train a network, from a checkpoint on, and validate it.

    Parameters
    ----------
    run : Path
        Folder for ``metrics.csv``, ``curves.png``, ``last.pt``, ``best.pt``, ``checkpoints/``, ``config.toml``,
        ``split.json``, ``run.json`` and ``predictions/``.
    checkpoint : Checkpoint
        Of :func:`start_run`.
    cohort : Cohort
        Its validation cases, and what it says of the study.
    data : SliceSet
        Of :func:`prepare_slices`; its device is trained on.
    processes : Processes
    display : Display, optional
    tensorboard : bool
        Write ``tensorboard/`` too.

    Returns
    -------
    Validation or None
        Of the last epoch, with HD in mm; None without validation cases.

    Raises
    ------
    DivergedError
        The loss became NaN or infinite.
    """
    config, there = checkpoint.config, data.device
    assert config.patch is not None
    assert config.batch_size is not None
    if processes.first:
        write_start(run, checkpoint)
    on_cuda = there.type == "cuda"
    network = to_device(checkpoint.network(), there)
    averaged = None if config.ema is None else copy.deepcopy(network)
    if checkpoint.trained is not None:
        network.load_state_dict(dict(checkpoint.trained))
    model: nn.Module = network
    if processes.count > 1:
        if config.norm == "batch":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        model = nn.parallel.DistributedDataParallel(model, device_ids=[there.index] if on_cuda else None)
    forward: Callable[..., list[Tensor]] = torch.compile(model) if config.compile else model
    optimizer = torch.optim.Adam(network.parameters(), lr=config.lr, fused=True)
    scaler = torch.amp.GradScaler(there.type, enabled=config.amp == "fp16")
    if checkpoint.optimizer is not None and checkpoint.scaler is not None:
        optimizer.load_state_dict(dict(checkpoint.optimizer))
        scaler.load_state_dict(dict(checkpoint.scaler))
    objective = Objective(config, cohort.map_use, there)
    shown = averaged or network  # what is validated, and predicts
    segmenter = Segmenter(shown, there, amp=config.amp, patch=config.patch)
    history, best, saved = list(checkpoint.history), checkpoint.best, checkpoint.epoch
    validation: Validation | None = None
    classes = cohort.classes
    picture = CurvePicture(run / CURVES, dict(zip(classes.values[1:], classes.names[1:], strict=True)))

    with (
        told_when_interrupted(lambda: f"{saved} of {config.epochs} epochs are saved in {run}; resume=True goes on"),
        open_tensorboard(run if tensorboard and processes.first else None, checkpoint.epoch) as scalars,
    ):
        for epoch in range(checkpoint.epoch, config.epochs):
            start = time.perf_counter()
            plan = data.plan_epoch(config.batch_size, config.seed, epoch, config.steps_per_epoch)
            steps = len(plan)
            losses = torch.zeros(steps, device=there)
            model.train()
            for step, batch in enumerate(data.batches(plan)):
                lr = learning_rate(epoch * steps + step, config.epochs * steps, config.lr, config.lr_schedule)
                for group in optimizer.param_groups:
                    group["lr"] = lr
                images = batch.images.contiguous(memory_format=torch.channels_last) if on_cuda else batch.images
                with autocast(config.amp, there):
                    logits = forward(images)
                loss = objective(logits, batch, epoch)
                optimizer.zero_grad(set_to_none=True)
                scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
                scaler.step(optimizer)
                scaler.update()
                if averaged is not None and config.ema is not None:
                    move_average(averaged, network, config.ema, epoch * steps + step)
                losses[step] = loss.detach()
                if not on_cuda or (step + 1) % _LOG_STEPS == 0 or step + 1 == steps:
                    first = step // _LOG_STEPS * _LOG_STEPS if on_cuda else step
                    value = _finite_mean(losses[first : step + 1], data, plan.rows, epoch, first, processes)
                    if display is not None:
                        display.step(epoch, step + 1, steps, value, config.batch_size * (step + 1 - first))
            seconds = time.perf_counter() - start

            row: dict[str, Any] = {"epoch": epoch + 1, "loss": mean_over(losses.mean(), processes), "lr": lr}
            last = epoch + 1 == config.epochs
            improved = False
            if cohort.split.val and (last or (epoch + 1) % config.val_every == 0):
                predictions = run / PREDICTIONS if last else None
                distances = last or config.validate_hd
                validation = validate(segmenter, cohort, processes, distances=distances, predictions=predictions)
                row |= {"dice": validation.mean_dice, **validation.dice_columns()}
                row |= validation.distance_columns() if config.validate_hd else {}
                improved = not math.isnan(validation.mean_dice) and (best is None or validation.mean_dice > best)
                best = validation.mean_dice if improved else best
            row |= {"seconds": round(seconds, 3), "slices_per_second": round(steps * config.batch_size / seconds, 1)}
            history.append(row)
            if processes.first:
                done = replace(
                    checkpoint, model=shown.state_dict(), epoch=epoch + 1, history=history, best=best,
                    optimizer=None, scaler=None, trained=None,
                )  # fmt: skip
                if improved:
                    done.save(run / CHECKPOINTS["best"])
                if config.checkpoint_every is not None and (epoch + 1) % config.checkpoint_every == 0:
                    done.save(kept_checkpoint(run, epoch + 1))
                if last:
                    write_results(run, done, validation, cohort, there)
                write_metrics(run, history, cohort.classes)
                scalars(row)
                # in the end, so that resume=True does again whatever a kill has prevented
                trained = None if averaged is None else network.state_dict()
                replace(done, optimizer=optimizer.state_dict(), scaler=scaler.state_dict(), trained=trained).save(
                    run / CHECKPOINTS["last"]
                )
                saved = epoch + 1
                if display is not None:
                    display.epoch(row)
                failed = picture.update(history, last=last)
                if failed is not None and display is not None:
                    display.note(failed)
    return validation


def _finite_mean(losses: Tensor, data: SliceSet, rows: Tensor, epoch: int, first: int, processes: Processes) -> float:
    """Mean of some steps' losses over all processes; the device is waited for.

    Raises
    ------
    DivergedError
        At the first step whose loss is not finite.
    """
    mean = mean_over(losses.mean(), processes)
    if math.isfinite(mean):
        return mean
    bad = [index for index, value in enumerate(losses.tolist()) if not math.isfinite(value)]
    step = first + (bad[0] if bad else 0)  # none of this process: the same steps of another one
    names = sorted({data.names[row] for row in rows[step].tolist()})
    raise DivergedError(
        f"the loss became {losses[bad[0]].item() if bad else mean} in step {step + 1} of epoch {epoch + 1}, with "
        f"slices of {shorten(names)}; the checkpoints are of the epochs before; look at these images, or try a lower "
        "lr=, amp=off, or normalize=zscore",
        epoch + 1,
        step + 1,
    )
