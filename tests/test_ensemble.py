"""Ensembles of finite networks: their law, their estimates and errors, and what may happen to a run."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings, strategies as st

import kernelode as ko
from kernelode import ensemble as en
from kernelode.ensemble._elements import elements_of
from kernelode.ensemble._factor import apply_factor, row_factor
from kernelode.ensemble._measured import jackknife
from kernelode.ensemble._normals import standard_normals
from kernelode.ensemble._reference import pair_integrals, reference_chain

from .helpers import each, pair_kernel, resnet

PAIR = pair_kernel(1.0, 0.8, 0.3)
KEY = jr.key(20)


def z_scores(measured: en.Measured, expected) -> np.ndarray:
    """Of every entry; zero where nothing varies and both agree to rounding."""
    error = measured.standard_error
    difference = measured.value - np.asarray(expected)
    exact = error < 1e-12
    assert np.all(np.abs(difference[exact]) < 1e-9)
    return np.where(exact, 0, difference / np.where(exact, 1, error))


def difference(first: en.Measured, second: en.Measured) -> en.Measured:
    """Of independent estimates."""
    scatter = np.concatenate([first.scatter, -second.scatter])
    return en.Measured(first.value - second.value, scatter)


# Building blocks.


@pytest.mark.parametrize("shape", [(3, 1000, 64), (200_001,)])
def test_normals_are_normal(shape):
    for dtype in (jnp.float32, jnp.float64):
        z = np.asarray(standard_normals(jr.key(3), shape, dtype), float).ravel()
        assert scipy.stats.kstest(z, "norm").pvalue > 1e-3
        assert len(np.unique(z)) > 0.98 * z.size
        assert abs(np.corrcoef(z[:-1], z[1:])[0, 1]) < 4 / math.sqrt(z.size)
    other = standard_normals(jr.key(4), shape, jnp.float32)
    assert abs(np.corrcoef(np.ravel(other), z)[0, 1]) < 4 / math.sqrt(z.size)


@given(st.integers(1, 5), st.integers(1, 7), st.integers(0, 2**31 - 1), st.floats(0, 2))
@settings(max_examples=30, deadline=None)
def test_row_factor_is_a_square_root(inputs, n, seed, constant):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(inputs, n))
    # Of any rank, with dead and parallel rows.
    rows[rng.random(inputs) < 0.2] = 0
    rows = rows @ np.diag(rng.random(n) < 0.7)
    rows[-1] = rng.choice([0.0, 1.0, -2.0]) * rows[0]
    factor, basis = row_factor(jnp.asarray(rows)[:, None, :], jnp.asarray(constant))
    factor, basis = np.asarray(factor)[..., 0], np.asarray(basis)[:, 0]
    np.testing.assert_allclose(factor @ factor.T, rows @ rows.T + constant, atol=1e-12)
    assert np.all(np.triu(factor, 1) == 0) and np.all(np.diagonal(factor) >= 0)
    np.testing.assert_allclose(factor @ basis, rows, atol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_equal_and_dead_inputs_stay_so_exactly(dtype):
    rows = jr.normal(jr.key(0), (1, 5, 30), dtype)
    rows = jnp.concatenate([rows, 0 * rows, rows, 2 * rows])
    factor, _ = row_factor(rows, jnp.zeros((), dtype))
    moved = apply_factor(factor, jr.normal(jr.key(1), rows.shape, dtype))
    assert jnp.all(moved[1] == 0)
    tolerance = 8 * float(jnp.finfo(dtype).eps) * float(jnp.max(jnp.abs(moved)))
    np.testing.assert_allclose(moved[2], moved[0], rtol=0, atol=tolerance)
    np.testing.assert_allclose(moved[3], 2 * moved[0], rtol=0, atol=2 * tolerance)


def test_jackknife_of_a_mean_and_of_a_variance():
    rng = np.random.default_rng(0)
    counts = np.array([10, 30, 20, 0, 40, 25, 25])
    samples = [rng.normal(size=(c, 1)) for c in counts]
    sums = {
        "y": np.array([np.sum(x, axis=0) for x in samples]),
        "yy": np.array([np.sum(x**2, axis=0) for x in samples]),
    }
    everything = np.concatenate(samples)
    mean = jackknife(lambda means, _: means["y"], sums, counts)
    np.testing.assert_allclose(mean.value, np.mean(everything, axis=0))
    # Many runs: the error of the mean is right on average.
    variances = []
    for seed in range(200):
        draw = np.random.default_rng(seed).normal(size=counts.sum())
        parts = np.split(draw, np.cumsum(counts)[:-1])
        y = np.array([[np.sum(part)] for part in parts])
        found = jackknife(lambda means, _: means["y"], {"y": y}, counts)
        variances.append(float(found.standard_error[0]) ** 2)
    assert abs(np.mean(variances) * counts.sum() - 1) < 0.15
    variance = lambda means, n: (n / (n - 1))[:, None] * (means["yy"] - means["y"] ** 2)
    np.testing.assert_allclose(jackknife(variance, sums, counts).value, np.var(everything, ddof=1))


REFERENCE_ACTIVATIONS = {
    "tanh": ko.Tanh(),
    "relu": ko.ReLU(),
    "leaky": ko.LeakyReLU(0.3),
    "gelu": ko.GELU(),
    "softplus": ko.Softplus(2.0),
    "clip": ko.Elementwise(lambda x: jnp.clip(x, -1.0, 0.5), kinks=(-1.0, 0.5)),
}


@pytest.mark.parametrize("name", each(REFERENCE_ACTIVATIONS, "tanh", "relu", "clip"))
def test_reference_chain_has_the_mean_kernel(name):
    """Two independent integrations of the same theory."""
    network = resnet(REFERENCE_ACTIVATIONS[name], 5, rho=0.6)
    kernel = jnp.array([[2.0, 0.6, -2.0], [0.6, 1.0, -0.6], [-2.0, -0.6, 2.0]])
    elements = elements_of(3, pairs=False)
    chain = reference_chain(network, np.asarray(kernel), elements)
    found = elements.unfold(np.asarray(chain.kernel))
    np.testing.assert_allclose(found, ko.propagate(network, kernel).mean_kernel, rtol=1e-9, atol=1e-12)
    factor = np.asarray(chain.factor)
    steps = (found[1:] - found[:-1]) / 0.6**2
    np.testing.assert_allclose(factor[:-1] @ factor[:-1].swapaxes(1, 2), steps, atol=1e-9)


def test_reference_slopes_are_derivatives():
    entries = jnp.array([1.2, 0.5, 0.7])
    moment = lambda k: pair_integrals(ko.GELU(), k[0], k[2], k[1])[0]
    slope = jax.jit(lambda k: pair_integrals(ko.GELU(), k[0], k[2], k[1])[1])(entries)
    np.testing.assert_allclose(slope, jax.jit(jax.grad(moment))(entries), rtol=1e-9)


# The law of the networks.


@pytest.mark.parametrize("sampler", [en.BlockLaw(), en.RealWeights()], ids=["block law", "weights"])
def test_linear_networks_at_finite_width(sampler):
    """E[G_L^2] = E[G_0^2] [(1 + e)^2 + (4 e + 2 e^2)/n]^L, e = rho^2 C_W: exact for every width."""
    n, depth, e = 4, 3, 0.25
    network = resnet(ko.Linear(), depth, sw2=1.0, sb2=0.0, rho=0.5)
    found = en.sample(
        network, [[2.0]], width=n, samples=60_000, key=KEY, sampler=sampler, batch=500
    ).estimates
    mean = 2 * (1 + e) ** depth
    second = 4 * (1 + 2 / n) * ((1 + e) ** 2 + (4 * e + 2 * e**2) / n) ** depth
    assert np.abs(z_scores(found.mean_kernel, mean)).max() < 4
    assert np.abs(z_scores(found.mean_correction, 0)).max() < 4
    assert np.abs(z_scores(found.kernel_covariance, n * (second - mean**2))).max() < 4


UNEQUAL = ko.MLP(ko.GELU(), 3, weight_variance=1.5, bias_variance=0.1, relative_width=[1, 2, 0.5, 1])
TWO_LAYERS = resnet(ko.Tanh(), 3, sw2=1.5, rho=0.6, layers_per_block=2)
SKIPPING = resnet(ko.Softplus(), 4, sw2=1.5, rho=0.6, skip_scale=[0.9, 1, 0.8, 1])


@pytest.mark.parametrize(
    "network",
    [pytest.param(UNEQUAL, marks=pytest.mark.slow), TWO_LAYERS, SKIPPING],
    ids=["mlp", "blocks", "skip"],
)
def test_samplers_draw_from_the_same_law(network):
    options = {"width": 8, "samples": 40_000, "batch": 500, "dtype": "float32"}
    block = en.sample(network, PAIR, key=jr.key(1), control=False, **options)
    real = en.sample(network, PAIR, key=jr.key(2), sampler=en.RealWeights(), **options)
    for name in ("mean_correction", "kernel_covariance", "third_cumulant", "sigma_covariance"):
        both = difference(getattr(block.estimates, name), getattr(real.estimates, name))
        assert np.abs(z_scores(both, 0)).max() < 4, name


def test_data_are_read_in():
    x = jr.normal(jr.key(0), (2, 5))
    network = resnet(ko.Erf(), 2, rho=0.5, input_weight_variance=1.3, input_bias_variance=0.2)
    options = {"width": 16, "samples": 4000, "key": KEY, "layers": [0, 2], "batch": 100}
    real = en.sample(network, en.Data(x), sampler=en.RealWeights(), **options)
    block = en.sample(network, en.Data(x), **options)
    assert np.abs(z_scores(real.mean_kernel, network.read_in(x))[0]).max() < 4
    both = difference(block.kernel_covariance, real.kernel_covariance)
    assert np.abs(z_scores(both, 0)).max() < 4


@pytest.mark.slow
def test_fixed_gram_matrices_do_not_fluctuate():
    network = resnet(ko.Tanh(), 6, sw2=2.0, sb2=0.0, rho=0.4)
    start: dict[str, Any] = {"start": en.FixedGram()}
    found = en.sample(network, PAIR, width=32, samples=8000, key=KEY, layers=[0, 6], **start)
    np.testing.assert_allclose(found.mean_kernel.value[0], PAIR, atol=1e-12)
    assert np.abs(found.kernel_covariance.value[0]).max() < 1e-10
    theory = ko.propagate(network, PAIR, closure=ko.WickTower(16, start=ko.FixedGram()))
    assert np.abs(z_scores(found.mean_correction, theory.mean_correction[np.array([0, 6])])).max() < 4
    limit = found.estimates.limit_covariance
    assert np.abs(z_scores(limit, theory.kernel_covariance[np.array([0, 6])])[1]).max() < 4
    # As narrow as it can be.
    narrow = en.sample(network, PAIR, width=2, samples=64, key=KEY, layers=[0], **start)
    np.testing.assert_allclose(narrow.mean_kernel.value[0], PAIR, atol=1e-12)


def test_duplicate_inputs_share_everything():
    kernel = jnp.array([[1.0, 0.3, 1.0], [0.3, 0.8, 0.3], [1.0, 0.3, 1.0]])
    found = en.sample(resnet(ko.ReLU(), 3), kernel, width=16, samples=200, key=KEY)
    for values in (found.mean_kernel.value[0], found.kernel_covariance.value[0]):
        np.testing.assert_allclose(values[0], values[2], rtol=1e-10)
        np.testing.assert_allclose(values[:, 0], values[:, 2], rtol=1e-10)


# Estimates.


def test_raw_and_controlled_estimates_are_unbiased():
    """At a width of 6, where corrections in 1/n are as large as the limits: both have the same mean."""
    network = resnet(ko.GELU(), 3, sw2=1.5, rho=0.7)
    one = en.sample(network, PAIR, width=6, samples=100_000, key=jr.key(5), batch=1000)
    two = en.sample(network, PAIR, width=6, samples=100_000, key=jr.key(6), batch=1000)
    for name in ("mean_correction", "sigma_correction", "kernel_covariance", "sigma_covariance"):
        both = difference(getattr(one.raw, name), getattr(two.controlled, name))
        assert np.abs(z_scores(both, 0)).max() < 4, name
    # The reference itself: no mean, and the covariance of its neurons.
    size = one.elements.count
    lin = jackknife(lambda means, _: means["l"], {"l": one.sums["l"]}, one.counts)
    assert np.abs(z_scores(lin, 0)).max() < 4
    gap = lambda means, _: (means["ll"] - means["xx"])[..., :size]
    sums = {name: one.sums[name] for name in ("ll", "xx")}
    assert np.abs(z_scores(jackknife(gap, sums, one.counts), 0)).max() < 4
    # They differ from the limit here.
    limit, finite = one.controlled.limit_covariance, one.controlled.kernel_covariance
    assert np.abs(z_scores(difference(limit, finite), 0)).max() > 10


def test_control_variates_cut_the_cost():
    network = resnet(ko.Tanh(), 25, sw2=2.0, sb2=0.0, rho=0.2)
    found = en.sample(network, [[2.0]], width=64, samples=10_000, key=KEY, dtype="float32")
    assert found.variance_ratio("mean_correction").min() > 200
    assert found.variance_ratio("kernel_covariance").min() > 5
    raw, controlled = found.raw.mean_correction, found.controlled.mean_correction
    assert abs(z_scores(raw, controlled.value)).max() < 4


def test_pairs_are_a_part_of_everything():
    kernel = jnp.array([[1.0, 0.3, 0.1], [0.3, 0.8, 0.0], [0.1, 0.0, 1.5]])
    network = resnet(ko.ReLU(), 3)
    full = en.sample(network, kernel, width=8, samples=300, key=KEY)
    pairs = en.sample(network, kernel, width=8, samples=300, key=KEY, pairs=True)
    np.testing.assert_allclose(full.mean_kernel.value, pairs.mean_kernel.value, rtol=1e-12)
    for name in ("kernel_covariance", "sigma_covariance", "limit_covariance", "third_cumulant"):
        whole, part = getattr(full.estimates, name).value[0], getattr(pairs.estimates, name).value[0]
        if name == "third_cumulant":
            np.testing.assert_allclose(whole, part, rtol=1e-9)
            continue
        for a in range(3):
            for b in range(3):
                first, second = np.array([a, a, b]), np.array([a, b, b])
                block = whole[first[:, None], second[:, None], first, second]
                np.testing.assert_allclose(part[a, b], block, rtol=1e-9, atol=1e-12)


RESPONSES = [
    (resnet(ko.Erf(), 6, rho=0.4), en.BlockLaw()),
    pytest.param(resnet(ko.Tanh(), 6, rho=0.4), en.BlockLaw(), marks=pytest.mark.slow),
    pytest.param(ko.MLP(ko.Erf(), 3), en.RealWeights(), marks=pytest.mark.slow),
    pytest.param(resnet(ko.Tanh(), 6, rho=0.4), en.RealWeights(), marks=pytest.mark.slow),
    pytest.param(ko.MLP(ko.Erf(), 3), en.BlockLaw(), marks=pytest.mark.slow),
]


@pytest.mark.parametrize("network, sampler", RESPONSES)
def test_responses(network, sampler):
    """Means of derivatives along paths are derivatives of means: chi_out, with its correction in 1/n."""
    n = 64
    found = en.sample(
        network, PAIR, width=n, samples=3000, key=KEY, sampler=sampler, responses=True, dtype="float32"
    ).estimates
    chi = ko.response(network, PAIR)
    correction = ko.response_correction(network, PAIR).correction / n
    diagonal = found.read_out_response_diagonal
    assert np.abs(z_scores(diagonal, chi.diagonal + correction)).max() < 4.5
    off = found.read_out_response_off_diagonal
    assert abs(off.value[0, 0, 1] / chi.off_diagonal[0, 1] - 1) < 0.05
    assert np.all(np.diagonal(off.value[0]) == 0)
    assert found.response_diagonal.value.shape == (1, 2)
    assert found.response_off_diagonal.value.shape == (1, 2, 2)


@pytest.mark.slow
def test_tangent_kernel_at_large_width():
    x = jr.normal(jr.key(5), (2, 4), jnp.float32)
    network = resnet(ko.Erf(), 3, rho=0.5, output_weight_variance=1.3, output_bias_variance=0.2)
    limit = ko.baselines.neural_tangents_kernels(network, x)["ntk"]
    options = {"key": KEY, "sampler": en.RealWeights(), "tangent_kernel": True}
    found = [en.sample(network, en.Data(x), width=n, samples=4000, **options) for n in (16, 32)]
    both = [one.estimates.tangent_kernel for one in found]
    # To infinite width, from two.
    extrapolated = en.Measured(
        2 * both[1].value - both[0].value, np.concatenate([2 * both[1].scatter, both[0].scatter])
    )
    assert np.abs(z_scores(extrapolated, limit[None])).max() < 4
    assert np.all(extrapolated.standard_error[0] < 0.03 * np.abs(limit))
    variance = [one.estimates.tangent_kernel_variance.value for one in found]
    np.testing.assert_allclose(variance[0], variance[1], rtol=0.35)
