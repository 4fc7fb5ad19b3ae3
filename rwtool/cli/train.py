"""``rwtool train``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rwtool.cli import options
from rwtool.cli.output import print_notes
from rwtool.console import count, print_table
from rwtool.errors import UsageError, shorten
from rwtool.network.config import TrainConfig

if TYPE_CHECKING:
    from rwtool.training.seeds import TrainedRun
    from rwtool.training.study import TrainPlan
    from rwtool.training.validation import ClassResult

_TABLES = 3  # of runs by class and status; more runs are one table
_IMAGES, _LABELS, _MAPS, _RUNS = Path("images"), Path("labels"), Path("maps"), Path("runs")


def _setting(name: str, help: str, **more: Any) -> options.Decorator:  # noqa: A002
    return options.of_record(TrainConfig, name, help, **more)


@click.command(short_help="Train a 2D U-Net with one of the losses.")
@click.argument("images", required=False)
@click.argument("labels", required=False)
@click.argument("run", required=False, type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--maps",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Maps of rwtool maps: the folder of the loss's kind, or the one above it.  [default: ./maps if no arguments "
    "are given and it has them, else they are computed at the start]",
)
@_setting("loss", "What is minimised.")
@_setting("mixed_with", "Mix a map loss with this one.", option="--with")
@_setting("mix", "Their sum, or a share that goes over from --with to the map loss.")
@_setting("schedule", "Of --mix gradual: from 1 to 0.01 over the run, or by 0.01 an epoch as in the authors' code.")
@_setting("ac_lambda", "ac: add the length term, as length + X * region.", type=float, metavar="X")
@_setting("epochs", "Passes over the training slices, or parts of --steps-per-epoch.", type=int)
@_setting("steps_per_epoch", "Batches of an epoch, such as nnU-Net's 250.  [default: one pass]", type=int)
@_setting("batch_size", "Slices of a step, over all devices.  [default: 32, fewer where patches are large]", type=int)
@_setting("lr", "Learning rate of Adam at the start.", type=float)
@_setting("lr_schedule", "How it falls over the steps: as (1 - t)^0.9, as half a cosine, or not.")
@_setting(
    "ema",
    "Validate and predict with a moving average of the weights of this decay, such as 0.99.",
    type=float,
    metavar="DECAY",
)
@_setting("patch", "Pixels of a patch.  [default: whole slices, up to 512 x 512]", nargs=2, type=int, metavar="Y X")
@_setting("features", "Features of the first stage of the U-Net.", type=int)
@_setting("depth", "Stages of the U-Net.  [default: as many as the patch allows]", type=int)
@_setting("norm", "Normalisation in the U-Net.")
@_setting("deep_supervision", "Losses at coarser stages too.")
@_setting("augment", "Rotate, scale, shift, flip; noise and contrast.")
@_setting("flip", "Axes that the augmentation mirrors.")
@_setting("normalize", "Of intensities: per image, by the foreground of all training images, or not at all.")
@_setting(
    "target_spacing",
    "Resample slices to this spacing in mm; predictions come back on the native grid.",
    nargs=2,
    type=float,
    metavar="Y X",
)
@_setting("pixels", "Resample slices to so many pixels, whatever their spacing.", nargs=2, type=int, metavar="Y X")
@_setting("val", "Share of the subjects to validate on; 0 trains on all.", type=float)
@click.option(
    "--split", metavar="FILE.json", help='{"train": [...], "val": [...]}, or FILE:2 for fold 2 of splits_final.json.'
)
@_setting("split_seed", "Seed of the split, which --seed leaves as it is.", type=int)
@_setting("subject", "Takes the scans of a subject together in the split, as in rwtool evaluate.", metavar="REGEX")
@_setting("seed", "Of weights, order and augmentation.", type=int)
@click.option(
    "--seeds",
    metavar="0:50|0,2,5",
    callback=options.parse_seeds,
    help="Independent runs in RUN/seed-0, RUN/seed-1, ...: single seeds, and A:B for A up to B - 1, with commas. One "
    "that fails does not cost the others.",
)
@click.option(
    "--again",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Of --seeds: train up to N runs of further seeds in place of those that have collapsed (rwtool help "
    "convergence), which stay and are named.",
)
@_setting("device", "Where to compute; auto is a CUDA device if there is one.", metavar="auto|cpu|cuda[:i]")
@_setting("amp", "Mixed precision; auto is bf16 where the hardware has it.")
@_setting("compile", "torch.compile the network.")
@_setting("val_every", "Epochs between validations.", type=int)
@_setting("validate_hd", "Measure HD and HD95 in every validation, not in the last one alone.")
@_setting("checkpoint_every", "Keep a checkpoint of every N-th epoch, in RUN/checkpoints.", type=int, metavar="N")
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE.toml",
    help="These settings from a file, such as the config.toml of a run; the command line wins.",
)
@click.option("--resume", is_flag=True, help="Go on with a run that was stopped; start it if there is none.")
@click.option("--overwrite", is_flag=True, help="Start anew where RUN holds a run.")
@click.option("--tensorboard", is_flag=True, help="Write RUN/tensorboard too (pip install 'rwtool[tensorboard]').")
@options.classes
@options.ignore
@options.spacing
@options.slice_axis
@options.name
@click.option(
    "-j",
    "--jobs",
    "--workers",
    type=click.IntRange(min=1),
    help="Cases that are read at once; on a CPU also runs of --seeds side by side, each on one thread.  [default: what "
    "cores and free memory allow; runs side by side only where that is faster and changes no result]",
)
@click.option(
    "--cache-budget",
    "cache_budget_bytes",
    metavar="SIZE",
    callback=options.parse_size,
    help="Memory that the cases may take, such as 2GB; those that do not fit are read from a cache file in RUN, which "
    "goes at the end, with the same result.  [default: all are in memory if it is free, else they take half of it]",
)
@options.quiet
def train(
    images: str | None,
    labels: str | None,
    run: Path | None,
    maps: Path | None,
    config: Path | None,
    seeds: tuple[int, ...],
    quiet: bool,
    **given: Any,
) -> None:
    """Train a 2D U-Net on the slices of IMAGES and LABELS; everything that it makes goes to the folder RUN.

    IMAGES hold one file a case, named as its label file, or one per channel: case_0000, case_0001. Without arguments:
    ./images, ./labels and ./runs/<loss>. Half of the subjects are validated on, in 3D; their predictions are written to
    RUN/predictions at the end, and rwtool evaluate LABELS RUN... takes run folders as they are.

    \b
    Examples:
      rwtool train images labels runs/rrw
      rwtool train images labels runs/boundary --loss boundary --with dice --mix gradual --maps maps
      rwtool train images labels runs/dice --loss dice --seeds 0:3
      torchrun --nproc-per-node 4 -m rwtool train images labels runs/rrw
    """  # noqa: D301
    from rwtool.training.study import train as train_runs

    named = {name: value for name, value in given.items() if value is not None}
    if images is None:
        planned = _settings(config, named)
        images, labels = _default(_IMAGES, "IMAGES"), _default(_LABELS, "LABELS")
        maps, run = maps or _default_maps(planned), _RUNS / planned.name
    if labels is None or run is None:
        raise UsageError("name the folders LABELS and RUN too: rwtool train IMAGES LABELS RUN")
    finished = train_runs(
        images,
        labels,
        run,
        maps=maps,
        config=config,
        seeds=seeds,
        verbosity=-1 if quiet else 0,
        on_plan=partial(_begin, quiet=quiet),
        **named,
    )
    if not quiet:
        _print_all_finished([done for done in finished if done.error is None])
        _say_lost(finished, mixed=_settings(config, named).mixed_with is not None)
    failed = [done for done in finished if done.error is not None]
    if failed:
        options.say(f"{len(failed)} of {count(len(finished), 'run')} failed:", err=True)
        for done in failed:
            options.say(f"  {done.folder}: {done.error}", err=True)
            for line in (done.details or "").splitlines():
                options.say(f"    {line}", err=True)
    collapsed = [done.folder for done in finished if done.collapsed]
    if collapsed:
        sound = ",".join(str(done.folder) for done in finished if not done.collapsed and done.error is None)
        options.say(
            f"note: {len(collapsed)} of {count(len(finished), 'run')} collapsed: {shorten(list(map(str, collapsed)))}; "
            f"without them: rwtool evaluate {labels} {run.name}={sound}",
            err=True,
        )
    if not quiet and any((done.folder / "predictions").is_dir() for done in finished):
        options.say(f"next: rwtool evaluate {labels} {run}")
        if len(finished) > 1:
            options.say(f"next: rwtool convergence {run}")
    if failed:
        raise SystemExit(1)


def _begin(plan: TrainPlan, *, quiet: bool) -> None:
    """Say what is trained, in a process that is the run's own: its threads are then too."""
    from rwtool.network.devices import limit_threads

    limit_threads(plan.config)
    if not quiet:
        _print_plan(plan)


def _print_plan(plan: TrainPlan) -> None:
    """What is trained on, and how, before it begins."""
    cohort, config = plan.cohort, plan.config
    for line in cohort.dataset.describe():
        options.say(line)
    for note in cohort.dataset.notes:
        options.say(f"note: {note}", err=True)
    options.say(
        f"{count(len(cohort.split.train), 'case')} to train on ({count(plan.slices, 'slice')}), "
        f"{len(cohort.split.val)} to validate on; {count(cohort.n_channels, 'channel')}"
    )
    if (from_disk := cohort.room.describe()) is not None:
        options.say(from_disk)
    maps = "" if cohort.map_use is None else f" on {cohort.map_use.describe()}"
    assert config.patch is not None
    options.say(
        f"loss {config.name}{maps}; U-Net of {config.depth} stages from {config.features} features, patches of "
        f"{config.patch[0]} x {config.patch[1]}, {config.batch_size} a step, amp {config.amp}"
    )
    if (regex := cohort.suggest_subject(config)) is not None:
        options.say(
            "note: the cases look like several scans of some subjects, which may now be trained and validated on; if "
            f"they are, use --subject '{regex}'",
            err=True,
        )
    print_notes({name: case.notes for name, case in cohort.cases.items()})


def _print_all_finished(finished: Sequence[TrainedRun]) -> None:
    """The validation of each run; that of many seeds in one table, a line each."""
    several = [(done, done.validation) for done in finished if done.validation is not None]
    many = len(several) > _TABLES
    for done in finished:
        if done.validation is None or not many:
            _print_finished(done)
    if many:
        classes = several[0][1].classes
        print_table(
            "validation in 3D: mean Dice by run",
            ("run", "mean", *(_shown(found) for found in classes)),
            [
                (str(done.folder), f"{found.mean_dice:.3f}", *(f"{one.dice:.3f}" for one in found.classes))
                for done, found in several
            ],
        )


def _say_lost(finished: Sequence[TrainedRun], *, mixed: bool) -> None:
    """Name classes that a network finds in none of the cases that have them."""
    lost: dict[str, list[str]] = {}
    for done in finished:
        for found in () if done.validation is None else done.validation.classes:
            if found.counts["missed"] and not found.counts["ok"]:
                lost.setdefault(_shown(found), []).append(str(done.folder))
    helps = "a longer training" if mixed else "a longer training, or --with dice --mix gradual for the loss of a map"
    for shown, folders in lost.items():
        options.say(
            f"note: class {shown} is found in no validation case that has it, by {shorten(folders)}; what may help is "
            f"{helps} (rwtool help paper)",
            err=True,
        )


def _shown(found: ClassResult) -> str:
    return f"{found.label} {found.name}" if found.name != str(found.label) else str(found.label)


def _print_finished(done: TrainedRun) -> None:
    if not done.trained:
        options.say(f"{done.folder}: finished already")
    elif done.validation is not None:
        counts = ("ok", "missed", "hallucinated", "absent")
        cases = sum(done.validation.classes[0].counts.values())
        print_table(
            f"{done.folder}: validation in 3D, {count(cases, 'case')}, mean (distances over the ok cases)",
            ("class", "Dice", "HD95 (mm)", "HD (mm)", "ok", "missed", "halluc.", "absent"),
            [
                (
                    _shown(found),
                    f"{found.dice:.3f}",
                    f"{found.hd95_mm:.2f}",
                    f"{found.hd_mm:.2f}",
                    *(str(found.counts[status]) for status in counts),
                )
                for found in done.validation.classes
            ],
        )
    else:
        options.say(f"{done.folder}: trained on all cases, without validation")


def _settings(config: Path | None, named: dict[str, Any]) -> TrainConfig:
    """The settings, for the defaults that follow from the loss."""
    from dataclasses import fields

    from rwtool.network.config import read_config

    known = {field.name for field in fields(TrainConfig)}
    given = {name: value for name, value in named.items() if name in known}
    return TrainConfig(**({} if config is None else read_config(config)) | given)


def _default(folder: Path, what: str) -> str:
    if not folder.is_dir():
        raise UsageError(f"no {what} given, and there is no folder ./{folder}; name the folder")
    return str(folder)


def _default_maps(config: TrainConfig) -> Path | None:
    kind = config.map_kind
    return _MAPS if kind is not None and (_MAPS / kind / "maps.json").is_file() else None
