"""Predictions compared with simulations: z-scores, and one number for all of them together."""

from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import numpy as np
import scipy

from ._architecture.describe import describe
from ._architecture.start import FixedGram, GaussianRows
from ._closure.base import AbstractMomentClosure, AbstractPairable
from ._depth.solution import Solution
from ._kernel import element_inputs
from ._support.checks import described, instance
from ._support.probe import probe, same_probe
from .ensemble import Ensemble, Extrapolation, Measured
from .ensemble._rounds import FEWEST

#: What a solution predicts, by the name of the estimate.
_PREDICTED = ("mean_kernel", "mean_correction", "kernel_covariance", "limit_covariance")


class Row(NamedTuple):
    """One component: `labels` are its inputs, such as (0, 1) or (0, 1, 1, 1). `truncation` is what the
    theory does not know of itself; it is not part of `z`."""

    quantity: str
    layer: int
    t: float
    labels: tuple[int, ...]
    theory: float
    truncation: float
    measured: float
    standard_error: float
    z: float


class Comparison(eqx.Module):
    """A theory compared with a simulation.

    - `rows`: every component once.
    - `chi_square`: the sum of z^2 over `degrees`, so that it is about one if the theory is right, and
        `probability`: how probable a larger one would be then. Components may depend on each other in any
        way: the sum of squares is taken to be a multiple of a chi-square variable with its mean and its
        variance, which the scatter of the simulation gives (`degrees` = M^2 / tr R^2 of M components with
        correlations R; Satterthwaite's approximation).
    """

    rows: list[Row]
    chi_square: float
    degrees: float
    probability: float

    def largest(self, count: int = 10) -> list[Row]:
        """The rows that differ most."""
        return sorted(self.rows, key=lambda row: -abs(row.z))[:count]

    def __str__(self) -> str:
        head = (
            f"{'quantity':<18}{'layer':>6}{'t':>8} {'inputs':<12}{'theory':>12}{'measured':>12}"
            f"{'+-':>10}{'z':>8}"
        )
        lines = [
            f"{row.quantity:<18}{row.layer:>6}{row.t:>8.4g} {' '.join(map(str, row.labels)):<12}"
            f"{row.theory:>12.5g}{row.measured:>12.5g}{row.standard_error:>10.2g}{row.z:>8.2f}"
            for row in self.rows
        ]
        return "\n".join([head, *lines, self.summary])

    @property
    def summary(self) -> str:
        """One line."""
        return (
            f"{len(self.rows)} components, about {self.degrees:.1f} independent: chi-square "
            f"{self.chi_square:.3g} per degree of freedom, probability {self.probability:.2g}"
        )


def compare(
    solution: Solution,
    measured: Ensemble | Extrapolation,
    quantities: tuple[str, ...] | None = None,
) -> Comparison:
    """z = (measured - theory) / standard error, for every component at the depths that both have.

    **Arguments**

    - `solution`: of `propagate` or `solve`, or of their forms for pairs.
    - `measured`: an `Ensemble` of the same network, or an `Extrapolation` of two.
    - `quantities`: which of `mean_kernel`, `mean_correction`, `kernel_covariance` and
        `limit_covariance`. By default K1 and V4: the latter from the reference chains, without
        corrections of order 1/n, where there are any. (K1 of one width and `kernel_covariance` have such
        corrections, which the theory does not predict and small errors show: see `extrapolate`.)

    **Returns** a `Comparison`.

    **Raises** `ValueError` if networks differ, or there is no common depth; `TypeError` for other
    objects.
    """
    instance("solution", solution, Solution, "what `propagate` or `solve` returned")
    instance("measured", measured, Ensemble | Extrapolation, "an `Ensemble` or an `Extrapolation`")
    ensemble = measured if isinstance(measured, Ensemble) else measured.first
    _check_networks(solution, ensemble)
    if np.count_nonzero(ensemble.counts) < FEWEST:
        raise ValueError("`measured` has too few batches to know its errors: draw more networks.")
    if quantities is None:
        quantities = _default(solution, measured)
    if isinstance(quantities, str) or not isinstance(quantities, Sequence):
        raise TypeError(f"`quantities` must be a tuple of names, got {described(quantities)}.")
    unknown = [name for name in quantities if name not in _PREDICTED]
    if unknown:
        raise ValueError(f"`quantities` must be among {', '.join(_PREDICTED)}; got {unknown[0]!r}.")
    here, there = _common_depths(np.asarray(solution.ts), measured.ts)
    _check_kernels(solution, ensemble, here, there)
    pairs = ensemble.elements.pairs or not isinstance(solution.closure, AbstractPairable)
    rows, scatters = [], []
    for name in quantities:
        estimate = _estimate(measured, name)
        theory, truncation = _prediction(solution, name, measured)
        covariance = name.endswith("covariance")
        if covariance and pairs and isinstance(solution.closure, AbstractPairable):
            theory, truncation = (_pair_blocks(x) for x in (theory, truncation))
        if covariance and pairs and not ensemble.elements.pairs:
            estimate = estimate.map(_pair_blocks)
        index, labels = _components(ensemble.elements.inputs, covariance, pairs)
        value, scatter = estimate.value[:, *index][there], estimate.scatter[:, :, *index][:, there]
        expected, unsure = theory[:, *index][here], truncation[:, *index][here]
        error = np.sqrt(np.sum(scatter**2, axis=0))
        # A quantity that varies by rounding alone, such as the start, is no test.
        random = error > _rounding(ensemble, name)
        safe = np.where(random, error, 1)
        z = (value - expected) / safe
        for k, m in zip(*np.nonzero(random)):
            numbers = (x[k, m] for x in (expected, unsure, value, error, z))
            where = (ensemble.layers[there[k]], float(measured.ts[there[k]]))
            rows.append(Row(name, *where, labels[m], *map(float, numbers)))
        scatters.append((scatter / safe)[:, random])
    if not rows:
        raise ValueError("There is nothing random to compare: choose later layers.")
    return Comparison(rows, *_chi_square(np.array([row.z for row in rows]), scatters))


def _rounding(ensemble: Ensemble, name: str) -> float:
    """The error of an estimate from rounding in the samples."""
    size = float(np.max(np.abs(ensemble.reference_kernel)))
    scale = {"mean_kernel": size, "mean_correction": ensemble.width * size}.get(name, size**2)
    return 16 * float(np.finfo(ensemble.configuration["dtype"]).eps) * scale


def _chi_square(z: np.ndarray, scatters: list[np.ndarray]) -> tuple[float, float, float]:
    """The sum of squares over the effective degrees of freedom, these, and the probability of more."""
    scatter = np.concatenate(scatters, axis=1)
    bins, count = scatter.shape[0], len(z)
    # Correlations by chance, 1/bins each, are taken off the sum of squares.
    squares = np.sum((scatter @ scatter.T) ** 2)
    chance = 1 / (bins - 1)
    trace = count + (squares - count - count * (count - 1) * chance) / (1 - chance)
    degrees = count**2 / min(max(trace, count), count**2)
    # The errors are estimated too: z^2 has the mean of Student's t.
    mean_square = float(np.mean(z**2)) * (bins - 3) / (bins - 1)
    return mean_square, float(degrees), float(scipy.special.chdtrc(degrees, degrees * mean_square))


def _default(solution: Solution, measured: Ensemble | Extrapolation) -> tuple[str, ...]:
    if not isinstance(solution.closure, AbstractMomentClosure):
        return ("mean_kernel",)
    limit = isinstance(measured, Ensemble) and measured.configuration["controlled"]
    return ("mean_correction", "limit_covariance" if limit else "kernel_covariance")


def _estimate(measured: Ensemble | Extrapolation, name: str) -> Measured:
    if isinstance(measured, Ensemble):
        return getattr(measured.estimates, name)
    if name not in ("mean_correction", "kernel_covariance"):
        raise ValueError(f"An extrapolation has no {name!r}: it is of an ensemble.")
    return getattr(measured, name)


def _prediction(
    solution: Solution, name: str, measured: Ensemble | Extrapolation
) -> tuple[np.ndarray, np.ndarray]:
    """The theory's value, and what its truncation leaves uncertain."""
    if name == "mean_kernel" and not isinstance(solution.closure, AbstractMomentClosure):
        kernel = np.asarray(solution.mean_kernel, float)
        return kernel, np.zeros_like(kernel)
    moments = solution.moments
    kernel, shift, unsure = (
        np.asarray(x, float)
        for x in (moments.mean_kernel, moments.mean_correction, moments.correction_truncation)
    )
    if name == "mean_correction":
        return shift, np.abs(unsure)
    if name == "mean_kernel":
        width = measured.width if isinstance(measured, Ensemble) else np.inf
        return kernel + shift / width, np.abs(unsure) / width
    covariance = np.asarray(moments.kernel_covariance, float)
    return covariance, np.abs(np.asarray(moments.covariance_truncation, float))


def _check_networks(solution: Solution, ensemble: Ensemble) -> None:
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
    closure_start = getattr(solution.closure, "start", None)
    if closure_start is not None and type(closure_start) is not start:
        raise ValueError(f"`measured` has the start {start.__name__}, the closure of `solution` another.")


def _check_kernels(solution: Solution, ensemble: Ensemble, here: list[int], there: list[int]) -> None:
    """At discrete depth both have the same mean kernel, each by its own integrals."""
    mine = np.asarray(solution.mean_kernel)[here]
    theirs = ensemble.elements.unfold(ensemble.reference_kernel)[there]
    tolerance = 1e-6 + 1e3 * float(np.finfo(mine.dtype).eps)
    if not solution.stats and np.max(np.abs(mine - theirs)) > tolerance * np.max(np.abs(theirs)):
        raise ValueError(
            "`solution` and `measured` have different mean kernels: they differ in the input kernel, the "
            "scales or the depth."
        )


def _common_depths(mine: np.ndarray, theirs: np.ndarray) -> tuple[list[int], list[int]]:
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


def _pair_blocks(covariance: np.ndarray) -> np.ndarray:
    """(..., N, N, N, N) -> (..., N, N, 3, 3): of each pair the elements (aa, ab, bb)."""
    a, b = np.indices(covariance.shape[-2:])
    first, second = np.stack([a, a, b], axis=-1), np.stack([a, b, b], axis=-1)
    left, right = (first[..., :, None], second[..., :, None]), (first[..., None, :], second[..., None, :])
    return covariance[..., *left, *right]


def _components(inputs: int, covariance: bool, pairs: bool):
    """Indices of every component once, and the inputs that they are of."""
    first, second = element_inputs(inputs)
    if not covariance:
        found = labels = list(zip(first, second))
    elif not pairs:
        left, right = element_inputs(len(first))
        found = labels = list(zip(first[left], second[left], first[right], second[right]))
    else:
        # (aa, aa) of a pair is that of a alone, which has a block of its own.
        own, others = [(0, 0)], [(0, 1), (0, 2), (1, 1), (1, 2)]
        found = [(a, b, *e) for a, b in zip(first, second) for e in (own if a == b else others)]
        elements = lambda a, b: [(a, a), (a, b), (b, b)]
        labels = [(*elements(a, b)[i], *elements(a, b)[j]) for a, b, i, j in found]
    return tuple(np.array(found).T), [tuple(int(x) for x in label) for label in labels]
