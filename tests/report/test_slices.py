import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from rwtool.report import slices
from rwtool.report.figures import COLOURS, drawing, new_figure
from rwtool.report.slices import (
    IGNORED,
    PAPER,
    Scale,
    add_legend,
    class_areas,
    class_colour,
    class_line,
    draw_bar,
    draw_contour,
    draw_map,
    draw_slice,
    scale_of,
    short_name,
    window_of,
)

LABELS = np.array([[0, 0, 0, 0], [0, 1, 2, 0], [0, 1, 2, 2]])


@pytest.fixture
def axes():
    with drawing():
        yield new_figure(3, 3).subplots()


def lines_of(axes):
    """Points of each contour, by its colour."""
    found = {}
    for lines in axes.collections:
        points = np.concatenate([path.vertices for path in lines.get_paths()])
        found[mpl.colors.to_hex(lines.get_edgecolor()[0])] = points
    return found


def test_twenty_four_classes_have_a_colour_each_and_the_first_eight_those_of_all_figures():
    assert [class_colour(k) for k in range(1, 9)] == list(COLOURS)
    assert len({class_colour(k) for k in range(1, 25)}) == 24
    assert [class_line(k) for k in (1, 8, 9, 17, 25)] == ["solid", "solid", "dashed", "dotted", "solid"]


def test_names_are_made_printable_and_cut_in_the_middle():
    assert short_name("a\x1b[31m\u202e$x_1$", 5, 8) == "a\\x1b[31m\\u202e$x_1$"
    short = short_name("n" * 300, 2, 8)
    assert len(short) == int(2 * 72 / (0.64 * 8))
    assert "…" in short


@pytest.mark.parametrize("k", [1, 2])
def test_a_contour_runs_within_its_class_and_leaves_the_view_as_it_is(axes, k):
    draw_slice(axes, np.arange(12.0).reshape(3, 4), LABELS, pixel_mm=(2.0, 0.5))
    x, y = lines_of(axes)[class_colour(k)].T
    rows, columns = np.nonzero(k == LABELS)
    assert columns.min() - 0.5 < x.min() < columns.min() <= columns.max() < x.max() < columns.max() + 0.5
    assert rows.min() - 0.5 < y.min() < rows.min() <= rows.max() < y.max() < rows.max() + 0.5
    assert (axes.get_xlim(), axes.get_ylim()) == ((-0.5, 3.5), (2.5, -0.5))
    assert axes.get_aspect() == 4.0


def test_ignored_voxels_have_no_contour_and_are_grey(axes):
    ignored = LABELS == 2
    draw_slice(axes, np.zeros((3, 4)), LABELS, pixel_mm=(1, 1), ignored=ignored)
    assert set(lines_of(axes)) == {class_colour(1)}
    layer = axes.images[-1].get_array()
    np.testing.assert_array_equal(layer[..., 3] > 0, ignored)
    np.testing.assert_allclose(layer[1, 2, :3], to_rgb(IGNORED), atol=1e-6)


def test_without_an_image_classes_are_areas(axes):
    draw_slice(axes, None, LABELS, pixel_mm=(1, 1))
    assert not axes.collections
    areas = class_areas(LABELS, LABELS == 1)
    for where, colour in ((0, PAPER), (1, IGNORED), (2, class_colour(2))):
        np.testing.assert_allclose(areas[where == LABELS], [to_rgb(colour)] * (where == LABELS).sum(), atol=1e-6)
    np.testing.assert_array_equal(axes.images[0].get_array(), class_areas(LABELS))


def test_an_area_that_is_nowhere_has_no_contour_and_one_that_is_everywhere_is_closed(axes):
    assert draw_contour(axes, np.zeros((3, 4), dtype=bool)) is None
    (path,) = draw_contour(axes, np.ones((1, 1), dtype=bool)).get_paths()
    assert np.ptp(path.vertices, axis=0).max() < 1


def test_a_window_spans_the_intensities_that_are_finite():
    image = np.append(np.arange(1001.0), [np.nan, np.inf]).reshape(17, 59)
    assert window_of(image) == (10, 995)
    assert window_of(np.full((2, 2), 3.0)) == (3, 4)
    assert window_of(np.full((2, 2), np.nan)) == (0, 1)


@pytest.mark.parametrize(
    ("values", "low", "high", "ends"),
    [([-2, 6], -2, 6, (-2, 6)), ([1, 4], 0, 4, (-4, 4)), ([-3, -1], -3, 0, (-3, 3)), ([0, 0], 0, 0, (-1, 1))],
)
def test_white_is_0_and_each_side_of_a_scale_is_as_long_as_its_values(values, low, high, ends):
    z = np.array(values, dtype=np.float32).reshape(2, 1, 1)
    scale = scale_of(z, "mm")
    assert scale == Scale(low, high, "mm")
    assert [float(scale.norm(value)) for value in (ends[0], 0, ends[1])] == [0, 0.5, 1]


def test_ignored_voxels_do_not_stretch_the_scale():
    z = np.array([[[1.0, 50.0]], [[-2.0, np.nan]]])
    assert scale_of(z, "mm", np.array([[False, True]])) == Scale(-2, 1, "mm")


def test_a_bar_shows_its_unit_and_the_values_that_there_are():
    with drawing():
        figure = new_figure(2, 2)
        for index, (scale, ticks) in enumerate(
            [
                (Scale(-2, 6000, "mm²"), ["\N{MINUS SIGN}2", "\N{MINUS SIGN}1", "0", "3,000", "6,000"]),
                (Scale(0, 1, "no unit"), ["0", "0.5", "1"]),
            ]
        ):
            axes = figure.add_axes((0.3 * index, 0.1, 0.1, 0.8))
            draw_bar(figure, axes, scale)
            assert [label.get_text() for label in axes.get_yticklabels()] == [
                tick.replace("-", "\N{MINUS SIGN}") for tick in ticks
            ]
            assert axes.get_ylim() == (scale.low, scale.high)
            assert axes.get_title(loc="left") == scale.unit


def test_a_map_is_drawn_as_it_is(axes):
    z = np.array([[-1.0, 2.0]])
    draw_map(axes, z, Scale(-1, 2, "mm"), pixel_mm=(3, 1), ignored=np.array([[True, False]]))
    np.testing.assert_array_equal(axes.images[0].get_array(), z)
    assert axes.images[0].get_interpolation() == "nearest"
    assert axes.get_aspect() == 3.0
    assert len(axes.images) == 2


@pytest.mark.parametrize("areas", [False, True])
def test_a_legend_has_every_name_as_it_is(axes, areas):
    legend = add_legend(axes, ["background", "_a_", "$x$"], [1, 2], ignored=True, areas=areas)
    assert [text.get_text() for text in legend.get_texts()] == ["_a_", "$x$", "ignored"]
    axes.figure.canvas.draw()
    assert add_legend(axes, ["background"], [], ignored=False, areas=areas) is None


def test_letters_that_the_font_lacks_are_no_warning(axes):
    axes.set_title(slices.short_name("\u4e2d\u6587 \u05e9\u05dc", 3, 8))
    axes.figure.canvas.draw()
