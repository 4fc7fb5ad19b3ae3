"""Region-wise maps of a label array: one number per voxel and class (Valverde & Tohka 2022).

The public functions return a whole map; :func:`map_blocks` gives the same numbers piece by piece, so that no
K-channel array need ever be held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rwtool.distance import (
    distance_to_class,
    distance_to_inner_boundary,
    distance_to_other_class,
    signed_distance,
    slabs,
)
from rwtool.errors import UsageError, VolumeError
from rwtool.labels import label_counts

Kind = Literal["ac", "boundary", "constant", "hd", "rrw"]
Convention = Literal["across", "inner", "kervadec"]
Units = Literal["mm", "voxel"]
Absent = Literal["zero", "farthest"]

KINDS: tuple[Kind, ...] = ("ac", "boundary", "constant", "hd", "rrw")
RECTIFIED: tuple[Kind, ...] = ("ac", "constant", "rrw")
"""Kinds whose K-1 other-class components are equal, so that one number per voxel and one per class say all."""

# the parameters that mean something to each kind; the others are not recorded
_USED: dict[Kind, tuple[str, ...]] = {
    "ac": ("class_weights",),
    "boundary": ("convention", "units", "dims", "absent"),
    "constant": ("alpha", "beta", "class_weights"),
    "hd": ("units", "dims", "alpha", "absent"),
    "rrw": ("convention", "units", "dims", "class_weights"),
}


@dataclass(frozen=True)
class MapParameters:
    """What makes a map, the labels apart.

    Attributes
    ----------
    kind : {"ac", "boundary", "constant", "hd", "rrw"}
    convention : {"across", "inner", "kervadec"}
        How distances inside a class are measured (boundary, rrw).
    units : {"mm", "voxel"}
    dims : {3, 2}
        Distances in the volume, or slice by slice across z.
    alpha : float, optional
        hd: the exponent, 2 unless given. constant: the other value, 1 unless given.
    beta : float, optional
        constant: minus the own value, 1 unless given.
    class_weights : dict of int to float
        Class index to the factor on the "other" value at voxels of that class (Section 3.2 of the paper).
    absent : {"zero", "farthest"}
        Channel of a class that is not in the volume (boundary, hd).
    """

    kind: Kind
    convention: Convention = "across"
    units: Units = "mm"
    dims: int = 3
    alpha: float | None = None
    beta: float | None = None
    class_weights: Mapping[int, float] = field(default_factory=dict)
    absent: Absent = "zero"

    def __post_init__(self) -> None:
        self._refuse_unknown("kind", KINDS)
        self._refuse_unknown("convention", ("across", "inner", "kervadec"))
        self._refuse_unknown("units", ("mm", "voxel"))
        self._refuse_unknown("dims", (2, 3))
        self._refuse_unknown("absent", ("zero", "farthest"))
        if self.convention == "kervadec" and self.units == "mm" and self.kind in ("boundary", "rrw"):
            raise UsageError(
                "the kervadec convention subtracts one voxel, whatever its size, so it has no meaning in mm; "
                "add --units voxel, or choose --convention across or inner"
            )
        if self.class_weights and self.kind not in RECTIFIED:
            raise UsageError(f"class weights are for the rectified kinds {', '.join(RECTIFIED)}; found {self.kind}")
        if not all(0 < weight < np.inf for weight in self.class_weights.values()):
            raise UsageError(f"class weights are positive numbers; found {dict(self.class_weights)}")
        for name in ("alpha", "beta"):
            if getattr(self, name) is not None and name not in _USED[self.kind]:
                raise UsageError(f"{name} has no meaning for {self.kind} maps")
        defaults = {"constant": (1.0, 1.0), "hd": (2.0, None)}.get(self.kind, (None, None))
        object.__setattr__(self, "alpha", defaults[0] if self.alpha is None else float(self.alpha))
        object.__setattr__(self, "beta", defaults[1] if self.beta is None else float(self.beta))
        if self.kind == "constant" and not 0 < self.alpha + self.beta < np.inf:  # type: ignore[operator]
            raise UsageError(
                f"a constant map needs alpha + beta > 0, so that minimising its loss raises the true class; "
                f"found alpha {self.alpha:g} and beta {self.beta:g}"
            )
        if self.kind == "hd" and not 0 < self.alpha < np.inf:  # type: ignore[operator]
            raise UsageError(f"the exponent alpha of an hd map is positive; found {self.alpha:g}")

    def _refuse_unknown(self, name: str, known: Sequence[object]) -> None:
        if getattr(self, name) not in known:
            raise UsageError(f"{name} is one of {', '.join(map(str, known))}; found {getattr(self, name)!r}")

    @property
    def rectified(self) -> bool:
        """Whether the map's K-1 other-class components are equal."""
        return self.kind in RECTIFIED

    @property
    def uses_distance(self) -> bool:
        """Whether distances enter the map at all."""
        return "units" in _USED[self.kind]

    def distance_spacing(self, spacing_mm: Sequence[float]) -> tuple[float, ...]:
        """The spacing to measure with: `spacing_mm`, or ones for distances in voxels."""
        return tuple(spacing_mm) if self.units == "mm" else (1.0, 1.0, 1.0)

    def as_dict(self) -> dict[str, Any]:
        """The parameters that mean something to the kind."""
        values = asdict(self)
        return {"kind": self.kind, **{name: values[name] for name in _USED[self.kind]}}

    def other_values(self, n_classes: int) -> NDArray[np.float32]:
        """The "other" value of a rectified kind, by the true class of a voxel: shape (K,)."""
        value = self.alpha if self.kind == "constant" else 1.0
        weights = [self.class_weights.get(k, 1.0) for k in range(n_classes)]
        return np.asarray(weights, dtype=np.float32) * np.float32(value)


@dataclass
class MapSummary:
    """What a case's map met on the way: each edge case of the definitions, by class index.

    Attributes
    ----------
    absent : list of int
        Classes that are not in the volume.
    filling : list of int
        A class that fills the whole volume.
    zero_distance : list of int
        Classes whose largest distance inside is 0 (conventions inner and kervadec).
    absent_slices, filling_slices : dict of int to int
        For dims 2: in how many slices the class is absent, or alone.
    largest_distance : dict of int to float
        By class: the largest distance inside it (rrw, boundary) or to it (hd), in the map's unit.
    """

    absent: list[int] = field(default_factory=list)
    filling: list[int] = field(default_factory=list)
    zero_distance: list[int] = field(default_factory=list)
    absent_slices: dict[int, int] = field(default_factory=dict)
    filling_slices: dict[int, int] = field(default_factory=dict)
    largest_distance: dict[int, float] = field(default_factory=dict)


Block = tuple[int, tuple[slice, ...], NDArray[np.float32]]


def rrw_map(
    labels: ArrayLike,
    spacing_mm: Sequence[float],
    *,
    n_classes: int,
    convention: Convention = "across",
    units: Units = "mm",
    dims: int = 3,
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
    class_weights : dict of int to float, optional
        Factor on the other-class value at voxels of a class.
    ignore : int, optional
        Value of voxels without a class: they are 0 in every channel (packed: NaN), and no target of a distance.
    layout : {"dense", "packed"}
        Packed is the own value alone, ``(Z, Y, X)``; see :func:`expand_packed`.
    threads : int

    Returns
    -------
    (K, Z, Y, X) or (Z, Y, X) float32 array
        Own values in [-1, 0], other values > 0. A class that fills the volume (or slice) has own value -1.

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
    parameters = MapParameters("rrw", convention, units, dims, class_weights=class_weights or {})
    return _whole_map(labels, spacing_mm, n_classes, parameters, ignore, layout, threads)


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
    return _whole_map(labels, spacing_mm, n_classes, parameters, ignore, "dense", threads)


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
    return _whole_map(labels, spacing_mm, n_classes, parameters, ignore, "dense", threads)


def ac_map(
    labels: ArrayLike,
    *,
    n_classes: int,
    class_weights: Mapping[int, float] | None = None,
    ignore: int | None = None,
    layout: Literal["dense", "packed"] = "dense",
) -> NDArray[np.float32]:
    """Active-contour map (Eq. 17): 0 for the true class, 1 for the others.

    Parameters and what is returned are those of :func:`rrw_map`.
    """
    parameters = MapParameters("ac", class_weights=class_weights or {})
    return _whole_map(labels, (1.0, 1.0, 1.0), n_classes, parameters, ignore, layout, 1)


def constant_map(
    labels: ArrayLike,
    *,
    n_classes: int,
    alpha: float = 1.0,
    beta: float = 1.0,
    class_weights: Mapping[int, float] | None = None,
    ignore: int | None = None,
    layout: Literal["dense", "packed"] = "dense",
) -> NDArray[np.float32]:
    """Constant map (Eq. 29 to 31): ``-beta`` for the true class, ``alpha`` for the others.

    Written so that minimising the loss raises the true class: ``alpha + beta > 0``. Other parameters and what is
    returned are those of :func:`rrw_map`.
    """
    parameters = MapParameters("constant", alpha=alpha, beta=beta, class_weights=class_weights or {})
    return _whole_map(labels, (1.0, 1.0, 1.0), n_classes, parameters, ignore, layout, 1)


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


def expand_packed(
    own: NDArray[Any], labels: NDArray[Any], other_values: ArrayLike, *, ignore: int | None = None
) -> NDArray[np.float32]:
    """Dense map of a packed one.

    Parameters
    ----------
    own : (Z, Y, X) array
        The own value of each voxel.
    labels : (Z, Y, X) integer array
        Class indices 0..K-1.
    other_values : (K,) float
        The other value, by the true class of the voxel.
    ignore : int, optional
        Value of voxels without a class; they become 0.

    Returns
    -------
    (K, Z, Y, X) float32 array
    """
    classes = range(len(np.asarray(other_values)))
    return np.stack([expand_channel(own, labels, other_values, k, ignore=ignore) for k in classes])


def expand_channel(
    own: NDArray[Any], labels: NDArray[Any], other_values: ArrayLike, k: int, *, ignore: int | None = None
) -> NDArray[np.float32]:
    """One channel, (Z, Y, X), of the dense map of a packed one; parameters are those of :func:`expand_packed`."""
    others = np.asarray(other_values, dtype=np.float32)
    channel = np.empty_like(own, dtype=np.float32)
    for where in slabs(own):
        channel[where] = _rectified_block(own[where], labels[where], others, k, ignore)
    return channel


def map_blocks(
    labels: NDArray[Any],
    spacing_mm: Sequence[float],
    n_classes: int,
    parameters: MapParameters,
    summary: MapSummary,
    *,
    ignore: int | None = None,
    layout: Literal["dense", "packed"] = "dense",
    threads: int = 1,
) -> Iterator[Block]:
    """Give a map piece by piece: channel after channel, each in the memory order of `labels`.

    Parameters
    ----------
    labels : (Z, Y, X) unsigned integer array
        Class indices 0..K-1, and `ignore`.
    spacing_mm : (3,) float
    n_classes : int
    parameters : MapParameters
    summary : MapSummary
        Filled in on the way.
    ignore, layout, threads
        As for :func:`rrw_map`.

    Yields
    ------
    channel : int
    where : tuple of slices
        The slab of ``(z, y, x)`` that the block fills.
    block : float32 array
    """
    if layout == "packed" and not parameters.rectified:
        raise UsageError(f"only {', '.join(RECTIFIED)} maps can be packed; found {parameters.kind}")
    spacing = parameters.distance_spacing(spacing_mm)
    present = _note_presence(labels, n_classes, parameters, summary, ignore)
    if parameters.rectified:
        own = _own_values(labels, spacing, parameters, summary, ignore, threads)
        if layout == "packed":
            for where in slabs(labels):
                yield 0, where, own[where] if ignore is None else _marked(own[where], labels[where], ignore)
            return
        others = parameters.other_values(n_classes)
        for k in range(n_classes):
            for where in slabs(labels):
                yield k, where, _rectified_block(own[where], labels[where], others, k, ignore)
        return
    make = _boundary_channel if parameters.kind == "boundary" else _hd_channel
    channel_of = make(labels, spacing, present, parameters, summary, ignore, threads)
    for k in range(n_classes):
        channel = channel_of(k)
        for where in slabs(labels):
            if ignore is not None:
                channel[where][labels[where] == ignore] = 0
            yield k, where, channel[where]
        del channel  # before the next one is made


def _whole_map(
    labels: ArrayLike,
    spacing_mm: Sequence[float],
    n_classes: int,
    parameters: MapParameters,
    ignore: int | None,
    layout: Literal["dense", "packed"],
    threads: int,
) -> NDArray[np.float32]:
    given = np.asarray(labels)
    volume, sentinel = _check_labels(given, n_classes, ignore)
    channels = 1 if layout == "packed" else n_classes
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
    return result.reshape(given.shape if layout == "packed" else (n_classes, *given.shape))


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


def _note_presence(
    labels: NDArray[Any], n_classes: int, parameters: MapParameters, summary: MapSummary, ignore: int | None
) -> NDArray[np.bool_]:
    """Which class stands in which slice, (Z, K), or in the volume, (1, K); edge cases go into the summary."""
    sliced = parameters.uses_distance and parameters.dims == 2
    parts = list(labels) if sliced else [labels]
    depth = len(parts)
    present = np.zeros((depth, n_classes), dtype=bool)
    for z, part in enumerate(parts):
        found = [k for k in label_counts(part) if k != ignore]
        present[z, found] = True
    somewhere: NDArray[np.bool_] = np.logical_or.reduce(present, axis=0)
    summary.absent = [int(k) for k in np.flatnonzero(~somewhere)]
    if somewhere.sum() == 1:
        summary.filling = [int(k) for k in np.flatnonzero(somewhere)]
    if sliced:
        per_slice = np.count_nonzero(present, axis=1)
        alone = present[per_slice == 1]
        missing = depth - present.sum(axis=0)
        summary.absent_slices = {k: int(n) for k, n in enumerate(missing) if n and somewhere[k]}
        summary.filling_slices = {k: int(n) for k, n in enumerate(alone.sum(axis=0)) if n}
    return present


def _own_values(
    labels: NDArray[Any],
    spacing: Sequence[float],
    parameters: MapParameters,
    summary: MapSummary,
    ignore: int | None,
    threads: int,
) -> NDArray[np.float32]:
    """Own value of every voxel of a rectified map."""
    if parameters.kind != "rrw":
        own = 0.0 if parameters.kind == "ac" else -float(parameters.beta or 0.0)
        return np.full_like(labels, own, dtype=np.float32)
    distance = _inside_distance(labels, spacing, parameters, ignore, threads)
    if parameters.dims == 2:
        for z in range(labels.shape[0]):
            _normalise(distance[z : z + 1], labels[z : z + 1], summary, ignore)
    else:
        _normalise(distance, labels, summary, ignore)
    return distance


def _inside_distance(
    labels: NDArray[Any],
    spacing: Sequence[float],
    parameters: MapParameters,
    ignore: int | None,
    threads: int,
) -> NDArray[np.float32]:
    """Distance of every voxel inside its own class, by the convention; inf where it has nothing to measure to."""
    measure = distance_to_inner_boundary if parameters.convention == "inner" else distance_to_other_class
    distance = measure(labels, spacing, dims=parameters.dims, ignore=ignore, threads=threads)
    if parameters.convention == "kervadec":
        distance -= 1
    return distance


def _normalise(distance: NDArray[np.float32], labels: NDArray[Any], summary: MapSummary, ignore: int | None) -> None:
    """Divide each distance by the largest of its class, in place, and turn it negative."""
    largest = _largest_by_class(distance, labels)
    divisor = np.full(max(largest) + 1, -1, dtype=np.float32)
    for k, value in largest.items():
        if 0 < value < np.inf:
            divisor[k] = -value
        if k != ignore:
            _note_distance(summary, k, value)
    for where in slabs(labels):
        np.divide(distance[where], divisor[labels[where]], out=distance[where])
    if np.inf in largest.values():  # a class with nothing to measure to
        np.maximum(distance, -1, out=distance)


def _note_distance(summary: MapSummary, k: int, value: float) -> None:
    if np.isfinite(value):
        summary.largest_distance[k] = max(value, summary.largest_distance.get(k, 0.0))
    if value == 0 and k not in summary.zero_distance:
        summary.zero_distance.append(k)


def _largest_by_class(distance: NDArray[np.float32], labels: NDArray[Any]) -> dict[int, float]:
    largest: dict[int, float] = {}
    for where in slabs(labels):
        block, piece = labels[where], distance[where]
        for k in np.flatnonzero(np.bincount(block.ravel(order="K"))):
            value = float(piece.max(where=block == k, initial=0))
            largest[int(k)] = max(value, largest.get(int(k), 0.0))
    return largest


def _rectified_block(
    own: NDArray[Any], labels: NDArray[Any], other_values: NDArray[np.float32], k: int, ignore: int | None
) -> NDArray[np.float32]:
    """Channel k of a rectified map where its own values are `own`."""
    if (other_values == other_values[0]).all():
        other: Any = other_values[0]
    else:
        other = np.append(other_values, np.float32(0))[np.minimum(labels, len(other_values))]
    values = np.where(labels == k, own, other).astype(np.float32, copy=False)
    if ignore is not None:
        values[labels == ignore] = 0
    return values


def _marked(own: NDArray[np.float32], labels: NDArray[Any], ignore: int) -> NDArray[np.float32]:
    return np.where(labels == ignore, np.float32(np.nan), own)


def _boundary_channel(
    labels: NDArray[Any],
    spacing: Sequence[float],
    present: NDArray[np.bool_],
    parameters: MapParameters,
    summary: MapSummary,
    ignore: int | None,
    threads: int,
) -> Callable[[int], NDArray[np.float32]]:
    dims = parameters.dims
    farthest = _farthest(labels, spacing, present, parameters, threads)
    # One pass over class and rest together gives inside and outside; where the two do not measure to the same voxels
    # (inner boundary, ignored voxels), the inside of all classes comes from one pass of its own.
    together = parameters.convention != "inner" and ignore is None
    inside = None if together else _inside_distance(labels, spacing, parameters, ignore, threads)

    def channel_of(k: int) -> NDArray[np.float32]:
        if k in summary.absent or k in summary.filling:
            channel = np.zeros_like(labels, dtype=np.float32)
        elif inside is None:
            channel = signed_distance(labels, k, spacing, dims=dims, threads=threads)
            if parameters.convention == "kervadec":
                np.add(channel, 1, out=channel, where=labels == k)
        else:
            channel = distance_to_class(labels, k, spacing, dims=dims, threads=threads)
            np.negative(inside, out=channel, where=labels == k)
        _settle(channel, present[:, k], farthest, dims)
        if k not in summary.absent and k not in summary.filling:
            _note_distance(summary, k, -float(channel.min(where=labels == k, initial=0)))
        return channel

    return channel_of


def _hd_channel(
    labels: NDArray[Any],
    spacing: Sequence[float],
    present: NDArray[np.bool_],
    parameters: MapParameters,
    summary: MapSummary,
    ignore: int | None,
    threads: int,
) -> Callable[[int], NDArray[np.float32]]:
    del ignore  # ignored voxels are no class, so they are no target of d_k
    farthest = _farthest(labels, spacing, present, parameters, threads)

    def channel_of(k: int) -> NDArray[np.float32]:
        if k in summary.absent or k in summary.filling:
            channel = np.zeros_like(labels, dtype=np.float32)
        else:
            channel = distance_to_class(labels, k, spacing, dims=parameters.dims, threads=threads)
        _settle(channel, present[:, k], farthest, parameters.dims)
        if k not in summary.absent and k not in summary.filling:
            summary.largest_distance[k] = float(channel.max())
        if parameters.alpha != 1:
            np.power(channel, np.float32(parameters.alpha), out=channel)
        return channel

    return channel_of


def _settle(
    channel: NDArray[np.float32],
    present: NDArray[np.bool_],
    farthest: NDArray[np.float32] | None,
    dims: int,
) -> None:
    """Give voxels that measure to nothing their value: 0, or where their class is absent, `farthest`."""
    for where in slabs(channel):
        np.copyto(channel[where], 0, where=np.isinf(channel[where]))
    if farthest is not None and dims == 2:
        channel[~present] = farthest[~present]
    elif farthest is not None and not present.any():
        channel[...] = farthest


def _farthest(
    labels: NDArray[Any],
    spacing: Sequence[float],
    present: NDArray[np.bool_],
    parameters: MapParameters,
    threads: int,
) -> NDArray[np.float32] | None:
    """Largest distance from each voxel to another class that is there; None where it is not asked for or needed."""
    everywhere = present.all() if parameters.dims == 2 else present.any(axis=0).all()
    if parameters.absent == "zero" or everywhere:
        return None
    largest = np.zeros_like(labels, dtype=np.float32)
    for k in np.flatnonzero(present.any(axis=0)):
        distance = distance_to_class(labels, int(k), spacing, dims=parameters.dims, threads=threads)
        np.copyto(distance, 0, where=np.isinf(distance))
        np.maximum(largest, distance, out=largest)
    return largest
