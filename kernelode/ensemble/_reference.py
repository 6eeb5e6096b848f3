"""The non-interacting chain that a finite network fluctuates about: neurons that see the mean kernel.

Its neurons are independent Gaussian chains with the kernel K0 of infinite width. K0, E f and dE f/dK,
with f = sigma sigma, are integrated here, in float64, by a rule of its own: an ensemble shares no
integral with the theory that it judges. (Gauss-Legendre in both variables of phi_a = A11 u, phi_b = A21
u + A22 v, in panels between the kinks of sigma.)
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._activation.base import (
    AbstractActivation,
    AbstractHomogeneousActivation,
    AbstractKinkedActivation,
)
from .._architecture import AbstractLayered
from ._elements import Elements
from ._factor import positive_factor

_REACH = 9.0
_SMOOTH_NODES, _PANEL_NODES = 256, 128


class Reference(NamedTuple):
    """The chain, layer by layer (leading axis: layers 0 .. depth), in terms of elements.

    - `kernel`: K0.
    - `moment`: E f, for phi ~ N(0, K0).
    - `slope`: dE f_ab / d(K_aa, K_ab, K_bb).
    - `factor`: lower triangular A, A A^T = C_b + C_W E f: the factor of a layer's normals.
    """

    kernel: Float[Array, "layers element"]
    moment: Float[Array, "layers element"]
    slope: Float[Array, "layers element 3"]
    factor: Float[Array, "layers n n"]


def reference_chain(
    network: AbstractLayered, kernel: Float[np.ndarray, "n n"], elements: Elements
) -> Reference:
    """The chain of `network` from the input kernel, as numpy arrays in float64."""
    with jax.enable_x64(True):
        double = lambda x: jnp.asarray(np.asarray(x), jnp.float64)
        network = jax.tree.map(lambda x: double(x) if eqx.is_inexact_array(x) else x, network)
        start = double(kernel)[elements.first, elements.second]
        columns = tuple(tuple(int(i) for i in column) for column in elements[:2])
        chain = _chain(network, start, columns, elements.inputs)
        return jax.tree.map(np.asarray, chain)


@eqx.filter_jit
def _chain(network, start, columns, inputs: int) -> Reference:
    first, second = (np.array(column) for column in columns)
    square = np.zeros((inputs, inputs), int)
    square[first, second] = square[second, first] = np.arange(first.size)

    def moments(k):
        variances = k[square.diagonal()]
        return jax.lax.map(
            lambda x: pair_integrals(network.activation, *x), (variances[first], variances[second], k)
        )

    root = lambda k: positive_factor(k[square], float(jnp.finfo(k.dtype).eps))
    moved = lambda affine, moment: affine.weight_variance * moment + affine.bias_variance

    def step(k, layer):
        moment, slope = moments(k)
        increment = moved(layer.affine, moment)
        factor = root(increment)
        for _ in range(network.layers_per_block - 1):
            increment = moved(layer.affine, moments(increment)[0])
        following = layer.skip**2 * k + layer.scale**2 * increment
        return following, Reference(k, moment, slope, factor)

    last, chain = jax.lax.scan(step, start, network.layers())
    moment, slope = moments(last)
    # Nothing comes after the last layer: its factor is never used.
    end = Reference(last, moment, slope, jnp.zeros_like(chain.factor[0]))
    return jax.tree.map(lambda x, y: jnp.concatenate([x, y[None]]), chain, end)


def kinks_of(activation: AbstractActivation) -> tuple[float, ...]:
    """Where an activation is not analytic."""
    if isinstance(activation, AbstractKinkedActivation):
        return tuple(activation.kinks)
    return (0.0,) if isinstance(activation, AbstractHomogeneousActivation) else ()


def pair_integrals(activation: AbstractActivation, qa, qb, c) -> tuple[Array, Array]:
    """E f and dE f / d(K_aa, K_ab, K_bb), f = sigma(phi_a) sigma(phi_b), for one pair.

    The derivatives are moments of f with second Hermite polynomials (integration by parts): none of sigma
    is needed. A second input that is parallel to the first has no direction of its own.
    """
    return plane_integrals(activation, kinks_of(activation), qa, qb, c)


def plane_integrals(
    function: Callable[[Array], Array], kinks: tuple[float, ...], qa, qb, c
) -> tuple[Array, Array]:
    """The same of any function that is analytic between kinks, which may be jumps."""
    a11 = jnp.sqrt(qa)
    a21 = jnp.where(qa > 0, c / jnp.where(qa > 0, a11, 1), 0)
    rest = qb - a21**2
    apart = rest > 1e-12 * qb
    a22 = jnp.where(apart, jnp.sqrt(jnp.where(apart, rest, 1)), 0)
    where = lambda number, slope: jnp.where(slope != 0, number / jnp.where(slope != 0, slope, 1), _REACH)
    u, weight_u = _panels([where(k, a) for k in kinks for a in (a11, a21)], bool(kinks), qa)

    def inner(u):
        v, weight_v = _panels([where(k - a21 * u, a22) for k in kinks], bool(kinks), qa)
        y = function(a21 * u + a22 * v) * weight_v
        return jnp.sum(y), jnp.sum(y * v), jnp.sum(y * (v**2 - 1))

    over_v = jax.vmap(inner)(u)
    x = function(a11 * u) * weight_u
    flat, once, twice = (x * part for part in over_v)
    hessian = jnp.array(
        [[jnp.sum(flat * (u**2 - 1)), jnp.sum(once * u)], [jnp.sum(once * u), jnp.sum(twice)]]
    )
    b11 = jnp.where(qa > 0, 1 / jnp.where(qa > 0, a11, 1), 0)
    b22 = jnp.where(apart, 1 / jnp.where(apart, a22, 1), 0)
    inverse = jnp.array([[b11, jnp.zeros_like(b11)], [-a21 * b11 * b22, b22]])
    derivative = inverse.T @ hessian @ inverse / 2
    return jnp.sum(flat), jnp.array([derivative[0, 0], 2 * derivative[0, 1], derivative[1, 1]])


def _panels(breaks: list, kinked: bool, like):
    """Nodes and weights for a standard normal, Gauss-Legendre between the breaks."""
    count = _PANEL_NODES if kinked else _SMOOTH_NODES
    nodes, weights = (jnp.asarray(x, like.dtype) for x in np.polynomial.legendre.leggauss(count))
    inside = [jnp.clip(b, -_REACH, _REACH) for b in breaks]
    ends = jnp.stack([jnp.full_like(like, -_REACH), *inside, jnp.full_like(like, _REACH)])
    ends = jnp.sort(ends)
    half, middle = (ends[1:] - ends[:-1]) / 2, (ends[1:] + ends[:-1]) / 2
    z = (middle[:, None] + half[:, None] * nodes[None, :]).reshape(-1)
    density = jnp.exp(-(z**2) / 2) / jnp.sqrt(2 * jnp.pi)
    return z, (half[:, None] * weights[None, :]).reshape(-1) * density
