import json
from dataclasses import replace

from commands import run, said
from test_diagnosis import HEALTHY

from rwtool.diagnosis import FolderState, Gpus, advise


def test_this_machine_is_told_in_lines(tmp_path):
    lines = run("doctor", tmp_path).output.splitlines()
    told = {line[:20].strip(): line[21:] for line in lines if not line.startswith("-")}
    assert {"rwtool", "Python", "libraries", "cores", "limits", "GPU", "codecs", "rwtool[plot]", "encodings"} <= set(
        told
    )
    assert told["folder"].startswith(f"{tmp_path}: ")
    assert told["folder"].endswith("locks hold")


def test_json_holds_all_of_it(tmp_path):
    content = json.loads(run("doctor", tmp_path, "--format", "json").output)
    assert content["folder"]["path"] == str(tmp_path)
    assert set(content) == set(vars(HEALTHY))


def test_the_exit_code_is_0_whatever_is_found(monkeypatch, tmp_path):
    bad = replace(
        HEALTHY,
        core="edt",
        memory_bytes=None,
        gpus=Gpus(("H100",), (80 * 10**9,), seconds=2.5),
        folder=FolderState("/data", None, True, False),
        temporary=FolderState("/tmp", 1, False, False),
    )
    monkeypatch.setattr("rwtool.diagnosis.doctor", lambda folder: replace(bad, advice=tuple(advise(bad))))
    told = said(run("doctor", tmp_path))
    assert "GPU H100, 80.0 GB (PyTorch took 2.5 s to say so)" in told
    assert "- the native core was not built" in told
    assert "/data: LOCKS DO NOT HOLD" in told
    assert "/tmp: cannot be written to" in told


def test_nothing_slow_is_said_too(monkeypatch, tmp_path):
    monkeypatch.setattr("rwtool.diagnosis.doctor", lambda folder: HEALTHY)
    assert run("doctor", tmp_path).output.endswith("\nnothing that would be slow here was found\n")


def test_a_folder_that_is_not_there_is_wrong_use(tmp_path):
    run("doctor", tmp_path / "gone", code=2)
