"""Images of one or several channels: which files make a case, how they are read, and how they are normalised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rwtool.errors import UsageError

_CT_PERCENTILES = (0.5, 99.5)


@dataclass(frozen=True)
class Normalization:
    """How the intensities of an image become the input of a network.

    Attributes
    ----------
    kind : {"zscore", "ct", "none"}
        zscore: mean 0 and SD 1 per image and channel. ct: clipped to the 0.5 and 99.5 percentiles of the foreground of
        the training images, then less their mean and over their SD (as nnU-Net). none: as they are.
    channels : tuple of (float, float, float, float)
        For ct, by channel: lower and upper percentile, mean, SD.
    """

    kind: Literal["zscore", "ct", "none"] = "zscore"
    channels: tuple[tuple[float, float, float, float], ...] = ()

    def apply(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Normalise a (C, Z, Y, X) image, in place."""
        for index in range(len(image)):
            channel = image[index]
            if self.kind == "zscore":
                mean, sd = float(channel.mean(dtype=np.float64)), float(channel.std(dtype=np.float64))
            elif self.kind == "ct":
                low, high, mean, sd = self.channels[index]
                np.clip(channel, low, high, out=channel)
            else:
                continue
            channel -= np.float32(mean)
            channel /= np.float32(max(sd, 1e-8))
        return image

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and checkpoints."""
        return {"kind": self.kind, "channels": [list(channel) for channel in self.channels]}


def ct_normalization(samples: Sequence[NDArray[np.float32]]) -> Normalization:
    """Intensities of the foreground, ``(C, n)`` from each training image, to a normalisation."""
    pooled = np.concatenate(samples, axis=1).astype(np.float64)
    if pooled.shape[1] == 0:
        raise UsageError("normalize=ct takes its statistics from the foreground of the training images; it is empty")
    low, high = np.percentile(pooled, _CT_PERCENTILES, axis=1)
    clipped = np.clip(pooled, low[:, np.newaxis], high[:, np.newaxis])
    statistics = zip(low, high, clipped.mean(axis=1), clipped.std(axis=1), strict=True)
    return Normalization("ct", tuple(tuple(float(value) for value in values) for values in statistics))  # type: ignore[misc]
