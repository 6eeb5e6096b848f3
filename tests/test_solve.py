"""Mean kernels at continuous depth."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import kernelode as ko

from .helpers import central_difference, relative_error, resnet

K2 = jnp.array([[0.5, 0.2], [0.2, 0.8]])


def test_linear_flow_is_solvable():
    # K + s = exp(C_W t) (K(0) + s), s = C_b / C_W.
    ts = jnp.array([0.0, 0.7, 2.0])
    solution = ko.solve(resnet(ko.Linear(), 1, 1.5, 0.3), K2, ts)
    expected = jnp.exp(1.5 * ts)[:, None, None] * (K2 + 0.2)[None] - 0.2
    assert relative_error(solution.mean_kernel, expected) < 1e-8
    assert jnp.array_equal(solution.ts, ts)
    assert solution.result == ko.RESULTS.successful and solution.stats["num_steps"] > 0


def test_sine_variance_is_solvable():
    # dK/dt = C_W (1 - exp(-2K))/2: exp(2K) - 1 grows like exp(C_W t).
    variance = ko.solve(resnet(ko.Sin(), 1, 2.0, 0.0), jnp.array([[0.1]]), 0.8).mean_kernel[-1, 0, 0]
    expected = jnp.log1p(jnp.expm1(0.2) * jnp.exp(1.6)) / 2
    assert relative_error(variance, expected) < 1e-8


@pytest.mark.parametrize("activation", [ko.Erf(), ko.Tanh()])
def test_discrete_network_is_euler(activation):
    net = resnet(activation, 25, rho=0.2)
    euler = ko.solve(net, K2, 25 * 0.04, solver=diffrax.Euler(), dt0=0.04)
    assert relative_error(euler.mean_kernel[-1], ko.propagate(net, K2).mean_kernel[-1]) < 1e-13


def test_deep_networks_approach_the_flow_as_one_over_depth():
    flow = ko.solve(resnet(ko.Erf(), 1), K2, 2.0).mean_kernel[-1]
    gaps = []
    for depth in (200, 400):
        net = resnet(ko.Erf(), depth, rho=jnp.sqrt(2 / depth))
        gaps.append(ko.propagate(net, K2, layers=[depth]).mean_kernel[-1] - flow)
    assert jnp.allclose(gaps[0] / gaps[1], 2.0, rtol=0.01)


def test_saveat_solver_and_controller_pass_through():
    net = resnet(ko.Erf(), 1)
    dense = ko.solve(net, K2, 1.0, saveat=diffrax.SaveAt(dense=True, t1=True))
    plain = ko.solve(
        net,
        K2,
        [0.5, 1.0],
        solver=diffrax.Dopri8(),
        stepsize_controller=diffrax.PIDController(rtol=1e-11, atol=1e-12),
    )
    assert relative_error(dense.evaluate(0.5), plain.mean_kernel[0]) < 1e-7
    assert relative_error(dense.mean_kernel[-1], plain.mean_kernel[1]) < 1e-8
    with pytest.raises(ValueError, match="dense"):
        plain.evaluate(0.5)


@pytest.mark.slow
@pytest.mark.parametrize("activation", [ko.Erf(), ko.Tanh()])
def test_derivatives_by_both_adjoints(activation):
    def last(sw2, adjoint):
        net = resnet(activation, 1, sw2)
        return jnp.sum(ko.solve(net, K2, 1.0, adjoint=adjoint).mean_kernel[-1] ** 2)

    expected = central_difference(lambda s: last(s, None), 1.25, 1e-2)
    reverse = jax.grad(lambda s: last(s, None))(1.25)
    forward = jax.jacfwd(lambda s: last(s, diffrax.ForwardMode()))(1.25)
    assert relative_error(reverse, expected) < 1e-7
    assert relative_error(forward, expected) < 1e-7


def test_vmap_and_a_sweep_that_compiles_once():
    variances = jnp.array([0.8, 1.25, 2.0])
    last = lambda sw2, t: ko.solve(resnet(ko.Erf(), 1, sw2), K2, t).mean_kernel[-1]
    together = eqx.filter_jit(jax.vmap(last))(variances, 2 * variances)
    assert relative_error(together[1], last(variances[1], 2 * variances[1])) < 1e-9


@pytest.mark.parametrize("activation", [pytest.param(ko.Tanh(), marks=pytest.mark.slow), ko.Erf()])
def test_float32(activation):
    single = ko.solve(resnet(activation, 1), K2.astype(jnp.float32), 1.0).mean_kernel
    assert single.dtype == jnp.float32
    assert relative_error(single, ko.solve(resnet(activation, 1), K2, 1.0).mean_kernel) < 3e-5


def test_failure_is_data_until_the_edge():
    net = resnet(ko.Erf(), 1)
    solution = ko.solve(net, K2, 50.0, max_steps=4, throw=False)
    assert solution.result == ko.RESULTS.max_steps_reached
    with pytest.raises(Exception, match="maximum number of solver steps"):
        ko.solve(net, K2, 50.0, max_steps=4)


@pytest.mark.parametrize("options", [{}, {"solver": diffrax.Euler(), "dt0": 0.1}])
def test_an_activation_that_is_nan_is_reported(options):
    net = resnet(ko.Elementwise(jnp.log), 1)
    found = ko.solve(net, K2, 1.0, throw=False, **options)
    assert found.result == ko.RESULTS.not_a_number


def test_overflow_is_reported():
    options = {"solver": diffrax.Euler(), "dt0": 1.0, "throw": False}
    found = ko.solve(resnet(ko.ReLU(), 1, 1e9), K2, 100.0, **options)
    assert found.result == ko.RESULTS.not_finite


@pytest.mark.parametrize("ts", [[1.0, 0.5], [-1.0], [jnp.nan], [], [[1.0]]])
def test_bad_times(ts):
    with pytest.raises(ValueError, match="ts"):
        ko.solve(resnet(ko.Erf(), 1), K2, ts)


def test_networks_without_a_flow_are_refused():
    with pytest.raises(TypeError, match="propagate"):
        ko.solve(ko.MLP(ko.Erf(), 3), K2, 1.0)
    with pytest.raises(TypeError, match="layer_response"):
        ko.response_flow(ko.MLP(ko.Erf(), 3), K2, 1.0)


CLOSURES = [
    ko.MeanOnly(),
    ko.GOnly(),
    ko.GOnly().pairs(),
    # Finite differences resolve the relaxation of low degrees only.
    ko.WickTower(6, single_order=6),
    ko.WickTower(6, single_order=6).pairs(),
    ko.WickTower(5, start=ko.FixedGram(), single_order=5).pairs(),
]


#: The towers by default where both parities count; of an odd activation the even degrees vanish.
RATES = [
    pytest.param(
        activation,
        closure,
        marks=pytest.mark.slow if tower and isinstance(activation, ko.Tanh) else (),
        id=f"{type(activation).__name__}-{type(closure).__name__}",
    )
    for activation in (ko.Tanh(), ko.GELU())
    for closure in CLOSURES
    for tower in ["Wick" in type(closure).__name__]
]


@pytest.mark.parametrize("activation, closure", RATES)
def test_rate_is_the_derivative_of_push(activation, closure):
    # The law that ties discrete and continuous depth: rate = d/d(rho^2) push at rho = 0. The state is
    # one on its way, so that every term counts.
    net = resnet(activation, 3, 1.5, 0.1, rho=0.4)

    @eqx.filter_jit
    def push(state, e):
        layer = eqx.tree_at(lambda x: x.scale, net.flow_layer(), jnp.sqrt(e))
        return closure.push(net, state, layer)

    state = eqx.filter_jit(closure.init)(net, K2)
    for _ in range(3):
        state = push(state, jnp.asarray(0.16))
    low, high = push(state, jnp.asarray(1e-4)), push(state, jnp.asarray(2e-4))
    # (4 f(h) - f(2h) - 3 f(0)) / 2h, exact for the quadratic polynomials that most of them are.
    slope = jax.tree.map(lambda f0, f1, f2: (4 * f1 - f2 - 3 * f0) / 2e-4, state, low, high)
    rate = eqx.filter_jit(closure.rate)(net, state, net.flow_layer())
    for one, other in zip(jax.tree.leaves(slope), jax.tree.leaves(rate)):
        size = jnp.max(jnp.abs(other))
        assert jnp.max(jnp.abs(one - other)) <= 1e-6 * size + 1e-10
