"""`kernelode sweep`: the library's numbers, its files, and one sentence for everything wrong."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
import xarray

import kernelode as ko

pytest.importorskip("typer")

from kernelode._cli.main import main  # noqa: E402
from kernelode._cli.ranges import parse_values  # noqa: E402

KERNEL = np.array([[0.06, 0.02, 0.01], [0.02, 0.05, 0.03], [0.01, 0.03, 0.04]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweeps")
    np.savez(folder / "k.npz", kernel=KERNEL)
    return folder


def command(folder, *more: str) -> list[str]:
    return ["sweep", "--data", str(folder / "k.npz"), "--input-scale", "raw", "--depth", "5", *more]


def run_json(arguments: list[str], capsys) -> dict:
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def network(rho, weight_variance, activation=None) -> ko.ResNet:
    variances = {"weight_variance": weight_variance, "bias_variance": 0.05}
    return ko.ResNet(activation or ko.Erf(), 5, residual_scale=rho, **variances)


def test_response(folder, capsys):
    ranges = ["--residual-scale", "0.1:1.6:5:log", "--weight-variance", "0.5,2"]
    files = ["--output", str(folder / "s.nc"), "--plot", str(folder / "s.png")]
    files += ["--folder", str(folder / "parts")]
    document = run_json(command(folder, *ranges, *files), capsys)
    scales = [0.1, 0.2, 0.4, 0.8, 1.6]
    np.testing.assert_allclose(document["axes"]["residual_scale"], scales)
    assert document["axes"]["weight_variance"] == [0.5, 2.0] and document["fixed"] == {
        "bias_variance": 0.05
    }
    pairs = np.triu_indices(3, 1)
    for i, j in np.ndindex(5, 2):
        chi = ko.response(network(scales[i], [0.5, 2.0][j]), KERNEL)
        results = {name: values[i][j] for name, values in document["results"].items()}
        expected = {"diagonal": jnp.mean(chi.diagonal), "off_diagonal": jnp.mean(chi.off_diagonal[pairs])}
        assert results == pytest.approx({k: float(v) for k, v in expected.items()}, rel=1e-12)
    assert (folder / "s.png").stat().st_size > 10_000
    with xarray.open_dataset(folder / "s.nc") as kept:
        assert np.array_equal(kept["diagonal"], document["results"]["diagonal"])
    assert (folder / "parts" / "sweep.nc").exists()
    # In words, from the folder.
    assert main(command(folder, *ranges, *files)) == 0
    out = capsys.readouterr().out
    assert "3 samples" in out and "erf, 5 blocks, bias variance 0.05\n10 points in" in out
    assert out.count("\n 0.") + out.count("\n 1.6") == 10


@pytest.mark.slow
def test_optimal_scale(folder, capsys):
    # Without an optimum where C_b / C_W > 1 / pi, for inputs; pairs have one.
    found = run_json(command(folder, "--quantity", "rho", "--bias-variance", "0.05,0.6"), capsys)
    best = ko.optimal_residual_scale(network(1.0, 1.25), KERNEL)
    results = found["results"]
    assert results["diagonal"][0] == pytest.approx(float(np.mean(best.diagonal.value)), rel=1e-9)
    assert results["diagonal"][1] is None and results["diagonal_interior"] == [1.0, 0.0]
    assert main(command(folder, "--quantity", "rho", "--bias-variance", "0.05,0.6")) == 0
    out = capsys.readouterr().out
    assert "Inputs: the optimum is interior for all at 50% of the points, for none at 50%." in out


def test_kernel(folder, capsys):
    ranges = ["--residual-scale", "0.3:0.6:14", "--quantity", "kernel", "--activation", "linear"]
    found = run_json(command(folder, *ranges), capsys)
    last = KERNEL
    for _ in range(5):
        last = last + 0.6**2 * (1.25 * last + 0.05)
    assert found["results"]["diagonal"][-1] == pytest.approx(np.mean(np.diag(last)), rel=1e-12)
    assert main(command(folder, *ranges)) == 0
    assert "inputs   largest" in capsys.readouterr().out


def test_overflow_is_said(folder, capsys):
    ranges = ["--residual-scale", "1,1e100", "--quantity", "kernel", "--activation", "relu"]
    assert main(command(folder, *ranges)) == 0
    assert "At 1 points there is no value (-): the kernel overflows." in capsys.readouterr().out


@pytest.mark.parametrize(
    "text, values",
    [("0.5", [0.5]), ("0,1e-2", [0, 0.01]), ("1:2:3", [1, 1.5, 2]), ("1:4:3:log", [1, 2, 4])],
)
def test_lists_of_numbers(text, values):
    np.testing.assert_allclose(parse_values("--x", text), values)


@pytest.mark.parametrize(
    "more, sentence",
    [
        (["--weight-variance", "1:2:x"], "--weight-variance must be a number, several"),
        (["--weight-variance", "1:2"], "--weight-variance must be a number, several"),
        (["--weight-variance", "1:2:3:log:5"], "--weight-variance must be a number, several"),
        (["--weight-variance", ""], "--weight-variance must be a number, several"),
        (["--weight-variance", "-1:1:4"], "must be numbers that are not negative"),
        (["--weight-variance", "nan"], "must be numbers that are not negative"),
        (["--weight-variance", "2:1:4"], "must end above where it starts"),
        (["--weight-variance", "0:1:4:log"], "must start above zero"),
        (["--weight-variance", "0:1:1"], "must have 2 to 100000 values"),
        (["--weight-variance", "1,1"], "same value more than once"),
        (["--weight-variance", "0:1:4", "--quantity", "rho"], "positive for --quantity rho"),
        (["--weight-variance", "0"], "--weight-variance must be a positive number"),
        (["--residual-scale", "0.1"], "Nothing is swept"),
        (["--quantity", "rho"], "Nothing is swept"),
        (["--quantity", "size"], "'size' is not one of"),
        (["--samples", "1"], "--samples must be at least 2"),
        (["--depth", "0"], "--depth must be at least 1"),
        (["--depth", str(10**13)], "hours or more"),
        (["--output", "x.npz"], "--output must end in .nc"),
        (["--plot", "x.txt"], "--plot must end in"),
        (
            ["--plot", "x.png", "--weight-variance", "1,2", "--bias-variance", "1,2"],
            "--plot draws one or two axes",
        ),
    ],
)
def test_bad_input_is_one_sentence(folder, more, sentence, capsys):
    assert main(command(folder, *more)) == 2
    captured = capsys.readouterr()
    assert sentence in captured.err and captured.err.count("\n") == 1 and not captured.out


def test_a_folder_of_something_else(folder, capsys):
    arguments = ["--residual-scale", "0.1,0.2", "--quantity", "kernel", "--activation", "linear"]
    assert main(command(folder, *arguments, "--folder", str(folder))) == 2
    assert "is not empty and holds no sweep" in capsys.readouterr().err
