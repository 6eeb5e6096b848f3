"""Pair coefficients of positively homogeneous activations, in polar coordinates.

With (u, v) = r (cos t, sin t), sigma(x) sigma(y) = r^2 sqrt(ab) g(t), and g is analytic in each of the
four wedges between the lines x = 0 and y = 0. Gauss-Legendre in t on each wedge and in r on [0, 14] is
exact to rounding, at any correlation.
"""

import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array

from .._activation.base import AbstractHomogeneousActivation
from .nodes import hermite_functions


def homogeneous_coefficients(
    activation: AbstractHomogeneousActivation, a: Array, b: Array, corr, complement, order: int
) -> tuple[Array, Array]:
    """c_jk for all j, k <= order, and an estimate of the rounding in them. (order+1, order+1)."""
    dtype = corr.dtype
    negative, positive = (slope.astype(dtype) for slope in activation.slopes)
    roots_legendre = scipy.special.roots_legendre
    angle_points, angle_steps = (jnp.asarray(x, dtype) for x in roots_legendre(order // 2 + 24))
    radii, radial_steps = roots_legendre(128)
    radii = jnp.asarray(7 * (radii + 1), dtype)
    radial = jnp.asarray(7 * radial_steps, dtype) * radii**3 / (2 * jnp.asarray(np.pi, dtype))

    theta = jnp.arctan2(complement, corr)  # y = 0 at t = theta +- pi/2
    half = jnp.asarray(np.pi / 2, dtype)
    starts = jnp.stack([-half, theta - half, half, theta + half])
    widths = jnp.stack([theta, 2 * half - theta, theta, 2 * half - theta])
    slopes = jnp.stack(
        [positive * negative, positive * positive, negative * positive, negative * negative]
    )
    t = (starts[:, None] + widths[:, None] / 2 * (angle_points + 1)[None, :]).reshape(-1)
    weight = (slopes * widths / 2)[:, None] * angle_steps[None, :]
    weight = weight.reshape(-1) * jnp.cos(t) * jnp.cos(t - theta)

    u, v = radii[:, None] * jnp.cos(t)[None, :], radii[:, None] * jnp.sin(t)[None, :]
    # exp(-r^2/2) = exp(-u^2/4) exp(-v^2/4) twice over, half of it in the Hermite functions.
    density = radial[:, None] * weight[None, :] * jnp.exp(-(radii**2) / 4)[:, None]
    h_u, h_v = hermite_functions(u, order + 1), hermite_functions(v, order + 1)
    root = lambda q: jnp.where(q > 0, jnp.sqrt(jnp.where(q > 0, q, 1)), 0)
    scale = root(a) * root(b)
    value = scale * jnp.einsum("jrt,rt,krt->jk", h_u, density, h_v)
    size = scale * jnp.einsum("jrt,rt,krt->jk", jnp.abs(h_u), jnp.abs(density), jnp.abs(h_v))
    return value, 16 * jnp.finfo(dtype).eps * size
