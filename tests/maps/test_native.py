import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
from pathlib import Path

import numpy as np
import oracle
import pytest

from rwtool.maps.distances import (
    distance_to_class,
    distance_to_inner_boundary,
    distance_to_other_class,
    signed_distance,
)

CORES = ["native", "edt"]
ULPS = {"native": 1, "edt": 32}
"""Units in the last place of float32: `edt` takes the spacing in float32, and rounds after each axis."""

SPACED = (3.0, 1.25, 0.8)


@pytest.fixture(params=CORES)
def core(request, monkeypatch):
    if request.param == "native":
        pytest.importorskip("rwtool.maps._native")
    monkeypatch.setenv("RWTOOL_CORE", request.param)
    return request.param


def random_volume(rng):
    """Labels of any shape, number and type, with their spacing: noise, or few voxels in a background."""
    shape = (50, 50, 50)
    while np.prod(shape) > 1000:
        shape = tuple(int(n) for n in rng.choice([1, 2, 3, 5, 9, 17, 40], 3))
    n_labels = int(rng.choice([1, 2, 3, 10, 300]))
    labels = rng.integers(0, n_labels, shape)
    if rng.random() < 0.5:
        labels[rng.random(shape) > rng.choice([0.01, 0.1, 0.4])] = 0
    types = (np.uint8, np.int8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64)
    labels = labels.astype(types[rng.integers(2 * (n_labels > 256), len(types))])
    order = rng.permutation(3)
    stored = np.ascontiguousarray(labels.transpose(order)).transpose(np.argsort(order))
    return stored, tuple(float(mm) for mm in np.exp(rng.uniform(np.log(0.1), np.log(30), 3)))


def by_pairs(labels, spacing, value=None):
    """To the nearest voxel of another label, from all pairs; and to the nearest that is `value`."""
    table = oracle.distances(labels.shape, spacing)
    flat = labels.ravel()
    apart = np.where(flat[:, None] != flat, table, np.inf).min(axis=1)
    to = oracle.nearest(table, flat == value)
    return apart.reshape(labels.shape), to.reshape(labels.shape)


def assert_within(found, truth, ulps):
    assert found.dtype == np.float32
    bits = np.ascontiguousarray(found).view(np.int32).astype(np.int64)
    off = np.abs(bits - np.ascontiguousarray(truth, np.float32).view(np.int32))
    assert off.max(initial=0) <= ulps


def check_random_volumes(seeds, ulps):
    for seed in seeds:
        rng = np.random.default_rng(seed)
        labels, spacing = random_volume(rng)
        threads = int(rng.integers(1, 4))
        k = int(rng.choice(labels.ravel()))
        apart, to = by_pairs(labels, spacing, k)
        assert_within(distance_to_other_class(labels, spacing, threads=threads), apart, ulps)
        assert_within(distance_to_class(labels, k, spacing, threads=threads), to, ulps)
        inside = labels == k
        sides = np.where(inside, -by_pairs(inside, spacing)[0], to)
        assert_within(signed_distance(labels, k, spacing, threads=threads), sides, ulps)
        z = int(rng.integers(len(labels)))
        sliced = distance_to_other_class(labels, spacing, dims=2, threads=threads)[z : z + 1]
        assert_within(sliced, by_pairs(labels[z : z + 1], spacing)[0], ulps)


def test_random_volumes_equal_pairwise_distances(core):
    check_random_volumes(range(150), ULPS[core])


@pytest.mark.slow
@pytest.mark.parametrize("tenth", range(10))
def test_ten_thousand_random_volumes_equal_pairwise_distances(core, tenth):
    check_random_volumes(range(1000 * tenth, 1000 * (tenth + 1)), ULPS[core])


def test_a_row_by_hand(core):
    labels = np.array([[[7, 7, 7, 2, 2, 7]]], np.uint16)
    row = (9.0, 9.0, 0.5)
    np.testing.assert_array_equal(distance_to_other_class(labels, row), [[[1.5, 1, 0.5, 0.5, 0.5, 0.5]]])
    np.testing.assert_array_equal(distance_to_class(labels, 2, row), [[[1.5, 1, 0.5, 0, 0, 0.5]]])
    np.testing.assert_array_equal(distance_to_class(labels, 7, row), [[[0, 0, 0, 0.5, 0.5, 0]]])
    np.testing.assert_array_equal(signed_distance(labels, 2, row), [[[1.5, 1, 0.5, -0.5, -0.5, 0.5]]])
    np.testing.assert_array_equal(distance_to_inner_boundary(labels, row), [[[1, 0.5, 0, 0, 0, 0]]])


@pytest.mark.parametrize("axis", range(3))
def test_3_4_12_are_13_apart_along_any_axis(core, axis):
    labels = np.zeros((4, 5, 13), np.uint8)
    labels[0, 0, 0] = 1
    turned = np.ascontiguousarray(np.moveaxis(labels, 0, axis))
    assert np.moveaxis(distance_to_other_class(turned, (1, 1, 1)), axis, 0)[3, 4, 12] == 13


def test_nothing_to_measure_to_is_inf(core):
    labels = np.full((3, 4, 70), 5, np.uint8)
    assert (distance_to_other_class(labels, SPACED) == np.inf).all()
    assert (distance_to_inner_boundary(labels, SPACED) == np.inf).all()
    assert (distance_to_class(labels, 4, SPACED) == np.inf).all()
    assert (signed_distance(labels, 5, SPACED) == -np.inf).all()


@pytest.mark.parametrize("value", [-1, 256, 300])
def test_a_value_that_the_type_cannot_hold_is_nowhere(core, value):
    labels = np.array([[[0, 44, 255]]], np.uint8)
    assert (distance_to_class(labels, value, SPACED) == np.inf).all()


def test_a_negative_label_is_one_like_any_other(core):
    labels = np.array([[[-1, 0, 1]]], np.int16)
    np.testing.assert_array_equal(distance_to_class(labels, -1, (1, 1, 1)), [[[0, 1, 2]]])


def test_a_foreign_byte_order_is_read(core):
    labels = np.array([[[1, 2, 2]]], ">u2")
    np.testing.assert_array_equal(distance_to_class(labels, 1, (1, 1, 1)), [[[0, 1, 2]]])


@pytest.mark.parametrize("shape", [(0, 3, 4), (3, 0, 4), (3, 4, 0)])
def test_an_empty_volume_has_no_distances(shape):
    pytest.importorskip("rwtool.maps._native")
    assert distance_to_other_class(np.zeros(shape, np.uint8), SPACED).shape == shape


def test_the_order_of_the_axes_and_the_number_of_threads_do_not_matter(monkeypatch):
    pytest.importorskip("rwtool.maps._native")
    monkeypatch.setenv("RWTOOL_CORE", "native")
    rng = np.random.default_rng(4)
    labels = np.kron(rng.integers(0, 4, (5, 6, 4)), np.ones((3, 11, 20), int)).astype(np.uint8)
    spacing = (2.5, 0.7421875, 0.1)
    straight = distance_to_other_class(labels, spacing)
    for order in (2, 1, 0), (1, 2, 0):
        turned = np.ascontiguousarray(labels.transpose(order))
        found = distance_to_other_class(turned, [spacing[axis] for axis in order], threads=3)
        np.testing.assert_array_equal(found, straight.transpose(order))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"distances": np.zeros((1, 2, 4), np.float32)}, "one shape"),
        ({"distances": np.zeros((1, 2, 3))}, "float32"),
        ({"distances": np.zeros((1, 2, 3), np.int32)}, "float32"),
        ({"labels": np.zeros((2, 3), np.uint8)}, "volumes"),
        ({"labels": np.zeros((1, 2, 3), np.complex128)}, "1 to 8 bytes"),
        ({"spacing": (1.0, 0.0, 1.0)}, "positive"),
        ({"spacing": (1.0, np.nan, 1.0)}, "positive"),
        ({"value": 256}, "labels can have"),
        ({"regions": 3}, "0, 1 or 2"),
    ],
)
def test_what_the_core_cannot_read_is_refused(change, message):
    native = pytest.importorskip("rwtool.maps._native")
    given = {
        "labels": np.zeros((1, 2, 3), np.uint8),
        "distances": np.zeros((1, 2, 3), np.float32),
        "spacing": (1.0, 1.0, 1.0),
        "regions": 0,
        "value": 0,
    }
    with pytest.raises(ValueError, match=message):
        native.transform(*(given | change).values(), 1)


PEAK = """
import numpy as np
from rwtool.maps.distances import distance_to_other_class, distance_to_class, signed_distance

def peak_bytes():
    return 1024 * next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

labels = np.zeros((128, 256, 256), np.uint8)
labels[30:60, 90:160, 90:160] = 1
distance_to_other_class(labels[:2], (3, 1, 1))  # what is loaded once
before = peak_bytes()
for measure in distance_to_other_class, lambda *given: distance_to_class(given[0], 1, given[1]):
    measure(labels, (3.0, 1.0, 1.0))
    print((peak_bytes() - before) / labels.size)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_the_native_core_takes_no_memory_beside_its_result(tmp_path):
    pytest.importorskip("rwtool.maps._native")
    environment = os.environ | {"RWTOOL_CORE": "native"}
    command = [sys.executable, "-c", PEAK]
    # not from here, where a source tree may lie that was not built
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert all(3 < float(each) < 4.3 for each in done.stdout.split())  # bytes per voxel: float32, and some slack


@pytest.mark.parametrize("threads", [1, 2])
def test_a_long_transform_hears_an_interrupt(threads):
    native = pytest.importorskip("rwtool.maps._native")
    labels = np.random.default_rng(0).integers(0, 2, (256, 256, 256), np.uint8)
    found = np.full(labels.shape, np.nan, np.float32)

    def measure():
        timer = threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        native.transform(labels, found, SPACED, 0, 0, threads)
        timer.join()

    with pytest.raises(KeyboardInterrupt):
        measure()
    assert np.isnan(found[-1, -1, -1])  # the call did not run to its end


SANITIZED = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("rwtool.maps._native", sys.argv[1])
native = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(native)
import rwtool.maps
rwtool.maps._native = native
from test_native import check_random_volumes
check_random_volumes(range(5000, 5500), 1)
print("all is well")
"""


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", ["address", "undefined", "thread"])
def test_the_core_is_sound_under_a_sanitizer(tmp_path, sanitizer):
    gcc = shutil.which("gcc")
    here = Path(__file__).parent
    source = here.parents[1] / "rwtool" / "maps" / "_native.c"
    if gcc is None or not source.exists():
        pytest.skip("needs gcc and the source")
    name = {"address": "libasan.so", "undefined": "libubsan.so", "thread": "libtsan.so"}[sanitizer]
    library = subprocess.run([gcc, f"-print-file-name={name}"], check=True, capture_output=True, text=True).stdout
    built = tmp_path / "_native.so"
    flags = ["-std=c11", "-O1", "-g", "-fPIC", "-shared", "-pthread", "-DFOR_EACH_MACHINE="]
    flags += [f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all", f"-I{sysconfig.get_path('include')}"]
    subprocess.run([gcc, *flags, str(source), "-o", str(built)], check=True, capture_output=True)
    environment = os.environ | {
        "LD_PRELOAD": library.strip(),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python's own
        "TSAN_OPTIONS": "halt_on_error=1:exitcode=66",
        "PYTHONPATH": os.pathsep.join([str(here), str(here.parent), *sys.path]),
        "RWTOOL_CORE": "native",
    }
    command = [sys.executable, "-c", SANITIZED, str(built)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == "all is well\n"
