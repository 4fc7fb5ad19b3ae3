"""Start the program many times in little time: an interpreter that has imported all of it forks a process for each."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

_SERVE = """
import atexit, gc, json, os, signal, sys
from rwtool.__main__ import main
{imports}
signal.signal(signal.SIGINT, signal.default_int_handler)
gc.freeze()  # so that a process shares the memory of what was imported
for line in sys.stdin:
    folder, said, first, words = json.loads(line)
    process = os.fork()
    if process == 0:
        os.setsid()
        os.chdir(folder)
        for number, (name, mode) in enumerate(((os.devnull, "r"), (os.devnull, "w"), (said, "w"))):
            with open(name, mode) as file:
                os.dup2(file.fileno(), number)
        exec(first)
        sys.argv = ["rwtool", *words]
        try:
            main()
        except SystemExit as end:  # all but to tear down what was imported, which takes longer than the run
            atexit._run_exitfuncs()
            sys.stdout.flush()
            os._exit(end.code or 0)
    print(process, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
"""
_ALL = """
import pkgutil
import jinja2, nibabel, numpy, SimpleITK, torch, torch._dynamo
import matplotlib.backends.backend_agg, matplotlib.backends.backend_svg, matplotlib.figure, PIL.PngImagePlugin
import rwtool.cli, rwtool.training.study, rwtool.network.predict, rwtool.maps.make
import rwtool.report.curves, rwtool.report.results
for module in pkgutil.iter_modules(rwtool.cli.__path__, "rwtool.cli."):
    __import__(module.name)
torch.set_num_threads(1)
rwtool.report.curves.can_draw = lambda: False
"""
_SOME = "import nibabel, rwtool.cli.maps, rwtool.cli.evaluate, rwtool.maps.make, rwtool.evaluation.evaluate"


class Launcher:
    """Runs of the program, one at a time, each a process in a session of its own; a context manager.

    With `networks`, what trains and applies them is imported too. With `mounts`, what :meth:`mount` mounts is there for
    these runs alone, and gone at the end.
    """

    def __init__(self, *, networks=True, mounts=False):
        serve = _SERVE.format(imports=_ALL if networks else _SOME)
        self._server = subprocess.Popen(
            [*(["unshare", "--mount"] if mounts else []), sys.executable, "-c", serve],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
            start_new_session=True,
        )
        self._folder = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._server.stdin.close()
        self._server.stdout.close()
        self._server.wait(60)

    def start(self, folder, *words, first=""):
        """Begin a run in a folder, after some Python; give its process."""
        self._folder = folder
        task = json.dumps([str(folder), str(folder / "said"), first, list(map(str, words))])
        print(task, file=self._server.stdin, flush=True)
        return int(self._server.stdout.readline())

    def wait(self):
        """Exit code of the run, and what it said."""
        code, said = int(self._server.stdout.readline()), self._folder / "said"
        return code, said.read_text() if said.exists() else ""

    def run(self, folder, *words, first=""):
        """A whole run: exit code, what it said, and its time in seconds."""
        started = time.monotonic()
        self.start(folder, *words, first=first)
        return (*self.wait(), time.monotonic() - started)

    def mount(self, *options):
        """Mount something for the runs to come."""
        command = ["nsenter", "--mount", f"--target={self._server.pid}", "mount", *map(str, options)]
        subprocess.run(command, check=True, capture_output=True)

    def seen(self, path):
        """A path as the runs see it."""
        return Path(f"/proc/{self._server.pid}/root{path}")


def stop(process, number):
    """Send a signal as it comes: Ctrl-C to the processes of the terminal, others to the one that is known."""
    try:
        if number == signal.SIGINT:
            os.killpg(process, number)
        else:
            os.kill(process, number)
    except ProcessLookupError:  # it has ended, and the interpreter has asked how
        pass
