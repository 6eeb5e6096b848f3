"""A stranger's activation, closure and architecture, by public names alone, keep every law."""

import ast
import pathlib

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import kernelode as ko

from . import laws
from .helpers import AbstractOwnNetwork, number


class Mish(ko.AbstractSmoothActivation):
    """sigma(x) = x tanh(softplus(x)) (Misra, arXiv:1908.08681)."""

    def __call__(self, x):
        return x * jnp.tanh(jax.nn.softplus(x))


class Depth(eqx.Module):
    """A kernel, and how much of it blocks have added."""

    kernel: ko.Block
    added: jax.Array


class Ledger(ko.AbstractClosure):
    """The mean kernel, and the trace of everything that blocks added to it."""

    def init(self, network, kernel):
        variances = jnp.diagonal(kernel)
        return Depth(ko.Block(variances, variances, kernel), jnp.zeros((), kernel.dtype))

    def rate(self, network, state, layer):
        drift = network.drift(state.kernel, layer)
        return Depth(drift, jnp.sum(drift.row))

    def push(self, network, state, layer):
        drift = network.drift(state.kernel, layer)
        added = state.added + layer.scale**2 * jnp.sum(drift.row)
        return Depth(network.layer(state.kernel, layer), added)

    def mean_kernel(self, state):
        return state.kernel.cross


class Alternating(ko.AbstractLayered, AbstractOwnNetwork):
    """Plain layers whose scales alternate, rho and rho / 2."""

    residual_scale: jax.Array = number(0.5)
    weight_variance: jax.Array = number(1.2)
    bias_variance: jax.Array = number(0.1)
    layers_per_block: int = eqx.field(static=True, default=1)

    def layers(self):
        one = jnp.ones(self.depth)
        affine = ko.Affine(self.weight_variance * one, self.bias_variance * one)
        scale = jnp.where(jnp.arange(self.depth) % 2 == 0, self.residual_scale, self.residual_scale / 2)
        return ko.Layer(scale, self.skip_scale * one, one, affine)


NETWORK = Alternating(Mish(), 3)


def test_activation():
    laws.check_expectations(Mish())


@pytest.mark.slow
def test_derivatives_of_the_activation():
    laws.check_derivatives(Mish())
    laws.check_edges(Mish())


def test_closure():
    laws.check_closure(Ledger(), ko.ResNet(ko.Erf(), 2, residual_scale=0.5))
    found = ko.propagate(NETWORK, laws.KERNEL, closure=Ledger())
    grown = jnp.trace(found.mean_kernel[-1]) - jnp.trace(laws.KERNEL)
    assert jnp.allclose(found.state.added[-1], grown, rtol=1e-12)
    flow = ko.solve(ko.ResNet(ko.Erf(), 1), laws.KERNEL, 1.0, closure=Ledger())
    grown = jnp.trace(flow.mean_kernel[-1]) - jnp.trace(laws.KERNEL)
    assert jnp.allclose(flow.state.added[-1], grown, rtol=1e-7)


def test_architecture():
    laws.check_mean_kernel(NETWORK)
    laws.check_response(Alternating(ko.Erf(), 3))


@pytest.mark.slow
def test_everything_together():
    laws.check_closure(ko.WickTower(6), Alternating(Mish(), 2))
    laws.check_moments(ko.WickTower(6), NETWORK)
    laws.check_ensemble(NETWORK)
    found = ko.optimal_residual_scale(ko.ResNet(Mish(), 3, residual_scale=0.5), laws.KERNEL)
    assert not jnp.any(found.diagonal.status == ko.STATUS.failed)


def test_nothing_private_is_imported():
    for name in (__file__, laws.__file__):
        for node in ast.walk(ast.parse(pathlib.Path(name).read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert not (node.module or "").startswith("kernelode")
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert node.value.id != "ko" or not node.attr.startswith("_")
