"""Pair coefficients of positively homogeneous activations, in polar coordinates.

With (u, v) = r (cos t, sin t), sigma(x) sigma(y) = r^2 sqrt(ab) g(t), and g is analytic in each of the
four wedges between the lines x = 0 and y = 0. Gauss-Legendre in t on each wedge, and in r as far out as
the Hermite polynomials oscillate, is exact to rounding at any correlation.
"""

import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Float

from .._activation.base import AbstractHomogeneousActivation
from .._numerics.safe import safe_root
from .hermite import hermite_functions
from .nodes import FINER_REACH, chaos_reach


def homogeneous_coefficients(
    activation: AbstractHomogeneousActivation,
    a: Array,
    b: Array,
    corr: Float[Array, ""],
    complement: Float[Array, ""],
    order: int,
    *,
    slopes: tuple[int, int] = (0, 0),
    finer: bool = False,
    sizes: bool = False,
) -> Array:
    """c_jk for all j, k <= order, of which j + k <= order are meaningful. (order+1, order+1). Of sigma'
    in place of sigma where `slopes` of (x, y) has a one. `finer` is for estimates of the error, by the
    difference; `sizes` gives the sums of absolute values."""
    dtype = corr.dtype
    negative, positive = (slope.astype(dtype) for slope in activation.slopes)
    angles, rings = _counts(order, finer)
    radii, radial_steps = scipy.special.roots_legendre(rings)
    half_reach = max(14.0, chaos_reach(order)) * (FINER_REACH if finer else 1) / 2
    radii = jnp.asarray(half_reach * (radii + 1), dtype)
    of_x, of_y = (1 - slope for slope in slopes)  # degrees in the radius
    measure = radii ** (1 + of_x + of_y) / (2 * jnp.asarray(np.pi, dtype))
    radial = jnp.asarray(half_reach * radial_steps, dtype) * measure

    theta = jnp.arctan2(complement, corr)
    t, steps = wedge_rule(theta, angles)
    products = jnp.stack(
        [positive * negative, positive * positive, negative * positive, negative * negative]
    )
    t, weight = t.reshape(-1), (products[:, None] * steps).reshape(-1)
    weight = weight * jnp.cos(t) ** of_x * jnp.cos(t - theta) ** of_y

    u, v = radii[:, None] * jnp.cos(t)[None, :], radii[:, None] * jnp.sin(t)[None, :]
    # exp(-r^2/2) = exp(-u^2/4) exp(-v^2/4) twice over, half of it in the Hermite functions.
    density = radial[:, None] * weight[None, :] * jnp.exp(-(radii**2) / 4)[:, None]
    h_u, h_v = hermite_functions(u, order + 1), hermite_functions(v, order + 1)
    scale = safe_root(a) ** of_x * safe_root(b) ** of_y
    if sizes:
        h_u, density, h_v = (jnp.abs(x) for x in (h_u, density, h_v))
    return scale * jnp.einsum("jrt,rt,krt->jk", h_u, density, h_v)


def wedge_rule(
    theta: Float[Array, ""], count: int
) -> tuple[Float[Array, "4 node"], Float[Array, "4 node"]]:
    """Gauss-Legendre nodes t in every wedge, and their steps, where (x, y) = (cos t, cos(t - theta)):
    positive x and negative y, both positive, negative x, both negative."""
    points, steps = (jnp.asarray(x, theta.dtype) for x in scipy.special.roots_legendre(count))
    half = jnp.asarray(np.pi / 2, theta.dtype)
    starts = jnp.stack([-half, theta - half, half, theta + half])  # y = 0 at t = theta +- pi/2
    halves = jnp.stack([theta, 2 * half - theta, theta, 2 * half - theta])[:, None] / 2
    return starts[:, None] + halves * (points + 1)[None, :], halves * steps[None, :]


def _counts(order: int, finer: bool) -> tuple[int, int]:
    """Nodes in t, in which the integrand is a trigonometric polynomial of degree order + 2 on at most
    half of the circle; and in r, where it is a polynomial of that degree times exp(-r^2/2)."""
    angles, rings = order // 2 + 24, max(128, 64 + 2 * order)
    return (angles + 11, rings + 33) if finer else (angles, rings)
