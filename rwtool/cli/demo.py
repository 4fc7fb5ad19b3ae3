"""``rwtool demo``."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import click

from rwtool.cli import options
from rwtool.console import count
from rwtool.errors import RwtoolError, UsageError

_LOSSES = ("dice", "rrw", "boundary")
_SIGNALLED = 128  # exit codes above say which signal ended a command
_SETTINGS = {"features": "8", "lr": "0.01", "batch-size": "4"}


@click.command(short_help="Try everything on phantom hearts.")
@click.argument("out", type=click.Path(file_okay=False, path_type=Path), default=Path("rwtool-demo"))
@click.option("--subjects", type=click.IntRange(min=2), default=14, show_default=True, help="Phantom hearts to make.")
@click.option("--epochs", type=click.IntRange(min=1), default=48, show_default=True, help="Of each training.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the cohort.")
@options.jobs
@click.pass_context
def demo(ctx: click.Context, out: Path, subjects: int, epochs: int, seed: int, jobs: int | None) -> None:
    """Try everything on a small cohort of phantom hearts, made on the spot in OUT (default ./rwtool-demo).

    Maps of their labels, their check and pictures; trainings with Dice loss, with rrw and with Boundary loss alone,
    side by side; predictions; and a comparison of the three. It takes about a minute on 2 quiet cores. Each command is
    printed before it runs. A second demo in OUT goes on where the first was stopped.
    """
    _refuse_other_epochs(out, epochs)
    with _told_how_to_go_on():
        _demonstrate(ctx, out, subjects, epochs, seed, jobs)


def _demonstrate(ctx: click.Context, out: Path, subjects: int, epochs: int, seed: int, jobs: int | None) -> None:
    from rwtool.demo import make_cohort, tell_results
    from rwtool.report.csv import read_cases_csv
    from rwtool.report.figures import can_draw

    start = time.monotonic()
    make_cohort(out, subjects=subjects, seed=seed)
    images, labels, maps, runs, new, predictions, results = (
        str(out / name) for name in ("images", "labels", "maps", "runs", "new", "predictions", "results")
    )
    click.echo(f"Made {count(subjects, 'phantom heart')}: {images}, {labels}; and 2 without labels: {new}")
    parallel = [] if jobs is None else ["--jobs", str(jobs)]
    _run(ctx, ["maps", labels, maps, "--kind", "rrw", "--kind", "boundary", *parallel])
    _run(ctx, ["check", f"{maps}/rrw", *parallel])
    drawn = can_draw()
    heart, sheet, signs = (str(out / "pictures" / f"{name}.png") for name in ("heart", "hearts", "signs"))
    figure = ["--figure", signs, "--images", images, "--overwrite"] if drawn else []
    _run(ctx, ["check", f"{maps}/boundary", *figure, *parallel])
    if drawn:
        first = str(min((out / "labels").glob("*.nii.gz")))
        _run(ctx, ["view", first, "--image", images, "--maps", maps, "-o", heart, "--overwrite"])
        _run(ctx, ["view", labels, "--image", images, "--slices", "4", "-o", sheet, "--overwrite", *parallel])
    else:
        click.echo("\nPictures need matplotlib: pip install 'rwtool[plot]'")
    settings = [part for name, value in _SETTINGS.items() for part in (f"--{name}", value)]
    settings += ["--epochs", str(epochs), "--val-every", str(max(1, epochs // 4))]
    folders = {loss: f"{runs}/{loss}" for loss in _LOSSES}
    trainings = {}
    for loss, folder in folders.items():
        mapped = [] if loss == "dice" else ["--maps", maps]
        trainings[loss] = ["train", images, labels, folder, "--loss", loss, *mapped, *settings, "--resume"]
    _train_side_by_side(trainings, jobs or len(trainings))
    _run(ctx, ["predict", folders["rrw"], new, predictions, "--overwrite"])
    _run(ctx, ["evaluate", labels, *folders.values(), "--permutation-test", "-o", results, *parallel])
    click.echo("\nWhat the tables show, of one cohort and one seed:")
    for line in tell_results(read_cases_csv(out / "results" / "cases.csv")):
        click.echo(f"- {line}")
    click.echo(f"\nDone in {time.monotonic() - start:.0f} s. Look at")
    pictures = {heart: "a heart with its maps", signs: "where its Boundary map is not stable"} if drawn else {}
    for place, what in {**pictures, **_places(out, folders)}.items():
        click.echo(f"  {place}: {what}")
    click.echo("Next, try your own: rwtool train IMAGES LABELS RUN, rwtool evaluate LABELS RUN...")


@contextlib.contextmanager
def _told_how_to_go_on() -> Iterator[None]:
    """Add to what an interrupted command says of itself that it was one of the demo's."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, KeyboardInterrupt) or (isinstance(end.code, int) and end.code > _SIGNALLED):
            options.say("run the same rwtool demo again: it goes on where it was stopped", err=True)
        raise


def _refuse_other_epochs(out: Path, epochs: int) -> None:
    """Say here, in words of the demo, what the training would say of a run of another length."""
    from rwtool.datasets.runs import CONFIG
    from rwtool.network.config import read_config

    for path in sorted(out.glob(f"runs/*/{CONFIG}")):
        found = read_config(path).get("epochs")
        if path.parent.name in _LOSSES and found != epochs:
            raise UsageError(f"{out} holds a demo of {found} epochs; go on with --epochs {found}, or name another OUT")


def _run(ctx: click.Context, arguments: Sequence[str]) -> None:
    """Run another command of the program, as its user would."""
    _announce(arguments)
    group = ctx.find_root().command
    group.main(args=list(arguments), prog_name="rwtool", standalone_mode=False)


def _announce(arguments: Sequence[str]) -> None:
    click.echo(f"\n$ {shlex.join(['rwtool', *arguments])}")


def _train_side_by_side(trainings: Mapping[str, Sequence[str]], jobs: int) -> None:
    """Run trainings as processes of their own, one thread each, and show their validations.

    All of them end when one fails or this process is interrupted.
    """
    for arguments in trainings.values():
        _announce(arguments)
    click.echo("(side by side, each on one thread)")
    running: list[subprocess.Popen[str]] = []
    stopped = threading.Event()

    def run(name: str) -> None:
        if stopped.is_set():
            return
        said = []
        with subprocess.Popen(
            [sys.executable, "-m", "rwtool", *trainings[name]],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        ) as process:
            running.append(process)
            if stopped.is_set():  # in between
                process.terminate()
            assert process.stdout is not None
            for line in process.stdout:
                said.append(line.rstrip())
                if line.startswith("epoch") and "Dice" in line:
                    click.echo(f"{name:<{max(map(len, trainings))}}  {line.rstrip()}")
        if process.returncode and not stopped.is_set():
            raise RwtoolError(f"the training of {name} failed: {said[-1] if said else process.returncode}")

    with ThreadPoolExecutor(jobs) as pool:
        waiting = [pool.submit(run, name) for name in trainings]
        try:
            for future in as_completed(waiting):
                future.result()
        except BaseException:  # an interrupt too
            stopped.set()
            for process in running:
                process.terminate()
            raise


def _places(out: Path, folders: Mapping[str, str]) -> dict[str, str]:
    """The files worth a look, each with what it is."""
    validated = sorted(path.name for path in Path(folders["rrw"]).glob("predictions/*"))[0]
    return {
        str(out / "results" / "report.html"): "everything on one page, for a browser",
        str(out / "results" / "summary.md"): "the tables and the rules behind them",
        str(out / "results" / "cases.csv"): "every number, a line each",
        str(out / "images" / validated): f"a heart; over it {out / 'labels' / validated}",
        f"{folders['rrw']}/predictions/{validated}": "the same heart by rrw, which has not seen it; so in "
        + " and ".join(folder for loss, folder in folders.items() if loss != "rrw"),
        str(out / "maps" / "boundary" / validated): "its Boundary map, a channel a class",
        f"{folders['rrw']}/metrics.csv": "loss and Dice by epoch",
        str(out / "predictions"): "the hearts that came without labels",
    }
