"""Expectations at the edges: every scale, nearly parallel inputs, large variance, features away from
zero."""

import functools

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import kernelode as ko

ACTIVATIONS = {
    "tanh": ko.Tanh(),
    "erf": ko.Erf(),
    "gelu": ko.GELU(),
    "relu": ko.ReLU(),
    "leaky_relu": ko.LeakyReLU(0.1),
    "softplus": ko.Softplus(),
    "swish": ko.Swish(),
    "sin": ko.Sin(),
    "linear": ko.Linear(),
    "smooth": ko.Elementwise(lambda x: jnp.arctan(x)),
    "kinked": ko.Elementwise(jax.nn.relu, kinks=(0.0,)),
}
#: The largest power of ten of a variance, and what a product of rounding may cost, by dtype.
LIMITS = {"float32": (30, 2e-5), "float64": (150, 1e-10)}


def with_slow(*names: str, slow: tuple[str, ...]) -> list:
    return [*names, *(pytest.param(name, marks=pytest.mark.slow) for name in slow)]


@functools.cache
def compiled(name: str):
    one = lambda a, b, c: ko.pair_moments(ACTIVATIONS[name], a[None], b[None], c[None, None])[0, 0]
    return jax.jit(lambda a, b, c: jax.tree.map(lambda x: x[0, 0], one(a, b, c)))


def moment(name: str, a: float, b: float, corr: float, dtype: str) -> tuple[float, float]:
    c = corr * np.sqrt(a) * np.sqrt(b)
    value, error = compiled(name)(*(jnp.asarray(x, dtype) for x in (a, b, c)))
    assert value.dtype == dtype
    return float(value), float(error)


POWERS = st.floats(-1, 1)
CORRELATIONS = st.sampled_from([0.0, 0.3, -0.5, 0.9, -0.99, 1.0])


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("name", with_slow("tanh", "erf", slow=("sin", "smooth", "gelu", "swish")))
@settings(max_examples=15, deadline=None)
@given(power=st.floats(-1, -0.5), corr=CORRELATIONS)
def test_small_inputs_see_the_slope_at_zero(name, dtype, power, corr):
    """sigma(x) = s x + O(x^2): E[sigma sigma] -> s^2 c."""
    limit, tolerance = LIMITS[dtype]
    q = 10.0 ** (limit * power)
    slope = 0.5 if name in ("gelu", "swish") else (2 / np.sqrt(np.pi) if name == "erf" else 1.0)
    value, error = moment(name, q, q, corr, dtype)
    # The next term is of relative order sqrt(q), of even activations' square q.
    exact = slope**2 * corr
    assert abs(value / q - exact) <= tolerance + 2 * np.sqrt(q)
    assert abs(value / q - exact) <= error / q + 2 * np.sqrt(q)


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("name", ["tanh", "erf"])
@settings(max_examples=15, deadline=None)
@given(power=st.floats(0.5, 1), corr=st.sampled_from([0.0, 0.3, -0.5, 0.9, 0.99, 1.0]))
def test_large_inputs_see_a_step(name, dtype, power, corr):
    """E[sign sign] = (2/pi) asin(corr); the width of the step is a 1/sqrt(q) of that of the inputs."""
    limit, tolerance = LIMITS[dtype]
    q = 10.0 ** (limit * power)
    value, error = moment(name, q, q, corr, dtype)
    exact = 2 / np.pi * np.arcsin(corr)
    # Of corr the last digits are rounding of the covariance, at correlation one the square root of them.
    known = 4 * np.sqrt(np.finfo(dtype).eps) if corr == 1 else tolerance
    assert abs(value - exact) <= known + 10.0 ** (-limit * power / 2)
    assert abs(value - exact) <= error + known + 10.0 ** (-limit * power / 2)


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("name", with_slow("gelu", "softplus", "relu", slow=("swish", "kinked")))
@settings(max_examples=15, deadline=None)
@given(power=st.floats(0.5, 1), corr=CORRELATIONS)
def test_large_inputs_see_relu(name, dtype, power, corr):
    limit, tolerance = LIMITS[dtype]
    q = 10.0 ** (limit * power)
    value, error = moment(name, q, q, corr, dtype)
    angle = np.arccos(corr)
    exact = (np.sin(angle) + (np.pi - angle) * corr) / (2 * np.pi)
    # Mehler's series of a declared kink.
    tolerance = max(tolerance, 1e-5) if name == "kinked" else tolerance
    assert abs(value / q - exact) <= tolerance + 2 * 10.0 ** (-limit * power / 2)
    assert np.isfinite(error)


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("name", ["relu", "leaky_relu", "linear"])
@settings(max_examples=25, deadline=None)
@given(row=POWERS, column=POWERS, corr=CORRELATIONS)
def test_homogeneous_activations_at_two_scales(name, dtype, row, column, corr):
    """E[sigma(s x) sigma(t y)] = s t E[sigma sigma]."""
    limit, _ = LIMITS[dtype]
    a, b = 10.0 ** (limit * row), 10.0 ** (limit * column)
    value, _ = moment(name, a, b, corr, dtype)
    unit, _ = moment(name, 1.0, 1.0, corr, dtype)
    assert abs(value / np.sqrt(a) / np.sqrt(b) - unit) <= 100 * np.finfo(dtype).eps


@pytest.mark.parametrize("order", [(1, 1), (2, 0)])
def test_slopes_of_relu_at_any_scale(order):
    a = jnp.full((1,), 1e-20, jnp.float32)
    moments = ko.pair_moments(ko.ReLU(), a, a, 0.5 * a[:, None], 1)
    exact = {(1, 1): 1 / 3, (2, 0): np.sqrt(0.75) / (2 * np.pi)}[order]
    assert abs(float(moments[order].value[0, 0]) - exact) < 1e-6


def test_a_deep_narrow_kernel_does_not_freeze():
    """ReLU with weight variance one halves the kernel in every layer, to 1e-21; correlations go on."""
    deep = ko.propagate(ko.MLP(ko.ReLU(), depth=70), jnp.eye(2, dtype=jnp.float32), layers=[70])
    wide = ko.propagate(ko.MLP(ko.ReLU(), depth=70, weight_variance=2.0), jnp.eye(2), layers=[70])
    correlation = lambda kernel: float(kernel[0, 0, 1]) / float(kernel[0, 0, 0])
    assert abs(correlation(deep.mean_kernel) - correlation(wide.mean_kernel)) < 2e-6


ROWS = [[1000.0, 2000.0], [3100.0, 6200.0], [1000.0, 2000.1], [-500.0, -1000.0]]


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("name", ["erf", "gelu", "tanh", "relu"])
def test_raw_columns(name, dtype):
    """Nearly parallel rows of thousands: finite, positive semidefinite, at most one in correlation."""
    kernel = ko.input_kernel(jnp.asarray(ROWS, dtype))
    found = np.asarray(
        ko.propagate(ko.MLP(ACTIVATIONS[name], depth=3), kernel).mean_kernel[1:], np.float64
    )
    for matrix in found:
        root = np.sqrt(np.diag(matrix))
        unit = matrix / root[:, None] / root[None, :]
        assert np.max(np.abs(unit)) <= 1 + 8 * np.finfo(dtype).eps
        assert np.linalg.eigvalsh(unit)[0] >= -16 * np.finfo(dtype).eps


def arcsine(a, b, c):
    return 2 / mpmath.pi * mpmath.asin(2 * c / mpmath.sqrt((1 + 2 * a) * (1 + 2 * b)))


@pytest.mark.parametrize("dtype", LIMITS)
def test_erf_at_raw_columns_beside_the_exact_kernel(dtype):
    kernel = ko.input_kernel(jnp.asarray(ROWS, dtype))
    found = ko.propagate(ko.MLP(ko.Erf(), depth=1), kernel, layers=[1]).mean_kernel[0]
    x = [[mpmath.mpf(v) for v in row] for row in ROWS]
    dot = lambda i, j: sum(u * v for u, v in zip(x[i], x[j])) / 2
    for i in range(4):
        for j in range(4):
            exact = float(arcsine(dot(i, i), dot(j, j), dot(i, j)))
            assert abs(float(found[i, j]) - exact) < 2 * np.sqrt(np.finfo(dtype).eps)


def two_dimensional(function, a, b, corr, nodes=1201, reach=10.0):
    z = np.linspace(-reach, reach, nodes)
    w = np.exp(-(z**2) / 2) * (z[1] - z[0]) / np.sqrt(2 * np.pi)
    y = np.sqrt(b) * (corr * z[:, None] + np.sqrt(1 - corr**2) * z[None, :])
    return np.einsum("i,j,i,ij->", w, w, function(np.sqrt(a) * z), function(y))


@pytest.mark.parametrize("name", with_slow("tanh", slow=("softplus", "swish")))
@pytest.mark.parametrize("corr", [0.5, 0.99, 0.9999, -0.999])
def test_nearly_parallel_inputs_of_large_variance(name, corr):
    function = {
        "tanh": np.tanh,
        "softplus": lambda x: np.logaddexp(0, x),
        "swish": lambda x: x / (1 + np.exp(-x)),
    }[name]
    a, b = 900.0, 2500.0
    value, error = moment(name, a, b, corr, "float64")
    exact = two_dimensional(function, a, b, corr, nodes=3201)
    size = np.sqrt(moment(name, a, a, 1.0, "float64")[0] * moment(name, b, b, 1.0, "float64")[0])
    assert abs(value - exact) <= 1e-9 * size
    assert abs(value - exact) <= error + 1e-11 * size


FEATURES = {
    "steep": lambda x: jax.nn.sigmoid(20 * x - 40),
    "bump": lambda x: jnp.exp(-50 * (x - 3) ** 2),
    "wave": lambda x: jnp.cos(x),
    "fast wave": lambda x: jnp.sin(30 * x),
    "growth": lambda x: jnp.exp(x),
}


@pytest.mark.parametrize("q", [0.5, 9.0, 1000.0])
@pytest.mark.parametrize("name", FEATURES)
def test_features_away_from_zero(name, q):
    """The rule follows a user's function; where it cannot, the estimate says so."""
    if name == "growth" and q > 100:
        pytest.skip("E[exp(2x)] is no number.")
    function = FEATURES[name]
    z = np.linspace(-30, 30, 600_001)
    values = np.asarray(function(jnp.asarray(np.sqrt(q) * z)))
    exact = np.sum(values**2 * np.exp(-(z**2) / 2)) * 1e-4 / np.sqrt(2 * np.pi)
    found = ko.variance_derivatives(ko.Elementwise(function), jnp.array([q]))
    value, error = found.value[0, 0], found.error[0, 0]
    assert abs(value - exact) <= 1e-9 * exact
    assert abs(value - exact) <= error + 1e-12 * exact
    assert error <= 1e-8 * exact


def test_images_of_raw_pixels():
    """Tanh on rows of 0 .. 255: the response of the variance is of order q^{-3/2}."""
    q = 1e4
    found = ko.layer_response(ko.MLP(ko.Tanh(), depth=1), jnp.array([[q]])).chi.diagonal[1, 0]
    # E[tanh^2] = 1 - (2 - pi^2/12/q + ...)/sqrt(2 pi q), differentiated.
    series = q**-1.5 / np.sqrt(2 * np.pi) * (1 - 3 * np.pi**2 / 24 / q)
    assert abs(found / series - 1) < 1e-7


@pytest.mark.parametrize(
    "name", with_slow("tanh", "erf", "relu", slow=("softplus", "swish", "smooth", "kinked"))
)
def test_reverse_over_reverse(name):
    """grad of grad and jacrev of jacrev, through a scan over layers, beside forward over reverse."""
    network = ko.MLP(ACTIVATIONS[name], depth=2)
    output = lambda q: ko.propagate(network, q[None, None], layers=[2]).mean_kernel[0, 0, 0]
    q = jnp.asarray(0.5)
    expected = jax.jit(jax.jacfwd(jax.grad(output)))(q)
    assert np.isclose(jax.jit(jax.grad(jax.grad(output)))(q), expected, rtol=1e-9, atol=1e-12)
    assert np.isclose(jax.jit(jax.jacrev(jax.jacrev(output)))(q), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", with_slow("softplus", "erf", slow=("tanh", "swish", "gelu", "sin")))
def test_hessian_at_zero_rows(name):
    """E[sigma^2] = sigma(0)^2 + (sigma'(0)^2 + sigma(0) sigma''(0)) x^2 + ...: the Hessian is twice
    that."""
    activation = ACTIVATIONS[name]
    output = lambda x: ko.propagate(ko.MLP(activation, depth=1), ko.input_kernel(x), layers=[1])
    scalar = lambda x: output(x).mean_kernel[0, 0, 0]
    found = jax.jit(jax.hessian(scalar))(jnp.zeros((1, 1)))[0, 0, 0, 0]
    value = lambda x: activation(jnp.asarray(x))
    first, second = jax.grad(value), jax.grad(jax.grad(value))
    assert np.isclose(found, 2 * (first(0.0) ** 2 + value(0.0) * second(0.0)), rtol=1e-10)


@pytest.mark.parametrize("name", with_slow("tanh", "erf", slow=("softplus", "smooth", "relu")))
def test_gradient_through_public_moments(name):
    a = jnp.array([0.5, 0.7])
    c = jnp.array([[0.5, 0.2], [0.2, 0.7]])
    total = jax.jit(lambda s: jnp.sum(ko.pair_moments(ACTIVATIONS[name], a, a, s * c)[0, 0].value))
    step = 1e-5
    slope = (total(0.9 + step) - total(0.9 - step)) / (2 * step)
    assert np.isclose(jax.jit(jax.grad(total))(0.9), slope, rtol=1e-6)


def test_results_say_what_is_not_known():
    root = ko.Elementwise(lambda x: jnp.sign(x) * jnp.sqrt(jnp.abs(x)))
    network = ko.ResNet(root, depth=1, residual_scale=0.4)
    kernel = jnp.array([[1.0, 0.3], [0.3, 2.0]])
    solution = ko.propagate(network, kernel, throw=False)
    assert solution.result == ko.RESULTS.inaccurate
    assert np.all(solution.quadrature_error > 1e-7)
    with pytest.raises(Exception, match="not known to a relative 1e-6"):
        ko.propagate(network, kernel)
    with pytest.raises(Exception, match="not known to a relative 1e-6"):
        ko.response(network, kernel)
    good = ko.ResNet(ko.Elementwise(jnp.tanh), depth=1, residual_scale=0.4)
    assert ko.propagate(good, kernel).result == ko.RESULTS.successful
    assert np.all(ko.propagate(good, kernel).quadrature_error < 1e-12)
    good = ko.ResNet(ko.Tanh(), depth=1, residual_scale=0.4)
    optimum = ko.optimal_residual_scale(good, kernel, pairs=False)
    for error in (ko.response(good, kernel).quadrature_error, optimum.quadrature_error):
        assert error is not None and error < 1e-7
