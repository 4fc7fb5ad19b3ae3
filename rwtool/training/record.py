"""What a training run writes into its folder, and how."""

from __future__ import annotations

import contextlib
import csv
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch

from rwtool import __version__
from rwtool.claims import claimed
from rwtool.datasets.classes import Classes
from rwtool.datasets.curves import CHECKSUM, DISTANCES, row_checksum
from rwtool.datasets.runs import (
    BEST,
    CONFIG,
    CURVES,
    DIVERGED,
    KEPT,
    LAST,
    METRICS,
    PREDICTIONS,
    RESULTS,
    SPLIT,
    TENSORBOARD,
    Divergence,
    find_kept,
)
from rwtool.datasets.splits import Split, read_case_names
from rwtool.errors import RwtoolError, UsageError
from rwtool.files import atomic, make_folder, naming, remove_leftovers
from rwtool.io.names import case_name
from rwtool.network.checkpoint import Checkpoint
from rwtool.records import read_json, read_toml, sealed, write_json
from rwtool.training.cohort import Cohort
from rwtool.training.validation import Validation

_NAMES = (LAST, BEST, RESULTS, METRICS, CURVES, DIVERGED, SPLIT, CONFIG)  # the last two say whose folder it is
_VOXELS = (".raw", ".raw.gz", ".zraw")  # of label files that have a header beside them


@contextlib.contextmanager
def holding(run: Path) -> Iterator[None]:
    """Be the only one that trains in a folder, which is made, as long as the block lasts.

    Raises
    ------
    UsageError
        Another process trains there, or it holds files of these names that no run has written.
    """
    make_folder(run)
    with claimed(run, "training", shared=False, mend="wait until it has ended, or name another run="):
        there = [name for name in _NAMES if (run / name).exists()]
        if there and not _is_run(run):
            raise UsageError(
                f"{run} holds {', '.join(there)}, and neither {CONFIG} nor {SPLIT} is that of a run of this rwtool; "
                "move them away, or name another run="
            )
        yield


def _is_run(run: Path) -> bool:
    """Whether the settings or the split in a folder are in the form that :func:`write_start` gives them."""
    for name, read in ((CONFIG, read_toml), (SPLIT, read_json)):
        with contextlib.suppress(RwtoolError):
            content = read(run / name, refusal="", mend="")
            if isinstance(content, dict) and "format" in content and ({"loss", "train"} & set(content)):
                return True
    return False


def clear(run: Path) -> None:
    """Remove what a run left in its folder, and nothing else; only within :func:`holding`."""
    cases: tuple[str, ...] = ()
    with contextlib.suppress(UsageError):
        cases = read_case_names(str(run / SPLIT), empty=True)
    named = {f"{case}{tail}" for case in cases for tail in _VOXELS}
    _remove_from(run / PREDICTIONS, lambda name: case_name(name) in cases or name in named)
    kept = {path.name for path in find_kept(run).values()}
    _remove_from(run / KEPT, lambda name: name in kept)
    _remove_from(run / TENSORBOARD, lambda name: name.startswith("events.out.tfevents."))
    for name in _NAMES:
        with naming(run / name, OSError, doing="removed"):
            (run / name).unlink(missing_ok=True)


def _remove_from(folder: Path, ours: Callable[[str], bool]) -> None:
    """Remove the files of these names from a folder, and the folder if it is empty then; a link is not followed."""
    if folder.is_symlink() or not folder.is_dir():
        return
    remove_leftovers(folder)
    with naming(folder, OSError, doing="removed"):
        for path in sorted(folder.iterdir()):
            if ours(path.name) and path.is_file() and not path.is_symlink():
                path.unlink()
    with contextlib.suppress(OSError):  # it holds more
        folder.rmdir()


def write_start(run: Path, checkpoint: Checkpoint) -> None:
    """Make the folder, and write what is known before training: the settings and the split."""
    make_folder(run)
    for folder in (run, run / KEPT):
        remove_leftovers(folder)
    with atomic(run / CONFIG) as temporary:
        temporary.write_text(checkpoint.config.to_toml(), encoding="utf-8")
    Split(tuple(checkpoint.split["train"]), tuple(checkpoint.split["val"])).write(run / SPLIT)


def write_metrics(run: Path, history: Sequence[Mapping[str, Any]], classes: Classes) -> None:
    """Write the whole table anew, so that a resumed run leaves no row twice; distances where any row has them."""
    measures = ["dice", *(name for name in DISTANCES if any(name in row for row in history))]
    values = [column for name in measures for column in (name, *(f"{name}_{value}" for value in classes.values[1:]))]
    columns = ["epoch", "loss", "lr", *values, "seconds", "slices_per_second"]
    with atomic(run / METRICS) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, [*columns, CHECKSUM], lineterminator="\n")
        writer.writeheader()
        for row in history:
            cells = {name: str(_cell(row.get(name, ""))) for name in columns}
            writer.writerow({**cells, CHECKSUM: row_checksum(cells)})


def write_divergence(run: Path, epoch: int, step: int, message: str) -> None:
    """Write that the loss was not finite: a result too, which :func:`rwtool.convergence` counts."""
    write_json(run / DIVERGED, sealed(Divergence(epoch, step, message)))


def _cell(value: Any) -> Any:
    return (
        "" if isinstance(value, float) and math.isnan(value) else f"{value:.6g}" if isinstance(value, float) else value
    )


class _Class(msgspec.Struct, frozen=True):
    value: int
    name: str


class _Counts(msgspec.Struct, frozen=True):
    train: int
    val: int


class _Results(msgspec.Struct, frozen=True):
    """The content of ``run.json``."""

    rwtool: str
    torch: str
    device: str
    threads: int
    config: dict[str, Any]
    images: str
    labels: str
    maps: dict[str, Any] | None
    classes: list[_Class]
    cases: _Counts
    seconds: float
    validation: list[dict[str, Any]] | None
    format: int = 1


def write_results(
    run: Path, done: Checkpoint, validation: Validation | None, cohort: Cohort, device: torch.device
) -> None:
    """What the run came to, and of what, for scripts."""
    source, use, classes = cohort.source, cohort.map_use, cohort.classes
    maps = None if use is None else use.maps
    results = _Results(
        rwtool=__version__,
        torch=str(torch.__version__),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        threads=torch.get_num_threads(),
        config=done.config.as_dict(),
        images=str(source.images),
        labels=str(source.labels),
        maps=None if maps is None else {"folder": str(maps.folder), **maps.settings.as_dict()},
        classes=[_Class(value, name) for value, name in zip(classes.values, classes.names, strict=True)],
        cases=_Counts(len(cohort.split.train), len(cohort.split.val)),
        seconds=round(sum(row["seconds"] for row in done.history), 1),
        validation=None if validation is None else validation.as_dict(),
    )
    write_json(run / RESULTS, sealed(results))


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
        raise UsageError("tensorboard=True needs a package more: pip install 'rwtool[tensorboard]'") from error
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
