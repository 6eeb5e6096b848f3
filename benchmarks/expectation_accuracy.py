"""Accuracy of kernelode's Gaussian expectations, and honesty of their error estimates.

    python benchmarks/expectation_accuracy.py              # writes docs/accuracy.md and a JSON
    python benchmarks/expectation_accuracy.py --reference  # recomputes the reference first (minutes)

The reference is `tests/data/expectation_reference.json`. float32 is compared with float64 at the same
(rounded) inputs, so that its table shows the arithmetic and not the rounding of the inputs; at
correlation +-1, where rounding would take inputs off the line, with the reference.
"""

import argparse
import json
import math
import os
import platform
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import expectation_reference
import jax
import jax.numpy as jnp
import numpy as np

import kernelode as ko

jax.config.update("jax_enable_x64", True)

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "tests" / "data" / "expectation_reference.json"
HEADINGS = ("value", "1st", "2nd", "3rd derivatives")

ACTIVATIONS = {
    "tanh": ("`Tanh`", ko.Tanh()),
    "erf": ("`Erf`", ko.Erf()),
    "gelu": ("`GELU`", ko.GELU()),
    "softplus": ("`Softplus`", ko.Softplus()),
    "swish": ("`Swish`", ko.Swish()),
    "sin": ("`Sin`", ko.Sin()),
    "linear": ("`Linear`", ko.Linear()),
    "polynomial": ("`Polynomial`, degree 4", ko.Polynomial(expectation_reference.POLYNOMIAL)),
    "relu": ("`ReLU`", ko.ReLU()),
    "leaky_relu": ("`LeakyReLU`", ko.LeakyReLU(expectation_reference.LEAKY_SLOPE)),
    "erf as Elementwise": ("`Elementwise(erf)`", ko.Elementwise(jax.scipy.special.erf)),
    "relu as Elementwise": (
        "`Elementwise(relu, kinks=(0,))`",
        ko.Elementwise(lambda x: jnp.maximum(x, 0), kinks=(0.0,)),
    ),
    "hard_tanh": (
        "`Elementwise(hard tanh, kinks=(-1, 1))`",
        ko.Elementwise(lambda x: jnp.clip(x, -1, 1), kinks=(-1.0, 1.0)),
    ),
}


class Entry(NamedTuple):
    """One E[sigma^(i) sigma^(j)]: `error` and `estimate` are relative as the tables' header says."""

    a: float
    b: float
    rho: float
    ij: tuple[int, int]
    error: float
    estimate: float

    @property
    def order(self) -> int:
        return sum(self.ij) // 2


def pair_moments(activation, a, b, c):
    """E[sigma^(i) sigma^(j)] for a list of pairs, as {(i, j): Moments of shape (pair,)}."""
    one = lambda a, b, c: ko.pair_moments(activation, a[None], b[None], c[None, None], 3)
    moments = jax.jit(jax.vmap(one))(a, b, c)
    return {ij: jax.tree.map(lambda x: np.asarray(x[:, 0, 0]), m) for ij, m in moments.items()}


def natural_scale(norms, case, ij) -> float:
    """sqrt(E[(sigma^(i))^2] E[(sigma^(j))^2]); for distributions, the value's over a^(i/2) b^(j/2)."""
    (i, j), a, b = ij, case["a"], case["b"]
    rows, columns = norms[repr(a)], norms[repr(b)]
    if i < len(rows) and j < len(columns):
        return (rows[i] * columns[j]) ** 0.5
    return (rows[0] * columns[0]) ** 0.5 / (a ** (i / 2) * b ** (j / 2))


def compare(name: str, reference: dict, dtype: str) -> list[Entry]:
    """All entries of one activation whose true value is finite."""
    source, activation = name.split(" ")[0], ACTIVATIONS[name][1]
    cases, norms = reference["moments"][source], reference["norms"][source]
    a, b, rho = (np.array([case[key] for case in cases]) for key in ("a", "b", "rho"))
    inputs = tuple(jnp.asarray(x, dtype) for x in (a, b, rho * np.sqrt(a * b)))
    found = pair_moments(activation, *inputs)
    exact = pair_moments(activation, *(x.astype("float64") for x in inputs))
    entries = []
    for k, case in enumerate(cases):
        for ij, moments in found.items():
            key = "{}{}".format(*ij)
            listed = case["moments"].get(key, case["moments"].get(key[::-1]))
            if listed is None:
                continue
            use_listed = dtype == "float64" or abs(case["rho"]) == 1
            true = listed if use_listed else float(exact[ij].value[k])
            size = max(abs(listed), natural_scale(norms, case, ij) / 100)
            if size > float(jnp.finfo(dtype).tiny) ** 0.5:
                error = abs(float(moments.value[k]) - true) / size
                estimate = float(moments.error[k]) / size
                entries.append(Entry(case["a"], case["b"], case["rho"], ij, error, estimate))
    return entries


class Summary(NamedTuple):
    """Worst relative errors by order, for each variance and |correlation|; how the estimates did."""

    worst: dict[float, list[float | None]]
    by_correlation: dict[float, list[float | None]]
    entries: int
    exceeded: int
    unclaimed: int
    closest: float


def worst_by(key, entries: list[Entry]) -> dict[float, list[float | None]]:
    """The worst error of each order; None where no entry is finite."""
    worst: dict[float, list[float | None]] = defaultdict(lambda: [None] * 4)
    for entry in entries:
        row = worst[key(entry)]
        row[entry.order] = max(row[entry.order] or 0.0, entry.error)
    return dict(sorted(worst.items()))


def summarise(entries: list[Entry]) -> Summary:
    claimed = [entry for entry in entries if math.isfinite(entry.estimate)]
    return Summary(
        worst=worst_by(lambda e: e.a, claimed),
        by_correlation=worst_by(lambda e: abs(e.rho), claimed),
        entries=len(entries),
        exceeded=sum(not e.error <= e.estimate + 1e-30 for e in entries),
        unclaimed=len(entries) - len(claimed),
        closest=max((e.error / e.estimate for e in claimed if e.error > 0), default=0.0),
    )


INTRODUCTION = """# Accuracy of Gaussian expectations

Written by `python benchmarks/expectation_accuracy.py` ({machine}, JAX {jax}). What is compared are all
E[sigma^(i)(x) sigma^(j)(y)] with i + j even and at most 6, which by Price's theorem are E[sigma sigma]
and all its derivatives up to the third with respect to a = Var x, b = Var y and c = Cov(x, y); at
variances a = b of 0.001, 0.1, 1, 5, 20 and pairs (a, b) = (0.1, 0.03), (1, 0.3), (20, 6), for `Tanh` also
at 100 and 400, and at correlations -1, -0.99, 0, 0.3, 0.9, 0.99 and 1.

The reference (`benchmarks/expectation_reference.py`) uses mpmath and none of the library's formulas:
two-dimensional trapezoidal sums in integers of 2^-112, and for kinked activations one-dimensional
integrals and numerical differentiation. The contract in float64 is 1e-10 for values, 1e-8 for first and
second derivatives and 1e-6 for third ones, up to variance 20.

**Relative errors** are relative to the true value, but never to less than a hundredth of its natural
scale sqrt(E[(sigma^(i)(x))^2] E[(sigma^(j)(y))^2]): a moment may vanish (odd activations at correlation
0) or nearly cancel (ReLU at correlation -1). Where that scale is infinite (derivatives of a kink), it is
sqrt(E[sigma(x)^2] E[sigma(y)^2]) / (a^(i/2) b^(j/2)).

float32 is compared with float64 of the library at the same rounded inputs, so that its tables show what
rounding does; truncation, which both share, is in the tables of float64. At correlation +-1, where
rounding takes inputs off the line, float32 too is compared with the reference.
"""

LIMITS = """## What is not held, and what the estimates say there

- **Kinks at correlation +-1.** Second and third derivatives are infinite there, first ones have a
  square-root cusp. Infinite ones are left out of the tables; the library returns finite numbers for them
  (`_activation/homogeneous.py` has the convention) and an infinite estimate. Of parallel inputs with
  unequal variances, rounding decides how parallel they are: the estimate of first derivatives contains
  the square root of the rounding unit there, though for exactly parallel inputs the value is right.
- **`Elementwise` with kinks.** Mehler's series of 1024 terms converges algebraically there. Where it has
  not, for nearly parallel inputs, pairs are integrated over the plane on panels between the kinks, which
  takes about a millisecond a pair; at +-1 one-dimensional integrals take over. At any distance from
  parallel values of ReLU by its declared kink are right to 1e-13 of the natural scale, first derivatives
  to 1e-9 or to what rounding of the covariance changes, eps / sqrt(1 - corr^2).
- **Kinks that were not declared** are found by comparing derivatives with what integration by parts makes
  of the function itself. The estimate of everything that contains sigma'' is then infinite; that of
  values and first derivatives in c is the quadrature's. A kink beyond some five standard deviations
  escapes notice in float32.
- **Large variance.** Nodes follow the variance, pairs are integrated over the plane where Mehler's series
  has not converged, and beyond 600 E[sigma^2] of tanh, softplus and swish is a series in 1/q: no digits
  are lost up to the largest variances of the table, and none of values up to 1e150 in float64 (1e30 in
  float32). Beside derivatives, pairs are integrated with fewer nodes for such a range: to 1e-5 at 1e150.
- **float32.** Rounding is some 1e-6 of the natural scale, more in sums that cancel. Tolerances are 2e-5,
  1e-3, 1e-3 and 1e-2, `Elementwise` with kinks apart.
"""


def table(first: str, rows: dict[str, dict[float, list[float | None]]]) -> list[str]:
    lines = [f"| activation | {first} | " + " | ".join(HEADINGS) + " |", "|---" * 6 + "|"]
    for name, by_key in rows.items():
        for key, errors in by_key.items():
            cells = " | ".join("" if x is None else f"{x:.0e}" if x else "0" for x in errors)
            lines.append(f"| {ACTIVATIONS[name][0]} | {key:g} | {cells} |")
    return [*lines, ""]


def render(summaries: dict[str, dict[str, Summary]]) -> str:
    machine = f"{os.cpu_count()} cores, {platform.machine().replace('_', '-')}"
    lines = [INTRODUCTION.format(machine=machine, jax=jax.__version__)]
    for dtype, by_name in summaries.items():
        lines += [f"## {dtype}: worst relative error", ""]
        lines += table("a", {name: summary.worst for name, summary in by_name.items()})
        kinked = {n: s.by_correlation for n, s in by_name.items() if "kinks" in ACTIVATIONS[n][0]}
        lines += ["Kinks in `Elementwise`, by correlation:", "", *table("correlation", kinked)]
        lines += [f"## {dtype}: error estimates", ""]
        lines += ["| activation | moments | error above estimate | infinite | largest error / estimate |"]
        lines += ["|---|---|---|---|---|"]
        for name, s in by_name.items():
            counts = f"{s.entries} | {s.exceeded} | {s.unclaimed} | {s.closest:.2f}"
            lines.append(f"| {ACTIVATIONS[name][0]} | {counts} |")
        lines.append("")
    return "\n".join([*lines, LIMITS])


def main():
    parser = argparse.ArgumentParser(description="Accuracy of kernelode's Gaussian expectations.")
    parser.add_argument("--reference", action="store_true", help="recompute the reference first")
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks" / "expectation_accuracy.json")
    arguments = parser.parse_args()
    if arguments.reference:
        expectation_reference.write(REFERENCE)
    reference = json.loads(REFERENCE.read_text())
    summaries = {
        dtype: {name: summarise(compare(name, reference, dtype)) for name in ACTIVATIONS}
        for dtype in ("float64", "float32")
    }
    (ROOT / "docs" / "accuracy.md").write_text(render(summaries))
    plain = {d: {n: s._asdict() for n, s in by_name.items()} for d, by_name in summaries.items()}
    arguments.json.write_text(json.dumps(plain, indent=1) + "\n")
    print(render(summaries))


if __name__ == "__main__":
    main()
