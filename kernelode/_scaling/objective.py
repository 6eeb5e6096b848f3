"""The logarithm of the output response, as a function of the residual scale.

Perturb one entry of the input kernel and hold the rest. On the diagonal (`Variances`) or in the
covariances of a `Block` the perturbation stays in its entry, so that the response is a product over
layers; its logarithm is a sum, which does not overflow:

    log chi_out = log g_out + sum_l log g_l,   g_l = d K^l / d K^{l-1} in that entry.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._architecture import AbstractResidualNetwork
from .._kernel import AbstractKernel, Kernel, Variances


def gain(function: Callable[..., Any], kernel: Kernel) -> tuple[Kernel, Array]:
    """The image of a kernel, and the derivative of each of its entries by the same entry."""
    image, tangent = jax.jvp(function, (kernel,), (kernel.tangent(),))
    return image, tangent.entries


def flow_drift(network: AbstractResidualNetwork) -> Callable[[Any], Any]:
    """The drift of the network's flow."""
    layer = network.flow_layer()
    return lambda kernel: network.drift(kernel, layer)


def log_read_out(network: AbstractResidualNetwork, kernel: AbstractKernel) -> Array:
    """log |g_out|: log |chi_out| where there are no residual branches."""
    return jnp.log(jnp.abs(gain(network.read_out, kernel)[1]))


def log_response(
    network: AbstractResidualNetwork, kernel: AbstractKernel, scale: Float[Array, ""]
) -> tuple[Array, Array]:
    """log |chi_out| of every perturbed entry at residual scales `scale` x profile, and its sign; for
    skip connections of one."""

    def step(carry, layer):
        kernel, total, sign = carry
        kernel, factor = gain(lambda k: network.layer(k, layer), kernel)
        return (kernel, total + jnp.log(jnp.abs(factor)), sign * jnp.sign(factor)), None

    start = kernel.entries
    carry = (kernel, jnp.zeros_like(start), jnp.ones_like(start))
    layers = eqx.tree_at(lambda x: x.scale, network.layers(), scale * network.scale_profile())
    (last, total, sign), _ = jax.lax.scan(step, carry, layers)
    _, factor = gain(network.read_out, last)
    return total + jnp.log(jnp.abs(factor)), sign * jnp.sign(factor)


def value_and_slope(function: Callable[..., Any]) -> Callable[[Array], Any]:
    """A function of one number and its derivative (of any array, for elementwise functions)."""
    return lambda u: jax.jvp(function, (u,), (jnp.ones_like(u),))


def slope(function: Callable[..., Any]) -> Callable[[Array], Any]:
    """The derivative alone."""
    return lambda u: value_and_slope(function)(u)[1]


def growth_time(network: AbstractResidualNetwork, q: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """A depth t in which a variance of order one doubles: the natural unit of depth."""
    grown = 1 + q
    return jax.lax.stop_gradient(grown / flow_drift(network)(Variances(grown)).values)


def scan_times(network: AbstractResidualNetwork, q: Float[Array, " n"]) -> Float[Array, " times"]:
    """Depths t for a coarse scan of the off-diagonal response, three a decade: its optimum is at a few
    growth times, and moves away as (1 - corr)^(-1/3) for nearly parallel inputs; beyond a thousand
    growth times it is not looked for."""
    return jnp.geomspace(1e-4, 1e3, 22, dtype=q.dtype) * jnp.mean(growth_time(network, q))
