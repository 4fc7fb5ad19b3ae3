import math

import numpy as np
import pytest

from rwtool.errors import VolumeError
from rwtool.io.raster import Raster, open_raster


def raster(path, shape=(6, 5, 4), **more):
    return Raster([path], np.dtype("u1"), shape, None, "raw", np.eye(4), True, **more)


def test_voxels_that_end_early_are_refused_with_both_sizes(tmp_path):
    path = tmp_path / "v"
    path.write_bytes(bytes(100))
    with pytest.raises(VolumeError, match="the header claims 120 bytes of voxels; the file's 100 bytes"):
        open_raster(raster(path), None)
    with pytest.raises(VolumeError, match="the file ends after 90"):
        open_raster(raster(path, (1, 1, 99), skip_bytes=10), None)


def test_a_bomb_takes_no_memory_before_it_is_refused(tmp_path):
    path = tmp_path / "v"
    path.write_bytes(b"x" * 10)
    for encoding in ("raw", "gzip", "zlib", "text"):
        with pytest.raises(VolumeError, match="can hold at most"):
            open_raster(Raster([path], np.dtype("u1"), (1 << 15,) * 3, None, encoding, np.eye(4), True), None)


def test_files_that_do_not_part_evenly_are_refused(tmp_path):
    path = tmp_path / "v"
    path.write_bytes(bytes(200))
    parts = Raster([path] * 7, np.dtype("u1"), (6, 5, 4), None, "raw", np.eye(4), True)
    with pytest.raises(VolumeError, match="the header names 7 files for 120 bytes"):
        open_raster(parts, None)


def test_a_step_that_is_not_stated_is_none(tmp_path):
    path = tmp_path / "v"
    path.write_bytes(bytes(120))
    affine = np.diag([1.0, 2, math.nan, 1])
    stored = open_raster(Raster([path], np.dtype("u1"), (12, 10, 1), None, "raw", affine, True), None)
    assert stored.header.geometry.spacing_mm == (1, 2, 1)
