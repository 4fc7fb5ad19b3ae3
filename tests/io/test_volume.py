from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
from volumes import SPACED, some_labels

from rwtool.errors import VolumeError
from rwtool.io.geometry import Geometry
from rwtool.io.volume import Header, numpy_type, one_volume, to_volume


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((4,), (4, 1, 1)),
        ((4, 5), (4, 5, 1)),
        ((4, 5, 6), (4, 5, 6)),
        ((4, 5, 6, 1), (4, 5, 6)),
        ((1, 5, 6, 1, 1), (1, 5, 6)),
    ],
)
def test_three_axes_are_made_of_fewer_and_of_more_that_are_1(shape, expected):
    assert one_volume(shape) == expected


@pytest.mark.parametrize("shape", [(4, 5, 6, 2), (4, 5, 6, 1, 2), (1, 4, 5, 6)])
def test_more_than_one_volume_is_refused(shape):
    with pytest.raises(VolumeError, match=f"expected one 3D volume; found {len(shape)} dimensions"):
        one_volume(shape)


@pytest.mark.parametrize("shape", [(), (0,), (4, 0, 6), (4, -5, 6)])
def test_nothing_is_no_volume(shape):
    with pytest.raises(VolumeError, match="the file holds no voxels"):
        one_volume(shape)


@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 2, 0), (2, 1, 0)])
def test_a_volume_has_the_axes_and_the_notes_of_its_header(axes):
    stored = some_labels()
    geometry = Geometry(SPACED, stored.shape, axes, stored.shape)
    volume = to_volume(Header(geometry, stored.dtype, ("odd",)), stored)
    assert np.array_equal(volume.array, stored.transpose(axes))
    assert volume.spacing_mm == geometry.spacing_mm
    assert (volume.notes, volume.ignored) == (("odd",), None)


@pytest.mark.parametrize(
    ("kind", "dtype"), [(sitk.sitkInt16, "i2"), (sitk.sitkVectorFloat32, "f4"), (sitk.sitkUInt8, "u1")]
)
def test_the_type_of_an_image_takes_no_memory_for_its_channels(kind, dtype):
    reader = SimpleNamespace(GetPixelID=lambda: kind)  # that is not asked how many there are
    assert numpy_type(reader) == np.dtype(dtype)
