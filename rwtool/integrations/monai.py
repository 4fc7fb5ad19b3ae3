"""For MONAI: a dictionary transform that makes the map of a label."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from rwtool.errors import UsageError
from rwtool.integrations.channels import channel_first_map, settle_parameters
from rwtool.io.geometry import check_affine
from rwtool.maps.parameters import Kind, Layout, MapParameters

try:
    from monai.config import KeysCollection
    from monai.data.meta_tensor import MetaTensor
    from monai.transforms import MapTransform
    from monai.utils import convert_to_dst_type, ensure_tuple
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("rwtool.integrations.monai needs MONAI: pip install 'rwtool[monai]'") from error


class RegionWiseMapd(MapTransform):
    """Add the region-wise map of a label to the dictionary, with the label's affine.

    It is deterministic and can be pickled: before the first random transform, `CacheDataset` and `PersistentDataset`
    keep the map.

    Parameters
    ----------
    keys : str or sequence of str
        Labels, ``(1, *spatial)``, class indices 0..K-1 and `ignore`.
    map_keys : str or sequence of str
        Where the maps go, one for each key.
    n_classes : int
        K.
    parameters : MapParameters or {"rrw", "boundary", "ac", "hd", "constant", "skeleton"}
        What the map is; a kind alone has the defaults of :class:`rwtool.MapParameters`.
    layout : {"dense", "packed"}
        ``(K, *spatial)``, or own values ``(1, *spatial)``, with `instances` own and other values ``(2, *spatial)``.
    ignore : int, optional
        Label value without a class; the map is 0 there.
    spacing_mm : (D,) float, optional
        Of labels that are no MetaTensor; the others have that of their affine.
    slice_axis : int
        The spatial axis across which slices lie, for ``dims=2`` in a volume; the last one of what LoadImaged reads.
    threads : int
        Of the distance transforms.
    allow_missing_keys : bool

    Raises
    ------
    UsageError
        A label has no spacing or more than one channel; the options do not fit together.
    VolumeError
        A label is no class, or not a whole number.
    GeometryError
        The affine is sheared.
    """

    def __init__(
        self,
        keys: KeysCollection,
        map_keys: KeysCollection = "map",
        *,
        n_classes: int,
        parameters: MapParameters | Kind = "rrw",
        layout: Layout = "dense",
        ignore: int | None = None,
        spacing_mm: Sequence[float] | None = None,
        slice_axis: int = 0,
        threads: int = 1,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.map_keys = ensure_tuple(map_keys)
        if len(self.map_keys) != len(self.keys):
            raise UsageError(f"map_keys= names one map for each of {len(self.keys)} keys; found {self.map_keys}")
        self.parameters = settle_parameters(parameters, layout)
        self.n_classes, self.layout, self.ignore = n_classes, layout, ignore
        self.spacing_mm, self.slice_axis, self.threads = spacing_mm, slice_axis, threads

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The dictionary with the maps."""
        result = dict(data)
        for key, map_key in self.key_iterator(result, self.map_keys):
            label = result[key]
            array = label.detach().cpu().numpy() if hasattr(label, "detach") else np.asarray(label)
            z = channel_first_map(
                array,
                self._spacing(key, label),
                self.n_classes,
                self.parameters,
                slice_axis=self.slice_axis,
                ignore=self.ignore,
                layout=self.layout,
                threads=self.threads,
            )
            result[map_key] = convert_to_dst_type(z, label, dtype=np.float32)[0]
        return result

    def _spacing(self, key: Hashable, label: Any) -> tuple[float, ...]:
        given = None if self.spacing_mm is None else tuple(map(float, self.spacing_mm))
        if not isinstance(label, MetaTensor):
            if given is None:
                raise UsageError(
                    f"{key!r} is no MetaTensor, so it has no affine; give spacing_mm=, or load it by LoadImaged"
                )
            return given
        affine = np.asarray(label.affine, dtype=np.float64)
        axes = label.ndim - 1
        if axes == 3:
            check_affine(affine)
        found = tuple(np.sqrt((affine[:-1, :axes] ** 2).sum(axis=0)).tolist())
        if given is not None and not (len(given) == len(found) and np.allclose(given, found, rtol=1e-2)):
            raise UsageError(
                f"{key!r} has the spacing {tuple(round(mm, 4) for mm in found)} by its affine; found "
                f"spacing_mm={given}, which is for labels without one; leave it out"
            )
        return found
