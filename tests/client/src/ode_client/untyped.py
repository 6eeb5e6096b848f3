"""What JAX, Equinox, optax and optimistix leave without types, with types: kernelode needs none of this.

pyright's rules on unknown types are switched off in this file alone. JAX's `Device` is unknown to type
checkers, and with it every function that takes one; Equinox does not annotate `tree_at`, optax has no
types at all, and a parameter of optimistix's `BFGS` is left open.
"""
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeStubs=false

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import optimistix
from jaxtyping import Array, Float

Tree = TypeVar("Tree")


def array(numbers: float | Sequence[float] | Sequence[Sequence[float]]) -> Float[Array, "..."]:
    return jnp.asarray(numbers)


def diagonal(matrix: Float[Array, "n n"]) -> Float[Array, " n"]:
    return jnp.diagonal(matrix)


def with_leaf(tree: Tree, where: Callable[[Tree], Any], leaf: Float[Array, "..."]) -> Tree:
    return eqx.tree_at(where, tree, leaf)


def gradient(fn: Callable[[Array], Array]) -> Callable[[Array], Array]:
    return jax.grad(fn)


def adam(rate: float) -> Any:
    return optax.adam(rate)


def bfgs(tolerance: float) -> optimistix.AbstractMinimiser[Any, Any, Any]:
    return optimistix.BFGS(rtol=tolerance, atol=tolerance)
