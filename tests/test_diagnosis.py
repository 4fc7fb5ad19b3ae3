import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from rwtool import diagnosis
from rwtool.diagnosis import Diagnosis, FolderState, Gpus, advise, doctor
from rwtool.errors import UsageError
from rwtool.machine import available_cores

GOOD = FolderState("/data", 10**12, True, True)
HEALTHY = Diagnosis(
    versions={"rwtool": "1", "Python": "3", "system": "Linux"},
    core="native",
    cores=8,
    machine_cores=8,
    load=0.5,
    memory_bytes=16 * 10**9,
    machine_memory_bytes=32 * 10**9,
    limits={"open files": 1024},
    variables={},
    gpus=Gpus(("H100",), (80 * 10**9,)),
    codecs={},
    extras={"plot": ()},
    encodings={"standard output": "utf-8", "file names": "utf-8", "locale": "UTF-8"},
    folder=GOOD,
    temporary=GOOD,
)


def test_nothing_is_said_of_a_machine_that_is_well():
    assert list(advise(HEALTHY)) == []


@pytest.mark.parametrize(
    ("change", "what", "mend"),
    [
        ({"core": "edt"}, "the native core was not built", "C compiler"),
        (
            {"core": "edt", "variables": {"RWTOOL_CORE": "edt"}},
            "RWTOOL_CORE=edt: distances take about three",
            "unset it",
        ),
        ({"core": "the environment variable ..."}, "no core measures distances: the env", "unset RWTOOL_CORE"),
        ({"memory_bytes": 10**9}, "1.0 GB of memory are free", "--mem"),
        ({"cores": 1}, "1 of 8 cores may be used", "--cpus-per-task"),
        ({"load": 30.0}, "30.0 processes want the 8 cores", "wait"),
        ({"variables": {"OMP_NUM_THREADS": "1"}}, "OMP_NUM_THREADS=1: a training on a CPU", "unset"),
        ({"limits": {"open files": 64}}, "at most 64 files", "ulimit"),
        (
            {"gpus": Gpus(reason="PyTorch sees no device")},
            "no GPU, so a training takes long: PyTorch sees",
            "train where",
        ),
        ({"extras": {"plot": ("matplotlib",)}}, "no matplotlib", "rwtool[plot]"),
        ({"encodings": {**HEALTHY.encodings, "standard output": "ascii"}}, "standard output is ascii", "PYTHONUTF8"),
        ({"folder": replace(GOOD, writable=False)}, "/data, for output, cannot be written to", "another folder"),
        ({"folder": replace(GOOD, locks=False)}, "/data, for output: locks do not hold", "flock"),
        ({"temporary": replace(GOOD, free_bytes=10**6)}, "/data, for temporary files, has 1.0 MB left", "free some"),
        ({"temporary": replace(GOOD, writable=False)}, "/data, for temporary files, cannot be", "TMPDIR"),
    ],
)
def test_each_fault_is_said_once_with_its_mend(change, what, mend):
    (advice,) = advise(replace(HEALTHY, **change))
    assert advice.what.startswith(what)
    assert mend in advice.mend


@pytest.mark.parametrize(
    "unknown", [{"memory_bytes": None}, {"load": None}, {"limits": {}}, {"cores": 1, "machine_cores": 1}]
)
def test_what_is_not_known_or_cannot_be_mended_is_not_said(unknown):
    assert list(advise(replace(HEALTHY, **unknown))) == []


def test_this_machine_is_seen_and_nothing_is_left(tmp_path):
    found = doctor(tmp_path)
    assert found.cores == available_cores()
    assert found.versions["numpy"] == __import__("numpy").__version__
    assert (found.folder.path, found.folder.writable, found.folder.locks) == (str(tmp_path), True, True)
    assert found.codecs["gzip (isal)"] != "missing"
    assert "nnunet" in found.extras
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UsageError, match="there is no folder of this name"):
        doctor(tmp_path / "gone")


def test_a_wrong_core_is_told_and_not_raised(monkeypatch):
    monkeypatch.setenv("RWTOOL_CORE", "fast")
    found = doctor()
    assert found.core.startswith("the environment variable RWTOOL_CORE is native or edt")
    assert found.variables["RWTOOL_CORE"] == "fast"


def test_a_file_system_without_locks_is_seen(monkeypatch, tmp_path):
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(fcntl, "flock", lambda *arguments: None)  # as where a mount ignores them
    found = doctor(tmp_path).folder
    assert (found.writable, found.locks) == (True, False)


def test_a_folder_that_cannot_be_written_to_is_seen(monkeypatch, tmp_path):
    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(diagnosis.FileLock, "acquire", refuse)
    monkeypatch.setattr(diagnosis.Path, "write_bytes", refuse)
    assert not doctor(tmp_path).folder.writable


@pytest.fixture
def torch_files(monkeypatch, tmp_path):
    """Function that lays out a PyTorch with this version file, which must not be imported."""

    def write(text):
        (tmp_path / "version.py").write_text(text)
        place = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
        monkeypatch.setattr(diagnosis.importlib.util, "find_spec", lambda name: place)
        monkeypatch.setattr(diagnosis, "_ask_torch", lambda: Gpus(("asked",), (1,)))

    return write


@pytest.mark.parametrize(
    ("version", "driver", "found"),
    [
        ("cuda: Optional[str] = None\nhip: Optional[str] = None\n", True, "was built without CUDA"),
        ("cuda = None\nhip = None\n", True, "was built without CUDA"),
        ("cuda: Optional[str] = '12.8'\nhip: Optional[str] = None\n", False, "no driver of a GPU"),
        ("cuda: Optional[str] = '12.8'\nhip: Optional[str] = None\n", True, None),
        ("cuda: Optional[str] = None\nhip: Optional[str] = '6.2'\n", True, None),
        ("something = 'else'\n", True, None),
    ],
)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere a driver is not looked for")
def test_pytorch_is_imported_only_where_there_may_be_a_gpu(torch_files, monkeypatch, version, driver, found):
    torch_files(version)
    monkeypatch.setattr(diagnosis, "_has_driver", lambda: driver)
    gpus = doctor().gpus
    assert gpus.names == (("asked",) if found is None else ())
    assert found is None or gpus.reason.endswith(found)


def test_a_device_is_told_with_its_memory_and_what_asking_took(monkeypatch):
    torch = pytest.importorskip("torch")
    device = SimpleNamespace(name="H100", total_memory=80 * 10**9)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: device)
    gpus = diagnosis._ask_torch()
    assert (gpus.names, gpus.memory_bytes, gpus.reason) == (("H100",), (80 * 10**9,), "")
    assert gpus.seconds > 0


def test_a_driver_that_does_not_fit_is_a_reason(monkeypatch):
    torch = pytest.importorskip("torch")

    def refuse():
        raise RuntimeError("the driver is too old\nmore")

    monkeypatch.setattr(torch.cuda, "device_count", refuse)
    assert diagnosis._ask_torch().reason == "PyTorch cannot use it: the driver is too old"


def test_what_an_extra_lacks_is_read_from_the_requirements(monkeypatch):
    requirements = ['numpy>=1', 'one>=1; extra == "plot"', "two<2,>=1.0; python_version < '4' and extra == 'monai'",
                    'three; extra == "dev"']  # fmt: skip
    monkeypatch.setattr(diagnosis.metadata, "requires", lambda name: requirements)
    monkeypatch.setattr(diagnosis, "_version", lambda name: "1" if name == "one" else None)
    assert diagnosis._extras() == {"monai": ("two",), "plot": ()}
