"""Region-wise maps of a label array: one number per voxel and class (Valverde & Tohka 2022).

These functions return a whole map; :func:`rwtool.maps.streaming.map_blocks` gives the same numbers piece by piece, so
that no K-channel array need ever be held.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rwtool.errors import UsageError, VolumeError
from rwtool.maps.parameters import Absent, Convention, MapParameters, MapSummary, Profile, Units
from rwtool.maps.streaming import map_blocks


def rrw_map(
    labels: ArrayLike,
    spacing_mm: Sequence[float],
    *,
    n_classes: int,
    convention: Convention = "across",
    units: Units = "mm",
    dims: int = 3,
    profile: Profile = "linear",
    sigma: float | None = None,
    instances: bool = False,
    class_weights: Mapping[int, float] | None = None,
    ignore: int | None = None,
    layout: Literal["dense", "packed"] = "dense",
    threads: int = 1,
) -> NDArray[np.float32]:
    """Rectified region-wise map (Eq. 4): minus the distance inside, over its largest in the class; 1 elsewhere.

    Parameters
    ----------
    labels : (Z, Y, X) integer array
        Class indices 0..K-1; a 2D array is one slice.
    spacing_mm : (3,) float
        Along ``(z, y, x)``, in mm.
    n_classes : int
        K, so that every case has the same channels.
    convention : {"across", "inner", "kervadec"}
        Distance inside a class: to the nearest voxel of another class (the authors' code), to the nearest boundary
        voxel of its own (Eq. 3 to the letter), or the former less one voxel (Kervadec's code).
    units : {"mm", "voxel"}
    dims : {3, 2}
        2 measures, and takes the largest distance, slice by slice across z.
    profile : {"linear", "reversed", "exp"}
        How the own value runs with the distance d inside. With D its largest in the class and d0 its smallest:
        ``-d / D``; ``-(1 - (d - d0) / D)``, so that boundary voxels matter most, as the paper's conclusion suggests
        and Caliva et al. (2019) do; or ``-exp(-d / sigma)``.
    sigma : float, optional
        Of the exp profile, in the unit of the distance; 5 unless given.
    instances : bool
        Divide the values at the voxels of a foreground component (26-connected; in each slice with `dims` 2) by its
        share of the class times the number of its components, so that small lesions weigh as much as large ones.
    class_weights : dict of int to float, optional
        Factor on the other-class value at voxels of a class.
    ignore : int, optional
        Value of voxels without a class: they are 0 in every channel (packed: NaN), and no target of a distance.
    layout : {"dense", "packed"}
        Packed is the own value alone, ``(Z, Y, X)``, or with `instances` the own and the other value, ``(2, Z, Y,
        X)``; see :func:`expand_packed`.
    threads : int

    Returns
    -------
    (K, Z, Y, X) or (Z, Y, X) float32 array
        Own values in [-1, 0], other values > 0, before `instances` divides them. A class that fills the volume (or
        slice) has own value -1.

    Raises
    ------
    VolumeError
        If a label is outside 0..K-1, or the array is not 2D or 3D.
    UsageError
        If the options do not fit together.

    Examples
    --------
    >>> rrw_map([[[0, 0, 0, 1]]], (1, 1, 1), n_classes=2)[:, 0, 0].tolist()
    [[-1.0, -0.6666666865348816, -0.3333333432674408, 1.0], [1.0, 1.0, 1.0, -1.0]]
    """
    parameters = MapParameters(
        "rrw",
        convention,
        units,
        dims,
        class_weights=class_weights or {},
        profile=profile,
        sigma=sigma,
        instances=instances,
    )
    return make_map(labels, spacing_mm, n_classes, parameters, ignore, layout, threads)


def boundary_map(
    labels: ArrayLike,
    spacing_mm: Sequence[float],
    *,
    n_classes: int,
    convention: Convention = "across",
    units: Units = "mm",
    dims: int = 3,
    absent: Absent = "zero",
    ignore: int | None = None,
    threads: int = 1,
) -> NDArray[np.float32]:
    """Boundary map (Eq. 3): minus the distance inside a class, the distance to the class outside it.

    Parameters
    ----------
    labels, spacing_mm, n_classes, convention, units, dims, ignore, threads
        As for :func:`rrw_map`.
    absent : {"zero", "farthest"}
        Channel of a class that is not in the volume (or slice): 0 (Kervadec's code), which is not neutral, or the
        largest other-class distance at each voxel.

    Returns
    -------
    (K, Z, Y, X) float32 array
        In mm or voxels. A class that fills the volume (or slice) has channel 0.

    Raises
    ------
    VolumeError, UsageError
        As for :func:`rrw_map`.
    """
    parameters = MapParameters("boundary", convention, units, dims, absent=absent)
    return make_map(labels, spacing_mm, n_classes, parameters, ignore, "dense", threads)


def hd_map(
    labels: ArrayLike,
    spacing_mm: Sequence[float],
    *,
    n_classes: int,
    alpha: float = 2.0,
    units: Units = "mm",
    dims: int = 3,
    absent: Absent = "zero",
    ignore: int | None = None,
    threads: int = 1,
) -> NDArray[np.float32]:
    """Hausdorff map (Eq. 25): 0 inside a class, the distance to it to the power `alpha` outside.

    Its loss squares the softmax. Parameters and what is returned are those of :func:`boundary_map`.
    """
    parameters = MapParameters("hd", units=units, dims=dims, alpha=alpha, absent=absent)
    return make_map(labels, spacing_mm, n_classes, parameters, ignore, "dense", threads)


def ac_map(
    labels: ArrayLike,
    *,
    n_classes: int,
    instances: bool = False,
    class_weights: Mapping[int, float] | None = None,
    ignore: int | None = None,
    layout: Literal["dense", "packed"] = "dense",
) -> NDArray[np.float32]:
    """Active-contour map (Eq. 17): 0 for the true class, 1 for the others.

    Parameters and what is returned are those of :func:`rrw_map`.
    """
    parameters = MapParameters("ac", class_weights=class_weights or {}, instances=instances)
    return make_map(labels, (1.0, 1.0, 1.0), n_classes, parameters, ignore, layout, 1)


def constant_map(
    labels: ArrayLike,
    *,
    n_classes: int,
    alpha: float = 1.0,
    beta: float = 1.0,
    instances: bool = False,
    class_weights: Mapping[int, float] | None = None,
    ignore: int | None = None,
    layout: Literal["dense", "packed"] = "dense",
) -> NDArray[np.float32]:
    """Constant map (Eq. 29 to 31): ``-beta`` for the true class, ``alpha`` for the others.

    Written so that minimising the loss raises the true class: ``alpha + beta > 0``. Other parameters and what is
    returned are those of :func:`rrw_map`.
    """
    parameters = MapParameters(
        "constant", alpha=alpha, beta=beta, class_weights=class_weights or {}, instances=instances
    )
    return make_map(labels, (1.0, 1.0, 1.0), n_classes, parameters, ignore, layout, 1)


def skeleton_map(
    labels: ArrayLike,
    spacing_mm: Sequence[float],
    *,
    n_classes: int,
    units: Units = "mm",
    dims: int = 3,
    instances: bool = False,
    ignore: int | None = None,
    layout: Literal["dense", "packed"] = "dense",
    threads: int = 1,
) -> NDArray[np.float32]:
    """Skeleton map, after the skeleton recall of Kirchhoff et al. (2024): own values on the skeleton, 0 elsewhere.

    With C the voxels of a class and S its skeleton and the face neighbours of that in C, the own value is
    ``-|C| / |S|`` on S, 0 on the rest of C, and all other values are 0: the loss is ``-1/K sum_k |C_k|/N R_k``, with
    R_k the mean of the softmax of class k over S_k, its soft skeleton recall. It rewards and never penalises, so it is
    to be mixed with another loss.

    The skeleton is the ridge of the distance inside (:func:`rwtool.maps.structures.skeleton_weights`), which every
    component has. Kirchhoff et al. thin all foreground together by scikit-image, and dilate by two voxels; that
    thinning leaves nothing of a tube whose width is even (scikit-image issue 3757).

    Parameters
    ----------
    labels, spacing_mm, n_classes, units, dims, instances, ignore, layout, threads
        As for :func:`rrw_map`.

    Returns
    -------
    (K, Z, Y, X) or packed float32 array
        A class that fills the volume (or slice) has own value -1.

    Raises
    ------
    VolumeError, UsageError
        As for :func:`rrw_map`.

    Examples
    --------
    >>> labels = [[0, 0, 0, 0, 0], [0, 1, 1, 1, 0], [0, 1, 1, 1, 0], [0, 1, 1, 1, 0], [0, 0, 0, 0, 0]]
    >>> skeleton_map(labels, (1, 1, 1), n_classes=2)[1, 1:4, 1:4].astype(float).round(2)  # 9/5 on the skeleton
    array([[ 0. , -1.8,  0. ],
           [-1.8, -1.8, -1.8],
           [ 0. , -1.8,  0. ]])
    """
    parameters = MapParameters("skeleton", units=units, dims=dims, instances=instances)
    return make_map(labels, spacing_mm, n_classes, parameters, ignore, layout, threads)


def matrix_map(
    labels: ArrayLike, *, matrix: Sequence[Sequence[float]], ignore: int | None = None
) -> NDArray[np.float32]:
    """Map of class distances: ``matrix[k][y]`` in channel k at voxels of class y.

    Its loss is the expected distance of the predicted from the true class, over K. It is rectified, and so stable, only
    where each column is constant off its diagonal.

    Parameters
    ----------
    labels, ignore
        As for :func:`rrw_map`.
    matrix : (K, K) float
        By class index; the own value of each column is its smallest.

    Returns
    -------
    (K, Z, Y, X) float32 array

    Raises
    ------
    VolumeError, UsageError
        As for :func:`rrw_map`.

    Examples
    --------
    >>> matrix_map([[[0, 2]]], matrix=[[0, 1, 2], [1, 0, 1], [2, 1, 0]])[:, 0, 0].tolist()
    [[0.0, 2.0], [1.0, 1.0], [2.0, 0.0]]
    """
    parameters = MapParameters("matrix", matrix=matrix)
    assert parameters.matrix is not None
    return make_map(labels, (1.0, 1.0, 1.0), len(parameters.matrix), parameters, ignore, "dense", 1)


def make_map(
    labels: ArrayLike,
    spacing_mm: Sequence[float],
    n_classes: int,
    parameters: MapParameters,
    ignore: int | None,
    layout: Literal["dense", "packed"],
    threads: int,
) -> NDArray[np.float32]:
    """Region-wise map of any kind; what the functions of each kind call.

    Parameters
    ----------
    parameters : MapParameters
    labels, spacing_mm, n_classes, ignore, layout, threads
        As for :func:`rrw_map`.
    """
    given = np.asarray(labels)
    volume, sentinel = _check_labels(given, n_classes, ignore)
    channels = parameters.packed_channels if layout == "packed" else n_classes
    result = np.empty((channels, *volume.shape), dtype=np.float32)
    blocks = map_blocks(
        volume,
        spacing_mm,
        n_classes,
        parameters,
        MapSummary(),
        ignore=sentinel,
        layout=layout,
        threads=threads,
    )
    for k, where, block in blocks:
        result[k][where] = block
    return result.reshape(given.shape if layout == "packed" and channels == 1 else (channels, *given.shape))


def map_in_order(
    labels: NDArray[Any],
    spacing_mm: Sequence[float],
    n_classes: int,
    parameters: MapParameters,
    *,
    slice_axis: int = 0,
    ignore: int | None = None,
    layout: Literal["dense", "packed"] = "dense",
    threads: int = 1,
) -> NDArray[np.float32]:
    """Region-wise map of an array whose axes stand in any order.

    Parameters
    ----------
    labels : (D1, D2) or (D1, D2, D3) integer array
    spacing_mm : (2,) or (3,) float
        Along the axes of `labels`, in their order.
    slice_axis : int
        The axis of a volume across which its slices lie; ``dims=2`` measures in slices.
    n_classes, parameters, ignore, layout, threads
        As for :func:`make_map`.

    Returns
    -------
    (K, *labels.shape) or, if packed, labels.shape or (2, *labels.shape) float32 array
    """
    if len(spacing_mm) != labels.ndim:
        raise UsageError(
            f"found spacing_mm={tuple(map(float, spacing_mm))} for labels of shape {labels.shape}; give a number of mm "
            "for each axis"
        )
    if labels.ndim != 3:  # a slice is a volume of one
        return make_map(labels, (1.0, *spacing_mm), n_classes, parameters, ignore, layout, threads)
    turned = np.moveaxis(labels, slice_axis, 0)
    mm = [spacing_mm[slice_axis], *(step for axis, step in enumerate(spacing_mm) if axis != slice_axis)]
    z = make_map(turned, mm, n_classes, parameters, ignore, layout, threads)
    return np.moveaxis(z, -3, slice_axis - 3)


def rectify(
    z: NDArray[Any], labels: ArrayLike, *, other: ArrayLike | None = None, kind: str | None = None
) -> NDArray[np.float32]:
    """Make any map stable by the principle of Section 3.3: equal other-class components at each voxel.

    Parameters
    ----------
    z : (K, Z, Y, X) array
        A map with K >= 2.
    labels : (Z, Y, X) integer array
        Class indices; the own component of a voxel is kept.
    other : float or (Z, Y, X) array, optional
        The common value; by default the mean of the K-1 components it replaces.
    kind : str, optional
        What `z` is. ``"hd"`` is refused: its softmax is squared, and a common value does not make that stable.

    Returns
    -------
    (K, Z, Y, X) float32 array

    Raises
    ------
    UsageError
        For an hd map, or shapes that do not belong together.
    """
    if kind == "hd":
        raise UsageError("an hd map cannot be rectified: its loss squares the softmax; choose another kind")
    z = np.asarray(z)
    index = np.asarray(labels)
    if z.ndim != index.ndim + 1 or z.shape[1:] != index.shape or len(z) < 2:
        raise UsageError(f"rectify takes a (K, Z, Y, X) map, K >= 2, and its labels; found {z.shape}, {index.shape}")
    _check_labels(index, len(z), None)
    own = np.take_along_axis(z, index[np.newaxis].astype(np.intp), axis=0)[0]
    if other is None:
        other = (z.sum(axis=0, dtype=np.float64) - own) / (len(z) - 1)
    result = np.empty(z.shape, dtype=np.float32)
    for k, channel in enumerate(result):
        channel[...] = np.where(index == k, own, other)
    return result


def _check_labels(labels: NDArray[Any], n_classes: int, ignore: int | None) -> tuple[NDArray[Any], int | None]:
    """Labels as a compact (Z, Y, X) array, with the value that ignored voxels have in it."""
    if labels.ndim not in (2, 3) or labels.size == 0 or labels.dtype.kind not in "bui":
        raise VolumeError(
            f"labels are a (Z, Y, X) array of integers; found shape {labels.shape} of type {labels.dtype}"
        )
    if n_classes < 2:
        raise UsageError(f"a map needs at least 2 classes, the background and another; found n_classes={n_classes}")
    volume = labels[np.newaxis] if labels.ndim == 2 else labels
    wrong = (volume < 0) | (volume >= n_classes)
    if ignore is not None:
        wrong &= volume != ignore
    if np.any(wrong):
        where = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise VolumeError(
            f"labels are class indices 0..{n_classes - 1}; found {volume[where]} at (z, y, x) = {where}; "
            "map file values to indices first, or name the value with ignore="
        )
    dtype = np.min_scalar_type(n_classes)  # K itself stays free for ignored voxels
    if ignore is None:
        return volume.astype(dtype), None
    return np.where(volume == ignore, n_classes, volume).astype(dtype), n_classes
