"""Pair coefficients of activations with kinks at parallel inputs, by one-dimensional integrals.

For y = sqrt(b) (corr u + w), corr = +-1, with w of small variance corr'^2 = gap,

    c_j0 = E[sigma(x) sigma(y) h_j(u)] + gap/2 b E[sigma(x) sigma''(y) h_j(u)],
    c_j1 = sqrt(b) E[sigma(x) sigma'(y) h_j(u)],     c_j2 = b E[sigma(x) sigma''(y) h_j(u)] / sqrt(2),

at w = 0 on the right, the second derivative by parts. Coefficients of degree three and more in w diverge,
like the derivatives of a kink, but all that they multiply vanishes like gap^2 or faster. So do, at the
rate gap^{3/2}, the terms of moments that are not smooth in gap: with these coefficients values and first
derivatives of a pair's moments are those of the limit. Second derivatives diverge; what diverges is left
out, as in `_activation/homogeneous.py`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from equinox.internal import unvmap_any
from jaxtyping import Array, Bool, Float

from .._activation.base import AbstractActivation, derivatives
from .hermite import hermite_functions
from .kinked import mirrored, panel_steps
from .nodes import chaos_reach


def parallel_coefficients(
    activation: AbstractActivation,
    kinks: tuple[float, ...],
    a: Float[Array, ""],
    b: Float[Array, ""],
    corr: Float[Array, ""],
    gap: Float[Array, ""],
    order: int,
    *,
    powers: tuple[int, int] = (1, 1),
    finer: bool = False,
) -> Float[Array, "j k"]:
    """c_jk, j, k <= order, zero beyond k = 2; differentiable once in a, b, corr and gap. sigma(x) and
    sigma(y) may be raised to `powers`. `finer` is for estimates of the error, by the difference."""
    scales = [jnp.sqrt(jnp.where(q > 0, q, 1)) for q in (a, b)]
    edges = jnp.asarray(mirrored(kinks), corr.dtype)
    inner = jnp.sort(jnp.concatenate([edges / scale for scale in scales]))[None]
    z, steps = (x[0] for x in panel_steps(inner, chaos_reach(order), finer=finer))
    h = hermite_functions(z, order + 1)
    steps = steps * jnp.exp(-(z**2) / 4)
    of_x, of_y = (lambda x, power=power: activation(x) ** power for power in powers)
    f, f1 = derivatives(of_x, scales[0] * z, 1)
    g, g1 = derivatives(of_y, scales[1] * corr * z, 1)
    roots = jnp.sqrt(jnp.arange(order + 1, dtype=corr.dtype))[:, None]
    lower = roots * jnp.concatenate([jnp.zeros_like(h[:1]), h[:-1]])
    # sigma''(y) sqrt(b) corr = d/du sigma'(y), and d/du on the rest of the integrand, density included.
    rest = (z * f - scales[0] * f1)[None] * h - f[None] * lower
    second = rest @ (steps * g1) / (scales[1] * corr)
    columns = (
        (f[None] * h) @ (steps * g) + gap / 2 * b * second,
        scales[1] * ((f[None] * h) @ (steps * g1)),
        b * second / jnp.sqrt(jnp.asarray(2, corr.dtype)),
    )
    found = jnp.stack(columns[: order + 1], axis=1)
    return jnp.concatenate(
        [found, jnp.zeros((order + 1, order + 1 - found.shape[1]), corr.dtype)], axis=1
    )


def replaced(
    where: Bool[Array, ""], function: Callable[[], Array], otherwise: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """`function()` where needed. It is evaluated only where a batch has such a pair."""
    needed = jax.lax.cond(unvmap_any(where), function, lambda: jnp.zeros_like(otherwise))
    return jnp.where(where, needed, otherwise)
