"""The neural tangent kernel of networks of finite width: mean, gradients and fluctuations with depth.

What Figs. 1 to 3 of arXiv:2508.11522 show, and the last of them for a residual network. H is the tangent
kernel of one output; l counts layers of weights, those of the read-in and of the read-out included.

- a: GELU at criticality, C_W = 1.98305826, C_b = 0.17292239. An off-diagonal element of the kernel and of
  the tangent kernel at l = 4 against 1/n: K0 + K1/n and Theta + Theta1/n, over their limits.
- b: ReLU. The mean of H_aa against depth, for C_W below, at and above its critical value of 2. It is the
  same at every width.
- c: ReLU at C_W = 2. The standard deviation of H_aa over its mean, against width over depth. Theory at
  C_b = 0 and trained weights: n Var(H_aa) / Theta^2 = m (11 l - 4) / (3 l), m = l - 1.
- d: the same of residual networks, whose blocks have rho = 1/2, or rho = 1/sqrt(L).

`python examples/tangent_kernel.py [--networks 4000] [--depth 8] [--order 8] [--figure FILE]` prints the
numbers beside simulations, in which every weight is drawn.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import kernelode as ko

#: Where both susceptibilities of GELU are one, as printed in the paper, and the kernel there.
GELU: dict[str, Any] = {
    "weight_variance": 1.98305826,
    "bias_variance": 0.17292239,
    "output_weight_variance": 1.98305826,
    "output_bias_variance": 0.17292239,
}
KERNEL = 3.5615528 * np.array([[1.0, 0.5], [0.5, 1.0]])
WIDTHS = (8, 12, 16, 32)
RECTIFIER_WIDTH = 32
VARIANCES = (1.8, 2.0, 2.2)
#: Means converge as 1/sqrt(networks), and shifts are small: panel a has this many times more networks.
MORE = 40


def mean_shift(order: int) -> dict[str, tuple[float, float]]:
    """The limit of the off-diagonal element, K0 and Theta, and what 1/n multiplies, at l = 4."""
    network = ko.MLP(ko.GELU(), 2, **GELU)
    solution = ko.propagate(network, KERNEL, closure=ko.TangentTower(order), layers=[2])
    output = solution.read_out
    element = lambda x: float(x[0, 0, 1])
    return {
        "K": (element(output.mean_kernel), element(output.mean_correction)),
        "H": (element(output.tangent.tangent_kernel), element(output.tangent.correction)),
    }


def simulated_mean(width: int, networks: int) -> dict[str, tuple[float, float]]:
    """The same elements in networks of a width, with standard errors."""
    run = draw_networks(ko.MLP(ko.GELU(), 2, **GELU), KERNEL, width, networks, [2])
    kernel = run.sigma_kernel.map(lambda x: x[..., 0, 1])
    tangent = run.tangent_kernel.map(lambda x: x[..., 0, 1])
    variance, bias = GELU["weight_variance"], GELU["bias_variance"]
    return {
        "K": (float(bias + variance * kernel.value[0]), float(variance * kernel.standard_error[0])),
        "H": (float(tangent.value[0]), float(tangent.standard_error[0])),
    }


def draw_networks(network, kernel, width: int, networks: int, layers):
    """Random networks with their tangent kernels."""
    return ko.ensemble.sample(
        network,
        kernel,
        width=width,
        samples=networks,
        key=jax.random.key(width),
        layers=layers,
        sampler=ko.ensemble.RealWeights(),
        tangent_kernel=True,
        control=False,
    ).raw


def rectifiers(weight_variance: float, depth: int) -> ko.MLP:
    """Of l = depth + 2 layers."""
    variances = {"weight_variance": weight_variance, "output_weight_variance": weight_variance}
    return ko.MLP(ko.ReLU(), depth, input_weight_variance=weight_variance, **variances)


def residual(scale: float, blocks: int, depth: int) -> ko.ResNet:
    """A residual network of `blocks`; the rest of its depth is switched off, for one compilation."""
    profile = np.where(np.arange(depth) < blocks, scale, 0.0)
    variances: dict[str, Any] = {"weight_variance": 2.0, "output_weight_variance": 2.0}
    return ko.ResNet(ko.ReLU(), depth, residual_scale=profile, input_weight_variance=2.0, **variances)


def spread(network, order: int, layers) -> np.ndarray:
    """sqrt(n Var(H)) / Theta of one input of variance one, read out after `layers`."""
    closure = ko.TangentTower(order)
    found = ko.propagate(network, np.ones((1, 1)), closure=closure, layers=layers).read_out.tangent
    return np.asarray(jnp.sqrt(found.variance) / found.tangent_kernel)[:, 0, 0]


def simulated_spread(network, networks: int, layers) -> tuple[np.ndarray, ...]:
    """Mean of H with its standard error, and sqrt(n Var(H)) over the mean with its own."""
    run = draw_networks(network, np.ones((1, 1)), RECTIFIER_WIDTH, networks, layers)
    mean, variance = run.tangent_kernel, run.tangent_kernel_variance
    ratio = np.sqrt(variance.value) / mean.value
    errors = ratio * variance.standard_error / (2 * variance.value)
    return tuple(np.asarray(x)[:, 0, 0] for x in (mean.value, mean.standard_error, ratio, errors))


def mean_of_rectifiers(weight_variance: float, depth: int) -> np.ndarray:
    """E[H] after each of 0 .. depth layers and a read-out."""
    closure = ko.TangentKernel()
    network = rectifiers(weight_variance, depth)
    read_out = ko.propagate(network, np.ones((1, 1)), closure=closure).read_out
    return np.asarray(read_out.tangent_kernel)[:, 0, 0]


def closed_form(l: np.ndarray | int) -> np.ndarray:
    """sqrt(n Var(H)) / Theta of ReLU layers without biases."""
    return np.sqrt((l - 1) * (11 * l - 4) / (3 * l))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="The tangent kernel of networks of finite width.")
    parser.add_argument("--networks", type=int, default=4000, help="how many are drawn of each kind")
    parser.add_argument("--depth", type=int, default=8, help="the deepest network of panels c and d")
    parser.add_argument("--order", type=int, default=8, help="of the tower of a pair")
    parser.add_argument("--figure", help="draw to this file")
    options = parser.parse_args(arguments)
    jax.config.update("jax_enable_x64", True)
    depth, networks = options.depth, options.networks

    print("a: GELU, l = 4, off-diagonal; over the limit, minus 1")
    print(f"{'':8}{'n':>4} {'theory':>10} {'simulation':>22}")
    theory = mean_shift(options.order)
    means = {width: simulated_mean(width, MORE * networks) for width in WIDTHS}
    for name, (limit, shift) in theory.items():
        for width in WIDTHS:
            value, error = (x / limit for x in means[width][name])
            print(f"{name:8}{width:4} {shift / width / limit:10.5f} {value - 1:12.5f} +- {error:7.5f}")

    layers = sorted({0, *np.unique(np.geomspace(1, depth, 4).round().astype(int)).tolist()})
    print(f"\nb: ReLU, E[H] of one input; simulation at n = {RECTIFIER_WIDTH}")
    print(f"{'C_W':>8}{'l':>4} {'theory':>10} {'simulation':>22}")
    drawn = {}
    for variance in VARIANCES:
        drawn[variance] = simulated_spread(rectifiers(variance, depth), networks, layers)
        limit = mean_of_rectifiers(variance, depth)[layers]
        for layer, one, value, error in zip(layers, limit, *drawn[variance][:2]):
            print(f"{variance:8}{layer + 2:4} {one:10.5f} {value:12.5f} +- {error:7.5f}")

    print("\nc, d: ReLU, sqrt(n Var H) / Theta of one input")
    print(f"{'':18}{'l':>4} {'tower':>9} {'formula':>9} {'simulation':>20}")
    everything = list(range(depth + 1))
    tower = spread(rectifiers(2.0, depth), options.order, everything)
    curves = {"feed-forward": (everything, tower, layers, *drawn[2.0][2:])}
    half = residual(0.5, depth, depth)
    found = simulated_spread(half, networks, layers)
    curves["rho = 1/2"] = everything, spread(half, options.order, everything), layers, *found[2:]
    by_depth = [residual(blocks**-0.5, blocks, depth) for blocks in everything[1:]]
    scaled = np.array([spread(network, options.order, [depth])[0] for network in by_depth])
    points = [simulated_spread(by_depth[k - 1], networks, [depth]) for k in layers[1:]]
    curves["rho = 1/sqrt(L)"] = everything[1:], scaled, layers[1:], *np.array(points)[:, 2:, 0].T
    for title, (depths, values, at, simulated, errors) in curves.items():
        for layer, value, error in zip(at, simulated, errors):
            l, one = layer + 2, values[depths.index(layer)]
            known = f"{closed_form(l):9.5f}" if title == "feed-forward" else " " * 9
            print(f"{title:18}{l:4} {one:9.5f} {known} {value:10.5f} +- {error:7.5f}")
    if options.figure:
        means_by_variance = {v: mean_of_rectifiers(v, 28) for v in VARIANCES}
        draw(theory, means, means_by_variance, drawn, layers, curves, options.figure)


COLOURS = ("#0072B2", "#D55E00", "#009E73")
POINTS: dict[str, Any] = {"markersize": 4, "markerfacecolor": "white", "elinewidth": 1, "capsize": 2}


def draw(theory, means, by_variance, drawn, layers, curves, path: str) -> None:
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

    figure = Figure(figsize=(7.2, 5.8), layout="constrained")
    panels = figure.subplots(2, 2)
    inverse = np.linspace(0, 1.05 / min(WIDTHS), 50)
    names = {"K": "$K_{01}$", "H": r"$\Theta_{01}$"}
    for (name, (limit, shift)), colour, style, marker in zip(theory.items(), COLOURS, ("-", "--"), "os"):
        panels[0, 0].plot(inverse, 1 + shift / limit * inverse, style, color=colour, label=names[name])
        values, errors = np.array([means[width][name] for width in WIDTHS]).T / limit
        at = 1 / np.array(WIDTHS)
        panels[0, 0].errorbar(at, values, errors, fmt=marker, color=colour, **POINTS)
    panels[0, 0].set(xlabel="$1/n$", ylabel="mean over networks / its limit", title="GELU, $l = 4$")

    styles = ("--", "-", "-.")
    for variance, colour, style, marker in zip(VARIANCES, COLOURS, styles, "so^"):
        values = by_variance[variance]
        at = np.arange(len(values)) + 2
        panels[0, 1].plot(at, values, style, color=colour, label=f"$C_W = {variance:g}$")
        mean, error = drawn[variance][:2]
        panels[0, 1].errorbar(np.array(layers) + 2, mean, error, fmt=marker, color=colour, **POINTS)
    panels[0, 1].set(
        xlabel="$l$", ylabel=r"$E[H_{00}]$", yscale="log", title=f"ReLU, points: $n = {RECTIFIER_WIDTH}$"
    )

    for title, colour, style, marker in zip(curves, COLOURS, styles, "so^"):
        depths, values, at, simulated, errors = curves[title]
        label = title.replace("rho", r"$\rho$").replace("1/sqrt(L)", r"$1/\sqrt{L}$")
        shown = [panels[1, 0], panels[1, 1]] if title == "feed-forward" else [panels[1, 1]]
        for axes in shown:
            root, ratio = np.sqrt(RECTIFIER_WIDTH), lambda x: RECTIFIER_WIDTH / (np.asarray(x) + 2)
            axes.plot(ratio(depths), values / root, style, color=colour, label=label)
            points = simulated / root, errors / root
            axes.errorbar(ratio(at), *points, fmt=marker, color=colour, **POINTS)
    l = np.linspace(2, layers[-1] + 2, 50)
    law = closed_form(l) / np.sqrt(RECTIFIER_WIDTH)
    panels[1, 0].plot(RECTIFIER_WIDTH / l, law, ":", color="black", label="closed form")
    for axes, title in zip(panels[1], ("ReLU, $C_W = 2$, feed-forward", "and residual")):
        axes.set(xscale="log", yscale="log", xlabel="$n / l$", title=title)
        axes.set_ylabel(r"$\sqrt{\mathrm{Var}(H_{00})}\,/\,\Theta_{00}$")
        axes.set_ylim(0.27, 1.7)
        for axis, ticks in ((axes.xaxis, (2, 3, 5, 10, 15)), (axes.yaxis, (0.3, 0.5, 0.7, 1.0, 1.5))):
            axis.set_major_locator(FixedLocator(ticks))
            axis.set_major_formatter(ScalarFormatter())
            axis.set_minor_locator(NullLocator())
    for letter, axes in zip("abcd", panels.flat):
        axes.set_title(letter, loc="left", fontweight="bold")
        axes.title.set_fontsize("medium")
        axes.legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
