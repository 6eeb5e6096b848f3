"""Our mean kernels against neural-tangents', and the loader against a JAX that must stay as it is."""

import subprocess
import sys
import textwrap
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import kernelode as ko
from kernelode import baselines
from kernelode._kernel import as_block, as_matrix

VARIANCES: dict[str, Any] = dict(
    weight_variance=1.3,
    bias_variance=0.1,
    input_weight_variance=0.7,
    input_bias_variance=0.2,
    output_weight_variance=1.1,
    output_bias_variance=0.3,
)
ACTIVATIONS = [ko.Erf(), ko.ReLU(), ko.GELU(), ko.LeakyReLU(0.2), ko.Sin(1.2)]
NAMES = [type(activation).__name__ for activation in ACTIVATIONS]
ARCHITECTURES = [ko.ResNet, ko.MLP]


def network(architecture, activation, depth, **kwargs: Any):
    if architecture is ko.ResNet:
        kwargs.setdefault("residual_scale", 1 / depth**0.5)
    return architecture(activation, depth, **(VARIANCES | kwargs))


@pytest.fixture
def x(getkey):
    return jr.normal(getkey(), (4, 5))


@eqx.filter_jit
def mean_kernel(net, x):
    """K_out of our recursion."""
    step = lambda kernel, layer: (net.layer(kernel, layer), None)
    last, _ = jax.lax.scan(step, as_block(net.read_in(x)), net.layers())
    return as_matrix(net.read_out(last))


@eqx.filter_jit
def tangent_kernel(net, x):
    """Theta_out from its definition, sum over parameters of E[dy dy'], in the NTK parameterisation.

    A layer z = sqrt(C_W/n) W sigma(h) + sqrt(C_b) b adds its own parameters' share, which is its
    kernel, to what it hands down, C_W E[sigma' sigma'] Theta. E[sigma' sigma'] = dE[sigma sigma]/dc.
    """

    def layer(weight_variance, bias_variance, kernel, theta):
        variance = jnp.diagonal(kernel)
        a, b = jnp.broadcast_arrays(variance[:, None], variance[None, :])
        moment = lambda c: net.activation.second_moment(a, b, c)
        value, slope = jax.jvp(moment, (kernel,), (jnp.ones_like(kernel),))
        new = weight_variance * value + bias_variance
        return new, new + weight_variance * slope * theta

    kernel = theta = net.read_in(x)
    for scale in net.layers().scale:
        before = kernel, theta
        for _ in range(getattr(net, "layers_per_block", 1)):
            kernel, theta = layer(net.weight_variance, net.bias_variance, kernel, theta)
        if isinstance(net, ko.ResNet):
            kernel, theta = (old + scale**2 * new for old, new in zip(before, (kernel, theta)))
    return layer(net.output_weight_variance, net.output_bias_variance, kernel, theta)[1]


def relative_error(value, reference):
    return np.max(np.abs(value - reference)) / np.max(np.abs(reference))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=NAMES)
@pytest.mark.parametrize("depth", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_kernels(architecture, activation, depth, x):
    net = network(architecture, activation, depth)
    theirs = baselines.neural_tangents_kernels(net, x)
    assert set(theirs) == {"nngp", "ntk"}
    assert relative_error(mean_kernel(net, x), theirs["nngp"]) < 1e-13
    # Their E[sigma' sigma'] of a kinked sigma takes sqrt(rounding error) for the angle of x with x.
    kinked = isinstance(activation, ko.AbstractHomogeneousActivation)
    assert relative_error(tangent_kernel(net, x), theirs["ntk"]) < (1e-7 if kinked else 1e-12)


# neural-tangents unrolls its layers: seconds a network.
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    "activation",
    [ACTIVATIONS[0], *(pytest.param(other, marks=pytest.mark.slow) for other in ACTIVATIONS[1:])],
    ids=NAMES,
)
def test_mean_kernel_of_a_deep_network(architecture, activation, x):
    net = network(architecture, activation, 50)
    theirs = baselines.neural_tangents_kernels(net, x)["nngp"]
    assert relative_error(mean_kernel(net, x), theirs) < 1e-12


@pytest.mark.parametrize("activation", [ko.Linear(), ko.Polynomial(jnp.array([0.1, 0.5, 0.2, 0.1]))])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_polynomials(architecture, activation, x):
    net = network(architecture, activation, 2)
    theirs = baselines.neural_tangents_kernels(net, x)["nngp"]
    assert relative_error(mean_kernel(net, x), theirs) < 1e-12


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=NAMES)
def test_degenerate_inputs(activation, x):
    x = jnp.stack([x[0], x[0], -x[0], 3 * x[0]])
    net = network(ko.ResNet, activation, 2, input_bias_variance=0.0)
    theirs = baselines.neural_tangents_kernels(net, x)["nngp"]
    assert relative_error(mean_kernel(net, x), theirs) < 1e-12


def test_layers_per_block_and_a_scale_for_each_block(x):
    net = network(ko.ResNet, ko.Erf(), 3, layers_per_block=2, residual_scale=jnp.array([0.9, 0.0, 0.4]))
    theirs = baselines.neural_tangents_kernels(net, x)
    assert relative_error(mean_kernel(net, x), theirs["nngp"]) < 1e-13
    assert relative_error(theirs["ntk"], tangent_kernel(net, x)) < 1e-12


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_variances_and_skip_of_each_layer(architecture, x):
    options = dict(weight_variance=jnp.array([0.8, 1.9]), bias_variance=jnp.array([0.3, 0.0]))
    if architecture is ko.ResNet:
        options |= dict(skip_scale=jnp.array([0.6, 1.0]), layers_per_block=2)
    net = network(architecture, ko.Erf(), 2, **options)
    theirs = baselines.neural_tangents_kernels(net, x)["nngp"]
    assert relative_error(mean_kernel(net, x), theirs) < 1e-13
    traced = jax.jit(lambda net: baselines.neural_tangents_kernels(net, x)["nngp"])(net)
    assert relative_error(traced, theirs) < 1e-13


def test_two_sets_of_inputs(x, getkey):
    y = jr.normal(getkey(), (3, 5))
    net = network(ko.ResNet, ko.Erf(), 2)
    theirs = baselines.neural_tangents_kernels(net, x, y)
    both = jnp.concatenate([x, y])
    assert theirs["nngp"].shape == theirs["ntk"].shape == (4, 3)
    assert relative_error(mean_kernel(net, both)[:4, 4:], theirs["nngp"]) < 1e-13
    assert relative_error(tangent_kernel(net, both)[:4, 4:], theirs["ntk"]) < 1e-12


@pytest.mark.parametrize(
    "activation",
    [
        ko.Tanh(),
        pytest.param(ko.Softplus(2.0), marks=pytest.mark.slow),
        pytest.param(ko.Swish(1.5), marks=pytest.mark.slow),
        ko.Elementwise(jnp.arctan),
    ],
    ids=["Tanh", "Softplus", "Swish", "Elementwise"],
)
def test_gauss_hermite_at_small_variance(activation, x):
    # At variances below 0.3 the rule has converged, and only there is it a reference for us.
    net = network(
        ko.ResNet,
        activation,
        1,
        weight_variance=0.1,
        bias_variance=0.0,
        input_weight_variance=0.1,
        input_bias_variance=0.0,
    )
    theirs = baselines.neural_tangents_kernels(net, x)["nngp"]
    assert relative_error(mean_kernel(net, x), theirs) < 1e-9


@pytest.mark.slow
def test_gauss_hermite_is_not_error_controlled():
    # What the docstring warns of: at variances of four, 32 nodes give no three digits.
    x = jnp.array([[1.0, 2.0, 2.0], [2.0, -1.0, 2.0]])
    net = network(ko.MLP, ko.Tanh(), 1, input_weight_variance=1.3, weight_variance=5.0)
    ours = mean_kernel(net, x)
    errors = [
        relative_error(baselines.neural_tangents_kernels(net, x, degree=degree)["nngp"], ours)
        for degree in (32, 96)
    ]
    assert errors[0] > 1e-3 and errors[1] < 1e-5


def forward(net, parameters, x):
    """The finite network as `ko.ResNet` and `ko.MLP` define it, on standard normal `parameters`."""
    parameters = iter(parameters)

    def dense(h, weight_variance, bias_variance):
        weight, bias = next(parameters)
        normalised = jnp.sqrt(weight_variance / h.shape[1]) * (h @ weight)
        return normalised + jnp.sqrt(bias_variance) * bias

    h = dense(x, net.input_weight_variance, net.input_bias_variance)
    for scale in net.layers().scale:
        f = h
        for _ in range(getattr(net, "layers_per_block", 1)):
            f = dense(net.activation(f), net.weight_variance, net.bias_variance)
        h = h + scale * f if isinstance(net, ko.ResNet) else f
    return dense(net.activation(h), net.output_weight_variance, net.output_bias_variance)


def dense_parameters(tree):
    """The (W, b) of a stax network's dense layers, in order."""
    leaves = jax.tree.leaves(tree)
    return list(zip(leaves[::2], leaves[1::2]))


@pytest.mark.parametrize(
    "net",
    [
        network(ko.ResNet, ko.Tanh(), 3, residual_scale=jnp.array([0.3, 0.5, 0.7]), layers_per_block=2),
        network(ko.MLP, ko.LeakyReLU(0.1), 2),
    ],
    ids=["ResNet", "MLP"],
)
def test_finite_network_is_ours(net, x, getkey):
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        init_fn, apply_fn, _ = baselines.stax_network(net, width=6, outputs=2)
        shape, parameters = init_fn(getkey(), x.shape)
        assert shape == (4, 2)
        theirs = apply_fn(parameters, x)
        ours = forward(net, dense_parameters(parameters), x)
    assert relative_error(ours, theirs) < 1e-13


def test_ntk_of_finite_linear_networks(x, getkey):
    # With sigma(x) = x, both kernels are exact in expectation at any width, since every weight
    # matrix enters at most twice.
    net = network(ko.ResNet, ko.Linear(), 1, residual_scale=0.8, layers_per_block=2)
    samples = 4000
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        init_fn, apply_fn, _ = baselines.stax_network(net, width=3)

        @jax.jit
        @jax.vmap
        def empirical(key):
            _, parameters = init_fn(key, x.shape)
            jacobian = jax.jacobian(lambda p: apply_fn(p, x)[:, 0])(parameters)
            rows = [leaf.reshape(4, -1) for leaf in jax.tree.leaves(jacobian)]
            return sum(row @ row.T for row in rows)

        draws = np.asarray(empirical(jr.split(getkey(), samples)))
    expected = baselines.neural_tangents_kernels(net, x)["ntk"]
    standard_error = draws.std(0) / samples**0.5
    assert np.all(np.abs(draws.mean(0) - expected) < 4 * standard_error)
    assert np.all(standard_error < 0.05 * jnp.max(expected))


def test_derivative_in_the_residual_scale(x):
    def total(kernel_of, scale):
        net = network(ko.ResNet, ko.Erf(), 2, residual_scale=scale)
        return jnp.sum(kernel_of(net, x))

    theirs = lambda net, x: baselines.neural_tangents_kernels(net, x)["nngp"]
    slope = lambda kernel_of: jax.jit(jax.grad(lambda scale: total(kernel_of, scale)))(0.7)
    assert relative_error(slope(mean_kernel), slope(theirs)) < 1e-12


def test_single_precision(x):
    with jax.enable_x64(False):
        x = x.astype(jnp.float32)
        net = network(ko.MLP, ko.Erf(), 1)
        kernels = baselines.neural_tangents_kernels(net, x)
        assert kernels["nngp"].dtype == kernels["ntk"].dtype == jnp.float32
        assert relative_error(mean_kernel(net, x), kernels["nngp"]) < 1e-5


def test_refusals(x):
    class Unknown(ko.AbstractArchitecture):
        activation: ko.AbstractActivation = ko.Erf()
        depth: int = 1
        input_weight_variance: jax.Array = eqx.field(default_factory=lambda: jnp.asarray(1.0))
        input_bias_variance: jax.Array = eqx.field(default_factory=lambda: jnp.asarray(0.0))
        output_weight_variance: jax.Array = eqx.field(default_factory=lambda: jnp.asarray(1.0))
        output_bias_variance: jax.Array = eqx.field(default_factory=lambda: jnp.asarray(0.0))
        weight_variance: jax.Array = eqx.field(default_factory=lambda: jnp.asarray(1.0))
        bias_variance: jax.Array = eqx.field(default_factory=lambda: jnp.asarray(0.0))
        last_width: jax.Array = eqx.field(default_factory=lambda: jnp.asarray(1.0))
        layers_per_block: int = 1

        def drift(self, kernel, layer):
            return kernel

        def layers(self):
            return ko.MLP(ko.Erf(), 1).layers()

    with pytest.raises(TypeError, match="ResNet.*MLP.*Unknown"):
        baselines.stax_network(Unknown())
    net = network(ko.MLP, ko.Erf(), 1)
    with pytest.raises(ValueError, match=r"`x` must have shape"):
        baselines.neural_tangents_kernels(net, jnp.ones((2, 0)))
    with pytest.raises(ValueError, match="equally many features"):
        baselines.neural_tangents_kernels(net, x, x[:, :2])
    with pytest.raises(ValueError, match="`degree` must be at least 1"):
        baselines.stax_network(net, degree=0)

    def with_coefficients(coefficients):
        net = network(ko.MLP, ko.Polynomial(coefficients), 1)
        return baselines.neural_tangents_kernels(net, x)["nngp"]

    with pytest.raises(TypeError, match="concrete coefficients"):
        jax.jit(with_coefficients)(jnp.array([0.0, 1.0]))


# The rest is about importing, so that each test needs an interpreter of its own.


def run(program):
    completed = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert completed.returncode == 0, completed.stderr


BLOCKER = """
import importlib.abc, sys

class Blocker(importlib.abc.MetaPathFinder):
    def __init__(self, blocked):
        self.blocked = blocked

    def find_spec(self, name, path=None, target=None):
        if name == self.blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

def block(name):
    sys.meta_path.insert(0, Blocker(name))

def check_error(*fragments):
    try:
        kernelode.baselines.load_neural_tangents()
    except ImportError as error:
        for fragment in fragments:
            assert fragment in str(error), str(error)
    else:
        raise AssertionError("no ImportError")
"""

SNAPSHOT = """
import sys, types, warnings
import jax, jax.core, jax.extend.core, jax.interpreters.ad

def snapshot():
    names = {
        module.__name__: dict(vars(module))
        for module in (jax.core, jax.interpreters.ad, jax.extend.core)
    }
    # Importing a submodule, such as `jax.example_libraries`, makes it an attribute of `jax`.
    names["jax"] = {
        name: value
        for name, value in vars(jax).items()
        if sys.modules.get(f"jax.{name}") is not value
    }
    stubs = {name: name in sys.modules for name in ("jax.util", "neural_tangents.experimental")}
    return names, stubs, list(warnings.filters)
"""


def test_jax_is_left_as_it_was():
    run(
        SNAPSHOT
        + """
import threading
import kernelode
assert "neural_tangents" not in sys.modules, "imported by `import kernelode`"

before = snapshot()
modules = []
load = lambda: modules.append(kernelode.baselines.load_neural_tangents())
threads = [threading.Thread(target=load) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert snapshot() == before

assert len(modules) == 8 and all(module is sys.modules["neural_tangents"] for module in modules)
assert not hasattr(modules[0], "experimental")
for heavy in ("tensorflow", "tf2jax"):
    assert heavy not in sys.modules
"""
    )


def test_jax_is_left_as_it_was_when_the_import_fails():
    run(
        SNAPSHOT
        + BLOCKER
        + """
import kernelode
block("neural_tangents._src.monte_carlo")  # late: most of the package has been imported by then
before = snapshot()
check_error("neural_tangents._src.monte_carlo")
assert snapshot() == before
assert not any(name.startswith("neural_tangents") for name in sys.modules)

sys.meta_path.pop(0)
kernelode.baselines.load_neural_tangents()
assert snapshot() == before
"""
    )


@pytest.mark.parametrize("missing", ["neural_tangents", "frozendict"])
def test_error_when_something_is_not_installed(missing):
    run(
        BLOCKER
        + f"""
import kernelode
block({missing!r})
check_error(
    {missing!r}, "pip install --no-deps neural-tangents==0.6.5", 'pip install "kernelode[baselines]"'
)
"""
    )


def test_error_when_it_does_not_fit_this_jax():
    run(
        BLOCKER
        + """
import jax
import kernelode

class Broken(Blocker):
    def find_spec(self, name, path=None, target=None):
        if name == self.blocked:
            raise AttributeError("module 'jax' has no attribute 'gone'")

sys.meta_path.insert(0, Broken("neural_tangents.predict"))
check_error(f"does not import on JAX {jax.__version__}", "has no attribute 'gone'")
"""
    )


def test_an_imported_neural_tangents_is_used():
    run(
        """
import sys, types
import kernelode

theirs = sys.modules["neural_tangents"] = types.ModuleType("neural_tangents")
assert kernelode.baselines.load_neural_tangents() is theirs
"""
    )
