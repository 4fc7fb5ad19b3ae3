"""What a training run writes into its folder, and how."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from rwtool import __version__
from rwtool.datasets.classes import Classes
from rwtool.datasets.runs import BEST, CONFIG, LAST, METRICS, PREDICTIONS, RESULTS, SPLIT, TENSORBOARD
from rwtool.errors import UsageError
from rwtool.files import atomic, make_folder, remove_leftovers
from rwtool.network.checkpoint import Checkpoint
from rwtool.training.cohort import Cohort
from rwtool.training.validation import Validation


def clear(run: Path) -> None:
    """Remove what a run left in its folder, and nothing else."""
    for name in (LAST, BEST, CONFIG, SPLIT, METRICS, RESULTS):
        (run / name).unlink(missing_ok=True)
    for name in (PREDICTIONS, TENSORBOARD):
        shutil.rmtree(run / name, ignore_errors=True)


def write_start(run: Path, checkpoint: Checkpoint) -> None:
    """Make the folder, and write what is known before training: the settings and the split."""
    make_folder(run)
    remove_leftovers(run)
    with atomic(run / CONFIG) as temporary:
        temporary.write_text(checkpoint.config.to_toml(), encoding="utf-8")
    with atomic(run / SPLIT) as temporary:
        temporary.write_text(json.dumps(checkpoint.split, indent=1) + "\n", encoding="utf-8")


def write_metrics(run: Path, history: Sequence[Mapping[str, Any]], classes: Classes) -> None:
    """Write the whole table anew, so that a resumed run leaves no row twice."""
    dice = (f"dice_{value}" for value in classes.values[1:])
    columns = ["epoch", "loss", "lr", "dice", *dice, "seconds", "slices_per_second"]
    with atomic(run / METRICS) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _cell(value) for key, value in row.items()} for row in history)


def _cell(value: Any) -> Any:
    return (
        "" if isinstance(value, float) and math.isnan(value) else f"{value:.6g}" if isinstance(value, float) else value
    )


def write_results(
    run: Path, done: Checkpoint, validation: Validation | None, cohort: Cohort, device: torch.device
) -> None:
    """What the run came to, and of what, for scripts."""
    import torch

    source, use = cohort.source, cohort.map_use
    content = {
        "rwtool": __version__,
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "config": done.config.as_dict(),
        "images": str(source.images),
        "labels": str(source.labels),
        "maps": None
        if use is None or use.maps is None
        else {"folder": str(use.maps.folder), **use.maps.settings.as_dict()},
        "classes": [
            {"value": value, "name": name}
            for value, name in zip(cohort.classes.values, cohort.classes.names, strict=True)
        ],
        "cases": {"train": len(cohort.split.train), "val": len(cohort.split.val)},
        "seconds": round(sum(row["seconds"] for row in done.history), 1),
        "validation": None if validation is None else validation.as_dict(),
    }
    with atomic(run / RESULTS) as temporary:
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def summary_writer() -> Any:
    """The class that writes for TensorBoard.

    Raises
    ------
    UsageError
        It is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError("--tensorboard needs a package more: pip install 'rwtool[tensorboard]'") from error
    return SummaryWriter


@contextlib.contextmanager
def open_tensorboard(run: Path | None, epoch: int) -> Iterator[Any]:
    """A function that takes the row of an epoch; it does nothing without a run."""
    if run is None:
        yield lambda row: None
        return
    with summary_writer()(run / TENSORBOARD, purge_step=epoch + 1) as writer:

        def write(row: Mapping[str, Any]) -> None:
            for key, value in row.items():
                if key != "epoch" and not math.isnan(value):
                    writer.add_scalar(key, value, row["epoch"])
            writer.flush()

        yield write
