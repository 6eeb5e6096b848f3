"""Networks written for neural-tangents, read as ours: the kernels that both give, and what is refused."""

import warnings
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import kernelode as ko
from kernelode import baselines
from kernelode.baselines._neural_tangents import network_of
from kernelode.baselines._stax_tree import Stax

from .test_baselines import mean_kernel, relative_error

STD = dict(W_std=1.1, b_std=0.3)


def feed_forward(activation, depth=2, **options):
    def build(stax):
        hidden = [activation(stax), stax.Dense(64, 1.2, 0.2, **options)] * depth
        return stax.serial(
            stax.Dense(64, 0.9, 0.4, **options),
            *hidden,
            activation(stax),
            stax.Dense(1, **STD, **options),
        )

    return build


def residual(activation, deviations, skip_first=False, read_in=(0.9, 0.4)):
    """A block for each entry of `deviations`, which has (W_std, b_std) of each of its layers."""

    def build(stax):
        def block(layers):
            branch = stax.serial(*(x for d in layers for x in (activation(stax), stax.Dense(64, *d))))
            branches = (stax.Identity(), branch) if skip_first else (branch, stax.Identity())
            return stax.serial(stax.FanOut(2), stax.parallel(*branches), stax.FanInSum())

        blocks = [block(layers) for layers in deviations]
        return stax.serial(
            stax.Dense(64, *read_in), stax.serial(*blocks), activation(stax), stax.Dense(1, **STD)
        )

    return build


def theirs(build, x):
    with (
        jax.numpy_rank_promotion("allow"),
        jax.numpy_dtype_promotion("standard"),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # of sums of branches, whose independence they do not check
        *_, kernel_fn = build(baselines.load_neural_tangents().stax)
        return kernel_fn(x, None, "nngp")


@pytest.fixture
def x(getkey):
    return jr.normal(getkey(), (4, 5))


@pytest.mark.parametrize(
    "activation, expected",
    [
        (lambda stax: stax.Erf(), ko.Erf()),
        (lambda stax: stax.Relu(do_stabilize=True), ko.ReLU()),
        (lambda stax: stax.LeakyRelu(0.3), ko.LeakyReLU(0.3)),
        (lambda stax: stax.Abs(), ko.LeakyReLU(-1)),
        (lambda stax: stax.Gelu(), ko.GELU()),
        (lambda stax: stax.Sin(b=1.3), ko.Sin(1.3)),
        (lambda stax: stax.Polynomial([0.2, 0.5, 0.1]), ko.Polynomial([0.2, 0.5, 0.1])),
        (lambda stax: stax.Monomial(3), ko.Polynomial.monomial(3)),
        (lambda stax: stax.Identity(), ko.Linear()),
        (lambda stax: stax.ABRelu(-0.2, 1.5), None),
        (lambda stax: stax.Erf(0.8, 1.4, 0.3), None),
        pytest.param(lambda stax: stax.Sigmoid_like(), None, marks=pytest.mark.slow),
        pytest.param(lambda stax: stax.Sin(0.7, 1.2, 0.4), None, marks=pytest.mark.slow),
        pytest.param(lambda stax: stax.Cos(b=0.8), None, marks=pytest.mark.slow),
        pytest.param(lambda stax: stax.Rbf(0.6), None, marks=pytest.mark.slow),
        pytest.param(lambda stax: stax.Gaussian(0.9, -0.4), None, marks=pytest.mark.slow),
        pytest.param(lambda stax: stax.Gabor(), None, marks=pytest.mark.slow),
    ],
)
def test_activations(activation, expected, x):
    build = feed_forward(activation, depth=1)
    network = baselines.from_stax(build)
    assert isinstance(network, ko.MLP) and network.depth == 1
    if expected is not None:
        assert eqx.tree_equal(network.activation, expected)
    assert relative_error(mean_kernel(network, x), theirs(build, x)) < 1e-10


@pytest.mark.parametrize(
    "function, expected",
    [
        (jnp.tanh, ko.Tanh()),
        (jax.nn.softplus, ko.Softplus()),
        (jax.nn.silu, ko.Swish()),
        (jax.nn.relu, ko.ReLU()),
        (jax.scipy.special.erf, ko.Erf()),
        (jnp.arctan, ko.Elementwise(jnp.arctan)),
        (ko.Elementwise(jnp.abs, (0.0,)), ko.Elementwise(jnp.abs, (0.0,))),
    ],
)
def test_functions(function, expected):
    network = baselines.from_stax(feed_forward(lambda stax: stax.ElementwiseNumerical(function, 25)))
    assert eqx.tree_equal(network.activation, expected)
    other = baselines.from_stax(feed_forward(lambda stax: stax.Elementwise(function, lambda *x: 0.0)))
    assert eqx.tree_equal(other.activation, expected)


@pytest.mark.parametrize("s", [(1, 1), (3, 3)])
def test_standard_parameterisation(s, x):
    # At initialisation W_ij ~ N(0, W_std^2 / fan-in) whatever `s`: the draws of their `init_fn` and the
    # kernel of their `kernel_fn` both say so.
    build = feed_forward(lambda stax: stax.Erf(), parameterization="standard", s=s)
    network = baselines.from_stax(build)
    assert relative_error(mean_kernel(network, x), theirs(build, x)) < 1e-10
    assert eqx.tree_equal(network, baselines.from_stax(feed_forward(lambda stax: stax.Erf())))


@pytest.mark.parametrize("skip_first", [False, True])
@pytest.mark.parametrize(
    "deviations, expected",
    [
        # One layer a block: rho is one, in the first block at least.
        ([[(0.3, 0.1)]] * 2, dict(residual_scale=1.0, weight_variance=0.09, bias_variance=0.01)),
        (
            [[(0.6, 0.2)], [(0.3, 0.1)], [(0.0, 0.0)]],
            dict(residual_scale=[1.0, 0.5, 0.0], weight_variance=0.36, bias_variance=0.04),
        ),
        # Two: the first layer of a block tells what the second is a multiple of.
        (
            [[(1.2, 0.2), (0.6, 0.1)]] * 2,
            dict(residual_scale=0.5, weight_variance=1.44, bias_variance=0.04, layers_per_block=2),
        ),
    ],
)
def test_residual_networks(deviations, expected, skip_first, x):
    build = residual(lambda stax: stax.Erf(), deviations, skip_first)
    network = baselines.from_stax(build)
    assert isinstance(network, ko.ResNet) and network.depth == len(deviations)
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(network, name), value, rtol=1e-14)
    assert jnp.shape(network.residual_scale) == np.shape(expected["residual_scale"])
    assert relative_error(mean_kernel(network, x), theirs(build, x)) < 1e-10


@pytest.mark.parametrize(
    "deviations, expected",
    [
        # More than a factor apart: all have the scale one, and variances of their own.
        ([[(0.3, 0.1)], [(0.6, 0.0)]], dict(residual_scale=1.0, weight_variance=[0.09, 0.36])),
        (
            [[(1.2, 0.2), (0.6, 0.1)], [(0.8, 0.2), (0.8, 0.2)]],
            dict(residual_scale=[0.5, 1.0], weight_variance=[1.44, 0.64], bias_variance=[0.04, 0.04]),
        ),
    ],
)
def test_variances_of_each_block(deviations, expected, x):
    build = residual(lambda stax: stax.Erf(), deviations)
    network = baselines.from_stax(build)
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(network, name), value, rtol=1e-14)
    assert relative_error(mean_kernel(network, x), theirs(build, x)) < 1e-10


def test_variances_of_each_layer(x):
    def build(stax):
        hidden = [stax.Erf(), stax.Dense(64, 1.2, 0.1), stax.Erf(), stax.Dense(64, 0.8)]
        return stax.serial(stax.Dense(64), *hidden, stax.Erf(), stax.Dense(1))

    network: Any = baselines.from_stax(build)
    np.testing.assert_allclose(network.weight_variance, [1.44, 0.64], rtol=1e-14)
    np.testing.assert_allclose(network.bias_variance, [0.01, 0.0], rtol=1e-14)
    assert relative_error(mean_kernel(network, x), theirs(build, x)) < 1e-10


def test_a_chosen_residual_scale(x):
    build = residual(lambda stax: stax.Gelu(), [[(0.0, 0.0)], [(0.3, 0.1)], [(0.6, 0.2)]])
    network: Any = baselines.from_stax(build, residual_scale=0.2)
    np.testing.assert_allclose(network.residual_scale, [0.0, 0.2, 0.4], rtol=1e-14)
    np.testing.assert_allclose(network.weight_variance, 2.25, rtol=1e-14)
    assert relative_error(mean_kernel(network, x), theirs(build, x)) < 1e-10
    # With two layers a block it is determined, and may be said.
    two_layers = residual(lambda stax: stax.Erf(), [[(1.2, 0.2), (0.6, 0.1)]])
    same: Any = baselines.from_stax(two_layers, residual_scale=0.5)
    assert same.residual_scale == 0.5


def test_repeat_and_nesting(x):
    def build(stax):
        layer = stax.serial(stax.Relu(), stax.Dense(64, 1.2, 0.2))
        return stax.serial(
            stax.Flatten(), stax.serial(stax.Dense(64)), stax.repeat(layer, 3), stax.Relu(), stax.Dense(1)
        )

    network = baselines.from_stax(build)
    assert network.depth == 3
    assert relative_error(mean_kernel(network, x), theirs(build, x)) < 1e-10


def test_what_build_returns():
    def triple(stax):
        init_fn, apply_fn, kernel_fn = feed_forward(lambda stax: stax.Erf())(stax)
        return init_fn, apply_fn, kernel_fn

    expected = baselines.from_stax(feed_forward(lambda stax: stax.Erf()))
    assert eqx.tree_equal(baselines.from_stax(triple), expected)
    assert eqx.tree_equal(baselines.from_stax(lambda stax: triple(stax)[2]), expected)


def test_widths_are_kept():
    def build(stax):
        layers = [(stax.Erf(), stax.Dense(width)) for width in (256, 128, 10)]
        return stax.serial(stax.Dense(512), *[layer for pair in layers for layer in pair])

    network: Any = baselines.from_stax(build)
    np.testing.assert_array_equal(network.relative_width, [1, 0.5, 0.25])


@pytest.mark.parametrize(
    "network",
    [
        ko.MLP(ko.Sin(1.2), 3, weight_variance=1.3, bias_variance=0.2, input_bias_variance=0.1),
        ko.ResNet(ko.Tanh(), 3, residual_scale=0.3, weight_variance=1.3, output_weight_variance=2.0),
        ko.ResNet(ko.LeakyReLU(0.1), 2, residual_scale=[0.3, 0.6], layers_per_block=2, bias_variance=0.1),
        ko.ResNet(ko.Linear(), 2, residual_scale=0.3),
        ko.MLP(ko.Elementwise(jnp.arctan), 1),
    ],
    ids=["MLP", "ResNet", "two layers a block", "linear", "own"],
)
def test_there_and_back(network):
    scale = network.residual_scale if isinstance(network, ko.ResNet) else None
    if scale is not None and scale.ndim:
        scale = scale[0]
    back: Any = baselines.from_stax(
        lambda stax: network_of(stax, network, 64, 1, 25), residual_scale=scale
    )
    assert jax.tree.structure(back) == jax.tree.structure(network)
    for ours, expected in zip(jax.tree.leaves(back), jax.tree.leaves(network)):
        if callable(expected):
            assert ours is expected
            continue
        np.testing.assert_allclose(ours, expected, rtol=1e-14)


def test_single_precision_and_rounding():
    # Deviations computed in float32: rho_l are equal up to their rounding, and found to be.
    rho = jnp.float32(0.3)
    stds = [[(1.2, 0.4), (float(rho * jnp.float32(1.2)), rho * jnp.float32(0.4))]] * 3
    network: Any = baselines.from_stax(residual(lambda stax: stax.Erf(), stds))
    assert network.residual_scale.shape == ()
    np.testing.assert_allclose(network.residual_scale, 0.3, rtol=1e-6)


def chain(*layers):
    return lambda stax: stax.serial(*(layer(stax) for layer in layers))


dense = lambda *args: lambda stax: stax.Dense(*(args or (64,)))
erf = lambda stax: stax.Erf()
block = lambda *branch, skip=(): (
    lambda stax: stax.serial(
        stax.FanOut(2), stax.parallel(chain(*skip)(stax), chain(*branch)(stax)), stax.FanInSum()
    )
)


@pytest.mark.parametrize(
    "build, match",
    [
        (lambda stax: stax.Conv(8, (3, 3)), "`stax.Conv` has no counterpart.*fully connected"),
        (lambda stax: stax.GlobalSelfAttention(8), "`stax.GlobalSelfAttention`.*attention"),
        (chain(dense(), lambda stax: stax.LayerNorm()), "`stax.LayerNorm`.*normalisation"),
        (chain(dense(), lambda stax: stax.Dropout(0.5)), "`stax.Dropout`.*masks"),
        (chain(dense(), lambda stax: stax.Sign()), "`stax.Sign`.*not continuous"),
        (lambda stax: stax.FanInConcat(), "`stax.FanInConcat`.*other than their sum"),
        (lambda stax: stax.Dense(8, channel_axis=0), "inputs are rows"),
        (lambda stax: stax.Dense(8, parameterization="mup"), "`parameterization` is 'mup'"),
        (lambda stax: stax.Dense(8, jnp.nan), "finite numbers"),
        (lambda stax: stax.Gelu(approximate=True), "approximate=True"),
        (lambda stax: stax.Elementwise(nngp_fn=lambda *x: 0.0), "without `fn`"),
        (chain(erf, dense(), erf, dense()), "first layer must be a `Dense`"),
        (chain(dense(), erf), "ends the network with no `Dense`"),
        (chain(dense(), block(erf, dense())), "read-out is missing"),
        (chain(dense(), erf, dense()), "no layer between the read-in and the read-out"),
        (chain(dense(), erf, erf, dense()), "two activations in a row"),
        (
            chain(dense(), erf, dense(), lambda stax: stax.Relu(), dense()),
            "same activation.*Erf.*ReLU",
        ),
        (chain(dense(), block(erf, dense()), dense()), r"same activation.*Linear\(\) before"),
        (
            chain(dense(), block(erf, dense()), erf, dense(64, 3.0), erf, dense()),
            "outside of the residual",
        ),
        (chain(dense(), erf, block(dense()), erf, dense()), "directly before a `FanOut`"),
        (chain(dense(), block(dense(), erf), erf, dense()), "ends the branch"),
        (chain(dense(), block(erf, dense(), skip=[dense()]), erf, dense()), "in the skip connection"),
        (chain(dense(), block(), erf, dense()), "both are `Identity"),
        (chain(dense(), block(block(erf, dense())), erf, dense()), "inside of another"),
        (chain(dense(), lambda stax: stax.FanOut(2), erf, dense()), "after `FanOut`"),
        (chain(dense(), lambda stax: stax.FanInSum(), erf, dense()), "stands without a `FanOut`"),
        (
            chain(
                dense(),
                lambda stax: stax.FanOut(3),
                lambda stax: stax.parallel(*[stax.Identity()] * 3),
                lambda stax: stax.FanInSum(),
                erf,
                dense(),
            ),
            "two branches",
        ),
        (
            chain(dense(), block(erf, dense(64, 1.0, 0.2), erf, dense(64, 0.5, 0.2)), erf, dense()),
            "differs from the others by a factor only",
        ),
        (
            chain(dense(), block(erf, dense()), block(*[erf, dense()] * 2), erf, dense()),
            "block 1 has 1 and block 2 has 2",
        ),
        (
            chain(dense(), block(erf, dense(), erf, dense(64, 2.0), erf, dense()), erf, dense()),
            r"but the last have the same.*Dense\(64, 1.0.*Dense\(64, 2.0",
        ),
        (chain(dense(), block(erf, dense(32)), erf, dense()), r"read-in has 64 and block 1.*Dense\(32"),
    ],
)
def test_refusals(build, match):
    with pytest.raises(ValueError, match=match):
        baselines.from_stax(build)


def test_wrong_residual_scales():
    with pytest.raises(ValueError, match="feed-forward"):
        baselines.from_stax(feed_forward(erf), residual_scale=0.5)
    with pytest.raises(ValueError, match="`residual_scale` is 0.4, but.*0.5"):
        baselines.from_stax(residual(erf, [[(1.2, 0.2), (0.6, 0.1)]]), residual_scale=0.4)
    with pytest.raises(ValueError, match="`residual_scale` must be positive"):
        baselines.from_stax(residual(erf, [[(1.2, 0.2)]]), residual_scale=0.0)


def test_layers_of_others_are_refused():
    stax = baselines.load_neural_tangents().stax
    with pytest.raises(TypeError, match="not with `neural_tangents.stax`"):
        baselines.from_stax(lambda _: feed_forward(erf)(stax))
    with pytest.raises(TypeError, match="not with `neural_tangents.stax`"):
        baselines.from_stax(lambda ours: ours.serial(stax.Dense(8), stax.Erf()))
    with pytest.raises(AttributeError, match="has no 'Tanh'.*ElementwiseNumerical"):
        baselines.from_stax(lambda stax: stax.Tanh())
    with pytest.raises(TypeError, match="`stax.ElementwiseNumerical` needs a function"):
        baselines.from_stax(lambda stax: stax.ElementwiseNumerical(3, 25))
    with pytest.raises(TypeError, match="traced"):
        jax.jit(lambda std: baselines.from_stax(residual(erf, [[(std, 0.2)]])).weight_variance)(1.0)


def test_every_name_of_stax_is_known():
    # What their namespace has is either read or refused with a reason: none looks like a slip of the pen.
    ours = Stax()
    for name in dir(baselines.load_neural_tangents().stax):
        if name.startswith("_"):
            continue
        try:
            getattr(ours, name)
        except ValueError as error:
            assert f"`stax.{name}` has no counterpart" in str(error)
