"""Files written byte by byte, so that no library's reader is tested against its own writer."""

import gzip
import struct
import zlib

import numpy as np

META = {
    "ObjectType": "Image",
    "NDims": "3",
    "BinaryData": "True",
    "BinaryDataByteOrderMSB": "False",
    "CompressedData": "False",
    "TransformMatrix": "1 0 0 0 1 0 0 0 1",
    "Offset": "0 0 0",
    "ElementSpacing": "0.5 0.9 3",
    "DimSize": "6 5 4",
    "ElementType": "MET_UCHAR",
    "ElementDataFile": "LOCAL",
}


def metaimage(path, array_ijk, *, data=None, without=(), **fields):
    """Write a MetaImage; `fields` replace or add to the header, before its last line."""
    header = {**META, "DimSize": " ".join(map(str, array_ijk.shape)), **fields}
    last = header.pop("ElementDataFile")
    lines = [f"{key} = {value}" for key, value in header.items() if key not in without]
    text = "\n".join([*lines, f"ElementDataFile = {last}"]) + "\n"
    data = array_ijk.tobytes(order="F") if data is None else data
    path.write_bytes(text.encode() + (data if last == "LOCAL" else b""))
    return path


def nrrd(path, array, *lines, encoding="raw", data=None, **fields):
    """Write an NRRD file of an array whose first axis is the fastest; `lines` follow the fields as they are."""
    header = {
        "type": array.dtype.name,
        "dimension": str(array.ndim),
        "sizes": " ".join(map(str, array.shape)),
        "encoding": encoding,
        **({"endian": "little"} if array.dtype.itemsize > 1 else {}),
        **{key.replace("_", " "): value for key, value in fields.items()},
    }
    text = "\n".join(["NRRD0004", *(f"{key}: {value}" for key, value in header.items()), *lines]) + "\n\n"
    raw = array.tobytes(order="F")
    packed = {"raw": raw, "gzip": gzip.compress(raw), "hex": raw.hex().encode()}
    path.write_bytes(text.encode() + (packed[encoding] if data is None else data))
    return path


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(path, pixels, colour, bits=8, palette=None):
    """Write a PNG of rows of values (rows, columns[, channels])."""
    rows = b""
    for row in pixels:
        flat = np.asarray(row).reshape(-1)
        if bits < 8:
            parts = np.unpackbits(flat[:, None].astype(np.uint8), axis=1)[:, 8 - bits :]
            rows += b"\0" + np.packbits(parts.reshape(-1)).tobytes()
        else:
            rows += b"\0" + flat.astype(">u2" if bits == 16 else "u1").tobytes()
    height, width = pixels.shape[:2]
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    if palette is not None:
        data += chunk(b"PLTE", bytes(palette))
    path.write_bytes(data + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    return path


def tiff(path, pages, *, bits=8, photometric=1, colours=None):
    """Write a little-endian TIFF of pages (pages, rows, columns) of one value a pixel, not packed."""
    height, width = pages.shape[1:]
    body, directories = bytearray(b"II*\0\0\0\0\0"), []
    for page in pages:
        start = len(body)
        rows = [np.packbits(row > 0).tobytes() if bits == 1 else row.astype(np.uint8).tobytes() for row in page]
        body += b"".join(rows)
        size = len(body) - start
        body += b"\0" * (len(body) % 2)
        tags = [
            (256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, bits), (259, 3, 1, 1), (262, 3, 1, photometric),
            (273, 4, 1, start), (277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, size),
        ]  # fmt: skip
        if colours is not None:
            tags.append((320, 3, len(colours), len(body)))
            body += struct.pack(f"<{len(colours)}H", *colours)
        directories.append(tags)
    where = 4
    for tags in directories:
        struct.pack_into("<I", body, where, len(body))
        body += struct.pack("<H", len(tags))
        for tag, kind, many, value in tags:
            body += struct.pack("<HHIHxx" if kind == 3 and many == 1 else "<HHII", tag, kind, many, value)
        where = len(body)
        body += b"\0\0\0\0"
    path.write_bytes(bytes(body))
    return path


def bmp(path, pixels, bits, palette):
    """Write a BMP of indices (rows, columns); rows are stored from the last to the first."""
    rows = b""
    for row in pixels[::-1]:
        parts = np.unpackbits(row[:, None].astype(np.uint8), axis=1)[:, 8 - bits :]
        packed = np.packbits(parts.reshape(-1)).tobytes()
        rows += packed.ljust(-(-len(packed) // 4) * 4, b"\0")
    colours = b"".join(bytes((*reversed(colour), 0)) for colour in palette)
    start = 54 + len(colours)
    height, width = pixels.shape
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 0, len(rows), 0, 0, len(palette), 0)
    path.write_bytes(b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + head + colours + rows)
    return path


def element(group, number, kind, value):
    """One DICOM element, little-endian with an explicit type."""
    value = value.encode() if isinstance(value, str) else value
    if len(value) % 2:
        value += b"\0" if kind in ("UI", "OB") else b" "
    head = struct.pack("<HH", group, number) + kind.encode()
    if kind in ("OB", "OW", "SQ", "UN"):
        return head + b"\0\0" + struct.pack("<I", len(value)) + value
    return head + struct.pack("<H", len(value)) + value


def dicom(path, pixels, position, *, series="1.2.3.4", kind="1.2.840.10008.5.1.4.1.1.4", spacing="0.9\\0.5", turn=None):
    """Write one slice (rows, columns) of 16 bits as a DICOM file."""
    number = str(zlib.crc32(f"{path.name} {series}".encode()))
    short = lambda n: struct.pack("<H", n)  # noqa: E731
    body = [
        element(8, 0x16, "UI", kind), element(8, 0x18, "UI", f"{series}.{number}"), element(8, 0x60, "CS", "MR"),
        element(0x20, 0xD, "UI", "1.2.3"), element(0x20, 0xE, "UI", series), element(0x20, 0x13, "IS", "1"),
    ]  # fmt: skip
    if position is not None:
        body += [
            element(0x20, 0x32, "DS", "\\".join(f"{value:g}" for value in position)),
            element(0x20, 0x37, "DS", turn or "1\\0\\0\\0\\1\\0"),
        ]
    body += [
        element(0x28, 2, "US", short(1)), element(0x28, 4, "CS", "MONOCHROME2"),
        element(0x28, 0x10, "US", short(pixels.shape[0])), element(0x28, 0x11, "US", short(pixels.shape[1])),
    ]  # fmt: skip
    if spacing is not None:
        body.append(element(0x28, 0x30, "DS", spacing))
    body += [
        element(0x28, 0x100, "US", short(16)), element(0x28, 0x101, "US", short(16)),
        element(0x28, 0x102, "US", short(15)), element(0x28, 0x103, "US", short(0)),
        element(0x7FE0, 0x10, "OW", pixels.astype("<u2").tobytes()),
    ]  # fmt: skip
    meta = b"".join([
        element(2, 1, "OB", b"\0\1"), element(2, 2, "UI", kind), element(2, 3, "UI", f"{series}.{number}"),
        element(2, 0x10, "UI", "1.2.840.10008.1.2.1"), element(2, 0x12, "UI", "1.2.3.9"),
    ])  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\0" * 128 + b"DICM" + element(2, 0, "UL", struct.pack("<I", len(meta))) + meta + b"".join(body))
    return path
