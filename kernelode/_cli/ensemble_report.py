"""The report of `kernelode ensemble`, for people and as JSON."""

from typing import Any, NamedTuple

import numpy as np
import rich.console

from kernelode.ensemble import Ensemble, Measured

from .elements import print_elements
from .report import make_table


class Run(NamedTuple):
    """An ensemble, how many of its networks a file had, and the time that the others took."""

    ensemble: Ensemble
    before: int
    seconds: float

    @property
    def rate(self) -> float:
        """Networks times layers per second."""
        new = self.ensemble.samples - self.before
        return new * self.ensemble.network.depth / self.seconds


def print_run(console: rich.console.Console, run: Run, samples: np.ndarray) -> None:
    """The last layer, and how the run went."""
    found, n = run.ensemble, run.ensemble.width
    mean, shift, variance = found.mean_kernel, found.mean_correction, _variance(found)
    columns = ("element", "E[G]", "n (E[G] - K0)", "+-", "n Var(G)", "+-")
    table = make_table(f"The kernel G of the last layer, n = {n}", *columns)
    last = lambda measured, a, b: (measured.value[-1, a, b], measured.standard_error[-1, a, b])
    cells = lambda a, b: (mean.value[-1, a, b], *last(shift, a, b), *last(variance, a, b))
    print_elements(console, table, samples, cells)
    new = found.samples - run.before
    note = f"* {found.samples:,} networks"
    if run.before:
        note += f", {run.before:,} of them from the file"
    if new:
        note += f"; {run.seconds:.1f} s, {run.rate:,.0f} networks x layers per second with compilation"
    console.print(f"{note}; ended by: {found.ended}.")
    ratios = _variance_ratios(found)
    if ratios is not None:
        console.print(
            "* Without the reference on the same normals, errors as small would take "
            f"{ratios['mean_correction']:.3g} times as many networks for n (E[G] - K0), "
            f"{ratios['kernel_covariance']:.3g} times for n Var(G) (medians over elements)."
        )


def _variance(ensemble: Ensemble) -> Measured:
    """n Var(G), (layers, N, N)."""
    a, b = np.indices(2 * ensemble.kernel.shape[:1])
    of = (a, b, 1, 1) if ensemble.elements.pairs else (a, b, a, b)
    return ensemble.kernel_covariance.map(lambda x: x[..., *of])


def _variance_ratios(ensemble: Ensemble) -> dict[str, float] | None:
    """How many times fewer networks the control variates need at the last layer, if there are any;
    infinite where they are exact."""
    if not ensemble.configuration["controlled"]:
        return None
    names = ("mean_correction", "kernel_covariance")
    return {name: float(np.median(ensemble.variance_ratio(name)[-1])) for name in names}


def run_document(run: Run, samples: np.ndarray, factor: float) -> dict[str, Any]:
    """All estimates with their standard errors."""
    found, ratios = run.ensemble, _variance_ratios(run.ensemble)
    document: dict[str, Any] = {
        "layers": list(found.layers),
        "ts": found.ts.tolist(),
        "samples": samples.tolist(),
        "factor": factor,
        "width": found.width,
        "networks": found.samples,
        "from_file": run.before,
        "seconds": run.seconds,
        "networks_layers_per_second": run.rate,
        "ended": found.ended,
        "variance_ratio": None if ratios is None else {k: v for k, v in ratios.items() if np.isfinite(v)},
    }
    for name in found.estimates.names:
        measured = getattr(found.estimates, name)
        document[name] = measured.value.tolist()
        document[f"{name}_error"] = measured.standard_error.tolist()
    return document
