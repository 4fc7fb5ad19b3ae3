"""Time one pass of distances over all labels of a volume: the native core against `edt`, in turn.

    python tests/benchmarks/bench_edt.py [LABELS] [--threads 1 2] [--repeat 5]

LABELS is a label file; without one, two ellipsoids with a lesion on a grid of KiTS19. Prints nanoseconds per voxel of
both, by the clock and, for one thread, of the processor, and the ratio; stops if the two are not the same numbers.
"""

import argparse
import os
import platform
import statistics
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

import rwtool
from rwtool.maps.distances import distance_to_other_class


def phantom():
    """About 41 million voxels, as many as a usual KiTS19 volume; the slice axis is the fastest in memory, as there."""
    spacing_mm = (3.0, 0.7421875, 0.7421875)
    z, y, x = np.ogrid[:157, :512, :512]
    labels = np.zeros((157, 512, 512), np.uint8, order="F")
    for centre in ((80, 280, 150), (85, 290, 360)):
        parts = zip((z, y, x), centre, (18, 50, 40), strict=True)
        labels[sum(((i - c) / r) ** 2 for i, c, r in parts) < 1] = 1
    labels[((z - 80) / 5) ** 2 + ((y - 240) / 15) ** 2 + ((x - 150) / 15) ** 2 < 1] = 2
    return labels, spacing_mm


def read(path):
    volume = rwtool.read_labels(path)
    return volume.array, volume.spacing_mm


def timed(core, labels, spacing_mm, threads):
    """Distances, and seconds by the clock and of the processor."""
    os.environ["RWTOOL_CORE"] = core
    clock, processor = time.perf_counter(), time.process_time()
    distances = distance_to_other_class(labels, spacing_mm, threads=threads)
    return distances, time.perf_counter() - clock, time.process_time() - processor


def processor_name():
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def race(labels, spacing_mm, threads, repeat):
    times = {"native": [], "edt": []}
    for _ in range(repeat):
        found = {}
        for core, seconds in times.items():
            found[core], *both = timed(core, labels, spacing_mm, threads)
            seconds.append(np.array(both) / labels.size * 1e9)
        np.testing.assert_allclose(found["native"], found["edt"], rtol=2e-6)
    for what, column in (("clock", 0), ("processor", 1)):
        ns = {core: [each[column] for each in seconds] for core, seconds in times.items()}
        ratios = [theirs / ours for ours, theirs in zip(ns["native"], ns["edt"], strict=True)]
        sides = "; ".join(f"{core} {statistics.median(all_):.1f} (least {min(all_):.1f})" for core, all_ in ns.items())
        print(
            f"{threads} thread{'s' * (threads > 1)}, {what}: ns per voxel {sides}; edt takes "
            f"{statistics.median(ratios):.1f} times as long ({min(ratios):.1f} to {max(ratios):.1f})"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path, nargs="?")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    labels, spacing_mm = read(options.labels) if options.labels else phantom()
    print(f"{options.labels or 'phantom'}: {' x '.join(map(str, labels.shape))} voxels, {labels.dtype}")
    print(f"rwtool {rwtool.__version__}, edt {version('edt')}, numpy {np.__version__}")
    cores = os.cpu_count()
    print(f"Python {platform.python_version()}, {processor_name()}, {cores} cores, load {os.getloadavg()[0]:.1f}")
    for threads in options.threads:
        race(labels, spacing_mm, threads, options.repeat)


if __name__ == "__main__":
    main()
