"""Files that were edited, given to what reads them: an error of one line or a right result, and nothing else.

A target makes sound files of a seed, edits them, and uses them as a user would. A case is a target and a number, and
comes out the same each time:

    python tests/fuzzing.py                     20,000 cases over all targets, and what they came to
    python tests/fuzzing.py --cases 500 nrrd    of one target
    python tests/fuzzing.py nrrd:123            one case, told at length; its files are kept
"""

import argparse
import collections
import contextlib
import multiprocessing
import os
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

from edited_studies import STUDIES
from edited_volumes import VOLUMES
from findings import Files, FindingError, Verdict, check_error, fill_memory
from mutations import Edit

from rwtool.errors import RwtoolError

SECONDS = 10
MEGABYTES = 1000

TARGETS = {**VOLUMES, **STUDIES}


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
                with contextlib.suppress(*(Exception,) * bool(files.edits)):  # a second edit may find nothing to edit
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
                check_error(error, folder)
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
        fill_memory(0)


def _put(files, folder):
    """Write the files where the case is used."""
    (folder / "in").mkdir(parents=True)
    for name, data in files.content.items():
        path = folder / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _check_left(files, folder, name):
    """Nothing was written but into the output, and no input was changed."""
    beside = {path.name for path in folder.parent.iterdir()} - {"case"}
    if beside or {path.name for path in folder.iterdir()} - {"in", "out"}:
        raise FindingError(f"it wrote outside of its folder: {sorted(folder.parent.rglob('*'))[:20]}")
    if name in ("maps", "cache"):
        return  # these are used where they are
    inputs = [path for path in (folder / "in").rglob("*") if path.is_file()]
    there = {path.relative_to(folder / "in").as_posix(): path.read_bytes() for path in inputs}
    if there != files.content:
        changed = [part for part in {**there, **files.content} if there.get(part) != files.content.get(part)]
        raise FindingError(f"it changed its inputs: {changed}")


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


def run_cases():
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
    with contextlib.suppress(KeyboardInterrupt):
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
    run_cases()
