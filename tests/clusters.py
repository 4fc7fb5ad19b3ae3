"""A Dask scheduler and its workers, in processes of their own on this machine."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import rwtool

PATH = os.pathsep.join(
    map(str, filter(None, (Path(__file__).parent, Path(rwtool.__file__).parents[1], os.environ.get("PYTHONPATH"))))
)
"""Where processes find the functions of tests, and the rwtool of these."""

_SECONDS = 60
TLS = "DASK_DISTRIBUTED__COMM__TLS__"


class Cluster:
    """A scheduler, and workers as they are started; all of them are gone at the end of a block."""

    def __init__(self, folder, *, failures=0, protocol="tcp", host="127.0.0.1", environment=None):
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.environment = environment or {}
        self.file = folder / "scheduler.json"
        self.processes = []
        self.scheduler = self._start(
            "scheduler", "--host", host, "--port", "0", "--protocol", protocol, "--scheduler-file", self.file,
            DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES=str(failures),
        )  # fmt: skip
        self.address = wait_for(self._address)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.terminate()
        for process in reversed(self.processes):
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _address(self):
        with contextlib.suppress(OSError, ValueError):
            return json.loads(self.file.read_text())["address"]

    def _start(self, what, *arguments, **environment):
        own = self.folder / f"{what}-{len(self.processes)}"
        own.mkdir()
        code = (
            "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); from dask.__main__ import main; main()"
        )
        with (own / "log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", code, what, *map(str, arguments), "--no-dashboard"],
                cwd=own,  # not where the tests are
                env={
                    **os.environ,
                    "PYTHONPATH": PATH,
                    **self.environment,
                    **environment,
                },
                stdout=log,
                stderr=log,
            )
        self.processes.append(process)
        return process

    def worker(self, *arguments, name=None, **environment):
        """Start a worker, of one thread, which a nanny starts anew where it dies."""
        named = () if name is None else ("--name", name)
        return self._start("worker", self.address, "--nthreads", 1, *named, *arguments, **environment)

    def workers(self, count):
        """Processes of the workers by their addresses, as soon as there are so many."""
        from distributed import Client

        with Client(self.address, set_as_default=False) as client:
            client.wait_for_workers(count, timeout=_SECONDS)
            return client.run(os.getpid)


def wait_for(found):
    """What a function finds, as soon as it finds something."""
    end = time.monotonic() + _SECONDS
    while not (what := found()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return what
