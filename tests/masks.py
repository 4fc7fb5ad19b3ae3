"""Masks for the metrics, and the two ways to measure between them."""

import numpy as np

from rwtool.metrics import surface

SPACINGS = [(1.0, 1.0, 1.0), (5.0, 0.8, 0.8), (0.7421875, 3.0, 1.1)]


def box(shape, *sides):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(*side) for side in sides)] = True
    return mask


def ball(shape, radius_mm, spacing_mm):
    axes = np.ogrid[tuple(slice(n) for n in shape)]
    parts = (((i - (n - 1) / 2) * mm) ** 2 for i, n, mm in zip(axes, shape, spacing_mm, strict=True))
    return sum(parts) <= radius_mm**2 + 1e-9


def use_transform(monkeypatch):
    monkeypatch.setattr(surface, "tree_limit", lambda n_box, n_volume: 0)


def use_tree(monkeypatch):
    monkeypatch.setattr(surface, "tree_limit", lambda n_box, n_volume: 10**9)
    monkeypatch.setattr(surface, "tree_is_slow", lambda *_: False)


def scattered(seed, shape=(24, 48, 48)):
    """Two masks of smooth blobs that differ, over many blocks, with voxels of one class near every border."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")

    def waves():
        return sum(np.sin(axis * rng.uniform(0.1, 0.5) + rng.uniform(0, 6)) for axis in axes)

    base = waves()
    return base > 0.7, base + 0.4 * waves() > 0.7
