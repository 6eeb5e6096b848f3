"""Pair coefficients in the chaos basis and Hermite spectra, against brute-force quadrature."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.polynomial.hermite_e import hermevander
from numpy.polynomial.legendre import leggauss

import kernelode as ko

hard_tanh = lambda x: jnp.clip(x, -1, 1)
relu = lambda x: jnp.maximum(x, 0)
CASES = {  # activation, the same in numpy, kinks
    "tanh": (ko.Tanh(), np.tanh, ()),
    "gelu": (ko.GELU(), None, ()),
    "relu": (ko.ReLU(), lambda x: np.maximum(x, 0), (0.0,)),
    "leaky_relu": (ko.LeakyReLU(0.1), lambda x: np.where(x > 0, x, 0.1 * x), (0.0,)),
    "hard_tanh": (ko.Elementwise(hard_tanh, (-1.0, 1.0)), lambda x: np.clip(x, -1, 1), (-1.0, 1.0)),
}
PAIRS = [(1.0, 1.0, 0.3), (2.0, 0.5, -0.8), (0.1, 0.1, 0.0), (4.0, 4.0, 0.9)]
SINGULAR = [(1.0, 1.0, 1.0), (1.0, 1.0, -1.0), (2.0, 0.5, 1.0), (2.0, 0.5, -1.0)]


def panels(edges: np.ndarray, count: int):
    """Gauss-Legendre nodes and weights, normal density included, between consecutive edges."""
    points, steps = leggauss(count)
    edges = np.clip(edges, -12, 12)
    middle, half = (edges[..., 1:] + edges[..., :-1]) / 2, np.diff(edges, axis=-1) / 2
    z = (middle[..., None] + half[..., None] * points).reshape(*edges.shape[:-1], -1)
    weights = (half[..., None] * steps).reshape(*edges.shape[:-1], -1)
    return z, weights * np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)


def orthonormal(z, order: int):
    return hermevander(z, order) / np.sqrt([math.factorial(m) for m in range(order + 1)])


@functools.cache
def brute_force(name: str, a: float, b: float, corr: float, order: int):
    """c_jk and E[f^2] by iterated panels: in v for every u, both split at the kinks."""
    activation, fn, kinks = CASES[name]
    fn = fn or (lambda x: np.asarray(activation(jnp.asarray(x))))
    edges = [-12, -3, 0, 3, 12, *(kink / math.sqrt(a) for kink in kinks)]
    # The kinks in y, smoothed by v, bend the outer integrand near x = their image.
    images = [k / (math.sqrt(b) * corr) for k in kinks] if corr else []
    u, u_weights = panels(np.array(sorted({*edges, *images})), 128)
    complement = math.sqrt(max(1 - corr**2, 0))
    lines = np.full((u.size, 2), 12.0) * [-1, 1]
    if kinks and complement:
        crossing = (np.array(kinks)[None] / math.sqrt(b) - corr * u[:, None]) / complement
        lines = np.concatenate([lines[:, :1], crossing, lines[:, 1:]], axis=1)
    v, v_weights = panels(lines, 200)
    f = fn(math.sqrt(a) * u)[:, None] * fn(math.sqrt(b) * (corr * u[:, None] + complement * v))
    by_v = np.einsum("uv,uvk->uk", f * v_weights, orthonormal(v, order))
    square = np.sum(u_weights * np.sum(f**2 * v_weights, axis=1))
    return np.einsum("u,uj,uk->jk", u_weights, orthonormal(u, order), by_v), square


def coefficients(name, a, b, corr, order, dtype="float64", **options):
    a, b, c = (jnp.asarray(x, dtype) for x in (a, b, corr * math.sqrt(a * b)))
    function = functools.partial(ko.pair_coefficients, CASES[name][0], order=order, **options)
    return jax.jit(function)(a, b, c)


@pytest.mark.parametrize("name", CASES)
def test_pair_coefficients(name):
    order = 8
    kept = np.add.outer(np.arange(order + 1), np.arange(order + 1)) <= order
    function = functools.partial(ko.pair_coefficients, CASES[name][0], order=order)
    a, b, corr = np.array(PAIRS + SINGULAR).T
    inputs = (jnp.asarray(x) for x in (a, b, corr * np.sqrt(a * b)))
    found = jax.jit(jax.vmap(function))(*inputs)
    for k, pair in enumerate(PAIRS + SINGULAR):
        expected, square = brute_force(name, *pair, order)
        error = np.abs(np.asarray(found.value[k]) - expected) * kept
        size = math.sqrt(square)
        assert np.all(error <= found.error[k] + 5e-14 * size), (pair, np.max(error / size))
        if name != "hard_tanh":
            assert np.max(error) <= 1e-9 * size, (pair, np.max(error) / size)
            assert np.max(found.error[k]) <= 1e-6 * size, (pair, np.max(found.error[k]) / size)
        assert np.all(found.value[k][~kept] == 0)


@pytest.mark.parametrize("name", ["tanh", "relu"])
def test_parseval(name):
    """sum c_jk^2 grows to E[f^2]."""
    square = brute_force(name, 1.0, 1.0, 0.3, 2)[1]
    value = coefficients(name, 1.0, 1.0, 0.3, 40).value
    degree = np.add.outer(np.arange(41), np.arange(41))
    partial = [float(jnp.sum(jnp.where(degree <= p, value**2, 0))) for p in range(0, 41, 4)]
    assert np.all(np.diff(partial) >= 0)
    assert partial[-1] <= square * (1 + 1e-12)
    assert partial[-1] == pytest.approx(square, rel={"tanh": 1e-4, "relu": 1e-3}[name])


def test_parseval_terminates_for_polynomials():
    activation = ko.Polynomial([0.3, -1.0, 0.5])
    one = jnp.asarray(1.0)
    value = jax.jit(lambda c: ko.pair_coefficients(activation, one, one, c, 4).value)(0.4 * one)
    polynomial = np.asarray(activation.coefficients)[::-1]
    z = np.linspace(-12, 12, 801)
    density = np.exp(-(z**2) / 2) * (z[1] - z[0]) / math.sqrt(2 * math.pi)
    x, y = z[:, None], 0.4 * z[:, None] + math.sqrt(1 - 0.4**2) * z[None, :]
    f = np.polyval(polynomial, x) * np.polyval(polynomial, y)
    expected = density @ f**2 @ density
    assert float(jnp.sum(value**2)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", ["tanh", "gelu", "relu"])
def test_low_coefficients_are_moments(name):
    """c_00 = E[sigma sigma]; sqrt(ab) corr' E[sigma' sigma'] etc. by Price's theorem."""
    a, b, corr = 1.0, 0.5, 0.6
    rooted = math.sqrt(b * (1 - corr**2))
    value = coefficients(name, a, b, corr, 2).value
    one = lambda x: jnp.asarray([x])
    function = jax.jit(functools.partial(ko.pair_moments, CASES[name][0], order=1))
    moments = function(one(a), one(b), one(corr * math.sqrt(a * b))[None])
    tolerance = 1e-11
    assert value[0, 0] == pytest.approx(float(moments[0, 0].value[0, 0]), rel=tolerance)
    expected = math.sqrt(b) * corr * moments[0, 2].value + math.sqrt(a) * moments[1, 1].value
    assert value[1, 1] == pytest.approx(rooted * float(expected[0, 0]), rel=tolerance)
    assert value[0, 2] == pytest.approx(
        rooted**2 * float(moments[0, 2].value[0, 0]) / 2**0.5, rel=tolerance
    )


@pytest.mark.parametrize("name", ["tanh", "relu"])
def test_float32(name):
    found = coefficients(name, 1.0, 0.5, 0.6, 6, dtype="float32")
    expected = brute_force(name, 1.0, 0.5, 0.6, 6)[0]
    kept = np.add.outer(np.arange(7), np.arange(7)) <= 6
    assert found.value.dtype == found.error.dtype == jnp.float32
    assert np.all(np.abs(np.asarray(found.value) - expected)[kept] <= 2e-5)
    assert np.all(
        np.abs(np.asarray(found.value) - expected)[kept] <= np.asarray(found.error)[kept] + 1e-7
    )


@pytest.mark.parametrize("name", ["tanh", "relu"])
def test_zero_variance(name):
    function = functools.partial(ko.pair_coefficients, CASES[name][0], order=4)
    a, b = jnp.array([0.0, 1.0, 0.0]), jnp.array([1.0, 0.0, 0.0])
    for value, error in zip(*jax.jit(jax.vmap(function))(a, b, jnp.zeros(3))):
        assert jnp.all(jnp.isfinite(value)) and jnp.all(jnp.isfinite(error))
        assert jnp.allclose(value, 0, atol=1e-12)


def test_hermite_spectrum():
    q = jnp.asarray(2.0)
    found = jax.jit(lambda q: ko.hermite_spectrum(ko.Tanh(), q, 512))(q)
    z, weights = panels(np.linspace(-12, 12, 41), 40)
    expected = np.einsum("z,zm->m", weights * np.tanh(math.sqrt(2.0) * z), orthonormal(z, 20))
    assert np.allclose(found.value[:21], expected, rtol=0, atol=1e-14)
    energy = float(ko.variance_derivatives(ko.Tanh(), q[None], 0).value[0, 0])
    assert float(jnp.sum(found.value**2)) == pytest.approx(energy, rel=1e-12)
    assert np.all(np.abs(found.value[:21] - expected) <= np.asarray(found.error[:21]) + 1e-15)


@pytest.mark.parametrize("activation", [ko.ReLU(), ko.Elementwise(relu, (0.0,))])
def test_hermite_spectrum_of_relu(activation):
    """s_0 = sqrt(q / 2 pi), s_1 = sqrt(q) / 2, s_m = sqrt(q) He_(m-2)(0) phi(0) / sqrt(m!) beyond."""
    found = jax.jit(lambda q: ko.hermite_spectrum(activation, q, 12))(jnp.asarray(3.0))
    at_zero = np.ravel(hermevander(0.0, 9))
    beyond = [h / math.sqrt(2 * math.pi * math.factorial(m)) for m, h in enumerate(at_zero, start=2)]
    expected = np.sqrt(3.0) * np.array([1 / math.sqrt(2 * math.pi), 0.5, *beyond])
    assert np.all(np.abs(found.value - expected) <= np.asarray(found.error) + 1e-15)
    assert np.allclose(found.value, expected, rtol=0, atol=1e-12)


def test_bad_input_raises():
    one = jnp.asarray(1.0)
    with pytest.raises(ValueError, match="terms"):
        ko.hermite_spectrum(ko.Tanh(), one, 0)
    with pytest.raises(ValueError, match="terms"):
        ko.hermite_spectrum(ko.Tanh(), one, 1025)
    with pytest.raises(ValueError, match="terms"):
        ko.pair_coefficients(ko.Tanh(), one, one, one, 4, terms=1024)
