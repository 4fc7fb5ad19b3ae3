"""What makes a region-wise map, the labels apart, and what is noted on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from rwtool.errors import UsageError

if TYPE_CHECKING:  # the command line reads defaults here, and is to start at once
    import numpy as np
    from numpy.typing import NDArray

Kind = Literal["ac", "boundary", "constant", "hd", "rrw"]
Convention = Literal["across", "inner", "kervadec"]
Units = Literal["mm", "voxel"]
Absent = Literal["zero", "farthest"]

KINDS: tuple[Kind, ...] = ("ac", "boundary", "constant", "hd", "rrw")
RECTIFIED: tuple[Kind, ...] = ("ac", "constant", "rrw")
"""Kinds whose K-1 other-class components are equal, so that one number per voxel and one per class say all."""

_SMALLEST, _LARGEST = 2.0**-126, (2 - 2.0**-23) * 2.0**127  # of float32

# the parameters that mean something to each kind; the others are not recorded
USED_BY_KIND: dict[Kind, tuple[str, ...]] = {
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
        _refuse_unknown("kind", self.kind, KINDS)
        _refuse_unknown("convention", self.convention, ("across", "inner", "kervadec"))
        _refuse_unknown("units", self.units, ("mm", "voxel"))
        _refuse_unknown("dims", self.dims, (2, 3))
        _refuse_unknown("absent", self.absent, ("zero", "farthest"))
        if self.convention == "kervadec" and self.units == "mm" and self.kind in ("boundary", "rrw"):
            raise UsageError(
                "the kervadec convention subtracts one voxel, whatever its size, so it has no meaning in mm; "
                "give units=voxel, or convention=across or convention=inner"
            )
        if self.class_weights and self.kind not in RECTIFIED:
            raise UsageError(f"class weights are for the rectified kinds {', '.join(RECTIFIED)}; found {self.kind}")
        for weight in self.class_weights.values():
            if not weight > 0:
                raise UsageError(f"class weights are positive numbers; found {weight:g}")
            _check_float32("a class weight", weight)
        for name in ("alpha", "beta"):
            if getattr(self, name) is not None and name not in USED_BY_KIND[self.kind]:
                raise UsageError(f"{name} has no meaning for {self.kind} maps")
        defaults = {"constant": (1.0, 1.0), "hd": (2.0, None)}.get(self.kind, (None, None))
        object.__setattr__(self, "alpha", defaults[0] if self.alpha is None else float(self.alpha))
        object.__setattr__(self, "beta", defaults[1] if self.beta is None else float(self.beta))
        for name in ("alpha", "beta"):
            if (value := getattr(self, name)) is not None:
                _check_float32(f"{name} of {self.kind} maps", value)
        if self.kind == "constant" and not self.alpha + self.beta > 0:  # type: ignore[operator]
            raise UsageError(
                f"a constant map needs alpha + beta > 0, so that minimising its loss raises the true class; "
                f"found alpha {self.alpha:g} and beta {self.beta:g}"
            )
        if self.kind == "hd" and not self.alpha > 0:  # type: ignore[operator]
            raise UsageError(f"the exponent alpha of an hd map is positive; found {self.alpha:g}")
        for weight in self.class_weights.values() if self.kind == "constant" else ():
            _check_float32("alpha times a class weight", self.alpha * weight)  # type: ignore[operator]

    @property
    def rectified(self) -> bool:
        """Whether the map's K-1 other-class components are equal."""
        return self.kind in RECTIFIED

    @property
    def uses_distance(self) -> bool:
        """Whether distances enter the map at all."""
        return "units" in USED_BY_KIND[self.kind]

    def distance_spacing(self, spacing_mm: Sequence[float]) -> tuple[float, ...]:
        """The spacing to measure with: `spacing_mm`, or ones for distances in voxels."""
        return tuple(spacing_mm) if self.units == "mm" else (1.0, 1.0, 1.0)

    def as_dict(self) -> dict[str, Any]:
        """The parameters that mean something to the kind."""
        values = asdict(self)
        return {"kind": self.kind, **{name: values[name] for name in USED_BY_KIND[self.kind]}}

    def other_values(self, n_classes: int) -> NDArray[np.float32]:
        """The "other" value of a rectified kind, by the true class of a voxel: shape (K,)."""
        value = self.alpha if self.kind == "constant" else 1.0
        weights = [self.class_weights.get(k, 1.0) for k in range(n_classes)]
        import numpy as np

        return np.asarray(weights, dtype=np.float32) * np.float32(value)


def choose_parameters(kinds: Sequence[str], given: Mapping[str, Any]) -> list[MapParameters]:
    """The parameters of each kind, from those given for all of them together.

    Raises
    ------
    UsageError
        A kind is none, or a parameter means nothing to any of the kinds, or different things to two of them.
    """
    kinds = (kinds,) if isinstance(kinds, str) else kinds
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise UsageError(f"kinds= are some of {', '.join(KINDS)}; found {', '.join(map(str, kinds)) or 'none'}")
    if "alpha" in given and {"constant", "hd"} <= set(kinds):
        raise UsageError("alpha= means different things to hd and constant maps; make these two kinds one at a time")
    for name in given:
        if not any(name in USED_BY_KIND[kind] for kind in kinds):  # type: ignore[index]
            owners = " and ".join(kind for kind, names in USED_BY_KIND.items() if name in names)
            raise UsageError(f"{name}= belongs to {owners} maps; it has no meaning for {', '.join(kinds)}")
    return [
        MapParameters(kind, **{name: value for name, value in given.items() if name in USED_BY_KIND[kind]})
        for kind in KINDS
        if kind in kinds
    ]


def _refuse_unknown(name: str, value: object, known: Sequence[object]) -> None:
    if value not in known:
        raise UsageError(f"{name} is one of {', '.join(map(str, known))}; found {value!r}")


def _check_float32(what: str, value: float) -> None:
    """Refuse a number that maps cannot hold: too large for float32, or so small that it would be 0 there."""
    if not abs(value) <= _LARGEST or 0 < abs(value) < _SMALLEST:
        raise UsageError(
            f"{what} is 0 or a number whose size is {_SMALLEST:.3g} to {_LARGEST:.3g}, which is what float32 holds; "
            f"found {value:g}"
        )


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


Layout = Literal["dense", "packed"]


Format = Literal["nii.gz", "nii", "npy", "b2nd"]


DType = Literal["float32", "float16", "int16"]


@dataclass(frozen=True)
class Storage:
    """How maps are stored.

    Attributes
    ----------
    format : {"nii.gz", "nii", "npy", "b2nd"}
        The last is a compressed array of blosc2, as nnU-Net keeps its own.
    dtype : {"float32", "float16", "int16"}
        int16 is NIfTI with an explicit ``scl_slope``; float16 is for arrays. Both are for rectified kinds.
    layout : {"dense", "packed"}
        Packed stores the own value alone, for rectified kinds.
    """

    format: Format = "nii.gz"
    dtype: DType = "float32"
    layout: Layout = "dense"

    def __post_init__(self) -> None:
        _refuse_unknown("format", self.format, get_args(Format))
        _refuse_unknown("dtype", self.dtype, get_args(DType))
        _refuse_unknown("layout", self.layout, get_args(Layout))

    def check(self, kind: str, rectified: bool) -> None:
        """Refuse what a kind, or a format, cannot hold."""
        if self.dtype == "float16" and self.format not in ("npy", "b2nd"):
            raise UsageError("float16 is for format=npy (NIfTI has no such type); dtype=int16 is as small, for NIfTI")
        if self.dtype == "int16" and self.format in ("npy", "b2nd"):
            raise UsageError(
                f"int16 needs the scaling of a NIfTI; with format={self.format} choose dtype=float16 or dtype=float32"
            )
        if not rectified and self.dtype != "float32":
            raise UsageError(f"{kind} maps are stored as float32 (their distances overflow {self.dtype} or lose mm)")
        if not rectified and self.layout == "packed":
            raise UsageError(f"{kind} maps cannot be packed: each of their channels holds distances of its own")

    def slope(self, parameters: MapParameters, n_classes: int) -> float:
        """The ``scl_slope`` that spreads the values of a rectified kind over the integers of its type."""
        if self.dtype != "int16":
            return 1.0
        import numpy as np

        own = {"ac": 0.0, "rrw": 1.0}.get(parameters.kind, abs(parameters.beta or 0.0))
        largest = max(own, float(np.abs(parameters.other_values(n_classes)).max()))
        return float(np.float32(largest / np.iinfo(np.int16).max)) if largest else 1.0
