"""kernelode from outside: its public names, their types for a strict client, and that client at work."""

import ast
import importlib
import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import kernelode as ko

from .test_package import ENVIRONMENT, PACKAGE, run_python

CLIENT = pathlib.Path(__file__).parent / "client"
NAMES = pathlib.Path(__file__).parent / "data" / "public_names.txt"
MODULES = ("kernelode", *(f"kernelode.{n}" for n in ("baselines", "ensemble", "learning", "plot")))


def written_names() -> dict[str, list[str]]:
    """The list in the file: a line for each module, then its names, indented."""
    found: dict[str, list[str]] = {}
    for line in NAMES.read_text("utf-8").splitlines():
        if line.startswith(" "):
            found[list(found)[-1]].append(line.strip())
        elif line and not line.startswith("#"):
            found[line.strip()] = []
    return found


def exported_names(module: str) -> list[str]:
    """What the `__init__` of a module re-exports."""
    path = importlib.import_module(module).__file__
    assert path is not None
    tree = ast.parse(pathlib.Path(path).read_text("utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    names = sorted(alias.asname or alias.name for node in imports for alias in node.names)
    return [name for name in names if not name.startswith("_")]


@pytest.mark.parametrize("module", MODULES)
def test_public_names_are_the_written_ones(module):
    # Somebody's programs depend on each: taking one away, or adding one, is for the changelog too.
    assert exported_names(module) == written_names()[module]


def test_former_names_warn():
    with pytest.warns(DeprecationWarning, match="`kernelode.Moments` is now `kernelode.Estimate`"):
        assert getattr(ko, "Moments") is ko.Estimate  # noqa: B009
    with pytest.raises(AttributeError, match="'kernelode' has no attribute 'Nothing'"):
        getattr(ko, "Nothing")  # noqa: B009


def test_the_written_modules_are_all():
    assert tuple(written_names()) == MODULES
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    public = {name for name in packages if not name.startswith("_")}
    assert public == {module.partition(".")[2] for module in MODULES[1:]}


def test_star_import_takes_the_public_names():
    # In a process of its own: under the import hook of the tests, modules hold its names too.
    code = f"""
import json
found = {{}}
for module in {MODULES!r}:
    names = {{}}
    exec(f"from {{module}} import *", names)
    found[module] = sorted(set(names) - {{"__builtins__"}})
print(json.dumps(found))
"""
    assert json.loads(run_python(code)) == written_names()


def test_results_are_spelled_out_for_type_checkers():
    tree = ast.parse((PACKAGE / "_support" / "results.py").read_text("utf-8"))
    (condition,) = [node for node in tree.body if isinstance(node, ast.If)]
    (spelled,) = [node for node in condition.body if isinstance(node, ast.ClassDef)]
    items = [node.targets[0] for node in spelled.body if isinstance(node, ast.Assign)]
    spelled_names = [item.id for item in items if isinstance(item, ast.Name)]
    assert spelled_names == list(ko.RESULTS._name_to_item)
    assert ast.get_docstring(spelled) == ko.RESULTS.__doc__


def pyright(*arguments: str) -> dict[str, Any]:
    """What pyright reports, with the packages of this interpreter."""
    if importlib.util.find_spec("pyright") is None:
        pytest.skip("pyright is not installed: it comes with `kernelode[dev]`")
    # It asks the first `python` of the path, also where it takes no option for it.
    folders = [str(pathlib.Path(sys.executable).parent), ENVIRONMENT.get("PATH", "")]
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", *arguments],
        cwd=CLIENT,
        env=ENVIRONMENT | {"PATH": os.pathsep.join(folders)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    if not done.stdout.startswith("{"):
        pytest.skip(f"pyright does not run here: {done.stderr[-300:]}")
    return json.loads(done.stdout)


def test_client_is_clean_in_strict_mode():
    report = pyright("--project", str(CLIENT))
    assert report["summary"]["filesAnalyzed"] >= 7
    assert [found["message"] for found in report["generalDiagnostics"]] == []


def test_client_silences_nothing():
    for path in CLIENT.rglob("*.py"):
        text = path.read_text("utf-8")
        assert "type: ignore" not in text and "pyright: ignore" not in text and "cast(" not in text
        assert path.name == "untyped.py" or "pyright:" not in text


@pytest.mark.slow
def test_strict_mode_sees_what_is_wrong(tmp_path):
    # A check of the check: kernelode's types are known, so that a wrong use is an error.
    shutil.copy(CLIENT / "pyrightconfig.json", tmp_path)
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "wrong.py").write_text(
        "import kernelode as ko\n"
        "ko.ResNet(ko.Erf, 3)\n"
        "ko.propagate(ko.MLP(ko.Erf(), 3), [[1.0]]).nothing\n"
        "ko.RESULTS.nothing\n"
    )
    report = pyright("--project", str(tmp_path))
    lines = {found["range"]["start"]["line"] for found in report["generalDiagnostics"]}
    assert lines == {1, 2, 3}


def test_every_public_name_has_a_known_type():
    found = pyright("--verifytypes", "kernelode", "--ignoreexternal")["typeCompleteness"]
    assert len(found["symbols"]) > len(written_names()["kernelode"])
    unknown = [symbol["name"] for symbol in found["symbols"] if not symbol["isTypeKnown"]]
    assert unknown == []


def test_client_uses_every_public_name():
    text = "\n".join(path.read_text("utf-8") for path in CLIENT.rglob("*.py"))
    used = {node.attr for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Attribute)}
    for module in MODULES:
        missing = set(written_names()[module]) - used - {"baselines", "ensemble", "learning", "plot"}
        assert not missing, f"{module}: the client does not use {sorted(missing)}"


@pytest.fixture
def client(monkeypatch):
    monkeypatch.syspath_prepend(str(CLIENT / "src"))
    return importlib.import_module("ode_client")


def test_the_activation_of_the_client(client):
    # An activation of somebody else's is integrated as any: E[sigma^2] of a Gaussian, by a plain sum.
    network, _ = client.networks()
    q = 0.7
    z = jnp.linspace(-12, 12, 4001)
    density = jnp.exp(-(z**2) / 2) / jnp.sqrt(2 * jnp.pi) * (z[1] - z[0])
    expected = jnp.sum(density * network.activation(q**0.5 * z) ** 2)
    first = ko.propagate(network, [[q]]).mean_kernel[1, 0, 0]
    assert abs(first - (q + network.residual_scale[0] ** 2 * (1.4 * expected + 0.05))) < 1e-12
    assert len(client.activations()) == 16


@pytest.mark.slow
def test_client_runs(client, tmp_path):
    for module in ("matplotlib", "xarray", "neural_tangents"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"the client needs {module}")
    x = jax.random.normal(jax.random.key(0), (2, 5))
    found = client.kernels(x)
    network, forward = client.networks()
    kernel = found.mean_kernel[0]
    best = client.optima(ko.ResNet(ko.Erf(), 5, residual_scale=0.4, bias_variance=0.05), kernel)
    # A search by gradients and the safeguarded Newton search have one answer.
    assert abs(best.by_newton.network.residual_scale - best.scale.off_diagonal.value[0, 1]) < 1e-3
    drawn = client.simulate(network, kernel, tmp_path)
    assert drawn.comparison.probability > 1e-6
    assert client.from_data(forward, x).samples >= 64
    fixed, gaussian, still = client.other_starts(network, kernel)
    assert jnp.max(jnp.abs(fixed[0])) < 1e-14 and jnp.array_equal(gaussian, still)
    assert len(client.draw(network, kernel, drawn)) == 10
    mean, evidence = client.condition(kernel, jnp.ones(len(kernel) - 1))
    assert mean.shape == (1,) and jnp.isfinite(evidence)
    read, theirs = client.translate(x)
    last = ko.propagate(read, read.read_in(x)).mean_kernel[-1]
    ours = read.read_out(ko.Variances(jnp.diagonal(last)))
    assert jnp.max(jnp.abs(ours.values - jnp.diagonal(theirs))) < 1e-12
