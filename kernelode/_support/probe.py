"""An activation's fingerprint: its values, however it is written.

Names do not tell: networks drawn before an edit of a function and after it would be mixed.
"""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np


def probe(activation: Callable[[Any], Any]) -> np.ndarray | None:
    """sigma at fixed points, in float64, which identify an activation however it is written. None if it
    cannot be evaluated there: a user's function may raise whatever it likes."""
    double = lambda x: jnp.asarray(np.asarray(x), jnp.float64) if eqx.is_inexact_array(x) else x
    try:
        with jax.enable_x64(True):
            values = np.asarray(jax.tree.map(double, activation)(jnp.asarray(_points())))
    except Exception:
        return None
    return values if values.shape == _points().shape and values.dtype.kind == "f" else None


def same_probe(first: np.ndarray | None, second: np.ndarray | None) -> bool:
    """Whether two activations may be the same function: their values are the same but for rounding, in
    another order of operations or on another device; or there are none."""
    if first is None or second is None or first.shape != second.shape:
        return True  # of a later version, which looks at other points
    tolerance = float(np.sqrt(max(np.finfo(x.dtype).eps for x in (first, second))))
    near = np.abs(_points()) < 4
    finite = first[near][np.isfinite(first[near])]
    size = float(np.sqrt(np.mean(finite**2))) if finite.size else 0.0
    # Where sigma is nearly zero by cancellation, as 1 - tanh(x) is at x = 12.
    return np.allclose(first, second, rtol=tolerance, atol=tolerance * size * 1e-4, equal_nan=True)


@functools.cache
def _points() -> np.ndarray:
    """Where activations are looked at: densely where preactivations are, and on to the ends."""
    # No multiple of anything that a kink is likely to be put at, and never zero.
    dense = (np.arange(1024) - 511.5) * (24 / 1024) + 1e-4 * np.sqrt(2)
    far = np.geomspace(12.5, 1e4, 12)
    near = np.geomspace(1e-8, 1e-2, 7)
    return np.concatenate([dense, far, -far, near, -near])
