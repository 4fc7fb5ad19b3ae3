"""From scans to subjects: average runs and repeated scans, and notice that scans repeat.

A paired test wants independent rows. Scans of one patient are not: tested one by one they give too many false
positives, so they become one row per subject first.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rwtool.errors import UsageError, shorten
from rwtool.io.names import case_name

# Words for visits, phases and sequences, where no other letter follows: frame01, ses-2, T1, ED.
VISIT = re.compile(
    r"(acq|baseline|day|echo|ed|es|flair|follow-?up|frame|fu|month|phase|post|pre|run|scan|ses|session|t|time"
    r"|timepoint|tp|v|visit|week|year)(?![a-z])",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class SubjectMeans:
    """Values averaged per subject.

    Attributes
    ----------
    subjects : tuple of str
        Sorted, so that nothing depends on the order of the scans.
    values : (n_subjects, ...) float array
        NaN where none of a subject's scans has a defined value.
    undefined : (...) int array
        Scans left out because their value was undefined.
    """

    subjects: tuple[str, ...]
    values: NDArray[np.float64]
    undefined: NDArray[np.int64]


def average_runs(values: ArrayLike) -> NDArray[np.float64]:
    """Average the runs of one method, case by case.

    Parameters
    ----------
    values : (n_runs, n_cases, ...) float array
        NaN where undefined, after any policy for missed and hallucinated structures.

    Returns
    -------
    (n_cases, ...) float array
        NaN where any run is undefined. Runs that agree give exactly their common value and the order of the
        runs does not matter: rounding must not turn a tie between methods into a difference.

    Raises
    ------
    UsageError
        No runs, or infinite values.
    """
    runs = np.sort(np.asarray(values, dtype=np.float64), axis=0)
    if runs.ndim < 2 or len(runs) == 0:
        raise UsageError(f"values have shape {runs.shape}, expected (n_runs, n_cases, ...), n_runs > 0")
    if np.isinf(runs).any():
        raise UsageError("values hold infinities: write NaN for an undefined value, or a finite penalty")
    mean: NDArray[np.float64] = runs[0] + (runs - runs[0]).mean(axis=0)
    return mean


def average_subjects(values: ArrayLike, subjects: Sequence[str]) -> SubjectMeans:
    """Average the scans of each subject; a scan with an undefined value is left out and counted.

    Parameters
    ----------
    values : (n_scans, ...) float array
        Usually the differences method - baseline; NaN where undefined.
    subjects : sequence of str
        The subject of each scan.

    Returns
    -------
    SubjectMeans

    Raises
    ------
    UsageError
        Not one subject for each scan.
    """
    scans = np.asarray(values, dtype=np.float64)
    if scans.ndim == 0 or len(scans) != len(subjects):
        raise UsageError(f"values have shape {scans.shape}, expected {len(subjects)} rows: one per subject name")
    names, index = np.unique(np.asarray(subjects, dtype=str), return_inverse=True)
    defined = ~np.isnan(scans)
    sums = np.zeros((len(names), *scans.shape[1:]))
    counts = np.zeros(sums.shape, dtype=np.int64)
    np.add.at(sums, index, np.where(defined, scans, 0.0))
    np.add.at(counts, index, defined)
    means = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
    return SubjectMeans(tuple(names.tolist()), means, (~defined).sum(axis=0))


def find_subjects(names: Iterable[str], regex: str) -> dict[str, str]:
    """Find the subject of each case by a regex matched from the start of its name.

    Parameters
    ----------
    names : iterable of str
        Case names.
    regex : str
        Its first group, or the whole match where it has none, is the subject.

    Returns
    -------
    dict of str to str
        From name to subject.

    Raises
    ------
    UsageError
        The regex is none, or does not match a name.

    Examples
    --------
    >>> find_subjects(["patient001_frame01", "patient001_frame12"], "patient[0-9]+")
    {'patient001_frame01': 'patient001', 'patient001_frame12': 'patient001'}
    """
    try:
        pattern = re.compile(regex)
    except re.error as error:
        raise UsageError(f"the subject regex {regex!r} is not a regular expression: {error}") from error
    found = {}
    for name in names:
        match = pattern.match(name)
        subject = match and (match.group(1) if pattern.groups else match.group())
        if not subject:
            raise UsageError(
                f"the subject regex {regex!r} finds no subject in {name!r}; it is matched from the start of the name, "
                "and its first group is the subject"
            )
        found[name] = subject
    return found


def suggest_subject_regex(names: Iterable[str]) -> str | None:
    """Suggest a regex whose group 1 is the subject, if the names look like several scans of some subjects.

    A subject is a leading part of the name that ends in a numbered word (patient001, sub-01, BraTS-GLI-00012)
    and that some names share. What follows it must be a visit (frame01, ses-2, T1), or there must be at least
    as many subjects as any of them has scans: cases of BraTS2020 and BraTS2021 share their beginnings too.
    It is a guess for a warning: only the user knows.

    Parameters
    ----------
    names : iterable of str
        Case names, without file extensions.

    Returns
    -------
    str or None
        For `re.match`; None if the names look like one scan per subject.

    Examples
    --------
    >>> suggest_subject_regex(["patient001_frame01", "patient001_frame12", "patient002_frame01"])
    '^(patient[0-9]+)'
    >>> suggest_subject_regex(["case_00000", "case_00001"])
    """
    candidates = list(_shared_stems(sorted(set(names))))
    for regex, stems in candidates:
        rests = [name[len(stem) :].lstrip("-_. ") for name, stem in stems.items()]
        if all(VISIT.match(rest) for rest in rests if rest):
            return regex
    for regex, stems in candidates:
        scans = Counter(stems.values())
        if max(scans.values()) <= len(scans):
            return regex
    return None


def _shared_stems(names: list[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield a regex and the stem of each name, for each number of leading words where names share stems."""
    words = {name: re.findall(r"[^-_. ]+[-_. ]*", name) for name in names}
    for count in range(1, max(map(len, words.values()), default=0)):
        stems = {name: "".join(parts[:count]).rstrip("-_. ") for name, parts in words.items()}
        shapes = {re.sub(r"[0-9]+", "0", stem) for stem in stems.values()}
        if len(shapes) == 1:
            shape = re.escape(shapes.pop()).replace(r"\-", "-").replace("0", "[0-9]+")
        else:
            shape = "[-_. ]+".join(["[^-_. ]+"] * count)
        numbered = all(re.search(r"[0-9][^-_. ]*$", stem) for stem in stems.values())
        shared = len(set(stems.values())) < len(names)
        if numbered and shared and all(re.match(f"^({shape})", name) for name in names):
            yield f"^({shape})", stems


def read_groups(path: Path | None, names: Iterable[str]) -> dict[str, str]:
    """Read the group of each case from a CSV file of two columns, case and group; all are in "" without a file.

    Raises
    ------
    UsageError
        The file cannot be read, lacks a case, or puts one into two groups.
    """
    if path is None:
        return dict.fromkeys(names, "")
    groups: dict[str, str] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            lines = [[cell.strip() for cell in line] for line in csv.reader(stream) if any(map(str.strip, line))]
    except (OSError, ValueError, csv.Error) as error:
        raise UsageError(f"{path}: cannot be read as CSV: {getattr(error, 'strerror', None) or error}") from error
    for number, line in enumerate(lines):
        if len(line) != 2:
            raise UsageError(f"{path}: expected two columns, case,group; found {','.join(line)!r}")
        if number == 0 and [cell.lower() for cell in line] == ["case", "group"]:
            continue
        case = case_name(line[0])
        if groups.setdefault(case, line[1]) != line[1]:
            raise UsageError(f"{path}: the case {case!r} is in the groups {groups[case]!r} and {line[1]!r}")
    lacking = [name for name in names if name not in groups]
    if lacking:
        raise UsageError(f"{path}: no group for {shorten(lacking)}; add a line case,group for each")
    return {name: groups[name] for name in names}
