"""Nearly parallel inputs of activations with declared kinks, beside closed forms and finer integrals."""

import functools

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from mpmath import mpf

import kernelode as ko

RELU = ko.Elementwise(jax.nn.relu, kinks=(0.0,))
CLIP = ko.Elementwise(lambda x: jnp.clip(x, -1, 1), kinks=(-1.0, 1.0))
GAPS = [1e-14, 1e-12, 1e-9, 1e-6, 1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.3, 0.9]


@functools.cache
def compiled(activation, order: int):
    return jax.jit(lambda a, b, c: ko.pair_moments(activation, a, b, c, order, elementwise=True))


def of_relu(a, b, c) -> dict:
    root, angle = mpmath.sqrt(a * b - c**2), mpmath.pi - mpmath.acos(c / mpmath.sqrt(a * b))
    found = {(0, 0): root + angle * c, (1, 1): angle, (2, 0): root / a, (0, 2): root / b}
    return {ij: float(x / (2 * mpmath.pi)) for ij, x in found.items()}


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("a", "b"), [(1.0, 1.0), (0.01, 3.0), (1e60, 1e63)])
def test_relu_by_its_kink(a, b, sign):
    c = sign * (1 - np.array(GAPS)) * np.sqrt(a * b)
    rows, columns = np.full_like(c, a), np.full_like(c, b)
    found = compiled(RELU, 1)(rows, columns, c)
    with mpmath.workdps(50):
        exact = [of_relu(*(mpf(float(x)) for x in pair)) for pair in zip(rows, columns, c)]
    for (i, j), tolerance in {(0, 0): 1e-12, (1, 1): 2e-9, (2, 0): 2e-9, (0, 2): 2e-9}.items():
        value, error = (np.asarray(x) for x in found[i, j])
        away = np.abs(value - np.array([x[i, j] for x in exact]))
        natural = a ** ((1 - i) / 2) * b ** ((1 - j) / 2)
        # The gap of 1e-14 itself is known to one part in a hundred.
        assert np.all(away <= tolerance * natural)
        assert np.all(away <= error)
        # Within a hundred times what rounding of the covariance changes.
        rounding = 1e-12 * natural * np.array(GAPS) ** -0.5
        assert np.all(error <= 100 * (away + rounding))


def slopes_of_clip(a, b, corr):
    """E[sigma' sigma'] by Price's theorem: its derivative E[sigma'' sigma''] is a sum of densities,
    integrated over corr = sin(t), in which sqrt(1 - corr^2) is gone."""

    def density(x, y, corr):
        gap = 1 - corr**2
        form = (x**2 / a - 2 * corr * x * y / mpmath.sqrt(a * b) + y**2 / b) / gap
        return mpmath.exp(-form / 2) / (2 * mpmath.pi * mpmath.sqrt(a * b * gap))

    jumps = [(-1, 1), (1, -1)]
    kinks = lambda corr: sum(s * t * density(x, y, corr) for x, s in jumps for y, t in jumps)
    by_angle = lambda t: kinks(mpmath.sin(t)) * mpmath.cos(t) * mpmath.sqrt(a * b)
    inside = lambda q: mpmath.erf(1 / mpmath.sqrt(2 * q))
    end = mpmath.asin(corr)
    points = [*(end * (1 - mpf(2) ** -k) for k in range(0, 34, 2)), end]
    return inside(a) * inside(b) + mpmath.quad(by_angle, points)


@pytest.mark.slow
@pytest.mark.parametrize("gap", [1e-12, 1e-6, 1e-3])
def test_two_kinks(gap):
    a, b = 2.0, 2.0
    found = compiled(CLIP, 1)(*(jnp.asarray([x]) for x in (a, b, (1 - gap) * a)))[1, 1]
    with mpmath.workdps(30):
        exact = float(slopes_of_clip(mpf(a), mpf(b), mpf(float((1 - gap) * a)) / mpf(a)))
    away = abs(float(found.value[0]) - exact)
    assert away <= 1e-9
    assert away <= float(found.error[0])


@pytest.mark.slow
def test_derivatives_are_those_of_the_values():
    """Through a network's response, by differences of the kernel map."""
    network = ko.MLP(CLIP, depth=1, weight_variance=1.5)
    entry = lambda c: ko.propagate(network, jnp.asarray([[1.0, c], [c, 1.2]]), layers=[1]).mean_kernel[
        0, 0, 1
    ]
    c = (1 - 1e-4) * np.sqrt(1.2)
    step = 1e-6
    slope = (entry(c + step) - entry(c - step)) / (2 * step)
    found = ko.layer_response(network, jnp.asarray([[1.0, c], [c, 1.2]])).chi.off_diagonal[1, 0, 1]
    assert abs(float(found / slope) - 1) < 1e-6


@pytest.mark.slow
def test_single_precision():
    c = (1 - np.array([1e-4, 1e-3, 1e-2], np.float32)) * np.float32(1)
    ones = np.ones_like(c)
    found = compiled(RELU, 1)(ones, ones, c)
    with mpmath.workdps(30):
        exact = [of_relu(mpf(1), mpf(1), mpf(float(x))) for x in c]
    for ij in found:
        away = np.abs(np.asarray(found[ij].value, float) - np.array([x[ij] for x in exact]))
        assert np.all(away <= 2e-6) and np.all(away <= np.asarray(found[ij].error))
