"""Hermite averages of one input: everything that it brings to the chaos coefficients of its pairs."""

import functools
import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from equinox.internal import unvmap_any
from jaxtyping import Array, Bool, Float

from .._activation.base import (
    AbstractActivation,
    AbstractHomogeneousActivation,
    AbstractKinkedActivation,
    AbstractSmoothActivation,
)
from .._numerics.safe import safe_root
from .._support.trees import as_constant
from .adapted import fits
from .hermite import hermite_functions, scan_hermite
from .kinked import kinked_steps
from .nodes import CHAOS_CONCENTRATION, Steps, chaos_reach, chaos_rule
from .origin import padded, taylor_coefficients


class InputChaos(eqx.Module):
    """What one input brings to the coefficients of its pairs and of itself.

    - `products`: G_ji, shape (order + 1, terms).
    - `spectrum`: s_m, shape (terms + order,).
    - `square`: E[sigma^2 h_m], shape (order + 1,): the coefficients of the input with itself.
    - `lowest`: s_m, shape (order + 2,).

    At zero variance `square` and `lowest` are the coefficients of :x^m: / sqrt(m!) instead, to first
    order in the variance.

    - `energies`: E[(sigma h_j)^2], shape (order + 1,).
    """

    products: Float[Array, "*n order terms"]
    spectrum: Float[Array, "*n term"]
    square: Float[Array, "*n order"]
    lowest: Float[Array, "*n low"]
    energies: Float[Array, "*n order"]


def input_chaos(
    activation: AbstractActivation,
    q: Float[Array, ""],
    order: int,
    terms: int,
    *,
    of: Callable[[Array], Array] | None = None,
    finer: bool = False,
) -> InputChaos:
    """Everything that an input of variance `q` brings to coefficients up to `order`: of sigma, or `of` a
    function that is smooth where it is, such as a power or a derivative. `finer` is for estimates of the
    error, by the difference: on nodes that see every feature of the activation, whatever the variance."""
    root = safe_root(q)
    raised = activation if of is None else of
    if kinks := kinks_of(activation):
        positive = jnp.where(q > 0, q, 1)
        scale = jnp.sqrt(positive)[None, None]
        z, steps = (x[0] for x in kinked_steps(kinks, scale, chaos_reach(order), finer=finer))
        basis = scan_hermite(z, terms + order)
        averages = _averages(raised(root * z), z, steps, basis, basis[: order + 1], terms)
    else:
        rule = chaos_rule(order, terms, finer)
        z, steps = (jnp.asarray(x, q.dtype) for x in (rule.nodes, rule.steps))
        # Constants as they are used: XLA would slice and transpose them at compile time, slowly.
        basis = jnp.asarray(_basis(order, terms, finer), q.dtype)
        lowest = jnp.asarray(_basis(order, terms, finer)[: order + 1], q.dtype)
        on_rule = lambda: _averages(raised(root * z), z, steps, basis, lowest, terms)
        if finer and isinstance(activation, AbstractSmoothActivation):
            on_panels = lambda: _panel_averages(activation, raised, root, order, terms)
            averages = jax.lax.cond(unvmap_any(_too_wide(activation, q, rule)), on_panels, on_rule)
        else:
            averages = on_rule()
    products, spectrum, square, energies = averages
    at_zero, squared = taylor_coefficients(raised, q, order, kinked=bool(kinks))
    return InputChaos(
        products=products,
        spectrum=spectrum,
        square=jnp.where(q > 0, square, squared[: order + 1]),
        lowest=jnp.where(q > 0, padded(spectrum, order + 2), at_zero),
        energies=energies,
    )


def _averages(
    values: Float[Array, " node"],
    z: Float[Array, " node"],
    steps: Float[Array, " node"],
    basis: Float[Array, "term node"],
    lowest: Float[Array, "order node"],
    terms: int,
) -> tuple[Array, Array, Array, Array]:
    """E[f h_j h_i], E[f h_m], E[f^2 h_j] and E[(f h_j)^2] from f on the nodes."""
    low = values[None, :] * lowest
    weighted = low * steps[None, :]
    damping = jnp.exp(-(z**2) / 4)
    products = jnp.einsum("jz,iz->ji", weighted, basis)[:, :terms]
    spectrum = basis @ (steps * damping * values)
    return products, spectrum, weighted @ (values * damping), jnp.sum(weighted * low, axis=1)


def _too_wide(activation: AbstractSmoothActivation, q: Float[Array, ""], rule: Steps) -> Bool[Array, ""]:
    """Whether a feature is narrower than two steps of the rule, so that it may lie between two nodes."""
    ends = np.arcsinh(rule.nodes[-2:] / CHAOS_CONCENTRATION)
    spacing = float(ends[1] - ends[0])
    known = as_constant(activation)
    return ~fits(known, q[None], spacing, CHAOS_CONCENTRATION, float(rule.nodes[-1]), 2.0)[0]


def _panel_averages(
    activation: AbstractSmoothActivation,
    raised: Callable[[Array], Array],
    root: Float[Array, ""],
    order: int,
    terms: int,
) -> tuple[Array, Array, Array, Array]:
    """`_averages` on panels that end where the width of features changes: far more nodes than those of
    the rule, so that Hermite functions are taken one after the other."""
    distances = sorted({distance for distance, _ in activation.scales if math.isfinite(distance)})
    edges = tuple({*distances, 2 * distances[-1]})
    unit = jnp.where(root > 0, root, 1)[None, None]
    z, steps = (x[0] for x in kinked_steps(edges, unit, chaos_reach(order), finer=True))
    lowest, damping, values = hermite_functions(z, order + 1), jnp.exp(-(z**2) / 4), raised(root * z)
    low = values[None, :] * lowest
    rows = jnp.concatenate([low * steps[None, :], (steps * damping * values)[None]])
    sums = scan_hermite(z, terms + order, lambda h: rows @ h)
    square, energies = rows[:-1] @ (values * damping), jnp.sum(rows[:-1] * low, axis=1)
    return sums[:terms, :-1].T, sums[:, -1], square, energies


@functools.lru_cache
def _basis(order: int, terms: int, finer: bool) -> np.ndarray:
    return hermite_functions(chaos_rule(order, terms, finer).nodes, terms + order)


def has_kinks(activation: AbstractActivation) -> bool:
    return bool(kinks_of(activation))


def kinks_of(activation: AbstractActivation) -> tuple[float, ...]:
    """Where the activation is not smooth."""
    if isinstance(activation, AbstractHomogeneousActivation):
        return (0.0,)
    return activation.kinks if isinstance(activation, AbstractKinkedActivation) else ()
