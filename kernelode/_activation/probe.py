"""How finely a function has to be sampled, found by sampling it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

#: Distances from the origin between which features are looked for, and down to which width.
_DISTANCES = (0.0, *(2.0**k for k in range(7)))
_NARROWEST = 2.0**-8
#: Panels that are sampled at a time, always as many, so that one program serves: of a function that is
#: rough everywhere not all need to be seen.
_COUNT = 128
#: Chebyshev points of a panel.
_POINTS = np.cos(np.pi * np.arange(17) / 16)
#: The scales of a function that cannot be sampled, because its parameters are traced or it is no number.
UNKNOWN = ((0.0, 0.25),)


class _NotANumber(Exception):
    pass


def probed_scales(function: Callable[[Array], Array]) -> tuple[tuple[float, float], ...]:
    """The `scales` of an analytic function: panels at every distance are halved until polynomials of
    degree 16 resolve the function on them.

    A feature at the largest distance, an oscillation for instance, is taken to persist everywhere. A
    distance at which nothing resolves the function is left out: no nodes would integrate a kink, and
    error estimates tell of it.
    """
    double = jnp.result_type(float) == jnp.float64
    # A panel of length l is resolved to `noise` if the nearest singularity is `share` l away: the
    # coefficients fall like r^-k, (r - 1/r) l / 4 being its distance, and r^-16 = noise.
    noise, share = (2.0**-40, 1.35) if double else (2.0**-14, 0.32)
    jitted = jax.jit(lambda x: function(x))
    sample = lambda x: np.asarray(jitted(jnp.asarray(x, jnp.result_type(float))), float)
    scales, size = [], 0.0
    try:
        with jax.ensure_compile_time_eval():
            for near, far in zip(_DISTANCES[:-1], _DISTANCES[1:]):
                # Not symmetric about the origin, where halving would hide a kink between two panels.
                panels = [(near, far), (-far, -near)] if near else [(-far, 0.93 * far)]
                length, size = _resolved_length(sample, panels, noise, size)
                if length > _NARROWEST:
                    scales.append((near, share * length))
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError, _NotANumber):
        return UNKNOWN
    if not scales:
        return UNKNOWN
    distance, width = scales[-1]
    return (*scales, (float("inf"), width)) if width < distance / 4 else tuple(scales)


def _resolved_length(
    sample: Callable[[np.ndarray], np.ndarray],
    panels: list[tuple[float, float]],
    noise: float,
    size: float,
) -> tuple[float, float]:
    """The length of panels, halves of halves of the given ones, on which the function is resolved
    relative to its size; and its size, which is at least the given one, of where it is nearer to the
    origin."""
    edges = np.array(panels)
    while True:
        length = float(edges[0, 1] - edges[0, 0])
        padded = np.resize(edges, (_COUNT, 2))
        values = sample(padded.mean(axis=1)[:, None] + length / 2 * _POINTS[None, :])[: len(edges)]
        mirrored = np.concatenate([values, values[:, -2:0:-1]], axis=1)
        if np.isnan(values).any():
            raise _NotANumber
        # Where the function overflows, nothing can be said of it, nor need it be resolved.
        size = np.max(np.abs(values[np.isfinite(values).all(axis=1)]), initial=size)
        coefficients = np.abs(np.fft.rfft(np.nan_to_num(mirrored, posinf=0, neginf=0), axis=1)) / 16
        finite = np.isfinite(mirrored).all(axis=1)
        rough = finite & (coefficients[:, -3:].max(axis=1) > noise * size)
        if not rough.any() or length <= _NARROWEST:
            return length, size
        low, high = edges[rough][:: 1 + 2 * rough.sum() // _COUNT].T
        middle = (low + high) / 2
        edges = np.concatenate([np.stack([low, middle], axis=1), np.stack([middle, high], axis=1)])
