import locale
import struct

import numpy as np
import pytest
import SimpleITK as sitk
from volumes import some_labels

from rwtool.errors import RwtoolError, UsageError, VolumeError
from rwtool.io.formats import read_image_channels, read_labels
from rwtool.io.itk import to_sitk

LABELS = some_labels((6, 5, 4))
VTK = (
    "# vtk DataFile Version 3.0\nx\nBINARY\nDATASET STRUCTURED_POINTS\nDIMENSIONS 6 5 4\n{spacing}ORIGIN 1 2 3\n"
    "POINT_DATA 120\nSCALARS s unsigned_char {channels}\nLOOKUP_TABLE default\n"
)


def vtk(path, data=None, *, spacing="SPACING 0.5 0.9 3\n", channels=1, ascii_=False):
    text = VTK.format(spacing=spacing, channels=channels)
    data = LABELS.tobytes(order="F") if data is None else data
    path.write_bytes(text.replace("BINARY", "ASCII" if ascii_ else "BINARY").encode() + data)
    return path


@pytest.mark.parametrize("key", ["SPACING", "ASPECT_RATIO", "spacing"])
def test_vtk_has_a_spacing_and_no_orientation(tmp_path, key):
    volume = read_labels(vtk(tmp_path / "a.vtk", spacing=f"{key} 0.5 0.9 3\n"))
    assert (volume.geometry.to_file(volume.array) == LABELS).all()
    assert volume.spacing_mm == pytest.approx((3, 0.9, 0.5))
    assert not volume.geometry.placed


def test_vtk_without_a_spacing_is_asked_for_one(tmp_path):
    path = vtk(tmp_path / "a.vtk", spacing="")
    with pytest.raises(UsageError, match="the header carries no spacing"):
        read_labels(path)
    assert read_labels(path, spacing_mm=(3, 2, 1)).spacing_mm == (3, 2, 1)


def test_a_damaged_file_leaves_the_locale_as_it_was(tmp_path):
    """ITK reads in that of C, in which Python would read other text files as ASCII from then on."""
    before = locale.setlocale(locale.LC_ALL)
    if before == "C":
        pytest.skip("the locale is that of C anyway")
    whole = vtk(tmp_path / "a.vtk")
    whole.write_bytes(whole.read_bytes()[:-1])
    with pytest.raises(VolumeError):
        read_labels(whole)
    assert locale.setlocale(locale.LC_ALL) == before


def test_vtk_as_text_must_hold_all_its_numbers(tmp_path):
    words = " ".join(map(str, LABELS.ravel(order="F"))).encode()
    volume = read_labels(vtk(tmp_path / "a.vtk", words, ascii_=True))
    assert (volume.geometry.to_file(volume.array) == LABELS).all()
    with pytest.raises(VolumeError, match="the header claims 120 numbers; the file ends after 119"):
        read_labels(vtk(tmp_path / "b.vtk", words.rsplit(b" ", 1)[0], ascii_=True))


def test_channels_of_a_vtk_image(tmp_path):
    image = np.arange(3 * 120, dtype=np.uint8).reshape(3, 6, 5, 4)
    found = list(read_image_channels(vtk(tmp_path / "a.vtk", image.tobytes(order="F"), channels=3)))
    assert np.array_equal([volume.geometry.to_file(volume.array) for volume in found], image)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("STRUCTURED_POINTS", "POLYDATA"),
        ("DIMENSIONS 6 5 4", "DIMENSIONS 6 5"),
        ("DIMENSIONS 6 5 4", "DIMENSIONS 0 5 4"),
    ],
)
def test_vtk_of_something_else_is_refused_in_words(tmp_path, old, new):
    path = vtk(tmp_path / "a.vtk")
    path.write_bytes(path.read_bytes().replace(old.encode(), new.encode()))
    with pytest.raises(VolumeError, match=r"this VTK file holds no volume|states no DIMENSIONS"):
        read_labels(path)


@pytest.mark.parametrize("suffix", [".gipl", ".gipl.gz"])
def test_gipl_is_read_and_one_that_is_none_refused(tmp_path, suffix):
    image = sitk.GetImageFromArray(LABELS.T.copy())
    image.SetSpacing((0.5, 0.9, 3))
    path = tmp_path / f"a{suffix}"
    sitk.WriteImage(image, str(path))
    volume = read_labels(path)
    assert (volume.geometry.to_file(volume.array) == LABELS).all()
    assert volume.spacing_mm == pytest.approx((3, 0.9, 0.5))
    assert not volume.geometry.placed
    (tmp_path / "b.gipl").write_bytes(bytes(1000))
    with pytest.raises(VolumeError, match="this is not a GIPL file"):
        read_labels(tmp_path / "b.gipl")


def test_an_image_of_simpleitk_has_the_axes_of_the_file(tmp_path):
    volume = read_labels(vtk(tmp_path / "a.vtk"))
    image = to_sitk(volume.array, volume.geometry)
    assert image.GetSize() == (6, 5, 4)
    assert image.GetSpacing() == pytest.approx((0.5, 0.9, 3))
    assert image.GetPixel((2, 3, 1)) == LABELS[2, 3, 1]


@pytest.mark.parametrize("step", [np.inf, -np.inf, np.nan, 3e38])
def test_a_step_that_is_no_number_is_refused_and_warns_of_nothing(tmp_path, step):
    path = tmp_path / "a.gipl"
    sitk.WriteImage(sitk.GetImageFromArray(LABELS), str(path))
    content = bytearray(path.read_bytes())
    struct.pack_into(">f", content, 14, step)
    path.write_bytes(content)
    with pytest.raises(RwtoolError, match=r"a\.gipl: "):
        read_labels(path)


@pytest.mark.parametrize("channels", ["4294967295", "18446744073709551615", "1000000"])
def test_channels_that_are_not_there_take_no_memory(tmp_path, channels):
    with pytest.raises(VolumeError, match=r"the header claims [0-9,]+ bytes of voxels"):
        read_labels(vtk(tmp_path / "a.vtk", channels=channels))
