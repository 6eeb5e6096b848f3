"""E[sigma_a sigma_b sigma_c sigma_d] of three and four different inputs.

Given one input, or two, the remaining two are a Gaussian pair with means on the nodes of a grid. Its
expectation is Mehler's series in what is left of their correlation, and its remainder is replaced by the
value at correlation +-1, where one integral gives it.
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._activation.base import AbstractActivation
from .nodes import hermite_functions

#: Terms of the series in the correlation that is left.
_TERMS = 40


class Quadruples(NamedTuple):
    """Inputs a <= b <= c <= d, three or four of them different: one row each."""

    triples: np.ndarray  # (a, b, c) for a a b c
    fours: np.ndarray


def quadruples(n: int) -> Quadruples:
    triples = [
        (a, b, c) for a in range(n) for b, c in itertools.combinations(range(n), 2) if a not in (b, c)
    ]
    fours = list(itertools.combinations(range(n), 4))
    return Quadruples(np.array(triples, int).reshape(-1, 3), np.array(fours, int).reshape(-1, 4))


def quadruple_moments(
    activation: AbstractActivation, kernel: Float[Array, "n n"], found: Quadruples
) -> Float[Array, " quadruples"]:
    """Of all triples, then of all fours; for analytic activations."""
    one = lambda function: lambda index: function(activation, kernel, index)
    values = []
    if len(found.triples):
        values.append(jax.lax.map(one(_triple), jnp.asarray(found.triples)))
    if len(found.fours):
        values.append(jax.lax.map(one(_four), jnp.asarray(found.fours)))
    return jnp.concatenate(values) if values else jnp.zeros((0,), kernel.dtype)


def _triple(activation, kernel, index) -> Float[Array, ""]:
    a, b, c = index
    # Nodes 0.15 apart: poles of tanh at variance 20 contribute 4e-7.
    z, weights, basis = _rule(0.15, kernel.dtype)
    scale = _root(kernel[a, a])
    slopes = jnp.stack([kernel[a, b], kernel[a, c]]) * _inverse(scale)
    within = _conditional(activation, kernel, b, c, slopes[:, None], z[:, None], z, weights, basis)
    return jnp.sum(weights * activation(scale * z) ** 2 * within)


def _four(activation, kernel, index) -> Float[Array, ""]:
    a, b, c, d = index
    # 0.3 apart: 7e-8 at variance 4, 6e-4 of the noise at variance 20.
    z, weights, basis = _rule(0.3, kernel.dtype)
    scale = _root(kernel[a, a])
    along = kernel[a, b] * _inverse(scale)
    across = _root(kernel[b, b] - along**2)
    first = jnp.stack([kernel[a, c], kernel[a, d]]) * _inverse(scale)
    second = (jnp.stack([kernel[b, c], kernel[b, d]]) - along * first) * _inverse(across)
    u, v = (x.ravel() for x in jnp.meshgrid(z, z, indexing="ij"))
    slopes, grid = jnp.stack([first, second], axis=1), jnp.stack([u, v], axis=1)
    within = _conditional(activation, kernel, c, d, slopes, grid, z, weights, basis)
    both = activation(scale * u) * activation(along * u + across * v)
    return jnp.sum((weights[:, None] * weights[None, :]).ravel() * both * within)


def _conditional(
    activation, kernel, c, d, slopes: Float[Array, "2 k"], grid: Float[Array, "node k"], z, weights, basis
) -> Float[Array, " node"]:
    """E[sigma_c sigma_d] given orthonormal variables on a grid, which the two follow with `slopes`."""
    left = kernel[jnp.stack([c, d])[:, None], jnp.stack([c, d])[None, :]] - slopes @ slopes.T
    scales = _root(jnp.diagonal(left))
    corr = jnp.clip(left[0, 1] * _inverse(scales[0]) * _inverse(scales[1]), -1, 1)
    means = slopes @ grid.T
    x, y = (activation(m[:, None] + s * z[None, :]) for m, s in zip(means, scales))
    of_x, of_y = (f @ (weights[:, None] * basis) for f in (x, y))
    parallel = jnp.where(corr < 0, x * y[:, ::-1], x * y) @ weights
    m = np.arange(basis.shape[1])
    sign = jnp.where(corr < 0, jnp.asarray((-1.0) ** m, z.dtype), 1)
    size = jnp.cumprod(jnp.concatenate([jnp.ones_like(z[:1]), jnp.full((len(m),), jnp.abs(corr))]))
    terms = of_x * of_y * sign[None, :]
    return terms @ size[:-1] + size[-1] * (parallel - jnp.sum(terms, axis=1))


def _rule(spacing: float, dtype):
    """Nodes and weights of a normal average up to 7.5 deviations, and Hermite polynomials there."""
    count = round(7.5 / spacing)
    z = spacing * np.arange(-count, count + 1)
    weights = spacing * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    basis = hermite_functions(z, _TERMS) * np.exp(z**2 / 4)
    return tuple(jnp.asarray(x, dtype) for x in (z, weights, basis.T))


def _root(x):
    return jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1)), 0)


def _inverse(x):
    return jnp.where(x > 0, 1 / jnp.where(x > 0, x, 1), 0)
