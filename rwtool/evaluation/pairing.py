"""Which prediction belongs to which reference, of which run of which method; and which cases count, in which group."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rwtool.datasets.cases import search_cases
from rwtool.datasets.nnunet import NnunetResults, find_reference, find_results
from rwtool.datasets.plan import search_notes
from rwtool.datasets.runs import PredictionSource, SharedValidation, common_validation, find_sources, run_names
from rwtool.datasets.splits import read_case_names
from rwtool.errors import UsageError, shorten


@dataclass(frozen=True)
class Run:
    """The predictions of one run of a method.

    Attributes
    ----------
    method : str
    name : str
        Empty where the method has one run.
    source : Path
        Folder, file or glob of the predictions.
    files : dict of str to Path
        Case to prediction, of the cases that have one.
    extra : tuple of str
        Predictions without a reference.
    missing : tuple of str
        Cases without a prediction.
    """

    method: str
    name: str
    source: Path
    files: dict[str, Path]
    extra: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """For people: the method, and the run where there are several."""
        return f"{self.method}, run {self.name}" if self.name else self.method


@dataclass(frozen=True)
class Pairing:
    """References, and the runs to compare with them.

    Attributes
    ----------
    references : dict of str to Path
        By case.
    runs : tuple of Run
        All runs of a method stand together.
    validation : SharedValidation, optional
        What limited the references, where run folders did.
    reference : str
        Where the references are.
    dataset_json : Path, optional
        What describes the data set of nnU-Net's predictions.
    notes : tuple of str
        What a user should know of the folders, such as files that were passed over.
    """

    references: dict[str, Path]
    runs: tuple[Run, ...]
    validation: SharedValidation | None = None
    reference: str = ""
    dataset_json: Path | None = None
    notes: tuple[str, ...] = ()

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the methods, in the order given."""
        return tuple(dict.fromkeys(run.method for run in self.runs))


def pair_files(
    reference: str | None,
    predictions: Sequence[str],
    *,
    cases: str | None = None,
    allow_missing: bool = False,
    name: str | None = None,
) -> Pairing:
    """Pair predictions with references by case name.

    Parameters
    ----------
    reference : str, optional
        Folder, file or glob; by default what :func:`rwtool.datasets.nnunet.find_reference` finds.
    predictions : sequence of str
        Each ``DIR``, ``FILE``, ``NAME=DIR``, or ``NAME=DIR1,DIR2,DIR3`` for several runs of one method. A folder that
        holds ``predictions`` stands for that folder, and one that holds ``seed-0/predictions``,
        ``seed-1/predictions``, ... for these as runs of one method. A folder of nnU-Net's results stands for its
        predictions, see :func:`rwtool.datasets.nnunet.find_results`. Without a name the method is called after its
        folder or file, and one of nnU-Net after what differs.
    cases : str, optional
        Limits the cases, see :func:`read_case_names`. Without it, a ``split.json`` beside ``predictions`` limits them
        to its validation cases, unless it has none or the reference is a single file; so do the predictions of
        nnU-Net's validation, and all of nnU-Net's where no reference is given.
    allow_missing : bool
        Go on where a run lacks a case.
    name : str, optional
        Which part of a path is the name of the case, see :func:`search_cases`, in each folder that holds files of that
        form; in others it is the name of the file.

    Returns
    -------
    Pairing
        A single file and a single reference file pair whatever their names.

    Raises
    ------
    UsageError
        Nothing is found, two methods have one name, a run is unfinished, runs were validated on different cases, a
        prediction is missing and may not be, or a run has none.
    """
    if not predictions:
        raise UsageError("no predictions to evaluate; name a folder of them")
    listed = None if cases is None else read_case_names(cases)
    methods = find_sources(predictions)
    sources = [source for found in methods.values() for source in found]
    held = {source: source.search(name=name) for source in sources}
    nnunet = {source: source.nnunet for source in sources if source.nnunet is not None}
    notes: list[str] = []
    whole = reference is None
    if reference is None:
        wanted = listed or {case for source in nnunet for case in held[source].cases}
        reference, note = _found_reference(nnunet, wanted, name)
        notes.append(note)
    elif find_results(Path(reference)) is not None:
        notes.append(
            f"{reference}: these predictions of nnU-Net are taken for the reference; to measure them, name their "
            "reference before them, or give them a name, NAME=DIR, for nnU-Net's own"
        )
    found = search_cases(reference, name=name, strict=False)
    notes += search_notes(found)
    every = references = found.cases
    single = len(every) == 1 and (Path(reference).is_file() or next(iter(every.values())) == Path(reference))
    validation = None
    if listed is not None:
        references = _limited(every, listed, str(cases))
    elif not single:
        limits = {source: held[source].cases for source, of in nnunet.items() if of.validated or whole}
        validation = common_validation(sources, len(every), limits)
    if validation is not None:
        remedy = "; give cases=FILE to name the cases"
        references = _limited(every, validation.names, str(validation.files[0]), remedy)
    runs: list[Run] = []
    for method, of_method in methods.items():
        for run_name, source in zip(run_names([source.folder for source in of_method]), of_method, strict=True):
            notes += search_notes(held[source])
            run = _make_run(method, run_name, source.predictions, held[source].cases, references, single=single)
            runs.append(replace(run, extra=tuple(case for case in run.extra if case not in every)))
    missing = [run for run in runs if run.missing]
    if missing and not allow_missing:
        lacking = "; ".join(f"{run.label} ({run.source}) lacks {shorten(run.missing)}" for run in missing)
        raise UsageError(
            f"predictions are missing: {lacking}; give allow_missing=True to count their structures as missed, "
            "or cases=FILE to leave these cases out"
        )
    described = next((path for of in nnunet.values() if (path := of.dataset_json) is not None), None)
    return Pairing(references, tuple(runs), validation, reference, described, tuple(dict.fromkeys(notes)))


def _found_reference(
    nnunet: Mapping[PredictionSource, NnunetResults], wanted: Collection[str], name: str | None
) -> tuple[str, str]:
    """The references that nnU-Net's folders hold, and what to say of it."""
    if not nnunet:
        raise UsageError("there are predictions alone; give reference= before them, a folder of reference labels")
    folder = find_reference(list(nnunet.values()), wanted, name=name)
    return str(folder), f"no reference was given, so it is nnU-Net's: {folder}"


def _limited(references: dict[str, Path], names: Sequence[str], source: str, remedy: str = "") -> dict[str, Path]:
    unknown = [name for name in names if name not in references]
    if unknown:
        raise UsageError(
            f"{source} names cases without a reference: {shorten(unknown)}; the references are "
            f"{shorten(list(references))}{remedy}"
        )
    return {name: references[name] for name in references if name in set(names)}


def _make_run(
    method: str, name: str, source: Path, found: dict[str, Path], references: dict[str, Path], *, single: bool
) -> Run:
    if single and len(found) == 1 and (source.is_file() or next(iter(found.values())) == source):
        found = dict(zip(references, found.values(), strict=True))
    files = {case: found[case] for case in references if case in found}
    if not files:
        raise UsageError(
            f"no prediction in {source} has the name of a reference: it holds {shorten(list(found))}, and the "
            f"cases to evaluate are {shorten(list(references))}; give name=PATTERN to say which part of a path is the "
            "name"
        )
    return Run(
        method,
        name,
        source,
        files,
        extra=tuple(case for case in found if case not in references),
        missing=tuple(case for case in references if case not in files),
    )
