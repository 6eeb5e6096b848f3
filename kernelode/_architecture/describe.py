"""A network as plain data, for the file that its ensemble is kept in, and back."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import numpy as np

from .. import _activation, _architecture
from . import AbstractArchitecture


def describe(module: Any) -> Any:
    """A module as nested dictionaries and lists: types by name, arrays as numbers with all digits."""
    if isinstance(module, eqx.Module):
        # Without what is derived from the others, and is not shown either.
        shown = {field.name for field in dataclasses.fields(module) if field.repr}
        fields = {k: v for k, v in vars(module).items() if k in shown}
        return {"type": type(module).__name__, "fields": {k: describe(v) for k, v in fields.items()}}
    if isinstance(module, jax.Array | np.ndarray):
        return np.asarray(module).astype(float).tolist()
    if isinstance(module, bool | int | float | str) or module is None:
        return module
    if isinstance(module, tuple | list):
        return [describe(x) for x in module]
    if isinstance(module, dict):
        return {str(key): describe(value) for key, value in module.items()}
    return {"type": getattr(module, "__qualname__", repr(type(module))), "fields": None}


def restore(description: Any) -> AbstractArchitecture:
    """The network described, if it is made of the library's own activations and architectures.

    **Raises** `ValueError` for one of a user's own.
    """
    return _restore(description)


def _restore(description: Any) -> Any:
    if not isinstance(description, dict):
        return description
    name, fields = description["type"], description["fields"]
    cls = getattr(_architecture, name, None) or getattr(_activation, name, None)
    if cls is None or fields is None:
        raise ValueError(f"A network with {name!r} cannot be rebuilt from its description.")
    return cls(**{key: _restore(value) for key, value in fields.items()})
