"""Training on slices from a cache file against the same slices in memory: slices per second, and their ratio.

    python tests/benchmarks/bench_cache.py [--slices 100000] [--budget 2GB] [--size 112x112] [--features 8] [--batch 32]

Synthetic slices, rrw, in cases of 500: (a) all of them in memory, put together in one array, as where memory allows;
(b) as many as the budget holds in memory and the rest in a cache file, as `rwtool train --cache-budget` has them. Both
loops run in turn in every round. Before each turn of (b) what the system has kept of the file in memory is dropped, so
that slices come from the disk. Prints slices per second of both and the ratio, round by round, how fast slices can be
read without any training, and stops if the first batches of the two are not equal to the last bit.

By the clock the ratio says little where others use the machine; that of processor time then says what reading costs.
The smaller the network, the harder for the disk; the ratio is of this machine's disk, cores and device.
"""

import argparse
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from bench_train import Loop, describe, spread, synthetic_cases

from rwtool.cli.options import parse_size
from rwtool.console import size
from rwtool.datasets.classes import make_classes
from rwtool.network.config import TrainConfig
from rwtool.network.devices import resolve_amp, resolve_device
from rwtool.training import cache
from rwtool.training.map_source import plan_map_use

CASE = 500


def drop(folder):
    """Let the system forget what it keeps of the files of a folder."""
    cache._mapping.cache_clear()
    for path in folder.iterdir():
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def in_budget(case, number, folder, budget):
    """Cases until the budget is full, then cases in the file; each with numbers of its own."""
    parts = (case.image, case.codes, case.magnitudes)
    needed, held = sum(part.nbytes for part in parts), 0
    for index in range(number):
        image = case.image + np.float16(index)
        if held + needed <= budget:
            held += needed
            yield replace(case, image=image, codes=case.codes.copy(), magnitudes=case.magnitudes.copy())
        else:
            stored = (cache.store(folder, part) for part in (image, case.codes, case.magnitudes))
            yield replace(case, **dict(zip(("image", "codes", "magnitudes"), stored, strict=True)))


def rate_of_reading(loop, steps):
    """Slices per second that are read, warped and no more."""
    batches = loop._batches()
    next(batches)
    start = time.perf_counter()
    for _ in range(steps):
        next(batches)
    return steps * loop.config.batch_size / (time.perf_counter() - start)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=100_000)
    parser.add_argument("--budget", default="2GB")
    parser.add_argument("--size", default="112x112", help="pixels of a slice: height x width")
    parser.add_argument("--features", type=int, default=8)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--folder", type=Path, help="Where the cache file goes; by default the folder for such files.")
    options = parser.parse_args()
    device = resolve_device(options.device)
    height, width = map(int, options.size.split("x"))
    patch = (-(-height // 8) * 8, -(-width // 8) * 8)
    config = TrainConfig(
        patch=patch, batch_size=options.batch, depth=4, features=options.features, amp=resolve_amp("auto", device)
    )
    (case,) = synthetic_cases((height + 6, width + 4), CASE)
    case = replace(case, magnitudes=case.magnitudes[:1])
    number = options.slices // CASE
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        cases = list(in_budget(case, number, folder, parse_size(None, None, options.budget)))
        on_disk = sum(path.stat().st_size for path in folder.iterdir())
        maps = plan_map_use("rrw", None, make_classes(range(3)))
        apart, stacked = (Loop(cases, config, device, map_use=maps, stacked=stacked) for stacked in (False, True))
        print(describe(device))
        print(
            f"{options.slices:,} slices of {height} x {width}, {size(stacked.data.nbytes)}; {size(on_disk)} of them in "
            f"a cache file; batches of {options.batch}, features {options.features}, amp {config.amp}"
        )
        for a, b, _ in zip(apart._batches(), stacked._batches(), range(3), strict=False):
            assert torch.equal(a.images, b.images)
            assert torch.equal(a.magnitudes, b.magnitudes)
        for loop in (apart, stacked):
            loop.real(3)
        pairs = []
        processors = []
        for _ in range(options.rounds):
            begun = time.process_time()
            memory = stacked.real(options.steps)
            one = time.process_time() - begun
            drop(folder)
            begun = time.process_time()
            pairs.append((memory, apart.real(options.steps)))
            processors.append((one, time.process_time() - begun))
        print(f"  in memory: {spread([options.batch / a for a, _ in pairs], '{:.0f}')} slices per second")
        print(f"  cache file: {spread([options.batch / b for _, b in pairs], '{:.0f}')}")
        print(f"  ratio: {spread([a / b for a, b in pairs], '{:.2f}')}")
        print(f"  ratio of processor time, without the disk: {spread([a / b for a, b in processors], '{:.2f}')}")
        drop(folder)
        reading = rate_of_reading(apart, options.steps), rate_of_reading(stacked, options.steps)
        print(f"  read and warped alone: {reading[0]:.0f} from the file, {reading[1]:.0f} from memory")


if __name__ == "__main__":
    main()
