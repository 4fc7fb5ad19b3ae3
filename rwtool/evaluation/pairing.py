"""Which prediction belongs to which reference, of which run of which method; and which cases count, in which group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rwtool.datasets.cases import search_cases
from rwtool.datasets.plan import search_notes
from rwtool.datasets.runs import SharedValidation, common_validation, find_sources, run_names
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
    notes : tuple of str
        What a user should know of the folders, such as files that were passed over.
    """

    references: dict[str, Path]
    runs: tuple[Run, ...]
    validation: SharedValidation | None = None
    notes: tuple[str, ...] = ()

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the methods, in the order given."""
        return tuple(dict.fromkeys(run.method for run in self.runs))


def pair_files(
    reference: str,
    predictions: Sequence[str],
    *,
    cases: str | None = None,
    allow_missing: bool = False,
    name: str | None = None,
) -> Pairing:
    """Pair predictions with references by case name.

    Parameters
    ----------
    reference : str
        Folder, file or glob.
    predictions : sequence of str
        Each ``DIR``, ``FILE``, ``NAME=DIR``, or ``NAME=DIR1,DIR2,DIR3`` for several runs of one method. A folder that
        holds ``predictions`` stands for that folder, and one that holds ``seed-0/predictions``,
        ``seed-1/predictions``, ... for these as runs of one method. Without a name the method is called after its
        folder or file.
    cases : str, optional
        Limits the cases, see :func:`read_case_names`. Without it, a ``split.json`` beside ``predictions`` limits them
        to its validation cases, unless it has none or the reference is a single file.
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
    found = search_cases(reference, name=name, strict=False)
    notes = [*search_notes(found)]
    every = references = found.cases
    single = len(every) == 1 and (Path(reference).is_file() or next(iter(every.values())) == Path(reference))
    validation = None
    if cases is not None:
        references = _limited(every, read_case_names(cases), cases)
    if not predictions:
        raise UsageError("no predictions to evaluate; name a folder of them")
    methods = find_sources(predictions)
    if cases is None and not single:
        validation = common_validation([source for sources in methods.values() for source in sources], len(every))
    if validation is not None:
        remedy = "; give cases=FILE to name the cases"
        references = _limited(every, validation.names, str(validation.files[0]), remedy)
    runs: list[Run] = []
    for method, sources in methods.items():
        for run_name, source in zip(run_names([source.folder for source in sources]), sources, strict=True):
            held = search_cases(source.predictions, name=name, strict=False)
            notes += search_notes(held)
            run = _make_run(method, run_name, source.predictions, held.cases, references, single=single)
            runs.append(replace(run, extra=tuple(case for case in run.extra if case not in every)))
    missing = [run for run in runs if run.missing]
    if missing and not allow_missing:
        listed = "; ".join(f"{run.label} ({run.source}) lacks {shorten(run.missing)}" for run in missing)
        raise UsageError(
            f"predictions are missing: {listed}; give allow_missing=True to count their structures as missed, "
            "or cases=FILE to leave these cases out"
        )
    return Pairing(references, tuple(runs), validation, tuple(dict.fromkeys(notes)))


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
