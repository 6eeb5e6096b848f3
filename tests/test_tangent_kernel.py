"""The tangent kernel of infinite width: neural-tangents, references, finite networks, derivatives."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernelode as ko

from .helpers import (
    NTK_ACTIVATIONS,
    NTK_REFERENCE,
    OwnField,
    central_difference,
    each,
    relative_error,
)

REFERENCE = {name: case for name, case in NTK_REFERENCE.items() if case["kind"] != "mlp_dntk"}
KERNEL = jnp.array([[1.2, 0.5, -0.3], [0.5, 0.9, 0.2], [-0.3, 0.2, 0.6]])
OPTIONS: dict[str, Any] = dict(weight_variance=1.3, bias_variance=0.1)


def inputs():
    """Three of their own; an equal, an opposite and a parallel one."""
    x = jax.random.normal(jax.random.key(0), (6, 4))
    return x.at[3].set(x[0]).at[4].set(-x[1]).at[5].set(2 * x[0])


def network_of(kind: str, activation, depth: int):
    ends = dict(
        input_weight_variance=1.3,
        input_bias_variance=0.2,
        output_weight_variance=0.7,
        output_bias_variance=0.3,
    )
    if kind == "mlp":
        return ko.MLP(activation, depth, **OPTIONS, **ends)
    scale, skip = jnp.linspace(0.1, 0.4, depth), jnp.linspace(1.0, 0.9, depth)
    blocks = 2 if kind == "two_layers" else 1
    return ko.ResNet(
        activation,
        depth,
        residual_scale=scale,
        skip_scale=skip,
        layers_per_block=blocks,
        **OPTIONS,
        **ends,
    )


def tangents(network, kernel: Any = KERNEL, rates=None, tangent=None, **options):
    return ko.propagate(network, kernel, closure=ko.TangentKernel(rates, tangent), **options)


@pytest.mark.parametrize(
    ("activation", "kind", "depth"),
    [
        ("erf", "mlp", 1),
        ("relu", "two_layers", 3),
        *(
            pytest.param(activation, kind, depth, marks=pytest.mark.slow)
            for activation in ("erf", "relu", "gelu", "sin")
            for kind in ("mlp", "resnet", "two_layers")
            for depth in (10, 50)
        ),
    ],
)
def test_as_neural_tangents(activation, kind, depth):
    """Also of equal, opposite and parallel inputs."""
    network = network_of(kind, {**NTK_ACTIVATIONS, "erf": ko.Erf()}[activation], depth)
    x = inputs()
    theirs = ko.baselines.neural_tangents_kernels(network, x)
    ours = tangents(network, network.read_in(x)).read_out
    assert relative_error(ours.mean_kernel[-1], theirs["nngp"]) < 1e-13
    assert relative_error(ours.tangent_kernel[-1], theirs["ntk"]) < 1e-13


@pytest.mark.parametrize(
    "name", each(REFERENCE, "relu_p2_critical", "gelu_p4", "resnet_gelu_p1_skip", "flow_sin_p2")
)
def test_reference(name):
    """K and Theta of every layer, by quadratures of four inputs or closed forms."""
    case = REFERENCE[name]
    kernel, tangent = (jnp.atleast_2d(jnp.asarray(case[name])) for name in ("K1", "Theta1"))
    rates = ko.LearningRates(case["lambda_W"], case["lambda_b"])
    options = dict(weight_variance=case["C_W"], bias_variance=case["C_b"])
    sigma = NTK_ACTIVATIONS[case["activation"]]
    closure = ko.TangentKernel(rates, tangent)
    if case["kind"] == "resnet_continuous":
        found = ko.solve(ko.ResNet(sigma, 1, **options), kernel, case["t"], closure=closure)
        assert relative_error(found.tangent_kernel[-1], case["Theta"]) < 1e-7
        return
    depth = len(case["layers"]) - 1
    if case["kind"] == "mlp":
        network = ko.MLP(sigma, depth, **options)
    else:
        scales = dict(residual_scale=case["eps"], skip_scale=case.get("alpha", 1.0))
        network = ko.ResNet(sigma, depth, **options, **scales)
    found = ko.propagate(network, kernel, closure=closure)
    for number, layer in enumerate(case["layers"]):
        size = kernel.shape
        assert relative_error(found.mean_kernel[number], np.reshape(layer["K"], size)) < 1e-9
        assert relative_error(found.tangent_kernel[number], np.reshape(layer["Theta"], size)) < 1e-9


def test_sums_of_nodes_are_not_enough_for_tanh():
    """32 nodes of Gauss-Hermite, the default there, are wrong in the fourth digit; 256 agree."""
    network, x = network_of("mlp", ko.Tanh(), 3), inputs()[:3]
    ours = tangents(network, network.read_in(x)).read_out.tangent_kernel[-1]
    error = lambda degree: relative_error(
        ko.baselines.neural_tangents_kernels(network, x, degree=degree)["ntk"], ours
    )
    assert error(32) > 1e-4
    assert error(256) < 1e-12


def test_rates_are_sums_over_parameters():
    """Theta is the sum of what each kind of parameter adds; those of each layer beside the others'."""
    network = network_of("resnet", ko.Erf(), 3)
    none = dict(weight=0, bias=0, input_weight=0, input_bias=0, output_weight=0, output_bias=0)
    own = dict(weight=1.3, bias=0.1, input_weight=1.3, input_bias=0.2, output_weight=0.7, output_bias=0.3)
    of = lambda **rates: tangents(
        network, rates=ko.LearningRates(**{**none, **rates})
    ).read_out.tangent_kernel[-1]
    whole = tangents(network).read_out.tangent_kernel[-1]
    assert relative_error(sum(of(**{name: own[name]}) for name in none), whole) < 1e-13
    layers = sum(of(weight=1.3 * jnp.eye(3)[k]) for k in range(3))
    assert relative_error(layers, of(weight=1.3)) < 1e-13
    assert relative_error(of(**own), whole) < 1e-13


def test_rates_of_finite_networks():
    """E[Theta_aa] of a ReLU network is that of infinite width at every width, whatever the rates: by the
    gradients of all weights."""
    widths, depth, sigma = (6, 5, 7), 2, jax.nn.relu
    rates: dict[str, Any] = dict(weight=[0.7, 1.9], bias=[0.3, 0.6], input_weight=1.1, input_bias=0.4)
    x = jnp.array([0.8, -0.5])

    def output(parameters):
        h = x
        for number, (w, b) in enumerate(parameters):
            h = w @ (sigma(h) if number else h) + b
        return h[0]

    fan_in = (2, *widths[:-1])
    weight_rates = np.array([rates["input_weight"], *rates["weight"]]) / fan_in
    bias_rates = [rates["input_bias"], *rates["bias"]]

    def theta(key):
        keys = jax.random.split(key, depth + 1)
        parameters = []
        for k, n, m in zip(keys, fan_in, widths):
            draw = jax.random.normal(k, (m, n + 1))
            parameters.append((jnp.sqrt(1.3 / n) * draw[:, :n], jnp.sqrt(0.1) * draw[:, n]))
        gradients = jax.grad(output)(parameters)
        return sum(
            r * jnp.sum(w**2) + s * jnp.sum(b**2)
            for (w, b), r, s in zip(gradients, weight_rates, bias_rates)
        )

    drawn = np.asarray(jax.jit(jax.vmap(theta))(jax.random.split(jax.random.key(3), 40_000)))
    network = ko.MLP(ko.ReLU(), depth, input_weight_variance=1.3, input_bias_variance=0.1, **OPTIONS)
    found = tangents(network, network.read_in(x[None]), rates=ko.LearningRates(**rates))
    z = (drawn.mean() - float(found.tangent_kernel[-1, 0, 0])) / (drawn.std() / np.sqrt(len(drawn)))
    assert abs(z) < 3.5


def test_standard_parametrisation():
    """lambda_W = rate n_l: every part of Theta but those of biases grows with the width."""
    network = ko.MLP(ko.Erf(), 2, relative_width=[1.0, 2.0, 0.5], **OPTIONS)
    rates = ko.LearningRates.standard(network, width=100, inputs=20, rate=0.1)
    assert rates.weight is not None
    np.testing.assert_allclose(rates.weight, [10.0, 20.0])
    assert rates.input_weight == 2.0 and rates.output_weight == 5.0
    assert rates.bias == rates.input_bias == rates.output_bias == 0.1
    assert np.all(np.isfinite(tangents(network, rates=rates).tangent_kernel))


def test_flow_is_the_limit_of_depth():
    """Errors of first order in rho^2; and Diffrax's Euler steps are layers."""
    flow = ko.ResNet(ko.GELU(), 1, **OPTIONS)
    rates = ko.LearningRates(1.1, 0.4)
    closure = ko.TangentKernel(rates)
    limit = ko.solve(flow, KERNEL, 1.0, closure=closure).tangent_kernel[-1]

    def error(depth):
        network = ko.ResNet(ko.GELU(), depth, residual_scale=depth**-0.5, **OPTIONS)
        found = tangents(network, rates=rates, layers=[depth])
        euler = ko.solve(
            flow, KERNEL, 1.0, closure=closure, solver=diffrax.Euler(), dt0=1 / depth
        ).tangent_kernel[-1]
        assert relative_error(euler, found.tangent_kernel[-1]) < 1e-12
        return relative_error(found.tangent_kernel[-1], limit)

    assert 1.8 < error(20) / error(40) < 2.2


def test_rates_of_layers_along_a_flow():
    """Those of equal blocks, weighted by rho^2."""
    scale, rates = jnp.array([0.1, 0.2, 0.3]), jnp.array([2.0, 0.5, 1.0])
    network = ko.ResNet(ko.Erf(), 3, residual_scale=scale, **OPTIONS)
    at = lambda rate: (
        ko.solve(network, KERNEL, 0.5, closure=ko.TangentKernel(ko.LearningRates(rate))).tangent_kernel
    )
    mean = jnp.sum(scale**2 * rates) / jnp.sum(scale**2)
    assert relative_error(at(rates), at(mean)) < 1e-12


@pytest.mark.parametrize("name", [pytest.param("tanh", marks=pytest.mark.slow), "relu"])
def test_rectangular(name):
    """Rows against columns, as the square kernel has them."""
    network = network_of("resnet", NTK_ACTIVATIONS[name], 3)
    whole = network.read_in(inputs())
    rows, columns = np.arange(2), np.arange(2, 6)
    variances = jnp.diagonal(whole)
    block = ko.Block(variances[rows], variances[columns], whole[:2, 2:])
    found, square = tangents(network, block), tangents(network, whole)
    assert relative_error(found.tangent_kernel, square.tangent_kernel[:, :2, 2:]) < 1e-12
    both = found.read_out.tangent_kernel, square.read_out.tangent_kernel[:, :2, 2:]
    assert relative_error(*both) < 1e-12
    given = square.tangent_kernel[0]
    again = tangents(network, block, tangent=given[:2, 2:])
    assert relative_error(again.tangent_kernel, found.tangent_kernel) < 1e-14


@pytest.mark.parametrize("name", [pytest.param("tanh", marks=pytest.mark.slow), "gelu"])
@pytest.mark.parametrize("kernel", ["apart", "equal"])
def test_derivatives(kernel, name):
    """In everything that is traced, beside finite differences; reverse and forward mode, batches."""
    k = KERNEL if kernel == "apart" else KERNEL[jnp.array([0, 0, 2])][:, jnp.array([0, 0, 2])]
    direction = jnp.array([[0.3, 0.1, -0.2], [0.1, 0.2, 0.15], [-0.2, 0.15, 0.25]])
    direction = direction if kernel == "apart" else k / 2  # along which equal inputs stay equal

    @jax.jit
    def theta(t):
        network = ko.ResNet(
            NTK_ACTIVATIONS[name],
            2,
            residual_scale=jnp.array([0.5, 0.4]) + 0.1 * t,
            weight_variance=1.3 + t,
            bias_variance=0.1 + t / 5,
            input_bias_variance=0.1,
        )
        rates = ko.LearningRates(jnp.array([1.0, 0.5]) + t, 0.3 - t, input_weight=0.8 + t)
        found = ko.propagate(network, k + t * direction, closure=ko.TangentKernel(rates))
        return jnp.sum(found.read_out.tangent_kernel[-1] * jnp.arange(9.0).reshape(3, 3))

    expected = central_difference(theta, 0.0, 1e-3)
    assert abs(jax.grad(theta)(0.0) - expected) < 1e-8 * abs(expected)
    assert abs(jax.jvp(theta, (0.0,), (1.0,))[1] - expected) < 1e-8 * abs(expected)
    many = jax.vmap(jax.grad(theta))(jnp.zeros(2))
    np.testing.assert_allclose(many, jax.grad(theta)(0.0), rtol=1e-12)


@pytest.mark.parametrize("name", [pytest.param("tanh", marks=pytest.mark.slow), "gelu"])
def test_float32(name):
    network = network_of("resnet", NTK_ACTIVATIONS[name], 10)
    ours = tangents(network, KERNEL.astype(jnp.float32)).read_out.tangent_kernel
    assert ours.dtype == jnp.float32
    assert relative_error(ours, tangents(network).read_out.tangent_kernel) < 3e-6


def test_no_compilation_in_a_sweep():
    """Rates and the first tangent kernel are traced."""
    compiled = 0

    @eqx.filter_jit
    def theta(rates, tangent):
        nonlocal compiled
        compiled += 1
        network = ko.MLP(ko.Erf(), 2, **OPTIONS)
        return ko.propagate(
            network, KERNEL, closure=ko.TangentKernel(rates, tangent), throw=False
        ).tangent_kernel

    for number in (0.5, 1.5):
        found = theta(ko.LearningRates(number, number), number * KERNEL)
        assert np.all(np.isfinite(found))
    assert compiled == 1


def test_what_is_refused():
    network = ko.ResNet(ko.Erf(), 3, **OPTIONS)
    with pytest.raises(TypeError, match="Tangent kernels are known for networks of layers"):
        tangents(OwnField(ko.Erf(), 2))
    with pytest.raises(ValueError, match="`rates.weight` must be a scalar or have one entry a layer"):
        tangents(network, rates=ko.LearningRates([1.0, 2.0]))
    with pytest.raises(ValueError, match="`weight` must be a scalar or have one entry a layer"):
        ko.LearningRates(jnp.ones((3, 3)))
    with pytest.raises(ValueError, match="`bias` must not be negative"):
        ko.LearningRates(bias=-1.0)
    with pytest.raises(ValueError, match=r"`tangent` must have the shape of the kernel, \(3, 3\)"):
        tangents(network, tangent=jnp.eye(2))
    with pytest.raises(ValueError, match="`tangent` must be symmetric"):
        tangents(network, tangent=jnp.array([[1.0, 0.5, 0], [0, 1.0, 0], [0, 0, 1.0]]))
    with pytest.raises(ValueError, match="`tangent_kernel` needs a closure with tangent kernels"):
        _ = ko.propagate(network, KERNEL).tangent_kernel
    with pytest.raises(ValueError, match="`moments` needs a closure"):
        _ = tangents(network).moments
    alone = ko.ResNet(ko.Erf(), 3, input_weight_variance=0.0, input_bias_variance=1.0)
    with pytest.raises(Exception, match="read-in without weights is not known"):
        tangents(alone, jnp.ones((2, 2)), rates=ko.LearningRates(input_weight=1.0))
