"""Mean kernels and responses beside neural-tangents: time to trace, to compile and to run.

    python benchmarks/against_neural_tangents.py --output against_neural_tangents.json
    python benchmarks/against_neural_tangents.py --inputs 20 --depths 10 --activations erf   # a minute

One case is a residual network (activation, depth L, inputs N) with residual scale 1/sqrt(L). Measured
are, in float64 and as one compiled function of the inputs x,

    kernel      the infinite-width kernel of the output: ours, and neural-tangents' NNGP of the
                same network;
    response    chi_out = dK_out/dK^0: ours alone, since neural-tangents starts from x, not from K^0.

For tanh, neural-tangents integrates by a Gauss-Hermite rule of `--degree` nodes a dimension, of
which it keeps the whole (degree, degree, N, N) grid; such cases are left out above `--nt-gigabytes`.
The `difference` of the two kernels, relative to the largest entry, stands beside the times: where it
is large, they are not times for the same thing.

All measurements of a case share one process, which is started for it: nothing is cached from another
case, and one that exceeds its time limit can be stopped. Wall time and the CPU time of the process
are both given; on a busy machine, trust the latter. Run times are medians, after a first run that
does not count.
"""

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import kernelode as ko

ACTIVATIONS = {"erf": ko.Erf, "tanh": ko.Tanh, "relu": ko.ReLU, "gelu": ko.GELU}
CLOSED_FORM_IN_STAX = {"erf", "relu", "gelu"}
FEATURES = 32
OURS, THEIRS = "kernelode", "neural-tangents"


class Case(NamedTuple):
    activation: str
    depth: int
    inputs: int
    degree: int
    repeats: int


def make_network(case: Case) -> ko.ResNet:
    return ko.ResNet(
        ACTIVATIONS[case.activation](),
        depth=case.depth,
        residual_scale=case.depth**-0.5,
        weight_variance=1.25,
        bias_variance=0.05,
    )


def our_kernel(net: ko.ResNet) -> Callable:
    def kernel(x):
        last = ko.propagate(net, net.read_in(x), layers=[net.depth], throw=False).mean_kernel[0]
        variance = jnp.diagonal(last)
        return net.read_out(ko.Block(variance, variance, last)).cross

    return kernel


def our_response(net: ko.ResNet) -> Callable:
    def response(x):
        chi = ko.response(net, net.read_in(x))
        return chi.diagonal, chi.off_diagonal

    return response


def their_kernel(net: ko.ResNet, degree: int) -> Callable:
    *_, kernel_fn = ko.baselines.stax_network(net, degree=degree)
    return lambda x: kernel_fn(x, None, "nngp")


def timed(function: Callable, *args) -> tuple[Any, dict[str, float]]:
    """The result, once it is there, with wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = jax.block_until_ready(function(*args))
    return result, {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def measure(function: Callable, x, repeats: int) -> tuple[Any, dict[str, Any]]:
    """The function's value at x; seconds to trace, to compile and (median) to run."""
    lowered, trace = timed(lambda: jax.jit(function).lower(x))
    compiled, compilation = timed(lowered.compile)
    value = jax.block_until_ready(compiled(x))
    runs = [timed(compiled, x)[1] for _ in range(repeats)]
    run = {clock: statistics.median(run[clock] for run in runs) for clock in ("wall", "cpu")}
    spread = {"fastest": min(run["wall"] for run in runs), "slowest": max(run["wall"] for run in runs)}
    return value, {"trace": trace, "compile": compilation, "run": run | spread}


def run_case(case: Case, with_neural_tangents: bool, report: Connection) -> None:
    """In a process of its own: sends one record after each measurement."""
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_enable_compilation_cache", False)
    warnings.filterwarnings("ignore", module="neural_tangents")  # in this process alone
    net = make_network(case)
    x = jax.random.normal(jax.random.key(0), (case.inputs, FEATURES))
    jax.block_until_ready(jax.jit(jnp.sin)(x))  # so that no measurement pays for starting the backend

    kernel, record = measure(our_kernel(net), x, case.repeats)
    report.send(record)
    _, record = measure(our_response(net), x, case.repeats)
    report.send(record)
    if with_neural_tangents:
        reference, record = measure(their_kernel(net, case.degree), x, case.repeats)
        difference = np.max(np.abs(kernel - reference)) / np.max(np.abs(reference))
        report.send(record | {"difference": float(difference)})


def records_of(case: Case, settings: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The case's measurements in turn; what did not finish has a `note` in place of times."""
    grid = 0 if case.activation in CLOSED_FORM_IN_STAX else 8e-9 * (case.degree * case.inputs) ** 2
    fits = grid <= settings.nt_gigabytes
    # Spawned, not forked: a fork of a process with JAX's threads can hang.
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=run_case, args=(case, fits, sender), daemon=True)
    process.start()
    sender.close()  # the child's end alone is left, so that its death is noticed
    measurements = [
        (OURS, "kernel", settings.seconds),
        (OURS, "response", settings.seconds),
        (THEIRS, "kernel", settings.nt_seconds),
    ]
    failure = None
    try:
        for library, quantity, limit in measurements:
            head = {"library": library, "quantity": quantity, **case._asdict()}
            if library == THEIRS and not fits:
                yield head | {"note": f"left out: a grid of {grid:.0f} GB"}
            elif failure is not None:
                yield head | {"note": f"not run: {failure}"}
            elif not receiver.poll(limit):
                failure = f"more than {limit:g} s"
                yield head | {"note": failure}
            else:
                try:
                    yield head | receiver.recv()
                except EOFError:
                    failure = "the process died"
                    yield head | {"note": failure}
    finally:
        process.kill()
        process.join()
        receiver.close()


COLUMNS = "{:>10} {:>5} {:>6}  {:<8}  {:<15}  {:>8} {:>8} {:>9} {:>9}  {}"


def row(record: dict[str, Any]) -> str:
    head = (record[key] for key in ("activation", "depth", "inputs", "quantity", "library"))
    if "note" in record:
        return COLUMNS.format(*head, "-", "-", "-", "-", record["note"])
    times = (f"{record[stage]['wall']:.2f}" for stage in ("trace", "compile"))
    run = (f"{1e3 * record['run'][clock]:.2f}" for clock in ("wall", "cpu"))
    difference = f"{record['difference']:.1e}" if "difference" in record else ""
    return COLUMNS.format(*head, *times, *run, difference)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, nargs="+", default=[20, 200, 1000])
    parser.add_argument("--depths", type=int, nargs="+", default=[10, 50, 200])
    parser.add_argument("--activations", nargs="+", choices=ACTIVATIONS, default=["erf", "tanh"])
    parser.add_argument("--degree", type=int, default=32, help="nodes of neural-tangents' quadrature")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs, of which the median")
    parser.add_argument(
        "--seconds", type=float, default=300, help="limit for each of ours, start included"
    )
    parser.add_argument("--nt-seconds", type=float, default=120, help="limit for each of theirs")
    parser.add_argument("--nt-gigabytes", type=float, default=4, help="largest quadrature grid of theirs")
    parser.add_argument("--output", help="write all measurements to this file, as JSON")
    return parser.parse_args()


def main() -> None:
    settings = parse()
    cases = [
        Case(activation, depth, inputs, settings.degree, settings.repeats)
        for activation in settings.activations
        for depth in settings.depths
        for inputs in settings.inputs
    ]
    environment = {
        "python": platform.python_version(),
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
        "dtype": "float64",
    }
    print(", ".join(f"{name} {value}" for name, value in environment.items()))
    header = ("trace s", "compile s", "run ms", "run CPU ms", "difference")
    print(COLUMNS.format("activation", "L", "N", "quantity", "library", *header))
    records = []
    for case in cases:
        for record in records_of(case, settings):
            records.append(record)
            print(row(record), flush=True)
        if settings.output:  # after every case, so that an interrupted run leaves what it has
            with open(settings.output, "w") as file:
                json.dump({"environment": environment, "records": records}, file, indent=1)


if __name__ == "__main__":
    main()
