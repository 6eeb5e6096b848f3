"""Time to the optimal residual scale: of one input, of a pair, of 10,000 inputs at once, and of digits.

Each case in one process: the first call (trace, compile, run), then the median of later calls with other
numbers, which must not compile again.

    python benchmarks/rho_star.py --output rho_star.json
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from sklearn.datasets import load_digits

import kernelode as ko

jax.config.update("jax_enable_x64", True)


@eqx.filter_jit
def many_diagonals(network: ko.ResNet, variances):
    """rho* of every variance, and its status: one vectorised search."""
    one = lambda q: ko.optimal_residual_scale(network, q.reshape(1, 1), pairs=False).diagonal
    return jax.vmap(one)(variances)


def digits_kernel(samples: int, factor: float):
    """Kernel of handwritten digits with a mean diagonal of 0.05, times `factor`."""
    x = jnp.asarray(load_digits(return_X_y=True)[0][:samples])
    kernel = ko.input_kernel(x)
    return factor * 0.05 * kernel / jnp.mean(jnp.diagonal(kernel))


def cases(activation, depth: int, batch: int) -> dict[str, Callable[[float], object]]:
    """Name to a function of a factor near one, which changes every number that enters."""

    def network(factor):
        return ko.ResNet(activation, depth, weight_variance=1.25 * factor, bias_variance=0.05 * factor)

    spread = jr.uniform(jr.key(0), (batch,), minval=0.01, maxval=0.11)
    pair = jnp.array([[0.05, 0.03], [0.03, 0.05]])
    return {
        "one input": lambda f: ko.optimal_residual_scale(
            network(f), f * jnp.array([[0.05]]), pairs=False
        ),
        f"{batch:,} inputs": lambda f: many_diagonals(network(f), f * spread),
        "one pair": lambda f: ko.optimal_residual_scale(network(f), f * pair),
        "limit, one input": lambda f: ko.optimal_flow_time(
            network(f), f * jnp.array([[0.05]]), pairs=False
        ),
        "limit, one pair": lambda f: ko.optimal_flow_time(network(f), f * pair),
        "20 digits, 190 pairs": lambda f: ko.optimal_residual_scale(network(f), digits_kernel(20, f)),
    }


def measure(function: Callable[[float], object], repeats: int) -> dict[str, float]:
    """Seconds of the first call, and the median of later ones."""

    def timed(factor: float) -> float:
        start = time.perf_counter()
        jax.block_until_ready(function(factor))
        return time.perf_counter() - start

    first = timed(1.0)
    later = [timed(1.0 + 1e-3 * (i + 1)) for i in range(repeats)]
    return {"first_s": first, "later_s": statistics.median(later)}


def main() -> None:
    parser = argparse.ArgumentParser(description="Time to the optimal residual scale.")
    parser.add_argument("--depth", type=int, default=50)
    parser.add_argument("--batch", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", help="write the measurements as JSON to this file")
    arguments = parser.parse_args()

    rows = []
    print(f"L = {arguments.depth}, float64, {jax.devices()[0].device_kind}, jax {jax.__version__}")
    print(f"{'activation':<12}{'case':<24}{'first call':>12}{'later':>14}")
    for activation in (ko.Erf(), ko.Tanh()):
        name = type(activation).__name__
        for case, function in cases(activation, arguments.depth, arguments.batch).items():
            if name == "Tanh" and "digits" in case:
                continue  # the same program as one pair, 63 times the work
            row = {"activation": name, "case": case, **measure(function, arguments.repeats)}
            rows.append(row)
            print(
                f"{name:<12}{case:<24}{row['first_s']:>10.2f} s{1e3 * row['later_s']:>11.2f} ms",
                flush=True,
            )
    if arguments.output:
        with open(arguments.output, "w", encoding="utf-8") as file:
            json.dump({"depth": arguments.depth, "jax": jax.__version__, "rows": rows}, file, indent=1)


if __name__ == "__main__":
    main()
