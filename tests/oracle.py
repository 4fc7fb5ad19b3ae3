"""Slow truth: every map by pairwise distances, voxel by voxel, straight from the definitions."""

from itertools import product

import numpy as np


def distances(shape, spacing):
    """All pairwise distances between voxel centres: (N, N)."""
    points = np.array(list(product(*(range(n) for n in shape)))) * np.asarray(spacing, dtype=float)
    return np.sqrt(((points[:, None] - points[None]) ** 2).sum(-1))


def nearest(table, targets):
    """Distance of each voxel to the nearest target; inf without any."""
    return table[:, targets].min(axis=1) if targets.any() else np.full(len(table), np.inf)


def own_boundary(labels, k, dims, ignore):
    """Voxels of class k with a face neighbour inside the volume of another class."""
    marked = np.zeros(labels.shape, dtype=bool)
    for voxel in np.argwhere(labels == k):
        for axis in range(3 - dims, 3):
            for step in (-1, 1):
                beside = voxel.copy()
                beside[axis] += step
                if 0 <= beside[axis] < labels.shape[axis] and labels[tuple(beside)] not in (k, ignore):
                    marked[tuple(voxel)] = True
    return marked


def inside_and_outside(labels, spacing, n_classes, convention, ignore):
    """Per class: distance inside (of its voxels) and distance to it, for one volume."""
    table = distances(labels.shape, spacing)
    flat = labels.ravel()
    inside, outside = np.full(flat.shape, np.nan), np.empty((n_classes, flat.size))
    for k in range(n_classes):
        own = flat == k
        if convention == "inner":
            found = nearest(table, own_boundary(labels, k, 3, ignore).ravel())
        else:
            found = nearest(table, (flat != k) & (flat != ignore)) - (convention == "kervadec")
        inside[own] = found[own]
        outside[k] = nearest(table, own)
    return inside, outside


def slice_map(labels, spacing, n_classes, kind, convention, alpha, beta, weights, absent, ignore):
    flat = labels.ravel()
    z = np.zeros((n_classes, flat.size))
    inside, outside = inside_and_outside(labels, spacing, n_classes, convention, ignore)
    present = [k for k in range(n_classes) if (flat == k).any()]
    far = np.array([max([outside[k, i] for k in present], default=0) for i in range(flat.size)])
    for i, y in enumerate(flat):
        if y == ignore:
            continue
        largest = inside[flat == y].max()
        for k in range(n_classes):
            own, other = k == y, weights.get(int(y), 1.0)
            if kind == "ac":
                z[k, i] = 0 if own else other
            elif kind == "constant":
                z[k, i] = -beta if own else alpha * other
            elif kind == "rrw":
                full = -1 if np.isinf(largest) else 0 if largest == 0 else -inside[i] / largest
                z[k, i] = full if own else other
            elif len(present) == 1 and k in present:
                z[k, i] = 0
            elif k not in present:
                z[k, i] = 0 if absent == "zero" else far[i] ** (alpha if kind == "hd" else 1)
            elif kind == "boundary":
                z[k, i] = (0 if np.isinf(inside[i]) else -inside[i]) if own else outside[k, i]
            elif kind == "hd":
                z[k, i] = 0 if own else outside[k, i] ** alpha
    return z.reshape(n_classes, *labels.shape)


def region_wise_map(
    labels, spacing_mm, *, n_classes, kind, convention="across", units="mm", dims=3,
    alpha=None, beta=1.0, weights=None, absent="zero", ignore=None,
):  # fmt: skip
    spacing = spacing_mm if units == "mm" else (1, 1, 1)
    alpha = (2.0 if kind == "hd" else 1.0) if alpha is None else alpha
    rest = (n_classes, kind, convention, alpha, beta, weights or {}, absent, -1 if ignore is None else ignore)
    if dims == 3:
        return slice_map(labels, spacing, *rest)
    return np.concatenate([slice_map(labels[z : z + 1], spacing, *rest) for z in range(len(labels))], axis=1)
