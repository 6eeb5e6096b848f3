"""The optimal residual scale and its continuous-depth limit."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernelode as ko

from .helpers import (
    ACTIVATIONS,
    RESPONSE_REFERENCE,
    OwnLayered,
    case_id,
    central_difference,
    pair_kernel,
    reference_cases,
    relative_error,
    resnet,
)

PAIR = pair_kernel(0.05, 0.05, 0.03)


def diagonal(net, variance) -> ko.ScaleEstimate:
    kernel = jnp.reshape(jnp.asarray(variance), (1, 1))
    return ko.optimal_residual_scale(net, kernel, pairs=False).diagonal


def network_of(given, activation):
    return resnet(ACTIVATIONS[activation], given.get("L", 1), given["sw2"], given["sb2"])


@pytest.mark.parametrize("case", reference_cases("rho_star_diag"), ids=case_id)
def test_diagonal_reference(case):
    given, expected = case["inputs"], case["outputs"]
    found = diagonal(network_of(given, case["kind"].split("_")[-1]), given["K0"])
    assert bool((found.status == ko.STATUS.interior)[0]) and bool(found.interior[0])
    digits = 1e-9 if "tanh" in case["kind"] else 1e-12
    assert relative_error(found.value[0], expected["rho_star"]) < digits
    assert relative_error(found.response[0], expected["chi_out_swout1"]) < digits


@pytest.mark.parametrize(
    "case",
    [
        case if case["inputs"]["L"] == 10 else pytest.param(case, marks=pytest.mark.slow)
        for case in reference_cases("rho_star_diag_erf")
        if case["inputs"]["L"] in (1, 10)
    ],
    ids=case_id,
)
def test_implicit_gradients(case):
    given, expected = case["inputs"], case["outputs"]

    def value(sw2, sb2, q):
        return diagonal(resnet(ko.Erf(), given["L"], sw2, sb2), q).value[0]

    at = given["sw2"], given["sb2"], given["K0"]
    names = "drho_dsw2", "drho_dsb2", "drho_dK0"
    reverse = jax.grad(value, argnums=(0, 1, 2))(*at)
    forward = jax.jacfwd(value, argnums=(0, 1, 2))(*at)
    for name, one, other in zip(names, reverse, forward):
        assert relative_error(one, expected[name]) < 1e-10
        assert relative_error(other, expected[name]) < 1e-10
    # Only rho^2 C_W and rho^2 C_b enter.
    elasticity = (at[0] * reverse[0] + at[1] * reverse[1]) / expected["rho_star"]
    assert relative_error(elasticity, -0.5) < 1e-12


@pytest.mark.slow
def test_second_derivative_is_implicit_too():
    value = lambda q: diagonal(resnet(ko.Erf(), 10), q).value[0]
    expected = central_difference(jax.grad(value), 0.05, 1e-3)
    assert relative_error(jax.jacfwd(jax.grad(value))(0.05), expected) < 1e-6


@pytest.mark.slow
def test_gradient_with_respect_to_an_activation_parameter():
    value = lambda w: diagonal(resnet(ko.Sin(w), 10), 0.05).value[0]
    assert relative_error(jax.grad(value)(1.1), central_difference(value, 1.1, 1e-3)) < 1e-9


@pytest.mark.parametrize("case", reference_cases("sin_closed"), ids=case_id)
def test_sine(case):
    given, expected = case["inputs"], case["outputs"]
    net = network_of(given, "sin")
    limit = ko.optimal_flow_time(net, jnp.array([[given["K0"]]]), pairs=False).diagonal
    assert relative_error(limit.kernel[0], expected["K_star"]) < 1e-12
    assert relative_error(limit.time[0], expected["t_star"]) < 1e-12
    for depth, value in expected["rho_star_discrete"].items():
        net = resnet(ko.Sin(), int(depth), given["sw2"], given["sb2"])
        assert relative_error(diagonal(net, given["K0"]).value[0], value) < 1e-10


@pytest.mark.parametrize("case", reference_cases("continuous_diag"), ids=case_id)
def test_continuous_diagonal_reference(case):
    given, expected = case["inputs"], case["outputs"]
    net, kernel = network_of(given, "erf"), jnp.array([[given["K0"]]])
    found = ko.optimal_flow_time(net, kernel, pairs=False).diagonal
    if expected["exists"]:
        assert bool((found.status == ko.STATUS.interior)[0])
        assert relative_error(found.kernel[0], expected["K_star"]) < 1e-12
        assert relative_error(found.time[0], expected["t_star"]) < 1e-12
        assert relative_error(found.correction[0], expected["t1"]) < 1e-11
    else:
        assert bool((found.status == ko.STATUS.decreasing)[0]) and found.time[0] == 0


def test_critical_kernel_depends_on_the_bias_ratio_alone():
    kernels = jnp.diag(jnp.array([0.01, 0.05, 0.1]))
    one = ko.optimal_flow_time(resnet(ko.Erf(), 1, 1.0, 0.04), kernels, pairs=False).diagonal
    other = ko.optimal_flow_time(resnet(ko.Erf(), 1, 2.0, 0.08), kernels, pairs=False).diagonal
    assert relative_error(one.kernel, jnp.full(3, 0.25113205320327)) < 1e-12
    assert relative_error(other.kernel, one.kernel) < 1e-12
    assert relative_error(2 * other.time, one.time) < 1e-12


def test_no_critical_kernel_beyond_the_threshold():
    # erf: K* ~ .2001 (1 - pi s) vanishes at s = C_b / C_W = 1/pi.
    near = resnet(ko.Erf(), 1, 1.0, (1 - 1e-3) / np.pi)
    found = ko.optimal_flow_time(near, jnp.array([[1e-6]]), pairs=False).diagonal
    assert relative_error(found.kernel[0], 0.2001e-3) < 0.02
    beyond = resnet(ko.Erf(), 10, 1.0, 1.001 / np.pi)
    assert bool((diagonal(beyond, 1e-6).status == ko.STATUS.decreasing)[0])


@pytest.mark.slow
def test_finite_depth_approaches_the_limit():
    limit = ko.optimal_flow_time(resnet(ko.Erf(), 1), PAIR)
    for name, bounds in (("diagonal", (4e-4, 2.1e-5)), ("off_diagonal", (2e-3, 7e-5))):
        law = getattr(limit, name)
        for depth, bound in zip((50, 200), bounds):
            found = getattr(ko.optimal_residual_scale(resnet(ko.Erf(), depth), PAIR), name)
            inside = np.asarray(found.interior)
            error = np.asarray(law.residual_scale(depth) / found.value - 1)[inside]
            assert inside.any() and np.max(np.abs(error)) < bound


@pytest.mark.slow
@pytest.mark.parametrize("case", reference_cases("continuous_offdiag"), ids=case_id)
def test_continuous_pair_reference(case):
    given, expected = case["inputs"], case["outputs"]
    aa, bb, ab = given["K0"]
    found = ko.optimal_flow_time(network_of(given, "erf"), pair_kernel(aa, bb, ab)).off_diagonal
    assert bool((found.status == ko.STATUS.interior)[0, 1])
    assert relative_error(found.time[0, 1], expected["t_star"]) < 1e-8
    assert relative_error(found.kernel[0, 1], expected["K_star"][2]) < 1e-8


@pytest.mark.slow
def test_continuous_pair_gradient():
    def time(sw2):
        return ko.optimal_flow_time(resnet(ko.Erf(), 1, sw2), PAIR).off_diagonal.time[0, 1]

    assert relative_error(jax.grad(time)(1.25), central_difference(time, 1.25, 1e-2)) < 1e-6


@pytest.mark.parametrize("case", reference_cases("rho_star_offdiag"), ids=case_id)
def test_pair_reference(case):
    given, expected = case["inputs"], case["outputs"]
    aa, bb, ab = given["K0"]
    net = network_of(given, "erf")
    found = ko.optimal_residual_scale(net, pair_kernel(aa, bb, ab)).off_diagonal
    assert bool((found.status == ko.STATUS.interior)[0, 1])
    assert relative_error(found.value[0, 1], expected["rho_star"]) < 1e-11
    assert relative_error(found.response[0, 1], expected["chi_out_swout1"]) < 1e-12
    assert found.value[0, 1] == found.value[1, 0]


@pytest.mark.slow
def test_pair_gradient():
    def value(ab):
        kernel = pair_kernel(0.05, 0.05, 0.0) + ab * jnp.array([[0.0, 1.0], [1.0, 0.0]])
        found = ko.optimal_residual_scale(resnet(ko.Erf(), 10), kernel)
        return found.off_diagonal.value[0, 1]

    expected = central_difference(value, 0.03, 2e-4)
    assert relative_error(jax.grad(value)(0.03), expected) < 1e-6


@pytest.mark.slow
def test_tanh_pair():
    kernel = pair_kernel(0.05, 0.05, 0.03)
    found = ko.optimal_residual_scale(resnet(ko.Tanh(), 10), kernel).off_diagonal
    assert relative_error(found.value[0, 1], 1.40367) < 1e-5


@pytest.mark.parametrize("case", reference_cases("digits"), ids=case_id)
def test_digits_summary(case):
    given, expected = case["inputs"], case["outputs"]
    kernel = jnp.array(RESPONSE_REFERENCE["digits_gram"])
    found = ko.optimal_residual_scale(network_of(given, "erf"), kernel)
    one, pairs = found.diagonal.summary(), found.off_diagonal.summary()
    assert one.interior_fraction == 1 and pairs.interior_fraction == 1
    assert (one.count, pairs.count) == (20, 190)
    assert relative_error(one.mean, expected["mean_diag"]) < 1e-11
    assert relative_error(one.standard_deviation, expected["sd_diag"]) < 1e-9
    assert relative_error(pairs.mean, expected["mean_offdiag"]) < 1e-11
    assert relative_error(pairs.standard_deviation, expected["sd_offdiag"]) < 1e-9


@pytest.mark.parametrize("depth", [10, pytest.param(50, marks=pytest.mark.slow)])
def test_softplus_has_no_diagonal_optimum(depth):
    found = diagonal(resnet(ko.Softplus(), depth), 0.05)
    assert bool((found.status == ko.STATUS.increasing)[0]) and jnp.isinf(found.value[0])


@pytest.mark.parametrize(
    "activation", [ko.ReLU(), pytest.param(ko.GELU(), marks=pytest.mark.slow), ko.Linear()]
)
def test_unbounded_activations_have_no_optimum(activation):
    found = ko.optimal_residual_scale(resnet(activation, 10), PAIR)
    assert bool(jnp.all(found.diagonal.status == ko.STATUS.increasing))
    assert bool(jnp.all(found.off_diagonal.status == ko.STATUS.increasing))
    assert bool(jnp.all(jnp.isinf(found.diagonal.value)))
    assert found.diagonal.summary().interior_fraction == 0
    assert found.diagonal.summary().mean == 0
    limit = ko.optimal_flow_time(resnet(activation, 1), PAIR, pairs=False).diagonal
    assert bool(jnp.all(limit.status == ko.STATUS.increasing))


def test_inputs_above_the_critical_kernel_and_gradients_of_mixtures():
    kernel = jnp.diag(jnp.array([0.05, 1.4]))

    def total(sw2):
        found = ko.optimal_residual_scale(resnet(ko.Erf(), 10, sw2), kernel, pairs=False)
        return jnp.sum(found.diagonal.value), found.diagonal

    (value, found), slope = jax.value_and_grad(total, has_aux=True)(1.25)
    assert bool(found.interior[0]) and bool((found.status == ko.STATUS.decreasing)[1])
    assert found.value[1] == 0
    assert (
        relative_error(found.response[1], ko.response(resnet(ko.Erf(), 10, rho=0.0), kernel).diagonal[1])
        < 1e-13
    )
    assert relative_error(slope, -0.0733017829) < 1e-8 and jnp.isfinite(value)


def test_existence_does_not_depend_on_depth(getkey):
    # The criterion F'(K0) > 0, against the slope of log chi_out in rho^2 at zero, and at most one
    # maximum on a grid.
    variances = jnp.exp(jax.random.uniform(getkey(), (40,), minval=-5.0, maxval=0.5))
    bias = jax.random.uniform(getkey(), (40,), maxval=0.5)
    scales = jnp.geomspace(1e-3, 10.0, 120)

    def one(q, sb2, depth):
        net = lambda rho: resnet(ko.Erf(), depth, 1.0, sb2, rho)
        height = lambda rho: jnp.log(ko.response(net(rho), q[None, None]).diagonal[0])
        status = diagonal(net(1.0), q).interior[0]
        return status, jax.vmap(height)(scales)

    for depth in (1, 10):
        interior, heights = eqx.filter_jit(jax.vmap(one, (0, 0, None)))(variances, bias, depth)
        signs = jnp.sign(jnp.diff(heights, axis=1))
        turns = jnp.sum(signs[:, 1:] * signs[:, :-1] < 0, axis=1)
        assert jnp.all(turns <= 1)
        assert jnp.array_equal(turns == 1, interior)


def test_slope_at_zero_scale():
    # d log chi_out / d(rho^2) at 0 = L (C_W a + Q (log a)').
    q, depth = jnp.asarray(0.07), 6
    net = resnet(ko.Erf(), depth)
    height = lambda e: jnp.log(
        ko.response(resnet(ko.Erf(), depth, rho=jnp.sqrt(e)), jnp.full((1, 1), q)).diagonal[0]
    )
    rise = lambda e: (height(e) - height(0.0)) / e
    measured = 2 * rise(1e-5) - rise(2e-5)
    drift = lambda k: net.drift(ko.Variances(k), net.flow_layer()).values
    slope = jax.grad(lambda k: net.read_out(ko.Variances(k)).values)
    expected = depth * (jax.grad(drift)(q) + drift(q) * jax.grad(slope)(q) / slope(q))
    assert relative_error(measured, expected) < 1e-5


def test_profiles_keep_their_shape():
    profile = jnp.array([1.0, 2.0, 0.5, 1.0, 1.5])
    found = diagonal(resnet(ko.Erf(), 5, rho=profile), 0.05).value[0]
    unit = profile / jnp.sqrt(jnp.mean(profile**2))
    height = lambda rho: ko.response(resnet(ko.Erf(), 5, rho=rho * unit), jnp.array([[0.05]])).diagonal[0]
    around = jnp.array([height(found * factor) for factor in (0.99, 1.0, 1.01)])
    assert jnp.argmax(around) == 1
    flat = diagonal(resnet(ko.Erf(), 5, rho=jnp.full(5, 3.0)), 0.05).value[0]
    assert relative_error(flat, diagonal(resnet(ko.Erf(), 5), 0.05).value[0]) < 1e-12


def test_a_profile_of_a_users_network():
    """Scales differ between layers although `residual_scale` is one number."""
    weight, bias = jnp.asarray(1.25), jnp.asarray(0.05)
    own = OwnLayered(ko.Erf(), 4, decay=0.5, weight_variance=weight, bias_variance=bias)
    profile = jnp.arange(1.0, 5.0) ** -0.5
    expected = diagonal(resnet(ko.Erf(), 4, rho=profile), 0.05).value[0]
    assert relative_error(diagonal(own, 0.05).value[0], expected) < 1e-12


def test_two_layers_a_block():
    net = resnet(ko.Erf(), 5, layers_per_block=2)
    found = diagonal(net, 0.05)
    height = lambda rho: ko.response(
        resnet(ko.Erf(), 5, rho=rho, layers_per_block=2), jnp.array([[0.05]])
    ).diagonal[0]
    assert bool(found.interior[0])
    slope = jax.grad(height)(found.value[0])
    assert abs(slope) < 1e-10 * height(found.value[0])


def test_duplicate_and_opposite_inputs():
    kernel = jnp.array([[0.05, 0.05, -0.05], [0.05, 0.05, -0.05], [-0.05, -0.05, 0.05]])
    # Without biases they stay parallel, and E[sigma'^2] falls too slowly to stop the growth.
    found = ko.optimal_residual_scale(resnet(ko.Erf(), 10, sb2=0.0), kernel).off_diagonal
    assert bool(jnp.all(found.status == ko.STATUS.increasing))


def test_batches_of_cases():
    variances = jnp.linspace(0.01, 0.4, 64)
    together = eqx.filter_jit(jax.vmap(lambda q: diagonal(resnet(ko.Erf(), 10), q)))(variances)
    assert bool(together.interior[0, 0]) and not bool(together.interior[-1, 0])
    for i in (0, 20, 63):
        alone = diagonal(resnet(ko.Erf(), 10), variances[i])
        assert jnp.allclose(together.value[i], alone.value, rtol=1e-12)


def test_float32():
    found = diagonal(resnet(ko.Erf(), 10), jnp.float32(0.05))
    assert found.value.dtype == jnp.float32
    assert relative_error(found.value[0], 0.3265091602599754) < 1e-4


def test_ill_posed_requests_are_refused():
    with pytest.raises(TypeError, match="residual scale"):
        ko.optimal_residual_scale(ko.MLP(ko.Erf(), 3), PAIR)
    with pytest.raises(TypeError, match="residual scale"):
        ko.optimal_flow_time(ko.MLP(ko.Erf(), 3), PAIR)
    with pytest.raises(ValueError, match="shape"):
        ko.optimal_residual_scale(resnet(ko.Erf(), 2, rho=jnp.zeros(2)), PAIR)
    with pytest.raises(ValueError, match="semidefinite"):
        ko.optimal_residual_scale(resnet(ko.Erf(), 2), pair_kernel(0.05, 0.05, 0.06))
