"""For TorchIO 1: a transform that makes the map of a label."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from rwtool.errors import UsageError
from rwtool.integrations.channels import channel_first_map, settle_parameters
from rwtool.io.geometry import check_affine
from rwtool.maps.parameters import Kind, Layout, MapParameters

try:
    import torchio
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("rwtool.integrations.torchio needs TorchIO: pip install 'rwtool[torchio]'") from error


class RegionWiseMap(torchio.transforms.Transform):
    """Add the region-wise map of a label to the subject; to be the last transform of a `Compose`.

    There the label has been augmented already, and it is whole: a `Queue` crops afterwards, map and label alike.

    Parameters
    ----------
    label : str
        Name of the label in the subject: class indices 0..K-1, and `ignore`.
    map_name : str
        Name of the map, an image of type ``"map"`` with the label's affine.
    n_classes : int
        K.
    parameters : MapParameters or {"rrw", "boundary", "ac", "hd", "constant", "skeleton"}
        What the map is; a kind alone has the defaults of :class:`rwtool.MapParameters`.
    layout : {"dense", "packed"}
        K channels, or one with the own values, with `instances` two, own and other.
    ignore : int, optional
        Label value without a class; the map is 0 there.
    slice_axis : int
        The spatial axis across which slices lie, for ``dims=2``.
    threads : int
        Of the distance transforms.
    **base
        Of every TorchIO transform.

    Raises
    ------
    UsageError
        The subject has no such label, or one of several channels; the options do not fit together.
    VolumeError
        A label is no class, or not a whole number.
    GeometryError
        The affine is sheared.
    """

    def __init__(
        self,
        label: str = "label",
        map_name: str = "map",
        *,
        n_classes: int,
        parameters: MapParameters | Kind = "rrw",
        layout: Layout = "dense",
        ignore: int | None = None,
        slice_axis: int = 2,
        threads: int = 1,
        **base: Any,
    ) -> None:
        super().__init__(**base)
        self.label, self.map_name, self.n_classes = label, map_name, n_classes
        self.parameters, self.layout, self.ignore = settle_parameters(parameters, layout), layout, ignore
        self.slice_axis, self.threads = slice_axis, threads
        # what makes it again, for the history of a subject
        self.args_names = [
            "label", "map_name", "n_classes", "parameters", "layout", "ignore", "slice_axis", "threads",
        ]  # fmt: skip

    def apply_transform(self, subject: torchio.Subject) -> torchio.Subject:
        """The subject with the map."""
        if self.label not in subject.get_images_names():
            names = ", ".join(subject.get_images_names())
            raise UsageError(f"the subject has no image {self.label!r}; found {names}; give label= one of them")
        image = subject[self.label]
        check_affine(np.asarray(image.affine, dtype=np.float64))
        with np.errstate(divide="warn", over="warn", invalid="warn"):  # transforms run where any of them raises
            z = channel_first_map(
                image.data.numpy(),
                image.spacing,
                self.n_classes,
                self.parameters,
                slice_axis=self.slice_axis,
                ignore=self.ignore,
                layout=self.layout,
                threads=self.threads,
            )
        # of a type of its own: intensity transforms leave it alone, should any follow
        subject.add_image(torchio.Image(tensor=torch.from_numpy(z), affine=image.affine, type="map"), self.map_name)
        return subject
