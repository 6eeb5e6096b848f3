"""Python-level checks of arguments: what is concrete is refused here, before anything is traced."""

from collections.abc import Iterable, Sequence

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


def is_concrete(x) -> bool:
    """Whether `x` is a number that exists now, rather than a value inside a JAX transformation."""
    return not isinstance(x, jax.core.Tracer)


def as_real_array(name: str, value) -> Array:
    """`value` as a floating-point array. Python numbers stay weakly typed, so dtype follows data."""
    if isinstance(value, jax.Array) and np.issubdtype(value.dtype, np.floating):
        return value
    try:
        array = jnp.asarray(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"`{name}` must be a real number or array, got {value!r}.") from error
    if jnp.issubdtype(array.dtype, jnp.integer) or array.dtype == jnp.bool_:
        array = jnp.asarray(value, jnp.result_type(float))
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"`{name}` must be real, got dtype {array.dtype}.")
    return array


def scalar(name: str, value, *, positive: bool = False, non_negative: bool = False) -> Array:
    """`value` as a real scalar array; a concrete one also has to be finite and of the right sign."""
    array = as_real_array(name, value)
    if array.ndim != 0:
        raise ValueError(f"`{name}` must be a scalar, got an array of shape {array.shape}.")
    return checked_sign(name, array, positive=positive, non_negative=non_negative)


def checked_sign(name: str, array: Array, *, positive: bool = False, non_negative: bool = False) -> Array:
    """`array` itself, if its entries are finite and of the required sign (when concrete)."""
    if is_concrete(array):
        numbers = np.asarray(array)
        if not np.isfinite(numbers).all():
            raise ValueError(f"`{name}` must be finite, got {numbers}.")
        if positive and (numbers <= 0).any():
            raise ValueError(f"`{name}` must be positive, got {numbers}.")
        if non_negative and (numbers < 0).any():
            raise ValueError(f"`{name}` must not be negative, got {numbers}.")
    return array


def positive_integer(name: str, value) -> int:
    """`value` as an int of at least one."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"`{name}` must be an integer, got {value!r}.")
    if value < 1:
        raise ValueError(f"`{name}` must be at least 1, got {value}.")
    return int(value)


def checked_layers(layers: Sequence[int] | None, depth: int, default: Iterable[int]) -> tuple[int, ...]:
    """`layers`, or the `default`, if they are increasing layer numbers of a network of that depth."""
    chosen = tuple(default) if layers is None else tuple(int(layer) for layer in layers)
    increasing = all(before < after for before, after in zip(chosen, chosen[1:]))
    if not chosen or not increasing or chosen[0] < 0 or chosen[-1] > depth:
        raise ValueError(
            f"`layers` must be increasing numbers between 0 and the depth, {depth}; got {layers!r}."
        )
    return chosen
