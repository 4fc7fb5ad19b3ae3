"""The names of the trainers: each says every setting that matters, since nnU-Net names a results folder by it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from rwtool.errors import UsageError
from rwtool.maps.parameters import USED_BY_KIND, Convention, MapParameters, Units

TrainerKind = Literal["rrw", "boundary", "hd", "ac"]
Common = Literal["dice", "ce"]

PREFIX = "nnUNetTrainer"
FORM = f"{PREFIX}{{RRW,Boundary,HD,AC}}[Inner,Kervadec][Voxel][Slices][Stored][Dice,CE][Gradual][_Nepochs]"
"""How a name is put together: one of what stands in braces, and any of what stands in brackets, in this order."""

_KINDS: dict[str, TrainerKind] = {"RRW": "rrw", "Boundary": "boundary", "HD": "hd", "AC": "ac"}
_CONVENTIONS: dict[str, Convention] = {"": "across", "Inner": "inner", "Kervadec": "kervadec"}
_UNITS: dict[str, Units] = {"": "mm", "Voxel": "voxel"}
_COMMONS: dict[str, Common | None] = {"": None, "Dice": "dice", "CE": "ce"}
_NAME = re.compile(
    rf"{PREFIX}(?P<kind>RRW|Boundary|HD|AC)(?P<convention>Inner|Kervadec|)(?P<units>Voxel|)(?P<dims>Slices|)"
    r"(?P<stored>Stored|)(?P<common>Dice|CE|)(?P<mix>Gradual|)(?:_(?P<epochs>[1-9][0-9]{0,5})epochs)?"
)


@dataclass(frozen=True)
class TrainerSettings:
    """What the name of a trainer says.

    Attributes
    ----------
    kind : {"rrw", "boundary", "hd", "ac"}
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
    """

    kind: TrainerKind
    convention: Convention = "across"
    units: Units = "mm"
    dims: int = 3
    stored: bool = False
    mixed_with: Common | None = None
    gradual: bool = False
    epochs: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(TrainerKind):
            raise UsageError(f"kind is one of {', '.join(get_args(TrainerKind))}; found {self.kind!r}")
        parameters = self.map_parameters  # refuses what does not go together
        used = USED_BY_KIND[self.kind]
        for name, value, default in (
            ("convention", self.convention, "across"),
            ("units", self.units, "mm"),
            ("dims", self.dims, 3),
        ):
            if name not in used and value != default:
                raise UsageError(f"{name}={value} has no meaning for {self.kind} maps")
        if self.stored and not parameters.uses_distance:
            raise UsageError(f"{self.kind} maps follow from the labels alone; there is nothing to store")
        if self.gradual and self.mixed_with is None:
            raise UsageError("Gradual goes over from Dice or CE to the map loss; name one of the two before it")

    @property
    def map_parameters(self) -> MapParameters:
        """What the maps are, in the terms of ``rwtool maps``."""
        return MapParameters(self.kind, convention=self.convention, units=self.units, dims=self.dims)

    @property
    def name(self) -> str:
        """Name of the trainer's class."""
        parts = (
            _key(_KINDS, self.kind),
            _key(_CONVENTIONS, self.convention),
            _key(_UNITS, self.units),
            "Slices" if self.dims == 2 else "",
            "Stored" if self.stored else "",
            _key(_COMMONS, self.mixed_with),
            "Gradual" if self.gradual else "",
            f"_{self.epochs}epochs" if self.epochs else "",
        )
        return PREFIX + "".join(parts)

    @property
    def map_options(self) -> str:
        """Options of ``rwtool maps`` that make the maps that the trainer takes."""
        options = f"--kind {self.kind} --format npy"
        if self.map_parameters.rectified:
            options += " --layout packed --dtype float16"
        for option, value, default in (
            ("--convention", self.convention, "across"),
            ("--units", self.units, "mm"),
            ("--dims", self.dims, 3),
        ):
            options += f" {option} {value}" if value != default else ""
        return options


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
        )
    except UsageError as error:
        raise UsageError(f"{name} is no trainer: {error}") from error


def is_like_trainer_name(name: str) -> bool:
    """Whether a name begins as those of rwtool's trainers do."""
    return name.startswith(tuple(PREFIX + kind for kind in _KINDS))


def trainer_names() -> list[str]:
    """Names of the trainers of the paper's maps: distances in mm and in the volume, nnU-Net's number of epochs."""
    names = []
    for kind in _KINDS.values():
        for stored in (False, True) if MapParameters(kind).uses_distance else (False,):
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
