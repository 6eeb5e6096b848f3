"""Response functions: closed forms, references, and the laws they obey."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernelode as ko

from .helpers import (
    ACTIVATIONS,
    RESPONSE_REFERENCE,
    case_id,
    central_difference,
    pair_kernel,
    reference_cases,
    relative_error,
    resnet,
)

K3 = jnp.array([[0.5, 0.2, -0.1], [0.2, 0.8, 0.3], [-0.1, 0.3, 0.4]])


def network_of(case):
    given = case["inputs"]
    variances = dict(
        weight_variance=given["sw2"],
        bias_variance=given["sb2"],
        output_weight_variance=given.get("swout2", 1.0),
    )
    activation = ACTIVATIONS[given["act"]]
    if "ffnet" in case["kind"]:
        return ko.MLP(activation, given["L"], **variances)
    return ko.ResNet(activation, given["L"], residual_scale=given["rho"], **variances)


@pytest.mark.parametrize("case", reference_cases("forward"), ids=case_id)
def test_diagonal_reference(case):
    expected = case["outputs"]
    kernel = jnp.array([[case["inputs"]["K0"]]])
    found = ko.layer_response(network_of(case), kernel)
    assert relative_error(found.chi.diagonal[:, 0], expected["chi"]) < 1e-12
    assert relative_error(found.eta.diagonal[:, 0], expected["eta"]) < 1e-12
    assert relative_error(found.output.diagonal[0], expected["chi_out"]) < 1e-12


def tensor(found: ko.Response):
    """Rows (aa, bb, ab) of a pair's response to (aa, bb, ab)."""
    aa, bb = found.diagonal[0], found.diagonal[1]
    mixed = found.mixed[0, 1], found.mixed[1, 0]
    return jnp.array([[aa, 0, 0], [0, bb, 0], [*mixed, found.off_diagonal[0, 1]]])


@pytest.mark.parametrize("case", reference_cases("pair_response"), ids=case_id)
def test_pair_tensor_reference(case):
    kernel = pair_kernel(**case["inputs"]["K0"])
    found = ko.layer_response(network_of(case), kernel)
    last = jax.tree.map(lambda x: x[-1], found.chi)
    assert relative_error(tensor(last), case["outputs"]["chi_rows_aa_bb_ab"]) < 1e-13
    assert relative_error(tensor(found.output), case["outputs"]["chi_out"]) < 1e-13


@pytest.mark.parametrize("case", reference_cases("two_layer"), ids=case_id)
def test_two_layers_a_block(case):
    given, expected = case["inputs"], case["outputs"]
    net = resnet(ko.Erf(), given["L"], given["sw2"], given["sb2"], given["rho"], layers_per_block=2)
    found = ko.layer_response(net, jnp.array([[given["K0"]]]))
    assert relative_error(found.chi.diagonal[-1, 0], expected["chi_L"]) < 1e-12
    assert relative_error(found.output.diagonal[0], expected["chi_out_swout1"]) < 1e-12


def test_simulated_networks_agree():
    # Residual networks of width 500 (1500 initialisations), recorded with standard errors.
    recorded = RESPONSE_REFERENCE["monte_carlo_fig2"]
    kernel = pair_kernel(1.4, 1.4, 0.84)
    found = ko.layer_response(resnet(ko.Erf(), 10, 1.2, 0.2, 1.0), kernel)
    simulated = recorded["res"]
    for ours, name in [
        (found.eta.diagonal[:, 0], "eta"),
        (found.eta.off_diagonal[:, 0, 1], "eta_od"),
    ]:
        score = (np.array(simulated[name]) - np.asarray(ours)) / np.array(simulated[name + "_se"])
        assert np.max(np.abs(score)) < 3.5


def test_linear():
    net = resnet(ko.Linear(), 6, 1.5, 0.3, 0.4, output_weight_variance=2.0)
    growth = (1 + 0.16 * 1.5) ** jnp.arange(7.0)
    found = ko.layer_response(net, K3)
    assert relative_error(found.chi.diagonal, jnp.outer(growth, jnp.ones(3))) < 1e-14
    assert relative_error(found.chi.off_diagonal[-1], jnp.full((3, 3), growth[-1])) < 1e-14
    assert jnp.all(found.chi.mixed == 0)
    assert relative_error(found.output.off_diagonal, jnp.full((3, 3), 2 * growth[-1])) < 1e-14


def test_relu_diagonal():
    found = ko.layer_response(resnet(ko.ReLU(), 6, 1.5, 0.3, 0.4), K3)
    assert relative_error(found.chi.diagonal[-1], jnp.full(3, (1 + 0.16 * 0.75) ** 6)) < 1e-14
    share = ko.response(resnet(ko.ReLU(), 1, rho=0.0), K3).off_diagonal
    assert jnp.all((share >= 0) & (share <= 0.5))


@pytest.mark.parametrize("activation", [ko.Erf(), ko.Tanh()])
def test_without_residual_branches(activation):
    net = resnet(activation, 5, rho=0.0, output_weight_variance=1.7)
    found = ko.layer_response(net, K3)
    assert jnp.all(found.chi.diagonal == 1) and jnp.all(found.chi.off_diagonal == 1)
    variances = jnp.diagonal(K3)
    slope = jax.vmap(jax.grad(lambda q: net.read_out(ko.Variances(q)).values))(variances)
    assert relative_error(found.output.diagonal, slope) < 1e-14


@pytest.mark.parametrize("activation", [ko.Erf(), ko.Tanh(), ko.GELU()])
def test_response_is_the_derivative_of_the_kernel_map(activation):
    net = resnet(activation, 4, rho=0.6)

    def output(kernel):
        return kernel_out(net, kernel)

    found = ko.response(net, K3)
    moved = lambda direction: central_difference(lambda h: output(K3 + h * direction), 0.0, 1e-3)
    both = jnp.zeros((3, 3)).at[0, 2].set(1).at[2, 0].set(1)
    assert relative_error(moved(both)[0, 2], found.off_diagonal[0, 2]) < 1e-8
    one = jnp.zeros((3, 3)).at[1, 1].set(1)
    change = moved(one)
    assert relative_error(change[1, 1], found.diagonal[1]) < 1e-8
    assert relative_error(change[1, 2], found.mixed[1, 2]) < 1e-8
    assert abs(change[0, 2]) < 1e-11 and abs(change[0, 0]) < 1e-11


def kernel_out(net, kernel):
    last = ko.propagate(net, kernel, layers=[net.depth]).mean_kernel[-1]
    diagonal = jnp.diagonal(last)
    out = net.read_out(ko.Block(diagonal, diagonal, last))
    return jnp.where(jnp.eye(last.shape[0], dtype=bool), out.row[:, None], out.cross)


def test_directional_derivative_is_the_tensor_contracted(getkey):
    net = resnet(ko.Tanh(), 5, rho=0.5)
    direction = jax.random.normal(getkey(), (3, 3))
    direction = direction + direction.T
    along = jax.jvp(lambda k: kernel_out(net, k), (K3,), (direction,))[1]
    found = ko.response(net, K3)
    rows = jnp.diagonal(direction)
    expected = (
        found.off_diagonal * direction + found.mixed * rows[:, None] + found.mixed.T * rows[None, :]
    )
    # On the diagonal too, where there is one entry and one response.
    assert relative_error(along, expected) < 1e-12
    assert jnp.array_equal(jnp.diagonal(found.off_diagonal), found.diagonal)
    assert jnp.all(jnp.diagonal(found.mixed) == 0)


@pytest.mark.parametrize("activation", [ko.Erf(), ko.Tanh(), ko.ReLU()])
def test_responses_of_monotone_activations_grow(activation):
    found = ko.layer_response(resnet(activation, 8, rho=0.5), K3)
    assert jnp.all(jnp.diff(found.chi.diagonal, axis=0) >= 0)
    assert jnp.all(jnp.diff(found.chi.off_diagonal, axis=0) >= 0)


def test_swapping_inputs_transposes():
    net = resnet(ko.Tanh(), 4, rho=0.5)
    one, other = ko.response(net, K3), ko.response(net, K3[::-1, ::-1])
    assert relative_error(one.mixed, other.mixed[::-1, ::-1]) < 1e-13
    assert relative_error(one.off_diagonal, one.off_diagonal.T) < 1e-13


def test_biases_and_read_out_drop_out():
    plain = ko.response(resnet(ko.Erf(), 4), K3)
    dressed = ko.response(resnet(ko.Erf(), 4, output_weight_variance=3.0, output_bias_variance=0.7), K3)
    assert relative_error(dressed.off_diagonal, 3 * plain.off_diagonal) < 1e-14


@pytest.mark.parametrize("activation", [ko.Erf(), pytest.param(ko.Tanh(), marks=pytest.mark.slow)])
def test_autonomous_flow(activation):
    # chi(t) = Q(K(t))/Q(K(0)) on the diagonal; chi Q(k(0)) = Q(k(t)) for the whole pair.
    net = resnet(activation, 1)
    solution, found = ko.response_flow(net, K3[:2, :2], [0.5, 2.0])
    q = lambda k: net.drift(ko.Variances(k), net.flow_layer()).values
    diagonal = jnp.diagonal(solution.mean_kernel, axis1=1, axis2=2)
    start = jnp.diagonal(K3[:2, :2])
    assert relative_error(found.chi.diagonal, q(diagonal) / q(start)[None]) < 1e-8
    drift = lambda k: pair_vector(net.drift(ko.Block(k[0:1], k[1:2], k[2:3][None]), net.flow_layer()))
    k0 = jnp.array([K3[0, 0], K3[1, 1], K3[0, 1]])
    last = solution.mean_kernel[-1]
    kt = jnp.array([last[0, 0], last[1, 1], last[0, 1]])
    chi = tensor(jax.tree.map(lambda x: x[-1], found.chi))
    assert relative_error(chi @ drift(k0), drift(kt)) < 1e-8


def pair_vector(block):
    return jnp.stack([block.row[0], block.column[0], block.cross[0, 0]])


def test_deep_networks_approach_the_autonomous_law():
    gaps = []
    for depth in (200, 400):
        net = resnet(ko.Erf(), depth, rho=jnp.sqrt(1 / depth))
        chi = ko.layer_response(net, K3).chi.diagonal[-1]
        last = jnp.diagonal(ko.propagate(net, K3).mean_kernel[-1])
        q = lambda k, net=net: net.drift(ko.Variances(k), net.flow_layer()).values
        gaps.append(chi / (q(last) / q(jnp.diagonal(K3))) - 1)
    assert jnp.all(gaps[0] > 0)  # Q is concave
    assert jnp.allclose(gaps[0] / gaps[1], 2, rtol=0.02)


def test_euler_flow_is_the_discrete_response():
    net = resnet(ko.Erf(), 10, rho=0.3)
    _, found = ko.response_flow(
        net,
        K3,
        0.9,
        solver=diffrax.Euler(),
        dt0=0.09,
        stepsize_controller=diffrax.ConstantStepSize(),
    )
    expected = ko.response(net, K3)
    assert relative_error(found.output.off_diagonal[-1], expected.off_diagonal) < 1e-12
    assert relative_error(found.output.mixed[-1], expected.mixed) < 1e-12


def test_small_kernel_expansion():
    # erf: a = (4/pi)(1 - 4K + ...).
    small = 1e-6
    slope = ko.response(resnet(ko.Erf(), 1, rho=0.0), jnp.array([[small]])).diagonal[0]
    assert relative_error(slope, 4 / jnp.pi * (1 - 4 * small)) < 1e-10


@pytest.mark.parametrize(
    "activation", [pytest.param(ko.Tanh(), marks=pytest.mark.slow), ko.Erf(), ko.ReLU(), ko.GELU()]
)
def test_degenerate_inputs_are_finite(activation):
    @jax.jit
    def gradient(kernel):
        total = lambda sw2: jnp.sum(ko.response(resnet(activation, 4, sw2), kernel).off_diagonal)
        return jax.grad(total)(1.25)

    for kernel in (jnp.full((2, 2), 0.5), jnp.array([[0.5, -0.5], [-0.5, 0.5]]), jnp.zeros((2, 2))):
        found = ko.response(resnet(activation, 4, rho=0.5), kernel)
        assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(found))
        assert jnp.isfinite(gradient(kernel))


@pytest.mark.slow
def test_gradient_and_vmap_of_a_response():
    def total(sw2):
        return jnp.sum(ko.response(resnet(ko.Tanh(), 4, sw2), K3).off_diagonal)

    expected = central_difference(total, 1.25, 1e-3)
    assert relative_error(jax.grad(total)(1.25), expected) < 1e-9
    assert relative_error(jax.jacfwd(total)(1.25), expected) < 1e-9
    together = eqx.filter_jit(jax.vmap(total))(jnp.array([1.0, 1.25]))
    assert relative_error(together[1], total(1.25)) < 1e-13


def test_float32():
    found = ko.response(resnet(ko.Tanh(), 10), K3.astype(jnp.float32))
    assert found.off_diagonal.dtype == jnp.float32
    expected = ko.response(resnet(ko.Tanh(), 10), K3)
    assert relative_error(found.off_diagonal, expected.off_diagonal) < 1e-5


def test_equal_inputs_are_not_the_diagonal():
    # The response of two distinct, equal inputs is another number: the diagonal holds it fixed.
    net = resnet(ko.Erf(), 20, rho=1.0)
    alone, twice = ko.response(net, jnp.full((1, 1), 0.5)), ko.response(net, jnp.full((2, 2), 0.5))
    assert jnp.array_equal(alone.off_diagonal[0], alone.diagonal)
    assert twice.off_diagonal[0, 1] > 10 * alone.diagonal[0] > 0
    assert jnp.array_equal(jnp.diagonal(twice.off_diagonal), twice.diagonal)
    flow = ko.response_flow(resnet(ko.Erf(), 1), K3, [0.5, 1.0])[1].chi
    assert jnp.array_equal(jnp.diagonal(flow.off_diagonal, axis1=1, axis2=2), flow.diagonal)


def test_summary():
    found = ko.response(resnet(ko.Tanh(), 4, rho=0.5), K3)
    inputs, pairs = found.summary()
    assert (inputs.count, pairs.count) == (3, 3)
    values = jnp.array([found.off_diagonal[0, 1], found.off_diagonal[0, 2], found.off_diagonal[1, 2]])
    assert relative_error(inputs.mean, jnp.mean(found.diagonal)) < 1e-14
    assert relative_error(inputs.standard_deviation, jnp.std(found.diagonal)) < 1e-12
    assert relative_error(pairs.mean, jnp.mean(values)) < 1e-14
    assert relative_error(pairs.standard_deviation, jnp.std(values)) < 1e-12
    layers = ko.layer_response(resnet(ko.Tanh(), 4, rho=0.5), K3).eta.summary()
    assert layers.off_diagonal.mean.shape == (4,) and layers.off_diagonal.count == 3
    one = ko.response(resnet(ko.Tanh(), 4), K3[:1, :1]).summary()
    assert one.off_diagonal == (0, 0, 0) and one.diagonal.standard_deviation == 0


def test_an_activation_that_is_nan_ends_a_flow():
    net = resnet(ko.Elementwise(jnp.log), 1)
    solution, _ = ko.response_flow(net, K3, 1.0, throw=False)
    assert solution.result == ko.RESULTS.not_a_number
