"""Mixtures of a Dice or cross-entropy loss with a map loss, and how their weight runs with the epochs."""

from __future__ import annotations

from torch import Tensor

from rwtool.errors import UsageError


def mix_losses(common: Tensor, map_loss: Tensor, weight: float | Tensor | None = None) -> Tensor:
    """Mixture of a Dice or cross-entropy loss A with a map loss B: ``A + B``, or ``weight A + (1 - weight) B``.

    Parameters
    ----------
    common, map_loss : scalar tensor
        A and B.
    weight : float or scalar tensor, optional
        That of A, from :func:`gradual_weight` or :func:`authors_weight`; without it the two are added (`equal`).
    """
    return common + map_loss if weight is None else weight * common + (1 - weight) * map_loss


def gradual_weight(epoch: int, epochs: int) -> float:
    """Weight of the common loss in epoch 0..epochs-1: from 1 to 0.01 in equal steps (Section 4.4).

    Examples
    --------
    >>> [round(gradual_weight(epoch, 3), 3) for epoch in range(3)]
    [1.0, 0.505, 0.01]
    """
    if not 0 <= epoch < epochs:
        raise UsageError(f"found epoch={epoch} of epochs={epochs}; give one from 0 to epochs - 1")
    return 1 - 0.99 * epoch / max(epochs - 1, 1)


def authors_weight(epoch: int) -> float:
    """Weight of the common loss in the authors' code, for any number of epochs: ``max((100 - epoch) / 100, 0.01)``."""
    if epoch < 0:
        raise UsageError(f"found epoch={epoch}; give one from 0 on")
    return max((100 - epoch) / 100, 0.01)
