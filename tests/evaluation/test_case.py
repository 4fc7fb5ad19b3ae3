import json
import math
import re

import numpy as np
import pytest

from rwtool.datasets.classes import make_classes
from rwtool.datasets.plan import plan_dataset
from rwtool.evaluation import case
from rwtool.evaluation.case import CaseJob, Settings, measure_case

SETTINGS = Settings(make_classes([0, 1, 2]), (1, 2), (), True, "directed", {1: 1.0}, (2.0, 1.0, 0.5), False)


@pytest.fixture
def job(tmp_path):
    reference = np.zeros((4, 6, 7), np.uint8)
    reference[1:3, 1:5, 1:5] = 1
    np.save(tmp_path / "reference.npy", reference)
    np.save(tmp_path / "prediction.npy", np.roll(reference, 1, 2))
    path = tmp_path / "reference.npy"
    file = plan_dataset(path, classes=[0, 1, 2], spacing_mm=(2, 1, 0.5), verbosity=-1).files["reference"]
    return CaseJob(file, (tmp_path / "prediction.npy",), SETTINGS, tmp_path / "cache" / "a.json")


@pytest.fixture
def measured(monkeypatch):
    """What is measured, one entry a prediction."""
    calls = []
    plain = case._measure
    monkeypatch.setattr(case, "_measure", lambda *arguments: (calls.append(1), plain(*arguments))[1])
    return calls


def numbers(results):
    return [str({**vars(entry)}) for result in results for entry in result.metrics]


def test_what_is_unchanged_is_taken_from_the_cache_with_its_undefined_numbers(job, measured):
    first, second = measure_case(job), measure_case(job)
    assert len(measured) == 1
    assert ([result.reused for result in first], [result.reused for result in second]) == ([False], [True])
    assert numbers(first) == numbers(second)
    assert math.isnan(second[0].metrics[1].dice)  # an absent class
    assert json.loads(job.cache.read_text())["format"] == 3


def test_any_digit_that_changes_is_measured_again(job, measured):
    truth = numbers(measure_case(job))
    good = job.cache.read_text()
    digits = [found.start() for found in re.finditer(r"\d", good)]
    for place in digits[:: max(1, len(digits) // 40)]:
        job.cache.write_text(good[:place] + str((int(good[place]) + 1) % 10) + good[place + 1 :])
        assert numbers(measure_case(job)) == truth
    measured.clear()
    job.cache.write_text(re.sub(r'"dice": 0\.\d', '"dice": 0.1', good))
    assert numbers(measure_case(job)) == truth
    assert len(measured) == 1


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content["results"].update(x=1),
        lambda content: content.update(results=[]),
        lambda content: content.update(format=1),
        lambda content: content.pop("results"),
        lambda content: next(iter(content["results"].values())).pop("metrics"),
        lambda content: next(iter(content["results"].values())).pop("crc32"),
        lambda content: next(iter(content["results"].values()))["metrics"].append({"label": 1}),
        lambda content: next(iter(content["results"].values())).update(alignment="turned"),
        lambda content: next(iter(content["results"].values())).update(voxels=-1),
        lambda content: next(iter(content["results"].values())).update(notes=[1]),
    ],
)
def test_a_cache_of_another_form_is_measured_anew(job, measured, spoil):
    truth = numbers(measure_case(job))
    content = json.loads(job.cache.read_text())
    spoil(content)
    job.cache.write_text(json.dumps(content))
    measured.clear()
    assert numbers(measure_case(job)) == truth
    assert len(measured) == 1


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000, b'{"format": 2, "format": 2}', b"[NaN]", b"3"])
def test_what_is_no_cache_is_measured_anew(job, measured, content):
    job.cache.parent.mkdir()
    job.cache.write_bytes(content)
    measure_case(job)
    assert len(measured) == 1
    measure_case(job)
    assert len(measured) == 1


def test_a_result_is_bound_to_what_it_was_measured_of(job, measured):
    measure_case(job)
    content = json.loads(job.cache.read_text())
    ((key, result),) = content["results"].items()
    other = job.settings.key("0" * 64, None)
    job.cache.write_text(json.dumps({**content, "results": {other: result}}))
    assert case._read_cache(job.cache) == {}
    job.cache.write_text(json.dumps({**content, "results": {key: result}}))
    assert list(case._read_cache(job.cache)) == [key]


def test_a_prediction_that_changes_while_it_is_measured_has_no_number_and_no_place_in_the_cache(job, monkeypatch):
    plain = case.read_aligned

    def read_and_change(path, *arguments, **options):
        np.save(path, np.zeros((4, 6, 7), np.uint8))
        return plain(path, *arguments, **options)

    monkeypatch.setattr(case, "read_aligned", read_and_change)
    (found,) = measure_case(job)
    assert found.metrics == ()
    assert "it was changed while it was read; run again" in found.error
    assert json.loads(job.cache.read_text())["results"] == {}
