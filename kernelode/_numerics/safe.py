"""Quotients and roots that are zero, with zero derivatives, where they are not defined.

Both branches of a `where` are differentiated: the argument is replaced first, or NaN times zero is NaN.
"""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike


def safe_divide(numerator: ArrayLike, denominator: Array) -> Array:
    """numerator / denominator where the denominator is positive, else zero."""
    positive = denominator > 0
    return jnp.where(positive, numerator / jnp.where(positive, denominator, 1), 0)


def safe_root(x: Array) -> Array:
    """sqrt(x) where x is positive, else zero."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), 0)
