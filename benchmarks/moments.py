"""Time to the moments of order 1/n: cost against the number of inputs and the order of the tower.

The published setting (tanh, C_W = 2, t = 2, inputs of variance 2 and correlation 0.3; relative tolerance
1e-6, as accurate as the theory is of use). First calls trace, compile and run; later ones are the best
of several. The authors' code took 549 s for four inputs.

    python benchmarks/moments.py --output moments.json
"""

import argparse
import json
import platform
import resource
import time
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp

import kernelode as ko

TS = (0.5, 1.0, 1.5, 2.0)


def kernel(n: int):
    return 2 * (0.3 * jnp.ones((n, n)) + 0.7 * jnp.eye(n))


def controller():
    return diffrax.PIDController(rtol=1e-6, atol=1e-6)


def network(weight_variance=2.0) -> ko.ResNet:
    return ko.ResNet(ko.Tanh(), 1, weight_variance=weight_variance, bias_variance=0.0)


def moments(closure):
    def run(weight_variance, kernel):
        solution = ko.solve_pairs(
            network(weight_variance),
            kernel,
            jnp.array(TS),
            closure=closure,
            stepsize_controller=controller(),
            adjoint=diffrax.ForwardMode(),
        )
        return solution.state

    return run


def directional(closure):
    run = moments(closure)

    def derivative(weight_variance, kernel):
        along = lambda c: run(c, kernel)
        return eqx.filter_jvp(along, (weight_variance,), (jnp.ones_like(weight_variance),))

    return derivative


def measure(function, n: int, repeats: int) -> dict[str, float]:
    compiled = eqx.filter_jit(function)
    arguments = (jnp.asarray(2.0), kernel(n))
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        jax.block_until_ready(eqx.filter(compiled(*arguments), eqx.is_array))
        seconds.append(time.perf_counter() - start)
    return {"first_s": seconds[0], "later_ms": 1e3 * min(seconds[1:])}


CASES: list[tuple[str, Any, int]] = [
    ("GOnly", moments(ko.GOnly()), 4),
    ("WickTower(24)", moments(ko.WickTower(24)), 4),
    ("GOnly, jvp in C_W", directional(ko.GOnly()), 4),
    ("WickTower(16), jvp in C_W", directional(ko.WickTower(16)), 4),
    ("WickTower(16)", moments(ko.WickTower(16)), 20),
    ("WickTower(8)", moments(ko.WickTower(8)), 100),
    ("GOnly", moments(ko.GOnly()), 200),
]


def draw(rows: list[dict], path: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 2.9), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    order = lambda name: int(name.removeprefix("WickTower(").removesuffix(")"))
    plain = [row for row in rows if row["closure"].startswith("Wick") and "jvp" not in row["closure"]]
    points = [(order(row["closure"]), row["inputs"], row["later_ms"]) for row in plain]
    by_order = sorted((p, ms) for p, n, ms in points if n == 20)
    by_inputs = sorted((n, ms) for p, n, ms in points if p == 16)
    panels = (left, by_order, "order P, 20 inputs"), (right, by_inputs, "inputs, P = 16")
    for axes, line, label in panels:
        axes.loglog(*zip(*line), "o-", color="#0072B2")
        axes.set_xlabel(label)
        axes.set_xticks([x for x, _ in line], [str(x) for x, _ in line])
        axes.minorticks_off()
    left.set_ylabel("time of a later call [ms]")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sweep", action="store_true", help="also cost against order and inputs")
    parser.add_argument("--large", action="store_true", help="also 1000 inputs, for a GPU")
    parser.add_argument("--figure", help="draw the sweep to this file")
    parser.add_argument("--output", help="write the measurements as JSON to this file")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)

    cases = list(CASES)
    if options.sweep:
        cases += [(f"WickTower({p})", moments(ko.WickTower(p)), 20) for p in (4, 8, 12, 24, 32)]
        cases += [("WickTower(16)", moments(ko.WickTower(16)), n) for n in (2, 10, 50)]
    if options.large:
        cases += [
            ("GOnly", moments(ko.GOnly()), 1000),
            ("WickTower(16)", moments(ko.WickTower(16)), 1000),
        ]
    device = jax.devices()[0].device_kind
    print(f"float64, {device}, python {platform.python_version()}, jax {jax.__version__}")
    print(f"{'closure':28s} {'inputs':>6s} {'first call':>11s} {'later':>11s} {'peak memory':>12s}")
    rows = []
    for name, function, n in cases:
        found = measure(function, n, options.repeats if n < 100 else 2)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        rows.append({"closure": name, "inputs": n, "peak_gigabytes": peak, **found})
        cells = f"{found['first_s']:9.2f} s {found['later_ms']:8.1f} ms {peak:9.2f} GB"
        print(f"{name:28s} {n:6d} {cells}", flush=True)
    if options.figure:
        draw(rows, options.figure)
    if options.output:
        with open(options.output, "w") as file:
            json.dump({"jax": jax.__version__, "device": device, "measurements": rows}, file, indent=1)


if __name__ == "__main__":
    main()
