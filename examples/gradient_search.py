"""Gradient search over residual scale, weight and bias variance, with an objective of one's own.

A response alone has no maximum over rho and C_W together: only rho^2 C_W and rho^2 C_b enter, and it
keeps growing as C_b / C_W -> 0. `kernelode.optimise` refuses that search. The same redundancy makes the
evidence of a Gaussian process flat in one direction of (rho, C_W, C_b). A prior settles it: here

    objective = log evidence - 1/2 strength |log(theta / theta_0)|^2,    theta = (rho, C_W, C_b),

on digits. It is maximised three times: by `kernelode.optimise` with optax's Adam, by the same with
optimistix's BFGS, and by a loop over optax written by hand, in which kernelode is a function that
`jax.grad` differentiates. All find the same point. There the prior alone decides along the flat
direction, which gives an identity to check by: log(rho/rho_0) = 2 log(C_W/C_W0) + 2 log(C_b/C_b0).

`python examples/gradient_search.py [--inputs 60] [--depth 20] [--figure FILE]` prints where the searches
start and end. It needs scikit-learn, for the digits: `pip install "kernelode[data]"`.
"""

import argparse
import textwrap
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.scipy.linalg
import numpy as np
import optax
import optimistix as optx
from jaxtyping import Array
from sklearn.datasets import load_digits

import kernelode as ko

START = (0.3, 1.25, 0.05)  # rho, C_W, C_b: also the centre of the prior
NAMES = ("rho", "C_W", "C_b")


def parameters(network: ko.ResNet) -> tuple[Array, Array, Array]:
    """What is searched: a function that `equinox.tree_at` and `kernelode.optimise` take."""
    return network.residual_scale, network.weight_variance, network.bias_variance


class Posterior(eqx.Module):
    """Log evidence a sample of a Gaussian process with the network's kernel, plus a log prior."""

    kernel: Array
    targets: Array
    strength: Array

    def __call__(self, network: ko.ResNet) -> Array:
        departures = jnp.log(jnp.stack(parameters(network)) / jnp.array(START))
        return self.log_evidence(network) - self.strength / 2 * jnp.sum(departures**2)

    def log_evidence(self, network: ko.ResNet) -> Array:
        """With noise of a hundredth of the mean variance, at the best amplitude of the kernel."""
        last = ko.propagate(network, self.kernel, layers=[network.depth]).mean_kernel[0]
        variances = jnp.diagonal(last)
        output = network.read_out(ko.Block(variances, variances, last)).cross
        samples, classes = self.targets.shape
        noisy = output + 0.01 * jnp.mean(jnp.diagonal(output)) * jnp.eye(samples)
        factor = jax.scipy.linalg.cho_factor(noisy, lower=True)
        solved = jax.scipy.linalg.cho_solve(factor, self.targets)
        amplitude = jnp.sum(self.targets * solved) / (samples * classes)
        log_determinant = 2 * jnp.mean(jnp.log(jnp.diagonal(factor[0])))
        return -classes / 2 * (1 + jnp.log(2 * jnp.pi * amplitude) + log_determinant)


def digits_posterior(inputs: int, strength: float) -> Posterior:
    images, labels = (np.asarray(array)[:inputs] for array in load_digits(return_X_y=True))
    kernel = ko.input_kernel(images)
    kernel = 0.05 * kernel / jnp.mean(jnp.diagonal(kernel))
    return Posterior(kernel, jnp.asarray(np.eye(10)[labels]), jnp.asarray(strength))


def by_hand(objective, network: ko.ResNet, optimiser, tolerance: float, max_steps: int):
    """The same search without `kernelode.optimise`: the objective after each step, and the network."""

    def place(logs):
        return eqx.tree_at(parameters, network, tuple(jnp.exp(logs)))

    @jax.jit
    def step(logs, state):
        cost, slope = jax.value_and_grad(lambda x: -objective(place(x)))(logs)
        updates, state = optimiser.update(slope, state, logs)
        return optax.apply_updates(logs, updates), state, -cost, jnp.max(jnp.abs(slope))

    logs = jnp.log(jnp.stack(parameters(network)))
    state, history = optimiser.init(logs), []
    for _ in range(max_steps):
        moved, state, value, slope = step(logs, state)
        history.append(float(value))
        if slope < tolerance:
            break
        logs = moved
    else:
        raise RuntimeError(f"No optimum within {max_steps} steps.")
    return place(logs), np.array(history)


def refusal(network: ko.ResNet, objective: Posterior) -> str:
    """What `optimise` says to a search that has no answer."""
    try:
        ko.optimise(ko.DiagonalResponse(objective.kernel), network, lambda n: parameters(n)[:2])
    except ValueError as error:
        return str(error)
    raise AssertionError("A search without an answer was not refused.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print where the searches end."""
    parser = argparse.ArgumentParser(description="A gradient search over rho, C_W and C_b.")
    parser.add_argument("--inputs", type=int, default=60, help="how many digits")
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--strength", type=float, default=0.1, help="of the prior; above zero")
    parser.add_argument("--figure", help="draw to this file")
    options = parser.parse_args(arguments)
    if not options.strength > 0:
        parser.error("--strength must be above zero: without a prior one direction is flat.")
    jax.config.update("jax_enable_x64", True)

    objective = digits_posterior(options.inputs, options.strength)
    rho, weight, bias = START
    network = ko.ResNet(
        ko.Erf(), options.depth, residual_scale=rho, weight_variance=weight, bias_variance=bias
    )
    adam = optax.adam(0.1)
    by_adam = ko.optimise(objective, network, parameters, optimiser=adam, tolerance=1e-6)
    bfgs = optx.BFGS(rtol=1e-9, atol=1e-9)
    by_bfgs = ko.optimise(objective, network, parameters, optimiser=bfgs)
    own, history = by_hand(objective, network, adam, tolerance=1e-6, max_steps=1000)

    print(f"{'search':22} {'steps':>5} {'objective':>12} {'rho':>11} {'C_W':>11} {'C_b':>11}")
    rows = {
        "start": (network, 0, objective(network)),
        "optimise, Adam": (by_adam.network, int(by_adam.steps), by_adam.value),
        "optimise, BFGS": (by_bfgs.network, int(by_bfgs.steps), by_bfgs.value),
        "by hand, Adam": (own, len(history), history[-1]),
    }
    for name, (found, steps, value) in rows.items():
        numbers = " ".join(f"{float(x):11.8f}" for x in parameters(found))
        print(f"{name:22} {steps:5} {float(value):12.8f} {numbers}")
    moved = [float(jnp.log(x / start)) for x, start in zip(parameters(by_bfgs.network), START)]
    print(f"\nlog(rho/rho_0) = {moved[0]:.6f}, 2 log(C_W/C_W0) + 2 log(C_b/C_b0) = ", end="")
    print(f"{2 * (moved[1] + moved[2]):.6f}")
    print(f"\nA response alone, over rho and C_W:\n{textwrap.fill(refusal(network, objective), 96)}")
    if options.figure:
        draw(by_adam, by_bfgs, history, options.figure)


def draw(by_adam: ko.Optimum, by_bfgs: ko.Optimum, history, path: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8, 3.2), layout="constrained")
    axes = figure.subplots()
    best = float(by_bfgs.value)
    # The last point is the reference itself.
    missing = lambda values: np.maximum(best - np.asarray(values), 1e-16)
    axes.plot(missing(by_adam.history[: by_adam.steps]), "-", color="#0072B2", label="optimise, Adam")
    axes.plot(missing(history), ":", color="#000000", label="by hand, Adam")
    steps = int(by_bfgs.steps)
    axes.plot(missing(by_bfgs.history[:steps]), "--", color="#D55E00", label="optimise, BFGS")
    axes.set(yscale="log", xlabel="step", ylabel="objective below its maximum")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
