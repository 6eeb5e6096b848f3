"""The computations of `kernelode rho`: numbers only, nothing about options or output."""

import dataclasses
from collections.abc import Callable, Iterable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import kernelode as ko
from kernelode._kernel import input_pairs
from kernelode._scaling.critical import critical_variance
from kernelode._scaling.peak import log_peak
from kernelode._support.memory import check_memory
from kernelode._support.progress import Progress

from .evidence import Problem, Scores, posterior_scores

#: The sweep, in rho sqrt(L): optima of bounded activations lie well inside.
_SWEEP = (0.2, 8.0)
#: Steps of the responses' sweep in one step of the regression's, which costs a hundred times as much.
_FINER = 4
#: What a layer takes at the least in the search of rho* of one pair: 11 microseconds for erf, less than 1
#: for linear networks, which have no optimum (one core; rounded down).
SECONDS = 5e-7


class AtScale(eqx.Module):
    """One residual scale for all inputs: their kernel after the network, and the response."""

    kernel: Float[Array, "*scales n n"]
    response: ko.Response


@dataclasses.dataclass(frozen=True)
class Point:
    """A residual scale worth a line in the report."""

    name: str
    scale: float
    at: AtScale
    scores: Scores | None


@dataclasses.dataclass(frozen=True)
class Evidence:
    """The regression over the sweep, and where it is best: None where not inside the sweep."""

    scores: Scores
    best_evidence: float | None
    best_error: float | None


@dataclasses.dataclass(frozen=True)
class Study:
    """rho* of every element of a kernel, and what comes of it.

    - `critical_variance`: K*, the variance up to which the flow's diagonal response grows; 0 if it
        grows at none, infinite if at all.
    - `scales`, `evidence`: regression over log-spaced residual scales; `evidence` may be None.
    - `fine_scales`, `sweep`: responses, over more of them.
    - `points`: no residual branch, the mean rho* that exist, and rho = 1.
    """

    kernel: np.ndarray
    optimum: ko.OptimalScale
    critical_variance: float
    scales: np.ndarray
    evidence: Evidence | None
    fine_scales: np.ndarray
    sweep: AtScale
    points: list[Point]

    @property
    def diagonal(self) -> ko.ScaleEstimate:
        return self.optimum.diagonal

    @property
    def off_diagonal(self) -> ko.ScaleEstimate:
        return self.optimum.off_diagonal


def run_study(
    network: ko.ResNet, kernel: np.ndarray, problem: Problem | None, points: int, progress: Progress
) -> Study:
    """Search for the optima, then sweep the residual scale, one compilation for all scales."""
    # A kernel and two matrices of responses at each scale.
    scales_in_all = _FINER * (points - 1) + 5
    check_memory(
        24.0 * scales_in_all * kernel.size,
        f"Responses of {len(kernel):,} samples at {scales_in_all} residual scales",
        "Take fewer --samples or --points.",
    )
    with progress.stage("Searching rho* of every pair (the first call compiles)"):
        optimum = jax.block_until_ready(ko.optimal_residual_scale(network, kernel))
        critical = critical_variance(network)
    named = _named_scales(optimum)
    names, extra = zip(*named)
    fine = _sweep_scales(network.depth, extra, _FINER * (points - 1) + 1)
    scales = fine[::_FINER]
    with progress.stage("Responses against rho", len(fine) + len(extra)) as advance:
        at_scale = lambda scale: _at_scale(network, jnp.asarray(kernel), scale)
        sweep, at_named = (_over(some, at_scale, advance) for some in (fine, extra))
    evidence, named_scores = None, None
    if problem is not None:
        with progress.stage("Evidence against rho", len(scales) + len(extra)) as advance:
            scores_at = lambda scale: posterior_scores(network, problem, scale)
            scores, named_scores = (_over(some, scores_at, advance) for some in (scales, extra))
        evidence = _evidence(scales, scores)
    pick = lambda tree, i: jax.tree.map(lambda x: x[i], tree)
    return Study(
        kernel=kernel,
        optimum=optimum,
        critical_variance=critical,
        scales=scales,
        evidence=evidence,
        fine_scales=fine,
        sweep=sweep,
        points=[
            Point(names[i], extra[i], pick(at_named, i), pick(named_scores, i)) for i in range(len(extra))
        ],
    )


def interior_values(estimate: ko.ScaleEstimate) -> np.ndarray:
    """rho* of the elements that have one; of a matrix, over the pairs a < b."""
    value, interior = np.asarray(estimate.value), np.asarray(estimate.interior)
    return once_a_pair(value)[once_a_pair(interior)]


def once_a_pair(values: np.ndarray) -> np.ndarray:
    """A matrix over inputs (last two axes) as a list over pairs a < b; anything else as it is."""
    if values.ndim == 1:
        return values
    rows, columns = input_pairs(values.shape[-1])
    return values[..., rows, columns]


@eqx.filter_jit
def _at_scale(network: ko.ResNet, kernel: Float[Array, "n n"], scale: Float[Array, ""]) -> AtScale:
    network = eqx.tree_at(lambda n: n.residual_scale, network, scale)
    last = ko.propagate(network, kernel, layers=[network.depth], throw=False)
    return AtScale(last.mean_kernel[0], ko.response(network, kernel))


def _over(scales: Iterable[float], function: Callable, advance: Callable[[], None]):
    """`function` of each scale, as NumPy arrays with a leading axis: one at a time, to bound memory."""
    results = []
    for scale in scales:
        results.append(jax.tree.map(np.asarray, function(jnp.asarray(scale))))
        advance()
    return jax.tree.map(lambda *leaves: np.stack(leaves), *results)


def _named_scales(optimum: ko.OptimalScale) -> list[tuple[str, float]]:
    diagonal, off_diagonal = interior_values(optimum.diagonal), interior_values(optimum.off_diagonal)
    named = [("no branch", 0.0)]
    if diagonal.size:
        named.append(("rho*\ndiagonal", float(np.mean(diagonal))))
    if off_diagonal.size:
        named.append(("rho*\noff-diagonal", float(np.mean(off_diagonal))))
    return [*named, ("rho = 1", 1.0)]


def _sweep_scales(depth: int, optima: Iterable[float], points: int) -> np.ndarray:
    """Log-spaced over the range where depth matters, and around the optima wherever they are."""
    low, high = (bound / np.sqrt(depth) for bound in _SWEEP)
    found = [scale for scale in optima if scale > 0]
    return np.geomspace(min(low, *(s / 3 for s in found)), max(high, *(s * 2 for s in found)), points)


def _evidence(scales: np.ndarray, scores: Scores) -> Evidence:
    return Evidence(
        scores,
        best_evidence=log_peak(scales, np.asarray(scores.log_evidence)),
        best_error=log_peak(scales, -np.asarray(scores.squared_error)),
    )
