"""A function over many elements with bounded memory."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def map_in_chunks(function: Callable[[Any], Any], inputs: Any, size: int) -> Any:
    """`function` over the leading axis, vectorised in chunks: bounded memory, compiled once.

    The last chunk is padded with copies of the last element (`jax.lax.map` with a batch size would
    compile the remainder a second time).
    """
    count = jax.tree.leaves(inputs)[0].shape[0]
    chunks = -(-count // size)
    size = -(-count // chunks)
    index = jnp.minimum(jnp.arange(chunks * size), count - 1).reshape(chunks, size)
    chunked = jax.tree.map(lambda x: x[index], inputs)
    mapped = jax.lax.map(jax.vmap(function), chunked)
    return jax.tree.map(lambda x: x.reshape(chunks * size, *x.shape[2:])[:count], mapped)
