"""The quantities of `kernelode sweep`: means over the inputs and pairs of a data set."""

import enum
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

import kernelode as ko
from kernelode._kernel import input_pairs


class Quantity(enum.StrEnum):
    """Quantities by their names on the command line."""

    response = "response"
    kernel = "kernel"
    rho = "rho"

    @property
    def label(self) -> str:
        """For the axis of a figure."""
        return _LABELS[self]


class Means(eqx.Module):
    """From a network to the means of a quantity over the inputs, and over the pairs of inputs."""

    quantity: Quantity
    kernel: Float[Array, "n n"]

    def __call__(self, network: ko.ResNet) -> dict[str, Any]:
        return _FUNCTIONS[self.quantity](network, self.kernel)


def _response(network: ko.ResNet, kernel) -> dict[str, Any]:
    chi = ko.response(network, kernel)
    return _means(chi.diagonal, chi.off_diagonal[input_pairs(len(kernel))])


def _kernel(network: ko.ResNet, kernel) -> dict[str, Any]:
    # A kernel that overflows is no number, and is reported as such.
    last = ko.propagate(network, kernel, layers=[network.depth], throw=False).mean_kernel[-1]
    return _means(jnp.diagonal(last), last[input_pairs(len(kernel))])


def _rho(network: ko.ResNet, kernel) -> dict[str, Any]:
    best = ko.optimal_residual_scale(network, kernel)
    found = {}
    for name, estimate in (("diagonal", best.diagonal), ("off_diagonal", best.off_diagonal)):
        mean, _, share, _ = estimate.summary()
        # Only where there is an optimum is its value a number.
        found[name] = jnp.where(share > 0, mean, jnp.nan)
        found[f"{name}_interior"] = share
    return found


def _means(diagonal, off_diagonal) -> dict[str, Any]:
    return {"diagonal": jnp.mean(diagonal), "off_diagonal": jnp.mean(off_diagonal)}


_FUNCTIONS = {Quantity.response: _response, Quantity.kernel: _kernel, Quantity.rho: _rho}
_LABELS = {
    Quantity.response: r"output response $\chi_\mathrm{out}$",
    Quantity.kernel: r"kernel of the last layer, $K^L$",
    Quantity.rho: r"optimal residual scale $\rho^*$",
}
