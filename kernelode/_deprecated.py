"""Former names, which warn for one release."""

import sys
import warnings
from typing import Any

#: Former name to present name.
_RENAMED = {"Moments": "Estimate"}


def former_name(name: str) -> Any:
    """A module's `__getattr__`, for names that it has no longer."""
    if name not in _RENAMED:
        raise AttributeError(f"module 'kernelode' has no attribute {name!r}")
    warnings.warn(
        f"`kernelode.{name}` is now `kernelode.{_RENAMED[name]}`: the former name goes with the next "
        "release.",
        DeprecationWarning,
        stacklevel=2,
    )
    return getattr(sys.modules["kernelode"], _RENAMED[name])


# Set from here: a `__getattr__` that type checkers see makes every misspelt name a known one.
vars(sys.modules["kernelode"])["__getattr__"] = former_name
