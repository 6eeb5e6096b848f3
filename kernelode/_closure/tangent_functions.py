"""The functions that drive a tangent kernel, in chaos coordinates: sigma_e sigma_f, sigma'_e sigma'_f and
sigma_e sigma'_f, of an input by itself and of a pair.

Both offer the same: the coefficients, and what differentiation makes of them. With coordinates :u^j w^k:
/ sqrt(j! k!) and u = B phi, <d_e f h_jk> = sum_m B_me sqrt(j + 1 or k + 1) c_{one degree up}; twice that,
by the elements of the kernel, is the derivative by them.
"""

import abc

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._activation.base import AbstractActivation, AbstractHomogeneousActivation
from .._expectation.chaos import parallel_rounding
from .._expectation.input_chaos import has_kinks
from .._expectation.slopes import (
    FOURTH,
    InputSlopes,
    SingleSlopes,
    fourth_slopes,
    slope_coefficients,
)
from .chaos_basis import (
    Degrees,
    Frame,
    basis_floor,
    by_degree,
    frame,
    lowered,
    rotated_square,
    second_power,
)


def elements_of(inputs: int) -> np.ndarray:
    """(e, f) with e <= f. (elements, 2)."""
    return np.array([(e, f) for e in range(inputs) for f in range(e, inputs)])


class AbstractFunctions(eqx.Module):
    """Chaos coefficients of the functions, axes (function, *chaos), of all degrees that a layer needs.

    - `values`, `slopes`: sigma_e sigma_f and sigma'_e sigma'_f, elements (e, f) with e <= f.
    - `mixed`: sigma_e sigma'_f, (e, f) in the order of `labels`.
    """

    values: eqx.AbstractVar[Array]
    slopes: eqx.AbstractVar[Array]
    mixed: eqx.AbstractVar[Array]
    #: How many inputs there are.
    inputs: eqx.AbstractClassVar[int]

    @property
    def elements(self) -> np.ndarray:
        """(e, f) with e <= f. (elements, 2)."""
        return elements_of(self.inputs)

    @property
    def labels(self) -> np.ndarray:
        """(e, f), all of them. (labels, 2)."""
        return np.array([(e, f) for e in range(self.inputs) for f in range(self.inputs)])

    @property
    def numbers(self) -> np.ndarray:
        """The element of each label."""
        found = [tuple(x) for x in self.elements]
        return np.array([found.index((min(x), max(x))) for x in self.labels])

    @property
    def lowest(self) -> tuple:
        """The index of degree zero."""
        return (..., *[0] * (self.values.ndim - 1))

    @abc.abstractmethod
    def once(self, c: Array) -> Array:
        """<d_e f h>."""

    @abc.abstractmethod
    def twice(self, c: Array) -> Array:
        """d<f h>/dK_y by the elements y: <d_e d_f f h>, half of it where e is f."""

    @abc.abstractmethod
    def kept(self, c: Array, d: Degrees) -> Array:
        """The coefficients of those degrees."""

    @abc.abstractmethod
    def lowered(self, c: Array, d: Degrees) -> Array:
        """Kept coefficients, as covariances with the chaos."""

    @abc.abstractmethod
    def fourth(self, factors: np.ndarray) -> Array:
        """E of products of four: `factors` (..., 4, 2) has an input and 0 or 1, for sigma or sigma'."""


class SingleFunctions(AbstractFunctions):
    """Of an input by itself, in the chaos of u = z / sqrt(K)."""

    values: Float[Array, "1 p"]
    slopes: Float[Array, "1 p"]
    mixed: Float[Array, "1 p"]
    fourths: Float[Array, "5"]
    q: Float[Array, ""]
    inputs = 1

    def __init__(self, x: SingleSlopes, q: Float[Array, ""]):
        self.values, self.mixed, self.slopes = (x.square[k : k + 1] for k in range(3))
        self.fourths, self.q = x.fourth, q

    def once(self, c):
        return (c[:, 1:] * _row(1, c) / jnp.sqrt(self.q))[:, None]

    def twice(self, c):
        return (c[:, 2:] * _row(2, c) / self.q / 2)[:, None]

    def kept(self, c, d):
        return c[..., d.p]

    def lowered(self, c, d):
        return c

    def fourth(self, factors):
        return self.fourths[4 - np.sum(factors[..., 1], axis=-1)]


class PairFunctions(AbstractFunctions):
    """Of a pair that is not parallel, in the chaos of its basis."""

    values: Float[Array, "3 p k"]
    slopes: Float[Array, "3 p k"]
    mixed: Float[Array, "4 p k"]
    fourths: Float[Array, " products"]
    frame: Frame
    inputs = 2

    def __init__(
        self,
        activation: AbstractActivation,
        inputs: tuple[InputSlopes, InputSlopes],
        singles: tuple[SingleSlopes, SingleSlopes],
        entries: tuple[Array, Array, Array],
        top: int,
    ):
        x, y = inputs
        of_x, of_y = singles
        qa, qb, c = entries
        here, p = frame(qa, qb, c, basis_floor(activation)), np.arange(top + 1)
        if has_kinks(activation):
            # Parallel inputs have delta functions on their common kink: not known, and said so. Of equal
            # ones the means are right, and all else is that of the input by itself.
            equal, apart = equal_inputs(activation, qa, qb, c), here.gram[1, 1] * here.spread**2 > 0
            spread = jnp.where(apart, here.spread, jnp.where(equal, 0, jnp.nan))
            here = eqx.tree_at(lambda x: x.spread, here, spread)
        both = slope_coefficients(activation, x, y, qa, qb, here.corr, here.spread, top)
        ab, a_of_b, b_of_a, slopes = (by_degree(square, p, top + 1) for square in both)
        beside = jnp.zeros((top + 1, top), c.dtype)
        along = lambda f: by_degree(jnp.concatenate([f[: top + 1, None], beside], 1), p, top + 1)
        turned = lambda f: rotated_square(f[: top + 1], here.corr, here.spread)
        own = lambda k: (along(of_x.square[k]), turned(of_y.square[k]))
        stacked = lambda ends, *middle: jnp.stack([ends[0], *middle, ends[1]])
        self.values, self.slopes = stacked(own(0), ab), stacked(own(2), slopes)
        self.mixed = stacked(own(1), a_of_b, b_of_a)
        self.fourths = fourth_slopes(activation, x, y, of_x.fourth, of_y.fourth, qa, qb, c)
        self.frame = here

    def once(self, c):
        j, k = _powers(c.shape[-2] - 1, c.dtype)
        width = c.shape[-1] - 1
        of_u, of_w = c[:, 1:, :width] * jnp.sqrt(j + 1)[None], c[:, 1:, 1:] * jnp.sqrt(k + 1)[None]
        b = self.frame.b
        return jnp.stack([b[0, e] * of_u + b[1, e] * of_w for e in (0, 1)], axis=1)

    def twice(self, c):
        j, k = _powers(c.shape[-2] - 2, c.dtype)
        width, turn = c.shape[-1] - 2, second_power(self.frame.b)
        weights = (
            jnp.sqrt((j + 1) * (j + 2)) / 2,
            jnp.sqrt((j + 1) * (k + 1)),
            jnp.sqrt((k + 1) * (k + 2)) / 2,
        )
        parts = jnp.stack([c[:, 2:, m : m + width] * weights[m][None] for m in range(3)], axis=1)
        return jnp.einsum("xm...,my->xy...", parts, turn)

    def kept(self, c, d):
        return c[..., d.p, : d.order + 1]

    def lowered(self, c, d):
        return lowered(c, self.frame.gram, d.step, int(d.p[0]))

    def fourth(self, factors):
        return self.fourths[_places(factors)]


def equal_inputs(activation: AbstractActivation, qa: Array, qb: Array, c: Array) -> Array:
    """Whether two inputs are the same, to the rounding that inputs count as parallel at, and their means
    are known: of homogeneous activations, by the wedges."""
    if not isinstance(activation, AbstractHomogeneousActivation):
        return jnp.zeros(jnp.broadcast_shapes(qa.shape, qb.shape, c.shape), bool)
    near = lambda x: jnp.abs(x - qa) <= parallel_rounding(c.dtype) * qa
    return near(qb) & near(c)


def _row(down: int, c: Float[Array, "functions degree"]) -> Array:
    """sqrt((p + 1) .. (p + down)), by which derivatives lower a degree so many times."""
    p = np.arange(c.shape[1] - down)[:, None] + np.arange(1.0, down + 1)
    return jnp.asarray(np.sqrt(np.prod(p, axis=1)), c.dtype)[None]


def _powers(count: int, dtype) -> tuple[Array, Array]:
    """j = p - k, zero where it is negative, and k. (count, count)."""
    p, k = np.arange(count)[:, None], np.arange(count)[None, :]
    return jnp.asarray(np.maximum(p - k, 0), dtype), jnp.asarray(
        np.broadcast_to(k, (count, count)), dtype
    )


def _places(factors: np.ndarray) -> np.ndarray:
    """Where products of four factors are in `FOURTH`."""
    of = lambda which, slope: np.sum((factors[..., 0] == which) & (factors[..., 1] == slope), axis=-1)
    counts = np.stack([of(0, 0), of(0, 1), of(1, 0), of(1, 1)], axis=-1)
    flat = [FOURTH.index(tuple(int(n) for n in row)) for row in counts.reshape(-1, 4)]
    return np.array(flat).reshape(counts.shape[:-1])
