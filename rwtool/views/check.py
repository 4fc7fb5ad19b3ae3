"""The check of a folder of maps, and a picture of what it counts: what ``rwtool check`` does."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rwtool.datasets.cases import find_cases
from rwtool.datasets.runs import KEPT, RESULTS, Which
from rwtool.engines import EngineName
from rwtool.errors import RwtoolError, UsageError
from rwtool.maps.check import CaseCheck, CheckedMaps, verify_maps
from rwtool.records import read_json
from rwtool.report.figures import check_can_draw, check_figure_path
from rwtool.views.signs import draw_signs


def check_maps(
    maps: str | Path,
    *,
    labels: str | Path | None = None,
    name: str | None = None,
    seed: int = 0,
    figure: str | Path | None = None,
    case: str | None = None,
    slice: int | None = None,  # noqa: A002  # the option's name
    run: str | Path | None = None,
    checkpoint: Which = "last",
    images: str | Path | None = None,
    overwrite: bool = False,
    shard: str | None = None,
    jobs: int | None = None,
    engine: EngineName | None = None,
    scheduler: str | None = None,
    verbosity: int = -1,
) -> CheckedMaps:
    """Check a folder of maps: what ``rwtool check`` does.

    Parameters
    ----------
    maps : path
        The folder of one kind, with its ``maps.json``.
    labels : path, optional
        Folder, file or glob of the label files; by default they are where the sidecar says they were.
    name : str, optional
        Which part of the path of a label file is the name of the case.
    seed : int
        Of the random softmax.
    figure : path, optional
        A picture, ``.png``, ``.pdf`` or ``.svg``, of where gradient components have the wrong sign.
    case : str, optional
        The case of the figure; by default the one with most such voxels.
    slice : int, optional
        The slice of the figure; by default the one with most such voxels.
    run : path, optional
        A run of :func:`train`, at whose softmax the figure shows the signs too.
    checkpoint : {"last", "best"} or int
        Of the run: best is that of the largest mean validation Dice, a number that of this epoch, which the run has
        kept.
    images : path, optional
        Images for the figure: a folder, a glob, or the file of the case. By default those that the run was trained
        from; without a run the classes are shown without an image.
    overwrite : bool
        Replace a figure that is there.
    shard : str, optional
        Check one share of the cases, such as ``"2/8"``, or ``"slurm"``: see `rwtool help cluster`.
    jobs : int, optional
        Cases at once; by default what cores and free memory allow, or all workers of an engine.
    engine, scheduler
        As for :func:`rwtool.make_maps`.
    verbosity : int
        -1 shows no progress.

    Returns
    -------
    CheckedMaps

    Raises
    ------
    UsageError
        If the folder holds no sidecar, or what is said of the figure does not fit.
    RwtoolError
        The figure cannot be drawn.
    """
    if checkpoint != "last" and run is None:
        raise UsageError(f"checkpoint={checkpoint} is that of a run; give run=FOLDER too")
    given = {"case": case, "slice": slice, "run": run, "images": images, "overwrite": overwrite or None}
    path = None if figure is None else check_figure_path(Path(figure))
    if path is None:
        wrong = [key for key, value in given.items() if value is not None]
        if wrong:
            raise UsageError(f"{wrong[0]}= belongs to a figure; give figure=FILE.png too")
    else:
        if shard is not None:
            raise UsageError(
                "figure= shows one case of all, and a shard has some; leave shard= out, and name it by case="
            )
        check_can_draw()
        if os.path.lexists(path) and not overwrite:
            raise UsageError(f"{path} is there already; overwrite=True replaces it, or choose another figure=")
    if run is not None and images is None:
        images = _images_of(Path(run))
    checked = verify_maps(
        maps,
        labels=labels,
        name=name,
        seed=seed,
        shard=shard,
        jobs=jobs,
        engine=engine,
        scheduler=scheduler,
        verbosity=verbosity,
    )
    if path is None:
        return checked
    if checked.maps.kind == "matrix":
        raise UsageError("a matrix has no map of a case that a figure could show; leave out figure=")
    shown = _shown(checked, case)
    source = checked.maps.source(shown) if labels is None else find_cases(labels, name=name)[shown]
    drawn = draw_signs(
        checked.maps,
        shown,
        source,
        path,
        seed=seed,
        z=slice,
        run=None if run is None else Path(os.path.abspath(run)),
        checkpoint=checkpoint,
        images=images,
    )
    return replace(checked, figure=drawn)


def _shown(checked: CheckedMaps, case: str | None) -> str:
    """The case to show: a sound one, the first of those with most voxels of two or more negative components."""
    good: Sequence[CaseCheck] = [one for one in checked.cases if not one.problems]
    if case is None:
        if not good:
            first = checked.cases[0]
            raise RwtoolError(f"no map verifies, so there is no figure; {first.name}: {first.problems[0]}")
        return max(good, key=lambda one: one.uniform.unstable + one.random.unstable).name
    if case not in checked.maps.cases:
        raise UsageError(f"case={case}: the maps are of {', '.join(list(checked.maps.cases)[:5])}; name one of them")
    found = next(one for one in checked.cases if one.name == case)
    if found.problems:
        raise RwtoolError(f"{case} does not verify, so there is no figure: {found.problems[0]}")
    return case


def _images_of(run: Path) -> str:
    """The images that a run was trained from, as its ``run.json`` says; it may be a checkpoint in its folder."""
    if run.is_file():
        folder = Path(os.path.abspath(run)).parent
        run = folder.parent if folder.name == KEPT else folder
    path = run / RESULTS
    if path.is_file():
        content = read_json(path, refusal="cannot be read", mend="give images=FOLDER")
        images = content.get("images") if isinstance(content, dict) else None
        if isinstance(images, str) and Path(images).exists():
            return images
    raise UsageError(f"{run}: where its images are is not known here; give images=FOLDER")
