"""Trees of arrays: their precision, and what of them is differentiated."""

import equinox as eqx
import jax
import jax.numpy as jnp


def cast(tree, dtype):
    """The floating-point arrays of `tree` in `dtype`: a calculation has the kernel's precision."""
    floating = lambda x: eqx.is_array(x) and jnp.issubdtype(x.dtype, jnp.floating)
    return jax.tree.map(lambda x: x.astype(dtype) if floating(x) else x, tree)


def as_constant(tree):
    """`tree` as a constant to differentiation; a leaf may be a function, as of a user's activation."""
    arrays, rest = eqx.partition(tree, eqx.is_inexact_array)
    return eqx.combine(jax.lax.stop_gradient(arrays), rest)
