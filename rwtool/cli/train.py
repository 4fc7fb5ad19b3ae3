"""``rwtool train``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rwtool.cli import options
from rwtool.cli.output import print_notes
from rwtool.console import count, print_table
from rwtool.errors import UsageError

if TYPE_CHECKING:
    from rwtool.network.config import TrainConfig
    from rwtool.training.cohort import Cohort
    from rwtool.training.study import TrainedRun

_IMAGES, _LABELS, _MAPS, _RUNS = Path("images"), Path("labels"), Path("maps"), Path("runs")
_FLAG: dict[str, Any] = {"default": None}  # not given: the configuration's own default holds


@click.command()
@click.argument("images", required=False)
@click.argument("labels", required=False)
@click.argument("run", required=False, type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--maps",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Maps of rwtool maps: the folder of the loss's kind, or the one above it.  [default: ./maps if no arguments "
    "are given and it has them, else they are computed at the start]",
)
@click.option(
    "--loss",
    type=click.Choice(["rrw", "boundary", "ac", "hd", "dice", "focal", "ce", "wce-rrw"]),
    help="[default: rrw]",
)
@click.option("--with", "mixed_with", type=click.Choice(["dice", "ce"]), help="Mix a map loss with this one.")
@click.option(
    "--mix",
    type=click.Choice(["equal", "gradual"]),
    help="Their sum, or a share that goes over from --with to the map loss.  [default: equal]",
)
@click.option(
    "--schedule",
    type=click.Choice(["paper", "authors"]),
    help="Of --mix gradual: from 1 to 0.01 over the run, or by 0.01 an epoch as in the authors' code.  "
    "[default: paper]",
)
@click.option("--ac-lambda", type=float, metavar="X", help="ac: add the length term, as length + X * region.")
@click.option("--epochs", type=int, help="Passes over the training slices.  [default: 100]")
@click.option(
    "--batch-size", type=int, help="Slices of a step, over all devices.  [default: 32, fewer where patches are large]"
)
@click.option("--lr", type=float, help="Learning rate of Adam at the start.  [default: 0.002]")
@click.option(
    "--patch", nargs=2, type=int, metavar="Y X", help="Pixels of a patch.  [default: whole slices, up to 512 x 512]"
)
@click.option("--features", type=int, help="Features of the first stage of the U-Net.  [default: 32]")
@click.option("--depth", type=int, help="Stages of the U-Net.  [default: as many as the patch allows]")
@click.option("--norm", type=click.Choice(["instance", "batch"]), help="[default: instance]")
@click.option("--deep-supervision/--no-deep-supervision", **_FLAG, help="Losses at coarser stages too.  [default: on]")
@click.option("--augment/--no-augment", **_FLAG, help="Rotate, scale, shift, flip; noise and contrast.  [default: on]")
@click.option(
    "--flip", type=click.Choice(["both", "y", "x", "none"]), help="Axes that the augmentation mirrors.  [default: x]"
)
@click.option(
    "--normalize",
    type=click.Choice(["zscore", "ct", "none"]),
    help="Of intensities: per image, by the foreground of all training images, or not at all.  [default: zscore]",
)
@click.option(
    "--spacing",
    nargs=2,
    type=float,
    metavar="Y X",
    help="Resample slices to this spacing in mm; predictions come back on the native grid.",
)
@click.option("--val", type=float, help="Share of the subjects to validate on; 0 trains on all.  [default: 0.5]")
@click.option(
    "--split", metavar="FILE.json", help='{"train": [...], "val": [...]}, or FILE:2 for fold 2 of splits_final.json.'
)
@click.option("--split-seed", type=int, help="Seed of the split, which --seed leaves as it is.  [default: 0]")
@click.option(
    "--subject", metavar="REGEX", help="Takes the scans of a subject together in the split, as in rwtool evaluate."
)
@click.option("--seed", type=int, help="Of weights, order and augmentation.  [default: 0]")
@click.option("--seeds", metavar="0,1,2", help="Independent runs, one after another, in RUN/seed-0, RUN/seed-1, ...")
@click.option("--device", metavar="auto|cpu|cuda[:i]", help="[default: auto, a CUDA device if there is one]")
@click.option(
    "--amp",
    type=click.Choice(["auto", "bf16", "fp16", "off"]),
    help="Mixed precision.  [default: auto, bf16 where the hardware has it]",
)
@click.option("--compile/--no-compile", **_FLAG, help="torch.compile the network.  [default: off]")
@click.option("--val-every", type=int, help="Epochs between validations.  [default: 5]")
@click.option(
    "--config",
    "config_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE.toml",
    help="These settings from a file, such as the config.toml of a run; the command line wins.",
)
@click.option("--resume", is_flag=True, help="Go on with a run that was stopped; start it if there is none.")
@click.option("--overwrite", is_flag=True, help="Start anew where RUN holds a run.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes that read cases.  [default: what fits]")
@click.option("--tensorboard", is_flag=True, help="Write RUN/tensorboard too (pip install 'rwtool[tensorboard]').")
@options.classes
@options.ignore
@options.file_spacing
@options.slice_axis
@options.quiet
def train(images: str | None, labels: str | None, run: Path | None, **given: Any) -> None:
    """Train a 2D U-Net on the slices of IMAGES and LABELS; everything that it makes goes to the folder RUN.

    IMAGES hold one file a case, named as its label file, or one per channel: case_0000, case_0001. Without arguments:
    ./images, ./labels and ./runs/<loss>. Half of the subjects are validated on, in 3D; their predictions are written to
    RUN/predictions at the end, and rwtool evaluate LABELS RUN... takes run folders as they are.

    \b
    Examples:
      rwtool train images labels runs/rrw
      rwtool train images labels runs/boundary --loss boundary --with dice --mix gradual --maps maps
      rwtool train images labels runs/dice --loss dice --seeds 0,1,2
      torchrun --nproc-per-node 4 -m rwtool train images labels runs/rrw
    """  # noqa: D301
    from rwtool.datasets.classes import make_classes, parse_values
    from rwtool.network.config import TrainConfig, read_config
    from rwtool.training.cohort import Source
    from rwtool.training.study import StudyRequest, run_study

    config_file, seeds = given.pop("config_file"), given.pop("seeds")
    maps, split, classes, ignore = (given.pop(name) for name in ("maps", "split", "classes", "ignore"))
    places = {name: given.pop(name) for name in ("file_spacing_mm", "slice_axis")}
    plain = {name: given.pop(name) for name in ("resume", "overwrite", "workers", "tensorboard", "quiet")}
    if plain["resume"] and plain["overwrite"]:
        raise UsageError("--resume goes on with a run and --overwrite starts anew; give one of them")
    named = {name: value for name, value in given.items() if value is not None}
    settings = named if config_file is None else read_config(config_file) | named
    config = TrainConfig(**settings)
    bare = images is None
    listed = None if classes is None else make_classes(parse_values(classes), ignore=ignore, source="--classes")
    if split is not None:
        _refuse_with_split(named)
    finished = run_study(
        StudyRequest(
            source=Source(
                images=images or _default(_IMAGES, "IMAGES"),
                labels=labels or _default(_LABELS, "LABELS"),
                maps=maps or (_default_maps(config) if bare else None),
                split=split,
                classes=listed,
                ignore=ignore,
                **places,
            ),
            run=run or _default_run(bare, config),
            config=config,
            given=settings,
            seeds=_parse_seeds(seeds, named),
            **plain,
        ),
        tell=None if plain["quiet"] else _tell,
    )
    if not plain["quiet"]:
        for done in finished:
            _print_finished(done)
        _print_next(labels or str(_LABELS), run or _default_run(bare, config), finished)


def _tell(cohort: Cohort, config: TrainConfig, slices: int) -> None:
    """What is trained on, and how, before it begins."""
    click.echo(f"{count(len(cohort.classes), 'class')}: {cohort.classes.describe()} (from {cohort.classes.source})")
    click.echo(
        f"{count(len(cohort.split.train), 'case')} to train on ({count(slices, 'slice')}), "
        f"{len(cohort.split.val)} to validate on; {count(cohort.n_channels, 'channel')}"
    )
    axes = sorted({inspection.slice_axis for inspection in cohort.inspections.values()})
    click.echo(f"slice axis: file axis {' or '.join(map(str, axes))}")
    maps = "" if cohort.map_use is None else f" on {cohort.map_use.describe()}"
    assert config.patch is not None
    click.echo(
        f"loss {config.name}{maps}; U-Net of {config.depth} stages from {config.features} features, patches of "
        f"{config.patch[0]} x {config.patch[1]}, {config.batch_size} a step, amp {config.amp}"
    )
    _suggest_subject(cohort, config)
    print_notes({name: case.notes for name, case in cohort.cases.items()})


def _suggest_subject(cohort: Cohort, config: TrainConfig) -> None:
    """Warn where a drawn split may have put scans of one subject on both sides."""
    from rwtool.datasets.subjects import suggest_subject_regex

    if config.subject is not None or cohort.source.split is not None or not cohort.split.val:
        return
    if (regex := suggest_subject_regex(cohort.labels)) is not None:
        click.echo(
            "note: the cases look like several scans of some subjects, which may now be trained and validated on; if "
            f"they are, use --subject '{regex}'",
            err=True,
        )


def _print_finished(done: TrainedRun) -> None:
    if not done.trained:
        click.echo(f"{done.folder}: finished already")
    elif done.validation is not None:
        counts = ("ok", "missed", "hallucinated", "absent")
        cases = sum(done.validation.classes[0].counts.values())
        print_table(
            f"{done.folder}: validation in 3D, {count(cases, 'case')}, mean (distances over the ok cases)",
            ("class", "Dice", "HD95 (mm)", "HD (mm)", "ok", "missed", "halluc.", "absent"),
            [
                (
                    f"{found.label} {found.name}" if found.name != str(found.label) else str(found.label),
                    f"{found.dice:.3f}",
                    f"{found.hd95_mm:.2f}",
                    f"{found.hd_mm:.2f}",
                    *(str(found.counts[status]) for status in counts),
                )
                for found in done.validation.classes
            ],
        )
    else:
        click.echo(f"{done.folder}: trained on all cases, without validation")


def _print_next(labels: str, run: Path, finished: list[TrainedRun]) -> None:
    if any((done.folder / "predictions").is_dir() for done in finished):
        click.echo(f"next: rwtool evaluate {labels} {run}")


def _default(folder: Path, what: str) -> str:
    if not folder.is_dir():
        raise UsageError(f"no {what} given, and there is no folder ./{folder}; name the folder")
    return str(folder)


def _default_maps(config: TrainConfig) -> Path | None:
    kind = config.map_kind
    return _MAPS if kind is not None and (_MAPS / kind / "maps.json").is_file() else None


def _default_run(bare: bool, config: TrainConfig) -> Path:
    if not bare:
        raise UsageError("name the folder RUN too: rwtool train IMAGES LABELS RUN")
    return _RUNS / config.name


def _parse_seeds(text: str | None, named: dict[str, Any]) -> tuple[int, ...]:
    if text is None:
        return ()
    if "seed" in named:
        raise UsageError("--seed and --seeds exclude each other")
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() for part in parts) or len(set(parts)) < len(parts):
        raise UsageError(f"--seeds takes different numbers with commas, such as 0,1,2; found {text!r}")
    return tuple(int(part) for part in parts)


def _refuse_with_split(named: dict[str, Any]) -> None:
    for name in ("val", "split_seed", "subject"):
        if name in named:
            raise UsageError(
                f"--split names the cases of each part, so --{name.replace('_', '-')} has no meaning; drop one"
            )
