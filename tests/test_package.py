"""The package as a whole: what importing it does, how its modules depend on each other, its papers."""

import ast
import inspect
import os
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

import kernelode as ko

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "kernelode"

# A module may import from its own folder and from any row above its own.
LAYERS = (
    ("_support", "_version"),
    ("_deprecated", "_numerics"),
    ("_activation", "_kernel"),
    ("_expectation",),
    ("_architecture",),
    ("_closure",),
    ("_depth",),
    ("_scaling",),
    ("_sweep",),
)
OUTERMOST = ("baselines", "ensemble", "learning", "plot", "_cli")
#: Functions of arrays: they know kernels, and no network.
LEARNING_MAY_IMPORT = ("_support", "_kernel")
#: Independent checks: of the theory they know what a network is, and nothing else.
CHECKS_MAY_IMPORT = ("_support", "_numerics", "_kernel", "_activation", "_architecture")
OPTIONAL = (
    "matplotlib",
    "sklearn",
    "typer",
    "rich",
    "neural_tangents",
    "tensorflow",
    "frozendict",
    "beartype",
    "pandas",
    "xarray",
    "h5netcdf",
)

ENVIRONMENT = {k: v for k, v in os.environ.items() if k not in ("JAX_ENABLE_X64", "PYTHONWARNINGS")}


def run_python(code: str, *, timeout: float = 600) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_is_quick_and_changes_nothing():
    # CPU time, since other processes may share the machine; JAX's own import is not ours.
    code = """
import time
import jax, optax, diffrax, optimistix
before = dict(jax.config.values)
start = time.process_time()
import kernelode
elapsed = time.process_time() - start
assert elapsed < 1, f"importing kernelode took {elapsed:.1f} s"
assert dict(jax.config.values) == before, "importing kernelode changed JAX's settings"
assert not jax.config.jax_enable_x64
"""
    run_python(code)


def test_import_loads_no_optional_dependency():
    # What JAX, Diffrax and others import by themselves is not ours.
    code = f"""
import sys
import jax, optax, diffrax, optimistix, jaxtyping
before = set(sys.modules)
import kernelode, kernelode.plot
loaded = {{name.partition(".")[0] for name in set(sys.modules) - before}}
assert not loaded & set({OPTIONAL!r}), loaded & set({OPTIONAL!r})
"""
    run_python(code)


def public_names() -> list[str]:
    tree = ast.parse((PACKAGE / "__init__.py").read_text("utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    names = [alias.asname or alias.name for node in imports for alias in node.names]
    return [name for name in names if not name.startswith("_")]


@pytest.mark.parametrize("name", public_names())
def test_public_names_have_docstrings(name):
    thing = getattr(ko, name)
    documentation = thing.__doc__
    assert documentation, f"kernelode.{name} has no docstring"
    # A dataclass or an enumeration without a docstring gets one made of its signature or parent.
    assert not documentation.startswith(f"{name}("), f"kernelode.{name} has no docstring of its own"
    if inspect.isclass(thing):
        assert "__doc__" in vars(thing) and vars(thing)["__doc__"]


def test_init_only_reexports():
    tree = ast.parse((PACKAGE / "__init__.py").read_text("utf-8"))
    docstring, *rest = tree.body
    assert isinstance(docstring, ast.Expr)
    for node in rest:
        assert isinstance(node, ast.ImportFrom) and node.level == 1, ast.unparse(node)
        # `as` is what makes a name public to type checkers.
        assert all(alias.asname == alias.name for alias in node.names), ast.unparse(node)


def top_level_imports(path: pathlib.Path) -> set[str]:
    """The parts of kernelode that a module imports anywhere, as names directly below `kernelode`.

    The package itself, imported as a whole, is the empty name.
    """
    here = path.relative_to(ROOT).with_suffix("").parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level] if node.level else ()
            parts = [*base, *(node.module.split(".") if node.module else ())]
            modules = [".".join(parts)]
            if parts in (["kernelode"], []):
                modules = [".".join([*parts, alias.name]) for alias in node.names]
        else:
            continue
        for module in modules:
            first, _, rest = module.partition(".")
            if first == "kernelode":
                found.add(rest.partition(".")[0])
    return found


def modules() -> list[pathlib.Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    mine = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    imported = top_level_imports(path) - {mine}
    ranks = {name: rank for rank, row in enumerate(LAYERS) for name in row}
    if mine == "_cli":
        return  # nothing is further out, so that it may import everything
    assert not imported & {"", "_cli"}, f"{path.name} imports the package itself"
    if mine in ("baselines", "ensemble"):
        assert imported <= set(CHECKS_MAY_IMPORT)
    elif mine == "learning":
        assert imported <= set(LEARNING_MAY_IMPORT)
    elif mine == "_compare":
        assert imported <= {*ranks, "ensemble"}  # where theory and check meet
    elif mine == "plot":
        assert imported <= {*ranks, "_compare"}
    else:
        assert mine in ranks, f"where does {mine} belong in LAYERS?"
        assert not imported & set(OUTERMOST)
        late = {name for name in imported if ranks[name] >= ranks[mine]}
        assert not late, f"{mine} must not import {late}"


def test_ci_runs_what_the_readme_says():
    blocks = re.findall(r"```sh\n(.+)\n```", (ROOT / "README.md").read_text("utf-8"))
    (command,) = [block for block in blocks if "pytest" in block]
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    lines = re.sub(r'"\$bin/(\w+)"', r".venv/bin/\1", script).replace(" --quiet", "").splitlines()
    create, *parts = command.split(" && ")
    assert create == "python3 -m venv .venv"
    assert all(part in lines for part in parts), parts
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_versions_agree():
    with open(ROOT / "pyproject.toml", "rb") as file:
        version = tomllib.load(file)["project"]["version"]
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert re.findall(r"^version: (.+)$", citation, re.M) == [version]
    assert re.findall(r"^cff-version: (.+)$", citation, re.M) == ["1.2.0"]
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert ko.__version__ == version
    released = re.findall(r"^## \[(\d[^\]]*)\]", changelog, re.M)
    if released and released[0] == version:
        return
    # Not released yet: the section of what is to be says what it will be.
    unreleased = changelog.partition("## [Unreleased]")[2].partition("\n## ")[0]
    assert version in unreleased


def tracked_files() -> list[pathlib.Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name]


def test_repository_holds_no_lock_file_and_nothing_large():
    files = [path for path in tracked_files() if path.is_file()]
    assert not [path for path in files if path.name == "uv.lock"]
    assert not [path for path in files if path.stat().st_size > 500_000]
