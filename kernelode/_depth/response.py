"""Response functions: how kernel entries downstream move with entries of the input kernel.

chi^l = dK^l / dK^0 and eta^l = dC^l / dK^0 of the kernel map itself (C^l = Q(K^{l-1}), the kernel that
block l adds), as in Fischer, Dahmen & Helias, arXiv:2305.07715, where they are the response of the
networks' effective theory. An entry K_ab depends on K_aa, K_bb and K_ab alone, so that three numbers a
pair are the whole tensor:

    diagonal      chi_aa;aa   both sides the variance of one input
    off_diagonal  chi_ab;ab   K_ab = K_ba moved together, the variances held fixed
    mixed         chi_ab;aa   K_ab moved by the variance of row a (its transpose is chi_ab;bb)

Off the diagonal, K_ab and K_ba are ONE variable: who treats them as two gives each half of chi_ab;ab.
At a = b there is one entry, K_aa, and one response: `off_diagonal` [a, a] is `diagonal` [a], and `mixed`
[a, a] is zero. So for all a and b, whatever symmetric change dK is made at the input,

    dK^l_ab = off_diagonal_ab dK_ab + mixed_ab dK_aa + mixed_ba dK_bb.

(The response chi_ab;ab of two distinct inputs that are equal is another number, and may be much larger:
the diagonal holds the variances fixed then. A kernel in which that input stands twice has it.)
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._architecture import AbstractArchitecture, AbstractResidualNetwork
from .._closure import MeanOnly
from .._expectation import gain_error, has_known_accuracy, tolerance
from .._kernel import Block, as_block, as_matrix, as_triangle, checked_entries, input_pairs
from .._support.custom_types import RealLike
from .._support.results import RESULTS
from .._support.show import Shown
from .._support.trees import cast
from .arguments import checked_network
from .failure import flow_outcome
from .sizes import check_responses
from .solution import Solution
from .solve import check_flow, checked_times, flow_options, integrate


class Response(Shown):
    """The response tensor of one kernel to the input kernel; leading axes are depths.

    - `diagonal`: chi_aa;aa.
    - `off_diagonal`: chi_ab;ab; on its diagonal, `diagonal`.
    - `mixed`: chi_ab;aa; zero on its diagonal.
    - `quadrature_error`: in results of `response`, an estimate of the relative error of the Gaussian
        expectations in `diagonal`, summed over the layers; None of others.
    """

    diagonal: Float[Array, "*times n"]
    off_diagonal: Float[Array, "*times n m"]
    mixed: Float[Array, "*times n m"]
    quadrature_error: Float[Array, ""] | None = None

    def summary(self) -> "ResponseSummary":
        """Mean and standard deviation over the inputs, and over the pairs a < b."""
        rows, columns = input_pairs(self.diagonal.shape[-1])
        pairs = self.off_diagonal[..., rows, columns]
        return ResponseSummary(_spread(self.diagonal), _spread(pairs))


class Spread(NamedTuple):
    """Of `count` elements: mean and standard deviation, at every depth. Zero where there are none."""

    mean: Float[Array, "*times"]
    standard_deviation: Float[Array, "*times"]
    count: int


class ResponseSummary(NamedTuple):
    """A response over a data set: of the inputs' variances, and of the covariances of pairs a < b."""

    diagonal: Spread
    off_diagonal: Spread


def _spread(values: Float[Array, "*times element"]) -> Spread:
    count = values.shape[-1]
    mean = jnp.sum(values, axis=-1) / max(count, 1)
    variance = jnp.sum((values - mean[..., None]) ** 2, axis=-1) / max(count, 1)
    return Spread(mean, jnp.sqrt(variance), count)


class LayerResponse(Shown):
    """Responses at every layer of a network.

    - `chi`: of K^0 .. K^L (chi^0 is one).
    - `eta`: of C^1 .. C^L, what each block adds (residual) or each layer is (feed-forward).
    - `output`: of the read-out kernel, chi_out.
    """

    chi: Response
    eta: Response
    output: Response


def response(network: AbstractArchitecture, kernel: RealLike | Block) -> Response:
    """chi_out = dK_out / dK^0, the response of the read-out kernel to the input kernel.

    Derivatives of the kernel map by JAX; conventions above. Proportional to `output_weight_variance`
    and free of `output_bias_variance`. Shapes (n,), (n, n) and (n, n), dtype of the kernel.

    Of a `Block`, n inputs in rows against m others in columns: `diagonal` of the rows (n,), and
    `off_diagonal` and `mixed` (by the variance of the row) of shape (n, m).

    **Raises** `ValueError` for an invalid kernel; an error (`RESULTS.inaccurate`) where expectations over
    an activation of your own are not known to 1e-6 (1e-3 in float32).
    """
    network, kernel = checked_network(network), checked_entries(kernel)
    check_responses(network, kernel, 0)
    found = _output_response(network, kernel)
    error = found.quadrature_error
    if error is None or has_known_accuracy(network.activation):
        return found
    return RESULTS.inaccurate.error_if(found, error > tolerance(error.dtype))


def layer_response(network: AbstractArchitecture, kernel: RealLike | Block) -> LayerResponse:
    """chi^l, eta^l and chi_out at every layer; conventions as in `response`."""
    network, kernel = checked_network(network), checked_entries(kernel)
    check_responses(network, kernel, network.depth)
    return _layer_response(network, kernel)


def response_flow(
    network: AbstractArchitecture,
    kernel: RealLike | Block,
    ts: RealLike,
    *,
    solver: diffrax.AbstractSolver[Any] | None = None,
    stepsize_controller: diffrax.AbstractStepSizeController[Any, Any] | None = None,
    adjoint: diffrax.AbstractAdjoint | None = None,
    dt0: RealLike | None = None,
    max_steps: int | None = 4096,
    throw: bool = True,
) -> tuple[Solution, LayerResponse]:
    """Mean kernel and responses at continuous depths `ts`: the variational equation of the flow,

        dK/dt = Q(K),    d chi/dt = DQ(K) chi,    eta = DQ(K) chi,    chi_out = DK_out(K) chi.

    It is integrated together with the kernel, so every adjoint differentiates it. On the diagonal,
    chi(t) = Q(K(t)) / Q(K(0)), since the flow is autonomous.

    **Arguments** as for `solve`.

    **Returns** the solution for the mean kernel and the responses, all with leading axis `times`.
    """
    network = check_flow(network, instead="layer_response")
    kernel = checked_entries(kernel)
    ts = checked_times(ts).astype(kernel.dtype)
    check_responses(network, kernel, ts.shape[0], flow=True)
    options = flow_options(solver, stepsize_controller, adjoint, None, dt0, max_steps)
    solution, responses = _response_flow(network, kernel, ts, options)
    if throw:
        failed = solution.result != RESULTS.successful
        solution, responses = solution.result.error_if((solution, responses), failed)
    return solution, responses


def _unit_tangents(block: Block) -> Block:
    """The two perturbations of the input that tell all: row variances, and covariances."""
    return block.tangents("row", "cross")


def _pushforward(
    function: Callable[[Block], Block], block: Block, tangents: Block
) -> tuple[Block, Block]:
    """The value, and the derivative along both tangents."""
    along = lambda tangent: jax.jvp(function, (block,), (tangent,))
    return jax.vmap(along, out_axes=(None, 0))(tangents)


def _as_response(tangents: Block, square: bool) -> Response:
    """The response from the derivatives along the unit tangents; see above on a = b."""
    diagonal = tangents.row[0]
    off_diagonal, mixed = tangents.cross[1], tangents.cross[0]
    if square:
        own = np.eye(tangents.row.shape[-1], dtype=bool)
        off_diagonal = jnp.where(own, diagonal[..., :, None], off_diagonal)
        mixed = jnp.where(own, 0, mixed)
    return Response(diagonal, off_diagonal, mixed)


def _start(kernel: Float[Array, "n n"] | Block) -> tuple[Block, Callable[[Block], Response]]:
    """The block of an input kernel, and how responses follow from its tangents."""
    square = not isinstance(kernel, Block)
    block = kernel if isinstance(kernel, Block) else as_block(kernel)
    return block, lambda tangents: _as_response(tangents, square)


@eqx.filter_jit
def _output_response(network: AbstractArchitecture, kernel: Float[Array, "n n"] | Block) -> Response:
    network, (block, as_response) = cast(network, kernel.dtype), _start(kernel)
    error = lambda block: gain_error(network.activation, block)

    def step(carry, layer):
        total, *state = carry
        pushed = _pushforward(lambda k: network.layer(k, layer), *state)
        return (total + error(state[0]), *pushed), None

    start = (jnp.zeros((), kernel.dtype), block, _unit_tangents(block))
    (total, *last), _ = jax.lax.scan(step, start, network.layers())
    found = as_response(_pushforward(network.read_out, *last)[1])
    return eqx.tree_at(
        lambda r: r.quadrature_error, found, total + error(last[0]), is_leaf=lambda x: x is None
    )


@eqx.filter_jit
def _layer_response(network: AbstractArchitecture, kernel: Float[Array, "n n"] | Block) -> LayerResponse:
    network, (block, as_response) = cast(network, kernel.dtype), _start(kernel)

    def step(carry, layer):
        eta = _pushforward(lambda k: network.drift(k, layer), *carry)[1]
        carry = _pushforward(lambda k: network.layer(k, layer), *carry)
        return carry, (as_response(carry[1]), as_response(eta))

    start = (block, _unit_tangents(block))
    last, (chi, eta) = jax.lax.scan(step, start, network.layers())
    with_first = lambda first, rest: jnp.concatenate([first[None], rest])
    return LayerResponse(
        chi=jax.tree.map(with_first, as_response(start[1]), chi),
        eta=eta,
        output=as_response(_pushforward(network.read_out, *last)[1]),
    )


@eqx.filter_jit
def _response_flow(
    network: AbstractResidualNetwork,
    kernel: Float[Array, "n n"] | Block,
    ts: Float[Array, " times"],
    options: dict[str, Any],
) -> tuple[Solution, LayerResponse]:
    network, (block, as_response) = cast(network, kernel.dtype), _start(kernel)
    drift = lambda k, net: net.drift(k, net.flow_layer())
    rate = lambda state, net: _pushforward(lambda k: drift(k, net), *state)
    out = integrate((block, _unit_tangents(block)), rate, network, ts, MeanOnly(), **options)
    square = not isinstance(kernel, Block)
    mean_state = lambda block: as_triangle(as_matrix(block)) if square else block
    at_one_depth = lambda state: LayerResponse(
        chi=as_response(state[1]),
        eta=as_response(rate(state, network)[1]),
        output=as_response(_pushforward(network.read_out, *state)[1]),
    )
    result = flow_outcome(network, block, out.result, out.state)
    found = jax.vmap(mean_state)(out.state[0]), result
    solution = eqx.tree_at(lambda s: (s.state, s.result), out, found)
    return solution, jax.lax.map(at_one_depth, out.state)
