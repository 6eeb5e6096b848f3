"""Statistics of the tangent kernel to order 1/n: references, theorems, symmetries, bounds."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernelode as ko

from .helpers import NTK_ACTIVATIONS, NTK_REFERENCE, central_difference, each, relative_error

KIND = {
    kind: {name: case for name, case in NTK_REFERENCE.items() if case["kind"] == kind}
    for kind in ("mlp", "resnet", "resnet_continuous")
}
ELEMENTS = [(0, 0), (0, 1), (1, 1)]
KERNEL = jnp.array([[1.1, 0.4, -0.3], [0.4, 0.9, 0.2], [-0.3, 0.2, 0.7]])


def arguments(case):
    kernel, tangent = (jnp.atleast_2d(jnp.asarray(case[name])) for name in ("K1", "Theta1"))
    ends = dict(output_weight=case["lambda_W"], output_bias=case["lambda_b"])
    rates = ko.LearningRates(case["lambda_W"], case["lambda_b"], **ends)
    variances: dict[str, Any] = dict(weight_variance=case["C_W"], bias_variance=case["C_b"])
    return NTK_ACTIVATIONS[case["activation"]], kernel, tangent, rates, variances


def of_pair(tensor, a, b):
    """The tensor over the elements (aa, ab, bb)."""
    pair = [tuple((a, b)[i] for i in e) for e in ELEMENTS]
    return np.array([[tensor[(*x, *y)] for y in pair] for x in pair])


def check_tensors(case, found, expected, tolerance):
    """`expected`: v, d, a, f, b and the shifts of one layer, by those names."""
    tangent = found.tangent
    largest = max(np.max(np.abs(value)) for value in expected.values())
    scale = lambda x: max(np.max(np.abs(x)), largest / 10, 1e-3)
    close = lambda ours, theirs, name: (
        np.max(np.abs(np.asarray(ours) - theirs)) <= tolerance * scale(expected[name])
    )
    size = found.mean_kernel.shape
    assert close(found.mean_correction, np.reshape(expected["kappa"], size), "kappa")
    assert close(tangent.correction, np.reshape(expected["tau"], size), "tau")
    if "v" not in expected:
        return
    tensors = {name: np.reshape(expected[name], (size[0],) * 4) for name in "vdafb"}
    for a, b in np.ndindex(*size):
        for name, ours in (
            ("v", found.kernel_covariance),
            ("d", tangent.mixed),
            ("a", tangent.covariance),
        ):
            assert close(ours[a, b], of_pair(tensors[name], a, b), name), (case, name, a, b)
        whole = np.ix_(*[[a, b]] * 4)
        assert close(tangent.cross[a, b], tensors["f"][whole], "f"), (case, a, b)
        assert close(tangent.exchange[a, b], tensors["b"][whole], "b"), (case, a, b)


def at(moments, layer):
    return jax.tree.map(lambda x: x[layer], moments)


# -- references --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", each(KIND["mlp"], "relu_p2_critical", "gelu_p1_at_Kstar"))
def test_feed_forward(name):
    """All tensors, by quadratures over two and four inputs; exact, whatever the order."""
    case = NTK_REFERENCE[name]
    sigma, kernel, tangent, rates, variances = arguments(case)
    widths = [*map(float, case["widths"]), 1.0]
    network = ko.MLP(sigma, len(widths) - 1, relative_width=widths, **variances)
    found = ko.propagate(network, kernel, closure=ko.TangentTower(8, rates, tangent)).moments
    for number, layer in enumerate(case["layers"]):
        tensors = {key: layer[key] for key in ("kappa", "tau", *"vdafb")}
        check_tensors(name, at(found, number), tensors, 1e-11)


def stream(state, name, layer, alone):
    """C of the stream, without the chaos of its neurons, as the reference has it."""
    unit = state.singles if alone else state.pairs
    even, mixed, exchange = (s.covariance[layer, 0] for s in unit.sectors)
    n = len(even) // 2
    parts = {"v": even[:n, :n], "d": even[:n, n:], "a": even[n:, n:], "f": mixed, "b": exchange}
    return parts[name]


@pytest.mark.parametrize("name", each(KIND["resnet"], "resnet_gelu_p1_skip", "resnet_sin_p2_variance"))
def test_residual(name):
    """All tensors of the stream and of a read-out, by towers and by sums over two times.

    The references with tensors truncate the noise, and say how much their last orders changed."""
    case = NTK_REFERENCE[name]
    sigma, kernel, tangent, rates, variances = arguments(case)
    ends = dict(output_weight_variance=case["C_W"], output_bias_variance=case["C_b"])
    network = ko.ResNet(
        sigma,
        len(case["layers"]) - 1,
        residual_scale=case["eps"],
        skip_scale=case.get("alpha", 1.0),
        **variances,
        **ends,
    )
    alone = len(kernel) == 1
    closure = ko.TangentTower(8 if alone else 32, rates, tangent, single_order=180 if alone else 40)
    solution = ko.propagate(network, kernel, closure=closure)
    found, out = solution.moments, solution.read_out
    changes = [case.get(f"change_from_order_minus_{k}", 0) for k in (8, 40)]
    tolerance = max(1e-9, 3 * max(changes))
    for number, layer in enumerate(case["layers"]):
        shifts = {"kappa": layer["kappa_C"], "tau": layer["tau_C"]}
        check_tensors(name, at(found, number), shifts, tolerance)
        read = {key: layer[f"{key}_g"] for key in ("kappa", "tau", *"vdafb") if f"{key}_g" in layer}
        check_tensors(name, at(out, number), read, tolerance)
        for key in "vdafb":
            if f"{key}_CC" not in layer:
                continue
            expected = np.reshape(layer[f"{key}_CC"], (len(kernel),) * 4)
            if not alone:
                expected = of_pair(expected, 0, 1) if key in "vda" else expected.reshape(4, 4)
            ours = np.asarray(stream(solution.state, key, number, alone))
            size = max(np.max(np.abs(expected)), 1e-3)
            assert np.max(np.abs(ours.ravel() - expected.ravel())) < tolerance * size


@pytest.mark.parametrize("name", each(KIND["resnet_continuous"]))
def test_flow(name):
    case = NTK_REFERENCE[name]
    sigma, kernel, tangent, rates, variances = arguments(case)
    closure = ko.TangentTower(28, rates, tangent)
    solution = ko.solve_pairs(ko.ResNet(sigma, 1, **variances), kernel, case["t"], closure=closure)
    found = solution.moments
    change = max(case["change_from_order_minus_8"].values())
    tolerance = max(3e-7, 3 * change)
    assert relative_error(found.mean_correction[0], case["kappa_C"]) < 30 * tolerance
    assert relative_error(found.tangent.correction[0], case["tau_C"]) < 30 * tolerance
    for key in "vdafb":
        expected = np.asarray(case[f"{key}_CC"])
        expected = of_pair(expected, 0, 1) if key in "vda" else expected.reshape(4, 4)
        assert relative_error(stream(solution.state, key, 0, False), expected) < 30 * tolerance
    error = np.max(found.tangent.correction_truncation[0])
    assert np.max(np.abs(found.tangent.correction[0] - jnp.array(case["tau_C"]))) < error + 1e-8


# -- theorems ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("slope", [0.0, 0.3])
def test_homogeneous_diagonals_have_no_shift(slope):
    """E[K_aa] and E[H_aa] of ReLU and leaky ReLU are those of infinite width at every width, biases or
    not; not so beside a skip connection, and not off the diagonal."""
    options: dict[str, Any] = dict(weight_variance=1.8, bias_variance=0.3)
    sigma = ko.LeakyReLU(slope)
    closure = ko.TangentTower(8, ko.LearningRates(1.2, 0.4))
    network = ko.MLP(sigma, 5, relative_width=[1.0, 2.0, 0.5, 1.0, 3.0, 1.0], **options)
    found = ko.propagate(network, KERNEL, closure=closure, layers=[5]).moments
    for shift in (found.mean_correction[0], found.tangent.correction[0]):
        scale = np.max(np.abs(shift))
        assert np.max(np.abs(np.diagonal(shift))) < 1e-12 * scale
        assert scale > 0.01
    if slope:
        return
    residual = ko.ResNet(sigma, 3, residual_scale=0.5, **options)
    found = ko.propagate(residual, KERNEL[:1, :1], closure=closure, layers=[3]).moments
    assert np.all(np.abs(found.tangent.correction) > 0.01)


def test_relu_off_the_diagonal():
    """n kappa_01 and n tau_01 of three layers (theory, and Monte Carlo at 0.5 %)."""
    kernel = jnp.array([[1.0, 0.3], [0.3, 0.7]])
    network = ko.MLP(ko.ReLU(), 4, weight_variance=2.0)
    found = ko.propagate(network, kernel, closure=ko.TangentTower(8, tangent=kernel)).moments
    kappa, tau = found.mean_correction[2:, 0, 1], found.tangent.correction[2:, 0, 1]
    np.testing.assert_allclose(kappa, [-0.12301, -0.31574, -0.54236], atol=6e-6)
    np.testing.assert_allclose(tau, [0.29151, 0.93312, 1.97052], atol=6e-6)


def test_relu_at_criticality():
    """m = l - 1 layers, C_W = lambda_W = 2: Theta = l, V4 = 5m, D = 3m(m+1), A = m(m+1)(7m+5)/3, F =
    m(m+1), B = m(m+1)(2m+1)/3, n Var(H)/Theta^2 = m(11 l - 4)/(3 l)."""
    network = ko.MLP(ko.ReLU(), 9, weight_variance=2.0)
    rates = ko.LearningRates(2.0, 0.0)
    found = ko.propagate(network, jnp.ones((1, 1)), closure=ko.TangentTower(4, rates)).moments
    tangent, m = found.tangent, np.arange(10.0)
    corner = lambda x: x.reshape(10, -1)[:, 0]
    np.testing.assert_allclose(corner(tangent.tangent_kernel), m + 1, rtol=1e-12)
    expected = {
        "mixed": 3 * m * (m + 1),
        "covariance": m * (m + 1) * (7 * m + 5) / 3,
        "cross": m * (m + 1),
        "exchange": m * (m + 1) * (2 * m + 1) / 3,
    }
    np.testing.assert_allclose(corner(found.kernel_covariance), 5 * m, rtol=1e-11, atol=1e-12)
    for name, values in expected.items():
        np.testing.assert_allclose(corner(getattr(tangent, name)), values, rtol=1e-11, atol=1e-12)
    ratio = corner(tangent.variance) / (m + 1) ** 2
    np.testing.assert_allclose(ratio, m * (11 * (m + 1) - 4) / (3 * (m + 1)), rtol=1e-11, atol=1e-12)


def test_linear_networks():
    """Without biases: no shift, and one step of each tensor in closed form."""
    weight, rate = 1.3, 0.8
    network = ko.MLP(ko.Linear(), 4, weight_variance=weight)
    closure = ko.TangentTower(4, ko.LearningRates(rate, 0.0), KERNEL[:2, :2])
    found = ko.propagate(network, KERNEL[:2, :2], closure=closure).moments
    assert np.max(np.abs(found.mean_correction)) < 1e-12
    assert np.max(np.abs(found.tangent.correction)) < 1e-11
    k, theta, t = found.mean_kernel, found.tangent.tangent_kernel, found.tangent
    wishart = lambda k: np.array(
        [[k[a, c] * k[b, d] + k[a, d] * k[b, c] for c, d in ELEMENTS] for a, b in ELEMENTS]
    )
    v, d, a = (x[:, 0, 1] for x in (found.kernel_covariance, t.mixed, t.covariance))
    f, b = t.cross[:, 0, 1], t.exchange[:, 0, 1]
    for n in range(4):
        own = v[n] + wishart(k[n])
        np.testing.assert_allclose(v[n + 1], weight**2 * own, rtol=1e-11)
        expected = weight * rate * own + weight**2 * d[n]
        np.testing.assert_allclose(d[n + 1], expected, rtol=1e-11)
        expected = rate**2 * own + rate * weight * (d[n] + d[n].T) + weight**2 * a[n]
        np.testing.assert_allclose(a[n + 1], expected, rtol=1e-11)
        outer = jnp.einsum("cd,ab->cadb", k[n], theta[n])
        np.testing.assert_allclose(f[n + 1], weight**2 * (f[n] + outer), rtol=1e-11)
        outer = jnp.einsum("pq,rs->prqs", theta[n], theta[n])
        np.testing.assert_allclose(b[n + 1], weight**2 * (b[n] + outer), rtol=1e-11)


def test_tanh_at_criticality():
    """All ratios are functions of l/n: at l = 201, of K = 1 and Theta = 1 at the first layer."""
    network = ko.MLP(ko.Tanh(), 200)
    one = jnp.ones((1, 1))
    closure = ko.TangentTower(4, ko.LearningRates(1.0, 0.0), one)
    found = at(ko.propagate(network, one, closure=closure, layers=[200]).moments, 0)
    t, depth = found.tangent, 201
    k, theta = float(found.mean_kernel[0, 0]), float(t.tangent_kernel[0, 0])
    assert abs(depth * k - 0.505) < 0.01
    assert abs(float(found.kernel_variance[0, 0]) / k**2 / depth - 2 / 3) < 0.02
    assert abs(float(t.variance[0, 0]) / theta**2 / depth - 2 / 3) < 0.03
    assert abs(float(found.mean_correction[0, 0]) / k / depth + 1 / 3) < 0.03
    assert abs(float(t.correction[0, 0]) / theta / depth + 1 / 4) < 0.03


# -- consistency -------------------------------------------------------------------------------------

RESIDUAL: dict[str, Any] = dict(residual_scale=[0.5, 0.4], weight_variance=1.5, bias_variance=0.1)


@pytest.mark.slow
def test_the_kernel_is_that_of_the_wick_tower():
    network = ko.ResNet(ko.GELU(), 2, skip_scale=[1.0, 0.9], **RESIDUAL)
    ours = ko.propagate(network, KERNEL, closure=ko.TangentTower(8)).moments
    theirs = ko.propagate_pairs(network, KERNEL, closure=ko.WickTower(8)).moments
    for name in ("mean_kernel", "kernel_covariance", "kernel_variance", "mean_correction"):
        assert relative_error(getattr(ours, name), getattr(theirs, name)) < 1e-10, name


@pytest.mark.slow
def test_symmetries():
    """Exchanged inputs exchange their places; F and B have the symmetries of their indices; one input is
    that of its pairs."""
    network = ko.ResNet(ko.GELU(), 2, **RESIDUAL)
    closure = ko.TangentTower(8, single_order=8)
    t = at(ko.propagate(network, KERNEL, closure=closure, layers=[2]).tangent, 0)
    assert relative_error(t.covariance, jnp.swapaxes(t.covariance, 2, 3)) < 1e-12
    assert relative_error(t.cross, t.cross.transpose(0, 1, 4, 5, 2, 3)) < 1e-12
    for order in ((0, 1, 3, 2, 5, 4), (0, 1, 4, 5, 2, 3)):
        assert relative_error(t.exchange, t.exchange.transpose(order)) < 1e-12
    turned = lambda x: jnp.swapaxes(jnp.flip(x, axis=tuple(range(2, x.ndim))), 0, 1)
    for name in ("covariance", "mixed", "cross", "exchange"):
        assert relative_error(turned(getattr(t, name)), getattr(t, name)) < 1e-12
    assert relative_error(t.covariance[0, 1, 0, 0], t.covariance[0, 0, 2, 2]) < 1e-12
    order = jnp.array([2, 0, 1])
    moved = at(ko.propagate(network, KERNEL[order][:, order], closure=closure, layers=[2]).tangent, 0)
    assert relative_error(moved.cross, t.cross[order][:, order]) < 1e-11
    assert relative_error(moved.correction, t.correction[order][:, order]) < 1e-11


@pytest.mark.parametrize("sign", [1.0, pytest.param(-1.0, marks=pytest.mark.slow)])
def test_parallel_inputs(sign):
    """Equal inputs are one input; opposite ones of an odd activation too, but for signs."""
    sigma = ko.GELU() if sign > 0 else ko.Sin()
    kernel = 0.9 * jnp.array([[1.0, sign], [sign, 1.0]])
    network = ko.ResNet(sigma, 2, residual_scale=0.5, weight_variance=1.5)
    found = at(ko.propagate(network, kernel, closure=ko.TangentTower(10, single_order=10)).moments, -1)
    t = found.tangent
    assert relative_error(t.correction[0, 1], sign * t.correction[0, 0]) < 1e-9
    assert relative_error(found.mean_correction[0, 1], sign * found.mean_correction[0, 0]) < 1e-9
    signs = np.array([1, sign, 1])
    for name in ("covariance", "mixed"):
        block = getattr(t, name)[0, 1] * signs[:, None] * signs[None, :]
        assert relative_error(block, getattr(t, name)[0, 0]) < 1e-9
    ends = np.array([1, sign])
    for name in ("cross", "exchange"):
        block = jnp.einsum("abcd,a,b,c,d->abcd", getattr(t, name)[0, 1], ends, ends, ends, ends)
        assert relative_error(block, getattr(t, name)[0, 0]) < 1e-9


def test_equal_inputs_of_a_kink():
    """Are one input, and tell others the same."""
    kernel = KERNEL[jnp.array([0, 0, 1])][:, jnp.array([0, 0, 1])]
    network = ko.ResNet(ko.ReLU(), 2, **RESIDUAL)
    t = at(ko.propagate(network, kernel, closure=ko.TangentTower(6), layers=[2]).read_out, 0).tangent
    for name in ("correction", "covariance", "mixed", "cross", "exchange", "variance"):
        value = getattr(t, name)
        assert np.all(np.isfinite(value))
        assert relative_error(value[0, 1], value[0, 0]) < 1e-10
        assert relative_error(value[0, 2], value[1, 2]) < 1e-10


@pytest.mark.slow
def test_truncation_is_bounded():
    _check_bounds(ko.Erf(), jnp.array([[1.4, 0.7], [0.7, 1.0]]), [0.6, 0.5], [1.0, 0.9], 4, 16)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tanh", "gelu", "sin", "relu", "cubic"])
def test_truncation_in_random_draws(name):
    """Bounds of the covariances, estimates of the shifts, at low orders beside a high one."""
    rng = np.random.default_rng(1)
    for order in (4, 8, 8, 12):
        q = np.exp(rng.uniform(-2, 1.2, 2))
        c = np.sqrt(q[0] * q[1]) * rng.uniform(-0.97, 0.97)
        kernel = jnp.array([[q[0], c], [c, q[1]]])
        scales, skips = rng.uniform(0.1, 0.8, 4), rng.uniform(0.7, 1, 4)
        _check_bounds(NTK_ACTIVATIONS[name], kernel, scales, skips, order, 32)


def _check_bounds(sigma, kernel, scales, skips, low, high):
    network = ko.ResNet(
        sigma,
        len(scales),
        residual_scale=scales,
        skip_scale=skips,
        weight_variance=1.6,
        bias_variance=0.1,
    )
    rates = ko.LearningRates(1.2, 0.3)
    of = lambda order: ko.propagate(
        network, kernel, closure=ko.TangentTower(order, rates, single_order=4 * order)
    )
    rough, fine = of(low), of(high)
    both = (rough.moments, fine.moments), (rough.read_out, fine.read_out)
    for found, exact in both:
        for name in ("covariance", "mixed", "cross", "exchange", "correction"):
            check_bound(found.tangent, exact.tangent, name, f"{name}_truncation")
        check_bound(found, exact, "kernel_covariance", "covariance_truncation")
        check_bound(found, exact, "mean_correction", "correction_truncation")


def check_bound(found, exact, value, error):
    truth, least = getattr(exact, value), getattr(exact, error)
    difference = np.abs(getattr(found, value) - truth)
    rounding = 1e-11 * np.max(np.abs(truth))
    assert np.all(difference <= getattr(found, error) + least + rounding), value


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "kind", ["mlp", pytest.param("layers", marks=SLOW), pytest.param("flow", marks=SLOW)]
)
def test_derivatives(kind):
    """By everything that is traced, beside finite differences."""
    weights = jnp.arange(16.0).reshape(2, 2, 2, 2) / 16

    @jax.jit
    def statistic(t):
        options: dict[str, Any] = dict(weight_variance=1.4 + t, bias_variance=0.1 + t / 5)
        rates = ko.LearningRates(1.1 + t, 0.3 - t, output_weight=0.8 + t)
        closure = ko.TangentTower(6, rates, single_order=8)
        kernel = KERNEL[:2, :2] + t * jnp.array([[0.2, 0.1], [0.1, 0.3]])
        if kind == "mlp":
            network = ko.MLP(ko.Erf(), 2, **options)
            found = ko.propagate(network, kernel, closure=closure, layers=[2], throw=False)
        elif kind == "layers":
            network = ko.ResNet(ko.Erf(), 2, residual_scale=jnp.array([0.5, 0.4]) + t, **options)
            found = ko.propagate(network, kernel, closure=closure, layers=[2], throw=False)
        else:
            network = ko.ResNet(ko.Erf(), 1, **options)
            found = ko.solve(network, kernel, 0.3 + t, closure=closure, throw=False)
        out = found.read_out.tangent
        shift = jnp.sum(out.correction[0] * jnp.array([[1.0, 0.3], [0.3, 0.2]]))
        return shift + jnp.sum(out.covariance) + jnp.sum(weights * (out.cross + out.exchange)[0, 0, 1])

    expected = central_difference(statistic, 0.0, 2e-3)
    tolerance = 1e-5 if kind == "flow" else 1e-7
    # Forward mode, which compiles faster, stands for reverse mode where that is tested with layers.
    forward = lambda f: lambda t: jax.jvp(f, (t,), (1.0,))[1]
    slope = forward(statistic) if kind == "mlp" else jax.grad(statistic)
    assert abs(slope(0.0) - expected) < tolerance * abs(expected)
    if kind == "layers":
        many = jax.vmap(statistic)(jnp.array([0.0, 0.1]))
        np.testing.assert_allclose(many, [statistic(0.0), statistic(0.1)], rtol=1e-10)


@pytest.mark.parametrize("kind", ["mlp", pytest.param("resnet", marks=pytest.mark.slow)])
def test_float32(kind):
    options: dict[str, Any] = dict(weight_variance=1.5, bias_variance=0.1)
    if kind == "mlp":
        network = ko.MLP(ko.GELU(), 3, **options)
    else:
        network = ko.ResNet(ko.GELU(), 3, residual_scale=0.4, **options)
    of = lambda kernel: at(
        ko.propagate(network, kernel, closure=ko.TangentTower(6, single_order=12)).read_out, -1
    )
    count = 1 if kind == "mlp" else 2
    single, double = of(KERNEL[:count, :count].astype(jnp.float32)), of(KERNEL[:count, :count])
    for name in ("correction", "covariance", "mixed", "cross", "exchange"):
        value, truth = (getattr(x.tangent, name) for x in (single, double))
        assert value.dtype == jnp.float32
        assert relative_error(value, truth) < 2e-4, name


def test_what_is_refused():
    network = ko.ResNet(ko.Erf(), 2, **RESIDUAL)
    run = lambda net, kernel, closure=None: ko.propagate(
        net, kernel, closure=closure or ko.TangentTower(4)
    )
    with pytest.raises(ValueError, match="`order` must be"):
        ko.TangentTower(1)
    with pytest.raises(ValueError, match="`terms` must lie between"):
        ko.TangentTower(4, terms=2000)
    with pytest.raises(ValueError, match="layers_per_block=2"):
        run(ko.ResNet(ko.Erf(), 2, layers_per_block=2), KERNEL)
    with pytest.raises(ValueError, match="inputs of positive variance"):
        run(network, jnp.array([[1.0, 0], [0, 0]]))
    with pytest.raises(ValueError, match="inputs that are not parallel"):
        run(ko.ResNet(ko.ReLU(), 2, **RESIDUAL), jnp.array([[1.0, 2.0], [2.0, 4.0]]))
    with pytest.raises(ValueError, match="`tangent` needs moments of the tangent kernel"):
        _ = ko.propagate(network, KERNEL, closure=ko.WickTower(4)).tangent
