"""Moments of one pair of nearly parallel inputs of an activation with kinks, by an integral over the
plane: Mehler's series would need as many terms as one over their squared angle.

With x = sqrt(a) z, y = s z + tau w, s = sqrt(b) corr, tau^2 = b (1 - corr^2), and smoothed derivatives

    G_0(z) = E_w[g(y)],    G_k(z) = E_w[g^(k)(y)] = E_w[g'(y) He_{k-1}(w)] / tau^{k-1},

E[f^(i)(x) g^(j)(y)] is E_z[f^(i) G_j], in which no derivative of f beyond the first is left by parts:

    E_z[f^(i) G_j] = a^{-(i-1)/2} E_z[f' L^{i-1} G_j],    L = z - d/dz,  d/dz G_k = s G_{k+1},
    E_z[f G_j] = E_z[(z f - sqrt(a) f') G_{j-1}] / s,    j >= 2.

Both integrals are taken by Gauss-Legendre on panels: of w between the kinks of g; of z between those of
f and those of g, about which G bends over the width tau / s.
"""

import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Float

from .._activation.base import AbstractKinkedActivation, derivatives
from .._activation.scale import correlation
from .hermite import hermite_polynomial
from .kinked import panels_between

#: Nodes of a panel in z and in w. In w they hold a normal density out to `_REACH` deviations, in z
#: perhaps all of sigma; the estimate compares with the fewer ones.
_FINE, _COARSE = (160, 56), (112, 40)
#: Rounding in units of the last place, as in `KinkedSpectra`: Legendre's weights of many nodes are known
#: to some hundred (measured for ReLU: 300).
_ROUNDING = 1024
#: How far densities are followed: exp(-9.5^2 / 2) is 1e-20.
_REACH = 9.5


def direct_kinked_moments(
    activation: AbstractKinkedActivation,
    indices: tuple[tuple[int, int], ...],
    a: Float[Array, ""],
    b: Float[Array, ""],
    c: Float[Array, ""],
    *,
    errors: bool,
) -> tuple[Float[Array, " entry"], ...]:
    """E[sigma^(i)(x) sigma^(j)(y)] for the (i, j) of `indices` and one pair that is neither uncorrelated
    nor parallel; and, if asked for, estimates of their errors, from fewer nodes."""
    corr, gap = correlation(a, b, c)
    at = lambda counts: _integrate(activation, indices, a, b, jnp.clip(corr, -1, 1), gap, counts)
    value, size, slopes = at(_FINE)
    if not errors:
        return (value,)
    change = jnp.abs(value - at(_COARSE)[0])
    # The covariance is known to rounding: moments of k derivatives, but for analytic terms, go like
    # gap^{(3 - k)/2} sqrt(ab) / (sqrt(a)^i sqrt(b)^j), and a change of gap moves them by gap^{(1 - k)/2}.
    (i, j), eps = np.array(indices).T, jnp.finfo(gap.dtype).eps
    power = lambda x, exponent: x[None] ** jnp.asarray(exponent, gap.dtype)
    natural = slopes[None] * power(a, (1 - i) / 2) * power(b, (1 - j) / 2)
    known = power(jnp.maximum(gap, eps), (1 - i - j) / 2)
    return value, change + eps * (_ROUNDING * size + 4 * natural * known)


def _integrate(
    activation: AbstractKinkedActivation,
    indices: tuple[tuple[int, int], ...],
    a: Float[Array, ""],
    b: Float[Array, ""],
    corr: Float[Array, ""],
    gap: Float[Array, ""],
    counts: tuple[int, int],
) -> tuple[Float[Array, " entry"], Float[Array, " entry"], Float[Array, ""]]:
    """The moments, the averages of the absolute values of what they are sums of, and
    sqrt(E[f'^2] E[g'^2])."""
    outer, inner = counts
    kinks = jnp.asarray(activation.kinks, corr.dtype)
    root, slope, tau = jnp.sqrt(a), jnp.sqrt(b) * corr, jnp.sqrt(b * gap)
    bend = jnp.abs(tau / slope) * _REACH
    seen = kinks / slope
    edges = jnp.sort(jnp.concatenate([kinks / root, seen - bend, seen, seen + bend]))
    z, z_weights = (x[0] for x in panels_between(edges[None], _REACH, outer))
    z_weights = z_weights * jnp.exp(-(z**2) / 2)

    mean = slope * z
    w, w_weights = panels_between((kinks[None, :] - mean[:, None]) / tau, _REACH, inner)
    w_weights = w_weights * jnp.exp(-(w**2) / 2)
    g, g1 = derivatives(activation, mean[:, None] + tau * w, 1)
    top = max(1, *(i + j - 1 for i, j in indices))
    smoothed = [(jnp.sum(g * w_weights, 1), jnp.sum(jnp.abs(g) * w_weights, 1))]
    for k in range(1, top + 1):
        terms = g1 * hermite_polynomial(k - 1, w) * w_weights / tau ** (k - 1)
        smoothed.append((jnp.sum(terms, 1), jnp.sum(jnp.abs(terms), 1)))
    f, f1 = derivatives(activation, root * z, 1)

    def moment(i: int, j: int) -> tuple[Float[Array, " node"], Float[Array, " node"]]:
        if i == 0:
            factor = f if j < 2 else (z * f - root * f1) / slope
            value, size = smoothed[j if j < 2 else j - 1]
            return factor * value, jnp.abs(factor) * size
        value, size = jnp.zeros_like(z), jnp.zeros_like(z)
        for k in range(i):  # L^{i-1} = sum_k binom(i-1, k) He_{i-1-k}(z) (-d/dz)^k
            factor = (
                f1
                * hermite_polynomial(i - 1 - k, z)
                * (-slope) ** k
                * float(scipy.special.comb(i - 1, k))
            )
            part, part_size = smoothed[j + k]
            value, size = value + factor * part, size + jnp.abs(factor) * part_size
        return value / root ** (i - 1), size / root ** (i - 1)

    both = [moment(i, j) for i, j in indices]
    average = lambda index: jnp.stack([jnp.sum(z_weights * x[index]) for x in both])
    squares = jnp.sum(z_weights * f1**2), jnp.sum(z_weights * jnp.sum(g1**2 * w_weights, 1))
    return average(0), average(1), jnp.sqrt(squares[0]) * jnp.sqrt(squares[1])
