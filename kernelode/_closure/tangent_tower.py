"""The tangent tower on all pairs of inputs: kernel and tangent kernel to order 1/n.

It is the Wick tower of the extended neuron (z, y), y the tangent: `sectors.py` has what a sector is,
`tangent_layer.py` what one layer makes of them, `tangent_unit.py` the tower of an input or a pair.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._architecture import AbstractArchitecture, AbstractResidualNetwork
from .._architecture.rates import LearningRates, RatedLayer
from .._architecture.start import GaussianRows
from .._expectation.slopes import (
    InputSlopes,
    SingleSlopes,
    input_slopes,
    single_slopes,
    slopes_error,
)
from .._kernel import input_pairs, symmetric
from .._numerics.chunks import map_in_chunks
from .._support.checks import integer, is_concrete
from .._support.custom_types import RealLike
from .base import AbstractPairClosure, AbstractTangentClosure, WidthMoments, check_supported
from .chaos_couplings import check_terms, top_degree
from .singles import SINGLE_ORDER
from .tangent_functions import PairFunctions, SingleFunctions
from .tangent_kernel import TangentKernel
from .tangent_layer import TangentLayer, tangent_layer
from .tangent_moments import gather
from .tangent_state import TangentTowers, covered, equal_pairs, sector_degrees
from .tangent_unit import (
    Kept,
    TangentUnit,
    begin_unit,
    conditional_moments,
    pair_stream,
    pair_turn,
    pair_turning,
    single_stream,
    single_turn,
    single_turning,
    unit_errors,
    unit_push,
    unit_rate,
)
from .wick_tower_pairs import WickTowerPairs, at_index

#: Pairs that are treated together: their arrays are some five times those of `WickTower`.
_CHUNK = 16
#: The order for elements of one input along a flow: memory of degree p relaxes at the rate (p/2) Q/K,
#: which steps have to follow, and at 40 they are no shorter than accuracy makes them.
_FLOW_ORDER = 40


class _Inputs(NamedTuple):
    """What the inputs bring, and their layers."""

    chaos: InputSlopes
    own: SingleSlopes
    layers: TangentLayer


class TangentTower(AbstractPairClosure, AbstractTangentClosure):
    """K0, Theta, and all of their statistics at order 1/n: V4, K1, and of the tangent kernel its mean
    shift, its covariance with itself and with the kernel, and the tensors F and B of Roberts, Yaida &
    Hanin (arXiv:2106.10165, chapter 8; arXiv:2508.11522), on all pairs of inputs.

    Exact of feed-forward networks, whatever the `order`; of residual networks, whose layers remember each
    other, exact as it grows (docs/tangent_kernel.md). `Solution.tangent` has the
    `TangentMoments` of the saved depths, `Solution.read_out.tangent` those of the network's output.

    **Arguments**

    - `order`: P, the highest degree of chaos that pairs keep.
    - `rates`, `tangent`: as in `TangentKernel`.
    - `terms`: orders of the Hermite expansion in the coefficients of a pair.
    - `single_order`: the order for elements of inputs by themselves: by default 120 through layers and 40
        along a flow, or `order` if that is larger.

    Inputs need a positive variance. Those of an activation with kinks must not be parallel; those of the
    ReLU family may be equal, and derivatives are then those by which they stay equal.

    **Raises** `ValueError` for an order below 2 or too many terms, and for inputs that are not covered,
    `TypeError` for orders that are no integers and for networks that are not made of plain layers.
    """

    order: int = eqx.field(static=True)
    base: TangentKernel
    terms: int = eqx.field(static=True)
    single_order: int | None = eqx.field(static=True)

    def __init__(
        self,
        order: int,
        rates: LearningRates | None = None,
        tangent: RealLike | None = None,
        *,
        terms: int = 256,
        single_order: int | None = None,
    ):
        self.order = integer("order", order, least=2)
        self.base = TangentKernel(rates, tangent)
        self.terms = integer("terms", terms, least=1)
        check_terms(self.order, self.terms)
        own = single_order
        self.single_order = own if own is None else integer("single_order", own, least=2)

    def prepare(
        self, network: AbstractArchitecture, kernel: Float[Array, "n n"], ts: Array | None = None
    ) -> "TangentTower":
        self.base.prepare(network, kernel, ts)
        if is_concrete(kernel):
            covered(network, kernel)  # before anything is compiled; traced ones are checked by `init`
        check_supported(network, GaussianRows())
        order, own = self.order, self.single_order
        if not isinstance(network, AbstractResidualNetwork):
            order = own = 2  # nothing is remembered, and everything else is exact
        elif own is None:
            own = max(order, SINGLE_ORDER if ts is None else _FLOW_ORDER)
        rates, tangent = self.base.rates, self.base.tangent
        return TangentTower(order, rates, tangent, terms=self.terms, single_order=own)

    def layers(self, network: AbstractArchitecture) -> RatedLayer:
        return self.base.layers(network)

    def flow_layer(self, network: AbstractResidualNetwork) -> RatedLayer:
        return self.base.flow_layer(network)

    def init(self, network: AbstractArchitecture, kernel: Float[Array, "n n"]) -> TangentTowers:
        first = self.base.init(network, covered(network, kernel))
        theta = self.base.tangent_kernel(first)
        n, (rows, columns) = kernel.shape[0], input_pairs(kernel.shape[0])
        singles = begin_unit(1, self._kept_singles(network), kernel.dtype)
        pairs = begin_unit(2, self._kept(network), kernel.dtype)
        copies = lambda unit, count: jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), unit)
        return TangentTowers(
            jnp.diagonal(kernel),
            jnp.diagonal(theta),
            kernel[rows, columns],
            theta[rows, columns],
            copies(singles, n),
            copies(pairs, len(rows)),
        )

    def rate(
        self, network: AbstractArchitecture, state: TangentTowers, layer: RatedLayer
    ) -> TangentTowers:
        kept, own = self._kept(network), self._kept_singles(network)

        def one_input(here: TangentLayer, q: Array, unit: TangentUnit):
            return unit_rate(here, unit, single_turning(q, here.q[0], own))

        def one_pair(here: TangentLayer, entries: Any, tangent: Array, unit: TangentUnit):
            del tangent
            turn = pair_turning(entries, _in_frame(here.q), kept)
            return here.q[1], here.q[4], unit_rate(here, unit, turn)

        inputs = self._inputs(network, state, layer)
        singles = jax.vmap(one_input)(inputs.layers, state.variances, state.singles)
        q = inputs.layers.q
        covariances, cotangents, pairs = self._map(network, state, layer, inputs, one_pair)
        return TangentTowers(q[:, 0], q[:, 1], covariances, cotangents, singles, pairs)

    def push(
        self, network: AbstractArchitecture, state: TangentTowers, layer: RatedLayer
    ) -> TangentTowers:
        kept, own = self._kept(network), self._kept_singles(network)
        combine = lambda old, new: layer.skip**2 * old + layer.scale**2 * new

        def one_input(here: TangentLayer, q: Array, unit: TangentUnit):
            turn = single_turn(q, combine(q, here.q[0]), layer.skip, own)
            return unit_push(here, unit, layer, turn)

        def one_pair(here: TangentLayer, entries: Any, tangent: Array, unit: TangentUnit):
            drift = _in_frame(here.q)
            after = tuple(combine(x, q) for x, q in zip(entries, drift))
            turn = pair_turn(entries, after, drift, layer, kept)
            return after[2], combine(tangent, here.q[4]), unit_push(here, unit, layer, turn)

        inputs = self._inputs(network, state, layer)
        singles = jax.vmap(one_input)(inputs.layers, state.variances, state.singles)
        q = inputs.layers.q
        covariances, cotangents, pairs = self._map(network, state, layer, inputs, one_pair)
        return TangentTowers(
            combine(state.variances, q[:, 0]),
            combine(state.tangents, q[:, 1]),
            covariances,
            cotangents,
            singles,
            pairs,
        )

    def mean_kernel(self, state: TangentTowers) -> Float[Array, "n n"]:
        return symmetric(state.variances, state.covariances)

    def tangent_kernel(self, state: TangentTowers) -> Float[Array, "n n"]:
        return symmetric(state.tangents, state.cotangents)

    def moments(self, network: AbstractArchitecture, state: TangentTowers) -> WidthMoments:
        if not isinstance(network, AbstractResidualNetwork):
            return self._gathered(network, state)
        kept, own = self._kept(network), self._kept_singles(network)
        rows, columns = input_pairs(state.variances.shape[0])
        singles = jax.vmap(lambda q, unit: single_stream(q, unit, own))(state.variances, state.singles)
        one_pair = lambda a, b, c, unit: pair_stream((a, b, c), unit, kept)
        entries = state.variances[rows], state.variances[columns], state.covariances
        return self._gathered(network, state, singles, jax.vmap(one_pair)(*entries, state.pairs))

    def read_out(self, network: AbstractArchitecture, state: TangentTowers) -> WidthMoments:
        out = self.push(network, state, self.base.rates.read_out_layer(network))
        return self._gathered(network, out)

    def quadrature_error(self, network: AbstractArchitecture, state: TangentTowers) -> Float[Array, ""]:
        values = WickTowerPairs(self.order, self.terms, GaussianRows(), self.order)
        of_values = values.kernel_error(network, state.variances, state.covariances)
        of_slopes = slopes_error(
            network.activation, self.mean_kernel(state), top_degree(self.order), self.terms
        )
        return jnp.maximum(of_values, of_slopes)

    def _kept(self, network: AbstractArchitecture) -> Kept:
        return sector_degrees(network, self.order)

    def _kept_singles(self, network: AbstractArchitecture) -> Kept:
        return sector_degrees(network, self.order if self.single_order is None else self.single_order)

    def _inputs(self, network: AbstractArchitecture, state: TangentTowers, layer: RatedLayer) -> _Inputs:
        kept, activation = self._kept_singles(network), network.activation
        top, highest = top_degree(self.order), top_degree(max(kept[0].order, self.order))

        def one_input(q, theta):
            own = single_slopes(activation, q, highest)
            here = tangent_layer(SingleFunctions(own, q), theta[None], layer, kept)
            return _Inputs(input_slopes(activation, q, top, self.terms), own, here)

        return jax.vmap(one_input)(state.variances, state.tangents)

    def _map(
        self,
        network: AbstractArchitecture,
        state: TangentTowers,
        layer: RatedLayer,
        inputs: _Inputs,
        function: Callable[..., Any],
    ) -> Any:
        """`function` of the layer of every pair."""
        n, kept, top = state.variances.shape[0], self._kept(network), top_degree(self.order)
        if n == 1:
            return state.covariances, state.cotangents, state.pairs

        def one_pair(x):
            a, b, c, tangent, unit = x
            entries = state.variances[a], state.variances[b], c
            chaos, own = ((at_index(x, a), at_index(x, b)) for x in (inputs.chaos, inputs.own))
            functions = PairFunctions(network.activation, chaos, own, entries, top)
            theta = jnp.stack([state.tangents[a], tangent, state.tangents[b]])
            return function(tangent_layer(functions, theta, layer, kept), entries, tangent, unit)

        rows, columns = (jnp.asarray(x) for x in input_pairs(n))
        pairs = rows, columns, state.covariances, state.cotangents, state.pairs
        return map_in_chunks(one_pair, pairs, _CHUNK)

    def _gathered(
        self, network: AbstractArchitecture, state: TangentTowers, singles: Any = None, pairs: Any = None
    ) -> WidthMoments:
        """Moments over all pairs; of what is not given those of a layer given the layers before."""
        kernel, q = self.mean_kernel(state), state.variances
        same = np.eye(q.shape[0], dtype=bool) | equal_pairs(network, q, kernel)
        conditional, errors = jax.vmap(conditional_moments), jax.vmap(unit_errors)
        return gather(
            kernel,
            self.tangent_kernel(state),
            same,
            conditional(state.singles) if singles is None else singles,
            conditional(state.pairs) if pairs is None else pairs,
            errors(state.singles),
            errors(state.pairs),
        )


def _in_frame(q: Float[Array, "6"]) -> tuple[Array, Array, Array]:
    """The drift of (aa, bb, ab)."""
    return q[0], q[2], q[1]
