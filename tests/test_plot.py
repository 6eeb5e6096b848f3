"""The figures: what they show where, that nothing is covered, and that they can be written."""

import importlib.util
import io
import pathlib
import subprocess
import sys
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernelode as ko
import kernelode.plot
from kernelode._compare import Row

Figure = pytest.importorskip("matplotlib.figure").Figure
xarray = pytest.importorskip("xarray")
ROOT = pathlib.Path(__file__).resolve().parent.parent

SCALES = np.geomspace(0.02, 2.0, 41)
PAIRS = ~np.eye(3, dtype=bool)


def estimate(value, interior) -> ko.ScaleEstimate:
    value, interior = jnp.asarray(value), jnp.asarray(interior)
    choose = lambda yes: ko.STATUS.where(yes, ko.STATUS.interior, ko.STATUS.decreasing)
    for _ in range(interior.ndim):
        choose = jax.vmap(choose)
    return ko.ScaleEstimate(value, jnp.ones_like(value), choose(interior))


@pytest.fixture
def optimum() -> ko.OptimalScale:
    diagonal = estimate([0.1, 0.12, 0.14], [True] * 3)
    return ko.OptimalScale(diagonal, estimate(np.where(PAIRS, 0.4, 0.0), PAIRS))


@pytest.fixture
def response() -> ko.Response:
    """Peaks of known height at the optima of the fixture above."""
    bump = lambda top, height: height * np.exp(-(np.log(SCALES / top) ** 2))
    diagonal = np.stack([bump(0.12, height) for height in (1.0, 2.0, 3.0)], axis=-1)
    off_diagonal = np.broadcast_to(bump(0.4, 9.0)[:, None, None], (len(SCALES), 3, 3))
    return ko.Response(*map(jnp.asarray, (diagonal, off_diagonal, off_diagonal)))


@pytest.fixture
def axes():
    return Figure(figsize=(5, 4), layout="constrained").subplots()


def vertical_lines(axes) -> list[float]:
    """Where the marks are: lines with one place and the height of the axes."""
    lines = [line.get_xdata() for line in axes.lines if list(line.get_ydata()) == [0, 1]]
    return [float(x[0]) for x in lines]


def curve(axes, index: int) -> tuple[np.ndarray, np.ndarray]:
    curves = [line for line in axes.lines if len(line.get_xdata()) == len(SCALES)]
    x, y = curves[index].get_data()
    return np.asarray(x), np.asarray(y)


def test_response_shows_means_on_logarithmic_axes(axes, response, optimum):
    assert kernelode.plot.plot_response_against_scale(axes, SCALES, response, optimum) is axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    x, diagonal = curve(axes, 0)
    assert np.allclose(x, SCALES)
    geometric = np.exp(np.mean(np.log(np.asarray(response.diagonal)), axis=-1))
    assert np.allclose(diagonal, geometric, rtol=1e-12)
    assert np.allclose(curve(axes, 1)[1], np.asarray(response.off_diagonal)[:, 0, 1], rtol=1e-12)


def test_both_optima_are_marked_at_their_means(axes, response, optimum):
    kernelode.plot.plot_response_against_scale(axes, SCALES, response, optimum)
    assert np.allclose(vertical_lines(axes), [0.12, 0.4])
    labels = [text.get_text() for text in axes.texts]
    assert [label.split()[0] for label in labels] == ["diagonal", "off-diagonal"]
    assert "0.12" in labels[0] and "0.4" in labels[1]


def test_an_optimum_that_does_not_exist_is_not_marked(axes, response, optimum):
    none = estimate([0.0, 0.0, 0.0], [False] * 3)
    partly = ko.OptimalScale(none, optimum.off_diagonal)
    kernelode.plot.plot_response_against_scale(axes, SCALES, response, partly)
    assert np.allclose(vertical_lines(axes), [0.4])
    kernelode.plot.plot_response_against_scale(axes, SCALES, response)


def test_pairs_may_be_missing(axes):
    alone = ko.Response(jnp.ones((len(SCALES), 1)), *[jnp.ones((len(SCALES), 1, 1))] * 2)
    only_diagonal = ko.OptimalScale(estimate([0.1], [True]), None)
    kernelode.plot.plot_response_against_scale(axes, SCALES, alone, only_diagonal)
    assert np.allclose(vertical_lines(axes), [0.1])


def test_evidence_and_error_have_an_axis_each(axes, optimum):
    evidence, error = -(np.log(SCALES / 0.3) ** 2), 5 + np.log(SCALES / 0.3) ** 2
    evidence[0], error[0] = np.nan, np.inf
    returned = kernelode.plot.plot_evidence_against_scale(
        axes, SCALES, evidence, error, optimum, error_label="held-out error (%)"
    )
    assert returned is axes
    _, twin = axes.figure.axes
    assert twin.get_ylabel() == "held-out error (%)"
    assert axes.get_xlim() == twin.get_xlim() == (SCALES[0], SCALES[-1])
    assert np.allclose(curve(axes, 0)[1], evidence, equal_nan=True)
    assert np.allclose(curve(twin, 0)[1][1:], error[1:])
    assert np.allclose(vertical_lines(axes), [0.12, 0.4])


def test_neither_legend_nor_labels_cover_data(axes, response, optimum):
    kernelode.plot.plot_response_against_scale(axes, SCALES, response, optimum)
    axes.figure.draw_without_rendering()
    frame = axes.get_window_extent()
    assert axes.get_legend().get_window_extent().y0 >= frame.y1
    highest = max(
        axes.transData.transform(np.column_stack(line.get_data()))[:, 1].max()
        for line in axes.lines
        if len(line.get_xdata()) == len(SCALES)
    )
    for text in axes.texts:
        extent = text.get_window_extent()
        assert extent.y0 > highest
        assert frame.x0 < extent.x0 and extent.x1 < frame.x1


def comparison() -> ko.Comparison:
    """K1 of three elements at two depths, and V4 of eight components at one."""
    k1 = [((0, 0), 1.0), ((0, 1), -2.0), ((1, 1), 3.0)]
    rows = [
        Row("mean_correction", int(t), t, labels, size * t, 0.1, size * t + 0.5, 0.25, 2.0)
        for t in (1.0, 2.0)
        for labels, size in k1
    ]
    for number in range(8):
        rows.append(Row("limit_covariance", 1, 1.0, (0, 0, 0, number), 1.0, 0.0, 1.0, 0.1, 0.0))
    return ko.Comparison(rows, 1.0, 1.0, 0.5)


def test_comparison_shows_theory_as_lines_and_simulation_as_points(axes):
    assert kernelode.plot.plot_comparison(axes, comparison(), "mean_correction") is axes
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == ["0 0", "0 1", "1 1"]
    theory = [line for line in axes.lines if line.get_label() in legend]
    assert (
        len({line.get_color() for line in theory}) == len({line.get_linestyle() for line in theory}) == 3
    )
    for line, points, size in zip(theory, axes.containers, (1, -2, 3)):
        assert np.allclose(line.get_data(), [[1, 2], [size, 2 * size]])
        markers, _, (bars,) = points.lines
        assert np.allclose(markers.get_data(), [[1, 2], [size + 0.5, 2 * size + 0.5]])
        assert np.allclose([np.ptp(bar[:, 1]) for bar in bars.get_segments()], 0.5)
    bands = [band.get_paths()[0].get_extents() for band in axes.collections if band.get_alpha()]
    assert np.allclose([band.y1 for band in bands], [2.1, -1.9, 6.1])
    assert np.allclose([band.y0 for band in bands], [0.9, -4.1, 2.9])


def test_comparison_shows_the_components_asked_for(axes):
    kernelode.plot.plot_comparison(axes, comparison(), "limit_covariance")
    assert len(axes.get_legend().get_texts()) == 6
    axes.clear()
    chosen = [(0, 0, 0, 7), (0, 0, 0, 1)]
    kernelode.plot.plot_comparison(axes, comparison(), "limit_covariance", chosen)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["0 0 0 7", "0 0 0 1"]
    with pytest.raises(ValueError, match="`quantity`"):
        kernelode.plot.plot_comparison(axes, comparison(), "kernel_covariance")
    with pytest.raises(ValueError, match="`labels`"):
        kernelode.plot.plot_comparison(axes, comparison(), "mean_correction", [(2, 2)])


def legend(axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def line(axes, label: str) -> Any:
    (found,) = [line for line in axes.lines if line.get_label() == label]
    return found


def kernels(times: int, n: int) -> np.ndarray:
    """(times, n, n), every entry another number."""
    return np.arange(times * n * n, dtype=float).reshape(times, n, n)


def points(container):
    """Positions, values and lengths of the error bars."""
    markers, _, bars = container.lines
    # A point that is not there has an empty bar.
    lengths = [np.ptp(bar[:, 1]) for bar in bars[0].get_segments() if len(bar)] if bars else []
    return *markers.get_data(), np.array(lengths)


def assert_nothing_overlaps(figure):
    """Legends stand above their axes and within the figure; so does all that is written."""
    figure.draw_without_rendering()
    width, height = figure.bbox.width, figure.bbox.height
    for axes in figure.axes:
        if axes.get_legend() is not None:
            extent = axes.get_legend().get_window_extent()
            assert extent.y0 >= axes.get_window_extent().y1 - 1
            for text in axes.texts:
                assert not extent.overlaps(text.get_window_extent())
        extent = axes.get_tightbbox()
        assert extent.x0 >= -1 and extent.y0 >= -1 and extent.x1 <= width + 1 and extent.y1 <= height + 1


def test_kernel_against_depth_shows_the_elements_asked_for(axes):
    kernel, at, elements = kernels(4, 3), [0.0, 0.5, 1.0, 2.0], [(0, 0), (2, 1)]
    values, errors = kernel[1:3] + 0.5, np.full((2, 3, 3), 0.25)
    measured = ([0.5, 1.0], values, errors)
    returned = kernelode.plot.plot_kernel_against_depth(axes, at, kernel, elements, measured=measured)
    assert returned is axes
    assert legend(axes) == ["$K_{0,0}$", "$K_{2,1}$", "measured"]
    for (a, b), container in zip(elements, axes.containers, strict=True):
        drawn = line(axes, f"$K_{{{a},{b}}}$")
        assert np.array_equal(np.stack(drawn.get_data()), np.stack([at, kernel[:, a, b]]))
        x, y, lengths = points(container)
        assert np.array_equal(x, [0.5, 1.0]) and np.array_equal(y, values[:, a, b])
        assert np.allclose(lengths, 0.5)
        assert container.lines[0].get_color() == drawn.get_color()


@pytest.mark.parametrize("depths", [[3.0], [0.0, 1.0]])
def test_a_single_depth_and_a_constant_are_seen(axes, depths):
    constant = np.full((len(depths), 1, 1), 0.3) * (1 + 1e-15 * np.arange(len(depths))[:, None, None])
    kernelode.plot.plot_kernel_against_depth(axes, depths, constant, [(0, 0)])
    drawn = line(axes, "$K_{0,0}$")
    assert (drawn.get_marker() == "o") == (len(depths) == 1)
    low, high = axes.get_ylim()
    assert low < 0.3 < high and high - low > 1e-3
    assert_nothing_overlaps(axes.figure)


def test_a_point_between_gaps_is_seen(axes):
    kernel = np.array([1.0, 2.0, np.nan, 4.0, np.nan, 6.0, 7.0])[:, None, None]
    kernelode.plot.plot_kernel_against_depth(axes, np.arange(7.0), kernel, [(0, 0)])
    markers = [line for line in axes.lines if line.get_marker() == "o" and len(line.get_xdata())]
    assert [list(line.get_xdata()) for line in markers] == [[3.0]]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"kernel": np.ones((4, 2, 3))}, "`kernel` must have shape"),
        ({"depths": [1.0, 2.0]}, "2 depths and 4"),
        ({"depths": np.ones((4, 1))}, "`depths` must be a list"),
        ({"elements": []}, "`elements` must name"),
        ({"elements": [(0, 3)]}, "inputs 0 .. 2, got \\(0, 3\\)"),
        ({"elements": [(-1, 0)]}, "inputs 0 .. 2"),
        ({"elements": [(0, 0)] * 7}, "at most 6"),
        ({"measured": ([0.0], np.ones((1, 3, 3)))}, "`measured` must be three"),
        ({"measured": ([0.0], np.ones((2, 3, 3)), None)}, "values at 1 depths"),
        ({"measured": ([0.0], np.ones((1, 3, 3)), np.ones(1))}, "standard errors at 1 depths"),
    ],
)
def test_kernel_against_depth_refuses(axes, change, message):
    good = {"depths": np.arange(4.0), "kernel": kernels(4, 3), "elements": [(0, 0)], "measured": None}
    with pytest.raises(ValueError, match=message):
        kernelode.plot.plot_kernel_against_depth(axes, **(good | change))


def layer_responses(n: int) -> ko.Response:
    numbers = jnp.asarray(kernels(3, n)) + 1
    return ko.Response(-jnp.asarray(np.arange(3.0 * n).reshape(3, n)), numbers, jnp.zeros_like(numbers))


def test_response_against_depth_shows_means_and_deviations(axes):
    found = layer_responses(3)
    kernelode.plot.plot_response_against_depth(axes, [1.0, 2.0, 3.0], found)
    assert legend(axes) == ["diagonal, mean of 3", "off-diagonal, mean of 3"]
    # 0 1 2 at the first depth, 3 4 5 at the second.
    assert np.allclose(line(axes, legend(axes)[0]).get_ydata(), [-1, -4, -7])
    # Entries (0, 1), (0, 2), (1, 2) of 1 .. 9 are 2, 3 and 6.
    assert np.allclose(line(axes, legend(axes)[1]).get_ydata(), np.array([0, 9, 18]) + 11 / 3)
    first, second = (band.get_paths()[0].vertices for band in axes.collections)
    assert np.isclose(first[first[:, 0] == 1, 1].max(), -1 + (2 / 3) ** 0.5)
    assert np.isclose(second[second[:, 0] == 1, 1].min(), 11 / 3 - np.std([2, 3, 6]))


def test_response_against_depth_of_elements_and_of_one_input(axes):
    found = layer_responses(3)
    measured = ([1.0], (found.diagonal[:1], found.off_diagonal[:1]), None)
    elements = [(1, 1), (1, 2)]
    kernelode.plot.plot_response_against_depth(axes, [1, 2, 3], found, elements, measured=measured)
    assert np.allclose(line(axes, "(1, 1)").get_ydata(), found.diagonal[:, 1])
    assert np.allclose(line(axes, "(1, 2)").get_ydata(), found.off_diagonal[:, 1, 2])
    assert [float(points(c)[1][0]) for c in axes.containers] == [-1.0, 6.0]
    axes.clear()
    kernelode.plot.plot_response_against_depth(axes, [1, 2, 3], layer_responses(1))
    assert legend(axes) == ["diagonal"] and not axes.collections


def test_error_of_a_mean_response_is_at_most_the_mean_error(axes):
    found = layer_responses(2)
    errors = ko.Response(jnp.asarray([[1.0, 3.0]]), jnp.full((1, 2, 2), 5.0), jnp.zeros((1, 2, 2)))
    values = jax.tree.map(lambda x: x[:1], found)
    kernelode.plot.plot_response_against_depth(axes, [1, 2, 3], found, measured=([1.0], values, errors))
    diagonal, off_diagonal = map(points, axes.containers)
    assert np.allclose(diagonal[1], -0.5) and np.allclose(diagonal[2], 2 * 2)
    assert np.allclose(off_diagonal[1], 2) and np.allclose(off_diagonal[2], 2 * 5)


def test_response_of_one_depth_alone_is_refused(axes):
    one = jax.tree.map(lambda x: x[0], layer_responses(2))
    with pytest.raises(ValueError, match="diagonal \\(times, n\\)"):
        kernelode.plot.plot_response_against_depth(axes, [1.0], one)


def times(value, correction, interior) -> ko.TimeEstimate:
    value = jnp.asarray(value)
    status = estimate(value, interior).status
    return ko.TimeEstimate(value, jnp.full_like(value, correction), value, status)


def test_scale_against_depth_shows_interior_means_and_the_law(axes):
    law = ko.OptimalTime(
        times([4.0, 4.0, 9.0], 0.5, [True, True, False]), times(np.where(PAIRS, 16.0, 0), 0.0, PAIRS)
    )
    partly = np.array([True, True, False])
    scales = [
        ko.OptimalScale(
            estimate([0.4 / depth, 0.6 / depth, np.inf], partly if depth < 100 else ~partly & False),
            estimate(np.where(PAIRS, 4 / depth**0.5, 0.0), PAIRS),
        )
        for depth in (10.0, 20.0, 100.0)
    ]
    returned = kernelode.plot.plot_scale_against_depth(axes, [10, 20, 100], scales, law)
    assert returned is axes and (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    diagonal, off_diagonal = map(points, axes.containers)
    assert np.allclose(diagonal[1][:2], [0.05, 0.025]) and np.isnan(diagonal[1][2])
    assert np.allclose(diagonal[2], [2 * 0.01, 2 * 0.005])
    assert np.allclose(off_diagonal[1], 4 / np.sqrt([10, 20, 100]))
    first, second = (line for line in axes.lines if len(line.get_xdata()) > 3)
    depth = np.asarray(first.get_xdata())
    assert np.isclose(depth[0], 10) and np.isclose(depth[-1], 100)
    assert np.allclose(first.get_ydata(), np.sqrt((4 + 0.5 / depth) / depth), rtol=1e-12)
    assert np.allclose(second.get_ydata(), 4 / np.sqrt(depth), rtol=1e-12)
    words = legend(axes)
    assert words[0] == "diagonal (0 to 2 of 3 interior)" and words[1] == "off-diagonal"
    assert words[2].endswith("(2 of 3 interior)") and words[3].endswith("$")
    assert_nothing_overlaps(axes.figure)


def test_scale_against_depth_of_one_depth_and_of_nothing(axes):
    none = ko.OptimalScale(estimate([0.0], [False]), None)
    law = ko.OptimalTime(times([0.0], 0.0, [False]), None)
    kernelode.plot.plot_scale_against_depth(axes, [50], [none], law)
    assert legend(axes) == ["diagonal (0 of 1 interior)", "law, diagonal (0 of 1 interior)"]
    assert_nothing_overlaps(axes.figure)
    axes.clear()
    one = ko.OptimalScale(estimate([0.2], [True]), None)
    kernelode.plot.plot_scale_against_depth(
        axes, [50], [one], ko.OptimalTime(times([2.0], 0, [True]), None)
    )
    assert np.allclose(points(axes.containers[0])[:2], [[50], [0.2]])
    low, high = axes.get_ylim()
    assert np.sum((axes.get_yticks() >= low) & (axes.get_yticks() <= high)) >= 3


def test_scale_against_depth_refuses(axes, optimum):
    scale_plot = kernelode.plot.plot_scale_against_depth
    with pytest.raises(ValueError, match="1 depths and 2"):
        scale_plot(axes, [10], [optimum] * 2)
    with pytest.raises(ValueError, match="positive"):
        scale_plot(axes, [0], [optimum])
    with pytest.raises(ValueError, match="all with pairs or none"):
        scale_plot(axes, [10, 20], [optimum, ko.OptimalScale(optimum.diagonal, None)])
    with pytest.raises(ValueError, match="`law` must be of the inputs"):
        scale_plot(axes, [10], [optimum], ko.OptimalTime(times([1.0], 0.0, [True]), None))


def swept(values, **coordinates):
    """A DataArray; coordinates that are `None` are left out."""
    known = {name: x for name, x in coordinates.items() if x is not None}
    return xarray.DataArray(
        np.asarray(values, float), coords=known, dims=tuple(coordinates), name="value"
    )


def mesh(axes) -> Any:
    from matplotlib.collections import QuadMesh

    (found,) = [item for item in axes.collections if isinstance(item, QuadMesh)]
    return found


def test_heat_map_has_its_cells_around_its_points(axes):
    x, y = [1.0, 2.0, 4.5], np.geomspace(0.01, 1, 5)
    values = swept(np.arange(15).reshape(3, 5), weight_variance=x, residual_scale=y)
    assert kernelode.plot.plot_sweep(axes, values) is axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("linear", "log")
    assert axes.get_xlabel() == "weight variance $C_W$"
    corners = mesh(axes).get_coordinates()
    assert np.allclose(corners[0, :, 0], [0.5, 1.5, 3.25, 5.75])
    assert np.allclose(corners[:, 0, 1], 10 ** np.linspace(-2.25, 0.25, 6))
    # The colour of a cell is that of its value: rows are the second axis.
    assert np.array_equal(mesh(axes).get_array().reshape(5, 3), np.arange(15).reshape(3, 5).T)
    assert (mesh(axes).norm.vmin, mesh(axes).norm.vmax) == (0, 14)
    assert_nothing_overlaps(axes.figure)


def test_heat_map_sorts_its_axes_and_knows_decades(axes):
    values = swept([[1.0, 1e3], [10.0, 1e4]], a=[2.0, 1.0], b=[0.0, 1.0])
    kernelode.plot.plot_sweep(axes, values)
    assert np.array_equal(mesh(axes).get_array().reshape(2, 2), [[10.0, 1.0], [1e4, 1e3]])
    assert np.isclose(mesh(axes).norm(100.0), 0.5)  # halfway between 1 and 10^4


def test_cells_without_a_value_are_hatched(axes):
    values = np.arange(6.0).reshape(2, 3)
    values[1, 2], values[0, 1] = np.nan, np.inf
    kernelode.plot.plot_sweep(axes, swept(values, a=[1.0, 2.0], b=[1.0, 2.0, 3.0]))
    assert legend(axes) == ["no value"]
    (ground,) = axes.patches
    assert ground.get_hatch() and ground.get_zorder() < mesh(axes).get_zorder()
    assert np.allclose(ground.get_bbox().extents, [0.5, 0.5, 2.5, 3.5])
    masked = np.ma.getmaskarray(mesh(axes).get_array()).reshape(3, 2)
    assert np.array_equal(masked, ~np.isfinite(values.T))
    axes.clear()
    kernelode.plot.plot_sweep(axes, swept(np.full((2, 2), np.nan), a=[1.0, 2.0], b=[1.0, 2.0]))
    assert legend(axes) == ["no value"]
    axes.clear()
    kernelode.plot.plot_sweep(axes, swept(np.ones((1, 1)), a=[1.0], b=[2.0]))
    assert axes.get_legend() is None and np.isclose(mesh(axes).norm(1.0), 0.5)


def test_optimum_on_a_heat_map(axes):
    a, b = [1.0, 2.0, 3.0, 4.0], [0.1, 0.2, 0.3]
    values = swept(np.arange(12).reshape(4, 3), a=a, b=b)
    best = swept([0.3, 0.2, np.inf, 0.1], a=a)
    kernelode.plot.plot_sweep(axes, values, optimum=best)
    drawn = line(axes, "optimum")
    assert np.array_equal(drawn.get_data(), [a, [0.3, 0.2, np.nan, 0.1]], equal_nan=True)
    assert np.array_equal(line(axes, "no optimum").get_xdata(), [3.0])
    assert np.allclose(axes.get_ylim(), [0.05, 0.35])
    axes.clear()
    kernelode.plot.plot_sweep(axes, values, optimum=swept([1.5, 2.5, 3.5], b=b))
    assert np.allclose(line(axes, "optimum").get_data(), [[1.5, 2.5, 3.5], b])
    for wrong in (swept([1.0], c=[1.0]), swept(np.ones((4, 3)), a=a, b=b), swept(np.ones(4), a=None)):
        with pytest.raises(ValueError, match="`optimum` must"):
            kernelode.plot.plot_sweep(axes, values, optimum=wrong)


def test_contours_are_drawn_where_they_say_something(axes):
    from matplotlib.contour import QuadContourSet

    x = np.linspace(0.0, 1.0, 12)
    noise = np.random.default_rng(0).normal(size=(12, 12))
    for values, expected in ((np.add.outer(x, x), 1), (noise, 0), (np.ones((12, 12)), 0)):
        axes.clear()
        kernelode.plot.plot_sweep(axes, swept(values, a=x, b=x))
        found = [item for item in axes.collections if isinstance(item, QuadContourSet)]
        assert len(found) == expected
        for contours in found:
            for level, path in zip(contours.levels, contours.get_paths()):
                assert np.allclose(np.sum(path.vertices, axis=1), level)


def test_heat_maps_side_by_side_share_their_colours(axes):
    a, b = [1.0, 2.0], [1.0, 2.0, 3.0]
    values = swept(np.arange(12).reshape(2, 2, 3), input=None, a=a, b=b)
    best = swept([[1.0, 2.0], [2.0, 3.0]], input=None, a=a)
    kernelode.plot.plot_sweep(axes, values, optimum=best)
    places = axes.child_axes
    assert [place.get_title() for place in places] == ["input 0", "input 1"]
    for number, place in enumerate(places):
        assert np.array_equal(mesh(place).get_array().reshape(3, 2), values[number].T)
        assert (mesh(place).norm.vmin, mesh(place).norm.vmax) == (0, 11)
        assert np.array_equal(line(place, "optimum").get_ydata(), best[number])
    assert legend(axes) == ["optimum"]
    assert_nothing_overlaps(axes.figure)
    with pytest.raises(ValueError, match="7 entries along 'input'"):
        kernelode.plot.plot_sweep(axes, swept(np.ones((7, 2, 3)), input=None, a=a, b=b))


def test_one_axis_is_a_curve_for_each_entry(axes):
    rho = np.geomspace(0.1, 1, 4)
    values = np.arange(8.0).reshape(4, 2)
    values[2, 1] = np.nan
    best = swept([0.3, np.nan], input=None)
    kernelode.plot.plot_sweep(axes, swept(values, residual_scale=rho, input=None), optimum=best)
    assert axes.get_xscale() == "log" and axes.get_xlabel() == r"residual scale $\rho$"
    assert legend(axes) == ["input 0", "input 1", "not all have a value", "optimum, 1 of 2"]
    assert np.array_equal(line(axes, "input 0").get_data(), [rho, values[:, 0]])
    assert np.array_equal(line(axes, "input 1").get_data(), [rho, values[:, 1]], equal_nan=True)
    assert np.allclose(line(axes, "not all have a value").get_xdata(), rho[2])
    (mark,) = [item for item in axes.lines if list(item.get_ydata()) == [0, 1]]
    assert mark.get_xdata()[0] == 0.3 and mark.get_color() == line(axes, "input 0").get_color()


def test_many_entries_are_their_mean_and_deviation(axes):
    values = np.arange(21.0).reshape(3, 7)
    values[1, 0] = np.inf
    values[2] = np.nan
    kernelode.plot.plot_sweep(axes, swept(values, a=[0.0, 1.0, 2.0], input=None))
    assert legend(axes) == ["mean of 7", "no value", "not all have a value"]
    assert np.allclose(line(axes, "mean of 7").get_ydata(), [3, 10.5, np.nan], equal_nan=True)
    (band,) = axes.collections
    edge = band.get_paths()[0].vertices
    assert np.isclose(edge[edge[:, 0] == 0, 1].max(), 3 + np.arange(7).std())
    assert np.isclose(edge[edge[:, 0] == 1, 1].min(), 10.5 - np.arange(6).std())
    axes.clear()
    decades = np.geomspace(1, 1e6, 7) * np.ones((3, 1))
    kernelode.plot.plot_sweep(axes, swept(decades, a=[0.0, 1.0, 2.0], input=None))
    assert axes.get_yscale() == "log"
    assert np.allclose(line(axes, "mean of 7").get_ydata(), 1e3)


def test_a_pair_of_further_dimensions_and_a_number_as_optimum(axes):
    values = swept(np.arange(8).reshape(2, 2, 2), row=None, rho=[0.0, 1.0], column=["u", "v"])
    kernelode.plot.plot_sweep(axes, values, optimum=xarray.DataArray(0.25))
    expected = ["row 0, column u", "row 0, column v", "row 1, column u", "row 1, column v", "optimum"]
    assert legend(axes) == expected
    assert np.array_equal(line(axes, "row 1, column u").get_ydata(), [4, 6])
    assert vertical_lines(axes) == [0.25]


def test_sweep_refuses(axes):
    sweep_plot, x = kernelode.plot.plot_sweep, [1.0, 2.0]
    wrong: Any
    for wrong in (np.ones(3), swept(np.ones(2), a=x).to_dataset(), None, 0.5):
        with pytest.raises(TypeError, match="`values` must be an xarray.DataArray"):
            sweep_plot(axes, wrong)
    with pytest.raises(ValueError, match="one, two or three dimensions, got 4"):
        sweep_plot(axes, swept(np.ones((2, 2, 2, 2)), a=x, b=x, c=x, d=x))
    with pytest.raises(ValueError, match="got 0"):
        sweep_plot(axes, xarray.DataArray(1.0))
    with pytest.raises(ValueError, match="numbers as coordinates"):
        sweep_plot(axes, swept(np.ones((2, 2)), a=None, b=["u", "v"]))
    with pytest.raises(ValueError, match="'a' must differ"):
        sweep_plot(axes, swept(np.ones(2), a=[1.0, 1.0]))
    with pytest.raises(ValueError, match="'a' must be finite"):
        sweep_plot(axes, swept(np.ones(2), a=[1.0, np.nan]))
    with pytest.raises(ValueError, match="must not be empty"):
        sweep_plot(axes, swept(np.ones(0), a=np.ones(0)))
    with pytest.raises(TypeError, match="real numbers"):
        sweep_plot(axes, swept(np.ones(2), a=x) * 1j)
    with pytest.raises(ValueError, match="`optimum` must be one number"):
        sweep_plot(axes, swept(np.ones(2), a=x), optimum=swept(np.ones(2), a=x))
    with pytest.raises(TypeError, match="`optimum` must be an xarray.DataArray"):
        sweep_plot(axes, swept(np.ones(2), a=x), optimum=wrong)


def test_an_optimum_of_zero_is_none_on_a_logarithmic_axis(axes):
    rho = np.geomspace(0.1, 1, 4)
    values = swept(np.arange(12.0).reshape(3, 4), a=[1.0, 2.0, 3.0], residual_scale=rho)
    kernelode.plot.plot_sweep(axes, values, optimum=swept([0.2, 0.0, 0.4], a=[1.0, 2.0, 3.0]))
    assert np.array_equal(line(axes, "optimum").get_ydata(), [0.2, np.nan, 0.4], equal_nan=True)
    assert np.array_equal(line(axes, "no optimum").get_xdata(), [2.0])
    axes.clear()
    curves = swept(values.values, a=None, residual_scale=rho)
    kernelode.plot.plot_sweep(axes, curves, optimum=swept([0.2, 0.0, 0.4], a=None))
    assert vertical_lines(axes) == [0.2, 0.4] and "optimum, 2 of 3" in legend(axes)
    axes.clear()
    kernelode.plot.plot_sweep(axes, curves, optimum=swept(np.zeros(3), a=None))
    assert vertical_lines(axes) == [] and "no optimum" in legend(axes)


@pytest.mark.parametrize("n", [1, 3, 200])
def test_kernel_matrices_share_one_scale_of_colours(axes, n):
    before = np.arange(n * n, dtype=float).reshape(n, n)
    after = before + 5
    assert kernelode.plot.plot_kernel_matrix(axes, before, after) is axes
    first, second = axes.images
    assert np.array_equal(first.get_array(), before) and np.array_equal(second.get_array(), after)
    assert first.norm is second.norm
    assert (first.norm.vmin, first.norm.vmax) == (0, n * n + 4)
    # Side by side, without overlap, the first row on top.
    assert first.get_extent()[1] < second.get_extent()[0]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    assert {text.get_text() for text in axes.texts} == {"before", "after"}
    assert len(axes.get_yticks()) <= 7
    for place, word in zip(axes.get_xticks(), axes.get_xticklabels()):
        image = first if place < n else second
        assert np.isclose(place - image.get_extent()[0] - 0.5, int(word.get_text()))
    assert_nothing_overlaps(axes.figure)


def test_one_kernel_matrix_with_gaps(axes):
    matrix = np.eye(4)
    matrix[0, 1] = np.nan
    kernelode.plot.plot_kernel_matrix(axes, matrix)
    (image,) = axes.images
    assert np.ma.getmaskarray(image.get_array()).sum() == 1
    assert legend(axes) == ["no value"] and axes.patches[0].get_hatch() and not axes.texts
    assert_nothing_overlaps(axes.figure)


def test_kernel_matrix_refuses(axes):
    with pytest.raises(ValueError, match="`before` must have shape \\(n, n\\), got \\(2, 3\\)"):
        kernelode.plot.plot_kernel_matrix(axes, np.ones((2, 3)))
    with pytest.raises(ValueError, match="`after` must have shape \\(n, n\\)"):
        kernelode.plot.plot_kernel_matrix(axes, np.eye(2), np.ones(2))
    with pytest.raises(ValueError, match="shape of `before`, \\(2, 2\\); got \\(3, 3\\)"):
        kernelode.plot.plot_kernel_matrix(axes, np.eye(2), np.eye(3))


def at_width(kernel) -> ko.AtWidth:
    mean, spread = jnp.asarray(kernel + 1.0), jnp.full(kernel.shape, 0.25)
    return ko.AtWidth(mean, jnp.zeros(()), spread, jnp.zeros(len(kernel)), ko.RESULTS.successful)


def test_kernel_at_width_shows_mean_band_limit_and_ensemble(axes):
    kernel = kernels(3, 2)
    measured = ([1.0], kernel[1:2] + 1.1, np.full((1, 2, 2), 0.5))
    width_plot = kernelode.plot.plot_kernel_at_width
    assert width_plot(axes, [0, 1, 2], at_width(kernel), kernel, [(1, 0)], measured=measured) is axes
    mean = line(axes, "$G_{1,0}$")
    assert np.allclose(mean.get_ydata(), kernel[:, 1, 0] + 1)
    band = axes.collections[0].get_paths()[0].get_extents()
    assert np.isclose(band.y0, kernel[0, 1, 0] + 0.75) and np.isclose(band.y1, kernel[2, 1, 0] + 1.25)
    thin = [item for item in axes.lines if np.array_equal(item.get_ydata(), kernel[:, 1, 0])]
    assert len(thin) == 1 and thin[0].get_linewidth() < mean.get_linewidth()
    x, y, lengths = points(axes.containers[0])
    assert np.allclose([*x, *y, *lengths], [1, kernel[1, 1, 0] + 1.1, 1])
    assert legend(axes) == ["$G_{1,0}$", "measured", "infinite width", "spread over networks"]
    assert_nothing_overlaps(axes.figure)
    axes.clear()
    width_plot(axes, [2.0], at_width(kernel[:1]), kernel[:1], [(0, 0), (1, 1)])
    assert line(axes, "$G_{0,0}$").get_marker() == "o"
    axes.clear()
    fields = jnp.asarray(kernel), jnp.asarray(kernel), jnp.zeros(3), ko.RESULTS.successful
    tangent = ko.TangentAtWidth(*fields)
    width_plot(axes, [0, 1, 2], tangent, kernel, [(1, 1)], symbol="H")
    assert line(axes, "$H_{1,1}$") is not None
    with pytest.raises(ValueError, match="of the same depths and inputs"):
        width_plot(axes, [2.0], at_width(kernel), kernel[:1], [(0, 0)])


def test_moment_by_closure_shows_a_curve_each_and_the_simulation(axes):
    curves = {"G-only": [1.0, 2.0], "Wick tower": [3.0, 4.0]}
    moment_plot = kernelode.plot.plot_moment_by_closure
    assert moment_plot(axes, [0.0, 1.0], curves, "$V_4$", ([1.0], [4.5], [0.5])) is axes
    for name, values in curves.items():
        assert np.array_equal(line(axes, name).get_ydata(), values)
    assert np.allclose(np.concatenate(points(axes.containers[0])), [1, 4.5, 1])
    with pytest.raises(ValueError, match="2 depths and 3"):
        moment_plot(axes, [0.0, 1.0], {"G-only": np.ones(3)}, "$V_4$")


def test_colours_differ_in_grey_or_in_line_style():
    from matplotlib.colors import to_rgb

    from kernelode.plot._style import STYLES

    assert len({str(style) for _, style in STYLES}) == len({colour for colour, _ in STYLES}) == 6
    # Relative luminance of sRGB: nothing is too pale for white paper (contrast of 2 to 1).
    for colour, _ in STYLES:
        linear = [((c + 0.055) / 1.055) ** 2.4 if c > 0.04 else c / 12.92 for c in to_rgb(colour)]
        assert 1.05 / (np.dot(linear, [0.2126, 0.7152, 0.0722]) + 0.05) > 2


@pytest.mark.parametrize("low, high, expected", [
    (0.02, 2.0, [0.02, 0.05, 0.1, 0.2, 0.5, 1, 2]),
    (1e-4, 1e3, [1e-4, 1e-3, 1e-2, 1e-1, 1, 10, 100, 1000]),
    (48.0, 53.0, [48, 49, 50, 51, 52, 53]),
])  # fmt: skip
def test_ticks_of_a_logarithmic_axis(low, high, expected):
    from kernelode.plot._ticks import PlainLocator

    assert np.allclose(PlainLocator().tick_values(low, high), expected)


@pytest.mark.parametrize("layout", [None, "tight", "constrained"])
def test_figures_draw_in_every_layout_without_warning(layout):
    panels = Figure(figsize=(9, 7), layout=layout).subplots(2, 2).ravel()
    kernel, x = kernels(3, 2), np.linspace(1.0, 2.0, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kernelode.plot.plot_kernel_against_depth(panels[0], [0, 1, 2], kernel, [(0, 0), (0, 1)])
        kernelode.plot.plot_sweep(panels[1], swept(np.add.outer(x, x), a=x, b=x))
        kernelode.plot.plot_kernel_matrix(panels[2], kernel[0], kernel[1])
        kernelode.plot.plot_sweep(panels[3], swept(np.ones((2, 6, 6)), input=None, a=x, b=x))
        written = io.BytesIO()
        panels[0].figure.savefig(written, format="png")
    assert written.getbuffer().nbytes > 10_000


def gallery(folder, *arguments) -> list[str]:
    specification = importlib.util.spec_from_file_location("gallery", ROOT / "examples" / "gallery.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    module.main(["--short", "--folder", str(folder), *arguments])
    return sorted(path.name for path in folder.iterdir())


def test_gallery_draws(tmp_path):
    assert gallery(tmp_path, "--only", "kernel_matrix") == ["gallery_kernel_matrix.png"]


@pytest.mark.slow
def test_gallery_draws_what_the_document_shows(tmp_path):
    drawn = gallery(tmp_path)
    text = (ROOT / "docs" / "gallery.md").read_text("utf-8")
    kept = sorted(path.name for path in (ROOT / "docs" / "figures").glob("gallery_*.png"))
    assert drawn == kept
    assert all(f"](figures/{name})" in text for name in drawn)


def test_the_gallery_shows_every_figure():
    text = (ROOT / "docs" / "gallery.md").read_text("utf-8")
    names = [name for name in dir(kernelode.plot) if name.startswith("plot_")]
    assert len(names) == 10
    assert not [name for name in names if f"plot.{name}(" not in text]
    for path in (ROOT / "docs" / "figures").glob("gallery_*.png"):
        assert path.stat().st_size < 80_000, path.name
        assert f"](figures/{path.name})" in text


@pytest.mark.parametrize("form", ["png", "pdf", "svg"])
def test_figures_can_be_written(axes, response, optimum, form):
    kernelode.plot.plot_response_against_scale(axes, SCALES, response, optimum)
    file = io.BytesIO()
    axes.figure.savefig(file, format=form)
    assert len(file.getvalue()) > 1000


def test_importing_the_figures_imports_no_matplotlib():
    code = "import sys, kernelode.plot; assert not {'matplotlib', 'xarray'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
