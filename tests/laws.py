"""What holds for every activation, every closure and every network, whoever wrote it.

`test_laws.py` asks it of everything in the registry of `helpers.py`, `test_newcomer.py` of what a user
adds. Nothing private is imported here.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

import kernelode as ko

from .helpers import central_difference, relative_error

#: Three inputs: variances and correlations of either sign.
KERNEL = jnp.array([[0.9, 0.4, -0.3], [0.4, 1.3, 0.2], [-0.3, 0.2, 0.6]])
#: A direction in which kernels are varied.
DIRECTION = jnp.array([[0.3, 0.1, -0.2], [0.1, -0.2, 0.15], [-0.2, 0.15, 0.25]])


# -- activations -------------------------------------------------------------------------------------


def check_expectations(activation: ko.AbstractActivation) -> None:
    """E[sigma sigma] and E[sigma' sigma'] by a sum over the plane, and errors that bound."""
    a, b, c = 0.9, 1.4, 0.5
    found = _pair(activation, a, b, c)
    slope = jax.vmap(jax.grad(lambda x: jnp.sum(activation(x[None]))))
    for order, function in ((0, activation), (1, slope)):
        value, error = (float(x[0, 0]) for x in (found[order, order].value, found[order, order].error))
        scale = np.sqrt(_over_plane(activation, function, a, a, 0.999999999 * a) + 1)
        truth = _over_plane(activation, function, a, b, c)
        assert abs(value - truth) <= error + 1e-12 * scale, (order, value, truth, error)
        assert error < 1e-9 * scale


def check_derivatives(activation: ko.AbstractActivation) -> None:
    """Price's theorem, by finite differences; reverse mode, batches and compilation."""
    value = jax.jit(lambda a, b, c: _pair(activation, a, b, c)[0, 0].value[0, 0])
    at = (0.9, 1.4, 0.5)
    slopes = jax.jit(jax.grad(value, argnums=(0, 1, 2)))(*at)
    for slope, direction in zip(slopes, np.eye(3)):
        along = lambda t, d=direction: value(*(x + t * y for x, y in zip(at, d)))
        assert abs(slope - central_difference(along, 0.0, 2e-3)) < 1e-8 * (1 + abs(slope))
    assert abs(slopes[2] - _pair(activation, *at)[1, 1].value[0, 0]) < 1e-11 * (1 + abs(slopes[2]))
    many = jax.vmap(jax.grad(value, argnums=2))(*(jnp.full(2, x) for x in at))
    assert relative_error(many, slopes[2] * jnp.ones(2)) < 1e-11
    assert np.isfinite(jax.hessian(value, argnums=2)(*at))


def check_edges(activation: ko.AbstractActivation) -> None:
    """Equal inputs are one, exchanged ones a transposed table, zero variance is the value at zero."""
    alone = ko.variance_derivatives(activation, jnp.array([0.9, 0.0])).value[0]
    equal = _pair(activation, 0.9, 0.9, 0.9)[0, 0].value[0, 0]
    assert relative_error(equal, alone[0]) < 1e-11
    assert relative_error(1 + alone[1], 1 + activation(jnp.zeros(())) ** 2) < 1e-13
    one, other = _pair(activation, 0.9, 1.4, 0.5), _pair(activation, 1.4, 0.9, 0.5)
    assert relative_error(1 + one[2, 0].value, 1 + other[0, 2].value.T) < 1e-10
    single = _pair(activation, *(jnp.float32(x) for x in (0.9, 1.4, 0.5)))[0, 0].value
    assert single.dtype == jnp.float32
    assert relative_error(1 + single, 1 + one[0, 0].value) < 1e-4


def _pair(activation, a, b, c):
    a, b, c = (jnp.asarray(x) for x in (a, b, c))
    return ko.pair_moments(activation, a[None], b[None], c[None, None], order=1)


def _over_plane(activation, function, a, b, c) -> float:
    """E[f(x) f(y)] by Gauss-Legendre on rectangles between the kinks, on which f is smooth."""
    kinks = sorted(getattr(activation, "kinks", (0.0,)))
    edges = np.array([-9.0, *kinks, 9.0]) * 1.0
    points, weights = scipy.special.roots_legendre(400)
    halves, middles = np.diff(edges) / 2, (edges[1:] + edges[:-1]) / 2
    x = (middles[:, None] + halves[:, None] * points).ravel()
    w = (halves[:, None] * weights).ravel() * np.array(function(jnp.asarray(x)))
    determinant, y = a * b - c**2, x[:, None]
    density = np.exp(-(b * y**2 + a * x**2 - 2 * c * y * x) / (2 * determinant))
    return float(w @ density @ w / (2 * np.pi * np.sqrt(determinant)))


# -- networks ----------------------------------------------------------------------------------------


def check_mean_kernel(network: ko.AbstractArchitecture) -> None:
    """Layer after layer, whichever way a kernel is written down; a covariance at every depth."""
    variances = jnp.diagonal(KERNEL)
    block, alone = ko.Block(variances, variances, KERNEL), ko.Variances(variances)
    found = ko.propagate(network, KERNEL).mean_kernel
    for number in range(network.depth):
        layer = jax.tree.map(lambda x, k=number: x[k], network.layers())
        block, alone = network.layer(block, layer), network.layer(alone, layer)
        assert relative_error(found[number + 1], block.cross) < 1e-11
        assert relative_error(jnp.diagonal(found[number + 1]), alone.values) < 1e-11
        assert jnp.min(jnp.linalg.eigvalsh(found[number + 1])) > -1e-12
    order = jnp.array([2, 0, 1])
    turned = ko.propagate(network, KERNEL[order][:, order]).mean_kernel[-1]
    assert relative_error(turned, found[-1][order][:, order]) < 1e-12


def check_response(network: ko.AbstractArchitecture) -> None:
    """The response is the derivative of the output kernel with respect to the input kernel."""
    chi = ko.response(network, KERNEL)

    def output(kernel):
        last = ko.propagate(network, kernel).mean_kernel[-1]
        variances = jnp.diagonal(last)
        return network.read_out(ko.Block(variances, variances, last))

    along = jax.jit(lambda t: output(KERNEL + t * jnp.diag(jnp.diagonal(DIRECTION))).row)
    change = central_difference(along, 0.0, 1e-3)
    assert relative_error(chi.diagonal * jnp.diagonal(DIRECTION), change) < 1e-8
    across = jax.jit(lambda t: output(KERNEL + t * DIRECTION * (1 - jnp.eye(3))).cross)
    pairs = ~jnp.eye(3, dtype=bool)
    change = central_difference(across, 0.0, 1e-3)
    assert relative_error((chi.off_diagonal * DIRECTION)[pairs], change[pairs]) < 1e-8


def check_ensemble(network: ko.AbstractArchitecture, *, samples: int = 4000) -> None:
    """Networks of finite width agree with K0, V4 and K1."""
    theory = ko.propagate(network, KERNEL, closure=ko.WickTower(16))
    drawn = ko.ensemble.sample(network, KERNEL, width=64, samples=samples, key=jax.random.key(5))
    assert ko.compare(theory, drawn).probability > 1e-4


# -- closures ----------------------------------------------------------------------------------------


def check_closure(closure: ko.AbstractClosure, network: ko.AbstractResidualNetwork) -> None:
    """The mean kernel is the mean kernel, and the rate is the derivative of a push."""
    found = ko.propagate(network, KERNEL, closure=closure)
    assert relative_error(found.mean_kernel, ko.propagate(network, KERNEL).mean_kernel) < 1e-12
    closure = closure.prepare(network, KERNEL, jnp.ones(1))
    flow = closure.flow_layer(network)
    state = closure.push(network, closure.init(network, KERNEL), flow)

    @jax.jit
    def pushed(square):
        return closure.push(network, state, eqx.tree_at(lambda x: x.scale, flow, jnp.sqrt(square)))

    step, rate = 1e-4, closure.rate(network, state, flow)
    # One-sided, since rho^2 is not negative: differences of third order.
    at = [pushed(jnp.asarray(k * step)) for k in range(4)]
    slope = jax.tree.map(lambda a, b, c, d: (-11 * a + 18 * b - 9 * c + 2 * d) / (6 * step), *at)
    for ours, theirs in zip(jax.tree.leaves(slope), jax.tree.leaves(rate), strict=True):
        assert jnp.max(jnp.abs(ours - theirs), initial=0) < 1e-6 * (
            1 + jnp.max(jnp.abs(theirs), initial=0)
        )


def check_moments(closure: ko.AbstractMomentClosure, network: ko.AbstractArchitecture) -> None:
    """V4 is a covariance, both moments are symmetric, and the order of the inputs means nothing."""
    run = eqx.filter_jit(lambda kernel: ko.propagate(network, kernel, closure=closure).moments)
    found, order = run(KERNEL), jnp.array([2, 0, 1])
    turned = run(KERNEL[order][:, order])
    last = lambda moments: jax.tree.map(lambda x: x[-1], moments)
    found, turned = last(found), last(turned)
    assert relative_error(turned.mean_correction, found.mean_correction[order][:, order]) < 1e-10
    assert relative_error(turned.kernel_variance, found.kernel_variance[order][:, order]) < 1e-10
    assert relative_error(found.mean_correction, found.mean_correction.T) < 1e-12
    v4 = found.kernel_covariance
    if isinstance(closure, ko.AbstractPairClosure):  # of (aa, ab, bb)
        assert relative_error(v4, jnp.swapaxes(v4, 2, 3)) < 1e-12
        least = jnp.linalg.eigvalsh(v4)
    else:
        assert relative_error(v4, jnp.transpose(v4, (2, 3, 0, 1))) < 1e-12
        assert relative_error(v4, jnp.transpose(v4, (1, 0, 2, 3))) < 1e-12
        least = jnp.linalg.eigvalsh(v4.reshape(9, 9))
    assert jnp.min(least) > -1e-10 * jnp.max(v4)
