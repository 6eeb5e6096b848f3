"""The Wick tower on all elements of a kernel at once: the covariance of any two of them.

V4[ab, cd] closes on the inputs {a, b, c, d}: what D_cd remembers is needed against the chaos of every
pair {a, b}. Each pair e has its own chaos basis; R[e, X] holds Cov(D_X, W^e) for all elements X. The
cost grows as n^4: for few inputs. `tower.py` has the equations, `wick_tower_pairs.py` the restriction to
pairs.
"""

import dataclasses
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._activation.base import AbstractHomogeneousActivation, AbstractKinkedActivation
from .._architecture import AbstractArchitecture, AbstractResidualNetwork, Layer
from .._checks import integer
from .._expectation.chaos import input_chaos
from .._expectation.products import SingleProducts, input_products, pair_products
from .._expectation.quadruples import quadruple_moments, quadruples
from .._start import AbstractStart, GaussianRows, upstream_moments
from .base import AbstractPairable, AbstractPairClosure, WidthMoments, check_supported
from .chaos_basis import (
    Degrees,
    Frame,
    basis_floor,
    change_basis,
    degrees,
    frame,
    frame_rate,
    own_frame,
    project,
    second_power,
    turning,
    units,
)
from .chaos_couplings import Couplings, couplings, degree_step, pair_chaos, top_degree
from .elements import all_elements, element_numbers, own_pairs, wishart
from .layouts import four_point_moments
from .order import chosen_order
from .single_tower import SingleTower, single_moments, single_push, single_rate
from .tower import (
    Sources,
    kernel_push,
    kernel_rate,
    monomials,
    pair_matrix,
    second_norms,
    source_of_memory,
)
from .truncation import Neglected, Tails, neglected_push, neglected_rate, nothing_neglected
from .wick_tower_pairs import (
    WickTowerPairs,
    along_flow,
    at_index,
    begin_singles,
    highest_order,
    input_singles,
    known_order,
    map_singles,
    single_degrees,
    through_layers,
)


class FourPointTower(eqx.Module):
    """K0, R[e, X], C and K1, what the truncation leaves out, and the towers of inputs by themselves."""

    kernel: Float[Array, "n n"]
    memory: Float[Array, "e x degree k"]
    covariance: Float[Array, "x x"]
    correction: Float[Array, " x"]
    neglected: Neglected
    singles: SingleTower


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
        if not 1 <= self.terms <= 1024 - top_degree(self.order):
            raise ValueError(
                f"`terms` must lie between 1 and {1024 - top_degree(self.order)}, got {self.terms}."
            )

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
        n, d = kernel.shape[0], self._degrees(network)
        first, second = elements = all_elements(n)
        gamma = wishart(kernel, elements)
        memory = jnp.zeros((len(first), len(first), len(d.p), d.order + 1), kernel.dtype)
        if self.start.memory:
            turns = jax.vmap(second_power)(_frames(kernel, d.floor).b)
            rotated = -jnp.einsum("exy,emy->exm", gamma[:, own_pairs(n)].swapaxes(0, 1), turns)
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
        step, floor = degree_step(network.activation), self._degrees(network).floor
        variances = layer.affine.weight_variance, layer.affine.bias_variance
        whole = self._couple(network, state, *variances)
        drift = _matrix(whole.q)
        first, second = all_elements(drift.shape[0])
        own = jax.vmap(pair_matrix)(drift[first, first], drift[second, second], drift[first, second])
        moved = whole.driven + jnp.einsum("xy,eypk->expk", whole.chi, state.memory)
        rates = jax.vmap(lambda entries, q: frame_rate(*entries, drift=q, floor=floor))
        rates = rates(_entries(state.kernel), own)
        turn = jax.vmap(lambda r, rate: turning(r, rate, step))(state.memory, rates)
        covariance, correction = kernel_rate(whole.chi, whole.sources, state.covariance, state.correction)
        lacking = neglected_rate(
            state.neglected, whole.tails, whole.chi, whole.curved, self._degrees(network).neglected
        )
        one_input = lambda x, q, tower, d, above: single_rate(x, q, tower, *variances, d, above)
        own = jnp.diagonal(state.kernel)
        singles = map_singles(self, network, whole.single, own, state.singles, one_input)
        return FourPointTower(drift, moved + turn, covariance, correction, lacking, singles)

    def push(self, network: AbstractArchitecture, state: FourPointTower, layer: Layer) -> FourPointTower:
        return self._layer(network, state, layer)

    def mean_kernel(self, state: FourPointTower) -> Float[Array, "n n"]:
        return state.kernel

    def moments(self, network: AbstractArchitecture, state: FourPointTower) -> WidthMoments:
        covariance = state.covariance
        stream = isinstance(network, AbstractResidualNetwork)
        if stream:
            d = self._degrees(network)
            turns = jax.vmap(lambda a: monomials(a)[1])(_frames(state.kernel, d.floor).a)
            memory = state.memory[:, :, d.second, :3] * second_norms(state.kernel.dtype)[None, None]
            r2 = jnp.einsum("exm,em->xe", memory, turns)
            gamma = wishart(state.kernel, all_elements(state.kernel.shape[0]))
            covariance = gamma + r2 + r2.T + covariance
        return self._expand(network, state, covariance, stream)

    def read_out(self, network: AbstractArchitecture, state: FourPointTower) -> WidthMoments:
        out = self._layer(network, state, network.read_out_layer())
        return self._expand(network, out, out.covariance, stream=False)

    def quadrature_error(self, network: AbstractArchitecture, state: FourPointTower) -> Float[Array, ""]:
        pairs = WickTowerPairs(self.order, self.terms, GaussianRows(), self.order)
        return pairs.quadrature_error(network, pairs.init(network, state.kernel))

    def _expand(self, network, state: FourPointTower, covariance, stream: bool) -> WidthMoments:
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

    def _degrees(self, network) -> Degrees:
        activation = network.activation
        return degrees(known_order(self), degree_step(activation), basis_floor(activation))

    def _couple(self, network, state: FourPointTower, weight_variance, bias_variance) -> "_Whole":
        d, step = self._degrees(network), degree_step(network.activation)
        kernel, activation = state.kernel, network.activation
        n, top = kernel.shape[0], top_degree(known_order(self))
        first, second = all_elements(n)
        own = own_pairs(n)
        homogeneous = isinstance(activation, AbstractHomogeneousActivation)
        terms = 1 if homogeneous else self.terms
        variances = jnp.diagonal(kernel)
        inputs = jax.vmap(lambda q: input_chaos(activation, q, top, terms))(variances)
        products = jax.vmap(lambda q: input_products(activation, q, top, terms))(variances)
        single = input_singles(activation, variances, highest_order(self))

        def one_pair(a, b):
            entries = kernel[a, a], kernel[b, b], kernel[a, b]
            x, y = (at_index((inputs, products), k) for k in (a, b))
            both = [pair_chaos(activation, x[0], y[0], *entries, single=same) for same in (False, True)]
            pair = jax.tree.map(lambda x, y: jnp.where(a == b, y, x), *both)
            fourths = jnp.stack([single.fourth[a], single.fourth[b]])
            curvatures = jnp.stack([single.curvature[a], single.curvature[b]])
            moments = pair_products(activation, x[1], y[1], fourths, *entries)
            return couplings(pair, moments, curvatures, weight_variance, bias_variance, d)

        here: Couplings = jax.vmap(one_pair)(jnp.asarray(first), jnp.asarray(second))
        frames = _frames(kernel, d.floor)

        # An element's own function, in its own basis and seen from every other.
        number = jnp.asarray(np.where(first == second, 0, 1))
        pick = lambda x: jnp.take_along_axis(x, number.reshape(-1, *[1] * (x.ndim - 1)), axis=1)[:, 0]
        expansion, chi_own, curvature = (pick(x) for x in (here.expansion, here.chi, here.curvature))
        index = np.stack([first, second], axis=1)
        between = kernel[index[:, None, :, None], index[None, :, None, :]]
        overlap = jnp.einsum("xij,xejk,elk->exil", frames.b, between, frames.b)
        seen_from = jax.vmap(jax.vmap(lambda o, c: project(o, c, step)), (0, None))(overlap, expansion)

        scales = jax.vmap(units)(frames.gram)
        rows = np.arange(len(first))[:, None]
        on_own = lambda x: jnp.zeros((len(first), len(first)), kernel.dtype).at[rows, own].add(x)
        noise = jnp.einsum("ypk,yxpk->xy", expansion, seen_from)
        on_pairs = lambda x, of_pairs: (
            x.at[own[:, :, None], own[:, None, :]]
            .set(of_pairs)
            .at[rows[:, 0], rows[:, 0]]
            .set(pick(of_pairs.diagonal(axis1=1, axis2=2)))
        )
        # Norms in orthonormal bases.
        norms = jax.vmap(jax.vmap(_norm))(scales[None, :, :, None] * overlap * scales[:, None, None, :])
        tail = pick(here.tails.drive)
        lacking = tail[:, None] * tail[None, :] * norms**d.neglected
        if not isinstance(activation, AbstractHomogeneousActivation | AbstractKinkedActivation):
            # Of three and four inputs. Kinks leave little beyond the kept degrees.
            found, where = quadruples(n), _quadruple_numbers(n)
            moments = jnp.concatenate(
                [jnp.zeros_like(tail[:1]), quadruple_moments(activation, kernel, found)]
            )[where]
            mean = pick(here.q) - bias_variance
            several = where > 0
            exact = weight_variance**2 * moments - mean[:, None] * mean[None, :]
            noise = jnp.where(several, exact, noise)
            lacking = jnp.where(several, 0, lacking)
        with_own = state.memory[rows, own]  # (x, 3, degree, k)
        of_own = lambda c: c[own[:, :, None], own[:, None, :]]
        return _Whole(
            q=pick(here.q),
            chi=on_own(chi_own),
            driven=seen_from,
            sources=Sources(
                driven=jnp.einsum("xpk,xypk->xy", expansion, state.memory),
                noise=on_pairs(noise, here.noise),
                shift=pick(jax.vmap(source_of_memory)(here.sources, with_own))
                + jnp.einsum("xyz,xyz->x", curvature, of_own(state.covariance)),
            ),
            tails=Tails(
                drive=tail,
                source=on_own(pick(here.tails.source)),
                overlap=norms,
                contraction=pick(here.tails.contraction),
                noise=on_pairs(lacking, here.tails.noise),
            ),
            curved=jnp.einsum("xyz,xyz->x", jnp.abs(curvature), of_own(state.neglected.covariance)),
            single=single,
        )

    def _layer(self, network, state: FourPointTower, layer: Layer):
        step = degree_step(network.activation)
        weight_variance, bias_variance = layer.affine.weight_variance, layer.affine.bias_variance
        here = self._couple(network, state, weight_variance, bias_variance)
        forth, back = layer.skip**2, layer.scale**2
        kernel = forth * state.kernel + back * _matrix(here.q)
        floor = self._degrees(network).floor
        before, after = _frames(state.kernel, floor), _frames(kernel, floor)
        turn = layer.skip * after.b @ before.a
        memory = forth * state.memory + back * (
            here.driven + jnp.einsum("xy,eypk->expk", here.chi, state.memory)
        )
        memory = jax.vmap(lambda r, m: change_basis(r, m, step))(memory, turn)
        lacking = neglected_push(
            state.neglected, here.tails, here.chi, here.curved, layer, self._degrees(network).neglected
        )
        variances = weight_variance, bias_variance
        one_input = lambda x, q, tower, d, above: single_push(x, q, tower, *variances, layer, d, above)
        own = jnp.diagonal(state.kernel)
        return FourPointTower(
            kernel,
            memory,
            *kernel_push(here.chi, here.sources, state.covariance, state.correction, layer),
            lacking,
            map_singles(self, network, here.single, own, state.singles, one_input),
        )


class _Whole(NamedTuple):
    """One layer, for all elements X and pairs e: Q, chi, Cov(xi_X, W^e), and what drives C and K1."""

    q: Float[Array, " x"]
    chi: Float[Array, "x x"]
    driven: Float[Array, "e x degree k"]
    sources: Sources
    tails: Tails
    curved: Float[Array, " x"]
    single: SingleProducts


def _quadruple_numbers(n: int) -> np.ndarray:
    """For any two elements, which of `quadruples(n)` their product is, from one on; zero for none."""
    found = quadruples(n)
    repeated = [tuple(sorted((a, *abc))) for abc in found.triples.tolist() for a in abc[:1]]
    numbers = {key: i for i, key in enumerate([*repeated, *map(tuple, found.fours.tolist())], start=1)}
    pairs = np.stack(all_elements(n), axis=1).tolist()
    return np.array([[numbers.get(tuple(sorted(x + y)), 0) for y in pairs] for x in pairs])


def _norm(m: Float[Array, "2 2"]) -> Float[Array, ""]:
    """The largest singular value of a contraction."""
    square = m @ m.T
    half, side = (square[0, 0] - square[1, 1]) / 2, square[1, 0]
    apart = half**2 + side**2
    root = lambda x: jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1)), 0)
    return jnp.minimum(root((square[0, 0] + square[1, 1]) / 2 + root(apart)), 1)


def _entries(kernel: Float[Array, "n n"]) -> tuple[Array, Array, Array]:
    """(K_aa, K_bb, K_ab) of every element."""
    first, second = all_elements(kernel.shape[0])
    return kernel[first, first], kernel[second, second], kernel[first, second]


def _frames(kernel: Float[Array, "n n"], floor: float) -> Frame:
    """The bases of all elements."""
    first, second = all_elements(kernel.shape[0])
    frames = jax.vmap(lambda *entries: frame(*entries, floor=floor))(*_entries(kernel))
    own = lambda x: jnp.asarray(first == second).reshape(-1, *[1] * (x.ndim - 1))
    return jax.tree.map(lambda x, alone: jnp.where(own(x), alone, x), frames, jax.vmap(own_frame)(frames))


def _matrix(elements: Float[Array, " x"]) -> Float[Array, "n n"]:
    """Values on the elements a <= b as a symmetric matrix."""
    n = int((np.sqrt(8 * elements.shape[0] + 1) - 1) / 2)
    return elements[element_numbers(n)]
