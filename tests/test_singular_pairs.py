"""Derivatives of the tower at equal, parallel, opposite and zero inputs, and its values beside them.

The moments are smooth in the kernel there, but for kinks whose first derivatives exist; bases and
correlations are not. What automatic differentiation gives is compared with one-sided differences towards
the inside of the cone of covariances.
"""

import functools
import itertools

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernelode as ko
from kernelode._closure.chaos_basis import basis_floor, frame, frame_rate, own_frame
from kernelode._expectation.chaos import alignment
from kernelode._expectation.products import pair_fourth_moments

ELEMENTS = np.array([0, 0, 1]), np.array([0, 1, 1])
# The kernel, and a direction into the cone: the determinant grows along it.
SINGULAR = {
    "equal": ([[0.8, 0.8], [0.8, 0.8]], [[0.1, -0.2], [-0.2, 0.3]]),
    "opposite": ([[0.8, -0.8], [-0.8, 0.8]], [[0.1, 0.2], [0.2, 0.3]]),
    "parallel": ([[0.4, 0.8], [0.8, 1.6]], [[0.1, -0.2], [-0.2, 0.3]]),
    "zero": ([[0.0, 0.0], [0.0, 0.7]], [[0.5, 0.5], [0.5, 0.0]]),
    "zero, second": ([[0.7, 0.0], [0.0, 0.0]], [[0.0, 0.5], [0.5, 0.5]]),
    "both zero": ([[0.0, 0.0], [0.0, 0.0]], [[0.6, 0.3], [0.3, 0.9]]),
}


def network(activation, depth=3):
    return ko.ResNet(activation, depth, residual_scale=0.5, weight_variance=1.3, bias_variance=0.1)


def flat(moments, pairs: bool):
    """V4 over (aa, ab, bb) and K1."""
    if pairs:
        covariance = moments.kernel_covariance[-1, 0, 1]
    else:
        a, b = ELEMENTS
        covariance = moments.kernel_covariance[-1][a[:, None], b[:, None], a[None, :], b[None, :]]
    return jnp.concatenate([covariance.reshape(-1), moments.mean_correction[-1].reshape(-1)])


def layers(kernel, activation, *, order=4, pairs=True, depth=3, start=None, read_out=False):
    closure = ko.WickTower(order, start=ko.GaussianRows() if start is None else start)
    run = ko.propagate_pairs if pairs else ko.propagate
    solution = run(network(activation, depth), kernel, closure=closure, layers=[depth])
    return flat(solution.read_out if read_out else solution.moments, pairs)


def flow(kernel, activation, *, order=4, pairs=True):
    run = ko.solve_pairs if pairs else ko.solve
    net, closure = network(activation, 1), ko.WickTower(order)
    adjoint = diffrax.ForwardMode()
    solution = run(net, kernel, jnp.array([1.0]), closure=closure, adjoint=adjoint)
    return flat(solution.moments, pairs)


def check(function, case: str, *, steps=(2e-4, 1e-4), rtol=1e-5):
    kernel, along = (jnp.asarray(x) for x in SINGULAR[case])
    # One program for values and tangents.
    line = jax.jit(lambda t: jax.jvp(lambda t: function(kernel + t * along), (t,), (1.0,)))
    start, tangent = line(0.0)
    far, near = ((line(step)[0] - start) / step for step in steps)
    expected = 2 * near - far
    scale = jnp.max(jnp.abs(expected))
    assert jnp.all(jnp.abs(tangent - expected) <= rtol * scale), (tangent, expected)
    return tangent


def test_equal_inputs():
    check(functools.partial(layers, activation=ko.Softplus(), depth=2), "equal")


@pytest.mark.slow
@pytest.mark.parametrize("pairs", [True, False])
@pytest.mark.parametrize("activation", [ko.Softplus(), ko.Tanh()], ids=["softplus", "tanh"])
@pytest.mark.parametrize("case", SINGULAR)
def test_smooth(case, activation, pairs):
    check(functools.partial(layers, activation=activation, pairs=pairs), case)


@pytest.mark.slow
def test_all_elements_of_equal_inputs():
    """Elements of three inputs, two of them equal, too."""
    kernel = jnp.asarray([[0.8, 0.8, 0.3], [0.8, 0.8, 0.3], [0.3, 0.3, 0.7]])
    along = jnp.asarray([[0.2, -0.2, 0.1], [-0.2, 0.3, 0.0], [0.1, 0.0, 0.1]])

    def line(t):
        closure = ko.WickTower(4)
        moments = ko.propagate(network(ko.Softplus(), 2), kernel + t * along, closure=closure).moments
        return moments.kernel_covariance[-1], moments.mean_correction[-1]

    tangents = jax.jit(lambda: jax.jvp(line, (0.0,), (1.0,))[1])()
    start, far, near = (jax.jit(line)(t) for t in (0.0, 2e-4, 1e-4))
    for tangent, x, y, z in zip(tangents, start, near, far):
        expected = 2 * (y - x) / 1e-4 - (z - x) / 2e-4
        assert jnp.max(jnp.abs(tangent - expected)) <= 1e-5 * jnp.max(jnp.abs(expected))


@pytest.mark.slow
@pytest.mark.parametrize("pairs", [True, False])
@pytest.mark.parametrize("case", ["equal", "opposite", "parallel"])
def test_homogeneous(case, pairs):
    """What is not smooth is of order gap^{3/2}: differences converge with the root of the step."""
    function = functools.partial(layers, activation=ko.ReLU(), pairs=pairs)
    kernel, along = (jnp.asarray(x) for x in SINGULAR[case])
    line = jax.jit(lambda t: function(kernel + t * along))
    tangent = jax.jit(lambda: jax.jvp(line, (0.0,), (1.0,))[1])()
    errors = [jnp.max(jnp.abs((line(t) - line(0.0)) / t - tangent)) for t in (4e-4, 1e-4)]
    assert errors[1] <= 2e-3 * jnp.max(jnp.abs(tangent))
    assert errors[1] <= 0.6 * errors[0]


@pytest.mark.parametrize("case", ["equal", pytest.param("parallel", marks=pytest.mark.slow)])
def test_kinks_as_the_closed_form(case):
    """Values and derivatives of declared kinks at parallel inputs, where both are exact."""
    kernel, along = (jnp.asarray(x) for x in SINGULAR[case])
    declared = ko.Elementwise(lambda x: jnp.maximum(x, 0), kinks=(0.0,))

    def both(activation):
        line = lambda t: layers(kernel + t * along, activation, depth=1 if case == "equal" else 2)
        return jax.jit(lambda: jax.jvp(line, (0.0,), (1.0,)))()

    for found, expected in zip(both(declared), both(ko.ReLU())):
        # Unequal ones are no longer parallel after a layer with biases: then the series is summed.
        tolerance = 1e-11 if case == "equal" else 1e-3
        assert np.allclose(found, expected, rtol=0, atol=tolerance * jnp.max(jnp.abs(expected)))


@pytest.mark.slow
@pytest.mark.parametrize("activation", [ko.Softplus(), ko.ReLU()], ids=["softplus", "relu"])
def test_kernel_and_parameters_in_both_modes(activation):
    """Gradients by entries of the kernel, residual scale and variances: reverse mode is forward mode."""
    kernel = jnp.asarray([[0.8, 0.8, 0.0], [0.8, 0.8, 0.0], [0.0, 0.0, 0.0]])

    def value(kernel, scale, weight, bias):
        net = ko.ResNet(activation, 2, residual_scale=scale, weight_variance=weight, bias_variance=bias)
        moments = ko.propagate_pairs(net, kernel, closure=ko.WickTower(4), layers=[2]).moments
        weights = jnp.arange(81.0).reshape(3, 3, 3, 3)
        return jnp.sum(moments.kernel_covariance[0] * weights) + jnp.sum(moments.mean_correction[0])

    arguments = (kernel, *(jnp.asarray(x) for x in (0.5, 1.3, 0.0)))
    reverse = jax.jit(jax.grad(value, argnums=(0, 1, 2, 3)))(*arguments)
    forward = jax.jit(jax.jacfwd(value, argnums=(0, 1, 2, 3)))(*arguments)
    for found, expected in zip(reverse, forward):
        assert np.all(np.isfinite(found))
        assert np.allclose(found, expected, rtol=1e-9, atol=1e-9 * np.max(np.abs(expected)))
    step = 1e-5
    for index in (1, 2):
        up, down = (list(arguments) for _ in range(2))
        up[index], down[index] = up[index] + step, down[index] - step
        difference = (jax.jit(value)(*up) - jax.jit(value)(*down)) / (2 * step)
        assert float(reverse[index]) == pytest.approx(float(difference), rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["equal", "opposite", "parallel", "zero"])
def test_flow(case):
    check(functools.partial(flow, activation=ko.Softplus()), case)


@pytest.mark.slow
def test_flow_of_all_elements():
    check(functools.partial(flow, activation=ko.Tanh(), pairs=False), "equal")


@pytest.mark.slow
@pytest.mark.parametrize("case", ["equal", "zero"])
def test_read_out_and_fixed_gram(case):
    function = functools.partial(layers, activation=ko.Softplus(), depth=2)
    check(functools.partial(function, read_out=True), case)
    check(functools.partial(function, start=ko.FixedGram()), case)


@pytest.mark.slow
def test_second_derivatives():
    """Of smooth activations, of any order: the basis itself is smooth."""
    kernel, along = (jnp.asarray(x) for x in SINGULAR["equal"])
    line = lambda t: layers(kernel + t * along, ko.Softplus(), depth=2)
    slope = jax.jit(lambda t: jax.jvp(line, (t,), (1.0,))[1])
    second = jax.jit(lambda: jax.jvp(slope, (0.0,), (1.0,))[1])()
    far, near = ((slope(t) - slope(0.0)) / t for t in (2e-4, 1e-4))
    assert np.allclose(second, 2 * near - far, rtol=0, atol=1e-5 * jnp.max(jnp.abs(second)))


@pytest.mark.slow
def test_upstream_covariance_at_zero_variance():
    """chi and D^2 Q at a zero input are those of a tiny one."""
    upstream = jnp.zeros((2, 2, 2, 2)).at[0, 0, 0, 0].set(0.3).at[1, 1, 1, 1].set(0.4)
    start = ko.RandomCovariance(upstream, jnp.asarray([[0.2, 0.0], [0.0, 0.1]]))
    for pairs in (True, False):
        function = functools.partial(layers, activation=ko.Softplus(), start=start, pairs=pairs, depth=2)
        zero, tiny = (function(jnp.asarray([[q, 0.0], [0.0, 0.7]])) for q in (0.0, 1e-9))
        assert np.allclose(zero, tiny, rtol=0, atol=1e-7 * jnp.max(jnp.abs(tiny)))


def test_alignment():
    """corr and corr'^2, and their derivatives at parallel inputs; both flat at zero variance."""
    a, b, c = (jnp.asarray(x) for x in (0.5, 2.0, -1.0))
    (corr, gap), (d_corr, d_gap) = jax.jvp(alignment, (a, b, c), (0.1 * a, 0.0 * b, 0.3 * a))
    assert corr == -1 and gap == 0
    assert float(d_corr) == pytest.approx(0.15 + 0.05, rel=1e-12)
    assert float(d_gap) == pytest.approx(2 * float(d_corr), rel=1e-12)
    zero = jnp.zeros(())
    _, tangents = jax.jvp(alignment, (zero, b, zero), (a, b, c))
    assert all(tangent == 0 for tangent in tangents)


@pytest.mark.parametrize("activation", [ko.Tanh(), ko.ReLU()], ids=["smooth", "kink"])
def test_frames(activation):
    """B = A^{-1}, and the covariance of (u, w) is B K B^T, at any position of two inputs."""
    floor = basis_floor(activation)
    for a, b, c in [(1.0, 2.0, 0.5), (0.8, 0.8, 0.8), (0.5, 2.0, -1.0), (0.0, 2.0, 0.0), (0.0, 0.0, 0.0)]:
        kernel = tuple(jnp.asarray(x) for x in (a, b, c))
        here = frame(*kernel, floor=floor)
        matrix = jnp.asarray([[a, c], [c, b]])
        assert np.allclose(here.a @ here.b, np.eye(2), atol=1e-12)
        assert np.allclose(here.b @ matrix @ here.b.T, here.gram, atol=1e-12)
        assert not np.any(own_frame(here).b[1])
        if a * b > c**2:
            drift, step = jnp.asarray([[0.3, 0.1], [0.1, -0.2]]), 1e-6
            shifted = (jnp.asarray(x) for x in (a + step * 0.3, b - step * 0.2, c + step * 0.1))
            moved = frame(*shifted, floor=floor)
            rate = frame_rate(*kernel, drift=drift, floor=floor)
            assert np.allclose((moved.b - here.b) @ here.a / step, rate, atol=1e-5)


@pytest.mark.parametrize("sign", [1, -1])
def test_fourth_moments_of_declared_kinks_at_parallel_inputs(sign):
    # The series is 4e-5 away there, since it has 512 terms of an algebraic sequence.
    clipped = ko.Elementwise(lambda x: jnp.clip(x, -1.0, 1.5), kinks=(-1.0, 1.5))
    variances = np.array([0.7, 2.0])
    scales = np.sqrt(variances)
    kernel = sign * jnp.asarray(np.outer(scales, scales))
    found = pair_fourth_moments(clipped, jnp.asarray(variances), jnp.asarray(variances), kernel)
    z = np.linspace(-12, 12, 1_000_001)
    weights = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) * (z[1] - z[0])
    value = lambda scale: np.clip(scale * z, -1.0, 1.5)
    for (a, x), (b, y) in itertools.product(enumerate(scales), repeat=2):
        expected = [weights @ (value(x) ** (4 - j) * value(sign * y) ** j) for j in range(5)]
        assert np.allclose(found[a, b], expected, rtol=1e-8, atol=0)
