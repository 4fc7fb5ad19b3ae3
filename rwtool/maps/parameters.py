"""What makes a region-wise map, the labels apart, and what is noted on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from rwtool.errors import UsageError

if TYPE_CHECKING:  # the command line reads defaults here, and is to start at once
    import numpy as np
    from numpy.typing import NDArray

Kind = Literal["ac", "boundary", "constant", "hd", "matrix", "rrw", "skeleton"]
Convention = Literal["across", "inner", "kervadec"]
Units = Literal["mm", "voxel"]
Absent = Literal["zero", "farthest"]
Profile = Literal["linear", "reversed", "exp"]
Matrix = tuple[tuple[float, ...], ...]

KINDS: tuple[Kind, ...] = get_args(Kind)
PAPER_KINDS: tuple[Kind, ...] = ("ac", "boundary", "constant", "hd", "rrw")
"""Those of the paper."""
FILED: tuple[Kind, ...] = ("ac", "boundary", "constant", "hd", "rrw", "skeleton")
"""Kinds with a file for each case; a matrix is the same for all cases, and stands in the sidecar."""
RECTIFIED: tuple[Kind, ...] = ("ac", "constant", "rrw", "skeleton")
"""Kinds whose K-1 other-class components are equal, so that one number per voxel and one per class say all."""

SIGMA = 5.0  # of the exp profile, in the unit of the distance; pixels in the border weights of the first U-Net

_SMALLEST, _LARGEST = 2.0**-126, (2 - 2.0**-23) * 2.0**127  # of float32

# the parameters that mean something to each kind; the others are not recorded
USED_BY_KIND: dict[Kind, tuple[str, ...]] = {
    "ac": ("instances", "class_weights"),
    "boundary": ("convention", "units", "dims", "absent"),
    "constant": ("alpha", "beta", "instances", "class_weights"),
    "hd": ("units", "dims", "alpha", "absent"),
    "matrix": ("matrix",),
    "rrw": ("convention", "units", "dims", "profile", "sigma", "instances", "class_weights"),
    "skeleton": ("units", "dims", "instances"),
}
WEIGHTED = tuple(kind for kind in KINDS if "class_weights" in USED_BY_KIND[kind])
"""Kinds that take class weights."""
_UNLESS_USED = {"alpha": None, "beta": None, "profile": "linear", "sigma": None, "instances": False, "matrix": None}


@dataclass(frozen=True)
class MapParameters:
    """What makes a map, the labels apart.

    Attributes
    ----------
    kind : {"ac", "boundary", "constant", "hd", "matrix", "rrw", "skeleton"}
    convention : {"across", "inner", "kervadec"}
        How distances inside a class are measured (boundary, rrw).
    units : {"mm", "voxel"}
    dims : {3, 2}
        Distances, skeletons and components in the volume, or slice by slice across z.
    alpha : float, optional
        hd: the exponent, 2 unless given. constant: the other value, 1 unless given.
    beta : float, optional
        constant: minus the own value, 1 unless given.
    class_weights : dict of int to float
        Class index to the factor on the "other" value at voxels of that class (Section 3.2 of the paper).
    absent : {"zero", "farthest"}
        Channel of a class that is not in the volume (boundary, hd).
    profile : {"linear", "reversed", "exp"}
        rrw: how the own value runs with the distance d inside. With D its largest in the class and d0 its smallest:
        ``-d / D``; ``-(1 - (d - d0) / D)``, so that boundary voxels matter most; or ``-exp(-d / sigma)``.
    sigma : float, optional
        rrw of profile exp: in the unit of the distance, 5 unless given.
    instances : bool
        Divide the values at the voxels of a foreground component (26-connected) by the component's share of its class
        times the number of components, so that small lesions weigh as much as large ones (rectified kinds).
    matrix : (K, K) float, optional
        matrix, which needs it: the value of class k, the row, at voxels of class y, the column, by class index. The
        smallest of a column is that of its own class.
    """

    kind: Kind
    convention: Convention = "across"
    units: Units = "mm"
    dims: int = 3
    alpha: float | None = None
    beta: float | None = None
    class_weights: Mapping[int, float] = field(default_factory=dict)
    absent: Absent = "zero"
    profile: Profile = "linear"
    sigma: float | None = None
    instances: bool = False
    matrix: Sequence[Sequence[float]] | None = None

    def __post_init__(self) -> None:
        _refuse_unknown("kind", self.kind, KINDS)
        _refuse_unknown("convention", self.convention, ("across", "inner", "kervadec"))
        _refuse_unknown("units", self.units, ("mm", "voxel"))
        _refuse_unknown("dims", self.dims, (2, 3))
        _refuse_unknown("absent", self.absent, ("zero", "farthest"))
        _refuse_unknown("profile", self.profile, get_args(Profile))
        if self.convention == "kervadec" and self.units == "mm" and self.kind in ("boundary", "rrw"):
            raise UsageError(
                "the kervadec convention subtracts one voxel, whatever its size, so it has no meaning in mm; "
                "give units=voxel, or convention=across or convention=inner"
            )
        if self.class_weights and self.kind not in WEIGHTED:
            raise UsageError(f"class weights are for the rectified kinds {', '.join(WEIGHTED)}; found {self.kind}")
        for weight in self.class_weights.values():
            if not weight > 0:
                raise UsageError(f"class weights are positive numbers; found {weight:g}")
            _check_float32("a class weight", weight)
        if self.matrix is not None or self.kind == "matrix":
            object.__setattr__(self, "matrix", _check_matrix(self.matrix))
        for name, unset in _UNLESS_USED.items():
            if getattr(self, name) != unset and name not in USED_BY_KIND[self.kind]:
                raise UsageError(f"{name} has no meaning for {self.kind} maps")
        self._settle_numbers()
        self._settle_profile()

    def _settle_numbers(self) -> None:
        """Alpha and beta, which mean something else to each kind."""
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

    def _settle_profile(self) -> None:
        if self.profile != "exp":
            if self.sigma is not None:
                raise UsageError(f"sigma belongs to profile=exp; found profile={self.profile}")
            return
        sigma = SIGMA if self.sigma is None else float(self.sigma)
        if not sigma > 0:
            raise UsageError(f"sigma of the exp profile is a positive distance; found {sigma:g}")
        _check_float32("sigma of the exp profile", sigma)
        object.__setattr__(self, "sigma", sigma)

    @property
    def rectified(self) -> bool:
        """Whether the map's K-1 other-class components are equal."""
        return self.kind in RECTIFIED

    @property
    def uses_distance(self) -> bool:
        """Whether distances enter the map at all."""
        return "units" in USED_BY_KIND[self.kind]

    @property
    def follows_labels(self) -> bool:
        """Whether the values at a voxel follow from its label alone, so that no map need be made."""
        return self.kind in ("ac", "constant", "matrix") and not self.instances

    @property
    def sliced(self) -> bool:
        """Whether each slice is a volume of its own."""
        return self.dims == 2 and "dims" in USED_BY_KIND[self.kind]

    @property
    def bounded(self) -> bool:
        """Whether no value is larger than the parameters say, whatever the labels."""
        return self.rectified and self.kind != "skeleton" and not self.instances

    @property
    def packed_channels(self) -> int:
        """Of the packed layout: own values, and where components are told apart the other value of each voxel."""
        return 2 if self.instances else 1

    def distance_spacing(self, spacing_mm: Sequence[float]) -> tuple[float, ...]:
        """The spacing to measure with: `spacing_mm`, or ones for distances in voxels."""
        return tuple(spacing_mm) if self.units == "mm" else (1.0, 1.0, 1.0)

    def as_dict(self) -> dict[str, Any]:
        """The parameters that mean something to the kind."""
        values = asdict(self)
        return {"kind": self.kind, **{name: values[name] for name in USED_BY_KIND[self.kind]}}

    def other_values(self, n_classes: int) -> NDArray[np.float32]:
        """The "other" value of a rectified kind, by the true class of a voxel: shape (K,); before it is divided."""
        value = self.alpha if self.kind == "constant" else 0.0 if self.kind == "skeleton" else 1.0
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


def check_classes(parameters: MapParameters, n_classes: int) -> None:
    """Refuse class distances of another number of classes."""
    if parameters.matrix is not None and len(parameters.matrix) != n_classes:
        raise UsageError(f"matrix= is of {len(parameters.matrix)} classes; found {n_classes}: give a row for each")


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


def _check_matrix(given: Sequence[Sequence[float]] | None) -> Matrix:
    """The class distances as plain numbers; a column whose own value is not the smallest would reward an error."""
    if given is None:
        raise UsageError("a matrix map is its K x K numbers; give matrix=")
    try:
        rows = tuple(tuple(map(float, row)) for row in given)
    except (TypeError, ValueError):
        rows = ()
    if len(rows) < 2 or any(len(row) != len(rows) for row in rows):
        sizes = ", ".join(str(len(row)) for row in rows) or "none"
        raise UsageError(f"matrix= is K rows of K numbers, K >= 2; found rows of {sizes} numbers")
    for k, row in enumerate(rows):
        for y, value in enumerate(row):
            _check_float32("a number of matrix=", value)
            if k != y and not value > rows[y][y]:
                raise UsageError(
                    f"matrix= has {value:g} in row {k} of column {y}, and {rows[y][y]:g} for class {y} itself; the own "
                    "value is the smallest of its column, so that minimising the loss raises the true class"
                )
    return rows


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
        int16 is NIfTI with an explicit ``scl_slope``; float16 is for arrays. Both are for ac, constant and rrw
        without `instances`, whose values are bounded.
    layout : {"dense", "packed"}
        Packed stores the own value alone, for rectified kinds; with `instances` the other value beside it.
    """

    format: Format = "nii.gz"
    dtype: DType = "float32"
    layout: Layout = "dense"

    def __post_init__(self) -> None:
        _refuse_unknown("format", self.format, get_args(Format))
        _refuse_unknown("dtype", self.dtype, get_args(DType))
        _refuse_unknown("layout", self.layout, get_args(Layout))

    def check(self, parameters: MapParameters) -> None:
        """Refuse what a kind, or a format, cannot hold."""
        kind, rectified = parameters.kind, parameters.rectified
        if self.dtype == "float16" and self.format not in ("npy", "b2nd"):
            raise UsageError("float16 is for format=npy (NIfTI has no such type); dtype=int16 is as small, for NIfTI")
        if self.dtype == "int16" and self.format in ("npy", "b2nd"):
            raise UsageError(
                f"int16 needs the scaling of a NIfTI; with format={self.format} choose dtype=float16 or dtype=float32"
            )
        if not rectified and self.dtype != "float32":
            raise UsageError(f"{kind} maps are stored as float32 (their distances overflow {self.dtype} or lose mm)")
        if not parameters.bounded and self.dtype != "float32":
            what = f"{kind} maps with instances" if parameters.instances else f"{kind} maps"
            raise UsageError(f"{what} are stored as float32: their values grow with the size of a class")
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
