import pytest
from handmade import row, series, tiny

from rwtool.evaluation.rows import Rules
from rwtool.report.cases import group_values, worst_cases
from rwtool.report.figures import drawing
from rwtool.report.sections import Source, page_table, sections_of, worst_section
from rwtool.report.text import Table
from rwtool.report.thumbnails import Thumbnail
from rwtool.statistics.comparison import compare_rows as compare


def source_of(rows, rules=None, *, draws=True, **options):
    rules = rules or Rules()
    comparison = compare(rows, rules, **options)
    groups = {group: group_values(rows, comparison, rules, group) for group in comparison.groups}
    return Source(comparison, rules, groups, draws)


def sections(*arguments, **options):
    with drawing():
        return {section.key: section for section in sections_of(source_of(*arguments, **options))}


def cells(table):
    return [tuple(cell.text for cell in line.cells) for line in table.rows]


# --- tables whose rows may be sorted ---


def test_every_row_says_its_class_metric_and_method():
    table = Table(
        "t",
        ("class", "metric", "method", "p\nmax-T", "n"),
        [
            ("1 RV", "Dice", "new", "0.01", "6"),
            ("", "HD (mm)", "new", "0.02", "6"),
            ("", "", "  (exclude)", "  1.00", ""),
            ("2 MYO", "Dice", "new", "-", "6"),
        ],
        3,
    )
    made = page_table(table)
    assert cells(made) == [
        ("1 RV", "Dice", "new", "0.01", "6"),
        ("1 RV", "HD (mm)", "new", "0.02", "6"),
        ("1 RV", "HD (mm)", "new (exclude)", "1.00", ""),
        ("2 MYO", "Dice", "new", "-", "6"),
    ]
    assert [head.text for head in made.heads] == ["class", "metric", "method", "p max-T", "n"]
    assert [head.left for head in made.heads] == [True] * 3 + [False] * 2
    assert [[cell.heads for cell in line.cells].index(True) for line in made.rows] == [2] * 4  # the method
    assert [line.opens for line in made.rows] == [False, False, False, True]
    assert "again" in made.rows[2].cells[0].classes


def test_an_empty_cell_of_numbers_stays_empty():
    made = page_table(Table("t", ("method", "n"), [("a", "1"), ("b", "")], 1))
    assert cells(made) == [("a", "1"), ("b", "")]


# --- what a page holds ---


def test_sections_come_with_what_was_asked_for():
    assert list(sections(series("a", [0.1, 0.2]))) == ["results", "cases", "counts"]
    assert list(sections(tiny())) == ["results", "cases", "tests", "counts"]
    every = sections(tiny(), all_pairs=True, rank=True)
    assert list(every) == ["results", "cases", "tests", "counts", "pairs", "rankings"]
    volumes = [row("a", f"c{i}", 5.0 + i, metric="volume_ml", reference_ml=5.0) for i in range(2)]
    assert list(sections(volumes)) == ["results", "cases", "counts", "agreement"]


def test_every_metric_has_a_chart_of_all_cases_and_one_of_the_differences():
    found = sections(tiny())
    assert [figure.caption for figure in found["cases"].parts[0].figures] == [
        "Dice of every case, by class and method.",
        "HD (mm) of every case, by class and method.",
    ]
    assert [figure.caption for figure in found["tests"].parts[0].figures] == [
        "Dice: difference from old of every subject.",
        "HD (mm): difference from old of every subject.",
    ]


def test_rankings_have_blobs_lines_bars_and_the_map_that_no_other_section_has():
    alone = [figure.caption for figure in sections(tiny(), rank=True)["rankings"].parts[0].figures]
    kinds = ("bootstrap", "by each rule", "A bar", "column's")
    assert [sum(kind in caption for caption in alone) for kind in kinds] == [3, 1, 2, 2]
    both = sections(tiny(), rank=True, all_pairs=True)
    assert sum("column's" in figure.caption for figure in both["rankings"].parts[0].figures) == 0
    assert sum("column's" in figure.caption for figure in both["pairs"].parts[0].figures) == 2


def test_groups_are_parts_of_a_section():
    rows = [row("a", f"{group}{i}", 0.1 * i, group=group) for group in ("ED", "ES") for i in range(2)]
    found = sections(rows)
    assert [part.name for part in found["results"].parts] == ["ED", "ES"]
    assert found["cases"].parts[1].figures[0].caption == "Dice of every case, by class and method (ES)."


def test_a_single_case_or_no_matplotlib_has_tables_and_no_charts():
    one = [row("a", "c", 0.5), row("b", "c", 0.6)]
    for made in (list(sections_of(source_of(one))), list(sections_of(source_of(tiny(), draws=False)))):
        assert [section.key for section in made] == ["results", "tests", "counts"]
        assert not any(part.figures for section in made for part in section.parts)


def test_a_caption_is_the_name_of_its_chart_for_those_who_do_not_see_it():
    figure = sections(series('a"<b>&', [0.1, 0.2]))["cases"].parts[0].figures[0]
    assert figure.svg.startswith('<svg role="img" aria-label="Dice of every case, by class and method."')
    named = sections([*tiny(), row('x"<b>', "c0", 0.5)], baseline='x"<b>')["tests"].parts[0].figures[0]
    assert 'aria-label="Dice: difference from x&#34;&lt;b&gt; of every subject."' in named.svg


# --- the worst cases ---


@pytest.mark.parametrize("pictured", [True, False])
def test_the_worst_cases_have_a_table_a_method_and_pictures_where_there_are_some(pictured):
    source = source_of(tiny())
    worst = worst_cases(list(source.groups.values()), source.comparison, source.rules)
    pictures = {
        (w.method, w.run, w.case): Thumbnail("" if w.case == "c0" else "<svg></svg>", f"text of {w.case}")
        for found in worst.values()
        for w in found
    }
    (section,) = worst_section(source, worst, pictures if pictured else {}, None)
    assert [part.name for part in section.parts] == ["old", "new"]
    assert [len(part.tables) for part in section.parts] == [1, 1]
    shown = [(str(p.svg), p.caption) for p in section.parts[1].pictures]
    if not pictured:
        assert shown == []
        return
    assert shown[:2] == [
        ("<svg></svg>", "1. c5: mean Dice 0.000. text of c5"),
        ("", "2. c0: mean Dice 0.375. text of c0"),
    ]
    assert "slice with the most wrong voxels" in section.lead[1]


def test_volumes_alone_have_no_worst_case():
    source = source_of([row("a", "c", 5.0, metric="volume_ml")])
    assert list(worst_section(source, {"a": []}, {}, None)) == []
