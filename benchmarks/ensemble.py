"""Finite networks by simulation: throughput, and what an error bar costs.

    python benchmarks/ensemble.py --output ensemble.json
    python benchmarks/ensemble.py --error-bars          # the error bar of K1 that the published run had

Throughput is networks x layers per second of one process on all its cores, for N inputs, width n, tanh
and float32, beside two loops that a researcher would write: the block law (empirical covariance, Cholesky
factor, normals) in torch, and as a JAX scan. Torch is optional. Parts of a layer are timed by
themselves too, to see what bounds it.

The error bars are those of K1[00] at n = 64 for tanh, C_W = 2, K^0 = 2, t = 2 in 800 layers: the setting
of arXiv:2604.15742, whose 5e6 networks have a standard error of 0.025.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import kernelode as ko
from kernelode import ensemble as en
from kernelode.ensemble._factor import apply_factor, row_factor
from kernelode.ensemble._normals import standard_normals

WEIGHT_VARIANCE = 2.0
PUBLISHED_ERROR = 0.025


def input_kernel(inputs: int) -> np.ndarray:
    """Variance 2 and correlation 0.3."""
    return 2 * (0.3 + 0.7 * np.eye(inputs, dtype=np.float32))


def network(depth: int) -> ko.ResNet:
    """t = 2."""
    return ko.ResNet(
        ko.Tanh(), depth, residual_scale=math.sqrt(2 / depth), weight_variance=WEIGHT_VARIANCE
    )


def jax_scan(inputs: int, width: int, depth: int, batch: int) -> Callable[[int], Any]:
    """The loop as one writes it in JAX."""
    rho = math.sqrt(2 / depth)
    jitter = 1e-6 * jnp.eye(inputs)

    @jax.jit
    def run(key):
        def step(h, key):
            sigma = jnp.tanh(h)
            covariance = WEIGHT_VARIANCE / width * jnp.einsum("bai,bci->bac", sigma, sigma)
            factor = jnp.linalg.cholesky(covariance + jitter)
            z = jr.normal(key, h.shape)
            return h + rho * jnp.einsum("bac,bci->bai", factor, z), None

        first, rest = jr.split(key)
        root = jnp.linalg.cholesky(jnp.asarray(input_kernel(inputs)))
        h = jnp.einsum("ac,bci->bai", root, jr.normal(first, (batch, inputs, width)))
        h, _ = jax.lax.scan(step, h, jr.split(rest, depth))
        return jnp.einsum("bai,bci->bac", h, h) / width

    return lambda seed: jax.block_until_ready(run(jr.key(seed)))


def torch_loop(inputs: int, width: int, depth: int, batch: int) -> Callable[[int], Any] | None:
    """The loop as one writes it in torch; None where that is not installed."""
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    rho = math.sqrt(2 / depth)
    root = torch.linalg.cholesky(torch.from_numpy(input_kernel(inputs)))
    jitter = 1e-6 * torch.eye(inputs)

    @torch.no_grad()
    def run(seed):
        torch.manual_seed(seed)
        h = root @ torch.randn(batch, inputs, width)
        for _ in range(depth):
            sigma = torch.tanh(h)
            covariance = WEIGHT_VARIANCE / width * sigma @ sigma.mT
            factor = torch.linalg.cholesky(covariance + jitter)
            h = h + rho * factor @ torch.randn(batch, inputs, width)
        return h @ h.mT / width

    return run


def rate(run: Callable[[int], Any], work: float, repeats: int) -> float:
    """`work` over the median seconds of a call, after a first one that does not count."""
    run(0)
    seconds = []
    for seed in range(1, repeats + 1):
        start = time.perf_counter()
        run(seed)
        seconds.append(time.perf_counter() - start)
    return work / statistics.median(seconds)


def sampling_rate(inputs: int, width: int, depth: int, repeats: int, **options) -> float:
    """Of `sample`: networks x layers a second between the second report of progress and the last."""
    times: list[tuple[float, int]] = []
    en.sample(
        network(depth),
        input_kernel(inputs),
        width=width,
        key=jr.key(0),
        samples=options["batch"] * (repeats + 3),
        progress=lambda done: times.append((time.perf_counter(), done)),
        **options,
    )
    (start, before), (end, after) = times[1], times[-1]
    return (after - before) * depth / (end - start)


def parts_of_a_layer(inputs: int, width: int, batch: int, repeats: int) -> dict[str, float]:
    """Layers per second if they consisted of one part alone."""
    steps = 100

    def scan(step):
        @jax.jit
        def run(key):
            body = lambda h, i: (step(h, jr.fold_in(key, i)), None)
            return jax.lax.scan(body, jr.normal(key, (inputs, batch, width)), jnp.arange(steps))[0]

        return lambda seed: jax.block_until_ready(run(jr.key(seed)))

    shape = (inputs, batch, width)
    factor = lambda h: row_factor(jnp.tanh(h), jnp.float32(0.0))[0]
    parts = {
        "random numbers (jax.random.normal)": lambda h, key: h + jr.normal(key, shape),
        "random numbers (ours)": lambda h, key: h + standard_normals(key, shape, jnp.float32),
        "tanh, factor and product": lambda h, key: h + 0.1 * apply_factor(factor(h), h),
        "tanh alone": lambda h, key: 1.1 * jnp.tanh(h),
    }
    return {name: rate(scan(step), batch * steps, repeats) for name, step in parts.items()}


def throughput(arguments: argparse.Namespace) -> dict[str, float]:
    """Networks x layers a second, by who draws them."""
    sizes = arguments.inputs, arguments.width, arguments.depth
    repeats, batch = arguments.repeats, arguments.batch
    work = batch * arguments.depth
    rows = {}
    loop = torch_loop(*sizes, batch)
    if loop is not None:
        rows["torch loop"] = rate(loop, work, repeats)
    rows["plain JAX scan"] = rate(jax_scan(*sizes, batch), work, repeats)
    rows["sample, raw"] = sampling_rate(*sizes, repeats, control=False, batch=batch)
    rows["sample, with control variates"] = sampling_rate(*sizes, repeats, batch=batch)
    real = {"sampler": en.RealWeights(), "batch": 16}
    rows["sample, real weights"] = sampling_rate(*sizes, repeats, **real)
    rows |= parts_of_a_layer(arguments.inputs, arguments.width, batch, repeats)
    return rows


def error_bars(samples: int) -> list[dict[str, Any]]:
    """Networks and seconds for the published standard error of K1[00], raw and controlled."""

    def measure(name: str, controlled: bool) -> dict[str, Any]:
        marks: list[tuple[float, int]] = []
        found = en.sample(
            network(800),
            input_kernel(1),
            width=64,
            key=jr.key(1),
            samples=samples,
            control=controlled,
            batch=512,
            progress=lambda done: marks.append((time.perf_counter(), done)),
        )
        (start, before), (end, after) = marks[0], marks[-1]
        measured = found.mean_correction
        error = float(measured.standard_error[0, 0, 0])
        needed = found.samples * (error / PUBLISHED_ERROR) ** 2
        seconds = needed * (end - start) / (after - before)
        return {
            "estimator": name,
            "samples": found.samples,
            "K1": float(measured.value[0, 0, 0]),
            "standard_error": error,
            "samples_needed": needed,
            "seconds_needed": seconds,
        }

    return [measure("raw", False), measure("controlled", True)]


def main() -> None:
    parser = argparse.ArgumentParser(description="Throughput of ensembles, and the cost of error bars.")
    parser.add_argument("--inputs", type=int, default=4)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--depth", type=int, default=200)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--error-bars", action="store_true", help="the error bar of K1 as well")
    parser.add_argument("--samples", type=int, default=32_768, help="networks for the error bars")
    parser.add_argument("--output", help="write the measurements as JSON to this file")
    arguments = parser.parse_args()

    device = jax.devices()[0].device_kind
    print(
        f"N = {arguments.inputs}, n = {arguments.width}, L = {arguments.depth}, float32, {device}, "
        f"jax {jax.__version__}\n{'':<40}{'networks x layers / s':>24}"
    )
    rows = throughput(arguments)
    for name, value in rows.items():
        print(f"{name:<40}{value:>24.3g}", flush=True)
    bars = []
    if arguments.error_bars:
        bars = error_bars(arguments.samples)
        print(f"\nK1[00] of 800 layers at n = 64, to a standard error of {PUBLISHED_ERROR}:")
        for row in bars:
            print(
                f"{row['estimator']:<12}{row['K1']:>9.4f} +- {row['standard_error']:.4f} from "
                f"{row['samples']:,} networks: {row['samples_needed']:>12,.0f} networks, "
                f"{row['seconds_needed']:,.1f} s needed"
            )
    if arguments.output:
        record = {"jax": jax.__version__, "device": device, "throughput": rows, "error_bars": bars}
        with open(arguments.output, "w", encoding="utf-8") as file:
            json.dump(record, file, indent=1)


if __name__ == "__main__":
    main()
