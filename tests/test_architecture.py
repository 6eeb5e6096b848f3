"""Layers that differ in their variances, and networks of a user's own."""

import types

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernelode as ko

from .helpers import OwnField, OwnLayered, central_difference, relative_error

KERNEL = jnp.array([[1.0, 0.4], [0.4, 0.7]])
WEIGHTS, BIASES = jnp.array([0.8, 1.3, 1.9]), jnp.array([0.3, 0.0, 0.1])


def networks(**options):
    yield ko.ResNet(ko.Erf(), 3, residual_scale=jnp.array([0.4, 0.7, 0.5]), **options)
    yield ko.MLP(ko.Erf(), 3, **options)


def varied(net):
    return ko.propagate(net, KERNEL).mean_kernel


def test_variances_of_every_layer():
    """Layer by layer, with networks of one layer that have one variance."""
    for net in networks(weight_variance=WEIGHTS, bias_variance=BIASES):
        expected = KERNEL
        for k, (weight, bias) in enumerate(zip(WEIGHTS, BIASES)):
            one = eqx.tree_at(lambda n: (n.weight_variance, n.bias_variance), net, (weight, bias))
            layer = jax.tree.map(lambda x, k=k: x[k], one.layers())
            diagonal = jnp.diagonal(expected)
            block = one.layer(ko.Block(diagonal, diagonal, expected), layer)
            expected = jnp.where(np.eye(2, dtype=bool), jnp.diag(block.row), block.cross)
        assert relative_error(varied(net)[-1], expected) < 1e-14


def test_one_variance_a_layer_is_one_for_all():
    for few, many in zip(
        networks(weight_variance=1.3, bias_variance=0.2),
        networks(weight_variance=jnp.full(3, 1.3), bias_variance=jnp.full(3, 0.2)),
    ):
        closure = ko.WickTower(6) if isinstance(few, ko.ResNet) else ko.GOnly()
        one, other = (ko.propagate_pairs(net, KERNEL, closure=closure).moments for net in (few, many))
        for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
            assert jnp.array_equal(x, y)
        assert jnp.array_equal(ko.response(few, KERNEL).diagonal, ko.response(many, KERNEL).diagonal)


GRADIENTS = [
    ("resnet", ko.WickTower(2)),
    ("mlp", ko.GOnly()),
    pytest.param("resnet", ko.WickTower(4), marks=pytest.mark.slow),
    pytest.param("mlp", ko.WickTower(4), marks=pytest.mark.slow),
]


@pytest.mark.parametrize("name, closure", GRADIENTS)
def test_gradients_by_every_variance(name, closure):
    both = networks(weight_variance=WEIGHTS, bias_variance=BIASES + 0.1)
    net = dict(zip(("resnet", "mlp"), both))[name]

    @jax.jit
    @jax.value_and_grad
    def height(leaves):
        moved = eqx.tree_at(lambda n: (n.weight_variance, n.bias_variance), net, (leaves[:3], leaves[3:]))
        moments = ko.propagate_pairs(moved, KERNEL, closure=closure, layers=[3]).moments
        return jnp.sum(moments.kernel_variance) + jnp.sum(moments.mean_correction)

    at = jnp.concatenate([net.weight_variance, net.bias_variance])
    moved = lambda k: lambda x: height(at.at[k].add(x))[0]
    slopes = jnp.array([central_difference(moved(k), 0.0, 1e-3) for k in range(6)])
    assert relative_error(height(at)[1], slopes) < 1e-9


def test_responses_and_scale_of_unequal_blocks():
    net = ko.ResNet(ko.Erf(), 3, weight_variance=WEIGHTS, bias_variance=BIASES)
    start = 0.05 * jnp.eye(2)
    found = ko.optimal_residual_scale(net, start).diagonal
    assert bool(found.interior[0])

    @jax.jit
    def height(rho):
        at = eqx.tree_at(lambda n: n.residual_scale, net, rho)
        return jnp.log(ko.response(at, start).diagonal[0])

    assert abs(jax.grad(height)(found.value[0])) < 1e-10
    assert jax.grad(jax.grad(height))(found.value[0]) < 0
    # Moved by a bias alone, by the implicit function theorem.
    best = lambda bias: ko.optimal_residual_scale(
        eqx.tree_at(lambda n: n.bias_variance, net, BIASES.at[2].set(bias)), start, pairs=False
    ).diagonal.value[0]
    assert abs(jax.grad(best)(0.1) / central_difference(best, 0.1, 1e-3) - 1) < 1e-6


def test_unequal_blocks_have_no_flow():
    net = ko.ResNet(ko.Erf(), 3, weight_variance=WEIGHTS)
    for call in (
        lambda net: ko.solve(net, KERNEL, 1.0),
        lambda net: ko.solve_pairs(net, KERNEL, 1.0, closure=ko.GOnly()),
        lambda net: ko.response_flow(net, KERNEL, 1.0),
        lambda net: ko.optimal_flow_time(net, KERNEL, pairs=False),
    ):
        with pytest.raises(ValueError, match="equal blocks only"):
            call(net)
        with pytest.raises(Exception, match="equal blocks only"):
            jax.block_until_ready(eqx.filter_jit(call)(net))
    equal = ko.ResNet(ko.Erf(), 3, weight_variance=jnp.full(3, 1.3))
    one = ko.ResNet(ko.Erf(), 3, weight_variance=1.3)
    expected = ko.solve(one, KERNEL, 1.0).mean_kernel
    assert relative_error(ko.solve(equal, KERNEL, 1.0).mean_kernel, expected) < 1e-12


def test_wrong_variances():
    for architecture in (ko.ResNet, ko.MLP):
        with pytest.raises(ValueError, match=r"`weight_variance`.*shape \(3,\)"):
            architecture(ko.Erf(), 3, weight_variance=jnp.ones(2))
        with pytest.raises(ValueError, match="`bias_variance` must not be negative"):
            architecture(ko.Erf(), 3, bias_variance=jnp.array([0.1, -0.1, 0.0]))
    net = ko.MLP(ko.Erf(), 3, weight_variance=WEIGHTS)
    with pytest.raises(ValueError, match="one layer takes everything"):
        ko.optimise(ko.DiagonalResponse(KERNEL), net, lambda n: n.weight_variance)


def test_what_follows_cannot_be_overridden():
    for base, name in (
        (ko.AbstractArchitecture, "layer"),
        (ko.AbstractLayered, "drift"),
        (ko.MLP, "read_in"),
    ):
        with pytest.raises(TypeError, match=f"`Changed.{name}` cannot be overridden"):
            body = {"__module__": __name__, name: lambda self, *rest: rest[0]}
            types.new_class("Changed", (base,), exec_body=lambda namespace, b=body: namespace.update(b))


def test_layers_of_a_users_own():
    """Made of plain layers, they have all that a `ResNet` of the same layers has."""
    own = OwnLayered(ko.Erf(), 3, decay=0.5, growth=0.4, bias_variance=jnp.asarray(0.1))
    number = jnp.arange(1.0, 4.0)
    same = ko.ResNet(
        ko.Erf(),
        3,
        residual_scale=0.3 * number**-0.5,
        weight_variance=number**0.4,
        bias_variance=jnp.full(3, 0.1),  # one a layer, as in the programs above
    )
    closure = ko.WickTower(6)
    moments = (ko.propagate_pairs(n, KERNEL, closure=closure).moments for n in (own, same))
    for one, other in zip(*map(jax.tree.leaves, moments), strict=True):
        assert relative_error(one, other) < 1e-13
    draw = lambda net: ko.ensemble.sample(net, KERNEL, width=8, samples=64, key=jax.random.key(1))
    one, other = (draw(net).estimates.kernel_covariance.value for net in (own, same))
    assert relative_error(one, other) < 1e-5
    with pytest.raises(ValueError, match="equal blocks only"):
        ko.solve(own, KERNEL, 1.0)


def test_a_field_of_a_users_own():
    """The drift reads it; two branches are one of twice the variance."""
    own = OwnField(ko.Erf(), 3, branches=jnp.asarray(2.0))
    same = ko.ResNet(ko.Erf(), 3, residual_scale=0.3, weight_variance=2.0)
    assert relative_error(varied(own), varied(same)) < 1e-14
    for x, y in zip(*(ko.optimal_residual_scale(n, 0.05 * KERNEL).diagonal.value for n in (own, same))):
        assert abs(x / y - 1) < 1e-10
    assert (
        relative_error(ko.solve(own, KERNEL, 0.5).mean_kernel, ko.solve(same, KERNEL, 0.5).mean_kernel)
        < 1e-12
    )
    slope = jax.grad(lambda b: jnp.sum(varied(OwnField(ko.Erf(), 3, branches=b))))(2.0)
    weight = jax.grad(
        lambda w: jnp.sum(varied(ko.ResNet(ko.Erf(), 3, residual_scale=0.3, weight_variance=w)))
    )
    assert abs(slope / weight(2.0) - 1) < 1e-12


def compared(net, **options):
    closure = ko.WickTower(12) if isinstance(net, ko.ResNet) else ko.GOnly()
    theory = ko.propagate_pairs(net, KERNEL, closure=closure, layers=[3])
    options |= dict(width=64, samples=16_000, key=jax.random.key(3), pairs=True, batch=250)
    return ko.compare(theory, ko.ensemble.sample(net, KERNEL, dtype="float32", **options))


def test_simulated_layers_have_their_own_variances():
    for net in networks(weight_variance=WEIGHTS, bias_variance=BIASES):
        found = compared(net)
        assert found.probability > 1e-3, found


@pytest.mark.slow
def test_real_weights_of_every_layer():
    for net in networks(weight_variance=WEIGHTS, bias_variance=BIASES):
        found = compared(net, sampler=ko.ensemble.RealWeights())
        assert found.probability > 1e-3, found
