"""Thousands of edited files are refused in one line or read rightly; some of them each time."""

import importlib.util

import pytest
from fuzzing import TARGETS, attempt, attempt_all, shares

FEW = 10
MANY = 20_000


def installed(name):
    return name not in ("b2nd", "plans") or importlib.util.find_spec("blosc2") is not None


@pytest.mark.parametrize("name", TARGETS)
def test_sound_files_are_read_as_what_they_are(name):
    if not installed(name):
        pytest.skip("blosc2 is not installed")
    kinds = {attempt(name, number, edits=False) for number in range(3)}
    assert not [verdict for verdict in kinds if verdict.is_finding]
    assert {verdict.kind for verdict in kinds} & {"read"}


@pytest.mark.parametrize("name", TARGETS)
def test_edited_files_are_refused_in_one_line_or_read_rightly(name):
    if not installed(name):
        pytest.skip("blosc2 is not installed")
    verdicts = [attempt(name, number) for number in range(FEW)]
    assert not [verdict for verdict in verdicts if verdict.is_finding]


def test_a_case_comes_out_the_same_each_time():
    first, second = attempt("nrrd", 3), attempt("nrrd", 3)
    assert (first.kind, first.edit) == (second.kind, second.edit)
    assert first.edit != attempt("nrrd", 4).edit


@pytest.mark.parametrize(
    ("name", "kind"),
    [("has a bug", "traceback"), ("writes elsewhere", "finding"), ("warns", "warning"),
     ("writes inside", "finding")],
)  # fmt: skip
def test_what_must_not_be_is_found(name, kind):
    assert attempt(name, 0).kind == kind


@pytest.mark.slow
def test_a_process_that_hangs_ends_or_takes_memory_costs_no_other_case():
    cases = [("hangs", 0), ("nrrd", 0), ("crashes", 0), ("nrrd", 0), ("takes memory", 0), ("nrrd", 0)]
    kinds = [verdict.kind for _, _, verdict in attempt_all(cases, seconds=60)]
    assert kinds[::2] == ["hang", "crash", "traceback"]
    assert set(kinds[1::2]) <= {"read", "refused"}


@pytest.mark.slow
def test_twenty_thousand_edited_files_are_refused_in_one_line_or_read_rightly():
    cases = shares(MANY, tuple(filter(installed, TARGETS)))
    found = [f"{name}:{number}: {verdict}" for name, number, verdict in attempt_all(cases) if verdict.is_finding]
    assert not found
