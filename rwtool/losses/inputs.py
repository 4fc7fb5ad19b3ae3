"""What goes into a loss: shapes that belong together, labels that are classes, numbers that are spacings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from rwtool.errors import UsageError

_HALF = 2**63  # of what 64 bits can hold
WHOLE = 1e-3  # how far a float may be from the whole number that it stands for, as in files


def check_logits(name: str, logits: Any) -> None:
    """Refuse what is not a batch of logits."""
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        found = logits.dtype if isinstance(logits, Tensor) else type(logits).__name__
        raise UsageError(f"{name} takes logits as a tensor of floats; found {found}; give those of a network")
    if logits.ndim < 3 or logits.shape[1] < 2 or logits.numel() == 0:
        raise UsageError(
            f"{name} takes logits of shape (B, K, *spatial), K >= 2, none of it empty; "
            f"found {tuple(logits.shape)}; give a channel for each class, and logits[None] for one image"
        )


def check_shape(name: str, tensor: Tensor, symbols: str, expected: torch.Size) -> None:
    """Refuse a tensor that does not belong to the logits."""
    if tensor.shape != expected:
        raise UsageError(
            f"{name}: expected {symbols} = {tuple(expected)}, by the logits; found {tuple(tensor.shape)}; give both "
            "of the same images"
        )


def true_class(logits: Tensor, labels: Tensor, ignore: int | None, check: bool) -> tuple[Tensor, Tensor | None]:
    """Index of each voxel's class, 0 where ignored, and which voxels are not."""
    check_shape("labels", labels, "(B, *spatial)", logits[:, 0].shape)
    if labels.is_floating_point() or labels.is_complex():
        raise UsageError(f"labels are integers; found {labels.dtype}; give labels.long()")
    whole = labels.long()  # as uint8, 255 would equal -1; uint64 from 2**63 on turns negative, as `ignore` does then
    if ignore is not None and labels.dtype == torch.uint64 and ignore >= _HALF:
        ignore -= 2 * _HALF
    kept = None if ignore is None else whole != ignore
    index = unless_ignored(whole, kept)
    if check and not torch.compiler.is_compiling():
        _refuse_no_class(index, logits.shape[1], unsigned=labels.dtype == torch.uint64)
    return index, kept


def _refuse_no_class(index: Tensor, n_classes: int, *, unsigned: bool) -> None:
    """Name the first label that is no class; the only place that reads labels on the host."""
    low, high = torch.stack(torch.aminmax(index)).tolist()
    if low >= 0 and high < n_classes:
        return
    found = low if low < 0 else high
    found += 2 * _HALF * (unsigned and found < 0)
    raise UsageError(
        f"the labels hold {found}; logits of {n_classes} classes take labels 0..{n_classes - 1}; map the labels to "
        f"them, or give ignore={found} if those voxels have no class"
    )


def class_indices(labels: Tensor, logits: Tensor, *, one_hot: bool, check: bool) -> Tensor:
    """Labels as (B, *spatial) integers.

    Parameters
    ----------
    labels : (B, *spatial) or (B, 1, *spatial) tensor
        Integers, or floats that are whole numbers; with `one_hot` (B, K, *spatial).
    logits : (B, K, *spatial) tensor
    """
    check = check and not torch.compiler.is_compiling()
    if one_hot:
        check_shape("one-hot labels", labels, "(B, K, *spatial)", logits.shape)
        hot = labels == 1
        if check and not bool(((hot.sum(dim=1) == 1) & ((labels == 0) | hot).all(dim=1)).all()):
            raise UsageError(
                "one-hot labels are 1 in the channel of the class and 0 in all others; found a voxel that is not; "
                "leave out one_hot=True if labels are values"
            )
        return hot.to(torch.uint8).argmax(dim=1)
    shape = logits[:, 0].shape
    if labels.ndim == logits.ndim and labels.shape[1] == 1:
        labels = labels.squeeze(1)
    if labels.shape != shape:
        hint = "; give one_hot=True if their channels are classes" if labels.shape == logits.shape else ""
        raise UsageError(
            f"labels are (B, *spatial) = {tuple(shape)}, by the logits, or that with a channel, (B, 1, *spatial); "
            f"found {tuple(labels.shape)}{hint}"
        )
    if not labels.is_floating_point():
        return labels
    whole = labels.round()
    if check and not bool(((labels - whole).abs() <= WHOLE).all()):
        found = labels[~((labels - whole).abs() <= WHOLE)][0].item()
        raise UsageError(f"labels are whole numbers, the index of a class; found {found:g}; resample them by nearest")
    return whole.long()


def unless_ignored(values: Tensor, kept: Tensor | None) -> Tensor:
    """0 where ignored: NaN there must reach neither the loss nor its gradient."""
    return values if kept is None else torch.where(kept, values, 0)


def positive_numbers(name: str, given: ArrayLike | Tensor) -> NDArray[np.float64]:
    """Numbers of one or of several images."""
    host = given.detach().cpu().numpy() if isinstance(given, Tensor) else given
    try:
        numbers = np.array(host, dtype=np.float64)
    except (TypeError, ValueError):
        numbers = np.zeros(0)
    if numbers.ndim not in (1, 2) or numbers.shape[-1] not in (2, 3) or not ((numbers > 0) & (numbers < np.inf)).all():
        raise UsageError(f"{name}= is a positive number for each spatial axis, two or three of them; found {given!r}")
    return numbers


def plain_tensor(name: str, tensor: Any) -> Tensor:
    """Refuse what is no tensor, and leave subclasses that carry metadata aside."""
    if not isinstance(tensor, Tensor):
        raise UsageError(f"{name} are a tensor; found {type(tensor).__name__}")
    return tensor if type(tensor) is Tensor else tensor.as_subclass(Tensor)


def spacing_of_images(steps: NDArray[np.float64], shape: Sequence[int]) -> NDArray[np.float64]:
    """Spacing of each image, (B, D), of labels of a shape (B, *spatial)."""
    wanted = (len(shape) - 1,)
    if steps.shape not in (wanted, (shape[0], *wanted)):
        raise UsageError(
            f"spacing_mm= has one number for each spatial axis of the labels, {wanted}, or such a row for each "
            f"image, {(shape[0], *wanted)}; found shape {steps.shape}"
        )
    return np.broadcast_to(steps, (shape[0], *wanted))
