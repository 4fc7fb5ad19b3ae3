"""The same bytes whatever the number of jobs, and nearly so whatever the core."""

import os
import subprocess
import sys

import numpy as np
import pytest
from cohorts import discs, save, write_cohort

from rwtool.maps.core import chosen_core
from rwtool.maps.folder import read_map

KINDS = ("boundary", "hd", "rrw")
MAPS = tuple(word for kind in KINDS for word in ("--kind", kind))
EVALUATE = (
    "evaluate", "labels", "others", "--metrics", "dice,hd95,nsd", "--nsd-tolerance", "1.5", "--no-report",
)  # fmt: skip
FOUR = pytest.param(4, marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Label files, other ones, and what is made of them by one process."""
    folder = write_cohort(tmp_path_factory.mktemp("same"))
    for index in range(6):
        save(folder / "others" / f"case_{index}.nii.gz", discs(index + 1)[1])
    run(folder, "maps", "labels", "maps_1", *MAPS, "-j", "1")
    run(folder, *EVALUATE, "-j", "1", "-o", "out_1")
    return folder


def run(folder, *words, **environment):
    done = subprocess.run(
        [sys.executable, "-m", "rwtool", *words],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr


def files(folder, *patterns):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for pattern in patterns for path in folder.glob(pattern)
    }


@pytest.mark.parametrize("jobs", [2, FOUR])
def test_maps_are_the_same_whatever_the_number_of_jobs(place, jobs):
    run(place, "maps", "labels", f"maps_{jobs}", *MAPS, "-j", str(jobs))
    whole = files(place / "maps_1", "*/*.nii.gz")
    assert len(whole) == 18
    assert files(place / f"maps_{jobs}", "*/*.nii.gz") == whole


@pytest.mark.parametrize("jobs", [2, FOUR])
def test_results_are_the_same_whatever_the_number_of_jobs(place, jobs):
    run(place, *EVALUATE, "-j", str(jobs), "-o", f"out_{jobs}")
    whole = files(place / "out_1", "*.csv", "cache/*", "*.md", "*.tex")
    assert len(whole) == 11
    assert files(place / f"out_{jobs}", "*.csv", "cache/*", "*.md", "*.tex") == whole


@pytest.mark.skipif(chosen_core() != "native", reason="the native core is not built")
def test_the_other_core_differs_in_the_last_digits_alone(place):
    run(place, "maps", "labels", "maps_edt", *MAPS, "-j", "1", RWTOOL_CORE="edt")
    for kind in KINDS:
        for index in range(6):
            native, edt = (read_map(place / out / kind / f"case_{index}.nii.gz") for out in ("maps_1", "maps_edt"))
            np.testing.assert_allclose(edt, native, rtol=4e-6)
