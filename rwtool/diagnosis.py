"""What this machine and this installation give rwtool, and what will be slow or missing here: ``rwtool doctor``."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import locale
import os
import platform
import re
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from filelock import FileLock, Timeout

from rwtool import __version__
from rwtool.console import count, size
from rwtool.errors import UsageError
from rwtool.machine import available_cores, available_memory
from rwtool.maps.core import chosen_core

_LIBRARIES = ("numpy", "scipy", "nibabel", "SimpleITK", "edt", "isal", "msgspec", "filelock", "torch")
_EXTRAS = ("plot", "nnunet", "monai", "torchio", "torchmetrics", "lightning", "tensorboard", "dask")
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")
_LIMITS = {  # of `resource`, by what they bound
    "open files": "RLIMIT_NOFILE",
    "processes": "RLIMIT_NPROC",
    "address space in bytes": "RLIMIT_AS",
    "size of a file in bytes": "RLIMIT_FSIZE",
    "processor time in seconds": "RLIMIT_CPU",
}
_LITTLE_MEMORY = 2_000_000_000  # of which a case of 130 million voxels takes all
_LITTLE_SPACE = 1_000_000_000
_FEW_FILES = 256
_REQUIREMENT = re.compile(r"""^([\w.-]+).*;.*\bextra == ["']([\w-]+)["']""")
_OF_CUDA = re.compile(r"""^(?:cuda|hip)\b[^=\n]*=\s*(['"])(.+?)\1""", re.MULTILINE)


@dataclass(frozen=True)
class Advice:
    """Something that will be slow, or not work, and how to mend it."""

    what: str
    mend: str


@dataclass(frozen=True)
class Gpus:
    """The GPUs that PyTorch computes on.

    Attributes
    ----------
    names : tuple of str
    memory_bytes : tuple of int
    reason : str
        Why there are none; empty where there are.
    seconds : float
        That importing PyTorch and asking it took; 0 where its files told that there can be none.
    """

    names: tuple[str, ...] = ()
    memory_bytes: tuple[int, ...] = ()
    reason: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class FolderState:
    """What a folder is like to write to.

    Attributes
    ----------
    path : str
    free_bytes : int or None
    writable : bool
    locks : bool
        Whether its file system keeps a second process out of a file that is locked.
    """

    path: str
    free_bytes: int | None
    writable: bool
    locks: bool


@dataclass(frozen=True)
class Diagnosis:
    """What this machine and this installation give.

    Attributes
    ----------
    versions : dict of str to str
        Of rwtool, Python, the system, and the libraries.
    core : str
        What measures distances: native, edt, or why neither.
    cores, machine_cores : int
        That this process may use, and that there are.
    load : float or None
        Processes that have wanted a core over the last minute.
    memory_bytes, machine_memory_bytes : int or None
        That can be taken, a container's limit included; and all that there is.
    limits : dict of str to int
        Of this process, where there are any.
    variables : dict of str to str
        Those that bound threads, or choose the core.
    gpus : Gpus
    codecs : dict of str to str
        What unpacks ``.nii.gz`` and ``.b2nd``: a version, or "missing".
    extras : dict of str to tuple of str
        What ``pip install 'rwtool[EXTRA]'`` would still bring, by extra; nothing where all of it is there.
    encodings : dict of str to str
        Of standard output, of file names, and of the locale.
    folder, temporary : FolderState
        The folder that was named, and that of temporary files.
    advice : tuple of Advice
    """

    versions: dict[str, str]
    core: str
    cores: int
    machine_cores: int
    load: float | None
    memory_bytes: int | None
    machine_memory_bytes: int | None
    limits: dict[str, int]
    variables: dict[str, str]
    gpus: Gpus
    codecs: dict[str, str]
    extras: dict[str, tuple[str, ...]]
    encodings: dict[str, str]
    folder: FolderState
    temporary: FolderState
    advice: tuple[Advice, ...] = ()


def doctor(folder: str | Path = ".") -> Diagnosis:
    """See what this machine and this installation give, and what will be slow here: what ``rwtool doctor`` does.

    PyTorch is imported, which takes a second or more, only where it was built for GPUs and a driver of one is there.

    Parameters
    ----------
    folder : path
        Where maps and results are to go: whether it can be written to, and whether locks hold there.

    Returns
    -------
    Diagnosis

    Raises
    ------
    UsageError
        There is no such folder.
    """
    if not Path(folder).is_dir():
        raise UsageError(f"{folder}: there is no folder of this name; name one that is there")
    try:
        core = str(chosen_core())
    except UsageError as error:
        core = str(error)
    found = Diagnosis(
        versions={
            "rwtool": __version__,
            "Python": platform.python_version(),
            "system": platform.platform(),
            **{name: _version(name) or "missing" for name in _LIBRARIES},
        },
        core=core,
        cores=available_cores(),
        machine_cores=os.cpu_count() or 1,
        load=_load(),
        memory_bytes=available_memory(),
        machine_memory_bytes=_machine_memory(),
        limits=_limits(),
        variables={name: os.environ[name] for name in (*_THREADS, "RWTOOL_CORE") if name in os.environ},
        gpus=_gpus(),
        codecs={"gzip (isal)": _version("isal") or "missing", "b2nd (blosc2)": _version("blosc2") or "missing"},
        extras=_extras(),
        encodings={
            "standard output": getattr(sys.stdout, "encoding", None) or "none",
            "file names": sys.getfilesystemencoding(),
            "locale": locale.getpreferredencoding(False),
        },
        folder=_look_at(Path(folder)),
        temporary=_look_at(Path(tempfile.gettempdir())),
    )
    return Diagnosis(**{**vars(found), "advice": tuple(advise(found))})


def advise(found: Diagnosis) -> Iterator[Advice]:
    """What will be slow or fail on such a machine, the gravest first."""
    yield from _of_folders(found)
    if found.core not in ("native", "edt"):
        yield Advice(f"no core measures distances: {found.core}", "unset RWTOOL_CORE, or install rwtool anew")
    elif found.core == "edt" and found.variables.get("RWTOOL_CORE") == "edt":
        yield Advice("RWTOOL_CORE=edt: distances take about three times as long", "unset it")
    elif found.core == "edt":
        yield Advice(
            "the native core was not built: distances take about three times as long",
            "install rwtool again where there is a C compiler",
        )
    if found.memory_bytes is not None and found.memory_bytes < _LITTLE_MEMORY:
        yield Advice(
            f"{size(found.memory_bytes)} of memory are free: large volumes will be refused, and few cases done at once",
            "free some, or ask for a larger share of the machine, such as sbatch --mem=16G",
        )
    if found.cores == 1 and found.machine_cores > 1:
        yield Advice(
            f"1 of {found.machine_cores} cores may be used, so one case is done at a time",
            "ask for more, such as sbatch --cpus-per-task=8 or docker run --cpus=8",
        )
    if found.load is not None and found.load > 2 * found.machine_cores:
        yield Advice(
            f"{found.load:.1f} processes want the {count(found.machine_cores, 'core')} of this machine, so all of them "
            "wait",
            "wait until others have ended, or take another machine",
        )
    if bounds := [f"{name}={value}" for name, value in found.variables.items() if name in _THREADS and value == "1"]:
        yield Advice(
            f"{', '.join(bounds)}: a training on a CPU and ITK use one thread", "unset it, unless that is meant"
        )
    if found.limits.get("open files", _FEW_FILES) < _FEW_FILES:
        yield Advice(f"at most {found.limits['open files']} files may be open at once", "ulimit -n 1024")
    if found.gpus.reason:
        yield Advice(
            f"no GPU, so a training takes long: {found.gpus.reason}", "train where there is one; all else needs none"
        )
    if found.extras.get("plot"):
        yield Advice("no matplotlib: reports have no charts, and there are no pictures", "pip install 'rwtool[plot]'")
    if found.encodings["standard output"].lower().replace("-", "") not in ("utf8", "none"):
        yield Advice(
            f"standard output is {found.encodings['standard output']}: letters and signs beyond it are written out",
            "export PYTHONUTF8=1, or LC_ALL=C.UTF-8",
        )


def _of_folders(found: Diagnosis) -> Iterator[Advice]:
    for state, use in ((found.folder, "output"), (found.temporary, "temporary files")):
        if not state.writable:
            mend = "name another folder" if use == "output" else "export TMPDIR=DIR, a folder that can be"
            yield Advice(f"{state.path}, for {use}, cannot be written to", mend)
            continue
        if not state.locks:
            yield Advice(
                f"{state.path}, for {use}: locks do not hold, so several processes must not write there at once",
                "mount it with locks (flock, on Lustre; local_lock=none, on NFS), or take another folder",
            )
        if state.free_bytes is not None and state.free_bytes < _LITTLE_SPACE:
            yield Advice(
                f"{state.path}, for {use}, has {size(state.free_bytes)} left", "free some, or take another folder"
            )


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _extras() -> dict[str, tuple[str, ...]]:
    """What is still missing of each extra that a user may want."""
    wanted: dict[str, list[str]] = {}
    for requirement in metadata.requires("rwtool") or ():
        if (match := _REQUIREMENT.match(requirement)) and match[2] in _EXTRAS:
            wanted.setdefault(match[2], []).append(match[1])
    return {extra: tuple(name for name in names if _version(name) is None) for extra, names in sorted(wanted.items())}


def _load() -> float | None:
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def _machine_memory() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _limits() -> dict[str, int]:
    """The limits of this process that are any."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return {}
    found = {}
    for what, name in _LIMITS.items():
        with contextlib.suppress(AttributeError, OSError, ValueError):  # not every system has each
            limit = resource.getrlimit(getattr(resource, name))[0]
            if limit not in (resource.RLIM_INFINITY, -1):
                found[what] = limit
    return found


def _gpus() -> Gpus:
    """Ask PyTorch, unless its own files or the lack of a driver tell that there is no GPU."""
    place = importlib.util.find_spec("torch")
    if place is None or place.origin is None:
        return Gpus(reason="PyTorch is not installed")
    with contextlib.suppress(OSError, UnicodeDecodeError):
        text = (Path(place.origin).parent / "version.py").read_text(encoding="utf-8")
        if re.search(r"^cuda\b", text, re.MULTILINE) and not _OF_CUDA.search(text):
            return Gpus(reason=f"PyTorch {_version('torch')} was built without CUDA")
    if sys.platform.startswith("linux") and not _has_driver():
        return Gpus(reason="this machine has no driver of a GPU")
    return _ask_torch()


def _has_driver() -> bool:
    """Whether the library of NVIDIA's or AMD's driver can be loaded."""
    for name in ("libcuda.so.1", "libamdhip64.so"):
        with contextlib.suppress(OSError):
            ctypes.CDLL(name)
            return True
    return Path("/dev/kfd").exists()


def _ask_torch() -> Gpus:
    start = time.perf_counter()
    try:
        import torch

        devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    except Exception as error:  # of a driver or a build that does not fit: RuntimeError, OSError, ImportError
        reason = f"PyTorch cannot use it: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        return Gpus(reason=reason, seconds=time.perf_counter() - start)
    seconds = time.perf_counter() - start
    if not devices:
        return Gpus(reason="PyTorch sees no device", seconds=seconds)
    names, memory = (tuple(getattr(device, what) for device in devices) for what in ("name", "total_memory"))
    return Gpus(names, memory, seconds=seconds)


def _look_at(folder: Path) -> FolderState:
    """Write a file and lock it, twice."""
    free = None
    with contextlib.suppress(OSError):
        free = shutil.disk_usage(folder).free
    path = folder / f".{uuid.uuid4().hex}.rwtool-doctor"
    writable = locks = False
    try:
        with FileLock(path, timeout=0):
            writable = True
            try:
                with FileLock(path, timeout=0):
                    pass
            except Timeout:
                locks = True
    except (OSError, NotImplementedError):
        writable = writable or _can_write(path)
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
    return FolderState(os.path.abspath(folder), free, writable, locks)


def _can_write(path: Path) -> bool:
    try:
        path.write_bytes(b"")
    except OSError:
        return False
    return True
