"""High degrees of single inputs along a flow, which have no state: against towers that integrate them."""

import functools
import math
import zlib

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernelode as ko

from .helpers import TOWER_ACTIVATIONS as ACTIVATIONS


@functools.cache
def solver(name: str, closure: ko.WickTower):
    """V4, K1 and their errors, in the stream and in the read-out, for a batch of flows of one input."""

    def one(q, weight_variance, bias_variance, t):
        net = ko.ResNet(
            ACTIVATIONS[name],
            4,
            residual_scale=0.4,
            weight_variance=weight_variance,
            bias_variance=bias_variance,
        )
        found = ko.solve_pairs(net, q[None, None], t[None], closure=closure, max_steps=2**14, throw=False)
        numbers = lambda m: jnp.stack(
            [
                m.kernel_covariance.ravel()[0],
                m.mean_correction.ravel()[0],
                m.covariance_truncation.ravel()[0],
                m.correction_truncation.ravel()[0],
                m.mean_kernel.ravel()[0],
            ]
        )
        return jnp.stack([numbers(found.moments), numbers(found.read_out)])

    # One after the other: `vmap` would trace the flow once more, and go on until the last one ends.
    return eqx.filter_jit(lambda *draws: jax.lax.map(lambda draw: one(*draw), draws))


def draws(name: str, count: int, longest: float = 2.5):
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    low, high = math.log(0.1), math.log(10.0)
    return (
        jnp.asarray(np.exp(rng.uniform(low, high, count))),
        jnp.asarray(rng.uniform(0.8, 2.2, count)),
        jnp.asarray(rng.choice([0.0, 0.1], count)),
        jnp.asarray(np.exp(rng.uniform(math.log(0.1), math.log(longest), count))),
    )


def check(name: str, order: int, count: int, *, reference: int = 240, longest: float = 2.5):
    """The errors are within what is reported. How much larger that is, and the plain tower's
    error, for V4 and K1."""
    arguments = draws(name, count, longest)
    found = np.asarray(solver(name, ko.WickTower(order))(*arguments))
    plain = np.asarray(solver(name, ko.WickTower(order, single_order=order))(*arguments))
    true = np.asarray(solver(name, ko.WickTower(4, single_order=reference))(*arguments))
    assert np.all(np.isfinite(found))
    size = np.stack([true[..., 4] ** 2, true[..., 4]], axis=-1)
    error, reported = np.abs(found - true)[..., :2], found[..., 2:4]
    known = true[..., 2:4] < 0.1 * reported + 1e-9 * size
    rounding = 3e-8 * size
    assert np.all((error <= reported + true[..., 2:4] + rounding) | ~known), (name, order)
    before = np.abs(plain - true)[..., :2]
    counted = error > rounding
    ratios = [(reported / error)[..., i][(known & counted)[..., i]] for i in (0, 1)]
    gains = [(before / error)[..., i][counted[..., i]] for i in (0, 1)]
    return ratios, gains


#: The published setting, and one of a broad spectrum: relative errors of V4 and K1 of a calculation of
#: its own, to second order with the start.
TABLE = {
    ("tanh", 8): (-6.1e-5, -5.6e-3),
    ("tanh", 16): (-6.9e-6, -1.1e-3),
    ("tanh", 32): (-3.0e-7, -8.2e-5),
    ("erf", 8): (-8.8e-6, -4.5e-3),
    ("erf", 16): (-2.3e-6, -1.9e-3),
    ("erf", 32): (-3.0e-7, -4.1e-4),
}
SETTINGS = {"tanh": (2.0, 2.0, 0.0, 2.0), "erf": (4.0, 1.5, 0.0, 1.0)}


@pytest.mark.parametrize("name", ["erf", pytest.param("tanh", marks=pytest.mark.slow)])
def test_published_orders(name):
    """Relative errors, as a calculation of its own has them; what is reported is larger."""
    setting = [jnp.asarray([x]) for x in SETTINGS[name]]
    true = np.asarray(solver(name, ko.WickTower(100))(*setting))[0, 0]
    found = np.asarray(solver(name, ko.WickTower(16))(*setting))[0, 0]
    error = found[:2] - true[:2]
    assert np.allclose(error / true[:2], TABLE[name, 16], rtol=0.05)
    assert np.all(np.abs(error) < found[2:4]) and np.all(found[2:4] < 120 * np.abs(error))


@pytest.mark.slow
@pytest.mark.parametrize("key", TABLE, ids=str)
def test_published_table(key):
    name, order = key
    setting = [jnp.asarray([x]) for x in SETTINGS[name]]
    true, found = (np.asarray(solver(name, ko.WickTower(p))(*setting))[0, 0, :2] for p in (100, order))
    assert np.allclose((found - true) / true, TABLE[key], rtol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_errors_in_random_draws(name):
    for order in (8, 16):
        ratios, gains = check(name, order, 12, longest=1.0 if name == "square" else 2.5)
        for kind, ratio, gain in zip(("V4", "K1"), ratios, gains):
            if len(ratio) > 5:
                print(name, order, kind, np.quantile(ratio, [0, 0.5, 0.9]), np.median(gain))


KERNEL = jnp.array([[2.0, 0.5], [0.5, 0.7]])


def network(activation, weight_variance=1.5, bias_variance=0.1):
    return ko.ResNet(
        activation, 3, residual_scale=0.4, weight_variance=weight_variance, bias_variance=bias_variance
    )


@pytest.mark.parametrize(
    "closure",
    [pytest.param(ko.WickTower(4), marks=pytest.mark.slow), ko.WickTower(4).pairs()],
    ids=["all", "pairs"],
)
def test_rate_is_the_derivative_of_push(closure):
    net = network(ko.GELU())
    closure = closure.prepare(net, KERNEL, jnp.asarray([0.5]))

    @eqx.filter_jit
    def push(state, e):
        layer = eqx.tree_at(lambda x: x.scale, net.flow_layer(), jnp.sqrt(e))
        return closure.push(net, state, layer)

    # A state on its way.
    state = eqx.filter_jit(closure.init)(net, KERNEL)
    for _ in range(3):
        state = push(state, jnp.asarray(0.16))
    rate = eqx.filter_jit(closure.rate)(net, state, net.flow_layer()).singles.tail
    low, high = (push(state, jnp.asarray(e)).singles.tail for e in (1e-4, 2e-4))
    slope = jax.tree.map(lambda f0, f1, f2: (4 * f1 - f2 - 3 * f0) / 2e-4, state.singles.tail, low, high)
    for one, other in zip(slope, rate):
        assert jnp.max(jnp.abs(one - other)) <= 1e-6 * jnp.max(jnp.abs(other)) + 1e-10


def test_layers_have_no_tail():
    net = network(ko.Erf())
    for closure in (ko.WickTower(6), ko.WickTower(6).pairs()):
        found = ko.propagate(net, KERNEL, closure=closure)
        assert found.state.singles.tail is None


@pytest.mark.parametrize(
    "net",
    [network(ko.Erf()), pytest.param(ko.MLP(ko.Erf(), 3, weight_variance=1.5), marks=pytest.mark.slow)],
    ids=["stream", "feed-forward"],
)
def test_the_closure_of_a_flow_through_layers(net):
    """It is a tower without a tail there, whose bound holds."""
    closure = ko.WickTower(6).pairs().prepare(network(ko.Erf()), KERNEL, jnp.asarray([0.5]))
    found, same = (
        ko.propagate_pairs(net, KERNEL, closure=c, layers=[3]).read_out
        for c in (closure, ko.WickTower(6, single_order=6))
    )
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(same), strict=True):
        assert jnp.array_equal(one, other)


@pytest.mark.slow
def test_a_read_out_unlike_the_flow():
    """What it meets is the memory of the flow, whatever its own variances are."""
    net = ko.ResNet(
        ko.Tanh(),
        3,
        residual_scale=0.4,
        weight_variance=1.5,
        bias_variance=1.5,
        output_weight_variance=0.5,
        output_bias_variance=0.0,
    )
    closures = ko.WickTower(16), ko.WickTower(16, single_order=16), ko.WickTower(4, single_order=120)
    found, plain, true = (
        ko.solve_pairs(net, KERNEL[:1, :1], [1.0], closure=c).read_out for c in closures
    )
    for value, reported in (
        ("kernel_covariance", "covariance_truncation"),
        ("mean_correction", "correction_truncation"),
    ):
        error, before = (abs(getattr(x, value) - getattr(true, value)).ravel()[0] for x in (found, plain))
        assert error < before / 3 and error < getattr(found, reported).ravel()[0]


def test_inputs_without_a_tail():
    """A zero input, and a kernel that does not grow: the plain tower and its bound."""
    cases = [jnp.asarray(x) for x in ([0.0, 0.7], [1.5, 0.0], [0.1, 0.0], [0.5, 0.5])]
    found = solver("erf", ko.WickTower(4))(*cases)
    plain = solver("erf", ko.WickTower(4, single_order=4))(*cases)
    assert jnp.all(jnp.isfinite(found)) and jnp.max(jnp.abs(found - plain)) < 1e-9


@pytest.mark.slow
def test_derivatives_and_single_precision():
    def value(q, dtype=jnp.float64):
        net = network(ko.Erf())
        kernel = jnp.asarray([[1.0]], dtype) * q
        m = ko.solve_pairs(net, kernel, jnp.asarray([1.0], dtype), closure=ko.WickTower(6)).moments
        return m.mean_correction[0, 0, 0]

    value = eqx.filter_jit(value)
    slope = jax.jit(jax.grad(value))(2.0)
    difference = (value(2.001) - value(1.999)) / 0.002
    assert abs(slope - difference) < 1e-5 * abs(difference)
    assert jnp.allclose(jax.vmap(value)(jnp.asarray([2.0, 0.5]))[0], value(2.0))
    for q in (0.0, 2.0):
        assert jnp.isfinite(jax.jit(jax.grad(value))(q))
    single = value(jnp.asarray(2.0, jnp.float32), jnp.float32)
    assert single.dtype == jnp.float32 and abs(float(single) / float(value(2.0)) - 1) < 1e-3
