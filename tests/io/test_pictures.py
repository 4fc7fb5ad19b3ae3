import os
import re
import struct

import numpy as np
import pytest
import SimpleITK as sitk
from byhand import bmp, png, tiff
from volumes import some_labels, volume_of

from rwtool.errors import UsageError, VolumeError
from rwtool.io.formats import carries_spacing, count_channels, read_image_channels, read_labels
from rwtool.io.names import file_hash
from rwtool.io.write import write

MM = {"spacing_mm": (1, 1, 1)}
PIXELS = np.arange(12).reshape(3, 4) % 3
PALETTE = [(0, 0, 0), (128, 0, 0), (0, 128, 0)]
FLAT = [value for colour in PALETTE for value in colour]


def labels(path):
    return read_labels(path, **MM).array[0]  # the only slice, rows by columns


def channels(path):
    return [volume.array[0] for volume in read_image_channels(path, **MM)]


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_palette_png_holds_indices_as_labels_and_colours_as_an_image(tmp_path, bits):
    path = png(tmp_path / "a.png", PIXELS, 3, bits, FLAT)
    assert (labels(path) == PIXELS).all()
    assert count_channels(path) == 3
    assert np.array_equal(np.stack(channels(path), -1), np.array(PALETTE)[PIXELS])


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_grey_png_holds_its_own_values(tmp_path, bits):
    pixels = PIXELS * {16: 1000}.get(bits, 1) if bits > 1 else PIXELS > 0
    path = png(tmp_path / "a.png", pixels, 0, bits)
    assert (labels(path) == pixels).all()
    assert (channels(path)[0] == pixels).all()


def test_a_one_bit_palette_png(tmp_path):
    assert (labels(png(tmp_path / "a.png", PIXELS > 0, 3, 1, FLAT[:6])) == (PIXELS > 0)).all()


def test_colours_are_three_channels_and_no_labels(tmp_path):
    colours = np.stack([PIXELS, PIXELS + 10, PIXELS + 20], -1)
    path = png(tmp_path / "a.png", colours, 2)
    assert np.array_equal(np.stack(channels(path), -1), colours)
    with pytest.raises(VolumeError, match=r"found 3 per voxel .a colour"):
        labels(path)


def test_transparency_is_left_out_with_a_note(tmp_path):
    colours = np.stack([PIXELS, PIXELS + 10, PIXELS + 20, PIXELS * 0 + 255], -1)
    found = list(read_image_channels(png(tmp_path / "a.png", colours, 6), **MM))
    assert np.array_equal([volume.array[0] for volume in found], np.moveaxis(colours[..., :3], -1, 0))
    assert found[0].notes[-1] == "how transparent its pixels are is left out"


def test_grey_with_transparency_is_refused_in_words(tmp_path):
    with pytest.raises(VolumeError, match=r"a grey picture with transparency.*; save it without an alpha channel"):
        labels(png(tmp_path / "a.png", np.stack([PIXELS, PIXELS], -1), 4))


@pytest.mark.parametrize(("photometric", "bits"), [(1, 1), (0, 1), (1, 8), (0, 8)])
def test_a_grey_or_one_bit_tiff_holds_what_is_stored(tmp_path, photometric, bits):
    pixels = PIXELS > 0 if bits == 1 else PIXELS
    assert (labels(tiff(tmp_path / "a.tif", pixels[None], bits=bits, photometric=photometric)) == pixels).all()


def test_a_palette_tiff_holds_indices(tmp_path):
    colours = np.zeros((3, 256), int)
    colours[:, :3] = np.array(PALETTE).T * 257
    path = tiff(tmp_path / "a.tif", PIXELS[None], photometric=3, colours=colours.ravel())
    assert (labels(path) == PIXELS).all()
    assert count_channels(path) == 3


def test_pages_are_slices_and_one_that_is_cut_off_is_missed(tmp_path):
    pages = np.stack([PIXELS, PIXELS.max() - PIXELS, PIXELS * 0 + 1])
    path = tiff(tmp_path / "a.tif", pages)
    assert (read_labels(path, spacing_mm=(3, 1, 1)).array == pages).all()
    whole = path.read_bytes()
    for size in (len(whole) - 4, len(whole) - 100, len(whole) // 2, 20, 9):
        path.write_bytes(whole[:size])
        with pytest.raises(VolumeError):
            labels(path)


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_a_palette_bmp_holds_indices(tmp_path, bits):
    pixels = PIXELS if bits > 1 else (PIXELS > 0).astype(int)
    path = bmp(tmp_path / "a.bmp", pixels, bits, PALETTE[: 2 if bits == 1 else 3])
    assert (labels(path) == pixels).all()
    assert np.array_equal(np.stack(channels(path), -1), np.array(PALETTE)[pixels])


def test_a_grey_bmp_holds_greys(tmp_path):
    path = bmp(tmp_path / "a.bmp", PIXELS, 8, [(value,) * 3 for value in range(256)])
    assert (labels(path) == PIXELS).all()
    assert count_channels(path) == 1


def test_a_bmp_that_ends_early_is_refused(tmp_path):
    path = bmp(tmp_path / "a.bmp", PIXELS, 8, PALETTE)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(VolumeError, match="it is truncated"):
        labels(path)


def test_labels_of_a_jpeg_are_noted_to_be_lossy(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((8, 8), np.uint8)), str(tmp_path / "a.jpg"))
    (note,) = read_labels(tmp_path / "a.jpg", **MM).notes
    assert note == "JPEG is lossy: labels near an edge may not be those that were saved"


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_what_is_no_picture_is_refused(tmp_path, suffix):
    for content in (b"x", b"II*\0", b"II*\0\x08\0\0\0" + bytes(12), b"\x89PNG\r\n\x1a\n", b"BM" + bytes(60)):
        (tmp_path / f"a{suffix}").write_bytes(content)
        with pytest.raises(VolumeError):
            labels(tmp_path / f"a{suffix}")


def test_a_picture_has_no_place_and_the_spacing_that_is_given(tmp_path):
    path = png(tmp_path / "a.png", PIXELS, 0)
    geometry = read_labels(path, spacing_mm=(1, 2, 3)).geometry
    assert (geometry.spacing_mm, geometry.placed, geometry.file_shape) == ((1, 2, 3), False, (4, 3))
    with pytest.raises(UsageError, match=r"an \.png file carries no spacing"):
        read_labels(path)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_pictures_need_a_spacing(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    sitk.WriteImage(sitk.GetImageFromArray(some_labels((5, 4))), str(path))
    with pytest.raises(UsageError, match=rf"an \{suffix} file carries no spacing; give spacing_mm="):
        read_labels(path)
    found = read_labels(path, spacing_mm=(9, 0.75, 0.5))
    assert found.spacing_mm == (9, 0.75, 0.5)
    assert np.array_equal(found.array[0], some_labels((5, 4)))


def test_stack_of_pictures_takes_its_spacing_as_z_y_x(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(some_labels((3, 5, 4))), str(tmp_path / "a.tif"))
    found = read_labels(tmp_path / "a.tif", spacing_mm=(9, 0.75, 0.5))
    assert found.spacing_mm == (9, 0.75, 0.5)
    assert np.array_equal(found.array, some_labels((3, 5, 4)))
    turned = read_labels(tmp_path / "a.tif", spacing_mm=(9, 0.75, 0.5), slice_axis=0)
    assert turned.spacing_mm == (9, 0.75, 0.5)
    assert turned.array.shape == (4, 5, 3)


def test_picture_of_many_slices_is_refused(tmp_path):
    with pytest.raises(VolumeError, match=r"\.png holds one slice, this volume has 6"):
        write(tmp_path / "a.png", volume_of(some_labels()))
    assert os.listdir(tmp_path) == []


def stack(folder, name="heart.tif", *, beside='{"spacing": [2.5, 1.0, 0.8]}', called="heart.json"):
    """Three pages of two rows and four columns, and what lies beside them."""
    pages = [sitk.GetImageFromArray(np.full((2, 4), k, np.uint8)) for k in range(3)]
    path = folder / name
    sitk.WriteImage(sitk.JoinSeries(pages), path)
    (folder / called).write_text(beside)
    return path


@pytest.mark.parametrize("name", ["heart.tif", "heart.tiff", "heart_0000.tif"])
def test_a_tiff_has_the_spacing_of_the_json_beside_it(tmp_path, name):
    path = stack(tmp_path, name)
    found = read_labels(path)
    assert found.spacing_mm == (2.5, 1.0, 0.8)
    assert found.array.shape == (3, 2, 4)
    assert found.array[:, 0, 0].tolist() == [0, 1, 2]
    assert (found.geometry.spaced, found.geometry.placed, carries_spacing(path)) == (True, False, True)
    with pytest.raises(UsageError, match="this file carries its own spacing"):
        read_labels(path, **MM)


def test_the_hash_of_a_tiff_is_of_its_spacing_too(tmp_path):
    first = file_hash(stack(tmp_path))
    assert file_hash(stack(tmp_path)) == first
    assert file_hash(stack(tmp_path, beside='{"spacing": [5, 1.0, 0.8]}')) != first


@pytest.mark.parametrize(
    ("beside", "called"),
    [('{"spacing": [1, 1, 1]}', "other.json"), ("[]", "heart.json"), ('{"other": 1}', "heart.json")],
)
def test_a_tiff_beside_other_files_has_none(tmp_path, beside, called):
    path = stack(tmp_path, beside=beside, called=called)
    assert not carries_spacing(path)
    with pytest.raises(UsageError, match=r"an \.tif file carries no spacing; give spacing_mm="):
        read_labels(path)
    assert read_labels(path, spacing_mm=(3, 2, 1)).spacing_mm == (3, 2, 1)


@pytest.mark.parametrize(
    ("beside", "message"),
    [
        ("{", "heart.json: cannot be read as JSON: "),
        (
            '{"spacing": "123"}',
            "$.spacing: expected three positive numbers (z, y, x) in mm; found '123'; write it again",
        ),
        ('{"spacing": [1, 1]}', "$.spacing: expected three positive numbers (z, y, x) in mm; found [1, 1]; write it"),
        ('{"spacing": [1, 1, 0]}', "found [1, 1, 0]; write it again, or move it away and give spacing_mm=(z, y, x)"),
        ('{"spacing": [1, 1, NaN]}', "found [1, 1, nan]"),
        ('{"spacing": [1, 1, [1]]}', "found [1, 1, [1]]"),
    ],
)
def test_a_spacing_beside_a_tiff_that_is_none_is_named(tmp_path, beside, message):
    path = stack(tmp_path, beside=beside)
    assert carries_spacing(path)
    with pytest.raises(VolumeError, match=re.escape(message)):
        read_labels(path)


def paged(path, pages, **changed):
    """Write pages, and change a tag of the second: its number to a place within its entry, code and value."""
    content = bytearray(tiff(path, pages).read_bytes())
    (at,) = struct.unpack_from("<I", content, 4)
    (many,) = struct.unpack_from("<H", content, at)
    (at,) = struct.unpack_from("<I", content, at + 2 + 12 * many)
    for k in range(many):
        tag = struct.unpack_from("<H", content, at + 2 + 12 * k)[0]
        for place, code, value in changed.get(f"tag_{tag}", ()):
            struct.pack_into(code, content, at + 2 + 12 * k + place, value)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"tag_256": [(8, "<I", 5)]}, r"its page 2 differs from the first in width: \(5,\) and \(4,\)"),
        ({"tag_256": [(0, "<H", 0)]}, r"its page 2 differs from the first in width: \(0,\) and \(4,\)"),
        ({"tag_257": [(4, "<I", 0)]}, r"its page 2 differs from the first in height"),
        ({"tag_258": [(8, "<H", 0)]}, r"its page 2 differs from the first in bits: \(0,\) and \(8,\)"),
        ({"tag_277": [(8, "<H", 3)]}, r"its page 2 differs from the first in channels"),
        ({"tag_279": [(8, "<I", 11)]}, r"page 2 has 11 bytes, fewer than its pixels take"),
    ],
)
def test_pages_that_are_not_like_the_first_are_refused(tmp_path, changed, reason):
    """SimpleITK gives what was in memory before."""
    pages = np.stack([PIXELS, PIXELS + 1, PIXELS])
    assert (read_labels(paged(tmp_path / "a.tif", pages), **MM).array == pages).all()
    with pytest.raises(VolumeError, match=reason):
        read_labels(paged(tmp_path / "a.tif", pages, **changed), **MM)


@pytest.mark.parametrize("kind", [1, 4, 7])
def test_smaller_copies_and_masks_are_passed_over_at_the_end_alone(tmp_path, kind):
    """SimpleITK crashes at others."""
    pages = np.stack([PIXELS, PIXELS + 1, PIXELS])
    aside = {"tag_259": [(0, "<H", 254), (2, "<H", 4), (8, "<I", kind)]}  # what is not packed need not say so
    with pytest.raises(VolumeError, match="its page 2 is a smaller copy of another or a mask, and page 3 is none"):
        read_labels(paged(tmp_path / "a.tif", pages, **aside), **MM)
    assert (read_labels(paged(tmp_path / "a.tif", pages[:2], **aside), **MM).array[0] == PIXELS).all()


@pytest.mark.parametrize(("at", "code", "value"), [(30, "<I", 1), (30, "<I", 2), (28, "<H", 16), (14, "<I", 12)])
def test_a_bmp_that_is_packed_or_of_another_kind_is_refused(tmp_path, at, code, value):
    """SimpleITK writes beyond its memory at a damaged one."""
    path = bmp(tmp_path / "a.bmp", PIXELS, 8, PALETTE)
    content = bytearray(path.read_bytes())
    struct.pack_into(code, content, at, value)
    path.write_bytes(content)
    with pytest.raises(VolumeError, match=r"a BMP of \d+ bits, packing \d and a header of \d+ bytes; expected 1, 4, 8"):
        labels(path)


def test_a_bmp_of_colours_that_ends_early_is_refused(tmp_path):
    sitk.WriteImage(
        sitk.GetImageFromArray(np.zeros((1, 3, 4, 3), np.uint8), isVector=True)[:, :, 0], str(tmp_path / "a.bmp")
    )
    assert count_channels(tmp_path / "a.bmp") == 3
    (tmp_path / "b.bmp").write_bytes((tmp_path / "a.bmp").read_bytes()[:-1])
    with pytest.raises(VolumeError, match="its header claims 4 x 3 pixels, which it does not hold"):
        read_labels(tmp_path / "b.bmp", **MM)
