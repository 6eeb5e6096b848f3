"""The examples: every script runs, in a short form, and what it prints is right."""

import importlib.util
import json
import math
import os
import pathlib
import re
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import multivariate_normal

import kernelode as ko

# Together they take minutes; `.ci/run` runs them beside the code of the documents.
pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).resolve().parent.parent
REFERENCE = json.loads((ROOT / "tests" / "data" / "response_reference.json").read_text("utf-8"))


def load(name: str):
    """An example as a module: its `main` then costs no process of its own."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def numbers(line: str) -> list[float]:
    """The numbers among the words of a line."""
    words = (re.sub(r"[,;%]$", "", word) for word in line.split())
    return [float(word) for word in words if re.fullmatch(r"-?[\d.]+(e[-+]\d+)?", word)]


def argmin(function, low: float, high: float) -> float:
    found: Any = minimize_scalar(function, bounds=(low, high), method="bounded", options={"xatol": 1e-7})
    return float(found.x)


def test_every_example_is_documented_and_tested():
    together = lambda paths: "\n".join(path.read_text("utf-8") for path in paths)
    documents = together((ROOT / "docs").glob("*.md"))
    tests = together((ROOT / "tests").rglob("*.py"))
    for path in (ROOT / "examples").glob("*.py"):
        assert f"examples/{path.name}" in documents, f"{path.name} is in no document"
        tested = any(f'"{name}"' in tests for name in (path.stem, path.name))
        assert tested or f"examples/{path.name}" in tests, f"{path.name} is not tested"


def test_signal_propagation(tmp_path, capsys):
    example, figure = load("signal_propagation"), tmp_path / "figure.png"
    example.main(["--width", "200", "--networks", "400", "--figure", str(figure)])
    lines = capsys.readouterr().out.splitlines()
    assert figure.stat().st_size > 10_000

    # Theory and simulation agree, where 1/n is below the errors.
    rows = [line for line in lines if line.startswith(("residual", "feed-forward"))]
    assert len(rows) == 24
    assert all(abs(z) < 4 for z in (numbers(row[23:])[-1] for row in rows))

    # Against a simulation with other code (N = 500), which has errors of its own and of order 1/n.
    recorded = REFERENCE["monte_carlo_fig2"]
    for network, entry in zip(example.networks().values(), ("res", "ff")):
        theory, other = example.predicted(network), recorded[entry]
        np.testing.assert_allclose(theory["C"], np.array(other["theory"])[:, 0], rtol=1e-12)
        np.testing.assert_allclose(theory["eta"], np.array(other["theory"])[:, 1], rtol=1e-12)
        for name, value in (("C, pair", "Cod"), ("eta, pair", "eta_od")):
            error = np.array(other[f"{value}_se"])
            assert np.all(np.abs(theory[name] - other[value]) < 3 * error + 0.2 / 500)

    # K^10 and chi^10 as computed to many digits by other code.
    last = {row[0]: row[1:] for row in (numbers(line) for line in lines[-3:])}
    known = {1.0: (11.98701, 1.533044), 0.3: (2.190607, 1.116045), 0.1: (1.483861, 1.015284)}
    for scale, (kernel, chi) in known.items():
        np.testing.assert_allclose(last[scale], (kernel, chi), atol=6e-6)


def test_residual_scaling(tmp_path, capsys):
    example, figure = load("residual_scaling"), tmp_path / "figure.png"
    options = ["--depths", "10", "20", "--inputs", "2", "--depth", "20", "--points", "2"]
    example.main([*options, "--figure", str(figure)])
    lines = capsys.readouterr().out.splitlines()
    assert figure.stat().st_size > 10_000
    table = {row[0]: row[1:] for row in map(numbers, lines) if len(row) == 7}
    best, law, chi, best_pair, law_pair, chi_pair = table[10.0]
    # By other code, with safeguarded Newton on the closed forms of erf.
    np.testing.assert_allclose((best, best_pair), (0.3265091603, 1.0891678420), atol=1e-8)
    np.testing.assert_allclose((chi, chi_pair), (1.61520134, 9.12714262), atol=6e-6)
    # The law's error is O(1/L^2).
    for depth, row in table.items():
        assert abs(row[1]) < 2 / depth**2 and abs(row[4]) < 4 / depth**2


def test_residual_scale_against_variances():
    # rho^2 C_W and rho^2 C_b alone enter: both variances doubled, rho* is smaller by sqrt(2).
    example = load("residual_scaling")
    pair = example.against_variances(example.digits_kernel(2), 20, [1.0, 2.0], [0.05, 0.1])
    np.testing.assert_allclose(pair[1], pair[0] / math.sqrt(2), rtol=1e-8)


def test_residual_scaling_of_digits_as_recorded():
    # The mean and standard deviation over 20 digits and their pairs, by other code.
    example = load("residual_scaling")
    kernel = np.array(REFERENCE["digits_gram"])
    found = example.against_variances(kernel, 50, [1.25, 0.8], [0.05, 0.05])
    np.testing.assert_allclose(found[0], (0.13847, 0.00390, 0.50625, 0.07634), atol=6e-6)
    np.testing.assert_allclose(found[1, [0, 2]], (0.1536, 0.6626), atol=6e-5)


def test_optimal_residual_scale(capsys):
    load("optimal_residual_scale").main(["--inputs", "2", "--depths", "10", "20"])
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines if re.match(r" +\d+ ", line)]
    assert [row[0] for row in rows] == ["10", "20"]
    for depth, mean, _, _, law, *_ in rows:
        # The law's relative error is O(1/L^2), with a constant of order one.
        assert abs(float(mean) / float(law) - 1) < 2 / int(depth) ** 2


def test_evidence(tmp_path, capsys):
    example, figure = load("evidence"), tmp_path / "figure.png"
    options = [
        "--train",
        "60",
        "--test",
        "100",
        "--depths",
        "10",
        "20",
        "--points",
        "15",
        "--inputs",
        "2",
    ]
    example.main([*options, "--figure", str(figure)])
    rows = {
        row[0]: row[1:] for row in map(numbers, capsys.readouterr().out.splitlines()) if len(row) == 8
    }
    assert figure.stat().st_size > 10_000
    for diagonal, pairs, by_evidence, by_error, small, best, large in rows.values():
        assert diagonal < by_evidence < pairs and diagonal < by_error < pairs
        assert best < small and best < large
    # As 1/sqrt(L), but for corrections of relative order 1/L.
    ratios = np.array(rows[10.0])[[0, 2, 3]] / np.array(rows[20.0])[[0, 2, 3]]
    np.testing.assert_allclose(ratios, math.sqrt(2), rtol=0.1)


def test_evidence_is_the_density_of_the_targets():
    example = load("evidence")
    kernel, targets = map(jnp.asarray, example.digits(12, 3))
    network = ko.ResNet(ko.Erf(), 20, weight_variance=1.25, bias_variance=0.05)
    output = example.output_kernel(network, kernel, 12)
    found, _ = example.log_evidence(output, targets[:12])
    covariance = np.asarray(output.cross[:12]).copy()
    covariance += 0.01 * np.mean(np.diagonal(covariance)) * np.eye(12)

    def density(log_amplitude):
        columns = np.asarray(targets[:12]).T
        law: dict[str, Any] = dict(mean=np.zeros(12), cov=math.exp(log_amplitude) * covariance)
        return float(np.sum(multivariate_normal.logpdf(columns, **law))) / 12

    best = argmin(lambda u: -density(u), -8, 8)
    np.testing.assert_allclose(float(found), density(best), atol=1e-6)


def test_gradient_search(tmp_path, capsys):
    example, figure = load("gradient_search"), tmp_path / "figure.png"
    with jax.numpy_dtype_promotion("standard"):  # optax mixes dtypes inside
        example.main(["--inputs", "20", "--depth", "5", "--figure", str(figure)])
    lines = capsys.readouterr().out.splitlines()
    assert figure.stat().st_size > 10_000
    rows = {line[:22].strip(): numbers(line[22:]) for line in lines[1:5]}
    by_hand = rows["by hand, Adam"]
    assert rows["optimise, Adam"] == by_hand
    np.testing.assert_allclose(rows["optimise, BFGS"][1:], by_hand[1:], rtol=1e-4)
    assert by_hand[1] > rows["start"][1]
    # Only rho^2 C_W and rho^2 C_b enter the evidence: along the flat direction the prior decides alone.
    flat = [float(x) for x in re.findall(r"= (-?[\d.]+)", lines[6])]
    assert abs(flat[0]) > 1e-3 and abs(flat[0] - flat[1]) < 1e-5
    assert "ill-posed" in " ".join(lines[7:])


@pytest.mark.parametrize("devices", [8])
def test_inside_jax(devices):
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = {k: v for k, v in os.environ.items() if k not in ("JAX_ENABLE_X64", "PYTHONWARNINGS")}
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "inside_jax.py"), "--scales", "64"],
        cwd=ROOT,
        env=environment | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"{devices} device(s); shards of {[64 // devices] * devices}"
    low, high = numbers(lines[2])
    assert low < 0.1383845381 < high  # the optimum by other code
    assert abs(float(re.findall(r"rho\* = ([\d.]+)", lines[3])[0]) - 0.1383845381) < 1e-8


def test_inside_jax_knows_a_linear_network():
    # chi_out = (1 + rho^2 C_W)^L.
    network = ko.ResNet(ko.Linear(), 8, weight_variance=1.5)
    scales = np.linspace(0.1, 1, 8)
    values, slopes = load("inside_jax").sweep(network, scales)
    np.testing.assert_allclose(values, 8 * np.log1p(1.5 * scales**2), rtol=1e-12)
    np.testing.assert_allclose(slopes, 8 * 3 * scales / (1 + 1.5 * scales**2), rtol=1e-12)


def test_own_activation(capsys):
    example = load("own_activation")
    example.main(["--depth", "5"])
    printed = capsys.readouterr().out.splitlines()
    rows = example.check(1.3, 0.8, 0.5)
    assert len(rows) == 5 and len(printed) == 11
    for _, value, estimate, expected in rows:
        error = abs(value - expected)
        assert error < 1e-11
        assert math.isnan(estimate) or error <= estimate < 1e-11

    # The formulae, against averages over random numbers.
    x, y = np.random.default_rng(0).multivariate_normal([0, 0], [[1.3, 0.5], [0.5, 0.8]], 200_000).T
    snake, hard = example.Snake(0.7), example.LeakyHardTanh(0.1)
    for product, formula in (
        (example.bump(x) * example.bump(y), rows[0][3]),
        (snake(x) * snake(y), rows[1][3]),
        (hard(x) ** 2, rows[3][3]),
    ):
        product = np.asarray(product)
        assert abs(np.mean(product) - formula) < 4 * np.std(product) / math.sqrt(len(product))

    # rho* by the formula, a scalar recursion and a search by values; its derivative by differences.
    moment = lambda q, leak: example.hard_tanh_variance(leak, q)
    gain = jax.jit(jax.grad(moment))
    value = jax.jit(moment)

    def cost(u, leak):
        q, total = 0.05, 0.0
        for _ in range(5):
            step = math.exp(2 * u)
            total += math.log1p(step * 1.25 * float(gain(q, leak)))
            q += step * (1.25 * float(value(q, leak)) + 0.05)
        return -total - math.log(float(gain(q, leak)))

    def best(leak):
        return math.exp(argmin(lambda u: cost(u, leak), -2, 0.5))

    rho, slope = map(float, re.findall(r"= (-?\d\.\d{6})", printed[-1])[-2:])
    assert abs(rho - best(0.0)) < 1e-5
    assert abs(slope - (best(0.01) - best(-0.01)) / 0.02) < 2e-3


def test_own_architecture(capsys):
    example = load("own_architecture")
    example.main(["--width", "64", "--networks", "100"])
    lines = capsys.readouterr().out.splitlines()
    scores = [float(line.rsplit("z", 1)[1]) for line in lines if "simulation" in line]
    assert len(scores) == 7 and max(map(abs, scores)) < 4

    # rho* of erf and sine together, by their formulae and a search by values.
    erf, sine = lambda k: 2 / math.pi * math.asin(2 * k / (1 + 2 * k)), lambda k: -math.expm1(-2 * k) / 2
    erf_gain = lambda k: 4 / math.pi / ((1 + 2 * k) * math.sqrt(1 + 4 * k))

    def cost(u):
        k, total, step = 0.05, 0.0, math.exp(2 * u)
        for _ in range(10):
            total += math.log1p(step * 0.6 * (erf_gain(k) + math.exp(-2 * k)))
            k += step * (0.6 * (erf(k) + sine(k)) + 0.05)
        return -total - math.log(erf_gain(k))

    best = math.exp(argmin(cost, -2.5, 0))
    (line,) = [line for line in lines if "of one input" in line]
    assert abs(numbers(line)[0] - best) < 1e-5

    # The decaying network: its scales, and the derivative of its response by differences of a `ResNet`.
    profile = lambda decay: np.arange(1, 11) ** -decay
    np.testing.assert_allclose(example.decaying().layers().scale, profile(0.5), rtol=1e-12)

    def log_response(decay):
        options: dict[str, Any] = dict(weight_variance=1.5, bias_variance=0.05)
        same = ko.ResNet(ko.Tanh(), 10, residual_scale=profile(decay), **options)
        return math.log(float(ko.response(same, example.KERNEL).off_diagonal[0, 1]))

    value, slope = map(float, re.findall(r"(-?\d+\.\d{6})", lines[-1]))
    assert abs(value - log_response(0.5)) < 1e-6
    assert abs(slope - (log_response(0.501) - log_response(0.499)) / 0.002) < 1e-5


def test_published_fluctuations():
    # As printed in arXiv:2604.15742, to its digits.
    found = load("kernel_fluctuations").published(np.array([0.0, 2.0]), 0.05)
    assert [round(float(x[-1]), 4) for x in found] == [4.3730, 42.8778, -0.9011]


def test_kernel_fluctuations(tmp_path, capsys):
    figure = tmp_path / "figure.png"
    options = ["--depth", "800", "--points", "3", "--order", "8", "--figure", str(figure)]
    load("kernel_fluctuations").main(options)
    lines = capsys.readouterr().out.splitlines()[1:5]
    rows = {line[:18].strip(): line[18:].split() for line in lines}
    printed = [round(float(x), 4) for x in rows["G-only, 32 nodes"][:3]]
    assert printed == [4.3730, 42.8778, -0.9011]
    # At any order of the pairs: elements of single inputs have towers of their own, which have converged.
    assert abs(float(rows["Wick tower"][1]) - 48.4710) < 1e-3
    assert figure.stat().st_size > 10_000


def test_tangent_kernel(tmp_path, capsys):
    figure = tmp_path / "figure.png"
    options = ["--networks", "256", "--depth", "2", "--figure", str(figure)]
    load("tangent_kernel").main(options)
    lines = capsys.readouterr().out.splitlines()
    assert figure.stat().st_size > 10_000
    shifts = [numbers(line[1:]) for line in lines if line.startswith(("K ", "H "))]
    assert len(shifts) == 8
    for width, theory, simulated, error in shifts:
        assert abs(simulated - theory) < 4 * error + 2 / width**2
    # Theta = l (C_W / 2)^(l - 1), which is the mean at every width.
    means = [numbers(line) for line in lines if re.match(r" +[12]\.[028] ", line)]
    assert len(means) == 9
    for variance, l, theory, simulated, error in means:
        assert abs(theory - l * (variance / 2) ** (l - 1)) < 1e-5
        assert abs(simulated - theory) < 4 * error
    # Without blocks both kinds of networks are read-in and read-out, whose spread is sqrt(3 / n).
    first = [line for line in lines if re.match(r"(feed-forward|rho = 1/2) +2 ", line)]
    assert len(first) == 2 and all("1.73205" in line for line in first)
    # The closed form of rectifiers beside the tower, and both kinds beside networks of width 32.
    known = [numbers(line[18:]) for line in lines if line.startswith("feed-forward")]
    others = [numbers(line[18:]) for line in lines if line.startswith("rho = ")]
    assert len(known) == 3 and len(others) == 5
    assert all(abs(tower - formula) < 2e-5 for _, tower, formula, *_ in known)
    for row in known + others:
        tower, simulated, error = row[1], *row[-2:]
        assert abs(simulated - tower) < 4 * error + 0.15 * tower
