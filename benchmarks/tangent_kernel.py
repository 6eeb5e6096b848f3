"""Tangent kernels: of infinite width beside neural-tangents, to order 1/n beside the Wick tower.

    python benchmarks/tangent_kernel.py --output tangent_kernel.json
    python benchmarks/tangent_kernel.py --quick                       # a minute

Every case is a process of its own, so that nothing is cached from another; float64. `first` is a first
call with tracing and compilation, `warm` the median of those that follow, wall and CPU seconds; on a busy
machine, trust the latter. Of infinite width both compute the output's NNGP and NTK from the inputs x, as
one compiled function; `ntk` is the sum of a corner of the NTK, to see that both agree. neural-tangents
unrolls the layers: above `--limit` of them it is left out.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

FEATURES = 32


def infinite(ours: bool, inputs: int, depth: int) -> Callable[[], Any]:
    """The kernels of an erf network's output."""
    import jax

    import kernelode as ko

    network = ko.ResNet(
        ko.Erf(), depth, residual_scale=depth**-0.5, weight_variance=1.25, bias_variance=0.05
    )
    x = jax.random.normal(jax.random.key(0), (inputs, FEATURES))

    def by_us(x):
        closure = ko.TangentKernel()
        solution = ko.propagate(network, network.read_in(x), closure=closure, layers=[depth], throw=False)
        return solution.read_out.mean_kernel[0], solution.read_out.tangent_kernel[0]

    def by_them(x):
        *_, kernel_fn = ko.baselines.stax_network(network)
        found = kernel_fn(x, None, ("nngp", "ntk"))
        return found.nngp, found.ntk

    compiled = jax.jit(by_us if ours else by_them)
    return lambda: compiled(x)


def tower(tangent: bool, kind: str) -> Callable[[], Any]:
    """Moments to order 1/n: of the kernel alone, or of the tangent kernel too."""
    import jax
    import jax.numpy as jnp

    import kernelode as ko

    of = ko.TangentTower if tangent else ko.WickTower
    x = lambda count: jax.random.normal(jax.random.key(0), (count, FEATURES))
    critical = dict(weight_variance=1.98305826, bias_variance=0.17292239)
    if kind == "pair, flow, order 24":
        network = ko.ResNet(ko.Tanh(), 1, weight_variance=1.5, bias_variance=0.2)
        kernel = jnp.array([[1.0, 0.3], [0.3, 0.8]])
        return lambda: ko.solve_pairs(network, kernel, 1.0, closure=of(24)).state
    if kind in ("4 inputs, GELU MLP, 4 layers", "10 inputs, GELU MLP, 4 layers"):
        network = ko.MLP(ko.GELU(), 4, **critical)
        kernel = network.read_in(x(int(kind.split()[0])))
        return lambda: ko.propagate_pairs(network, kernel, closure=of(24), layers=[4]).state
    network = ko.ResNet(ko.GELU(), 10, residual_scale=0.3, weight_variance=1.5, bias_variance=0.1)
    kernel = network.read_in(x(100))
    return lambda: ko.propagate_pairs(network, kernel, closure=of(8), layers=[10]).state


TOWERS = (
    "pair, flow, order 24",
    "4 inputs, GELU MLP, 4 layers",
    "10 inputs, GELU MLP, 4 layers",
    "100 inputs, GELU ResNet, 10 layers, order 8",
)


def cases(quick: bool, limit: int) -> dict[str, tuple[str, list[Any]]]:
    sizes = [(20, 10)] if quick else [(n, depth) for n in (20, 200, 1000) for depth in (10, 50, 200)]
    found: dict[str, tuple[str, list[Any]]] = {}
    for n, depth in sizes:
        for ours in (True, False):
            if ours or depth <= limit:
                name = f"NTK, N = {n}, L = {depth}, {'kernelode' if ours else 'neural-tangents'}"
                found[name] = ("infinite", [ours, n, depth])
    for kind in TOWERS[:3] if quick else TOWERS:
        for tangent in (False, True):
            found[f"{kind}, {'TangentTower' if tangent else 'WickTower'}"] = ("tower", [tangent, kind])
    return found


def measure(what: str, arguments: list[Any], repeats: int) -> dict[str, Any]:
    """Of a case, in a process of its own."""
    import jax

    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_enable_compilation_cache", False)
    import jax.numpy as jnp
    import numpy as np

    jax.block_until_ready(jax.jit(jnp.sin)(jnp.ones(2)))  # the backend has started
    run = {"infinite": infinite, "tower": tower}[what](*arguments)

    def once() -> tuple[float, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        jax.block_until_ready(jax.tree.leaves(run()))
        return time.perf_counter() - wall, time.process_time() - cpu

    first, warm = once(), [once() for _ in range(repeats)]
    middle = [statistics.median(x) for x in zip(*warm)]
    clocks = lambda x: dict(zip(("wall", "cpu"), x))
    ntk = float(np.sum(np.asarray(run()[1])[:2, :2])) if what == "infinite" else None
    return {"first": clocks(first), "warm": clocks(middle), "ntk": ntk}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--output", help="write the measurements as JSON to this file")
    parser.add_argument("--quick", action="store_true", help="a few small cases")
    parser.add_argument("--limit", type=int, default=50, help="layers of neural-tangents at the most")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--case", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        what, arguments = options.case
        print(json.dumps(measure(what, json.loads(arguments), options.repeats)))
        return
    records = {}
    for name, (what, arguments) in cases(options.quick, options.limit).items():
        command = [sys.executable, __file__, "--repeats", str(options.repeats)]
        command += ["--case", what, json.dumps(arguments)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            print(f"{name:62s} failed: {done.stderr.strip().splitlines()[-1][:80]}")
            continue
        records[name] = record = json.loads(done.stdout.splitlines()[-1])
        first, warm = record["first"], record["warm"]
        print(
            f"{name:62s} first {first['wall']:6.2f} s (cpu {first['cpu']:6.2f})   "
            f"warm {1e3 * warm['wall']:9.2f} ms (cpu {1e3 * warm['cpu']:9.2f})",
            flush=True,
        )
    if options.output:
        with open(options.output, "w") as file:
            json.dump({"machine": platform.processor(), "records": records}, file, indent=1)


if __name__ == "__main__":
    main()
