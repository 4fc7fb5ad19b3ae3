"""The names of the trainers: each says every setting that matters, since nnU-Net names a results folder by it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from rwtool.errors import UsageError
from rwtool.maps.parameters import USED_BY_KIND, Convention, Kind, MapParameters, Profile, Units

TrainerKind = Literal["rrw", "boundary", "hd", "ac", "skeleton", "generalized-surface", "boundary-dou"]
Common = Literal["dice", "ce"]

PREFIX = "nnUNetTrainer"
FORM = (
    f"{PREFIX}{{RRW,Boundary,HD,AC,Skeleton,GeneralizedSurface,BoundaryDoU}}"
    "[Reversed,Exp][Inner,Kervadec][Voxel][Slices][Instances][Stored][Dice,CE][Gradual][_Nepochs]"
)
"""How a name is put together: one of what stands in braces, and any of what stands in brackets, in this order."""

_KINDS: dict[str, TrainerKind] = {
    "RRW": "rrw",
    "BoundaryDoU": "boundary-dou",
    "Boundary": "boundary",
    "HD": "hd",
    "AC": "ac",
    "Skeleton": "skeleton",
    "GeneralizedSurface": "generalized-surface",
}
_PAPER: tuple[TrainerKind, ...] = ("rrw", "boundary", "hd", "ac")
_PROFILES: dict[str, Profile] = {"": "linear", "Reversed": "reversed", "Exp": "exp"}
_CONVENTIONS: dict[str, Convention] = {"": "across", "Inner": "inner", "Kervadec": "kervadec"}
_UNITS: dict[str, Units] = {"": "mm", "Voxel": "voxel"}
_COMMONS: dict[str, Common | None] = {"": None, "Dice": "dice", "CE": "ce"}
_NAME = re.compile(
    rf"{PREFIX}(?P<kind>{'|'.join(_KINDS)})(?P<profile>Reversed|Exp|)(?P<convention>Inner|Kervadec|)(?P<units>Voxel|)"
    r"(?P<dims>Slices|)(?P<instances>Instances|)(?P<stored>Stored|)(?P<common>Dice|CE|)(?P<mix>Gradual|)"
    r"(?:_(?P<epochs>[1-9][0-9]{0,5})epochs)?"
)


@dataclass(frozen=True)
class TrainerSettings:
    """What the name of a trainer says.

    Attributes
    ----------
    kind : {"rrw", "boundary", "hd", "ac", "skeleton", "generalized-surface", "boundary-dou"}
        Of the map, and the region-wise loss of it; or one of the losses to compare with.
    convention : {"across", "inner", "kervadec"}
    units : {"mm", "voxel"}
    dims : {3, 2}
        Distances in the volume, or slice by slice.
    stored : bool
        The maps are those of ``rwtool maps``; else they are made of each patch.
    mixed_with : {"dice", "ce"}, optional
        nnU-Net's own Dice loss or cross entropy beside the map loss.
    gradual : bool
        From that loss over to the map loss with the epochs; else their sum.
    epochs : int, optional
        How many, in place of nnU-Net's 1000.
    profile : {"linear", "reversed", "exp"}
        How the own value of rrw runs with the distance; exp with its own sigma of 5.
    instances : bool
        Each component of a class weighs the same.
    """

    kind: TrainerKind
    convention: Convention = "across"
    units: Units = "mm"
    dims: int = 3
    stored: bool = False
    mixed_with: Common | None = None
    gradual: bool = False
    epochs: int | None = None
    profile: Profile = "linear"
    instances: bool = False

    def __post_init__(self) -> None:
        if self.kind not in get_args(TrainerKind):
            raise UsageError(f"kind is one of {', '.join(get_args(TrainerKind))}; found {self.kind!r}")
        parameters = self.map_parameters  # refuses what does not go together
        used = () if parameters is None else USED_BY_KIND[parameters.kind]
        for name, value, default in (
            ("profile", self.profile, "linear"),
            ("convention", self.convention, "across"),
            ("units", self.units, "mm"),
            ("dims", self.dims, 3),
            ("instances", self.instances, False),
        ):
            if name not in used and value != default:
                raise UsageError(f"{name}={value} has no meaning for {self.kind} maps")
        if self.stored and not self.takes_maps:
            raise UsageError(f"{self.kind} maps follow from the labels alone; there is nothing to store")
        if self.mixed_with is not None and parameters is None:
            raise UsageError(f"Dice and CE are mixed with a loss of maps; {self.kind} has none")
        if self.gradual and self.mixed_with is None:
            raise UsageError("Gradual goes over from Dice or CE to the map loss; name one of the two before it")

    @property
    def map_kind(self) -> Kind | None:
        """Kind of the maps; boundary-dou has none."""
        if self.kind == "boundary-dou":
            return None
        return "boundary" if self.kind == "generalized-surface" else self.kind

    @property
    def map_parameters(self) -> MapParameters | None:
        """What the maps are, in the terms of ``rwtool maps``."""
        if self.map_kind is None:
            return None
        used = USED_BY_KIND[self.map_kind]
        given = {name: getattr(self, name) for name in ("profile", "instances") if name in used}
        return MapParameters(self.map_kind, convention=self.convention, units=self.units, dims=self.dims, **given)

    @property
    def takes_maps(self) -> bool:
        """Whether the loss takes a map that does not follow from the label of each voxel alone."""
        return self.map_parameters is not None and not self.map_parameters.follows_labels

    @property
    def name(self) -> str:
        """Name of the trainer's class."""
        parts = (
            _key(_KINDS, self.kind),
            _key(_PROFILES, self.profile),
            _key(_CONVENTIONS, self.convention),
            _key(_UNITS, self.units),
            "Slices" if self.dims == 2 else "",
            "Instances" if self.instances else "",
            "Stored" if self.stored else "",
            _key(_COMMONS, self.mixed_with),
            "Gradual" if self.gradual else "",
            f"_{self.epochs}epochs" if self.epochs else "",
        )
        return PREFIX + "".join(parts)

    @property
    def map_options(self) -> str:
        """Options of ``rwtool maps`` that make the maps that the trainer takes."""
        options, parameters = f"--kind {self.map_kind} --format npy", self.map_parameters
        if parameters is not None and parameters.rectified:
            options += " --layout packed" + (" --dtype float16" if parameters.bounded else "")
        for option, value, default in (
            ("--profile", self.profile, "linear"),
            ("--convention", self.convention, "across"),
            ("--units", self.units, "mm"),
            ("--dims", self.dims, 3),
        ):
            options += f" {option} {value}" if value != default else ""
        return options + (" --instances" if self.instances else "")


def parse_trainer_name(name: str) -> TrainerSettings:
    """Settings of a trainer by its name.

    Raises
    ------
    UsageError
        It is no name of a trainer of rwtool, or says what does not go together.

    Examples
    --------
    >>> parse_trainer_name("nnUNetTrainerBoundaryDiceGradual").mixed_with
    'dice'
    """
    found = _NAME.fullmatch(name)
    if found is None:
        raise UsageError(f"{name!r} is no trainer of rwtool; their names are of the form {FORM}")
    try:
        return TrainerSettings(
            _KINDS[found["kind"]],
            _CONVENTIONS[found["convention"]],
            _UNITS[found["units"]],
            2 if found["dims"] else 3,
            bool(found["stored"]),
            _COMMONS[found["common"]],
            bool(found["mix"]),
            int(found["epochs"]) if found["epochs"] else None,
            _PROFILES[found["profile"]],
            bool(found["instances"]),
        )
    except UsageError as error:
        raise UsageError(f"{name} is no trainer: {error}") from error


def is_like_trainer_name(name: str) -> bool:
    """Whether a name begins as those of rwtool's trainers do."""
    return name.startswith(tuple(PREFIX + kind for kind in _KINDS))


def trainer_names() -> list[str]:
    """Names of the trainers of the paper's maps: distances in mm and in the volume, nnU-Net's number of epochs."""
    names = []
    for kind in _PAPER:
        for stored in (False, True) if TrainerSettings(kind).takes_maps else (False,):
            names.append(TrainerSettings(kind, stored=stored).name)
            for common in get_args(Common):
                for gradual in (False, True):
                    names.append(TrainerSettings(kind, stored=stored, mixed_with=common, gradual=gradual).name)
    return names


def trainer_folder() -> Path:
    """The folder that nnU-Net is to look for trainers in: ``nnUNet_extTrainer``."""
    return Path(__file__).parent / "ext"


def _key(names: Mapping[str, object], value: object) -> str:
    return next(key for key, found in names.items() if found == value)
