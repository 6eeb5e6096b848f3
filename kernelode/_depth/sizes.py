"""Lower bounds on the memory of a calculation, from the shapes of its states; refused if they do not fit.

Nothing is traced and nothing allocated. Tracing would not do: the tables of the four-point closures are
arrays of the size that is asked about. The counts of arrays that a layer or a step holds beside what is
saved are those of XLA's own memory analysis, rounded down (tests/test_memory.py compares them).
"""

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import diffrax
import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float

from .._activation.base import AbstractOddActivation
from .._architecture import AbstractArchitecture
from .._closure import (
    AbstractClosure,
    AbstractPairable,
    GOnly,
    TangentKernel,
    TangentTower,
    WickTower,
)
from .._closure.g_only import GOnlyPairs
from .._closure.singles import SINGLE_ORDER
from .._closure.wick_tower_pairs import WickTowerPairs
from .._kernel import Block
from .._support.memory import check_memory

#: All pairs of inputs, or all of some with others.
InputKernel: TypeAlias = Float[Array, "n n"] | Block

#: The order of a tower that has yet to choose it by its tolerance, at the most.
_HIGHEST = 64
#: Arrays of the size of its state that one layer holds in addition to the state, by closure.
_LAYER = {GOnly: 5, WickTower: 14}
#: Tsit5 keeps seven rates and two states; any other solver at least one rate.
_STEP = 9
#: Depths of the coarse scan of rho* (`_scaling.objective.scan_times`).
_SCAN = 22


def check_propagation(
    network: AbstractArchitecture,
    kernel: InputKernel,
    closure: AbstractClosure | None,
    layers: Sequence[int] | None,
) -> None:
    """**Raises** `ValueError` if `propagate` with these arguments does not fit into memory."""
    saved = network.depth + 1 if layers is None else len(layers)
    # Saved results exist twice: while they are filled, and without the place for layers not saved.
    copies = (1 if saved == 1 else 2 * saved + 1) + _LAYER.get(type(closure), 1)
    _check_states(network, kernel, closure, copies, saved, "layers", "`layers`")


def check_integration(
    network: AbstractArchitecture,
    kernel: InputKernel,
    closure: AbstractClosure | None,
    ts: Float[Array, " times"],
    options: dict[str, Any],
) -> None:
    """**Raises** `ValueError` if `solve` with these arguments does not fit into memory; `options` as of
    `flow_options`."""
    saveat = options["saveat"]
    saved = ts.shape[0] if saveat is None else _saved(saveat, options["max_steps"])
    step = _STEP if isinstance(options["solver"], diffrax.Tsit5) else 3
    copies = saved + step + _LAYER.get(type(closure), 0)
    _check_states(network, kernel, closure, copies, saved, "depths", "depths `ts`")


def check_moments(closure: AbstractClosure, state: Any) -> None:
    """**Raises** `ValueError` if the moments of a solution, of any four inputs, do not fit in memory."""
    if isinstance(closure, GOnly | WickTower):
        covariance = state.covariance
        times, elements = covariance.shape[0], covariance.shape[-1]
        n = int(np.sqrt(2 * elements))
        check_memory(
            # V4 and its truncation, with every element once for ab and ba.
            2 * times * n**4 * covariance.dtype.itemsize,
            f"Moments of {n:,} inputs, (n, n, n, n), at {times:,} depths",
            "Save fewer depths, or take `propagate_pairs` or `solve_pairs`.",
            like=covariance,
        )


def check_responses(
    network: AbstractArchitecture, kernel: InputKernel, saved: int, *, flow: bool = False
) -> None:
    """**Raises** `ValueError` if responses at that many depths, beside the output's, do not fit into
    memory."""
    if not flow:
        check_depth(network, kernel)
    n, m = _shape(kernel)
    # A kernel and two tangents, going in and out; chi and eta, two matrices each. A flow is saved with
    # its tangents, and has the output's response at every depth.
    matrices = saved * (9 if flow else 4) + (3 * _STEP if flow else 8)
    what = f"Responses of {_inputs(kernel)}" + (f" at {saved:,} depths" if saved else "")
    remedy = "Save fewer depths, take" if saved > 1 else "Take"
    _check(matrices * n * m, kernel, what, f"{remedy} fewer inputs, or float32.")


def check_optima(
    network: AbstractArchitecture, kernel: Float[Array, "n n"], pairs: bool, *, flow: bool = False
) -> None:
    """**Raises** `ValueError` if the optima of all pairs do not fit into memory."""
    if not flow:
        check_depth(network, kernel)
    if pairs:
        n = kernel.shape[0]
        # Three numbers a pair, as a triangle and as a matrix, and what a scan compares.
        matrices = 5 if flow else 5 + _SCAN
        remedy = "Take fewer inputs, float32, or `pairs=False`: the diagonal alone."
        _check(matrices * n**2, kernel, f"Optima of all pairs of {n:,} inputs", remedy)


def state_numbers(network: AbstractArchitecture, closure: AbstractClosure | None, n: int) -> int:
    """How many numbers the state of a closure has; of a user's own closure those of K0 alone."""
    elements, mean = n * (n + 1) // 2, n * (n + 1) // 2
    if isinstance(closure, GOnly):
        return n**2 + elements**2 + elements
    if isinstance(closure, GOnlyPairs):
        return n**2 + n**2 * (9 + 3)
    if isinstance(closure, WickTower):
        order = closure.order or _HIGHEST
        return (
            n**2
            + elements**2 * (_chaos(network, order) + 3)
            + 2 * elements
            + _singles(network, closure, n)
        )
    if isinstance(closure, WickTowerPairs):
        pairs, order = max(1, n * (n - 1) // 2), closure.order or _HIGHEST
        return n + pairs * (3 * _chaos(network, order) + 34) + _singles(network, closure, n)
    if isinstance(closure, TangentTower):
        of = lambda count: _of_shapes(network, closure, count)
        # That of one input, and what a pair has beside its two.
        return n * of(1) + n * (n - 1) // 2 * (of(2) - 2 * of(1))
    return 2 * mean if isinstance(closure, TangentKernel) else mean


def _of_shapes(network: AbstractArchitecture, closure: TangentTower, n: int) -> int:
    kernel = jax.ShapeDtypeStruct((n, n), network.last_width.dtype)
    none = lambda x: x is None
    closure = eqx.tree_at(lambda c: c.base.tangent, closure, None, is_leaf=none)  # of n inputs
    state = jax.eval_shape(closure.init, network, kernel)
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state))


def _singles(network: AbstractArchitecture, closure: WickTower | WickTowerPairs, n: int) -> int:
    """Of the inputs' own towers."""
    order = closure.single_order or max(SINGLE_ORDER, closure.order or _HIGHEST)
    # Along a flow six more for the degrees that have no state.
    return n * (order // _degree_step(network) + 5 + (0 if closure.tail is None else closure.tail + 6))


def _degree_step(network: AbstractArchitecture) -> int:
    """Odd degrees vanish for odd activations."""
    return 2 if isinstance(network.activation, AbstractOddActivation) else 1


def _chaos(network: AbstractArchitecture, order: int) -> int:
    """Coordinates of a chaos, (degree, k)."""
    return order // _degree_step(network) * (order + 1)


def _saved(saveat: Any, max_steps: int | None) -> int:
    """How many states Diffrax saves at the least; what `fn` makes of them may be small."""
    count, steps = 0, 0 if max_steps is None else max_steps
    for part in jax.tree.leaves(saveat.subs, is_leaf=lambda x: hasattr(x, "steps")):
        if getattr(getattr(part, "fn", None), "__name__", "save_y") == "save_y":
            times = 0 if part.ts is None else np.shape(part.ts)[0]
            # `steps` may be a number: every so many.
            count += times + part.t0 + part.t1 + (steps // max(1, int(part.steps)) if part.steps else 0)
    # Dense output needs both ends of every step, and the rates between them.
    return count + (steps * 3 if saveat.dense else 0)


def _check_states(
    network: AbstractArchitecture,
    kernel: InputKernel,
    closure: AbstractClosure | None,
    copies: int,
    saved: int,
    of: str,
    where: str,
) -> None:
    remedy = f"Save fewer {where}, or take" if saved > 1 else "Take"
    remedy += " fewer inputs, or float32."
    if isinstance(closure, AbstractPairable):
        remedy += (
            " `propagate_pairs` and `solve_pairs` keep the covariances within pairs of inputs, n^2 in "
            "place of n^4 numbers."
        )
    name = type(closure).__name__
    what = "The mean kernels" if closure is None else f"The states of `{name.removesuffix('Pairs')}`"
    what += " for all pairs" if name.endswith("Pairs") else ""
    what += f" of {_inputs(kernel)} at {saved:,} {of if saved != 1 else of[:-1]}"
    n, m = _shape(kernel)
    numbers = state_numbers(network, closure, n)
    if isinstance(kernel, Block):
        numbers = n * m * (2 if isinstance(closure, TangentKernel) else 1) + n + m
    _check(copies * numbers, kernel, what, remedy)


def _shape(kernel: InputKernel) -> tuple[int, int]:
    n, m = (kernel.cross if isinstance(kernel, Block) else kernel).shape
    return n, m


def _inputs(kernel: InputKernel) -> str:
    n, m = _shape(kernel)
    return f"{n:,} by {m:,} inputs" if isinstance(kernel, Block) else f"{n:,} inputs"


def check_depth(network: AbstractArchitecture, kernel: InputKernel) -> None:
    """Refuse a depth whose parameters do not fit: rho, alpha, width, C_W, C_b and t of every layer."""
    _check(
        6 * network.depth,
        kernel,
        f"The parameters of {network.depth:,} layers",
        "Reduce `depth`: the limit of many layers is `solve`, for rho* `optimal_flow_time`.",
    )


def _check(numbers: int, kernel: InputKernel, what: str, remedy: str) -> None:
    like = kernel.cross if isinstance(kernel, Block) else kernel
    check_memory(numbers * kernel.dtype.itemsize, what, remedy, like=like)
