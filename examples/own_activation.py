"""An activation of one's own, in three ways, and what the rest of kernelode then does with it.

- `Elementwise(fn)` for a plain function: the bump exp(-x^2/2).
- A subclass of `AbstractSmoothActivation` with a parameter that is traced, to sweep and differentiate:
  Snake, x + sin^2(w x)/w (Ziyin, Hartwig & Ueda, arXiv:2006.08195).
- A subclass of `AbstractKinkedActivation`, which says where its slope jumps: a hard tanh whose slope
  outside of [-1, 1] is a traced parameter.

Writing the function is all there is to do: expectations, their derivatives and error estimates follow.
They are checked against formulae that the library does not know, by a table of E[sigma(x) sigma(y)] and
of its derivatives by the parameters. Then rho* of a network with a hard tanh, and its derivative by the
leak. (With a leak, or with Snake, the response grows with rho without end: then there is no rho*.)

`python examples/own_activation.py [--depth 20]` prints both.
"""

import argparse
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import erf, erfc
from jaxtyping import Array

import kernelode as ko


def bump(x):
    return jnp.exp(-(x**2) / 2)


class Snake(ko.AbstractSmoothActivation):
    """x + sin^2(frequency x) / frequency."""

    frequency: Array = eqx.field(converter=jnp.asarray)

    def __call__(self, x):
        return x + jnp.sin(self.frequency * x) ** 2 / self.frequency


class LeakyHardTanh(ko.AbstractKinkedActivation):
    """x in [-1, 1]; slope `leak` outside. The kinks are static, the slope is traced."""

    leak: Array = eqx.field(converter=jnp.asarray)

    def __call__(self, x):
        inside = jnp.clip(x, -1, 1)
        return inside + self.leak * (x - inside)

    @property
    def kinks(self) -> tuple[float, ...]:
        return (-1.0, 1.0)


def bump_moment(a, b, c):
    """E[sigma(x) sigma(y)], Var x = a, Var y = b, Cov = c: a Gaussian integral, det(1 + K)^(-1/2)."""
    return 1 / jnp.sqrt((1 + a) * (1 + b) - c**2)


def snake_moment(w, a, b, c):
    """From E[cos 2wx] = exp(-2 w^2 a), and E[x sin^2(wy)] = 0 by symmetry."""
    alone = jnp.exp(-2 * w**2 * a) + jnp.exp(-2 * w**2 * b)
    both = jnp.exp(-2 * w**2 * (a + b)) * jnp.cosh(4 * w**2 * c)
    return c + (1 - alone + both) / (4 * w**2)


def hard_tanh_variance(leak, q):
    """E[sigma(x)^2]: sigma = leak x + (1 - leak) clip(x), and moments of a truncated Gaussian."""
    s = 1 / jnp.sqrt(2 * q)
    inside = q * (erf(s) - 2 * s / jnp.sqrt(jnp.pi) * jnp.exp(-(s**2)))
    clipped, mixed = inside + erfc(s), q * erf(s)
    return leak**2 * q + 2 * leak * (1 - leak) * mixed + (1 - leak) ** 2 * clipped


def moment(activation: ko.AbstractActivation, a: float, b: float, c: float) -> ko.Estimate:
    """E[sigma(x) sigma(y)] by the library, and its estimate of the error."""
    found = ko.pair_moments(activation, jnp.array([a]), jnp.array([b]), jnp.array([[c]]))[(0, 0)]
    return ko.Estimate(found.value[0, 0], found.error[0, 0])


def check(a: float, b: float, c: float) -> list[tuple[str, float, float, float]]:
    """Name, value by the library, its error estimate (NaN for a derivative), and the formula's value."""
    rows = []

    def add(name, found, expected):
        rows.append((name, float(found.value), float(found.error), float(expected)))

    add("bump", moment(ko.Elementwise(bump), a, b, c), bump_moment(a, b, c))
    add("Snake", moment(Snake(0.7), a, b, c), snake_moment(0.7, a, b, c))
    variance = lambda activation: ko.variance_derivatives(activation, jnp.array([a]))
    slope = jax.jacfwd(lambda w: variance(Snake(w)).value[0, 0])(0.7)
    expected = jax.grad(snake_moment)(0.7, a, a, a)
    add("d Snake / d frequency, x = y", ko.Estimate(slope, jnp.array(jnp.nan)), expected)
    found = variance(LeakyHardTanh(0.1))
    add("hard tanh, x = y", ko.Estimate(found.value[0, 0], found.error[0, 0]), hard_tanh_variance(0.1, a))
    slope = jax.jacfwd(lambda leak: variance(LeakyHardTanh(leak)).value[0, 0])(0.1)
    expected = jax.grad(hard_tanh_variance)(0.1, a)
    add("d hard tanh / d leak, x = y", ko.Estimate(slope, jnp.array(jnp.nan)), expected)
    return rows


def best_scale(leak: float, depth: int) -> tuple[float, float]:
    """rho* of one input of variance .05 with a hard tanh, and its derivative by the leak."""

    def found(leak):
        network = ko.ResNet(LeakyHardTanh(leak), depth, weight_variance=1.25, bias_variance=0.05)
        estimate = ko.optimal_residual_scale(network, [[0.05]], pairs=False).diagonal
        return estimate.value[0], estimate.interior[0]

    (value, interior), slope = jax.value_and_grad(found, has_aux=True)(leak)
    if not interior:
        raise ValueError("The response has no maximum: the activation is not bounded.")
    return float(value), float(slope)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="Activations of one's own.")
    parser.add_argument("--depth", type=int, default=20, help="blocks of the networks")
    options = parser.parse_args(arguments)
    jax.config.update("jax_enable_x64", True)

    print("E[sigma(x) sigma(y)] for variances 1.3 and 0.8, covariance 0.5\n")
    print(f"{'':28} {'kernelode':>14} {'formula':>14} {'difference':>11} {'estimate':>9}")
    for name, value, error, expected in check(1.3, 0.8, 0.5):
        estimate = "" if error != error else f"{error:9.1e}"
        print(f"{name:28} {value:14.10f} {expected:14.10f} {value - expected:11.1e} {estimate}".rstrip())

    value, slope = best_scale(0.0, options.depth)
    print(f"\nhard tanh without leak, L = {options.depth}, C_W = 1.25, C_b = .05, K^0 = .05:")
    print(f"rho* = {value:.6f}, d rho* / d leak = {slope:.6f}")


if __name__ == "__main__":
    main()
