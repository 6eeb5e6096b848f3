"""Expectations of products of sigma and its derivatives at one input: E[sigma^(i)(x) sigma^(j)(x) ...].

With g the product and x ~ N(0, q), dE[g]/dq = E[g'']/2 (the heat equation), and g'' is a sum of products
of the same kind.
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._activation.base import (
    AbstractActivation,
    AbstractHomogeneousActivation,
    AbstractKinkedActivation,
    AbstractSmoothActivation,
    derivatives,
)
from .._support.trees import as_constant
from .adapted import adapted_average, concentration, fixed_average
from .kinked import kinked_steps
from .moments import Estimate
from .primitive import with_derivative

#: sigma^(i) sigma^(j) ..., by the numbers i, j, ...: in increasing order, so that equal ones are one.
Factors = tuple[int, ...]


def single_moments(activation: AbstractActivation, q: Float[Array, " n"], factors: Factors) -> Estimate:
    """E[product of sigma^(k)(x) over k in `factors`], x ~ N(0, q), with error estimates."""
    return jax.tree.map(lambda x: x[0], joint_moments(activation, q, (factors,)))


def joint_moments(
    activation: AbstractActivation, q: Float[Array, " n"], products: tuple[Factors, ...]
) -> Estimate:
    """Those of several products, on the same nodes. (products, n)."""
    products = tuple(tuple(sorted(factors)) for factors in products)
    constants = as_constant(activation), jax.lax.stop_gradient(q)
    stacked = lambda function, *args, **options: jnp.stack(
        [function(factors, *args, **options) for factors in products]
    )
    if isinstance(activation, AbstractHomogeneousActivation):
        value = stacked(_homogeneous, activation, q)
        return Estimate(value, 64 * jnp.finfo(q.dtype).eps * jnp.abs(value))
    if isinstance(activation, AbstractKinkedActivation):
        value = stacked(_kinked, activation, q, finer=True)
        change = jnp.abs(stacked(_kinked, *constants) - jax.lax.stop_gradient(value))
        size = stacked(_kinked, *constants, size=True)
        return Estimate(value, 4 * change + 64 * jnp.finfo(q.dtype).eps * size)
    value, error = _moments(products, activation, q), _adapted(products, *constants)[1]
    # The weights of the rule round together.
    return Estimate(value, error + 64 * jnp.finfo(q.dtype).eps * jnp.abs(jax.lax.stop_gradient(value)))


def _product(
    factors: Factors, activation: AbstractActivation, x: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    return _products((factors,), activation, x)[0]


def _products(
    products: tuple[Factors, ...], activation: AbstractActivation, x: Float[Array, "*shape"]
) -> list[Float[Array, "*shape"]]:
    towers = derivatives(activation, x, max(map(max, products)))
    return [math.prod((towers[k] for k in f[1:]), start=towers[f[0]]) for f in products]


@eqx.filter_jit
def _moments(
    products: tuple[Factors, ...], activation: AbstractActivation, q: Float[Array, " n"]
) -> Float[Array, "products n"]:
    return _bind(products, activation, q)


def _value(
    products: tuple[Factors, ...], activation: AbstractActivation, q: Float[Array, " n"]
) -> Float[Array, "products n"]:
    return _adapted(products, activation, q)[0]


def _derivative(
    primals: tuple[tuple[Factors, ...], AbstractActivation, Array],
    tangents: tuple[Any, Any, Array | None],
) -> tuple[Float[Array, "products n"], Float[Array, "products n"]]:
    products, activation, q = primals
    _, activation_dot, q_dot = tangents
    value = _moments(products, activation, q)
    tangent = jnp.zeros_like(value)
    if q_dot is not None:
        counts = [_second_derivative(factors) for factors in products]
        others = tuple(dict.fromkeys(other for count in counts for other in count))
        halves = jnp.asarray([[count.get(other, 0) / 2 for other in others] for count in counts], q.dtype)
        terms = halves[:, :, None] * _moments(others, activation, q)[None]
        # Those of another product may be infinite.
        terms = jnp.where(halves[:, :, None] > 0, terms, 0)
        tangent = tangent + jnp.sum(terms, axis=1) * q_dot[None]
    if any(leaf is not None for leaf in jax.tree.leaves(activation_dot)):
        c = _concentration(as_constant(activation), q)
        fixed = lambda activation: fixed_average(lambda z: _at(products, activation, q, z), c)
        tangent = tangent + eqx.filter_jvp(fixed, (activation,), (activation_dot,))[1]
    return value, tangent


_bind = with_derivative("single_moments", _value, _derivative)


def _second_derivative(factors: Factors) -> dict[Factors, int]:
    """(product)'' as a sum of products, and how often each occurs."""
    once: dict[Factors, int] = {factors: 1}
    for _ in range(2):
        found: dict[Factors, int] = {}
        for product, count in once.items():
            for k in range(len(product)):
                raised = tuple(sorted((*product[:k], product[k] + 1, *product[k + 1 :])))
                found[raised] = found.get(raised, 0) + count
        once = found
    return once


def _at(
    products: tuple[Factors, ...],
    activation: AbstractActivation,
    q: Float[Array, " n"],
    z: Float[Array, "node n"],
) -> list[Float[Array, "node n"]]:
    return _products(products, activation, jnp.sqrt(q)[None, :] * z)


def _adapted(
    products: tuple[Factors, ...], activation: AbstractActivation, q: Float[Array, " n"]
) -> tuple[Float[Array, "products n"], Float[Array, "products n"]]:
    return adapted_average(lambda z: _at(products, activation, q, z), _concentration(activation, q))


def _concentration(activation: AbstractActivation, q: Float[Array, " n"]) -> Float[Array, " n"]:
    if isinstance(activation, AbstractSmoothActivation):
        return concentration(activation, q)
    # Closed forms are of functions whose features are of order one, next to the origin.
    return jnp.minimum(0.1, 0.25 / jnp.sqrt(jnp.maximum(q, 1)))


def _homogeneous(
    factors: Factors, activation: AbstractHomogeneousActivation, q: Float[Array, " n"]
) -> Float[Array, " n"]:
    """E over both half lines, E|x|^m = (2 q)^(m/2) Gamma((m + 1)/2) / sqrt(pi)."""
    _refuse_jumps(factors)
    negative, positive = activation.slopes
    m, count = factors.count(0), len(factors)
    both = (positive**count + (-1) ** m * negative**count) / 2
    size = 2 ** (m / 2) * math.gamma((m + 1) / 2) / math.sqrt(math.pi)
    # A power with an integer exponent where it is one: its derivative is finite at zero.
    power = q ** (m // 2) if m % 2 == 0 else q ** (m / 2)
    return both.astype(q.dtype) * size * power


def _kinked(
    factors: Factors,
    activation: AbstractKinkedActivation,
    q: Float[Array, " n"],
    *,
    finer: bool = False,
    size: bool = False,
) -> Float[Array, " n"]:
    """On panels between the kinks, whose ends move with the variance: so do derivatives."""
    _refuse_jumps(factors)
    root = jnp.sqrt(jnp.where(q > 0, q, 1))
    z, steps = kinked_steps(activation.kinks, root[:, None], 12.0, finer=finer)
    values = _product(factors, activation, root[:, None] * z)
    values = jnp.abs(values) if size else values
    at_zero = _product(factors, activation, jnp.zeros_like(q))
    return jnp.where(q > 0, jnp.sum(values * steps * jnp.exp(-(z**2) / 2), axis=1), at_zero)


def _refuse_jumps(factors: Factors) -> None:
    if max(factors) > 1:
        raise ValueError(
            "The second derivative of an activation with kinks is no function: products may contain "
            f"sigma and sigma' only, got derivatives {factors}."
        )
