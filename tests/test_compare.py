"""Theory against simulation: the statistics of a comparison, and a small validation of both closures."""

import itertools
import pathlib
import subprocess
import sys
from typing import Any

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import kernelode as ko
from kernelode import ensemble as en
from kernelode._compare.compare import _chi_square

from .helpers import pair_kernel, resnet

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAIR = pair_kernel(1.0, 0.8, 0.3)


def test_chi_square_of_dependent_components():
    """Twelve components made of four, of different sizes: levels are what they say, up to counting."""
    rng = np.random.default_rng(1)
    mixing = rng.normal(size=(4, 12)) * np.geomspace(1, 10, 12)
    probabilities, squares, degrees = [], [], []
    for _ in range(2000):
        bins = rng.normal(size=(64, 4)) @ mixing
        mean = np.mean(bins, axis=0)
        scatter = (bins - mean) / np.sqrt(64 * 63)
        error = np.sqrt(np.sum(scatter**2, axis=0))
        square, degree, probability = _chi_square(mean / error, [scatter / error])
        probabilities.append(probability)
        squares.append(square)
        degrees.append(degree)
    assert abs(np.mean(squares) - 1) < 0.06
    assert 2 < np.mean(degrees) < 4.5
    for level in (0.5, 0.1, 0.02):
        share = np.mean(np.array(probabilities) < level)
        assert abs(share - level) < 5 * np.sqrt(level / 2000) + 0.2 * level


CASES = {
    "tanh": resnet(ko.Tanh(), 10, sw2=2.0, sb2=0.0, rho=0.3),
    "erf": resnet(ko.Erf(), 10, sw2=2.0, rho=0.3),
    "relu": resnet(ko.ReLU(), 6, sw2=2.0, sb2=0.0, rho=0.4),
    "gelu with bias": resnet(ko.GELU(), 6, sw2=1.5, sb2=0.2, rho=0.4),
    "skip 0.9": resnet(ko.GELU(), 6, sw2=1.5, sb2=0.2, rho=0.4, skip_scale=0.9),
    "mlp": ko.MLP(ko.GELU(), 3, weight_variance=1.5, bias_variance=0.1),
}


BY_DEFAULT = ("erf",)
CHOSEN = [n if n in BY_DEFAULT else pytest.param(n, marks=pytest.mark.slow) for n in CASES]


@pytest.mark.parametrize("name", CHOSEN)
def test_validation(name):
    """The tower agrees with networks of two widths, and the G-only closure does not where it must not."""
    network = CASES[name]
    ensembles = [
        en.sample(network, PAIR, width=n, samples=16_000, key=jr.key(n), dtype="float32", batch=250)
        for n in (64, 128)
    ]
    last: dict[str, Any] = {"layers": [network.depth]}
    tower = ko.propagate(network, PAIR, closure=ko.WickTower(24), **last)
    found = ko.compare(tower, ensembles[1])
    assert found.probability > 1e-3, found
    assert max(abs(row.z) for row in found.rows) < 4
    extrapolated = ko.compare(tower, en.extrapolate(*ensembles))
    assert extrapolated.probability > 1e-3, extrapolated
    g_only = ko.propagate_pairs(network, PAIR, closure=ko.GOnly(), **last)
    closure = ko.compare(g_only, ensembles[1])
    if name == "mlp":  # the exact recursion: feed-forward networks have no memory
        assert closure.probability > 1e-3, closure
    else:
        worst = {row.quantity: abs(row.z) for row in closure.largest(len(closure.rows))[::-1]}
        assert closure.probability < 1e-6
        assert worst["limit_covariance"] > 6 and worst["mean_correction"] > 4


@pytest.mark.slow
def test_layouts_agree():
    kernel = jnp.array([[1.0, 0.3, 0.1], [0.3, 0.8, 0.0], [0.1, 0.0, 1.5]])
    network = resnet(ko.ReLU(), 3)
    solutions = [
        solve(network, kernel, closure=ko.WickTower(8), layers=[1, 3])
        for solve in (ko.propagate, ko.propagate_pairs)
    ]
    ensembles = [
        en.sample(network, kernel, width=8, samples=400, key=jr.key(0), layers=[2, 3], pairs=pairs)
        for pairs in (False, True)
    ]
    tables = [ko.compare(*both).rows for both in itertools.product(solutions, ensembles)]
    assert len(tables[0]) == 6 + 21  # the third layer alone is in both
    reference = {(row.quantity, row.labels): row for row in tables[0]}
    for rows in tables[1:]:
        assert len(rows) == 6 + 15  # covariances within pairs: 3 alone, 4 for each of 3 pairs
        for row in rows:
            whole = reference[row.quantity, row.labels]
            np.testing.assert_allclose(row[4:6], whole[4:6], rtol=1e-6, atol=1e-9)
            np.testing.assert_allclose(row[6:], whole[6:], rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_a_comparison_says_what_it_found():
    network = resnet(ko.Tanh(), 3, rho=0.5)
    measured = en.sample(network, PAIR, width=16, samples=400, key=jr.key(0), layers=[0, 3])
    found = ko.compare(ko.propagate(network, PAIR, closure=ko.WickTower(8)), measured)
    assert {row.quantity for row in found.rows} == {"mean_correction", "limit_covariance"}
    # At the start V4 is sampled, K1 is zero without error, and no test.
    assert {row.quantity for row in found.rows if row.t == 0} == {"limit_covariance"}
    assert len(str(found).splitlines()) == len(found.rows) + 2
    assert found.summary in str(found)
    largest = found.largest(3)
    assert [abs(r.z) for r in largest] == sorted((abs(r.z) for r in found.rows), reverse=True)[:3]
    mean = ko.compare(ko.propagate(network, PAIR), measured)
    assert {row.quantity for row in mean.rows} == {"mean_kernel"}
    chosen = ko.compare(
        ko.propagate(network, PAIR, closure=ko.WickTower(8)),
        measured,
        ("mean_kernel", "kernel_covariance"),
    )
    (row,) = [r for r in chosen.rows if r.quantity == "mean_kernel" and r.labels == (0, 1)]
    assert row.measured == measured.mean_kernel.value[1, 0, 1]
    assert row.z == pytest.approx((row.measured - row.theory) / row.standard_error)


def test_comparisons_that_make_no_sense():
    network = resnet(ko.Erf(), 3, rho=0.5)
    measured = en.sample(network, PAIR, width=16, samples=100, key=jr.key(0))
    with pytest.raises(ValueError, match="different networks: they differ in weight_variance"):
        ko.compare(ko.propagate(resnet(ko.Erf(), 3, sw2=2.0), PAIR), measured)
    with pytest.raises(ValueError, match="different networks"):
        ko.compare(ko.propagate(ko.MLP(ko.Erf(), 3), PAIR), measured)
    with pytest.raises(ValueError, match="no depth in common"):
        ko.compare(ko.propagate(network, PAIR, layers=[1]), measured)
    with pytest.raises(ValueError, match="different mean kernels"):
        ko.compare(ko.propagate(network, 2 * PAIR), measured)
    with pytest.raises(ValueError, match="the start GaussianRows, the closure of `solution` another"):
        fixed = ko.WickTower(4, start=ko.FixedGram())
        ko.compare(ko.propagate(network, PAIR, closure=fixed), measured)
    with pytest.raises(ValueError, match="too few batches"):
        few = en.sample(network, PAIR, width=16, samples=100, key=jr.key(0), batch=50)
        ko.compare(ko.propagate(network, PAIR), few)
    with pytest.raises(ValueError, match="`quantities` must be among"):
        ko.compare(ko.propagate(network, PAIR), measured, ("sigma_kernel",))
    with pytest.raises(ValueError, match="needs a closure with moments"):
        ko.compare(ko.propagate(network, PAIR), measured, ("mean_correction",))
    start = en.sample(network, PAIR, width=16, samples=100, key=jr.key(0), layers=[0])
    with pytest.raises(ValueError, match="nothing random"):
        theory = ko.propagate(network, PAIR, closure=ko.WickTower(4))
        ko.compare(theory, start, ("mean_correction",))
    other = en.sample(network, PAIR, width=32, samples=100, key=jr.key(0), control=False)
    with pytest.raises(ValueError, match="differ in controlled"):
        en.extrapolate(measured, other)
    with pytest.raises(ValueError, match="Two different widths"):
        en.extrapolate(measured, measured)


@pytest.mark.slow
def test_the_validation_of_the_documentation():
    """All cases, two widths, two and three inputs: the script fails if the tower does."""
    script = ROOT / "benchmarks" / "validation.py"
    done = subprocess.run(
        [sys.executable, str(script)], cwd=ROOT, capture_output=True, text=True, timeout=1800
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("| 2 |") == 8 and done.stdout.count("| 3 |") == 8
