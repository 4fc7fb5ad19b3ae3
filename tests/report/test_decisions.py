"""The tables that a study is decided by, to the letter."""

import csv
import json

from handmade import row, structure

from rwtool.evaluation.rows import Rules
from rwtool.report.csv import read_cases_csv
from rwtool.report.decisions import agreement_table, decision_tables, rank_table, share_table, significance_map
from rwtool.report.write import write_report
from rwtool.statistics.comparison import compare_rows as compare

GAINS = {"old": 0.0, "new": 0.01, "best": 0.03}


def rows_of_three():
    """Six cases: each method gains in every one, in Dice and HD, and `best` misses nothing; volumes grow."""
    rows = []
    for method, gain in GAINS.items():
        for i in range(6):
            share = gain * (i + 1)
            rows += structure(method, f"c{i}", "ok", dice=0.5 + share, hd=20 - 100 * share)[:2]
            rows.append(row(method, f"c{i}", 5.0 + share, metric="volume_ml"))
    return rows


def cells(table):
    return [tuple(cell.strip() for cell in line) for line in table.rows]


def test_the_map_of_all_pairs_to_the_letter():
    comparison = compare(rows_of_three(), Rules(), all_pairs=True)
    table = significance_map(comparison, Rules(), "")
    assert table.columns == ("class", "metric", "method", "old", "new", "best")
    assert table.title == "all pairs: p max-T, the row against the column (6 cases)"
    assert cells(table) == [
        ("1 RV", "Dice", "old", "", "0.0312 *↓", "0.0312 *↓"),
        ("", "", "new", "0.0312 *↑", "", "0.0312 *↓"),
        ("", "", "best", "0.0312 *↑", "0.0312 *↑", ""),
        ("", "HD (mm)", "old", "", "0.0312 *↓", "0.0312 *↓"),
        ("", "", "new", "0.0312 *↑", "", "0.0312 *↓"),
        ("", "", "best", "0.0312 *↑", "0.0312 *↑", ""),
        ("", "Volume (ml)", "old", "", "0.0312 *-", "0.0312 *-"),
        ("", "", "new", "0.0312 *+", "", "0.0312 *-"),
        ("", "", "best", "0.0312 *+", "0.0312 *+", ""),
    ]


def test_the_map_has_a_line_without_the_rule_where_that_differs():
    rows = [r for r in rows_of_three() if r.metric == "hd"]
    for method, status in (("old", "missed"), ("new", "ok"), ("best", "ok")):
        rows += structure(method, "d", status, hd=None if status == "missed" else 5.0)[1:2]
    lines = cells(significance_map(compare(rows, Rules(), all_pairs=True), Rules(), ""))
    assert [line[2] for line in lines] == ["old", "(exclude)", "new", "(exclude)", "best", "(exclude)"]
    assert lines[1][3:] == ("", "0.0312 *↓", "0.0312 *↓")
    assert lines[3][3:] == ("0.0312 *↑", "", "")


def test_ranks_and_shares_to_the_letter():
    comparison = compare(rows_of_three(), Rules(), rank=True)
    ranks, shares = (make(comparison, Rules(), "") for make in (rank_table, share_table))
    assert ranks.title == "rank [95 % CI by 1,000 bootstrap samples] (6 cases)"
    lines = cells(ranks)
    assert lines[:4] == [
        ("all", "all", "old", "3 [3, 3]", "3 [3, 3]", "3 [3, 3]"),
        ("", "", "new", "2 [2, 2]", "2 [2, 2]", "2 [2, 2]"),
        ("", "", "best", "1 [1, 1]", "1 [1, 1]", "1 [1, 1]"),
        ("", "", "(tau-b)", "1.00 [1.00, 1.00]", "1.00 [1.00, 1.00]", "1.00 [1.00, 1.00]"),
    ]
    assert [line[:2] for line in lines[4::4]] == [("1 RV", "Dice"), ("", "HD (mm)")]
    assert shares.columns == ("rule", "method", "rank 1", "rank 2", "rank 3")
    assert cells(shares)[:2] == [("mean-then-rank", "old", "0 %", "0 %", "100 %"), ("", "new", "0 %", "100 %", "0 %")]


def test_without_being_asked_there_is_the_table_of_effects_alone():
    comparison = compare(rows_of_three(), Rules())
    assert [table.title for table in decision_tables(comparison, Rules(), "")] == [
        "effect against old, approximate (6 cases)"
    ]
    assert list(decision_tables(compare(rows_of_three(), Rules(), test=False), Rules(), "")) == []


def test_the_effect_is_a_line_a_test():
    table, *_ = decision_tables(compare(rows_of_three(), Rules()), Rules(), "")
    # gains of 0.01 to 0.06: mean 0.035, SD 0.0187, t = 4.58 with 5 degrees of freedom
    assert cells(table)[0] == ("1 RV", "Dice", "new", "6", "+1.87", "100 %", "5", "0.0030")
    assert cells(table)[2] == ("", "HD (mm)", "new", "6", "-1.87", "100 %", "5", "0.0030")
    assert cells(table)[4] == ("", "Volume (ml)", "new", "6", "+1.87", "-", "5", "-")


def test_every_table_is_in_every_file(tmp_path):
    rows, rules = rows_of_three(), Rules(margin=(("dice", 0.5),))
    comparison = compare(rows, rules, all_pairs=True, rank=True)
    write_report(tmp_path, rows, comparison, rules, {}, page=False)
    text = (tmp_path / "summary.md").read_text(encoding="utf-8")
    for title in ("effect against", "equivalence with", "all pairs", "rank ", "share of each rank"):
        assert f"**{title}" in text
    content = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert len(content["pairs"]) == 9
    assert len(content["rankings"]) == 3 * (1 + 2)
    assert content["rankings"][0]["ranks"][2] == {
        "method": "best", "score": 1.0, "rank": 1, "low": 1.0, "high": 1.0, "shares": [1.0, 0.0, 0.0],
    }  # fmt: skip
    with (tmp_path / "pairs.csv").open(newline="") as file:
        pairs = list(csv.DictReader(file))
    assert [(p["method"], p["baseline"], p["metric"], p["p_maxt"]) for p in pairs[:2]] == [
        ("new", "old", "dice", "0.03125"), ("new", "old", "hd", "0.03125"),
    ]  # fmt: skip
    lines = (tmp_path / "rankings.csv").read_text().splitlines()
    assert lines[0] == (
        "group,class,metric,rule,method,score,rank,rank_low,rank_high,subjects,tau_mean,tau_low,tau_high,class_name,"
        "share_of_rank_1,share_of_rank_2,share_of_rank_3"
    )
    assert lines[1] == ",,,mean-then-rank,old,3.0,3,3.0,3.0,6,1.0,1.0,1.0,,0.0,0.0,1.0"
    assert lines[10].startswith(",1,dice,mean-then-rank,old,0.5,3,3.0,3.0,6,")


def test_volumes_beside_those_of_the_reference(tmp_path):
    rows = [
        row(m, f"c{i}", 10.0 + i + bias, metric="volume_ml", reference_ml=10.0 + i)
        for m, bias in (("old", 1.0), ("new", 0.0))
        for i in range(6)
    ]
    rows += [row(m, f"c{i}", 0.5 + 0.1 * i) for m in ("old", "new") for i in range(6)]
    comparison, rules = compare(rows, Rules()), Rules()
    lines = cells(agreement_table(comparison, rules, ""))
    assert lines == [
        ("1 RV", "old", "6", "+1.00", "[+1.00, +1.00]", "1.000"),
        ("", "new", "6", "+0.00", "[+0.00, +0.00]", "1.000"),
    ]
    write_report(tmp_path, rows, comparison, rules, {}, page=False)
    assert (tmp_path / "agreement.csv").read_text() == (
        "method,group,class,n,bias_ml,sd_ml,low_ml,high_ml,icc,class_name\n"
        "old,,1,6,1.0,0.0,1.0,1.0,1.0,RV\nnew,,1,6,0.0,0.0,0.0,0.0,1.0,RV\n"
    )
    assert json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))["agreement"][0]["bias_ml"] == 1
    assert (tmp_path / "cases.csv").read_text().splitlines()[0].endswith(",share,reference_ml")
    again = compare(read_cases_csv(tmp_path / "cases.csv"), rules)
    assert again.agreement == comparison.agreement


def test_without_volumes_there_is_no_agreement_and_no_column_for_it(tmp_path):
    rows, rules = rows_of_three(), Rules()  # volumes, but not those of the reference
    comparison = compare(rows, rules)
    assert agreement_table(comparison, rules, "") is None
    write_report(tmp_path, rows, comparison, rules, {}, page=False)
    assert (tmp_path / "cases.csv").read_text().splitlines()[0].endswith(",share")


def test_a_report_without_them_leaves_none_of_an_earlier_one(tmp_path):
    rows, rules = rows_of_three(), Rules()
    write_report(tmp_path, rows, compare(rows, rules, all_pairs=True, rank=True), rules, {}, page=False)
    assert {"pairs.csv", "rankings.csv"} <= {path.name for path in tmp_path.iterdir()}
    write_report(tmp_path, rows, compare(rows, rules), rules, {}, page=False)
    assert not {"pairs.csv", "rankings.csv"} & {path.name for path in tmp_path.iterdir()}
