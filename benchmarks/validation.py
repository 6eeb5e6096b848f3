"""The closures against finite networks: which of them is right, for which activation and architecture.

    python benchmarks/validation.py --output validation.json

Every case draws ensembles of two widths, with control variates, and compares K1 and V4 of the last layer
with the Wick tower and with the G-only closure. Given is the largest |z| among the components; and for
the tower the probability that all of them together, however they depend on each other, differ as much
by chance. K1 is that of each width; V4 that of single neurons of the reference chain (n to infinity),
and that of the networks themselves, extrapolated from the two widths. Ends with status 1 if the
tower fails.
"""

import argparse
import json
import sys
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr

import kernelode as ko
from kernelode import ensemble as en

jax.config.update("jax_enable_x64", True)

WIDTHS = 64, 128
PAIR = [[1.0, 0.3], [0.3, 0.8]]
TRIPLE = [[1.0, 0.3, -0.2], [0.3, 0.8, 0.1], [-0.2, 0.1, 1.5]]
#: Below this probability the tower has failed.
LEVEL = 1e-4


class Case(NamedTuple):
    network: ko.AbstractArchitecture
    order: int = 24
    start: Any = ko.GaussianRows()


def resnet(activation, depth: int, time: float, **options) -> ko.ResNet:
    return ko.ResNet(activation, depth, residual_scale=(time / depth) ** 0.5, **options)


BIASED: dict[str, Any] = {"weight_variance": 1.5, "bias_variance": 0.2}
CASES = {
    "tanh": Case(resnet(ko.Tanh(), 100, 2.0, weight_variance=2.0), order=32),
    "erf": Case(resnet(ko.Erf(), 100, 2.0, weight_variance=2.0), order=32),
    "ReLU": Case(resnet(ko.ReLU(), 50, 1.0, weight_variance=2.0)),
    "GELU, bias": Case(resnet(ko.GELU(), 50, 1.0, **BIASED)),
    "softplus": Case(resnet(ko.Softplus(), 50, 1.0, **BIASED)),
    "GELU, skip 0.9": Case(ko.ResNet(ko.GELU(), 12, residual_scale=0.4, skip_scale=0.9, **BIASED)),
    "tanh, fixed Gram": Case(
        resnet(ko.Tanh(), 25, 1.0, weight_variance=2.0), order=32, start=ko.FixedGram()
    ),
    "MLP, GELU": Case(ko.MLP(ko.GELU(), 4, **BIASED)),
}


def compare_case(name: str, case: Case, kernel, samples: int) -> dict[str, Any]:
    """All z-scores of one case that the table shows."""
    network = case.network
    draw = lambda width: en.sample(
        network,
        kernel,
        width=width,
        samples=samples,
        key=jr.key(width),
        start=case.start,
        dtype="float32",
        batch=512,
    )
    ensembles = [draw(width) for width in WIDTHS]
    limit = en.extrapolate(*ensembles)
    row: dict[str, Any] = {"case": name, "inputs": kernel.shape[0], "samples": ensembles[0].samples}
    closures = {
        "tower": ko.WickTower(case.order, start=case.start),
        "g-only": ko.GOnly(start=case.start),
    }
    for closure_name, closure in closures.items():
        theory = ko.propagate_pairs(network, kernel, closure=closure, layers=[network.depth])
        found = {
            **{f"K1, n = {e.width}": ko.compare(theory, e, ("mean_correction",)) for e in ensembles},
            "V4, neurons": ko.compare(theory, ensembles[1], ("limit_covariance",)),
            "V4, extrapolated": ko.compare(theory, limit, ("kernel_covariance",)),
        }
        row[closure_name] = {key: abs(value.largest(1)[0].z) for key, value in found.items()}
        row[f"{closure_name}: probability"] = min(value.probability for value in found.values())
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description="Closures against finite networks.")
    parser.add_argument("--samples", type=int, default=64_000, help="networks of each width")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--output", help="write all z-scores as JSON to this file")
    arguments = parser.parse_args()

    columns = [f"K1, n = {width}" for width in WIDTHS] + ["V4, neurons", "V4, extrapolated"]
    print(f"| case | N | {' | '.join(columns)} | probability |\n|{'---|' * 7}")
    rows, failed, start = [], [], time.monotonic()
    for name in arguments.cases:
        for kernel in (PAIR, TRIPLE):
            row = compare_case(name, CASES[name], jnp.array(kernel), arguments.samples)
            rows.append(row)
            cells = [f"{row['tower'][c]:.1f} / {row['g-only'][c]:.1f}" for c in columns]
            probability = row["tower: probability"]
            print(f"| {name} | {len(kernel)} | {' | '.join(cells)} | {probability:.2g} |", flush=True)
            if probability < LEVEL:
                failed.append(name)
    print(f"\nLargest |z|, Wick tower / G-only. {time.monotonic() - start:.0f} s.")
    if arguments.output:
        with open(arguments.output, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)
    if failed:
        sys.exit(f"The tower fails for {', '.join(failed)}.")


if __name__ == "__main__":
    main()
