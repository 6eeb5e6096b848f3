"""What the tests share: reference cases, activations, finite differences."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import kernelode as ko

DATA = pathlib.Path(__file__).parent / "data"
RESPONSE_REFERENCE = json.loads((DATA / "response_reference.json").read_text())

NTK_REFERENCE: dict[str, dict[str, Any]] = {
    case["name"]: case
    for case in json.loads((DATA / "finite_width_ntk_reference.json").read_text())["cases"]
}
#: The activations of its cases.
NTK_ACTIVATIONS: dict[str, ko.AbstractActivation] = {
    "tanh": ko.Tanh(),
    "gelu": ko.GELU(),
    "sin": ko.Sin(),
    "relu": ko.ReLU(),
    "linear": ko.Linear(),
    "cubic": ko.Polynomial([0.0, 1.0, 0.0, 0.1]),
}

#: Every activation of the library, and functions of users: a line here buys a newcomer all tests of laws
#: (`laws.py`), those of the towers' truncation and of their tails.
ACTIVATIONS: dict[str, ko.AbstractActivation] = {
    "tanh": ko.Tanh(),
    "erf": ko.Erf(),
    "gelu": ko.GELU(),
    "softplus": ko.Softplus(),
    "swish": ko.Swish(),
    "sin": ko.Sin(),
    "sin3": ko.Elementwise(lambda x: jnp.sin(3 * x)),
    "sinus": ko.Elementwise(lambda x: x + jnp.sin(3 * x)),
    "bump": ko.Elementwise(lambda x: x * jnp.exp(-(x**2) / 2)),
    "square": ko.Polynomial([0.0, 1.0, 0.25]),
    "relu": ko.ReLU(),
    "leaky": ko.LeakyReLU(0.2),
    "hard_tanh": ko.Elementwise(lambda x: jnp.clip(x, -1, 1), (-1.0, 1.0)),
    "linear": ko.Linear(),
}

#: Those that fluctuate beyond the Wishart law, which a linear network has alone.
TOWER_ACTIVATIONS = {name: ACTIVATIONS[name] for name in ACTIVATIONS if name != "linear"}


def each(registry: dict[str, Any], *quick: str) -> list:
    """The names of a registry as parameters of a test; slow but for the `quick` ones."""
    assert set(quick) <= set(registry), set(quick) - set(registry)
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in registry]


def reference_cases(prefix: str) -> list[dict]:
    """The reference cases whose kind starts with `prefix`."""
    found = [case for case in RESPONSE_REFERENCE["cases"] if case["kind"].startswith(prefix)]
    assert found, prefix
    return found


def case_id(case: dict) -> str:
    return case["id"]


def pair_kernel(aa: float, bb: float, ab: float):
    return jnp.array([[aa, ab], [ab, bb]])


def resnet(activation, depth, sw2: Any = 1.25, sb2: Any = 0.05, rho: Any = 0.2, **options) -> ko.ResNet:
    return ko.ResNet(
        activation,
        depth,
        residual_scale=rho,
        weight_variance=sw2,
        bias_variance=sb2,
        **options,
    )


def central_difference(function, x, step):
    """Fourth-order central difference of a function of one number."""
    near = function(x + step) - function(x - step)
    far = function(x + 2 * step) - function(x - 2 * step)
    return (8 * near - far) / (12 * step)


def relative_error(value, expected):
    value, expected = (jnp.asarray(x, jnp.float64) for x in (value, expected))
    return float(jnp.max(jnp.abs(value - expected)) / jnp.max(jnp.abs(expected)))


def number(default: float) -> Any:
    return eqx.field(converter=jnp.asarray, default=default)


class AbstractOwnNetwork(ko.AbstractResidualNetwork):
    """The fields that a user's residual network has to have."""

    activation: ko.AbstractActivation
    depth: int = eqx.field(static=True)
    residual_scale: jax.Array = number(0.3)
    skip_scale: jax.Array = number(1.0)
    weight_variance: jax.Array = number(1.0)
    bias_variance: jax.Array = number(0.0)
    input_weight_variance: jax.Array = number(1.0)
    input_bias_variance: jax.Array = number(0.0)
    output_weight_variance: jax.Array = number(1.0)
    output_bias_variance: jax.Array = number(0.0)
    last_width: jax.Array = number(1.0)


class OwnLayered(ko.AbstractLayered, AbstractOwnNetwork):
    """Plain layers as a user would arrange them: rho_l = rho l^-decay, C_W,l = C_W l^growth."""

    decay: float = eqx.field(static=True, default=0.0)
    growth: float = eqx.field(static=True, default=0.0)
    layers_per_block: int = eqx.field(static=True, default=1)

    def layers(self):
        number = jnp.arange(1.0, self.depth + 1)
        one = jnp.ones_like(number)
        affine = ko.Affine(self.weight_variance * number**self.growth, self.bias_variance * one)
        return ko.Layer(self.residual_scale * number**-self.decay, self.skip_scale * one, one, affine)


class OwnField(AbstractOwnNetwork):
    """A drift with a field of its own: `branches` equal branches on one stream."""

    branches: jax.Array = number(1.0)

    def drift(self, kernel, layer):
        return jax.tree.map(lambda q: self.branches * q, layer.affine(self.activation, kernel))

    def layers(self):
        return ko.ResNet(self.activation, self.depth, residual_scale=self.residual_scale).layers()


#: Closures, each for residual networks of plain layers.
CLOSURES: dict[str, ko.AbstractClosure] = {
    "mean": ko.MeanOnly(),
    "tangent": ko.TangentKernel(ko.LearningRates(1.2, 0.3)),
    "g_only": ko.GOnly(),
    "g_only_pairs": ko.GOnly().pairs(),
    "tower": ko.WickTower(6),
    "tower_pairs": ko.WickTower(6).pairs(),
    "tangent_tower": ko.TangentTower(6, ko.LearningRates(1.2, 0.3)),
    "tower_fixed_gram": ko.WickTower(6, start=ko.FixedGram()),
}

_OPTIONS: dict[str, Any] = dict(residual_scale=0.5, weight_variance=1.3, bias_variance=0.1)
#: Architectures, from an activation to a network of three blocks.
ARCHITECTURES: dict[str, Callable[[ko.AbstractActivation], ko.AbstractArchitecture]] = {
    "resnet": lambda s: ko.ResNet(s, 3, **_OPTIONS),
    "leaky_resnet": lambda s: ko.ResNet(s, 3, skip_scale=0.8, **_OPTIONS),
    "two_layer_blocks": lambda s: ko.ResNet(s, 3, layers_per_block=2, **_OPTIONS),
    "varied_resnet": lambda s: ko.ResNet(
        s,
        3,
        residual_scale=[0.5, 0.3, 0.4],
        weight_variance=[1.0, 1.4, 0.7],
        bias_variance=[0.1, 0.0, 0.2],
    ),
    "mlp": lambda s: ko.MLP(s, 3, weight_variance=1.3, bias_variance=0.1),
    "varied_mlp": lambda s: ko.MLP(s, 3, weight_variance=[1.0, 1.4, 0.7], bias_variance=0.1),
    "own_layers": lambda s: OwnLayered(s, 3, decay=0.5, growth=0.2),
    "own_field": lambda s: OwnField(s, 3, branches=jnp.asarray(2.0)),
}


def start_python(code: str, *arguments: object, devices: int = 1) -> subprocess.Popen:
    """A process that runs `code` on so many devices, in float32 unless the code says otherwise."""
    environment = {k: v for k, v in os.environ.items() if k != "JAX_ENABLE_X64"}
    # Beside the level of optimisation: other code rounds differently.
    environment["XLA_FLAGS"] += f" --xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=DATA.parent.parent,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def kill_after(process: subprocess.Popen, count: int) -> None:
    """Kill a process, which prints how far it is, a moment after it is so far."""
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= count:
            break
    time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
