"""A training run on disk: its checkpoints, which carry their own configuration, and what they are read for."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from rwtool import __version__
from rwtool.datasets.classes import Classes
from rwtool.datasets.runs import BEST, LAST
from rwtool.errors import RwtoolError, UsageError
from rwtool.files import atomic
from rwtool.network.config import TrainConfig
from rwtool.network.normalization import Normalization
from rwtool.network.unet import UNet2d

Which = Literal["best", "last"]

CHECKPOINTS: dict[Which, str] = {"best": BEST, "last": LAST}
_FORMAT = 1
_PLAIN = ("model", "epoch", "history", "optimizer", "scaler", "hashes", "split", "best")
_UNREADABLE = (  # what torch.load raises at a file that is cut short, or no checkpoint at all
    RuntimeError, EOFError, OSError, pickle.UnpicklingError, ValueError, LookupError, AttributeError, TypeError,
)  # fmt: skip


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
    n_channels: int
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
        State of the network.
    epoch : int
        Epochs done.
    history : list of dict
        Per epoch: the columns of ``metrics.csv``.
    optimizer, scaler : dict or None
        Their states; None in ``best.pt``.
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

    def save(self, path: Path) -> None:
        """Write the checkpoint; it appears under its name only when it is whole."""
        classes = self.task.classes
        content = {
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
            "hashes": self.hashes,
            "split": self.split,
            "inputs": self.inputs,
            "best": self.best,
        }
        with atomic(path) as temporary:
            torch.save(content, temporary)

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


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint onto the CPU; nothing in it is executed (``weights_only``).

    Raises
    ------
    RwtoolError
        It is not there, damaged, or of another rwtool.
    """
    if not path.is_file():
        raise RwtoolError(f"{path}: no such checkpoint")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise RwtoolError(f"{path}: cannot be read as a checkpoint; train again, or use another one") from error
    if not isinstance(content, dict) or "format" not in content:
        raise RwtoolError(f"{path}: this is not a checkpoint of rwtool train")
    if content["format"] != _FORMAT:
        raise RwtoolError(
            f"{path}: a checkpoint of form {content['format']} by rwtool {content.get('rwtool')}; this one reads form "
            f"{_FORMAT}"
        )
    config = TrainConfig(**content["config"])
    task, classes = content["task"], content["task"]["classes"]
    return Checkpoint(
        config,
        Task(
            Classes(tuple(classes["values"]), tuple(classes["names"]), classes["ignore"], classes["source"]),
            task["n_channels"],
            task["numbered"],
            Normalization.from_dict(task["normalization"]),
        ),
        **{key: content[key] for key in _PLAIN},
        inputs=content.get("inputs", {}),
    )


def find_checkpoint(run: Path, which: Which = "last") -> Path:
    """The checkpoint of a run folder, or a checkpoint file itself.

    Raises
    ------
    UsageError
        There is none; where the folder holds several runs, the message names them.
    """
    if run.is_file():
        return run
    path = run / CHECKPOINTS[which]
    if path.is_file():
        return path
    runs = sorted(str(found.parent) for found in run.glob(f"*/{CHECKPOINTS[which]}"))
    if runs:
        raise UsageError(f"{run} holds {len(runs)} runs; name one of them: {', '.join(runs)}")
    others = [name for name in CHECKPOINTS.values() if (run / name).is_file()]
    if others:
        reason = "no validation has been done yet" if which == "best" else "it was never saved"
        raise UsageError(f"{run}: there is no {path.name} ({reason}); found {', '.join(others)}")
    raise UsageError(f"{run}: no {path.name} here; name the folder of a run of rwtool train")
