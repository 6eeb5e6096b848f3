"""What the truncation of the Wick tower leaves out: its bound against the truth, in random draws."""

import functools
import itertools
import math
import zlib

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernelode as ko
from kernelode._closure.wick_tower_pairs import WickTowerPairs
from kernelode._expectation.quadruples import quadruple_moments, quadruples

from .helpers import TOWER_ACTIVATIONS as ACTIVATIONS
from .tower_reference import Network, pair_tower, single_tower

FOUR = 2 * jnp.array(
    [[1, 0.9, 0.8, 0.1], [0.9, 1, 0.85, 0.2], [0.8, 0.85, 1.2, -0.3], [0.1, 0.2, -0.3, 0.9]]
)
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

    # One after the other: `vmap` would trace all of it once more.
    return eqx.filter_jit(lambda *cases: jax.lax.map(lambda case: one(*case), cases))


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
        self.ratios: dict[str, list[float]] = {}
        self.count: dict[str, int] = {}
        self.failed: list = []

    def add(self, kind, found, expected, bound, size, unsure, label):
        """An error below 1e-9 of `size` is rounding and quadrature; a reference has to have converged to
        a tenth of the bound."""
        error = abs(found - expected)
        if unsure > 0.1 * bound + 1e-10 * size:
            return
        self.count[kind] = self.count.get(kind, 0) + 1
        if error > 1e-9 * size:
            self.ratios.setdefault(kind, []).append(bound / error)
        if error > bound + 1e-9 * size + unsure:
            self.failed.append((kind, label, error, bound, size))

    def check(self, share: float, median: float):
        """The bounds hold but for a `share` of the numbers, and are within `median` of the error."""
        checked = sum(self.count.values())
        assert checked and len(self.failed) <= share * checked, self.failed
        for kind, ratios in self.ratios.items():
            if len(ratios) > 5:
                lowest, middle, high = np.quantile(ratios, [0, 0.5, 0.9])
                print(f"{kind:14s} {len(ratios):5d} {lowest:8.3f} {middle:8.2f} {high:8.1f}")
                assert middle < median, kind


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
                    value = found.mean_correction[i, 0, 0, 0]
                    bound = found.correction_truncation[i, 0, 0, 0]
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
                        f"{kinked}{prefix}K1",
                        value,
                        expected,
                        bound,
                        norm[1],
                        abs(expected - below),
                        label,
                    )


def test_bound_of_one_input():
    tally = Tally()
    single_draws(tally, ["tanh"], [(5, 16, "gaussian")], 6)
    tally.check(share=0, median=4)


def test_bound_of_a_pair():
    tally = Tally()
    pair_draws(tally, ["gelu"], [(3, 8, "gaussian")], 4, orders=(40, 32))
    tally.check(share=0, median=20)


@pytest.mark.slow
def test_bounds_of_single_inputs():
    tally = Tally()
    shapes = [(1, 8, "gaussian"), (5, 16, "gaussian"), (20, 24, "fixed_gram"), (50, 8, "gaussian")]
    single_draws(tally, ACTIVATIONS, shapes, 6)
    tally.check(share=0.01, median=4)


@pytest.mark.slow
def test_bounds_of_pairs():
    # The reference has no rule for the kinks of hard tanh in two dimensions.
    tally = Tally()
    names = [name for name in ACTIVATIONS if name not in ("hard_tanh", "leaky")]
    shapes = [(2, 12, "fixed_gram"), (4, 8, "gaussian"), (8, 16, "gaussian")]
    pair_draws(tally, names, shapes, 6)
    tally.check(share=0.01, median=25)


@pytest.mark.slow
def test_bounds_of_deep_pairs():
    tally = Tally()
    pair_draws(tally, ["tanh", "erf", "softplus"], [(50, 24, "gaussian")], 3)
    tally.check(share=0.01, median=25)


def test_read_out_of_a_saturating_activation():
    # One more push, whose own noise is most of it: the kept degrees alone are a third too small.
    scales = np.ones(10)
    network = Network("erf", scales, 1.2, 0.0, scales, np.ones(11), (1.2, 0.0))
    kernel = 1.4 * np.array([[1.0, 0.5], [0.5, 1.0]])
    found = solved([(network, kernel)], "erf", 10, 16, "gaussian", 2)[1].kernel_covariance[0, 0, 0, 1]
    expected, kept = pair_tower(network, kernel, 48)["out_V4"]
    low = pair_tower(network, kernel, 16)["out_V4"][1]
    assert np.max(np.abs(low / expected - 1)) > 0.3
    assert np.max(np.abs(found / expected - 1)) < 3e-3
    assert np.max(np.abs(kept / expected - 1)) > 0.01


def test_false_convergence_is_reported():
    # The chaos of sin 3x at variance one begins beyond order 8: nothing changes from order 4 to 8.
    scales = np.full(10, math.sqrt(0.016))
    network = Network("sin3", scales, 1.5, 0.0, np.ones(10), np.ones(11), (1.5, 0.0))
    low, found = (solved([(network, np.eye(2))], "sin3", 10, order, "gaussian", 1)[0] for order in (4, 8))
    value = lambda x: float(x.kernel_covariance.ravel()[0])
    expected = single_tower(network, 1.0)
    error = abs(value(found) - expected["V4"])
    assert abs(value(found) - value(low)) < 0.1 * error
    assert error < found.covariance_truncation.ravel()[0] < 30 * error
    error = abs(float(found.mean_correction.ravel()[0]) - expected["K1"])
    assert error < found.correction_truncation.ravel()[0] < 30 * error


@pytest.mark.slow
def test_bound_of_all_elements():
    # Against a higher order, elements of four inputs too.
    for activation in (ko.Erf(), ko.ReLU()):
        net = ko.ResNet(activation, 5, residual_scale=0.6, weight_variance=1.5, bias_variance=0.1)
        low, high = (
            ko.propagate(net, FOUR, closure=ko.WickTower(order), layers=[5]) for order in (8, 36)
        )
        for name in ("moments", "read_out"):
            x, y = getattr(low, name), getattr(high, name)
            error = jnp.abs(x.kernel_covariance - y.kernel_covariance)
            assert jnp.all(error <= x.covariance_truncation + y.covariance_truncation + 1e-10)
            error = jnp.abs(x.mean_correction - y.mean_correction)
            assert jnp.all(error <= x.correction_truncation + y.correction_truncation + 1e-10)


def of_sines(kernel, found):
    """E[sin sin sin sin], as products of exponentials."""
    signs = np.array(list(itertools.product((1.0, -1.0), repeat=4)))
    expected = []
    for index in [(a, a, b, c) for a, b, c in found.triples] + list(map(tuple, found.fours)):
        waves = np.zeros((16, 4))
        for column, i in zip(signs.T, index):
            waves[:, i] += column
        exponents = jnp.einsum("si,ij,sj->s", waves, kernel, waves) / 2
        expected.append(jnp.sum(np.prod(signs, axis=1) * jnp.exp(-exponents)) / 16)
    return jnp.stack(expected)


def test_moments_of_three_and_four_inputs():
    """Values and derivatives, also of kernels with equal, opposite and zero inputs."""
    found, along = quadruples(4), jnp.eye(4) + FOUR / 2
    values = lambda function: jax.jit(lambda k: jax.jvp(function, (k,), (along,)))
    ours = values(lambda k: quadruple_moments(ko.Sin(), k, found))
    exact = values(lambda k: of_sines(k, found))
    rows = [[0, 1, 2, 3], [0, 0, 2, 3], [0, 1, 2, 2], [1, 0, 0, 0], [0, 0, 0, 0]]
    signs = [[1, 1, 1, 1], [1, -1, 1, 1], [1, 1, 1, -1], [0, 1, 1, 1], [1, 0, 1, 1]]
    for row, sign in itertools.product(rows, signs):
        at, scale = np.array(row), jnp.asarray(sign, float)
        kernel = FOUR[at[:, None], at[None, :]] * scale[:, None] * scale[None, :]
        for x, y in zip(ours(kernel), exact(kernel)):
            assert jnp.max(jnp.abs(x - y)) < 1e-12
    parameter = lambda p: quadruple_moments(ko.Elementwise(lambda x: jnp.sin(p * x)), FOUR, found)
    scaled = lambda p: of_sines(p**2 * FOUR, found)
    ours, exact = (jax.jvp(function, (1.2,), (1.0,))[1] for function in (parameter, scaled))
    assert jnp.max(jnp.abs(ours - exact)) < 1e-9


def test_contraction_of_opposite_inputs():
    """Biases make two directions of one: the bound is the limit of nearly opposite inputs'."""
    net = ko.ResNet(ko.Softplus(), 4, residual_scale=0.6, weight_variance=1.5, bias_variance=0.1)

    def bounds(c):
        kernel = jnp.asarray([[0.8, c], [c, 0.8]])
        moments = ko.propagate_pairs(net, kernel, closure=ko.WickTower(6), layers=[4]).moments
        return jnp.append(moments.covariance_truncation[0, 0, 1], moments.correction_truncation[0, 0, 1])

    opposite, nearly = (jax.jit(bounds)(c) for c in (-0.8, -0.8 * (1 - 1e-8)))
    assert jnp.max(jnp.abs(nearly / opposite - 1)) < 1e-3


def order_of(solution) -> int:
    assert isinstance(solution.closure, ko.WickTower | WickTowerPairs)
    assert solution.closure.order is not None
    return solution.closure.order


@pytest.mark.slow
def test_order_from_a_tolerance():
    kernel = jnp.array([[1.0, 0.3, -0.2], [0.3, 0.8, 0.5], [-0.2, 0.5, 2.0]])
    net = ko.ResNet(ko.Tanh(), 8, residual_scale=0.4, weight_variance=1.5, bias_variance=0.1)
    found = ko.propagate_pairs(net, kernel, closure=ko.WickTower(tolerance=0.02), layers=[8])
    assert order_of(found) == 12
    worst = []
    x = np.arange(3)
    for moments in (found.moments, found.read_out):
        size = moments.kernel_covariance[..., x, x]
        worst.append(jnp.max(moments.covariance_truncation[..., x, x] / size))
        variances = jnp.diagonal(moments.mean_kernel[0])
        scale = jnp.sqrt(variances[:, None] * variances[None, :])
        worst.append(jnp.max(moments.correction_truncation[0] / scale))
    assert 0.006 < max(worst) < 0.02
    with pytest.raises(ValueError, match="No order up to 64 truncates the tower"):
        ko.propagate_pairs(net, kernel, closure=ko.WickTower(tolerance=1e-7))
    flow = ko.solve_pairs(net, kernel, [1.0], closure=ko.WickTower(tolerance=0.02))
    assert isinstance(flow.closure, WickTowerPairs)
    assert order_of(flow) == flow.closure.single_order
    alone = ko.propagate(net, kernel[:1, :1], closure=ko.WickTower(tolerance=1e-4), layers=[8])
    assert order_of(alone) == 8


def test_refused_tolerances():
    net, kernel = ko.ResNet(ko.Tanh(), 2, residual_scale=0.4), jnp.eye(2)
    for arguments in ({}, {"order": 8, "tolerance": 1e-3}):
        with pytest.raises(ValueError, match="either an `order` or a `tolerance`"):
            ko.WickTower(**arguments)
    with pytest.raises(ValueError, match="`tolerance` must be positive"):
        ko.WickTower(tolerance=-1.0)
    closure = ko.WickTower(tolerance=1e-3)
    for solve in (ko.propagate, ko.propagate_pairs):
        with pytest.raises(ValueError, match="it needs an `order`"):
            jax.jit(lambda k, s=solve: s(net, k, closure=closure).mean_kernel)(kernel)
