"""The residual scale at which the output responds most: how it falls with depth and moves with variances.

Figs. 4 and 5 of K. Fischer, D. Dahmen and M. Helias, arXiv:2305.07715: erf, C_W = 1.25, C_b = 0.05.

- Two inputs with K^0 = [[.05, .03], [.03, .05]]: chi_out against rho for several depths L, and its
  maximum rho* beside the law of large depth, sqrt((t* + t1/L)/L).
- Handwritten digits, classes 3 and 7, with K^0_aa = .05 on average: rho* at L = 50, mean and standard
  deviation over inputs (diagonal) and over pairs (off-diagonal), against C_W and against C_b.

`python examples/residual_scaling.py [--depths 10 50 100 200] [--inputs 20] [--points 13] [--figure FILE]`
prints both as tables. It needs scikit-learn, for the digits: `pip install "kernelode[data]"`.
"""

import argparse
from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

import kernelode as ko

PAIR = np.array([[0.05, 0.03], [0.03, 0.05]])
WEIGHT_VARIANCE, BIAS_VARIANCE = 1.25, 0.05


def digits_kernel(inputs: int, mean_variance: float = 0.05) -> np.ndarray:
    """The kernel of the first threes and sevens, with variances of `mean_variance` on average."""
    images, labels = (np.asarray(array) for array in load_digits(return_X_y=True))
    kernel = np.asarray(ko.input_kernel(images[np.isin(labels, (3, 7))][:inputs]))
    return kernel * (mean_variance / np.mean(np.diagonal(kernel)))


def network(depth: int) -> ko.ResNet:
    """With one scale a layer: a search for rho* keeps their shape."""
    return ko.ResNet(
        ko.Erf(),
        depth,
        residual_scale=np.ones(depth),
        weight_variance=WEIGHT_VARIANCE,
        bias_variance=BIAS_VARIANCE,
    )


class Scaling(NamedTuple):
    """Of the pair, columns (diagonal, off-diagonal): chi_out (depths, scales, 2), rho* (depths, 2),
    chi_out there, and the law for rho* (depths, 2)."""

    chi: np.ndarray
    best: np.ndarray
    highest: np.ndarray
    law: np.ndarray


def against_depth(depths: Sequence[int], scales: np.ndarray) -> Scaling:
    """All depths with one compilation: a network of depth L is one of the largest depth whose blocks
    beyond L are switched off, since depth is static and per-layer scales are traced."""
    deepest = network(max(depths))
    pick = lambda diagonal, pairs: np.array([diagonal[..., 0], pairs[..., 0, 1]]).T

    @jax.jit
    @jax.vmap
    def response(profile):
        return ko.response(eqx.tree_at(lambda n: n.residual_scale, deepest, profile), PAIR)

    flow = ko.optimal_flow_time(deepest, PAIR)
    rows = []
    for depth in depths:
        profile = np.where(np.arange(deepest.depth) < depth, 1.0, 0.0)
        chi = response(scales[:, None] * profile)
        switched = eqx.tree_at(lambda n: n.residual_scale, deepest, jnp.asarray(profile))
        best = ko.optimal_residual_scale(switched, PAIR)
        # The search varies the root mean square over all blocks, those switched off included.
        unit = (deepest.depth / depth) ** 0.5
        rows.append(
            (
                pick(chi.diagonal, chi.off_diagonal),
                unit * pick(best.diagonal.value, best.off_diagonal.value),
                pick(best.diagonal.response, best.off_diagonal.response),
                pick(flow.diagonal.residual_scale(depth), flow.off_diagonal.residual_scale(depth)),
            )
        )
    return Scaling(*map(np.stack, zip(*rows)))


def against_variances(kernel: np.ndarray, depth: int, weight_variances, bias_variances) -> np.ndarray:
    """rho* for pairs of variances: (variances, 4), mean and standard deviation over the inputs, then over
    the pairs. Every element has to have an optimum."""
    rows = []
    for variances in zip(jnp.asarray(weight_variances), jnp.asarray(bias_variances)):
        changed = eqx.tree_at(lambda n: (n.weight_variance, n.bias_variance), network(depth), variances)
        found = ko.optimal_residual_scale(changed, kernel)
        summaries = found.diagonal.summary(), found.off_diagonal.summary()
        if min(float(s.interior_fraction) for s in summaries) < 1:
            raise ValueError("Some elements have no optimum: choose smaller bias variances.")
        rows.append([float(x) for s in summaries for x in s[:2]])
    return np.array(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="rho* against depth and against the variances.")
    parser.add_argument("--depths", type=int, nargs="+", default=[10, 50, 100, 200])
    parser.add_argument("--inputs", type=int, default=20, help="how many digits (at least 2)")
    parser.add_argument("--depth", type=int, default=50, help="of the networks for the digits")
    parser.add_argument("--points", type=int, default=13, help="values of each variance")
    parser.add_argument("--figure", help="draw to this file")
    options = parser.parse_args(arguments)
    jax.config.update("jax_enable_x64", True)

    scales = np.geomspace(0.01, 5, 80)
    scaling = against_depth(options.depths, scales)
    print("erf, C_W = 1.25, C_b = 0.05, K^0 = [[.05, .03], [.03, .05]]")
    print("rho*, relative difference of its law sqrt((t* + t1/L)/L), and chi_out at rho*\n")
    names = [f"{name:>12} {'law':>9} {'chi_out':>9}" for name in ("diagonal", "off-diagonal")]
    print(f"{'L':>5}  {'  '.join(names)}")
    for depth, best, highest, law in zip(options.depths, scaling.best, scaling.highest, scaling.law):
        cells = [f"{b:12.8f} {l / b - 1:9.1e} {h:9.5f}" for b, h, l in zip(best, highest, law)]
        print(f"{depth:5}  {'  '.join(cells)}")

    weights, biases = np.linspace(0.8, 2, options.points), np.linspace(0, 0.2, options.points)
    kernel = digits_kernel(options.inputs)
    fixed = np.ones(options.points)
    found = against_variances(
        kernel,
        options.depth,
        np.concatenate([weights, fixed * WEIGHT_VARIANCE]),
        np.concatenate([fixed * BIAS_VARIANCE, biases]),
    )
    sweeps = {"C_W": (weights, found[: options.points]), "C_b": (biases, found[options.points :])}
    print(f"\n{options.inputs} digits 3 and 7, L = {options.depth}: mean rho* +- standard deviation\n")
    for name, (values, rows) in sweeps.items():
        print(f"{name:>5}  {'diagonal':>18}  {'off-diagonal':>18}")
        for value, (a, b, c, d) in zip(values, rows):
            print(f"{value:5.3g}  {a:8.5f} +- {b:6.5f}  {c:8.5f} +- {d:6.5f}")
    if options.figure:
        draw(scales, options.depths, scaling, sweeps, options.figure)


def draw(scales, depths, scaling: Scaling, sweeps, path: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 5.6), layout="constrained")
    panels = figure.subplots(2, 2)
    colours, styles = ("#0072B2", "#D55E00"), ("-", "--", "-.", ":")
    titles = ("one input", "pair")
    response, against_l = panels[0]
    for i in range(2):
        for n, depth in enumerate(depths):
            label = f"L = {depth}" if i == 0 else None
            response.plot(scales, scaling.chi[n, :, i], styles[n % 4], color=colours[i], label=label)
            response.plot(scaling.best[n, i], scaling.highest[n, i], "o", color=colours[i], markersize=4)
        against_l.plot(depths, scaling.law[:, i], "-", color=colours[i], label=f"{titles[i]}, law")
        against_l.plot(
            depths, scaling.best[:, i], "o", color=colours[i], markerfacecolor="white", label=titles[i]
        )
    response.set(xscale="log", yscale="log", xlabel=r"$\rho$", ylabel=r"$\chi_\mathrm{out}$")
    against_l.set(xscale="log", yscale="log", xlabel="depth $L$", ylabel=r"$\rho^*$")
    against_l.set_ylim(top=8 * np.max(scaling.best))  # room for the legend
    for axes, (name, (values, rows)) in zip(panels[1], sweeps.items()):
        for i in range(2):
            mean, spread = rows[:, 2 * i], rows[:, 2 * i + 1]
            axes.plot(values, mean, "-", color=colours[i], label=("inputs", "pairs")[i])
            axes.fill_between(values, mean - spread, mean + spread, color=colours[i], alpha=0.2, lw=0)
        axes.set(xlabel=f"${name}$", ylabel=r"$\rho^*$ of digits", ylim=(0, None))
    for letter, axes in zip("abcd", panels.flat):
        axes.set_title(letter, loc="left", fontweight="bold")
        place = "lower left" if letter == "a" else "best"
        axes.legend(frameon=False, fontsize="small", loc=place)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
