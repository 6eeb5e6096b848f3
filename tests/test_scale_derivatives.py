"""Derivatives of closed forms at every scale, beside differences in many digits."""

import functools

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from mpmath import mpf

import kernelode as ko
from kernelode._expectation.moments import variance_moment


def erf(a, b, c):
    return 2 / mpmath.pi * mpmath.asin(2 * c / mpmath.sqrt((1 + 2 * a) * (1 + 2 * b)))


def gelu(a, b, c):
    root, angle = (1 + a) * (1 + b), mpmath.asin(c / mpmath.sqrt((1 + a) * (1 + b)))
    rational = (a * b - c**2 + c**2 / (1 + a) + c**2 / (1 + b)) / mpmath.sqrt(root - c**2)
    return c / 4 + (c * angle + rational) / (2 * mpmath.pi)


def relu(a, b, c):
    angle = mpmath.asin(c / mpmath.sqrt(a * b))
    return c / 4 + (mpmath.sqrt(a * b - c**2) + c * angle) / (2 * mpmath.pi)


ACTIVATIONS = {"erf": (ko.Erf(), erf), "gelu": (ko.GELU(), gelu), "relu": (ko.ReLU(), relu)}
#: The largest power of ten of a variance, and the relative error of a derivative, by dtype.
LIMITS = {"float32": (30, 5e-6), "float64": (150, 1e-13)}
#: Derivatives with respect to a, b and c of the moment (i, j), as Price's theorem has them.
ORDERS = {(2 * p + r, r + 2 * p2): (p, p2, r) for p in range(3) for p2 in range(3) for r in (0, 1)}
ORDERS = {ij: times for ij, times in ORDERS.items() if sum(ij) in (2, 4)}


@functools.cache
def moments(name: str):
    one = lambda a, b, c: ko.pair_moments(ACTIVATIONS[name][0], a[None], b[None], c[None, None], 2)
    return jax.jit(lambda a, b, c: jax.tree.map(lambda x: x[0, 0], one(a, b, c)))


def difference(function, point, times):
    """The mixed derivative, from steps so small that their truncation is no digit of 64 bits."""
    step = min(abs(x) for x in point if x) * mpf(10) ** -250
    for k, count in enumerate(times):
        for _ in range(count):
            function = functools.partial(_once, function, k, step)
    return function(*point)


def _once(function, k, step, *point):
    at = lambda side: function(*(x + side * step / 2 if i == k else x for i, x in enumerate(point)))
    return (at(1) - at(-1)) / step


def check(name: str, a: float, b: float, corr: float, dtype: str) -> None:
    limit, tolerance = LIMITS[dtype]
    function = ACTIVATIONS[name][1]
    c = corr * (a if a == b else np.sqrt(a) * np.sqrt(b))
    rounded = [np.dtype(dtype).type(x) for x in (a, b, c)]
    found = moments(name)(*(jnp.asarray(x) for x in rounded))
    with mpmath.workdps(1500):
        point = [mpf(float(x)) for x in rounded]
        # Features of the closed forms are next to the origin: a variance below one counts as one.
        unit = [max(x, 1) if name != "relu" else x for x in point[:2]]
        value = lambda q: abs(function(q, q, q / 2))
        natural = mpmath.sqrt(value(point[0]) * value(point[1]))
        for (i, j), (p, p2, r) in ORDERS.items():
            if name == "relu" and abs(corr) == 1:  # second derivatives diverge
                continue
            exact = 2 ** (p + p2) * difference(function, point, (p, p2, r))
            scale = natural / mpmath.sqrt(unit[0] ** i * unit[1] ** j)
            value_found, error = (float(x) for x in found[i, j])
            if abs(exact) > float(np.finfo(dtype).max):
                continue
            away = abs(mpf(value_found) - exact)
            # Below the smallest number there are no digits; a few products come there before the value.
            smallest = mpf(10) ** (6 - 1.26 * limit)
            assert away <= tolerance * (abs(exact) + scale / 100) + smallest, (i, j, a, b, corr)
            assert away <= error + smallest, (i, j, a, b, corr)


POWERS = st.floats(-1, 1)


@pytest.mark.parametrize(
    ("name", "dtype"), [("gelu", "float32"), ("relu", "float32"), ("erf", "float64")]
)
def test_largest_and_smallest(name, dtype):
    limit = LIMITS[dtype][0]
    for power, corr in ((1, 1.0), (1, 0.3), (0.63, -0.9), (-1, 0.3)):
        check(name, 10.0 ** (limit * power), 10.0 ** (limit * power), corr, dtype)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("name", ACTIVATIONS)
@settings(max_examples=10, deadline=None)
@given(power=POWERS, corr=st.sampled_from([1.0, -1.0, 0.0, 0.3, -0.9]))
def test_one_scale(name, dtype, power, corr):
    q = 10.0 ** (LIMITS[dtype][0] * power)
    check(name, q, q, corr, dtype)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("name", ACTIVATIONS)
@settings(max_examples=10, deadline=None)
@given(row=POWERS, column=POWERS, corr=st.sampled_from([0.0, 0.3, -0.9]))
def test_two_scales(name, dtype, row, column, corr):
    limit = LIMITS[dtype][0]
    check(name, 10.0 ** (limit * row), 10.0 ** (limit * column), corr, dtype)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("name", ["erf", "gelu"])
@settings(max_examples=15, deadline=None)
@given(power=POWERS)
def test_derivatives_with_respect_to_the_variance_keep_their_digits(name, dtype, power):
    """E[sigma^2]' and '' at large variance: terms of a lower power of it cancel."""
    limit, tolerance = LIMITS[dtype]
    activation, function = ACTIVATIONS[name]
    q = np.dtype(dtype).type(10.0 ** (limit * power))
    found = [float(x[0]) for x in ko.variance_derivatives(activation, jnp.asarray([q]), 2).value]
    with mpmath.workdps(1500):
        for r in (1, 2):
            exact = difference(lambda q: function(q, q, q), [mpf(float(q))], (r,))
            away = abs(mpf(found[r]) - exact)
            assert away <= tolerance * abs(exact) + mpf(10) ** (6 - 1.26 * limit), r


@pytest.mark.parametrize("name", ["gelu", pytest.param("erf", marks=pytest.mark.slow), "relu"])
@pytest.mark.parametrize(
    "q", [0.0, 1e19, *(pytest.param(q, marks=pytest.mark.slow) for q in (3e9, 1e30))]
)
def test_responses_are_numbers(name, q):
    """Of equal, parallel, orthogonal and opposite inputs, and at zero."""
    x = np.sqrt(q) * np.array([[1.0, 0.0], [1.0, 0.0], [0.5, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.6, 0.8]])
    kernel = jnp.asarray(x @ x.T, jnp.float32)
    found = ko.response(ko.MLP(ACTIVATIONS[name][0], depth=2), kernel)
    for part in (found.diagonal, found.off_diagonal, found.mixed):
        assert np.isfinite(part).all()
    if name != "erf" and q:
        # sigma is a ReLU there, which halves variances.
        assert np.allclose(found.diagonal, 1 / 8, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("corr", [1.0, 0.3])
def test_modes_agree_at_any_scale(name, dtype, corr):
    """Reverse mode multiplies in another order."""
    activation, limit = ACTIVATIONS[name][0], LIMITS[dtype][0]
    moment = lambda v: activation.second_moment(*v)
    forward, mixed = jax.jacfwd(jax.jacfwd(moment)), jax.jacfwd(jax.jacrev(moment))
    both = jax.jit(lambda v: (forward(v), mixed(v), jax.jacfwd(moment)(v), jax.jacrev(moment)(v)))
    for power in (-1, -0.5, 0, 0.3, 0.62, 1):
        q = 10.0 ** (limit * power)
        v = jnp.asarray([q, q, corr * q], dtype)
        second, other, first, reverse = (np.asarray(x, float) for x in both(v))
        size = float(variance_moment(activation, v[0])) / q
        smallest = 10.0 ** (6 - 1.26 * limit)
        assert np.allclose(first, reverse, rtol=1e-4, atol=1e-6 * size + smallest)
        assert np.allclose(second, other, rtol=1e-4, atol=1e-6 * size / q + smallest)


def test_a_covariance_that_rounding_puts_out_of_reach():
    """E[sin^2] = 1/2, though cov - var is no small number there."""
    q = jnp.asarray(1e8, jnp.float32)
    found = ko.Sin().second_moment(q, q, jnp.nextafter(q, 2 * q))
    assert abs(float(found) - 0.5) < 1e-6
