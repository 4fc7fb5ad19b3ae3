"""Time the permutation test: 5 methods x 3 classes x 3 metrics x 100 cases x 10,000 permutations.

    python tests/benchmarks/bench_stats.py

The figure to reach is 2 s for all five comparisons, with adjusted p-values and intervals.
"""

import time

import numpy as np
import scipy.stats

from rwtool.statistics.permutation import paired_permutation_test

METHODS, COLUMNS, CASES, PERMUTATIONS = 5, 9, 100, 10_000


def seconds(function, repeats=3):
    """Best of a few."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def main():
    rng = np.random.default_rng(0)
    methods = rng.normal(0.1, 1, (METHODS, CASES, COLUMNS))
    holes = np.where(rng.random(methods.shape) < 0.05, np.nan, methods)

    def rwtool(data, **options):
        return [paired_permutation_test(d, higher_is_better=True, permutations=PERMUTATIONS, **options) for d in data]

    def scipy_one_column():
        return scipy.stats.permutation_test(
            (methods[0, :, 0],),
            lambda x, axis: np.abs(np.mean(x, axis=axis)),
            permutation_type="samples",
            n_resamples=PERMUTATIONS,
            alternative="greater",
            vectorized=True,
        )

    total = seconds(lambda: rwtool(methods))
    one = seconds(lambda: rwtool(methods[:1, :, :1]))
    peer = seconds(scipy_one_column)
    print(f"{METHODS} methods x {COLUMNS} columns x {CASES} cases x {PERMUTATIONS} permutations: {total:.3f} s")
    print(f"the same, 5 % of the pairs undefined: {seconds(lambda: rwtool(holes)):.3f} s")
    print(f"one column with interval: {one:.4f} s; scipy.stats.permutation_test, p only: {peer:.4f} s")
    print(f"ratio on one column: {peer / one:.1f}; one of many: {peer * METHODS * COLUMNS / total:.1f}")
    print(f"p: rwtool {rwtool(methods[:1, :, :1])[0][0].p:.4f}, scipy {scipy_one_column().pvalue:.4f}")


if __name__ == "__main__":
    main()
