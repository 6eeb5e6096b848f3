"""Error against time of E[sigma sigma]: kernelode beside 32 and 64 nodes of Gauss-Hermite squared.

    python benchmarks/expectation_speed.py [--inputs 60] [--json benchmarks/expectation_speed.json]

All pairs of N inputs of equal variance and correlations between -0.9 and 0.9. The error is against
one-dimensional conditioning, E[sigma(x) sigma(y)] by two trapezoidal sums of 501 nodes, on a dozen pairs.
"""

import argparse
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from kernelode import GELU, Erf, Tanh
from kernelode._expectation import pair_moment

jax.config.update("jax_enable_x64", True)
ACTIVATIONS = {"tanh": Tanh(), "erf": Erf(), "gelu": GELU()}
VARIANCES = (0.1, 1.0, 5.0, 20.0)


def gauss_hermite(activation, count: int):
    """The field's habit: a product rule in the two standard normals of the Cholesky factor."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(count)
    weights = jnp.asarray(weights / weights.sum())
    u, v = jnp.asarray(nodes)[:, None], jnp.asarray(nodes)[None, :]

    def one(a, b, c):
        slope = c / jnp.sqrt(a)
        rest = jnp.sqrt(b - slope**2)
        return weights @ (activation(jnp.sqrt(a) * u) * activation(slope * u + rest * v)) @ weights

    def pairs(a, b, c):
        row = lambda entry: jax.vmap(one, (None, 0, 0))(entry[0], b, entry[1])
        return jax.lax.map(row, (a, c))

    return pairs


def reference(activation, a, b, c) -> float:
    z, step = np.linspace(-10, 10, 501, retstep=True)
    density = np.exp(-(z**2) / 2) * step / np.sqrt(2 * np.pi)
    slope = c / np.sqrt(a)
    x, y = np.sqrt(a) * z, slope * z[:, None] + np.sqrt(b - slope**2) * z[None, :]
    return float((density * np.asarray(activation(x))) @ np.asarray(activation(y)) @ density)


def timed(function, *arguments, repeats: int = 5) -> tuple[np.ndarray, float, float]:
    """Result, seconds of the first call, and seconds of the quickest of the following ones."""
    start = time.perf_counter()
    result = jax.block_until_ready(function(*arguments))
    first, later = time.perf_counter() - start, []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        later.append(time.perf_counter() - start)
    return np.asarray(result), first, min(later)


def main():
    parser = argparse.ArgumentParser(description="Error against time of E[sigma sigma].")
    parser.add_argument("--inputs", type=int, default=60)
    parser.add_argument("--json", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    count = arguments.inputs
    corr = np.random.default_rng(0).uniform(-0.9, 0.9, (count, count))
    rows = []
    print(f"{count} x {count} pairs\nactivation variance method             error     first s   later ms")
    for name, activation in ACTIVATIONS.items():
        methods = {
            "kernelode": lambda a, b, c, activation=activation: pair_moment(activation, a, b, c),
            "Gauss-Hermite 32^2": gauss_hermite(activation, 32),
            "Gauss-Hermite 64^2": gauss_hermite(activation, 64),
        }
        for method, function in methods.items():
            compiled = jax.jit(function)
            for variance in VARIANCES:
                q = np.full(count, variance)
                c = corr * variance
                value, first, later = timed(compiled, q, q, c, repeats=3)
                few = [(k % count, (7 * k) % count) for k in range(0, count, max(1, count // 12))]
                truth = [reference(activation, variance, variance, c[pair]) for pair in few]
                scale = reference(activation, variance, variance, (1 - 1e-15) * variance)
                error = max(abs(value[pair] - t) for pair, t in zip(few, truth)) / scale
                row = (name, variance, method, error, first, later)
                rows.append(
                    dict(zip(("activation", "variance", "method", "error", "first", "later"), row))
                )
                print(
                    f"{name:10s} {variance:8g} {method:18s} {error:9.1e} {first:9.2f} {1e3 * later:10.2f}"
                )
    arguments.json.write_text(json.dumps({"inputs": count, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
