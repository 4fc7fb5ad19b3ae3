import subprocess
import sys

import numpy as np
import pytest

import rwtool
from rwtool.errors import UsageError, VolumeError

SPACING = (3.0, 1.0, 0.5)


@pytest.fixture
def write(tmp_path):
    """Function that writes an array as nnU-Net does."""
    blosc2 = pytest.importorskip("blosc2", reason="blosc2 is not installed")

    def write(array, name="case_seg.b2nd"):
        blosc2.asarray(np.ascontiguousarray(array), urlpath=str(tmp_path / name))
        return tmp_path / name

    return write


def test_without_blosc2_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "blosc2", None)
    path = tmp_path / "case_seg.b2nd"
    path.write_bytes(b"anything")
    with pytest.raises(VolumeError, match=r"case_seg\.b2nd: .*pip install 'rwtool\[nnunet\]'"):
        rwtool.read_labels(path, spacing_mm=SPACING)


@pytest.mark.nnunet
def test_labels_keep_the_order_of_their_axes_and_outside_is_background(write):
    array = np.arange(24, dtype=np.int16).reshape(1, 2, 3, 4) % 3
    array[0, 0, 0] = -1
    path = write(array)
    volume = rwtool.read_labels(path, spacing_mm=SPACING, classes=(0, 1, 2))
    np.testing.assert_array_equal(volume.array, np.where(array[0] < 0, 0, array[0]))
    assert volume.spacing_mm == SPACING
    header = rwtool.io.formats.read_header(path, spacing_mm=SPACING)
    assert (header.geometry.array_shape, header.dtype) == ((2, 3, 4), np.int16)


@pytest.mark.nnunet
def test_its_channels_are_those_of_its_first_axis(write):
    from rwtool.io.formats import count_channels, read_channels

    image = np.random.default_rng(0).random((2, 3, 4, 5), dtype=np.float32)
    path = write(image, "case.b2nd")
    assert count_channels(path) == 2
    found = [volume.array for volume in read_channels(path, spacing_mm=SPACING)]
    np.testing.assert_array_equal(np.stack(found), image)
    with pytest.raises(VolumeError, match="expected labels, one number per voxel; found the 2 channels"):
        rwtool.read_labels(path, spacing_mm=SPACING)


@pytest.mark.nnunet
def test_a_spacing_is_needed_and_a_slice_axis_is_not(write):
    path = write(np.zeros((1, 2, 3, 4), dtype=np.int16))
    with pytest.raises(UsageError, match="carries no spacing"):
        rwtool.read_labels(path)
    with pytest.raises(UsageError, match="slice_axis= is not for"):
        rwtool.read_labels(path, spacing_mm=SPACING, slice_axis=1)


@pytest.mark.nnunet
def test_negative_labels_but_for_minus_one_are_refused_where_they_stand(write):
    array = np.zeros((1, 2, 3, 4), dtype=np.int16)
    array[0, 1, 2, 3] = -2
    with pytest.raises(VolumeError, match=r"found -2 at file voxel \(1, 2, 3\)"):
        rwtool.read_labels(write(array), spacing_mm=SPACING)


@pytest.mark.nnunet
@pytest.mark.parametrize("content", [b"no array at all", b""])
def test_a_damaged_file_is_refused_by_its_name(tmp_path, content):
    path = tmp_path / "case_seg.b2nd"
    path.write_bytes(content)
    with pytest.raises(VolumeError, match=r"case_seg\.b2nd: "):
        rwtool.read_labels(path, spacing_mm=SPACING)


@pytest.mark.nnunet
@pytest.mark.parametrize("channels", [None, 3])
def test_an_array_is_written_slab_by_slab(tmp_path, channels):
    pytest.importorskip("blosc2", reason="blosc2 is not installed")
    from rwtool.io.formats import read_channels
    from rwtool.io.geometry import unplaced
    from rwtool.io.write import create

    shape = (5, 300, 310) if channels is None else (channels, 5, 300, 310)
    array = np.random.default_rng(0).random(shape, dtype=np.float32)
    geometry = unplaced(SPACING, shape[:-4:-1], (2, 1, 0), shape[:-4:-1])
    for name in ("a.b2nd", "b.b2nd"):
        with create(tmp_path / name, geometry, np.float32, channels=channels, threads=4) as put:
            for channel in array if channels else array[np.newaxis]:
                for z in range(0, 5, 2):
                    put(channel[z : z + 2])
    assert (tmp_path / "a.b2nd").read_bytes() == (tmp_path / "b.b2nd").read_bytes()
    found = [volume.array for volume in read_channels(tmp_path / "a.b2nd", spacing_mm=SPACING)]
    np.testing.assert_array_equal(np.stack(found), array if channels else array[np.newaxis])


FULL_DISK = """
import resource, signal, sys
import numpy as np
from pathlib import Path
from rwtool.errors import VolumeError
from rwtool.io.geometry import unplaced
from rwtool.io.write import create
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    with create(Path(sys.argv[1]), unplaced((1, 1, 1), (40, 50, 60), (2, 1, 0), (40, 50, 60)), np.float32) as put:
        put(np.random.default_rng(0).random((60, 50, 40), dtype=np.float32))
except VolumeError as error:
    print(error)
"""


@pytest.mark.nnunet
def test_a_full_disk_leaves_no_array(tmp_path):
    pytest.importorskip("blosc2", reason="blosc2 is not installed")
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path / "a.b2nd")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith(f"{tmp_path / 'a.b2nd'}: cannot be written: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.nnunet
@pytest.mark.parametrize("layer", ["LazyArray", "proxy-source", "b2o", "more"])
def test_what_is_more_than_an_array_is_refused_before_blosc2_looks_at_it(tmp_path, monkeypatch, layer):
    """An expression or function would be computed, and a proxy's source opened."""
    blosc2 = pytest.importorskip("blosc2", reason="blosc2 is not installed")
    path = tmp_path / "case_seg.b2nd"
    blosc2.asarray(np.zeros((2, 3, 4), np.uint8), urlpath=str(path), meta={layer: {"local_abspath": "/etc/passwd"}})
    monkeypatch.setattr(blosc2, "open", None)
    with pytest.raises(VolumeError, match=rf"it holds (b2nd, {layer}|{layer}, b2nd); expected an array \(b2nd\) alone"):
        rwtool.read_labels(path, spacing_mm=SPACING)


@pytest.mark.nnunet
@pytest.mark.parametrize(
    "way", [{}, {"chunks": (2, 3, 3), "blocks": (1, 2, 3)}, {"chunks": (1, 7, 1), "blocks": (1, 4, 1)}]
)
def test_a_shape_that_is_not_that_of_its_pieces_is_refused(tmp_path, way):
    """blosc2 takes memory for it, or gives what was in memory before."""
    blosc2 = pytest.importorskip("blosc2", reason="blosc2 is not installed")
    path = tmp_path / "case_seg.b2nd"
    array = np.arange(3 * 7 * 5, dtype=np.int16).reshape(3, 7, 5)
    blosc2.asarray(array, urlpath=str(path), **way)
    assert (rwtool.read_labels(path, spacing_mm=SPACING).array == array).all()
    whole = path.read_bytes()
    start = whole.index(b"\x97\x00\x03\x93") + 4
    places = [start + 9 * k + 5 for k in range(3)] + [start + 29 + 5 * k + k // 3 for k in range(6)]
    for at in places:  # the highest byte of four of a size, a chunk and a block
        for bit in (0, 4):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
            with pytest.raises(VolumeError):
                rwtool.read_labels(path, spacing_mm=SPACING)
