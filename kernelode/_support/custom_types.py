"""Types of public arguments that are checked by hand: a wrong one gets a sentence of its own."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from jaxtyping import Array, ArrayLike

#: What `jnp.asarray` makes a real array of; the docstrings give the shapes.
RealLike: TypeAlias = ArrayLike | Sequence[Any]

#: A key such as `jax.random.key(0)`. Type checkers know it as an array, as JAX does.
if TYPE_CHECKING:
    KeyLike: TypeAlias = Array
else:
    KeyLike: TypeAlias = Any
