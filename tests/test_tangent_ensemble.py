"""Statistics of tangent kernels: of a network by hand, of many beside the theory, of a run."""

import json
import math
import pathlib
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import kernelode as ko
from kernelode import ensemble as en
from kernelode._compare.components import of_cross, of_exchange
from kernelode.ensemble._batch import run_batch
from kernelode.ensemble._network import first_layer
from kernelode.ensemble._normals import standard_normals
from kernelode.ensemble._setup import prepare
from kernelode.ensemble._tangent_kernel import OUTPUTS

from .helpers import pair_kernel, resnet

ROOT = pathlib.Path(__file__).resolve().parent.parent

PAIR = pair_kernel(1.0, 0.8, 0.3)
KEY = jr.key(20)
RATES = ko.LearningRates(
    [0.7, 1.9], 0.4, input_weight=0.6, input_bias=0.3, output_weight=1.1, output_bias=0.2
)
STATISTICS = ("correction", "covariance", "mixed", "cross", "exchange")


def drawn(network, **options) -> en.Ensemble:
    fixed: dict[str, Any] = dict(
        samples=1000, width=8, key=KEY, sampler=en.RealWeights(), tangent_kernel=True
    )
    return en.sample(network, PAIR, **{**fixed, **options})


@pytest.mark.parametrize("rates", [None, RATES], ids=["default", "rates"])
def test_one_network_by_hand(rates):
    """All weight matrices differentiated, those of two layers a block among them."""
    ends = dict(input_weight_variance=1.3, output_weight_variance=0.9, output_bias_variance=0.5)
    network = resnet(ko.Tanh(), 2, rho=0.5, layers_per_block=2, **ends)
    draw, empty = prepare(
        network,
        PAIR,
        KEY,
        width=3,
        samples=None,
        layers=[0, 1, 2],
        sampler=en.RealWeights(),
        start=en.GaussianRows(),
        control=None,
        pairs=False,
        responses=False,
        tangent_kernel=True,
        rates=rates,
        batch=1,
        dtype=None,
    )
    key = jr.key(9)
    found = run_batch(draw, key)
    h, z, own = by_hand(network, draw, key, rates)
    assert empty.reference_tangent is not None
    for layer, limit in enumerate(empty.reference_tangent):
        for name, values in sums_by_hand(h[layer], z[layer], own[layer], limit).items():
            here = found[name][layer]
            # Of the pair (0, 1): inputs alone are entries of it.
            here = here if values.ndim == 1 else here[1]
            np.testing.assert_allclose(here, values, rtol=1e-9, atol=1e-12, err_msg=name)


def sums_by_hand(h, z, kernel, limit) -> dict[str, np.ndarray]:
    """What is summed, of the three elements of one pair."""
    deviation = np.array([h[i, i][np.triu_indices(2)] for i in range(OUTPUTS)]) - limit
    mean = deviation.mean(axis=0)
    pairs = [(i, j) for i in range(OUTPUTS) for j in range(OUTPUTS) if i != j]
    average = lambda term: np.mean([term(i, j) for i, j in pairs], axis=0)
    return {
        "ntk": mean,
        "ntk_own": np.mean(deviation**2, axis=0),
        "ntk_means": np.outer(mean, mean),
        "ntk_others": average(lambda i, j: np.outer(deviation[i], deviation[j])),
        "ntk_g": kernel,
        "ntk_mixed": np.outer(kernel, mean),
        "ntk_cross": average(lambda i, j: np.einsum("c,d,ab->cadb", z[i], z[j], h[i, j])),
        "ntk_exchange": average(lambda i, j: np.einsum("pq,rs->prqs", h[i, j], h[i, j])),
    }


def by_hand(network, draw, key, rates):
    """H, z and the deviation of G at each layer."""
    first_key, layers_key = jr.split(key)
    h0, _ = first_layer(draw.plan, draw.start, first_key)
    own = standard_normals(jr.fold_in(layers_key, 2), (OUTPUTS, 1, 3), h0.dtype)[:, 0]
    weights, biases = np.zeros((2, 2, 3, 3)), np.zeros((2, 2, 3))
    for i in range(2):
        for k in range(2):
            inner = jr.fold_in(layers_key, i)
            inner = inner if k == 0 else jr.fold_in(inner, k)
            for_weights, for_biases = jr.split(inner)
            weights[i, k] = standard_normals(for_weights, (1, 3, 3), h0.dtype)[0]
            biases[i, k] = standard_normals(for_biases, (1, 3), h0.dtype)[0]
    root = np.linalg.cholesky(PAIR)
    c_out, b_out = float(network.output_weight_variance), float(network.output_bias_variance)

    def outputs(parameters, depth):
        first, shift, weights, biases, last, end = parameters
        h = root @ first + shift[None]
        for i in range(depth):
            u = h
            for k in range(2):
                u = math.sqrt(1.25 / 3) * jnp.tanh(u) @ weights[i, k].T
                u = u + math.sqrt(0.05) * biases[i, k][None]
            h = h + 0.5 * u
        z = math.sqrt(c_out / 3) * jnp.tanh(h) @ last.T + end[None]
        square = jnp.tanh(h) @ jnp.tanh(h).T / 3
        return z.T, square

    first = np.linalg.solve(root, h0[:, 0])
    parameters = tuple(map(jnp.asarray, (first, np.zeros(3), weights, biases, own, np.zeros(OUTPUTS))))
    ratio = [1.0, 0.0, np.ones(2), np.ones(2), 1.0, b_out]
    if rates is not None:
        ratio = [0.6 / 1.3, 0.3, np.array([0.7, 1.9]) / 1.25, np.full(2, 0.4) / 0.05, 1.1 / c_out, 0.2]
    found = []
    for depth in range(3):
        z, square = outputs(parameters, depth)
        jacobian = jax.jacobian(lambda p, at=depth: outputs(p, at)[0])(parameters)
        leaves = []
        for leaf, factor in zip(jacobian, ratio):
            by_layer = np.shape(factor) == (2,)
            scale = np.reshape(factor, (1, 1, 2, *[1] * (leaf.ndim - 3))) if by_layer else factor
            leaves.append(np.reshape(np.sqrt(scale) * leaf, (OUTPUTS, 2, -1)))
        flat = np.concatenate(leaves, axis=-1)
        h = np.einsum("iap,jbp->ijab", flat, flat)
        deviation = c_out * (square[np.triu_indices(2)] - draw.reference.moment[depth])
        found.append((h, np.asarray(z), np.asarray(deviation)))
    return tuple(np.array(x) for x in zip(*found))


def test_moments_of_one_layer():
    """Read out at the first layer nothing but its neurons fluctuates: the theory is exact at width 6."""
    network = resnet(ko.GELU(), 1, rho=0.5, output_weight_variance=1.3, output_bias_variance=0.2)
    rates = ko.LearningRates(output_weight=0.6)
    measured = drawn(network, width=6, samples=12_000, layers=[0], rates=rates, dtype="float32")
    theory = ko.propagate(network, PAIR, closure=ko.TangentTower(8, rates))
    quantities = tuple(f"tangent_{name}" for name in STATISTICS)
    found = ko.compare(theory, measured, quantities)
    assert len(found.rows) == 3 + 6 + 9 + 10 + 7
    assert found.probability > 1e-3, found
    # Not by large errors.
    for row in found.rows:
        if row.quantity != "tangent_correction":
            assert row.standard_error < 0.1 * abs(row.theory), row
    variance = measured.estimates.tangent_kernel_variance
    tangent = theory.read_out.tangent
    assert tangent is not None
    z = (variance.value[0] - tangent.variance[0]) / variance.standard_error[0]
    assert np.abs(z).max() < 4


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["MLP", "ResNet", "ResNet, scales"])
@pytest.mark.parametrize("activation", ["tanh", "GELU", "ReLU", "erf"])
def test_validation(activation, architecture):
    """Extrapolated from three widths, at the last layer; the largest errors are some tens of per cent."""
    script = ROOT / "benchmarks" / "tangent_validation.py"
    names = ["--activations", activation, "--architectures", architecture, "--samples", "4000"]
    done = subprocess.run(
        [sys.executable, str(script), *names], cwd=ROOT, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"| {activation}, {architecture} |" in done.stdout


@pytest.mark.slow
def test_a_homogeneous_network_has_the_mean_of_infinite_width():
    """Of ReLU E[H_aa] is Theta at every width, sign flips of a neuron's weights show."""
    network = ko.MLP(ko.ReLU(), 3, weight_variance=1.7, bias_variance=0.1)
    found = drawn(network, width=4, dtype="float32").estimates.tangent_correction
    own = found.value[0].diagonal() / found.standard_error[0].diagonal()
    assert np.abs(own).max() < 4


def test_components_are_listed_once():
    """Of an array with the symmetries of F, and of one with those of B, every number once."""
    rng = np.random.default_rng(0)
    z, h = rng.normal(size=(2, 2)), rng.normal(size=(2, 2, 2, 2))
    h[1, 0] = h[0, 1].T
    cross = np.einsum("ic,jd,ijab->cadb", z, z, h * (1 - np.eye(2))[:, :, None, None])
    exchange = np.einsum("ijpq,ijrs->prqs", h[:, :, :, :] * (1 - np.eye(2))[:, :, None, None], h)
    for array, components in ((cross, of_cross), (exchange, of_exchange)):
        _, labels = components(2)
        values = [array[label] for label in labels]
        assert len(np.unique(np.round(array, 12))) == len(values) == len(set(np.round(values, 12)))


FEW: dict[str, Any] = dict(samples=64, batch=4, rates=RATES, layers=[1, 2])


def test_files_and_other_rates(tmp_path):
    network, path, options = resnet(ko.Erf(), 2, rho=0.5), tmp_path / "run.npz", FEW
    with pytest.raises(ValueError, match="input_weight_variance` is zero"):
        drawn(resnet(ko.Erf(), 2, rho=0.5, input_weight_variance=0.0), **options)
    first = drawn(network, checkpoint=path, **options)
    again = en.Ensemble.load(path)
    for name in again.estimates.names:
        np.testing.assert_array_equal(
            getattr(again.estimates, name).value, getattr(first.estimates, name).value
        )
    shapes = {name: getattr(again.estimates, f"tangent_{name}").value.shape for name in STATISTICS}
    assert shapes["correction"] == (2, 2, 2) and shapes["mixed"] == (2, 2, 2, 3, 3)
    assert shapes["cross"] == shapes["exchange"] == (2, 2, 2, 2, 2, 2, 2)
    table = first.to_xarray()
    assert table["tangent_mixed"].shape == (2, 2, 2, 3, 3)
    assert table["tangent_cross_error"].shape == (2, 2, 2, 2, 2, 2, 2)
    other = ko.LearningRates(weight=1.0)
    with pytest.raises(ValueError, match="differs in: rates"):
        drawn(network, checkpoint=path, **{**options, "rates": other})
    assert first.merge(drawn(network, **{**options, "key": jr.key(1)})).samples == 128
    with pytest.raises(ValueError, match="pass `tangent_kernel=True` with them"):
        en.sample(network, PAIR, width=8, samples=64, key=KEY, rates=other)
    damaged: dict[str, Any] = dict(np.load(path))
    configuration = json.loads(str(damaged["configuration"]))
    del configuration["rates"]
    damaged["configuration"] = np.array(json.dumps(configuration))
    np.savez(path, **damaged)
    with pytest.raises(ValueError, match="those of an earlier version"):
        en.Ensemble.load(path)


@pytest.mark.slow
def test_comparisons_of_tangent_kernels():
    """By default of all that both have; not of other learning rates."""
    network, other = resnet(ko.Erf(), 2, rho=0.5), ko.LearningRates(weight=1.0)
    first = drawn(network, **FEW)
    theory = ko.propagate(network, PAIR, closure=ko.TangentTower(4, RATES))
    kinds = {row.quantity for row in ko.compare(theory, first).rows}
    figure = pytest.importorskip("matplotlib.figure").Figure()
    from kernelode.plot import plot_comparison

    for kind in kinds:
        assert plot_comparison(figure.add_subplot(), ko.compare(theory, first), kind).get_ylabel()
    assert kinds == {"mean_correction", "kernel_covariance", *(f"tangent_{k}" for k in STATISTICS)}
    elsewhere = ko.propagate(network, PAIR, closure=ko.TangentTower(4, other))
    with pytest.raises(ValueError, match="differ in the learning rates"):
        ko.compare(elsewhere, first)
    with pytest.raises(ValueError, match="needs moments of the tangent kernel"):
        ko.compare(ko.propagate(network, PAIR, closure=ko.WickTower(4)), first, ("tangent_mixed",))
    plain = en.sample(network, PAIR, width=8, samples=64, key=KEY)
    with pytest.raises(ValueError, match="`tangent_kernel=True`"):
        ko.compare(theory, plain, ("tangent_mixed",))


def test_extrapolation_of_three_widths():
    """The parabola in 1/n: of exact numbers, and equal widths are refused."""
    network = resnet(ko.Erf(), 1, rho=0.5)
    run = en.sample(network, PAIR, width=4, samples=64, key=KEY, sampler=en.RealWeights())
    # As if they were of other widths: the numbers need no law.
    at = lambda n: {**vars(run), "configuration": run.configuration | {"width": n}}
    runs = [en.Ensemble(**at(n)) for n in (4, 8, 16)]
    values = [run.mean_correction.value for run in runs]
    widths = np.array([run.width for run in runs])
    design = np.stack([np.ones(3), 1 / widths, 1 / widths**2], axis=1)
    expected = np.linalg.solve(design, np.stack(values).reshape(3, -1))[0]
    found = en.extrapolate(*runs).mean_correction
    np.testing.assert_allclose(found.value.ravel(), expected, rtol=1e-9)
    assert found.scatter.shape[0] == sum(run.mean_correction.scatter.shape[0] for run in runs)
    with pytest.raises(ValueError, match="two of them are 4"):
        en.extrapolate(runs[0], runs[1], runs[0])
