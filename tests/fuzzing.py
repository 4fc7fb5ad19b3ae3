"""Files that were edited, given to what reads them: an error of one line or a right result, and nothing else.

A target makes sound files of a seed, edits them, and uses them as a user would. A case is a target and a number, and
comes out the same each time:

    python tests/fuzzing.py                     20,000 cases over all targets, and what they came to
    python tests/fuzzing.py --cases 500 nrrd    of one target
    python tests/fuzzing.py nrrd:123            one case, told at length; its files are kept
"""

import argparse
import bz2
import collections
import contextlib
import ctypes
import io
import json
import math
import multiprocessing
import os
import random
import re
import resource
import shutil
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import byhand
import nibabel as nib
import numpy as np
from click.testing import CliRunner
from mutations import (
    TEXTS,
    WHOLE,
    Edit,
    edit_bytes,
    edit_fields,
    edit_gzip,
    edit_json,
    edit_lines,
    edit_table,
    edit_zip,
)
from nibabel.affines import voxel_sizes

import rwtool
from rwtool.cli import main
from rwtool.datasets.channels import read_channels_of
from rwtool.errors import RwtoolError
from rwtool.io.formats import suited
from rwtool.maps.folder import read_map_set

SECONDS = 10
MEGABYTES = 1000
LONGEST_MESSAGE = 6000  # characters
SPACING = (3.0, 0.9, 0.5)  # (z, y, x), of files that state none
_NO_MEMORY = re.compile("not enough memory|bad_alloc|allocat", re.IGNORECASE)


class FindingError(AssertionError):
    """What must not be."""


@dataclass(frozen=True)
class Verdict:
    """What a case came to: ``read``, ``refused``, or one of the findings; with the reason."""

    kind: str
    reason: str = ""
    edit: str = ""
    seconds: float = 0.0

    @property
    def is_finding(self):
        return self.kind not in ("read", "refused")


@dataclass
class Files:
    """Contents by name, and what a sound reader makes of them."""

    content: dict
    truth: object = None
    same: bool = True
    edits: list = field(default_factory=list)

    def edit(self, name, edit):
        self.content[name] = edit.data
        self.same &= edit.same
        self.edits.append(f"{name}: {edit.what}")


def run(*words):
    """Exit code and output of a command, which must end as commands do."""
    result = CliRunner().invoke(main, list(map(str, words)))
    said = result.output
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    if "Traceback" in said or "bug in rwtool" in said:
        raise FindingError(said[-3000:])
    if result.exit_code not in (0, 1, 2):
        raise FindingError(f"exit code {result.exit_code}: {said}")
    if result.exit_code and not said.strip():
        raise FindingError(f"{words[0]}: exit code {result.exit_code} without a word")
    _check_said(said)
    return result.exit_code, said


def _check_said(said):
    """What is said is said in so many characters, all of which appear."""
    wrong = {c for c in said if not c.isprintable()} - {"\n"}
    if wrong:
        raise FindingError(f"it prints {wrong!a}: {said[-2000:]!a}")
    longest = max(said.split("\n"), key=len)
    if len(longest) > LONGEST_MESSAGE:
        raise FindingError(f"it says a line of {len(longest):,} characters: {longest[:300]!a}")
    if _NO_MEMORY.search(said):
        raise FindingError(f"it runs out of memory: {said[-1000:]}")


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
    header = rwtool.io.formats.read_header(path, **suited(path, spacing_mm=SPACING))
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
    where = ("--spacing", *SPACING) if not rwtool.io.formats.carries_spacing(path) else ()
    if command == "maps":
        run("maps", path, folder / "out", "-q", "-j", 1, "--kind", rng.choice(("rrw", "ac", "boundary")), *where)
    elif command == "evaluate":
        run("evaluate", path, path, "-q", "-j", 1, "--classes", "0,1,2,3", *where)
    if command is None:  # as an image, of any number of channels
        with contextlib.suppress(RwtoolError):
            image, geometry, _ = read_channels_of((path,), spacing_mm=SPACING)
            if image.shape[1:] != geometry.array_shape or not np.isfinite(image).all():
                raise FindingError(f"it reads an image of {image.shape} on a grid of {geometry.array_shape}")
    _fill_memory(0xA5)
    found = read_volume(path)
    _fill_memory(0x33)
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
            _fill_memory(0x5A)
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


def _fill_memory(byte):
    """Have the C library fill what it allocates, so that what nobody wrote there is not twice the same."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(-6, byte)  # M_PERTURB


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


def _use_dicom(files, folder, rng):
    name = files.truth[2]
    use_volume(files, folder, rng, name)


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


# Files of a study


class Folder:
    """Files of which one is edited, used by a function of the folder that they lie in."""

    def __init__(self, make, edits, use):
        self._make, self._edits, self._use = make, edits, use

    def make(self, rng):
        return self._make(rng)

    def edit(self, rng, files):
        names = [name for name in files.content for part in self._edits if re.search(part, name)]
        name = rng.choice(names)
        how = next(edit for part, edit in self._edits.items() if re.search(part, name))
        files.edit(name, how(rng, files.content[name]))

    def use(self, files, folder, rng):
        self._use(files, folder, rng)


def _nifti_bytes(labels, spacing=(0.5, 0.9, 3.0)):
    return nib.Nifti1Image(labels, np.diag([*spacing, 1])).to_bytes()


def _some_labels(seed, shape=(6, 5, 4), classes=3):
    return np.random.default_rng(seed).integers(0, classes, shape).astype(np.uint8)


_MADE = {}  # what is the same for many cases


def _made(key, make):
    """Files that take a while to make, by name; `make` writes them into a folder."""
    if key not in _MADE:
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder))
            files = [path for path in sorted(Path(folder).rglob("*")) if path.is_file()]
            _MADE[key] = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
    return dict(_MADE[key])


def _edit_packed(rng, data):
    return edit_gzip(rng, data) if rng.random() < 0.4 else edit_bytes(rng, data)


_MAP_SETS = (
    {"kinds": ("rrw",), "layout": "packed", "format": "npy"},
    {"kinds": ("boundary",), "format": "nii.gz"},
    {"kinds": ("constant",), "dtype": "int16", "format": "nii.gz", "class_weights": {1: 2.0}},
)


def _make_maps(rng):
    settings = rng.choice(_MAP_SETS)

    def make(folder):
        (folder / "labels").mkdir()
        for case in "ab":
            (folder / "labels" / f"{case}.nii").write_bytes(_nifti_bytes(_some_labels(ord(case))))
        rwtool.make_maps(folder / "labels", folder / "maps", jobs=1, **settings)

    content = _made(str(settings), make)
    sound = dict(content)
    if rng.random() < 0.3:  # as a run that was killed leaves it
        (sidecar,) = (name for name in content if name.endswith("maps.json"))
        told = json.loads(content[sidecar])
        form, stamp = told["format"], _made(f"stamp {settings}", lambda folder: _write_stamp(folder, content, sidecar))
        lines = [
            {"format": form, "settings": stamp["stamp"].decode(), "case": case, "record": record}
            for case, record in told["cases"].items()
        ]
        content[f"{sidecar}.journal"] = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
        content[sidecar] = json.dumps({**told, "cases": {}}).encode()
    return Files(content, (settings, sound))


def _write_stamp(folder, content, sidecar):
    """What binds the lines of a journal to the settings of its folder."""
    (folder / "maps.json").write_bytes(content[sidecar])
    stamp = read_map_set(folder).settings.describe()
    (folder / "maps.json").unlink()
    (folder / "stamp").write_text(stamp)


def _edit_journal(rng, data):
    lines = data.splitlines()
    if rng.random() < 0.5:
        return edit_bytes(rng, data)
    index = rng.randrange(len(lines))
    edit = edit_json(rng, lines[index])
    lines[index] = edit.data
    return edit._replace(data=b"\n".join(lines) + b"\n", same=False)


def _use_maps(files, folder, rng):
    settings, sound = files.truth
    (kind,) = settings["kinds"]
    inside = folder / "in"
    names = [name for name in sound if name.endswith((".npy", ".nii.gz"))]
    changed = [name for name in names if files.content[name] != sound[name]]
    code, said = run("check", inside / "maps" / kind, "-j", 1, "--format", "json")
    checked = json.loads(said[: said.rindex("}") + 1])["cases"] if code != 2 and said.startswith("{") else {}
    for name in changed:
        case = checked.get(Path(name).name.partition(".")[0])  # which a damaged journal does not name
        if case is not None and case["verified"]:
            raise FindingError(f"{name} verified: {said}")
    if files.same and files.edits and not changed and code != 0:
        raise FindingError(f"what means the same does not verify: {said}")
    with contextlib.suppress(RwtoolError):
        rwtool.read_map(inside / rng.choice(names))
    options = [f"--{name}={value}" for name, value in settings.items() if name not in ("kinds", "class_weights")]
    options += ["--class-weight=1=2"] if "class_weights" in settings else []
    code, said = run("maps", inside / "labels", inside / "maps", "--kind", kind, "-j", 1, *options)
    if code == 0:
        code, said = run("check", inside / "maps" / kind, "-j", 1)
        if code != 0:
            raise FindingError(f"maps that were made again do not verify: {said}")
    if code:
        raise RwtoolError(said)


def _make_dataset(rng):
    content = {f"in/{case}.nii": _nifti_bytes(_some_labels(ord(case))) for case in "ab"}
    labels = rng.choice((
        b'{"background": 0, "one": 1, "two": 2}', b'{"0": "background", "1": "one", "2": "two"}',
        b'{"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}',
    ))  # fmt: skip
    content["in/dataset.json"] = b'{"channel_names": {"0": "CT"}, "labels": ' + labels + b', "file_ending": ".nii"}'
    return Files(content)


def _use_dataset(files, folder, rng):
    code, said = run("evaluate", folder / "in/in", folder / "in/in", "-q", "-j", 1)
    if not code:
        code, said = run("maps", folder / "in/in", folder / "out", "-j", 1)
    if code:
        raise RwtoolError(said)


_SPLIT = b'[{"train": ["a", "b"], "val": ["c.nii.gz"]}, {"train": ["b", "c"], "val": ["a"]}]'


def _make_split(rng):
    kind = rng.choice(("folds", "one", "names", "text"))
    content = {
        "folds": _SPLIT, "one": b'{"format": 1, "train": ["a"], "val": ["b", "c"]}', "names": b'["a", "b"]',
        "text": b"a\nb\nc.nii.gz\n",
    }[kind]  # fmt: skip
    return Files({"cases.txt" if kind == "text" else "split.json": content}, kind)


def _use_split(files, folder, rng):
    from rwtool.datasets.splits import read_case_names, read_split

    (name,) = files.content
    ending = rng.choice(("", "", ":0", ":1", ":7")) if files.truth == "folds" else ""
    source = f"{folder / 'in' / name}{ending}"
    if files.truth in ("folds", "one") and rng.random() < 0.5:
        split = read_split(source, ["a", "b", "c"])
        if not set(split.train) | set(split.val) <= {"a", "b", "c"} or set(split.train) & set(split.val):
            raise FindingError(f"{split}")
    elif not all(isinstance(case, str) and case.strip() for case in read_case_names(source)):
        raise FindingError(f"{read_case_names(source)}")


def _make_config(rng):
    settings = {
        "loss": "boundary",
        "mixed_with": "dice",
        "mix": "gradual",
        "patch": (8, 12),
        "target_spacing": (0.5, 2),
    }
    config = rwtool.TrainConfig(**settings)
    return Files({"config.toml": config.to_toml().encode()}, config)


def _use_config(files, folder, rng):
    from rwtool.network.config import read_config

    run("train", folder / "none", folder / "none", folder / "out", "--config", folder / "in" / "config.toml")
    config = rwtool.TrainConfig(**read_config(folder / "in" / "config.toml"))
    if files.same and config != files.truth:
        raise FindingError(f"{config}")


def _make_tables(rng):
    def make(folder):
        for case in "abcd":
            for seed, part in enumerate(("reference", "unet", "other")):
                (folder / part).mkdir(exist_ok=True)
                (folder / part / f"{case}.nii").write_bytes(_nifti_bytes(_some_labels(ord(case) + 10 * seed)))
        words = (folder / "reference", f"unet={folder / 'unet'}", f"other={folder / 'other'}")
        run("evaluate", *words, "-o", folder / "out", "--metrics", "dice,hd95,volume_ml", "--no-report", "-q", "-j", 1)
        for path in [*folder.iterdir()]:
            if path.name != "out":
                shutil.rmtree(path)

    content = _made("tables", make)
    kept = {Path(name).name: data for name, data in content.items() if name in ("out/cases.csv", "out/summary.json")}
    if rng.random() < 0.25:
        foreign = b"case,algorithm,value,task\na,x,0.5,t1\nb,x,0.25,t1\na,y,1,t1\nb,y,0,t2\n"
        kept = {"cases.csv": foreign}
    return Files(kept)


def _use_tables(files, folder, rng):
    words = rng.choice(((), ("--all-pairs",), ("--rank",), ("--undefined", "exclude"), ("--subject", "(.)")))
    words = ("--permutations", 50, "--no-report", *words)
    code, said = run("compare", folder / "in" / "cases.csv", *words, "-o", folder / "out")
    if code:
        raise RwtoolError(said)
    again, said = run("compare", folder / "out" / "cases.csv", *words)
    if again:
        raise FindingError(f"the table that it wrote is refused: {said}")


def _edit_summary(rng, data):
    """Edit the rules of a summary, which alone are read, as often as the rest."""
    if rng.random() < 0.5:
        return edit_json(rng, data)
    start = data.index(b'"rules": {') + 9
    end = data.index(b"}", start) + 1
    edit = edit_json(rng, data[start:end])
    return edit._replace(data=data[:start] + edit.data + data[end:], same=False)


def _make_groups(rng):
    content = {f"labels/{case}.nii": _nifti_bytes(_some_labels(ord(case))) for case in "abc"}
    content["groups.csv"] = b"case,group\na,left\nb.nii.gz,left\nc,right\n"
    return Files(content)


def _use_groups(files, folder, rng):
    labels = folder / "in" / "labels"
    code, said = run("evaluate", labels, labels, "--group", folder / "in" / "groups.csv", "-j", 1)
    if code:
        raise RwtoolError(said)


def _make_names(rng):
    name = "sub-01_desc-x_dseg"
    return Files(
        {f"{name}.nii": _nifti_bytes(_some_labels(0)), f"{name}.tsv": b"index\tname\n1\tone\n2\ttwo\n0\tnone\n"}
    )


def _use_names(files, folder, rng):
    code, said = run("maps", folder / "in", folder / "out", "-j", 1)
    if code:
        raise RwtoolError(said)


def _make_curves(rng):
    from runfolders import write_curve

    def make(folder):
        for seed in (0, 1):
            run = folder / "rrw" / f"seed-{seed}"
            write_curve(run, [0.5, 0.25, 0.125], {1: [None, 0.5, 0.75], 2: [None, 0.25, 0.5]}, seed=seed)
            (run / "run.json").write_text('{"classes": [{"value": 1, "name": "one"}, {"value": 2, "name": "two"}]}')
        write_curve(folder / "rrw" / "seed-2", [0.5], {1: [None], 2: [None]}, seed=2, epochs=3, diverged=2)

    return Files(_made("curves", make))


def _use_curves(files, folder, rng):
    code, said = run(
        "convergence", folder / "in" / "rrw", *rng.choice((*[(), ("--format", "json")] * 10, ("-o", folder / "out")))
    )
    if code:
        raise RwtoolError(said)


def _edit_toml(rng, data):
    return edit_lines(rng, data, (" = ",))


def _make_cache(rng):
    def make(folder):
        for case in "ab":
            for part in ("labels", "unet"):
                (folder / part).mkdir(exist_ok=True)
                (folder / part / f"{case}.nii").write_bytes(_nifti_bytes(_some_labels(ord(case) + len(part))))
        words = ("-o", folder / "out", "--no-report", "-q", "-j", 1)
        run("evaluate", folder / "labels", folder / "unet", *words)

    content = _made("cache", make)
    return Files(content, content["out/cases.csv"])


def _use_cache(files, folder, rng):
    inside = folder / "in"
    code, said = run("evaluate", inside / "labels", inside / "unet", "-o", inside / "out", "--no-report", "-q", "-j", 1)
    if code:
        raise RwtoolError(said)
    if (inside / "out" / "cases.csv").read_bytes() != files.truth:
        raise FindingError("an edited cache gives other numbers")


def _make_nnunet(rng):
    from nnunetfolders import make_model

    def make(folder):
        def put(path):
            if path.suffix == ".nii":
                path.write_bytes(_nifti_bytes(_some_labels(ord(path.stem[0]), classes=2)))

        make_model(folder / "Dataset001_Heart", ending=".nii")
        (folder / "labels").mkdir()
        for case in "abcd":
            (folder / "labels" / f"{case}.nii").touch()
        for path in folder.rglob("*"):
            put(path)

    return Files(_made("nnunet", make))


def _use_nnunet(files, folder, rng):
    model = next((folder / "in" / "Dataset001_Heart").iterdir())
    words = rng.choice(((folder / "in" / "labels", model), (model,)))
    code, said = run("evaluate", *words, "-q", "-j", 1)
    if code:
        raise RwtoolError(said)


def _make_plans(rng):
    flat = rng.random() < 0.5

    def make(folder):
        import blosc2

        name = "2d" if flat else "3d_fullres"
        (folder / f"nnUNetPlans_{name}").mkdir()
        (folder / "gt_segmentations").mkdir()
        labels = _some_labels(0)
        path = folder / f"nnUNetPlans_{name}" / "a_seg.b2nd"
        blosc2.asarray(np.ascontiguousarray(labels.T[None]), urlpath=str(path), mode="w")
        (folder / "gt_segmentations" / "a.nii").write_bytes(_nifti_bytes(labels))
        parent = {"data_identifier": f"nnUNetPlans_{name}", "spacing": [0.9, 0.5] if flat else [3.0, 0.9, 0.5]}
        plans = {"image_reader_writer": "SimpleITKIO", "transpose_forward": [0, 1, 2]}
        plans["configurations"] = {name: parent, f"{name}_large": {"inherits_from": name, "batch_size": 2}}
        (folder / "nnUNetPlans.json").write_text(json.dumps(plans))

    return Files(_made(f"plans {flat}", make))


def _use_plans(files, folder, rng):
    (labels,) = (folder / "in").glob("nnUNetPlans_*")
    code, said = run("maps", labels, folder / "out", "-j", 1)
    if code:
        raise RwtoolError(said)
    (sidecar,) = (folder / "out").rglob("maps.json")
    spacing = json.loads(sidecar.read_text())["cases"]["a"]["spacing_mm"]
    if files.same and spacing != [3.0, 0.9, 0.5]:
        raise FindingError(f"it reads a spacing of {spacing}")


# Checkpoints


def _checkpoint():
    import torch

    from rwtool.datasets.classes import Classes
    from rwtool.network.checkpoint import Checkpoint, Task, build_network
    from rwtool.network.normalization import Normalization

    config = rwtool.TrainConfig(features=2, depth=2, patch=(8, 12), batch_size=4, amp="off")
    task = Task(Classes((0, 1, 4), ("background", "one", "four"), None, "labels"), 1, False, Normalization("zscore"))
    torch.manual_seed(0)
    network = build_network(config, task)
    split = {"train": ["a"], "val": ["b"]}
    inputs = {"slice axis": 2, "orientation": None, "classes": [0, 1, 4]}
    return Checkpoint(config, task, network.state_dict(), 1, [{"epoch": 1, "loss": 0.5}], split=split, inputs=inputs)


def _make_checkpoint(rng):
    content = _made("checkpoint", lambda folder: _checkpoint().save(folder / "last.pt"))
    content["image/a.nii"] = _nifti_bytes(_some_labels(3, (12, 8, 2)).astype(np.int16))
    return Files(content)


def _edit_checkpoint(rng, data):
    """Edit the archive; or a value in it, under a right checksum."""
    import torch

    from rwtool.network.checkpoint import _checksum

    if rng.random() < 0.5:
        return edit_zip(rng, data)
    content = torch.load(io.BytesIO(data), weights_only=True)
    holder, path = content, []
    while True:
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        if path and path[0] == "model":
            keys = [key for key in keys if isinstance(key, str)]
        key = rng.choice(keys)
        path.append(key)
        inner = holder[key]
        if not isinstance(inner, (dict, list)) or not inner or rng.random() < 0.2:
            break
        holder = inner
    value = holder[key]
    odd = [
        *WHOLE[:24],
        *(x for x in (0.5, -1.0, math.nan, math.inf, 1e300)),
        *TEXTS[:40],
        None,
        True,
        [],
        {},
        [value],
        {"a": value},
    ]
    if isinstance(value, torch.Tensor):
        odd += [
            value.double(),
            value[:1] if value.ndim else value,
            value.to_sparse(),
            value.reshape(-1),
            value * math.nan,
        ]
    new = rng.choice(odd)
    if isinstance(holder, dict) and rng.random() < 0.15:
        holder[rng.choice(("x", 3, None, "a" * 300, "\ud800"))] = value
        what = "a key more"
    elif rng.random() < 0.15:
        del holder[key]
        what = "a key less"
    else:
        holder[key] = new
        what = repr(new)[:60]
    with contextlib.suppress(Exception):
        content["crc32"] = _checksum(content) if path != ["crc32"] else content["crc32"]
    made = io.BytesIO()
    torch.save(content, made)
    return Edit(made.getvalue(), f"{'.'.join(map(str, path))}: {what}")


def _use_checkpoint(files, folder, rng):
    code, said = run(
        "predict", folder / "in" / "last.pt", folder / "in" / "image", folder / "out", "-q", "--device", "cpu"
    )
    if code:
        raise RwtoolError(said)
    labels = rwtool.read_labels(folder / "out" / "a.nii").array
    if not np.isin(labels, (0, 1, 4)).all() and files.same:
        raise FindingError(f"{np.unique(labels)}")


TARGETS = {
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
    "maps": Folder(
        _make_maps,
        {
            r"maps\.json$": edit_json,
            r"journal$": _edit_journal,
            r"\.nii\.gz$": _edit_packed,
            r"\.npy$": edit_bytes,
        },
        _use_maps,
    ),
    "dataset": Folder(_make_dataset, {r"dataset\.json": edit_json}, _use_dataset),
    "split": Folder(_make_split, {r"\.json": edit_json, r"\.txt": edit_table}, _use_split),
    "config": Folder(_make_config, {"": _edit_toml}, _use_config),
    "tables": Folder(_make_tables, {r"\.csv": edit_table, r"\.json": _edit_summary}, _use_tables),
    "groups": Folder(_make_groups, {r"\.csv": edit_table}, _use_groups),
    "names": Folder(_make_names, {r"\.tsv": lambda rng, data: edit_table(rng, data, "\t")}, _use_names),
    "curves": Folder(_make_curves, {r"\.csv": edit_table, r"\.json": edit_json, r"\.toml": _edit_toml}, _use_curves),
    "cache": Folder(_make_cache, {r"out/cache/": edit_json}, _use_cache),
    "nnunet": Folder(_make_nnunet, {r"(dataset|plans)\.json": edit_json}, _use_nnunet),
    "plans": Folder(_make_plans, {r"Plans\.json": edit_json}, _use_plans),
    "checkpoint": Folder(_make_checkpoint, {r"\.pt": _edit_checkpoint}, _use_checkpoint),
}


class _Misbehaving:
    """What must be found."""

    def __init__(self, kind):
        self._kind = kind

    def make(self, rng):
        return Files({"a": b"a"}, self._kind)

    def edit(self, rng, files):
        files.edit("a", Edit(b"a", "nothing", True))

    def use(self, files, folder, rng):
        kind = files.truth
        if kind == "hangs":
            time.sleep(1000)
        elif kind == "crashes":
            os.abort()
        elif kind == "takes memory":
            bytearray(3 << 30)
        elif kind == "has a bug":
            raise ZeroDivisionError("a bug")
        elif kind == "writes elsewhere":
            (folder / "elsewhere").touch()
        elif kind == "warns":
            warnings.warn("a warning", RuntimeWarning, stacklevel=1)
        elif kind == "writes inside":
            (folder / "in" / "b").touch()


_CHECKS = {
    kind: _Misbehaving(kind)
    for kind in ("hangs", "crashes", "takes memory", "has a bug", "writes elsewhere", "warns", "writes inside")
}  # of this module


# Cases


def attempt(name, number, *, edits=True, keep=None):
    """Make, edit and use the files of a case."""
    target, rng = {**TARGETS, **_CHECKS}[name], random.Random(f"{name} {number}")
    files = target.make(rng)
    start, busy = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("error")
        folder = Path(place) / "case"
        try:
            for _ in range(rng.choice((1, 1, 1, 2, 3)) if edits else 0):
                with contextlib.suppress(*() if not files.edits else (Exception,)):  # a second edit may find nothing
                    target.edit(rng, files)
            _put(files, folder)
            if keep is not None:
                shutil.copytree(folder, keep, dirs_exist_ok=True)
            with _core("edt" if number % 4 == 0 else ""):
                target.use(files, folder, rng)
            verdict = ("read", "")
            _check_left(files, folder, name)
        except RwtoolError as error:
            verdict = ("refused", str(error))
            try:
                _check_error(error, folder)
                _check_left(files, folder, name)
            except FindingError as found:
                verdict = ("finding", str(found))
        except FindingError as found:
            verdict = ("finding", str(found))
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            kind = "warning" if isinstance(error, Warning) else "traceback"
            verdict = (kind, f"{type(error).__name__} in {Path(where.filename).name}:{where.lineno}: {error}"[:600])
            if keep is not None:
                traceback.print_exc()
    seconds = min(time.perf_counter() - start, time.process_time() - busy)  # others may be busy here
    if seconds > SECONDS:
        verdict = ("slow", f"{seconds:.1f} s; {verdict}")
    return Verdict(*verdict, edit="; ".join(files.edits), seconds=seconds)


@contextlib.contextmanager
def _core(name):
    """What measures distances; and memory is filled no more when the block ends."""
    before = os.environ.get("RWTOOL_CORE")
    os.environ["RWTOOL_CORE"] = name
    try:
        yield
    finally:
        del os.environ["RWTOOL_CORE"]
        if before is not None:
            os.environ["RWTOOL_CORE"] = before
        _fill_memory(0)


def _put(files, folder):
    """Write the files where the case is used."""
    (folder / "in").mkdir(parents=True)
    for name, data in files.content.items():
        path = folder / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _check_error(error, folder):
    """An error is for people: short, and without a line of C++."""
    text = str(error).replace(str(folder), "")
    if len(text) > LONGEST_MESSAGE:
        raise FindingError(f"an error of {len(text):,} characters: {text[:300]!a}")
    if _NO_MEMORY.search(text):
        raise FindingError(f"it runs out of memory: {text[:1000]}")


def _check_left(files, folder, name):
    """Nothing was written but into the output, and no input was changed."""
    if {path.name for path in folder.iterdir()} - {"in", "out"} or {path.name for path in folder.parent.iterdir()} != {
        "case"
    }:
        raise FindingError(f"it wrote outside of its folder: {sorted(folder.parent.rglob('*'))[:20]}")
    if name in ("maps", "cache"):
        return  # these are used where they are
    there = {path.relative_to(folder / "in").as_posix() for path in (folder / "in").rglob("*") if path.is_file()}
    if there != set(files.content):
        raise FindingError(f"it wrote {there ^ set(files.content)} among the inputs")


# Many cases, in processes that may hang or end


def _work(pipe):
    """Attempt the cases that come through a pipe, within a limit of memory."""
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    import torch

    torch.set_num_threads(1)
    import SimpleITK  # noqa: F401

    from rwtool.network import predict  # noqa: F401

    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    if pages:
        most = pages * resource.getpagesize() + (MEGABYTES << 20)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    pipe.send("ready")
    while True:
        case = pipe.recv()
        if case is None:
            return
        pipe.send(attempt(*case))


class _Worker:
    """A process that attempts cases, and another in its place where it hangs or ends."""

    def __init__(self, seconds):
        self._seconds = seconds
        self._context = multiprocessing.get_context("spawn")
        self._process = None

    def attempt(self, name, number):
        if self._process is None:
            self._pipe, theirs = self._context.Pipe()
            self._process = self._context.Process(target=_work, args=(theirs,), daemon=True)
            self._process.start()
            theirs.close()
            assert self._pipe.recv() == "ready"
        try:
            self._pipe.send((name, number))
            if self._pipe.poll(self._seconds):
                return self._pipe.recv()
            verdict = Verdict("hang", f"more than {self._seconds} s")
        except (EOFError, ConnectionError):
            self._process.join()
            verdict = Verdict("crash", f"exit code {self._process.exitcode}")
        self.close()
        return verdict

    def close(self):
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None


def attempt_all(cases, seconds=10 * SECONDS):
    """The verdict of each case, in a process beside this one that may take so many seconds of the clock."""
    worker = _Worker(seconds)
    try:
        for name, number in cases:
            yield name, number, worker.attempt(name, number)
    finally:
        worker.close()


def shares(count, names=tuple(TARGETS)):
    """So many cases over the targets."""
    return [(names[k % len(names)], k // len(names)) for k in range(count)]


def main_of_fuzzing():
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", help="targets, or cases such as nrrd:123")
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case of each target")
    given = parser.parse_args()
    single = [text.split(":") for text in given.what if ":" in text]
    for name, number in single:
        keep = Path(tempfile.mkdtemp(prefix=f"{name}-{number}-"))
        print(attempt(name, int(number), keep=keep), keep)
    if single:
        return
    names = tuple(given.what) or tuple(TARGETS)
    counts, seconds, total = collections.defaultdict(collections.Counter), collections.Counter(), collections.Counter()
    for name, number, verdict in attempt_all([(n, k + given.first) for n, k in shares(given.cases, names)]):
        counts[name][verdict.kind] += 1
        seconds[name] = max(seconds[name], verdict.seconds)
        total[name] += verdict.seconds
        if verdict.is_finding:
            print(f"{name}:{number}: {verdict.kind}: {verdict.edit[:200]!a}: {verdict.reason[:500]!a}", flush=True)
    for name, found in counts.items():
        print(f"{name:12}", dict(sorted(found.items())), f"longest {seconds[name]:.1f} s, all {total[name]:.0f} s")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main_of_fuzzing()
