"""The commands that draw random networks and compare them with the theory."""

import json
import pathlib
import signal

import jax
import numpy as np
import pytest

import kernelode as ko
from kernelode.ensemble import Ensemble

pytest.importorskip("typer")

from kernelode._cli.main import main  # noqa: E402

KERNEL = np.array([[1.0, 0.3], [0.3, 0.8]])
NETWORK = ko.ResNet(ko.Erf(), 6, residual_scale=0.4, weight_variance=1.25, bias_variance=0.05)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    """With a kernel, and ensembles of two widths."""
    folder = tmp_path_factory.mktemp("ensembles")
    np.savez(folder / "k.npz", kernel=KERNEL)
    for width in (16, 32):
        assert main(arguments(folder, width=width, output=f"n{width}.npz")) == 0
    return folder


def arguments(folder, *more: str, width=16, output=None) -> list[str]:
    found = ["ensemble", "--data", str(folder / "k.npz"), "--input-scale", "raw", "--activation", "erf"]
    found += ["--depth", "6"]
    found += ["--residual-scale", "0.4", "--width", str(width), "--networks", "500", "--layers", "3"]
    return found + ([] if output is None else ["--output", str(folder / output)]) + list(more)


def library(folder, **options) -> Ensemble:
    """The run of `arguments`, without the command."""
    options = {"width": 16, "samples": 500, "layers": [0, 3, 6], "dtype": "float32"} | options
    return ko.ensemble.sample(NETWORK, KERNEL, key=jax.random.key(0), **options)


def run_json(command: list[str], capsys) -> dict:
    capsys.readouterr()
    assert main([*command, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_command_draws_what_the_library_draws(folder, capsys):
    document = run_json(arguments(folder), capsys)
    expected = library(folder)
    assert (document["networks"], document["ended"]) == (expected.samples, "samples")
    assert document["layers"] == [0, 3, 6] and np.allclose(document["ts"], [0, 0.48, 0.96])
    for name in ("mean_kernel", "mean_correction", "kernel_covariance", "limit_covariance"):
        measured = getattr(expected, name, None) or getattr(expected.estimates, name)
        assert np.array_equal(document[name], measured.value)
        assert np.array_equal(document[f"{name}_error"], measured.standard_error)
    assert document["variance_ratio"]["kernel_covariance"] > 1


def test_a_finished_file_is_printed_and_not_drawn_again(folder, capsys):
    before = Ensemble.load(folder / "n16.npz")
    capsys.readouterr()
    assert main(arguments(folder, output="n16.npz")) == 0
    out, err = capsys.readouterr()
    assert err == "" and out.isascii()
    saved = Ensemble.load(folder / "n16.npz")
    flat = " ".join(out.split())
    assert f"{saved.samples} networks, {saved.samples} of them from the file; ended by: samples" in flat
    assert "networks x layers per second" not in flat, "nothing was drawn"
    row = next(line.split() for line in out.splitlines() if line.startswith(" 0, 1 "))
    shift, variance = saved.mean_correction, saved.kernel_covariance
    numbers = [saved.mean_kernel.value[-1, 0, 1], shift.value[-1, 0, 1], shift.standard_error[-1, 0, 1]]
    numbers += [variance.value[-1, 0, 1, 0, 1], variance.standard_error[-1, 0, 1, 0, 1]]
    assert np.allclose([float(x) for x in row[2:]], numbers, rtol=1e-3)
    assert all(np.array_equal(saved.sums[name], before.sums[name]) for name in before.sums)


def test_choices_reach_the_library(folder, capsys):
    choices = ["--real-weights", "--pairs", "--fixed-gram", "--relative-error", "5", "--seed", "3"]
    found = run_json(arguments(folder, *choices), capsys)
    assert found["ended"] == "precision" and found["layers"] == [0, 3, 6]
    assert np.shape(found["kernel_covariance"]) == (3, 2, 2, 3, 3) and found["variance_ratio"] is None
    options = {"sampler": ko.ensemble.RealWeights(), "start": ko.FixedGram(), "pairs": True}
    expected = library(folder, layers=[0, 3, 6], until=ko.ensemble.RelativeError(5), **options)
    assert np.array_equal(found["mean_kernel"], expected.mean_kernel.value)
    raw = run_json(arguments(folder, "--no-control", "--max-seconds", "1e-3"), capsys)
    assert raw["ended"] == "time" and raw["variance_ratio"] is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_keep_what_was_measured(number, folder, capsys, monkeypatch):
    def interrupted(*arguments, progress, **options):
        def stop(done):
            progress(done)
            if done == 200:
                signal.raise_signal(number)

        return ko.ensemble.sample(*arguments, progress=stop, **options)

    monkeypatch.setattr("kernelode._cli.ensemble.sample", interrupted)
    (folder / "part.npz").unlink(missing_ok=True)
    assert main(arguments(folder, output="part.npz")) == 130
    out, err = capsys.readouterr()
    assert "200 networks" in out and "ended by: interrupted" in out and err == ""
    assert Ensemble.load(folder / "part.npz").samples == 200
    monkeypatch.undo()
    whole = run_json(arguments(folder, output="part.npz"), capsys)
    assert whole["from_file"] == 200
    assert np.array_equal(whole["mean_kernel"], Ensemble.load(folder / "n16.npz").mean_kernel.value)


def test_results_that_cannot_be_saved_are_printed(folder, capsys, monkeypatch):
    def full(self, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Ensemble, "save", full)
    capsys.readouterr()
    assert main(arguments(folder, output="full.npz")) == 1
    out, err = capsys.readouterr()
    assert "n (E[G] - K0)" in out and "ended by: samples" in out
    assert err.startswith("kernelode: --output") and err.count("\n") == 1
    assert "cannot be written: No space left on device" in err


@pytest.mark.parametrize("files", [["n16.npz"], ["n16.npz", "n32.npz"]])
def test_comparison_is_that_of_the_library(folder, files, capsys):
    found = run_json(["compare", *(str(folder / name) for name in files), "--order", "8"], capsys)
    ensembles = [Ensemble.load(folder / name) for name in files]
    assert found["widths"] == [e.width for e in ensembles]
    measured = ensembles[0] if len(files) == 1 else ko.ensemble.extrapolate(*ensembles)
    assert list(found["closures"]) == ["g-only", "wick-tower"]
    for name, closure in (("g-only", ko.GOnly()), ("wick-tower", ko.WickTower(8))):
        expected = ko.compare(ko.propagate(NETWORK, KERNEL, closure=closure), measured)
        numbers = lambda row: [row["theory"], row["measured"], row["standard_error"], row["z"]]
        rows = found["closures"][name]["rows"]
        assert np.allclose([numbers(r) for r in rows], [numbers(r._asdict()) for r in expected.rows])
        assert np.isclose(found["closures"][name]["chi_square"], expected.chi_square)


def test_comparison_as_a_table_and_as_a_figure(folder, capsys):
    figure = folder / "compare.png"
    assert main(["compare", str(folder / "n16.npz"), "--order", "8", "--plot", str(figure)]) == 0
    out, err = capsys.readouterr()
    assert err == "" and out.isascii()
    published, exact = out.split("wick-tower, layer ")
    tables = [
        [x.split() for x in part.splitlines() if x[:4] in (" K1 ", " V4 ")] for part in (published, exact)
    ]
    assert [len(rows) for rows in tables] == [9, 9]
    assert all(row[-4] == "-" for row in tables[0]), "the published closure is not truncated"
    assert all(float(row[-4]) > 0 for row in tables[1])
    # V4 of the reference chains has no corrections in 1/n.
    assert all(abs(float(row[-1])) < 5 for row in tables[1] if row[0] == "V4")
    assert out.count("chi-square") == 2 and "g-only, layer 6, t = 0.96" in published
    assert figure.stat().st_size > 10_000


def test_the_start_and_pairs_are_those_of_the_file(folder, capsys):
    start = {"start": ko.FixedGram(), "pairs": True, "layers": [6]}
    measured = library(folder, **start)
    measured.save(folder / "fixed.npz")
    file = str(folder / "fixed.npz")
    found = run_json(["compare", file, "--order", "8", "--closure", "wick-tower"], capsys)
    closure = ko.WickTower(8, start=ko.FixedGram())
    theory = ko.propagate_pairs(NETWORK, KERNEL, closure=closure, layers=[6])
    (rows,) = (one["rows"] for one in found["closures"].values())
    assert np.allclose([row["z"] for row in rows], [row.z for row in ko.compare(theory, measured).rows])


@pytest.mark.slow
def test_a_feed_forward_network_compares_with_both_closures(folder, capsys):
    network = ko.MLP(ko.ReLU(), 3, weight_variance=2.0)
    ensemble = ko.ensemble.sample(network, KERNEL, width=16, key=jax.random.key(0), samples=500)
    ensemble.save(folder / "mlp.npz")
    found = run_json(["compare", str(folder / "mlp.npz"), "--order", "8"], capsys)
    assert list(found["closures"]) == ["g-only", "wick-tower"]


@pytest.mark.slow
def test_moments_of_the_published_closure_have_no_truncation_error(folder, capsys):
    command = ["moments", "--data", str(folder / "k.npz"), "--depth", "3", "--closure", "g-only"]
    capsys.readouterr()
    assert main(command) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line[2:4] == ", "]
    assert len(rows) == 3 and all((row[4], row[6]) == ("-", "-") for row in rows)


@pytest.mark.parametrize(
    "more, sentence",
    [
        (["--networks", "7"], "--networks must be at least 8, got 7"),
        (["--relative-error", "0"], "--relative-error must be a positive number"),
        (["--max-seconds", "-1"], "--max-seconds must be a positive number"),
        (["--layers", "1"], "--layers must be at least 2"),
        (["--width", "0"], "--width must be at least 1"),
        (["--key", "-1"], "--key must be at least 0"),
        (["--key", str(2**63)], "--key must be below 2^63"),
        (["--samples", "3"], "--samples is 3, but only 2"),
        (["--residual-scale", "-1"], "--residual-scale must be a number that is not negative"),
        (["--residual-scale", "1e300"], "overflows"),
        (["--residual-scale", "1e9"], "overflows float32"),
        (["--fixed-gram", "--width", "1"], "`width` must be at least 2"),
        (["--depth", str(10**9)], "--depth 1000000000 would take"),
        (["--output", "x.csv"], "--output must end in .npz"),
        (["--output", "nowhere/x.npz"], "there is no folder nowhere"),
    ],
)
def test_wrong_values_are_refused_in_a_sentence(more, sentence, folder, capsys):
    assert_refused(arguments(folder, *more), sentence, capsys)


def test_other_files_are_refused_in_a_sentence(folder, capsys):
    (folder / "text.npz").write_text("no archive")
    whole = (folder / "n16.npz").read_bytes()
    (folder / "damaged.npz").write_bytes(whole[: len(whole) // 2])
    np.save(folder / "array.npy", KERNEL)
    (folder / "array.npy").rename(folder / "array.npz")
    with np.load(folder / "n16.npz") as file:
        arrays = dict(file)
    np.savez(folder / "less.npz", **{k: v for k, v in arrays.items() if k != "sums_yy"})
    refusal = "less.npz is a damaged file of an ensemble: the sums `yy` are missing."
    assert_refused(["compare", str(folder / "less.npz")], refusal, capsys)
    for name in ("k.npz", "text.npz", "damaged.npz", "array.npz"):
        refusal = f"{name} is not a file of an ensemble"
        assert_refused(["compare", str(folder / name)], refusal, capsys)
        assert_refused(arguments(folder, output=name), refusal, capsys)
    assert_refused(["compare", "nowhere.npz"], "There is no file nowhere.npz", capsys)
    assert_refused(arguments(folder, "--key", "1", output="n16.npz"), "of another run", capsys)


def test_runs_that_do_not_fit_are_refused_in_a_sentence(folder, capsys):
    first = str(folder / "n16.npz")
    assert_refused(["compare", first, first], "Two different widths are needed", capsys)
    assert main(arguments(folder, "--bias-variance", "0.1", width=32, output="other.npz")) == 0
    assert_refused(["compare", first, str(folder / "other.npz")], "differ in network", capsys)
    assert_refused(["compare", first, "--order", "1"], "--order must be at least 2", capsys)
    assert_refused(["compare", first, "--order", "2000"], "`terms` must lie between", capsys)
    assert_refused(["compare", first, "--plot", "figure.gif"], "--plot must end in", capsys)
    mine = ko.ResNet(ko.Elementwise(jax.numpy.tanh), 2, residual_scale=0.5)
    own = ko.ensemble.sample(mine, KERNEL, width=16, key=jax.random.key(0), samples=100)
    own.save(folder / "own.npz")
    assert_refused(["compare", str(folder / "own.npz")], "cannot be rebuilt", capsys)


def assert_refused(command, sentence, capsys) -> None:
    """Exit code 2, nothing on stdout, and one line on stderr that contains `sentence`."""
    capsys.readouterr()
    assert main(command) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("kernelode: ") and err.count("\n") == 1
    assert sentence in err
