"""Python-level checks of arguments: concrete values are refused here, before anything is traced."""

import operator
from collections.abc import Iterable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

#: What a calculation can be in. Halves of a word lose K1 and every second derivative to rounding.
_DTYPES = (np.dtype("float32"), np.dtype("float64"))


def is_concrete(x) -> bool:
    """Whether `x` is a number that exists now, rather than a value inside a JAX transformation."""
    return not isinstance(x, jax.core.Tracer)


def refuse_where(value: Any, wrong: Any, message: str) -> Any:
    """`value`, unless `wrong`: then a `ValueError`, or an error when it runs if that is traced."""
    if not is_concrete(wrong):
        return eqx.error_if(value, wrong, message)
    if wrong:
        raise ValueError(message)
    return value


def described(value) -> str:
    """A few words that describe a wrong argument."""
    if isinstance(value, type):
        return f"the class {value.__name__} (an instance is needed, `{value.__name__}(...)`)"
    if isinstance(value, jax.Array | np.ndarray) and value.ndim:
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    text = repr(value)
    return text if len(text) <= 60 and "\n" not in text else f"an object of type {type(value).__name__}"


def reason(error: Exception) -> str:
    """The first line of an error's message, as the end of a sentence."""
    lines = str(error).strip().splitlines()
    return f"{lines[0].rstrip('.')}." if lines else f"{type(error).__name__}."


def as_real_array(name: str, value) -> Array:
    """`value` as an array in float32 or float64. Python numbers stay weakly typed, so dtype follows data.

    **Raises** `TypeError`, also where a function is traced, for anything but real numbers and for other
    floating-point numbers: with 8 or 11 bits no expectation is right to three digits.
    """
    if isinstance(value, jax.Array) and value.dtype in _DTYPES:
        return value
    dtype = getattr(value, "dtype", None)
    if value is None or dtype == np.dtype(object):
        what = "dtype object" if value is not None else "None"
        raise TypeError(f"`{name}` must be real numbers, got {what}: float32 or float64 needed.")
    try:
        array = jnp.asarray(value)
        if jnp.issubdtype(array.dtype, jnp.integer) or array.dtype == jnp.bool_:
            array = jnp.asarray(value, jnp.result_type(float))
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"`{name}` must be a real number or array, got {described(value)}.") from error
    if array.dtype not in _DTYPES:
        real = "has" if jnp.issubdtype(array.dtype, jnp.floating) else "must be real, but has"
        raise TypeError(f"`{name}` {real} dtype {array.dtype}: float32 or float64 needed.")
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
    return integer(name, value, least=1)


def integer(name: str, value, *, least: int) -> int:
    """`value` as an int of at least `least`: static, so never a traced or a floating-point number."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"`{name}` must be an integer, got {described(value)}.")
    if value < least:
        raise ValueError(f"`{name}` must be at least {least}, got {value}.")
    return int(value)


def flag(name: str, value) -> bool:
    """`value`, if it is True or False."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"`{name}` must be True or False, got {described(value)}.")
    return bool(value)


def checked_function(name: str, value, example: str):
    """`value`, if it can be called, as in the `example`."""
    if not callable(value):
        raise TypeError(f"`{name}` must be a function such as `{example}`, got {described(value)}.")
    return value


def instance(name: str, value, kind, example: str):
    """`value`, if it is of a `kind` (a class or several), such as the `example`."""
    if not isinstance(value, kind):
        raise TypeError(f"`{name}` must be {example}, got {described(value)}.")
    return value


def checked_layers(layers: Sequence[int] | None, depth: int, default: Iterable[int]) -> tuple[int, ...]:
    """`layers`, or the `default`, if they are increasing layer numbers of a network of that depth."""
    try:
        chosen = tuple(default) if layers is None else tuple(operator.index(x) for x in layers)
    except TypeError as error:
        raise TypeError(
            f"`layers` must be a list of layer numbers such as [0, {depth}], got {described(layers)}."
        ) from error
    increasing = all(before < after for before, after in zip(chosen, chosen[1:]))
    if not chosen or not increasing or chosen[0] < 0 or chosen[-1] > depth:
        raise ValueError(
            f"`layers` must be increasing numbers between 0 and the depth, {depth}; got {layers!r}."
        )
    return chosen


def checked_key(name: str, key) -> Array:
    """A key such as `jax.random.key(0)`; a raw one, of `jax.random.PRNGKey(0)`, becomes one."""
    if isinstance(key, jax.Array | np.ndarray):
        if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.ndim == 0:
            return jnp.asarray(key)
        if key.dtype == np.uint32 and key.shape == jax.random.PRNGKey(0).shape:
            return jax.random.wrap_key_data(jnp.asarray(key))
    raise TypeError(f"`{name}` must be a key such as `jax.random.key(0)`, got {described(key)}.")
