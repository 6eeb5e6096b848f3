"""Pair moments against high-precision references: values, derivatives, error estimates."""

import functools
import json
import math
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernelode as ko
from kernelode._activation.base import AbstractAutonomousActivation, derivatives
from kernelode._expectation import pair_moment
from kernelode._expectation.variance import sum_at_once, sum_in_turn

REFERENCE = json.loads(
    (pathlib.Path(__file__).parent / "data" / "expectation_reference.json").read_text()
)
hard_tanh = lambda x: jnp.clip(x, -1, 1)
relu = lambda x: jnp.maximum(x, 0)
SMOOTH = {
    "tanh": ko.Tanh(),
    "erf": ko.Erf(),
    "gelu": ko.GELU(),
    "softplus": ko.Softplus(),
    "swish": ko.Swish(),
    "sin": ko.Sin(),
    "linear": ko.Linear(),
    "polynomial": ko.Polynomial(REFERENCE["polynomial"]),
    "erf elementwise": ko.Elementwise(jax.scipy.special.erf),
}
HOMOGENEOUS = {"relu": ko.ReLU(), "leaky_relu": ko.LeakyReLU(REFERENCE["leaky_slope"])}
KINKED = {
    "relu elementwise": ko.Elementwise(relu, kinks=(0.0,)),
    "hard_tanh": ko.Elementwise(hard_tanh, kinks=(-1.0, 1.0)),
}
UNDECLARED = {"relu undeclared": ko.Elementwise(relu), "hard_tanh undeclared": ko.Elementwise(hard_tanh)}
TOLERANCE = {"float64": (1e-10, 1e-8, 1e-8, 1e-6), "float32": (2e-5, 1e-3, 1e-3, 1e-2)}


def cases(name: str) -> list[dict]:
    return REFERENCE["moments"][name.split()[0]]


def listed(case: dict, i: int, j: int) -> Any:
    return case["moments"].get(f"{i}{j}", case["moments"].get(f"{j}{i}"))


def natural_scale(name: str, case: dict, i: int, j: int) -> float:
    """sqrt(E[(sigma^(i))^2] E[(sigma^(j))^2]); where infinite, E[sigma sigma] / (a^(i/2) b^(j/2))."""
    norms, a, b = REFERENCE["norms"][name.split()[0]], case["a"], case["b"]
    rows, columns = norms[repr(a)], norms[repr(b)]
    if max(i, j) < len(rows):
        return math.sqrt(rows[i] * columns[j])
    return math.sqrt(rows[0] * columns[0]) / (a ** (i / 2) * b ** (j / 2))


@functools.cache
def evaluated(name: str, dtype: str, order: int):
    """Per entry of every case: (case, (i, j), value, estimate, truth, size for relative errors)."""
    activation = {**SMOOTH, **HOMOGENEOUS, **KINKED, **UNDECLARED}[name]
    a, b, rho = (np.array([case[key] for case in cases(name)]) for key in ("a", "b", "rho"))
    one = lambda a, b, c: ko.pair_moments(activation, a[None], b[None], c[None, None], order)
    inputs = (jnp.asarray(x, dtype) for x in (a, b, rho * np.sqrt(a * b)))
    # One after the other: under vmap each would be integrated in every way that one of them needs.
    found = jax.jit(lambda *x: jax.lax.map(lambda y: one(*y), x))(*inputs)
    entries = []
    for (i, j), moments in found.items():
        assert moments.value.dtype == moments.error.dtype == dtype
        for case, value, error in zip(cases(name), moments.value.ravel(), moments.error.ravel()):
            truth = listed(case, i, j)
            if truth is not None:
                size = max(abs(truth), natural_scale(name, case, i, j) / 100)
                entries.append((case, (i, j), float(value), float(error), truth, size))
    return entries


def unbounded(entries):
    return [entry for entry in entries if not abs(entry[2] - entry[4]) <= entry[3] + 1e-30]


#: Softplus and a user's function are integrated over the plane as Swish is.
SLOW = pytest.param("swish", marks=pytest.mark.slow)


@pytest.mark.parametrize("name", [SLOW if name == "swish" else name for name in [*SMOOTH, *HOMOGENEOUS]])
def test_reference(name):
    """Values to 1e-10, first and second derivatives to 1e-8, third to 1e-6, variances up to 20.

    The estimates bound the errors, at variances of 100 and 400 too, and claim as many digits.
    """
    entries = evaluated(name, "float64", 3)
    assert not unbounded(entries)
    for case, (i, j), value, error, truth, size in entries:
        tolerance = TOLERANCE["float64"][(i + j) // 2]
        if case["a"] > 20:  # no contract, but nothing breaks down
            tolerance = (1e-6, 1e-4, 1e-2, 1e-1)[(i + j) // 2]
        assert abs(value - truth) <= tolerance * size, (case, i, j, value, truth)
        if name in SMOOTH and size > 0:
            assert error <= tolerance * size, (case, i, j, error)


@pytest.mark.parametrize("name", KINKED)
def test_declared_kinks(name):
    """Mehler's series converges slowly at a kink: fewer digits than for the closed forms."""
    entries = evaluated(name, "float64", 3)
    assert not unbounded(entries)
    for case, (i, j), value, error, truth, size in entries:
        tolerance = (1e-8, 1e-5, 2e-4, 0.3)[(i + j) // 2]
        assert math.isfinite(error)
        assert abs(value - truth) <= tolerance * size, (case, i, j, value, truth)


@pytest.mark.parametrize("name", UNDECLARED)
def test_estimate_shows_an_undeclared_kink(name):
    """Errors are bounded, and what contains delta functions is not claimed to be known."""
    entries = evaluated(name, "float64", 2)
    assert not unbounded(entries)
    seen = [entry for entry in entries if entry[0]["a"] == entry[0]["b"] == 1]
    assert all(math.isinf(error) for _, ij, _, error, _, _ in seen if max(ij) >= 2)
    assert any(error > 1e-9 * size for _, ij, _, error, _, size in seen if ij == (0, 0))


@pytest.mark.parametrize("name", ["tanh", "gelu", "relu"])
def test_float32(name):
    entries = evaluated(name, "float32", 2)
    for case, (i, j), value, _, truth, size in entries:
        if case["a"] <= 20:
            tolerance = TOLERANCE["float32"][(i + j) // 2]
            assert abs(value - truth) <= tolerance * size, (case, i, j, value, truth)


@pytest.mark.parametrize("name", ["tanh", "softplus", "gelu", "polynomial"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_variance_derivatives(name, dtype):
    """(d/dq)^r E[sigma^2] = sum_k binom(2r, k) E[sigma^(k) sigma^(2r-k)] / 2^r."""
    chosen = [case for case in cases(name) if case["a"] == case["b"] and case["rho"] == 1]
    q = jnp.asarray([case["a"] for case in chosen], dtype)
    found = jax.jit(lambda q: ko.variance_derivatives(SMOOTH[name], q, 3))(q)
    for k, case in enumerate(chosen):
        for r in range(4):
            terms = [math.comb(2 * r, m) * listed(case, m, 2 * r - m) for m in range(2 * r + 1)]
            truth, rounding = sum(terms) / 2**r, 4e-16 * sum(map(abs, terms)) / 2**r
            input_rounding = float(jnp.finfo(dtype).eps) * abs(truth) * 4
            error = abs(float(found.value[r, k]) - truth)
            assert error <= float(found.error[r, k]) + rounding + input_rounding, (case["a"], r)
            if case["a"] <= 20 and dtype == "float64":
                assert error <= TOLERANCE["float64"][r] * abs(truth) + rounding


@pytest.mark.parametrize("fn,kinks", [(relu, (0.0,)), (hard_tanh, (-1.0, 1.0))])
def test_variance_derivatives_with_kinks(fn, kinks):
    q = jnp.array([1e-3, 0.1, 1.0, 5.0, 20.0])
    function = jax.jit(lambda q, activation: ko.variance_derivatives(activation, q, 3), static_argnums=1)
    declared, undeclared = function(q, ko.Elementwise(fn, kinks)), function(q, ko.Elementwise(fn))
    allowed = declared.error + undeclared.error
    assert jnp.all(jnp.abs(declared.value - undeclared.value) <= allowed)
    if fn is relu:
        exact = jnp.stack([q / 2, jnp.full_like(q, 0.5), 0 * q, 0 * q])
        assert jnp.all(jnp.abs(declared.value - exact) <= declared.error)
        assert jnp.allclose(declared.value[:2], exact[:2], rtol=1e-12, atol=0)


def by_price(case, direction):
    """d^n/dt^n of E[sigma sigma] along (a, b, c) + t direction, n = 0 .. 3, from the reference."""
    alpha, beta, gamma = direction
    towers = []
    for n in range(4):
        total = 0.0
        for p in range(n + 1):
            for s in range(n + 1 - p):
                r = n - p - s
                ways = math.factorial(n) / (math.factorial(p) * math.factorial(r) * math.factorial(s))
                weight = ways * (alpha / 2) ** p * (beta / 2) ** s * gamma**r
                total += weight * listed(case, 2 * p + r, r + 2 * s)
        towers.append(total)
    return np.array(towers)


def along(activation, direction, a, b, c, order=3):
    """The same by nested forward differentiation of `pair_moment`."""
    alpha, beta, gamma = direction

    def function(t):
        at = (a + alpha * t, b + beta * t, c + gamma * t)
        return pair_moment(activation, at[0][None], at[1][None], at[2][None, None])[0, 0]

    return derivatives(function, jnp.zeros_like(a), order)


SINGULAR = [(1.0, 1.0, 1.0), (1.0, 1.0, -1.0), (1.0, 0.3, 1.0), (1.0, 0.3, -1.0), (5.0, 5.0, 0.99)]


@pytest.mark.parametrize("name", ["tanh", "softplus", "erf", "gelu", "sin", "polynomial"])
def test_third_derivatives_on_singular_blocks(name):
    """jvp of jvp of jvp, under jit and vmap, for equal, anti-parallel and parallel inputs."""
    direction = (0.7, -0.4, 0.3)
    chosen = [case for case in cases(name) if (case["a"], case["b"], case["rho"]) in SINGULAR]
    a, b, rho = (jnp.array([case[key] for case in chosen]) for key in ("a", "b", "rho"))
    function = functools.partial(along, SMOOTH[name], direction)
    found = jax.jit(jax.vmap(function))(a, b, rho * jnp.sqrt(a * b))
    for case, values in zip(chosen, found):
        expected = by_price(case, direction)
        scale = np.maximum(np.abs(expected), 1e-2)
        assert np.all(np.abs(values - expected) <= np.array(TOLERANCE["float64"]) * scale), case


@pytest.mark.parametrize("name", ["tanh", "erf"])
def test_reverse_mode_on_singular_blocks(name):
    """Gradient and Hessian (forward over reverse) of E[sigma sigma] in (a, b, c)."""

    def function(v):
        return pair_moment(SMOOTH[name], v[:1], v[1:2], v[2:, None])[0, 0]

    chosen = [case for case in cases(name) if (case["a"], case["b"], case["rho"]) in SINGULAR]
    points = jnp.array([[x["a"], x["b"], x["rho"] * math.sqrt(x["a"] * x["b"])] for x in chosen])
    gradients = jax.jit(jax.vmap(jax.grad(function)))(points)
    hessians = jax.jit(jax.vmap(jax.hessian(function)))(points)
    steps = {0: (2, 0), 1: (0, 2), 2: (1, 1)}
    half = {0: 0.5, 1: 0.5, 2: 1.0}
    for case, gradient, hessian in zip(chosen, gradients, hessians):
        for k in range(3):
            assert gradient[k] == pytest.approx(half[k] * listed(case, *steps[k]), rel=1e-8, abs=1e-10)
            for m in range(3):
                truth = listed(case, steps[k][0] + steps[m][0], steps[k][1] + steps[m][1])
                assert hessian[k, m] == pytest.approx(half[k] * half[m] * truth, rel=1e-8, abs=1e-10)


@pytest.mark.parametrize("a", [0.0, 0.7])
@pytest.mark.parametrize("name", ["softplus", "gelu", "polynomial"])
def test_zero_variance(name, a):
    """x or both inputs identically zero: derivatives factor into sigma^(k)(0) and E[sigma^(k)(y)]."""
    direction, activation = (0.7, -0.4, 0.3), SMOOTH[name]
    z, step = np.linspace(-10, 10, 401, retstep=True)
    density = step * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    tower = jax.jit(lambda x: derivatives(activation, x, 6))
    at_zero = np.asarray(tower(jnp.zeros(1)))[:, 0]
    average = np.asarray(tower(jnp.asarray(math.sqrt(a) * z))) @ density
    moments = {f"{i}{j}": at_zero[i] * average[j] for i in range(7) for j in range(7)}
    zero, a = jnp.zeros(()), jnp.asarray(a)
    found = jax.jit(functools.partial(along, activation, direction))(zero, a, zero)
    assert np.allclose(found, by_price({"moments": moments}, direction), rtol=1e-9, atol=1e-10)
    gradient = jax.jit(jax.grad(lambda v: pair_moment(activation, v[:1], v[1:2], v[2:, None])[0, 0]))
    expected = [moments["20"] / 2, moments["02"] / 2, moments["11"]]
    assert np.allclose(gradient(jnp.stack([zero, a, zero])), expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", [*HOMOGENEOUS, "relu elementwise", "hard_tanh"])
def test_kinks_on_singular_blocks(name):
    """Finite everywhere; where inputs stay parallel, right: E[sigma sigma] grows like the kernel."""
    activation = {**HOMOGENEOUS, **KINKED}[name]
    a, b = jnp.array([1.0, 1.0, 1.0, 0.0, 0.0]), jnp.array([1.0, 0.25, 0.25, 2.0, 0.0])
    c = jnp.array([1.0, 0.5, -0.5, 0.0, 0.0])
    order = 3 if name in HOMOGENEOUS else 1
    tangents = jax.jit(jax.vmap(lambda a, b, c: along(activation, (a, b, c), a, b, c, order)))(a, b, c)
    assert jnp.all(jnp.isfinite(tangents))
    gradient = jax.grad(lambda v: pair_moment(activation, v[:1], v[1:2], v[2:, None])[0, 0])
    assert jnp.all(jnp.isfinite(jax.jit(jax.vmap(gradient))(jnp.stack([a, b, c], axis=1))))
    if name in HOMOGENEOUS:
        assert jnp.allclose(tangents[:, 1], tangents[:, 0], rtol=1e-13)
        assert jnp.allclose(tangents[:, 2:], 0, atol=1e-13)


@pytest.mark.parametrize("name", ["tanh", SLOW, "gelu", "leaky_relu", "hard_tanh"])
def test_symmetry_and_positivity(name):
    """E[sigma(x) sigma(y)] is symmetric, a PSD matrix over any inputs, its diagonal E[sigma^2]."""
    activation = {**SMOOTH, **HOMOGENEOUS, **KINKED}[name]
    x = jax.random.normal(jax.random.key(0), (12, 3)) * jnp.linspace(0.01, 2, 12)[:, None]
    x = x.at[3].set(x[2]).at[4].set(-x[2]).at[5].set(0)
    kernel = x @ x.T
    q = jnp.diag(kernel)
    moments = jax.jit(lambda q, k: ko.pair_moments(activation, q, q, k))(q, kernel)[0, 0]
    value = moments.value
    assert jnp.allclose(value, value.T, rtol=0, atol=1e-14 * jnp.max(value))
    tolerance = float(jnp.sum(moments.error)) + 1e-13
    assert jnp.linalg.eigvalsh((value + value.T) / 2)[0] >= -tolerance
    diagonal = jax.jit(lambda q: ko.variance_derivatives(activation, q, 0))(q)
    allowed = jnp.diag(moments.error) + diagonal.error[0]
    assert jnp.all(jnp.abs(jnp.diag(value) - diagonal.value[0]) <= allowed)


def test_sums_over_nodes_do_not_depend_on_the_platform():
    """What runs on CPUs, and what runs elsewhere."""
    nodes, weights = jnp.linspace(-1.0, 2.0, 7), jnp.linspace(0.1, 0.9, 7)
    q = jnp.array([0.3, 1.0, 5.0])
    function = lambda z: [jnp.tanh(q * z), jnp.ones_like(q), jnp.exp(-q * z**2)]
    in_turn, at_once = (way(function, nodes, weights) for way in (sum_in_turn, sum_at_once))
    assert in_turn.shape == (3, 3)
    assert jnp.allclose(in_turn, at_once, rtol=1e-14)
    assert jnp.allclose(in_turn[1], jnp.sum(weights), rtol=1e-14)


@pytest.mark.parametrize("q", [1e-3, 0.1, 1.0, 5.0, 20.0, 100.0, 400.0, 2000.0])
def test_variance_derivatives_of_tanh_at_any_variance(q):
    """(d/dq)^r E[tanh^2] = E[f^(2r)] / 2^r by many nodes in extended precision. The estimate bounds the
    error, and the half of the usual nodes that is enough here is: errors are those of rounding, which
    sigma' as a factor keeps from growing as fast as the derivatives of a step do."""
    step = np.longdouble(0.001)
    x = step * np.arange(-9000, 9001)
    z = np.sinh(x) / 100
    weight = step * np.cosh(x) / 100 * np.exp(-(z**2) / 2) / np.sqrt(2 * np.arctan(np.longdouble(1)) * 4)
    t = np.tanh(np.sqrt(np.longdouble(q)) * z)
    rate, row = np.polynomial.Polynomial([1, 0, -1]), np.polynomial.Polynomial([0, 2])
    exact, slope = [weight @ t**2], 2 * t * (1 - t) * (1 + t)
    for r in range(1, 4):
        row = (rate * row).deriv()
        exact.append(weight @ ((1 - t) * (1 + t) * row(t)) / 2**r)
        row = (rate * row).deriv()
        if q > 1000:
            # There all of E[f^(2r)] but 1/q^r cancels, extended precision or not: by parts, nothing does.
            hermite = np.polynomial.hermite_e.hermeval(z, [0] * (2 * r - 1) + [1])
            exact[-1] = weight @ (slope * hermite) / np.longdouble(q) ** (r - 0.5) / 2**r
    found = ko.variance_derivatives(ko.Tanh(), jnp.array([q]), 3)
    error = np.abs(np.asarray(found.value)[:, 0] - np.array(exact, float))
    assert np.all(error <= np.asarray(found.error)[:, 0])
    if q <= 100:
        assert np.all(error <= np.abs(exact) * [1e-14, 1e-12, 1e-10, 1e-6])


class Logistic(AbstractAutonomousActivation):
    """sigma(x) = 1 / (1 + exp(-x)), which is not odd: sigma' = sigma - sigma^2."""

    def __call__(self, x):
        return jax.nn.sigmoid(x)

    @property
    def slope_polynomial(self):
        return (0.0, 1.0, -1.0)


def test_an_activation_that_solves_an_equation():
    """A polynomial for sigma' gives the derivatives that JAX gives."""
    q = jnp.array([0.0, 0.01, 1.0, 20.0])
    found = ko.variance_derivatives(Logistic(), q, 3)
    expected = ko.variance_derivatives(ko.Elementwise(jax.nn.sigmoid), q, 3)
    assert jnp.all(jnp.abs(found.value - expected.value) <= found.error + expected.error)
    assert jnp.allclose(found.value, expected.value, rtol=1e-8)


def test_shorter_formulas_of_one_variance():
    """E[sigma^2] is E[sigma sigma] at equal inputs."""
    q = jnp.array([0.0, 0.01, 1.0, 20.0])
    for activation in (ko.Erf(), ko.Sin(1.3), ko.GELU(), ko.ReLU(), ko.LeakyReLU(0.2)):
        own, general = activation.variance_moment(q), activation.second_moment(q, q, q)
        assert jnp.allclose(own, general, rtol=1e-14, atol=0)
