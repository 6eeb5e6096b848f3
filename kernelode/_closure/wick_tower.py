"""The Wick tower on all elements of a kernel at once: the covariance of any two of them.

V4[ab, cd] closes on the inputs {a, b, c, d}: what D_cd remembers is needed against the chaos of every
pair {a, b}. Each pair e has its own chaos basis; R[e, X] holds Cov(D_X, W^e) for all elements X. The
cost grows as n^4: for few inputs. `tower.py` has the equations, `wick_tower_pairs.py` the restriction to
pairs.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._architecture import AbstractArchitecture, AbstractResidualNetwork, Layer
from .._architecture.start import AbstractStart, GaussianRows, upstream_moments
from .._kernel import element_numbers, own_elements
from .._support.checks import integer
from .base import AbstractPairable, AbstractPairClosure, WidthMoments, check_supported
from .chaos_basis import (
    change_basis,
    frame_rate,
    second_power,
    turning,
)
from .chaos_couplings import check_terms, degree_step
from .elements import all_elements, wishart
from .four_point import FourPointTower, entries_of, four_point_layer, frames_of, matrix_of
from .layouts import four_point_moments
from .order import chosen_order
from .single_tower import single_moments, single_push, single_rate
from .singles import (
    along_flow,
    begin_singles,
    map_singles,
    single_degrees,
    through_layers,
    tower_degrees,
)
from .tower import (
    kernel_push,
    kernel_rate,
    monomials,
    pair_matrix,
    second_norms,
)
from .truncation import neglected_push, neglected_rate, nothing_neglected
from .wick_tower_pairs import WickTowerPairs


class WickTower(AbstractPairable):
    """K0, V4 and K1 exactly at order 1/n, as `order` grows: the Wick tower (docs/finite_width.md).

    **Arguments**

    - `order`: P, the highest degree of the activations' chaos that is kept. Solutions report bounds of
        what the truncation leaves out. 16 gives V4 to about 1e-4; K1 converges more slowly.
    - `terms`: orders of the Hermite expansion in the coefficients of a pair. Solutions report the
        error in `quadrature_error`, which is large for nearly parallel inputs at large variance.
    - `start`: `GaussianRows()`, `FixedGram()` or `RandomCovariance(covariance, shift)`.
    - `single_order`: the order for the elements of single inputs, V4[aa, aa] and K1[aa]. By default 120
        through layers, or `order` if that is larger. Along a flow it is `order`, and higher degrees of
        these elements are added without a state, adiabatically; a number given here leaves those out.
    - `tolerance`: instead of an order. `propagate` and `solve` then take the lowest of 8, 12, 16, 24, 32,
        48 and 64 whose bound, at the last depth and in the read-out there, is at most `tolerance` times
        V4[ab, ab], and for K1[ab] times sqrt(K_aa K_bb), on the pairs of extreme variances and
        correlations. Needs a kernel that is not traced.
    - `tail`: the highest of the degrees that are added along a flow. `solve` sets it.

    **Raises** `ValueError` for an order below 2 or too many terms; for a tolerance that is not positive,
    or given along with an order; by `propagate` and `solve`, where no order meets the tolerance.
    `TypeError` for orders that are no integers.
    """

    order: int | None = eqx.field(static=True, default=None)
    terms: int = eqx.field(static=True, default=256)
    start: AbstractStart = GaussianRows()
    single_order: int | None = eqx.field(static=True, default=None)
    tolerance: float | None = eqx.field(static=True, default=None)
    tail: int | None = eqx.field(static=True, default=None)

    def __check_init__(self) -> None:
        if (self.order is None) == (self.tolerance is None):
            raise ValueError(
                "`WickTower` needs either an `order` or a `tolerance`, got "
                f"`order={self.order}` and `tolerance={self.tolerance}`."
            )
        integer("terms", self.terms, least=1)
        if self.single_order is not None:
            integer("single_order", self.single_order, least=2)
        if self.tolerance is not None and not self.tolerance > 0:
            raise ValueError(f"`tolerance` must be positive, got {self.tolerance}.")
        if self.order is None:
            return
        integer("order", self.order, least=2)
        check_terms(self.order, self.terms)

    def pairs(self) -> AbstractPairClosure:
        return WickTowerPairs(
            self.order, self.terms, self.start, self.single_order, self.tolerance, self.tail
        )

    def prepare(
        self,
        network: AbstractArchitecture,
        kernel: Float[Array, "n n"],
        ts: Float[Array, " times"] | None = None,
    ) -> "WickTower":
        order = self.order
        if order is None:
            order = chosen_order(self.pairs(), network, kernel, ts)
        found = dataclasses.replace(self, order=order, tolerance=None)
        return through_layers(found) if ts is None else along_flow(found)

    def init(self, network: AbstractArchitecture, kernel: Float[Array, "n n"]) -> FourPointTower:
        check_supported(network, self.start)
        n, d = kernel.shape[0], tower_degrees(self, network)
        first, second = elements = all_elements(n)
        gamma = wishart(kernel, elements)
        memory = jnp.zeros((len(first), len(first), len(d.p), d.order + 1), kernel.dtype)
        if self.start.memory:
            turns = jax.vmap(second_power)(frames_of(kernel, d.floor).b)
            rotated = -jnp.einsum("exy,emy->exm", gamma[:, own_elements(n)].swapaxes(0, 1), turns)
            memory = memory.at[:, :, d.second, :3].set(rotated / second_norms(kernel.dtype)[None, None])
        covariance, correction = upstream_moments(self.start, n, elements, kernel.dtype)
        covariance = self.start.memory * gamma + covariance
        return FourPointTower(
            kernel,
            memory,
            covariance,
            correction,
            nothing_neglected(len(first), kernel.dtype),
            begin_singles(self, network, kernel),
        )

    def rate(self, network: AbstractArchitecture, state: FourPointTower, layer: Layer) -> FourPointTower:
        step, d = degree_step(network.activation), tower_degrees(self, network)
        whole = four_point_layer(self, network, state, layer.affine)
        drift = matrix_of(whole.q)
        first, second = all_elements(drift.shape[0])
        own = jax.vmap(pair_matrix)(drift[first, first], drift[second, second], drift[first, second])
        moved = whole.driven + jnp.einsum("xy,eypk->expk", whole.chi, state.memory)
        rates = jax.vmap(lambda entries, q: frame_rate(*entries, drift=q, floor=d.floor))
        rates = rates(entries_of(state.kernel), own)
        turn = jax.vmap(lambda r, rate: turning(r, rate, step))(state.memory, rates)
        covariance, correction = kernel_rate(whole.chi, whole.sources, state.covariance, state.correction)
        lacking = neglected_rate(state.neglected, whole.tails, whole.chi, whole.curved, d.neglected)
        own = whole.single, jnp.diagonal(state.kernel), state.singles
        singles = map_singles(single_rate, self, network, *own, layer)
        return FourPointTower(drift, moved + turn, covariance, correction, lacking, singles)

    def push(self, network: AbstractArchitecture, state: FourPointTower, layer: Layer) -> FourPointTower:
        step, d = degree_step(network.activation), tower_degrees(self, network)
        here = four_point_layer(self, network, state, layer.affine)
        forth, back = layer.skip**2, layer.scale**2
        kernel = forth * state.kernel + back * matrix_of(here.q)
        before, after = frames_of(state.kernel, d.floor), frames_of(kernel, d.floor)
        turn = layer.skip * after.b @ before.a
        memory = forth * state.memory + back * (
            here.driven + jnp.einsum("xy,eypk->expk", here.chi, state.memory)
        )
        memory = jax.vmap(lambda r, m: change_basis(r, m, step))(memory, turn)
        lacking = neglected_push(state.neglected, here.tails, here.chi, here.curved, layer, d.neglected)
        own = here.single, jnp.diagonal(state.kernel), state.singles
        return FourPointTower(
            kernel,
            memory,
            *kernel_push(here.chi, here.sources, state.covariance, state.correction, layer),
            lacking,
            map_singles(single_push, self, network, *own, layer),
        )

    def mean_kernel(self, state: FourPointTower) -> Float[Array, "n n"]:
        return state.kernel

    def moments(self, network: AbstractArchitecture, state: FourPointTower) -> WidthMoments:
        covariance = state.covariance
        stream = isinstance(network, AbstractResidualNetwork)
        if stream:
            d = tower_degrees(self, network)
            turns = jax.vmap(lambda a: monomials(a)[1])(frames_of(state.kernel, d.floor).a)
            memory = state.memory[:, :, d.second, :3] * second_norms(state.kernel.dtype)[None, None]
            r2 = jnp.einsum("exm,em->xe", memory, turns)
            gamma = wishart(state.kernel, all_elements(state.kernel.shape[0]))
            covariance = gamma + r2 + r2.T + covariance
        return self._expand(network, state, covariance, stream)

    def read_out(self, network: AbstractArchitecture, state: FourPointTower) -> WidthMoments:
        out = self.push(network, state, network.read_out_layer())
        return self._expand(network, out, out.covariance, stream=False)

    def quadrature_error(self, network: AbstractArchitecture, state: FourPointTower) -> Float[Array, ""]:
        pairs = WickTowerPairs(self.order, self.terms, GaussianRows(), self.order)
        return pairs.quadrature_error(network, pairs.init(network, state.kernel))

    def _expand(
        self, network: AbstractArchitecture, state: FourPointTower, covariance: Array, stream: bool
    ) -> WidthMoments:
        """Moments of all elements; of inputs by themselves those of their own towers."""
        n, d = state.kernel.shape[0], single_degrees(self, network)
        own = single_moments(jnp.diagonal(state.kernel), state.singles, d, stream)
        at = element_numbers(n)[np.arange(n), np.arange(n)]
        return four_point_moments(
            state.kernel,
            covariance.at[at, at].set(own.covariance),
            state.correction.at[at].set(own.correction),
            state.neglected.covariance.at[at, at].set(own.covariance_error),
            state.neglected.correction.at[at].set(own.correction_error),
        )
