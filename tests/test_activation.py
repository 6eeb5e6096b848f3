"""Activations: parameters and their gradients, dtypes, closed forms, bad input."""

import functools
import math
from typing import Any, cast

import equinox as eqx
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

import kernelode as ko
from kernelode._activation.base import derivatives
from kernelode._expectation import pair_moment, variance_moment

from .helpers import central_difference


class Scaled(eqx.Module):
    """tanh(w x) or a kinked relative of it: a function with a parameter."""

    w: jax.Array
    clip: bool = eqx.field(static=True, default=False)

    def __call__(self, x):
        w = self.w.astype(x.dtype)
        return jnp.where(x > 0, w * x, jnp.tanh(x) / (1 + w)) if self.clip else jnp.tanh(w * x)


def polynomial(w):
    return ko.Polynomial(jnp.stack([jnp.full_like(w, 0.3), w, jnp.full_like(w, -0.4), w**2]))


PARAMETERS = {
    "leaky_relu": (ko.LeakyReLU, 0.2),
    "swish": (ko.Swish, 1.3),
    "softplus": (ko.Softplus, 1.7),
    "sin": (ko.Sin, 0.8),
    "polynomial": (polynomial, 0.6),
    "elementwise": (lambda w: ko.Elementwise(Scaled(w)), 1.2),
    "kinked elementwise": (lambda w: ko.Elementwise(Scaled(w, True), kinks=(0.0,)), 0.7),
}
ALL = [
    ko.Tanh(),
    ko.Erf(),
    ko.ReLU(),
    ko.LeakyReLU(0.1),
    ko.GELU(),
    ko.Softplus(2.0),
    ko.Swish(1.5),
    ko.Sin(0.7),
    ko.Linear(),
    ko.Polynomial([0.1, 1.0, -0.3]),
    ko.Elementwise(jnp.arctan),
    ko.Elementwise(jnp.abs, kinks=(0.0,)),
]


def moments(make, w, v):
    """E[sigma(x) sigma(y)] and E[sigma(x)^2] of a pair v = (a, b, c), added up with weights."""
    activation = make(w)
    pair = pair_moment(activation, v[:1], v[1:2], v[2:, None])[0, 0]
    return pair + 0.3 * variance_moment(activation, v[:1])[0]


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_gradients(name):
    """Forward, reverse, and mixed with a derivative in the covariance, against finite differences."""
    make, w = PARAMETERS[name]
    function = functools.partial(moments, make)
    w, v = jnp.asarray(w), jnp.array([1.2, 0.7, 0.4])
    by_covariance = lambda w, v: jax.jvp(lambda v: function(w, v), (v,), (jnp.array([0.2, 0.1, 1.0]),))[1]

    @jax.jit
    def everything(w):
        value, forward = jax.jvp(lambda w: function(w, v), (w,), (jnp.ones_like(w),))
        rate, mixed = jax.jvp(lambda w: by_covariance(w, v), (w,), (jnp.ones_like(w),))
        return value, forward, jax.grad(function)(w, v), rate, mixed

    _, forward, reverse, _, mixed = everything(w)
    expected = float(central_difference(lambda w: everything(w)[0], w, 1e-3))
    assert forward == pytest.approx(expected, rel=1e-8)
    assert reverse == pytest.approx(expected, rel=1e-8)
    expected = float(central_difference(lambda w: everything(w)[3], w, 1e-3))
    assert mixed == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("name", ["leaky_relu", "swish", "kinked elementwise"])
def test_vmap_over_parameters(name):
    make, w = PARAMETERS[name]
    w, v = jnp.asarray(w) * jnp.array([0.5, 1.0, 2.0]), jnp.array([1.2, 0.7, 0.4])
    activations = eqx.filter_vmap(make)(w)
    function = lambda activation: moments(lambda _: activation, None, v)
    found = eqx.filter_jit(eqx.filter_vmap(function))(activations)
    one = jax.jit(lambda w: moments(make, w, v))
    assert jnp.allclose(found, jnp.stack([one(x) for x in w]), rtol=1e-13)


@pytest.mark.parametrize("activation", ALL, ids=lambda x: type(x).__name__)
def test_dtype_follows_the_data(activation):
    """float32 in, float32 out, although x64 is on and parameters are Python numbers."""
    q, c = jnp.array([0.5, 1.0], jnp.float32), jnp.array([[0.5, 0.1], [0.1, 1.0]], jnp.float32)

    def everything(q, c):
        value = activation(c), pair_moment(activation, q, q, c), variance_moment(activation, q)
        tangent = jax.jvp(lambda c: pair_moment(activation, q, q, c), (c,), (c,))[1]
        return *value, tangent

    assert all(x.dtype == jnp.float32 for x in jax.eval_shape(everything, q, c))


@pytest.mark.parametrize("activation", ALL, ids=lambda x: type(x).__name__)
def test_call(activation):
    """Elementwise on any shape; E[sigma^2] is the average of the function that is called."""
    x = jnp.linspace(-2, 2, 6).reshape(2, 3)
    assert activation(x).shape == x.shape
    assert jnp.array_equal(jax.vmap(jax.vmap(activation))(x), activation(x))
    # Two half lines, so that a kink at zero does not spoil the trapezoid.
    z = np.linspace(0, 10, 2001)
    weights = np.exp(-(z**2) / 2) * (z[1] - z[0]) / math.sqrt(2 * math.pi)
    weights[0] /= 2
    both = activation(jnp.asarray(1.3 * z)) ** 2 + activation(jnp.asarray(-1.3 * z)) ** 2
    found = jax.jit(lambda q: variance_moment(activation, q))(jnp.asarray(1.69))
    assert found == pytest.approx(float(np.sum(weights * np.asarray(both))), rel=1e-5)


def test_derivatives():
    x = jnp.linspace(-1, 1, 5)
    found = derivatives(jnp.sin, x, 3)
    assert jnp.allclose(found, jnp.stack([jnp.sin(x), jnp.cos(x), -jnp.sin(x), -jnp.cos(x)]), atol=1e-15)


@pytest.mark.parametrize("w", [0.0, 1e-8, 1e4])
def test_extreme_covariances_of_sin(w):
    """No overflow, and the digits of a small covariance are kept."""
    a = jnp.asarray(w)
    value = ko.Sin().second_moment(a, a, a)
    assert value == pytest.approx(-math.expm1(-2 * w) / 2, rel=1e-12, abs=1e-300)


def test_family_relations():
    """What one activation becomes in a limit of another."""
    a, b, c = jnp.array([1.2]), jnp.array([0.7]), jnp.array([[0.4]])
    relu = pair_moment(ko.ReLU(), a, b, c)
    assert jnp.allclose(pair_moment(ko.LeakyReLU(0.0), a, b, c), relu, rtol=1e-14)
    assert jnp.allclose(pair_moment(ko.LeakyReLU(1.0), a, b, c), c, rtol=1e-14)
    absolute = jax.jit(functools.partial(pair_moment, ko.Elementwise(jnp.abs, (0.0,))))(a, b, c)
    assert jnp.allclose(pair_moment(ko.LeakyReLU(-1.0), a, b, c), absolute, rtol=1e-8)
    steep = jax.jit(functools.partial(pair_moment, ko.Softplus(50.0)))(a, b, c)
    assert jnp.allclose(steep, relu, rtol=1e-3)
    assert jnp.allclose(pair_moment(ko.Polynomial.monomial(1), a, b, c), c, rtol=1e-14)
    squares = (a * b)[:, None] + 2 * c**2
    assert jnp.allclose(pair_moment(ko.Polynomial.monomial(2), a, b, c), squares, rtol=1e-14)


variances = st.floats(1e-4, 20)
correlations = st.floats(-1, 1)
CLOSED = [ko.Erf(), ko.GELU(), ko.ReLU(), ko.LeakyReLU(0.3), ko.Sin(1.2), ko.Polynomial([1.0, 0.5, 2.0])]


@pytest.mark.parametrize("activation", [*CLOSED, ko.Tanh()], ids=lambda x: type(x).__name__)
def test_cauchy_schwarz_and_symmetry(activation):
    """Of all inputs: |E[s s']| <= sqrt(E[s^2] E[s'^2]), and x and y may be exchanged."""

    @jax.jit
    def table(a, b, c):
        forth = pair_moment(activation, a[None], b[None], c[None, None])[0, 0]
        back = pair_moment(activation, b[None], a[None], c[None, None])[0, 0]
        return forth, back, variance_moment(activation, a), variance_moment(activation, b)

    @hypothesis.settings(deadline=None, max_examples=50, derandomize=True, database=None)
    @hypothesis.given(variances, variances, correlations)
    def check(a, b, corr):
        inputs = (jnp.asarray(x) for x in (a, b, corr * math.sqrt(a * b)))
        forth, back, left, right = map(float, table(*inputs))
        limit = math.sqrt(left * right)
        assert forth == pytest.approx(back, rel=1e-12, abs=1e-13 * limit)
        assert abs(forth) <= limit * (1 + 1e-12)

    check()


# Under the type checker that tests run with, a wrong type is refused even earlier.
BAD = [
    (lambda: ko.Elementwise(cast(Any, 3.0)), (TypeError, TypeCheckError), "fn"),
    (lambda: ko.Elementwise(jnp.tanh, kinks=(math.inf,)), ValueError, "kinks"),
    (lambda: ko.LeakyReLU(math.nan), ValueError, "negative_slope"),
    (lambda: ko.LeakyReLU(jnp.ones(2)), ValueError, "scalar"),
    (lambda: ko.Softplus(-1.0), ValueError, "positive"),
    (lambda: ko.Softplus(0.0), ValueError, "positive"),
    (lambda: ko.Swish(math.inf), ValueError, "finite"),
    (lambda: ko.Sin(1j), TypeError, "real"),
    (lambda: ko.Polynomial([]), ValueError, "non-empty"),
    (lambda: ko.Polynomial([[1.0]]), ValueError, "vector"),
    (lambda: ko.Polynomial([1.0, math.nan]), ValueError, "finite"),
    (lambda: ko.Polynomial.monomial(-1), ValueError, "degree"),
    (lambda: ko.Polynomial.monomial(cast(Any, 1.5)), (ValueError, TypeCheckError), "degree"),
]


@pytest.mark.parametrize("make,kind,message", BAD)
def test_bad_input_raises(make, kind, message):
    with pytest.raises(kind, match=message):
        make()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_the_variance_of_gelu_has_slopes_at_every_variance(dtype):
    gelu, tolerance = ko.GELU(), 64 * float(jnp.finfo(dtype).eps)
    both = lambda q: jax.vmap(jax.value_and_grad(gelu.variance_moment))(jnp.asarray(q, dtype))
    value, slope = both(jnp.logspace(9, 30, 43))
    # That of ReLU, up to terms that fall with the variance.
    assert jnp.allclose(value, jnp.asarray(jnp.logspace(9, 30, 43) / 2, dtype), rtol=1e-8 + tolerance)
    assert jnp.allclose(slope, 0.5, rtol=1e-8 + tolerance)
    middle = jnp.logspace(-30, 2, 65)
    of_pairs = jax.vmap(jax.value_and_grad(lambda q: gelu.second_moment(q, q, q)))(middle)
    for found, expected in zip(both(middle), of_pairs):
        assert jnp.allclose(found, jnp.asarray(expected, dtype), rtol=4 * tolerance + 1e-13, atol=0)
