"""All that decides what a training run comes to, its data apart."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from rwtool.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Loss = Literal["rrw", "boundary", "ac", "hd", "dice", "focal", "ce", "wce-rrw"]
CommonLoss = Literal["dice", "ce"]
Mix = Literal["equal", "gradual"]
Schedule = Literal["paper", "authors"]
Normalize = Literal["zscore", "ct", "none"]
Amp = Literal["auto", "bf16", "fp16", "off"]
Flip = Literal["both", "y", "x", "none"]

MAP_OF_LOSS: dict[str, str] = {"rrw": "rrw", "boundary": "boundary", "ac": "ac", "hd": "hd", "wce-rrw": "rrw"}
"""The kind of map that a loss takes; the others take none."""

_NAMES = {"with": "mixed_with"}  # where the option's name is a word of Python
_CHOICES: dict[str, tuple[str, ...]] = {
    "loss": get_args(Loss),
    "mixed_with": get_args(CommonLoss),
    "mix": get_args(Mix),
    "schedule": get_args(Schedule),
    "norm": ("instance", "batch"),
    "normalize": get_args(Normalize),
    "amp": get_args(Amp),
    "flip": get_args(Flip),
}
_PAIRS = ("patch", "target_spacing")
_WHERE_ONLY = ("device",)  # changes where a run is computed, not what


@dataclass(frozen=True)
class TrainConfig:
    """What a training run does; the same names as the options of ``rwtool train``, and as the keys of its TOML file.

    Attributes
    ----------
    loss : {"rrw", "boundary", "ac", "hd", "dice", "focal", "ce", "wce-rrw"}
    mixed_with : {"dice", "ce"}, optional
        The option ``--with``: a common loss to mix a map loss with.
    mix : {"equal", "gradual"}
        The sum of both, or from the common loss over to the map loss.
    schedule : {"paper", "authors"}
        Of the gradual mixture: :func:`rwtool.gradual_weight` or :func:`rwtool.authors_weight`.
    ac_lambda : float, optional
        Adds the length term to the ac loss: length + lambda * region.
    epochs : int
        Each is one pass over the training slices.
    batch_size : int, optional
        Slices of a step, over all devices; 32 by default, fewer where patches are large.
    lr : float
        Of Adam at the start; it falls to 0 as ``(1 - step / steps) ** 0.9``.
    patch : (2,) int, optional
        Pixels along ``(y, x)``; by default the largest slice, up to 512 x 512.
    features, depth, norm
        Of :class:`rwtool.UNet2d`; `depth` is the number of its stages, by default from the patch.
    deep_supervision : bool
    augment : bool
    flip : {"both", "y", "x", "none"}
        Axes that the augmentation mirrors: left and right, which are x in axial slices, look alike; front and back
        do not.
    amp : {"auto", "bf16", "fp16", "off"}
        Auto is bf16 where the device computes it in hardware, else off.
    compile : bool
    device : str
        "auto", "cpu", "cuda" or "cuda:i".
    seed : int
        Of the weights, the order and the augmentation.
    val : float
        Share of the subjects that are validated on.
    split_seed : int
        Of the split, so that runs of several seeds share it.
    subject : str, optional
        Regex that takes the scans of one subject together, as in ``rwtool evaluate``.
    normalize : {"zscore", "ct", "none"}
    target_spacing : (2,) float, optional
        In mm along ``(y, x)``: slices are resampled to it on the way in.
    val_every : int
        Epochs between validations; the last epoch always has one.
    """

    loss: Loss = "rrw"
    mixed_with: CommonLoss | None = None
    mix: Mix = "equal"
    schedule: Schedule = "paper"
    ac_lambda: float | None = None
    epochs: int = 100
    batch_size: int | None = None
    lr: float = 2e-3
    patch: tuple[int, int] | None = None
    features: int = 32
    depth: int | None = None
    norm: Literal["instance", "batch"] = "instance"
    deep_supervision: bool = True
    augment: bool = True
    flip: Flip = "x"
    amp: Amp = "auto"
    compile: bool = False
    device: str = "auto"
    seed: int = 0
    val: float = 0.5
    split_seed: int = 0
    subject: str | None = None
    normalize: Normalize = "zscore"
    target_spacing: tuple[float, float] | None = None
    val_every: int = 5

    def __post_init__(self) -> None:
        for name in _PAIRS:
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, tuple(value))
        for name, known in _CHOICES.items():
            value = getattr(self, name)
            if value not in known and not (value is None and name == "mixed_with"):
                raise UsageError(f"{_option(name)} is one of {', '.join(known)}; found {value!r}")
        self._check_numbers()
        self._check_mixture()

    def _check_numbers(self) -> None:
        least = {"epochs": 1, "batch_size": 1, "features": 1, "val_every": 1, "depth": 2, "seed": 0, "split_seed": 0}
        for name, lowest in least.items():
            value = getattr(self, name)
            if value is not None and value < lowest:
                raise UsageError(f"{_option(name)} is at least {lowest}; found {value}")
        if not 0 < self.lr < math.inf:
            raise UsageError(f"--lr is a positive number; found {self.lr:g}")
        if not 0 <= self.val < 1:
            raise UsageError(f"--val is a share of the subjects, at least 0 and less than 1; found {self.val:g}")
        for name in _PAIRS:
            value = getattr(self, name)
            if value is not None and (len(value) != 2 or not all(0 < side < math.inf for side in value)):
                raise UsageError(f"{_option(name)} is two positive numbers, Y X; found {value}")

    def _check_mixture(self) -> None:
        if self.mixed_with is not None and self.loss not in MAP_OF_LOSS:
            raise UsageError(
                f"--with mixes a map loss ({', '.join(MAP_OF_LOSS)}) with Dice or cross entropy; found --loss "
                f"{self.loss} --with {self.mixed_with}"
            )
        if self.mixed_with is None and (self.mix != "equal" or self.schedule != "paper"):
            raise UsageError("--mix and --schedule belong to a mixture; add --with dice or --with ce")
        if self.schedule != "paper" and self.mix != "gradual":
            raise UsageError("--schedule belongs to --mix gradual; add that")
        if self.ac_lambda is not None and (self.loss != "ac" or not 0 <= self.ac_lambda < math.inf):
            raise UsageError(f"--ac-lambda is a number of 0 or more and belongs to --loss ac; found {self.ac_lambda:g}")

    @property
    def map_kind(self) -> str | None:
        """The kind of map that the loss takes."""
        return MAP_OF_LOSS.get(self.loss)

    @property
    def name(self) -> str:
        """Name of the loss for folders: ``boundary-dice-gradual``."""
        mixed = "" if self.mixed_with is None else f"-{self.mixed_with}-{self.mix}"
        return f"{self.loss}{mixed}"

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain values, for JSON and checkpoints."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    def to_toml(self) -> str:
        """The fields as TOML, those without a value left out; ``--config`` reads it."""
        options = {name: option for option, name in _NAMES.items()}
        return "".join(
            # plain JSON values are TOML values, but for the escapes of what is not ASCII
            f"{options.get(key, key)} = {json.dumps(value, ensure_ascii=False)}\n"
            for key, value in self.as_dict().items()
            if value is not None
        )


def read_config(path: Path) -> dict[str, Any]:
    """Read the settings of a TOML file: field of :class:`TrainConfig` to value.

    Raises
    ------
    UsageError
        If it cannot be read, or holds a key twice or one that is no setting, or a value of another type.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read as TOML: {error}") from error
    kinds = {field.name: str(field.type) for field in fields(TrainConfig)}
    found: dict[str, Any] = {}
    for key, value in content.items():
        name = _NAMES.get(key, key.replace("-", "_"))
        if name not in kinds:
            known = ", ".join(sorted(_option(field)[2:] for field in kinds))
            raise UsageError(f"{path}: {key!r} is no setting; the settings are {known}")
        if name in found:
            raise UsageError(f"{path}: {key!r} is set twice")
        if not _fits(value, kinds[name]):
            known = ", ".join(_CHOICES.get(name, ()))
            expected = f"one of {known}" if known else f"of the type {kinds[name].removesuffix(' | None')}"
            raise UsageError(f"{path}: {key} = {value!r} is not {expected}")
        found[name] = tuple(value) if isinstance(value, list) else value
    return found


def refuse_changes(stored: TrainConfig, given: Mapping[str, Any]) -> None:
    """Refuse to go on with a run under settings that would make it another one.

    Parameters
    ----------
    stored : TrainConfig
        Of the run.
    given : mapping
        Field to value, of those that were given anew.

    Raises
    ------
    UsageError
        Names every setting that differs.
    """
    changed = [
        f"{_option(name)} was {getattr(stored, name)}, now {value}"
        for name, value in given.items()
        if name not in _WHERE_ONLY and not _is_kept(stored, name, value)
    ]
    if changed:
        raise UsageError(
            f"--resume goes on with the settings of the run, and these differ: {'; '.join(changed)}; leave them out, "
            "or start another RUN"
        )


def _is_kept(stored: TrainConfig, name: str, value: Any) -> bool:
    """Whether a given value comes to the one of a run, whose patch was rounded up and whose amp was settled."""
    kept = getattr(stored, name)
    if name == "patch" and None not in (value, kept, stored.depth):
        stride = 1 << (stored.depth - 1)  # type: ignore[operator]
        return all(0 <= side - asked < stride for side, asked in zip(kept, value, strict=True))
    return bool(value == kept or (name, value) == ("amp", "auto"))


def _option(name: str) -> str:
    options = {field: option for option, field in _NAMES.items()}
    return "--" + options.get(name, name).replace("_", "-")


def _fits(value: Any, kind: str) -> bool:
    """Whether a value of a TOML file is of the annotated type of a field."""
    if kind.startswith("tuple"):
        wanted: tuple[type, ...] = (int,) if "int" in kind else (int, float)
        return isinstance(value, list) and all(isinstance(v, wanted) and not isinstance(v, bool) for v in value)
    if kind.startswith("bool") or isinstance(value, bool):
        return kind.startswith("bool") and isinstance(value, bool)
    if kind.startswith("int"):
        return isinstance(value, int)
    if kind.startswith("float"):
        return isinstance(value, (int, float))
    return isinstance(value, str)
