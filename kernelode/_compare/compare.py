"""Predictions compared with simulations: z-scores, and one number for all of them together."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import equinox as eqx
import numpy as np
import scipy

from .._closure.base import AbstractMomentClosure, AbstractPairable, AbstractTangentClosure
from .._depth.solution import Solution
from .._support.checks import described, instance
from ..ensemble import Ensemble, Extrapolation, Measured
from ..ensemble._rounds import FEWEST
from .comparable import check_kernels, check_networks, common_depths, tangent_moments
from .components import (
    Components,
    of_covariance,
    of_cross,
    of_exchange,
    of_kernel,
    of_pair_covariance,
    pair_blocks,
)

#: What a solution predicts of the kernel, by the name of the estimate.
_KERNEL = ("mean_kernel", "mean_correction", "kernel_covariance", "limit_covariance")

#: And of the tangent kernel of the network's outputs: that of `TangentMoments`, and the components.
_TANGENT: dict[str, tuple[str, Callable[[int], Components]]] = {
    "tangent_correction": ("correction", of_kernel),
    "tangent_covariance": ("covariance", of_pair_covariance),
    "tangent_mixed": ("mixed", functools.partial(of_pair_covariance, symmetric=False)),
    "tangent_cross": ("cross", of_cross),
    "tangent_exchange": ("exchange", of_exchange),
}


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
        `limit_covariance`; of the tangent kernel `tangent_correction`, `tangent_covariance`,
        `tangent_mixed`, `tangent_cross` and `tangent_exchange`, which a `TangentTower` predicts of the
        network's outputs. By default K1 and V4: the latter from the reference chains, without
        corrections of order 1/n, where there are any; and all of the tangent kernel, if both have it.
        (K1 of one width, `kernel_covariance` and those of the tangent kernel have such corrections, which
        the theory does not predict and small errors show: see `extrapolate`.)

    **Returns** a `Comparison`.

    **Raises** `ValueError` if networks or learning rates differ, or there is no common depth; `TypeError`
    for other objects.
    """
    instance("solution", solution, Solution, "what `propagate` or `solve` returned")
    instance("measured", measured, Ensemble | Extrapolation, "an `Ensemble` or an `Extrapolation`")
    ensemble = measured if isinstance(measured, Ensemble) else measured.first
    check_networks(solution, ensemble)
    if np.count_nonzero(ensemble.counts) < FEWEST:
        raise ValueError("`measured` has too few batches to know its errors: draw more networks.")
    if quantities is None:
        quantities = _default(solution, measured)
    if isinstance(quantities, str) or not isinstance(quantities, Sequence):
        raise TypeError(f"`quantities` must be a tuple of names, got {described(quantities)}.")
    predicted = (*_KERNEL, *_TANGENT)
    unknown = [name for name in quantities if name not in predicted]
    if unknown:
        raise ValueError(f"`quantities` must be among {', '.join(predicted)}; got {unknown[0]!r}.")
    here, there = common_depths(np.asarray(solution.ts), measured.ts)
    check_kernels(solution, ensemble, here, there)
    pairs = ensemble.elements.pairs or not isinstance(solution.closure, AbstractPairable)
    rows, scatters = [], []
    tangent = None
    if any(name in _TANGENT for name in quantities):
        tangent = tangent_moments(solution, ensemble, here, there)
    for name in quantities:
        estimate = _estimate(measured, name)
        inputs = ensemble.elements.inputs
        if tangent is not None and name in _TANGENT:
            field, components = _TANGENT[name]
            theory = np.asarray(getattr(tangent, field), float)
            truncation = np.abs(np.asarray(getattr(tangent, f"{field}_truncation"), float))
        else:
            theory, truncation = _prediction(solution, name, measured)
            components = of_kernel
            if name.endswith("covariance"):
                components = of_pair_covariance if pairs else of_covariance
                if pairs and isinstance(solution.closure, AbstractPairable):
                    theory, truncation = (pair_blocks(x) for x in (theory, truncation))
                if pairs and not ensemble.elements.pairs:
                    estimate = estimate.map(pair_blocks)
        index, labels = components(inputs)
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
    if name in _TANGENT and ensemble.reference_tangent is not None:
        theta = float(np.max(np.abs(ensemble.reference_tangent)))
        factors = {"tangent_correction": ensemble.width, "tangent_mixed": size, "tangent_cross": size}
        scale = theta * factors.get(name, theta)
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
    ensemble = measured if isinstance(measured, Ensemble) else measured.first
    both = isinstance(solution.closure, AbstractTangentClosure) and ensemble.reference_tangent is not None
    tangent = tuple(_TANGENT) if both else ()
    return ("mean_correction", "limit_covariance" if limit else "kernel_covariance", *tangent)


def _estimate(measured: Ensemble | Extrapolation, name: str) -> Measured:
    if isinstance(measured, Ensemble):
        return getattr(measured.estimates, name)
    if name not in ("mean_correction", "kernel_covariance", *_TANGENT):
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
