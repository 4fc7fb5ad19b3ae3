"""Label files of each format: how sound ones are made, edited and read, by rwtool and by another reader."""

import bz2
import contextlib
import io
import math
import re
import struct
import tempfile
import zlib
from pathlib import Path

import byhand
import nibabel as nib
import numpy as np
from findings import Files, FindingError, fill_memory, run
from mutations import TEXTS, WHOLE, Edit, edit_bytes, edit_fields, edit_gzip, edit_json, edit_lines
from nibabel.affines import voxel_sizes

import rwtool
from rwtool.datasets.channels import read_channels_of
from rwtool.errors import RwtoolError
from rwtool.io.formats import carries_spacing, read_header, suited

SPACING = (3.0, 0.9, 0.5)  # (z, y, x), of files that state none


# Volumes


def some_volume(rng, types="u1 i1 u2 i2 i4 f4 f8"):
    """Labels (i, j, k) of a few voxels, and a spacing along their axes."""
    shape = tuple(rng.choice((1, 2, 3, 5)) for _ in range(3))
    dtype = np.dtype(rng.choice(types.split()))
    labels = np.random.default_rng(rng.randrange(2**32)).integers(0, 4, shape).astype(dtype)
    labels.flat[0] = 1
    return labels, tuple(rng.choice((0.5, 1.0, 0.9, 3.0)) for _ in range(3))


def read_volume(path):
    """Labels (i, j, k) of a file, and its spacing along them; None where the file has none."""
    volume = rwtool.read_labels(path, **suited(path, spacing_mm=SPACING))
    geometry = volume.geometry
    header = read_header(path, **suited(path, spacing_mm=SPACING))
    if header.geometry.shape != geometry.shape or not np.array_equal(header.geometry.affine_mm, geometry.affine_mm):
        raise FindingError("the header alone says another grid than the header with the voxels")
    spacing = tuple(map(float, voxel_sizes(geometry.affine_mm))) if geometry.spaced else None
    return geometry.to_file(volume.array), spacing, volume.notes


def compare_volumes(found, truth, what):
    """Equal labels, and equal spacings of the axes that have some."""
    labels, spacing = found[:2]
    wanted = np.asarray(truth[0])
    if wanted.ndim > 3 and wanted.shape[0] == wanted.shape[-1] == 1:
        return  # either may be none of space
    while wanted.ndim > 3 and 1 in (wanted.shape[0], wanted.shape[-1]):
        wanted = wanted[..., 0] if wanted.shape[-1] == 1 else wanted[0]
    wanted = wanted.reshape((*wanted.shape, 1, 1, 1)[: max(3, wanted.ndim)])
    if labels.shape != wanted.shape or not np.array_equal(labels, np.rint(wanted.astype(np.float64))):
        raise FindingError(f"it reads {labels.shape} {labels.ravel()[:8]}, {what} {wanted.shape} {wanted.ravel()[:8]}")
    if spacing is None or truth[1] is None:
        return
    there = [axis for axis in range(3) if labels.shape[axis] > 1]
    steps = [(spacing[axis], truth[1][axis]) for axis in there]
    if not all(math.isclose(a, b, rel_tol=1e-4) for a, b in steps):
        raise FindingError(f"it reads a spacing of {spacing}, {what} {truth[1]}")


def use_volume(files, folder, rng, name, oracle=None):
    """Read a label file, and give it to a command."""
    path = folder / "in" / name
    command = rng.choice((None, "maps", "evaluate"))
    where = ("--spacing", *SPACING) if not carries_spacing(path) else ()
    if command == "maps":
        run("maps", path, folder / "out", "-q", "-j", 1, "--kind", rng.choice(("rrw", "ac", "boundary")), *where)
    elif command == "evaluate":
        run("evaluate", path, path, "-q", "-j", 1, "--classes", "0,1,2,3", *where)
    if command is None:  # as an image, of any number of channels
        with contextlib.suppress(RwtoolError):
            image, geometry, _ = read_channels_of((path,), spacing_mm=SPACING)
            if image.shape[1:] != geometry.array_shape or not np.isfinite(image).all():
                raise FindingError(f"it reads an image of {image.shape} on a grid of {geometry.array_shape}")
    fill_memory(0xA5)
    found = read_volume(path)
    fill_memory(0x33)
    if not np.array_equal(found[0], read_volume(path)[0]):
        raise FindingError(f"it reads something else each time: {found[0].ravel()[:8]}")
    if files.same:
        compare_volumes(found, files.truth, "the truth is")
    elif oracle is not None:
        other = oracle(path, found)
        if other is not None:
            compare_volumes(found, other, "another reader")
    return found


class Volumes:
    """Label files of a format."""

    def __init__(self, write, edit, oracle=None):
        self._write, self._edit, self._oracle = write, edit, oracle

    def make(self, rng):
        with tempfile.TemporaryDirectory() as folder:
            truth = self._write(rng, Path(folder))
            content = {part.name: part.read_bytes() for part in sorted(Path(folder).iterdir())}
        return Files(content, truth)

    def edit(self, rng, files):
        self._edit(rng, files)

    def use(self, files, folder, rng):
        use_volume(files, folder, rng, files.truth[2], self._oracle)


# NIfTI


def _write_nifti(rng, folder):
    labels, spacing = some_volume(rng)
    kind = nib.Nifti2Image if rng.random() < 0.3 else nib.Nifti1Image
    pair = kind is nib.Nifti1Image and rng.random() < 0.3
    kind = nib.Nifti1Pair if pair else kind
    image = kind(labels, np.diag([*spacing, 1]), dtype=labels.dtype)
    image.set_sform(image.affine, rng.choice((0, 1, 2)))
    image.set_qform(image.affine, rng.choice((0, 1, 4)))
    image.header.set_xyzt_units(rng.choice(("mm", "unknown")))
    if rng.random() < 0.3 and not pair:
        kind = type(image)
        image = kind(labels, image.affine, image.header.as_byteswapped(">"))
    name = "a.hdr" if pair else rng.choice(("a.nii", "a.nii.gz"))
    nib.save(image, folder / name)
    return labels, spacing, name


def _nifti_fields(data):
    two = data[:4] in (struct.pack("<i", 540), struct.pack(">i", 540))
    order = "<" if data[:4] in (struct.pack("<i", 540), struct.pack("<i", 348)) else ">"
    kind = nib.Nifti2Header if two else nib.Nifti1Header
    codes = {"i": {1: "b", 2: "h", 4: "i", 8: "q"}, "u": {1: "B"}, "f": {4: "f", 8: "d"}, "S": {}}
    found = []
    for name, (dtype, at) in kind.template_dtype.fields.items():
        base = dtype.base
        code = codes[base.kind].get(base.itemsize, "4s")
        many = int(np.prod(dtype.shape)) if dtype.shape else 1
        found += [(f"{name}[{k}]", at + k * base.itemsize, order + code) for k in range(many)]
    likely = ("dim", "datatype", "bitpix", "pixdim", "vox_offset", "scl", "xyzt", "qform", "sform", "quatern", "magic")
    return found + 3 * [each for each in found if each[0].startswith(likely)]


def _edit_nifti(rng, files):
    name = rng.choice(list(files.content))
    data = files.content[name]
    kind = rng.choice(("field", "field", "field", "gzip", "bytes"))
    packed = name.endswith(".gz")
    if kind == "gzip" and packed:
        files.edit(name, edit_gzip(rng, data))
    elif kind == "field" and not name.endswith(".img"):
        plain = nib.openers.Opener(io.BytesIO(data)) if not packed else None
        whole = byhand.gzip.decompress(data) if packed else plain.fobj.getvalue()
        edit = edit_fields(rng, whole, _nifti_fields(whole))
        files.edit(name, edit._replace(data=byhand.gzip.compress(edit.data, mtime=0) if packed else edit.data))
    else:
        files.edit(name, edit_bytes(rng, data))


def _read_by_nibabel(path, found):
    """What nibabel reads, where it does; rwtool says in a note where it goes by another rule."""
    try:
        image = nib.load(path)
        data = np.asanyarray(image.dataobj)
        unit = {1: 1000.0, 3: 0.001}.get(int(image.header["xyzt_units"]) & 7, 1.0)
    except Exception:
        return None
    if not float(image.header["vox_offset"]) and path.suffix not in (".hdr", ".img"):
        return None  # which nibabel takes to the letter
    odd = any("is no grid" in note or "does not define" in note for note in found[2])
    return data, None if odd else tuple(voxel_sizes(image.affine) * unit)


# MetaImage and NRRD


def _write_meta(rng, folder):
    labels, spacing = some_volume(rng)
    fields = {"ElementSpacing": "{} {} {}".format(*spacing)}
    kind = {"u1": "MET_UCHAR", "i1": "MET_CHAR", "u2": "MET_USHORT", "i2": "MET_SHORT", "i4": "MET_INT"}
    fields["ElementType"] = {**kind, "f4": "MET_FLOAT", "f8": "MET_DOUBLE"}[labels.dtype.str[1:]]
    data = labels.tobytes(order="F")
    if rng.random() < 0.3:
        fields["CompressedData"] = "True"
        data = zlib.compress(data)
        if rng.random() < 0.5:
            fields["CompressedDataSize"] = str(len(data))
    elif rng.random() < 0.2:
        fields["BinaryData"] = "False"
        data = " ".join(f"{value:g}" for value in labels.ravel(order="F")).encode()
    elif rng.random() < 0.2:
        fields["BinaryDataByteOrderMSB"] = "True"
        data = labels.astype(labels.dtype.newbyteorder(">")).tobytes(order="F")
    if rng.random() < 0.5:
        byhand.metaimage(folder / "a.mha", labels, data=data, **fields)
        return labels, spacing, "a.mha"
    if rng.random() < 0.3 and fields.get("BinaryData") is None and "CompressedData" not in fields:
        slices = np.split(labels, labels.shape[2], axis=2)
        big = ">" if "BinaryDataByteOrderMSB" in fields else "<"
        for k, part in enumerate(slices):
            stored = part.astype(part.dtype.newbyteorder(big)).tobytes(order="F")
            (folder / f"a{k:02d}.raw").write_bytes(stored)
        names = [f"a{k:02d}.raw" for k in range(len(slices))]
        listed = rng.random() < 0.5
        fields["ElementDataFile"] = "LIST\n" + "\n".join(names) if listed else f"a%02d.raw 0 {len(slices) - 1} 1"
    else:
        (folder / "a.raw").write_bytes(data)
        fields["ElementDataFile"] = "a.raw"
    byhand.metaimage(folder / "a.mhd", labels, data=b"", **fields)
    return labels, spacing, "a.mhd"


def _write_nrrd(rng, folder):
    labels, spacing = some_volume(rng)
    encoding = rng.choice(("raw", "gzip", "hex", "bzip2", "text"))
    raw = labels.tobytes(order="F")
    data = {
        "raw": raw, "gzip": byhand.gzip.compress(raw, mtime=0), "hex": raw.hex().encode(),
        "bzip2": bz2.compress(raw),
        "text": " ".join(f"{value:g}" for value in labels.ravel(order="F")).encode(),
    }[encoding]  # fmt: skip
    fields = {"type": {"f4": "float", "f8": "double"}.get(labels.dtype.str[1:], labels.dtype.name)}
    if rng.random() < 0.7:
        fields["space"] = rng.choice(("left-posterior-superior", "RAS"))
        fields["space directions"] = "({},0,0) (0,{},0) (0,0,{})".format(*spacing)
        fields["space origin"] = "(0,1,2)"
        fields["kinds"] = "domain domain domain"
    else:
        fields["spacings"] = "{} {} {}".format(*spacing)
    detached = rng.random() < 0.4
    if detached:
        fields["data file"] = "a.raw"
        (folder / "a.raw").write_bytes(data)
    name = "a.nhdr" if detached else "a.nrrd"
    more = {key.replace(" ", "_"): value for key, value in fields.items()}
    data = b"" if detached else data
    byhand.nrrd(folder / name, labels, "# a remark", "key:=value", encoding=encoding, data=data, **more)
    return labels, spacing, name


def _edit_headed(separators, until):
    def edit(rng, files):
        name = rng.choice(list(files.content))
        data = files.content[name]
        if name.endswith(".raw") or rng.random() < 0.15:
            files.edit(name, edit_bytes(rng, data))
        else:
            files.edit(name, edit_lines(rng, data, separators, until=until(data)))

    return edit


def _meta_end(data):
    at = data.lower().find(b"elementdatafile")
    return data[at : data.find(b"\n", at) + 1] if at >= 0 else None


def _read_by_sitk(path, found):
    """What SimpleITK reads, where it does, and does so twice alike."""
    import SimpleITK as sitk

    from rwtool.io.itk import kept_locale

    if path.suffix == ".png" and path.read_bytes()[24] < 8:
        return None  # which it spreads over 8 bits
    if path.suffix in (".nrrd", ".nhdr") and path.stat().st_size > 50_000:
        return None  # a line of a header that is very long crashes it
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        with kept_locale():
            image = sitk.ReadImage(str(path))
            array = sitk.GetArrayFromImage(image)
            fill_memory(0x5A)
            again = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    except Exception:
        return None
    if image.GetNumberOfComponentsPerPixel() > 1 or not np.array_equal(array, again):
        return None
    spacing = (*image.GetSpacing(), 1.0, 1.0)[:3]
    misspelt = path.suffix in (".mha", ".mhd") and b"ElementSpacing" not in path.read_bytes()  # which it passes over
    unsaid = (
        found[1] is None or path.suffix == ".tif" or misspelt or any("converted to mm" in note for note in found[2])
    )
    return array.transpose(), None if unsaid else spacing


# Other formats


def _write_through_rwtool(suffix, types="u1 i2 f4"):
    def write(rng, folder):
        labels, spacing = some_volume(rng, types)
        if suffix == ".png":
            labels = labels[:, :, :1]
        labels = labels if suffix != ".tif" else np.repeat(labels, 2, axis=2)
        geometry = rwtool.Geometry(np.diag([*spacing, 1.0]), labels.shape, (2, 1, 0), labels.shape)
        rwtool.write(folder / f"a{suffix}", rwtool.Volume(geometry.to_array(labels), geometry.spacing_mm, geometry))
        return labels, spacing if suffix not in (".png", ".tif", ".npy") else None, f"a{suffix}"

    return write


def _write_mgh(rng, folder):
    labels, spacing = some_volume(rng, "u1 i2 i4 f4")
    name = rng.choice(("a.mgz", "a.mgh"))
    nib.save(nib.MGHImage(labels, np.diag([*spacing, 1])), folder / name)
    return labels, spacing, name


def _edit_mgh(rng, files):
    (name,) = files.content
    data = files.content[name]
    packed = name.endswith("z")
    if packed and rng.random() < 0.25:
        files.edit(name, edit_gzip(rng, data))
        return
    if rng.random() < 0.3:
        files.edit(name, edit_bytes(rng, data))
        return
    whole = byhand.gzip.decompress(data) if packed else data
    names = ("version", "x", "y", "z", "frames", "type", "dof")
    fields = [(each, 4 * k, ">i") for k, each in enumerate(names)] + [("goodRAS", 28, ">h")]
    fields += [(f"float {k}", 30 + 4 * k, ">f") for k in range(15)]
    edit = edit_fields(rng, whole, fields)
    files.edit(name, edit._replace(data=byhand.gzip.compress(edit.data, mtime=0) if packed else edit.data))


def _read_mgh(path, found):
    """The voxels of an MGH file by hand."""
    data = path.read_bytes()
    data = byhand.gzip.decompress(data) if path.suffix == ".mgz" else data
    x, y, z, frames, kind = struct.unpack_from(">5i", data, 4)
    dtype = np.dtype({0: "u1", 1: ">i4", 3: ">f4", 4: ">i2", 10: ">u2"}[kind])
    array = np.frombuffer(data, dtype, x * y * z * frames, 284).reshape((x, y, z, frames), order="F")
    spacing = struct.unpack_from(">3f", data, 30) if struct.unpack_from(">h", data, 28)[0] > 0 else None
    return array, spacing


def _edit_vtk(rng, files):
    (name,) = files.content
    data = files.content[name]
    if rng.random() < 0.2:
        files.edit(name, edit_bytes(rng, data))
    else:
        files.edit(name, edit_lines(rng, data, (" ",), until=b"LOOKUP_TABLE default\n"))


def _edit_gipl(rng, files):
    (name,) = files.content
    fields = [(f"size {k}", 2 * k, ">H") for k in range(4)] + [("type", 8, ">H"), ("magic", 252, ">I")]
    fields += [(f"step {k}", 10 + 4 * k, ">f") for k in range(4)] + [
        (f"origin {k}", 204 + 8 * k, ">d") for k in range(4)
    ]
    edit = edit_fields if rng.random() < 0.6 else lambda rng, data, _: edit_bytes(rng, data)
    files.edit(name, edit(rng, files.content[name], fields))


_NPY_TYPES = [repr(name) for name in ("|O", "<U3", "<f2", ">u8", "<c8", "|V1", "|b1", "<M8", "<f16", "x")]
_NPY_TYPES += ["[('a', '<i4')]"]


def _edit_npy(rng, files):
    (name,) = files.content
    data = files.content[name]
    end = data.index(b"\n") + 1
    kind = rng.choice(("head", "head", "version", "bytes"))
    if kind == "bytes":
        files.edit(name, edit_bytes(rng, data))
        return
    if kind == "version":
        files.edit(name, edit_fields(rng, data, [("version", 6, "<B"), ("minor", 7, "<B"), ("length", 8, "<H")]))
        return
    text = data[10:end].decode("latin-1")
    new = rng.choice((
        text.replace("(", f"({rng.choice(WHOLE)}, ", 1), text.replace("(", "(0, ", 1), text.replace("(", "(1, ", 1),
        text.replace("False", "True"), text.replace("False", "0"), text.replace("shape", "shapes"),
        re.sub(r"'[<>|]\w\d'", rng.choice(_NPY_TYPES), text), "(" * 3000, "__import__('os')", "{}", text * 2,
        text.replace("}", f", 'x': {rng.choice(WHOLE)}}}"), re.sub(r"\(.*\)", "()", text),
        re.sub(r"\(.*\)", "[2, 2]", text),
    ))  # fmt: skip
    head = new.encode("latin-1")
    size = struct.pack("<H", min(len(head), 65535))
    files.edit(name, Edit(data[:8] + size + head + data[end:], f"header {new[:60]!r}"))


def _read_by_numpy(path, found):
    return np.load(path, allow_pickle=False).transpose(), None


def _write_bmp(rng, folder):
    labels, _ = some_volume(rng, "u1")
    bits = rng.choice((4, 8))
    palette = [(k, 2 * k, 3 * k) for k in range(rng.choice((4, 16)))]
    byhand.bmp(folder / "a.bmp", labels[:, :, 0].T, bits, palette)
    return labels[:, :, :1], None, "a.bmp"


def _edit_bmp(rng, files):
    (name,) = files.content
    fields = [("size", 2, "<I"), ("offset", 10, "<I"), ("header", 14, "<I"), ("width", 18, "<i"), ("height", 22, "<i")]
    fields += [("bits", 28, "<H"), ("packing", 30, "<I"), ("colours", 46, "<I")]
    edit = edit_fields if rng.random() < 0.6 else lambda rng, data, _: edit_bytes(rng, data)
    files.edit(name, edit(rng, files.content[name], fields))


def _edit_png(rng, files):
    (name,) = files.content
    data = files.content[name]
    if rng.random() < 0.3:
        files.edit(name, edit_bytes(rng, data))
        return
    chunks, at = [], 8
    while at < len(data):
        (size,) = struct.unpack_from(">I", data, at)
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    index = rng.randrange(len(chunks))
    kind = rng.choice(("field", "field", "bytes", "delete", "repeat", "order", "bomb"))
    what = f"chunk {chunks[index][0].decode()}: {kind}"
    if kind == "field":
        fields = [("width", 0, ">I"), ("height", 4, ">I"), *((n, 8 + k, "B") for k, n in enumerate("bcpfi"))]
        edit = edit_fields(rng, chunks[0][1], fields)
        chunks[0], what = (b"IHDR", edit.data), edit.what
    elif kind == "bytes":
        chunks[index] = (chunks[index][0], edit_bytes(rng, chunks[index][1]).data)
    elif kind == "delete":
        del chunks[index]
    elif kind == "repeat":
        chunks.insert(index, chunks[index])
    elif kind == "order":
        rng.shuffle(chunks)
    else:
        chunks.insert(1, (rng.choice((b"iCCP", b"zTXt")), b"a\0\0" + zlib.compress(bytes(20_000_000))))
    files.edit(name, Edit(data[:8] + b"".join(byhand.chunk(*each) for each in chunks), what))


def _edit_tif(rng, files):
    (name, *_) = files.content
    data = files.content[name]
    if "a.json" not in files.content and rng.random() < 0.2:
        files.content["a.json"] = b'{"spacing": [3.0, 0.9, 0.5], "more": {"x": [1, "2"]}}'
    if "a.json" in files.content:
        files.edit("a.json", edit_json(rng, files.content["a.json"]))
        files.same = False
        return
    if rng.random() < 0.3:
        files.edit(name, edit_bytes(rng, data))
        return
    fields, at = [("version", 2, "<H"), ("first page", 4, "<I")], struct.unpack_from("<I", data, 4)[0]
    while at and at + 2 < len(data):
        (many,) = struct.unpack_from("<H", data, at)
        fields.append(("entries", at, "<H"))
        for k in range(many):
            (tag,) = struct.unpack_from("<H", data, at + 2 + 12 * k)
            places = (("", 0, "<H"), (" type", 2, "<H"), (" count", 4, "<I"), (" value", 8, "<I"))
            fields += [(f"tag {tag}{each}", at + 2 + 12 * k + off, code) for each, off, code in places]
        fields.append(("next page", at + 2 + 12 * many, "<I"))
        (at,) = struct.unpack_from("<I", data, at + 2 + 12 * many)
    files.edit(name, edit_fields(rng, data, fields))


def _write_dicom(rng, folder):
    labels, _ = some_volume(rng, "u2")
    for k in range(labels.shape[2]):
        byhand.dicom(folder / f"s{k}.dcm", labels[:, :, k].T, (0, 0, 3 * k), spacing="0.9\\0.5")
    return labels, None, "." if labels.shape[2] > 1 else "s0.dcm"


def _edit_dicom(rng, files):
    name = rng.choice(list(files.content))
    data = files.content[name]
    if rng.random() < 0.3:
        files.edit(name, edit_bytes(rng, data))
        return
    elements, at = [], 132
    while at < len(data):
        kind = data[at + 4 : at + 6]
        long = kind in (b"OB", b"OW", b"SQ", b"UN")
        start = at + (12 if long else 8)
        size = int.from_bytes(data[start - 4 : start] if long else data[start - 2 : start], "little")
        elements.append((data[at:start], data[start : start + size]))
        at = start + size
    index = rng.randrange(len(elements))
    head, value = elements[index]
    kind = rng.choice(("value", "value", "head", "delete", "repeat", "order", "number"))
    if kind == "value":
        new = rng.choice(TEXTS)[:60000].encode("utf-8", "surrogatepass")
        new += b" " * (len(new) % 2)
        size = struct.pack("<I", len(new)) if len(head) == 12 else struct.pack("<H", len(new))
        elements[index] = (head[: -len(size)] + size, new)
    elif kind == "number":
        new = rng.choice(WHOLE) % 65536
        elements[index] = (head, struct.pack("<H", new) + value[2:])
    elif kind == "head":
        elements[index] = (edit_bytes(rng, head).data, value)
    elif kind == "delete":
        del elements[index]
    elif kind == "repeat":
        elements.insert(index, elements[index])
    else:
        rng.shuffle(elements)
    what = f"element {head[:6].hex()}: {kind}"
    files.edit(name, Edit(data[:132] + b"".join(a + b for a, b in elements), what))


def _write_b2nd(rng, folder):
    import blosc2

    labels, _ = some_volume(rng, "u1 i1 i2 f4")
    blosc2.asarray(np.ascontiguousarray(labels.transpose()), urlpath=str(folder / "a_seg.b2nd"), mode="w")
    return labels, None, "a_seg.b2nd"


def _edit_b2nd(rng, files):
    (name,) = files.content
    data = files.content[name]
    fields = [("header size", 11, ">i"), ("frame size", 16, ">Q"), ("flags", 25, ">I"), ("raw size", 30, ">q")]
    fields += [("packed size", 39, ">q"), ("type size", 48, ">i"), ("block size", 53, ">i"), ("chunk size", 58, ">i")]
    start = data.index(b"\x97\x00\x03\x93") + 4  # of the layer b2nd: shape, chunks and blocks
    fields += [(f"shape {k}", start + 1 + 9 * k, ">q") for k in range(3)]
    fields += [(f"piece {k}", start + 29 + 5 * k + k // 3, ">i") for k in range(6)]
    if rng.random() < 0.4:
        files.edit(name, edit_fields(rng, data, fields))
    else:
        files.edit(name, edit_bytes(rng, data))


VOLUMES = {
    "nifti": Volumes(_write_nifti, _edit_nifti, _read_by_nibabel),
    "metaimage": Volumes(_write_meta, _edit_headed((" = ", "="), _meta_end), _read_by_sitk),
    "nrrd": Volumes(
        _write_nrrd, _edit_headed((":=", ": ", ":"), lambda data: b"\n\n" if b"\n\n" in data else None), _read_by_sitk
    ),
    "mgh": Volumes(_write_mgh, _edit_mgh, _read_mgh),
    "npy": Volumes(_write_through_rwtool(".npy", "u1 i1 u2 i4 f4 f8"), _edit_npy, _read_by_numpy),
    "vtk": Volumes(_write_through_rwtool(".vtk", "u1 i2 f4"), _edit_vtk, _read_by_sitk),
    "gipl": Volumes(_write_through_rwtool(".gipl", "u1 i2 f4"), _edit_gipl, _read_by_sitk),
    "png": Volumes(_write_through_rwtool(".png", "u1 u2"), _edit_png, _read_by_sitk),
    "bmp": Volumes(_write_bmp, _edit_bmp),
    "tiff": Volumes(_write_through_rwtool(".tif", "u1 u2"), _edit_tif, _read_by_sitk),
    "dicom": Volumes(_write_dicom, _edit_dicom),
    "b2nd": Volumes(_write_b2nd, _edit_b2nd),
}
