import numpy as np
from handmade import row, series

from rwtool.evaluation.rows import Rules
from rwtool.report.text import definitions, notes
from rwtool.statistics.comparison import compare_rows as compare


def test_the_rules_in_force_are_named():
    rows = [row(m, f"c{i}", 0.1 * i * (m == "b"), metric=k) for m in "ab" for i in range(3) for k in ("hd95", "nsd")]
    rules = Rules(hd95="pooled", undefined=50.0, nsd_tolerance_mm=((1, 2.0),), ignore=255)
    found = definitions(compare(rows, rules), rules)
    assert found["hd95"] == "pooled, 95th percentile of both directions together (as MedPy and nnU-Net v1)"
    assert found["undefined"].startswith(
        "50 mm; the distance of a missed or hallucinated structure is 50 mm; (exclude)"
    )
    assert found["nsd"] == "tolerance 2 mm (class 1)"
    assert found["ignore"] == "voxels of label 255 in the reference belong to no class"
    assert "n = 3 subjects; exact (8 sign flips)" in found["test"]
    unknown = Rules(hd95=None, undefined="exclude")
    assert "not recorded" in definitions(compare(rows, unknown), unknown)["hd95"]


def test_drawn_flips_are_named():
    rows = [*series("a", [0.1] * 20), *series("b", [0.1 * i for i in range(20)])]
    rules = Rules(permutations=1234, seed=7)
    assert "n = 20 subjects; Monte Carlo (m = 1,234, seed 7)" in definitions(compare(rows, rules), rules)["test"]


def test_five_subjects_are_said_to_be_too_few():
    rows = [*series("a", [0.1] * 5), *series("b", [0.2, 0.3, 0.4, 0.5, 0.6])]
    (note,) = notes(compare(rows, Rules()))
    assert note == ("all tests: n = 5: p < 0.05 is out of reach: with 5 non-zero differences the smallest p is 0.0625")


def test_a_note_names_the_tests_that_it_is_about():
    rows = [row(m, f"c{i}", 0.1 * (i + 1) * (m == "b"), label=k) for m in "ab" for k in (1, 2) for i in range(6)]
    assert notes(compare(rows, Rules())) == []
    rows = [r for r in rows if r.label == 1 or r.case < "c4"]
    (note,) = notes(compare(rows, Rules()))
    assert note.startswith("b/2/dice: n = 4: p < 0.05 is out of reach")


def skewed_rows(labels=(1,), **changes):
    """Eight subjects of whom one gains much and the others lose little."""
    gains = [-0.02, -0.01, -0.03, -0.02, -0.01, -0.03, -0.02, 0.4]
    return [
        row(method, f"c{i}", 0.5 + gain * (method == "new"), label=label, **changes)
        for label in labels
        for method in ("old", "new")
        for i, gain in enumerate(gains)
    ]


def test_skewed_differences_are_said_once_with_what_to_do():
    (note,) = notes(compare(skewed_rows((1, 2)), Rules()))
    assert note.startswith("all tests: the differences are skewed (skewness 2.3 to 2.3 in size)")
    for words in ("presumes symmetric ones", "p may be too small", "subjects that stand out", "such as 0.01"):
        assert words in note


def test_the_tests_with_skewed_differences_are_named():
    rows = skewed_rows()
    rows += [row(m, f"c{i}", 0.5 + 0.1 * i * (m == "new"), label=2) for m in ("old", "new") for i in range(8)]
    (note,) = notes(compare(rows, Rules()))
    assert note.startswith("new/1/dice: the differences are skewed (skewness 2.3 in size)")


def test_symmetric_differences_are_not_called_skewed():
    rng = np.random.default_rng(0)
    rows = [*series("a", [0.5] * 40), *series("b", 0.5 + 0.01 * rng.normal(size=40))]
    assert notes(compare(rows, Rules())) == []
