"""Whether a network is made of what the theory and the simulation of finite width know: layers."""

import equinox as eqx
import jax
import jax.numpy as jnp

from .._kernel import Variances
from .base import AbstractArchitecture, affine_moment
from .mlp import MLP
from .resnet import ResNet

_SOME = 0.7  # for every number of a network: which one does not matter


def check_layered(network: AbstractArchitecture, what: str) -> None:
    """**Raises** `ValueError` unless Q is C_W E[sigma sigma] + C_b, `layers_per_block` times over.

    An architecture of a user's may have any `drift`, of which nothing but its values can be known; those
    are compared, for concrete numbers in place of the network's own, which may be traced.
    """
    if isinstance(network, ResNet | MLP):
        return
    with jax.ensure_compile_time_eval():
        number = lambda x: jnp.full(x.shape, _SOME, x.dtype) if eqx.is_inexact_array(x) else x
        like = jax.tree.map(number, network)
        found = expected = Variances(jnp.array([0.3, 1.9]))
        for _ in range(network.layers_per_block):
            expected = affine_moment(like.activation, like.weight_variance, like.bias_variance, expected)
        same = bool(jnp.allclose(like.drift(found).values, expected.values, rtol=1e-4))
    if not same:
        raise ValueError(
            f"{what} are known for blocks of layers W sigma(h) + b only, of one activation, weight and "
            f"bias variance; `drift` of {type(network).__name__} is another function."
        )
