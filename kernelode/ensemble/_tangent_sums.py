"""Statistics of tangent kernels: sums over a batch, and unbiased estimates from them.

H_ij is the tangent kernel of outputs i and j of a network, z_i its outputs without their biases (which
have mean zero and no part in what is estimated), and G the kernel of the outputs given the layers before.
"""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._elements import Elements

Means = Mapping[str, np.ndarray]

#: What is summed, by name, with the shape of it for a pair of inputs.
PARTS = {
    "ntk": (),
    "ntk_own": (),
    "ntk_g": (),
    "ntk_means": (3, 3),
    "ntk_others": (3, 3),
    "ntk_mixed": (3, 3),
    "ntk_cross": (2, 2, 2, 2),
    "ntk_exchange": (2, 2, 2, 2),
}


def tangent_sums(
    elements: Elements,
    h: Float[Array, "output output inputs inputs batch"],
    z: Float[Array, "output inputs batch"],
    kernel: Float[Array, "element batch"],
    limit: Float[Array, " element"],
) -> dict[str, Array]:
    """Sums over a batch at one layer, for every pair of inputs a <= b; in terms of the deviations H' of
    H_ii from Theta and G' of G from K0, and of averages over the outputs, <>:

    - `ntk`, `ntk_own`, `ntk_g`: <H'>, <H'_i^2>, G'.
    - `ntk_means`, `ntk_others`: of two elements, <H'><H'> and <H'_i H'_j>, i != j.
    - `ntk_mixed`: G' <H'>.
    - `ntk_cross`, `ntk_exchange`: <z_i,c z_j,d H_ij,ab> and <H_ij,pq H_ij,rs>, i != j, with the indices
        of `TangentMoments`.
    """
    count = h.shape[0]
    diagonal = jnp.einsum("iiabs->iabs", h)[:, elements.first, elements.second]
    diagonal = diagonal - limit[None, :, None]
    mean = jnp.mean(diagonal, axis=0)
    three = mean[elements.triple]
    means = jnp.einsum("eus,evs->euv", three, three)
    each = diagonal[:, elements.triple]
    others = (count * means - jnp.einsum("ieus,ievs->euv", each, each) / count) / (count - 1)
    pairs = np.stack([elements.first, elements.second], axis=-1)
    # One factor with the weights of a mean over i != j.
    weights = (1 - jnp.eye(count, dtype=h.dtype)) / (count * (count - 1))
    of_pairs = h[:, :, pairs[:, :, None], pairs[:, None, :]]
    weighted = weights[:, :, None, None, None, None] * of_pairs
    ends = z[:, pairs]
    return {
        "ntk": jnp.sum(mean, axis=-1),
        "ntk_own": jnp.sum(jnp.mean(diagonal**2, axis=0), axis=-1),
        "ntk_g": jnp.sum(kernel, axis=-1),
        "ntk_means": means,
        "ntk_others": others,
        "ntk_mixed": jnp.einsum("eus,evs->euv", kernel[elements.triple], three),
        "ntk_cross": jnp.einsum("iecs,jeds,ijeabs->ecadb", ends, ends, weighted),
        "ntk_exchange": jnp.einsum("ijepqx,ijersx->eprqs", weighted, of_pairs),
    }


def covariance(means: Means, count: np.ndarray, triple: np.ndarray) -> np.ndarray:
    """Cov(H_ii, H_jj), i != j, of the elements of every pair."""
    return means["ntk_others"] - _squares(means, count, triple)


def variance(means: Means, count: np.ndarray, triple: np.ndarray) -> np.ndarray:
    """Var(H_ii,ab)."""
    return means["ntk_own"] - _squares(means, count, triple)[..., 1, 1]


def mixed(means: Means, count: np.ndarray, triple: np.ndarray) -> np.ndarray:
    """Cov(G, H_ii) of the elements of every pair."""
    product = _product(means["ntk_g"], means["ntk"], triple)
    return _number(count) / (_number(count) - 1) * (means["ntk_mixed"] - product)


def _squares(means: Means, count: np.ndarray, triple: np.ndarray) -> np.ndarray:
    """E[H'] E[H'], from different networks: without the products of a network with itself."""
    product = _product(means["ntk"], means["ntk"], triple)
    return (_number(count) * product - means["ntk_means"]) / (_number(count) - 1)


def _product(first: np.ndarray, second: np.ndarray, triple: np.ndarray) -> np.ndarray:
    return first[..., triple][..., :, None] * second[..., triple][..., None, :]


def _number(count: np.ndarray) -> np.ndarray:
    return count[:, None, None, None, None]
