"""The command: its main job against reference numbers, and one sentence for everything wrong."""

import contextlib
import io
import json
import pathlib
import pickle
import re
import subprocess
import sys
import zipfile
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import kernelode as ko
from kernelode._support import memory as _memory

from .helpers import RESPONSE_REFERENCE, reference_cases

pytest.importorskip("typer")
pytest.importorskip("sklearn")

from kernelode._cli.data import DataSet, load  # noqa: E402
from kernelode._cli.evidence import (  # noqa: E402
    Split,
    are_classes,
    build_problem,
    posterior_scores,
    regression_targets,
)
from kernelode._cli.main import main  # noqa: E402

GRAM = np.array(RESPONSE_REFERENCE["digits_gram"])
SMALL = ["--samples", "4", "--points", "5", "--train", "30", "--test", "20", "--depth", "5"]


def digit_labels() -> np.ndarray:
    from sklearn.datasets import load_digits

    _, labels = load_digits(return_X_y=True)
    return np.asarray(labels)[RESPONSE_REFERENCE["digits_sample_index"]]


@pytest.fixture(scope="module")
def reference_run(tmp_path_factory) -> tuple[dict, pathlib.Path]:
    """The paper's setting on the reference Gram matrix of digits, as JSON, and the figure."""
    folder = tmp_path_factory.mktemp("reference")
    np.savez(folder / "gram.npz", kernel=GRAM, labels=digit_labels())
    figure = folder / "rho.svg"
    arguments = ["rho", "--data", str(folder / "gram.npz"), "--depth", "50", "--activation", "erf"]
    arguments += ["--json", "--points", "9", "--plot", str(figure)]
    # All of stdout has to be one JSON document.
    with contextlib.redirect_stdout(io.StringIO()) as stdout:
        assert main(arguments) == 0
    return json.loads(stdout.getvalue()), figure


def test_rho_star_of_the_digits_is_the_reference(reference_run):
    document, _ = reference_run
    (case,) = [c for c in reference_cases("digits_mean_rho_star") if c["inputs"]["L"] == 50]
    found, expected = document["rho_star"], case["outputs"]
    for name, key in (("diagonal", "diag"), ("off_diagonal", "offdiag")):
        assert np.isclose(found[name]["mean"], expected[f"mean_{key}"], rtol=1e-8)
        assert np.isclose(found[name]["standard_deviation"], expected[f"sd_{key}"], rtol=1e-6)
    assert found["diagonal"]["counts"] == {"interior": 20, "decreasing": 0, "increasing": 0, "failed": 0}
    assert found["off_diagonal"]["counts"]["interior"] == 190


def test_json_has_every_element_and_what_was_asked(reference_run):
    document, _ = reference_run
    assert document["command"] == "rho"
    assert document["network"] == {
        "activation": "erf",
        "depth": 50,
        "weight_variance": 1.25,
        "bias_variance": 0.05,
        "layers_per_block": 1,
    }
    assert document["data"]["samples"] == list(range(20))
    assert np.isclose(document["data"]["kernel_factor"], 0.05 / np.mean(np.diagonal(GRAM)))
    assert np.allclose(document["input_kernel"], GRAM)
    assert np.shape(document["rho_star"]["off_diagonal"]["value"]) == (20, 20)
    assert set(document["rho_star"]["diagonal"]["status"]) == {"interior"}
    assert np.isclose(document["critical_variance"], 0.25113205320327, rtol=1e-9)
    assert [point["name"] for point in document["at"]] == [
        "no branch",
        "rho* diagonal",
        "rho* off-diagonal",
        "rho = 1",
    ]


def test_points_and_sweep_are_those_of_the_library(reference_run):
    document, _ = reference_run
    point = document["at"][2]
    network = ko.ResNet(
        ko.Erf(), 50, residual_scale=point["rho"], weight_variance=1.25, bias_variance=0.05
    )
    kernel = jnp.asarray(document["input_kernel"])
    response = ko.response(network, kernel)
    assert np.allclose(point["response"]["diagonal"], response.diagonal, rtol=1e-9)
    assert np.allclose(point["response"]["off_diagonal"], response.off_diagonal, rtol=1e-9)
    assert np.allclose(point["kernel"], ko.propagate(network, kernel, layers=[50]).mean_kernel[0])
    sweep = document["sweep"]
    assert len(sweep["rho"]) == 33 and np.all(np.diff(sweep["rho"]) > 0)
    best = sweep["rho"][int(np.argmax(sweep["response_diagonal"]))]
    assert np.isclose(best, document["rho_star"]["diagonal"]["mean"], rtol=0.2)


def test_evidence_is_there_for_labels(reference_run):
    document, _ = reference_run
    evidence = document["evidence"]
    assert (evidence["train"], evidence["test"]) == (10, 10)
    assert len(evidence["rho"]) == len(evidence["log_evidence"]) == len(evidence["error_rate"]) == 9
    assert all(0 <= rate <= 1 for rate in evidence["error_rate"])
    assert "log_evidence" in document["at"][0]
    assert any("no such optimum is claimed" in note for note in document["notes"])


def test_figure_is_written(reference_run):
    _, figure = reference_run
    assert figure.read_text(encoding="utf-8").lstrip().startswith("<?xml")


def test_report_for_an_activation_without_optimum(capsys):
    assert main(["rho", "--activation", "relu", *SMALL]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.isascii(), "the report may be redirected to a file in any encoding"
    assert "\x1b" not in out, "no colours where there is no terminal"
    flat = " ".join(out.split())
    assert "4 increasing" in flat and "6 increasing" in flat
    assert "4 inputs and 6 pairs: no finite rho* exists" in flat
    assert "relu is unbounded" in flat
    assert "In PyTorch" not in flat, "there is no scale to recommend"
    assert "held-out error (%)" in flat


@pytest.mark.slow
def test_report_for_inputs_above_the_critical_variance(capsys):
    assert main(["rho", "--input-scale", "raw", "--no-evidence", "--classes", "3,7", *SMALL]) == 0
    flat = " ".join(capsys.readouterr().out.split())
    assert "4 decreasing" in flat
    assert "above K* = 0.251; with --input-scale 0.05 an interior optimum comes back" in flat
    assert "There is no evidence and no held-out error: --no-evidence." in flat


def test_the_snippets_have_the_scales(capsys, tmp_path):
    rng = np.random.default_rng(1)
    np.save(tmp_path / "x.npy", rng.normal(size=(4, 5)))
    assert (
        main(["rho", "--data", str(tmp_path / "x.npy"), "--depth", "5", "--points", "5", "--json"]) == 0
    )
    document = json.loads(capsys.readouterr().out)
    assert document["evidence"] is None
    factor = 0.05 / np.mean(np.load(tmp_path / "x.npy") ** 2)
    assert np.isclose(document["data"]["input_factor"], np.sqrt(factor))
    assert any("has no labels" in note for note in document["notes"])


def test_posterior_scores_are_those_of_a_dense_calculation():
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(12, 4)), np.repeat([0.0, 1.0], 6)[rng.permutation(12)]
    split = Split(np.arange(8), np.arange(8, 12))
    problem = build_problem(DataSet("x", x, None, labels), split, 0.1, 0.05)
    network = ko.ResNet(ko.Erf(), 3, weight_variance=1.5, bias_variance=0.1)
    scores = posterior_scores(network, problem, jnp.asarray(0.7))

    scaled = ko.ResNet(ko.Erf(), 3, residual_scale=0.7, weight_variance=1.5, bias_variance=0.1)
    last = ko.propagate(scaled, 0.1 * x @ x.T / 4, layers=[3]).mean_kernel[0]
    block = scaled.read_out(ko.Block(jnp.diagonal(last), jnp.diagonal(last), last))
    kernel = np.where(np.eye(12, dtype=bool), block.row, block.cross)
    expected = dense_scores(kernel, np.eye(2)[labels.astype(int)])
    assert np.isclose(scores.log_evidence, expected[0], rtol=1e-9)
    assert np.isclose(scores.squared_error, expected[1], rtol=1e-9)


def dense_scores(kernel, targets):
    """Evidence by the density of a Gaussian at its best amplitude, and the posterior mean's error."""
    from scipy.optimize import minimize_scalar
    from scipy.stats import multivariate_normal

    train, test = slice(0, 8), slice(8, None)
    noisy = kernel[train, train] + 0.05 * np.mean(np.diagonal(kernel)[train]) * np.eye(8)

    def cost(log_amplitude):
        density = multivariate_normal(np.zeros(8), np.exp(log_amplitude) * noisy)
        return -np.sum([density.logpdf(column) for column in targets[train].T])

    mean = kernel[test, train] @ np.linalg.inv(noisy) @ targets[train]
    error = np.mean(np.sum((mean - targets[test]) ** 2, axis=1))
    best: Any = minimize_scalar(cost, tol=1e-12)
    return -best.fun / 8, error


def test_targets_are_one_hot_for_classes_and_standardised_otherwise():
    few = np.tile([3.0, 7.0], 10)
    targets, one_hot = regression_targets(few, np.arange(10))
    assert one_hot and np.array_equal(targets, np.eye(2)[[0, 1] * 10])
    assert are_classes(np.array(["cat", "dog"]))
    assert not are_classes(np.arange(20.0)) and not are_classes(few + 0.5)
    real, one_hot = regression_targets(np.arange(20.0), np.arange(10))
    assert not one_hot and np.isclose(np.std(real[:10]), 1) and np.isclose(np.mean(real[:10]), 0)


def load_labelled(*arguments, **options) -> tuple[np.ndarray, np.ndarray]:
    data = load(*arguments, **options)
    assert data.inputs is not None and data.labels is not None
    return data.inputs, data.labels


def test_csv_with_header_and_named_labels(tmp_path):
    path = tmp_path / "flowers.csv"
    path.write_text("width,species,height\n1,iris,2\n\n3,rose,4\n5,iris,6\n", encoding="utf-8-sig")
    inputs, labels = load_labelled(str(path), label_column="species")
    assert np.array_equal(inputs, [[1, 2], [3, 4], [5, 6]])
    assert list(labels) == ["iris", "rose", "iris"]
    assert load(str(path), label_column="species", classes="iris").size == 2


def test_csv_without_header_and_numbered_labels(tmp_path):
    path = tmp_path / "plain.csv"
    path.write_text("1,2,0\n3,4,1\n")
    inputs, labels = load_labelled(str(path), label_column="-1")
    assert np.array_equal(inputs, [[1, 2], [3, 4]])
    assert np.array_equal(labels, [0, 1])
    unlabelled = load(str(path))
    assert (
        np.array_equal(unlabelled.variances(), np.mean(np.square([[1, 2, 0], [3, 4, 1]]), axis=1))
        and unlabelled.labels is None
    )


def test_npz_with_inputs_and_labels(tmp_path):
    np.savez(tmp_path / "both.npz", x=np.eye(3, dtype=np.float32), y=np.array([[1], [2], [2]]))
    inputs, labels = load_labelled(str(tmp_path / "both.npz"))
    assert inputs.dtype == np.float64 and np.array_equal(labels, [1, 2, 2])
    np.savez(tmp_path / "one.npz", features=np.eye(3))
    assert load(str(tmp_path / "one.npz")).size == 3


def write(folder: pathlib.Path, name: str, content) -> str:
    """A file with `content`: text, an array, or the arrays of an archive."""
    path = folder / name
    if isinstance(content, str):
        path.write_text(content)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, dict):
        np.savez(path, **content)
    else:
        np.save(path, content, allow_pickle=True)
    return str(path)


def claiming(shape: tuple[int, ...]) -> bytes:
    """A .npy file whose header says that it has an array of that shape, and which has ten numbers."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return file.getvalue() + bytes(80)


def zipped(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


ONE_NAN = np.where(np.eye(3) > 0, 1, [[0, 0, np.nan], [0, 0, 0], [0, 0, 0]])
BAD_FILES = {
    "NaN": ("x.npy", ONE_NAN, "1 entries that are NaN or infinite, the first in row 0, column 2"),
    "one dimension": ("x.npy", np.ones(3), "must have shape (samples, features), got (3,)"),
    "images": ("x.npy", np.ones((3, 4, 4)), "flatten each sample to one row"),
    "no features": ("x.npy", np.ones((3, 0)), "must have shape"),
    "one sample": ("x.npy", np.ones((1, 3)), "at least two are needed"),
    "zero row": ("x.npy", np.diag([1.0, 0.0, 1.0]), "Row 1 (counted from 0)"),
    "too large": ("x.npy", np.diag([1.0, 1e200]), "too large to square"),
    "complex": ("x.npy", np.eye(2) * 1j, "must be real numbers"),
    "text": ("x.npy", np.array([["a", "b"]]), "must be real numbers"),
    "pickled array": ("x.npy", np.array([{"a": 1}, None]), "pickled objects"),
    "pickle": ("x.npy", pickle.dumps([1, 2]), "pickled objects"),
    "damaged": ("x.npz", b"PK\x03\x04 not really", "damaged"),
    "empty": ("x.npy", b"", "damaged"),
    "too long a header": ("x.npy", claiming((10**6, 10**6)), "8,000,000,000,000 bytes, but there are 80"),
    "a little too long": ("x.npy", claiming((4, 3)), "has shape (4, 3) and type float64, 96 bytes"),
    "negative shape": ("x.npy", claiming((-4, 3)), "damaged"),
    "too long in an archive": ("x.npz", zipped(x=claiming((10**6, 10**6))), "x in "),
    "no array": ("x.npz", zipped(x=b"text"), "x in it is no NumPy array"),
    "pickled member": ("x.npz", {"x": np.array([{}, {}])}, "pickled objects"),
    "unknown names": ("x.npz", {"a": np.eye(2), "b": np.eye(2)}, "it has `a`, `b`"),
    "both": ("x.npz", {"x": np.eye(2), "kernel": np.eye(2)}, "either the inputs"),
    "labels alone": ("x.npz", {"y": np.ones(2)}, "it has nothing"),
    "too few labels": ("x.npz", {"x": np.eye(3), "y": np.ones(2)}, "must be one a sample"),
    "NaN label": ("x.npz", {"x": np.eye(2), "y": np.array([1, np.nan])}, "label of sample 1"),
    "not PSD": ("x.npz", {"kernel": np.array([[1.0, 2.0], [2.0, 1.0]])}, "positive semidefinite"),
    "not symmetric": ("x.npz", {"kernel": np.array([[1.0, 0.5], [0.0, 1.0]])}, "symmetric"),
    "not square": ("x.npz", {"kernel": np.ones((2, 3))}, "square"),
    "NaN kernel": ("x.npz", {"kernel": np.full((2, 2), np.nan)}, "finite"),
    "zero variance": ("x.npz", {"kernel": np.diag([1.0, 0.0])}, "zero on the diagonal"),
    "ragged": ("x.csv", "1,2\n3\n", "Line 2"),
    "word": ("x.csv", "a,b\n1,2\n3,dog\n", "Line 3 of"),
    "missing entry": ("x.csv", "1,2\n3,\n", "an entry is empty"),
    "blank": ("x.csv", "\n\n", "is empty"),
    "header only": ("x.csv", "a,b\n", "has a header, but no samples"),
    "not text": ("x.csv", b"\xff\xfe\x00", "UTF-8"),
    "NaN in csv": ("x.csv", "1,2\nnan,3\n", "NaN or infinite"),
    "unknown suffix": ("x.txt", "1,2\n", "must be `digits` or a file"),
}


def assert_refused(arguments, capsys, sentence) -> None:
    """Exit code 2, nothing on stdout, and one line on stderr that contains `sentence`."""
    assert main(["rho", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("kernelode: ") and err.count("\n") == 1
    assert sentence in err
    assert "Traceback" not in err


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_refused_in_a_sentence(name, tmp_path, capsys):
    file, content, sentence = BAD_FILES[name]
    assert_refused(["--data", write(tmp_path, file, content)], capsys, sentence)


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--data", "nowhere.npy"], "There is no file nowhere.npy"),
        (["--data", "."], "must be `digits` or a file"),
        (["--activation", "cosh"], "'cosh' is not one of 'tanh'"),
        (["--depth", "0"], "--depth must be at least 1, got 0"),
        (["--depth", "ten"], "--depth"),
        (["--layers-per-block", "0"], "--layers-per-block must be at least 1"),
        (["--weight-variance", "-1"], "--weight-variance must be a positive number, got -1"),
        (["--weight-variance", "nan"], "--weight-variance must be a positive number, got nan"),
        (["--bias-variance", "-0.1"], "--bias-variance must be a number that is not negative"),
        (["--bias-variance", "inf"], "--bias-variance"),
        (["--noise", "0"], "--noise must be a positive number"),
        (["--input-scale", "large"], "--input-scale must be a positive number or `raw`"),
        (["--input-scale", "-1"], "--input-scale must be a positive number"),
        (["--samples", "1"], "--samples must be at least 2"),
        (["--samples", "5000"], "only 1797 samples"),
        (["--train", "1797"], "only 1796 samples"),
        (["--points", "1"], "--points must be at least 5"),
        (["--seed", "-1"], "--seed must be at least 0"),
        (["--classes", "3,11"], "no class `11`; it has 0, 1, 2"),
        (["--label-column", "y"], "--label-column is for .csv files"),
        (["--plot", "figure.gif"], "--plot must end in .png, .pdf or .svg"),
        (["--plot", "nowhere/figure.png"], "there is no folder nowhere"),
        (["--dept", "3"], "No such option"),
        (["--depth", str(10**9)], "--depth 1000000000 would take 29 hours or more"),
        (["--depth", str(10**15)], "hours or more"),
    ],
)
def test_bad_options_are_refused_in_a_sentence(arguments, sentence, capsys):
    assert_refused(arguments, capsys, sentence)


def test_bad_label_columns_are_refused(tmp_path, capsys):
    path = write(tmp_path, "x.csv", "a,b\n1,2\n3,4\n")
    assert_refused(["--data", path, "--label-column", "c"], capsys, "no column `c` among a, b")
    assert_refused(["--data", path, "--label-column", "2"], capsys, "no column `2`")
    missing = write(tmp_path, "y.csv", "a,b\n1,2\n3,\n")
    assert_refused(["--data", missing, "--label-column", "b"], capsys, "Sample 1 (counted from 0)")
    assert_refused(["--data", path, "--classes", "1"], capsys, "--classes needs labels")


def test_a_bug_is_not_swallowed(monkeypatch):
    def broken(*arguments, **options):
        raise ValueError("a bug")

    monkeypatch.setattr("kernelode._cli.rho.run_study", broken)
    with pytest.raises(ValueError, match="a bug"):
        main(["rho", *SMALL])


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_missing_dependencies_are_named(missing, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, missing, None)
    assert main(["rho"]) == 2
    assert 'pip install "kernelode[cli]"' in capsys.readouterr().err


def test_other_optional_dependencies_are_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert_refused(["--plot", "figure.png"], capsys, 'pip install "kernelode[plot]"')
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert_refused(["--data", "digits"], capsys, 'pip install "kernelode[data]"')


def test_help_and_version(capsys):
    assert main(["rho", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for option in ("--data", "--input-scale", "--layers-per-block", "--no-evidence", "--json", "--plot"):
        assert option in text
    assert "nothing of the kind is claimed" in text
    assert main([]) == 0
    assert "rho" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip()


def test_the_command_as_a_process(tmp_path):
    """In a fresh interpreter: exit code, one line, and double precision of its own making."""
    run = lambda code: subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    start = "import sys; from kernelode._cli.main import main; "
    refused = run(start + "sys.exit(main(['rho', '--data', 'nowhere.csv']))")
    assert refused.returncode == 2
    assert refused.stdout == "" and refused.stderr.count("\n") == 1
    precise = run(start + "main(['--version']); import jax; assert jax.config.jax_enable_x64")
    assert precise.returncode == 0, precise.stderr


@pytest.mark.parametrize("command", ["rho", "moments", "tangent", "sweep"])
def test_what_does_not_fit_into_memory_is_refused_in_a_sentence(command, monkeypatch, capsys):
    """As the library says it; before anything is traced."""
    monkeypatch.setattr(_memory, "_ALWAYS_THERE", 0)
    monkeypatch.setattr(_memory, "available_bytes", lambda device=None: 3e4)
    assert main([command, "--samples", "40"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("kernelode: ") and err.count("\n") == 1
    assert re.search(r"need about \S+ GB, but 3e-05 GB are free\.", err)


def test_links_and_folders_as_files(tmp_path, capsys):
    (tmp_path / "link.npz").symlink_to(tmp_path / "nowhere" / "x.npz")
    (tmp_path / "folder.npz").mkdir()
    for name, sentence in (("link", "there is no folder"), ("folder", "is a folder")):
        assert main(["moments", "--output", str(tmp_path / f"{name}.npz")]) == 2
        assert sentence in capsys.readouterr().err


def test_moments(tmp_path, capsys):
    kernel = np.array([[1.0, 0.3], [0.3, 0.8]])
    np.savez(tmp_path / "k.npz", kernel=kernel)
    archive, figure = tmp_path / "moments.npz", tmp_path / "moments.png"
    arguments = ["moments", "--data", str(tmp_path / "k.npz"), "--input-scale", "raw", "--depth", "6"]
    arguments += ["--activation", "gelu", "--residual-scale", "0.3", "--order", "6", "--width", "50"]
    assert main([*arguments, "--json", "--output", str(archive), "--plot", str(figure)]) == 0
    document = json.loads(capsys.readouterr().out)
    net = ko.ResNet(ko.GELU(), 6, residual_scale=0.3, weight_variance=1.25, bias_variance=0.05)
    expected = ko.propagate_pairs(net, kernel, closure=ko.WickTower(6))
    assert np.allclose(document["kernel_covariance"], expected.kernel_covariance, rtol=1e-12)
    assert np.allclose(document["mean_correction"], expected.mean_correction, rtol=1e-12, atol=1e-15)
    with np.load(archive) as saved:
        spread = expected.at_width(50).standard_deviation
        assert np.allclose(saved["standard_deviation"], spread, rtol=1e-12)
    assert figure.stat().st_size > 5_000

    assert main([*arguments, "--width", "2"]) == 0
    printed = capsys.readouterr().out
    assert "shift K1/n" in printed and "Corrections are not small" in printed


@pytest.mark.parametrize(
    "arguments,message",
    [
        (["--width", "0"], "--width must be a positive number"),
        (["--order", "1"], "--order must be at least 2"),
        (["--samples", "0"], "--samples must be at least 1"),
        (["--samples", "10000"], "--samples is 10000, but only 1797"),
        (["--residual-scale", "-1"], "--residual-scale must be a number that is not negative"),
        (["--output", "moments.csv"], "--output must end in .npz"),
        (["--output", "nowhere/moments.npz"], "there is no folder nowhere"),
        (["--closure", "gaussian"], "--closure"),
        (["--depth", str(10**10)], "hours or more"),
    ],
)
def test_moments_refuses(arguments, message, capsys):
    assert main(["moments", "--data", "digits", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("samples", [1, 2])
def test_tangent(samples, tmp_path, capsys):
    kernel = np.array([[1.0, 0.3], [0.3, 0.8]])
    np.savez(tmp_path / "k.npz", kernel=kernel)
    archive, figure = tmp_path / "tangent.npz", tmp_path / "tangent.png"
    arguments = ["tangent", "--data", str(tmp_path / "k.npz"), "--input-scale", "raw", "--depth", "3"]
    arguments += ["--activation", "erf", "--residual-scale", "0.5", "--order", "4", "--width", "50"]
    arguments += ["--samples", str(samples), "--output", str(archive)]
    assert main([*arguments, "--plot", str(figure)]) == 0
    assert figure.stat().st_size > 5_000
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]

    with np.load(archive) as saved:
        found = dict(saved)
    drawn = kernel[np.ix_(found["samples"], found["samples"])]
    net = ko.ResNet(ko.Erf(), 3, residual_scale=0.5, weight_variance=1.25, bias_variance=0.05)
    expected = ko.propagate_pairs(net, drawn, closure=ko.TangentTower(4)).read_out.tangent
    at = expected.at_width(50)
    assert np.allclose(found["variance"], expected.variance, rtol=1e-12)
    assert np.allclose(found["mean"], at.mean, rtol=1e-12)
    assert np.allclose(found["standard_deviation"], at.standard_deviation, rtol=1e-12)

    # The row of the last element.
    theta, mean, spread = (
        float(x[-1, 0, -1]) for x in (expected.tangent_kernel, at.mean, at.standard_deviation)
    )
    exchange = expected.exchange_truncation[-1, 0, -1]
    beyond = expected.covariance_truncation[-1, 0, -1, 1, 1] + exchange[0, 0, 1, 1] + exchange[0, 1, 1, 0]
    errors = expected.correction_truncation[-1, 0, -1] / 50 / theta, beyond / 50 / (2 * spread * theta)
    element = [f"{found['samples'][0]},", str(found["samples"][-1])]
    (printed,) = [[float(x) for x in row[2:]] for row in rows if row[:2] == element]
    shares = (mean - theta) / theta, errors[0], spread / theta, errors[1]
    assert np.allclose(printed, [theta, mean, *shares], rtol=1e-3, atol=1e-15)


@pytest.mark.slow
def test_tangent_learning_rates(tmp_path, capsys):
    """Theta is linear in the rates, the input kernel aside; the smallest width warns."""
    np.savez(tmp_path / "k.npz", kernel=np.eye(2))
    arguments = ["tangent", "--data", str(tmp_path / "k.npz"), "--input-scale", "raw", "--depth", "2"]
    arguments += ["--activation", "erf", "--order", "4", "--width", "2", "--samples", "1"]

    def theta(weight: str, bias: str) -> float:
        assert main([*arguments, "--json", "--weight-rate", weight, "--bias-rate", bias]) == 0
        return json.loads(capsys.readouterr().out)["tangent_kernel"][-1][0][0]

    frozen, slow, fast = theta("0", "0"), theta("1", "0.5"), theta("3", "1.5")
    assert np.isclose(fast - frozen, 3 * (slow - frozen), rtol=1e-12) and slow > frozen > 0
    assert main(arguments) == 0
    assert "Corrections are not small" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments,message",
    [
        (["--width", "0"], "--width must be a positive number"),
        (["--order", "1"], "--order must be at least 2"),
        (["--weight-rate", "-1"], "--weight-rate must be a number that is not negative"),
        (["--bias-rate", "inf"], "--bias-rate must be a number that is not negative"),
        (["--output", "tangent.csv"], "--output must end in .npz"),
        (["--plot", "tangent.gif"], "--plot must end in"),
        (["--depth", str(10**10)], "hours or more"),
    ],
)
def test_tangent_refuses(arguments, message, capsys):
    assert main(["tangent", "--data", "digits", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_tangent_refuses_a_multiple_of_another_sample(tmp_path, capsys):
    np.savez(tmp_path / "k.npz", kernel=np.array([[1.0, 2.0], [2.0, 4.0]]))
    arguments = ["tangent", "--data", str(tmp_path / "k.npz"), "--activation", "relu", "--depth", "2"]
    assert main(arguments) == 2
    assert "none that is a multiple of another" in capsys.readouterr().err
