"""Whether a solution and a simulation are of the same problem, and where they can be compared."""

import numpy as np

from .._architecture.describe import describe
from .._architecture.start import FixedGram, GaussianRows
from .._closure.base import AbstractMomentClosure, TangentMoments
from .._depth.solution import Solution
from .._support.probe import probe, same_probe
from ..ensemble import Ensemble


def tangent_moments(
    solution: Solution, ensemble: Ensemble, here: list[int], there: list[int]
) -> TangentMoments:
    """Those of the network's outputs. At discrete depth both have the same Theta, each by its own
    integrals."""
    reference = ensemble.reference_tangent
    if reference is None:
        raise ValueError("`measured` has no tangent kernels: `sample` needs `tangent_kernel=True`.")
    _ = solution.tangent  # refuses closures without
    found = solution.read_out.tangent
    mine, theirs = np.asarray(found.tangent_kernel)[here], ensemble.elements.unfold(reference)[there]
    if not solution.stats and not _near(mine, theirs):
        raise ValueError(
            "`solution` and `measured` have different tangent kernels at infinite width: they differ in "
            "the learning rates, the read-in or the read-out."
        )
    return found


def _near(mine: np.ndarray, theirs: np.ndarray) -> bool:
    tolerance = 1e-6 + 1e3 * float(np.finfo(mine.dtype).eps)
    return bool(np.max(np.abs(mine - theirs)) <= tolerance * np.max(np.abs(theirs)))


def check_networks(solution: Solution, ensemble: Ensemble) -> None:
    mine, theirs = describe(solution.network), ensemble.configuration["network"]
    same = lambda field: mine["fields"][field] == theirs["fields"][field]
    fields = ("activation", "weight_variance", "bias_variance", "layers_per_block")
    differing = [f for f in fields if f in mine["fields"] and not same(f)]
    if mine["type"] != theirs["type"] or differing:
        what = ", ".join(differing) or "type"
        raise ValueError(f"`solution` and `measured` are of different networks: they differ in {what}.")
    if not same_probe(probe(solution.network.activation), ensemble.probe):
        raise ValueError(
            "`solution` and `measured` are of different networks: their activations have the same name, "
            "but other values."
        )
    start = FixedGram if ensemble.configuration["fixed_gram"] else GaussianRows
    default = GaussianRows() if isinstance(solution.closure, AbstractMomentClosure) else None
    closure_start = getattr(solution.closure, "start", default)
    if closure_start is not None and type(closure_start) is not start:
        raise ValueError(f"`measured` has the start {start.__name__}, the closure of `solution` another.")


def check_kernels(solution: Solution, ensemble: Ensemble, here: list[int], there: list[int]) -> None:
    """At discrete depth both have the same mean kernel, each by its own integrals."""
    mine = np.asarray(solution.mean_kernel)[here]
    theirs = ensemble.elements.unfold(ensemble.reference_kernel)[there]
    if not solution.stats and not _near(mine, theirs):
        raise ValueError(
            "`solution` and `measured` have different mean kernels: they differ in the input kernel, the "
            "scales or the depth."
        )


def common_depths(mine: np.ndarray, theirs: np.ndarray) -> tuple[list[int], list[int]]:
    here, there = [], []
    for k, t in enumerate(theirs):
        nearest = int(np.argmin(np.abs(mine - t)))
        if abs(mine[nearest] - t) <= 1e-5 * max(1.0, t):
            here.append(nearest)
            there.append(k)
    if not here:
        raise ValueError(
            f"`solution` and `measured` have no depth in common: t = {mine.tolist()} and "
            f"{theirs.tolist()}."
        )
    return here, there
