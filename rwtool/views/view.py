"""Pictures of a case with its maps, or of a whole data set: what ``rwtool view`` does."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rwtool.console import count
from rwtool.datasets.cases import find_cases
from rwtool.datasets.channels import find_images
from rwtool.datasets.classes import Classes
from rwtool.datasets.plan import DataSet, NoClassError, plan_dataset
from rwtool.errors import RwtoolError, UsageError
from rwtool.maps.parameters import FILED, Kind
from rwtool.maps.settings import SIDECAR
from rwtool.parallel import Outcome
from rwtool.report.figures import check_can_draw, check_figure_path
from rwtool.views.case import draw_case, show_case
from rwtool.views.sheet import COLUMNS, Flags, draw_sheet, page_paths, strip_length
from rwtool.views.source import MapFile, classes_of, find_maps, image_of

SHOWN_KINDS: tuple[Kind, ...] = ("ac", "boundary", "hd", "rrw")
"""Those of the paper's Figure 1."""


@dataclass(frozen=True)
class View:
    """What was drawn.

    Attributes
    ----------
    dataset : DataSet
    files : tuple of Path
        The pictures: one of a case, or the pages of a contact sheet.
    slice : int or None
        Of a case, the one that is shown.
    outcomes : tuple of Outcome
        By case: what is to be looked at (:class:`Flags`), or the reason why it could not be read.
    """

    dataset: DataSet
    files: tuple[Path, ...]
    slice: int | None
    outcomes: tuple[Outcome[Flags], ...]

    @property
    def failed(self) -> tuple[Outcome[Flags], ...]:
        """The cases that could not be read, with their reasons."""
        return tuple(outcome for outcome in self.outcomes if outcome.error is not None)

    @property
    def flagged(self) -> dict[str, Flags]:
        """The cases with something to be looked at."""
        return {outcome.name: outcome.result for outcome in self.outcomes if outcome.result}


def view(
    labels: str | Path,
    out: str | Path | None = None,
    *,
    image: str | Path | None = None,
    maps: Sequence[str | Path] = (),
    kinds: Sequence[Kind] | None = None,
    slice: int | None = None,  # noqa: A002  # the option's name
    slices: int | None = None,
    classes: Sequence[int] | None = None,
    ignore: int | None = None,
    spacing_mm: Sequence[float] | None = None,
    slice_axis: int | None = None,
    name: str | None = None,
    jobs: int | None = None,
    overwrite: bool = False,
    verbosity: int = -1,
    on_plan: Callable[[DataSet], None] | None = None,
) -> View:
    """Draw a case with its maps, or a contact sheet of a data set: what ``rwtool view`` does.

    Parameters
    ----------
    labels : path
        A label file, which is drawn with its maps; or a folder or glob, of which a contact sheet is made.
    out : path, optional
        The picture, ``.png``, ``.pdf`` or ``.svg``. By default ``NAME.png`` in the current folder, by the name of the
        case or the folder. A sheet of several pages is ``FILE-1.png``, ``FILE-2.png``, ...
    image : path, optional
        The image of the case; or a folder or glob that holds images under the names of the cases. Of several channels
        the first is shown.
    maps : sequence of path, optional
        Maps of the case: files, folders of a kind, or the folder above them.
    kinds : sequence of {"ac", "boundary", "constant", "hd", "rrw", "skeleton"}, optional
        Maps to be made for the picture, in mm and 3D; by default ac, boundary, hd and rrw where no `maps` are given.
    slice : int, optional
        Of a case; by default the first of those with most foreground.
    slices : int, optional
        Slices of each case of a sheet, 8 by default.
    classes, ignore, spacing_mm, slice_axis, name
        As for :func:`make_maps`.
    jobs : int, optional
        Pages at once; by default what cores and free memory allow.
    overwrite : bool
        Replace pictures that are there.
    verbosity : int
        -1 shows no progress.
    on_plan : callable, optional
        Called with the data set before anything is drawn.

    Returns
    -------
    View
        One bad case of a sheet does not cost the others: see its `failed`.

    Raises
    ------
    UsageError
        matplotlib is not installed, the options do not fit, or a file is there already.
    RwtoolError
        The only case cannot be read.

    Examples
    --------
    ``rwtool.view("labels/heart_00.nii.gz", "heart.png", image="images", kinds=("boundary", "rrw"))``
    """
    check_can_draw()
    if out is not None:
        check_figure_path(Path(out))
    unknown = [kind for kind in kinds or () if kind not in FILED]
    if unknown:
        raise UsageError(f"kinds= are some of {', '.join(FILED)}; found {', '.join(map(str, unknown))}")
    source = Path(labels)
    found = _maps_of(maps, source, name)
    known = classes_of(found, classes)
    dataset = _plan(
        labels,
        classes=classes if known is None else known.values,
        ignore=ignore if known is None else known.ignore,
        spacing_mm=spacing_mm,
        slice_axis=slice_axis,
        name=name,
        jobs=jobs,
        verbosity=verbosity,
    )
    if known is not None:
        dataset = _of_classes(dataset, replace(known, source=str(found[0].maps.folder / SIDECAR)))
    if on_plan is not None:
        on_plan(dataset)
    alone = source.is_file() or (len(dataset.paths) == 1 and source in dataset.paths.values())  # or a DICOM series
    _refuse_misplaced(alone, slice=slice, maps=maps or None, kinds=kinds, slices=slices)
    grid = {"spacing_mm": spacing_mm, "slice_axis": slice_axis}
    target = None if out is None else Path(out)
    if alone:
        made = kinds if kinds is not None else () if found else SHOWN_KINDS
        return _view_case(dataset, target, image, found, made, slice, grid, overwrite)
    name_of_all = (source.name or source.resolve().name) if source.is_dir() else "sheet"
    return _view_all(dataset, target or Path(f"{name_of_all}.png"), image, slices, grid, jobs, overwrite, verbosity)


def _view_case(
    dataset: DataSet,
    out: Path | None,
    image: str | Path | None,
    maps: Sequence[MapFile],
    kinds: Sequence[Kind],
    z: int | None,
    grid: Mapping[str, Any],
    overwrite: bool,
) -> View:
    """Draw the only case of a data set."""
    (case,) = dataset.paths
    if dataset.failed:
        raise RwtoolError(dataset.failed[0].error or f"{dataset.paths[case]}: cannot be read")
    pixels = None if image is None else image_of(image, case)
    path = out or Path(f"{case}.png")
    _refuse_taken([path], dataset, [*(pixels or ()), *(one.path for one in maps)], overwrite)
    shown = show_case(case, dataset.files[case], image=pixels, maps=maps, kinds=kinds, z=z, **grid)
    draw_case(shown, path)
    return View(dataset, (path,), shown.z, (Outcome(case, Flags(notes=shown.notes)),))


def _view_all(
    dataset: DataSet,
    out: Path,
    image: str | Path | None,
    slices: int | None,
    grid: Mapping[str, Any],
    jobs: int | None,
    overwrite: bool,
    verbosity: int,
) -> View:
    """Draw a contact sheet."""
    if slices is not None and not 1 <= slices <= COLUMNS:
        raise UsageError(f"slices= is a number from 1 to {COLUMNS}; found slices={slices}")
    images = None if image is None else find_images(image, names=list(dataset.paths))[0]
    cells = strip_length(dataset, slices or COLUMNS)
    pages = page_paths(out, len(dataset.paths), cells)
    _refuse_taken(pages, dataset, [path for paths in (images or {}).values() for path in paths], overwrite)
    sheet = draw_sheet(dataset, images, pages, slices=cells, grid=grid, jobs=jobs, verbosity=verbosity)
    return View(dataset, tuple(sheet.pages), None, tuple(sheet.outcomes))


def _maps_of(maps: Sequence[str | Path], source: Path, name: str | None) -> list[MapFile]:
    """The maps that are given for a label file, found before its classes are asked for: they have a list of these."""
    if not maps or not source.is_file():
        return []
    (case,) = find_cases(source, name=name)
    return [one for path in ([maps] if isinstance(maps, (str, Path)) else maps) for one in find_maps(path, case)]


def _plan(labels: str | Path, **options: object) -> DataSet:
    """Look at the label files; where none holds a class, there is one that is nowhere."""
    try:
        return plan_dataset(labels, **options)  # type: ignore[arg-type]
    except NoClassError:
        return plan_dataset(labels, **{**options, "classes": (0, 1)})  # type: ignore[arg-type]


def _of_classes(dataset: DataSet, classes: Classes) -> DataSet:
    """The data set with the names that its classes have in the maps."""
    files = {case: replace(file, classes=classes) for case, file in dataset.files.items()}
    return replace(dataset, classes=classes, files=files)


def _refuse_misplaced(alone: bool, **given: object) -> None:
    """Refuse what belongs to a case with a data set, and the other way."""
    wrong = [key for key, value in given.items() if value is not None and (key == "slices") == alone]
    if wrong:
        what = "a data set, and one label file was given" if alone else "one label file, and a data set was given"
        raise UsageError(f"{wrong[0]}= belongs to {what}; leave it out")


def _refuse_taken(pictures: Sequence[Path], dataset: DataSet, inputs: Sequence[Path], overwrite: bool) -> None:
    """Refuse to write over what is read, among label files, or over what is there."""
    read = {path.resolve() for path in (*dataset.paths.values(), *inputs)}
    for path in pictures:
        if path.resolve() in read:
            raise UsageError(f"the picture would replace {path}, which it is made of; choose another out=")
        if path.suffix.lower() == ".png" and path.resolve().parent in dataset.folders:
            raise UsageError(
                f"{path}: a picture among the label files would be taken for one of them; choose another out="
            )
    there = [path for path in pictures if os.path.lexists(path)]
    if there and not overwrite:
        more = f" and {count(len(there) - 1, 'other picture')}" if len(there) > 1 else ""
        raise UsageError(f"{there[0]}{more} is there already; overwrite=True replaces it, or choose another out=")
