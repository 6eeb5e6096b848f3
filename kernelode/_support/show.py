"""Modules as text with their numbers, for `print` and error messages."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import numpy as np

from .checks import is_concrete

#: Arrays up to this size are shown whole, larger ones by their shape and range.
_WHOLE = 16


class Shown(eqx.Module):
    """A module whose representation has its numbers, to six digits, where JAX's has shapes."""

    def __repr__(self) -> str:
        return _module(self, self._shown())

    def _shown(self) -> dict[str, Any]:
        """The items to show, by name; the fields by default."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.repr}


def _text(value: Any) -> str:
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return _array(value)
    if hasattr(value, "_enumeration"):
        return _items(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return _module(value, value._asdict())  # pyright: ignore
    if isinstance(value, list | tuple) and len(value) > _WHOLE:
        return f"{type(value).__name__} of {len(value)}"
    if isinstance(value, dict):
        inside = ", ".join(f"{key}: {_text(item)}" for key, item in value.items())
        return f"{{{inside}}}"
    return repr(value)


def _module(module: Any, shown: dict[str, Any]) -> str:
    name = type(module).__name__
    parts = [f"{key}={_text(value)}" for key, value in shown.items()]
    flat = f"{name}({', '.join(parts)})"
    if len(flat) <= 100 and "\n" not in flat:
        return flat
    inside = ",\n".join("  " + part.replace("\n", "\n  ") for part in parts)
    return f"{name}(\n{inside}\n)"


def _array(value: Any) -> str:
    if not is_concrete(value):
        return str(value.aval)
    if jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        return f"key{list(value.shape)}"
    array = np.asarray(value)
    if array.ndim == 0 and np.issubdtype(array.dtype, np.floating):
        return f"{float(array):.6g}"
    if array.size <= _WHOLE:
        return np.array2string(array, precision=6, separator=", ")
    what = f"{array.dtype}{list(array.shape)}"
    if not np.issubdtype(array.dtype, np.floating):
        return what
    return f"{what} from {np.min(array):.6g} to {np.max(array):.6g}"


def _items(value: Any) -> str:
    """Names of an enumeration's items, and how often each occurs where there are several."""
    numbers = value._value
    if not is_concrete(numbers):
        return f"{value._enumeration.__name__}({numbers.aval})"
    names = {int(item._value): name for name, item in value._enumeration._name_to_item.items()}
    found, counts = np.unique(np.asarray(numbers), return_counts=True)
    if np.ndim(numbers) == 0:
        return names[int(found[0])]
    return ", ".join(f"{count} {names[int(number)]}" for number, count in zip(found, counts)) or "none"
