"""Products of an activation and its derivatives at one input, beside closed forms."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

import kernelode as ko

from .helpers import central_difference, relative_error

Q = np.array([0.0, 1e-6, 0.3, 1.0, 5.0, 400.0, 1e6])
CLIP = ko.Elementwise(lambda x: jnp.clip(x, -1, 1), kinks=(-1.0, 1.0))


def of_sine(q):
    return {
        (0, 0, 0, 0): 3 / 8 - np.exp(-2 * q) / 2 + np.exp(-8 * q) / 8,
        (0, 0, 1, 1): (1 - np.exp(-8 * q)) / 8,
        (1, 1, 1, 1): 3 / 8 + np.exp(-2 * q) / 2 + np.exp(-8 * q) / 8,
        (0, 2): -(1 - np.exp(-2 * q)) / 2,
    }


def of_erf(q):
    slopes = 4 / np.pi / np.sqrt(1 + 4 * q)
    return {(1, 1, 1, 1): 16 / np.pi**2 / np.sqrt(1 + 8 * q), (0, 2): -2 * q / (1 + 2 * q) * slopes}


def of_relu(q):
    return {
        (0, 0, 0, 0): 1.5 * q**2,
        (0, 0, 1, 1): q / 2,
        (0, 1): np.sqrt(q / (2 * np.pi)),
        (1, 1): np.full_like(q, 0.5),
    }


def of_clip(q):
    inside = np.array([math.erf(1 / math.sqrt(2 * x)) if x else 1.0 for x in q])
    return {(1, 1): inside, (1, 1, 1, 1): inside}


CASES = [(ko.Sin(), of_sine), (ko.Erf(), of_erf), (ko.ReLU(), of_relu), (CLIP, of_clip)]


@pytest.mark.parametrize("activation, closed", CASES, ids=["sin", "erf", "relu", "clip"])
def test_closed_forms(activation, closed):
    for factors, expected in closed(Q).items():
        found = ko.single_moments(activation, Q, factors)
        error = np.abs(np.asarray(found.value) - expected)
        rounding = 1e-15 * (1 + np.abs(expected))  # of the closed forms, which cancel
        assert np.all(error <= np.asarray(found.error) + rounding), factors
        # A thousand wavelengths fit under the density of the last.
        usual = slice(0, 6) if isinstance(activation, ko.Sin) else slice(None)
        assert relative_error(found.value[usual], expected[usual]) < 1e-11, factors


@pytest.mark.parametrize("factors", [(0, 0, 0, 0), pytest.param((0, 0, 1, 1), marks=pytest.mark.slow)])
def test_saturation_by_high_precision(factors):
    of = {0: mpmath.tanh, 1: lambda x: mpmath.sech(x) ** 2}
    for q in (0.5, 30.0):
        integrand = lambda z, q=q: mpmath.npdf(z) * mpmath.fprod(of[k](math.sqrt(q) * z) for k in factors)
        with mpmath.workdps(30):
            expected: Any = 2 * mpmath.quad(integrand, [0, 0.1, 0.3, 0.5, 1, 2, 3, 5, 8, 12])
        found = ko.single_moments(ko.Tanh(), q, factors)
        assert abs(float(found.value) - float(expected)) <= float(found.error)


def test_pairs_of_derivatives_are_those_of_equal_inputs():
    q = jnp.array([0.4, 2.0])
    table = ko.pair_moments(ko.GELU(), q, q, q[:, None] * jnp.ones(2)[None, :] * jnp.eye(2), order=1)
    for factors in ((0, 0), (1, 1), (0, 2)):
        found = ko.single_moments(ko.GELU(), q, factors).value
        assert relative_error(found, jnp.diagonal(table[factors].value)) < 1e-12


@pytest.mark.parametrize(
    "activation", [ko.Tanh(), pytest.param(CLIP, marks=pytest.mark.slow), ko.LeakyReLU(0.3)]
)
def test_derivatives_by_the_variance(activation):
    height = jax.jit(lambda q: ko.single_moments(activation, q, (1, 1, 0, 0)).value)
    for q in (0.3, 4.0):
        slope = central_difference(height, q, 1e-3)
        for found in (jax.grad(height)(q), jax.jvp(height, (q,), (1.0,))[1]):
            assert abs(found - slope) < 1e-9
        bend = central_difference(jax.grad(height), q, 1e-3)
        assert abs(jax.grad(jax.grad(height))(q) - bend) < 1e-8


def test_derivatives_by_a_parameter():
    height = lambda k: ko.single_moments(ko.Sin(k), 0.7, (0, 0, 1, 1)).value
    exact = lambda k: k**2 * (1 - math.exp(-8 * 0.7 * k**2)) / 8
    assert abs(jax.grad(height)(1.2) - central_difference(exact, 1.2, 1e-3)) < 1e-9
    assert abs(jax.vmap(height)(jnp.array([0.9, 1.2]))[1] - exact(1.2)) < 1e-13


def test_single_precision():
    found = ko.single_moments(ko.Sin(), Q[:5].astype(np.float32), (0, 0, 1, 1))
    assert found.value.dtype == jnp.float32
    assert np.max(np.abs(np.asarray(found.value, float) - of_sine(Q[:5])[0, 0, 1, 1])) < 1e-6


def test_elementwise_pairs():
    a, b = jnp.array([0.4, 1.0, 2.0]), jnp.array([0.4, 3.0, 0.0])
    c = jnp.array([0.4, -1.2, 0.0])
    for activation in (ko.Erf(), ko.Tanh()):
        table = ko.pair_moments(activation, a, b, jnp.diag(c), order=1)
        alone = ko.pair_moments(activation, a, b, c, order=1, elementwise=True)
        for ij, found in alone.items():
            assert relative_error(found.value, jnp.diagonal(table[ij].value)) < 1e-12
            assert found.error.shape == (3,)


def test_spectral_matrix():
    q = jnp.array([0.4, 1.0])
    matrix = ko.hermite_spectrum(ko.Tanh(), q, 64)
    assert matrix.value.shape == matrix.error.shape == (2, 64)
    corr = 0.6 ** jnp.arange(64.0)
    series = jnp.sum(corr * matrix.value[0] * matrix.value[1])
    expected = ko.pair_moments(ko.Tanh(), 0.4, 1.0, 0.6 * math.sqrt(0.4))[0, 0].value
    assert abs(series - expected) < 1e-12


def test_refusals():
    for wrong, error, message in (
        (lambda: ko.single_moments(ko.ReLU(), 1.0, (0, 2)), ValueError, "no function"),
        (lambda: ko.single_moments(CLIP, 1.0, (2, 0)), ValueError, "no function"),
        (lambda: ko.single_moments(ko.Erf(), -1.0), ValueError, "`q` must be finite and not negative"),
        (lambda: ko.single_moments(ko.Erf(), 1.0, ()), TypeError, "`derivatives` must be numbers"),
        (lambda: ko.single_moments(ko.Erf(), 1.0, (0, -1)), ValueError, "`derivatives`"),
        (lambda: ko.single_moments(ko.Erf(), np.ones((2, 2))), ValueError, "number or a vector"),
        (
            lambda: ko.pair_moments(ko.Erf(), [1.0], [1.0], [2.0], elementwise=True),
            ValueError,
            "`c` must be a covariance",
        ),
        (
            lambda: ko.pair_moments(ko.Erf(), [1.0], [1.0], [[0.5]], elementwise=True),
            ValueError,
            "one shape",
        ),
    ):
        with pytest.raises(error, match=message):
            wrong()
