"""What functions are known by: the same in every process, another for other code or other values."""

import dataclasses
import enum
import functools
import pathlib
import subprocess
import sys
import types
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import kernelode as ko
from kernelode._support.fingerprint import code_fingerprint, same_code
from kernelode._support.probe import _points, probe, same_probe

ROOT = pathlib.Path(__file__).resolve().parent.parent

SOURCE = """
import dataclasses, functools
import equinox as eqx
import jax, jax.numpy as jnp, numpy as np

FACTOR = 2.0
TABLE = {"a": 1, "b": (2.0, "text")}
NAMES = {"one", "two", "three"}

def helper(x):
    return FACTOR * x

class Sigma(eqx.Module):
    slope: jax.Array
    kind: str = "x"

    @property
    def twice(self):
        return 2 * self.slope

    def __call__(self, x):
        return jnp.tanh(self.twice * x)

@dataclasses.dataclass
class Plain:
    offset: float

    def at(self, x):
        return x + self.offset

class Bare:
    def __init__(self):
        self.weights = np.arange(3.0)

    def __call__(self, x):
        return x @ self.weights

def make(power):
    def function(x, *, shift=1):
        inner = lambda y: y**power + shift
        return inner(helper(x)) if "one" in {"one", "two"} else TABLE["a"] * len(NAMES)
    return function

function = make(3)
everything = [function, Sigma(jnp.ones(())), Plain(2.0).at, Bare(), jax.jit(function),
              eqx.filter_jit(function), jax.vmap(function), functools.partial(function, shift=3),
              functools.cache(function), NAMES]
"""


def module(source: str = SOURCE) -> types.ModuleType:
    found = types.ModuleType("written_by_a_user")
    sys.modules[found.__name__] = found  # where dataclasses look for it
    exec(compile(source, "somewhere.py", "exec"), vars(found))
    return found


#: An edit, and whether it is one of what the functions do.
EDITS = {
    "nothing": ("", "", False),
    "another place": ("\nFACTOR", "\n\n# A comment\n\nFACTOR", False),
    "another name of a local variable": ("lambda y: y**power", "lambda z: z**power", False),
    "a docstring": ("def helper(x):\n", 'def helper(x):\n    "Says."\n', False),
    "a rounding": ("FACTOR = 2.0", "FACTOR = 2.0 * (1 + 4e-16)", False),
    "a global number": ("FACTOR = 2.0", "FACTOR = 2.0001", True),
    "a global function": ("return FACTOR * x", "return FACTOR + x", True),
    "a table": ('(2.0, "text")', '(2.0, "word")', True),
    "a set": ('"three"}', '"four"}', True),
    "a constant": ("jnp.tanh(self.twice", "3 * jnp.tanh(self.twice", True),
    "a property": ("2 * self.slope", "3 * self.slope", True),
    "a method": ("x + self.offset", "x - self.offset", True),
    "a field": ("Plain(2.0)", "Plain(2.5)", True),
    "a parameter": ("Sigma(jnp.ones(()))", "Sigma(2 * jnp.ones(()))", True),
    "an attribute": ("np.arange(3.0)", "np.arange(3.0) + 1", True),
    "a default": ("shift=1", "shift=2", True),
    "a closure": ("make(3)", "make(4)", True),
    "a partial": ("shift=3", "shift=4", True),
}


@pytest.mark.parametrize("name", EDITS)
def test_edits_are_found_and_wording_is_not(name):
    old, new, changed = EDITS[name]
    assert old in SOURCE
    before = code_fingerprint(module().everything)
    after = code_fingerprint(module(SOURCE.replace(old, new)).everything)
    assert before is not None and (before != after) == changed
    assert same_code(before, after) == (not changed)


@pytest.mark.parametrize("index", range(9))
def test_every_kind_of_function_has_its_code(index):
    edit = SOURCE.replace("y**power", "2 * y**power").replace("jnp.tanh(", "jnp.sin(")
    edit = edit.replace("x + self.offset", "x * self.offset").replace("x @ self", "-x @ self")
    one, other = (code_fingerprint(module(text).everything[index]) for text in (SOURCE, edit))
    assert one is not None and one != other


@pytest.mark.slow
def test_the_same_in_every_process(tmp_path):
    """Imported, or as a script; with other hashes of strings, which sets are ordered by."""
    (tmp_path / "mine.py").write_text(SOURCE)
    end = (
        "\nfrom kernelode._support.fingerprint import code_fingerprint"
        "\nprint(code_fingerprint(everything))\n"
    )
    (tmp_path / "script.py").write_text("from mine import everything" + end)
    (tmp_path / "whole.py").write_text(SOURCE + end)
    found = {code_fingerprint(module().everything)}
    for seed, name in (("1", "script.py"), ("2", "whole.py")):
        environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
        run = [sys.executable, str(tmp_path / name)]
        environment["JAX_ENABLE_X64"] = "1"
        done = subprocess.run(run, env=environment, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        found.add(done.stdout.strip())
    assert len(found) == 1


def test_what_cannot_be_known_is_no_obstacle():
    class Hidden:
        __slots__ = ("x",)

    loop: list[Any] = [1]
    loop.append(loop)
    assert code_fingerprint(loop) is not None and code_fingerprint(Hidden()) is not None
    assert code_fingerprint([jnp.tanh, np.tanh, jax.nn.gelu, len, jr.key(0), 1j, enum, np.float32(3)])
    assert code_fingerprint([object() for _ in range(30_000)]) is None
    deep: list[Any] = []
    for _ in range(10_000):
        deep = [deep]
    assert code_fingerprint(deep) is None
    assert same_code(None, "python3.11-a") and same_code("python3.11-a", "python3.12-b")
    assert not same_code("python3.11-a", "python3.11-b")
    inside = []
    jax.jit(lambda x: inside.append(code_fingerprint([x])) or x)(jnp.ones(3))
    assert inside[0] is not None


def test_libraries_are_known_by_name():
    """Their code is not looked at: it is their version that counts."""
    assert code_fingerprint(ko.Tanh()) != code_fingerprint(ko.Erf())
    assert code_fingerprint(ko.response) == code_fingerprint(ko.response)
    assert code_fingerprint(functools.partial(ko.response)) != code_fingerprint(ko.response)
    network = lambda sigma: ko.ResNet(sigma, 3)
    assert code_fingerprint(network(ko.Tanh())) != code_fingerprint(network(ko.Erf()))
    assert code_fingerprint(dataclasses.replace) is not None
    assert code_fingerprint(eqx.filter_jit) is not None


SIGMAS = {
    "tanh": (ko.Tanh(), lambda x: 1 - 2 / (jnp.exp(2 * x) + 1)),
    "softplus": (ko.Softplus(), lambda x: jnp.logaddexp(x, 0)),
    "relu": (ko.ReLU(), lambda x: (x + jnp.abs(x)) / 2),
    "swish": (ko.Swish(), lambda x: x * jax.nn.sigmoid(x)),
    "polynomial": (lambda x: (x - 1) ** 3, lambda x: x**3 - 3 * x**2 + 3 * x - 1),
}


@pytest.mark.parametrize("name", SIGMAS)
def test_a_function_is_its_values(name):
    sigma, reworded = SIGMAS[name]
    assert same_probe(probe(sigma), probe(reworded))
    for changed in (
        lambda x: (1 + 1e-6) * sigma(x),
        lambda x: sigma(x + 1e-6),
        lambda x: sigma(x) + 1e-6 * jnp.exp(-((x - 1.3) ** 2) * 1e3),
        lambda x: jnp.where(x > 8, 0.999 * sigma(x), sigma(x)),
    ):
        assert not same_probe(probe(sigma), probe(changed))


def test_probes_of_anything():
    assert probe(lambda x: x[:3]) is None and probe(lambda x: "text") is None
    assert probe(lambda x: x.astype(int)) is None and probe(lambda x: 1 / 0) is None
    large = probe(lambda x: jnp.exp(x))
    assert large is not None and not np.all(np.isfinite(large)) and same_probe(large, probe(jnp.exp))
    nothing = probe(lambda x: jnp.full_like(x, jnp.nan))
    assert same_probe(nothing, nothing) and not same_probe(nothing, large)
    single = probe(lambda x: jnp.tanh(x).astype(jnp.float32))
    assert single is not None and single.dtype == np.float32 and same_probe(single, probe(ko.Tanh()))
    assert same_probe(None, large) and same_probe(large, large[:-1])
    # In double precision whatever the user's setting and the dtype of parameters.
    leaky = probe(ko.LeakyReLU(jnp.asarray(0.1, jnp.float32)))
    assert leaky is not None and leaky.dtype == np.float64
    assert not np.any(_points() == 0) and len(np.unique(_points())) == len(_points())
