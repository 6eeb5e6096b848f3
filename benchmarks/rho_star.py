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
from typing import NamedTuple

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


def digits_kernel(samples: int):
    """Kernel of handwritten digits with a mean diagonal of 0.05."""
    x = jnp.asarray(load_digits(return_X_y=True)[0][:samples])
    kernel = ko.input_kernel(x)
    return 0.05 * kernel / jnp.mean(jnp.diagonal(kernel))


class Case(NamedTuple):
    """A search, and the kernel or variances that it gets."""

    search: Callable[[ko.ResNet, jax.Array], object]
    kernel: jax.Array


def cases(batch: int) -> dict[str, Case]:
    """All that is measured, by name."""
    one, pair = jnp.array([[0.05]]), jnp.array([[0.05, 0.03], [0.03, 0.05]])
    diagonal = lambda search: lambda network, kernel: search(network, kernel, pairs=False)
    spread = jr.uniform(jr.key(0), (batch,), minval=0.01, maxval=0.11)
    return {
        "one input": Case(diagonal(ko.optimal_residual_scale), one),
        f"{batch:,} inputs": Case(many_diagonals, spread),
        "one pair": Case(ko.optimal_residual_scale, pair),
        "limit, one input": Case(diagonal(ko.optimal_flow_time), one),
        "limit, one pair": Case(ko.optimal_flow_time, pair),
        "20 digits, 190 pairs": Case(ko.optimal_residual_scale, digits_kernel(20)),
    }


def measure(case: Case, activation, depth: int, repeats: int) -> dict[str, float]:
    """Seconds of the first call, and the median of later ones, each with other numbers throughout."""

    def timed(factor: float) -> float:
        network = ko.ResNet(activation, depth, weight_variance=1.25 * factor, bias_variance=0.05 * factor)
        kernel = jax.block_until_ready(factor * case.kernel)
        start = time.perf_counter()
        jax.block_until_ready(case.search(network, kernel))
        return time.perf_counter() - start

    first = timed(1.0)
    later = [timed(1.0 + 1e-3 * (i + 1)) for i in range(repeats)]
    return {"first_s": first, "later_s": statistics.median(later)}


def main() -> None:
    parser = argparse.ArgumentParser(description="Time to the optimal residual scale.")
    parser.add_argument("--depth", type=int, default=50)
    parser.add_argument("--batch", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--output", help="write the measurements as JSON to this file")
    arguments = parser.parse_args()

    rows = []
    print(f"L = {arguments.depth}, float64, {jax.devices()[0].device_kind}, jax {jax.__version__}")
    print(f"{'activation':<12}{'case':<24}{'first call':>12}{'later':>14}")
    for activation in (ko.Erf(), ko.Tanh()):
        kind = type(activation).__name__
        for name, case in cases(arguments.batch).items():
            if kind == "Tanh" and "digits" in name:
                continue  # the same program as one pair, 63 times the work
            times = measure(case, activation, arguments.depth, arguments.repeats)
            row = {"activation": kind, "case": name, **times}
            rows.append(row)
            print(
                f"{kind:<12}{name:<24}{row['first_s']:>10.2f} s{1e3 * row['later_s']:>11.2f} ms",
                flush=True,
            )
    if arguments.output:
        with open(arguments.output, "w", encoding="utf-8") as file:
            json.dump({"depth": arguments.depth, "jax": jax.__version__, "rows": rows}, file, indent=1)


if __name__ == "__main__":
    main()
