"""Moments of derivatives from a closed form of E[sigma sigma], by Price's theorem."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def mixed_derivative(
    moment: Callable[[Array, Array, Array], Array],
    i: int,
    j: int,
    a: Float[Array, "*a"],
    b: Float[Array, "*b"],
    c: Float[Array, "*c"],
) -> Float[Array, "*c"]:
    """E[sigma^(i)(x) sigma^(j)(y)], i + j even, from `moment`, E[sigma sigma] as a function of Var x,
    Var y and Cov(x, y): (d/da)^p (d/dc)^r (d/db)^s E[sigma sigma] = E[sigma^(2p+r) sigma^(r+2s)] /
    2^(p+s)."""
    shared = i % 2
    for argument, times in ((0, (i - shared) // 2), (1, (j - shared) // 2), (2, shared)):
        for _ in range(times):
            moment = directional(moment, argument)
    return 2.0 ** ((i + j) // 2 - shared) * moment(a, b, c)


def directional(function: Callable[..., Array], argument: int) -> Callable[..., Array]:
    """The derivative of an elementwise function with respect to one of its arguments."""

    def derivative(*args):
        alone = lambda x: function(*args[:argument], x, *args[argument + 1 :])
        return jax.jvp(alone, (args[argument],), (jnp.ones_like(args[argument]),))[1]

    return derivative
