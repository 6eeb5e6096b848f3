"""What a user waits for at the first call: trace, compile and run, of every public entry point.

Two inputs, 50 blocks, float64. Every case is a process of its own: nothing is cached from another.

    python benchmarks/compile_time.py --output compile_time.json
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any


def cases() -> dict[str, Callable[[Any, Any, Any], Any]]:
    """Calls by name, of (kernelode, network, kernel)."""
    return {
        "propagate": lambda ko, net, k: ko.propagate(net, k),
        "solve": lambda ko, net, k: ko.solve(net, k, [1.0]),
        "response": lambda ko, net, k: ko.response(net, k),
        "layer_response": lambda ko, net, k: ko.layer_response(net, k),
        "response_flow": lambda ko, net, k: ko.response_flow(net, k, [1.0]),
        "optimal_residual_scale, inputs": lambda ko, net, k: ko.optimal_residual_scale(
            net, k, pairs=False
        ),
        "optimal_residual_scale": lambda ko, net, k: ko.optimal_residual_scale(net, k),
        "optimal_flow_time, inputs": lambda ko, net, k: ko.optimal_flow_time(net, k, pairs=False),
        "optimal_flow_time": lambda ko, net, k: ko.optimal_flow_time(net, k),
        "propagate_pairs, GOnly": lambda ko, net, k: ko.propagate_pairs(net, k, closure=ko.GOnly()),
        "propagate_pairs, WickTower(16)": lambda ko, net, k: ko.propagate_pairs(
            net, k, closure=ko.WickTower(16)
        ),
        "propagate, WickTower(16)": lambda ko, net, k: ko.propagate(net, k, closure=ko.WickTower(16)),
        "solve_pairs, GOnly": lambda ko, net, k: ko.solve_pairs(net, k, [1.0], closure=ko.GOnly()),
        "solve_pairs, WickTower(16)": lambda ko, net, k: ko.solve_pairs(
            net, k, [1.0], closure=ko.WickTower(16)
        ),
        "solve, WickTower(16)": lambda ko, net, k: ko.solve(net, k, [1.0], closure=ko.WickTower(16)),
        "response_correction": lambda ko, net, k: ko.response_correction(net, k),
        "residual_scale_correction": lambda ko, net, k: ko.residual_scale_correction(net, k),
        "source_mismatch": lambda ko, net, k: ko.source_mismatch(net, k, [1.0]),
        "closure_validity": lambda ko, net, k: ko.closure_validity(net, k, [100], 0.1),
    }


def measure(name: str, activation: str) -> float:
    """Seconds of a first call; import and start of JAX do not count."""
    import jax

    jax.config.update("jax_enable_x64", True)
    import equinox as eqx
    import jax.numpy as jnp

    import kernelode as ko

    kernel = jnp.array([[0.05, 0.03], [0.03, 0.05]])
    network = ko.ResNet(
        {"erf": ko.Erf(), "tanh": ko.Tanh()}[activation],
        50,
        residual_scale=0.2,
        weight_variance=1.25,
        bias_variance=0.05,
    )
    start = time.perf_counter()
    jax.block_until_ready(eqx.filter(cases()[name](ko, network, kernel), eqx.is_array))
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--output", help="write the measurements as JSON to this file")
    parser.add_argument("--case", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(measure(*options.case))
        return
    rows = {}
    print(f"python {platform.python_version()}, seconds\n{'':34s} {'erf':>7s} {'tanh':>7s}")
    for name in cases():
        seconds = []
        for activation in ("erf", "tanh"):
            command = [sys.executable, __file__, "--case", name, activation]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            seconds.append(float(done.stdout))
        rows[name] = dict(zip(("erf", "tanh"), seconds))
        print(f"{name:34s} {seconds[0]:7.1f} {seconds[1]:7.1f}", flush=True)
    if options.output:
        with open(options.output, "w") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
