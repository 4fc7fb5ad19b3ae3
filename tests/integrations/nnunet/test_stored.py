import json
import pickle
import shutil

import numpy as np
import pytest

from rwtool.errors import UsageError
from rwtool.integrations.nnunet.names import TrainerSettings
from rwtool.integrations.nnunet.stored import ImageAndMap, MappedDataset, stored_maps

pytestmark = [pytest.mark.nnunet, pytest.mark.filterwarnings("ignore")]
RRW = TrainerSettings("rrw", stored=True)


def cases_of(folder):
    return sorted(path.name.removesuffix("_seg.b2nd") for path in folder.glob("*_seg.b2nd"))


@pytest.fixture
def folder(preprocessed):
    return preprocessed / "nnUNetPlans_2d"


@pytest.fixture
def own_maps(maps, tmp_path, monkeypatch):
    """A copy of the maps that a test may spoil."""
    shutil.copytree(maps, tmp_path / "maps")
    monkeypatch.setenv("RWTOOL_NNUNET_MAPS", str(tmp_path / "maps"))
    return tmp_path / "maps" / "Dataset004_Hippocampus" / "nnUNetPlans_2d"


def test_maps_of_these_labels_are_found(folder, at_maps):
    for kind in ("rrw", "boundary", "hd"):
        maps = stored_maps(folder, TrainerSettings(kind, stored=True), cases_of(folder))
        assert (maps.kind, maps.packed) == (kind, kind == "rrw")


def test_without_the_variable_the_message_has_both_commands(folder, monkeypatch):
    monkeypatch.delenv("RWTOOL_NNUNET_MAPS", raising=False)
    with pytest.raises(UsageError) as caught:
        stored_maps(folder, RRW, [])
    assert f"export RWTOOL_NNUNET_MAPS=FOLDER, then run rwtool maps {folder} $RWTOOL_NNUNET_MAPS/" in str(caught.value)


def test_the_command_of_the_message_makes_the_maps(folder, tmp_path, monkeypatch):
    from commands import run

    monkeypatch.setenv("RWTOOL_NNUNET_MAPS", str(tmp_path))
    with pytest.raises(UsageError, match="no maps there") as caught:
        stored_maps(folder, RRW, cases_of(folder))
    run(*str(caught.value).partition("run rwtool ")[2].split())
    assert len(stored_maps(folder, RRW, cases_of(folder)).cases) == len(cases_of(folder))


def test_maps_of_other_labels_are_refused(folder, own_maps):
    path = own_maps / "rrw" / "maps.json"
    content = json.loads(path.read_text())
    first = cases_of(folder)[0]
    content["cases"][first]["source_sha256"] = "0" * 64
    del content["crc32"]
    path.write_text(json.dumps(content))
    with pytest.raises(UsageError, match=f"the maps of {first} are missing, were changed, or are of other labels"):
        stored_maps(folder, RRW, cases_of(folder))
    assert stored_maps(folder, RRW, cases_of(folder)[1:])  # what is not asked for does not matter


def test_a_map_that_was_written_to_is_refused(folder, own_maps):
    first = cases_of(folder)[0]
    path = own_maps / "rrw" / f"{first}.npy"
    np.save(path, np.load(path) * 0)
    with pytest.raises(UsageError, match=f"the maps of {first} are missing, were changed"):
        stored_maps(folder, RRW, cases_of(folder))


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        (
            TrainerSettings("rrw", units="voxel", stored=True),
            r"parameters.units: 'mm' and 'voxel'.*--units voxel --over",
        ),
        (TrainerSettings("rrw", dims=2, stored=True), r"parameters.dims: 3 and 2.*--dims 2 --overwrite"),
    ],
)
def test_maps_of_other_settings_than_the_name_says_are_refused(folder, at_maps, settings, what):
    with pytest.raises(UsageError, match=what):
        stored_maps(folder, settings, cases_of(folder))


def test_a_format_that_cannot_be_read_in_pieces_is_refused(folder, tmp_path, monkeypatch):
    import rwtool

    out = tmp_path / folder.parent.name / folder.name
    rwtool.make_maps(folder, out, jobs=1)
    monkeypatch.setenv("RWTOOL_NNUNET_MAPS", str(tmp_path))
    with pytest.raises(
        UsageError, match=r"storage.format: 'nii.gz' and 'npy' or 'b2nd'; storage.layout: 'dense' and 'packed'"
    ):
        stored_maps(folder, RRW, cases_of(folder))


@pytest.mark.parametrize("kind", ["rrw", "boundary"])
def test_maps_of_blosc2_give_the_same_pieces(folder, at_maps, tmp_path, monkeypatch, kind):
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    import rwtool

    settings = TrainerSettings(kind, stored=True)
    more = {"layout": "packed", "dtype": "float16"} if kind == "rrw" else {}
    rwtool.make_maps(folder, tmp_path / folder.parent.name / folder.name, kinds=[kind], format="b2nd", jobs=1, **more)
    pieces = []
    for root in (at_maps, tmp_path):
        monkeypatch.setenv("RWTOOL_NNUNET_MAPS", str(root))
        cases = cases_of(folder)
        dataset = MappedDataset(nnUNetDatasetBlosc2(str(folder), cases), stored_maps(folder, settings, cases))
        image = dataset.load_case(cases[0])[0]
        pieces.append(image[(slice(None), *(slice(1, n - 1) for n in image.shape[1:]))])
    np.testing.assert_array_equal(*pieces)


def test_a_case_that_was_not_preprocessed_is_named(folder, at_maps):
    with pytest.raises(UsageError, match=r"no \.b2nd label file of hippocampus_x"):
        stored_maps(folder, RRW, ["hippocampus_x"])


def test_an_image_has_its_map_behind_it_and_is_read_in_pieces(folder, at_maps):
    from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    cases = cases_of(folder)
    plain = nnUNetDatasetBlosc2(str(folder), list(cases))
    for kind, channels in (("rrw", 1), ("boundary", 3)):
        maps = stored_maps(folder, TrainerSettings(kind, stored=True), cases)
        mapped = pickle.loads(pickle.dumps(MappedDataset(plain, maps)))  # as workers get it
        assert mapped.identifiers == cases
        image, labels, previous, properties = mapped[cases[0]]
        inner = plain.load_case(cases[0])
        assert image.shape == (1 + channels, *inner[0].shape[1:])
        np.testing.assert_array_equal(labels[...], inner[1][...])
        assert previous is None
        assert properties["class_locations"].keys() == inner[3]["class_locations"].keys()
        box = [[-2, 10], [5, 25], [3, 60]]  # beyond both ends
        patch = crop_and_pad_nd(image, box, 0)
        np.testing.assert_array_equal(patch[:1], crop_and_pad_nd(inner[0], box, 0))
        stored = np.load(maps.path(cases[0]))
        stored = np.abs((stored[np.newaxis] if kind == "rrw" else stored).astype(np.float32))
        np.testing.assert_array_equal(patch[1:], crop_and_pad_nd(stored, box, 0))


def test_where_voxels_are_ignored_a_packed_map_gives_0():
    values = np.array([np.nan, -0.5], dtype=np.float16).reshape(1, 1, 1, 2)
    image = ImageAndMap(np.ones((1, 1, 1, 2), dtype=np.float32), values)
    everything = (slice(None), slice(0, 1), slice(0, 1), slice(0, 2))
    assert image[everything].tolist() == [[[[1, 1]]], [[[0, 0.5]]]]
