"""Estimates of the error of Gaussian expectations bound it: random draws against piecewise quadrature."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.polynomial.hermite_e import hermevander
from numpy.polynomial.legendre import leggauss

import kernelode as ko

REACH, TOP = 13.0, 6
POINTS, STEPS = leggauss(20)
AROUND = np.concatenate([-np.geomspace(100, 1, 5), [0], np.geomspace(1, 100, 5)])

sigmoid = lambda x: 1 / (1 + np.exp(-np.clip(x, -700, 700)))
bent_tanh = lambda x: jnp.where(x > 3, jnp.tanh(3.0) + 0.5 * (x - 3), jnp.tanh(x))
elu = lambda x: jnp.where(x > 0, x, 0.5 * jnp.expm1(jnp.minimum(x, 0)))
# The activation, the same in numpy, and where it changes over which width: a kink over none.
ACTIVATIONS = {
    "tanh": (ko.Tanh(), np.tanh, [(0.0, 0.3)]),
    "softplus": (ko.Softplus(), lambda x: np.logaddexp(0, x), [(0.0, 0.3)]),
    "relu": (ko.ReLU(), lambda x: np.maximum(x, 0), [(0.0, 1e-9)]),
    "undeclared in zero": (ko.Elementwise(jnp.abs), np.abs, [(0.0, 1e-9)]),
    "undeclared": (
        ko.Elementwise(lambda x: jnp.maximum(x, -1.0)),
        lambda x: np.maximum(x, -1.0),
        [(-1.0, 1e-9)],
    ),
    "declared": (
        ko.Elementwise(lambda x: jnp.clip(x, -1, 1), kinks=(-1.0, 1.0)),
        lambda x: np.clip(x, -1, 1),
        [(-1.0, 1e-9), (1.0, 1e-9)],
    ),
    "half declared": (
        ko.Elementwise(lambda x: jnp.clip(x, -1, 1), kinks=(-1.0,)),
        lambda x: np.clip(x, -1, 1),
        [(-1.0, 1e-9), (1.0, 1e-9)],
    ),
    "curved and kinked": (
        ko.Elementwise(elu, kinks=(0.0,)),
        lambda x: np.where(x > 0, x, 0.5 * np.expm1(np.minimum(x, 0))),
        [(0.0, 1e-9)],
    ),
    "undeclared far out": (
        ko.Elementwise(bent_tanh),
        lambda x: np.where(x > 3, np.tanh(3.0) + 0.5 * (x - 3), np.tanh(x)),
        [(0.0, 0.3), (3.0, 1e-9)],
    ),
    "steep": (
        ko.Elementwise(lambda x: jax.nn.sigmoid(20 * x - 40)),
        lambda x: sigmoid(20 * x - 40),
        [(2.0, 0.02)],
    ),
    "bump": (
        ko.Elementwise(lambda x: jnp.exp(-50 * (x - 3) ** 2)),
        lambda x: np.exp(-50 * (x - 3) ** 2),
        [(3.0, 0.05)],
    ),
    "oscillating": (ko.Elementwise(lambda x: jnp.sin(3 * x)), lambda x: np.sin(3 * x), []),
}


def panels(points: np.ndarray):
    """Nodes and weights of averages over a standard normal, on panels that end at the points."""
    base = np.broadcast_to(np.linspace(-REACH, REACH, 27), (*points.shape[:-1], 27))
    edges = np.sort(np.concatenate([base, np.clip(points, -REACH, REACH)], axis=-1))
    middle, half = (edges[..., 1:] + edges[..., :-1]) / 2, np.diff(edges) / 2
    z = (middle[..., None] + half[..., None] * POINTS).reshape(*points.shape[:-1], -1)
    weights = (half[..., None] * STEPS).reshape(z.shape)
    return z, weights * np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)


def truth(fn, features, a: float, b: float, corr: float):
    """c_jk, and sqrt(E[sigma_a^2] E[sigma_b^2])."""
    across, root_a, root_b = math.sqrt(1 - corr**2), math.sqrt(a), math.sqrt(b)
    x = np.array([center + width * AROUND for center, width in features]).reshape(-1)
    # What is sharp in y, smoothed by v, bends the outer integrand over a width of corr'/corr.
    seen = [center / (root_b * corr) + 3 * across / abs(corr) * AROUND for center, _ in features]
    u, u_weights = panels(np.concatenate([x / root_a, x / (root_b * corr), *seen]))
    v, v_weights = panels((x[None] / root_b - corr * u[:, None]) / across)
    h = lambda z: hermevander(z, TOP) / np.sqrt([math.factorial(m) for m in range(TOP + 1)])
    inner = np.einsum("uv,uvk->uk", fn(root_b * (corr * u[:, None] + across * v)) * v_weights, h(v))
    value = np.einsum("u,uj,uk->jk", u_weights * fn(root_a * u), h(u), inner)
    square = lambda root: np.sum((f := panels(x / root))[1] * fn(root * f[0]) ** 2)
    return value, math.sqrt(square(root_a) * square(root_b))


def draw(random, largest: float):
    a, b = 10 ** random.uniform(-3, math.log10(largest), 2)
    corr = random.choice([-1, 1]) * (1 - 0.999 * 10 ** random.uniform(-3, -0.01))
    return a, b, corr


def check_draws(name: str, draws: int, seed: int = 3) -> None:
    activation, fn, features = ACTIVATIONS[name]
    closure, network = ko.WickTower(4).pairs(), ko.ResNet(activation, 1)
    estimate = jax.jit(lambda kernel: closure.quadrature_error(network, closure.init(network, kernel)))
    public = jax.jit(lambda a, b, c: ko.pair_coefficients(activation, a, b, c, TOP, terms=256))
    kept = np.add.outer(np.arange(TOP + 1), np.arange(TOP + 1)) <= TOP
    random = np.random.default_rng(seed)
    for _ in range(draws):
        a, b, corr = draw(random, 10.0 if name == "oscillating" else 1e3)
        c = corr * math.sqrt(a * b)
        expected, size = truth(fn, features, a, b, corr)
        if size < 1e-200:
            continue
        found = public(*(jnp.asarray(x) for x in (a, b, c)))
        error = np.max(np.abs(np.asarray(found.value) - expected) * kept)
        rounding = 3e-14 * size  # of the reference
        assert error <= float(jnp.max(found.error)) + rounding, (a, b, corr)
        relative = float(estimate(jnp.asarray([[a, c], [c, b]])))
        assert error <= relative * size + rounding, (a, b, corr)


@pytest.mark.parametrize("name", ["undeclared in zero", "steep"])
def test_estimates_bound_the_error(name):
    check_draws(name, 3)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [3, 4])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_estimates_bound_the_error_in_many_draws(name, seed):
    check_draws(name, 15, seed)


def test_a_feature_between_two_nodes():
    """A bump of width 0.1 is 0.004 standard deviations wide, a tenth of the spacing of the finer rule."""
    activation, fn, features = ACTIVATIONS["bump"]
    a, b, corr = 27.0, 547.0, 0.913
    expected, size = truth(fn, features, a, b, corr)
    numbers = jnp.asarray(a), jnp.asarray(b), jnp.asarray(corr * math.sqrt(a * b))
    found = ko.pair_coefficients(activation, *numbers, TOP, terms=128)
    kept = np.add.outer(np.arange(TOP + 1), np.arange(TOP + 1)) <= TOP
    error = np.max(np.abs(np.asarray(found.value) - expected) * kept)
    assert 1e-3 * size < error <= np.max(found.error) < 100 * error


@pytest.mark.slow
def test_estimates_are_small_where_the_rule_is_good():
    for activation in (ko.Tanh(), ko.GELU(), ko.Softplus(), ko.Erf(), ko.ReLU()):
        closure, network = ko.WickTower(8).pairs(), ko.ResNet(activation, 1)
        state = closure.init(network, jnp.asarray([[1.0, 0.3], [0.3, 1.0]]))
        assert jax.jit(closure.quadrature_error)(network, state) < 1e-12


@pytest.mark.parametrize("frequency", [3.0, 30.0])
def test_oscillating_moments_of_the_closure_on_the_kernel_alone(frequency):
    """All second moments of a fast sine vanish but for rounding, which has the scale of its energies."""
    closure, network = ko.GOnly(), ko.ResNet(ko.Sin(frequency), 1)
    state = closure.init(network, 100 * jnp.asarray([[1.0, 0.3], [0.3, 1.0]]))
    assert jax.jit(closure.quadrature_error)(network, state) < 1e-10


KINKED = ko.Elementwise(jax.nn.relu, kinks=(0.0,))


@pytest.mark.slow
@pytest.mark.parametrize("activation", [ko.ReLU(), KINKED, ko.Linear()])
@pytest.mark.parametrize(("dtype", "tiny"), [(jnp.float64, 1e-150), (jnp.float32, 1e-30)])
def test_scales(activation, dtype, tiny):
    """Homogeneous activations have coefficients that scale with the variances, at any scale."""
    pair = jax.jit(lambda a, b, c: ko.pair_coefficients(activation, a, b, c, 4, terms=128))
    spectrum = jax.jit(lambda q: ko.hermite_spectrum(activation, q, 16))
    at = lambda s: pair(*(jnp.asarray(x, dtype) for x in (s, s, s / 2)))
    one, one_spectrum = at(1.0), spectrum(jnp.asarray(1.0, dtype))
    close = 16 * jnp.finfo(dtype).eps
    for s in (tiny, tiny**0.5, tiny**-0.5, 1 / tiny):
        found, along = at(s), spectrum(jnp.asarray(s, dtype))
        assert np.allclose(found.value / s, one.value, rtol=0, atol=close)
        assert np.allclose(along.value / math.sqrt(s), one_spectrum.value, rtol=0, atol=close)
