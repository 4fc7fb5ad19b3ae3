"""Maps of label arrays as frameworks hold them: channel first, floats or integers, axes in any order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rwtool.errors import UsageError
from rwtool.io.labels import ignored_value, round_labels
from rwtool.maps.kinds import map_in_order
from rwtool.maps.parameters import RECTIFIED, Kind, Layout, MapParameters


def settle_parameters(parameters: MapParameters | Kind, layout: Layout) -> MapParameters:
    """The parameters of a kind, which may be named alone; refuse a layout that is not for it."""
    settled = parameters if isinstance(parameters, MapParameters) else MapParameters(parameters)
    if layout not in ("dense", "packed"):
        raise UsageError(f"found layout={layout!r}; give 'dense' or 'packed'")
    if layout == "packed" and not settled.rectified:
        raise UsageError(f"layout='packed' is for {', '.join(RECTIFIED)} maps; {settled.kind} maps are dense")
    return settled


def channel_first_map(
    labels: NDArray[Any],
    spacing_mm: Sequence[float],
    n_classes: int,
    parameters: MapParameters,
    *,
    slice_axis: int = 0,
    ignore: int | None = None,
    layout: Layout = "dense",
    threads: int = 1,
) -> NDArray[np.float32]:
    """Region-wise map of a label array with one channel.

    Parameters
    ----------
    labels : (1, *spatial) array
        Class indices 0..K-1, and `ignore`: integers, or floats within 1e-3 of one. Two or three spatial axes.
    spacing_mm : (D,) float
        Along the spatial axes, in their order.
    slice_axis : int
        The spatial axis across which slices lie, for ``dims=2`` in a volume.

    Returns
    -------
    (K, *spatial), (1, *spatial) or, packed with `instances`, (2, *spatial) float32 array
        0 at ignored voxels, packed too: what is not a number would spread when the map is resampled.
    """
    if labels.ndim not in (3, 4) or labels.shape[0] != 1:
        raise UsageError(
            f"a label is (1, *spatial) with two or three spatial axes; found shape {labels.shape}; give one channel of "
            "class indices, not one-hot ones"
        )
    whole = round_labels(labels[0], ignore=ignore)
    z = map_in_order(
        whole,
        spacing_mm,
        n_classes,
        parameters,
        slice_axis=slice_axis,
        ignore=None if ignore is None else ignored_value(whole.dtype),
        layout=layout,
        threads=threads,
    )
    if layout == "dense":
        return z
    return np.nan_to_num(z if parameters.instances else z[np.newaxis], copy=False)
