import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import rwtool
from rwtool.datasets.plan import plan_dataset
from rwtool.files import file_crc32
from rwtool.io.names import file_hash
from rwtool.maps.parameters import MapParameters, Storage
from rwtool.maps.write import MapJob, write_maps


@pytest.mark.parametrize("storage", [Storage(), Storage("npy", "float16")])
def test_a_case_becomes_a_file_and_the_record_of_it_for_each_kind(tmp_path, storage):
    array = np.zeros((6, 5, 4), np.uint8)
    array[1:4, 1:4, 1:3] = 3
    (tmp_path / "labels").mkdir()
    path = tmp_path / "labels" / "a.nii.gz"
    nib.save(nib.Nifti1Image(array, np.diag([0.5, 0.5, 2, 1])), path)
    kinds = (MapParameters("ac"), MapParameters("rrw"))
    outputs = tuple((parameters, tmp_path / parameters.kind) for parameters in kinds)
    records = write_maps(MapJob("a", plan_dataset(path, classes=[0, 3, 5]).files["a"], outputs, storage))
    assert list(records) == ["ac", "rrw"]
    written = tmp_path / "rrw" / f"a.{storage.format}"
    truth = rwtool.rrw_map(rwtool.read_labels(path, classes=(0, 3, 5)).array, (2, 0.5, 0.5), n_classes=3)
    if storage.format == "npy":
        np.testing.assert_array_equal(np.load(written), truth.astype(np.float16))
    else:
        np.testing.assert_array_equal(rwtool.read_map(written), truth)
    record, found = records["rrw"], written.stat()
    assert (record.file, record.bytes, record.crc32) == (written.name, found.st_size, file_crc32(written))
    assert record.times_ns == (found.st_mtime_ns, found.st_ctime_ns)
    assert Path(record.source) == Path(os.path.relpath(path, written.parent))
    assert (record.source_bytes, record.source_sha256) == (path.stat().st_size, file_hash(path))
    assert (record.shape, record.spacing_mm, record.slice_axis) == ((4, 5, 6), (2.0, 0.5, 0.5), 2)
    assert (record.absent, record.filling, record.zero_distance, record.notes) == ((5,), (), (), ())
    assert record.largest_distance[3] == 1.0
