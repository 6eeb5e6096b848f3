"""Statistics of the tangent kernel against finite networks, for activations and architectures.

    python benchmarks/tangent_validation.py --output tangent_validation.json

Every case draws networks of three widths with real weights, extrapolates what they measure to infinite
width by the parabola in 1/n through the three (corrections of order 1/n are tens of per cent at these
widths), and compares it with the tangent tower, read out at the last layer: every component for two
inputs of Theta1, A, D, F and B, and of K1 and V4 with them. Given are measured and predicted values of
one component each, the largest |z| of all, and the probability that they differ as much by chance. Ends
with status 1 if that is too small.
"""

import argparse
import json
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr

import kernelode as ko
from kernelode import ensemble as en

jax.config.update("jax_enable_x64", True)

PAIR = [[1.2, 0.5], [0.5, 0.9]]
#: Widths, and the shares of the networks that they have: about what makes the error of the extrapolation
#: smallest at a given time, with weights 1/3, -2 and 8/3 and costs that grow as n to the 1.8.
SHARES = {16: 1, 32: 3, 64: 2}
#: Below this probability the theory has failed.
LEVEL = 1e-4
#: The components that the table shows: theory and measurement.
SHOWN = {
    "tangent_correction": (0, 1),
    "tangent_covariance": (0, 0, 0, 0),
    "tangent_mixed": (0, 0, 0, 0),
    "tangent_cross": (0, 0, 0, 0),
    "tangent_exchange": (0, 0, 0, 0),
}


class Case(NamedTuple):
    network: ko.AbstractArchitecture
    rates: ko.LearningRates


VARIANCES: dict[str, Any] = {
    "weight_variance": 1.5,
    "bias_variance": 0.1,
    "output_weight_variance": 1.3,
    "output_bias_variance": 0.2,
}
RATES = ko.LearningRates(1.0, 0.3, output_weight=0.7, output_bias=0.2)
ACTIVATIONS = {"GELU": ko.GELU(), "ReLU": ko.ReLU(), "erf": ko.Erf(), "tanh": ko.Tanh()}


def case(activation: str, architecture: str) -> Case:
    sigma, scales = ACTIVATIONS[activation], jnp.array([0.4, 0.6, 0.3])
    if architecture == "MLP":
        return Case(ko.MLP(sigma, 2, relative_width=[1, 1.5, 1], **VARIANCES), ko.LearningRates())
    if architecture == "ResNet":
        return Case(ko.ResNet(sigma, 3, residual_scale=0.45, **VARIANCES), RATES)
    rates = ko.LearningRates([0.5, 1.5, 1.0], 0.3)
    return Case(ko.ResNet(sigma, 3, residual_scale=scales, **VARIANCES), rates)


ARCHITECTURES = "MLP", "ResNet", "ResNet, scales"


def compare_case(activation: str, architecture: str, samples: int) -> ko.Comparison:
    """The tower and the networks; `samples` of the first width."""
    network, rates = case(activation, architecture)
    kernel = jnp.asarray(PAIR)
    # Cases have networks of their own: their fluctuations are independent.
    number = len(ARCHITECTURES) * list(ACTIVATIONS).index(activation) + ARCHITECTURES.index(architecture)
    theory = ko.propagate(network, kernel, closure=ko.TangentTower(16, rates))
    ensembles = [
        en.sample(
            network,
            kernel,
            width=width,
            samples=share * samples,
            key=jr.fold_in(jr.key(width), number),
            sampler=en.RealWeights(),
            tangent_kernel=True,
            rates=rates,
            dtype="float32",
        )
        for width, share in SHARES.items()
    ]
    return ko.compare(theory, en.extrapolate(*ensembles))


def shown(row) -> str:
    """Theory and measurement, with the error in brackets."""
    digits = max(0, 1 - int(jnp.floor(jnp.log10(row.standard_error))))
    error = round(row.standard_error * 10**digits)
    return f"{row.theory:.{digits}f} / {row.measured:.{digits}f}({error})"


def main() -> int:
    parser = argparse.ArgumentParser(description="The tangent tower against finite networks.")
    parser.add_argument("--samples", type=int, default=6_000, help="networks of the first width")
    parser.add_argument("--activations", nargs="+", choices=ACTIVATIONS, default=list(ACTIVATIONS))
    parser.add_argument("--architectures", nargs="+", choices=ARCHITECTURES, default=ARCHITECTURES)
    parser.add_argument("--output", default=None, help="a .json file")
    options = parser.parse_args()
    print(f"| case | {' | '.join(SHOWN)} | largest z | chi-square | probability |", flush=True)
    print(f"|{'---|' * (len(SHOWN) + 4)}", flush=True)
    results = {}
    for activation in options.activations:
        for architecture in options.architectures:
            found = compare_case(activation, architecture, options.samples)
            rows = {(row.quantity, row.labels): row for row in found.rows}
            cells = [shown(rows[one]) for one in SHOWN.items()]
            worst = abs(found.largest(1)[0].z)
            ends = f"{worst:.1f} | {found.chi_square:.2f} | {found.probability:.2g}"
            print(f"| {activation}, {architecture} | {' | '.join(cells)} | {ends} |", flush=True)
            results[f"{activation}, {architecture}"] = {
                "rows": [row._asdict() for row in found.rows],
                "chi_square": found.chi_square,
                "degrees": found.degrees,
                "probability": found.probability,
            }
            if options.output:
                with open(options.output, "w") as file:
                    json.dump(results, file, indent=1)
    return int(min(result["probability"] for result in results.values()) < LEVEL)


if __name__ == "__main__":
    sys.exit(main())
