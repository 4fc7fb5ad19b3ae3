import dataclasses
import math
import random

import pytest
from handmade import row, series, structure

from rwtool.errors import UsageError
from rwtool.evaluation.rows import Rules
from rwtool.statistics.comparison import NoResult
from rwtool.statistics.comparison import compare_rows as compare

RULES = Rules()


def cell(comparison, method, metric="dice", label=1, group=""):
    (found,) = (c for c in comparison.cells if (c.method, c.metric, c.label, c.group) == (method, metric, label, group))
    return found


def result(comparison, method="new", metric="dice", *, rule="diagonal", label=1, group=""):
    key = (method, metric, rule, label, group)
    (found,) = (t for t in comparison.tests if (t.method, t.metric, t.undefined, t.label, t.group) == key)
    return found.result


def numbers(item):
    if dataclasses.is_dataclass(item):
        item = dataclasses.asdict(item)
    if isinstance(item, dict):
        item = list(item.values())
    if isinstance(item, list | tuple):
        for part in item:
            yield from numbers(part)
    else:
        yield item


# --- means and counts ---


def test_mean_sd_and_median_of_07_08_and_12_are_09_and_0265_and_08():
    spread = cell(compare(series("a", [0.7, 0.8, 1.2]), RULES), "a").spread
    assert (spread.n, spread.median) == (3, 0.8)
    assert spread.mean == pytest.approx(0.9)
    assert spread.sd == pytest.approx(math.sqrt((0.04 + 0.01 + 0.09) / 2))


def test_the_interval_of_a_mean_is_over_subjects_and_within_the_range_of_the_metric():
    values = {"p_0": 0.9, "p_1": 0.9, "q_0": 1.0, "r_0": 0.8}
    rows = [row("a", case, value, subject=case[0]) for case, value in values.items()]
    spread = cell(compare(rows, RULES), "a").spread
    assert (spread.n, spread.subjects) == (4, 3)
    assert spread.ci_low == pytest.approx(0.9 - 4.302653 * 0.1 / math.sqrt(3), abs=1e-6)
    assert spread.ci_high == 1


def test_alpha_and_the_kind_of_interval_reach_it():
    rows = series("a", [0.1, 0.2, 0.3, 0.9])
    student, wide = (cell(compare(rows, Rules(alpha=alpha)), "a").spread for alpha in (0.05, 0.01))
    assert wide.ci_low <= student.ci_low < student.mean < student.ci_high <= wide.ci_high
    bca = cell(compare(rows, Rules(interval="bca")), "a").spread
    assert (bca.ci_low, bca.ci_high) != (student.ci_low, student.ci_high)
    assert 0.1 < bca.ci_low < bca.mean < bca.ci_high < 0.9


def test_one_case_has_no_sd_and_none_has_no_mean():
    comparison = compare([row("a", "c0", 0.5), row("b", "c0", None, status="absent", share=0.1)], RULES, test=False)
    assert dataclasses.astuple(cell(comparison, "a").spread) == (1, 0.5, None, 0.5, 1, None, None)
    assert dataclasses.astuple(cell(comparison, "b").spread) == (0, None, None, None, 0, None, None)


def test_dice_of_a_missed_class_is_0_and_of_an_absent_one_left_out_and_counted():
    rows = [
        *structure("a", "c0", "ok", dice=0.8, hd=2.0, nsd=0.9),
        *structure("a", "c1", "missed"),
        *structure("a", "c2", "hallucinated"),
        *structure("a", "c3", "absent"),
    ]
    comparison = compare(rows, RULES)
    dice = cell(comparison, "a")
    assert (dice.spread.n, dice.undefined) == (3, 1)
    assert dice.spread.mean == pytest.approx(0.8 / 3)
    assert dataclasses.astuple(comparison.counts[0]) == ("a", "", 1, 1, 1, 1, 1, 0)


@pytest.mark.parametrize(("rule", "mean", "n"), [("diagonal", 106 / 3, 3), (50.0, 56 / 3, 3), ("exclude", 3.0, 2)])
def test_distances_of_missed_classes_follow_the_rule_and_exclude_stands_beside(rule, mean, n):
    rows = [*series("a", [2.0, 4.0], metric="hd"), row("a", "c2", None, metric="hd", status="missed")]
    found = cell(compare(rows, Rules(undefined=rule)), "a", "hd")
    assert (found.spread.n, found.spread.mean) == (n, pytest.approx(mean))
    if rule == "exclude":
        assert found.exclude is None
    else:
        assert (found.exclude.n, found.exclude.mean) == (2, 3.0)


def test_the_diagonal_is_that_of_the_case():
    rows = [row("a", f"c{mm}", None, metric="hd", status="missed", diagonal_mm=mm) for mm in (10.0, 30.0)]
    assert cell(compare(rows, RULES), "a", "hd").spread.mean == 20


def test_exclude_takes_the_same_cases_for_every_method_so_that_a_miss_is_no_gain():
    rows = [
        row("a", "easy", 2.0, metric="hd"),
        row("a", "hard", None, metric="hd", status="missed"),
        row("b", "easy", 2.0, metric="hd"),
        row("b", "hard", 20.0, metric="hd"),
    ]
    comparison = compare(rows, RULES)
    assert cell(comparison, "a", "hd").exclude.mean == cell(comparison, "b", "hd").exclude.mean == 2
    assert cell(comparison, "a", "hd").spread.mean == 51
    assert cell(comparison, "b", "hd").spread.mean == 11
    assert cell(compare(rows, Rules(undefined="exclude")), "b", "hd").spread.mean == 2


def test_a_method_without_any_distance_does_not_empty_the_others():
    rows = [*series("a", [2.0, 4.0], metric="hd"), *series("b", [None, None], metric="hd", status="missed")]
    comparison = compare(rows, RULES)
    assert cell(comparison, "a", "hd").exclude is None
    assert cell(comparison, "b", "hd").exclude.n == 0


def test_runs_are_averaged_per_case_after_the_rule():
    rows = [
        *series("a", [2.0, 4.0], metric="hd", run="1"),
        row("a", "c0", None, metric="hd", status="missed", run="2"),
        row("a", "c1", 8.0, metric="hd", run="2"),
    ]
    found = cell(compare(rows, RULES), "a", "hd")
    assert (found.spread.n, found.spread.mean) == (2, (51 + 6) / 2)
    assert found.spread.sd == pytest.approx(45 / math.sqrt(2))  # over cases, not over runs
    assert (found.exclude.n, found.exclude.mean) == (1, 6)


def test_a_case_that_one_run_lacks_is_undefined_counted_and_listed():
    rows = [*series("a", [0.2, 0.4], run="1"), row("a", "c0", 0.6, run="2"), *series("b", [0.5, 0.5])]
    comparison = compare(rows, RULES, baseline="b")
    found = cell(comparison, "a")
    assert (found.spread.n, found.spread.mean, found.undefined) == (1, 0.4, 1)
    assert comparison.no_results == (NoResult("a", "2", "", ("c1",)),)
    assert result(comparison, "a").undefined_pairs == 1
    assert comparison.counts[0].no_result == 1


def test_shares_are_means_over_cases_not_over_methods():
    rows = [row(m, c, 0.5, share=s) for m in "ab" for c, s in (("c0", 0.1), ("c1", 0.4))] + [row("a", "c2", 0, share=1)]
    (summary,) = compare(rows, RULES).classes
    assert (summary.share, summary.cases, summary.name) == (0.5, 3, "RV")


def test_groups_are_sorted_and_apart():
    rows = [*series("a", [0.2], group="ES"), row("a", "d0", 0.8, group="ED")]
    comparison = compare(rows, RULES)
    assert comparison.groups == ("ED", "ES")
    assert [cell(comparison, "a", group=group).spread.mean for group in comparison.groups] == [0.8, 0.2]


# --- tests ---


def test_differences_are_method_minus_baseline_and_the_first_method_is_the_baseline():
    rows = [*series("old", [0.1, 0.2, 0.3]), *series("new", [0.2, 0.4, 0.6])]
    comparison = compare(rows, RULES)
    assert (comparison.baseline, comparison.methods) == ("old", ("old", "new"))
    test = result(comparison)
    assert (test.n, test.wins, test.p) == (3, 3, 0.25)
    assert test.mean_difference == pytest.approx(0.2)
    assert comparison.tests[0].direction == 1
    turned = compare(rows, RULES, baseline="new")
    assert result(turned, "old").mean_difference == pytest.approx(-0.2)
    assert turned.tests[0].direction == -1


def test_a_smaller_distance_is_better_and_a_volume_is_neither():
    rows = [
        row(method, case, value - (method == "new"), metric=metric)
        for metric in ("hd", "volume_ml")
        for method in ("old", "new")
        for case, value in (("c0", 5.0), ("c1", 7.0))
    ]
    comparison = compare(rows, RULES)
    assert [test.direction for test in comparison.tests] == [1, 0]
    assert (result(comparison, metric="hd").wins, result(comparison, metric="volume_ml").wins) == (2, None)


def test_all_but_the_baseline_are_tested_and_one_method_is_not():
    rows = [*series("a", [0.1, 0.2]), *series("b", [0.3, 0.3]), *series("c", [0.2, 0.2])]
    assert [(t.baseline, t.method) for t in compare(rows, RULES, baseline="b").tests] == [("b", "a"), ("b", "c")]
    assert compare(rows, RULES, test=False).tests == ()
    assert compare(rows, RULES, test=False).baseline is None
    assert compare(rows[:2], RULES).baseline is None
    assert compare(rows[:2], RULES, baseline="a").tests == ()


def test_a_margin_is_that_of_its_metric_and_the_effect_stands_beside():
    rows = [*series("old", [0.5] * 8), *series("old", [9.0] * 8, metric="hd")]
    rows += [
        *series("new", [0.5 + 0.001 * i for i in range(8)]),
        *series("new", [9.0 - i for i in range(8)], metric="hd"),
    ]
    dice, hd = compare(rows, Rules(margin=(("dice", 0.01),))).tests
    assert (dice.result.margin, dice.result.equivalence) == (0.01, "equivalent")
    assert (hd.result.margin, hd.result.equivalence) == (None, None)
    assert dice.effect.d_z == pytest.approx(-hd.effect.d_z) == pytest.approx(3.5 / math.sqrt(6))
    assert dice.effect.win_share == hd.effect.win_share == 7 / 8
    assert dice.effect.chance_not_better == pytest.approx(hd.effect.chance_not_better)
    assert dice.effect.chance_not_better < 0.01


@pytest.mark.parametrize(
    ("margin", "message"),
    [
        ((("hd95", 1.0),), "margin= names 'hd95', which is not measured; the metrics are dice"),
        ((("dice", 0.0),), "margin= of dice is a size above 0, in its unit, such as 0.01; found 0"),
    ],
)
def test_a_margin_that_cannot_be_is_refused(margin, message):
    with pytest.raises(UsageError, match=message):
        compare(series("a", [0.1, 0.2]), Rules(margin=margin))


def test_scans_are_averaged_per_subject():
    rows = [*series("old", [0.0, 0.0, 0.0]), *series("new", [0.1, 0.3, 0.4])]
    rows = [dataclasses.replace(r, subject="s1" if r.case in ("c0", "c1") else "s2") for r in rows]
    comparison = compare(rows, RULES)
    assert result(comparison).n == 2
    assert result(comparison).mean_difference == pytest.approx(0.3)
    assert (comparison.classes[0].cases, comparison.classes[0].subjects) == (3, 2)


def test_undefined_pairs_are_scans_not_subjects():
    rows = [*series("old", [0.1, 0.1, 0.1], subject="s"), row("new", "c0", 0.4, subject="s")]
    test = result(compare(rows, RULES))
    assert (test.n, test.undefined_pairs) == (1, 2)
    assert test.mean_difference == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("new", "old", "dice", "hd"),
    [
        ("absent", "hallucinated", 1.0, -100.0),
        ("hallucinated", "absent", -1.0, 100.0),
        ("hallucinated", "hallucinated", 0.0, 0.0),
        ("absent", "absent", None, None),
    ],
)
def test_where_the_reference_lacks_a_class_the_empty_arm_is_right(new, old, dice, hd):
    comparison = compare([*structure("old", "c0", old), *structure("new", "c0", new)], RULES)
    assert result(comparison).mean_difference == dice
    assert result(comparison, metric="nsd").mean_difference == dice
    assert result(comparison, metric="hd").mean_difference == hd
    assert result(comparison).undefined_pairs == (dice is None)
    if (new, old) != ("absent", "absent"):
        excluded = result(comparison, metric="hd", rule="exclude")
        assert (excluded.n, excluded.undefined_pairs) == (0, 1)


def test_of_several_runs_each_empty_one_is_right_if_any_run_hallucinates():
    rows = [
        *structure("old", "c0", "absent"),
        *structure("new", "c0", "absent", run="1"),
        *structure("new", "c0", "hallucinated", run="2"),
        *structure("new", "c0", "absent", run="3"),
    ]
    comparison = compare(rows, RULES)
    assert result(comparison).mean_difference == pytest.approx(-1 / 3)
    assert result(comparison, metric="nsd").mean_difference == pytest.approx(-1 / 3)
    assert result(comparison, metric="hd").mean_difference == pytest.approx(100 / 3)


def test_a_missing_result_is_no_empty_one():
    rows = [
        *structure("old", "c0", "hallucinated"),
        *structure("new", "c1", "absent"),
        *structure("old", "c1", "absent"),
    ]
    test = result(compare(rows, RULES))
    assert (test.n, test.undefined_pairs, test.p) == (0, 2, None)


def test_a_class_undefined_for_other_reasons_is_not_made_right():
    rows = [
        row("old", "c0", None, metric="volume_error", status="hallucinated"),
        row("new", "c0", None, metric="volume_error", status="absent"),
    ]
    comparison = compare(rows, RULES)
    assert result(comparison, metric="volume_error").n == 0
    assert cell(comparison, "old", "volume_error").spread.n == 0


def test_distances_are_tested_under_both_rules_only_where_these_differ():
    rows = []
    for label, status in ((1, "ok"), (2, "missed")):
        for method, hd in (("old", 6.0), ("new", 4.0)):
            rows += structure(method, "c0", "ok", dice=0.5, hd=hd, nsd=0.5, label=label)
            last = status if method == "new" else "ok"
            rows += structure(method, "c1", last, dice=0.5, hd=hd if last == "ok" else None, nsd=0.5, label=label)
    comparison = compare(rows, RULES)
    assert [(t.label, t.metric) for t in comparison.tests if t.undefined == "exclude"] == [(2, "hd")]
    assert result(comparison, metric="hd", label=2).mean_difference == (-2 + 94) / 2
    excluded = result(comparison, metric="hd", label=2, rule="exclude")
    assert (excluded.mean_difference, excluded.undefined_pairs) == (-2, 1)
    only = compare(rows, Rules(undefined="exclude"))
    assert {t.undefined for t in only.tests} == {"exclude"}
    assert len(only.tests) == 6


def test_the_family_is_the_foreground():
    rows = [
        row(method, f"c{i}", 0.5 + gain * (i + 1) * (method == "new"), label=label)
        for label, gain in ((0, 0.01), (1, 0.02), (2, -0.01))
        for method in ("old", "new")
        for i in range(6)
    ]
    comparison = compare(rows, RULES)
    tests = {label: result(comparison, label=label) for label in (0, 1, 2)}
    assert {test.p for test in tests.values()} == {2 / 64}
    assert (tests[0].p_holm, tests[0].p_maxt) == (None, None)
    assert tests[1].p_holm == tests[2].p_holm == 4 / 64  # two members, not three


def test_groups_are_families_of_their_own():
    rows = [
        row(method, f"{group}{i}", 0.5 + 0.1 * (i + 1) * (method == "new"), group=group)
        for group in ("ED", "ES")
        for method in ("old", "new")
        for i in range(6)
    ]
    comparison = compare(rows, RULES)
    assert [result(comparison, group=group).p_holm for group in ("ED", "ES")] == [2 / 64, 2 / 64]


def test_the_settings_reach_the_test():
    rows = [*series("old", [0.0] * 20), *series("new", [0.1 * (i % 7) - 0.2 for i in range(20)])]
    test = result(compare(rows, Rules(permutations=99, seed=5, alpha=0.5)))
    assert (test.exact, test.permutations, test.seed, test.p_min) == (False, 99, 5, 0.01)
    assert result(compare(rows, Rules(permutations=99, seed=5, alpha=0.1))).ci_low < test.ci_low


def test_nothing_depends_on_the_order_of_cases():
    generator = random.Random(1)
    rows = [
        row(m, f"c{i}", generator.random(), metric=k) for m in ("old", "new") for i in range(25) for k in ("dice", "hd")
    ]
    comparison = compare(rows, RULES, baseline="old")
    shuffled = [*rows[:2], *generator.sample(rows[2:], len(rows) - 2)]
    again = compare(shuffled, RULES, baseline="old")
    assert again == comparison


def test_five_differences_cannot_reach_significance_and_say_so():
    rows = [*series("old", [0.1] * 5), *series("new", [0.2, 0.3, 0.4, 0.5, 0.6])]
    test = result(compare(rows, RULES))
    assert (test.p, test.ci_low) == (0.0625, None)
    assert "out of reach" in test.note


def test_runs_of_other_orders_and_roundings_tie():
    rows = [row("old", f"c{i}", 0.2 + i / 10) for i in range(8)]
    runs = [(-0.1, "1"), (0.0, "2"), (0.1, "3")]
    rows += [row("new", f"c{i}", (0.2 + i / 10) + by, run=run) for i in range(8) for by, run in runs]
    found = result(compare(rows, RULES))
    assert (found.wins, found.ties, found.losses, found.p, found.mean_difference) == (0, 8, 0, 1.0, 0.0)


def test_scans_that_cancel_within_a_subject_tie():
    rows = []
    for i in range(6):
        for scan, (old, new) in enumerate(((0.3, 0.2), (0.5, 0.6))):
            rows += [row(m, f"c{i}-{scan}", v, subject=f"s{i}") for m, v in (("old", old), ("new", new))]
    found = result(compare(rows, RULES))
    assert (found.n, found.ties, found.p) == (6, 6, 1.0)


def test_small_differences_of_large_values_flip_as_whole_numbers_do():
    """0.90001 - 0.9 is not 1e-5: equal differences must stay equal, so that a flip can tie with the data."""
    signs = [1, 1, -1, 1, 1, -1, 1, -1]
    rows = [row("old", f"c{i}", 0.9) for i in range(8)]
    rows += [row("new", f"c{i}", 0.9 + sign * 1e-5) for i, sign in enumerate(signs)]
    whole = [row("old", f"c{i}", 0.0) for i in range(8)]
    whole += [row("new", f"c{i}", float(sign)) for i, sign in enumerate(signs)]
    assert result(compare(rows, RULES)).p == result(compare(whole, RULES)).p


def test_a_volume_of_0_counts_in_means_and_tests():
    volumes = {"old": [8.0] * 5 + [0.0] * 5, "new": [8.0] * 5 + [1.0] * 5}
    rows = [
        row(method, f"c{i}", ml, metric="volume_ml", status="ok" if i < 5 else "absent" if ml == 0 else "hallucinated")
        for method, all_ml in volumes.items()
        for i, ml in enumerate(all_ml)
    ]
    found = compare(rows, RULES)
    assert [cell(found, m, "volume_ml").spread.mean for m in ("old", "new")] == [4.0, 4.5]
    test = result(found, metric="volume_ml")
    assert (test.n, test.undefined_pairs, test.mean_difference) == (10, 0, 0.5)


def test_no_number_is_nan():
    rows = [
        *structure("old", "c0", "absent"),
        *structure("new", "c0", "hallucinated"),
        *structure("old", "c1", "missed"),
        *structure("other", "c1", "missed"),
        row("other", "c2", None, metric="volume_error", status="absent", share=math.nan, diagonal_mm=math.nan),
    ]
    found = list(numbers(compare(rows, RULES)))
    assert not [number for number in found if isinstance(number, float) and not math.isfinite(number)]


def test_repeated_scans_bring_a_suggestion_unless_they_are_grouped():
    rows = [row("a", f"patient00{i}_{phase}", 0.5) for i in (1, 2) for phase in ("ED", "ES")]
    assert compare(rows, RULES).suggested_subject == "^(patient[0-9]+)"
    assert compare(rows, Rules(subject="(.*)")).suggested_subject is None
    grouped = [dataclasses.replace(r, subject=r.case[:10]) for r in rows]
    assert compare(grouped, RULES).suggested_subject is None


# --- errors ---


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no rows to compare; give those of an evaluation"),
        ([row("a", "c0", 0.5)] * 2, "a has two values of dice for class 1 in c0"),
        ([row("a", "c0", 0.5, run="3")] * 2, "a run 3 has two values"),
        (
            [row("a", "c0", 0.5, group="ED"), row("b", "c0", 0.5, group="ES")],
            "c0 has two groups: 'ED' with a, 'ES' with b",
        ),
        ([row("a", "c0", 0.5, subject="x"), row("b", "c0", 0.5, subject="y")], "c0 has two subjects: 'x' with a"),
        ([row("a", "c0", 0.5), row("b", "c0", 0.5, share=0.2)], "not measured against the same reference"),
        ([row("a", "c0", 0.5), row("b", "c0", 0.5, diagonal_mm=99)], "not measured against the same reference"),
        ([dataclasses.replace(row("a", "c0", 0.5), metric="dicee")], "no metric 'dicee'; give some of dice, hd95"),
        ([row("a", "c0", math.inf)], "a, c0, class 1: dice is infinite"),
    ],
)
def test_rows_that_contradict_one_another_are_refused(rows, message):
    with pytest.raises(UsageError, match=message):
        compare(rows, RULES)


def test_an_unknown_baseline_is_refused_with_the_methods():
    with pytest.raises(UsageError, match="found baseline='x', and no such method; give one of b, a"):
        compare([row("b", "c0", 0.5), row("a", "c0", 0.5)], RULES, baseline="x")


def test_the_rule_is_checked():
    with pytest.raises(UsageError, match="give 'diagonal', 'exclude' or a number of mm"):
        compare([row("a", "c0", 0.5)], Rules(undefined="nonsense"))
