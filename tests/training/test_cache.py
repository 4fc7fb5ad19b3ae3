import os
import pickle
import shutil
from collections import namedtuple
from dataclasses import replace

import numpy as np
import pytest
import torch
from cohorts import QUICK, all_of, leftover, made_maps, names_in, train, train_and_stop

from rwtool.errors import UsageError, VolumeError
from rwtool.training import cache
from rwtool.training.cache import Room, Stored, as_array, frame_of, open_cache, plan_room, store
from rwtool.training.cohort import Case
from rwtool.training.slices import SliceSet

TRAIN, VAL = {"a": 40, "b": 30, "c": 30}, {"d": 20, "e": 5}


@pytest.fixture
def free(monkeypatch):
    """Function that says how much memory is free."""
    return lambda number: monkeypatch.setattr(cache, "available_memory", lambda: number)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float16, np.float32])
@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 3, 4, 5), (2, 3, 4, 5)])
def test_what_is_stored_is_what_is_read(tmp_path, dtype, shape):
    arrays = [np.random.default_rng(seed).integers(0, 99, shape).astype(dtype) for seed in range(3)]
    stored = [store(tmp_path, array.transpose(np.argsort(range(array.ndim)))) for array in arrays]
    for found, array in zip(stored, arrays, strict=True):
        assert (found.shape, found.nbytes, found.offset % 64) == (array.shape, array.nbytes, 0)
        np.testing.assert_array_equal(as_array(found), array)
    assert as_array(arrays[0]) is arrays[0]
    assert names_in(tmp_path) == {f"{os.getpid()}.cache"}


def test_an_array_in_any_order_of_memory_is_stored_as_it_reads(tmp_path):
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1)
    np.testing.assert_array_equal(store(tmp_path, array).open(), array)


def test_the_channels_of_a_slice_lie_together(tmp_path):
    stored = store(tmp_path, np.arange(12, dtype=np.uint8).reshape(2, 3, 1, 2))
    assert stored.path.read_bytes() == bytes([0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11])


def test_what_cannot_be_written_is_named(tmp_path):
    with pytest.raises(VolumeError, match="cannot be written: No such file or directory"):
        store(tmp_path / "gone", np.zeros((1, 1, 1)))


def test_all_cases_are_in_memory_if_it_is_free_while_they_are_put_together(free):
    free(None)
    assert plan_room(TRAIN, VAL) == Room(held_bytes=125)
    free(300)
    assert plan_room(TRAIN, VAL).stacked  # 225 for a while, of 240
    free(280)
    assert plan_room(TRAIN, VAL) == Room(held_bytes=125, stacked=False)
    assert plan_room(TRAIN, VAL, processes=2).stored == frozenset("cde")


def test_else_those_that_are_trained_on_come_first_and_take_half_of_what_is_free(free):
    free(200)
    assert plan_room(TRAIN, VAL) == Room(frozenset("de"), 100, 25, stacked=False)
    free(140)
    assert plan_room(TRAIN, VAL) == Room(frozenset("cde"), 70, 55, stacked=False)


def test_a_budget_is_what_the_cases_may_take(free):
    free(1)
    assert plan_room(TRAIN, VAL, 225) == Room(held_bytes=125)
    assert plan_room(TRAIN, VAL, 224) == Room(held_bytes=125, stacked=False)
    assert plan_room(TRAIN, VAL, 50) == Room(frozenset("bcd"), 45, 80, stacked=False)
    assert plan_room(TRAIN, VAL, 0) == Room(frozenset("abcde"), 0, 125, stacked=False)
    with pytest.raises(UsageError, match=r"found cache_budget_bytes=-1"):
        plan_room(TRAIN, VAL, -1)


def test_the_folder_of_the_file_goes_with_it_and_what_a_killed_run_left_too(tmp_path):
    run = tmp_path / "runs" / "one"
    room = Room(frozenset("a"), 1000, 2_000_000, stacked=False)
    with open_cache(run, room) as opened:
        assert opened.folder.parent == run
        expected = f"2.0 MB of the cases' 2.0 MB are read from a cache file in {run}, which goes at the end"
        assert opened.describe() == f"{expected}; the others are in memory"
        stored = store(opened.folder, np.ones((1, 1, 1)))
        stored.open()
    assert not run.exists()
    run.mkdir()
    left = leftover(run)
    with open_cache(run, room):
        assert not left.exists()
    assert names_in(run) == set()
    with open_cache(tmp_path / "none", Room()) as opened:
        assert opened.describe() is None
        assert not (tmp_path / "none").exists()


def test_too_little_space_is_said_before_anything_is_read(cohort, tmp_path, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(500))
    expected = r"runs: 46\.1 kB of the cases do not fit in memory and go to a cache file here, where 500 B are free"
    with pytest.raises(UsageError, match=expected):
        train(cohort, tmp_path / "runs", cache_budget_bytes=0)
    assert not (tmp_path / "runs").exists()


def test_the_frame_is_that_of_the_largest_slice_and_the_type_holds_all():
    held = [np.zeros((1, 2, 5, 3), np.float16), Stored(None, 0, "<f4", (1, 9, 4, 7))]
    assert frame_of(held) == ((5, 7), np.dtype(np.float32))


@pytest.mark.parametrize("budget", [0, 12_000])
@pytest.mark.parametrize("settings", [{"loss": "boundary", "mixed_with": "dice"}, {"target_spacing": (1.0, 1.1)}])
def test_a_run_from_a_cache_file_is_that_from_memory_to_the_last_bit(cohort, tmp_path, budget, settings):
    options = {**QUICK, **settings}
    train(cohort, tmp_path / "memory", options)
    seen = []
    train(cohort, tmp_path / "cache", options, cache_budget_bytes=budget, on_plan=lambda plan: seen.append(plan.cohort))
    assert (seen[0].room.held_bytes > 0) == (budget > 0)
    assert seen[0].room.stored_bytes > 0
    assert names_in(tmp_path / "cache") == names_in(tmp_path / "memory")
    assert all_of(tmp_path / "cache") == all_of(tmp_path / "memory")


def test_maps_made_before_are_cached_too_and_a_run_is_resumed_from_either(cohort, tmp_path):
    maps = made_maps(cohort, tmp_path / "maps", ("rrw",))
    train(cohort, tmp_path / "memory", maps=maps)
    train_and_stop(cohort, tmp_path / "cache", maps=maps, cache_budget_bytes=0)
    train(cohort, tmp_path / "cache", maps=maps, resume=True, cache_budget_bytes=9000)
    assert all_of(tmp_path / "cache") == all_of(tmp_path / "memory")


def test_without_a_budget_free_memory_decides(cohort, tmp_path, free):
    free(20_000)
    seen = []
    train(cohort, tmp_path / "run", {**QUICK, "epochs": 1}, on_plan=lambda plan: seen.append(plan.cohort.room))
    assert 0 < seen[0].held_bytes <= 10_000
    assert len(seen[0].stored) >= 3


def test_what_is_sent_to_another_process_is_where_the_arrays_are(tmp_path):
    codes = np.ones((50, 40, 40), np.uint8)
    held = Case("a", codes[np.newaxis].astype(np.float16), codes, None, (1.0, 1.0), None, ())
    stored = replace(held, image=store(tmp_path, held.image), codes=store(tmp_path, codes))
    expected, data = (SliceSet([one], torch.device("cpu"), (40, 40), stacked=False) for one in (held, stored))
    sent = pickle.dumps(data)
    assert len(sent) < len(pickle.dumps(expected)) / 20
    for a, b in zip(*(one.batches(one.plan_epoch(4, 0, 0)) for one in (expected, pickle.loads(sent))), strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.labels, b.labels)
