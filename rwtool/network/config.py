"""All that decides what a training run comes to, its data apart."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import msgspec
import tomli_w
from msgspec import UNSET, UnsetType

from rwtool.errors import UsageError
from rwtool.records import check_seal, read_toml, sealed, to_record

Loss = Literal[
    "rrw", "boundary", "ac", "hd", "skeleton", "matrix", "dice", "focal", "ce", "wce-rrw", "generalized-surface",
    "boundary-dou",
]  # fmt: skip
CommonLoss = Literal["dice", "ce"]
Mix = Literal["equal", "gradual"]
Schedule = Literal["paper", "authors"]
Normalize = Literal["zscore", "ct", "none"]
Amp = Literal["auto", "bf16", "fp16", "off"]
Flip = Literal["both", "y", "x", "none"]
RateSchedule = Literal["poly", "cosine", "constant"]

MAP_OF_LOSS: dict[str, str] = {
    "rrw": "rrw", "boundary": "boundary", "ac": "ac", "hd": "hd", "skeleton": "skeleton", "matrix": "matrix",
    "wce-rrw": "rrw", "generalized-surface": "boundary",
}  # fmt: skip
"""The kind of map that a loss takes; the others take none."""

_FORMAT = 1  # of the TOML file
_NAMES = {"mixed_with": "with"}  # in the TOML file, where a word of Python may be a name
_CHOICES: dict[str, tuple[str, ...]] = {
    "loss": get_args(Loss),
    "mixed_with": get_args(CommonLoss),
    "mix": get_args(Mix),
    "schedule": get_args(Schedule),
    "norm": ("instance", "batch"),
    "normalize": get_args(Normalize),
    "amp": get_args(Amp),
    "flip": get_args(Flip),
    "lr_schedule": get_args(RateSchedule),
}
_PAIRS = ("patch", "target_spacing", "pixels")
_RANGES = {
    "epochs": (1, 1 << 31), "steps_per_epoch": (1, 100_000), "batch_size": (1, 1 << 31), "features": (1, 1 << 16),
    "val_every": (1, 1 << 31), "checkpoint_every": (1, 1 << 31), "depth": (2, 16), "seed": (0, (1 << 63) - 1),
    "split_seed": (0, (1 << 63) - 1),
}  # fmt: skip
_MOST_PIXELS = 1 << 16  # of a patch, along an axis
_WHERE_ONLY = ("device",)  # changes where a run is computed, not what


@dataclass(frozen=True)
class TrainConfig:
    """What a training run does, its data apart; the keys of its TOML file are the same.

    Attributes
    ----------
    loss : {"rrw", "boundary", "ac", "hd", "skeleton", "matrix", "wce-rrw", "dice", "focal", "ce", ...}
        Or "generalized-surface" or "boundary-dou", to compare with.
    mixed_with : {"dice", "ce"}, optional
        A common loss to mix a map loss with; the key ``with`` of the TOML file.
    mix : {"equal", "gradual"}
        The sum of both, or from the common loss over to the map loss.
    schedule : {"paper", "authors"}
        Of the gradual mixture: :func:`rwtool.gradual_weight` or :func:`rwtool.authors_weight`.
    ac_lambda : float, optional
        Adds the length term to the ac loss: length + lambda * region.
    epochs : int
        Each is one pass over the training slices, unless `steps_per_epoch` says how long it is.
    steps_per_epoch : int, optional
        Batches of an epoch (nnU-Net's are 250): part of a pass over the training slices, or several passes.
    batch_size : int, optional
        Slices of a step, over all devices; 32 by default, fewer where patches are large.
    lr : float
        Of Adam at the start.
    lr_schedule : {"poly", "cosine", "constant"}
        How it falls, step by step, over the part t of the run that is done: as ``(1 - t) ** 0.9``, as half a cosine,
        or not at all.
    ema : float, optional
        Decay of an exponential moving average of the weights, such as 0.99: in each step the average moves by 1 - ema
        towards the weights, at first by more. Validations, checkpoints and predictions are those of the average.
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
    pixels : (2,) int, optional
        Pixels along ``(y, x)`` that every slice is resampled to on the way in, whatever its spacing.
    val_every : int
        Epochs between validations; the last epoch always has one.
    validate_hd : bool
        Measure HD and HD95 in every validation; without it in that of the last epoch alone.
    checkpoint_every : int, optional
        Epochs between checkpoints that are kept, beside the last and the best one.
    """

    loss: Loss = "rrw"
    mixed_with: CommonLoss | None = None
    mix: Mix = "equal"
    schedule: Schedule = "paper"
    ac_lambda: float | None = None
    epochs: int = 100
    steps_per_epoch: int | None = None
    batch_size: int | None = None
    lr: float = 2e-3
    lr_schedule: RateSchedule = "poly"
    ema: float | None = None
    patch: tuple[int, int] | None = None
    features: int = 32
    depth: int | None = None
    norm: Literal["instance", "batch"] = "batch"
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
    pixels: tuple[int, int] | None = None
    val_every: int = 5
    validate_hd: bool = False
    checkpoint_every: int | None = None

    def __post_init__(self) -> None:
        for name in _PAIRS:
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, tuple(value))
        for name, known in _CHOICES.items():
            value = getattr(self, name)
            if value not in known and not (value is None and name == "mixed_with"):
                raise UsageError(f"{name}={value!r} is not one of {', '.join(known)}")
        self._check_numbers()
        self._check_mixture()
        if self.subject is not None and any("\ud800" <= letter <= "\udfff" for letter in self.subject):
            raise UsageError(f"subject={self.subject!r} is no UTF-8 text")

    def _check_numbers(self) -> None:
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                bound = f"at least {least}" if value < least else f"at most {most}"
                raise UsageError(f"{name}={value} is not {bound}")
        if not 0 < self.lr < math.inf:
            raise UsageError(f"lr={self.lr:g} is not a positive number")
        if self.ema is not None and not 0 < self.ema < 1:
            raise UsageError(f"ema={self.ema:g} is not a number between 0 and 1, such as 0.99")
        if not 0 <= self.val < 1:
            raise UsageError(f"val={self.val:g} is not a share of the subjects, at least 0 and less than 1")
        for name in _PAIRS:
            value = getattr(self, name)
            if value is not None and (len(value) != 2 or not all(0 < side < math.inf for side in value)):
                raise UsageError(f"{name}={value} is not two positive numbers, (y, x)")
        if self.pixels is not None and self.target_spacing is not None:
            raise UsageError("pixels= and target_spacing= both say what slices are resampled to; give one of them")
        if self.patch is not None and max(self.patch) > _MOST_PIXELS:
            raise UsageError(f"patch={self.patch} is larger than {_MOST_PIXELS} pixels along an axis")

    def _check_mixture(self) -> None:
        if self.mixed_with is not None and self.loss not in MAP_OF_LOSS:
            raise UsageError(
                f"mixed_with={self.mixed_with} mixes a map loss ({', '.join(MAP_OF_LOSS)}) with Dice or cross entropy; "
                f"found loss={self.loss}"
            )
        if self.mixed_with is None and (self.mix != "equal" or self.schedule != "paper"):
            name = "mix" if self.mix != "equal" else "schedule"
            raise UsageError(
                f"{name}={getattr(self, name)} belongs to a mixture; give mixed_with=dice or mixed_with=ce too"
            )
        if self.schedule != "paper" and self.mix != "gradual":
            raise UsageError(f"schedule={self.schedule} belongs to mix=gradual; give that too")
        if self.ac_lambda is not None and self.loss != "ac":
            raise UsageError(f"ac_lambda={self.ac_lambda:g} belongs to loss=ac; found loss={self.loss}")
        if self.ac_lambda is not None and not 0 <= self.ac_lambda < math.inf:
            raise UsageError(f"ac_lambda={self.ac_lambda:g} is not a number of 0 or more")

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
        """The fields as TOML, those without a value left out; :func:`read_config` reads it."""
        named = {_NAMES.get(key, key): value for key, value in self.as_dict().items() if value is not None}
        return tomli_w.dumps(sealed({"format": _FORMAT, **named}))


_HINTS = get_type_hints(TrainConfig)
_File = msgspec.defstruct(
    "_File", [(field.name, _HINTS[field.name] | UnsetType, UNSET) for field in fields(TrainConfig)], rename=_NAMES
)


def read_config(path: Path) -> dict[str, Any]:
    """Read the settings of a TOML file: field of :class:`TrainConfig` to value.

    Raises
    ------
    UsageError
        If it cannot be read, or holds a key twice or one that is no setting, or a value of another type.
    """
    content = read_toml(path, refusal="cannot be read as TOML", mend="mend it", error=UsageError)
    whole = dict(content)
    if (form := content.pop("format", _FORMAT)) != _FORMAT:
        raise UsageError(f"{path}: its format is {form!r}, this rwtool reads {_FORMAT}; write the settings anew")
    content.pop("crc32", None)
    known = [_NAMES.get(field.name, field.name) for field in fields(TrainConfig)]
    found: dict[str, Any] = {}
    for key, value in content.items():
        name = key.replace("-", "_")
        name = _NAMES.get(name, name)
        if name not in known:
            raise UsageError(f"{path}: {key!r} is no setting; the settings are {', '.join(sorted(known))}")
        if name in found:
            raise UsageError(f"{path}: {key!r} is set twice")
        found[name] = value
    settings = to_record(found, _File, path, refusal="a setting is wrong", mend="mend it", error=UsageError)
    check_seal(whole, path, refusal="a setting is wrong", mend="restore it", error=UsageError)
    stated = {name: getattr(settings, name) for name in _HINTS}
    return {name: value for name, value in stated.items() if value is not UNSET}


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
        f"{name}={value} (it was {getattr(stored, name)})"
        for name, value in given.items()
        if name not in _WHERE_ONLY and not _is_kept(stored, name, value)
    ]
    if changed:
        raise UsageError(
            f"resume=True goes on with the settings of the run, and these differ: {', '.join(changed)}; leave them "
            "out, or start another RUN"
        )


def _is_kept(stored: TrainConfig, name: str, value: Any) -> bool:
    """Whether a given value comes to the one of a run, whose patch was rounded up and whose amp was settled."""
    kept = getattr(stored, name)
    if name == "patch" and None not in (value, kept, stored.depth):
        stride = 1 << (stored.depth - 1)  # type: ignore[operator]
        return all(0 <= side - asked < stride for side, asked in zip(kept, value, strict=True))
    return bool(value == kept or (name, value) == ("amp", "auto"))
