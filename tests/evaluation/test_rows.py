import dataclasses
import math

import pytest
from handmade import row

from rwtool.evaluation.rows import Row, Rules
from rwtool.metrics.measures import METRICS


def test_a_row_is_a_record_that_cannot_change():
    one = row("unet", "c0", 0.5)
    assert one == row("unet", "c0", 0.5)
    assert one != row("unet", "c0", 0.25)
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.value = 1.0


def test_a_row_names_its_unit_and_its_place():
    names = [field.name for field in dataclasses.fields(Row)]
    assert names == [
        "method", "run", "case", "subject", "group", "label", "class_name", "metric", "value", "unit", "status",
        "diagonal_mm", "share", "reference_ml",
    ]  # fmt: skip
    assert {row("a", "c", 1.0, metric=metric).unit for metric in METRICS} == {"", "mm", "ml"}
    assert math.isnan(row("a", "c", None).value)


def test_the_rules_in_force_without_any_wish():
    rules = Rules()
    assert (rules.metrics, rules.hd95, rules.undefined) == (("dice", "hd95", "hd"), "directed", "diagonal")
    assert (rules.permutations, rules.seed, rules.alpha) == (10_000, 0, 0.05)
    assert (rules.nsd_tolerance_mm, rules.ignore, rules.subject) == ((), None, None)
