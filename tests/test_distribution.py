"""Wheel and source distribution: what is in them, and that they work where there is no checkout."""

import os
import pathlib
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile

import pytest

from .test_package import ROOT

pytestmark = pytest.mark.slow

#: As a user's: no checkout on the path, no settings of the tests.
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("JAX_", "PYTHON", "PYTEST_")) and name != "VIRTUAL_ENV"
}


def run(*command: str | os.PathLike[str], cwd: pathlib.Path) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def build(source: pathlib.Path, out: pathlib.Path, *kinds: str) -> list[pathlib.Path]:
    """Built as for a release, in an environment of its own, which needs an index of packages."""
    pytest.importorskip("build", reason="`build` comes with kernelode[dev]")
    probe = "import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-m', 'pip', 'download', "
    probe += "'--quiet', '--no-deps', '--dest', sys.argv[1], 'hatchling>=1.26']))"
    reachable = subprocess.run(
        [sys.executable, "-c", probe, str(out / "probe")], env=ENVIRONMENT, capture_output=True
    )
    if reachable.returncode != 0:
        pytest.skip("there is no index of packages from which to get the build backend")
    run(sys.executable, "-m", "build", *kinds, "--outdir", out, source, cwd=out)
    return sorted(path for path in out.iterdir() if path.suffix in (".whl", ".gz"))


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[pathlib.Path, pathlib.Path]:
    """The source distribution, and the wheel built straight from the tree."""
    out = tmp_path_factory.mktemp("built")
    wheel, sdist = sorted(build(ROOT, out, "--wheel", "--sdist"), key=lambda path: path.suffix != ".whl")
    return wheel, sdist


def contents(wheel: pathlib.Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def python_files(folder: pathlib.Path) -> set[str]:
    return {path.relative_to(ROOT).as_posix() for path in folder.rglob("*.py")}


def test_wheel_has_the_package_and_nothing_else(built):
    names = set(contents(built[0]))
    metadata = {name for name in names if ".dist-info/" in name}
    assert names - metadata == python_files(ROOT / "kernelode") | {"kernelode/py.typed"}
    assert any(name.endswith("licenses/LICENSE") for name in metadata)
    texts = contents(built[0]).items()
    (entry_points,) = [text for name, text in texts if name.endswith("entry_points.txt")]
    assert b"kernelode = kernelode._cli.main:main" in entry_points


def test_source_distribution_has_tests_and_documentation(built):
    with tarfile.open(built[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for folder in ("kernelode", "tests", "benchmarks", "examples"):
        assert python_files(ROOT / folder) <= names
    pages = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")}
    documents = {"README.md", "CHANGELOG.md", "CITATION.cff", "LICENSE", "pyproject.toml"}
    data = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests" / "data").iterdir()}
    assert pages | documents | data | {"kernelode/py.typed", "tests/client/pyrightconfig.json"} <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith((".git/", "site/"))]


def test_wheel_of_the_source_distribution_is_that_of_the_tree(built, tmp_path):
    with tarfile.open(built[1]) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    (tmp_path / "out").mkdir()
    (again,) = build(source, tmp_path / "out", "--wheel")
    assert again.name == built[0].name
    assert contents(again) == contents(built[0])


def test_installed_wheel_computes(built, tmp_path):
    # An environment with the wheel alone; its dependencies are those of the environment of the tests,
    # placed behind, and without what that has been told of the checkout.
    venv.create(tmp_path / "venv", with_pip=True, symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", built[0], cwd=tmp_path)
    places = {sysconfig.get_path(kind) for kind in ("purelib", "platlib")}
    code = """
import sys
sys.path += sys.argv[1:]
import kernelode, kernelode.plot
import jax.numpy as jnp
import math
network = kernelode.MLP(kernelode.Erf(), 1, weight_variance=1.0, bias_variance=0.0)
kernel = kernelode.propagate(network, jnp.array([[0.5]])).mean_kernel[-1]
# E[erf^2] = (2/pi) asin(2q / (1 + 2q)) at q = 1/2
assert abs(float(kernel[0, 0]) - 2 / math.pi * math.asin(0.5)) < 1e-6
print(kernelode.__file__)
"""
    where = run(python, "-c", code, *places, cwd=tmp_path)
    assert pathlib.Path(where.strip()).is_relative_to(tmp_path / "venv")
    script = "import sys; sys.path += sys.argv[1:]; sys.argv = ['kernelode', '--help']; "
    script += "from kernelode._cli.main import main; main()"
    assert "rho" in run(python, "-c", script, *places, cwd=tmp_path)
