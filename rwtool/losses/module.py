"""The region-wise loss as a module: it makes the maps that it needs from the labels of each batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from rwtool.errors import UsageError
from rwtool.losses.functional import (
    cross_entropy_loss,
    dice_loss,
    hausdorff_loss,
    packed_region_wise_loss,
    region_wise_loss,
)
from rwtool.losses.inputs import (
    check_logits,
    class_indices,
    plain_tensor,
    positive_numbers,
    spacing_of_images,
    true_class,
)
from rwtool.losses.mixing import authors_weight, gradual_weight, mix_losses
from rwtool.maps.kinds import map_in_order
from rwtool.maps.parameters import (
    KINDS,
    RECTIFIED,
    Absent,
    Convention,
    Kind,
    Layout,
    Profile,
    Units,
    check_classes,
    choose_parameters,
)

Common = Literal["dice", "ce"]
Mix = Literal["equal", "gradual"]
Schedule = Literal["paper", "authors"]
Reduction = Literal["mean", "sum", "none"]

_COMMON = {"dice": dice_loss, "ce": cross_entropy_loss}


class RegionWiseLoss(nn.Module):
    """Region-wise loss of a batch: ``loss(logits, labels)``.

    The maps are made from the labels, on the host and outside any compiled graph; ``loss(logits, labels, maps)`` takes
    maps that are there already. The module has no parameters and an empty state.

    Parameters
    ----------
    kind : {"rrw", "boundary", "ac", "hd", "constant", "matrix", "skeleton"}
    spacing_mm : (D,) or (B, D) float, or None
        Size of a voxel along each of the D spatial axes of the labels, in their order, of all images or of each one.
        None where each call gives it, or where no distance is taken in mm.
    shape : (D,) int, optional
        Shape of the labels that `spacing_mm` is of. Smaller labels are then taken for coarser ones of the same field
        of view (levels of deep supervision), and their spacing along an axis is ``spacing_mm * shape / their shape``.
        Without it, `spacing_mm` is that of any labels.
    convention, units, dims, alpha, beta, profile, sigma, instances, matrix, absent
        As the attributes of :class:`rwtool.MapParameters`; one that means nothing to the kind is refused.
    slice_axis : int
        The spatial axis across which slices lie, for ``dims=2`` in volumes.
    class_weights : dict of int to float, optional
        Class index to the factor on the other-class value at its voxels (ac, constant, rrw).
    ignore : int, optional
        Label value of voxels without a class.
    mixed_with : {"dice", "ce"}, optional
        A common loss to mix the map loss with.
    mix : {"equal", "gradual"}
        The sum of both, or from the common loss over to the map loss, by the attribute `epoch`.
    schedule : {"paper", "authors"}
        Of the gradual mixture: :func:`rwtool.gradual_weight`, which needs `epochs`, or :func:`rwtool.authors_weight`.
    epochs : int, optional
        How many there will be.
    reduction : {"mean", "sum", "none"}
        Mean of the losses of the images, their sum, or ``(B,)``, each by itself.
    layout : {"dense", "packed"}
        Of maps that are given: ``(B, K, *spatial)``, or own values ``(B, *spatial)`` or ``(B, 1, *spatial)``, with
        `instances` own and other values ``(B, 2, *spatial)``.
    map_in_labels : bool
        The map stands behind the label in one float tensor, ``(B, 1 + K, *spatial)``, or ``(B, 2, *spatial)`` if
        packed (with `instances` ``(B, 3, *spatial)``): for frameworks that hand over one target.
    one_hot : bool
        Labels are ``(B, K, *spatial)``, 1 in the channel of the class and 0 in the others.
    sigmoid : bool
        Logits have one channel, that of the foreground: x is taken for the two channels (0, x), whose softmax is
        ``(1 - sigmoid(x), sigmoid(x))``.
    check : bool
        Refuse labels that are no class. The device is awaited for it, and for maps that are made.
    threads : int, optional
        Of the distance transforms; by default those of torch.

    Raises
    ------
    UsageError
        The options do not fit together; when called, shapes do not, a label is no class, or a spacing is missing.

    Examples
    --------
    >>> loss = RegionWiseLoss(spacing_mm=(1.0, 1.0))
    >>> labels = torch.tensor([[[0, 0, 0, 1]]])  # (B, Y, X); own values -1, -2/3, -1/3 and -1
    >>> round(loss(torch.zeros(1, 2, 1, 4), labels).item(), 4)  # 1/(N K) sum of (1 + own) / 2
    0.0625
    """

    _weight: Tensor

    def __init__(
        self,
        kind: Kind = "rrw",
        *,
        spacing_mm: ArrayLike | Tensor | None,
        shape: Sequence[int] | None = None,
        convention: Convention | None = None,
        units: Units | None = None,
        dims: int | None = None,
        slice_axis: int = 0,
        alpha: float | None = None,
        beta: float | None = None,
        profile: Profile | None = None,
        sigma: float | None = None,
        instances: bool = False,
        matrix: Sequence[Sequence[float]] | None = None,
        class_weights: Mapping[int, float] | None = None,
        absent: Absent | None = None,
        ignore: int | None = None,
        mixed_with: Common | None = None,
        mix: Mix = "equal",
        schedule: Schedule = "paper",
        epochs: int | None = None,
        reduction: Reduction = "mean",
        layout: Layout = "dense",
        map_in_labels: bool = False,
        one_hot: bool = False,
        sigmoid: bool = False,
        check: bool = True,
        threads: int | None = None,
    ) -> None:
        super().__init__()
        _refuse_unknown("kind", kind, KINDS)
        for name, value, known in (
            ("mixed_with", mixed_with, (*get_args(Common), None)),
            ("mix", mix, get_args(Mix)),
            ("schedule", schedule, get_args(Schedule)),
            ("reduction", reduction, get_args(Reduction)),
            ("layout", layout, get_args(Layout)),
        ):
            _refuse_unknown(name, value, known)
        given = {
            "convention": convention,
            "units": units,
            "dims": dims,
            "alpha": alpha,
            "beta": beta,
            "profile": profile,
            "sigma": sigma,
            "instances": instances or None,
            "matrix": matrix,
            "class_weights": class_weights or None,
            "absent": absent,
        }
        (self.map_parameters,) = choose_parameters(
            (kind,), {k: value for k, value in given.items() if value is not None}
        )
        if layout == "packed" and not self.map_parameters.rectified:
            raise UsageError(f"layout=packed is for {', '.join(RECTIFIED)} maps; {kind} maps are dense")
        if one_hot and (ignore is not None or map_in_labels):
            other = "map_in_labels=True" if map_in_labels else f"ignore={ignore}"
            raise UsageError(f"{other} needs labels that are values; one_hot=True has a channel for each class instead")
        _refuse_unknown("slice_axis", slice_axis, (0, 1, 2))
        if slice_axis and self.map_parameters.dims != 2:
            raise UsageError(f"slice_axis={slice_axis} is the axis across slices of dims=2; give that too")
        self.spacing_mm = None if spacing_mm is None else positive_numbers("spacing_mm", spacing_mm)
        self.shape = None if shape is None else tuple(positive_numbers("shape", shape).ravel().astype(int).tolist())
        self.slice_axis, self.ignore = slice_axis, ignore
        self.mixed_with, self.mix, self.schedule, self.epochs = mixed_with, mix, schedule, epochs
        self.reduction, self.layout, self.map_in_labels = reduction, layout, map_in_labels
        self.one_hot, self.sigmoid, self.check, self.threads = one_hot, sigmoid, check, threads
        self._check_mixture()
        known_classes = _class_indices(self.map_parameters.class_weights)
        # the last is the value of every further class
        self._others = (
            self.map_parameters.other_values(known_classes + 1).tolist() if self.map_parameters.rectified else []
        )
        # a tensor, so that a compiled graph is not made anew in each epoch
        self.register_buffer("_weight", torch.ones(()), persistent=False)
        self._epoch = 0

    def _check_mixture(self) -> None:
        if self.mixed_with is None and (self.mix, self.schedule, self.epochs) != ("equal", "paper", None):
            raise UsageError(
                "mix=, schedule= and epochs= belong to a mixture; give mixed_with=dice or mixed_with=ce too"
            )
        if self.mix != "gradual" and (self.schedule, self.epochs) != ("paper", None):
            raise UsageError("schedule= and epochs= belong to mix=gradual; give that too")
        if self.mix == "gradual" and (self.schedule == "paper") != (self.epochs is not None):
            raise UsageError(
                "mix=gradual goes from the common loss to the map loss in epochs= epochs (schedule=paper), or in 100 "
                "whatever their number (schedule=authors); give one of the two"
            )

    @property
    def epoch(self) -> int:
        """Epoch, from 0, that the weight of a gradual mixture is of: to be set when one begins."""
        return self._epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        if self.mix == "gradual":
            weight = authors_weight(epoch) if self.epochs is None else gradual_weight(epoch, self.epochs)
            self._weight.fill_(weight)
        self._epoch = epoch

    def extra_repr(self) -> str:
        """The settings that the loss prints."""
        spacing = None if self.spacing_mm is None else self.spacing_mm.tolist()
        mixture = "" if self.mixed_with is None else f", mixed_with={self.mixed_with}, mix={self.mix}"
        return f"kind={self.map_parameters.kind}, spacing_mm={spacing}{mixture}, reduction={self.reduction}"

    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        maps: Tensor | None = None,
        *,
        spacing_mm: ArrayLike | Tensor | None = None,
    ) -> Tensor:
        """Loss of a batch.

        Parameters
        ----------
        logits : (B, K, *spatial) tensor
            With `sigmoid` (B, 1, *spatial); two or three spatial axes.
        labels : (B, *spatial) or (B, 1, *spatial) tensor
            Class indices 0..K-1, and `ignore`: integers, or floats that are whole numbers. With `one_hot` (B, K,
            *spatial), with `map_in_labels` followed by the channels of the map.
        maps : (B, K, *spatial) tensor, or own values as `layout` says, optional
            Without them they are made.
        spacing_mm : (D,) or (B, D) float, optional
            In place of that of the loss.

        Returns
        -------
        scalar tensor, or (B,) tensor with ``reduction="none"``
        """
        logits = self._logits(plain_tensor("logits", logits))
        labels = plain_tensor("labels", labels)
        if self.map_in_labels:
            labels, maps = self._split(labels, maps)
        labels = class_indices(labels, logits, one_hot=self.one_hot, check=self.check)
        true_class(logits, labels, self.ignore, self.check)  # before distances are measured to what is no class
        packed = self.layout == "packed"
        if maps is None:
            packed = self.map_parameters.rectified
            check_classes(self.map_parameters, logits.shape[1])
            z = self._made(labels, logits, spacing_mm)
        else:
            z = plain_tensor("maps", maps)
            if packed:
                z = self._packed(z, logits)
        if self.reduction == "mean":
            return self._mean(logits, labels, z, packed)
        images = (slice(b, b + 1) for b in range(len(logits)))
        losses = torch.stack([self._mean(logits[b], labels[b], z[b], packed) for b in images])
        return losses.sum() if self.reduction == "sum" else losses

    def _mean(self, logits: Tensor, labels: Tensor, z: Tensor, packed: bool) -> Tensor:
        """Mean over images."""
        if packed:
            others = self._other_values(logits.shape[1])
            loss = packed_region_wise_loss(logits, z, labels, others, ignore=self.ignore, check=False)
        elif self.map_parameters.kind == "hd":
            loss = hausdorff_loss(logits, z, labels, ignore=self.ignore, check=False)
        else:
            loss = region_wise_loss(logits, z, labels, ignore=self.ignore, check=False)
        if self.mixed_with is None:
            return loss
        common = _COMMON[self.mixed_with](logits, labels, ignore=self.ignore, check=False)
        return mix_losses(common, loss, self._weight if self.mix == "gradual" else None)

    def _logits(self, logits: Tensor) -> Tensor:
        """Logits of all classes."""
        if logits.ndim not in (4, 5):
            raise UsageError(
                f"logits are (B, K, Y, X) or (B, K, Z, Y, X), K the classes; found shape {tuple(logits.shape)}; give "
                "logits[None] for one image"
            )
        if self.sigmoid:
            if logits.shape[1] != 1:
                raise UsageError(
                    f"with sigmoid=True logits have one channel, that of the foreground: (B, 1, *spatial); found "
                    f"{tuple(logits.shape)}; leave it out where each class has its channel"
                )
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
        elif logits.shape[1] == 1:
            raise UsageError(
                f"logits of shape {tuple(logits.shape)} have one channel; give sigmoid=True if it is that of the "
                "foreground against the background, or logits of all classes, the background first"
            )
        check_logits("RegionWiseLoss", logits)
        return logits

    def _packed(self, z: Tensor, logits: Tensor) -> Tensor:
        """Own values, (B, *spatial), or own and other values, (B, 2, *spatial)."""
        wanted = self.map_parameters.packed_channels
        channels = z.shape[1] if z.ndim == logits.ndim else 1
        if channels != wanted:
            raise UsageError(
                f"with instances={self.map_parameters.instances} packed maps hold {wanted} of own and other value; "
                f"found maps of shape {tuple(z.shape)}; give those of the same instances="
            )
        return z.squeeze(1) if wanted == 1 and z.ndim == logits.ndim else z

    def _split(self, labels: Tensor, maps: Tensor | None) -> tuple[Tensor, Tensor]:
        """Label and map of a tensor that holds both."""
        if maps is not None:
            raise UsageError("with map_in_labels=True the labels hold the maps; found maps besides")
        if labels.ndim not in (4, 5) or labels.shape[1] < 2:
            raise UsageError(
                "with map_in_labels=True labels are (B, 1 + C, *spatial): the label and the C channels of its map; "
                f"found shape {tuple(labels.shape)}"
            )
        return labels[:, :1], labels[:, 1:]

    def _made(self, labels: Tensor, logits: Tensor, spacing_mm: ArrayLike | Tensor | None) -> Tensor:
        """The map of a batch: own values of a rectified kind, all channels of another."""
        parameters = self.map_parameters
        if parameters.matrix is not None:
            index, _ = true_class(logits, labels, self.ignore, check=False)
            columns = torch.tensor(parameters.matrix, dtype=torch.float32, device=logits.device).T
            return columns[index].movedim(-1, 1)
        if parameters.follows_labels:
            return logits.new_full((), -(parameters.beta or 0.0), dtype=torch.float32).expand(labels.shape)
        return self._measured(labels, logits.shape[1], spacing_mm).to(logits.device)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _measured(self, labels: Tensor, n_classes: int, spacing_mm: ArrayLike | Tensor | None) -> Tensor:
        images = labels.detach().cpu().numpy()
        steps = self._spacing(images.shape, spacing_mm)
        layout: Layout = "packed" if self.map_parameters.rectified else "dense"
        threads = torch.get_num_threads() if self.threads is None else self.threads
        made = [
            map_in_order(
                image,
                step,
                n_classes,
                self.map_parameters,
                slice_axis=self.slice_axis,
                ignore=self.ignore,
                layout=layout,
                threads=threads,
            )
            for image, step in zip(images, steps, strict=True)
        ]
        return torch.from_numpy(np.stack(made))

    def _spacing(self, shape: tuple[int, ...], given: ArrayLike | Tensor | None) -> NDArray[np.float64]:
        """Spacing of each image, (B, D), of labels of a shape (B, *spatial)."""
        spatial = shape[1:]
        if self.map_parameters.units == "voxel" or not self.map_parameters.uses_distance:
            return np.ones((shape[0], len(spatial)))
        steps = self.spacing_mm if given is None else positive_numbers("spacing_mm", given)
        if steps is None:
            raise UsageError("the loss was made with spacing_mm=None; give spacing_mm= to this call, or maps")
        steps = spacing_of_images(steps, shape)
        if self.shape is None:
            return steps
        if len(self.shape) != len(spatial) or any(n > full for n, full in zip(spatial, self.shape, strict=True)):
            raise UsageError(
                f"spacing_mm= is that of labels of shape={self.shape}, and of coarser ones of the same field of "
                f"view; found {spatial}; make another loss for labels of other fields"
            )
        return steps * np.divide(self.shape, spatial)

    def _other_values(self, n_classes: int) -> list[float]:
        """The other value by class."""
        *known, rest = self._others
        if len(known) > n_classes:
            raise UsageError(
                f"class_weights= names class {len(known) - 1}; logits of {n_classes} classes have 0..{n_classes - 1}"
            )
        return known + [rest] * (n_classes - len(known))


def _refuse_unknown(name: str, value: object, known: Sequence[object]) -> None:
    if value not in known:
        names = ", ".join(str(one) for one in known if one is not None)
        raise UsageError(f"{name}= is one of {names}; found {value!r}")


def _class_indices(class_weights: Mapping[Any, float]) -> int:
    """How many classes the weights reach to."""
    for k in class_weights:
        if not isinstance(k, int) or k < 0:
            raise UsageError(f"class_weights= takes class indices from 0 to factors; found {k!r}")
    return max(class_weights, default=-1) + 1
