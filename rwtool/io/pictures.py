"""PNG, TIFF, BMP and JPEG: pictures of one value a pixel, of indices into a palette, or of colours.

SimpleITK decodes them, but makes colours of indices and of 1 bit, makes 8 bits of shallow greys, and leaves out the
pages of a TIFF file that was cut. So what a file says of itself is read here first. None carries a spacing or a place;
that of a TIFF may stand in a JSON file beside it, as nnU-Net keeps it.
"""

from __future__ import annotations

import json
import math
import mmap
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rwtool.errors import RwtoolError, VolumeError
from rwtool.io.geometry import axes_for, check_spacing, settle_spacing, unplaced
from rwtool.io.names import TIFF_SUFFIXES, check_size, spacing_file, split_name
from rwtool.io.volume import Header, Stored, numpy_type, one_volume
from rwtool.records import read_parsed

_MOST_PAGES = 1 << 16
_PNG = b"\x89PNG\r\n\x1a\n"
_LOSSY = "JPEG is lossy: labels near an edge may not be those that were saved"
_CUT = "it is truncated: {}; copy it again from its source"
_TIFF_ASIDE = (1, 4)  # bits of a page that is a smaller copy of another, or a mask
_TIFF_BITS = {1, 2, 4, 8, 16, 32, 64}
_TIFF_PIXELS: dict[str, tuple[int, tuple[int, ...]]] = {  # tag, and what holds where it is not there
    "width": (256, (0,)), "height": (257, (0,)), "bits": (258, (1,)), "channels": (277, (1,)),
    "sample format": (339, (1,)), "planes": (284, (1,)),
}  # fmt: skip
_TIFF_NUMBERS = {3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}


@dataclass(frozen=True)
class _Said:
    """What a picture says of its values: whether they are indices into a palette, and what undoes SimpleITK's ways."""

    palette: bool = False
    grey_step: int = 1  # SimpleITK gives the values times this
    one_bit: bool = False
    white_is_0: bool = False
    photometrics: tuple[int, ...] = ()  # bytes at which the pages of a TIFF say that they are indices


def open_picture(
    path: Path,
    slice_axis: int | None,
    voxels: bool = True,
    spacing_mm: Sequence[float] | None = None,
    *,
    indices: bool,
) -> Stored:
    """Read a picture, colours as channels; with `indices`, one with a palette as the indices that it holds.

    Raises
    ------
    VolumeError
        It is damaged, or of a kind that SimpleITK does not read.
    UsageError
        No spacing is given.
    """
    suffix = split_name(path)[1]
    beside = stated_spacing(path)
    given = settle_spacing(beside or (), spacing_mm, (1,) * 3, what=f"an {suffix} file") or beside
    assert given is not None
    notes: tuple[str, ...] = (_LOSSY,) if indices and suffix in (".jpg", ".jpeg") else ()
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as block:
        found = _bmp(block, indices=indices) if suffix == ".bmp" else None
        if found is None:
            said = _png(block) if suffix == ".png" else _tiff(block) if suffix in TIFF_SUFFIXES else _Said()
            if indices and said.palette:
                with TemporaryDirectory() as folder:
                    grey = Path(folder) / f"grey{suffix}"
                    grey.write_bytes(_png_as_grey(block) if suffix == ".png" else _tiff_as_grey(block, said))
                    found = _decode(grey, said, voxels)
            else:
                found = _decode(path, said, voxels)
    pages, rows, columns, channels = found.shape
    file_shape = (columns, rows) if pages == 1 else (columns, rows, pages)
    shape = one_volume(file_shape)
    geometry = unplaced(given, shape, axes_for(shape, given, 2 if slice_axis is None else slice_axis), file_shape)
    geometry = replace(geometry, spaced=beside is not None)
    if channels == 4:  # of colours and how much they cover
        channels, found = 3, found[..., :3]
        notes += ("how transparent its pixels are is left out",)
    header = Header(geometry, found.dtype, notes, channels)
    array = found.transpose(2, 1, 0, 3)
    return Stored(header, array[..., 0] if channels == 1 else array)


def stated_spacing(path: Path) -> tuple[float, float, float] | None:
    """The spacing, along ``(z, y, x)``, that a JSON file beside a TIFF has for it; None where there is none.

    Raises
    ------
    VolumeError
        The file beside it cannot be read, or its spacing is none.
    """
    beside = spacing_file(path) if split_name(path)[1] in TIFF_SUFFIXES else None
    if beside is None:
        return None
    mend = "write it again, or move it away and give spacing_mm=(z, y, x)"
    content: Any = read_parsed(beside, json.loads, refusal="cannot be read as JSON", mend=mend, error=VolumeError)
    if not isinstance(content, dict) or "spacing" not in content:
        return None
    found = content["spacing"]
    try:
        return check_spacing(found if isinstance(found, list) else None)
    except (RwtoolError, TypeError, ValueError):
        raise VolumeError(
            f"{beside}: $.spacing: expected three positive numbers (z, y, x) in mm; found {found!r}; {mend}"
        ) from None


def _decode(path: Path, said: _Said, voxels: bool) -> NDArray[Any]:
    """Pixels (pages, rows, columns, channels) through SimpleITK; without `voxels`, their shape and type alone."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    size = (*reader.GetSize(), 1, 1)[:3]
    channels = reader.GetNumberOfComponents()
    dtype = numpy_type(reader)
    check_size(path.stat().st_size, math.prod(size) * channels // 8, packed=True)
    if not voxels:
        shape = (*size[::-1], 1 if said.one_bit else channels)
        return np.broadcast_to(np.zeros((), dtype), shape)
    array = sitk.GetArrayFromImage(reader.Execute()).reshape((*size[::-1], channels))
    if said.one_bit and channels > 1:
        array = ((array[..., :1] > 127) != said.white_is_0).astype(np.uint8)
    if said.grey_step > 1 and channels == 1:
        array = array // np.uint8(said.grey_step)
    return array


def _png(block: mmap.mmap) -> _Said:
    if len(block) < 33 or block[:8] != _PNG or block[12:16] != b"IHDR":
        raise VolumeError("this is not a PNG file: its first bytes are not those of one")
    bits, colour = block[24], block[25]
    if bits not in (1, 2, 4, 8, 16):
        raise VolumeError(_CUT.format(f"its header says {bits} bits per value"))
    if colour == 4:
        raise VolumeError(
            "it is a grey picture with transparency, which SimpleITK does not read; save it without an alpha channel"
        )
    shallow = colour in (0, 3) and bits < 8
    return _Said(palette=colour == 3, grey_step=255 // (2**bits - 1) if shallow else 1)


def _png_as_grey(block: mmap.mmap) -> bytes:
    """The same file without its palette: its indices are the greys."""
    made = bytearray(_PNG)
    for name, data in _png_chunks(block):
        if name in (b"PLTE", b"tRNS", b"bKGD", b"sBIT", b"hIST"):  # that speak of colours
            continue
        content = data[:9] + b"\0" + data[10:] if name == b"IHDR" else data
        made += struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
    return bytes(made)


def _png_chunks(block: mmap.mmap) -> Iterator[tuple[bytes, bytes]]:
    at = len(_PNG)
    while at + 12 <= len(block):
        (size,) = struct.unpack_from(">I", block, at)
        name, data = block[at + 4 : at + 8], block[at + 8 : at + 8 + size]
        if at + 12 + size > len(block) or struct.pack(">I", zlib.crc32(name + data)) != block[at + 8 + size :][:4]:
            raise VolumeError(_CUT.format(f"its part {name!a} is damaged"))
        yield name, data
        at += 12 + size
        if name == b"IEND":
            return
    raise VolumeError(_CUT.format("it has no end"))


def _tiff(block: mmap.mmap) -> _Said:
    """What the pages of a TIFF say, after a check that all of them, and their pixels, are there."""
    palette = one_bit = white_is_0 = False
    photometrics = []
    first: dict[str, tuple[int, ...]] = {}
    aside = 0
    for number, tags in enumerate(_tiff_pages(block), 1):
        if any(tags.get(254, ((0,), 0))[0][0] & kind for kind in _TIFF_ASIDE):
            aside = aside or number
            continue
        if aside:  # SimpleITK passes over these at the end; elsewhere it reads others wrongly, or crashes
            raise VolumeError(
                f"its page {aside} is a smaller copy of another or a mask, and page {number} is none; save it without "
                "the former"
            )
        page = {name: tags.get(tag, (default, 0))[0] for name, (tag, default) in _TIFF_PIXELS.items()}
        first = first or page
        differ = next((name for name in page if page[name] != first[name]), None)
        if differ is not None:  # SimpleITK takes all for what the first is, and makes up what is missing
            raise VolumeError(
                f"its page {number} differs from the first in {differ}: {page[differ]} and {first[differ]}; save pages "
                "of one size and type"
            )
        if not {*page["bits"]} <= _TIFF_BITS or min(page["width"] + page["height"] + page["channels"], default=0) < 1:
            raise VolumeError(f"its page {number} states {page}, which are no pixels; copy it again from its source")
        row = page["width"][0] * page["channels"][0] * page["bits"][0]
        for offsets, sizes in ((273, 279), (324, 325)):
            starts, lengths = tags.get(offsets, ((), 0))[0], tags.get(sizes, ((), 0))[0]
            if starts and tags.get(259, ((1,), 0))[0] == (1,) and sum(lengths) < page["height"][0] * row / 8:
                raise VolumeError(_CUT.format(f"page {number} has {sum(lengths):,} bytes, fewer than its pixels take"))
            if any(start + length > len(block) for start, length in zip(starts, lengths, strict=False)):
                raise VolumeError(_CUT.format("the pixels of a page lie beyond its end"))
        photometric, at = tags.get(262, ((1,), 0))
        if photometric == (3,):
            palette = True
            photometrics.append(at)
        one_bit |= tags.get(258, ((1,), 0))[0] == (1,)
        white_is_0 |= photometric == (0,)
    return _Said(palette, 1, one_bit, white_is_0, tuple(photometrics))


def _tiff_pages(block: mmap.mmap) -> Iterator[dict[int, tuple[tuple[int, ...], int]]]:
    """Whole-number tags of each page: their values, and the byte at which they stand."""
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None or len(block) < 16 or struct.unpack_from(order + "H", block, 2)[0] not in (42, 43):
        raise VolumeError("this is not a TIFF file: its first bytes are not those of one")
    big = struct.unpack_from(order + "H", block, 2)[0] == 43
    count_as, word, entry = ("Q", "Q", 20) if big else ("H", "I", 12)
    (at,) = struct.unpack_from(order + word, block, 8 if big else 4)
    seen: set[int] = set()
    try:
        while at:
            if at in seen or len(seen) > _MOST_PAGES:
                raise VolumeError("its pages are chained without an end; it is damaged; copy it again from its source")
            seen.add(at)
            (n,) = struct.unpack_from(order + count_as, block, at)
            first = at + struct.calcsize(order + count_as)
            tags = {}
            for k in range(n):
                tag, kind, many = struct.unpack_from(order + "HH" + word, block, first + k * entry)
                if kind not in _TIFF_NUMBERS or not 0 < many <= len(block):
                    continue
                here = first + k * entry + (12 if big else 8)
                size = struct.calcsize(order + _TIFF_NUMBERS[kind]) * many
                if size > struct.calcsize(order + word):
                    (here,) = struct.unpack_from(order + word, block, here)
                tags[tag] = (struct.unpack_from(f"{order}{many}{_TIFF_NUMBERS[kind]}", block, here), here)
            yield tags
            (at,) = struct.unpack_from(order + word, block, first + n * entry)
    except struct.error:
        raise VolumeError(_CUT.format("a page lies beyond its end")) from None


def _tiff_as_grey(block: mmap.mmap, said: _Said) -> bytes:
    """The same file with its indices called greys, 0 being black."""
    made = bytearray(block)
    for at in said.photometrics:
        made[at : at + 2] = struct.pack("<H" if made[:2] == b"II" else ">H", 1)
    return bytes(made)


def _bmp(block: mmap.mmap, *, indices: bool) -> NDArray[Any] | None:
    """Pixels of a plain BMP of up to 8 bits, or their colours; None for one that SimpleITK decodes well."""
    if block[:2] != b"BM" or len(block) < 54:
        raise VolumeError("this is not a BMP file: its first bytes are not those of one")
    offset, size, width, height, _, bits, packing = struct.unpack_from("<IIiiHHI", block, 10)
    if bits not in (1, 4, 8, 24, 32) or size < 40 or packing != 0:  # SimpleITK writes beyond its memory at packed ones
        raise VolumeError(
            f"a BMP of {bits} bits, packing {packing} and a header of {size} bytes; expected 1, 4, 8, 24 or 32 bits "
            "that are not packed; save it as PNG"
        )
    stride = (width * bits + 31) // 32 * 4
    rows = abs(height)
    if width < 1 or rows < 1 or offset + rows * stride > len(block):
        raise VolumeError(_CUT.format(f"its header claims {width} x {rows} pixels, which it does not hold"))
    if bits > 8:
        return None
    packed = np.frombuffer(block[offset : offset + rows * stride], np.uint8).reshape(rows, stride)
    parts = np.unpackbits(packed, axis=1).reshape(rows, -1, bits)[:, :width]
    pixels = np.packbits(parts, axis=2)[..., 0] >> (8 - bits)
    pixels = pixels[::-1] if height > 0 else pixels
    entries = (offset - 14 - size) // 4
    palette = np.frombuffer(block[14 + size : 14 + size + 4 * entries], np.uint8).reshape(-1, 4)[:, 2::-1]
    if int(pixels.max()) >= len(palette):
        raise VolumeError("its pixels name colours that its palette does not have; it is damaged")
    grey = bool((palette == palette[:, :1]).all())
    if indices:  # of a grey ramp each is its grey
        found = palette[pixels][..., :1] if grey and len(palette) == 256 else pixels[..., None]
    else:
        found = palette[pixels][..., :1] if grey else palette[pixels]
    return np.ascontiguousarray(found)[None]
