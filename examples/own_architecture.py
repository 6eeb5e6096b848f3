"""An architecture of one's own: what to write, and what the rest of kernelode then does with it.

Two residual networks that the library does not have, each a subclass of `AbstractResidualNetwork`:

- `TwoBranchResNet`, h <- h + rho [W sigma(h) + b + W' tau(h) + b'], with two activations. New is `drift`,
  the kernel that a block adds. Kernels, responses, flows and rho* follow from it. Here the kernel and the
  response are checked by a simulation in a few lines.
- `DecayingResNet`, rho_l = rho l^-decay with `decay` traced. New is `layers`, the numbers of each layer;
  its blocks are plain layers, as `AbstractLayered` says. So moments of order 1/n follow too, and
  `kernelode.ensemble`; they are checked by the same simulation.

Of the first network, whose `drift` is its own, those are not known, and refused.

`python examples/own_architecture.py [--width 100] [--networks 400]` prints the checks.
"""

# Abstract fields are no arguments of a constructor, which pyright does not know.
# pyright: reportAssignmentType=false, reportCallIssue=false

import argparse
import functools
from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, ArrayLike

import kernelode as ko

KERNEL = np.array([[0.05, 0.03], [0.03, 0.05]])


class AbstractBasedOnResNet(ko.AbstractResidualNetwork):
    """What an architecture has to have, taken from a `ResNet` of one layer a block."""

    base: eqx.AbstractVar[ko.ResNet]

    activation = property(lambda self: self.base.activation)
    depth = property(lambda self: self.base.depth)
    residual_scale = property(lambda self: self.base.residual_scale)
    skip_scale = property(lambda self: self.base.skip_scale)
    input_weight_variance = property(lambda self: self.base.input_weight_variance)
    input_bias_variance = property(lambda self: self.base.input_bias_variance)
    output_weight_variance = property(lambda self: self.base.output_weight_variance)
    output_bias_variance = property(lambda self: self.base.output_bias_variance)
    last_width = property(lambda self: self.base.last_width)


class TwoBranchResNet(AbstractBasedOnResNet):
    """The blocks of two residual networks on one stream; scales and read-out are those of `base`."""

    base: ko.ResNet
    second: ko.ResNet

    def drift(self, kernel, layer):
        """Independent branches: their kernels add up."""
        second = self.second.drift(kernel, self.second.flow_layer())
        return jax.tree.map(jnp.add, self.base.drift(kernel, layer), second)

    def layers(self):
        return self.base.layers()


class DecayingResNet(ko.AbstractLayered, AbstractBasedOnResNet):
    """A residual network whose later blocks count for less, rho_l = rho l^-decay."""

    base: ko.ResNet
    decay: Array = eqx.field(converter=jnp.asarray)

    layers_per_block = property(lambda self: 1)

    @property
    def residual_scale(self):
        """One a layer, so that searches know the profile that they are to keep."""
        return self.layers().scale

    def layers(self):
        layers = self.base.layers()
        number = jnp.arange(1, self.depth + 1, dtype=layers.scale.dtype)
        profile = number ** -self.decay.astype(layers.scale.dtype)
        return eqx.tree_at(lambda x: x.scale, layers, layers.scale * profile)


class Row(NamedTuple):
    """Theory, and the mean over simulated networks with its standard error."""

    name: str
    theory: float
    value: float
    error: float

    @property
    def z(self) -> float:
        return (self.value - self.theory) / self.error

    def __str__(self) -> str:
        measured = f"{self.value:9.5f} +- {self.error:7.5f}"
        return f"  {self.name:17} {self.theory:9.5f}  simulation {measured}  z {self.z:5.1f}"


def row(name: str, theory, values) -> Row:
    values = np.asarray(values)
    return Row(
        name, float(theory), float(np.mean(values)), float(np.std(values, ddof=1)) / len(values) ** 0.5
    )


def two_branches(depth: int = 10, scale: float = 0.3) -> TwoBranchResNet:
    """erf and sine, half the weight variance each."""
    base = ko.ResNet(ko.Erf(), depth, residual_scale=scale, weight_variance=0.6, bias_variance=0.05)
    return TwoBranchResNet(base, ko.ResNet(ko.Sin(), depth, weight_variance=0.6))


def decaying(depth: int = 10, scale: float = 1.0, decay: ArrayLike = 0.5) -> DecayingResNet:
    base = ko.ResNet(ko.Tanh(), depth, residual_scale=scale, weight_variance=1.5, bias_variance=0.05)
    return DecayingResNet(base, decay)


def simulate(network: TwoBranchResNet | DecayingResNet, kernel, key, width: int):
    """h^L of one random network of finite width, every weight drawn; one input a row."""
    branches = [x for x in (network.base, getattr(network, "second", None)) if x is not None]
    first, *keys = jr.split(key, network.depth + 1)

    def block(h, layer):
        scale, key = layer
        for number, branch in enumerate(branches):
            weights, biases = jr.split(jr.fold_in(key, number))
            matrix = jr.normal(weights, (width, width)) * jnp.sqrt(branch.weight_variance / width)
            bias = jr.normal(biases, (1, width)) * jnp.sqrt(branch.bias_variance)
            yield scale * (branch.activation(h) @ matrix + bias)

    step = lambda h, layer: (functools.reduce(jnp.add, block(h, layer), h), None)
    h = jnp.linalg.cholesky(kernel) @ jr.normal(first, (len(kernel), width))
    return jax.lax.scan(step, h, (network.layers().scale, jnp.stack(keys)))[0]


def check_two_branches(width: int, samples: int) -> list[Row]:
    """The output kernel, and its response: the mean of the networks' own derivatives by K^0_ab."""
    network, kernel = two_branches(), jnp.asarray(KERNEL)

    def output(kernel, key):
        values = network.activation(simulate(network, kernel, key, width))
        return values @ values.T / width

    change = jnp.array([[0.0, 1.0], [1.0, 0.0]])
    one = lambda key: jax.jvp(lambda k: output(k, key), (kernel,), (change,))
    drawn = jax.jit(lambda keys: jax.lax.map(one, keys))(jr.split(jr.key(0), samples))
    last = ko.propagate(network, kernel).mean_kernel[-1]
    theory = network.read_out(ko.Block(jnp.diagonal(last), jnp.diagonal(last), last)).cross
    response = ko.response(network, kernel).off_diagonal[0, 1]
    return [
        row("K_out, one input", theory[0, 0], drawn[0][:, 0, 0]),
        row("K_out, pair", theory[0, 1], drawn[0][:, 0, 1]),
        row("chi_out, pair", response, drawn[1][:, 0, 1]),
    ]


def check_decaying(width: int, samples: int) -> list[Row]:
    """K1 = n (E[G] - K0) and V4 = n Cov(G, G), G = h h^T / n, of one input and of the pair."""
    network, kernel = decaying(), jnp.asarray(KERNEL)

    def gram(key):
        h = simulate(network, kernel, key, width)
        return h @ h.T / width

    drawn = jax.jit(lambda keys: jax.lax.map(gram, keys))(jr.split(jr.key(1), samples))
    moments = ko.propagate_pairs(network, kernel, closure=ko.WickTower(8), layers=[network.depth]).moments
    rows = []
    for name, (a, b) in {"one input": (0, 0), "pair": (0, 1)}.items():
        shift = width * (drawn[:, a, b] - moments.mean_kernel[-1, a, b])
        square = width * (drawn[:, a, b] - jnp.mean(drawn[:, a, b])) ** 2 * samples / (samples - 1)
        rows.append(row(f"K1, {name}", moments.mean_correction[-1, a, b], shift))
        rows.append(row(f"V4, {name}", moments.kernel_variance[-1, a, b], square))
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the checks."""
    parser = argparse.ArgumentParser(description="Architectures of one's own.")
    parser.add_argument("--width", type=int, default=100, help="n of the simulated networks")
    parser.add_argument("--networks", type=int, default=400, help="how many of them")
    options = parser.parse_args(arguments)
    jax.config.update("jax_enable_x64", True)

    print(f"Two branches, erf and sine; {options.networks} networks, n = {options.width}")
    for found in check_two_branches(options.width, options.networks):
        print(found)
    best = ko.optimal_residual_scale(two_branches(), KERNEL, pairs=False).diagonal
    print(f"  rho* = {float(best.value[0]):.6f} of one input")

    width, samples = options.width // 2, 10 * options.networks
    print(f"\nrho_l = rho l^-1/2, tanh; {samples} networks, n = {width}")
    for found in check_decaying(width, samples):
        print(found)
    response = lambda decay: jnp.log(ko.response(decaying(decay=decay), KERNEL).off_diagonal[0, 1])
    value, slope = jax.value_and_grad(response)(0.5)
    print(
        f"  log chi_out of the pair = {float(value):.6f}, its derivative by the decay {float(slope):.6f}"
    )


if __name__ == "__main__":
    main()
