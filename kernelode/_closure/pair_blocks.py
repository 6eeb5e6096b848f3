"""Moments of all pairs of inputs as blocks: in both orders, and of each input with itself."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .._kernel import pair_numbers


def over_pairs(
    same: Bool[Array | np.ndarray, "n n"],
    single: Float[Array, "n ..."],
    pair: Float[Array, "pairs ..."],
    leading: int = 0,
) -> Float[Array, "n n ..."]:
    """From those of inputs and of pairs a < b. The axes behind are of elements (aa, ab, bb) or of labels
    (a, b), of size one for inputs; `leading` of them are no such axes. Components of one input alone are
    its own, and so are all of inputs that are the `same`."""
    n, sides = same.shape[0], single.ndim - 1 - leading
    alone = jnp.broadcast_to(single, (n, *pair.shape[1:]))
    if n == 1:
        return alone[:, None]
    block = pair[pair_numbers(n)]
    flipped = jnp.flip(block, axis=tuple(range(2 + leading, block.ndim)))
    a, b = np.indices((n, n))
    over = lambda table: table.reshape(n, n, *[1] * (pair.ndim - 1))
    block = jnp.where(over(a > b), flipped, block)
    first, last = ((..., *[end] * sides) for end in (0, -1))
    block = block.at[first].set(alone[first][a]).at[last].set(alone[first][b])
    return jnp.where(over(same), alone[a], block)
