"""The Wick tower of inputs by themselves: one number a degree, so that a high order costs little.

With r_p = Cov(D, sum_i h_p(u_i) / sqrt n), u = h / sqrt(K), c_p = C_W E[sigma^2 h_p(u)], at one layer:

    chi = sqrt(2) c_2 / (2 K),    1/2 D^2Q = sqrt(24) c_4 / (8 K^2)
    r_p' = (alpha sqrt(K / K'))^p [alpha^2 r_p + eps^2 (c_p + chi r_p)]
    V4 = 2 K^2 + 2 sqrt(2) K r_2 + C
    S = 1/2 D^2Q C + (1 / 2K) sum_p sqrt((p+1)(p+2)) c_{p+2} r_p.

C and K1 follow as for a pair (`tower.py`). At zero variance u is h itself, as in `chaos_basis.py`: then
`unit` is one instead of K, and Var u zero with a derivative.

Along a flow the degrees above those that are kept are added by `single_tail.py`.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._architecture.layer import Affine, Layer
from .._architecture.start import AbstractStart
from .._expectation.chaos import cumulative_powers
from .._expectation.products import SingleProducts
from .chaos_basis import Degrees
from .single_tail import Tail, TailRate, begin_tail, tail_memory, tail_push, tail_rate
from .truncation import (
    Neglected,
    Tails,
    neglected_push,
    neglected_rate,
    nothing_neglected,
    parseval_tail,
    source_tail,
)


class SingleTower(NamedTuple):
    """r, C, K1 and what the truncation leaves out, of one input; along a flow what higher degrees add."""

    memory: Float[Array, " degree"]
    covariance: Float[Array, ""]
    correction: Float[Array, ""]
    neglected: Neglected
    tail: Tail | None = None


class Above(NamedTuple):
    """Along a flow, the degrees above those that are kept, and the layer of the flow, which made their
    memory: that of a read-out too."""

    p: np.ndarray
    flow: Affine


class SingleMoments(NamedTuple):
    """V4 and K1 of inputs by themselves, and their truncation errors: bounds, along a flow estimates."""

    covariance: Float[Array, " n"]
    correction: Float[Array, " n"]
    covariance_error: Float[Array, " n"]
    correction_error: Float[Array, " n"]


def begin_single(
    start: AbstractStart,
    d: Degrees,
    q: Array,
    covariance: Array,
    shift: Array,
    spectrum: Array | None = None,
) -> SingleTower:
    """At the start; with the `spectrum` E[sigma^2 h_p] there, of a flow with a tail."""
    memory = jnp.zeros((len(d.p),), q.dtype)
    if start.memory:
        memory = memory.at[d.second].set(-np.sqrt(2.0).astype(q.dtype) * q * (q / _unit(q)))
    covariance = start.memory * 2 * q**2 + covariance
    added = None if spectrum is None else begin_tail(q, spectrum)
    return SingleTower(memory, covariance, shift, nothing_neglected(1, q.dtype), added)


def _unit(q: Array) -> Array:
    return jnp.where(q > 0, q, 1)


class _Layer(NamedTuple):
    chi: Float[Array, ""]
    q: Float[Array, ""]
    driven: Float[Array, ""]
    noise: Float[Array, ""]
    shift: Float[Array, ""]
    drive: Float[Array, " degree"]
    tails: Tails
    curved: Float[Array, "1"]
    curvature: Float[Array, ""]
    added: tuple[Tail, TailRate] | None


def _layer(
    products: SingleProducts,
    q: Array,
    tower: SingleTower,
    affine: Affine,
    d: Degrees,
    above: Above | None,
) -> _Layer:
    inverse = 1 / _unit(q)
    root = lambda x: jnp.asarray(np.sqrt(x), q.dtype)
    squared, c = affine.weight_variance**2, affine.weight_variance * products.square
    chi = root(2.0) * c[2] / 2 * inverse
    curvature = root(24.0) * c[4] * inverse / 8 * inverse
    powers = cumulative_powers(jnp.where(q > 0, 1, q), d.order + 1)[d.p]
    of = lambda p: (c[p], root((p + 1.0) * (p + 2)) * c[p + 2] / 2 * inverse)
    expansion, source = of(d.p)
    drive, sources = expansion * powers, source**2 * powers
    size, energy = squared * products.fourth, squared * products.curvature
    drift, noise = affine.bias_variance + c[0], size - c[0] ** 2
    tails = Tails(
        drive=parseval_tail(noise, jnp.sum(expansion * drive), size)[None],
        source=source_tail(energy, chi, sources, d.p)[None, None],
        overlap=jnp.ones((1, 1), q.dtype),
        contraction=jnp.where(q > 0, drift * inverse, 0)[None],
        noise=jnp.zeros((1, 1), q.dtype),
    )
    lacking = tower.neglected

    def added(tail: Tail, above: Above) -> tuple[Tail, TailRate]:
        p = above.p
        memory, change, used = tail_memory(products.square, q, tail, above.flow, p)
        # Beyond the highest degree memory is less than the bound of all that the kept ones leave out;
        # without a tail all of that is missing.
        expansion, source = of(p)
        beyond = parseval_tail(tails.drive[0] ** 2, jnp.sum(expansion**2), size)
        norms, degree = jnp.concatenate([sources, source**2]), np.concatenate([d.p, p])
        u = source_tail(energy, chi, norms, degree)
        missing = lambda tail, plain: jnp.where(used, tail, plain) * lacking.memory[0, 0]
        return tail, TailRate(
            driven=jnp.sum(expansion * memory),
            shift=jnp.sum(source * memory),
            driven_error=jnp.sum(jnp.abs(expansion * change)) + missing(beyond, tails.drive[0]),
            shift_error=jnp.sum(jnp.abs(source * change)) + missing(u, tails.source[0, 0]),
        )

    return _Layer(
        chi=chi,
        q=drift,
        driven=jnp.sum(expansion * tower.memory),
        noise=noise,
        shift=curvature * tower.covariance + jnp.sum(source * tower.memory),
        drive=drive,
        tails=tails,
        curved=jnp.abs(curvature) * lacking.covariance[0],
        curvature=curvature,
        added=None if above is None or tower.tail is None else added(tower.tail, above),
    )


def single_rate(
    products: SingleProducts, q: Array, tower: SingleTower, layer: Layer, d: Degrees, above: Above | None
) -> SingleTower:
    here = _layer(products, q, tower, layer.affine, d, above)
    p = jnp.asarray(d.p, q.dtype)
    return SingleTower(
        memory=here.drive + (here.chi - p / 2 * here.tails.contraction) * tower.memory,
        covariance=2 * (here.driven + here.chi * tower.covariance),
        correction=here.chi * tower.correction + here.shift,
        neglected=neglected_rate(
            tower.neglected, here.tails, here.chi[None, None], here.curved, d.neglected
        ),
        tail=None if here.added is None else tail_rate(*here.added, here.chi, here.curvature),
    )


def single_push(
    products: SingleProducts, q: Array, tower: SingleTower, layer: Layer, d: Degrees, above: Above | None
) -> SingleTower:
    here = _layer(products, q, tower, layer.affine, d, above)
    forth, back = layer.skip**2, layer.scale**2
    turn = layer.skip * jnp.sqrt(_unit(q) / _unit(forth * q + back * here.q))
    powers = cumulative_powers(turn, d.order + 1)[d.p]
    jacobian = forth + back * here.chi
    return SingleTower(
        memory=powers * (jacobian * tower.memory + back * here.drive),
        covariance=jacobian**2 * tower.covariance
        + 2 * back * jacobian * here.driven
        + back**2 * here.noise / layer.width,
        correction=jacobian * tower.correction + back * here.shift,
        neglected=neglected_push(
            tower.neglected, here.tails, here.chi[None, None], here.curved, layer, d.neglected
        ),
        tail=None if here.added is None else tail_push(*here.added, here.chi, here.curvature, layer),
    )


def single_moments(variances: Array, towers: SingleTower, d: Degrees, stream: bool) -> SingleMoments:
    covariance = towers.covariance
    if stream:
        r2 = np.sqrt(2.0).astype(variances.dtype) * _unit(variances) * towers.memory[:, d.second]
        covariance = 2 * variances**2 + 2 * r2 + covariance
    correction, lacking = towers.correction, towers.neglected
    errors = lacking.covariance[:, 0, 0], lacking.correction[:, 0]
    if (tail := towers.tail) is not None:
        covariance, correction = covariance + tail.covariance, correction + tail.correction
        # Without what is added the bound would hold; with it that is off by as much more.
        errors = (
            jnp.minimum(tail.covariance_error, errors[0] + jnp.abs(tail.covariance)),
            jnp.minimum(tail.correction_error, errors[1] + jnp.abs(tail.correction)),
        )
    return SingleMoments(covariance, correction, *errors)
