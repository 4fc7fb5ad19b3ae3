import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from rwtool import UsageError
from rwtool.report import figures
from rwtool.report.figures import check_figure_path, drawing, new_figure, save_figure, svg_text

MAGIC = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}


def line():
    figure = new_figure(2, 1)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1])
    axes.set_title("tumour <&> x")
    return figure


@pytest.mark.parametrize("suffix", MAGIC)
def test_a_figure_is_written_in_the_format_of_its_suffix_and_the_same_each_time(tmp_path, suffix):
    with drawing():
        for name in ("a", "b"):
            save_figure(line(), tmp_path / f"{name}{suffix}")
    first, second = (tmp_path / f"{name}{suffix}" for name in ("a", "b"))
    assert first.read_bytes().startswith(MAGIC[suffix])
    assert first.read_bytes() == second.read_bytes()
    assert sorted(tmp_path.iterdir()) == [first, second]


@pytest.mark.parametrize("name", ["a.gif", "a"])
def test_other_suffixes_are_refused(name):
    with pytest.raises(UsageError, match=r"a figure ends in \.png, \.pdf, \.svg; found (\.gif|no suffix)"):
        check_figure_path(Path(name))


def test_an_svg_for_a_page_has_the_colour_of_the_page_and_keeps_its_text_and_no_spare_ids():
    with drawing():
        svg = svg_text(line())
    assert svg.startswith("<svg")
    assert "currentColor" in svg
    assert figures.INK not in svg
    root = ET.fromstring(svg)
    assert "tumour <&> x" in ["".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text")]
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert all(f"#{name}" in svg for name in ids)


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(figures, "can_draw", lambda: False)
    with pytest.raises(UsageError, match=r"a figure needs matplotlib.*pip install 'rwtool\[plot\]'"), drawing():
        pass
