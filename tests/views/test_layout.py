from types import SimpleNamespace

import numpy as np
import pytest

from rwtool.datasets.classes import make_classes
from rwtool.io.grids import NO_TURN
from rwtool.report.figures import drawing
from rwtool.views.layout import draw_main, make_layout
from rwtool.views.planes import Plane


@pytest.mark.parametrize("panels", [2, 4, 5, 6, 15, 40])
@pytest.mark.parametrize("extent_mm", [(100.0, 100.0), (100.0, 1.0), (1.0, 100.0)])
@pytest.mark.parametrize("kinds", [0, 1, 4])
def test_panels_stand_side_by_side_within_the_figure(panels, extent_mm, kinds):
    layout = make_layout(extent_mm, kinds=kinds, panels=panels, legend=panels, beside=0.6)
    places = []
    axes = SimpleNamespace(set_title=lambda *said, **more: None)
    figure = SimpleNamespace(add_axes=lambda place: places.append(place) or axes)
    layout.main_axes(figure)
    for kind in range(kinds):
        layout.bar_axes(figure, kind)
        for index in range(panels):
            layout.panel_axes(figure, kind, index, "name")
    left, bottom, width, height = np.array(places).T
    right, top = left + width, bottom + height
    boxes = np.array([left, bottom, right, top])
    assert boxes.min() > 0
    assert boxes.max() < 1
    apart_x = (left[:, None] >= right[None]) | (right[:, None] <= left[None])
    apart_y = (bottom[:, None] >= top[None]) | (top[:, None] <= bottom[None])
    assert (apart_x | apart_y | np.eye(len(places), dtype=bool)).all()
    assert layout.below_main(panels)[1] > 0


def test_a_panel_has_the_proportions_of_its_slice():
    layout = make_layout((200.0, 100.0), kinds=1, panels=3, legend=1, beside=0)
    assert layout.panel == (1.75, 0.875)
    assert layout.main == (3.3, 1.65)


def test_fifteen_panels_stand_in_two_rows():
    layout = make_layout((1.0, 1.0), kinds=1, panels=15, legend=1, beside=0)
    assert (layout.columns, layout.rows) == (8, 2)


def test_the_legend_names_classes_by_value_and_name_and_says_which_are_not_there():
    layout = make_layout((3.0, 2.0), kinds=0, panels=3, legend=3, beside=0)
    classes = make_classes([0, 2, 7], names={2: "kidney"})
    labels = np.array([[0, 1, 1], [0, 0, 0]])
    plane = Plane(NO_TURN, (1.0, 1.0), 1, "R", "L", "A", "P")
    with drawing():
        figure = layout.figure()
        layout.title(figure, "x" * 300, "slice 1")
        draw_main(figure, layout, plane, classes, None, labels, labels == 5)
        (axes,) = figure.axes
        names = [text.get_text() for text in axes.get_legend().get_texts()]
        assert names == ["2 kidney", "7 (not in this slice)", "ignored"]
        assert {text.get_text() for text in axes.texts} == {"R", "L", "A", "P"}
        (title,) = figure.texts
        width = title.get_window_extent().width / figure.dpi
    assert title.get_text().endswith("x   slice 1")
    assert width < layout.width
