"""Types of public arguments that are checked by hand: a wrong one gets a sentence of its own."""

from collections.abc import Sequence
from typing import TypeAlias

from jaxtyping import ArrayLike

#: What `jnp.asarray` makes a real array of; the docstrings give the shapes.
RealLike: TypeAlias = ArrayLike | Sequence
