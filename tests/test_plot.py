"""The figures: what they show where, that nothing is covered, and that they can be written."""

import io
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernelode as ko
import kernelode.plot
from kernelode._compare import Row

Figure = pytest.importorskip("matplotlib.figure").Figure

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
    axes.figure.canvas.draw()
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


@pytest.mark.parametrize("form", ["png", "pdf", "svg"])
def test_figures_can_be_written(axes, response, optimum, form):
    kernelode.plot.plot_response_against_scale(axes, SCALES, response, optimum)
    file = io.BytesIO()
    axes.figure.savefig(file, format=form)
    assert len(file.getvalue()) > 1000


def test_importing_the_figures_imports_no_matplotlib():
    code = "import sys, kernelode.plot; assert 'matplotlib' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
