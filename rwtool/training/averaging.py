"""The average of the weights over the steps of a training, which moves less from step to step than they do."""

from __future__ import annotations

import itertools

from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


def average_decay(decay: float, step: int) -> float:
    """Share of the average that a step leaves as it is: smaller at first, so that it forgets how the weights began.

    >>> [average_decay(0.99, step) for step in (0, 10, 10_000)]
    [0.1, 0.55, 0.99]
    """
    return min(decay, (1 + step) / (10 + step))


def move_average(averaged: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """Move the average towards the weights of a network, and towards the statistics of its batch norm, in place.

    Parameters
    ----------
    averaged, network : Module
        Of one structure, on one device.
    decay : float
    step : int
        Of the whole training, from 0 on; see :func:`average_decay`.
    """
    pairs = zip(
        itertools.chain(averaged.parameters(), averaged.buffers()),
        itertools.chain(network.parameters(), network.buffers()),
        strict=True,
    )
    means, values = [], []
    for mean, value in pairs:
        if mean.is_floating_point():
            means.append(mean.detach())
            values.append(value.detach())
        else:  # a count of batches
            mean.copy_(value)
    move = get_ema_multi_avg_fn(average_decay(decay, step))  # type: ignore[no-untyped-call]
    move(means, values, step)
