"""Stored maps of a preprocessed data set: found, checked against its labels, and handed to nnU-Net's loader."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rwtool.datasets.plan import plan_dataset
from rwtool.errors import UsageError, VolumeError, shorten
from rwtool.files import naming
from rwtool.integrations.nnunet.names import TrainerSettings
from rwtool.io.formats import map_array
from rwtool.io.names import READ_ERRORS
from rwtool.maps.folder import MapSet, check_written, read_map_set
from rwtool.maps.settings import difference, make_settings

VARIABLE = "RWTOOL_NNUNET_MAPS"
"""Environment variable that names the folder of all stored maps, ``DATASET/CONFIGURATION_FOLDER/KIND`` inside it."""


def stored_maps(folder: str | Path, settings: TrainerSettings, cases: Sequence[str]) -> MapSet:
    """The maps of a configuration of a preprocessed data set.

    Parameters
    ----------
    folder : path
        Of the configuration: ``nnUNet_preprocessed/DATASET/PLANS_CONFIGURATION``.
    settings : TrainerSettings
    cases : sequence of str
        Those that need a map.

    Raises
    ------
    UsageError
        The variable is not set, there are no maps, or they are of other settings, labels or spacing; the message has
        the command that makes them.
    """
    folder = Path(folder)
    root = os.environ.get(VARIABLE)
    if not root:
        raise UsageError(
            f"{settings.name} takes stored maps, and {VARIABLE} does not say where; export {VARIABLE}=FOLDER, then run "
            f"{_command(folder, f'${VARIABLE}', settings)}"
        )
    parameters = settings.map_parameters
    assert parameters is not None
    place = Path(root) / folder.parent.name / folder.name / parameters.kind
    mend = f"run {_command(folder, root, settings)}"
    maps = read_map_set(place)
    if maps is None:
        raise UsageError(f"{place}: no maps there, which {settings.name} is to take; {mend}")
    files = {case: folder / f"{case}_seg.b2nd" for case in cases}
    if missing := [case for case, path in files.items() if not path.is_file()]:
        raise UsageError(
            f"{folder}: no .b2nd label file of {shorten(missing)}; preprocess the data set by nnU-Net 2.6 or later"
        )
    dataset = plan_dataset(files, jobs=1, verbosity=-1)
    storage = maps.settings.storage
    wanted = make_settings(parameters, storage, dataset.classes)
    changed = difference(maps.settings, wanted)
    layout = "packed" if wanted.parameters.rectified else "dense"
    if storage.format not in ("npy", "b2nd"):
        changed.append(f"storage.format: {storage.format!r} and 'npy' or 'b2nd'")
    if storage.layout != layout:
        changed.append(f"storage.layout: {storage.layout!r} and {layout!r}")
    if changed:
        raise UsageError(
            f"{place}: its maps are not those of {settings.name}: {'; '.join(changed)}; {mend} --overwrite"
        )
    wrong = [case for case in files if case not in dataset.files or not maps.is_done(case, dataset.files[case])]
    if wrong:
        raise UsageError(
            f"{place}: the maps of {shorten(wrong)} are missing, were changed, or are of other labels or of another "
            f"spacing than {folder}; {mend}"
        )
    return maps


def _command(folder: Path, root: str, settings: TrainerSettings) -> str:
    return f"rwtool maps {folder} {Path(root) / folder.parent.name / folder.name} {settings.map_options}"


class MappedDataset:
    """nnU-Net's data set, whose images have the magnitudes of a stored map as last channels.

    Parameters
    ----------
    dataset : nnU-Net's data set
    maps : MapSet
    """

    def __init__(self, dataset: Any, maps: MapSet) -> None:
        self.dataset = dataset
        self.identifiers = dataset.identifiers
        self.paths = {case: maps.path(case) for case in dataset.identifiers}
        self._unchecked = {case: maps.cases[case] for case in dataset.identifiers}

    def load_case(self, identifier: str) -> tuple[Any, Any, Any, Any]:
        """Image and map as one, then what nnU-Net's own data set gives."""
        image, *others = self.dataset.load_case(identifier)
        path = self.paths[identifier]
        if identifier in self._unchecked:  # once, not in each batch
            check_written(path, self._unchecked[identifier])
            del self._unchecked[identifier]
        with naming(path, *READ_ERRORS):
            values = map_array(path)
        if values.shape[-3:] != tuple(image.shape[1:]):
            raise VolumeError(
                f"{path}: found a map of {values.shape[-3:]} voxels for {tuple(image.shape[1:])}; make it again"
            )
        return (ImageAndMap(image, values), *others)

    def __getitem__(self, identifier: str) -> tuple[Any, Any, Any, Any]:
        return self.load_case(identifier)


class ImageAndMap:
    """Channels of an image and magnitudes of a map, read from their files where a patch is cut out.

    It is what nnU-Net asks of an image: `shape`, `dtype` and pieces by slices.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, image: Any, values: Any) -> None:
        self.image, self.values = image, values
        self.shape = (image.shape[0] + math.prod(values.shape[:-3]), *image.shape[1:])

    def __getitem__(self, where: tuple[slice, ...]) -> NDArray[np.float32]:
        assert where[0] == slice(None), "all channels are cut out together"
        image = np.asarray(self.image[where], dtype=np.float32)
        values = self.values[where if len(self.values.shape) == 4 else where[1:]]
        magnitudes = np.abs(np.asarray(values, dtype=np.float32).reshape(-1, *image.shape[1:]))
        # where voxels are ignored a packed map is not a number, which would spread when it is resampled
        return np.concatenate((image, np.nan_to_num(magnitudes, copy=False)))
