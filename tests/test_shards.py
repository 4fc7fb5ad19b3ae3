import csv
import json
import os
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from commands import run, said
from hypothesis import given, settings
from hypothesis import strategies as st
from mapped import write_labels

import rwtool
from rwtool.errors import RwtoolError, UsageError, VolumeError
from rwtool.shards import (
    Shard,
    Standing,
    begin_shard,
    end_shard,
    find_standing,
    parse_shard,
    ranges,
    read_record,
    read_records,
    size_of,
    take_share,
    warn_of_others,
)

CASES = 7


def slurm(**values):
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}


# --- which shard ---


@pytest.mark.parametrize(("text", "shard"), [("1/1", (1, 1)), ("2/8", (2, 8)), (" 8 / 8 ", (8, 8)), ("01/2", (1, 2))])
def test_a_share_is_counted_from_one(text, shard):
    assert parse_shard(text, {}) == Shard(*shard)
    assert parse_shard(None, {}) is None


@pytest.mark.parametrize(
    "text", ["", "2", "3/2", "-1/2", "1/0", "a/b", "1/2/3", "1.0/2", "\N{ARABIC-INDIC DIGIT ONE}/2"]
)
def test_what_is_no_share_is_refused(text):
    with pytest.raises(UsageError) as caught:
        parse_shard(text, {})
    assert str(caught.value) == (
        f"shard={text!r}: expected I/N with I from 1 to N, such as shard='2/8', or shard='slurm' in a job array"
    )


def test_an_index_from_zero_is_told_to_add_one():
    with pytest.raises(UsageError, match="add 1 to an index that counts from 0"):
        parse_shard("0/8", {})


@pytest.mark.parametrize(
    ("first", "last", "step", "tasks"),
    [(1, 8, 1, 8), (0, 7, 1, 8), (5, 12, 1, 8), (0, 14, 2, 8), (3, 31, 4, 8), (1, 2, 1, 2), (7, 7, 1, 1), (0, 0, 4, 1)],
)
def test_the_place_in_an_array_is_found_whatever_it_counts_from_and_by(first, last, step, tasks):
    numbers = range(first, last + 1, step)
    for place, task in enumerate(numbers, start=1):
        array = slurm(ID=task, COUNT=tasks, MIN=first, MAX=last, STEP=step)
        assert parse_shard("slurm", array) == Shard(place, tasks)
        del array["SLURM_ARRAY_TASK_STEP"]
        assert parse_shard("SLURM", array) == Shard(place, tasks)


@pytest.mark.parametrize(
    "array",
    [
        {"ID": 3, "COUNT": 3, "MIN": 1, "MAX": 7, "STEP": 2},  # 1,3,7: which is the last one?
        {"ID": 4, "COUNT": 4, "MIN": 1, "MAX": 7, "STEP": 2},  # 1,3,4,7
        {"ID": 9, "COUNT": 8, "MIN": 1, "MAX": 8, "STEP": 1},
        {"ID": 0, "COUNT": 8, "MIN": 1, "MAX": 8, "STEP": 1},
        {"ID": 1, "COUNT": 8, "MIN": 1, "MAX": 8, "STEP": 2},
        {"ID": 1, "COUNT": 0, "MIN": 1, "MAX": 1, "STEP": 1},
        {"ID": 1, "COUNT": 1, "MIN": 1, "MAX": 3, "STEP": 1},
        {"ID": 5, "COUNT": 2, "MIN": 5, "MAX": 5, "STEP": 0},
    ],
)
def test_a_place_that_cannot_be_told_is_refused(array):
    with pytest.raises(
        UsageError, match=r"not evenly spaced, so its place among them cannot be told; submit with sbatch"
    ):
        parse_shard("slurm", slurm(**array))


def test_outside_of_an_array_slurm_is_refused():
    with pytest.raises(
        UsageError, match=r"reads SLURM_ARRAY_TASK_ID, which is not set: this is no task of a job array"
    ):
        parse_shard("slurm", {})
    with pytest.raises(
        UsageError, match=r"SLURM_ARRAY_TASK_MIN, which is not set, so|SLURM_ARRAY_TASK_MIN, which is not"
    ):
        parse_shard("slurm", slurm(ID=1, COUNT=8))  # from 0, or from 1?
    with pytest.raises(UsageError, match=r"SLURM_ARRAY_TASK_COUNT is '8x', and no number"):
        parse_shard("slurm", slurm(ID=1, COUNT="8x", MIN=1, MAX=8))


# --- whose cases ---


def test_the_largest_go_first_each_to_the_shard_that_has_least():
    sizes = {"a": 7, "b": 1, "c": 6, "d": 5, "e": 4, "f": 3}
    # a to 1, c to 2, d to 2 (6 < 7), e to 1 (7 < 11), f to 1 (11 = 11, but as many cases: the first), b to 2 (11 < 14)
    assert take_share(sizes, Shard(1, 2)).names == ("a", "e", "f")
    assert take_share(sizes, Shard(2, 2)).names == ("b", "c", "d")


def test_cases_of_one_size_are_dealt_by_name():
    shares = [take_share(dict.fromkeys("dcabe", 3), Shard(k, 2)).names for k in (1, 2)]
    assert shares == [("c", "a", "e"), ("d", "b")]
    assert [len(take_share(dict.fromkeys("abcde", 0), Shard(k, 3)).names) for k in (1, 2, 3)] == [2, 2, 1]


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.text(max_size=4), st.integers(0, 1000), max_size=30), st.integers(1, 6), st.randoms())
def test_shares_are_a_partition_the_same_for_all_and_balanced(sizes, of, random):
    names = list(sizes)
    random.shuffle(names)
    shares = [take_share({name: sizes[name] for name in names}, Shard(k, of)) for k in range(1, of + 1)]
    assert sorted(name for share in shares for name in share.names) == sorted(sizes)
    assert {share.cases_crc32 for share in shares} == {take_share(sizes, Shard(1, of)).cases_crc32}
    loads = [sum(sizes[name] for name in share.names) for share in shares]
    assert max(loads) - min(loads) <= max(sizes.values(), default=0)


def test_the_list_tells_another_name_and_another_size():
    lists = {take_share(sizes, Shard(1, 2)).cases_crc32 for sizes in ({"a": 1}, {"b": 1}, {"a": 2}, {})}
    assert len(lists) == 4


def test_the_size_of_a_case_is_that_of_its_files(tmp_path):
    (tmp_path / "series").mkdir()
    for name, size in (("a", 5), ("series/1", 2), ("series/2", 4)):
        (tmp_path / name).write_bytes(bytes(size))
    assert size_of([tmp_path / "a", tmp_path / "series", tmp_path / "gone"]) == 11


# --- which have ended ---

SIZES = {"a": 1, "b": 1, "c": 1, "d": 1}


def share(index, of=3, sizes=None):
    return take_share(sizes or SIZES, Shard(index, of))


def test_a_shard_says_which_others_have_ended(tmp_path):
    assert end_shard(tmp_path, share(2), "maps", {}).describe() == "1 of 3 shards ended so far; not yet 1, 3"
    assert end_shard(tmp_path, share(2), "maps of other settings", {}).ended == (2,)
    end_shard(tmp_path, share(2), "maps", {})
    end_shard(tmp_path, share(1), "maps", {"a": "damaged"})
    standing = end_shard(tmp_path, share(3), "maps", {})
    assert standing == Standing(3, (1, 2, 3), (), {1: 1})
    assert standing.describe() == "all 3 shards have ended; 1 case failed in 1"
    assert read_record(tmp_path / "shards" / "1-of-3").failed == {"a": "damaged"}
    assert [record.done for record in read_records(tmp_path)] == [1, 1, 1]


def test_a_shard_that_begins_again_has_not_ended(tmp_path):
    end_shard(tmp_path, share(1), "maps", {})
    begin_shard(tmp_path, share(1))
    begin_shard(tmp_path, share(2))
    assert read_records(tmp_path) == []
    with pytest.raises(UsageError, match=r"1-of-3: this shard has not ended, so what it holds is not whole"):
        read_record(tmp_path / "shards" / "1-of-3")
    assert read_record(tmp_path) is None


def test_a_damaged_record_is_one_line_and_counts_as_not_ended(tmp_path):
    end_shard(tmp_path, share(1), "maps", {})
    path = tmp_path / "shards" / "1-of-3" / "shard.json"
    path.write_text(path.read_text().replace('"of": 3', '"of": -3'))
    with pytest.raises(RwtoolError, match=r"shard.json: cannot be read as the record of a shard: \$.of: expected int"):
        read_record(path.parent)
    assert read_records(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "shards").write_text("")
    with pytest.raises(VolumeError, match="cannot be written"):
        end_shard(tmp_path, share(1), "maps", {})


@pytest.mark.parametrize(
    ("sizes", "of", "then"),
    [
        ({**SIZES, "e": 1}, 3, "when there were 4 cases, and now there are 5, so"),
        ({**SIZES, "d": 2}, 3, "when there were 4 cases of other sizes, and now there are 4, so"),
        (SIZES, 2, "when there were 3 shards, and now there are 2, so"),
    ],
)
def test_what_has_changed_since_other_shards_ran_is_said(tmp_path, sizes, of, then):
    end_shard(tmp_path, share(1), "maps", {})
    assert warn_of_others(tmp_path, share(2), "maps") is None
    assert warn_of_others(tmp_path, share(1, of, sizes), "maps of other settings") is None
    note = warn_of_others(tmp_path, share(1, of, sizes), "maps")
    assert note.startswith(f"{tmp_path / 'shards'}: shard 1 of 3 ran {then}")
    assert note.endswith(f"run all {of} of them, also those that have ended: what is done is kept")
    # those of the new division alone count
    assert end_shard(tmp_path, share(2, of, sizes), "maps", {}).ended == (2,)


def test_many_shards_are_told_in_few_words():
    assert ranges([4]) == "4"
    assert ranges([*range(1, 100), 200, 201]) == "1 to 99, 200, 201"
    assert find_standing([], ("maps", 1, "00000000")).describe() == "0 of 1 shard ended so far; not yet 1"


# --- together, in processes of their own ---


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Cases of several sizes, the last class in one of them alone; a damaged one; predictions; all of it evaluated."""
    folder = tmp_path_factory.mktemp("whole")
    for index in range(CASES):
        values = (0, 1, 2) if index == 3 else (0, 1)
        for seed, name in ((index, "labels"), (100 + index, "unet"), (200 + index, "other")):
            write_labels(folder / name / f"case_{index}.nii.gz", seed, values, (6, 9, 5 + index))
    (folder / "labels" / "damaged.nii.gz").write_bytes(b"\x1f\x8b no")
    write_labels(folder / "unet" / "damaged.nii.gz")
    write_labels(folder / "other" / "damaged.nii.gz")
    run("maps", folder / "labels", folder / "maps", "--kind", "rrw", "--kind", "boundary", "-q", code=1)
    run("evaluate", folder / "labels", f"a={folder / 'unet'}", f"b={folder / 'other'}", "-o", folder / "results",
        "--metrics", "dice,hd95,volume_ml", "--permutation-test", "-q", code=1)  # fmt: skip
    return folder


def at_once(of, *arguments, code):
    """All shards of a command, at the same time; what each printed."""
    command = [sys.executable, "-m", "rwtool", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "encoding": "utf-8"}
    started = []
    for k in range(of):
        array = slurm(ID=k, COUNT=of, MIN=0, MAX=of - 1)
        started.append(subprocess.Popen([*command, "--shard", "slurm"], env={**environment, **array}, **pipes))
    printed = [process.communicate()[0] for process in started]
    assert sorted(process.returncode for process in started) == code, printed
    return printed


def test_shards_at_once_make_the_maps_of_a_run_of_all(cohort, tmp_path):
    printed = at_once(3, "maps", cohort / "labels", tmp_path, "--kind", "rrw", "--kind", "boundary", code=[0, 0, 1])
    assert sum("all 3 shards have ended; 1 case failed in" in text for text in printed) >= 1
    for kind in ("rrw", "boundary"):
        names = sorted(path.name for path in (tmp_path / kind).iterdir())
        assert names == [*(f"case_{k}.nii.gz" for k in range(CASES)), "maps.json"]
        for name in names[:-1]:
            assert (tmp_path / kind / name).read_bytes() == (cohort / "maps" / kind / name).read_bytes()
        here, there = (json.loads((f / kind / "maps.json").read_text()) for f in (tmp_path, cohort / "maps"))
        assert here["classes"] == there["classes"]  # though label 2 is in one case, and so in one shard
        assert len(here["classes"]) == 3
        assert list(here["cases"]) == list(there["cases"])
    # a run of all finds nothing to do
    assert "0 cases to do" in said(run("maps", cohort / "labels", tmp_path, "--kind", "rrw", code=1))


def test_shards_at_once_measure_the_numbers_of_an_evaluation_of_all(cohort, tmp_path):
    predictions = [f"a={cohort / 'unet'}", f"b={cohort / 'other'}", "--metrics", "dice,hd95,volume_ml"]
    at_once(3, "evaluate", cohort / "labels", *predictions, "-o", tmp_path, code=[0, 0, 1])
    tables = [tmp_path / "shards" / f"{k}-of-3" / "cases.csv" for k in (3, 1, 2)]
    assert not (tmp_path / "cases.csv").exists()  # nothing that could pass for the whole
    assert {path.name for path in tables[0].parent.iterdir()} == {"cases.csv", "shard.json", "summary.json"}
    result = run("compare", *tables, "-o", tmp_path / "joined", "--format", "json")
    assert "1 prediction of the shards failed and stand in no table: damaged" in said(result)
    for name in ("cases.csv", "means.csv", "tests.csv", "agreement.csv", "summary.md", "summary.tex"):
        assert (tmp_path / "joined" / name).read_bytes() == (cohort / "results" / name).read_bytes(), name
    # or once more over all, from the cache that the shards have filled
    again = run("evaluate", cohort / "labels", *predictions, "-o", tmp_path, "--permutation-test", code=1)
    assert f"{2 * CASES} predictions unchanged since the last run" in said(again)
    assert (tmp_path / "cases.csv").read_bytes() == (cohort / "results" / "cases.csv").read_bytes()


def test_checks_of_all_shards_are_the_check_of_all(cohort):
    whole = rwtool.check_maps(cohort / "maps" / "rrw", labels=cohort / "labels", jobs=1)
    parts = [rwtool.check_maps(cohort / "maps" / "rrw", labels=cohort / "labels", shard=f"{k}/3") for k in (1, 2, 3)]
    assert sorted(case.name for part in parts for case in part.cases) == sorted(case.name for case in whole.cases)
    assert {case for part in parts for case in part.cases} == set(whole.cases)
    assert [case.name for case in whole.bad] == ["damaged"]  # no map of it
    assert sorted(len(part.bad) for part in parts) == [0, 0, 1]


# --- what each of them says ---


def test_a_check_of_a_shard_says_how_the_folder_is_verified(cohort):
    result = run("check", cohort / "maps" / "rrw", "--shard", "1/3", "-j", 1)
    share = rwtool.check_maps(cohort / "maps" / "rrw", shard="1/3").share
    assert f"{len(share.names)} maps verified" in result.output
    assert (
        f"shard 1 of 3: {len(share.names)} of 7 cases (list {share.cases_crc32}); the folder is verified when all 3 "
        "shards of this list have ended with exit code 0"
    ) in said(result)
    content = json.loads(run("check", cohort / "maps" / "rrw", "--shard", "1/3", "--format", "json").output)
    assert content["shard"] == {"shard": 1, "of": 3, "cases": 7, "list": share.cases_crc32}


def test_a_shard_computes_no_result_of_all(cohort, tmp_path):
    where = (cohort / "labels", cohort / "unet")
    results = rwtool.evaluate(*where, out=tmp_path, shard="1/2")
    assert results.comparison is None
    for compute in (results.print, results.summary, lambda: results.write(tmp_path / "x")):
        with pytest.raises(UsageError, match=r"these are the rows of shard 1 of 2 alone, from which no result is comp"):
            compute()
    printed = said(run("evaluate", *where, "-o", tmp_path, "--shard", "1/2", code=None))
    assert "mean" not in printed.replace("means", "")
    assert f"rwtool compare {tmp_path}/shards/*-of-2/cases.csv" in printed
    with pytest.raises(UsageError, match=r"shard= writes a table for rwtool compare to join .* give out=DIR"):
        rwtool.evaluate(*where, shard="1/2")
    for more in ({"permutation_test": True}, {"all_pairs": True}, {"rank": True}, {"images": "images"}):
        with pytest.raises(UsageError, match=f"{next(iter(more))}= is of all cases, and a shard has some"):
            rwtool.evaluate(*where, out=tmp_path, shard="1/2", **more)


def test_a_missing_shard_is_refused_or_noted(cohort, tmp_path):
    for k in (1, 3):
        rwtool.evaluate(cohort / "labels", cohort / "unet", out=tmp_path, shard=f"{k}/4")
    tables = [tmp_path / "shards" / f"{k}-of-4" / "cases.csv" for k in (1, 3)]
    with pytest.raises(UsageError) as caught:
        rwtool.compare(tables)
    assert str(caught.value) == (
        f"{tmp_path / 'shards'}: these are not all of 8 cases, but the tables of shards 1, 3 of 4; missing: 2, 4; run "
        "them and name their tables too, or give allow_missing=True to go on without"
    )
    results = rwtool.compare(tables, allow_missing=True, out=tmp_path / "some")
    there = len({row.case for row in results.rows})
    note = f"shards 2, 4 of 4 are missing: these are {there} of 8 cases"
    assert results.warnings[0] == note
    assert f"note: incomplete: {note}" in (tmp_path / "some" / "summary.md").read_text()
    summary = json.loads((tmp_path / "some" / "summary.json").read_text())
    assert summary["notes"][0] == f"incomplete: {note}"
    assert summary["provenance"]["shards"][0]["missing"] == [2, 4]
    assert note in (tmp_path / "some" / "report.html").read_text()
    assert f"warning: {note}" in said(run("compare", *tables, "--allow-missing"))


def test_shards_of_other_divisions_are_not_joined(cohort, tmp_path):
    for shard in ("1/2", "1/3"):
        rwtool.evaluate(cohort / "labels", cohort / "unet", out=tmp_path, shard=shard)
    with pytest.raises(
        UsageError, match=r"shard 1 of 2 of 8 cases, and .* shard 1 of 3 of 8 cases: these divide differe"
    ):
        rwtool.compare([tmp_path / "shards" / f"1-of-{n}" / "cases.csv" for n in (2, 3)])


def test_a_table_of_a_shard_that_was_stopped_is_refused(cohort, tmp_path):
    rwtool.evaluate(cohort / "labels", cohort / "unet", out=tmp_path, shard="1/1")
    (tmp_path / "shards" / "1-of-1" / "shard.json").unlink()
    with pytest.raises(
        UsageError, match="this shard has not ended, so what it holds is not whole; run this shard again"
    ):
        rwtool.compare(tmp_path / "shards" / "1-of-1" / "cases.csv")


def test_tables_of_shards_stand_where_the_first_of_them_was_named(cohort, tmp_path):
    for k in (1, 2):
        rwtool.evaluate(cohort / "labels", [f"b={cohort / 'unet'}"], out=tmp_path, shard=f"{k}/2")
    rwtool.evaluate(cohort / "labels", [f"a={cohort / 'other'}"], out=tmp_path / "a")
    shards = [tmp_path / "shards" / f"{k}-of-2" / "cases.csv" for k in (2, 1)]
    assert rwtool.compare([tmp_path / "a" / "cases.csv", *shards]).comparison.methods == ("a", "b")
    assert rwtool.compare([shards[0], tmp_path / "a" / "cases.csv", shards[1]]).comparison.methods == ("b", "a")


def test_more_shards_than_cases_leave_some_with_nothing_to_do(cohort, tmp_path):
    of = CASES + 3
    for k in range(1, of + 1):
        code = None if k < 10 else 0
        run("evaluate", cohort / "labels", cohort / "unet", "-o", tmp_path, "--shard", f"{k}/{of}", "-q", code=code)
    tables = sorted((tmp_path / "shards").glob("*/cases.csv"))
    assert len(tables) == of
    assert len({row.case for row in rwtool.compare(tables).rows}) == CASES
    made = rwtool.make_maps(cohort / "labels", tmp_path / "maps", shard=f"{of}/{of}")
    assert (made.outcomes, made.plan.share.names) == ([], ())


def test_a_folder_that_changes_between_shards_is_told(tmp_path):
    for index in range(4):
        write_labels(tmp_path / "labels" / f"case_{index}.nii.gz", index)
    run("maps", tmp_path / "labels", tmp_path / "maps", "--shard", "1/2")
    write_labels(tmp_path / "labels" / "case_4.nii.gz", 4)
    printed = said(run("maps", tmp_path / "labels", tmp_path / "maps", "--shard", "2/2"))
    assert (
        "shard 1 of 2 ran when there were 4 cases, and now there are 5, so cases have moved from shard to shard"
        in printed
    )
    assert "1 of 2 shards ended so far; not yet 1" in printed
    assert "all 2 shards have ended" in said(run("maps", tmp_path / "labels", tmp_path / "maps", "--shard", "1/2"))
    assert "0 cases to do" in said(run("maps", tmp_path / "labels", tmp_path / "maps"))


def test_each_shard_lists_its_own_failures(tmp_path):
    for index in range(30):
        (tmp_path / "labels").mkdir(exist_ok=True)
        (tmp_path / "labels" / f"case_{index:02}.nii").write_bytes(b"no" * 1000)
    write_labels(tmp_path / "labels" / "good.nii.gz")
    for k in (1, 2):
        run("maps", tmp_path / "labels", tmp_path / "maps", "--shard", f"{k}/2", "-q", code=1)
    listed = []
    for k in (1, 2):
        with (tmp_path / "maps" / "shards" / f"{k}-of-2" / "failures.csv").open(newline="") as stream:
            listed += [row["case"] for row in csv.DictReader(stream)]
    assert sorted(listed) == [f"case_{index:02}" for index in range(30)]


def test_a_shard_looks_at_its_own_cases_alone_where_the_classes_are_known(cohort, tmp_path, monkeypatch):
    looked = []
    from rwtool.datasets import plan

    read = plan.read_header
    monkeypatch.setattr(plan, "read_header", lambda path, **more: looked.append(path.name) or read(path, **more))
    made = rwtool.make_maps(cohort / "labels", tmp_path, classes=(0, 1, 2), shard="2/3", jobs=1)
    assert sorted(looked) == sorted(f"{name}.nii.gz" for name in made.plan.share.names)
    assert len(looked) < 4


def test_a_shard_of_uneven_volumes_has_its_share_of_the_bytes(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "labels").mkdir()
    for index, depth in enumerate((40, 2, 2, 2, 2, 2)):
        array = rng.integers(0, 2, (8, 8, depth), dtype=np.uint8)
        nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "labels" / f"{index}.nii.gz")
    shares = [
        rwtool.make_maps(tmp_path / "labels", tmp_path / "maps", shard=f"{k}/2", dry_run=True).plan.share.names
        for k in (1, 2)
    ]
    assert shares == [("0",), ("1", "2", "3", "4", "5")]
    assert not (tmp_path / "maps").exists()
