"""How well the nodes of a trapezoidal rule resolve and reach their integrand.

With F(w) = sum_k T_k exp(i w k) of the terms T_k, the rule's value is F(0); its error is the spectrum of
the integrand itself at multiples of 2 pi, which on the nodes are zero. Leaving out every second node
changes the value by F(pi). Where an analytic integrand is resolved, F falls exponentially, and F(pi) is
about the square root of the error. Where it is not, F is noise as large as the error, and one frequency
may be small by accident: one time in six, the error is more than 4 |F(pi)|. The largest of eight
frequencies is so one time in ten thousand.
"""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._activation.base import AbstractActivation, derivatives
from .adapted import reach_of

#: How many frequencies, and how far apart in units of pi: noise on 128 nodes is independent at them, and
#: down to the last one, 7/64 below pi, a spectrum falls little.
_FREQUENCIES, _APART = 8, 1 / 64
#: Nodes on either side beyond the reach of a rule: a fifth of a standard deviation apart.
_BEYOND = 129


def alias_error(
    terms: Float[Array, "*rest node"], weights: np.ndarray | None = None
) -> Float[Array, "*rest"]:
    """An estimate of the error of sum_k T_k, or of sum_k w_k T_k.

    With e1 and e2 the largest F up to 3/4 pi and up to pi it is 4 e2, as for noise, and times (4 e2 /
    e1)^2 if that is less than one: an exponential goes on falling from pi to 2 pi, by (e2 / e1)^4.
    """
    count = terms.shape[-1]
    frequencies = np.pi * (1 - _APART * np.arange(_FREQUENCIES)) * np.array([[0.75], [1.0]])
    phases = frequencies.reshape(1, -1) * np.arange(count)[:, None]
    waves = np.concatenate([np.cos(phases), np.sin(phases)], axis=1)
    waves = waves if weights is None else waves * weights[:, None]
    cosine, sine = jnp.split(terms @ jnp.asarray(waves, terms.dtype), 2, axis=-1)
    sizes = jnp.hypot(cosine, sine).reshape(*terms.shape[:-1], 2, _FREQUENCIES)
    before, after = jnp.moveaxis(jnp.max(sizes, axis=-1), -1, 0)
    ratio = 4 * after / jnp.where(before > 0, before, 1)
    return 4 * after * jnp.where(before > 4 * after, ratio**2, 1)


def tail_energy(
    activation: AbstractActivation, q: Float[Array, " n"], reach: float, order: int
) -> Float[Array, "derivative n"]:
    """E[(sigma^(i))^2; |z| > reach] for x = sqrt(q) z and i = 0 .. order: what nodes do not reach.
    Infinite where it is no number."""
    side = np.linspace(reach, reach_of(q.dtype), _BEYOND)
    z = jnp.asarray(np.concatenate([-side, side]), q.dtype)
    step = float(side[1] - side[0]) / math.sqrt(2 * math.pi)
    root = math.sqrt(step) * jnp.exp(-(z**2) / 4)
    values = derivatives(activation, jnp.sqrt(q)[:, None] * z[None, :], order)
    root = root[None, None, :]
    energy = jnp.sum(jnp.where(root > 0, values * root, 0) ** 2, axis=-1)
    return jnp.where(jnp.isnan(energy), jnp.inf, energy)
