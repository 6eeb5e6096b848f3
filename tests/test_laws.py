"""Laws, of every activation, closure and architecture in the registry."""

import pytest

import kernelode as ko

from . import laws
from .helpers import ACTIVATIONS, ARCHITECTURES, CLOSURES, each

MOMENTS = {name: c for name, c in CLOSURES.items() if isinstance(c, ko.AbstractMomentClosure)}
#: Plain layers, one a block: those whose moments of order 1/n are known.
PLAIN = {
    name: make
    for name, make in ARCHITECTURES.items()
    if isinstance(network := make(ko.Tanh()), ko.AbstractLayered) and network.layers_per_block == 1
}


@pytest.mark.parametrize("name", each(ACTIVATIONS, "tanh", "relu", "hard_tanh"))
def test_expectations(name):
    laws.check_expectations(ACTIVATIONS[name])


@pytest.mark.parametrize("name", each(ACTIVATIONS, "gelu", "leaky"))
def test_derivatives(name):
    laws.check_derivatives(ACTIVATIONS[name])


@pytest.mark.parametrize("name", each(ACTIVATIONS, "swish", "linear"))
def test_edges(name):
    laws.check_edges(ACTIVATIONS[name])


@pytest.mark.parametrize("name", each(ARCHITECTURES, *ARCHITECTURES))
def test_mean_kernel(name):
    laws.check_mean_kernel(ARCHITECTURES[name](ko.Erf()))


@pytest.mark.parametrize("name", each(ARCHITECTURES, "own_field", "varied_mlp"))
def test_response(name):
    laws.check_response(ARCHITECTURES[name](ko.Erf()))


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["tanh", "relu", "square"])
@pytest.mark.parametrize("name", PLAIN)
def test_ensemble(name, activation):
    laws.check_ensemble(PLAIN[name](ACTIVATIONS[activation]))


@pytest.mark.parametrize("activation", each(ACTIVATIONS, "erf"))
@pytest.mark.parametrize("name", each(CLOSURES, "mean", "tangent", "g_only"))
def test_closure(name, activation):
    network = ko.ResNet(
        ACTIVATIONS[activation], 2, residual_scale=0.5, weight_variance=1.3, bias_variance=0.1
    )
    laws.check_closure(CLOSURES[name], network)


@pytest.mark.parametrize("architecture", each(PLAIN, "resnet"))
@pytest.mark.parametrize("name", each(MOMENTS, "g_only_pairs"))
def test_moments(name, architecture):
    network = PLAIN[architecture](ko.Erf())
    fixed = isinstance(getattr(MOMENTS[name], "start", None), ko.FixedGram)
    if fixed and not isinstance(network, ko.AbstractResidualNetwork):
        pytest.skip("a feed-forward network forgets how it starts")
    laws.check_moments(MOMENTS[name], network)
