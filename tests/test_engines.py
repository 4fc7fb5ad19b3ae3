import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import types
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from clusters import PATH, TLS, Cluster
from commands import run, said

import rwtool
from rwtool import engines
from rwtool.engines import choose_engine
from rwtool.errors import RwtoolError, UsageError
from rwtool.maps.core import core_version
from rwtool.maps.folder import MapSet
from rwtool.parallel import GOES_ON, Work, run_cases

try:
    import distributed
except ImportError:
    distributed = None

dask = pytest.mark.dask
needs_dask = [dask, pytest.mark.skipif(distributed is None, reason="distributed is not installed")]
CASES = 8


def with_dask(function):
    for mark in needs_dask:
        function = mark(function)
    return function


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A scheduler that takes no death for an accident, and two workers."""
    with Cluster(tmp_path_factory.mktemp("cluster")) as found:
        for number in range(2):
            found.worker("--resources", "MEMORY=2e9", name=f"shared-{number}")
        found.workers(2)
        yield found


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    """Folders of label files, labels and predictions; no test may change them."""
    folder = tmp_path_factory.mktemp("volumes")
    rng = np.random.default_rng(0)
    for name in ("labels", "predictions"):
        (folder / name).mkdir()
    for number in range(CASES):
        labels = np.zeros((20, 24, 16 + number), dtype=np.uint8)
        for label in (1, 2):
            z, y, x = rng.integers(0, 10, 3)
            labels[z : z + 9, y : y + 8, x : x + 6] = label
        for name, array in (("labels", labels), ("predictions", np.roll(labels, 1, 0))):
            nib.save(nib.Nifti1Image(array, np.diag([1, 1.5, 2, 1])), folder / name / f"case_{number}.nii.gz")
    return folder


@pytest.fixture(scope="module")
def here(volumes, tmp_path_factory):
    """What this machine comes to."""
    folder = tmp_path_factory.mktemp("here")
    rwtool.make_maps(volumes / "labels", folder / "maps", jobs=1)
    rwtool.evaluate(volumes / "labels", volumes / "predictions", out=folder / "results", jobs=1)
    return folder


def on(cluster):
    return "--engine", "dask", "--scheduler", cluster.address


def content(folder):
    """All files of a folder, and of maps.json what does not depend on when it was made."""
    found = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    sidecar = Path("rrw", "maps.json")
    if sidecar in found:
        cases = json.loads(found[sidecar])["cases"].values()
        found[sidecar] = [
            {key: value for key, value in case.items() if key not in ("seconds", "times_ns", "source")}
            for case in cases
        ]
    return found


def chosen(cluster):
    return choose_engine("dask", cluster.address, alike=core_version)


def cases(cluster, function, *arguments, jobs=100, **more):
    work = [Work(f"case {number}", argument, voxels=100 - number) for number, argument in enumerate(arguments)]
    return run_cases(function, work, jobs=jobs, label="do", verbosity=-1, engine=chosen(cluster), **more)


# What it comes to


@with_dask
def test_maps_are_those_of_this_machine_to_the_byte(cluster, volumes, here, tmp_path, monkeypatch):
    monkeypatch.chdir(volumes)  # paths are relative, and workers elsewhere
    done = run("maps", "labels", tmp_path / "maps", *on(cluster))
    assert f"{CASES} cases to do, on the workers of {cluster.address}" in said(done)
    assert content(tmp_path / "maps") == content(here / "maps")
    assert "8 maps verified" in said(run("check", tmp_path / "maps" / "rrw", *on(cluster)))
    assert "0 cases to do" in said(run("maps", "labels", tmp_path / "maps", *on(cluster)))
    assert " of one core (from a trial" in said(run("maps", "labels", tmp_path / "new", *on(cluster), "--dry-run"))
    assert not (tmp_path / "new").exists()


@with_dask
def test_results_are_those_of_this_machine_to_the_byte(cluster, volumes, here, tmp_path):
    rwtool.evaluate(
        volumes / "labels",
        volumes / "predictions",
        out=tmp_path / "results",
        engine="dask",
        scheduler=str(cluster.file),
    )
    found, expected = content(tmp_path / "results"), content(here / "results")
    assert found.keys() == expected.keys()
    assert len([path for path in found if path.parent == Path("cache")]) == CASES
    assert {path for path in found if found[path] != expected[path]} <= {Path("report.html")}  # it names its folder


@with_dask
def test_predictions_are_those_of_this_machine(cluster, cohort, quick, tmp_path):
    expected = rwtool.predict(quick.folder, cohort / "images", tmp_path / "here", device="cpu")
    found = rwtool.predict(
        quick.folder, cohort / "images", tmp_path / "there", device="cpu", engine="dask", scheduler=cluster.address
    )
    assert found.files == {case: tmp_path / "there" / path.name for case, path in expected.files.items()}
    assert found.notes == expected.notes
    for case, path in found.files.items():
        assert path.read_bytes() == expected.files[case].read_bytes()


@with_dask
def test_no_case_is_done_in_this_process_nor_more_at_once_than_jobs_says(cluster):
    found = [outcome.result for outcome in cases(cluster, note_times, *range(6))]
    assert os.getpid() not in {process for process, _, _ in found}
    assert len({process for process, _, _ in found}) == 2
    one = sorted((start, end) for _, start, end in (o.result for o in cases(cluster, note_times, *range(4), jobs=1)))
    assert all(end <= start for (_, end), (start, _) in pairwise(one))


def note_times(number):
    start = time.time()
    time.sleep(0.1)
    return os.getpid(), start, time.time()


@with_dask
def test_a_failing_case_costs_no_other(cluster):
    fine, mistake, bug = cases(cluster, misbehave, ("fine", None), ("mistake", None), ("bug", None))
    assert (fine.result, fine.error) == ("fine", None)
    assert (mistake.error, mistake.details) == ("case.nii: mend it", None)
    assert bug.error == "unexpected ZeroDivisionError: a bug (this is a bug in rwtool)"
    assert 'raise ZeroDivisionError("a bug")' in bug.details


def misbehave(argument):
    how, path = argument
    if how == "mistake":
        raise RwtoolError("case.nii: mend it")
    if how == "bug":
        raise ZeroDivisionError("a bug")
    if how == "killed" or (how == "killed once" and not path.exists()):
        if path is not None:
            path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return how


# What dies


@with_dask
def test_a_worker_that_is_killed_costs_nothing(cluster, volumes, here, tmp_path, monkeypatch):
    victims = list(cluster.workers(2).values())
    added = MapSet.add

    def kill_and_add(self, case, record):
        if victims:
            os.kill(victims[0], signal.SIGKILL)
            victims.clear()
        added(self, case, record)

    monkeypatch.setattr(MapSet, "add", kill_and_add)
    made = rwtool.make_maps(volumes / "labels", tmp_path / "maps", engine="dask", scheduler=cluster.address)
    assert (len(made.outcomes), made.failed) == (CASES, [])
    assert not victims
    assert content(tmp_path / "maps") == content(here / "maps")


@with_dask
def test_a_case_that_kills_each_worker_is_named_and_those_beside_it_are_not(cluster, tmp_path):
    arguments = [("fine", None), ("killed", None), *[("fine", None)] * 4, ("killed once", tmp_path / "note")]
    done = []
    found = cases(cluster, misbehave, *arguments, on_done=lambda outcome: done.append(outcome.name))
    assert [outcome.result for outcome in found] == ["fine", None, *["fine"] * 4, "killed once"]
    assert re.fullmatch(
        r"its worker died each time that it was tried, also alone \(the last was tcp://127.0.0.1:\d+\), most often for "
        r"want of memory; give the workers more and run again",
        found[1].error,
    )
    assert sorted(done) == [outcome.name for outcome in found]


@with_dask
def test_what_a_killed_worker_has_half_written_is_swept(cluster, tmp_path):
    (found,) = cases(cluster, write_and_die, tmp_path, folders=[tmp_path])
    assert found.error.startswith("its worker died")
    assert list(tmp_path.iterdir()) == []


def write_and_die(folder):
    from rwtool.files import atomic

    with atomic(folder / "file") as path:
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)


@with_dask
def test_a_scheduler_that_goes_is_one_line_and_a_rerun_does_the_rest(cluster, volumes, here, tmp_path, monkeypatch):
    added = MapSet.add
    with Cluster(tmp_path / "other") as other:
        other.worker()
        other.workers(1)

        def kill_and_add(self, case, record):
            if len(self.cases) == 2:
                other.scheduler.kill()
                other.scheduler.wait()
            added(self, case, record)

        with monkeypatch.context() as patch:
            patch.setattr(MapSet, "add", kill_and_add)
            done = run("maps", volumes / "labels", tmp_path / "maps", *on(other), "-q", code=1)
    number = int(re.search(r"(\d+) of 8 cases done", said(done))[1])
    assert 3 <= number < CASES
    assert said(done) == (
        f"Error: {other.address}: the scheduler has gone, or the way to it; {number} of 8 cases done; run the same "
        "command again to go on"
    )
    assert not [path for path in (tmp_path / "maps" / "rrw").iterdir() if path.name.startswith(".")]
    again = said(run("maps", volumes / "labels", tmp_path / "maps", *on(cluster)))
    assert f"{CASES - number} cases to do" in again
    assert content(tmp_path / "maps") == content(here / "maps")


@with_dask
@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_says_what_is_done_and_nothing_else_does(cluster, tmp_path):
    """In a process of its own, whose terminal shows all that distributed has to say."""
    script = (
        "import sys, test_engines as t\n"
        "from rwtool.parallel import GOES_ON, Work, run_cases\n"
        "from rwtool.engines import choose_engine\n"
        "engine = choose_engine('dask', sys.argv[1], alike=t.core_version)\n"
        "work = [Work('a', 0, 2), Work('b', 60), Work('c', 60), Work('d', 60)]\n"
        "try: run_cases(t.time.sleep, work, jobs=9, label='sleep', rerun=GOES_ON, engine=engine)\n"
        "except KeyboardInterrupt as error: sys.exit(str(error))\n"
    )
    with Cluster(tmp_path / "other") as other:
        other.worker("--no-nanny")
        other.worker("--no-nanny")
        other.workers(2)
        with subprocess.Popen(
            [sys.executable, "-c", script, other.address],
            env={**os.environ, "PYTHONPATH": PATH},
            stderr=subprocess.PIPE,
            encoding="utf-8",
        ) as process:
            try:
                assert process.stderr.readline() == "[1/4] sleep a: 0.0 s\n"
                stopped = time.monotonic()
                process.send_signal(signal.SIGINT)
                assert process.stderr.read() == f"1 of 4 cases done; {GOES_ON}\n"
                assert process.wait() == 1
                assert time.monotonic() - stopped < 30
            finally:
                process.kill()


# Whom it is done by


@with_dask
def test_workers_of_other_versions_are_refused_with_both(cluster, volumes, tmp_path):
    fake = tmp_path / "fake" / "numpy-0.0.1.dist-info"
    fake.mkdir(parents=True)
    (fake / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 0.0.1\n")
    core = "edt" if core_version()["distance core"] == "native" else "native"
    with Cluster(tmp_path / "other") as other:
        path = os.pathsep.join((str(fake.parent), PATH))
        other.worker("--no-nanny", PYTHONPATH=path, **({"RWTOOL_CORE": core} if core == "edt" else {}))
        other.workers(1)
        done = said(run("maps", volumes / "labels", tmp_path / "maps", *on(other), "-q", code=1))
    differs = f"distance core {core} there and native here, " if core == "edt" else ""
    assert re.fullmatch(
        rf"Error: worker tcp://127.0.0.1:\d+: {differs}numpy 0.0.1 there and {re.escape(np.__version__)} here, which "
        "may give other numbers; install the same there",
        done,
    )
    assert not list((tmp_path / "maps").rglob("*.nii.gz"))


@with_dask
def test_workers_without_rwtool_are_refused(volumes, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['rwtool'] = None\n")
    with Cluster(tmp_path / "other") as other:
        other.worker("--no-nanny", PYTHONPATH=str(tmp_path))
        other.workers(1)
        done = said(run("maps", volumes / "labels", tmp_path / "maps", *on(other), "-q", code=1))
    assert re.fullmatch(
        rf"Error: worker tcp://127.0.0.1:\d+: it cannot run rwtool {re.escape(rwtool.__version__)} \(.*rwtool.*\); "
        "install the same there",
        done,
    )


@with_dask
@pytest.mark.skipif(
    not Path("/proc/self/cwd").exists(), reason="it needs /proc/self/cwd, which each process has its own"
)
def test_workers_that_see_other_files_are_refused_before_work_starts(cluster, volumes, tmp_path, monkeypatch):
    monkeypatch.chdir(volumes)
    problem = "it is not there; workers need the same files under the same paths, as on a shared file system"
    done = said(run("maps", "/proc/self/cwd/labels", tmp_path / "maps", *on(cluster), "-q", code=1))
    assert re.fullmatch(rf"Error: worker tcp://\S+ and 1 more: /proc/self/cwd/labels/case_\d.nii.gz: {problem}", done)
    monkeypatch.chdir(tmp_path)
    done = said(run("maps", volumes / "labels", "/proc/self/cwd/maps", *on(cluster), "-q", code=1))
    assert re.fullmatch(rf"Error: worker tcp://\S+ and 1 more: /proc/self/cwd/maps/rrw\S*: {problem}", done)


@with_dask
def test_a_worker_that_comes_late_is_asked_before_its_first_case(cluster):
    site = engines._Site(core_version, (("rwtool", "0"), ("edt", "0")), ())
    with (
        distributed.Client(cluster.address, set_as_default=False) as client,
        pytest.raises(RwtoolError, match=r"worker tcp://\S+: rwtool \S+ there and 0 here, edt \S+ there and 0 here"),
    ):
        client.submit(engines._call, site, b"", pure=False).result()


def test_workers_in_this_process_are_refused():
    assert "it runs in the process that asks" in engines._problem(engines._Site(core_version, (), ()))


@with_dask
def test_a_case_that_no_worker_can_hold_is_refused_with_its_need(cluster):
    work = [Work("small", ("fine", None), peak_bytes=2_000_000_000), Work("large", None, peak_bytes=3_000_000_000)]
    small, large = run_cases(misbehave, work, jobs=2, label="", verbosity=-1, engine=chosen(cluster))
    assert small.result == "fine"
    assert large.error == (
        f"it needs about 3.0 GB of memory and no worker of {cluster.address} has more than 2.0 GB; start one with more"
    )


@with_dask
def test_cases_that_a_worker_cannot_hold_together_are_done_one_after_another(tmp_path):
    with Cluster(tmp_path / "other") as other:
        other.worker("--no-nanny", "--nthreads", 3, "--resources", "MEMORY=2e9")
        other.workers(1)
        work = [Work(str(number), number, peak_bytes=1_500_000_000) for number in range(3)]
        found = run_cases(note_times, work, jobs=3, label="", verbosity=-1, engine=chosen(other))
    times = sorted((start, end) for _, start, end in (outcome.result for outcome in found))
    assert all(end <= start for (_, end), (start, _) in pairwise(times))


@with_dask
def test_waiting_for_a_worker_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(engines, "_LOOK_SECONDS", 0.1)
    monkeypatch.setattr(engines, "_WAIT_SECONDS", 0.3)
    with Cluster(tmp_path / "other") as other:
        said_before = engines.say

        def say_and_start(text, **more):
            said_before(text, **more)
            other.worker("--no-nanny")

        monkeypatch.setattr(engines, "say", say_and_start)
        (found,) = cases(other, misbehave, ("fine", None))
    assert found.result == "fine"
    assert capsys.readouterr().err == (
        f"note: {other.address}: waiting for a worker, for there is none now; Ctrl-C ends that\n"
    )


# How it is reached


@with_dask
def test_a_scheduler_that_does_not_answer_is_one_line(volumes, tmp_path, monkeypatch):
    from dask import config

    with config.set({"distributed.comm.timeouts.connect": "300ms"}):
        done = said(run("maps", volumes / "labels", tmp_path / "maps", "--engine", "dask", "--scheduler", "tcp://127.0.0.1:9",
                        code=1))  # fmt: skip
    assert re.fullmatch(
        r"Error: tcp://127.0.0.1:9: no Dask scheduler that takes this client: .*; start one, or name another "
        "--scheduler",
        done,
    )
    assert not (tmp_path / "maps").exists()


@with_dask
def test_what_dask_s_configuration_forbids_is_refused():
    from dask import config

    with (
        config.set({"distributed.comm.require-encryption": True}),
        pytest.raises(UsageError, match=r"^tcp://127.0.0.1:9 is no TLS, which Dask's configuration requires"),
    ):
        choose_engine("dask", "tcp://127.0.0.1:9", alike=core_version)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A key, and a certificate for it that it has signed itself."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("ours", "others"):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}",
             "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem"],
            check=True, capture_output=True,
        )  # fmt: skip
    return folder


def tls(certificates, name, *roles):
    files = {f"{TLS}CA_FILE": certificates / "ours.pem"}
    for role in roles:
        files |= {f"{TLS}{role}__CERT": certificates / f"{name}.pem", f"{TLS}{role}__KEY": certificates / f"{name}.key"}
    return {key: str(value) for key, value in files.items()}


@with_dask
def test_tls_lets_in_who_has_a_certificate_and_no_one_else(certificates, volumes, here, tmp_path):
    def maps(scheduler, environment, **more):
        return subprocess.run(
            [sys.executable, "-m", "rwtool", "maps", volumes / "labels", tmp_path / "maps", "-q", "--engine", "dask",
             "--scheduler", scheduler],
            env={**os.environ, "PYTHONPATH": PATH, **environment},
            capture_output=True, encoding="utf-8", check=False,
        )  # fmt: skip

    theirs = tls(certificates, "ours", "SCHEDULER", "WORKER")
    with Cluster(tmp_path / "other", protocol="tls", environment=theirs) as other:
        other.worker("--no-nanny", "--protocol", "tls")
        assert other.address.startswith("tls://")
        soon = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "2s"}
        bare = maps(other.address, soon)
        assert bare.returncode == 2
        assert (
            "needs certificates, which Dask's configuration names: set DASK_DISTRIBUTED__COMM__TLS__CA_FILE"
            in bare.stderr
        )
        stranger = maps(other.address, {**soon, **tls(certificates, "others", "CLIENT")})
        assert stranger.returncode == 1
        assert re.fullmatch(rf"Error: {other.address}: no Dask scheduler that takes this client: .*\n", stranger.stderr)
        gone = maps(other.address, tls(certificates, "gone", "CLIENT"))
        assert gone.returncode == 2
        assert f"{certificates / 'gone.pem'}: no such file, which Dask's configuration names" in gone.stderr
        plain = maps(other.address.replace("tls:", "tcp:"), soon)
        assert plain.returncode == 1
        assert re.fullmatch(r"Error: tcp\S+ no Dask scheduler that takes this client: .*\n", plain.stderr)
        assert not (tmp_path / "maps").exists()
        known = maps(other.address, tls(certificates, "ours", "CLIENT"))
        assert (known.returncode, known.stderr) == (0, "")
    assert content(tmp_path / "maps") == content(here / "maps")


@pytest.mark.parametrize(
    ("address", "is_open"),
    [
        ("tcp://127.0.0.1:8786", False),
        ("tcp://localhost:8786", False),
        ("tcp://[::1]:8786", False),
        ("tls://192.0.2.1:8786", False),
        ("tcp://192.0.2.1:8786", True),
        ("tcp://[2001:db8::1]:8786", True),
    ],
)
def test_an_address_that_others_reach_is_open_without_tls(address, is_open):
    assert engines._is_open(address) is is_open


@dataclass
class Answering:
    """Dask, where every scheduler answers."""

    monkeypatch: pytest.MonkeyPatch

    def __enter__(self):
        for name in ("dask", "distributed"):
            self.monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        self.monkeypatch.setattr(engines, "_connected", lambda engine: contextlib.nullcontext())

    def __exit__(self, *_):
        self.monkeypatch.undo()


def test_a_scheduler_that_others_reach_is_warned_of(monkeypatch, capsys):
    with Answering(monkeypatch):
        for scheduler in ("tcp://192.0.2.1:8786", "tls://192.0.2.1:8786", "localhost:8786"):
            choose_engine("dask", scheduler, alike=core_version)
    assert capsys.readouterr() == (
        "",
        "warning: tcp://192.0.2.1:8786: this is no TLS, so whoever reaches the scheduler or a worker runs code as you; "
        "use tls://, or a network that you trust (see rwtool help cluster)\n",
    )


@pytest.mark.parametrize("text", ["", "nowhere", "http://host:8786", "inproc://1/2/3", "tcp://host", "tls://host:port"])
def test_an_address_that_is_none_is_refused(monkeypatch, text):
    with (
        Answering(monkeypatch),
        pytest.raises(UsageError, match=r"^scheduler= is an address such as 'tls://host:8786'"),
    ):
        engines._address(text)


def test_a_scheduler_belongs_to_an_engine():
    assert choose_engine(None, None, alike=core_version) is None
    with pytest.raises(UsageError, match=r"scheduler= belongs to an engine; give engine='dask' too"):
        choose_engine(None, "tls://host:8786", alike=core_version)
    with pytest.raises(UsageError, match="found engine='ray'"):
        choose_engine("ray", None, alike=core_version)


def test_without_dask_one_line_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "distributed", None)
    done = run("evaluate", tmp_path, tmp_path, "--engine", "dask", "--scheduler", "tls://host:8786", code=2)
    assert said(done).endswith("Error: --engine dask needs a package more: pip install 'rwtool[dask]'")


@with_dask
def test_without_an_address_it_is_that_of_dask_s_configuration(cluster, monkeypatch):
    import dask

    with pytest.raises(UsageError, match="engine='dask' needs the address of its scheduler"):
        choose_engine("dask", None, alike=core_version)
    with dask.config.set({"scheduler-address": cluster.address}):
        assert choose_engine("dask", None, alike=core_version).scheduler == cluster.address
