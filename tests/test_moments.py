"""Values of the moments of order 1/n, V4 and K1, under the G-only closure and the Wick tower."""

import json
import math
import operator

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.polynomial import hermite_e

import kernelode as ko
from kernelode._closure.elements import all_elements
from kernelode._closure.four_point import four_point_layer, frames_of
from kernelode._closure.layouts import AllElements
from kernelode._closure.singles import tower_degrees
from kernelode._kernel import as_block

from .helpers import ACTIVATIONS, DATA, central_difference, relative_error, resnet
from .tower_reference import Network, pair_tower

REFERENCE = {
    case["name"]: case
    for case in json.loads((DATA / "collective_kernel_reference.json").read_text())["cases"]
}
ACTIVATIONS = ACTIVATIONS | {"softplus": ko.Softplus()}
X, Y = np.array([0, 0, 1]), np.array([0, 1, 1])  # the elements aa, ab, bb of a pair
K2 = jnp.array([[1.0, 0.3], [0.3, 0.8]])
K4 = jnp.array(REFERENCE["gelu_N4_all_quadruples"]["K0_init"])


def pair_block(four_point):
    """(3, 3) over (aa, ab, bb) of the first two inputs."""
    return four_point[X[:, None], Y[:, None], X[None], Y[None]]


def on_elements(four_point):
    """(n, n, n, n) as a matrix over elements a <= b."""
    a, b = np.triu_indices(four_point.shape[0])
    return four_point[a[:, None], b[:, None], a[None], b[None]]


def case_network(case):
    eps = case.get("eps", [1.0])  # of a flow nothing but the variances enters
    scale = np.full(eps["L"], eps["value"]) if isinstance(eps, dict) else np.array(eps)
    return ko.ResNet(
        ACTIVATIONS[case["activation"]],
        len(scale),
        residual_scale=jnp.asarray(scale),
        skip_scale=jnp.asarray(case.get("alpha", 1.0)),
        weight_variance=case["C_W"],
        bias_variance=case["C_b"],
    )


def run_case(case, closure, results):
    net, kernel = case_network(case), jnp.atleast_2d(jnp.asarray(case["K0_init"]))
    if "discrete" in case["kind"]:
        return ko.propagate_pairs(net, kernel, closure=closure, layers=[r["l"] for r in results])
    return ko.solve_pairs(net, kernel, jnp.array([r["t"] for r in results]), closure=closure)


PAIR_CASES = [
    (name, label)
    for name, case in REFERENCE.items()
    if case["kind"] in ("resnet_discrete_pair", "resnet_continuous_pair", "resnet_continuous_single")
    for label in case["results"]
]
# By default one case of a kind: one input and a pair along the flow; of discrete depth, which is run in
# numpy too, one whose scales of skip and branch vary, and one of parallel inputs.
QUICK = {
    ("paper_tanh_single_continuous", "P=24"),
    ("gelu_bias_pair_continuous", "P=8"),
    ("sin_varying_eps_alpha", "P=6"),
    ("parallel_inputs_relu", "P=8"),
}
assert QUICK <= set(PAIR_CASES)
REFERENCE_PARAMETERS = [
    pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow) for case in PAIR_CASES
]


def in_numpy(case) -> Network:
    """The network of a case for `tower_reference.py`."""
    net = case_network(case)
    return Network(
        case["activation"],
        np.asarray(net.residual_scale),
        case["C_W"],
        case["C_b"],
        np.broadcast_to(case["alpha"], net.depth),
        np.ones(net.depth + 1),
        (1.0, 0.0),
        case["init"],
    )


@pytest.mark.parametrize("name,label", REFERENCE_PARAMETERS)
def test_reference(name, label):
    case = REFERENCE[name]
    results, order = case["results"][label], int(label[2:])
    start = ko.FixedGram() if case["init"] == "fixed_gram" else ko.GaussianRows()
    closure = ko.WickTower(order, start=start, single_order=order)
    moments = run_case(case, closure, results).moments
    at = (0, 0) if "single" in case["kind"] else (X, Y)
    expected_results = results
    if "discrete" in case["kind"]:
        # The stored values have the noise of the kept degrees alone, the library has it exactly. The
        # recursion in numpy has both: it meets the one, and is met by the other.
        layers = [r["l"] for r in results if r["l"]]
        found = pair_tower(in_numpy(case), np.asarray(case["K0_init"]), order, at=layers)
        expected_results = []
        for expected in results:
            if expected["l"]:
                known = found[expected["l"]]
                for quantity in ("V4", "K1"):
                    difference = np.max(np.abs(known[quantity][1] - np.asarray(expected[quantity])))
                    assert difference <= 1e-10 * np.max(np.abs(expected["V4"]))
                expected = {"K0": expected["K0"], "V4": known["V4"][0], "K1": known["K1"][0]}
            expected_results.append(expected)
    for i, expected in enumerate(expected_results):
        v4 = moments.kernel_covariance[i, 0, -1]
        v4 = v4[0, 0] if "single" in case["kind"] else v4
        assert relative_error(moments.mean_kernel[i][at], expected["K0"]) < 1e-10
        assert relative_error(v4, expected["V4"]) < 1e-8
        error = jnp.max(jnp.abs(moments.mean_correction[i][at] - np.asarray(expected["K1"])))
        assert error <= 1e-8 * np.max(np.abs(expected["K1"])) + 1e-16


G_ONLY_CASES = [name for name, label in PAIR_CASES if "single" not in name]
#: By default a flow, and of discrete depth scales that vary and a start that does not fluctuate.
G_ONLY_QUICK = {"gelu_bias_pair_continuous", "sin_varying_eps_alpha", "tanh_fixed_gram_eps0.2"}
G_ONLY_PARAMETERS = [
    pytest.param(name, marks=() if name in G_ONLY_QUICK else pytest.mark.slow)
    for name in sorted(set(G_ONLY_CASES))
]
assert G_ONLY_QUICK <= set(G_ONLY_CASES)


@pytest.mark.parametrize("name", G_ONLY_PARAMETERS)
def test_g_only_reference(name):
    case = REFERENCE[name]
    results = list(case["results"].values())[-1]
    start = ko.FixedGram() if case["init"] == "fixed_gram" else ko.GaussianRows()
    moments = run_case(case, ko.GOnly(start=start), results).moments
    for i, expected in enumerate(results):
        assert relative_error(moments.kernel_covariance[i, 0, 1], expected["V4_gonly"]) < 1e-8
        if "continuous" in name:
            assert relative_error(moments.mean_correction[i][X, Y], expected["K1_eft"]) < 1e-8


@pytest.mark.parametrize(
    "name",
    [pytest.param("paper_tanh_pair_eps0.1", marks=pytest.mark.slow), "gelu_bias_pair_eps0.1"],
)
def test_published_scheme_is_euler_on_the_flow(name):
    # The published code drops the terms of order rho^4 that a layer has: Euler steps of the flow.
    case = REFERENCE[name]
    results = list(case["results"].values())[-1]
    step = case["eps"]["value"] ** 2
    moments = ko.solve_pairs(
        case_network(case),
        jnp.asarray(case["K0_init"]),
        jnp.array([r["l"] * step for r in results]),
        closure=ko.GOnly(),
        solver=diffrax.Euler(),
        dt0=step,
    ).moments
    for i, expected in enumerate(results):
        v4 = expected["V4_gonly_paper_rule"]
        assert relative_error(moments.kernel_covariance[i, 0, 1], v4) < 1e-10
        assert relative_error(moments.mean_correction[i][X, Y], expected["K1_eft"]) < 1e-9


def test_four_point_reference():
    case = REFERENCE["gelu_N4_all_quadruples"]
    net = resnet(ko.GELU(), 10, case["C_W"], case["C_b"], rho=0.15)
    expected = case["results"]
    a, b = np.array(case["component_order"]).T
    closure = ko.WickTower(case["P"], single_order=case["P"])
    tower = ko.propagate(net, K4, closure=closure)
    # The stored values have the noise of the kept degrees alone. What the rest of it makes of C and K1
    # follows from the derivatives of the drift, and is taken off.
    layer, layout = 0.15**2, AllElements(4)

    @jax.jit
    def follow(state, more, shift):
        here = four_point_layer(closure, net, state, net.flow_layer().affine)
        # Seen from its own chaos, which has a variance of w: its coefficients times that.
        norms = frames_of(state.kernel, tower_degrees(closure, net).floor).gram[:, 1, 1]
        norms = norms[:, None, None] ** np.arange(case["P"] + 1.0)[None, None]
        own = here.driven[np.arange(10), np.arange(10)] / jnp.where(norms > 0, norms, 1)
        beyond = here.sources.noise - jnp.einsum("ypk,yxpk->xy", own, here.driven)
        at = layout.linearise(lambda k: net.drift(k, net.flow_layer()), as_block(state.kernel))
        source = layout.curve(at, more) / 2
        jacobian = jnp.eye(10) + layer * here.chi
        more = jacobian @ more @ jacobian.T + layer**2 * beyond
        return beyond, more, jacobian @ shift + layer * source

    more, shift = jnp.zeros((10, 10)), jnp.zeros(10)
    for number in range(10):
        state = jax.tree.map(operator.itemgetter(number), tower.state)
        beyond, more, shift = follow(state, more, shift)
        assert jnp.max(jnp.abs(beyond)) > 1e-6
    v4 = on_elements(tower.kernel_covariance[-1]) - more
    assert relative_error(v4, expected["V4"]) < 1e-12
    assert (
        relative_error(
            tower.mean_correction[-1][a, b] - jnp.zeros((4, 4)).at[all_elements(4)].set(shift)[a, b],
            expected["K1"],
        )
        < 1e-9
    )
    g_only = ko.propagate(net, K4, closure=ko.GOnly(), layers=[10])
    assert relative_error(on_elements(g_only.kernel_covariance[0]), expected["V4_gonly"]) < 1e-12


@pytest.mark.parametrize("closure", [ko.GOnly(), ko.WickTower(4)], ids=["g_only", "tower"])
def test_unequal_widths(closure):
    case = REFERENCE["tanh_mlp_unequal_widths"]
    net = ko.MLP(
        ko.Tanh(),
        len(case["widths"]),
        weight_variance=case["C_W"],
        bias_variance=case["C_b"],
        relative_width=jnp.array([*case["widths"], 64]) / case["n_ref"],
    )
    moments = ko.propagate_pairs(net, jnp.array(case["K_first"]), closure=closure).moments
    # Nothing is remembered from layer to layer: the tower is exact at any order.
    tolerance = 1e-10
    for i, expected in enumerate(case["results"][1:], start=1):
        assert relative_error(moments.kernel_covariance[i, 0, 1], expected["V"]) < tolerance
        if i > 1:
            assert relative_error(moments.mean_correction[i][X, Y], expected["K1"]) < tolerance


STARTS = {
    "gaussian": ko.GaussianRows(),
    "fixed_gram": ko.FixedGram(),
    "covariance": ko.RandomCovariance(
        jnp.einsum("ab,cd->abcd", K2, K2) / 3, jnp.array([[0.2, 0.1], [0.1, -0.3]])
    ),
}


@pytest.mark.parametrize(
    "activation,start",
    [
        pytest.param(ko.Tanh(), "fixed_gram", marks=pytest.mark.slow),
        pytest.param(ko.GELU(), "covariance", marks=pytest.mark.slow),
        pytest.param(ko.Tanh(), "covariance", marks=pytest.mark.slow),
        pytest.param(ko.GELU(), "gaussian", marks=pytest.mark.slow),
        pytest.param(ko.GELU(), "fixed_gram", marks=pytest.mark.slow),
    ],
)
def test_pairs_are_a_restriction_of_all_elements(activation, start):
    start = STARTS[start]
    net = resnet(activation, 4, 1.5, 0.1, rho=0.4, skip_scale=0.9)
    for closure in (ko.WickTower(6, start=start), ko.GOnly(start=start)):
        whole = ko.propagate(net, K2, closure=closure)
        pairs = ko.propagate_pairs(net, K2, closure=closure)
        for x, y in ((whole.moments, pairs.moments), (whole.read_out, pairs.read_out)):
            expected = jax.vmap(pair_block)(x.kernel_covariance)
            assert relative_error(y.kernel_covariance[:, 0, 1], expected) < 1e-12
            assert relative_error(y.mean_correction, x.mean_correction) < 1e-12
            assert relative_error(y.kernel_variance, x.kernel_variance) < 1e-12
    v4 = whole.kernel_covariance[0]
    gamma = jnp.einsum("ac,bd->abcd", K2, K2) + jnp.einsum("ad,bc->abcd", K2, K2)
    if isinstance(start, ko.GaussianRows):
        assert relative_error(v4, gamma) < 1e-14
    elif isinstance(start, ko.FixedGram):
        assert jnp.max(jnp.abs(v4)) < 1e-14
    else:
        assert relative_error(v4, gamma + jnp.einsum("ab,cd->abcd", K2, K2) / 3) < 1e-14


@pytest.mark.slow
def test_pairs_of_many_inputs():
    # A pair closes on itself: others do not matter, nor does their order. Chunks are filled up.
    net = resnet(ko.GELU(), 3, 1.5, 0.1, rho=0.4)
    x = jax.random.normal(jax.random.key(0), (10, 6))
    kernel = x @ x.T / 6
    closure = ko.WickTower(6)
    whole = ko.propagate_pairs(net, kernel, closure=closure, layers=[3]).moments
    subset = np.array([7, 2])
    part = ko.propagate_pairs(net, kernel[subset][:, subset], closure=closure, layers=[3]).moments
    assert relative_error(part.kernel_covariance[0, 0, 1], whole.kernel_covariance[0, 7, 2]) < 1e-12
    assert relative_error(part.kernel_covariance[0, 1, 1], whole.kernel_covariance[0, 2, 2]) < 1e-12
    assert relative_error(part.mean_correction[0], whole.mean_correction[0][subset][:, subset]) < 1e-12


@pytest.mark.parametrize("closure", [ko.GOnly(), ko.WickTower(6)], ids=["g_only", "tower"])
def test_linear_closed_form(closure):
    # a = 1 + rho^2 C_W: V4 = a^{2l} (1 + l (1 - a^{-2})) Gamma, K1 = 0.
    net, l = resnet(ko.Linear(), 5, 1.3, 0.0, rho=0.4), jnp.arange(6.0)
    a = 1 + 0.4**2 * 1.3
    gamma = jnp.einsum("ac,bd->abcd", K2, K2) + jnp.einsum("ad,bc->abcd", K2, K2)
    solution = ko.propagate(net, K2, closure=closure)
    growth = a ** (2 * l) * (1 + l * (1 - a**-2))
    expected = growth[:, None, None, None, None] * gamma[None]
    assert relative_error(solution.kernel_covariance, expected) < 1e-13
    assert jnp.max(jnp.abs(solution.mean_correction)) < 1e-13
    flow = ko.solve(net, K2, [0.7], closure=closure)
    expected = math.exp(2 * 1.3 * 0.7) * (1 + 2 * 1.3 * 0.7) * gamma
    assert relative_error(flow.kernel_covariance[0], expected) < 1e-8
    biased = resnet(ko.Linear(), 5, 1.3, 0.2, rho=0.4)
    one, other = (
        ko.propagate(biased, K2, closure=c).kernel_covariance for c in (ko.GOnly(), ko.WickTower(6))
    )
    assert relative_error(one, other) < 1e-13


def test_one_layer_does_not_shift_the_mean():
    solution = ko.propagate(resnet(ko.GELU(), 1, rho=0.5), K2, closure=ko.WickTower(8))
    assert jnp.max(jnp.abs(solution.mean_correction)) == 0
    # As published, the closure takes the neurons' sampling noise for a shift.
    assert (
        abs(ko.propagate(resnet(ko.GELU(), 1, rho=0.5), K2, closure=ko.GOnly()).mean_correction[1, 0, 0])
        > 1e-3
    )


def test_small_times():
    # K1 = C_W^2 t^2 / 4 sum_cd Cov(d_c d_d f_X, f_cd) + O(t^3); numbers by a converged quadrature.
    net = resnet(ko.Tanh(), 1, 1.5, 0.2)
    ts = jnp.array([1e-3, 2e-3])
    scaled = (
        ko.solve_pairs(net, K2, ts, closure=ko.WickTower(40)).mean_correction / ts[:, None, None] ** 2
    )
    limit = 2 * scaled[0] - scaled[1]
    assert abs(limit[0, 0] + 0.14526941) < 1e-5
    assert abs(limit[0, 1] + 0.04891610) < 1e-5


def test_relu_series():
    # One input, C_W = 2, q0 = 2, t = 1 has a closed series; here to the order of the tower.
    order, cw, q0, t = 16, 2.0, 2.0, 1.0
    h = np.zeros(order + 3)
    h[1], h[2] = 2 / math.sqrt(2 * math.pi), 1 / math.sqrt(2)
    for p in range(3, order + 3):
        at_zero = hermite_e.hermeval(0.0, [0] * (p - 3) + [1])
        h[p] = 2 * at_zero / math.sqrt(2 * math.pi * math.factorial(p))
    p = np.arange(1, order + 1)
    x = 1 - np.exp(-p * cw * t / 4)
    v4 = 2 + 4 * math.sqrt(2) * h[2] * x[1] + 8 * cw * np.sum(h[p] ** 2 / p * (t - 4 * x / (p * cw)))
    k1 = np.sum(np.sqrt((p + 1) * (p + 2)) * h[p + 2] * h[p] * 4 / p * (t - 4 * x / (p * cw)))
    q = q0 * math.exp(cw * t / 2)
    net = resnet(ko.ReLU(), 1, cw, 0.0)
    moments = ko.solve(
        net, jnp.array([[q0]]), [t], closure=ko.WickTower(order, single_order=order)
    ).moments
    assert relative_error(moments.kernel_covariance[0, 0, 0, 0, 0], v4 * q**2) < 1e-8
    assert relative_error(moments.mean_correction[0, 0, 0], k1 * q * cw / 2) < 1e-8
    g_only = ko.solve(net, jnp.array([[q0]]), [t], closure=ko.GOnly()).moments
    assert relative_error(g_only.kernel_covariance[0, 0, 0, 0, 0], (2 + 2 * cw * t) * q**2) < 1e-8
    assert abs(g_only.mean_correction[0, 0, 0]) < 1e-12


def test_shifts_of_the_one_loop_theory():
    # The 1/n shifts of each layer's conditional variance, from sums over earlier layers instead of a
    # tower, to the digits that are known; four hundred thousand networks of width 16 agree with them.
    net = resnet(ko.Erf(), 4, 1.5, 0.1, rho=0.7)
    solution = ko.propagate(net, jnp.array([[0.5]]), closure=ko.WickTower(24))
    shifts = jnp.diff(solution.mean_correction.ravel()) / 0.7**2
    assert jnp.max(jnp.abs(shifts - jnp.array([0, -0.0964, -0.1711, -0.2143]))) < 6e-5
    assert abs(solution.read_out.mean_correction[-1, 0, 0] + 0.1562) < 6e-5


@pytest.mark.slow
def test_kinked_activations():
    # A kink that is declared, against the closed polar form of the same function.
    relu = ko.Elementwise(lambda x: jnp.maximum(x, 0.0), kinks=(0.0,))
    closed, found = (
        ko.propagate_pairs(resnet(sigma, 4, 1.5, 0.1, rho=0.4), K2, closure=ko.WickTower(6))
        for sigma in (ko.ReLU(), relu)
    )
    assert relative_error(found.kernel_covariance, closed.kernel_covariance) < 1e-9
    assert relative_error(found.mean_correction, closed.mean_correction) < 1e-8


@pytest.mark.slow
def test_corrections_of_responses():
    # docs/finite_width.md: derivatives of the mean read-out kernel, here by finite differences.
    net, kernel, closure = resnet(ko.Erf(), 10), jnp.array([[0.05, 0.02], [0.02, 0.1]]), ko.WickTower(8)

    @jax.jit
    def outputs(q):
        moments = ko.propagate(net, q[None, None], closure=closure, layers=[10]).read_out
        return jnp.array([moments.mean_kernel.sum(), moments.mean_correction.sum()])

    found = ko.response_correction(net, kernel, closure=closure)
    expected = central_difference(outputs, jnp.asarray(0.1), 1e-3)
    assert relative_error(found.response[1], expected[0]) < 1e-9
    assert relative_error(found.correction[1], expected[1]) < 1e-7


@pytest.mark.slow
def test_corrections_in_the_published_setting():
    """n d log rho* = -0.0127, n d log chi_out = -0.747."""
    net, kernel = resnet(ko.Erf(), 10), jnp.array([[0.05, 0.02], [0.02, 0.1]])
    best = ko.residual_scale_correction(net, kernel)
    value = best.infinite_width.value
    assert abs(best.correction[0] / value[0] + 0.0127349) < 2e-6
    at_best = ko.response_correction(resnet(ko.Erf(), 10, rho=value[0]), kernel)
    assert abs(at_best.correction[0] / at_best.response[0] + 0.746958) < 1e-5
    beyond = ko.residual_scale_correction(net, jnp.diag(jnp.array([0.5, 0.6])))
    assert not jnp.any(beyond.infinite_width.interior) and jnp.all(beyond.correction == 0)


@pytest.mark.slow
def test_residual_of_a_closure():
    net = resnet(ko.GELU(), 4, 1.5, 0.1, rho=0.5)
    for closure in (ko.GOnly(), ko.WickTower(8)):
        found = ko.propagate_pairs(net, K2, closure=closure)
        moments = (found.mean_kernel, found.kernel_covariance, found.mean_correction)
        residual = ko.closure_residual(net, *moments)
        assert jnp.max(jnp.abs(residual.mean_kernel)) < 1e-12
        sizes = [jnp.max(jnp.abs(r)) for r in (residual.kernel_covariance, residual.mean_correction)]
        if isinstance(closure, ko.GOnly):
            assert max(sizes) < 1e-12
        else:
            assert min(sizes) > 1e-3
            # The first layer has no memory yet: its mean does not shift, as published it does.
            assert (
                relative_error(
                    residual.mean_correction[0],
                    -ko.propagate_pairs(net, K2, closure=ko.GOnly(), layers=[1]).mean_correction[0],
                )
                < 1e-10
            )
    with pytest.raises(ValueError, match="`mean_correction` must have shape"):
        ko.closure_residual(net, moments[0], moments[1], moments[2][1:])


@pytest.mark.slow
def test_source_mismatch():
    # At t = 0 the exact source vanishes and the published one is that of the neurons' sampling noise.
    net, ts = resnet(ko.Tanh(), 1, 1.5, 0.1), jnp.array([0.0, 1e-3])
    found = ko.source_mismatch(net, K2, ts)
    published = ko.solve_pairs(net, K2, ts, closure=ko.GOnly()).mean_correction[1] / ts[1]
    assert relative_error(found[0], -published) < 2e-3
