"""nnU-Net's results folders: which predictions they hold, of which cases, and where the references of these are.

A model's folder is called ``TRAINER__PLANS__CONFIGURATION``. It holds ``dataset.json``, ``plans.json`` and a folder for
each fold, whose ``validation`` holds label files. ``crossval_results_folds_0_1_2_3_4``, ``ensembles/ensemble___A___B``
and the folders of ``nnUNetv2_predict`` hold label files beside copies of both JSON files. No ``.pkl`` and no ``.npz``
is read, and no path that stands in a file is followed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rwtool.datasets.cases import Found, search_cases
from rwtool.errors import UsageError, VolumeError, shorten
from rwtool.files import is_file_name
from rwtool.records import read_parsed

DATASET, PLANS, VALIDATION, POSTPROCESSED = "dataset.json", "plans.json", "validation", "postprocessed"
_REFERENCES = (("nnUNet_raw", "labelsTr"), ("nnUNet_preprocessed", "gt_segmentations"))
_TEST_REFERENCES = ("nnUNet_raw", "labelsTs")
_FOLD = re.compile(r"fold_(all|[0-9]{1,9})")
_COLLECTED = re.compile(r"(crossval_results_folds|ensemble__)_.+")
_OF_A_FOLD = (
    "validation/summary.json", "checkpoint_final.pth", "checkpoint_best.pth", "checkpoint_latest.pth", "debug.json",
)  # fmt: skip
_PREDICTED = "predict_from_raw_data_args.json"  # nnUNetv2_predict writes it
_MEND = "mend it, or copy it again from its model"


@dataclass(frozen=True)
class NnunetResults:
    """Predictions of nnU-Net.

    Attributes
    ----------
    folder : Path
        As it was given.
    home : Path
        Folder of ``dataset.json`` and ``plans.json``: that of the model, or of the predictions themselves.
    predictions : tuple of Path
        Folders of label files.
    identity : tuple of str
        Data set, trainer, plans, configuration and part, such as ``fold_0``; empty where the folders do not say.
    validated : bool
        Whether these are predictions of training cases that the model, or that of the fold, was validated on.
    notes : tuple of str
        What a user should know of the folds.
    """

    folder: Path
    home: Path
    predictions: tuple[Path, ...]
    identity: tuple[str, ...] = ()
    validated: bool = True
    notes: tuple[str, ...] = ()

    @property
    def fold(self) -> bool:
        """Whether these are of one fold."""
        return self.identity != () and _FOLD.fullmatch(self.identity[-1]) is not None

    @property
    def dataset_json(self) -> Path | None:
        """The description of the data set that belongs to the predictions."""
        return path if (path := self.home / DATASET).is_file() else None


def find_results(folder: Path) -> NnunetResults | None:
    """Tell what a folder of nnU-Net's results stands for: a model, one fold, or predictions; None for any other.

    Raises
    ------
    UsageError
        It is ``fold_all`` alone, or a fold was not validated yet.
    VolumeError
        It cannot be read.
    """
    try:
        return _find(folder) if folder.is_dir() else None
    except OSError as error:
        raise VolumeError(f"{error.filename or folder}: cannot be read: {error.strerror or error}") from error


def _find(folder: Path) -> NnunetResults | None:
    whole = Path(os.path.abspath(folder))
    if _is_fold(whole):
        return _of_fold(folder, whole, folder / VALIDATION)
    if whole.name == VALIDATION and _is_fold(whole.parent):
        return _of_fold(folder, whole.parent, folder)
    folds = _folds_of(whole)
    return _of_model(folder, whole, folds) if folds else _collected(folder, whole)


def unite_folds(results: Sequence[NnunetResults]) -> NnunetResults:
    """Take some folds of one model for one: each case was validated in one of them."""
    first = results[0]
    folds = [found.identity[-1] for found in results]
    return replace(
        first,
        folder=first.home,
        predictions=tuple(place for found in results for place in found.predictions),
        identity=(*first.identity[:-1], "__".join(folds)),
        notes=(f"{first.home}: {', '.join(folds)} alone", *(note for found in results for note in found.notes)),
    )


def name_results(results: Sequence[NnunetResults]) -> list[str]:
    """Name methods by what differs between their folders: data set, trainer, plans, configuration, fold.

    One that differs in nothing has the name of its model, and a folder of predictions its own.
    """
    known = [found.identity for found in results if found.identity]
    differ = [k for k, values in enumerate(zip(*known, strict=True)) if len(set(values)) > 1]
    names = []
    for found in results:
        parts = [found.identity[k] for k in differ] if found.identity else [found.home.name]
        names.append("__".join(filter(None, parts)) or "__".join(filter(None, found.identity[1:4])))
    return names


def search_results(results: NnunetResults, *, name: str | None = None) -> Found:
    """Find the predictions in all folders of the results.

    Parameters
    ----------
    results : NnunetResults
    name : str, optional
        As for :func:`rwtool.datasets.cases.search_cases`.

    Raises
    ------
    UsageError
        Two folds predicted one case, or a folder holds no prediction.
    """
    ending = _file_ending(results)
    cases: dict[str, Path] = {}
    passed_over: dict[Path, str] = {}
    notes: list[str] = []
    for folder in results.predictions:
        found = search_cases(folder, name=name, strict=False)
        kept = {case: path for case, path in found.cases.items() if path.name.endswith(ending)}
        if not kept:
            raise UsageError(
                f"{folder}: no file ends with {ending}, as those of this data set do by {results.home / DATASET}; is "
                "it the folder of another one?"
            )
        if twice := sorted(cases.keys() & kept.keys()):
            raise UsageError(
                f"two folds predicted the same case: {shorten(twice)} ({cases[twice[0]]}, {kept[twice[0]]}); a case is "
                "validated once (for a fold that splits_final.json does not have, such as fold_5, nnU-Net splits at "
                "random); name one of them, or NAME=DIR1,DIR2 for folds that share none"
            )
        cases |= kept
        passed_over |= {path: why for path, why in found.passed_over.items() if path.suffix != ".npz"}
        notes += found.notes
    return Found(dict(sorted(cases.items())), passed_over, (*results.notes, *notes))


def find_reference(results: Sequence[NnunetResults], wanted: Collection[str], *, name: str | None = None) -> Path:
    """Find the folder of references in nnU-Net's own folders, which the environment names.

    It is ``nnUNet_raw/DATASET/labelsTr``, else ``nnUNet_preprocessed/DATASET/gt_segmentations``; for predictions of
    other cases ``nnUNet_raw/DATASET/labelsTs``.

    Parameters
    ----------
    results : sequence of NnunetResults
    wanted : collection of str
        The cases.
    name : str, optional
        As for :func:`rwtool.datasets.cases.search_cases`.

    Raises
    ------
    UsageError
        The results are of several data sets, or no folder has a reference of every case.
    """
    datasets = {_dataset_name(found): found.folder for found in results}
    if len(datasets) > 1:
        listed = ", ".join(f"{dataset} ({folder})" for dataset, folder in datasets.items())
        raise UsageError(f"the results are of several data sets: {listed}; give reference= to say where to look")
    (dataset,) = datasets
    places = [*_REFERENCES] if all(found.validated for found in results) else [*_REFERENCES, _TEST_REFERENCES]
    looked: list[str] = []
    fitting: list[Path] = []
    for variable, inner in places:
        base = os.environ.get(variable)
        if not base:
            looked.append(f"the variable {variable} is not set")
            continue
        folder = Path(base) / dataset / inner
        if not folder.is_dir():
            looked.append(f"there is no {folder}")
            continue
        try:
            lacking = sorted(set(wanted) - set(search_cases(folder, name=name, strict=False).cases))
        except UsageError as error:
            looked.append(str(error))
            continue
        if lacking:
            looked.append(f"{folder} lacks {shorten(lacking)}")
        else:
            fitting.append(folder)
    if not fitting:
        raise UsageError(
            f"no reference was given, and nnU-Net's folders hold none of every case: {'; '.join(looked)}; give "
            "reference= before the predictions, or set the variables"
        )
    if len({folder.name == "labelsTs" for folder in fitting}) > 1:
        listed = " and ".join(str(folder) for folder in fitting)
        raise UsageError(f"{listed} have references of these names; give reference= to say which")
    return fitting[0]


def _is_fold(folder: Path) -> bool:
    """Whether a folder is one of a fold, by its name and by what lies in it or beside it."""
    return _FOLD.fullmatch(folder.name) is not None and (
        (folder.parent / PLANS).is_file() or any((folder / name).is_file() for name in _OF_A_FOLD)
    )


def _folds_of(model: Path) -> list[Path]:
    """The folders of its folds, in numeric order, ``fold_all`` last."""
    if not model.is_dir() or not os.access(model, os.R_OK | os.X_OK):
        return []
    folds = [path for path in model.iterdir() if path.is_dir() and _is_fold(path)]
    numbers = {path: match[1] for path in folds if (match := _FOLD.fullmatch(path.name))}
    return sorted(folds, key=lambda path: (numbers[path] == "all", int(numbers[path].replace("all", "0")), path.name))


def _of_fold(given: Path, fold: Path, place: Path) -> NnunetResults:
    if fold.name == "fold_all":
        raise UsageError(
            f"{given}: fold_all is validated on the cases that it was trained on, so its numbers say nothing of new "
            "ones; name a numbered fold, or its predictions of other cases"
        )
    notes = _check_validations({fold.name: place}, given)
    return NnunetResults(given, fold.parent, (place,), (*_identity(fold.parent), fold.name), notes=notes)


def _of_model(given: Path, model: Path, folds: list[Path]) -> NnunetResults:
    places = {fold.name: given / fold.name / VALIDATION for fold in folds if fold.name != "fold_all"}
    if not places:
        return _of_fold(given, folds[0], given / folds[0].name / VALIDATION)
    notes = _check_validations(places, given)
    if len(places) < len(folds):
        notes = (*notes, f"{given}: fold_all is left out, since it is validated on the cases that it was trained on")
    return NnunetResults(given, model, tuple(places.values()), (*_identity(model), ""), notes=notes)


def _collected(given: Path, whole: Path) -> NnunetResults | None:
    """Predictions beside copies of both JSON files."""
    home = whole.parent if whole.name == POSTPROCESSED else whole
    if not ((home / DATASET).is_file() and (home / PLANS).is_file()):
        return None
    if (home / _PREDICTED).is_file():
        return NnunetResults(given, home, (given,), validated=False)
    if _folds_of(home.parent):
        part = home.name if home == whole else f"{home.name}__{whole.name}"
        return NnunetResults(given, home, (given,), (*_identity(home.parent), part))
    return NnunetResults(given, home, (given,), validated=_COLLECTED.fullmatch(home.name) is not None)


def _check_validations(places: Mapping[str, Path], given: Path) -> tuple[str, ...]:
    """Refuse folds that were not validated yet, and say what is odd about the others."""
    waiting = [fold for fold, place in places.items() if not place.is_dir()]
    if waiting:
        done = [str(place.parent) for fold, place in places.items() if fold not in waiting]
        others = f", or name the finished folds, NAME={','.join(done)}" if done else ""
        raise UsageError(
            f"{given}: no {VALIDATION}/ in {shorten(waiting)}, so unfinished; finish it with nnUNetv2_train{others}"
        )
    cut = [fold for fold, place in places.items() if not (place / "summary.json").is_file()]
    if not cut:
        return ()
    return (f"{given}: no summary.json in {VALIDATION}/ of {shorten(cut)}, so its validation may not be through",)


def _identity(model: Path) -> tuple[str, ...]:
    """Data set, trainer, plans and configuration by the names of the folders."""
    parts = model.name.split("__")
    return (model.parent.name, *(parts if len(parts) == 3 else ("", "", model.name)))


def _file_ending(results: NnunetResults) -> str:
    """How the names of the label files end; empty where ``dataset.json`` does not say."""
    path = results.dataset_json
    ending = "" if path is None else _field(path, "file_ending")
    if ending and (not ending.startswith(".") or not is_file_name(ending)):
        raise UsageError(f"{path}: $.file_ending: expected an ending such as .nii.gz; found {ending!r}; {_MEND}")
    return ending


def _dataset_name(results: NnunetResults) -> str:
    """Name of the data set, such as ``Dataset001_Heart``: as the plans have it, else by the folders."""
    path = results.home / PLANS
    name = _field(path, "dataset_name") if path.is_file() else ""
    name = name or next((folder.name for folder in results.home.parents if folder.name.startswith("Dataset")), "")
    if not name:
        raise UsageError(f"{results.folder}: nothing says which data set of nnU-Net it is of; give reference=")
    if not is_file_name(name):
        raise UsageError(f"{path}: $.dataset_name: expected the name of a folder; found {name!r}; {_MEND}")
    return name


def _field(path: Path, name: str) -> str:
    """A text of a JSON file of nnU-Net, which writes NaN; empty where there is none."""
    content: Any = read_parsed(path, json.loads, refusal="cannot be read as JSON", mend=_MEND, error=UsageError)
    value = content.get(name, "") if isinstance(content, dict) else ""
    if not isinstance(value, str):
        raise UsageError(f"{path}: $.{name}: expected str; found {value!r}; {_MEND}")
    return value
