"""Mean kernels at discrete depth."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import kernelode as ko
from kernelode._kernel import checked_kernel

from .helpers import ACTIVATIONS, case_id, central_difference, reference_cases, relative_error, resnet

K2 = jnp.array([[0.5, 0.2], [0.2, 0.8]])


@pytest.mark.parametrize("case", reference_cases("forward_resnet"), ids=case_id)
def test_resnet_reference(case):
    given, expected = case["inputs"], case["outputs"]
    net = resnet(
        ACTIVATIONS[given["act"]],
        given["L"],
        given["sw2"],
        given["sb2"],
        given["rho"],
        output_weight_variance=given["swout2"],
    )
    kernels = ko.propagate(net, jnp.array([[given["K0"]]])).mean_kernel[:, 0, 0]
    assert relative_error(kernels, expected["K"]) < 1e-13
    drift = net.drift(ko.Variances(kernels[:-1]), net.flow_layer()).values
    assert relative_error(drift, expected["C"]) < 1e-13
    out = net.read_out(ko.Variances(kernels[-1])).values
    assert relative_error(out, expected["K_out_no_bias"]) < 1e-13


@pytest.mark.parametrize("case", reference_cases("forward_ffnet"), ids=case_id)
def test_mlp_reference(case):
    given, expected = case["inputs"], case["outputs"]
    net = ko.MLP(
        ACTIVATIONS[given["act"]],
        given["L"],
        weight_variance=given["sw2"],
        bias_variance=given["sb2"],
    )
    solution = ko.propagate(net, jnp.array([[given["K0"]]]))
    assert relative_error(solution.mean_kernel[:, 0, 0], expected["K"]) < 1e-13
    assert jnp.array_equal(solution.ts, jnp.arange(given["L"] + 1.0))


@pytest.mark.parametrize("case", reference_cases("two_layer"), ids=case_id)
def test_two_layers_a_block(case):
    given, expected = case["inputs"], case["outputs"]
    net = resnet(ko.Erf(), given["L"], given["sw2"], given["sb2"], given["rho"], layers_per_block=2)
    last = ko.propagate(net, jnp.array([[given["K0"]]])).mean_kernel[-1, 0, 0]
    assert relative_error(last, expected["K_L"]) < 1e-13


def test_linear_network_is_solvable():
    # K^l + s = (1 + e C_W)^l (K^0 + s) with s = C_b / C_W.
    net = resnet(ko.Linear(), 7, 1.5, 0.3, 0.4)
    growth = (1 + 0.16 * 1.5) ** 7
    expected = growth * (K2 + 0.2) - 0.2
    assert relative_error(ko.propagate(net, K2).mean_kernel[-1], expected) < 1e-14


@pytest.mark.parametrize(
    "activation", [ko.Tanh(), ko.ReLU(), pytest.param(ko.Softplus(), marks=pytest.mark.slow)]
)
def test_pairs_do_not_know_of_other_inputs(activation, getkey):
    x = jax.random.normal(getkey(), (5, 3))
    kernel = ko.input_kernel(x)
    net = resnet(activation, 6)
    whole = ko.propagate(net, kernel).mean_kernel[-1]
    kept = np.array([3, 1])
    part = ko.propagate(net, kernel[np.ix_(kept, kept)]).mean_kernel[-1]
    assert relative_error(part, whole[np.ix_(kept, kept)]) < 1e-13


@pytest.mark.parametrize("activation", [ko.Tanh(), ko.Erf(), ko.ReLU(), ko.GELU()])
def test_duplicate_inputs_stay_duplicates(activation):
    kernel = jnp.array([[0.7, 0.7, 0.2], [0.7, 0.7, 0.2], [0.2, 0.2, 0.4]])
    last = ko.propagate(resnet(activation, 30, rho=0.5), kernel).mean_kernel[-1]
    assert jnp.all(jnp.isfinite(last))
    assert jnp.allclose(last[0, 0], last[0, 1], rtol=1e-12)
    assert jnp.allclose(last[0], last[1], rtol=1e-12)


def test_saved_layers_are_those_of_the_whole():
    net = resnet(ko.Erf(), 12, rho=jnp.linspace(0.1, 0.4, 12))
    whole = ko.propagate(net, K2)
    some = ko.propagate(net, K2, layers=[0, 5, 12])
    assert jnp.array_equal(some.mean_kernel, whole.mean_kernel[np.array([0, 5, 12])])
    assert jnp.array_equal(some.ts, whole.ts[np.array([0, 5, 12])])
    assert jnp.allclose(whole.ts[-1], jnp.sum(jnp.linspace(0.1, 0.4, 12) ** 2))


def test_per_layer_scales_that_are_equal_are_one_scale():
    one = ko.propagate(resnet(ko.Tanh(), 5, rho=0.3), K2).mean_kernel
    many = ko.propagate(resnet(ko.Tanh(), 5, rho=jnp.full(5, 0.3)), K2).mean_kernel
    assert jnp.allclose(one, many, rtol=1e-15)


def test_invariance_of_scale_and_variances():
    # Only rho^2 C_W and rho^2 C_b enter.
    one = ko.propagate(resnet(ko.Erf(), 9, 1.25, 0.05, 0.3), K2).mean_kernel
    other = ko.propagate(resnet(ko.Erf(), 9, 1.25 / 4, 0.05 / 4, 0.6), K2).mean_kernel
    assert jnp.allclose(one, other, rtol=1e-14)


def test_bounds_of_a_bounded_activation():
    net = resnet(ko.Erf(), 40, 1.2, 0.1, 0.5)
    kernels = ko.propagate(net, jnp.array([[0.3, -0.25], [-0.25, 0.4]])).mean_kernel
    steps = jnp.diff(kernels, axis=0)
    diagonal = jnp.diagonal(steps, axis1=1, axis2=2)
    assert jnp.all(diagonal > 0) and jnp.all(diagonal <= 0.25 * (1.2 + 0.1))
    limit = kernels[:, 0, 0] * kernels[:, 1, 1]
    assert jnp.all(kernels[:, 0, 1] ** 2 <= limit)


def test_depth_does_not_enter_the_program():
    def size(depth):
        net = resnet(ko.Tanh(), depth)
        return len(str(jax.make_jaxpr(lambda k: ko.propagate(net, k, layers=[depth]).state)(K2)))

    assert abs(size(10) - size(1000)) < 100


def test_a_sweep_compiles_once():
    count = 0

    @eqx.filter_jit
    def last(net, kernel):
        nonlocal count
        count += 1
        return ko.propagate(net, kernel).mean_kernel[-1]

    for rho, sw2 in [(0.1, 1.0), (0.2, 1.5), (0.4, 2.0)]:
        last(resnet(ko.Swish(rho), 5, sw2, rho, jnp.asarray(rho)), rho * K2)
    assert count == 1


SWEPT = [ko.Erf(), pytest.param(ko.Tanh(), marks=pytest.mark.slow), ko.ReLU(), ko.GELU()]


@pytest.mark.parametrize("activation", SWEPT)
def test_gradients(activation):
    net = resnet(activation, 4, rho=0.5)
    parameters = lambda n: [n.residual_scale, n.weight_variance, n.bias_variance]

    @jax.jit
    def total(values):
        moved = eqx.tree_at(parameters, net, list(values))
        return jnp.sum(ko.propagate(moved, K2).mean_kernel[-1] ** 2)

    at = jnp.array([float(x) for x in parameters(net)])
    reverse, forward = jax.jit(lambda x: (jax.grad(total)(x), jax.jacfwd(total)(x)))(at)
    for k in range(3):
        moved = lambda value, k=k: total(at.at[k].set(value))
        expected = central_difference(moved, at[k], 1e-3 * at[k])
        assert relative_error(reverse[k], expected) < 1e-9
        assert relative_error(forward[k], expected) < 1e-9


def test_vmap_over_networks_and_kernels():
    scales = jnp.array([0.1, 0.3])
    nets = eqx.filter_vmap(lambda rho: resnet(ko.Tanh(), 3, rho=rho))(scales)
    kernels = jnp.stack([K2, 2 * K2])
    together = eqx.filter_vmap(lambda net, k: ko.propagate(net, k).mean_kernel)(nets, kernels)
    for i in range(2):
        alone = ko.propagate(resnet(ko.Tanh(), 3, rho=scales[i]), kernels[i]).mean_kernel
        assert jnp.allclose(together[i], alone, rtol=1e-13)


@pytest.mark.parametrize("activation", [ko.Tanh(), ko.Erf(), ko.ReLU(), ko.Softplus(2.0)])
def test_float32(activation):
    net = resnet(activation, 20)
    single = ko.propagate(net, K2.astype(jnp.float32))
    assert single.mean_kernel.dtype == jnp.float32
    assert relative_error(single.mean_kernel[-1], ko.propagate(net, K2).mean_kernel[-1]) < 1e-5


@pytest.mark.parametrize(
    "activation",
    [
        pytest.param(ko.Tanh(), marks=pytest.mark.slow),
        ko.ReLU(),
        ko.GELU(),
        pytest.param(ko.Softplus(), marks=pytest.mark.slow),
    ],
)
def test_zero_variance_input(activation):
    kernel = jnp.array([[0.0, 0.0], [0.0, 0.3]])
    net = resnet(activation, 3, sb2=0.0)
    last = ko.propagate(net, kernel).mean_kernel[-1]
    assert jnp.all(jnp.isfinite(last))
    slope = jax.jit(jax.grad(lambda k: jnp.sum(ko.propagate(net, k).mean_kernel[-1])))(kernel)
    assert jnp.all(jnp.isfinite(slope))


def test_overflow_is_reported():
    net = resnet(ko.ReLU(), 400, 1e3, 0.0, 10.0)
    with pytest.raises(Exception, match="grows without bound"):
        ko.propagate(net, K2)
    solution = ko.propagate(net, K2, throw=False)
    assert solution.result == ko.RESULTS.not_finite


@pytest.mark.parametrize(
    "activation, kernel",
    [
        (ko.GELU(), K2),
        (ko.Polynomial.monomial(3), K2),
        (ko.Elementwise(jnp.exp), K2),
        (ko.Elementwise(jnp.exp), jnp.array([[3e4]])),
    ],
)
def test_overflow_is_told_from_nan(activation, kernel):
    net = ko.MLP(activation, 40, weight_variance=1e9)
    assert ko.propagate(net, kernel, throw=False).result == ko.RESULTS.not_finite


@pytest.mark.parametrize("closure", [None, ko.WickTower(4), ko.GOnly()])
def test_an_activation_that_is_nan_is_reported(closure):
    net = resnet(ko.Elementwise(jnp.log), 2)
    with pytest.raises(Exception, match="NaN at some inputs"):
        ko.propagate(net, K2, closure=closure)
    found = ko.propagate(net, K2, closure=closure, throw=False)
    assert found.result == ko.RESULTS.not_a_number


@pytest.mark.parametrize("dtype, depth", [(jnp.float32, 130), (jnp.float64, 1030)])
def test_underflow_is_reported(dtype, depth):
    # ReLU without biases halves the variance in every layer.
    kernel = K2.astype(dtype)
    with pytest.raises(Exception, match="underflowed"):
        ko.propagate(ko.MLP(ko.ReLU(), depth), kernel, layers=[depth])
    found = ko.propagate(ko.MLP(ko.ReLU(), depth), kernel, layers=[depth], throw=False)
    assert found.result == ko.RESULTS.underflow
    fading = ko.ResNet(ko.ReLU(), depth, weight_variance=0.0, skip_scale=0.5)
    assert ko.propagate(fading, kernel, throw=False).result == ko.RESULTS.underflow
    whole = ko.propagate(ko.MLP(ko.ReLU(), depth - 15), kernel, layers=[depth - 15])
    assert relative_error(whole.mean_kernel[0, 0, 0], 0.5 ** (depth - 14)) < 1e-4


def test_a_variance_that_vanishes_is_no_underflow():
    far = ko.Elementwise(lambda x: jax.nn.relu(x - 1e3), kinks=(1e3,))
    for net in (
        ko.MLP(far, 3),
        ko.MLP(ko.Polynomial([0.0]), 3),
        ko.MLP(ko.Tanh(), 3, weight_variance=0.0),
        ko.ResNet(ko.Tanh(), 3, residual_scale=0.0, skip_scale=0.0),
    ):
        assert jnp.all(ko.propagate(net, K2).mean_kernel[-1] == 0)


@pytest.mark.parametrize(
    "kernel, message",
    [
        (jnp.ones((2, 3)), "square"),
        (jnp.array([[1.0, jnp.nan], [jnp.nan, 1.0]]), "finite"),
        (jnp.array([[1.0, 0.5], [0.2, 1.0]]), "symmetric"),
        (jnp.array([[1.0, 2.0], [2.0, 1.0]]), "positive semidefinite"),
        (jnp.array([[-1.0, 0.0], [0.0, 1.0]]), "non-negative"),
        (jnp.zeros((0, 0)), "square"),
    ],
)
def test_bad_kernels(kernel, message):
    with pytest.raises(ValueError, match=message):
        ko.propagate(resnet(ko.Erf(), 2), kernel)


def test_a_large_kernel_that_is_not_psd_is_refused(getkey):
    x = jax.random.normal(getkey(), (80, 100))
    kernel = ko.input_kernel(x)
    ko.propagate(resnet(ko.Erf(), 1), kernel)
    with pytest.raises(ValueError, match="semidefinite"):
        ko.propagate(resnet(ko.Erf(), 1), kernel - 0.5 * jnp.eye(80) * kernel[0, 0])


LARGEST = {jnp.float32: 1e30, jnp.float64: 1e150}


@pytest.mark.parametrize("dtype", LARGEST)
@pytest.mark.parametrize("traced", [False, True])
def test_kernels_are_judged_at_unit_diagonal(dtype, traced):
    large, small = LARGEST[dtype], 1 / LARGEST[dtype]
    check = jax.jit(checked_kernel) if traced else checked_kernel
    for kernel in (
        [[1e6, 0, 0], [0, 1e-12, 1e-9], [0, 1e-9, 1e-12]],
        [[1e6, 0, 0], [0, 1e-12, 1e-13], [0, 0, 1e-12]],
        [[large, 0, 0], [0, small, 1.1 * small], [0, 1.1 * small, small]],
        [[large, 2 * large], [2 * large, large]],
        [[small, 2 * small], [2 * small, small]],
        [[0, 1e-20], [1e-20, 1]],
        [[small, large], [large, small]],
    ):
        with pytest.raises(Exception, match="semidefinite|symmetric|not a covariance"):
            jax.block_until_ready(check(jnp.array(kernel, dtype)))
    for kernel in (
        [[large, 1], [1, small]],
        [[large, large], [large, large]],
        [[small, -small], [-small, small]],
        [[0, 0], [0, small]],
        [[0, 0], [0, 0]],
    ):
        assert jnp.array_equal(check(jnp.array(kernel, dtype)), jnp.array(kernel, dtype))


def test_what_only_a_concrete_check_sees():
    kernel = jnp.array([[1e-9, 0.9e-9, 0.9e-9], [0.9e-9, 1e-9, 0], [0.9e-9, 0, 1e-9]])
    with pytest.raises(ValueError, match="lowest eigenvalue is -0.273 when it is scaled"):
        ko.propagate(resnet(ko.Erf(), 2), kernel)


@settings(max_examples=150, deadline=None, database=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.sampled_from(list(LARGEST)))
def test_gram_matrices_are_taken(seed, dtype):
    """Of any rank, of inputs that are nearly equal, of sizes far apart, or zero."""
    rng = np.random.default_rng(seed)
    n, features = int(rng.integers(1, 30)), int(10 ** rng.uniform(0, 4))
    rank = int(rng.integers(1, 1 + min(n, features)))
    x = (rng.normal(size=(n, rank)) @ rng.normal(size=(rank, features)))[rng.integers(0, n, n)]
    x = x + 10 ** rng.uniform(-9, 0) * rng.normal(size=x.shape)
    x = x * 10 ** rng.uniform(-13, 13, size=(n, 1)) * (rng.random((n, 1)) > 0.05)
    # Summed by NumPy in the kernel's own precision, which compiles nothing.
    x = x.astype(np.dtype(dtype))
    kernel = (rng.uniform(0.01, 100) * (x @ x.T) / features).astype(x.dtype)
    assert checked_kernel(kernel).dtype == dtype


def test_a_bad_traced_kernel_is_refused():
    function = eqx.filter_jit(lambda k: ko.propagate(resnet(ko.Erf(), 2), k).mean_kernel)
    with pytest.raises(Exception, match="not a covariance"):
        function(jnp.array([[1.0, 2.0], [2.0, 1.0]]))


@pytest.mark.parametrize("layers", [[], [2, 1], [-1], [3], [1, 1]])
def test_bad_layers(layers):
    with pytest.raises(ValueError, match="layers"):
        ko.propagate(resnet(ko.Erf(), 2), K2, layers=layers)


@pytest.mark.parametrize(
    "arguments, options, error, message",
    [
        ((ko.Erf(), 0), {}, ValueError, "depth"),
        ((ko.Erf(), 2.5), {}, TypeError, "depth"),
        ((ko.Erf, 2), {}, TypeError, "activation"),
        ((jnp.tanh, 2), {}, TypeError, "activation"),
        ((ko.Erf(), 2), {"weight_variance": -1.0}, ValueError, "weight_variance"),
        ((ko.Erf(), 2), {"bias_variance": jnp.nan}, ValueError, "bias_variance"),
        ((ko.Erf(), 2), {"residual_scale": [0.1, 0.2, 0.3]}, ValueError, "residual_scale"),
        ((ko.Erf(), 2), {"residual_scale": -0.1}, ValueError, "residual_scale"),
        ((ko.Erf(), 2), {"residual_scale": "large"}, TypeError, "residual_scale"),
        ((ko.Erf(), 2), {"weight_variance": [1.0, 2.0, 3.0]}, ValueError, "weight_variance"),
        ((ko.Erf(), 2), {"weight_variance": 1j}, TypeError, "weight_variance"),
        ((ko.Erf(), 2), {"layers_per_block": 0}, ValueError, "layers_per_block"),
    ],
)
def test_bad_networks(arguments, options, error, message):
    with pytest.raises(error, match=message):
        ko.ResNet(*arguments, **options)


def test_input_kernel(getkey):
    x = jax.random.normal(getkey(), (4, 7))
    expected = 1.5 * np.asarray(x) @ np.asarray(x).T / 7 + 0.1
    assert relative_error(ko.input_kernel(x, 1.5, 0.1), expected) < 1e-14
    net = ko.MLP(ko.Erf(), 2, input_weight_variance=1.5, input_bias_variance=0.1)
    assert relative_error(net.read_in(x), expected) < 1e-14
    assert ko.input_kernel(x.astype(jnp.float32)).dtype == jnp.float32
    with pytest.raises(ValueError, match="finite"):
        ko.input_kernel(x.at[0, 0].set(jnp.inf))
    with pytest.raises(ValueError, match="shape"):
        ko.input_kernel(x[0])
    with pytest.raises(ValueError, match="weight_variance"):
        ko.input_kernel(x, -1.0)
