"""One layer of the tangent tower: Q, its derivatives, what drives every sector, and the mean shift.

With Psi_zz = C_W sigma_a sigma_b and Psi_yy = lambda_W sigma_a sigma_b + C_W Theta_ab sigma'_a sigma'_b,

    Q_zz = C_b + <Psi_zz>,    Q_yy = lambda_b + <Psi_yy>,
    m = 0:  xi_X = Psi_X
    m = 1:  xi_ef = C_W sigma_e sigma'_f y_f
    m = 2:  xi_pr = C_W sigma'_p sigma'_r y_p y~_r,

and the mean shift k = (K1, Theta1) has the source S = 1/2 F''[C] + 1/2 sum <d_e d_f Psi h> R^ef; for y y
with more, as Theta itself fluctuates along with sigma' sigma', and y with z:

    C_W sum <s'_a s'_b h> R^{yy_ab} + C_W <d_e d_f s'_a s'_b> f_{eafb}
    + C_W sum <d_e(s'_a s'_b) h> (R1_{ea;b} + R1_{eb;a}).
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._architecture.rates import RatedLayer
from .._numerics.safe import safe_root
from .chaos_basis import Degrees
from .sectors import Sector, SectorLayer
from .tangent_functions import AbstractFunctions, elements_of


class TangentLayer(NamedTuple):
    """Of an input or of a pair, elements (zz, yy): Q; the three sectors; S by what it is linear in."""

    q: Float[Array, " x"]
    sectors: tuple[SectorLayer, SectorLayer, SectorLayer]
    curvature: Float[Array, "x e e"]
    bend: Float[Array, "e e"]
    of_values: Array
    of_slopes: Array
    of_mixed: Array

    @property
    def inputs(self) -> int:
        return self.of_mixed.shape[1]

    @property
    def elements(self) -> np.ndarray:
        return elements_of(self.inputs)


def tangent_layer(
    functions: AbstractFunctions,
    theta: Float[Array, " e"],
    layer: RatedLayer,
    degrees: tuple[Degrees, Degrees, Degrees],
) -> TangentLayer:
    """`theta` has Theta of the elements; `degrees` those that every sector keeps."""
    weight, rate = layer.affine.weight_variance, layer.rates.weight_variance
    elements, labels, numbers = functions.elements, functions.labels, functions.numbers
    count, zero = len(elements), jnp.zeros((len(elements), len(elements)), theta.dtype)
    eye = jnp.eye(count, dtype=theta.dtype)
    mix = jnp.block([[weight * eye, zero], [rate * eye, weight * jnp.diag(theta)]])
    base = jnp.concatenate([functions.values, functions.slopes])
    psi = jnp.einsum("xy,y...->x...", mix, base)
    slopes = weight * functions.slopes
    lowest, once, twice = functions.lowest, functions.once, functions.twice
    d0, d1, d2 = degrees

    constants = jnp.stack([layer.affine.bias_variance, layer.rates.bias_variance])
    q = jnp.repeat(constants, count) + psi[lowest]
    low = lambda c: c[:, *[slice(3)] * (c.ndim - 1)]  # all that derivatives of the mean need
    of_values, bend = twice(psi), twice(low(slopes))
    through = jnp.concatenate([zero, jnp.diag(slopes[lowest])])
    chi = jnp.concatenate([of_values[lowest], through], axis=1)
    again = twice(low(of_values.reshape(-1, *of_values.shape[2:])))[lowest]

    matrix = theta[numbers].reshape(functions.inputs, functions.inputs)
    factors = lambda pairs, kinds: np.stack([pairs, np.broadcast_to(kinds, pairs.shape)], axis=-1)
    products = lambda left, right: functions.fourth(_products(left, right))
    both = np.concatenate([factors(elements, (0, 0)), factors(elements, (1, 1))])
    mean, moments = base[lowest], products(both, both)

    e, f = labels.T
    of_mixed = weight * once(low(functions.mixed))[lowest]  # (x, e)
    moved = jnp.where(
        f[:, None] == f[None, :], of_mixed[:, e], 0
    )  # of (a, f) by (e, f): the derivative by z_e
    mixed_pairs, slope_pairs = factors(labels, (0, 1)), factors(labels, (1, 1))
    over = matrix[f]  # Theta_fc
    pairs = matrix[e][:, e] * matrix[f][:, f]  # Theta_pq Theta_rs
    own = slopes[numbers]
    mixed_noise = weight**2 * products(mixed_pairs, mixed_pairs) * over[:, f]
    slope_noise = weight**2 * products(slope_pairs, slope_pairs) * pairs

    def sector(c, d, *rest):
        kept = functions.kept(c, d)
        return SectorLayer(kept, functions.lowered(kept, d), *rest)

    size = mix @ moments @ mix.T
    none = jnp.ones((2 * count, 1), theta.dtype)
    centred = size - jnp.outer(mix @ mean, mix @ mean)
    sectors = (
        sector(psi, d0, none, chi, centred, jnp.diagonal(size)),
        sector(weight * functions.mixed, d1, over, moved, mixed_noise, jnp.diagonal(mixed_noise)),
        sector(own, d2, pairs, jnp.diag(own[lowest]), slope_noise, jnp.diagonal(slope_noise)),
    )
    return TangentLayer(
        q=q,
        sectors=sectors,
        curvature=again.reshape(2 * count, count, count) / 2,
        bend=bend[lowest],
        of_values=functions.kept(of_values, d0),
        of_slopes=functions.kept(slopes, d0),
        of_mixed=functions.kept(once(slopes), d1),
    )


def mean_source(here: TangentLayer, sectors: tuple[Sector, Sector, Sector]) -> Float[Array, " x"]:
    """S of (zz, yy)."""
    even, mixed, _ = sectors
    count = len(here.elements)
    inputs = here.inputs
    memory = even.memory[:, 0]
    chaos = tuple(range(2, here.of_values.ndim))
    shift = jnp.einsum("xyz,yz->x", here.curvature, even.covariance[:count, :count])
    shift = shift + jnp.sum(here.of_values * memory[None, :count], axis=(1, *chaos))

    a, b = here.elements.T
    along = jnp.sum(here.of_slopes * memory[count:], axis=tuple(range(1, here.of_slopes.ndim)))
    together = jnp.sum(here.bend * even.covariance[:count, count:].T, axis=1)
    # f_{eafb}, symmetric in e and f, by the elements (e, f).
    f = mixed.covariance.reshape(inputs, inputs, inputs, inputs)[:, a, :, b]  # (x, e, f)
    f = (f + f.swapaxes(1, 2))[:, a, b]
    crossed = jnp.sum(here.bend * f, axis=1)
    r = mixed.memory.reshape(inputs, inputs, *mixed.memory.shape[1:])  # R1[e, f, label]
    partners = r[:, a, b] + r[:, b, a]  # (e, x, *chaos)
    driven = jnp.sum(here.of_mixed.swapaxes(0, 1) * partners, axis=(0, *chaos))
    return shift.at[count:].add(along + together + crossed + driven)


def source_error(here: TangentLayer, sectors: tuple[Sector, Sector, Sector]) -> Float[Array, " x"]:
    """An estimate of the error of `mean_source`: what bounds of C and f make of it, and what memory
    beyond the order would, by ten times the energy of the upper half of the degrees of what meets it in
    S (`truncation.source_tail`)."""
    even, mixed, _ = sectors
    count, inputs = len(here.elements), here.inputs
    a, b = here.elements.T
    bound = jnp.einsum("xyz,yz->x", jnp.abs(here.curvature), even.error[:count, :count])
    upper = lambda c: _upper(c, here.of_slopes.ndim - 1)
    bound = bound + upper(here.of_values) @ even.beyond[:count]
    bend = jnp.abs(here.bend)
    along = upper(here.of_slopes) * even.beyond[count:]
    together = jnp.sum(bend * even.error[:count, count:].T, axis=1)
    f = mixed.error.reshape(inputs, inputs, inputs, inputs)[:, a, :, b]
    crossed = jnp.sum(bend * (f + f.swapaxes(1, 2))[:, a, b], axis=1)
    r = mixed.beyond.reshape(inputs, inputs)
    driven = jnp.sum(upper(here.of_mixed) * (r[:, a] + r[:, b]).T, axis=1)
    own = jnp.sqrt(jnp.diagonal(here.sectors[1].overlap[:inputs]))
    return bound.at[count:].add(along + together + crossed + driven * jnp.maximum(own[a], own[b]))


def _upper(c: Array, axes: int) -> Array:
    """How large the norm of functions may be beyond the degrees that are kept; chaos has so many axes."""
    start = c.shape[-axes] // 2
    upper = jnp.take(c, np.arange(start, c.shape[-axes]), axis=-axes)
    return safe_root(10 * jnp.sum(upper**2, axis=tuple(range(-axes, 0))))


def _products(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Four factors of every X and Y."""
    shape = (len(left), len(right), 2, 2)
    return np.concatenate(
        [np.broadcast_to(left[:, None], shape), np.broadcast_to(right[None], shape)], axis=2
    )
