"""Does rho* say where regression is best? Log evidence and test error of digits against rho.

An infinitely wide network with a Gaussian read-out is a Gaussian process with kernel K_out: regression
on the ten classes (one-hot targets) has a log evidence and a test error in closed form. Both are computed
for L = 5, 20 and 80 (erf, C_W = 1.25, C_b = 0.05, K^0_aa = .05 on average), beside the two scales rho* at
which the output responds most: the mean over inputs (diagonal) and over pairs of inputs (off-diagonal).

What follows, and what does not:

- The best scales of the process fall about as 1/sqrt(L), as both rho* do. They lie between the two: 15 to
  30 % below the off-diagonal rho*, and two to three times above the diagonal one. So rho* gives the order
  of magnitude and the law in L, not the optimum itself.
- This is the posterior of infinitely wide networks. No network is trained here, and nothing follows for
  accuracy after gradient descent. In trials with a small ResNet on these digits (not part of this script)
  there was no peak at rho* once the learning rate was tuned, rho = 0 was as good, and accuracy collapsed
  only above the off-diagonal rho*.

`python examples/evidence.py [--train 150] [--test 500] [--depths 5 20 80] [--points 29] [--figure FILE]`
prints a table. It needs scikit-learn, for the digits: `pip install "kernelode[data]"`.
"""

import argparse
import math
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.scipy.linalg
import numpy as np
from sklearn.datasets import load_digits

import kernelode as ko


def digits(train: int, test: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Input kernel and one-hot targets of `train` images, followed by `test` others, drawn at random."""
    images, labels = (np.asarray(array) for array in load_digits(return_X_y=True))
    chosen = np.random.default_rng(seed).permutation(len(images))[: train + test]
    kernel = np.asarray(ko.input_kernel(images[chosen]))
    return 0.05 * kernel / np.mean(np.diagonal(kernel)), np.eye(10)[labels[chosen]]


@eqx.filter_jit
def output_kernel(network: ko.ResNet, kernel, train: int) -> ko.Block:
    """K_out of all samples with the training samples: a `Block`, which is all that regression needs."""
    variances = jnp.diagonal(kernel)
    block = ko.Block(variances, variances[:train], kernel[:, :train])
    step = lambda block, layer: (network.layer(block, layer), None)
    return network.read_out(jax.lax.scan(step, block, network.layers())[0])


def log_evidence(output: ko.Block, targets, noise: float = 0.01):
    """Log probability of the training targets in nats a sample, and the weights of the predictor.

    The noise is a share of the mean variance. The amplitude of K_out, the read-out's weight variance,
    does not matter to rho*: here it is where the evidence is largest, tr(Y^T A^-1 Y)/(n m).
    """
    train, classes = targets.shape
    noisy = output.cross[:train] + noise * jnp.mean(output.column) * jnp.eye(train)
    factor = jax.scipy.linalg.cho_factor(noisy, lower=True)
    weights = jax.scipy.linalg.cho_solve(factor, targets)
    amplitude = jnp.sum(targets * weights) / (train * classes)
    log_determinant = 2 * jnp.mean(jnp.log(jnp.diagonal(factor[0])))
    return -classes / 2 * (1 + jnp.log(2 * jnp.pi * amplitude) + log_determinant), weights


@eqx.filter_jit
def scores(network: ko.ResNet, kernel, targets, train: int):
    """Log evidence, mean squared error and share of wrong classes on the test samples."""
    output = output_kernel(network, kernel, train)
    evidence, weights = log_evidence(output, targets[:train])
    predicted, truth = output.cross[train:] @ weights, targets[train:]
    squared = jnp.mean(jnp.sum((predicted - truth) ** 2, axis=1))
    wrong = jnp.mean(jnp.argmax(predicted, axis=1) != jnp.argmax(truth, axis=1))
    return evidence, squared, wrong


def peak(scales: np.ndarray, heights: np.ndarray) -> float:
    """Where `heights` is largest: by a parabola through the highest three points, in log rho."""
    top = int(np.argmax(heights))
    if top in (0, len(scales) - 1):
        raise ValueError("The optimum is not inside the range of scales.")
    below, at, above = heights[top - 1 : top + 2]
    shift = (below - above) / (2 * (below - 2 * at + above))
    return float(scales[top] * (scales[1] / scales[0]) ** shift)


def study(depth: int, kernel, targets, train: int, points: int):
    """Scales, and scores there (points, 3)."""
    scales = np.geomspace(0.18, 26, points) / math.sqrt(depth)
    network = ko.ResNet(ko.Erf(), depth, weight_variance=1.25, bias_variance=0.05)
    at = lambda rho: eqx.tree_at(lambda n: n.residual_scale, network, jnp.asarray(rho))
    return scales, np.array([scores(at(rho), kernel, targets, train) for rho in scales])


def optimal_scale(depth: int, deepest: int, kernel) -> ko.OptimalScale:
    """rho* of a network of `depth` blocks, as one of `deepest` blocks whose later ones are switched off:
    one compilation for all depths. The search varies the root mean square over all of them."""
    profile = np.where(np.arange(deepest) < depth, 1.0, 0.0)
    network = ko.ResNet(
        ko.Erf(), deepest, residual_scale=profile, weight_variance=1.25, bias_variance=0.05
    )
    found = ko.optimal_residual_scale(network, kernel)
    unit = math.sqrt(deepest / depth)
    values = lambda f: (f.diagonal.value, f.off_diagonal.value)
    return eqx.tree_at(values, found, tuple(unit * value for value in values(found)))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Evidence and test error of digits against rho.")
    parser.add_argument("--train", type=int, default=150, help="training samples")
    parser.add_argument("--test", type=int, default=500, help="test samples")
    parser.add_argument("--depths", type=int, nargs="+", default=[5, 20, 80])
    parser.add_argument("--points", type=int, default=29, help="scales")
    parser.add_argument("--inputs", type=int, default=40, help="samples whose rho* is averaged")
    parser.add_argument("--figure", help="draw to this file")
    options = parser.parse_args(arguments)
    jax.config.update("jax_enable_x64", True)

    kernel, targets = map(jnp.asarray, digits(options.train, options.test))
    print(f"Digits, {options.train} to train and {options.test} to test; erf, C_W = 1.25, C_b = 0.05")
    print("Where the evidence is largest and the squared error smallest, and rho*; test error in %\n")
    names = " ".join(f"{name:>8}" for name in ("inputs", "pairs", "evidence", "error"))
    print(f"{'':4} {'rho* of':>17} {'best rho by':>17}   {'test error at rho =':>20}")
    print(f"{'L':>4} {names}   {'small':>6} {'best':>6} {'large':>6}")
    studies, inputs = {}, min(options.inputs, options.train)
    for depth in options.depths:
        scales, values = study(depth, kernel, targets, options.train, options.points)
        optimum = optimal_scale(depth, max(options.depths), kernel[:inputs, :inputs])
        studies[depth] = scales, values, optimum
        by_evidence, by_error = peak(scales, values[:, 0]), peak(scales, -values[:, 1])
        best = int(np.argmax(values[:, 0]))
        wrong = [100 * values[i, 2] for i in (0, best, -1)]
        rho = [float(e.summary().mean) for e in (optimum.diagonal, optimum.off_diagonal)]
        numbers = " ".join(f"{x:8.3f}" for x in (*rho, by_evidence, by_error))
        print(f"{depth:4} {numbers}   {' '.join(f'{x:6.1f}' for x in wrong)}")
    print("\nsmall and large: rho = 0.18/sqrt(L) and 26/sqrt(L). These are Gaussian processes: nothing")
    print("here is a claim about the accuracy of networks trained by gradient descent.")
    if options.figure:
        draw(studies, options.figure)


def draw(studies, path: str) -> None:
    from matplotlib.figure import Figure

    from kernelode import plot

    figure = Figure(figsize=(5.0, 2.3 * len(studies)), layout="constrained")
    panels = np.atleast_1d(figure.subplots(len(studies)))
    for axes, (depth, (scales, values, optimum)) in zip(panels, studies.items()):
        plot.plot_evidence_against_scale(
            axes, scales, values[:, 0], 100 * values[:, 2], optimum, error_label="wrong classes [%]"
        )
        axes.set_xlabel(rf"residual scale $\rho$, depth $L = {depth}$")
    figure.savefig(path, dpi=110, pil_kwargs={"optimize": True})


if __name__ == "__main__":
    main()
