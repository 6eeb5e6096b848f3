"""The tangent tower of one input, or of one pair: its state, a layer, a flow, and its moments."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._architecture.layer import Layer
from .._expectation.chaos import cumulative_powers
from .chaos_basis import Degrees, change_basis, frame, frame_rate, turning, units
from .elements import PAIR, wishart
from .sectors import Sector, SectorLayer, Turn, sector_push, sector_rate
from .tangent_layer import TangentLayer, mean_source, source_error
from .tower import monomials, pair_matrix, second_norms
from .truncation import contraction_rate

#: The degrees that the three sectors keep.
Kept = tuple[Degrees, Degrees, Degrees]


class TangentUnit(NamedTuple):
    """Sectors m = 0, 1, 2; the mean shift (K1, Theta1) with its error, on elements (zz, yy)."""

    sectors: tuple[Sector, Sector, Sector]
    correction: Float[Array, " x"]
    error: Float[Array, " x"]


class UnitMoments(NamedTuple):
    """V4, D (first the element of the kernel) and A over elements, F and B over labels, K1 and Theta1."""

    kernel: Float[Array, "*n e e"]
    mixed: Float[Array, "*n e e"]
    tangent: Float[Array, "*n e e"]
    cross: Float[Array, "*n l l"]
    exchange: Float[Array, "*n l l"]
    corrections: Float[Array, "*n 2 e"]


def begin_unit(inputs: int, kept: Kept, dtype: Any) -> TangentUnit:
    """No memory, no fluctuation, no shift."""
    elements, labels = inputs * (inputs + 1) // 2, inputs**2
    counts = ((2 * elements, 1), (labels, inputs), (labels, labels))
    zeros = lambda *shape: jnp.zeros(shape, dtype)
    beside = () if inputs == 1 else (kept[0].order + 1,)
    one = lambda m: Sector(
        zeros(*counts[m], len(kept[m].p), *beside),
        *(zeros(*[counts[m][0]] * axes) for axes in (2, 1, 2)),
    )
    return TangentUnit((one(0), one(1), one(2)), zeros(2 * elements), zeros(2 * elements))


def unit_push(here: TangentLayer, unit: TangentUnit, layer: Layer, turn: Turn) -> TangentUnit:
    """Through one layer."""
    forth, back = layer.skip**2, layer.scale**2
    chi = here.sectors[0].chi
    jacobian = forth * jnp.eye(chi.shape[0], dtype=chi.dtype) + back * chi
    return TangentUnit(
        _each(lambda m, s, old: sector_push(m, s, old, layer, turn), here, unit),
        jacobian @ unit.correction + back * mean_source(here, unit.sectors),
        jnp.abs(jacobian) @ unit.error + back * source_error(here, unit.sectors),
    )


def unit_rate(here: TangentLayer, unit: TangentUnit, turn: Turn) -> TangentUnit:
    """Along a flow; `turn` has rates."""
    chi = here.sectors[0].chi
    growing = jnp.where(np.eye(chi.shape[0], dtype=bool), chi, jnp.abs(chi))
    return TangentUnit(
        _each(lambda m, s, old: sector_rate(m, s, old, turn), here, unit),
        chi @ unit.correction + mean_source(here, unit.sectors),
        growing @ unit.error + source_error(here, unit.sectors),
    )


def _each(step: Callable[[int, SectorLayer, Sector], Sector], here: TangentLayer, unit: TangentUnit):
    """The three sectors after a step."""
    one = lambda m: step(m, here.sectors[m], unit.sectors[m])
    return one(0), one(1), one(2)


def single_turn(q: Array, after: Array, skip: Array, kept: Kept) -> Turn:
    """From the variance `q` to that `after` a layer."""
    ratio = skip * jnp.sqrt(q / after)
    powers = cumulative_powers(ratio, max(d.neglected for d in kept) + 1)
    contraction = lambda m: jnp.abs(powers[kept[m].neglected])
    return Turn(lambda m, r: r * powers[kept[m].p][None], contraction)


def single_turning(q: Array, drift: Array, kept: Kept) -> Turn:
    """As the variance moves by `drift`."""
    rate = -drift / q / 2
    degree = lambda m: jnp.asarray(kept[m].p, q.dtype)
    return Turn(lambda m, r: rate * degree(m)[None] * r, lambda m: -rate * kept[m].neglected)


def pair_turn(entries: Any, after: Any, drift: Any, layer: Layer, kept: Kept) -> Turn:
    """From the kernel (qa, qb, c) of a pair to that `after` a layer, whose Q is `drift`."""
    here, there = (frame(*x, floor=kept[0].floor) for x in (entries, after))
    turned = layer.skip * there.b @ here.a
    forth, back = layer.skip**2, layer.scale**2
    total = forth + back * contraction_rate(pair_matrix(*drift), here.b, units(here.gram))
    square = forth / jnp.where(total > 0, total, 1)
    contraction = lambda m: square ** (kept[m].neglected / 2)
    return Turn(lambda m, r: change_basis(r, turned, *_table(kept[m])), contraction)


def pair_turning(entries: Any, drift: Any, kept: Kept) -> Turn:
    """As the kernel of a pair moves by `drift`, (aa, bb, ab)."""
    here, moved = frame(*entries, floor=kept[0].floor), pair_matrix(*drift)
    rate = frame_rate(*entries, drift=moved, floor=kept[0].floor)
    slowest = contraction_rate(moved, here.b, units(here.gram))
    contraction = lambda m: kept[m].neglected / 2 * slowest
    return Turn(lambda m, r: turning(r, rate, *_table(kept[m])), contraction)


def _table(d: Degrees) -> tuple[int, int]:
    """The step and the first of the degrees."""
    return d.step, int(d.p[0])


def conditional_moments(unit: TangentUnit) -> UnitMoments:
    """Of a layer's preactivations given the layers before: of feed-forward networks and of read-outs."""
    return _moments([s.covariance for s in unit.sectors], unit.correction)


def unit_errors(unit: TangentUnit) -> UnitMoments:
    """What the truncation leaves out of any of them."""
    return _moments([s.error for s in unit.sectors], unit.error)


def single_stream(q: Array, unit: TangentUnit, kept: Kept) -> UnitMoments:
    """Of averages over the neurons of a residual stream, of an input by itself."""
    found, (even, mixed, exchange) = conditional_moments(unit), unit.sectors
    second = jnp.sqrt(jnp.asarray(2, q.dtype)) * q * even.memory[:, 0, kept[0].second]
    first = jnp.sqrt(q) * mixed.memory[0, 0, _first(kept)]
    return found._replace(
        kernel=2 * q**2 + 2 * second[0] + found.kernel,
        mixed=second[1] + found.mixed,
        cross=2 * first + found.cross,
        exchange=2 * exchange.memory[0, 0, 0] + found.exchange,
    )


def pair_stream(entries: Any, unit: TangentUnit, kept: Kept) -> UnitMoments:
    """The same of a pair."""
    found, (even, mixed, exchange) = conditional_moments(unit), unit.sectors
    a = frame(*entries, floor=kept[0].floor).a
    qa, qb, c = entries
    norms = second_norms(a.dtype)[None]
    second = even.memory[:, 0, kept[0].second, :3] * norms @ monomials(a).T  # Cov(D_x, :z z:_y)
    first = mixed.memory[:, :, _first(kept), :2] @ a.T  # Cov(D_x, y_l z_e), (x, l, e)
    e, f = np.array([(e, f) for e in (0, 1) for f in (0, 1)]).T
    of_mixed = first[:, f, e]
    of_pairs = exchange.memory[:, :, 0, 0]
    return found._replace(
        kernel=wishart(pair_matrix(qa, qb, c), PAIR) + second[:3] + second[:3].T + found.kernel,
        mixed=second[3:].T + found.mixed,
        cross=of_mixed + of_mixed.T + found.cross,
        exchange=of_pairs + of_pairs.T + found.exchange,
    )


def _first(kept: Kept) -> int:
    """Where the sector m = 1 has the degree one."""
    return int(np.argmax(kept[1].p == 1))


def _moments(covariances: list[Array], shift: Array) -> UnitMoments:
    even, mixed, exchange = covariances
    n = even.shape[0] // 2
    parts = even[:n, :n], even[:n, n:], even[n:, n:]
    return UnitMoments(*parts, mixed, exchange, shift.reshape(2, n))
