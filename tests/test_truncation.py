"""What the truncation of the Wick tower leaves out: the bound of it against the truth, in random draws."""

import functools
import math
import zlib

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernelode as ko

from .tower_reference import Network, pair_tower, single_tower

ACTIVATIONS = {
    "tanh": ko.Tanh(),
    "erf": ko.Erf(),
    "gelu": ko.GELU(),
    "softplus": ko.Softplus(),
    "swish": ko.Swish(),
    "sin": ko.Sin(),
    "sin3": ko.Elementwise(lambda x: jnp.sin(3 * x)),
    "sinus": ko.Elementwise(lambda x: x + jnp.sin(3 * x)),
    "bump": ko.Elementwise(lambda x: x * jnp.exp(-(x**2) / 2)),
    "square": ko.Polynomial([0.0, 1.0, 0.25]),
    "relu": ko.ReLU(),
    "leaky": ko.LeakyReLU(0.2),
    "hard_tanh": ko.Elementwise(lambda x: jnp.clip(x, -1, 1), (-1.0, 1.0)),
}
STARTS = {"gaussian": ko.GaussianRows(), "fixed_gram": ko.FixedGram()}


def draw(rng, name: str, depth: int, start: str) -> tuple[Network, np.ndarray]:
    """A residual network, and the kernel of a pair."""
    tame = name == "square"  # two layers more would square the variance twice
    spread = (math.log(0.1), math.log(2.0 if tame else 20.0))
    total = rng.uniform(0.2, 0.5 if tame else min(2.5, depth))
    skip = 1.0 if rng.uniform() < 0.6 else rng.uniform(0.8, 1.0)
    network = Network(
        name,
        np.full(depth, math.sqrt(total / depth)),
        rng.uniform(0.8, 2.2),
        rng.choice([0.0, 0.1]),
        np.full(depth, skip),
        np.ones(depth + 1),
        (rng.uniform(0.8, 2.2), 0.1),
        start,
    )
    qa, qb = np.exp(rng.uniform(*spread, 2))
    corr = math.tanh(rng.uniform(-1.8, 3.8)) if rng.uniform() < 0.8 else rng.choice([0.999, -0.9])
    c = corr * math.sqrt(qa * qb)
    return network, np.array([[qa, c], [c, qb]])


@functools.cache
def solver(name: str, depth: int, order: int, start: str, inputs: int):
    """The last layer's moments and the read-out's, for a batch of networks."""
    closure = ko.WickTower(order, start=STARTS[start], single_order=order)

    def one(scale, skip, variances, kernel):
        network = ko.ResNet(
            ACTIVATIONS[name],
            depth,
            residual_scale=scale,
            skip_scale=skip,
            weight_variance=variances[0],
            bias_variance=variances[1],
            output_weight_variance=variances[2],
            output_bias_variance=variances[3],
        )
        kernel = kernel[:inputs, :inputs]
        solution = ko.propagate_pairs(network, kernel, closure=closure, layers=[depth], throw=False)
        return solution.moments, solution.read_out

    return eqx.filter_jit(jax.vmap(one))


def solved(cases, name, depth, order, start, inputs):
    networks, kernels = zip(*cases)
    arguments = (
        [n.scales[0] for n in networks],
        [n.skips[0] for n in networks],
        [[n.weight_variance, n.bias_variance, *n.output] for n in networks],
        kernels,
    )
    found = solver(name, depth, order, start, inputs)(*(jnp.asarray(np.array(x)) for x in arguments))
    return jax.tree.map(np.asarray, found)


class Tally:
    """How often a bound holds, and how much larger than the error it is."""

    def __init__(self):
        self.ratios = {}
        self.failed = []

    def add(self, kind, found, expected, bound, size, unsure, label):
        """An error below 1e-9 of `size` is rounding and quadrature; a reference has to have converged to
        a tenth of the bound."""
        error = abs(found - expected)
        if unsure > 0.1 * bound + 1e-10 * size:
            return
        self.ratios.setdefault(kind, [])
        if error > 1e-9 * size:
            self.ratios[kind].append(bound / error)
        if error > bound + 1e-9 * size + unsure:
            self.failed.append((kind, label, error, bound, size))

    def check(self):
        for kind, ratios in self.ratios.items():
            ratios = np.array(ratios)
            if len(ratios):
                quantiles = np.quantile(ratios, [0.5, 0.9])
                print(f"{kind:14s} {len(ratios):5d} {ratios.min():8.3f} {quantiles[0]:8.2f} {quantiles[1]:8.1f}")
        for failure in self.failed:
            print(failure)


def single_draws(tally, names, shapes, count):
    for name in names:
        for depth, order, start in shapes:
            rng = np.random.default_rng(zlib.crc32(f"{name} {depth} {order}".encode()))
            cases = [draw(rng, name, depth, start) for _ in range(count)]
            moments, out = solved(cases, name, depth, order, start, 1)
            for i, (network, kernel) in enumerate(cases):
                q = kernel[0, 0]
                true, lower = (single_tower(network, q, p) for p in (240, 200))
                k, k_out = moments.mean_kernel[i, 0, 0, 0], out.mean_kernel[i, 0, 0, 0]
                label = (name, depth, order, start, q)
                for kind, found, size in (("V4", moments, k), ("out_V4", out, k_out)):
                    value = found.kernel_covariance[i].ravel()[0]
                    bound = found.covariance_truncation[i].ravel()[0]
                    unsure = abs(true[kind] - lower[kind])
                    tally.add(kind, value, true[kind], bound, size**2, unsure, label)
                for kind, found, size in (("K1", moments, k), ("out_K1", out, k_out)):
                    value, bound = (x.ravel()[0] for x in (found.mean_correction[i], found.correction_truncation[i]))
                    unsure = abs(true[kind] - lower[kind])
                    tally.add(kind, value, true[kind], bound, size, unsure, label)


def pair_draws(tally, names, shapes, count, orders=(56, 44)):
    for name in names:
        for depth, order, start in shapes:
            rng = np.random.default_rng(zlib.crc32(f"{name} {depth} {order} pair".encode()))
            cases = [draw(rng, name, depth, start) for _ in range(count)]
            moments, out = solved(cases, name, depth, order, start, 2)
            for i, (network, kernel) in enumerate(cases):
                true, lower = (pair_tower(network, kernel, p) for p in orders)
                label = (name, depth, order, start, kernel.tolist())
                for prefix, found in (("", moments), ("out_", out)):
                    k = found.mean_kernel[i, 0]
                    norm = np.sqrt(np.array([k[0, 0] ** 2, k[0, 0] * k[1, 1], k[1, 1] ** 2]))
                    expected, below = (x[prefix + "V4"][0] for x in (true, lower))
                    for x, y in ((0, 0), (0, 1), (0, 2), (1, 1), (2, 2)):
                        value = found.kernel_covariance[i, 0, 0, 1, x, y]
                        bound = found.covariance_truncation[i, 0, 0, 1, x, y]
                        unsure = abs(expected[x, y] - below[x, y])
                        size = norm[x] * norm[y]
                        tally.add(f"{prefix}V4{x}{y}", value, expected[x, y], bound, size, unsure, label)
                    expected, below = (x[prefix + "K1"][0][1] for x in (true, lower))
                    value = found.mean_correction[i, 0, 0, 1]
                    bound = found.correction_truncation[i, 0, 0, 1]
                    kinked = "kinked " if name in ("relu", "leaky", "hard_tanh") else ""
                    tally.add(
                        f"{kinked}{prefix}K1", value, expected, bound, norm[1], abs(expected - below), label
                    )
