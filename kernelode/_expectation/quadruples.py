"""E[sigma_a sigma_b sigma_c sigma_d] of three and four different inputs.

Given one input, or two, the remaining two are a Gaussian pair with means on the nodes of a grid. Its
expectation is Mehler's series in what is left of their correlation, and its remainder is replaced by the
value at correlation +-1, where one integral gives it.

What is left of a singular kernel is zero, and has no derivative. The moments have (Price's theorem):

    d E[f_0 f_1 f_2 f_3] = 1/2 sum_ij E[.. f_i' .. f_j' ..] dK_ij,   f_i'' for i = j.
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from .._activation.base import AbstractActivation, derivatives
from .._numerics.safe import safe_divide, safe_root
from .hermite import hermite_functions

#: sigma^(k) of each of the inputs, of arrays of any shape.
Factors: TypeAlias = list[Callable[[Array], Array]]
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
    # Parameters are differentiated too, those of modules and those that functions close over.
    pointwise, constants = jax.closure_convert(lambda x: activation(x), jnp.zeros((), kernel.dtype))
    values = []
    for inputs in found:
        if len(inputs):
            blocks = kernel[inputs[:, :, None], inputs[:, None, :]]
            values.append(jax.lax.map(lambda block: _moment(_NONE, pointwise, constants, block), blocks))
    return jnp.concatenate(values) if values else jnp.zeros((0,), kernel.dtype)


#: Derivatives of each of the four factors.
_NONE = (0, 0, 0, 0)


@eqx.filter_custom_jvp
def _moment(
    orders: tuple[int, ...],
    pointwise: Callable[..., Array],
    constants: list[Array],
    kernel: Float[Array, "m m"],
) -> Float[Array, ""]:
    """E[prod_i sigma^(orders_i)(phi_i)] of four inputs, or of three with the first one twice; sigma is
    `pointwise(x, *constants)`."""
    return _integral(orders, pointwise, constants, kernel)


@_moment.def_jvp
def _(
    primals: tuple[tuple[int, ...], Callable[..., Array], list[Array], Array],
    tangents: tuple[Any, Any, list[Array | None], Array | None],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    orders, pointwise, constants, kernel = primals
    *_, constants_dot, kernel_dot = tangents
    tangent = jnp.zeros((), kernel.dtype)
    if kernel_dot is not None:
        slots = range(4) if kernel.shape[0] == 4 else (0, 0, 1, 2)
        for (i, a), (j, b) in itertools.combinations_with_replacement(enumerate(slots), 2):
            raised = tuple(order + (k == i) + (k == j) for k, order in enumerate(orders))
            moved = kernel_dot[a, a] / 2 if i == j else (kernel_dot[a, b] + kernel_dot[b, a]) / 2
            tangent = tangent + _moment(raised, pointwise, constants, kernel) * moved
    if any(leaf is not None for leaf in jax.tree.leaves(constants_dot)):
        by_constants = lambda constants: _integral(orders, pointwise, constants, kernel)
        tangent = tangent + eqx.filter_jvp(by_constants, (constants,), (constants_dot,))[1]
    return _moment(orders, pointwise, constants, kernel), tangent


def _integral(
    orders: tuple[int, ...],
    pointwise: Callable[..., Array],
    constants: list[Array],
    kernel: Float[Array, "m m"],
) -> Float[Array, ""]:
    one = lambda x: pointwise(x, *constants)
    sigma = lambda x: jax.vmap(one)(x.reshape(-1)).reshape(x.shape)
    factors = [lambda x, n=n: derivatives(sigma, x, n)[n] for n in orders]
    return (_triple if kernel.shape[0] == 3 else _four)(factors, kernel)


def _triple(factors: Factors, kernel: Float[Array, "3 3"]) -> Float[Array, ""]:
    # Nodes 0.15 apart: poles of tanh at variance 20 contribute 4e-7.
    z, weights, basis = _rule(0.15, kernel.dtype)
    scale = safe_root(kernel[0, 0])
    slopes = kernel[0, 1:] * safe_divide(1, scale)
    within = _conditional(factors[2:], kernel[1:, 1:], slopes[:, None], z[:, None], z, weights, basis)
    return jnp.sum(weights * factors[0](scale * z) * factors[1](scale * z) * within)


def _four(factors: Factors, kernel: Float[Array, "4 4"]) -> Float[Array, ""]:
    # 0.3 apart: 7e-8 at variance 4, 6e-4 of the noise at variance 20.
    z, weights, basis = _rule(0.3, kernel.dtype)
    scale = safe_root(kernel[0, 0])
    along = kernel[0, 1] * safe_divide(1, scale)
    across = safe_root(kernel[1, 1] - along**2)
    first = kernel[0, 2:] * safe_divide(1, scale)
    second = (kernel[1, 2:] - along * first) * safe_divide(1, across)
    u, v = (x.ravel() for x in jnp.meshgrid(z, z, indexing="ij"))
    slopes, grid = jnp.stack([first, second], axis=1), jnp.stack([u, v], axis=1)
    within = _conditional(factors[2:], kernel[2:, 2:], slopes, grid, z, weights, basis)
    both = factors[0](scale * u) * factors[1](along * u + across * v)
    return jnp.sum((weights[:, None] * weights[None, :]).ravel() * both * within)


def _conditional(
    factors: Factors,
    kernel: Float[Array, "2 2"],
    slopes: Float[Array, "2 k"],
    grid: Float[Array, "node k"],
    z: Float[Array, " point"],
    weights: Float[Array, " point"],
    basis: Float[Array, "point term"],
) -> Float[Array, " node"]:
    """E[f g] of the last two given orthonormal variables on a grid, which they follow with `slopes`."""
    left = kernel - slopes @ slopes.T
    scales = safe_root(jnp.diagonal(left))
    corr = jnp.clip(left[0, 1] * safe_divide(1, scales[0]) * safe_divide(1, scales[1]), -1, 1)
    means = slopes @ grid.T
    x, y = (f(m[:, None] + s * z[None, :]) for f, m, s in zip(factors, means, scales))
    of_x, of_y = (f @ (weights[:, None] * basis) for f in (x, y))
    parallel = jnp.where(corr < 0, x * y[:, ::-1], x * y) @ weights
    m = np.arange(basis.shape[1])
    sign = jnp.where(corr < 0, jnp.asarray((-1.0) ** m, z.dtype), 1)
    size = jnp.cumprod(jnp.concatenate([jnp.ones_like(z[:1]), jnp.full((len(m),), jnp.abs(corr))]))
    terms = of_x * of_y * sign[None, :]
    return terms @ size[:-1] + size[-1] * (parallel - jnp.sum(terms, axis=1))


def _rule(spacing: float, dtype: DTypeLike) -> tuple[Array, ...]:
    """Nodes and weights of a normal average up to 7.5 deviations, and Hermite polynomials there."""
    count = round(7.5 / spacing)
    z = spacing * np.arange(-count, count + 1)
    weights = spacing * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    basis = hermite_functions(z, _TERMS) * np.exp(z**2 / 4)
    return tuple(jnp.asarray(x, dtype) for x in (z, weights, basis.T))
