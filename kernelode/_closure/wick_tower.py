"""The Wick tower: the kernel's fluctuation and mean shift, exactly at order 1/n, on every pair.

At leading order the neurons are independent Gaussian chains. The chaos of degree p of their
preactivations, W_p = n^{-1/2} sum_i :phi_i ... phi_i:, drives the kernel through

    xi_ab = C_W sum_p (1/p!) T^(p)_ab W_p,    T^(p)_ab;a1..ap = E[d_a1 .. d_ap sigma_a sigma_b],

and what the kernel has taken up, D, is remembered by R_p = Cov(D, W_p). With J = chi = dQ/dK:

    R_p' = alpha^p [alpha^2 R_p + eps^2 (Cov(xi, W_p) + chi R_p)]
    C'   = alpha^4 C + alpha^2 eps^2 (M + M^T) + eps^4 Cov(dQ, dQ),   M = Cov(xi, D) + chi C
    K1'  = alpha^2 K1 + eps^2 (chi K1 + S)
    S    = 1/2 D^2 Q[C] + 1/2 C_W sum_p (1/p!) T^(p+2) R_p
    V4   = Gamma(K0) + R_2 + R_2^T + C.

It is exact as the order P to which p runs grows; docs/finite_width.md has the derivation. Coordinates
of a chaos are those of `chaos_basis.py`; this file has one pair of inputs, mapped over all of them.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._activation.base import AbstractHomogeneousActivation
from .._architecture.base import AbstractArchitecture, AbstractResidualNetwork, Layer
from .._chunks import map_in_chunks
from .._expectation.chaos import InputChaos, coefficient_errors, correlation, input_chaos
from .base import AbstractMomentClosure, WidthMoments, check_single_layer_blocks
from .chaos_basis import Degrees, change_basis, degrees, frame, second_power, turning
from .chaos_couplings import (
    Couplings,
    PairChaos,
    couplings,
    degree_step,
    pair_chaos,
    top_degree,
)
from .elements import PAIR, wishart
from .start import AbstractStart

#: Pairs that are treated together: enough to vectorise, few enough for a processor's cache.
_CHUNK = 32


class Tower(NamedTuple):
    """R, C and K1 of one pair, D in (aa, ab, bb). C and K1 at the full order, and without its last four
    degrees."""

    memory: Float[Array, "3 degree k"]
    covariance: Float[Array, "2 3 3"]
    correction: Float[Array, "2 3"]


class PairTowers(eqx.Module):
    """The kernel's elements, and the towers of all pairs."""

    variances: Float[Array, " n"]
    covariances: Float[Array, " pairs"]
    towers: Tower


def input_pairs(n: int) -> tuple[np.ndarray, np.ndarray]:
    """The pairs a < b; the input with itself if there is but one."""
    return np.triu_indices(n, k=1) if n > 1 else (np.zeros(1, int), np.zeros(1, int))


class WickTowerPairs(AbstractMomentClosure):
    """`WickTower` on all pairs of inputs; what `WickTower(...).pairs()` returns."""

    order: int = eqx.field(static=True)
    terms: int = eqx.field(static=True)
    start: AbstractStart

    def init(self, network: AbstractArchitecture, kernel: Float[Array, "n n"]) -> PairTowers:
        check_single_layer_blocks(network)
        rows, columns = input_pairs(kernel.shape[0])
        variances, covariances = jnp.diagonal(kernel), kernel[rows, columns]
        d = self._degrees(network)
        begin = lambda qa, qb, c, v, k1: begin_tower(self.start, d, qa, qb, c, v, k1)
        upstream = pair_moments_of_start(self.start, kernel.shape[0], kernel.dtype)
        towers = jax.vmap(begin)(variances[rows], variances[columns], covariances, *upstream)
        return PairTowers(variances, covariances, towers)

    def rate(self, network: AbstractArchitecture, state: PairTowers) -> PairTowers:
        d, step = self._degrees(network), degree_step(network.activation)

        def one_pair(pair: PairChaos, tower: Tower, entries):
            del entries
            layer = couplings(pair, network.weight_variance, network.bias_variance, d)
            return layer.q[1], tower_rate(layer, pair, tower, d, step)

        inputs, (moved, towers) = self._map(network, state, one_pair)
        variances = network.bias_variance + network.weight_variance * inputs.square[:, 0]
        return PairTowers(variances, moved, towers)

    def push(self, network: AbstractArchitecture, state: PairTowers, layer: Layer) -> PairTowers:
        return self._layer(network, state, layer, network.weight_variance, network.bias_variance)

    def mean_kernel(self, state: PairTowers) -> Float[Array, "n n"]:
        n = state.variances.shape[0]
        rows, columns = input_pairs(n)
        kernel = jnp.zeros((n, n), state.variances.dtype)
        kernel = kernel.at[rows, columns].set(state.covariances).at[columns, rows].set(state.covariances)
        return kernel.at[np.arange(n), np.arange(n)].set(state.variances)

    def moments(self, network: AbstractArchitecture, state: PairTowers) -> WidthMoments:
        rows, columns = input_pairs(state.variances.shape[0])
        stream = isinstance(network, AbstractResidualNetwork)
        d = self._degrees(network)
        one = lambda qa, qb, c, tower: tower_covariance(qa, qb, c, tower, d, stream)
        entries = (state.variances[rows], state.variances[columns], state.covariances)
        covariance = jax.vmap(one)(*entries, state.towers)
        return self._collect(self.mean_kernel(state), covariance, state.towers.correction)

    def read_out(self, network: AbstractArchitecture, state: PairTowers) -> WidthMoments:
        one = jnp.ones((), state.variances.dtype)
        layer = Layer(scale=one, skip=0 * one, width=network.last_width)
        out = self._layer(
            network, state, layer, network.output_weight_variance, network.output_bias_variance
        )
        return self._collect(self.mean_kernel(out), out.towers.covariance, out.towers.correction)

    def quadrature_error(self, network: AbstractArchitecture, state: PairTowers) -> Float[Array, ""]:
        if isinstance(network.activation, AbstractHomogeneousActivation):
            return jnp.asarray(1024 * jnp.finfo(state.variances.dtype).eps, state.variances.dtype)
        inputs = self._inputs(network, state.variances)
        if state.variances.shape[0] == 1:
            return jnp.max(inputs.relative_error)
        top = top_degree(self.order)
        kept = jnp.asarray(np.add.outer(np.arange(top + 1), np.arange(top + 1)) <= top)

        def one_pair(index):
            a, b, c = index
            at = lambda k: jax.tree.map(lambda leaf: leaf[k], inputs)
            x, y = at(a), at(b)
            corr, complement = correlation(state.variances[a], state.variances[b], c)
            errors = coefficient_errors(x, y, corr, complement)
            size = jnp.sqrt(jnp.abs(x.square[0] * y.square[0]))
            return jnp.max(jnp.where(kept, errors, 0)) / jnp.where(size > 0, size, 1)

        rows, columns = (jnp.asarray(x) for x in input_pairs(state.variances.shape[0]))
        return jnp.max(map_in_chunks(one_pair, (rows, columns, state.covariances), _CHUNK))

    def _degrees(self, network) -> Degrees:
        return degrees(self.order, degree_step(network.activation))

    def _inputs(self, network, variances) -> InputChaos:
        # Neither one input alone nor a homogeneous activation expands the partner.
        alone = variances.shape[0] == 1 or isinstance(network.activation, AbstractHomogeneousActivation)
        terms = 1 if alone else self.terms
        top = top_degree(self.order)
        return jax.vmap(lambda q: input_chaos(network.activation, q, top, terms))(variances)

    def _map(self, network, state: PairTowers, function):
        """What inputs bring, computed once for each, and `function` of every pair."""
        n = state.variances.shape[0]
        inputs = self._inputs(network, state.variances)

        def one_pair(x):
            a, b, c, tower = x
            qa, qb = state.variances[a], state.variances[b]
            at = lambda k: jax.tree.map(lambda leaf: leaf[k], inputs)
            pair = pair_chaos(network.activation, at(a), at(b), qa, qb, c, single=n == 1)
            return function(pair, tower, (qa, qb, c))

        rows, columns = (jnp.asarray(x) for x in input_pairs(n))
        return inputs, map_in_chunks(one_pair, (rows, columns, state.covariances, state.towers), _CHUNK)

    def _layer(self, network, state: PairTowers, layer: Layer, weight_variance, bias_variance):
        d, step = self._degrees(network), degree_step(network.activation)
        combine = lambda k, q: layer.skip**2 * k + layer.scale**2 * q

        def one_pair(pair: PairChaos, tower: Tower, entries):
            here = couplings(pair, weight_variance, bias_variance, d)
            qa, qb, c = (combine(k, q) for k, q in zip(entries, (here.q[0], here.q[2], here.q[1])))
            there = frame(qa, qb, *correlation(qa, qb, c))
            turned = layer.skip * there.b @ pair.frame.a
            return c, tower_push(here, tower, layer, turned, d, step)

        inputs, (covariances, towers) = self._map(network, state, one_pair)
        drift = bias_variance + weight_variance * inputs.square[:, 0]
        return PairTowers(combine(state.variances, drift), covariances, towers)

    def _collect(self, kernel, covariance, correction) -> WidthMoments:
        """Pair blocks in both orders, and those of each input with itself."""
        n = kernel.shape[0]
        index, swapped = _pair_of(n)
        flip = np.array([2, 1, 0])
        blocks = covariance[index]
        blocks = jnp.where(swapped[..., None, None, None], blocks[..., flip, :][..., flip], blocks)
        shifts = correction[index]
        shifts = jnp.where(swapped[..., None, None], shifts[..., flip], shifts)
        own = np.eye(n, dtype=bool)[..., None, None, None]
        blocks = jnp.where(own, blocks[..., :1, :1], blocks)
        shifts = jnp.where(np.eye(n, dtype=bool)[..., None], shifts[..., 0], shifts[..., 1])
        return WidthMoments(
            mean_kernel=kernel,
            kernel_covariance=blocks[:, :, 0],
            kernel_variance=blocks[:, :, 0, 1, 1],
            mean_correction=shifts[..., 0],
            covariance_truncation=blocks[:, :, 0] - blocks[:, :, 1],
            correction_truncation=shifts[..., 0] - shifts[..., 1],
        )


def _pair_of(n: int) -> tuple[np.ndarray, np.ndarray]:
    """For every (a, b): the number of its pair, and whether that is (b, a). An input with itself takes
    part in a pair with another, where its own block is the first after the swap."""
    index = np.zeros((n, n), int)
    rows, columns = input_pairs(n)
    index[rows, columns] = index[columns, rows] = np.arange(len(rows))
    swapped = np.tril(np.ones((n, n), bool), k=-1)
    if n > 1:
        for a in range(n - 1):
            index[a, a] = index[a, a + 1]
        index[n - 1, n - 1], swapped[n - 1, n - 1] = index[n - 1, n - 2], True
    return index, swapped


def pair_moments_of_start(start: AbstractStart, n: int, dtype):
    """Upstream covariance (pairs, 3, 3) and shift (pairs, 3) of every pair."""
    rows, columns = input_pairs(n)
    first, second = (
        np.stack([x, y, z], 1) for x, y, z in ((rows, rows, columns), (rows, columns, columns))
    )
    upstream = start.moments(n)
    if upstream is None:
        return jnp.zeros((len(rows), 3, 3), dtype), jnp.zeros((len(rows), 3), dtype)
    covariance, shift = (x.astype(dtype) for x in upstream)
    x, y = (first[:, :, None], second[:, :, None]), (first[:, None, :], second[:, None, :])
    return covariance[(*x, *y)], shift[first, second]


def pair_matrix(qa, qb, c) -> Float[Array, "2 2"]:
    return jnp.stack([jnp.stack([qa, c]), jnp.stack([c, qb])])


def begin_tower(start: AbstractStart, d: Degrees, qa, qb, c, covariance, shift) -> Tower:
    """R_2 = -memory Gamma, in the chaos basis; C = memory Gamma + the upstream covariance."""
    gamma = wishart(pair_matrix(qa, qb, c), PAIR)
    memory = jnp.zeros((3, len(d.p), d.order + 1), qa.dtype)
    if start.memory and 2 in d.p:
        # Cov(D, h_j h_k) = Cov(D, :phi phi:) with the monomials rotated into (uu, uv, vv).
        rotated = -gamma @ second_power(frame(qa, qb, *correlation(qa, qb, c)).b).T
        scale = jnp.asarray([np.sqrt(0.5), 1.0, np.sqrt(0.5)], qa.dtype)
        memory = memory.at[:, int(np.argmax(d.p == 2)), :3].set(rotated * scale[None])
    covariance = start.memory * gamma + covariance
    return Tower(memory, jnp.stack([covariance] * 2), jnp.stack([shift] * 2))


def truncations(d: Degrees) -> np.ndarray:
    """(2, degree): the full order, and the order less four."""
    return np.stack([d.p <= d.order, d.p <= d.order - 4]).astype(float)


class Sources(NamedTuple):
    """Cov(xi, D), Cov(xi, xi) and S, at both truncations."""

    driven: Float[Array, "2 3 3"]
    noise: Float[Array, "2 3 3"]
    shift: Float[Array, "2 3"]


def tower_sources(layer: Couplings, tower: Tower, d: Degrees) -> Sources:
    mask = jnp.asarray(truncations(d), tower.memory.dtype)
    per_degree = lambda subscripts, *x: jnp.einsum(subscripts, mask, *x)
    turned = jnp.einsum("my,ypk->mpk", layer.turn, tower.memory)
    return Sources(
        driven=per_degree("tp,xpk,ypk->txy", layer.drive, tower.memory),
        noise=per_degree("tp,xpk,ypk->txy", layer.drive, layer.drive),
        shift=per_degree("tp,xmpk,mpk->tx", layer.sources, turned)
        + jnp.einsum("xyz,tyz->tx", layer.curvature, tower.covariance),
    )


_transpose = lambda x: jnp.swapaxes(x, -1, -2)


def tower_rate(layer: Couplings, pair: PairChaos, tower: Tower, d: Degrees, step: int) -> Tower:
    """dR_p/dt = Cov(xi, W_p) + chi R_p, dC/dt = M + M^T, dK1/dt = chi K1 + S, in the turning frame."""
    sources = tower_sources(layer, tower, d)
    drift = pair_matrix(layer.q[0], layer.q[2], layer.q[1])
    memory = layer.drive + jnp.einsum("xy,ypk->xpk", layer.chi, tower.memory)
    m = sources.driven + layer.chi[None] @ tower.covariance
    return Tower(
        memory=memory + turning(tower.memory, drift, pair.frame.b, step),
        covariance=m + _transpose(m),
        correction=tower.correction @ layer.chi.T + sources.shift,
    )


def tower_push(here: Couplings, tower: Tower, layer: Layer, turned, d: Degrees, step: int) -> Tower:
    sources = tower_sources(here, tower, d)
    chi, forth, back = here.chi[None], layer.skip**2, layer.scale**2
    memory = forth * tower.memory + back * (
        here.drive + jnp.einsum("xy,ypk->xpk", here.chi, tower.memory)
    )
    m = sources.driven + chi @ tower.covariance
    both = sources.driven @ _transpose(chi)
    noise = (
        sources.noise / layer.width + both + _transpose(both) + chi @ tower.covariance @ _transpose(chi)
    )
    return Tower(
        memory=change_basis(memory, turned, step),
        covariance=forth**2 * tower.covariance + forth * back * (m + _transpose(m)) + back**2 * noise,
        correction=forth * tower.correction + back * (tower.correction @ here.chi.T + sources.shift),
    )


def tower_covariance(qa, qb, c, tower: Tower, d: Degrees, stream: bool) -> Float[Array, "2 3 3"]:
    """V4 = Gamma + R_2 + R_2^T + C of a residual stream; C, the covariance of the conditional kernel,
    of a feed-forward network."""
    if not stream:
        return tower.covariance
    gamma = wishart(pair_matrix(qa, qb, c), PAIR)
    if 2 not in d.p:
        return gamma[None] + tower.covariance
    here = frame(qa, qb, *correlation(qa, qb, c))
    scale = jnp.asarray([np.sqrt(2.0), 1.0, np.sqrt(2.0)], qa.dtype)
    memory = tower.memory[:, int(np.argmax(d.p == 2)), :3] * scale[None]
    r2 = memory @ monomials(here.a).T
    kept = jnp.asarray(truncations(d)[:, d.p == 2], qa.dtype)[..., None]
    return gamma[None] + kept * (r2 + r2.T)[None] + tower.covariance


def monomials(a: Float[Array, "2 2"]) -> Float[Array, "3 3"]:
    """How :phi_i phi_j:, (ij) in (aa, ab, bb), follow from (:uu:, :uv:, :vv:)."""
    i, j = PAIR
    return jnp.stack(
        [a[i, 0] * a[j, 0], a[i, 0] * a[j, 1] + a[i, 1] * a[j, 0], a[i, 1] * a[j, 1]], axis=1
    )
