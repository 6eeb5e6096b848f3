"""Every figure of `kernelode.plot`, drawn from the handwritten digits 3 and 7.

The network is residual, with tanh or erf, C_W = 1.25 and C_b = 0.05; K^0_aa is 0.05 on average, but for
the figures of finite width, where it is 0.5, so that more is to be seen.

`python examples/gallery.py [--folder docs/figures] [--short]` writes gallery_*.png; `--short` uses few
inputs, depths and networks. It needs scikit-learn, for the digits, Matplotlib and xarray:
`pip install "kernelode[data,plot,xarray]"`.
"""

import argparse
import functools
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.scipy.linalg
import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

import kernelode as ko
from kernelode import plot

_SIZE = (5.2, 3.4)
_STYLE: Any = {"font.size": 9, "savefig.dpi": 110}


class Sizes(NamedTuple):
    """How much to compute."""

    inputs: int
    depth: int
    points: int
    samples: int
    order: int
    depths: tuple[int, ...]


FULL = Sizes(100, 50, 60, 2000, 16, (5, 10, 20, 50, 100, 200))
SHORT = Sizes(6, 4, 6, 40, 4, (3, 6))


def digits(inputs: int, variance: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    """The input kernel of the first digits 3 and 7, sorted by class, and the classes as -1 and 1."""
    images, labels = (np.asarray(array) for array in load_digits(return_X_y=True))
    chosen = np.concatenate([np.flatnonzero(labels == digit)[: inputs // 2] for digit in (3, 7)])
    kernel = np.asarray(ko.input_kernel(images[chosen]))
    return variance * kernel / np.mean(np.diagonal(kernel)), np.where(labels[chosen] == 3, -1.0, 1.0)


def network(depth: int, activation: ko.AbstractActivation | None = None, scale: Any = 0.2) -> ko.ResNet:
    activation = ko.Erf() if activation is None else activation
    return ko.ResNet(activation, depth, residual_scale=scale, weight_variance=1.25, bias_variance=0.05)


@functools.cache
def finite(sizes: Sizes) -> tuple[ko.Solution, ko.Solution, ko.ensemble.Ensemble]:
    """Two inputs of different classes: networks of width 64 by both closures and by simulation."""
    kernel, _ = digits(2, variance=0.5)
    wide = network(sizes.depth, ko.Tanh(), scale=0.3)
    layers = np.unique(np.linspace(0, sizes.depth, 11).round().astype(int)).tolist()
    exact, published = (
        ko.propagate(wide, kernel, closure=closure, layers=layers)
        for closure in (ko.WickTower(sizes.order), ko.GOnly())
    )
    drawn = ko.ensemble.sample(
        wide, kernel, width=64, samples=sizes.samples, key=jax.random.key(0), layers=layers[::2]
    )
    return exact, published, drawn


def kernel_against_depth(axes, sizes: Sizes) -> None:
    kernel, _ = digits(2, variance=0.5)
    solution = ko.propagate(network(sizes.depth, ko.Tanh(), scale=0.3), kernel)
    _, _, drawn = finite(sizes)
    measured = (drawn.layers, drawn.raw.mean_kernel.value, drawn.raw.mean_kernel.standard_error)
    layers = np.arange(sizes.depth + 1)
    elements = [(0, 0), (0, 1), (1, 1)]
    plot.plot_kernel_against_depth(axes, layers, solution.mean_kernel, elements, measured=measured)


def response_against_depth(axes, sizes: Sizes) -> None:
    kernel, _ = digits(sizes.inputs)
    found = ko.layer_response(network(sizes.depth), kernel)
    plot.plot_response_against_depth(axes[0], np.arange(sizes.depth + 1), found.chi)
    axes[0].set_ylabel(r"$\chi^l = dK^l / dK^0$")
    plot.plot_response_against_depth(axes[1], np.arange(1, sizes.depth + 1), found.eta)
    axes[1].set_ylabel(r"$\eta^l = dC^l / dK^0$")


def response_against_scale(axes, sizes: Sizes) -> None:
    kernel, _ = digits(6)
    scales = np.geomspace(0.02, 2, sizes.points)
    found = ko.sweep(
        lambda net: ko.response(net, kernel), network(sizes.depth), {"residual_scale": scales}
    )
    names = ("diagonal", "off_diagonal", "mixed")
    response = ko.Response(*(jnp.asarray(found[name].values) for name in names))
    optimum = ko.optimal_residual_scale(network(sizes.depth), kernel)
    plot.plot_response_against_scale(axes, scales, response, optimum)


def regression(net: ko.ResNet, kernel, targets) -> dict[str, jax.Array]:
    """Log evidence a sample of every other input, and mean squared error on the others.

    The noise is a hundredth of the mean variance; the amplitude of the kernel is the best one.
    """
    last = ko.propagate(net, kernel, layers=[net.depth]).mean_kernel[-1]
    output = net.read_out(ko.Block(jnp.diagonal(last), jnp.diagonal(last), last)).cross
    train, test = output[::2, ::2], output[1::2, ::2]
    noisy = train + 0.01 * jnp.mean(jnp.diagonal(train)) * jnp.eye(len(train))
    factor = jnp.linalg.cholesky(noisy)
    weights = jax.scipy.linalg.cho_solve((factor, True), targets[::2])
    amplitude = jnp.mean(targets[::2] * weights)
    log_determinant = 2 * jnp.mean(jnp.log(jnp.diagonal(factor)))
    evidence = -(1 + jnp.log(2 * jnp.pi * amplitude) + log_determinant) / 2
    return {"evidence": evidence, "error": jnp.mean((test @ weights - targets[1::2]) ** 2)}


def evidence_against_scale(axes, sizes: Sizes) -> None:
    kernel, targets = digits(sizes.inputs)
    scales = np.geomspace(0.02, 2, sizes.points // 2)
    axis = {"residual_scale": scales}
    score = functools.partial(regression, kernel=jnp.asarray(kernel), targets=jnp.asarray(targets))
    found = ko.sweep(score, network(sizes.depth), axis)
    optimum = ko.optimal_residual_scale(network(sizes.depth), kernel)
    plot.plot_evidence_against_scale(
        axes,
        scales,
        found["evidence"].values,
        found["error"].values,
        optimum,
        error_label="held-out squared error",
    )


def optimum_at(depth: int, deepest: int, kernel) -> ko.OptimalScale:
    """`ko.optimal_residual_scale(network(depth), kernel)`, of a network of `deepest` blocks of which the
    later ones are switched off: of those, all depths together compile once.

    The search varies the root mean square over all blocks, off ones included.
    """
    switched_on = jnp.where(jnp.arange(deepest) < depth, 1.0, 0.0)
    found = ko.optimal_residual_scale(network(deepest, scale=switched_on), kernel)
    values = lambda optimum: (optimum.diagonal.value, optimum.pairs.value)
    unit = math.sqrt(deepest / depth)
    return eqx.tree_at(values, found, replace_fn=lambda value: unit * value)


def scale_against_depth(axes, sizes: Sizes) -> None:
    kernel, _ = digits(6)
    scales = [optimum_at(depth, sizes.depths[-1], kernel) for depth in sizes.depths]
    law = ko.optimal_flow_time(network(sizes.depths[-1]), kernel)
    plot.plot_scale_against_depth(axes, sizes.depths, scales, law)


def sweep(axes, sizes: Sizes) -> None:
    kernel, _ = digits(2)
    variances = np.linspace(0.5, 3, sizes.points)
    grid = {"weight_variance": variances, "residual_scale": np.geomspace(0.02, 2, sizes.points)}
    best = lambda net: ko.optimal_residual_scale(net, kernel)
    pair = lambda net: ko.response(net, kernel).off_diagonal[0, 1]
    start = network(sizes.depth)
    response = ko.sweep(pair, start, grid)["value"]
    optimum = ko.sweep(best, start, {"weight_variance": variances})["pairs_value"][:, 0, 1]
    response.attrs["long_name"] = r"response $\chi_{ab;ab}$"
    plot.plot_sweep(axes, response, optimum=optimum)


def sweep_curves(axes, sizes: Sizes) -> None:
    variances = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0]
    kernel = np.diag(variances)
    start, grid = network(sizes.depth), {"residual_scale": np.geomspace(0.02, 2, sizes.points)}
    diagonal = lambda net: ko.response(net, kernel).diagonal
    found = ko.sweep(diagonal, start, grid, dims={"value": ("input_variance",)})["value"]
    # Texts are names of entries: numbers would make an axis of the inputs.
    found = found.assign_coords(input_variance=[f"{variance:g}" for variance in variances])
    found.attrs["long_name"] = r"response $\chi_{aa;aa}$"
    best = ko.optimal_residual_scale(start, kernel, pairs=False).diagonal.value
    # The optimum in the form of the response: one number an input.
    plot.plot_sweep(axes, found, optimum=found[0].copy(data=np.asarray(best)))


def kernel_matrix(axes, sizes: Sizes) -> None:
    kernel, _ = digits(min(sizes.inputs, 40))
    last = ko.propagate(network(sizes.depth), kernel, layers=[sizes.depth]).mean_kernel[-1]
    correlation = lambda k: k / np.sqrt(np.outer(np.diagonal(k), np.diagonal(k)))
    plot.plot_kernel_matrix(axes, correlation(kernel), correlation(np.asarray(last)))
    axes.child_axes[0].set_ylabel("correlation")


def kernel_at_width(axes, sizes: Sizes) -> None:
    solution, _, drawn = finite(sizes)
    plot.plot_kernel_at_width(
        axes,
        solution.ts,
        solution.at_width(64),
        solution.mean_kernel,
        [(0, 0), (0, 1)],
        measured=(drawn.ts, drawn.mean_kernel.value, drawn.mean_kernel.standard_error),
    )


def moment_by_closure(axes, sizes: Sizes) -> None:
    tower, published, drawn = finite(sizes)
    solutions = {"G-only": published, "Wick tower": tower}
    covariance = drawn.kernel_covariance
    measured = (drawn.ts, *(x[:, 0, 0, 0, 0] for x in (covariance.value, covariance.standard_error)))
    curves = {name: s.kernel_covariance[:, 0, 0, 0, 0] for name, s in solutions.items()}
    plot.plot_moment_by_closure(axes[0], tower.ts, curves, r"$V_4[00,00]$", measured)
    correction = drawn.mean_correction
    measured = (drawn.ts, *(x[:, 0, 0] for x in (correction.value, correction.standard_error)))
    curves = {name: s.mean_correction[:, 0, 0] for name, s in solutions.items()}
    plot.plot_moment_by_closure(axes[1], tower.ts, curves, r"$K_1[00]$", measured)


def comparison(axes, sizes: Sizes) -> None:
    solution, _, drawn = finite(sizes)
    plot.plot_comparison(axes, ko.compare(solution, drawn), "mean_correction")


#: By name, what draws a figure, and how many panels it has.
FIGURES: dict[str, tuple[Callable[[Any, Sizes], None], int]] = {
    "kernel_depth": (kernel_against_depth, 1),
    "response_depth": (response_against_depth, 2),
    "response_scale": (response_against_scale, 1),
    "evidence": (evidence_against_scale, 1),
    "scale_depth": (scale_against_depth, 1),
    "sweep": (sweep, 1),
    "sweep_curves": (sweep_curves, 1),
    "kernel_matrix": (kernel_matrix, 1),
    "kernel_width": (kernel_at_width, 1),
    "closure": (moment_by_closure, 2),
    "comparison": (comparison, 1),
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Every figure of kernelode.plot.")
    parser.add_argument("--folder", default="docs/figures", help="where to write them")
    parser.add_argument("--short", action="store_true", help="few inputs, depths and networks")
    parser.add_argument("--only", nargs="+", choices=FIGURES, default=list(FIGURES), help="which ones")
    options = parser.parse_args(arguments)
    folder = pathlib.Path(options.folder)
    if not folder.is_dir():
        parser.error(f"--folder: there is no folder {folder}.")
    jax.config.update("jax_enable_x64", True)
    for name in options.only:
        draw, panels = FIGURES[name]
        with rc_context(_STYLE):
            figure = Figure(
                figsize=(_SIZE[0] * (1 if panels == 1 else 1.5), _SIZE[1]), layout="constrained"
            )
            draw(figure.subplots(1, panels), SHORT if options.short else FULL)
            figure.savefig(folder / f"gallery_{name}.png")
        print(folder / f"gallery_{name}.png")


if __name__ == "__main__":
    main()
