"""Kernels and responses at every layer: residual and feed-forward networks, theory and simulation.

Figs. 2 and 3 of K. Fischer, D. Dahmen and M. Helias, arXiv:2305.07715: erf, C_W = 1.2, C_b = 0.2, two
inputs with K^0_aa = 1.4 and correlation 0.6, ten layers.

- At rho = 1, the residual kernel C^l, what layer l adds, and its response eta^l = dC^l / dK^0, for one
  input ("diagonal") and for the pair, beside the same of a feed-forward network. Points with error bars
  are networks of finite width, so that the theory, of infinite width, may differ from them by O(1/n).
- The kernel K^l and chi^l = dK^l / dK^0 of one input, at rho = 1, 0.3 and 0.1.

`python examples/signal_propagation.py [--width 500] [--networks 1500] [--real-weights] [--figure FILE]`
prints C^l and eta^l with z-scores, and where K and chi end. By default the networks are drawn by the
law of a layer given the one before; `--real-weights` draws every weight, and takes minutes at n = 500.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import kernelode as ko

DEPTH, WEIGHT_VARIANCE, BIAS_VARIANCE = 10, 1.2, 0.2
#: The read-out has the variances of the layers: then it is, after layer l - 1, the branch of layer l.
VARIANCES: dict[str, Any] = {
    "weight_variance": WEIGHT_VARIANCE,
    "bias_variance": BIAS_VARIANCE,
    "output_weight_variance": WEIGHT_VARIANCE,
    "output_bias_variance": BIAS_VARIANCE,
}
KERNEL = 1.4 * np.array([[1.0, 0.6], [0.6, 1.0]])
SCALES = (1.0, 0.3, 0.1)
NAMES = ("C", "eta", "C, pair", "eta, pair")


def networks() -> dict[str, ko.AbstractArchitecture]:
    return {
        "residual": ko.ResNet(ko.Erf(), DEPTH, residual_scale=1.0, **VARIANCES),
        "feed-forward": ko.MLP(ko.Erf(), DEPTH, **VARIANCES),
    }


def predicted(network: ko.AbstractArchitecture) -> dict[str, np.ndarray]:
    """C^l and eta^l, l = 1 .. L, of the first input and of the pair."""
    before = ko.propagate(network, KERNEL).mean_kernel[:-1]
    block = lambda k: ko.Block(jnp.diagonal(k), jnp.diagonal(k), k)
    added = jax.vmap(lambda k, layer: network.drift(block(k), layer).cross)(before, network.layers())
    eta = ko.layer_response(network, KERNEL).eta
    values = (added[:, 0, 0], eta.diagonal[:, 0], added[:, 0, 1], eta.off_diagonal[:, 0, 1])
    return {name: np.asarray(value) for name, value in zip(NAMES, values)}


def simulated(network, width: int, samples: int, sampler) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The same with standard errors, from random networks; derivatives are taken along their paths."""
    run = ko.ensemble.sample(
        network,
        KERNEL,
        width=width,
        samples=samples,
        key=jax.random.key(0),
        layers=range(DEPTH),
        sampler=sampler,
        control=False,
        responses=True,
    ).raw
    # The two inputs have the same variance: the mean of both is less uncertain than one.
    own = lambda measured: measured.map(lambda x: np.mean(x, axis=-1))
    pair = lambda measured: measured.map(lambda x: x[..., 0, 1])
    moment = run.sigma_kernel.map(lambda x: WEIGHT_VARIANCE * x)
    found = (
        own(moment.map(lambda x: np.diagonal(x, axis1=-2, axis2=-1))),
        own(run.read_out_response_diagonal),
        pair(moment),
        pair(run.read_out_response_off_diagonal),
    )
    biases = (BIAS_VARIANCE, 0.0, BIAS_VARIANCE, 0.0)
    return {n: (m.value + b, m.standard_error) for n, m, b in zip(NAMES, found, biases)}


def against_depth(scale: float) -> tuple[np.ndarray, np.ndarray]:
    """K^l and chi^l of one input, l = 0 .. L."""
    network = ko.ResNet(ko.Erf(), DEPTH, residual_scale=scale, **VARIANCES)
    kernel = ko.propagate(network, KERNEL).mean_kernel[:, 0, 0]
    return np.asarray(kernel), np.asarray(ko.layer_response(network, KERNEL).chi.diagonal[:, 0])


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="C^l, eta^l, K^l and chi^l, with simulations.")
    parser.add_argument("--width", type=int, default=500, help="n of the simulated networks")
    parser.add_argument("--networks", type=int, default=1500, help="how many of them")
    parser.add_argument("--real-weights", action="store_true", help="draw every weight: n^2 a layer")
    parser.add_argument("--figure", help="draw to this file")
    options = parser.parse_args(arguments)
    jax.config.update("jax_enable_x64", True)
    sampler = ko.ensemble.RealWeights() if options.real_weights else ko.ensemble.BlockLaw()

    print(f"erf, C_W = 1.2, C_b = 0.2, K^0 = 1.4, correlation 0.6; {options.networks} networks, ", end="")
    print(f"n = {options.width}, {type(sampler).__name__}\n")
    print(
        f"{'network':13}{'quantity':10} {'l':>3} {'theory':>9} {'simulation':>20} {'z':>6} {'max |z|':>8}"
    )
    results = {}
    for title, network in networks().items():
        theory = predicted(network)
        measured = simulated(network, options.width, options.networks, sampler)
        results[title] = theory, measured
        for name in NAMES:
            value, error = measured[name]
            z = (value - theory[name]) / error
            for l in (1, 5, 10):
                numbers = f"{theory[name][l - 1]:9.5f} {value[l - 1]:9.5f} +- {error[l - 1]:7.5f}"
                largest = f"{np.max(np.abs(z)):8.1f}" if l == 10 else ""
                print(f"{title:13}{name:10} {l:3} {numbers} {z[l - 1]:6.1f} {largest}".rstrip())

    print(f"\n{'rho':>5} {'K^10':>10} {'chi^10':>10}")
    curves = {scale: against_depth(scale) for scale in SCALES}
    for scale, (kernel, chi) in curves.items():
        print(f"{scale:5.1f} {kernel[-1]:10.6f} {chi[-1]:10.6f}")
    if options.figure:
        draw(results, curves, options.figure)


def draw(results, curves, path: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 5.6), layout="constrained")
    panels = figure.subplots(2, 2)
    layers = np.arange(1, DEPTH + 1)
    for (title, (theory, measured)), style, marker in zip(results.items(), ("-", "--"), "os"):
        for number, (name, colour) in enumerate(zip(NAMES, ("#0072B2", "#0072B2", "#D55E00", "#D55E00"))):
            axes, (value, error) = panels[0, number % 2], measured[name]
            element = "pair" if "pair" in name else "one input"
            axes.plot(layers, theory[name], style, color=colour, label=f"{title}, {element}")
            points = {"fmt": marker, "markersize": 4, "markerfacecolor": "white", "elinewidth": 1}
            # On a logarithmic axis, what is not above its error has no place.
            shown = value > 3 * error
            axes.errorbar(layers[shown], value[shown], error[shown], color=colour, capsize=2, **points)
    panels[0, 1].set_yscale("log")
    panels[0, 1].set_ylim(bottom=1e-6)
    for scale, style in zip(SCALES, ("-", "--", "-.")):
        for axes, values in zip(panels[1], curves[scale]):
            axes.plot(np.arange(DEPTH + 1), values, style, color="#0072B2", label=rf"$\rho = {scale:g}$")
    labels = (r"residual kernel $C^l$", r"response $\eta^l$", r"kernel $K^l$", r"response $\chi^l$")
    for letter, axes, label in zip("abcd", panels.flat, labels):
        axes.set(xlabel="layer $l$", ylabel=label)
        axes.set_title(letter, loc="left", fontweight="bold")
    panels[0, 0].legend(frameon=False, fontsize="x-small")
    panels[1, 0].legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
