import numpy as np
import pytest
from byhand import dicom, element

from rwtool.datasets.cases import find_cases, search_cases
from rwtool.errors import GeometryError, RwtoolError, UsageError, VolumeError
from rwtool.io.dicom import is_dicom, no_volume, series_of
from rwtool.io.formats import read_header, read_labels
from rwtool.io.names import file_hash

SLICES = np.random.default_rng(0).integers(0, 5, (4, 3, 6))  # (z, y, x)


def series(folder, step=2.5, *, only=range(4), uid="1.2.3.4", **more):
    names = ("c.dcm", "a.dcm", "d.dcm", "b.dcm")  # the order of the names is not that of the places
    return [dicom(folder / names[z], SLICES[z], (10, 20, step * z), series=uid, **more) for z in only]


def test_a_series_is_one_case_named_as_its_folder_in_the_order_of_its_places(tmp_path):
    series(tmp_path / "p1")
    assert find_cases(tmp_path / "p1") == {"p1": tmp_path / "p1"}
    volume = read_labels(tmp_path / "p1")
    assert (volume.array == SLICES).all()
    assert volume.spacing_mm == pytest.approx((2.5, 0.9, 0.5))  # pixel spacing is of rows, then of columns
    assert volume.geometry.affine_mm[:3, 3].tolist() == [-10, -20, 0]
    assert volume.geometry.placed


def test_folders_of_series_are_a_case_each(tmp_path):
    series(tmp_path / "p2")
    series(tmp_path / "p1", uid="1.2.3.5")
    assert find_cases(tmp_path) == {"p1": tmp_path / "p1", "p2": tmp_path / "p2"}


def test_the_hash_of_a_series_is_that_of_all_its_slices(tmp_path):
    files = series(tmp_path)
    before = file_hash(tmp_path)
    dicom(files[2], SLICES[0], (10, 20, 5))
    assert file_hash(tmp_path) != before


def test_files_without_a_suffix_are_known_by_their_mark(tmp_path):
    for path in series(tmp_path / "p"):
        path.rename(path.with_suffix(""))
    assert is_dicom(tmp_path / "p" / "a")
    assert (read_labels(tmp_path / "p").array == SLICES).all()
    assert find_cases(tmp_path / "p") == {"p": tmp_path / "p"}


def test_single_images_are_cases_by_their_names(tmp_path):
    for k, name in enumerate(("x.dcm", "y.dcm")):
        dicom(tmp_path / name, SLICES[k], (0, 0, 0), series=f"1.2.{k + 3}")
    assert list(find_cases(tmp_path)) == ["x", "y"]
    assert (read_labels(tmp_path / "y.dcm").array[0] == SLICES[1]).all()
    assert len(series_of([tmp_path / "x.dcm", tmp_path / "y.dcm"])) == 2


def test_several_series_in_one_folder_are_refused_in_words(tmp_path):
    series(tmp_path)
    dicom(tmp_path / "other.dcm", SLICES[0], (0, 0, 0), series="9.9")
    for do in (find_cases, read_labels):
        with pytest.raises(RwtoolError, match=r"2 DICOM series.*put each (series )?into a folder of its own"):
            do(tmp_path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"only": (0, 1, 3)}, "are 5 mm apart, the others 2.5 mm|are 2.5 mm apart, the others 3.75 mm"),
        ({"step": 0}, "lie at one place: a series of several time points or echoes"),
        ({"spacing": None}, "states no position, orientation or pixel spacing"),
    ],
)
def test_slices_that_are_no_grid_are_refused(tmp_path, change, reason):
    series(tmp_path, **change)
    with pytest.raises(GeometryError, match=reason):
        read_labels(tmp_path)


def test_slices_of_another_orientation_spacing_or_line_are_refused(tmp_path):
    *_, last = series(tmp_path)
    for change in ({"turn": "1\\0\\0\\0\\0\\-1"}, {"spacing": "0.9\\0.6"}):
        dicom(last, SLICES[3], (10, 20, 7.5), **change)
        with pytest.raises(GeometryError, match="its slices are turned against each other, or have other pixels"):
            read_labels(tmp_path)
    dicom(last, SLICES[3], (12, 20, 7.5))
    with pytest.raises(GeometryError, match=r"shifted against each other|sheared"):
        read_labels(tmp_path)
    dicom(last, SLICES[3][:, :5], (10, 20, 7.5))
    with pytest.raises(VolumeError, match="its slices differ in size"):
        read_labels(tmp_path)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("1.2.840.10008.5.1.4.1.1.66.4", "a DICOM segmentation .SEG.*convert it to a label file"),
        ("1.2.840.10008.5.1.4.1.1.481.3", "a set of DICOM contours .RTSTRUCT.*convert it"),
        ("1.2.840.10008.5.1.4.1.1.4.1", "an enhanced multi-frame DICOM image.*dcm2niix"),
        ("1.2.840.10008.5.1.4.1.1.88.33", "a DICOM object that holds no volume, such as a report"),
        ("1.2.840.10008.1.3.10", "a DICOMDIR"),
    ],
)
def test_objects_that_are_no_volume_are_named(tmp_path, kind, words):
    path = dicom(tmp_path / "a.dcm", SLICES[0], (0, 0, 0), kind=kind)
    with pytest.raises(VolumeError, match=words):
        read_labels(path)


def test_an_object_beside_a_series_is_passed_over_and_named(tmp_path):
    series(tmp_path / "p")
    other = dicom(tmp_path / "p" / "s.dcm", SLICES[0], (0, 0, 0), kind="1.2.840.10008.5.1.4.1.1.481.3")
    found = search_cases(tmp_path / "p")
    assert found.cases == {"p": tmp_path / "p"}
    assert found.passed_over[other].startswith("it is a set of DICOM contours (RTSTRUCT)")
    assert (read_labels(tmp_path / "p").array == SLICES).all()
    assert no_volume(tmp_path / "p" / "a.dcm") is None


def test_an_image_without_pixel_spacing_needs_one(tmp_path):
    path = dicom(tmp_path / "a.dcm", SLICES[0], None, spacing=None)
    with pytest.raises(UsageError, match="the header carries no spacing"):
        read_header(path)
    geometry = read_header(path, spacing_mm=(3, 2, 1)).geometry
    assert (geometry.spacing_mm, geometry.placed) == ((3, 2, 1), False)


@pytest.mark.parametrize("at", [140, 148, 160, 186, 250, 274])
def test_a_damaged_file_header_is_refused_before_gdcm_sees_it(tmp_path, at):
    path = dicom(tmp_path / "a.dcm", SLICES[0], (0, 0, 0))
    content = path.read_bytes()
    path.write_bytes(content[:at] + b"\xb0\xb0\xb0" + content[at:])
    with pytest.raises(VolumeError):
        read_labels(path)


def test_a_folder_without_dicom_and_a_file_that_is_none(tmp_path):
    with pytest.raises(VolumeError, match="it is a folder without DICOM files"):
        read_labels(tmp_path)
    (tmp_path / "a.dcm").write_bytes(bytes(500))
    with pytest.raises(VolumeError, match="this is no DICOM file: it lacks the mark DICM"):
        read_labels(tmp_path / "a.dcm")


@pytest.mark.parametrize("name", ["x.nii.gz", "x.nii", "x.npy", "x.mha", "x.png"])
def test_a_folder_is_no_file_whatever_its_name(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(VolumeError, match="it is a folder without DICOM files"):
        read_labels(tmp_path / name, spacing_mm=(1, 1, 1) if name.endswith(("npy", "png")) else None)


def edited(path, tag, change):
    """Change what follows a tag (group and element, as bytes) of a DICOM file."""
    content = bytearray(path.read_bytes())
    change(content, content.rindex(tag))
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("tag", [b"\x28\0\x10\0", b"\x20\0\x32\0", b"\x08\0\x16\0", b"\xe0\x7f\x10\0"])
def test_an_element_that_claims_more_than_the_file_holds_is_refused_before_gdcm_takes_memory(
    tmp_path, monkeypatch, tag
):
    path = dicom(tmp_path / "a.dcm", SLICES[0], (0, 0, 0))

    def claim(content, at):
        content[at + 4 : at + 12] = b"OB\0\0\xf0\xff\xff\x7f"

    monkeypatch.setattr("SimpleITK.ImageFileReader", None)
    with pytest.raises(
        VolumeError, match=rf"its element \({tag[1]:02x}{tag[0]:02x},{tag[3]:02x}{tag[2]:02x}\) is damaged"
    ):
        read_labels(edited(path, tag, claim))


def test_an_element_of_no_type_is_refused(tmp_path):
    path = dicom(tmp_path / "a.dcm", SLICES[0], (0, 0, 0))

    def spoil(content, at):
        content[at + 4] ^= 128

    with pytest.raises(VolumeError, match=r"its element \(0028,0011\) is damaged"):
        read_labels(edited(path, b"\x28\0\x11\0", spoil))


def test_pixels_that_are_missing_are_missed(tmp_path):
    """SimpleITK would make them up."""
    path = dicom(tmp_path / "a.dcm", SLICES[0], (0, 0, 0))

    def shorten(content, at):
        content[at + 8 : at + 12] = (20).to_bytes(4, "little")
        del content[at + 32 :]

    with pytest.raises(VolumeError, match=r"a\.dcm holds 20 bytes of pixels, its header claims 36"):
        read_labels(edited(path, b"\xe0\x7f\x10\0", shorten))


def test_sequences_and_what_follows_the_pixels_are_gone_through(tmp_path):
    path = dicom(tmp_path / "a.dcm", SLICES[0], (0, 0, 0))
    whole = path.read_bytes()
    at = whole.index(b"\x28\0\x02\0US")
    inner = element(8, 0x1150, "UI", "1.2.3")
    marked = b"\xfe\xff\0\xe0\xff\xff\xff\xff" + inner + b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
    told = b"\xfe\xff\0\xe0" + len(inner).to_bytes(4, "little") + inner
    untold = b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff" + marked
    for sequence in (untold, element(8, 0x1140, "SQ", told)):
        path.write_bytes(whole[:at] + sequence + whole[at:] + bytes(16))
        assert (read_labels(path).array[0] == SLICES[0]).all()


@pytest.mark.parametrize("number", [b"\x10\0", b"\x11\0", b"\x02\0", b"\0\1"])
def test_a_size_of_another_type_or_none_at_all_is_refused(tmp_path, number):
    path = dicom(tmp_path / "a.dcm", SLICES[0], (0, 0, 0))
    whole = path.read_bytes()
    at = whole.rindex(b"\x28\0" + number + b"US")
    path.write_bytes(whole[: at + 6] + b"\4\0\1\0\1\0" + whole[at + 10 :])
    with pytest.raises(VolumeError, match=r"its element \(0028,[01]{4}2?\) is damaged|\(0028,0002\) is damaged"):
        read_labels(path)
    path.write_bytes(whole[:at] + whole[at + 10 :])
    with pytest.raises(VolumeError, match=r"a\.dcm lacks the element \(0028,"):
        read_labels(path)


@pytest.mark.parametrize("bits", [0, 1, 7, 12, 65535])
def test_pixels_of_odd_bits_are_refused(tmp_path, bits):
    path = dicom(tmp_path / "a.dcm", SLICES[0], (0, 0, 0))

    def spoil(content, at):
        content[at + 8 : at + 10] = bits.to_bytes(2, "little")

    with pytest.raises(VolumeError, match=f"states pixels of {bits} bits; expected 8, 16, 32 or 64"):
        read_labels(edited(path, b"\x28\0\0\1US", spoil))
