"""Damped Hermite functions h_m(z) exp(-z^2/4), h_m = He_m / sqrt(m!) orthonormal, by their recursion.

    h_{m+1} = (z h_m - sqrt(m) h_{m-1}) / sqrt(m+1),

run on the damped functions, which neither overflow nor lose digits.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def hermite_functions(z: Any, terms: int) -> Any:
    """Those of m < terms, shape (terms, *z.shape); NumPy arrays of NumPy nodes. For many orders on traced
    nodes prefer `scan_hermite`, which compiles to one step."""
    namespace = np if isinstance(z, np.ndarray) else jnp
    functions = [namespace.exp(-(z**2) / 4)]
    before = namespace.zeros_like(functions[0])
    for m in range(terms - 1):
        following = _next(z, before, functions[-1], math.sqrt(m), math.sqrt(m + 1))
        before = functions[-1]
        functions.append(following)
    return namespace.stack(functions)


def scan_hermite(
    z: Float[Array, "*shape"], terms: int, function: Callable[[Array], Array] = lambda h: h
) -> Float[Array, "terms ..."]:
    """The same by a scan; or a `function` of each, stacked."""

    def step(carry: tuple[Array, Array], m: Float[Array, ""]) -> tuple[tuple[Array, Array], Array]:
        before, current = carry
        following = _next(z, before, current, jnp.sqrt(m), jnp.sqrt(m + 1))
        return (current, following), function(current)

    start = (jnp.zeros_like(z), jnp.exp(-(z**2) / 4))
    return jax.lax.scan(step, start, jnp.arange(terms, dtype=z.dtype))[1]


def hermite_polynomial(k: int, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """He_k itself, neither damped nor normalised: for few k."""
    before, current = jnp.zeros_like(x), jnp.ones_like(x)
    for m in range(k):
        before, current = current, x * current - m * before
    return current


def _next(z: Any, before: Any, current: Any, root: Any, next_root: Any) -> Any:
    return (z * current - root * before) / next_root
