"""One layer of the Wick tower for all elements of a kernel at once; `wick_tower.py` has the closure."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._activation.base import AbstractHomogeneousActivation, AbstractKinkedActivation
from .._architecture import AbstractArchitecture, Affine
from .._expectation.input_chaos import input_chaos
from .._expectation.products import SingleProducts, input_products, pair_products
from .._expectation.quadruples import quadruple_moments, quadruples
from .._kernel import element_numbers, own_elements
from .._numerics.safe import safe_root
from .chaos_basis import Frame, frame, own_frame, project, units
from .chaos_couplings import Couplings, couplings, degree_step, pair_chaos, top_degree
from .elements import all_elements
from .single_tower import SingleTower
from .singles import highest_order, input_singles, known_order, tower_degrees
from .tower import Sources, source_of_memory
from .truncation import Neglected, Tails
from .wick_tower_pairs import at_index


class FourPointTower(eqx.Module):
    """K0, R[e, X], C and K1, what the truncation leaves out, and the towers of inputs by themselves."""

    kernel: Float[Array, "n n"]
    memory: Float[Array, "e x degree k"]
    covariance: Float[Array, "x x"]
    correction: Float[Array, " x"]
    neglected: Neglected
    singles: SingleTower


class FourPointLayer(NamedTuple):
    """One layer, for all elements X and pairs e: Q, chi, Cov(xi_X, W^e), and what drives C and K1."""

    q: Float[Array, " x"]
    chi: Float[Array, "x x"]
    driven: Float[Array, "e x degree k"]
    sources: Sources
    tails: Tails
    curved: Float[Array, " x"]
    single: SingleProducts


def four_point_layer(
    closure: Any, network: AbstractArchitecture, state: FourPointTower, affine: Affine
) -> FourPointLayer:
    """One layer of the tower `closure`, for all elements."""
    d, step = tower_degrees(closure, network), degree_step(network.activation)
    kernel, activation = state.kernel, network.activation
    n, top = kernel.shape[0], top_degree(known_order(closure))
    first, second = all_elements(n)
    own = own_elements(n)
    homogeneous = isinstance(activation, AbstractHomogeneousActivation)
    terms = 1 if homogeneous else closure.terms
    variances = jnp.diagonal(kernel)
    inputs = jax.vmap(lambda q: input_chaos(activation, q, top, terms))(variances)
    products = jax.vmap(lambda q: input_products(activation, q, top, terms))(variances)
    single = input_singles(activation, variances, highest_order(closure))

    def one_pair(a, b):
        entries = kernel[a, a], kernel[b, b], kernel[a, b]
        x, y = (at_index((inputs, products), k) for k in (a, b))
        both = [pair_chaos(activation, x[0], y[0], *entries, single=same) for same in (False, True)]
        pair = jax.tree.map(lambda x, y: jnp.where(a == b, y, x), *both)
        fourths = jnp.stack([single.fourth[a], single.fourth[b]])
        curvatures = jnp.stack([single.curvature[a], single.curvature[b]])
        moments = pair_products(activation, x[1], y[1], fourths, *entries)
        return couplings(pair, moments, curvatures, affine, d)

    here: Couplings = jax.vmap(one_pair)(jnp.asarray(first), jnp.asarray(second))
    frames = frames_of(kernel, d.floor)

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
        mean = pick(here.q) - affine.bias_variance
        several = where > 0
        exact = affine.weight_variance**2 * moments - mean[:, None] * mean[None, :]
        noise = jnp.where(several, exact, noise)
        lacking = jnp.where(several, 0, lacking)
    with_own = state.memory[rows, own]  # (x, 3, degree, k)
    of_own = lambda c: c[own[:, :, None], own[:, None, :]]
    return FourPointLayer(
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
    return jnp.minimum(safe_root((square[0, 0] + square[1, 1]) / 2 + safe_root(apart)), 1)


def entries_of(kernel: Float[Array, "n n"]) -> tuple[Array, Array, Array]:
    """(K_aa, K_bb, K_ab) of every element."""
    first, second = all_elements(kernel.shape[0])
    return kernel[first, first], kernel[second, second], kernel[first, second]


def frames_of(kernel: Float[Array, "n n"], floor: float) -> Frame:
    """The bases of all elements."""
    first, second = all_elements(kernel.shape[0])
    frames = jax.vmap(lambda *entries: frame(*entries, floor=floor))(*entries_of(kernel))
    own = lambda x: jnp.asarray(first == second).reshape(-1, *[1] * (x.ndim - 1))
    return jax.tree.map(lambda x, alone: jnp.where(own(x), alone, x), frames, jax.vmap(own_frame)(frames))


def matrix_of(elements: Float[Array, " x"]) -> Float[Array, "n n"]:
    """Values on the elements a <= b as a symmetric matrix."""
    n = int((np.sqrt(8 * elements.shape[0] + 1) - 1) / 2)
    return elements[element_numbers(n)]
