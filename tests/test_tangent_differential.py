"""The differential of the tangent kernel: references, a larger network, real derivatives of networks."""

import functools
import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernelode as ko

from .helpers import NTK_REFERENCE, central_difference, each, pair_kernel, relative_error, resnet

REFERENCE = {name: case for name, case in NTK_REFERENCE.items() if case["kind"] == "mlp_dntk"}
SIGMA = {"tanh": ko.Tanh(), "gelu": ko.GELU(), "relu": ko.ReLU(), "leaky": ko.LeakyReLU(0.3)}
CURVED = ko.Polynomial([0.1, 1.0, 0.2, 0.1])
KERNEL = pair_kernel(1.2, 0.8, 0.3)
#: Weights, biases and learning rates of two hidden layers and a read-out.
OPTIONS = dict(
    weight_variance=[1.3, 0.9],
    bias_variance=0.1,
    output_weight_variance=1.6,
    output_bias_variance=0.2,
    relative_width=[1.0, 0.5, 2.0],
)
RATES = ko.LearningRates([1.1, 0.7], 0.4, output_weight=1.5, output_bias=0.6)


def differential(network, kernel: Any = KERNEL, rates: Any = RATES, tangent=None, **options):
    return ko.propagate(network, kernel, closure=ko.TangentDifferential(rates, tangent), **options)


@pytest.mark.parametrize("name", each(REFERENCE, "dntk_gelu"))
def test_reference(name):
    case = REFERENCE[name]
    options = dict(weight_variance=case["C_W"], bias_variance=case["C_b"])
    network = ko.MLP(SIGMA[case["activation"]], len(case["layers"]), **options)
    rates = ko.LearningRates(case["lambda_W"], case["lambda_b"])
    kernel, tangent = (jnp.full((1, 1), case[name]) for name in ("K1", "Theta1"))
    found = differential(network, kernel, rates, tangent)
    assert np.all(found.quadrature_error < 1e-10)
    for layer in case["layers"]:
        number = layer["layer"] - 1
        assert abs(found.differential.P[number, 0] - layer["nP"]) < 1e-10 * abs(layer["nP"])
        assert abs(found.differential.Q[number, 0] - layer["nQ"]) < 1e-10 * abs(layer["nQ"])


def larger_network(sigma, q, theta, layers):
    """K, Theta, F, B, P and Q after each of the layers, as the covariances of a kernel of neurons x = (z,
    y, y~, u): V' = J V J^T + Cov(Psi) / w, without anything that is known of J or Psi but the layers
    themselves. Sums over nodes are exact for polynomials."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(8)
    x = jnp.asarray(list(itertools.product(nodes, repeat=4)))
    chance = jnp.asarray([np.prod(w) for w in itertools.product(weights, repeat=4)]) / (2 * np.pi) ** 2
    pairs = np.triu_indices(4)
    at = lambda i, j: next(n for n, pair in enumerate(zip(*pairs)) if pair == tuple(sorted((i, j))))
    s0, s1, s2 = (jax.vmap(f) for f in (sigma, jax.grad(sigma), jax.grad(jax.grad(sigma))))

    def psi(nodes, c, rate):
        z, y, w, u = nodes.T
        first, zero = s1(z), jnp.zeros_like(z)
        through = jnp.stack([s0(z), first * y, first * w, s2(z) * y * w + first * u])
        # The layer's own weights: y and y~ along either direction; of u both, with y~ and y behind them.
        own = jnp.array([[zero, s0(z), zero, first * w], [zero, zero, s0(z), first * y]])
        found = c * through[:, None] * through[None, :]
        return found[pairs].T + rate * jnp.einsum("dip,djp->ijp", own, own)[pairs].T

    whole = lambda v: jnp.zeros((4, 4)).at[pairs].set(v).at[pairs[::-1]].set(v)

    @functools.partial(jax.jit, static_argnums=0)
    def following(first, g, covariance, c, bias, rate, bias_rate, width):
        constant = jnp.diag(jnp.array([bias, bias_rate, bias_rate, 0.0]))[pairs]
        mean = lambda v: constant + chance @ psi(x @ jnp.linalg.cholesky(whole(v)).T, c, rate)
        # At first u is zero, and nothing fluctuates.
        root = jnp.sqrt(g) if first else jnp.linalg.cholesky(g)
        values = psi(x @ root.T, c, rate)
        values, average = values - (chance @ values)[None], constant + chance @ values
        noise = jnp.einsum("p,pi,pj->ij", chance, values, values) / width
        if not first:
            jacobian = jax.jacfwd(mean)(g[pairs])
            noise = noise + jacobian @ covariance @ jacobian.T
        return whole(average), noise

    g, covariance = jnp.diag(jnp.array([q, theta, theta, 0.0])), jnp.zeros((10, 10))
    z, y, w, u = range(4)
    blocks = ((z, y), (z, y)), ((y, w), (y, w)), ((u, z), (y, w)), ((u, y), (w, z))
    for number, layer in enumerate(layers):
        g, covariance = following(number == 0, g, covariance, *layer)
        yield [g[z, z], g[y, y], *(covariance[at(*a), at(*b)] for a, b in blocks)]


def test_moments_of_a_larger_network():
    """Of all layers and the read-out, with numbers of their own."""
    network = ko.MLP(CURVED, 2, **OPTIONS)
    found = differential(network, tangent=KERNEL + 0.5)
    layers = [(1.3, 0.1, 1.1, 0.4, 1.0), (0.9, 0.1, 0.7, 0.4, 0.5), (1.6, 0.2, 1.5, 0.6, 2.0)]
    sigma = lambda z: 0.1 + z + 0.2 * z**2 + 0.1 * z**3
    cases = (found.differential, 1), (found.differential, 2), (found.read_out, 2)
    for (moments, depth), expected in zip(cases, larger_network(sigma, 1.2, 1.7, layers), strict=True):
        first = moments.mean_kernel[depth, 0, 0], moments.tangent_kernel[depth, 0, 0]
        rest = (x[depth, 0] for x in (moments.cross, moments.exchange, moments.P, moments.Q))
        np.testing.assert_allclose([*first, *rest], expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["gelu", pytest.param("relu", marks=pytest.mark.slow)])
def test_second_derivatives_of_networks(name):
    """At the second layer P and Q are exact at every width, and so is the first step: by all weights'
    second derivatives, and by those of the kernel and the outputs along a step."""
    n, outputs, target, count = 6, 2, 0.7, 20_000
    sigma = jax.nn.relu if name == "relu" else lambda x: jax.nn.gelu(x, approximate=False)
    lam = (
        1.2 * jnp.ones((n, 1)),
        0.4 * jnp.ones(n),
        1.2 / n * jnp.ones((outputs, n)),
        0.4 * jnp.ones(outputs),
    )

    def network(p):
        return p[2] @ sigma(p[0][:, 0] + p[1]) + p[3]

    def kernel(p):
        gradients = jax.jacrev(network)(p)
        return sum(jnp.einsum("i...,j...,...->ij", g, g, l) for g, l in zip(gradients, lam))

    def step(p):
        """- lambda dLoss / dtheta."""
        z, back = jax.vjp(network, p)
        return tuple(-l * g for l, g in zip(lam, back(z - target)[0]))

    def twice(p, u, v):
        return jax.jvp(lambda p: jax.jvp(network, (p,), (u,))[1], (p,), (v,))[1]

    def sample(key):
        keys = jax.random.split(key, 4)
        scales = np.sqrt([1.8, 0.1, 1.8 / n, 0.1])
        p = tuple(s * jax.random.normal(k, l.shape) for s, k, l in zip(scales, keys, lam))
        z, gradients = network(p), jax.jacrev(network)(p)
        along = [tuple(l * g[i] for l, g in zip(lam, gradients)) for i in range(outputs)]
        d = jnp.stack([jnp.stack([twice(p, u, v) for v in along]) for u in along])  # dH_i;jk at (j, k, i)
        change = jax.jvp(kernel, (p,), (step(p),))[1]
        opposite = (p[0], p[1], -p[2], -p[3])  # as probable, and without the noise of even terms
        outputs_twice = [jnp.mean(twice(p, step(p), step(p))) for p in (p, opposite)]
        return {
            "P": (d[1, 1, 0] * z[0] + d[0, 0, 1] * z[1]) / 2,
            "Q": (d[0, 1, 0] * z[1] + d[1, 0, 0] * z[1] + d[0, 1, 1] * z[0] + d[1, 0, 1] * z[0]) / 4,
            "P + 2Q": (d[0, 0, 0] * z[0] + d[1, 1, 1] * z[1]) / 2,
            "change": jnp.trace(change) / 2,
            "no change": change[0, 1],
            "output": sum(outputs_twice) / (2 * target),
        }

    drawn = jax.jit(jax.vmap(sample))(jax.random.split(jax.random.key(5), count))
    theory = ko.MLP(SIGMA[name], 1, weight_variance=1.8, bias_variance=0.1)
    kernel_1, tangent_1 = jnp.full((1, 1), 1.9), jnp.full((1, 1), 1.6)
    found = differential(theory, kernel_1, ko.LearningRates(1.2, 0.4), tangent_1).differential
    p, q = float(found.P[-1, 0]), float(found.Q[-1, 0])
    change = -2 * (p + 3 * q)
    if name == "gelu":
        assert abs(found.tangent_change(outputs)[-1, 0] - change) < 1e-12
    expected = {"P": p, "Q": q, "P + 2Q": p + 2 * q, "change": change, "no change": 0.0, "output": change}
    for name, values in drawn.items():
        values = n * np.asarray(values)
        error = values.std() / np.sqrt(count)
        assert error <= 0.02 * abs(change)
        assert abs(values.mean() - expected[name]) <= 3.5 * error, name


@pytest.mark.slow
def test_cross_and_exchange_are_those_of_the_tower():
    network = ko.MLP(ko.GELU(), 2, **OPTIONS)
    tower = ko.propagate_pairs(network, KERNEL, closure=ko.TangentTower(2, RATES, single_order=4))
    for found, expected in (
        (differential(network).differential, tower.tangent),
        (differential(network).read_out, tower.read_out.tangent),
    ):
        own = np.arange(2)
        assert relative_error(found.tangent_kernel, expected.tangent_kernel) < 1e-12
        for name in ("cross", "exchange"):
            diagonal = getattr(expected, name)[:, own, own, 0, 0, 0, 0]
            assert relative_error(getattr(found, name), diagonal) < 1e-10


def test_relu():
    """At criticality: F and B as in arXiv:2106.10165, P = 0, and Q = (l - 1) l (l + 1) / 3 at layer l: Q
    gains 2 K Theta + F at each, with K = 1, Theta = l, F = l (l - 1)."""
    network = ko.MLP(ko.ReLU(), 6, weight_variance=2.0)
    one = jnp.ones((1, 1))
    found = differential(network, one, ko.LearningRates(2.0, 0.0), one)
    l, moments = np.arange(1.0, 8), found.differential
    np.testing.assert_allclose(moments.tangent_kernel[:, 0, 0], l, rtol=1e-13)
    np.testing.assert_allclose(moments.cross[:, 0], l * (l - 1), rtol=1e-12)
    np.testing.assert_allclose(moments.exchange[:, 0], l * (l - 1) * (2 * l - 1) / 3, rtol=1e-12)
    np.testing.assert_allclose(moments.Q[:, 0], (l - 1) * l * (l + 1) / 3, rtol=1e-12)
    assert np.all(moments.P == 0)
    assert np.all(found.quadrature_error < 1e-13)
    with pytest.raises(ValueError, match="needs an activation without kinks"):
        moments.tangent_change()


@pytest.mark.slow
def test_relu_is_a_limit_of_smooth_functions():
    """Of softplus(beta x) / beta: delta functions of sigma'' add nothing at all."""
    sharp = lambda beta: ko.Elementwise(lambda x: jax.nn.softplus(beta * x) / beta)
    of = lambda activation: differential(ko.MLP(activation, 2, **OPTIONS)).differential
    limit, rough, fine = of(ko.ReLU()), of(sharp(20.0)), of(sharp(40.0))
    for name in ("P", "Q"):
        errors = [abs(getattr(x, name)[2, 0] - getattr(limit, name)[2, 0]) for x in (rough, fine)]
        assert errors[1] < 0.05 * limit.Q[2, 0]
        assert 1.5 < errors[0] / errors[1] < 6


def test_widths():
    """P and Q are sums over the layers' 1 / n_l."""
    of = lambda *widths: (
        differential(ko.MLP(ko.GELU(), 2, **{**OPTIONS, "relative_width": jnp.array(widths)})).read_out
    )
    alone = [of(*np.where(np.eye(3)[k] > 0, 1.0, 1e30)) for k in range(3)]
    whole = of(1.0, 0.5, 2.0)
    for name in ("cross", "exchange", "P", "Q"):
        first, second, third = (getattr(x, name)[-1] for x in alone)
        assert relative_error(getattr(whole, name)[-1], first + 2 * second + third / 2) < 1e-13


@pytest.mark.parametrize("name", ["gelu", pytest.param("tanh", marks=pytest.mark.slow)])
def test_derivatives(name):
    """In everything that is traced."""

    def value(t):
        network = ko.MLP(
            SIGMA[name],
            2,
            weight_variance=1.3 + t,
            bias_variance=0.1 + t / 5,
            output_weight_variance=1.6 - t,
            relative_width=jnp.array([1.0, 0.5, 2.0]) + t,
        )
        rates = ko.LearningRates(jnp.array([1.1, 0.7]) + t, 0.4 - t)
        found = differential(network, KERNEL * (1 + t), rates, KERNEL * (2 - t)).read_out
        return jnp.sum(found.P[-1]) + found.Q[-1, 0]

    reverse = jax.jit(jax.value_and_grad(value))
    expected = central_difference(lambda t: reverse(t)[0], 0.0, 1e-3)
    assert abs(reverse(0.0)[1] - expected) < 1e-8 * abs(expected)


@pytest.mark.parametrize("name", ["leaky", pytest.param("gelu", marks=pytest.mark.slow)])
def test_float32(name):
    network = ko.MLP(SIGMA[name], 2, **OPTIONS)
    single, double = (differential(network, KERNEL.astype(t)).read_out for t in ("float32", "float64"))
    assert single.P.dtype == single.Q.dtype == jnp.float32
    all_of = lambda x: np.stack([x.cross, x.exchange, x.P, x.Q]).astype(float)
    assert relative_error(all_of(single), all_of(double)) < 3e-6


def test_no_variance():
    """An input of zero, for which GELU is x / 2: all expectations are those at the origin."""
    network = ko.MLP(ko.GELU(), 2, weight_variance=1.3)
    found = differential(network, jnp.diag(jnp.array([0.0, 1.0])), tangent=jnp.eye(2)).differential
    assert np.all(np.isfinite(jnp.stack([found.P, found.Q])))
    np.testing.assert_allclose(found.exchange[1, 0], 1.3**2 / 16, rtol=1e-13)
    np.testing.assert_allclose(found.Q[:, 0], 0.0, atol=1e-15)


def test_what_is_refused():
    network = ko.MLP(ko.GELU(), 2)
    refused = "differential of the tangent kernel is known for feed-forward networks"
    residual = resnet(ko.GELU(), 3)
    with pytest.raises(ValueError, match=refused):
        differential(residual)
    with pytest.raises(ValueError, match=refused):
        ko.solve(residual, KERNEL, 0.1, closure=ko.TangentDifferential())
    with pytest.raises(ValueError, match="needs sigma'', which is no function"):
        differential(ko.MLP(ko.Elementwise(lambda x: jnp.clip(x, -1, 1), kinks=(-1.0, 1.0)), 2))
    variances = jnp.diagonal(KERNEL)
    with pytest.raises(TypeError, match="must be a square matrix for `TangentDifferential`"):
        differential(network, ko.Block(variances, variances, KERNEL))
    with pytest.raises(ValueError, match="`differential` needs `closure=TangentDifferential"):
        _ = ko.propagate(network, KERNEL).differential
    with pytest.raises(ValueError, match="`rates.weight` must be a scalar or have one entry a layer"):
        differential(network, rates=ko.LearningRates([1.0, 2.0, 3.0]))
    with pytest.raises(ValueError, match=r"`tangent` must have the shape of the kernel, \(2, 2\)"):
        differential(network, rates=None, tangent=jnp.eye(3))
    with pytest.raises(ValueError, match="`outputs` must be at least 1"):
        differential(network, rates=None).differential.tangent_change(0)


def test_no_compilation_in_a_sweep():
    compiled = 0

    @eqx.filter_jit
    def q(rates, tangent):
        nonlocal compiled
        compiled += 1
        found = differential(ko.MLP(ko.GELU(), 2), rates=rates, tangent=tangent, throw=False)
        return found.differential.Q

    for number in (0.5, 1.5):
        assert np.all(np.isfinite(q(ko.LearningRates(number, number), number * KERNEL)))
    assert compiled == 1
