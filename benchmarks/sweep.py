"""Sweeps: beside neural-tangents, and a million points.

    python benchmarks/sweep.py [--json sweep.json] [--points 1000000] [--no-baseline]

1. 100 values of rho at L = 50, erf, N = 20 and 200 inputs: the output kernels by jax.jit(jax.vmap(...))
   of ours, unchecked, and of neural-tangents, which checks nothing; and by `ko.sweep`, checked, whose
   result is a labelled Dataset. First call and run apart, in this one run; the kernels agree.
2. chi_out of one input over (rho, C_W, C_b) at L = 100, erf and tanh: points a second for several sizes
   of chunks, and the largest memory of the process.
"""

import argparse
import functools
import json
import os
import platform
import resource
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import kernelode as ko


def timed(function, repeat: int = 5):
    """The first call, the best of the next, and the result."""
    start = time.perf_counter()
    result = jax.block_until_ready(function())
    first = time.perf_counter() - start
    runs = []
    for _ in range(repeat):
        start = time.perf_counter()
        jax.block_until_ready(function())
        runs.append(time.perf_counter() - start)
    return first, min(runs), result


def against_neural_tangents(inputs: int, depth: int = 50, scales: int = 100) -> dict:
    """First call and run of both, in seconds."""
    x = jax.random.normal(jax.random.key(0), (inputs, 64))
    network = ko.ResNet(ko.Erf(), depth, weight_variance=1.25, bias_variance=0.05)
    network = eqx.tree_at(lambda n: n.input_weight_variance, network, jnp.asarray(0.05))
    rho = jnp.geomspace(0.05, 1.0, scales)

    def ours(net, x, throw=True):
        last = ko.propagate(net, net.read_in(x), layers=[depth], throw=throw).mean_kernel[-1]
        return net.read_out(ko.Block(jnp.diagonal(last), jnp.diagonal(last), last)).cross

    def theirs(net, x):
        *_, kernel_fn = ko.baselines.stax_network(net)
        return kernel_fn(x, None, "nngp")

    def vectorised(function):
        at = lambda scale, x: function(eqx.tree_at(lambda n: n.residual_scale, network, scale), x)
        compiled = jax.jit(jax.vmap(at, in_axes=(0, None)))
        return timed(lambda: compiled(rho, x))

    axes = {"residual_scale": ko.Axis(rho, lambda target: target[0].residual_scale)}
    of_target = lambda target: ours(*target)  # one function: another is compiled again
    found = {
        "vmap": vectorised(functools.partial(ours, throw=False)),
        "sweep": timed(lambda: ko.sweep(of_target, (network, x), axes)["value"].values),
        "neural_tangents": vectorised(theirs),
    }
    kernels = [np.asarray(kernel) for *_, kernel in found.values()]
    difference = max(float(np.max(np.abs(kernel - kernels[-1]))) for kernel in kernels)
    assert difference < 1e-9, difference
    return {name: times for name, (*times, _) in found.items()} | {
        "inputs": inputs,
        "difference": difference,
    }


def many_points(activation: ko.AbstractActivation, points: int, chunk: int | None) -> dict:
    """chi_out of one input over (rho, C_W, C_b)."""
    side = round(points ** (1 / 3))
    network = ko.ResNet(activation, 100)
    kernel = jnp.array([[0.05]])
    axes = {
        "residual_scale": np.geomspace(0.02, 2.0, side),
        "weight_variance": np.linspace(0.5, 2.0, side),
        "bias_variance": np.linspace(0.0, 0.3, side),
    }
    function = lambda net: ko.response(net, kernel).diagonal[0]
    first, run, _ = timed(lambda: ko.sweep(function, network, axes, chunk=chunk)["value"].values, 1)
    name = type(activation).__name__.lower()
    return {"activation": name, "points": side**3, "chunk": chunk, "first": first, "rate": side**3 / run}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json")
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--no-baseline", action="store_true")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    device = jax.devices()[0].device_kind
    print(f"JAX {jax.__version__}, {platform.machine()}, {os.cpu_count()} cores, {device}\n")

    million = [many_points(ko.Erf(), options.points, None)]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    million += [many_points(ko.Tanh(), options.points // 20, None)]
    for activation, points in ((ko.Erf(), options.points), (ko.Tanh(), options.points // 20)):
        million += [many_points(activation, points, chunk) for chunk in (64, 512, 4096, 16384)]
    print(f"{'':>6}{'points':>10}{'chunk':>9}{'first call':>12}{'points/s':>12}")
    for row in million:
        chunk = row["chunk"] or "default"
        print(
            f"{row['activation']:>6}{row['points']:>10,}{chunk:>9}{row['first']:>11.2f}s{row['rate']:>12,.0f}"
        )
    print(f"largest memory after the first: {memory:.2f} GiB\n")

    baseline = []
    if not options.no_baseline:
        print(f"{'inputs':>6}{'':>18}{'first call':>12}{'run':>10}{'ratios':>14}")
        for inputs in (20, 200):
            row = against_neural_tangents(inputs)
            baseline.append(row)
            first, run = row["neural_tangents"]
            for name in ("vmap", "sweep", "neural_tangents"):
                a, b = row[name]
                print(f"{inputs:>6}{name:>18}{a:>11.2f}s{b:>9.4f}s{first / a:>8.1f}{run / b:>6.1f}")
    if options.json:
        with open(options.json, "w") as file:
            json.dump(
                {"device": device, "million": million, "baseline": baseline, "memory": memory}, file
            )


if __name__ == "__main__":
    main()
