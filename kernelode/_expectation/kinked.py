"""Hermite spectra of activations with kinks."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Float, Int

from .._activation.base import AbstractKinkedActivation, derivatives
from .hermite import scan_hermite
from .nodes import BLOCK, FINER_REACH, TERMS
from .spectrum import AbstractSpectra, parity_parts


class KinkedSpectra(AbstractSpectra):
    """By Gauss-Legendre panels between the kinks; derivatives by the Hermite ladder.

    Integration by parts, E[sigma^(i+1) h_m] = sqrt(m + 1) E[sigma^(i) h_{m+1}] / sqrt(q), holds for
    distributions too: the delta functions at the kinks never have to be named.
    """

    activation: AbstractKinkedActivation
    q: Float[Array, " n"]
    coefficients: Float[Array, "derivative n term"]
    gram: Float[Array, "parity derivative derivative n"]
    ceiling: Float[Array, "derivative n"]
    relative_error: Float[Array, "derivative n"]

    def __init__(self, activation: AbstractKinkedActivation, q: Float[Array, " n"], order: int) -> None:
        self.activation, self.q = activation, q
        positive = jnp.where(q > 0, q, 1)
        scale = jnp.sqrt(positive)[:, None]
        z, weights = kinked_rule(activation.kinks, scale)
        tower = derivatives(activation, scale * z, 1)
        undamped = weights * tower[0] * jnp.exp(z**2 / 4)
        spectrum = scan_hermite(z, TERMS + order, lambda h: jnp.sum(undamped * h, axis=-1)).T
        rows = [spectrum]
        for _ in range(order):
            steps = jnp.sqrt(jnp.arange(1, rows[-1].shape[-1], dtype=q.dtype))
            rows.append(steps[None, :] * rows[-1][:, 1:] / scale)
        coefficients = jnp.stack([row[:, :TERMS] for row in rows])
        gram = _gram(tower, z, weights, scale, order)

        # At zero variance all is constant: one coefficient, the derivative itself.
        at_zero = derivatives(activation, jnp.zeros_like(q), order)
        only_first = jnp.asarray(np.arange(TERMS) == 0, q.dtype)
        some = q > 0
        self.coefficients = jnp.where(
            some[None, :, None], coefficients, at_zero[:, :, None] * only_first[None, None, :]
        )
        squares = at_zero[:, None] * at_zero[None, :]
        self.gram = jnp.where(some, gram, jnp.stack([squares, jnp.zeros_like(squares)]))
        factorials = jnp.asarray([math.factorial(i) for i in range(order + 1)], q.dtype)
        powers = positive[None, :] ** jnp.arange(order + 1, dtype=q.dtype)[:, None]
        self.ceiling = jnp.sum(self.gram[:, 0, 0], axis=0)[None, :] * factorials[:, None] / powers
        self.relative_error = jnp.full_like(self.ceiling, 1024 * jnp.finfo(q.dtype).eps)

    def block(self, index: Int[Array, ""]) -> Float[Array, "derivative n block"]:
        return jax.lax.dynamic_slice_in_dim(self.coefficients, index * BLOCK, BLOCK, axis=2)

    def parallel(
        self, other: "KinkedSpectra", i: np.ndarray, j: np.ndarray
    ) -> Float[Array, "parity entry n m"]:
        # A pair at a time on panels of its own, since the kinks of two inputs fall on different nodes.
        one = jax.checkpoint(lambda a, b: _parallel_pair(self.activation, a, b, i, j))
        row = lambda a: jax.vmap(one, (None, 0))(a, other.q)
        return jnp.moveaxis(jax.lax.map(row, self.q), (0, 1), (2, 3))

    def cusp(self, gap: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return 4 * jnp.sqrt(gap)


def _parallel_pair(
    activation: AbstractKinkedActivation,
    a: Float[Array, ""],
    b: Float[Array, ""],
    i: np.ndarray,
    j: np.ndarray,
) -> Float[Array, "parity entry"]:
    """E[sigma^(i)(sqrt(a) z) sigma^(j)(sqrt(b) z)] where finite, by parity; zero where not."""
    scales = jnp.sqrt(jnp.where(jnp.stack([a, b]) > 0, jnp.stack([a, b]), 1))
    kinks = jnp.asarray(mirrored(activation.kinks), a.dtype)
    z, weights = panel_rule(jnp.sort((kinks[None, :] / scales[:, None]).reshape(1, -1)))
    half = z.shape[-1] // 2
    towers = (derivatives(activation, scale * z[0], 1) for scale in scales)
    (f, f1), (g, g1) = (jnp.moveaxis(parity_parts(tower), 1, 0) for tower in towers)
    average = lambda *factors: 2 * jnp.einsum("x,px,px->p", weights[0, half:], *factors)
    along = z[:, half:]
    # By parts; the derivative of the even part is the odd part of the derivative.
    shared = average(f1, g1)
    known = {
        (0, 0): average(f, g),
        (1, 1): shared,
        (2, 0): (average(f1[::-1], along * g) - scales[1] * shared[::-1]) / scales[0],
        (0, 2): (average(g1[::-1], along * f) - scales[0] * shared[::-1]) / scales[1],
    }
    return jnp.stack([known.get(ij, jnp.zeros_like(shared)) for ij in zip(i, j)], axis=1)


def _gram(
    tower: Float[Array, "2 n node"],
    z: Float[Array, "n node"],
    weights: Float[Array, "n node"],
    scale: Float[Array, "n 1"],
    order: int,
) -> Float[Array, "parity derivative derivative n"]:
    """What is finite: sigma sigma, sigma' sigma', and sigma'' sigma by integration by parts."""
    half = z.shape[-1] // 2
    value, slope = jnp.moveaxis(parity_parts(tower), 1, 0)
    average = lambda *factors: 2 * jnp.einsum("an,pan,pan->pa", weights[:, half:], *factors)
    by_parts = value * (z / scale)[None, :, half:]
    second = average(by_parts, slope[::-1]) - average(slope, slope)[::-1]  # a slope's parity is flipped
    gram = jnp.full((2, order + 1, order + 1, z.shape[0]), jnp.inf, z.dtype)
    gram = gram.at[:, 0, 0].set(average(value, value))
    if order >= 1:
        gram = gram.at[:, 1, 1].set(average(slope, slope))
    if order >= 2:
        gram = gram.at[:, 0, 2].set(second).at[:, 2, 0].set(second)
    return gram


def mirrored(kinks: tuple[float, ...]) -> list[float]:
    """The kinks and their mirror images, in increasing order."""
    return sorted({sign * kink for kink in kinks for sign in (1, -1)})


def kinked_rule(
    kinks: tuple[float, ...], scale: Float[Array, "n 1"], reach: float = 12.0
) -> tuple[Float[Array, "n node"], Float[Array, "n node"]]:
    """Nodes and weights (n, node) for E over z ~ N(0, 1) of functions kinked at scale z = +-kink."""
    return panel_rule(jnp.asarray(mirrored(kinks), scale.dtype)[None, :] / scale, reach)


def kinked_steps(
    kinks: tuple[float, ...], scale: Float[Array, "n 1"], reach: float, *, finer: bool = False
) -> tuple[Float[Array, "n node"], Float[Array, "n node"]]:
    """The same without the density: `panel_steps` between the kinks."""
    return panel_steps(jnp.asarray(mirrored(kinks), scale.dtype)[None, :] / scale, reach, finer=finer)


def panel_rule(
    inner: Float[Array, "n edge"], reach: float = 12.0
) -> tuple[Float[Array, "n node"], Float[Array, "n node"]]:
    """Gauss-Legendre on each panel between the given positions, in increasing order."""
    z, steps = panel_steps(inner, reach)
    return z, steps * jnp.exp(-(z**2) / 2)


def panel_steps(
    inner: Float[Array, "n edge"], reach: float, *, finer: bool = False
) -> tuple[Float[Array, "n node"], Float[Array, "n node"]]:
    """Nodes, and steps with integral f dz / sqrt(2 pi) = sum step f: `panel_rule` without the density.
    If `finer` with nodes elsewhere, half as many again, and further out."""
    # 448 nodes on 24 resolve sines up to wave number 56, those of Hermite polynomials of order 1024 are
    # 32; a coprime number for the finer ones, so that none falls on a former one.
    per_panel = 673 if finer else 448
    reach = FINER_REACH * reach if finer else reach
    return panels_between(inner, reach, per_panel)


def panels_between(
    inner: Float[Array, "n edge"], reach: float, per_panel: int
) -> tuple[Float[Array, "n node"], Float[Array, "n node"]]:
    """Nodes and steps, as `panel_steps`, of so many nodes between the given positions and the reach."""
    inner = jnp.clip(inner, -reach, reach)
    edge = jnp.full_like(inner[:, :1], reach)
    edges = jnp.concatenate([-edge, inner, edge], axis=1)
    points, steps = (jnp.asarray(x, inner.dtype) for x in scipy.special.roots_legendre(per_panel))
    middles, halves = (edges[:, 1:] + edges[:, :-1]) / 2, (edges[:, 1:] - edges[:, :-1]) / 2
    z = (middles[:, :, None] + halves[:, :, None] * points[None, None, :]).reshape(inner.shape[0], -1)
    widths = (halves[:, :, None] * steps[None, None, :]).reshape(inner.shape[0], -1)
    return z, widths / jnp.sqrt(2 * jnp.asarray(np.pi, z.dtype))
