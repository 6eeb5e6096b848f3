"""Blocks of a kernel, inputs in rows against others in columns: parts of the whole matrix."""

from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernelode as ko

from .helpers import relative_error, resnet

X = jax.random.normal(jax.random.key(3), (7, 5))
TRAIN, TEST = slice(0, 4), slice(4, 7)
ACTIVATIONS = [
    ko.Erf(),
    ko.Tanh(),
    pytest.param(ko.ReLU(), marks=pytest.mark.slow),
    pytest.param(ko.Elementwise(jnp.cos), marks=pytest.mark.slow),
]


def block_of(kernel) -> ko.Block:
    variances = jnp.diagonal(kernel)
    return ko.Block(variances[TRAIN], variances[TEST], kernel[TRAIN, TEST])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_block_is_a_part_of_the_whole(activation):
    net = resnet(activation, 3, 1.5, 0.1, rho=0.4)
    kernel = net.read_in(X)
    block = block_of(kernel)
    whole, part = (ko.propagate(net, k, layers=[0, 3]) for k in (kernel, block))
    assert relative_error(part.mean_kernel, whole.mean_kernel[:, TRAIN, TEST]) < 1e-14
    assert jnp.all(part.quadrature_error <= 2 * jnp.max(whole.quadrature_error))
    whole, part = (ko.response(net, k) for k in (kernel, block))
    assert relative_error(part.diagonal, whole.diagonal[TRAIN]) < 1e-13
    assert relative_error(part.off_diagonal, whole.off_diagonal[TRAIN, TEST]) < 1e-13
    assert relative_error(part.mixed, whole.mixed[TRAIN, TEST]) < 1e-13


def test_flows_and_layers_of_a_block():
    net = resnet(ko.Erf(), 3, 1.5, 0.1, rho=0.4)
    kernel = net.read_in(X)
    block = block_of(kernel)
    whole, part = (ko.solve(net, k, [0.2, 0.5]).mean_kernel for k in (kernel, block))
    assert relative_error(part, whole[:, TRAIN, TEST]) < 1e-9
    whole, part = (ko.layer_response(net, k).eta.off_diagonal for k in (kernel, block))
    assert relative_error(part, whole[:, TRAIN, TEST]) < 1e-13
    flow, responses = ko.response_flow(net, block, [0.2, 0.5])
    assert flow.mean_kernel.shape == (2, 4, 3)
    whole = ko.response_flow(net, kernel, [0.2, 0.5])[1].output
    assert relative_error(responses.output.off_diagonal, whole.off_diagonal[:, TRAIN, TEST]) < 1e-8


def test_derivatives_and_transforms_of_a_block():
    net = resnet(ko.Erf(), 3, 1.5, 0.1)
    kernel = net.read_in(X)
    last = lambda rho, k: ko.propagate(resnet(ko.Erf(), 3, 1.5, 0.1, rho=rho), k, layers=[3]).mean_kernel[
        0
    ]
    part = jax.jit(jax.jacfwd(last))(0.4, block_of(kernel))
    assert relative_error(part, jax.jacfwd(last)(0.4, kernel)[TRAIN, TEST]) < 1e-12
    many = jax.vmap(last, in_axes=(0, None))(jnp.array([0.2, 0.4]), block_of(kernel))
    assert relative_error(many[1], last(0.4, block_of(kernel))) < 1e-13


def test_a_row_against_itself_is_a_covariance_of_its_own():
    """The same input in a row and a column: its own variance, at correlation one."""
    net = resnet(ko.Tanh(), 3, 1.5, 0.1)
    kernel = net.read_in(X)
    variances = jnp.diagonal(kernel)
    part = ko.propagate(net, ko.Block(variances, variances, kernel), layers=[3]).mean_kernel
    assert relative_error(part, ko.propagate(net, kernel, layers=[3]).mean_kernel) < 1e-14


def test_refusals():
    net = resnet(ko.Erf(), 2)
    kernel = net.read_in(X)
    block = block_of(kernel)
    for closure in (ko.WickTower(4), ko.GOnly()):
        with pytest.raises(TypeError, match="`kernel` must be a square matrix for"):
            ko.propagate(net, block, closure=closure)
    # (The tests check types as well, and say so first.)
    with pytest.raises(TypeError, match="`kernel` must be a square matrix|parameter 'kernel'"):
        ko.solve_pairs(net, cast(Any, block), 1.0)
    with pytest.raises(TypeError, match="square matrix here|parameter 'kernel'"):
        ko.optimal_residual_scale(net, cast(Any, block))
    for wrong in (
        ko.Block(block.row, block.column, 9 * block.cross),
        ko.Block(-block.row, block.column, block.cross),
        ko.Block(block.row, 0 * block.column, block.cross),
        ko.Block(block.row, block.column, block.cross * jnp.nan),
    ):
        with pytest.raises(ValueError, match="is not a covariance"):
            ko.propagate(net, wrong)
        with pytest.raises(Exception, match="is not a covariance"):
            jax.block_until_ready(jax.jit(lambda k: ko.propagate(net, k).mean_kernel)(wrong))
    with jax.numpy_rank_promotion("allow"), pytest.raises((ValueError, TypeError)):
        ko.propagate(net, ko.Block(np.ones(3), np.ones(2), np.ones((3, 2), np.float32)))  # pyright: ignore
    with pytest.raises(ValueError, match="10,000,000 by 10,000,000 inputs"):
        many = jax.ShapeDtypeStruct((10_000_000,), jnp.float64)
        table = jax.ShapeDtypeStruct((10_000_000, 10_000_000), jnp.float64)
        jax.eval_shape(lambda *k: ko.propagate(net, ko.Block(*k)).mean_kernel, many, many, table)
