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


def components(labels, k):
    """The 26-connected components of class k: a list of sets of voxels."""
    left, found = {tuple(map(int, voxel)) for voxel in np.argwhere(labels == k)}, []
    while left:
        front, part = [left.pop()], set()
        while front:
            voxel = front.pop()
            part.add(voxel)
            beside = {tuple(np.add(voxel, step)) for step in product((-1, 0, 1), repeat=3)} & left
            left -= beside
            front += beside
        found.append(part)
    return found


def instance_factor(labels, ignore):
    """One over the share of a component in its class times their number; 1 in the background."""
    factor = np.ones(labels.shape)
    for k in set(labels.ravel().tolist()) - {0, ignore}:
        parts = components(labels, k)
        for part in parts:
            for voxel in part:
                factor[voxel] = 1 / (len(part) / (labels == k).sum() * len(parts))
    return factor


def skeleton_weight(labels, spacing, ignore):
    """Voxels of the class over those of its skeleton and its face neighbours, there."""
    weight, table, flat = np.zeros(labels.shape), distances(labels.shape, spacing), labels.ravel()
    for k in set(flat.tolist()) - {ignore}:
        distance = nearest(table, (flat != k) & (flat != ignore)).reshape(labels.shape)
        if np.isinf(distance).any():
            distance[:] = 1
        voxels = {tuple(map(int, voxel)) for voxel in np.argwhere(labels == k)}
        ridge = set(voxels)
        for voxel, step in product(voxels, product((-1, 0, 1), repeat=3)):
            there = tuple(np.add(voxel, step).tolist())
            if there in voxels and distance[there] - distance[voxel] > 0.50001 * np.linalg.norm(
                np.multiply(step, spacing)
            ):
                ridge -= {voxel}
        beside = [step for step in product((-1, 0, 1), repeat=3) if np.abs(step).sum() <= 1]
        near = {tuple(np.add(voxel, step).tolist()) for voxel, step in product(ridge, beside)} & voxels
        for voxel in near:
            weight[voxel] = len(voxels) / len(near)
    return weight


def rrw_own(distance, of_class, profile, sigma):
    """Own value at a distance inside, among those of its class; what is 0/0 is 0."""
    if np.isinf(distance):
        return -1
    if profile == "exp":
        return -np.exp(-distance / sigma)
    share = (distance - (of_class.min() if profile == "reversed" else 0)) / (of_class.max() or 1)
    return -(1 - share) if profile == "reversed" else -share


def slice_map(labels, spacing, n_classes, kind, convention, alpha, beta, weights, absent, ignore, more):
    profile, sigma, instances, matrix = more
    factor = instance_factor(labels, ignore).ravel() if instances else np.ones(labels.size)
    skeleton = skeleton_weight(labels, spacing, ignore).ravel() if kind == "skeleton" else None
    flat = labels.ravel()
    z = np.zeros((n_classes, flat.size))
    inside, outside = inside_and_outside(labels, spacing, n_classes, convention, ignore)
    present = [k for k in range(n_classes) if (flat == k).any()]
    far = np.array([max([outside[k, i] for k in present], default=0) for i in range(flat.size)])
    for i, y in enumerate(flat):
        if y == ignore:
            continue
        for k in range(n_classes):
            own, other = k == y, weights.get(int(y), 1.0)
            if kind == "ac":
                z[k, i] = factor[i] * (0 if own else other)
            elif kind == "constant":
                z[k, i] = factor[i] * (-beta if own else alpha * other)
            elif kind == "rrw":
                z[k, i] = factor[i] * (rrw_own(inside[i], inside[flat == y], profile, sigma) if own else other)
            elif kind == "skeleton":
                z[k, i] = -factor[i] * skeleton[i] if own else 0
            elif kind == "matrix":
                z[k, i] = matrix[k][y]
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
    profile="linear", sigma=5.0, instances=False, matrix=None,
):  # fmt: skip
    spacing = spacing_mm if units == "mm" else (1, 1, 1)
    alpha = (2.0 if kind == "hd" else 1.0) if alpha is None else alpha
    rest = (n_classes, kind, convention, alpha, beta, weights or {}, absent, -1 if ignore is None else ignore)
    rest = (*rest, (profile, sigma, instances, matrix))
    if dims == 3:
        return slice_map(labels, spacing, *rest)
    return np.concatenate([slice_map(labels[z : z + 1], spacing, *rest) for z in range(len(labels))], axis=1)
