"""A training run on disk: its checkpoints, which carry their own configuration, and what they are read for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import torch
from isal import isal_zlib
from msgspec import Meta
from torch import Tensor

from rwtool import __version__
from rwtool.datasets.classes import Classes
from rwtool.datasets.runs import BEST, LAST, Which, find_kept, kept_checkpoint
from rwtool.errors import RwtoolError, UsageError, VolumeError, shorten
from rwtool.files import atomic
from rwtool.io.geometry import Directions
from rwtool.io.labels import check_class_values
from rwtool.network.config import TrainConfig
from rwtool.network.normalization import Normalization
from rwtool.network.unet import UNet2d
from rwtool.records import check_format, to_record

CHECKPOINTS: dict[Literal["best", "last"], str] = {"best": BEST, "last": LAST}
_FORMAT = 2
_REFUSAL = "not a readable checkpoint"
_MEND = "train again, or use another one"


@dataclass(frozen=True)
class Task:
    """What a network takes and gives.

    Attributes
    ----------
    classes : Classes
    n_channels : int
    numbered : bool
        Image names end in a channel: ``case_0000``.
    normalization : Normalization
    """

    classes: Classes
    n_channels: Annotated[int, Meta(ge=1, le=1 << 16)]
    numbered: bool
    normalization: Normalization


@dataclass
class Checkpoint:
    """A run after some epochs.

    Attributes
    ----------
    config : TrainConfig
        With patch, depth, batch size and amp settled.
    task : Task
    model : dict
        State of the network that predicts: of the average of the weights, where the run has one.
    epoch : int
        Epochs done.
    history : list of dict
        Per epoch: the columns of ``metrics.csv``.
    optimizer, scaler : dict or None
        Their states; None in all but ``last.pt``.
    trained : dict or None
        State of the network that is trained, in ``last.pt`` of a run that averages its weights.
    hashes : dict of str to list of str
        SHA-256 of the labels and channels of each case.
    split : dict of str to list of str
    inputs : dict of str to Any
        What else of the study decides what the run comes to: classes, slice axis, maps.
    best : float or None
        Largest mean Dice of a validation so far.
    """

    config: TrainConfig
    task: Task
    model: Mapping[str, Any]
    epoch: int
    history: list[dict[str, Any]] = field(default_factory=list)
    optimizer: Mapping[str, Any] | None = None
    scaler: Mapping[str, Any] | None = None
    hashes: dict[str, list[str]] = field(default_factory=dict)
    split: dict[str, list[str]] = field(default_factory=dict)
    inputs: dict[str, Any] = field(default_factory=dict)
    best: float | None = None
    trained: Mapping[str, Any] | None = None

    def save(self, path: Path) -> None:
        """Write the checkpoint; it appears under its name only when it is whole.

        Raises
        ------
        VolumeError
            It cannot be written.
        """
        classes = self.task.classes
        content: dict[str, Any] = {
            "format": _FORMAT,
            "rwtool": __version__,
            "config": self.config.as_dict(),
            "task": {
                "classes": {
                    "values": list(classes.values),
                    "names": list(classes.names),
                    "ignore": classes.ignore,
                    "source": classes.source,
                },
                "n_channels": self.task.n_channels,
                "numbered": self.task.numbered,
                "normalization": self.task.normalization.as_dict(),
            },
            "model": dict(self.model),
            "epoch": self.epoch,
            "history": self.history,
            "optimizer": self.optimizer,
            "scaler": self.scaler,
            "trained": None if self.trained is None else dict(self.trained),
            "hashes": self.hashes,
            "split": self.split,
            "inputs": self.inputs,
            "best": self.best,
        }
        content["crc32"] = _checksum(content)
        with atomic(path, parts=True) as temporary:  # torch writes the file's name into it
            try:
                torch.save(content, temporary)
            except RuntimeError as error:  # of a full disk, torch says that a position is unexpected
                reason = str(error).partition("\n")[0]
                raise VolumeError(f"{path}: cannot be written: the disk takes no more ({reason})") from error

    def network(self) -> UNet2d:
        """Build the network with its weights."""
        model = build_network(self.config, self.task)
        model.load_state_dict(dict(self.model))
        return model


def build_network(config: TrainConfig, task: Task) -> UNet2d:
    """Build the untrained network of a settled configuration."""
    assert config.depth is not None
    return UNet2d(
        task.n_channels,
        len(task.classes),
        features=config.features,
        stages=config.depth,
        norm=config.norm,
        deep_supervision=config.deep_supervision,
    )


class _Inputs(msgspec.Struct, frozen=True):
    """Of `Checkpoint.inputs`, what predictions go by."""

    slice_axis: Annotated[int, Meta(ge=0, le=2)] | None = msgspec.field(default=None, name="slice axis")
    orientation: Directions | None = None


class _Plain(msgspec.Struct, frozen=True):
    """What a checkpoint holds beside tensors."""

    crc32: int
    config: TrainConfig
    task: Task
    epoch: Annotated[int, Meta(ge=0)]
    history: list[dict[str, float]]
    hashes: dict[str, list[str]]
    split: dict[str, list[str]]
    inputs: _Inputs
    best: float | None
    model: dict[str, Any]
    optimizer: dict[str, Any] | None
    scaler: dict[str, Any] | None
    trained: dict[str, Any] | None = None


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint onto the CPU; nothing in it is executed (``weights_only``).

    Raises
    ------
    RwtoolError
        It is not there, damaged, of another rwtool, or does not hold the weights of the network that it describes.
    """
    if not path.is_file():
        raise RwtoolError(f"{path}: no such checkpoint")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file that is cut short, or no checkpoint at all, may raise anything
        raise RwtoolError(f"{path}: cannot be read as a checkpoint; {_MEND}") from error
    if not isinstance(content, dict) or "format" not in content:
        raise RwtoolError(f"{path}: this is not a checkpoint of rwtool train; {_MEND}")
    check_format(path, content, _FORMAT, refusal=_REFUSAL, mend=_MEND)
    found = to_record(content, _Plain, path, refusal=_REFUSAL, mend=_MEND)
    try:
        _check_task(found.config, found.task)
        _check_weights(found.config, found.task, found.model)
        if found.trained is not None:
            _check_weights(found.config, found.task, found.trained, "trained")
        if _checksum(content) != found.crc32:
            raise UsageError("it holds something else than was written (its CRC-32 differs)")
    except UsageError as error:
        raise RwtoolError(f"{path}: {_REFUSAL}: {error}; {_MEND}") from error
    plain = {name: getattr(found, name) for name in _Plain.__struct_fields__ if name != "crc32"}
    return Checkpoint(**{**plain, "history": content["history"], "inputs": content["inputs"]})  # as they are


def _check_task(config: TrainConfig, task: Task) -> None:
    """Refuse a configuration that is not settled, and classes or a normalisation that cannot be."""
    for name in ("patch", "depth", "batch_size"):
        if getattr(config, name) is None:
            raise UsageError(f"$.config.{name}: expected a value, found None")
    if check_class_values(task.classes.values) != task.classes.values:
        raise UsageError(f"$.task.classes.values: expected ascending values, found {task.classes.values}")
    if len(task.classes.names) != len(task.classes):
        raise UsageError(f"$.task.classes.names: expected {len(task.classes)} names, found {len(task.classes.names)}")
    if task.normalization.kind == "ct" and len(task.normalization.channels) != task.n_channels:
        raise UsageError(
            f"$.task.normalization.channels: expected {task.n_channels}, found {len(task.normalization.channels)}"
        )


def _check_weights(config: TrainConfig, task: Task, model: Mapping[str, Any], place: str = "model") -> None:
    """Refuse weights that are not those of the network: by name, shape and type."""
    with torch.device("meta"):  # shapes alone, no memory
        expected = build_network(config, task).state_dict()
    for name, weight in expected.items():
        wanted = f"$.{place}['{name}']: expected {_shape(weight)}"
        if name not in model:
            raise UsageError(f"{wanted}, which is missing")
        found = model[name]
        if not isinstance(found, Tensor) or found.layout != torch.strided:
            raise UsageError(f"{wanted}, found a {type(found).__name__}")
        if (found.shape, found.dtype) != (weight.shape, weight.dtype):
            raise UsageError(f"{wanted}, found {_shape(found)}")
    if more := sorted(set(model) - set(expected)):
        raise UsageError(f"$.{place}[{more[0]!r}]: the network has no such weight")


def _shape(weight: Tensor) -> str:
    return f"{' x '.join(map(str, weight.shape)) or 'one number'} of {str(weight.dtype).removeprefix('torch.')}"


def _checksum(content: Mapping[str, Any]) -> int:
    """CRC-32 of what a checkpoint holds, the time that it took apart: equal runs have equal ones."""
    timed = ("seconds", "slices_per_second")
    history = [{key: value for key, value in row.items() if key not in timed} for row in content["history"]]
    return _crc32({**{name: value for name, value in content.items() if name != "crc32"}, "history": history})


def _crc32(value: Any, start: int = 0) -> int:
    """CRC-32 of plain values and tensors: against bits that flip, which torch does not look for."""
    if isinstance(value, Tensor):
        header = f"{value.dtype} {tuple(value.shape)}".encode()
        content = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        return isal_zlib.crc32(content.data, isal_zlib.crc32(header, start))
    if isinstance(value, Mapping):
        for key, part in value.items():
            start = _crc32(part, isal_zlib.crc32(f"{key!r}:".encode(), start))
        return isal_zlib.crc32(b"}", start)
    if isinstance(value, (list, tuple)):
        for part in value:
            start = _crc32(part, start)
        return isal_zlib.crc32(b"]", start)
    return isal_zlib.crc32(f"{value!r},".encode(errors="surrogateescape"), start)


def find_checkpoint(run: Path, which: Which = "last") -> Path:
    """The checkpoint of a run folder, or a checkpoint file itself.

    Raises
    ------
    UsageError
        There is none; where the folder holds several runs, the message names them.
    """
    if run.is_file():
        return run
    path = kept_checkpoint(run, which) if isinstance(which, int) else run / CHECKPOINTS[which]
    if path.is_file():
        return path
    runs = sorted(str(run / found.relative_to(run).parts[0]) for found in run.glob(f"*/{path.relative_to(run)}"))
    if runs:
        raise UsageError(f"{run} holds {len(runs)} runs; name one of them: {', '.join(runs)}")
    others = [name for name in CHECKPOINTS.values() if (run / name).is_file()]
    if others and isinstance(which, int):
        kept = f"those of {shorten(list(map(str, found)))}" if (found := find_kept(run)) else "none"
        raise UsageError(
            f"{run}: no checkpoint of epoch {which} was kept (found {kept}); give checkpoint=last, or train with "
            "checkpoint_every="
        )
    if others:
        reason = "no validation has been done yet" if which == "best" else "it was never saved"
        raise UsageError(f"{run}: there is no {path.name} ({reason}); found {', '.join(others)}")
    raise UsageError(f"{run}: no {path.name} here; name the folder of a run of rwtool train")
