"""Laws of the moments of order 1/n: symmetries, edges, derivatives, precision, the default closure."""

import math
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernelode as ko
from kernelode._closure.chaos_basis import degrees
from kernelode._closure.chaos_couplings import couplings, pair_chaos
from kernelode._closure.elements import PAIR, wishart
from kernelode._closure.tower import source_of_memory, tower_sources
from kernelode._closure.wick_tower_pairs import WickTowerPairs
from kernelode._expectation.input_chaos import input_chaos
from kernelode._expectation.products import PairProducts

from .helpers import OwnField, central_difference, relative_error, resnet
from .test_moments import K2, K4, on_elements


@pytest.mark.slow
def test_covariance_grows_with_the_order():
    net = resnet(ko.GELU(), 4, 1.5, 0.1, rho=0.5)
    covariances = [
        on_elements(ko.propagate(net, K4[:3, :3], closure=closure, layers=[4]).kernel_covariance[0])
        for closure in (ko.GOnly(), ko.WickTower(2), ko.WickTower(6))
    ]
    for lower, higher in zip(covariances, covariances[1:]):
        lowest = jnp.linalg.eigvalsh(higher - lower)[0]
        assert lowest > -1e-12 * jnp.trace(higher)
    assert jnp.linalg.eigvalsh(covariances[1] - covariances[0])[-1] > 1e-3


@pytest.mark.slow
def test_lowest_order_is_the_corrected_g_only_closure():
    # For odd activations p = 2 alone: V4 is that of the G-only closure, K1 has the source
    # 1/2 D^2 Q[V4 - Gamma]. Along the flow: a layer's noise has all degrees in the tower.
    net = resnet(ko.Tanh(), 6, 1.5, 0.1, rho=0.4)
    tower = ko.solve_pairs(net, K2, [1.0], closure=ko.WickTower(2, single_order=2))
    g_only = ko.solve_pairs(net, K2, [1.0], closure=ko.GOnly(corrected=True))
    assert relative_error(tower.kernel_covariance, g_only.kernel_covariance) < 1e-8
    assert relative_error(tower.mean_correction, g_only.mean_correction) < 1e-8


def test_sector_identity():
    # The source of K1, S = 1/2 D^2 Q[C] + sum over all p, is that of the corrected G-only closure at the
    # tower's V4, 1/2 D^2 Q[V4 - Gamma], plus the sum over p != 2.
    net = resnet(ko.GELU(), 3, 1.5, 0.1, rho=0.5)
    closure = ko.WickTower(6, single_order=6).pairs()
    assert isinstance(closure, WickTowerPairs)
    push, layer = eqx.filter_jit(closure.push), jax.tree.map(lambda x: x[0], net.layers())
    state = eqx.filter_jit(closure.init)(net, K2)
    for _ in range(net.depth):
        state = push(net, state, layer)

    @jax.jit
    def both(state):
        d, kernel = degrees(6, 1), closure.mean_kernel(state)
        (qa, c), (_, qb) = kernel
        first, second = (input_chaos(net.activation, q, 8, 256) for q in (qa, qb))
        pair = pair_chaos(net.activation, first, second, qa, qb, c, single=False)
        products = PairProducts(jnp.zeros(5), jnp.zeros(5), jnp.zeros(3))  # of noise and bounds only
        layer = couplings(pair, products, jnp.zeros(2), net.flow_layer().affine, d)
        tower = jax.tree.map(lambda leaf: leaf[0], state.towers)

        v4 = closure.moments(net, state).kernel_covariance[0, 1]
        beyond = v4 - wishart(kernel, PAIR)
        others = jnp.asarray(d.p != 2, float)[None, :, None]
        source = jnp.einsum("xyz,yz->x", layer.curvature, beyond) + source_of_memory(
            layer.sources, tower.memory * others
        )
        return tower_sources(layer, tower).shift, source

    assert relative_error(*both(state)) < 1e-13


@pytest.mark.parametrize("closure", [ko.GOnly(), ko.WickTower(6)], ids=["g_only", "tower"])
def test_symmetries(closure):
    net = resnet(ko.Erf(), 4, 1.5, 0.1, rho=0.5)
    found = ko.propagate(net, K4, closure=closure, layers=[4])
    order = np.array([2, 0, 3, 1])
    permuted = ko.propagate(net, K4[order][:, order], closure=closure, layers=[4])
    expected = found.kernel_covariance[0][np.ix_(order, order, order, order)]
    assert relative_error(permuted.kernel_covariance[0], expected) < 1e-12
    assert relative_error(permuted.mean_correction[0], found.mean_correction[0][order][:, order]) < 1e-12

    # phi_a -> -phi_a is a symmetry of an odd activation without biases.
    net = resnet(ko.Erf(), 4, 1.5, 0.0, rho=0.5)
    signs = jnp.array([1.0, -1.0, 1.0, -1.0])
    outer = signs[:, None] * signs[None, :]
    found = ko.propagate(net, K4, closure=closure, layers=[4])
    flipped = ko.propagate(net, K4 * outer, closure=closure, layers=[4])
    expected = found.kernel_covariance[0] * outer[:, :, None, None] * outer[None, None]
    assert relative_error(flipped.kernel_covariance[0], expected) < 1e-12
    assert relative_error(flipped.mean_correction[0], found.mean_correction[0] * outer) < 1e-12


def test_homogeneous_activations_scale():
    net, closure = resnet(ko.LeakyReLU(0.2), 4, 1.5, 0.0, rho=0.5), ko.WickTower(6)
    one, three = (ko.propagate_pairs(net, scale * K2, closure=closure) for scale in (1, 3))
    assert relative_error(three.kernel_covariance, 9 * one.kernel_covariance) < 1e-13
    assert relative_error(three.mean_correction, 3 * one.mean_correction) < 1e-13


def test_polynomials_terminate():
    # sigma = x^2: f is of degree four.
    net = resnet(ko.Polynomial([0.0, 0.0, 1.0]), 4, 0.3, 0.1, rho=0.4)
    four, nine = (ko.propagate_pairs(net, K2, closure=ko.WickTower(p)) for p in (4, 9))
    assert relative_error(four.kernel_covariance, nine.kernel_covariance) < 1e-13
    assert relative_error(four.mean_correction, nine.mean_correction) < 1e-13


def test_no_skip_is_a_feed_forward_network():
    options: Any = dict(weight_variance=1.5, bias_variance=0.1)
    mlp = ko.MLP(ko.LeakyReLU(0.2), 4, **options)
    net = ko.ResNet(ko.LeakyReLU(0.2), 4, residual_scale=1.0, skip_scale=0.0, **options)
    closure = ko.WickTower(6)
    v, v4 = (ko.propagate(n, K2, closure=closure) for n in (mlp, net))
    k = v4.mean_kernel
    gamma = jnp.einsum("tac,tbd->tabcd", k, k) + jnp.einsum("tad,tbc->tabcd", k, k)
    assert relative_error(v.kernel_covariance + gamma, v4.kernel_covariance) < 1e-13
    assert relative_error(v.mean_correction, v4.mean_correction) < 1e-13


@pytest.mark.slow
def test_depth_converges_to_the_flow():
    closure, t = ko.WickTower(6), 0.64
    flow = ko.solve_pairs(resnet(ko.GELU(), 1, 1.5, 0.1), K2, [t], closure=closure).moments
    errors = []
    for depth in (16, 32):
        net = resnet(ko.GELU(), depth, 1.5, 0.1, rho=math.sqrt(t / depth))
        found = ko.propagate_pairs(net, K2, closure=closure, layers=[depth]).moments
        differences = jax.tree.map(lambda x, y: jnp.max(jnp.abs(x - y)), found, flow)
        errors.append([differences.kernel_covariance, differences.mean_correction])
    assert np.allclose(np.divide(*errors), 2, rtol=0.1)  # of order rho^2 = t / depth


DEGENERATE = [
    ko.Erf(),
    pytest.param(ko.Tanh(), marks=pytest.mark.slow),
    pytest.param(ko.GELU(), marks=pytest.mark.slow),
    pytest.param(ko.ReLU(), marks=pytest.mark.slow),
]


@pytest.mark.parametrize("activation", DEGENERATE, ids=["erf", "tanh", "gelu", "relu"])
def test_degenerate_pairs(activation):
    # One order for all elements: those of single inputs would be more accurate than those of pairs.
    net = resnet(activation, 5, 1.5, 0.1, rho=0.4)
    closure = ko.WickTower(8, single_order=8)
    # All layers, that one program does for all pairs.
    layers = lambda kernel, net=net: ko.propagate_pairs(net, kernel, closure=closure).moments
    pair = lambda kernel: jax.tree.map(lambda x: x[5:], layers(kernel))
    # Duplicates: every entry is that of the input alone.
    alone = ko.propagate(net, jnp.array([[1.2]]), closure=closure, layers=[5]).moments
    twice = pair(jnp.full((2, 2), 1.2))
    expected = jnp.broadcast_to(alone.kernel_covariance.ravel(), (2, 2, 3, 3))
    assert relative_error(twice.kernel_covariance[0], expected) < 1e-10
    assert (
        relative_error(twice.mean_correction[0], jnp.full((2, 2), alone.mean_correction.ravel())) < 1e-9
    )
    # Nearly so, and parallel inputs.
    near = pair(1.2 * jnp.array([[1.0, 1 - 1e-10], [1 - 1e-10, 1.0]]))
    assert relative_error(near.kernel_covariance, twice.kernel_covariance) < 1e-4
    parallel = jnp.array([[1.0, 2.0], [2.0, 4.0]])
    at, close = (pair(parallel * (1 - e * jnp.eye(2)[::-1])) for e in (0.0, 1e-8))
    assert relative_error(close.kernel_covariance, at.kernel_covariance) < 1e-3
    assert relative_error(close.mean_correction, at.mean_correction) < 1e-2
    # An input that is zero, without biases, stays so.
    unbiased = resnet(activation, 5, 1.5, 0.0, rho=0.4)
    zero = layers(jnp.diag(jnp.array([1.0, 0.0])), unbiased)
    leaves = [zero.kernel_covariance, zero.mean_correction]
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in leaves)
    assert jnp.max(jnp.abs(zero.kernel_covariance[:, 1, 1])) == 0


@pytest.mark.slow
def test_read_out_is_one_more_layer():
    # A layer without skip, of the read-out's variances.
    options = dict(weight_variance=1.5, bias_variance=0.1)
    read = dict(output_weight_variance=1.5, output_bias_variance=0.1)
    long, short = (ko.MLP(ko.GELU(), depth, **options, **read) for depth in (4, 3))
    for closure in (ko.WickTower(8), ko.GOnly()):
        expected = ko.propagate_pairs(long, K2, closure=closure, layers=[4]).moments
        found = ko.propagate_pairs(short, K2, closure=closure, layers=[3]).read_out
        assert relative_error(found.kernel_covariance, expected.kernel_covariance) < 1e-13
        assert relative_error(found.mean_correction, expected.mean_correction) < 1e-13


class Sharp(eqx.Module):
    sharpness: jax.Array

    def __call__(self, x):
        return jnp.tanh(self.sharpness * x) + 0.2 * jnp.sin(x)


def perturbed(parameter, change):
    """A functional of all moments, of one parameter moved by `change`."""

    def functional(closure, pairs):
        move = lambda name, value: value + change if name == parameter else value
        net = resnet(
            ko.Elementwise(Sharp(jnp.asarray(move("activation", 1.1)))),
            3,
            move("weight_variance", 1.5),
            move("bias_variance", 0.1),
            rho=move("residual_scale", 0.5),
        )
        direction = jnp.array([[0.3, -0.2], [-0.2, 0.5]])
        kernel = K2 + (change * direction if parameter == "kernel" else 0)
        solve = ko.propagate_pairs if pairs else ko.propagate
        moments = solve(net, kernel, closure=closure, layers=[3]).moments
        weights = jnp.sin(jnp.arange(moments.kernel_covariance.size, dtype=float))
        shift = moments.mean_correction[0] * jnp.array([[1.0, 2.0], [2.0, -1.0]])
        return weights @ moments.kernel_covariance.ravel() + jnp.sum(shift)

    return functional


PARAMETERS = ["residual_scale", "weight_variance", "bias_variance", "activation", "kernel"]
BY_DEFAULT = {(ko.WickTower, "weight_variance"), (ko.GOnly, "weight_variance")}
DERIVATIVES = [
    pytest.param(
        closure,
        parameter,
        marks=() if (type(closure), parameter) in BY_DEFAULT else pytest.mark.slow,
        id=f"{type(closure).__name__}-{parameter}",
    )
    for closure in (ko.GOnly(), ko.WickTower(5))
    for parameter in PARAMETERS
]


@pytest.mark.parametrize("closure,parameter", DERIVATIVES)
def test_derivatives(closure, parameter):
    value = lambda change: perturbed(parameter, change)(closure, True)
    # One program for both.
    both = eqx.filter_jit(lambda change: jax.jvp(value, (change,), (jnp.asarray(1.0),)))
    expected = central_difference(lambda change: both(change)[0], jnp.asarray(0.0), 1e-3)
    assert relative_error(both(jnp.asarray(0.0))[1], expected) < 1e-8
    if parameter == "kernel":
        assert relative_error(eqx.filter_jit(jax.grad(value))(jnp.asarray(0.0)), expected) < 1e-8


FLOWS = [pytest.param(ko.GOnly(), marks=pytest.mark.slow), ko.WickTower(6)]


@pytest.mark.slow
@pytest.mark.parametrize("closure", FLOWS, ids=["g_only", "tower"])
def test_derivatives_of_the_flow(closure):
    @eqx.filter_jit
    def value(weight_variance):
        net = resnet(ko.Erf(), 1, weight_variance, 0.1)
        adjoint = diffrax.ForwardMode()
        moments = ko.solve_pairs(net, K2, [0.5], closure=closure, adjoint=adjoint).moments
        return jnp.sum(moments.kernel_covariance) + jnp.sum(moments.mean_correction)

    at = jnp.asarray(1.5)
    expected = central_difference(value, at, 1e-3)
    assert relative_error(jax.jvp(value, (at,), (jnp.ones(()),))[1], expected) < 1e-6


def test_vmap_and_jit():
    net = resnet(ko.Erf(), 4, 1.5, 0.1)
    at = lambda rho: (
        ko.propagate_pairs(
            eqx.tree_at(lambda n: n.residual_scale, net, rho), K2, closure=ko.WickTower(6), layers=[4]
        ).moments
    )
    scales = jnp.array([0.1, 0.4, 0.7])
    batch = jax.jit(jax.vmap(at))(scales)
    for k in range(3):
        one = at(scales[k])
        for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(batch)):
            assert jnp.allclose(x, y[k], rtol=1e-11, atol=1e-12)


@pytest.mark.slow
def test_at_width():
    solution = ko.propagate(resnet(ko.Tanh(), 4, 1.5, 0.1, rho=0.5), K4, closure=ko.WickTower(8))
    found = solution.at_width(100)
    assert relative_error(found.mean, solution.mean_kernel + solution.mean_correction / 100) < 1e-15
    assert relative_error(found.covariance, solution.kernel_covariance / 100) < 1e-15
    variance = jnp.einsum("tabab->tab", solution.kernel_covariance) / 100
    assert relative_error(found.standard_deviation**2, variance) < 1e-14
    assert found.result == ko.RESULTS.successful and found.validity.shape == (5,)
    assert abs(found.validity[0] - 2 / 100) < 1e-12  # V4_aa,aa = 2 K_aa^2
    pairs = ko.propagate_pairs(
        resnet(ko.Tanh(), 4, 1.5, 0.1, rho=0.5), K4[:3, :3], closure=ko.WickTower(8)
    )
    assert (
        relative_error(pairs.at_width(100).standard_deviation, found.standard_deviation[:, :3, :3])
        < 1e-12
    )
    assert solution.at_width(2).result == ko.RESULTS.expansion_not_small
    with pytest.raises(ValueError, match="`width` must be positive"):
        solution.at_width(0)


@pytest.mark.slow
def test_quadrature_error():
    net = resnet(ko.Tanh(), 1, 2.0, 0.0)
    easy = ko.solve_pairs(net, K2, [0.1], closure=ko.WickTower(8))
    assert jnp.max(easy.quadrature_error) < 1e-12
    # Nearly parallel inputs at a large variance, with few terms: an honest estimate.
    kernel = 10 * jnp.array([[1.0, 0.999], [0.999, 1.0]])
    few, many = (
        ko.propagate_pairs(resnet(ko.Tanh(), 1, 2.0, 0.0), kernel, closure=ko.WickTower(8, terms=terms))
        for terms in (64, 384)
    )
    error = relative_error(few.kernel_covariance, many.kernel_covariance)
    assert 1e-9 < error < 10 * few.quadrature_error[0]
    assert jnp.max(many.quadrature_error) < 1e-6


SINGLE = [
    pytest.param(ko.Tanh(), ko.GOnly(), marks=pytest.mark.slow),
    pytest.param(ko.Tanh(), ko.WickTower(8), marks=pytest.mark.slow),
    (ko.Erf(), ko.WickTower(8)),
    (ko.ReLU(), ko.WickTower(16)),
]


@pytest.mark.parametrize("activation, closure", SINGLE, ids=["g_only", "tower", "erf", "relu"])
def test_float32(activation, closure):
    net = resnet(activation, 20, 1.5, 0.1, rho=0.2)
    double = ko.propagate_pairs(net, K2, closure=closure, layers=[20]).moments
    single = ko.propagate_pairs(net, K2.astype(jnp.float32), closure=closure, layers=[20]).moments
    assert single.kernel_covariance.dtype == single.mean_correction.dtype == jnp.float32
    assert relative_error(single.kernel_covariance, double.kernel_covariance) < 1e-5
    assert relative_error(single.mean_correction, double.mean_correction) < 1e-4


def test_validity_of_a_closure():
    net = resnet(ko.ReLU(), 8, 2.0, 0.0, rho=0.4)
    found = ko.closure_validity(net, K2, [10, 1000], 0.02, exact=ko.WickTower(8))
    assert found.valid.shape == (9, 2) and bool(found.valid[0].all())
    assert found.covariance_error[0] < 1e-12 and not found.valid[-1].any()
    assert bool(jnp.all(jnp.diff(found.covariance_error) > 0))
    assert relative_error(found.mean_error[:, 0], 100 * found.mean_error[:, 1]) < 1e-12
    with pytest.raises(ValueError, match="`widths` must be positive"):
        ko.closure_validity(net, K2, [0], 0.02)


def test_refusals():
    net = resnet(ko.Tanh(), 2)
    with pytest.raises(ValueError, match="`order` must be at least 2"):
        ko.WickTower(1)
    with pytest.raises(ValueError, match="`terms` must lie between"):
        ko.WickTower(8, terms=2000)
    with pytest.raises(TypeError, match="`closure` must have a form on pairs"):
        ko.solve_pairs(net, K2, [1.0], closure=ko.MeanOnly())
    with pytest.raises(ValueError, match="`layers_per_block=2`"):
        ko.propagate(resnet(ko.Tanh(), 2, layers_per_block=2), K2, closure=ko.GOnly())
    with pytest.raises(ValueError, match="start of residual networks"):
        fixed = ko.WickTower(4, start=ko.FixedGram())
        ko.propagate_pairs(ko.MLP(ko.Tanh(), 2), K2, closure=fixed)
    with pytest.raises(ValueError, match="`kernel_covariance`|`moments` needs a closure"):
        _ = ko.propagate(net, K2).kernel_covariance
    with pytest.raises(ValueError, match="four-point covariance of a feed-forward"):
        ko.propagate(ko.MLP(ko.Tanh(), 2), K2, closure=ko.GOnly())
    with pytest.raises(ValueError, match="`covariance` must have shape"):
        start = ko.RandomCovariance(jnp.zeros((3, 3, 3, 3)), jnp.zeros((3, 3)))
        ko.propagate(net, K2, closure=ko.WickTower(4, start=start))
    with pytest.raises(ValueError, match="`skip_scale` = 1 only"):
        ko.solve(resnet(ko.Tanh(), 2, skip_scale=0.9), K2, 1.0)
    with pytest.raises(ValueError, match="`skip_scale` = 1 only"):
        ko.optimal_residual_scale(resnet(ko.Tanh(), 2, skip_scale=0.9), K2)
    with pytest.raises(ValueError, match=r"`relative_width`.*shape \(3,\)"):
        ko.MLP(ko.Tanh(), 2, relative_width=jnp.ones(2))


def test_only_layers_have_moments():
    kernel = jnp.array([[1.0]])
    own = OwnField(ko.ReLU(), 2)
    for closure in (ko.WickTower(4), ko.GOnly()):
        with pytest.raises(TypeError, match="OwnField has a `drift` of its own"):
            ko.propagate(own, kernel, closure=closure)
    with pytest.raises(TypeError, match="Simulations are known for networks of layers"):
        ko.ensemble.sample(own, kernel, width=8, samples=100, key=jax.random.key(0))
    # Also where every number is traced.
    traced = jax.jit(lambda net: ko.propagate(net, kernel, closure=ko.GOnly()).kernel_covariance)
    with pytest.raises(TypeError, match="has a `drift` of its own"):
        traced(own)
    # The mean kernel is that of any drift.
    assert jnp.all(jnp.isfinite(ko.propagate(own, kernel).mean_kernel))


@pytest.mark.parametrize("activation", [pytest.param(ko.Tanh(), marks=pytest.mark.slow), ko.ReLU()])
def test_the_default_closure_is_the_best_answer_known(activation):
    net = resnet(activation, 3, 2.0, 0.0, rho=0.5)
    default = ko.propagate_pairs(net, K2).moments
    exact = ko.propagate_pairs(net, K2, closure=ko.WickTower(40)).moments
    published = ko.propagate_pairs(net, K2, closure=ko.GOnly()).moments
    for name in ("kernel_covariance", "mean_correction"):
        found, right, wrong = (getattr(m, name)[-1] for m in (default, exact, published))
        assert relative_error(found, right) < relative_error(wrong, right) / 10
    # A flow has the same tower, with one order for all elements.
    flow = eqx.filter_eval_shape(lambda: ko.solve_pairs(net, K2, 1.0)).closure
    discrete = ko.propagate_pairs(net, K2).closure
    assert isinstance(discrete, WickTowerPairs) and isinstance(flow, WickTowerPairs)
    assert discrete.order == flow.order == 16


def test_the_default_closure_of_a_feed_forward_network_is_exact():
    net = ko.MLP(ko.ReLU(), 3, weight_variance=2.0, bias_variance=0.1)
    default = ko.propagate_pairs(net, K2).mean_correction[-1]
    assert (
        relative_error(default, ko.propagate_pairs(net, K2, closure=ko.GOnly()).mean_correction[-1]) == 0
    )
    tower = ko.propagate_pairs(net, K2, closure=ko.WickTower(40)).moments
    assert relative_error(tower.mean_correction[-1], default) < 2e-3
