"""Moments of order 1/n: V4 and K1 under the G-only closure and the Wick tower."""

import json
import math
import operator
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.polynomial import hermite_e

import kernelode as ko
from kernelode._closure.chaos_basis import degrees
from kernelode._closure.chaos_couplings import couplings, pair_chaos
from kernelode._closure.elements import PAIR, all_elements, wishart
from kernelode._closure.four_point import four_point_layer, frames_of
from kernelode._closure.layouts import AllElements
from kernelode._closure.singles import tower_degrees
from kernelode._closure.tower import source_of_memory, tower_sources
from kernelode._closure.wick_tower_pairs import WickTowerPairs
from kernelode._expectation.input_chaos import input_chaos
from kernelode._expectation.products import PairProducts
from kernelode._kernel import as_block

from .helpers import ACTIVATIONS, DATA, OwnField, central_difference, relative_error, resnet
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
    ("paper_tanh_single_continuous", "P=160"),
    ("gelu_bias_pair_continuous", "P=16"),
    ("sin_varying_eps_alpha", "P=6"),
    ("parallel_inputs_relu", "P=12"),
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
    state = jax.tree.map(lambda s: s[-1], ko.propagate(net, K2, closure=closure).state)
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
    assert relative_error(tower_sources(layer, tower).shift, source) < 1e-13


@pytest.mark.parametrize("closure", [ko.GOnly(), ko.WickTower(6)], ids=["g_only", "tower"])
def test_symmetries(closure):
    net = resnet(ko.Tanh(), 4, 1.5, 0.1, rho=0.5)
    found = ko.propagate(net, K4, closure=closure, layers=[4])
    order = np.array([2, 0, 3, 1])
    permuted = ko.propagate(net, K4[order][:, order], closure=closure, layers=[4])
    expected = found.kernel_covariance[0][np.ix_(order, order, order, order)]
    assert relative_error(permuted.kernel_covariance[0], expected) < 1e-12
    assert relative_error(permuted.mean_correction[0], found.mean_correction[0][order][:, order]) < 1e-12

    # phi_a -> -phi_a is a symmetry of an odd activation without biases.
    net = resnet(ko.Tanh(), 4, 1.5, 0.0, rho=0.5)
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


def test_relu_series():
    # One input, C_W = 2, q0 = 2, t = 1 has a closed series; here to the order of the tower.
    order, cw, q0, t = 40, 2.0, 2.0, 1.0
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


def test_polynomials_terminate():
    # sigma = x^2: f is of degree four.
    net = resnet(ko.Polynomial([0.0, 0.0, 1.0]), 4, 0.3, 0.1, rho=0.4)
    four, nine = (ko.propagate_pairs(net, K2, closure=ko.WickTower(p)) for p in (4, 9))
    assert relative_error(four.kernel_covariance, nine.kernel_covariance) < 1e-13
    assert relative_error(four.mean_correction, nine.mean_correction) < 1e-13


def test_no_skip_is_a_feed_forward_network():
    options: Any = dict(weight_variance=1.5, bias_variance=0.1)
    mlp = ko.MLP(ko.GELU(), 4, **options)
    net = ko.ResNet(ko.GELU(), 4, residual_scale=1.0, skip_scale=0.0, **options)
    closure = ko.WickTower(8)
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
    ko.Tanh(),
    pytest.param(ko.GELU(), marks=pytest.mark.slow),
    pytest.param(ko.ReLU(), marks=pytest.mark.slow),
]


@pytest.mark.parametrize("activation", DEGENERATE, ids=["tanh", "gelu", "relu"])
def test_degenerate_pairs(activation):
    # One order for all elements: those of single inputs would be more accurate than those of pairs.
    net = resnet(activation, 5, 1.5, 0.1, rho=0.4)
    closure = ko.WickTower(8, single_order=8)
    # Duplicates: every entry is that of the input alone.
    alone = ko.propagate(net, jnp.array([[1.2]]), closure=closure, layers=[5]).moments
    twice = ko.propagate_pairs(net, jnp.full((2, 2), 1.2), closure=closure, layers=[5]).moments
    expected = jnp.broadcast_to(alone.kernel_covariance.ravel(), (2, 2, 3, 3))
    assert relative_error(twice.kernel_covariance[0], expected) < 1e-10
    assert (
        relative_error(twice.mean_correction[0], jnp.full((2, 2), alone.mean_correction.ravel())) < 1e-9
    )
    # Nearly so, and parallel inputs.
    near = 1.2 * jnp.array([[1.0, 1 - 1e-10], [1 - 1e-10, 1.0]])
    moments = ko.propagate_pairs(net, near, closure=closure, layers=[5]).moments
    assert relative_error(moments.kernel_covariance, twice.kernel_covariance) < 1e-4
    parallel = jnp.array([[1.0, 2.0], [2.0, 4.0]])
    at, close = (
        ko.propagate_pairs(
            net, parallel * (1 - e * jnp.eye(2)[::-1]), closure=closure, layers=[5]
        ).moments
        for e in (0.0, 1e-8)
    )
    assert relative_error(close.kernel_covariance, at.kernel_covariance) < 1e-3
    assert relative_error(close.mean_correction, at.mean_correction) < 1e-2
    # An input that is zero, without biases, stays so.
    zero = ko.propagate_pairs(
        resnet(activation, 5, 1.5, 0.0, rho=0.4), jnp.diag(jnp.array([1.0, 0.0])), closure=closure
    )
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
    value = eqx.filter_jit(lambda change: perturbed(parameter, change)(closure, True))
    expected = central_difference(value, jnp.asarray(0.0), 1e-3)
    forward = jax.jvp(value, (jnp.asarray(0.0),), (jnp.asarray(1.0),))[1]
    assert relative_error(forward, expected) < 1e-8
    if parameter == "kernel":
        assert relative_error(jax.grad(value)(jnp.asarray(0.0)), expected) < 1e-8


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
    net = resnet(ko.Tanh(), 4, 1.5, 0.1)
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
    (ko.Tanh(), ko.WickTower(8)),
    (ko.ReLU(), ko.WickTower(16)),
]


@pytest.mark.parametrize("activation, closure", SINGLE, ids=["g_only", "tower", "relu"])
def test_float32(activation, closure):
    net = resnet(activation, 20, 1.5, 0.1, rho=0.2)
    double = ko.propagate_pairs(net, K2, closure=closure, layers=[20]).moments
    single = ko.propagate_pairs(net, K2.astype(jnp.float32), closure=closure, layers=[20]).moments
    assert single.kernel_covariance.dtype == single.mean_correction.dtype == jnp.float32
    assert relative_error(single.kernel_covariance, double.kernel_covariance) < 1e-5
    assert relative_error(single.mean_correction, double.mean_correction) < 1e-4


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
    discrete, flow = (s.closure for s in (ko.propagate_pairs(net, K2), ko.solve_pairs(net, K2, 1.0)))
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
